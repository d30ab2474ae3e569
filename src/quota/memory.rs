//! The memory of requests, `queued.max.request.bytes`: bytes that have been received and
//! whose request is not yet answered, over all cores of a node.
//!
//! ```text
//! RequestMemory (atomic: what no core has leased)
//!    ▲ give back      │ lease a chunk
//! CoreMemory (one a core, plain numbers): charged as bytes arrive, released when the
//!                                         reply has been sent
//! ```
//! Called by `shard::limits`. A connection asks for room before each receive
//! ([`CoreMemory::poll_room`]); one that has to wait is woken when memory comes back, on
//! this core or, through the pool's bits, on another.
//!
//! Invariants:
//! - Bytes charged on all cores exceed the pool by no more than what each core lets pass:
//!   [`RESERVE_BYTES`] of small requests, one request of the connection that has waited
//!   longest, and a receive for each connection that was reading when it ran out.
//! - So there is always somebody whose request can become whole: parts of requests can't
//!   block each other for ever.
//! - A core leases no more than a chunk beyond what is charged there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::Waker;

/// Requests up to this size may use the reserve.
pub const SMALL_BYTES: usize = 64 * 1024;
/// What small requests of one core may use when the pool is empty.
pub const RESERVE_BYTES: i64 = 4 * 1024 * 1024;
/// Most that is leased at a time; less where the pool is small for the number of cores.
const CHUNK_BYTES_MAX: i64 = 1024 * 1024;
/// Cores that a pool can serve.
const CORES_MAX: usize = 256;
const WORDS: usize = CORES_MAX / 64;

/// Cores that wait for memory, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanting([u64; WORDS]);

impl Wanting {
    pub fn cores(self) -> impl Iterator<Item = u16> {
        (0..CORES_MAX as u16).filter(move |core| {
            let core = usize::from(*core);
            self.0[core / 64] & (1 << (core % 64)) != 0
        })
    }

    pub fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }
}

/// What all cores of a node share.
#[derive(Debug)]
pub struct RequestMemory {
    /// Not leased to any core; never negative.
    free: AtomicI64,
    chunk: i64,
    limit_bytes: u64,
    wanting: [AtomicU64; WORDS],
}

impl RequestMemory {
    pub fn new(limit_bytes: u64, cores: usize) -> RequestMemory {
        assert!(cores <= CORES_MAX, "the config bounds the cores");
        let bytes = i64::try_from(limit_bytes).unwrap_or(i64::MAX);
        let share = bytes / (4 * i64::try_from(cores.max(1)).unwrap_or(1));
        RequestMemory {
            free: AtomicI64::new(bytes),
            chunk: share.clamp(1, CHUNK_BYTES_MAX),
            limit_bytes,
            wanting: Default::default(),
        }
    }

    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// What no core has leased.
    pub fn free_bytes(&self) -> u64 {
        u64::try_from(self.free.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Takes up to `bytes`; 0 when there are none.
    fn take(&self, bytes: i64) -> i64 {
        let taken = self
            .free
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |free| {
                (free > 0).then(|| free - free.min(bytes))
            });
        taken.map_or(0, |free| free.min(bytes))
    }

    /// Takes up to `bytes`; when there are none, `core` is told of those that come back.
    fn take_or_want(&self, bytes: i64, core: usize) -> i64 {
        let taken = self.take(bytes);
        if taken > 0 {
            return taken;
        }
        // Either who gives back sees the bit, or we see what was given.
        self.wanting[core / 64].fetch_or(1 << (core % 64), Ordering::SeqCst);
        self.take(bytes)
    }

    fn is_wanted(&self) -> bool {
        self.wanting
            .iter()
            .any(|word| word.load(Ordering::SeqCst) != 0)
    }

    /// Returns the cores that are to be told.
    fn give(&self, bytes: i64) -> Wanting {
        self.free.fetch_add(bytes, Ordering::SeqCst);
        let mut wanting = Wanting::default();
        if self.is_wanted() {
            for (word, wanted) in wanting.0.iter_mut().zip(&self.wanting) {
                *word = wanted.swap(0, Ordering::SeqCst);
            }
        }
        wanting
    }
}

/// A connection's place in the line of those that wait for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// One core's part.
pub struct CoreMemory {
    /// None: no bound.
    pool: Option<Arc<RequestMemory>>,
    core: usize,
    /// Leased and not charged; negative by what was let pass beyond the pool.
    free: i64,
    /// Charged for small requests. Counted apart, so that large ones can't use up the
    /// reserve.
    small: i64,
    /// Those that wait, from the oldest. The oldest waits no longer: it may read until
    /// its request is whole.
    waiting: BTreeMap<Ticket, Option<Waker>>,
    next: u64,
}

impl CoreMemory {
    pub fn new(pool: Option<Arc<RequestMemory>>, core: usize) -> CoreMemory {
        CoreMemory {
            pool,
            core,
            free: 0,
            small: 0,
            waiting: BTreeMap::new(),
            next: 0,
        }
    }

