//! Names of things that outlive a reload: lanes and the keys behind them, calls.

use std::fmt;
use std::sync::Arc;

/// Which API key, without saying which: the first 8 bytes of its blake3. Safe to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(u64);

impl KeyId {
    /// No key of ours: the client's Authorization goes through.
    pub const PASS_THROUGH: Self = Self(0);

    /// All keys of an upstream, where they share one allowance.
    pub const ALL: Self = Self(u64::MAX);

    /// The id of a key.
    #[must_use]
    pub fn of(key: &str) -> Self {
        Self::of_bytes(key.as_bytes())
    }

    /// The id of a key as it stands in a header field.
    #[must_use]
    pub fn of_bytes(key: &[u8]) -> Self {
        let digest = blake3::hash(key);
        let mut first = [0; 8];
        first.copy_from_slice(&digest.as_bytes()[..8]);
        Self(u64::from_be_bytes(first))
    }

    /// The id with these bits, as [`KeyId::bits`] told them.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The id as a number, to write it down.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Who calls. Cheap to clone, safe to log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientId {
    /// Nobody is told apart: our key goes upstream, and no clients are configured.
    Everybody,
    /// One of `[[clients]]`, or whom a trusted gateway names: its name.
    Named(Arc<str>),
    /// Whoever has this key, which goes through to the provider.
    Key(KeyId),
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("-"),
            Self::Named(name) => f.write_str(name),
            Self::Key(key) => write!(f, "key-{key}"),
        }
    }
}

/// Whether a name can stand in a path, a header and a metric label: 1 to 64 letters, digits, dots, dashes or underscores.
#[must_use]
pub fn is_plain_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// One key of one upstream: what has an allowance of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LaneId {
    /// The upstream's name in the settings.
    pub upstream: Arc<str>,
    /// The key that goes with the request.
    pub key: KeyId,
}

/// The id of a call, as in `x-tidegate-request-id` and the log: 16 hexadecimal digits, unique with overwhelming
/// probability, not a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId(u64);

impl CallId {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(fastrand::u64(..))
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
