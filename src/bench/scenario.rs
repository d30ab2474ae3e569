//! The scenarios against a topic: sets up topic and connections, runs the phases one after
//! the other, and gathers the result. Called by `cli::bench`; `recovery` is beside it.
//!
//! ```text
//! topic → first batches → (fetch: data to read) → saturation → 20 % → 50 % → 80 % → 95 %
//! ```
//! Every phase has new connections. A run without `--topic` has a topic of its own, where
//! nobody else publishes, and deletes it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::client::{Client, Wanted};
use super::consumer::{Asking, Consumer, Part, Reading};
use super::encoder::{Encoder, Making};
use super::params::{Params, Plan, Scenario};
use super::phase::{self, Crew, Measured, Spec};
use super::producer::{Pace, Producer, Slot, Source, base_offset, passing_error};
use super::progress::Progress;
use super::record::{Metric, histogram, latency};
use super::result::{BenchResult, Broker, SCHEMA, TOOL};
use super::schedule::Schedule;
use super::template::{Shape, Template};
use super::{machine, usage};
use crate::wire::ApiKey;

/// A batch that goes ahead of all may be refused so long: its partition's leader may not
/// know yet that it is one.
const FIRST_WAIT: Duration = Duration::from_secs(30);
const FIRST_POLL: Duration = Duration::from_millis(10);
/// Requests under way on a connection while `fetch` makes its data.
const FILL_DEPTH: usize = 5;
/// Making it may take this long.
const FILL_WAIT: Duration = Duration::from_secs(3600);
/// Files that the generator needs beside its connections.
const FILES_FREE: u64 = 64;

/// A result with what its interval logs need.
pub struct Outcome {
    pub result: BenchResult,
    pub measured: Vec<Measured>,
    /// Why the phases after these were not run, or not to their end.
    pub cut_short: Option<String>,
}

const INTERRUPTED: &str = "interrupted";

/// A topic that stands, and what is in it.
struct Stage<'a> {
    params: &'a Params,
    topic: String,
    /// By partition.
    leaders: Vec<String>,
    end_offsets: Vec<u64>,
    /// A phase ended with requests unanswered: the broker may append them any time.
    has_strays: bool,
    connects: Histogram<u64>,
    stop: &'a Arc<AtomicBool>,
}

/// Sets `stop` from outside to have what is measured so far, and the topic deleted.
pub fn run(params: &Params, stop: &Arc<AtomicBool>) -> Result<Outcome, String> {
    params.check()?;
    raise_file_limit(params)?;
    let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let began_ms = began.map_or(0, |began| began.as_millis() as u64);
    let mut client = Client::connect(&params.bootstrap)?;
    let own_topic = || format!("ottla-bench-{}-{began_ms}", params.scenario.name());
    let wanted = Wanted {
        topic: params.topic.clone().unwrap_or_else(own_topic),
        partitions: i32::try_from(params.partitions).map_err(|_| "too many partitions")?,
        replication_factor: params.replication_factor,
    };
    let ran = on_topic(params, stop, &mut client, &wanted, began_ms);
    if params.topic.is_none() {
        // After a failed run its error is the one to tell.
        let deleted = client.delete_topic(&wanted.topic);
        if ran.as_ref().is_ok_and(|it| it.cut_short.is_none()) {
            deleted?;
        }
    }
    ran
}

