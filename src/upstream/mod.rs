//! upstream.

pub mod settings;
