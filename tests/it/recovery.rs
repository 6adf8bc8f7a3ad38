//! A stream that breaks after some of it was passed on: it is told, or it goes on, as operator and client want it.

use tidegate::upstream::settings::{Continuation, Holdback, MidStream};

use crate::support::client::post_to;
use crate::support::process::Process;
use crate::support::proxy::{Builder, before, metric};
use crate::support::upstream::{STREAM, answer, chunk, event, finish};
use crate::support::wire::Request;
use crate::support::{Client, Step, Upstream, ms, post, proxy};

use Step::{Fin, Read, Reset, Send, Stall};

const STREAMED: &str =
    r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}],"seed":12345678901234567890}"#;

fn role() -> String {
    chunk(
        "data: {\"id\":\"first\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
    )
}

fn said(id: &str, content: &str) -> String {
    chunk(&format!(
        "data: {{\"id\":\"{id}\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{content}\"}}}}]}}\n\n"
    ))
}

fn stream(parts: &[String]) -> Step {
    Send(format!("{STREAM}{}", parts.concat()).into_bytes())
}

fn continuing(upstream: &Upstream, manner: Continuation) -> Builder {
    proxy(upstream).provider(|provider| provider.continuation = manner).set(|settings| {
        settings.recovery.mid_stream = MidStream::Continue;
        settings.retry.base = ms(10);
    })
}

