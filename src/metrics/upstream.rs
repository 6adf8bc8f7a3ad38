//! What is measured for each upstream, and for each of its keys.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::family::{By, Catalogue, certain, figure};
use super::labels::{BreakerState, Dimension, DisconnectPhase, TokenKind, Verdict};
use super::{BUCKETS_ANSWER, Label};
use crate::openai::Usage;

/// The families that have an `upstream` label.
#[derive(Debug)]
pub(super) struct Families {
    attempts: IntCounterVec,
    first_byte: HistogramVec,
    tokens: IntCounterVec,
    refusals_within_limits: IntCounterVec,
    disconnects: IntCounterVec,
    breaker_opened: IntCounterVec,
    limit_signals: IntCounterVec,
    gate_closed: IntGaugeVec,
    paused: IntGaugeVec,
    breaker: IntGaugeVec,
    window_margin: GaugeVec,
    keys: KeyFamilies,
}

/// The families that have a `key` label, too.
#[derive(Debug, Clone)]
struct KeyFamilies {
    allowance_limit: IntGaugeVec,
    allowance_used: IntGaugeVec,
    allowance_left: IntGaugeVec,
    learned_limit: IntGaugeVec,
    slots_limit: IntGaugeVec,
    slots_in_use: IntGaugeVec,
}

impl Families {
    pub(super) fn new(catalogue: &Catalogue) -> Self {
        let counters = |name, help, labels: &[&str]| catalogue.counters(name, help, labels);
        let of_upstream = |name, help| catalogue.gauges(name, help, &["upstream"]);
        let families = Self {
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
            disconnects: counters(
                "tidegate_disconnects_total",
                "Connections lost, by when; upstream is empty where a client left before any attempt.",
                &["upstream", "phase"],
            ),
            breaker_opened: counters(
                "tidegate_breaker_opened_total",
                "How often so many failures in a row have stopped all calls to it.",
                &["upstream"],
            ),
            limit_signals: counters(
                "tidegate_limit_signals_total",
                "Resets before the answer that were taken for a refusal: its calls paused, then fewer at a time.",
                &["upstream"],
            ),
            gate_closed: of_upstream(
                "tidegate_gate_closed",
                "1 while nothing is sent because the provider asked for it.",
            ),
            paused: of_upstream("tidegate_paused", "1 while an operator has paused it: its calls wait."),
            breaker: of_upstream("tidegate_breaker_state", "0 closed (calls pass), 1 half-open (a probe), 2 open."),
            window_margin: catalogue.seconds_gauges(
                "tidegate_window_margin_seconds",
                "What is added to the window.",
                &["upstream"],
            ),
            keys: KeyFamilies::new(catalogue),
        };
        families.disconnect("", DisconnectPhase::Client);
        families
    }

    pub(super) fn disconnect(&self, upstream: &str, phase: DisconnectPhase) -> IntCounter {
        certain(self.disconnects.get_metric_with_label_values(&[upstream, phase.as_str()]))
    }

    pub(super) fn upstream(&self, name: &str, keys: usize) -> UpstreamMetrics {
        let by_kind = |kind| self.tokens.get_metric_with_label_values(&[kind, name]);
        UpstreamMetrics {
            attempts: By::new(|verdict| self.attempts.get_metric_with_label_values(&[name, verdict])),
            first_byte: certain(self.first_byte.get_metric_with_label_values(&[name])),
            tokens: By::new(by_kind),
            refusals_within_limits: certain(self.refusals_within_limits.get_metric_with_label_values(&[name])),
            disconnects: By::new(|phase| self.disconnects.get_metric_with_label_values(&[name, phase])),
            breaker_opened: certain(self.breaker_opened.get_metric_with_label_values(&[name])),
            limit_signals: certain(self.limit_signals.get_metric_with_label_values(&[name])),
            gate_closed: certain(self.gate_closed.get_metric_with_label_values(&[name])),
            paused: certain(self.paused.get_metric_with_label_values(&[name])),
            breaker: certain(self.breaker.get_metric_with_label_values(&[name])),
            window_margin: certain(self.window_margin.get_metric_with_label_values(&[name])),
            keys: (0..keys).map(|key| self.keys.key(name, &key.to_string())).collect(),
        }
    }

    /// An upstream has so many keys no more, or has gone with all of them (`kept` is zero): nothing is shown of how they
    /// stand. What was counted stays.
    pub(super) fn retire(&self, name: &str, kept: usize, keys: usize) {
        (kept..keys).for_each(|key| self.keys.key(name, &key.to_string()).retire());
        if kept == 0 {
            for family in [&self.gate_closed, &self.paused, &self.breaker] {
                set(family, &[name], None);
            }
            drop(self.window_margin.remove_label_values(&[name]));
        }
    }
}

