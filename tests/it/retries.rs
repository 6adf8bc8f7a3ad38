//! What goes wrong upstream is cured where that is right, told where it is not, and never dressed up.

use std::num::NonZeroU32;
use std::ops::Range;

use tidegate::time::{Duration, Instant};
use tidegate::upstream::settings::Kind;

use crate::support::client::post_to;
use crate::support::proxy::before;
use crate::support::upstream::{FINE, STREAM, answer, chunk, event, fine, finish, json};
use crate::support::wire::{Answer, End};
use crate::support::{Pace, Step, Upstream, get, ms, post, proxy, soon, within};

use Step::{Fin, Read, Reset, Send, Stall};

const CALL: &str = r#"{"model":"m"}"#;
const STREAMED: &str = r#"{"model":"m","stream":true}"#;
const JSON: &str = "Content-Type: application/json\r\n";

// Before anything was passed on: the client notices nothing.

#[tokio::test]
async fn whatever_breaks_before_the_first_byte_is_retried_and_the_client_notices_nothing() {
    let cut = format!("HTTP/1.1 200 OK\r\n{JSON}Content-Length: 500\r\n\r\n{{\"half\":");
    let cut_chunked = format!("HTTP/1.1 200 OK\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n{}", chunk("{\"half\":"));
    let close_delimited = format!("HTTP/1.1 200 OK\r\n{JSON}\r\n{{\"half\":");
    let comment = format!("{STREAM}{}", chunk(": processing\n\n"));
    let half_event = format!("{STREAM}{}", chunk("data: {\"choi"));
    let empty_stream = format!("{STREAM}0\r\n\r\n");
    for (story, body, broken) in [
        ("a reset before the head", CALL, vec![Read, Reset]),
        ("EOF before the head", CALL, vec![Read, Fin]),
        ("EOF in the middle of the head", CALL, vec![Read, Send("HTTP/1.1 200 OK\r\nContent-".into()), Fin]),
        ("not HTTP", CALL, vec![Read, Send("hello\r\n\r\n".into()), Fin]),
        ("a plain answer reset", CALL, vec![Read, Send(cut.clone().into()), Reset]),
        ("a plain answer cut", CALL, vec![Read, Send(cut.into()), Fin]),
        ("a chunked answer cut", CALL, vec![Read, Send(cut_chunked.into()), Fin]),
        ("truncated JSON that ends with its connection", CALL, vec![Read, Send(close_delimited.into()), Fin]),
        ("a stream without an event", STREAMED, vec![Read, Send(STREAM.into()), Reset]),
        ("a stream with comments only", STREAMED, vec![Read, Send(comment.into()), Fin]),
        ("a stream cut in its first event", STREAMED, vec![Read, Send(half_event.into()), Reset]),
        ("a stream that ends properly, but empty", STREAMED, vec![Read, Send(empty_stream.into()), Fin]),
        ("502", CALL, vec![Read, Send(answer("502 Bad Gateway", "", "<html>")), Fin]),
        ("529", CALL, vec![Read, Send(answer("529 Overloaded", JSON, "{}")), Fin]),
        ("408", CALL, vec![Read, Send(answer("408 Request Timeout", "Connection: close\r\n", "")), Fin]),
        ("429", CALL, vec![Read, Send(answer("429 Too Many Requests", "retry-after-ms: 20\r\n", "{}")), Fin]),
        ("409 that says so", CALL, vec![Read, Send(answer("409 Conflict", "x-should-retry: true\r\n", "{}")), Fin]),
    ] {
        let upstream = Upstream::start().await;
        let proxy = proxy(&upstream).start().await;
        let whole = if body == STREAMED { format!("{STREAM}{}{}", event("a"), finish()).into_bytes() } else { fine() };
        let mut upstream = upstream.script([broken, vec![Read, Send(whole.clone()), Read, Send(whole), Stall]]);
        let seen = proxy.client().await.ask(post(body)).await;
        let first = upstream.request().await;
        assert_eq!((seen.status(), seen.head.field("x-tidegate-attempts").as_deref()), (200, Some("2")), "{story}");
        assert!(seen.text() == FINE || seen.text().ends_with("data: [DONE]\n\n"), "{story}: {}", seen.text());
        assert_eq!(upstream.request().await.body, first.body, "{story}");
        assert_eq!(upstream.unseen(), 0, "{story}");
    }
}

