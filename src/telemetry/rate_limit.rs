//! Keeps a warning that can repeat from filling the log.

use std::cell::Cell;
use std::time::Duration;

use crate::base::Nanos;

/// Lets one event through in each interval and counts those it holds back. One for each
/// place that warns, owned by one core.
///
/// ```
/// # use std::time::Duration;
/// # use ottla::{base::Nanos, telemetry::RateLimit};
/// let limit = RateLimit::new(Duration::from_secs(10));
/// # let now = Nanos(0);
/// if let Some(suppressed) = limit.allow(now) {
///     tracing::warn!(suppressed, "request of an unknown version");
/// }
/// ```
#[derive(Debug)]
pub struct RateLimit {
    interval: Duration,
    next: Cell<Nanos>,
    suppressed: Cell<u64>,
}

impl RateLimit {
    pub const fn new(interval: Duration) -> RateLimit {
        RateLimit {
            interval,
            next: Cell::new(Nanos(0)),
            suppressed: Cell::new(0),
        }
    }

    /// Some if the event may be told: the number that was held back since the last one.
    pub fn allow(&self, now: Nanos) -> Option<u64> {
        if now < self.next.get() {
            self.suppressed.set(self.suppressed.get() + 1);
            return None;
        }
        self.next.set(now + self.interval);
        Some(self.suppressed.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_passes_in_each_interval() {
        let limit = RateLimit::new(Duration::from_nanos(10));
        assert_eq!(limit.allow(Nanos(0)), Some(0));
        assert_eq!(limit.allow(Nanos(1)), None);
        assert_eq!(limit.allow(Nanos(9)), None);
        assert_eq!(limit.allow(Nanos(10)), Some(2));
        assert_eq!(limit.allow(Nanos(25)), Some(0));
    }
}
