//! The controller's loop, on a core of its own: takes operations, lets
//! [`Controller`] decide, appends, syncs, replays what is committed, publishes the new
//! image to every core, and only then answers.
//!
//! ```text
//!   call ─▶ queue ─▶ group: decide, append, replay (uncommitted) … ─▶ one fsync ─▶ high watermark
//!                                                                                    │
//!   answers ◀── publish returned: every core has the image ◀── loader (committed) ◀──┘
//! ```
//! Operations that arrive while a group is synced and published form the next group, so
//! that many share one fsync (group commit). Called by the node's lifecycle, and through
//! it by API handlers on all cores.
//!
//! Invariants: an answer that promises something leaves after it is durable and visible on
//! every core. What has no space in the log is refused with KAFKA_STORAGE_ERROR and hasn't
//! happened. After any other I/O error nothing is written any more: everyone gets
//! NOT_CONTROLLER and [`ControllerHandle::failed`] returns.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::metadata_log::{self, MetadataLog, MetadataLogError, Place};
use crate::base::{ErrorCode, Rng, Uuid};
use crate::controller::activation::activation_records;
use crate::controller::{
    ApiError, ConfigRules, Controller, ControllerRequest, ControllerResponse, ControllerSettings,
    RECORDS_PER_OPERATION_MAX, Turn,
};
use crate::io::local::{self, Notify};
use crate::io::{Queue, Rt};
use crate::log::LogConfig;
use crate::metadata::version::is_supported;
use crate::metadata::{
    BatchOrigin, ImageChanges, Listener, MetadataImage, MetadataLoader, MetadataRecord,
    supported_features,
};
use crate::raft::VoterSet;
use crate::raft::checkpoint::chunks;
use crate::security::{Authorizer, RequestContext};
use crate::telemetry::RateLimit;
use crate::wire::messages::ControllerRegistrationRequest;
use crate::wire::messages::controller_registration_request as registration;

/// Operations that wait for the loop, and that are decided before one sync.
const QUEUE_MAX: usize = 1_024;
const GROUP_MAX: usize = 128;

/// How often a disk without space is told of.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// Who gets every new image.
pub trait Publish {
    /// Returns when every core uses `image`.
    fn publish(
        &self,
        image: Arc<MetadataImage>,
        changes: Arc<ImageChanges>,
    ) -> impl Future<Output = ()>;
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
}

/// Asks the controller; for tasks of its core.
#[derive(Clone)]
pub struct ControllerHandle(Rc<Shared>);

struct Shared {
    queue: local::mpsc::Sender<Submission>,
    failure: RefCell<Option<Rc<MetadataLogError>>>,
    failed: Notify,
}

enum Submission {
    Call {
        request: Rc<ControllerRequest>,
        reply: local::oneshot::Sender<ControllerResponse>,
    },
    Stop(local::oneshot::Sender<()>),
}

/// Opens the metadata log, elects this node, and publishes the first image, with all of it
/// as changes. Returns when that is done; operations are served from then on.
pub async fn start<P: Publish + 'static>(
    rt: &Rt,
    config: ControllerConfig,
    rules: Arc<dyn ConfigRules>,
    authorizer: Arc<dyn Authorizer>,
    publish: P,
) -> Result<ControllerHandle, MetadataLogError> {
    let place = Place {
        metadata_dir: config.metadata_dir.clone(),
        directory_id: config.directory_id,
        node_id: config.settings.node_id,
        static_voters: config.static_voters.clone(),
        log: config.log.clone(),
    };
    let (log, loader) = MetadataLog::open(rt.disk(), &place, rt.wall_ms())?;
    let rng = Rng::new(rt.random_u64());
    let mut active = Active {
        rt: rt.clone(),
        controller: Controller::new(config.settings.clone(), rules, authorizer, rng),
        log,
        loader,
        uncommitted: Vec::new(),
        full: RateLimit::new(WARNING_INTERVAL),
        snapshot_bytes: config.snapshot_bytes,
        publish,
    };
    active.activate(&config).await?;
    let (queue, submissions) = local::channel(QUEUE_MAX);
    let shared = Rc::new(Shared {
        queue,
        failure: RefCell::new(None),
        failed: Notify::new(),
    });
    let serving = serve(active, submissions, Rc::clone(&shared));
    rt.spawn(Queue::Request, serving);
    Ok(ControllerHandle(shared))
}

