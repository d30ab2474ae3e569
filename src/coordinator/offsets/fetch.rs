//! OffsetFetch of one group. Reads only; an unknown group or offset is no error but -1.

use super::store::{CommittedOffset, OffsetStore, View};
use crate::base::{ErrorCode, Uuid};
use crate::coordinator::reply::no_offset;
use crate::wire::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use crate::wire::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};

impl OffsetStore {
    /// With `View::Latest` the answer must wait until all of it is committed, and offsets
    /// that an open transaction would change are refused (`require_stable`, KIP-447).
    pub(crate) fn fetch(
        &self,
        request: &OffsetFetchRequestGroup,
        view: View,
    ) -> OffsetFetchResponseGroup {
        let group = request.group_id.as_str();
        let topics = match &request.topics {
            Some(topics) => topics
                .iter()
                .map(|topic| self.fetch_topic(group, topic, view))
                .collect(),
            None => self.fetch_all(group, view),
        };
        OffsetFetchResponseGroup {
            group_id: request.group_id.clone(),
            topics,
            ..OffsetFetchResponseGroup::default()
        }
    }

    fn fetch_topic(
        &self,
        group: &str,
        topic: &OffsetFetchRequestTopics,
        view: View,
    ) -> OffsetFetchResponseTopics {
        let name = topic.name.as_str();
        // An offset of a topic of that name that was deleted since is not this topic's.
        let is_of_topic = |offset: &&CommittedOffset| {
            offset.topic_id == Uuid::ZERO
                || topic.topic_id == Uuid::ZERO
                || offset.topic_id == topic.topic_id
        };
        let partitions = topic
            .partition_indexes
            .iter()
            .map(|&partition| {
                if view == View::Latest && self.is_unstable(group, name, partition) {
                    return no_offset(partition, ErrorCode::UNSTABLE_OFFSET_COMMIT);
                }
                match self.get(view, group, name, partition).filter(is_of_topic) {
                    Some(offset) => found(partition, offset),
                    None => no_offset(partition, ErrorCode::NONE),
                }
            })
            .collect();
        OffsetFetchResponseTopics {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions,
        }
    }

    fn fetch_all(&self, group: &str, view: View) -> Vec<OffsetFetchResponseTopics> {
        self.topics(view, group)
            .map(|(topic, offsets)| OffsetFetchResponseTopics {
                name: topic.to_string(),
                topic_id: Uuid::ZERO,
                partitions: offsets
                    .map(|(partition, offset)| {
                        if view == View::Latest && self.is_unstable(group, topic, partition) {
                            no_offset(partition, ErrorCode::UNSTABLE_OFFSET_COMMIT)
                        } else {
                            found(partition, offset)
                        }
                    })
                    .collect(),
            })
            .filter(|topic| !topic.partitions.is_empty())
            .collect()
    }
}

fn found(partition: i32, offset: &CommittedOffset) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index: partition,
        committed_offset: offset.offset,
        committed_leader_epoch: offset.leader_epoch,
        metadata: Some(offset.metadata.to_string()),
        error_code: ErrorCode::NONE.0,
    }
}
