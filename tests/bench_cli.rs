//! `ottla bench` against our broker and against `floor --serve`: counts and fields, and no
//! times but one: that a pause which the test makes is seen.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
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

/// What each scenario is told so that it is small, and its main latency.
const SCENARIOS: [(&str, &[&str], &str); 7] = [
    ("produce", &["--connections", "2"], "publish"),
    ("fetch", &["--connections", "2", "--data-mib", "4"], "fetch"),
    ("e2e", &[], "arrival"),
    ("mixed", &["--fan-out", "2"], "arrival"),
    ("conns", &["--connections", "50"], "publish"),
    ("partitions", &["--partitions", "40"], "arrival"),
    (
        "keyed",
        &[
            "--connections",
            "5",
            "--partitions",
            "3",
            "--compression",
            "lz4",
        ],
        "publish",
    ),
];

/// The phase's latencies count what was counted elsewhere, too.
fn check_phase(phase: &Value, scenario: &str, main: &str) {
    let counts = &phase["counts"];
    let latencies = &phase["latencies"];
    assert_eq!(counts["unanswered"], 0, "{scenario}: {phase}");
    let timed = count(&latencies[main]["count"]);
    let scheduled = count(&counts["scheduled"]);
    if phase["loop"] == "closed" {
        // Where the machine stood still, the run says so.
        let none = &Value::from("nothing was measured");
        let told = phase["faults"].as_array().unwrap().contains(none);
        assert!((timed > 0 || told) && scheduled == 0, "{scenario}: {phase}");
        assert!(count(&counts["answers"]) > 0);
    }
    assert_eq!(
        phase["valid"],
        phase["faults"].as_array().unwrap().is_empty()
    );
    assert!(phase["generator"]["busiest_thread_percent"].is_number());
    let arrives = ["fetch", "e2e", "mixed", "partitions"].contains(&scenario);
    assert_eq!(counts["arrived"].is_number(), arrives, "{scenario}");
    assert_eq!(count(&counts["batches"]) > 0, arrives, "{scenario}");
    assert_eq!(count(&counts["crc_checked"]) > 0, arrives, "{scenario}");
    let (fan_out, records) = match scenario {
        "fetch" => return,
        "mixed" => (2, 1),
        "e2e" | "partitions" => (1, 1),
        "produce" => (1, 163),
        // A latency for each batch.
        _ => (1, 10),
    };
    if phase["loop"] == "open" {
        assert_eq!(timed * records, fan_out * scheduled, "{scenario}: {phase}");
    }
    if arrives {
        let acknowledged = count(&counts["acknowledged"]);
        assert_eq!(count(&counts["arrived"]), fan_out * acknowledged);
    }
}

