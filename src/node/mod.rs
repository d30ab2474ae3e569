//! One node: builds the parts, starts the cores, stops everything in reverse.
//!
//! Called by `cli::start`. Order of the start: directories (lock, identity), addresses,
//! cores; the controller's core then loads the metadata log, publishes the first image
//! (every data core opens its logs), registers the broker, opens the listeners and unfences
//! it ([`lifecycle`]). Order of the stop: connections, coordinators and logs, checkpoints,
//! the metadata log, clean markers.

pub mod controller;
pub mod cores;
pub mod error;
pub mod format;
pub mod lifecycle;
pub mod listeners;
pub mod metadata_log;
pub mod publisher;
pub mod rules;
pub mod settings;
pub mod storage;

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::mpsc;

pub use error::StartError;

use crate::api;
use crate::base::{BrokerId, CoreId};
use crate::config::NodeConfig;
use crate::io::{CoreHandle, Queue, Rt, Stopper, run_core};
use crate::mesh::{PortSeed, mesh};
use crate::security::AllowAll;
use crate::shard::messages::{ShardReply, ShardRequest};
use crate::shard::{Node, Shard, background, serve_mesh};
use listeners::BoundListener;

/// Calls that may be under way between two cores at a time.
const MESH_CAPACITY: usize = 1024;

/// What a person wants to know of a node that serves.
#[derive(Clone, Debug)]
pub struct Ready {
    pub cluster_id: String,
    pub node_id: BrokerId,
    pub listeners: Vec<BoundListener>,
    pub log_dirs: Vec<PathBuf>,
    /// The CPU of each data core, where it is pinned.
    pub cpus: Vec<Option<usize>>,
    /// This start formatted the directories.
    pub formatted: bool,
}

/// Runs a node until `until_stop` returns. `on_ready` is called once it serves.
pub fn run(
    config: NodeConfig,
    on_ready: impl FnOnce(&Ready),
    until_stop: impl FnOnce(),
) -> Result<(), StartError> {
    let storage = storage::open(&config)?;
    let listeners = listeners::reserve(&config)?;
    let plan = cores::plan(&config)?;
    let node = Arc::new(Node {
        id: storage.node_id,
        broker_epoch: AtomicI64::new(-1),
        cluster_id: storage.cluster_id.as_str().into(),
        auto_create: settings::auto_create(&config),
        coordinator: settings::coordinator(&config),
        authorizer: Arc::new(AllowAll),
        cores: u16::try_from(plan.cpus.len()).expect("cores are bounded by the config"),
        directories: storage.directories.clone(),
        config,
    });
    let ready = Ready {
        cluster_id: storage.cluster_id.clone(),
        node_id: storage.node_id,
        listeners: listeners.clone(),
        log_dirs: node.config.log_dirs.clone(),
        cpus: plan.cpus.clone(),
        formatted: storage.formatted,
    };

    let mut seeds = mesh(plan.cpus.len() + 1, MESH_CAPACITY);
    let controller_seed = seeds.pop().expect("one seed for each core");
    let mut data_cores = Vec::new();
    for (index, (seed, core)) in seeds.into_iter().zip(plan.data_cores()).enumerate() {
        let node = node.clone();
        let started = run_core(core, move |rt| data_core(rt, seed, node));
        match started {
            Ok(core) => data_cores.push(core),
            Err(error) => {
                stop_all(data_cores);
                return Err(StartError::core(CoreId(index as u16), error));
            }
        }
    }
    let (started, starting) = mpsc::channel();
    let life = lifecycle::Life {
        node: node.clone(),
        listeners,
        storage,
        started,
    };
    let controller = match run_core(plan.controller_core(), move |rt| {
        lifecycle::run(rt, controller_seed, life)
    }) {
        Ok(core) => core,
        Err(error) => {
            stop_all(data_cores);
            return Err(StartError::core(node.controller_core(), error));
        }
    };
    let outcome = starting
        .recv()
        .unwrap_or_else(|_| Err(StartError::Controller("it ended while starting".to_owned())));
    if outcome.is_ok() {
        on_ready(&ready);
        until_stop();
    }
    let stoppers: Vec<Stopper> = data_cores.iter().map(CoreHandle::stopper).collect();
    for stopper in stoppers {
        stopper.stop();
    }
    controller.stopper().stop();
    controller.join();
    for core in data_cores {
        core.join();
    }
    outcome
}

/// A data core's life: serves until it is asked to stop and its logs are closed.
async fn data_core(rt: Rt, seed: PortSeed<ShardRequest, ShardReply>, node: Arc<Node>) {
    let port = seed.attach(&rt);
    let shard: Rc<Shard> = Shard::new(rt.clone(), node, &api::TABLE, port);
    rt.spawn(Queue::Request, serve_mesh(shard.clone()));
    background::start(&shard);
    rt.stopping().await;
    shard.closed().await;
}

/// Cores that have started nothing yet end when they are asked to: no log is open.
fn stop_all(cores: Vec<CoreHandle<()>>) {
    for core in &cores {
        core.stopper().stop();
    }
    // Their logs never open without a controller, so nothing waits for a close.
    std::mem::forget(cores);
}
