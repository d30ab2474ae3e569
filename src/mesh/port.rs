//! One core's port: sends requests, takes requests, and is drained by the core's loop.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::{Context, Poll, Waker};

use super::calls::{Call, Calls};
use super::replies::{Replies, ReplySlot};
use super::{Bells, Link, PortSeed, Reply, Request, ring};
use crate::base::CoreId;
use crate::io::{Poller, Rt};

/// A core's end of a mesh. Clones are the same port.
pub struct Port<Q, R>(Rc<Inner<Q, R>>);

impl<Q, R> Clone for Port<Q, R> {
    fn clone(&self) -> Self {
        Port(self.0.clone())
    }
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
    bells: Arc<Bells>,
    /// Whom to ask next for a request, so that no core is starved.
    next_peer: Cell<usize>,
    /// The task in `next_request`.
    taker: RefCell<Option<Waker>>,
}

struct Peer<Q, R> {
    core: CoreId,
    calls: Rc<Calls<R>>,
    state: RefCell<PeerState<Q, R>>,
    room_wanted_out: Arc<AtomicBool>,
    room_wanted_in: Arc<AtomicBool>,
}

struct PeerState<Q, R> {
    requests_out: rtrb::Producer<Request<Q>>,
    requests_in: rtrb::Consumer<Request<Q>>,
    replies_in: rtrb::Consumer<Reply<R>>,
    /// Requests in the ring or at the other core; at most `outstanding`.
    unanswered: usize,
    /// Requests that found no room, in order. Their callers wait, so there are no more
    /// than callers.
    waiting: VecDeque<Request<Q>>,
}

