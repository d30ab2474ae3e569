//! When an open loop means to send, and whether a run may be believed. Pure: times are
//! nanoseconds since the run's own start. Called by `producer` and `consumer` (due times) and
//! `phase` (verdict).
//!
//! Batch `i` of connection `c` is due at `(i × connections + c) × records × 1 s ÷ rate`: the
//! connections take turns, and no answer, however late, moves a due time.

/// A run that got through less of its schedule than this isn't the run that was asked for.
const ACHIEVED_PERCENT_MIN: u64 = 99;
/// Lateness of the generator's own that nobody would see.
const LATENESS_P99_FREE_NS: u64 = 50_000;
/// Beyond that, lateness may be a tenth of the latency that it is a part of.
const LATENESS_SHARE: u64 = 10;
/// A generator thread that has something to do for so much of the time may be what was
/// measured.
const BUSY_PERCENT_MAX: f64 = 95.0;

/// The due times of one connection in open loop.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Records per second of all connections together.
    pub rate: u64,
    pub records_per_batch: u64,
    pub connections: u64,
    pub connection: u64,
}

impl Schedule {
    /// When batch `index` of this connection is due.
    pub fn intended_ns(&self, index: u64) -> u64 {
        let turn = u128::from(index) * u128::from(self.connections) + u128::from(self.connection);
        let ns = turn * u128::from(self.records_per_batch) * 1_000_000_000 / u128::from(self.rate);
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    /// The first index that is due at `ns` or later.
    pub fn index_at(&self, ns: u64) -> u64 {
        let per_second = u128::from(self.rate.max(1));
        let turns = (u128::from(ns) * per_second)
            .div_ceil(u128::from(self.records_per_batch) * 1_000_000_000);
        let own = turns.saturating_sub(u128::from(self.connection));
        let index = own.div_ceil(u128::from(self.connections));
        let index = u64::try_from(index).unwrap_or(u64::MAX);
        // Due times are rounded down to nanoseconds.
        match index.checked_sub(1) {
            Some(before) if self.intended_ns(before) >= ns => before,
            _ if self.intended_ns(index) < ns => index + 1,
            _ => index,
        }
    }
}

/// The part of a run that is measured: batches due from `from_ns` until before `to_ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub from_ns: u64,
    pub to_ns: u64,
}

impl Window {
    pub fn contains(&self, ns: u64) -> bool {
        (self.from_ns..self.to_ns).contains(&ns)
    }

    pub fn len_ns(&self) -> u64 {
        self.to_ns - self.from_ns
    }

    /// A generator that is so far behind its schedule gives the rest of it up: the run is
    /// invalid, and a rate that can't be reached must not go on for ever.
    pub fn send_until_ns(&self) -> u64 {
        self.to_ns
            .saturating_add(self.len_ns() / 2)
            .saturating_add(1_000_000_000)
    }

    /// Answers after this are too late to count as achieved: with a hundredth of the window
    /// added, a broker that keeps up isn't blamed for the answers under way at the end.
    pub fn achieved_until_ns(&self) -> u64 {
        self.to_ns + self.len_ns() / 100
    }
}

/// What a verdict is formed of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// Whether there was a schedule to keep.
    pub open_loop: bool,
    /// Records due in the window.
    pub scheduled: u64,
    /// Of these, answered before [`Window::achieved_until_ns`].
    pub achieved: u64,
    /// Records sent of which no answer (or no arrival) came.
    pub unanswered: u64,
    /// Of what the scenario is about: arrival where there are consumers.
    pub latency_p99_ns: u64,
    /// The generator's own; what it waited for the broker isn't in it.
    pub lateness_p99_ns: u64,
    /// Of the generator's busiest thread: time on a CPU in percent,
    pub cpu_percent: f64,
    /// and with it the time that it could run and had none.
    pub busy_percent: f64,
}

