//! Which limit a refusal is about, and how far it is lowered.

use super::assumed::Assumed;
use super::evidence::{Evidence, Hints};
use super::status::{Subject, Why};
use super::{Learned, TWICE, count_of, margin_max};
use crate::limits::Dimension;
use crate::time::Instant;

/// Shares are counted in millionths.
const WHOLE: u128 = 1_000_000;

impl Learned {
    /// Which limit a refusal is about, and how much of it was used.
    pub(super) fn cause(&mut self, now: Instant, evidence: &Evidence, hints: &Hints) -> Option<(Subject, u64)> {
        let used = |subject| Some((subject, count_of(subject, evidence)));
        match hints.dimension {
            Some(Dimension::Requests) => return self.is_configured(Subject::Requests).and_then(used),
            Some(Dimension::Tokens) => return self.is_configured(Subject::Tokens).and_then(used),
            Some(Dimension::Concurrency) if evidence.in_flight > 1 => return used(Subject::Concurrency),
            Some(Dimension::Concurrency) => return None,
            Some(Dimension::RequestsPerDay) | None => {}
        }
        if let Some(tried) = Subject::ALL.into_iter().find(|&subject| self.is_trial_at_fault(subject, evidence)) {
            return used(tried);
        }
        if let Some((share, subject)) = self.nearest(evidence, |subject| self.is_unproven(subject, evidence))
            && share >= WHOLE / 2
        {
            return used(subject);
        }
        if self.is_full(evidence) {
            return used(Subject::Requests);
        }
        let before = self.unexplained.replace((now, *evidence));
        let (_, first) = before.filter(|(at, _)| now.saturating_duration_since(*at) <= TWICE)?;
        // What both had: the first has left a penalty and its retries in the counts of the second.
        let both = Evidence {
            permitted: evidence.permitted,
            requests: evidence.requests.min(first.requests),
            in_flight: evidence.in_flight.min(first.in_flight),
            tokens: evidence.tokens.min(first.tokens),
        };
        let nearest = self.nearest(&both, |subject| self.is_unproven(subject, &both));
        nearest.or_else(|| self.nearest(&both, |_| true)).map(|(_, subject)| (subject, count_of(subject, &both)))
    }

    /// Whether so much was not accepted lately.
    fn is_unproven(&self, subject: Subject, evidence: &Evidence) -> bool {
        self.proven[subject as usize].most().is_none_or(|proven| count_of(subject, evidence) > proven)
    }

    /// Of the suspects the one that was nearest to its configured limit, and how near that was.
    fn nearest(&self, evidence: &Evidence, is_suspect: impl Fn(Subject) -> bool) -> Option<(u128, Subject)> {
        let share = |subject: Subject| {
            let limit = self.assumed[subject as usize].configured.filter(|&limit| limit > 0)?;
            let alone = subject == Subject::Concurrency && evidence.in_flight <= 1;
            let suspect = subject != Subject::Margin && !alone && is_suspect(subject);
            suspect
                .then(|| u128::from(count_of(subject, evidence)) * WHOLE / u128::from(limit))
                .filter(|&share| share > 0)
        };
        let shares = Subject::ALL.into_iter().filter_map(|subject| Some((share(subject)?, subject)));
        shares.max_by_key(|&(share, _)| share)
    }

    fn is_configured(&self, subject: Subject) -> Option<Subject> {
        self.assumed[subject as usize].configured.map(|_| subject)
    }

    /// Whether more was used than held before the level was tried.
    pub(super) fn is_trial_at_fault(&self, subject: Subject, evidence: &Evidence) -> bool {
        self.assumed[subject as usize].trial().is_some_and(|trial| {
            let exceeds = match subject {
                Subject::Margin => self.is_full(evidence),
                _ => count_of(subject, evidence) > trial.before,
            };
            trial.begun <= evidence.permitted && exceeds
        })
    }

    /// Lowers what is at fault. Says what that was, if it could be lowered.
    pub(super) fn learn(&mut self, now: Instant, subject: Subject, count: u64, hints: &Hints) -> Option<Subject> {
        let named = hints.limit.map(u64::from).filter(|&named| named < count);
        let less_one = count.saturating_sub(1);
        let why = named.map_or(Why::RefusedWith(count), Why::Named);
        let assumed = &mut self.assumed;
        let lowers = |assumed: &mut [Assumed; 4], subject: Subject, to, why| {
            assumed[subject as usize].lower(now, to, why).then_some(subject)
        };
        match subject {
            Subject::Requests if named.is_none() && assumed[Subject::Requests as usize].in_force() <= Some(count) => {
                // What was itself only learned is doubted before the margin, until it has held.
                let held = self.proven[Subject::Requests as usize].most() >= Some(less_one);
                let is_guess = assumed[Subject::Requests as usize].lowered().is_some() && !held;
                let step = assumed[Subject::Margin as usize].in_force().unwrap_or(0);
                if !is_guess && step > 0 && self.configured.margin < margin_max(&self.configured) {
                    return lowers(assumed, Subject::Margin, step - 1, Why::WindowFull(count));
                }
                assumed[Subject::Margin as usize].acquit();
                lowers(assumed, subject, less_one, why)
            }
            Subject::Requests | Subject::Concurrency => lowers(assumed, subject, named.unwrap_or(less_one), why),
            Subject::Tokens => {
                // One token less would be refused as well: down by a twentieth, but not below what was accepted.
                let proven = self.proven[Subject::Tokens as usize].most().unwrap_or(0);
                let less = (count - count / 20).max(proven).min(less_one);
                lowers(assumed, subject, named.unwrap_or(less), why)
            }
            Subject::Margin => None,
        }
    }

    /// Whether a refusal is not yet enough to lower a limit: it is the first of its kind, or what was accepted since has
    /// refuted the one before.
    pub(super) fn is_doubtful(
        &mut self,
        now: Instant,
        (subject, count): (Subject, u64),
        evidence: &Evidence,
        hints: &Hints,
    ) -> bool {
        let proven = self.proven[subject as usize].most();
        let has_room = self.in_force(subject).is_some_and(|limit| count.saturating_mul(2) < limit);
        let is_full = subject == Subject::Requests && self.is_full(evidence);
        let is_clear = !has_room && (is_full || proven.is_none_or(|proven| proven < count));
        // What nothing explains has come twice by now, and of exchanges at a time nobody speaks without reason.
        let is_second = self.unexplained.is_some_and(|(at, _)| at == now);
        let is_said = hints.limit.is_some() || hints.dimension == Some(Dimension::Concurrency);
        if is_said || is_second || is_clear || self.is_trial_at_fault(subject, evidence) {
            return false;
        }
        let before = self.doubted[subject as usize].replace((now, count));
        let confirms = before.is_some_and(|(at, earlier)| {
            now.saturating_duration_since(at) <= TWICE && proven.is_none_or(|proven| proven < earlier)
        });
        if confirms {
            self.doubted[subject as usize] = None;
        }
        !confirms
    }

    /// Whether the window was full by the limit in force.
    pub(super) fn is_full(&self, evidence: &Evidence) -> bool {
        self.in_force(Subject::Requests).is_some_and(|limit| u64::from(evidence.requests) >= limit)
    }
}
