//! What clients may use, on this core: connections are admitted by the node's quotas, and
//! bytes of requests are charged to its memory.
//!
//! `acceptor` calls [`admit`] and `connection` keeps the [`Admission`] and a [`Charge`].
//! The connection quotas belong to core [`QUOTAS`], which is asked by message when a
//! connection comes and told when it ends; memory is leased in chunks from a pool that all
//! cores share. A controller's listeners have quotas of their own, as in Kafka, where they
//! have a socket server of their own.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::connections::Class;
use super::messages::{LongReply, ShardReply, ShardRequest};
use super::operation::OperationId;
use super::{Node, Shard, replicas};
use crate::base::{CoreId, Nanos};
use crate::config::{DynamicConfig, Layers, ListenerLimitsConfig};
use crate::io::Queue;
use crate::io::local::oneshot::Sender;
use crate::io::local::{self, Notify, oneshot};
use crate::metadata::MetadataImage;
use crate::quota::connections::{ConnectionLimits, ConnectionQuotas, ListenerLimits, Verdict};
use crate::quota::memory::{self, CoreMemory};

/// The core that owns the connection quotas.
const QUOTAS: CoreId = CoreId(0);

/// One core's limits.
pub struct Limits {
    memory: RefCell<CoreMemory>,
    /// In use on core [`QUOTAS`] only.
    quotas: RefCell<Quotas>,
    /// A task waits for the next turn of the creation rate.
    timer_runs: Cell<bool>,
    /// Turns have changed.
    turns: Notify,
    /// A task has connections closed.
    evictor_runs: Cell<bool>,
}

/// Between two looks for a connection to close, when none was found: those that move to
/// another core can't be seen.
const EVICTION_PAUSE: Duration = Duration::from_millis(10);

struct Quotas {
    broker: ConnectionQuotas<Asker>,
    controller: ConnectionQuotas<Asker>,
}

/// Who waits for a verdict.
pub enum Asker {
    Local(Sender<Verdict>),
    Remote(OperationId),
}

/// What an admitted connection is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Index among the listeners of its kind.
    listener: u16,
    is_controller: bool,
    is_protected: bool,
    address: IpAddr,
}

/// A connection's place among those that there may be; it is given back when dropped.
pub struct Admission {
    shard: Rc<Shard>,
    /// None once the place has gone to another core.
    ticket: Option<Ticket>,
}

/// Bytes of requests that this core has in memory for one connection; given back when
/// dropped.
pub struct Charge {
    shard: Rc<Shard>,
    /// All that is charged.
    bytes: usize,
    /// How much of it was charged for small requests.
    small: usize,
    /// Bytes of each request that is in flight, in order.
    requests: VecDeque<u32>,
    /// Bytes of those whose replies are being sent.
    sending: usize,
    place: Option<memory::Ticket>,
}

impl Limits {
    pub fn new(node: &Node, core: CoreId) -> Limits {
        let layers = node.config.layers();
        Limits {
            memory: RefCell::new(CoreMemory::new(node.request_memory.clone(), core.index())),
            quotas: RefCell::new(Quotas {
                broker: ConnectionQuotas::new(connection_limits(node, &layers, false)),
                controller: ConnectionQuotas::new(connection_limits(node, &layers, true)),
            }),
            timer_runs: Cell::new(false),
            turns: Notify::new(),
            evictor_runs: Cell::new(false),
        }
    }

    /// Connections that the node's limits hold back; none but on core [`QUOTAS`].
    pub fn held_back(&self) -> usize {
        let quotas = self.quotas.borrow();
        quotas.broker.waiting() + quotas.controller.waiting()
    }

    /// Another core has given memory back.
    pub fn on_memory_freed(&self) {
        self.memory.borrow_mut().wake_next();
    }
}

