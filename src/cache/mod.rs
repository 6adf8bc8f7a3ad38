//! Answered already, or being answered. So far only the settings of this room exist.

pub mod settings;
