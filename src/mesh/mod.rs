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
//! wakes a core only if it sleeps. A sender leaves a bit behind ([`ready`]), so the receiver
//! looks at nobody's ring in vain and an idle turn costs the same for any number of cores.
//!
//! Invariants:
//! - A request is sent only while fewer than `outstanding` calls from a to b are
//!   unanswered, and the reply ring has room for all of them, so a reply never waits: full
//!   rings in both directions can't deadlock.
//! - Requests from a to b arrive in the order of the calls; replies come in any order.
//! - All rings of a mesh together take a bounded number of bytes, whatever the number of
//!   cores: see [`mesh_within`].
//! - Every call is answered: by a reply, or by [`Gone`] when its slot was dropped or the
//!   other core has ended.

mod calls;
mod peer_set;
mod port;
mod ready;
mod replies;
mod ring;
mod sync;

use std::sync::{Arc, OnceLock};

pub use calls::{Call, Gone};
pub use port::{Depths, Port};
pub use replies::ReplySlot;

use crate::base::CoreId;
use crate::io::{Bell, Inbox, Rt};
use ready::Ready;
use replies::Lane;
use ring::{Receiver, Sender};

/// One core's end of a mesh, before it is attached to its core.
pub struct PortSeed<Q, R> {
    core: CoreId,
    outstanding: usize,
    /// By core; none at the own index.
    links: Vec<Option<Link<Q, R>>>,
    signals: Arc<Signals>,
}

