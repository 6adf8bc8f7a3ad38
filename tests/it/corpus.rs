//! What is malformed or ambiguous, as data: no such thing arrives, and nobody else suffers.

mod answers;
mod data;
mod h2;
mod mutants;
mod recorder;
mod reference;

use data::{Case, Expect, cases};
use recorder::{Record, Recorder, echo};
use reference::{Found, Message, read};

use crate::support::client::post_to;
use crate::support::wire::Answer;
use crate::support::{Client, Proxy, get, ms};

/// Where the case stands among what its client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Alone; another request follows when the answer has come.
    Alone,
    /// With another request right behind it, in the same segment.
    Before,
    /// Right behind a sound request whose body streams, in the same segment.
    Behind,
    /// While the answer to a sound request before it is still awaited.
    Meanwhile,
    /// In many small segments.
    Dripping,
}

struct Stage {
    proxy: Proxy,
    recorder: Recorder,
}

impl Stage {
    async fn set() -> Self {
        let recorder = Recorder::start().await;
        let proxy = crate::support::proxy::before(&format!("http://{}/v1", recorder.addr)).start().await;
        Self { proxy, recorder }
    }

    async fn play(&mut self, case: &Case, place: Place) {
        let story = format!("{} {place:?} ({})", case.name, case.why);
        let (before, follow, next) = (sound(case, "before"), sound(case, "follow"), sound(case, "next"));
        let upload = before.replace("models", "files");
        let bytes = case.bytes();
        let mut client = self.proxy.client().await;
        match place {
            Place::Alone => client.send(&bytes).await,
            Place::Before => client.send([&bytes, get(&follow, "").as_bytes()].concat()).await,
            Place::Behind => client.send([post_to(&upload, "", "upload"), bytes].concat()).await,
            Place::Meanwhile => {
                client.send(get(&before, "")).await;
                assert!(matches!(self.recorder.record().await, Record::Request(_)), "{story}");
                client.send(&bytes).await;
                // Time to read it; whether it does or not, the outcome must be the same.
                tokio::time::sleep(ms(2)).await;
            }
            Place::Dripping => drip(&mut client, &bytes).await,
        }
        if matches!(place, Place::Behind | Place::Meanwhile) {
            self.recorder.gate.add_permits(1);
            let first = if place == Place::Behind { &upload } else { &before };
            assert_eq!(client.answer().await.text(), echo(first), "{story}");
        }
        let answer = client.answer().await;
        let forwarded = case.expect == Expect::Forwarded;
        if !forwarded {
            assert_eq!(answer.status(), case.status, "{story}: {}", answer.text());
            assert_is_our_error(&answer, &story);
            assert_eq!(client.until_the_end().await.0, b"", "{story}");
        } else {
            assert_eq!(answer.status(), 200, "{story}: {}", answer.text());
            if case.closes {
                assert_eq!(client.until_the_end().await.0, b"", "{story}");
            } else {
                if place != Place::Before {
                    client.send(get(&follow, "")).await;
                }
                assert_eq!(client.answer().await.text(), echo(&follow), "{story}");
            }
        }
        // Somebody else is served as if nothing had been.
        assert_eq!(self.proxy.client().await.ask(get(&next, "")).await.text(), echo(&next), "{story}");
        self.check_records(case, &[upload, before, follow, next], forwarded.then_some(&answer), &story);
    }

    /// Only what is sound arrived, and each of it as it was meant.
    fn check_records(&mut self, case: &Case, others: &[String], answer: Option<&Answer>, story: &str) {
        let mut arrived = Vec::new();
        for record in self.recorder.records() {
            match record {
                Record::Wrong(why, bytes) => panic!("{story}: {why} in {:?}", bytes.escape_ascii().to_string()),
                Record::Request(message) if others.contains(&message.target) => {
                    let expected =
                        if message.target == others[0] { ("POST", &b"upload"[..]) } else { ("GET", &b""[..]) };
                    assert_eq!((message.method.as_str(), message.body.as_slice()), expected, "{story}");
                }
                Record::Request(message) => arrived.push(message),
            }
        }
        let Some(answer) = answer else {
            assert_eq!(arrived, [], "{story}");
            return;
        };
        let [message] = &arrived[..] else { panic!("{story}: {arrived:?}") };
        assert_eq!(answer.text(), echo(&message.target), "{story}");
        self.check_arrival(case, message, story);
    }

    fn check_arrival(&self, case: &Case, message: &Message, story: &str) {
        let Found::Message(sent) = read(&case.bytes()) else { panic!("{story}: the reference cannot read it") };
        assert_eq!(message.method, sent.method, "{story}");
        assert_eq!(&message.target, case.target.as_ref().unwrap_or(&sent.target), "{story}");
        assert_eq!(message.body, case.body().unwrap_or(sent.body), "{story}");
        assert_eq!(message.values("host"), [self.recorder.addr.to_string().into_bytes()], "{story}");
        for (name, values) in &case.fields {
            let arrived = message.values(name);
            assert_eq!(
                arrived.iter().map(|value| String::from_utf8_lossy(value)).collect::<Vec<_>>(),
                *values,
                "{story}: {name}"
            );
        }
        for (name, value) in
            sent.fields.iter().filter(|(name, _)| name.starts_with("x-") && !case.fields.contains_key(name))
        {
            assert!(message.values(name).contains(value), "{story}: {name}");
        }
    }
}

fn sound(case: &Case, role: &str) -> String {
    format!("/v1/models?{role}={}", case.name)
}

fn assert_is_our_error(answer: &Answer, story: &str) {
    assert_eq!(answer.error_code(), "bad_request", "{story}");
    let message = serde_json::from_slice::<serde_json::Value>(&answer.body).expect("JSON")["error"]["message"].clone();
    assert!(message.as_str().is_some_and(|message| message.len() > 10), "{story}: {message}");
}

/// Sends in up to eight segments; the proxy may have heard enough before the last.
async fn drip(client: &mut Client, bytes: &[u8]) {
    use tokio::io::AsyncWriteExt as _;
    for part in bytes.chunks(bytes.len().div_ceil(8)) {
        if client.reader().stream.write_all(part).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

async fn play_all(place: Place) {
    let mut stage = Stage::set().await;
    for case in cases() {
        stage.play(&case, place).await;
    }
}

#[tokio::test]
async fn ambiguous_request_never_arrives_and_its_connection_is_closed() {
    play_all(Place::Alone).await;
}

#[tokio::test]
async fn request_right_behind_an_ambiguous_one_is_not_misread() {
    play_all(Place::Before).await;
}

#[tokio::test]
async fn sound_request_right_before_an_ambiguous_one_is_served() {
    play_all(Place::Behind).await;
}

#[tokio::test]
async fn sound_request_is_served_though_an_ambiguous_one_comes_meanwhile() {
    play_all(Place::Meanwhile).await;
}

#[tokio::test]
async fn ambiguous_request_in_parts_never_arrives() {
    play_all(Place::Dripping).await;
}