/// Unlike one that has not begun: that is still being thought about.
#[tokio::test]
async fn plain_answer_that_stops_halfway_is_asked_for_again() {
    let half = format!("HTTP/1.1 200 OK\r\n{JSON}Content-Length: 500\r\n\r\n{{\"half\":");
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).provider(|provider| provider.idle_timeout = ms(100)).start().await;
    let _script = upstream.script([vec![Read, Send(half.into()), Stall], vec![Read, Send(fine())]]);
    let seen = proxy.client().await.ask(post(CALL)).await;
    assert_eq!((seen.status(), seen.text().as_str()), (200, FINE));
    assert_eq!(seen.head.field("x-tidegate-attempts").as_deref(), Some("2"));
}

#[tokio::test]
async fn status_that_passes_is_retried_on_the_same_connection() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let failing = ["500 Internal Server Error", "503 Service Unavailable", "504 Gateway Timeout"];
    let steps = failing.iter().flat_map(|status| [Read, Send(answer(status, JSON, "{}"))]).chain([Read, Send(fine())]);
    let mut upstream = upstream.script([steps.collect()]);
    let seen = proxy.client().await.ask(post(CALL)).await;
    assert_eq!((seen.status(), seen.head.field("x-tidegate-attempts").as_deref()), (200, Some("4")));
    for _ in 0..4 {
        assert_eq!(upstream.next().await.1, 0);
    }
}

/// No shorter than that, and no longer as far as it was for us to say.
fn assert_waited(expected: Range<Duration>, pace: &Pace, from: Instant, to: Instant, story: &str) {
    assert!(to - from >= expected.start, "{story}: {:?}", to - from);
    let ours = pace.between(from, to);
    assert!(ours < expected.end, "{story}: {ours:?}");
}

#[tokio::test]
async fn retry_after_of_the_provider_is_obeyed() {
    for (status, field) in [
        ("503 Service Unavailable", "Retry-After: 1"),
        ("503 Service Unavailable", "retry-after-ms: 900\r\nRetry-After: 30"),
        ("429 Too Many Requests", "Retry-After: 1"),
    ] {
        let upstream = Upstream::start().await;
        let (pace, proxy) = (Pace::watch(), proxy(&upstream).start().await);
        let refusal = answer(status, &format!("{field}\r\n"), "{}");
        let mut upstream = upstream.script([vec![Read, Send(refusal), Read, Send(fine())]]);
        assert_eq!(proxy.client().await.ask(post(CALL)).await.status(), 200);
        let (first, second) = (upstream.next().await.0, upstream.next().await.0);
        assert_waited(ms(890)..ms(1_900), &pace, first, second, field);
    }
}

#[tokio::test]
async fn refusal_is_waited_out_for_as_long_as_its_words_or_its_limits_say() {
    const SPENT: &str = "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 1s\r\n";
    const SPOKEN: &str =
        r#"{"error":{"message":"Rate limit reached. Please try again in 1s.","code":"rate_limit_exceeded"}}"#;
    const NESTED: &str = r#"[{"error":{"status":"RESOURCE_EXHAUSTED","details":[{"retryDelay":"1s"}]}}]"#;
    for (fields, body) in [(SPENT, "{}"), (JSON, SPOKEN), (JSON, NESTED), ("retry-after-ms: 1000\r\n", SPOKEN)] {
        let upstream = Upstream::start().await;
        let (pace, proxy) = (Pace::watch(), proxy(&upstream).start().await);
        let refusal = answer("429 Too Many Requests", fields, body);
        let mut upstream = upstream.script([vec![Read, Send(refusal), Read, Send(fine())]]);
        assert_eq!(proxy.client().await.ask(post(CALL)).await.status(), 200);
        let (first, second) = (upstream.next().await.0, upstream.next().await.0);
        assert_waited(ms(990)..ms(1_900), &pace, first, second, body);
    }
}

