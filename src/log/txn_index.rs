//! `.txnindex`: the aborted transactions whose markers stand in a segment.
//!
//! ```text
//! i16 version 0 | i64 producer id | i64 first offset | i64 last offset (the marker's) | i64 last stable offset
//! ```
//! The file exists only where there is an entry. Entries are in the order of their
//! markers. The last stable offset of an entry lets a search stop: no transaction that
//! was still open at that point began below it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::entry_file::EntryFile;
use crate::base::{Offset, ProducerId};
use crate::io::disk::{Disk, File};

pub const ENTRY_LEN: usize = 34;
const VERSION: i16 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTxn {
    pub producer_id: ProducerId,
    pub first_offset: Offset,
    pub last_offset: Offset,
    pub last_stable_offset: Offset,
}

#[derive(Debug)]
pub struct TxnIndex {
    entries: EntryFile<ENTRY_LEN>,
}

impl TxnIndex {
    pub fn open(disk: &dyn Disk, path: PathBuf) -> io::Result<Self> {
        let entries = EntryFile::open(disk, path)?;
        Ok(TxnIndex { entries })
    }

    /// Whether every entry can belong to a segment with this base offset.
    pub fn is_sane(&self, disk: &dyn Disk, base_offset: Offset) -> io::Result<bool> {
        if !self.entries.length_is_whole(disk)? {
            return Ok(false);
        }
        let entries = self.entries.entries_from(disk, 0)?;
        Ok(entries
            .iter()
            .all(|entry| parse_entry(entry).is_some_and(|txn| txn.last_offset >= base_offset)))
    }

    pub fn append(&mut self, disk: &dyn Disk, txn: &AbortedTxn) -> io::Result<()> {
        self.entries.push(disk, encode_entry(txn))
    }

    /// Drops transactions whose marker is at or beyond `offset`.
    pub fn truncate_to(&mut self, disk: &dyn Disk, offset: Offset) -> io::Result<()> {
        let keep = self.entries.partition_point(disk, |entry| {
            parse_entry(entry).is_some_and(|txn| txn.last_offset < offset)
        })?;
        self.entries.truncate(disk, keep)
    }

    /// Adds to `found` what overlaps `[from, to)`. True when later segments can't add
    /// more.
    pub fn collect(
        &self,
        disk: &dyn Disk,
        from: Offset,
        to: Offset,
        found: &mut Vec<AbortedTxn>,
    ) -> io::Result<bool> {
        if self.entries.count() == 0 {
            return Ok(false);
        }
        for entry in self.entries.entries_from(disk, 0)? {
            let txn = parse_entry(&entry).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "unknown version in txnindex")
            })?;
            if txn.last_offset >= from && txn.first_offset < to {
                found.push(txn);
            }
            if txn.last_stable_offset >= to {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Empties the file, if there is one.
    pub fn reset(&mut self, disk: &dyn Disk) -> io::Result<()> {
        if self.entries.exists(disk)? {
            self.entries.reset(disk)?;
        }
        Ok(())
    }

    pub fn write_out(&mut self, disk: &dyn Disk) -> io::Result<()> {
        self.entries.write_out(disk)
    }

    /// Writes what waits in memory, and returns the file if it is to be synced.
    pub fn write_out_unsynced(&mut self, disk: &dyn Disk) -> io::Result<Option<Arc<dyn File>>> {
        self.entries.write_out_unsynced(disk)
    }

    pub fn seal(&mut self, disk: &dyn Disk) -> io::Result<Option<Arc<dyn File>>> {
        self.entries.seal(disk)
    }

    pub fn count(&self) -> u32 {
        self.entries.count()
    }
}

fn encode_entry(txn: &AbortedTxn) -> [u8; ENTRY_LEN] {
    let mut entry = [0; ENTRY_LEN];
    entry[..2].copy_from_slice(&VERSION.to_be_bytes());
    entry[2..10].copy_from_slice(&txn.producer_id.0.to_be_bytes());
    entry[10..18].copy_from_slice(&txn.first_offset.0.to_be_bytes());
    entry[18..26].copy_from_slice(&txn.last_offset.0.to_be_bytes());
    entry[26..].copy_from_slice(&txn.last_stable_offset.0.to_be_bytes());
    entry
}

/// Reads an entry; `None` for a version that we don't know.
pub fn parse_entry(entry: &[u8; ENTRY_LEN]) -> Option<AbortedTxn> {
    let (version, rest) = entry.split_first_chunk().expect("2 of 34 bytes");
    if i16::from_be_bytes(*version) > VERSION {
        return None;
    }
    let (numbers, _) = rest.as_chunks::<8>();
    let number = |i: usize| i64::from_be_bytes(numbers[i]);
    Some(AbortedTxn {
        producer_id: ProducerId(number(0)),
        first_offset: Offset(number(1)),
        last_offset: Offset(number(2)),
        last_stable_offset: Offset(number(3)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::disk::RealDisk;
    use crate::log::testing::hex;

    fn txn(producer_id: i64, first: i64, last: i64, stable: i64) -> AbortedTxn {
        AbortedTxn {
            producer_id: ProducerId(producer_id),
            first_offset: Offset(first),
            last_offset: Offset(last),
            last_stable_offset: Offset(stable),
        }
    }

    #[test]
    fn entries_are_kafkas() {
        let entry = encode_entry(&txn(1, 3, 7, 8));
        let golden = hex("00000000000000000001000000000000000300000000000000070000000000000008");
        assert_eq!(entry[..], golden);
        assert_eq!(parse_entry(&entry), Some(txn(1, 3, 7, 8)));
    }

    #[test]
    fn overlapping_transactions_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk;
        let path = dir.path().join("00000000000000000000.txnindex");
        let mut index = TxnIndex::open(&disk, path.clone()).unwrap();
        let all = [txn(1, 0, 10, 4), txn(2, 4, 20, 12), txn(3, 12, 30, 31)];
        for txn in &all {
            index.append(&disk, txn).unwrap();
        }
        index.seal(&disk).unwrap();
        let mut index = TxnIndex::open(&disk, path.clone()).unwrap();
        assert!(index.is_sane(&disk, Offset(0)).unwrap());
        assert!(!index.is_sane(&disk, Offset(11)).unwrap());
        let search = |from, to| {
            let mut found = Vec::new();
            let complete = index
                .collect(&disk, Offset(from), Offset(to), &mut found)
                .unwrap();
            let ids: Vec<i64> = found.iter().map(|txn| txn.producer_id.0).collect();
            (ids, complete)
        };
        assert_eq!(search(0, 4), (vec![1], true));
        assert_eq!(search(0, 5), (vec![1, 2], true));
        assert_eq!(search(11, 40), (vec![2, 3], false));
        index.truncate_to(&disk, Offset(20)).unwrap();
        assert_eq!(index.count(), 1);
        index.truncate_to(&disk, Offset(0)).unwrap();
        assert!(disk.read(&path, 100).unwrap().is_empty());
    }
}
