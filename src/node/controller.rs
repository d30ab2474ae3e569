//! The controller's core: owns the replica of the metadata log and, while this node leads the
//! quorum, decides. Takes operations, lets [`Controller`] decide, proposes the records,
//! waits until they are committed, publishes the new image to every core, and only then
//! answers.
//!
//! ```text
//!   call ─▶ decide, propose, replay (uncommitted) … ─▶ one fsync, a majority ─▶ high watermark
//!                                                                                │
//!   answers ◀── published: every core has the image ◀── loader (committed) ◀─────┘
//! ```
//! Operations that arrive while others are synced or replicated share the next sync (group
//! commit). The state machine goes on while an image is published: elections don't wait.
//! Called by the node's lifecycle, and through it by API handlers on all cores.
//!
//! Invariants: an answer that promises something leaves after it is committed and visible
//! on every core; uncommitted records never reach a published image, and are forgotten with
//! the leadership. What has no space in the log is refused with KAFKA_STORAGE_ERROR and
//! hasn't happened. After any other I/O error nothing is written any more: everyone gets
//! NOT_CONTROLLER and [`ControllerHandle::failed`] returns.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::links::{Address, Links};
use super::metadata_log::{self, MetadataLog, MetadataLogError, Opened, Place};
use super::peers::Peers;
use super::replica::{Notice, Proposed, Replica};
use crate::base::{BrokerId, ErrorCode, LeaderEpoch, Offset, Rng, Uuid};
use crate::controller::activation::activation_records;
use crate::controller::{
    ApiError, ConfigRules, Controller, ControllerRequest, ControllerResponse, ControllerSettings,
    RECORDS_PER_OPERATION_MAX, Turn,
};
use crate::io::local::{self, Either, Notify};
use crate::io::{Queue, Rt};
use crate::log::LogConfig;
use crate::metadata::version::is_supported;
use crate::metadata::{
    ImageChanges, Listener, MetadataImage, MetadataLoader, MetadataRecord, supported_features,
};
use crate::raft::checkpoint::chunks;
use crate::raft::quorum::{
    Boot, Config as QuorumConfig, FlushId, Input, Now, OffsetAndEpoch, Quorum, Request, Response,
    Version,
};
use crate::raft::voters::{Endpoint, KRAFT_VERSIONS};
use crate::raft::{ReplicaKey, VoterSet};
use crate::security::{Authorizer, RequestContext};
use crate::telemetry::RateLimit;
use crate::wire::messages::ControllerRegistrationRequest;
use crate::wire::messages::controller_registration_request as registration;

/// Events that wait for the loop, and that are taken before it looks around.
const QUEUE_MAX: usize = 1_024;
const GROUP_MAX: usize = 128;

/// How often a disk without space is told of.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// Longest time for which the loop sleeps.
const SLEEP_MAX: Duration = Duration::from_secs(3_600);

/// Who gets every new image.
pub trait Publish {
    /// Returns when every core uses `image`.
    fn publish(
        &self,
        image: Arc<MetadataImage>,
        changes: Arc<ImageChanges>,
    ) -> impl Future<Output = ()>;

    /// Another node leads the quorum, or none that is known.
    fn on_leader(&self, _leader: Option<BrokerId>) {}
}

/// What the controller takes from the node.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    pub settings: ControllerSettings,
    /// The log directory with `__cluster_metadata-0` and bootstrap.checkpoint.
    pub metadata_dir: PathBuf,
    pub directory_id: Uuid,
    /// `controller.quorum.voters`; without it the voters stand in the metadata log.
    pub static_voters: Option<VoterSet>,
    /// Where this controller listens.
    pub listeners: Vec<Listener>,
    pub log: LogConfig,
    /// `metadata.log.max.record.bytes.between.snapshots`
    pub snapshot_bytes: u64,
    /// How the quorum behaves.
    pub quorum: QuorumSettings,
}

