//! What the slices of a comparison say: a row a figure, with each side's median and the
//! median of the pairs' ratios. Pure. Called by `compare` for the terminal, by `report` for
//! the tables.
//!
//! Invariants: ratios are of slices of one pair, never of medians; a slice that its run
//! calls invalid stays in (to leave it out would flatter whoever made it so), and is told.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::super::result::{BenchResult, Latency, Phase};
use super::plan::{Plan, Role, Slice};
use super::stats::{COVERAGE_WANTED, Median, median};

/// The generator's own, which says nothing of a broker.
const LATENESS: &str = "lateness";

/// A figure of a result.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Figure {
    /// Its place among a phase's figures, whichever of them there are: throughput, the
    /// latencies by their names, the broker's resources; and the place among those.
    order: (u8, String, usize),
    pub name: String,
    pub unit: &'static str,
}

pub struct Row {
    pub phase: String,
    pub figure: Figure,
    /// Medians of all slices of the side.
    pub a: Option<f64>,
    pub b: Option<f64>,
    pub ceiling: Option<f64>,
    /// Of A to B, by pairs.
    pub ratio: Option<Median>,
}

impl Row {
    /// Whether A is better; none if that can't be told.
    pub fn better(&self) -> Option<bool> {
        let ratio = self.ratio.filter(|ratio| ratio.count > 1)?;
        let more_is_better = matches!(self.figure.unit, "records/s" | "MB/s");
        if ratio.low > 1.0 {
            Some(more_is_better)
        } else if ratio.high < 1.0 {
            Some(!more_is_better)
        } else {
            None
        }
    }
}

pub struct Summary {
    pub rows: Vec<Row>,
    /// One line for each slice that isn't valid.
    pub invalid: Vec<String>,
    /// Pairs of which both slices are there.
    pub pairs: usize,
}

/// Whether the latency of this name is the broker's.
pub fn is_of_a_broker(latency: &str) -> bool {
    latency != LATENESS
}

/// The figures of a phase that say something of the broker.
pub fn figures(phase: &Phase) -> Vec<(Figure, f64)> {
    let mut found = Vec::new();
    let mut add = |order: (u8, &str, usize), name: String, unit, value: f64| {
        let order = (order.0, order.1.to_owned(), order.2);
        found.push((Figure { order, name, unit }, value));
    };
    // In open loop the rate is the schedule's, not the broker's.
    if phase.pace != "open" {
        let throughput = &phase.throughput;
        let rates = [
            (throughput.records_per_s, "records/s"),
            (throughput.bytes_per_s / 1e6, "MB/s"),
        ];
        for (at, (value, unit)) in rates.into_iter().enumerate() {
            if value > 0.0 {
                add((0, "", at), "throughput".to_owned(), unit, value);
            }
        }
    }
    let measured = phase.latencies.iter();
    for (name, latency) in measured.filter(|(name, it)| is_of_a_broker(name) && it.count > 0) {
        for (at, percentile, ns) in percentiles(latency) {
            let label = format!("{name} {percentile}");
            add((1, name, at), label, "µs", ns as f64 / 1e3);
        }
    }
    if let Some(usage) = &phase.broker {
        if let Some(cpu) = usage.cpu_s_per_gb {
            add((2, "", 0), "broker's CPU".to_owned(), "s/GB", cpu);
        }
        if let Some(bytes) = usage.peak_rss_bytes {
            let name = "broker's peak memory".to_owned();
            add((2, "", 1), name, "MB", bytes as f64 / 1e6);
        }
    }
    found
}

/// Those that so many values can tell.
fn percentiles(latency: &Latency) -> Vec<(usize, &'static str, u64)> {
    let all = [
        ("p50", latency.p50_ns, 1),
        ("p99", latency.p99_ns, 100),
        ("p99.9", latency.p99_9_ns, 1000),
        ("p99.99", latency.p99_99_ns, 10_000),
        ("max", latency.max_ns, 1),
    ];
    let numbered = all.into_iter().enumerate();
    // Kafka's tools leave one out; it then is less than the ones below it.
    let mut before = 0;
    let told = numbered.filter(move |(_, (_, ns, min))| {
        let told = latency.count >= *min && *ns >= before;
        before = before.max(*ns);
        told
    });
    told.map(|(at, (name, ns, _))| (at, name, ns)).collect()
}

