//! What a request wishes for itself.

use serde_json::Value;

use crate::sim::fault::FaultKind;
use crate::sim::wire::RequestHead;
use crate::time::Duration;

const CHUNKS_MAX: u64 = 1_000_000;
const TOOL_CALLS_MAX: u64 = 128;

/// What the request wishes for itself: the object `sim` in its JSON body; some of it also as headers `x-sim-latency-ms`,
/// `x-sim-fault`, `x-sim-fault-after` and `x-sim-fault-once`.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::sim) struct Directives {
    /// How long the exchange takes.
    pub(in crate::sim) latency: Option<Duration>,
    /// In how many pieces the text of the answer comes.
    pub(super) chunks: Option<usize>,
    /// What goes wrong, whatever the rates say; `Some(None)`, written `none`: nothing.
    pub(in crate::sim) fault: Option<Option<FaultKind>>,
    /// How much of the answer passes before it breaks in its middle: so many events of a stream, bytes of a plain body, or
    /// messages of a WebSocket.
    pub(in crate::sim) fault_after: Option<usize>,
    /// Whether the fault happens only to the first request of this kind, and nothing to those that ask for the same again.
    pub(in crate::sim) fault_once: bool,
    /// Whether the answer is reasoned about first.
    pub(super) reasoning: bool,
    /// How many tools are called instead of answering.
    pub(super) tool_calls: usize,
}

impl Directives {
    pub(super) fn read(head: &RequestHead, body: Option<&Value>) -> Result<Self, String> {
        let wishes = body.and_then(|body| body.get("sim")).unwrap_or(&Value::Null);
        let header_ms = head.headers.first("x-sim-latency-ms").and_then(|value| value.parse().ok());
        let latency_ms = wishes.get("latency_ms").and_then(Value::as_u64).or(header_ms);
        let chunks = wishes.get("chunks").and_then(Value::as_u64).map(|chunks| chunks.clamp(1, CHUNKS_MAX));
        let fault = match wishes.get("fault").and_then(Value::as_str).or_else(|| head.headers.first("x-sim-fault")) {
            None => None,
            Some("none") => Some(None),
            Some(kind) => Some(Some(kind.parse().map_err(|error| format!("sim.fault: {error}"))?)),
        };
        let once = head.headers.first("x-sim-fault-once").is_some_and(|value| !matches!(value, "false" | "0"));
        let says = |name: &str| wishes.get(name).and_then(Value::as_bool);
        let tool_calls = wishes.get("tool_calls").and_then(Value::as_u64).unwrap_or(0).min(TOOL_CALLS_MAX);
        Ok(Self {
            latency: latency_ms.map(Duration::from_millis),
            chunks: chunks.and_then(|chunks| usize::try_from(chunks).ok()),
            fault,
            fault_after: fault_after(head, wishes)?,
            fault_once: says("fault_once").unwrap_or(once),
            reasoning: says("reasoning").unwrap_or(false),
            tool_calls: usize::try_from(tool_calls).unwrap_or(0),
        })
    }
}

fn fault_after(head: &RequestHead, wishes: &Value) -> Result<Option<usize>, String> {
    let refuse = |found: &str| format!("sim.fault_after: expected a whole number, found {found}");
    if let Some(wish) = wishes.get("fault_after") {
        let count = wish.as_u64().and_then(|count| usize::try_from(count).ok());
        return count.map(Some).ok_or_else(|| refuse(&wish.to_string()));
    }
    let header = head.headers.first("x-sim-fault-after");
    header.map(|value| value.trim().parse().map_err(|_| refuse(value))).transpose()
}
