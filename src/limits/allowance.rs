//! What one key of one upstream may use: all dimensions in one decision, all or nothing.

mod ahead;
mod caution;
mod past;

use std::num::NonZeroU32;

pub use self::caution::LimitSignal;
use super::forecast::Played;
use super::learned::{Evidence, Figures, Learned, LessonStatus, Saved, Signal};
use super::ramp::Ramp;
use super::{Ask, Backlog, Dimension, Meter, Pace, Quota, Ready, Slots, Taken, Window};
use crate::openai::RateLimits;
use crate::time::{Duration, Instant};
use crate::units::Priority;

/// A rolling day, in which the provider may count by the second.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// What is spent of a day is remembered by the minute.
const DAY_GRAIN: Duration = Duration::from_secs(60);
/// What is spent of a window of tokens is remembered by so many parts of it.
const TOKEN_GRAINS: u32 = 512;
/// How much the newest exchange weighs in the mean.
const MEAN_WEIGHT: f64 = 0.1;

/// How much of an allowance is used, for metrics and admin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Requests that count in the window now, and its limit.
    pub window: Option<(u32, u32)>,
    /// Tokens that count in the window now, reserved ones included, and their limit.
    pub tokens: Option<(u64, u64)>,
    /// Requests that count in the rolling day, and its limit.
    pub day: Option<(u64, u64)>,
    /// Slots that cannot be taken now: running and cooling.
    pub slots_in_use: u32,
    /// How many slots there are.
    pub slots_cap: Option<u32>,
    /// Until when the gate is closed because the provider said so.
    pub closed_until: Option<Instant>,
    /// Until when it is left alone after resets that look like a limit; the gate is closed then, too.
    pub cooling_until: Option<Instant>,
    /// How many may go at a time for now, after an outage or such resets; `None`: as many as there are slots.
    pub at_a_time: Option<u32>,
    /// How much longer than the provider's window a request counts, as configured or learned.
    pub window_margin: Duration,
}

/// The window with its pace.
#[derive(Debug)]
struct Rate {
    window: Window,
    /// `None`: as fast as the window lets.
    pace: Option<Pace>,
    /// What comes, as it was last asked for, if nothing has changed since.
    played: Option<Played>,
}

impl Rate {
    fn new(quota: &Quota, requests: NonZeroU32) -> Self {
        let pace = quota.burst.map(|burst| Pace::new(quota.step(requests), burst.min(requests)));
        Self { window: Window::new(requests, quota.span()), pace, played: None }
    }

    fn reconfigure(&mut self, now: Instant, quota: &Quota, requests: NonZeroU32) {
        self.played = None;
        self.window.reconfigure(now, requests, quota.span());
        if let (Some(pace), Some(burst)) = (&mut self.pace, quota.burst) {
            pace.reconfigure(quota.step(requests), burst.min(requests));
        }
    }
}

/// The balance of one key of one upstream, or of one client.
///
/// A permit is taken with [`Allowance::take`]; then either [`Allowance::refund`] gives all of it back, or
/// [`Allowance::stamp`] says that its request was written and [`Allowance::release`] that its exchange has ended.
#[derive(Debug)]
pub struct Allowance {
    /// The limits as configured, and as in force: some of them were learned to be lower.
    configured: Quota,
    quota: Quota,
    learned: Learned,
    /// What of the limits was learned, as it is in `quota`.
    figures: Figures,
    rate: Option<Rate>,
    tokens: Meter,
    day: Meter,
    slots: Slots,
    closed_until: Option<Instant>,
    cooling_until: Option<Instant>,
    /// Fewer at a time, after something went wrong; and how many such there were.
    ramp: Option<Ramp>,
    ramps: u64,
    /// Permits out whose request is not yet written: what a window set up by a reload has to start with.
    pending: u32,
    /// When the last request was stamped, also while there is no window: one set up by a reload has to respect it.
    last_stamp: Option<Instant>,
    /// How long a slot is held on average, once one was.
    mean_held: Option<Duration>,
    /// The tokens of a permit on average, as reserved.
    mean_tokens: f64,
}

