//! cache.

pub mod settings;
