//! `ottla doctor`, and what `ottla start` says first: both tell the same of a machine that a
//! node can't run on, with the command that mends it.
//!
//! As root, what concerns an ordinary user is tried as one. Nodes lock memory, which counts
//! for all processes of a user: so the tests run one at a time.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

/// Nobody else's.
const USER: &str = "64998";
/// What an ordinary user has by default.
const MEMLOCK_BYTES: u64 = 8 << 20;
/// More than one event loop locks, less than so many do; which find room in the default.
const SHORT_BYTES: u64 = 2 << 20;
const LOOPS: usize = 16;

fn one_at_a_time() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::new(());
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the program as an ordinary user, within limits as prlimit takes them.
fn as_user(limits: &[String]) -> Command {
    let mut command = Command::new("prlimit");
    command.args(limits);
    if Uid::effective().is_root() {
        // But for reading a program that may lie in somebody's home.
        command.args([
            "setpriv",
            "--reuid",
            USER,
            "--regid",
            USER,
            "--clear-groups",
        ]);
        for set in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
            command.arg(format!("{set}=-all,+dac_read_search"));
        }
    }
    command.arg(env!("CARGO_BIN_EXE_ottla"));
    command
}

fn ottla() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ottla"))
}

fn memlock(bytes: u64) -> [String; 1] {
    [format!("--memlock={bytes}:{bytes}")]
}

/// A directory that an ordinary user may write to.
fn open_directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    set_mode(dir.path(), 0o777);
    dir
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn with_settings<'a>(
    command: &'a mut Command,
    verb: &str,
    dir: &Path,
    more: &[&str],
) -> &'a mut Command {
    command
        .arg(verb)
        .args([
            "-o",
            "listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0",
        ])
        .args(["-o", "ottla.log.level=warn", "-o", "ottla.cores=2"])
        .arg("-o")
        .arg(format!("log.dirs={}", dir.display()))
        .args(more)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
}

/// Status, and what doctor found: status, subject and text of each line.
fn doctor(
    command: &mut Command,
    dir: &Path,
    more: &[&str],
) -> (i32, Vec<(String, String, String)>) {
    let output = with_settings(command, "doctor", dir, more)
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!stderr.contains("panicked"), "{stderr}");
    let lines = stdout.lines().map(|line| {
        let (status, rest) = line.split_at(6);
        let (subject, text) = rest.split_at(18);
        assert!(["ok    ", "warn  ", "FAIL  "].contains(&status), "{line}");
        (
            status.trim().to_owned(),
            subject.trim().to_owned(),
            text.to_owned(),
        )
    });
    (output.status.code().unwrap(), lines.collect())
}

/// The only thing that doctor finds fatal, which is also what a start ends with.
fn fatal(mut command: impl FnMut() -> Command, dir: &Path, more: &[&str]) -> (String, String) {
    let (status, lines) = doctor(&mut command(), dir, more);
    assert_eq!(status, 1, "{lines:?}");
    let mut found = lines.iter().filter(|(status, ..)| status == "FAIL");
    let (_, subject, text) = found.next().unwrap_or_else(|| panic!("{lines:?}"));
    assert!(found.next().is_none(), "{lines:?}");
    let Output {
        status,
        stdout,
        stderr,
    } = with_settings(&mut command(), "start", dir, more)
        .output()
        .unwrap();
    assert_eq!(status.code(), Some(1));
    assert_eq!(stdout, b"");
    assert_eq!(
        String::from_utf8(stderr).unwrap(),
        format!("ottla: {text}\n")
    );
    (subject.clone(), text.clone())
}

fn found<'a>(lines: &'a [(String, String, String)], subject: &str) -> (&'a str, &'a str) {
    let line = lines.iter().find(|(_, of, _)| of == subject);
    let (status, _, text) = line.unwrap_or_else(|| panic!("{subject} is not in {lines:?}"));
    (status, text)
}

/// A node that serves. Ended when dropped.
struct Node {
    child: Child,
    banner: String,
}

