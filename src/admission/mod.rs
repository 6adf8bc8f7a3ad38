//! admission.

pub mod settings;