/// Why the run is invalid; empty if it is valid.
pub fn faults(facts: &Facts) -> Vec<String> {
    let mut faults = Vec::new();
    if facts.unanswered > 0 {
        faults.push(format!("{} records were never answered", facts.unanswered));
    }
    if facts.achieved == 0 {
        faults.push("nothing was measured".to_owned());
    }
    if facts.open_loop {
        if facts.achieved * 100 < facts.scheduled * ACHIEVED_PERCENT_MIN {
            let percent = facts.achieved as f64 * 100.0 / facts.scheduled as f64;
            faults.push(format!(
                "achieved {percent:.1} % of the rate, less than {ACHIEVED_PERCENT_MIN} %"
            ));
        }
        let lateness = facts.lateness_p99_ns;
        if lateness > LATENESS_P99_FREE_NS && lateness > facts.latency_p99_ns / LATENESS_SHARE {
            faults.push(format!(
                "the generator itself was {} µs late at p99, more than a tenth of the latency",
                lateness / 1000
            ));
        }
    }
    if facts.busy_percent > BUSY_PERCENT_MAX {
        faults.push(format!(
            "a thread of the generator was never idle ({:.0} % on a CPU, the rest waiting for \
             one): the generator is the limit; more --threads may help, or another machine",
            facts.cpu_percent
        ));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Facts = Facts {
        open_loop: true,
        scheduled: 1000,
        achieved: 990,
        unanswered: 0,
        latency_p99_ns: 1_000_000,
        lateness_p99_ns: 100_000,
        cpu_percent: 60.0,
        busy_percent: 95.0,
    };

    #[test]
    fn connections_take_turns_at_the_asked_rate() {
        let due = |connection, index| {
            Schedule {
                rate: 3000,
                records_per_batch: 3,
                connections: 2,
                connection,
            }
            .intended_ns(index)
        };
        assert_eq!([due(0, 0), due(1, 0), due(0, 1)], [0, 1_000_000, 2_000_000]);
        // No error adds up: after an hour it is still exact.
        assert_eq!(due(0, 1_800_000), 3_600_000_000_000);
    }

    #[test]
    fn a_rate_that_divides_badly_loses_nothing() {
        let schedule = Schedule {
            rate: 7,
            records_per_batch: 1,
            connections: 1,
            connection: 0,
        };
        let second = 1_000_000_000;
        assert_eq!(
            (0..)
                .take_while(|i| schedule.intended_ns(*i) < second)
                .count(),
            7
        );
        assert_eq!(schedule.intended_ns(7 * 1000), 1000 * second);
        assert!(schedule.intended_ns(u64::MAX) > second);
    }

    #[test]
    fn an_index_is_found_by_its_time() {
        for (rate, records, connections) in [(7, 1, 1), (3000, 3, 2), (1_000_003, 16, 5)] {
            for connection in 0..connections {
                let schedule = Schedule {
                    rate,
                    records_per_batch: records,
                    connections,
                    connection,
                };
                for ns in (0..3_000_000_000).step_by(70_000_001) {
                    let index = schedule.index_at(ns);
                    assert!(schedule.intended_ns(index) >= ns, "{schedule:?} {ns}");
                    assert!(index == 0 || schedule.intended_ns(index - 1) < ns);
                }
            }
        }
    }

    #[test]
    fn a_run_at_its_limits_is_valid() {
        assert_eq!(faults(&KEPT), Vec::<String>::new());
    }

    #[test]
    fn each_fault_is_told() {
        let told = |facts: Facts, what: &str| {
            let faults = faults(&facts);
            assert!(faults.len() == 1 && faults[0].contains(what), "{faults:?}");
        };
        told(
            Facts {
                achieved: 989,
                ..KEPT
            },
            "98.9 % of the rate",
        );
        told(
            Facts {
                lateness_p99_ns: 100_001,
                ..KEPT
            },
            "100 µs late",
        );
        told(
            Facts {
                unanswered: 2,
                ..KEPT
            },
            "2 records",
        );
        told(
            Facts {
                busy_percent: 95.1,
                ..KEPT
            },
            "60 % on a CPU",
        );
    }

    #[test]
    fn a_closed_loop_has_no_schedule_to_miss() {
        let facts = Facts {
            open_loop: false,
            achieved: 1,
            lateness_p99_ns: u64::MAX,
            ..KEPT
        };
        assert!(faults(&facts).is_empty());
        assert_eq!(faults(&Facts::default()), ["nothing was measured"]);
    }

    #[test]
    fn little_lateness_is_free_and_an_answer_under_way_counts() {
        let facts = Facts {
            latency_p99_ns: 60_000,
            lateness_p99_ns: 50_000,
            ..KEPT
        };
        assert!(faults(&facts).is_empty());
        let window = Window {
            from_ns: 100,
            to_ns: 300,
        };
        assert_eq!(window.achieved_until_ns(), 302);
        assert!(window.contains(100) && !window.contains(300) && !window.contains(99));
    }
}
