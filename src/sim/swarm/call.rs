//! One worker's client: a connection kept alive, and one call at a time over it.

use std::fmt::Write as _;

use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::expected::Expected;
use super::report::{Sample, ms};
use super::stream::StreamReader;
use super::verify::{End, Outcome};
use super::{Swarm, WorkerSpec};
use crate::sim::wire::{Body, Connection, ResponseHead, WireError};
use crate::time::now;
use crate::units::Priority;

const SYSTEM: &str = "You are a simulation.";

/// What to ask.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) prompt: String,
    pub(super) stream: bool,
    /// Whether a stream is to tell its usage.
    pub(super) usage: bool,
    pub(super) reasoning: bool,
    /// It is for an embedding.
    pub(super) embedding: bool,
    pub(super) priority: Option<Priority>,
    pub(super) body_bytes: usize,
}

/// A client with a connection of its own.
#[derive(Debug)]
pub(super) struct Client {
    authority: String,
    /// Of the base URL.
    base: String,
    api_key: Option<String>,
    model: String,
    connection: Option<Connection>,
}

impl Client {
    pub(super) fn new(swarm: &Swarm, spec: &WorkerSpec) -> Self {
        let rest = swarm.base_url.strip_prefix("http://").unwrap_or(&swarm.base_url);
        let (authority, base) = rest.split_once('/').unwrap_or((rest, "v1"));
        Self {
            authority: authority.to_owned(),
            base: base.trim_end_matches('/').to_owned(),
            api_key: spec.api_key.as_ref().or(swarm.api_key.as_ref()).cloned(),
            model: swarm.model.clone(),
            connection: None,
        }
    }

    /// Drops the connection, in the middle of a call or between two.
    pub(super) fn hang_up(&mut self) {
        self.connection = None;
    }

    /// Asks, verifies the answer, and notes in the sample what is learned on the way. Dropping the future hangs up.
    pub(super) async fn ask(&mut self, ask: &Ask, sample: &mut Sample) -> Outcome {
        let begun = now();
        let Some(mut connection) = self.connected().await else { return Outcome::Transport };
        let Ok(Some(head)) = exchange_heads(&mut connection, &self.request(ask)).await else {
            return Outcome::Transport;
        };
        sample.head_ms = Some(ms(now() - begun));
        sample.queue_ms = head.headers.first("x-tidegate-queue-ms").and_then(|value| value.trim().parse().ok());
        sample.attempts = head.headers.first("x-tidegate-attempts").and_then(|value| value.trim().parse().ok());
        let (outcome, end) = self.verify(&mut connection, &head, ask, sample).await;
        if end == End::Clean && head.keeps_alive() {
            self.connection = Some(connection);
        }
        outcome
    }

    async fn connected(&mut self) -> Option<Connection> {
        if let Some(mut kept) = self.connection.take()
            && !kept.is_over()
        {
            return Some(kept);
        }
        TcpStream::connect(&self.authority).await.ok().map(Connection::new)
    }

    async fn verify(
        &self,
        connection: &mut Connection,
        head: &ResponseHead,
        ask: &Ask,
        sample: &mut Sample,
    ) -> (Outcome, End) {
        let mut body = Body::new(head.framing);
        let mut reader = StreamReader::default();
        let mut whole = Vec::new();
        let end = loop {
            match connection.piece(&mut body).await {
                Ok(Some(piece)) if ask.stream && head.status == 200 => reader.feed(&piece),
                Ok(Some(piece)) => whole.extend_from_slice(&piece),
                Ok(None) => break End::Clean,
                Err(_) => break End::Broken,
            }
        };
        sample.came = reader.came();
        let expected = || Expected::of(&self.model, &ask.prompt, SYSTEM, ask.reasoning, ask.usage || !ask.stream);
        let outcome = match head.status {
            200 if ask.embedding => Outcome::of_embedding(&whole, end, &self.model, &ask.prompt),
            200 if ask.stream => reader.outcome(end, &expected()),
            200 => Outcome::of_plain(&whole, end, &expected()),
            status => Outcome::of_refusal(status, &whole),
        };
        (outcome, end)
    }

    fn request(&self, ask: &Ask) -> Vec<u8> {
        let mut body = self.question(ask);
        if ask.body_bytes > 0 {
            body["padding"] = json!("x".repeat(ask.body_bytes));
        }
        let body = body.to_string();
        let path = if ask.embedding { "embeddings" } else { "chat/completions" };
        let mut head = format!("POST /{}/{path} HTTP/1.1\r\nhost: {}\r\n", self.base, self.authority);
        let mut line = |name: &str, value: &str| {
            // Writing to a String cannot fail.
            let _infallible = write!(head, "{name}: {value}\r\n");
        };
        line("content-type", "application/json");
        line("content-length", &body.len().to_string());
        if let Some(key) = &self.api_key {
            line("authorization", &format!("Bearer {key}"));
        }
        if let Some(priority) = ask.priority {
            line("x-tidegate-priority", priority.as_str());
        }
        head.push_str("\r\n");
        head.push_str(&body);
        head.into_bytes()
    }

    fn question(&self, ask: &Ask) -> Value {
        if ask.embedding {
            return json!({ "model": self.model, "input": ask.prompt });
        }
        let mut body = json!({
            "model": self.model,
            "messages": [
                { "role": "system", "content": SYSTEM },
                { "role": "user", "content": ask.prompt },
            ],
        });
        if ask.stream {
            body["stream"] = json!(true);
            if ask.usage {
                body["stream_options"] = json!({ "include_usage": true });
            }
        }
        if ask.reasoning {
            body["sim"] = json!({ "reasoning": true });
        }
        body
    }
}

/// Sends a request and reads the head of its answer, past the interim ones.
async fn exchange_heads(connection: &mut Connection, request: &[u8]) -> Result<Option<ResponseHead>, WireError> {
    connection.write(request).await?;
    loop {
        match connection.response_head().await? {
            Some(head) if (100..200).contains(&head.status) => {}
            head => return Ok(head),
        }
    }
}
