//! A whole world in one thread, under a seed: clock, executor, network, disks. What runs
//! in it is the product's own code over the same `io::Rt`.
//!
//! ```no_run
//! use std::time::Duration;
//! ottla::sim::run(7, |sim| {
//!     let node = sim.add_node(2);
//!     let cores = sim.boot(node);
//!     let rt = cores[0].clone();
//!     sim.block_on(&cores[0], Duration::from_secs(10), async move {
//!         rt.sleep(Duration::from_secs(5)).await;
//!     });
//! });
//! ```

mod core;
mod disk;
mod net;
mod trace;
mod world;

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

pub use disk::{CutCounts, End, Fails, SimDisk};
pub use world::NodeId;
use world::World;

use crate::base::{Millis, Nanos};
use crate::io::Rt;

/// The world, as the scenario sees it.
pub struct Sim {
    world: Rc<World>,
    seed: u64,
}

/// Runs a scenario in a world of its own. When it panics, the last things that happened
/// are printed, and the seed that replays it.
pub fn run<T>(seed: u64, scenario: impl FnOnce(&Sim) -> T) -> T {
    let sim = Sim {
        world: World::new(seed),
        seed,
    };
    scenario(&sim)
}

impl Sim {
    pub fn seed(&self) -> u64 {
        self.seed
    }

    pub fn now(&self) -> Nanos {
        self.world.now()
    }

    /// Adds a node that is down.
    pub fn add_node(&self, cores: usize) -> NodeId {
        self.world.add_node(cores)
    }

    /// Boots a node that is down; gives its cores, which have no task yet.
    pub fn boot(&self, node: NodeId) -> Vec<Rt> {
        self.world.boot(node)
    }

    /// Stops a node in good order: its tasks are dropped, its disk keeps everything.
    pub fn shut_down(&self, node: NodeId) {
        self.world.shut_down(node);
    }

    /// Asks all cores of a node to stop, as a signal would.
    pub fn ask_to_stop(&self, node: NodeId) {
        self.world.ask_to_stop(node);
    }

    /// Takes the power off a node: its tasks vanish, its peers hear nothing, its disk
    /// keeps what was synced and, by the seed, parts of the rest.
    pub fn crash(&self, node: NodeId) {
        self.world.crash(node);
    }

    /// Ends a node at some moment after that many operations of its disk: between the
    /// operations of one poll, too. [`is_up`](Self::is_up) tells when it has.
    pub fn end_after(&self, node: NodeId, operations: u64, end: End) {
        self.world.disk(node).end_after(operations, end);
    }

    /// Whether the node runs.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.world.epoch_if_up(node).is_some()
    }

    /// The node's address.
    pub fn ip(&self, node: NodeId) -> IpAddr {
        net::node_ip(node)
    }

    /// The node's disk, which outlives its boots.
    pub fn disk(&self, node: NodeId) -> SimDisk {
        self.world.disk(node)
    }

    /// Sets by how much a node's wall clock is ahead; the monotonic clock never jumps.
    pub fn set_wall_ahead_ms(&self, node: NodeId, ahead: Millis) {
        self.world.set_wall_ahead_ms(node, ahead);
    }

    /// Sets how long a segment takes from node to node.
    pub fn set_latency(&self, min: Duration, max: Duration) {
        self.world.net.borrow_mut().set_latency(min, max);
    }

    /// Lets nothing pass from one node to another (one way), or lets it pass again.
    pub fn set_blocked(&self, from: NodeId, to: NodeId, blocked: bool) {
        self.world.net.borrow_mut().set_blocked(from, to, blocked);
    }

    /// Breaks all connections between two nodes: both sides see a reset.
    pub fn break_connections(&self, a: NodeId, b: NodeId) {
        net::break_all(&self.world, a, b);
    }

    /// Runs a future as a task of a core until it is ready. Panics when that takes longer
    /// than `limit` of the world's time, or can't happen any more.
    pub fn block_on<T: 'static>(
        &self,
        rt: &Rt,
        limit: Duration,
        future: impl Future<Output = T> + 'static,
    ) -> T {
        self.world.run_until_ready(rt, limit, future)
    }

    /// Lets the world run for a time.
    pub fn run_for(&self, duration: Duration) {
        let until = self.now() + duration;
        while self.now() < until && self.world.step(until) {}
    }

    /// Notes a line in the trace, beside what the world itself notes.
    pub fn note(&self, line: std::fmt::Arguments<'_>) {
        self.world.note(line);
    }

    /// A number that tells histories apart: two runs of one seed have the same.
    pub fn digest(&self) -> u64 {
        self.world.trace.borrow().digest()
    }

    /// Keeps every line of the trace from now on, for [`trace`](Self::trace).
    pub fn keep_trace(&self) {
        self.world.trace.borrow_mut().keep();
    }

    /// Everything that has happened since `keep_trace`, one line each.
    pub fn trace(&self) -> String {
        self.world.trace.borrow().kept().to_owned()
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The scenario may have failed while it noted something.
            if let Ok(trace) = self.world.trace.try_borrow() {
                for line in trace.last() {
                    eprintln!("{line}");
                }
            }
            eprintln!("the simulation failed; replay it with seed {}", self.seed);
            // Tasks that were being polled are in pieces: nothing is dropped.
            return;
        }
        self.world.shut_down_all();
    }
}
