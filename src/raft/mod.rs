//! Layer 2: the metadata log's Raft: [`quorum`] is the state machine of a replica, the rest
//! are the forms in which things stand in files: control records, snapshots, quorum-state.
//!
//! Called by `node::replica`, which owns the files and carries out what the machine asks
//! for, and `node::metadata_log`. Pure: no files, no clock.

pub mod checkpoint;
pub mod control;
pub mod quorum;
pub mod quorum_state;
pub mod voters;

pub use control::ControlRecord;
pub use quorum_state::{ElectionState, QuorumStateError};
pub use voters::{ReplicaKey, Voter, VoterSet};

/// Name and directory of the metadata log's only partition.
pub const METADATA_TOPIC: &str = "__cluster_metadata";
pub const METADATA_DIRECTORY: &str = "__cluster_metadata-0";
