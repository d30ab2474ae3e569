//! A hierarchical timing wheel: many deadlines, each inserted, cancelled and expired in
//! constant time, at a resolution of 1 ms.
//!
//! Pure: the caller passes the time in. Each core's `io::Rt` keeps one for sleeps; the
//! purgatory and the coordinators keep their own and ask the runtime for one wake-up at
//! [`Wheel::next_deadline`].
//!
//! ```text
//! level 0   64 slots of 1 ms      the 64 ms block that `elapsed` is in
//! level 1   64 slots of 64 ms     the 4 s block around it
//! level n   64 slots of 64^n ms   an entry moves down as its block is entered
//! ```
//! Invariants:
//! - A timer never fires early: its deadline is rounded up to a tick, and a tick is over
//!   when `now` has reached it.
//! - An entry of level n agrees with `elapsed` in all digits (base 64) above n and is
//!   greater in digit n. So the first slot in use of the lowest level in use is due next.
//! - Timers of one tick expire in an order that depends only on the calls made.
//! - No allocation while no more timers are pending than were before.

use std::time::Duration;

use crate::base::Nanos;

/// Names one pending timer; stale once it has expired or was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId {
    index: u32,
    generation: u32,
}

/// Resolution of the wheel.
pub const TICK: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub struct Wheel<T> {
    /// The last tick that is over: every pending timer outside `due` is later.
    elapsed: u64,
    levels: Box<[Level; LEVELS]>,
    /// Timers whose tick is over, in the order in which they are handed out.
    due: List,
    entries: Vec<Entry<T>>,
    /// Head of the list of free entries, linked by `next`.
    free: u32,
    len: usize,
}

impl<T> Wheel<T> {
    /// A wheel that has run up to `now`.
    pub fn new(now: Nanos) -> Self {
        Wheel {
            elapsed: ticks_over(now),
            levels: Box::new([const { Level::EMPTY }; LEVELS]),
            due: List::EMPTY,
            entries: Vec::new(),
            free: NIL,
            len: 0,
        }
    }

    /// Number of pending timers.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a timer. One whose deadline is past is handed out by the next
    /// [`pop_expired`](Self::pop_expired).
    pub fn insert(&mut self, deadline: Nanos, value: T) -> TimerId {
        let index = self.take_entry(ticks_until(deadline), value);
        self.place(index);
        self.len += 1;
        TimerId {
            index,
            generation: self.entries[index as usize].generation,
        }
    }

    /// Removes a timer and returns its value; `None` when it is pending no longer.
    pub fn cancel(&mut self, id: TimerId) -> Option<T> {
        self.get_mut(id)?;
        self.unlink(id.index);
        Some(self.release(id.index))
    }

    /// The value of a pending timer.
    pub fn get_mut(&mut self, id: TimerId) -> Option<&mut T> {
        let entry = self.entries.get_mut(id.index as usize)?;
        if entry.generation == id.generation {
            entry.value.as_mut()
        } else {
            None
        }
    }

    /// Takes one timer that is due at `now`; to be called until it returns `None`. `now`
    /// that goes backwards is taken as no progress.
    pub fn pop_expired(&mut self, now: Nanos) -> Option<T> {
        let now = ticks_over(now);
        loop {
            if self.due.head != NIL {
                let index = self.due.head;
                self.unlink(index);
                return Some(self.release(index));
            }
            match self.next_slot() {
                Some((level, slot, start)) if start <= now => {
                    self.elapsed = start;
                    self.cascade(level, slot);
                }
                _ => {
                    self.elapsed = self.elapsed.max(now);
                    return None;
                }
            }
        }
    }

    /// When to call [`pop_expired`](Self::pop_expired) again: never later than the
    /// earliest timer (rounded up to a tick), but maybe earlier, at the beginning of the
    /// block that it lies in.
    pub fn next_deadline(&self) -> Option<Nanos> {
        let tick = if self.due.head != NIL {
            self.elapsed
        } else {
            self.next_slot()?.2
        };
        Some(Nanos(tick.saturating_mul(NANOS_PER_TICK)))
    }

