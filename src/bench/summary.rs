//! A run's outcome as text for people. Pure.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use super::outcome::Outcome;
use super::record::PERCENTILES;

/// The summary that ends a run.
pub fn text(outcome: &Outcome) -> String {
    let mut out = String::new();
    let params = &outcome.params;
    let pace = match params.rate {
        Some(rate) => format!("open loop at {rate} records/s"),
        None => format!("closed loop, {} under way a connection", params.depth),
    };
    // Writing to a string can't fail.
    let _ = writeln!(
        out,
        "{} to {} ({}): {pace}, {} connections, {} records of {} bytes a batch, acks {}",
        outcome.scenario,
        params.bootstrap,
        params.topic,
        params.connections,
        params.records_per_batch(),
        params.record_bytes,
        params.acks,
    );
    let _ = writeln!(
        out,
        "  throughput {:.0} records/s, {:.1} MB/s of values; {} records acknowledged",
        outcome.records_per_second(),
        outcome.bytes_per_second() / 1e6,
        outcome.acknowledged,
    );
    out.push_str(&heading());
    row(&mut out, "publish", &outcome.publish);
    if let Some(arrival) = &outcome.arrival {
        row(&mut out, "arrival", arrival);
    }
    if outcome.is_open_loop() {
        row(&mut out, "own late", &outcome.lateness);
    }
    let _ = writeln!(
        out,
        "  generator  {:.0} % of one CPU, its busiest thread {:.0} %",
        outcome.cpu_percent_sum,
        outcome.cpu_percent_max(),
    );
    if outcome.faults.is_empty() {
        out.push_str("  valid\n");
    }
    for fault in &outcome.faults {
        let _ = writeln!(out, "  INVALID: {fault}");
    }
    out
}

pub(super) fn heading() -> String {
    let mut out = format!("  {:<10}", "µs");
    for (name, _) in PERCENTILES {
        let name = name.trim_end_matches("_ns").replace('_', ".");
        let _ = write!(out, "{name:>11}");
    }
    out.push('\n');
    out
}

/// A line of percentiles.
pub(super) fn row(out: &mut String, name: &str, values: &Histogram<u64>) {
    let _ = write!(out, "  {name:<10}");
    for (_, quantile) in PERCENTILES {
        let micros = values.value_at_quantile(quantile) as f64 / 1000.0;
        let _ = write!(out, "{micros:>11.1}");
    }
    out.push('\n');
}
