//! BeginQuorumEpoch: a leader makes itself known to the voters. Both sides.

use super::calls::Call;
use super::effects::{Effect, Effects, RequestId, Response};
use super::messages::{Hint, named_endpoints, node_endpoints, only_partition, optional_id};
use super::{Quorum, Role};
use crate::base::{BrokerId, ErrorCode, LeaderEpoch};
use crate::raft::METADATA_TOPIC;
use crate::raft::voters::{Endpoint, ReplicaKey};
use crate::wire::messages::begin_quorum_epoch_request::{LeaderEndpoint, PartitionData, TopicData};
use crate::wire::messages::begin_quorum_epoch_response::{self, NodeEndpoint};
use crate::wire::messages::{BeginQuorumEpochRequest, BeginQuorumEpochResponse};

impl Quorum {
    pub(super) fn begin_request(&self, voter: &ReplicaKey) -> BeginQuorumEpochRequest {
        let endpoint = |endpoint: &Endpoint| LeaderEndpoint {
            name: endpoint.listener.clone(),
            host: endpoint.host.clone(),
            port: endpoint.port,
        };
        BeginQuorumEpochRequest {
            cluster_id: self.cluster_id(),
            voter_id: voter.id.0,
            topics: vec![TopicData {
                topic_name: METADATA_TOPIC.to_owned(),
                partitions: vec![PartitionData {
                    partition_index: 0,
                    voter_directory_id: voter.wire_directory(),
                    leader_id: self.config.me.id.0,
                    leader_epoch: self.epoch.0,
                }],
            }],
            leader_endpoints: self.config.endpoints.iter().map(endpoint).collect(),
        }
    }

    pub(super) fn on_begin(
        &mut self,
        id: RequestId,
        api_version: i16,
        request: &BeginQuorumEpochRequest,
        fx: &mut Effects,
    ) {
        let response = if self.is_other_cluster(&request.cluster_id) {
            top_level(ErrorCode::INCONSISTENT_CLUSTER_ID)
        } else {
            match only_partition!(request.topics, topic_name, partition_index) {
                None => top_level(ErrorCode::INVALID_REQUEST),
                Some(begun) => {
                    let Some(error) = self.begin(request, begun, fx) else {
                        // Whatever we answer to such a leader, a Kafka node dies of it.
                        return fx.push(Effect::PeerError("two leaders of an epoch"));
                    };
                    self.begin_response(api_version, error)
                }
            }
        };
        let response = Response::BeginQuorumEpoch(response);
        self.outbox.send(Effect::Reply { id, response }, fx);
    }

    fn begin(
        &mut self,
        request: &BeginQuorumEpochRequest,
        begun: &PartitionData,
        fx: &mut Effects,
    ) -> Option<ErrorCode> {
        let error = self.check_voter_request(begun.leader_id, begun.leader_epoch);
        if !error.is_ok() {
            return Some(error);
        }
        let epoch = LeaderEpoch(begun.leader_epoch);
        let leader = BrokerId(begun.leader_id);
        let endpoints = request.leader_endpoints.iter().map(|named| Endpoint {
            listener: named.name.clone(),
            host: named.host.clone(),
            port: named.port,
        });
        let endpoints: Vec<Endpoint> = endpoints.collect();
        let known = self.leader_id().filter(|_| epoch == self.epoch);
        if leader == self.config.me.id || known.is_some_and(|known| known != leader) {
            return None;
        }
        if let (Role::Prospective(state), true) = (&self.role, epoch == self.epoch)
            && let Some(silent) = state.leader.clone()
        {
            // It isn't silent after all.
            self.become_follower(epoch, silent, fx);
        }
        self.follow(epoch, Some(leader), endpoints, fx);
        Some(
            if self.is_for_another(request.voter_id, begun.voter_directory_id) {
                ErrorCode::INVALID_VOTER_KEY
            } else {
                ErrorCode::NONE
            },
        )
    }

    fn begin_response(&self, api_version: i16, error: ErrorCode) -> BeginQuorumEpochResponse {
        let node_endpoints = if api_version >= 1 {
            node_endpoints!(self, NodeEndpoint)
        } else {
            Vec::new()
        };
        BeginQuorumEpochResponse {
            error_code: 0,
            topics: vec![begin_quorum_epoch_response::TopicData {
                topic_name: METADATA_TOPIC.to_owned(),
                partitions: vec![begin_quorum_epoch_response::PartitionData {
                    partition_index: 0,
                    error_code: error.0,
                    leader_id: self.wire_leader_id(),
                    leader_epoch: self.epoch.0,
                }],
            }],
            node_endpoints,
        }
    }

    pub(super) fn on_begin_response(
        &mut self,
        call: Call,
        response: &BeginQuorumEpochResponse,
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
        // It fetches from now on, or is told again.
        self.on_hint(call, hint, fx);
    }
}

fn top_level(error: ErrorCode) -> BeginQuorumEpochResponse {
    BeginQuorumEpochResponse {
        error_code: error.0,
        ..Default::default()
    }
}
