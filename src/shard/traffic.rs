//! Where a connection's records come from and go to, and so which core should serve it.
//!
//! The handlers of Produce and Fetch count bytes by the core that owns the partition;
//! `shard::connection` asks now and then whether another core has most of them.
//!
//! Invariant: the window doubles with each move, so that a connection whose traffic goes to
//! and fro moves rarely.

use std::cell::{Cell, RefCell};

use crate::base::CoreId;

/// A decision comes after so many requests, or so many bytes.
const WINDOW_REQUESTS: u64 = 64;
const WINDOW_BYTES: u64 = 1 << 20;
/// A core attracts the connection by more than this share of the bytes.
const SHARE_PERCENT_MIN: u64 = 60;
/// The window doubles at most so often.
const DOUBLINGS_MAX: u32 = 16;

/// The record bytes of one connection in the current window.
#[derive(Debug, Default)]
pub struct Traffic {
    /// By core; empty until there are any.
    bytes: RefCell<Vec<u64>>,
    total: Cell<u64>,
    requests: Cell<u64>,
    moves: u32,
}

impl Traffic {
    /// The traffic of a connection that has moved so often.
    pub fn after_moves(moves: u32) -> Traffic {
        Traffic {
            moves,
            ..Traffic::default()
        }
    }

    pub fn moves(&self) -> u32 {
        self.moves
    }

    /// A request was answered.
    pub fn count_request(&self) {
        self.requests.set(self.requests.get() + 1);
    }

    /// A request wrote or read so many bytes of records on a core.
    pub fn count_bytes(&self, core: CoreId, bytes: usize) {
        let mut by_core = self.bytes.borrow_mut();
        if by_core.len() <= core.index() {
            by_core.resize(core.index() + 1, 0);
        }
        by_core[core.index()] += bytes as u64;
        self.total.set(self.total.get() + bytes as u64);
    }

    /// At the end of a window, the core other than `here` that has clearly most of the
    /// bytes; then the next window begins.
    pub fn decide_move(&self, here: CoreId) -> Option<CoreId> {
        let doublings = self.moves.min(DOUBLINGS_MAX);
        let total = self.total.get();
        if self.requests.get() < WINDOW_REQUESTS << doublings && total < WINDOW_BYTES << doublings {
            return None;
        }
        self.total.set(0);
        self.requests.set(0);
        let mut by_core = self.bytes.borrow_mut();
        let most = by_core
            .iter()
            .position(|bytes| bytes * 100 > total * SHARE_PERCENT_MIN);
        by_core.fill(0);
        let most = CoreId(u16::try_from(most?).expect("it was indexed by a core"));
        (most != here).then_some(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: CoreId = CoreId(1);

    fn request(traffic: &Traffic, core: CoreId, bytes: usize) -> Option<CoreId> {
        traffic.count_bytes(core, bytes);
        traffic.count_request();
        traffic.decide_move(HERE)
    }

    #[test]
    fn another_core_attracts_a_connection_by_most_of_its_bytes() {
        let traffic = Traffic::default();
        for _ in 0..63 {
            assert_eq!(request(&traffic, CoreId(2), 61), None, "too early");
        }
        let others = request(&traffic, CoreId(0), 61 * 38);
        assert_eq!(others, Some(CoreId(2)));
        assert_eq!(traffic.decide_move(HERE), None, "a new window");
        assert_eq!(request(&traffic, CoreId(2), 600 << 10), None);
        let split = request(&traffic, CoreId(0), 424 << 10);
        assert_eq!(split, None, "not clearly most");
        assert_eq!(request(&traffic, HERE, 1 << 20), None, "it is there");
        for _ in 0..200 {
            traffic.count_request();
            assert_eq!(traffic.decide_move(HERE), None, "no records");
        }
    }

    #[test]
    fn each_move_doubles_the_window() {
        let traffic = Traffic::after_moves(3);
        for _ in 0..64 * 8 - 1 {
            assert_eq!(request(&traffic, CoreId(2), 1), None);
        }
        assert_eq!(request(&traffic, CoreId(2), 1), Some(CoreId(2)));
    }
}
