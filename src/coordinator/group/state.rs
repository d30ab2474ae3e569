//! States of a classic group.
//!
//! ```text
//!            join of a new member                   all joined, or time is up
//!   Empty ───────────────────────▶ PreparingRebalance ──────────────▶ CompletingRebalance
//!     ▲                              ▲   ▲       │                        │     │
//!     └── nobody joined ─────────────┼───┼───────┘   member change        │     │ leader's
//!                                    │   └────────────────────────────────┘     │ assignment
//!                                    │            member change                 ▼ committed
//!                                    └─────────────────────────────────────  Stable
//! ```
//! Kafka's fifth state, Dead, is a group that is gone: here it simply isn't in the map, and
//! an unloaded shard answers for all of its groups. Only its name is needed, for describing
//! a group that doesn't exist.

/// What DescribeGroups calls a group that does not exist.
pub const DEAD: &str = "Dead";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClassicGroupState {
    /// No members. The group stays for its offsets; a group that was only ever used to
    /// commit offsets is always here.
    Empty,
    /// Joins are parked until every known member has joined or time is up.
    PreparingRebalance,
    /// The members of the new generation are known; syncs are parked until the leader's
    /// assignment is committed.
    CompletingRebalance,
    Stable,
}

impl ClassicGroupState {
    /// As on the wire.
    pub fn name(self) -> &'static str {
        match self {
            ClassicGroupState::Empty => "Empty",
            ClassicGroupState::PreparingRebalance => "PreparingRebalance",
            ClassicGroupState::CompletingRebalance => "CompletingRebalance",
            ClassicGroupState::Stable => "Stable",
        }
    }

    pub(super) fn may_become(self, next: ClassicGroupState) -> bool {
        use ClassicGroupState::{CompletingRebalance, Empty, PreparingRebalance, Stable};
        matches!(
            (self, next),
            (PreparingRebalance, Empty | CompletingRebalance)
                | (Empty | CompletingRebalance | Stable, PreparingRebalance)
                | (CompletingRebalance, Stable)
        )
    }
}
