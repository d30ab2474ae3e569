//! The scenarios `produce` and `e2e`: set up the topic and the connections, run the
//! threads, show progress, gather the outcome. Called by `cli::bench`.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;

use super::arrival::{self, Arrival, Arrived};
use super::client::Client;
use super::load::{self, Interval, Load, Loaded, Pace};
use super::outcome::Outcome;
use super::record::{histogram, merge};
use super::schedule::{Facts, Schedule, faults};
use super::template::{STAMP_BYTES, Shape, Template};
use crate::base::Millis;
use crate::wire::ApiKey;

#[derive(Clone, Debug)]
pub struct Params {
    pub bootstrap: String,
    pub topic: String,
    pub record_bytes: usize,
    pub batch_bytes: usize,
    pub connections: usize,
    /// Requests under way on a connection in closed loop.
    pub depth: usize,
    /// -1 or 1.
    pub acks: i16,
    /// Records per second in open loop; none for a closed loop.
    pub rate: Option<u64>,
    pub duration: Duration,
    pub warm_up: Duration,
}

impl Params {
    /// At least one record, whatever the batch's size.
    pub fn records_per_batch(&self) -> usize {
        (self.batch_bytes / self.record_bytes.max(1)).max(1)
    }

    fn check(&self) -> Result<(), String> {
        if self.record_bytes < STAMP_BYTES {
            return Err(format!("--record-bytes is {STAMP_BYTES} at least"));
        }
        Ok(())
    }
}

/// Publishes only.
pub fn produce(params: &Params) -> Result<Outcome, String> {
    run("produce", params, false)
}

/// From publishing to arrival; a connection has a partition of its own.
pub fn e2e(params: &Params) -> Result<Outcome, String> {
    run("e2e", params, true)
}

fn run(name: &'static str, params: &Params, arrivals: bool) -> Result<Outcome, String> {
    params.check()?;
    let count = params.connections;
    let wanted = i32::try_from(count).map_err(|_| "too many connections")?;
    let leaders = Client::connect(&params.bootstrap)?.leaders(&params.topic, wanted)?;
    if arrivals && leaders.len() < count {
        return Err(format!(
            "{} has {} partitions, fewer than connections",
            params.topic,
            leaders.len()
        ));
    }
    let mut loads = Vec::new();
    let mut readers = Vec::new();
    for index in 0..count {
        let partition = index % leaders.len();
        let (load, next_offset) = prepare(params, index, partition, &leaders, arrivals)?;
        loads.push(load);
        if let Some(offset) = next_offset {
            readers.push((Client::connect(&leaders[partition])?, offset));
        }
    }
    let expected: Vec<_> = readers.iter().map(|_| AtomicU64::new(u64::MAX)).collect();
    let began = SystemTime::now();
    let epoch = Instant::now();
    let window = load::window(params.warm_up, params.duration);
    let (sender, receiver) = channel();
    let (loaded, arrived, intervals) = thread::scope(|scope| {
        let mut arriving = Vec::new();
        for (index, (client, from_offset)) in readers.into_iter().enumerate() {
            let arrival = Arrival {
                client,
                topic: &params.topic,
                partition: index as i32,
                from_offset,
                window,
                epoch,
                expected: &expected[index],
            };
            arriving.push(scope.spawn(move || arrival::run(arrival)));
        }
        let mut loading = Vec::new();
        for (index, mut load) in loads.into_iter().enumerate() {
            load.epoch = epoch;
            let sender = sender.clone();
            let expected = expected.get(index);
            loading.push(scope.spawn(move || {
                let loaded = load::run(load, &sender);
                if let Some(expected) = expected {
                    let records = loaded.as_ref().map_or(0, |loaded| loaded.acknowledged);
                    expected.store(records, Ordering::Release);
                }
                loaded
            }));
        }
        drop(sender);
        let intervals = gather(&receiver, params.duration);
        let loaded: Vec<_> = loading
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        let arrived: Vec<_> = arriving
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        (loaded, arrived, intervals)
    });
    let panicked = |_| "a thread of the generator panicked".to_owned();
    let loaded: Vec<Loaded> = loaded
        .into_iter()
        .map(|joined| joined.map_err(panicked)?)
        .collect::<Result<_, String>>()?;
    let arrived: Vec<Arrived> = arrived
        .into_iter()
        .map(|joined| joined.map_err(panicked)?)
        .collect::<Result<_, String>>()?;
    let arrived = arrivals.then_some(arrived.as_slice());
    Ok(outcome(name, params, began, intervals, &loaded, arrived))
}

