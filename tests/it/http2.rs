//! Providers that speak HTTP/2: all that holds with HTTP/1.1 holds with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Method, Version};
use serde_json::Value;
use tidegate::time::Tasks;
use tidegate::upstream::settings::HttpVersion;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_util::sync::CancellationToken;

use crate::support::client::post_to;
use crate::support::frames::{SWITCH, TEXT, close, frame, handshake, masked_close, open};
use crate::support::http2::{Asked, Provider, serve};
use crate::support::process::{Process, tidegate};
use crate::support::proxy::before;
use crate::support::upstream::FINE;
use crate::support::wire::End;
use crate::support::{Client, Proxy, Upstream, get, ms, post, proxy, soon, within};

async fn proxy_to(provider: &Provider) -> Proxy {
    before(&provider.base_url()).concurrency(4).provider(|provider| provider.http = HttpVersion::Http2).start().await
}

fn event(content: &str) -> Bytes {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{content}\"}}}}]}}\n\n").into()
}

const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
const STREAMED: &str = "{\"model\":\"m\",\"stream\":true}";

#[tokio::test]
async fn call_has_an_authority_and_nothing_of_the_clients_hop() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let provider = Provider::start(move |mut asked: Asked| {
        let tell = tell.clone();
        async move {
            let body = asked.body().await;
            asked.answer(200, FINE);
            let (head, _) = asked.request.into_parts();
            tell.send((asked.connection, head, body)).unwrap();
        }
    })
    .await;
    let proxy = proxy_to(&provider).await;
    let mut client = proxy.client().await;
    let fields = "Connection: keep-alive, x-hop\r\nx-hop: 1\r\nTE: trailers\r\nx-mine: a\r\nx-mine: b\r\n";
    for body in ["{\"model\":\"m\"}".to_owned(), format!("{{\"model\":{:?}}}", "m".repeat(300_000))] {
        let seen = client.ask(post_to("/v1/chat/completions?a=b", fields, &body)).await;
        assert_eq!((seen.status(), seen.text().as_str()), (200, FINE));
        let (connection, head, sent) = told.recv().await.unwrap();
        assert_eq!((connection, head.version, head.method), (0, Version::HTTP_2, Method::POST));
        assert_eq!(head.uri, *format!("http://{}/v1/chat/completions?a=b", provider.addr));
        assert!(sent == body.as_bytes());
        assert_eq!(head.headers["content-length"], body.len().to_string().as_str());
        assert_eq!(head.headers.get_all("x-mine").iter().collect::<Vec<_>>(), ["a", "b"]);
        for name in ["host", "connection", "x-hop", "te", "transfer-encoding"] {
            assert!(!head.headers.contains_key(name), "{name}");
        }
    }
    assert_eq!(client.ask(get("/v1/models", "")).await.status(), 200);
    let (_, head, _) = told.recv().await.unwrap();
    assert!(head.method == Method::GET && !head.headers.contains_key("content-length"));
}

#[tokio::test]
async fn stream_passes_event_by_event_and_trailers_do_no_harm() {
    let (events, receiver) = mpsc::unbounded_channel::<Bytes>();
    let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
    let provider = Provider::start(move |mut asked: Asked| {
        let receiver = Arc::clone(&receiver);
        async move {
            asked.body().await;
            let mut sending = asked.begin_stream();
            while let Some(bytes) = receiver.lock().await.recv().await {
                sending.send_data(bytes, false).unwrap();
            }
            let trailers =
                HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), HeaderValue::from_static("1"))]);
            sending.send_trailers(trailers).unwrap();
        }
    })
    .await;
    let proxy = proxy_to(&provider).await;
    let mut client = proxy.client().await;
    client.send(post(STREAMED)).await;
    for content in ["one", "two"] {
        events.send(event(content)).unwrap();
        if content == "one" {
            assert_eq!(client.head().await.status(), 200);
        }
        assert!(client.event().await.unwrap().contains(content));
    }
    events.send(STOP.into()).unwrap();
    drop(events);
    assert!(client.rest().await.unwrap().ends_with("[DONE]\n\n"));
    proxy.until_metric("tidegate_in_flight", 0.0).await;
    proxy.until_metric("tidegate_disconnects_total{phase=\"mid_stream\",upstream=\"default\"}", 0.0).await;
}

