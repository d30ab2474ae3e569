//! The scenario `recovery`: how long a broker takes from its start, and from a crash, to
//! the first acknowledgement; and whether what it had acknowledged is there afterwards.
//! Called by `cli::bench`.
//!
//! Only processes that it started are ended, and the one that `--pid` names.

use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::json;

use super::client::{Client, Wanted};
use super::producer::base_offset;
use super::progress::Progress;
use super::record::{Metric, histogram, latency};
use super::result::{BenchResult, Broker, Counts, Phase, SCHEMA, TOOL};
use super::template::{Shape, Template};
use super::{machine, usage};
use crate::wire::ApiKey;

/// A broker that isn't there yet tells nobody when it will be.
const POLL: Duration = Duration::from_millis(1);
/// A connection that was taken by nobody, or by one who went, isn't waited for longer.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct Recovery {
    pub bootstrap: String,
    /// A shell's command.
    pub start: Option<String>,
    pub pid: Option<u32>,
    pub times: u16,
    /// Of publishing before each crash.
    pub duration: Duration,
    pub patience: Duration,
    pub partitions: u16,
    pub record_bytes: usize,
    pub acks: i16,
    pub broker_name: Option<String>,
    pub broker_version: Option<String>,
    pub name: Option<String>,
}

/// What is under way: the broker and what it has acknowledged.
struct Trial<'a> {
    asked: &'a Recovery,
    topic: String,
    child: Option<Group>,
    /// By partition: the offset that comes next.
    next_offsets: Vec<i64>,
    acknowledged: u64,
    lost: Vec<String>,
}

/// A process group that is ours.
struct Group(Child);

pub fn run(asked: &Recovery) -> Result<BenchResult, String> {
    let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let began_ms = began.map_or(0, |began| began.as_millis() as u64);
    let mut trial = Trial {
        asked,
        topic: format!("ottla-bench-recovery-{began_ms}"),
        child: None,
        next_offsets: vec![0; usize::from(asked.partitions)],
        acknowledged: 0,
        lost: Vec::new(),
    };
    let times = match &asked.start {
        Some(_) => asked.times,
        None => 1,
    };
    let mut progress = Progress::new(asked.duration * u32::from(times));
    let mut starts = histogram();
    let mut crashes = histogram();
    let mut client = if asked.pid.is_some() {
        trial.first_answer(Instant::now())?
    } else {
        progress.begin("start");
        trial.nobody_answers()?;
        let at = Instant::now();
        trial.start()?;
        let client = trial.first_answer(at)?;
        record(&mut starts, at);
        client
    };
    let mut result = BenchResult {
        schema: SCHEMA,
        tool: TOOL.to_owned(),
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        scenario: "recovery".to_owned(),
        name: asked.name.clone().unwrap_or_else(|| "recovery".to_owned()),
        began_ms,
        valid: true,
        options: asked.options(times),
        broker: Broker {
            bootstrap: asked.bootstrap.clone(),
            topic: trial.topic.clone(),
            software: asked.broker_name.clone(),
            version: asked.broker_version.clone(),
            features: client.features(),
            settings: client.settings(),
            pid: asked.pid,
            command: asked.start.clone(),
            ..Default::default()
        },
        machine: machine::fingerprint(Path::new(".")),
        ..Default::default()
    };
    let mut pid = asked.pid;
    for crash in 1..=times {
        progress.begin(&format!("crash {crash} of {times}"));
        trial.publish(&mut client)?;
        progress.end(asked.duration);
        let at = Instant::now();
        trial.crash(pid.take())?;
        trial.start()?;
        client = trial.first_answer(at)?;
        record(&mut crashes, at);
    }
    progress.finish();
    // With `--pid`, the broker that came back is not ours.
    let deleted = client.delete_topic(&trial.topic);
    deleted.map(drop).unwrap_or_default();
    if !starts.is_empty() {
        result.add(phase("start", &starts, 0, &[]));
    }
    result.add(phase("crash", &crashes, trial.acknowledged, &trial.lost));
    Ok(result)
}

fn record(values: &mut Histogram<u64>, since: Instant) {
    let ns = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
    values.saturating_record(ns.max(1));
}

fn phase(name: &str, values: &Histogram<u64>, acknowledged: u64, lost: &[String]) -> Phase {
    Phase {
        name: name.to_owned(),
        pace: "none".to_owned(),
        valid: lost.is_empty(),
        faults: lost.to_vec(),
        counts: Counts {
            achieved: values.len(),
            acknowledged,
            answers: acknowledged,
            ..Default::default()
        },
        latencies: [(Metric::FirstAck.name().to_owned(), latency(values))].into(),
        ..Default::default()
    }
}

