//! One phase of a run: starts the threads on their lanes, gathers what they bring, and
//! makes counts, percentiles and verdict of it. Called by `scenario`.
//!
//! Producers and consumers have threads of their own, so that neither makes the other late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::consumer::Consumer;
use super::params::Params;
use super::producer::Producer;
use super::progress::Progress;
use super::record::{Line, Metric, histogram, latency, merge};
use super::result::{self, Counts, Phase, Throughput};
use super::schedule::{Facts, Window, faults};
use super::usage::Before;
use super::worker::{self, Interval, Run, Tally};

/// How often the progress line moves.
const LOOK: Duration = Duration::from_millis(100);

/// The connections of a phase.
pub struct Crew {
    pub producers: Vec<Producer>,
    pub consumers: Vec<Consumer>,
    /// What consumers time: `Arrival` or `Fetch`.
    pub reading: Metric,
}

pub struct Spec {
    pub name: String,
    pub offered_percent: Option<f64>,
    /// Records per second, in open loop.
    pub rate: Option<f64>,
    pub warm_up: Duration,
    pub duration: Duration,
    /// By partition: what is there already.
    pub end_offsets: Vec<u64>,
}

/// A phase with what its interval logs need.
pub struct Measured {
    pub phase: Phase,
    /// When its window did.
    pub began: SystemTime,
    pub main: Metric,
    /// By metric: seconds of the window.
    seconds: Seconds,
    totals: Vec<(Metric, Histogram<u64>)>,
    /// By partition: what is there now.
    pub end_offsets: Vec<u64>,
    /// Records per second of publishing and of each consumer: the slower one's.
    pub rate: f64,
    /// By answer of a fetch.
    pub records_per_fetch: u64,
}

impl Measured {
    /// Interval by interval: the main values without a tag, all with theirs.
    pub fn interval_lines(&self) -> Vec<Line<'_>> {
        let mut lines = Vec::new();
        for (metric, seconds) in &self.seconds {
            let tags = [
                (*metric == self.main).then_some(None),
                Some(Some(metric.name())),
            ];
            for tag in tags.into_iter().flatten() {
                let numbered = (0u32..).zip(seconds);
                lines.extend(numbered.map(|(index, second)| second.line(index, tag)));
            }
        }
        lines
    }

    /// The whole phase, once for each metric.
    pub fn total_lines(&self) -> Vec<Line<'_>> {
        let mut lines = Vec::new();
        for (metric, values) in &self.totals {
            let line = |tag| Line {
                start: Duration::ZERO,
                length: Duration::from_secs_f64(self.phase.seconds),
                tag,
                values,
            };
            if *metric == self.main {
                lines.push(line(None));
            }
            lines.push(line(Some(metric.name())));
        }
        lines
    }
}

