//! What the log means, told a second time and as simply as possible: the judge of what the
//! shard answers.

use std::collections::BTreeMap;

use ottla::coordinator::CoordinatorRecord;
use ottla::coordinator::batch::{LogEntry, read_batch};
use ottla::record::Batches;

pub type OffsetKey = (String, String, i32);

/// An offset and its commit's own number, which grows from commit to commit.
pub type Committed = (i64, u64);

#[derive(Default)]
pub struct Model {
    pub log: Vec<LogBatch>,
    /// First offset that is not committed; always at a batch's end.
    pub committed: i64,
    pub latest_offsets: BTreeMap<OffsetKey, Committed>,
    pub committed_offsets: BTreeMap<OffsetKey, Committed>,
    /// The newest commit of each offset that was acknowledged and not deleted since.
    pub acknowledged: BTreeMap<OffsetKey, u64>,
    /// Where each offset was last deleted, below the high watermark.
    deleted: BTreeMap<OffsetKey, i64>,
    /// How often each group was deleted in this log: which of its lives it is in.
    lives: BTreeMap<String, usize>,
}

pub struct LogBatch {
    pub first: i64,
    pub last: i64,
    pub bytes: Vec<u8>,
    records: Vec<CoordinatorRecord>,
}

impl Model {
    pub fn end(&self) -> i64 {
        self.log.last().map_or(0, |batch| batch.last + 1)
    }

    /// Takes a batch whose base offset is set.
    pub fn append(&mut self, bytes: Vec<u8>) {
        let mut records = Vec::new();
        let view = Batches::new(&bytes)
            .next()
            .expect("a batch")
            .expect("a whole one");
        read_batch(&view, |entry| match entry {
            LogEntry::Record { record, .. } => records.push(record),
            LogEntry::EndOfTransaction { .. } => panic!("nobody wrote a marker"),
        })
        .expect("a batch of ours");
        let batch = LogBatch {
            first: view.base_offset().0,
            last: view.last_offset().0,
            bytes: bytes.clone(),
            records,
        };
        assert_eq!(batch.first, self.end());
        for record in &batch.records {
            apply(record, &mut self.latest_offsets);
            if let CoordinatorRecord::GroupMetadata { group, value: None } = record {
                *self.lives.entry(group.to_string()).or_default() += 1;
            }
        }
        self.log.push(batch);
    }

    /// Commits up to `end`, the end of a batch.
    pub fn commit(&mut self, end: i64) {
        for batch in &self.log {
            if batch.first < self.committed || batch.first >= end {
                continue;
            }
            for record in &batch.records {
                if let Some(key) = apply(record, &mut self.committed_offsets) {
                    self.acknowledged.remove(&key);
                    self.deleted.insert(key, batch.first);
                }
            }
        }
        self.committed = self.committed.max(end);
    }

    /// The tail is lost but for `kept` batches, which are committed by that.
    pub fn crash(&mut self, kept: usize) {
        let committed = self
            .log
            .iter()
            .filter(|batch| batch.last < self.committed)
            .count();
        self.log.truncate(committed + kept);
        self.commit(self.end());
        self.latest_offsets = self.committed_offsets.clone();
        self.lives.clear();
        for batch in &self.log {
            for record in &batch.records {
                if let CoordinatorRecord::GroupMetadata { group, value: None } = record {
                    *self.lives.entry(group.to_string()).or_default() += 1;
                }
            }
        }
    }

    pub fn life(&self, group: &str) -> usize {
        self.lives.get(group).copied().unwrap_or(0)
    }

    /// The commit with that number, in the batch at `at`, was answered without an error.
    pub fn acknowledge(&mut self, key: &OffsetKey, number: u64, at: i64) {
        assert!(at < self.committed, "acknowledged before it is committed");
        if self.deleted.get(key).is_some_and(|deleted| *deleted > at) {
            return;
        }
        let newest = self.acknowledged.entry(key.clone()).or_default();
        *newest = number.max(*newest);
    }
}

/// Returns the key of a deleted offset.
fn apply(
    record: &CoordinatorRecord,
    offsets: &mut BTreeMap<OffsetKey, Committed>,
) -> Option<OffsetKey> {
    let CoordinatorRecord::OffsetCommit {
        group,
        topic,
        partition,
        value,
    } = record
    else {
        return None;
    };
    let key = (group.to_string(), topic.to_string(), *partition);
    match value {
        Some(value) => {
            let number = value.metadata.parse().expect("each commit is numbered");
            offsets.insert(key, (value.offset, number));
            None
        }
        None => {
            offsets.remove(&key);
            Some(key)
        }
    }
}
