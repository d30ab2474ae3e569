//! A delayed operation while it waits: registered at the partitions that may complete it,
//! on this core or others, and taken off all of them when it ends, however it ends.

use std::cell::RefCell;
use std::rc::Rc;

use super::Shard;
use super::messages::{ShardRequest, WatchPart};
use super::operation::OperationId;
use crate::base::{CoreId, TopicIdPartition};
use crate::io::local::Notify;
use crate::purgatory::watch::Condition;

pub struct Wait {
    shard: Rc<Shard>,
    id: OperationId,
    notify: Rc<Notify>,
    local: RefCell<Vec<TopicIdPartition>>,
    remote: RefCell<Vec<(CoreId, Vec<TopicIdPartition>)>>,
}

impl Wait {
    pub fn new(shard: &Rc<Shard>) -> Wait {
        let (id, notify) = shard.operations().signal();
        Wait {
            shard: shard.clone(),
            id,
            notify,
            local: RefCell::default(),
            remote: RefCell::default(),
        }
    }

    pub fn id(&self) -> OperationId {
        self.id
    }

    /// Wakes the operation when a partition of this core fulfils `condition`; at once if
    /// it does already, or is gone.
    pub fn watch_local(&self, partition: TopicIdPartition, condition: Condition) {
        match self.shard.partition(partition) {
            Some(found) if found.borrow_mut().watch(self.id, condition) => {
                self.local.borrow_mut().push(partition);
            }
            _ => self.notify.notify_one(),
        }
    }

    /// The same for partitions of another core.
    pub fn watch_remote(&self, core: CoreId, part: WatchPart) {
        let partitions = part.partitions.iter().map(|p| p.partition).collect();
        self.remote.borrow_mut().push((core, partitions));
        self.shard.post(core, ShardRequest::Watch(part));
    }

    pub fn notify_now(&self) {
        self.notify.notify_one();
    }

    /// Remembers that the operation is on a local partition's list.
    pub fn registered(&self, partition: TopicIdPartition) {
        self.local.borrow_mut().push(partition);
    }

    pub async fn notified(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.shard.operations().end(self.id);
        self.shard.unwatch(self.id, &self.local.take());
        for (core, partitions) in self.remote.take() {
            self.shard
                .post(core, ShardRequest::Unwatch(self.id, partitions));
        }
    }
}
