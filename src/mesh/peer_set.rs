//! A set of cores that one core keeps for itself.

use std::cell::Cell;

const BITS: usize = u64::BITS as usize;

/// Members are indexes of cores.
pub(super) struct PeerSet(Box<[Cell<u64>]>);

impl PeerSet {
    pub(super) fn new(cores: usize) -> PeerSet {
        PeerSet((0..cores.div_ceil(BITS)).map(|_| Cell::new(0)).collect())
    }

    pub(super) fn insert(&self, index: usize) {
        self.insert_word(index / BITS, 1 << (index % BITS));
    }

    /// Adds those of 64 cores whose bits are set.
    pub(super) fn insert_word(&self, word: usize, bits: u64) {
        self.0[word].set(self.0[word].get() | bits);
    }

    pub(super) fn remove(&self, index: usize) {
        let word = &self.0[index / BITS];
        word.set(word.get() & !(1 << (index % BITS)));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| word.get() == 0)
    }

    /// The first member from `start` on, and after the last one those from the beginning.
    pub(super) fn next_from(&self, start: usize) -> Option<usize> {
        self.from(start).or_else(|| self.from(0))
    }

    /// The first member from `start` on.
    pub(super) fn from(&self, start: usize) -> Option<usize> {
        let mut mask = u64::MAX << (start % BITS);
        for index in start / BITS..self.0.len() {
            let bits = self.0[index].get() & mask;
            if bits != 0 {
                return Some(index * BITS + bits.trailing_zeros() as usize);
            }
            mask = u64::MAX;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_in_turn() {
        let set = PeerSet::new(257);
        assert!(set.is_empty());
        assert_eq!(set.next_from(257), None);
        for index in [3, 63, 64, 256] {
            set.insert(index);
        }
        assert_eq!(set.next_from(0), Some(3));
        assert_eq!(set.next_from(4), Some(63));
        assert_eq!(set.next_from(64), Some(64));
        assert_eq!(set.next_from(65), Some(256));
        assert_eq!(set.next_from(257), Some(3));
        set.remove(3);
        assert_eq!(set.next_from(257), Some(63));
        assert_eq!(set.from(257), None);
        set.insert_word(4, 0);
        assert!(!set.is_empty());
    }
}
