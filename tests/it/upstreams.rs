//! Where a call goes, with which key, over which transport.

use std::num::NonZeroU32;
use std::sync::Arc;

use tidegate::time::Tasks;
use tidegate::units::Secret;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::support::client::post_to;
use crate::support::process::{Process, tidegate};
use crate::support::proxy::before;
use crate::support::upstream::{FINE, STREAM, chunk, event, fine, finish, json};
use crate::support::wire::Reader;
use crate::support::{Client, Step, Upstream, get, ms, post, proxy, soon};

use Step::{Read, Send};

/// A provider that answers everything with its name.
async fn named(name: &str) -> crate::support::upstream::Scripted {
    let upstream = Upstream::start().await;
    upstream.script([(0..20).flat_map(|_| [Read, Send(json(&format!("{name:?}")))]).collect()])
}

#[tokio::test]
async fn model_decides_where_a_call_goes() {
    let (llamas, rest) = (named("llamas").await, named("rest").await);
    let globs = |globs: &[&str]| globs.iter().map(|glob| tidegate::upstream::settings::ModelGlob::new(*glob)).collect();
    let proxy = before(&format!("http://{}", llamas.addr))
        .provider(|provider| provider.models = globs(&["meta/*", "llama-3"]))
        .upstream("rest", &format!("http://{}", rest.addr), |provider| provider.models = globs(&["gpt-*", "o?"]))
        .start()
        .await;
    let mut client = proxy.client().await;
    for (model, name) in [("meta/llama-4", "default"), ("llama-3", "default"), ("gpt-5", "rest"), ("meta/", "default")]
    {
        let seen = client.ask(post(format!("{{\"model\":\"{model}\"}}"))).await;
        assert_eq!(seen.head.field("x-tidegate-upstream").as_deref(), Some(name), "{model}");
    }
    for body in ["{\"model\":\"llama-33\"}", "{\"model\":\"claude\"}", "{\"model\":\"GPT-5\"}"] {
        let refused = client.ask(post(body)).await;
        assert_eq!((refused.status(), refused.error_code().as_str()), (404, "model_not_found"), "{body}");
        assert!(refused.text().contains("upstreams.models"), "{}", refused.text());
    }
}

/// Paths that only resemble ours are counted by the same limit: reserved before, settled by what the answer says.
#[tokio::test]
async fn tokens_of_calls_by_other_paths_count_too() {
    const USED: &str = r#"{"prompt_tokens":10,"completion_tokens":90,"total_tokens":100}"#;
    let plain = json(&format!(r#"{{"choices":[],"usage":{USED}}}"#));
    let usage = chunk(&format!("data: {{\"choices\":[],\"usage\":{USED}}}\n\n"));
    let stream = [STREAM, &event("a"), &usage, &finish()].concat().into_bytes();
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream)
        .provider(|provider| {
            provider.limits.tokens_per_minute = NonZeroU32::new(5_000);
        })
        .start()
        .await;
    let _script = upstream.script([vec![Read, Send(plain.clone()), Read, Send(stream), Read, Send(plain)]]);
    let mut client = proxy.client().await;
    let left =
        |head: &crate::support::wire::Head| head.field("x-ratelimit-remaining-tokens").unwrap().parse::<u32>().unwrap();
    for path in
        ["/chat/completions", "/openai/deployments/x/chat/completions?api-version=1", "/v1beta/openai/chat/completions"]
    {
        let seen = client.ask(post_to(path, "", "{}")).await;
        assert_eq!(seen.status(), 200);
        // So much of it is set aside for an answer that nobody knows: two at a time would be too many.
        assert!((1..1_000).contains(&left(&seen.head)), "{path}: {}", left(&seen.head));
    }
}

#[tokio::test]
async fn each_key_has_its_own_allowance_and_its_authorization() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream)
        .requests(1, ms(60_000))
        .provider(|provider| provider.api_keys = vec![Secret::new("key-1".to_owned()), Secret::new("key-2".to_owned())])
        .start()
        .await;
    let mut upstream = upstream.script([(0..9).flat_map(|_| [Read, Send(fine())]).collect()]);
    let mut client = proxy.client().await;
    let theirs = post_to("/v1/chat/completions", "Authorization: Bearer theirs\r\n", "{}");
    for _ in 0..2 {
        assert_eq!(client.ask(&theirs).await.status(), 200);
    }
    let mut used =
        [upstream.request().await, upstream.request().await].map(|request| request.head.fields("authorization"));
    used.sort();
    assert_eq!(used, [["Bearer key-1"], ["Bearer key-2"]]);
    // Both allowances are spent.
    client.send(&theirs).await;
    proxy.until_queued(1).await;
    assert_eq!(upstream.unseen(), 0);
}