impl KeyFamilies {
    fn new(catalogue: &Catalogue) -> Self {
        let of_key = |name, help| catalogue.gauges(name, help, &["upstream", "key"]);
        let of_dimension = |name, help| catalogue.gauges(name, help, &["upstream", "key", "dimension"]);
        Self {
            allowance_limit: of_dimension("tidegate_allowance_limit", "How much one period allows."),
            allowance_used: of_dimension(
                "tidegate_allowance_used",
                "How much of the current period is used, what is pending included.",
            ),
            allowance_left: of_dimension("tidegate_allowance_left", "How much could be used at once."),
            learned_limit: of_dimension(
                "tidegate_learned_limit",
                "The limit that is kept: as configured, or lower where the provider turned out to be stricter.",
            ),
            slots_limit: of_key("tidegate_slots_limit", "Requests that may run at a time."),
            slots_in_use: of_key("tidegate_slots_in_use", "Slots held, those that are about to return included."),
        }
    }

    fn key(&self, upstream: &str, key: &str) -> KeyMetrics {
        KeyMetrics { families: self.clone(), labels: [upstream.into(), key.into()] }
    }
}

/// The measures of one upstream. Cheap to clone; all clones, and all handles for the same name, count together.
#[derive(Debug, Clone)]
pub struct UpstreamMetrics {
    attempts: By<Verdict, IntCounter>,
    first_byte: Histogram,
    tokens: By<TokenKind, IntCounter>,
    refusals_within_limits: IntCounter,
    disconnects: By<DisconnectPhase, IntCounter>,
    breaker_opened: IntCounter,
    limit_signals: IntCounter,
    gate_closed: IntGauge,
    paused: IntGauge,
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

    /// A connection to it, or of its client, was lost.
    pub fn disconnect(&self, phase: DisconnectPhase) {
        self.disconnects.of(phase).inc();
    }

    /// How many connections were lost so far.
    #[must_use]
    pub fn disconnects(&self, phase: DisconnectPhase) -> u64 {
        self.disconnects.of(phase).get()
    }

    /// Its breaker has opened so many times more.
    pub fn breaker_opened(&self, times: u64) {
        self.breaker_opened.inc_by(times);
    }

    /// So many more times its resets were taken for a refusal.
    pub fn limit_signals(&self, times: u64) {
        self.limit_signals.inc_by(times);
    }

    /// Whether the gate is closed now.
    pub fn set_gate_closed(&self, closed: bool) {
        self.gate_closed.set(i64::from(closed));
    }

    /// Whether an operator has paused it.
    pub fn set_paused(&self, paused: bool) {
        self.paused.set(i64::from(paused));
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
    families: KeyFamilies,
    labels: [Arc<str>; 2],
}

impl KeyMetrics {
    /// An allowance as it stands: how much a period allows and how much of it is used; `None`: there is no such limit,
    /// and no series that would read like an exhausted one.
    pub fn set_allowance(&self, dimension: Dimension, limit_and_used: Option<(u64, u64)>) {
        let KeyFamilies { allowance_limit, allowance_used, allowance_left, .. } = &self.families;
        let figures = limit_and_used.map(|(limit, used)| [limit, used, limit.saturating_sub(used)]);
        for (index, family) in [allowance_limit, allowance_used, allowance_left].into_iter().enumerate() {
            self.set(family, dimension, figures.map(|figures| figures[index]));
        }
    }

    /// The limit that is kept, which is lower than the configured one where we have learned so; `None`: there is none.
    pub fn set_learned(&self, dimension: Dimension, limit: Option<u64>) {
        self.set(&self.families.learned_limit, dimension, limit);
    }

    /// The slots as they stand: how many there are, and how many of them are taken; `None`: there is no such limit.
    pub fn set_slots(&self, limit_and_used: Option<(u64, u64)>) {
        let KeyFamilies { slots_limit, slots_in_use, .. } = &self.families;
        let figures = limit_and_used.map(|(limit, used)| [limit, used]);
        let labels = [&*self.labels[0], &*self.labels[1]];
        for (index, family) in [slots_limit, slots_in_use].into_iter().enumerate() {
            set(family, &labels, figures.map(|figures| figures[index]));
        }
    }

    fn retire(&self) {
        for &dimension in Dimension::ALL {
            self.set_allowance(dimension, None);
            self.set_learned(dimension, None);
        }
        self.set_slots(None);
    }

    fn set(&self, family: &IntGaugeVec, dimension: Dimension, value: Option<u64>) {
        set(family, &[&*self.labels[0], &*self.labels[1], dimension.as_str()], value);
    }
}

fn set(family: &IntGaugeVec, labels: &[&str], value: Option<u64>) {
    match value {
        Some(value) => certain(family.get_metric_with_label_values(labels)).set(figure(value)),
        // One that was never there is as good as gone.
        None => drop(family.remove_label_values(labels)),
    }
}
