//! What both halves of the tests are told with.

use bytes::Bytes;
use serde_json::Value;

use super::{Continuation, Misfit, Partial, Splice, Style, Unfit};
use crate::openai::{Event, Frame, Route};

mod asking;
mod echoing;
mod observing;
mod splicing;

pub(super) fn event(data: &str) -> Frame {
    Frame::Event(Bytes::from(format!("data: {data}\n\n")))
}

/// A chunk of a chat with this delta.
fn delta(delta: &str) -> Frame {
    event(&format!(
        r#"{{"id":"one","object":"chat.completion.chunk","created":1,"model":"m","choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}"#
    ))
}

/// As [`delta`], of another stream.
fn next(delta: &str, rest: &str) -> Frame {
    event(&format!(
        r#"{{"id":"two", "created":2,"model":"other","choices":[{{"index":0,"delta":{delta}{rest}}}],"p":"ab"}}"#
    ))
}

fn next_text(text: &str) -> Frame {
    next(&format!(r#"{{"content":{}}}"#, Value::from(text)), "")
}

fn content(text: &str) -> Frame {
    delta(&format!(r#"{{"content":{}}}"#, Value::from(text)))
}

fn reasoning(text: &str) -> Frame {
    delta(&format!(r#"{{"reasoning_content":{}}}"#, Value::from(text)))
}

fn role() -> Frame {
    delta(r#"{"role":"assistant","content":""}"#)
}

/// What a chat has come to after these frames.
fn chat(frames: impl IntoIterator<Item = Frame>) -> Partial {
    observed(Route::ChatCompletions, frames)
}

fn observed(route: Route, frames: impl IntoIterator<Item = Frame>) -> Partial {
    let mut partial = Partial::new(route, 1);
    for frame in frames {
        partial.observe(&frame);
    }
    partial
}

/// The answer so far, a word of it for each piece.
fn said(words: &[&str]) -> Partial {
    chat([role()].into_iter().chain(words.iter().map(|word| content(word))))
}

const SENTENCE: &str = "The sky is blue because of the air.";

const QUESTION: &str = r#"{"model":"m","messages":[{"role":"user","content":"q"}],"stream":true}"#;

fn splice(partial: &Partial, style: Style) -> Splice {
    partial.request(QUESTION.as_bytes(), Some(style)).unwrap().splice
}

/// What is passed on of these frames, as text.
fn rewritten(splice: &mut Splice, frames: impl IntoIterator<Item = Frame>) -> Result<Vec<String>, Misfit> {
    let mut out = Vec::new();
    for frame in frames {
        out.extend(splice.rewrite(frame)?.map(|frame| String::from_utf8(frame.into_bytes().to_vec()).unwrap()));
    }
    Ok(out)
}

/// The text that a reader sees of these events.
fn text_of(events: &[String]) -> String {
    let text = |event: &String| {
        let data = Event::new(event.as_bytes()).data().into_owned();
        let value: Value = serde_json::from_slice(&data).ok()?;
        let choice = &value["choices"][0];
        choice["delta"]["content"].as_str().or_else(|| choice["text"].as_str()).map(str::to_owned)
    };
    events.iter().filter_map(text).collect()
}

fn body(asked: Result<Continuation, Unfit>) -> Result<String, Unfit> {
    asked.map(|asked| String::from_utf8(asked.body.to_vec()).unwrap())
}
