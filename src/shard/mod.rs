//! Everything that one core owns: its partitions, connections, sessions, coordinators and
//! waiting operations. A partition, its log and its waiting requests belong to exactly one
//! core; what concerns another core goes there by message.
//!
//! `node` makes one shard a core and runs [`serve_mesh`]; connections come in through
//! [`acceptor`] and go down `connection` → `processor` → `api` → `produce`/`fetch` →
//! `partition`. The metadata image is one immutable value: [`Shard::image`] is this core's
//! pointer to it, swapped by message.

pub mod acceptor;
pub mod append_line;
pub mod background;
pub mod connection;
pub mod connections;
pub mod coordinators;
pub mod directories;
pub mod fetch;
pub mod fetch_session;
pub mod fetcher;
pub mod flush;
pub mod isr;
pub mod limits;
pub mod load;
pub mod messages;
pub mod metrics;
pub mod mover;
pub mod opening;
pub mod operation;
pub mod pace;
pub mod parked;
mod partition;
pub mod pipeline;
pub mod processor;
pub mod produce;
pub mod replicas;
pub mod session_moves;
pub mod session_table;
pub mod spares;
pub mod topic_rules;
pub mod traffic;
pub mod wait;

use std::cell::{Cell, RefCell, RefMut};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use crate::base::{
    BrokerId, CoreId, ErrorCode, PartitionIndex, ProducerId, TopicIdPartition, Uuid,
};
use crate::config::NodeConfig;
use crate::controller::{AutoCreateSettings, ControllerRequest, ControllerResponse};
use crate::coordinator::CoordinatorConfig;
use crate::io::local::{Lock, Notify};
use crate::io::{Queue, Rt};
use crate::log::TailPool;
use crate::log::checkpoint::Offsets;
use crate::log::manager::LogDir;
use crate::mesh::{Gone, Port, ReplySlot};
use crate::metadata::MetadataImage;
use crate::quota::memory::RequestMemory;
use crate::raft::quorum;
use crate::security::{Authorizer, CLUSTER_NAME, Operation, RequestContext, ResourceType};
use crate::telemetry::Stage;
use crate::wire::api_key::ApiKey;
use crate::wire::messages::AllocateProducerIdsRequest;
use connections::Connections;
use coordinators::Led;
use directories::{Directories, Move};
use messages::{
    FetchPart, LongReply, PartitionCall, PartitionReply, ProducePart, Published, QuorumCall,
    ShardReply, ShardRequest,
};
use metrics::Metrics;
use operation::{OperationId, Operations};
use partition::{Partition, Wakes};
use processor::Api;
use session_moves::Sessions;
use spares::{Boxes, Spares};

/// Recent bytes that the logs of one core keep in memory for consumers that keep up.
const TAIL_CACHE_BYTES: usize = 64 * 1024 * 1024;

/// What all cores of a node share; immutable.
pub struct Node {
    pub id: BrokerId,
    /// From the registration of this process; -1 before it.
    pub broker_epoch: std::sync::atomic::AtomicI64,
    /// Node id of the metadata quorum's leader; -1 while it isn't known.
    pub quorum_leader: std::sync::atomic::AtomicI32,
    pub cluster_id: Arc<str>,
    pub config: NodeConfig,
    pub auto_create: AutoCreateSettings,
    pub coordinator: CoordinatorConfig,
    pub authorizer: Arc<dyn Authorizer>,
    /// Data cores; the controller's core has the index after them.
    pub cores: u16,
    /// Their open connections.
    pub load: Arc<load::Load>,
    /// What all cores' requests may take; None: no bound.
    pub request_memory: Option<Arc<RequestMemory>>,
    /// The log directories, by id.
    pub directories: Vec<Directory>,
    /// How fast replicas move between them.
    pub moves: mover::Pace,
}

/// One of `log.dirs`.
#[derive(Clone, Debug)]
pub struct Directory {
    pub id: Uuid,
    pub log_dir: LogDir,
    /// The last stop was clean: logs need no recovery.
    pub clean: bool,
    /// The checkpoints as they were at the start.
    pub recovery_points: Arc<Offsets>,
    pub log_starts: Arc<Offsets>,
    pub high_watermarks: Arc<Offsets>,
}

impl Node {
    pub fn controller_core(&self) -> CoreId {
        CoreId(self.cores)
    }
}

type MeshPort = Port<ShardRequest, ShardReply>;

