//! One partition's replica on this broker, as a pure state machine: who leads in which
//! term, which offsets the in-sync replicas have, and how far the high watermark stands.
//!
//! ```text
//!   metadata ─▶ on_assignment ─┬─▶ Leader: followers' progress, ISR changes, high watermark
//!                              ├─▶ Follower: from whom it fetches, where its log leaves theirs
//!                              └─▶ neither, while nobody leads
//! ```
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
//! - a leader's high watermark moves only to where each member of the ISR is, of the committed
//!   one and of one that may come into force;
//! - the durable end never exceeds the log end;
//! - a leader epoch never decreases.

pub mod follower;
pub mod isr;
pub mod leader;
pub mod progress;

use std::time::Duration;

use crate::base::{BrokerId, ErrorCode, LeaderEpoch, Nanos, Offset};
use crate::config::Durability;
use follower::Follower;
use isr::{Answer, Proposal, Settled};
use leader::{Leader, Registration, View};
use progress::FollowerFetch;

/// Kafka's `replica.lag.time.max.ms` where nothing else is said.
const LAG_MAX: Duration = Duration::from_secs(30);

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
    /// Another replica leads a new term: delayed operations end with NOT_LEADER_OR_FOLLOWER.
    BecameFollower {
        leader: BrokerId,
        leader_epoch: LeaderEpoch,
    },
    /// Nobody leads, in a new term.
    NoLeader,
}

/// What this replica is in its term.
#[derive(Debug)]
pub enum Role {
    Leader(Leader),
    Follower(Follower),
    /// Nobody leads, or nothing is known yet.
    None,
}

/// What a step of a leader leads to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// The high watermark moved.
    pub has_moved: bool,
    /// To be sent to the controller.
    pub proposal: Option<Proposal>,
}

#[derive(Debug)]
pub struct Replica {
    state: State,
    role: Role,
}

#[derive(Debug)]
struct State {
    me: BrokerId,
    assignment: Assignment,
    log_end: Offset,
    /// Everything below is on stable storage here.
    durable_end: Offset,
    durability: Durability,
    high_watermark: Offset,
    min_insync_replicas: i32,
    lag_max: Duration,
}

impl State {
    fn view(&self) -> View<'_> {
        View {
            me: self.me,
            assignment: &self.assignment,
            log_end: self.log_end,
            high_watermark: self.high_watermark,
            min_insync_replicas: self.min_insync_replicas,
            lag_max: self.lag_max,
        }
    }

    /// The end with which this replica counts.
    fn own_end(&self) -> Offset {
        match self.durability {
            Durability::Os => self.log_end,
            Durability::Fsync => self.durable_end,
        }
    }
}

impl Replica {
    /// A replica without an assignment yet, of which nothing is known to be durable. The
    /// checkpointed high watermark may lie past the log end after an unclean stop; it is
    /// capped.
    pub fn new(me: BrokerId, checkpointed_high_watermark: Offset, log_end: Offset) -> Replica {
        let state = State {
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
            min_insync_replicas: 1,
            lag_max: LAG_MAX,
        };
        let role = Role::None;
        Replica { state, role }
    }

    /// With another `replica.lag.time.max.ms`.
    pub fn with_lag_max(mut self, lag_max: Duration) -> Replica {
        self.state.lag_max = lag_max;
        self
    }

    pub fn me(&self) -> BrokerId {
        self.state.me
    }

    pub fn assignment(&self) -> &Assignment {
        &self.state.assignment
    }

    pub fn high_watermark(&self) -> Offset {
        self.state.high_watermark
    }

    pub fn log_end(&self) -> Offset {
        self.state.log_end
    }

    pub fn durable_end(&self) -> Offset {
        self.state.durable_end
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.state.assignment.leader_epoch
    }

    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    pub fn leader(&self) -> Option<&Leader> {
        match &self.role {
            Role::Leader(leader) => Some(leader),
            Role::Follower(_) | Role::None => None,
        }
    }

    pub fn follower(&self) -> Option<&Follower> {
        match &self.role {
            Role::Follower(follower) => Some(follower),
            Role::Leader(_) | Role::None => None,
        }
    }

    pub fn follower_mut(&mut self) -> Option<&mut Follower> {
        match &mut self.role {
            Role::Follower(follower) => Some(follower),
            Role::Leader(_) | Role::None => None,
        }
    }