/// The text of a chat stream.
fn text(stream: &str) -> String {
    let events = stream.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    let read = |data| serde_json::from_str::<serde_json::Value>(data).expect("JSON");
    events.filter_map(|data| read(data)["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
}

fn json(request: &Request) -> serde_json::Value {
    serde_json::from_slice(&request.body).expect("JSON")
}

#[tokio::test]
async fn stream_that_breaks_is_continued_where_it_broke() {
    for end in [Reset, Fin] {
        let upstream = Upstream::start().await;
        let proxy = continuing(&upstream, Continuation::Vllm).start().await;
        let rest = [role(), said("second", "lo "), said("second", "world"), finish()];
        let mut upstream = upstream
            .script([vec![Read, stream(&[role(), said("first", "Hel")]), end], vec![Read, stream(&rest), Stall]]);
        let seen = proxy.client().await.ask(post(STREAMED)).await;
        assert_eq!((seen.status(), text(&seen.text()).as_str()), (200, "Hello world"));
        assert!(seen.text().ends_with("data: [DONE]\n\n") && !seen.text().contains("second"), "{}", seen.text());
        assert_eq!(seen.text().matches("\"role\"").count(), 1);
        assert_eq!(upstream.request().await.body, STREAMED.as_bytes());
        let asked = upstream.request().await;
        let last = serde_json::json!({ "role": "assistant", "content": "Hel" });
        assert_eq!(json(&asked)["messages"][1], last);
        assert_eq!(
            (&json(&asked)["continue_final_message"], &json(&asked)["add_generation_prompt"]),
            (&true.into(), &false.into())
        );
        assert!(String::from_utf8_lossy(&asked.body).contains("\"seed\":12345678901234567890"));
        proxy.until_metric("tidegate_recoveries_total{how=\"continue\",result=\"ok\"}", 1.0).await;
        proxy.until_metric("tidegate_disconnects_total{phase=\"mid_stream\",upstream=\"default\"}", 1.0).await;
        proxy
            .until_metric("tidegate_calls_total{outcome=\"ok\",priority=\"normal\",route=\"chat_completions\"}", 1.0)
            .await;
    }
}

/// As many SDKs do, which do not wait for the end of HTTP's own.
#[tokio::test]
async fn stream_whose_client_leaves_with_its_last_event_was_recovered() {
    let upstream = Upstream::start().await;
    let proxy = continuing(&upstream, Continuation::Vllm).start().await;
    let unended = [role(), said("second", "lo"), finish().trim_end_matches("0\r\n\r\n").to_owned()];
    let _upstream = upstream
        .script([vec![Read, stream(&[role(), said("first", "Hel")]), Reset], vec![Read, stream(&unended), Stall]]);
    let mut client = proxy.client().await;
    client.send(post(STREAMED)).await;
    client.head().await;
    while client.event().await.is_some_and(|event| !event.contains("[DONE]")) {}
    drop(client);
    proxy.until_metric("tidegate_recoveries_total{how=\"continue\",result=\"ok\"}", 1.0).await;
}

#[tokio::test]
async fn continuation_that_breaks_is_continued() {
    let upstream = Upstream::start().await;
    let proxy = continuing(&upstream, Continuation::Prefix).start().await;
    let mut upstream = upstream.script([
        vec![Read, stream(&[role(), said("a", "one ")]), Reset],
        vec![Read, Reset],
        vec![Read, stream(&[role(), said("b", "two ")]), Fin],
        vec![Read, stream(&[said("c", "three"), finish()]), Stall],
    ]);
    let seen = proxy.client().await.ask(post(STREAMED)).await;
    assert_eq!(text(&seen.text()), "one two three");
    let bodies: Vec<_> =
        [upstream.request().await, upstream.request().await, upstream.request().await, upstream.request().await]
            .iter()
            .map(|request| json(request)["messages"][1].clone())
            .collect();
    assert_eq!(bodies[0], serde_json::Value::Null);
    assert_eq!((bodies[1]["content"].as_str(), &bodies[1]["prefix"]), (Some("one"), &true.into()));
    assert_eq!(bodies[1], bodies[2]);
    assert_eq!(bodies[3]["content"], "one two");
    assert_eq!(upstream.unseen(), 0);
}

#[tokio::test]
async fn stream_that_cannot_be_continued_ends_with_an_error() {
    let broken = || vec![Read, stream(&[role(), said("a", "Hel")]), Reset];
    let refused = || vec![Read, Send(answer("400 Bad Request", "Content-Type: application/json\r\n", "{}")), Stall];
    for (story, manner, then, requests) in [
        ("the provider cannot", Continuation::Off, refused(), 1),
        ("the provider says it cannot", Continuation::Vllm, refused(), 2),
        (
            "the provider does something else",
            Continuation::Vllm,
            vec![Read, Send(answer("200 OK", "", "{}")), Stall],
            2,
        ),
    ] {
        let upstream = Upstream::start().await;
        let proxy = continuing(&upstream, manner).start().await;
        let mut upstream = upstream.script([broken(), then]);
        let seen = proxy.client().await.ask(post(STREAMED)).await;
        assert!(seen.text().contains("\"code\":\"upstream_disconnected\""), "{story}: {}", seen.text());
        assert!(!seen.text().contains("[DONE]") && !seen.text().contains("\"stop\""), "{story}");
        assert_eq!(upstream.unseen(), requests, "{story}");
        proxy.until_metric("tidegate_recoveries_total{how=\"continue\",result=\"failed\"}", 1.0).await;
    }
}

#[tokio::test]
async fn stream_of_which_nothing_was_said_is_asked_for_again_of_any_provider() {
    let upstream = Upstream::start().await;
    let proxy = continuing(&upstream, Continuation::Off).start().await;
    let rest = [role().replace("first", "other"), said("other", "all"), finish()];
    let mut upstream = upstream.script([vec![Read, stream(&[role()]), Reset], vec![Read, stream(&rest), Stall]]);
    let seen = proxy.client().await.ask(post(STREAMED)).await;
    assert_eq!((text(&seen.text()).as_str(), seen.text().matches("role").count()), ("all", 1), "{}", seen.text());
    assert!(!seen.text().contains("other"), "{}", seen.text());
    assert_eq!(upstream.request().await.body, upstream.request().await.body);
}

/// The client is told what the whole answer used; the provider bills each part.
#[tokio::test]
async fn log_tells_what_the_client_was_told_it_used_and_metrics_what_was_billed() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
    let config = folder.path().join("tidegate.toml");
    let settings = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nstate_dir = {:?}\n\
         [telemetry]\nformat = \"json\"\n[[upstreams]]\nbase_url = {:?}\ncontinuation = \"vllm\"\n\
         [retry]\nbase = \"10ms\"\n[recovery]\nmid_stream = \"continue\"\n",
        folder.path().join("state"),
        upstream.base_url(),
    );
    std::fs::write(&config, settings).unwrap();
    let mut process = Process::serve(&config).await;
    // As vLLM counts with `continuous_usage_stats`: what was said before is a part of the second question.
    let used = |content: &str, prompt: u32, completion: u32| {
        let total = prompt + completion;
        chunk(&format!(
            "data: {{\"id\":\"a\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{content}\"}}}}],\"usage\":\
             {{\"prompt_tokens\":{prompt},\"completion_tokens\":{completion},\"total_tokens\":{total}}}}}\n\n"
        ))
    };
    let _upstream = upstream.script([
        vec![Read, stream(&[used("Hel", 10, 1), used("lo", 10, 2)]), Reset],
        vec![Read, stream(&[used(" w", 12, 1), used("or", 12, 2), used("ld", 12, 3), finish()]), Stall],
    ]);
    let seen = Client::to(process.clients).await.ask(post(STREAMED)).await;
    assert_eq!(text(&seen.text()), "Hello world");
    let told = seen.text().lines().rfind(|line| line.contains("usage")).unwrap().to_owned();
    assert!(told.contains("\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15"), "{told}");
    let line = process.says("\"outcome\":\"ok\"").await;
    assert!(
        line.contains("\"prompt_tokens\":10,\"completion_tokens\":5") && line.contains("\"recovered\":1"),
        "{line}"
    );
    for (kind, billed) in [("prompt", 22.0), ("completion", 5.0)] {
        let sample = format!("tidegate_tokens_total{{kind=\"{kind}\",upstream=\"default\"}}");
        assert_eq!(metric(process.admin, &sample).await.to_bits(), f64::to_bits(billed), "{kind}");
    }
}

