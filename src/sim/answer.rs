//! What a request gets when nothing is wrong with it: a function of the request alone.

use bytes::Bytes;
use serde_json::{Value, json};

use super::content;
use super::reply::Reply;
use super::settings::FaultKind;
use super::wire::RequestHead;
use crate::time::Duration;

const DIMENSIONS: usize = 16;
const DIMENSIONS_MAX: usize = 4_096;
const CHUNKS_MAX: u64 = 1_000_000;

/// What will be answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) payload: Payload,
    /// Of the prompt and the answer together.
    pub(super) tokens: u32,
    pub(super) directives: Directives,
}

/// The answer as it goes out.
#[derive(Debug)]
pub(super) enum Payload {
    /// At once.
    Whole(Reply),
    /// Event by event; `[DONE]` is the last.
    Stream(Vec<Bytes>),
}

/// What the request wishes for itself: the object `sim` in its JSON body, or the headers `x-sim-latency-ms` and
/// `x-sim-fault`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Directives {
    /// How long the exchange takes.
    pub(super) latency: Option<Duration>,
    /// In how many pieces the answer comes.
    pub(super) chunks: Option<usize>,
    /// What goes wrong, whatever the rates say; `Some(None)`, written `none`: nothing.
    pub(super) fault: Option<Option<FaultKind>>,
}

/// The answer to a complete request.
pub(super) fn answer(head: &RequestHead, body: &Bytes) -> Answer {
    let planned = match (head.method.as_str(), head.path()) {
        ("POST", "/v1/chat/completions") => generated(head, body, Shape::Chat),
        ("POST", "/v1/completions") => generated(head, body, Shape::Text),
        ("POST", "/v1/embeddings") => embeddings(head, body),
        ("GET" | "HEAD", "/v1/models") => Directives::read(head, None).map(models),
        _ => Directives::read(head, None).map(|directives| echo(head, body, directives)),
    };
    planned.unwrap_or_else(|problem| whole(Reply::bad_request(&problem), 0, Directives::default()))
}

fn whole(reply: Reply, tokens: u32, directives: Directives) -> Answer {
    Answer { payload: Payload::Whole(reply), tokens, directives }
}

impl Directives {
    fn read(head: &RequestHead, body: Option<&Value>) -> Result<Self, String> {
        let wishes = body.and_then(|body| body.get("sim")).unwrap_or(&Value::Null);
        let header_ms = head.headers.first("x-sim-latency-ms").and_then(|value| value.parse().ok());
        let latency_ms = wishes.get("latency_ms").and_then(Value::as_u64).or(header_ms);
        let chunks = wishes.get("chunks").and_then(Value::as_u64).map(|chunks| chunks.clamp(1, CHUNKS_MAX));
        let fault = match wishes.get("fault").and_then(Value::as_str).or_else(|| head.headers.first("x-sim-fault")) {
            None => None,
            Some("none") => Some(None),
            Some(kind) => Some(Some(kind.parse().map_err(|error| format!("sim.fault: {error}"))?)),
        };
        let chunks = chunks.and_then(|chunks| usize::try_from(chunks).ok());
        Ok(Self { latency: latency_ms.map(Duration::from_millis), chunks, fault })
    }
}

/// Which of the two generating routes is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Chat,
    Text,
}

/// A generated answer, before it takes a shape.
#[derive(Debug)]
struct Generated {
    shape: Shape,
    id: String,
    created: u64,
    model: String,
    deltas: Vec<String>,
    finish: &'static str,
    prompt_tokens: u32,
    completion_tokens: u32,
}

fn generated(head: &RequestHead, body: &Bytes, shape: Shape) -> Result<Answer, String> {
    let body = parse(body)?;
    let directives = Directives::read(head, Some(&body))?;
    let model = model(&body)?;
    let (prompt, prompt_bytes) = prompt(&body, shape)?;
    let mut deltas = content::deltas(&model, &prompt, directives.chunks);
    continue_after(&mut deltas, &body);
    let finish = cut(&mut deltas, &body);
    let identity = content::fingerprint(&[&model, &prompt]);
    let completion: usize = deltas.iter().map(String::len).sum();
    let generated = Generated {
        shape,
        id: format!("{}-{identity:016x}", if shape == Shape::Chat { "chatcmpl" } else { "cmpl" }),
        created: 1_700_000_000 + identity % 10_000_000,
        model,
        deltas,
        finish,
        prompt_tokens: quarter(prompt_bytes),
        completion_tokens: quarter(completion),
    };
    let streams = body.get("stream").and_then(Value::as_bool).unwrap_or(false);
    let with_usage = body.pointer("/stream_options/include_usage").and_then(Value::as_bool).unwrap_or(false);
    let payload = match streams {
        true => Payload::Stream(generated.events(with_usage)),
        false => Payload::Whole(generated.reply()),
    };
    let tokens = generated.prompt_tokens.saturating_add(generated.completion_tokens);
    Ok(Answer { payload, tokens, directives })
}

impl Generated {
    fn reply(&self) -> Reply {
        let text = self.deltas.concat();
        let (object, part) = match self.shape {
            Shape::Chat => {
                ("chat.completion", ("message", json!({ "role": "assistant", "content": text, "refusal": null })))
            }
            Shape::Text => ("text_completion", ("text", Value::from(text))),
        };
        let mut body = self.envelope(object, Some((part, Value::from(self.finish))));
        body["usage"] = self.usage();
        Reply::json(200, &body)
    }

