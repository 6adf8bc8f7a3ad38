//! proxy.

pub mod settings;
