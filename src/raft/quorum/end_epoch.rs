//! EndQuorumEpoch: a leader resigns and names whom it would like to see lead. Both sides.

use super::calls::{Call, Peer};
use super::effects::{Effect, Effects, RequestId, Response};
use super::election::successor_backoff_ms;
use super::messages::{
    Hint, named_endpoints, node_endpoints, only_partition, optional_id, replica_key,
};
use super::{Quorum, Role};
use crate::base::{BrokerId, ErrorCode, LeaderEpoch};
use crate::raft::METADATA_TOPIC;
use crate::raft::voters::{Endpoint, ReplicaKey};
use crate::wire::messages::end_quorum_epoch_request::{
    LeaderEndpoint, PartitionData, ReplicaInfo, TopicData,
};
use crate::wire::messages::end_quorum_epoch_response::{self, NodeEndpoint};
use crate::wire::messages::{EndQuorumEpochRequest, EndQuorumEpochResponse};

impl Quorum {
    pub(super) fn end_request(&self) -> EndQuorumEpochRequest {
        let preferred: &[ReplicaKey] = match &self.role {
            Role::Resigned(state) => &state.preferred,
            _ => &[],
        };
        let candidate = |key: &ReplicaKey| ReplicaInfo {
            candidate_id: key.id.0,
            candidate_directory_id: key.wire_directory(),
        };
        let endpoint = |endpoint: &Endpoint| LeaderEndpoint {
            name: endpoint.listener.clone(),
            host: endpoint.host.clone(),
            port: endpoint.port,
        };
        EndQuorumEpochRequest {
            cluster_id: self.cluster_id(),
            topics: vec![TopicData {
                topic_name: METADATA_TOPIC.to_owned(),
                partitions: vec![PartitionData {
                    partition_index: 0,
                    leader_id: self.config.me.id.0,
                    leader_epoch: self.epoch.0,
                    preferred_successors: Vec::new(),
                    preferred_candidates: preferred.iter().map(candidate).collect(),
                }],
            }],
            leader_endpoints: self.config.endpoints.iter().map(endpoint).collect(),
        }
    }

    pub(super) fn on_end(
        &mut self,
        id: RequestId,
        api_version: i16,
        request: &EndQuorumEpochRequest,
        fx: &mut Effects,
    ) {
        let response = if self.is_other_cluster(&request.cluster_id) {
            top_level(ErrorCode::INCONSISTENT_CLUSTER_ID)
        } else {
            match only_partition!(request.topics, topic_name, partition_index) {
                None => top_level(ErrorCode::INVALID_REQUEST),
                Some(ended) => {
                    let Some(error) = self.end(api_version, request, ended, fx) else {
                        return fx.push(Effect::PeerError("two leaders of an epoch"));
                    };
                    self.end_response(api_version, error)
                }
            }
        };
        let response = Response::EndQuorumEpoch(response);
        self.outbox.send(Effect::Reply { id, response }, fx);
    }

    fn end(
        &mut self,
        api_version: i16,
        request: &EndQuorumEpochRequest,
        ended: &PartitionData,
        fx: &mut Effects,
    ) -> Option<ErrorCode> {
        let error = self.check_voter_request(ended.leader_id, ended.leader_epoch);
        if !error.is_ok() {
            return Some(error);
        }
        let epoch = LeaderEpoch(ended.leader_epoch);
        let leader = BrokerId(ended.leader_id);
        let known = self.leader_id().filter(|_| epoch == self.epoch);
        if leader == self.config.me.id || known.is_some_and(|known| known != leader) {
            return None;
        }
        let endpoints = request.leader_endpoints.iter().map(|named| Endpoint {
            listener: named.name.clone(),
            host: named.host.clone(),
            port: named.port,
        });
        let endpoints: Vec<Endpoint> = endpoints.collect();
        self.follow(epoch, Some(leader), endpoints, fx);
        let (position, count) = self.preference(api_version, ended);
        let max_ms = self.config.election_backoff_max_ms;
        let campaign_at = self.after_ms(successor_backoff_ms(position, count, max_ms));
        if let Role::Follower(state) = &mut self.role
            && state.leader.id == leader
        {
            state.fetch_at = campaign_at;
        }
        Some(ErrorCode::NONE)
    }

    /// This replica's place among those that the leader prefers, and how many they are.
    fn preference(&self, api_version: i16, ended: &PartitionData) -> (Option<usize>, usize) {
        let me = self.config.me;
        if api_version < 1 {
            let ids = &ended.preferred_successors;
            return (ids.iter().position(|id| *id == me.id.0), ids.len());
        }
        let is_me = |info: &ReplicaInfo| {
            let key = replica_key(info.candidate_id, info.candidate_directory_id);
            key.id == me.id && (key.directory.is_none() || key.directory == me.directory)
        };
        let candidates = &ended.preferred_candidates;
        (candidates.iter().position(is_me), candidates.len())
    }

    fn end_response(&self, api_version: i16, error: ErrorCode) -> EndQuorumEpochResponse {
        let node_endpoints = if api_version >= 1 {
            node_endpoints!(self, NodeEndpoint)
        } else {
            Vec::new()
        };
        EndQuorumEpochResponse {
            error_code: 0,
            topics: vec![end_quorum_epoch_response::TopicData {
                topic_name: METADATA_TOPIC.to_owned(),
                partitions: vec![end_quorum_epoch_response::PartitionData {
                    partition_index: 0,
                    error_code: error.0,
                    leader_id: self.wire_leader_id(),
                    leader_epoch: self.epoch.0,
                }],
            }],
            node_endpoints,
        }
    }

    pub(super) fn on_end_response(
        &mut self,
        call: Call,
        response: &EndQuorumEpochResponse,
        fx: &mut Effects,
    ) {
        let partition = only_partition!(response.topics, topic_name, partition_index);
        let (0, Some(partition)) = (response.error_code, partition) else {
            return self.back_off(call.peer);
        };
        let leader = optional_id(partition.leader_id);
        let hint = Hint {
            error: ErrorCode(partition.error_code),
            epoch: LeaderEpoch(partition.leader_epoch),
            leader,
            endpoints: named_endpoints!(self, response.node_endpoints, leader),
        };
        let is_acknowledged = self.on_hint(call, hint, fx);
        if let (true, Role::Resigned(state), Peer::Node(id)) =
            (is_acknowledged, &mut self.role, call.peer)
        {
            state.unacknowledged.remove(&id);
        }
    }
}

fn top_level(error: ErrorCode) -> EndQuorumEpochResponse {
    EndQuorumEpochResponse {
        error_code: error.0,
        ..Default::default()
    }
}
