//! Unattached: no leader of this epoch is known, or none that can be reached. A voter waits
//! for one until its election timeout; everybody asks around for one by Fetch.

use super::calls::{CallKind, Peer};
use super::effects::{Effects, Request};
use super::{Quorum, Role};
use crate::base::{BrokerId, LeaderEpoch, Nanos};
use crate::raft::voters::ReplicaKey;

#[derive(Debug)]
pub(super) struct Unattached {
    /// Who has this replica's vote in this epoch.
    pub(super) voted: Option<ReplicaKey>,
    /// A leader that is known by name only, or that was silent: no vote for another.
    pub(super) leader: Option<BrokerId>,
    /// Doesn't count for those who don't campaign.
    pub(super) election_at: Nanos,
}

impl Quorum {
    /// Enters a higher epoch without a leader that could be followed. Time that was waited
    /// counts on, so that epochs which rise quickly don't keep everybody from campaigning.
    pub(super) fn become_unattached(
        &mut self,
        epoch: LeaderEpoch,
        leader: Option<BrokerId>,
        fx: &mut Effects,
    ) {
        assert!(epoch > self.epoch, "nothing of this epoch is forgotten");
        let election_at = match &self.role {
            Role::Unattached(state) => state.election_at,
            Role::Prospective(state) => state.election_at,
            Role::Candidate(state) => state.election_at,
            Role::Follower(state) => state.fetch_at,
            Role::Leader(_) | Role::Resigned(_) => self.election_deadline(),
        };
        let role = Unattached {
            voted: None,
            leader,
            election_at,
        };
        self.transition(epoch, Role::Unattached(role), fx);
    }

    /// Stays in the epoch with what is known of it.
    pub(super) fn detach(&mut self, voted: Option<ReplicaKey>, fx: &mut Effects) {
        let role = Unattached {
            voted,
            leader: self.leader_id(),
            election_at: self.election_deadline(),
        };
        self.transition(self.epoch, Role::Unattached(role), fx);
    }

    pub(super) fn unattached_deadline(&self, state: &Unattached) -> Nanos {
        if self.may_campaign() {
            state.election_at
        } else {
            Nanos::MAX
        }
    }

    pub(super) fn poll_unattached(&mut self, fx: &mut Effects) {
        let Role::Unattached(state) = &self.role else {
            unreachable!("polled as what it is");
        };
        let election_at = state.election_at;
        if self.may_campaign() {
            let is_alone = self.log.voters().is_only_voter(&self.config.me);
            if is_alone || self.is_due(election_at) {
                return self.become_prospective(fx);
            }
        }
        self.ask_for_the_leader(fx);
    }

    /// Fetches from any server that may know the leader; its answer names it.
    fn ask_for_the_leader(&mut self, fx: &mut Effects) {
        if self.is_calling(CallKind::Fetch) || !self.may_fetch() {
            return;
        }
        let me = self.config.me.id;
        let mut peers: Vec<Peer> = (0..self.config.bootstrap_servers)
            .map(Peer::Bootstrap)
            .collect();
        if peers.is_empty() {
            let others = self.log.voters().iter().map(|voter| voter.key.id);
            peers.extend(others.filter(|id| *id != me).map(Peer::Node));
        }
        // From a random one on, so that one that is down isn't asked first for ever.
        let first = self.rng.below(peers.len() as u64) as usize;
        for at in 0..peers.len() {
            let peer = peers[(first + at) % peers.len()];
            let request = |this: &Quorum| Request::Fetch(this.fetch_request());
            if self.maybe_call(CallKind::Fetch, peer, request, fx) {
                return;
            }
        }
    }
}
