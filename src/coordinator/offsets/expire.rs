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
