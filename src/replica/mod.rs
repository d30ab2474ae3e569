//! One partition's replica on this broker, as a pure state machine: who leads in which
//! term, which offsets the in-sync replicas have, and how far the high watermark stands.
//!
//! Called by `shard::partition`, which owns the log beside it; control goes back there
//! (an advanced high watermark wakes the partition's delayed operations). The authority
//! over leader and in-sync replicas is the replayed metadata log: [`Replica::on_assignment`].
//!
//! Under [`Durability::Fsync`] this replica counts with its *durable* end instead of its log
//! end, so the high watermark (and with it every acknowledgement and every read) stays below
//! what a power cut could take back. A follower's fetch offset counts for what that follower
//! is: an Ottla one under fsync has synced everything below it.
//!
//! Invariants (checked by [`Replica::invariants`] after each step):
//! - the high watermark never exceeds the log end and moves back only by truncation: not
//!   even when the durability is raised, from where on it waits for the disk;
//! - the durable end never exceeds the log end;
//! - a leader epoch never decreases.

use std::collections::BTreeMap;

use crate::base::{BrokerId, ErrorCode, LeaderEpoch, Offset};
use crate::config::Durability;

/// What the metadata log says about one partition (`PartitionRecord`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// In order of preference: the first is the preferred leader.
    pub replicas: Vec<BrokerId>,
    pub isr: Vec<BrokerId>,
    /// [`BrokerId::NONE`] while there is no leader.
    pub leader: BrokerId,
    pub leader_epoch: LeaderEpoch,
    /// Rises with every change of this assignment.
    pub partition_epoch: i32,
}

/// What a new assignment means for this replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Older than what is known already: nothing changed.
    Stale,
    /// Same term: only the replica sets changed.
    Unchanged,
    /// This replica leads a new term: its start is recorded in the leader epoch cache.
    BecameLeader { leader_epoch: LeaderEpoch },
    /// Another replica leads, or none: delayed operations end with NOT_LEADER_OR_FOLLOWER.
    NotLeader,
}

#[derive(Debug)]
pub struct Replica {
    me: BrokerId,
    assignment: Assignment,
    log_end: Offset,
    /// Everything below is on stable storage here.
    durable_end: Offset,
    durability: Durability,
    high_watermark: Offset,
    /// Log ends of the other replicas as their fetches told, while this replica leads.
    followers: BTreeMap<BrokerId, Offset>,
}

impl Replica {
    /// A replica without an assignment yet, of which nothing is known to be durable. The
    /// checkpointed high watermark may lie past the log end after an unclean stop; it is
    /// capped.
    pub fn new(me: BrokerId, checkpointed_high_watermark: Offset, log_end: Offset) -> Replica {
        Replica {
            me,
            assignment: Assignment {
                leader: BrokerId::NONE,
                leader_epoch: LeaderEpoch::UNKNOWN,
                partition_epoch: -1,
                ..Assignment::default()
            },
            log_end,
            durable_end: Offset(0),
            durability: Durability::Os,
            high_watermark: checkpointed_high_watermark.min(log_end),
            followers: BTreeMap::new(),
        }
    }

