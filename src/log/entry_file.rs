//! A file of fixed-size entries that only grows at its end: the base of the offset, time
//! and transaction indexes.
//!
//! The newest entries of an active segment's index wait in memory and are written in
//! blocks: an index is worth nothing after an unclean stop (recovery rebuilds it from
//! the log), so there is nothing to gain from a write per entry. A sealed index keeps no
//! descriptor; a lookup opens the file for its own length.
//!
//! Invariant: entry `i` is in the file at `i * N` for `i < written`, and at
//! `tail[i - written]` after that; the file is `written * N` bytes long.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use super::error::is_out_of_space;
use crate::io::disk::{Disk, File, OpenMode};

/// Bytes of entries kept before a block is written.
const TAIL_BYTES_MAX: usize = 8 * 1024;
/// A binary search reads the rest at once when it has come down to so many entries.
const BLOCK_ENTRIES: usize = 256;

#[derive(Debug)]
pub struct EntryFile<const N: usize> {
    path: PathBuf,
    /// Open while entries are being appended.
    file: Option<Arc<dyn File>>,
    written: u32,
    tail: Vec<[u8; N]>,
    /// Written to since it was last handed out to be synced.
    unsynced: bool,
}

impl<const N: usize> EntryFile<N> {
    /// An empty file in place of whatever is there.
    pub fn create(disk: &dyn Disk, path: PathBuf) -> io::Result<Self> {
        let file = disk.open(&path, OpenMode::Truncate)?;
        Ok(EntryFile {
            path,
            file: Some(file),
            written: 0,
            tail: Vec::new(),
            unsynced: true,
        })
    }

