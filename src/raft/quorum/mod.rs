//! A replica of the metadata log: KRaft (KIP-595, 630, 853, 996) as one state machine.
//!
//! ```text
//!                     election timeout                 majority of pre-votes
//!   ┌────────────┐ ───────────────────▶ ┌─────────────┐ ───────────▶ ┌───────────┐
//!   │ Unattached │                      │ Prospective │              │ Candidate │ epoch + 1
//!   └────────────┘ ◀── lost ─────────── └─────────────┘ ◀─ lost ──── └───────────┘
//!      ▲   │ leader known                  ▲                             │ majority of votes
//!      │   ▼                               │ fetch timeout               ▼
//!      │ ┌──────────┐ ─────────────────────┘                        ┌────────┐
//!      │ │ Follower │ ◀──── a higher epoch has a leader ─────────── │ Leader │
//!      │ └──────────┘                                               └────────┘
//!      │                     ┌──────────┐   no majority fetches, shutdown  │
//!      └─── epoch + 1 ────── │ Resigned │ ◀────────────────────────────────┘
//!                            └──────────┘
//! ```
//! One file for each state with what it does by itself, one for each exchange with both of
//! its sides. [`Quorum::step`] takes an input, changes the state, lets the state do what is
//! due and leaves effects for the shell. Pure: time and seed are given.
//!
//! Invariants:
//! - An epoch is voted in once, and led once: the election state is on stable storage
//!   before anything that depends on it leaves ([`outbox`]).
//! - A replica that may vote says by its Fetch only what is on stable storage, and so does
//!   the leader by its high watermark.
//! - The high watermark never falls; nothing below it is cut off.
//!
//! Other than Apache Kafka 4.3.1, where nobody else can tell or the quorum would stand still:
//! - A voter whose removal it doesn't know to be committed campaigns still. It may be the
//!   only one whose log is long enough (Raft's dissertation, 4.2.2).
//! - The leader's own end counts when it is synced, not when it is written.
//! - A candidate that restarts waits for the next epoch instead of going on in this one.
//! - A peer that names another leader of an epoch, or answers 42, is ignored; Kafka's node
//!   ends.
//!
//! Not here yet: raising kraft.version of a static quorum.

mod begin_epoch;
mod calls;
mod candidate;
mod describe;
mod effects;
mod election;
mod end_epoch;
mod fetch_request;
mod fetch_response;
mod fetch_snapshot;
mod follower;
mod high_watermark;
mod leader;
mod log_view;
mod membership;
mod messages;
mod outbox;
mod progress;
mod prospective;
mod resigned;
mod start;
mod unattached;
mod vote;
mod voter_update;

pub use effects::{
    CallId, Config, Destination, Effect, Effects, Fault, FlushId, Input, Now, Proposal, Request,
    RequestId, Response, Version,
};
pub use high_watermark::majority_offset;
pub use log_view::{FetchPoint, LogView, OffsetAndEpoch};
pub use start::Boot;

use std::time::Duration;

use calls::Calls;
use candidate::Candidate;
use follower::Follower;
use leader::Leader;
use outbox::Outbox;
use prospective::Prospective;
use resigned::Resigned;
use unattached::Unattached;

use super::quorum_state::ElectionState;
use super::voters::{ReplicaKey, VoterSet};
use crate::base::rng::Rng;
use crate::base::{BrokerId, LeaderEpoch, Nanos, Offset};

/// States that one step may go through: a single voter goes from the first to the last.
const TRANSITIONS_MAX: usize = 8;

