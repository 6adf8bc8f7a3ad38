//! What a client sees while it waits, and when it has waited for nothing.

mod comments;
mod deadlines;
mod endings;

use crate::support::proxy::Builder;
use crate::support::upstream::{STREAM, event, fine, finish};
use crate::support::wire::Head;
use crate::support::{Client, Line, Proxy, Upstream, ms, post};

const STREAMING: &str = r#"{"model":"m","stream":true}"#;
const PLAIN: &str = r#"{"model":"m"}"#;
/// Longer than a busy machine takes to begin an attempt.
const PACE: u64 = 300;

/// A proxy that lets one call go at a time, and keeps those company that wait.
fn one_at_a_time(upstream: &Upstream) -> Builder {
    crate::support::proxy(upstream).concurrency(1).set(|settings| settings.admission.keepalive_after = Some(ms(PACE)))
}

/// Somebody who has the only slot, until it is told to go.
struct Busy {
    client: Client,
    line: Line,
}

impl Busy {
    async fn with(proxy: &Proxy, upstream: &Upstream) -> Self {
        let mut client = proxy.client().await;
        client.send(post(PLAIN)).await;
        let (line, _) = upstream.request().await;
        Self { client, line }
    }

    /// It has its answer; the connection to the provider is free.
    async fn go(mut self) -> Line {
        self.line.send(fine()).await;
        assert_eq!(self.client.answer().await.status(), 200);
        self.line
    }
}

/// A whole stream as the provider sends it, and as its bytes are.
fn tide() -> (String, String) {
    let wire = [STREAM, &event("a"), &event("b"), &finish()].concat();
    let data =
        |content: &str| format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{content}\"}}}}]}}\n\n");
    let stop = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    (wire, [&data("a"), &data("b"), stop, "data: [DONE]\n\n"].concat())
}

fn is_early(head: &Head) {
    assert_eq!(head.status(), 200);
    assert_eq!(head.field("content-type").unwrap(), "text/event-stream; charset=utf-8");
    assert_eq!(head.field("cache-control").unwrap(), "no-cache");
    assert!(head.has("x-tidegate-request-id"));
}

/// One line, which every SDK skips.
fn is_comment(text: &str) {
    assert!(text.starts_with(": queued position=") || text.starts_with(": waiting"), "{text:?}");
    assert!(text.ends_with('\n') && text.matches('\n').count() == 1, "{text:?}");
}

/// Splits what a client heard into comments at the beginning and the rest.
fn without_comments(text: &str) -> (usize, &str) {
    let (mut comments, mut rest) = (0, text);
    while rest.starts_with(':') {
        let end = rest.find('\n').expect("a comment has an end") + 1;
        is_comment(&rest[..end]);
        (comments, rest) = (comments + 1, &rest[end..]);
    }
    (comments, rest)
}

/// The error that a stream ends with, all of whose members are there.
fn error_of(event: &str) -> serde_json::Value {
    let data = event.strip_prefix("data: ").expect("an event").strip_suffix("\n\n").expect("a whole event");
    let json: serde_json::Value = serde_json::from_str(data).expect("JSON");
    for member in ["message", "type", "param", "code", "status"] {
        assert!(json["error"].get(member).is_some(), "no {member} in {json}");
    }
    json["error"].clone()
}