pub fn run(
    spec: Spec,
    crew: Crew,
    params: &Params,
    stop: &Arc<AtomicBool>,
    progress: &mut Progress,
) -> Result<Measured, String> {
    let window = window(spec.warm_up, spec.duration);
    let main = if crew.consumers.is_empty() {
        Metric::Publish
    } else {
        crew.reading
    };
    let producers = split(crew.producers, params.threads);
    let consumers = split(crew.consumers, params.threads);
    progress.begin(&spec.name);
    let before = Before::now(params.broker_pid);
    let began = SystemTime::now();
    let state = Run {
        epoch: Instant::now(),
        window,
        halt: AtomicBool::new(false),
        stop: stop.clone(),
        end_offsets: spec.end_offsets.into_iter().map(AtomicU64::new).collect(),
        publishing: AtomicUsize::new(producers.len()),
    };
    let (sender, receiver) = channel();
    let (tallies, seconds) = thread::scope(|scope| {
        let mut threads = Vec::new();
        let mut place = params.cpus.iter().copied().cycle();
        for lanes in producers {
            let (cpu, sender, state) = (place.next(), sender.clone(), &state);
            threads.push(scope.spawn(move || {
                pinned(cpu, || {
                    worker::run(lanes, Metric::Publish, state, sender, true)
                })
            }));
        }
        for lanes in consumers {
            let (cpu, sender, state) = (place.next(), sender.clone(), &state);
            threads.push(scope.spawn(move || {
                pinned(cpu, || {
                    worker::run(lanes, crew.reading, state, sender, false)
                })
            }));
        }
        drop(sender);
        let seconds = gather(&receiver, &state, main, progress);
        let joined: Vec<_> = threads.into_iter().map(|it| it.join()).collect();
        (joined, seconds)
    });
    let panicked = |_| "a thread of the generator panicked".to_owned();
    let tallies: Vec<Tally> = tallies
        .into_iter()
        .map(|joined| joined.map_err(panicked)?)
        .collect::<Result<_, String>>()?;
    progress.end(spec.warm_up + spec.duration);
    let all = Both::of(&tallies, params.fan_out as u64);
    let facts = all.facts(spec.rate.is_some());
    let faults = faults(&facts);
    let counts = all.counts(&facts);
    let used = before.used(all.moved() as f64 * params.record_bytes as f64);
    let long_s = spec.duration.as_secs_f64();
    let main_side = all.main().ok_or("a phase without connections")?;
    let per_second = |count: u64| count as f64 / long_s;
    let throughput = Throughput {
        records_per_s: per_second(main_side.in_window),
        bytes_per_s: per_second(main_side.in_window * params.record_bytes as u64),
        batches_per_s: per_second(main_side.batches_in_window),
    };
    let rate = per_second(all.rate_in_window());
    let records_per_fetch = main_side.records / main_side.answers.max(1);
    let mut totals = all.into_histograms();
    if spec.rate.is_none() {
        // In closed loop nothing is due.
        totals.retain(|(metric, _)| *metric != Metric::Lateness);
    }
    let latencies = totals
        .iter()
        .map(|(metric, values)| (metric.name().to_owned(), latency(values)));
    let phase = Phase {
        name: spec.name,
        pace: if spec.rate.is_some() {
            "open"
        } else {
            "closed"
        }
        .to_owned(),
        offered_percent: spec.offered_percent,
        rate: spec.rate,
        seconds: long_s,
        valid: faults.is_empty(),
        faults,
        counts,
        throughput,
        latencies: latencies.collect(),
        intervals: intervals(&seconds, main),
        generator: result::Usage {
            busiest_thread_percent: Some(facts.cpu_percent),
            cpu_wait_percent: Some(facts.busy_percent - facts.cpu_percent),
            ..used.generator
        },
        broker: used.broker,
        page_cache: used.page_cache,
        hlogs: Vec::new(),
    };
    let end_offsets = state.end_offsets.into_iter().map(AtomicU64::into_inner);
    Ok(Measured {
        phase,
        began: began + spec.warm_up,
        main,
        seconds,
        totals,
        end_offsets: end_offsets.collect(),
        rate,
        records_per_fetch,
    })
}

/// The tallies of the threads of one kind, added up.
struct Side {
    metric: Metric,
    latencies: Histogram<u64>,
    lateness: Histogram<u64>,
    records: u64,
    scheduled: u64,
    achieved: u64,
    in_window: u64,
    batches_in_window: u64,
    unanswered: u64,
    answers: u64,
    batches: u64,
    crc_checked: u64,
    /// Of the thread that was idle least: on a CPU, and waiting for one.
    cpu_percent: f64,
    wait_percent: f64,
}

impl Side {
    fn of<'a>(tallies: impl Iterator<Item = &'a Tally> + Clone) -> Option<Side> {
        let sum = |of: fn(&Tally) -> u64| tallies.clone().map(of).sum();
        let merged = |of: fn(&Tally) -> &Histogram<u64>| {
            let mut all = histogram();
            tallies.clone().for_each(|tally| merge(&mut all, of(tally)));
            all
        };
        let busy = |tally: &Tally| tally.cpu_percent + tally.wait_percent;
        let busiest = tallies
            .clone()
            .max_by(|one, other| busy(one).total_cmp(&busy(other)))?;
        Some(Side {
            metric: busiest.metric,
            latencies: merged(|tally| &tally.latencies),
            lateness: merged(|tally| &tally.lateness),
            records: sum(|tally| tally.records),
            scheduled: sum(|tally| tally.scheduled),
            achieved: sum(|tally| tally.achieved),
            in_window: sum(|tally| tally.in_window),
            batches_in_window: sum(|tally| tally.batches_in_window),
            unanswered: sum(|tally| tally.unanswered),
            answers: sum(|tally| tally.answers),
            batches: sum(|tally| tally.batches),
            crc_checked: sum(|tally| tally.crc_checked),
            wait_percent: busiest.wait_percent,
            cpu_percent: busiest.cpu_percent,
        })
    }
}

impl Side {
    fn busy_percent(&self) -> f64 {
        self.cpu_percent + self.wait_percent
    }
}

/// Who published and who read; either may be absent.
struct Both {
    published: Option<Side>,
    read: Option<Side>,
    /// So many consumers read each record that is published.
    fan_out: u64,
}

