//! An answer that goes wrong.

use super::pace::Pace;
use super::{Ending, Exchange, Gone};
use crate::sim::answer::{Answer, Payload};
use crate::sim::fault::FaultKind;
use crate::sim::realtime;
use crate::sim::reply::Reply;
use crate::time::{Duration, now};

/// Between the last written byte and a reset, which would overtake it.
const BEFORE_RESET: Duration = Duration::from_millis(10);
/// So many frames of a WebSocket pass before it breaks, unless a directive says otherwise.
const FRAMES: (usize, usize) = (1, 3);

/// How much of an answer passes before it breaks.
#[derive(Debug, Clone, Copy)]
enum Extent {
    /// The head.
    Head,
    /// So many events, or bytes of a plain body; without a wish about half.
    Some { wish: Option<usize>, luck: f64 },
    /// All but what comes after the finish reason, or but the last byte.
    Most,
}

impl Exchange<'_> {
    /// Lets the fault happen, to a WebSocket where there is a handshake.
    pub(super) async fn fail(
        &mut self,
        fault: FaultKind,
        answer: Answer,
        handshake: Option<String>,
        pace: Pace,
        luck: f64,
    ) -> Result<Ending, Gone> {
        self.provider.note_fault(fault);
        let wish = answer.directives.fault_after;
        match fault {
            FaultKind::Stall => return self.silence().await,
            FaultKind::ResetBeforeHead | FaultKind::EofBeforeHead => self.pause_until(pace.head()).await?,
            _ => {
                if let Some(status) = fault.status() {
                    self.pause_until(pace.head()).await?;
                    return self.reply(&error_status(status)).await;
                }
                if let Some(key) = handshake {
                    let frames = wish.unwrap_or_else(|| between(FRAMES.0, FRAMES.1, luck));
                    return self.break_conversation(fault, &key, pace, frames).await;
                }
                self.part(&answer.payload, fault, extent(fault, wish, luck), pace).await?;
            }
        }
        self.end_with(fault).await
    }

    async fn end_with(&mut self, fault: FaultKind) -> Result<Ending, Gone> {
        if fault == FaultKind::StallMidStream {
            return self.silence().await;
        }
        if !fault.resets() {
            return Ok(Ending::Eof);
        }
        self.pause_until(now() + BEFORE_RESET).await?;
        Ok(Ending::Reset)
    }

    /// A WebSocket that breaks after some frames, and says no Close.
    async fn break_conversation(
        &mut self,
        fault: FaultKind,
        key: &str,
        pace: Pace,
        frames: usize,
    ) -> Result<Ending, Gone> {
        self.pause_until(pace.head()).await?;
        self.connection.write(realtime::switching(key, self.slot.ordinal).as_bytes()).await?;
        let most = match fault {
            FaultKind::ResetBeforeFirstEvent | FaultKind::EofBeforeFirstEvent => Some(0),
            FaultKind::ResetLate => None,
            _ => Some(frames),
        };
        let echoed = match realtime::echo(&mut self.connection, most).await {
            Ok(None) if fault == FaultKind::HalfEvent => realtime::echo_half(&mut self.connection).await,
            echoed => echoed.map(|_close| ()),
        };
        match echoed {
            Ok(()) => self.end_with(fault).await,
            Err(error) => self.misunderstood(&error),
        }
    }

    /// Writes the head and some of the answer.
    async fn part(&mut self, payload: &Payload, fault: FaultKind, extent: Extent, pace: Pace) -> Result<(), Gone> {
        match payload {
            Payload::Stream { events, finish } => {
                let count = events_before(extent, events.len(), *finish);
                self.stream(events, count, pace).await?;
                if let Some(next) = events.get(count).filter(|_| fault == FaultKind::HalfEvent) {
                    self.write_some(&next[..next.len() / 2]).await?;
                }
                Ok(())
            }
            Payload::Whole(reply) => {
                self.pause_until(pace.head()).await?;
                let bytes = reply.bytes(&self.head, self.slot.ordinal);
                let body = if self.head.method == "HEAD" { 0 } else { reply.body.len() };
                let written = bytes.len() - body + bytes_before(extent, body);
                Ok(self.connection.write(&bytes[..written]).await?)
            }
        }
    }
}

impl FaultKind {
    fn resets(self) -> bool {
        matches!(self, Self::ResetBeforeHead | Self::ResetBeforeFirstEvent | Self::ResetMidStream | Self::ResetLate)
    }
}

fn extent(fault: FaultKind, wish: Option<usize>, luck: f64) -> Extent {
    match fault {
        FaultKind::ResetBeforeFirstEvent | FaultKind::EofBeforeFirstEvent => Extent::Head,
        FaultKind::ResetLate => Extent::Most,
        _ => Extent::Some { wish, luck },
    }
}

/// Without a wish three events at least pass, but not the last two.
fn events_before(extent: Extent, events: usize, finish: usize) -> usize {
    match extent {
        Extent::Head => 0,
        Extent::Some { wish: Some(wish), .. } => wish.min(events),
        Extent::Some { wish: None, luck } => {
            let most = events.saturating_sub(2);
            between(3.min(most), most, luck)
        }
        Extent::Most => finish + 1,
    }
}

/// The last byte never passes: it would make the answer whole.
fn bytes_before(extent: Extent, body: usize) -> usize {
    let most = body.saturating_sub(1);
    match extent {
        Extent::Head => 0,
        Extent::Some { wish, .. } => wish.unwrap_or(body / 2).min(most),
        Extent::Most => most,
    }
}

/// An error as the provider, or what stands before it, words it.
pub(super) fn error_status(status: u16) -> Reply {
    match status {
        408 => Reply::error(408, "invalid_request_error", Some("request_timeout"), "The request timed out."),
        429 => Reply::too_many(1),
        502 => Reply::error(502, "server_error", None, "Bad gateway."),
        503 => Reply::error(503, "server_error", Some("overloaded"), "The engine is overloaded."),
        504 => Reply::error(504, "server_error", None, "Gateway time-out."),
        529 => Reply::error(529, "overloaded_error", None, "Overloaded"),
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
