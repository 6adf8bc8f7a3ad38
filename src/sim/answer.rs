//! What a request gets when nothing is wrong with it: a function of the request alone.

mod continuation;
mod directives;
mod script;
mod shape;

use bytes::Bytes;
use serde_json::{Value, json};

use super::content;
use super::reply::Reply;
use super::settings::Continuation;
use super::wire::RequestHead;
use continuation::Partial;
use directives::Directives;
use script::Script;
use shape::{Generated, Shape};

const DIMENSIONS: usize = 16;
const DIMENSIONS_MAX: usize = 4_096;

/// What will be answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) payload: Payload,
    /// Of the prompt and the answer together.
    pub(super) tokens: u32,
    pub(super) directives: Directives,
    /// What is asked: the same for a request that asks it again, or for the rest of it.
    pub(super) identity: u64,
}

/// The answer as it goes out.
#[derive(Debug)]
pub(super) enum Payload {
    /// At once.
    Whole(Reply),
    /// Event by event; `[DONE]` is the last.
    Stream {
        /// Each as it goes out.
        events: Vec<Bytes>,
        /// Which of them tells the finish reason.
        finish: usize,
    },
}

/// The answer to a complete request.
pub(super) fn answer(head: &RequestHead, body: &Bytes, style: Continuation) -> Answer {
    let planned = match (head.method.as_str(), head.path()) {
        ("POST", "/v1/chat/completions") => generated(head, body, Shape::Chat, style),
        ("POST", "/v1/completions") => generated(head, body, Shape::Text, style),
        ("POST", "/v1/embeddings") => embeddings(head, body),
        ("GET" | "HEAD", "/v1/models") => Directives::read(head, None).map(models),
        _ => Directives::read(head, None).map(|directives| echo(head, body, directives)),
    };
    planned.unwrap_or_else(|problem| whole(Reply::bad_request(&problem), 0, Directives::default(), 0))
}

fn whole(reply: Reply, tokens: u32, directives: Directives, identity: u64) -> Answer {
    Answer { payload: Payload::Whole(reply), tokens, directives, identity }
}

fn generated(head: &RequestHead, body: &Bytes, shape: Shape, style: Continuation) -> Result<Answer, String> {
    let body = parse(body)?;
    let directives = Directives::read(head, Some(&body))?;
    let model = model(&body)?;
    let asked = match shape {
        Shape::Chat => Asked::of_chat(&body, style)?,
        Shape::Text => Asked::of_text(&body, &model, &directives)?,
    };
    let whole = Script::whole(&model, &asked.prompt, shape, &directives);
    let (mut script, begun) = match &asked.partial {
        Some(partial) => whole.after(partial, &model, &asked.prompt),
        None => (whole, 0),
    };
    let allowed = ["max_completion_tokens", "max_tokens"].iter().find_map(|field| body.get(field)?.as_u64());
    let finish = script.cut(allowed);
    let identity = content::fingerprint(&[&model, &asked.prompt]);
    let generated = Generated {
        shape,
        identity: asked.partial.as_ref().map_or(identity, |partial| {
            content::fingerprint(&[&model, &asked.prompt, &partial.reasoning, &partial.content])
        }),
        model,
        finish,
        prompt_tokens: quarter(asked.bytes).saturating_add(count(begun)),
        completion_tokens: count(script.tokens()),
        script,
    };
    let streams = body.get("stream").and_then(Value::as_bool).unwrap_or(false);
    let with_usage = body.pointer("/stream_options/include_usage").and_then(Value::as_bool).unwrap_or(false);
    let payload = if streams { generated.stream(with_usage) } else { Payload::Whole(generated.reply()) };
    let tokens = generated.prompt_tokens.saturating_add(generated.completion_tokens);
    Ok(Answer { payload, tokens, directives, identity })
}

/// What decides the answer.
#[derive(Debug)]
struct Asked {
    prompt: String,
    /// How many bytes of prompt there are in all, but for a partial answer.
    bytes: usize,
    /// What was answered already.
    partial: Option<Partial>,
}

