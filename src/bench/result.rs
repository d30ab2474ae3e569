//! The JSON of one result: what `ottla bench SCENARIO` writes, and all that `bench report`
//! and `bench compare` know of a run. The file speaks for itself: it holds the options, the
//! machine, the broker, every phase with its percentiles and whole histograms, and why it
//! can't be believed where it can't.
//!
//! ```text
//! { "schema": 1, "tool": "ottla bench", "tool_version": "…", "scenario": "produce",
//!   "name": "…", "began_ms": 0, "valid": true, "faults": [],
//!   "options": { … },  "broker": { … },  "machine": { … },
//!   "phases": [ { "name": "saturation", "loop": "closed", … },
//!               { "name": "20%", "loop": "open", "offered_percent": 20, "rate": …, … },
//!               { "name": "50%", … }, { "name": "80%", … }, { "name": "95%", … } ] }
//! ```
//! Phases by scenario: `produce`, `fetch`, `e2e`, `mixed`, `conns`, `partitions` and `keyed`
//! have `saturation` and then one for each share of it, or only `saturation` (`--closed`), or
//! only `rate` (`--rate`); `recovery` has `start` and `crash`; `floor` one for each
//! measurement, named after it (`ping-pong`, …).
//!
//! Latencies (`phases[].latencies`, only those that the scenario has): `publish` (to the
//! acknowledgement, one value a batch), `arrival` (publish to arrival at a consumer, one a
//! record and consumer), `fetch` (one a fetch), `connect` (TCP and ApiVersions), `first_ack`
//! (`recovery`), `step` (`floor`), `lateness` (the generator's own; no result of the broker's).
//! In open loop they count from the intended time, in closed loop from the sending.
//!
//! Fields are only added within a schema version; a reader ignores what it doesn't know, and
//! takes an absent field as not measured. Rates are per second, times ns unless the name
//! says otherwise, `bytes` are bytes of values (without what surrounds them).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Grows when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;
pub const TOOL: &str = "ottla bench";

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BenchResult {
    pub schema: u32,
    pub tool: String,
    pub tool_version: String,
    pub scenario: String,
    /// `--name`: whose result it is, as `kafka-1`; the scenario's name if none was given.
    pub name: String,
    /// Unix time.
    pub began_ms: u64,
    /// Whether every phase is.
    pub valid: bool,
    /// Of all phases, each with its phase's name in front.
    pub faults: Vec<String>,
    /// By the options' names on the command line with `_` for `-`.
    pub options: Value,
    pub broker: Broker,
    /// The fingerprint; see `machine`. What couldn't be read is null.
    pub machine: Value,
    pub phases: Vec<Phase>,
}

/// The broker as far as it can be seen from outside or was told by flags.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Broker {
    pub bootstrap: String,
    pub topic: String,
    /// `--broker-name`, or what its settings give away.
    pub software: Option<String>,
    /// `--broker-version`.
    pub version: Option<String>,
    /// Finalized features and their levels by ApiVersions, as `metadata.version`.
    pub features: BTreeMap<String, i16>,
    /// Settings that aren't defaults, by DescribeConfigs (shards, pinning, spin, …).
    pub settings: BTreeMap<String, String>,
    pub brokers: usize,
    /// Partitions of the topic by the broker that leads them.
    pub partitions_by_leader: BTreeMap<String, usize>,
    /// Connections of the generator by the address they went to.
    pub connections_by_address: BTreeMap<String, usize>,
    /// With `--broker-pid`: its command line, and CPUs that its threads may run on.
    pub pid: Option<u32>,
    pub command: Option<String>,
    /// Thread name to the list of its CPUs.
    pub thread_cpus: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Phase {
    /// Unique in the result: `saturation`, `20%`, …, `rate`, `start`, `crash`.
    pub name: String,
    /// `closed`, `open` or `none`.
    #[serde(rename = "loop")]
    pub pace: String,
    /// Of the saturation that the run measured itself.
    pub offered_percent: Option<f64>,
    /// Offered, in open loop: records per second.
    pub rate: Option<f64>,
    /// Measured, without the warm-up.
    pub seconds: f64,
    pub valid: bool,
    /// Why it is invalid; empty if it is valid.
    pub faults: Vec<String>,
    pub counts: Counts,
    /// What the scenario is about: acknowledged (`produce`, …), or arrived (`fetch`, `e2e`,
    /// `mixed`; of all consumers together).
    pub throughput: Throughput,
    pub latencies: BTreeMap<String, Latency>,
    /// Seconds of the window, of the scenario's main latency.
    pub intervals: Vec<Interval>,
    pub generator: Usage,
    /// With `--broker-pid`.
    pub broker: Option<Usage>,
    /// Of the machine, over the phase.
    pub page_cache: Option<PageCache>,
    /// Names of the interval logs written, beside the JSON.
    pub hlogs: Vec<String>,
}