/// A connection that is ready to produce and, for arrivals, the offset that comes next.
fn prepare(
    params: &Params,
    index: usize,
    partition: usize,
    leaders: &[String],
    arrivals: bool,
) -> Result<(Load, Option<i64>), String> {
    let mut client = Client::connect(&leaders[partition])?;
    let version = client.produce_version()?;
    let records_per_batch = params.records_per_batch();
    let shape = Shape {
        topic: &params.topic,
        partition: partition as i32,
        acks: params.acks,
        record_bytes: params.record_bytes,
        records_per_batch,
        now: now_ms(),
    };
    let mut template = Template::new(&shape, version)?;
    // It has no time in it yet, so that its time is in no window.
    template.stamp(u64::MAX);
    let mut next_offset = None;
    if arrivals {
        // A batch of our own tells where the log ends: other runs' records come before.
        let body = client.call_frame(ApiKey::Produce, version, 0, template.frame(0))?;
        let base = load::check_body(&body, version, -1)?;
        next_offset = Some(base + records_per_batch as i64);
    }
    let pace = match params.rate {
        None => Pace::Closed {
            depth: params.depth,
        },
        Some(rate) => Pace::Open(Schedule {
            rate,
            records_per_batch: records_per_batch as u64,
            connections: params.connections as u64,
            connection: index as u64,
        }),
    };
    let load = Load {
        stream: client.into_stream(),
        template,
        version,
        records_per_batch: records_per_batch as u64,
        pace,
        window: load::window(params.warm_up, params.duration),
        stamped: arrivals,
        epoch: Instant::now(),
    };
    Ok((load, next_offset))
}

/// Merges the threads' seconds until the last thread ended.
fn gather(receiver: &Receiver<Interval>, duration: Duration) -> Vec<Histogram<u64>> {
    let mut merged: Vec<(Histogram<u64>, u64)> = Vec::new();
    let live = std::io::stderr().is_terminal();
    for interval in receiver {
        while merged.len() <= interval.second {
            merged.push((histogram(), 0));
        }
        let (latencies, records) = &mut merged[interval.second];
        merge(latencies, &interval.latencies);
        *records += interval.records;
        if live {
            let left = (duration.as_secs() as usize).saturating_sub(interval.second + 1);
            let micros = |quantile| latencies.value_at_quantile(quantile) / 1000;
            // Whoever closed the terminal doesn't want to see it.
            let _ = write!(
                std::io::stderr(),
                "\r\x1b[K{records} records/s  p50 {} µs  p99 {} µs  {left} s left",
                micros(0.5),
                micros(0.99),
            );
        }
    }
    if live {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    merged.into_iter().map(|(latencies, _)| latencies).collect()
}

fn outcome(
    scenario: &'static str,
    params: &Params,
    began: SystemTime,
    intervals: Vec<Histogram<u64>>,
    loaded: &[Loaded],
    arrived: Option<&[Arrived]>,
) -> Outcome {
    let sum = |of: fn(&Loaded) -> u64| loaded.iter().map(of).sum::<u64>();
    let merged = |of: fn(&Loaded) -> &Histogram<u64>| {
        let mut all = histogram();
        loaded.iter().for_each(|loaded| merge(&mut all, of(loaded)));
        all
    };
    let publish = merged(|loaded| &loaded.latencies);
    let lateness = merged(|loaded| &loaded.lateness);
    let arrival = arrived.map(|arrived| {
        let mut all = histogram();
        arrived
            .iter()
            .for_each(|one| merge(&mut all, &one.latencies));
        all
    });
    let acknowledged = sum(|loaded| loaded.acknowledged);
    let records_arrived = arrived.map(|all| all.iter().map(|one| one.records).sum::<u64>());
    let achieved_arriving = arrived.map(|all| all.iter().map(|one| one.achieved).sum::<u64>());
    let achieved_published = sum(|loaded| loaded.achieved);
    let missing = records_arrived.map_or(0, |arrived| acknowledged.saturating_sub(arrived));
    let cpu_publish = loaded.iter().map(|one| one.cpu_percent);
    let cpu_arrive = arrived
        .unwrap_or_default()
        .iter()
        .map(|one| one.cpu_percent);
    let cpu: Vec<f64> = cpu_publish.chain(cpu_arrive).collect();
    let facts = Facts {
        open_loop: params.rate.is_some(),
        scheduled: sum(|loaded| loaded.scheduled),
        achieved: achieved_arriving.map_or(achieved_published, |it| it.min(achieved_published)),
        unanswered: sum(|loaded| loaded.unanswered) + missing,
        latency_p99_ns: publish.value_at_quantile(0.99),
        lateness_p99_ns: lateness.value_at_quantile(0.99),
        cpu_percent: cpu.iter().copied().fold(0.0, f64::max),
    };
    Outcome {
        scenario,
        params: params.clone(),
        began,
        faults: faults(&facts),
        facts,
        acknowledged,
        in_window: sum(|loaded| loaded.in_window),
        arrived: records_arrived,
        publish,
        arrival,
        lateness,
        intervals,
        cpu_percent_sum: cpu.iter().sum(),
    }
}

fn now_ms() -> Millis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as Millis)
}
