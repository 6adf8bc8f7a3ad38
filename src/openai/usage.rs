//! What an answer used, where it says so.

use serde::Deserialize;
use serde_json::value::RawValue;

/// Tokens as the provider counted them, under whichever names it uses. Unknown is not zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the question: `prompt_tokens` or `input_tokens`, with what was written to a cache.
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answer: `completion_tokens` or `output_tokens`, or what else makes up the total.
    pub completion_tokens: Option<u64>,
}

impl Usage {
    /// The usage that a whole plain answer reports; `None` where it reports none or is no JSON object. Everything else
    /// in the body is skipped without being kept.
    #[must_use]
    pub fn of_body(body: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Carrier<'_>>(body).ok()?.usage()
    }

    /// Takes over what `newer` knows. Streams report in parts, and later figures replace earlier ones.
    pub fn update(&mut self, newer: Self) {
        self.prompt_tokens = newer.prompt_tokens.or(self.prompt_tokens);
        self.completion_tokens = newer.completion_tokens.or(self.completion_tokens);
    }

    /// Both figures together, where at least one is known.
    #[must_use]
    pub fn total(self) -> Option<u64> {
        match (self.prompt_tokens, self.completion_tokens) {
            (None, None) => None,
            (prompt, completion) => Some(prompt.unwrap_or(0).saturating_add(completion.unwrap_or(0))),
        }
    }

    /// Reads a `usage` object.
    pub(super) fn read(raw: &RawValue) -> Option<Self> {
        let fields: UsageFields = serde_json::from_str(raw.get()).ok()?;
        // Anthropic counts what it writes to its cache beside `input_tokens`, and towards the same limit.
        let written = fields.cache_creation_input_tokens.unwrap_or(0);
        let input = fields.input_tokens.map(|input| input.saturating_add(written));
        let prompt_tokens = fields.prompt_tokens.or(input);
        let completion = fields.completion_tokens.or(fields.output_tokens);
        // Some count reasoning in the total alone.
        let rest = fields.total_tokens.zip(prompt_tokens).map(|(total, prompt)| total.saturating_sub(prompt));
        let usage = Self { prompt_tokens, completion_tokens: completion.max(rest.filter(|&rest| rest > 0)) };
        (usage != Self::default()).then_some(usage)
    }
}

/// The places where usage is found: at the top (chat, completions, embeddings, `message_delta`), inside `response`
/// (events of the Responses API) or inside `message` (`message_start`).
#[derive(Deserialize)]
pub(super) struct Carrier<'a> {
    #[serde(borrow)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) response: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) message: Option<&'a RawValue>,
}

impl Carrier<'_> {
    pub(super) fn usage(&self) -> Option<Usage> {
        let inner = |raw: &RawValue| serde_json::from_str::<Inner<'_>>(raw.get()).ok()?.usage.and_then(Usage::read);
        let top = self.usage.and_then(Usage::read);
        top.or_else(|| self.response.and_then(inner)).or_else(|| self.message.and_then(inner))
    }
}

#[derive(Deserialize)]
struct Inner<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

/// Some providers send both families, so the names cannot be aliases of one field.
#[derive(Deserialize)]
struct UsageFields {
    prompt_tokens: Option<u64>,
    input_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    output_tokens: Option<u64>,
    total_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(prompt: Option<u64>, completion: Option<u64>) -> Option<Usage> {
        Some(Usage { prompt_tokens: prompt, completion_tokens: completion })
    }

    #[test]
    fn usage_is_found_under_every_family_of_names() {
        for (body, expected) in [
            (
                r#"{"id":"x","usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#,
                usage(Some(3), Some(4)),
            ),
            (r#"{"data":[],"usage":{"prompt_tokens":3}}"#, usage(Some(3), None)),
            (r#"{"usage":{"input_tokens":1,"output_tokens":2}}"#, usage(Some(1), Some(2))),
            (r#"{"usage":{"prompt_tokens":1,"input_tokens":1,"completion_tokens":0}}"#, usage(Some(1), Some(0))),
            (r#"{"type":"x","response":{"usage":{"input_tokens":1,"output_tokens":2}}}"#, usage(Some(1), Some(2))),
            (r#"{"message":{"usage":{"input_tokens":9}}}"#, usage(Some(9), None)),
            (r#"{"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":50}}"#, usage(Some(3), Some(47))),
            (r#"{"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":1}}"#, usage(Some(3), Some(4))),
            (r#"{"usage":{"prompt_tokens":8,"total_tokens":8}}"#, usage(Some(8), None)),
            (
                r#"{"usage":{"input_tokens":5,"cache_creation_input_tokens":900,"cache_read_input_tokens":70,"output_tokens":2}}"#,
                usage(Some(905), Some(2)),
            ),
            (
                r#"{"usage":{"prompt_tokens":905,"cache_creation_input_tokens":900,"completion_tokens":2}}"#,
                usage(Some(905), Some(2)),
            ),
            (r#"{"usage":null}"#, None),
            (r#"{"usage":{}}"#, None),
            (r#"{"usage":{"prompt_tokens":"many"}}"#, None),
            (r#"{"message":"a string"}"#, None),
            ("not json", None),
        ] {
            assert_eq!(Usage::of_body(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn later_figures_replace_earlier_ones_and_keep_what_they_do_not_mention() {
        let mut usage = Usage { prompt_tokens: Some(10), completion_tokens: Some(1) };
        usage.update(Usage { prompt_tokens: None, completion_tokens: Some(20) });
        assert_eq!(usage, Usage { prompt_tokens: Some(10), completion_tokens: Some(20) });
        assert_eq!((usage.total(), Usage::default().total()), (Some(30), None));
    }
}
