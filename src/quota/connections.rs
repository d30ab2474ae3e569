//! How many connections there may be: Kafka's `ConnectionQuotas` (KIP-308, KIP-402,
//! KIP-612) as a state machine.
//!
//! Owned by one core of the node, fed by `shard::limits`: [`ConnectionQuotas::ask`] for a
//! connection that was accepted, [`ConnectionQuotas::end`] when it ends. What could be
//! decided is taken with [`ConnectionQuotas::next_decided`] after each of them, and when
//! [`ConnectionQuotas::next_at`] has come.
//!
//! ```text
//! asked ─▶ waits for its turn (creation rate) and for a slot (listener, broker)
//!              ├─▶ Admitted: counted until it ends
//!              └─▶ TooManyFromAddress: to be closed; not counted
//! ```
//! The asker accepts nothing more on that listener while it waits, so clients queue in the
//! listener's backlog and are held back rather than turned away. Where brokers came in over
//! the broker's limit, or it was lowered, [`ConnectionQuotas::next_eviction`] says how many
//! others are to make room; which, the owner chooses.
//!
//! Not here yet: the creation rate of an address, which Kafka keeps with the quotas of
//! clients (entity `ips`). It would be one more [`Rate`] for `ask` to look at, by address.
//!
//! Invariants: `total` is the sum of the listeners' counts and of the addresses' counts;
//! no address is kept with a count of 0; `evicting` is at most the number of connections that
//! may be evicted.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use super::rate::Rate;
use crate::base::Nanos;

/// The limits of one set of listeners; the largest i32 means none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    pub max_connections: u32,
    pub max_connections_per_ip: u32,
    pub per_ip_overrides: HashMap<IpAddr, u32>,
    pub max_connection_creation_rate: u32,
    pub listeners: Vec<ListenerLimits>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerLimits {
    pub max_connections: u32,
    pub max_connection_creation_rate: u32,
    /// Brokers come in by it, and clients have others: it is exempt from the broker's
    /// limits, though not from its own (Kafka's `protectedListener`).
    pub is_protected: bool,
}

/// What becomes of a connection that has been accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Serve it, and say when it ends.
    Admitted,
    /// Close it: its address has this many already.
    TooManyFromAddress { max: u32 },
}

/// `W` is how the owner finds the asker again.
pub struct ConnectionQuotas<W> {
    limits: ConnectionLimits,
    total: u32,
    rate: Rate,
    listeners: Vec<ListenerState>,
    addresses: HashMap<IpAddr, u32>,
    /// Connections that were asked to make room and haven't ended.
    evicting: u32,
    /// In the order in which they asked. One for each accepting core and listener at
    /// most, as askers accept nothing while they wait.
    waiting: VecDeque<Waiting<W>>,
}

struct ListenerState {
    count: u32,
    rate: Rate,
}

struct Waiting<W> {
    who: W,
    listener: usize,
    address: IpAddr,
    /// When the creation rate lets it pass.
    turn: Nanos,
}

impl<W> ConnectionQuotas<W> {
    pub fn new(limits: ConnectionLimits) -> ConnectionQuotas<W> {
        ConnectionQuotas {
            total: 0,
            rate: Rate::new(limits.max_connection_creation_rate),
            listeners: limits
                .listeners
                .iter()
                .map(|listener| ListenerState {
                    count: 0,
                    rate: Rate::new(listener.max_connection_creation_rate),
                })
                .collect(),
            addresses: HashMap::new(),
            evicting: 0,
            waiting: VecDeque::new(),
            limits,
        }
    }

    /// Other limits, of the same listeners. Connections that are there stay, but for those
    /// over the broker's limit.
    pub fn configure(&mut self, limits: ConnectionLimits) {
        assert_eq!(limits.listeners.len(), self.listeners.len());
        self.rate.set(limits.max_connection_creation_rate);
        for (state, limit) in self.listeners.iter_mut().zip(&limits.listeners) {
            state.rate.set(limit.max_connection_creation_rate);
        }
        self.limits = limits;
    }

