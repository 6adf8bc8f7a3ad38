//! Reasoning, tool calls, and what they use.

use serde_json::{Value, json};
use tidegate::sim::{Settings, content};

use super::{Raw, sim};

async fn asked(model: &str, stream: bool, directives: &Value, more: &Value) -> Vec<Value> {
    let sim = sim(Settings::default()).await;
    let mut client = Raw::to(&sim).await;
    let messages = json!([{ "role": "user", "content": "abcd" }]);
    let mut body = json!({ "model": model, "messages": messages, "sim": directives });
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    if stream {
        body["stream"] = json!(true);
        body["stream_options"] = json!({ "include_usage": true });
    }
    client.post("/v1/chat/completions", &body).await;
    if !stream {
        return vec![client.json().await];
    }
    let answer = client.answer().await.expect("whole");
    let data = answer.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    data.map(|data| serde_json::from_str(data).expect("JSON")).collect()
}

fn joined(events: &[Value], field: &str) -> String {
    let pieces = events.iter().filter_map(|event| event["choices"][0]["delta"][field].as_str());
    pieces.collect()
}

#[tokio::test]
async fn reasoning_comes_before_content_and_is_used_up_with_it() {
    for (model, wish) in [("m", json!({ "reasoning": true })), ("m-reasoning", json!({}))] {
        let (thought, said) = (content::reasoning(model, "abcd"), content::deltas(model, "abcd", None));
        let used = thought.len() + said.len();
        let events = asked(model, true, &wish, &json!({})).await;
        assert_eq!(joined(&events, "reasoning_content"), thought.concat());
        assert_eq!(joined(&events, "content"), said.concat());
        assert_eq!(events.len(), used + 3, "a role, each token, a finish, usage");
        let first_said = events.iter().position(|event| event["choices"][0]["delta"]["content"] == json!(said[0]));
        assert_eq!(first_said, Some(1 + thought.len()));
        let plain = asked(model, false, &wish, &json!({})).await.remove(0);
        assert_eq!(plain["choices"][0]["message"]["reasoning_content"], json!(thought.concat()));
        assert_eq!(plain["choices"][0]["message"]["content"], json!(said.concat()));
        for usage in [&events[used + 2]["usage"], &plain["usage"]] {
            assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(1), &json!(used)));
            assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], json!(thought.len()));
        }
        let cut = asked(model, true, &wish, &json!({ "max_tokens": thought.len() + 1 })).await;
        assert_eq!((joined(&cut, "content"), cut.len()), (said[0].clone(), thought.len() + 4));
        assert_eq!(cut[cut.len() - 2]["choices"][0]["finish_reason"], "length");
    }
}

#[tokio::test]
async fn tool_calls_are_streamed_in_fragments_and_told_whole() {
    let wish = json!({ "tool_calls": 2 });
    let expected = content::tool_calls("m", "abcd", 2);
    let plain = asked("m", false, &wish, &json!({})).await.remove(0);
    assert_eq!(plain["choices"][0]["finish_reason"], "tool_calls");
    let message = &plain["choices"][0]["message"];
    assert_eq!(message["content"], Value::Null);
    let events = asked("m", true, &wish, &json!({})).await;
    for (index, call) in expected.iter().enumerate() {
        let whole = &message["tool_calls"][index];
        let function = json!({ "name": call.name, "arguments": call.arguments.concat() });
        assert_eq!(*whole, json!({ "id": call.id, "type": "function", "function": function }));
        let of_call = |event: &&Value| event["choices"][0]["delta"]["tool_calls"][0]["index"] == json!(index);
        let deltas: Vec<&Value> =
            events.iter().filter(of_call).map(|event| &event["choices"][0]["delta"]["tool_calls"][0]).collect();
        assert_eq!((&deltas[0]["id"], &deltas[0]["function"]["arguments"]), (&json!(call.id), &json!("")));
        let fragments: Vec<&str> =
            deltas[1..].iter().map(|delta| delta["function"]["arguments"].as_str().expect("text")).collect();
        assert_eq!(fragments, call.arguments);
        assert!(deltas[1..].iter().all(|delta| delta.get("id").is_none()));
    }
    assert_eq!(events[events.len() - 2]["choices"][0]["finish_reason"], "tool_calls");
    let used = plain["usage"]["completion_tokens"].as_u64().expect("a number");
    assert_eq!(events.len() as u64, used + 3);
}