pub struct Shard {
    rt: Rt,
    node: Arc<Node>,
    apis: &'static [Api],
    port: MeshPort,
    published: RefCell<Arc<Published>>,
    partitions: RefCell<HashMap<TopicIdPartition, Rc<RefCell<Partition>>>>,
    /// Their keys in order, for background tasks; made anew after a change.
    ids: RefCell<Option<Rc<[TopicIdPartition]>>>,
    operations: Operations<LongReply>,
    sessions: RefCell<Sessions>,
    coordinators: RefCell<BTreeMap<PartitionIndex, Led>>,
    opening: opening::Opening,
    /// Held while an image is being applied.
    applying: Lock,
    producer_ids: producer_ids::Block,
    limits: limits::Limits,
    spares: Rc<Spares>,
    fetch_parts: Boxes<FetchPart>,
    produce_parts: Boxes<ProducePart>,
    connections: Connections,
    parked: parked::Parked,
    directories: Directories,
    fetchers: fetcher::Fetchers,
    /// Flushes that go beside another one of their log.
    overlapping: Cell<usize>,
    /// Memory of the tail caches of this core's logs.
    tail_pool: TailPool,
    metrics: Metrics,
    /// Told when the logs of this core have been closed.
    closed: Notify,
}

mod producer_ids;

impl Shard {
    /// A core that serves `apis`.
    pub fn new(rt: Rt, node: Arc<Node>, apis: &'static [Api], port: MeshPort) -> Rc<Shard> {
        let core = rt.core();
        let slots = usize::try_from(node.config.fetch.max_incremental_fetch_session_cache_slots)
            .unwrap_or(0)
            .div_ceil(usize::from(node.cores));
        Rc::new(Shard {
            sessions: RefCell::new(Sessions::new(slots, core, node.cores)),
            published: RefCell::new(Arc::new(Published::empty())),
            partitions: RefCell::default(),
            ids: RefCell::default(),
            operations: Operations::new(core),
            coordinators: RefCell::default(),
            opening: opening::Opening::default(),
            applying: Lock::default(),
            producer_ids: producer_ids::Block::default(),
            limits: limits::Limits::new(&node, core),
            spares: Rc::default(),
            fetch_parts: Boxes::default(),
            produce_parts: Boxes::default(),
            connections: Connections::default(),
            parked: parked::Parked::default(),
            directories: Directories::default(),
            fetchers: fetcher::Fetchers::default(),
            overlapping: Cell::default(),
            tail_pool: TailPool::new(TAIL_CACHE_BYTES),
            metrics: Metrics::new(apis),
            closed: Notify::new(),
            rt,
            node,
            apis,
            port,
        })
    }

    pub fn core(&self) -> CoreId {
        self.rt.core()
    }