/// What is larger than the whole limit passes never: it goes back at once, and nobody else waits for it.
#[tokio::test]
async fn request_larger_than_the_providers_limit_is_asked_once_and_closes_no_gate() {
    const TOO_LARGE: &str = r#"{"error":{"message":"Request too large for m on tokens per min (TPM): Limit 30000, Requested 40000.","type":"tokens","code":"rate_limit_exceeded"}}"#;
    let upstream = Upstream::start().await;
    let (pace, proxy) = (Pace::watch(), proxy(&upstream).start().await);
    let refusal = answer("429 Too Many Requests", JSON, TOO_LARGE);
    let mut upstream = upstream.script([vec![Read, Send(refusal), Read, Send(fine())]]);
    let mut client = proxy.client().await;
    let seen = client.ask(post(CALL)).await;
    assert_eq!((seen.status(), seen.text().as_str()), (429, TOO_LARGE));
    assert_eq!(seen.head.fields("x-tidegate-attempts"), ["1"]);
    assert_eq!(client.ask(post(CALL)).await.status(), 200);
    let (first, second) = (upstream.next().await.0, upstream.next().await.0);
    assert_waited(ms(0)..ms(400), &pace, first, second, "the next one");
}

/// A daily cap: no loop of retries, and what the provider said is what the client gets.
#[tokio::test]
async fn refusal_for_longer_than_the_call_can_wait_is_asked_once() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let refusal = answer("429 Too Many Requests", "Retry-After: 3600\r\n", "enough for today");
    let mut upstream = upstream.script([vec![Read, Send(refusal), Read, Send(fine())]]);
    let call = post_to("/v1/chat/completions", "x-tidegate-deadline-ms: 600\r\n", CALL);
    let seen = proxy.client().await.ask(call).await;
    assert_eq!((seen.status(), seen.text().as_str()), (429, "enough for today"));
    assert_eq!(seen.head.fields("x-tidegate-attempts"), ["1"]);
    assert_eq!(upstream.unseen(), 1);
}

#[tokio::test]
async fn refusal_closes_the_gate_for_everybody() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let refusal = answer("429 Too Many Requests", "Retry-After: 3\r\n", "{}");
    let mut first = proxy.client().await;
    first.send(post("1")).await;
    let (mut line, _) = upstream.request().await;
    let closed = tidegate::time::now();
    line.send(refusal).await;
    proxy.until_metric("tidegate_retries_total{reason=\"refusal\"}", 1.0).await;
    let mut second = proxy.client().await;
    second.send(post("2")).await;
    proxy.until_queued(2).await;
    let request = line.request().await;
    assert!(closed.elapsed() >= ms(2_950), "{:?}", closed.elapsed());
    assert_eq!(request.text(), "1", "who was refused keeps its place");
    line.send(fine()).await;
    assert_eq!(first.answer().await.status(), 200);
    let upstream = upstream.script([vec![Read, Send(fine())]]);
    tokio::select! {
        request = line.request() => {
            assert_eq!(request.text(), "2");
            line.send(fine()).await;
            assert_eq!(second.answer().await.status(), 200);
        }
        answer = second.answer() => assert_eq!(answer.status(), 200),
    }
    drop(upstream);
}

#[tokio::test]
async fn configured_404_is_a_refusal_unless_the_model_is_not_found() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).provider(|provider| provider.refusal_statuses = vec![429, 404]).start().await;
    let refusal = answer("404 Not Found", "retry-after-ms: 50\r\n", "{\"detail\":\"nothing here\"}");
    let unknown = "{\"error\":{\"message\":\"no such model\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"model_not_found\"}}";
    let mut upstream = upstream.script([vec![
        Read,
        Send(refusal),
        Read,
        Send(fine()),
        Read,
        Send(answer("404 Not Found", JSON, unknown)),
    ]]);
    let mut client = proxy.client().await;
    assert_eq!(client.ask(post(CALL)).await.status(), 200);
    let seen = client.ask(post(CALL)).await;
    assert_eq!((seen.status(), seen.text().as_str()), (404, unknown));
    for _ in 0..3 {
        upstream.request().await;
    }
    assert_eq!(upstream.unseen(), 0);
}

