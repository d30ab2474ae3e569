//! The simulated world: its clock, its random source, its nodes, and the loop that
//! decides by the seed what happens next.
//!
//! One step is one of: a task of some core is polled; a core takes its turn (sleeps that
//! are due, messages of other cores); an event of the network or a disk happens. Between
//! steps the clock moves a little; when nothing else is left, it jumps to what comes next.
//!
//! Invariant: whatever is chosen is chosen by the world's own random source from an
//! ordered list, so one seed gives one history.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::time::Duration;

use super::core::CoreView;
use super::disk::{End, SimDisk};
use super::net::Net;
use super::trace::Trace;
use crate::base::{CoreId, Millis, Nanos, Rng};
use crate::io::{Executor, Host, Queue, Rt, RunQueues};

/// Names a node of the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(pub(super) usize);

pub(super) struct World {
    now: Cell<Nanos>,
    pub(super) rng: RefCell<Rng>,
    pub(super) nodes: RefCell<Vec<Node>>,
    pub(super) net: RefCell<Net>,
    events: RefCell<BinaryHeap<Reverse<Scheduled>>>,
    events_made: Cell<u64>,
    pub(super) trace: RefCell<Trace>,
}

pub(super) struct Node {
    /// By core; empty while the node is down.
    pub(super) cores: Vec<Rt>,
    pub(super) core_count: usize,
    pub(super) disk: SimDisk,
    /// By how much its wall clock is ahead.
    pub(super) wall_ahead_ms: Millis,
    /// Counts its boots.
    pub(super) epoch: u64,
}

/// Something that happens at its time.
pub(super) type Event = Box<dyn FnOnce(&Rc<World>)>;

struct Scheduled {
    at: Nanos,
    number: u64,
    what: &'static str,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The wall clock at the world's beginning: 2024-01-01.
const WALL_START_MS: Millis = 1_704_067_200_000;
/// A step takes at most this long.
const STEP_NANOS_MAX: u64 = 5_000;

impl World {
    pub(super) fn new(seed: u64) -> Rc<World> {
        Rc::new(World {
            now: Cell::new(Nanos(0)),
            rng: RefCell::new(Rng::new(seed)),
            nodes: RefCell::new(Vec::new()),
            net: RefCell::new(Net::new()),
            events: RefCell::new(BinaryHeap::new()),
            events_made: Cell::new(0),
            trace: RefCell::new(Trace::new()),
        })
    }

    pub(super) fn now(&self) -> Nanos {
        self.now.get()
    }

    pub(super) fn wall_ms(&self, node: NodeId) -> Millis {
        let since = Millis::try_from(self.now().0 / 1_000_000).unwrap_or(Millis::MAX);
        WALL_START_MS + since + self.nodes.borrow()[node.0].wall_ahead_ms
    }

    /// A number in `0..bound`, by the seed.
    pub(super) fn below(&self, bound: u64) -> u64 {
        self.rng.borrow_mut().below(bound)
    }

    /// A duration from `0..=max`, by the seed.
    pub(super) fn delay_up_to(&self, max: Duration) -> Duration {
        let nanos = u64::try_from(max.as_nanos()).unwrap_or(u64::MAX - 1);
        Duration::from_nanos(self.below(nanos + 1))
    }

    pub(super) fn schedule(
        &self,
        at: Nanos,
        what: &'static str,
        event: impl FnOnce(&Rc<World>) + 'static,
    ) {
        let number = self.events_made.get();
        self.events_made.set(number + 1);
        self.events.borrow_mut().push(Reverse(Scheduled {
            at,
            number,
            what,
            event: Box::new(event),
        }));
    }

    pub(super) fn note(&self, line: std::fmt::Arguments<'_>) {
        self.trace.borrow_mut().note(self.now(), line);
    }

    pub(super) fn add_node(&self, cores: usize) -> NodeId {
        assert!(cores > 0, "a node has a core");
        let seed = self.rng.borrow_mut().next_u64();
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(Node {
            cores: Vec::new(),
            core_count: cores,
            disk: SimDisk::new(seed),
            wall_ahead_ms: 0,
            epoch: 0,
        });
        NodeId(nodes.len() - 1)
    }

