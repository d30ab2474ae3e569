//! What runs a [`super::GroupShard`] on a partition (layer 4).

mod log;

pub use log::{AppendedAt, CoordinatorLog, LocalFuture};
