//! Leader: appends, answers fetches, tells the voters that it leads, and resigns when a
//! majority of them doesn't fetch any more.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::calls::{CallKind, Peer};
use super::effects::{Effect, Effects, Proposal, Request};
use super::fetch_request::Waiting;
use super::log_view::LogView;
use super::membership::Change;
use super::progress::Replicas;
use super::{Quorum, Role};
use crate::base::{BrokerId, Nanos, Offset};
use crate::raft::control::{ControlRecord, control_batch, data_batch};
use crate::raft::voters::{Endpoint, ReplicaKey, VoterSet};
use crate::wire::messages::leader_change_message::Voter;
use crate::wire::messages::{KRaftVersionRecord, LeaderChangeMessage};

#[derive(Debug)]
pub(super) struct Leader {
    /// Offset of the first record of its epoch.
    pub(super) epoch_start: Offset,
    pub(super) replicas: Replicas,
    /// Voters that fetched since `check_at` was set.
    fetched: BTreeSet<BrokerId>,
    /// When it resigns unless a majority has fetched.
    check_at: Nanos,
    /// When each voter is told again who leads, if it doesn't fetch.
    begin_at: BTreeMap<BrokerId, Nanos>,
    /// Fetches that wait for records, or for the high watermark.
    pub(super) waiting: Vec<Waiting>,
    /// Something happened for which they may wait.
    pub(super) are_fetches_due: bool,
    /// The change of voters under way.
    pub(super) change: Option<Change>,
    /// Whether the controller was told to begin.
    is_leading: bool,
    /// Not a voter any more, and that is committed.
    must_resign: bool,
}

impl Leader {
    /// A fetch of a voter arrived.
    pub(super) fn on_heard(&mut self, voter: BrokerId, begin_at: Nanos) {
        self.fetched.insert(voter);
        self.begin_at.insert(voter, begin_at);
    }

    /// Where a replica is reached that is about to become a voter.
    pub(super) fn joining_endpoints(&self, id: BrokerId) -> Option<Vec<Endpoint>> {
        self.change.as_ref().and_then(|change| change.endpoints(id))
    }

    /// The other voters, from the one with the longest log on.
    pub(super) fn voters_by_end(&self, voters: &VoterSet, me: &ReplicaKey) -> Vec<ReplicaKey> {
        let others = self.replicas.voters().filter(|(key, _)| {
            let is_voter = voters.get(key.id).is_some();
            is_voter && key.id != me.id
        });
        let mut others: Vec<_> = others.map(|(key, p)| (p.end, *key)).collect();
        others.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        others.into_iter().map(|(_, key)| key).collect()
    }

    pub(super) fn invariants(&self, log: &LogView) {
        assert!(self.epoch_start < log.end(), "its first batch is there");
        let keys = self.replicas.voters().map(|(key, _)| *key);
        assert!(keys.eq(log.voters().iter().map(|voter| voter.key)));
    }
}

impl Quorum {
    pub(super) fn become_leader(&mut self, fx: &mut Effects) {
        let Role::Candidate(candidate) = &self.role else {
            unreachable!("only candidates are elected");
        };
        let voters = self.log.voters();
        assert!(candidate.votes.is_won(voters), "elected by a majority");
        let granting: Vec<BrokerId> = candidate.votes.granting().collect();
        let mut replicas = Replicas::default();
        replicas.set_voters(voters);
        let others = voters.iter().map(|voter| voter.key.id);
        let now = self.now.mono;
        let role = Leader {
            epoch_start: self.log.end(),
            replicas,
            fetched: BTreeSet::new(),
            check_at: self.check_deadline(),
            begin_at: others.map(|id| (id, now)).collect(),
            waiting: Vec::new(),
            are_fetches_due: false,
            change: None,
            is_leading: false,
            must_resign: false,
        };
        let first = self.first_records(&granting);
        self.transition(self.epoch, Role::Leader(role), fx);
        self.append_control(first, fx);
    }

    /// Control records of the epoch's first batch.
    fn first_records(&self, granting: &[BrokerId]) -> Vec<ControlRecord> {
        let voter = |id: BrokerId| Voter {
            voter_id: id.0,
            ..Default::default()
        };
        let voters = self.log.voters();
        let mut records = vec![ControlRecord::LeaderChange(LeaderChangeMessage {
            version: 0,
            leader_id: self.config.me.id.0,
            voters: voters.iter().map(|v| voter(v.key.id)).collect(),
            granting_voters: granting.iter().map(|id| voter(*id)).collect(),
        })];
        if self.log.kraft_version() > 0 {
            let me = self.config.as_voter();
            // It may be one that is about to be removed.
            let is_outdated = self.is_voter() && voters.get(me.key.id) != Some(&me);
            if self.log.are_voters_unwritten() || is_outdated {
                let updated = voters.updated(me);
                let voters = updated.unwrap_or_else(|| voters.clone());
                records.push(ControlRecord::KRaftVersion(KRaftVersionRecord {
                    version: 0,
                    kraft_version: self.log.kraft_version(),
                }));
                records.push(ControlRecord::Voters(voters.to_record()));
            }
        }
        records
    }

    /// Appends a batch of control records; the offset of its last one.
    pub(super) fn append_control(
        &mut self,
        records: Vec<ControlRecord>,
        fx: &mut Effects,
    ) -> Offset {
        let base = self.log.end();
        let batch = control_batch(&records, base, self.epoch, self.now.wall_ms);
        self.append_own(batch, records.len(), records, fx)
    }