/// Waits until a connection that was accepted may be served; None when it is to be closed.
pub async fn admit(shard: &Rc<Shard>, listener: &str, address: IpAddr) -> Option<Admission> {
    let ticket = ticket(shard.node(), listener, address);
    let verdict = if shard.core() == QUOTAS {
        let (sender, verdict) = oneshot();
        ask(shard, ticket, Asker::Local(sender));
        verdict.await.ok()
    } else {
        let answer = shard.operations().answer();
        let asked = shard.call(QUOTAS, ShardRequest::Admit(answer.id(), ticket));
        match asked.await {
            Ok(ShardReply::Done) => match answer.await {
                LongReply::Admission(verdict) => Some(verdict),
                _ => None,
            },
            _ => None,
        }
    };
    match verdict? {
        Verdict::Admitted => Some(Admission::held(shard, ticket)),
        Verdict::TooManyFromAddress { max } => {
            shard.metrics().refused.increment();
            tracing::info!(
                core = %shard.core(), %listener, %address, max,
                "connection closed: its address has too many"
            );
            None
        }
    }
}

/// On the quotas' core: a connection asks.
pub fn ask(shard: &Rc<Shard>, ticket: Ticket, asker: Asker) {
    let now = shard.rt().now();
    let listener = usize::from(ticket.listener);
    shard
        .limits()
        .quotas
        .borrow_mut()
        .of(ticket.is_controller)
        .ask(asker, listener, ticket.address, now);
    decide(shard);
}

/// On the quotas' core: a connection has ended.
pub fn end(shard: &Rc<Shard>, ticket: Ticket) {
    shard
        .limits()
        .quotas
        .borrow_mut()
        .of(ticket.is_controller)
        .end(usize::from(ticket.listener), ticket.address);
    decide(shard);
}

/// The broker's configuration has changed.
pub fn configure(shard: &Rc<Shard>, image: &MetadataImage) {
    if shard.core() != QUOTAS {
        return;
    }
    let layers = replicas::broker_layers(shard, image);
    {
        let mut quotas = shard.limits().quotas.borrow_mut();
        for is_controller in [false, true] {
            let limits = connection_limits(shard.node(), &layers, is_controller);
            quotas.of(is_controller).configure(limits);
        }
    }
    decide(shard);
}

/// Tells everybody whose wait is over, and sees to the next turn and to those over the limit.
fn decide(shard: &Rc<Shard>) {
    let limits = shard.limits();
    loop {
        let decided = limits.quotas.borrow_mut().next_decided(shard);
        let Some((asker, verdict)) = decided else {
            break;
        };
        match asker {
            // An acceptor that has stopped takes nothing any more.
            Asker::Local(sender) => drop(sender.send(verdict)),
            Asker::Remote(operation) => {
                let reply = Box::new(LongReply::Admission(verdict));
                shard.post(operation.core, ShardRequest::LongDone(operation, reply));
            }
        }
    }
    if !limits.evictor_runs.get() {
        let first = limits.quotas.borrow_mut().next_eviction();
        if let Some(first) = first {
            limits.evictor_runs.set(true);
            let evicting = evict(shard.clone(), first);
            shard.rt().spawn(Queue::Request, evicting);
        }
    }
    if limits.quotas.borrow().next_at(shard).is_none() {
        return;
    }
    if limits.timer_runs.replace(true) {
        limits.turns.notify_one();
    } else {
        shard.rt().spawn(Queue::Request, take_turns(shard.clone()));
    }
}

/// Runs while somebody waits for a turn.
async fn take_turns(shard: Rc<Shard>) {
    let limits = shard.limits();
    loop {
        let next = limits.quotas.borrow().next_at(&shard);
        let Some(next) = next else { break };
        let rt = shard.rt();
        let waiting = local::either(rt.sleep_until(next), limits.turns.notified());
        if let local::Either::First(()) = local::either(rt.stopping(), waiting).await {
            break;
        }
        decide(&shard);
    }
    limits.timer_runs.set(false);
}

/// Has the least recently used connections closed while there are too many.
async fn evict(shard: Rc<Shard>, first: Class) {
    let quotas = &shard.limits().quotas;
    let mut next = Some(first);
    while let Some(class) = next {
        if !evict_one(&shard, class).await {
            let is_controller = class == Class::Controller;
            quotas.borrow_mut().of(is_controller).eviction_failed();
            let pause = shard.rt().sleep(EVICTION_PAUSE);
            if let local::Either::First(()) = local::either(shard.rt().stopping(), pause).await {
                break;
            }
        }
        next = quotas.borrow_mut().next_eviction();
    }
    shard.limits().evictor_runs.set(false);
}

