//! Whether an idle core looks for work before it sleeps. Called by the core's loop.
//!
//! Looking costs the CPU for as long as nothing comes, and saves the sleep and the wake-up
//! where something does. Which of both it will be is told by the waits before: with
//! [`SpinMode::Adaptive`] a core looks only while about two in three of its waits have been
//! short. That is where both cost the same, as a wake-up costs about half of the 50 µs that
//! are looked for by default; and a core on a shared CPU would take them from somebody else.
//!
//! Pure: the core tells how long it waited. Invariant: `score` stays in 0 to [`SCORE_MAX`],
//! so that a change of the load is followed within a dozen waits.

use std::cell::Cell;
use std::time::Duration;

use crate::config::SpinMode;

const SCORE_MAX: u8 = 12;
/// A core looks for work from this score on.
const SCORE_SPINS: u8 = 4;
const SHORT_ADDS: u8 = 1;
const LONG_TAKES: u8 = 2;

#[derive(Debug)]
pub(super) struct Spin {
    mode: SpinMode,
    most: Duration,
    score: Cell<u8>,
}

impl Spin {
    /// Looks for `most` at a time; never, if that is zero.
    pub(super) fn new(mode: SpinMode, most: Duration) -> Spin {
        Spin {
            mode,
            most,
            score: Cell::new(SCORE_SPINS),
        }
    }

    /// For how long to look for work now, if at all.
    pub(super) fn duration(&self) -> Option<Duration> {
        let wanted = match self.mode {
            SpinMode::Always => true,
            SpinMode::Adaptive => self.score.get() >= SCORE_SPINS,
        };
        (wanted && !self.most.is_zero()).then_some(self.most)
    }

    /// The core had nothing to do for so long, looking and asleep.
    pub(super) fn waited(&self, time: Duration) {
        let score = self.score.get();
        self.score.set(if time <= self.most {
            (score + SHORT_ADDS).min(SCORE_MAX)
        } else {
            score.saturating_sub(LONG_TAKES)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_micros(50);
    const SHORT: Duration = Duration::from_micros(50);
    const LONG: Duration = Duration::from_micros(51);

    fn after(mode: SpinMode, waits: &[Duration]) -> Option<Duration> {
        let spin = Spin::new(mode, MOST);
        waits.iter().for_each(|wait| spin.waited(*wait));
        spin.duration()
    }

    #[test]
    fn looks_for_work_while_most_waits_are_short() {
        assert_eq!(after(SpinMode::Adaptive, &[]), Some(MOST));
        assert_eq!(after(SpinMode::Adaptive, &[LONG]), None);
        assert_eq!(after(SpinMode::Adaptive, &[LONG, SHORT]), None);
        assert_eq!(after(SpinMode::Adaptive, &[LONG, SHORT, SHORT]), Some(MOST));
    }

    #[test]
    fn half_of_the_waits_being_short_is_too_few() {
        let waits: Vec<Duration> = [SHORT, LONG].into_iter().cycle().take(40).collect();
        assert_eq!(after(SpinMode::Adaptive, &waits), None);
    }

    #[test]
    fn follows_a_change_within_a_dozen_waits() {
        let busy = [SHORT; 100];
        let mut waits = busy.to_vec();
        waits.extend([LONG; 5]);
        assert_eq!(after(SpinMode::Adaptive, &waits), None);
        waits.extend([LONG; 100]);
        waits.extend([SHORT; 4]);
        assert_eq!(after(SpinMode::Adaptive, &waits), Some(MOST));
    }

    #[test]
    fn always_means_always_and_zero_never() {
        assert_eq!(after(SpinMode::Always, &[LONG; 100]), Some(MOST));
        for mode in [SpinMode::Always, SpinMode::Adaptive] {
            assert_eq!(Spin::new(mode, Duration::ZERO).duration(), None);
        }
    }
}
