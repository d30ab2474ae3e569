//! What happened between two scrapes (or since the node's start, with one): by core, by API
//! and by topic, in the order in which it is shown.
//!
//! Counters become what they grew by, each second when there are two scrapes; gauges are as
//! they were last. A node that was started anew in between has smaller counters: they count
//! from its start then.

use std::collections::BTreeMap;

use super::text::{Sample, Scrape};

const STAGES: &str = "ottla_request_stage_seconds";

/// Columns of an API's stages.
pub const SHOWN_STAGES: [&str; 9] = [
    "total",
    "received",
    "parsed",
    "hop",
    "appended",
    "read",
    "purgatory",
    "flushed",
    "sent",
];

#[derive(Debug)]
pub struct Model {
    pub address: String,
    pub version: String,
    /// Between the two scrapes; None: since the node's start.
    pub seconds: Option<f64>,
    pub cores: Vec<CoreRow>,
    stages: BTreeMap<StageKey, Durations>,
    topics: BTreeMap<TopicKey, TopicNumbers>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct CoreRow {
    pub core: String,
    pub connections: f64,
    pub partitions: f64,
    pub requests: f64,
    pub in_flight: f64,
    pub bytes_in: f64,
    pub bytes_out: f64,
    /// Of requests.
    pub memory: f64,
    /// Requests to other cores that stand in line, and that are under way.
    pub in_line: f64,
    pub unanswered: f64,
    /// Polls and file calls of over 500 µs.
    pub slow_polls: f64,
    pub blocked_calls: f64,
    pub silences: f64,
    pub parks: f64,
}

/// An API on one core or on all.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiRow {
    pub api: String,
    pub requests: f64,
    /// Half of the requests took no longer in all.
    pub median: Option<f64>,
    /// 99 of 100 took no longer, by [`SHOWN_STAGES`].
    pub p99: [Option<f64>; SHOWN_STAGES.len()],
}

