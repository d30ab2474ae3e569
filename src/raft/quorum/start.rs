//! How a replica begins: from its quorum-state, its log and its snapshots.

use super::calls::Calls;
use super::effects::{Config, Now};
use super::follower::{Follower, KnownLeader};
use super::log_view::LogView;
use super::outbox::Outbox;
use super::resigned::Resigned;
use super::unattached::Unattached;
use super::{Quorum, Role};
use crate::base::rng::Rng;
use crate::base::{LeaderEpoch, Offset};
use crate::raft::quorum_state::ElectionState;

/// What a replica finds when it starts.
#[derive(Debug)]
pub struct Boot {
    pub config: Config,
    /// All of it on stable storage. A snapshot that it doesn't reach has taken its place.
    pub log: LogView,
    /// Of the file `quorum-state`.
    pub election: Option<ElectionState>,
    pub rng: Rng,
}

impl Quorum {
    /// The first [`Input::Tick`](super::Input::Tick) is due at once.
    pub fn start(now: Now, boot: Boot) -> Quorum {
        let Boot {
            config,
            mut log,
            election,
            rng,
        } = boot;
        log.set_flushed(log.end());
        let found = election.clone();
        let election = election.unwrap_or(ElectionState {
            epoch: LeaderEpoch(0),
            leader: None,
            voted: None,
        });
        // A log of a later epoch tells that the file was lost; nothing is known of that one.
        let election = if election.epoch < log.last_epoch() {
            ElectionState {
                epoch: log.last_epoch(),
                leader: None,
                voted: None,
            }
        } else {
            election
        };
        let role = Unattached {
            voted: election.voted,
            leader: election.leader,
            election_at: now.mono,
        };
        let snapshot = log.latest_snapshot().map(|id| id.offset);
        let mut quorum = Quorum {
            config,
            now,
            rng,
            log,
            epoch: election.epoch,
            role: Role::Unattached(role),
            transitions: 0,
            high_watermark: snapshot.filter(|offset| *offset > Offset(0)),
            outbox: Outbox::new(found),
            calls: Calls::default(),
            flushing: None,
            flushes: 0,
            finishing: None,
            announced: (LeaderEpoch(-1), None),
            is_stopping: false,
            has_stopped: false,
            has_faulted: false,
        };
        quorum.role = quorum.first_role(&election);
        quorum.invariants();
        quorum
    }

    fn first_role(&mut self, election: &ElectionState) -> Role {
        let me = self.config.me;
        let election_at = self.election_deadline();
        let voters = self.log.voters();
        let unattached = Unattached {
            voted: election.voted,
            leader: election.leader,
            election_at,
        };
        match election.leader {
            // It can't tell any more what it wrote in that epoch, so the epoch is over. A
            // single voter needs to tell nobody.
            Some(id) if id == me.id && !voters.is_only_voter(&me) => {
                let others = voters.iter().map(|voter| voter.key.id);
                Role::Resigned(Resigned {
                    preferred: Vec::new(),
                    unacknowledged: others.filter(|other| *other != id).collect(),
                    election_at,
                })
            }
            Some(id) if id != me.id => {
                let endpoints = self.leader_endpoints(id).unwrap_or_default();
                let leader = KnownLeader { id, endpoints };
                if !self.can_reach(&leader) {
                    return Role::Unattached(unattached);
                }
                let silent_at = self.after_ms(self.config.fetch_timeout_ms);
                Role::Follower(Follower {
                    leader,
                    fetch_at: silent_at,
                    has_fetched: false,
                    fetching: None,
                    has_updated: false,
                    update_at: silent_at,
                })
            }
            // A candidate doesn't go on: it may have been elected without knowing it.
            _ => Role::Unattached(unattached),
        }
    }
}
