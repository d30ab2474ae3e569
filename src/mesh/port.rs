//! One core's port: sends requests, takes requests, and is drained by the core's loop.
//!
//! ```text
//! poll            bits of `ready` → `attention` → replies, room, ends, `requests`
//! take_request    `requests` → that core's ring, a run at a time
//! ```
//! Invariant: whoever has something for us is in `ready`, in `attention`, or was attended
//! to; so nothing is looked for elsewhere.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::calls::{Call, Calls, POSTED};
use super::peer_set::PeerSet;
use super::ready::Ready;
use super::replies::{Lane, Replies, ReplySlot};
use super::ring::{Receiver, Sender};
use super::{Link, PortSeed, Reply, Request, Signals};
use crate::base::CoreId;
use crate::io::local::Notify;
use crate::io::{Poller, Rt};

/// Replies taken, or peers attended to, in one turn.
const TURN_MAX: usize = 256;
/// Requests taken of one core before the next one's turn comes.
const RUN_MAX: usize = 64;

/// A core's end of a mesh. Clones are the same port.
pub struct Port<Q, R>(Rc<Inner<Q, R>>);

impl<Q, R> Clone for Port<Q, R> {
    fn clone(&self) -> Self {
        Port(self.0.clone())
    }
}

/// How full the rings to and from one other core are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depths {
    pub peer: CoreId,
    /// Requests to it that found no room.
    pub in_line: usize,
    /// Requests in the ring to it, or at it.
    pub unanswered: usize,
    /// Requests in the ring from it.
    pub to_take: usize,
}

struct Inner<Q, R> {
    rt: Rt,
    outstanding: usize,
    /// By core; none at the own index.
    peers: Vec<Option<Peer<Q, R>>>,
    /// Requests of this core to itself.
    loop_back: RefCell<VecDeque<Request<Q>>>,
    own_calls: Rc<Calls<R>>,
    replies: Rc<Replies<R>>,
    signals: Arc<Signals>,
    /// Cores that have told us something and weren't attended to since.
    attention: PeerSet,
    attention_next: Cell<usize>,
    /// Cores with requests for us, this core among them; some may have been taken since.
    requests: PeerSet,
    /// Whom to ask next for a request, and how many more of the same.
    request_next: Cell<usize>,
    run_left: Cell<usize>,
    /// Cores to which requests stand in line, or one more would.
    congested: Cell<usize>,
    uncongested: Notify,
    /// The task in `next_request`.
    taker: RefCell<Option<Waker>>,
}

struct Peer<Q, R> {
    core: CoreId,
    calls: Rc<Calls<R>>,
    state: RefCell<PeerState<Q, R>>,
}

struct PeerState<Q, R> {
    requests_out: Sender<Request<Q>>,
    requests_in: Receiver<Request<Q>>,
    replies_in: Receiver<Reply<R>>,
    /// Requests in the ring or at the other core; at most `outstanding`.
    unanswered: usize,
    /// Requests that found no room, in order. No more than callers that wait, and posts of
    /// those who should have heeded `is_congested`.
    waiting: VecDeque<Request<Q>>,
    congested: bool,
    /// The other core has ended, and every reply that it has sent was taken.
    ended: bool,
}

impl<Q: 'static, R: 'static> Port<Q, R> {
    pub(super) fn new(rt: &Rt, seed: PortSeed<Q, R>) -> Port<Q, R> {
        let own_calls = Calls::new();
        let cores = seed.links.len();
        let mut lanes = Vec::with_capacity(cores);
        let mut peers = Vec::with_capacity(cores);
        for (index, link) in seed.links.into_iter().enumerate() {
            let (lane, peer) = match link {
                Some(link) => {
                    let (lane, peer) = Peer::new(CoreId(index as u16), link);
                    (Some(lane), Some(peer))
                }
                None => (None, None),
            };
            lanes.push(lane);
            peers.push(peer);
        }
        let replies = Replies::new(rt.clone(), lanes, own_calls.clone(), seed.signals.clone());
        let inner = Rc::new(Inner {
            rt: rt.clone(),
            outstanding: seed.outstanding,
            peers,
            loop_back: RefCell::new(VecDeque::new()),
            own_calls,
            replies,
            signals: seed.signals,
            attention: PeerSet::new(cores),
            attention_next: Cell::new(0),
            requests: PeerSet::new(cores),
            request_next: Cell::new(0),
            run_left: Cell::new(RUN_MAX),
            congested: Cell::new(0),
            uncongested: Notify::new(),
            taker: RefCell::new(None),
        });
        rt.add_poller(inner.clone());
        Port(inner)
    }

    pub fn core(&self) -> CoreId {
        self.0.rt.core()
    }

    /// Number of cores in the mesh, this one included.
    pub fn cores(&self) -> usize {
        self.0.peers.len()
    }

    /// Asks a core. The request is on its way (or in line) when this returns, in the
    /// order of the calls; the future waits for the reply.
    pub fn call(&self, to: CoreId, question: Q) -> Call<R> {
        let calls = self.0.calls(to);
        let call = calls.add();
        let handle = Call::new(calls.clone(), call);
        self.0.send(to, Request { call, question });
        handle
    }

