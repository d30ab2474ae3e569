//! The broker's life, on the controller's core: load the metadata log, register, open the
//! listeners, unfence; write checkpoints while running; at the end close every core's logs
//! and leave the directories as Kafka wants to find them (storage digest, section 5).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use super::StartError;
use super::controller::{self, ControllerHandle};
use super::directories::Directories;
use super::isr::IsrChanges;
use super::listeners::BoundListener;
use super::metrics;
use super::publisher::Publisher;
use super::remote::ActiveController;
use super::rules::TableRules;
use super::settings;
use super::storage::Storage;
use crate::base::{CoreId, ErrorCode, Offset, Uuid};
use crate::controller::{ControllerRequest, ControllerResponse};
use crate::io::local::{self, Either};
use crate::io::{Queue, Rt};
use crate::mesh::{Port, PortSeed};
use crate::security::RequestContext;
use crate::shard::Node;
use crate::shard::messages::{
    ListenerSpec, PartitionCheckpoint, QuorumCall, ShardReply, ShardRequest,
};
use crate::wire::messages::BrokerRegistrationRequest;

/// How often recovery points that have moved are written.
const RECOVERY_POINT_INTERVAL: Duration = Duration::from_secs(1);
/// Heartbeats that ask for leave to stop before the node stops without it.
const SHUT_DOWN_HEARTBEATS_MAX: usize = 3;
/// Between two attempts to register.
const REGISTRATION_PAUSE: Duration = Duration::from_millis(50);

type MeshPort = Port<ShardRequest, ShardReply>;

/// The node serves, and where its numbers are; or why it doesn't serve.
pub type Started = Result<Vec<SocketAddr>, StartError>;

/// What the life of a node needs.
pub struct Life {
    pub node: Arc<Node>,
    pub listeners: Vec<BoundListener>,
    pub storage: Storage,
    /// Told once.
    pub started: mpsc::Sender<Started>,
}

/// The controller core's main.
pub async fn run(rt: Rt, seed: PortSeed<ShardRequest, ShardReply>, life: Life) {
    let Life {
        node,
        listeners,
        storage,
        started,
    } = life;
    let port = seed.attach(&rt);
    let directories = Rc::new(Directories::new(
        rt.clone(),
        node.clone(),
        port.clone(),
        &storage,
    ));
    let publisher = Rc::new(Publisher::new(
        rt.clone(),
        port.clone(),
        node.clone(),
        storage.clone(),
        directories.clone(),
    ));
    let isr_changes = Rc::new(IsrChanges::new(rt.clone(), node.clone(), port.clone()));
    let config = settings::controller(&node, &storage, &listeners);
    let rules = Arc::new(TableRules {
        fixed: node.config.fixed.clone(),
    });
    let authorizer = node.authorizer.clone();
    let outcome = match controller::start(&rt, config, rules, authorizer, publisher) {
        Ok(handle) => {
            let active = ActiveController::new(&rt, node.id, handle.clone());
            rt.spawn(
                Queue::Request,
                serve(
                    rt.clone(),
                    port.clone(),
                    node.clone(),
                    handle.clone(),
                    active.clone(),
                    directories.clone(),
                    isr_changes.clone(),
                ),
            );
            rt.spawn(Queue::Request, directories.clone().report(active.clone()));
            rt.spawn(Queue::Request, isr_changes.run(active.clone()));
            let joining = Joining {
                rt: &rt,
                node: &node,
                port: &port,
                handle: &handle,
                active: &active,
                directories: &directories,
            };
            match join(&joining, &listeners, &storage).await {
                Ok(metrics) => Ok((handle, active, metrics)),
                Err(error) => {
                    handle.stop().await;
                    Err(error)
                }
            }
        }
        Err(error) => Err(StartError::Controller(error.to_string())),
    };
    match outcome {
        Ok((handle, active, metrics)) => {
            // The main thread waits for exactly this message.
            let _ = started.send(Ok(metrics));
            rt.spawn(
                Queue::Request,
                keep_in_touch(
                    rt.clone(),
                    node.clone(),
                    handle.clone(),
                    active.clone(),
                    directories.clone(),
                ),
            );
            let running = checkpoint_until_stopped(&rt, &node, &port, &storage, &directories);
            let failing = local::either(handle.failed(), directories.failed());
            // Whatever failed, it ends without a clean marker: the next start recovers.
            match local::either(running, failing).await {
                Either::First(()) => {
                    let leaving = Leaving {
                        rt: &rt,
                        node: &node,
                        port: &port,
                        handle: &handle,
                        active: &active,
                        storage: &storage,
                        directories: &directories,
                    };
                    leave(&leaving).await;
                }
                Either::Second(Either::First(error)) => {
                    tracing::error!(%error, "the metadata log failed: this node ends");
                    std::process::exit(1);
                }
                Either::Second(Either::Second(why)) => {
                    tracing::error!("{why}: this node ends");
                    std::process::exit(1);
                }
            }
        }
        Err(error) => {
            close_logs(&node, &port).await;
            let _ = started.send(Err(error));
        }
    }
}

