//! The network between simulated nodes: connections that deliver in order but late, in
//! pieces, or not at all.
//!
//! ```text
//! send → segments under way (bounded by the receiver's window)
//!      → at its time, the first segment arrives at the other end's inbox → recv
//! ```
//! A segment that the network doesn't let through is tried again until it has been under
//! way for [`STUCK_MAX`]; then both ends fail. A node that lost power says nothing: its
//! peers notice when they send, once it is up again, or when that time is over.
//!
//! Node n has the address 10.0.0.(n+1).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;

use super::world::{NodeId, World};
use crate::base::Nanos;
use crate::io::SendQueue;
use crate::io::local::oneshot;

pub(super) struct Net {
    /// By node and port; several where cores share a port.
    listeners: BTreeMap<(NodeId, u16), Vec<u64>>,
    accepting: BTreeMap<u64, Accepting>,
    ends: BTreeMap<u64, End>,
    /// Ways that nothing passes, by sender and receiver.
    blocked: BTreeSet<(NodeId, NodeId)>,
    latency: (Duration, Duration),
    next_id: u64,
    next_port: u16,
}

struct Accepting {
    node: NodeId,
    epoch: u64,
    local: SocketAddr,
    backlog: usize,
    /// Ends of connections that nobody has accepted yet.
    waiting: VecDeque<u64>,
    waker: Option<Waker>,
}

/// One end of a connection.
struct End {
    node: NodeId,
    /// The node's boot that it belongs to; it is dead once that has passed.
    epoch: u64,
    other: u64,
    local: SocketAddr,
    peer: SocketAddr,
    /// Whether a stream (or a backlog) holds it.
    held: bool,
    inbox: BytesMut,
    /// On their way to this end, in order.
    under_way: VecDeque<Segment>,
    under_way_bytes: usize,
    /// When the last of them arrives; no later one does so before.
    last_arrival: Nanos,
    /// The other end has ended its direction.
    ended: bool,
    failed: Option<ErrorKind>,
    /// This end has ended its own direction.
    shut: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

enum Segment {
    Bytes(BytesMut),
    End,
    Reset,
}

/// Bytes that may be on their way to an end or wait there.
const WINDOW_BYTES: usize = 64 << 10;
/// A segment or connect that isn't let through is tried again after this long.
const RETRY: Duration = Duration::from_millis(200);
/// A connection that can't deliver for so long has failed.
const STUCK_MAX: Duration = Duration::from_secs(20);
const PORT_MIN: u16 = 32_768;

impl Net {
    pub(super) fn new() -> Net {
        Net {
            listeners: BTreeMap::new(),
            accepting: BTreeMap::new(),
            ends: BTreeMap::new(),
            blocked: BTreeSet::new(),
            latency: (Duration::from_micros(20), Duration::from_millis(1)),
            next_id: 1,
            next_port: PORT_MIN,
        }
    }

    pub(super) fn set_latency(&mut self, min: Duration, max: Duration) {
        self.latency = (min, max.max(min));
    }

    pub(super) fn set_blocked(&mut self, from: NodeId, to: NodeId, blocked: bool) {
        if blocked {
            self.blocked.insert((from, to));
        } else {
            self.blocked.remove(&(from, to));
        }
    }

    fn is_blocked(&self, from: NodeId, to: NodeId) -> bool {
        self.blocked.contains(&(from, to))
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    fn take_port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = if port == u16::MAX { PORT_MIN } else { port + 1 };
        port
    }

    fn end(&self, id: u64) -> &End {
        self.ends.get(&id).expect("a held end is there")
    }

    fn end_mut(&mut self, id: u64) -> &mut End {
        self.ends.get_mut(&id).expect("a held end is there")
    }
}

impl End {
    fn room(&self) -> usize {
        WINDOW_BYTES.saturating_sub(self.under_way_bytes + self.inbox.len())
    }

