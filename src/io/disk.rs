//! The seam between everything that keeps files and the machine: [`Disk`] is a file
//! system, [`File`] one open file. All calls are synchronous; the asynchronous
//! fdatasync of a running log goes through the ring with the descriptor of the file.
//!
//! Called by `log` (segments, indexes, checkpoints), `node` and `cli`; implemented here
//! by [`RealDisk`] and in `io::sim` by a disk that tears, loses and refuses.
//! A [`Disk`] belongs to one core; a [`File`] may be held by several (a segment that is
//! being sent stays open until the last holder drops it, even when it has been unlinked).
//!
//! Invariants: a write either completes whole or returns an error (then how much of it
//! landed is unknown); nothing is durable before `sync_data` and, for names, `sync_dir`.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use nix::sys::uio::pwritev;
use smallvec::SmallVec;

use super::blocked::{Operation, watched};
use super::cold;
use crate::base::Millis;

/// How a file is to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    ReadWrite,
    /// For reading and writing; created empty where there is none.
    Create,
    /// For reading and writing; created, or emptied where there is one.
    Truncate,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    pub name: String,
    pub is_dir: bool,
}

/// Bytes of the file system that holds a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub total_bytes: u64,
    /// What an ordinary user may still write.
    pub usable_bytes: u64,
}

