//! `.timeindex`: from timestamp to offset.
//!
//! ```text
//! i64 largest timestamp so far | i32 last offset of the batch that reached it - base offset
//! ```
//! An entry follows an `.index` entry where the timestamp has grown, and a last one is
//! written when the segment is closed. Invariant: timestamps grow strictly, offsets don't
//! fall.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::entry_file::EntryFile;
use super::offset_index::relative_offset;
use crate::base::{Millis, Offset};
use crate::io::disk::{Disk, File};

pub const ENTRY_LEN: usize = 12;

/// A timestamp and the last offset of the batch that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampOffset {
    pub timestamp: Millis,
    pub offset: Offset,
}

#[derive(Debug)]
pub struct TimeIndex {
    base_offset: Offset,
    entries: EntryFile<ENTRY_LEN>,
    /// `(-1, base offset)` while there is none.
    last_entry: TimestampOffset,
}

impl TimeIndex {
    pub fn create(disk: &dyn Disk, path: PathBuf, base_offset: Offset) -> io::Result<Self> {
        Ok(TimeIndex {
            base_offset,
            entries: EntryFile::create(disk, path)?,
            last_entry: TimestampOffset {
                timestamp: -1,
                offset: base_offset,
            },
        })
    }

    pub fn open(disk: &dyn Disk, path: PathBuf, base_offset: Offset) -> io::Result<Self> {
        let entries = EntryFile::open(disk, path)?;
        let mut index = TimeIndex {
            base_offset,
            last_entry: TimestampOffset {
                timestamp: -1,
                offset: base_offset,
            },
            entries,
        };
        index.last_entry = index.before(disk, index.entries.count())?;
        Ok(index)
    }

    /// Whether the file can be what we or Kafka left behind.
    pub fn is_sane(&self, disk: &dyn Disk) -> io::Result<bool> {
        if !self.entries.length_is_whole(disk)? {
            return Ok(false);
        }
        let padded = self.entries.count() > 1
            && self.last_entry.timestamp == 0
            && self.last_entry.offset == self.base_offset;
        Ok(!padded && self.last_entry.offset >= self.base_offset)
    }

    pub fn exists(&self, disk: &dyn Disk) -> io::Result<bool> {
        self.entries.exists(disk)
    }

    pub fn count(&self) -> u32 {
        self.entries.count()
    }

    pub fn last_entry(&self) -> TimestampOffset {
        self.last_entry
    }

    /// The largest entry at or below `timestamp`; `(-1, base offset)` where there is none.
    pub fn lookup(&self, disk: &dyn Disk, timestamp: Millis) -> io::Result<TimestampOffset> {
        let after = self
            .entries
            .partition_point(disk, |entry| self.parse(entry).timestamp <= timestamp)?;
        self.before(disk, after)
    }

    /// Appends unless the last entry has this timestamp or a later one.
    pub fn maybe_append(&mut self, disk: &dyn Disk, entry: TimestampOffset) -> io::Result<()> {
        if entry.timestamp <= self.last_entry.timestamp {
            return Ok(());
        }
        let relative =
            relative_offset(entry.offset, self.base_offset).expect("offset fits the segment");
        let mut bytes = [0; ENTRY_LEN];
        bytes[..8].copy_from_slice(&entry.timestamp.to_be_bytes());
        bytes[8..].copy_from_slice(&relative.to_be_bytes());
        self.entries.push(disk, bytes)?;
        self.last_entry = entry;
        Ok(())
    }

    /// Drops entries at or beyond `offset`.
    pub fn truncate_to(&mut self, disk: &dyn Disk, offset: Offset) -> io::Result<()> {
        let keep = self
            .entries
            .partition_point(disk, |entry| self.parse(entry).offset < offset)?;
        self.entries.truncate(disk, keep)?;
        self.last_entry = self.before(disk, keep)?;
        Ok(())
    }

    /// Empties the file, making it where there is none.
    pub fn reset(&mut self, disk: &dyn Disk) -> io::Result<()> {
        self.entries.reset(disk)?;
        self.last_entry = self.before(disk, 0)?;
        Ok(())
    }

