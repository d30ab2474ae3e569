//! The middle of a few ratios and how far it can be trusted. Pure. Called by `summary`.
//!
//! Nothing is assumed of the ratios' distribution but that the pairs are independent: the
//! k-th smallest and the k-th greatest of n values enclose the true median with probability
//! 1 - 2·P(Bin(n, ½) < k), so the interval is made of values that were measured. Fewer than
//! five pairs can't enclose it with 90 %; their interval is the whole range, and says with
//! what probability it does.

/// What an interval should hold the true median with.
pub const COVERAGE_WANTED: f64 = 0.9;

/// The median of some values, and an interval for the median of what they are a sample of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Median {
    pub value: f64,
    pub low: f64,
    pub high: f64,
    /// Probability that the interval holds the true median.
    pub coverage: f64,
    pub count: usize,
}

/// None of no values or of one that isn't finite.
pub fn median(values: &[f64], coverage_wanted: f64) -> Option<Median> {
    if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let value = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2.0;
    let mut rank = 1;
    while 2 * (rank + 1) <= count && coverage(count, rank + 1) >= coverage_wanted {
        rank += 1;
    }
    Some(Median {
        value,
        low: sorted[rank - 1],
        high: sorted[count - rank],
        coverage: coverage(count, rank),
        count,
    })
}

/// Probability that the true median lies between the values of this rank (from 1) from
/// below and from above, of `count` independent ones.
fn coverage(count: usize, rank: usize) -> f64 {
    // P(Bin(n, ½) = i), from i = 0 on; n is small enough that ½ⁿ is a normal number.
    let mut probability = 0.5f64.powi(i32::try_from(count.min(1000)).expect("it is at most 1000"));
    let mut below = 0.0;
    for i in 0..rank {
        below += probability;
        probability *= (count - i) as f64 / (i + 1) as f64;
    }
    1.0 - 2.0 * below
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranks(count: usize) -> (f64, f64, f64) {
        let values: Vec<f64> = (1..=count).rev().map(|value| value as f64).collect();
        let found = median(&values, 0.9).unwrap();
        assert_eq!(found.value, (count as f64 + 1.0) / 2.0);
        (found.low, found.high, (found.coverage * 1e4).round() / 1e4)
    }

    #[test]
    fn intervals_are_those_of_the_tables() {
        assert_eq!(ranks(5), (1.0, 5.0, 0.9375));
        assert_eq!(ranks(7), (1.0, 7.0, 0.9844));
        assert_eq!(ranks(8), (2.0, 7.0, 0.9297));
        assert_eq!(ranks(10), (2.0, 9.0, 0.9785));
        assert_eq!(ranks(20), (6.0, 15.0, 0.9586));
        assert_eq!(ranks(100), (42.0, 59.0, 0.9114));
    }

    #[test]
    fn few_values_give_their_range_and_say_how_much_that_is_worth() {
        assert_eq!(ranks(1), (1.0, 1.0, 0.0));
        assert_eq!(ranks(2), (1.0, 2.0, 0.5));
        assert_eq!(ranks(3), (1.0, 3.0, 0.75));
        assert_eq!(ranks(4), (1.0, 4.0, 0.875));
    }

    #[test]
    fn what_cant_be_compared_has_no_median() {
        assert_eq!(median(&[], 0.9), None);
        assert_eq!(median(&[1.0, f64::NAN], 0.9), None);
        assert_eq!(median(&[f64::INFINITY], 0.9), None);
    }

    #[test]
    fn the_interval_holds_the_true_median_as_often_as_it_says() {
        // Xorshift: the same numbers every time.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        for count in [5, 8, 20] {
            let (mut held, rounds) = (0, 20_000);
            let mut said = 0.0;
            for _ in 0..rounds {
                // Skewed, with median 4.
                let values: Vec<f64> = (0..count)
                    .map(|_| (2.0 * uniform() + 1.0).powi(2))
                    .collect();
                let found = median(&values, 0.9).unwrap();
                held += u32::from(found.low <= 4.0 && 4.0 <= found.high);
                said = found.coverage;
            }
            let share = f64::from(held) / f64::from(rounds);
            assert!((share - said).abs() < 0.01, "{count}: {share} of {said}");
        }
    }
}
