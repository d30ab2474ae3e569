//! Layer 2: what clients may use of a node, as pure state: connections ([`connections`])
//! and the memory of their requests ([`memory`]).
//!
//! Called by `shard::limits`. Each entity has one owning core that decides; others ask it
//! by message, or lease from a pool of atomics. Time is passed in.

pub mod connections;
pub mod memory;
mod rate;
