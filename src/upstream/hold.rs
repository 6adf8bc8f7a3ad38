//! Holding an answer back until it is safe to pass on: a stream until its first event, a plain answer until it is
//! whole. What breaks before that is retried, and the client notices nothing.

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use tokio::sync::mpsc;

use super::attempt::Answered;
use super::conversation::{Conversation, Loss};
use super::target::Target;
use crate::admission::Permit;
use crate::answer::{Chunk, Cut, Ending, Head, Trace, Upgraded};
use crate::memory::{Held, Memory};
use crate::metrics::{MemoryKind, UpstreamMetrics};
use crate::openai::{Event, Frame, Framer, Route, Terminal, Usage};
use crate::time::{self, Duration};

/// A plain answer is held back up to this size; what is longer streams from here on.
const HELD_MAX: usize = 4 << 20;
/// Comments before the first event are held back up to this size.
const COMMENTS_MAX: usize = 64 * 1024;
/// What is shorter, such as most events, is not worth counting.
const FREE: usize = 4 * 1024;
const JSON: &str = "application/json";

/// What the client can be given.
pub(super) enum Landed {
    /// Everything.
    Whole(Head, Bytes),
    /// The head, what is there of the body, and where the rest comes from.
    Begun(Head, Vec<Bytes>, Box<Rest>),
    /// A 101, and the connection that it switched.
    Upgraded(Head, Box<dyn Upgraded>),
}

/// How an answer is to be treated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handling {
    pub(super) route: Route,
    /// Whose usage it reports: its route's, or that of the one it resembles.
    pub(super) usage_of: Route,
    /// How many answers the stream carries.
    pub(super) choices: u64,
    /// Worth holding back: a broken one can be asked for again.
    pub(super) repeatable: bool,
    /// `upstreams.first_byte_timeout`: for the first byte of the body, too. Many providers send the head at once, and think then.
    pub(super) first_byte_timeout: Duration,
    /// `upstreams.idle_timeout`.
    pub(super) idle_timeout: Duration,
    /// It answers a HEAD.
    pub(super) is_head: bool,
    /// The client wants to be told the usage at the end of its stream.
    pub(super) include_usage: bool,
}

impl Handling {
    fn has_body(self, head: &Head) -> bool {
        !self.is_head && !matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    }
}

/// Holds an answer back as far as that helps. Dropping the future cuts the exchange.
pub(super) async fn hold_back(
    answered: Answered,
    handling: Handling,
    target: &Target,
    trace: &Trace,
    memory: &Memory,
) -> Result<Landed, (Cut, Loss)> {
    let Answered { head, conversation, permit } = answered;
    let events = head.is_event_stream().then(|| Events::new(handling));
    // What is not repeatable is still worth holding if it says at its end what it has used.
    let holds = handling.repeatable || handling.usage_of.is_generation();
    let whole = holds && events.is_none() && is_worth_holding(&head);
    let rest = Rest::new(conversation, permit, events, handling, target, trace);
    if whole {
        hold_whole(head, rest, handling, memory.share(MemoryKind::Flights)).await
    } else if handling.repeatable && rest.events.is_some() {
        hold_first_event(head, rest, handling).await
    } else {
        Ok(Landed::Begun(head, Vec::new(), Box::new(rest)))
    }
}

/// What [`read_short`] has read.
pub(super) enum Short {
    /// The whole body.
    Whole(Bytes),
    /// The beginning of one that is longer, or takes longer.
    Beginning(Bytes),
}

/// Reads a short answer, such as an error, to its end, but no more than about `max` bytes and for no longer than `limit`.
pub(super) async fn read_short(conversation: &mut Conversation, max: usize, limit: Duration) -> Result<Short, Loss> {
    let (until, mut body) = (time::now() + limit, BytesMut::new());
    while body.len() <= max {
        match tokio::time::timeout_at(until, conversation.read_body()).await {
            Ok(Ok(Some(bytes))) => body.extend_from_slice(&bytes),
            Ok(Ok(None)) => return Ok(Short::Whole(body.freeze())),
            Ok(Err(loss)) => return Err(loss),
            Err(_elapsed) => break,
        }
    }
    Ok(Short::Beginning(body.freeze()))
}