#[tokio::test]
async fn a_request_that_is_too_large_by_itself_closes_no_gate() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let too_large = "{\"error\":{\"message\":\"Request too large for m on tokens per min (TPM): Limit 1000, Requested 5000.\",\"type\":\"tokens\",\"code\":\"rate_limit_exceeded\"}}";
    let fields = format!("{JSON}retry-after: 60\r\n");
    let script = vec![Read, Send(answer("429 Too Many Requests", &fields, too_large)), Read, Send(fine())];
    let _upstream = upstream.script([script]);
    let mut client = proxy.client().await;
    let seen = client.ask(post(CALL)).await;
    assert_eq!((seen.status(), seen.text().as_str()), (429, too_large));
    assert_eq!(seen.head.field("x-tidegate-attempts").unwrap(), "1");
    assert_eq!(within(ms(1_000), "the next call", client.ask(post(CALL))).await.status(), 200);
}

#[tokio::test]
async fn statuses_that_a_retry_cannot_cure_are_delivered_at_once() {
    for (status, fields) in [
        ("400 Bad Request", ""),
        ("401 Unauthorized", ""),
        ("404 Not Found", ""),
        ("409 Conflict", ""),
        ("409 Conflict", "x-should-retry: false\r\n"),
        ("501 Not Implemented", ""),
        ("503 Service Unavailable", "x-should-retry: false\r\n"),
        ("429 Too Many Requests", "x-should-retry: false\r\n"),
    ] {
        let upstream = Upstream::start().await;
        let proxy = proxy(&upstream).start().await;
        let mut upstream = upstream.script([vec![Read, Send(answer(status, fields, "theirs"))]]);
        let seen = proxy.client().await.ask(post(CALL)).await;
        assert_eq!((seen.head.first_line(), seen.text()), (format!("HTTP/1.1 {status}"), "theirs".to_owned()));
        assert_eq!(upstream.unseen(), 1, "{status} {fields}");
    }
}

#[tokio::test]
async fn after_the_last_attempt_the_client_gets_the_providers_own_answer() {
    let upstream = Upstream::start().await;
    let proxy =
        proxy(&upstream).set(|settings| settings.retry.attempts_max = NonZeroU32::new(3).unwrap()).start().await;
    let busy = |number| answer("503 Service Unavailable", "X-Theirs: 1\r\n", format!("busy {number}"));
    let mut upstream = upstream.script([(1..9).flat_map(|number| [Read, Send(busy(number))]).collect()]);
    let mut client = proxy.client().await;
    let seen = client.ask(post(CALL)).await;
    assert_eq!((seen.status(), seen.text().as_str()), (503, "busy 3"));
    assert_eq!(seen.head.fields("x-theirs"), ["1"]);
    assert_eq!(seen.head.fields("x-tidegate-attempts"), ["3"]);
    assert_eq!(upstream.unseen(), 3);
}

/// Two attempts of each call, however many have failed: nobody waits for an upstream to come back.
fn two_attempts(settings: &mut tidegate::config::Settings) {
    settings.retry.attempts_max = NonZeroU32::new(2).unwrap();
    settings.breaker.failures = NonZeroU32::MAX;
    settings.recovery.cooldown = ms(0);
}

#[tokio::test]
async fn disconnects_to_the_last_attempt_are_a_502() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(two_attempts).start().await;
    let mut upstream = upstream.script([vec![Read, Reset]]);
    let mut client = proxy.client().await;
    for _ in 0..2 {
        let seen = client.ask(post(CALL)).await;
        assert_eq!((seen.status(), seen.error_code().as_str()), (502, "upstream_disconnected"));
        assert!(seen.head.has("retry-after") && seen.head.has("retry-after-ms"));
    }
    for _ in 0..4 {
        upstream.request().await;
    }
    assert_eq!(upstream.unseen(), 0);
}

#[tokio::test]
async fn no_head_in_time_is_a_504_and_not_retried() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).provider(|provider| provider.first_byte_timeout = ms(200)).start().await;
    let mut client = proxy.client().await;
    client.send(post(CALL)).await;
    let (mut line, _) = upstream.request().await;
    let seen = client.answer().await;
    assert_eq!((seen.status(), seen.error_code().as_str()), (504, "upstream_timeout"));
    within(ms(1_000), "the exchange is cut", line.gone()).await;
    assert!(upstream.is_untouched().await);
}

