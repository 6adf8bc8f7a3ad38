//! One binary, a module for each promise.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod config;
mod demo;
mod sim;
mod support;