/// `controller.quorum.*`
#[derive(Clone, Debug)]
pub struct QuorumSettings {
    /// Whether this node may vote; else it only follows.
    pub is_controller: bool,
    /// Name of the controllers' listener.
    pub listener: String,
    pub bootstrap_servers: Vec<Address>,
    pub auto_join: bool,
    pub election_timeout_ms: u64,
    pub fetch_timeout_ms: u64,
    pub election_backoff_max_ms: u64,
    pub answer_timeout_ms: u64,
    pub retry_backoff_ms: u64,
    pub fetch_max_bytes: i32,
    pub fetch_snapshot_max_bytes: i32,
}

impl Default for QuorumSettings {
    /// Kafka's defaults.
    fn default() -> QuorumSettings {
        QuorumSettings {
            is_controller: true,
            listener: "CONTROLLER".to_owned(),
            bootstrap_servers: Vec::new(),
            auto_join: false,
            election_timeout_ms: 1_000,
            fetch_timeout_ms: 2_000,
            election_backoff_max_ms: 1_000,
            answer_timeout_ms: 2_000,
            retry_backoff_ms: 20,
            fetch_max_bytes: 1024 * 1024,
            fetch_snapshot_max_bytes: 1024 * 1024,
        }
    }
}

/// Asks the controller; for tasks of its core.
#[derive(Clone)]
pub struct ControllerHandle(Rc<Shared>);

struct Shared {
    events: local::mpsc::Sender<Event>,
    failure: RefCell<Option<Rc<MetadataLogError>>>,
    failed: Notify,
    leader: RefCell<KnownLeader>,
    /// The last offset that every core has.
    published: Cell<Offset>,
    /// This node as a controller.
    registration: ControllerRegistrationRequest,
    progress: Notify,
    starting: RefCell<Option<local::oneshot::Receiver<Result<(), MetadataLogError>>>>,
}

/// Who leads the quorum, as this node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownLeader {
    pub id: Option<BrokerId>,
    /// Where it is reached, if it is another node.
    pub endpoint: Option<Endpoint>,
}

/// What the loop is told.
pub enum Event {
    Input(Input),
    Persisted(Version),
    /// With the log's end that was synced, if there was something to sync.
    Flushed(FlushId, Option<Offset>),
    SnapshotWritten(OffsetAndEpoch, u64, Result<(), MetadataLogError>),
    /// Every core has the image of everything up to the last one taken.
    Published,
    Failed(MetadataLogError),
    /// A request to the quorum.
    Ask(AskQuorum),
    /// An operation of the controller.
    Call(Call),
    Stop(local::oneshot::Sender<()>),
}

pub struct AskQuorum {
    pub api_version: i16,
    pub request: Request,
    pub reply: local::oneshot::Sender<Response>,
}

pub struct Call {
    request: Rc<ControllerRequest>,
    reply: local::oneshot::Sender<ControllerResponse>,
}

/// Opens the metadata log and takes part in the quorum from then on.
pub fn start<P: Publish + 'static>(
    rt: &Rt,
    config: ControllerConfig,
    rules: Arc<dyn ConfigRules>,
    authorizer: Arc<dyn Authorizer>,
    publish: P,
) -> Result<ControllerHandle, MetadataLogError> {
    let place = Place {
        metadata_dir: config.metadata_dir.clone(),
        static_voters: config.static_voters.clone(),
        log: config.log.clone(),
    };
    let opened = MetadataLog::open(rt.disk(), &place, rt.wall_ms())?;
    let (events, queue) = local::channel(QUEUE_MAX);
    let shared = Rc::new(Shared {
        events: events.clone(),
        failure: RefCell::new(None),
        failed: Notify::new(),
        leader: RefCell::default(),
        published: Cell::new(Offset(-1)),
        registration: registration(&config, Uuid::random(&mut rt.rng())),
        progress: Notify::new(),
        starting: RefCell::default(),
    });
    let (started, starting) = local::oneshot();
    let rng = Rng::new(rt.random_u64());
    let controller = Controller::new(config.settings.clone(), rules, authorizer, rng);
    let node = Node::boot(
        rt, config, controller, opened, events, &shared, publish, started,
    )?;
    rt.spawn(Queue::Request, node.run(queue));
    *shared.starting.borrow_mut() = Some(starting);
    Ok(ControllerHandle(shared))
}

