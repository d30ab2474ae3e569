//! What a core does for its logs besides serving: retention, flushing what has rolled,
//! moving recovery points, expiry of producers. All of it in the background queue, one
//! partition at a time, with a yield when the budget of 500 µs is spent.

use std::rc::Rc;
use std::time::Duration;

use super::messages::PartitionCheckpoint;
use super::partition::Wakes;
use super::replicas::ids;
use super::{Shard, directories, flush, isr, mover, pace, replicas};
use crate::base::TopicIdPartition;
use crate::io::{Queue, local};

/// How often rolled segments, and `flush.ms`, are looked after.
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);
/// How often logs are looked for that had no space to be opened.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

/// Segments that retention renames, four files each, before it lets others in.
const SEGMENTS_AT_ONCE: usize = 4;

/// Starts this core's background tasks; they end when the core stops.
pub fn start(shard: &Rc<Shard>) {
    shard
        .rt()
        .spawn(Queue::Request, directories::watch(shard.clone()));
    shard
        .rt()
        .spawn(Queue::Background, mover::run(shard.clone()));
    every(
        shard,
        REOPEN_INTERVAL,
        REOPEN_INTERVAL,
        async |shard: &Rc<Shard>| replicas::open_missed(shard).await,
    );
    let log = &shard.node().config.log;
    let retention = millis(log.log_retention_check_interval_ms);
    let expiry = millis(i64::from(log.producer_id_expiration_check_interval_ms));
    let delay = millis(log.log_initial_task_delay_ms);
    every(shard, delay, retention, async |shard: &Rc<Shard>| {
        let budget = shard.rt().budget();
        for id in ids(shard).iter().copied() {
            look_at_old_segments(shard, id).await;
            while retain(shard, id) {
                shard.rt().yield_now().await;
            }
            budget.breathe().await;
        }
    });
    every(shard, expiry, expiry, async |shard: &Rc<Shard>| {
        let budget = shard.rt().budget();
        for id in ids(shard).iter().copied() {
            if let Some(partition) = shard.partition(id) {
                let now_ms = shard.rt().wall_ms();
                let mut partition = partition.borrow_mut();
                partition.log_mut().remove_expired_producers(now_ms);
            }
            budget.breathe().await;
        }
    });
    let in_flight = Rc::new(flush::InFlight::default());
    every(
        shard,
        FLUSH_INTERVAL,
        FLUSH_INTERVAL,
        async move |shard: &Rc<Shard>| flush::look_after(shard, ids(shard), &in_flight).await,
    );
    let tick = isr::tick_interval(shard);
    every(shard, tick, tick, async |shard: &Rc<Shard>| {
        isr::look(shard, ids(shard)).await;
    });
    let look = pace::LOOK_INTERVAL;
    every(shard, look, look, async |shard: &Rc<Shard>| {
        pace::look(shard, ids(shard)).await;
    });
}

/// Where every partition of this core stands.
pub async fn checkpoints(shard: &Rc<Shard>) -> Vec<PartitionCheckpoint> {
    pace::checkpoints(shard, ids(shard)).await
}

fn every(
    shard: &Rc<Shard>,
    delay: Duration,
    interval: Duration,
    work: impl AsyncFn(&Rc<Shard>) + 'static,
) {
    let rt = shard.rt().clone();
    let shard = shard.clone();
    rt.clone().spawn(Queue::Background, async move {
        let mut pause = delay;
        loop {
            if let local::Either::First(()) = local::either(rt.stopping(), rt.sleep(pause)).await {
                return;
            }
            pause = interval;
            work(&shard).await;
        }
    });
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0).max(1))
}

/// Has what retention asks of old segments in memory.
async fn look_at_old_segments(shard: &Rc<Shard>, id: TopicIdPartition) {
    let Some(partition) = shard.partition(id) else {
        return;
    };
    let now_ms = shard.rt().wall_ms();
    let look = || partition.borrow().log().look_at_old_segments(now_ms);
    shard.rt().without_waiting(look).await;
}

/// Deletes some segments past retention, whose files go after the delay. False when there are
/// no more.
fn retain(shard: &Rc<Shard>, id: TopicIdPartition) -> bool {
    let Some(partition) = shard.partition(id) else {
        return false;
    };
    let mut wakes = Wakes::new();
    let now_ms = shard.rt().wall_ms();
    let mut partition = partition.borrow_mut();
    let high_watermark = partition.high_watermark();
    let retained =
        partition
            .log_mut()
            .delete_some_old_segments(now_ms, high_watermark, SEGMENTS_AT_ONCE);
    let may_be_more = retained.as_ref().is_ok_and(|deleted| *deleted > 0);
    match retained {
        Ok(deleted) if deleted > 0 => {
            tracing::info!(
                topic = %partition.topic(),
                partition = %id.partition,
                segments = deleted,
                offset = %partition.log().log_start_offset(),
                "segments past retention deleted"
            );
            partition.on_log_start_moved(&mut wakes);
        }
        Ok(_) => {}
        Err(_) if partition.is_offline() => {}
        Err(error) => {
            partition.on_log_error(&error);
            tracing::error!(
                topic = %partition.topic(),
                partition = %id.partition,
                %error,
                "retention failed"
            );
        }
    }
    let delay_ms = partition.config().file_delete_delay_ms;
    let deleted = partition.log_mut().take_pending_deletions();
    drop(partition);
    replicas::unlink_later(shard, deleted, delay_ms);
    shard.wake_all(wakes);
    may_be_more
}
