//! The provider: answers from memory.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::child;
use super::wire::{self, Ask};

/// Serves until the parent has gone.
pub(crate) fn run() {
    child::ends_with_its_parent();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        io::stdout().flush().unwrap();
        let (mut connections, accepted) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        loop {
            tokio::select! {
                connection = listener.accept() => {
                    accepted.fetch_add(1, Ordering::Relaxed);
                    connections.spawn(serve(connection.unwrap().0, Arc::clone(&accepted)));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    });
}

/// One connection. An error is its end.
async fn serve(mut stream: TcpStream, accepted: Arc<AtomicUsize>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (answer, mut received) = (wire::answer(), BytesMut::with_capacity(8 * 1024));
    while let Some(ask) = read_request(&mut stream, &mut received).await? {
        match ask {
            Ask::Answer => stream.write_all(&answer).await?,
            Ask::Stream { events, pause_us } => {
                send_events(&mut stream, events, Duration::from_micros(pause_us)).await?;
            }
            // Reading on is how it notices that the proxy gave up.
            Ask::Hold => {}
            Ask::Count => stream.write_all(&wire::figure(accepted.load(Ordering::Relaxed))).await?,
        }
    }
    Ok(())
}

async fn send_events(stream: &mut TcpStream, events: usize, pause: Duration) -> io::Result<()> {
    let event = wire::event();
    let mut pace = tokio::time::interval(pause);
    stream.write_all(&wire::stream_head()).await?;
    for _ in 0..events {
        pace.tick().await;
        stream.write_all(&event).await?;
    }
    stream.write_all(&wire::last_events()).await
}

async fn read_request(stream: &mut TcpStream, received: &mut BytesMut) -> io::Result<Option<Ask>> {
    loop {
        if let Some((ask, length)) = parse(received) {
            if received.len() >= length {
                received.advance(length);
                return Ok(Some(ask));
            }
            received.reserve(length - received.len());
        }
        if stream.read_buf(received).await? == 0 {
            return Ok(None);
        }
    }
}

/// What is asked, and the length of the request, once its head is there.
fn parse(received: &[u8]) -> Option<(Ask, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    let head = match request.parse(received).expect("HTTP") {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial => return None,
    };
    let length = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let body = length.map_or(0, |field| str::from_utf8(field.value).unwrap().parse().unwrap());
    Some((Ask::of_target(request.path.unwrap_or_default()), head + body))
}
