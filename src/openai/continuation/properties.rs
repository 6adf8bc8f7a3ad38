//! What holds for every answer, however it is cut and however often it breaks.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::echo::is_doubtful;
use super::partial::trim;
use super::tests::event;
use super::{Misfit, Partial, Style, Unfit};
use crate::openai::properties::JSON;
use crate::openai::{Event, Frame, Framer, Route};

/// A model that always answers the same, at a provider that continues as the real ones do.
#[derive(Debug)]
struct Model {
    thoughts: Vec<String>,
    tokens: Vec<String>,
    style: Style,
    echoes: bool,
    /// How the text of several tokens is cut into events; none: one event a token.
    cuts: Vec<usize>,
    /// Before which events it sends one without a choice.
    asides: Vec<usize>,
}

const PROMPT_TOKENS: u64 = 5;

impl Model {
    /// The events of the answer to this request, the `number`th of all.
    fn answer(&self, body: &[u8], number: usize) -> Vec<Frame> {
        let body: Value = serde_json::from_slice(body).unwrap();
        let last = body["messages"].as_array().unwrap().last().unwrap();
        let continues = match self.style {
            Style::Vllm => body["continue_final_message"] == true && body["add_generation_prompt"] == false,
            Style::Prefix | Style::PrefixEcho => last["prefix"] == true,
        };
        let said = last["content"].as_str().filter(|_| continues).unwrap_or_default();
        assert_eq!(said, trim(said), "templates cannot cope with white space at the end");
        let thought = last["reasoning_content"].as_str().filter(|_| continues).unwrap_or_default();
        let (said_tokens, mut rest) = rest_after(&self.tokens, said);
        let (thought_tokens, mut thoughts) = rest_after(&self.thoughts, thought);
        if !said.is_empty() {
            thoughts.clear();
        }
        let limit = body["max_tokens"].as_u64().and_then(|limit| usize::try_from(limit).ok());
        let finish = if limit.is_some_and(|limit| limit < thoughts.len() + rest.len()) { "length" } else { "stop" };
        thoughts.truncate(limit.unwrap_or(usize::MAX));
        rest.truncate(limit.map_or(usize::MAX, |limit| limit - thoughts.len()));

        let chunk = |delta: Value, finish: Value| {
            let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
            event(&json!({"id": format!("id-{number}"), "created": number, "choices": [choice]}).to_string())
        };
        let mut frames = vec![chunk(json!({"role": "assistant", "content": ""}), Value::Null)];
        let made = (thoughts.len() + rest.len()) as u64;
        frames.extend(thoughts.into_iter().map(|text| chunk(json!({"reasoning_content": text}), Value::Null)));
        if self.echoes && !said.is_empty() {
            let pieces = self.pieces(&[said.to_owned()]);
            frames.extend(pieces.into_iter().map(|piece| chunk(json!({"content": piece}), Value::Null)));
        }
        frames.extend(self.pieces(&rest).into_iter().map(|piece| chunk(json!({"content": piece}), Value::Null)));
        frames.push(chunk(json!({}), finish.into()));
        let prompt = PROMPT_TOKENS + said_tokens + thought_tokens;
        let usage = json!({"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made});
        frames.push(event(&json!({"id": format!("id-{number}"), "choices": [], "usage": usage}).to_string()));
        for at in &self.asides {
            let aside = json!({"id": format!("id-{number}"), "choices": [], "prompt_filter_results": []});
            frames.insert(at % (frames.len() + 1), event(&aside.to_string()));
        }
        frames.push(event("[DONE]"));
        frames
    }

    fn pieces(&self, tokens: &[String]) -> Vec<String> {
        if self.cuts.is_empty() {
            return tokens.to_vec();
        }
        let text: Vec<char> = tokens.concat().chars().collect();
        let (mut pieces, mut rest, mut cuts) = (Vec::new(), &text[..], self.cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, next) = rest.split_at((*cuts.next().unwrap()).clamp(1, rest.len()));
            pieces.push(piece.iter().collect());
            rest = next;
        }
        pieces
    }
}

/// The tokens that come after this text, and how many it has.
fn rest_after(tokens: &[String], said: &str) -> (u64, Vec<String>) {
    let whole = tokens.concat();
    assert!(whole.starts_with(said), "{said:?} is no beginning of {whole:?}");
    let (mut at, mut count) = (0, 0);
    let mut rest = Vec::new();
    for token in tokens {
        let skip = said.len().saturating_sub(at).min(token.len());
        at += token.len();
        count += u64::from(skip > 0);
        rest.extend(Some(token[skip..].to_owned()).filter(|token| !token.is_empty()));
    }
    (count, rest)
}

/// What a client got in the end.
#[derive(Debug, Default)]
struct Seen {
    reasoning: String,
    text: String,
    ids: Vec<String>,
    roles: usize,
    finish: Option<String>,
    usage: Option<Value>,
    done: bool,
}

impl Seen {
    fn see(&mut self, frame: &Frame) {
        let data = Event::new(frame.bytes()).data().into_owned();
        if data == b"[DONE]" {
            self.done = true;
            return;
        }
        let chunk: Value = serde_json::from_slice(&data).unwrap();
        let choice = &chunk["choices"][0];
        self.reasoning += choice["delta"]["reasoning_content"].as_str().unwrap_or_default();
        self.text += choice["delta"]["content"].as_str().unwrap_or_default();
        self.roles += usize::from(choice["delta"].get("role").is_some());
        self.ids.push(chunk["id"].as_str().unwrap().to_owned());
        self.finish = self.finish.take().or_else(|| choice["finish_reason"].as_str().map(str::to_owned));
        self.usage = self.usage.take().or_else(|| chunk.get("usage").cloned());
    }
}

/// Asks `model`, whose streams break after so many events each; the last one does not.
fn ask(model: &Model, question: &str, breaks: &[usize]) -> (Seen, Partial, Result<(), String>) {
    let (mut seen, mut partial) = (Seen::default(), Partial::new(Route::ChatCompletions, 1));
    let (mut body, mut splice) = (Bytes::from(question.to_owned()), None);
    for number in 0..=breaks.len() {
        let frames = model.answer(&body, number);
        let count = breaks.get(number).copied().unwrap_or(usize::MAX);
        for frame in frames.into_iter().take(count) {
            let fitting: Vec<_> = match splice.as_mut().map(|splice: &mut super::Splice| splice.rewrite(frame.clone()))
            {
                None => vec![frame],
                Some(Ok(events)) => events.collect(),
                Some(Err(misfit)) => {
                    let lawful =
                        misfit == Misfit::Ambiguous && model.style == Style::Prefix && is_doubtful(trim(&seen.text));
                    let why = if lawful { "doubtful".to_owned() } else { format!("misfit: {misfit}") };
                    return (seen, partial, Err(why));
                }
            };
            for frame in fitting {
                seen.see(&frame);
                partial.observe(&frame);
            }
        }
        if seen.done {
            break;
        }
        match partial.request(question.as_bytes(), Some(model.style)) {
            Ok(next) => (body, splice) = (next.body, Some(next.splice)),
            Err(Unfit::Finished) => return (seen, partial, Err("finished".to_owned())),
            Err(Unfit::Reasoning) if model.style == Style::Vllm => {
                return (seen, partial, Err("still reasoning".to_owned()));
            }
            Err(unfit) => return (seen, partial, Err(format!("unfit: {unfit}"))),
        }
    }
    (seen, partial, Ok(()))
}

/// Tokens as models have them: white space by itself or before a word.
fn tokens() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(
        prop_oneof![
            6 => " ?[a-z\"\\\\é🦀]{1,6}",
            1 => Just("\n".to_owned()),
            1 => Just(" \n\n".to_owned()),
            1 => Just(" ".to_owned()),
            1 => "[.,{}\u{1}]",
        ],
        0..24,
    )
}

