//! DeleteRecords (KIP-107): moves log starts forward; -1 means the high watermark.

use std::rc::Rc;

use super::scatter::{Target, scatter};
use crate::base::{ErrorCode, Offset};
use crate::security::{Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::shard::messages::{PartitionCall, PartitionReply};
use crate::wire::messages::DeleteRecordsRequest;
use crate::wire::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let image = shard.image();
    let mut targets = Vec::new();
    for topic in &request.topics {
        let allowed = shard.authorize(
            &context,
            Operation::Delete,
            ResourceType::Topic,
            &topic.name,
        );
        for partition in &topic.partitions {
            targets.push(if allowed {
                let call = PartitionCall::DeleteRecords {
                    offset: Offset(partition.offset),
                };
                Target::named(&image, &topic.name, partition.partition_index, call)
            } else {
                Target::Refused(ErrorCode::TOPIC_AUTHORIZATION_FAILED)
            });
        }
    }
    let mut replies = scatter(&shard, targets).await.into_iter();
    let topics = request
        .topics
        .into_iter()
        .map(|topic| DeleteRecordsTopicResult {
            name: topic.name,
            partitions: topic
                .partitions
                .iter()
                .zip(&mut replies)
                .map(|(partition, reply)| respond(partition.partition_index, reply))
                .collect(),
        })
        .collect();
    DeleteRecordsResponse {
        topics,
        ..Default::default()
    }
}

fn respond(partition_index: i32, reply: PartitionReply) -> DeleteRecordsPartitionResult {
    let (low_watermark, error) = match reply {
        PartitionReply::Deleted(low_watermark) => (low_watermark.0, ErrorCode::NONE),
        other => (-1, other.error()),
    };
    DeleteRecordsPartitionResult {
        partition_index,
        low_watermark,
        error_code: error.0,
    }
}
