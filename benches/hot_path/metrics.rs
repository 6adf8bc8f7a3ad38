//! Recording all metrics of a call.

use criterion::Criterion;
use tidegate::ids::ClientId;
use tidegate::metrics::{CallEnd, Metrics, Outcome, Verdict};
use tidegate::openai::Route;
use tidegate::time::Duration;
use tidegate::units::Priority;

pub(crate) fn benches(criterion: &mut Criterion) {
    let metrics = Metrics::new();
    let upstream = metrics.upstream("up", 1);
    let client = ClientId::Named("chat".into());
    metrics.declare_clients(["chat", "batch"]);
    let end = CallEnd {
        route: Route::ChatCompletions,
        priority: Priority::High,
        outcome: Outcome::Ok,
        duration: Duration::from_millis(1_500),
        queued: Duration::from_millis(500),
        upstream: Duration::from_millis(990),
    };
    criterion.bench_function("metrics/all_of_a_call", |bench| {
        bench.iter(|| {
            let present = metrics.in_flight();
            metrics.queue_wait(end.priority, end.queued);
            upstream.attempt(Verdict::Deliver);
            upstream.first_byte(end.upstream);
            metrics.client_served(&client, 1, end.queued);
            metrics.call_ended(&end);
            drop(present);
        });
    });
}
