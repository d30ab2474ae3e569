//! Units of time. Which clock a value came from is told by its type.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Wall-clock milliseconds since 1970, as in record timestamps; -1 where there is none.
pub type Millis = i64;

/// Monotonic nanoseconds since some start, from the core's clock (never the wall clock).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    pub const MAX: Nanos = Nanos(u64::MAX);

    pub fn saturating_since(self, earlier: Nanos) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Nanos {
    type Output = Nanos;
    /// Saturates: a deadline beyond the end of time is never reached.
    fn add(self, rhs: Duration) -> Nanos {
        Nanos(
            self.0
                .saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub for Nanos {
    type Output = Duration;
    fn sub(self, rhs: Nanos) -> Duration {
        self.saturating_since(rhs)
    }
}
