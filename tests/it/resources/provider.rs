//! A provider that answers everything, however large.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use tidegate::time::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::upstream::{fine, json};

/// It answers `POST /v1/files` with length and hash of what it got, `GET /v1/files/N` with N bytes of noise, and all else
/// with `fine`, after its latency.
pub(super) struct Provider {
    pub(super) base_url: String,
    _tasks: Tasks,
}

impl Provider {
    pub(super) async fn start(latency: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let tasks = Tasks::default();
        let spawner = tasks.clone();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut line = Line { stream, ahead: Vec::new() };
                spawner.spawn(async move { while line.serve(latency).await.is_some() {} });
            }
        });
        Self { base_url, _tasks: tasks }
    }
}

struct Line {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Line {
    /// Serves one request; `None` when there will be none any more.
    async fn serve(&mut self, latency: Duration) -> Option<()> {
        let head = self.head().await?;
        let mut words = head.split([' ', '\r']);
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ").or_else(|| line.strip_prefix("Content-Length: ")));
        let length = length.map_or(0, |length| length.parse().unwrap());
        let hash = self.take_in(length).await?;
        if let Some(noise) = path.strip_prefix("/v1/files/").filter(|_| method == "GET") {
            return self.send_noise(noise.parse().unwrap()).await;
        }
        let answer = if path == "/v1/files" { json(&received(length, &hash)) } else { fine() };
        tokio::time::sleep(latency).await;
        self.stream.write_all(&answer).await.ok()
    }

    async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.ahead.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = self.ahead.split_off(at + 4);
                let head = std::mem::replace(&mut self.ahead, rest);
                return String::from_utf8(head).ok();
            }
            if self.stream.read_buf(&mut self.ahead).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn take_in(&mut self, length: u64) -> Option<blake3::Hash> {
        let (mut hasher, mut left, mut buffer) = (blake3::Hasher::new(), length, vec![0; 256 << 10]);
        let ahead = std::mem::take(&mut self.ahead);
        hasher.update(&ahead);
        left -= ahead.len() as u64; // nobody pipelines to a provider
        while left > 0 {
            let read = self.stream.read(&mut buffer).await.ok().filter(|&read| read > 0)?;
            hasher.update(&buffer[..read]);
            left -= read as u64;
        }
        Some(hasher.finalize())
    }

    async fn send_noise(&mut self, length: u64) -> Option<()> {
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await.ok()?;
        let mut noise = Noise::new(length);
        while let Some(bytes) = noise.next() {
            self.stream.write_all(&bytes).await.ok()?;
        }
        Some(())
    }
}

/// What the provider says of an upload.
pub(super) fn received(length: u64, hash: &blake3::Hash) -> String {
    format!("{{\"bytes\":{length},\"hash\":\"{hash}\"}}")
}

/// So many bytes that look like nothing, the same each time, made on the way. No two places a page apart look alike.
pub(super) struct Noise {
    block: Bytes,
    left: u64,
}

impl Noise {
    pub(super) fn new(length: u64) -> Self {
        static BLOCK: LazyLock<Bytes> = LazyLock::new(|| {
            let mut block = vec![0; 1_000_003]; // prime: never in step with anybody's buffers
            fastrand::Rng::with_seed(17).fill(&mut block);
            block.into()
        });
        Self { block: Bytes::clone(&BLOCK), left: length }
    }

    /// The next bytes.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        let next = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.block.len());
        self.left -= next as u64;
        (next > 0).then(|| self.block.slice(..next))
    }

    /// The hash of all of it.
    pub(super) fn hash(mut self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        while let Some(bytes) = self.next() {
            hasher.update(&bytes);
        }
        hasher.finalize()
    }
}