    pub(super) fn boot(self: &Rc<Self>, node: NodeId) -> Vec<Rt> {
        let (count, epoch, disk) = {
            let mut nodes = self.nodes.borrow_mut();
            let node = &mut nodes[node.0];
            assert!(node.cores.is_empty(), "a node is booted while it is down");
            node.epoch += 1;
            (node.core_count, node.epoch, node.disk.clone())
        };
        self.note(format_args!("boot node {} epoch {epoch}", node.0));
        let cores: Vec<Rt> = (0..count)
            .map(|index| {
                let core = CoreId(u16::try_from(index).expect("cores are numbered by 16 bits"));
                let executor = Executor::new(Host::Own(RefCell::new(RunQueues::new())));
                let view = CoreView {
                    world: self.clone(),
                    node,
                    epoch,
                    disk: disk.clone(),
                };
                let seed = self.rng.borrow_mut().next_u64();
                Rt::simulated(core, executor, seed, Rc::new(view))
            })
            .collect();
        self.nodes.borrow_mut()[node.0].cores = cores.clone();
        cores
    }

    pub(super) fn ask_to_stop(&self, node: NodeId) {
        let cores = self.nodes.borrow()[node.0].cores.clone();
        for rt in &cores {
            rt.stop();
        }
    }

    /// Drops all tasks of a node and what they hold.
    pub(super) fn shut_down(&self, node: NodeId) {
        let cores = self.nodes.borrow()[node.0].cores.clone();
        for rt in &cores {
            rt.close();
        }
        self.disk(node).take_end();
        self.nodes.borrow_mut()[node.0].cores.clear();
    }

    /// Takes the power off a node: its tasks vanish, its connections fall silent, and its
    /// disk keeps what is durable and parts of the rest.
    pub(super) fn crash(&self, node: NodeId) {
        self.note(format_args!("crash node {}", node.0));
        let (cores, disk) = {
            let mut nodes = self.nodes.borrow_mut();
            let node = &mut nodes[node.0];
            (std::mem::take(&mut node.cores), node.disk.clone())
        };
        for rt in &cores {
            rt.close();
        }
        disk.take_end();
        disk.crash();
    }

    /// Carries out the ends that the last step has brought.
    fn end_nodes(&self) {
        let ended = |(index, node): (usize, &Node)| node.disk.has_ended().then_some(NodeId(index));
        let ended: Option<NodeId> = self.nodes.borrow().iter().enumerate().find_map(ended);
        let Some(node) = ended else {
            return;
        };
        self.note(format_args!("end of node {}", node.0));
        let (cores, disk) = {
            let mut nodes = self.nodes.borrow_mut();
            let node = &mut nodes[node.0];
            (std::mem::take(&mut node.cores), node.disk.clone())
        };
        for rt in &cores {
            rt.close();
        }
        if disk.take_end() == Some(End::PowerCut) {
            disk.crash();
        }
    }

    pub(super) fn is_up(&self, node: NodeId, epoch: u64) -> bool {
        self.epoch_if_up(node) == Some(epoch)
    }

    /// Which boot a node is in; none while it is down or is no node.
    pub(super) fn epoch_if_up(&self, node: NodeId) -> Option<u64> {
        let nodes = self.nodes.borrow();
        let node = nodes.get(node.0).filter(|node| !node.cores.is_empty())?;
        Some(node.epoch)
    }

    pub(super) fn disk(&self, node: NodeId) -> SimDisk {
        self.nodes.borrow()[node.0].disk.clone()
    }

    pub(super) fn set_wall_ahead_ms(&self, node: NodeId, ahead: Millis) {
        self.nodes.borrow_mut()[node.0].wall_ahead_ms = ahead;
    }

    pub(super) fn shut_down_all(&self) {
        let count = self.nodes.borrow().len();
        for node in 0..count {
            self.shut_down(NodeId(node));
        }
        let events = self.events.take();
        drop(events);
    }

