//! The dimensions of the matrix.

use serde::Deserialize;

/// What the provider does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fault {
    /// Nobody listens.
    Refused,
    /// Connecting comes to nothing.
    Hangs,
    Reset,
    /// The connection is closed, whatever is missing of the answer.
    Eof,
    /// The answer ends properly, as far as its framing goes, but has not said that it is over.
    Ends,
    Stall,
    /// What comes is not of the protocol.
    Malformed,
    #[serde(rename = "408")]
    Status408,
    #[serde(rename = "429")]
    Status429,
    /// 404 where the settings call it a refusal.
    #[serde(rename = "404_refusal")]
    Refusal404,
    /// The same, but its body says `model_not_found`.
    #[serde(rename = "404_model")]
    Model404,
    #[serde(rename = "409")]
    Status409,
    /// 409 with `x-should-retry: true`.
    #[serde(rename = "409_retry")]
    Retry409,
    #[serde(rename = "500")]
    Status500,
    #[serde(rename = "502")]
    Status502,
    #[serde(rename = "503")]
    Status503,
    #[serde(rename = "504")]
    Status504,
    #[serde(rename = "529")]
    Status529,
    #[serde(rename = "401")]
    Status401,
    /// 401 to a key of ours.
    #[serde(rename = "401_our_key")]
    OurKey401,
    #[serde(rename = "400")]
    Status400,
    RefusedStream,
    InternalError,
    Cancel,
    /// GOAWAY: the stream is not among those that were looked at.
    GoawayRefusing,
    /// GOAWAY: the stream is among them; then the connection is closed all the same.
    GoawayCovering,
    /// GOAWAY, and the answer is finished.
    GoawayGraceful,
}

/// When it does so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    Connect,
    /// Connected, and nothing read.
    Accepted,
    /// While a large request is written.
    Writing,
    /// The request was read.
    BeforeHead,
    /// Before the first event, or byte.
    AfterHead,
    /// Behind the event that tells only the role.
    AfterRole,
    /// Behind some text, or half of a plain body.
    MidStream,
    /// Behind the finish reason, or behind all of a plain body but the end of its framing.
    AfterFinish,
    /// Behind `[DONE]`, or behind all of a plain answer.
    AfterDone,
    /// A pooled connection, while it idles.
    Idle,
    /// A pooled connection, as its next request arrives.
    Reused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Http {
    Http1,
    Http2,
}

/// What is called, and how it may be repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A chat completion.
    Generation,
    /// What changes something at the provider: `/v1/files`, and a run of a thread where the answer is a stream.
    Upload,
    /// A chat completion of `kind = "agent"`.
    Agent,
    /// The same with `retry.agents = true`.
    AgentAgain,
    /// A chat completion with `retry.on_disconnect = false`.
    Once,
    /// A chat completion with `mid_stream = "continue"` at a provider that continues as vLLM does.
    Vllm,
    /// The same by a prefix.
    Prefix,
    /// A chat completion whose client asks for `x-tidegate-mid-stream: restart`.
    Restart,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Form {
    Plain,
    Stream,
}

/// Who is there, and for how long it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Setup {
    /// One upstream that fails once.
    Heals,
    /// One that fails always.
    Lasts,
    /// One that fails always, and another one.
    Two,
}

/// One case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Cell {
    pub(super) phase: Phase,
    pub(super) fault: Fault,
    pub(super) http: Http,
    pub(super) kind: Kind,
    pub(super) form: Form,
    pub(super) setup: Setup,
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { phase, fault, http, kind, form, setup } = self;
        write!(f, "{phase:?} {fault:?} {http:?} {kind:?} {form:?} {setup:?}")
    }
}

const FAULTS: [Fault; 27] = [
    Fault::Refused,
    Fault::Hangs,
    Fault::Reset,
    Fault::Eof,
    Fault::Ends,
    Fault::Stall,
    Fault::Malformed,
    Fault::Status408,
    Fault::Status429,
    Fault::Refusal404,
    Fault::Model404,
    Fault::Status409,
    Fault::Retry409,
    Fault::Status500,
    Fault::Status502,
    Fault::Status503,
    Fault::Status504,
    Fault::Status529,
    Fault::Status401,
    Fault::OurKey401,
    Fault::Status400,
    Fault::RefusedStream,
    Fault::InternalError,
    Fault::Cancel,
    Fault::GoawayRefusing,
    Fault::GoawayCovering,
    Fault::GoawayGraceful,
];
const PHASES: [Phase; 11] = [
    Phase::Connect,
    Phase::Accepted,
    Phase::Writing,
    Phase::BeforeHead,
    Phase::AfterHead,
    Phase::AfterRole,
    Phase::MidStream,
    Phase::AfterFinish,
    Phase::AfterDone,
    Phase::Idle,
    Phase::Reused,
];
const KINDS: [Kind; 8] = [
    Kind::Generation,
    Kind::Upload,
    Kind::Agent,
    Kind::AgentAgain,
    Kind::Once,
    Kind::Vllm,
    Kind::Prefix,
    Kind::Restart,
];

impl Cell {
    /// Every combination, whether it can exist or not.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let forms = || [Form::Plain, Form::Stream].into_iter();
        let setups = || [Setup::Heals, Setup::Lasts, Setup::Two].into_iter();
        PHASES.into_iter().flat_map(move |phase| {
            FAULTS.into_iter().flat_map(move |fault| {
                [Http::Http1, Http::Http2].into_iter().flat_map(move |http| {
                    KINDS.into_iter().flat_map(move |kind| {
                        forms().flat_map(move |form| {
                            setups().map(move |setup| Self { phase, fault, http, kind, form, setup })
                        })
                    })
                })
            })
        })
    }
}

/// Names and values.
type Fields = &'static [(&'static str, &'static str)];

impl Fault {
    /// The status it is, with the fields and the body it comes with.
    pub(super) fn status(self) -> Option<(u16, Fields, &'static str)> {
        const BUSY: &str = r#"{"error":{"message":"busy","type":"server_error","param":null,"code":"busy"}}"#;
        const UNKNOWN: &str = r#"{"error":{"message":"no such model","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#;
        // So that a gate does not stay closed for the second that is usual without a word.
        const SOON: Fields = &[("retry-after-ms", "20")];
        let status = match self {
            Self::Status408 => 408,
            Self::Status429 => return Some((429, SOON, BUSY)),
            Self::Refusal404 => return Some((404, SOON, BUSY)),
            Self::Model404 => return Some((404, SOON, UNKNOWN)),
            Self::Status409 => 409,
            Self::Retry409 => return Some((409, &[("x-should-retry", "true")], BUSY)),
            Self::Status500 => 500,
            Self::Status502 => 502,
            Self::Status503 => 503,
            Self::Status504 => 504,
            Self::Status529 => 529,
            Self::Status401 | Self::OurKey401 => 401,
            Self::Status400 => 400,
            _ => return None,
        };
        Some((status, &[], BUSY))
    }
}