impl ControllerHandle {
    /// The answer to an operation, when every core has what it changed.
    pub async fn call(&self, request: ControllerRequest) -> ControllerResponse {
        let request = Rc::new(request);
        let (reply, answer) = local::oneshot();
        let call = Call {
            request: Rc::clone(&request),
            reply,
        };
        if self.0.events.send(Event::Call(call)).await.is_ok()
            && let Ok(response) = answer.await
        {
            return response;
        }
        not_controller(&request)
    }

    /// The quorum's answer to a request; none when it has stopped.
    pub async fn ask(&self, api_version: i16, request: Request) -> Option<Response> {
        let (reply, answer) = local::oneshot();
        let ask = Event::Ask(AskQuorum {
            api_version,
            request,
            reply,
        });
        self.0.events.send(ask).await.ok()?;
        answer.await.ok()
    }

    /// This node as a controller, as the active one is to know it.
    pub fn registration(&self) -> ControllerRegistrationRequest {
        self.0.registration.clone()
    }

    pub fn leader(&self) -> KnownLeader {
        self.0.leader.borrow().clone()
    }

    /// Returns when the first image is published, with all of it as changes, or why there
    /// will be none. To be asked once.
    pub async fn ready(&self) -> Result<(), MetadataLogError> {
        let starting = self.0.starting.borrow_mut().take();
        match starting.expect("it is asked once").await {
            Ok(started) => started,
            // It was stopped before.
            Err(_) => Ok(()),
        }
    }

    /// Returns when every core has what stands at an offset.
    pub async fn reached(&self, offset: Offset) {
        loop {
            let progress = self.0.progress.notified();
            if self.published() >= offset {
                return;
            }
            progress.await;
        }
    }

    /// The last metadata offset that every core has; -1 before the first.
    pub fn published(&self) -> Offset {
        self.0.published.get()
    }

    /// Hands the leadership over and closes the metadata log, after what was asked before.
    /// Everything that is asked afterwards gets NOT_CONTROLLER.
    pub async fn stop(&self) {
        let (reply, stopped) = local::oneshot();
        if self.0.events.send(Event::Stop(reply)).await.is_ok() {
            let _ = stopped.await;
        }
    }

    /// Returns when the metadata log can't be written any more. The node has to end, and
    /// without the marks of a clean stop.
    pub async fn failed(&self) -> Rc<MetadataLogError> {
        loop {
            let failed = self.0.failed.notified();
            if let Some(error) = &*self.0.failure.borrow() {
                return Rc::clone(error);
            }
            failed.await;
        }
    }
}

fn not_controller(request: &ControllerRequest) -> ControllerResponse {
    request.error_response(&ApiError::general(ErrorCode::NOT_CONTROLLER))
}

/// An operation that is decided and waits until every core has everything up to an offset.
struct Pending {
    up_to: Offset,
    response: ControllerResponse,
    reply: local::oneshot::Sender<ControllerResponse>,
}

/// Told once: the first image is published, or why there is none.
type Started = local::oneshot::Sender<Result<(), MetadataLogError>>;

struct Node<P> {
    rt: Rt,
    config: ControllerConfig,
    controller: Controller,
    replica: Replica,
    events: local::mpsc::Sender<Event>,
    shared: Rc<Shared>,
    publish: Rc<P>,
    /// Everything committed.
    loader: MetadataLoader,
    /// Up to where `loader` has read.
    applied: Offset,
    /// In which epoch this node decides.
    active: Option<LeaderEpoch>,
    /// End of what the controller wrote when it began, before which it publishes nothing.
    activation_end: Offset,
    /// The last offset that every core has.
    published: Offset,
    /// The last offset of the image that is being published.
    publishing: Option<Offset>,
    is_first_image: bool,
    pending: VecDeque<Pending>,
    /// Warns of operations for which there is no space.
    full: RateLimit,
    started: Option<Started>,
    stopping: Option<local::oneshot::Sender<()>>,
    is_shutting_down: bool,
    has_stopped: bool,
}