/// Closes the least recently used connection of all cores; false if there was none.
async fn evict_one(shard: &Shard, class: Class) -> bool {
    let ask = |core, evict| shard.call(core, ShardRequest::LeastUsed { class, evict });
    let calls: Vec<_> = (0..shard.node().cores)
        .map(|core| (CoreId(core), ask(CoreId(core), false)))
        .collect();
    let mut oldest = None;
    for (core, call) in calls {
        if let Ok(ShardReply::LeastUsed(Some(used))) = call.await
            && oldest.is_none_or(|(before, _)| used < before)
        {
            oldest = Some((used, core));
        }
    }
    let Some((_, core)) = oldest else {
        return false;
    };
    let evicted = ask(core, true).await;
    matches!(evicted, Ok(ShardReply::LeastUsed(Some(_))))
}

impl Quotas {
    /// A class of which one more connection is to make room.
    fn next_eviction(&mut self) -> Option<Class> {
        if self.broker.next_eviction() {
            return Some(Class::Broker);
        }
        self.controller.next_eviction().then_some(Class::Controller)
    }

    fn of(&mut self, is_controller: bool) -> &mut ConnectionQuotas<Asker> {
        if is_controller {
            &mut self.controller
        } else {
            &mut self.broker
        }
    }

    fn next_decided(&mut self, shard: &Shard) -> Option<(Asker, Verdict)> {
        let now = shard.rt().now();
        let decided = self.broker.next_decided(now);
        decided.or_else(|| self.controller.next_decided(now))
    }

    fn next_at(&self, shard: &Shard) -> Option<Nanos> {
        let now = shard.rt().now();
        let turns = [self.broker.next_at(now), self.controller.next_at(now)];
        turns.into_iter().flatten().min()
    }
}

impl Admission {
    /// Holds a place that was admitted.
    pub fn held(shard: &Rc<Shard>, ticket: Ticket) -> Admission {
        Admission {
            shard: shard.clone(),
            ticket: Some(ticket),
        }
    }

    pub fn shard(&self) -> &Rc<Shard> {
        &self.shard
    }

    /// Which connections it may have to make room with.
    pub fn class(&self) -> Class {
        match self.ticket {
            Some(ticket) if ticket.is_controller => Class::Controller,
            Some(ticket) if ticket.is_protected => Class::Protected,
            _ => Class::Broker,
        }
    }

    /// For a connection that goes to another core: the place stays taken and is to be
    /// held there.
    pub fn into_ticket(mut self) -> Ticket {
        self.ticket.take().expect("it is taken once, here")
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let shard = &self.shard;
        let Some(ticket) = self.ticket.take().filter(|_| !shard.rt().is_stopping()) else {
            return;
        };
        if shard.core() == QUOTAS {
            end(shard, ticket);
        } else {
            shard.post(QUOTAS, ShardRequest::Ended(ticket));
        }
    }
}

impl Charge {
    /// For bytes that a connection brings along.
    pub fn new(shard: &Rc<Shard>, bytes: usize) -> Charge {
        let mut charge = Charge {
            shard: shard.clone(),
            bytes: 0,
            small: 0,
            requests: VecDeque::new(),
            sending: 0,
            place: None,
        };
        charge.add(bytes, bytes);
        charge
    }

    /// Waits until more of a request of that many bytes may be received. A dropped
    /// future keeps its place in the line.
    pub async fn room(&mut self, request_bytes: usize) {
        poll_fn(|context| {
            let waited = self.place.is_some();
            let mut memory = self.shard.limits.memory.borrow_mut();
            match memory.poll_room(&mut self.place, request_bytes, context.waker()) {
                true => Poll::Ready(()),
                false => {
                    if !waited {
                        self.shard.metrics().memory_waits.increment();
                    }
                    Poll::Pending
                }
            }
        })
        .await;
    }

    /// Bytes have arrived; the request at the front has `request_bytes`, or 0 before its
    /// size is known.
    pub fn add(&mut self, bytes: usize, request_bytes: usize) {
        let small = if memory::is_small(request_bytes) {
            bytes
        } else {
            0
        };
        self.bytes += bytes;
        self.small += small;
        self.shard.metrics().memory.add(bytes as u64);
        self.shard.limits.memory.borrow_mut().charge(bytes, small);
    }

