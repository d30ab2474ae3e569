//! A whole node in a simulated world, and a client that speaks to it.

#[path = "sim_client.rs"]
mod sim_client;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, mpsc};

use ottla::config::load;
use ottla::io::Queue;
use ottla::node::lifecycle::{self, Life};
use ottla::node::listeners::BoundListener;
use ottla::node::{self, storage};
use ottla::shard::Node;
use ottla::sim::{NodeId, Sim};
pub use sim_client::Client;

pub const DATA_CORES: usize = 2;
pub const PORT: u16 = 9092;

/// Boots a node of `DATA_CORES` and the controller's core on its disk, configured by these
/// lines besides the necessary ones, with these of its two listeners. Gives the message of its start, and what its cores
/// share.
pub fn boot(
    sim: &Sim,
    server: NodeId,
    lines: &str,
    listeners: &[&str],
) -> (mpsc::Receiver<lifecycle::Started>, Arc<Node>) {
    let ip = sim.ip(server);
    let properties = format!(
        "process.roles=broker,controller\nnode.id=1\nlog.dirs=/data\n\
         controller.listener.names=CONTROLLER\n\
         listeners=PLAINTEXT://{ip}:{PORT},CONTROLLER://{ip}:9093\n\
         controller.quorum.voters=1@{ip}:9093\n\
         offsets.topic.replication.factor=1\n{lines}"
    );
    let config = load::from_bytes(Path::new("sim.properties"), properties.as_bytes(), &[])
        .expect("the properties are right")
        .node;
    let cores = sim.boot(server);
    let controller = cores.last().expect("a node has cores").clone();
    let storage = storage::open(
        &*controller.disk(),
        &config,
        controller.wall_ms(),
        &mut controller.rng(),
    )
    .expect("the simulated disk works");
    let listener = |name: &&str| {
        let is_controller = *name == "CONTROLLER";
        let port = if is_controller { PORT + 1 } else { PORT };
        BoundListener {
            name: (*name).into(),
            address: SocketAddr::new(ip, port),
            advertised_host: ip.to_string(),
            advertised_port: port,
            protocol: 0,
            is_controller,
        }
    };
    let listeners = listeners.iter().map(listener).collect();
    let shared = node::shared(config, &storage, DATA_CORES);
    let (started, starting) = mpsc::channel();
    let life = Life {
        node: shared.clone(),
        listeners,
        storage,
        started,
    };
    let mut seeds = node::wire_up(DATA_CORES);
    let last = seeds.pop().expect("one seed for each core");
    for (rt, seed) in cores.iter().zip(seeds) {
        rt.spawn(
            Queue::Request,
            node::data_core(rt.clone(), seed, shared.clone()),
        );
    }
    controller.spawn(
        Queue::Request,
        lifecycle::run(controller.clone(), last, life),
    );
    (starting, shared)
}