impl Asked {
    /// The last message of the user decides.
    fn of_chat(body: &Value, style: Continuation) -> Result<Self, String> {
        let messages = body.get("messages").and_then(Value::as_array).filter(|messages| !messages.is_empty());
        let messages = messages.ok_or_else(|| "messages: expected a list with at least one message".to_owned())?;
        let partial = Partial::of_chat(body, messages, style)?;
        let of_prompt = &messages[..messages.len() - usize::from(partial.is_some())];
        let contents = of_prompt.iter().filter_map(|message| message.get("content"));
        let bytes = contents.map(|content| text(content).len()).sum();
        let of_user = |message: &&Value| message.get("role").and_then(Value::as_str) == Some("user");
        let last = messages.iter().rev().find(of_user).and_then(|message| message.get("content"));
        Ok(Self { prompt: last.map(text).unwrap_or_default(), bytes, partial })
    }

    /// All of the prompt decides, unless what follows its first line is the beginning of the answer to that line.
    fn of_text(body: &Value, model: &str, directives: &Directives) -> Result<Self, String> {
        let prompt = body.get("prompt").map(text).ok_or_else(|| "you must provide a prompt".to_owned())?;
        Ok(match Partial::of_text(model, &prompt, directives.chunks) {
            Some((asked, partial)) => Self { prompt: asked.to_owned(), bytes: asked.len(), partial: Some(partial) },
            None => Self { bytes: prompt.len(), prompt, partial: None },
        })
    }
}

fn embeddings(head: &RequestHead, body: &Bytes) -> Result<Answer, String> {
    let body = parse(body)?;
    let directives = Directives::read(head, Some(&body))?;
    let model = model(&body)?;
    let inputs: Vec<&str> = match body.get("input") {
        Some(Value::String(input)) => vec![input],
        Some(Value::Array(inputs)) => inputs.iter().filter_map(Value::as_str).collect(),
        _ => return Err("input: expected a string or a list of strings".to_owned()),
    };
    let dimensions = body.get("dimensions").and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
    let dimensions = dimensions.unwrap_or(DIMENSIONS).clamp(1, DIMENSIONS_MAX);
    let vectors = inputs.iter().map(|input| content::embedding(&model, input, dimensions)).enumerate();
    let data: Vec<Value> =
        vectors.map(|(index, vector)| json!({ "object": "embedding", "index": index, "embedding": vector })).collect();
    let tokens = quarter(inputs.iter().map(|input| input.len()).sum());
    let usage = json!({ "prompt_tokens": tokens, "total_tokens": tokens });
    let body = json!({ "object": "list", "data": data, "model": &model, "usage": usage });
    let identity = content::fingerprint(&[&model, &inputs.concat()]);
    Ok(whole(Reply::json(200, &body), tokens, directives, identity))
}

fn models(directives: Directives) -> Answer {
    let model = |id: &str| json!({ "id": id, "object": "model", "created": 1_700_000_000, "owned_by": "tidegate-sim" });
    let body = json!({ "object": "list", "data": [model("sim-1"), model("sim-2")] });
    whole(Reply::json(200, &body), 0, directives, 0)
}

fn echo(head: &RequestHead, body: &Bytes, directives: Directives) -> Answer {
    let fnv = format!("{:016x}", content::hash(body));
    let echoed = json!({
        "method": head.method,
        "path": head.path(),
        "query": head.query(),
        "headers": head.headers.0,
        "body_bytes": body.len(),
        "body_fnv": fnv,
    });
    whole(Reply::json(200, &echoed), 0, directives, content::fingerprint(&[&head.method, &head.target, &fnv]))
}

fn parse(body: &Bytes) -> Result<Value, String> {
    let body: Value = serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?;
    if body.is_object() { Ok(body) } else { Err("the body is not a JSON object".to_owned()) }
}

fn model(body: &Value) -> Result<String, String> {
    let model = body.get("model").and_then(Value::as_str);
    model.map(str::to_owned).ok_or_else(|| "you must provide a model parameter".to_owned())
}

/// The text of a content: a string, or the strings and text parts of a list, joined.
fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(text).collect(),
        Value::Object(part) => part.get("text").map(text).unwrap_or_default(),
        Value::Null | Value::Bool(_) | Value::Number(_) => String::new(),
    }
}

fn quarter(bytes: usize) -> u32 {
    count(bytes.div_ceil(4))
}

fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}
