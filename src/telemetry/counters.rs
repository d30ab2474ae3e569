//! Numbers that one core counts for itself, without atomics, and that are summed when
//! somebody asks.
//!
//! A component has one struct of these, one instance a core; it names them once, in its
//! `snapshot`:
//!
//! ```
//! # use ottla::telemetry::{Counter, Gauge, Totals};
//! #[derive(Default)]
//! struct ConnectionMetrics {
//!     accepted: Counter,
//!     open: Gauge,
//! }
//!
//! impl ConnectionMetrics {
//!     fn snapshot(&self, totals: &mut Totals) {
//!         totals.add("connections_accepted_total", self.accepted.get());
//!         totals.add("connections_open", self.open.get());
//!     }
//! }
//! ```

use std::cell::Cell;
use std::collections::BTreeMap;

/// Only grows.
#[derive(Debug, Default)]
pub struct Counter(Cell<u64>);

/// Goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(Cell<u64>);

/// Sums over cores, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals(BTreeMap<&'static str, u64>);

impl Counter {
    pub fn increment(&self) {
        self.add(1);
    }

    pub fn add(&self, amount: u64) {
        self.0.set(self.0.get().wrapping_add(amount));
    }

    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

impl Gauge {
    pub fn add(&self, amount: u64) {
        self.0.set(self.0.get() + amount);
    }

    /// Taking off more than was added is a bug in the caller's accounting.
    pub fn subtract(&self, amount: u64) {
        let left = self.0.get().checked_sub(amount);
        self.0
            .set(left.expect("a gauge counts what is there, so it never goes below zero"));
    }

    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

impl Totals {
    pub fn add(&mut self, name: &'static str, amount: u64) {
        *self.0.entry(name).or_default() += amount;
    }

    /// Adds what another core counted.
    pub fn merge(&mut self, other: &Totals) {
        for (name, amount) in &other.0 {
            self.add(name, *amount);
        }
    }

    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(name, amount)| (*name, *amount))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_summed() {
        let (one, two) = (Counter::default(), Counter::default());
        one.increment();
        two.add(2);
        let mut totals = Totals::default();
        totals.add("x", one.get());
        let mut other = Totals::default();
        other.add("x", two.get());
        totals.merge(&other);
        assert_eq!(totals.get("x"), 3);
        assert_eq!(totals.iter().collect::<Vec<_>>(), [("x", 3)]);
    }

    #[test]
    #[should_panic(expected = "never goes below zero")]
    fn a_gauge_below_zero_is_a_bug() {
        Gauge::default().subtract(1);
    }
}
