//! What was passed on of a stream, and how what comes next is to fit to it.

use std::sync::Arc;

use bytes::Bytes;

use crate::answer::Trace;
use crate::call::CallBody;
use crate::memory::{Full, Held};
use crate::metrics::{MemoryKind, Metrics, Recovery};
use crate::openai::continuation::{Events, Partial, Splice};
use crate::openai::{Frame, Terminal};
use crate::upstream::exchange::Flight;
use crate::upstream::rest::Passed;
use crate::upstream::target::Target;

/// What was passed on of a stream, so that it can go on when it breaks.
#[derive(Debug)]
pub(in crate::upstream) struct Record {
    /// Where the stream came from.
    pub(super) target: Arc<Target>,
    pub(super) repair: Recovery,
    /// The request as its client sent it.
    pub(super) body: Bytes,
    /// What was passed on, where the rest is to be asked for; `None`: it is not, or there was no memory for it.
    pub(super) partial: Option<Partial>,
    /// Has what comes now fit to what was passed on before.
    splice: Option<Splice>,
    /// Sees what is told of that.
    told: Option<Terminal>,
    /// Pays for both.
    memory: Held,
    trace: Trace,
    metrics: Arc<Metrics>,
    /// It broke, and what becomes of it is not yet counted.
    pub(super) is_broken: bool,
    /// The last of it was a part of an event too long to be held, and more of that is to come.
    pub(super) is_mid_event: bool,
}

impl Record {
    /// The record of a stream for which this is wanted if it breaks; `None` where it cannot be had in any case.
    pub(in crate::upstream) fn of(flight: &Flight, repair: Recovery, target: &Arc<Target>) -> Option<Self> {
        let CallBody::Whole(body) = &flight.call.body else { return None };
        let partial = Partial::new(flight.call.route, flight.call.choices);
        let is_fit = repair == Recovery::Restart || partial.unfit().is_none();
        is_fit.then(|| Self {
            target: Arc::clone(target),
            repair,
            body: Bytes::clone(body),
            partial: Some(partial).filter(|_| repair == Recovery::Continue),
            splice: None,
            told: None,
            memory: flight.shared.memory.share(MemoryKind::Flights),
            trace: flight.trace.clone(),
            metrics: Arc::clone(&flight.shared.metrics),
            is_broken: false,
            is_mid_event: false,
        })
    }

    /// What to pass on for the next frame: itself, or whatever of it goes on where the stream broke. Says why it cannot go on.
    pub(in crate::upstream) fn fit(&mut self, frame: Frame) -> Result<Events, Passed> {
        let Some(splice) = &mut self.splice else { return Ok(Vec::new().into_iter().chain(Some(frame))) };
        let events = splice.rewrite(frame).map_err(Passed::Misfit)?;
        self.pay().map_err(|_full| Passed::NoRoom)?;
        Ok(events)
    }

    /// Pays for as much as it holds now.
    fn pay(&mut self) -> Result<(), Full> {
        let bytes = self.partial.as_ref().map_or(0, Partial::bytes) + self.splice.as_ref().map_or(0, Splice::bytes);
        self.memory.resize(u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    /// Takes note of a frame that is passed on.
    pub(in crate::upstream) fn note(&mut self, frame: &Frame) {
        self.is_mid_event = matches!(frame, Frame::Part { last: false, .. });
        self.note_usage(frame);
        let Some(partial) = &mut self.partial else { return };
        partial.observe(frame);
        if partial.unfit().is_some() {
            self.body = Bytes::new(); // why is known, and nothing is asked for any more
        }
        if self.pay().is_err() {
            self.partial = None;
            let _given_back = self.pay();
        }
    }

    /// Of an answer that was put together the client is told what all of it used, which no part of it knows.
    fn note_usage(&mut self, frame: &Frame) {
        let Some(told) = &mut self.told else { return };
        let before = told.usage();
        told.observe(frame);
        if let Some(usage) = told.usage().filter(|usage| Some(*usage) != before) {
            self.trace.note(|facts| facts.usage = Some(usage));
        }
    }

    /// What comes from now on is what this makes of it. Says whether there is room for that.
    pub(super) fn go_on_by(&mut self, splice: Splice, told: Terminal) -> Result<(), Full> {
        (self.splice, self.told) = (Some(splice), Some(told));
        self.pay()
    }

    /// Whether what comes now is spliced on, so that its usage is not that of the answer.
    pub(in crate::upstream) fn is_spliced(&self) -> bool {
        self.splice.is_some()
    }

    /// Whether it came to its proper end is known: counts that, if it had broken.
    pub(in crate::upstream) fn settle(&mut self, is_whole: bool) {
        if std::mem::take(&mut self.is_broken) {
            self.metrics.recovered(self.repair, is_whole);
        }
    }
}