impl Both {
    fn of(tallies: &[Tally], fan_out: u64) -> Both {
        let publishes = |tally: &&Tally| tally.metric == Metric::Publish;
        Both {
            published: Side::of(tallies.iter().filter(publishes)),
            read: Side::of(tallies.iter().filter(|it| !publishes(it))),
            fan_out: fan_out.max(1),
        }
    }

    fn sides(&self) -> impl Iterator<Item = &Side> {
        self.published.iter().chain(&self.read)
    }

    /// What the scenario is about.
    fn main(&self) -> Option<&Side> {
        self.read.as_ref().or(self.published.as_ref())
    }

    fn sum(&self, of: fn(&Side) -> u64) -> u64 {
        self.sides().map(of).sum()
    }

    /// Records over the wire, in either direction.
    fn moved(&self) -> u64 {
        self.sum(|side| side.records)
    }

    /// Of the slower side, and of one consumer.
    fn slower(&self, of: fn(&Side) -> u64) -> u64 {
        match (&self.published, &self.read) {
            (Some(published), Some(read)) => of(published).min(of(read) / self.fan_out),
            (Some(one), None) | (None, Some(one)) => of(one),
            (None, None) => 0,
        }
    }

    fn rate_in_window(&self) -> u64 {
        self.slower(|side| side.in_window)
    }

    fn facts(&self, open_loop: bool) -> Facts {
        let p99 = |values: &Histogram<u64>| values.value_at_quantile(0.99);
        let lateness = self.sides().map(|side| p99(&side.lateness));
        let in_closed_loop = self.rate_in_window();
        let by_idleness = |one: &&Side, other: &&Side| {
            let (one, other) = (one.busy_percent(), other.busy_percent());
            one.total_cmp(&other)
        };
        let busiest = self.sides().max_by(by_idleness);
        Facts {
            open_loop,
            scheduled: self.sum(|side| side.scheduled),
            achieved: if open_loop {
                self.slower(|side| side.achieved)
            } else {
                in_closed_loop
            },
            unanswered: self.sum(|side| side.unanswered),
            latency_p99_ns: self.main().map_or(0, |side| p99(&side.latencies)),
            lateness_p99_ns: lateness.max().unwrap_or(0),
            cpu_percent: busiest.map_or(0.0, |side| side.cpu_percent),
            busy_percent: busiest.map_or(0.0, Side::busy_percent),
        }
    }

    fn counts(&self, facts: &Facts) -> Counts {
        Counts {
            scheduled: if facts.open_loop { facts.scheduled } else { 0 },
            achieved: facts.achieved,
            acknowledged: self.published.as_ref().map_or(0, |side| side.records),
            arrived: self.read.as_ref().map(|side| side.records),
            unanswered: facts.unanswered,
            answers: self.sum(|side| side.answers),
            batches: self.sum(|side| side.batches),
            crc_checked: self.sum(|side| side.crc_checked),
        }
    }

    /// By metric, the generator's lateness with them.
    fn into_histograms(self) -> Vec<(Metric, Histogram<u64>)> {
        let mut lateness = histogram();
        let mut all = Vec::new();
        for side in self.published.into_iter().chain(self.read) {
            merge(&mut lateness, &side.lateness);
            all.push((side.metric, side.latencies));
        }
        all.push((Metric::Lateness, lateness));
        all
    }
}

/// Merges the threads' seconds until the last thread has ended.
fn gather(
    receiver: &Receiver<Interval>,
    run: &Run,
    main: Metric,
    progress: &mut Progress,
) -> Seconds {
    let mut seconds = Seconds::new();
    let mut shown = 0;
    loop {
        match receiver.recv_timeout(LOOK) {
            Ok(interval) => add(&mut seconds, interval),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return seconds,
        }
        let elapsed_ns = run.now_ns();
        // A second is shown when the next one is over, so that every thread has told it.
        let over = elapsed_ns.saturating_sub(run.window.from_ns) / worker::SECOND_NS;
        let main = seconds.iter().find(|(metric, _)| *metric == main);
        if let Some(second) = main.and_then(|(_, all)| all.get(shown))
            && over > shown as u64 + 1
        {
            progress.second(second.records, &second.latencies);
            shown += 1;
        }
        let end_ns = run.window.to_ns;
        progress.at(Duration::from_nanos(elapsed_ns.min(end_ns)));
    }
}

/// A second of all threads.
pub struct Second {
    latencies: Histogram<u64>,
    records: u64,
}

