//! How many connections each data core has, seen by all cores: by it the accepting core
//! places a new connection ([`acceptor`](super::acceptor)).
//!
//! Plain counters, each on cache lines of its own. Two cores that place at the same moment
//! may choose the same third core; the next placements even that out.
//!
//! Invariant: a core's counter is the number of [`Counted`] that name it, wherever they are:
//! one for each open connection, made before it is handed to the core.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::base::CoreId;

/// The counters of all data cores.
#[derive(Debug)]
pub struct Load {
    cores: Box<[CoreLoad]>,
}

/// 128: the prefetcher takes cache lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct CoreLoad {
    connections: AtomicUsize,
    /// Connections that came from another core while they were served.
    moved_here: AtomicU64,
}

/// One open connection in the table; dropped when it ends.
#[derive(Debug)]
pub struct Counted {
    load: Arc<Load>,
    core: CoreId,
}

impl Load {
    pub fn new(cores: u16) -> Arc<Load> {
        Arc::new(Load {
            cores: (0..cores).map(|_| CoreLoad::default()).collect(),
        })
    }

    pub fn connections(&self, core: CoreId) -> usize {
        self.cores[core.index()].connections.load(Ordering::Relaxed)
    }

    /// Connections that have moved to this core since the start.
    pub fn moved_here(&self, core: CoreId) -> u64 {
        self.cores[core.index()].moved_here.load(Ordering::Relaxed)
    }

    /// Counts a new connection at the core that has fewest; `here` wins a tie.
    pub fn place(self: &Arc<Load>, here: CoreId) -> Counted {
        let fewest = (0..self.cores.len())
            .map(|index| CoreId(u16::try_from(index).expect("cores are numbered by 16 bits")))
            .min_by_key(|core| (self.connections(*core), *core != here))
            .expect("a node has a data core");
        self.count(fewest)
    }

    fn count(self: &Arc<Load>, core: CoreId) -> Counted {
        let counter = &self.cores[core.index()].connections;
        counter.fetch_add(1, Ordering::Relaxed);
        Counted {
            load: self.clone(),
            core,
        }
    }
}

impl Counted {
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// The connection goes on at another core.
    pub fn move_to(&mut self, core: CoreId) {
        *self = self.load.count(core);
        let counter = &self.load.cores[core.index()].moved_here;
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let counter = &self.load.cores[self.core.index()].connections;
        let before = counter.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "a connection is counted once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_where_there_are_fewest_and_stay_at_a_tie() {
        let load = Load::new(3);
        let first = load.place(CoreId(1));
        let second = load.place(CoreId(1));
        let mut third = load.place(CoreId(2));
        assert_eq!(
            [first.core(), second.core(), third.core()],
            [CoreId(1), CoreId(0), CoreId(2)]
        );
        third.move_to(CoreId(0));
        let counts = |load: &Load| [0, 1, 2].map(|core| load.connections(CoreId(core)));
        assert_eq!(counts(&load), [2, 1, 0]);
        assert_eq!(load.moved_here(CoreId(0)), 1);
        drop((first, second, third));
        assert_eq!(counts(&load), [0, 0, 0]);
    }
}
