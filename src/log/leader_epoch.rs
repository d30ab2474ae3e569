//! Which leader epoch began at which offset: `leader-epoch-checkpoint` and its cache.
//!
//! Followers and leaders find out by it where their logs part (KIP-101, KIP-279). Entries
//! come from the batches' headers and from becoming leader; an epoch without a record may
//! stand at the end.
//!
//! Kafka syncs the file whenever an entry is added. Here it is replaced before the first
//! record of the epoch is written, and synced with the next flush, before the recovery
//! point moves past that record: whatever a power cut takes is found again by recovery,
//! which reads the batches from there on (see [`super::recovery`]).
//!
//! Invariant: epochs and start offsets both grow strictly.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checkpoint::{self, CheckpointError, Durability};
use crate::base::{LeaderEpoch, Offset};
use crate::io::disk::{Disk, File};

pub const FILE_NAME: &str = "leader-epoch-checkpoint";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    pub epoch: LeaderEpoch,
    pub start_offset: Offset,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochCache {
    entries: Vec<EpochEntry>,
}

impl LeaderEpochCache {
    /// What the file in a partition's directory tells.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<LeaderEpochCache, CheckpointError> {
        let entries = checkpoint::read_entries(disk, &path(dir), |line| {
            let (epoch, start) = line.trim().split_once(char::is_whitespace)?;
            let entry = EpochEntry {
                epoch: LeaderEpoch(epoch.parse().ok()?),
                start_offset: Offset(start.trim().parse().ok()?),
            };
            (entry.epoch.0 >= 0 && entry.start_offset.0 >= 0).then_some(entry)
        })?;
        let mut cache = LeaderEpochCache::default();
        for entry in entries {
            cache.assign(entry.epoch, entry.start_offset);
        }
        Ok(cache)
    }

    pub fn write(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        durability: Durability,
    ) -> io::Result<Arc<dyn File>> {
        let mut text = checkpoint::header(self.entries.len());
        for entry in &self.entries {
            writeln!(text, "{} {}", entry.epoch, entry.start_offset).expect("a String takes all");
        }
        checkpoint::replace_file(disk, &path(dir), text.as_bytes(), durability)
    }

    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    pub fn latest(&self) -> Option<EpochEntry> {
        self.entries.last().copied()
    }

    /// Notes that `epoch` begins at `start_offset`. Entries that contradict it go. True
    /// when something changed.
    pub fn assign(&mut self, epoch: LeaderEpoch, start_offset: Offset) -> bool {
        assert!(
            epoch.0 >= 0 && start_offset.0 >= 0,
            "an epoch entry has no sentinels"
        );
        let is_news = self
            .latest()
            .is_none_or(|last| last.epoch != epoch || start_offset < last.start_offset);
        if !is_news {
            return false;
        }
        while let Some(last) = self.latest() {
            if last.epoch < epoch && last.start_offset < start_offset {
                break;
            }
            self.entries.pop();
        }
        self.entries.push(EpochEntry {
            epoch,
            start_offset,
        });
        true
    }

    /// Makes the entries agree with a batch of `epoch` at `offset` that recovery has found;
    /// called in the order of the log. The file may be older than the log or, where a
    /// truncated log has grown again before a power cut, tell of what came before.
    /// Entries that no batch contradicts stay: compaction may have taken the batch that
    /// an epoch began with. True when something changed.
    pub fn reconcile(&mut self, epoch: LeaderEpoch, offset: Offset) -> bool {
        let begun = self.entries.partition_point(|e| e.start_offset <= offset);
        let right = self.entries[..begun].partition_point(|e| e.epoch <= epoch);
        let later = self.entries[begun..].partition_point(|e| e.epoch <= epoch);
        let is_known = right > 0 && self.entries[right - 1].epoch == epoch;
        if is_known && right == begun && later == 0 {
            return false;
        }
        let entry = EpochEntry {
            epoch,
            start_offset: offset,
        };
        let missing = (!is_known).then_some(entry);
        self.entries.splice(right..begun + later, missing);
        true
    }

    /// The largest epoch up to `requested` and the offset where it ends, as
    /// OffsetForLeaderEpoch and diverging fetches want it. `None` for an epoch later than
    /// any that is known, or before any is. An epoch before the first known one ends
    /// where that one starts.
    pub fn end_offset_for(
        &self,
        requested: LeaderEpoch,
        log_end_offset: Offset,
    ) -> Option<(LeaderEpoch, Offset)> {
        let last = self.latest()?;
        if requested == LeaderEpoch::UNKNOWN {
            return None;
        }
        if last.epoch == requested {
            return Some((requested, log_end_offset));
        }
        let higher = self.entries.partition_point(|e| e.epoch <= requested);
        let end_offset = self.entries.get(higher)?.start_offset;
        let epoch = match higher.checked_sub(1) {
            Some(floor) => self.entries[floor].epoch,
            None => requested,
        };
        Some((epoch, end_offset))
    }

    pub fn epoch_for_offset(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|e| e.start_offset <= offset);
        Some(self.entries[after.checked_sub(1)?].epoch)
    }

    /// Drops epochs that start at or beyond `end_offset`. True when something changed.
    pub fn truncate_from_end(&mut self, end_offset: Offset) -> bool {
        let keep = self
            .entries
            .partition_point(|e| e.start_offset < end_offset);
        let changed = keep < self.entries.len();
        self.entries.truncate(keep);
        changed
    }

    /// Drops epochs that end before `start_offset`; the one that spans it starts there.
    /// True when something changed.
    pub fn truncate_from_start(&mut self, start_offset: Offset) -> bool {
        let after = self
            .entries
            .partition_point(|e| e.start_offset <= start_offset);
        let Some(spanning) = after.checked_sub(1) else {
            return false;
        };
        let changed = spanning > 0 || self.entries[spanning].start_offset != start_offset;
        self.entries.drain(..spanning);
        self.entries[0].start_offset = start_offset;
        changed
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::disk::RealDisk;

    fn cache(entries: &[(i32, i64)]) -> LeaderEpochCache {
        let mut cache = LeaderEpochCache::default();
        for &(epoch, start) in entries {
            cache.assign(LeaderEpoch(epoch), Offset(start));
        }
        cache
    }

    fn list(cache: &LeaderEpochCache) -> Vec<(i32, i64)> {
        let entries = cache.entries().iter();
        entries.map(|e| (e.epoch.0, e.start_offset.0)).collect()
    }

    #[test]
    fn file_is_kafkas() {
        let dir = tempfile::tempdir().unwrap();
        let written = cache(&[(0, 0), (3, 20)]);
        written
            .write(&RealDisk, dir.path(), Durability::Now)
            .unwrap();
        let text = RealDisk.read(&dir.path().join(FILE_NAME), 100).unwrap();
        assert_eq!(text, b"0\n2\n0 0\n3 20\n");
        let read = LeaderEpochCache::read(&RealDisk, dir.path()).unwrap();
        assert_eq!(read, written);
    }

    #[test]
    fn contradicting_entries_go() {
        let mut epochs = cache(&[(1, 10), (2, 20), (4, 40)]);
        assert!(!epochs.assign(LeaderEpoch(4), Offset(41)));
        assert!(epochs.assign(LeaderEpoch(4), Offset(39)));
        assert_eq!(list(&epochs), [(1, 10), (2, 20), (4, 39)]);
        // Nothing was written in epoch 4 when epoch 5 began.
        assert!(epochs.assign(LeaderEpoch(5), Offset(39)));
        assert_eq!(list(&epochs), [(1, 10), (2, 20), (5, 39)]);
        assert!(epochs.assign(LeaderEpoch(3), Offset(15)));
        assert_eq!(list(&epochs), [(1, 10), (3, 15)]);
        assert!(epochs.assign(LeaderEpoch(0), Offset(0)));
        assert_eq!(list(&epochs), [(0, 0)]);
    }

    #[test]
    fn ends_of_epochs() {
        let epochs = cache(&[(1, 10), (2, 20), (4, 40)]);
        let end = |epoch| {
            epochs
                .end_offset_for(LeaderEpoch(epoch), Offset(50))
                .map(|(e, o)| (e.0, o.0))
        };
        assert_eq!(end(-1), None);
        assert_eq!(end(0), Some((0, 10)));
        assert_eq!(end(1), Some((1, 20)));
        assert_eq!(end(2), Some((2, 40)));
        assert_eq!(end(3), Some((2, 40)));
        assert_eq!(end(4), Some((4, 50)));
        assert_eq!(end(5), None);
        let none = LeaderEpochCache::default();
        assert_eq!(none.end_offset_for(LeaderEpoch(0), Offset(0)), None);
        let of = |offset| epochs.epoch_for_offset(Offset(offset)).map(|e| e.0);
        assert_eq!(
            [of(9), of(10), of(39), of(99)],
            [None, Some(1), Some(2), Some(4)]
        );
    }

    #[test]
    fn entries_follow_the_batches_found() {
        let reconciled = |entries: &[(i32, i64)], batches: &[(i32, i64)]| {
            let mut epochs = cache(entries);
            for &(epoch, offset) in batches {
                epochs.reconcile(LeaderEpoch(epoch), Offset(offset));
            }
            list(&epochs)
        };
        let batches = [(1, 10), (1, 15), (2, 20), (4, 40), (4, 45)];
        let truth = [(1, 10), (2, 20), (4, 40)];
        for entries in [
            &truth[..],
            &[],
            &[(1, 10)],
            &[(4, 40)],
            &[(1, 10), (2, 15), (4, 40)],
            &[(1, 10), (2, 40), (4, 45)],
            &[(1, 10), (3, 15), (4, 45)],
            &[(7, 5)],
        ] {
            assert_eq!(reconciled(entries, &batches), truth, "{entries:?}");
        }
        // Compaction has taken the batch at 18, an epoch without records is at the end.
        let kept = [(1, 10), (2, 18), (4, 40), (5, 46)];
        assert_eq!(reconciled(&kept, &batches), kept);
    }

    #[test]
    fn both_ends_are_cut() {
        let mut epochs = cache(&[(1, 10), (2, 20), (4, 40)]);
        assert!(!epochs.truncate_from_start(Offset(9)));
        assert!(!epochs.truncate_from_start(Offset(10)));
        assert!(epochs.truncate_from_start(Offset(25)));
        assert_eq!(list(&epochs), [(2, 25), (4, 40)]);
        assert!(!epochs.truncate_from_end(Offset(41)));
        assert!(epochs.truncate_from_end(Offset(40)));
        assert_eq!(list(&epochs), [(2, 25)]);
        assert!(epochs.truncate_from_end(Offset(0)));
        assert!(epochs.entries().is_empty());
    }
}
