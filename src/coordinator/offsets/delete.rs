//! Offsets that go before their time: by OffsetDelete, with their group, or with their
//! topic. All of it is tombstones to append.

use std::rc::Rc;

use super::store::{OffsetStore, View};
use crate::base::{ErrorCode, Uuid};
use crate::coordinator::records::CoordinatorRecord;
use crate::wire::messages::offset_delete_request::OffsetDeleteRequestTopic;
use crate::wire::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};

impl OffsetStore {
    /// One topic of an OffsetDelete: refused while the group reads it.
    pub(crate) fn decide_delete(
        &self,
        group: &Rc<str>,
        topic: &OffsetDeleteRequestTopic,
        is_subscribed: bool,
        records: &mut Vec<CoordinatorRecord>,
    ) -> OffsetDeleteResponseTopic {
        let name: Rc<str> = topic.name.as_str().into();
        let error = if is_subscribed {
            ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC
        } else {
            ErrorCode::NONE
        };
        let partitions = topic
            .partitions
            .iter()
            .map(|partition| {
                let index = partition.partition_index;
                let is_there = self.get(View::Latest, group, &name, index).is_some()
                    || self.is_unstable(group, &name, index);
                if error.is_ok() && is_there {
                    records.push(CoordinatorRecord::offset_tombstone(group, &name, index));
                }
                OffsetDeleteResponsePartition {
                    partition_index: index,
                    error_code: error.0,
                }
            })
            .collect();
        OffsetDeleteResponseTopic {
            name: topic.name.clone(),
            partitions,
        }
    }

    /// All offsets of a group, those of open transactions too.
    pub(crate) fn decide_delete_all(&self, group: &Rc<str>, records: &mut Vec<CoordinatorRecord>) {
        for (topic, offsets) in self.topics(View::Latest, group) {
            for (partition, _) in offsets {
                records.push(CoordinatorRecord::offset_tombstone(group, topic, partition));
            }
        }
        for key in self.unstable(group) {
            if self
                .get(View::Latest, group, &key.topic, key.partition)
                .is_none()
            {
                records.push(CoordinatorRecord::offset_tombstone(
                    group,
                    &key.topic,
                    key.partition,
                ));
            }
        }
    }

    /// A topic is gone: its offsets in all groups go too, except those known to be of
    /// another topic of that name.
    pub(crate) fn decide_delete_topic(
        &self,
        id: Uuid,
        name: &str,
        records: &mut Vec<CoordinatorRecord>,
    ) {
        let is_of_topic = |topic_id: Uuid| topic_id == Uuid::ZERO || topic_id == id;
        let topic: Rc<str> = name.into();
        for group in self.groups() {
            for (partition, offset) in self.topic(View::Latest, group, name) {
                if is_of_topic(offset.topic_id) {
                    records.push(CoordinatorRecord::offset_tombstone(
                        group, &topic, partition,
                    ));
                }
            }
        }
        for (key, offset) in self.unstable_in_topic(name) {
            if is_of_topic(offset.topic_id) {
                records.push(CoordinatorRecord::offset_tombstone(
                    &key.group,
                    &topic,
                    key.partition,
                ));
            }
        }
    }
}
