//! What a run is to do, from the command line. Pure; made by `cli::bench`, read by every
//! scenario and written into the result.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::template::STAMP_BYTES;
use crate::record::CompressionType;

/// A generator that asks for more threads than this has mistaken the option.
const THREADS_MAX: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    Produce,
    Fetch,
    E2e,
    Mixed,
    Conns,
    Partitions,
    Keyed,
}

impl Scenario {
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Produce => "produce",
            Scenario::Fetch => "fetch",
            Scenario::E2e => "e2e",
            Scenario::Mixed => "mixed",
            Scenario::Conns => "conns",
            Scenario::Partitions => "partitions",
            Scenario::Keyed => "keyed",
        }
    }

    /// Whether consumers read while producers publish.
    pub fn has_arrivals(self) -> bool {
        matches!(self, Scenario::E2e | Scenario::Mixed | Scenario::Partitions)
    }
}

/// What to run against the topic that stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Saturation in closed loop, then open loop at these shares of it, in percent.
    Shares(Vec<f64>),
    /// Saturation only.
    Closed,
    /// One phase in open loop, at records per second of all connections together.
    Rate(u64),
}

#[derive(Clone, Debug)]
pub struct Params {
    pub scenario: Scenario,
    pub bootstrap: String,
    /// Kept afterwards; without one the run makes a topic of its own and deletes it.
    pub topic: Option<String>,
    pub partitions: usize,
    pub replication_factor: i16,
    pub record_bytes: usize,
    pub batch_bytes: usize,
    pub connections: usize,
    /// Consumers of each partition.
    pub fan_out: usize,
    /// Requests under way on a connection in closed loop.
    pub depth: usize,
    /// -1 or 1.
    pub acks: i16,
    pub plan: Plan,
    pub duration: Duration,
    pub warm_up: Duration,
    /// Encode each batch anew.
    pub encode: bool,
    /// Distinct keys; 0 for records without.
    pub keys: usize,
    pub compression: CompressionType,
    /// `fetch`: bytes of values that are there to be read, of all partitions together.
    pub data_bytes: u64,
    /// Bytes that a fetch asks for.
    pub fetch_bytes: usize,
    /// Of fetched batches one in so many has its CRC and every record checked.
    pub check_every: u64,
    /// Threads that publish, and as many again that fetch.
    pub threads: usize,
    /// CPUs that the generator's threads take turns on; empty for any.
    pub cpus: Vec<usize>,
    pub broker_pid: Option<u32>,
    pub broker_name: Option<String>,
    pub broker_version: Option<String>,
    /// Where the broker's log lies, for the fingerprint.
    pub broker_dir: Option<PathBuf>,
    pub name: Option<String>,
}

impl Params {
    /// At least one record, whatever the batch's size.
    pub fn records_per_batch(&self) -> usize {
        (self.batch_bytes / self.record_bytes.max(1)).max(1)
    }

    /// Whether batches can't be encoded once.
    pub fn encodes(&self) -> bool {
        self.encode || self.keys > 0 || self.compression != CompressionType::None
    }

    pub fn check(&self) -> Result<(), String> {
        if self.record_bytes < STAMP_BYTES {
            return Err(format!("--record-bytes is {STAMP_BYTES} at least"));
        }
        if i32::try_from(self.partitions).is_err() {
            return Err("too many partitions".to_owned());
        }
        if self.threads > THREADS_MAX {
            return Err(format!("--threads is {THREADS_MAX} at most"));
        }
        if self.keys > 0 && self.keys < self.partitions {
            return Err("--keys is fewer than partitions: some would get nothing".to_owned());
        }
        Ok(())
    }

    /// For the result: by the options' names.
    pub fn to_json(&self) -> Value {
        let (rate, shares) = match &self.plan {
            Plan::Shares(shares) => (None, Some(shares)),
            Plan::Closed => (None, None),
            Plan::Rate(rate) => (Some(rate), None),
        };
        json!({
            "topic": self.topic,
            "partitions": self.partitions,
            "replication_factor": self.replication_factor,
            "record_bytes": self.record_bytes,
            "batch_bytes": self.batch_bytes,
            "records_per_batch": self.records_per_batch(),
            "connections": self.connections,
            "fan_out": self.fan_out,
            "depth": self.depth,
            "acks": self.acks,
            "rate": rate,
            "shares": shares,
            "duration_s": self.duration.as_secs_f64(),
            "warm_up_s": self.warm_up.as_secs_f64(),
            "encode": self.encodes(),
            "keys": self.keys,
            "compression": self.compression.name(),
            "data_bytes": self.data_bytes,
            "fetch_bytes": self.fetch_bytes,
            "check_every": self.check_every,
            "threads": self.threads,
            "cpus": self.cpus,
        })
    }
}
