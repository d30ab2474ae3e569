//! Talking among the tasks of one core: plain cells, no atomics, not `Send`.

mod combine;
pub mod mpsc;
mod notify;
pub mod oneshot;

pub use combine::{Either, Elapsed, either, or_deadline};
pub use mpsc::channel;
pub use notify::{Notified, Notify};
pub use oneshot::oneshot;

/// The other side was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other side is gone")]
pub struct Closed;
