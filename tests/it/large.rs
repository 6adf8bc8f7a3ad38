//! Uploads and downloads of any size to and from a provider that speaks HTTP/2, with little memory; `resources` has those
//! of HTTP/1.1.

use bytes::Bytes;

use crate::support::http2::{Asked, Provider};
use crate::support::process::Process;
use crate::support::{Client, get};

const BLOCK: usize = 64 * 1024;
const BLOCKS: u32 = 4_096; // 256 MiB
const SIZE: u64 = 268_435_456;
/// What the process may have resident at its peak.
const MEMORY_MAX: u64 = 100 << 20;

/// The n-th block: no two are alike.
fn block(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(BLOCK / 4)
}

fn whole() -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for number in 0..BLOCKS {
        hasher.update(&block(number));
    }
    hasher.finalize()
}

async fn serving(base_url: &str, http: &str) -> (tempfile::TempDir, Process) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tidegate.toml");
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nstate_dir = {:?}\n\
         [telemetry]\nformat = \"json\"\n[[upstreams]]\nbase_url = {base_url:?}\nhttp = {http:?}\n",
        folder.path().join("state")
    );
    std::fs::write(&config, text).unwrap();
    let process = Process::serve(&config).await;
    (folder, process)
}

/// Uploads all blocks, chunked, and reads the answer.
async fn upload(process: &Process) {
    let mut client = Client::to(process.clients).await;
    client.send("POST /v1/files HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for number in 0..BLOCKS {
        client.send([b"10000\r\n", block(number).as_slice(), b"\r\n"].concat()).await;
    }
    client.send("0\r\n\r\n").await;
    let seen = client.answer().await;
    assert_eq!((seen.status(), seen.text()), (200, whole().to_string()));
}

/// Downloads all blocks. At first nothing is read for a while: they pile up wherever there is room.
async fn download(process: &Process) {
    let mut client = Client::to(process.clients).await;
    client.send(get("/v1/files/1/content", "")).await;
    let head = client.head().await;
    assert_eq!((head.status(), head.fields("content-length")), (200, vec![SIZE.to_string()]));
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let mut hasher = blake3::Hasher::new();
    for _ in 0..BLOCKS {
        hasher.update(&client.reader().exactly(BLOCK).await.unwrap());
    }
    assert_eq!(hasher.finalize(), whole());
}

fn assert_flat(process: &Process) {
    let memory = process.memory_max();
    assert!(memory < MEMORY_MAX, "{} MiB at the peak", memory >> 20);
}

#[tokio::test]
async fn large_bodies_pass_with_little_memory_over_http2() {
    let provider = Provider::start(|mut asked: Asked| async move {
        let mut hasher = blake3::Hasher::new();
        while let Some(bytes) = asked.request.body_mut().data().await {
            let bytes = bytes.unwrap();
            asked.request.body_mut().flow_control().release_capacity(bytes.len()).unwrap();
            hasher.update(&bytes);
        }
        if asked.request.uri().path() == "/v1/files" {
            return asked.answer(200, hasher.finalize().to_string());
        }
        let head = http::Response::builder().header("content-length", SIZE).body(()).unwrap();
        let mut sending = asked.respond.send_response(head, false).unwrap();
        for number in 0..BLOCKS {
            let mut bytes = Bytes::from(block(number));
            while !bytes.is_empty() {
                sending.reserve_capacity(bytes.len());
                let granted = std::future::poll_fn(|context| sending.poll_capacity(context)).await.unwrap().unwrap();
                sending.send_data(bytes.split_to(granted.min(bytes.len())), false).unwrap();
            }
        }
        sending.send_data(Bytes::new(), true).unwrap();
    })
    .await;
    let (_folder, process) = serving(&provider.base_url(), "2").await;
    upload(&process).await;
    download(&process).await;
    assert_flat(&process);
}
