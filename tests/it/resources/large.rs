//! Bodies of any size with flat memory, byte for byte.

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::provider::received;
use super::{House, MIB, Noise, Provider, memory, served_all_along, tell};
use crate::support::http2_client::{Http2, request};
use crate::support::process::Process;
use crate::support::{Client, get, ms};

const RESIDENT_MAX: u64 = 100 * MIB;

async fn upload(process: &Process, length: u64) {
    let mut client = Client::to(process.clients).await;
    let head = format!("POST /v1/files HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n");
    client.send(head).await;
    let mut noise = Noise::new(length);
    while let Some(bytes) = noise.next() {
        client.reader().stream.write_all(&bytes).await.expect("the proxy reads");
    }
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text()), (200, received(length, &Noise::new(length).hash())));
}

async fn download(process: &Process, length: u64) {
    let mut client = Client::to(process.clients).await;
    client.send(get(&format!("/v1/files/{length}"), "")).await;
    let head = client.head().await;
    assert_eq!(head.field("content-length"), Some(length.to_string()));
    let reader = client.reader();
    let begun = reader.exactly(reader.unread().len()).await.unwrap();
    let (mut hasher, mut left, mut buffer) = (blake3::Hasher::new(), length - begun.len() as u64, vec![0; 256 << 10]);
    hasher.update(&begun);
    while left > 0 {
        let read = reader.stream.read(&mut buffer).await.expect("the proxy sends");
        assert!(read > 0, "{left} bytes are missing");
        hasher.update(&buffer[..read]);
        left -= read as u64;
    }
    assert_eq!(hasher.finalize(), Noise::new(length).hash());
}

async fn upload_over_http_2(process: &Process, length: u64) {
    let target = request(Method::POST, "/v1/files").header("content-length", length).body(()).unwrap();
    let mut client = Http2::to(process.clients).await;
    let mut sending = client.begin(target, false).await;
    let mut noise = Noise::new(length);
    while let Some(bytes) = noise.next() {
        sending.send(bytes, false).await.expect("the proxy reads");
    }
    sending.send(bytes::Bytes::new(), true).await.expect("the proxy reads");
    let (status, _, body) = sending.whole().await;
    assert_eq!(status, 200);
    assert_eq!(String::from_utf8(body).unwrap(), received(length, &Noise::new(length).hash()));
}

async fn download_over_http_2(process: &Process, length: u64) {
    let mut client = Http2::to(process.clients).await;
    let mut coming = client
        .begin(crate::support::http2_client::get(&format!("/v1/files/{length}")), true)
        .await
        .answer()
        .await
        .unwrap();
    let (mut hasher, mut seen) = (blake3::Hasher::new(), 0);
    while let Some(bytes) = coming.next().await {
        let bytes = bytes.expect("a sound stream");
        hasher.update(&bytes);
        seen += bytes.len() as u64;
    }
    assert_eq!((seen, hasher.finalize()), (length, Noise::new(length).hash()));
}

/// Carries so much both ways at the same time, with others served meanwhile.
async fn carries(http_1: u64, http_2: u64) {
    let (provider, house) = (Provider::start(ms(0)).await, House::new());
    let process = house.serve(&provider.base_url, "", "").await;
    let begun = tidegate::time::now();
    let say = |what: &str| {
        tell(format_args!(
            "{what}: {:?} since the start, VmHWM {} MiB",
            begun.elapsed(),
            memory(&process, "VmHWM") / MIB
        ));
    };
    served_all_along(&process, async { upload(&process, http_1).await }).await;
    say("upload over HTTP/1.1");
    served_all_along(&process, async { download(&process, http_1).await }).await;
    say("download over HTTP/1.1");
    let both = async { tokio::join!(upload_over_http_2(&process, http_2), download_over_http_2(&process, http_2)) };
    served_all_along(&process, both).await;
    say("both over HTTP/2");
    let resident = memory(&process, "VmHWM");
    assert!(resident < RESIDENT_MAX, "{} MiB", resident / MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_1_gib_go_through_byte_for_byte_with_flat_memory() {
    carries(1024 * MIB, 256 * MIB).await;
}