    /// The first slot in use: its level, its index and the tick at which it begins.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.levels.iter().position(|level| level.used != 0)?;
        let slot = self.levels[level].used.trailing_zeros() as usize;
        let shift = BITS * level as u32;
        // The digits above this level are those of `elapsed`.
        let above = self.elapsed >> (shift + BITS) << (shift + BITS);
        Some((level, slot, above | ((slot as u64) << shift)))
    }

    /// Moves the timers of a slot whose block has begun to where they belong now.
    fn cascade(&mut self, level: usize, slot: usize) {
        let list = std::mem::replace(&mut self.levels[level].slots[slot], List::EMPTY);
        self.levels[level].used &= !(1 << slot);
        let mut index = list.head;
        while index != NIL {
            let next = self.entries[index as usize].next;
            self.place(index);
            index = next;
        }
    }

    /// Links an entry at the end of the list that its tick belongs to.
    fn place(&mut self, index: u32) {
        let tick = self.entries[index as usize].tick;
        let (home, list) = if tick <= self.elapsed {
            (Home::Due, &mut self.due)
        } else {
            let level = (63 - (tick ^ self.elapsed).leading_zeros()) / BITS;
            let slot = (tick >> (BITS * level)) as usize % SLOTS;
            let level_ref = &mut self.levels[level as usize];
            level_ref.used |= 1 << slot;
            let home = Home::Slot {
                level: level as u8,
                slot: slot as u8,
            };
            (home, &mut level_ref.slots[slot])
        };
        let last = list.tail;
        list.tail = index;
        if last == NIL {
            list.head = index;
        } else {
            self.entries[last as usize].next = index;
        }
        let entry = &mut self.entries[index as usize];
        entry.home = home;
        entry.previous = last;
        entry.next = NIL;
    }

    fn unlink(&mut self, index: u32) {
        let Entry {
            home,
            previous,
            next,
            ..
        } = self.entries[index as usize];
        if previous != NIL {
            self.entries[previous as usize].next = next;
        }
        if next != NIL {
            self.entries[next as usize].previous = previous;
        }
        let list = match home {
            Home::Due => &mut self.due,
            Home::Slot { level, slot } => {
                let level = &mut self.levels[usize::from(level)];
                if previous == NIL && next == NIL {
                    level.used &= !(1 << slot);
                }
                &mut level.slots[usize::from(slot)]
            }
        };
        if previous == NIL {
            list.head = next;
        }
        if next == NIL {
            list.tail = previous;
        }
    }

    fn take_entry(&mut self, tick: u64, value: T) -> u32 {
        if self.free == NIL {
            let index = u32::try_from(self.entries.len()).expect("fewer than 2^32 timers");
            assert!(index != NIL, "fewer than 2^32 timers");
            self.entries.push(Entry {
                tick,
                home: Home::Due,
                previous: NIL,
                next: NIL,
                generation: 0,
                value: Some(value),
            });
            return index;
        }
        let index = self.free;
        let entry = &mut self.entries[index as usize];
        self.free = entry.next;
        entry.tick = tick;
        entry.value = Some(value);
        index
    }

    /// Frees an unlinked entry and makes its id stale.
    fn release(&mut self, index: u32) -> T {
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.next = self.free;
        self.free = index;
        self.len -= 1;
        entry.value.take().expect("a linked entry has a value")
    }
}

/// Digits of a tick are base 64.
const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
/// Enough for every tick that 64 bits of nanoseconds can name (below 2^45).
const LEVELS: usize = 8;
const NANOS_PER_TICK: u64 = TICK.as_nanos() as u64;
const NIL: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct List {
    head: u32,
    tail: u32,
}

impl List {
    const EMPTY: List = List {
        head: NIL,
        tail: NIL,
    };
}

#[derive(Debug)]
struct Level {
    /// Bit n is set exactly when slot n has an entry.
    used: u64,
    slots: [List; SLOTS],
}

impl Level {
    const EMPTY: Level = Level {
        used: 0,
        slots: [List::EMPTY; SLOTS],
    };
}

#[derive(Clone, Copy, Debug)]
enum Home {
    Due,
    Slot { level: u8, slot: u8 },
}

#[derive(Debug)]
struct Entry<T> {
    tick: u64,
    /// The list that the entry is linked in, while `value` is there.
    home: Home,
    previous: u32,
    next: u32,
    /// Counts the uses of this entry.
    generation: u32,
    value: Option<T>,
}

/// The last tick that is over at `now`.
fn ticks_over(now: Nanos) -> u64 {
    now.0 / NANOS_PER_TICK
}