    pub fn rt(&self) -> &Rt {
        &self.rt
    }

    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// This core's pointer to the cluster's metadata.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.published.borrow().image.clone()
    }

    pub fn published(&self) -> Arc<Published> {
        self.published.borrow().clone()
    }

    /// The core that owns a local replica.
    pub fn owner(&self, partition: TopicIdPartition) -> Option<CoreId> {
        self.published.borrow().placement.owner(partition)
    }

    /// A partition of this core.
    pub fn partition(&self, id: TopicIdPartition) -> Option<Rc<RefCell<Partition>>> {
        self.partitions.borrow().get(&id).cloned()
    }

    /// What a listener serves: on the controllers' what Kafka's controllers do, on the others
    /// what its brokers do.
    pub fn served(&self, listener: &str) -> impl Iterator<Item = &'static Api> {
        let on_controller = self.is_controller_listener(listener);
        self.apis.iter().filter(move |api| match on_controller {
            true => api.key.info().on_controllers,
            false => api.key.info().on_brokers,
        })
    }

    /// Whether requests on this listener come from controllers and their tools.
    pub fn is_controller_listener(&self, name: &str) -> bool {
        self.node
            .config
            .listeners
            .controller()
            .any(|listener| *listener.name == *name)
    }

    pub fn limits(&self) -> &limits::Limits {
        &self.limits
    }

    pub fn spares(&self) -> &Rc<Spares> {
        &self.spares
    }

    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Fetches of followers that may wait.
    pub fn parked(&self) -> &parked::Parked {
        &self.parked
    }

    pub fn directories(&self) -> &Directories {
        &self.directories
    }

    pub fn fetchers(&self) -> &fetcher::Fetchers {
        &self.fetchers
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub fn tail_pool(&self) -> &TailPool {
        &self.tail_pool
    }

    pub fn operations(&self) -> &Operations<LongReply> {
        &self.operations
    }

    pub fn sessions(&self) -> RefMut<'_, Sessions> {
        self.sessions.borrow_mut()
    }

    pub fn authorize(
        &self,
        context: &RequestContext,
        operation: Operation,
        resource: ResourceType,
        name: &str,
    ) -> bool {
        let published = self.published.borrow();
        let acls = published.image.acls.index();
        let authorizer = &self.node.authorizer;
        let may = authorizer.authorize(acls, context, operation, resource, name);
        if !may {
            let (principal, address) = (&context.principal, context.client_address);
            tracing::debug!(%principal, %address, ?operation, ?resource, name, "not allowed");
        }
        may
    }

    /// Whether there is any topic, existing or not, that the client may use so.
    pub fn authorize_any_topic(&self, context: &RequestContext, operation: Operation) -> bool {
        let published = self.published.borrow();
        let acls = published.image.acls.index();
        let authorizer = &self.node.authorizer;
        authorizer.authorize_by_resource_type(acls, context, operation, ResourceType::Topic)
    }

    pub fn authorized_operations(
        &self,
        context: &RequestContext,
        resource: ResourceType,
        name: &str,
    ) -> i32 {
        crate::security::authorized_operations(
            self.node.authorizer.as_ref(),
            self.published.borrow().image.acls.index(),
            context,
            resource,
            name,
        )
    }

    /// What the client may do to the cluster; nothing if it may not describe it.
    pub fn cluster_operations(&self, context: &RequestContext) -> i32 {
        let (describe, cluster) = (Operation::Describe, ResourceType::Cluster);
        if self.authorize(context, describe, cluster, CLUSTER_NAME) {
            self.authorized_operations(context, cluster, CLUSTER_NAME)
        } else {
            0
        }
    }

    /// A call to another core (or this one). It is on its way when this returns.
    pub fn call(
        &self,
        core: CoreId,
        request: ShardRequest,
    ) -> impl Future<Output = Result<ShardReply, Gone>> + 'static {
        self.port.call(core, request)
    }

    /// Whether calls of this core stand in line: no more requests should be begun.
    pub fn is_congested(&self) -> bool {
        self.port.is_congested()
    }

    /// Waits until no call of this core stands in line.
    pub async fn uncongested(&self) {
        self.port.uncongested().await;
    }

    /// A message whose answer nobody waits for.
    pub fn post(&self, core: CoreId, request: ShardRequest) {
        self.port.post(core, request);
    }

    /// A request to the controller; nothing if it is not there.
    pub async fn controller(&self, request: ControllerRequest) -> Option<ControllerResponse> {
        let request = ShardRequest::Controller(Box::new(request));
        match self.port.call(self.node.controller_core(), request).await {
            Ok(ShardReply::Controller(response)) => Some(*response),
            _ => None,
        }
    }

    /// A request to the metadata quorum; nothing if nobody answers.
    pub async fn quorum(&self, call: QuorumCall) -> Option<quorum::Response> {
        let request = ShardRequest::Quorum(Box::new(call));
        match self.port.call(self.node.controller_core(), request).await {
            Ok(ShardReply::Quorum(response)) => response.map(|response| *response),
            _ => None,
        }
    }

    /// Short calls on partitions, one message a core. Partitions that no core owns are
    /// left out of the replies.
    pub async fn partition_calls(
        &self,
        calls: Vec<(u32, TopicIdPartition, PartitionCall)>,
    ) -> Vec<(u32, PartitionReply)> {
        let mut by_core: BTreeMap<CoreId, Vec<_>> = BTreeMap::new();
        for (slot, partition, call) in calls {
            if let Some(core) = self.owner(partition) {
                by_core
                    .entry(core)
                    .or_default()
                    .push((slot, partition, call));
            }
        }
        let mut replies = Vec::new();
        let mut remote = Vec::new();
        for (core, calls) in by_core {
            if core == self.core() {
                replies.extend(self.answer_partitions(&calls).await);
            } else {
                remote.push(self.call(core, ShardRequest::Partitions(calls)));
            }
        }
        for call in remote {
            if let Ok(ShardReply::Partitions(answered)) = call.await {
                replies.extend(answered);
            }
        }
        replies
    }

    /// An id for an idempotent producer, of this core's block.
    pub async fn next_producer_id(&self) -> Result<ProducerId, ErrorCode> {
        self.producer_ids
            .next(async || {
                let request = AllocateProducerIdsRequest {
                    broker_id: self.node.id.0,
                    broker_epoch: self.broker_epoch(),
                };
                let call = ControllerRequest::AllocateProducerIds {
                    ctx: RequestContext::internal(),
                    request,
                };
                match self.controller(call).await {
                    Some(ControllerResponse::AllocateProducerIds(response)) => Some(response),
                    _ => None,
                }
            })
            .await
    }

    pub fn broker_epoch(&self) -> i64 {
        self.node
            .broker_epoch
            .load(std::sync::atomic::Ordering::Acquire)
    }

    /// Resolves when the logs of this core have been closed.
    pub async fn closed(&self) {
        self.closed.notified().await;
    }

    pub fn wake(&self, operation: OperationId) {
        if operation.core == self.core() {
            self.operations.wake(operation);
        } else {
            self.post(operation.core, ShardRequest::Wake(operation));
        }
    }

    pub fn wake_all(&self, wakes: Wakes) {
        for operation in wakes {
            self.wake(operation);
        }
    }

    /// Takes an operation off the lists of partitions of this core.
    pub fn unwatch(&self, operation: OperationId, partitions: &[TopicIdPartition]) {
        for id in partitions {
            if let Some(partition) = self.partition(*id) {
                partition.borrow_mut().unwatch(&operation);
            }
        }
    }

    async fn answer_partitions(
        &self,
        calls: &[(u32, TopicIdPartition, PartitionCall)],
    ) -> Vec<(u32, PartitionReply)> {
        let mut replies = Vec::with_capacity(calls.len());
        for (slot, id, call) in calls {
            let answer = || {
                let mut wakes = Wakes::new();
                let reply = match self.partition(*id) {
                    Some(partition) => partition.borrow_mut().answer(call, &mut wakes),
                    None => PartitionReply::Refused(self.directories.error_of_missing(*id)),
                };
                self.wake_all(wakes);
                if let (PartitionCall::Move { directory }, PartitionReply::Moving) = (call, &reply)
                {
                    self.directories.queue_move(Move {
                        id: *id,
                        to: *directory,
                        copy: None,
                    });
                }
                reply
            };
            let reply = match call.changes_nothing() {
                true => self.rt.without_waiting(answer).await,
                false => answer(),
            };
            replies.push((*slot, reply));
        }
        replies
    }
}

