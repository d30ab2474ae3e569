//! The offsets by group, topic and partition, with as many versions of each as are not yet
//! committed. Changed only by replaying records.
//!
//! A reader that doesn't ask for stable offsets must not see one that a crash could take
//! back, so reads go through a [`View`]: what the log holds below the high watermark, or
//! all of it.
//!
//! ```text
//!  log          … 40 │ 41   42   43
//!  high watermark ───┘
//!  slot of t-0   [40: 7] [42: 9] [43: gone]     View::Committed → 7, View::Latest → nothing
//!  committed 43  [42: 9] [43: gone]             View::Committed → 9
//!  committed 44                                 the slot is removed
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use smallvec::{SmallVec, smallvec};

use super::transactions::Transactions;
use crate::base::{Millis, Offset, Uuid};
use crate::wire::messages::OffsetCommitValue;

#[derive(Clone, Debug, PartialEq)]
pub struct CommittedOffset {
    /// Where the commit stands in the log of `__consumer_offsets`.
    pub record_offset: Offset,
    pub offset: i64,
    /// -1 where the client gave none.
    pub leader_epoch: i32,
    pub metadata: Box<str>,
    pub commit_timestamp_ms: Millis,
    /// Set by clients of OffsetCommit v2–4 that brought their own retention.
    pub expire_timestamp_ms: Option<Millis>,
    /// Zero where unknown: records before version 4 have no room for it.
    pub topic_id: Uuid,
}

