//! The node's log directories while it runs: which are offline, which replica is in which,
//! and what the controller has yet to hear of it. On the controller's core.
//!
//! ```text
//!   image ─▶ place: a directory for each new replica ─▶ cores open logs
//!              │ other than the metadata says            │ a write or sync fails
//!              ▼                                         ▼
//!        AssignReplicasToDirs (KIP-858)        every core, heartbeat with offline directories
//! ```
//! A new replica goes to the directory that the metadata names, else to the one with the
//! fewest replicas that isn't cordoned (`LogManager.nextLogDirs`). While a directory is
//! offline a replica that isn't found is not made anew: it may be in there.
//!
//! Called by the lifecycle and the publisher. The node ends when its metadata directory or
//! all of its log directories have failed, as Kafka's does.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::remote::ActiveController;
use super::settings;
use super::storage::Storage;
use crate::base::{CoreId, ErrorCode, Offset, TopicIdPartition, Uuid};
use crate::config::{DynamicConfig, Layers};
use crate::controller::{ControllerRequest, ControllerResponse};
use crate::io::Rt;
use crate::io::local::Notify;
use crate::mesh::{Port, ReplySlot};
use crate::metadata::{ConfigResourceType, ImageChanges, LocalReplica, MetadataImage};
use crate::security::RequestContext;
use crate::shard::Node;
use crate::shard::messages::{ShardReply, ShardRequest};
use crate::wire::messages::AssignReplicasToDirsRequest;
use crate::wire::messages::assign_replicas_to_dirs_request::{
    DirectoryData, PartitionData, TopicData,
};

/// Replicas in one AssignReplicasToDirs request (`AssignmentsManager`).
const ASSIGNMENTS_MAX: usize = 2_000;
/// Until what the controller refused is told again.
const RETRY: Duration = Duration::from_secs(1);

type MeshPort = Port<ShardRequest, ShardReply>;
type Slot = ReplySlot<ShardReply>;

pub struct Directories {
    rt: Rt,
    node: Arc<Node>,
    port: MeshPort,
    state: RefCell<State>,
    /// There is something to tell the controller.
    due: Notify,
    ended: Notify,
    /// Who waits for the checkpoint files to be written.
    checkpoints: RefCell<Vec<Slot>>,
    checkpoints_due: Notify,
}

struct State {
    /// Of `log.dirs`, in their order.
    all: Vec<Uuid>,
    metadata: Uuid,
    /// A directory of the configuration couldn't be used at the start.
    is_one_missing: bool,
    offline: BTreeSet<Uuid>,
    cordoned: BTreeSet<Uuid>,
    /// Where the logs are.
    held: HashMap<TopicIdPartition, Uuid>,
    /// Replicas that are in a directory that can't be used, as far as is known.
    out_of_reach: BTreeSet<TopicIdPartition>,
    unreported: BTreeMap<TopicIdPartition, Uuid>,
    /// Where replicas are about to be: what the controller is to know, though they aren't held
    /// there yet.
    moving: BTreeMap<TopicIdPartition, Uuid>,
    /// Who is to be answered once the controller knows.
    waiting: Vec<(TopicIdPartition, Uuid, Slot)>,
    /// Replicas that an earlier life was copying.
    copied: BTreeSet<TopicIdPartition>,
    heartbeat_is_due: bool,
    /// Why the node can't go on.
    fatal: Option<String>,
}

impl Directories {
    pub fn new(rt: Rt, node: Arc<Node>, port: MeshPort, storage: &Storage) -> Directories {
        Directories {
            state: RefCell::new(State {
                all: storage.directories.iter().map(|d| d.id).collect(),
                metadata: storage.metadata.id,
                is_one_missing: storage.is_one_missing,
                offline: BTreeSet::new(),
                cordoned: BTreeSet::new(),
                held: HashMap::new(),
                out_of_reach: BTreeSet::new(),
                unreported: BTreeMap::new(),
                moving: BTreeMap::new(),
                waiting: Vec::new(),
                copied: BTreeSet::new(),
                heartbeat_is_due: false,
                fatal: None,
            }),
            rt,
            node,
            port,
            due: Notify::new(),
            ended: Notify::new(),
            checkpoints: RefCell::default(),
            checkpoints_due: Notify::new(),
        }
    }

