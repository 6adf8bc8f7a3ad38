//! The life of one request: arrived, read, counted, ruled upon, answered.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;

use super::answer::{Answer, Payload, answer};
use super::control;
use super::judge::Ruling;
use super::provider::{Provider, Slot};
use super::realtime;
use super::reply::{Head, Reply};
use super::settings::{FaultKind, Violation};
use super::wire::{Connection, Framing, RequestHead, WireError};
use crate::time::{Duration, Instant, now};

const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// So much of an answer at most is written in the step that gives the slot back.
const LAST_WRITE_BYTES: usize = 16 * 1024;
const STALL_MAX: Duration = Duration::from_secs(600);
/// Between the last written byte and a reset, which would overtake it.
const BEFORE_RESET: Duration = Duration::from_millis(10);

/// Serves a connection until either side ends it. Dropping the future closes it and gives its slot back.
pub(super) async fn serve(provider: Arc<Provider>, stream: TcpStream) {
    let mut connection = Connection::new(stream);
    while let Some(next) = serve_one(&provider, connection).await {
        connection = next;
    }
}

/// Serves the next request; the connection comes back if another may follow.
async fn serve_one(provider: &Arc<Provider>, mut connection: Connection) -> Option<Connection> {
    let head = match connection.request_head().await {
        Ok(head) => head?,
        Err(error) => {
            refuse_malformed(provider, connection, &error).await;
            return None;
        }
    };
    if control::is_ours(&head) {
        return control::serve(provider, connection, &head).await;
    }
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
        let answer = answer(&self.head, &body);
        drop(body);
        let ruling = self.count(answer.tokens, luck.f64()).await?;
        if ruling != Ruling::Admitted {
            return self.refuse().await;
        }
        let (drawn_latency, drawn_fault) =
            (self.provider.settings.latency.draw(luck.f64()), self.provider.draw_fault(luck.f64()));
        let pace = Pace { start: now(), latency: answer.directives.latency.unwrap_or(drawn_latency) };
        match answer.directives.fault.unwrap_or(drawn_fault) {
            Some(fault) => self.fail(fault, answer, pace, luck.f64()).await,
            None => match realtime::handshake_key(&self.head).map(str::to_owned) {
                Some(key) => self.converse(&key, pace).await,
                None => self.deliver(answer, pace).await,
            },
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
            Payload::Stream(events) => {
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
        match realtime::echo(&mut self.connection).await {
            Ok(close) => {
                self.slot.completes = true;
                self.write_last(&close).await?;
                Ok(Ending::Eof)
            }
            Err(WireError::Io(_) | WireError::Ended) => Err(Gone { at: now() }),
            Err(WireError::Malformed(_) | WireError::TooLarge(_)) => {
                self.provider.note_malformed();
                Ok(Ending::Reset)
            }
        }
    }

    async fn fail(&mut self, fault: FaultKind, answer: Answer, pace: Pace, luck: f64) -> Result<Ending, Gone> {
        self.provider.note_fault(fault);
        let ending = match fault {
            FaultKind::ResetBeforeHead | FaultKind::ResetBeforeFirstEvent | FaultKind::ResetMidStream => Ending::Reset,
            _ => Ending::Eof,
        };
        match fault {
            FaultKind::Stall => self.pause_until(now() + STALL_MAX).await?,
            FaultKind::ResetBeforeHead | FaultKind::EofBeforeHead => self.pause_until(pace.head()).await?,
            FaultKind::ResetBeforeFirstEvent | FaultKind::EofBeforeFirstEvent => {
                self.part(&answer.payload, 0.0, pace).await?;
            }
            FaultKind::ResetMidStream | FaultKind::EofMidStream => self.part(&answer.payload, luck, pace).await?,
            FaultKind::Status500 | FaultKind::Status503 | FaultKind::Status429 => {
                self.pause_until(pace.head()).await?;
                return self.reply(&error_status(fault)).await;
            }
        }
        if ending == Ending::Reset {
            self.pause_until(now() + BEFORE_RESET).await?;
        }
        Ok(ending)
    }

    /// Writes the head and some of the answer: nothing for a share of 0, else half of a plain answer, and of a stream
    /// three events at least but not its last two.
    async fn part(&mut self, payload: &Payload, share: f64, pace: Pace) -> Result<(), Gone> {
        match payload {
            Payload::Stream(events) => {
                let most = events.len().saturating_sub(2);
                let count = if share == 0.0 { 0 } else { between(3.min(most), most, share) };
                self.stream(events, count, pace).await
            }
            Payload::Whole(reply) => {
                self.pause_until(pace.head()).await?;
                let bytes = reply.bytes(&self.head, self.slot.ordinal);
                let body = if self.head.method == "HEAD" { 0 } else { reply.body.len() };
                let written = bytes.len() - if share == 0.0 { body } else { body.div_ceil(2) };
                Ok(self.connection.write(&bytes[..written]).await?)
            }
        }
    }

    /// Writes the head of a stream and the first `count` of its events, each when its time has come.
    async fn stream(&mut self, events: &[Bytes], count: usize, pace: Pace) -> Result<(), Gone> {
        self.pause_until(pace.head()).await?;
        let framing = self.stream_framing();
        let head = Head::new(200, "text/event-stream; charset=utf-8", &self.head, self.slot.ordinal);
        self.connection.write(&head.end(framing)).await?;
        for (index, event) in events.iter().take(count).enumerate() {
            self.pause_until(pace.event(index, events.len())).await?;
            match framing {
                Framing::Chunked => self.connection.write(&chunk(event)).await?,
                Framing::Empty | Framing::Length(_) | Framing::UntilClose => self.connection.write(event).await?,
            }
        }
        Ok(())
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

/// When the parts of an answer are due.
#[derive(Debug, Clone, Copy)]
struct Pace {
    start: Instant,
    latency: Duration,
}

impl Pace {
    const HEAD_SHARE: f64 = 0.3;

    fn head(self) -> Instant {
        self.start + self.latency.mul_f64(Self::HEAD_SHARE)
    }

    fn end(self) -> Instant {
        self.start + self.latency
    }

    fn event(self, index: usize, count: usize) -> Instant {
        #[expect(clippy::cast_precision_loss, reason = "a stream has far fewer than 2^53 events")]
        let progress = index as f64 / count.saturating_sub(1).max(1) as f64;
        self.head() + self.latency.mul_f64((1.0 - Self::HEAD_SHARE) * progress)
    }
}

fn chunk(event: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", event.len()).into_bytes();
    chunk.extend_from_slice(event);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

fn error_status(fault: FaultKind) -> Reply {
    match fault {
        FaultKind::Status429 => Reply::too_many(1),
        FaultKind::Status503 => Reply::error(503, "server_error", Some("overloaded"), "The engine is overloaded."),
        _ => Reply::error(500, "server_error", None, "The server had an error while processing your request."),
    }
}

/// A whole number from `least` to `most`, as `luck` from 0 to 1 says.
fn between(least: usize, most: usize, luck: f64) -> usize {
    let span = u32::try_from(most - least).unwrap_or(u32::MAX);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 and span")]
    let drawn = (f64::from(span) * luck).round() as u32;
    least + drawn as usize
}
