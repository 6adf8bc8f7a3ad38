//! One request: taking it in, having it executed, passing its answer on.

use std::pin::pin;

use tokio::sync::mpsc;

use super::cause::{After, Asker, Gone, NotTaken, Refused};
use super::downstream::Downstream;
use super::keepalive::Keepalive;
use super::relay::Asked;
use super::{Bounds, Shared, relay, reply};
use crate::answer::{Answer, Facts, Trace};
use crate::call::{BodyPart, BodyStream, Call, CallBody};
use crate::ids::{CallId, ClientId};
use crate::metrics::MemoryKind;
use crate::openai::Route;
use crate::pipeline::{Incoming, TurnedAway};
use crate::time::{self, Instant};
use crate::upstream::Failure;

/// Request bodies on their way upstream, in parts of up to 64 KiB. So much is read ahead while a call waits, if there is
/// room for it: only of a body that has come to its end is it noticed that its client leaves.
const PARTS: usize = 16;

impl Shared {
    /// Serves one request whose head was read.
    pub(super) async fn serve(&self, mut downstream: Downstream<'_>, bounds: &Bounds) -> After {
        let (id, received, mut client) = (CallId::random(), time::now(), ClientId::Everybody);
        match self.take_in(&mut downstream, bounds, (id, received), &mut client).await {
            Ok(call) => self.execute(downstream, call).await,
            Err(NotTaken::Gone(Gone)) => After::Close,
            Err(NotTaken::Refused(refused)) => {
                self.turned_away(id, client, received, &refused);
                reply::refuse(&mut downstream, id, &refused, &Facts::default()).await
            }
        }
    }

    pub(super) fn turned_away(&self, id: CallId, client: ClientId, received: Instant, refused: &Refused) {
        let (outcome, status, reason) = reply::reason(refused);
        self.pipeline.turned_away(&TurnedAway { id, client, received, outcome, status, reason });
    }

    /// Reads a request as far as it must be known before it can go, and says whose it is as soon as that is known.
    async fn take_in(
        &self,
        downstream: &mut Downstream<'_>,
        bounds: &Bounds,
        (id, received): (CallId, Instant),
        client: &mut ClientId,
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
        client.clone_from(&caller.client);
        let body = if Route::of(&method, &target).is_generation() || downstream.has_no_body() {
            let share = self.memory.share(MemoryKind::Bodies);
            CallBody::Whole(downstream.read_body(bounds.body_max, share).await?)
        } else {
            // The parts follow once the call is under way.
            let (_, parts) = mpsc::channel(1);
            CallBody::Stream(BodyStream { length: downstream.content_length(), parts })
        };
        // A client of HTTP/1.0 could not tell the end of a stream from its loss.
        let keepalive_after = bounds.keepalive_after.filter(|_| !downstream.is_http_1_0());
        let incoming = Incoming { id, received, caller, method, target, headers, body, keepalive_after };
        Ok(self.pipeline.classify(incoming).map_err(Refused::BadCall)?)
    }

    /// Has a call executed and relays its answer, while it watches whether the client is still there and keeps it company.
    async fn execute(&self, mut downstream: Downstream<'_>, mut call: Call) -> After {
        let (asked, trace) = (Asked { id: call.id, method: call.method.clone(), route: call.route }, Trace::default());
        let mut keepalive = Keepalive::of(&call);
        let mut asker = Asker::of(call.stream, call.deadline_from);
        let parts = match &mut call.body {
            CallBody::Whole(_) => None,
            CallBody::Stream(body) => {
                let (sender, parts) = mpsc::channel(PARTS);
                body.parts = parts;
                Some(sender)
            }
        };
        let result = match self.wait_for_answer(&mut downstream, call, parts, &trace, &mut keepalive).await {
            Ok(result) => result,
            Err(NotTaken::Gone(Gone)) => return After::Close,
            Err(NotTaken::Refused(refused)) => {
                return reply::refuse(&mut downstream, asked.id, &refused, &trace.facts()).await;
            }
        };
        match result {
            Ok(answer) if keepalive.has_begun() => relay::relay_in_stream(&mut downstream, asked.route, answer).await,
            Ok(answer) => relay::relay(&mut downstream, &asked, answer).await,
            Err(failure) => {
                if matches!(failure, Failure::Refused(_)) {
                    asker.waiting = self.pipeline.waiting();
                    (asker.paused, asker.failing) = (self.pipeline.is_paused(), self.pipeline.is_failing());
                }
                let refused = Refused::Failure(failure, asker);
                if keepalive.has_begun() {
                    return relay::refuse_in_stream(&mut downstream, asked.route, &refused).await;
                }
                reply::refuse(&mut downstream, asked.id, &refused, &trace.facts()).await
            }
        }
    }

    /// Waits until a call has an answer, or will have none. When this returns without one, the call is over.
    async fn wait_for_answer(
        &self,
        downstream: &mut Downstream<'_>,
        call: Call,
        mut parts: Option<mpsc::Sender<BodyPart>>,
        trace: &Trace,
        keepalive: &mut Keepalive,
    ) -> Result<Result<Answer, Failure>, NotTaken> {
        let id = call.id;
        let mut executing = pin!(self.pipeline.execute(call, trace.clone()));
        loop {
            tokio::select! {
                biased;
                result = &mut executing => return Ok(result),
                // Who is kept company has sent all of its body, so nothing of one is lost when this is dropped.
                not_taken = downstream.pump_until_gone(parts.take(), &self.memory) => {
                    if let NotTaken::Refused(refused) = &not_taken {
                        let (outcome, _, reason) = reply::reason(refused);
                        trace.note(|facts| facts.verdict = Some((outcome, reason)));
                    }
                    return Err(not_taken);
                }
                () = keepalive.is_due() => {}
            }
            keepalive.tell(downstream, id, trace).await?;
        }
    }
}
