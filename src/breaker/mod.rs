//! Is this upstream worth trying? So far only the settings of this room exist.

pub mod settings;
