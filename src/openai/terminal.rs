//! Did a stream come to its proper end? EOF alone does not say so: a provider that resets connections ends many of its
//! streams in the middle, and on a connection that is delimited by its closing the two look the same.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::route::Route;
use super::sse::{Event, Frame};
use super::usage::{Carrier, Usage};

/// How a stream ended, by its own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The model finished.
    Finished,
    /// The provider sent an error in the stream. It is the client's to see, and nothing is missing.
    Failed,
}

/// Watches the events of one stream for its ending, and for the usage it reports.
///
/// Most events are let go after one glance over their bytes; JSON is parsed only where a key that matters has a value
/// that matters.
#[derive(Debug)]
pub struct Terminal {
    route: Route,
    choices: Choices,
    ending: Option<Ending>,
    usage: Option<Usage>,
    /// The very last event, `data: [DONE]` or an ending that nothing follows, has come.
    done: bool,
    /// The ending that the event now passing in parts will bring; the outer `None` when none passes.
    in_parts: Option<Option<Ending>>,
}

impl Terminal {
    /// A watcher for a stream on `route`. On a route whose streams have no known ending nothing is waited for.
    #[must_use]
    pub fn for_route(route: Route) -> Self {
        Self { route, choices: Choices::default(), ending: None, usage: None, done: false, in_parts: None }
    }

    /// The request asked for `n` answers in one stream; each must finish. Choices that only show up in the stream are
    /// waited for in any case.
    #[must_use]
    pub fn expecting(mut self, n: u64) -> Self {
        self.choices.seen |= Choices::first(n);
        self
    }

    /// Takes note of what a [`Framer`](super::Framer) yielded.
    pub fn observe(&mut self, frame: &Frame) {
        match frame {
            Frame::Event(bytes) => self.observe_event(bytes),
            Frame::Part { bytes, last } => {
                let ending = self.in_parts.take().unwrap_or_else(|| named_ending(self.route, bytes));
                if *last {
                    self.end(ending);
                } else {
                    self.in_parts = Some(ending);
                }
            }
        }
    }

    /// Takes note of one event's bytes. At the end of a stream this may be the rest, too: `data: [DONE]` without its
    /// blank line is an ending all the same.
    pub fn observe_event(&mut self, bytes: &[u8]) {
        let event = Event::new(bytes);
        let data = event.data();
        let data = data.trim_ascii();
        if data == b"[DONE]" {
            self.done = true;
            // At endpoints that we do not know, too: it says so in so many words.
            let has_other_words = matches!(self.route, Route::Responses | Route::Messages);
            self.end(Some(Ending::Finished).filter(|_| !has_other_words));
        } else if is_worth_parsing(self.route, data) {
            self.read(data);
        }
        if !is_chosen(self.route) {
            self.end(event.event_type().and_then(|name| ending_called(self.route, name)));
        }
    }

    /// The stream has said that it is over, or is of a kind that never says so.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.ending.is_some() || matches!(self.route, Route::Embeddings | Route::Other)
    }

    /// Nothing more can come: usage neither. Only streams of chat and completions tell it apart from their ending.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.done || (self.ending.is_some() && !is_chosen(self.route)) || matches!(self.ending, Some(Ending::Failed))
    }

    /// How the stream ended, once it did.
    #[must_use]
    pub const fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// What the stream reported so far.
    #[must_use]
    pub const fn usage(&self) -> Option<Usage> {
        self.usage
    }

    fn read(&mut self, data: &[u8]) {
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else { return };
        let carrier = Carrier { usage: chunk.usage, response: chunk.response, message: chunk.message };
        if let Some(usage) = carrier.usage() {
            self.usage.get_or_insert_default().update(usage);
        }
        if chunk.error.is_some() {
            self.end(Some(Ending::Failed));
        } else if is_chosen(self.route) {
            let choices = chunk.choices.and_then(|raw| serde_json::from_str::<Vec<Choice>>(raw.get()).ok());
            let finished = self.choices.take_note(&choices.unwrap_or_default());
            self.end(finished.then_some(Ending::Finished));
        } else {
            let name = chunk.kind.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
            self.end(name.and_then(|name| ending_called(self.route, &name)));
        }
    }

    /// The first ending stands, but for an error that follows it.
    fn end(&mut self, ending: Option<Ending>) {
        if self.ending != Some(Ending::Failed) {
            self.ending = ending.or(self.ending);
        }
    }
}

