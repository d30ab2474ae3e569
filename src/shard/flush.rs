//! Makes a partition's log durable without holding the core: the files are synced on the
//! ring, one flush of a log in flight at a time, and whoever waits shares it.
//!
//! Called by `shard::produce` when `flush.messages` is reached (then the outcome waits, as
//! Kafka's append does) and by `shard::background` for what has rolled and for `flush.ms`.

use std::rc::Rc;

use super::Shard;
use super::partition::Wakes;
use crate::base::{Offset, TopicIdPartition};
use crate::io::Queue;
use crate::log::{FlushScope, FlushWork};

/// Flushes the log as a task of its own, until nothing in it is due any more.
pub fn start(shard: &Rc<Shard>, id: TopicIdPartition) {
    let shard = shard.clone();
    shard
        .rt()
        .clone()
        .spawn(Queue::Request, async move { run(&shard, id).await });
}

/// Flushes what is due; returns at once while another flush of the log is in flight, which
/// looks again before it ends.
pub async fn run(shard: &Rc<Shard>, id: TopicIdPartition) {
    let Some(partition) = shard.partition(id) else {
        return;
    };
    if !partition.borrow_mut().begin_flush() {
        return;
    }
    loop {
        let work = {
            let mut partition = partition.borrow_mut();
            if partition.log().is_offline() {
                // Closed, or failed and told.
                break;
            }
            let scope = if partition.is_flush_due(shard.rt().now()) {
                FlushScope::All
            } else {
                FlushScope::Rolled
            };
            partition.log_mut().take_flush_work(scope)
        };
        let flushed = match work {
            Ok(None) => break,
            Ok(Some(work)) => sync(shard, work).await,
            Err(error) => Err(error.to_string()),
        };
        let mut wakes = Wakes::new();
        let failed = {
            let mut partition = partition.borrow_mut();
            match flushed {
                Ok(up_to) => {
                    partition.on_flushed(up_to, shard.rt().now(), &mut wakes);
                    false
                }
                Err(error) => {
                    // A failed sync can't be repeated: what it covered may be lost.
                    tracing::error!(
                        topic = %partition.topic(),
                        partition = %id.partition,
                        error,
                        "sync failed: the log takes no more appends"
                    );
                    partition.log_mut().take_offline();
                    partition.changed(&mut wakes);
                    true
                }
            }
        };
        shard.wake_all(wakes);
        if failed {
            break;
        }
    }
    partition.borrow_mut().end_flush();
}

async fn sync(shard: &Shard, work: FlushWork) -> Result<Offset, String> {
    for file in &work.files {
        shard
            .rt()
            .sync(file)
            .await
            .map_err(|error| error.to_string())?;
    }
    Ok(work.up_to)
}
