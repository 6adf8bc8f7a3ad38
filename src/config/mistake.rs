//! What is wrong with a file, said so that it can be mended: where, what, and how.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// One mistake. It prints as `field = value: problem; fix`; secrets never stand in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The line it stands on, from 1; absent for what the command line said.
    pub line: Option<usize>,
    /// The setting, as `upstreams.nvidia.limits.window`, or the flag.
    pub field: String,
    /// The value as written, before the environment is filled in; absent where there is none or it may hold a secret.
    pub value: Option<String>,
    /// What is wrong with it.
    pub problem: String,
    /// What to do about it.
    pub fix: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.field)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, ": {}; {}", self.problem, self.fix)
    }
}

/// Every mistake of a file, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// Puts them in order: first those of the command line, then by line.
    pub(super) fn new(mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort_by_key(|mistake| mistake.line);
        Self(mistakes)
    }

    /// All of them; never none.
    #[must_use]
    pub fn all(&self) -> &[Mistake] {
        &self.0
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            match mistake.line {
                Some(line) => write!(f, "line {line}: {mistake}")?,
                None => write!(f, "command line: {mistake}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// Why a file gave no settings.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It could not be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// It says something it must not.
    #[error("{}:\n{mistakes}", path.display())]
    Mistaken {
        /// The file.
        path: PathBuf,
        /// All that is wrong.
        mistakes: Mistakes,
    },
}
