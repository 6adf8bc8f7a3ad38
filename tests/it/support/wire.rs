//! HTTP/1.1 as bytes: a head, a body with its framing, and how a connection ends.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;

use super::soon;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Reset,
}

/// Reads what the other side sends, and forgets nothing of it.
pub(crate) struct Reader<S> {
    pub(crate) stream: S,
    /// What was read and not yet taken.
    buffer: Vec<u8>,
}

impl<S: AsyncRead + Unpin> Reader<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Reads more; false at the end of the connection.
    pub(crate) async fn more(&mut self) -> io::Result<bool> {
        Ok(soon("more bytes", self.stream.read_buf(&mut self.buffer)).await? > 0)
    }

    /// Everything up to and including `mark`.
    pub(crate) async fn until(&mut self, mark: &[u8]) -> Result<Vec<u8>, End> {
        loop {
            if let Some(at) = find(&self.buffer, mark) {
                return Ok(self.take(at + mark.len()));
            }
            self.more_or_end().await?;
        }
    }

    pub(crate) async fn exactly(&mut self, length: usize) -> Result<Vec<u8>, End> {
        while self.buffer.len() < length {
            self.more_or_end().await?;
        }
        Ok(self.take(length))
    }

    async fn more_or_end(&mut self) -> Result<(), End> {
        match self.more().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(End::Fin),
            Err(_) => Err(End::Reset),
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(length);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// Bytes that came and were not asked for.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.buffer
    }

    /// Everything until the connection ends, and how it does.
    pub(crate) async fn until_the_end(&mut self) -> (Vec<u8>, End) {
        let end = loop {
            if let Err(end) = self.more_or_end().await {
                break end;
            }
        };
        (std::mem::take(&mut self.buffer), end)
    }

    pub(crate) async fn head(&mut self) -> Result<Head, End> {
        self.until(b"\r\n\r\n").await.map(Head)
    }

    /// A body framed as `head` says; `closes`: without a framing it goes on until the connection ends.
    pub(crate) async fn body(&mut self, head: &Head, closes: bool) -> Result<Body, End> {
        let mut body = Body::default();
        if head.field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            while let Some(chunk) = self.chunk().await? {
                body.bytes.extend_from_slice(&chunk);
                body.chunks.push(chunk);
            }
        } else if let Some(length) = head.field("content-length") {
            body.bytes = self.exactly(length.parse().expect("a length")).await?;
        } else if closes {
            (body.bytes, _) = self.until_the_end().await;
        }
        Ok(body)
    }

    /// The next chunk of a chunked body; `None` after the last.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Vec<u8>>, End> {
        let line = self.until(b"\r\n").await?;
        let size = String::from_utf8(line).expect("a chunk size");
        let size = usize::from_str_radix(size.trim(), 16).expect("a chunk size");
        let mut chunk = self.exactly(size + 2).await?;
        assert_eq!(chunk.split_off(size), b"\r\n", "a chunk ends with CRLF");
        Ok((size > 0).then_some(chunk))
    }
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}

/// A head as it came, with its empty line.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Head(pub(crate) Vec<u8>);

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
    }
}

impl Head {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// The request line or status line.
    pub(crate) fn first_line(&self) -> String {
        self.text().lines().next().expect("a first line").to_owned()
    }

    pub(crate) fn status(&self) -> u16 {
        self.first_line().split(' ').nth(1).expect("a status").parse().expect("a status")
    }

    /// The values of a field, in order.
    pub(crate) fn fields(&self, name: &str) -> Vec<String> {
        let text = self.text();
        let fields = text.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).collect()
    }

    pub(crate) fn field(&self, name: &str) -> Option<String> {
        self.fields(name).into_iter().next()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        !self.fields(name).is_empty()
    }
}

/// A body without its framing, and the chunks it came in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    pub(crate) chunks: Vec<Vec<u8>>,
}

/// A request as the provider saw it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// An answer as a client saw it.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The statuses of the 1xx that came before.
    pub(crate) interim: Vec<u16>,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The code of an OpenAI-shaped error, all of whose members are there.
    pub(crate) fn error_code(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
        let error = json["error"].as_object().expect("an error");
        assert!(error.contains_key("param") && error["message"].is_string() && error["type"].is_string(), "{json}");
        error["code"].as_str().expect("a code").to_owned()
    }
}

/// Makes dropping the socket a reset.
pub(crate) fn reset_on_drop(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO)).expect("a socket");
}
