//! What is used of each upstream, in its gauges.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Upstreams;
use super::settings::Upstream;
use super::target::{Target, series_of};
use crate::ids::{KeyId, LaneId};
use crate::limits::Usage;
use crate::metrics::{Dimension, KeyMetrics, Metrics};

impl Upstreams {
    /// Shows how much of each lane is used.
    ///
    /// Keys of clients have a lane each, but no series: there is no bound of the settings on them. The fullest of an
    /// upstream stands for all, as its key `0`, and so does the one allowance of keys that share it.
    pub fn show_lanes(&self, lanes: &[(LaneId, Usage)]) {
        let present = self.0.present.load();
        for target in &present.targets {
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
        self.0.shown.retire_absent(&self.0.metrics, &present.targets);
    }

    /// Shows which upstreams are paused.
    pub fn show_paused(&self, paused: &[Arc<str>]) {
        for target in &self.0.present.load().targets {
            target.metrics.set_paused(paused.contains(&target.name));
        }
    }
}

/// How many series of keys each upstream has had at the most, of all that there ever were. What is not there any more is
/// retired whenever somebody looks, since who looks during a reload may bring it back.
#[derive(Debug, Default)]
pub(super) struct Shown(Mutex<HashMap<Arc<str>, usize>>);

impl Shown {
    pub(super) fn note(&self, upstreams: &[Upstream]) {
        let mut shown = self.0.lock();
        for upstream in upstreams {
            let most = shown.entry(upstream.name.as_str().into()).or_default();
            *most = series_of(upstream).max(*most);
        }
    }

    fn retire_absent(&self, metrics: &Metrics, present: &[Arc<Target>]) {
        for (name, &most) in &*self.0.lock() {
            let present = present.iter().find(|target| target.name == *name);
            metrics.retire_upstream(name, present.map_or(0, |target| series_of(&target.settings)), most);
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
    let at_a_time = [usage.slots_cap, usage.at_a_time].into_iter().flatten().min();
    key.set_learned(Dimension::Concurrency, at_a_time.map(u64::from));
    key.set_slots(usage.slots_cap.map(|cap| (cap.into(), usage.slots_in_use.into())));
}

/// How much is used of what there is least of, 0 to 1.
fn share_used(usage: &Usage) -> f64 {
    let share = |(used, limit): (u32, u32)| f64::from(used) / f64::from(limit.max(1));
    let window = usage.window.map_or(0.0, share);
    window.max(usage.slots_cap.map_or(0.0, |cap| share((usage.slots_in_use, cap))))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ids::KeyId;
    use crate::memory::Memory;
    use crate::metrics::Metrics;
    use crate::time::{self, Duration, Tasks};
    use crate::units::Secret;
    use crate::upstream::Config;
    use crate::upstream::settings::{Recovery, Retry, Upstream};

    fn upstream(name: &str, keys: &[&str]) -> Upstream {
        let mut upstream = Upstream::new(name.to_owned(), "http://127.0.0.1:1/v1".parse().unwrap());
        upstream.api_keys = keys.iter().map(|key| Secret::new((*key).to_owned())).collect();
        upstream
    }

    fn upstreams(keys: &[&str]) -> (Upstreams, Arc<Metrics>) {
        let metrics = Metrics::new();
        let upstreams = with(&[upstream("main", keys)], |config| {
            Upstreams::new(config, Tasks::default(), Arc::clone(&metrics), Memory::new(1 << 20)).unwrap()
        });
        (upstreams, metrics)
    }

    fn with<T>(upstreams: &[Upstream], then: impl FnOnce(&Config<'_>) -> T) -> T {
        let (retry, recovery) = (&Retry::default(), &Recovery::default());
        then(&Config { upstreams, retry, recovery, write_timeout: Duration::from_secs(60) })
    }

    fn lane(key: &str, used: u32, is_closed: bool) -> (LaneId, Usage) {
        let closed_until = is_closed.then(|| time::now() + Duration::from_secs(9));
        let usage =
            Usage { window: Some((used, 40)), slots_cap: Some(5), slots_in_use: 1, closed_until, ..Usage::default() };
        (LaneId { upstream: "main".into(), key: KeyId::of(key) }, usage)
    }

    #[track_caller]
    fn assert_shows(metrics: &Metrics, line: &str) {
        let text = metrics.render();
        assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn fullest_key_of_clients_stands_for_all() {
        let (upstreams, metrics) = upstreams(&[]);
        upstreams.show_lanes(&[lane("sk-1", 3, false), lane("sk-2", 38, true), lane("sk-3", 12, false)]);
        assert_shows(&metrics, r#"tidegate_allowance_left{dimension="requests",key="0",upstream="main"} 2"#);
        assert_shows(&metrics, r#"tidegate_learned_limit{dimension="requests",key="0",upstream="main"} 40"#);
        assert_shows(&metrics, r#"tidegate_gate_closed{upstream="main"} 0"#);
        assert_eq!(metrics.render().matches("tidegate_allowance_left{").count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn gate_is_closed_when_no_key_is_open() {
        let (upstreams, metrics) = upstreams(&["sk-1", "sk-2"]);
        for (first, second, closed) in [(true, false, 0), (false, true, 0), (true, true, 1), (false, false, 0)] {
            upstreams.show_lanes(&[lane("sk-1", 1, first), lane("sk-2", 2, second)]);
            assert_shows(&metrics, &format!("tidegate_gate_closed{{upstream=\"main\"}} {closed}"));
        }
        assert_shows(&metrics, r#"tidegate_allowance_used{dimension="requests",key="1",upstream="main"} 2"#);
        upstreams.show_paused(&["main".into()]);
        assert_shows(&metrics, r#"tidegate_paused{upstream="main"} 1"#);
        upstreams.show_paused(&[]);
        assert_shows(&metrics, r#"tidegate_paused{upstream="main"} 0"#);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_shown_of_what_a_reload_took_away() {
        let (upstreams, metrics) = upstreams(&["sk-1", "sk-2"]);
        let keys = [lane("sk-1", 1, false), lane("sk-2", 2, false)];
        let levels_of = |label: &str| {
            let text = metrics.render();
            let lines = text.lines().filter(|line| line.contains(label) && !line.contains("_total{"));
            lines.filter(|line| !line.contains("_seconds_")).count()
        };
        upstreams.show_lanes(&keys);
        let (second, main) = (levels_of("key=\"1\""), levels_of("upstream=\"main\""));
        assert!(second > 0 && main > second);
        with(&[upstream("main", &["sk-1"])], |config| upstreams.reconfigure(config)).unwrap();
        upstreams.show_lanes(&keys[..1]);
        assert_eq!((levels_of("key=\"1\""), levels_of("upstream=\"main\"")), (0, main - second));
        with(&[upstream("other", &[])], |config| upstreams.reconfigure(config)).unwrap();
        // Somebody who looks meanwhile.
        metrics.upstream("main", 0).set_paused(true);
        upstreams.show_lanes(&[]);
        assert_eq!(levels_of("upstream=\"main\""), 0);
        assert_shows(&metrics, r#"tidegate_attempts_total{upstream="main",verdict="retry"} 0"#);
        // A reload that is refused.
        with(&[upstream("fine", &[]), upstream("odd", &["no\nkey"])], |config| upstreams.reconfigure(config))
            .unwrap_err();
        upstreams.show_lanes(&[]);
        assert_eq!(levels_of("upstream=\"fine\""), 0);
    }
}
