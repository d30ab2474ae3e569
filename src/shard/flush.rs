//! Makes logs durable without holding the core: the files are synced on the ring. Whoever
//! waits for a log shares its flushes (group commit), of which a few overlap: what comes while
//! one is in flight doesn't wait for the file system to end that one first. Flushes of
//! different logs go side by side, so a slow one holds up nobody else's
//! (docs/adr/durability.md).
//!
//! Called wherever something was appended ([`start_if_due`]: `flush.messages`, which is 1
//! under fsync, and `flush.ms`), by `shard::background` ([`look_after`]: what has rolled) and
//! by `shard::replicas` ([`settle`]: what an unclean stop has left in the page cache). Control
//! goes back to the partition: its high watermark moves and its waiters are woken.
//!
//! Invariants: what is told to be durable was written before its sync began; the flushes of a
//! log count in the order in which they began, so none after one that has failed; a failed
//! sync is never tried again: it ends in [`failed`], and there alone.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::Shard;
use super::partition::{Partition, Wakes};
use crate::base::{Offset, TopicIdPartition};
use crate::io::local::Notify;
use crate::io::{File, Queue, Rt};
use crate::log::{FlushScope, FlushWork, LogError};

/// Syncs that one task has with the kernel at a time.
const SYNCS_AT_ONCE: usize = 32;
/// Background flushes that are in flight at a time: what producers wait for goes first.
const IN_BACKGROUND_MAX: usize = 8;
/// Flushes of one log that overlap. With a second one most of what there is to gain is gained.
const LANES: usize = 4;
/// Flushes of this core that go beside another one of their log. The kernel's threads are for
/// the logs first.
const OVERLAPPING_MAX: usize = 16;
/// Until a flush is begun again that had no file descriptor for a directory.
const DESCRIPTOR_RETRY: Duration = Duration::from_millis(100);

/// The flushes of one log that are in flight, in the order in which they began.
#[derive(Debug, Default)]
pub struct Flights {
    queue: VecDeque<Flight>,
    /// A task waits for the time of `flush.ms`.
    is_timed: bool,
    /// Told when none is left in flight.
    landed: Rc<Notify>,
}

#[derive(Debug)]
struct Flight {
    lane: usize,
    up_to: Offset,
    ended: Option<Result<(), String>>,
}

impl Flights {
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Told when none is left in flight.
    pub fn landed(&self) -> &Rc<Notify> {
        &self.landed
    }

    /// The end of what they cover.
    fn up_to(&self) -> Option<Offset> {
        self.queue.back().map(|flight| flight.up_to)
    }

    fn free_lane(&self) -> Option<usize> {
        let is_free = |lane: &usize| self.queue.iter().all(|flight| flight.lane != *lane);
        (0..LANES).find(is_free)
    }

    fn begin(&mut self, lane: usize, up_to: Offset) {
        assert!(
            self.up_to().is_none_or(|before| before <= up_to),
            "a flush covers what those before it do"
        );
        let ended = None;
        self.queue.push_back(Flight { lane, up_to, ended });
    }

    fn end(&mut self, lane: usize, result: Result<(), String>) {
        let mut flights = self.queue.iter_mut();
        let flight = flights.find(|flight| flight.lane == lane);
        flight.expect("it is in flight").ended = Some(result);
    }

    /// The first flush, if it has ended.
    fn land(&mut self) -> Option<Result<Offset, String>> {
        let first = self.queue.pop_front_if(|flight| flight.ended.is_some())?;
        let result = first.ended.expect("it has ended");
        if self.queue.is_empty() {
            self.landed.notify_all();
        }
        Some(result.map(|()| first.up_to))
    }
}

/// Has the log flushed by a task of its own if it has as many records as `flush.messages`
/// that no flush covers; a flush in flight looks again before it ends. Otherwise when
/// `flush.ms` says, if it does.
pub fn start_if_due(shard: &Rc<Shard>, id: TopicIdPartition, partition: &mut Partition) {
    if is_wanted(shard, partition) {
        let shard = shard.clone();
        shard
            .rt()
            .clone()
            .spawn(Queue::Request, async move { run(&shard, id).await });
    } else if !partition.flights().is_timed
        && let Some(at) = partition.flush_due_at()
    {
        partition.flights_mut().is_timed = true;
        let shard = shard.clone();
        shard.rt().clone().spawn(Queue::Background, async move {
            shard.rt().sleep_until(at).await;
            if let Some(partition) = shard.partition(id) {
                partition.borrow_mut().flights_mut().is_timed = false;
                drop(partition);
                run(&shard, id).await;
            }
        });
    }
}