/// Serves what the data cores ask of the controller.
async fn serve(
    rt: Rt,
    port: MeshPort,
    node: Arc<Node>,
    handle: ControllerHandle,
    active: ActiveController,
    directories: Rc<Directories>,
    isr_changes: Rc<IsrChanges>,
) {
    loop {
        let (from, request, slot) = port.next_request().await;
        let request = match request {
            ShardRequest::Controller(request) => request,
            ShardRequest::Quorum(call) => {
                let (handle, active) = (handle.clone(), active.clone());
                rt.spawn(Queue::Request, async move {
                    let QuorumCall {
                        api_version,
                        request,
                        for_leader,
                    } = *call;
                    let response = match for_leader {
                        true => active.ask(api_version, request).await,
                        false => handle.ask(api_version, request).await,
                    };
                    slot.reply(ShardReply::Quorum(response.map(Box::new)));
                });
                continue;
            }
            ShardRequest::DirectoryFailed(failed) => {
                let (directory, error) = *failed;
                directories.fail(directory, &error);
                slot.reply(ShardReply::Done);
                continue;
            }
            ShardRequest::WriteCheckpoints => {
                directories.want_checkpoints(slot);
                continue;
            }
            ShardRequest::ReplicaMoving(moving) => {
                let (id, to) = *moving;
                directories.on_moving(id, to, slot);
                continue;
            }
            ShardRequest::ReplicaMoved(moved) => {
                let (id, to) = *moved;
                directories.on_moved(id, to);
                slot.reply(ShardReply::Done);
                continue;
            }
            ShardRequest::ProposeIsr(proposed) => {
                let (id, proposal) = *proposed;
                isr_changes.propose(from, id, proposal);
                slot.reply(ShardReply::Done);
                continue;
            }
            // Nothing else is addressed to this core; the caller sees it gone.
            _ => continue,
        };
        let by = &request.context().listener;
        let mut controllers = node.config.listeners.controller();
        let is_for_us = controllers.any(|listener| *listener.name == **by);
        let (handle, active) = (handle.clone(), active.clone());
        rt.spawn(Queue::Request, async move {
            let response = match is_for_us {
                true => handle.call(*request).await,
                false => active.call(*request).await,
            };
            slot.reply(ShardReply::Controller(Box::new(response)));
        });
    }
}

/// What a broker joins its cluster with.
struct Joining<'a> {
    rt: &'a Rt,
    node: &'a Arc<Node>,
    port: &'a MeshPort,
    handle: &'a ControllerHandle,
    active: &'a ActiveController,
    directories: &'a Directories,
}

/// From the first image to an unfenced broker. Returns where the node's numbers are.
async fn join(joining: &Joining<'_>, listeners: &[BoundListener], storage: &Storage) -> Started {
    let Joining {
        rt,
        node,
        port,
        handle,
        active,
        directories,
    } = *joining;
    let incarnation = Uuid::random(&mut rt.rng());
    // Other controllers reach this one before there is an image.
    listen(joining, listeners, |listener| listener.is_controller).await?;
    match local::either(handle.ready(), rt.stopping()).await {
        Either::First(Ok(())) => {}
        Either::First(Err(error)) => return Err(StartError::Controller(error.to_string())),
        Either::Second(()) => {
            let why = "it was stopped before it knew the cluster's metadata";
            return Err(StartError::Controller(why.to_owned()));
        }
    }
    if node.config.roles.controller && !active.is_here() {
        let registering = register_controller(rt.clone(), handle.clone(), active.clone());
        rt.spawn(Queue::Request, registering);
    }
    if !node.config.roles.broker {
        return metrics::start(rt, node, port).await;
    }
    let request = settings::registration(node, storage, listeners, incarnation);
    let epoch = register(joining, request).await?;
    node.broker_epoch.store(epoch, Ordering::Release);
    directories.on_registered();
    listen(joining, listeners, |listener| !listener.is_controller).await?;
    let metrics = metrics::start(rt, node, port).await?;
    // The controller unfences who has seen its own registration.
    local::either(handle.reached(Offset(epoch)), rt.stopping()).await;
    let beat = heartbeat(node, handle, active, directories, false).await;
    if let Err(error) = beat {
        tracing::warn!(%error, "the controller refused the first heartbeat");
    }
    Ok(metrics)
}

