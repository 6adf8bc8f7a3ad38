//! What a call is expected to use.

use std::fmt;
use std::sync::Arc;

/// The tokens that a call is expected to use at the most. It is asked when its turn has come: what was learned of its
/// model while it waited counts.
#[derive(Clone)]
pub struct Estimate(Source);

#[derive(Clone)]
enum Source {
    Known(u64),
    Asked(Arc<dyn Fn() -> u64 + Send + Sync>),
}

impl Estimate {
    /// A figure that does not change.
    #[must_use]
    pub const fn known(tokens: u64) -> Self {
        Self(Source::Known(tokens))
    }

    /// A figure that may change while the call waits. `ask` must be quick: it is called under the lock of admission.
    #[must_use]
    pub fn asked(ask: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Source::Asked(Arc::new(ask)))
    }

    /// As of now.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        match &self.0 {
            Source::Known(tokens) => *tokens,
            Source::Asked(ask) => ask(),
        }
    }
}

impl fmt::Debug for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Estimate").field(&self.tokens()).finish()
    }
}