fn on_topic(
    params: &Params,
    stop: &Arc<AtomicBool>,
    client: &mut Client,
    wanted: &Wanted,
    began_ms: u64,
) -> Result<Outcome, String> {
    let mut leaders = client.leaders(wanted)?;
    if leaders.len() < params.partitions {
        return Err(format!(
            "{} has {} partitions, {} are wanted: --partitions, or another --topic",
            wanted.topic,
            leaders.len(),
            params.partitions
        ));
    }
    leaders.truncate(params.partitions);
    let mut stage = Stage {
        params,
        topic: wanted.topic.clone(),
        end_offsets: Vec::new(),
        leaders,
        has_strays: false,
        connects: histogram(),
        stop,
    };
    stage.publish_first()?;
    let mut result = BenchResult {
        schema: SCHEMA,
        tool: TOOL.to_owned(),
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        scenario: params.scenario.name().to_owned(),
        name: params
            .name
            .clone()
            .unwrap_or_else(|| params.scenario.name().to_owned()),
        began_ms,
        valid: true,
        options: params.to_json(),
        broker: stage.broker(client),
        ..Default::default()
    };
    result.machine = machine::fingerprint(&broker_dir(params, &result.broker));
    if params.scenario == Scenario::Fetch {
        stage.fill()?;
    }
    let mut measured = Vec::new();
    let cut_short = stage.phases(&mut measured).err();
    for one in &measured {
        result.add(one.phase.clone());
    }
    if let Some(why) = &cut_short {
        if measured.is_empty() {
            return Err(why.clone());
        }
        result.valid = false;
        result.faults.push(why.clone());
    }
    Ok(Outcome {
        result,
        measured,
        cut_short,
    })
}

