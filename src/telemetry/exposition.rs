//! What a node counted, as Prometheus' text format (version 0.0.4).
//!
//! Each core makes a [`CoreSnapshot`] of itself (`shard::metrics`); `node::metrics` collects
//! them over the mesh and serves the text. Writing goes in steps: [`render`] calls
//! `breathe` after each of at most some thirty lines.
//!
//! Invariants: a family's lines stand together under one HELP and TYPE; no two lines have
//! the same name and labels; units are seconds and bytes; the buckets of a histogram are
//! cumulative and end with `+Inf`, which is its count.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::histogram::{DurationHistogram, HistogramSnapshot, SIZES, SizeHistogram};
use super::stages::StageSnapshot;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Never falls while the process runs.
    Counter,
    Gauge,
    Histogram,
}

/// A family of numbers.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
}

impl Metric {
    pub const fn counter(name: &'static str, help: &'static str) -> Metric {
        let kind = Kind::Counter;
        Metric { name, help, kind }
    }

    pub const fn gauge(name: &'static str, help: &'static str) -> Metric {
        let kind = Kind::Gauge;
        Metric { name, help, kind }
    }

    pub const fn histogram(name: &'static str, help: &'static str) -> Metric {
        let kind = Kind::Histogram;
        Metric { name, help, kind }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    Count(u64),
    Seconds(Duration),
}

/// One number.
#[derive(Debug)]
pub struct Sample {
    pub metric: &'static Metric,
    /// Beside the core.
    pub labels: Vec<(&'static str, Cow<'static, str>)>,
    pub value: Value,
}

impl Sample {
    pub fn count(metric: &'static Metric, count: u64) -> Sample {
        Sample {
            metric,
            labels: Vec::new(),
            value: Value::Count(count),
        }
    }

    pub fn seconds(metric: &'static Metric, duration: Duration) -> Sample {
        Sample {
            metric,
            labels: Vec::new(),
            value: Value::Seconds(duration),
        }
    }

    pub fn with(mut self, label: &'static str, value: impl Into<Cow<'static, str>>) -> Sample {
        self.labels.push((label, value.into()));
        self
    }
}

/// What one core counted.
#[derive(Debug, Default)]
pub struct CoreSnapshot {
    /// Its number, or what else it is called.
    pub core: Cow<'static, str>,
    pub samples: Vec<Sample>,
    pub stages: Vec<StageSnapshot>,
    pub topics: Vec<TopicSnapshot>,
}

/// What one core counted of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSnapshot {
    pub topic: Arc<str>,
    /// Batches that clients appended, by their size.
    pub batches: HistogramSnapshot<SIZES>,
    pub bytes_out: u64,
}

const STAGES: Metric = Metric::histogram(
    "ottla_request_stage_seconds",
    "How long requests took, by API and stage, on the core where the stage ended.",
);
const TOPIC_BATCHES: Metric = Metric::counter(
    "ottla_topic_produce_batches_total",
    "Record batches that clients appended.",
);
const TOPIC_BYTES_IN: Metric = Metric::counter(
    "ottla_topic_produce_bytes_total",
    "Bytes of record batches that clients appended.",
);
const TOPIC_BYTES_OUT: Metric = Metric::counter(
    "ottla_topic_fetch_bytes_total",
    "Bytes of record batches that were read for fetches.",
);
const BATCH_BYTES: Metric = Metric::histogram(
    "ottla_topic_produce_batch_bytes",
    "Sizes of the record batches that clients appended, over all cores.",
);

/// The numbers of a node and of its cores as text.
pub async fn render(node: &[Sample], cores: &[CoreSnapshot], breathe: &impl AsyncFn()) -> String {
    let mut text = Text(String::new());
    let mut metrics: Vec<&'static Metric> = Vec::new();
    for sample in node.iter().chain(cores.iter().flat_map(|c| &c.samples)) {
        if !metrics.iter().any(|known| known.name == sample.metric.name) {
            metrics.push(sample.metric);
        }
    }
    breathe().await;
    for metric in metrics {
        text.head(metric);
        for sample in node.iter().filter(|s| s.metric.name == metric.name) {
            text.sample(None, sample);
        }
        for core in cores {
            let samples = core.samples.iter();
            for sample in samples.filter(|s| s.metric.name == metric.name) {
                text.sample(Some(&core.core), sample);
            }
            breathe().await;
        }
    }
    stages(&mut text, cores, breathe).await;
    topics(&mut text, cores, breathe).await;
    text.0
}

