//! `<offset>.snapshot`: the producers' state up to (excluding) an offset.
//!
//! ```text
//! i16 version 1 | u32 CRC-32C of the rest | i32 count | entries of 46 bytes:
//! i64 producer id | i16 epoch | i32 last sequence | i64 last offset | i32 offset delta
//! i64 timestamp | i32 coordinator epoch | i64 first offset of the open transaction or -1
//! ```
//! Of the five remembered batches only the last is kept.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use smallvec::SmallVec;

use super::checkpoint::{self, Durability};
use super::names;
use super::producer_state::{BatchMetadata, ProducerEntry, ProducerStates};
use crate::base::{Offset, ProducerEpoch, ProducerId};
use crate::io::disk::{Disk, File};

const VERSION: i16 = 1;
const CRC_END: usize = 6;
const ENTRIES_AT: usize = 10;
const ENTRY_LEN: usize = 46;
/// About three million producers.
const LEN_MAX: u64 = 128 << 20;

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("corrupt producer snapshot: {0}")]
    Corrupt(&'static str),
}

/// The snapshots in a partition's directory.
#[derive(Debug)]
pub struct Snapshots {
    dir: PathBuf,
    offsets: BTreeSet<Offset>,
    /// Where the state was last saved or loaded.
    last: Offset,
}

impl Snapshots {
    pub fn list(disk: &dyn Disk, dir: &Path) -> io::Result<Snapshots> {
        let entries = disk.read_dir(dir)?;
        let offsets = entries.iter().filter(|entry| !entry.is_dir);
        let offsets = offsets.filter_map(|entry| match names::parse_file_name(&entry.name)? {
            (offset, names::SNAPSHOT) => Some(offset),
            _ => None,
        });
        Ok(Snapshots {
            dir: dir.to_owned(),
            offsets: offsets.collect(),
            last: Offset(0),
        })
    }

    pub fn latest(&self) -> Option<Offset> {
        self.offsets.last().copied()
    }

    pub fn set_last(&mut self, offset: Offset) {
        self.last = offset;
    }

    /// Saves the state, unless one of this offset was saved or loaded.
    pub fn take(
        &mut self,
        disk: &dyn Disk,
        states: &ProducerStates,
        durability: Durability,
    ) -> io::Result<Option<Arc<dyn File>>> {
        let offset = states.end_offset();
        if offset <= self.last {
            return Ok(None);
        }
        let file = write(disk, &self.path(offset), states, durability)?;
        self.offsets.insert(offset);
        self.last = offset;
        Ok(Some(file))
    }

    pub fn read(
        &self,
        disk: &dyn Disk,
        offset: Offset,
    ) -> Result<Vec<(ProducerId, ProducerEntry)>, SnapshotError> {
        read(disk, &self.path(offset))
    }

