//! One node: builds the parts, starts the cores, stops everything in reverse.
//!
//! Called by `cli::start`. Order of the start: the plan of the cores, directories (lock,
//! identity), addresses, cores; the controller's core then loads the metadata log, publishes the first image
//! (every data core opens its logs), registers the broker, opens the listeners and unfences
//! it ([`lifecycle`]). Order of the stop: connections, coordinators and logs, checkpoints,
//! the metadata log, clean markers.

pub mod controller;
pub mod cores;
pub mod directories;
pub mod doctor;
pub mod error;
pub mod format;
pub mod isr;
pub mod lifecycle;
pub mod links;
pub mod listeners;
mod memory;
pub mod metadata_log;
pub mod metrics;
pub mod peers;
pub mod publisher;
pub mod remote;
pub mod replica;
pub mod rules;
pub mod settings;
pub mod storage;
mod threads;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64};
use std::sync::mpsc;

pub use error::StartError;

use crate::api;
use crate::base::{BrokerId, Rng};
use crate::config::NodeConfig;
use crate::io::disk::RealDisk;
use crate::io::{Queue, Rt, Stopper};
use crate::mesh::{PortSeed, mesh_within};
use crate::shard::load::Load;
use crate::shard::messages::{ShardReply, ShardRequest};
use crate::shard::mover::Pace;
use crate::shard::{Node, Shard, background, serve_mesh};
use lifecycle::Life;
use listeners::BoundListener;
use storage::Storage;

/// Memory that the rings between all cores together may take. For 256 cores that is enough
/// for some twenty requests in each ring, up to 40 cores for the longest there are.
const MESH_BYTES: usize = 256 << 20;

/// What a person wants to know of a node that serves.
#[derive(Clone, Debug)]
pub struct Ready {
    pub cluster_id: String,
    pub node_id: BrokerId,
    pub listeners: Vec<BoundListener>,
    /// Where its numbers are served.
    pub metrics: Vec<SocketAddr>,
    pub log_dirs: Vec<PathBuf>,
    /// Where each data core runs.
    pub cores: Vec<cores::Place>,
    /// This start formatted the directories.
    pub formatted: bool,
}

/// Runs a node until `until_stop` returns, on a thread of its own: also a node that waits for
/// its quorum can be stopped. `on_ready` is called once it serves.
pub fn run(
    config: NodeConfig,
    on_ready: impl FnOnce(&Ready),
    until_stop: impl FnOnce() + Send + 'static,
) -> Result<(), StartError> {
    let mut rng = Rng::new(format::seed());
    // First: nothing is formatted for a node that can't run.
    let mut plan = cores::plan(&config)?;
    for warning in plan.warnings() {
        tracing::warn!("{warning}");
    }
    let storage = storage::open(&RealDisk, &config, format::now_ms(), &mut rng)?;
    // The addresses stay claimed until the end.
    let (listeners, _claims) = listeners::reserve(&config)?;
    let reserved = threads::reserve(&mut plan)?;
    let node = shared(config, &storage, plan.places.len());
    let mut ready = Ready {
        cluster_id: storage.cluster_id.clone(),
        node_id: storage.node_id,
        listeners: listeners.clone(),
        metrics: Vec::new(),
        log_dirs: node.config.log_dirs.clone(),
        cores: plan.places.clone(),
        formatted: storage.formatted,
    };
    let (started, starting) = mpsc::channel();
    let life = Life {
        node: node.clone(),
        listeners,
        storage,
        started,
    };
    let threads = reserved.start(&node, life);
    let stoppers = threads.stoppers();
    let (stop, stopping) = mpsc::channel();
    let waiting = move || {
        until_stop();
        stoppers.iter().for_each(Stopper::stop);
        // Nobody listens where the start has failed.
        let _ = stop.send(());
    };
    // Without it the process ends, and the cores with it.
    std::thread::Builder::new()
        .name("ottla-stop".to_owned())
        .spawn(waiting)
        .map_err(|error| StartError::Controller(format!("no thread for signals: {error}")))?;
    let outcome = starting
        .recv()
        .unwrap_or_else(|_| Err(StartError::Controller("it ended while starting".to_owned())));
    let outcome = outcome.map(|metrics| {
        ready.metrics = metrics;
        on_ready(&ready);
        let _ = stopping.recv();
    });
    threads.stop();
    outcome
}

/// What the cores of a node share.
pub fn shared(config: NodeConfig, storage: &Storage, cores: usize) -> Arc<Node> {
    let cores = u16::try_from(cores).expect("cores are bounded by the config");
    Arc::new(Node {
        id: storage.node_id,
        broker_epoch: AtomicI64::new(-1),
        quorum_leader: AtomicI32::new(-1),
        cluster_id: storage.cluster_id.as_str().into(),
        auto_create: settings::auto_create(&config),
        coordinator: settings::coordinator(&config),
        authorizer: settings::authorizer(&config),
        request_memory: memory::for_requests(&config, usize::from(cores)),
        cores,
        load: Load::new(cores),
        directories: storage.directories.clone(),
        moves: Pace::default(),
        config,
    })
}

/// The mesh between the data cores and, as the last one, the controller's.
pub fn wire_up(cores: usize) -> Vec<PortSeed<ShardRequest, ShardReply>> {
    mesh_within(cores + 1, MESH_BYTES)
}

/// A data core's life: serves until it is asked to stop and its logs are closed.
pub async fn data_core(rt: Rt, seed: PortSeed<ShardRequest, ShardReply>, node: Arc<Node>) {
    let port = seed.attach(&rt);
    let shard: Rc<Shard> = Shard::new(rt.clone(), node, &api::TABLE, port);
    rt.spawn(Queue::Request, serve_mesh(shard.clone()));
    background::start(&shard);
    rt.stopping().await;
    shard.closed().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::capacity_within;

    #[test]
    fn rings_of_the_mesh_are_long_enough_for_256_cores() {
        let capacity =
            |cores: usize| capacity_within::<ShardRequest, ShardReply>(cores + 1, MESH_BYTES);
        assert_eq!(capacity(32), 1024);
        assert!(capacity(256) >= 12, "{}", capacity(256));
    }
}
