//! When the n-th permit from now can leave under backlog: the window and its pace, played ahead.

use super::{Pace, Window};
use crate::time::Instant;

/// So many permits are played one by one; what is behind them is told by the window alone.
const PLAYED_MAX: u32 = 256;

/// The instant of the `n`-th permit, from 1, if the first can leave at `first` at the soonest, each is written at once
/// and nothing else changes. Exact where a window has no more than 128, and for the first 256 permits; else off by what
/// was left of a burst.
pub(super) fn nth_permit(
    window: &mut Window,
    pace: &Pace,
    now: Instant,
    first: Instant,
    n: u32,
    played_before: &mut Option<Played>,
) -> Instant {
    let allowance = window.allowance();
    // The pattern repeats each span; in the second one what was left of a burst is evened out.
    let most = allowance.saturating_mul(2).min(PLAYED_MAX);
    let spans = if allowance <= most { n.saturating_sub(most).div_ceil(allowance) } else { 0 };
    let played = (n - spans * allowance).min(most);
    let played_at = Played::nth(played_before, (window, pace), (now, first), (played, most));
    let behind = n - played - spans * allowance;
    let stepped =
        played_at + window.span().saturating_mul(spans) + pace.step_since(now, 0, None).saturating_mul(behind);
    window.nth_opens(now, n).map_or(stepped, |opens| opens.max(stepped))
}

/// What was played the last time, for as long as nothing changes: whoever lists a queue asks for each place in it.
#[derive(Debug)]
pub(super) struct Played {
    /// The present, and when the first permit could leave.
    asked: (Instant, Instant),
    permits: Vec<Instant>,
}

impl Played {
    /// The `n`-th permit; when it is not the first time that somebody asks, as many are played as may be asked for.
    fn nth(
        before: &mut Option<Self>,
        (window, pace): (&mut Window, &Pace),
        asked: (Instant, Instant),
        (n, most): (u32, u32),
    ) -> Instant {
        let index = usize::try_from(n - 1).unwrap_or(usize::MAX);
        let known = before.as_ref().filter(|before| before.asked == asked);
        if let Some(permit) = known.and_then(|known| known.permits.get(index)) {
            return *permit;
        }
        let permits = play(window, pace, asked, if known.is_some() { most } else { n });
        let permit = permits.get(index).copied().unwrap_or(asked.1);
        *before = Some(Self { asked, permits });
        permit
    }
}

/// A window as it will be.
struct Ahead<'a> {
    window: &'a Window,
    /// What is pending counts as if it were written then.
    now: Instant,
    /// How many of the window's have expired: live stamps first, then what is pending.
    expired: u32,
    /// Permits that have left by then, and how many of them have expired.
    left: Vec<Instant>,
    left_expired: usize,
}

impl Ahead<'_> {
    fn oldest_expires(&self) -> Option<Instant> {
        let stamp = match self.has_all_expired() {
            false => {
                usize::try_from(self.expired).ok().and_then(|index| self.window.stamp_at(index)).or(Some(self.now))
            }
            true => self.left.get(self.left_expired).copied(),
        };
        stamp.map(|stamp| stamp + self.window.span())
    }

    /// Whether nothing of what the window has now counts any more.
    fn has_all_expired(&self) -> bool {
        self.expired >= self.window.used()
    }

    fn expire(&mut self, at: Instant) {
        while self.oldest_expires().is_some_and(|expires| expires <= at) {
            match self.has_all_expired() {
                false => self.expired += 1,
                true => self.left_expired += 1,
            }
        }
    }

    fn room(&self) -> u32 {
        let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        let used = self.window.used().saturating_sub(self.expired);
        let used = used.saturating_add(count(self.left.len() - self.left_expired));
        self.window.allowance().saturating_sub(used)
    }
}

fn play(window: &mut Window, pace: &Pace, (now, first): (Instant, Instant), n: u32) -> Vec<Instant> {
    window.left(now); // expires what has expired
    let capacity = usize::try_from(n).unwrap_or_default();
    let mut ahead = Ahead { window, now, expired: 0, left: Vec::with_capacity(capacity), left_expired: 0 };
    let (mut last, mut cells, mut at) = (pace.last(), pace.cells(), first.max(now));
    for _ in 0..n {
        loop {
            ahead.expire(at);
            let room = ahead.room();
            let mut ready = at;
            if room == 0 {
                ready = ready.max(ahead.oldest_expires().unwrap_or(at));
            }
            if let Some(last) = last {
                ready = ready.max(last + pace.step_since(last, room, ahead.oldest_expires()));
            }
            ready = cells.ready().map_or(ready, |cell| ready.max(cell));
            if ready <= at {
                break;
            }
            at = ready;
        }
        last = Some(at);
        cells.take(at);
        ahead.left.push(at);
    }
    ahead.left
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::time::Duration;

    const SPAN: Duration = Duration::from_secs(60);

    /// This once looked for ever, with everybody waiting for it: what is pending has no stamp that could expire.
    #[tokio::test(start_paused = true)]
    async fn a_window_of_which_all_is_pending_opens_a_span_from_now() {
        let (limit, now) = (NonZeroU32::new(2).unwrap(), crate::time::now());
        let (mut window, mut pace) = (Window::new(limit, SPAN), Pace::new(SPAN / 2, limit));
        for _ in 0..2 {
            window.take();
            pace.take(now).unwrap();
        }
        for (n, spans) in [(1, 1), (2, 1), (3, 2), (9, 5)] {
            let at = nth_permit(&mut window, &pace, now, now, n, &mut None);
            assert!(at >= now + SPAN * spans && at <= now + SPAN * (spans + 1), "{n}: {:?}", at - now);
        }
    }
}
