//! What is still to come of an answer: read from the provider, watched for its proper end, handed to whoever asked.

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::mpsc;

use super::conversation::{Conversation, Loss};
use super::hold::Handling;
use super::recovery::Record;
use super::target::Target;
use crate::admission::Permit;
use crate::answer::{Chunk, Cut, Trace};
use crate::memory::Memory;
use crate::metrics::{DisconnectPhase, MemoryKind, UpstreamMetrics};
use crate::openai::continuation::Misfit;
use crate::openai::{Frame, Framer, Route, Terminal, Usage};
use crate::time::{self, Duration};

/// What is shorter, such as most events, is not worth counting.
const FREE: usize = 4 * 1024;

/// The part of an answer that is still to come. Dropping it cuts the exchange.
pub(super) struct Rest {
    conversation: Conversation,
    permit: Permit,
    events: Option<Events>,
    first_byte_timeout: Duration,
    idle_timeout: Duration,
    has_begun: bool,
    /// What the answer was said to have used.
    usage: Option<Usage>,
    usage_of: Route,
    /// It is spliced on to another, so that what it used is not what the answer used: its record knows that.
    is_spliced: bool,
    trace: Trace,
    metrics: UpstreamMetrics,
}

/// The reading of an event stream.
struct Events {
    framer: Framer,
    terminal: Terminal,
    include_usage: bool,
}

impl Events {
    fn new(handling: Handling) -> Self {
        let terminal = Terminal::for_route(handling.route).expecting(handling.choices);
        Self { framer: Framer::default(), terminal, include_usage: handling.include_usage }
    }

    /// Whether nothing is missing of the answer. Its usage may be: "if the stream is interrupted, you may not receive the
    /// final usage chunk" (OpenAI, Create chat completion, `stream_options`).
    fn is_complete(&self) -> bool {
        self.terminal.is_complete()
    }

    /// Whether the stream itself has said that it is over, and nothing that the client asked for is to come.
    fn said_that_it_is_over(&self) -> bool {
        let Self { terminal, include_usage, .. } = self;
        let has_all = !include_usage || terminal.usage().is_some() || terminal.is_done();
        terminal.ending().is_some() && has_all
    }

    /// Whether the answer is all there, whatever may have been to follow it.
    fn has_ended(&self) -> bool {
        self.terminal.ending().is_some()
    }
}

/// How the passing on of an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    /// All of it, to its proper end.
    Whole,
    /// The provider broke it off.
    Broken(Cut),
    /// What came does not fit to what was passed on before.
    Misfit(Misfit),
    /// There is no memory to hold back what may be a part of what was passed on before.
    NoRoom,
    /// Whoever asked has gone.
    Nobody,
}

/// Where an answer goes.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) chunks: mpsc::Sender<Chunk>,
    pub(super) memory: Memory,
}

impl Outlet {
    /// Passes a frame on, as the record of the stream has it. Says why no more can be passed on.
    pub(super) async fn pass(&self, frame: Frame, record: Option<&mut Record>) -> Result<(), Passed> {
        let gone = |_| Passed::Nobody;
        match record {
            None => self.hand_over(frame.into_bytes()).await.map_err(gone),
            Some(record) => {
                for frame in record.fit(frame)? {
                    record.note(&frame);
                    self.hand_over(frame.into_bytes()).await.map_err(gone)?;
                }
                Ok(())
            }
        }
    }

    /// Hands a subscriber the next bytes. Large ones pay for the memory they take while it does not read; where there is no
    /// room they wait until it has read all that came before.
    async fn hand_over(&self, bytes: Bytes) -> Result<(), mpsc::error::SendError<()>> {
        let Self { chunks, memory } = self;
        let bytes = if bytes.len() < FREE { Ok(bytes) } else { memory.pay(MemoryKind::Flights, bytes) };
        match bytes {
            Ok(bytes) => chunks.reserve().await?.send(Chunk::Data(bytes)),
            Err(bytes) => {
                if let Some(place) = chunks.reserve_many(chunks.max_capacity()).await?.next() {
                    place.send(Chunk::Data(bytes));
                }
            }
        }
        Ok(())
    }
}

impl Rest {
    pub(super) fn new(
        conversation: Conversation,
        permit: Permit,
        is_stream: bool,
        handling: Handling,
        target: &Target,
        trace: &Trace,
    ) -> Self {
        Self {
            conversation,
            permit,
            events: is_stream.then(|| Events::new(handling)),
            first_byte_timeout: handling.first_byte_timeout,
            idle_timeout: handling.idle_timeout,
            has_begun: false,
            usage: None,
            usage_of: handling.usage_of,
            is_spliced: false,
            trace: trace.clone(),
            metrics: target.metrics.clone(),
        }
    }

