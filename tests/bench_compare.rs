//! `ottla bench compare` with two floors as servers: turns, frozen processes, resuming. Most
//! slices are a shell's, so that nothing is measured.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use ottla::bench::result::{BenchResult, Phase, SCHEMA, TOOL, Throughput};

/// Ended when dropped.
struct Floor {
    child: Child,
    address: String,
}

impl Floor {
    fn start(dir: &Path) -> Floor {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ottla"))
            .args(["bench", "floor", "--serve", "127.0.0.1:0", "--dir"])
            .arg(dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        let (_, address) = line.split_once("serving on ").unwrap();
        Floor {
            address: address.to_owned(),
            child,
        }
    }

    /// R, S, T, …
    fn state(&self) -> String {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        stat.split(' ').nth(2).unwrap().to_owned()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sample() -> String {
    let mut result = BenchResult {
        schema: SCHEMA,
        tool: TOOL.to_owned(),
        ..Default::default()
    };
    result.add(Phase {
        name: "saturation".to_owned(),
        pace: "closed".to_owned(),
        throughput: Throughput {
            records_per_s: 5.0,
            ..Default::default()
        },
        ..Default::default()
    });
    result.to_json()
}

/// Slices that a shell runs.
fn compare(dir: &Path, a: &Floor, b: &Floor, pairs: &str, command: &str) -> Output {
    let command = ["--external", "--", "sh", "-c", command];
    compare_with(dir, a, b, pairs, &command)
}

fn compare_with(dir: &Path, a: &Floor, b: &Floor, pairs: &str, command: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ottla"))
        .args(["bench", "compare", "--a", &format!("one={}", a.address)])
        .args(["--b", &format!("two={}", b.address)])
        .args(["--a-pid", &a.child.id().to_string()])
        .args(["--b-pid", &b.child.id().to_string()])
        .args(["--pairs", pairs, "--partitions", "2"])
        .args(["--topic-config", "flush.messages=1", "--out"])
        .arg(dir.join("out"))
        .args(command)
        .output()
        .unwrap()
}

#[test]
fn slices_run_in_turns_beside_a_frozen_process_and_a_comparison_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Floor::start(dir.path()), Floor::start(dir.path()));
    let (json, log) = (dir.path().join("sample.json"), dir.path().join("log"));
    fs::write(&json, sample()).unwrap();
    let state = |floor: &Floor| format!("$(cut -d' ' -f3 /proc/{}/stat)", floor.child.id());
    let command = format!(
        "echo {{side}} {} {} >> {}; cp {} {{json}}",
        state(&a),
        state(&b),
        log.display(),
        json.display()
    );
    let run = |pairs| {
        let output = compare(dir.path(), &a, &b, pairs, &command);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        assert!(a.state() != "T" && b.state() != "T", "all run afterwards");
        let text = String::from_utf8(output.stdout).unwrap();
        let slices = fs::read_to_string(&log).unwrap();
        (text, slices.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let (text, slices) = run("2");
    assert!(text.contains("one ÷ two, 2 of 2 pairs"), "{text}");
    assert!(text.contains("1.00 [1.00, 1.00] (50 %)"), "{text}");
    let sides: Vec<&str> = slices.iter().map(|line| &line[..3]).collect();
    assert_eq!(sides, ["one", "two", "two", "one"]);
    for line in &slices {
        let (side, states) = line.split_once(' ').unwrap();
        let (of_a, of_b) = states.split_once(' ').unwrap();
        let frozen = [of_a == "T", of_b == "T"];
        assert_eq!(frozen, [side == "two", side == "one"], "{line}");
    }
    // What has a result isn't run again; one more pair is.
    fs::remove_file(dir.path().join("out/01-two.json")).unwrap();
    assert_eq!(run("2").1[4..].len(), 1);
    assert_eq!(run("3").1[5..].len(), 2);
}

#[test]
fn a_scenario_runs_against_topics_that_are_on_the_disk_first() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Floor::start(dir.path()), Floor::start(dir.path()));
    let command = ["--", "e2e", "--closed", "--connections", "2"];
    let short = ["--duration", "0.3", "--warm-up", "0"];
    let command = [&command[..], &short[..]].concat();
    let output = compare_with(dir.path(), &a, &b, "1", &command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    for name in ["01-one.json", "01-two.json"] {
        let text = fs::read_to_string(dir.path().join("out").join(name)).unwrap();
        let result = BenchResult::from_json(&text).unwrap();
        let counts = &result.phases[0].counts;
        assert!(counts.acknowledged > 0, "{text}");
        assert_eq!(counts.arrived, Some(counts.acknowledged), "{text}");
        assert!(
            result.phases[0].broker.is_some(),
            "its process was measured"
        );
    }
}

#[test]
fn a_failed_slice_ends_the_comparison_and_freezes_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Floor::start(dir.path()), Floor::start(dir.path()));
    let output = compare(dir.path(), &a, &b, "1", "echo what was wrong; exit 3");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("what was wrong"), "{stderr}");
    assert!(a.state() != "T" && b.state() != "T");
    // A file that is no result doesn't count as one.
    let output = compare(dir.path(), &a, &b, "1", "echo {} > {json}");
    assert_eq!(output.status.code(), Some(1));
    assert!(!dir.path().join("out/01-one.json").exists());
}
