//! OffsetDelete: removes committed offsets of topics that the group no longer consumes.

use std::rc::Rc;

use crate::base::{ErrorCode, PartitionIndex};
use crate::coordinator::reply;
use crate::security::{Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::shard::messages::{GroupCall, GroupReply};
use crate::wire::messages::offset_delete_request::OffsetDeleteRequestTopic;
use crate::wire::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use crate::wire::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    mut request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    if !shard.authorize(
        &context,
        Operation::Delete,
        ResourceType::Group,
        &request.group_id,
    ) {
        return reply::offset_delete_error(ErrorCode::GROUP_AUTHORIZATION_FAILED);
    }
    let image = shard.image();
    let mut refused = Vec::new();
    let mut admitted = Vec::new();
    for mut topic in std::mem::take(&mut request.topics) {
        if !shard.authorize(&context, Operation::Read, ResourceType::Topic, &topic.name) {
            refused.push(failed(&topic, ErrorCode::TOPIC_AUTHORIZATION_FAILED));
            continue;
        }
        let found = image.topics.by_name(&topic.name);
        let (known, unknown): (Vec<_>, Vec<_>) = std::mem::take(&mut topic.partitions)
            .into_iter()
            .partition(|p| {
                found.is_some_and(|t| t.partition(PartitionIndex(p.partition_index)).is_some())
            });
        if !unknown.is_empty() {
            topic.partitions = unknown;
            refused.push(failed(&topic, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
        }
        if !known.is_empty() {
            topic.partitions = known;
            admitted.push(topic);
        }
    }
    request.topics = admitted;
    let group_id = request.group_id.clone();
    let mut response = match shard
        .group_call(&group_id, GroupCall::DeleteOffsets(request))
        .await
    {
        Ok(GroupReply::DeleteOffsets(response)) => response,
        Ok(_) => return reply::offset_delete_error(ErrorCode::NOT_COORDINATOR),
        Err(error) => return reply::offset_delete_error(error),
    };
    if response.error_code == 0 {
        response.topics.extend(refused);
    }
    response
}

fn failed(topic: &OffsetDeleteRequestTopic, error: ErrorCode) -> OffsetDeleteResponseTopic {
    OffsetDeleteResponseTopic {
        name: topic.name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| OffsetDeleteResponsePartition {
                partition_index: partition.partition_index,
                error_code: error.0,
            })
            .collect(),
    }
}
