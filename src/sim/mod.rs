//! The strict simulated provider: as strict as the worst real one, and the judge of our limiter.
//!
//! - A request *arrives* when its head was read; from then on it is in flight, until the last byte of its answer was
//!   written. After a hang-up it stays in flight for the disconnect lag.
//! - It is *counted* once it was read completely and its arrival jitter has passed, at the true instant of that moment, in
//!   an exact sliding window. Refused requests count, too.
//! - A request over a limit is a *violation*: it is refused, and so is everything until its penalty is over.
//! - What is said is a function of the request ([`content`]), so that a client can verify every byte.
//! - An answer is the same however often it is asked for; each delta of it is a token. Where the request brings the
//!   beginning of it and asks to continue it, the rest follows, and the tokens of both add up.
//! - What goes wrong is drawn at its rate, or wished for by the request itself; an outage is for everybody.
//! - A WebSocket, at whatever path, is counted at its handshake and in flight until it is closed; frames are echoed.
//!
//! It never forgives: no burst allowance, no bucket that refills early, no forgetting when limits change or statistics
//! are reset. It is not a load balancer and knows no models; `/sim/…` alone is not judged.

mod answer;
pub mod content;
mod control;
mod exchange;
mod fault;
pub mod judge;
mod outage;
mod provider;
mod realtime;
mod reply;
mod settings;
mod stats;
pub mod swarm;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use fault::{Fault, FaultKind};
pub use outage::Outage;
pub use settings::{Continuation, Latency, Limits, SettingError, Settings, Violation};
pub use stats::{Stats, Violations};

use crate::time::{Duration, Tasks};
use provider::Provider;

/// The simulated provider, not yet running.
#[derive(Debug)]
pub struct Sim;

impl Sim {
    /// Starts a provider. It runs until the handle is stopped or dropped.
    ///
    /// # Errors
    /// When it cannot listen on the address.
    pub async fn start(settings: Settings) -> io::Result<Running> {
        let listener = TcpListener::bind(settings.listen).await?;
        let addr = listener.local_addr()?;
        let provider = Provider::new(settings);
        let (tasks, stop) = (Tasks::default(), CancellationToken::new());
        tasks.spawn(accept(listener, Arc::clone(&provider), tasks.clone(), stop.clone()));
        Ok(Running { addr, provider, tasks, stop })
    }
}

/// A provider that runs. Dropping it stops it: connections are closed where they stand.
#[derive(Debug)]
pub struct Running {
    addr: SocketAddr,
    provider: Arc<Provider>,
    tasks: Tasks,
    stop: CancellationToken,
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What a client takes as its base URL.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// What it saw.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.provider.stats()
    }

    /// Every counted instant since the start or the last reset, in seconds since the start, oldest first; of each key the
    /// last million.
    #[must_use]
    pub fn arrivals(&self) -> Vec<f64> {
        self.provider.arrivals()
    }

    /// Changes what is allowed, from the next arrival on. What was counted stays counted.
    pub fn set_limits(&self, limits: Limits) {
        self.provider.set_limits(limits);
    }

    /// Changes what goes wrong, from the next request on.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        self.provider.set_faults(faults);
    }

    /// Answers 401 to whoever bears this in `Authorization`, from the next request on.
    pub fn revoke(&self, authorization: &str) {
        self.provider.revoke(authorization);
    }

    /// Goes down for so long. What runs is reset if new requests will be.
    pub fn go_down(&self, outage: Outage, lasts: Duration) {
        self.provider.go_down(outage, lasts);
    }

    /// Ends an outage.
    pub fn come_back(&self) {
        self.provider.come_back();
    }

    /// Clears the statistics. The window, what is in flight and a running penalty stay.
    pub fn reset_stats(&self) {
        self.provider.reset_stats();
    }

    /// Closes every connection where it stands and waits until that is done.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.drained().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener, provider: Arc<Provider>, tasks: Tasks, stop: CancellationToken) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                let (provider, stop) = (Arc::clone(&provider), stop.clone());
                tasks.spawn(async move { stop.run_until_cancelled(exchange::serve(provider, stream)).await });
            }
            Err(error) => {
                // Out of file descriptors, most likely: it passes when connections end.
                tracing::warn!(%error, "the simulated provider cannot accept");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}