/// Opens the listeners that are wanted on every core.
async fn listen(
    joining: &Joining<'_>,
    listeners: &[BoundListener],
    is_wanted: impl Fn(&BoundListener) -> bool,
) -> Result<(), StartError> {
    let wanted = listeners.iter().filter(|listener| is_wanted(listener));
    let specs: Vec<ListenerSpec> = wanted
        .map(|listener| ListenerSpec {
            name: listener.name.clone(),
            address: listener.address,
        })
        .collect();
    for core in 0..joining.node.cores {
        let request = ShardRequest::Listen(specs.clone());
        match joining.port.call(CoreId(core), request).await {
            Ok(ShardReply::Listening(Ok(()))) => {}
            Ok(ShardReply::Listening(Err(error))) => return Err(StartError::Listen(error)),
            _ => return Err(StartError::Controller(format!("core {core} is gone"))),
        }
    }
    Ok(())
}

/// Registers the broker; its epoch. While there is no active controller it tries again.
async fn register(
    joining: &Joining<'_>,
    request: BrokerRegistrationRequest,
) -> Result<i64, StartError> {
    loop {
        let call = ControllerRequest::RegisterBroker {
            ctx: RequestContext::internal(),
            request: request.clone(),
        };
        let error = match joining.active.call(call).await {
            ControllerResponse::RegisterBroker(response) if response.error_code == 0 => {
                return Ok(response.broker_epoch);
            }
            ControllerResponse::RegisterBroker(response) => ErrorCode(response.error_code),
            _ => ErrorCode::UNKNOWN_SERVER_ERROR,
        };
        let is_passing = matches!(
            error,
            ErrorCode::NOT_CONTROLLER | ErrorCode::DUPLICATE_BROKER_REGISTRATION
        );
        if !is_passing || joining.rt.is_stopping() {
            return Err(StartError::Controller(format!(
                "the broker could not register: {error}"
            )));
        }
        joining.rt.sleep(REGISTRATION_PAUSE).await;
    }
}

/// Makes this controller known to the active one, as which it registers itself.
async fn register_controller(rt: Rt, handle: ControllerHandle, active: ActiveController) {
    while !rt.is_stopping() {
        let call = ControllerRequest::RegisterController {
            ctx: RequestContext::internal(),
            request: handle.registration(),
        };
        let error = match active.call(call).await {
            ControllerResponse::RegisterController(response) => ErrorCode(response.error_code),
            _ => ErrorCode::UNKNOWN_SERVER_ERROR,
        };
        if error.is_ok() {
            return;
        }
        if error != ErrorCode::NOT_CONTROLLER {
            tracing::warn!(%error, "the active controller refused this one's registration");
        }
        rt.sleep(REGISTRATION_PAUSE).await;
    }
}

/// Heartbeats until the node stops: to whoever leads, so that it knows this broker.
async fn keep_in_touch(
    rt: Rt,
    node: Arc<Node>,
    handle: ControllerHandle,
    active: ActiveController,
    directories: Rc<Directories>,
) {
    if !node.config.roles.broker {
        return;
    }
    let interval = i64::from(node.config.metadata.broker_heartbeat_interval_ms);
    let interval = millis(interval);
    let mut is_refused = false;
    loop {
        let pause = rt.sleep(interval);
        if let Either::First(()) = local::either(rt.stopping(), pause).await {
            return;
        }
        let beat = heartbeat(&node, &handle, &active, &directories, false).await;
        match beat {
            Err(error) if !is_refused => {
                tracing::warn!(%error, "the controller refused a heartbeat");
            }
            _ => {}
        }
        is_refused = beat.is_err();
    }
}

/// Unfences the broker, or asks for leave to stop. Returns whether it may stop.
async fn heartbeat(
    node: &Node,
    handle: &ControllerHandle,
    active: &ActiveController,
    directories: &Directories,
    want_shut_down: bool,
) -> Result<bool, ErrorCode> {
    let epoch = node.broker_epoch.load(Ordering::Acquire);
    let offset = handle.published();
    let request = settings::heartbeat(node, epoch, offset, want_shut_down, directories);
    let call = ControllerRequest::BrokerHeartbeat {
        ctx: RequestContext::internal(),
        request,
    };
    match active.call(call).await {
        ControllerResponse::BrokerHeartbeat(response) if response.error_code == 0 => {
            Ok(response.should_shut_down)
        }
        ControllerResponse::BrokerHeartbeat(response) => Err(ErrorCode(response.error_code)),
        _ => Err(ErrorCode::UNKNOWN_SERVER_ERROR),
    }
}

