//! Delayed operations of one core: requests that wait until something about a partition
//! changes (Kafka's purgatory; KIP-227 fetches, `acks=all` produces, DeleteRecords).
//!
//! [`watch`] is the pure part: which operation waits on which partition for what, and
//! which are due after a change. Deadlines stand on the core's timing wheel ([`wheel`]).
//! Operations complete by signal, never by polling: `shard::partition` tells each change.

pub mod watch;
pub mod wheel;