/// A provider may begin by saying again what was said; that is held back until it is clear, as far as there is room.
#[tokio::test]
async fn what_is_held_back_of_a_continuation_is_paid_for() {
    let pieces: Vec<String> =
        (0..6).map(|piece| format!("{piece} is said in {}. ", "many words ".repeat(900))).collect();
    let said_before: Vec<String> = pieces.iter().map(|piece| said("a", piece)).collect();
    for (memory_max, has_room) in [(220_000, false), (500_000, true)] {
        let upstream = Upstream::start().await;
        let proxy = continuing(&upstream, Continuation::Prefix)
            .set(|settings| settings.server.memory_max = memory_max)
            .start()
            .await;
        let rest = [&said_before[..], &[said("b", "The end"), finish()]].concat();
        let _upstream = upstream.script([vec![Read, stream(&said_before), Reset], vec![Read, stream(&rest), Stall]]);
        let seen = proxy.client().await.ask(post(STREAMED)).await.text();
        let (end, result) = if has_room { ("[DONE]\n\n", "ok") } else { ("", "failed") };
        assert!(seen.ends_with(end) && seen.contains("upstream_disconnected") != has_room, "{memory_max}");
        let whole = if has_room { format!("{}The end", pieces.concat()) } else { pieces.concat() };
        let shown = text(seen.split("data: {\"error\"").next().unwrap());
        assert!(shown == whole, "{memory_max}: {} of {}", shown.len(), whole.len());
        proxy.until_metric(&format!("tidegate_recoveries_total{{how=\"continue\",result=\"{result}\"}}"), 1.0).await;
        proxy.until_metric("tidegate_memory_bytes{kind=\"flights\"}", 0.0).await;
    }
}

#[tokio::test]
async fn calls_that_are_sent_once_are_not_continued() {
    for (story, setting) in [("an agent", true), ("retry.on_disconnect = false", false)] {
        let upstream = Upstream::start().await;
        let builder = continuing(&upstream, Continuation::Vllm);
        let proxy = match setting {
            true => builder.provider(|provider| provider.kind = tidegate::upstream::settings::Kind::Agent),
            false => builder.set(|settings| settings.retry.on_disconnect = false),
        };
        let proxy = proxy.start().await;
        let mut upstream = upstream.script([vec![Read, stream(&[said("a", "Hel")]), Reset]]);
        let seen = proxy.client().await.ask(post(STREAMED)).await;
        assert!(seen.text().contains("upstream_disconnected"), "{story}: {}", seen.text());
        assert_eq!(upstream.unseen(), 1, "{story}");
    }
}

/// A client that asks for it knows that another `id` means another answer, and throws away what it had.
#[tokio::test]
async fn stream_begins_anew_for_who_asks_for_that() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(|settings| settings.retry.base = ms(10)).start().await;
    let mut upstream = upstream.script([
        vec![Read, stream(&[said("first", "Hel")]), Reset],
        vec![Read, stream(&[said("second", "Good day"), finish()]), Stall],
    ]);
    let call = post_to("/v1/chat/completions", "x-tidegate-mid-stream: restart\r\n", STREAMED);
    let seen = proxy.client().await.ask(call).await;
    let (before, after) =
        seen.text().split_once(": restarted attempt=2\n").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!((text(&before).as_str(), text(&after).as_str()), ("Hel", "Good day"));
    assert!(after.contains("second") && after.ends_with("data: [DONE]\n\n"));
    assert_eq!(upstream.request().await.body, upstream.request().await.body);
    proxy.until_metric("tidegate_duplicates_sent_total", 1.0).await;
}

