//! A log directory (one of `log.dirs`): its lock, identity, clean shutdown marker,
//! checkpoints, and the directories of partitions in it.
//!
//! The node opens it at start and hands the partitions out to the cores, each of which
//! opens its [`super::Log`]s itself. Checkpoints are one file per directory: the shards'
//! offsets are gathered and written in one place.
//!
//! At a clean stop, in this order: all logs closed and synced, checkpoints written,
//! [`LogDir::mark_clean`], the lock dropped.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checkpoint::{self, CheckpointError, Durability, Offsets};
use super::clean_shutdown::{self, CleanShutdown};
use super::error::is_out_of_space;
use super::meta_properties::{MetaProperties, MetaPropertiesError};
use super::names::{self, DirKind, DirName};
use super::partition_metadata;
use crate::base::{PartitionIndex, Rng, Uuid};
use crate::io::disk::{Disk, File};

const LOCK: &str = ".lock";
/// In a partition's directory that has just replaced the one in another log directory: should
/// both be there after a crash, this one is newer. Kafka ignores the file.
pub const MOVED_HERE: &str = "ottla-moved-here";
/// Written to find out whether the directory can be.
const WRITE_CHECK: &str = ".ottla-write-check";
/// The one directory that may stand among the partitions' (tiered storage's).
const REMOTE_INDEX_CACHE: &str = "remote-log-index-cache";

/// A log directory that this process holds the lock of.
#[derive(Clone, Debug)]
pub struct LogDir {
    path: PathBuf,
    _lock: Arc<dyn File>,
}

#[derive(Debug, thiserror::Error)]
pub enum LogDirError {
    #[error("log directory {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("log directory {path} is locked by another process")]
    Locked { path: PathBuf },
    #[error("{path} is not the directory of a partition, and nothing else may be here")]
    Foreign { path: PathBuf },
    #[error("log directory {path}: {source}")]
    Meta {
        path: PathBuf,
        source: MetaPropertiesError,
    },
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl LogDirError {
    /// Whether the disk has failed: not for want of space, and not by what is on it.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Io { source, .. } | Self::Checkpoint(CheckpointError::Io { source, .. }) => {
                !is_out_of_space(source)
            }
            _ => false,
        }
    }
}

/// A partition's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionDir {
    pub path: PathBuf,
    pub name: DirName,
    /// From `partition.metadata`; `None` where that is missing or can't be read.
    pub topic_id: Option<Uuid>,
}

/// The offset checkpoints of a log directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    RecoveryPoint,
    LogStartOffset,
    HighWatermark,
    CleanerOffset,
}

impl Checkpoint {
    fn file_name(self) -> &'static str {
        match self {
            Checkpoint::RecoveryPoint => checkpoint::RECOVERY_POINT,
            Checkpoint::LogStartOffset => checkpoint::LOG_START_OFFSET,
            Checkpoint::HighWatermark => checkpoint::HIGH_WATERMARK,
            Checkpoint::CleanerOffset => checkpoint::CLEANER_OFFSET,
        }
    }
}

