//! Gives every new image to every core, and decides which core owns which local replica.
//!
//! Called by the controller's loop after a committed batch; returns when every core uses
//! the image, so that whoever then asks any core sees it. Owners are chosen here alone:
//! a new replica goes to the core with the fewest, whatever its topic.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::controller::Publish;
use super::directories::Directories;
use super::storage::Storage;
use crate::base::{BrokerId, CoreId, PartitionIndex, TopicIdPartition};
use crate::io::Rt;
use crate::mesh::Port;
use crate::metadata::{ImageChanges, MetadataImage, TopicImage};
use crate::shard::Node;
use crate::shard::directories::Move;
use crate::shard::messages::{Placement, Published, ShardReply, ShardRequest};

pub struct Publisher {
    rt: Rt,
    port: Port<ShardRequest, ShardReply>,
    node: Arc<Node>,
    storage: Storage,
    directories: Rc<Directories>,
    state: RefCell<State>,
}

struct State {
    first: bool,
    owners: Owners,
}

/// Which core has which replica, balanced by number over all topics together: the topic with
/// one partition and the one with a hundred count alike, and so do leaders and followers.
///
/// A replica stays where it is as long as it lives, so cores that lost more than others to
/// deletions catch up with the next ones.
struct Owners {
    placement: Arc<Placement>,
    /// Replicas of each core.
    load: Vec<usize>,
}

impl Publisher {
    pub fn new(
        rt: Rt,
        port: Port<ShardRequest, ShardReply>,
        node: Arc<Node>,
        storage: Storage,
        directories: Rc<Directories>,
    ) -> Publisher {
        Publisher {
            state: RefCell::new(State {
                first: true,
                owners: Owners::new(node.cores),
            }),
            rt,
            port,
            node,
            storage,
            directories,
        }
    }
}

impl Publish for Rc<Publisher> {
    fn on_leader(&self, leader: Option<BrokerId>) {
        let id = leader.map_or(-1, |id| id.0);
        self.node.quorum_leader.store(id, Ordering::Relaxed);
    }

    async fn publish(&self, image: Arc<MetadataImage>, changes: Arc<ImageChanges>) {
        let is_first = std::mem::replace(&mut self.state.borrow_mut().first, false);
        let mut moves: Vec<Move> = Vec::new();
        if is_first {
            let found = self.storage.set_strays_aside(
                &*self.rt.disk(),
                &image,
                self.node.id,
                &mut self.rt.rng(),
            );
            let copied = found.moves.iter().map(|found| found.id);
            let copied = copied
                .filter(|id| !found.held.contains_key(id))
                .collect::<Vec<_>>();
            let has_log = |found_move: &Move| found.held.contains_key(&found_move.id);
            moves = found.moves.into_iter().filter(has_log).collect::<Vec<_>>();
            self.directories.load(found.held, copied.into_iter());
        }
        let placement = {
            let owners = &mut self.state.borrow_mut().owners;
            owners.place(&changes, self.node.id);
            let places = &mut Arc::make_mut(&mut owners.placement).directories;
            self.directories.place(&image, &changes, is_first, places);
            owners.placement.clone()
        };
        let owners = placement.clone();
        let published = Arc::new(Published {
            image,
            changes,
            placement,
        });
        let calls: Vec<_> = (0..self.node.cores)
            .map(|core| {
                self.port
                    .call(CoreId(core), ShardRequest::Publish(published.clone()))
            })
            .collect();
        for call in calls {
            if call.await.is_err() {
                // Only while the node stops: that core answers nobody any more.
                tracing::debug!("a core is gone and misses an image");
            }
        }
        for resumed in moves {
            if let Some(core) = owners.owner(resumed.id) {
                self.port
                    .post(core, ShardRequest::ResumeMove(Box::new(resumed)));
            }
        }
    }
}

impl Owners {
    fn new(cores: u16) -> Owners {
        Owners {
            placement: Arc::default(),
            load: vec![0; usize::from(cores)],
        }
    }

