//! TLS on the client port.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{CHAT, House, Wire, bare};
use crate::support::process::run;
use crate::support::tls::Certificate;
use crate::support::upstream::{FINE, fine};
use crate::support::wire::{End, Reader};
use crate::support::{Step, Upstream, get, ms, post, proxy, soon, within};

use Step::{Read, Send};

/// It binds those, too, who do as they should.
const LIMIT: u64 = 1_500;

async fn house() -> (House, crate::support::upstream::Scripted) {
    let upstream = Upstream::start().await;
    let builder = proxy(&upstream).set(|settings| settings.server.header_timeout = ms(LIMIT));
    let house = Wire::Tls.proxy(builder).await;
    let forever = (0..50).flat_map(|_| [Read, Send(fine())]).collect();
    (house, upstream.script([forever]))
}

impl House {
    async fn secure(
        &self,
        protocols: &[&str],
    ) -> std::io::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
        self.certificate.as_ref().expect("TLS").connect(self.proxy.clients, protocols).await
    }
}

#[tokio::test]
async fn client_of_http_1_is_served_with_and_without_a_negotiation() {
    let (house, _upstream) = house().await;
    for (offered, agreed) in [(&["http/1.1"][..], Some(&b"http/1.1"[..])), (&[], None)] {
        let mut stream = house.secure(offered).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed);
        for request in [post(CHAT), get("/v1/models", "").into_bytes(), post(CHAT)] {
            stream.write_all(&request).await.unwrap();
            stream.flush().await.unwrap();
            let mut reader = Reader::new(&mut stream);
            let head = reader.head().await.unwrap();
            assert_eq!(
                (head.status(), reader.body(&head, true).await.unwrap().bytes.as_slice()),
                (200, FINE.as_bytes())
            );
        }
    }
}

#[tokio::test]
async fn client_that_offers_only_what_nobody_speaks_is_refused() {
    let (house, _upstream) = house().await;
    assert!(house.secure(&["spdy/3"]).await.is_err());
    assert!(house.secure(&["spdy/3", "http/1.1"]).await.is_ok());
}

#[tokio::test]
async fn answer_that_ends_with_its_connection_ends_with_close_notify() {
    let (house, _upstream) = house().await;
    for request in [
        "POST /v1/chat/completions HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
        get("/v1/models", "Connection: close\r\n"),
    ] {
        let mut stream = house.secure(&["http/1.1"]).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        // rustls calls an end without it an error.
        soon("the end", stream.read_to_end(&mut bytes)).await.expect("close_notify");
        assert!(bytes.ends_with(FINE.as_bytes()));
    }
    // An idle connection that we close is closed properly, too.
    let mut stream = house.secure(&["http/1.1"]).await.unwrap();
    soon("the end", stream.read_to_end(&mut Vec::new())).await.expect("close_notify");
}

#[tokio::test]
async fn plain_http_is_told_to_use_https() {
    let (house, mut upstream) = house().await;
    for request in [post(CHAT), get("/v1/models", "").into_bytes(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()] {
        let answer = house.proxy.client().await.ask(request).await;
        assert_eq!((answer.status(), answer.error_code().as_str()), (400, "bad_request"));
        assert!(answer.text().contains("https") && answer.text().contains("server.tls"), "{}", answer.text());
    }
    assert_eq!(upstream.unseen(), 0);
}

#[tokio::test]
async fn stalled_handshakes_and_garbage_are_closed_and_others_are_served_meanwhile() {
    let (house, _upstream) = house().await;
    let begun_hello = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00][..];
    for (begun, at_least) in
        [(&b""[..], LIMIT - 50), (&[0x16], LIMIT - 50), (begun_hello, LIMIT - 50), (&[0; 100], 0), (&[0xff; 100], 0)]
    {
        let since = tidegate::time::now();
        let mut stream = bare(&house.proxy).await;
        stream.write_all(begun).await.unwrap();
        let mut secure = house.secure(&["http/1.1"]).await.unwrap();
        secure.write_all(&post(CHAT)).await.unwrap();
        assert_eq!(Reader::new(&mut secure).head().await.unwrap().status(), 200);
        within(ms(4_000), &format!("{begun:?} is closed"), Reader::new(stream).until_the_end()).await;
        assert!(since.elapsed() >= ms(at_least), "{begun:?}: {:?}", since.elapsed());
    }
    house.proxy.until_metric("tidegate_connections", 0.0).await;
}

#[tokio::test]
async fn handshake_that_stalls_makes_room_for_who_needs_it() {
    let upstream = Upstream::start().await;
    let house = Wire::Tls.proxy(proxy(&upstream).set(|settings| settings.server.connections_max = 1)).await;
    let _upstream = upstream.script([vec![Read, Send(fine())]]);
    let mut stalled = bare(&house.proxy).await;
    stalled.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
    house.proxy.until_metric("tidegate_connections", 1.0).await;
    let mut client = within(ms(3_000), "room", house.secure(&["http/1.1"])).await.unwrap();
    client.write_all(&post(CHAT)).await.unwrap();
    assert_eq!(Reader::new(&mut client).head().await.unwrap().status(), 200);
    assert!(matches!(Reader::new(stalled).until_the_end().await.1, End::Fin | End::Reset));
}

#[tokio::test]
async fn certificate_that_cannot_be_used_is_named_with_its_setting() {
    let (folder, ours, theirs) = (tempfile::tempdir().unwrap(), Certificate::new(), Certificate::new());
    let (good, other) = (ours.settings(), theirs.settings());
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let missing = folder.path().join("missing.pem");
    for (cert, key, says) in [
        (&missing, &good.key, vec!["server.tls.cert", "missing.pem"]),
        (&empty, &good.key, vec!["server.tls.cert", "empty.pem"]),
        (&good.key, &good.key, vec!["server.tls.cert", "key.pem"]),
        (&good.cert, &missing, vec!["server.tls.key", "missing.pem"]),
        (&good.cert, &empty, vec!["server.tls.key", "empty.pem"]),
        (&good.cert, &good.cert, vec!["server.tls.key", "cert.pem"]),
        (&good.cert, &other.key, vec!["server.tls", "cert.pem", "key.pem"]),
    ] {
        let config = folder.path().join("tidegate.toml");
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nstate_dir = {:?}\ntls = {{ cert = {cert:?}, key = {key:?} }}\n\
             [[upstreams]]\nname = \"p\"\nbase_url = \"http://127.0.0.1:9/v1\"\n",
            folder.path().join("state"),
        );
        std::fs::write(&config, text).unwrap();
        let (code, stdout, stderr) = run(&["serve", "--config", config.to_str().unwrap()]).await;
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{says:?}: {stderr}");
        for word in says {
            assert!(stderr.contains(word), "{word:?} is not in {stderr}");
        }
    }
}
