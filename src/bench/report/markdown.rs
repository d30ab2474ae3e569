//! A group of results as Markdown. Pure. Called by `report`.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::super::compare::summary::{self, Row, Summary, number, ratio, summarise};
use super::super::result::BenchResult;
use super::collect::{Compared, Group, Single};
use super::plot::Plot;

/// Facts of the machine that make two results comparable.
const SAME_MACHINE: [&str; 3] = ["cpu", "cores", "kernel"];

pub fn group(
    group: &Group,
    plots: &[Plot],
    link: &dyn Fn(&Path) -> String,
) -> Result<String, String> {
    let mut out = String::new();
    if !group.name.is_empty() {
        let _ = writeln!(out, "## {}\n", group.name);
    }
    if let Some(about) = &group.about {
        let _ = writeln!(out, "{}\n", about.trim_end());
    }
    let summaries: Vec<_> = group
        .comparisons
        .iter()
        .map(|it| (it, summarise(&it.plan, &it.results)))
        .collect();
    if !summaries.is_empty() {
        out.push_str(&in_short(&summaries));
    }
    for (compared, summary) in &summaries {
        let name = &compared.plan.name;
        let plots = plots.iter().filter(|plot| plot.comparison == *name);
        out.push_str(&comparison(compared, summary, plots, link));
    }
    for single in &group.singles {
        out.push_str(&one(single, link));
    }
    out.push_str(&machine(group));
    Ok(out.trim_end().to_owned() + "\n")
}

/// The first figures of each phase: throughput, or the median and p99 of the latency.
fn in_short(summaries: &[(&Compared, Summary)]) -> String {
    let plan = &summaries[0].0.plan;
    let mut out = format!("### In short\n\n{}", head("comparison", plan));
    for (compared, summary) in summaries {
        let mut shown = String::new();
        for row in summary.rows.iter().filter(|row| is_headline(row)) {
            let title = title(compared);
            let label = format!("{title}, {}: {}", row.phase, row.figure.name);
            let invalid = if summary.invalid.is_empty() {
                ""
            } else {
                " ⚠"
            };
            shown.push_str(&table_row(&format!("{label}{invalid}"), row, plan));
        }
        out.push_str(&shown);
    }
    out.push_str(
        "\nThe ratio is the median over pairs of slices with its 90 % interval; where there \
         are too few pairs for that, it is the whole range, with what it is worth in \
         parentheses. “Better” names a side when the interval leaves out 1. ⚠: a slice was \
         invalid; it is told below.\n\n",
    );
    out
}

fn is_headline(row: &Row) -> bool {
    let name = row.figure.name.as_str();
    (name == "throughput" && row.figure.unit == "MB/s")
        || ((name.ends_with(" p50") || name.ends_with(" p99")) && !row.phase.contains("saturation"))
}

fn title(compared: &Compared) -> &str {
    match compared.plan.title.as_str() {
        "" => &compared.plan.name,
        title => title,
    }
}

fn head(first: &str, plan: &super::super::compare::plan::Plan) -> String {
    let (a, b) = (&plan.a.name, &plan.b.name);
    let mut line = format!("| {first} | unit | {a} | {b} |");
    let mut rule = "|---|---|--:|--:|".to_owned();
    if let Some(ceiling) = &plan.ceiling {
        let _ = write!(line, " {} |", ceiling.name);
        rule.push_str("--:|");
    }
    format!("{line} {a} ÷ {b} | better |\n{rule}--:|---|\n")
}

fn table_row(label: &str, row: &Row, plan: &super::super::compare::plan::Plan) -> String {
    let cell = |value: Option<f64>| value.map_or("–".to_owned(), number);
    let unit = row.figure.unit;
    let mut line = format!("| {label} | {unit} | {} | {} |", cell(row.a), cell(row.b));
    if plan.ceiling.is_some() {
        let _ = write!(line, " {} |", cell(row.ceiling));
    }
    let told = row.ratio.as_ref().map_or("–".to_owned(), ratio);
    let better = match row.better() {
        Some(true) => &plan.a.name,
        Some(false) => &plan.b.name,
        None => "",
    };
    format!("{line} {told} | {better} |\n")
}