/// A topic on one core or on all.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicRow {
    pub topic: String,
    pub batches: f64,
    pub bytes_in: f64,
    pub bytes_out: f64,
    /// Bytes of a batch on average.
    pub batch_bytes: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct StageKey {
    api: String,
    stage: String,
    core: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TopicKey {
    topic: String,
    core: String,
}

#[derive(Clone, Copy, Debug, Default)]
struct TopicNumbers {
    batches: f64,
    bytes_in: f64,
    bytes_out: f64,
}

/// A histogram: values up to each bound, the last one infinite.
#[derive(Clone, Debug, Default)]
struct Durations(Vec<(f64, f64)>);

impl Model {
    pub fn since_start(address: &str, now: &Scrape) -> Model {
        Model::new(address, &Scrape::default(), now, None)
    }

    pub fn between(address: &str, before: &Scrape, now: &Scrape, seconds: f64) -> Model {
        Model::new(address, before, now, Some(seconds))
    }

    fn new(address: &str, before: &Scrape, now: &Scrape, seconds: Option<f64>) -> Model {
        let per = 1.0 / seconds.unwrap_or(1.0).max(1e-3);
        let build = now.samples("ottla_build_info").first();
        Model {
            address: address.to_owned(),
            version: build.map_or("", |build| build.label("version")).to_owned(),
            seconds,
            cores: cores(before, now, per),
            stages: stages(before, now, per),
            topics: topics(before, now, per),
        }
    }

    /// Of one core, or of all; those with the most requests first.
    pub fn apis(&self, core: Option<&str>) -> Vec<ApiRow> {
        let mut by_api: BTreeMap<&str, BTreeMap<&str, Durations>> = BTreeMap::new();
        for (key, durations) in &self.stages {
            if core.is_none_or(|core| key.core == core) {
                let stages = by_api.entry(&key.api).or_default();
                stages.entry(&key.stage).or_default().add(durations);
            }
        }
        let mut rows: Vec<ApiRow> = by_api
            .into_iter()
            .map(|(api, stages)| {
                let quantile = |stage, q| stages.get(stage).and_then(|d: &Durations| d.quantile(q));
                ApiRow {
                    api: api.to_owned(),
                    requests: stages.get("answered").map_or(0.0, Durations::count),
                    median: quantile("total", 0.5),
                    p99: SHOWN_STAGES.map(|stage| quantile(stage, 0.99)),
                }
            })
            .collect();
        rows.sort_by(|a, b| b.requests.total_cmp(&a.requests));
        rows
    }

    /// Of one core, or of all; those with the most bytes first.
    pub fn topics(&self, core: Option<&str>) -> Vec<TopicRow> {
        let mut by_topic: BTreeMap<&str, TopicNumbers> = BTreeMap::new();
        for (key, numbers) in &self.topics {
            if core.is_none_or(|core| key.core == core) {
                let sum = by_topic.entry(&key.topic).or_default();
                sum.batches += numbers.batches;
                sum.bytes_in += numbers.bytes_in;
                sum.bytes_out += numbers.bytes_out;
            }
        }
        let mut rows: Vec<TopicRow> = by_topic
            .into_iter()
            .map(|(topic, numbers)| TopicRow {
                topic: topic.to_owned(),
                batches: numbers.batches,
                bytes_in: numbers.bytes_in,
                bytes_out: numbers.bytes_out,
                batch_bytes: (numbers.batches > 0.0).then(|| numbers.bytes_in / numbers.batches),
            })
            .collect();
        let bytes = |row: &TopicRow| row.bytes_in + row.bytes_out;
        rows.sort_by(|a, b| bytes(b).total_cmp(&bytes(a)));
        rows
    }
}

impl Durations {
    fn add(&mut self, other: &Durations) {
        if self.0.is_empty() {
            self.0.clone_from(&other.0);
            return;
        }
        // All histograms of a node have the same bounds.
        for ((_, count), (_, more)) in self.0.iter_mut().zip(&other.0) {
            *count += more;
        }
    }

    fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// Within its bucket every value is taken to be as likely as any other, as Prometheus
    /// does. Beyond the last bound it is that bound.
    fn quantile(&self, q: f64) -> Option<f64> {
        let rank = self.count() * q;
        if rank <= 0.0 {
            return None;
        }
        let mut below = (0.0, 0.0);
        for &(bound, count) in &self.0 {
            if count >= rank {
                let (from, seen) = below;
                if bound.is_infinite() {
                    return Some(from);
                }
                return Some(from + (bound - from) * (rank - seen) / (count - seen));
            }
            below = (bound, count);
        }
        None
    }
}

fn cores(before: &Scrape, now: &Scrape, per: f64) -> Vec<CoreRow> {
    let mut rows: BTreeMap<String, CoreRow> = BTreeMap::new();
    type Field = fn(&mut CoreRow) -> &mut f64;
    let gauges: [(&str, Field); 6] = [
        ("ottla_connections", |row| &mut row.connections),
        ("ottla_partitions", |row| &mut row.partitions),
        ("ottla_requests_in_flight", |row| &mut row.in_flight),
        ("ottla_request_memory_bytes", |row| &mut row.memory),
        ("ottla_mesh_in_line", |row| &mut row.in_line),
        ("ottla_mesh_unanswered", |row| &mut row.unanswered),
    ];
    let counters: [(&str, Field); 6] = [
        ("ottla_request_bytes_total", |row| &mut row.bytes_in),
        ("ottla_response_bytes_total", |row| &mut row.bytes_out),
        ("ottla_stall_slow_polls_total", |row| &mut row.slow_polls),
        ("ottla_stall_blocked_calls_total", |row| {
            &mut row.blocked_calls
        }),
        ("ottla_stall_silences_total", |row| &mut row.silences),
        ("ottla_loop_parks_total", |row| &mut row.parks),
    ];
    let of_row = |rows: &mut BTreeMap<String, CoreRow>, core: &str, field: Field, more: f64| {
        let row = rows.entry(core.to_owned()).or_insert_with(|| CoreRow {
            core: core.to_owned(),
            ..CoreRow::default()
        });
        *field(row) += more;
    };
    for (name, field) in gauges {
        for sample in now.samples(name) {
            of_row(&mut rows, sample.label("core"), field, sample.value);
        }
    }
    for (name, field) in counters {
        for (sample, grown) in grown(before, now, name) {
            of_row(&mut rows, sample.label("core"), field, grown * per);
        }
    }
    for (sample, grown) in grown(before, now, &format!("{STAGES}_count")) {
        if sample.label("stage") == "answered" {
            let requests: Field = |row| &mut row.requests;
            of_row(&mut rows, sample.label("core"), requests, grown * per);
        }
    }
    let mut rows: Vec<CoreRow> = rows.into_values().collect();
    // By number; what has none comes last.
    rows.sort_by_key(|row| row.core.parse::<u16>().unwrap_or(u16::MAX));
    rows
}

fn stages(before: &Scrape, now: &Scrape, per: f64) -> BTreeMap<StageKey, Durations> {
    let mut found: BTreeMap<StageKey, Durations> = BTreeMap::new();
    for (sample, grown) in grown(before, now, &format!("{STAGES}_bucket")) {
        let key = StageKey {
            api: sample.label("api").to_owned(),
            stage: sample.label("stage").to_owned(),
            core: sample.label("core").to_owned(),
        };
        let bound = sample.label("le").parse().unwrap_or(f64::INFINITY);
        found.entry(key).or_default().0.push((bound, grown * per));
    }
    found
}

fn topics(before: &Scrape, now: &Scrape, per: f64) -> BTreeMap<TopicKey, TopicNumbers> {
    let mut found: BTreeMap<TopicKey, TopicNumbers> = BTreeMap::new();
    type Field = fn(&mut TopicNumbers) -> &mut f64;
    let fields: [(&str, Field); 3] = [
        ("ottla_topic_produce_batches_total", |t| &mut t.batches),
        ("ottla_topic_produce_bytes_total", |t| &mut t.bytes_in),
        ("ottla_topic_fetch_bytes_total", |t| &mut t.bytes_out),
    ];
    for (name, field) in fields {
        for (sample, grown) in grown(before, now, name) {
            let key = TopicKey {
                topic: sample.label("topic").to_owned(),
                core: sample.label("core").to_owned(),
            };
            *field(found.entry(key).or_default()) += grown * per;
        }
    }
    found
}

/// The samples of a counter, each with how much it has grown.
fn grown<'a>(before: &'a Scrape, now: &'a Scrape, name: &str) -> Vec<(&'a Sample, f64)> {
    let earlier: BTreeMap<&[(String, String)], f64> = before
        .samples(name)
        .iter()
        .map(|sample| (&*sample.labels, sample.value))
        .collect();
    let grown = |sample: &Sample| {
        let earlier = earlier.get(&*sample.labels).copied().unwrap_or(0.0);
        match sample.value - earlier {
            grown if grown < 0.0 => sample.value,
            grown => grown,
        }
    };
    let samples = now.samples(name).iter();
    samples.map(|sample| (sample, grown(sample))).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A node of two cores and its controller after so many produces on each core, of 1 KiB
    /// in 4 ms.
    pub fn scrape(produces: u64) -> Scrape {
        let mut text = "ottla_build_info{version=\"1.2.3\"} 1\n".to_owned();
        for core in ["0", "1", "controller"] {
            text +=
                &format!("ottla_stall_slow_polls_total{{core=\"{core}\",queue=\"request\"}} 1\n");
        }
        for core in ["0", "1"] {
            text += &format!(
                "ottla_connections{{core=\"{core}\"}} 3\n\
                 ottla_request_bytes_total{{core=\"{core}\"}} {0}\n\
                 ottla_topic_produce_batches_total{{core=\"{core}\",topic=\"orders\"}} {produces}\n\
                 ottla_topic_produce_bytes_total{{core=\"{core}\",topic=\"orders\"}} {0}\n",
                produces * 1024
            );
            for (stage, slow) in [("answered", 0), ("total", produces)] {
                let labels = format!("core=\"{core}\",api=\"Produce\",stage=\"{stage}\"");
                let fast = produces - slow;
                text += &format!(
                    "{STAGES}_bucket{{{labels},le=\"0.002\"}} {fast}\n\
                     {STAGES}_bucket{{{labels},le=\"0.004\"}} {produces}\n\
                     {STAGES}_bucket{{{labels},le=\"+Inf\"}} {produces}\n\
                     {STAGES}_count{{{labels}}} {produces}\n"
                );
            }
        }
        Scrape::parse(&text).unwrap()
    }

    #[test]
    fn what_grew_between_two_scrapes_is_told_by_the_second() {
        let model = Model::between("x", &scrape(100), &scrape(300), 2.0);
        let names: Vec<&str> = model.cores.iter().map(|row| &*row.core).collect();
        assert_eq!(names, ["0", "1", "controller"]);
        let wanted = CoreRow {
            core: "1".to_owned(),
            connections: 3.0,
            requests: 100.0,
            bytes_in: 102_400.0,
            ..CoreRow::default()
        };
        assert_eq!(model.cores[1], wanted);
        let all = model.apis(None);
        assert_eq!((all.len(), all[0].requests), (1, 200.0));
        assert_eq!(all[0].median, Some(0.003));
        assert_eq!(all[0].p99[0], Some(0.003_98));
        assert_eq!(all[0].p99[8], None);
        assert_eq!(model.apis(Some("0"))[0].requests, 100.0);
        let topic = &model.topics(None)[0];
        assert_eq!((&*topic.topic, topic.batches), ("orders", 200.0));
        assert_eq!(topic.batch_bytes, Some(1024.0));
        assert_eq!(model.topics(Some("0"))[0].bytes_in, 102_400.0);
    }

    #[test]
    fn a_restarted_node_counts_from_its_start() {
        let model = Model::between("x", &scrape(300), &scrape(10), 1.0);
        assert_eq!(model.apis(None)[0].requests, 20.0);
        let since = Model::since_start("x", &scrape(10));
        assert_eq!(since.apis(None)[0].requests, 20.0);
        assert_eq!((since.seconds, &*since.version), (None, "1.2.3"));
    }

    #[test]
    fn an_idle_node_has_rows_and_no_times() {
        let model = Model::between("x", &scrape(5), &scrape(5), 1.0);
        let produce = &model.apis(None)[0];
        assert_eq!((produce.requests, produce.median), (0.0, None));
        assert_eq!(model.topics(None)[0].batch_bytes, None);
        assert_eq!(
            Durations(vec![(1.0, 0.0), (f64::INFINITY, 4.0)]).quantile(0.5),
            Some(1.0)
        );
    }
}
