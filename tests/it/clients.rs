//! Who may call, how urgently, and where the key that says so ends.

use bytes::Bytes;
use http::Method;
use tidegate::admission::settings::{Client as Known, ClientKey};
use tidegate::config::Settings;
use tidegate::ids::KeyId;
use tidegate::units::{Priority, Secret};

use crate::support::client::post_to;
use crate::support::frames::handshake;
use crate::support::http2_client::{Http2, error_code, request};
use crate::support::process::Process;
use crate::support::proxy::metric;
use crate::support::upstream::fine;
use crate::support::wire::Head;
use crate::support::{Client, Step, Upstream, get, proxy, soon};

use Step::{Read, Send};

const CHAT: &str = "tg-chat-key";
const BATCH: &str = "tg-batch-key";

/// `chat` may be urgent, `batch` never is.
fn two_clients(settings: &mut Settings) {
    let plain = ClientKey::Plain(Secret::new(CHAT.to_owned()));
    let hashed = ClientKey::Blake3(*blake3::hash(BATCH.as_bytes()).as_bytes());
    let chat = Known { class_max: Priority::High, ..Known::new("chat".to_owned(), plain) };
    let low = Priority::Low;
    let batch = Known { class: low, class_max: low, ..Known::new("batch".to_owned(), hashed) };
    settings.clients = vec![chat, batch];
}

fn bearing(key: &str, more: &str) -> Vec<u8> {
    post_to("/v1/chat/completions", &format!("Authorization: Bearer {key}\r\n{more}"), "{\"model\":\"m\"}")
}

fn answers() -> Vec<Step> {
    (0..20).flat_map(|_| [Read, Send(fine())]).collect()
}

/// No part of either key is in what a provider got.
fn assert_without_our_keys(head: &Head) {
    let text = head.text();
    assert!(!text.contains("tg-"), "{text}");
}

#[tokio::test]
async fn key_of_a_client_lets_in_and_never_reaches_a_provider_without_a_key() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(two_clients).start().await;
    let mut upstream = upstream.script([answers()]);
    let mut client = proxy.client().await;
    for fields in [
        format!("Authorization: Bearer {CHAT}\r\n"),
        format!("Authorization: {BATCH}\r\n"),
        format!("x-api-key: {BATCH}\r\n"),
        format!("api-key: {CHAT}\r\nX-Api-Key: {CHAT}\r\n"),
    ] {
        assert_eq!(client.ask(post_to("/v1/chat/completions", &fields, "{}")).await.status(), 200, "{fields}");
        let head = upstream.request().await.head;
        assert_without_our_keys(&head);
        assert!(!head.has("authorization") && !head.has("x-api-key") && !head.has("api-key"));
    }
    // A key for the provider goes on.
    client.ask(bearing("sk-theirs", &format!("x-api-key: {CHAT}\r\n"))).await;
    let head = upstream.request().await.head;
    assert_eq!(head.fields("authorization"), ["Bearer sk-theirs"]);
    assert_without_our_keys(&head);
    proxy.until_metric("tidegate_client_permits_total{client=\"chat\"}", 3.0).await;
    proxy.until_metric("tidegate_client_permits_total{client=\"batch\"}", 2.0).await;
}

#[tokio::test]
async fn provider_with_a_key_of_ours_gets_that_and_nothing_else() {
    let upstream = Upstream::start().await;
    let ours = Secret::new("sk-ours".to_owned());
    let proxy = proxy(&upstream).set(two_clients).provider(|provider| provider.api_keys = vec![ours]).start().await;
    let mut upstream = upstream.script([answers()]);
    proxy.client().await.ask(bearing(CHAT, &format!("x-api-key: {CHAT}\r\n"))).await;
    let head = upstream.request().await.head;
    assert_eq!(head.fields("authorization"), ["Bearer sk-ours"]);
    assert_without_our_keys(&head);
    assert!(!head.has("x-api-key"));
}