    /// A connection was accepted on the listener with this index.
    pub fn ask(&mut self, who: W, listener: usize, address: IpAddr, now: Nanos) {
        let mut turn = self.listeners[listener].rate.record(now);
        if !self.limits.listeners[listener].is_protected {
            turn = turn.max(self.rate.record(now));
        }
        self.waiting.push_back(Waiting {
            who,
            listener,
            address: address.to_canonical(),
            turn,
        });
    }

    /// A connection that was admitted has ended.
    pub fn end(&mut self, listener: usize, address: IpAddr) {
        let address = address.to_canonical();
        self.total -= 1;
        self.listeners[listener].count -= 1;
        if !self.limits.listeners[listener].is_protected {
            self.evicting = self.evicting.saturating_sub(1);
        }
        let count = self
            .addresses
            .get_mut(&address)
            .expect("an admitted connection's address is counted");
        *count -= 1;
        if *count == 0 {
            self.addresses.remove(&address);
        }
    }

    /// The next one that needs to wait no longer.
    pub fn next_decided(&mut self, now: Nanos) -> Option<(W, Verdict)> {
        let index = self
            .waiting
            .iter()
            .position(|waiting| waiting.turn <= now && self.has_slot(waiting.listener))?;
        let Waiting {
            who,
            listener,
            address,
            ..
        } = self.waiting.remove(index)?;
        let max = self.limits.per_ip_overrides.get(&address);
        let max = *max.unwrap_or(&self.limits.max_connections_per_ip);
        if self.addresses.get(&address).copied().unwrap_or(0) >= max {
            return Some((who, Verdict::TooManyFromAddress { max }));
        }
        *self.addresses.entry(address).or_default() += 1;
        self.listeners[listener].count += 1;
        self.total += 1;
        Some((who, Verdict::Admitted))
    }

    /// Whether one more connection is to make room: the least recently used of listeners
    /// that aren't protected. True once for each.
    pub fn next_eviction(&mut self) -> bool {
        let over = self.total.saturating_sub(self.limits.max_connections);
        let listeners = self.listeners.iter().zip(&self.limits.listeners);
        let open: u32 = listeners
            .filter(|(_, limits)| !limits.is_protected)
            .map(|(state, _)| state.count)
            .sum();
        let evicts = self.evicting < over.min(open);
        self.evicting += u32::from(evicts);
        evicts
    }

    /// None was found that could make room: it may have just ended, or moves.
    pub fn eviction_failed(&mut self) {
        self.evicting = self.evicting.saturating_sub(1);
    }

    /// Those who have no verdict yet: held back by a limit or a rate.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// When the next turn comes that somebody waits for.
    pub fn next_at(&self, now: Nanos) -> Option<Nanos> {
        let turns = self.waiting.iter().map(|waiting| waiting.turn);
        turns.filter(|turn| *turn > now).min()
    }

