//! HTTP/2 to HTTP/1.1: what a frame can carry and a line cannot. The client writes its frames by hand, for no library
//! sends what these cases are made of.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::data::{Expect, unescape};
use super::recorder::{Record, Recorder, echo};
use crate::support::{Proxy, get, soon};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    why: String,
    fields: Vec<(String, String)>,
    body: Option<String>,
    #[serde(default)]
    expect: Expect,
    target: Option<String>,
    #[serde(default)]
    values: BTreeMap<String, Vec<String>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    h2: Vec<Case>,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const STREAM: u32 = 1;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Literal fields without indexing and without Huffman (RFC 7541, section 6.2.2).
fn block(fields: &[(String, String)]) -> Vec<u8> {
    let text = |text: &str| {
        let bytes = unescape(text);
        let length = u8::try_from(bytes.len()).ok().filter(|length| *length < 127).expect("a short text");
        [vec![length], bytes].concat()
    };
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

impl Case {
    fn bytes(&self) -> Vec<u8> {
        let body = self.body.as_deref().map(unescape);
        let flags = if body.is_some() { END_HEADERS } else { END_HEADERS | END_STREAM };
        let headers = frame(HEADERS, flags, STREAM, &block(&self.fields));
        let data = body.map(|body| frame(DATA, END_STREAM, STREAM, &body)).unwrap_or_default();
        [PREFACE, &frame(SETTINGS, 0, 0, &[]), &headers, &data].concat()
    }
}

/// How a stream was answered.
#[derive(Debug, PartialEq, Eq)]
enum Answered {
    Status(u16),
    /// The stream or the connection was ended.
    Ended,
}

async fn ask(proxy: &Proxy, bytes: &[u8]) -> Answered {
    let mut stream = TcpStream::connect(proxy.clients).await.expect("the proxy listens");
    // The connection may be ended before all is written.
    drop(stream.write_all(bytes).await);
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return Answered::Ended;
        }
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2]) | usize::from(head[0]) << 16];
        if stream.read_exact(&mut payload).await.is_err() {
            return Answered::Ended;
        }
        match head[3] {
            HEADERS => return Answered::Status(status(&payload)),
            RST_STREAM | GOAWAY => return Answered::Ended,
            _ => {}
        }
    }
}

/// The status at the beginning of a header block: from the static table, or a literal of three digits behind its name.
fn status(block: &[u8]) -> u16 {
    let block = if block[0] & 0xe0 == 0x20 { &block[1..] } else { block }; // an update of the table's size
    match block[0] {
        0x88 => 200,
        0x89 => 204,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        _ => 0,
    }
}

#[tokio::test]
async fn what_http2_can_carry_and_http1_cannot_is_refused() {
    let cases: Cases = toml::from_str(include_str!("h2.toml")).expect("a corpus");
    let mut recorder = Recorder::start().await;
    let proxy = crate::support::proxy::before(&format!("http://{}/v1", recorder.addr)).start().await;
    let mut passed_through = Vec::new();
    for case in cases.h2 {
        let story = format!("{} ({})", case.name, case.why);
        let answered = soon(&story, ask(&proxy, &case.bytes())).await;
        let next = format!("/v1/models?next={}", case.name);
        assert_eq!(proxy.client().await.ask(get(&next, "")).await.text(), echo(&next), "{story}");
        let mut arrived = Vec::new();
        for record in recorder.records() {
            match record {
                Record::Wrong(why, _) => passed_through.push(format!("{story}: {why}")),
                Record::Request(message) if message.target == next => {}
                Record::Request(message) => arrived.push(message),
            }
        }
        match case.expect {
            Expect::Refused => {
                if !matches!(answered, Answered::Status(400) | Answered::Ended) || !arrived.is_empty() {
                    passed_through.push(format!("{story}: {answered:?} {arrived:?}"));
                }
            }
            Expect::Forwarded => {
                assert_eq!(answered, Answered::Status(200), "{story}");
                let [message] = &arrived[..] else { panic!("{story}: {arrived:?}") };
                assert_eq!(Some(&message.target), case.target.as_ref(), "{story}");
                assert_eq!(message.body, case.body.as_deref().map(unescape).unwrap_or_default(), "{story}");
                for (name, values) in &case.values {
                    let found = message.values(name);
                    let found: Vec<_> = found.iter().map(|value| String::from_utf8_lossy(value)).collect();
                    assert_eq!(found, *values, "{story}: {name}");
                }
            }
        }
    }
    assert_eq!(passed_through, Vec::<String>::new());
}
