//! The operators' face: probes, metrics and what an administrator may do. The only room that names axum.
//!
//! | request | answers |
//! |---|---|
//! | `GET /livez` | 200 as long as the process runs |
//! | `GET /readyz` | 200 when calls are taken, else 503 with the reason |
//! | `GET /metrics` | Prometheus' text format |
//! | `POST /admin/v1/reload` | re-reads the settings; 422 with every mistake if they have some |
//! | `POST /admin/v1/drain` | as SIGTERM |
//! | `GET /admin/v1/queue?limit=100` | `{waiting, bytes, calls: [{id, client, class, model, upstreams, position, eta_ms, waited_ms, deadline_in_ms, tokens, bytes}]}` in the order of service, up to 10,000; `eta_ms` is null while nobody can tell |
//! | `GET /admin/v1/upstreams` | `{upstreams: [{name, kind, base_url, models, paused, keys_total, keys: [{key, waiting, closed_for_ms, requests: {limit, used, left}, tokens, requests_per_day, slots: {limit, in_use}, window_margin_ms, learned: [{setting, configured, assumed, reason, since_ms, next_probe_ms, probing}]}]}]}`; limits are those in force, as configured or learned; a key is its place in the settings, a client's own its digest, `all` stands for all of those together; a limit that does not bind is null |
//! | `POST /admin/v1/upstreams/NAME/pause` | `{upstream, paused}`: its calls wait, what runs ends; asking twice is as good as once; 404 tells the names there are |
//! | `POST /admin/v1/upstreams/NAME/resume` | the same: it goes on |
//! | `GET /admin/v1/clients?limit=1000` | `{total, clients: [{name, configured, class, class_max, weight, waiting, running, permits, requests: {limit, left, reset_ms}, tokens, slots: {limit, in_use}, on_limit}]}`, those of the settings first |
//! | `GET /admin/v1/config` | the settings in force, as `tidegate check` prints them: every default, no secret |
//!
//! `waiting` is `{total, high, normal, low}` of the queue and of a client.
//!
//! A token protects everything but the two probes. Without one the listener belongs on loopback ([`check_bind`]), and
//! a web page that the operator happens to have open must still not reach it (`auth.rs`). Errors have OpenAI's shape.

mod auth;
mod clients;
mod json;
mod queue;
mod readiness;
mod upstreams;

use std::fmt;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use self::auth::{BindRefused, check_bind};
pub use self::readiness::{Readiness, State as ReadyState};
use crate::admission::settings::Client;
use crate::admission::{BreakerStatus, ClientStatus, LaneStatus, Queue};
use crate::metrics::Metrics;
use crate::openai::ErrorBody;
use crate::time::Duration;
use crate::units::Secret;
use crate::upstream::settings::Upstream;

/// How long open connections may take to finish once the shutdown has come; probes and scrapes are short.
const GRACE: Duration = Duration::from_secs(2);

/// What an administrator may ask of the process. The process answers, this room only carries it over HTTP.
pub trait AdminHooks: fmt::Debug + Send + Sync {
    /// Re-reads the settings, as SIGHUP does.
    ///
    /// # Errors
    /// Every mistake in them; nothing has changed then.
    fn reload(&self) -> Result<(), Vec<String>>;

    /// Begins to drain, as SIGTERM does. Returns at once.
    fn drain(&self);

    /// Pauses an upstream, or lets it go on.
    ///
    /// # Errors
    /// The names there are, where this is none.
    fn pause(&self, upstream: &str, paused: bool) -> Result<(), Vec<String>>;

    /// Who waits, `most` of them at the most.
    fn queue(&self, most: usize) -> Queue;

    /// `[[upstreams]]` as they hold.
    fn upstreams(&self) -> Vec<Upstream>;

    /// What is used of each of their keys.
    fn lanes(&self) -> Vec<LaneStatus>;

    /// How their breakers stand.
    fn breakers(&self) -> Vec<BreakerStatus>;

    /// The names of those that are paused.
    fn paused(&self) -> Vec<Arc<str>>;

