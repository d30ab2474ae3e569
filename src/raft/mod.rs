//! `raft`