    fn events(&self, with_usage: bool) -> Vec<Bytes> {
        let object = if self.shape == Shape::Chat { "chat.completion.chunk" } else { "text_completion" };
        let event = |choice: Option<((&str, Value), Value)>, usage: Value| {
            let mut body = self.envelope(object, choice);
            if with_usage {
                body["usage"] = usage;
            }
            Bytes::from(format!("data: {body}\n\n"))
        };
        let piece = |text: &str| match self.shape {
            Shape::Chat => ("delta", json!({ "content": text })),
            Shape::Text => ("text", Value::from(text)),
        };
        let mut events = Vec::with_capacity(self.deltas.len() + 4);
        if self.shape == Shape::Chat {
            let role = json!({ "role": "assistant", "content": "", "refusal": null });
            events.push(event(Some((("delta", role), Value::Null)), Value::Null));
        }
        events.extend(self.deltas.iter().map(|delta| event(Some((piece(delta), Value::Null)), Value::Null)));
        let last = if self.shape == Shape::Chat { ("delta", json!({})) } else { piece("") };
        events.push(event(Some((last, Value::from(self.finish))), Value::Null));
        if with_usage {
            events.push(event(None, self.usage()));
        }
        events.push(Bytes::from_static(b"data: [DONE]\n\n"));
        events
    }

    /// What every object of this answer has in common, around one choice or none.
    fn envelope(&self, object: &str, choice: Option<((&str, Value), Value)>) -> Value {
        let choices: Vec<Value> = choice
            .into_iter()
            .map(
                |((part, value), finish)| json!({ "index": 0, part: value, "logprobs": null, "finish_reason": finish }),
            )
            .collect();
        json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model,
            "system_fingerprint": "fp_sim", "choices": choices,
        })
    }

    fn usage(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens.saturating_add(self.completion_tokens),
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
    let body = json!({ "object": "list", "data": data, "model": model, "usage": usage });
    Ok(whole(Reply::json(200, &body), tokens, directives))
}

fn models(directives: Directives) -> Answer {
    let model = |id: &str| json!({ "id": id, "object": "model", "created": 1_700_000_000, "owned_by": "tidegate-sim" });
    let body = json!({ "object": "list", "data": [model("sim-1"), model("sim-2")] });
    whole(Reply::json(200, &body), 0, directives)
}

fn echo(head: &RequestHead, body: &Bytes, directives: Directives) -> Answer {
    let echoed = json!({
        "method": head.method,
        "path": head.path(),
        "query": head.query(),
        "headers": head.headers.0,
        "body_bytes": body.len(),
        "body_fnv": format!("{:016x}", content::hash(body)),
    });
    whole(Reply::json(200, &echoed), 0, directives)
}

fn parse(body: &Bytes) -> Result<Value, String> {
    let body: Value = serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?;
    if body.is_object() { Ok(body) } else { Err("the body is not a JSON object".to_owned()) }
}

fn model(body: &Value) -> Result<String, String> {
    let model = body.get("model").and_then(Value::as_str);
    model.map(str::to_owned).ok_or_else(|| "you must provide a model parameter".to_owned())
}

/// What decides the answer, and how many bytes of prompt there are in all.
fn prompt(body: &Value, shape: Shape) -> Result<(String, usize), String> {
    if shape == Shape::Text {
        let prompt = body.get("prompt").map(text).ok_or_else(|| "you must provide a prompt".to_owned())?;
        let bytes = prompt.len();
        return Ok((prompt, bytes));
    }
    let messages = body.get("messages").and_then(Value::as_array).filter(|messages| !messages.is_empty());
    let messages = messages.ok_or_else(|| "messages: expected a list with at least one message".to_owned())?;
    let bytes = messages.iter().filter_map(|message| message.get("content")).map(|content| text(content).len()).sum();
    let of_user = |message: &&Value| message.get("role").and_then(Value::as_str) == Some("user");
    let last = messages.iter().rev().find(of_user).and_then(|message| message.get("content"));
    Ok((last.map(text).unwrap_or_default(), bytes))
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

/// Where the request ends with a partial answer to be continued (`continue_final_message`, or `prefix` in the message),
/// only the rest of the answer is left.
fn continue_after(deltas: &mut Vec<String>, body: &Value) {
    let Some(last) = body.get("messages").and_then(Value::as_array).and_then(|messages| messages.last()) else {
        return;
    };
    let says = |value: &Value, field: &str| value.get(field).and_then(Value::as_bool).unwrap_or(false);
    let continues = says(body, "continue_final_message") || says(last, "prefix");
    if !continues || last.get("role").and_then(Value::as_str) != Some("assistant") {
        return;
    }
    let partial = last.get("content").map(text).unwrap_or_default();
    if !deltas.concat().starts_with(&partial) {
        return;
    }
    let mut said = partial.len();
    deltas.retain_mut(|delta| {
        let skip = said.min(delta.len());
        said -= skip;
        delta.drain(..skip);
        !delta.is_empty()
    });
}

/// Ends the answer where the tokens allowed for it end, and says why it ended.
fn cut(deltas: &mut Vec<String>, body: &Value) -> &'static str {
    let allowed = ["max_completion_tokens", "max_tokens"].iter().find_map(|field| body.get(field)?.as_u64());
    let Some(allowed) = allowed else { return "stop" };
    let mut bytes = 0_u64;
    let fits = deltas.iter().take_while(|delta| {
        bytes += delta.len() as u64;
        bytes.div_ceil(4) <= allowed
    });
    let fitting = fits.count();
    let finish = if fitting < deltas.len() { "length" } else { "stop" };
    deltas.truncate(fitting);
    finish
}

fn quarter(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(4)).unwrap_or(u32::MAX)
}
