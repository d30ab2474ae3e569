//! Fetch over cores, in two phases: owners answer with positions, sizes and pinned files;
//! the connection's core applies the limits of the whole response in request order and
//! decides whether to wait for more.
//!
//! Called by `api::fetch` ([`gather`]) and, on the owning core, by `Shard::on_request`
//! ([`read`], [`watch`]). A parked fetch is woken by the owners of its partitions and reads
//! again; it never polls.

use std::rc::Rc;
use std::time::Duration;

use smallvec::SmallVec;

use super::messages::{
    FetchAnswer, FetchPart, FetchPartition, FetchRead, ShardReply, ShardRequest, WatchPart,
    WatchPartition,
};
use super::parked::Leave;
use super::partition::Wakes;
use super::wait::Wait;
use super::{Shard, isr};
use crate::base::{BrokerId, CoreId, ErrorCode, Nanos};
use crate::io::local::{self, Either, or_deadline};
use crate::purgatory::watch::Condition;
use crate::telemetry::Stage;
use crate::wire::api_key::ApiKey;

const API_KEY: i16 = ApiKey::Fetch as i16;

pub type Answers = SmallVec<[FetchAnswer; 1]>;

/// One fetch, as the connection's core sees it.
pub struct Gather {
    pub read: FetchRead,
    pub min_bytes: u64,
    /// When the fetch is answered with whatever is there.
    pub deadline: Nanos,
    /// By slot, ascending.
    pub partitions: SmallVec<[FetchPartition; 1]>,
    /// Partitions were refused already: the answer leaves at once.
    pub refused: bool,
    /// For as long as a follower's fetch may wait; none for any other's, which may as long as
    /// it likes.
    pub leave: Option<Leave>,
}

/// Reads until there is enough, something has to be told, or time is up. The answers stand
/// in the order of the partitions; their sizes respect all limits.
pub async fn gather(shard: &Rc<Shard>, mut fetch: Gather) -> Answers {
    let mut parked: Option<Duration> = None;
    loop {
        let mut answers = read_everywhere(shard, &fetch).await;
        fetch.read.is_first = false;
        let bytes = limit(&fetch, &mut answers);
        let told = fetch.refused
            || answers
                .iter()
                .any(|answer| !answer.error.is_ok() || answer.diverging.is_some());
        if bytes >= fetch.min_bytes
            || told
            || fetch.partitions.is_empty()
            || shard.rt().now() >= fetch.deadline
        {
            if let Some(parked) = parked {
                let metrics = shard.metrics();
                metrics.record(API_KEY, Stage::Purgatory, Nanos(0), Nanos(0) + parked);
            }
            return answers;
        }
        let missing = fetch.min_bytes - bytes;
        let wait = park(shard, &fetch, &answers, missing);
        let from = shard.rt().last_stamp();
        // At the deadline the next round answers.
        let is_left = async {
            match &fetch.leave {
                Some(leave) => match local::either(leave.ended(), wait.notified()).await {
                    Either::First(()) => true,
                    Either::Second(()) => false,
                },
                None => {
                    wait.notified().await;
                    false
                }
            }
        };
        if let Ok(true) = or_deadline(shard.rt(), is_left, fetch.deadline).await {
            fetch.deadline = Nanos(0);
        }
        *parked.get_or_insert_default() += shard.rt().last_stamp().saturating_since(from);
    }
}

/// Reads partitions of this core as they are now, fetching from the disk what it takes to
/// find where a read begins and ends.
pub async fn read(shard: &Shard, part: &mut FetchPart) {
    while !read_cached(shard, part) {
        let asked = part.partitions[part.answers.len()];
        let read = part.read;
        let found = shard
            .rt()
            .without_waiting(|| read_one(shard, &asked, &read));
        part.answers.push(found.await);
    }
}

/// As [`read`], up to the first partition for which it would have to wait. True when there
/// was none.
pub fn read_cached(shard: &Shard, part: &mut FetchPart) -> bool {
    let from = shard.rt().last_stamp();
    if std::mem::take(&mut part.read.is_first) && part.read.replica != BrokerId::NONE {
        take_note(shard, part, from);
    }
    while let Some(asked) = part.partitions.get(part.answers.len()) {
        let found = shard.rt().if_cached(|| read_one(shard, asked, &part.read));
        let Some(answer) = found else { return false };
        part.answers.push(answer);
    }
    shard.end_stage(API_KEY, Stage::Read, from);
    true
}

/// What the follower has counts before anything is read for it, so its answer already has the
/// high watermark that it leads to, and who waits for that waits no longer.
fn take_note(shard: &Shard, part: &FetchPart, now: Nanos) {
    let mut wakes = Wakes::new();
    for asked in &part.partitions {
        let proposal = shard.partition(asked.partition).and_then(|partition| {
            let mut partition = partition.borrow_mut();
            partition.on_follower_fetch(asked, &part.read, now, &mut wakes)
        });
        if let Some(proposal) = proposal {
            isr::propose(shard, asked.partition, proposal);
        }
    }
    shard.wake_all(wakes);
}

fn read_one(shard: &Shard, asked: &FetchPartition, read: &FetchRead) -> FetchAnswer {
    match shard.partition(asked.partition) {
        Some(partition) => {
            let mut partition = partition.borrow_mut();
            let answer = partition.read(asked, read);
            if read.replica == BrokerId::NONE {
                partition.totals().count_read(answer.bytes);
            }
            answer
        }
        None => {
            let error = shard.directories().error_of_missing(asked.partition);
            FetchAnswer::refused(asked.slot, error)
        }
    }
}

