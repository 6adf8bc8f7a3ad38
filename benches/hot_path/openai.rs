//! Reading what decides, and framing events.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use tidegate::openai::continuation::{Partial, Style};
use tidegate::openai::{Frame, Framer, Route, Sniff, Terminal};

pub(crate) fn benches(criterion: &mut Criterion) {
    sniff(criterion);
    frame(criterion);
}

fn sniff(criterion: &mut Criterion) {
    let question = "why is the sky blue? ".repeat(90);
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{question}"}}],"stream":true}}"#);
    let mut group = criterion.benchmark_group("openai/sniff_2k");
    group.throughput(Throughput::Bytes(u64::try_from(body.len()).unwrap()));
    group.bench_function("sniff", |bench| bench.iter(|| Sniff::of(black_box(body.as_bytes()))));
    group.bench_function("naive_tree", |bench| {
        bench.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(body.as_bytes())).unwrap());
    });
    group.finish();
}

fn frame(criterion: &mut Criterion) {
    let event = concat!(
        r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","#,
        r#""choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}"#,
        "\n\n"
    );
    let chunk = Bytes::from_static(event.as_bytes());
    let mut group = criterion.benchmark_group("openai/event");
    group.throughput(Throughput::Elements(1));
    group.bench_function("frame_and_watch", |bench| {
        let (mut framer, mut terminal) = (Framer::default(), Terminal::for_route(Route::ChatCompletions));
        bench.iter(|| {
            for frame in framer.push(chunk.clone()) {
                terminal.observe(&frame);
                black_box(frame);
            }
        });
    });
    let event = framer_event(&chunk);
    group.bench_function("watch", |bench| {
        let mut terminal = Terminal::for_route(Route::ChatCompletions);
        bench.iter(|| terminal.observe(black_box(&event)));
    });
    // 1,000 events a stream, so that the text does not outgrow what is kept.
    group.bench_function("keep_to_continue_x1000", |bench| {
        bench.iter(|| {
            let mut partial = Partial::new(Route::ChatCompletions, 1);
            (0..1_000).for_each(|_| partial.observe(black_box(&event)));
            partial
        });
    });
    group.bench_function("splice", |bench| {
        let mut partial = Partial::new(Route::ChatCompletions, 1);
        partial.observe(&renamed(&chunk));
        let question = br#"{"messages":[]}"#;
        let mut splice = partial.request(question, Some(Style::Vllm)).unwrap().splice;
        bench.iter(|| black_box(splice.rewrite(event.clone())).unwrap().count());
    });
    group.bench_function("naive_tree", |bench| {
        bench.iter(|| {
            let data = chunk.strip_prefix(b"data: ").unwrap();
            black_box(serde_json::from_slice::<serde_json::Value>(data).unwrap())
        });
    });
    group.finish();
}

fn framer_event(chunk: &Bytes) -> Frame {
    Framer::default().push(chunk.clone()).next().unwrap()
}

/// As it would come in another stream.
fn renamed(chunk: &Bytes) -> Frame {
    let text = std::str::from_utf8(chunk).unwrap().replace("chatcmpl-1", "chatcmpl-2");
    framer_event(&Bytes::from(text))
}
