//! What a node has promised, and what may be found on it after it has ended.
//!
//! Every record that is ever sent has a number of its own, from which its value is made.
//! The model knows for each log which record was told or read at which offset; a check
//! after a restart holds what is found against that.
//!
//! Rules: an offset has one record for ever, a record one offset; offsets have no gaps; the
//! records of one producer are in its order; what was acknowledged is there, or lies below
//! the log's start, which moves only where records were to be deleted.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use ottla::base::Uuid;

/// A partition of one incarnation of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogId {
    pub topic: String,
    pub incarnation: u32,
    pub partition: i32,
}

/// A record's number.
pub type RecordId = u64;

/// What the last ends may have taken besides what wasn't promised to anybody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Losses {
    /// Records that were acknowledged.
    pub acknowledged: bool,
    /// Records that consumers had read.
    pub reads: bool,
    /// Committed offsets.
    pub commits: bool,
    /// Offsets of records that nobody was told of, while later ones are there.
    pub gaps: bool,
}

impl Losses {
    pub const NONE: Losses = Losses {
        acknowledged: false,
        reads: false,
        commits: false,
        gaps: false,
    };
}

#[derive(Default)]
pub struct Model {
    sent: Vec<Sent>,
    pub logs: BTreeMap<LogId, LogState>,
    pub commits: BTreeMap<(String, String, i32), Commits>,
    pub churned: BTreeMap<String, Churned>,
    pub producer_ids: Vec<i64>,
    pub counts: Counts,
}

struct Sent {
    log: LogId,
    producer: usize,
    bytes: usize,
}

#[derive(Default)]
pub struct LogState {
    /// By offset: everything that was told or read.
    known: BTreeMap<i64, Known>,
    offsets: BTreeMap<RecordId, i64>,
    /// Where a consumer reads on.
    pub position: i64,
    /// DeleteRecords asked for as much.
    pub deleted_up_to: i64,
    /// Retention may move its start.
    pub retained: bool,
    /// Offsets that power cuts left without a record, by the first.
    pub gaps: BTreeMap<i64, i64>,
}

#[derive(Clone, Copy)]
struct Known {
    record: RecordId,
    acknowledged: bool,
    read: bool,
}

/// A group's offset of one partition.
#[derive(Default)]
pub struct Commits {
    pub acknowledged: Option<i64>,
    /// Sent after the last one that was acknowledged.
    pub unanswered: Vec<i64>,
}

/// A topic that comes and goes under one name.
#[derive(Default)]
pub struct Churned {
    /// The id and incarnation that were last known to be there.
    pub live: Option<(Uuid, u32)>,
    pub incarnations: u32,
    /// Requests without an answer.
    pub creating: bool,
    pub deleting: bool,
}

/// What has happened, for the summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub kills: u64,
    pub cuts: u64,
    pub clean_stops: u64,
    /// Ends while the node was starting.
    pub early_ends: u64,
    pub batches: u64,
    pub records: u64,
    pub duplicates: u64,
    pub reads: u64,
    pub commits: u64,
    pub topics: u64,
    pub deletions: u64,
    pub rolls: u64,
    pub truncations: u64,
    pub lost_records: u64,
    pub lost_commits: u64,
    pub gaps: u64,
}

impl Counts {
    /// What the clients and the scenario have done.
    pub fn events(&self) -> u64 {
        let ends = self.kills + self.cuts + self.clean_stops;
        ends + self.batches + self.reads + self.commits + self.topics + self.deletions
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.kills += other.kills;
        self.cuts += other.cuts;
        self.clean_stops += other.clean_stops;
        self.early_ends += other.early_ends;
        self.batches += other.batches;
        self.records += other.records;
        self.duplicates += other.duplicates;
        self.reads += other.reads;
        self.commits += other.commits;
        self.topics += other.topics;
        self.deletions += other.deletions;
        self.rolls += other.rolls;
        self.truncations += other.truncations;
        self.lost_records += other.lost_records;
        self.lost_commits += other.lost_commits;
        self.gaps += other.gaps;
    }
}

impl Model {
    /// A new record of a producer for a log; its value.
    pub fn next_record(
        &mut self,
        log: &LogId,
        producer: usize,
        bytes: usize,
    ) -> (RecordId, Vec<u8>) {
        let id = self.sent.len() as RecordId;
        self.sent.push(Sent {
            log: log.clone(),
            producer,
            bytes,
        });
        (id, value(id, bytes))
    }

