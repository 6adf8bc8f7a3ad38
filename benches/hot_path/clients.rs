//! Telling who calls, for each request once.

use criterion::Criterion;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};
use tidegate::admission::settings::{Client, ClientKey};
use tidegate::pipeline::Clients;
use tidegate::units::Secret;

pub(crate) fn benches(criterion: &mut Criterion) {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer tg-key-of-the-last-client-of-all"));
    for name in ["accept", "user-agent", "content-type", "content-length", "x-stainless-lang", "x-stainless-os"] {
        headers.insert(name, HeaderValue::from_static("what an SDK sends"));
    }
    let known = |key: String| Client::new(key.clone(), ClientKey::Plain(Secret::new(key)));
    let many = (0..99).map(|n| format!("tg-{n}")).chain(["tg-key-of-the-last-client-of-all".to_owned()]);
    for (name, clients) in [
        ("clients/anyone", Clients::default()),
        ("clients/one_of_a_hundred", Clients::new(&many.map(known).collect::<Vec<_>>(), false)),
    ] {
        criterion.bench_function(name, |bench| {
            bench.iter_batched_ref(
                || headers.clone(),
                |headers| clients.identify(headers),
                criterion::BatchSize::SmallInput,
            );
        });
    }
}