impl Node {
    fn start(command: &mut Command, dir: &Path, more: &[&str]) -> Node {
        let child = with_settings(command, "start", dir, more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut node = Node {
            child,
            banner: String::new(),
        };
        let mut stdout = BufReader::new(node.child.stdout.take().unwrap());
        while !node.banner.contains("  try ") {
            if stdout.read_line(&mut node.banner).unwrap() == 0 {
                panic!("the node ended before it served: {}", node.stderr());
            }
        }
        node
    }

    /// How many event loops it says that it has.
    fn cores(&self) -> usize {
        let line = self
            .banner
            .lines()
            .find_map(|line| line.strip_prefix("  cores "));
        let count = line.unwrap().trim_start().split(' ').next().unwrap();
        count.parse().unwrap()
    }

    /// What it warned of.
    fn stop(mut self) -> String {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
        let stderr = self.stderr();
        assert!(self.child.wait().unwrap().success(), "{stderr}");
        stderr
    }

    fn stderr(&mut self) -> String {
        let mut text = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Ended already where the test got to its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Installs a filter that answers io_uring_setup with an error, as container engines do.
fn without_io_uring(mut command: Command, errno: i32) -> Command {
    let statement = |code: u32, jump_true, jump_false, k| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: jump_true,
        jf: jump_false,
        k,
    };
    let number = u32::try_from(libc::SYS_io_uring_setup).unwrap();
    let refuse = libc::SECCOMP_RET_ERRNO | u32::try_from(errno).unwrap();
    let mut filter = [
        // The number of the call is the first thing that a filter sees of it.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, refuse),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let program = libc::sock_fprog {
            len: u16::try_from(filter.len()).expect("a few statements"),
            filter: filter.as_mut_ptr(),
        };
        // SAFETY: plain system calls; the program and its statements live for the call that
        // copies them.
        let refused = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) != 0
        };
        if refused {
            return Err(std::io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: between fork and exec `install` only makes system calls on its own stack: it
    // neither allocates nor takes a lock.
    unsafe { command.pre_exec(install) };
    command
}

#[test]
fn a_sound_machine_has_nothing_fatal_and_stays_as_it_is() {
    let _one = one_at_a_time();
    let dir = open_directory();
    let data = dir.path().join("data");
    for mut command in [ottla(), as_user(&memlock(MEMLOCK_BYTES))] {
        let (status, lines) = doctor(&mut command, &data, &[]);
        assert_eq!(status, 0, "{lines:?}");
        assert!(
            lines.iter().all(|(status, ..)| status != "FAIL"),
            "{lines:?}"
        );
        for subject in [
            "kernel",
            "io_uring",
            "event loops",
            "locked memory",
            "open files",
        ] {
            assert_eq!(found(&lines, subject).0, "ok", "{lines:?}");
        }
        for subject in ["pipes", "cpus", "cpu quota", "log dir"] {
            found(&lines, subject);
        }
        // Whatever is to be mended, the command stands there.
        for (status, subject, text) in &lines {
            assert_eq!(text.contains('`'), status == "warn", "{subject}: {text}");
        }
    }
    assert!(!data.exists());
}

#[test]
fn odd_settings_are_warned_of_and_wrong_ones_are_told_as_by_start() {
    let _one = one_at_a_time();
    let dir = open_directory();
    let (status, lines) = doctor(&mut ottla(), dir.path(), &["-o", "num.partition=3"]);
    let expected = "--override: unknown key num.partition; did you mean num.partitions?";
    assert_eq!((status, found(&lines, "config")), (0, ("warn", expected)));
    let wrong = |verb| {
        let output =
            with_settings(&mut ottla(), verb, dir.path(), &["-o", "ottla.cores=0"]).output();
        let output = output.unwrap();
        (output.status.code(), output.stdout, output.stderr)
    };
    assert_eq!(wrong("doctor"), wrong("start"));
    assert_eq!(wrong("doctor").0, Some(1));
}

#[test]
fn the_help_tells_what_is_looked_at_and_the_exit_status() {
    let output = ottla().args(["doctor", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for word in [
        "--config",
        "--override",
        "FAIL",
        "status is 1",
        "seccomp",
        "cpuset",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
}

#[test]
fn no_lockable_memory_is_fatal() {
    let _one = one_at_a_time();
    let dir = open_directory();
    let data = dir.path().join("data");
    let (subject, text) = fatal(|| as_user(&memlock(64 << 10)), &data, &[]);
    assert_eq!(subject, "event loops");
    assert!(
        text.contains("`sudo prlimit --pid $$ --memlock=1048576`"),
        "{text}"
    );
    assert!(
        !data.exists(),
        "nothing is formatted for a node that can't run"
    );
}

#[test]
fn short_of_lockable_memory_there_are_fewer_event_loops() {
    let _one = one_at_a_time();
    let dir = open_directory();
    let data = dir.path().join("data");
    let cores = format!("ottla.cores={LOOPS}");
    let more = ["-o", cores.as_str()];
    let short = || as_user(&memlock(SHORT_BYTES));
    let (status, lines) = doctor(&mut short(), &data, &more);
    assert_eq!(status, 0, "{lines:?}");
    let (status, text) = found(&lines, "locked memory");
    assert_eq!(status, "warn");
    let node = Node::start(&mut short(), &data, &more);
    let count = node.cores();
    assert!((2..LOOPS).contains(&count), "{}", node.banner);
    assert!(
        text.starts_with(&format!("{count} instead of {LOOPS} event loops: ")),
        "{text}"
    );
    let stderr = node.stop();
    assert!(stderr.contains(text), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");

    // The command that was printed is enough.
    let needed = text.split("--memlock=").nth(1).unwrap();
    let needed = needed.split('`').next().unwrap().parse().unwrap();
    let enough = || as_user(&memlock(needed));
    let (_, lines) = doctor(&mut enough(), &data, &more);
    assert_eq!(found(&lines, "locked memory").0, "ok", "{lines:?}");
    let node = Node::start(&mut enough(), &data, &more);
    assert_eq!(node.cores(), LOOPS);
    assert_eq!(node.stop(), "");
}

#[test]
fn what_another_process_of_the_user_has_locked_is_not_counted_on() {
    let _one = one_at_a_time();
    let (dir, other) = (open_directory(), open_directory());
    let start = |dir: &Path, cores: &str| {
        let more = ["-o", &format!("ottla.cores={cores}")];
        Node::start(
            &mut as_user(&memlock(MEMLOCK_BYTES)),
            &dir.join("data"),
            &more,
        )
    };
    // Each fits by itself.
    let first = start(dir.path(), "12");
    let second = start(other.path(), "18");
    assert_eq!(first.cores(), 12);
    let count = second.cores();
    assert!((1..18).contains(&count), "{}", second.banner);
    let stderr = second.stop();
    assert!(
        stderr.contains(&format!("{count} instead of 18 event loops: ")),
        "{stderr}"
    );
    assert!(
        stderr.contains("`sudo prlimit --pid $$ --memlock=unlimited`"),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert_eq!(first.stop(), "");
}

#[test]
fn few_open_files_are_fatal_or_leave_few_connections() {
    let _one = one_at_a_time();
    let dir = open_directory();
    let files = |count: u64| as_user(&[format!("--nofile={count}:{count}")]);
    let (subject, text) = fatal(|| files(64), &dir.path().join("data"), &[]);
    assert_eq!(subject, "open files");
    assert!(
        text.contains("`sudo prlimit --pid $$ --nofile=65536`"),
        "{text}"
    );
    for (count, more, expected) in [
        (1_024, vec![], "warn"),
        (4_096, vec![], "ok"),
        (4_096, vec!["-o", "max.connections=10000"], "warn"),
        (4_096, vec!["-o", "max.connections=1000"], "ok"),
    ] {
        let (status, lines) = doctor(&mut files(count), &dir.path().join("data"), &more);
        assert_eq!(
            (status, found(&lines, "open files").0),
            (0, expected),
            "{lines:?}"
        );
    }
}

#[test]
fn a_node_holds_no_more_files_than_are_reckoned_with() {
    let _one = one_at_a_time();
    let dir = open_directory();
    let data = dir.path().join("data");
    let (_, lines) = doctor(&mut as_user(&["--nofile=4096:4096".to_owned()]), &data, &[]);
    let left = found(&lines, "open files").1.split(' ').next().unwrap();
    let reckoned = 4_096 - left.parse::<u64>().unwrap();
    // One file fewer and it isn't tried; with these a node has to come up.
    let limit = format!("--nofile={reckoned}:{reckoned}");
    let node = Node::start(&mut as_user(&[limit]), &data, &[]);
    assert_eq!(node.cores(), 2);
    assert_eq!(node.stop(), "");
}

#[test]
fn a_filter_that_blocks_io_uring_is_told_from_a_kernel_without_it() {
    let _one = one_at_a_time();
    let dir = open_directory();
    let data = dir.path().join("data");
    let ordinary = || as_user(&memlock(MEMLOCK_BYTES));
    for (errno, word) in [(libc::EPERM, "is blocked"), (libc::ENOSYS, "is hidden")] {
        for command in [ottla, ordinary] {
            let (subject, text) = fatal(|| without_io_uring(command(), errno), &data, &[]);
            assert_eq!(subject, "io_uring");
            assert!(
                text.starts_with(&format!("io_uring {word} by a seccomp filter")),
                "{text}"
            );
            assert!(
                text.contains("`--security-opt seccomp=unconfined`"),
                "{text}"
            );
        }
    }
    assert!(!data.exists());
}

#[test]
fn a_cpu_that_cannot_be_had_is_a_mistake_in_the_config() {
    let _one = one_at_a_time();
    let dir = open_directory();
    let data = dir.path().join("data");
    let file = dir.path().join("server.properties");
    std::fs::write(&file, "# mine\nottla.cores=0,4000\n").unwrap();
    let output = ottla()
        .args(["start", "--config", file.to_str().unwrap(), "-o"])
        .arg(format!("log.dirs={}", data.display()))
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let expected = format!(
        "ottla: {}:2: ottla.cores=0,4000: this machine has no CPU 4000 ",
        file.display()
    );
    // What is heard of the config itself comes before.
    assert!(
        stderr.lines().last().unwrap().starts_with(&expected),
        "{stderr}"
    );
    assert!(!data.exists());

    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let mut cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap());
    let (Some(first), Some(second)) = (cpus.next(), cpus.next()) else {
        // One CPU only: nothing can be taken away.
        return;
    };
    let confined = || {
        let mut command = ottla();
        let mut set = CpuSet::new();
        set.set(first).unwrap();
        // SAFETY: between fork and exec this makes one system call on its own stack.
        unsafe {
            command.pre_exec(move || {
                sched_setaffinity(Pid::from_raw(0), &set).map_err(std::io::Error::from)
            });
        }
        command
    };
    let cores = format!("ottla.cores={second}-{second}");
    let (subject, text) = fatal(confined, &data, &["-o", &cores]);
    assert_eq!(subject, "event loops");
    let expected = format!("--override {cores}: CPU {second} is not allowed for this process by ");
    assert!(text.starts_with(&expected), "{text}");
    let cores = format!("ottla.cores={first}-{first}");
    let (_, lines) = doctor(&mut confined(), &data, &["-o", &cores]);
    assert!(
        found(&lines, "event loops")
            .1
            .starts_with(&format!("1 (pinned to CPU {first}"))
    );
    let (_, lines) = doctor(&mut confined(), &data, &[]);
    assert_eq!(found(&lines, "event loops").1, "2 (not pinned)");
    let (_, lines) = doctor(&mut confined(), &data, &["-o", "ottla.cores=auto"]);
    assert!(found(&lines, "event loops").1.starts_with("1 ("));
}

#[test]
fn a_directory_that_is_not_writable_is_fatal() {
    let _one = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    set_mode(dir.path(), 0o555);
    let limits = memlock(MEMLOCK_BYTES);
    let data = dir.path().join("data");
    let (subject, text) = fatal(|| as_user(&limits), &data, &[]);
    assert_eq!(subject, "log dir");
    let expected = format!(
        "the directory {} is not writable for this user",
        data.display()
    );
    assert!(text.starts_with(&expected), "{text}");
}

#[test]
fn a_directory_in_memory_is_warned_of() {
    let _one = one_at_a_time();
    let shared_memory = Path::new("/dev/shm");
    let Ok(dir) = tempfile::tempdir_in(shared_memory) else {
        return;
    };
    let kind = nix::sys::statfs::statfs(dir.path())
        .unwrap()
        .filesystem_type();
    if kind != nix::sys::statfs::TMPFS_MAGIC {
        return;
    }
    let (status, lines) = doctor(&mut ottla(), dir.path(), &[]);
    assert_eq!(
        (status, found(&lines, "log dir").0),
        (0, "warn"),
        "{lines:?}"
    );
    assert!(found(&lines, "log dir").1.contains("memory"));
}
