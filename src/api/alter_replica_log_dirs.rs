//! AlterReplicaLogDirs (KIP-113): has replicas of this broker moved to other log directories.
//! The answer tells that the move has begun; DescribeLogDirs shows how far it is.

use std::path::Path;
use std::rc::Rc;

use super::scatter::{Target, scatter};
use crate::base::{ErrorCode, Uuid};
use crate::config::DynamicConfig;
use crate::security::{CLUSTER_NAME, Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::shard::messages::{PartitionCall, PartitionReply};
use crate::shard::replicas::broker_layers;
use crate::wire::messages::AlterReplicaLogDirsRequest;
use crate::wire::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult, AlterReplicaLogDirsResponse,
};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    let cluster = ResourceType::Cluster;
    let is_allowed = shard.authorize(&context, Operation::Alter, cluster, CLUSTER_NAME);
    let image = shard.image();
    let dynamic = DynamicConfig::effective(&broker_layers(&shard, &image));
    let mut asked = Vec::new();
    let mut targets = Vec::new();
    for dir in &request.dirs {
        let directory = match is_allowed {
            true => directory(&shard, &dynamic, Path::new(&dir.path)),
            false => Err(ErrorCode::CLUSTER_AUTHORIZATION_FAILED),
        };
        for topic in &dir.topics {
            for index in &topic.partitions {
                asked.push((topic.name.as_str(), *index));
                targets.push(match directory {
                    Ok(directory) => {
                        let call = PartitionCall::Move { directory };
                        Target::named(&image, &topic.name, *index, call)
                    }
                    Err(error) => Target::Refused(error),
                });
            }
        }
    }
    let mut results: Vec<AlterReplicaLogDirTopicResult> = Vec::new();
    for ((name, partition_index), reply) in asked.into_iter().zip(scatter(&shard, targets).await) {
        let partition = AlterReplicaLogDirPartitionResult {
            partition_index,
            error_code: error(&reply).0,
        };
        match results.iter_mut().find(|topic| topic.topic_name == name) {
            Some(topic) => topic.partitions.push(partition),
            None => results.push(AlterReplicaLogDirTopicResult {
                topic_name: name.to_owned(),
                partitions: vec![partition],
            }),
        }
    }
    AlterReplicaLogDirsResponse {
        results,
        ..Default::default()
    }
}

/// Where a replica may be moved to.
fn directory(shard: &Shard, dynamic: &DynamicConfig, path: &Path) -> Result<Uuid, ErrorCode> {
    let node = shard.node();
    let same = |other: &Path| {
        other == path || std::path::absolute(other).is_ok_and(|absolute| absolute == path)
    };
    if !node
        .config
        .log_dirs
        .iter()
        .any(|configured| same(configured))
    {
        return Err(ErrorCode::LOG_DIR_NOT_FOUND);
    }
    let mut online = node.directories.iter();
    let found = online
        .find(|directory| same(directory.log_dir.path()))
        .filter(|directory| !shard.directories().is_offline(directory.id))
        .ok_or(ErrorCode::KAFKA_STORAGE_ERROR)?;
    if dynamic.is_cordoned(found.log_dir.path()) {
        return Err(ErrorCode::INVALID_REPLICA_ASSIGNMENT);
    }
    Ok(found.id)
}

/// Kafka's code for a replica that isn't here is an old one, for older tools.
fn error(reply: &PartitionReply) -> ErrorCode {
    match reply {
        PartitionReply::Moving => ErrorCode::NONE,
        PartitionReply::Refused(ErrorCode::NOT_LEADER_OR_FOLLOWER) => {
            ErrorCode::REPLICA_NOT_AVAILABLE
        }
        other => other.error(),
    }
}