fn comparison<'a>(
    compared: &Compared,
    summary: &Summary,
    plots: impl Iterator<Item = &'a Plot>,
    link: &dyn Fn(&Path) -> String,
) -> String {
    let plan = &compared.plan;
    let mut out = format!("### {}\n\n", title(compared));
    let verb = if plan.external { "" } else { "ottla bench " };
    let topic: Vec<&str> = plan.topic_configs.iter().map(String::as_str).collect();
    let _ = writeln!(out, "    {verb}{}\n", plan.command.join(" "));
    if !topic.is_empty() {
        let _ = writeln!(out, "Topic with {}.\n", topic.join(", "));
    }
    let _ = writeln!(
        out,
        "{} of {} pairs; results in [{}]({}).\n",
        summary.pairs,
        plan.pairs,
        plan.name,
        link(&compared.dir)
    );
    let mut phase = None;
    for row in &summary.rows {
        if phase != Some(&row.phase) {
            if phase.is_some() {
                out.push('\n');
            }
            out.push_str(&head(&row.phase, plan));
            phase = Some(&row.phase);
        }
        out.push_str(&table_row(&row.figure.name, row, plan));
    }
    out.push('\n');
    for line in &summary.invalid {
        let _ = writeln!(out, "⚠ Invalid: {line}\n");
    }
    for plot in plots {
        let path = link(&plot.path);
        let _ = writeln!(out, "![{}, {}]({path})\n", plot.latency, plot.phase);
    }
    out
}

fn one(single: &Single, link: &dyn Fn(&Path) -> String) -> String {
    let result = &single.result;
    let name = match result.name.as_str() {
        "" => &result.scenario,
        name => name,
    };
    let broker = &result.broker;
    let whose = [broker.software.as_deref(), broker.version.as_deref()];
    let whose: Vec<&str> = whose.into_iter().flatten().collect();
    let whose = match whose.is_empty() {
        true => String::new(),
        false => format!(": {}", whose.join(" ")),
    };
    let mut out = format!(
        "### {name}{whose}\n\nResult: [{name}]({}).\n\n",
        link(&single.path)
    );
    if result.scenario == "floor" {
        out.push_str(&floor(result));
    } else {
        out.push_str("| phase | figure | unit | value |\n|---|---|---|--:|\n");
        for phase in &result.phases {
            for (figure, value) in summary::figures(phase) {
                let (phase, value) = (&phase.name, number(value));
                let (name, unit) = (&figure.name, figure.unit);
                let _ = writeln!(out, "| {phase} | {name} | {unit} | {value} |");
            }
        }
    }
    out.push('\n');
    for fault in &result.faults {
        let _ = writeln!(out, "⚠ Invalid: {fault}\n");
    }
    out
}

/// What the kernel gives: a line a measurement.
fn floor(result: &BenchResult) -> String {
    let mut out = "| step | MB/s | p50 µs | p99 µs | p99.9 µs | max µs |\n".to_owned();
    out.push_str("|---|--:|--:|--:|--:|--:|\n");
    for phase in &result.phases {
        let Some(step) = phase.latencies.get("step") else {
            continue;
        };
        let megabytes = number(phase.throughput.bytes_per_s / 1e6);
        let _ = write!(out, "| {} | {megabytes} |", phase.name);
        for ns in [step.p50_ns, step.p99_ns, step.p99_9_ns, step.max_ns] {
            let _ = write!(out, " {} |", number(ns as f64 / 1e3));
        }
        out.push('\n');
    }
    out
}

fn machine(group: &Group) -> String {
    let mut machines: Vec<&Value> = Vec::new();
    for result in group.results() {
        let same = |other: &&Value| {
            SAME_MACHINE
                .iter()
                .all(|it| other[*it] == result.machine[*it])
        };
        if result.machine.is_object() && !machines.iter().any(same) {
            machines.push(&result.machine);
        }
    }
    let mut out = String::new();
    for machine in machines {
        let mut lines = Vec::new();
        flatten("", machine, &mut lines);
        let _ = writeln!(out, "### Machine\n\n```text\n{}\n```\n", lines.join("\n"));
    }
    out
}

/// `a.b: value`, a line each; what couldn't be read is left out.
fn flatten(name: &str, value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (key, value) in fields {
                let name = if name.is_empty() {
                    key.clone()
                } else {
                    format!("{name}.{key}")
                };
                flatten(&name, value, lines);
            }
        }
        Value::String(text) => lines.push(format!("{name}: {}", text.replace('\n', " "))),
        other => lines.push(format!("{name}: {other}")),
    }
}