#[tokio::test]
async fn stranger_is_refused_and_may_go_on_with_the_right_key() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(two_clients).start().await;
    let mut upstream = upstream.script([answers()]);
    let mut client = proxy.client().await;
    let files = |key: &str| post_to("/v1/files", &format!("Authorization: Bearer {key}\r\n"), vec![b'x'; 60_000]);
    for request in [
        bearing("tg-chat-kez", ""),
        post_to("/v1/chat/completions", "", "{}"),
        get("/v1/models", "Authorization: Basic dGc6a2V5\r\n").into_bytes(),
        files("wrong"),
    ] {
        let told = client.ask(request).await;
        assert_eq!((told.status(), told.error_code().as_str()), (401, "invalid_api_key"));
        assert_eq!(told.head.fields("www-authenticate"), ["Bearer"]);
        assert!(told.head.has("x-tidegate-request-id"));
        let error: serde_json::Value = serde_json::from_str(&told.text()).unwrap();
        assert_eq!(error["error"]["type"], "invalid_request_error");
        assert!(told.text().contains("clients.key") && !told.text().contains("tg-"), "{}", told.text());
    }
    assert_eq!(upstream.unseen(), 0);
    assert_eq!(client.ask(files(CHAT)).await.status(), 200, "on the same connection");
    assert_eq!(upstream.request().await.body.len(), 60_000);
    let sample = "tidegate_calls_total{outcome=\"invalid_api_key\",priority=\"normal\",route=\"other\"}";
    proxy.until_metric(sample, 4.0).await;
}

#[tokio::test]
async fn upload_of_a_stranger_is_neither_invited_nor_read() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(two_clients).start().await;
    for fields in ["Content-Length: 1000000000\r\n", "Content-Length: 10\r\nExpect: 100-continue\r\n"] {
        let mut client = proxy.client().await;
        client.send(format!("POST /v1/files HTTP/1.1\r\nHost: t\r\n{fields}\r\n")).await;
        let told = client.answer().await;
        assert_eq!((told.status(), told.error_code().as_str()), (401, "invalid_api_key"), "{fields}");
        assert!(told.interim.is_empty(), "{fields}");
        client.until_the_end().await;
    }
    // One that never says how long it is, is read for a little while only.
    let mut client = proxy.client().await;
    client.send("POST /v1/files HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let (mut reader, mut writer) = client.split();
    let chunk = [b"4000\r\n".to_vec(), vec![b'x'; 0x4000], b"\r\n".to_vec()].concat();
    let sending = async { while writer.try_send(&chunk).await {} };
    let head = tokio::select! {
        head = reader.head() => head.unwrap(),
        () = sending => panic!("it is told before it is cut"),
    };
    assert_eq!(head.status(), 401);
    assert!(upstream.is_untouched().await);
}

#[tokio::test]
async fn clients_come_over_http2_too() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(two_clients).start().await;
    let mut upstream = upstream.script([answers()]);
    let mut client = Http2::to(proxy.clients).await;
    let ask = |key: &str| {
        let request = request(Method::POST, "/v1/chat/completions").header("authorization", format!("Bearer {key}"));
        request.body(()).unwrap()
    };
    let (status, _, body) = client.send(ask("wrong"), Bytes::from_static(b"{}")).await.whole().await;
    assert_eq!((status.as_u16(), error_code(&body).as_str()), (401, "invalid_api_key"));
    let (status, ..) = client.send(ask(CHAT), Bytes::from_static(b"{}")).await.whole().await;
    assert_eq!(status.as_u16(), 200);
    assert_without_our_keys(&upstream.request().await.head);
    assert_eq!(upstream.unseen(), 0);
}

#[tokio::test]
async fn class_is_the_clients_and_never_above_what_it_may_ask_for() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(two_clients).concurrency(1).start().await;
    let mut holder = proxy.client().await;
    holder.send(bearing(CHAT, "")).await;
    let (_line, _) = upstream.request().await;
    let mut waiting = Vec::new();
    for (key, fields) in [
        (CHAT, "x-tidegate-priority: high\r\n"),
        (CHAT, ""),
        (BATCH, "x-tidegate-priority: high\r\n"),
        (BATCH, "x-tidegate-priority: normal\r\n"),
        (BATCH, ""),
    ] {
        let mut client = proxy.client().await;
        client.send(bearing(key, fields)).await;
        waiting.push(client);
    }
    for (class, calls) in [("high", 1.0), ("normal", 1.0), ("low", 3.0)] {
        proxy.until_metric(&format!("tidegate_queue_depth{{priority=\"{class}\"}}"), calls).await;
    }
}