#[tokio::test]
async fn interim_answers_do_not_stretch_first_byte_timeout() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).provider(|provider| provider.first_byte_timeout = ms(300)).start().await;
    let mut client = proxy.client().await;
    client.send(post(CALL)).await;
    let (mut line, _) = upstream.request().await;
    let dripping = async {
        while line.try_send(b"HTTP/1.1 102 Processing\r\n\r\n").await.is_ok() {
            tokio::time::sleep(ms(50)).await
        }
    };
    let (seen, ()) = within(ms(2_000), "the 504", async { tokio::join!(client.answer(), dripping) }).await;
    assert_eq!(seen.status(), 504);
}

// Connections.

#[tokio::test]
async fn refused_connection_is_retried_and_spends_nothing() {
    // A port that is taken and does not listen yet.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let base_url = format!("http://{}/v1", socket.local_addr().unwrap());
    let patient =
        |settings: &mut tidegate::config::Settings| settings.retry.attempts_max = NonZeroU32::new(1_000).unwrap();
    let proxy = before(&base_url).set(patient).requests(1, ms(60_000)).start().await;
    let mut client = proxy.client().await;
    client.send(post(CALL)).await;
    proxy.until_metric_reaches("tidegate_retries_total{reason=\"connect\"}", 2.0).await;
    let listener = socket.listen(8).unwrap();
    let (stream, _) = soon("the connection", listener.accept()).await.unwrap();
    let mut line = crate::support::Line::of(stream);
    line.request().await;
    line.send(fine()).await;
    assert_eq!(client.answer().await.status(), 200);
}

#[tokio::test]
async fn upstream_that_cannot_be_reached_is_a_503() {
    // A port that is taken, so that nobody else begins to listen on it.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    for base_url in [format!("http://{addr}/v1"), "http://does-not-exist.invalid/v1".to_owned()] {
        let proxy = before(&base_url).set(two_attempts).start().await;
        let mut client = proxy.client().await;
        for request in [post(CALL), get("/v1/models", "").into_bytes(), post_to("/v1/files", "", "upload")] {
            let seen = client.ask(request).await;
            assert_eq!((seen.status(), seen.error_code().as_str()), (503, "upstream_unavailable"), "{base_url}");
        }
    }
}

#[tokio::test]
async fn pooled_connection_that_died_is_replaced_at_once() {
    let upstream = Upstream::start().await;
    let slow = |settings: &mut tidegate::config::Settings| {
        settings.retry.base = ms(5_000);
        settings.retry.cap = ms(5_000);
    };
    let proxy = proxy(&upstream).set(slow).start().await;
    let mut client = proxy.client().await;
    client.send(post("first")).await;
    let (mut line, _) = upstream.request().await;
    line.send(fine()).await;
    assert_eq!(client.answer().await.status(), 200);
    // It dies as the second request arrives.
    client.send(post("second")).await;
    assert_eq!(line.request().await.text(), "second");
    line.reset();
    let (mut line, request) = within(ms(1_000), "the retry", upstream.request()).await;
    assert_eq!(request.text(), "second");
    line.send(fine()).await;
    let seen = client.answer().await;
    assert_eq!(seen.status(), 200);
    // It dies while it idles.
    line.fin().await;
    client.send(post("third")).await;
    let (mut line, _) = within(ms(1_000), "the new connection", upstream.request()).await;
    line.send(fine()).await;
    assert_eq!(client.answer().await.status(), 200);
}

/// What says something, if only nonsense, was not dead: that was an attempt like any other.
#[tokio::test]
async fn pooled_connection_that_speaks_was_not_dead() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(|settings| settings.retry.attempts_max = NonZeroU32::MIN).start().await;
    let nonsense = Send(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec());
    let mut upstream = upstream.script([vec![Read, Send(fine()), Read, nonsense, Stall], vec![Read, Send(fine())]]);
    let mut client = proxy.client().await;
    assert_eq!(client.ask(post(CALL)).await.status(), 200);
    let failed = client.ask(post(CALL)).await;
    assert_eq!((failed.status(), failed.error_code().as_str()), (502, "upstream_disconnected"));
    assert_eq!(upstream.unseen(), 2);
}

