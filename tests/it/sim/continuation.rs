//! However an answer was cut, its rest completes it, in every style; what is no beginning of it does not.

use serde_json::{Value, json};
use tidegate::sim::{Continuation, Running, Settings, content};

use super::{Raw, sim};

const MODEL: &str = "m-reasoning";
const PROMPT: &str = "abcd";

/// What an answer said and used.
#[derive(Debug, PartialEq)]
struct Told {
    id: String,
    reasoning: String,
    content: String,
    prompt_tokens: u64,
    completion_tokens: u64,
}

async fn told(sim: &Running, path: &str, mut body: Value, stream: bool) -> Told {
    let mut client = Raw::to(sim).await;
    body["stream"] = json!(stream);
    if stream {
        body["stream_options"] = json!({ "include_usage": true });
    }
    client.post(path, &body).await;
    let answer = client.answer().await.expect("whole");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let data: Vec<Value> = match stream {
        true => {
            let lines = answer.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
            lines.map(|data| serde_json::from_str(data).expect("JSON")).collect()
        }
        false => vec![serde_json::from_str(answer.split_once("\r\n\r\n").expect("a head").1).expect("JSON")],
    };
    assert!(!stream || path != CHAT || data[0]["choices"][0]["delta"]["role"] == "assistant", "a role comes first");
    let joined = |name: &str| -> String {
        let choices = data.iter().map(|event| &event["choices"][0]);
        let pieces = choices.filter_map(|choice| {
            let place = choice.get("delta").or_else(|| choice.get("message")).unwrap_or(choice);
            place.get(name).and_then(Value::as_str).map(str::to_owned)
        });
        pieces.collect()
    };
    let usage = &data.last().expect("usage")["usage"];
    Told {
        id: data[0]["id"].as_str().expect("an id").to_owned(),
        reasoning: joined("reasoning_content"),
        content: joined(if path == CHAT { "content" } else { "text" }),
        prompt_tokens: usage["prompt_tokens"].as_u64().expect("a number"),
        completion_tokens: usage["completion_tokens"].as_u64().expect("a number"),
    }
}

const CHAT: &str = "/v1/chat/completions";

fn chat(last: Option<Value>) -> Value {
    let user = json!({ "role": "user", "content": PROMPT });
    let messages: Vec<Value> = std::iter::once(user).chain(last).collect();
    json!({ "model": MODEL, "messages": messages })
}

fn of_vllm(partial: &str) -> Value {
    let mut body = chat(Some(json!({ "role": "assistant", "content": partial })));
    body["continue_final_message"] = json!(true);
    body["add_generation_prompt"] = json!(false);
    body
}

fn of_prefix(reasoning: &str, content: &str) -> Value {
    let mut last = json!({ "role": "assistant", "content": content, "prefix": true });
    if !reasoning.is_empty() {
        last["reasoning_content"] = json!(reasoning);
    }
    chat(Some(last))
}

async fn provider(continuation: Continuation) -> Running {
    sim(Settings { continuation, ..Settings::default() }).await
}

/// The beginnings that a break leaves: whole deltas.
fn beginnings(deltas: &[String]) -> impl Iterator<Item = (usize, String)> {
    (1..=deltas.len()).map(|count| (count, deltas[..count].concat()))
}

#[tokio::test]
async fn rest_completes_what_was_said_wherever_it_broke() {
    let deltas = content::deltas(MODEL, PROMPT, None);
    for style in [Continuation::Any, Continuation::Vllm, Continuation::Prefix] {
        let sim = provider(style).await;
        let whole = told(&sim, CHAT, chat(None), true).await;
        for (count, partial) in beginnings(&deltas) {
            let body = if style == Continuation::Prefix { of_prefix("", &partial) } else { of_vllm(&partial) };
            let (plain, stream) = (told(&sim, CHAT, body.clone(), false).await, told(&sim, CHAT, body, true).await);
            assert_eq!(plain, stream);
            assert_eq!((partial + &stream.content, stream.reasoning.as_str()), (whole.content.clone(), ""));
            assert_ne!(stream.id, whole.id);
            assert_eq!(stream.prompt_tokens, whole.prompt_tokens + count as u64);
            assert_eq!(stream.completion_tokens, (deltas.len() - count) as u64);
        }
    }
}