/// An open file. Positions are absolute; there is no cursor.
pub trait File: fmt::Debug + Send + Sync {
    /// Reads up to `into.len()` bytes; 0 at the end of the file.
    fn read_at(&self, into: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes all slices, one after the other, from `position` on.
    fn write_all_at(&self, from: &[IoSlice<'_>], position: u64) -> io::Result<()>;

    fn len(&self) -> io::Result<u64>;

    /// Cuts the file, or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes the contents durable, waiting for the device: at start, roll of small files
    /// and stop only; a running core goes through its ring.
    fn sync_data(&self) -> io::Result<()>;

    /// When the contents last changed.
    fn modified_ms(&self) -> io::Result<Millis>;

    /// The descriptor for `sendfile`, splice and fsync on a ring; `None` where the file
    /// is only simulated.
    fn raw_fd(&self) -> Option<RawFd>;

    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `into`, or fails with `UnexpectedEof`.
    fn read_exact_at(&self, into: &mut [u8], position: u64) -> io::Result<()> {
        let mut filled = 0;
        while filled < into.len() {
            match self.read_at(&mut into[filled..], position + filled as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => filled += n,
            }
        }
        Ok(())
    }
}

/// A file system.
pub trait Disk: fmt::Debug {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;

    /// Replaces `to` where it exists.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with everything in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the directory and its missing parents; nothing where it exists.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Names in the directory, sorted; names that aren't UTF-8 are left out.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// The directory itself, so that [`Disk::sync_dir`] can be done on a ring: syncing
    /// this file does the same. Nothing else can be done with it.
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Makes names created, renamed and removed in the directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    fn exists(&self, path: &Path) -> io::Result<bool>;

    fn space(&self, path: &Path) -> io::Result<Space>;

    /// Takes the exclusive lock of a file (created where there is none), the same lock
    /// that Java's `FileChannel.tryLock` takes. `WouldBlock` when somebody holds it. It
    /// is held until the returned file is dropped.
    fn lock(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// The whole contents of a small file; fails with `FileTooLarge` beyond `len_max`.
    fn read(&self, path: &Path, len_max: u64) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenMode::Read)?;
        let len = file.len()?;
        if len > len_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut contents = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        file.read_exact_at(&mut contents, 0)?;
        Ok(contents)
    }
}

/// The machine's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = std::fs::OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::Create => {
                options.write(true).create(true).truncate(false);
            }
            OpenMode::Truncate => {
                options.write(true).create(true).truncate(true);
            }
        }
        let file = watched(directory(path), Operation::Open, || options.open(path))?;
        Ok(RealFile::opened(file, path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        watched(directory(to), Operation::Rename, || {
            std::fs::rename(from, to)
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        watched(directory(path), Operation::Remove, || {
            std::fs::remove_file(path)
        })
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        watched(path, Operation::Remove, || std::fs::remove_dir_all(path))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        watched(path, Operation::CreateDirectory, || {
            std::fs::create_dir_all(path)
        })
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        watched(path, Operation::ReadDirectory, || list(path))
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = watched(path, Operation::Open, || std::fs::File::open(path))?;
        Ok(Arc::new(RealFile {
            file,
            directory: path.into(),
        }))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        watched(path, Operation::Sync, || {
            std::fs::File::open(path)?.sync_all()
        })
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = nix::sys::statvfs::statvfs(path)?;
        let unit = stat.fragment_size();
        Ok(Space {
            total_bytes: stat.blocks().saturating_mul(unit),
            usable_bytes: stat.blocks_available().saturating_mul(unit),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        // A lock of the open file description conflicts with the process-wide record
        // lock that Java takes, and with our own in another part of this process.
        let whole = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        match nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_OFD_SETLK(&whole)) {
            Ok(_) => Ok(RealFile::opened(file, path)),
            Err(nix::Error::EAGAIN | nix::Error::EACCES) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Where calls on a file are counted.
fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn list(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            // Through a symbolic link, as Java's `File.isDirectory` sees it.
            let is_dir = entry.path().is_dir();
            entries.push(DirEntry { name, is_dir });
        }
    }
    entries.sort();
    Ok(entries)
}

/// A file of [`RealDisk`].
#[derive(Debug)]
struct RealFile {
    file: std::fs::File,
    directory: Box<Path>,
}

/// The kernel takes this many slices at once (`IOV_MAX`).
const SLICES_MAX: usize = 1024;

impl File for RealFile {
    fn read_at(&self, into: &mut [u8], position: u64) -> io::Result<usize> {
        if let Some(result) = cold::read_at(&self.file, into, position) {
            return result;
        }
        loop {
            match self.watched(Operation::Read, |file| file.read_at(into, position)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn write_all_at(&self, from: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        // The common case is one call that writes all; what a short write leaves is
        // tried again from a copy of the slices' heads.
        let total: usize = from.iter().map(|slice| slice.len()).sum();
        let mut written = 0;
        if from.len() <= SLICES_MAX {
            written = self.write_some_at(from, position)?;
        }
        if written == total {
            return Ok(());
        }
        let mut rest: SmallVec<[IoSlice<'_>; 16]> = SmallVec::from_slice(from);
        let mut rest = &mut rest[..];
        IoSlice::advance_slices(&mut rest, written);
        while written < total {
            let batch = &rest[..rest.len().min(SLICES_MAX)];
            match self.write_some_at(batch, position + written as u64)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => {
                    written += n;
                    IoSlice::advance_slices(&mut rest, n);
                }
            }
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self
            .watched(Operation::Length, |file| file.metadata())?
            .len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.watched(Operation::Resize, |file| file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.watched(Operation::Sync, |file| file.sync_data())
    }

    fn modified_ms(&self) -> io::Result<Millis> {
        let metadata = self.watched(Operation::Length, |file| file.metadata())?;
        let modified = metadata.modified()?;
        Ok(match modified.duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(_) => 0,
        })
    }

    fn raw_fd(&self) -> Option<RawFd> {
        Some(self.file.as_raw_fd())
    }
}

impl RealFile {
    fn opened(file: std::fs::File, path: &Path) -> Arc<dyn File> {
        let directory = directory(path).into();
        Arc::new(RealFile { file, directory })
    }

    fn watched<T>(&self, operation: Operation, call: impl FnOnce(&std::fs::File) -> T) -> T {
        watched(&self.directory, operation, || call(&self.file))
    }

    fn write_some_at(&self, from: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let position = i64::try_from(position).map_err(io::Error::other)?;
        loop {
            match self.watched(Operation::Write, |file| pwritev(file, from, position)) {
                Err(nix::Error::EINTR) => {}
                result => return Ok(result?),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_many_slices_and_reads_them_back() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk;
        let path = dir.path().join("f");
        let file = disk.open(&path, OpenMode::Create).unwrap();
        let pieces: Vec<Vec<u8>> = (0..3_000u32)
            .map(|i| vec![i as u8; i as usize % 7])
            .collect();
        let slices: Vec<IoSlice<'_>> = pieces.iter().map(|p| IoSlice::new(p)).collect();
        file.write_all_at(&slices, 5).unwrap();
        let all = pieces.concat();
        let mut back = vec![0; all.len()];
        file.read_exact_at(&mut back, 5).unwrap();
        assert_eq!(back, all);
        assert_eq!(file.len().unwrap(), all.len() as u64 + 5);
        assert!(file.read_exact_at(&mut back, 6).is_err());
        file.write_all_at(&[], 0).unwrap();
        file.set_len(3).unwrap();
        assert_eq!(disk.read(&path, 10).unwrap(), [0; 3]);
        assert!(disk.read(&path, 2).is_err());
    }

    #[test]
    fn a_lock_is_exclusive_until_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        let held = RealDisk.lock(&path).unwrap();
        let refused = RealDisk.lock(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(held);
        RealDisk.lock(&path).unwrap();
    }

    #[test]
    fn directories_list_sorted() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk;
        disk.create_dir_all(&dir.path().join("b/c")).unwrap();
        disk.open(&dir.path().join("a"), OpenMode::Truncate)
            .unwrap();
        let names: Vec<(String, bool)> = disk
            .read_dir(dir.path())
            .unwrap()
            .into_iter()
            .map(|entry| (entry.name, entry.is_dir))
            .collect();
        assert_eq!(names, [("a".into(), false), ("b".into(), true)]);
        disk.sync_dir(dir.path()).unwrap();
        disk.open_dir(dir.path()).unwrap().sync_data().unwrap();
        disk.rename(&dir.path().join("a"), &dir.path().join("z"))
            .unwrap();
        assert!(!disk.exists(&dir.path().join("a")).unwrap());
        disk.remove_file(&dir.path().join("z")).unwrap();
        disk.remove_dir_all(&dir.path().join("b")).unwrap();
        assert!(disk.read_dir(dir.path()).unwrap().is_empty());
        assert!(disk.space(dir.path()).unwrap().total_bytes > 0);
    }
}