/// An answer of which the beginning was read, and the rest is not worth holding back.
pub(super) fn pass_on(
    answered: Answered,
    beginning: Bytes,
    handling: Handling,
    target: &Target,
    trace: &Trace,
) -> Landed {
    let Answered { head, conversation, permit } = answered;
    let rest = Rest::new(conversation, permit, None, handling, target, trace);
    Landed::Begun(head, vec![beginning], Box::new(rest))
}

async fn hold_whole(head: Head, mut rest: Rest, handling: Handling, mut share: Held) -> Result<Landed, (Cut, Loss)> {
    let mut body = Vec::new();
    loop {
        let bytes = match rest.read().await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => break,
            Err(cut) => return Err(cut),
        };
        body.extend_from_slice(&bytes);
        let fits = share.grow(u64::try_from(bytes.len()).unwrap_or(u64::MAX)).is_ok();
        if !fits || body.len() > HELD_MAX {
            return Ok(Landed::Begun(head, vec![share.keep(body)], Box::new(rest)));
        }
    }
    if handling.has_body(&head)
        && rest.conversation.ends_with_connection()
        && head.is_readable(JSON)
        && !is_complete_json(&body)
    {
        return Err((Cut::Unfinished, Loss::new("EOF in the middle of a JSON document")));
    }
    if handling.usage_of.is_generation() && head.status == StatusCode::OK {
        rest.note_usage(Usage::of_body(&body), true);
    }
    rest.end().await;
    Ok(Landed::Whole(head, share.keep(body)))
}

async fn hold_first_event(head: Head, mut rest: Rest, handling: Handling) -> Result<Landed, (Cut, Loss)> {
    let (mut held, mut size, until) = (Vec::new(), 0, time::now() + handling.first_byte_timeout);
    loop {
        if time::now() >= until {
            return Err((Cut::Stalled, Loss::new("no event within first_byte_timeout")));
        }
        let bytes = match rest.read().await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                held.extend(rest.last_bytes());
                if !rest.is_finished() {
                    return Err((Cut::Unfinished, Loss::new("the stream ended before its first event")));
                }
                rest.note_usage_of_events(true);
                rest.end().await;
                return Ok(Landed::Whole(head, held.concat().into()));
            }
            Err(cut) => return Err(cut),
        };
        size += bytes.len();
        let mut begun = size > COMMENTS_MAX;
        for frame in rest.frames(bytes) {
            begun |= !matches!(&frame, Frame::Event(bytes) if is_empty_event(bytes));
            held.push(frame.into_bytes());
        }
        if begun {
            return Ok(Landed::Begun(head, held, Box::new(rest)));
        }
    }
}

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

    /// Whether nothing is missing that the client asked for.
    fn is_complete(&self) -> bool {
        let Self { terminal, include_usage, .. } = self;
        terminal.is_complete() && (!include_usage || terminal.usage().is_some() || terminal.is_done())
    }

    /// Whether the stream itself has said that it is over.
    fn said_that_it_is_over(&self) -> bool {
        self.terminal.ending().is_some() && self.is_complete()
    }
}

impl Rest {
    fn new(
        conversation: Conversation,
        permit: Permit,
        events: Option<Events>,
        handling: Handling,
        target: &Target,
        trace: &Trace,
    ) -> Self {
        let Handling { usage_of, first_byte_timeout, idle_timeout, .. } = handling;
        let (trace, metrics, has_begun, usage) = (trace.clone(), target.metrics.clone(), false, None);
        Self {
            conversation,
            permit,
            events,
            first_byte_timeout,
            idle_timeout,
            has_begun,
            usage,
            usage_of,
            trace,
            metrics,
        }
    }