/// Writes the high watermarks, and less often recovery points and log starts, until the
/// node is asked to stop. Recovery points that have moved are written at once, so that a
/// start after a kill reads little.
async fn checkpoint_until_stopped(
    rt: &Rt,
    node: &Node,
    port: &MeshPort,
    storage: &Storage,
    directories: &Directories,
) {
    let log = &node.config.log;
    let short = millis(log.replica_high_watermark_checkpoint_interval_ms);
    let long = millis(i64::from(log.log_flush_offset_checkpoint_interval_ms));
    let look = short.min(RECOVERY_POINT_INTERVAL);
    let (mut last_short, mut last_long) = (rt.now(), rt.now());
    let mut last_points = Vec::new();
    loop {
        let pause = local::either(directories.checkpoints_wanted(), rt.sleep(look));
        if let Either::First(()) = local::either(rt.stopping(), pause).await {
            return;
        }
        let wanted = directories.take_checkpoints_wanted();
        let checkpoints = collect(node, port).await;
        let points: Vec<Offset> = checkpoints.iter().map(|c| c.recovery_point).collect();
        let is_long_over = rt.now() - last_long >= long;
        let all = !wanted.is_empty() || points != last_points || is_long_over;
        if !all && rt.now() - last_short < short {
            continue;
        }
        last_short = rt.now();
        if all {
            last_long = rt.now();
            last_points = points;
        }
        let offline = directories.offline();
        for (directory, error) in
            storage.write_checkpoints(&*rt.disk(), &checkpoints, all, &offline)
        {
            directories.fail(directory, &error.to_string());
        }
        for slot in wanted {
            slot.reply(ShardReply::Done);
        }
    }
}

/// What a clean stop needs.
struct Leaving<'a> {
    rt: &'a Rt,
    node: &'a Node,
    port: &'a MeshPort,
    handle: &'a ControllerHandle,
    active: &'a ActiveController,
    storage: &'a Storage,
    directories: &'a Directories,
}

/// A clean stop.
async fn leave(leaving: &Leaving<'_>) {
    let Leaving {
        rt,
        node,
        port,
        handle,
        active,
        storage,
        directories,
    } = *leaving;
    // The first moves leaderships away, a later one grants.
    let heartbeats = match node.config.roles.broker {
        true => SHUT_DOWN_HEARTBEATS_MAX,
        false => 0,
    };
    for _ in 0..heartbeats {
        match heartbeat(node, handle, active, directories, true).await {
            Ok(false) => {}
            Ok(true) => break,
            Err(error) => {
                tracing::warn!(%error, "the controller refused the last heartbeat");
                break;
            }
        }
    }
    let (checkpoints, mut unclean) = close_logs(node, port).await;
    unclean.extend(directories.offline());
    let failed = storage.write_checkpoints(&*rt.disk(), &checkpoints, true, &unclean);
    for (directory, error) in failed {
        tracing::error!(%error, "checkpoints not written: the next start recovers");
        unclean.insert(directory);
    }
    handle.stop().await;
    let epoch = node.broker_epoch.load(Ordering::Acquire);
    storage.mark_clean(&*rt.disk(), epoch, &unclean);
}

/// Also gives the directories in which a log couldn't be closed.
async fn close_logs(node: &Node, port: &MeshPort) -> (Vec<PartitionCheckpoint>, BTreeSet<Uuid>) {
    let mut checkpoints = Vec::new();
    let mut unclean = BTreeSet::new();
    for reply in ask_all(node, port, || ShardRequest::CloseLogs).await {
        if let ShardReply::Closed(closed) = reply {
            let (mut part, failed) = *closed;
            checkpoints.append(&mut part);
            unclean.extend(failed);
        }
    }
    (checkpoints, unclean)
}

async fn collect(node: &Node, port: &MeshPort) -> Vec<PartitionCheckpoint> {
    let mut checkpoints = Vec::new();
    for reply in ask_all(node, port, || ShardRequest::Checkpoints).await {
        if let ShardReply::Checkpoints(mut part) = reply {
            checkpoints.append(&mut part);
        }
    }
    checkpoints
}

/// The replies of all data cores that are there.
async fn ask_all(
    node: &Node,
    port: &MeshPort,
    request: impl Fn() -> ShardRequest,
) -> Vec<ShardReply> {
    let calls: Vec<_> = (0..node.cores)
        .map(|core| port.call(CoreId(core), request()))
        .collect();
    let mut replies = Vec::new();
    for call in calls {
        replies.extend(call.await);
    }
    replies
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0).max(1))
}
