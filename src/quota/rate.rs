//! Connections a second: how long the next has to wait, as Kafka's windowed rate says it.
//!
//! Used by [`super::connections`]. Kafka measures over ten whole windows of a second, so
//! that ten seconds' worth may come at once after a quiet time; later ones wait until the
//! average is within the limit. The same as a bucket of that size that fills steadily.

use std::time::Duration;

use crate::base::Nanos;

/// Kafka's `quota.window.num` - 1 full windows of a second each.
const BURST: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct Rate {
    /// None: unlimited.
    per_second: Option<u32>,
    /// When everything admitted so far is paid for. Never further back than [`BURST`]
    /// when the next one comes.
    paid_at: Nanos,
}

impl Rate {
    pub fn new(per_second: u32) -> Rate {
        Rate {
            per_second: limit(per_second),
            paid_at: Nanos(0),
        }
    }

    /// Another limit from now on. What is owed stays owed, in time.
    pub fn set(&mut self, per_second: u32) {
        self.per_second = limit(per_second);
    }

    /// Counts one more at `now` and returns when it may go on.
    pub fn record(&mut self, now: Nanos) -> Nanos {
        let Some(per_second) = self.per_second else {
            return now;
        };
        // A limit of 0 lets nothing pass but what comes at once, like the smallest rate.
        let cost = Duration::from_secs(1) / per_second.max(1);
        // Time is shifted by the burst, so that it can't be before the clock's start.
        self.paid_at = self.paid_at.max(now) + cost;
        let owed = self.paid_at.saturating_since(now).saturating_sub(BURST);
        now + owed
    }
}

/// The largest number means no limit, as in Kafka.
fn limit(per_second: u32) -> Option<u32> {
    (per_second < i32::MAX as u32).then_some(per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn ten_seconds_worth_passes_at_once_then_one_after_another() {
        let mut rate = Rate::new(2);
        let now = Nanos(5 * SECOND);
        for _ in 0..20 {
            assert_eq!(rate.record(now), now);
        }
        assert_eq!(rate.record(now), now + Duration::from_millis(500));
        assert_eq!(rate.record(now), now + Duration::from_millis(1000));
        // A second later two of them are paid.
        let later = Nanos(6 * SECOND);
        assert_eq!(rate.record(later), later + Duration::from_millis(500));
        // A long silence earns no more than the burst.
        let late = Nanos(600 * SECOND);
        for _ in 0..20 {
            assert_eq!(rate.record(late), late);
        }
        assert!(rate.record(late) > late);
    }

    #[test]
    fn a_limit_can_be_lifted() {
        let mut rate = Rate::new(1);
        for _ in 0..50 {
            rate.record(Nanos(0));
        }
        rate.set(i32::MAX as u32);
        assert_eq!(rate.record(Nanos(1)), Nanos(1));
    }
}
