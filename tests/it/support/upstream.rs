//! The scripted provider: the test holds each connection and decides what comes next.

use std::net::SocketAddr;

use tidegate::time::{Instant, Tasks, now};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::soon;
use super::wire::{Head, Reader, Request, reset_on_drop};

/// A provider that listens; its connections are taken one by one.
pub(crate) struct Upstream {
    listener: TcpListener,
    addr: SocketAddr,
}

/// A connection of the provider.
pub(crate) struct Line(Reader<TcpStream>);

/// What a scripted connection does next.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Reads a request and records it.
    Read,
    /// Writes.
    Send(Vec<u8>),
    /// Ends the connection with a reset.
    Reset,
    /// Ends the connection properly.
    Fin,
    /// Does nothing until the other side has gone.
    Stall,
}

/// A provider that runs its scripts by itself.
pub(crate) struct Scripted {
    pub(crate) addr: SocketAddr,
    requests: mpsc::UnboundedReceiver<(Instant, usize, Request)>,
    _tasks: Tasks,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        Self { listener, addr }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> Line {
        let (stream, _) = soon("a connection to the upstream", self.listener.accept()).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        Line::of(stream)
    }

    /// The next connection and its first request.
    pub(crate) async fn request(&self) -> (Line, Request) {
        let mut line = self.accept().await;
        let request = line.request().await;
        (line, request)
    }

    /// The next request, on `line` or on a new connection, whichever the proxy chose.
    pub(crate) async fn request_on_any(&self, mut line: Line) -> Line {
        tokio::select! {
            head = line.0.head() => {
                let head = head.expect("a request head");
                line.0.body(&head, false).await.expect("a request body");
                line
            }
            (line, _) = self.request() => line,
        }
    }

    /// Whether nobody has connected so far.
    pub(crate) async fn is_untouched(&self) -> bool {
        tokio::time::timeout(std::time::Duration::from_millis(100), self.listener.accept()).await.is_err()
    }

    /// Runs the n-th script on the n-th connection, the last one on all further ones.
    pub(crate) fn script(self, scripts: impl IntoIterator<Item = Vec<Step>>) -> Scripted {
        let scripts: Vec<Vec<Step>> = scripts.into_iter().collect();
        let (tell, requests) = mpsc::unbounded_channel();
        let (tasks, addr) = (Tasks::default(), self.addr);
        let spawner = tasks.clone();
        tasks.spawn(async move {
            for number in 0.. {
                let Ok((stream, _)) = self.listener.accept().await else { return };
                let script = scripts[number.min(scripts.len() - 1)].clone();
                spawner.spawn(run(Line::of(stream), script, number, tell.clone()));
            }
        });
        Scripted { addr, requests, _tasks: tasks }
    }
}

async fn run(mut line: Line, script: Vec<Step>, number: usize, tell: mpsc::UnboundedSender<(Instant, usize, Request)>) {
    for step in script {
        match step {
            Step::Read => {
                let Some(request) = line.next_request().await else { return };
                drop(tell.send((now(), number, request)));
            }
            Step::Send(bytes) => {
                if line.0.stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Step::Reset => return line.reset(),
            Step::Fin => return,
            Step::Stall => drop(line.0.until_the_end().await),
        }
    }
    // A script that has come to its end keeps the connection, as an idle one.
    drop(line.0.until_the_end().await);
}

impl Scripted {
    /// The next request, whichever connection it came by.
    pub(crate) async fn request(&mut self) -> Request {
        self.next().await.2
    }

    /// When it came, the number of its connection, the request.
    pub(crate) async fn next(&mut self) -> (Instant, usize, Request) {
        soon("a request to the upstream", self.requests.recv()).await.expect("the upstream runs")
    }

    /// How many requests came that nobody has looked at.
    pub(crate) fn unseen(&mut self) -> usize {
        std::iter::from_fn(|| self.requests.try_recv().ok()).count()
    }
}

impl Line {
    pub(crate) fn of(stream: TcpStream) -> Self {
        Self(Reader::new(stream))
    }

    pub(crate) async fn request(&mut self) -> Request {
        self.next_request().await.expect("a request")
    }

    async fn next_request(&mut self) -> Option<Request> {
        let head = self.0.head().await.ok()?;
        let body = self.0.body(&head, false).await.ok()?.bytes;
        Some(Request { head, body })
    }

    pub(crate) async fn head(&mut self) -> Head {
        self.0.head().await.expect("a request head")
    }

    pub(crate) fn reader(&mut self) -> &mut Reader<TcpStream> {
        &mut self.0
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon("the proxy reads", self.0.stream.write_all(bytes.as_ref())).await.expect("the proxy reads");
    }

    /// Writes as far as it goes: the proxy may leave meanwhile.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.stream.write_all(bytes).await
    }

    pub(crate) fn reset(self) {
        reset_on_drop(&self.0.stream);
    }

    /// Says that nothing more will be sent, and closes.
    pub(crate) async fn fin(mut self) {
        drop(self.0.stream.shutdown().await);
    }

    /// Waits until the proxy has closed the connection.
    pub(crate) async fn gone(&mut self) {
        self.0.until_the_end().await;
    }
}

/// An answer with a length.
pub(crate) fn answer(status: &str, fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut bytes = format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A plain JSON answer.
pub(crate) fn json(body: &str) -> Vec<u8> {
    answer("200 OK", "Content-Type: application/json\r\n", body)
}

/// A complete chat completion.
pub(crate) fn fine() -> Vec<u8> {
    json(FINE)
}

pub(crate) const FINE: &str = r#"{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"fine"},"finish_reason":"stop"}]}"#;

/// The head of a chunked event stream.
pub(crate) const STREAM: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A chunk.
pub(crate) fn chunk(bytes: &str) -> String {
    format!("{:x}\r\n{bytes}\r\n", bytes.len())
}

/// A chunk with one event that carries `content`.
pub(crate) fn event(content: &str) -> String {
    chunk(&format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{content}\"}}}}]}}\n\n"))
}

/// The proper end of a chat stream.
pub(crate) fn finish() -> String {
    let stop = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    format!("{}{}0\r\n\r\n", chunk(stop), chunk("data: [DONE]\n\n"))
}
