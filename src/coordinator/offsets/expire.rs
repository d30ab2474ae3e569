//! Expiry of offsets (KIP-211). The shard's periodic sweep asks for one group at a time.

use std::rc::Rc;

use super::store::{CommittedOffset, OffsetStore, View};
use crate::base::Millis;
use crate::coordinator::group::{ClassicGroup, RetentionBase};
use crate::coordinator::records::CoordinatorRecord;

impl OffsetStore {
    /// Tombstones for the group's expired offsets. Whether nothing is left then, pending
    /// transactions included: an empty group may go as well.
    pub(crate) fn decide_expire(
        &self,
        group: &ClassicGroup,
        now_ms: Millis,
        retention_ms: i64,
        records: &mut Vec<CoordinatorRecord>,
    ) -> Expired {
        let id: &Rc<str> = group.id();
        let mut expired = Expired {
            looked_at: 0,
            is_everything: self.unstable(id).next().is_none(),
        };
        let Some(base) = group.retention_base() else {
            expired.is_everything &= self.topics(View::Latest, id).next().is_none();
            return expired;
        };
        for (topic, offsets) in self.topics(View::Latest, id) {
            let is_subscribed = group.is_subscribed_to(topic);
            for (partition, offset) in offsets {
                expired.looked_at += 1;
                if !is_subscribed
                    && is_expired(offset, base, now_ms, retention_ms)
                    && !self.is_unstable(id, topic, partition)
                {
                    records.push(CoordinatorRecord::offset_tombstone(id, topic, partition));
                } else {
                    expired.is_everything = false;
                }
            }
        }
        expired
    }
}

pub(crate) struct Expired {
    pub looked_at: usize,
    pub is_everything: bool,
}

/// An offset with a time of its own (OffsetCommit v2–4) goes then; any other a retention
/// after its base.
fn is_expired(
    offset: &CommittedOffset,
    base: RetentionBase,
    now_ms: Millis,
    retention_ms: i64,
) -> bool {
    match (offset.expire_timestamp_ms, base) {
        (Some(expire_ms), _) => now_ms >= expire_ms,
        (None, RetentionBase::Commit) => {
            now_ms.saturating_sub(offset.commit_timestamp_ms) >= retention_ms
        }
        (None, RetentionBase::EmptySince(since_ms)) => {
            now_ms.saturating_sub(since_ms) >= retention_ms
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::base::{Offset, ProducerId};
    use crate::wire::messages::OffsetCommitValue;
    use crate::wire::messages::group_metadata_value::{GroupMetadataValue, MemberMetadata};

    const RETENTION_MS: i64 = 100;

    /// Offsets of topics `read` and `unread`, committed at 1,000; what of them expires.
    fn expired(group: Option<GroupMetadataValue>, expire_timestamp: i64, now_ms: Millis) -> String {
        let id: Rc<str> = "g".into();
        let group = match group {
            Some(value) => ClassicGroup::from_record(id.clone(), &value),
            None => ClassicGroup::new(id.clone(), 0),
        };
        let mut store = OffsetStore::new();
        for (at, topic) in ["read", "unread"].into_iter().enumerate() {
            let value = OffsetCommitValue {
                commit_timestamp: 1_000,
                expire_timestamp,
                ..OffsetCommitValue::default()
            };
            store.replay(
                Offset(at as i64),
                ProducerId::NONE,
                id.clone(),
                topic.into(),
                0,
                Some(&value),
            );
        }
        let mut records = Vec::new();
        let result = store.decide_expire(&group, now_ms, RETENTION_MS, &mut records);
        assert_eq!(result.is_everything, records.len() == 2);
        let topics: Vec<String> = records
            .into_iter()
            .map(|record| match record {
                CoordinatorRecord::OffsetCommit {
                    topic, value: None, ..
                } => topic.to_string(),
                other => panic!("{other:?}"),
            })
            .collect();
        topics.join(" ")
    }

    fn group(
        protocol_type: &str,
        since_ms: i64,
        subscription: Option<&'static [u8]>,
    ) -> GroupMetadataValue {
        GroupMetadataValue {
            protocol_type: protocol_type.into(),
            protocol: Some("range".into()),
            current_state_timestamp: since_ms,
            members: subscription
                .map(|subscription| MemberMetadata {
                    member_id: "m".into(),
                    subscription: Bytes::from_static(subscription),
                    ..MemberMetadata::default()
                })
                .into_iter()
                .collect(),
            ..GroupMetadataValue::default()
        }
    }

    #[test]
    fn a_group_without_members_ever_counts_from_the_commit() {
        assert_eq!(expired(None, -1, 1_099), "");
        assert_eq!(expired(None, -1, 1_100), "read unread");
    }

    #[test]
    fn an_empty_group_counts_from_when_it_got_empty() {
        let empty = |since_ms| Some(group("consumer", since_ms, None));
        assert_eq!(expired(empty(5_000), -1, 5_099), "");
        assert_eq!(expired(empty(5_000), -1, 5_100), "read unread");
        // Records before version 2 don't tell.
        assert_eq!(expired(empty(-1), -1, 1_100), "read unread");
    }

    #[test]
    fn a_group_of_consumers_loses_what_nobody_reads() {
        let reads = &b"\0\0\0\0\0\x01\0\x04read"[..];
        assert_eq!(
            expired(Some(group("consumer", 5_000, Some(reads))), -1, 1_100),
            "unread"
        );
        assert_eq!(
            expired(Some(group("consumer", 5_000, Some(reads))), -1, 1_099),
            ""
        );
        // Whose subscriptions can't be read may read anything; of other groups nothing is known.
        assert_eq!(
            expired(Some(group("consumer", 5_000, Some(b"?"))), -1, 9_000),
            ""
        );
        assert_eq!(
            expired(Some(group("connect", 5_000, Some(reads))), -1, 9_000),
            ""
        );
    }

    #[test]
    fn an_offset_may_bring_its_own_end() {
        assert_eq!(expired(None, 1_050, 1_049), "");
        assert_eq!(expired(None, 1_050, 1_050), "read unread");
        assert_eq!(expired(None, 9_000, 1_100), "");
    }
}