impl<P: Publish + 'static> Node<P> {
    #[expect(clippy::too_many_arguments, reason = "the parts of a node, once")]
    fn boot(
        rt: &Rt,
        config: ControllerConfig,
        controller: Controller,
        opened: Opened,
        events: local::mpsc::Sender<Event>,
        shared: &Rc<Shared>,
        publish: P,
        started: Started,
    ) -> Result<Node<P>, MetadataLogError> {
        let Opened {
            log,
            view,
            election,
            image,
            applied,
        } = opened;
        let version = view.kraft_version();
        if !(KRAFT_VERSIONS.0..=KRAFT_VERSIONS.1).contains(&version) {
            return Err(MetadataLogError::KRaftVersion(version));
        }
        if view.voters().is_empty() && config.quorum.bootstrap_servers.is_empty() {
            return Err(MetadataLogError::NoVoters {
                path: log.dir().to_owned(),
            });
        }
        check_features(image.features.iter())?;
        let now = Now {
            mono: rt.now(),
            wall_ms: rt.wall_ms(),
        };
        let boot = Boot {
            config: quorum_config(&config),
            log: view,
            election,
            rng: Rng::new(rt.random_u64()),
        };
        let quorum = Quorum::start(now, boot);
        let bootstrap = config.quorum.bootstrap_servers.clone();
        let timeout = Duration::from_millis(config.quorum.answer_timeout_ms);
        let links = Rc::new(Links::new(rt.clone(), timeout));
        let peers = Peers::new(rt.clone(), events.clone(), links, bootstrap);
        Ok(Node {
            replica: Replica::new(rt.clone(), quorum, log, events.clone(), peers),
            rt: rt.clone(),
            config,
            controller,
            events,
            shared: Rc::clone(shared),
            publish: Rc::new(publish),
            loader: MetadataLoader::new(image),
            applied,
            active: None,
            activation_end: Offset(0),
            published: Offset(-1),
            publishing: None,
            is_first_image: true,
            pending: VecDeque::new(),
            full: RateLimit::new(WARNING_INTERVAL),
            started: Some(started),
            stopping: None,
            is_shutting_down: false,
            has_stopped: false,
        })
    }

    /// Serves until it is stopped or fails.
    async fn run(mut self, mut queue: local::mpsc::Receiver<Event>) {
        if let Err(error) = self.serve(&mut queue).await {
            tracing::error!(%error, "the metadata log has failed: the controller stops");
            match self.started.take() {
                Some(started) => {
                    let _ = started.send(Err(error));
                }
                None => {
                    *self.shared.failure.borrow_mut() = Some(Rc::new(error));
                    self.shared.failed.notify_all();
                }
            }
        }
        // Whoever waits learns by the end of the queue and of what is pending.
    }

    async fn serve(
        &mut self,
        queue: &mut local::mpsc::Receiver<Event>,
    ) -> Result<(), MetadataLogError> {
        self.step(Input::Tick)?;
        self.look_around()?;
        while !self.has_stopped {
            let wake_at = self.replica.wake_at().min(self.rt.now() + SLEEP_MAX);
            match local::either(queue.recv(), self.rt.sleep_until(wake_at)).await {
                Either::First(Some(first)) => {
                    self.handle(first)?;
                    for _ in 1..GROUP_MAX {
                        let Some(next) = queue.try_recv() else { break };
                        self.handle(next)?;
                    }
                    if self.replica.wake_at() <= self.rt.now() {
                        self.step(Input::Tick)?;
                    }
                }
                Either::First(None) => unreachable!("it holds a sender itself"),
                Either::Second(()) => self.step(Input::Tick)?,
            }
            self.look_around()?;
        }
        self.replica.close()?;
        if let Some(stopped) = self.stopping.take() {
            let _ = stopped.send(());
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<(), MetadataLogError> {
        match event {
            Event::Input(input) => self.step(input),
            Event::Persisted(version) => {
                self.replica.on_persisted(version)?;
                self.take_notices()
            }
            Event::Flushed(id, up_to) => {
                self.replica.on_flushed(id, up_to)?;
                self.take_notices()
            }
            Event::SnapshotWritten(id, size, written) => {
                self.replica.on_snapshot_written(id, size, written)?;
                self.take_notices()
            }
            Event::Published => {
                let published = self.publishing.take().expect("one is being published");
                self.on_published(published);
                if let Some(started) = self.started.take() {
                    let _ = started.send(Ok(()));
                }
                Ok(())
            }
            Event::Failed(error) => Err(error),
            Event::Ask(ask) => {
                self.replica.ask(ask.api_version, ask.request, ask.reply)?;
                self.take_notices()
            }
            Event::Call(call) => self.on_call(call),
            Event::Stop(reply) => {
                self.stopping = Some(reply);
                Ok(())
            }
        }
    }

    fn step(&mut self, input: Input) -> Result<(), MetadataLogError> {
        self.replica.step(input)?;
        self.take_notices()
    }

    fn take_notices(&mut self) -> Result<(), MetadataLogError> {
        while let Some(notice) = self.replica.next_notice() {
            match notice {
                Notice::Committed(to) if to > self.applied => {
                    self.replica.replay(&mut self.loader, self.applied, to)?;
                    self.applied = to;
                }
                Notice::Committed(_) => {}
                Notice::Load(id) => {
                    self.loader.replace(self.replica.read_snapshot(id)?);
                    self.applied = id.offset;
                }
                Notice::Leading(epoch) => self.activate(epoch)?,
                Notice::Leader(epoch, leader) => self.on_leader(epoch, leader),
                Notice::Stopped => self.has_stopped = true,
            }
        }
        Ok(())
    }

    fn on_leader(&mut self, epoch: LeaderEpoch, leader: Option<BrokerId>) {
        let me = self.config.settings.node_id;
        let at = self.replica.quorum().leader_endpoint();
        let endpoint = at.filter(|(id, _)| *id != me).map(|(_, endpoint)| endpoint);
        let known = KnownLeader {
            id: leader,
            endpoint,
        };
        tracing::info!(
            epoch = epoch.0,
            leader = leader.map(|id| id.0),
            "the quorum's leader"
        );
        *self.shared.leader.borrow_mut() = known;
        self.publish.on_leader(leader);
        let is_me = leader == Some(me);
        if self.active.is_some_and(|active| active != epoch || !is_me) {
            self.deactivate();
        }
    }

    /// What isn't committed is forgotten; nobody is told that it was done.
    fn deactivate(&mut self) {
        self.active = None;
        self.activation_end = Offset(0);
        self.controller.load(MetadataImage::default());
        let committed = self.applied;
        // The senders of the others are dropped: NOT_CONTROLLER.
        self.pending.retain(|pending| pending.up_to < committed);
    }

    /// This node leads: it goes on from what is committed.
    fn activate(&mut self, epoch: LeaderEpoch) -> Result<(), MetadataLogError> {
        let disk = self.rt.disk();
        let loaded = self.loader.latest();
        check_features(loaded.features.iter())?;
        let bootstrap = metadata_log::bootstrap_records(&*disk, &self.config.metadata_dir)?;
        let records = activation_records(&loaded, &bootstrap, self.loader.open_transaction());
        check_features(records.iter().filter_map(|record| match record {
            MetadataRecord::FeatureLevel(feature) => {
                Some((feature.name.as_str(), feature.feature_level))
            }
            _ => None,
        }))?;
        self.controller.load(loaded);
        self.active = Some(epoch);
        if !records.is_empty() {
            let version = self.controller.image().metadata_version();
            let encode = |record: &MetadataRecord| {
                let value = record.encode(version);
                value.expect("activation's records have one version each")
            };
            let values: Vec<Bytes> = records.iter().map(encode).collect();
            self.append(epoch, records, &values, true)?;
        }
        let register = ControllerRequest::RegisterController {
            ctx: RequestContext::internal(),
            request: self.shared.registration.clone(),
        };
        self.decide(epoch, &register)?;
        self.activation_end = self.replica.quorum().log().end();
        Ok(())
    }

    fn on_call(&mut self, call: Call) -> Result<(), MetadataLogError> {
        let Call { request, reply } = call;
        let response = match self.active {
            // Nothing new is begun by one that stops.
            Some(epoch) if self.stopping.is_none() => self.decide(epoch, &request)?,
            _ => None,
        };
        // Without one the reply is dropped: NOT_CONTROLLER.
        if let Some(response) = response {
            self.pending.push_back(Pending {
                up_to: self.replica.quorum().log().end() + -1,
                response,
                reply,
            });
        }
        self.take_notices()
    }

    /// Decides one operation, proposes its records and takes them into the state. The
    /// answer, unless this node doesn't lead any more.
    fn decide(
        &mut self,
        epoch: LeaderEpoch,
        request: &ControllerRequest,
    ) -> Result<Option<ControllerResponse>, MetadataLogError> {
        let log = self.replica.quorum().log();
        let turn = Turn {
            now: self.rt.now(),
            wall_ms: self.rt.wall_ms(),
            next_offset: log.end(),
            kraft_version: log.kraft_version(),
        };
        let decision = self.controller.decide(&turn, request);
        if !decision.records.is_empty() {
            tracing::debug!(
                operation = request.name(),
                records = decision.records.len(),
                "decided"
            );
            let values = &decision.values;
            match self.append(epoch, decision.records, values, decision.is_atomic)? {
                Proposed::UpTo(_) => {}
                Proposed::NotLeader => return Ok(None),
                Proposed::Full => {
                    if let Some(suppressed) = self.full.allow(self.rt.now()) {
                        let operation = request.name();
                        tracing::warn!(operation, suppressed, "refused for want of space");
                    }
                    let refusal = ApiError::general(ErrorCode::KAFKA_STORAGE_ERROR);
                    return Ok(Some(request.error_response(&refusal)));
                }
            }
        }
        Ok(Some(decision.response))
    }

    /// Proposes records and takes them into the state. If they weren't all taken, the state
    /// has what the log has: of an operation that isn't atomic, some batches.
    fn append(
        &mut self,
        epoch: LeaderEpoch,
        mut records: Vec<MetadataRecord>,
        values: &[Bytes],
        is_atomic: bool,
    ) -> Result<Proposed, MetadataLogError> {
        let batches: Vec<&[Bytes]> = if is_atomic {
            assert!(values.len() <= RECORDS_PER_OPERATION_MAX);
            vec![values]
        } else {
            chunks(values).collect()
        };
        let mut outcome = Proposed::NotLeader;
        for batch in batches {
            let base_offset = self.replica.quorum().log().end();
            outcome = self.replica.propose(epoch, batch.to_vec())?;
            if !matches!(outcome, Proposed::UpTo(_)) {
                return Ok(outcome);
            }
            let rest = records.split_off(batch.len());
            let replayed = self.controller.replay(&records, base_offset);
            replayed.expect("a decision fits the state that it was made on");
            records = rest;
        }
        Ok(outcome)
    }

    /// After events were handled: answers, publishes, stops.
    fn look_around(&mut self) -> Result<(), MetadataLogError> {
        self.publish_next()?;
        self.answer();
        if self.publishing.is_none() && !self.is_first_image {
            let image = self.loader.image();
            self.replica
                .maybe_snapshot(image, self.config.snapshot_bytes);
        }
        if self.stopping.is_some() && self.pending.is_empty() && !self.is_shutting_down {
            self.is_shutting_down = true;
            self.step(Input::Shutdown)?;
        }
        Ok(())
    }

    /// Publishes what is committed and visible, one image at a time.
    fn publish_next(&mut self) -> Result<(), MetadataLogError> {
        let is_activating = self.active.is_some() && self.applied < self.activation_end;
        if self.publishing.is_some() || is_activating || self.applied.0 <= self.published.0 + 1 {
            return Ok(());
        }
        let up_to = self.applied + -1;
        let Some((image, changes)) = self.loader.take() else {
            self.on_published(up_to);
            return Ok(());
        };
        check_features(image.features.iter())?;
        let changes = if std::mem::replace(&mut self.is_first_image, false) {
            ImageChanges::everything(&image)
        } else {
            changes
        };
        self.publishing = Some(up_to);
        let (publish, events) = (Rc::clone(&self.publish), self.events.clone());
        self.rt.spawn(Queue::Request, async move {
            publish.publish(Arc::new(image), Arc::new(changes)).await;
            let _ = events.send(Event::Published).await;
        });
        Ok(())
    }

    fn on_published(&mut self, up_to: Offset) {
        self.published = up_to;
        self.shared.published.set(up_to);
        self.shared.progress.notify_all();
    }

    fn answer(&mut self) {
        while let Some(first) = self.pending.front()
            && first.up_to <= self.published
        {
            let Pending {
                response, reply, ..
            } = self.pending.pop_front().expect("there is a front");
            // Whoever asked may be gone; what was decided stands.
            let _ = reply.send(response);
        }
    }
}

fn quorum_config(config: &ControllerConfig) -> QuorumConfig {
    let me = ReplicaKey {
        id: config.settings.node_id,
        directory: Some(config.directory_id),
    };
    let endpoint = |listener: &Listener| Endpoint {
        listener: listener.name.clone(),
        host: listener.host.clone(),
        port: listener.port,
    };
    let quorum = &config.quorum;
    QuorumConfig {
        endpoints: config.listeners.iter().map(endpoint).collect(),
        bootstrap_servers: quorum.bootstrap_servers.len(),
        is_controller: quorum.is_controller,
        auto_join: quorum.auto_join,
        election_timeout_ms: quorum.election_timeout_ms,
        fetch_timeout_ms: quorum.fetch_timeout_ms,
        election_backoff_max_ms: quorum.election_backoff_max_ms,
        answer_timeout_ms: quorum.answer_timeout_ms,
        retry_backoff_ms: quorum.retry_backoff_ms,
        fetch_max_bytes: quorum.fetch_max_bytes,
        fetch_snapshot_max_bytes: quorum.fetch_snapshot_max_bytes,
        ..QuorumConfig::new(me, &config.settings.cluster_id, &quorum.listener)
    }
}

/// A cluster whose features this code doesn't run is not touched.
fn check_features<'a>(
    mut features: impl Iterator<Item = (&'a str, i16)>,
) -> Result<(), MetadataLogError> {
    match features.find(|(name, level)| !is_supported(name, *level)) {
        Some((name, level)) => Err(MetadataLogError::Feature {
            name: name.to_owned(),
            level,
        }),
        None => Ok(()),
    }
}

fn registration(config: &ControllerConfig, incarnation: Uuid) -> ControllerRegistrationRequest {
    ControllerRegistrationRequest {
        controller_id: config.settings.node_id.0,
        incarnation_id: incarnation,
        zk_migration_ready: false,
        listeners: config
            .listeners
            .iter()
            .map(|listener| registration::Listener {
                name: listener.name.clone(),
                host: listener.host.clone(),
                port: listener.port,
                security_protocol: listener.protocol,
            })
            .collect(),
        features: supported_features()
            .map(|(name, min, max)| registration::Feature {
                name: name.to_owned(),
                min_supported_version: min,
                max_supported_version: max,
            })
            .collect(),
    }
}