pub fn summarise(plan: &Plan, results: &[(Slice, BenchResult)]) -> Summary {
    // Phases in the order in which they first come, figures by their place in the phase.
    let mut phases: Vec<&str> = Vec::new();
    let mut values: BTreeMap<(usize, Figure), BTreeMap<(Role, u32), f64>> = BTreeMap::new();
    for (slice, result) in results {
        for phase in &result.phases {
            let known = phases.iter().position(|name| *name == phase.name);
            let at = known.unwrap_or_else(|| {
                phases.push(&phase.name);
                phases.len() - 1
            });
            for (figure, value) in figures(phase) {
                let by_slice = values.entry((at, figure)).or_default();
                by_slice.insert((slice.role, slice.pair), value);
            }
        }
    }
    let rows = values.into_iter().map(|((at, figure), by_slice)| {
        let of = |role| {
            let found = by_slice.iter().filter(|((of, _), _)| *of == role);
            let found: Vec<f64> = found.map(|(_, value)| *value).collect();
            median(&found, COVERAGE_WANTED).map(|median| median.value)
        };
        let ratios = (1..=plan.pairs).filter_map(|pair| {
            let a = by_slice.get(&(Role::A, pair))?;
            Some(a / by_slice.get(&(Role::B, pair))?)
        });
        Row {
            phase: phases[at].to_owned(),
            a: of(Role::A),
            b: of(Role::B),
            ceiling: of(Role::Ceiling),
            ratio: median(&ratios.collect::<Vec<f64>>(), COVERAGE_WANTED),
            figure,
        }
    });
    let there = |role, pair| {
        let slice = Slice { pair, role };
        results.iter().any(|(of, _)| *of == slice)
    };
    Summary {
        rows: rows.collect(),
        invalid: invalid(plan, results),
        pairs: (1..=plan.pairs)
            .filter(|pair| there(Role::A, *pair) && there(Role::B, *pair))
            .count(),
    }
}

fn invalid(plan: &Plan, results: &[(Slice, BenchResult)]) -> Vec<String> {
    let faulty = results.iter().filter(|(_, result)| !result.valid);
    let line = |(slice, result): &(Slice, BenchResult)| {
        let name = plan.side(slice.role).map_or("", |side| &side.name);
        format!("{name}, pair {}: {}", slice.pair, result.faults.join("; "))
    };
    faulty.map(line).collect()
}

