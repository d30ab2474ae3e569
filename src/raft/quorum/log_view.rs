//! What the machine knows of its log without reading it: where it begins and ends, where
//! each epoch begins, how far it is on stable storage, which snapshots there are, and the
//! control records that say who votes.
//!
//! ```text
//!      snapshot ─▶│ start        epochs                    flushed        end
//!   ─ ─ ─ ─ ─ ─ ─ ┼─────────────┬───────────┬────────────────┼────────────┤
//!                 │ epoch 3     │ epoch 4   │ epoch 7        ┆ may be lost in a crash
//! ```
//! The shell builds one at start; afterwards only the machine changes it, in the step in
//! which it asks for the same change of the log.
//!
//! Invariants: start <= flushed <= end; epochs rise strictly and so do their starts, which
//! lie within the log; a voter set stands at the offset of its record.

use std::collections::BTreeMap;

use super::super::control::ControlRecord;
use super::super::voters::VoterSet;
use crate::base::{LeaderEpoch, Offset};

/// An end of a log: the epoch of the record before it and the offset after. Compared as
/// votes do, by epoch first. As a snapshot's name: what it contains ends there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct OffsetAndEpoch {
    pub epoch: LeaderEpoch,
    pub offset: Offset,
}

impl OffsetAndEpoch {
    /// The snapshot that `format` writes; it is never sent.
    pub const BOOTSTRAP: OffsetAndEpoch = OffsetAndEpoch::new(0, 0);

    pub const fn new(offset: i64, epoch: i32) -> OffsetAndEpoch {
        OffsetAndEpoch {
            epoch: LeaderEpoch(epoch),
            offset: Offset(offset),
        }
    }
}

/// Whether a follower may go on from where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchPoint {
    Valid,
    /// Its log departs from ours; at the latest here.
    Diverging(OffsetAndEpoch),
    /// The log doesn't go back that far.
    Snapshot(OffsetAndEpoch),
}

#[derive(Clone, Debug, Default)]
pub struct LogView {
    start: Offset,
    end: Offset,
    flushed: Offset,
    /// Epoch of the record before the start; 0 where the log begins with the first.
    start_epoch: LeaderEpoch,
    /// First offset of each epoch that begins within the log.
    epochs: Vec<(LeaderEpoch, Offset)>,
    /// With their sizes in bytes.
    snapshots: BTreeMap<OffsetAndEpoch, u64>,
    /// Of the configuration, in effect while the log has none.
    static_voters: VoterSet,
    voters: BTreeMap<Offset, VoterSet>,
    kraft_versions: BTreeMap<Offset, i16>,
}

impl LogView {
    /// An empty log.
    pub fn new(static_voters: VoterSet) -> LogView {
        LogView {
            static_voters,
            ..Default::default()
        }
    }

    /// A log that begins where a snapshot ends.
    pub fn at_snapshot(
        static_voters: VoterSet,
        id: OffsetAndEpoch,
        size: u64,
        kraft_version: i16,
        voters: Option<VoterSet>,
    ) -> LogView {
        let mut view = LogView::new(static_voters);
        view.add_snapshot(id, size);
        view.reset(id, kraft_version, voters);
        view
    }

    pub fn start(&self) -> Offset {
        self.start
    }

    pub fn end(&self) -> Offset {
        self.end
    }

    pub fn flushed(&self) -> Offset {
        self.flushed
    }

    pub fn last_epoch(&self) -> LeaderEpoch {
        self.epochs.last().map_or(self.start_epoch, |entry| entry.0)
    }

    /// The log's end as votes compare it.
    pub fn last(&self) -> OffsetAndEpoch {
        OffsetAndEpoch {
            epoch: self.last_epoch(),
            offset: self.end,
        }
    }

    /// Voters of the latest record, committed or not; of the configuration without one.
    pub fn voters(&self) -> &VoterSet {
        let latest = self.voters.last_key_value();
        latest.map_or(&self.static_voters, |(_, voters)| voters)
    }

    /// The voters before those, which count again if the latest record is cut off.
    pub fn voters_before(&self) -> &VoterSet {
        let before = self.voters.values().rev().nth(1);
        before.unwrap_or(&self.static_voters)
    }

    /// Offset of the record that made them.
    pub fn voters_offset(&self) -> Option<Offset> {
        self.voters.last_key_value().map(|(offset, _)| *offset)
    }

