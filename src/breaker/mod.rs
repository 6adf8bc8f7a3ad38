//! breaker.

pub mod settings;
