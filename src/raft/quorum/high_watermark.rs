//! Up to where the log is committed: what a majority of the voters has on stable storage,
//! once that reaches into the leader's own epoch.
//!
//! ```text
//!   ends of 5 voters, descending:  90  80  70* 60  50     * index 5 / 2: three have it
//!                     4 voters:    90  80  70* 60         * index 4 / 2: three have it
//! ```

use super::effects::{Effect, Effects};
use super::{Quorum, Role};
use crate::base::Offset;

/// The end that more than half of the voters have reached; `None` while too few are known.
pub fn majority_offset(mut ends: Vec<Option<Offset>>) -> Option<Offset> {
    ends.sort_unstable_by(|a, b| b.cmp(a));
    ends.get(ends.len() / 2).copied().flatten()
}

impl Quorum {
    /// Of the leader: looks again after an end, or the set of voters, changed.
    pub(super) fn update_high_watermark(&mut self, fx: &mut Effects) {
        let Role::Leader(leader) = &self.role else {
            return;
        };
        let me = self.config.me;
        let ends = leader.replicas.voter_ends(&me, self.log.flushed());
        // Older epochs' records are committed only together with one of this epoch: until
        // then a replica that lacks them may still be elected.
        let reached = majority_offset(ends).filter(|end| *end > leader.epoch_start);
        if let Some(end) = reached
            && self.high_watermark.is_none_or(|before| before < end)
        {
            self.advance_high_watermark(end, fx);
            self.on_leader_committed(fx);
        }
    }

    /// Of a follower: as far as it has what its leader says is committed.
    pub(super) fn update_follower_high_watermark(&mut self, leaders: i64, fx: &mut Effects) {
        let end = Offset(leaders).min(self.log.end());
        if end >= Offset(0) && self.high_watermark.is_none_or(|before| before < end) {
            self.advance_high_watermark(end, fx);
        }
    }

    pub(super) fn advance_high_watermark(&mut self, to: Offset, fx: &mut Effects) {
        assert!(to <= self.log.end(), "committed before it was appended");
        assert!(self.high_watermark.is_none_or(|before| before < to));
        self.high_watermark = Some(to);
        fx.push(Effect::HighWatermark(to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ends() -> impl Strategy<Value = Vec<Option<Offset>>> {
        let end = prop_oneof![1 => Just(None), 6 => (0i64..20).prop_map(|n| Some(Offset(n)))];
        proptest::collection::vec(end, 0..9)
    }

    fn have(ends: &[Option<Offset>], offset: Offset) -> usize {
        ends.iter().filter(|end| **end >= Some(offset)).count()
    }

    proptest! {
        /// More than half have all below it, and not more than half have one record more.
        #[test]
        fn a_majority_has_it_and_no_majority_has_more(ends in ends()) {
            let majority = ends.len() / 2 + 1;
            match majority_offset(ends.clone()) {
                Some(offset) => {
                    prop_assert!(have(&ends, offset) >= majority);
                    prop_assert!(have(&ends, offset + 1) < majority);
                }
                None => prop_assert!(have(&ends, Offset(0)) < majority),
            }
        }

        /// Any two majorities, also those of two sets that differ by one voter, share a
        /// voter: what one has committed the other can't miss.
        #[test]
        fn majorities_of_neighbouring_sets_overlap(ends in ends(), more in 0i64..20) {
            let bigger = [&ends[..], &[Some(Offset(more))]].concat();
            let majorities = ends.len() / 2 + 1 + bigger.len() / 2 + 1;
            prop_assert!(majorities > bigger.len());
        }

        #[test]
        fn it_rises_with_the_ends_and_ignores_their_order(
            ends in ends(),
            at in any::<prop::sample::Index>(),
            by in 1i64..5,
        ) {
            let before = majority_offset(ends.clone());
            let mut turned = ends.clone();
            turned.reverse();
            prop_assert_eq!(majority_offset(turned), before);
            if !ends.is_empty() {
                let mut risen = ends.clone();
                let at = at.index(ends.len());
                risen[at] = Some(risen[at].map_or(Offset(0), |end| end + by));
                prop_assert!(majority_offset(risen) >= before);
            }
        }
    }

    #[test]
    fn of_even_numbers_more_than_half_count() {
        let ends = |offsets: &[i64]| offsets.iter().map(|n| Some(Offset(*n))).collect();
        assert_eq!(majority_offset(ends(&[5])), Some(Offset(5)));
        assert_eq!(majority_offset(ends(&[5, 9])), Some(Offset(5)));
        assert_eq!(majority_offset(ends(&[60, 90, 70, 80])), Some(Offset(70)));
        assert_eq!(
            majority_offset(ends(&[50, 60, 90, 70, 80])),
            Some(Offset(70))
        );
        assert_eq!(majority_offset(Vec::new()), None);
    }
}
