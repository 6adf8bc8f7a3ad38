//! One file a command.

pub mod check;
pub mod health;
pub mod sim;
