//! DescribeTopicPartitions (KIP-966): partitions of many topics, page by page.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::metadata::offline;
use crate::base::{BrokerId, ErrorCode, PartitionIndex};
use crate::controller::topic_name;
use crate::metadata::topics::numbers;
use crate::metadata::{MetadataImage, PartitionImage, TopicImage};
use crate::security::{Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::wire::messages::DescribeTopicPartitionsRequest;
use crate::wire::messages::describe_topic_partitions_request::TopicRequest;
use crate::wire::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
};

/// `max.request.partition.size.limit`.
const PARTITIONS_MAX: usize = 2_000;

/// Topics that are looked at before others get their turn.
const STEP: usize = 256;

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    if request
        .cursor
        .as_ref()
        .is_some_and(|cursor| cursor.partition_index < 0)
    {
        let refused = |topic: &TopicRequest| failed(&topic.name, ErrorCode::INVALID_REQUEST);
        return DescribeTopicPartitionsResponse {
            topics: request.topics.iter().map(refused).collect(),
            ..Default::default()
        };
    }
    let image = shard.image();
    let asked: BTreeSet<String> = if request.topics.is_empty() {
        image.topics.iter().map(|t| t.name.to_string()).collect()
    } else {
        request.topics.iter().map(|t| t.name.clone()).collect()
    };
    let fetch_all = request.topics.is_empty();
    let (first_topic, first_partition) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.as_str(), cursor.partition_index),
        None => ("", 0),
    };
    let mut room = usize::try_from(request.response_partition_limit)
        .unwrap_or(0)
        .clamp(1, PARTITIONS_MAX);
    let mut response = DescribeTopicPartitionsResponse::default();
    let mut hidden = Vec::new();
    let names = asked.iter().filter(|name| name.as_str() >= first_topic);
    for (seen, name) in names.enumerate() {
        if seen % STEP == STEP - 1 {
            shard.rt().yield_now().await;
        }
        let may_describe =
            shard.authorize(&context, Operation::Describe, ResourceType::Topic, name);
        if !may_describe {
            // Topics that weren't named stay hidden; the others come last.
            if !fetch_all {
                hidden.push(failed(name, ErrorCode::TOPIC_AUTHORIZATION_FAILED));
            }
            continue;
        }
        let Some(topic) = image.topics.by_name(name) else {
            let error = match topic_name::validate(name) {
                Ok(()) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                Err(_) => ErrorCode::INVALID_TOPIC_EXCEPTION,
            };
            let kind = ResourceType::Topic;
            response.topics.push(DescribeTopicPartitionsResponseTopic {
                topic_authorized_operations: shard.authorized_operations(&context, kind, name),
                ..failed(name, error)
            });
            continue;
        };
        let from = if name == first_topic {
            first_partition
        } else {
            0
        };
        if room == 0 {
            response.next_cursor = Some(cursor(name, from));
            break;
        }
        let mut described = header(&shard, &context, topic);
        for (index, partition) in topic
            .partitions()
            .filter(|(index, _)| *index >= PartitionIndex(from))
        {
            if room == 0 {
                response.next_cursor = Some(cursor(name, index.0));
                break;
            }
            room -= 1;
            described
                .partitions
                .push(one(&image, index.0, partition, &context.listener));
        }
        response.topics.push(described);
        if response.next_cursor.is_some() {
            break;
        }
    }
    response.topics.extend(hidden);
    response
}

fn header(
    shard: &Shard,
    context: &RequestContext,
    topic: &TopicImage,
) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode::NONE.0,
        name: Some(topic.name.to_string()),
        topic_id: topic.id,
        is_internal: topic_name::is_internal(&topic.name),
        partitions: Vec::new(),
        topic_authorized_operations: shard.authorized_operations(
            context,
            ResourceType::Topic,
            &topic.name,
        ),
    }
}

fn one(
    image: &MetadataImage,
    index: i32,
    partition: &PartitionImage,
    listener: &str,
) -> DescribeTopicPartitionsResponsePartition {
    DescribeTopicPartitionsResponsePartition {
        error_code: if partition.leader == BrokerId::NONE {
            ErrorCode::LEADER_NOT_AVAILABLE.0
        } else {
            ErrorCode::NONE.0
        },
        partition_index: index,
        leader_id: partition.leader.0,
        leader_epoch: partition.leader_epoch.0,
        replica_nodes: numbers(&partition.replicas),
        isr_nodes: numbers(&partition.isr),
        eligible_leader_replicas: Some(numbers(&partition.elr)),
        last_known_elr: Some(numbers(&partition.last_known_elr)),
        offline_replicas: offline(image, partition, listener),
    }
}

fn failed(name: &str, error: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic {
        error_code: error.0,
        name: Some(name.to_owned()),
        ..Default::default()
    }
}

fn cursor(topic: &str, partition_index: i32) -> Cursor {
    Cursor {
        topic_name: topic.to_owned(),
        partition_index,
    }
}
