//! What `floor --serve` keeps: a file without a name for each partition, where each batch
//! begins in it, and who waits for more. Called by `serve` only.
//!
//! Invariants: `batches` ascend in offset and in position; a partition's key stays its own
//! until its topic is deleted.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use slab::Slab;

use super::serve::Fault;
use crate::base::Offset;
use crate::record::{Batches, set_base_offset};

/// A key of [`Store::partitions`].
pub type PartitionKey = usize;

pub struct Store {
    dir: PathBuf,
    topics: HashMap<String, Vec<PartitionKey>>,
    pub partitions: Slab<Partition>,
    /// Of topics: after one, keys are given out again.
    pub deletions: u64,
}

pub struct Partition {
    pub topic: Rc<str>,
    pub index: i32,
    pub file: File,
    /// Whether a batch is on the disk before it is acknowledged (`flush.messages=1`), which
    /// is up to `serve`.
    pub synced: bool,
    bytes: u64,
    /// Base offset and position of every batch.
    batches: Vec<(i64, u64)>,
    pub next_offset: i64,
    /// Connections that have parked a fetch here and may do so again.
    pub waiting: Vec<usize>,
}

impl Store {
    pub fn new(dir: &Path) -> Store {
        Store {
            dir: dir.to_owned(),
            topics: HashMap::new(),
            partitions: Slab::new(),
            deletions: 0,
        }
    }

    pub fn find(&self, topic: &str, index: i32) -> Option<PartitionKey> {
        let keys = self.topics.get(topic)?;
        keys.get(usize::try_from(index).ok()?).copied()
    }

    pub fn partition_count(&self, topic: &str) -> Option<usize> {
        self.topics.get(topic).map(Vec::len)
    }

    pub fn topic_names(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(String::as_str)
    }

    /// False if there is such a topic already.
    pub fn create_topic(&mut self, name: &str, count: i32, synced: bool) -> io::Result<bool> {
        if self.topics.contains_key(name) {
            return Ok(false);
        }
        let topic: Rc<str> = name.into();
        let mut keys = Vec::new();
        for index in 0..count.max(1) {
            keys.push(self.partitions.insert(Partition {
                topic: topic.clone(),
                index,
                file: unnamed_file(&self.dir)?,
                synced,
                bytes: 0,
                batches: Vec::new(),
                next_offset: 0,
                waiting: Vec::new(),
            }));
        }
        self.topics.insert(name.to_owned(), keys);
        Ok(true)
    }

    /// False if there is no such topic. Its files go at once.
    pub fn delete_topic(&mut self, name: &str) -> bool {
        let Some(keys) = self.topics.remove(name) else {
            return false;
        };
        for key in keys {
            drop(self.partitions.remove(key));
        }
        self.deletions += 1;
        true
    }
}

impl Partition {
    /// Gives the batches their offsets and writes them at once; returns the first offset.
    pub fn append(&mut self, records: &mut [u8]) -> Result<i64, Fault> {
        let base_offset = self.next_offset;
        let mut at = 0;
        while at < records.len() {
            let batch = Batches::new(&records[at..]).next().ok_or("no batch")??;
            let (size, count) = (batch.size_in_bytes(), batch.last_offset_delta() + 1);
            set_base_offset(&mut records[at..at + size], Offset(self.next_offset));
            self.batches
                .push((self.next_offset, self.bytes + at as u64));
            self.next_offset += i64::from(count);
            at += size;
        }
        self.file.write_all(records)?;
        self.bytes += records.len() as u64;
        Ok(base_offset)
    }

    /// Position and length of the whole batches from `offset` on that `bytes_max` holds;
    /// with `at_least_one` the first of them even if it is longer.
    pub fn range(&self, offset: i64, bytes_max: u64, at_least_one: bool) -> (u64, usize) {
        if offset >= self.next_offset {
            return (self.bytes, 0);
        }
        let first = self.batches.partition_point(|(base, _)| *base < offset);
        let Some((_, position)) = self.batches.get(first) else {
            return (self.bytes, 0);
        };
        let limit = position.saturating_add(bytes_max);
        let end = if self.bytes <= limit {
            self.bytes
        } else {
            let over = self.batches.partition_point(|(_, at)| *at <= limit);
            let end = self.batches[over - 1].1;
            let one = self.batches.get(first + 1);
            let one = one.map_or(self.bytes, |(_, at)| *at);
            if at_least_one { end.max(one) } else { end }
        };
        (*position, (end - position) as usize)
    }
}

/// A file that goes when it is closed.
pub fn unnamed_file(dir: &Path) -> io::Result<File> {
    use nix::fcntl::{OFlag, open};
    use nix::sys::stat::Mode;
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    Ok(File::from(open(
        dir,
        flags,
        Mode::from_bits_truncate(0o600),
    )?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchBuilder, BatchParams};

    fn batch(records: usize) -> Vec<u8> {
        let mut builder = BatchBuilder::new(BatchParams::default());
        for _ in 0..records {
            builder.append(0, None, Some(b"value"), &[]);
        }
        builder.finish().to_vec()
    }

    #[test]
    fn ranges_are_whole_batches_and_one_at_least_where_that_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::new(dir.path());
        assert!(store.create_topic("t", 2, true).unwrap());
        assert!(!store.create_topic("t", 2, false).unwrap());
        let key = store.find("t", 1).unwrap();
        let found = &mut store.partitions[key];
        let (mut one, mut three) = (batch(1), batch(3));
        let (short, long) = (one.len() as u64, three.len() as u64);
        assert_eq!(found.append(&mut one).unwrap(), 0);
        assert_eq!(found.append(&mut three).unwrap(), 1);
        assert_eq!(found.range(0, u64::MAX, true), (0, (short + long) as usize));
        assert_eq!(found.range(0, short + long - 1, true), (0, short as usize));
        assert_eq!(found.range(1, 5, true), (short, long as usize));
        assert_eq!(found.range(1, 5, false), (short, 0));
        assert_eq!(found.range(4, u64::MAX, true), (short + long, 0));
        assert!(store.delete_topic("t") && !store.delete_topic("t"));
        assert_eq!((store.find("t", 1), store.partitions.len()), (None, 0));
    }
}