/// Whether a flush would begin now for want of `flush.messages`.
fn is_wanted(shard: &Shard, partition: &Partition) -> bool {
    let log = partition.log();
    match partition.flights().up_to() {
        None => log.is_flush_due(),
        Some(covered) => {
            log.log_end_offset() - covered >= log.config().flush_messages
                && shard.overlapping.get() < OVERLAPPING_MAX
                && partition.flights().free_lane().is_some()
        }
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

/// Flushes what is due, until nothing is, or others are in flight that look again before they
/// end.
async fn run(shard: &Rc<Shard>, id: TopicIdPartition) {
    let Some(partition) = shard.partition(id) else {
        return;
    };
    loop {
        let begun = begin(shard, &mut partition.borrow_mut());
        let (lane, work) = match begun {
            Ok(None) => return,
            Ok(Some(begun)) => begun,
            Err(error) if error.is_out_of_descriptors() => {
                tracing::warn!(%error, "no file descriptor for a flush: it waits for one");
                shard.rt().sleep(DESCRIPTOR_RETRY).await;
                continue;
            }
            Err(error) => {
                let mut wakes = Wakes::new();
                let error = error.to_string();
                failed(shard, &mut partition.borrow_mut(), &error, &mut wakes);
                shard.wake_all(wakes);
                return;
            }
        };
        let synced = sync_all(shard.rt(), &work.files).await;
        if lane > 0 {
            shard.overlapping.set(shard.overlapping.get() - 1);
        }
        land(
            shard,
            &partition,
            lane,
            synced.map_err(|error| error.to_string()),
        );
    }
}

/// Begins the flush that is to be made now, and in which lane. The first is the one that syncs
/// all files that there are to sync.
fn begin(shard: &Shard, partition: &mut Partition) -> Result<Option<(usize, FlushWork)>, LogError> {
    if partition.log().is_offline() || partition.is_paused() {
        // Closed, or failed and told; or its copy is synced instead.
        return Ok(None);
    }
    let (lane, work) = if partition.flights().is_empty() {
        let scope = if partition.is_flush_due(shard.rt().now()) {
            FlushScope::All
        } else {
            FlushScope::Rolled
        };
        (0, partition.log_mut().take_flush_work(scope)?)
    } else if is_wanted(shard, partition)
        && let Some(lane) = partition.flights().free_lane()
    {
        (lane, partition.log_mut().take_overlapping_work(lane))
    } else {
        return Ok(None);
    };
    let Some(work) = work else {
        return Ok(None);
    };
    partition.flights_mut().begin(lane, work.up_to);
    if lane > 0 {
        shard.overlapping.set(shard.overlapping.get() + 1);
    }
    Ok(Some((lane, work)))
}

/// A flush has ended: it counts, and those after it that have ended before.
fn land(shard: &Shard, partition: &RefCell<Partition>, lane: usize, synced: Result<(), String>) {
    let mut wakes = Wakes::new();
    {
        let partition = &mut *partition.borrow_mut();
        partition.flights_mut().end(lane, synced);
        while let Some(landed) = partition.flights_mut().land() {
            match landed {
                _ if partition.is_offline() => {}
                Ok(up_to) => partition.on_flushed(up_to, shard.rt().now(), &mut wakes),
                Err(error) => failed(shard, partition, &error, &mut wakes),
            }
        }
    }
    shard.wake_all(wakes);
    super::fetcher::on_durable(shard, partition);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flushes_count_in_the_order_in_which_they_began() {
        let mut flights = Flights::default();
        for (lane, up_to) in [(0, 10), (1, 20), (2, 30)] {
            assert_eq!(flights.free_lane(), Some(lane));
            flights.begin(lane, Offset(up_to));
        }
        flights.end(1, Ok(()));
        flights.end(2, Err("later".to_owned()));
        // Nothing counts while the first may still fail.
        assert_eq!(flights.land(), None);
        flights.end(0, Ok(()));
        assert_eq!(flights.land(), Some(Ok(Offset(10))));
        assert_eq!(flights.land(), Some(Ok(Offset(20))));
        assert_eq!(flights.land(), Some(Err("later".to_owned())));
        assert!(flights.is_empty());
    }
}
