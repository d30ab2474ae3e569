//! `ottla bench` against our broker and against `floor --serve`: counts and fields, never
//! times.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A process that serves. Ended when dropped.
struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    /// Reads stdout until a line has `mark`, which the address follows.
    fn spawn(args: &[&str], mark: &str) -> Serving {
        let mut child = ottla(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| {
            let line = line.unwrap();
            let (_, rest) = line.split_once(mark)?;
            Some(rest.split(' ').next()?.to_owned())
        });
        let address = address.expect("it serves");
        Serving { child, address }
    }

    fn broker(dir: &Path) -> Serving {
        let dirs = format!("log.dirs={}", dir.join("data").display());
        let listeners = "listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0";
        let args = ["start", "-o", listeners, "-o", &dirs, "-o", "ottla.cores=1"];
        Serving::spawn(&args, "PLAINTEXT://")
    }

    fn floor(dir: &Path) -> Serving {
        let dir = dir.to_str().unwrap();
        let args = ["bench", "floor", "--serve", "127.0.0.1:0", "--dir", dir];
        Serving::spawn(&args, "floor is serving on ")
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ottla(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
    command
        .args(args)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    command
}

/// The JSON of a short run, and what it printed.
fn bench(dir: &Path, args: &[&str]) -> (Value, String) {
    let json = dir.join("result.json");
    let mut command = ottla(&["bench"]);
    command.args(args).arg("--json").arg(&json);
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{args:?}: {stderr}");
    let text = std::fs::read_to_string(&json).unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    (serde_json::from_str(&text).unwrap(), stdout)
}

fn count(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no count"))
}

fn all_scenarios(dir: &Path, server: &Serving) {
    let short = [
        "--bootstrap",
        &server.address,
        "--duration",
        "1",
        "--warm-up",
        "0.1",
    ];

    let mut args = vec!["produce", "--topic", "closed", "--connections", "2"];
    args.extend(short);
    let (result, text) = bench(dir, &args);
    assert_eq!(result["loop"], "closed");
    assert_eq!(result["parameters"]["records_per_batch"], 163);
    let acknowledged = count(&result["records"]["acknowledged"]);
    assert!(
        acknowledged > 0 && acknowledged.is_multiple_of(163),
        "{acknowledged}"
    );
    assert_eq!(result["records"]["unanswered"], 0);
    assert_eq!(result["arrival"], Value::Null);
    assert!(result["machine"]["kernel"].is_string());
    assert!(
        text.contains("throughput") && text.contains("generator"),
        "{text}"
    );

    let hlog = dir.join("e2e.hlog");
    let mut args = vec![
        "e2e",
        "--topic",
        "open",
        "--rate",
        "2000",
        "--batch-bytes",
        "400",
    ];
    args.extend(["--hlog", hlog.to_str().unwrap()]);
    args.extend(short);
    // The second run finds the first one's records in the topic, and doesn't take them for its own.
    for _ in 0..2 {
        let (result, _) = bench(dir, &args);
        assert_eq!(result["loop"], "open");
        // 2,000 a second for 1.1 s, of which the last one is measured.
        let records = &result["records"];
        assert_eq!(records["acknowledged"], 2200);
        assert_eq!(records["arrived"], 2200);
        assert_eq!(records["scheduled"], 2000);
        assert_eq!(result["publish"]["count"], 500, "a latency for each batch");
        assert_eq!(
            result["arrival"]["count"], 2000,
            "a latency for each record"
        );
        assert_eq!(
            result["valid"],
            result["faults"].as_array().unwrap().is_empty()
        );
    }
    let log = std::fs::read_to_string(&hlog).unwrap();
    assert!(
        log.contains("Tag=publish,") && log.contains("Tag=arrival,"),
        "{log}"
    );
}

#[test]
fn our_broker_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    all_scenarios(dir.path(), &Serving::broker(dir.path()));
}

#[test]
fn the_floor_is_measured_like_a_broker() {
    let dir = tempfile::tempdir().unwrap();
    all_scenarios(dir.path(), &Serving::floor(dir.path()));
}

#[test]
fn the_kernel_is_measured_in_the_same_units() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_str().unwrap();
    let (result, _) = bench(dir.path(), &["floor", "--duration", "0.05", "--dir", at]);
    let floor = result["floor"].as_object().unwrap();
    let names: Vec<_> = floor.keys().map(String::as_str).collect();
    let all = [
        "ping-pong",
        "stream",
        "append",
        "fdatasync",
        "sendfile",
        "splice",
        "crc32c",
        "memcpy",
    ];
    assert_eq!(names, all);
    for (name, found) in floor {
        assert!(
            count(&found["count"]) > 0 && found["bytes_per_s"].is_number(),
            "{name}"
        );
    }
}

#[test]
fn a_broker_that_is_not_there_is_one_clear_line() {
    let output = ottla(&["bench", "produce", "--bootstrap", "127.0.0.1:1"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("can't connect to 127.0.0.1:1"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}
