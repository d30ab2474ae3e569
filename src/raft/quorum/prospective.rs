//! Prospective (KIP-996): asks in the epoch it is in whether it would be elected in the
//! next, so that a replica which can't win disturbs nobody.

use super::calls::CallKind;
use super::effects::Effects;
use super::election::Votes;
use super::follower::KnownLeader;
use super::{Quorum, Role};
use crate::base::Nanos;
use crate::raft::voters::ReplicaKey;

#[derive(Debug)]
pub(super) struct Prospective {
    /// Who has this replica's vote in this epoch.
    pub(super) voted: Option<ReplicaKey>,
    /// The leader that fell silent. It may still be there for others.
    pub(super) leader: Option<KnownLeader>,
    pub(super) votes: Votes,
    /// Elections lost in a row.
    pub(super) retries: u32,
    pub(super) election_at: Nanos,
}

impl Prospective {
    pub(super) fn deadline(&self) -> Nanos {
        self.election_at
    }
}

impl Quorum {
    pub(super) fn become_prospective(&mut self, fx: &mut Effects) {
        assert!(self.may_campaign(), "only voters campaign");
        let me = self.config.me;
        let (voted, leader, retries) = match &self.role {
            Role::Unattached(state) => (state.voted, self.leader_named(state.leader), 0),
            Role::Follower(state) => (None, Some(state.leader.clone()), 0),
            Role::Candidate(state) => (Some(me), None, state.retries),
            Role::Prospective(_) | Role::Leader(_) | Role::Resigned(_) => {
                unreachable!("they don't begin to campaign")
            }
        };
        let mut votes = Votes::default();
        votes.add(me.id, true);
        let role = Prospective {
            voted,
            leader,
            votes,
            retries,
            election_at: self.election_deadline(),
        };
        self.transition(self.epoch, Role::Prospective(role), fx);
    }

    pub(super) fn poll_prospective(&mut self, fx: &mut Effects) {
        let Role::Prospective(state) = &self.role else {
            unreachable!("polled as what it is");
        };
        let voters = self.log.voters();
        if !self.may_campaign() {
            let voted = state.voted;
            return self.detach(voted, fx);
        }
        if state.votes.is_won(voters) {
            let retries = state.retries;
            return self.become_candidate(retries, fx);
        }
        if state.votes.is_lost(voters) || self.is_due(state.election_at) {
            return self.on_pre_votes_lost(fx);
        }
        let votes = state.votes.clone();
        self.ask_for_votes(CallKind::PreVote, &votes, fx);
    }

    /// Others still have the leader, or nobody answers: back to where it came from.
    fn on_pre_votes_lost(&mut self, fx: &mut Effects) {
        let Role::Prospective(state) = &self.role else {
            unreachable!("it lost as what it is");
        };
        let voted = state.voted;
        match state.leader.clone() {
            Some(leader) if leader.id != self.config.me.id && self.can_reach(&leader) => {
                self.become_follower(self.epoch, leader, fx);
            }
            _ => self.detach(voted, fx),
        }
    }
}
