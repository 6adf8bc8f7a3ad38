//! The few request fields that decide who goes when, read without building a tree of the body.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::members::{List, Members, Read};

/// What a generation request says about itself at the top level of its JSON body. A field that is missing, or has a
/// type we do not expect, is simply not known: judging requests is the provider's business.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sniff {
    /// `model`.
    pub model: Option<String>,
    /// `stream`: the client wants server-sent events.
    pub stream: bool,
    /// `service_tier`.
    pub service_tier: Option<ServiceTier>,
    /// The most tokens one answer may have: `max_completion_tokens`, else `max_output_tokens`, else `max_tokens`.
    pub max_tokens: Option<u64>,
    /// `n`: how many answers are asked for.
    pub n: Option<u64>,
    /// `best_of`: how many are made, of which the best are returned.
    pub best_of: Option<u64>,
    /// How many questions a `prompt` asks, where it is a list of them.
    pub prompts: Option<u64>,
    /// `stream_options.include_usage`: the client expects a usage chunk at the end.
    pub include_usage: bool,
}

/// The `service_tier` of a request, as far as it bears on priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceTier {
    /// `priority`: goes as class `high`.
    Priority,
    /// `flex`: goes as class `low`.
    Flex,
    /// Any other word: says nothing about order.
    Other,
}

/// Nobody offers more answers to one question, nor takes more questions at once.
const CHOICES_MAX: u64 = 128;
const PROMPTS_MAX: u64 = 2_048;

impl Sniff {
    /// How many answers are made, and paid for.
    #[must_use]
    pub fn answers(&self) -> u64 {
        let each = self.n.max(self.best_of).unwrap_or(1).clamp(1, CHOICES_MAX);
        each * self.prompts.unwrap_or(1).clamp(1, PROMPTS_MAX)
    }

    /// Reads `body` in one pass. Of equal keys the last wins, as in most JSON readers. What is not a JSON object gives
    /// the default. The values of fields we do not read are skipped, not kept, so 20 MB of images cost no memory.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
        if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Self::default();
        }
        serde_json::from_slice::<Read<Fields<'_>>>(body).map(|Read(fields)| Self::from(fields)).unwrap_or_default()
    }
}

impl From<Fields<'_>> for Sniff {
    fn from(fields: Fields<'_>) -> Self {
        let tier = fields.service_tier.and_then(read::<String>).map(|word| match word.as_str() {
            "priority" => ServiceTier::Priority,
            "flex" => ServiceTier::Flex,
            _ => ServiceTier::Other,
        });
        let max_tokens = [fields.max_completion_tokens, fields.max_output_tokens, fields.max_tokens];
        let options = fields.stream_options.and_then(read::<StreamOptions>);
        Self {
            model: fields.model.and_then(read),
            stream: fields.stream.and_then(read).unwrap_or_default(),
            service_tier: tier,
            max_tokens: max_tokens.into_iter().flatten().find_map(read),
            n: fields.n.and_then(read),
            best_of: fields.best_of.and_then(read),
            prompts: fields.prompt.and_then(prompts),
            include_usage: options.and_then(|options| options.include_usage).unwrap_or_default(),
        }
    }
}

/// How many questions a list of them holds; a list of numbers is one question, in tokens.
fn prompts(raw: &RawValue) -> Option<u64> {
    let list = raw.get().trim_start().strip_prefix('[')?.trim_start();
    list.starts_with(['"', '[']).then(|| read::<List<IgnoredAny>>(raw).map(|list| list.length))?
}

/// A value of the type we expect, or nothing.
fn read<'de, T: Deserialize<'de>>(raw: &'de RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// The interesting values, still as text.
#[derive(Default)]
struct Fields<'a> {
    model: Option<&'a RawValue>,
    stream: Option<&'a RawValue>,
    service_tier: Option<&'a RawValue>,
    max_tokens: Option<&'a RawValue>,
    max_completion_tokens: Option<&'a RawValue>,
    max_output_tokens: Option<&'a RawValue>,
    n: Option<&'a RawValue>,
    best_of: Option<&'a RawValue>,
    prompt: Option<&'a RawValue>,
    stream_options: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Model,
    Stream,
    ServiceTier,
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    N,
    BestOf,
    Prompt,
    StreamOptions,
    #[serde(other)]
    Unread,
}

