//! Groups. One shard holds all groups of one partition of `__consumer_offsets`, whatever
//! their protocol; classic groups are what is built so far.
//!
//! | file | why it would change |
//! |---|---|
//! | `state` | states of a classic group and the moves between them |
//! | `classic_group` | what a classic group holds: members, votes, leader, static ids |
//! | `member` | one member and what it waits for |
//! | `subscription` | reading topics out of the consumer protocol's metadata |
//! | `rebalance` | join phase: prepare, complete, expire |
//! | `join`, `sync`, `heartbeat`, `leave` | one request each |
//! | `describe` | read-only views and the checks of DeleteGroups and OffsetDelete |

mod classic_group;
mod describe;
mod heartbeat;
mod join;
mod leave;
mod member;
mod rebalance;
mod state;
mod subscription;
mod sync;

pub use classic_group::{CONSUMER_PROTOCOL_TYPE, ClassicGroup};
pub use member::{Member, Protocol};
pub use state::{ClassicGroupState, DEAD};

pub(crate) use describe::RetentionBase;
pub(crate) use join::Join;

/// A group of any protocol. Consumer (KIP-848), share and streams groups become further
/// variants in the same map, since a group id names one group whatever its type.
#[derive(Debug)]
pub enum Group {
    Classic(ClassicGroup),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupType {
    Classic,
    Consumer,
    Share,
    Streams,
}

impl GroupType {
    /// As in ListGroups.
    pub fn name(self) -> &'static str {
        match self {
            GroupType::Classic => "classic",
            GroupType::Consumer => "consumer",
            GroupType::Share => "share",
            GroupType::Streams => "streams",
        }
    }
}

impl Group {
    pub fn group_type(&self) -> GroupType {
        match self {
            Group::Classic(_) => GroupType::Classic,
        }
    }

    pub fn is_empty(&self) -> bool {
        match self {
            Group::Classic(group) => group.state() == ClassicGroupState::Empty,
        }
    }

    pub fn as_classic(&self) -> Option<&ClassicGroup> {
        match self {
            Group::Classic(group) => Some(group),
        }
    }

    pub fn as_classic_mut(&mut self) -> Option<&mut ClassicGroup> {
        match self {
            Group::Classic(group) => Some(group),
        }
    }

    /// See [`ClassicGroup::invariants`].
    pub fn invariants(&self) {
        match self {
            Group::Classic(group) => group.invariants(),
        }
    }
}
