//! Registration, and children resolved ahead of time: recording is then a few atomic additions and no look-up.

use std::marker::PhantomData;
use std::sync::OnceLock;

use prometheus::core::Collector;
use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use super::labels::Label;

/// Unwraps what can fail only by a mistake in the catalogue itself: a name twice, a bad name, a wrong number of labels.
#[expect(
    clippy::expect_used,
    reason = "names and labels are constants, and a test builds and fills the whole catalogue"
)]
pub(super) fn certain<T>(result: prometheus::Result<T>) -> T {
    result.expect("a correct catalogue")
}

/// Makes metrics and registers them.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    registry: Registry,
}

impl Catalogue {
    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help))
    }

    pub(super) fn seconds_counter(&self, name: &str, help: &str) -> Counter {
        self.add(Counter::new(name, help))
    }

    pub(super) fn seconds_counters(&self, name: &str, help: &str, labels: &[&str]) -> CounterVec {
        self.add(CounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn seconds_gauge(&self, name: &str, help: &str) -> Gauge {
        self.add(Gauge::new(name, help))
    }

    pub(super) fn seconds_gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.add(GaugeVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    pub(super) fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
    }

    pub(super) fn into_registry(self) -> Registry {
        self.registry
    }

    fn add<M: Collector + Clone + 'static>(&self, made: prometheus::Result<M>) -> M {
        let metric = certain(made);
        certain(self.registry.register(Box::new(metric.clone())));
        metric
    }
}

/// One child for each value of a label.
#[derive(Debug, Clone)]
pub(super) struct By<L, M> {
    children: Vec<M>,
    label: PhantomData<L>,
}

impl<L: Label, M> By<L, M> {
    pub(super) fn new(child: impl Fn(&'static str) -> prometheus::Result<M>) -> Self {
        let children = L::ALL.iter().map(|label| certain(child(label.as_str()))).collect();
        Self { children, label: PhantomData }
    }

    pub(super) fn of(&self, label: L) -> &M {
        &self.children[label.index()]
    }
}

/// Counters by three labels, resolved when first counted: of their hundreds of combinations only a few occur.
#[derive(Debug)]
pub(super) struct By3<A, B, C> {
    family: IntCounterVec,
    children: Vec<OnceLock<IntCounter>>,
    labels: PhantomData<(A, B, C)>,
}

impl<A: Label, B: Label, C: Label> By3<A, B, C> {
    pub(super) fn new(family: IntCounterVec) -> Self {
        let combinations = A::ALL.len() * B::ALL.len() * C::ALL.len();
        Self { family, children: (0..combinations).map(|_| OnceLock::new()).collect(), labels: PhantomData }
    }

    pub(super) fn of(&self, a: A, b: B, c: C) -> &IntCounter {
        let index = (a.index() * B::ALL.len() + b.index()) * C::ALL.len() + c.index();
        let resolve = || certain(self.family.get_metric_with_label_values(&[a.as_str(), b.as_str(), c.as_str()]));
        self.children[index].get_or_init(resolve)
    }
}

/// A size as a gauge holds it.
pub(super) fn figure(n: impl TryInto<i64>) -> i64 {
    n.try_into().unwrap_or(i64::MAX)
}