    /// A core waits for the checkpoint files to be written, as they would be now.
    pub fn want_checkpoints(&self, slot: Slot) {
        self.checkpoints.borrow_mut().push(slot);
        self.checkpoints_due.notify_one();
    }

    /// Resolves when somebody does.
    pub async fn checkpoints_wanted(&self) {
        self.checkpoints_due.notified().await;
    }

    /// Those who are to be answered once the files have been written.
    pub fn take_checkpoints_wanted(&self) -> Vec<Slot> {
        self.checkpoints.take()
    }

    pub fn offline(&self) -> BTreeSet<Uuid> {
        self.state.borrow().offline.clone()
    }

    /// For heartbeats.
    pub fn cordoned(&self) -> Vec<Uuid> {
        self.state.borrow().cordoned.iter().copied().collect()
    }

    /// Before the first image: the logs that the directories hold, and of which there are
    /// unfinished copies.
    pub fn load(
        &self,
        held: HashMap<TopicIdPartition, Uuid>,
        copied: impl Iterator<Item = TopicIdPartition>,
    ) {
        let mut state = self.state.borrow_mut();
        state.held = held;
        state.copied = copied.collect();
    }

    /// A directory can't be written any more: everyone is told, once.
    pub fn fail(&self, directory: Uuid, error: &str) {
        if !self.state.borrow_mut().offline.insert(directory) {
            return;
        }
        tracing::error!(
            dir = %self.path(directory),
            error,
            "log directory failed: it is offline until the next start"
        );
        let fatal = self.state.borrow().why_to_end();
        if let Some(why) = fatal {
            self.end(why);
            return;
        }
        for core in 0..self.node.cores {
            self.port
                .post(CoreId(core), ShardRequest::TakeOffline(directory));
        }
        self.state.borrow_mut().heartbeat_is_due = true;
        self.due.notify_one();
    }

    fn end(&self, why: String) {
        self.state.borrow_mut().fatal = Some(why);
        self.ended.notify_all();
    }

    /// Returns when the node can't go on, and why.
    pub async fn failed(&self) -> String {
        loop {
            let ended = self.ended.notified();
            if let Some(why) = self.state.borrow().fatal.clone() {
                return why;
            }
            ended.await;
        }
    }

    fn path(&self, id: Uuid) -> String {
        let known = self.node.directories.iter().find(|d| d.id == id);
        known.map_or_else(
            || id.to_string(),
            |directory| directory.log_dir.path().display().to_string(),
        )
    }

    /// Decides where the local replicas of an image are, which it adds to `places`.
    pub fn place(
        &self,
        image: &MetadataImage,
        changes: &ImageChanges,
        is_first: bool,
        places: &mut HashMap<TopicIdPartition, Option<Uuid>>,
    ) {
        let state = &mut *self.state.borrow_mut();
        if is_first
            || changes
                .configs
                .iter()
                .any(|(kind, _)| *kind == ConfigResourceType::BROKER)
        {
            let cordoned = self.cordoned_in(image);
            if state.cordoned != cordoned {
                state.cordoned = cordoned;
                state.heartbeat_is_due = true;
                self.due.notify_one();
            }
        }
        let local = changes.local_replicas(self.node.id);
        for (topic, index) in &local.deletes {
            let id = TopicIdPartition {
                topic_id: topic.id,
                partition: *index,
            };
            state.held.remove(&id);
            state.out_of_reach.remove(&id);
            state.unreported.remove(&id);
            state.moving.remove(&id);
            state.waiting.retain(|(waiting, _, _)| *waiting != id);
            places.remove(&id);
        }
        for replica in local.leaders.iter().chain(&local.followers) {
            let id = TopicIdPartition {
                topic_id: replica.topic.id,
                partition: replica.index,
            };
            let assigned = replica.partition.directory_of(self.node.id);
            let place = state.place(id, assigned.unwrap_or(Uuid::ZERO), !is_first);
            if places.get(&id) != Some(&place) {
                places.insert(id, place);
            }
            self.note_place(state, id, replica, place);
        }
    }