#[derive(Debug)]
pub struct Quorum {
    config: Config,
    now: Now,
    rng: Rng,
    log: LogView,
    epoch: LeaderEpoch,
    role: Role,
    /// Counts changes of `role`.
    transitions: u64,
    /// Never falls. `None` until this process heard of one.
    high_watermark: Option<Offset>,
    outbox: Outbox,
    calls: Calls,
    /// The flush in flight, and up to where the log was the same ever since it began.
    flushing: Option<(FlushId, Offset)>,
    flushes: u64,
    /// A fetched snapshot that the shell makes durable and checks; no other is begun.
    finishing: Option<OffsetAndEpoch>,
    /// What [`Effect::LeaderChanged`] said last.
    announced: (LeaderEpoch, Option<BrokerId>),
    is_stopping: bool,
    has_stopped: bool,
    has_faulted: bool,
}

#[derive(Debug)]
enum Role {
    Unattached(Unattached),
    Prospective(Prospective),
    Candidate(Candidate),
    Leader(Leader),
    Follower(Follower),
    Resigned(Resigned),
}

/// The states by name, for metrics and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StateName {
    Unattached,
    Prospective,
    Candidate,
    Leader,
    Follower,
    Resigned,
}

impl Quorum {
    /// Takes one input at a time that never goes back, and leaves what is to be done.
    pub fn step(&mut self, now: Now, input: Input, fx: &mut Effects) {
        assert!(now.mono >= self.now.mono, "time goes on");
        self.now = now;
        if self.is_over() {
            return;
        }
        match input {
            Input::Tick => {}
            Input::Request {
                id,
                api_version,
                request,
            } => self.on_request(id, api_version, request, fx),
            Input::Response { call, response } => self.on_response(call, response, fx),
            Input::CallFailed(call) => self.on_call_failed(call, fx),
            Input::Persisted(version) => self.on_persisted(version, fx),
            Input::Flushed(id) => self.on_flushed(id, fx),
            Input::Propose(proposal) => self.on_propose(proposal, fx),
            Input::Unwritten { base_offset } => self.on_unwritten(base_offset),
            Input::SnapshotTaken { id, size } => self.on_snapshot_taken(id, size),
            Input::Clean { before } => self.on_clean(before, fx),
            Input::SnapshotFinished {
                id,
                size,
                kraft_version,
                voters,
            } => self.on_snapshot_finished(id, size, kraft_version, voters, fx),
            Input::SnapshotBroken(id) => self.on_snapshot_broken(id),
            Input::Resign(epoch) => self.on_resign(epoch, fx),
            Input::Shutdown => self.on_shutdown(fx),
        }
        if !self.is_over() {
            self.advance(fx);
        }
        self.invariants();
        fx.wake_at = self.deadline();
    }

    /// Whether it has stopped, or can't go on: it does nothing any more.
    fn is_over(&self) -> bool {
        self.has_stopped || self.has_faulted
    }

    /// Does what is due, until nothing more changes.
    fn advance(&mut self, fx: &mut Effects) {
        self.expire_calls(fx);
        for _ in 0..TRANSITIONS_MAX {
            let before = self.transitions;
            match self.role {
                Role::Unattached(_) => self.poll_unattached(fx),
                Role::Prospective(_) => self.poll_prospective(fx),
                Role::Candidate(_) => self.poll_candidate(fx),
                Role::Leader(_) => self.poll_leader(fx),
                Role::Follower(_) => self.poll_follower(fx),
                Role::Resigned(_) => self.poll_resigned(fx),
            }
            if self.is_over() {
                return;
            }
            if self.transitions == before {
                break;
            }
        }
        self.maybe_flush(fx);
    }

    fn deadline(&self) -> Nanos {
        if self.is_over() {
            return Nanos::MAX;
        }
        let role = match &self.role {
            Role::Unattached(state) => self.unattached_deadline(state),
            Role::Prospective(state) => state.deadline(),
            Role::Candidate(state) => state.deadline(),
            Role::Leader(state) => self.leader_deadline(state),
            Role::Follower(state) => self.follower_deadline(state),
            Role::Resigned(state) => state.deadline(),
        };
        role.min(self.calls.deadline(self.now.mono))
    }

