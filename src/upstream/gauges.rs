//! What is used of each upstream, in its gauges.

use super::Upstreams;
use super::target::Target;
use crate::ids::{KeyId, LaneId};
use crate::limits::Usage;
use crate::metrics::{Dimension, KeyMetrics};

impl Upstreams {
    /// Shows how much of each lane is used.
    ///
    /// Keys of clients have a lane each, but no series: there is no bound of the settings on them. The fullest of an
    /// upstream stands for all, as its key `0`, and so does the one allowance of keys that share it.
    pub fn show_lanes(&self, lanes: &[(LaneId, Usage)]) {
        for target in &self.0.present.load().targets {
            let own = || lanes.iter().filter(|(lane, _)| lane.upstream == target.name);
            // While one is open, calls go.
            let closed = own().next().is_some() && own().all(|(_, usage)| usage.closed_until.is_some());
            target.metrics.set_gate_closed(closed);
            let fullest = own().max_by(|(_, a), (_, b)| share_used(a).total_cmp(&share_used(b)));
            let margin = own().map(|(_, usage)| usage.window_margin).max();
            target.metrics.set_window_margin(margin.unwrap_or(target.settings.limits.window_margin));
            let shares_one = own().any(|(lane, _)| lane.key == KeyId::ALL);
            if target.passes_keys() || shares_one {
                if let (Some((_, usage)), Some(key)) = (fullest, target.metrics.key(0)) {
                    show(key, usage);
                }
            } else {
                own().for_each(|(lane, usage)| show_key(target, lane, usage));
            }
        }
    }

    /// Shows which upstreams are paused.
    pub fn show_paused<'a>(&self, paused: impl IntoIterator<Item = &'a str>) {
        let paused: Vec<_> = paused.into_iter().collect();
        for target in &self.0.present.load().targets {
            target.metrics.set_paused(paused.contains(&&*target.name));
        }
    }
}

fn show_key(target: &Target, lane: &LaneId, usage: &Usage) {
    if let Some(key) = target.key_metrics(lane.key) {
        show(key, usage);
    }
}

/// The limits of a usage are those in force: as configured, or as learned.
fn show(key: &KeyMetrics, usage: &Usage) {
    let requests = usage.window.map(|(used, limit)| (u64::from(limit), u64::from(used)));
    key.set_allowance(Dimension::Requests, requests);
    key.set_learned(Dimension::Requests, requests.map(|(limit, _)| limit));
    let told = |(used, limit)| (limit, used);
    key.set_allowance(Dimension::Tokens, usage.tokens.map(told));
    key.set_learned(Dimension::Tokens, usage.tokens.map(|(_, limit)| limit));
    key.set_allowance(Dimension::RequestsPerDay, usage.day.map(told));
    key.set_learned(Dimension::Concurrency, usage.slots_cap.map(u64::from));
    if let Some(cap) = usage.slots_cap {
        key.set_slots(cap.into(), usage.slots_in_use.into());
    }
}

/// How much is used of what there is least of, 0 to 1.
fn share_used(usage: &Usage) -> f64 {
    let share = |(used, limit): (u32, u32)| f64::from(used) / f64::from(limit.max(1));
    let window = usage.window.map_or(0.0, share);
    window.max(usage.slots_cap.map_or(0.0, |cap| share((usage.slots_in_use, cap))))
}
