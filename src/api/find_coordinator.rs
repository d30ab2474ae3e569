//! FindCoordinator: which broker leads the internal topic's partition for a key, one key
//! (to version 3) or several. The internal topic comes into being on the first ask.

use std::rc::Rc;

use super::config_resource::MALFORMED;
use super::{auto_create, endpoint};
use crate::base::{ErrorCode, PartitionIndex, hash};
use crate::controller::{ApiError, topic_name};
use crate::security::{CLUSTER_NAME, Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::wire::messages::FindCoordinatorRequest;
use crate::wire::messages::find_coordinator_response::{Coordinator, FindCoordinatorResponse};

/// `FindCoordinatorRequest.CoordinatorType` of a consumer group.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;
/// First version that finds coordinators of share groups.
const SHARE_SINCE: i16 = 6;

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let kind = request.key_type;
    if context.api_version >= 4 {
        let mut coordinators = Vec::new();
        for key in request.coordinator_keys {
            coordinators.push(find(&shard, &context, kind, key).await);
        }
        return FindCoordinatorResponse {
            coordinators,
            ..Default::default()
        };
    }
    let found = find(&shard, &context, kind, request.key).await;
    FindCoordinatorResponse {
        error_code: found.error_code,
        // Kafka gives the name of success here.
        error_message: match ErrorCode(found.error_code) {
            ErrorCode::NONE => Some(ErrorCode::NONE.name().to_owned()),
            ErrorCode::INVALID_REQUEST => found.error_message,
            error => ApiError::general(error).message,
        },
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..Default::default()
    }
}

async fn find(shard: &Rc<Shard>, context: &RequestContext, kind: i8, key: String) -> Coordinator {
    if let Some(refusal) = refusal(shard, context, kind, &key) {
        return failed(key, refusal);
    }
    let topic = match kind {
        GROUP => topic_name::CONSUMER_OFFSETS,
        _ => {
            // Also for transactions: a fatal answer, where a retriable one would keep
            // the producer asking for ever.
            return Coordinator {
                error_message: Some(MALFORMED.to_owned()),
                ..failed(key, ErrorCode::INVALID_REQUEST)
            };
        }
    };
    auto_create::internal(shard, topic).await;
    let image = shard.image();
    let Some(topic) = image.topics.by_name(topic) else {
        return failed(key, ErrorCode::COORDINATOR_NOT_AVAILABLE);
    };
    let partitions = i32::try_from(topic.partition_count()).expect("partitions are counted in i32");
    let index = hash::coordinator_partition(&key, partitions);
    let leader = topic
        .partition(PartitionIndex(index))
        .and_then(|partition| endpoint::find(&image, partition.leader, &context.listener));
    match leader {
        Some(broker) => Coordinator {
            key,
            node_id: broker.id.0,
            host: broker.host,
            port: broker.port,
            ..Default::default()
        },
        None => failed(key, ErrorCode::COORDINATOR_NOT_AVAILABLE),
    }
}

/// Who may describe a group or transactional id may know where it is coordinated.
fn refusal(shard: &Shard, context: &RequestContext, kind: i8, key: &str) -> Option<ErrorCode> {
    let (operation, resource, name, error) = match kind {
        GROUP => (
            Operation::Describe,
            ResourceType::Group,
            key,
            ErrorCode::GROUP_AUTHORIZATION_FAILED,
        ),
        TRANSACTION => (
            Operation::Describe,
            ResourceType::TransactionalId,
            key,
            ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        ),
        SHARE if context.api_version >= SHARE_SINCE => (
            Operation::ClusterAction,
            ResourceType::Cluster,
            CLUSTER_NAME,
            ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
        ),
        _ => return None,
    };
    (!shard.authorize(context, operation, resource, name)).then_some(error)
}

fn failed(key: String, error: ErrorCode) -> Coordinator {
    Coordinator {
        key,
        node_id: -1,
        host: String::new(),
        port: -1,
        error_code: error.0,
        // One among several is told by its code only.
        error_message: Some(String::new()),
    }
}
