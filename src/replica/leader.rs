//! What a replica keeps while it leads: how far its followers are, which of them count for
//! the high watermark, and who should join or leave the ISR (replication digest, sections
//! 2 and 3).
//!
//! Made by [`Replica::on_assignment`](super::Replica::on_assignment) for each term; the
//! log's ends and the assignment are the replica's, which passes them as a [`View`].
//!
//! Time is what it was last told ([`Leader::on_fetch`], [`Leader::on_time`]), so that an
//! append needs no clock: a follower that has fallen behind since holds the high watermark
//! until the next fetch or tick.

use std::time::Duration;

use super::Assignment;
use super::isr::{Answer, Isr, Proposal, Settled};
use super::progress::{FollowerFetch, Progress};
use crate::base::{BrokerId, ErrorCode, LeaderEpoch, Nanos, Offset};

/// Until a follower is proposed again that the controller didn't take: it knows of something
/// that the metadata here will tell in a moment.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// A broker as the metadata has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    pub epoch: i64,
    /// Neither fenced nor in controlled shutdown.
    pub is_active: bool,
}

/// What the replica has besides.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub me: BrokerId,
    pub assignment: &'a Assignment,
    pub log_end: Offset,
    pub high_watermark: Offset,
    pub min_insync_replicas: i32,
    /// `replica.lag.time.max.ms`.
    pub lag_max: Duration,
}

impl View<'_> {
    /// Replicas that have to be in sync: as many as the topic asks for, but never more than
    /// there are.
    fn required_in_sync(&self) -> usize {
        let asked = usize::try_from(self.min_insync_replicas).unwrap_or(0);
        asked.min(self.assignment.replicas.len())
    }
}

#[derive(Clone, Debug)]
pub struct Leader {
    /// Where the log ended when the term began: what is below is of earlier terms.
    epoch_start: Offset,
    /// The other replicas, in the order of the assignment.
    followers: Vec<Follower>,
    isr: Isr,
    /// The latest time that it was told.
    now: Nanos,
    /// Nobody is proposed to join before.
    expand_from: Nanos,
}

#[derive(Clone, Debug)]
struct Follower {
    id: BrokerId,
    progress: Progress,
    /// None where the metadata has no such broker.
    registration: Option<Registration>,
}

impl Follower {
    /// Whether the controller would take it into the ISR: it is active, and what it told was
    /// told by its present life.
    fn is_eligible(&self) -> bool {
        let told = self.progress.broker_epoch();
        self.registration.is_some_and(|registration| {
            registration.is_active
                && told.is_some_and(|epoch| epoch == -1 || epoch == registration.epoch)
        })
    }
}

impl Leader {
    /// At the start of a term.
    pub fn new(view: &View<'_>, now: Nanos) -> Leader {
        let mut leader = Leader {
            epoch_start: view.log_end,
            followers: Vec::new(),
            isr: Isr::default(),
            now,
            expand_from: now,
        };
        leader.on_assignment(view, now);
        leader
    }

    /// The same term has other replicas, or another ISR.
    pub fn on_assignment(&mut self, view: &View<'_>, now: Nanos) {
        self.now = self.now.max(now);
        self.isr.on_metadata(view.assignment.partition_epoch);
        let mut before = std::mem::take(&mut self.followers);
        let others = view.assignment.replicas.iter().filter(|id| **id != view.me);
        self.followers = others
            .map(|id| {
                let known = before.iter().position(|follower| follower.id == *id);
                known.map_or_else(
                    || Follower {
                        id: *id,
                        progress: Progress::new(view.assignment.isr.contains(id), now),
                        registration: None,
                    },
                    |at| before.swap_remove(at),
                )
            })
            .collect();
    }

    /// What the metadata says about brokers.
    pub fn on_brokers(&mut self, find: &dyn Fn(BrokerId) -> Option<Registration>) {
        for follower in &mut self.followers {
            follower.registration = find(follower.id);
        }
    }

    pub fn on_time(&mut self, now: Nanos) {
        self.now = self.now.max(now);
    }

    pub fn epoch_start(&self) -> Offset {
        self.epoch_start
    }

    pub fn has_followers(&self) -> bool {
        !self.followers.is_empty()
    }

    /// Whether the leader takes that broker's fetches for those of a follower. Errors: as in
    /// Kafka UNKNOWN_LEADER_EPOCH for one that is no replica yet, and names the term that it
    /// knows (`knows_term`): metadata is on its way; NOT_LEADER_OR_FOLLOWER for another one,
    /// and for an earlier life of the broker.
    pub fn check_follower(
        &self,
        id: BrokerId,
        broker_epoch: i64,
        knows_term: bool,
    ) -> Result<(), ErrorCode> {
        let Some(follower) = self.find(id) else {
            return Err(match knows_term {
                true => ErrorCode::UNKNOWN_LEADER_EPOCH,
                false => ErrorCode::NOT_LEADER_OR_FOLLOWER,
            });
        };
        let is_earlier_life = broker_epoch != -1
            && follower
                .registration
                .is_some_and(|registration| broker_epoch < registration.epoch);
        if is_earlier_life {
            return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        }
        Ok(())
    }

    /// A follower, which was checked, has everything below an offset.
    pub fn on_fetch(&mut self, id: BrokerId, fetch: &FollowerFetch, log_end: Offset) {
        self.now = self.now.max(fetch.now);
        if let Some(follower) = self.followers.iter_mut().find(|f| f.id == id) {
            follower.progress.on_fetch(fetch, log_end);
        }
    }

