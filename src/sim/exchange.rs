//! The life of one request: arrived, read, counted, ruled upon, answered.

mod failing;
mod pace;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;

use super::answer::{Answer, Payload, answer};
use super::control;
use super::fault::FaultKind;
use super::judge::Ruling;
use super::outage::Outage;
use super::provider::{Provider, Slot};
use super::realtime;
use super::reply::{Head, Reply};
use super::settings::Violation;
use super::wire::{Connection, Framing, RequestHead, WireError};
use crate::time::{Duration, Instant, now};
use pace::Pace;

const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// So much of an answer at most is written in the step that gives the slot back.
const LAST_WRITE_BYTES: usize = 16 * 1024;
const STALL_MAX: Duration = Duration::from_secs(600);
/// So long a connection that is refused may show that it is one of those that are not: it asks for `/sim/…`.
const BEFORE_REFUSAL: Duration = Duration::from_millis(50);

/// Serves a connection until either side ends it. Dropping the future closes it and gives its slot back.
pub(super) async fn serve(provider: Arc<Provider>, stream: TcpStream) {
    let (mut connection, mut is_ours) = (Connection::new(stream), false);
    loop {
        let head = tokio::select! {
            biased;
            head = connection.request_head() => head,
            () = refused(&provider), if !is_ours => {
                provider.note_refused();
                return connection.reset();
            }
        };
        let head = match head {
            Ok(Some(head)) => head,
            Ok(None) => return,
            Err(error) => return refuse_malformed(&provider, connection, &error).await,
        };
        is_ours = control::is_ours(&head);
        let next = if is_ours {
            control::serve(&provider, connection, &head).await
        } else if provider.down() == Some(Outage::Refuse) {
            provider.note_refused();
            return connection.reset();
        } else {
            serve_one(&provider, connection, head).await
        };
        let Some(next) = next else { return };
        connection = next;
    }
}

/// Returns when an idle connection is to be refused. Dropping the future loses nothing.
async fn refused(provider: &Provider) {
    provider.refuses().await;
    tokio::time::sleep(BEFORE_REFUSAL).await;
}

/// Serves a request; the connection comes back if another may follow.
async fn serve_one(provider: &Arc<Provider>, connection: Connection, head: RequestHead) -> Option<Connection> {
    let slot = provider.arrive(&head);
    let mut exchange = Exchange { provider, connection, head, slot };
    let outcome = exchange.run().await;
    let Exchange { connection, head, mut slot, .. } = exchange;
    match outcome {
        Ok(Ending::Delivered) => return head.keeps_alive().then_some(connection),
        Ok(Ending::Eof) => {
            slot.give_back();
            connection.close().await;
        }
        Ok(Ending::Reset) => {
            slot.give_back();
            connection.reset();
        }
        Err(Gone { at }) => {
            drop(connection);
            provider.note_hangup();
            tokio::time::sleep_until(at + provider.settings.disconnect_lag).await;
            drop(slot);
        }
    }
    None
}

async fn refuse_malformed(provider: &Provider, mut connection: Connection, error: &WireError) {
    let status = match error {
        WireError::Io(_) | WireError::Ended => return,
        WireError::Malformed(_) => "400 Bad Request",
        WireError::TooLarge(_) => "431 Request Header Fields Too Large",
    };
    provider.note_malformed();
    let reply = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    if connection.write(reply.as_bytes()).await.is_ok() {
        connection.close().await;
    }
}

/// How an exchange ended, from our side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The answer was written to its last byte, and the slot given back with it.
    Delivered,
    /// The connection is to end here.
    Eof,
    /// The connection is to be reset here.
    Reset,
}

/// The client ended the connection.
#[derive(Debug, Clone, Copy)]
struct Gone {
    at: Instant,
}

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
        Self { at: now() }
    }
}

struct Exchange<'a> {
    provider: &'a Arc<Provider>,
    connection: Connection,
    head: RequestHead,
    slot: Slot,
}

