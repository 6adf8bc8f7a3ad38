//! One request: taking it in, having it executed, passing its answer on.

use super::cause::{After, Gone, NotTaken, Refused};
use super::downstream::Downstream;
use super::{Bounds, Shared, relay, reply};
use crate::answer::{Facts, Trace};
use crate::call::{BodyStream, Call, CallBody};
use crate::ids::CallId;
use crate::metrics::MemoryKind;
use crate::openai::Route;
use crate::pipeline::{Incoming, TurnedAway};
use crate::time::{self, Instant};

/// Request bodies on their way upstream, in parts of up to 64 KiB. So much is read ahead while a call waits, if there is
/// room for it: only of a body that has come to its end is it noticed that its client leaves.
const PARTS: usize = 16;

impl Shared {
    /// Serves one request whose head was read.
    pub(super) async fn serve(&self, mut downstream: Downstream<'_>, bounds: &Bounds) -> After {
        let (id, received) = (CallId::random(), time::now());
        match self.take_in(&mut downstream, bounds, id, received).await {
            Ok(call) => self.execute(downstream, call).await,
            Err(NotTaken::Gone(Gone)) => After::Close,
            Err(NotTaken::Refused(refused)) => {
                self.turned_away(id, received, &refused);
                reply::refuse(&mut downstream, id, &refused, &Facts::default()).await
            }
        }
    }

    pub(super) fn turned_away(&self, id: CallId, received: Instant, refused: &Refused) {
        let (outcome, status, reason) = reply::reason(refused);
        self.pipeline.turned_away(&TurnedAway { id, received, outcome, status, reason });
    }

    /// Reads a request as far as it must be known before it can go.
    async fn take_in(
        &self,
        downstream: &mut Downstream<'_>,
        bounds: &Bounds,
        id: CallId,
        received: Instant,
    ) -> Result<Call, NotTaken> {
        let (method, target) = downstream.request_line()?;
        let mut headers = downstream.headers();
        let caller = match self.pipeline.identify(&mut headers) {
            Ok(caller) => caller,
            Err(stranger) => {
                downstream.discard_short_body().await?;
                return Err(Refused::Stranger(stranger).into());
            }
        };
        let body = if Route::of(&method, &target).is_generation() || downstream.has_no_body() {
            let share = self.memory.share(MemoryKind::Bodies);
            CallBody::Whole(downstream.read_body(bounds.body_max, share).await?)
        } else {
            // The parts follow once the call is under way.
            let (_, parts) = tokio::sync::mpsc::channel(1);
            CallBody::Stream(BodyStream { length: downstream.content_length(), parts })
        };
        let incoming = Incoming { id, received, caller, method, target, headers, body };
        Ok(self.pipeline.classify(incoming).map_err(Refused::BadCall)?)
    }

    /// Has a call executed and relays its answer, while it watches whether the client is still there.
    async fn execute(&self, mut downstream: Downstream<'_>, mut call: Call) -> After {
        let (id, method, trace) = (call.id, call.method.clone(), Trace::default());
        let parts = match &mut call.body {
            CallBody::Whole(_) => None,
            CallBody::Stream(body) => {
                let (sender, parts) = tokio::sync::mpsc::channel(PARTS);
                body.parts = parts;
                Some(sender)
            }
        };
        let result = tokio::select! {
            biased;
            result = self.pipeline.execute(call, trace.clone()) => result,
            not_taken = downstream.pump_until_gone(parts, &self.memory) => return match not_taken {
                NotTaken::Gone(Gone) => After::Close,
                NotTaken::Refused(refused) => reply::refuse(&mut downstream, id, &refused, &trace.facts()).await,
            },
        };
        match result {
            Ok(answer) => relay::relay(&mut downstream, id, &method, answer).await,
            Err(failure) => reply::refuse(&mut downstream, id, &Refused::Failure(failure), &trace.facts()).await,
        }
    }
}
