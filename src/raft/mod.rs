//! Layer 2: the metadata log's Raft. [`quorum`] is the state machine of a replica among
//! others, which nodes don't run yet. They run [`leader`], with this node as the only voter:
//! it elects itself at every start in an epoch of its own, writes the first batch of that
//! epoch, and what it has made durable is committed.
//!
//! ```text
//!   start ── quorum-state durable ──▶ LeaderChange batch appended ── fsync ──▶ high watermark
//!                                     (and KRaftVersion, Voters in a new dynamic quorum)
//! ```
//! Called by `node::controller`, which owns the files. Pure: no files, no clock.
//!
//! Invariants: an epoch is led once at most: it is persisted before anything is written in
//! it. The high watermark never falls, and counts only what is on stable storage.

pub mod checkpoint;
pub mod control;
pub mod leader;
pub mod quorum;
pub mod quorum_state;
pub mod voters;

pub use control::ControlRecord;
pub use leader::{Raft, RaftError, Start};
pub use quorum_state::{ElectionState, QuorumStateError};
pub use voters::{ReplicaKey, Voter, VoterSet};

/// Name and directory of the metadata log's only partition.
pub const METADATA_TOPIC: &str = "__cluster_metadata";
pub const METADATA_DIRECTORY: &str = "__cluster_metadata-0";

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::base::{BrokerId, Offset};

    /// Node 1, the leader of a static quorum of one.
    pub fn leader() -> Raft {
        Raft::start(Start {
            me: ReplicaKey::without_directory(BrokerId(1)),
            cluster_voters: VoterSet::single(Voter::new(BrokerId(1), None, Vec::new())),
            kraft_version: 0,
            are_voters_in_log: true,
            election: None,
            last_epoch: 0,
            log_end_offset: Offset(0),
        })
        .unwrap()
    }
}