/// Both directions between a core and one other.
struct Link<Q, R> {
    requests_out: Sender<Request<Q>>,
    requests_in: Receiver<Request<Q>>,
    replies_out: Lane<R>,
    replies_in: Receiver<Reply<R>>,
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

/// How the cores of a mesh tell each other that there is something; each by core.
struct Signals {
    ready: Vec<Ready>,
    /// How to wake the core; empty until it has attached its port.
    bells: Vec<OnceLock<Arc<Bell>>>,
}

impl Inbox for Signals {
    fn has_work(&self, core: CoreId) -> bool {
        self.ready[core.index()].any()
    }
}

/// A reply ring is longer than its request ring by this factor, because requests that were
/// taken and aren't answered yet hold their place in it.
const OUTSTANDING_PER_CAPACITY: usize = 4;

/// Requests that a ring holds when memory is no matter, and when there are so many cores
/// that it is.
const CAPACITY_MAX: usize = 1024;
const CAPACITY_MIN: usize = 8;

/// Connects `cores` cores: the seed at index n is that of core n. Each ordered pair gets
/// a ring of `capacity` requests, and may have four times as many calls unanswered; more
/// calls wait at the caller.
pub fn mesh<Q: Send, R: Send>(cores: usize, capacity: usize) -> Vec<PortSeed<Q, R>> {
    let outstanding = capacity * OUTSTANDING_PER_CAPACITY;
    let signals = Arc::new(Signals {
        ready: (0..cores).map(|_| Ready::new(cores)).collect(),
        bells: (0..cores).map(|_| OnceLock::new()).collect(),
    });
    let mut seeds: Vec<PortSeed<Q, R>> = (0..cores)
        .map(|core| PortSeed {
            core: CoreId(u16::try_from(core).expect("cores are numbered by 16 bits")),
            outstanding,
            links: (0..cores).map(|_| None).collect(),
            signals: signals.clone(),
        })
        .collect();
    for a in 0..cores {
        for b in a + 1..cores {
            let between = (seeds[a].core, seeds[b].core);
            let (at_a, at_b) = link(between, capacity, outstanding, &signals);
            seeds[a].links[b] = Some(at_a);
            seeds[b].links[a] = Some(at_b);
        }
    }
    seeds
}

/// As [`mesh`], with rings as long as fit in `bytes` together, from 8 to 1,024 requests.
/// Only where not even 8 fit do they take more.
pub fn mesh_within<Q: Send, R: Send>(cores: usize, bytes: usize) -> Vec<PortSeed<Q, R>> {
    mesh(cores, capacity_within::<Q, R>(cores, bytes))
}

/// Requests in each ring of a mesh that is to take at most `bytes`.
pub fn capacity_within<Q, R>(cores: usize, bytes: usize) -> usize {
    let pairs = (cores * cores.saturating_sub(1)).max(1);
    let fixed = ring::fixed_bytes::<Request<Q>>() + ring::fixed_bytes::<Reply<R>>();
    let each = size_of::<Request<Q>>() + OUTSTANDING_PER_CAPACITY * size_of::<Reply<R>>();
    let capacity = (bytes / pairs).saturating_sub(fixed) / each;
    capacity.clamp(CAPACITY_MIN, CAPACITY_MAX)
}

impl<Q: 'static, R: 'static> PortSeed<Q, R> {
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// Makes the port; to be called on its core's thread, once per core.
    pub fn attach(self, rt: &Rt) -> Port<Q, R> {
        assert_eq!(self.core, rt.core(), "a port belongs to its core");
        let fresh = self.signals.bells[self.core.index()].set(rt.bell().clone());
        assert!(fresh.is_ok(), "a port is attached once");
        let signals: Arc<dyn Inbox> = self.signals.clone();
        rt.bell().show_inbox(Arc::downgrade(&signals), self.core);
        Port::new(rt, self)
    }
}

fn link<Q, R>(
    (a, b): (CoreId, CoreId),
    capacity: usize,
    outstanding: usize,
    signals: &Arc<Signals>,
) -> (Link<Q, R>, Link<Q, R>) {
    let (requests_ab, requests_at_b) = ring::ring(capacity);
    let (requests_ba, requests_at_a) = ring::ring(capacity);
    let (replies_ab, replies_at_b) = ring::ring(outstanding);
    let (replies_ba, replies_at_a) = ring::ring(outstanding);
    let lane = |sender, from, to| Lane {
        sender,
        from,
        to,
        signals: signals.clone(),
    };
    let at_a = Link {
        requests_out: requests_ab,
        requests_in: requests_at_a,
        replies_out: lane(replies_ab, a, b),
        replies_in: replies_at_a,
    };
    let at_b = Link {
        requests_out: requests_ba,
        requests_in: requests_at_b,
        replies_out: lane(replies_ba, b, a),
        replies_in: replies_at_b,
    };
    (at_a, at_b)
}

impl Signals {
    /// Tells a core that something was pushed for it (or room was made, or we end).
    fn tell(&self, rt: &Rt, to: CoreId) {
        if self.ready[to.index()].set(rt.core().index()) {
            self.ring(rt, to);
        }
    }

    /// Wakes a core if it has attached and sleeps. When it hasn't attached yet, it looks
    /// at its bits on its first turn after it has.
    fn ring(&self, rt: &Rt, core: CoreId) {
        // The fence in `ring_bell` must come before the look at the bell for the same
        // reason as it comes before the look at whether the core sleeps.
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        if let Some(bell) = self.bells[core.index()].get() {
            rt.ring_bell(bell);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_shorter_the_more_cores_there_are() {
        type Message = [u64; 8];
        const BYTES: usize = 256 << 20;
        let mut last = usize::MAX;
        for cores in [1, 2, 16, 64, 128, 257] {
            let capacity = capacity_within::<Message, Message>(cores, BYTES);
            assert!((CAPACITY_MIN..=last).contains(&capacity), "{cores}");
            last = capacity;
            let ring_bytes = |capacity, message| capacity * message + 256;
            let pair = ring_bytes(capacity, size_of::<Request<Message>>())
                + ring_bytes(4 * capacity, size_of::<Reply<Message>>());
            assert!(cores * (cores - 1) * pair <= BYTES, "{cores}");
        }
        assert_eq!(capacity_within::<Message, Message>(2, BYTES), CAPACITY_MAX);
    }
}
