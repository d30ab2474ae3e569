//! What a run found, as JSON for tools (with the machine and the parameters, so that the
//! file speaks for itself) and as an interval log. Made by `scenario`, printed by `report`.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::SystemTime;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::scenario::Params;
use super::schedule::Facts;
use super::{machine, record};

pub struct Outcome {
    pub scenario: &'static str,
    pub params: Params,
    pub(super) began: SystemTime,
    /// Why the run is invalid; empty if it is valid.
    pub faults: Vec<String>,
    pub(super) facts: Facts,
    /// Records, warm-up included.
    pub acknowledged: u64,
    pub in_window: u64,
    /// Records, warm-up included; none where nobody fetched.
    pub arrived: Option<u64>,
    pub publish: Histogram<u64>,
    pub arrival: Option<Histogram<u64>>,
    pub lateness: Histogram<u64>,
    /// Publishing, by seconds of the window.
    pub(super) intervals: Vec<Histogram<u64>>,
    /// Of all the generator's threads, in percent of one CPU.
    pub cpu_percent_sum: f64,
}

impl Outcome {
    pub fn records_per_second(&self) -> f64 {
        self.in_window as f64 / self.params.duration.as_secs_f64()
    }

    /// Of values; what surrounds them isn't counted.
    pub fn bytes_per_second(&self) -> f64 {
        self.records_per_second() * self.params.record_bytes as f64
    }

    /// Of the generator's busiest thread.
    pub fn cpu_percent_max(&self) -> f64 {
        self.facts.cpu_percent
    }

    pub fn is_open_loop(&self) -> bool {
        self.facts.open_loop
    }

    pub fn to_json(&self) -> Value {
        let params = &self.params;
        let began = self.began.duration_since(SystemTime::UNIX_EPOCH);
        json!({
            "tool": "ottla bench",
            "version": env!("CARGO_PKG_VERSION"),
            "scenario": self.scenario,
            "loop": if self.is_open_loop() { "open" } else { "closed" },
            "valid": self.faults.is_empty(),
            "faults": self.faults,
            "began_ms": began.map_or(0, |began| began.as_millis() as u64),
            "broker": { "bootstrap": params.bootstrap, "topic": params.topic },
            "parameters": {
                "record_bytes": params.record_bytes,
                "batch_bytes": params.batch_bytes,
                "records_per_batch": params.records_per_batch(),
                "connections": params.connections,
                "depth": params.depth,
                "acks": params.acks,
                "rate": params.rate,
                "duration_s": params.duration.as_secs_f64(),
                "warm_up_s": params.warm_up.as_secs_f64(),
            },
            "records": {
                "acknowledged": self.acknowledged,
                "in_window": self.in_window,
                "arrived": self.arrived,
                "scheduled": self.facts.scheduled,
                "achieved": self.facts.achieved,
                "unanswered": self.facts.unanswered,
            },
            "throughput": {
                "records_per_s": self.records_per_second(),
                "bytes_per_s": self.bytes_per_second(),
            },
            "publish": record::summary(&self.publish),
            "arrival": self.arrival.as_ref().map(record::summary),
            "generator": {
                "lateness": record::summary(&self.lateness),
                "cpu_percent_busiest_thread": self.facts.cpu_percent,
                "cpu_percent_all_threads": self.cpu_percent_sum,
            },
            "machine": machine::fingerprint(Path::new(".")),
        })
    }

    pub fn write_json(&self, path: &Path) -> Result<(), String> {
        write_json(path, &self.to_json())
    }

    pub fn write_hlog(&self, path: &Path) -> Result<(), String> {
        let mut totals = vec![("publish", &self.publish)];
        totals.extend(self.arrival.iter().map(|values| ("arrival", values)));
        let written = File::create(path).and_then(|file| {
            let mut out = BufWriter::new(file);
            record::write_hlog(&mut out, self.began, &self.intervals, &totals)?;
            out.flush()
        });
        written.map_err(|error| format!("can't write {}: {error}", path.display()))
    }
}

pub fn write_json(path: &Path, value: &Value) -> Result<(), String> {
    std::fs::write(path, format!("{value:#}\n"))
        .map_err(|error| format!("can't write {}: {error}", path.display()))
}