    /// A request of that many bytes is whole and starts.
    pub fn request(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).expect("a frame's size has 31 bits");
        self.requests.push_back(bytes);
        self.shard.limits.memory.borrow_mut().leave(&mut self.place);
    }

    /// The oldest request has its reply.
    pub fn finished(&mut self) {
        let bytes = self.requests.pop_front();
        self.sending += bytes.expect("each reply belongs to a request") as usize;
    }

    /// All replies so far have been sent.
    pub fn sent(&mut self) {
        let bytes = std::mem::take(&mut self.sending);
        self.release(bytes);
    }

    /// Gives up what is kept for requests to come.
    pub fn release_memory(&mut self) {
        self.requests.shrink_to_fit();
    }

    fn release(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let small = self.small.min(bytes);
        self.bytes -= bytes;
        self.small -= small;
        self.shard.metrics().memory.subtract(bytes as u64);
        let freed = self.shard.limits.memory.borrow_mut().release(bytes, small);
        if !freed.is_empty() && !self.shard.rt().is_stopping() {
            for core in freed.cores().map(CoreId) {
                self.shard.post(core, ShardRequest::MemoryFreed);
            }
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.shard.limits.memory.borrow_mut().leave(&mut self.place);
        self.release(self.bytes);
    }
}

fn ticket(node: &Node, listener: &str, address: IpAddr) -> Ticket {
    let listeners = &node.config.listeners;
    let is_protected = is_protected(node, listener);
    let is_controller = listeners.controller().any(|l| l.name == listener);
    let index = if is_controller {
        listeners.controller().position(|l| l.name == listener)
    } else {
        listeners.broker().position(|l| l.name == listener)
    };
    Ticket {
        listener: index
            .and_then(|index| u16::try_from(index).ok())
            .expect("connections come by the listeners of the config"),
        is_controller,
        is_protected,
        address,
    }
}

fn connection_limits(node: &Node, layers: &Layers<'_>, is_controller: bool) -> ConnectionLimits {
    let config = DynamicConfig::effective(layers);
    let listeners = &node.config.listeners;
    let of_kind = listeners
        .all
        .iter()
        .filter(|listener| listener.is_controller == is_controller);
    ConnectionLimits {
        max_connections: count(config.max_connections),
        max_connections_per_ip: count(config.max_connections_per_ip),
        per_ip_overrides: overrides(&config.max_connections_per_ip_overrides),
        max_connection_creation_rate: count(config.max_connection_creation_rate),
        listeners: of_kind
            .map(|listener| {
                let limits = ListenerLimitsConfig::effective(layers, &listener.name);
                ListenerLimits {
                    max_connections: count(limits.max_connections),
                    max_connection_creation_rate: count(limits.max_connection_creation_rate),
                    is_protected: is_protected(node, &listener.name),
                }
            })
            .collect(),
    }
}

/// Brokers come in by this listener, and clients have another.
fn is_protected(node: &Node, listener: &str) -> bool {
    let listeners = &node.config.listeners;
    listeners.broker().count() > 1
        && listeners
            .broker()
            .any(|l| l.name == listener && l.name == listeners.inter_broker_name)
}

fn count(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

/// `address:count` entries; an entry that is anything else is reported and left out.
fn overrides(text: &str) -> HashMap<IpAddr, u32> {
    let entries = text.split(',').map(str::trim).filter(|e| !e.is_empty());
    let mut overrides = HashMap::new();
    for entry in entries {
        let parsed = entry.rsplit_once(':').and_then(|(host, count)| {
            let count = count.trim().parse().ok()?;
            let host = host.trim().trim_start_matches('[').trim_end_matches(']');
            match host {
                "localhost" => Some((IpAddr::from(Ipv4Addr::LOCALHOST), count)),
                _ => Some((host.parse::<IpAddr>().ok()?.to_canonical(), count)),
            }
        });
        match parsed {
            Some((address, count)) => {
                overrides.insert(address, count);
            }
            None => tracing::warn!(
                entry,
                "not an address and a count in max.connections.per.ip.overrides"
            ),
        }
    }
    overrides
}
