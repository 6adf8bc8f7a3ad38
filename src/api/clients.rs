//! `GET /admin/v1/clients`: who calls, and what each waits for and uses. Keys are never told.

use axum::extract::State;
use axum::response::Response;
use http::Uri;
use serde::Serialize;

use super::Admin;
use super::json::{ByClass, answer, ms};
use super::queue::limit;
use crate::admission::ClientStatus;
use crate::admission::settings::{Client, OnLimit};
use crate::answer::Standing;
use crate::ids::ClientId;
use crate::time::Duration;
use crate::units::Priority;

/// So many are shown unless `?limit=` says otherwise.
const SHOWN: usize = 1_000;

pub(super) async fn clients(State(admin): State<Admin>, uri: Uri) -> Response {
    match limit(&uri, SHOWN) {
        Ok(most) => answer(&View::new(&admin.hooks.client_settings(), &admin.hooks.clients(), most)),
        Err(refused) => *refused,
    }
}

#[derive(Debug, Serialize)]
struct View<'a> {
    /// How many are known, shown or not.
    total: usize,
    clients: Vec<One<'a>>,
}

/// A client. What only the settings say is `null` for those who are not in them.
#[derive(Debug, Serialize)]
struct One<'a> {
    name: String,
    configured: bool,
    class: Option<Priority>,
    class_max: Option<Priority>,
    weight: u32,
    waiting: ByClass,
    running: u32,
    permits: u64,
    requests: Option<Left>,
    tokens: Option<Left>,
    slots: Option<Slots>,
    on_limit: Option<&'a str>,
}

/// A limit of its own, and what is left of it.
#[derive(Debug, Serialize)]
struct Left {
    limit: u64,
    left: u64,
    reset_ms: u64,
}

#[derive(Debug, Serialize)]
struct Slots {
    limit: u32,
    in_use: u32,
}

impl<'a> View<'a> {
    /// First those of the settings, in their order; then the others as they come.
    fn new(settings: &'a [Client], statuses: &[ClientStatus], most: usize) -> Self {
        let status_of = |client: &Client| {
            statuses.iter().find(|status| matches!(&status.id, ClientId::Named(name) if **name == *client.name))
        };
        let is_configured = |status: &&ClientStatus| match &status.id {
            ClientId::Named(name) => settings.iter().any(|client| *client.name == **name),
            ClientId::Everybody | ClientId::Key(_) => false,
        };
        let configured = settings.iter().map(|client| One::configured(client, status_of(client)));
        let others = statuses.iter().filter(|status| !is_configured(status));
        Self {
            total: settings.len() + others.clone().count(),
            clients: configured.chain(others.map(One::other)).take(most).collect(),
        }
    }
}

impl<'a> One<'a> {
    fn configured(client: &'a Client, status: Option<&ClientStatus>) -> Self {
        // Of a limit that nothing was used of, all is left.
        let unused = |limit: Option<std::num::NonZeroU32>| {
            let limit = u64::from(limit?.get());
            Some(Standing { limit, left: limit, reset: Duration::ZERO })
        };
        let idle = || ClientStatus {
            id: ClientId::Named(client.name.as_str().into()),
            weight: client.weight,
            waiting: [0; 3],
            running: 0,
            permits: 0,
            requests: unused(client.limits.requests_per_minute),
            tokens: unused(client.limits.tokens_per_minute),
            slots_cap: client.limits.concurrency.map(std::num::NonZeroU32::get),
        };
        Self {
            configured: true,
            class: Some(client.class),
            class_max: Some(client.class_max),
            on_limit: Some(match client.on_limit {
                OnLimit::Wait => "wait",
                OnLimit::Refuse => "refuse",
            }),
            ..status.map_or_else(|| Self::other(&idle()), Self::other)
        }
    }

    fn other(status: &ClientStatus) -> Self {
        let left = |standing: Standing| {
            let Standing { limit, left, reset } = standing;
            Left { limit, left, reset_ms: ms(reset) }
        };
        Self {
            name: status.id.to_string(),
            configured: false,
            class: None,
            class_max: None,
            weight: status.weight.get(),
            waiting: status.waiting.into(),
            running: status.running,
            permits: status.permits,
            requests: status.requests.map(left),
            tokens: status.tokens.map(left),
            slots: status.slots_cap.map(|limit| Slots { limit, in_use: status.running }),
            on_limit: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::admission::settings::ClientKey;
    use crate::ids::KeyId;
    use crate::units::Secret;

    fn client(name: &str) -> Client {
        Client::new(name.to_owned(), ClientKey::Plain(Secret::new(format!("tg-secret-{name}"))))
    }

    fn status(id: ClientId) -> ClientStatus {
        ClientStatus {
            id,
            weight: NonZeroU32::new(4).unwrap(),
            waiting: [0, 2, 1],
            running: 2,
            permits: 90,
            requests: Some(Standing { limit: 20, left: 3, reset: Duration::from_millis(41_500) }),
            tokens: None,
            slots_cap: Some(2),
        }
    }

    #[test]
    fn clients_of_the_settings_come_first_whether_they_call_or_not() {
        let (mut idle, mut busy) = (client("idle"), client("busy"));
        idle.limits.requests_per_minute = NonZeroU32::new(7);
        (busy.class_max, busy.on_limit) = (Priority::High, OnLimit::Refuse);
        let key = ClientId::Key(KeyId::of("sk-theirs"));
        let statuses = [status(key.clone()), status(ClientId::Named("busy".into()))];
        let settings = [idle, busy];
        let json = serde_json::to_value(View::new(&settings, &statuses, 10)).unwrap();
        let used = serde_json::json!({ "limit": 20, "left": 3, "reset_ms": 41_500 });
        let expected = serde_json::json!({ "total": 3, "clients": [
            {
                "name": "idle", "configured": true, "class": "normal", "class_max": "normal", "weight": 1,
                "waiting": { "total": 0, "high": 0, "normal": 0, "low": 0 }, "running": 0, "permits": 0,
                "requests": { "limit": 7, "left": 7, "reset_ms": 0 }, "tokens": null, "slots": null,
                "on_limit": "wait",
            },
            {
                "name": "busy", "configured": true, "class": "normal", "class_max": "high", "weight": 4,
                "waiting": { "total": 3, "high": 0, "normal": 2, "low": 1 }, "running": 2, "permits": 90,
                "requests": used, "tokens": null, "slots": { "limit": 2, "in_use": 2 }, "on_limit": "refuse",
            },
            {
                "name": key.to_string(), "configured": false, "class": null, "class_max": null, "weight": 4,
                "waiting": { "total": 3, "high": 0, "normal": 2, "low": 1 }, "running": 2, "permits": 90,
                "requests": used, "tokens": null, "slots": { "limit": 2, "in_use": 2 }, "on_limit": null,
            },
        ] });
        assert_eq!(json, expected);
        assert!(!json.to_string().contains("secret") && !json.to_string().contains("sk-theirs"));
    }

    #[test]
    fn no_more_are_shown_than_asked_for() {
        let statuses: Vec<_> = (0..50).map(|n| status(ClientId::Key(KeyId::of(&format!("sk-{n}"))))).collect();
        let view = View::new(&[], &statuses, 10);
        assert_eq!((view.total, view.clients.len()), (50, 10));
    }
}