fn all_scenarios(dir: &Path, server: &Serving) {
    for (scenario, more, main) in SCENARIOS {
        let mut args = vec![scenario, "--bootstrap", &server.address];
        args.extend(["--duration", "0.3", "--warm-up", "0.1", "--shares", "50,90"]);
        args.extend(more);
        let (result, text) = bench(dir, &args);
        assert_eq!(result["schema"], 1);
        assert_eq!(result["scenario"], scenario);
        assert!(result["machine"]["kernel"].is_string());
        let phases = result["phases"].as_array().unwrap();
        let names: Vec<_> = phases
            .iter()
            .map(|it| it["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["saturation", "50%", "90%"]);
        for phase in phases {
            check_phase(phase, scenario, main);
            assert_eq!(
                phase["latencies"]["lateness"].is_object(),
                phase["loop"] == "open"
            );
        }
        let connects = scenario == "conns";
        assert_eq!(phases[0]["latencies"]["connect"].is_object(), connects);
        assert!(
            text.contains("throughput") && text.contains("generator"),
            "{text}"
        );
    }
}

/// Counts of a fixed schedule are exact; the second run finds the first one's records in
/// the topic, and doesn't take them for its own.
fn fixed_rate(dir: &Path, server: &Serving) {
    let out = dir.join("out");
    let mut args = vec!["e2e", "--bootstrap", &server.address, "--topic", "kept"];
    args.extend(["--rate", "2000", "--batch-bytes", "400"]);
    args.extend(["--duration", "1", "--warm-up", "0.1"]);
    args.extend(["--name", "mine", "--out", out.to_str().unwrap()]);
    for _ in 0..2 {
        let (result, _) = bench(dir, &args);
        let phases = result["phases"].as_array().unwrap();
        assert_eq!(
            (phases.len(), &phases[0]["name"]),
            (1, &Value::from("rate"))
        );
        // 2,000 a second for 1.1 s, of which the last one is measured.
        let counts = &phases[0]["counts"];
        assert_eq!(counts["acknowledged"], 2200);
        assert_eq!(counts["arrived"], 2200);
        assert_eq!(counts["scheduled"], 2000);
        let latencies = &phases[0]["latencies"];
        assert_eq!(latencies["publish"]["count"], 500, "one for each batch");
        assert_eq!(latencies["arrival"]["count"], 2000, "one for each record");
        assert_eq!(phases[0]["rate"], 2000.0);
        assert_eq!(result["broker"]["topic"], "kept");
    }
    let read = |name| std::fs::read_to_string(out.join(name)).unwrap();
    let result: Value = serde_json::from_str(&read("mine.json")).unwrap();
    let logs = serde_json::json!(["mine-rate.hlog", "mine-rate-total.hlog"]);
    assert_eq!(result["phases"][0]["hlogs"], logs);
    for name in ["mine-rate.hlog", "mine-rate-total.hlog"] {
        let log = read(name);
        for start in ["Tag=publish,0.000,", "Tag=arrival,0.000,", "0.000,"] {
            assert!(log.lines().any(|line| line.starts_with(start)), "{log}");
        }
    }
}

#[test]
fn our_broker_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serving::broker(dir.path());
    all_scenarios(dir.path(), &server);
    fixed_rate(dir.path(), &server);
}

#[test]
fn the_floor_is_measured_like_a_broker() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serving::floor(dir.path());
    all_scenarios(dir.path(), &server);
    fixed_rate(dir.path(), &server);
}

/// Nine of ten batches are published between the pauses: what the pauses cost is the worst
/// tenth, which p99 is in. That the broker was slow is no lateness of the generator's.
#[test]
fn a_broker_that_pauses_cannot_hide_it_in_open_loop() {
    const PAUSE: Duration = Duration::from_millis(100);
    const BETWEEN: Duration = Duration::from_millis(900);
    let dir = tempfile::tempdir().unwrap();
    let server = Serving::broker(dir.path());
    let pid = Pid::from_raw(i32::try_from(server.child.id()).unwrap());
    let over = AtomicBool::new(false);
    let (result, _) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                kill(pid, Signal::SIGSTOP).unwrap();
                std::thread::sleep(PAUSE);
                kill(pid, Signal::SIGCONT).unwrap();
                std::thread::sleep(BETWEEN);
            }
        });
        let mut args = vec!["produce", "--bootstrap", &server.address];
        args.extend([
            "--connections",
            "1",
            "--rate",
            "500",
            "--batch-bytes",
            "100",
        ]);
        args.extend(["--duration", "4", "--warm-up", "0.5"]);
        let measured = bench(dir.path(), &args);
        over.store(true, Ordering::Relaxed);
        measured
    });
    let phase = &result["phases"][0];
    assert_eq!(phase["latencies"]["publish"]["count"], 2000);
    let p99 = count(&phase["latencies"]["publish"]["p99_ns"]);
    assert!(p99 > 50_000_000, "{p99} ns, in spite of the pauses");
}

#[test]
fn a_crash_is_timed_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let [port, controller] = free_ports();
    let bootstrap = format!("127.0.0.1:{port}");
    let start = format!(
        "exec {} start -o listeners=PLAINTEXT://{bootstrap},CONTROLLER://127.0.0.1:{controller} \
         -o ottla.cores=1 -o log.dirs={}",
        env!("CARGO_BIN_EXE_ottla"),
        dir.path().join("data").display()
    );
    let mut args = vec!["recovery", "--bootstrap", &bootstrap, "--start", &start];
    args.extend(["--times", "2", "--duration", "0.2"]);
    let (result, text) = bench(dir.path(), &args);
    assert_eq!(result["valid"], true, "{text}");
    let count_of = |phase: usize| &result["phases"][phase]["latencies"]["first_ack"]["count"];
    assert_eq!(
        (count_of(0), count_of(1)),
        (&Value::from(1), &Value::from(2))
    );
    assert!(count(&result["phases"][1]["counts"]["acknowledged"]) > 3);
    // It was ended; a ring's sockets are closed by the kernel a little after its process.
    let began = Instant::now();
    while TcpStream::connect(&bootstrap).is_ok() {
        assert!(began.elapsed() < Duration::from_secs(30), "it still runs");
        std::thread::yield_now();
    }
}

