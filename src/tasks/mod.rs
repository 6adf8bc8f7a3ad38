//! Calls that outlive their client. So far only the settings of this room exist.

pub mod settings;
