//! Whether an answer is what it should be. Pure: it is fed bytes, and told how they ended.

use std::fmt;

use serde_json::Value;

use super::expected::Expected;
use crate::sim::content;

/// How a call ended, as its client sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Answered whole, every byte right.
    Ok,
    /// Answered whole, every byte right, but not told its usage: the stream ended after the finish reason.
    WithoutUsage,
    /// Answered with another status than 200.
    Refused {
        /// The status.
        status: u16,
        /// `error.code` of the body, else its `error.type`, else empty.
        code: String,
    },
    /// A 200 that broke and was seen to break: an error event, or the end of the connection inside the message. What came
    /// before was right.
    Broken {
        /// `error.code` of the event, else its `error.type`; `transport` where the connection broke.
        code: String,
    },
    /// Wrong bytes, or a stream that is not one: two ids, two roles, two finish reasons, a wrong index, wrong usage, or
    /// anything after its end.
    Corrupt,
    /// The answer ended as if it were complete, and was not.
    FalselyComplete,
    /// No answer: the connection could not be made, or ended before the head.
    Transport,
    /// Not done within the request time-out.
    TimedOut,
    /// Cut off because the swarm was over.
    Unfinished,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::WithoutUsage => f.write_str("without usage"),
            Self::Refused { status, code } => write!(f, "refused {status} {code}"),
            Self::Broken { code } => write!(f, "broken {code}"),
            Self::Corrupt => f.write_str("corrupt"),
            Self::FalselyComplete => f.write_str("falsely complete"),
            Self::Transport => f.write_str("transport"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Unfinished => f.write_str("unfinished"),
        }
    }
}

/// How the bytes of a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Where HTTP says the body ends.
    Clean,
    /// Before that.
    Broken,
}

impl Outcome {
    /// Judges the body of an answer whose status was not 200.
    pub(super) fn of_refusal(status: u16, body: &[u8]) -> Self {
        let code = serde_json::from_slice(body).map(|body: Value| error_code(&body)).unwrap_or_default();
        Self::Refused { status, code }
    }

    /// Judges the body of a plain chat completion.
    pub(super) fn of_plain(body: &[u8], end: End, expected: &Expected) -> Self {
        if end == End::Broken {
            return Self::broken_transport();
        }
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return Self::Corrupt };
        let message = |field: &str| body.pointer("/choices/0/message").and_then(|message| message.get(field)?.as_str());
        let (reasoning, content) = (message("reasoning_content").unwrap_or_default(), message("content"));
        let finish = body.pointer("/choices/0/finish_reason").and_then(Value::as_str);
        let right = content.is_some_and(|content| expected.begins_with(reasoning, content));
        let whole = content.is_some_and(|content| expected.is(reasoning, content)) && finish == Some("stop");
        match body.get("usage") {
            _ if !right => Self::Corrupt,
            _ if !whole => Self::FalselyComplete,
            Some(usage) if expected.used(usage) => Self::Ok,
            Some(_) => Self::Corrupt,
            None => Self::FalselyComplete,
        }
    }

    /// Judges the body of an answer to a request for the embedding of one input.
    pub(super) fn of_embedding(body: &[u8], end: End, model: &str, input: &str) -> Self {
        if end == End::Broken {
            return Self::broken_transport();
        }
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return Self::Corrupt };
        let vector = body.pointer("/data/0/embedding").and_then(Value::as_array);
        let numbers: Option<Vec<f64>> = vector.and_then(|numbers| numbers.iter().map(Value::as_f64).collect());
        let right = numbers.is_some_and(|numbers| numbers == content::embedding(model, input, numbers.len()));
        let tokens = body.pointer("/usage/total_tokens").and_then(Value::as_u64);
        let is_all = vector.is_some_and(|numbers| !numbers.is_empty()) && tokens == Some(content::tokens(input).into());
        match (right, is_all) {
            (true, true) => Self::Ok,
            (true, false) => Self::FalselyComplete,
            (false, _) => Self::Corrupt,
        }
    }

    pub(super) fn broken_transport() -> Self {
        Self::Broken { code: "transport".to_owned() }
    }
}

pub(super) fn error_code(body: &Value) -> String {
    let word = |field: &str| body.pointer(field).and_then(Value::as_str).map(str::to_owned);
    word("/error/code").or_else(|| word("/error/type")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_answers_are_judged_like_streams() {
        let expected = Expected::of("m", "p", "", true, true);
        let body = |thought: &str, said: &str, more: u32| {
            let message = serde_json::json!({ "content": said, "reasoning_content": thought });
            let choice = serde_json::json!({ "message": message, "finish_reason": "stop" });
            let used = expected.completion_tokens() + more;
            let total = used + expected.prompt_tokens;
            let usage = serde_json::json!({
                "prompt_tokens": expected.prompt_tokens, "completion_tokens": used, "total_tokens": total
            });
            serde_json::json!({ "choices": [choice], "usage": usage }).to_string()
        };
        let judge = |thought: &str, said: &str, more, end| {
            Outcome::of_plain(body(thought, said, more).as_bytes(), end, &expected)
        };
        let (thought, said) = (expected.reasoning.concat(), expected.content.concat());
        assert_eq!(judge(&thought, &said, 0, End::Clean), Outcome::Ok);
        assert_eq!(judge(&thought, &expected.content[0], 0, End::Clean), Outcome::FalselyComplete);
        assert_eq!(judge(&expected.reasoning[0], "", 0, End::Clean), Outcome::FalselyComplete);
        assert_eq!(judge(&thought, "no", 0, End::Clean), Outcome::Corrupt);
        assert_eq!(judge("", &said, 0, End::Clean), Outcome::Corrupt, "thoughts are missing");
        assert_eq!(judge(&thought, &said, 1, End::Clean), Outcome::Corrupt, "it used less");
        assert_eq!(judge(&thought, &said, 0, End::Broken), Outcome::broken_transport());
        assert_eq!(Outcome::of_plain(b"{", End::Clean, &expected), Outcome::Corrupt);
    }

    #[test]
    fn embeddings_are_judged_number_by_number() {
        let judge = |numbers: &[f64], tokens: u32, end| {
            let data = serde_json::json!([{ "index": 0, "embedding": numbers }]);
            let body = serde_json::json!({ "data": data, "usage": { "total_tokens": tokens } });
            Outcome::of_embedding(body.to_string().as_bytes(), end, "m", "input")
        };
        let right = content::embedding("m", "input", 4);
        let wrong = content::embedding("m", "other", 4);
        assert_eq!(judge(&right, 2, End::Clean), Outcome::Ok);
        assert_eq!(judge(&right, 3, End::Clean), Outcome::FalselyComplete);
        assert_eq!(judge(&[], 2, End::Clean), Outcome::FalselyComplete);
        assert_eq!(judge(&wrong, 2, End::Clean), Outcome::Corrupt);
        assert_eq!(judge(&right, 2, End::Broken), Outcome::broken_transport());
    }

    #[test]
    fn refusals_tell_their_code() {
        let refused = |body: &str| Outcome::of_refusal(429, body.as_bytes());
        let expected = |code: &str| Outcome::Refused { status: 429, code: code.to_owned() };
        assert_eq!(refused(r#"{"error":{"code":"queue_full","type":"t"}}"#), expected("queue_full"));
        assert_eq!(refused(r#"{"error":{"code":null,"type":"t"}}"#), expected("t"));
        assert_eq!(refused("<html>"), expected(""));
    }
}
