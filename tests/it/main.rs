//! One binary, a module for each promise.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod bodies;
mod clients;
mod config;
mod corpus;
mod crashes;
mod demo;
mod disconnects;
mod early;
mod edges;
mod http2;
mod large;
mod listening;
mod matrix;
mod operators;
mod recovery;
mod resources;
mod retries;
mod scenarios;
mod sim;
mod support;
mod upstreams;
mod waiting;
mod websocket;
mod wire;
