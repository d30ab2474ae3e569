//! A node that is started from the command line: what it says, how it stops, and what
//! keeps it from starting.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

/// A node on free ports with its data in `dir`.
fn start(dir: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
    command
        .args([
            "start",
            "-o",
            "listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0",
        ])
        .arg("-o")
        .arg(format!("log.dirs={}", dir.display()))
        .args(["-o", "ottla.cores=2", "-o", "ottla.log.level=warn"])
        .args(more)
        .env_remove("RUST_LOG")
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A node that serves. Ended when dropped.
struct Running {
    child: Child,
    /// Name and value of each line of the banner, the first line under an empty name.
    banner: Vec<(String, String)>,
}

impl Running {
    fn start(dir: &Path) -> Running {
        let mut child = start(dir, &[]).spawn().unwrap();
        let mut banner = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let entry = match line.strip_prefix("  ") {
                None => (String::new(), line),
                Some(rest) => {
                    let (name, value) = rest.split_once(' ').unwrap();
                    (name.to_owned(), value.trim_start().to_owned())
                }
            };
            let last = entry.0 == "try";
            banner.push(entry);
            if last {
                return Running { child, banner };
            }
        }
        let mut stderr = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
        panic!(
            "the node ended before it served: {:?} {stderr}",
            child.wait()
        );
    }

    fn value(&self, name: &str) -> &str {
        let found = self.banner.iter().find(|(known, _)| known == name);
        &found
            .unwrap_or_else(|| panic!("{name} is not in {:?}", self.banner))
            .1
    }

    fn address(&self) -> SocketAddr {
        self.value("listener")
            .strip_prefix("PLAINTEXT://")
            .unwrap()
            .parse()
            .unwrap()
    }

    /// Exit status and stderr after a signal.
    fn stop(mut self, signal: Signal) -> (Option<i32>, String) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
        let mut stderr = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
        (self.child.wait().unwrap().code(), stderr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already where the test got to its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn failure(output: Output) -> String {
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert_eq!(output.stdout, b"");
    stderr
}

#[test]
fn a_node_serves_stops_on_signals_and_comes_back_as_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let node = Running::start(&data);
    assert!(node.value("").starts_with("Ottla ") && node.value("").ends_with(" is serving"));
    assert!(
        node.value("data").ends_with("data (formatted now)"),
        "{}",
        node.value("data")
    );
    assert!(node.value("cores").starts_with("2 ("));
    TcpStream::connect(node.address()).unwrap();
    let (cluster, id) = (
        node.value("cluster").to_owned(),
        node.value("node").to_owned(),
    );
    assert_eq!(node.stop(Signal::SIGTERM), (Some(0), String::new()));

    let node = Running::start(&data);
    assert_eq!(
        (node.value("cluster"), node.value("node")),
        (cluster.as_str(), id.as_str())
    );
    assert!(node.value("data").ends_with("data"));
    assert_eq!(node.stop(Signal::SIGINT), (Some(0), String::new()));
}

#[test]
fn a_port_in_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let listeners = format!("listeners=PLAINTEXT://{address},CONTROLLER://127.0.0.1:0");
    let output = start(dir.path(), &["-o", &listeners]).output().unwrap();
    assert_eq!(
        failure(output),
        format!(
            "ottla: the address {address} of listener PLAINTEXT is in use by another process\n"
        )
    );
}

#[test]
fn a_directory_of_another_process_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let node = Running::start(dir.path());
    let stderr = failure(start(dir.path(), &[]).output().unwrap());
    assert!(stderr.contains("is in use by another process"), "{stderr}");
    assert!(
        stderr.contains(&dir.path().display().to_string()),
        "{stderr}"
    );
    assert_eq!(node.stop(Signal::SIGTERM).0, Some(0));
}

#[test]
fn an_unusable_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let data = file.join("data");
    let stderr = failure(start(&data, &[]).output().unwrap());
    let expected = format!("ottla: the directory {} can't be used: ", data.display());
    assert!(stderr.starts_with(&expected), "{stderr}");
}

#[test]
fn too_little_lockable_memory_names_the_command_that_raises_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(
        dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .unwrap();
    let node = start(&dir.path().join("data"), &[]);
    let mut command = Command::new("prlimit");
    command.arg("--memlock=65536:65536");
    if Uid::effective().is_root() {
        // An ordinary user, but for reading a program that may lie in somebody's home.
        command.args([
            "setpriv",
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
        ]);
        for set in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
            command.arg(format!("{set}=-all,+dac_read_search"));
        }
    }
    command.arg(node.get_program()).args(node.get_args());
    let stderr = failure(command.output().unwrap());
    assert!(
        stderr.contains("sudo prlimit --pid $$ --memlock="),
        "{stderr}"
    );
}
