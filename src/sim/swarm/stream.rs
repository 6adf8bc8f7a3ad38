//! Reads a stream as its client would, and misses nothing that a wrong splice leaves behind.

use serde_json::Value;

use super::expected::Expected;
use super::report::Came;
use super::verify::{End, Outcome, error_code};

/// Reads a stream of chat completion chunks.
#[derive(Debug, Default)]
pub(super) struct StreamReader {
    /// The line that is not complete yet.
    line: Vec<u8>,
    /// The data lines of the event that is not complete yet.
    data: Option<String>,
    /// Id and instant of creation, as the first chunk told them.
    identity: Option<(String, u64)>,
    has_role: bool,
    reasoning: String,
    content: String,
    finished: bool,
    usage: Option<Value>,
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
        if self.done || self.error.is_some() {
            self.garbled |= data != "[DONE]" || self.done;
        }
        if data == "[DONE]" {
            self.done = true;
            return;
        }
        match serde_json::from_str::<Value>(data) {
            Ok(event) if event.get("error").is_some() => {
                self.error.get_or_insert_with(|| error_code(&event));
            }
            Ok(event) => self.garbled |= self.take_chunk(&event).is_none(),
            Err(_) => self.garbled = true,
        }
    }

    /// Takes a chunk; nothing if it does not belong where it came.
    fn take_chunk(&mut self, chunk: &Value) -> Option<()> {
        let identity = (chunk.get("id")?.as_str()?.to_owned(), chunk.get("created")?.as_u64()?);
        belongs(*self.identity.get_or_insert_with(|| identity.clone()) == identity)?;
        match chunk.get("choices")?.as_array()?.as_slice() {
            [] => {
                belongs(self.finished && self.usage.is_none())?;
                self.usage = Some(chunk.get("usage")?.clone());
                Some(())
            }
            [choice] => {
                belongs(chunk.get("usage").is_none_or(Value::is_null))?;
                self.take_choice(choice)
            }
            _ => None,
        }
    }

    fn take_choice(&mut self, choice: &Value) -> Option<()> {
        belongs(choice.get("index")?.as_u64()? == 0 && !self.finished)?;
        let delta = choice.get("delta")?;
        let piece = |field: &str| delta.get(field).and_then(Value::as_str);
        if let Some(role) = piece("role") {
            belongs(!self.has_role && role == "assistant" && self.reasoning.is_empty() && self.content.is_empty())?;
            self.has_role = true;
        }
        if let Some(thought) = piece("reasoning_content") {
            belongs(self.has_role && self.content.is_empty())?;
            self.reasoning.push_str(thought);
        }
        if let Some(said) = piece("content") {
            belongs(self.has_role)?;
            self.content.push_str(said);
        }
        match choice.get("finish_reason") {
            None | Some(Value::Null) => {}
            Some(reason) => {
                belongs(reason.as_str() == Some("stop"))?;
                self.finished = true;
            }
        }
        Some(())
    }

    /// How far it came.
    pub(super) fn came(&self) -> Came {
        match (self.reasoning.trim().is_empty(), self.content.trim().is_empty()) {
            _ if self.finished => Came::Finish,
            (_, false) => Came::Content,
            (false, true) => Came::Reasoning,
            (true, true) => Came::Nothing,
        }
    }

    /// What the stream was, now that it ended.
    pub(super) fn outcome(self, end: End, expected: &Expected) -> Outcome {
        if self.garbled || !expected.begins_with(&self.reasoning, &self.content) {
            return Outcome::Corrupt;
        }
        if self.usage.as_ref().is_some_and(|usage| !expected.usage || !expected.used(usage)) {
            return Outcome::Corrupt;
        }
        if let Some(code) = self.error {
            return Outcome::Broken { code };
        }
        if end == End::Broken {
            return Outcome::broken_transport();
        }
        // Without `[DONE]` nothing is missing: that says that the stream is over, which its end says, too.
        let whole = self.finished && expected.is(&self.reasoning, &self.content);
        match self.usage {
            _ if !whole => Outcome::FalselyComplete,
            None if expected.usage && self.done => Outcome::FalselyComplete,
            None if expected.usage => Outcome::WithoutUsage,
            _ => Outcome::Ok,
        }
    }
}