    /// `[[clients]]` as they hold.
    fn client_settings(&self) -> Vec<Client>;

    /// What each client waits for and uses.
    fn clients(&self) -> Vec<ClientStatus>;

    /// All settings as they hold, as JSON without secrets.
    fn config(&self) -> String;
}

/// What the listener serves from.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Rendered at `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Told at `/readyz`.
    pub readiness: Readiness,
    /// `server.admin_token`.
    pub token: Option<Secret>,
    /// Who does what is asked.
    pub hooks: Arc<dyn AdminHooks>,
}

/// Serves until `shutdown` turns true or its sender is gone; what is being answered then has two seconds to finish.
/// Dropping the future stops listening and leaves open connections to the runtime.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(listener: TcpListener, admin: Admin, shutdown: watch::Receiver<bool>) -> io::Result<()> {
    let overdue = {
        let shutdown = shutdown.clone();
        async move {
            stopped(shutdown).await;
            tokio::time::sleep(GRACE).await;
        }
    };
    let serving = axum::serve(listener, router(admin)).with_graceful_shutdown(stopped(shutdown));
    tokio::select! {
        result = serving => result,
        () = overdue => Ok(()),
    }
}

async fn stopped(mut shutdown: watch::Receiver<bool>) {
    // An error means that nobody is left who could ever say so.
    let _told = shutdown.wait_for(|stop| *stop).await;
}

fn router(admin: Admin) -> Router {
    let guarded = Router::new()
        .route("/metrics", get(metrics))
        .route("/admin/v1/reload", post(reload))
        .route("/admin/v1/drain", post(drain))
        .route("/admin/v1/queue", get(queue::queue))
        .route("/admin/v1/upstreams", get(upstreams::upstreams))
        .route("/admin/v1/upstreams/{name}/pause", post(upstreams::pause))
        .route("/admin/v1/upstreams/{name}/resume", post(upstreams::resume))
        .route("/admin/v1/clients", get(clients::clients))
        .route("/admin/v1/config", get(config))
        .fallback(async || {
            let message =
                "nothing is here; try /metrics, /livez, /readyz or /admin/v1/{queue,upstreams,clients,config}";
            error(StatusCode::NOT_FOUND, "not_found", message)
        })
        .method_not_allowed_fallback(async || {
            error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this is here, but not for this method")
        })
        .layer(middleware::from_fn_with_state(admin.clone(), auth::require));
    Router::new()
        .route("/livez", get(async || json_reply(StatusCode::OK, &json!({ "status": "live" }))))
        .route("/readyz", get(readyz))
        .merge(guarded)
        .with_state(admin)
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], admin.metrics.render()).into_response()
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let state = admin.readiness.state();
    match state.reason() {
        None => json_reply(StatusCode::OK, &json!({ "status": state.as_str() })),
        Some(reason) => {
            json_reply(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": state.as_str(), "reason": reason }))
        }
    }
}

async fn reload(State(admin): State<Admin>) -> Response {
    match admin.hooks.reload() {
        Ok(()) => json_reply(StatusCode::OK, &json!({ "status": "applied" })),
        Err(mistakes) => error(StatusCode::UNPROCESSABLE_ENTITY, "config_refused", mistakes.join("\n")),
    }
}

async fn config(State(admin): State<Admin>) -> Response {
    reply(StatusCode::OK, Body::from(admin.hooks.config()))
}

async fn drain(State(admin): State<Admin>) -> Response {
    admin.hooks.drain();
    json_reply(StatusCode::ACCEPTED, &json!({ "status": "draining" }))
}

fn json_reply(status: StatusCode, body: &Value) -> Response {
    reply(status, Body::from(body.to_string()))
}

fn error(status: StatusCode, code: &'static str, message: impl Into<String>) -> Response {
    reply(status, Body::from(ErrorBody::new(message.into(), "invalid_request_error", code).to_json()))
}

fn reply(status: StatusCode, body: Body) -> Response {
    let kind = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, kind)], body).into_response()
}

#[cfg(test)]
mod tests;