async fn stages(text: &mut Text, cores: &[CoreSnapshot], breathe: &impl AsyncFn()) {
    text.head(&STAGES);
    let bound = |index| DurationHistogram::bound(index).map(seconds);
    for core in cores {
        for StageSnapshot {
            api,
            stage,
            durations,
        } in &core.stages
        {
            let labels = [("core", &*core.core), ("api", api), ("stage", stage.name())];
            text.histogram(&STAGES, &labels, durations, bound, seconds);
            breathe().await;
        }
    }
}

async fn topics(text: &mut Text, cores: &[CoreSnapshot], breathe: &impl AsyncFn()) {
    type Number = fn(&TopicSnapshot) -> u64;
    let numbers: [(Metric, Number); 3] = [
        (TOPIC_BATCHES, |topic| topic.batches.count()),
        (TOPIC_BYTES_IN, |topic| topic.batches.sum),
        (TOPIC_BYTES_OUT, |topic| topic.bytes_out),
    ];
    for (metric, number) in numbers {
        text.head(&metric);
        for core in cores {
            for topic in &core.topics {
                let labels = [("core", &*core.core), ("topic", &*topic.topic)];
                text.line(&metric, "", &labels, None, number(topic));
                breathe().await;
            }
        }
    }
    let mut sizes: BTreeMap<&str, HistogramSnapshot<SIZES>> = BTreeMap::new();
    for topic in cores.iter().flat_map(|core| &core.topics) {
        sizes.entry(&topic.topic).or_default().merge(&topic.batches);
        breathe().await;
    }
    text.head(&BATCH_BYTES);
    for (topic, sizes) in &sizes {
        let labels = [("topic", *topic)];
        text.histogram(&BATCH_BYTES, &labels, sizes, SizeHistogram::bound, |sum| {
            sum
        });
        breathe().await;
    }
}