impl Second {
    fn line<'a>(&'a self, index: u32, tag: Option<&'a str>) -> Line<'a> {
        let length = Duration::from_secs(1);
        Line {
            start: length * index,
            length,
            tag,
            values: &self.latencies,
        }
    }
}

type Seconds = Vec<(Metric, Vec<Second>)>;

fn add(seconds: &mut Seconds, interval: Interval) {
    let at = seconds.iter().position(|(it, _)| *it == interval.metric);
    let at = at.unwrap_or_else(|| {
        seconds.push((interval.metric, Vec::new()));
        seconds.len() - 1
    });
    let all = &mut seconds[at].1;
    while all.len() <= interval.second {
        all.push(Second {
            latencies: histogram(),
            records: 0,
        });
    }
    let second = &mut all[interval.second];
    merge(&mut second.latencies, &interval.latencies);
    second.records += interval.records;
}

fn intervals(seconds: &Seconds, main: Metric) -> Vec<result::Interval> {
    let main = seconds.iter().find(|(metric, _)| *metric == main);
    let all = main.map_or(&[][..], |(_, all)| all);
    let interval = |(second, one): (u64, &Second)| result::Interval {
        second,
        records: one.records,
        p50_ns: one.latencies.value_at_quantile(0.5),
        p99_ns: one.latencies.value_at_quantile(0.99),
        max_ns: one.latencies.max(),
    };
    (0..).zip(all).map(interval).collect()
}

/// Deals lanes out to at most so many threads.
fn split<L>(lanes: Vec<L>, threads: usize) -> Vec<Vec<L>> {
    let count = threads.min(lanes.len());
    let mut hands: Vec<Vec<L>> = (0..count).map(|_| Vec::new()).collect();
    for (index, lane) in lanes.into_iter().enumerate() {
        hands[index % count].push(lane);
    }
    hands
}

/// Runs on one CPU, if one is given.
fn pinned<T>(cpu: Option<usize>, work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    if let Some(cpu) = cpu {
        let mut set = CpuSet::new();
        set.set(cpu)
            .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
            .map_err(|error| format!("--cpus: CPU {cpu}: {error}"))?;
    }
    work()
}

fn window(warm_up: Duration, duration: Duration) -> Window {
    let from_ns = u64::try_from(warm_up.as_nanos()).unwrap_or(u64::MAX);
    let len_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    Window {
        from_ns,
        to_ns: from_ns.saturating_add(len_ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(metric: Metric, latency_ns: u64, lateness_ns: u64) -> Tally {
        let mut tally = Tally::new(metric, channel().0);
        tally.latencies.record(latency_ns).unwrap();
        tally.lateness.record(lateness_ns).unwrap();
        tally
    }

    #[test]
    fn what_arrives_is_judged_by_its_arrival() {
        let mut published = tally(Metric::Publish, 1_000_000, 5_000_000);
        (published.scheduled, published.achieved) = (100, 100);
        let mut one = tally(Metric::Arrival, 100_000_000, 1);
        let mut other = tally(Metric::Arrival, 100_000_000, 1);
        (one.achieved, other.achieved) = (100, 98);
        let facts = Both::of(&[published, one, other], 2).facts(true);
        // Half of its time late for a publish, a twentieth for an arrival.
        assert!(facts.latency_p99_ns >= 100_000_000, "{facts:?}");
        assert_eq!((facts.scheduled, facts.achieved), (100, 99));
        assert_eq!(faults(&facts), Vec::<String>::new());
    }

    #[test]
    fn the_thread_that_is_idle_least_counts() {
        let mut calm = tally(Metric::Publish, 1, 1);
        (calm.cpu_percent, calm.wait_percent, calm.in_window) = (60.0, 0.0, 1);
        let mut crowded = tally(Metric::Publish, 1, 1);
        (crowded.cpu_percent, crowded.wait_percent) = (50.0, 46.0);
        let facts = Both::of(&[calm, crowded], 1).facts(false);
        assert_eq!((facts.cpu_percent, facts.busy_percent), (50.0, 96.0));
        let faults = faults(&facts);
        assert!(
            faults.len() == 1 && faults[0].contains("never idle"),
            "{faults:?}"
        );
    }

    #[test]
    fn lanes_are_dealt_out_evenly() {
        assert_eq!(split(vec![1, 2, 3], 2), [vec![1, 3], vec![2]]);
        assert_eq!(split(vec![1], 4), [vec![1]]);
        assert!(split(Vec::<u8>::new(), 4).is_empty());
    }
}