/// Ports that were free a moment ago: the command has to name them before it runs.
fn free_ports() -> [u16; 2] {
    let bound = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    bound.map(|listener| listener.local_addr().unwrap().port())
}

/// The generator against a client that shares nothing with it: blocking, one request after
/// the other, a frame made by hand. Only where the machine is quiet: OTTLA_LONG=1, and a
/// release build. The server and they have a CPU each: where the scheduler puts them makes
/// ten times the difference that is looked for.
#[test]
fn ping_pong_agrees_with_an_independent_client() {
    if std::env::var_os("OTTLA_LONG").is_none() {
        return;
    }
    const PAIRS: usize = 7;
    let dir = tempfile::tempdir().unwrap();
    let server = Serving::floor(dir.path());
    pin(i32::try_from(server.child.id()).unwrap(), 0);
    pin(0, 1);
    let mut args = vec!["produce", "--bootstrap", &server.address, "--topic", "ping"];
    args.extend([
        "--connections",
        "1",
        "--depth",
        "1",
        "--closed",
        "--cpus",
        "1",
    ]);
    args.extend([
        "--batch-bytes",
        "100",
        "--duration",
        "2",
        "--warm-up",
        "0.5",
    ]);
    let mut ratios: Vec<f64> = (0..PAIRS)
        .map(|_| {
            let (result, _) = bench(dir.path(), &args);
            let ours = count(&result["phases"][0]["latencies"]["publish"]["p50_ns"]) as f64;
            let theirs = hand_made_p50(&server.address, "ping") as f64;
            eprintln!("generator {ours} ns, independent {theirs} ns");
            ours / theirs
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let median = ratios[PAIRS / 2];
    assert!((0.9..=1.1).contains(&median), "{ratios:?}");
}

/// Puts a process, or this thread (0), on one CPU.
fn pin(process: i32, cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(process), &set).unwrap();
}

/// Median of a Produce (version 12, one record) and its answer, in ns.
fn hand_made_p50(address: &str, topic: &str) -> u64 {
    const ROUNDS: usize = 20_000;
    let frame = hand_made_frame(topic);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut answer = [0; 1024];
    let mut took: Vec<u64> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            stream.write_all(&frame).unwrap();
            stream.read_exact(&mut answer[..4]).unwrap();
            let size = u32::from_be_bytes(answer[..4].try_into().unwrap()) as usize;
            stream.read_exact(&mut answer[..size]).unwrap();
            began.elapsed().as_nanos() as u64
        })
        .collect();
    took.sort_unstable();
    took[ROUNDS / 2]
}

/// A varint from 128 to 16383.
fn two_bytes(value: usize) -> Vec<u8> {
    vec![(value & 0x7f) as u8 | 0x80, (value >> 7) as u8]
}

fn hand_made_frame(topic: &str) -> Vec<u8> {
    let value = [b'x'; 100];
    // Length, attributes, deltas of time and offset, no key, value, no headers; varints.
    let mut record = vec![0, 0, 0, 1, 200, 1];
    record.extend(value);
    record.push(0);
    let mut records = two_bytes(record.len() * 2);
    records.extend(&record);
    let mut crced = vec![0, 0];
    crced.extend(0i32.to_be_bytes());
    crced.extend([1_700_000_000_000i64.to_be_bytes(); 2].concat());
    crced.extend((-1i64).to_be_bytes());
    crced.extend((-1i16).to_be_bytes());
    crced.extend((-1i32).to_be_bytes());
    crced.extend(1i32.to_be_bytes());
    crced.extend(&records);
    let mut batch = 0i64.to_be_bytes().to_vec();
    batch.extend((4 + 1 + 4 + crced.len() as i32).to_be_bytes());
    batch.extend((-1i32).to_be_bytes());
    batch.push(2);
    batch.extend(crc_fast::crc32_iscsi(&crced).to_be_bytes());
    batch.extend(&crced);
    let mut request = [0i16.to_be_bytes(), 12i16.to_be_bytes()].concat();
    request.extend(7i32.to_be_bytes());
    request.extend(7i16.to_be_bytes());
    request.extend(b"by-hand");
    // No tags, no transaction, acks of all, timeout.
    request.extend([0, 0, 0xff, 0xff]);
    request.extend(1000i32.to_be_bytes());
    // One topic with one partition: counts and lengths are greater by one.
    request.extend([2, topic.len() as u8 + 1]);
    request.extend(topic.as_bytes());
    request.extend([2, 0, 0, 0, 0]);
    request.extend(two_bytes(batch.len() + 1));
    request.extend(&batch);
    // No tags of partition, topic and request.
    request.extend([0, 0, 0]);
    [&(request.len() as i32).to_be_bytes()[..], &request].concat()
}