    /// Takes what the metadata log says. Older partition epochs are ignored
    /// (replication digest, section 1).
    pub fn on_assignment(&mut self, assignment: Assignment, now: Nanos) -> Transition {
        let known = &self.state.assignment;
        if assignment.partition_epoch < known.partition_epoch
            || assignment.leader_epoch < known.leader_epoch
        {
            return Transition::Stale;
        }
        let is_new_term = assignment.leader_epoch > known.leader_epoch;
        self.state.assignment = assignment;
        let transition = if is_new_term {
            self.begin_term(now)
        } else {
            if let Role::Leader(leader) = &mut self.role {
                leader.on_assignment(&self.state.view(), now);
            }
            Transition::Unchanged
        };
        self.maybe_advance();
        self.invariants();
        transition
    }

    fn begin_term(&mut self, now: Nanos) -> Transition {
        let Assignment {
            leader,
            leader_epoch,
            ..
        } = self.state.assignment;
        if leader == self.state.me {
            self.role = Role::Leader(Leader::new(&self.state.view(), now));
            Transition::BecameLeader { leader_epoch }
        } else if leader == BrokerId::NONE {
            self.role = Role::None;
            Transition::NoLeader
        } else {
            self.role = Role::Follower(Follower::new(leader, leader_epoch));
            Transition::BecameFollower {
                leader,
                leader_epoch,
            }
        }
    }

    /// What the metadata says about brokers; a leader asks for its followers. Returns whether
    /// the high watermark moved.
    pub fn on_brokers(&mut self, find: &dyn Fn(BrokerId) -> Option<Registration>) -> bool {
        if let Role::Leader(leader) = &mut self.role {
            leader.on_brokers(find);
        }
        self.step()
    }

    /// The local log grew to `log_end`. Returns whether the high watermark moved.
    pub fn on_append(&mut self, log_end: Offset) -> bool {
        assert!(
            log_end >= self.state.log_end,
            "an append can't shorten the log"
        );
        self.state.log_end = log_end;
        self.step()
    }

    /// Everything below `durable_end` is on stable storage. Returns whether the high
    /// watermark moved.
    pub fn on_durable(&mut self, durable_end: Offset) -> bool {
        self.state.durable_end = self.state.durable_end.max(durable_end);
        self.step()
    }

    /// Whether the high watermark waits for the disk from now on. Returns whether it moved.
    pub fn set_durability(&mut self, durability: Durability) -> bool {
        self.state.durability = durability;
        self.step()
    }

    /// The topic's `min.insync.replicas`. Returns whether the high watermark moved.
    pub fn set_min_insync_replicas(&mut self, min_insync_replicas: i32) -> bool {
        self.state.min_insync_replicas = min_insync_replicas;
        self.step()
    }

    /// The local log was cut to `log_end`.
    pub fn on_truncate(&mut self, log_end: Offset) {
        let state = &mut self.state;
        state.log_end = log_end;
        state.durable_end = state.durable_end.min(log_end);
        state.high_watermark = state.high_watermark.min(log_end);
        self.invariants();
    }

    /// A follower has given up its whole log, which the leader's begins after: it starts
    /// again, empty, at `offset`.
    pub fn restart_at(&mut self, offset: Offset) {
        assert!(!self.is_leader(), "a leader keeps its log");
        let state = &mut self.state;
        state.log_end = offset;
        state.durable_end = offset;
        state.high_watermark = offset;
        self.invariants();
    }

    /// The log now begins at `log_start`, possibly past the known high watermark.
    pub fn on_log_start(&mut self, log_start: Offset) -> bool {
        let state = &mut self.state;
        let has_moved = log_start > state.high_watermark && log_start <= state.log_end;
        if has_moved {
            state.high_watermark = log_start;
        }
        self.invariants();
        has_moved
    }

    /// A follower hears from its leader. Returns whether the high watermark moved, which under
    /// fsync waits for the disk here as well.
    pub fn on_leader_high_watermark(&mut self, high_watermark: Offset) -> bool {
        let state = &mut self.state;
        let candidate = high_watermark.min(state.own_end());
        let has_moved = !matches!(self.role, Role::Leader(_)) && candidate > state.high_watermark;
        if has_moved {
            state.high_watermark = candidate;
        }
        self.invariants();
        has_moved
    }

    /// Whether a broker may fetch from here as a follower; see [`Leader::check_follower`].
    pub fn check_follower(
        &self,
        id: BrokerId,
        broker_epoch: i64,
        knows_term: bool,
    ) -> Result<(), ErrorCode> {
        let leader = self.leader().ok_or(ErrorCode::NOT_LEADER_OR_FOLLOWER)?;
        leader.check_follower(id, broker_epoch, knows_term)
    }

