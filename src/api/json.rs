//! How figures stand in our JSON: written at once, without a tree in between, since ten thousand calls may wait.

use std::fmt::Display;

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde::{Serialize, Serializer};

use super::{error, reply};
use crate::time::Duration;
use crate::units::Priority;

/// The answer that holds a value.
pub(super) fn answer(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(json) => reply(StatusCode::OK, Body::from(json)),
        // Maps with odd keys cannot be written; there are none.
        Err(why) => error(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", why.to_string()),
    }
}

/// What prints itself, as a string.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<T>(pub(super) T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A duration in whole milliseconds.
pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A number of calls, and how they divide into classes.
#[derive(Debug, Serialize)]
pub(super) struct ByClass {
    total: u64,
    high: u32,
    normal: u32,
    low: u32,
}

impl From<[u32; 3]> for ByClass {
    fn from(calls: [u32; 3]) -> Self {
        let of = |class: Priority| calls[class as usize];
        Self {
            total: calls.iter().copied().map(u64::from).sum(),
            high: of(Priority::High),
            normal: of(Priority::Normal),
            low: of(Priority::Low),
        }
    }
}

/// One limit and what is used of it.
#[derive(Debug, Serialize)]
pub(super) struct Balance {
    pub(super) limit: u64,
    pub(super) used: u64,
    pub(super) left: u64,
}

impl Balance {
    pub(super) fn new(limit: impl Into<u64>, used: impl Into<u64>) -> Self {
        let (limit, used) = (limit.into(), used.into());
        Self { limit, used, left: limit.saturating_sub(used) }
    }
}