    fn fail(&mut self, kind: ErrorKind) -> [Option<Waker>; 2] {
        self.failed.get_or_insert(kind);
        [self.reader.take(), self.writer.take()]
    }
}

pub(super) fn node_ip(node: NodeId) -> IpAddr {
    let last = u8::try_from(node.0 + 1).expect("fewer than 255 nodes");
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

fn node_of(from: NodeId, ip: IpAddr) -> Option<NodeId> {
    match ip {
        ip if ip.is_loopback() || ip.is_unspecified() => Some(from),
        IpAddr::V4(ip) => match ip.octets() {
            [10, 0, 0, last] if last > 0 => Some(NodeId(usize::from(last) - 1)),
            _ => None,
        },
        IpAddr::V6(_) => None,
    }
}

// Listening.

pub(super) fn listen(
    world: &World,
    node: NodeId,
    epoch: u64,
    at: SocketAddr,
    reuse_port: bool,
    backlog: u32,
) -> io::Result<u64> {
    let mut net = world.net.borrow_mut();
    if node_of(node, at.ip()) != Some(node) {
        return Err(ErrorKind::AddrNotAvailable.into());
    }
    let port = if at.port() == 0 {
        net.take_port()
    } else {
        at.port()
    };
    let id = net.take_id();
    let shared = net.listeners.entry((node, port)).or_default();
    if !shared.is_empty() && !reuse_port {
        return Err(ErrorKind::AddrInUse.into());
    }
    shared.push(id);
    let ip = if at.ip().is_unspecified() {
        node_ip(node)
    } else {
        at.ip()
    };
    let accepting = Accepting {
        node,
        epoch,
        local: SocketAddr::new(ip, port),
        backlog: backlog as usize,
        waiting: VecDeque::new(),
        waker: None,
    };
    net.accepting.insert(id, accepting);
    Ok(id)
}

pub(super) fn listener_addr(world: &World, id: u64) -> SocketAddr {
    world.net.borrow().accepting[&id].local
}

pub(super) fn poll_accept(world: &World, id: u64, cx: &Context<'_>) -> Poll<io::Result<u64>> {
    let mut net = world.net.borrow_mut();
    let accepting = net.accepting.get_mut(&id).expect("a listener is there");
    match accepting.waiting.pop_front() {
        Some(end) => Poll::Ready(Ok(end)),
        None => {
            accepting.waker = Some(cx.waker().clone());
            Poll::Pending
        }
    }
}

pub(super) fn close_listener(world: &Rc<World>, id: u64) {
    let accepting = {
        let mut net = world.net.borrow_mut();
        let accepting = net.accepting.remove(&id).expect("it is closed once");
        let key = (accepting.node, accepting.local.port());
        if let Some(shared) = net.listeners.get_mut(&key) {
            shared.retain(|other| *other != id);
            if shared.is_empty() {
                net.listeners.remove(&key);
            }
        }
        accepting
    };
    for end in accepting.waiting {
        close(world, end);
    }
}

// Connecting.

/// An end that is closed when it is dropped, unless it was given up.
pub(super) struct HeldEnd {
    world: Rc<World>,
    id: Option<u64>,
}

impl HeldEnd {
    pub(super) fn new(world: Rc<World>, id: u64) -> HeldEnd {
        HeldEnd {
            world,
            id: Some(id),
        }
    }

    pub(super) fn world(&self) -> &Rc<World> {
        &self.world
    }

    pub(super) fn id(&self) -> u64 {
        self.id.expect("it wasn't given up")
    }

    /// Gives the end up without closing it.
    pub(super) fn give_up(mut self) -> u64 {
        self.id.take().expect("it wasn't given up")
    }
}

impl Drop for HeldEnd {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            close(&self.world, id);
        }
    }
}

/// Begins a connect; the receiver gets the caller's end.
pub(super) fn connect(
    world: &Rc<World>,
    node: NodeId,
    epoch: u64,
    to: SocketAddr,
) -> oneshot::Receiver<io::Result<HeldEnd>> {
    let (tell, told) = oneshot();
    let Some(target) = node_of(node, to.ip()) else {
        let _ = tell.send(Err(ErrorKind::HostUnreachable.into()));
        return told;
    };
    let port = world.net.borrow_mut().take_port();
    let attempt = Attempt {
        from: node,
        epoch,
        local: SocketAddr::new(node_ip(node), port),
        target,
        to,
        until: world.now() + STUCK_MAX,
        tell,
    };
    schedule_attempt(world, attempt, delay(world));
    told
}

