//! Follower: knows the epoch's leader and replicates from it, and takes up whatever leader
//! an answer or request names. A voter campaigns when the leader falls silent, an observer
//! asks around.

use super::calls::{Call, CallKind, Peer};
use super::effects::{Effect, Effects, Request};
use super::fetch_snapshot::Fetching;
use super::messages::Hint;
use super::{Quorum, Role};
use crate::base::{BrokerId, ErrorCode, LeaderEpoch, Nanos};
use crate::raft::voters::Endpoint;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct KnownLeader {
    pub(super) id: BrokerId,
    /// As it named them itself, or as its voters' entry does.
    pub(super) endpoints: Vec<Endpoint>,
}

#[derive(Debug)]
pub(super) struct Follower {
    pub(super) leader: KnownLeader,
    /// When the leader counts as silent.
    pub(super) fetch_at: Nanos,
    /// Whether the leader ever answered a Fetch in this state.
    pub(super) has_fetched: bool,
    /// A snapshot on its way.
    pub(super) fetching: Option<Fetching>,
    /// Whether this leader knows where this node is reached.
    pub(super) has_updated: bool,
    /// When the voters' entry of this node is looked at again.
    pub(super) update_at: Nanos,
}

impl Quorum {
    pub(super) fn become_follower(
        &mut self,
        epoch: LeaderEpoch,
        leader: KnownLeader,
        fx: &mut Effects,
    ) {
        assert!(leader.id != self.config.me.id, "nobody follows itself");
        if epoch == self.epoch {
            let known = self.leader_id();
            assert!(
                known.is_none_or(|id| id == leader.id),
                "one leader an epoch"
            );
        }
        let role = Follower {
            leader,
            fetch_at: self.after_ms(self.config.fetch_timeout_ms),
            has_fetched: false,
            fetching: None,
            has_updated: false,
            update_at: self.after_ms(self.config.fetch_timeout_ms),
        };
        self.transition(epoch, Role::Follower(role), fx);
    }

    /// A leader with the endpoints that it is known by.
    pub(super) fn leader_named(&self, leader: Option<BrokerId>) -> Option<KnownLeader> {
        leader.map(|id| KnownLeader {
            id,
            endpoints: self.leader_endpoints(id).unwrap_or_default(),
        })
    }

    pub(super) fn can_reach(&self, leader: &KnownLeader) -> bool {
        let listener = &self.config.listener;
        leader.endpoints.iter().any(|e| e.listener == *listener)
    }

    /// Endpoints of a replica that is the leader, or else of a voter.
    pub(super) fn leader_endpoints(&self, id: BrokerId) -> Option<Vec<Endpoint>> {
        if id == self.config.me.id {
            return Some(self.config.endpoints.clone());
        }
        let leader = match &self.role {
            Role::Follower(state) => Some(&state.leader),
            Role::Prospective(state) => state.leader.as_ref(),
            _ => None,
        };
        let of_leader = leader.filter(|leader| leader.id == id && !leader.endpoints.is_empty());
        let of_voter = || self.log.voters().get(id).map(|v| v.endpoints.clone());
        of_leader
            .map(|leader| leader.endpoints.clone())
            .or_else(of_voter)
    }

    pub(super) fn follower_deadline(&self, state: &Follower) -> Nanos {
        state.fetch_at.min(state.update_at)
    }

    pub(super) fn poll_follower(&mut self, fx: &mut Effects) {
        let Role::Follower(state) = &self.role else {
            unreachable!("polled as what it is");
        };
        if self.is_due(state.fetch_at) {
            return if self.may_campaign() {
                self.become_prospective(fx);
            } else {
                self.detach(None, fx);
            };
        }
        let leader = Peer::Node(state.leader.id);
        if self.is_due(state.update_at) {
            let update_at = self.after_ms(self.config.fetch_timeout_ms);
            let Role::Follower(state) = &mut self.role else {
                unreachable!("polled as what it is");
            };
            state.update_at = update_at;
            self.maybe_update_voter(leader, fx);
        }
        let Role::Follower(state) = &self.role else {
            unreachable!("polled as what it is");
        };
        match &state.fetching {
            Some(_) => {
                let request = |this: &Quorum| this.fetch_snapshot_request();
                self.maybe_call(CallKind::FetchSnapshot, leader, request, fx);
            }
            None => {
                if self.may_fetch() {
                    let request = |this: &Quorum| Request::Fetch(this.fetch_request());
                    self.maybe_call(CallKind::Fetch, leader, request, fx);
                }
            }
        }
    }

    /// A Fetch of a replica that may vote says that its log is on stable storage.
    pub(super) fn may_fetch(&self) -> bool {
        let says_so = self.config.is_controller || self.may_campaign();
        !says_so || self.log.flushed() == self.log.end()
    }

    /// What an answer says of leader and epoch, of which there is news or not. Whether the
    /// answer itself is worth reading: it is of this epoch and no error.
    pub(super) fn on_hint(&mut self, call: Call, hint: Hint, fx: &mut Effects) -> bool {
        let is_stale = hint.epoch < self.epoch || hint.error == ErrorCode::UNKNOWN_LEADER_EPOCH;
        if !is_stale {
            self.follow(hint.epoch, hint.leader, hint.endpoints, fx);
        }
        let is_read = !is_stale && call.epoch == self.epoch && hint.error.is_ok();
        if !hint.error.is_ok() {
            self.back_off(call.peer);
        }
        is_read
    }

    /// Somebody names an epoch, not lower than ours, and maybe its leader.
    pub(super) fn follow(
        &mut self,
        epoch: LeaderEpoch,
        leader: Option<BrokerId>,
        endpoints: Vec<Endpoint>,
        fx: &mut Effects,
    ) {
        let me = self.config.me.id;
        let Some(id) = leader.filter(|id| *id != me) else {
            if epoch > self.epoch {
                // Or it says that we lead an epoch of which we know nothing.
                self.become_unattached(epoch, None, fx);
            }
            return;
        };
        let endpoints = if endpoints.is_empty() {
            self.leader_endpoints(id).unwrap_or_default()
        } else {
            endpoints
        };
        let leader = KnownLeader { id, endpoints };
        if epoch > self.epoch {
            if self.can_reach(&leader) {
                self.become_follower(epoch, leader, fx);
            } else {
                self.become_unattached(epoch, Some(id), fx);
            }
            return;
        }
        let is_reachable = self.can_reach(&leader);
        match &mut self.role {
            Role::Follower(state) if state.leader.id == id => {
                if leader.endpoints.len() > state.leader.endpoints.len() {
                    state.leader = leader;
                }
            }
            Role::Prospective(state) if state.leader.is_some() => {
                if state.leader.as_ref().is_some_and(|known| known.id != id) {
                    fx.push(Effect::PeerError("two leaders of an epoch"));
                }
            }
            Role::Unattached(state) if state.leader.is_some_and(|known| known != id) => {
                fx.push(Effect::PeerError("two leaders of an epoch"));
            }
            Role::Unattached(_) | Role::Prospective(_) | Role::Candidate(_) => {
                if is_reachable {
                    self.become_follower(epoch, leader, fx);
                }
            }
            Role::Follower(_) | Role::Leader(_) | Role::Resigned(_) => {
                fx.push(Effect::PeerError("two leaders of an epoch"));
            }
        }
    }
}