    pub fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.assignment.leader_epoch
    }

    pub fn is_leader(&self) -> bool {
        self.assignment.leader == self.me
    }

    /// Takes what the metadata log says. Older partition epochs are ignored
    /// (replication digest, section 1).
    pub fn on_assignment(&mut self, assignment: Assignment) -> Transition {
        if assignment.partition_epoch < self.assignment.partition_epoch
            || assignment.leader_epoch < self.assignment.leader_epoch
        {
            return Transition::Stale;
        }
        let new_term = assignment.leader_epoch > self.assignment.leader_epoch;
        self.assignment = assignment;
        if !new_term {
            self.maybe_advance_high_watermark();
            self.invariants();
            return Transition::Unchanged;
        }
        self.followers.clear();
        let transition = if self.is_leader() {
            self.maybe_advance_high_watermark();
            Transition::BecameLeader {
                leader_epoch: self.assignment.leader_epoch,
            }
        } else {
            Transition::NotLeader
        };
        self.invariants();
        transition
    }

    /// The local log grew to `log_end`. Returns whether the high watermark moved.
    pub fn on_append(&mut self, log_end: Offset) -> bool {
        assert!(log_end >= self.log_end, "an append can't shorten the log");
        self.log_end = log_end;
        let moved = self.maybe_advance_high_watermark();
        self.invariants();
        moved
    }

    /// Everything below `durable_end` is on stable storage. Returns whether the high
    /// watermark moved.
    pub fn on_durable(&mut self, durable_end: Offset) -> bool {
        self.durable_end = self.durable_end.max(durable_end);
        let moved = self.maybe_advance_high_watermark();
        self.invariants();
        moved
    }

    /// Whether the high watermark waits for the disk from now on. Returns whether it moved.
    pub fn set_durability(&mut self, durability: Durability) -> bool {
        self.durability = durability;
        let moved = self.maybe_advance_high_watermark();
        self.invariants();
        moved
    }

    /// The local log was cut to `log_end`.
    pub fn on_truncate(&mut self, log_end: Offset) {
        self.log_end = log_end;
        self.durable_end = self.durable_end.min(log_end);
        self.high_watermark = self.high_watermark.min(log_end);
        self.invariants();
    }

    /// The log now begins at `log_start`, possibly past the known high watermark.
    pub fn on_log_start(&mut self, log_start: Offset) -> bool {
        let moved = log_start > self.high_watermark && log_start <= self.log_end;
        if moved {
            self.high_watermark = log_start;
        }
        self.invariants();
        moved
    }

    /// A follower fetched from `fetch_offset`: everything below it has arrived there.
    /// Returns whether the high watermark moved.
    pub fn on_follower_fetch(&mut self, follower: BrokerId, fetch_offset: Offset) -> bool {
        self.followers.insert(follower, fetch_offset);
        let moved = self.maybe_advance_high_watermark();
        self.invariants();
        moved
    }

    /// Whether a request that names `current_leader_epoch` (-1: any) may use this replica
    /// as the leader. Errors: NOT_LEADER_OR_FOLLOWER, FENCED_LEADER_EPOCH for an older
    /// epoch, UNKNOWN_LEADER_EPOCH for a newer one (KIP-320).
    pub fn check_leader(&self, current_leader_epoch: LeaderEpoch) -> Result<(), ErrorCode> {
        if current_leader_epoch != LeaderEpoch::UNKNOWN {
            if current_leader_epoch < self.assignment.leader_epoch {
                return Err(ErrorCode::FENCED_LEADER_EPOCH);
            }
            if current_leader_epoch > self.assignment.leader_epoch {
                return Err(ErrorCode::UNKNOWN_LEADER_EPOCH);
            }
        }
        if self.is_leader() {
            Ok(())
        } else {
            Err(ErrorCode::NOT_LEADER_OR_FOLLOWER)
        }
    }

    /// Whether enough replicas are in sync for `acks=all` with this `min.insync.replicas`
    /// (capped by the number of replicas).
    pub fn has_enough_in_sync(&self, min_insync_replicas: i32) -> bool {
        let required = usize::try_from(min_insync_replicas)
            .unwrap_or(0)
            .min(self.assignment.replicas.len());
        self.assignment.isr.len() >= required
    }

    /// What all other in-sync replicas have, as far as this leader knows.
    pub fn replicated_end(&self) -> Offset {
        let others = self.assignment.isr.iter().filter(|id| **id != self.me);
        others
            .map(|id| self.followers.get(id).copied().unwrap_or(Offset(0)))
            .min()
            .map_or(self.log_end, |behind| behind.min(self.log_end))
    }

    fn maybe_advance_high_watermark(&mut self) -> bool {
        if !self.is_leader() {
            return false;
        }
        let own_end = match self.durability {
            Durability::Os => self.log_end,
            Durability::Fsync => self.durable_end,
        };
        let candidate = self.replicated_end().min(own_end);
        let moved = candidate > self.high_watermark;
        if moved {
            self.high_watermark = candidate;
        }
        moved
    }

    pub fn invariants(&self) {
        assert!(
            self.high_watermark <= self.log_end,
            "high watermark {} past the log end {}",
            self.high_watermark,
            self.log_end
        );
        assert!(
            self.durable_end <= self.log_end,
            "durable up to {}, past the log end {}",
            self.durable_end,
            self.log_end
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: BrokerId = BrokerId(1);
    const OTHER: BrokerId = BrokerId(2);

    fn assignment(leader: BrokerId, isr: &[BrokerId], epoch: i32) -> Assignment {
        Assignment {
            replicas: vec![ME, OTHER],
            isr: isr.to_vec(),
            leader,
            leader_epoch: LeaderEpoch(epoch),
            partition_epoch: epoch,
        }
    }

    #[test]
    fn alone_in_sync_the_high_watermark_follows_the_log_end() {
        let mut replica = Replica::new(ME, Offset(3), Offset(5));
        assert_eq!(
            replica.on_assignment(assignment(ME, &[ME], 0)),
            Transition::BecameLeader {
                leader_epoch: LeaderEpoch(0)
            }
        );
        assert_eq!(replica.high_watermark(), Offset(5));
        assert!(replica.on_append(Offset(8)));
        assert_eq!(replica.high_watermark(), Offset(8));
    }

    #[test]
    fn an_in_sync_follower_holds_the_high_watermark_back() {
        let mut replica = Replica::new(ME, Offset(0), Offset(0));
        replica.on_assignment(assignment(ME, &[ME, OTHER], 0));
        assert!(!replica.on_append(Offset(10)));
        assert_eq!(replica.high_watermark(), Offset(0));
        assert!(replica.on_follower_fetch(OTHER, Offset(4)));
        assert_eq!(replica.high_watermark(), Offset(4));
        assert!(replica.on_follower_fetch(OTHER, Offset(10)));
        assert_eq!(replica.high_watermark(), Offset(10));
    }

    #[test]
    fn under_fsync_the_high_watermark_follows_the_durable_end() {
        let mut replica = Replica::new(ME, Offset(0), Offset(5));
        replica.set_durability(Durability::Fsync);
        assert!(!replica.on_durable(Offset(4)), "it doesn't lead yet");
        replica.on_assignment(assignment(ME, &[ME], 0));
        assert_eq!(replica.high_watermark(), Offset(4));
        assert!(!replica.on_append(Offset(10)));
        assert_eq!(replica.high_watermark(), Offset(4));
        assert!(replica.on_durable(Offset(7)));
        assert!(!replica.on_durable(Offset(6)), "what is durable stays so");
        assert_eq!(replica.high_watermark(), Offset(7));
    }

    #[test]
    fn under_fsync_the_slower_of_disk_and_follower_counts() {
        let mut replica = Replica::new(ME, Offset(0), Offset(0));
        replica.set_durability(Durability::Fsync);
        replica.on_assignment(assignment(ME, &[ME, OTHER], 0));
        replica.on_append(Offset(10));
        assert!(!replica.on_follower_fetch(OTHER, Offset(8)));
        assert_eq!(replica.replicated_end(), Offset(8));
        assert!(replica.on_durable(Offset(6)));
        assert_eq!(replica.high_watermark(), Offset(6));
        assert!(replica.on_durable(Offset(10)));
        assert_eq!(replica.high_watermark(), Offset(8));
    }

    #[test]
    fn a_higher_durability_moves_no_high_watermark_back() {
        let mut replica = Replica::new(ME, Offset(0), Offset(0));
        replica.on_assignment(assignment(ME, &[ME], 0));
        replica.on_append(Offset(10));
        assert!(!replica.set_durability(Durability::Fsync));
        assert_eq!(replica.high_watermark(), Offset(10));
        assert!(!replica.on_append(Offset(12)), "new data waits");
        assert!(!replica.on_durable(Offset(9)));
        assert_eq!(replica.high_watermark(), Offset(10));
        assert!(replica.on_durable(Offset(11)));
        assert_eq!(replica.high_watermark(), Offset(11));
        assert!(replica.set_durability(Durability::Os));
        assert_eq!(replica.high_watermark(), Offset(12));
    }

    #[test]
    fn what_is_cut_off_is_durable_no_more() {
        let mut replica = Replica::new(ME, Offset(0), Offset(10));
        replica.set_durability(Durability::Fsync);
        replica.on_durable(Offset(10));
        replica.on_truncate(Offset(4));
        replica.on_assignment(assignment(ME, &[ME], 0));
        replica.on_append(Offset(8));
        assert_eq!(replica.high_watermark(), Offset(4));
    }

    #[test]
    fn epochs_fence_in_both_directions() {
        let mut replica = Replica::new(ME, Offset(0), Offset(0));
        replica.on_assignment(assignment(ME, &[ME], 3));
        assert_eq!(replica.check_leader(LeaderEpoch::UNKNOWN), Ok(()));
        assert_eq!(replica.check_leader(LeaderEpoch(3)), Ok(()));
        assert_eq!(
            replica.check_leader(LeaderEpoch(2)),
            Err(ErrorCode::FENCED_LEADER_EPOCH)
        );
        assert_eq!(
            replica.check_leader(LeaderEpoch(4)),
            Err(ErrorCode::UNKNOWN_LEADER_EPOCH)
        );
        assert_eq!(
            replica.on_assignment(assignment(OTHER, &[OTHER], 4)),
            Transition::NotLeader
        );
        assert_eq!(
            replica.check_leader(LeaderEpoch(4)),
            Err(ErrorCode::NOT_LEADER_OR_FOLLOWER)
        );
        assert_eq!(
            replica.on_assignment(assignment(ME, &[ME], 3)),
            Transition::Stale
        );
    }

    #[test]
    fn a_checkpoint_past_the_log_end_is_capped() {
        let replica = Replica::new(ME, Offset(9), Offset(5));
        assert_eq!(replica.high_watermark(), Offset(5));
    }

    #[test]
    fn min_insync_replicas_is_capped_by_the_replica_count() {
        let mut replica = Replica::new(ME, Offset(0), Offset(0));
        replica.on_assignment(assignment(ME, &[ME], 0));
        assert!(replica.has_enough_in_sync(1));
        assert!(!replica.has_enough_in_sync(2));
        replica.on_assignment(assignment(ME, &[ME, OTHER], 1));
        assert!(replica.has_enough_in_sync(5));
    }
}
