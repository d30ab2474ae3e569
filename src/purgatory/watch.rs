//! The watch lists of one partition: who waits for which offset or for how many bytes.
//!
//! Owned by the partition's core inside `shard::partition`; every append, high watermark
//! move or change of leadership asks [`Watchers::due`] who is to be woken. An operation
//! that waits on several partitions has one entry in each of them under one key, and is
//! removed from the others when it ends.
//!
//! Invariant: an entry is either in the list or was handed out exactly once.

/// What a waiter waits for on one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The high watermark reaches this offset (produce with `acks=all`).
    HighWatermark(i64),
    /// The bytes readable by consumers reach this count since the partition was opened
    /// (fetch with `min.bytes`).
    ReadableBytes(u64),
    /// The bytes in the log reach this count (a follower's fetch).
    LogBytes(u64),
    /// The log start reaches this offset (DeleteRecords).
    LogStart(i64),
    /// Everything below this offset is on stable storage (`flush.messages`).
    Durable(i64),
}

/// How far a partition is; see [`Condition`] for the units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub high_watermark: i64,
    pub readable_bytes: u64,
    pub log_bytes: u64,
    pub log_start: i64,
    pub durable: i64,
}

impl Condition {
    pub fn is_met(self, progress: &Progress) -> bool {
        match self {
            Condition::HighWatermark(offset) => progress.high_watermark >= offset,
            Condition::ReadableBytes(bytes) => progress.readable_bytes >= bytes,
            Condition::LogBytes(bytes) => progress.log_bytes >= bytes,
            Condition::LogStart(offset) => progress.log_start >= offset,
            Condition::Durable(offset) => progress.durable >= offset,
        }
    }
}

/// Waiters of one partition. `K` names the waiting operation.
#[derive(Debug)]
pub struct Watchers<K> {
    entries: Vec<(K, Condition)>,
}

impl<K> Default for Watchers<K> {
    fn default() -> Self {
        Watchers {
            entries: Vec::new(),
        }
    }
}

impl<K: PartialEq> Watchers<K> {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn watch(&mut self, key: K, condition: Condition) {
        self.entries.push((key, condition));
    }

    /// The operation ended otherwise (deadline, another partition, closed connection).
    pub fn unwatch(&mut self, key: &K) {
        self.entries.retain(|(k, _)| k != key);
    }

    /// Removes and hands out every waiter whose condition holds now.
    pub fn due(&mut self, progress: &Progress, mut wake: impl FnMut(K)) {
        let mut index = 0;
        while index < self.entries.len() {
            if self.entries[index].1.is_met(progress) {
                wake(self.entries.swap_remove(index).0);
            } else {
                index += 1;
            }
        }
    }

    /// Leadership, epoch or the log itself changed: everyone looks again.
    pub fn all(&mut self, mut wake: impl FnMut(K)) {
        for (key, _) in self.entries.drain(..) {
            wake(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(watchers: &mut Watchers<u32>, progress: &Progress) -> Vec<u32> {
        let mut keys = Vec::new();
        watchers.due(progress, |key| keys.push(key));
        keys.sort_unstable();
        keys
    }

    #[test]
    fn each_waiter_is_woken_once_when_its_condition_holds() {
        let mut watchers = Watchers::default();
        watchers.watch(1, Condition::HighWatermark(10));
        watchers.watch(2, Condition::ReadableBytes(100));
        watchers.watch(3, Condition::HighWatermark(11));
        let mut progress = Progress {
            high_watermark: 10,
            ..Progress::default()
        };
        assert_eq!(due(&mut watchers, &progress), [1]);
        assert!(due(&mut watchers, &progress).is_empty());
        progress.high_watermark = 12;
        progress.readable_bytes = 100;
        assert_eq!(due(&mut watchers, &progress), [2, 3]);
        assert!(watchers.is_empty());
    }

    #[test]
    fn an_ended_operation_is_not_woken() {
        let mut watchers = Watchers::default();
        watchers.watch(1, Condition::LogStart(5));
        watchers.watch(2, Condition::LogStart(5));
        watchers.unwatch(&1);
        assert_eq!(
            due(
                &mut watchers,
                &Progress {
                    log_start: 5,
                    ..Progress::default()
                }
            ),
            [2]
        );
    }

    #[test]
    fn a_change_of_leadership_wakes_everyone() {
        let mut watchers = Watchers::default();
        watchers.watch(1, Condition::LogBytes(1_000));
        watchers.watch(2, Condition::HighWatermark(1_000));
        let mut woken = Vec::new();
        watchers.all(|key| woken.push(key));
        assert_eq!(woken, [1, 2]);
        assert!(watchers.is_empty());
    }
}
