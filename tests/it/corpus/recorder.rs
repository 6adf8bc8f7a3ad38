//! A provider that trusts nobody: it keeps the raw bytes of each connection and reads them by the reference alone.

use std::net::SocketAddr;
use std::sync::Arc;

use tidegate::time::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

use super::reference::{Found, Message, read};
use crate::support::soon;

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
    /// The answers to targets with `?before=` in them wait for a permit each.
    pub(super) gate: Arc<Semaphore>,
    records: mpsc::UnboundedReceiver<Record>,
    _tasks: Tasks,
}

impl Recorder {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let (tell, records) = mpsc::unbounded_channel();
        let (tasks, gate) = (Tasks::default(), Arc::new(Semaphore::new(0)));
        let (spawner, waited) = (tasks.clone(), Arc::clone(&gate));
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawner.spawn(record(stream, tell.clone(), Arc::clone(&waited)));
            }
        });
        Self { addr, gate, records, _tasks: tasks }
    }

    /// The next one.
    pub(super) async fn record(&mut self) -> Record {
        soon("a request", self.records.recv()).await.expect("the recorder runs")
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

async fn record(mut stream: TcpStream, tell: mpsc::UnboundedSender<Record>, gate: Arc<Semaphore>) {
    let mut bytes = Vec::new();
    loop {
        match read(&bytes) {
            Found::Message(message) => {
                let (body, waits) = (echo(&message.target), message.target.contains("?before="));
                bytes.drain(..message.end);
                drop(tell.send(Record::Request(message)));
                if waits {
                    gate.acquire().await.expect("an open gate").forget();
                }
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
