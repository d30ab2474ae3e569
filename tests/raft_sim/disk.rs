//! A node's disk: what is on stable storage, and what was written since and may be lost,
//! in whole or in part, when the node crashes.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use ottla::base::rng::Rng;
use ottla::base::{LeaderEpoch, Offset};
use ottla::raft::checkpoint::{Checkpoint, Contents, read_batch};
use ottla::raft::quorum::{LogView, OffsetAndEpoch, Version};
use ottla::raft::{ControlRecord, ElectionState, VoterSet};
use ottla::record::Batches;

#[derive(Clone, Debug)]
pub struct Batch {
    pub base: Offset,
    pub end: Offset,
    pub epoch: LeaderEpoch,
    pub bytes: Bytes,
    pub hash: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Image {
    pub start: Offset,
    pub batches: Vec<Batch>,
}

#[derive(Clone, Debug)]
enum Change {
    Append(Batch),
    Truncate(Offset),
    Reset(Offset),
    AdvanceStart(Offset),
}

#[derive(Debug, Default)]
pub struct Disk {
    durable: Image,
    /// With everything that was written.
    pub log: Image,
    /// Changes not synced yet; the first is number `synced`.
    pending: Vec<Change>,
    synced: u64,
    pub quorum_state: Option<ElectionState>,
    unsynced_states: Vec<(Version, ElectionState)>,
    pub snapshots: BTreeMap<OffsetAndEpoch, Bytes>,
    /// A snapshot that is being fetched.
    part: Option<(OffsetAndEpoch, BytesMut)>,
}

impl Image {
    pub fn end(&self) -> Offset {
        self.batches.last().map_or(self.start, |batch| batch.end)
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Append(batch) => {
                assert_eq!(batch.base, self.end(), "an append continues the log");
                self.batches.push(batch.clone());
            }
            Change::Truncate(to) => {
                self.batches.retain(|batch| batch.end <= *to);
                assert_eq!(self.end(), *to, "cut between batches");
            }
            Change::Reset(start) => {
                self.start = *start;
                self.batches.clear();
            }
            Change::AdvanceStart(start) => {
                self.batches.retain(|batch| batch.base >= *start);
                self.start = *start;
            }
        }
    }

    /// Batches from an offset on, at least one, up to so many bytes; the last may be cut.
    pub fn read(&self, from: Offset, bytes_max: i32, cut: bool) -> Bytes {
        let at = self.batches.partition_point(|batch| batch.base < from);
        assert_eq!(
            self.batches[at].base, from,
            "fetches go from batch to batch"
        );
        let mut out = BytesMut::new();
        for batch in &self.batches[at..] {
            let room = usize::try_from(bytes_max)
                .unwrap()
                .saturating_sub(out.len());
            if !out.is_empty() && batch.bytes.len() > room {
                if cut {
                    out.extend_from_slice(&batch.bytes[..room]);
                }
                break;
            }
            out.extend_from_slice(&batch.bytes);
        }
        out.freeze()
    }
}

impl Disk {
    pub fn append(&mut self, bytes: &Bytes) -> Vec<Batch> {
        let mut added = Vec::new();
        for batch in Batches::new(bytes) {
            let batch = batch.expect("whole batches are appended");
            let own = Bytes::copy_from_slice(batch.bytes());
            added.push(Batch {
                base: batch.base_offset(),
                end: batch.next_offset(),
                epoch: batch.partition_leader_epoch(),
                hash: hash(0, &own),
                bytes: own,
            });
        }
        for batch in &added {
            self.write(Change::Append(batch.clone()));
        }
        added
    }

    pub fn truncate(&mut self, to: Offset) {
        self.write(Change::Truncate(to));
    }

    pub fn reset(&mut self, start: Offset) {
        self.write(Change::Reset(start));
    }

    pub fn advance_start(&mut self, snapshot: OffsetAndEpoch) {
        self.write(Change::AdvanceStart(snapshot.offset));
        self.snapshots.retain(|id, _| *id >= snapshot);
    }

    fn write(&mut self, change: Change) {
        self.log.change(&change);
        self.pending.push(change);
    }

    /// Number of the next change.
    pub fn written(&self) -> u64 {
        self.synced + self.pending.len() as u64
    }

    pub fn sync(&mut self, up_to: u64) {
        let count = up_to.saturating_sub(self.synced) as usize;
        for change in self.pending.drain(..count) {
            self.durable.change(&change);
        }
        self.synced += count as u64;
    }

    /// How far a crash leaves the node; a snapshot may go beyond the log.
    pub fn durable_end(&self) -> Offset {
        let snapshot = self.snapshots.keys().map(|id| id.offset).max();
        self.durable.end().max(snapshot.unwrap_or(Offset(0)))
    }