    pub(super) fn on_propose(&mut self, proposal: Proposal, fx: &mut Effects) {
        let Proposal { epoch, values, tag } = proposal;
        let is_leader = matches!(self.role, Role::Leader(_)) && epoch == self.epoch;
        let last_offset = (is_leader && !values.is_empty()).then(|| {
            let base = self.log.end();
            let batch = data_batch(&values, base, self.epoch, self.now.wall_ms);
            self.append_own(batch, values.len(), Vec::new(), fx)
        });
        fx.push(Effect::Proposed { tag, last_offset });
    }

    fn append_own(
        &mut self,
        batches: Bytes,
        count: usize,
        control: Vec<ControlRecord>,
        fx: &mut Effects,
    ) -> Offset {
        let base_offset = self.log.end();
        let end_offset = base_offset + count as i64;
        fx.push(Effect::Append {
            batches,
            base_offset,
            end_offset,
        });
        let at = |index: usize| base_offset + index as i64;
        let control = control.into_iter().enumerate();
        let control = control.map(|(index, record)| (at(index), record));
        let voters_before = self.log.voters_offset();
        self.log.append(end_offset, self.epoch, control);
        let now = self.now.mono;
        let Role::Leader(leader) = &mut self.role else {
            unreachable!("only leaders append of their own");
        };
        leader.are_fetches_due = true;
        if self.log.voters_offset() != voters_before {
            let voters = self.log.voters();
            leader.replicas.set_voters(voters);
            leader.fetched.retain(|id| voters.get(*id).is_some());
            leader.begin_at.retain(|id, _| voters.get(*id).is_some());
            for voter in voters.iter() {
                leader.begin_at.entry(voter.key.id).or_insert(now);
            }
            // Fewer voters may have committed more.
            self.update_high_watermark(fx);
        }
        end_offset + -1
    }

    fn check_deadline(&self) -> Nanos {
        self.after_ms(self.config.fetch_timeout_ms * 3 / 2)
    }

    pub(super) fn leader_deadline(&self, state: &Leader) -> Nanos {
        let others = state.begin_at.iter().filter(|(id, _)| self.is_other(**id));
        let begin = others.map(|(_, at)| *at);
        // Nothing is answered before it is settled.
        let waiting = state.waiting.iter().filter(|_| self.outbox.is_settled());
        let waiting = waiting.map(|fetch| fetch.deadline);
        let change = state.change.iter().map(Change::deadline);
        let check = self.needs_others().then_some(state.check_at);
        let all = begin.chain(waiting).chain(change).chain(check);
        all.min().unwrap_or(Nanos::MAX)
    }

    fn needs_others(&self) -> bool {
        !self.log.voters().is_only_voter(&self.config.me)
    }

    fn is_other(&self, id: BrokerId) -> bool {
        id != self.config.me.id
    }

    pub(super) fn poll_leader(&mut self, fx: &mut Effects) {
        self.maybe_expire_change(fx);
        self.check_quorum();
        let Role::Leader(leader) = &self.role else {
            unreachable!("polled as what it is");
        };
        let is_cut_off = self.needs_others() && self.is_due(leader.check_at);
        if is_cut_off || leader.must_resign {
            return self.become_resigned(fx);
        }
        self.tell_the_voters(fx);
        self.complete_fetches(fx);
        if matches!(&self.role, Role::Leader(leader) if leader.must_resign) {
            self.become_resigned(fx);
        }
    }

    /// Starts the time anew once a majority has fetched.
    fn check_quorum(&mut self) {
        let check_at = self.check_deadline();
        let voters = self.log.voters();
        let Role::Leader(leader) = &mut self.role else {
            unreachable!("polled as what it is");
        };
        let own = usize::from(voters.is_voter(&self.config.me));
        if leader.fetched.len() + own >= voters.majority() {
            leader.fetched.clear();
            leader.check_at = check_at;
        }
    }

    fn tell_the_voters(&mut self, fx: &mut Effects) {
        let again_at = self.after_ms(self.config.fetch_timeout_ms / 2);
        // The last one has no answer yet, or just failed.
        let retry_at = self.after_ms(self.config.retry_backoff_ms);
        let Role::Leader(leader) = &self.role else {
            unreachable!("polled as what it is");
        };
        let due = leader.begin_at.iter();
        let due = due.filter(|(id, at)| self.is_other(**id) && self.is_due(**at));
        let due: Vec<BrokerId> = due.map(|(id, _)| *id).collect();
        for id in due {
            let key = self.log.voters().get(id).map(|voter| voter.key);
            let key = key.expect("told are voters only");
            let request = |this: &Quorum| Request::BeginQuorumEpoch(this.begin_request(&key));
            let is_sent = self.maybe_call(CallKind::Begin, Peer::Node(id), request, fx);
            let next = if is_sent { again_at } else { retry_at };
            if let Role::Leader(leader) = &mut self.role {
                leader.begin_at.insert(id, next);
            }
        }
    }

    /// After the high watermark rose.
    pub(super) fn on_leader_committed(&mut self, fx: &mut Effects) {
        let high_watermark = self.high_watermark.expect("it rose");
        let is_voter = self.is_voter();
        let is_set_committed = self
            .log
            .voters_offset()
            .is_none_or(|offset| offset < high_watermark);
        let Role::Leader(leader) = &mut self.role else {
            unreachable!("only leaders commit");
        };
        leader.are_fetches_due = true;
        leader.must_resign = !is_voter && is_set_committed;
        if !leader.is_leading {
            leader.is_leading = true;
            fx.push(Effect::Leading(self.epoch));
        }
        self.maybe_complete_change(high_watermark, fx);
    }

    /// What waited for a leader that is none any more gets its answer.
    pub(super) fn on_lost_leadership(&mut self, leader: Leader, fx: &mut Effects) {
        for fetch in leader.waiting {
            self.refuse_fetch(fetch, fx);
        }
        if let Some(change) = leader.change {
            self.refuse_change(change, fx);
        }
    }
}
