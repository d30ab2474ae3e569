//! The timers of one shard, by name. Filled from [`TimerOp`]s; asked by the runtime (or a
//! test) for the next deadline and for what is due.
//!
//! A heartbeat moves its session's deadline further away some thousand times before the
//! session ever ends. Such a move only overwrites the deadline: the queue keeps the old
//! place, and the timer is put back when that place comes up.

use std::collections::{BTreeMap, HashMap};

use super::effects::{TimerKey, TimerOp};
use crate::base::Nanos;

#[derive(Debug, Default)]
pub struct TimerQueue {
    /// By name; never iterated.
    entries: HashMap<TimerKey, Entry>,
    /// By place. Each entry has exactly one place, at or before its deadline.
    queue: BTreeMap<Place, TimerKey>,
    next_sequence: u64,
}

type Place = (Nanos, u64);

#[derive(Debug)]
struct Entry {
    deadline: Nanos,
    place: Place,
}

impl TimerQueue {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn apply(&mut self, op: TimerOp) {
        match op {
            TimerOp::Set { key, at } => self.set(key, at),
            TimerOp::Cancel { key } => self.cancel(&key),
        }
    }

    pub fn set(&mut self, key: TimerKey, at: Nanos) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.deadline = at;
            if entry.place.0 <= at {
                return;
            }
        }
        self.cancel(&key);
        let place = self.place(at);
        self.queue.insert(place, key.clone());
        self.entries.insert(
            key,
            Entry {
                deadline: at,
                place,
            },
        );
    }

    pub fn cancel(&mut self, key: &TimerKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.queue.remove(&entry.place);
        }
    }

    /// When to look again: never later than the earliest timer.
    pub fn next_look(&self) -> Option<Nanos> {
        self.queue.keys().next().map(|place| place.0)
    }

    /// Takes a timer that is due; the one with the earliest deadline first, as far as moved
    /// deadlines allow.
    pub fn pop_expired(&mut self, now: Nanos) -> Option<TimerKey> {
        loop {
            let (&place, _) = self.queue.first_key_value()?;
            if place.0 > now {
                return None;
            }
            let key = self.queue.remove(&place)?;
            let entry = self
                .entries
                .get_mut(&key)
                .expect("a place in the queue belongs to an entry");
            if entry.deadline <= now {
                self.entries.remove(&key);
                return Some(key);
            }
            let deadline = entry.deadline;
            let place = self.place(deadline);
            self.entries
                .get_mut(&key)
                .expect("it was there a line ago")
                .place = place;
            self.queue.insert(place, key);
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.queue.clear();
    }

    fn place(&mut self, at: Nanos) -> Place {
        self.next_sequence += 1;
        (at, self.next_sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    fn key(number: u64) -> TimerKey {
        TimerKey::Join {
            group: number.to_string().into(),
        }
    }

    #[test]
    fn behaves_as_a_map_of_deadlines() {
        let mut rng = Rng::new(3);
        let mut timers = TimerQueue::new();
        let mut model: BTreeMap<u64, u64> = BTreeMap::new();
        let mut now = 0;
        for _ in 0..20_000 {
            let number = rng.below(40);
            match rng.below(10) {
                0..5 => {
                    let at = now + rng.below(100);
                    timers.set(key(number), Nanos(at));
                    model.insert(number, at);
                }
                5 => {
                    timers.cancel(&key(number));
                    model.remove(&number);
                }
                _ => {
                    now += rng.below(30);
                    let mut due = Vec::new();
                    while let Some(key) = timers.pop_expired(Nanos(now)) {
                        due.push(key);
                    }
                    due.sort();
                    let mut expected: Vec<TimerKey> = model
                        .iter()
                        .filter(|entry| *entry.1 <= now)
                        .map(|entry| key(*entry.0))
                        .collect();
                    expected.sort();
                    model.retain(|_, at| *at > now);
                    assert_eq!(due, expected);
                }
            }
            assert_eq!(timers.len(), model.len());
            assert_eq!(timers.queue.len(), model.len());
            match (timers.next_look(), model.values().min()) {
                (None, None) => {}
                (Some(look), Some(at)) => assert!(look.0 <= *at),
                other => panic!("{other:?}"),
            }
        }
    }
}