    /// A file that exists, or not yet: then it is made with the first entry. Bytes after
    /// the last whole entry are not counted; [`Self::length_is_whole`] tells of them.
    pub fn open(disk: &dyn Disk, path: PathBuf) -> io::Result<Self> {
        let len = match disk.open(&path, OpenMode::Read) {
            Ok(file) => file.len()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let written = u32::try_from(len / N as u64).map_err(io::Error::other)?;
        Ok(EntryFile {
            path,
            file: None,
            written,
            tail: Vec::new(),
            unsynced: false,
        })
    }

    /// Empties the file, making it where there is none.
    pub fn reset(&mut self, disk: &dyn Disk) -> io::Result<()> {
        self.tail.clear();
        self.written = 0;
        self.writable(disk)?.set_len(0)
    }

    /// Entries in file and memory.
    pub fn count(&self) -> u32 {
        self.written + self.tail.len() as u32
    }

    pub fn exists(&self, disk: &dyn Disk) -> io::Result<bool> {
        disk.exists(&self.path)
    }

    /// Whether the file is a whole number of entries.
    pub fn length_is_whole(&self, disk: &dyn Disk) -> io::Result<bool> {
        match disk.open(&self.path, OpenMode::Read) {
            Ok(file) => Ok(file.len()? % N as u64 == 0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Entries for which there is no space stay in memory and are tried again: the batch
    /// that they tell of is in the log already. A segment has so many that they are bounded.
    pub fn push(&mut self, disk: &dyn Disk, entry: [u8; N]) -> io::Result<()> {
        self.tail.push(entry);
        if self.tail.len() * N >= TAIL_BYTES_MAX {
            match self.write_out(disk) {
                Err(error) if is_out_of_space(&error) => {}
                result => return result,
            }
        }
        Ok(())
    }

    /// Writes what waits in memory.
    pub fn write_out(&mut self, disk: &dyn Disk) -> io::Result<()> {
        if self.tail.is_empty() {
            return Ok(());
        }
        let file = self.writable(disk)?;
        let position = u64::from(self.written) * N as u64;
        file.write_all_at(&[IoSlice::new(self.tail.as_flattened())], position)?;
        self.written += self.tail.len() as u32;
        self.tail.clear();
        Ok(())
    }

    /// Writes what waits in memory, and returns the file if it is to be synced.
    pub fn write_out_unsynced(&mut self, disk: &dyn Disk) -> io::Result<Option<Arc<dyn File>>> {
        self.write_out(disk)?;
        Ok(match std::mem::take(&mut self.unsynced) {
            true => self.file.clone(),
            false => None,
        })
    }

    /// Keeps the first `count` entries.
    pub fn truncate(&mut self, disk: &dyn Disk, count: u32) -> io::Result<()> {
        if count >= self.written {
            self.tail.truncate((count - self.written) as usize);
            return Ok(());
        }
        self.tail.clear();
        let file = self.writable(disk)?;
        file.set_len(u64::from(count) * N as u64)?;
        self.written = count;
        Ok(())
    }

    /// Writes out and lets go of the descriptor, which is returned if there was one (to
    /// be synced).
    pub fn seal(&mut self, disk: &dyn Disk) -> io::Result<Option<Arc<dyn File>>> {
        self.write_out(disk)?;
        self.tail.shrink_to_fit();
        Ok(self.file.take())
    }

    pub fn entry(&self, disk: &dyn Disk, index: u32) -> io::Result<[u8; N]> {
        assert!(index < self.count(), "index entry out of range");
        match self.in_memory(index) {
            Some(entry) => Ok(*entry),
            None => read_entry(&*self.readable(disk)?, index),
        }
    }

    /// All entries from `from` on, in order.
    pub fn entries_from(&self, disk: &dyn Disk, from: u32) -> io::Result<Vec<[u8; N]>> {
        let mut entries = Vec::new();
        if from < self.written {
            entries.resize((self.written - from) as usize, [0; N]);
            let position = u64::from(from) * N as u64;
            self.readable(disk)?
                .read_exact_at(entries.as_flattened_mut(), position)?;
        }
        let skip = from.saturating_sub(self.written) as usize;
        entries.extend(self.tail.iter().skip(skip));
        Ok(entries)
    }

    /// Number of entries at the start for which `is_before` holds; it must hold for a
    /// prefix and for nothing after it.
    pub fn partition_point(
        &self,
        disk: &dyn Disk,
        is_before: impl Fn(&[u8; N]) -> bool,
    ) -> io::Result<u32> {
        if self.written == 0 || self.tail.first().is_some_and(&is_before) {
            let in_tail = self.tail.partition_point(is_before) as u32;
            return Ok(self.written + in_tail);
        }
        let file = self.readable(disk)?;
        let (mut low, mut high) = (0, self.written);
        while (high - low) as usize > BLOCK_ENTRIES {
            let middle = low + (high - low) / 2;
            if is_before(&read_entry(&*file, middle)?) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let mut block = [[0; N]; BLOCK_ENTRIES];
        let block = &mut block[..(high - low) as usize];
        file.read_exact_at(block.as_flattened_mut(), u64::from(low) * N as u64)?;
        Ok(low + block.partition_point(is_before) as u32)
    }

    fn in_memory(&self, index: u32) -> Option<&[u8; N]> {
        self.tail.get(index.checked_sub(self.written)? as usize)
    }

    fn writable(&mut self, disk: &dyn Disk) -> io::Result<Arc<dyn File>> {
        self.unsynced = true;
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let file = disk.open(&self.path, OpenMode::Create)?;
        self.file = Some(file.clone());
        Ok(file)
    }

    fn readable(&self, disk: &dyn Disk) -> io::Result<Arc<dyn File>> {
        match &self.file {
            Some(file) => Ok(file.clone()),
            None => disk.open(&self.path, OpenMode::Read),
        }
    }
}

fn read_entry<const N: usize>(file: &dyn File, index: u32) -> io::Result<[u8; N]> {
    let mut entry = [0; N];
    file.read_exact_at(&mut entry, u64::from(index) * N as u64)?;
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::disk::RealDisk;

    fn value(entry: &[u8; 8]) -> u64 {
        u64::from_be_bytes(*entry)
    }

    #[test]
    fn entries_are_found_wherever_they_lie() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk;
        let path = dir.path().join("e");
        let mut file: EntryFile<8> = EntryFile::create(&disk, path.clone()).unwrap();
        for i in 0..5_000u64 {
            file.push(&disk, (i * 2).to_be_bytes()).unwrap();
            if i % 977 == 0 {
                check(&file, i + 1);
            }
        }
        file.seal(&disk).unwrap();
        check(&file, 5_000);
        let reopened: EntryFile<8> = EntryFile::open(&disk, path).unwrap();
        check(&reopened, 5_000);
        for count in [4_999, 4_096, 4_000, 1, 0] {
            file.truncate(&disk, count).unwrap();
            check(&file, u64::from(count));
            assert!(file.length_is_whole(&disk).unwrap());
        }
        file.push(&disk, 0u64.to_be_bytes()).unwrap();
        check(&file, 1);
    }

    fn check(file: &EntryFile<8>, count: u64) {
        let disk = RealDisk;
        assert_eq!(u64::from(file.count()), count);
        for target in [0, 1, 2, 1_023, 4_000, count, count * 2, count * 2 + 1] {
            let found = file.partition_point(&disk, |e| value(e) < target).unwrap();
            assert_eq!(u64::from(found), target.div_ceil(2).min(count));
        }
        for i in [0, count / 2, count.saturating_sub(1)] {
            if i < count {
                assert_eq!(value(&file.entry(&disk, i as u32).unwrap()), i * 2);
            }
        }
        for from in [0, count / 2, count] {
            let rest = file.entries_from(&disk, from as u32).unwrap();
            assert_eq!(rest.len() as u64, count - from);
            assert!((from..).zip(&rest).all(|(i, e)| value(e) == i * 2));
        }
    }

    #[test]
    fn a_missing_file_is_made_with_the_first_entry() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk;
        let path = dir.path().join("e");
        let mut file: EntryFile<8> = EntryFile::open(&disk, path.clone()).unwrap();
        assert_eq!(file.count(), 0);
        assert!(file.seal(&disk).unwrap().is_none());
        assert!(!disk.exists(&path).unwrap());
        file.push(&disk, [1; 8]).unwrap();
        assert!(file.seal(&disk).unwrap().is_some());
        assert_eq!(disk.read(&path, 100).unwrap(), [1; 8]);
    }
}
