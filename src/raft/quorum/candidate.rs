//! Candidate: won the pre-votes, votes for itself in the next epoch and asks for the votes
//! of the others.

use super::calls::CallKind;
use super::effects::{Effects, Version};
use super::election::Votes;
use super::{Quorum, Role};
use crate::base::{LeaderEpoch, Nanos};

#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) votes: Votes,
    /// The election state with this replica's own vote, which counts once it is durable.
    own_vote: Version,
    /// Elections in a row, this one included.
    pub(super) retries: u32,
    pub(super) election_at: Nanos,
    /// When it lost: until when it waits.
    retry_at: Option<Nanos>,
}

impl Candidate {
    pub(super) fn deadline(&self) -> Nanos {
        self.retry_at.unwrap_or(self.election_at)
    }
}

impl Quorum {
    pub(super) fn become_candidate(&mut self, retries: u32, fx: &mut Effects) {
        assert!(self.may_campaign(), "only voters campaign");
        let role = Candidate {
            votes: Votes::default(),
            own_vote: Version(0),
            retries: retries + 1,
            election_at: self.election_deadline(),
            retry_at: None,
        };
        let epoch = LeaderEpoch(self.epoch.0 + 1);
        self.transition(epoch, Role::Candidate(role), fx);
        let version = self.outbox.version();
        if let Role::Candidate(state) = &mut self.role {
            state.own_vote = version;
        }
    }

    pub(super) fn poll_candidate(&mut self, fx: &mut Effects) {
        let me = self.config.me;
        let Role::Candidate(state) = &mut self.role else {
            unreachable!("polled as what it is");
        };
        if self.outbox.has_persisted(state.own_vote) {
            state.votes.add(me.id, true);
        }
        if !self.may_campaign() {
            return self.detach(Some(me), fx);
        }
        let voters = self.log.voters();
        let Role::Candidate(state) = &self.role else {
            unreachable!("polled as what it is");
        };
        if state.votes.is_won(voters) {
            return self.become_leader(fx);
        }
        if state.votes.is_lost(voters) && state.retry_at.is_none() {
            let retries = state.retries;
            let ms = self.lost_election_backoff_ms(retries);
            let at = self.after_ms(ms);
            let Role::Candidate(state) = &mut self.role else {
                unreachable!("it lost as what it is");
            };
            state.retry_at = Some(at);
        }
        let Role::Candidate(state) = &self.role else {
            unreachable!("polled as what it is");
        };
        if self.is_due(state.deadline()) {
            return self.become_prospective(fx);
        }
        if state.retry_at.is_none() {
            let votes = state.votes.clone();
            self.ask_for_votes(CallKind::Vote, &votes, fx);
        }
    }
}