    fn has_slot(&self, listener: usize) -> bool {
        let limits = &self.limits.listeners[listener];
        self.listeners[listener].count < limits.max_connections
            && (limits.is_protected || self.total < self.limits.max_connections)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NONE: u32 = i32::MAX as u32;
    const NOW: Nanos = Nanos(1_000_000_000);

    fn limits(listeners: usize) -> ConnectionLimits {
        let listener = ListenerLimits {
            max_connections: NONE,
            max_connection_creation_rate: NONE,
            is_protected: false,
        };
        ConnectionLimits {
            max_connections: NONE,
            max_connections_per_ip: NONE,
            per_ip_overrides: HashMap::new(),
            max_connection_creation_rate: NONE,
            listeners: vec![listener; listeners],
        }
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    fn decided(quotas: &mut ConnectionQuotas<u32>, now: Nanos) -> Vec<(u32, bool)> {
        std::iter::from_fn(|| quotas.next_decided(now))
            .map(|(who, verdict)| (who, verdict == Verdict::Admitted))
            .collect()
    }

    #[test]
    fn an_address_has_its_own_limit_and_what_exceeds_it_is_refused() {
        let mut limits = limits(1);
        limits.max_connections_per_ip = 1;
        limits.per_ip_overrides.insert(ip(9), 2);
        let mut quotas = ConnectionQuotas::new(limits);
        for (who, last) in [(0, 1), (1, 1), (2, 9), (3, 9), (4, 9)] {
            quotas.ask(who, 0, ip(last), NOW);
        }
        let expected = [(0, true), (1, false), (2, true), (3, true), (4, false)];
        assert_eq!(decided(&mut quotas, NOW), expected);
        quotas.end(0, ip(1));
        // The same address in its form of IPv6.
        quotas.ask(5, 0, "::ffff:127.0.0.1".parse().unwrap(), NOW);
        quotas.ask(6, 0, ip(1), NOW);
        assert_eq!(decided(&mut quotas, NOW), [(5, true), (6, false)]);
    }

    #[test]
    fn over_the_total_a_connection_waits_until_one_ends() {
        let mut limits = limits(3);
        limits.max_connections = 2;
        limits.listeners[1].max_connections = 1;
        limits.listeners[2].is_protected = true;
        let mut quotas = ConnectionQuotas::new(limits.clone());
        quotas.ask(0, 1, ip(1), NOW);
        quotas.ask(1, 1, ip(1), NOW);
        quotas.ask(2, 0, ip(1), NOW);
        assert_eq!(decided(&mut quotas, NOW), [(0, true), (2, true)]);
        quotas.ask(3, 0, ip(1), NOW);
        quotas.ask(4, 2, ip(1), NOW);
        assert_eq!(decided(&mut quotas, NOW), [(4, true)], "brokers come in");
        assert_eq!(quotas.next_at(NOW), None, "it is not time they wait for");
        quotas.end(0, ip(1));
        assert_eq!(decided(&mut quotas, NOW), [], "the broker's counts too");
        quotas.end(1, ip(1));
        assert_eq!(decided(&mut quotas, NOW), [(1, true)], "first come");
        limits.max_connections = 3;
        quotas.configure(limits);
        assert_eq!(decided(&mut quotas, NOW), [(3, true)]);
    }

    #[test]
    fn where_brokers_come_in_over_the_total_others_make_room() {
        let mut limits = limits(2);
        limits.max_connections = 2;
        limits.listeners[1].is_protected = true;
        let mut quotas = ConnectionQuotas::new(limits.clone());
        for (who, listener) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 1)] {
            quotas.ask(who, listener, ip(1), NOW);
        }
        assert_eq!(decided(&mut quotas, NOW).len(), 5);
        let evictions = |quotas: &mut ConnectionQuotas<u32>| {
            std::iter::repeat_with(|| quotas.next_eviction())
                .take_while(|evicts| *evicts)
                .count()
        };
        assert_eq!(evictions(&mut quotas), 2, "one of three stays over");
        quotas.eviction_failed();
        assert_eq!(evictions(&mut quotas), 1);
        quotas.end(0, ip(1));
        quotas.end(0, ip(1));
        assert_eq!(evictions(&mut quotas), 0);
        quotas.end(1, ip(1));
        quotas.end(1, ip(1));
        quotas.ask(5, 0, ip(1), NOW);
        assert_eq!(decided(&mut quotas, NOW), [(5, true)]);
        assert_eq!(evictions(&mut quotas), 0);
        limits.max_connections = 1;
        quotas.configure(limits);
        assert_eq!(evictions(&mut quotas), 1, "the limit was lowered");
    }

    #[test]
    fn over_the_rate_a_connection_waits_for_its_turn() {
        let mut limits = limits(2);
        limits.max_connection_creation_rate = 1;
        limits.listeners[1].is_protected = true;
        let mut quotas = ConnectionQuotas::new(limits);
        for who in 0..11 {
            quotas.ask(who, 0, ip(1), NOW);
        }
        quotas.ask(11, 1, ip(1), NOW);
        let first = decided(&mut quotas, NOW);
        assert_eq!(first.len(), 11);
        assert_eq!(first.last(), Some(&(11, true)), "brokers don't wait");
        let turn = NOW + Duration::from_secs(1);
        assert_eq!(quotas.next_at(NOW), Some(turn));
        assert_eq!(decided(&mut quotas, turn), [(10, true)]);
    }
}