#[tokio::test]
async fn client_has_the_last_word_on_its_own_stream() {
    let upstream = Upstream::start().await;
    let proxy = continuing(&upstream, Continuation::Vllm).start().await;
    let mut upstream = upstream.script([vec![Read, stream(&[said("a", "Hel")]), Reset]]);
    let call = post_to("/v1/chat/completions", "x-tidegate-mid-stream: error\r\n", STREAMED);
    let seen = proxy.client().await.ask(call).await;
    assert!(seen.text().contains("upstream_disconnected"));
    assert_eq!(upstream.unseen(), 1);
    let call = post_to("/v1/chat/completions", "x-tidegate-mid-stream: again\r\n", STREAMED);
    let refused = proxy.client().await.ask(call).await;
    assert_eq!(refused.status(), 400);
    assert!(refused.text().contains("x-tidegate-mid-stream") && refused.text().contains("error, continue or restart"));
}

#[tokio::test]
async fn client_is_kept_company_while_the_rest_is_waited_for() {
    let upstream = Upstream::start().await;
    let proxy = continuing(&upstream, Continuation::Vllm)
        .set(|settings| settings.admission.keepalive_after = Some(ms(50)))
        .concurrency(1)
        .provider(|provider| provider.limits.slot_release_delay_aborted = ms(300))
        .start()
        .await;
    let _upstream = upstream.script([
        vec![Read, stream(&[said("a", "Hel")]), Reset],
        vec![Read, stream(&[said("b", "lo"), finish()]), Stall],
    ]);
    let seen = proxy.client().await.ask(post(STREAMED)).await;
    let comments = seen.text().matches(": waiting attempt=2\n").count();
    assert!((2..8).contains(&comments), "{comments}: {}", seen.text());
    assert_eq!(text(&seen.text()), "Hello");
}

#[tokio::test]
async fn what_breaks_while_it_is_held_back_is_retried_and_the_client_notices_nothing() {
    let tokens = Holdback::Tokens(3.try_into().unwrap());
    for (story, holdback, said_before) in [
        ("tokens", tokens, vec![role(), event("x"), event("y")]),
        ("time", Holdback::Time(ms(60_000)), vec![role(), event("x"), event("y"), event("z"), event("w")]),
    ] {
        let upstream = Upstream::start().await;
        let proxy = before(&upstream.base_url())
            .set(|settings| {
                settings.recovery.holdback = holdback;
                settings.retry.base = ms(10);
            })
            .start()
            .await;
        let mut upstream = upstream.script([
            vec![Read, stream(&said_before), Reset],
            vec![Read, stream(&[event("a"), event("b"), finish()]), Stall],
        ]);
        let seen = proxy.client().await.ask(post(STREAMED)).await;
        assert_eq!(
            (text(&seen.text()).as_str(), seen.head.fields("x-tidegate-attempts")),
            ("ab", vec!["2".to_owned()]),
            "{story}"
        );
        assert_eq!(upstream.unseen(), 2, "{story}");
    }
}

#[tokio::test]
async fn no_more_is_held_back_than_the_settings_say() {
    for holdback in [Holdback::FirstEvent, Holdback::Tokens(1.try_into().unwrap()), Holdback::Time(ms(50))] {
        let upstream = Upstream::start().await;
        let proxy = proxy(&upstream).set(|settings| settings.recovery.holdback = holdback).start().await;
        let _upstream = upstream.script([vec![Read, stream(&[event("a"), event("b")]), Stall]]);
        let mut client = proxy.client().await;
        client.send(post(STREAMED)).await;
        client.head().await;
        assert!(client.event().await.is_some_and(|event| event.contains("\"a\"")), "{holdback:?}");
    }
}