impl<'de: 'a, 'a> Members<'de> for Fields<'a> {
    type Name = Key;

    fn wants(name: &Key) -> bool {
        !matches!(name, Key::Unread)
    }

    fn take(&mut self, name: Key, value: &'de RawValue) {
        let field = match name {
            Key::Model => &mut self.model,
            Key::Stream => &mut self.stream,
            Key::ServiceTier => &mut self.service_tier,
            Key::MaxTokens => &mut self.max_tokens,
            Key::MaxCompletionTokens => &mut self.max_completion_tokens,
            Key::MaxOutputTokens => &mut self.max_output_tokens,
            Key::N => &mut self.n,
            Key::BestOf => &mut self.best_of,
            Key::Prompt => &mut self.prompt,
            Key::StreamOptions => &mut self.stream_options,
            Key::Unread => return,
        };
        *field = Some(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_that_decide_are_read() {
        let sniff = Sniff::of(
            br#" {"messages":[{"model":"inner","stream":true}],"model":"gpt-4o","stream":true,"n":2,
                 "service_tier":"flex","max_tokens":5,"max_completion_tokens":7,"stream_options":{"x":1,"include_usage":true}}"#,
        );
        let expected = Sniff {
            model: Some("gpt-4o".into()),
            stream: true,
            service_tier: Some(ServiceTier::Flex),
            max_tokens: Some(7),
            n: Some(2),
            include_usage: true,
            ..Sniff::default()
        };
        assert_eq!(sniff, expected);
    }

    #[test]
    fn every_answer_that_is_made_counts() {
        for (body, answers) in [
            ("{}", 1),
            (r#"{"n":3}"#, 3),
            (r#"{"n":2,"best_of":5}"#, 5),
            (r#"{"prompt":["a","b","c"],"n":2}"#, 6),
            (r#"{"prompt": [ [1,2],[3]]}"#, 2),
            (r#"{"prompt":[1,2,3]}"#, 1),
            (r#"{"prompt":"a","best_of":0}"#, 1),
            (r#"{"prompt":[],"n":1000}"#, 128),
        ] {
            assert_eq!(Sniff::of(body.as_bytes()).answers(), answers, "{body}");
        }
    }

    #[test]
    fn of_equal_keys_the_last_wins_also_when_escaped() {
        let sniff = Sniff::of(br#"{"model":"a","stream":true,"mod\u0065l":"b\n","stream":false}"#);
        assert_eq!(sniff.model.as_deref(), Some("b\n"));
        assert!(!sniff.stream);
    }

    #[test]
    fn a_field_of_another_type_hides_no_other_field() {
        let sniff = Sniff::of(br#"{"stream":"yes","max_tokens":-1,"n":null,"stream_options":[],"model":"m"}"#);
        assert_eq!(sniff, Sniff { model: Some("m".into()), ..Sniff::default() });
    }

    #[test]
    fn what_is_no_json_object_tells_nothing() {
        for body in ["", "[]", "null", "\"model\"", "{\"model\":\"a\"", "{\"model\":\"a\"} trailing", "--boundary"] {
            assert_eq!(Sniff::of(body.as_bytes()), Sniff::default(), "{body}");
        }
        assert_eq!(Sniff::of(b"\xEF\xBB\xBF{\"model\":\"a\"}").model.as_deref(), Some("a"));
        assert_eq!(Sniff::of(b"{\"model\":\"\xFF\"}"), Sniff::default());
    }

    #[test]
    fn deep_nesting_is_skipped_without_recursion() {
        let deep = format!("{{\"x\":{}{},\"model\":\"m\"}}", "[".repeat(500_000), "]".repeat(500_000));
        assert_eq!(Sniff::of(deep.as_bytes()).model.as_deref(), Some("m"));
    }
}
