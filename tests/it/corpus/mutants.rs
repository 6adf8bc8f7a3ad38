//! Requests near those of the corpus, at random: what arrives upstream is what the reference reads in what was sent, and
//! nothing else. `TIDEGATE_MUTANTS` says how many; the seed of a failure is in its message.

use fastrand::Rng;
use tokio::io::AsyncWriteExt;

use super::data::cases;
use super::recorder::{Record, Recorder, echo};
use super::reference::{Found, Message, read};
use crate::support::{Proxy, get, ms};

const MUTANTS: u64 = 100;

/// One to three cases in a row, with up to four edits.
fn mutant(rng: &mut Rng, cases: &[Vec<u8>]) -> Vec<u8> {
    const TELLING: &[u8] = b"\r\n\0 \t:;,0a/?#@\x7f\x80HG";
    let mut bytes: Vec<u8> = (0..rng.usize(1..=3)).flat_map(|_| rng.choice(cases).expect("cases").clone()).collect();
    for _ in 0..rng.usize(0..=4) {
        let at = rng.usize(0..bytes.len());
        let byte = if rng.bool() { *rng.choice(TELLING).expect("bytes") } else { rng.u8(..) };
        match rng.u8(0..4) {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            2 => drop(bytes.remove(at)),
            _ => {
                let piece = bytes[at..bytes.len().min(at + rng.usize(1..30))].to_vec();
                let to = rng.usize(0..bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
    bytes
}

/// Sends in random pieces, and reads until nothing comes any more.
async fn send(proxy: &Proxy, rng: &mut Rng, bytes: &[u8]) {
    let mut client = proxy.client().await;
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(rng.usize(1..=rest.len()));
        if client.reader().stream.write_all(piece).await.is_err() {
            break;
        }
        rest = behind;
        tokio::task::yield_now().await;
    }
    // How long is no matter of right or wrong: what arrives later is looked at later.
    while let Ok(Ok(true)) = tokio::time::timeout(ms(20), client.reader().more()).await {}
}

/// All requests that the reference finds in a row.
fn messages(bytes: &[u8]) -> Vec<Message> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Found::Message(message) = read(&bytes[at..]) {
        at += message.end;
        found.push(message);
    }
    found
}

fn is_same(arrived: &Message, sent: &Message) -> bool {
    let is_target = match sent.target.split_once("://") {
        Some((_, rest)) if !sent.target.starts_with('/') => {
            rest.find('/').map_or("/", |at| &rest[at..]) == arrived.target
        }
        _ => sent.target == arrived.target,
    };
    is_target && arrived.method == sent.method && arrived.body == sent.body
}

#[tokio::test]
async fn what_arrives_of_a_mutant_is_what_the_reference_reads_in_it() {
    let mutants = std::env::var("TIDEGATE_MUTANTS").ok().and_then(|count| count.parse().ok()).unwrap_or(MUTANTS);
    let seed = std::env::var("TIDEGATE_MUTANTS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let all: Vec<Vec<u8>> = cases().iter().map(super::data::Case::bytes).filter(|bytes| bytes.len() < 2_000).collect();
    let mut recorder = Recorder::start().await;
    let proxy = crate::support::proxy::before(&format!("http://{}/v1", recorder.addr)).start().await;
    // What a busy machine lets arrive late belongs to the one before.
    let (mut before, mut arrived) = (Vec::new(), 0);
    for number in seed..seed + mutants {
        let mut rng = Rng::with_seed(number);
        let bytes = mutant(&mut rng, &all);
        let story = format!("seed {number}: {:?}", bytes.escape_ascii().to_string());
        send(&proxy, &mut rng, &bytes).await;
        let next = format!("/v1/models?next={number}");
        assert_eq!(proxy.client().await.ask(get(&next, "")).await.text(), echo(&next), "{story}");
        let sent = messages(&bytes);
        for record in recorder.records() {
            match record {
                Record::Wrong(why, bytes) => panic!("{story}: {why} in {:?}", bytes.escape_ascii().to_string()),
                Record::Request(message) if message.target.starts_with("/v1/models?next=") => {}
                Record::Request(message) => {
                    let is_known = sent.iter().chain(&before).any(|sent| is_same(&message, sent));
                    assert!(is_known, "{story}: {message:?} of {sent:?}");
                    arrived += 1;
                }
            }
        }
        before = sent;
    }
    assert!(arrived >= mutants / 20, "{arrived} of {mutants}: too few to prove anything");
}