#[tokio::test]
async fn upload_streams_under_flow_control() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let provider = Provider::start(move |mut asked: Asked| {
        let tell = tell.clone();
        async move {
            assert!(!asked.request.headers().contains_key("content-length"));
            tell.send(asked.body().await).unwrap();
            asked.answer(200, "{}");
        }
    })
    .await;
    let proxy = proxy_to(&provider).await;
    let mut client = proxy.client().await;
    client.send("POST /v1/files HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let part: Vec<u8> = (0..100_000).map(|at| u8::try_from(at % 251).unwrap()).collect();
    for _ in 0..30 {
        client.send([format!("{:x}\r\n", part.len()).as_bytes(), &part, b"\r\n"].concat()).await;
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), 200);
    assert!(told.recv().await.unwrap() == part.repeat(30));
}

#[tokio::test]
async fn client_that_leaves_resets_its_stream_and_no_other() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let provider = Provider::start(move |mut asked: Asked| {
        let tell = tell.clone();
        async move {
            if asked.body().await != STREAMED.as_bytes() {
                return asked.answer(200, FINE);
            }
            let mut sending = asked.begin_stream();
            sending.send_data(event("one"), false).unwrap();
            let reason = std::future::poll_fn(|context| sending.poll_reset(context)).await;
            tell.send(reason.unwrap()).unwrap();
        }
    })
    .await;
    let proxy = proxy_to(&provider).await;
    let mut client = proxy.client().await;
    client.send(post(STREAMED)).await;
    assert_eq!(client.head().await.status(), 200);
    drop(client);
    assert_eq!(within(ms(1_000), "the stream is reset", told.recv()).await, Some(Reason::CANCEL));
    assert_eq!(proxy.client().await.ask(post("{}")).await.status(), 200);
    assert_eq!(provider.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn refused_stream_is_sent_again_whatever_it_asks_for() {
    let asks = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asks);
    let provider = Provider::start(move |mut asked: Asked| {
        let first = count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
        async move {
            if first {
                asked.respond.send_reset(Reason::REFUSED_STREAM);
            } else {
                asked.answer(200, "{}");
            }
        }
    })
    .await;
    let proxy = proxy_to(&provider).await;
    let mut client = proxy.client().await;
    let delete = "DELETE /v1/files/1 HTTP/1.1\r\nHost: t\r\n\r\n".to_owned();
    for request in [delete.into_bytes(), post("{}")] {
        assert_eq!(client.ask(request).await.status(), 200);
    }
    assert_eq!(asks.load(Ordering::SeqCst), 4);
    // Any other reset may have done the work.
    let provider =
        Provider::start(|mut asked: Asked| async move { asked.respond.send_reset(Reason::INTERNAL_ERROR) }).await;
    let proxy = proxy_to(&provider).await;
    let failed = proxy.client().await.ask("DELETE /v1/files/1 HTTP/1.1\r\nHost: t\r\n\r\n").await;
    assert_eq!((failed.status(), failed.error_code().as_str()), (502, "upstream_disconnected"));
}

/// The connection is alive, and goes on: nothing says that the request did not arrive.
#[tokio::test]
async fn stream_that_is_reset_on_a_connection_that_has_served_is_an_attempt() {
    for reason in [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::PROTOCOL_ERROR] {
        let asks = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asks);
        let provider = Provider::start(move |mut asked: Asked| {
            let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                asked.body().await;
                if is_first {
                    asked.answer(200, FINE);
                } else {
                    asked.respond.send_reset(reason);
                }
            }
        })
        .await;
        let proxy = before(&provider.base_url())
            .provider(|provider| provider.http = HttpVersion::Http2)
            .set(|settings| settings.retry.attempts_max = std::num::NonZeroU32::MIN)
            .start()
            .await;
        let mut client = proxy.client().await;
        assert_eq!(client.ask(post("{}")).await.status(), 200);
        let failed = client.ask(post("{}")).await;
        assert_eq!((failed.status(), failed.error_code().as_str()), (502, "upstream_disconnected"), "{reason}");
        assert_eq!(asks.load(Ordering::SeqCst), 2, "{reason}");
        assert_eq!(provider.connections.load(Ordering::SeqCst), 1, "{reason}");
    }
}

