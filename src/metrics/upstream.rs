//! What is measured for each upstream, and for each of its keys.

use std::time::Duration;

use prometheus::{Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::family::{By, Catalogue, certain, figure};
use super::labels::{BreakerState, TokenKind, Verdict};
use super::{BUCKETS_ANSWER, Label};
use crate::openai::Usage;

/// The families that have an `upstream` label.
#[derive(Debug)]
pub(super) struct Families {
    attempts: IntCounterVec,
    first_byte: HistogramVec,
    tokens: IntCounterVec,
    refusals_within_limits: IntCounterVec,
    gate_closed: IntGaugeVec,
    breaker: IntGaugeVec,
    window_margin: GaugeVec,
    allowance_limit: IntGaugeVec,
    allowance_used: IntGaugeVec,
    allowance_left: IntGaugeVec,
    slots_limit: IntGaugeVec,
    slots_in_use: IntGaugeVec,
}

impl Families {
    pub(super) fn new(catalogue: &Catalogue) -> Self {
        let counters = |name, help, labels: &[&str]| catalogue.counters(name, help, labels);
        let of_upstream = |name, help| catalogue.gauges(name, help, &["upstream"]);
        let of_key = |name, help| catalogue.gauges(name, help, &["upstream", "key"]);
        Self {
            attempts: counters(
                "tidegate_attempts_total",
                "Requests sent upstream, by what their result meant.",
                &["upstream", "verdict"],
            ),
            first_byte: catalogue.histograms(
                "tidegate_first_byte_seconds",
                "From the request's last byte to the answer's first.",
                &["upstream"],
                BUCKETS_ANSWER,
            ),
            tokens: counters(
                "tidegate_tokens_total",
                "Tokens used, as the provider reported them.",
                &["kind", "upstream"],
            ),
            refusals_within_limits: counters(
                "tidegate_upstream_refusals_within_limits_total",
                "Refusals that came although we were inside the configured limits; the limits or the margin are too wide.",
                &["upstream"],
            ),
            gate_closed: of_upstream(
                "tidegate_gate_closed",
                "1 while nothing is sent because the provider asked for it.",
            ),
            breaker: of_upstream("tidegate_breaker_state", "0 closed (calls pass), 1 half-open (a probe), 2 open."),
            window_margin: catalogue.seconds_gauges(
                "tidegate_window_margin_seconds",
                "What is added to the window.",
                &["upstream"],
            ),
            allowance_limit: of_key("tidegate_allowance_limit", "Requests that one window allows."),
            allowance_used: of_key("tidegate_allowance_used", "Requests of the current window, pending ones included."),
            allowance_left: of_key("tidegate_allowance_left", "Requests that could go at once."),
            slots_limit: of_key("tidegate_slots_limit", "Requests that may run at a time."),
            slots_in_use: of_key("tidegate_slots_in_use", "Slots held, those that are about to return included."),
        }
    }

    pub(super) fn upstream(&self, name: &str, keys: usize) -> UpstreamMetrics {
        let by_kind = |kind| self.tokens.get_metric_with_label_values(&[kind, name]);
        UpstreamMetrics {
            attempts: By::new(|verdict| self.attempts.get_metric_with_label_values(&[name, verdict])),
            first_byte: certain(self.first_byte.get_metric_with_label_values(&[name])),
            tokens: By::new(by_kind),
            refusals_within_limits: certain(self.refusals_within_limits.get_metric_with_label_values(&[name])),
            gate_closed: certain(self.gate_closed.get_metric_with_label_values(&[name])),
            breaker: certain(self.breaker.get_metric_with_label_values(&[name])),
            window_margin: certain(self.window_margin.get_metric_with_label_values(&[name])),
            keys: (0..keys).map(|key| self.key(name, &key.to_string())).collect(),
        }
    }

    fn key(&self, upstream: &str, key: &str) -> KeyMetrics {
        let child = |family: &IntGaugeVec| certain(family.get_metric_with_label_values(&[upstream, key]));
        KeyMetrics {
            allowance_limit: child(&self.allowance_limit),
            allowance_used: child(&self.allowance_used),
            allowance_left: child(&self.allowance_left),
            slots_limit: child(&self.slots_limit),
            slots_in_use: child(&self.slots_in_use),
        }
    }
}

/// The measures of one upstream. Cheap to clone; all clones, and all handles for the same name, count together.
#[derive(Debug, Clone)]
pub struct UpstreamMetrics {
    attempts: By<Verdict, IntCounter>,
    first_byte: Histogram,
    tokens: By<TokenKind, IntCounter>,
    refusals_within_limits: IntCounter,
    gate_closed: IntGauge,
    breaker: IntGauge,
    window_margin: Gauge,
    keys: Vec<KeyMetrics>,
}

impl UpstreamMetrics {
    /// An attempt has ended.
    pub fn attempt(&self, verdict: Verdict) {
        self.attempts.of(verdict).inc();
    }

    /// The first byte of an answer came this long after the last byte of the request.
    pub fn first_byte(&self, after: Duration) {
        self.first_byte.observe(after.as_secs_f64());
    }

    /// An answer reported what it used.
    pub fn tokens(&self, usage: Usage) {
        self.tokens.of(TokenKind::Prompt).inc_by(usage.prompt_tokens.unwrap_or(0));
        self.tokens.of(TokenKind::Completion).inc_by(usage.completion_tokens.unwrap_or(0));
    }

    /// The provider refused although we were inside the limits.
    pub fn refused_within_limits(&self) {
        self.refusals_within_limits.inc();
    }

    /// Whether the gate is closed now.
    pub fn set_gate_closed(&self, closed: bool) {
        self.gate_closed.set(i64::from(closed));
    }

    /// The state the breaker is in now.
    pub fn set_breaker(&self, state: BreakerState) {
        self.breaker.set(figure(state.index()));
    }

    /// The margin that is added to the window now.
    pub fn set_window_margin(&self, margin: Duration) {
        self.window_margin.set(margin.as_secs_f64());
    }

    /// The measures of the key with this index in the settings, if it was declared.
    #[must_use]
    pub fn key(&self, index: usize) -> Option<&KeyMetrics> {
        self.keys.get(index)
    }
}

/// The measures of one upstream key: each has an allowance and slots of its own.
#[derive(Debug, Clone)]
pub struct KeyMetrics {
    allowance_limit: IntGauge,
    allowance_used: IntGauge,
    allowance_left: IntGauge,
    slots_limit: IntGauge,
    slots_in_use: IntGauge,
}

impl KeyMetrics {
    /// The window as it stands: what it allows, what counts in it, what could go at once.
    pub fn set_allowance(&self, limit: u64, used: u64, left: u64) {
        self.allowance_limit.set(figure(limit));
        self.allowance_used.set(figure(used));
        self.allowance_left.set(figure(left));
    }

    /// The slots as they stand.
    pub fn set_slots(&self, limit: u64, in_use: u64) {
        self.slots_limit.set(figure(limit));
        self.slots_in_use.set(figure(in_use));
    }
}
