//! Slow clients are shut within their limits, and nobody else waits for them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{House, MIB, Provider, memory, other_is_served, served_all_along, tell, until_all_are_gone};
use crate::support::http2_client::{Http2, get as get_over_http_2};
use crate::support::process::Process;
use crate::support::proxy::metric;
use crate::support::{get, ms, within};

const CLIENTS: usize = 60;
/// What one of them may hold at most.
const HELD_MAX: u64 = MIB * 3 / 2;
/// The limits are a second or two; this is what a busy machine may make of it.
const AT_MOST: u64 = 20_000;
/// Longer than it keeps those who do as they should from sending a head.
const HEADS: &str = "header_timeout = \"2s\"";
const BODIES: &str = "body_timeout = \"1s\"";
const WRITES: &str = "write_timeout = \"1s\"";

/// So many clients that do the same; each ends when the proxy has closed its connection.
async fn all(process: &Process, client: impl AsyncFn(TcpStream)) {
    let one = async || {
        // A small window, or the system would take in megabytes for each that does not read.
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(16 << 10).expect("a window");
        client(socket.connect(process.clients).await.expect("the proxy listens")).await;
    };
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Box::pin(one())).collect();
    let mut left = CLIENTS;
    let mut done = vec![false; CLIENTS];
    std::future::poll_fn(|cx| {
        for (client, done) in clients.iter_mut().zip(&mut done).filter(|(_, done)| !**done) {
            if client.as_mut().poll(cx).is_ready() {
                *done = true;
                left -= 1;
            }
        }
        if left == 0 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

async fn are_shut(limit: &str, client: impl AsyncFn(TcpStream)) {
    attack(limit, async |process| all(process, &client).await).await;
}

/// Attacks a process of its own again and again: what one attack held serves the next. How much of it the allocator gives
/// back to the system, and when, is its own affair.
async fn attack(limit: &str, attack: impl AsyncFn(&Process)) {
    let (provider, house) = (Provider::start(ms(0)).await, House::new());
    let process = house.serve(&provider.base_url, limit, "").await;
    other_is_served(&process).await;
    let before = memory(&process, "VmRSS");
    for _ in 0..4 {
        served_all_along(&process, within(ms(AT_MOST), "all are shut", attack(&process))).await;
        until_all_are_gone(&process).await;
        let (peak, now) = (memory(&process, "VmHWM"), memory(&process, "VmRSS"));
        tell(format_args!("VmHWM {} MiB, VmRSS {} MiB", peak / MIB, now / MIB));
    }
    let grown = memory(&process, "VmHWM").saturating_sub(before);
    assert!(grown < CLIENTS as u64 * HELD_MAX + 10 * MIB, "{} MiB more", grown / MIB);
    for kind in ["bodies", "flights"] {
        assert!(metric(process.admin, &format!("tidegate_memory_bytes{{kind=\"{kind}\"}}")).await < 0.5, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_drip_are_shut_while_others_are_served() {
    are_shut(HEADS, async |mut stream| {
        for byte in get("/v1/models", "X-Long: 1\r\n").bytes().cycle() {
            if stream.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(ms(100)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_stall_are_shut_while_others_are_served() {
    for path in ["/v1/chat/completions", "/v1/files"] {
        are_shut(BODIES, async |mut stream| {
            let head = format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&[b' '; 10_000]).await.unwrap();
            let mut heard = Vec::new();
            // A proxy that closes while there is still something to send resets the connection; this one waits.
            stream.read_to_end(&mut heard).await.expect("no reset");
            assert!(heard.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&heard));
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_large_answers_that_stop_are_shut_while_others_are_served() {
    are_shut(WRITES, async |mut stream| {
        stream.write_all(get("/v1/files/100000000", "").as_bytes()).await.unwrap();
        let mut first = [0; 1_000];
        assert!(stream.read(&mut first).await.unwrap() > 0);
        // Who does not read is not told; the proxy has let go of the connection when writing to it fails.
        while stream.write_all(b"G").await.is_ok() {
            tokio::time::sleep(ms(100)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_http_2_that_nobody_reads_are_shut_while_others_are_served() {
    attack(WRITES, async |process| {
        let mut client = Http2::to(process.clients).await;
        let mut unread = Vec::new();
        for _ in 0..CLIENTS {
            unread.push(client.begin(get_over_http_2("/v1/files/100000000"), true).await);
        }
        for sending in unread {
            let mut coming = sending.answer().await.expect("a head");
            let cut = loop {
                // What the proxy has sent before it gave up is still there.
                match coming.body.data().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break error,
                    None => panic!("it looks complete"),
                }
            };
            assert!(cut.is_reset() && cut.is_remote(), "{cut}");
        }
    })
    .await;
}