    pub fn remove(&mut self, disk: &dyn Disk, offset: Offset) -> io::Result<()> {
        if !self.offsets.remove(&offset) {
            return Ok(());
        }
        match disk.remove_file(&self.path(offset)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes those for which `keep` doesn't hold.
    pub fn retain(&mut self, disk: &dyn Disk, keep: impl Fn(Offset) -> bool) -> io::Result<()> {
        let gone: Vec<Offset> = self.offsets.iter().copied().filter(|o| !keep(*o)).collect();
        gone.into_iter().try_for_each(|o| self.remove(disk, o))
    }

    /// Of the snapshots that don't stand at a segment's start, only the latest is of use,
    /// and only if it lies beyond the last segment's start; and the one at or below the
    /// recovery point, where the next recovery begins should it come before the next
    /// checkpoint.
    pub fn remove_stray(
        &mut self,
        disk: &dyn Disk,
        segments: &[Offset],
        recovery_point: Offset,
    ) -> io::Result<()> {
        let stray = |offset: &Offset| segments.binary_search(offset).is_err();
        let is_of_use = |offset: &Offset| segments.last().is_none_or(|last| offset >= last);
        let latest = self.offsets.iter().copied().rfind(stray);
        let resumed = self.at_or_below(recovery_point).filter(stray);
        let kept = [latest.filter(is_of_use), resumed.filter(is_of_use)];
        self.retain(disk, |offset| {
            !stray(&offset) || kept.contains(&Some(offset))
        })
    }

    /// The latest snapshot at or below `offset`.
    pub fn at_or_below(&self, offset: Offset) -> Option<Offset> {
        self.offsets.range(..=offset).next_back().copied()
    }

    fn path(&self, offset: Offset) -> PathBuf {
        self.dir.join(names::file_name(offset, names::SNAPSHOT))
    }
}

fn write(
    disk: &dyn Disk,
    path: &Path,
    states: &ProducerStates,
    durability: Durability,
) -> io::Result<Arc<dyn File>> {
    checkpoint::replace_file(disk, path, &encode(states), durability)
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Vec<(ProducerId, ProducerEntry)>, SnapshotError> {
    decode(&disk.read(path, LEN_MAX)?)
}

fn encode(states: &ProducerStates) -> Vec<u8> {
    let entries = states.sorted();
    let mut bytes = Vec::with_capacity(ENTRIES_AT + entries.len() * ENTRY_LEN);
    bytes.extend(VERSION.to_be_bytes());
    bytes.extend([0; 4]);
    let count = i32::try_from(entries.len()).expect("producers of one partition fit 31 bits");
    bytes.extend(count.to_be_bytes());
    for (producer_id, entry) in entries {
        let last = entry.batches.last();
        bytes.extend(producer_id.0.to_be_bytes());
        bytes.extend(entry.epoch.0.to_be_bytes());
        bytes.extend(entry.last_sequence().to_be_bytes());
        bytes.extend(last.map_or(-1, |b| b.last_offset.0).to_be_bytes());
        bytes.extend(last.map_or(0, |b| b.offset_delta).to_be_bytes());
        bytes.extend(entry.last_timestamp.to_be_bytes());
        bytes.extend(entry.coordinator_epoch.to_be_bytes());
        let txn_first_offset = entry.txn_first_offset.unwrap_or(Offset::UNKNOWN);
        bytes.extend(txn_first_offset.0.to_be_bytes());
    }
    let crc = crc_fast::crc32_iscsi(&bytes[CRC_END..]);
    bytes[2..CRC_END].copy_from_slice(&crc.to_be_bytes());
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Result<Vec<(ProducerId, ProducerEntry)>, SnapshotError> {
    let corrupt = SnapshotError::Corrupt;
    let mut header = Fields(bytes);
    let (Some(version), Some(crc)) = (header.take(), header.take()) else {
        return Err(corrupt("too short"));
    };
    if i16::from_be_bytes(version) != VERSION {
        return Err(corrupt("unknown version"));
    }
    if crc_fast::crc32_iscsi(header.0) != u32::from_be_bytes(crc) {
        return Err(corrupt("CRC doesn't match"));
    }
    let count = header.take().ok_or(corrupt("too short"))?;
    let (entries, rest) = header.0.as_chunks::<ENTRY_LEN>();
    let count = usize::try_from(i32::from_be_bytes(count)).ok();
    if count != Some(entries.len()) || !rest.is_empty() {
        return Err(corrupt("count doesn't match"));
    }
    Ok(entries.iter().map(decode_entry).collect())
}

fn decode_entry(bytes: &[u8; ENTRY_LEN]) -> (ProducerId, ProducerEntry) {
    let mut fields = Fields(bytes);
    let mut entry = || -> Option<(ProducerId, ProducerEntry)> {
        let producer_id = i64::from_be_bytes(fields.take()?);
        let epoch = i16::from_be_bytes(fields.take()?);
        let last_sequence = i32::from_be_bytes(fields.take()?);
        let last_offset = i64::from_be_bytes(fields.take()?);
        let offset_delta = i32::from_be_bytes(fields.take()?);
        let timestamp = i64::from_be_bytes(fields.take()?);
        let coordinator_epoch = i32::from_be_bytes(fields.take()?);
        let txn_first_offset = i64::from_be_bytes(fields.take()?);
        let mut batches = SmallVec::new();
        if last_offset >= 0 {
            batches.push(BatchMetadata {
                last_sequence,
                last_offset: Offset(last_offset),
                offset_delta,
                timestamp,
            });
        }
        let entry = ProducerEntry {
            epoch: ProducerEpoch(epoch),
            coordinator_epoch,
            last_timestamp: timestamp,
            txn_first_offset: (txn_first_offset >= 0).then_some(Offset(txn_first_offset)),
            batches,
        };
        Some((ProducerId(producer_id), entry))
    };
    entry().expect("an entry's fields fill its 46 bytes")
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::disk::RealDisk;
    use crate::log::testing::hex;

    fn entry(epoch: i16, last: BatchMetadata) -> ProducerEntry {
        ProducerEntry {
            epoch: ProducerEpoch(epoch),
            coordinator_epoch: -1,
            last_timestamp: last.timestamp,
            txn_first_offset: None,
            batches: SmallVec::from_slice(&[last]),
        }
    }

    #[test]
    fn snapshots_are_kafkas() {
        let empty = encode(&ProducerStates::default());
        assert_eq!(empty, hex("000148674bc700000000"));
        assert!(decode(&empty).unwrap().is_empty());

        let mut states = ProducerStates::default();
        let batch = BatchMetadata {
            last_sequence: 0,
            last_offset: Offset(32),
            offset_delta: 0,
            timestamp: 0x01a2_034a_cb26,
        };
        states.load(ProducerId(2_000), entry(1, batch));
        let bytes = encode(&states);
        let golden = hex(
            "00000000000007d0000100000000000000000000002000000000000001a2034acb26ffffffffffffffffffffffff",
        );
        assert_eq!(bytes[ENTRIES_AT..], golden);
        let decoded = decode(&bytes).unwrap();
        assert_eq!(decoded, [(ProducerId(2_000), entry(1, batch))]);
    }

    #[test]
    fn damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("00000000000000000000.snapshot");
        let mut states = ProducerStates::default();
        let batch = BatchMetadata {
            last_sequence: 4,
            last_offset: Offset(7),
            offset_delta: 3,
            timestamp: 5,
        };
        states.load(ProducerId(1), entry(0, batch));
        write(&RealDisk, &path, &states, Durability::Now).unwrap();
        let bytes = RealDisk.read(&path, LEN_MAX).unwrap();
        assert_eq!(read(&RealDisk, &path).unwrap().len(), 1);
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err());
            let mut flipped = bytes.clone();
            flipped[cut] ^= 1;
            assert!(decode(&flipped).is_err());
        }
    }
}