    pub fn kraft_version(&self) -> i16 {
        let latest = self.kraft_versions.last_key_value();
        latest.map_or(0, |(_, version)| *version)
    }

    /// kraft.version and voters as of the records below an offset, for a snapshot that ends
    /// there.
    pub fn voters_at(&self, end: Offset) -> (i16, Option<VoterSet>) {
        let version = self.kraft_versions.range(..end).next_back();
        let voters = self.voters.range(..end).next_back();
        (
            version.map_or(0, |(_, version)| *version),
            voters.map(|(_, voters)| voters.clone()),
        )
    }

    /// Whether a new dynamic quorum's voters are only in the snapshot of `format` so far.
    pub fn are_voters_unwritten(&self) -> bool {
        self.kraft_version() > 0 && self.voters_offset().is_none_or(|offset| offset < Offset(0))
    }

    pub fn snapshot_size(&self, id: OffsetAndEpoch) -> Option<u64> {
        self.snapshots.get(&id).copied()
    }

    pub fn latest_snapshot(&self) -> Option<OffsetAndEpoch> {
        let latest = self.snapshots.last_key_value().map(|(id, _)| *id);
        latest.filter(|id| *id != OffsetAndEpoch::BOOTSTRAP)
    }

    /// The snapshot that ends where the log begins.
    fn first_snapshot(&self) -> Option<OffsetAndEpoch> {
        let ids = self.snapshots.keys();
        let mut at_start = ids.filter(|id| id.offset == self.start && id.offset > Offset(0));
        at_start.next().copied()
    }