    pub fn write_state(&mut self, version: Version, state: ElectionState) {
        self.unsynced_states.push((version, state));
    }

    pub fn sync_state(&mut self, version: Version) {
        let synced = self
            .unsynced_states
            .iter()
            .filter(|s| s.0 <= version)
            .count();
        if let Some((_, state)) = self.unsynced_states.drain(..synced).next_back() {
            self.quorum_state = Some(state);
        }
    }

    pub fn write_part(&mut self, id: OffsetAndEpoch, position: u64, bytes: &Bytes) {
        if position == 0 {
            self.part = Some((id, BytesMut::new()));
        }
        let (of, part) = self.part.as_mut().expect("begun");
        assert_eq!((*of, part.len() as u64), (id, position), "pieces in order");
        part.extend_from_slice(bytes);
    }

    /// Makes a snapshot of its parts; `None` where it isn't whole.
    pub fn finish_part(&mut self, id: OffsetAndEpoch) -> Option<(u64, Checkpoint)> {
        let (of, part) = self.part.take()?;
        let file = part.freeze();
        let content = Checkpoint::parse(&file).ok()?;
        assert_eq!(of, id);
        let size = file.len() as u64;
        self.snapshots.insert(id, file);
        Some((size, content))
    }

    /// The node dies: of what wasn't synced a random beginning survives, and the batch
    /// after it is torn.
    pub fn crash(&mut self, rng: &mut Rng) -> usize {
        let survive = rng.below(self.pending.len() as u64 + 1);
        let lost = self.pending.len() - survive as usize;
        self.sync(self.synced + survive);
        self.synced += lost as u64;
        self.pending.clear();
        self.log = self.durable.clone();
        let states = rng.below(self.unsynced_states.len() as u64 + 1) as usize;
        if let Some((_, state)) = self.unsynced_states.drain(..states).next_back() {
            self.quorum_state = Some(state);
        }
        self.unsynced_states.clear();
        self.part = None;
        lost
    }

    /// The node stops in order.
    pub fn close(&mut self) {
        self.sync(self.written());
        self.sync_state(Version(u64::MAX));
        self.part = None;
    }

    /// Opens the log as a node does that starts.
    pub fn open(&mut self, fixed: &VoterSet) -> LogView {
        let mut view = LogView::new(fixed.clone());
        if let Some(latest) = self.snapshots.last_key_value().map(|(id, _)| *id) {
            self.fit_to(latest);
            let size = |file: &Bytes| file.len() as u64;
            if let Some(first) = self.first_snapshot() {
                let file = &self.snapshots[&first];
                let content = Checkpoint::parse(file).expect("finished snapshots are whole");
                view = LogView::at_snapshot(
                    fixed.clone(),
                    first,
                    size(file),
                    content.kraft_version,
                    content.voters,
                );
            }
            assert_eq!(
                view.start(),
                self.log.start,
                "a snapshot goes before the log"
            );
            for (id, file) in &self.snapshots {
                view.add_snapshot(*id, size(file));
            }
        }
        for batch in &self.log.batches {
            let control = control_records(&batch.bytes);
            let at = |(index, record)| (batch.base + index as i64, record);
            let control = control.into_iter().enumerate().map(at);
            view.append(batch.end, batch.epoch, control);
        }
        view
    }

    /// A crash may have come between a snapshot and what was to be done with the log.
    fn fit_to(&mut self, latest: OffsetAndEpoch) {
        let before = self.first_snapshot().map_or(LeaderEpoch(0), |id| id.epoch);
        let last = self.log.batches.last();
        let own = OffsetAndEpoch {
            epoch: last.map_or(before, |batch| batch.epoch),
            offset: self.log.end(),
        };
        if latest > own || latest.offset > own.offset {
            self.write(Change::Reset(latest.offset));
        } else if self.first_snapshot().is_none() && self.log.start > Offset(0) {
            let oldest = *self.snapshots.keys().next().expect("there is one");
            self.write(Change::AdvanceStart(oldest.offset));
        }
        self.sync(self.written());
        let start = self.log.start;
        self.snapshots.retain(|id, _| id.offset >= start);
    }

    /// The snapshot that ends where the log begins.
    fn first_snapshot(&self) -> Option<OffsetAndEpoch> {
        let mut ids = self.snapshots.keys();
        ids.find(|id| id.offset == self.log.start).copied()
    }
}

pub fn control_records(bytes: &Bytes) -> Vec<ControlRecord> {
    let mut all = Vec::new();
    for batch in Batches::new(bytes) {
        match read_batch(&batch.expect("whole")).expect("readable") {
            Contents::Control(records) => all.extend(records),
            Contents::Data(_) => {}
        }
    }
    all
}

/// FNV-1a, going on from another hash.
pub fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let start = seed ^ 0xcbf2_9ce4_8422_2325;
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(start, mix)
}
