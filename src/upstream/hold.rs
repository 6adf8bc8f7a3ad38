//! Holding an answer back until it is safe to pass on: a stream until its first event, or longer where the operator says
//! so, a plain answer until it is whole. What breaks before that is retried, and the client notices nothing.

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::CONTENT_LENGTH;

use super::attempt::Answered;
use super::conversation::{Conversation, Loss};
use super::rest::Rest;
use super::settings::Holdback;
use super::target::Target;
use crate::admission::Permit;
use crate::answer::{Cut, Head, Trace, Upgraded};
use crate::memory::{Held, Memory};
use crate::metrics::MemoryKind;
use crate::openai::{Event, Frame, Route, Usage};
use crate::time::{self, Duration, Instant};

/// A plain answer is held back up to this size; what is longer streams from here on. So is a stream where more than its
/// first event is held back.
const HELD_MAX: usize = 4 << 20;
/// Comments before the first event are held back up to this size.
const COMMENTS_MAX: usize = 64 * 1024;
const JSON: &str = "application/json";

/// What the client can be given.
pub(super) enum Landed {
    /// Everything.
    Whole(Head, Bytes),
    /// The head, what is there of the body, and where the rest comes from.
    Begun(Head, Vec<Frame>, Box<Rest>),
    /// A 101, and the connection that it switched.
    Upgraded(Head, Box<dyn Upgraded>),
}

/// An answer that broke while it was held back.
pub(super) struct Broke {
    pub(super) cut: Cut,
    pub(super) loss: Loss,
    /// Its connection is closed by now.
    pub(super) permit: Permit,
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
    /// How much of a stream is held back.
    pub(super) holdback: Holdback,
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

/// Holds an answer back as far as that helps. When it comes through, its provider has answered, as its breaker hears.
/// Dropping the future cuts the exchange.
pub(super) async fn hold_back(
    answered: Answered,
    handling: Handling,
    target: &Target,
    trace: &Trace,
    memory: &Memory,
) -> Result<Landed, Broke> {
    let Answered { head, conversation, permit } = answered;
    let is_stream = head.is_event_stream();
    // What is not repeatable is still worth holding if it says at its end what it has used.
    let holds = handling.repeatable || handling.usage_of.is_generation();
    let whole = holds && !is_stream && is_worth_holding(&head);
    let mut rest = Rest::new(conversation, permit, is_stream, handling, target, trace);
    let share = memory.share(MemoryKind::Flights);
    let held = if whole {
        hold_whole(&head, &mut rest, handling, share).await
    } else if handling.repeatable && is_stream {
        hold_beginning(&mut rest, handling, share).await
    } else {
        Ok(Extent::Beginning(Vec::new()))
    };
    match held {
        Ok(extent) => {
            rest.provider_answered(head.status);
            Ok(match extent {
                Extent::Whole(body) => {
                    rest.end().await;
                    Landed::Whole(head, body)
                }
                Extent::Beginning(frames) => Landed::Begun(head, frames, Box::new(rest)),
            })
        }
        Err((cut, loss)) => Err(Broke { cut, loss, permit: rest.break_off() }),
    }
}

/// How much of an answer was held back.
enum Extent {
    Whole(Bytes),
    Beginning(Vec<Frame>),
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
    let rest = Rest::new(conversation, permit, false, handling, target, trace);
    Landed::Begun(head, vec![part(beginning)], Box::new(rest))
}

async fn hold_whole(head: &Head, rest: &mut Rest, handling: Handling, mut share: Held) -> Result<Extent, (Cut, Loss)> {
    let mut body = Vec::new();
    loop {
        let bytes = match rest.read().await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => break,
            // It is not being thought about any more, so asking again wastes nothing that would still have come.
            Err((Cut::Stalled, loss)) if !body.is_empty() => return Err((Cut::Unfinished, loss)),
            Err(broke) => return Err(broke),
        };
        body.extend_from_slice(&bytes);
        let fits = share.grow(u64::try_from(bytes.len()).unwrap_or(u64::MAX)).is_ok();
        if !fits || body.len() > HELD_MAX {
            return Ok(Extent::Beginning(vec![part(share.keep(body))]));
        }
    }
    if handling.has_body(head) && rest.ends_with_connection() && head.is_readable(JSON) && !is_complete_json(&body) {
        return Err((Cut::Unfinished, Loss::new("EOF in the middle of a JSON document")));
    }
    if handling.usage_of.is_generation() && head.status == StatusCode::OK {
        rest.note_usage(Usage::of_body(&body), true);
    }
    Ok(Extent::Whole(share.keep(body)))
}

/// The first event of a stream, with the comments before it; and then as many more as `holdback` says.
async fn hold_beginning(rest: &mut Rest, handling: Handling, mut share: Held) -> Result<Extent, (Cut, Loss)> {
    let (mut held, mut size, mut events) = (Vec::new(), 0, 0_u32);
    let (silent_until, mut until) = (time::now() + handling.first_byte_timeout, None::<Instant>);
    let max = if handling.holdback == Holdback::FirstEvent { COMMENTS_MAX } else { HELD_MAX };
    loop {
        if events == 0 && time::now() >= silent_until {
            return Err((Cut::Stalled, Loss::new("no event within first_byte_timeout")));
        }
        let read = match until {
            // What is always ready would never let the time be over.
            Some(until) if time::now() >= until => break,
            Some(until) => match tokio::time::timeout_at(until, rest.read()).await {
                Ok(read) => read,
                Err(_elapsed) => break,
            },
            None => rest.read().await,
        };
        let read = match read {
            Err((Cut::Stalled, loss)) if events > 0 => return Err((Cut::Unfinished, loss)),
            read => read?,
        };
        let Some(bytes) = read else {
            held.extend(rest.last_frame());
            if !rest.is_finished() {
                return Err((
                    Cut::Unfinished,
                    Loss::new("the stream ended before as much of it had come as is held back"),
                ));
            }
            rest.note_usage_of_events(true);
            let body: Vec<Bytes> = held.into_iter().map(Frame::into_bytes).collect();
            return Ok(Extent::Whole(body.concat().into()));
        };
        size += bytes.len();
        let fits = share.grow(u64::try_from(bytes.len()).unwrap_or(u64::MAX)).is_ok();
        for frame in rest.frames(bytes) {
            events += u32::from(!matches!(&frame, Frame::Event(bytes) if is_empty_event(bytes)));
            held.push(frame);
        }
        let is_enough = match handling.holdback {
            Holdback::FirstEvent => events > 0,
            // A token is an event; what tells the role, or the end, is one more.
            Holdback::Tokens(tokens) => events > tokens.get(),
            Holdback::Time(time) => {
                if events > 0 {
                    until = until.or_else(|| Some(time::now() + time));
                }
                false
            }
        };
        if is_enough || !fits || size > max || rest.said_that_it_is_over() {
            break;
        }
    }
    Ok(Extent::Beginning(held))
}

fn part(bytes: Bytes) -> Frame {
    Frame::Part { bytes, last: false }
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
