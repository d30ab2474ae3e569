//! A cheap clock for the stages of requests: the CPU's counter of cycles, tied to the
//! monotonic clock every millisecond.
//!
//! Each poll of a task begins with a look at the monotonic clock anyway (`executor::task`,
//! for slow polls); within the poll time goes on by the counter. Used through `Rt::stamp`
//! and `Rt::last_stamp`. Belongs to one core.
//!
//! ```text
//! poll begins      ≥ 1 ms after the anchor: a new anchor, and the rate since the last one
//! stamp            anchor + cycles since × rate
//! ```
//! Invariants: stamps never go back, within a poll or from one poll to the next; what the
//! counter adds to an anchor is bounded by [`ADDED_MAX`], so one that misbehaves spoils
//! figures and not deadlines. Where the kernel doesn't trust the counter, or before there
//! is a rate, a stamp is a look at the monotonic clock.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::Duration;

use super::rt::real_now;
use crate::base::Nanos;

/// An anchor is renewed by the first poll that begins so much later.
const RENEWED_AFTER: Duration = Duration::from_millis(1);
/// Longest that cycles are counted for.
const ADDED_MAX: Duration = Duration::from_secs(1);
/// Between the two looks at the counter around one at the clock; more means that the
/// thread was put aside in between.
const APART_MAX: Duration = Duration::from_micros(1);
/// Nanoseconds of a cycle that can be believed: 100 MHz to 20 GHz.
const RATES: std::ops::RangeInclusive<f64> = 0.05..=10.0;

pub(super) struct Stamps {
    /// Whether the counter may be used.
    even: bool,
    last: Cell<Nanos>,
    anchor: Cell<Option<Anchor>>,
    /// Nanoseconds of a cycle; none before there were two anchors.
    rate: Cell<Option<f64>>,
}

#[derive(Clone, Copy)]
struct Anchor {
    at: Nanos,
    cycles: u64,
}

impl Stamps {
    pub(super) fn new() -> Stamps {
        Stamps {
            even: counter::is_even(),
            last: Cell::new(Nanos(0)),
            anchor: Cell::new(None),
            rate: Cell::new(None),
        }
    }

    /// A poll begins.
    pub(super) fn begin(&self, now: Nanos) {
        self.last.set(self.last.get().max(now));
        let due = |anchor: Anchor| now.saturating_since(anchor.at) >= RENEWED_AFTER;
        if self.even && self.anchor.get().is_none_or(due) {
            self.renew();
        }
    }

    pub(super) fn stamp(&self) -> Nanos {
        let now = match (self.anchor.get(), self.rate.get()) {
            (Some(anchor), Some(rate)) => {
                let cycles = counter::cycles().saturating_sub(anchor.cycles);
                let added = Duration::from_nanos((cycles as f64 * rate) as u64);
                anchor.at + added.min(ADDED_MAX)
            }
            _ => real_now(),
        };
        let now = now.max(self.last.get());
        self.last.set(now);
        now
    }

    /// The last stamp of this poll, or when it began.
    pub(super) fn last(&self) -> Nanos {
        self.last.get()
    }

    #[cold]
    fn renew(&self) {
        let before = counter::cycles();
        let at = real_now();
        let after = counter::cycles();
        let anchor = Anchor {
            at,
            cycles: before + after.saturating_sub(before) / 2,
        };
        let rate = self.anchor.get().and_then(|earlier| {
            let nanos = at.saturating_since(earlier.at).as_nanos() as f64;
            let cycles = anchor.cycles.saturating_sub(earlier.cycles) as f64;
            Some(nanos / cycles).filter(|rate| RATES.contains(rate))
        });
        let apart = after.saturating_sub(before) as f64 * rate.unwrap_or(*RATES.start());
        // Another poll will do better.
        if apart <= APART_MAX.as_nanos() as f64 {
            self.anchor.set(Some(anchor));
            self.rate.set(rate);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod counter {
    use super::LazyLock;

    pub(super) fn cycles() -> u64 {
        // SAFETY: every x86-64 CPU has the instruction, and Linux lets processes use it.
        unsafe { core::arch::x86_64::_rdtsc() }
    }

    /// The counter runs at one rate, whatever the CPU does, and alike on all CPUs: the
    /// kernel looks after that, and says so by using it as its clock.
    pub(super) fn is_even() -> bool {
        static EVEN: LazyLock<bool> = LazyLock::new(|| {
            let read = |path| std::fs::read_to_string(path).unwrap_or_default();
            let source = read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
            let info = read("/proc/cpuinfo");
            let flags = info.lines().find(|line| line.starts_with("flags"));
            let has = |wanted| flags.is_some_and(|line| line.split(' ').any(|f| f == wanted));
            let trusted = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page"];
            trusted.contains(&source.trim()) && has("constant_tsc") && has("nonstop_tsc")
        });
        *EVEN
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod counter {
    pub(super) fn cycles() -> u64 {
        0
    }

    pub(super) fn is_even() -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two anchors, and so a rate, where the counter is even.
    fn anchored() -> Stamps {
        let stamps = Stamps::new();
        while stamps.even && stamps.rate.get().is_none() {
            stamps.begin(real_now());
        }
        stamps
    }

    #[test]
    fn stamps_lie_between_looks_at_the_clock_that_they_follow() {
        let stamps = anchored();
        let mut outside = 0;
        let mut last = Nanos(0);
        for round in 0..10_000 {
            if round % 100 == 0 {
                stamps.begin(real_now());
            }
            let before = real_now();
            let stamp = stamps.stamp();
            let after = real_now();
            assert!(stamp >= last && stamps.last() == stamp);
            last = stamp;
            // A rate of one millisecond is known to some hundred nanoseconds each.
            let slack = Duration::from_micros(2);
            outside += u32::from(stamp + slack < before || stamp > after + slack);
        }
        // A thread that is put aside while it anchors is off until the next anchor.
        assert!(outside <= 1_000, "{outside} of 10,000");
    }

    #[test]
    fn a_counter_that_misbehaves_adds_a_second_at_most() {
        let mut stamps = anchored();
        stamps.even = false;
        stamps.rate.set(Some(1e9));
        stamps.begin(real_now());
        let anchor = stamps.anchor.get().map_or(real_now(), |anchor| anchor.at);
        assert!(stamps.stamp() <= anchor.max(real_now()) + ADDED_MAX);
        stamps.rate.set(Some(0.0));
        let last = stamps.last();
        assert!(stamps.stamp() >= last, "it never goes back");
    }

    #[test]
    fn without_a_counter_a_stamp_is_a_look_at_the_clock() {
        let stamps = Stamps {
            even: false,
            ..Stamps::new()
        };
        let before = real_now();
        stamps.begin(before);
        let stamp = stamps.stamp();
        assert!(before <= stamp && stamp <= real_now());
    }
}
