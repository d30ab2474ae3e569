//! Short calls on many partitions: each goes to the core that owns its partition, one
//! message a core, and the replies come back in the caller's order.

use std::rc::Rc;

use crate::base::{ErrorCode, PartitionIndex, TopicIdPartition};
use crate::metadata::MetadataImage;
use crate::shard::Shard;
use crate::shard::messages::{PartitionCall, PartitionReply};

/// Where one call goes, or why it goes nowhere.
pub enum Target {
    Call(TopicIdPartition, PartitionCall),
    Refused(ErrorCode),
}

impl Target {
    /// Resolves a partition by its topic's name; UNKNOWN_TOPIC_OR_PARTITION if the image
    /// lacks it.
    pub fn named(image: &MetadataImage, topic: &str, index: i32, call: PartitionCall) -> Target {
        match image.topics.by_name(topic) {
            Some(found) if found.partition(PartitionIndex(index)).is_some() => Target::Call(
                TopicIdPartition {
                    topic_id: found.id,
                    partition: PartitionIndex(index),
                },
                call,
            ),
            _ => Target::Refused(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        }
    }
}

/// Makes the calls; the replies stand in the order of `targets`.
pub async fn scatter(shard: &Rc<Shard>, targets: Vec<Target>) -> Vec<PartitionReply> {
    let mut replies = Vec::with_capacity(targets.len());
    let mut calls = Vec::new();
    for (slot, target) in (0u32..).zip(targets) {
        replies.push(match target {
            Target::Refused(error) => PartitionReply::Refused(error),
            Target::Call(partition, call) => {
                calls.push((slot, partition, call));
                // Stands until the owner answers; no core owns a replica that isn't here.
                PartitionReply::Refused(ErrorCode::NOT_LEADER_OR_FOLLOWER)
            }
        });
    }
    for (slot, reply) in shard.partition_calls(calls).await {
        replies[slot as usize] = reply;
    }
    replies
}
