//! A provider that trusts nobody: it keeps the raw bytes of each connection and reads them by the reference alone.

use std::net::SocketAddr;

use tidegate::time::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::reference::{Found, Message, read};

/// What came by a connection.
#[derive(Debug)]
pub(super) enum Record {
    /// A request of one meaning.
    Request(Message),
    /// Bytes that have none.
    Wrong(String, Vec<u8>),
}

/// It answers every request with [`echo`] of its target.
pub(super) struct Recorder {
    pub(super) addr: SocketAddr,
    records: mpsc::UnboundedReceiver<Record>,
    _tasks: Tasks,
}

impl Recorder {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let (tell, records) = mpsc::unbounded_channel();
        let tasks = Tasks::default();
        let spawner = tasks.clone();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawner.spawn(record(stream, tell.clone()));
            }
        });
        Self { addr, records, _tasks: tasks }
    }

    /// What came since somebody looked.
    pub(super) fn records(&mut self) -> Vec<Record> {
        std::iter::from_fn(|| self.records.try_recv().ok()).collect()
    }
}

/// The body of the answer to a request for `target`.
pub(super) fn echo(target: &str) -> String {
    serde_json::json!({ "echo": target }).to_string()
}

async fn record(mut stream: TcpStream, tell: mpsc::UnboundedSender<Record>) {
    let mut bytes = Vec::new();
    loop {
        match read(&bytes) {
            Found::Message(message) => {
                let body = echo(&message.target);
                bytes.drain(..message.end);
                drop(tell.send(Record::Request(message)));
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
                let answer = format!("{head}{}\r\n\r\n{body}", body.len());
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
            Found::Wrong(why) => return drop(tell.send(Record::Wrong(why, bytes))),
            Found::Partial => match stream.read_buf(&mut bytes).await {
                Ok(1..) => {}
                // What was cut off in the middle of a request is no request.
                Ok(0) | Err(_) => return,
            },
        }
    }
}
