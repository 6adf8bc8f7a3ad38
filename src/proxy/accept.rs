//! From a connection to its requests, one after the other.

use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use tokio::time::timeout;

use super::cause::{After, Gone, NotTaken, Refused};
use super::downstream::Downstream;
use super::{Bounds, Proxy, Shared, relay, reply};
use crate::answer::{Facts, Trace};
use crate::call::{BodyStream, Call, CallBody};
use crate::ids::CallId;
use crate::metrics::Present;
use crate::openai::Route;
use crate::pipeline::{Incoming, TurnedAway};
use crate::time::{self, Instant};

/// Request bodies on their way upstream, in parts of up to 64 KiB. So much is read ahead while a call waits: only of a
/// body that has come to its end is it noticed that its client leaves.
const PARTS: usize = 16;

/// What pingora runs for each connection.
pub(super) struct App(Arc<Shared>);

impl App {
    pub(super) fn new(proxy: Proxy) -> Self {
        Self(proxy.0)
    }
}

/// Goes with a connection from request to request.
struct Connection {
    /// Counts it while it is open.
    _present: Present,
}

#[async_trait]
impl HttpServerApp for App {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let bounds = **self.0.bounds.load();
        let known = session.take_connection_user_context();
        let is_new = known.is_none();
        let idle = if is_new { time::Duration::ZERO } else { bounds.idle_timeout };
        let connection = match known {
            Some(connection) => connection,
            None => Box::new(Connection { _present: self.0.metrics.connection() }),
        };
        session.set_pipelining_enabled(true);
        session.set_read_timeout(Some(bounds.body_timeout));
        session.set_write_timeout(Some(bounds.write_timeout));
        let open = usize::try_from(self.0.metrics.connections_open()).unwrap_or(0);
        if is_new && open > bounds.connections_max {
            reply::refuse_connection(&mut session, &Refused::TooManyConnections).await;
            return None;
        }
        match timeout(idle + bounds.header_timeout, session.read_request()).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) | Err(_) => return None,
            Ok(Err(_)) => {
                reply::refuse_connection(&mut session, &Refused::NOT_HTTP).await;
                return None;
            }
        }
        // A client of HTTP/1.0 that does not ask for more reads until we close.
        let keeps = session.get_keepalive().is_some() && !*shutdown.borrow();
        session.set_keepalive(keeps.then(|| bounds.idle_timeout.as_secs().max(1)));
        let serving = self.0.calls.token();
        let after = self.0.serve(Downstream::new(&mut session, bounds.write_timeout), &bounds).await;
        match after {
            After::Keep => {}
            After::Close => return None,
            After::Tunnel(tunnel) => {
                if let ServerSession::H1(session) = session {
                    tunnel.run(session.into_inner(), bounds.write_timeout, &self.0.cut).await;
                }
                return None;
            }
        }
        let mut settings = HttpPersistentSettings::for_session(&session);
        settings.set_user_context(connection);
        let reusable = session.finish().await;
        drop(serving);
        Some(ReusedHttpStream::from_reusable_stream(reusable.ok()??, settings))
    }
}

impl Shared {
    /// Serves one request whose head was read.
    async fn serve(&self, mut downstream: Downstream<'_>, bounds: &Bounds) -> After {
        let (id, received) = (CallId::random(), time::now());
        match self.take_in(&mut downstream, bounds, id, received).await {
            Ok(call) => self.execute(downstream, call).await,
            Err(NotTaken::Gone(Gone)) => After::Close,
            Err(NotTaken::Refused(refused)) => {
                let (outcome, status, reason) = reply::reason(&refused);
                self.pipeline.turned_away(&TurnedAway { id, received, outcome, status, reason });
                reply::refuse(&mut downstream, id, &refused, &Facts::default()).await
            }
        }
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
        let headers = downstream.headers();
        let body = if Route::of(&method, &target).is_generation() || downstream.has_no_body() {
            CallBody::Whole(downstream.read_body(bounds.body_max).await?)
        } else {
            // The parts follow once the call is under way.
            let (_, parts) = tokio::sync::mpsc::channel(1);
            CallBody::Stream(BodyStream { length: downstream.content_length(), parts })
        };
        let incoming = Incoming { id, received, method, target, headers, body };
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
            not_taken = downstream.pump_until_gone(parts) => return match not_taken {
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