#[tokio::test]
async fn goaway_sends_what_was_not_touched_to_another_connection() {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let tasks = Tasks::default();
    let spawner = tasks.clone();
    let provider = tasks.spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        first.write_all(&SETTINGS).await.unwrap();
        let mut seen = Vec::new();
        // Until the head of a request: a frame of type 1 after the preface.
        while !seen.windows(5).any(|bytes| bytes[0] == 0 && bytes[3] == 1 && bytes[4] & 4 == 4) {
            assert!(first.read_buf(&mut seen).await.unwrap() > 0);
        }
        first.write_all(&GOAWAY).await.unwrap();
        let (second, _) = listener.accept().await.unwrap();
        let answer = |mut asked: Asked| async move { asked.answer(200, "{}") };
        serve(second, 1, answer, spawner).await;
    });
    let proxy = before(&url).provider(|provider| provider.http = HttpVersion::Http2).start().await;
    let seen = proxy.client().await.ask("DELETE /v1/files/1 HTTP/1.1\r\nHost: t\r\n\r\n").await;
    assert_eq!(seen.status(), 200);
    provider.abort();
}

#[tokio::test]
async fn stream_that_ends_without_its_end_is_broken() {
    for reason in [Reason::INTERNAL_ERROR, Reason::NO_ERROR] {
        let arrived = Arc::new(tokio::sync::Notify::new());
        let wait = Arc::clone(&arrived);
        let provider = Provider::start(move |mut asked: Asked| {
            let wait = Arc::clone(&wait);
            async move {
                asked.body().await;
                let mut sending = asked.begin_stream();
                sending.send_data(event("one"), false).unwrap();
                wait.notified().await;
                sending.send_reset(reason);
            }
        })
        .await;
        let proxy = proxy_to(&provider).await;
        let mut client = proxy.client().await;
        client.send(post(STREAMED)).await;
        assert_eq!(client.head().await.status(), 200);
        assert!(client.event().await.unwrap().contains("one"));
        arrived.notify_one();
        let seen = client.rest().await.unwrap();
        assert!(seen.contains("upstream_disconnected"), "{seen}");
    }
}

#[tokio::test]
async fn connection_that_is_lost_breaks_its_streams_and_what_has_not_begun_is_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let (tasks, killed) = (Tasks::default(), Arc::new(tokio::sync::Notify::new()));
    let (spawner, kill) = (tasks.clone(), Arc::clone(&killed));
    let (tell, mut told) = mpsc::unbounded_channel();
    let provider = tasks.spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let tell = tell.clone();
            let handle = move |mut asked: Asked| {
                let tell = tell.clone();
                async move {
                    if asked.body().await == STREAMED.as_bytes() {
                        let mut sending = asked.begin_stream();
                        sending.send_data(event("one"), false).unwrap();
                        std::future::pending::<()>().await;
                    }
                    tell.send(asked.connection).unwrap();
                    if asked.connection > 0 {
                        return asked.answer(200, FINE);
                    }
                    std::future::pending().await
                }
            };
            tokio::select! {
                () = serve(stream, number, handle, spawner.clone()) => {}
                () = kill.notified() => {}
            }
        }
    });
    let proxy = before(&url).provider(|provider| provider.http = HttpVersion::Http2).start().await;
    let (mut streaming, mut waiting) = (proxy.client().await, proxy.client().await);
    streaming.send(post(STREAMED)).await;
    assert_eq!(streaming.head().await.status(), 200);
    assert!(streaming.event().await.unwrap().contains("one"));
    waiting.send(post("{}")).await;
    assert_eq!(told.recv().await, Some(0));
    killed.notify_one();
    let seen = streaming.rest().await.unwrap();
    assert!(seen.contains("upstream_disconnected"), "{seen}");
    assert_eq!(waiting.answer().await.status(), 200);
    assert_eq!(told.recv().await, Some(1));
    provider.abort();
}

/// Longer than a connection may have been dead in the pool.
const LONG_ALIVE: Duration = Duration::from_millis(1_100);