impl Stage<'_> {
    /// Adds each phase that came to its end.
    fn phases(&mut self, all: &mut Vec<Measured>) -> Result<(), String> {
        let params = self.params;
        let count = match &params.plan {
            Plan::Shares(shares) => 1 + shares.len(),
            Plan::Closed | Plan::Rate(_) => 1,
        };
        let each = params.warm_up + params.duration;
        let mut progress = Progress::new(each * count as u32);
        match &params.plan {
            Plan::Rate(rate) => {
                let fetched = self.records_per_fetch();
                let rate = *rate;
                all.push(self.phase("rate", None, Some(rate), fetched, &mut progress)?);
            }
            Plan::Closed => all.push(self.phase("saturation", None, None, 0, &mut progress)?),
            Plan::Shares(shares) => {
                let first = self.phase("saturation", None, None, 0, &mut progress)?;
                let (saturation, fetched) = (first.rate, first.records_per_fetch.max(1));
                all.push(first);
                for share in shares {
                    let rate = ((saturation * share / 100.0) as u64).max(1);
                    let name = format!("{share}%");
                    all.push(self.phase(
                        &name,
                        Some(*share),
                        Some(rate),
                        fetched,
                        &mut progress,
                    )?);
                }
            }
        }
        progress.finish();
        Ok(())
    }

    fn phase(
        &mut self,
        name: &str,
        offered_percent: Option<f64>,
        rate: Option<u64>,
        records_per_fetch: u64,
        progress: &mut Progress,
    ) -> Result<Measured, String> {
        let crew = self.crew(rate, records_per_fetch)?;
        let spec = Spec {
            name: name.to_owned(),
            offered_percent,
            rate: rate.map(|rate| rate as f64),
            warm_up: self.params.warm_up,
            duration: self.params.duration,
            end_offsets: self.end_offsets.clone(),
        };
        let ran = phase::run(spec, crew, self.params, self.stop, progress);
        if self.stop.load(Ordering::Relaxed) {
            return Err(format!("{name}: {INTERRUPTED}"));
        }
        let mut measured = ran.map_err(|error| format!("{name}: {error}"))?;
        self.has_strays |= measured.phase.counts.unanswered > 0;
        self.end_offsets.clone_from(&measured.end_offsets);
        progress.phase_over(&measured.phase);
        if self.params.scenario == Scenario::Conns {
            let name = Metric::Connect.name().to_owned();
            let connects = std::mem::replace(&mut self.connects, histogram());
            measured.phase.latencies.insert(name, latency(&connects));
        }
        Ok(measured)
    }

    fn crew(&mut self, rate: Option<u64>, records_per_fetch: u64) -> Result<Crew, String> {
        let params = self.params;
        let depth = params.depth;
        let records_per_batch = params.records_per_batch() as u64;
        if params.scenario == Scenario::Fetch {
            let lanes = assign(&self.leaders, params.connections);
            let pace = |connection| match rate {
                None => Pace::Closed { depth: 1 },
                Some(rate) => Pace::Open(Schedule {
                    rate,
                    records_per_batch: records_per_fetch,
                    connections: lanes.len() as u64,
                    connection,
                }),
            };
            let reading = |connection| Reading::CatchUp {
                pace: pace(connection),
                records_per_fetch: records_per_fetch.max(1),
            };
            let consumers = (0..).zip(&lanes);
            let consumers = consumers
                .map(|(index, (address, parts))| self.consumer(address, parts, reading(index)))
                .collect::<Result<_, _>>()?;
            return Ok(Crew {
                producers: Vec::new(),
                consumers,
                reading: Metric::Fetch,
            });
        }
        // Consumers stand first, so that they miss nothing.
        let mut consumers = Vec::new();
        if params.scenario.has_arrivals() {
            let connections = match params.scenario {
                Scenario::Partitions => 1,
                _ => params.connections.min(self.leaders.len()),
            };
            for _ in 0..params.fan_out {
                for (address, parts) in assign(&self.leaders, connections) {
                    consumers.push(self.consumer(&address, &parts, Reading::Arrival)?);
                }
            }
        }
        let lanes = assign(&self.leaders, params.connections);
        let stamped = rate.is_some() || params.scenario.has_arrivals();
        let pace = |connection| match rate {
            None => Pace::Closed { depth },
            Some(rate) => Pace::Open(Schedule {
                rate,
                records_per_batch,
                connections: lanes.len() as u64,
                connection,
            }),
        };
        Ok(Crew {
            producers: self.producers(&lanes, pace, stamped)?,
            consumers,
            reading: Metric::Arrival,
        })
    }

    fn producers(
        &mut self,
        lanes: &[(String, Vec<usize>)],
        pace: impl Fn(u64) -> Pace,
        stamped: bool,
    ) -> Result<Vec<Producer>, String> {
        let mut shares = vec![0; self.leaders.len()];
        for partition in lanes.iter().flat_map(|(_, parts)| parts) {
            shares[*partition] += 1;
        }
        let mut producers = Vec::new();
        for (index, (address, parts)) in (0..).zip(lanes) {
            let began = Instant::now();
            let client = Client::connect(address)?;
            let took_ns = began.elapsed().as_nanos() as u64;
            self.connects.saturating_record(took_ns.max(1));
            let version = client.produce_version()?;
            let slot = |partition: &usize| Slot {
                partition: *partition as i32,
                next_offset: self.end_offsets[*partition] as i64,
                exclusive: self.params.topic.is_none()
                    && shares[*partition] == 1
                    && !self.has_strays,
            };
            let source = if self.params.encodes() {
                Source::Encoder(Box::new(self.encoder(version, parts)))
            } else {
                let template = |partition: &usize| self.template(*partition, version);
                let templates = parts.iter().map(template).collect::<Result<_, _>>()?;
                Source::Templates { templates, stamped }
            };
            let records_per_batch = self.params.records_per_batch() as u64;
            producers.push(Producer::new(
                client.into_stream(),
                version,
                source,
                parts.iter().map(slot).collect(),
                records_per_batch,
                pace(index),
            )?);
        }
        Ok(producers)
    }

    fn consumer(
        &self,
        address: &str,
        parts: &[usize],
        reading: Reading,
    ) -> Result<Consumer, String> {
        let client = Client::connect(address)?;
        let asking = Asking {
            topic: self.topic.clone(),
            version: client.fetch_version()?,
            bytes_max: i32::try_from(self.params.fetch_bytes).unwrap_or(i32::MAX),
            check_every: self.params.check_every,
        };
        let part = |partition: &usize| {
            let end_offset = self.end_offsets[*partition] as i64;
            Part {
                partition: *partition as i32,
                offset: match reading {
                    Reading::Arrival => end_offset,
                    Reading::CatchUp { .. } => 0,
                },
                end_offset,
            }
        };
        let parts = parts.iter().map(part).collect();
        Consumer::new(client.into_stream(), asking, reading, parts)
    }

    fn template(&self, partition: usize, version: i16) -> Result<Template, String> {
        let shape = Shape {
            topic: &self.topic,
            partition: partition as i32,
            acks: self.params.acks,
            record_bytes: self.params.record_bytes,
            records_per_batch: self.params.records_per_batch(),
        };
        let mut template = Template::new(&shape, version)?;
        // It has no time in it yet, so that its time is in no window.
        template.stamp(u64::MAX);
        Ok(template)
    }

    fn encoder(&self, version: i16, parts: &[usize]) -> Encoder {
        let params = self.params;
        let making = Making {
            topic: self.topic.clone(),
            version,
            acks: params.acks,
            record_bytes: params.record_bytes,
            records_per_batch: params.records_per_batch(),
            keys: params.keys,
            compression: params.compression,
        };
        let parts: Vec<i32> = parts.iter().map(|part| *part as i32).collect();
        Encoder::new(making, &parts, self.leaders.len())
    }

    /// A batch to each partition: tells where its log ends (other runs' records may be in
    /// front), and that its leader leads.
    fn publish_first(&mut self) -> Result<(), String> {
        let mut clients: BTreeMap<String, Client> = BTreeMap::new();
        let records = self.params.records_per_batch() as u64;
        for partition in 0..self.leaders.len() {
            let address = self.leaders[partition].clone();
            let client = match clients.entry(address) {
                std::collections::btree_map::Entry::Occupied(found) => found.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => {
                    let client = Client::connect(place.key())?;
                    place.insert(client)
                }
            };
            let version = client.produce_version()?;
            let mut template = self.template(partition, version)?;
            let began = Instant::now();
            let base = loop {
                let frame = template.frame(0);
                let body = client.call_frame(ApiKey::Produce, version, 0, frame)?;
                match base_offset(&body, version, partition as i32) {
                    Ok(base) => break base,
                    // Nothing tells a client when a leader has learnt of it.
                    Err(_)
                        if passing_error(&body, version).is_some()
                            && began.elapsed() < FIRST_WAIT
                            && !self.stop.load(Ordering::Relaxed) =>
                    {
                        std::thread::sleep(FIRST_POLL);
                    }
                    Err(error) => return Err(error),
                }
            };
            let base = u64::try_from(base).map_err(|_| format!("base offset {base}"))?;
            self.end_offsets.push(base + records);
        }
        Ok(())
    }

    /// Publishes what `fetch` will read.
    fn fill(&mut self) -> Result<(), String> {
        let params = self.params;
        let lanes = assign(&self.leaders, params.connections.min(self.leaders.len()));
        let batch_bytes = (params.records_per_batch() * params.record_bytes) as u64;
        let batches = params.data_bytes / batch_bytes / lanes.len() as u64 + 1;
        let pace = |_| Pace::Fill {
            depth: FILL_DEPTH,
            batches,
        };
        let crew = Crew {
            producers: self.producers(&lanes, pace, false)?,
            consumers: Vec::new(),
            reading: Metric::Fetch,
        };
        let spec = Spec {
            name: "making the data".to_owned(),
            offered_percent: None,
            rate: None,
            warm_up: Duration::ZERO,
            duration: FILL_WAIT,
            end_offsets: self.end_offsets.clone(),
        };
        let mut progress = Progress::new(Duration::ZERO);
        let filled = phase::run(spec, crew, params, self.stop, &mut progress);
        progress.finish();
        if self.stop.load(Ordering::Relaxed) {
            return Err(INTERRUPTED.to_owned());
        }
        let filled = filled.map_err(|error| format!("making the data: {error}"))?;
        self.end_offsets = filled.end_offsets;
        Ok(())
    }

    /// What a full fetch brings, by the size of batches.
    fn records_per_fetch(&self) -> u64 {
        let params = self.params;
        let records = params.records_per_batch();
        let fetches = params.fetch_bytes / (records * params.record_bytes);
        (fetches.max(1) * records) as u64
    }

    fn broker(&self, client: &mut Client) -> Broker {
        let params = self.params;
        let settings = client.settings();
        let features = client.features();
        let ours = settings.keys().any(|name| name.starts_with("ottla."));
        let count = |addresses: &mut dyn Iterator<Item = &String>| {
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            for address in addresses {
                *counts.entry(address.clone()).or_default() += 1;
            }
            counts
        };
        let partitions_by_leader = count(&mut self.leaders.iter());
        let lanes = assign(&self.leaders, params.connections);
        Broker {
            bootstrap: params.bootstrap.clone(),
            topic: self.topic.clone(),
            software: params
                .broker_name
                .clone()
                .or_else(|| ours.then(|| "Ottla".to_owned())),
            version: params.broker_version.clone(),
            features,
            settings,
            brokers: partitions_by_leader.len(),
            partitions_by_leader,
            connections_by_address: count(&mut lanes.iter().map(|(address, _)| address)),
            pid: params.broker_pid,
            command: params.broker_pid.and_then(usage::command),
            thread_cpus: params
                .broker_pid
                .map(usage::thread_cpus)
                .unwrap_or_default(),
        }
    }
}

