//! What an answer says, delta by delta, before it takes a shape.

use serde_json::{Value, json};

use super::Shape;
use super::directives::Directives;
use crate::sim::content;

/// An answer: each piece is a delta of a stream, and a token.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) pieces: Vec<Piece>,
    /// So many of the first pieces are no tokens of this answer: they repeat, or complete, what was said before.
    pub(super) free: usize,
}

/// One delta.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    Reasoning(String),
    Content(String),
    /// The beginning of a tool call.
    Call {
        index: usize,
        id: String,
        name: &'static str,
    },
    /// A fragment of what a tool is called with.
    Arguments {
        index: usize,
        fragment: String,
    },
}

impl Piece {
    /// What of it can be continued.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Reasoning(text) | Self::Content(text) => text,
            Self::Call { .. } | Self::Arguments { .. } => "",
        }
    }

    pub(super) fn with_text(&self, text: &str) -> Self {
        match self {
            Self::Reasoning(_) => Self::Reasoning(text.to_owned()),
            Self::Content(_) | Self::Call { .. } | Self::Arguments { .. } => Self::Content(text.to_owned()),
        }
    }

    pub(super) fn prepend(&mut self, front: &str) {
        if let Self::Reasoning(text) | Self::Content(text) = self {
            text.insert_str(0, front);
        }
    }

    /// The `delta` of a chunk.
    pub(super) fn delta(&self) -> Value {
        match self {
            Self::Reasoning(text) => json!({ "reasoning_content": text }),
            Self::Content(text) => json!({ "content": text }),
            Self::Call { index, id, name } => {
                let function = json!({ "name": name, "arguments": "" });
                json!({ "tool_calls": [{ "index": index, "id": id, "type": "function", "function": function }] })
            }
            Self::Arguments { index, fragment } => {
                json!({ "tool_calls": [{ "index": index, "function": { "arguments": fragment } }] })
            }
        }
    }
}

impl Script {
    /// The whole answer to a prompt.
    pub(super) fn whole(model: &str, prompt: &str, shape: Shape, directives: &Directives) -> Self {
        let mut pieces = Vec::new();
        let chat = shape == Shape::Chat;
        if chat && (directives.reasoning || model.ends_with("-reasoning")) {
            pieces.extend(content::reasoning(model, prompt).into_iter().map(Piece::Reasoning));
        }
        if chat && directives.tool_calls > 0 {
            for (index, call) in content::tool_calls(model, prompt, directives.tool_calls).into_iter().enumerate() {
                pieces.push(Piece::Call { index, id: call.id, name: call.name });
                pieces.extend(call.arguments.into_iter().map(|fragment| Piece::Arguments { index, fragment }));
            }
        } else {
            pieces.extend(content::deltas(model, prompt, directives.chunks).into_iter().map(Piece::Content));
        }
        Self { pieces, free: 0 }
    }

    /// Ends where the tokens allowed for it end, and says why it ended.
    pub(super) fn cut(&mut self, allowed: Option<u64>) -> &'static str {
        let fits = allowed.and_then(|allowed| usize::try_from(allowed).ok()).map(|allowed| self.free + allowed);
        match fits {
            Some(fits) if fits < self.pieces.len() => {
                self.pieces.truncate(fits);
                "length"
            }
            _ if self.calls_tools() => "tool_calls",
            _ => "stop",
        }
    }

    pub(super) fn tokens(&self) -> usize {
        self.pieces.len() - self.free
    }

    pub(super) fn reasoning_tokens(&self) -> usize {
        self.pieces.iter().skip(self.free).filter(|piece| matches!(piece, Piece::Reasoning(_))).count()
    }

    pub(super) fn calls_tools(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Call { .. }))
    }

    /// The content, all of it.
    pub(super) fn text(&self) -> String {
        self.pieces.iter().filter(|piece| matches!(piece, Piece::Content(_))).map(Piece::text).collect()
    }

    /// The `message` of a plain answer.
    pub(super) fn message(&self) -> Value {
        let content = if self.calls_tools() { Value::Null } else { Value::from(self.text()) };
        let mut message = json!({ "role": "assistant", "content": content, "refusal": null });
        let thoughts = self.pieces.iter().filter(|piece| matches!(piece, Piece::Reasoning(_)));
        let reasoning: String = thoughts.map(Piece::text).collect();
        if !reasoning.is_empty() {
            message["reasoning_content"] = Value::from(reasoning);
        }
        if self.calls_tools() {
            message["tool_calls"] = self.tool_calls();
        }
        message
    }

    fn tool_calls(&self) -> Value {
        let calls = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Call { index, id, name } => {
                let function = json!({ "name": name, "arguments": self.arguments(*index) });
                Some(json!({ "id": id, "type": "function", "function": function }))
            }
            Piece::Reasoning(_) | Piece::Content(_) | Piece::Arguments { .. } => None,
        });
        calls.collect()
    }

    fn arguments(&self, call: usize) -> String {
        let fragments = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Arguments { index, fragment } if *index == call => Some(fragment.as_str()),
            _ => None,
        });
        fragments.collect()
    }
}