#[tokio::test]
async fn what_cannot_be_repeated_is_never_sent_twice_and_never_on_a_connection_that_may_be_dead() {
    let upload = "POST /v1/files HTTP/1.1\r\nHost: t\r\nContent-Length: 6\r\n\r\nupload";
    let delete = "DELETE /v1/files/f HTTP/1.1\r\nHost: t\r\n\r\n";
    let empty = "POST /v1/batches/b/cancel HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n";
    for request in [upload, delete, empty] {
        let upstream = Upstream::start().await;
        let proxy = proxy(&upstream).start().await;
        let mut client = proxy.client().await;
        client.send(post(CALL)).await;
        let (mut pooled, _) = upstream.request().await;
        pooled.send(fine()).await;
        assert_eq!(client.answer().await.status(), 200);
        client.send(request).await;
        let (line, _) = within(ms(1_000), "a connection of its own", upstream.request()).await;
        line.reset();
        let seen = client.answer().await;
        assert_eq!((seen.status(), seen.error_code().as_str()), (502, "upstream_disconnected"));
        assert!(upstream.is_untouched().await && pooled.reader().unread().is_empty(), "sent twice: {request}");
        // Nor on a status that others are retried for.
        client.send(request).await;
        let (mut line, _) = upstream.request().await;
        line.send(answer("503 Service Unavailable", "", "busy")).await;
        let seen = client.answer().await;
        assert_eq!((seen.status(), seen.text().as_str()), (503, "busy"));
        assert!(upstream.is_untouched().await, "sent twice: {request}");
    }
}

/// SDKs repeat a 502 or 504 by themselves, and the agent would run its tools twice after all.
#[tokio::test]
async fn lost_call_to_an_agent_is_not_to_be_asked_again() {
    let again = |seen: &Answer| ["x-should-retry", "retry-after"].map(|name| seen.head.field(name));
    let half = Send(format!("HTTP/1.1 200 OK\r\n{JSON}Content-Length: 99\r\n\r\n{{").into_bytes());
    for (story, status, steps) in [
        ("no head", 502, vec![Read, Reset]),
        ("half an answer", 502, vec![Read, half, Fin]),
        ("silence", 504, vec![Read, Stall]),
    ] {
        for (kind, agents, is_once) in
            [(Kind::Agent, false, true), (Kind::Agent, true, false), (Kind::Model, false, false)]
        {
            let upstream = Upstream::start().await;
            let proxy = proxy(&upstream)
                .provider(|provider| (provider.kind, provider.first_byte_timeout) = (kind, ms(200)))
                .set(|settings| {
                    settings.retry.agents = agents;
                    settings.retry.attempts_max = NonZeroU32::MIN;
                })
                .start()
                .await;
            let _upstream = upstream.script([steps.clone()]);
            let seen = proxy.client().await.ask(post(CALL)).await;
            let told = if is_once { [Some("false".to_owned()), None] } else { [None, Some("5".to_owned())] };
            assert_eq!((seen.status(), again(&seen)), (status, told), "{story}, {kind:?}, {agents}");
        }
    }
    // Nothing was sent: another try does no harm.
    let nobody = Upstream::start().await.base_url();
    let proxy = before(&nobody)
        .provider(|provider| provider.kind = Kind::Agent)
        .set(|settings| settings.retry.attempts_max = NonZeroU32::MIN)
        .start()
        .await;
    let seen = proxy.client().await.ask(post(CALL)).await;
    assert_eq!((seen.status(), again(&seen)), (503, [None, Some("5".to_owned())]));
}

#[tokio::test]
async fn answers_that_end_with_their_connection_pass_when_they_are_whole() {
    let head = format!("HTTP/1.1 200 OK\r\n{JSON}\r\n");
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let scripts = [format!("{head}{FINE}"), format!("HTTP/1.0 200 OK\r\n{JSON}\r\n{FINE}")];
    let mut upstream = upstream.script(scripts.map(|whole| vec![Read, Send(whole.into()), Fin]));
    let mut client = proxy.client().await;
    for _ in 0..2 {
        let seen = client.ask(post(CALL)).await;
        assert_eq!((seen.status(), seen.text().as_str()), (200, FINE));
    }
    assert_eq!(upstream.unseen(), 2);
}

