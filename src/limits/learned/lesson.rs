//! What a refusal comes to.

use std::fmt;

use super::status::Subject;
use crate::time::Instant;

/// What came of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lesson {
    /// Nothing new. The gate is closed until then.
    Nothing(Instant),
    /// Something is assumed to be lower from now on. The gate is closed until then.
    Lowered(Subject, Instant),
    /// A higher level was tried and refused: what held before holds again. The gate is closed until then.
    ProbeFailed(Subject, Instant),
    /// It is about a day: nobody goes until then, and then one at a time.
    Bench(Instant),
}

impl Lesson {
    /// Until when nobody goes.
    #[must_use]
    pub const fn closed_until(self) -> Instant {
        match self {
            Self::Nothing(until) | Self::Lowered(_, until) | Self::ProbeFailed(_, until) | Self::Bench(until) => until,
        }
    }
}

impl fmt::Display for Lesson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing(_) => f.write_str("nothing new"),
            Self::Lowered(subject, _) => write!(f, "{} is lower than configured", subject.as_str()),
            Self::ProbeFailed(subject, _) => write!(f, "more {} were tried, and are too many", subject.as_str()),
            Self::Bench(_) => f.write_str("a day is over"),
        }
    }
}