impl Exchange<'_> {
    async fn run(&mut self) -> Result<Ending, Gone> {
        let body = match self.body().await? {
            Ok(body) => body,
            Err(problem) => {
                self.provider.note_malformed();
                return self.reply(&problem).await.map(|_| Ending::Eof);
            }
        };
        let mut luck = self.luck();
        let answer = answer(&self.head, &body, self.provider.settings.continuation);
        drop(body);
        let outage = self.provider.watch_outages();
        let ruling = self.count(answer.tokens, luck.f64()).await?;
        if let Some(outage) = self.provider.down() {
            return self.be_down(outage).await;
        }
        if ruling != Ruling::Admitted {
            return self.refuse().await;
        }
        if self.provider.is_revoked(&self.head) {
            return self.reply(&Reply::unknown_key()).await;
        }
        let (drawn_latency, drawn_fault) =
            (self.provider.settings.latency.draw(luck.f64()), self.provider.draw_fault(luck.f64()));
        let pace = Pace { start: now(), latency: answer.directives.latency.unwrap_or(drawn_latency) };
        let fault = self.fault(&answer, drawn_fault);
        tokio::select! {
            biased;
            () = outage.cuts() => Ok(Ending::Reset),
            ending = self.respond(answer, fault, pace, luck.f64()) => ending,
        }
    }

    /// What goes wrong: what the request wishes, unless it has had its fault, else what was drawn.
    fn fault(&self, answer: &Answer, drawn: Option<FaultKind>) -> Option<FaultKind> {
        let fault = answer.directives.fault.unwrap_or(drawn);
        let wished = answer.directives.fault.flatten().filter(|_| answer.directives.fault_once);
        match wished {
            Some(wished) if !self.provider.is_first(answer.identity, wished) => None,
            _ => fault,
        }
    }

    async fn respond(
        &mut self,
        answer: Answer,
        fault: Option<FaultKind>,
        pace: Pace,
        luck: f64,
    ) -> Result<Ending, Gone> {
        let handshake = realtime::handshake_key(&self.head).map(str::to_owned);
        match (fault, handshake) {
            (None, None) => self.deliver(answer, pace).await,
            (None, Some(key)) => self.converse(&key, pace).await,
            (Some(fault), handshake) => self.fail(fault, answer, handshake, pace, luck).await,
        }
    }

    /// What everybody gets while the provider is down.
    async fn be_down(&mut self, outage: Outage) -> Result<Ending, Gone> {
        match outage {
            Outage::Refuse | Outage::Reset => Ok(Ending::Reset),
            Outage::Unavailable => self.reply(&failing::error_status(503)).await,
            Outage::Hang => self.silence().await,
        }
    }

    /// The same for the n-th request of every run with the same seed.
    fn luck(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.provider.settings.seed ^ self.slot.ordinal.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    async fn body(&mut self) -> Result<Result<Bytes, Reply>, Gone> {
        if self.head.expects_continue() {
            self.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        match self.connection.whole_body(self.head.framing, BODY_BYTES_MAX).await {
            Ok(body) => Ok(Ok(body)),
            Err(WireError::Io(_) | WireError::Ended) => Err(Gone { at: now() }),
            Err(error @ WireError::Malformed(_)) => Ok(Err(Reply::bad_request(&error.to_string()))),
            Err(error @ WireError::TooLarge(_)) => {
                Ok(Err(Reply::error(413, "invalid_request_error", None, &error.to_string())))
            }
        }
    }

    /// Lets the jitter pass and counts the request then, also when its client left meanwhile: it was sent.
    async fn count(&mut self, tokens: u32, luck: f64) -> Result<Ruling, Gone> {
        let due = now() + self.provider.settings.arrival_jitter.mul_f64(luck);
        let gone = self.pause_until(due).await.err();
        if gone.is_some() {
            tokio::time::sleep_until(due).await;
        }
        let ruling = self.provider.count(&self.slot, tokens);
        gone.map_or(Ok(ruling), Err)
    }

    async fn refuse(&mut self) -> Result<Ending, Gone> {
        let reply = match self.provider.settings.on_violation {
            Violation::Reset => return Ok(Ending::Reset),
            Violation::NotFound => Reply::not_found(),
            Violation::TooMany => {
                let left = self.provider.penalty_left(&self.slot);
                Reply::too_many(left.as_secs() + 1)
            }
        };
        self.reply(&reply).await
    }

    async fn deliver(&mut self, answer: Answer, pace: Pace) -> Result<Ending, Gone> {
        match answer.payload {
            Payload::Whole(reply) => {
                self.pause_until(pace.end()).await?;
                self.slot.completes = true;
                self.reply(&reply).await
            }
            Payload::Stream { events, .. } => {
                self.stream(&events, events.len(), pace).await?;
                self.slot.completes = true;
                let chunked = self.stream_framing() == Framing::Chunked;
                self.write_last(if chunked { b"0\r\n\r\n" } else { b"" }).await?;
                Ok(if chunked { Ending::Delivered } else { Ending::Eof })
            }
        }
    }

    /// A WebSocket until its client says Close, or leaves.
    async fn converse(&mut self, key: &str, pace: Pace) -> Result<Ending, Gone> {
        self.pause_until(pace.head()).await?;
        self.connection.write(realtime::switching(key, self.slot.ordinal).as_bytes()).await?;
        match realtime::echo(&mut self.connection, None).await {
            Ok(close) => {
                self.slot.completes = true;
                self.write_last(&close.unwrap_or_default()).await?;
                Ok(Ending::Eof)
            }
            Err(error) => self.misunderstood(&error),
        }
    }

    /// A WebSocket that cannot go on.
    fn misunderstood(&self, error: &WireError) -> Result<Ending, Gone> {
        match error {
            WireError::Io(_) | WireError::Ended => Err(Gone { at: now() }),
            WireError::Malformed(_) | WireError::TooLarge(_) => {
                self.provider.note_malformed();
                Ok(Ending::Reset)
            }
        }
    }

    /// Not a byte, until the client leaves or ten minutes have passed.
    async fn silence(&mut self) -> Result<Ending, Gone> {
        self.pause_until(now() + STALL_MAX).await?;
        Ok(Ending::Eof)
    }

    /// Writes the head of a stream and the first `count` of its events, each when its time has come.
    async fn stream(&mut self, events: &[Bytes], count: usize, pace: Pace) -> Result<(), Gone> {
        self.pause_until(pace.head()).await?;
        let framing = self.stream_framing();
        let head = Head::new(200, "text/event-stream; charset=utf-8", &self.head, self.slot.ordinal);
        self.connection.write(&head.end(framing)).await?;
        for (index, event) in events.iter().take(count).enumerate() {
            self.pause_until(pace.event(index, events.len())).await?;
            self.write_some(event).await?;
        }
        Ok(())
    }

    /// Writes some of a stream, as it is framed.
    async fn write_some(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.stream_framing() {
            Framing::Chunked => self.connection.write(&chunk(bytes)).await,
            Framing::Empty | Framing::Length(_) | Framing::UntilClose => self.connection.write(bytes).await,
        }
    }

    fn stream_framing(&self) -> Framing {
        if self.head.http_1_0 { Framing::UntilClose } else { Framing::Chunked }
    }

    async fn reply(&mut self, reply: &Reply) -> Result<Ending, Gone> {
        let bytes = reply.bytes(&self.head, self.slot.ordinal);
        self.write_last(&bytes).await?;
        Ok(Ending::Delivered)
    }

    /// Writes the last bytes of an answer, and gives the slot back with the very last.
    async fn write_last(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        let (first, mut last) = bytes.split_at(bytes.len().saturating_sub(LAST_WRITE_BYTES));
        self.connection.write(first).await?;
        loop {
            let written = self.slot.write_and_give_back(&self.connection, last)?;
            last = &last[written..];
            if last.is_empty() {
                return Ok(());
            }
            self.connection.writable().await?;
        }
    }

    /// Waits, and notices at once when the client leaves.
    async fn pause_until(&mut self, due: Instant) -> Result<(), Gone> {
        if due <= now() {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = self.connection.hung_up() => Err(Gone { at: now() }),
            () = tokio::time::sleep_until(due) => Ok(()),
        }
    }
}

fn chunk(event: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", event.len()).into_bytes();
    chunk.extend_from_slice(event);
    chunk.extend_from_slice(b"\r\n");
    chunk
}