impl ControllerHandle {
    /// The answer to an operation, when every core has what it changed.
    pub async fn call(&self, request: ControllerRequest) -> ControllerResponse {
        let request = Rc::new(request);
        let (reply, answer) = local::oneshot();
        let submission = Submission::Call {
            request: Rc::clone(&request),
            reply,
        };
        if self.0.queue.send(submission).await.is_ok()
            && let Ok(response) = answer.await
        {
            return response;
        }
        not_controller(&request)
    }

    /// Closes the metadata log after what was asked before. Everything that is asked
    /// afterwards gets NOT_CONTROLLER.
    pub async fn stop(&self) {
        let (reply, stopped) = local::oneshot();
        if self.0.queue.send(Submission::Stop(reply)).await.is_ok() {
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

/// Serves until it is stopped or fails.
async fn serve<P: Publish>(
    mut active: Active<P>,
    mut submissions: local::mpsc::Receiver<Submission>,
    shared: Rc<Shared>,
) {
    while let Some(first) = submissions.recv().await {
        let mut group = vec![first];
        while group.len() < GROUP_MAX
            && let Some(next) = submissions.try_recv()
        {
            group.push(next);
        }
        let mut calls = Vec::with_capacity(group.len());
        let mut stop = None;
        for submission in group {
            match submission {
                Submission::Call { request, reply } => calls.push((request, reply)),
                Submission::Stop(reply) => stop = Some(reply),
            }
        }
        if let Err(error) = active.run(calls).await {
            fail(error, &shared);
            return;
        }
        if let Some(reply) = stop {
            if let Err(error) = active.log.close() {
                fail(error, &shared);
            }
            let _ = reply.send(());
            return;
        }
    }
}

fn fail(error: MetadataLogError, shared: &Shared) {
    tracing::error!(%error, "the metadata log has failed: the controller stops");
    *shared.failure.borrow_mut() = Some(Rc::new(error));
    shared.failed.notify_all();
}

/// An operation and where its answer goes.
type Call = (
    Rc<ControllerRequest>,
    local::oneshot::Sender<ControllerResponse>,
);

struct Active<P> {
    rt: Rt,
    controller: Controller,
    log: MetadataLog,
    /// Behind the controller's state by what is not committed.
    loader: MetadataLoader,
    /// Appended batches that the loader has not seen.
    uncommitted: Vec<(BatchOrigin, Vec<MetadataRecord>)>,
    /// Warns of operations for which there is no space.
    full: RateLimit,
    snapshot_bytes: u64,
    publish: P,
}

impl<P: Publish> Active<P> {
    async fn activate(&mut self, config: &ControllerConfig) -> Result<(), MetadataLogError> {
        let disk = self.rt.disk();
        let loaded = self.loader.take();
        let loaded = loaded.map_or_else(|| self.loader.image().clone(), |(image, _)| image);
        check_features(loaded.features.iter())?;
        let bootstrap = metadata_log::bootstrap_records(&*disk, &config.metadata_dir)?;
        let records = activation_records(&loaded, &bootstrap, self.loader.open_transaction());
        check_features(records.iter().filter_map(|record| match record {
            MetadataRecord::FeatureLevel(feature) => {
                Some((feature.name.as_str(), feature.feature_level))
            }
            _ => None,
        }))?;
        self.controller.load(loaded);

        let origin = self.log.append_first_batch(self.rt.wall_ms())?;
        self.uncommitted.push((origin, Vec::new()));
        if !records.is_empty() {
            let version = self.controller.image().metadata_version();
            let encode = |record: &MetadataRecord| {
                let value = record.encode(version);
                value.expect("activation's records have one version each")
            };
            let values: Vec<Bytes> = records.iter().map(encode).collect();
            self.append(records, &values, true)?;
        }
        let incarnation = Uuid::random(&mut self.rt.rng());
        let register = ControllerRequest::RegisterController {
            ctx: RequestContext::internal(),
            request: registration(config, incarnation),
        };
        self.decide(&register)?;
        self.log.flush(&self.rt).await?;
        self.replay_committed()?;
        let taken = self.loader.take();
        let (image, _) = taken.expect("a first batch was written");
        let changes = ImageChanges::everything(&image);
        self.publish
            .publish(Arc::new(image), Arc::new(changes))
            .await;
        Ok(())
    }

    /// Runs a group of operations and answers them all.
    async fn run(&mut self, calls: Vec<Call>) -> Result<(), MetadataLogError> {
        match self.decide_and_commit(&calls).await {
            Ok(responses) => {
                for ((_, reply), response) in calls.into_iter().zip(responses) {
                    // Whoever asked may be gone; what was decided stands.
                    let _ = reply.send(response);
                }
                let image = self.loader.image();
                self.log
                    .maybe_snapshot(&self.rt, image, self.snapshot_bytes)
                    .await;
                Ok(())
            }
            Err(error) => {
                for (request, reply) in calls {
                    let _ = reply.send(not_controller(&request));
                }
                Err(error)
            }
        }
    }

    async fn decide_and_commit(
        &mut self,
        calls: &[Call],
    ) -> Result<Vec<ControllerResponse>, MetadataLogError> {
        let mut responses = Vec::with_capacity(calls.len());
        for (request, _) in calls {
            responses.push(self.decide(request)?);
        }
        if !self.uncommitted.is_empty() {
            self.log.flush(&self.rt).await?;
            self.replay_committed()?;
            if let Some((image, changes)) = self.loader.take() {
                self.publish
                    .publish(Arc::new(image), Arc::new(changes))
                    .await;
            }
        }
        Ok(responses)
    }

    /// Decides one operation, appends its records and takes them into the state.
    fn decide(
        &mut self,
        request: &ControllerRequest,
    ) -> Result<ControllerResponse, MetadataLogError> {
        let turn = Turn {
            now: self.rt.now(),
            wall_ms: self.rt.wall_ms(),
            next_offset: self.log.end_offset(),
            raft: self.log.raft(),
        };
        let decision = self.controller.decide(&turn, request);
        if !decision.records.is_empty() {
            tracing::debug!(
                operation = request.name(),
                records = decision.records.len(),
                "decided"
            );
            match self.append(decision.records, &decision.values, decision.is_atomic) {
                Err(error) if error.is_out_of_space() => {
                    if let Some(suppressed) = self.full.allow(self.rt.now()) {
                        let operation = request.name();
                        tracing::warn!(%error, operation, suppressed, "refused for want of space");
                    }
                    let refusal = ApiError::general(ErrorCode::KAFKA_STORAGE_ERROR);
                    return Ok(request.error_response(&refusal));
                }
                appended => appended?,
            }
        }
        Ok(decision.response)
    }

    /// Appends records and takes them into the state. After an error the state has what
    /// the log has: of an operation that isn't atomic, some batches.
    fn append(
        &mut self,
        mut records: Vec<MetadataRecord>,
        values: &[Bytes],
        is_atomic: bool,
    ) -> Result<(), MetadataLogError> {
        let now_ms = self.rt.wall_ms();
        let batches: Vec<&[Bytes]> = if is_atomic {
            assert!(values.len() <= RECORDS_PER_OPERATION_MAX);
            vec![values]
        } else {
            chunks(values).collect()
        };
        for batch in batches {
            let origin = self.log.append_values(batch, now_ms)?;
            let rest = records.split_off(batch.len());
            let replayed = self.controller.replay(&records, origin.base_offset);
            replayed.expect("a decision fits the state that it was made on");
            self.uncommitted.push((origin, records));
            records = rest;
        }
        Ok(())
    }

    /// Gives the loader the batches below the high watermark.
    fn replay_committed(&mut self) -> Result<(), MetadataLogError> {
        let high_watermark = self.log.raft().high_watermark();
        for (origin, records) in self.uncommitted.drain(..) {
            assert!(
                high_watermark > Some(origin.last_offset),
                "a single voter commits what it synced"
            );
            metadata_log::replay(&mut self.loader, origin, &records)?;
        }
        Ok(())
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
