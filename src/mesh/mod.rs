//! Layer 3: calls between the cores of one process, without locks.
//!
//! ```text
//!            requests (bounded ring)
//! core a  ───────────────────────────▶  core b      one pair of rings for each
//!         ◀───────────────────────────              ordered pair of cores
//!            replies (as long as the number of calls that a may have with b)
//! ```
//! Called by `shard` (produce and fetch parts for partitions owned elsewhere, metadata
//! updates) and by `node` for the controller's core. A [`PortSeed`] is made for each core
//! and becomes a [`Port`] on its thread; the core's loop drains it each turn and a sender
//! wakes a core only if it sleeps.
//!
//! Invariants:
//! - A request is sent only while fewer than `outstanding` calls from a to b are
//!   unanswered, and the reply ring has room for all of them, so a reply never waits: full
//!   rings in both directions can't deadlock.
//! - Requests from a to b arrive in the order of the calls; replies come in any order.
//! - Every call is answered: by a reply, or by [`Gone`] when its slot was dropped or the
//!   other core has ended.

mod calls;
mod port;
mod replies;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

pub use calls::{Call, Gone};
pub use port::Port;
pub use replies::ReplySlot;

use crate::base::CoreId;
use crate::io::{Bell, Rt};

/// One core's end of a mesh, before it is attached to its core.
pub struct PortSeed<Q, R> {
    core: CoreId,
    outstanding: usize,
    /// By core; none at the own index.
    links: Vec<Option<Link<Q, R>>>,
    bells: Arc<Bells>,
}

/// Both directions between a core and one other.
struct Link<Q, R> {
    requests_out: rtrb::Producer<Request<Q>>,
    requests_in: rtrb::Consumer<Request<Q>>,
    replies_out: rtrb::Producer<Reply<R>>,
    replies_in: rtrb::Consumer<Reply<R>>,
    /// Set by us when our request ring is full: the other core is to ring when it has
    /// taken something.
    room_wanted_out: Arc<AtomicBool>,
    /// The same flag of the other direction.
    room_wanted_in: Arc<AtomicBool>,
}

struct Request<Q> {
    /// Where the caller waits for the reply.
    call: u32,
    question: Q,
}

struct Reply<R> {
    call: u32,
    /// None when the request was dropped unanswered.
    answer: Option<R>,
}

/// How to wake each core; empty until the core has attached its port.
type Bells = Vec<OnceLock<Arc<Bell>>>;

/// A reply ring is longer than its request ring by this factor, because requests that
/// wait at the other core (in its purgatory) hold their place in it.
const OUTSTANDING_PER_CAPACITY: usize = 4;

/// Connects `cores` cores: the seed at index n is that of core n. Each ordered pair gets
/// a ring of `capacity` requests, and may have four times as many calls unanswered; more
/// calls wait at the caller.
pub fn mesh<Q: Send, R: Send>(cores: usize, capacity: usize) -> Vec<PortSeed<Q, R>> {
    assert!(capacity > 0, "a ring without room passes nothing on");
    let outstanding = capacity * OUTSTANDING_PER_CAPACITY;
    let bells: Arc<Bells> = Arc::new((0..cores).map(|_| OnceLock::new()).collect());
    let mut seeds: Vec<PortSeed<Q, R>> = (0..cores)
        .map(|core| PortSeed {
            core: CoreId(u16::try_from(core).expect("cores are numbered by 16 bits")),
            outstanding,
            links: (0..cores).map(|_| None).collect(),
            bells: bells.clone(),
        })
        .collect();
    for a in 0..cores {
        for b in a + 1..cores {
            let (at_a, at_b) = link(capacity, outstanding);
            seeds[a].links[b] = Some(at_a);
            seeds[b].links[a] = Some(at_b);
        }
    }
    seeds
}

impl<Q: 'static, R: 'static> PortSeed<Q, R> {
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// Makes the port; to be called on its core's thread, once per core.
    pub fn attach(self, rt: &Rt) -> Port<Q, R> {
        assert_eq!(self.core, rt.core(), "a port belongs to its core");
        let fresh = self.bells[self.core.index()].set(rt.bell().clone());
        assert!(fresh.is_ok(), "a port is attached once");
        Port::new(rt, self)
    }
}

fn link<Q, R>(capacity: usize, outstanding: usize) -> (Link<Q, R>, Link<Q, R>) {
    let (requests_ab, requests_at_b) = rtrb::RingBuffer::new(capacity);
    let (requests_ba, requests_at_a) = rtrb::RingBuffer::new(capacity);
    let (replies_ab, replies_at_b) = rtrb::RingBuffer::new(outstanding);
    let (replies_ba, replies_at_a) = rtrb::RingBuffer::new(outstanding);
    let wanted_ab = Arc::new(AtomicBool::new(false));
    let wanted_ba = Arc::new(AtomicBool::new(false));
    let at_a = Link {
        requests_out: requests_ab,
        requests_in: requests_at_a,
        replies_out: replies_ab,
        replies_in: replies_at_a,
        room_wanted_out: wanted_ab.clone(),
        room_wanted_in: wanted_ba.clone(),
    };
    let at_b = Link {
        requests_out: requests_ba,
        requests_in: requests_at_b,
        replies_out: replies_ba,
        replies_in: replies_at_b,
        room_wanted_out: wanted_ba,
        room_wanted_in: wanted_ab,
    };
    (at_a, at_b)
}

/// Wakes a core if it has attached and sleeps. When it hasn't attached yet, it drains its
/// rings on its first turn after it has.
fn ring(rt: &Rt, bells: &Bells, core: CoreId) {
    // The fence in `ring_bell` must come before the look at the bell for the same reason
    // as it comes before the look at whether the core sleeps.
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    if let Some(bell) = bells[core.index()].get() {
        rt.ring_bell(bell);
    }
}