/// Of records, if not said otherwise.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Due in the window (open loop).
    pub scheduled: u64,
    /// Of these, done in time.
    pub achieved: u64,
    /// Warm-up included.
    pub acknowledged: u64,
    /// Warm-up included, of all consumers together; none where nobody fetches.
    pub arrived: Option<u64>,
    /// Sent without an answer, or acknowledged and not arrived.
    pub unanswered: u64,
    /// Answers of requests, each checked for errors and its offset.
    pub answers: u64,
    /// Fetched batches whose offset was checked.
    pub batches: u64,
    /// Of these, those whose CRC was, too.
    pub crc_checked: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Throughput {
    pub records_per_s: f64,
    pub bytes_per_s: f64,
    pub batches_per_s: f64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Latency {
    pub count: u64,
    pub mean_ns: f64,
    pub min_ns: u64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p99_9_ns: u64,
    pub p99_99_ns: u64,
    pub max_ns: u64,
    /// The whole histogram, 3 digits: base64 of HdrHistogram's V2 encoding with deflate, as
    /// in an interval log (`record::decode` gives it back).
    pub histogram: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Interval {
    /// From the window's begin.
    pub second: u64,
    pub records: u64,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub max_ns: u64,
}

/// What a process used in the phase, warm-up included.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    pub cpu_s: f64,
    /// Per 10^9 bytes of values published and arrived.
    pub cpu_s_per_gb: Option<f64>,
    /// 100 is one CPU.
    pub cpu_percent: f64,
    /// The generator's only: of the thread that was idle least.
    pub busiest_thread_percent: Option<f64>,
    /// Of that thread: how long it could run and had no CPU.
    pub cpu_wait_percent: Option<f64>,
    /// Since the process began.
    pub peak_rss_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PageCache {
    pub before_bytes: u64,
    pub after_bytes: u64,
    pub dirty_after_bytes: u64,
}

impl BenchResult {
    /// The phase's faults become the result's.
    pub fn add(&mut self, phase: Phase) {
        let named = |fault: &String| format!("{}: {fault}", phase.name);
        self.faults.extend(phase.faults.iter().map(named));
        self.valid = self.faults.is_empty();
        self.phases.push(phase);
    }

    pub fn to_json(&self) -> String {
        let json = serde_json::to_string_pretty(self).expect("maps have string keys");
        json + "\n"
    }

    /// Reads a result that `to_json` wrote, of this schema or an older one.
    pub fn from_json(text: &str) -> Result<BenchResult, String> {
        let found: BenchResult = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if found.tool != TOOL || found.schema == 0 {
            return Err(format!("no result of {TOOL}"));
        }
        if found.schema > SCHEMA {
            let schema = found.schema;
            return Err(format!(
                "schema {schema} is newer than this program's {SCHEMA}"
            ));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> BenchResult {
        let mut result = BenchResult {
            schema: SCHEMA,
            tool: TOOL.to_owned(),
            scenario: "produce".to_owned(),
            valid: true,
            ..Default::default()
        };
        result.add(Phase {
            name: "20%".to_owned(),
            pace: "open".to_owned(),
            offered_percent: Some(20.0),
            faults: vec!["late".to_owned()],
            latencies: [("publish".to_owned(), Latency::default())].into(),
            ..Default::default()
        });
        result
    }

    #[test]
    fn json_there_and_back() {
        let text = sample().to_json();
        let back = BenchResult::from_json(&text).unwrap();
        assert_eq!(back.to_json(), text);
        assert!(!back.valid);
        assert_eq!(back.faults, ["20%: late"]);
        assert_eq!(back.phases[0].pace, "open");
    }

    #[test]
    fn unknown_fields_are_ignored_and_a_newer_schema_is_refused() {
        let text = r#"{"schema": 1, "tool": "ottla bench", "later": 1}"#;
        assert_eq!(BenchResult::from_json(text).unwrap().schema, 1);
        let newer = text.replace("1,", "2,");
        assert!(
            BenchResult::from_json(&newer)
                .unwrap_err()
                .contains("newer")
        );
        assert!(BenchResult::from_json("{}").is_err());
    }
}