    /// Passes the rest on, event by event. `record` takes note of it, and has it fit to what was passed on before.
    pub(super) async fn relay(mut self, outlet: &Outlet, mut record: Option<&mut Record>) -> Passed {
        self.is_spliced = record.as_ref().is_some_and(|record| record.is_spliced());
        let passed = loop {
            // Now: many clients leave with the last event, and what the provider does then is not seen any more.
            if self.said_that_it_is_over()
                && let Some(record) = record.as_deref_mut()
            {
                record.settle(true);
            }
            match self.read().await {
                Ok(Some(bytes)) => {
                    for frame in self.frames(bytes) {
                        if let Err(passed) = outlet.pass(frame, record.as_deref_mut()).await {
                            return passed;
                        }
                    }
                }
                Ok(None) => {
                    let last = self.last_frame();
                    if !self.is_finished() {
                        break Passed::Broken(Cut::Unfinished); // without half an event, which would swallow what follows it
                    }
                    if let Some(frame) = last.map(|frame| if record.is_some() { whole(frame) } else { frame })
                        && let Err(passed) = outlet.pass(frame, record.as_deref_mut()).await
                    {
                        return passed;
                    }
                    break Passed::Whole;
                }
                // What broke after the answer was over has cost the client nothing.
                Err(_) if self.events.as_ref().is_some_and(Events::has_ended) => break Passed::Whole,
                Err((cut, _)) => break Passed::Broken(cut),
            }
        };
        if let Passed::Broken(Cut::Disconnected | Cut::Unfinished) = passed {
            self.metrics.disconnect(DisconnectPhase::MidStream);
        }
        self.note_usage_of_events(passed == Passed::Whole);
        if passed == Passed::Whole && self.conversation.is_read() {
            self.end().await;
        } else {
            self.trace.note(|facts| facts.upstream_ended = Some(time::now()));
            drop(self);
        }
        passed
    }

    /// The next bytes; `None` at the end. Dropping the future loses nothing.
    pub(super) async fn read(&mut self) -> Result<Option<Bytes>, (Cut, Loss)> {
        let (limit, name) = match self.has_begun {
            true => (self.idle_timeout, "idle_timeout"),
            false => (self.first_byte_timeout, "first_byte_timeout"),
        };
        match tokio::time::timeout(limit, self.conversation.read_body()).await {
            Ok(Ok(read)) => {
                self.has_begun = true;
                Ok(read)
            }
            Ok(Err(loss)) => Err((Cut::Disconnected, loss)),
            Err(_elapsed) => Err((Cut::Stalled, Loss::new(name))),
        }
    }

    pub(super) fn frames(&mut self, bytes: Bytes) -> Vec<Frame> {
        let Some(Events { framer, terminal, .. }) = &mut self.events else {
            return vec![Frame::Part { bytes, last: false }];
        };
        let frames = framer.push(bytes).inspect(|frame| terminal.observe(frame)).collect();
        // At once, as in `relay`.
        if self.said_that_it_is_over() {
            self.note_usage_of_events(true);
        }
        frames
    }

    /// What is left in the framer at the end of the stream.
    pub(super) fn last_frame(&mut self) -> Option<Frame> {
        let Events { framer, terminal, .. } = self.events.as_mut()?;
        let frame = framer.finish()?;
        terminal.observe_event(frame.bytes());
        Some(frame)
    }

    /// Whether a clean EOF here is a proper end.
    pub(super) fn is_finished(&self) -> bool {
        self.events.as_ref().is_none_or(Events::is_complete)
    }

    /// Whether its end, if it comes as EOF, may be a break.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.conversation.ends_with_connection()
    }

    pub(super) fn said_that_it_is_over(&self) -> bool {
        self.events.as_ref().is_some_and(Events::said_that_it_is_over)
    }

    pub(super) fn note_usage_of_events(&mut self, is_over: bool) {
        let usage = self.events.as_ref().and_then(|events| events.terminal.usage());
        self.note_usage(usage, is_over);
    }

    /// `is_over`: these are the last figures; in a stream that broke off they are not, and settle nothing.
    pub(super) fn note_usage(&mut self, usage: Option<Usage>, is_over: bool) {
        let Some(usage) = usage.filter(|usage| self.usage != Some(*usage)) else { return };
        if !self.is_spliced {
            self.trace.note(|facts| facts.usage = Some(usage));
        }
        if self.usage.replace(usage).is_none() {
            self.metrics.tokens(usage);
        }
        // One figure alone is not all that was used, unless the answer has no tokens.
        let has_answer = usage.completion_tokens.is_some() || self.usage_of == Route::Embeddings;
        let is_known = usage.prompt_tokens.is_some() && has_answer;
        if let Some(total) = usage.total().filter(|_| is_known && is_over) {
            self.permit.used(total);
        }
    }

    /// The answer can be passed on: its breaker hears of it.
    pub(super) fn provider_answered(&mut self, status: StatusCode) {
        if status.is_server_error() {
            self.permit.failed();
        } else {
            self.permit.answered();
        }
    }

    /// The exchange has ended by itself.
    pub(super) async fn end(self) {
        self.conversation.release().await;
        self.permit.ended();
        self.trace.note(|facts| facts.upstream_ended = Some(time::now()));
    }

    /// Closes the connection; the permit is still to be judged.
    pub(super) fn break_off(self) -> Permit {
        let Self { conversation, permit, .. } = self;
        drop(conversation);
        permit
    }
}

/// The last event of a stream, with the blank line that it lacks: what is spliced on consists of whole events.
pub(super) fn whole(frame: Frame) -> Frame {
    match frame {
        Frame::Part { bytes, last: false } => Frame::Event([&bytes[..], b"\n\n"].concat().into()),
        whole => whole,
    }
}