    pub fn snapshots(&self) -> impl Iterator<Item = OffsetAndEpoch> + '_ {
        self.snapshots.keys().copied()
    }

    /// The last epoch up to the given one, and its end.
    pub fn end_of_epoch(&self, epoch: LeaderEpoch) -> OffsetAndEpoch {
        let after = self.epochs.partition_point(|entry| entry.0 <= epoch);
        let end = self.epochs.get(after).map_or(self.end, |entry| entry.1);
        match after.checked_sub(1) {
            Some(at) => OffsetAndEpoch {
                epoch: self.epochs[at].0,
                offset: end,
            },
            None if self.start > Offset(0) && self.start_epoch <= epoch => OffsetAndEpoch {
                epoch: self.start_epoch,
                offset: end,
            },
            // Before all that is known.
            None => OffsetAndEpoch {
                epoch,
                offset: self.start,
            },
        }
    }

    /// Epoch of the record before an offset within the log.
    pub fn epoch_before(&self, end: Offset) -> LeaderEpoch {
        let after = self.epochs.partition_point(|entry| entry.1 < end);
        let entry = after.checked_sub(1).map(|at| self.epochs[at]);
        entry.map_or(self.start_epoch, |entry| entry.0)
    }

    /// Compares a replica's end with this, the leader's log.
    pub fn check_fetch(&self, offset: Offset, epoch: LeaderEpoch) -> FetchPoint {
        if offset == Offset(0)
            && let Some(id) = self.latest_snapshot()
        {
            return FetchPoint::Snapshot(id);
        }
        if offset == Offset(0) && self.start == Offset(0) {
            return FetchPoint::Valid;
        }
        if let Some(first) = self.first_snapshot() {
            let is_before = offset < self.start || epoch < first.epoch;
            let departs = offset == self.start && epoch != first.epoch;
            if is_before || departs {
                let latest = self.latest_snapshot().expect("there is a first one");
                return FetchPoint::Snapshot(latest);
            }
        }
        let end = self.end_of_epoch(epoch);
        if end.epoch != epoch || end.offset < offset {
            FetchPoint::Diverging(end)
        } else {
            FetchPoint::Valid
        }
    }

    /// Where a follower cuts its log when its leader said where they diverge.
    pub fn truncation_point(&self, diverging: OffsetAndEpoch) -> Offset {
        let local = self.end_of_epoch(diverging.epoch);
        if local.epoch == diverging.epoch || diverging.epoch == LeaderEpoch(0) {
            local.offset.min(diverging.offset)
        } else {
            local.offset
        }
    }

    /// Whether a snapshot has more than the log.
    pub fn is_behind(&self, snapshot: OffsetAndEpoch) -> bool {
        snapshot > self.last() || snapshot.offset > self.end
    }

    /// Batches of one epoch were appended, with these control records.
    pub fn append(
        &mut self,
        end: Offset,
        epoch: LeaderEpoch,
        control: impl IntoIterator<Item = (Offset, ControlRecord)>,
    ) {
        assert!(end > self.end, "an append has records");
        assert!(epoch >= self.last_epoch(), "epochs never fall");
        if self.last_epoch() < epoch {
            self.epochs.push((epoch, self.end));
        }
        for (offset, record) in control {
            assert!((self.end..end).contains(&offset), "within the append");
            match record {
                ControlRecord::Voters(record) => {
                    self.voters.insert(offset, VoterSet::from_record(&record));
                }
                ControlRecord::KRaftVersion(record) => {
                    self.kraft_versions.insert(offset, record.kraft_version);
                }
                ControlRecord::LeaderChange(_)
                | ControlRecord::SnapshotHeader(_)
                | ControlRecord::SnapshotFooter(_) => {}
            }
        }
        self.end = end;
    }

    /// What the shell found on disk at start is durable.
    pub fn set_flushed(&mut self, flushed: Offset) {
        assert!(flushed <= self.end, "flushed before it was appended");
        self.flushed = self.flushed.max(flushed);
    }

    pub fn truncate(&mut self, to: Offset) {
        assert!(self.start <= to && to <= self.end, "a cut within the log");
        self.end = to;
        self.flushed = self.flushed.min(to);
        self.epochs.retain(|entry| entry.1 < to);
        self.voters.retain(|offset, _| *offset < to);
        self.kraft_versions.retain(|offset, _| *offset < to);
    }

    pub fn add_snapshot(&mut self, id: OffsetAndEpoch, size: u64) {
        self.snapshots.insert(id, size);
    }

    /// The log becomes empty, at a snapshot's end.
    pub fn reset(&mut self, id: OffsetAndEpoch, kraft_version: i16, voters: Option<VoterSet>) {
        assert!(self.snapshots.contains_key(&id), "a snapshot that is there");
        self.start = id.offset;
        self.end = id.offset;
        self.flushed = id.offset;
        self.epochs.clear();
        self.start_epoch = id.epoch;
        let before = id.offset + -1;
        self.voters.clear();
        self.voters.extend(voters.map(|voters| (before, voters)));
        self.kraft_versions.clear();
        self.kraft_versions.insert(before, kraft_version);
        self.snapshots.retain(|other, _| *other >= id);
    }

    /// Records before a snapshot's end are dropped, and older snapshots.
    pub fn advance_start(&mut self, id: OffsetAndEpoch) {
        assert!(self.snapshots.contains_key(&id), "a snapshot that is there");
        assert!(self.start <= id.offset && id.offset <= self.end);
        self.start = id.offset;
        self.flushed = self.flushed.max(id.offset);
        self.start_epoch = id.epoch;
        self.epochs.retain(|entry| entry.1 >= id.offset);
        self.snapshots.retain(|other, _| *other >= id);
        keep_latest_before(&mut self.voters, id.offset);
        keep_latest_before(&mut self.kraft_versions, id.offset);
    }

    pub fn invariants(&self) {
        assert!(self.start <= self.flushed && self.flushed <= self.end);
        let rises = |pair: &[(LeaderEpoch, Offset)]| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1;
        assert!(self.epochs.windows(2).all(rises), "epochs rise");
        let within = |entry: &(LeaderEpoch, Offset)| self.start <= entry.1 && entry.1 < self.end;
        assert!(self.epochs.iter().all(within), "epochs begin in the log");
    }
}

