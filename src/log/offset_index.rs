//! `.index`: from offset to file position, one entry for every `index.interval.bytes`.
//!
//! ```text
//! i32 last offset of a batch - base offset | i32 position where that batch starts
//! ```
//! Invariant: offsets grow strictly; positions grow with them.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::entry_file::EntryFile;
use crate::base::Offset;
use crate::io::disk::{Disk, File};

pub const ENTRY_LEN: usize = 8;

/// One entry, with the offset made absolute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetPosition {
    pub offset: Offset,
    pub position: u32,
}

#[derive(Debug)]
pub struct OffsetIndex {
    base_offset: Offset,
    entries: EntryFile<ENTRY_LEN>,
    last_offset: Offset,
}

impl OffsetIndex {
    pub fn create(disk: &dyn Disk, path: PathBuf, base_offset: Offset) -> io::Result<Self> {
        Ok(OffsetIndex {
            base_offset,
            entries: EntryFile::create(disk, path)?,
            last_offset: base_offset,
        })
    }

    pub fn open(disk: &dyn Disk, path: PathBuf, base_offset: Offset) -> io::Result<Self> {
        let entries = EntryFile::open(disk, path)?;
        let mut index = OffsetIndex {
            base_offset,
            entries,
            last_offset: base_offset,
        };
        index.last_offset = index.last_entry(disk)?.offset;
        Ok(index)
    }

    /// Whether the file can be what we or Kafka left behind for a log of this size. An
    /// index that Kafka had preallocated when it was killed can't: it ends in zeros.
    pub fn is_sane(&self, disk: &dyn Disk, log_size: u32) -> io::Result<bool> {
        if !self.entries.length_is_whole(disk)? {
            return Ok(false);
        }
        if self.entries.count() == 0 {
            return Ok(true);
        }
        let last = self.last_entry(disk)?;
        let padded = last.offset == self.base_offset && last.position == 0;
        Ok(!padded && last.offset >= self.base_offset && last.position < log_size)
    }

    pub fn exists(&self, disk: &dyn Disk) -> io::Result<bool> {
        self.entries.exists(disk)
    }

    pub fn count(&self) -> u32 {
        self.entries.count()
    }

    /// Offset of the last entry, or the base offset.
    pub fn last_offset(&self) -> Offset {
        self.last_offset
    }

    /// The largest entry at or below `offset`; the start of the segment where there is
    /// none.
    pub fn lookup(&self, disk: &dyn Disk, offset: Offset) -> io::Result<OffsetPosition> {
        let after = self
            .entries
            .partition_point(disk, |entry| self.parse(entry).offset <= offset)?;
        self.before(disk, after)
    }

    /// The first entry whose position is at or beyond `position`.
    pub fn lookup_position(
        &self,
        disk: &dyn Disk,
        position: u64,
    ) -> io::Result<Option<OffsetPosition>> {
        let at = self.entries.partition_point(disk, |entry| {
            u64::from(self.parse(entry).position) < position
        })?;
        if at == self.entries.count() {
            return Ok(None);
        }
        Ok(Some(self.parse(&self.entries.entry(disk, at)?)))
    }

    /// `offset` must be within 2^31 of the base offset and beyond the last entry.
    pub fn append(&mut self, disk: &dyn Disk, offset: Offset, position: u32) -> io::Result<()> {
        let relative = relative_offset(offset, self.base_offset).expect("offset fits the segment");
        assert!(
            self.entries.count() == 0 || offset > self.last_offset,
            "index offsets grow"
        );
        let mut entry = [0; ENTRY_LEN];
        entry[..4].copy_from_slice(&relative.to_be_bytes());
        entry[4..].copy_from_slice(&position.to_be_bytes());
        self.entries.push(disk, entry)?;
        self.last_offset = offset;
        Ok(())
    }

    /// Drops entries at or beyond `offset`.
    pub fn truncate_to(&mut self, disk: &dyn Disk, offset: Offset) -> io::Result<()> {
        let keep = self
            .entries
            .partition_point(disk, |entry| self.parse(entry).offset < offset)?;
        self.entries.truncate(disk, keep)?;
        self.last_offset = self.last_entry(disk)?.offset;
        Ok(())
    }

    /// Empties the file, making it where there is none.
    pub fn reset(&mut self, disk: &dyn Disk) -> io::Result<()> {
        self.entries.reset(disk)?;
        self.last_offset = self.base_offset;
        Ok(())
    }

    pub fn write_out(&mut self, disk: &dyn Disk) -> io::Result<()> {
        self.entries.write_out(disk)
    }

    /// Writes what waits in memory, and returns the file if it is to be synced.
    pub fn write_out_unsynced(&mut self, disk: &dyn Disk) -> io::Result<Option<Arc<dyn File>>> {
        self.entries.write_out_unsynced(disk)
    }

