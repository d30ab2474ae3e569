//! How far the leader's replicas are, as their fetches tell.

use std::collections::BTreeMap;
use std::time::Duration;

use super::effects::Now;
use crate::base::{BrokerId, Millis, Nanos, Offset};
use crate::raft::voters::{ReplicaKey, VoterSet};

/// An observer that was silent for so long is forgotten.
const OBSERVER_SILENCE: Duration = Duration::from_secs(300);
/// Observers known at most; the one silent the longest makes room.
const OBSERVERS_MAX: usize = 10_000;
/// A new voter must have fetched, and been caught up, within this.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(3_600);

#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// Offset of the last valid Fetch: the replica has everything below.
    pub(super) end: Option<Offset>,
    last_fetch: Option<Nanos>,
    pub(super) last_fetch_ms: Millis,
    pub(super) last_caught_up_ms: Millis,
    has_caught_up: bool,
    /// Where the leader's log ended at the last fetch.
    leader_end: Offset,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress {
            end: None,
            last_fetch: None,
            last_fetch_ms: -1,
            last_caught_up_ms: -1,
            has_caught_up: false,
            leader_end: Offset(0),
        }
    }
}

impl Progress {
    fn on_fetch(&mut self, offset: Offset, leader_end: Offset, now: Now) {
        if offset >= leader_end {
            self.has_caught_up = true;
            self.last_caught_up_ms = self.last_caught_up_ms.max(now.wall_ms);
        } else if self.last_fetch.is_some() && offset >= self.leader_end {
            // It has what there was when it fetched before.
            self.has_caught_up = true;
            self.last_caught_up_ms = self.last_caught_up_ms.max(self.last_fetch_ms);
        }
        self.end = Some(offset);
        self.last_fetch = Some(now.mono);
        self.last_fetch_ms = now.wall_ms;
        self.leader_end = leader_end;
    }
}

#[derive(Debug, Default)]
pub(super) struct Replicas {
    /// The voters by their keys, as their set names them.
    voters: BTreeMap<ReplicaKey, Progress>,
    observers: BTreeMap<ReplicaKey, Progress>,
}

impl Replicas {
    /// Takes over a set of voters. Whoever stays, or was an observer, keeps its progress.
    pub(super) fn set_voters(&mut self, voters: &VoterSet) {
        let mut before = std::mem::take(&mut self.voters);
        for voter in voters.iter() {
            let known = before.remove(&voter.key);
            let known = known.or_else(|| self.observers.remove(&voter.key));
            self.voters.insert(voter.key, known.unwrap_or_default());
        }
        self.observers.extend(before);
    }

    /// The key by which a voter stands in the set.
    pub(super) fn voter_key(&self, key: &ReplicaKey) -> Option<ReplicaKey> {
        let named = ReplicaKey::without_directory(key.id);
        let found = [*key, named];
        found.into_iter().find(|key| self.voters.contains_key(key))
    }

    pub(super) fn on_fetch(
        &mut self,
        key: &ReplicaKey,
        offset: Offset,
        leader_end: Offset,
        now: Now,
    ) {
        if key.id < BrokerId(0) {
            return;
        }
        if let Some(voter) = self.voter_key(key) {
            let progress = self.voters.entry(voter).or_default();
            return progress.on_fetch(offset, leader_end, now);
        }
        if !self.observers.contains_key(key) {
            self.forget_silent(now.mono);
            if self.observers.len() >= OBSERVERS_MAX {
                let silent = self.observers.iter().min_by_key(|(_, p)| p.last_fetch);
                if let Some(key) = silent.map(|(key, _)| *key) {
                    self.observers.remove(&key);
                }
            }
        }
        let progress = self.observers.entry(*key).or_default();
        progress.on_fetch(offset, leader_end, now);
    }

    pub(super) fn forget_silent(&mut self, now: Nanos) {
        let is_heard = |progress: &Progress| {
            let last = progress.last_fetch.unwrap_or(Nanos(0));
            now.saturating_since(last) < OBSERVER_SILENCE
        };
        self.observers.retain(|_, progress| is_heard(progress));
    }

    /// Whether an observer is near enough to the log's end to vote.
    pub(super) fn is_caught_up(&self, key: &ReplicaKey, now: Nanos) -> bool {
        self.observers.get(key).is_some_and(|progress| {
            let fetched = progress.last_fetch;
            let is_near = |at: Nanos| now.saturating_since(at) < CAUGHT_UP_WITHIN;
            progress.has_caught_up && fetched.is_some_and(is_near)
        })
    }

    /// Ends of the voters; the leader's own is what it has on stable storage.
    pub(super) fn voter_ends(&self, me: &ReplicaKey, flushed: Offset) -> Vec<Option<Offset>> {
        let own = self.voter_key(me);
        let end = |(key, progress): (&ReplicaKey, &Progress)| {
            if Some(*key) == own {
                Some(flushed)
            } else {
                progress.end
            }
        };
        self.voters.iter().map(end).collect()
    }

    pub(super) fn voters(&self) -> impl Iterator<Item = (&ReplicaKey, &Progress)> {
        self.voters.iter()
    }

    pub(super) fn observers(&self) -> impl Iterator<Item = (&ReplicaKey, &Progress)> {
        self.observers.iter()
    }
}