struct Attempt {
    from: NodeId,
    epoch: u64,
    local: SocketAddr,
    target: NodeId,
    to: SocketAddr,
    until: Nanos,
    tell: oneshot::Sender<io::Result<HeldEnd>>,
}

fn schedule_attempt(world: &Rc<World>, attempt: Attempt, after: Duration) {
    let at = world.now() + after;
    world.schedule(at, "connect", move |world| on_attempt(world, attempt));
}

fn on_attempt(world: &Rc<World>, attempt: Attempt) {
    if attempt.tell.is_closed() || !world.is_up(attempt.from, attempt.epoch) {
        return;
    }
    let silent = {
        let net = world.net.borrow();
        net.is_blocked(attempt.from, attempt.target)
            || net.is_blocked(attempt.target, attempt.from)
            || world.epoch_if_up(attempt.target).is_none()
    };
    if silent {
        if world.now() >= attempt.until {
            let _ = attempt.tell.send(Err(ErrorKind::TimedOut.into()));
        } else {
            schedule_attempt(world, attempt, RETRY);
        }
        return;
    }
    let chosen = {
        let net = world.net.borrow();
        let listeners = net.listeners.get(&(attempt.target, attempt.to.port()));
        let listeners = listeners.map_or(&[][..], |listeners| listeners);
        if listeners.is_empty() {
            None
        } else {
            let index = world.below(listeners.len() as u64) as usize;
            Some(listeners[index])
        }
    };
    let at = world.now() + delay(world);
    let Some(listener) = chosen else {
        world.schedule(at, "refused", move |_| {
            let _ = attempt.tell.send(Err(ErrorKind::ConnectionRefused.into()));
        });
        return;
    };
    let made = establish(world, &attempt, listener);
    match made {
        Some((end, waker)) => {
            if let Some(waker) = waker {
                waker.wake();
            }
            world.schedule(at, "connected", move |_| {
                // When nobody waits any more, dropping the end closes it.
                let _ = attempt.tell.send(Ok(end));
            });
        }
        // The backlog is full.
        None => schedule_attempt(world, attempt, RETRY),
    }
}

/// Makes both ends and puts the server's into the listener's backlog.
fn establish(
    world: &Rc<World>,
    attempt: &Attempt,
    listener: u64,
) -> Option<(HeldEnd, Option<Waker>)> {
    let mut net = world.net.borrow_mut();
    let (client, server) = (net.take_id(), net.take_id());
    let accepting = net.accepting.get_mut(&listener)?;
    if accepting.waiting.len() >= accepting.backlog {
        return None;
    }
    accepting.waiting.push_back(server);
    let waker = accepting.waker.take();
    let to = SocketAddr::new(node_ip(attempt.target), attempt.to.port());
    let new_end = |node, epoch, other, local, peer| End {
        node,
        epoch,
        other,
        local,
        peer,
        held: true,
        inbox: BytesMut::new(),
        under_way: VecDeque::new(),
        under_way_bytes: 0,
        last_arrival: Nanos(0),
        ended: false,
        failed: None,
        shut: false,
        reader: None,
        writer: None,
    };
    let (server_node, server_epoch) = (accepting.node, accepting.epoch);
    let at_client = new_end(attempt.from, attempt.epoch, server, attempt.local, to);
    let at_server = new_end(server_node, server_epoch, client, to, attempt.local);
    net.ends.insert(client, at_client);
    net.ends.insert(server, at_server);
    Some((HeldEnd::new(world.clone(), client), waker))
}

// Sending and receiving.

pub(super) fn addresses(world: &World, id: u64) -> (SocketAddr, SocketAddr) {
    let net = world.net.borrow();
    let end = net.end(id);
    (end.local, end.peer)
}

