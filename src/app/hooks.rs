//! What operators may ask of the process.

use std::sync::Arc;

use super::{App, mistakes_of};
use crate::admission::settings::Client;
use crate::admission::{BreakerStatus, ClientStatus, LaneStatus, Queue};
use crate::api::AdminHooks;
use crate::upstream::settings::Upstream;

impl AdminHooks for App {
    fn reload(&self) -> Result<(), Vec<String>> {
        Self::reload(self).map_err(|error| mistakes_of(&error))
    }

    fn drain(&self) {
        Self::drain(self);
    }

    fn pause(&self, upstream: &str, paused: bool) -> Result<(), Vec<String>> {
        if !self.0.admission.pause(upstream, paused) {
            return Err(self.0.settings.lock().upstreams.iter().map(|upstream| upstream.name.clone()).collect());
        }
        match paused {
            true => tracing::info!(upstream, "an operator has paused it: its calls wait, what runs ends"),
            false => tracing::info!(upstream, "an operator has resumed it"),
        }
        Ok(())
    }

    fn queue(&self, most: usize) -> Queue {
        self.0.admission.queue(most)
    }

    fn upstreams(&self) -> Vec<Upstream> {
        self.0.settings.lock().upstreams.clone()
    }

    fn lanes(&self) -> Vec<LaneStatus> {
        self.0.admission.lanes()
    }

    fn breakers(&self) -> Vec<BreakerStatus> {
        self.0.admission.breakers()
    }

    fn paused(&self) -> Vec<Arc<str>> {
        self.0.admission.paused()
    }

    fn client_settings(&self) -> Vec<Client> {
        self.0.settings.lock().clients.clone()
    }

    fn clients(&self) -> Vec<ClientStatus> {
        self.0.admission.clients()
    }

    fn config(&self) -> String {
        let settings = self.0.settings.lock().clone();
        settings.frozen_as(&self.0.started).to_json()
    }
}
