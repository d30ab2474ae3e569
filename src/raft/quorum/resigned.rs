//! Resigned: led this epoch and gave up, or led it before a restart. It tells the voters,
//! so that one of them campaigns at once, and never leads this epoch again.

use std::collections::BTreeSet;

use super::calls::{CallKind, Peer};
use super::effects::{Effects, Request};
use super::{Quorum, Role};
use crate::base::{BrokerId, LeaderEpoch, Nanos};
use crate::raft::voters::ReplicaKey;

#[derive(Debug)]
pub(super) struct Resigned {
    /// Voters from the one with the longest log on.
    pub(super) preferred: Vec<ReplicaKey>,
    /// Voters that haven't answered its EndQuorumEpoch.
    pub(super) unacknowledged: BTreeSet<BrokerId>,
    pub(super) election_at: Nanos,
}

impl Resigned {
    pub(super) fn deadline(&self) -> Nanos {
        self.election_at
    }
}

impl Quorum {
    pub(super) fn become_resigned(&mut self, fx: &mut Effects) {
        let Role::Leader(leader) = &self.role else {
            unreachable!("only leaders resign");
        };
        let preferred = leader.voters_by_end(self.log.voters(), &self.config.me);
        let role = Resigned {
            unacknowledged: preferred.iter().map(|key| key.id).collect(),
            preferred,
            election_at: self.election_deadline(),
        };
        self.transition(self.epoch, Role::Resigned(role), fx);
    }

    pub(super) fn poll_resigned(&mut self, fx: &mut Effects) {
        let Role::Resigned(state) = &self.role else {
            unreachable!("polled as what it is");
        };
        let is_over = self.is_due(state.election_at);
        if self.is_stopping && (is_over || state.unacknowledged.is_empty()) {
            return self.stop(fx);
        }
        if is_over {
            return self.become_unattached(LeaderEpoch(self.epoch.0 + 1), None, fx);
        }
        let voters = self.log.voters();
        let remote = |id: &&BrokerId| voters.get(**id).is_some();
        let asked: Vec<BrokerId> = state
            .unacknowledged
            .iter()
            .filter(remote)
            .copied()
            .collect();
        for id in asked {
            let request = |this: &Quorum| Request::EndQuorumEpoch(this.end_request());
            self.maybe_call(CallKind::End, Peer::Node(id), request, fx);
        }
    }
}
