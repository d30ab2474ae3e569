//! How long things took and how large they were, on one core: buckets of a fixed number,
//! without synchronisation and without allocation.
//!
//! Recorded into by `shard` ([`Histogram::record`]: the logarithm of a number and two
//! additions); copied when somebody asks, and written by [`exposition`](super::exposition).
//!
//! ```text
//! durations   bounds 2^10 ns (1 µs), 2^11 ns, … 2^35 ns (34 s), and beyond
//! sizes       bounds 2^6 B (64 B), 2^8 B, … 2^24 B (16 MiB), and beyond
//! ```
//! Invariant: every value is in one bucket, the first whose bound it doesn't exceed.

use std::cell::Cell;
use std::time::Duration;

/// Buckets of durations, with the one beyond all bounds.
pub const DURATIONS: usize = 27;
/// Buckets of sizes, with the one beyond all bounds.
pub const SIZES: usize = 11;

/// `N` buckets. The first bound is 2^`FIRST`, each other 2^`STEP` times the one before.
#[derive(Debug)]
pub struct Histogram<const N: usize, const FIRST: u32, const STEP: u32> {
    buckets: [Cell<u64>; N],
    sum: Cell<u64>,
}

/// In nanoseconds.
pub type DurationHistogram = Histogram<DURATIONS, 10, 1>;
/// In bytes.
pub type SizeHistogram = Histogram<SIZES, 6, 2>;

/// What a histogram held at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistogramSnapshot<const N: usize> {
    pub buckets: [u64; N],
    pub sum: u64,
}

impl<const N: usize, const FIRST: u32, const STEP: u32> Default for Histogram<N, FIRST, STEP> {
    fn default() -> Self {
        Histogram {
            buckets: [const { Cell::new(0) }; N],
            sum: Cell::new(0),
        }
    }
}

impl<const N: usize, const FIRST: u32, const STEP: u32> Histogram<N, FIRST, STEP> {
    pub fn record(&self, value: u64) {
        let bucket = &self.buckets[Self::bucket(value)];
        bucket.set(bucket.get() + 1);
        self.sum.set(self.sum.get().wrapping_add(value));
    }

    pub fn snapshot(&self) -> HistogramSnapshot<N> {
        let mut buckets = [0; N];
        for (count, bucket) in buckets.iter_mut().zip(&self.buckets) {
            *count = bucket.get();
        }
        HistogramSnapshot {
            buckets,
            sum: self.sum.get(),
        }
    }

    /// The largest value of a bucket; none for the last, which has no bound.
    pub const fn bound(index: usize) -> Option<u64> {
        if index + 1 < N {
            Some(1 << (FIRST + STEP * index as u32))
        } else {
            None
        }
    }

    fn bucket(value: u64) -> usize {
        // Bits that it takes to write what lies below the value.
        let bits = u64::BITS - value.saturating_sub(1).leading_zeros();
        let index = bits.saturating_sub(FIRST).div_ceil(STEP) as usize;
        index.min(N - 1)
    }
}

impl DurationHistogram {
    pub fn record_duration(&self, duration: Duration) {
        self.record(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl<const N: usize> Default for HistogramSnapshot<N> {
    fn default() -> Self {
        HistogramSnapshot {
            buckets: [0; N],
            sum: 0,
        }
    }
}

impl<const N: usize> HistogramSnapshot<N> {
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Adds what another core counted.
    pub fn merge(&mut self, other: &HistogramSnapshot<N>) {
        for (count, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += more;
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        fn check<const N: usize, const FIRST: u32, const STEP: u32>() {
            type Checked<const N: usize, const F: u32, const S: u32> = Histogram<N, F, S>;
            let bounds: Vec<u64> = (0..N)
                .filter_map(Checked::<N, FIRST, STEP>::bound)
                .collect();
            assert_eq!(bounds.len(), N - 1);
            let around = bounds.iter().flat_map(|b| [b - 1, *b, b + 1]);
            for value in around.chain([0, 1, u64::MAX]) {
                let wanted = bounds.iter().position(|bound| value <= *bound);
                let found = Checked::<N, FIRST, STEP>::bucket(value);
                assert_eq!(found, wanted.unwrap_or(N - 1), "{value}");
            }
        }
        check::<DURATIONS, 10, 1>();
        check::<SIZES, 6, 2>();
        assert_eq!(DurationHistogram::bound(0), Some(1 << 10));
        assert_eq!(DurationHistogram::bound(DURATIONS - 2), Some(1 << 35));
        assert_eq!(SizeHistogram::bound(SIZES - 2), Some(16 << 20));
    }

    #[test]
    fn what_was_recorded_is_counted_and_summed() {
        let (one, two) = (DurationHistogram::default(), DurationHistogram::default());
        for micros in 1..=1_000 {
            one.record_duration(Duration::from_micros(micros));
        }
        two.record_duration(Duration::from_secs(100));
        let mut both = one.snapshot();
        assert_eq!((both.count(), both.sum), (1_000, 500_500_000));
        both.merge(&two.snapshot());
        assert_eq!(both.count(), 1_001);
        assert_eq!((both.buckets[0], both.buckets[DURATIONS - 1]), (1, 1));
        assert_eq!(both.sum, 100_500_500_000);
    }
}