impl Recovery {
    fn options(&self, times: u16) -> serde_json::Value {
        json!({
            "start": self.start,
            "pid": self.pid,
            "times": times,
            "duration_s": self.duration.as_secs_f64(),
            "connections": 1,
            "partitions": self.partitions,
            "record_bytes": self.record_bytes,
            "records_per_batch": 1,
            "acks": self.acks,
        })
    }
}

impl Trial<'_> {
    /// What answers before the start is another broker, that must not be taken for ours.
    fn nobody_answers(&self) -> Result<(), String> {
        let address = &self.asked.bootstrap;
        match TcpStream::connect(address) {
            Ok(_) => Err(format!(
                "somebody answers at {address} before the start: end it, or name its process \
                 with --pid"
            )),
            Err(_) => Ok(()),
        }
    }

    /// Runs the command, if there is one; otherwise somebody else will.
    fn start(&mut self) -> Result<(), String> {
        let Some(command) = &self.asked.start else {
            return Ok(());
        };
        let child = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn();
        let child = child.map_err(|error| format!("can't run {command}: {error}"))?;
        self.child = Some(Group(child));
        Ok(())
    }

    /// Ends the broker without a warning and waits until it is gone.
    fn crash(&mut self, pid: Option<u32>) -> Result<(), String> {
        if let Some(mut group) = self.child.take() {
            group.end();
            return Ok(());
        }
        let number = pid.and_then(|pid| i32::try_from(pid).ok());
        let pid = Pid::from_raw(number.ok_or("no process to kill")?);
        let cant = |error| format!("can't kill {pid}: {error}");
        kill(pid, Signal::SIGKILL).map_err(cant)?;
        let at = Instant::now();
        while !usage::has_ended(pid.as_raw()) {
            if at.elapsed() > self.asked.patience {
                return Err(format!("{pid} doesn't end"));
            }
            sleep(POLL);
        }
        Ok(())
    }

    /// Until a batch is acknowledged by a broker that was started at `since`.
    fn first_answer(&mut self, since: Instant) -> Result<Client, String> {
        loop {
            let answered = self.try_first();
            if let Some(Group(child)) = &mut self.child
                && let Ok(Some(status)) = child.try_wait()
            {
                let fault = answered.err();
                let fault = fault.unwrap_or_else(|| "another broker answered".to_owned());
                return Err(format!("the command ended with {status}: {fault}"));
            }
            let fault = match answered {
                Ok(client) => return Ok(client),
                Err(fault) => fault,
            };
            if since.elapsed() > self.asked.patience {
                let seconds = self.asked.patience.as_secs_f64();
                return Err(format!("no acknowledgement within {seconds} s: {fault}"));
            }
            sleep(POLL);
        }
    }

    fn try_first(&mut self) -> Result<Client, String> {
        let mut client = Client::connect_patiently(&self.asked.bootstrap, ANSWER_WAIT)?;
        client.leaders(&Wanted {
            topic: self.topic.clone(),
            partitions: i32::from(self.asked.partitions),
            replication_factor: 1,
        })?;
        for partition in 0..self.next_offsets.len() {
            self.one(&mut client, partition)?;
        }
        Ok(client)
    }

    /// Publishes for a while, one batch after the other.
    fn publish(&mut self, client: &mut Client) -> Result<(), String> {
        let began = Instant::now();
        while began.elapsed() < self.asked.duration {
            for partition in 0..self.next_offsets.len() {
                self.one(client, partition)?;
            }
        }
        Ok(())
    }

    /// One batch of one record. Offsets below the next one would be given twice.
    fn one(&mut self, client: &mut Client, partition: usize) -> Result<(), String> {
        let version = client.produce_version()?;
        let shape = Shape {
            topic: &self.topic,
            partition: partition as i32,
            acks: self.asked.acks,
            record_bytes: self.asked.record_bytes,
            records_per_batch: 1,
        };
        let mut template = Template::new(&shape, version)?;
        template.stamp(0);
        let body = client.call_frame(ApiKey::Produce, version, 0, template.frame(0))?;
        let base = base_offset(&body, version, partition as i32)?;
        let next = &mut self.next_offsets[partition];
        if base < *next {
            let lost = *next - base;
            self.lost.push(format!(
                "{lost} acknowledged records of partition {partition} were lost"
            ));
        }
        *next = base + 1;
        self.acknowledged += 1;
        Ok(())
    }
}

impl Group {
    fn end(&mut self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            // If it has ended, there is nothing to end.
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.0.wait();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}
