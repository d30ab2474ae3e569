//! Committed offsets of all groups of one shard.
//!
//! | file | why it would change |
//! |---|---|
//! | `store` | what is kept for each partition, and what of it is committed |
//! | `transactions` | offsets that wait for their transaction's end |
//! | `commit`, `fetch`, `delete` | one request each |
//! | `expire` | when an offset is too old |

mod commit;
mod delete;
mod expire;
mod fetch;
mod store;
mod transactions;

pub use commit::Commit;
pub(crate) use commit::decide_commit;
pub use store::{CommittedOffset, OffsetStore, View};
