//! All tries of a call, in a task of its own: the *flight*.

mod judged;
mod notes;
mod paced;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use self::judged::{Miss, Tried};
use self::paced::Next;
use super::hold::Landed;
use super::recovery::Record;
use super::rest::{Outlet, Passed, Rest};
use super::target::Target;
use super::verdict::Happened;
use super::{Failure, Shared};
use crate::admission::{Permit, Place, Refusal};
use crate::answer::{Answer, Chunk, Cut, Ending, Head, Trace, Upgraded};
use crate::call::Call;
use crate::ids::LaneId;
use crate::metrics;
use crate::openai::Frame;
use crate::time;

/// Chunks on their way to a subscriber; a slow one holds the provider back.
const CHUNKS: usize = 8;

/// A flight: before it has landed, and again when its stream broke and is to go on.
pub(super) struct Flight {
    pub(super) shared: Arc<Shared>,
    pub(super) call: Call,
    pub(super) place: Place,
    pub(super) trace: Trace,
    /// Attempts that count.
    pub(super) attempts: u32,
    /// Attempts that failed, also those that do not count: the pause after each is longer.
    failures: u32,
    /// Where the last one went.
    pub(super) lane: Option<LaneId>,
    /// A pooled connection was dead, or died: no more of those.
    stale: bool,
    /// Some of its answer was passed on already.
    pub(super) is_passed_on: bool,
    /// The provider's own last answer to an attempt that failed.
    last_answer: Option<(Head, Bytes)>,
}

/// Counts an attempt when it is dropped: as cancelled, unless it came to a verdict.
struct AttemptCount<'a> {
    target: &'a Target,
    verdict: metrics::Verdict,
}

impl<'a> AttemptCount<'a> {
    fn begin(target: &'a Target) -> Self {
        Self { target, verdict: metrics::Verdict::Cancelled }
    }
}

impl Drop for AttemptCount<'_> {
    fn drop(&mut self) {
        self.target.metrics.attempt(self.verdict);
    }
}

/// What a flight tells whoever asked, once it has landed.
enum Told {
    Whole(Head, Bytes),
    Stream(Head, mpsc::Receiver<Chunk>),
    Upgraded(Head, Box<dyn Upgraded>),
}

impl Flight {
    pub(super) fn new(shared: Arc<Shared>, call: Call, place: Place, trace: Trace) -> Self {
        Self {
            shared,
            call,
            place,
            trace,
            attempts: 0,
            failures: 0,
            lane: None,
            stale: false,
            is_passed_on: false,
            last_answer: None,
        }
    }