fn style() -> impl Strategy<Value = (Style, bool)> {
    let styles = [(Style::Vllm, false), (Style::Prefix, false), (Style::Prefix, true), (Style::PrefixEcho, true)];
    prop::sample::select(styles.to_vec())
}

fn asides() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..16_usize, 0..4)
}

fn question(limit: Option<usize>) -> String {
    let limit = limit.map(|limit| format!(r#","max_tokens":{limit}"#)).unwrap_or_default();
    format!(r#"{{"messages":[{{"role":"user","content":"q"}}]{limit}}}"#)
}

proptest! {
    /// One event a token, which is how tokens are counted: text, name, role, ending and usage are those of the answer
    /// that did not break.
    #[test]
    fn a_broken_answer_is_the_unbroken_one(
        thoughts in prop_oneof![Just(Vec::new()), tokens()],
        tokens in tokens(),
        (style, echoes) in style(),
        breaks in prop::collection::vec(0..12_usize, 0..5),
        limit in prop::option::of(1..30_usize),
        asides in asides(),
    ) {
        let model = Model { thoughts, tokens, style, echoes, cuts: Vec::new(), asides };
        let (whole, ..) = ask(&model, &question(limit), &[]);
        let (seen, _, end) = ask(&model, &question(limit), &breaks);
        match end.as_ref().map_err(String::as_str) {
            Ok(()) => {
                prop_assert_eq!(&seen.reasoning, &whole.reasoning);
                prop_assert_eq!(&seen.text, &whole.text);
                prop_assert_eq!(&seen.finish, &whole.finish);
                prop_assert_eq!(&seen.usage, &whole.usage);
                prop_assert_eq!((seen.roles, seen.done), (1, true));
                prop_assert!(seen.ids.iter().all(|id| id == &seen.ids[0]), "{:?}", seen.ids);
            }
            // Only its ending was missing.
            Err("finished") => prop_assert_eq!(&seen.text, &whole.text),
            Err("doubtful") => prop_assert!(whole.text.starts_with(&seen.text)),
            Err("still reasoning") => prop_assert!(whole.reasoning.starts_with(seen.reasoning.trim_end())),
            Err(why) => prop_assert!(false, "{}", why),
        }
    }

    /// However the text is cut into events, and wherever white space stands.
    #[test]
    fn any_cuts_give_the_same_text(
        text in "[a-c \n\t\"é🦀]{0,60}",
        cuts in prop::collection::vec(1..9_usize, 1..6),
        (style, echoes) in style(),
        breaks in prop::collection::vec(0..12_usize, 0..5),
        asides in asides(),
    ) {
        let model = Model { thoughts: Vec::new(), tokens: vec![text.clone()], style, echoes, cuts, asides };
        let (seen, _, end) = ask(&model, &question(None), &breaks);
        match end.as_ref().map_err(String::as_str) {
            Ok(()) | Err("finished") => prop_assert_eq!(&seen.text, &text),
            Err("doubtful") => prop_assert!(text.starts_with(&seen.text)),
            Err(why) => prop_assert!(false, "{}", why),
        }
    }

    /// Whatever stands around the messages stays as it was, byte for byte.
    #[test]
    fn a_request_is_changed_where_it_must_be(
        pieces in prop::collection::vec("[a-z \n\"\\\\é]{1,8}", 1..6),
        before in members(),
        after in members(),
        messages in prop::sample::select(vec!["", "1, {}", "null , {}", "{\"content\":\"\\u00e9\"}"]),
        style in style(),
    ) {
        let mut partial = Partial::new(Route::ChatCompletions, 1);
        for piece in &pieces {
            partial.observe(&event(&json!({"choices": [{"index": 0, "delta": {"content": piece}}]}).to_string()));
        }
        let after = after.strip_suffix(',').map(|after| format!(",{after}")).unwrap_or_default();
        let text = pieces.concat();
        prop_assume!(!trim(&text).is_empty());
        let around = |messages: &str, last: &str| format!("{{{before}\"messages\" : [{messages}]{after}{last}}}");
        let asked = partial.request(around(messages, "").as_bytes(), Some(style.0)).unwrap();
        let (prefix, flags) = match style.0 {
            Style::Vllm => ("", r#","continue_final_message":true,"add_generation_prompt":false"#),
            Style::Prefix | Style::PrefixEcho => (r#","prefix":true"#, ""),
        };
        let message = format!(r#"{{"role":"assistant","content":{}{prefix}}}"#, Value::from(trim(&text)));
        let comma = if messages.is_empty() { "" } else { "," };
        let expected = around(&format!("{messages}{comma}{message}"), flags);
        prop_assert_eq!(std::str::from_utf8(&asked.body).unwrap(), &expected);
        prop_assert!(serde_json::from_slice::<Value>(&asked.body).is_ok());
    }

    /// Nothing that a client or a provider sends makes it fail otherwise than by its word.
    #[test]
    fn any_bytes_can_be_continued_or_not(
        first in stream(),
        body in soup(&[JSON, MEMBERS].concat()),
        second in stream(),
        route in prop::sample::select(Route::ALL.to_vec()),
        style in prop::option::of(style()),
    ) {
        let mut partial = Partial::new(route, 1);
        for frame in Framer::default().push(Bytes::from(first)) {
            partial.observe(&frame);
        }
        let style = style.map(|(style, _)| style);
        for body in [body.as_bytes(), br#"{"messages":[{"content":"a"}],"prompt":"a"}"#] {
            let again = partial.request(body, None).map(|asked| asked.body);
            prop_assert_eq!(partial.is_blank(), again.is_ok());
            prop_assert!(again.is_err() || again.is_ok_and(|again| again == body));
            if let Some(unfit) = partial.unfit() {
                prop_assert_eq!(partial.request(body, style).err(), Some(unfit));
            }
            let Ok(mut asked) = partial.request(body, style) else { continue };
            if !partial.is_blank() && serde_json::from_slice::<Value>(body).is_ok() {
                prop_assert!(serde_json::from_slice::<Value>(&asked.body).is_ok());
            }
            for frame in Framer::default().push(Bytes::from(second.clone())) {
                let Ok(frames) = asked.splice.rewrite(frame) else { break };
                for frame in frames {
if !second.windows(frame.bytes().len()).any(|window| window == frame.bytes()) {
                        let data = Event::new(frame.bytes()).data().into_owned();
                        prop_assert!(serde_json::from_slice::<Value>(&data).is_ok(), "rewritten, {:?} is one event", frame);
                    }
                    partial.observe(&frame);
                }
            }
        }
    }
}

/// Members of an object, each with its comma, that have no meaning here.
fn members() -> impl Strategy<Value = String> {
    let member = prop::sample::select(vec![
        "\"seed\": 18446744073709551617,",
        "\"temperature\" :1.0e-0,",
        "\n\"stop\":[\"\\u000a\"],",
        "\"x\":{\"messages\":[1]},",
        "\"max_tokens\":null,",
    ]);
    prop::collection::vec(member, 0..3).prop_map(|members| members.concat())
}

const MEMBERS: &[&str] = &[
    "\"a\"",
    "\"\\n\"",
    "\"\"",
    "\"messages\":",
    "[{\"content\":\"a\",\"prefix\":true}]",
    "\"continue_final_message\":true",
    "\"prompt\":",
    "\"max_tokens\":",
    "\"m\\u0065ssages\":",
    "{\"messages\":[]}",
    "{\"messages\":[{}],\"max_tokens\":3}",
];

const EVENTS: &[&str] = &[
    "data: ",
    "data:",
    "data",
    "event: error\n",
    ": c\n",
    "\n",
    "\r\n",
    "\n\n",
    "\r",
    "[DONE]",
    "\u{feff}",
    "{\"id\":\"a\",\"choices\":[{\"index\":0,\"delta\":",
    "{\"content\":\"a \"}",
    "{\"role\":\"assistant\"}",
    "{\"reasoning\":\"a\",\"role\":1,\"content\":\" \"}",
    "}]}\n\n",
    "}],\"usage\":{\"completion_tokens\":-1}}\n\n",
    "data: {\"choices\":[{\"delta\":{\"content\":\"a \"}}]}\n\n",
    "data: {\"choices\":[{\"text\":\"a\\ud83e\\udd80\"}]}\n\n",
    "data: {\"id\":1,\"choices\":[],\"usage\":{\"completion_tokens\":1,\"prompt_tokens\":0}}\n\n",
];

fn soup(pieces: &[&'static str]) -> impl Strategy<Value = String> + use<> {
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..16).prop_map(|pieces| pieces.concat())
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    (soup(EVENTS), prop::option::of(any::<u8>())).prop_map(|(text, odd)| {
        let mut bytes = text.into_bytes();
        bytes.extend(odd);
        bytes
    })
}