fn belongs(it_does: bool) -> Option<()> {
    it_does.then_some(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn expected(usage: bool) -> Expected {
        Expected::of("m", "p", "", true, usage)
    }

    fn chunk(delta: &Value, finish: Option<&str>) -> Value {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
        json!({ "id": "c-1", "created": 7, "choices": [choice] })
    }

    fn used(expected: &Expected) -> Value {
        let (prompt, completion) = (expected.prompt_tokens, expected.completion_tokens());
        let usage = json!({
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion
        });
        json!({ "id": "c-1", "created": 7, "choices": [], "usage": usage })
    }

    /// A stream as it should be.
    fn right(expected: &Expected) -> Vec<Value> {
        let thoughts = expected.reasoning.iter().map(|text| chunk(&json!({ "reasoning_content": text }), None));
        let said = expected.content.iter().map(|text| chunk(&json!({ "content": text }), None));
        let role = chunk(&json!({ "role": "assistant", "content": "" }), None);
        let mut stream: Vec<Value> = std::iter::once(role).chain(thoughts).chain(said).collect();
        stream.push(chunk(&json!({}), Some("stop")));
        stream.extend(expected.usage.then(|| used(expected)));
        stream.push(json!("[DONE]"));
        stream
    }

    fn written(stream: &[Value]) -> String {
        let data = stream.iter().map(|event| event.as_str().map_or_else(|| event.to_string(), str::to_owned));
        data.map(|data| format!("data: {data}\n\n")).collect()
    }

    fn outcome(stream: &[Value], end: End, expected: &Expected) -> Outcome {
        let mut reader = StreamReader::default();
        reader.feed(written(stream).as_bytes());
        reader.outcome(end, expected)
    }

    #[test]
    fn whole_stream_is_ok_wherever_its_bytes_are_split() {
        for usage in [true, false] {
            let expected = expected(usage);
            let stream = format!(": queued position=1\n: queued position=0\n{}", written(&right(&expected)));
            for size in (1..90).chain([stream.len()]) {
                let mut reader = StreamReader::default();
                stream.as_bytes().chunks(size).for_each(|piece| reader.feed(piece));
                assert_eq!(reader.outcome(End::Clean, &expected), Outcome::Ok);
            }
        }
    }

    #[test]
    fn stream_cut_anywhere_is_falsely_complete_or_seen_to_be_broken() {
        let expected = expected(true);
        let stream = right(&expected);
        let error = json!({ "error": { "message": "m", "code": "upstream_disconnected" } });
        let told = Outcome::Broken { code: "upstream_disconnected".to_owned() };
        for cut in 0..stream.len() {
            let part = stream[..cut].to_vec();
            let complete = match stream.len() - cut {
                1 => Outcome::Ok,
                2 => Outcome::WithoutUsage,
                _ => Outcome::FalselyComplete,
            };
            assert_eq!(outcome(&part, End::Clean, &expected), complete, "{cut}");
            assert_eq!(outcome(&part, End::Broken, &expected), Outcome::broken_transport(), "{cut}");
            let broken = [part.clone(), vec![error.clone()]].concat();
            assert_eq!(outcome(&broken, End::Clean, &expected), told, "{cut}");
            let done = [broken.clone(), vec![json!("[DONE]")]].concat();
            assert_eq!(outcome(&done, End::Clean, &expected), told, "{cut}");
            let lost = [stream[..cut].to_vec(), stream[cut + 1..].to_vec()].concat();
            let is_whole = outcome(&lost, End::Clean, &expected) == Outcome::Ok;
            assert_eq!(is_whole, cut + 1 == stream.len(), "without event {cut}");
            let twice = [stream[..=cut].to_vec(), stream[cut..].to_vec()].concat();
            assert_eq!(outcome(&twice, End::Clean, &expected), Outcome::Corrupt, "event {cut} twice");
            let late = [broken, stream[cut..].to_vec()].concat();
            assert!(cut + 1 == stream.len() || outcome(&late, End::Clean, &expected) == Outcome::Corrupt, "{cut}");
        }
    }

    #[test]
    fn how_far_it_came_is_known_at_every_event() {
        let expected = expected(false);
        let (mut reader, mut seen) = (StreamReader::default(), vec![Came::Nothing]);
        for event in right(&expected) {
            reader.feed(written(&[event]).as_bytes());
            seen.push(reader.came());
        }
        let thought = expected.reasoning.len();
        let said = expected.content.len();
        let runs = [(Came::Nothing, 2), (Came::Reasoning, thought), (Came::Content, said), (Came::Finish, 2)];
        assert_eq!(seen, runs.map(|(came, count)| vec![came; count]).concat());
    }

    #[test]
    fn wrong_splice_is_corrupt_however_the_stream_ends() {
        let expected = expected(true);
        let right = right(&expected);
        let spoilt = |event: usize, pointer: &str, value: Value| {
            let mut stream = right.clone();
            *stream[event].pointer_mut(pointer).expect("it is there") = value;
            stream
        };
        let (finish, usage) = (right.len() - 3, right.len() - 2);
        for (what, stream) in [
            ("another id", spoilt(4, "/id", json!("c-2"))),
            ("another instant", spoilt(4, "/created", json!(8))),
            ("another choice", spoilt(4, "/choices/0/index", json!(1))),
            ("another finish reason", spoilt(finish, "/choices/0/finish_reason", json!("length"))),
            ("another role", spoilt(0, "/choices/0/delta/role", json!("user"))),
            ("wrong text", spoilt(finish - 1, "/choices/0/delta/content", json!("other"))),
            ("prompt that grew", spoilt(usage, "/usage/prompt_tokens", json!(99))),
            ("completion of the rest", spoilt(usage, "/usage/completion_tokens", json!(1))),
            ("usage with a choice", {
                let mut stream = right.clone();
                stream[2]["usage"] = json!({});
                stream
            }),
            ("no JSON", [vec![json!("{oops")], right.clone()].concat()),
            ("something after the end", [right.clone(), vec![right[1].clone()]].concat()),
        ] {
            for end in [End::Clean, End::Broken] {
                assert_eq!(outcome(&stream, end, &expected), Outcome::Corrupt, "{what}");
            }
        }
        let unasked = Expected { usage: false, ..expected };
        assert_eq!(outcome(&right, End::Clean, &unasked), Outcome::Corrupt, "usage that nobody asked for");
    }
}
