//! The seam between a coordinator and the log of its partition.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use crate::base::{ErrorCode, Offset};

pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Offsets that a batch got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendedAt {
    pub first: Offset,
    pub last: Offset,
}

/// A partition of an internal topic that is led here, on this core. Implemented by the
/// partition; in memory in tests.
pub trait CoordinatorLog {
    /// Appends one finished batch (base offset 0) as leader. Synchronous: between a
    /// decision and its replay nothing else may run on the shard. The error is what a
    /// Produce would be told (6, 56, 10, 19, …); the batch is then not in the log.
    fn append(&self, batch: Bytes) -> Result<AppendedAt, ErrorCode>;

    /// The high watermark: the first offset that is not committed.
    fn committed(&self) -> Offset;

    /// Resolves once `committed() >= upto`, with what it is then; fails once this is no
    /// longer the leader.
    fn await_committed(&self, upto: Offset) -> LocalFuture<'_, Result<Offset, ErrorCode>>;

    fn log_start_offset(&self) -> Offset;

    fn log_end_offset(&self) -> Offset;

    /// Whole batches from the one that holds `from` on: about `bytes_max`, but at least one
    /// batch; nothing at the end of the log.
    fn read(&self, from: Offset, bytes_max: usize) -> LocalFuture<'_, Result<Bytes, ErrorCode>>;

    /// `max.message.bytes` of the topic.
    fn max_message_bytes(&self) -> usize;
}
