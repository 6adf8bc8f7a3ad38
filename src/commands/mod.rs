//! One file a command, each thin: arguments in, exit code out.

pub mod check;
pub mod demo;
pub mod health;
pub mod serve;
pub mod sim;

/// Exit code of a mistake of ours (`EX_SOFTWARE` of BSD's sysexits).
pub const OUR_MISTAKE: u8 = 70;