#[tokio::test]
async fn connection_that_is_lost_with_many_calls_is_one_fault() {
    let (upstream, _proxy, clients) = lose_four_calls(Ending::OfConnection).await;
    assert_eq!(
        (&upstream["breaker"]["failures"], &upstream["limit_signals_total"]),
        (&1.into(), &0.into()),
        "{upstream}"
    );
    for mut client in clients {
        assert_eq!(client.answer().await.status(), 200);
    }
    // A provider that resets one stream after the other is at fault, or limits us, each time.
    let (upstream, ..) = lose_four_calls(Ending::OfEachStream).await;
    assert_eq!(upstream["breaker"]["failures"], 4, "{upstream}");
    assert!(upstream["limit_signals_total"].as_u64() > Some(0), "{upstream}");
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Ending {
    OfConnection,
    OfEachStream,
}

/// Four calls wait for their answers on one connection, which ends. What operators see of the upstream then, and those
/// whose calls are answered from now on.
async fn lose_four_calls(ending: Ending) -> (Value, Proxy, Vec<Client>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let (tasks, kill) = (Tasks::default(), CancellationToken::new());
    let (spawner, killed) = (tasks.clone(), kill.clone());
    let (tell, mut told) = mpsc::unbounded_channel();
    let answer = CancellationToken::new();
    let may_answer = answer.clone();
    tasks.spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let (tell, may_answer, reset) = (tell.clone(), may_answer.clone(), killed.clone());
            let handle = move |mut asked: Asked| {
                let (tell, may_answer, reset) = (tell.clone(), may_answer.clone(), reset.clone());
                async move {
                    asked.body().await;
                    let _gone = tell.send(asked.connection);
                    if asked.connection == 0 {
                        reset.cancelled().await;
                        if ending == Ending::OfConnection {
                            std::future::pending::<()>().await;
                        }
                        return asked.respond.send_reset(Reason::INTERNAL_ERROR);
                    }
                    may_answer.cancelled().await;
                    asked.answer(200, FINE);
                }
            };
            let serving = serve(stream, number, handle, spawner.clone());
            let ends = (number == 0 && ending == Ending::OfConnection).then(|| killed.clone());
            spawner.spawn(async move {
                match ends {
                    Some(ends) => drop(ends.run_until_cancelled(serving).await),
                    None => serving.await,
                }
            });
        }
    });
    let proxy = before(&url).provider(|provider| provider.http = HttpVersion::Http2).start().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = proxy.client().await;
        client.send(post("{}")).await;
        assert_eq!(told.recv().await, Some(0), "one connection carries them all");
        clients.push(client);
    }
    tokio::time::sleep(LONG_ALIVE).await;
    kill.cancel();
    proxy.until_metric("tidegate_disconnects_total{phase=\"before_head\",upstream=\"default\"}", 4.0).await;
    let seen = Client::to(proxy.admin).await.ask("GET /admin/v1/upstreams HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let seen: Value = serde_json::from_str(&seen.text()).unwrap();
    answer.cancel();
    (seen["upstreams"][0].clone(), proxy, clients)
}

#[tokio::test]
async fn body_that_is_not_as_long_as_it_says_is_no_answer() {
    let asks = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asks);
    let provider = Provider::start(move |mut asked: Asked| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        async move {
            let told = [9, 3, 2][number.min(2)];
            let head =
                http::Response::builder().header("content-length", told).header("content-type", "application/json");
            let mut sending = asked.respond.send_response(head.body(()).unwrap(), false).unwrap();
            sending.send_data("{}".into(), true).unwrap();
        }
    })
    .await;
    let proxy = proxy_to(&provider).await;
    let seen = proxy.client().await.ask(post("{}")).await;
    assert_eq!((seen.status(), seen.text().as_str(), asks.load(Ordering::SeqCst)), (200, "{}", 3));
}

#[tokio::test]
async fn refusal_of_an_upload_is_delivered_before_its_end() {
    let provider = Provider::start(|mut asked: Asked| async move {
        // One piece is read, if there is any, and then no more.
        drop(asked.request.body_mut().data().await);
        asked.answer(413, "{\"error\":\"too large\"}");
    })
    .await;
    let proxy = proxy_to(&provider).await;
    let (mut reader, mut writer) = proxy.client().await.split();
    writer.send("POST /v1/files HTTP/1.1\r\nHost: t\r\nContent-Length: 1073741824\r\n\r\n").await;
    let upload = async {
        while writer.try_send(&[7; 65_536]).await {}
        std::future::pending::<()>().await;
    };
    let answer = async {
        let head = reader.head().await.unwrap();
        (head.status(), reader.body(&head, true).await.unwrap().bytes)
    };
    let (status, body) = tokio::select! {
        answer = within(ms(3_000), "the answer", answer) => answer,
        () = upload => unreachable!(),
    };
    assert_eq!((status, body), (413, b"{\"error\":\"too large\"}".to_vec()));
    assert_eq!(proxy.client().await.ask(get("/v1/models", "")).await.status(), 413);
}

