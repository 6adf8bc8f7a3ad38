//! What the provider of a cell says, and where it stops.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::watch;

use super::cell::{Cell, Fault, Form, Kind, Phase, Setup};
use crate::support::ms;

/// The whole of what there is to say.
pub(super) const TEXT: &str = "Hello world";

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// The head, and the length of the body where it tells.
    Head(Form, Option<usize>),
    Data(String),
    End,
}

/// A provider, as far as it does not depend on how it speaks.
pub(super) struct Script {
    pub(super) cell: Cell,
    /// It never fails.
    pub(super) is_healthy: bool,
    /// Requests of which it saw the head, or began to.
    pub(super) seen: AtomicU32,
    connections: AtomicU32,
    /// What the client has received.
    client: watch::Receiver<Vec<u8>>,
}

impl Script {
    pub(super) fn new(cell: Cell, is_healthy: bool, client: watch::Receiver<Vec<u8>>) -> Self {
        Self { cell, is_healthy, seen: AtomicU32::new(0), connections: AtomicU32::new(0), client }
    }

    fn fails(&self, turn: u32) -> bool {
        !self.is_healthy && (turn == 0 || self.cell.setup != Setup::Heals)
    }

    /// A connection has come. Says whether it fails as it is.
    pub(super) fn connected(&self) -> bool {
        let number = self.connections.fetch_add(1, Ordering::SeqCst);
        self.cell.phase == Phase::Accepted && self.fails(number)
    }

    /// A request has come, the n-th of its connection. Says where its answer fails.
    pub(super) fn asked(&self, nth: u32) -> Option<Phase> {
        let number = self.seen.fetch_add(1, Ordering::SeqCst);
        match self.cell.phase {
            Phase::Connect | Phase::Accepted => None,
            // The first one is there so that there is a connection to be pooled.
            Phase::Idle => (!self.is_healthy && number == 0).then_some(Phase::Idle),
            Phase::Reused => (!self.is_healthy && nth > 0).then_some(Phase::Reused),
            phase => self.fails(number).then_some(phase),
        }
    }

    /// The pieces of the answer to a request, up to where it fails.
    pub(super) fn answer(&self, request: &[u8], fails: Option<Phase>) -> Vec<Piece> {
        let pieces = match self.form(request) {
            Form::Stream => stream(request, self.seen.load(Ordering::SeqCst)),
            Form::Plain => plain(&self.cell),
        };
        let is_done = |phase| phase == Phase::AfterDone && self.form(request) == Form::Plain;
        let kept = fails.filter(|phase| !matches!(phase, Phase::Idle) && !is_done(*phase)).map(|phase| match phase {
            Phase::AfterHead => 1,
            Phase::AfterRole => 2,
            Phase::MidStream => 3,
            Phase::AfterFinish => 4,
            Phase::AfterDone => 5,
            _ => 0,
        });
        pieces.into_iter().take(kept.unwrap_or(usize::MAX)).collect()
    }

    fn form(&self, request: &[u8]) -> Form {
        // The first request of a pooled connection is another one than that of the cell.
        if has(request, b"\"stream\":true") { Form::Stream } else { Form::Plain }
    }

    /// Waits until what was said so far can have had its effect: the client has it, where it is passed on.
    pub(super) async fn settle(&self, fails: Phase) {
        let is_held = match (self.cell.kind, self.cell.form) {
            (Kind::Upload, _) => false,
            (_, Form::Plain) => true,
            (Kind::Agent, Form::Stream) => false,
            (_, Form::Stream) => fails == Phase::AfterHead,
        };
        let mark: &[u8] = match (fails, self.cell.form) {
            (Phase::AfterHead, _) => b"\r\n\r\n",
            (Phase::AfterRole, _) => b"\"role\"",
            (Phase::MidStream, Form::Stream) => b"Hel",
            (Phase::MidStream, Form::Plain) => b"chat.completion",
            (Phase::AfterFinish, Form::Stream) => b"\"stop\"",
            (Phase::AfterDone, Form::Stream) => b"[DONE]",
            (Phase::AfterFinish | Phase::AfterDone, Form::Plain) => b"\"stop\"",
            _ => b"",
        };
        if !is_held && !mark.is_empty() {
            drop(self.client.clone().wait_for(|bytes| has(bytes, mark)).await);
        }
        // What is held back gives no sign. Nor does it matter then whether it came or was lost with its connection.
        tokio::time::sleep(ms(20)).await;
    }
}

pub(super) fn has(bytes: &[u8], mark: &[u8]) -> bool {
    bytes.windows(mark.len()).any(|window| window == mark)
}

/// A stream that says the text, or what is missing of it where the request says so.
fn stream(request: &[u8], number: u32) -> Vec<Piece> {
    let asked: serde_json::Value = serde_json::from_slice(request).unwrap_or_default();
    let last = asked["messages"].as_array().and_then(|messages| messages.last());
    let said = last.filter(|last| last["role"] == "assistant").and_then(|last| last["content"].as_str()).unwrap_or("");
    let missing = TEXT.strip_prefix(said).expect("it begins as we began");
    let (now, later) = missing.split_at(3);
    let event = |choice: serde_json::Value| {
        let event =
            serde_json::json!({"id": format!("c{number}"), "object": "chat.completion.chunk", "choices": [choice]});
        format!("data: {event}\n\n")
    };
    let text = |text: &str| event(serde_json::json!({"index": 0, "delta": {"content": text}, "finish_reason": null}));
    let role = serde_json::json!({"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": null});
    let stop = serde_json::json!({"index": 0, "delta": {}, "finish_reason": "stop"});
    vec![
        Piece::Head(Form::Stream, None),
        Piece::Data(event(role)),
        Piece::Data(text(now)),
        Piece::Data(format!("{}{}", text(later), event(stop))),
        Piece::Data("data: [DONE]\n\n".to_owned()),
        Piece::End,
    ]
}

/// A whole answer that is no stream.
pub(super) const PLAIN: &str = r#"{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Hello world"},"finish_reason":"stop"}]}"#;

fn plain(cell: &Cell) -> Vec<Piece> {
    let (half, rest) = PLAIN.split_at(PLAIN.len() / 2);
    // Where only the end of the framing is missing, or comes out wrong, it must have one.
    let is_chunked = cell.phase == Phase::AfterFinish || cell.fault == Fault::Malformed;
    let length = (!is_chunked).then_some(PLAIN.len());
    let [half, rest] = [half, rest].map(|part| Piece::Data(part.to_owned()));
    // As many pieces as a stream has: none tells a role, and none says that it is over.
    let none = || Piece::Data(String::new());
    vec![Piece::Head(Form::Plain, length), none(), half, rest, none(), Piece::End]
}