#[tokio::test]
async fn trusted_gateway_says_for_whom_it_calls() {
    let upstream = Upstream::start().await;
    let trusting = |settings: &mut Settings| {
        two_clients(settings);
        settings.admission.trust_client_header = true;
    };
    let proxy = proxy(&upstream).set(trusting).start().await;
    let mut upstream = upstream.script([answers()]);
    let mut client = proxy.client().await;
    for name in ["chat", "chat", "unheard-of"] {
        client.ask(bearing(BATCH, &format!("x-tidegate-client: {name}\r\n"))).await;
        assert!(!upstream.request().await.head.has("x-tidegate-client"));
    }
    proxy.until_metric("tidegate_client_permits_total{client=\"chat\"}", 2.0).await;
    proxy.until_metric("tidegate_client_permits_total{client=\"other\"}", 1.0).await;
    let told = client.ask(bearing(BATCH, "x-tidegate-client: a b\r\n")).await;
    assert_eq!((told.status(), told.error_code().as_str()), (400, "bad_request"));
    assert!(told.text().contains("x-tidegate-client"), "{}", told.text());
    let told = client.ask(post_to("/v1/chat/completions", "x-tidegate-client: chat\r\n", "{}")).await;
    assert_eq!(told.status(), 401, "a name is no key");
}

#[tokio::test]
async fn browser_names_itself_among_its_subprotocols() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(two_clients).start().await;
    let mut client = proxy.client().await;
    let offered = format!("Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.{CHAT}, beta\r\n");
    client.send(handshake(&offered)).await;
    let (_line, request) = upstream.request().await;
    assert_eq!(request.head.fields("sec-websocket-protocol"), ["realtime, beta"]);
    assert_without_our_keys(&request.head);
    let mut stranger = proxy.client().await;
    let told = stranger.ask(handshake("Sec-WebSocket-Protocol: openai-insecure-api-key.wrong\r\n")).await;
    assert_eq!((told.status(), told.error_code().as_str()), (401, "invalid_api_key"));
}

#[tokio::test]
async fn file_changes_who_may_call_and_no_key_is_ever_logged() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tidegate.toml");
    let write = |key: &str| {
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nstate_dir = {:?}\n\
             [telemetry]\nformat = \"json\"\nlog = \"debug\"\n[[upstreams]]\nbase_url = {:?}\n\
             [[clients]]\nname = \"chat\"\nkey = \"{key}\"\n",
            folder.path().join("state"),
            upstream.base_url(),
        );
        std::fs::write(&config, text).unwrap();
    };
    write("tg-first");
    let mut process = Process::serve(&config).await;
    let mut client = Client::to(process.clients).await;
    let asked = async |client: &mut Client, key: &str| {
        client.send(bearing(key, "")).await;
        client.answer().await.status()
    };
    assert_eq!(asked(&mut client, "tg-second").await, 401);
    let line = process.says("\"invalid_api_key\"").await;
    assert!(!line.contains("tg-"), "{line}");
    client.send(bearing("tg-first", "")).await;
    let (mut line, _) = upstream.request().await;
    line.send(fine()).await;
    assert_eq!(client.answer().await.status(), 200);
    let told = process.says("\"outcome\":\"ok\"").await;
    assert!(told.contains("\"client\":\"chat\"") && !told.contains("tg-"), "{told}");

    write("tg-second");
    process.signal("HUP");
    let told = process.says("settings reloaded").await;
    assert!(!told.contains("tg-"), "{told}");
    assert_eq!(asked(&mut client, "tg-first").await, 401);
    client.send(bearing("tg-second", "")).await;
    line.request().await;
    line.send(fine()).await;
    assert_eq!(client.answer().await.status(), 200);
    assert!(metric(process.admin, "tidegate_client_permits_total{client=\"chat\"}").await >= 1.0);

    let mut operator = Client::to(process.admin).await;
    for path in ["queue", "upstreams", "clients", "config"] {
        let shown = operator.ask(get(&format!("/admin/v1/{path}"), "").replace("Host: tidegate", "Host: localhost"));
        let shown = soon(path, shown).await;
        assert_eq!(shown.status(), 200, "{}", shown.text());
        assert!(!shown.text().contains("tg-"), "{}", shown.text());
        serde_json::from_str::<serde_json::Value>(&shown.text()).unwrap();
    }
    process.signal("TERM");
    let rest = soon("the rest of the log", process.rest_of_log()).await;
    assert!(rest.iter().all(|line| !line.contains("tg-")), "{rest:?}");
}

