//! Histograms of a run: three digits in nanoseconds, cumulative and by interval. Each
//! generator thread fills its own and hands full intervals to the phase's thread, which
//! merges them for the progress line, the summary and the interval log.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use serde_json::{Value, json};

use super::result::Latency;

/// Longer latencies are recorded as this.
const LATENCY_NS_MAX: u64 = 100_000_000_000;
const DIGITS: u8 = 3;

/// The percentiles of every summary, with their names in results.
pub const PERCENTILES: [(&str, f64); 6] = [
    ("p50_ns", 0.5),
    ("p90_ns", 0.9),
    ("p99_ns", 0.99),
    ("p99_9_ns", 0.999),
    ("p99_99_ns", 0.9999),
    ("max_ns", 1.0),
];

pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS).expect("constant bounds")
}

/// Adds `values` (of the same bounds) to `all`.
pub fn merge(all: &mut Histogram<u64>, values: &Histogram<u64>) {
    all.add(values)
        .expect("all histograms have the same bounds");
}

pub fn summary(values: &Histogram<u64>) -> Value {
    let mut found = serde_json::Map::new();
    found.insert("count".to_owned(), json!(values.len()));
    found.insert("mean_ns".to_owned(), json!(values.mean().round()));
    for (name, quantile) in PERCENTILES {
        found.insert(name.to_owned(), json!(values.value_at_quantile(quantile)));
    }
    Value::Object(found)
}

/// The percentiles with the whole histogram, for a result.
pub fn latency(values: &Histogram<u64>) -> Latency {
    let at = |quantile| values.value_at_quantile(quantile);
    Latency {
        count: values.len(),
        mean_ns: values.mean().round(),
        min_ns: values.min(),
        p50_ns: at(0.5),
        p90_ns: at(0.9),
        p99_ns: at(0.99),
        p99_9_ns: at(0.999),
        p99_99_ns: at(0.9999),
        max_ns: values.max(),
        histogram: encode(values),
    }
}

fn encode(values: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    let written = V2DeflateSerializer::new().serialize(values, &mut bytes);
    written.expect("a vector takes what is written to it");
    BASE64.encode(&bytes)
}

/// The histogram of [`Latency::histogram`].
pub fn decode(text: &str) -> Result<Histogram<u64>, String> {
    let bytes = BASE64.decode(text).map_err(|error| error.to_string())?;
    let found = Deserializer::new().deserialize(&mut &bytes[..]);
    found.map_err(|error| error.to_string())
}

/// What a latency is of; by its name in a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    Publish,
    Arrival,
    Fetch,
    Connect,
    FirstAck,
    Lateness,
}

impl Metric {
    pub fn name(self) -> &'static str {
        match self {
            Metric::Publish => "publish",
            Metric::Arrival => "arrival",
            Metric::Fetch => "fetch",
            Metric::Connect => "connect",
            Metric::FirstAck => "first_ack",
            Metric::Lateness => "lateness",
        }
    }
}

/// A stretch of an interval log.
pub struct Line<'a> {
    pub start: Duration,
    pub length: Duration,
    /// None for the log's main values: those that the tools show if not told otherwise.
    pub tag: Option<&'a str>,
    pub values: &'a Histogram<u64>,
}

/// Writes an interval log as HdrHistogram's tools read it: times in s from `began`, values
/// in ns, and the maximum beside each line in ms.
pub fn write_hlog(mut out: impl Write, began: SystemTime, lines: &[Line<'_>]) -> io::Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    // Its tools look for this line and for the column names.
    writeln!(out, "#[Histogram log format version 1.3]")?;
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("ottla bench: latency in ns")
        .with_start_time(began)
        .with_base_time(began)
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut out, &mut serializer)?;
    let other = |error| io::Error::other(format!("{error:?}"));
    for line in lines {
        let tag = line.tag.and_then(Tag::new);
        log.write_histogram(line.values, line.start, line.length, tag)
            .map_err(other)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_keeps_three_digits_and_the_maximum() {
        let mut values = histogram();
        for ns in 1..=1000 {
            values.record(ns * 1000).unwrap();
        }
        let summary = summary(&values);
        assert_eq!(summary["count"], 1000);
        let p50 = summary["p50_ns"].as_u64().unwrap();
        assert!(p50.abs_diff(500_000) <= 500, "{p50}");
        let max = summary["max_ns"].as_u64().unwrap();
        assert!(max.abs_diff(1_000_000) <= 1000, "{max}");
    }

    #[test]
    fn a_latency_holds_its_whole_histogram() {
        let mut values = histogram();
        values.record_n(1500, 9).unwrap();
        values.record(7_000_000).unwrap();
        let latency = latency(&values);
        assert_eq!((latency.count, latency.p50_ns), (10, 1500));
        assert_eq!(decode(&latency.histogram).unwrap(), values);
        assert!(decode("AAAA").is_err() && decode("!").is_err());
    }

    #[test]
    fn an_interval_log_has_a_line_for_each_stretch() {
        let values = histogram();
        let line = |second, tag| Line {
            start: Duration::from_secs(second),
            length: Duration::from_secs(1),
            tag,
            values: &values,
        };
        let mut out = Vec::new();
        let lines = [line(0, None), line(1, None), line(0, Some("publish"))];
        write_hlog(&mut out, SystemTime::UNIX_EPOCH, &lines).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[1].starts_with("1.000,1.000,"), "{text}");
        assert!(lines[2].starts_with("Tag=publish,0.000,"), "{text}");
    }
}