/// Of two keys one was revoked: clients see nothing of it, and after the first call nobody pays for it either.
#[tokio::test]
async fn key_that_the_provider_does_not_know_is_set_aside() {
    let upstream = Upstream::start().await;
    let keys = ["revoked", "good"].map(|key| Secret::new(key.to_owned())).to_vec();
    let proxy = proxy(&upstream).concurrency(2).provider(|provider| provider.api_keys = keys).start().await;
    let (mut unknown, mut served) = (0, 0);
    let mut lines = Vec::new();
    for _ in 0..3 {
        let mut client = proxy.client().await;
        client.send(post(r#"{"model":"m"}"#)).await;
        loop {
            let (mut line, request) = upstream.request().await;
            if request.head.field("authorization").as_deref() == Some("Bearer revoked") {
                line.send(crate::support::upstream::answer("401 Unauthorized", "Connection: close\r\n", "who?")).await;
                unknown += 1;
                continue;
            }
            let close = "Content-Type: application/json\r\nConnection: close\r\n";
            line.send(crate::support::upstream::answer("200 OK", close, FINE)).await;
            lines.push(line);
            break;
        }
        assert_eq!(client.answer().await.status(), 200);
        served += 1;
    }
    assert_eq!((unknown, served), (1, 3));
}

/// Where no key is known there is nobody else to ask, and nobody waits for one.
#[tokio::test]
async fn where_no_key_is_known_the_client_is_told_so_at_once() {
    let upstream = Upstream::start().await;
    let keys = ["a", "b"].map(|key| Secret::new(key.to_owned())).to_vec();
    let proxy = proxy(&upstream).concurrency(2).provider(|provider| provider.api_keys = keys).start().await;
    let refusal = crate::support::upstream::answer("401 Unauthorized", "", "who?");
    let mut upstream = upstream.script([(0..8).flat_map(|_| [Read, Send(refusal.clone())]).collect()]);
    for _ in 0..3 {
        let seen = proxy.client().await.ask(post(r#"{"model":"m"}"#)).await;
        assert_eq!((seen.status(), seen.text().as_str()), (401, "who?"));
    }
    assert!(upstream.unseen() <= 4);
}

#[tokio::test]
async fn when_one_upstream_fails_the_call_goes_on_at_the_next() {
    let (first, second) = (Upstream::start().await, named("second").await);
    let slow = |settings: &mut tidegate::config::Settings| settings.retry.base = std::time::Duration::from_secs(60);
    let proxy = proxy(&first).set(slow).upstream("second", &format!("http://{}", second.addr), |_| {}).start().await;
    let failing = crate::support::upstream::answer("503 Service Unavailable", "Connection: close\r\n", "{}");
    let mut first = first.script([vec![Read, Send(failing), Step::Fin], vec![Read, Step::Reset]]);
    for _ in 0..2 {
        let seen = proxy.client().await.ask(post(r#"{"model":"m"}"#)).await;
        assert_eq!(seen.head.field("x-tidegate-upstream").as_deref(), Some("second"));
        assert_eq!((seen.status(), seen.head.fields("x-tidegate-attempts")), (200, vec!["2".to_owned()]));
    }
    assert_eq!(first.unseen(), 2);
}

/// What one upstream says of when to come back is no reason to stay away from the other.
#[tokio::test]
async fn while_a_call_backs_off_from_one_upstream_the_other_may_have_room() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let proxy = proxy(&first)
        .upstream("second", &second.base_url(), |provider| {
            provider.limits.concurrency = Some(NonZeroU32::MIN);
        })
        .start()
        .await;
    let failing = crate::support::upstream::answer("503 Service Unavailable", "Retry-After: 30\r\n", "{}");
    let mut first = first.script([(0..4).flat_map(|_| [Read, Send(failing.clone())]).collect()]);
    let mut busy = proxy.client().await;
    busy.send(post(r#"{"model":"m"}"#)).await;
    let (mut line, _) = second.request().await;
    let call = post_to("/v1/chat/completions", "x-tidegate-deadline-ms: 5000\r\n", r#"{"model":"m"}"#);
    let mut waiting = proxy.client().await;
    waiting.send(call).await;
    proxy.until_queued(1).await;
    line.send(fine()).await;
    let mut line = second.request_on_any(line).await;
    line.send(fine()).await;
    for client in [&mut busy, &mut waiting] {
        let seen = client.answer().await;
        assert_eq!((seen.status(), seen.head.field("x-tidegate-upstream").as_deref()), (200, Some("second")));
    }
    assert_eq!(first.unseen(), 2);
}

#[tokio::test]
async fn authorization_of_the_client_passes_where_there_is_no_key() {
    let mut upstream = named("a").await;
    let proxy = before(&format!("http://{}", upstream.addr)).start().await;
    let mut client = proxy.client().await;
    client.ask(post_to("/v1/chat/completions", "Authorization: Bearer theirs\r\n", "{}")).await;
    assert_eq!(upstream.request().await.head.fields("authorization"), ["Bearer theirs"]);
    client.ask(post("{}")).await;
    assert!(!upstream.request().await.head.has("authorization"));
}

#[tokio::test]
async fn exempt_routes_take_no_permit() {
    let upstream = Upstream::start().await;
    let exempt = |provider: &mut tidegate::upstream::settings::Upstream| {
        provider.exempt = vec!["GET /v1/models".parse().unwrap()];
        provider.limits.concurrency = NonZeroU32::new(1);
    };
    let proxy = proxy(&upstream).requests(1, ms(60_000)).provider(exempt).start().await;
    let mut holder = proxy.client().await;
    holder.send(post("{}")).await;
    let (mut line, _) = upstream.request().await;
    let mut upstream = upstream.script([(0..9).flat_map(|_| [Read, Send(json("[]"))]).collect()]);
    let mut client = proxy.client().await;
    for target in ["/v1/models", "/v1/models?limit=1", "/v1/models"] {
        assert_eq!(client.ask(get(target, "")).await.status(), 200);
        upstream.request().await;
    }
    client.send(get("/v1/models/m", "")).await;
    proxy.until_queued(1).await;
    line.send(fine()).await;
    assert_eq!(holder.answer().await.status(), 200);
    assert_eq!(upstream.unseen(), 0, "only the route that is named is exempt");
}

#[tokio::test]
async fn paths_map_to_base_url_and_all_else_to_the_origin() {
    for (base, asked, goes_to) in [
        ("", "/v1/models", "/v1/models"),
        ("/", "/v1/models", "/v1/models"),
        ("/v1", "/v1/chat/completions?a=/v1/", "/v1/chat/completions?a=/v1/"),
        ("/v1/", "/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/api/openai", "/v1/models", "/api/openai/models"),
        ("/api/openai", "/health?x=1", "/health?x=1"),
        ("/api/openai", "/v1beta/models", "/v1beta/models"),
    ] {
        let mut upstream = named("a").await;
        let proxy = before(&format!("http://{}{base}", upstream.addr)).start().await;
        proxy.client().await.ask(format!("POST {asked} HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n")).await;
        let request = upstream.request().await;
        assert_eq!(request.head.first_line(), format!("POST {goes_to} HTTP/1.1"), "{base:?}");
    }
}

#[tokio::test]
async fn upstream_with_a_name_is_looked_up() {
    let mut upstream = named("a").await;
    let port = upstream.addr.port();
    let proxy = before(&format!("http://localhost:{port}/v1")).start().await;
    let mut client = proxy.client().await;
    for request in [post("{}"), post_to("/v1/files", "", "upload"), get("/v1/models", "").into_bytes()] {
        assert_eq!(client.ask(request).await.status(), 200);
        assert_eq!(upstream.request().await.head.fields("host"), [format!("localhost:{port}")]);
    }
}

#[tokio::test]
async fn upstream_with_tls_is_trusted_as_ssl_cert_file_says_and_not_otherwise() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let port = tls_upstream(&certified).await;
    let folder = tempfile::tempdir().unwrap();
    let (trusted, untrusted) = (folder.path().join("trusted.pem"), folder.path().join("other.pem"));
    std::fs::write(&trusted, certified.cert.pem()).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&untrusted, other.cert.pem()).unwrap();
    for (roots, status) in [(&trusted, 200), (&untrusted, 503)] {
        let config = folder.path().join("tidegate.toml");
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nstate_dir = {:?}\n\
             [retry]\nattempts_max = 2\nbase = \"10ms\"\n[telemetry]\nformat = \"json\"\n\
             [[upstreams]]\nbase_url = \"https://localhost:{port}/v1\"\n",
            folder.path().join("state")
        );
        std::fs::write(&config, text).unwrap();
        let mut command = tidegate(&["serve", "--config", config.to_str().unwrap()]);
        command.env("SSL_CERT_FILE", roots).env_remove("SSL_CERT_DIR");
        let process = Process::spawn(command).await;
        let mut client = Client::to(process.clients).await;
        for _ in 0..2 {
            let seen = client.ask(post("{}")).await;
            assert_eq!(seen.status(), status, "{}", seen.text());
            assert!(if status == 200 { seen.text() == FINE } else { seen.error_code() == "upstream_unavailable" });
        }
    }
}

/// Speaks TLS on a port, and answers everything with `fine`.
async fn tls_upstream(certified: &rcgen::CertifiedKey<rcgen::KeyPair>) -> u16 {
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let chain = vec![certified.cert.der().clone()];
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tasks = Tasks::default();
    tasks.clone().spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tasks.spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let mut reader = Reader::new(stream);
                while let Ok(head) = reader.head().await {
                    assert_eq!(head.fields("host"), [format!("localhost:{port}")]);
                    reader.body(&head, false).await.unwrap();
                    soon("the proxy reads", reader.stream.write_all(&fine())).await.unwrap();
                    reader.stream.flush().await.unwrap();
                }
            });
        }
    });
    port
}
