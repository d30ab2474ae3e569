//! What must hold, looked at as events run: across nodes, and beyond what a node can know.

use std::collections::BTreeMap;

use ottla::base::{BrokerId, LeaderEpoch, Offset};
use ottla::raft::ReplicaKey;

use crate::disk::{Batch, Image, hash};

#[derive(Debug, Default)]
pub struct Checks {
    /// Who leads each epoch.
    leaders: BTreeMap<LeaderEpoch, BrokerId>,
    /// Whom each replica gave its vote, its own among them.
    votes: BTreeMap<(ReplicaKey, LeaderEpoch), BrokerId>,
    /// Every batch that was ever appended, by its place.
    written: BTreeMap<(Offset, LeaderEpoch), u64>,
    /// Batches that some node knows to be committed, by their ends.
    committed: BTreeMap<Offset, (Batch, u64)>,
    committed_end: Offset,
}

impl Checks {
    pub fn elections(&self) -> usize {
        self.leaders.len()
    }

    pub fn committed_end(&self) -> Offset {
        self.committed_end
    }

    pub fn on_leader(&mut self, epoch: LeaderEpoch, id: BrokerId, log: &Image) {
        let leader = *self.leaders.entry(epoch).or_insert(id);
        assert_eq!(leader, id, "two leaders of epoch {epoch}");
        // Whoever leads has all that was ever committed.
        assert!(
            log.end() >= self.committed_end,
            "leader {id} of epoch {epoch} ends at {}, committed is {}",
            log.end(),
            self.committed_end
        );
        for batch in &log.batches {
            self.check_committed(batch);
        }
    }

    pub fn on_vote(&mut self, voter: ReplicaKey, epoch: LeaderEpoch, candidate: BrokerId) {
        let voted = *self.votes.entry((voter, epoch)).or_insert(candidate);
        assert_eq!(voted, candidate, "{voter:?} voted twice in epoch {epoch}");
    }

    pub fn on_append(&mut self, batch: &Batch) {
        let place = (batch.base, batch.epoch);
        let written = *self.written.entry(place).or_insert(batch.hash);
        assert_eq!(written, batch.hash, "two batches at {place:?}");
    }

    /// A batch that a node may have cut off; committed ones are never.
    fn check_committed(&self, batch: &Batch) {
        if batch.end > self.committed_end {
            return;
        }
        let known = self.committed.get(&batch.end);
        let (known, _) = known.unwrap_or_else(|| panic!("no batch ends at {}", batch.end));
        assert_eq!(
            (known.base, known.epoch, known.hash),
            (batch.base, batch.epoch, batch.hash),
            "a committed batch changed"
        );
    }

    /// A node that applied everything up to `state` goes on to `to`; the state there.
    pub fn on_committed(&mut self, log: &Image, mut state: State, to: Offset) -> State {
        for batch in &log.batches {
            if batch.end <= state.offset || batch.base >= to {
                continue;
            }
            assert_eq!(batch.base, state.offset, "no gap in what is applied");
            assert!(batch.end <= to, "the high watermark lies between batches");
            let chained = hash(state.hash, &batch.hash.to_be_bytes());
            if batch.end <= self.committed_end {
                self.check_committed(batch);
            } else {
                assert_eq!(batch.base, self.committed_end, "committed in order");
                self.committed_end = batch.end;
                self.committed.insert(batch.end, (batch.clone(), chained));
            }
            state = State {
                offset: batch.end,
                hash: chained,
                epoch: batch.epoch,
            };
            self.check_state(state);
        }
        assert_eq!(state.offset, to, "all that is committed is there");
        state
    }

    /// Whether a state machine is what its records make it.
    pub fn check_state(&self, state: State) {
        if let Some((batch, hash)) = self.committed.get(&state.offset) {
            assert_eq!((*hash, batch.epoch), (state.hash, state.epoch));
        } else {
            assert_eq!(state, State::default(), "a state that nothing led to");
        }
    }

    /// Of a log: everything committed that it holds is as it was.
    pub fn check_log(&self, log: &Image) {
        log.batches
            .iter()
            .for_each(|batch| self.check_committed(batch));
    }
}

/// What a node's state machine made of the records below an offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub offset: Offset,
    pub hash: u64,
    /// Of the last record.
    pub epoch: LeaderEpoch,
}