// Streams.

#[tokio::test]
async fn events_are_passed_on_as_they_come() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let mut client = proxy.client().await;
    client.send(post(STREAMED)).await;
    let (mut line, _) = upstream.request().await;
    line.send(STREAM).await;
    let big = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"logprob\":-1.00,\"id\":12345678901234567890123}]}";
    line.send(chunk(&format!("{big}\n\n"))).await;
    assert_eq!(client.head().await.field("content-type").as_deref(), Some("text/event-stream"));
    assert_eq!(client.event().await.unwrap(), big);
    for content in ["a", "b", "c"] {
        line.send(event(content)).await;
        assert!(client.event().await.unwrap().contains(&format!("\"{content}\"")));
    }
    // Two events in one chunk, one event in two.
    line.send(chunk(": comment\n\nevent: x\ndata: {\"a\":\"\ndata: b\"}\n\ndata: {\"choices\":")).await;
    line.send(finish().replacen("data: {\"choices\":", "", 0)).await;
    let rest = client.rest().await.unwrap();
    assert!(rest.starts_with(": comment\n\nevent: x\ndata: {\"a\":\"\ndata: b\"}\n\ndata: {\"choices\":"), "{rest}");
    assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
    // The connection serves the next.
    client.send(post(CALL)).await;
    line.request().await;
    line.send(fine()).await;
    assert_eq!(client.answer().await.status(), 200);
}

#[tokio::test]
async fn stream_that_breaks_after_its_first_event_ends_with_an_error_event() {
    let close_delimited = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let with_length = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 5000\r\n\r\n";
    let first = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
    for (story, sent, end, status) in [
        ("a reset", format!("{STREAM}{}", event("a")), Reset, 502),
        ("EOF", format!("{STREAM}{}", event("a")), Fin, 502),
        ("a proper end without the terminal event", format!("{STREAM}{}0\r\n\r\n", event("a")), Stall, 502),
        ("the end of a close-delimited stream", format!("{close_delimited}{first}"), Fin, 502),
        ("its end in the middle of an event", format!("{close_delimited}{first}data: {{\"cho"), Fin, 502),
        ("short of its length", format!("{with_length}{first}"), Fin, 502),
        ("silence", format!("{STREAM}{}", event("a")), Stall, 504),
        ("a cut in the middle of an event", format!("{STREAM}{}{}", event("a"), chunk("data: {\"cho")), Reset, 502),
    ] {
        let upstream = Upstream::start().await;
        let proxy = proxy(&upstream).provider(|provider| provider.idle_timeout = ms(300)).start().await;
        let mut upstream = upstream.script([vec![Read, Send(sent.into()), end]]);
        let mut client = proxy.client().await;
        client.send(post(STREAMED)).await;
        assert_eq!(client.head().await.status(), 200, "{story}");
        let text = client.rest().await.unwrap();
        assert!(text.starts_with(first), "{story}: {text}");
        assert!(!text.contains("[DONE]"), "{story}: {text}");
        let last = text.trim_end().rsplit("\n\n").next().unwrap();
        let error: serde_json::Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(error["error"]["status"], status, "{story}: {text}");
        assert!(error["error"]["message"].is_string(), "{story}: {text}");
        assert_eq!(upstream.unseen(), 1, "{story}: sent twice");
        proxy.until_metric("tidegate_in_flight", 0.0).await;
    }
}

