//! OffsetCommit: which offsets become records. The shard has checked that the member may
//! commit; the caller, that topics and partitions exist and may be read.

use std::rc::Rc;

use crate::base::ErrorCode;
use crate::coordinator::Step;
use crate::coordinator::records::CoordinatorRecord;
use crate::wire::messages::offset_commit_request::OffsetCommitRequestPartition;
use crate::wire::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use crate::wire::messages::{OffsetCommitRequest, OffsetCommitResponse, OffsetCommitValue};

/// Who commits, as the group checks it.
#[derive(Clone, Copy, Debug)]
pub struct Commit<'a> {
    /// Empty where the committer is no member.
    pub member: &'a str,
    pub instance: Option<&'a str>,
    /// -1 where the committer is no member.
    pub generation: i32,
}

impl<'a> Commit<'a> {
    pub fn of(request: &'a OffsetCommitRequest) -> Self {
        Commit {
            member: &request.member_id,
            instance: request.group_instance_id.as_deref(),
            generation: request.generation_id_or_member_epoch,
        }
    }
}

/// One record for each partition whose metadata is not too long.
pub(crate) fn decide_commit(
    group: &Rc<str>,
    request: &OffsetCommitRequest,
    step: &mut Step<'_>,
) -> OffsetCommitResponse {
    let now_ms = step.now.wall_ms;
    let expire_timestamp = match request.retention_time_ms {
        -1 => -1,
        retention_ms => now_ms.saturating_add(retention_ms),
    };
    let metadata_max = step.config.offset_metadata_max;
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let name: Rc<str> = topic.name.as_str().into();
        let mut decide = |partition: &OffsetCommitRequestPartition| {
            let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
            if is_longer(metadata, metadata_max) {
                return ErrorCode::OFFSET_METADATA_TOO_LARGE;
            }
            step.fx.records.push(CoordinatorRecord::OffsetCommit {
                group: group.clone(),
                topic: name.clone(),
                partition: partition.partition_index,
                value: Some(OffsetCommitValue {
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: metadata.to_owned(),
                    commit_timestamp: now_ms,
                    expire_timestamp,
                    topic_id: topic.topic_id,
                }),
            });
            ErrorCode::NONE
        };
        topics.push(OffsetCommitResponseTopic {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: topic
                .partitions
                .iter()
                .map(|partition| OffsetCommitResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: decide(partition).0,
                })
                .collect(),
        });
    }
    OffsetCommitResponse {
        topics,
        ..OffsetCommitResponse::default()
    }
}

/// Java counts a text's length in UTF-16 units.
fn is_longer(text: &str, utf16_max: usize) -> bool {
    text.len() > utf16_max && text.encode_utf16().count() > utf16_max
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_measured_as_java_measures_it() {
        assert!(!is_longer("abcd", 4));
        assert!(is_longer("abcde", 4));
        assert!(!is_longer("ääää", 4));
        assert!(is_longer("\u{1F600}\u{1F600}\u{1F600}", 4));
        assert!(!is_longer("\u{1F600}\u{1F600}", 4));
    }
}
