//! The broker's life, on the controller's core: load the metadata log, register, open the
//! listeners, unfence; write checkpoints while running; at the end close every core's logs
//! and leave the directories as Kafka wants to find them (storage digest, section 5).

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use super::StartError;
use super::controller::{self, ControllerHandle};
use super::listeners::BoundListener;
use super::metrics;
use super::publisher::Publisher;
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
use crate::shard::messages::{ListenerSpec, PartitionCheckpoint, ShardReply, ShardRequest};

/// How often recovery points that have moved are written.
const RECOVERY_POINT_INTERVAL: Duration = Duration::from_secs(1);
/// Heartbeats that ask for leave to stop before the node stops without it.
const SHUT_DOWN_HEARTBEATS_MAX: usize = 3;

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
    let publisher = Rc::new(Publisher::new(
        rt.clone(),
        port.clone(),
        node.clone(),
        storage.clone(),
    ));
    let config = settings::controller(&node, &storage, &listeners);
    let rules = Arc::new(TableRules {
        fixed: node.config.fixed.clone(),
    });
    let authorizer = node.authorizer.clone();
    let outcome = match controller::start(&rt, config, rules, authorizer, publisher).await {
        Ok(handle) => {
            rt.spawn(
                Queue::Request,
                serve(rt.clone(), port.clone(), handle.clone()),
            );
            match join(&rt, &node, &port, &handle, &listeners, &storage).await {
                Ok(metrics) => Ok((handle, metrics)),
                Err(error) => {
                    handle.stop().await;
                    Err(error)
                }
            }
        }
        Err(error) => Err(StartError::Controller(error.to_string())),
    };
    match outcome {
        Ok((handle, metrics)) => {
            // The main thread waits for exactly this message.
            let _ = started.send(Ok(metrics));
            let running = checkpoint_until_stopped(&rt, &node, &port, &storage);
            match local::either(running, handle.failed()).await {
                Either::First(()) => leave(&rt, &node, &port, &handle, &storage).await,
                Either::Second(error) => {
                    // Without a clean marker: the next start recovers.
                    tracing::error!(%error, "the metadata log failed: this node ends");
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
async fn serve(rt: Rt, port: MeshPort, handle: ControllerHandle) {
    loop {
        let (_, request, slot) = port.next_request().await;
        let ShardRequest::Controller(request) = request else {
            // Nothing else is addressed to this core; the caller sees it gone.
            continue;
        };
        let handle = handle.clone();
        rt.spawn(Queue::Request, async move {
            let response = handle.call(*request).await;
            slot.reply(ShardReply::Controller(Box::new(response)));
        });
    }
}

/// From the first image to an unfenced broker. Returns where the node's numbers are.
async fn join(
    rt: &Rt,
    node: &Arc<Node>,
    port: &MeshPort,
    handle: &ControllerHandle,
    listeners: &[BoundListener],
    storage: &Storage,
) -> Started {
    let incarnation = Uuid::random(&mut rt.rng());
    let request = settings::registration(node, storage, listeners, incarnation);
    let call = ControllerRequest::RegisterBroker {
        ctx: RequestContext::internal(),
        request,
    };
    let epoch = match handle.call(call).await {
        ControllerResponse::RegisterBroker(response) if response.error_code == 0 => {
            response.broker_epoch
        }
        ControllerResponse::RegisterBroker(response) => {
            let error = ErrorCode(response.error_code);
            return Err(StartError::Controller(format!(
                "the broker could not register: {error}"
            )));
        }
        _ => {
            return Err(StartError::Controller(
                "no answer to the registration".to_owned(),
            ));
        }
    };
    node.broker_epoch.store(epoch, Ordering::Release);
    let specs: Vec<ListenerSpec> = listeners
        .iter()
        .map(|listener| ListenerSpec {
            name: listener.name.clone(),
            address: listener.address,
        })
        .collect();
    for core in 0..node.cores {
        let request = ShardRequest::Listen(specs.clone());
        match port.call(CoreId(core), request).await {
            Ok(ShardReply::Listening(Ok(()))) => {}
            Ok(ShardReply::Listening(Err(error))) => return Err(StartError::Listen(error)),
            _ => return Err(StartError::Controller(format!("core {core} is gone"))),
        }
    }
    let metrics = metrics::start(rt, node, port).await?;
    heartbeat(node, handle, false).await;
    Ok(metrics)
}

/// Unfences the broker, or asks for leave to stop. Returns whether it may stop.
async fn heartbeat(node: &Node, handle: &ControllerHandle, want_shut_down: bool) -> bool {
    let epoch = node.broker_epoch.load(Ordering::Acquire);
    let request = settings::heartbeat(node, epoch, want_shut_down);
    let call = ControllerRequest::BrokerHeartbeat {
        ctx: RequestContext::internal(),
        request,
    };
    match handle.call(call).await {
        ControllerResponse::BrokerHeartbeat(response) if response.error_code == 0 => {
            response.should_shut_down
        }
        ControllerResponse::BrokerHeartbeat(response) => {
            tracing::warn!(
                error = %ErrorCode(response.error_code),
                want_shut_down,
                "the controller refused a heartbeat"
            );
            true
        }
        _ => true,
    }
}

/// Writes the high watermarks, and less often recovery points and log starts, until the
/// node is asked to stop. Recovery points that have moved are written at once, so that a
/// start after a kill reads little.
async fn checkpoint_until_stopped(rt: &Rt, node: &Node, port: &MeshPort, storage: &Storage) {
    let log = &node.config.log;
    let short = millis(log.replica_high_watermark_checkpoint_interval_ms);
    let long = millis(i64::from(log.log_flush_offset_checkpoint_interval_ms));
    let look = short.min(RECOVERY_POINT_INTERVAL);
    let (mut last_short, mut last_long) = (rt.now(), rt.now());
    let mut last_points = Vec::new();
    loop {
        if let Either::First(()) = local::either(rt.stopping(), rt.sleep(look)).await {
            return;
        }
        let checkpoints = collect(node, port, || ShardRequest::Checkpoints).await;
        let points: Vec<Offset> = checkpoints.iter().map(|c| c.recovery_point).collect();
        let all = points != last_points || rt.now() - last_long >= long;
        if !all && rt.now() - last_short < short {
            continue;
        }
        last_short = rt.now();
        if all {
            last_long = rt.now();
            last_points = points;
        }
        storage.write_checkpoints(&*rt.disk(), &checkpoints, all);
    }
}

/// A clean stop.
async fn leave(
    rt: &Rt,
    node: &Node,
    port: &MeshPort,
    handle: &ControllerHandle,
    storage: &Storage,
) {
    // The first moves leaderships away, a later one grants.
    for _ in 0..SHUT_DOWN_HEARTBEATS_MAX {
        if heartbeat(node, handle, true).await {
            break;
        }
    }
    let checkpoints = close_logs(node, port).await;
    storage.write_checkpoints(&*rt.disk(), &checkpoints, true);
    handle.stop().await;
    storage.mark_clean(&*rt.disk(), node.broker_epoch.load(Ordering::Acquire));
}

async fn close_logs(node: &Node, port: &MeshPort) -> Vec<PartitionCheckpoint> {
    collect(node, port, || ShardRequest::CloseLogs).await
}

async fn collect(
    node: &Node,
    port: &MeshPort,
    request: impl Fn() -> ShardRequest,
) -> Vec<PartitionCheckpoint> {
    let calls: Vec<_> = (0..node.cores)
        .map(|core| port.call(CoreId(core), request()))
        .collect();
    let mut checkpoints = Vec::new();
    for call in calls {
        if let Ok(ShardReply::Checkpoints(mut part)) = call.await {
            checkpoints.append(&mut part);
        }
    }
    checkpoints
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0).max(1))
}
