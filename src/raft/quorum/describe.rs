//! DescribeQuorum: the leader tells of its voters and observers.

use super::effects::{Effect, Effects, RequestId, Response};
use super::messages::only_partition;
use super::progress::Progress;
use super::{Quorum, Role};
use crate::base::ErrorCode;
use crate::raft::METADATA_TOPIC;
use crate::raft::voters::{ReplicaKey, Voter};
use crate::wire::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use crate::wire::messages::{DescribeQuorumRequest, DescribeQuorumResponse};

impl Quorum {
    pub(super) fn on_describe(
        &mut self,
        id: RequestId,
        request: &DescribeQuorumRequest,
        fx: &mut Effects,
    ) {
        let response = Response::DescribeQuorum(self.describe(request));
        self.outbox.send(Effect::Reply { id, response }, fx);
    }

    fn describe(&mut self, request: &DescribeQuorumRequest) -> DescribeQuorumResponse {
        if only_partition!(request.topics, topic_name, partition_index).is_none() {
            return unknown_partitions(request);
        }
        let now = self.now;
        let Role::Leader(leader) = &mut self.role else {
            return DescribeQuorumResponse {
                error_code: ErrorCode::NOT_LEADER_OR_FOLLOWER.0,
                ..Default::default()
            };
        };
        leader.replicas.forget_silent(now.mono);
        let me = leader.replicas.voter_key(&self.config.me);
        let own_end = self.log.flushed();
        let state = |(key, progress): (&ReplicaKey, &Progress)| {
            let is_me = Some(*key) == me;
            let or_now = |ms| if is_me { now.wall_ms } else { ms };
            let end = if is_me { Some(own_end) } else { progress.end };
            ReplicaState {
                replica_id: key.id.0,
                replica_directory_id: key.wire_directory(),
                log_end_offset: end.map_or(-1, |offset| offset.0),
                last_fetch_timestamp: or_now(progress.last_fetch_ms),
                last_caught_up_timestamp: or_now(progress.last_caught_up_ms),
            }
        };
        let partition = PartitionData {
            leader_id: self.config.me.id.0,
            leader_epoch: self.epoch.0,
            high_watermark: self.high_watermark.map_or(-1, |offset| offset.0),
            current_voters: leader.replicas.voters().map(state).collect(),
            observers: leader.replicas.observers().map(state).collect(),
            ..Default::default()
        };
        DescribeQuorumResponse {
            topics: vec![TopicData {
                topic_name: METADATA_TOPIC.to_owned(),
                partitions: vec![partition],
            }],
            nodes: self.log.voters().iter().map(node).collect(),
            ..Default::default()
        }
    }
}

fn node(voter: &Voter) -> Node {
    Node {
        node_id: voter.key.id.0,
        listeners: voter
            .endpoints
            .iter()
            .map(|endpoint| Listener {
                name: endpoint.listener.clone(),
                host: endpoint.host.clone(),
                port: endpoint.port,
            })
            .collect(),
    }
}

fn unknown_partitions(request: &DescribeQuorumRequest) -> DescribeQuorumResponse {
    let topics = request.topics.iter().map(|topic| TopicData {
        topic_name: topic.topic_name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| PartitionData {
                partition_index: partition.partition_index,
                error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0,
                error_message: Some("This server does not host this topic-partition.".to_owned()),
                ..Default::default()
            })
            .collect(),
    });
    DescribeQuorumResponse {
        topics: topics.collect(),
        ..Default::default()
    }
}
