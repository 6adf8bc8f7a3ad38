//! A client that shows the bytes as they came.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::soon;
use super::wire::{Answer, End, Head, Reader, reset_on_drop};

/// One connection to the proxy.
pub(crate) struct Client(Reader<TcpStream>);

impl Client {
    pub(crate) async fn to(addr: SocketAddr) -> Self {
        let stream = soon("the proxy accepts", TcpStream::connect(addr)).await.expect("the proxy listens");
        stream.set_nodelay(true).expect("a socket");
        Self(Reader::new(stream))
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon("the proxy reads", self.0.stream.write_all(bytes.as_ref())).await.expect("the proxy reads");
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request).await;
        self.answer().await
    }

    /// One whole answer, to a request that was no `HEAD`.
    pub(crate) async fn answer(&mut self) -> Answer {
        let (interim, head) = self.final_head().await;
        let has_body = !matches!(head.status(), 204 | 304);
        let body = if has_body { self.0.body(&head, true).await.expect("a whole body").bytes } else { Vec::new() };
        Answer { interim, head, body }
    }

    /// The head of the next answer, after any 1xx.
    pub(crate) async fn head(&mut self) -> Head {
        self.final_head().await.1
    }

    async fn final_head(&mut self) -> (Vec<u16>, Head) {
        let mut interim = Vec::new();
        loop {
            let head = self.0.head().await.expect("a head");
            match head.status() {
                status @ 100..200 => interim.push(status),
                _ => return (interim, head),
            }
        }
    }

    /// The next event of a chunked stream, without its empty line; `None` at its end.
    pub(crate) async fn event(&mut self) -> Option<String> {
        let chunk = self.0.chunk().await.expect("a chunk, or the last one")?;
        Some(String::from_utf8(chunk).expect("text").trim_end().to_owned())
    }

    /// All that is left of a chunked stream, if it comes to its end.
    pub(crate) async fn rest(&mut self) -> Result<String, End> {
        let mut text = String::new();
        while let Some(chunk) = self.0.chunk().await? {
            text += &String::from_utf8(chunk).expect("text");
        }
        Ok(text)
    }

    pub(crate) fn reader(&mut self) -> &mut Reader<TcpStream> {
        &mut self.0
    }

    /// Waits until the proxy closes the connection.
    pub(crate) async fn until_the_end(&mut self) -> (Vec<u8>, End) {
        self.0.until_the_end().await
    }

    /// Reading and writing at the same time.
    pub(crate) fn split(self) -> (Reader<OwnedReadHalf>, Writer) {
        let (reading, writing) = self.0.stream.into_split();
        (Reader::new(reading), Writer(writing))
    }

    pub(crate) fn reset(self) {
        reset_on_drop(&self.0.stream);
    }
}

/// The writing half of a client.
pub(crate) struct Writer(OwnedWriteHalf);

impl Writer {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon("the proxy reads", self.0.write_all(bytes.as_ref())).await.expect("the proxy reads");
    }

    /// Whether the proxy still reads.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok()
    }
}

/// A chat completion request with this JSON body.
pub(crate) fn post(body: impl AsRef<[u8]>) -> Vec<u8> {
    post_to("/v1/chat/completions", "", body)
}

/// A request with this JSON body, to another path and with more fields.
pub(crate) fn post_to(target: &str, fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: tidegate\r\nContent-Type: application/json\r\n{fields}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A request without a body.
pub(crate) fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: tidegate\r\n{fields}\r\n")
}