    /// A follower, which was checked, fetches: everything below has arrived there.
    pub fn on_follower_fetch(&mut self, follower: BrokerId, fetch: &FollowerFetch) -> Effects {
        let Role::Leader(leader) = &mut self.role else {
            return Effects::default();
        };
        leader.on_fetch(follower, fetch, self.state.log_end);
        // Proposed first, since who is proposed counts.
        let proposal = leader.maybe_expand(&self.state.view(), follower);
        Effects {
            has_moved: self.step(),
            proposal,
        }
    }

    /// Comes every half `replica.lag.time.max.ms`: who hasn't kept up is to leave the ISR.
    pub fn on_tick(&mut self, now: Nanos) -> Effects {
        let Role::Leader(leader) = &mut self.role else {
            return Effects::default();
        };
        leader.on_time(now);
        let proposal = leader.maybe_shrink(&self.state.view());
        Effects {
            has_moved: self.step(),
            proposal,
        }
    }

    /// The controller's word on a proposal. Returns what it meant, and whether the high
    /// watermark moved.
    pub fn on_isr_answer(&mut self, answer: Answer) -> (Settled, bool) {
        let Role::Leader(leader) = &mut self.role else {
            return (Settled::Stale, false);
        };
        let settled = leader.on_answer(answer);
        if let Settled::Committed {
            isr,
            partition_epoch,
        } = &settled
        {
            self.state.assignment.isr.clone_from(isr);
            self.state.assignment.partition_epoch = *partition_epoch;
        }
        (settled, self.step())
    }

    /// Whether a request that names `current_leader_epoch` (-1: any) may use this replica
    /// as the leader. Errors: NOT_LEADER_OR_FOLLOWER, FENCED_LEADER_EPOCH for an older
    /// epoch, UNKNOWN_LEADER_EPOCH for a newer one (KIP-320).
    pub fn check_leader(&self, current_leader_epoch: LeaderEpoch) -> Result<(), ErrorCode> {
        if current_leader_epoch != LeaderEpoch::UNKNOWN {
            if current_leader_epoch < self.leader_epoch() {
                return Err(ErrorCode::FENCED_LEADER_EPOCH);
            }
            if current_leader_epoch > self.leader_epoch() {
                return Err(ErrorCode::UNKNOWN_LEADER_EPOCH);
            }
        }
        if self.is_leader() {
            Ok(())
        } else {
            Err(ErrorCode::NOT_LEADER_OR_FOLLOWER)
        }
    }

    /// Whether as many are in sync as have to be for an append with `acks=all`
    /// (`min.insync.replicas`, capped by the number of replicas).
    pub fn may_append(&self) -> bool {
        let leader = self.leader();
        leader.is_some_and(|leader| leader.may_append(&self.state.view()))
    }

    /// The same for the acknowledgement of what was appended.
    pub fn may_acknowledge(&self) -> bool {
        let leader = self.leader();
        leader.is_some_and(|leader| leader.may_acknowledge(&self.state.view()))
    }

    /// What all other in-sync replicas have, as far as this leader knows.
    pub fn replicated_end(&self) -> Offset {
        let leader = self.leader();
        leader.map_or(self.state.log_end, |leader| {
            leader.replicated_end(&self.state.view())
        })
    }

    /// The least start of the logs of all live replicas, of which this one begins at
    /// `log_start`.
    pub fn low_watermark(&self, log_start: Offset) -> Offset {
        let leader = self.leader();
        leader.map_or(log_start, |leader| leader.low_watermark(log_start))
    }

    /// Whether a new leader may not know yet how far its predecessors had committed: then the
    /// end that consumers may read to would seem to go back (KIP-207).
    pub fn is_high_watermark_behind_term(&self) -> bool {
        let leader = self.leader();
        leader.is_some_and(|leader| self.high_watermark() < leader.epoch_start())
    }

    fn step(&mut self) -> bool {
        let has_moved = self.maybe_advance();
        self.invariants();
        has_moved
    }

    fn maybe_advance(&mut self) -> bool {
        let Role::Leader(leader) = &self.role else {
            return false;
        };
        let state = &mut self.state;
        let candidate = leader.high_watermark(&state.view(), state.own_end());
        let has_moved = candidate.is_some_and(|candidate| candidate > state.high_watermark);
        if let Some(candidate) = candidate.filter(|_| has_moved) {
            state.high_watermark = candidate;
        }
        has_moved
    }