/// Serves what other cores ask, until the core stops.
pub async fn serve_mesh(shard: Rc<Shard>) {
    loop {
        let (_, request, slot) = shard.port.next_request().await;
        on_request(&shard, request, slot);
    }
}

fn on_request(shard: &Rc<Shard>, request: ShardRequest, slot: ReplySlot<ShardReply>) {
    match request {
        ShardRequest::Produce(operation, mut part) => {
            shard.end_stage(ApiKey::Produce as i16, Stage::Hop, part.sent);
            let waiting = produce::append(shard, &mut part);
            if waiting.is_empty() {
                slot.reply(ShardReply::Produce(part));
            } else {
                slot.reply(ShardReply::Done);
                let acknowledged =
                    produce::acknowledge_remote(shard.clone(), operation, part, waiting);
                shard.rt.spawn(Queue::Request, acknowledged);
            }
        }
        ShardRequest::Fetch(mut part) => {
            shard.end_stage(ApiKey::Fetch as i16, Stage::Hop, part.sent);
            if fetch::read_cached(shard, &mut part) {
                slot.reply(ShardReply::Fetch(part));
            } else {
                let shard = shard.clone();
                shard.rt.clone().spawn(Queue::Request, async move {
                    fetch::read(&shard, &mut part).await;
                    slot.reply(ShardReply::Fetch(part));
                });
            }
        }
        ShardRequest::Watch(part) => {
            fetch::watch(shard, &part);
            slot.reply(ShardReply::Done);
        }
        ShardRequest::Unwatch(operation, partitions) => {
            shard.unwatch(operation, &partitions);
            slot.reply(ShardReply::Done);
        }
        ShardRequest::Follow(part) => {
            fetcher::follow(shard, &part);
            slot.reply(ShardReply::Done);
        }
        ShardRequest::Fetched(part) => {
            let shard = shard.clone();
            shard.rt.clone().spawn(Queue::Replication, async move {
                let next = fetcher::take(&shard, *part).await;
                slot.reply(ShardReply::Fetched(next));
            });
        }
        ShardRequest::Wake(operation) => {
            shard.operations.wake(operation);
            slot.reply(ShardReply::Done);
        }
        ShardRequest::Partitions(calls) => {
            let shard = shard.clone();
            shard.rt.clone().spawn(Queue::Request, async move {
                let replies = shard.answer_partitions(&calls).await;
                slot.reply(ShardReply::Partitions(replies));
            });
        }
        ShardRequest::Long(operation, call) => {
            slot.reply(ShardReply::Done);
            let shard = shard.clone();
            shard.rt.clone().spawn(Queue::Request, async move {
                let reply = coordinators::serve(&shard, *call).await;
                let done = ShardRequest::LongDone(operation, Box::new(reply));
                shard.post(operation.core, done);
            });
        }
        ShardRequest::LongDone(operation, reply) => {
            shard.operations.complete(operation, *reply);
            slot.reply(ShardReply::Done);
        }
        ShardRequest::Publish(published) => {
            let shard = shard.clone();
            shard.rt.clone().spawn(Queue::Request, async move {
                replicas::apply(&shard, published).await;
                slot.reply(ShardReply::Done);
            });
        }
        ShardRequest::Admit(operation, ticket) => {
            slot.reply(ShardReply::Done);
            limits::ask(shard, ticket, limits::Asker::Remote(operation));
        }
        ShardRequest::Ended(ticket) => {
            limits::end(shard, ticket);
            slot.reply(ShardReply::Done);
        }
        ShardRequest::LeastUsed { class, evict } => {
            let used = shard.connections.least_recently_used(class, evict);
            slot.reply(ShardReply::LeastUsed(used));
        }
        ShardRequest::MemoryFreed => {
            shard.limits.on_memory_freed();
            slot.reply(ShardReply::Done);
        }
        ShardRequest::Listen(listeners) => {
            slot.reply(ShardReply::Listening(acceptor::start_all(
                shard, &listeners,
            )));
        }
        ShardRequest::Session(message) => {
            session_moves::serve(shard, slot.caller(), message);
            slot.reply(ShardReply::Done);
        }
        ShardRequest::Adopt(arrival) => {
            acceptor::adopt(shard, *arrival);
            slot.reply(ShardReply::Done);
        }
        ShardRequest::Checkpoints => {
            let shard = shard.clone();
            shard.rt.clone().spawn(Queue::Background, async move {
                let checkpoints = background::checkpoints(&shard).await;
                slot.reply(ShardReply::Checkpoints(checkpoints));
            });
        }
        ShardRequest::Snapshot => {
            slot.reply(ShardReply::Snapshot(Box::new(metrics::snapshot(shard))));
        }
        ShardRequest::CloseLogs => {
            let shard = shard.clone();
            shard.rt.clone().spawn(Queue::Request, async move {
                let closed = replicas::close_all(&shard).await;
                slot.reply(ShardReply::Closed(Box::new(closed)));
                shard.closed.notify_one();
            });
        }
        ShardRequest::TakeOffline(directory) => {
            let shard = shard.clone();
            shard.rt.clone().spawn(Queue::Request, async move {
                directories::take_offline(&shard, directory).await;
                slot.reply(ShardReply::Done);
            });
        }
        // Sent to the controller's core only; a slot dropped unanswered says so.
        ShardRequest::Controller(_)
        | ShardRequest::Quorum(_)
        | ShardRequest::WriteCheckpoints
        | ShardRequest::DirectoryFailed(..)
        | ShardRequest::ReplicaMoving(_)
        | ShardRequest::ReplicaMoved(_)
        | ShardRequest::ProposeIsr(_) => drop(slot),
        ShardRequest::IsrAnswers(answers) => {
            isr::on_answers(shard, answers);
            slot.reply(ShardReply::Done);
        }
        ShardRequest::ResumeMove(resumed) => {
            if let Some(partition) = shard.partition(resumed.id) {
                partition.borrow_mut().resume_move(resumed.to);
            }
            // Where it isn't to be moved any more, the mover clears up.
            shard.directories().queue_move(*resumed);
            slot.reply(ShardReply::Done);
        }
    }
}
