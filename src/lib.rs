//! tidegate: a transparent OpenAI-compatible proxy that never sends a rate-limited provider a request too many.
//!
//! This page is the map. It says what the rooms are, how a call goes through them, and what always holds.
//!
//! # Life of a call
//!
//! ```text
//! client                                                                       provider
//!   │  proxy::accept      head, then body: buffered where it may be sent again    ▲
//!   ▼                                                                             │
//!  pipeline::classify     endpoint, model, class, deadline (habits)               │
//!   │                                                                             │
//!  pipeline::execute ──── a place in admission ─┐                                 │
//!   │                                           ▼                                 │
//!   │   the flight, a task of its own:  ┌─▶ permit ─▶ attempt ────────────────────┘
//!   │   (upstream::exchange)            │               │
//!   │                                   └─ backoff ◀─ verdict
//!   │                                                   │ hold back until it is safe to pass on
//!   ▼                                                   ▼
//!  proxy::relay ◀───────────── answer, observed by its account (one log line, its metrics), which teaches habits
//! ```
//!
//! A client that leaves drops its answer; that cancels the flight, which closes the connection upstream, and the permit
//! gives back what can be given back. Nothing else has to know.
//!
//! While a streaming client waits, `proxy::keepalive` tells it so with a head and comments; then what became of its call is
//! told in the stream.
//!
//! A WebSocket goes the same way up to its 101. Then its answer is a connection, which holds the permit, and
//! `proxy::tunnel` passes bytes both ways until both sides are done.
//!
//! # Rooms
//!
//! Each uses only what stands to its right:
//!
//! ```text
//! commands → app → proxy, api → pipeline → upstream, cache → admission → breaker → limits
//!          → answer, call, memory → headers, metrics, telemetry → openai → ids, units, time
//! ```
//!
//! - [`commands`] and [`app`] build the rooms, introduce them to each other, start and drain them; [`config`] reads what
//!   the file says into the settings that each room declares in its `settings`.
//! - [`proxy`] is the client's side of the wire and [`api`] the operators'; both know transports, nobody below does.
//! - [`pipeline`] tells the flow; [`upstream`] holds the conversation with a provider and is the one owner of attempts,
//!   which is why it may ask [`admission`] for a permit; [`limits`] is arithmetic over instants, and the
//!   journal that survives a kill.
//! - [`sim`] is the strict simulated provider that judges us; it knows nothing of the rooms it judges.
//! - [`breaker`] says whether an upstream is worth trying; [`cache`] and [`tasks`] are rooms that so far have only their
//!   settings.
//!
//! Pingora's types stay in `proxy` and `upstream::connect`; axum's in `api`.
//!
//! # What always holds
//!
//! 1. No request is sent without a permit, and the provider never counts more than its limits: see [`limits`].
//! 2. A call that was refused or abandoned while it waited has spent nothing: see [`admission`].
//! 3. Nothing is sent twice that must not be; once a byte of an answer was passed on only its rest is asked for, where that
//!    is wanted: see [`upstream`].
//! 4. What ended abnormally never looks complete: see [`answer::Ending`].
//! 5. Every queue, buffer, retry and wait has a bound, and a name for what happens at it.
//! 6. All time is tokio's ([`time`]), so all of it can be tested paused.
//!
//! Good to read in this order: [`limits`], [`admission`], [`upstream`], [`pipeline`], [`proxy`].

pub mod admission;
pub mod answer;
pub mod api;
pub mod app;
pub mod breaker;
pub mod cache;
pub mod call;
pub mod commands;
pub mod config;
pub mod headers;
pub mod ids;
pub mod limits;
pub mod memory;
pub mod metrics;
pub mod openai;
pub mod pipeline;
pub mod proxy;
pub mod sim;
pub mod tasks;
pub mod telemetry;
pub mod time;
pub mod units;
pub mod upstream;