    pub fn write_out(&mut self, disk: &dyn Disk) -> io::Result<()> {
        self.entries.write_out(disk)
    }

    /// Writes what waits in memory, and returns the file if it is to be synced.
    pub fn write_out_unsynced(&mut self, disk: &dyn Disk) -> io::Result<Option<Arc<dyn File>>> {
        self.entries.write_out_unsynced(disk)
    }

    /// Keeps the entries up to `offset`. True when they are in order.
    pub fn keep_up_to(&mut self, disk: &dyn Disk, offset: Offset) -> io::Result<bool> {
        let mut last = self.before(disk, 0)?;
        let mut keep = 0;
        let mut is_sound = true;
        for bytes in self.entries.entries_from(disk, 0)? {
            let entry = self.parse(&bytes);
            if entry.offset > offset {
                break;
            }
            is_sound = last.timestamp < entry.timestamp && last.offset <= entry.offset;
            if !is_sound {
                break;
            }
            keep += 1;
            last = entry;
        }
        self.entries.truncate(disk, keep)?;
        self.last_entry = last;
        Ok(is_sound)
    }

    pub fn seal(&mut self, disk: &dyn Disk) -> io::Result<Option<Arc<dyn File>>> {
        self.entries.seal(disk)
    }

    fn before(&self, disk: &dyn Disk, index: u32) -> io::Result<TimestampOffset> {
        match index.checked_sub(1) {
            None => Ok(TimestampOffset {
                timestamp: -1,
                offset: self.base_offset,
            }),
            Some(index) => Ok(self.parse(&self.entries.entry(disk, index)?)),
        }
    }

    fn parse(&self, entry: &[u8; ENTRY_LEN]) -> TimestampOffset {
        parse_entry(entry, self.base_offset)
    }
}

/// Reads an entry; the offset saturates rather than wraps for a corrupt one.
pub fn parse_entry(entry: &[u8; ENTRY_LEN], base_offset: Offset) -> TimestampOffset {
    let (timestamp, relative) = entry.split_at(8);
    let relative = i32::from_be_bytes(relative.try_into().expect("4 of 12 bytes"));
    TimestampOffset {
        timestamp: i64::from_be_bytes(timestamp.try_into().expect("8 of 12 bytes")),
        offset: Offset(base_offset.0.saturating_add(i64::from(relative))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::disk::RealDisk;
    use crate::log::testing::hex;

    fn entry(timestamp: Millis, offset: i64) -> TimestampOffset {
        TimestampOffset {
            timestamp,
            offset: Offset(offset),
        }
    }

    #[test]
    fn entries_are_kafkas() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk;
        let path = dir.path().join("00000000000000000068.timeindex");
        let mut index = TimeIndex::create(&disk, path.clone(), Offset(68)).unwrap();
        let (first, second) = (0x01a2_034a_cc60, 0x01a2_034a_cc75);
        index.maybe_append(&disk, entry(first, 73)).unwrap();
        index.maybe_append(&disk, entry(first, 75)).unwrap();
        index.maybe_append(&disk, entry(second, 76)).unwrap();
        index.seal(&disk).unwrap();
        assert_eq!(
            disk.read(&path, 100).unwrap(),
            hex("000001a2034acc6000000005000001a2034acc7500000008")
        );

        let mut index = TimeIndex::open(&disk, path, Offset(68)).unwrap();
        assert!(index.is_sane(&disk).unwrap());
        let at = |timestamp| index.lookup(&disk, timestamp).unwrap().offset.0;
        assert_eq!([at(0), at(first), at(second - 1)], [68, 73, 73]);
        assert_eq!(at(i64::MAX), 76);
        index.truncate_to(&disk, Offset(76)).unwrap();
        assert_eq!(index.last_entry(), entry(first, 73));
        index.truncate_to(&disk, Offset(0)).unwrap();
        assert_eq!(index.last_entry(), entry(-1, 68));
    }
}
