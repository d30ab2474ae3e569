//! Log directories that fail while this core runs, and replicas that have no log here.
//!
//! ```text
//!  a write or sync fails ─▶ Failures ─▶ watch: this directory's partitions go offline, and
//!                                       the controller's core is told; it tells the others
//!                                       (TakeOffline), and the controller by a heartbeat
//! ```
//! A directory that failed stays offline until the next start: what a failed sync covered may
//! be lost, and no later one makes it good. A lack of space is no failure (see `log::error`).
//!
//! Called by `partition` and `flush` where a log has failed, by `replicas` where none can be
//! opened. A log that has no space to be opened is tried again from time to time.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;

use super::messages::ShardRequest;
use super::partition::Wakes;
use super::{Shard, replicas};
use crate::base::{ErrorCode, TopicIdPartition, Uuid};
use crate::io::local::Notify;

/// What has failed and wasn't looked at yet. Held by every partition of the core.
#[derive(Default)]
pub struct Failures {
    waiting: RefCell<Vec<(Uuid, String)>>,
    told: Notify,
}

impl Failures {
    pub fn tell(&self, directory: Uuid, error: String) {
        self.waiting.borrow_mut().push((directory, error));
        self.told.notify_one();
    }
}

/// A replica that is to be in another log directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    pub id: TopicIdPartition,
    pub to: Uuid,
    /// What an earlier life of the node has copied.
    pub copy: Option<PathBuf>,
}

/// This core's view of the log directories.
#[derive(Default)]
pub struct Directories {
    failures: Rc<Failures>,
    offline: RefCell<BTreeSet<Uuid>>,
    /// Replicas without a log: whether to try again.
    absent: RefCell<BTreeMap<TopicIdPartition, bool>>,
    /// Replicas to be moved, and where to. No more than there are replicas and directories.
    moves: RefCell<VecDeque<Move>>,
    moves_told: Notify,
}

impl Directories {
    pub fn failures(&self) -> &Rc<Failures> {
        &self.failures
    }

    pub fn is_offline(&self, directory: Uuid) -> bool {
        self.offline.borrow().contains(&directory)
    }

    /// A replica of this core is to be moved.
    pub fn queue_move(&self, asked: Move) {
        let mut moves = self.moves.borrow_mut();
        let is_same = |other: &Move| (other.id, other.to) == (asked.id, asked.to);
        if !moves.iter().any(is_same) {
            moves.push_back(asked);
        }
        self.moves_told.notify_one();
    }

    /// The next replica to be moved.
    pub async fn next_move(&self) -> Move {
        loop {
            let told = self.moves_told.notified();
            let next = self.moves.borrow_mut().pop_front();
            if let Some(next) = next {
                return next;
            }
            told.await;
        }
    }

    /// A replica of this core has no log that can be used.
    pub fn miss(&self, id: TopicIdPartition, try_again: bool) {
        self.absent.borrow_mut().insert(id, try_again);
    }

    /// It has one now, or is gone.
    pub fn found(&self, id: TopicIdPartition) {
        self.absent.borrow_mut().remove(&id);
    }

    /// Those to try again.
    pub fn missed(&self) -> Vec<TopicIdPartition> {
        let absent = self.absent.borrow();
        let again = absent.iter().filter(|(_, try_again)| **try_again);
        again.map(|(id, _)| *id).collect()
    }

    /// The error of a request for a partition that isn't here.
    pub fn error_of_missing(&self, id: TopicIdPartition) -> ErrorCode {
        match self.absent.borrow().contains_key(&id) {
            true => ErrorCode::KAFKA_STORAGE_ERROR,
            false => ErrorCode::NOT_LEADER_OR_FOLLOWER,
        }
    }
}

/// Takes directories offline as they fail, until the core stops.
pub async fn watch(shard: Rc<Shard>) {
    loop {
        let told = shard.directories.failures.told.notified();
        let failed = std::mem::take(&mut *shard.directories.failures.waiting.borrow_mut());
        for (directory, error) in failed {
            if take_offline(&shard, directory).await {
                let request = ShardRequest::DirectoryFailed(Box::new((directory, error)));
                shard.post(shard.node().controller_core(), request);
            }
        }
        told.await;
    }
}

/// Takes every partition in the directory offline. False where that is done.
pub async fn take_offline(shard: &Rc<Shard>, directory: Uuid) -> bool {
    if !shard.directories.offline.borrow_mut().insert(directory) {
        return false;
    }
    let budget = shard.rt().budget();
    for id in replicas::ids(shard).iter().copied() {
        let Some(partition) = shard.partition(id) else {
            continue;
        };
        if partition.borrow().directory() == directory {
            let mut wakes = Wakes::new();
            partition.borrow_mut().take_offline(&mut wakes);
            shard.wake_all(wakes);
        }
        budget.breathe().await;
    }
    true
}
