//! Ottla: a Kafka-wire-compatible broker, one event loop per core on io_uring.
//!
//! The modules form layers and import only downwards (checked by `tests/layers.rs`);
//! docs/ARCHITECTURE.md draws the whole. `unsafe` is denied except in [`io`], [`mesh`]
//! and [`record`].
#![deny(unsafe_code)]
#![deny(clippy::undocumented_unsafe_blocks, clippy::await_holding_refcell_ref)]

// Layer 0
pub mod base;
// Layer 1
pub mod config;
#[allow(unsafe_code)]
pub mod record;
pub mod telemetry;
pub mod wire;
// Layer 2: pure state machines
pub mod controller;
pub mod coordinator;
pub mod metadata;
pub mod purgatory;
pub mod quota;
pub mod raft;
pub mod replica;
pub mod security;
// Layer 3: effects
#[allow(unsafe_code)]
pub mod io;
pub mod log;
#[allow(unsafe_code)]
pub mod mesh;
// Layer 4: per core
pub mod api;
pub mod shard;
// Layer 5
pub mod bench;
pub mod cli;
pub mod node;
pub mod top;
// Runs layers 0 to 4 in one thread under a seed
pub mod sim;
