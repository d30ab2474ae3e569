//! A result as text for people. Pure.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use super::record::PERCENTILES;
use super::result::{BenchResult, Latency, Phase, Usage};

/// The summary that ends a run.
pub fn text(result: &BenchResult) -> String {
    let mut out = String::new();
    let broker = &result.broker;
    let told = [broker.software.as_deref(), broker.version.as_deref()];
    let told: Vec<&str> = told.into_iter().flatten().collect();
    let option = |name: &str| result.options[name].to_string();
    // Writing to a string can't fail.
    let _ = writeln!(
        out,
        "{} against {}{}",
        result.name,
        broker.bootstrap,
        told.iter()
            .map(|word| format!(" {word}"))
            .collect::<String>(),
    );
    let _ = writeln!(
        out,
        "  {} connections, {} partitions, {} records of {} bytes a batch, acks {}",
        option("connections"),
        option("partitions"),
        option("records_per_batch"),
        option("record_bytes"),
        match option("acks").as_str() {
            "-1" => "all".to_owned(),
            acks => acks.to_owned(),
        },
    );
    for phase in &result.phases {
        phase_text(&mut out, phase);
    }
    let invalid = result.phases.iter().filter(|phase| !phase.valid).count();
    if invalid > 0 {
        let of = result.phases.len();
        let _ = writeln!(out, "\n{invalid} of {of} phases are INVALID, see above");
    }
    out
}

fn phase_text(out: &mut String, phase: &Phase) {
    let pace = match (phase.pace.as_str(), phase.rate) {
        ("open", Some(rate)) => format!("open loop, {rate:.0} records/s offered"),
        ("closed", _) => "closed loop".to_owned(),
        _ => match phase.counts.achieved {
            1 => "once".to_owned(),
            times => format!("{times} times"),
        },
    };
    let _ = writeln!(out, "\n{} ({pace})", phase.name);
    let counts = &phase.counts;
    if phase.throughput.records_per_s > 0.0 {
        let _ = writeln!(
            out,
            "  throughput {:.0} records/s, {:.1} MB/s of values, {:.0} batches/s",
            phase.throughput.records_per_s,
            phase.throughput.bytes_per_s / 1e6,
            phase.throughput.batches_per_s,
        );
    }
    out.push_str(&heading());
    for (name, latency) in &phase.latencies {
        let name = if name == "lateness" { "own late" } else { name };
        latency_row(out, name, latency);
    }
    // Where nobody looked at it there are no threads either.
    if let Some(busiest) = phase.generator.busiest_thread_percent {
        let usage = usage_text(&phase.generator);
        let wait = phase.generator.cpu_wait_percent.unwrap_or(0.0);
        let _ = writeln!(
            out,
            "  generator  {usage}, its busiest thread {busiest:.0} % and {wait:.0} % waiting for a CPU"
        );
    }
    if let Some(broker) = &phase.broker {
        let _ = writeln!(out, "  broker     {}", usage_text(broker));
    }
    let _ = write!(out, "  checked    {} answers", counts.answers);
    if counts.batches > 0 {
        let (batches, checked) = (counts.batches, counts.crc_checked);
        let _ = write!(out, ", offsets of {batches} batches, CRC of {checked}");
    }
    out.push('\n');
    if phase.faults.is_empty() {
        out.push_str("  valid\n");
    }
    for fault in &phase.faults {
        let _ = writeln!(out, "  INVALID: {fault}");
    }
}

fn usage_text(usage: &Usage) -> String {
    let mut text = format!("{:.0} % of one CPU", usage.cpu_percent);
    if let Some(cpu_s) = usage.cpu_s_per_gb {
        text += &format!(", {cpu_s:.2} CPU s/GB");
    }
    if let Some(bytes) = usage.peak_rss_bytes {
        text += &format!(", peak RSS {} MiB", bytes >> 20);
    }
    text
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
    let at = PERCENTILES.map(|(_, quantile)| values.value_at_quantile(quantile));
    cells(out, name, &at);
}

fn latency_row(out: &mut String, name: &str, latency: &Latency) {
    let at = [
        latency.p50_ns,
        latency.p90_ns,
        latency.p99_ns,
        latency.p99_9_ns,
        latency.p99_99_ns,
        latency.max_ns,
    ];
    cells(out, name, &at);
}

fn cells(out: &mut String, name: &str, ns: &[u64]) {
    let _ = write!(out, "  {name:<10}");
    for ns in ns {
        let _ = write!(out, "{:>11.1}", *ns as f64 / 1000.0);
    }
    out.push('\n');
}