    pub fn invariants(&self) {
        let State {
            high_watermark,
            log_end,
            durable_end,
            ..
        } = self.state;
        assert!(
            high_watermark <= log_end,
            "high watermark {high_watermark} past the log end {log_end}"
        );
        assert!(
            durable_end <= log_end,
            "durable up to {durable_end}, past the log end {log_end}"
        );
        if let Role::Leader(leader) = &self.role {
            leader.invariants(&self.state.view());
        }
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

    fn on_assignment(replica: &mut Replica, assignment: Assignment) -> Transition {
        replica.on_assignment(assignment, Nanos(0))
    }

    /// The other replica fetches, registered and all.
    fn fetch(replica: &mut Replica, offset: i64) -> Effects {
        fetch_at(replica, offset, 0)
    }

    fn fetch_at(replica: &mut Replica, offset: i64, now: u64) -> Effects {
        let fetch = FollowerFetch {
            offset: Offset(offset),
            log_start: Offset(0),
            broker_epoch: 7,
            now: Nanos(now),
        };
        replica.on_follower_fetch(OTHER, &fetch)
    }

    fn register(replica: &mut Replica, epoch: i64, is_active: bool) -> bool {
        replica.on_brokers(&|_| Some(Registration { epoch, is_active }))
    }

    #[test]
    fn alone_in_sync_the_high_watermark_follows_the_log_end() {
        let mut replica = Replica::new(ME, Offset(3), Offset(5));
        assert_eq!(
            on_assignment(&mut replica, assignment(ME, &[ME], 0)),
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
        on_assignment(&mut replica, assignment(ME, &[ME, OTHER], 0));
        assert!(!replica.on_append(Offset(10)));
        assert_eq!(replica.high_watermark(), Offset(0));
        assert!(fetch(&mut replica, 4).has_moved);
        assert_eq!(replica.high_watermark(), Offset(4));
        assert!(fetch(&mut replica, 10).has_moved);
        assert_eq!(replica.high_watermark(), Offset(10));
    }

    #[test]
    fn under_fsync_the_high_watermark_follows_the_durable_end() {
        let mut replica = Replica::new(ME, Offset(0), Offset(5));
        replica.set_durability(Durability::Fsync);
        assert!(!replica.on_durable(Offset(4)), "it doesn't lead yet");
        on_assignment(&mut replica, assignment(ME, &[ME], 0));
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
        on_assignment(&mut replica, assignment(ME, &[ME, OTHER], 0));
        replica.on_append(Offset(10));
        assert!(!fetch(&mut replica, 8).has_moved);
        assert_eq!(replica.replicated_end(), Offset(8));
        assert!(replica.on_durable(Offset(6)));
        assert_eq!(replica.high_watermark(), Offset(6));
        assert!(replica.on_durable(Offset(10)));
        assert_eq!(replica.high_watermark(), Offset(8));
    }

    #[test]
    fn a_higher_durability_moves_no_high_watermark_back() {
        let mut replica = Replica::new(ME, Offset(0), Offset(0));
        on_assignment(&mut replica, assignment(ME, &[ME], 0));
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
        on_assignment(&mut replica, assignment(ME, &[ME], 0));
        replica.on_append(Offset(8));
        assert_eq!(replica.high_watermark(), Offset(4));
    }

    #[test]
    fn epochs_fence_in_both_directions() {
        let mut replica = Replica::new(ME, Offset(0), Offset(0));
        on_assignment(&mut replica, assignment(ME, &[ME], 3));
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
            on_assignment(&mut replica, assignment(OTHER, &[OTHER], 4)),
            Transition::BecameFollower {
                leader: OTHER,
                leader_epoch: LeaderEpoch(4)
            }
        );
        assert_eq!(
            replica.check_leader(LeaderEpoch(4)),
            Err(ErrorCode::NOT_LEADER_OR_FOLLOWER)
        );
        assert_eq!(
            on_assignment(&mut replica, assignment(ME, &[ME], 3)),
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
        on_assignment(&mut replica, assignment(ME, &[ME], 0));
        assert!(replica.may_append());
        replica.set_min_insync_replicas(2);
        assert!(!replica.may_append());
        on_assignment(&mut replica, assignment(ME, &[ME, OTHER], 1));
        replica.set_min_insync_replicas(5);
        assert!(replica.may_append());
    }

    #[test]
    fn nothing_is_committed_while_too_few_are_in_sync() {
        let mut replica = Replica::new(ME, Offset(0), Offset(0));
        replica.set_min_insync_replicas(2);
        on_assignment(&mut replica, assignment(ME, &[ME, OTHER], 0));
        replica.on_append(Offset(10));
        fetch(&mut replica, 4);
        assert_eq!(replica.high_watermark(), Offset(4));
        // The same term, the other one has left.
        let shrunk = Assignment {
            partition_epoch: 1,
            ..assignment(ME, &[ME], 0)
        };
        on_assignment(&mut replica, shrunk);
        assert!(!replica.on_append(Offset(11)));
        assert_eq!(replica.high_watermark(), Offset(4));
        assert!(
            replica.set_min_insync_replicas(1),
            "it was all that held it"
        );
        assert_eq!(replica.high_watermark(), Offset(11));
    }

    #[test]
    fn a_follower_joins_when_it_has_what_is_committed_and_the_terms_start() {
        let mut replica = Replica::new(ME, Offset(0), Offset(6));
        on_assignment(&mut replica, assignment(ME, &[ME], 2));
        replica.on_append(Offset(10));
        assert_eq!(replica.high_watermark(), Offset(10));
        assert_eq!(fetch(&mut replica, 10).proposal, None, "nobody knows it");
        register(&mut replica, 7, false);
        assert_eq!(fetch(&mut replica, 10).proposal, None, "it is fenced");
        register(&mut replica, 8, true);
        assert_eq!(fetch(&mut replica, 10).proposal, None, "another life of it");
        register(&mut replica, 7, true);
        assert_eq!(fetch(&mut replica, 9).proposal, None, "it lacks a record");
        let proposal = fetch(&mut replica, 10).proposal;
        let expected = Proposal {
            leader_epoch: LeaderEpoch(2),
            partition_epoch: 2,
            isr: vec![(ME, -1), (OTHER, 7)],
        };
        assert_eq!(proposal, Some(expected));
        // It counts from now on, though only one is committed.
        assert!(!replica.on_append(Offset(12)));
        assert_eq!(replica.replicated_end(), Offset(10));
        assert_eq!(fetch(&mut replica, 11).proposal, None, "one at a time");
        assert_eq!(replica.high_watermark(), Offset(11));
        let accepted = isr::Accepted {
            leader_epoch: LeaderEpoch(2),
            partition_epoch: 3,
            isr: vec![ME, OTHER],
        };
        let (settled, _) = replica.on_isr_answer(Answer {
            leader_epoch: LeaderEpoch(2),
            partition_epoch: 2,
            result: Ok(accepted),
        });
        assert!(matches!(settled, Settled::Committed { .. }));
        assert_eq!(replica.assignment().isr, [ME, OTHER]);
        assert_eq!(replica.assignment().partition_epoch, 3);
    }

    #[test]
    fn before_it_has_the_terms_start_a_follower_does_not_join() {
        // Ends at 6 when the term begins, of which only 2 are known to be committed.
        let mut replica = Replica::new(ME, Offset(2), Offset(6));
        replica.set_min_insync_replicas(2);
        on_assignment(&mut replica, assignment(ME, &[ME], 2));
        register(&mut replica, 7, true);
        assert!(replica.is_high_watermark_behind_term());
        assert_eq!(fetch(&mut replica, 5).proposal, None);
        assert!(fetch(&mut replica, 6).proposal.is_some());
    }

    #[test]
    fn one_that_does_not_keep_up_leaves_and_holds_nothing_back_afterwards() {
        let second = |seconds: u64| seconds * 1_000_000_000;
        let mut replica =
            Replica::new(ME, Offset(0), Offset(0)).with_lag_max(Duration::from_secs(10));
        on_assignment(&mut replica, assignment(ME, &[ME, OTHER], 0));
        register(&mut replica, 7, true);
        replica.on_append(Offset(5));
        fetch_at(&mut replica, 5, second(18));
        let later = |seconds| Nanos(second(seconds));
        assert_eq!(replica.on_tick(later(20)).proposal, None, "it has all");
        replica.on_append(Offset(6));
        assert_eq!(replica.on_tick(later(28)).proposal, None);
        let effects = replica.on_tick(later(29));
        let proposal = effects.proposal.expect("it has fallen behind");
        assert_eq!(proposal.isr, [(ME, -1)]);
        assert_eq!(replica.on_tick(later(40)).proposal, None, "one at a time");
        assert_eq!(replica.high_watermark(), Offset(5), "not yet committed");
        let shrunk = Assignment {
            partition_epoch: 1,
            ..assignment(ME, &[ME], 0)
        };
        assert_eq!(on_assignment(&mut replica, shrunk), Transition::Unchanged);
        assert_eq!(replica.high_watermark(), Offset(6));
        // It comes back: caught up, it is waited for even before it is proposed.
        let effects = fetch_at(&mut replica, 6, second(41));
        assert!(effects.proposal.is_some());
        assert!(!replica.on_append(Offset(7)));
    }

    #[test]
    fn who_is_no_replica_or_of_an_earlier_life_is_refused() {
        let mut replica = Replica::new(ME, Offset(0), Offset(0));
        let not_leader = Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        assert_eq!(replica.check_follower(OTHER, 7, true), not_leader);
        on_assignment(&mut replica, assignment(ME, &[ME], 0));
        register(&mut replica, 7, true);
        assert_eq!(replica.check_follower(OTHER, 7, true), Ok(()));
        assert_eq!(replica.check_follower(OTHER, -1, true), Ok(()));
        assert_eq!(replica.check_follower(OTHER, 8, true), Ok(()));
        assert_eq!(replica.check_follower(OTHER, 6, true), not_leader);
        let stranger = BrokerId(9);
        assert_eq!(
            replica.check_follower(stranger, 7, true),
            Err(ErrorCode::UNKNOWN_LEADER_EPOCH)
        );
        assert_eq!(replica.check_follower(stranger, 7, false), not_leader);
    }

    #[test]
    fn a_new_term_knows_nothing_of_followers() {
        let mut replica = Replica::new(ME, Offset(0), Offset(0));
        on_assignment(&mut replica, assignment(ME, &[ME, OTHER], 0));
        replica.on_append(Offset(9));
        fetch(&mut replica, 5);
        on_assignment(&mut replica, assignment(ME, &[ME, OTHER], 1));
        assert_eq!(replica.replicated_end(), Offset::UNKNOWN);
        assert!(!replica.on_append(Offset(10)));
        assert_eq!(replica.high_watermark(), Offset(5));
    }

    #[test]
    fn a_follower_hears_of_the_high_watermark() {
        let mut replica = Replica::new(ME, Offset(0), Offset(5));
        on_assignment(&mut replica, assignment(OTHER, &[ME, OTHER], 0));
        assert_eq!(replica.follower().expect("it is one").leader(), OTHER);
        assert!(!replica.on_append(Offset(8)), "it isn't for it to say");
        assert!(replica.on_leader_high_watermark(Offset(6)));
        assert!(!replica.on_leader_high_watermark(Offset(4)));
        assert!(replica.on_leader_high_watermark(Offset(20)));
        assert_eq!(replica.high_watermark(), Offset(8));
        replica.on_truncate(Offset(7));
        assert_eq!(replica.high_watermark(), Offset(7));
        replica.restart_at(Offset(40));
        assert_eq!(replica.log_end(), Offset(40));
        assert_eq!(replica.high_watermark(), Offset(40));
        on_assignment(&mut replica, assignment(ME, &[ME], 1));
        assert!(!replica.on_leader_high_watermark(Offset(50)), "it leads");
        assert_eq!(
            on_assignment(&mut replica, assignment(BrokerId::NONE, &[ME], 2)),
            Transition::NoLeader
        );
        assert!(replica.follower().is_none() && !replica.is_leader());
    }

    #[test]
    fn a_followers_high_watermark_waits_for_its_disk_under_fsync() {
        let mut replica = Replica::new(ME, Offset(0), Offset(0));
        replica.set_durability(Durability::Fsync);
        on_assignment(&mut replica, assignment(OTHER, &[ME, OTHER], 0));
        replica.on_append(Offset(8));
        assert!(!replica.on_leader_high_watermark(Offset(8)));
        replica.on_durable(Offset(6));
        assert!(replica.on_leader_high_watermark(Offset(8)));
        assert_eq!(replica.high_watermark(), Offset(6));
    }

    #[test]
    fn the_low_watermark_is_the_least_start_of_live_replicas() {
        let mut replica = Replica::new(ME, Offset(0), Offset(9));
        on_assignment(&mut replica, assignment(ME, &[ME, OTHER], 0));
        assert_eq!(
            replica.low_watermark(Offset(5)),
            Offset(5),
            "nobody else is alive"
        );
        register(&mut replica, 7, true);
        assert_eq!(replica.low_watermark(Offset(5)), Offset::UNKNOWN);
        fetch(&mut replica, 9);
        assert_eq!(replica.low_watermark(Offset(5)), Offset(0));
    }
}
