//! tasks.

pub mod settings;