    fn on_request(&mut self, id: RequestId, api_version: i16, request: Request, fx: &mut Effects) {
        match request {
            Request::Vote(request) => self.on_vote(id, api_version, &request, fx),
            Request::BeginQuorumEpoch(request) => self.on_begin(id, api_version, &request, fx),
            Request::EndQuorumEpoch(request) => self.on_end(id, api_version, &request, fx),
            Request::Fetch(request) => self.on_fetch(id, api_version, request, fx),
            Request::FetchSnapshot(request) => {
                self.on_fetch_snapshot(id, api_version, &request, fx);
            }
            Request::AddRaftVoter(request) => self.on_add_voter(id, request, fx),
            Request::RemoveRaftVoter(request) => self.on_remove_voter(id, &request, fx),
            Request::UpdateRaftVoter(request) => self.on_update_voter(id, &request, fx),
            Request::DescribeQuorum(request) => self.on_describe(id, &request, fx),
            Request::ApiVersions(_) => {
                unreachable!("the connection answers ApiVersions, with no state of the quorum")
            }
        }
    }

    /// Changes state, and at once the election state that goes with it.
    fn transition(&mut self, epoch: LeaderEpoch, role: Role, fx: &mut Effects) {
        assert!(epoch >= self.epoch, "an epoch never comes back");
        // What it asked for in the old state, and nobody has heard yet, isn't asked any more.
        let dropped = self.outbox.drop_requests();
        self.calls.forget(&dropped);
        self.epoch = epoch;
        self.transitions += 1;
        let old = std::mem::replace(&mut self.role, role);
        self.persist(fx);
        self.announce(fx);
        if let Role::Leader(leader) = old {
            self.on_lost_leadership(leader, fx);
        }
    }

    fn persist(&mut self, fx: &mut Effects) {
        let state = self.election_state();
        let voters = self.log.voters();
        self.outbox
            .persist(state, self.log.kraft_version(), voters, fx);
    }

    fn announce(&mut self, fx: &mut Effects) {
        let leader = match &self.role {
            // It has stepped down, or is not yet up.
            Role::Resigned(_) => None,
            _ => self.leader_id(),
        };
        if self.announced != (self.epoch, leader) {
            self.announced = (self.epoch, leader);
            let epoch = self.epoch;
            self.outbox
                .send(Effect::LeaderChanged { epoch, leader }, fx);
        }
    }

    /// What quorum-state must say now.
    fn election_state(&self) -> ElectionState {
        let voted = match &self.role {
            Role::Unattached(state) => state.voted,
            Role::Prospective(state) => state.voted,
            Role::Candidate(_) => Some(self.config.me),
            Role::Leader(_) | Role::Follower(_) | Role::Resigned(_) => None,
        };
        ElectionState {
            epoch: self.epoch,
            leader: self.leader_id(),
            voted,
        }
    }

    fn on_persisted(&mut self, version: Version, fx: &mut Effects) {
        self.outbox.on_persisted(version, fx);
        if let Role::Leader(leader) = &mut self.role {
            leader.are_fetches_due = true;
        }
    }

    /// Asks for a flush if there is something to make durable, one at a time.
    fn maybe_flush(&mut self, fx: &mut Effects) {
        if self.flushing.is_some() || self.log.flushed() == self.log.end() {
            return;
        }
        self.flushes += 1;
        let id = FlushId(self.flushes);
        self.flushing = Some((id, self.log.end()));
        fx.push(Effect::Flush(id));
    }

    fn on_flushed(&mut self, id: FlushId, fx: &mut Effects) {
        let Some((flushing, up_to)) = self.flushing else {
            return;
        };
        if flushing != id {
            return;
        }
        self.flushing = None;
        self.log.set_flushed(up_to);
        self.update_high_watermark(fx);
    }

    fn truncate(&mut self, to: Offset, fx: &mut Effects) {
        self.log.truncate(to);
        if let Some((_, up_to)) = &mut self.flushing {
            *up_to = (*up_to).min(to);
        }
        fx.push(Effect::Truncate { to });
    }

