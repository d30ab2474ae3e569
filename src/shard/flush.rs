//! Makes logs durable without holding the core: the files are synced on the ring. One flush
//! of a log is in flight at a time, and whoever waits shares it (group commit); flushes of
//! different logs go side by side, so a slow one holds up nobody else's
//! (docs/adr/durability.md).
//!
//! Called wherever something was appended ([`start_if_due`]: `flush.messages`, which is 1
//! under fsync), by `shard::background` ([`look_after`]: what has rolled, `flush.ms`) and by
//! `shard::replicas` ([`settle`]: what an unclean stop has left in the page cache). Control
//! goes back to the partition: its high watermark moves and its waiters are woken.
//!
//! Invariants: what is told to be durable was written before its sync began; a failed sync is
//! never tried again: it ends in [`failed`], and there alone.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use super::Shard;
use super::partition::{Partition, Wakes};
use crate::base::TopicIdPartition;
use crate::io::local::Notify;
use crate::io::{File, Queue, Rt};
use crate::log::FlushScope;

/// Syncs that one task has with the kernel at a time.
const SYNCS_AT_ONCE: usize = 32;
/// Background flushes that are in flight at a time: what producers wait for goes first.
const IN_BACKGROUND_MAX: usize = 8;

/// Has the log flushed by a task of its own if it has as many records as `flush.messages`
/// that aren't durable. A flush in flight looks again before it ends.
pub fn start_if_due(shard: &Rc<Shard>, id: TopicIdPartition, partition: &Partition) {
    if partition.log().is_flush_due() && !partition.is_flush_in_flight() {
        let shard = shard.clone();
        shard
            .rt()
            .clone()
            .spawn(Queue::Request, async move { run(&shard, id).await });
    }
}

/// Has everything flushed that has rolled or that `flush.ms` asks for. Returns when all of it
/// has begun.
pub async fn look_after(shard: &Rc<Shard>, ids: Rc<[TopicIdPartition]>, in_flight: &Rc<InFlight>) {
    let budget = shard.rt().budget();
    for id in ids.iter().copied() {
        let is_due = shard
            .partition(id)
            .is_some_and(|partition| partition.borrow().has_flush_work(shard.rt().now()));
        if is_due {
            while in_flight.count.get() >= IN_BACKGROUND_MAX {
                in_flight.ended.notified().await;
            }
            in_flight.count.set(in_flight.count.get() + 1);
            let (shard, in_flight) = (shard.clone(), in_flight.clone());
            shard.rt().clone().spawn(Queue::Background, async move {
                run(&shard, id).await;
                in_flight.count.set(in_flight.count.get() - 1);
                in_flight.ended.notify_one();
            });
        }
        budget.breathe().await;
    }
}

/// The background flushes of a core.
#[derive(Default)]
pub struct InFlight {
    count: Cell<usize>,
    ended: Notify,
}

/// Flushes logs that have just been opened, all at once, before anybody reads them: what they
/// hold beyond the recovery point may be in the page cache only.
pub async fn settle(shard: &Rc<Shard>, opened: &mut [Partition]) {
    let mut works = Vec::new();
    for (index, partition) in opened.iter_mut().enumerate() {
        if !partition.log().is_flush_due() {
            continue;
        }
        match partition.log_mut().take_flush_work(FlushScope::All) {
            Ok(Some(work)) => works.push((index, work)),
            Ok(None) => {}
            Err(error) => failed(shard, partition, &error.to_string(), &mut Wakes::new()),
        }
    }
    for some in works.chunks(SYNCS_AT_ONCE) {
        let rt = shard.rt();
        let syncs = some.iter().map(|(_, work)| sync_all(rt, &work.files));
        let results = join(syncs.collect()).await;
        for ((index, work), result) in some.iter().zip(results) {
            let partition = &mut opened[*index];
            match result {
                Ok(()) => partition.on_flushed(work.up_to, rt.now(), &mut Wakes::new()),
                Err(error) => failed(shard, partition, &error.to_string(), &mut Wakes::new()),
            }
        }
    }
}

/// Flushes what is due, until nothing is; returns at once while another flush of the log is
/// in flight, which looks again before it ends.
async fn run(shard: &Rc<Shard>, id: TopicIdPartition) {
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
            Ok(Some(work)) => match sync_all(shard.rt(), &work.files).await {
                Ok(()) => Ok(work.up_to),
                Err(error) => Err(error.to_string()),
            },
            Err(error) => Err(error.to_string()),
        };
        let mut wakes = Wakes::new();
        let is_over = {
            let mut partition = partition.borrow_mut();
            match &flushed {
                Ok(up_to) => partition.on_flushed(*up_to, shard.rt().now(), &mut wakes),
                Err(error) => failed(shard, &mut partition, error, &mut wakes),
            }
            flushed.is_err()
        };
        shard.wake_all(wakes);
        if is_over {
            break;
        }
    }
    partition.borrow_mut().end_flush();
}

/// A failed sync can't be repeated: what it covered may be lost, though the page cache shows
/// it. The log takes no more appends, and nothing that waits for the disk is acknowledged.
fn failed(shard: &Shard, partition: &mut Partition, error: &str, wakes: &mut Wakes) {
    tracing::error!(
        topic = %partition.topic(),
        partition = %partition.id().partition,
        error,
        "sync failed: the log takes no more appends"
    );
    partition.take_offline(wakes);
    let directory = partition.directory();
    shard
        .directories()
        .failures()
        .tell(directory, error.to_owned());
}

/// Syncs files, as many at once as may be; one error is that of all.
async fn sync_all(rt: &Rt, files: &[Arc<dyn File>]) -> io::Result<()> {
    if let [file] = files {
        return rt.sync(file).await;
    }
    for some in files.chunks(SYNCS_AT_ONCE) {
        let syncs = some.iter().map(|file| rt.sync(file));
        join(syncs.collect())
            .await
            .into_iter()
            .collect::<Result<(), _>>()?;
    }
    Ok(())
}

/// Runs futures side by side.
async fn join<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let Poll::Ready(value) = future.as_mut().poll(context)
            {
                *output = Some(value);
            }
        }
        match outputs.iter().all(Option::is_some) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}