impl Allowance {
    /// An allowance of which nothing was spent.
    #[must_use]
    pub fn new(quota: Quota) -> Self {
        Self {
            rate: quota.requests.map(|requests| Rate::new(&quota, requests)),
            tokens: Meter::new(quota.tokens.map(amount), quota.span(), quota.span() / TOKEN_GRAINS),
            day: Meter::new(quota.requests_per_day.map(amount), DAY + quota.window_margin, DAY_GRAIN),
            slots: Slots::new(quota.concurrency, quota.concurrency_reserved),
            learned: Learned::new(quota.figures()),
            figures: quota.figures(),
            configured: quota,
            quota,
            closed_until: None,
            cooling_until: None,
            ramp: None,
            ramps: 0,
            pending: 0,
            last_stamp: None,
            mean_held: None,
            mean_tokens: 0.0,
        }
    }

    /// Other limits from the next decision on. What was spent stays spent, and what was learned below them stays learned.
    pub fn reconfigure(&mut self, now: Instant, quota: Quota) {
        self.configured = quota;
        self.learned.reconfigure(quota.figures());
        self.figures = self.learned.figures();
        self.put_in_force(now, quota.limited_to(&self.figures));
    }

    /// What was learned holds from the next decision on.
    fn obey_learned(&mut self, now: Instant) {
        let figures = self.learned.figures();
        if figures != self.figures {
            self.figures = figures;
            self.put_in_force(now, self.configured.limited_to(&figures));
        }
    }

    fn put_in_force(&mut self, now: Instant, quota: Quota) {
        self.slots.reconfigure(quota.concurrency, quota.concurrency_reserved);
        self.tokens.reconfigure(now, quota.tokens.map(amount), quota.span(), quota.span() / TOKEN_GRAINS);
        self.day.reconfigure(now, quota.requests_per_day.map(amount), DAY + quota.window_margin, DAY_GRAIN);
        self.rate = quota.requests.map(|requests| match self.rate.take() {
            Some(mut rate) => {
                rate.reconfigure(now, &quota, requests);
                rate
            }
            None => {
                let mut rate = Rate::new(&quota, requests);
                (0..self.pending).for_each(|_| rate.window.take());
                if let Some(last) = self.last_stamp {
                    rate.window.forget_until(last);
                }
                rate
            }
        });
        self.quota = quota;
    }

    /// When a permit can be taken, as far as that does not depend on whose it is. The bucket is asked by
    /// [`Allowance::take`].
    pub fn opens(&mut self, now: Instant, backlog: Backlog) -> Ready {
        if self.learned.next_probe().is_some_and(|probe| probe <= now) && self.learned.probe(now) {
            self.obey_learned(now);
        }
        let gate = self.closed_until.map_or(Ready::Now, |until| Ready::at(until, now));
        let mut ready = gate.and(self.day.ready(now, 1));
        if let Some(ramp) = &mut self.ramp {
            ready = ready.and(ramp.ready(now));
        }
        if let Some(Rate { window, pace, .. }) = &mut self.rate {
            ready = ready.and(window.ready(now));
            if let (Backlog::Waiting, Some(pace)) = (backlog, pace) {
                ready = ready.and(pace.ready(now, window));
            }
        }
        ready
    }

    /// When a class can have a slot.
    pub fn slot_ready(&mut self, now: Instant, class: Priority) -> Ready {
        self.slots.ready(now, class)
    }

    /// When this permit can be taken; the bucket is asked by [`Allowance::take`].
    pub fn ready(&mut self, now: Instant, ask: Ask, backlog: Backlog) -> Ready {
        self.opens(now, backlog).and(self.slots.ready(now, ask.class)).and(self.tokens.ready(now, ask.tokens))
    }

    /// What is missing for this permit, and its limit.
    pub fn lacks(&mut self, now: Instant, ask: Ask) -> Option<(Dimension, u64)> {
        let usage = self.usage(now);
        let slots = usage.slots_cap.map(u64::from).filter(|_| self.slots.ready(now, ask.class) != Ready::Now);
        let window = self.rate.as_mut().is_some_and(|rate| rate.window.ready(now) != Ready::Now);
        let tokens = self.tokens.ready(now, ask.tokens) != Ready::Now;
        let day = self.day.ready(now, 1) != Ready::Now;
        let requests = usage.window.map(|(_, limit)| u64::from(limit)).filter(|_| window);
        let of = |dimension, limit: Option<u64>| limit.map(|limit| (dimension, limit));
        of(Dimension::Requests, requests)
            .or_else(|| of(Dimension::Tokens, self.tokens.limit().filter(|_| tokens)))
            .or_else(|| of(Dimension::RequestsPerDay, self.day.limit().filter(|_| day)))
            .or_else(|| of(Dimension::Concurrency, slots))
    }