    /// The record with this value, which must be one that was sent to this log.
    pub fn identify(&self, log: &LogId, found: &[u8]) -> RecordId {
        let text = found.split(|byte| *byte == b' ').next();
        let id: Option<RecordId> = text
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.parse().ok());
        let sent = id.and_then(|id| self.sent.get(id as usize));
        let (Some(id), Some(sent)) = (id, sent) else {
            panic!("{log:?}: a record that nobody sent");
        };
        assert!(
            found == value(id, sent.bytes),
            "{log:?}: record {id} differs"
        );
        assert_eq!(*log, sent.log, "record {id} is in another log");
        id
    }

    /// A batch was acknowledged with its base offset.
    pub fn on_acknowledged(&mut self, log: &LogId, base_offset: i64, records: &[RecordId]) {
        self.counts.batches += 1;
        self.counts.records += records.len() as u64;
        let state = self.logs.entry(log.clone()).or_default();
        for (offset, record) in (base_offset..).zip(records) {
            state.place(log, offset, *record).acknowledged = true;
        }
    }

    /// A consumer was given a record.
    pub fn on_read(&mut self, log: &LogId, offset: i64, record: RecordId) {
        let state = self.logs.entry(log.clone()).or_default();
        state.place(log, offset, record).read = true;
    }

    /// What a restarted node has in a log: all of it becomes known.
    pub fn check_log(
        &mut self,
        log: &LogId,
        start: i64,
        end: i64,
        found: &[(i64, RecordId)],
        losses: Losses,
    ) {
        let state = self.logs.entry(log.clone()).or_default();
        let mut next = start;
        for offset in found.iter().map(|(offset, _)| *offset).chain([end]) {
            assert!(next <= offset, "{log:?}: {offset} comes after {next}");
            if next < offset {
                let before = state.gaps.range(..=next).next_back();
                let is_new = before.is_none_or(|(_, end)| *end < offset);
                state.gaps.insert(next, offset);
                assert!(
                    !is_new || losses.gaps,
                    "{log:?} has a gap at {next}..{offset}"
                );
                self.counts.gaps += u64::from(is_new);
            }
            next = offset + 1;
        }
        if state.retained {
            let has_records = start < end || end == 0 || losses.acknowledged;
            assert!(has_records, "{log:?}: retention took all");
        } else {
            let least = state.deleted_up_to;
            assert!(start <= least, "{log:?} starts at {start}, not by {least}");
        }
        let now: BTreeMap<i64, RecordId> = found.iter().copied().collect();
        let known: Vec<(i64, Known)> = state.known.range(start..).map(|(o, k)| (*o, *k)).collect();
        for (offset, known) in known {
            let now = now.get(&offset);
            if now == Some(&known.record) {
                continue;
            }
            let record = known.record;
            assert!(
                !known.acknowledged || losses.acknowledged,
                "{log:?}: acknowledged record {record} at {offset} is lost: {now:?} of {start}..{end}"
            );
            assert!(
                !known.read || losses.reads,
                "{log:?}: record {record} at {offset} was read and is gone: {now:?} of {start}..{end}"
            );
            self.counts.lost_records += 1;
            state.known.remove(&offset);
            state.offsets.remove(&record);
        }
        let mut last: BTreeMap<usize, RecordId> = BTreeMap::new();
        for (offset, record) in found {
            state.place(log, *offset, *record).read = true;
            let producer = self.sent[*record as usize].producer;
            let before = last.insert(producer, *record);
            assert!(
                before.is_none_or(|before| before < *record),
                "{log:?}: records {before:?} and {record} of producer {producer} changed places"
            );
        }
        state.position = state.position.min(end);
    }

    /// The end that a log must have, at least.
    pub fn least_end(&self, log: &LogId, losses: Losses) -> i64 {
        let Some(state) = self.logs.get(log) else {
            return 0;
        };
        let kept = state
            .known
            .iter()
            .rev()
            .find(|(_, known)| match known.acknowledged {
                true => !losses.acknowledged,
                false => !losses.reads,
            });
        kept.map_or(0, |(offset, _)| offset + 1)
    }

    /// A consumer's position is out of the log's range.
    pub fn on_out_of_range(&mut self, log: &LogId, start: i64, end: i64) {
        let state = self.logs.entry(log.clone()).or_default();
        let position = state.position;
        assert!(
            position <= end,
            "{log:?}: {position} was read, but it ends at {end}"
        );
        state.position = position.max(start);
    }

    /// What a restarted node tells of a group's offset.
    pub fn check_commit(&mut self, key: &(String, String, i32), found: i64, losses: Losses) {
        let Some(commits) = self.commits.get_mut(key) else {
            return;
        };
        let found = (found >= 0).then_some(found);
        let is_last = found == commits.acknowledged;
        let is_unanswered = found.is_some_and(|offset| commits.unanswered.contains(&offset));
        if !is_last && !is_unanswered {
            let last = commits.acknowledged;
            assert!(
                losses.commits,
                "{key:?}: {last:?} was committed, now it's {found:?}"
            );
            self.counts.lost_commits += 1;
        }
        commits.acknowledged = found;
        commits.unanswered.clear();
    }

    /// What a node tells of a topic that comes and goes.
    pub fn check_churned(&mut self, name: &str, found: Option<Uuid>) {
        let churned = self.churned.entry(name.to_owned()).or_default();
        match found {
            None => assert!(
                churned.live.is_none() || churned.deleting,
                "topic {name} has gone"
            ),
            Some(id) if churned.live.is_some_and(|(live, _)| live == id) => {
                churned.creating = false;
                churned.deleting = false;
                return;
            }
            Some(_) => assert!(
                churned.creating && (churned.live.is_none() || churned.deleting),
                "topic {name} came by itself"
            ),
        }
        churned.live = found.map(|id| (id, churned.incarnations));
        churned.creating = false;
        churned.deleting = false;
    }
}

impl LogState {
    fn place(&mut self, log: &LogId, offset: i64, record: RecordId) -> &mut Known {
        let at = *self.offsets.entry(record).or_insert(offset);
        assert_eq!(at, offset, "{log:?}: record {record} has two offsets");
        let known = self.known.entry(offset).or_insert(Known {
            record,
            acknowledged: false,
            read: false,
        });
        assert_eq!(known.record, record, "{log:?}: offset {offset} has changed");
        known
    }
}

/// A record's value: its number, and bytes that are made from it.
fn value(id: RecordId, bytes: usize) -> Vec<u8> {
    let mut value = format!("{id} ").into_bytes();
    value.extend((0..bytes as u64).map(|at| (id.wrapping_mul(31) + at * 7) as u8));
    value
}
