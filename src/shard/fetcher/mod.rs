//! Followers at work: this core's partitions that another broker leads are fetched from it.
//! [Why it is divided so](../../../docs/adr/replica-fetchers.md).
//!
//! ```text
//!  owning core                           fetcher's core                      leader
//!  partition::follower ── Follow ──────▶ roster ─▶ run ───── Fetch ────────▶
//!    append, truncate  ◀── Fetched ─────           run ◀──── answers ───────
//!    what to ask next  ─────reply──────▶ roster
//! ```
//! Called by `shard::replicas` when the metadata says who leads ([`on_changes`]), by
//! `shard::flush` when a disk has what was written ([`on_durable`]), and by `Shard::on_request`
//! for other cores ([`follow`], [`take`]). A leader has `num.replica.fetchers` fetchers, each
//! with one connection, on a core that follows from their number: however many cores own its
//! partitions, the connections are as many.
//!
//! Invariants: a partition is told to one fetcher at most ([`Fetchers::told`]); only its owner
//! decides what is asked, with what [`replica::follower`](crate::replica::follower) says.

mod connection;
pub mod parts;
mod roster;
mod run;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::Shard;
use super::flush;
use super::messages::{ShardReply, ShardRequest};
use super::partition::{Partition, Wakes};
use crate::base::{BrokerId, LeaderEpoch, TopicIdPartition};
use crate::io::Queue;
use crate::replica::Transition;
use crate::replica::follower::{Next, Ticket};
use parts::{FetchedPart, FetcherKey, FollowPart, Followed};
use run::Fetcher;

/// What an image changes for the followers of a core.
#[derive(Debug, Default)]
pub struct FollowerChanges {
    /// A term began in which another broker leads.
    pub started: Vec<TopicIdPartition>,
    /// Led here now or by nobody, deleted, or offline.
    pub stopped: Vec<TopicIdPartition>,
}

impl FollowerChanges {
    /// What an assignment has made of a partition.
    pub fn note(&mut self, id: TopicIdPartition, transition: Transition) {
        match transition {
            Transition::Stale | Transition::Unchanged => {}
            Transition::BecameFollower { .. } => self.started.push(id),
            Transition::BecameLeader { .. } | Transition::NoLeader => self.stopped.push(id),
        }
    }
}

/// What one core has to do with fetching.
#[derive(Default)]
pub struct Fetchers {
    /// Of this core's partitions, those that are fetched, and from whom.
    told: RefCell<BTreeMap<TopicIdPartition, BrokerId>>,
    /// Those that wait for the recovery point to be in its file.
    held: RefCell<BTreeSet<TopicIdPartition>>,
    /// Those that run on this core.
    running: RefCell<BTreeMap<FetcherKey, Rc<Fetcher>>>,
}

/// What is to be told to each fetcher.
type Told = BTreeMap<FetcherKey, Vec<Followed>>;

impl Fetchers {
    fn forget(&self, key: FetcherKey) {
        self.running.borrow_mut().remove(&key);
    }
}

/// Has those fetched that are followed now, and others no more. The image is the one that the
/// changes are of.
pub fn on_changes(shard: &Rc<Shard>, changes: FollowerChanges) {
    let mut told = Told::new();
    for id in changes.stopped {
        stop(shard, id, &mut told);
    }
    for id in changes.started {
        let Some(partition) = shard.partition(id) else {
            stop(shard, id, &mut told);
            continue;
        };
        let mut partition = partition.borrow_mut();
        if shard.fetchers().held.borrow().contains(&id) {
            partition.hold_following();
        }
        match partition.followed() {
            None => stop(shard, id, &mut told),
            Some((leader, followed)) => {
                let before = shard.fetchers().told.borrow_mut().insert(id, leader);
                if let Some(before) = before.filter(|before| *before != leader) {
                    told.entry(key(shard, before, id))
                        .or_default()
                        .push(ended(id));
                }
                told.entry(key(shard, leader, id))
                    .or_default()
                    .push(followed);
            }
        }
    }
    post(shard, told);
    let published = shard.published();
    let running = shard.fetchers().running.borrow();
    for fetcher in running.values() {
        if published.changes.brokers.contains(&fetcher.leader()) {
            fetcher.retry();
        }
    }
}

/// A flush of the partition has landed: if it follows, it may be asked for again.
pub fn on_durable(shard: &Shard, partition: &RefCell<Partition>) {
    let mut wakes = Wakes::new();
    let followed = partition.borrow_mut().on_disk(&mut wakes);
    shard.wake_all(wakes);
    if let Some((leader, followed)) = followed {
        post_one(shard, leader, followed);
    }
}