/// Who goes where: an address for each connection and the partitions that it serves, all
/// led there. Each leader has a connection at least; with more connections than partitions
/// some share one.
fn assign(leaders: &[String], connections: usize) -> Vec<(String, Vec<usize>)> {
    if connections >= leaders.len() {
        let one = |index: usize| {
            let partition = index % leaders.len();
            (leaders[partition].clone(), vec![partition])
        };
        return (0..connections).map(one).collect();
    }
    let mut led: BTreeMap<&String, Vec<usize>> = BTreeMap::new();
    for (partition, leader) in leaders.iter().enumerate() {
        led.entry(leader).or_default().push(partition);
    }
    let mut lanes = Vec::new();
    for (index, (leader, partitions)) in led.iter().enumerate() {
        // The remainder goes to the first ones.
        let share = connections / led.len() + usize::from(index < connections % led.len());
        let share = share.clamp(1, partitions.len());
        for lane in 0..share {
            let own = partitions.iter().copied().skip(lane).step_by(share);
            lanes.push(((*leader).clone(), own.collect()));
        }
    }
    lanes
}

/// Where the broker's log lies, if that is on this machine.
fn broker_dir(params: &Params, broker: &Broker) -> std::path::PathBuf {
    let told = broker.settings.get("log.dirs").map(Path::new);
    let near = broker.bootstrap.starts_with("127.") || broker.bootstrap.starts_with("localhost");
    let told = told.filter(|dir| near && dir.is_absolute() && dir.exists());
    let dir = params.broker_dir.as_deref().or(told);
    dir.unwrap_or(Path::new(".")).to_owned()
}

