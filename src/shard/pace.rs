//! Has the recovery points of this core's logs advance while it runs, so that a start after a
//! kill reads little: at most [`EXPOSED_BYTES_MAX`] a core if the disk keeps up, and nothing
//! that is older than [`EXPOSED_MS_MAX`].
//!
//! Called by `shard::background`. It only prepares ([`crate::log::Log::prepare_checkpoint`]);
//! the syncing is `shard::flush`'s, on the ring and in the background queue, and the file is
//! written by the controller's core (`node::lifecycle`), which asks [`checkpoints`] for it.
//!
//! Invariant: at most [`AT_ONCE_MAX`] logs are prepared and not yet synced, so that a disk
//! that is busy with what producers wait for isn't flooded.

use std::cmp::Reverse;
use std::rc::Rc;
use std::time::Duration;

use super::messages::PartitionCheckpoint;
use super::partition::Wakes;
use super::{Shard, replicas};
use crate::base::TopicIdPartition;

/// How often to look.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// What recovery may have to read of a core's logs: a tenth of a second's work.
const EXPOSED_BYTES_MAX: u64 = 128 << 20;
/// Kafka leaves it to the kernel, which writes dirty pages after as long.
const EXPOSED_MS_MAX: i64 = 30_000;
const AT_ONCE_MAX: usize = 16;

/// Prepares the logs whose turn it is: those with old bytes, then those with the most while
/// there are too many on this core.
pub async fn look(shard: &Rc<Shard>, ids: Rc<[TopicIdPartition]>) {
    let budget = shard.rt().budget();
    let now_ms = shard.rt().wall_ms();
    let mut all = Vec::new();
    let mut under_way = 0;
    for id in ids.iter().copied() {
        if let Some(partition) = shard.partition(id) {
            let mut partition = partition.borrow_mut();
            under_way += usize::from(partition.log().is_checkpoint_prepared());
            all.extend(
                partition
                    .log_mut()
                    .exposed(now_ms)
                    .map(|exposed| (exposed, id)),
            );
        }
        budget.breathe().await;
    }
    let mut bytes: u64 = all.iter().map(|(exposed, _)| exposed.bytes).sum();
    all.sort_unstable_by_key(|(exposed, id)| {
        let is_old = exposed.age_ms >= EXPOSED_MS_MAX;
        (Reverse(is_old), Reverse(exposed.bytes), *id)
    });
    for (exposed, id) in all {
        let is_due = exposed.age_ms >= EXPOSED_MS_MAX || bytes > EXPOSED_BYTES_MAX;
        if under_way >= AT_ONCE_MAX || !is_due {
            return;
        }
        if prepare(shard, id) {
            under_way += 1;
            bytes -= exposed.bytes;
        }
        budget.breathe().await;
    }
}

/// Where every partition of this core stands.
pub async fn checkpoints(
    shard: &Rc<Shard>,
    ids: Rc<[TopicIdPartition]>,
) -> Vec<PartitionCheckpoint> {
    let budget = shard.rt().budget();
    let mut all = Vec::with_capacity(ids.len());
    for id in ids.iter().copied() {
        if let Some(partition) = shard.partition(id) {
            let mut partition = partition.borrow_mut();
            let recovery_point = partition.log_mut().collect_checkpoint();
            all.push(PartitionCheckpoint {
                recovery_point,
                ..replicas::checkpoint(&partition)
            });
        }
        budget.breathe().await;
    }
    all
}

fn prepare(shard: &Rc<Shard>, id: TopicIdPartition) -> bool {
    let Some(partition) = shard.partition(id) else {
        return false;
    };
    let mut wakes = Wakes::new();
    let prepared = {
        let mut partition = partition.borrow_mut();
        let prepared = partition.log_mut().prepare_checkpoint();
        prepared.unwrap_or_else(|error| {
            if error.is_out_of_space() {
                // It is tried again; produces tell of it.
                return false;
            }
            tracing::error!(
                topic = %partition.topic(),
                partition = %id.partition,
                %error,
                "recovery point not moved"
            );
            partition.changed(&mut wakes);
            false
        })
    };
    shard.wake_all(wakes);
    prepared
}