/// Puts another core's operation on the lists of partitions of this core.
pub fn watch(shard: &Shard, part: &WatchPart) {
    for asked in &part.partitions {
        let registered = shard.partition(asked.partition).is_some_and(|partition| {
            let mut partition = partition.borrow_mut();
            partition.seen_version() == asked.seen.version
                && partition.watch(part.operation, condition(part, asked))
        });
        if !registered {
            shard.wake(part.operation);
        }
    }
}

fn condition(part: &WatchPart, asked: &WatchPartition) -> Condition {
    let bytes = asked.seen.bytes + part.bytes_min;
    if part.for_follower {
        Condition::LogBytes(bytes)
    } else {
        Condition::ReadableBytes(bytes)
    }
}

async fn read_everywhere(shard: &Rc<Shard>, fetch: &Gather) -> Answers {
    let mut answers: Answers = fetch
        .partitions
        .iter()
        .map(|asked| FetchAnswer::refused(asked.slot, ErrorCode::NOT_LEADER_OR_FOLLOWER))
        .collect();
    let mut calls: SmallVec<[_; 1]> = SmallVec::new();
    for (core, mut part) in by_owner(shard, fetch) {
        if core == shard.core() {
            read(shard, &mut part).await;
            place_all(shard, fetch, &mut answers, part);
        } else {
            part.sent = shard.rt().last_stamp();
            calls.push(shard.call(core, ShardRequest::Fetch(part)));
        }
    }
    for call in calls {
        if let Ok(ShardReply::Fetch(part)) = call.await {
            place_all(shard, fetch, &mut answers, part);
        }
    }
    answers
}

/// Moves the answers of one core to their places.
fn place_all(shard: &Shard, fetch: &Gather, answers: &mut [FetchAnswer], mut part: Box<FetchPart>) {
    for answer in part.answers.drain(..) {
        let position = fetch
            .partitions
            .binary_search_by_key(&answer.slot, |asked| asked.slot)
            .expect("an owner answers the slots that it was asked");
        answers[position] = answer;
    }
    shard.fetch_parts.keep(part, FetchPart::default());
}

fn by_owner(shard: &Shard, fetch: &Gather) -> SmallVec<[(CoreId, Box<FetchPart>); 1]> {
    let mut parts: SmallVec<[(CoreId, Box<FetchPart>); 1]> = SmallVec::new();
    for asked in &fetch.partitions {
        let Some(core) = shard.owner(asked.partition) else {
            continue;
        };
        let index = match parts.iter().position(|(owner, _)| *owner == core) {
            Some(index) => index,
            None => {
                let part = shard.fetch_parts.fill(FetchPart {
                    read: fetch.read,
                    ..FetchPart::default()
                });
                parts.push((core, part));
                parts.len() - 1
            }
        };
        parts[index].1.partitions.push(*asked);
    }
    parts
}

/// Applies the limits in request order: the first partition with data returns at least its
/// first batch whole; a later one whose first batch does not fit returns nothing; the rest
/// is cut where the limit falls, possibly inside a batch. Returns the bytes that remain.
fn limit(fetch: &Gather, answers: &mut [FetchAnswer]) -> u64 {
    let mut room = fetch.read.max_bytes;
    let mut total = 0u64;
    for (asked, answer) in fetch.partitions.iter().zip(answers) {
        if answer.bytes == 0 {
            continue;
        }
        let allowed = room.min(asked.partition_max_bytes);
        let keep = if answer.first_batch_bytes <= allowed {
            answer.bytes.min(allowed)
        } else if total == 0 {
            answer.first_batch_bytes
        } else {
            0
        };
        truncate(answer, keep);
        room = room.saturating_sub(keep);
        total += u64::from(keep);
    }
    total
}

fn truncate(answer: &mut FetchAnswer, keep: u32) {
    let mut left = keep as usize;
    answer.chunks.retain(|chunk| {
        chunk.truncate(left);
        left -= chunk.len();
        !chunk.is_empty()
    });
    answer.bytes = keep - u32::try_from(left).expect("at most keep");
}

/// Registers the fetch at all its partitions. Whichever grows by its share of what is
/// missing wakes it: if all have grown enough together, at least one has by its share.
fn park(shard: &Rc<Shard>, fetch: &Gather, answers: &[FetchAnswer], missing: u64) -> Wait {
    let wait = Wait::new(shard);
    let share = missing.div_ceil(fetch.partitions.len() as u64).max(1);
    let mut parts: Vec<(CoreId, WatchPart)> = Vec::new();
    for (asked, answer) in fetch.partitions.iter().zip(answers) {
        let Some(core) = shard.owner(asked.partition) else {
            wait.notify_now();
            continue;
        };
        let watched = WatchPartition {
            partition: asked.partition,
            seen: answer.seen,
        };
        match parts.iter_mut().find(|(owner, _)| *owner == core) {
            Some((_, part)) => part.partitions.push(watched),
            None => parts.push((
                core,
                WatchPart {
                    operation: wait.id(),
                    for_follower: fetch.read.replica != BrokerId::NONE,
                    bytes_min: share,
                    partitions: vec![watched],
                },
            )),
        }
    }
    for (core, part) in parts {
        if core == shard.core() {
            for asked in &part.partitions {
                wait.registered(asked.partition);
            }
            watch(shard, &part);
        } else {
            wait.watch_remote(core, part);
        }
    }
    wait
}