    /// Moves the clock.
    fn set_now(&self, now: Nanos) {
        self.now.set(now);
        for (index, node) in self.nodes.borrow().iter().enumerate() {
            node.disk.set_wall_ms(self.wall_ms(NodeId(index)));
        }
    }

    /// One step; false when nothing is left to happen before `until`, where the clock
    /// then stands.
    pub(super) fn step(self: &Rc<Self>, until: Nanos) -> bool {
        let took = Duration::from_nanos(self.below(STEP_NANOS_MAX));
        self.set_now(self.now() + took);
        if self.run_due_event() || self.run_some_core() {
            self.end_nodes();
            return true;
        }
        match self.next_time() {
            Some(at) if at <= until => {
                self.set_now(at.max(self.now()));
                true
            }
            _ => {
                self.set_now(until.max(self.now()));
                false
            }
        }
    }

    fn run_due_event(self: &Rc<Self>) -> bool {
        let scheduled = {
            let mut events = self.events.borrow_mut();
            match events.peek() {
                Some(Reverse(first)) if first.at <= self.now() => events.pop(),
                _ => None,
            }
        };
        let Some(Reverse(scheduled)) = scheduled else {
            return false;
        };
        self.note(format_args!("{}", scheduled.what));
        (scheduled.event)(self);
        true
    }

    /// Polls a task or takes a turn of a core that has something to do.
    fn run_some_core(&self) -> bool {
        let now = self.now();
        let candidates: Vec<(usize, Rt, bool)> = {
            let nodes = self.nodes.borrow();
            let cores = nodes.iter().enumerate();
            let cores = cores.flat_map(|(node, n)| n.cores.iter().map(move |rt| (node, rt)));
            cores
                .filter_map(|(node, rt)| {
                    let due = rt.next_deadline().is_some_and(|at| at <= now) || rt.has_work();
                    let runs = rt.executor().runnable() > 0;
                    (due || runs).then(|| (node, rt.clone(), due))
                })
                .collect()
        };
        if candidates.is_empty() {
            return false;
        }
        let chosen = self.below(candidates.len() as u64) as usize;
        let (node, rt, due) = &candidates[chosen];
        let runs = rt.executor().runnable() > 0;
        if *due && (!runs || self.below(2) == 0) {
            let count = rt.turn();
            self.note(format_args!("node {node} core {} turn {count}", rt.core()));
            return true;
        }
        let task = {
            let mut queues = rt.executor().run_queues().borrow_mut();
            queues.pop_any(&mut self.rng.borrow_mut())
        };
        let task = task.expect("a runnable task stands in a queue");
        self.note(format_args!(
            "node {node} core {} task {}",
            rt.core(),
            task.key()
        ));
        task.run();
        true
    }

    fn next_time(&self) -> Option<Nanos> {
        let nodes = self.nodes.borrow();
        let sleeps = nodes
            .iter()
            .flat_map(|node| &node.cores)
            .filter_map(Rt::next_deadline);
        let events = self.events.borrow();
        let event = events.peek().map(|Reverse(first)| first.at);
        sleeps.chain(event).min()
    }

    /// Runs a future as a task of a core until it is ready; panics when nothing is left
    /// to happen before, or after `limit` of the world's time.
    pub(super) fn run_until_ready<T: 'static>(
        self: &Rc<Self>,
        rt: &Rt,
        limit: Duration,
        future: impl Future<Output = T> + 'static,
    ) -> T {
        let output = Rc::new(RefCell::new(None));
        let slot = output.clone();
        rt.spawn(Queue::Request, async move {
            let value = future.await;
            *slot.borrow_mut() = Some(value);
        });
        let until = self.now() + limit;
        loop {
            if let Some(value) = output.borrow_mut().take() {
                return value;
            }
            let goes_on = self.step(until) && self.now() <= until;
            assert!(goes_on, "the future was not ready after {limit:?}");
        }
    }
}