pub(super) fn poll_receive(
    world: &World,
    id: u64,
    into: &mut BytesMut,
    cx: &Context<'_>,
) -> Poll<io::Result<usize>> {
    let (count, writer) = {
        let mut net = world.net.borrow_mut();
        let end = net.end_mut(id);
        if end.inbox.is_empty() {
            if let Some(kind) = end.failed {
                return Poll::Ready(Err(kind.into()));
            }
            if end.ended {
                return Poll::Ready(Ok(0));
            }
            end.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        // Mostly all of it, sometimes a part, as the seed will.
        let len = end.inbox.len();
        let count = match world.below(4) {
            0 => 1 + world.below(len as u64) as usize,
            _ => len,
        };
        into.extend_from_slice(&end.inbox.split_to(count));
        let other = end.other;
        let writer = net.ends.get_mut(&other).and_then(|end| end.writer.take());
        (count, writer)
    };
    if let Some(writer) = writer {
        writer.wake();
    }
    Poll::Ready(Ok(count))
}

pub(super) fn poll_send(
    world: &Rc<World>,
    id: u64,
    out: &mut SendQueue,
    cx: &Context<'_>,
) -> Poll<io::Result<()>> {
    let Some(front) = out.front() else {
        return Poll::Ready(Ok(()));
    };
    let front = front.to_bytes()?;
    let count = {
        let mut net = world.net.borrow_mut();
        let end = net.end(id);
        if let Some(kind) = end.failed {
            return Poll::Ready(Err(kind.into()));
        }
        if end.shut {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let room = net.ends.get(&end.other).map_or(WINDOW_BYTES, End::room);
        if room == 0 {
            net.end_mut(id).writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let most = room.min(front.len());
        match world.below(4) {
            0 => 1 + world.below(most as u64) as usize,
            _ => most,
        }
    };
    transmit(world, id, Segment::Bytes(BytesMut::from(&front[..count])));
    out.advance(count);
    Poll::Ready(Ok(()))
}

pub(super) fn shut_write(world: &Rc<World>, id: u64) {
    let first = !std::mem::replace(&mut world.net.borrow_mut().end_mut(id).shut, true);
    if first {
        transmit(world, id, Segment::End);
    }
}

/// The stream was dropped: ends the connection, or resets it when bytes were left unread.
pub(super) fn close(world: &Rc<World>, id: u64) {
    let (unread, alive) = {
        let mut net = world.net.borrow_mut();
        let end = net.end_mut(id);
        end.held = false;
        end.reader = None;
        end.writer = None;
        let unread = !end.inbox.is_empty();
        end.inbox.clear();
        (unread, world.is_up(end.node, end.epoch))
    };
    // A node without power says nothing.
    if alive {
        if unread {
            transmit(world, id, Segment::Reset);
        } else {
            shut_write(world, id);
        }
    }
    forget_if_over(world, id);
}

/// Breaks a connection: both ends fail at once.
pub(super) fn break_all(world: &World, a: NodeId, b: NodeId) {
    let wakers: Vec<Waker> = {
        let mut net = world.net.borrow_mut();
        let between: Vec<u64> = net
            .ends
            .iter()
            .filter(|(_, end)| {
                let other = net.ends.get(&end.other).map(|other| other.node);
                (end.node == a && other == Some(b)) || (end.node == b && other == Some(a))
            })
            .map(|(id, _)| *id)
            .collect();
        let failed = between
            .into_iter()
            .map(|id| net.end_mut(id).fail(ErrorKind::ConnectionReset));
        failed.flatten().flatten().collect()
    };
    for waker in wakers {
        waker.wake();
    }
}

/// Sends a segment from an end to its other.
fn transmit(world: &Rc<World>, from: u64, segment: Segment) {
    let node = world.net.borrow().end(from).node;
    if world.disk(node).has_ended() {
        return;
    }
    let after = delay(world);
    let (to, at) = {
        let mut net = world.net.borrow_mut();
        let to = net.end(from).other;
        let Some(end) = net.ends.get_mut(&to) else {
            return;
        };
        if let Segment::Bytes(bytes) = &segment {
            end.under_way_bytes += bytes.len();
        }
        end.under_way.push_back(segment);
        end.last_arrival = end.last_arrival.max(world.now() + after);
        (to, end.last_arrival)
    };
    let until = world.now() + STUCK_MAX;
    world.schedule(at, "arrive", move |world| on_arrival(world, to, until));
}

/// The time of the first segment on its way to an end has come.
fn on_arrival(world: &Rc<World>, to: u64, until: Nanos) {
    enum What {
        Nothing,
        Retry,
        Stuck,
        Refused,
        Taken([Option<Waker>; 2]),
    }
    let what = {
        let mut net = world.net.borrow_mut();
        match net.ends.get(&to) {
            None => What::Nothing,
            Some(end) if end.failed.is_some() => What::Nothing,
            Some(end) => {
                let sender = net.ends.get(&end.other).map(|other| other.node);
                let blocked = sender.is_some_and(|sender| net.is_blocked(sender, end.node));
                let up = world.epoch_if_up(end.node);
                if blocked || up.is_none() {
                    if world.now() < until {
                        What::Retry
                    } else {
                        What::Stuck
                    }
                } else if up != Some(end.epoch) || !end.held {
                    What::Refused
                } else {
                    What::Taken(take_segment(net.end_mut(to)))
                }
            }
        }
    };
    match what {
        What::Nothing => {}
        What::Retry => {
            let at = world.now() + RETRY;
            world.schedule(at, "retry", move |world| on_arrival(world, to, until));
        }
        What::Stuck => fail_pair(world, to, ErrorKind::TimedOut),
        What::Refused => refuse(world, to),
        What::Taken(wakers) => wakers.into_iter().flatten().for_each(Waker::wake),
    }
    forget_if_over(world, to);
}

fn take_segment(end: &mut End) -> [Option<Waker>; 2] {
    match end.under_way.pop_front() {
        None => [None, None],
        Some(Segment::Bytes(bytes)) => {
            end.under_way_bytes -= bytes.len();
            end.inbox.unsplit(bytes);
            [end.reader.take(), None]
        }
        Some(Segment::End) => {
            end.ended = true;
            [end.reader.take(), None]
        }
        Some(Segment::Reset) => end.fail(ErrorKind::ConnectionReset),
    }
}

/// Something arrived at an end that nobody holds: the sender is told, unless it was the
/// end of the connection.
fn refuse(world: &Rc<World>, to: u64) {
    let wakers = {
        let mut net = world.net.borrow_mut();
        let end = net.end_mut(to);
        let taken = end.under_way.pop_front();
        let Some(Segment::Bytes(bytes)) = taken else {
            return;
        };
        end.under_way_bytes -= bytes.len();
        let other = end.other;
        match net.ends.get_mut(&other) {
            Some(other) => other.fail(ErrorKind::ConnectionReset),
            None => [None, None],
        }
    };
    wakers.into_iter().flatten().for_each(Waker::wake);
}

fn fail_pair(world: &World, id: u64, kind: ErrorKind) {
    let wakers = {
        let mut net = world.net.borrow_mut();
        let other = net.end(id).other;
        let first = net.end_mut(id).fail(kind);
        let second = net.ends.get_mut(&other).map(|end| end.fail(kind));
        [first, second.unwrap_or_default()]
    };
    wakers.into_iter().flatten().flatten().for_each(Waker::wake);
}

/// Drops both ends once nobody holds either and nothing is under way.
fn forget_if_over(world: &World, id: u64) {
    let mut net = world.net.borrow_mut();
    let Some(end) = net.ends.get(&id) else { return };
    let other = end.other;
    let over = |end: Option<&End>| {
        end.is_none_or(|end| !end.held && (end.under_way.is_empty() || end.failed.is_some()))
    };
    if over(Some(end)) && over(net.ends.get(&other)) {
        net.ends.remove(&id);
        net.ends.remove(&other);
    }
}

fn delay(world: &World) -> Duration {
    let (min, max) = world.net.borrow().latency;
    min + world.delay_up_to(max - min)
}
