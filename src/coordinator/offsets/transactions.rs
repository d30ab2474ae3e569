//! Offsets committed within a transaction. They stand in the log as ordinary commits of a
//! transactional batch and count only when the transaction's commit marker follows.
//!
//! Reading them is complete, since a log written by Kafka has them; TxnOffsetCommit, which
//! would write them, is not built yet.

use std::collections::{BTreeMap, BTreeSet};

use tracing::debug;

use super::store::{CommittedOffset, OffsetKey, OffsetStore, View};
use crate::base::{Offset, ProducerId};
use crate::wire::messages::OffsetCommitValue;

#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// By producer: what its open transaction would commit.
    pending: BTreeMap<ProducerId, BTreeMap<OffsetKey, CommittedOffset>>,
    /// By offset: the producers that have it pending. No empty sets.
    open: BTreeMap<OffsetKey, BTreeSet<ProducerId>>,
}

impl Transactions {
    fn clear(&mut self, key: &OffsetKey) {
        for producer in self.open.remove(key).unwrap_or_default() {
            if let Some(offsets) = self.pending.get_mut(&producer) {
                offsets.remove(key);
            }
        }
    }

    fn end(&mut self, producer: ProducerId) -> BTreeMap<OffsetKey, CommittedOffset> {
        let offsets = self.pending.remove(&producer).unwrap_or_default();
        for key in offsets.keys() {
            if let Some(producers) = self.open.get_mut(key) {
                producers.remove(&producer);
                if producers.is_empty() {
                    self.open.remove(key);
                }
            }
        }
        offsets
    }

    pub(super) fn invariants(&self) {
        let open: BTreeSet<(&OffsetKey, ProducerId)> = self
            .open
            .iter()
            .flat_map(|(key, producers)| producers.iter().map(move |producer| (key, *producer)))
            .collect();
        let pending: BTreeSet<(&OffsetKey, ProducerId)> = self
            .pending
            .iter()
            .flat_map(|(producer, offsets)| offsets.keys().map(move |key| (key, *producer)))
            .collect();
        assert_eq!(open, pending, "open transactions");
        assert!(self.open.values().all(|producers| !producers.is_empty()));
    }
}

impl OffsetStore {
    /// Applies a commit or tombstone at `at`. A tombstone also voids what transactions hold
    /// for that offset.
    pub(crate) fn replay(
        &mut self,
        at: Offset,
        producer: ProducerId,
        group: std::rc::Rc<str>,
        topic: std::rc::Rc<str>,
        partition: i32,
        value: Option<&OffsetCommitValue>,
    ) {
        let key = OffsetKey {
            group,
            topic,
            partition,
        };
        match value.map(|value| CommittedOffset::from_record(at, value)) {
            Some(value) if producer == ProducerId::NONE => self.put(at, &key, Some(value)),
            Some(value) => {
                let transactions = &mut self.transactions;
                transactions
                    .open
                    .entry(key.clone())
                    .or_default()
                    .insert(producer);
                transactions
                    .pending
                    .entry(producer)
                    .or_default()
                    .insert(key, value);
            }
            None => {
                self.put(at, &key, None);
                self.transactions.clear(&key);
            }
        }
    }

    /// Applies a transaction marker at `at`. A commit that is older than what is stored
    /// already loses against it.
    pub(crate) fn replay_end_of_transaction(
        &mut self,
        at: Offset,
        producer: ProducerId,
        is_commit: bool,
    ) {
        for (key, value) in self.transactions.end(producer) {
            let stored = self.get(View::Latest, &key.group, &key.topic, key.partition);
            if !is_commit || stored.is_some_and(|stored| stored.record_offset > value.record_offset)
            {
                debug!(
                    group = &*key.group,
                    topic = &*key.topic,
                    "dropped a pending offset"
                );
                continue;
            }
            self.put(at, &key, Some(value));
        }
    }

    /// Whether an open transaction would change this offset.
    pub(crate) fn is_unstable(&self, group: &str, topic: &str, partition: i32) -> bool {
        !self.transactions.open.is_empty()
            && self.transactions.open.contains_key(&OffsetKey {
                group: group.into(),
                topic: topic.into(),
                partition,
            })
    }

    /// Offsets of the group that open transactions would change.
    pub(super) fn unstable(&self, group: &str) -> impl Iterator<Item = &OffsetKey> {
        let from = OffsetKey {
            group: group.into(),
            topic: "".into(),
            partition: i32::MIN,
        };
        self.transactions
            .open
            .range(from..)
            .map(|entry| entry.0)
            .take_while(move |key| &*key.group == group)
    }

    /// Offsets of any group that open transactions would change in that topic, with the
    /// newest pending value's topic id.
    pub(super) fn unstable_in_topic(
        &self,
        topic: &str,
    ) -> impl Iterator<Item = (&OffsetKey, &CommittedOffset)> {
        self.transactions
            .pending
            .values()
            .flatten()
            .filter(move |(key, _)| &*key.topic == topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(store: &mut OffsetStore, at: i64, producer: i64, offset: i64) {
        let value = OffsetCommitValue {
            offset,
            ..OffsetCommitValue::default()
        };
        store.replay(
            Offset(at),
            ProducerId(producer),
            "g".into(),
            "t".into(),
            0,
            Some(&value),
        );
        store.invariants();
    }

    fn end(store: &mut OffsetStore, at: i64, producer: i64, is_commit: bool) {
        store.replay_end_of_transaction(Offset(at), ProducerId(producer), is_commit);
        store.invariants();
    }

    fn get(store: &OffsetStore, view: View) -> Option<i64> {
        store.get(view, "g", "t", 0).map(|value| value.offset)
    }

    #[test]
    fn pending_offsets_wait_for_the_commit_marker() {
        let mut store = OffsetStore::new();
        commit(&mut store, 0, 5, 10);
        commit(&mut store, 1, 6, 20);
        assert_eq!(get(&store, View::Latest), None);
        assert!(store.is_unstable("g", "t", 0));
        end(&mut store, 2, 6, false);
        assert!(store.is_unstable("g", "t", 0));
        end(&mut store, 3, 5, true);
        assert!(!store.is_unstable("g", "t", 0));
        assert_eq!(get(&store, View::Latest), Some(10));
        assert_eq!(get(&store, View::Committed), None);
        store.set_committed(Offset(4));
        assert_eq!(get(&store, View::Committed), Some(10));
        end(&mut store, 4, 5, true);
    }

    #[test]
    fn the_newer_commit_wins_and_a_tombstone_voids() {
        let mut store = OffsetStore::new();
        commit(&mut store, 0, 5, 10);
        commit(&mut store, 1, -1, 11);
        end(&mut store, 2, 5, true);
        assert_eq!(get(&store, View::Latest), Some(11));
        commit(&mut store, 3, 5, 12);
        store.replay(Offset(4), ProducerId::NONE, "g".into(), "t".into(), 0, None);
        store.invariants();
        assert!(!store.is_unstable("g", "t", 0));
        end(&mut store, 5, 5, true);
        assert_eq!(get(&store, View::Latest), None);
    }
}
