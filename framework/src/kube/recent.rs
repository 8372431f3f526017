//! A map that forgets what was not used for longest.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// At most `bound` entries; a new one beyond that costs the least recently used.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    bound: usize,
    clock: u64,
    entries: HashMap<K, (u64, V)>,
    by_use: BTreeMap<u64, K>,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    pub(super) fn new(bound: usize) -> Self {
        Self {
            bound: bound.max(1),
            clock: 0,
            entries: HashMap::new(),
            by_use: BTreeMap::new(),
        }
    }

    /// The entry, made if it is not there. Counts as a use.
    pub(super) fn entry(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        self.clock += 1;
        let now = self.clock;
        if let Some((used, _)) = self.entries.get(&key) {
            self.by_use.remove(used);
        } else if self.entries.len() >= self.bound
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.entries.remove(&oldest);
        }
        self.by_use.insert(now, key.clone());
        let (used, value) = self.entries.entry(key).or_insert_with(|| (now, make()));
        *used = now;
        value
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        assert_eq!(self.entries.len(), self.by_use.len());
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_is_forgotten() {
        let mut recent = Recent::new(2);
        *recent.entry("a", || 0) += 1;
        *recent.entry("b", || 0) += 1;
        *recent.entry("a", || 0) += 1;
        *recent.entry("c", || 0) += 1;
        assert_eq!(recent.len(), 2);
        assert_eq!(*recent.entry("a", || 0), 2);
        assert_eq!(*recent.entry("b", || 0), 0);
        assert_eq!(recent.len(), 2);
    }
}
