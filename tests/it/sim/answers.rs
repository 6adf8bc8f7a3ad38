//! What is said is a function of the request, in the shape its client can read.

use serde_json::json;
use tidegate::sim::{Settings, content};
use tokio::io::AsyncReadExt;

use super::{Raw, chat, sim};

#[tokio::test]
async fn answers_say_what_the_request_determines() {
    let sim = sim(Settings::default()).await;
    let mut client = Raw::to(&sim).await;
    client.send(&chat("hello", false, &json!({}))).await;
    let answer = client.json().await;
    assert_eq!(answer["choices"][0]["message"]["content"], json!(content::expected("m", "hello")));
    client.post("/v1/completions", &json!({ "model": "m", "prompt": "hello", "max_tokens": 3 })).await;
    let cut = client.json().await;
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    assert_eq!(cut["choices"][0]["text"], json!(content::deltas("m", "hello", None)[..3].concat()));
    assert_eq!(cut["usage"]["completion_tokens"], 3);
    client.post("/v1/embeddings", &json!({ "model": "m", "input": ["a", "b"] })).await;
    let embeddings = client.json().await;
    assert_eq!(embeddings["data"][1]["embedding"], json!(content::embedding("m", "b", 16)));
    client.post("/v1/chat/completions", &json!({ "model": "m" })).await;
    assert_eq!(client.json().await["error"]["type"], "invalid_request_error");
}

#[tokio::test]
async fn stream_ends_with_usage_where_asked() {
    let sim = sim(Settings::default()).await;
    let mut client = Raw::to(&sim).await;
    let messages = json!([{ "role": "user", "content": "p" }]);
    let options = json!({ "include_usage": true });
    let body = json!({ "model": "m", "messages": messages, "stream": true, "stream_options": options });
    client.post("/v1/chat/completions", &body).await;
    let answer = client.answer().await.expect("whole");
    let events: Vec<&str> = answer.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let [.., finish, usage, "[DONE]"] = events.as_slice() else { panic!("{events:?}") };
    assert!(finish.contains("\"finish_reason\":\"stop\"") && finish.contains("\"usage\":null"), "{finish}");
    assert!(usage.contains("\"choices\":[]") && usage.contains("\"total_tokens\":"), "{usage}");
}

#[tokio::test]
async fn echo_tells_what_arrived_however_the_body_came() {
    let sim = sim(Settings::default()).await;
    let mut client = Raw::to(&sim).await;
    let head = "PUT /v1/files/a%20b?x=1&y HTTP/1.1\r\nX-Odd-Case: Yes\r\nexpect: 100-continue\r\n";
    client.send(&format!("{head}transfer-encoding: chunked\r\n\r\n")).await;
    let mut interim = [0; 25];
    client.0.read_exact(&mut interim).await.expect("an interim answer");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    let piece = "x".repeat(100_000);
    for _ in 0..20 {
        client.send(&format!("{:x}\r\n{piece}\r\n", piece.len())).await;
    }
    client.send("0\r\n\r\n").await;
    let echo = client.json().await;
    assert_eq!((&echo["method"], &echo["path"]), (&json!("PUT"), &json!("/v1/files/a%20b")));
    assert_eq!((&echo["query"], &echo["body_bytes"]), (&json!("x=1&y"), &json!(2_000_000)));
    assert_eq!(echo["headers"][0], json!(["X-Odd-Case", "Yes"]));
    assert_eq!(echo["body_fnv"], json!(format!("{:016x}", content::hash(piece.repeat(20).as_bytes()))));
}

#[tokio::test]
async fn http_1_0_gets_its_stream_without_chunks_until_the_connection_ends() {
    let sim = sim(Settings::default()).await;
    let mut client = Raw::to(&sim).await;
    let request = chat("p", true, &json!({})).replace("HTTP/1.1", "HTTP/1.0\r\nconnection: keep-alive");
    client.send(&request).await;
    let (answer, reset) = client.until_the_end().await;
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("\n\ndata: [DONE]\n\n"), "{answer}");
    assert_eq!((reset, sim.stats().completed, sim.stats().in_flight), (false, 1, 0));
}