    /// Whether a connection may receive more of a request of `request_bytes` (0 before its
    /// size is known). When not, it has a ticket and `waker` is woken when it may be.
    pub fn poll_room(
        &mut self,
        ticket: &mut Option<Ticket>,
        request_bytes: usize,
        waker: &Waker,
    ) -> bool {
        let may_reserve = is_small(request_bytes) && self.small < RESERVE_BYTES;
        if may_reserve || self.has_free() {
            self.leave(ticket);
            return true;
        }
        let place = *ticket.get_or_insert_with(|| {
            self.next += 1;
            Ticket(self.next)
        });
        let is_oldest = self
            .waiting
            .keys()
            .next()
            .is_none_or(|oldest| *oldest >= place);
        let waker = (!is_oldest).then(|| waker.clone());
        self.waiting.insert(place, waker);
        is_oldest
    }

    /// Gives a place in the line back: the request is whole, or its connection has ended.
    pub fn leave(&mut self, ticket: &mut Option<Ticket>) {
        let Some(place) = ticket.take() else { return };
        if self.waiting.remove(&place).is_some() {
            self.wake_next();
        }
    }

    /// Bytes have arrived, so many of them of small requests.
    pub fn charge(&mut self, bytes: usize, small: usize) {
        if self.pool.is_some() {
            self.free -= signed(bytes);
            self.small += signed(small);
        }
    }

    /// Their request has been answered, or its connection has ended. Returns the other
    /// cores that are to be told.
    pub fn release(&mut self, bytes: usize, small: usize) -> Wanting {
        let Some(pool) = self.pool.clone() else {
            return Wanting::default();
        };
        self.free += signed(bytes);
        self.small -= signed(small);
        let goes_on = self.free > 0 || (small > 0 && self.small < RESERVE_BYTES);
        if goes_on && !self.waiting.is_empty() {
            self.wake_next();
            return Wanting::default();
        }
        let keep = if pool.is_wanted() { 0 } else { pool.chunk };
        let surplus = self.free - keep;
        if surplus <= 0 {
            return Wanting::default();
        }
        self.free = keep;
        pool.give(surplus)
    }

    /// Memory may have come back to the pool: who waits may look again.
    pub fn wake_next(&mut self) {
        let next = self.waiting.values_mut().find_map(Option::take);
        if let Some(waker) = next {
            waker.wake();
        }
    }

    fn has_free(&mut self) -> bool {
        let Some(pool) = &self.pool else { return true };
        while self.free <= 0 {
            let taken = pool.take_or_want(pool.chunk - self.free, self.core);
            if taken == 0 {
                return false;
            }
            self.free += taken;
        }
        true
    }
}

/// Whether a request may use the reserve; before its size is known, it may.
pub fn is_small(request_bytes: usize) -> bool {
    request_bytes <= SMALL_BYTES
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).expect("memory has fewer than 2^63 bytes")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    const MIB: usize = 1024 * 1024;
    const BIG: usize = 100 * MIB;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn waker() -> (Arc<Woken>, Waker) {
        let woken = Arc::new(Woken::default());
        (woken.clone(), Waker::from(woken))
    }

    fn count(woken: &Woken) -> usize {
        woken.0.load(Ordering::Relaxed)
    }

    fn empty_pool() -> CoreMemory {
        let mut core = CoreMemory::new(Some(Arc::new(RequestMemory::new(64 << 20, 1))), 0);
        assert!(core.poll_room(&mut None, BIG, Waker::noop()));
        core.charge(64 * MIB, 0);
        core
    }

    #[test]
    fn without_a_bound_nobody_waits() {
        let mut core = CoreMemory::new(None, 0);
        core.charge(1 << 40, 0);
        assert!(core.poll_room(&mut None, BIG, Waker::noop()));
        assert!(core.release(1 << 40, 0).is_empty());
    }

