//! One bound over what is held on behalf of calls: bodies that wait, answers that are held back, later the cache.
//!
//! Whoever collects bytes asks first, and what was collected carries its share with it ([`Held::keep`]): the share
//! returns when the last owner of the bytes drops them, wherever that is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::metrics::MemoryKind;

/// The bound, and what is held. Cheap to clone, one for the whole process.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: AtomicU64,
    held: AtomicU64,
    by_kind: [AtomicU64; MemoryKind::ALL.len()],
}

/// There is no room for more; the bound in bytes (`server.memory_max`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes are held already")]
pub struct Full(pub u64);

/// A share. It returns when it is dropped.
#[derive(Debug)]
pub struct Held {
    memory: Memory,
    kind: MemoryKind,
    bytes: u64,
}

impl Memory {
    /// Room for `max` bytes.
    #[must_use]
    pub fn new(max: u64) -> Self {
        Self(Arc::new(Shared { max: max.into(), held: AtomicU64::new(0), by_kind: Default::default() }))
    }

    /// Another bound from now on. What is held above a lowered one stays held.
    pub fn set_max(&self, max: u64) {
        self.0.max.store(max, Ordering::Relaxed);
    }

    /// How much is held of a kind.
    #[must_use]
    pub fn held(&self, kind: MemoryKind) -> u64 {
        self.0.by_kind[kind as usize].load(Ordering::Relaxed)
    }

    /// Bytes that pay for themselves as long as anybody owns them.
    ///
    /// # Errors
    /// The bytes as they were, where there is no room for them.
    pub fn pay(&self, kind: MemoryKind, bytes: Bytes) -> Result<Bytes, Bytes> {
        let mut share = self.share(kind);
        match share.grow(u64::try_from(bytes.len()).unwrap_or(u64::MAX)) {
            Ok(()) => Ok(share.keep(bytes)),
            Err(Full(_)) => Err(bytes),
        }
    }

    /// An empty share, to be grown.
    #[must_use]
    pub fn share(&self, kind: MemoryKind) -> Held {
        Held { memory: self.clone(), kind, bytes: 0 }
    }
}

impl Held {
    /// Takes so many bytes more.
    ///
    /// # Errors
    /// When that would be over the bound; then nothing was taken.
    pub fn grow(&mut self, more: u64) -> Result<(), Full> {
        let Shared { max, held, by_kind } = &*self.memory.0;
        let max = max.load(Ordering::Relaxed);
        let add = |held: u64| held.checked_add(more).filter(|&sum| sum <= max);
        if held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_err() {
            return Err(Full(max));
        }
        by_kind[self.kind as usize].fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
        Ok(())
    }

    /// Takes more, or gives some back, so that it is of so many bytes.
    ///
    /// # Errors
    /// When that would be over the bound; then nothing has changed.
    pub fn resize(&mut self, bytes: u64) -> Result<(), Full> {
        match bytes.checked_sub(self.bytes) {
            Some(0) => {}
            Some(more) => self.grow(more)?,
            None => self.give_back(self.bytes - bytes),
        }
        Ok(())
    }

    /// Gives everything back.
    pub fn clear(&mut self) {
        self.give_back(self.bytes);
    }

    fn give_back(&mut self, bytes: u64) {
        let Shared { held, by_kind, .. } = &*self.memory.0;
        self.bytes -= bytes;
        held.fetch_sub(bytes, Ordering::Relaxed);
        by_kind[self.kind as usize].fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The bytes that this share is for, as one that returns with the last of their owners.
    #[must_use]
    pub fn keep(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        if bytes.as_ref().is_empty() { Bytes::new() } else { Bytes::from_owner(Kept { bytes, _share: self }) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.clear();
    }
}

struct Kept<B> {
    bytes: B,
    _share: Held,
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Kept<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_returns_with_the_last_owner_of_its_bytes() {
        let memory = Memory::new(100);
        let mut share = memory.share(MemoryKind::Bodies);
        share.grow(60).unwrap();
        let bytes = share.keep(vec![7; 60]);
        let part = bytes.slice(10..20);
        drop(bytes);
        assert_eq!((memory.held(MemoryKind::Bodies), memory.held(MemoryKind::Flights)), (60, 0));
        assert_eq!(part, [7; 10][..]);
        drop(part);
        assert_eq!(memory.held(MemoryKind::Bodies), 0);
    }

    #[test]
    fn what_does_not_fit_takes_nothing() {
        let memory = Memory::new(100);
        let (mut first, mut second) = (memory.share(MemoryKind::Bodies), memory.share(MemoryKind::Flights));
        first.grow(70).unwrap();
        assert_eq!(second.grow(31), Err(Full(100)));
        second.grow(30).unwrap();
        memory.set_max(50);
        assert_eq!(first.grow(1), Err(Full(50)));
        drop(second);
        assert_eq!(first.grow(1), Err(Full(50)));
        drop(first);
        assert_eq!(memory.share(MemoryKind::Cache).grow(50), Ok(()));
    }

    #[test]
    fn a_share_grows_and_shrinks_to_what_it_is_for() {
        let memory = Memory::new(100);
        let mut share = memory.share(MemoryKind::Flights);
        for (bytes, fits, held) in [(60, true, 60), (101, false, 60), (100, true, 100), (7, true, 7), (0, true, 0)] {
            assert_eq!((share.resize(bytes).is_ok(), memory.held(MemoryKind::Flights)), (fits, held), "{bytes}");
        }
        // Who asks for nothing more is not hurt by a bound that was lowered below what is held.
        assert_eq!(share.resize(50), Ok(()));
        memory.set_max(10);
        assert_eq!((share.resize(50), share.resize(51), share.resize(49)), (Ok(()), Err(Full(10)), Ok(())));
    }

    #[test]
    fn nothing_is_kept_of_no_bytes() {
        let memory = Memory::new(1);
        assert!(memory.share(MemoryKind::Bodies).keep(Vec::new()).is_empty());
    }
}