    /// What differs from the metadata is told to the controller.
    fn note_place(
        &self,
        state: &mut State,
        id: TopicIdPartition,
        replica: &LocalReplica,
        place: Option<Uuid>,
    ) {
        let place = state.moving.get(&id).copied().or(place);
        match place {
            Some(place) if replica.partition.directory_of(self.node.id) != Some(place) => {
                state.unreported.insert(id, place);
                self.due.notify_one();
            }
            _ => {
                state.unreported.remove(&id);
            }
        }
    }

    fn cordoned_in(&self, image: &MetadataImage) -> BTreeSet<Uuid> {
        let fixed = Layers::of_node(&self.node.config.fixed);
        let own = self.node.id.to_string();
        let dynamic = image.configs.get(ConfigResourceType::BROKER, &own);
        let default = image.configs.get(ConfigResourceType::BROKER, "");
        let layers = Layers {
            dynamic_broker: dynamic.map_or(fixed.dynamic_broker, |map| map),
            dynamic_default: default.map_or(fixed.dynamic_default, |map| map),
            ..fixed
        };
        let config = DynamicConfig::effective(&layers);
        let all = self.node.directories.iter();
        all.filter(|directory| config.is_cordoned(directory.log_dir.path()))
            .map(|directory| directory.id)
            .collect()
    }

    /// Tells the controller what it has to know, until the node stops.
    pub async fn report(self: Rc<Self>, active: ActiveController) {
        loop {
            let due = self.due.notified();
            if self.node.broker_epoch.load(Ordering::Acquire) >= 0 {
                if std::mem::take(&mut self.state.borrow_mut().heartbeat_is_due) {
                    self.heartbeat(&active).await;
                }
                while !self.report_places(&active).await {
                    self.rt.sleep(RETRY).await;
                }
            }
            due.await;
        }
    }

    /// A replica is about to be in another directory. Answers when the controller knows; drops
    /// the slot if the replica goes away.
    pub fn on_moving(&self, id: TopicIdPartition, to: Uuid, slot: Slot) {
        let mut state = self.state.borrow_mut();
        if state.held.contains_key(&id) {
            state.moving.insert(id, to);
            state.unreported.insert(id, to);
            state.waiting.push((id, to, slot));
            self.due.notify_one();
        }
    }

    /// A move has ended: the replica is in this directory now, which may be the old one.
    pub fn on_moved(&self, id: TopicIdPartition, directory: Uuid) {
        let mut state = self.state.borrow_mut();
        let told = state.moving.remove(&id);
        state.waiting.retain(|(waiting, _, _)| *waiting != id);
        // Not if it was deleted meanwhile.
        if let Some(held) = state.held.get_mut(&id) {
            *held = directory;
            if told.is_some_and(|told| told != directory) {
                state.unreported.insert(id, directory);
                self.due.notify_one();
            }
        }
    }

    /// The broker has been registered: now the controller listens.
    pub fn on_registered(&self) {
        self.due.notify_one();
    }

    async fn heartbeat(&self, active: &ActiveController) {
        let epoch = self.node.broker_epoch.load(Ordering::Acquire);
        // It has its own registration, or it would have no epoch.
        let request = settings::heartbeat(&self.node, epoch, Offset(epoch), false, self);
        let call = ControllerRequest::BrokerHeartbeat {
            ctx: RequestContext::internal(),
            request,
        };
        match active.call(call).await {
            ControllerResponse::BrokerHeartbeat(response) if response.error_code == 0 => {}
            ControllerResponse::BrokerHeartbeat(response) => {
                let error = ErrorCode(response.error_code);
                tracing::warn!(%error, "the controller refused news of the log directories");
                self.state.borrow_mut().heartbeat_is_due = true;
                self.rt.sleep(RETRY).await;
                self.due.notify_one();
            }
            _ => {}
        }
    }