/// Drops the entries before an offset, except for the one in effect there.
fn keep_latest_before<V>(entries: &mut BTreeMap<Offset, V>, start: Offset) {
    if let Some(latest) = entries.range(..start).next_back().map(|(at, _)| *at) {
        entries.retain(|offset, _| *offset >= latest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BrokerId, Uuid};
    use crate::raft::voters::Voter;
    use proptest::prelude::*;

    /// Appends runs of records, each of an epoch so much higher than the one before.
    fn grow(log: &mut LogView, runs: &[(i32, i64)], parity: i32) {
        for (rise, records) in runs {
            // Even epochs are the one log's, odd ones the other's.
            let mut epoch = log.last_epoch().0 + rise;
            epoch += (epoch + parity) % 2;
            log.append(log.end() + *records, LeaderEpoch(epoch), Vec::new());
        }
    }

    fn runs() -> impl Strategy<Value = Vec<(i32, i64)>> {
        proptest::collection::vec((1i32..4, 1i64..5), 0..6)
    }

    proptest! {
        /// Fetch by fetch a follower cuts what the leader doesn't have, and nothing else.
        #[test]
        fn logs_that_part_are_cut_to_what_they_share(
            shared in runs(),
            leaders in runs(),
            followers in runs(),
        ) {
            let mut leader = LogView::default();
            grow(&mut leader, &shared, 0);
            let common = leader.end();
            let mut follower = leader.clone();
            grow(&mut leader, &leaders, 0);
            grow(&mut follower, &followers, 1);
            // The leader has begun its own epoch, above all others.
            let epoch = leader.last_epoch().max(follower.last_epoch()).0 + 1;
            leader.append(leader.end() + 1, LeaderEpoch(epoch), Vec::new());
            let epochs = shared.len() + leaders.len() + followers.len();
            for _ in 0..=epochs + 1 {
                match leader.check_fetch(follower.end(), follower.last_epoch()) {
                    FetchPoint::Valid => {
                        prop_assert_eq!(follower.end(), common);
                        return Ok(());
                    }
                    FetchPoint::Diverging(end) => {
                        let to = follower.truncation_point(end);
                        prop_assert!(to < follower.end(), "nothing is cut");
                        prop_assert!(to >= common, "what they share is cut");
                        follower.truncate(to);
                        follower.invariants();
                    }
                    FetchPoint::Snapshot(id) => panic!("no snapshots: {id:?}"),
                }
            }
            prop_assert!(false, "no end of it");
        }

        /// Wherever the log begins, the epochs of what is left are told as before.
        #[test]
        fn a_later_start_changes_nothing_of_the_rest(runs in runs(), at in any::<prop::sample::Index>()) {
            let mut whole = LogView::default();
            grow(&mut whole, &runs, 0);
            let mut cut = whole.clone();
            let start = Offset(at.index(whole.end().0 as usize + 1) as i64);
            prop_assume!(start > Offset(0));
            let id = OffsetAndEpoch { epoch: whole.epoch_before(start), offset: start };
            cut.add_snapshot(id, 1);
            cut.advance_start(id);
            cut.invariants();
            prop_assert_eq!(cut.last(), whole.last());
            for epoch in id.epoch.0..=whole.last_epoch().0 {
                let epoch = LeaderEpoch(epoch);
                prop_assert_eq!(cut.end_of_epoch(epoch), whole.end_of_epoch(epoch));
            }
            for offset in start.0..=whole.end().0 {
                prop_assert_eq!(cut.epoch_before(Offset(offset)), whole.epoch_before(Offset(offset)));
            }
        }
    }

    #[test]
    fn voters_are_those_of_the_latest_record() {
        let set = |ids: &[i32]| -> VoterSet {
            let voter = |id: &i32| Voter::new(BrokerId(*id), Some(Uuid([1; 16])), Vec::new());
            ids.iter().map(voter).collect()
        };
        let record = |ids: &[i32]| ControlRecord::Voters(set(ids).to_record());
        let mut log = LogView::new(set(&[9]));
        assert_eq!(log.voters(), &set(&[9]));
        let first = [(Offset(1), record(&[1])), (Offset(4), record(&[1, 2]))];
        log.append(Offset(5), LeaderEpoch(1), first);
        log.append(Offset(7), LeaderEpoch(1), [(Offset(6), record(&[2]))]);
        assert_eq!(
            (log.voters(), log.voters_before()),
            (&set(&[2]), &set(&[1, 2]))
        );
        assert_eq!(log.voters_at(Offset(6)).1, Some(set(&[1, 2])));
        assert_eq!(log.voters_at(Offset(1)).1, None);
        log.truncate(Offset(6));
        assert_eq!(log.voters_offset(), Some(Offset(4)));
        let id = OffsetAndEpoch::new(6, 1);
        log.add_snapshot(id, 1);
        log.advance_start(id);
        assert_eq!(log.voters(), &set(&[1, 2]));
        log.truncate(Offset(6));
        assert_eq!(log.voters(), &set(&[1, 2]));
    }
}
