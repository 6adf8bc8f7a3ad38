//! Whom this room knows: each client's weight, its own limits, and what it waits for and uses.

use std::collections::HashMap;
use std::num::NonZeroU32;

use super::settings::{Client as Settings, OnLimit};
use super::standing::standing;
use super::status::ClientStatus;
use crate::ids::ClientId;
use crate::limits::{Allowance, Quota};
use crate::time::Instant;
use crate::units::Priority;

/// A client's number, never given twice.
pub(super) type ClientNumber = u64;

/// So many clients are kept before those are looked for that nothing is known of.
const CLIENTS_MIN: usize = 1_024;

/// What a client may use, and its share beside others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientQuota {
    /// Who it is.
    pub id: ClientId,
    /// Its share of a class beside other clients.
    pub weight: NonZeroU32,
    /// Its own limits.
    pub quota: Quota,
    /// What happens at them.
    pub on_limit: OnLimit,
}

impl From<&Settings> for ClientQuota {
    fn from(client: &Settings) -> Self {
        let limits = client.limits;
        Self {
            id: ClientId::Named(client.name.as_str().into()),
            weight: client.weight,
            quota: Quota {
                requests: limits.requests_per_minute,
                tokens: limits.tokens_per_minute,
                concurrency: limits.concurrency,
                ..Quota::unlimited()
            },
            on_limit: client.on_limit,
        }
    }
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: ClientId,
    pub(super) weight: NonZeroU32,
    /// Its own limits, if it has any.
    pub(super) own: Option<Allowance>,
    pub(super) on_limit: OnLimit,
    pub(super) waiting: [u32; 3],
    pub(super) running: u32,
    permits: u64,
    /// The lines and classes in which calls of its wait.
    pub(super) places: Vec<(usize, Priority)>,
    /// Its calls stand aside, because one of its own limits is reached.
    pub(super) is_parked: bool,
    /// When it is looked whether that is over.
    pub(super) wake: Option<Instant>,
}

impl Client {
    fn new(id: ClientId) -> Self {
        Self {
            id,
            weight: NonZeroU32::MIN,
            own: None,
            on_limit: OnLimit::Wait,
            waiting: [0; 3],
            running: 0,
            permits: 0,
            places: Vec::new(),
            is_parked: false,
            wake: None,
        }
    }

    fn configure(&mut self, now: Instant, quota: &ClientQuota) {
        (self.weight, self.on_limit) = (quota.weight, quota.on_limit);
        self.own = (quota.quota != Quota::unlimited()).then(|| match self.own.take() {
            Some(mut own) => {
                own.reconfigure(now, quota.quota);
                own
            }
            None => Allowance::new(quota.quota),
        });
    }

    /// A permit was granted.
    pub(super) fn granted(&mut self) {
        self.running += 1;
        self.permits += 1;
    }

    fn is_unknown(&self) -> bool {
        self.own.is_none() && self.running == 0 && self.waiting == [0; 3]
    }

    fn status(&mut self, now: Instant) -> ClientStatus {
        let (requests, tokens) = self.own.as_mut().map_or((None, None), |own| standing(own, now));
        ClientStatus {
            id: self.id.clone(),
            weight: self.weight,
            waiting: self.waiting,
            running: self.running,
            permits: self.permits,
            requests,
            tokens,
            slots_cap: self.own.as_mut().and_then(|own| own.usage(now).slots_cap),
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Clients {
    by_id: HashMap<ClientId, ClientNumber>,
    all: HashMap<ClientNumber, Client>,
    configured: Vec<ClientQuota>,
    next: ClientNumber,
    /// How many there may be before they are looked through.
    sweep_at: usize,
}

impl Clients {
    /// Other clients from now on. Who is none any more keeps its calls and loses its weight and limits.
    pub(super) fn reconfigure(&mut self, now: Instant, configured: Vec<ClientQuota>) {
        for client in self.all.values_mut().filter(|client| configured.iter().all(|quota| quota.id != client.id)) {
            (client.weight, client.own, client.on_limit) = (NonZeroU32::MIN, None, OnLimit::Wait);
        }
        for quota in &configured {
            let key = self.key_of(&quota.id);
            if let Some(client) = self.all.get_mut(&key) {
                client.configure(now, quota);
            }
        }
        self.configured = configured;
    }

    /// The number of a client, which becomes known by it.
    pub(super) fn key_of(&mut self, id: &ClientId) -> ClientNumber {
        if let Some(key) = self.by_id.get(id) {
            return *key;
        }
        if self.all.len() >= self.sweep_at.max(CLIENTS_MIN) {
            let configured = &self.configured;
            self.all.retain(|_, client| !client.is_unknown() || configured.iter().any(|quota| quota.id == client.id));
            self.by_id.retain(|_, key| self.all.contains_key(key));
            self.sweep_at = 2 * self.all.len();
        }
        self.next += 1;
        self.by_id.insert(id.clone(), self.next);
        self.all.insert(self.next, Client::new(id.clone()));
        self.next
    }

    pub(super) fn of(&mut self, key: ClientNumber) -> Option<&mut Client> {
        self.all.get_mut(&key)
    }

    /// A client's own limits, if it has any.
    pub(super) fn own_of(&mut self, key: ClientNumber) -> Option<&mut Allowance> {
        self.of(key)?.own.as_mut()
    }

    pub(super) fn weight(&self, key: ClientNumber) -> NonZeroU32 {
        self.all.get(&key).map_or(NonZeroU32::MIN, |client| client.weight)
    }

    pub(super) fn name(&self, key: ClientNumber) -> ClientId {
        self.all.get(&key).map_or(ClientId::Everybody, |client| client.id.clone())
    }

    /// Nobody waits any more.
    pub(super) fn forget_places(&mut self) {
        for client in self.all.values_mut() {
            client.places.clear();
            (client.waiting, client.is_parked, client.wake) = ([0; 3], false, None);
        }
    }

    /// All of them, by name.
    pub(super) fn status(&mut self, now: Instant) -> Vec<ClientStatus> {
        let mut all: Vec<_> = self.all.values_mut().map(|client| client.status(now)).collect();
        all.sort_by(|one, other| one.id.cmp(&other.id));
        all
    }
}