    /// Takes over what changed for this broker.
    fn place(&mut self, changes: &ImageChanges, me: BrokerId) {
        let local = changes.local_replicas(me);
        let key = |topic: &TopicImage, index: PartitionIndex| TopicIdPartition {
            topic_id: topic.id,
            partition: index,
        };
        for (topic, index) in &local.deletes {
            self.release(key(topic, *index));
        }
        for replica in local.leaders.iter().chain(&local.followers) {
            self.settle(key(&replica.topic, replica.index));
        }
    }

    /// A replica is gone.
    fn release(&mut self, id: TopicIdPartition) {
        if self.placement.owners.contains_key(&id)
            && let Some(core) = Arc::make_mut(&mut self.placement).owners.remove(&id)
        {
            self.load[core.index()] -= 1;
        }
    }

    /// A replica is here; if it is new, it goes to the core with the fewest.
    fn settle(&mut self, id: TopicIdPartition) {
        if self.placement.owners.contains_key(&id) {
            return;
        }
        let core = self.least_loaded();
        self.load[core.index()] += 1;
        Arc::make_mut(&mut self.placement).owners.insert(id, core);
    }

    fn least_loaded(&self) -> CoreId {
        let (index, _) = self
            .load
            .iter()
            .enumerate()
            .min_by_key(|(_, load)| **load)
            .expect("a node has at least one data core");
        CoreId(index as u16)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::base::Uuid;

    #[derive(Clone, Debug)]
    enum Step {
        /// A topic, by its number, with so many partitions from the next one on.
        Create(u8, u16),
        Delete(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let topics = 0u8..6;
        let step = prop_oneof![
            3 => (topics.clone(), 0u16..40).prop_map(|(topic, count)| Step::Create(topic, count)),
            1 => topics.prop_map(Step::Delete),
        ];
        proptest::collection::vec(step, 0..40)
    }

    fn id(topic: u8, partition: u16) -> TopicIdPartition {
        TopicIdPartition {
            topic_id: Uuid([topic; 16]),
            partition: PartitionIndex(i32::from(partition)),
        }
    }

    fn spread(owners: &Owners) -> usize {
        let most = owners.load.iter().max().unwrap();
        most - owners.load.iter().min().unwrap()
    }

    proptest! {
        #[test]
        fn replicas_are_balanced_over_cores_by_all_of_them(cores in 1u16..20, steps in steps()) {
            let mut owners = Owners::new(cores);
            let mut partitions: BTreeMap<u8, u16> = BTreeMap::new();
            let mut settled: BTreeMap<TopicIdPartition, CoreId> = BTreeMap::new();
            let mut nothing_deleted = true;
            for step in steps {
                let before = spread(&owners);
                match step {
                    Step::Create(topic, count) => {
                        let first = partitions.entry(topic).or_default();
                        for partition in *first..*first + count {
                            owners.settle(id(topic, partition));
                            let core = owners.placement.owners[&id(topic, partition)];
                            settled.insert(id(topic, partition), core);
                            // Again, as when it changes: it stays.
                            owners.settle(id(topic, partition));
                        }
                        *first += count;
                        prop_assert!(spread(&owners) <= before.max(1));
                    }
                    Step::Delete(topic) => {
                        for partition in 0..partitions.remove(&topic).unwrap_or(0) {
                            owners.release(id(topic, partition));
                            settled.remove(&id(topic, partition));
                            nothing_deleted = false;
                        }
                        // Nobody has what isn't there any more.
                        owners.release(id(topic, 0));
                    }
                }
                if nothing_deleted {
                    prop_assert!(spread(&owners) <= 1);
                }
                let mut load = vec![0; usize::from(cores)];
                settled.values().for_each(|core| load[core.index()] += 1);
                prop_assert_eq!(&load, &owners.load);
                let held: BTreeMap<_, _> =
                    owners.placement.owners.iter().map(|(id, core)| (*id, *core)).collect();
                prop_assert_eq!(&held, &settled);
            }
            // Whatever was deleted, enough new ones even it out.
            let gap: usize = owners.load.iter().map(|load| owners.load.iter().max().unwrap() - load).sum();
            for partition in 0..gap {
                owners.settle(id(200, partition as u16));
            }
            prop_assert_eq!(spread(&owners), 0);
        }
    }
}