    /// Takes a permit: one pending request in the window and the day, one cell of the bucket, its tokens, one slot.
    ///
    /// # Errors
    /// When something is missing: when to ask again. Nothing was taken then.
    pub fn take(&mut self, now: Instant, ask: Ask, backlog: Backlog) -> Result<Taken, Ready> {
        match self.ready(now, ask, backlog) {
            Ready::Now => {}
            missing @ (Ready::At(_) | Ready::OnRelease) => return Err(missing),
        }
        if let Some(Rate { window, pace, played }) = &mut self.rate {
            if let Some(pace) = pace {
                pace.take(now)?; // last, since it is the only one that takes in asking
            }
            window.take();
            *played = None;
        }
        (self.closed_until, self.cooling_until) = (None, None);
        let (ramp, is_probe) = self.ramp.as_mut().map(|ramp| ramp.take(now)).unzip();
        self.tokens.take(ask.tokens);
        self.day.take(1);
        self.slots.take(ask.class);
        self.pending += 1;
        #[expect(clippy::cast_precision_loss, reason = "tokens of a call are far fewer than 2^53")]
        let tokens = ask.tokens as f64;
        self.mean_tokens += (tokens - self.mean_tokens) * MEAN_WEIGHT;
        let evidence = Evidence {
            permitted: now,
            requests: self.rate.as_ref().map_or(0, |rate| rate.window.used()),
            in_flight: self.slots.running(),
            tokens: self.tokens.used(now),
        };
        let is_probe = is_probe.unwrap_or(false);
        Ok(Taken { class: ask.class, tokens: ask.tokens, used: None, evidence, stamped: None, ramp, is_probe })
    }

    /// Nothing of the permit's request has left: everything returns at once.
    pub fn refund(&mut self, now: Instant, taken: Taken) {
        self.leave_ramp(&taken);
        self.pending = self.pending.saturating_sub(1);
        self.slots.release(taken.class, now, now);
        self.tokens.refund(taken.tokens);
        self.day.refund(1);
        if let Some(Rate { window, pace, played }) = &mut self.rate {
            *played = None;
            window.refund();
            if let Some(pace) = pace {
                pace.refund();
            }
        }
    }

    /// The permit's request is completely written, or given up after a byte of it had left. Once for a permit.
    pub fn stamp(&mut self, now: Instant, taken: &mut Taken) {
        self.pending = self.pending.saturating_sub(1);
        self.last_stamp = Some(now);
        if let Some(rate) = &mut self.rate {
            rate.played = None;
            rate.window.stamp(now);
        }
        self.day.stamp(now, 1);
        taken.stamped = Some(self.tokens.stamp(now, taken.tokens));
    }

    /// The permit's exchange has ended: by itself (`clean`), or cut by either side. What it has used, if that is known,
    /// replaces what it reserved; else the estimate stands. Says how long its slot cools.
    pub fn release(&mut self, now: Instant, taken: &Taken, clean: bool) -> Duration {
        self.leave_ramp(taken);
        let delay = if clean { self.quota.slot_release_delay } else { self.quota.slot_release_delay_aborted };
        self.slots.release(taken.class, now + delay, now);
        // A connection that is open for hours says nothing of how soon the others end.
        let held = now.saturating_duration_since(taken.evidence.permitted).min(self.quota.window) + delay;
        let mean = self.mean_held.get_or_insert(held);
        *mean = mean.mul_f64(1.0 - MEAN_WEIGHT) + held.mul_f64(MEAN_WEIGHT);
        if let (Some(grain), Some(used)) = (taken.stamped, taken.used) {
            self.tokens.settle(grain, taken.tokens, used);
        }
        delay
    }

