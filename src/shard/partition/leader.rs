//! A partition that is led here: its followers' fetches, and its ISR (replication digest,
//! sections 2 and 3). What is decided is `replica`'s; here it meets the log.
//!
//! Called by `shard::fetch` for each fetch of a follower, by `shard::isr` for ticks and the
//! controller's answers, and by `shard::replicas` when brokers change.

use super::super::messages::{FetchPartition, FetchRead};
use super::{Partition, Wakes};
use crate::base::{BrokerId, ErrorCode, LeaderEpoch, Nanos, Offset};
use crate::replica::Effects;
use crate::replica::isr::{Answer, Proposal, Settled};
use crate::replica::leader::Registration;
use crate::replica::progress::FollowerFetch;

impl Partition {
    /// Whether this replica answers a fetch: it leads in that term, and a follower is one of
    /// its followers.
    pub(super) fn check_fetch(
        &self,
        asked: &FetchPartition,
        read: &FetchRead,
    ) -> Result<(), ErrorCode> {
        self.check_leader_of(asked.current_leader_epoch)?;
        if read.replica == BrokerId::NONE {
            return Ok(());
        }
        let knows_term = asked.current_leader_epoch != LeaderEpoch::UNKNOWN;
        self.replica
            .check_follower(read.replica, read.replica_epoch, knows_term)
    }

    /// A follower begins to fetch: what it has counts, unless the fetch is refused.
    pub fn on_follower_fetch(
        &mut self,
        asked: &FetchPartition,
        read: &FetchRead,
        now: Nanos,
        wakes: &mut Wakes,
    ) -> Option<Proposal> {
        let is_taken = self.check_fetch(asked, read).is_ok()
            && self.divergence(asked).is_none()
            && self.holds(asked.fetch_offset);
        if !is_taken {
            return None;
        }
        let fetch = FollowerFetch {
            offset: asked.fetch_offset,
            log_start: asked.log_start_offset,
            broker_epoch: read.replica_epoch,
            now,
        };
        let effects = self.replica.on_follower_fetch(read.replica, &fetch);
        self.take_effects(effects, wakes)
    }

    /// Comes every half `replica.lag.time.max.ms`.
    pub fn on_isr_tick(&mut self, now: Nanos, wakes: &mut Wakes) -> Option<Proposal> {
        let effects = self.replica.on_tick(now);
        self.take_effects(effects, wakes)
    }

    /// The controller's word on a proposal.
    pub fn on_isr_answer(&mut self, answer: Answer, wakes: &mut Wakes) -> Settled {
        let (settled, has_moved) = self.replica.on_isr_answer(answer);
        if has_moved {
            self.advance(wakes);
        }
        settled
    }

    /// What the metadata says about brokers.
    pub fn on_brokers(
        &mut self,
        find: &dyn Fn(BrokerId) -> Option<Registration>,
        wakes: &mut Wakes,
    ) {
        if self.replica.on_brokers(find) {
            self.advance(wakes);
        }
    }

    /// Whether a read may begin there.
    pub(super) fn holds(&self, offset: Offset) -> bool {
        (self.log.log_start_offset()..=self.log.log_end_offset()).contains(&offset)
    }

    /// Where the fetcher's log leaves ours, if it does (KIP-595).
    pub(super) fn divergence(
        &self,
        asked: &FetchPartition,
    ) -> Option<Result<(LeaderEpoch, Offset), ErrorCode>> {
        if asked.last_fetched_epoch == LeaderEpoch::UNKNOWN {
            return None;
        }
        match self.log.end_offset_for_epoch(asked.last_fetched_epoch) {
            None => Some(Err(ErrorCode::OFFSET_OUT_OF_RANGE)),
            Some((epoch, end)) => {
                let diverges = epoch < asked.last_fetched_epoch || end < asked.fetch_offset;
                diverges.then_some(Ok((epoch, end)))
            }
        }
    }

    fn take_effects(&mut self, effects: Effects, wakes: &mut Wakes) -> Option<Proposal> {
        if effects.has_moved {
            self.advance(wakes);
        }
        effects.proposal
    }
}