/// Short enough for a table, long enough to compare.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => return "0".to_owned(),
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.9995 => 2,
        size if size >= 0.09995 => 3,
        size if size >= 0.009_995 => 4,
        size if size >= 0.000_999_5 => 5,
        _ => 6,
    };
    let text = format!("{value:.digits$}");
    let whole = text.find('.').unwrap_or(text.len());
    let mut grouped = String::new();
    for (at, digit) in text.char_indices() {
        let left = whole.saturating_sub(at);
        let after_digit = grouped.ends_with(|before: char| before.is_ascii_digit());
        if after_digit && left > 0 && left.is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1.52 [1.48, 1.60]`, with what the interval is worth if that isn't the 90 % of the head.
pub fn ratio(found: &Median) -> String {
    let (value, low, high) = (number(found.value), number(found.low), number(found.high));
    if found.count == 1 {
        return format!("{value} (one pair)");
    }
    let mut text = format!("{value} [{low}, {high}]");
    if found.coverage < COVERAGE_WANTED {
        let _ = write!(text, " ({:.0} %)", found.coverage * 100.0);
    }
    text
}

/// For a terminal.
pub fn text(plan: &Plan, summary: &Summary) -> String {
    let ceiling = plan.ceiling.as_ref();
    let mut out = format!(
        "{}: {} ÷ {}, {} of {} pairs: median ratio and its 90 % interval\n",
        plan.name, plan.a.name, plan.b.name, summary.pairs, plan.pairs
    );
    let mut phase = "";
    for row in &summary.rows {
        if row.phase != phase {
            phase = &row.phase;
            let _ = write!(out, "{phase:<34}{:>12}{:>12}", plan.a.name, plan.b.name);
            if let Some(ceiling) = ceiling {
                let _ = write!(out, "{:>12}", ceiling.name);
            }
            out.push('\n');
        }
        let label = format!("{}, {}", row.figure.name, row.figure.unit);
        let cell = |value: Option<f64>| value.map_or("-".to_owned(), number);
        let _ = write!(out, "  {label:<32}{:>12}{:>12}", cell(row.a), cell(row.b));
        if ceiling.is_some() {
            let _ = write!(out, "{:>12}", cell(row.ceiling));
        }
        let told = row.ratio.as_ref().map_or("-".to_owned(), ratio);
        let _ = writeln!(out, "  {told}");
    }
    for line in &summary.invalid {
        let _ = writeln!(out, "  INVALID: {line}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::super::result::Throughput;
    use super::super::plan::Side;
    use super::*;

    fn result(records_per_s: f64, p50_ns: u64) -> BenchResult {
        let latency = Latency {
            count: 100,
            p50_ns,
            p99_ns: 2 * p50_ns,
            max_ns: 3 * p50_ns,
            ..Default::default()
        };
        let mut result = BenchResult::default();
        result.add(Phase {
            name: "saturation".to_owned(),
            pace: "closed".to_owned(),
            throughput: Throughput {
                records_per_s,
                ..Default::default()
            },
            latencies: [
                ("publish".to_owned(), latency.clone()),
                (LATENESS.to_owned(), latency),
            ]
            .into(),
            ..Default::default()
        });
        result
    }

    fn plan() -> Plan {
        let side = |name: &str| Side {
            name: name.to_owned(),
        };
        Plan {
            name: "produce".to_owned(),
            a: side("ottla"),
            b: side("kafka"),
            ceiling: Some(side("floor")),
            pairs: 3,
            ..Default::default()
        }
    }

    #[test]
    fn ratios_are_of_pairs_and_medians_of_sides() {
        let at = |pair, role| Slice { pair, role };
        let mut wrong = result(900.0, 900);
        wrong.faults = vec!["saturation: too slow".to_owned()];
        wrong.valid = false;
        let results = [
            (at(1, Role::A), result(200.0, 1000)),
            (at(1, Role::B), result(100.0, 4000)),
            (at(1, Role::Ceiling), result(800.0, 500)),
            (at(2, Role::A), result(300.0, 3000)),
            (at(2, Role::B), result(100.0, 1000)),
            // Without its pair it counts for its side, but for no ratio.
            (at(3, Role::A), wrong),
        ];
        let summary = summarise(&plan(), &results);
        let names: Vec<_> = summary.rows.iter().map(|row| &*row.figure.name).collect();
        let all = ["throughput", "publish p50", "publish p99", "publish max"];
        assert_eq!(names, all, "no lateness, no percentile of too few");
        let throughput = &summary.rows[0];
        assert_eq!((throughput.a, throughput.b), (Some(300.0), Some(100.0)));
        assert_eq!(throughput.ceiling, Some(800.0));
        let ratio = throughput.ratio.unwrap();
        assert_eq!((ratio.low, ratio.value, ratio.high), (2.0, 2.5, 3.0));
        assert_eq!(summary.rows[1].ratio.unwrap().value, (0.25 + 3.0) / 2.0);
        assert_eq!(throughput.better(), Some(true));
        assert_eq!(summary.rows[1].better(), None);
        assert_eq!(summary.pairs, 2);
        assert_eq!(summary.invalid, ["ottla, pair 3: saturation: too slow"]);
        let text = text(&plan(), &summary);
        assert!(text.contains("2.50 [2.00, 3.00] (50 %)"), "{text}");
        assert!(text.contains("INVALID: ottla, pair 3"), "{text}");
    }

    #[test]
    fn slices_that_tell_different_percentiles_share_their_rows() {
        let at = |role| Slice { pair: 1, role };
        let mut more = result(100.0, 1000);
        let latency = more.phases[0].latencies.get_mut("publish").unwrap();
        (latency.count, latency.p99_9_ns) = (1000, 2500);
        let results = [(at(Role::A), more), (at(Role::B), result(100.0, 1000))];
        let summary = summarise(&plan(), &results);
        let rows = summary.rows.iter();
        let found: Vec<_> = rows
            .map(|row| (&*row.figure.name, row.a.is_some(), row.b.is_some()))
            .collect();
        let wanted = [
            ("throughput", true, true),
            ("publish p50", true, true),
            ("publish p99", true, true),
            ("publish p99.9", true, false),
            ("publish max", true, true),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn an_open_loop_has_no_throughput_of_its_own() {
        let mut phase = result(1.0, 1).phases.remove(0);
        phase.pace = "open".to_owned();
        let names: Vec<_> = figures(&phase).into_iter().map(|(it, _)| it.name).collect();
        assert_eq!(names, ["publish p50", "publish p99", "publish max"]);
    }

    #[test]
    fn numbers_have_three_digits_or_all_before_the_point() {
        let cases = [
            (0.0, "0"),
            (0.1234, "0.123"),
            (0.01234, "0.0123"),
            (0.001_234, "0.00123"),
            (0.000_123_4, "0.000123"),
            (0.9996, "1.00"),
            (1.005, "1.00"),
            (9.996, "10.0"),
            (99.96, "100"),
            (1234.5, "1,234"),
            (1_234_567.0, "1,234,567"),
            (-1234.0, "-1,234"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }
}
