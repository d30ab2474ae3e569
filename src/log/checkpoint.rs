//! The text checkpoints of a log directory, and the atomic replacement of small files
//! that everything else here that keeps state in a file uses.
//!
//! ```text
//! 0                        version
//! 2                        number of entries
//! topic-a 0 1234           topic, partition, offset
//! topic-b 3 99
//! ```
//! Called by the shard's background work (every minute, every five seconds for high
//! watermarks) and at start and stop. An empty file has no entries, as in Kafka.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::{Offset, PartitionIndex};
use crate::io::disk::{Disk, File, OpenMode};

/// Everything below has been synced; where recovery begins after an unclean stop.
pub const RECOVERY_POINT: &str = "recovery-point-offset-checkpoint";
/// Log start offsets beyond the first segment's base offset.
pub const LOG_START_OFFSET: &str = "log-start-offset-checkpoint";
/// High watermarks.
pub const HIGH_WATERMARK: &str = "replication-offset-checkpoint";
/// First offsets that compaction hasn't seen.
pub const CLEANER_OFFSET: &str = "cleaner-offset-checkpoint";

/// A checkpoint file may not be larger: about two million partitions.
const LEN_MAX: u64 = 128 << 20;
const VERSION: &str = "0";

/// Offsets by topic and partition.
pub type Offsets = BTreeMap<(String, PartitionIndex), Offset>;

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("checkpoint {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("checkpoint {path}: malformed line {line:?}")]
    Malformed { path: PathBuf, line: String },
}

/// When a replaced file has to survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before the call returns: start and stop.
    Now,
    /// With the next flush of the log that it belongs to: the caller syncs the returned
    /// file and the directory then. A kill of the process loses nothing in either case.
    WithNextFlush,
}

/// Replaces `path` by a file with these contents: written beside it, then renamed.
pub fn replace_file(
    disk: &dyn Disk,
    path: &Path,
    contents: &[u8],
    durability: Durability,
) -> io::Result<Arc<dyn File>> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = PathBuf::from(beside);
    let file = disk.open(&beside, OpenMode::Truncate)?;
    if let Err(error) = file.write_all_at(&[IoSlice::new(contents)], 0) {
        // Half of it takes space that others miss; the next attempt begins anew.
        let _ = disk.remove_file(&beside);
        return Err(error);
    }
    if durability == Durability::Now {
        file.sync_data()?;
    }
    disk.rename(&beside, path)?;
    if durability == Durability::Now {
        disk.sync_dir(path.parent().unwrap_or(Path::new(".")))?;
    }
    Ok(file)
}

/// The offsets in a checkpoint file; none where there is no file.
pub fn read_offsets(disk: &dyn Disk, path: &Path) -> Result<Offsets, CheckpointError> {
    read_entries(disk, path, |line| {
        let mut words = line.split_whitespace();
        let (topic, partition, offset) = (words.next()?, words.next()?, words.next()?);
        if words.next().is_some() {
            return None;
        }
        let key = (topic.to_owned(), PartitionIndex(partition.parse().ok()?));
        Some((key, Offset(offset.parse().ok()?)))
    })
    .map(|entries| entries.into_iter().collect())
}

pub fn write_offsets(
    disk: &dyn Disk,
    path: &Path,
    offsets: &Offsets,
) -> Result<(), CheckpointError> {
    let mut text = header(offsets.len());
    for ((topic, partition), offset) in offsets {
        writeln!(text, "{topic} {partition} {offset}").expect("a String takes all");
    }
    replace_file(disk, path, text.as_bytes(), Durability::Now).map_err(|source| {
        CheckpointError::Io {
            path: path.to_owned(),
            source,
        }
    })?;
    Ok(())
}

/// The first two lines of a checkpoint with so many entries.
pub(super) fn header(count: usize) -> String {
    format!("{VERSION}\n{count}\n")
}

/// Reads a checkpoint of lines that `parse` understands.
pub(super) fn read_entries<T>(
    disk: &dyn Disk,
    path: &Path,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, CheckpointError> {
    let malformed = |line: &str| CheckpointError::Malformed {
        path: path.to_owned(),
        line: line.chars().take(200).collect(),
    };
    let bytes = match disk.read(path, LEN_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(CheckpointError::Io {
                path: path.to_owned(),
                source,
            });
        }
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| malformed("not UTF-8"))?;
    let mut lines = text.lines();
    match lines.next() {
        None => return Ok(Vec::new()),
        // The last number may be cut short.
        Some(_) if !text.ends_with('\n') => return Err(malformed("no newline at the end")),
        Some(version) if version.trim() == VERSION => {}
        Some(other) => return Err(malformed(other)),
    }
    let count = lines.next().unwrap_or_default();
    let count: usize = count.trim().parse().map_err(|_| malformed(count))?;
    let entries: Vec<T> = lines
        .map(|line| parse(line).ok_or_else(|| malformed(line)))
        .collect::<Result<_, _>>()?;
    if entries.len() != count {
        return Err(malformed(&format!("{} of {count} entries", entries.len())));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::disk::RealDisk;

    #[test]
    fn offsets_round_trip_in_kafkas_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(RECOVERY_POINT);
        assert!(read_offsets(&RealDisk, &path).unwrap().is_empty());
        let offsets = Offsets::from([
            (("b".into(), PartitionIndex(10)), Offset(7)),
            (("a-1".into(), PartitionIndex(0)), Offset(1 << 40)),
        ]);
        write_offsets(&RealDisk, &path, &offsets).unwrap();
        assert_eq!(
            RealDisk.read(&path, 100).unwrap(),
            b"0\n2\na-1 0 1099511627776\nb 10 7\n"
        );
        assert_eq!(read_offsets(&RealDisk, &path).unwrap(), offsets);
        assert_eq!(RealDisk.read_dir(dir.path()).unwrap().len(), 1);
    }

    #[test]
    fn damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_offsets(&RealDisk, &path)
        };
        assert!(read("").unwrap().is_empty());
        assert!(read("0\n0\n").unwrap().is_empty());
        for bad in [
            "1\n0\n",
            "0\n",
            "0\n2\na 0 1\n",
            "0\n1\na 0\n",
            "0\n1\na 0 1 2\n",
            "0\n1\na 0 1",
            "\0",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
