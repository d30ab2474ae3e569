//! What Prospective and Candidate share: the votes of an election, and how long a replica
//! that lost one waits.

use std::collections::BTreeMap;

use super::Quorum;
use super::calls::{CallKind, Peer};
use super::effects::{Effects, Request};
use crate::base::BrokerId;
use crate::raft::voters::{ReplicaKey, VoterSet};

/// Answers of voters, this replica's own among them.
#[derive(Clone, Debug, Default)]
pub(super) struct Votes(BTreeMap<BrokerId, bool>);

impl Votes {
    /// Counts the first answer of a voter.
    pub(super) fn add(&mut self, from: BrokerId, is_granted: bool) {
        self.0.entry(from).or_insert(is_granted);
    }

    fn count(&self, voters: &VoterSet, granted: bool) -> usize {
        let counts = |(id, vote): (&BrokerId, &bool)| *vote == granted && voters.get(*id).is_some();
        self.0.iter().filter(|entry| counts(*entry)).count()
    }

    pub(super) fn is_won(&self, voters: &VoterSet) -> bool {
        self.count(voters, true) >= voters.majority()
    }

    /// Whether the voters left can't make a majority any more.
    pub(super) fn is_lost(&self, voters: &VoterSet) -> bool {
        voters.len() - self.count(voters, false) < voters.majority()
    }

    pub(super) fn granting(&self) -> impl Iterator<Item = BrokerId> + '_ {
        let granted = self.0.iter().filter(|(_, granted)| **granted);
        granted.map(|(id, _)| *id)
    }

    fn has_answered(&self, id: BrokerId) -> bool {
        self.0.contains_key(&id)
    }
}

impl Quorum {
    /// Asks the voters that have not answered.
    pub(super) fn ask_for_votes(&mut self, kind: CallKind, votes: &Votes, fx: &mut Effects) {
        let keys = self.log.voters().iter().map(|voter| voter.key);
        let others: Vec<ReplicaKey> = keys
            .filter(|key| key.id != self.config.me.id && !votes.has_answered(key.id))
            .collect();
        for voter in others {
            let request =
                |this: &Quorum| Request::Vote(this.vote_request(&voter, kind == CallKind::PreVote));
            self.maybe_call(kind, Peer::Node(voter.id), request, fx);
        }
    }

    /// After so many elections lost in a row: random, up to twice as long each time.
    pub(super) fn lost_election_backoff_ms(&mut self, retries: u32) -> u64 {
        let range = self.config.retry_backoff_ms << retries.clamp(1, 20);
        let ms = self.rng.below(range) + 1;
        ms.min(self.config.election_backoff_max_ms)
    }
}

/// How long a follower waits that stands at `position` of the `count` replicas which a
/// leader prefers after it: the first not at all, each later one twice as long, those it
/// didn't name the longest. Nobody waits where it named none.
pub(super) fn successor_backoff_ms(position: Option<usize>, count: usize, max_ms: u64) -> u64 {
    match position {
        Some(0) => 0,
        Some(position) => {
            let base = max_ms >> (count - 1).min(63);
            base.checked_shl(position as u32 - 1)
                .unwrap_or(max_ms)
                .min(max_ms)
        }
        None if count == 0 => 0,
        None => max_ms,
    }
}