impl<Q: 'static, R: 'static> Port<Q, R> {
    pub(super) fn new(rt: &Rt, seed: PortSeed<Q, R>) -> Port<Q, R> {
        let own_calls = Calls::new();
        let mut lanes = Vec::with_capacity(seed.links.len());
        let mut peers = Vec::with_capacity(seed.links.len());
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
        let replies = Replies::new(rt.clone(), lanes, own_calls.clone(), seed.bells.clone());
        let inner = Rc::new(Inner {
            rt: rt.clone(),
            outstanding: seed.outstanding,
            peers,
            loop_back: RefCell::new(VecDeque::new()),
            own_calls,
            replies,
            bells: seed.bells,
            next_peer: Cell::new(0),
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
        let inner = &*self.0;
        if to == self.core() {
            let call = inner.own_calls.add();
            inner
                .loop_back
                .borrow_mut()
                .push_back(Request { call, question });
            inner.wake_taker();
            return Call::new(inner.own_calls.clone(), call);
        }
        let peer = inner.peers[to.index()]
            .as_ref()
            .expect("every other core is a peer");
        let call = peer.calls.add();
        let handle = Call::new(peer.calls.clone(), call);
        let request = Request { call, question };
        peer.state.borrow_mut().waiting.push_back(request);
        inner.send_waiting(peer);
        handle
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
    fn new(core: CoreId, link: Link<Q, R>) -> (rtrb::Producer<Reply<R>>, Peer<Q, R>) {
        let peer = Peer {
            core,
            calls: Calls::new(),
            state: RefCell::new(PeerState {
                requests_out: link.requests_out,
                requests_in: link.requests_in,
                replies_in: link.replies_in,
                unanswered: 0,
                waiting: VecDeque::new(),
            }),
            room_wanted_out: link.room_wanted_out,
            room_wanted_in: link.room_wanted_in,
        };
        (link.replies_out, peer)
    }

    /// The other core has ended, and every reply that it has sent was taken.
    fn has_ended(state: &PeerState<Q, R>) -> bool {
        if !state.replies_in.is_abandoned() {
            return false;
        }
        // Whether it is abandoned is read without an order; its last replies come first.
        fence(Ordering::Acquire);
        state.replies_in.is_empty()
    }
}

impl<Q, R> Inner<Q, R> {
    /// Sends what waits for one core, as far as there is room.
    fn send_waiting(&self, peer: &Peer<Q, R>) -> usize {
        let mut sent = 0;
        let mut dropped = Vec::new();
        loop {
            let mut state = peer.state.borrow_mut();
            let Some(first) = state.waiting.front() else {
                break;
            };
            if peer.calls.forget_if_abandoned(first.call) {
                // Dropping a question may run code of anybody: after the borrow.
                dropped.extend(state.waiting.pop_front());
                continue;
            }
            if Peer::has_ended(&state) || state.unanswered >= self.outstanding {
                break;
            }
            if state.requests_out.is_full() {
                // Pairs with the fence in `take_request`: either we see the room, or the
                // other core sees that we want it.
                peer.room_wanted_out.store(true, Ordering::Relaxed);
                fence(Ordering::SeqCst);
                if state.requests_out.is_full() {
                    break;
                }
            }
            let first = state.waiting.pop_front().expect("just looked");
            let pushed = state.requests_out.push(first);
            assert!(pushed.is_ok(), "the ring has room");
            state.unanswered += 1;
            sent += 1;
        }
        drop(dropped);
        if sent > 0 {
            ring(&self.rt, &self.bells, peer.core);
        }
        self.give_up_if_ended(peer);
        sent
    }

    fn give_up_if_ended(&self, peer: &Peer<Q, R>) {
        let unsent = {
            let mut state = peer.state.borrow_mut();
            if !Peer::has_ended(&state) {
                return;
            }
            state.unanswered = 0;
            std::mem::take(&mut state.waiting)
        };
        drop(unsent);
        peer.calls.give_up();
    }

    fn poll_request(&self, cx: &Context<'_>) -> Poll<(CoreId, Q, ReplySlot<R>)> {
        if let Some(taken) = self.take_request() {
            return Poll::Ready(taken);
        }
        *self.taker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    fn take_request(&self) -> Option<(CoreId, Q, ReplySlot<R>)> {
        let cores = self.peers.len();
        let first = self.next_peer.get();
        for offset in 0..cores {
            let index = (first + offset) % cores;
            let (core, request) = match &self.peers[index] {
                Some(peer) => {
                    let taken = peer.state.borrow_mut().requests_in.pop().ok();
                    if taken.is_some() {
                        fence(Ordering::SeqCst);
                        if peer.room_wanted_in.load(Ordering::Relaxed)
                            && peer.room_wanted_in.swap(false, Ordering::Relaxed)
                        {
                            ring(&self.rt, &self.bells, peer.core);
                        }
                    }
                    (peer.core, taken)
                }
                None => (self.rt.core(), self.loop_back.borrow_mut().pop_front()),
            };
            if let Some(Request { call, question }) = request {
                self.next_peer.set((index + 1) % cores);
                let slot = ReplySlot::new(self.replies.clone(), core, call);
                return Some((core, question, slot));
            }
        }
        None
    }

    fn has_request(&self) -> bool {
        !self.loop_back.borrow().is_empty()
            || self
                .peers
                .iter()
                .flatten()
                .any(|peer| !peer.state.borrow().requests_in.is_empty())
    }

    fn wake_taker(&self) {
        let taker = self.taker.borrow_mut().take();
        if let Some(waker) = taker {
            waker.wake();
        }
    }

    fn take_replies(&self, peer: &Peer<Q, R>) -> usize {
        let mut count = 0;
        loop {
            let reply = {
                let mut state = peer.state.borrow_mut();
                let Ok(reply) = state.replies_in.pop() else {
                    return count;
                };
                state.unanswered -= 1;
                reply
            };
            peer.calls.answer(reply.call, reply.answer);
            count += 1;
        }
    }
}

impl<Q, R> Poller for Inner<Q, R> {
    fn poll(&self) -> usize {
        let mut count = 0;
        for peer in self.peers.iter().flatten() {
            count += self.take_replies(peer);
            let (waits, ended) = {
                let state = peer.state.borrow();
                (!state.waiting.is_empty(), Peer::has_ended(&state))
            };
            if waits {
                count += self.send_waiting(peer);
            }
            if ended {
                self.give_up_if_ended(peer);
            }
        }
        if self.taker.borrow().is_some() && self.has_request() {
            self.wake_taker();
            count += 1;
        }
        count
    }

    fn has_work(&self) -> bool {
        let peers = self.peers.iter().flatten();
        let work_with_peer = |peer: &Peer<Q, R>| {
            let state = peer.state.borrow();
            !state.replies_in.is_empty()
                || (!state.waiting.is_empty()
                    && state.unanswered < self.outstanding
                    && !state.requests_out.is_full())
                || (Peer::has_ended(&state) && peer.calls.has_unanswered())
        };
        peers.into_iter().any(work_with_peer)
            || (self.taker.borrow().is_some() && self.has_request())
    }

    /// The core ends: its requests are dropped and the others give up on it.
    fn close(&self) {
        self.replies.close();
    }
}