    /// The provider says to come back later: nothing is permitted until then. A later instant wins.
    pub fn close_until(&mut self, until: Instant) {
        self.closed_until = Some(self.closed_until.map_or(until, |earlier| earlier.max(until)));
    }

    /// The provider has refused the permit's request. Says until when nothing is permitted.
    pub fn refused(&mut self, now: Instant, taken: &Taken, signal: &Signal) -> Instant {
        let lesson = self.learned.refused(now, &taken.evidence, signal);
        self.close_until(lesson.closed_until());
        self.obey_learned(now);
        lesson.closed_until()
    }

    /// The provider has accepted the permit's request. Says whether anything was learned by it.
    pub fn accepted(&mut self, now: Instant, taken: &Taken) -> bool {
        let is_news = self.learned.accepted(now, &taken.evidence);
        self.obey_learned(now);
        is_news
    }

    /// What the headers of an answer tell that is no refusal.
    /// Says whether nothing is permitted for a while.
    pub fn heard(&mut self, now: Instant, taken: &Taken, limits: &RateLimits) -> bool {
        let closes = self.learned.heard(now, &taken.evidence, limits);
        if let Some(until) = closes {
            self.close_until(until);
        }
        self.obey_learned(now);
        closes.is_some()
    }

    /// What is assumed otherwise than configured.
    pub fn lessons(&self) -> impl Iterator<Item = LessonStatus> + '_ {
        self.learned.lessons()
    }

    /// What was learned, to be restored after a restart.
    #[must_use]
    pub fn save_learned(&self, now: Instant) -> Saved {
        self.learned.save(now, self.closed_until)
    }

    /// When the last request was sent.
    #[must_use]
    pub fn last_stamp(&self) -> Option<Instant> {
        self.last_stamp
    }

    /// Whether the provider's refusals should never happen: it has limits here and we keep them.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.rate.is_some() || self.slots.cap().is_some()
    }

    /// Whether nothing of it is in use and nothing that was spent still counts, so that a fresh one is the same.
    pub fn is_untouched(&mut self, now: Instant) -> bool {
        self.pending == 0
            && self.slots.in_use(now) == 0
            && self.learned.lessons().next().is_none()
            && self.learned.benched_until().is_none()
            && self.closed_until.is_none_or(|until| until <= now)
            && self.ramp.is_none_or(|ramp| ramp.is_forgotten(now))
            && self.rate.as_mut().is_none_or(|rate| rate.window.left(now) == rate.window.allowance())
            && self.tokens.used(now) == 0
            && (self.day.limit().is_none() || self.day.used(now) == 0)
    }

    /// The share of the window's allowance that is left, 0 to 1; 1 without a limit. Of two keys the fuller goes first.
    pub fn share_left(&mut self, now: Instant) -> f64 {
        self.rate.as_mut().map_or(1.0, |rate| f64::from(rate.window.left(now)) / f64::from(rate.window.allowance()))
    }

    /// What is used now.
    pub fn usage(&mut self, now: Instant) -> Usage {
        Usage {
            window: self.rate.as_mut().map(|rate| {
                rate.window.left(now); // expires what has expired
                (rate.window.used(), rate.window.allowance())
            }),
            tokens: self.tokens.limit().map(|limit| (self.tokens.used(now), limit)),
            day: self.day.limit().map(|limit| (self.day.used(now), limit)),
            slots_in_use: self.slots.in_use(now),
            slots_cap: self.slots.cap(),
            closed_until: self.closed_until.filter(|&until| until > now),
            cooling_until: self.cooling_until.filter(|&until| until > now),
            at_a_time: self.ramp.map(|ramp| ramp.at_a_time()),
            window_margin: self.quota.window_margin,
        }
    }

    /// Exchanges that run now.
    #[must_use]
    pub fn running(&self) -> u32 {
        self.slots.running()
    }

    /// Until the whole window is there again: for requests and for tokens.
    pub fn resets(&mut self, now: Instant) -> (Duration, Duration) {
        let until = |at: Option<Instant>| at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let window = self.rate.as_ref().and_then(|rate| rate.window.empty_at());
        (until(window), until(self.tokens.empty_at()))
    }
}

fn amount(limit: NonZeroU32) -> u64 {
    u64::from(limit.get())
}