    /// Tells a core something; nobody waits for the reply, which is thrown away. It stands
    /// in the same order as the calls and needs a place for its reply as they do, so it
    /// may have to stand in line: who posts much heeds [`Port::is_congested`].
    pub fn post(&self, to: CoreId, question: Q) {
        let call = POSTED;
        self.0.send(to, Request { call, question });
    }

    /// Whether requests to some core stand in line, or one more would.
    pub fn is_congested(&self) -> bool {
        self.0.congested.get() > 0
    }

    /// Waits until this port is not congested.
    pub async fn uncongested(&self) {
        while self.is_congested() {
            self.0.uncongested.notified().await;
        }
    }

    pub fn depths(&self) -> impl Iterator<Item = Depths> + '_ {
        self.0.peers.iter().flatten().map(|peer| {
            let state = peer.state.borrow();
            Depths {
                peer: peer.core,
                in_line: state.waiting.len(),
                unanswered: state.unanswered,
                to_take: state.requests_in.len(),
            }
        })
    }

    /// The next request of any core. One task at a time takes requests; cores are asked in
    /// turn.
    pub async fn next_request(&self) -> (CoreId, Q, ReplySlot<R>) {
        poll_fn(|cx| self.0.poll_request(cx)).await
    }

    /// The next request, if there is one now.
    pub fn try_next_request(&self) -> Option<(CoreId, Q, ReplySlot<R>)> {
        self.0.take_request()
    }

    /// Answers a request; never waits.
    pub fn reply(&self, slot: ReplySlot<R>, answer: R) {
        slot.reply(answer);
    }
}

impl<Q, R> Peer<Q, R> {
    fn new(core: CoreId, link: Link<Q, R>) -> (Lane<R>, Peer<Q, R>) {
        let peer = Peer {
            core,
            calls: Calls::new(),
            state: RefCell::new(PeerState {
                requests_out: link.requests_out,
                requests_in: link.requests_in,
                replies_in: link.replies_in,
                unanswered: 0,
                waiting: VecDeque::new(),
                congested: false,
                ended: false,
            }),
        };
        (link.replies_out, peer)
    }
}

impl<Q, R> PeerState<Q, R> {
    /// Sends a request if there is a place for its reply and room in the ring.
    fn try_send(&mut self, request: Request<Q>, outstanding: usize) -> Result<(), Request<Q>> {
        if self.unanswered >= outstanding {
            return Err(request);
        }
        self.requests_out.push(request)?;
        self.unanswered += 1;
        Ok(())
    }
}

/// The caller's side.
impl<Q, R> Inner<Q, R> {
    fn peer(&self, index: usize) -> &Peer<Q, R> {
        self.peers[index]
            .as_ref()
            .expect("every other core is a peer")
    }

    fn calls(&self, to: CoreId) -> &Rc<Calls<R>> {
        if to == self.rt.core() {
            return &self.own_calls;
        }
        &self.peer(to.index()).calls
    }

    fn send(&self, to: CoreId, request: Request<Q>) {
        if to == self.rt.core() {
            self.loop_back.borrow_mut().push_back(request);
            self.requests.insert(to.index());
            self.wake_taker();
            return;
        }
        let peer = self.peer(to.index());
        let mut state = peer.state.borrow_mut();
        if state.ended {
            drop(state);
            peer.calls.answer(request.call, None);
            return;
        }
        let in_line = if state.waiting.is_empty() {
            state.try_send(request, self.outstanding).err()
        } else {
            Some(request)
        };
        let sent = in_line.is_none();
        state.waiting.extend(in_line);
        drop(state);
        if sent {
            self.signals.tell(&self.rt, to);
            self.update_congestion(peer);
        } else {
            self.send_waiting(peer);
        }
    }

    /// Sends what waits for one core, as far as there is room.
    fn send_waiting(&self, peer: &Peer<Q, R>) -> usize {
        let mut sent = 0;
        let mut dropped = Vec::new();
        loop {
            let mut state = peer.state.borrow_mut();
            let Some(first) = state.waiting.pop_front() else {
                break;
            };
            if peer.calls.forget_if_abandoned(first.call) {
                // Dropping a question may run code of anybody: after the borrow.
                dropped.push(first);
                continue;
            }
            let Err(first) = state.try_send(first, self.outstanding) else {
                sent += 1;
                continue;
            };
            state.waiting.push_front(first);
            // A reply that comes, or room that is made, brings us back.
            if state.unanswered >= self.outstanding || state.requests_out.wants_room() {
                break;
            }
        }
        drop(dropped);
        if sent > 0 {
            self.signals.tell(&self.rt, peer.core);
        }
        self.update_congestion(peer);
        sent
    }

    fn give_up(&self, peer: &Peer<Q, R>) {
        let unsent = {
            let mut state = peer.state.borrow_mut();
            state.ended = true;
            state.unanswered = 0;
            std::mem::take(&mut state.waiting)
        };
        drop(unsent);
        peer.calls.give_up();
        self.update_congestion(peer);
    }

