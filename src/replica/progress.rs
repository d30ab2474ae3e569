//! How far one follower is, as its leader knows from the follower's own fetches within the
//! current term (replication digest, section 2).
//!
//! ```text
//!   leader's end     ├───────────────────────────┤ E0          E1
//!   fetch at t0 from │ o0 ≥ E0: caught up at t0
//!   fetch at t1 from │ E0 ≤ o1 < E1: it has what there was at t0, so it was caught up at t0
//! ```
//! Held by `replica::leader`, one for each other replica.
//!
//! Invariant: what is told in one term says nothing in the next, because a follower may cut
//! its log between them: a new term begins with a new [`Progress`].

use std::time::Duration;

use crate::base::{Nanos, Offset};

/// A follower's fetch, as far as it tells something of the follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerFetch {
    /// Everything below it is in the follower's log (under fsync: on its disk).
    pub offset: Offset,
    /// Where the follower's log begins; [`Offset::UNKNOWN`] if it didn't say.
    pub log_start: Offset,
    /// The epoch of its registration; -1 if it didn't say.
    pub broker_epoch: i64,
    pub now: Nanos,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// [`Offset::UNKNOWN`] before its first fetch.
    end: Offset,
    log_start: Offset,
    /// Of its last fetch: when, and the leader's end then.
    last_fetch: Option<(Nanos, Offset)>,
    /// When it last had everything.
    caught_up_at: Option<Nanos>,
    broker_epoch: Option<i64>,
}

impl Progress {
    /// At the start of a term, or of a replica. A member of the ISR gets the benefit of the
    /// doubt: it counts as caught up until now.
    pub fn new(is_in_sync: bool, now: Nanos) -> Progress {
        Progress {
            end: Offset::UNKNOWN,
            log_start: Offset::UNKNOWN,
            last_fetch: None,
            caught_up_at: is_in_sync.then_some(now),
            broker_epoch: None,
        }
    }

    /// Where its log ends; [`Offset::UNKNOWN`] before its first fetch.
    pub fn end(&self) -> Offset {
        self.end
    }

    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    /// As its last fetch said; none before it.
    pub fn broker_epoch(&self) -> Option<i64> {
        self.broker_epoch
    }

    pub fn on_fetch(&mut self, fetch: &FollowerFetch, leader_end: Offset) {
        let caught_up_at = match self.last_fetch {
            _ if fetch.offset >= leader_end => Some(fetch.now),
            Some((at, end_then)) if fetch.offset >= end_then => Some(at),
            _ => None,
        };
        // `None` is the least.
        self.caught_up_at = self.caught_up_at.max(caught_up_at);
        self.end = fetch.offset;
        self.log_start = fetch.log_start;
        self.last_fetch = Some((fetch.now, leader_end));
        self.broker_epoch = Some(fetch.broker_epoch);
    }

    /// Whether it has everything, or had within `lag_max` (`replica.lag.time.max.ms`).
    pub fn is_caught_up(&self, leader_end: Offset, now: Nanos, lag_max: Duration) -> bool {
        self.end == leader_end
            || self
                .caught_up_at
                .is_some_and(|at| now.saturating_since(at) <= lag_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG: Duration = Duration::from_nanos(10);

    fn fetch(progress: &mut Progress, offset: i64, leader_end: i64, now: u64) {
        let fetch = FollowerFetch {
            offset: Offset(offset),
            log_start: Offset(0),
            broker_epoch: 7,
            now: Nanos(now),
        };
        progress.on_fetch(&fetch, Offset(leader_end));
    }

    fn is_caught_up(progress: &Progress, leader_end: i64, now: u64) -> bool {
        progress.is_caught_up(Offset(leader_end), Nanos(now), LAG)
    }

    #[test]
    fn a_member_has_the_benefit_of_the_doubt_and_others_have_not() {
        let member = Progress::new(true, Nanos(100));
        assert!(is_caught_up(&member, 5, 110));
        assert!(!is_caught_up(&member, 5, 111));
        assert!(!is_caught_up(&Progress::new(false, Nanos(100)), 5, 100));
    }

    #[test]
    fn one_that_has_what_there_was_at_its_last_fetch_was_caught_up_then() {
        let mut progress = Progress::new(false, Nanos(0));
        fetch(&mut progress, 0, 50, 100);
        assert!(!is_caught_up(&progress, 50, 100));
        // At 100 the log ended at 50; now it has that, and the log has gone on.
        fetch(&mut progress, 50, 80, 105);
        assert!(is_caught_up(&progress, 80, 110));
        assert!(!is_caught_up(&progress, 80, 111));
        // It had not all of 80 at 105.
        fetch(&mut progress, 70, 90, 120);
        assert!(!is_caught_up(&progress, 90, 120));
        fetch(&mut progress, 90, 90, 130);
        assert!(is_caught_up(&progress, 95, 140));
    }

    #[test]
    fn one_that_has_everything_is_caught_up_however_long_ago_it_fetched() {
        let mut progress = Progress::new(false, Nanos(0));
        fetch(&mut progress, 9, 9, 100);
        assert!(is_caught_up(&progress, 9, 1_000_000));
        assert!(!is_caught_up(&progress, 10, 1_000_000));
        assert_eq!(progress.broker_epoch(), Some(7));
        assert_eq!(progress.log_start(), Offset(0));
    }

    #[test]
    fn a_follower_that_cut_its_log_counts_with_what_it_has() {
        let mut progress = Progress::new(true, Nanos(0));
        fetch(&mut progress, 9, 9, 100);
        fetch(&mut progress, 4, 9, 101);
        assert_eq!(progress.end(), Offset(4));
    }
}
