//! limits.

pub mod settings;