/// On these routes a stream consists of choices and ends with `[DONE]`.
const fn is_chosen(route: Route) -> bool {
    matches!(route, Route::ChatCompletions | Route::Completions)
}

/// The endings that have names.
fn ending_called(route: Route, name: &str) -> Option<Ending> {
    match (route, name) {
        (Route::Responses, "response.completed" | "response.failed" | "response.incomplete")
        | (Route::Messages, "message_stop") => Some(Ending::Finished),
        (Route::Responses | Route::Messages, "error") => Some(Ending::Failed),
        _ => None,
    }
}

/// The ending that an event announces in its first bytes; the last event of the Responses API repeats the whole answer
/// and may be too long to be seen in one piece.
fn named_ending(route: Route, part: &[u8]) -> Option<Ending> {
    const HEAD: usize = 512;
    let head = &part[..part.len().min(HEAD)];
    let from_type = || {
        let value = values(head).find_map(|(key, value)| (key == Key::Type).then_some(value))?;
        let value = value.strip_prefix(b"\"")?;
        std::str::from_utf8(&value[..value.iter().position(|byte| *byte == b'"')?]).ok()
    };
    let name = Event::new(head).event_type().or_else(from_type)?;
    ending_called(route, name)
}

/// Could this JSON hold an ending or a usage? A glance for keys whose value is more than a placeholder.
fn is_worth_parsing(route: Route, data: &[u8]) -> bool {
    let chosen = is_chosen(route);
    values(data).any(|(key, value)| match key {
        Key::Error | Key::Usage => !value.starts_with(b"null"),
        Key::FinishReason => chosen && !value.starts_with(b"null") && !value.starts_with(b"\"\""),
        Key::Index => chosen && !value.starts_with(b"0"),
        Key::Type => {
            let ends = |name: &[u8]| value.get(1..).is_some_and(|value| value.starts_with(name));
            !chosen
                && [&b"response.completed"[..], b"response.failed", b"response.incomplete", b"message_stop", b"error"]
                    .into_iter()
                    .any(ends)
        }
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Error,
    Usage,
    FinishReason,
    Index,
    Type,
}

/// The keys of interest at any depth, each with the text that follows its colon. Quotes inside of strings are escaped,
/// so text that merely talks about `"error"` does not look like a key.
fn values(json: &[u8]) -> impl Iterator<Item = (Key, &[u8])> {
    const KEYS: [(Key, &[u8]); 5] = [
        (Key::Error, b"error\""),
        (Key::Usage, b"usage\""),
        (Key::FinishReason, b"finish_reason\""),
        (Key::Index, b"index\""),
        (Key::Type, b"type\""),
    ];
    let mut rest = json;
    std::iter::from_fn(move || {
        loop {
            let quote = rest.iter().position(|byte| *byte == b'"')?;
            rest = &rest[quote + 1..];
            let found = KEYS.iter().find_map(|(key, name)| {
                let value = rest.strip_prefix(*name)?.trim_ascii_start().strip_prefix(b":")?;
                Some((*key, value.trim_ascii_start()))
            });
            if found.is_some() {
                return found;
            }
        }
    })
}

/// The choices of a stream: which were seen, and which have finished.
#[derive(Debug, Default)]
struct Choices {
    seen: u128,
    finished: u128,
}

impl Choices {
    /// Notes the choices of one chunk; true when every choice seen so far has finished.
    fn take_note(&mut self, choices: &[Choice]) -> bool {
        for choice in choices {
            // Nobody offers more than 128 answers; what lies beyond waits for [DONE].
            let bit = 1_u128.checked_shl(choice.index).unwrap_or_default();
            self.seen |= bit;
            if choice.finish_reason.as_deref().is_some_and(|reason| !reason.is_empty()) {
                self.finished |= bit;
            }
        }
        self.finished != 0 && self.finished == self.seen
    }

    fn first(n: u64) -> u128 {
        u32::try_from(n).ok().and_then(|n| 1_u128.checked_shl(n)).map_or(u128::MAX, |end| end - 1)
    }
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u32,
    finish_reason: Option<String>,
}

/// The top level of an event's JSON.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    choices: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

#[cfg(test)]
mod tests;