    /// Starts the flight and waits for the head of its answer. Dropping the future, or later the answer, cancels it: its
    /// place is free at once, its connection closed.
    pub(super) async fn depart(self) -> Result<Answer, Failure> {
        let (tell, told) = oneshot::channel();
        let (tasks, trace) = (self.shared.tasks.clone(), self.trace.clone());
        let task = AbortOnDropHandle::new(tasks.spawn(self.fly(tell)));
        match told.await {
            Ok(Ok(Told::Whole(head, body))) => Ok(Answer::whole(head, body, trace)),
            Ok(Ok(Told::Stream(head, chunks))) => Ok(Answer::stream(head, chunks, task, trace)),
            Ok(Ok(Told::Upgraded(head, connection))) => Ok(Answer::upgraded(head, connection, trace)),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::Internal),
        }
    }

    async fn fly(mut self, tell: oneshot::Sender<Result<Told, Failure>>) {
        let landed = self.land().await;
        // Whoever asked may have left; then there is nobody to tell, and the rest is dropped.
        let (head, first, rest, target) = match landed {
            Ok((Landed::Begun(head, first, rest), target)) => (head, first, rest, target),
            Ok((Landed::Whole(head, body), _)) => return drop(tell.send(Ok(Told::Whole(head, body)))),
            Ok((Landed::Upgraded(head, connection), _)) => {
                return drop(tell.send(Ok(Told::Upgraded(head, connection))));
            }
            Err(failure) => return drop(tell.send(Err(failure))),
        };
        let repair = self.repair(&head, &target);
        let record = repair.and_then(|repair| Record::of(&self, repair, &target));
        let (chunks, receiver) = mpsc::channel(CHUNKS);
        let outlet = Outlet { chunks, memory: self.shared.memory.clone() };
        if tell.send(Ok(Told::Stream(head, receiver))).is_err() {
            return;
        }
        let passed = match record {
            Some(record) => self.relay_and_recover(first, rest, record, &outlet).await,
            None => {
                let metrics = Arc::clone(&self.shared.metrics);
                drop(self); // nothing is sent again from here on, so the request's body is not needed any more
                let passed = relay(first, Some(rest), None, &outlet).await;
                if let (Some(repair), Passed::Broken(_)) = (repair, passed) {
                    metrics.recovered(repair, false); // wanted, and impossible
                }
                passed
            }
        };
        let ending = match passed {
            Passed::Whole => Ending::Complete,
            Passed::Broken(cut) => Ending::Truncated(cut),
            Passed::Misfit(_) | Passed::NoRoom => Ending::Truncated(Cut::Unfinished),
            Passed::Nobody => return,
        };
        // A subscriber that has gone needs no ending.
        drop(outlet.chunks.send(Chunk::End(ending)).await);
    }

    /// Tries until something can be delivered, or no further try is allowed. Says also where it came from.
    pub(super) async fn land(&mut self) -> Result<(Landed, Arc<Target>), Failure> {
        let (mut missed, mut next) = (None, None);
        loop {
            let permit = match next.take() {
                Some(permit) => permit,
                None => match self.wait_for_permit().await {
                    Ok(permit) => permit,
                    Err(refusal) => return self.give_up(missed, Some(refusal)),
                },
            };
            // A reload may have taken the upstream away just now; then the permit serves somebody else.
            let Some(target) = self.shared.target(permit.lane(), self.call.key) else {
                tokio::task::yield_now().await;
                continue;
            };
            if self.failures == 0 && !self.stale {
                self.shared.budget.deposit(self.shared.retry().budget);
            }
            self.attempts += 1;
            self.note_attempt(&permit);
            let lane = permit.lane().clone();
            self.lane = Some(lane.clone());
            let mut counted = AttemptCount::begin(&target);
            let miss = match self.try_once(&target, permit).await {
                Tried::Landed(landed) => {
                    counted.verdict = metrics::Verdict::Deliver;
                    drop(counted);
                    self.note_recovered(missed.is_some());
                    return Ok((landed, target));
                }
                Tried::ClientLeft => return Err(Failure::ClientLeft),
                Tried::Missed(miss) => miss,
            };
            self.count_disconnect(&target, miss.happened);
            counted.verdict = metrics::Verdict::GiveUp;
            let then = self.next_after(&miss, &lane);
            if let Next::GiveUp = then {
                return self.give_up(Some(miss), None);
            }
            counted.verdict = metrics::Verdict::Retry;
            drop(counted);
            self.count_retry(&miss);
            missed = Some(miss);
            next = match then {
                Next::At(permit) => Some(permit),
                Next::After(pause) if !pause.is_zero() => self.pause(pause).await,
                Next::After(_) | Next::GiveUp => None,
            };
        }
    }

    async fn wait_for_permit(&mut self) -> Result<Permit, Refusal> {
        let came = time::now();
        let permit = self.trace.in_line(self.place.permit()).await;
        if permit.is_err() {
            let standing = self.place.standing();
            self.trace.note(|facts| {
                facts.waited += came.elapsed();
                (facts.requests, facts.tokens) = standing;
            });
        }
        permit
    }

    /// The provider's own last answer where there is one, else what it was that failed; unless we have to stop.
    fn give_up(&mut self, missed: Option<Miss>, refusal: Option<Refusal>) -> Result<(Landed, Arc<Target>), Failure> {
        let (attempts, target) = (self.trace.facts().attempts, missed.as_ref().map(|miss| Arc::clone(&miss.target)));
        if attempts > 1 {
            self.note_not_recovered();
        }
        // Whatever it was that failed, it is no reason to give up: another process may serve the call.
        if let Some(refusal @ Refusal::ShuttingDown) = refusal {
            return Err(Failure::Refused(refusal));
        }
        let is_once = missed.as_ref().is_some_and(|miss| self.is_once(miss));
        if is_once || missed.as_ref().is_some_and(|miss| miss.happened == Happened::NoFirstByte) {
            self.last_answer = None; // that would say that it is worth another try
        }
        if let (Some((head, body)), Some(target)) = (self.last_answer.take(), target) {
            return Ok((Landed::Whole(head, body), target));
        }
        let Some(miss) = missed else {
            return Err(refusal.map_or(Failure::Internal, Failure::Refused));
        };
        Err(miss.happened.failure(attempts, is_once, self.detail(miss)))
    }
}

/// Passes an answer on: what was held back of it, and the rest.
pub(super) async fn relay(
    first: Vec<Frame>,
    rest: Option<Box<Rest>>,
    mut record: Option<&mut Record>,
    outlet: &Outlet,
) -> Passed {
    for frame in first {
        if let Err(passed) = outlet.pass(frame, record.as_deref_mut()).await {
            return passed;
        }
    }
    match rest {
        Some(rest) => rest.relay(outlet, record).await,
        None => Passed::Whole,
    }
}