impl CommittedOffset {
    pub(crate) fn from_record(record_offset: Offset, value: &OffsetCommitValue) -> Self {
        CommittedOffset {
            record_offset,
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: value.metadata.as_str().into(),
            commit_timestamp_ms: value.commit_timestamp,
            expire_timestamp_ms: Some(value.expire_timestamp).filter(|&at| at != -1),
            topic_id: value.topic_id,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Below the high watermark: cannot be lost.
    Committed,
    /// Everything replayed.
    Latest,
}

#[derive(Debug, Default)]
pub struct OffsetStore {
    groups: BTreeMap<Rc<str>, Topics>,
    /// Versions at or above `committed`, in the log's order.
    uncommitted: VecDeque<(Offset, OffsetKey)>,
    /// First offset of the log that is not committed; never falls.
    committed: Offset,
    pub(super) transactions: Transactions,
}

type Topics = BTreeMap<Rc<str>, BTreeMap<i32, Slot>>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OffsetKey {
    pub group: Rc<str>,
    pub topic: Rc<str>,
    pub partition: i32,
}

/// The versions of one offset, the newest last; all but the first are uncommitted. Never
/// empty, and never a single committed absence.
#[derive(Debug)]
struct Slot {
    versions: SmallVec<[Version; 1]>,
}

#[derive(Debug)]
struct Version {
    at: Offset,
    value: Option<CommittedOffset>,
}

impl Slot {
    fn get(&self, view: View, committed: Offset) -> Option<&CommittedOffset> {
        match view {
            View::Latest => self.versions.last()?.value.as_ref(),
            View::Committed => self
                .versions
                .iter()
                .rev()
                .find(|version| version.at < committed)?
                .value
                .as_ref(),
        }
    }
}

impl OffsetStore {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn get(
        &self,
        view: View,
        group: &str,
        topic: &str,
        partition: i32,
    ) -> Option<&CommittedOffset> {
        self.groups
            .get(group)?
            .get(topic)?
            .get(&partition)?
            .get(view, self.committed)
    }

    /// A topic's offsets, by partition.
    pub fn topic(
        &self,
        view: View,
        group: &str,
        topic: &str,
    ) -> impl Iterator<Item = (i32, &CommittedOffset)> {
        self.groups
            .get(group)
            .and_then(|topics| topics.get(topic))
            .into_iter()
            .flat_map(move |slots| self.visible(view, slots))
    }

    /// A group's topics with their offsets, by name. A topic may turn out to have none.
    pub fn topics(
        &self,
        view: View,
        group: &str,
    ) -> impl Iterator<Item = (&Rc<str>, impl Iterator<Item = (i32, &CommittedOffset)>)> {
        self.groups
            .get(group)
            .into_iter()
            .flatten()
            .map(move |(topic, slots)| (topic, self.visible(view, slots)))
    }

    /// All groups that have offsets.
    pub fn groups(&self) -> impl Iterator<Item = &Rc<str>> {
        self.groups.keys()
    }

    fn visible<'a>(
        &'a self,
        view: View,
        slots: &'a BTreeMap<i32, Slot>,
    ) -> impl Iterator<Item = (i32, &'a CommittedOffset)> {
        slots.iter().filter_map(move |(partition, slot)| {
            Some((*partition, slot.get(view, self.committed)?))
        })
    }

    /// Sets or (with `None`) removes an offset by the record at `at`, the log's newest.
    pub(super) fn put(&mut self, at: Offset, key: &OffsetKey, value: Option<CommittedOffset>) {
        if at < self.committed {
            match value {
                Some(value) => self.slot(key, at, value),
                None => self.remove_slot(key),
            }
            return;
        }
        let versions = self
            .groups
            .get_mut(&key.group)
            .and_then(|topics| topics.get_mut(&key.topic))
            .and_then(|slots| slots.get_mut(&key.partition))
            .map(|slot| &mut slot.versions);
        match (versions, value) {
            (Some(versions), value) => {
                debug_assert!(versions.last().is_none_or(|last| last.at <= at));
                versions.push(Version { at, value });
            }
            (None, Some(value)) => self.slot(key, at, value),
            (None, None) => return,
        }
        self.uncommitted.push_back((at, key.clone()));
    }

    /// The high watermark is now `committed`.
    pub(crate) fn set_committed(&mut self, committed: Offset) {
        if committed <= self.committed {
            return;
        }
        self.committed = committed;
        while let Some((at, _)) = self.uncommitted.front() {
            if *at >= committed {
                break;
            }
            if let Some((_, key)) = self.uncommitted.pop_front() {
                self.forget_older(&key);
            }
        }
    }

    pub fn committed(&self) -> Offset {
        self.committed
    }

    /// Leaves the newest committed version of a slot as its oldest.
    fn forget_older(&mut self, key: &OffsetKey) {
        let committed = self.committed;
        let Some(slot) = self
            .groups
            .get_mut(&key.group)
            .and_then(|topics| topics.get_mut(&key.topic))
            .and_then(|slots| slots.get_mut(&key.partition))
        else {
            return;
        };
        let newest = slot
            .versions
            .iter()
            .rposition(|version| version.at < committed)
            .unwrap_or(0);
        slot.versions.drain(..newest);
        let is_gone =
            matches!(&slot.versions[..], [only] if only.value.is_none() && only.at < committed);
        if is_gone {
            self.remove_slot(key);
        }
    }

    /// Replaces a slot by one version.
    fn slot(&mut self, key: &OffsetKey, at: Offset, value: CommittedOffset) {
        self.groups
            .entry(key.group.clone())
            .or_default()
            .entry(key.topic.clone())
            .or_default()
            .insert(
                key.partition,
                Slot {
                    versions: smallvec![Version {
                        at,
                        value: Some(value),
                    }],
                },
            );
    }

    fn remove_slot(&mut self, key: &OffsetKey) {
        let Some(topics) = self.groups.get_mut(&key.group) else {
            return;
        };
        if let Some(slots) = topics.get_mut(&key.topic) {
            slots.remove(&key.partition);
            if slots.is_empty() {
                topics.remove(&key.topic);
            }
        }
        if topics.is_empty() {
            self.groups.remove(&key.group);
        }
    }

    /// Panics where the store contradicts itself.
    pub fn invariants(&self) {
        let mut uncommitted = 0;
        for (group, topics) in &self.groups {
            assert!(!topics.is_empty(), "{group}: no topics");
            for (topic, slots) in topics {
                assert!(!slots.is_empty(), "{group} {topic}: no partitions");
                for slot in slots.values() {
                    let versions = &slot.versions;
                    assert!(!versions.is_empty(), "{group} {topic}: no version");
                    assert!(
                        versions.iter().is_sorted_by_key(|version| version.at),
                        "{group} {topic}: order"
                    );
                    let below = versions.iter().filter(|v| v.at < self.committed).count();
                    assert!(below <= 1, "{group} {topic}: old versions");
                    uncommitted += versions.len() - below;
                    assert!(
                        versions.len() > 1 || versions[0].value.is_some() || below == 0,
                        "{group} {topic}: a committed absence"
                    );
                }
            }
        }
        assert_eq!(uncommitted, self.uncommitted.len(), "uncommitted versions");
        assert!(
            self.uncommitted.iter().is_sorted_by_key(|entry| entry.0),
            "order of uncommitted versions"
        );
        self.transactions.invariants();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: i32) -> OffsetKey {
        OffsetKey {
            group: "g".into(),
            topic: "t".into(),
            partition,
        }
    }

    fn value(at: i64, offset: i64) -> Option<CommittedOffset> {
        Some(CommittedOffset::from_record(
            Offset(at),
            &OffsetCommitValue {
                offset,
                ..OffsetCommitValue::default()
            },
        ))
    }

    fn offset(store: &OffsetStore, view: View) -> Option<i64> {
        store.invariants();
        store.get(view, "g", "t", 0).map(|value| value.offset)
    }

    #[test]
    fn readers_see_what_is_committed_until_more_is() {
        let mut store = OffsetStore::new();
        store.set_committed(Offset(41));
        store.put(Offset(40), &key(0), value(40, 7));
        store.put(Offset(42), &key(0), value(42, 9));
        store.put(Offset(43), &key(0), None);
        assert_eq!(offset(&store, View::Committed), Some(7));
        assert_eq!(offset(&store, View::Latest), None);
        assert_eq!(store.topics(View::Latest, "g").flat_map(|t| t.1).count(), 0);
        assert_eq!(
            store.topics(View::Committed, "g").flat_map(|t| t.1).count(),
            1
        );
        store.set_committed(Offset(43));
        assert_eq!(offset(&store, View::Committed), Some(9));
        store.set_committed(Offset(44));
        assert_eq!(offset(&store, View::Committed), None);
        assert_eq!(store.groups().count(), 0);
    }

    #[test]
    fn agrees_with_a_log_cut_at_the_high_watermark() {
        let mut rng = crate::base::Rng::new(11);
        let mut store = OffsetStore::new();
        let mut log: Vec<(i32, Option<i64>)> = Vec::new();
        for _ in 0..4_000 {
            let at = log.len() as i64;
            if rng.one_in(3) {
                let committed = store.committed().0;
                store.set_committed(Offset(
                    committed + rng.below((at - committed) as u64 + 1) as i64,
                ));
            } else {
                let partition = rng.below(4) as i32;
                let written = (!rng.one_in(3)).then_some(at * 10);
                store.put(
                    Offset(at),
                    &key(partition),
                    written.and_then(|offset| value(at, offset)),
                );
                log.push((partition, written));
            }
            store.invariants();
            for partition in 0..4 {
                let last = |upto: usize| {
                    log[..upto]
                        .iter()
                        .rev()
                        .find(|entry| entry.0 == partition)
                        .and_then(|entry| entry.1)
                };
                let get = |view| store.get(view, "g", "t", partition).map(|v| v.offset);
                assert_eq!(get(View::Latest), last(log.len()));
                assert_eq!(get(View::Committed), last(store.committed().0 as usize));
            }
        }
    }
}