#[tokio::test]
async fn stream_that_breaks_after_its_terminal_event_was_complete() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let whole = format!("{STREAM}{}{}", event("a"), finish());
    let without_last_chunk = whole.strip_suffix("0\r\n\r\n").unwrap();
    let _upstream = upstream.script([vec![Read, Send(without_last_chunk.into()), Reset]]);
    let mut client = proxy.client().await;
    client.send(post(STREAMED)).await;
    client.head().await;
    assert!(client.rest().await.unwrap().ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn large_plain_answer_that_is_cut_is_never_complete() {
    let big = vec![b'1'; 5 << 20];
    for framing in [format!("Content-Length: {}", 6 << 20), "Transfer-Encoding: chunked".to_owned()] {
        let upstream = Upstream::start().await;
        let proxy = proxy(&upstream).start().await;
        let head = format!("HTTP/1.1 200 OK\r\n{JSON}{framing}\r\n\r\n{:x}\r\n", 6 << 20);
        let sent = [head.as_bytes(), &big].concat();
        let mut upstream = upstream.script([vec![Read, Send(sent), Fin]]);
        let mut client = proxy.client().await;
        client.send(post(CALL)).await;
        let head = client.head().await;
        assert_eq!(head.status(), 200);
        let body = client.reader().body(&head, false).await;
        assert!(matches!(body, Err(End::Fin | End::Reset)), "{framing}: complete");
        assert_eq!(upstream.unseen(), 1, "{framing}");
    }
}

#[tokio::test]
async fn large_plain_answer_streams_on_and_is_whole() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let big = format!("[{}]", "1,".repeat(3 << 20) + "1");
    let _upstream = upstream.script([vec![Read, Send(json(&big))]]);
    assert!(proxy.client().await.ask(post(CALL)).await.text() == big);
}

/// An error whose body was too long to be judged whole was once passed on without the part that had been read.
#[tokio::test]
async fn error_too_long_to_be_judged_is_delivered_whole() {
    let long = "x".repeat(700_000);
    for fields in ["", "Connection: close\r\n"] {
        let upstream = Upstream::start().await;
        let proxy = proxy(&upstream).start().await;
        let mut upstream = upstream.script([vec![Read, Send(answer("500 Oops", fields, &long)), Stall]]);
        let seen = proxy.client().await.ask(post(CALL)).await;
        assert_eq!((seen.status(), seen.text() == long), (500, true));
        upstream.request().await;
        assert_eq!(upstream.unseen(), 0);
    }
}

/// A provider that sends its head at once and then thinks was asked again and again, each time for one more generation.
#[tokio::test]
async fn silence_behind_a_head_is_waited_out_for_first_byte_timeout_and_not_tried_again() {
    let times = |first_byte| {
        move |provider: &mut tidegate::upstream::settings::Upstream| {
            provider.idle_timeout = ms(50);
            provider.first_byte_timeout = first_byte;
        }
    };
    let plain = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n";
    for (head, rest) in [(plain, "{}".to_owned()), (STREAM, event("late") + &finish())] {
        let upstream = Upstream::start().await;
        let patient = proxy(&upstream).provider(times(ms(10_000))).start().await;
        let mut client = patient.client().await;
        client.send(post(r#"{"stream":true}"#)).await;
        let (mut line, _) = upstream.request().await;
        line.send(head).await;
        tokio::time::sleep(ms(200)).await; // longer than idle_timeout
        line.send(rest).await;
        assert_eq!(client.answer().await.status(), 200);
        let proxy = proxy(&upstream).provider(times(ms(600))).start().await;
        let mut client = proxy.client().await;
        client.send(post(r#"{"stream":true}"#)).await;
        let (mut line, _) = upstream.request().await;
        line.send(head).await;
        let answer = client.answer().await;
        assert_eq!((answer.status(), answer.error_code().as_str()), (504, "upstream_timeout"));
        assert!(upstream.is_untouched().await, "asked once");
    }
}

/// Comments before the first event were held without a bound.
#[tokio::test]
async fn comments_before_the_first_event_are_passed_on_when_there_are_many() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let mut client = proxy.client().await;
    client.send(post(r#"{"stream":true}"#)).await;
    let (mut line, _) = upstream.request().await;
    line.send(STREAM).await;
    line.send(chunk(&": still thinking\n\n".repeat(5_000))).await;
    assert_eq!(client.head().await.status(), 200);
    assert!(client.event().await.unwrap().starts_with(": still thinking"));
}

/// A refusal whose body dripped went to the client, although waiting would have helped.
#[tokio::test]
async fn refusal_too_long_to_be_read_is_waited_out_all_the_same() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).start().await;
    let long = answer("429 Too Many Requests", "retry-after-ms: 50\r\n", vec![b'x'; 400_000]);
    let _upstream = upstream.script([vec![Read, Send(long)], vec![Read, Send(fine())]]);
    assert_eq!(proxy.client().await.ask(post("{}")).await.status(), 200);
}
