//! `ottla bench report`: what it makes of results, and that BENCHMARKS.md says what the
//! committed results say.

use std::fs;
use std::path::Path;
use std::process::Command;

use hdrhistogram::Histogram;
use ottla::bench::compare::plan::{
    PLAN_FILE, Plan, SCHEMA as PLAN_SCHEMA, Side, TOOL as PLAN_TOOL,
};
use ottla::bench::record;
use ottla::bench::report;
use ottla::bench::result::{BenchResult, Phase, SCHEMA, TOOL, Throughput};

const RESULTS: &str = "benches/results";
const FILE: &str = "BENCHMARKS.md";

fn latencies(micros: u64) -> Histogram<u64> {
    let mut values = record::histogram();
    for step in 1..=2000 {
        values.record(micros * 1000 + step * 10).unwrap();
    }
    values
}

fn result(name: &str, megabytes: f64, micros: u64, faults: &[&str]) -> BenchResult {
    let mut result = BenchResult {
        schema: SCHEMA,
        tool: TOOL.to_owned(),
        scenario: "produce".to_owned(),
        name: name.to_owned(),
        valid: true,
        machine: serde_json::json!({ "cpu": "One CPU", "cores": 2, "governor": null }),
        ..Default::default()
    };
    result.add(Phase {
        name: "saturation".to_owned(),
        pace: "closed".to_owned(),
        valid: faults.is_empty(),
        faults: faults.iter().map(|fault| (*fault).to_owned()).collect(),
        throughput: Throughput {
            records_per_s: megabytes * 1e4,
            bytes_per_s: megabytes * 1e6,
            ..Default::default()
        },
        latencies: [("publish".to_owned(), record::latency(&latencies(micros)))].into(),
        ..Default::default()
    });
    result
}

/// A comparison of five pairs in `dir/quick/10-produce`, and a single result beside it.
fn write_results(dir: &Path) {
    let side = |name: &str| Side {
        name: name.to_owned(),
    };
    let plan = Plan {
        schema: PLAN_SCHEMA,
        tool: PLAN_TOOL.to_owned(),
        name: "10-produce".to_owned(),
        title: "Publishing".to_owned(),
        a: side("ottla"),
        b: side("kafka"),
        ceiling: Some(side("floor")),
        pairs: 5,
        command: vec!["produce".to_owned(), "--closed".to_owned()],
        ..Default::default()
    };
    let comparison = dir.join("quick/10-produce");
    fs::create_dir_all(&comparison).unwrap();
    fs::write(comparison.join(PLAN_FILE), plan.to_json()).unwrap();
    for slice in plan.slices() {
        let name = &plan.side(slice.role).unwrap().name;
        let megabytes = match name.as_str() {
            "ottla" => 300.0 + f64::from(slice.pair),
            "kafka" => 100.0,
            _ => 900.0,
        };
        let late = ["achieved 90 % of its rate"];
        let faults = &late[..usize::from(name == "kafka" && slice.pair == 4)];
        let found = result(name, megabytes, 100 * u64::from(slice.pair), faults);
        fs::write(comparison.join(plan.file_name(slice)), found.to_json()).unwrap();
    }
    fs::write(dir.join("quick/about.md"), "Made here.\n").unwrap();
    fs::write(
        dir.join("quick/single.json"),
        result("alone", 1.0, 1, &[]).to_json(),
    )
    .unwrap();
    fs::write(dir.join("quick/form.json"), "{\"form\": \"quick\"}").unwrap();
}

#[test]
fn a_report_has_tables_plots_machine_and_faults_and_is_the_same_each_time() {
    let dir = tempfile::tempdir().unwrap();
    write_results(dir.path());
    let file = dir.path().join("file.md");
    let (begin, end) = (report::BEGIN, report::END);
    fs::write(&file, format!("head\n{begin}\n{end}\ntail\n")).unwrap();
    let run = || {
        let output = Command::new(env!("CARGO_BIN_EXE_ottla"))
            .args(["bench", "report"])
            .arg(dir.path())
            .arg("--into")
            .arg(&file)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        let plot = dir.path().join("quick/10-produce/saturation-publish.svg");
        (
            fs::read_to_string(&file).unwrap(),
            fs::read_to_string(plot).unwrap(),
        )
    };
    let (text, plot) = run();
    for line in [
        "## quick",
        "Made here.",
        "| throughput | MB/s | 303 | 100 | 900 | 3.03 [3.01, 3.05] | ottla |",
        "⚠ Invalid: kafka, pair 4: saturation: achieved 90 % of its rate",
        "![publish, saturation](quick/10-produce/saturation-publish.svg)",
        "    ottla bench produce --closed",
        "### alone",
        "cpu: One CPU\ncores: 2\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(text.starts_with("head\n") && text.ends_with("\ntail\n"));
    assert!(
        !text.contains("governor"),
        "what couldn't be read is left out"
    );
    assert!(plot.contains("ottla") && plot.contains("floor"));
    assert_eq!(run(), (text, plot));
}

#[test]
fn a_broken_result_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("x.json"),
        r#"{"tool": "ottla bench", "schema": 99}"#,
    )
    .unwrap();
    let error = report::generate(dir.path(), dir.path()).err().unwrap();
    assert!(
        error.contains("x.json") && error.contains("schema 99"),
        "{error}"
    );
}

#[test]
fn benchmarks_md_says_what_the_committed_results_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = report::generate(&root.join(RESULTS), root).unwrap();
    let text = fs::read_to_string(root.join(FILE)).unwrap();
    let made = report::replace_between_marks(&text, &found.markdown).unwrap();
    let advice = format!("run `ottla bench report {RESULTS} --into {FILE}`");
    assert!(made == text, "{FILE} isn't what the results say; {advice}");
    for (path, svg) in found.files {
        let there = fs::read_to_string(&path).unwrap_or_default();
        assert!(there == svg, "{} is stale; {advice}", path.display());
    }
}
