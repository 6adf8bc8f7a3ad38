//! The client of a cell: what it asks, and what it got.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::cell::{Cell, Fault, Form, Http, Kind, Phase};
use super::script::{PLAIN, TEXT};

/// More than fits in any socket, where it must not be taken; else more than is written at once.
fn padding(cell: &Cell) -> usize {
    match (cell.phase, cell.fault, cell.http) {
        // HTTP/2 takes no more than its window; a socket takes megabytes.
        (Phase::Writing, Fault::Stall, Http::Http1) => 8 << 20,
        (Phase::Writing, ..) => 400_000,
        _ => 10,
    }
}

/// The request of a cell. It is the last on its connection, so that the end of the answer cannot be mistaken.
pub(super) fn request(cell: &Cell) -> Vec<u8> {
    let (is_stream, padding) = (cell.form == Form::Stream, "x".repeat(padding(cell)));
    let path = match (cell.kind, cell.form) {
        (Kind::Upload, Form::Plain) => "/v1/files",
        (Kind::Upload, Form::Stream) => "/v1/threads/t/runs",
        _ => "/v1/chat/completions",
    };
    let wish = if cell.kind == Kind::Restart { "x-tidegate-mid-stream: restart\r\n" } else { "" };
    let body = format!(
        r#"{{"model":"m","stream":{is_stream},"user":"{padding}","messages":[{{"role":"user","content":"hi"}}]}}"#
    );
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: tidegate\r\nConnection: close\r\nContent-Type: application/json\r\n\
         x-tidegate-deadline-ms: 30000\r\n{wish}Content-Length: {}\r\n\r\n",
        body.len()
    );
    (head + &body).into_bytes()
}

/// What a client got.
#[derive(Debug)]
pub(super) struct Got {
    status: u16,
    pub(super) attempts: u32,
    body: Vec<u8>,
    /// As far as its framing tells.
    is_whole: bool,
}

/// Asks, telling on `received` what has come, and reads to the end of the connection.
pub(super) async fn ask(proxy: SocketAddr, request: Vec<u8>, received: &watch::Sender<Vec<u8>>) -> Got {
    let stream = TcpStream::connect(proxy).await.expect("the proxy listens");
    stream.set_nodelay(true).expect("a socket");
    let (mut reading, mut writing) = stream.into_split();
    let write = async {
        // An early answer ends this.
        drop(writing.write_all(&request).await);
        std::future::pending::<()>().await;
    };
    let read = async {
        let mut buffer = vec![0; 16_384];
        while let Ok(read @ 1..) = reading.read(&mut buffer).await {
            received.send_modify(|bytes| bytes.extend_from_slice(&buffer[..read]));
        }
    };
    tokio::select! {
        () = write => {}
        () = read => {}
    }
    Got::parse(&received.borrow())
}

impl Got {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, _) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
        let field = |name: &str| {
            let fields = head.lines().filter_map(|line| line.split_once(": "));
            fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
        };
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let attempts = field("x-tidegate-attempts").map_or(0, |attempts| attempts.parse().expect("a number"));
        let rest = &bytes[head.len() + 4..];
        let (body, is_whole) = if field("transfer-encoding").is_some() {
            unchunk(rest)
        } else {
            let length: usize = field("content-length").expect("a framing").parse().expect("a length");
            (rest.to_vec(), rest.len() == length)
        };
        Self { status, attempts, body, is_whole }
    }

    /// What it comes to, in the words of the table.
    pub(super) fn outcome(&self, cell: &Cell) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let code = || {
            let json = text.lines().rev().find_map(|line| {
                serde_json::from_str::<serde_json::Value>(line.strip_prefix("data: ").unwrap_or(line)).ok()
            });
            let error = json.map(|json| json["error"].clone()).unwrap_or_default();
            error["code"].as_str().unwrap_or("without a code").to_owned()
        };
        if !self.is_whole {
            return if self.is_half(cell, &text) { "cut".to_owned() } else { format!("corrupt {text:?}") };
        }
        if self.status != 200 {
            return match cell.fault.status() {
                Some((status, _, body)) if (status, body) == (self.status, &text) => format!("status {status}"),
                _ => format!("error {} {}", self.status, code()),
            };
        }
        match cell.form {
            Form::Plain if text == PLAIN => "served".to_owned(),
            Form::Plain => format!("corrupt {text:?}"),
            Form::Stream => match Told::of(&text) {
                Some(told) => told.outcome(code),
                None => format!("corrupt {text:?}"),
            },
        }
    }

    /// The beginning of what should have come.
    fn is_half(&self, cell: &Cell, text: &str) -> bool {
        self.status == 200 && (cell.form == Form::Stream || PLAIN.starts_with(text) && text.len() <= PLAIN.len())
    }
}

fn unchunk(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else { return (body, false) };
        let size = std::str::from_utf8(&bytes[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.expect("a chunk size");
        bytes = &bytes[end + 2..];
        if size == 0 {
            return (body, bytes == b"\r\n");
        }
        if bytes.len() < size + 2 {
            body.extend_from_slice(&bytes[..size.min(bytes.len())]);
            return (body, false);
        }
        body.extend_from_slice(&bytes[..size]);
        bytes = &bytes[size + 2..];
    }
}

/// What an event stream tells, as one who reads it event by event understands it.
#[derive(Debug, Default)]
struct Told {
    text: String,
    ids: Vec<String>,
    roles: usize,
    stops: usize,
    dones: usize,
    errors: usize,
    restarts: usize,
}

impl Told {
    /// `None`: it is no stream of whole events.
    fn of(stream: &str) -> Option<Self> {
        let mut told = Self::default();
        if !stream.is_empty() && !stream.ends_with("\n\n") {
            return None;
        }
        for line in stream.lines().filter(|line| !line.is_empty()) {
            if line.starts_with(": restarted") {
                told = Self { restarts: told.restarts + 1, ..Self::default() };
                continue;
            }
            match line.strip_prefix("data: ") {
                // Nothing follows an error.
                Some(_) if told.errors > 0 => return None,
                Some("[DONE]") => told.dones += 1,
                Some(data) => told.event(&serde_json::from_str(data).ok()?),
                None if line.starts_with(':') || line.starts_with("event: ") => {}
                None => return None,
            }
        }
        told.ids.dedup();
        Some(told)
    }

    fn event(&mut self, event: &serde_json::Value) {
        if event["error"].is_object() {
            self.errors += 1;
            return;
        }
        self.ids.extend(event["id"].as_str().map(str::to_owned));
        let choice = &event["choices"][0];
        self.text += choice["delta"]["content"].as_str().unwrap_or("");
        self.roles += usize::from(choice["delta"]["role"].is_string());
        self.stops += usize::from(choice["finish_reason"].is_string());
    }

    fn outcome(&self, code: impl Fn() -> String) -> String {
        let is_one = self.ids.len() <= 1 && self.roles <= 1;
        let is_all = is_one && self.text == TEXT && self.stops == 1;
        match (self.errors, self.dones) {
            (1, 0) if is_all || is_one && self.stops == 0 && TEXT.starts_with(&self.text) => {
                format!("event {}", code())
            }
            (0, 1) if is_all && self.restarts > 0 => "restarted".to_owned(),
            (0, 1) if is_all => "served".to_owned(),
            (0, 0) if is_all => "ended".to_owned(),
            (0, 0) if is_one && self.stops == 0 && TEXT.starts_with(&self.text) => "short".to_owned(),
            _ => format!("corrupt {self:?}"),
        }
    }
}