/// Nanoseconds as seconds, exactly.
fn seconds(nanos: u64) -> String {
    let (whole, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let text = format!("{whole}.{rest:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

struct Text(String);

impl Text {
    fn head(&mut self, metric: &Metric) {
        let Metric { name, help, kind } = metric;
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, core: Option<&str>, sample: &Sample) {
        let core = core.map(|core| ("core", core));
        let more = sample.labels.iter().map(|(name, value)| (*name, &**value));
        let labels: Vec<(&str, &str)> = core.into_iter().chain(more).collect();
        match sample.value {
            Value::Count(count) => self.line(sample.metric, "", &labels, None, count),
            Value::Seconds(duration) => {
                let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
                self.line(sample.metric, "", &labels, None, seconds(nanos));
            }
        }
    }

    fn histogram<const N: usize, B: std::fmt::Display, S: std::fmt::Display>(
        &mut self,
        metric: &Metric,
        labels: &[(&str, &str)],
        histogram: &HistogramSnapshot<N>,
        bound: impl Fn(usize) -> Option<B>,
        sum: impl Fn(u64) -> S,
    ) {
        let mut seen = 0;
        for (index, count) in histogram.buckets.iter().enumerate() {
            seen += count;
            let bound = bound(index).map_or_else(|| "+Inf".to_owned(), |b| b.to_string());
            self.line(metric, "_bucket", labels, Some(&bound), seen);
        }
        self.line(metric, "_sum", labels, None, sum(histogram.sum));
        self.line(metric, "_count", labels, None, seen);
    }

    fn line(
        &mut self,
        metric: &Metric,
        suffix: &str,
        labels: &[(&str, &str)],
        bound: Option<&str>,
        value: impl std::fmt::Display,
    ) {
        self.0.push_str(metric.name);
        self.0.push_str(suffix);
        let bound = bound.map(|bound| ("le", bound));
        let mut open = '{';
        for (label, text) in labels.iter().copied().chain(bound) {
            let _ = write!(self.0, "{open}{label}=\"");
            open = ',';
            self.escaped(text);
            self.0.push('"');
        }
        if open == ',' {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn escaped(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                c => self.0.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;

    use super::*;
    use crate::telemetry::{Stage, StageTable};

    static OPEN: Metric = Metric::gauge("ottla_open", "a \\ and\na line");
    static BUSY: Metric = Metric::counter("ottla_busy_seconds_total", "Time.");

    fn text(node: &[Sample], cores: &[CoreSnapshot]) -> String {
        block_on(render(node, cores, &async || {}))
    }

    #[test]
    fn families_stand_together_and_text_is_escaped() {
        let core = |core| CoreSnapshot {
            core: Cow::Borrowed(core),
            samples: vec![
                Sample::count(&OPEN, 2),
                Sample::seconds(&BUSY, Duration::from_millis(1_500)).with("file", "a\"\\\nb"),
            ],
            ..CoreSnapshot::default()
        };
        let node = [Sample::count(&OPEN, u64::MAX)];
        let wanted = "# HELP ottla_open a \\\\ and\\na line\n# TYPE ottla_open gauge\n\
                      ottla_open 18446744073709551615\n\
                      ottla_open{core=\"0\"} 2\nottla_open{core=\"1\"} 2\n\
                      # HELP ottla_busy_seconds_total Time.\n\
                      # TYPE ottla_busy_seconds_total counter\n\
                      ottla_busy_seconds_total{core=\"0\",file=\"a\\\"\\\\\\nb\"} 1.5\n\
                      ottla_busy_seconds_total{core=\"1\",file=\"a\\\"\\\\\\nb\"} 1.5\n";
        let text = text(&node, &[core("0"), core("1")]);
        assert!(text.starts_with(wanted), "{text}");
    }

    #[test]
    fn buckets_are_cumulative_and_end_with_the_count() {
        let table = StageTable::new(1);
        for micros in [1, 5, 100, 1_000_000, 500_000_000] {
            table.record(0, Stage::Total, Duration::from_micros(micros));
        }
        let core = CoreSnapshot {
            core: Cow::Borrowed("0"),
            stages: table.snapshot(|_| "Produce"),
            ..CoreSnapshot::default()
        };
        let text = text(&[], &[core]);
        let counts: Vec<u64> = text
            .lines()
            .filter(|line| line.starts_with("ottla_request_stage_seconds_bucket"))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
            .collect();
        assert!(counts.is_sorted(), "{text}");
        assert_eq!((counts[0], counts[counts.len() - 1]), (1, 5));
        assert_eq!(counts[counts.len() - 2], 4, "only +Inf has the longest");
        assert!(text.contains("le=\"0.000001024\"} 1\n"), "{text}");
        assert!(text.contains("stage=\"total\"} 501.000106\n"), "{text}");
    }

    #[test]
    fn sizes_of_batches_are_told_of_all_cores_together() {
        let core = |core, size| {
            let batches = SizeHistogram::default();
            batches.record(size);
            CoreSnapshot {
                core: Cow::Borrowed(core),
                topics: vec![TopicSnapshot {
                    topic: "t".into(),
                    batches: batches.snapshot(),
                    bytes_out: 7,
                }],
                ..CoreSnapshot::default()
            }
        };
        let text = text(&[], &[core("0", 100), core("1", 70_000)]);
        for line in [
            "ottla_topic_produce_bytes_total{core=\"1\",topic=\"t\"} 70000",
            "ottla_topic_fetch_bytes_total{core=\"0\",topic=\"t\"} 7",
            "ottla_topic_produce_batch_bytes_bucket{topic=\"t\",le=\"256\"} 1",
            "ottla_topic_produce_batch_bytes_bucket{topic=\"t\",le=\"+Inf\"} 2",
            "ottla_topic_produce_batch_bytes_sum{topic=\"t\"} 70100",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