#[tokio::test]
async fn websocket_takes_http1_all_the_same() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).provider(|provider| provider.http = HttpVersion::Http2).start().await;
    let (mut client, mut line) = open(&proxy, &upstream).await;
    line.send(frame(TEXT, "hello")).await;
    assert_eq!(client.reader().exactly(7).await.unwrap(), frame(TEXT, "hello"));
}

#[tokio::test]
async fn tls_agrees_on_http2_by_alpn_where_settings_allow_it() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (port, mut versions) = tls_provider(&certified).await;
    let folder = tempfile::tempdir().unwrap();
    let trusted = folder.path().join("trusted.pem");
    std::fs::write(&trusted, certified.cert.pem()).unwrap();
    for (http, version) in [("auto", "h2"), ("2", "h2"), ("1.1", "http/1.1")] {
        let config = folder.path().join("tidegate.toml");
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nstate_dir = {:?}\n\
             [telemetry]\nformat = \"json\"\n\
             [[upstreams]]\nhttp = {http:?}\nbase_url = \"https://localhost:{port}/v1\"\n",
            folder.path().join(format!("state-{http}"))
        );
        std::fs::write(&config, text).unwrap();
        let mut command = tidegate(&["serve", "--config", config.to_str().unwrap()]);
        command.env("SSL_CERT_FILE", &trusted).env_remove("SSL_CERT_DIR");
        let process = Process::spawn(command).await;
        let mut client = Client::to(process.clients).await;
        let seen = client.ask(post("{}")).await;
        assert_eq!((seen.status(), seen.text().as_str()), (200, FINE), "{http}");
        assert_eq!(versions.recv().await.unwrap(), version, "{http}");
        // A WebSocket takes HTTP/1.1 whatever they agreed on.
        client.send(handshake("")).await;
        assert_eq!(client.reader().head().await.unwrap().status(), 101);
        client.send(masked_close(1000, "")).await;
        assert_eq!(client.until_the_end().await, (close(1000, ""), End::Fin), "{http}");
        assert_eq!(versions.recv().await.unwrap(), "http/1.1", "{http}");
    }
}

/// Speaks TLS on a port, and either protocol on that; tells which was agreed on.
async fn tls_provider(certified: &rcgen::CertifiedKey<rcgen::KeyPair>) -> (u16, mpsc::UnboundedReceiver<String>) {
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let chain = vec![certified.cert.der().clone()];
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = mpsc::unbounded_channel();
    let tasks = Tasks::default();
    tasks.clone().spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let agreed = stream.get_ref().1.alpn_protocol().unwrap_or_default().to_vec();
            tell.send(String::from_utf8(agreed.clone()).unwrap()).unwrap();
            let spawner = tasks.clone();
            tasks.spawn(async move {
                if agreed == b"h2" {
                    let answer = |mut asked: Asked| async move {
                        asked.body().await;
                        asked.answer(200, FINE);
                    };
                    return serve(stream, 0, answer, spawner).await;
                }
                let mut reader = crate::support::wire::Reader::new(stream);
                while let Ok(head) = reader.head().await {
                    if head.has("upgrade") {
                        reader.stream.write_all(SWITCH.as_bytes()).await.unwrap();
                        assert_eq!(reader.exactly(8).await.unwrap(), masked_close(1000, ""));
                        reader.stream.write_all(&close(1000, "")).await.unwrap();
                        return reader.stream.shutdown().await.unwrap();
                    }
                    reader.body(&head, false).await.unwrap();
                    soon("the proxy reads", reader.stream.write_all(&crate::support::upstream::fine())).await.unwrap();
                    reader.stream.flush().await.unwrap();
                }
            });
        }
    });
    (port, told)
}
