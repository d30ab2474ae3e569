//! OffsetFetch: committed positions, of one group (to version 7) or several.

use std::rc::Rc;

use crate::base::ErrorCode;
use crate::coordinator::reply;
use crate::metadata::MetadataImage;
use crate::security::{Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::shard::messages::{GroupCall, GroupReply};
use crate::wire::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use crate::wire::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use crate::wire::messages::{OffsetFetchRequest, OffsetFetchResponse};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    let version = context.api_version;
    let require_stable = request.require_stable;
    let mut groups = Vec::new();
    for group in reply::offset_fetch_groups(request, version) {
        groups.push(one(&shard, &context, group, require_stable).await);
    }
    reply::offset_fetch_response(groups, version)
}

async fn one(
    shard: &Rc<Shard>,
    context: &RequestContext,
    mut group: OffsetFetchRequestGroup,
    require_stable: bool,
) -> OffsetFetchResponseGroup {
    let version = context.api_version;
    if !shard.authorize(
        context,
        Operation::Describe,
        ResourceType::Group,
        &group.group_id,
    ) {
        return reply::fetch_error(&group, ErrorCode::GROUP_AUTHORIZATION_FAILED, version);
    }
    let image = shard.image();
    let mut refused = Vec::new();
    if let Some(topics) = group.topics.take() {
        let mut admitted = Vec::new();
        for topic in topics {
            match resolve(shard, context, &image, topic) {
                Ok(topic) => admitted.push(topic),
                Err(response) => refused.push(response),
            }
        }
        group.topics = Some(admitted);
    }
    let on_error = group.clone();
    let call = GroupCall::FetchOffsets {
        group,
        require_stable,
        version,
    };
    let mut response = match shard.group_call(&on_error.group_id, call).await {
        Ok(GroupReply::FetchOffsets(response)) => response,
        Ok(_) => return reply::fetch_error(&on_error, ErrorCode::NOT_COORDINATOR, version),
        Err(error) => return reply::fetch_error(&on_error, error, version),
    };
    if response.error_code != 0 {
        return response;
    }
    if on_error.topics.is_none() {
        response
            .topics
            .retain_mut(|topic| complete(shard, context, &image, topic));
    }
    response.topics.extend(refused);
    response
}

/// Finds the name where the request has an id. By name, offsets of a topic that was created
/// anew under it are found too, as in Kafka.
fn resolve(
    shard: &Shard,
    context: &RequestContext,
    image: &MetadataImage,
    mut topic: OffsetFetchRequestTopics,
) -> Result<OffsetFetchRequestTopics, OffsetFetchResponseTopics> {
    if context.api_version >= 10 {
        match image.topics.by_id(topic.topic_id) {
            Some(found) => topic.name = found.name.to_string(),
            None => return Err(unknown(&topic, ErrorCode::UNKNOWN_TOPIC_ID)),
        }
    }
    if shard.authorize(
        context,
        Operation::Describe,
        ResourceType::Topic,
        &topic.name,
    ) {
        Ok(topic)
    } else {
        Err(unknown(&topic, ErrorCode::TOPIC_AUTHORIZATION_FAILED))
    }
}

/// A topic of an answer to "all topics": kept if the client may see it and, by id, if it
/// still exists.
fn complete(
    shard: &Shard,
    context: &RequestContext,
    image: &MetadataImage,
    topic: &mut OffsetFetchResponseTopics,
) -> bool {
    if !shard.authorize(
        context,
        Operation::Describe,
        ResourceType::Topic,
        &topic.name,
    ) {
        return false;
    }
    if context.api_version >= 10 {
        match image.topics.by_name(&topic.name) {
            Some(found) => topic.topic_id = found.id,
            None => return false,
        }
    }
    true
}

fn unknown(topic: &OffsetFetchRequestTopics, error: ErrorCode) -> OffsetFetchResponseTopics {
    OffsetFetchResponseTopics {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic
            .partition_indexes
            .iter()
            .map(|&partition_index| OffsetFetchResponsePartitions {
                partition_index,
                committed_offset: -1,
                committed_leader_epoch: -1,
                metadata: Some(String::new()),
                error_code: error.0,
            })
            .collect(),
    }
}