#[test]
fn the_kernel_is_measured_in_the_same_units() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_str().unwrap();
    let (result, _) = bench(dir.path(), &["floor", "--duration", "0.05", "--dir", at]);
    assert_eq!(result["scenario"], "floor");
    let floor = result["phases"].as_array().unwrap();
    let names: Vec<_> = floor
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
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
    for found in floor {
        let bytes_per_s = &found["throughput"]["bytes_per_s"];
        assert!(
            count(&found["latencies"]["step"]["count"]) > 0 && bytes_per_s.is_number(),
            "{found}"
        );
    }
}

/// Runs it to its end, which is a failure that is told in one line.
fn refused(args: &[&str]) -> String {
    let output = ottla(&["bench"]).args(args).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

#[test]
fn another_broker_is_never_taken_for_the_one_that_is_started() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serving::floor(dir.path());
    let mut args = vec!["recovery", "--bootstrap", &server.address];
    args.extend(["--start", "sleep 600", "--times", "1"]);
    assert!(refused(&args).contains("somebody answers"));
}

#[test]
fn what_cannot_work_is_told_before_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serving::floor(dir.path());
    let nowhere = dir.path().join("absent").join("x.json");
    let mut args = vec!["produce", "--bootstrap", &server.address, "--duration"];
    args.extend(["3600", "--closed", "--json", nowhere.to_str().unwrap()]);
    assert!(refused(&args).contains("can't write"));
    let args = ["produce", "--bootstrap", "127.0.0.1"];
    assert!(refused(&args).contains("127.0.0.1 isn't HOST:PORT"));
    let mut args = vec!["compare", "--a", "one=127.0.0.1:1", "--b"];
    let other = format!("two={}", server.address);
    args.extend([other.as_str(), "--out", dir.path().to_str().unwrap()]);
    args.extend(["--", "produce"]);
    assert!(refused(&args).contains("one: can't connect to 127.0.0.1:1"));
}

#[test]
fn an_interrupted_run_tells_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serving::floor(dir.path());
    let json = dir.path().join("cut.json");
    let mut args = vec!["bench", "produce", "--bootstrap", &server.address];
    args.extend([
        "--duration",
        "0.5",
        "--warm-up",
        "0",
        "--shares",
        "1,1,1,1,1,1,1,1",
    ]);
    let mut child = ottla(&args)
        .args(["--connections", "1", "--json"])
        .arg(&json)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = lines.next().expect("the first phase is told").unwrap();
    assert!(first.starts_with("saturation: "), "{first}");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let stderr: Vec<String> = lines.map_while(Result::ok).collect();
    let stderr = stderr.join("\n");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("interrupted"), "{stderr}");
    let result: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(result["valid"], false);
    assert!(!result["phases"].as_array().unwrap().is_empty());
}

#[test]
fn a_rate_that_cannot_be_reached_ends_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serving::floor(dir.path());
    let mut args = vec![
        "produce",
        "--bootstrap",
        &server.address,
        "--connections",
        "1",
    ];
    args.extend(["--rate", "4000000000", "--batch-bytes", "100"]);
    args.extend(["--duration", "0.5", "--warm-up", "0"]);
    let (result, text) = bench(dir.path(), &args);
    let phase = &result["phases"][0];
    assert_eq!(phase["valid"], false, "{text}");
    // All that was due counts, sent or not.
    assert_eq!(count(&phase["counts"]["scheduled"]), 2_000_000_000);
    assert_eq!(
        count(&phase["latencies"]["publish"]["count"]),
        2_000_000_000
    );
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