    /// Keeps the entries at the start that are below `offset` and in order, each at a position
    /// within the log. True when those were all that are below.
    pub fn keep_sound_below(
        &mut self,
        disk: &dyn Disk,
        offset: Offset,
        log_size: u32,
    ) -> io::Result<bool> {
        let mut last = OffsetPosition {
            offset: Offset(self.base_offset.0 - 1),
            position: 0,
        };
        let mut keep = 0;
        let mut is_sound = true;
        for bytes in self.entries.entries_from(disk, 0)? {
            let entry = self.parse(&bytes);
            if entry.offset >= offset {
                break;
            }
            is_sound = last.offset < entry.offset
                && last.position < entry.position
                && entry.position < log_size;
            if !is_sound {
                break;
            }
            keep += 1;
            last = entry;
        }
        self.entries.truncate(disk, keep)?;
        self.last_offset = self.last_entry(disk)?.offset;
        Ok(is_sound)
    }

    pub fn seal(&mut self, disk: &dyn Disk) -> io::Result<Option<Arc<dyn File>>> {
        self.entries.seal(disk)
    }

    /// The last entry; the start of the segment where there is none.
    pub fn last_entry(&self, disk: &dyn Disk) -> io::Result<OffsetPosition> {
        self.before(disk, self.entries.count())
    }

    fn before(&self, disk: &dyn Disk, index: u32) -> io::Result<OffsetPosition> {
        match index.checked_sub(1) {
            None => Ok(OffsetPosition {
                offset: self.base_offset,
                position: 0,
            }),
            Some(index) => Ok(self.parse(&self.entries.entry(disk, index)?)),
        }
    }

    fn parse(&self, entry: &[u8; ENTRY_LEN]) -> OffsetPosition {
        parse_entry(entry, self.base_offset)
    }
}

/// Reads an entry; the offset saturates rather than wraps for a corrupt one.
pub fn parse_entry(entry: &[u8; ENTRY_LEN], base_offset: Offset) -> OffsetPosition {
    let (relative, position) = entry.split_at(4);
    let relative = i32::from_be_bytes(relative.try_into().expect("4 of 8 bytes"));
    let position = u32::from_be_bytes(position.try_into().expect("4 of 8 bytes"));
    OffsetPosition {
        offset: Offset(base_offset.0.saturating_add(i64::from(relative))),
        position,
    }
}

/// `offset - base_offset` if an index entry can hold it.
pub fn relative_offset(offset: Offset, base_offset: Offset) -> Option<i32> {
    let relative = offset.0.checked_sub(base_offset.0)?;
    i32::try_from(relative).ok().filter(|r| *r >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::disk::RealDisk;
    use crate::log::testing::hex;

    #[test]
    fn entries_are_kafkas() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk;
        let path = dir.path().join("00000000000000000068.index");
        let mut index = OffsetIndex::create(&disk, path.clone(), Offset(68)).unwrap();
        index.append(&disk, Offset(73), 90_094).unwrap();
        index.append(&disk, Offset(76), 180_188).unwrap();
        index.seal(&disk).unwrap();
        assert_eq!(
            disk.read(&path, 100).unwrap(),
            hex("0000000500015fee000000080002bfdc")
        );

        let mut index = OffsetIndex::open(&disk, path.clone(), Offset(68)).unwrap();
        assert_eq!(index.last_offset(), Offset(76));
        let at = |offset| index.lookup(&disk, Offset(offset)).unwrap().position;
        assert_eq!([at(68), at(72), at(73), at(75)], [0, 0, 90_094, 90_094]);
        assert_eq!([at(76), at(10_000)], [180_188, 180_188]);
        let beyond = |p| index.lookup_position(&disk, p).unwrap().map(|e| e.offset.0);
        assert_eq!([beyond(0), beyond(90_095)], [Some(73), Some(76)]);
        assert_eq!(beyond(180_189), None);
        assert!(index.is_sane(&disk, 180_189).unwrap());
        assert!(!index.is_sane(&disk, 180_188).unwrap());

        index.truncate_to(&disk, Offset(76)).unwrap();
        assert_eq!((index.count(), index.last_offset()), (1, Offset(73)));
        index.truncate_to(&disk, Offset(70)).unwrap();
        assert_eq!((index.count(), index.last_offset()), (0, Offset(68)));
    }

    #[test]
    fn a_preallocated_index_is_not_sane() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk;
        let path = dir.path().join("i");
        let mut index = OffsetIndex::create(&disk, path.clone(), Offset(0)).unwrap();
        index.append(&disk, Offset(5), 10).unwrap();
        index.seal(&disk).unwrap();
        let file = disk
            .open(&path, crate::io::disk::OpenMode::ReadWrite)
            .unwrap();
        file.set_len(800).unwrap();
        let padded = OffsetIndex::open(&disk, path.clone(), Offset(0)).unwrap();
        assert!(!padded.is_sane(&disk, 100).unwrap());
        file.set_len(9).unwrap();
        let torn = OffsetIndex::open(&disk, path, Offset(0)).unwrap();
        assert!(!torn.is_sane(&disk, 100).unwrap());
    }

    #[test]
    fn only_31_bits_fit() {
        let base = Offset(10);
        assert_eq!(relative_offset(Offset(10), base), Some(0));
        assert_eq!(relative_offset(Offset(9), base), None);
        let last = Offset(10 + i64::from(i32::MAX));
        assert_eq!(relative_offset(last, base), Some(i32::MAX));
        assert_eq!(relative_offset(last + 1, base), None);
    }
}