#[tokio::test]
async fn without_clients_a_key_that_goes_through_tells_who_calls() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tidegate.toml");
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nstate_dir = {:?}\n\
         [telemetry]\nformat = \"json\"\n\
         [[upstreams]]\nname = \"theirs\"\nbase_url = {:?}\nmodels = [\"theirs\"]\n\
         [[upstreams]]\nname = \"ours\"\nbase_url = {:?}\napi_key = \"sk-ours\"\n",
        folder.path().join("state"),
        upstream.base_url(),
        upstream.base_url(),
    );
    std::fs::write(&config, text).unwrap();
    let mut upstream = upstream.script([answers()]);
    let mut process = Process::serve(&config).await;
    let mut client = Client::to(process.clients).await;
    let (one, other) = (KeyId::of("sk-one"), KeyId::of("sk-other"));
    for (model, key, who) in [
        ("theirs", Some("sk-one"), format!("key-{one}")),
        ("theirs", Some("sk-other"), format!("key-{other}")),
        ("theirs", None, "-".to_owned()),
        ("ours", Some("sk-one"), "-".to_owned()),
    ] {
        let bearer = key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
        let told = client.ask(post_to("/v1/chat/completions", &bearer, format!("{{\"model\":{model:?}}}"))).await;
        assert_eq!(told.status(), 200);
        upstream.request().await;
        let line = process.says("\"outcome\"").await;
        assert!(line.contains(&format!("\"client\":{who:?}")) && !line.contains("sk-"), "{line}");
    }
}

#[tokio::test]
async fn calls_of_a_paused_upstream_wait_until_it_goes_on() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let operate = async |verb: &str, name: &str| {
        let request = format!("POST /admin/v1/upstreams/{name}/{verb} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        Client::to(proxy.admin).await.ask(request).await
    };
    let told = operate("pause", "nobody").await;
    assert_eq!((told.status(), told.error_code().as_str()), (404, "not_found"));
    assert!(told.text().contains("there are default"), "{}", told.text());
    assert_eq!(operate("pause", "default").await.status(), 200);
    assert_eq!(operate("pause", "default").await.status(), 200);
    proxy.until_metric("tidegate_paused{upstream=\"default\"}", 1.0).await;
    let mut client = proxy.client().await;
    client.send(post_to("/v1/chat/completions", "", "{\"model\":\"m\"}")).await;
    proxy.until_queued(1).await;
    let queue = Client::to(proxy.admin).await.ask("GET /admin/v1/queue HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let queue: serde_json::Value = serde_json::from_str(&queue.text()).unwrap();
    assert_eq!(queue["calls"][0]["eta_ms"], serde_json::Value::Null, "nobody can tell");
    assert_eq!(queue["calls"][0]["upstreams"][0], "default");
    assert!(upstream.is_untouched().await);
    assert_eq!(operate("resume", "default").await.status(), 200);
    let (mut line, _) = upstream.request().await;
    line.send(fine()).await;
    assert_eq!(client.answer().await.status(), 200);
    proxy.until_metric("tidegate_paused{upstream=\"default\"}", 0.0).await;
}
