//! Whether an answer is what it should be. Pure: it is fed bytes, and told how they ended.

use std::fmt;

use serde_json::Value;

/// How a call ended, as its client sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Answered whole, every byte right.
    Ok,
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
    /// Wrong bytes.
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
    pub(super) fn of_plain(body: &[u8], end: End, expected: &str) -> Self {
        if end == End::Broken {
            return Self::Broken { code: TRANSPORT.to_owned() };
        }
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return Self::Corrupt };
        let text = body.pointer("/choices/0/message/content").and_then(Value::as_str);
        let finish = body.pointer("/choices/0/finish_reason").and_then(Value::as_str);
        match text {
            Some(text) if text == expected && finish == Some("stop") => Self::Ok,
            Some(text) if expected.starts_with(text) => Self::FalselyComplete,
            _ => Self::Corrupt,
        }
    }
}

const TRANSPORT: &str = "transport";

/// Reads a stream of chat completion chunks.
#[derive(Debug, Default)]
pub(super) struct StreamReader {
    /// The line that is not complete yet.
    line: Vec<u8>,
    /// The data lines of the event that is not complete yet.
    data: Option<String>,
    text: String,
    finished: bool,
    done: bool,
    error: Option<String>,
    garbled: bool,
}

impl StreamReader {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.take_line(line.strip_suffix(b"\r").unwrap_or(&line));
            } else {
                self.line.push(*byte);
            }
        }
    }

    fn take_line(&mut self, line: &[u8]) {
        let Ok(line) = std::str::from_utf8(line) else {
            self.garbled = true;
            return;
        };
        if line.is_empty() {
            if let Some(data) = self.data.take() {
                self.take_event(&data);
            }
            return;
        }
        match line.split_once(':').unwrap_or((line, "")) {
            ("", _) | ("event" | "id" | "retry", _) => {}
            ("data", value) => {
                let value = value.strip_prefix(' ').unwrap_or(value);
                match &mut self.data {
                    Some(data) => {
                        data.push('\n');
                        data.push_str(value);
                    }
                    None => self.data = Some(value.to_owned()),
                }
            }
            _ => self.garbled = true,
        }
    }

    fn take_event(&mut self, data: &str) {
        if self.done {
            self.garbled = true;
        }
        if data == "[DONE]" {
            self.done = true;
            return;
        }
        let Ok(event) = serde_json::from_str::<Value>(data) else {
            self.garbled = true;
            return;
        };
        if event.get("error").is_some() {
            self.error.get_or_insert_with(|| error_code(&event));
        }
        if let Some(piece) = event.pointer("/choices/0/delta/content").and_then(Value::as_str) {
            self.garbled |= self.finished && !piece.is_empty();
            self.text.push_str(piece);
        }
        self.finished |= event.pointer("/choices/0/finish_reason").and_then(Value::as_str) == Some("stop");
    }

    /// What the stream was, now that it ended.
    pub(super) fn outcome(self, end: End, expected: &str) -> Outcome {
        if self.garbled || !expected.starts_with(&self.text) {
            return Outcome::Corrupt;
        }
        if let Some(code) = self.error {
            return Outcome::Broken { code };
        }
        if end == End::Broken {
            return Outcome::Broken { code: TRANSPORT.to_owned() };
        }
        if self.text == expected && self.finished && self.done { Outcome::Ok } else { Outcome::FalselyComplete }
    }
}

fn error_code(body: &Value) -> String {
    let word = |field: &str| body.pointer(field).and_then(Value::as_str).map(str::to_owned);
    word("/error/code").or_else(|| word("/error/type")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(text: &str, finish: Option<&str>) -> String {
        let choice = serde_json::json!({ "index": 0, "delta": { "content": text }, "finish_reason": finish });
        format!("data: {}\n\n", serde_json::json!({ "choices": [choice] }))
    }

    fn outcome(stream: &str, end: End) -> Outcome {
        let mut reader = StreamReader::default();
        reader.feed(stream.as_bytes());
        reader.outcome(end, "ab\ncd")
    }

    fn broken(code: &str) -> Outcome {
        Outcome::Broken { code: code.to_owned() }
    }

    #[test]
    fn whole_stream_is_ok_wherever_its_bytes_are_split() {
        let comments = ": queued position=1\n: queued position=0\n";
        let stream = format!(
            "{comments}{}{}{}data: [DONE]\n\n",
            chunk("ab", None),
            chunk("\ncd", None),
            chunk("", Some("stop"))
        );
        for size in 1..stream.len() {
            let mut reader = StreamReader::default();
            stream.as_bytes().chunks(size).for_each(|piece| reader.feed(piece));
            assert_eq!(reader.outcome(End::Clean, "ab\ncd"), Outcome::Ok);
        }
    }

    #[test]
    fn cut_stream_that_ends_cleanly_is_falsely_complete() {
        let (part, stop, done) = (chunk("ab", None), chunk("", Some("stop")), "data: [DONE]\n\n");
        let whole = chunk("ab\ncd", None);
        for stream in [
            String::new(),
            part.clone(),
            format!("{part}{done}"),
            format!("{part}{stop}{done}"),
            format!("{whole}{done}"),
            format!("{whole}{stop}"),
        ] {
            assert_eq!(outcome(&stream, End::Clean), Outcome::FalselyComplete, "{stream}");
        }
    }

    #[test]
    fn break_that_can_be_seen_is_broken() {
        assert_eq!(outcome(&chunk("ab", None), End::Broken), broken("transport"));
        let error = "data: {\"error\":{\"message\":\"m\",\"code\":\"upstream_disconnected\"}}\n\n";
        assert_eq!(outcome(&format!("{}{error}", chunk("ab", None)), End::Clean), broken("upstream_disconnected"));
    }

    #[test]
    fn wrong_bytes_are_corrupt_however_the_stream_ends() {
        for stream in [chunk("aX", None), chunk("ab\ncdab", None), "data: {oops\n\n".to_owned(), "ab\n\n".to_owned()] {
            for end in [End::Clean, End::Broken] {
                assert_eq!(outcome(&stream, end), Outcome::Corrupt, "{stream}");
            }
        }
    }

    #[test]
    fn plain_answers_are_judged_like_streams() {
        let body = |text: &str| {
            let choice = serde_json::json!({ "message": { "content": text }, "finish_reason": "stop" });
            serde_json::json!({ "choices": [choice] }).to_string()
        };
        let judge = |text: &str, end| Outcome::of_plain(body(text).as_bytes(), end, "abc");
        assert_eq!(judge("abc", End::Clean), Outcome::Ok);
        assert_eq!(judge("ab", End::Clean), Outcome::FalselyComplete);
        assert_eq!(judge("abd", End::Clean), Outcome::Corrupt);
        assert_eq!(judge("abc", End::Broken), broken("transport"));
        assert_eq!(Outcome::of_plain(b"{", End::Clean, "abc"), Outcome::Corrupt);
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