/// A provider that stops in the middle of what is held back is not thinking any more.
#[tokio::test]
async fn stream_that_stalls_while_it_is_held_back_is_retried() {
    let upstream = Upstream::start().await;
    let proxy = before(&upstream.base_url())
        .set(|settings| {
            settings.recovery.holdback = Holdback::Tokens(3.try_into().unwrap());
            settings.retry.base = ms(10);
        })
        .provider(|provider| provider.idle_timeout = ms(100))
        .start()
        .await;
    let mut upstream = upstream.script([
        vec![Read, stream(&[event("x")]), Stall],
        vec![Read, stream(&[event("a"), event("b"), finish()]), Stall],
    ]);
    let seen = proxy.client().await.ask(post(STREAMED)).await;
    assert_eq!((seen.status(), text(&seen.text()).as_str()), (200, "ab"));
    assert_eq!(upstream.unseen(), 2);
}

/// Its client was told that the first half is not encoded, so the second must not be.
#[tokio::test]
async fn rest_is_asked_for_unencoded_and_may_come_whole() {
    let upstream = Upstream::start().await;
    let proxy = continuing(&upstream, Continuation::Vllm)
        .set(|settings| settings.recovery.holdback = Holdback::Tokens(9.try_into().unwrap()))
        .start()
        .await;
    let many: Vec<String> = (0..12).map(|_| said("a", "x")).collect();
    // It ends without a blank line behind its last event: so it comes whole, or not at all.
    let rest = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n\
                data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"y\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]";
    let mut upstream = upstream.script([vec![Read, stream(&many), Reset], vec![Read, Send(rest.into()), Fin]]);
    let call = post_to("/v1/chat/completions", "Accept-Encoding: gzip\r\n", STREAMED);
    let seen = proxy.client().await.ask(call).await;
    assert_eq!(text(&seen.text()), "xxxxxxxxxxxxy", "{}", seen.text());
    assert!(seen.text().contains("[DONE]") && !seen.text().contains("error"), "{}", seen.text());
    assert_eq!(upstream.request().await.head.field("accept-encoding").as_deref(), Some("gzip"));
    assert_eq!(upstream.request().await.head.field("accept-encoding").as_deref(), Some("identity"));
}

/// A provider that ignores what it does not know. Nothing of its new answer reaches the client.
#[tokio::test]
async fn provider_that_answers_anew_instead_of_going_on_is_found_out() {
    const BEGUN: &str = "The tide comes in twice a day, and goes";
    for (manner, anew) in [
        (Continuation::Vllm, [said("second", &BEGUN[..20]), said("second", &BEGUN[20..])]),
        (Continuation::Prefix, [said("second", BEGUN).replace("goes", "does"), said("second", " other things")]),
        (Continuation::PrefixEcho, [said("second", "The sea"), said("second", " is deep")]),
    ] {
        let upstream = Upstream::start().await;
        let proxy = continuing(&upstream, manner).start().await;
        let first = stream(&[role(), said("first", BEGUN), said("first", " out")]);
        let [one, two] = anew;
        let mut upstream =
            upstream.script([vec![Read, first, Reset], vec![Read, stream(&[role(), one, two, finish()]), Stall]]);
        let seen = proxy.client().await.ask(post(STREAMED)).await;
        let (text, error) = seen.text().split_once("data: {\"error\":").map(|(a, b)| (text(a), b.to_owned())).unwrap();
        assert_eq!(text, format!("{BEGUN} out"), "{manner:?}");
        assert!(error.contains("upstream_disconnected") && !error.contains("[DONE]"), "{manner:?}: {error}");
        assert_eq!(upstream.unseen(), 2, "{manner:?}");
        proxy.until_metric("tidegate_recoveries_total{how=\"continue\",result=\"failed\"}", 1.0).await;
    }
}

#[tokio::test]
async fn what_a_provider_is_known_to_repeat_is_taken_out_however_short_it_is() {
    let upstream = Upstream::start().await;
    let proxy = continuing(&upstream, Continuation::PrefixEcho).start().await;
    let mut upstream = upstream.script([
        vec![Read, stream(&[role(), said("first", "ha"), said("first", " ")]), Reset],
        vec![Read, stream(&[role(), said("second", "ha"), said("second", " ha")]), Reset],
        vec![Read, stream(&[role(), said("third", "ha"), said("third", " ha ho"), finish()]), Stall],
    ]);
    let seen = proxy.client().await.ask(post(STREAMED)).await;
    assert_eq!(text(&seen.text()), "ha ha ho", "{}", seen.text());
    let _first = upstream.request().await;
    for said in ["ha", "ha ha"] {
        let last = serde_json::json!({ "role": "assistant", "content": said, "prefix": true });
        assert_eq!(json(&upstream.request().await)["messages"][1], last);
    }
}
