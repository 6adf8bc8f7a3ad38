//! Broken answers: a client gets a whole and right one, or an error that it can recognise, and the next one its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tidegate::time::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::data::unescape;
use super::reference::{Found, Message, read};
use crate::support::client::post_to;
use crate::support::wire::{End, reset_on_drop};
use crate::support::{Client, Proxy, get};

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    why: String,
    raw: String,
    #[serde(default)]
    end: Then,
    expect: Expect,
    /// Instead of both a chat completion and an upload.
    request: Option<Asked>,
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    body: String,
    #[serde(default)]
    reuse: bool,
    /// Words of the message of the 502.
    says: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Then {
    #[default]
    Stay,
    Fin,
    Reset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Lost,
    Cut,
    Passed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
enum Asked {
    #[serde(rename = "chat")]
    Chat,
    #[serde(rename = "upload")]
    Upload,
    #[serde(rename = "stream")]
    Stream,
    #[serde(rename = "GET")]
    Get,
    #[serde(rename = "HEAD")]
    Head,
}

impl Asked {
    /// A request that tells itself from all others.
    fn request(self, number: usize) -> Vec<u8> {
        match self {
            Self::Chat => post_to("/v1/chat/completions", "", format!(r#"{{"n":{number}}}"#)),
            Self::Stream => post_to("/v1/chat/completions", "", format!(r#"{{"n":{number},"stream":true}}"#)),
            Self::Upload => post_to("/v1/files", "", number.to_string()),
            Self::Get => get(&format!("/v1/models?{number}"), "").into_bytes(),
            Self::Head => get(&format!("/v1/models?{number}"), "").replace("GET", "HEAD").into_bytes(),
        }
    }

    fn may_be_asked_again(self) -> bool {
        self != Self::Upload
    }
}

fn ok() -> u16 {
    200
}

fn cases() -> Vec<Case> {
    #[derive(serde::Deserialize)]
    struct Cases {
        answer: Vec<Case>,
    }
    let cases: Cases = toml::from_str(include_str!("answers.toml")).expect("a corpus");
    cases.answer
}

/// A provider that answers the first request with the case, and all others well.
struct Liar {
    addr: SocketAddr,
    /// The connection of the case was used again.
    was_reused: Arc<AtomicBool>,
    _tasks: Tasks,
}

impl Liar {
    async fn start(lie: Vec<u8>, then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let (tasks, was_reused, lies) = (Tasks::default(), Arc::default(), Arc::new(AtomicUsize::new(0)));
        let (spawner, reused) = (tasks.clone(), Arc::clone(&was_reused));
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (lie, lies, reused) = (lie.clone(), Arc::clone(&lies), Arc::clone(&reused));
                spawner.spawn(async move {
                    if lies.fetch_add(1, Ordering::SeqCst) == 0 {
                        tell_lie(stream, &lie, then, &reused).await;
                    } else {
                        tell_truth(stream).await;
                    }
                });
            }
        });
        Self { addr, was_reused, _tasks: tasks }
    }
}

async fn tell_lie(mut stream: TcpStream, lie: &[u8], then: Then, reused: &AtomicBool) {
    let mut bytes = Vec::new();
    if next_request(&mut stream, &mut bytes).await.is_none() || stream.write_all(lie).await.is_err() {
        return;
    }
    match then {
        Then::Fin => drop(stream.shutdown().await),
        Then::Reset => return reset_on_drop(&stream),
        Then::Stay => {}
    }
    if next_request(&mut stream, &mut bytes).await.is_some() {
        reused.store(true, Ordering::SeqCst);
        // Whoever asks here again is told so.
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nREUSED").await);
    }
}

async fn tell_truth(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    while let Some(message) = next_request(&mut stream, &mut bytes).await {
        let body = truth(&message.target, &message.body);
        let body = if message.method == "HEAD" { String::new() } else { body };
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        if stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()).await.is_err() {
            return;
        }
    }
}

fn truth(target: &str, body: &[u8]) -> String {
    serde_json::json!({ "to": target, "of": String::from_utf8_lossy(body) }).to_string()
}

/// What must be answered to a request.
fn truth_to(request: &[u8]) -> String {
    let Found::Message(message) = read(request) else { panic!("no request: {:?}", request.escape_ascii().to_string()) };
    truth(&message.target, &message.body)
}

async fn next_request(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Message> {
    loop {
        match read(bytes) {
            Found::Message(message) => {
                bytes.drain(..message.end);
                return Some(message);
            }
            Found::Partial => {
                if stream.read_buf(bytes).await.ok()? == 0 {
                    return None;
                }
            }
            Found::Wrong(why) => panic!("{why}"),
        }
    }
}

async fn play(case: &Case, asked: Asked) {
    let story = format!("{} {asked:?} ({})", case.name, case.why);
    let liar = Liar::start(unescape(&case.raw), case.end).await;
    let proxy = crate::support::proxy::before(&format!("http://{}/v1", liar.addr)).start().await;
    let mut client = proxy.client().await;
    let request = asked.request(0);
    client.send(&request).await;
    match case.expect {
        Expect::Passed => expect_passed(case, asked, &mut client, &story).await,
        Expect::Cut if asked == Asked::Stream => expect_error_event(&mut client, &story).await,
        Expect::Lost | Expect::Cut if asked.may_be_asked_again() => {
            let answer = client.answer().await;
            assert_eq!((answer.status(), answer.text()), (200, truth_to(&request)), "{story}");
            assert_eq!(answer.head.field("x-tidegate-attempts").as_deref(), Some("2"), "{story}");
        }
        Expect::Lost => {
            let answer = client.answer().await;
            assert_eq!((answer.status(), answer.error_code().as_str()), (502, "upstream_disconnected"), "{story}");
            assert!(answer.text().contains(case.says.as_deref().unwrap_or_default()), "{story}: {}", answer.text());
        }
        Expect::Cut => expect_cut(&mut client, &story).await,
    }
    others_get_their_own(&proxy, &story).await;
    if !case.reuse {
        assert!(!liar.was_reused.load(Ordering::SeqCst), "{story}: the connection was used again");
    }
}

async fn expect_passed(case: &Case, asked: Asked, client: &mut Client, story: &str) {
    if asked == Asked::Head {
        assert_eq!(client.head().await.status(), case.status, "{story}");
        assert_eq!(client.reader().unread(), b"", "{story}");
        return;
    }
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.body), (case.status, unescape(&case.body)), "{story}");
    assert!(answer.head.has("x-tidegate-request-id"), "{story}: {:?}", answer.head);
    // The connection is none the worse for it.
    let request = asked.request(1);
    let text = client.ask(&request).await.text();
    assert!(text == truth_to(&request) || (case.reuse && text == "REUSED"), "{story}: {text}");
}

