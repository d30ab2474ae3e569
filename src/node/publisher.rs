//! Gives every new image to every core, and decides which core owns which local replica.
//!
//! Called by the controller's loop after a committed batch; returns when every core uses
//! the image, so that whoever then asks any core sees it. Owners are chosen here alone:
//! a new replica goes to the core with the fewest, whatever its topic.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::controller::Publish;
use super::storage::Storage;
use crate::base::{CoreId, PartitionIndex, TopicIdPartition};
use crate::io::Rt;
use crate::mesh::Port;
use crate::metadata::{ImageChanges, MetadataImage, TopicImage};
use crate::shard::Node;
use crate::shard::messages::{Placement, Published, ShardReply, ShardRequest};

pub struct Publisher {
    rt: Rt,
    port: Port<ShardRequest, ShardReply>,
    node: Arc<Node>,
    storage: Storage,
    state: RefCell<State>,
}

struct State {
    first: bool,
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
    ) -> Publisher {
        Publisher {
            state: RefCell::new(State {
                first: true,
                placement: Arc::default(),
                load: vec![0; usize::from(node.cores)],
            }),
            rt,
            port,
            node,
            storage,
        }
    }
}

impl Publish for Rc<Publisher> {
    async fn publish(&self, image: Arc<MetadataImage>, changes: Arc<ImageChanges>) {
        if std::mem::replace(&mut self.state.borrow_mut().first, false) {
            self.storage.set_strays_aside(
                &*self.rt.disk(),
                &image,
                self.node.id,
                &mut self.rt.rng(),
            );
        }
        let placement = self.state.borrow_mut().place(&changes, self.node.id);
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
    }
}

impl State {
    fn place(&mut self, changes: &ImageChanges, me: crate::base::BrokerId) -> Arc<Placement> {
        let local = changes.local_replicas(me);
        let key = |topic: &TopicImage, index: PartitionIndex| TopicIdPartition {
            topic_id: topic.id,
            partition: index,
        };
        for (topic, index) in &local.deletes {
            let id = key(topic, *index);
            if self.placement.owners.contains_key(&id)
                && let Some(core) = Arc::make_mut(&mut self.placement).owners.remove(&id)
            {
                self.load[core.index()] -= 1;
            }
        }
        for replica in local.leaders.iter().chain(&local.followers) {
            let id = key(&replica.topic, replica.index);
            if self.placement.owners.contains_key(&id) {
                continue;
            }
            let core = self.least_loaded();
            self.load[core.index()] += 1;
            Arc::make_mut(&mut self.placement).owners.insert(id, core);
        }
        self.placement.clone()
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
