//! An answer as the two generating routes shape it.

use bytes::Bytes;
use serde_json::{Value, json};

use super::Payload;
use super::script::{Piece, Script};
use crate::sim::reply::Reply;

/// Which of the two generating routes is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Chat,
    Text,
}

/// A generated answer, before it takes a shape.
#[derive(Debug)]
pub(super) struct Generated {
    pub(super) shape: Shape,
    /// Its id and the instant it was created at follow from this.
    pub(super) identity: u64,
    pub(super) model: String,
    pub(super) script: Script,
    pub(super) finish: &'static str,
    pub(super) prompt_tokens: u32,
    pub(super) completion_tokens: u32,
}

impl Generated {
    pub(super) fn reply(&self) -> Reply {
        let (object, part) = match self.shape {
            Shape::Chat => ("chat.completion", ("message", self.script.message())),
            Shape::Text => ("text_completion", ("text", Value::from(self.script.text()))),
        };
        let mut body = self.envelope(object, Some((part, Value::from(self.finish))));
        body["usage"] = self.usage();
        Reply::json(200, &body)
    }

    pub(super) fn stream(&self, with_usage: bool) -> Payload {
        let object = if self.shape == Shape::Chat { "chat.completion.chunk" } else { "text_completion" };
        let event = |choice: Option<((&str, Value), Value)>, usage: Value| {
            let mut body = self.envelope(object, choice);
            if with_usage {
                body["usage"] = usage;
            }
            Bytes::from(format!("data: {body}\n\n"))
        };
        let piece = |piece: &Piece| match self.shape {
            Shape::Chat => ("delta", piece.delta()),
            Shape::Text => ("text", Value::from(piece.text())),
        };
        let mut events = Vec::with_capacity(self.script.pieces.len() + 4);
        if self.shape == Shape::Chat {
            let content = if self.script.calls_tools() { Value::Null } else { Value::from("") };
            let role = json!({ "role": "assistant", "content": content, "refusal": null });
            events.push(event(Some((("delta", role), Value::Null)), Value::Null));
        }
        let pieces = self.script.pieces.iter();
        events.extend(pieces.map(|delta| event(Some((piece(delta), Value::Null)), Value::Null)));
        let last = if self.shape == Shape::Chat { ("delta", json!({})) } else { ("text", Value::from("")) };
        let finish = events.len();
        events.push(event(Some((last, Value::from(self.finish))), Value::Null));
        if with_usage {
            events.push(event(None, self.usage()));
        }
        events.push(Bytes::from_static(b"data: [DONE]\n\n"));
        Payload::Stream { events, finish }
    }

    /// What every object of this answer has in common, around one choice or none.
    fn envelope(&self, object: &str, choice: Option<((&str, Value), Value)>) -> Value {
        let choices: Vec<Value> = choice
            .into_iter()
            .map(
                |((part, value), finish)| json!({ "index": 0, part: value, "logprobs": null, "finish_reason": finish }),
            )
            .collect();
        json!({
            "id": format!("{}-{:016x}", if self.shape == Shape::Chat { "chatcmpl" } else { "cmpl" }, self.identity),
            "object": object, "created": 1_700_000_000 + self.identity % 10_000_000, "model": self.model,
            "system_fingerprint": "fp_sim", "choices": choices,
        })
    }

    fn usage(&self) -> Value {
        let mut usage = json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens.saturating_add(self.completion_tokens),
        });
        let reasoning = self.script.reasoning_tokens();
        if reasoning > 0 {
            usage["completion_tokens_details"] = json!({ "reasoning_tokens": reasoning });
        }
        usage
    }
}
