//! OffsetCommit: a consumer's positions, kept by its group's coordinator.
//!
//! Topics that the client may not read, or that don't exist, are answered here; the
//! coordinator sees the rest, each topic with name and id.

use std::rc::Rc;

use crate::base::{ErrorCode, PartitionIndex, Uuid};
use crate::coordinator::reply;
use crate::metadata::MetadataImage;
use crate::security::{Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::shard::messages::{GroupCall, GroupReply};
use crate::wire::messages::offset_commit_request::OffsetCommitRequestTopic;
use crate::wire::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use crate::wire::messages::{OffsetCommitRequest, OffsetCommitResponse};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    mut request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    if !shard.authorize(
        &context,
        Operation::Read,
        ResourceType::Group,
        &request.group_id,
    ) {
        return reply::commit_error(&request, ErrorCode::GROUP_AUTHORIZATION_FAILED);
    }
    let image = shard.image();
    let mut answered = Vec::new();
    let mut admitted = Vec::new();
    for topic in std::mem::take(&mut request.topics) {
        match resolve(&shard, &context, &image, topic) {
            Ok(topic) => {
                let (known, unknown) = split_known(&image, topic);
                admitted.extend(known);
                answered.extend(unknown);
            }
            Err((topic, error)) => answered.push(refused(&topic, error)),
        }
    }
    if admitted.is_empty() {
        return OffsetCommitResponse {
            topics: answered,
            ..Default::default()
        };
    }
    request.topics = admitted;
    let mut response = call(&shard, &context, request).await;
    response.topics.extend(answered);
    response
}

async fn call(
    shard: &Rc<Shard>,
    context: &RequestContext,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let group_id = request.group_id.clone();
    let on_error = request.clone();
    let call = GroupCall::Commit(request, context.api_version);
    match shard.group_call(&group_id, call).await {
        Ok(GroupReply::Commit(response)) => response,
        Ok(_) => reply::commit_error(&on_error, ErrorCode::NOT_COORDINATOR),
        Err(error) => reply::commit_error(&on_error, error),
    }
}

/// Fills in the id or the name that the request's version lacks.
fn resolve(
    shard: &Shard,
    context: &RequestContext,
    image: &MetadataImage,
    mut topic: OffsetCommitRequestTopic,
) -> Result<OffsetCommitRequestTopic, (OffsetCommitRequestTopic, ErrorCode)> {
    if context.api_version >= 10 {
        match image.topics.by_id(topic.topic_id) {
            Some(found) => topic.name = found.name.to_string(),
            None => return Err((topic, ErrorCode::UNKNOWN_TOPIC_ID)),
        }
    }
    if !shard.authorize(context, Operation::Read, ResourceType::Topic, &topic.name) {
        return Err((topic, ErrorCode::TOPIC_AUTHORIZATION_FAILED));
    }
    match image.topics.by_name(&topic.name) {
        Some(found) => {
            topic.topic_id = found.id;
            Ok(topic)
        }
        None => {
            topic.topic_id = Uuid::ZERO;
            Err((topic, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))
        }
    }
}

/// Parts the partitions that exist from those that don't.
fn split_known(
    image: &MetadataImage,
    mut topic: OffsetCommitRequestTopic,
) -> (
    Option<OffsetCommitRequestTopic>,
    Option<OffsetCommitResponseTopic>,
) {
    let found = image.topics.by_name(&topic.name);
    let exists = |index: i32| found.is_some_and(|t| t.partition(PartitionIndex(index)).is_some());
    let (known, unknown): (Vec<_>, Vec<_>) = std::mem::take(&mut topic.partitions)
        .into_iter()
        .partition(|p| exists(p.partition_index));
    let missing = (!unknown.is_empty()).then(|| {
        let mut part = topic.clone();
        part.partitions = unknown;
        refused(&part, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    });
    topic.partitions = known;
    ((!topic.partitions.is_empty()).then_some(topic), missing)
}

fn refused(topic: &OffsetCommitRequestTopic, error: ErrorCode) -> OffsetCommitResponseTopic {
    OffsetCommitResponseTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .iter()
            .map(|partition| OffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: error.0,
            })
            .collect(),
    }
}