    fn update_congestion(&self, peer: &Peer<Q, R>) {
        let congested = {
            let mut state = peer.state.borrow_mut();
            let congested = !state.waiting.is_empty() || state.unanswered >= self.outstanding;
            if state.congested == congested {
                return;
            }
            state.congested = congested;
            congested
        };
        if congested {
            self.congested.set(self.congested.get() + 1);
        } else {
            self.congested.set(self.congested.get() - 1);
            if self.congested.get() == 0 {
                self.uncongested.notify_all();
            }
        }
    }

    fn take_replies(&self, peer: &Peer<Q, R>, max: usize) -> usize {
        for count in 0..max {
            let reply = {
                let mut state = peer.state.borrow_mut();
                let Some(reply) = state.replies_in.pop() else {
                    return count;
                };
                state.unanswered -= 1;
                reply
            };
            peer.calls.answer(reply.call, reply.answer);
        }
        max
    }
}

/// The answering side.
impl<Q, R> Inner<Q, R> {
    fn poll_request(&self, cx: &Context<'_>) -> Poll<(CoreId, Q, ReplySlot<R>)> {
        if let Some(taken) = self.take_request() {
            return Poll::Ready(taken);
        }
        *self.taker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    fn take_request(&self) -> Option<(CoreId, Q, ReplySlot<R>)> {
        if self.requests.is_empty() {
            self.find_requests();
        }
        loop {
            let first = self.request_next.get();
            let index = self.requests.next_from(first)?;
            if index != first {
                self.request_next.set(index);
                self.run_left.set(RUN_MAX);
            }
            let Some(request) = self.take_request_of(index) else {
                self.requests.remove(index);
                self.request_next.set(index + 1);
                self.run_left.set(RUN_MAX);
                continue;
            };
            let run_left = self.run_left.get() - 1;
            self.run_left.set(run_left);
            if run_left == 0 {
                self.request_next.set(index + 1);
                self.run_left.set(RUN_MAX);
            }
            let core = CoreId(index as u16);
            let slot = ReplySlot::new(self.replies.clone(), core, request.call);
            return Some((core, request.question, slot));
        }
    }

    fn take_request_of(&self, index: usize) -> Option<Request<Q>> {
        let Some(peer) = &self.peers[index] else {
            return self.loop_back.borrow_mut().pop_front();
        };
        let (taken, room_wanted) = {
            let mut state = peer.state.borrow_mut();
            let taken = state.requests_in.pop();
            (taken, state.requests_in.take_room_wanted())
        };
        if room_wanted {
            self.signals.tell(&self.rt, peer.core);
        }
        taken
    }

    /// Looks for requests without waiting for the next turn.
    fn find_requests(&self) {
        self.collect();
        let mut from = 0;
        while let Some(index) = self.attention.from(from) {
            if !self.peer(index).state.borrow().requests_in.is_empty() {
                self.requests.insert(index);
            }
            from = index + 1;
        }
    }

    fn wake_taker(&self) -> bool {
        let taker = self.taker.borrow_mut().take();
        match taker {
            Some(waker) => {
                waker.wake();
                true
            }
            None => false,
        }
    }
}

/// The loop's side.
impl<Q, R> Inner<Q, R> {
    fn ready(&self) -> &Ready {
        &self.signals.ready[self.rt.core().index()]
    }

    fn collect(&self) {
        let ready = self.ready();
        for word in 0..ready.words() {
            let bits = ready.take(word);
            if bits != 0 {
                self.attention.insert_word(word, bits);
            }
        }
    }

    /// Looks for all that a core may have told us.
    fn attend(&self, index: usize, replies_max: usize) -> usize {
        let peer = self.peer(index);
        let mut count = self.take_replies(peer, replies_max);
        let (waits, ended) = {
            let state = peer.state.borrow();
            let ended = !state.ended && state.replies_in.has_ended();
            if !state.replies_in.is_empty() {
                self.attention.insert(index);
            }
            if !state.requests_in.is_empty() {
                self.requests.insert(index);
            }
            (!state.waiting.is_empty(), ended)
        };
        if ended {
            self.give_up(peer);
        } else if waits {
            count += self.send_waiting(peer);
        } else if count > 0 {
            self.update_congestion(peer);
        }
        count
    }
}

impl<Q, R> Poller for Inner<Q, R> {
    fn poll(&self) -> usize {
        self.collect();
        let mut count = 0;
        let mut left = TURN_MAX;
        while left > 0 {
            let Some(index) = self.attention.next_from(self.attention_next.get()) else {
                break;
            };
            self.attention.remove(index);
            self.attention_next.set(index + 1);
            let came = self.attend(index, left);
            left -= came.clamp(1, left);
            count += came;
        }
        if !self.requests.is_empty() && self.wake_taker() {
            count += 1;
        }
        count
    }

    fn has_work(&self) -> bool {
        self.ready().any()
            || !self.attention.is_empty()
            || (!self.requests.is_empty() && self.taker.borrow().is_some())
    }

    /// The core ends: its requests are dropped and the others give up on it.
    fn close(&self) {
        self.replies.close();
    }
}
