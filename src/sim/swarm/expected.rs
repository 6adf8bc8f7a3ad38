//! What a call is to be answered.

use serde_json::Value;

use crate::sim::content;

/// The answer a call is to get, token by token.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) reasoning: Vec<String>,
    pub(super) content: Vec<String>,
    pub(super) prompt_tokens: u32,
    /// Whether it is to be told what it used.
    pub(super) usage: bool,
}

impl Expected {
    pub(super) fn of(model: &str, prompt: &str, system: &str, reasoning: bool, usage: bool) -> Self {
        Self {
            reasoning: if reasoning { content::reasoning(model, prompt) } else { Vec::new() },
            content: content::deltas(model, prompt, None),
            prompt_tokens: content::tokens(&[system, prompt].concat()),
            usage,
        }
    }

    /// Whether this is all of it.
    pub(super) fn is(&self, reasoning: &str, content: &str) -> bool {
        reasoning == self.reasoning.concat() && content == self.content.concat()
    }

    /// Whether this is a beginning of it: no content before all of the reasoning.
    pub(super) fn begins_with(&self, reasoning: &str, content: &str) -> bool {
        let thought = self.reasoning.concat();
        let in_order = content.is_empty() || reasoning == thought;
        in_order && thought.starts_with(reasoning) && self.content.concat().starts_with(content)
    }

    /// Whether this is what it used, as if it had never been broken.
    pub(super) fn used(&self, usage: &Value) -> bool {
        let says = |field: &str, tokens: u32| usage.get(field).and_then(Value::as_u64) == Some(tokens.into());
        says("prompt_tokens", self.prompt_tokens)
            && says("completion_tokens", self.completion_tokens())
            && says("total_tokens", self.prompt_tokens + self.completion_tokens())
    }

    pub(super) fn completion_tokens(&self) -> u32 {
        u32::try_from(self.reasoning.len() + self.content.len()).unwrap_or(u32::MAX)
    }
}