    #[test]
    fn of_those_that_wait_the_oldest_goes_on_and_then_the_next() {
        let mut core = empty_pool();
        let (woken, second) = waker();
        let mut tickets = [None, None];
        assert!(core.poll_room(&mut tickets[0], BIG, Waker::noop()));
        assert!(!core.poll_room(&mut tickets[1], BIG, &second));
        core.charge(MIB, 0);
        assert!(core.poll_room(&mut tickets[0], BIG, Waker::noop()), "again");
        assert_eq!(count(&woken), 0);
        core.leave(&mut tickets[0]);
        assert_eq!(count(&woken), 1);
        assert!(core.poll_room(&mut tickets[1], BIG, &second));
    }

    #[test]
    fn what_is_released_lets_all_go_on() {
        let mut core = empty_pool();
        let (woken, waker) = waker();
        let mut tickets = [None; 3];
        for (index, ticket) in tickets.iter_mut().enumerate() {
            assert_eq!(core.poll_room(ticket, BIG, &waker), index == 0);
        }
        core.release(2 * MIB, 0);
        assert_eq!(count(&woken), 1);
        assert!(core.poll_room(&mut tickets[1], BIG, &waker));
        assert_eq!(tickets[1], None);
        assert_eq!(count(&woken), 2, "it passes the word on");
        assert!(core.poll_room(&mut tickets[2], BIG, &waker));
    }

    #[test]
    fn small_requests_have_a_reserve() {
        let mut core = empty_pool();
        let mut first = None;
        assert!(core.poll_room(&mut first, BIG, Waker::noop()));
        for _ in 0..RESERVE_BYTES as usize / SMALL_BYTES {
            assert!(core.poll_room(&mut None, SMALL_BYTES, Waker::noop()));
            core.charge(SMALL_BYTES, SMALL_BYTES);
        }
        let (woken, waker) = waker();
        let mut waits = None;
        assert!(!core.poll_room(&mut waits, SMALL_BYTES, &waker));
        core.release(SMALL_BYTES, SMALL_BYTES);
        assert_eq!(count(&woken), 1);
        assert!(core.poll_room(&mut waits, SMALL_BYTES, &waker));
    }

    #[test]
    fn what_one_core_gives_back_is_told_to_those_that_want_it() {
        let pool = Arc::new(RequestMemory::new(64 << 20, 2));
        let mut cores: Vec<_> = (0..2)
            .map(|core| CoreMemory::new(Some(pool.clone()), core))
            .collect();
        assert!(cores[0].poll_room(&mut None, BIG, Waker::noop()));
        cores[0].charge(64 * MIB, 0);
        // It leases what it was charged, which is all; then it waits for none.
        let mut ticket = None;
        cores[0].poll_room(&mut ticket, BIG, Waker::noop());
        cores[0].leave(&mut ticket);
        let (woken, waker) = waker();
        let mut tickets = [None, None];
        assert!(cores[1].poll_room(&mut tickets[0], BIG, &waker), "oldest");
        assert!(!cores[1].poll_room(&mut tickets[1], BIG, &waker));
        let told: Vec<u16> = cores[0].release(64 * MIB, 0).cores().collect();
        assert_eq!(told, [0, 1], "it wanted some itself");
        cores[1].wake_next();
        assert_eq!(count(&woken), 1);
        assert!(cores[1].poll_room(&mut tickets[1], BIG, &waker));
        assert!(cores[0].release(0, 0).is_empty(), "told once");
    }

    #[test]
    fn all_of_it_comes_back() {
        let pool = Arc::new(RequestMemory::new(64 << 20, 4));
        std::thread::scope(|scope| {
            for core in 0..4 {
                let pool = pool.clone();
                scope.spawn(move || {
                    let mut memory = CoreMemory::new(Some(pool.clone()), core);
                    for round in 0..10_000_usize {
                        let bytes = (round * 7919) % (3 * MIB);
                        if memory.poll_room(&mut None, BIG, Waker::noop()) {
                            memory.charge(bytes, 0);
                            memory.release(bytes, 0);
                        }
                    }
                    let left = std::mem::take(&mut memory.free);
                    pool.give(left);
                });
            }
        });
        assert_eq!(pool.free.load(Ordering::SeqCst), 64 << 20);
    }
}