/// What owners want of a leader, whose fetcher runs on this core.
pub fn follow(shard: &Rc<Shard>, part: &FollowPart) {
    let mut running = shard.fetchers().running.borrow_mut();
    let is_wanted = |followed: &Followed| followed.next != Next::Metadata;
    let fetcher = match running.get(&part.fetcher) {
        Some(fetcher) => fetcher.clone(),
        None if part.partitions.iter().any(is_wanted) => {
            let fetcher = Rc::new(Fetcher::new(part.fetcher));
            running.insert(part.fetcher, fetcher.clone());
            let life = run::run(shard.clone(), fetcher.clone());
            shard.rt().spawn(Queue::Replication, life);
            fetcher
        }
        None => return,
    };
    let mut roster = fetcher.roster().borrow_mut();
    for followed in &part.partitions {
        roster.tell(part.owner, followed);
    }
    fetcher.wake();
}

/// Takes a leader's answers for partitions of this core; what each of them wants next.
pub async fn take(shard: &Rc<Shard>, part: FetchedPart) -> Vec<Followed> {
    let budget = shard.rt().budget();
    let backoff = run::backoff(&shard.node().config.replication);
    let mut next = Vec::with_capacity(part.partitions.len());
    for fetched in part.partitions {
        let (id, ticket) = (fetched.partition, fetched.ticket);
        let Some(partition) = shard.partition(id) else {
            next.push(Followed {
                ticket,
                ..ended(id)
            });
            continue;
        };
        let (now, now_ms) = (shard.rt().now(), shard.rt().wall_ms());
        let mut wakes = Wakes::new();
        let (followed, wants_checkpoint) = {
            let mut partition = partition.borrow_mut();
            let before = partition.log().recovery_checkpoint();
            let mut followed = partition.on_fetched(fetched, now, now_ms, backoff, &mut wakes);
            flush::start_if_due(shard, id, &mut partition);
            let wants_checkpoint = partition.log().recovery_checkpoint() < before;
            if wants_checkpoint {
                partition.hold_following();
                followed = partition.followed().map_or(followed, |(_, held)| held);
            }
            (followed, wants_checkpoint)
        };
        next.push(followed);
        shard.wake_all(wakes);
        if wants_checkpoint && shard.fetchers().held.borrow_mut().insert(id) {
            shard
                .rt()
                .spawn(Queue::Replication, release(shard.clone(), id));
        }
        budget.breathe().await;
    }
    next
}

/// Has a partition fetched again whose log was cut below the recovery point in its file, once
/// that says so.
async fn release(shard: Rc<Shard>, id: TopicIdPartition) {
    let request = ShardRequest::WriteCheckpoints;
    let written = shard.call(shard.node().controller_core(), request).await;
    shard.fetchers().held.borrow_mut().remove(&id);
    let Ok(ShardReply::Done) = written else {
        // The node ends.
        return;
    };
    let Some(partition) = shard.partition(id) else {
        return;
    };
    let followed = partition.borrow_mut().release_following();
    if let Some((leader, followed)) = followed {
        post_one(&shard, leader, followed);
    }
}

fn stop(shard: &Shard, id: TopicIdPartition, told: &mut Told) {
    if let Some(leader) = shard.fetchers().told.borrow_mut().remove(&id) {
        told.entry(key(shard, leader, id))
            .or_default()
            .push(ended(id));
    }
}

/// It isn't followed any more.
fn ended(partition: TopicIdPartition) -> Followed {
    Followed {
        partition,
        ticket: Ticket {
            leader_epoch: LeaderEpoch::UNKNOWN,
            number: 0,
        },
        next: Next::Metadata,
    }
}

fn key(shard: &Shard, leader: BrokerId, id: TopicIdPartition) -> FetcherKey {
    let fetchers = shard.node().config.replication.num_replica_fetchers;
    FetcherKey::of(leader, id, u32::try_from(fetchers).unwrap_or(1))
}

fn post_one(shard: &Shard, leader: BrokerId, followed: Followed) {
    let key = key(shard, leader, followed.partition);
    post(shard, Told::from([(key, vec![followed])]));
}

fn post(shard: &Shard, told: Told) {
    for (fetcher, partitions) in told {
        let part = FollowPart {
            fetcher,
            owner: shard.core(),
            partitions,
        };
        let core = fetcher.core(shard.node().cores);
        shard.post(core, ShardRequest::Follow(Box::new(part)));
    }
}