    /// The log is as it was before the last proposal.
    fn on_unwritten(&mut self, base_offset: Offset) {
        self.log.truncate(base_offset);
        if let Some((_, up_to)) = &mut self.flushing {
            *up_to = (*up_to).min(base_offset);
        }
    }

    fn on_resign(&mut self, epoch: LeaderEpoch, fx: &mut Effects) {
        if matches!(self.role, Role::Leader(_)) && epoch == self.epoch {
            self.become_resigned(fx);
        }
    }

    fn on_shutdown(&mut self, fx: &mut Effects) {
        self.is_stopping = true;
        match self.role {
            Role::Leader(_) => self.become_resigned(fx),
            Role::Resigned(_) => {}
            _ => self.stop(fx),
        }
    }

    fn stop(&mut self, fx: &mut Effects) {
        self.has_stopped = true;
        fx.push(Effect::Stopped);
    }

    fn fault(&mut self, fault: Fault, fx: &mut Effects) {
        self.has_faulted = true;
        fx.push(Effect::Fault(fault));
    }

    fn after_ms(&self, ms: u64) -> Nanos {
        self.now.mono + Duration::from_millis(ms)
    }

    fn is_due(&self, at: Nanos) -> bool {
        at <= self.now.mono
    }

    /// When an election that begins now is given up: random, so that two replicas don't
    /// meet for ever.
    fn election_deadline(&mut self) -> Nanos {
        let timeout = self.config.election_timeout_ms;
        let ms = timeout + self.rng.below(timeout);
        self.after_ms(ms)
    }

    fn is_voter(&self) -> bool {
        self.log.voters().is_voter(&self.config.me)
    }

    /// Whether this replica may seek to lead: as a voter, or as one whose removal isn't
    /// committed for all that it knows. That one may be the only one whose log is long
    /// enough to be elected; its own vote doesn't count.
    fn may_campaign(&self) -> bool {
        if self.is_voter() {
            return true;
        }
        let removed_at = self.log.voters_offset();
        let is_committed = |offset| self.high_watermark.is_some_and(|hw| hw > offset);
        self.log.voters_before().is_voter(&self.config.me)
            && removed_at.is_some_and(|offset| !is_committed(offset))
    }

    /// The leader of this epoch, as far as it is known. One that resigned is still it.
    pub fn leader_id(&self) -> Option<BrokerId> {
        match &self.role {
            Role::Unattached(state) => state.leader,
            Role::Prospective(state) => state.leader.as_ref().map(|leader| leader.id),
            Role::Candidate(_) => None,
            Role::Follower(state) => Some(state.leader.id),
            Role::Leader(_) | Role::Resigned(_) => Some(self.config.me.id),
        }
    }

    pub fn state(&self) -> StateName {
        match self.role {
            Role::Unattached(_) => StateName::Unattached,
            Role::Prospective(_) => StateName::Prospective,
            Role::Candidate(_) => StateName::Candidate,
            Role::Leader(_) => StateName::Leader,
            Role::Follower(_) => StateName::Follower,
            Role::Resigned(_) => StateName::Resigned,
        }
    }

    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    pub fn high_watermark(&self) -> Option<Offset> {
        self.high_watermark
    }

    pub fn log(&self) -> &LogView {
        &self.log
    }

    pub fn voters(&self) -> &VoterSet {
        self.log.voters()
    }

    pub fn me(&self) -> ReplicaKey {
        self.config.me
    }

    fn invariants(&self) {
        self.log.invariants();
        assert!(
            self.epoch >= self.log.last_epoch(),
            "no epoch of the future"
        );
        if let Some(high_watermark) = self.high_watermark {
            assert!(high_watermark <= self.log.end() || self.has_faulted);
        }
        if let Role::Leader(leader) = &self.role {
            leader.invariants(&self.log);
            assert_eq!(self.log.last_epoch(), self.epoch, "its epoch has begun");
        }
    }
}
