//! The calls of one client, in the order they came, each of which knows how many came before it.

use std::collections::VecDeque;

/// A chunk is split when it grows beyond this, and joined with its neighbour when both together are far below it.
const CHUNK: usize = 64;

/// A sorted list in chunks: the first is taken and a last one added in constant time; anything else, ranks included,
/// costs a look at the chunks (n / 64) and a search in one.
#[derive(Debug)]
pub(super) struct Ranked<T> {
    /// None is empty; keys ascend through all of them.
    chunks: VecDeque<VecDeque<(u64, T)>>,
    len: usize,
}

impl<T> Default for Ranked<T> {
    fn default() -> Self {
        Self { chunks: VecDeque::new(), len: 0 }
    }
}

impl<T> Ranked<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn first(&self) -> Option<(u64, &T)> {
        self.chunks.front()?.front().map(|(key, value)| (*key, value))
    }

    /// The one before which `index` others are.
    pub(super) fn nth(&self, mut index: usize) -> Option<(u64, &T)> {
        for chunk in &self.chunks {
            match chunk.get(index) {
                Some((key, value)) => return Some((*key, value)),
                None => index -= chunk.len(),
            }
        }
        None
    }

    /// How many are before `key`, whether it is there or not.
    pub(super) fn rank(&self, key: u64) -> usize {
        let chunk = self.chunk_of(key);
        let before: usize = self.chunks.iter().take(chunk).map(VecDeque::len).sum();
        before + self.chunks.get(chunk).map_or(0, |chunk| chunk.partition_point(|(other, _)| *other < key))
    }

    /// Puts one in its place; keys are unique.
    pub(super) fn insert(&mut self, key: u64, value: T) {
        self.len += 1;
        // One behind all others goes to the end of the last chunk.
        let index = self.chunk_of(key).min(self.chunks.len().saturating_sub(1));
        let Some(chunk) = self.chunks.get_mut(index) else {
            self.chunks.push_back(VecDeque::from([(key, value)]));
            return;
        };
        let place = chunk.partition_point(|(other, _)| *other < key);
        chunk.insert(place, (key, value));
        if chunk.len() > CHUNK {
            let back = chunk.split_off(CHUNK / 2);
            self.chunks.insert(index + 1, back);
        }
    }

    pub(super) fn remove(&mut self, key: u64) -> Option<T> {
        let index = self.chunk_of(key);
        let chunk = self.chunks.get_mut(index)?;
        let place = chunk.binary_search_by_key(&key, |(other, _)| *other).ok()?;
        let (_, value) = chunk.remove(place)?;
        self.len -= 1;
        let left = chunk.len();
        if left == 0 {
            self.chunks.remove(index);
        } else if left < CHUNK / 4
            && let Some(next) = self.chunks.get(index + 1)
            && left + next.len() <= CHUNK / 2
            && let Some(mut next) = self.chunks.remove(index + 1)
            && let Some(chunk) = self.chunks.get_mut(index)
        {
            chunk.append(&mut next);
        }
        Some(value)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten().map(|(_, value)| value)
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = (u64, T)> {
        self.chunks.into_iter().flatten()
    }

    /// The chunk that has `key`, or would have it; their number, where it is behind all others.
    fn chunk_of(&self, key: u64) -> usize {
        self.chunks.partition_point(|chunk| chunk.back().is_some_and(|(last, _)| *last < key))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_sorted_map_that_knows_ranks(steps in proptest::collection::vec((any::<bool>(), 0_u64..400), 1..1_500)) {
            let (mut ranked, mut model) = (Ranked::default(), BTreeMap::new());
            for (insert, key) in steps {
                if insert && !model.contains_key(&key) {
                    ranked.insert(key, key);
                    model.insert(key, key);
                } else {
                    prop_assert_eq!(ranked.remove(key), model.remove(&key));
                }
                prop_assert_eq!(ranked.len(), model.len());
                prop_assert_eq!(ranked.rank(key), model.range(..key).count());
                prop_assert_eq!(ranked.first().map(|(key, _)| key), model.keys().next().copied());
                prop_assert!(ranked.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK));
            }
            for (index, key) in model.keys().enumerate() {
                prop_assert_eq!(ranked.nth(index).map(|(key, _)| key), Some(*key));
            }
            prop_assert!(ranked.into_iter().map(|(key, _)| key).eq(model.into_keys()));
        }
    }
}