impl LogDir {
    /// Makes the directory if it isn't there, and takes its lock.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<LogDir, LogDirError> {
        let io_error = |source| LogDirError::Io {
            path: path.to_owned(),
            source,
        };
        disk.create_dir_all(path).map_err(io_error)?;
        match disk.lock(&path.join(LOCK)) {
            Ok(lock) => Ok(LogDir {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(LogDirError::Locked {
                path: path.to_owned(),
            }),
            Err(error) => Err(io_error(error)),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `None` where the directory hasn't been formatted.
    pub fn meta(&self, disk: &dyn Disk) -> Result<Option<MetaProperties>, LogDirError> {
        MetaProperties::read(disk, &self.path).map_err(|source| LogDirError::Meta {
            path: self.path.clone(),
            source,
        })
    }

    /// Reads and removes the clean shutdown marker: from here on a stop is unclean until
    /// [`LogDir::mark_clean`].
    pub fn take_clean_shutdown(
        &self,
        disk: &dyn Disk,
    ) -> Result<Option<CleanShutdown>, LogDirError> {
        clean_shutdown::take(disk, &self.path).map_err(|error| self.io_error(error))
    }

    /// Everything in the directory has been closed and synced.
    pub fn mark_clean(&self, disk: &dyn Disk, broker_epoch: i64) -> Result<(), LogDirError> {
        clean_shutdown::write(disk, &self.path, broker_epoch).map_err(|error| self.io_error(error))
    }

    pub fn read_checkpoint(
        &self,
        disk: &dyn Disk,
        which: Checkpoint,
    ) -> Result<Offsets, LogDirError> {
        let path = self.path.join(which.file_name());
        match checkpoint::read_offsets(disk, &path) {
            // As Kafka: without it recovery begins at 0, and logs at their first segment.
            Err(error @ CheckpointError::Malformed { .. }) => {
                tracing::error!(%error, "damaged checkpoint: not used");
                Ok(Offsets::new())
            }
            read => Ok(read?),
        }
    }

    pub fn write_checkpoint(
        &self,
        disk: &dyn Disk,
        which: Checkpoint,
        offsets: &Offsets,
    ) -> Result<(), LogDirError> {
        let path = self.path.join(which.file_name());
        Ok(checkpoint::write_offsets(disk, &path, offsets)?)
    }

    /// The directories of partitions, of all kinds, in order of name. Any other directory
    /// is an error, as in Kafka: it may be a topic's whose name was damaged.
    pub fn partition_dirs(&self, disk: &dyn Disk) -> Result<Vec<PartitionDir>, LogDirError> {
        let entries = disk.read_dir(&self.path);
        let mut dirs = Vec::new();
        for entry in entries.map_err(|error| self.io_error(error))? {
            if !entry.is_dir || entry.name == REMOTE_INDEX_CACHE {
                continue;
            }
            let path = self.path.join(&entry.name);
            let Some(name) = names::parse_dir_name(&entry.name) else {
                return Err(LogDirError::Foreign { path });
            };
            let topic_id = match partition_metadata::read(disk, &path) {
                Ok(topic_id) => topic_id,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::warn!(dir = %path.display(), %error, "unreadable partition metadata");
                    None
                }
                Err(error) => return Err(self.io_error(error)),
            };
            dirs.push(PartitionDir {
                path,
                name,
                topic_id,
            });
        }
        Ok(dirs)
    }

    /// Where a partition's log is, or is to be.
    pub fn partition_path(&self, topic: &str, partition: PartitionIndex) -> PathBuf {
        self.path.join(names::live_dir_name(topic, partition))
    }

    /// Whether a file can be written and synced here; a lack of space is not told.
    pub fn check_writable(&self, disk: &dyn Disk) -> Result<(), LogDirError> {
        let path = self.path.join(WRITE_CHECK);
        let written = checkpoint::replace_file(disk, &path, b"ok", Durability::Now);
        match written.and_then(|_| disk.remove_file(&path)) {
            Err(error) if !is_out_of_space(&error) => Err(self.io_error(error)),
            _ => Ok(()),
        }
    }

    /// Renames a partition's directory to a `-delete` or `-stray` one, which nobody takes
    /// for the partition any more; returns the new path. The log in it has been dropped,
    /// or won't be written to again. Durable when the caller has synced this directory.
    pub fn retire(
        &self,
        disk: &dyn Disk,
        topic: &str,
        partition: PartitionIndex,
        kind: DirKind,
        rng: &mut Rng,
    ) -> Result<PathBuf, LogDirError> {
        assert!(
            matches!(kind, DirKind::Delete | DirKind::Stray),
            "a directory retires as deleted or stray"
        );
        let from = self.partition_path(topic, partition);
        let to = self
            .path
            .join(names::renamed_dir_name(topic, partition, kind, rng));
        disk.rename(&from, &to)
            .map_err(|error| self.io_error(error))?;
        Ok(to)
    }

    /// Makes names durable, waiting for the device: at the start.
    pub fn sync(&self, disk: &dyn Disk) -> Result<(), LogDirError> {
        disk.sync_dir(&self.path)
            .map_err(|error| self.io_error(error))
    }

    fn io_error(&self, source: io::Error) -> LogDirError {
        LogDirError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

/// Removes files and directories whose delay is over; what has gone meanwhile is no
/// error.
pub fn unlink(disk: &dyn Disk, paths: &[PathBuf]) -> io::Result<()> {
    for path in paths {
        let is_dir = path
            .extension()
            .is_none_or(|extension| extension != "deleted");
        let removed = match is_dir {
            true => disk.remove_dir_all(path),
            false => disk.remove_file(path),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BrokerId, Offset};
    use crate::io::disk::RealDisk;

    #[test]
    fn a_directory_has_one_owner_and_an_identity() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let log_dir = LogDir::open(&RealDisk, &path).unwrap();
        let second = LogDir::open(&RealDisk, &path).unwrap_err();
        assert!(matches!(second, LogDirError::Locked { .. }));
        assert!(log_dir.meta(&RealDisk).unwrap().is_none());
        let meta = MetaProperties {
            cluster_id: "c".into(),
            node_id: BrokerId(1),
            directory_id: None,
            others: Default::default(),
        };
        meta.write(&RealDisk, &path).unwrap();
        assert_eq!(log_dir.meta(&RealDisk).unwrap(), Some(meta));
        assert_eq!(log_dir.take_clean_shutdown(&RealDisk).unwrap(), None);
        log_dir.mark_clean(&RealDisk, 5).unwrap();
        let clean = log_dir.take_clean_shutdown(&RealDisk).unwrap();
        assert_eq!(clean, Some(CleanShutdown { broker_epoch: 5 }));
        let offsets = Offsets::from([(("t".into(), PartitionIndex(0)), Offset(9))]);
        for which in [
            Checkpoint::RecoveryPoint,
            Checkpoint::LogStartOffset,
            Checkpoint::HighWatermark,
            Checkpoint::CleanerOffset,
        ] {
            log_dir
                .write_checkpoint(&RealDisk, which, &offsets)
                .unwrap();
            let read = log_dir.read_checkpoint(&RealDisk, which).unwrap();
            assert_eq!(read, offsets);
        }
        drop(log_dir);
        LogDir::open(&RealDisk, &path).unwrap();
    }

    #[test]
    fn partitions_are_listed_and_retired() {
        let dir = tempfile::tempdir().unwrap();
        let log_dir = LogDir::open(&RealDisk, dir.path()).unwrap();
        let id = Uuid([7; 16]);
        for name in ["t-0", "t-1", "remote-log-index-cache"] {
            RealDisk.create_dir_all(&dir.path().join(name)).unwrap();
        }
        let t0 = log_dir.partition_path("t", PartitionIndex(0));
        partition_metadata::write(&RealDisk, &t0, id, Durability::Now).unwrap();
        let t1 = log_dir.partition_path("t", PartitionIndex(1));
        std::fs::write(t1.join(partition_metadata::FILE_NAME), "?").unwrap();
        let mut rng = Rng::new(1);
        let dirs = log_dir.partition_dirs(&RealDisk).unwrap();
        let found: Vec<_> = dirs.iter().map(|d| (d.name.kind, d.topic_id)).collect();
        assert_eq!(found, [(DirKind::Live, Some(id)), (DirKind::Live, None)]);

        let retired = log_dir
            .retire(&RealDisk, "t", PartitionIndex(1), DirKind::Delete, &mut rng)
            .unwrap();
        let dirs = log_dir.partition_dirs(&RealDisk).unwrap();
        assert_eq!(dirs[1].name.kind, DirKind::Delete);
        assert_eq!(dirs[1].path, retired);
        unlink(&RealDisk, &[retired.clone(), retired]).unwrap();
        assert_eq!(log_dir.partition_dirs(&RealDisk).unwrap().len(), 1);

        RealDisk
            .create_dir_all(&dir.path().join("lost+found"))
            .unwrap();
        let foreign = log_dir.partition_dirs(&RealDisk).unwrap_err();
        assert!(matches!(foreign, LogDirError::Foreign { .. }));
    }
}