fn raise_file_limit(params: &Params) -> Result<(), String> {
    let consumers = params.fan_out * params.connections;
    let threads = 8 * params.threads;
    let needed = (params.connections + consumers + threads) as u64 + FILES_FREE;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| error.to_string())?;
    if soft >= needed {
        return Ok(());
    }
    if hard < needed {
        return Err(format!(
            "{needed} open files are needed, the limit is {hard} (ulimit -Hn)"
        ));
    }
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaders(of: &[&str]) -> Vec<String> {
        of.iter().map(|one| (*one).to_owned()).collect()
    }

    #[test]
    fn connections_share_partitions_and_the_other_way_round() {
        let parts = |lanes: &[(String, Vec<usize>)]| -> Vec<Vec<usize>> {
            lanes.iter().map(|(_, parts)| parts.clone()).collect()
        };
        let two = leaders(&["a", "b"]);
        assert_eq!(parts(&assign(&two, 3)), [vec![0], vec![1], vec![0]]);
        let five = leaders(&["a", "a", "a", "a", "a"]);
        assert_eq!(parts(&assign(&five, 2)), [vec![0, 2, 4], vec![1, 3]]);
    }

    #[test]
    fn a_connection_serves_what_its_broker_leads() {
        let leaders = leaders(&["a", "b", "a", "c", "a"]);
        for connections in 1..8 {
            let lanes = assign(&leaders, connections);
            assert!(lanes.len() >= connections.min(3), "{connections}");
            let mut seen = vec![false; leaders.len()];
            for (address, parts) in &lanes {
                assert!(!parts.is_empty());
                for part in parts {
                    assert_eq!(&leaders[*part], address);
                    seen[*part] = true;
                }
            }
            assert!(connections >= 5 || seen.iter().all(|it| *it), "{lanes:?}");
        }
    }
}
