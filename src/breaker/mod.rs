//! Is this upstream worth trying?
//!
//! So many failures in a row open a [`Breaker`]: nobody goes. When its time is over exactly one goes, the *probe*; its
//! outcome closes the breaker, or opens it for twice as long. Who left without an outcome makes room for the next probe;
//! and so does, `open` after its request was written, who has none yet: it may be an answer that takes minutes, for which
//! nobody is to wait. But so many are out at the most.
//!
//! Every grant is a [`Pass`], which remembers the state it was granted in: what comes of it later changes nothing once
//! that state is over. Arithmetic over instants that it is handed; it never waits, spawns, or locks.

pub mod settings;
#[cfg(test)]
mod tests;

use self::settings::Breaker as Settings;
use crate::time::{Duration, Instant, Ready};

/// A grant, and the state it was given in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "what came of it has to be told"]
pub struct Pass {
    epoch: u64,
    /// Which probe of its half-opening it is.
    number: u32,
    /// Whether everybody waits for what comes of it.
    pub is_probe: bool,
}

/// What a breaker lets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Everybody.
    Closed,
    /// One at a time, to see.
    HalfOpen,
    /// Nobody.
    Open,
}

/// What operators are shown of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// What it lets pass.
    pub position: Position,
    /// Failures in a row.
    pub failures: u32,
    /// How often it has opened.
    pub opens: u64,
    /// When the next probe may go, while it is open.
    pub probe_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen(Probes),
}

/// The probes of one half-opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Probes {
    /// How many went.
    made: u32,
    /// Of how many nothing has come yet.
    out: u32,
    /// What the latest does, if it is out.
    latest: Option<Stage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its request is on its way: that ends in time.
    Writing,
    /// It waits for its answer.
    Silent { since: Instant },
}

/// No more silent probes than these at a time: each costs its client a time-out, if the upstream hangs.
const SILENT_MAX: u32 = 3;

/// The breaker of one upstream.
#[derive(Debug)]
pub struct Breaker {
    settings: Settings,
    state: State,
    /// Of the state: grants of an earlier one have nothing to say.
    epoch: u64,
    /// In a row, in this state.
    failures: u32,
    /// In a row, since it was closed.
    answers: u32,
    /// How long it opens the next time.
    length: Duration,
    opens: u64,
}

impl Breaker {
    /// A closed one. No two that a grant could be told to have the same `first_epoch`; see [`Breaker::EPOCHS`].
    #[must_use]
    pub fn new(settings: Settings, first_epoch: u64) -> Self {
        let length = settings.open;
        Self { settings, state: State::Closed, epoch: first_epoch, failures: 0, answers: 0, length, opens: 0 }
    }

    /// More epochs than a breaker lives through.
    pub const EPOCHS: u64 = 1 << 32;

    /// Other settings from now on. What it has counted, and the state it is in, stay; it is not open for longer than it
    /// could be by the new ones.
    pub fn reconfigure(&mut self, now: Instant, settings: &Settings) {
        if self.settings == *settings {
            return;
        }
        self.settings = *settings;
        self.length = self.length.clamp(settings.open.min(settings.open_max), settings.open_max);
        if let State::Open { until } = &mut self.state {
            *until = (*until).min(now + settings.open_max);
        }
    }

    /// When a grant can be had; while a probe is out, when something has come of it, or its written request has been silent
    /// for `open`.
    #[must_use]
    pub fn ready(&self, now: Instant) -> Ready {
        match self.state {
            State::Closed => Ready::Now,
            State::Open { until } => Ready::at(until, now),
            State::HalfOpen(Probes { out: SILENT_MAX.., .. }) => Ready::OnRelease,
            State::HalfOpen(Probes { latest, .. }) => match latest {
                None => Ready::Now,
                Some(Stage::Writing) => Ready::OnRelease,
                Some(Stage::Silent { since }) => Ready::at(since + self.settings.open, now),
            },
        }
    }

    /// Grants, if it can.
    pub fn take(&mut self, now: Instant) -> Option<Pass> {
        if self.ready(now) != Ready::Now {
            return None;
        }
        let probes = match self.state {
            State::Closed => return Some(Pass { epoch: self.epoch, number: 0, is_probe: false }),
            // What comes of those before still decides.
            State::HalfOpen(probes) => probes,
            State::Open { .. } => {
                self.epoch += 1;
                Probes::default()
            }
        };
        let (made, out) = (probes.made.saturating_add(1), probes.out.saturating_add(1));
        self.state = State::HalfOpen(Probes { made, out, latest: Some(Stage::Writing) });
        Some(Pass { epoch: self.epoch, number: made, is_probe: true })
    }

    /// The request of a grant is completely written. Says whether that is the probe for which everybody waits.
    pub fn written(&mut self, now: Instant, pass: Pass) -> bool {
        let State::HalfOpen(probes) = &mut self.state else { return false };
        let is_latest = pass.epoch == self.epoch && pass.number == probes.made;
        if is_latest && probes.latest == Some(Stage::Writing) {
            probes.latest = Some(Stage::Silent { since: now });
        }
        is_latest
    }

    /// The upstream has answered properly. Says whether that has closed it.
    pub fn answered(&mut self, pass: Pass) -> bool {
        if pass.epoch != self.epoch {
            return false;
        }
        self.failures = 0;
        if self.state != State::Closed {
            self.answers = 0;
            self.enter(State::Closed);
            return true;
        }
        // One that opens again and again opens for long; one that has held for a while begins anew.
        self.answers = self.answers.saturating_add(1);
        if self.answers >= self.settings.failures.get() {
            self.length = self.settings.open;
        }
        false
    }

    /// The upstream has failed. Says for how long that has opened it.
    pub fn failed(&mut self, now: Instant, pass: Pass) -> Option<Duration> {
        if pass.epoch != self.epoch {
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        self.answers = 0;
        if self.state != State::Closed {
            self.length = self.length.saturating_mul(2).min(self.settings.open_max);
        } else if self.failures < self.settings.failures.get() {
            return None;
        }
        self.opens += 1;
        self.enter(State::Open { until: now + self.length });
        Some(self.length)
    }

    /// Nothing came of a grant: its client has left, or it was not used. Says whether the next one can probe by that.
    pub fn abandoned(&mut self, pass: Pass) -> bool {
        let epoch = self.epoch;
        let State::HalfOpen(probes) = &mut self.state else { return false };
        if pass.epoch != epoch {
            return false;
        }
        // Those that are still out decide as before.
        let were_too_many = probes.out >= SILENT_MAX;
        probes.out = probes.out.saturating_sub(1);
        let was_latest = pass.number == probes.made;
        if was_latest {
            probes.latest = None;
        }
        was_latest || were_too_many
    }

    /// Until when nobody goes, if it is open.
    #[must_use]
    pub fn open_until(&self) -> Option<Instant> {
        if let State::Open { until } = self.state { Some(until) } else { None }
    }

    /// Whether everybody may go.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether somebody may have to wait for it: it is open, or what comes of a probe is not known yet.
    #[must_use]
    pub fn holds_up(&self, now: Instant) -> bool {
        match self.state {
            State::Closed => false,
            State::Open { until } => until > now,
            State::HalfOpen(probes) => probes.out > 0,
        }
    }

    /// What operators are shown.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        let position = match self.state {
            State::Closed => Position::Closed,
            State::Open { until } if until > now => Position::Open,
            State::Open { .. } | State::HalfOpen(_) => Position::HalfOpen,
        };
        let probe_at = self.open_until().filter(|&until| until > now);
        Status { position, failures: self.failures, opens: self.opens, probe_at }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.epoch += 1;
    }
}
