//! What goes over the wire: a request as an SDK sends it, and answers as a provider gives them.

/// A plain answer has a body of so many bytes, a request one of 2 KiB.
const ANSWER_BODY: usize = 590;
const REQUEST_BODY: usize = 2_048;

/// What the provider is asked to do; it reads this off the query, which every proxy passes on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ask {
    /// Answer at once.
    Answer,
    /// Answer with so many events, one after each pause.
    Stream { events: usize, pause_us: u64 },
    /// Never answer. The shell does not even pass it on: so it parks a call, as tidegate's queue does.
    Hold,
    /// Say how many connections there were so far.
    Count,
}

impl Ask {
    /// A request of `body` bytes.
    pub(crate) fn request_of(self, body: usize) -> Vec<u8> {
        let query = match self {
            Self::Answer => String::new(),
            Self::Stream { events, pause_us } => format!("?events={events}&pause_us={pause_us}"),
            Self::Hold => "?hold".to_owned(),
            Self::Count => "?count".to_owned(),
        };
        let stream = matches!(self, Self::Stream { .. });
        let json = |content: &str| {
            format!(
                r#"{{"model":"bench","stream":{stream},"temperature":0.7,"messages":[{{"role":"user","content":"{content}"}}]}}"#
            )
        };
        let body = json(&"word ".repeat(body / 5 + 1)[..body - json("").len()]);
        let length = body.len();
        format!(
            "POST /v1/chat/completions{query} HTTP/1.1\r\n\
             Host: 127.0.0.1\r\n\
             Accept-Encoding: gzip, deflate\r\n\
             Connection: keep-alive\r\n\
             Accept: application/json\r\n\
             Content-Type: application/json\r\n\
             User-Agent: OpenAI/Python 2.8.1\r\n\
             X-Stainless-Lang: python\r\n\
             X-Stainless-Package-Version: 2.8.1\r\n\
             X-Stainless-OS: Linux\r\n\
             X-Stainless-Arch: x64\r\n\
             X-Stainless-Runtime: CPython\r\n\
             X-Stainless-Runtime-Version: 3.13.1\r\n\
             Authorization: Bearer sk-0123456789abcdef0123456789abcdef\r\n\
             x-stainless-retry-count: 0\r\n\
             x-stainless-read-timeout: 600\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    pub(crate) fn request(self) -> Vec<u8> {
        self.request_of(REQUEST_BODY)
    }

    /// The other way round, at the provider.
    pub(crate) fn of_target(target: &str) -> Self {
        let Some((_, query)) = target.split_once('?') else { return Self::Answer };
        let figure = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).and_then(|(_, value)| value.parse().ok())
        };
        match (figure("events"), figure("pause_us")) {
            (Some(events), Some(pause_us)) => Self::Stream { events: usize::try_from(events).unwrap(), pause_us },
            _ if query == "count" => Self::Count,
            _ => Self::Hold,
        }
    }
}

const FIELDS: &str = "Server: bench\r\n\
     X-Request-Id: req_0123456789abcdef0123456789abcdef\r\n\
     OpenAI-Processing-Ms: 1\r\n\
     OpenAI-Version: 2020-10-01\r\n\
     Strict-Transport-Security: max-age=31536000\r\n";

/// An answer that is a figure.
pub(crate) fn figure(figure: usize) -> Vec<u8> {
    let body = figure.to_string();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A plain answer, head and body.
pub(crate) fn answer() -> Vec<u8> {
    let json = |content: &str| {
        format!(
            r#"{{"id":"chatcmpl-0123456789abcdef","object":"chat.completion","created":1763700000,"model":"bench","choices":[{{"index":0,"message":{{"role":"assistant","content":"{content}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":400,"completion_tokens":80,"total_tokens":480}}}}"#
        )
    };
    let body = json(&"word ".repeat(ANSWER_BODY)[..ANSWER_BODY - json("").len()]);
    format!("HTTP/1.1 200 OK\r\n{FIELDS}Content-Type: application/json\r\nContent-Length: {ANSWER_BODY}\r\n\r\n{body}")
        .into_bytes()
}

/// The head of a stream. nginx is told not to hold it back.
pub(crate) fn stream_head() -> Vec<u8> {
    let kind = "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nX-Accel-Buffering: no";
    format!("HTTP/1.1 200 OK\r\n{FIELDS}{kind}\r\n\r\n").into_bytes()
}

/// An event in the middle of a stream, about 190 bytes, as a chunk.
pub(crate) fn event() -> Vec<u8> {
    chunk(&event_with(r#"{"content":" tokens"}"#, "null"))
}

/// How many events come at the end of a stream beyond those that were asked for, `[DONE]` not counted.
pub(crate) const LAST_EVENTS: usize = 1;

/// What ends a stream: the last events and the last chunk.
pub(crate) fn last_events() -> Vec<u8> {
    let last = event_with("{}", r#""stop""#);
    let mut bytes = chunk(&format!("{last}data: [DONE]\n\n"));
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

fn event_with(delta: &str, finish: &str) -> String {
    format!(
        r#"data: {{"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1763700000,"model":"bench","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]}}"#
    ) + "\n\n"
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}