    /// Passes the rest on, event by event, and says how it ended. When the subscriber has gone it just stops.
    pub(super) async fn relay(mut self, chunks: &mpsc::Sender<Chunk>, memory: &Memory) {
        let cut = loop {
            match self.read().await {
                Ok(Some(bytes)) => {
                    for bytes in self.pieces(bytes) {
                        if hand_over(bytes, chunks, memory).await.is_err() {
                            return;
                        }
                    }
                }
                Ok(None) => {
                    let rest = self.last_bytes();
                    if !self.is_finished() {
                        break Some(Cut::Unfinished); // without half an event, which would swallow what follows it
                    }
                    if let Some(bytes) = rest
                        && chunks.send(Chunk::Data(bytes)).await.is_err()
                    {
                        return;
                    }
                    break None;
                }
                // What broke after the stream had said that it was over has cost the client nothing.
                Err((cut, _)) => break Some(cut).filter(|_| !self.said_that_it_is_over()),
            }
        };
        let ending = cut.map_or(Ending::Complete, Ending::Truncated);
        self.note_usage_of_events(cut.is_none());
        if cut.is_none() && self.conversation.is_read() {
            self.end().await;
        } else {
            self.trace.note(|facts| facts.upstream_ended = Some(time::now()));
            drop(self);
        }
        // A subscriber that has gone needs no ending.
        drop(chunks.send(Chunk::End(ending)).await);
    }

    async fn read(&mut self) -> Result<Option<Bytes>, (Cut, Loss)> {
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

    fn frames(&mut self, bytes: Bytes) -> Vec<Frame> {
        let Some(Events { framer, terminal, .. }) = &mut self.events else {
            return vec![Frame::Part { bytes, last: false }];
        };
        let frames = framer.push(bytes).inspect(|frame| terminal.observe(frame)).collect();
        // At once: many clients leave with the last event, and what the provider does then is not seen any more.
        if self.said_that_it_is_over() {
            self.note_usage_of_events(true);
        }
        frames
    }

    fn pieces(&mut self, bytes: Bytes) -> Vec<Bytes> {
        match self.events {
            Some(_) => self.frames(bytes).into_iter().map(Frame::into_bytes).collect(),
            None => vec![bytes],
        }
    }

    /// What is left in the framer at the end of the stream.
    fn last_bytes(&mut self) -> Option<Bytes> {
        let Events { framer, terminal, .. } = self.events.as_mut()?;
        let frame = framer.finish()?;
        terminal.observe_event(frame.bytes());
        Some(frame.into_bytes())
    }

    /// Whether a clean EOF here is a proper end.
    fn is_finished(&self) -> bool {
        self.events.as_ref().is_none_or(Events::is_complete)
    }

    fn said_that_it_is_over(&self) -> bool {
        self.events.as_ref().is_some_and(Events::said_that_it_is_over)
    }

    fn note_usage_of_events(&mut self, is_over: bool) {
        let usage = self.events.as_ref().and_then(|events| events.terminal.usage());
        self.note_usage(usage, is_over);
    }

    /// `is_over`: these are the last figures; in a stream that broke off they are not, and settle nothing.
    fn note_usage(&mut self, usage: Option<Usage>, is_over: bool) {
        let Some(usage) = usage.filter(|usage| self.usage != Some(*usage)) else { return };
        self.trace.note(|facts| facts.usage = Some(usage));
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

    /// The exchange has ended by itself.
    async fn end(self) {
        self.conversation.release().await;
        self.permit.ended();
        self.trace.note(|facts| facts.upstream_ended = Some(time::now()));
    }
}

/// Hands a subscriber the next bytes. Large ones pay for the memory they take while it does not read; where there is no
/// room they wait until it has read all that came before.
async fn hand_over(
    bytes: Bytes,
    chunks: &mpsc::Sender<Chunk>,
    memory: &Memory,
) -> Result<(), mpsc::error::SendError<()>> {
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

/// A JSON document is read whole by its reader anyway, and a short body costs little to hold; anything else may be meant
/// to be consumed as it comes.
fn is_worth_holding(head: &Head) -> bool {
    let length = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    length.map_or_else(|| head.is_readable(JSON), |length| length <= HELD_MAX)
}

fn is_complete_json(body: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
}

fn is_empty_event(bytes: &[u8]) -> bool {
    let event = Event::new(bytes);
    event.is_comment_only() || event.data().is_empty()
}