    /// True when nothing is left to be told.
    async fn report_places(&self, active: &ActiveController) -> bool {
        let told: Vec<(TopicIdPartition, Uuid)> = {
            let state = self.state.borrow();
            let unreported = state.unreported.iter().take(ASSIGNMENTS_MAX);
            unreported.map(|(id, place)| (*id, *place)).collect()
        };
        if told.is_empty() {
            return true;
        }
        let call = ControllerRequest::AssignReplicasToDirs {
            ctx: RequestContext::internal(),
            request: AssignReplicasToDirsRequest {
                broker_id: self.node.id.0,
                broker_epoch: self.node.broker_epoch.load(Ordering::Acquire),
                directories: by_directory(&told),
            },
        };
        let accepted = match active.call(call).await {
            ControllerResponse::AssignReplicasToDirs(response) => {
                if response.error_code != 0 {
                    let error = ErrorCode(response.error_code);
                    tracing::warn!(%error, "the controller refused where replicas are");
                }
                response.error_code == 0
            }
            _ => false,
        };
        let mut state = self.state.borrow_mut();
        if accepted {
            // What it didn't take is no replica here any more; the image will say so.
            state
                .unreported
                .retain(|id, place| !told.contains(&(*id, *place)));
            let is_told =
                |(id, to, _): &mut (TopicIdPartition, Uuid, Slot)| told.contains(&(*id, *to));
            for (_, _, slot) in state.waiting.extract_if(.., is_told) {
                slot.reply(ShardReply::Done);
            }
        }
        state.unreported.is_empty()
    }
}

impl State {
    fn place(&mut self, id: TopicIdPartition, assigned: Uuid, may_be_new: bool) -> Option<Uuid> {
        if let Some(place) = self.held.get(&id) {
            return Some(*place);
        }
        let is_new = may_be_new && !self.out_of_reach.contains(&id);
        let place = if self.copied.contains(&id) {
            // The controller may have heard of the copy; the log itself is out of reach.
            None
        } else if self.all.contains(&assigned) {
            Some(assigned)
        } else if !is_new && (self.is_one_missing || !self.offline.is_empty()) {
            None
        } else {
            self.emptiest()
        };
        match place {
            Some(place) => {
                self.held.insert(id, place);
                self.out_of_reach.remove(&id);
            }
            None => {
                self.out_of_reach.insert(id);
            }
        }
        place
    }

    /// The directory with the fewest logs, the earlier one of equals.
    fn emptiest(&self) -> Option<Uuid> {
        let online = || self.all.iter().filter(|id| !self.offline.contains(id));
        let open = || online().filter(|id| !self.cordoned.contains(id));
        let mut counts: BTreeMap<Uuid, usize> = BTreeMap::new();
        if online().count() > 1 {
            for place in self.held.values() {
                *counts.entry(*place).or_default() += 1;
            }
        }
        let fewest = |id: &&Uuid| counts.get(*id).copied().unwrap_or(0);
        // With all of them cordoned the controller gives no new ones; what comes has to be.
        open()
            .min_by_key(fewest)
            .or_else(|| online().min_by_key(fewest))
            .copied()
    }

    fn why_to_end(&self) -> Option<String> {
        if self.offline.contains(&self.metadata) {
            return Some("the metadata log directory has failed".to_owned());
        }
        let all = self.all.iter().all(|id| self.offline.contains(id));
        all.then(|| "all log directories have failed".to_owned())
    }
}

fn by_directory(told: &[(TopicIdPartition, Uuid)]) -> Vec<DirectoryData> {
    let mut tree: BTreeMap<Uuid, BTreeMap<Uuid, Vec<PartitionData>>> = BTreeMap::new();
    for (id, place) in told {
        let topics = tree.entry(*place).or_default();
        topics.entry(id.topic_id).or_default().push(PartitionData {
            partition_index: id.partition.0,
        });
    }
    tree.into_iter()
        .map(|(id, topics)| DirectoryData {
            id,
            topics: topics
                .into_iter()
                .map(|(topic_id, partitions)| TopicData {
                    topic_id,
                    partitions,
                })
                .collect(),
        })
        .collect()
}
