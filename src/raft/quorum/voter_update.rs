//! UpdateRaftVoter: a voter tells the leader where it is reached and what it can run, when
//! the voters' entry says otherwise. Both sides; and the observer that becomes a voter by
//! itself.

use super::calls::{CallKind, Peer};
use super::effects::{Effect, Effects, Request, RequestId, Response};
use super::messages::replica_key;
use super::{Quorum, Role};
use crate::base::{BrokerId, ErrorCode, LeaderEpoch};
use crate::raft::voters::{Endpoint, Voter};
use crate::wire::messages::update_raft_voter_request::{KRaftVersionFeature, Listener};
use crate::wire::messages::update_raft_voter_response::CurrentLeader;
use crate::wire::messages::{
    AddRaftVoterRequest, RemoveRaftVoterRequest, UpdateRaftVoterRequest, UpdateRaftVoterResponse,
    add_raft_voter_request,
};

impl Quorum {
    /// Of a follower, now and then: is the voters' entry of this node as it should be?
    pub(super) fn maybe_update_voter(&mut self, leader: Peer, fx: &mut Effects) {
        let me = self.config.as_voter();
        let entry = self.log.voters().get(me.key.id);
        let is_voter = self.is_voter();
        let is_dynamic = self.log.kraft_version() > 0;
        let is_known = match &self.role {
            // Without voters in the log each leader is told once.
            Role::Follower(state) if !is_dynamic => state.has_updated,
            _ => entry == Some(&me),
        };
        if is_voter && !is_known {
            let request = |this: &Quorum| Request::UpdateRaftVoter(this.update_request());
            self.maybe_call(CallKind::UpdateVoter, leader, request, fx);
        } else if !is_voter && is_dynamic && self.config.auto_join {
            let request = |this: &Quorum| this.join_request();
            self.maybe_call(CallKind::Join, leader, request, fx);
        }
    }

    fn update_request(&self) -> UpdateRaftVoterRequest {
        let me = self.config.as_voter();
        UpdateRaftVoterRequest {
            cluster_id: self.cluster_id(),
            current_leader_epoch: self.epoch.0,
            voter_id: me.key.id.0,
            voter_directory_id: me.key.wire_directory(),
            listeners: me
                .endpoints
                .iter()
                .map(|endpoint| Listener {
                    name: endpoint.listener.clone(),
                    host: endpoint.host.clone(),
                    port: endpoint.port,
                })
                .collect(),
            kraft_version_feature: KRaftVersionFeature {
                min_supported_version: me.kraft_versions.0,
                max_supported_version: me.kraft_versions.1,
            },
        }
    }

    /// An entry of this id with another directory is of a disk that is gone; it goes first.
    fn join_request(&self) -> Request {
        let me = self.config.as_voter();
        match self.log.voters().get(me.key.id) {
            Some(old) => Request::RemoveRaftVoter(RemoveRaftVoterRequest {
                cluster_id: self.cluster_id(),
                voter_id: old.key.id.0,
                voter_directory_id: old.key.wire_directory(),
            }),
            None => Request::AddRaftVoter(AddRaftVoterRequest {
                cluster_id: self.cluster_id(),
                timeout_ms: i32::try_from(self.config.answer_timeout_ms).unwrap_or(i32::MAX),
                voter_id: me.key.id.0,
                voter_directory_id: me.key.wire_directory(),
                listeners: me
                    .endpoints
                    .iter()
                    .map(|endpoint| add_raft_voter_request::Listener {
                        name: endpoint.listener.clone(),
                        host: endpoint.host.clone(),
                        port: endpoint.port,
                    })
                    .collect(),
                ack_when_committed: false,
            }),
        }
    }

    pub(super) fn on_update_voter(
        &mut self,
        id: RequestId,
        request: &UpdateRaftVoterRequest,
        fx: &mut Effects,
    ) {
        let error = match self.check_update_voter(request) {
            Err(error) => error,
            Ok(None) => ErrorCode::NONE,
            Ok(Some(voter)) => match self.log.voters().updated(voter) {
                None => ErrorCode::VOTER_NOT_FOUND,
                Some(voters) => {
                    self.append_voters(&voters, fx);
                    ErrorCode::NONE
                }
            },
        };
        let current_leader = match self.leader_endpoint() {
            Some((id, endpoint)) => CurrentLeader {
                leader_id: id.0,
                leader_epoch: self.epoch.0,
                host: endpoint.host,
                port: endpoint.port.into(),
            },
            None => CurrentLeader {
                leader_id: self.wire_leader_id(),
                leader_epoch: self.epoch.0,
                ..Default::default()
            },
        };
        let response = Response::UpdateRaftVoter(UpdateRaftVoterResponse {
            throttle_time_ms: 0,
            error_code: error.0,
            current_leader,
        });
        self.outbox.send(Effect::Reply { id, response }, fx);
    }

    /// The entry to write; `None` where the voters aren't in the log.
    fn check_update_voter(
        &self,
        request: &UpdateRaftVoterRequest,
    ) -> Result<Option<Voter>, ErrorCode> {
        if self.is_other_cluster(&request.cluster_id) {
            return Err(ErrorCode::INCONSISTENT_CLUSTER_ID);
        }
        let error = self.check_leader_request(request.current_leader_epoch);
        if !error.is_ok() {
            return Err(error);
        }
        let key = replica_key(request.voter_id, request.voter_directory_id);
        let endpoints: Vec<Endpoint> = request
            .listeners
            .iter()
            .map(|listener| Endpoint {
                listener: listener.name.clone(),
                host: listener.host.clone(),
                port: listener.port,
            })
            .collect();
        let listener = &self.config.listener;
        let range = &request.kraft_version_feature;
        let (min, max) = (range.min_supported_version, range.max_supported_version);
        let is_malformed = request.voter_id < 0
            || key.directory.is_none()
            || !endpoints.iter().any(|e| e.listener == *listener)
            || min < 0
            || max < min;
        if is_malformed {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        if self.log.kraft_version() == 0 {
            // Nobody needs it before kraft.version is raised.
            return Ok(None);
        }
        self.check_change("updating").map_err(|(error, _)| error)?;
        let version = self.log.kraft_version();
        if version < min || max < version {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        Ok(Some(Voter {
            key,
            endpoints,
            kraft_versions: (min, max),
        }))
    }

    pub(super) fn on_update_voter_response(
        &mut self,
        response: &UpdateRaftVoterResponse,
        fx: &mut Effects,
    ) {
        // Anything else is tried again when its time comes.
        if let (0, Role::Follower(state)) = (response.error_code, &mut self.role) {
            state.has_updated = true;
        }
        let current = &response.current_leader;
        let epoch = LeaderEpoch(current.leader_epoch);
        if epoch >= self.epoch && current.leader_id >= 0 {
            let endpoints = u16::try_from(current.port).ok().map(|port| Endpoint {
                listener: self.config.listener.clone(),
                host: current.host.clone(),
                port,
            });
            let endpoints = endpoints.filter(|e| !e.host.is_empty());
            let leader = Some(BrokerId(current.leader_id));
            self.follow(epoch, leader, endpoints.into_iter().collect(), fx);
        }
    }
}