#[tokio::test]
async fn reasoning_goes_on_where_it_broke() {
    let sim = provider(Continuation::Prefix).await;
    let whole = told(&sim, CHAT, chat(None), true).await;
    let (thought, said) = (content::reasoning(MODEL, PROMPT), content::deltas(MODEL, PROMPT, None));
    for (count, partial) in beginnings(&thought) {
        let rest = told(&sim, CHAT, of_prefix(&partial, ""), true).await;
        assert_eq!((partial + &rest.reasoning, &rest.content), (whole.reasoning.clone(), &whole.content));
        assert_eq!(rest.completion_tokens + count as u64, whole.completion_tokens);
        assert_eq!(rest.prompt_tokens, whole.prompt_tokens + count as u64);
    }
    let rest = told(&sim, CHAT, of_prefix(&whole.reasoning, &said[0]), false).await;
    assert_eq!((rest.reasoning.as_str(), said[0].clone() + &rest.content), ("", whole.content.clone()));
    assert_eq!(rest.prompt_tokens, whole.prompt_tokens + thought.len() as u64 + 1);
    let vllm = provider(Continuation::Vllm).await;
    let again = told(&vllm, CHAT, of_vllm(""), true).await;
    assert_eq!(again, Told { id: again.id.clone(), ..whole }, "vLLM sees no reasoning: it begins again");
}

#[tokio::test]
async fn echo_repeats_what_was_said_and_goes_on() {
    let sim = provider(Continuation::PrefixEcho).await;
    let deltas = content::deltas(MODEL, PROMPT, None);
    for (count, partial) in beginnings(&deltas) {
        for stream in [true, false] {
            let echoed = told(&sim, CHAT, of_prefix("", &partial), stream).await;
            assert_eq!(echoed.content, deltas.concat());
            assert_eq!(echoed.completion_tokens, (deltas.len() - count) as u64);
        }
    }
}

#[tokio::test]
async fn what_never_began_is_not_continued_but_contradicted() {
    for style in [Continuation::Any, Continuation::PrefixEcho] {
        let sim = provider(style).await;
        let whole = content::expected(MODEL, PROMPT);
        for partial in ["never said", &whole[whole.find(' ').expect("words")..], &format!("{whole}and more")] {
            let rest = told(&sim, CHAT, of_prefix("", partial), true).await;
            assert!(rest.content.contains("<astray>"), "{rest:?}");
        }
    }
}

#[tokio::test]
async fn what_a_style_does_not_know_it_ignores_or_refuses() {
    let whole = content::expected(MODEL, PROMPT);
    let first = content::deltas(MODEL, PROMPT, None).remove(0);
    let vllm = provider(Continuation::Vllm).await;
    assert_eq!(told(&vllm, CHAT, of_prefix("", &first), true).await.content, whole);
    let prefix = provider(Continuation::Prefix).await;
    assert_eq!(told(&prefix, CHAT, of_vllm(&first), true).await.content, whole);
    let off = provider(Continuation::Off).await;
    let mut of_user = of_vllm(&first);
    of_user["messages"] = json!([{ "role": "user", "content": PROMPT }]);
    let mut both = of_vllm(&first);
    both["add_generation_prompt"] = json!(true);
    let mut unsaid = of_vllm(&first);
    unsaid.as_object_mut().expect("an object").remove("add_generation_prompt");
    for (sim, body, told) in [
        (&off, of_prefix("", &first), "Unknown parameter: 'messages[1].prefix'."),
        (&off, of_vllm(&first), "Unrecognized request argument supplied: continue_final_message"),
        (&vllm, both, "cannot set both"),
        (&vllm, unsaid, "cannot set both"),
        (&vllm, of_user, "its role is not assistant"),
    ] {
        let mut client = Raw::to(sim).await;
        client.post(CHAT, &body).await;
        let answer = client.answer().await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(told), "{answer}");
    }
}

#[tokio::test]
async fn text_completion_goes_on_after_the_first_line_of_its_prompt() {
    let sim = provider(Continuation::Off).await;
    let completion = |prompt: &str| json!({ "model": "m", "prompt": prompt });
    let path = "/v1/completions";
    let whole = told(&sim, path, completion("one line\n"), true).await;
    let deltas = content::deltas("m", "one line\n", None);
    assert_eq!(whole.content, deltas.concat());
    for (count, partial) in beginnings(&deltas) {
        for stream in [true, false] {
            let rest = told(&sim, path, completion(&format!("one line\n{partial}")), stream).await;
            assert_eq!(partial.clone() + &rest.content, whole.content);
            assert_eq!(rest.prompt_tokens, whole.prompt_tokens + count as u64);
            assert_eq!(rest.completion_tokens + count as u64, whole.completion_tokens);
        }
    }
    let other = told(&sim, path, completion("one line\nand another"), true).await;
    assert_eq!(other.content, content::expected("m", "one line\nand another"));
}
