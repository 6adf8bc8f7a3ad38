//! A client that keeps its connection, and load made of such clients.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tidegate::time;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::wire::Ask;

/// Both of one length.
const EVENT: &[u8] = b"data: {";
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

pub(crate) struct Client {
    stream: TcpStream,
    received: BytesMut,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("it accepts");
        stream.set_nodelay(true).expect("a socket");
        Self { stream, received: BytesMut::with_capacity(4 * 1024) }
    }

    pub(crate) async fn send(&mut self, request: &[u8]) {
        self.stream.write_all(request).await.expect("it reads");
    }

    /// One call, from the first byte sent to the last received; the body of its answer.
    pub(crate) async fn call(&mut self, request: &[u8]) -> &[u8] {
        self.send(request).await;
        self.received.clear();
        loop {
            self.read().await;
            if let Some((head, body)) = lengths(&self.received)
                && self.received.len() >= head + body
            {
                return &self.received[head..];
            }
        }
    }

    /// One streamed call; how many events came, without `[DONE]`.
    pub(crate) async fn stream(&mut self, request: &[u8]) -> usize {
        self.send(request).await;
        self.received.clear();
        let mut events = 0;
        loop {
            // A read can end within what we look for: the last bytes are looked at again, one too few to count twice.
            self.received.advance(self.received.len().saturating_sub(LAST_CHUNK.len() - 1));
            self.read().await;
            events += self.received.windows(EVENT.len()).filter(|part| *part == EVENT).count();
            if self.received.ends_with(LAST_CHUNK) {
                return events;
            }
        }
    }

    async fn read(&mut self) {
        assert_ne!(self.stream.read_buf(&mut self.received).await.expect("an answer"), 0, "the connection stays open");
    }
}

/// How long head and body are, once the head has come. Anything but 200 is a mistake in the bench.
fn lengths(received: &[u8]) -> Option<(usize, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = response.parse(received).expect("HTTP") else { return None };
    assert_eq!(response.code, Some(200), "{}", String::from_utf8_lossy(received));
    let length = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    Some((head, str::from_utf8(length.expect("a length").value).unwrap().parse().unwrap()))
}

/// Has so many connections make calls for so long; how long each call took.
pub(crate) async fn load(address: SocketAddr, connections: usize, load_for: Duration) -> Vec<Duration> {
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        clients.spawn(async move {
            let (request, mut client) = (Ask::Answer.request(), Client::connect(address).await);
            let (mut took, until) = (Vec::new(), time::now() + load_for);
            loop {
                let begun = time::now();
                if begun >= until {
                    return took;
                }
                client.call(&request).await;
                took.push(begun.elapsed());
            }
        });
    }
    clients.join_all().await.concat()
}
