//! Partition logs on disk, byte for byte in Apache Kafka 4.3.1's formats.
//!
//! Layer 3: called by `shard` (a partition's appends and reads, background work), `node`
//! (start, stop, the metadata log) and `cli` (dump). Below it are `record` and
//! [`crate::io::disk`]. A [`Log`] belongs to one core and is synchronous; what takes long
//! is handed back to the caller: files to sync ([`FlushWork`]), files to unlink.
//!
//! ```text
//! manager   a log directory: lock, identity, checkpoints, partition directories
//!   log     one partition: append · fetch · maintenance · protection · recovery
//!     segment   .log + offset_index + time_index + txn_index
//!     leader_epoch · producer_state + producer_snapshot · tail_cache
//! ```

mod append;
pub mod batch_header;
pub mod checkpoint;
pub mod clean_shutdown;
pub mod config;
mod damage;
pub mod dump;
mod entry_file;
pub mod error;
mod fetch;
pub mod leader_epoch;
#[expect(clippy::module_inception, reason = "the log of a partition")]
mod log;
mod maintenance;
pub mod manager;
pub mod meta_properties;
pub mod names;
pub mod offset_index;
pub mod partition_metadata;
pub mod producer_snapshot;
pub mod producer_state;
mod protection;
mod recovery;
mod scan;
mod segment;
mod tail_cache;
#[cfg(test)]
mod testing;
pub mod time_index;
pub mod txn_index;
mod verify;

pub use append::{AppendInfo, FollowerAppendInfo};
pub use config::{LogConfig, OpenParams};
pub use error::{AppendError, LogError, ReadError};
pub use fetch::{FoundTimestamp, LogRead};
pub use log::{FlushScope, FlushWork, Log, LogPosition};
pub use manager::{LogDir, LogDirError, PartitionDir};
pub use producer_state::AppendOrigin;
pub use protection::Exposed;
pub use recovery::{Progress, RecoveryReport, Within};
pub use tail_cache::TailPool;
pub use txn_index::AbortedTxn;
