//! DescribeLogDirs: the log directories, the partitions in each, and the space left.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

use super::scatter::{Target, scatter};
use crate::base::{ErrorCode, Uuid};
use crate::config::DynamicConfig;
use crate::metadata::MetadataImage;
use crate::security::{CLUSTER_NAME, Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::shard::messages::{LogSummary, PartitionCall, PartitionReply};
use crate::shard::replicas::broker_layers;
use crate::wire::messages::DescribeLogDirsRequest;
use crate::wire::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    if !shard.authorize(
        &context,
        Operation::Describe,
        ResourceType::Cluster,
        CLUSTER_NAME,
    ) {
        return DescribeLogDirsResponse {
            // Earlier versions tell it by an empty answer.
            error_code: if context.api_version >= 3 {
                ErrorCode::CLUSTER_AUTHORIZATION_FAILED.0
            } else {
                ErrorCode::NONE.0
            },
            ..Default::default()
        };
    }
    let image = shard.image();
    let asked = asked(&shard, &image, &request);
    let targets = asked
        .iter()
        .map(|(topic, index)| Target::named(&image, topic, *index, PartitionCall::Summary))
        .collect();
    let mut found: BTreeMap<Uuid, BTreeMap<&str, Vec<DescribeLogDirsPartition>>> = BTreeMap::new();
    for ((topic, index), reply) in asked.iter().zip(scatter(&shard, targets).await) {
        if let PartitionReply::Summary(summary) = reply {
            let mut add = |directory, partition| {
                let topics = found.entry(directory).or_default();
                topics.entry(topic).or_default().push(partition);
            };
            add(summary.directory, partition(*index, &summary));
            if let Some(copy) = &summary.copy {
                let partition = DescribeLogDirsPartition {
                    partition_index: *index,
                    partition_size: saturate(copy.size_bytes),
                    offset_lag: (summary.log_end_offset - copy.log_end_offset).max(0),
                    is_future_key: true,
                };
                add(copy.directory, partition);
            }
        }
    }
    let dynamic = DynamicConfig::effective(&broker_layers(&shard, &image));
    let mut paths = shard.node().config.log_dirs.clone();
    paths.dedup();
    let results = paths
        .iter()
        .map(|path| {
            let mut online = shard.node().directories.iter();
            let directory = online.find(|d| d.log_dir.path() == path).filter(|found| {
                // Failed meanwhile, or at the start.
                !shard.directories().is_offline(found.id)
            });
            let Some(directory) = directory else {
                return DescribeLogDirsResult {
                    error_code: ErrorCode::KAFKA_STORAGE_ERROR.0,
                    log_dir: shown(path),
                    ..Default::default()
                };
            };
            let space = shard.rt().disk().space(directory.log_dir.path());
            DescribeLogDirsResult {
                error_code: ErrorCode::NONE.0,
                log_dir: shown(path),
                topics: found
                    .remove(&directory.id)
                    .unwrap_or_default()
                    .into_iter()
                    .map(|(name, partitions)| DescribeLogDirsTopic {
                        name: name.to_owned(),
                        partitions,
                    })
                    .collect(),
                total_bytes: space
                    .as_ref()
                    .map_or(-1, |space| saturate(space.total_bytes)),
                usable_bytes: space.map_or(-1, |space| saturate(space.usable_bytes)),
                is_cordoned: dynamic.is_cordoned(path),
            }
        })
        .collect();
    DescribeLogDirsResponse {
        results,
        ..Default::default()
    }
}

/// As an absolute path, as Kafka does.
fn shown(path: &Path) -> String {
    let absolute = std::path::absolute(path);
    absolute.as_deref().unwrap_or(path).display().to_string()
}

/// The partitions asked for, or (null) every local one.
fn asked(
    shard: &Shard,
    image: &MetadataImage,
    request: &DescribeLogDirsRequest,
) -> BTreeSet<(String, i32)> {
    match &request.topics {
        Some(topics) => topics
            .iter()
            .flat_map(|topic| {
                topic
                    .partitions
                    .iter()
                    .map(|index| (topic.topic.clone(), *index))
            })
            .collect(),
        None => image
            .topics
            .iter()
            .flat_map(|topic| {
                topic
                    .partitions()
                    .filter(|(_, partition)| partition.replicas.contains(&shard.node().id))
                    .map(|(index, _)| (topic.name.to_string(), index.0))
            })
            .collect(),
    }
}

fn partition(partition_index: i32, summary: &LogSummary) -> DescribeLogDirsPartition {
    DescribeLogDirsPartition {
        partition_index,
        partition_size: saturate(summary.size_bytes),
        // How far the log is behind the high watermark: never, on a leader.
        offset_lag: (summary.high_watermark - summary.log_end_offset).max(0),
        is_future_key: false,
    }
}

fn saturate(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