    /// A proposal that a follower joins the ISR: it has everything that is committed, and what
    /// this term began with.
    pub fn maybe_expand(&mut self, view: &View<'_>, id: BrokerId) -> Option<Proposal> {
        let isr = &view.assignment.isr;
        if isr.contains(&id) || self.isr.is_in_flight() || self.now < self.expand_from {
            return None;
        }
        let follower = self.find(id)?;
        let end = follower.progress.end();
        if end < view.high_watermark || end < self.epoch_start || !follower.is_eligible() {
            return None;
        }
        let members = isr.iter().copied().chain([id]).collect::<Vec<_>>();
        Some(self.propose(view, &members))
    }

    /// A proposal that those leave the ISR who haven't been caught up for too long.
    pub fn maybe_shrink(&mut self, view: &View<'_>) -> Option<Proposal> {
        if self.isr.is_in_flight() || self.followers.is_empty() {
            return None;
        }
        let stays = |id: &BrokerId| {
            *id == view.me || self.find(*id).is_some_and(|f| self.is_caught_up(f, view))
        };
        let isr = &view.assignment.isr;
        let members: Vec<BrokerId> = isr.iter().copied().filter(stays).collect();
        (members.len() < isr.len()).then(|| self.propose(view, &members))
    }

    pub fn on_answer(&mut self, answer: Answer) -> Settled {
        let settled = self.isr.on_answer(answer);
        if settled == Settled::Reverted {
            self.expand_from = self.now + REFUSED_PAUSE;
        }
        settled
    }

    /// Where the high watermark may be, which is at most `own_end`; none while too few replicas
    /// are in sync: so what is committed is on as many as the topic asks for, whichever of them
    /// the controller has to choose a leader from (KIP-966).
    pub fn high_watermark(&self, view: &View<'_>, own_end: Offset) -> Option<Offset> {
        if view.assignment.isr.len() < view.required_in_sync() {
            return None;
        }
        // Who is about to join counts too: otherwise the high watermark would run away from it.
        let counts = |follower: &&Follower| {
            self.is_member(view, follower.id)
                || (self.is_caught_up(follower, view) && follower.is_eligible())
        };
        let ends = self.followers.iter().filter(counts);
        let least = ends.map(|follower| follower.progress.end()).min();
        Some(least.map_or(own_end, |end| end.min(own_end)))
    }

    /// What all other members of the ISR have, as far as is known.
    pub fn replicated_end(&self, view: &View<'_>) -> Offset {
        let members = self.followers.iter();
        let members = members.filter(|follower| self.is_member(view, follower.id));
        let least = members.map(|follower| follower.progress.end()).min();
        least.map_or(view.log_end, |end| end.min(view.log_end))
    }

    /// Whether as many are in sync as have to be for an append with acks=all. Only who is
    /// committed counts.
    pub fn may_append(&self, view: &View<'_>) -> bool {
        view.assignment.isr.len() >= view.required_in_sync()
    }

    /// The same for the acknowledgement of what was appended. As in Kafka who is about to join
    /// counts, since the high watermark has waited for it.
    pub fn may_acknowledge(&self, view: &View<'_>) -> bool {
        self.isr.maximal(&view.assignment.isr).count() >= view.required_in_sync()
    }

    /// The least start of the logs of all replicas whose brokers are alive, for DeleteRecords:
    /// unknown while one of them hasn't told.
    pub fn low_watermark(&self, own_start: Offset) -> Offset {
        let alive = |follower: &&Follower| follower.registration.is_some_and(|r| r.is_active);
        let followers = self.followers.iter().filter(alive);
        let least = followers
            .map(|follower| follower.progress.log_start())
            .min();
        least.map_or(own_start, |start| start.min(own_start))
    }

    fn find(&self, id: BrokerId) -> Option<&Follower> {
        self.followers.iter().find(|follower| follower.id == id)
    }

    fn is_member(&self, view: &View<'_>, id: BrokerId) -> bool {
        view.assignment.isr.contains(&id) || self.isr.is_proposed(id)
    }

    fn is_caught_up(&self, follower: &Follower, view: &View<'_>) -> bool {
        let progress = &follower.progress;
        progress.is_caught_up(view.log_end, self.now, view.lag_max)
    }

    fn propose(&mut self, view: &View<'_>, members: &[BrokerId]) -> Proposal {
        let epoch = |id: BrokerId| {
            let follower = self.find(id);
            follower
                .and_then(|f| f.progress.broker_epoch())
                .unwrap_or(-1)
        };
        let proposal = Proposal {
            leader_epoch: view.assignment.leader_epoch,
            partition_epoch: view.assignment.partition_epoch,
            isr: members.iter().map(|id| (*id, epoch(*id))).collect(),
        };
        self.isr.propose(proposal)
    }

    /// Checked after each step of the replica.
    pub fn invariants(&self, view: &View<'_>) {
        let is_other = |follower: &Follower| {
            follower.id != view.me && view.assignment.replicas.contains(&follower.id)
        };
        assert!(
            self.followers.iter().all(is_other),
            "followers are replicas"
        );
        assert_eq!(view.assignment.leader, view.me, "it leads");
        assert!(view.assignment.leader_epoch > LeaderEpoch::UNKNOWN);
    }
}
