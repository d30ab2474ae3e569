//! OffsetForLeaderEpoch (KIP-101, KIP-320): where an epoch ends in the leader's log.

use std::rc::Rc;

use super::scatter::{Target, scatter};
use crate::base::{ErrorCode, LeaderEpoch};
use crate::security::{CLUSTER_NAME, Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::shard::messages::{PartitionCall, PartitionReply};
use crate::wire::messages::OffsetForLeaderEpochRequest;
use crate::wire::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let image = shard.image();
    let is_broker = shard.authorize(
        &context,
        Operation::ClusterAction,
        ResourceType::Cluster,
        CLUSTER_NAME,
    );
    let mut targets = Vec::new();
    for topic in &request.topics {
        let allowed = is_broker
            || shard.authorize(
                &context,
                Operation::Describe,
                ResourceType::Topic,
                &topic.topic,
            );
        for partition in &topic.partitions {
            targets.push(if allowed {
                let call = PartitionCall::EpochEnd {
                    current_leader_epoch: LeaderEpoch(partition.current_leader_epoch),
                    epoch: LeaderEpoch(partition.leader_epoch),
                };
                Target::named(&image, &topic.topic, partition.partition, call)
            } else {
                Target::Refused(ErrorCode::TOPIC_AUTHORIZATION_FAILED)
            });
        }
    }
    let mut replies = scatter(&shard, targets).await.into_iter();
    let topics = request
        .topics
        .into_iter()
        .map(|topic| OffsetForLeaderTopicResult {
            topic: topic.topic,
            partitions: topic
                .partitions
                .iter()
                .zip(&mut replies)
                .map(|(partition, reply)| respond(partition.partition, reply))
                .collect(),
        })
        .collect();
    OffsetForLeaderEpochResponse {
        topics,
        ..Default::default()
    }
}

fn respond(partition: i32, reply: PartitionReply) -> EpochEndOffset {
    match reply {
        PartitionReply::EpochEnd(end) => EpochEndOffset {
            partition,
            error_code: ErrorCode::NONE.0,
            leader_epoch: end.epoch.0,
            end_offset: end.end_offset.0,
        },
        other => EpochEndOffset {
            partition,
            error_code: other.error().0,
            ..Default::default()
        },
    }
}
