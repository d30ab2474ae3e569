//! ListOffsets: an offset for a timestamp, or for one of the special ones: -1 latest,
//! -2 earliest, -3 largest timestamp, -4 earliest local, -5 latest tiered, -6 earliest
//! pending upload (the last two are -1 without tiered storage).

use std::collections::HashSet;
use std::rc::Rc;

use super::scatter::{Target, scatter};
use crate::base::{BrokerId, ErrorCode, LeaderEpoch};
use crate::security::{Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::shard::messages::{PartitionCall, PartitionReply};
use crate::wire::messages::ListOffsetsRequest;
use crate::wire::messages::list_offsets_request::ListOffsetsPartition;
use crate::wire::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};

const READ_COMMITTED: i8 = 1;
/// First version that tells the epoch of the offset.
const LEADER_EPOCH_SINCE: i16 = 4;
/// First version that tells that a new leader doesn't know yet how far consumers may read;
/// before it, that there is no leader.
const NOT_AVAILABLE_SINCE: i16 = 5;
/// First request version that knows a special timestamp (-3 is the first to need one).
const SPECIAL_SINCE: [(i64, i16); 4] = [(-3, 7), (-4, 8), (-5, 9), (-6, 11)];

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    mut request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let image = shard.image();
    let from_consumer = BrokerId(request.replica_id) == BrokerId::NONE;
    let duplicates = take_duplicates(&mut request);
    let mut targets = Vec::new();
    for topic in &request.topics {
        let allowed = shard.authorize(
            &context,
            Operation::Describe,
            ResourceType::Topic,
            &topic.name,
        );
        for partition in &topic.partitions {
            let refusal = if !allowed {
                Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED)
            } else if duplicates.contains(&(topic.name.clone(), partition.partition_index)) {
                Some(ErrorCode::INVALID_REQUEST)
            } else {
                unsupported(partition.timestamp, context.api_version)
            };
            targets.push(match refusal {
                Some(error) => Target::Refused(error),
                None => Target::named(
                    &image,
                    &topic.name,
                    partition.partition_index,
                    call(partition, request.isolation_level, from_consumer),
                ),
            });
        }
    }
    let mut replies = scatter(&shard, targets).await.into_iter();
    let topics = request
        .topics
        .into_iter()
        .map(|topic| ListOffsetsTopicResponse {
            name: topic.name,
            partitions: topic
                .partitions
                .iter()
                .zip(&mut replies)
                .map(|(partition, reply)| {
                    respond(partition.partition_index, reply, context.api_version)
                })
                .collect(),
        })
        .collect();
    ListOffsetsResponse {
        topics,
        ..Default::default()
    }
}

fn call(partition: &ListOffsetsPartition, isolation: i8, from_consumer: bool) -> PartitionCall {
    PartitionCall::FindOffset {
        timestamp: partition.timestamp,
        current_leader_epoch: LeaderEpoch(partition.current_leader_epoch),
        read_committed: isolation == READ_COMMITTED,
        from_consumer,
    }
}

fn unsupported(timestamp: i64, version: i16) -> Option<ErrorCode> {
    if timestamp >= -2 {
        return None;
    }
    let known = SPECIAL_SINCE
        .iter()
        .any(|&(special, since)| special == timestamp && version >= since);
    (!known).then_some(ErrorCode::UNSUPPORTED_VERSION)
}

/// Partitions that stand in the request more than once: each is answered once, with
/// INVALID_REQUEST.
fn take_duplicates(request: &mut ListOffsetsRequest) -> HashSet<(String, i32)> {
    let mut seen = HashSet::new();
    let mut twice = HashSet::new();
    for topic in &mut request.topics {
        topic.partitions.retain(|partition| {
            let key = (topic.name.clone(), partition.partition_index);
            let first = seen.insert(key.clone());
            if !first {
                twice.insert(key);
            }
            first
        });
    }
    twice
}

fn respond(
    partition_index: i32,
    reply: PartitionReply,
    version: i16,
) -> ListOffsetsPartitionResponse {
    match reply {
        PartitionReply::Offset(found) => ListOffsetsPartitionResponse {
            partition_index,
            error_code: ErrorCode::NONE.0,
            timestamp: found.timestamp,
            offset: found.offset.0,
            leader_epoch: if version >= LEADER_EPOCH_SINCE {
                found.leader_epoch.0
            } else {
                LeaderEpoch::UNKNOWN.0
            },
        },
        other => ListOffsetsPartitionResponse {
            partition_index,
            error_code: match other.error() {
                ErrorCode::OFFSET_NOT_AVAILABLE if version < NOT_AVAILABLE_SINCE => {
                    ErrorCode::LEADER_NOT_AVAILABLE.0
                }
                error => error.0,
            },
            ..Default::default()
        },
    }
}