/// The client has a head, and what follows is visibly not all.
async fn expect_cut(client: &mut Client, story: &str) {
    let head = client.head().await;
    assert_eq!(head.status(), 200, "{story}");
    let whole = client.reader().body(&head, false).await;
    assert!(matches!(whole, Err(End::Fin | End::Reset)), "{story}: {whole:?}");
}

/// The stream goes on to its proper end, and says that something is missing.
async fn expect_error_event(client: &mut Client, story: &str) {
    assert_eq!(client.head().await.status(), 200, "{story}");
    let text = client.rest().await.unwrap_or_else(|end| panic!("{story}: {end:?}"));
    assert!(text.contains("data: {\"error\"") && !text.contains("[DONE]"), "{story}: {text}");
}

async fn others_get_their_own(proxy: &Proxy, story: &str) {
    for (number, asked) in [Asked::Chat, Asked::Upload, Asked::Get].into_iter().enumerate() {
        let request = asked.request(number + 2);
        let text = proxy.client().await.ask(&request).await.text();
        assert!(text == truth_to(&request) || text == "REUSED", "{story}: {text}");
    }
}

async fn play_all(asked: impl Fn(&Case) -> Option<Asked>) {
    for case in cases() {
        if let Some(asked) = asked(&case) {
            play(&case, asked).await;
        }
    }
}

#[test]
fn corpus_of_answers_is_large_and_each_case_has_its_name() {
    let cases = cases();
    assert!(cases.iter().filter(|case| case.expect != Expect::Passed).count() >= 40);
    let names: std::collections::BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), cases.len());
    assert!(cases.iter().all(|case| !case.why.is_empty()));
}

#[tokio::test]
async fn broken_answer_to_what_may_be_asked_again_is_asked_again() {
    play_all(|case| Some(case.request.unwrap_or(Asked::Chat))).await;
}

#[tokio::test]
async fn broken_answer_to_an_upload_is_an_error_that_its_client_can_recognise() {
    play_all(|case| case.request.is_none().then_some(Asked::Upload)).await;
}