/// The first tick at or after `deadline`.
fn ticks_until(deadline: Nanos) -> u64 {
    deadline.0.div_ceil(NANOS_PER_TICK)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const MS: u64 = NANOS_PER_TICK;

    fn drain<T>(wheel: &mut Wheel<T>, now: Nanos) -> Vec<T> {
        std::iter::from_fn(|| wheel.pop_expired(now)).collect()
    }

    #[test]
    fn a_timer_is_never_early_and_at_most_a_tick_late() {
        let mut wheel = Wheel::new(Nanos(5));
        wheel.insert(Nanos(3 * MS + 1), 'a');
        assert_eq!(wheel.pop_expired(Nanos(3 * MS + 999_999)), None);
        assert_eq!(wheel.next_deadline(), Some(Nanos(4 * MS)));
        assert_eq!(wheel.pop_expired(Nanos(4 * MS)), Some('a'));
        assert!(wheel.is_empty());
        assert_eq!(wheel.next_deadline(), None);
    }

    #[test]
    fn timers_of_one_tick_expire_in_order_of_insertion() {
        let mut wheel = Wheel::new(Nanos(0));
        for i in 0..10 {
            wheel.insert(Nanos(700 * MS), i);
        }
        assert_eq!(
            drain(&mut wheel, Nanos(700 * MS)),
            (0..10).collect::<Vec<_>>()
        );
    }

    #[test]
    fn past_deadlines_are_due_at_once_and_can_be_cancelled() {
        let mut wheel = Wheel::new(Nanos(100 * MS));
        let a = wheel.insert(Nanos(0), 'a');
        wheel.insert(Nanos(100 * MS), 'b');
        assert_eq!(wheel.next_deadline(), Some(Nanos(100 * MS)));
        assert_eq!(wheel.cancel(a), Some('a'));
        assert_eq!(wheel.cancel(a), None);
        assert_eq!(drain(&mut wheel, Nanos(0)), ['b']);
    }

    #[test]
    fn the_end_of_time_has_a_slot() {
        let mut wheel = Wheel::new(Nanos(0));
        let id = wheel.insert(Nanos::MAX, ());
        assert_eq!(wheel.pop_expired(Nanos(u64::MAX / 2)), None);
        assert!(wheel.next_deadline().is_some());
        assert_eq!(wheel.cancel(id), Some(()));
        assert_eq!(wheel.next_deadline(), None);
    }

    #[test]
    fn a_reused_entry_makes_old_ids_stale() {
        let mut wheel = Wheel::new(Nanos(0));
        let old = wheel.insert(Nanos(MS), 1);
        assert_eq!(wheel.pop_expired(Nanos(MS)), Some(1));
        let new = wheel.insert(Nanos(2 * MS), 2);
        assert_eq!(wheel.cancel(old), None);
        assert!(wheel.get_mut(old).is_none());
        *wheel.get_mut(new).unwrap() = 3;
        assert_eq!(wheel.cancel(new), Some(3));
    }

    #[test]
    fn no_allocation_once_the_peak_was_reached() {
        let mut wheel = Wheel::new(Nanos(0));
        for round in 0..1_000u64 {
            for i in 0..100 {
                wheel.insert(Nanos((round + i * 37) * MS), i);
            }
            let now = Nanos((round + 100 * 37) * MS);
            assert_eq!(drain(&mut wheel, now).len(), 100);
            assert_eq!(wheel.entries.len(), 100);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert { after: u64 },
        Cancel { nth: usize },
        Advance { by: u64 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let span = prop_oneof![0..3 * MS, 0..200 * MS, 0..10_000 * MS, 0..u64::MAX >> 8];
        let step = prop_oneof![
            4 => span.clone().prop_map(|after| Step::Insert { after }),
            1 => (0..64usize).prop_map(|nth| Step::Cancel { nth }),
            2 => span.prop_map(|by| Step::Advance { by }),
        ];
        prop::collection::vec(step, 1..200)
    }

    proptest! {
        /// Against a sorted map: the same timers expire at the same steps, and the wheel
        /// never asks to be looked at later than its first timer.
        #[test]
        fn agrees_with_a_sorted_map(steps in steps(), start in 0..u64::MAX >> 8) {
            let mut now = start;
            let mut wheel = Wheel::new(Nanos(now));
            let mut model: BTreeMap<(u64, usize), TimerId> = BTreeMap::new();
            for (n, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert { after } => {
                        let deadline = now.saturating_add(after);
                        let id = wheel.insert(Nanos(deadline), n);
                        model.insert((deadline.div_ceil(MS), n), id);
                    }
                    Step::Cancel { nth } => {
                        if let Some((&key, &id)) = model.iter().nth(nth) {
                            prop_assert_eq!(wheel.cancel(id), Some(key.1));
                            model.remove(&key);
                        }
                    }
                    Step::Advance { by } => {
                        now = now.saturating_add(by);
                        let mut expired = drain(&mut wheel, Nanos(now));
                        expired.sort_unstable();
                        let later = model.split_off(&(now / MS + 1, 0));
                        let mut expected: Vec<usize> = model.keys().map(|key| key.1).collect();
                        expected.sort_unstable();
                        model = later;
                        prop_assert_eq!(expired, expected);
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                let first = model.first_key_value().map(|(key, _)| key.0);
                let asked = wheel.next_deadline().map(|at| at.0 / MS);
                prop_assert_eq!(asked.is_some(), first.is_some());
                if let (Some(asked), Some(first)) = (asked, first) {
                    prop_assert!(asked <= first);
                }
            }
        }
    }
}
