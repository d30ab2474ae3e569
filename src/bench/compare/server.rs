//! A server under test and its process, which is frozen while it isn't its turn: an idle
//! broker isn't idle (collectors, flushes, timers), and on few cores the other would pay for
//! it. Called by `compare`.
//!
//! Invariants: a process is only signalled while it is the one that was named at the start
//! (pid and start time); whatever way the comparison ends, it leaves no process frozen.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::client::{ANSWER_WAIT, Client};

/// The kernel stops a process at once, but for threads that are deep in a write.
const STOP_WAIT: Duration = Duration::from_secs(30);
/// A broker deletes when it comes to it; Kafka doesn't in its first half minute.
const DELETE_WAIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(5);

/// One side, as the command line names it.
#[derive(Clone, Debug)]
pub struct Server {
    pub name: String,
    pub address: String,
    /// Its process; without one it is never frozen.
    pub process: Option<Process>,
    /// Its data, if its deleted topics are to be awaited.
    pub dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pid: Pid,
    /// In ticks since the boot: with it the pid names one process for ever.
    start_time: u64,
}

impl Process {
    pub fn find(pid: u32) -> Result<Process, String> {
        let raw = i32::try_from(pid).ok().filter(|pid| *pid > 1);
        let raw = raw.ok_or_else(|| format!("{pid} is no process to stop"))?;
        let (_, start_time) = stat(pid).ok_or_else(|| format!("there is no process {pid}"))?;
        Ok(Process {
            pid: Pid::from_raw(raw),
            start_time,
        })
    }

    pub fn pid(self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// R, S, D, T and so on; none once it has ended.
    fn state(self) -> Option<char> {
        let (state, start_time) = stat(self.pid())?;
        (start_time == self.start_time && state != 'Z').then_some(state)
    }

    pub(super) fn signal(self, signal: Signal) -> Result<(), String> {
        let pid = self.pid;
        if self.state().is_none() {
            return Err(format!("process {pid} has ended"));
        }
        kill(pid, signal).map_err(|error| format!("can't send {signal} to process {pid}: {error}"))
    }

    /// Returns when it runs no more.
    pub fn freeze(self) -> Result<(), String> {
        self.signal(Signal::SIGSTOP)?;
        let began = Instant::now();
        while self
            .state()
            .is_some_and(|state| state != 'T' && state != 't')
        {
            if began.elapsed() > STOP_WAIT {
                return Err(format!("process {} doesn't stop", self.pid));
            }
            // No other process is told of it.
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    pub fn thaw(self) -> Result<(), String> {
        self.signal(Signal::SIGCONT)
    }
}

/// State and start time.
fn stat(pid: u32) -> Option<(char, u64)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<(char, u64)> {
    // The name may hold blanks and parentheses; the last one ends it.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

impl Server {
    pub fn freeze(&self) -> Result<(), String> {
        let named = |error| format!("{}: {error}", self.name);
        self.process.map_or(Ok(()), Process::freeze).map_err(named)
    }

    /// Whether anybody listens: known before hours are spent on the other side.
    pub fn find(&self) -> Result<(), String> {
        let (name, address) = (&self.name, &self.address);
        TcpStream::connect(address)
            .map(drop)
            .map_err(|error| format!("{name}: can't connect to {address}: {error}"))
    }

    /// Returns once it has answered.
    pub fn thaw(&self) -> Result<(), String> {
        let named = |error| format!("{}: {error}", self.name);
        self.process.map_or(Ok(()), Process::thaw).map_err(named)?;
        let began = Instant::now();
        loop {
            match Client::connect(&self.address) {
                Ok(_) => return Ok(()),
                Err(error) if began.elapsed() > ANSWER_WAIT => return Err(named(error)),
                Err(_) => std::thread::sleep(POLL),
            }
        }
    }

    /// Returns once the topic's files have gone: their deletion is work that belongs to no
    /// slice.
    pub fn await_deleted(&self, topic: &str) -> Result<(), String> {
        let Some(dir) = &self.dir else {
            return Ok(());
        };
        let began = Instant::now();
        while has_files_of(dir, topic) {
            if began.elapsed() > DELETE_WAIT {
                let dir = dir.display();
                return Err(format!(
                    "{}: {topic} is still in {dir} after {} s: start the broker with a shorter \
                     log.segment.delete.delay.ms, or compare without that side's directory",
                    self.name,
                    DELETE_WAIT.as_secs()
                ));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

/// Partitions' directories begin with their topic's name, deleted ones too.
fn has_files_of(dir: &Path, topic: &str) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name())
        .any(|name| name.to_string_lossy().starts_with(topic))
}

/// Thaws what is frozen when it goes.
pub struct Thaw<'a>(pub Vec<&'a Server>);

impl Drop for Thaw<'_> {
    fn drop(&mut self) {
        for server in &self.0 {
            // One that has ended needs it no more.
            let _ = server.process.map(Process::thaw);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    struct Sleeper(Child);

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_frozen_process_stands_still_and_is_thawed_whatever_happens() {
        let mut sleeper = Sleeper(Command::new("sleep").arg("600").spawn().unwrap());
        let process = Process::find(sleeper.0.id()).unwrap();
        let server = Server {
            name: "sleeper".to_owned(),
            address: String::new(),
            process: Some(process),
            dir: None,
        };
        {
            let _thaw = Thaw(vec![&server]);
            server.freeze().unwrap();
            assert_eq!(process.state(), Some('T'));
        }
        assert_ne!(process.state(), Some('T'));
        sleeper.0.kill().unwrap();
        sleeper.0.wait().unwrap();
        assert!(server.freeze().unwrap_err().contains("has ended"));
        assert!(Process::find(0).is_err() && Process::find(1).is_err());
    }

    #[test]
    fn a_process_with_an_odd_name_is_read() {
        let text = format!("12 (a) b (c)) S {} 777 0", ["1"; 18].join(" "));
        assert_eq!(parse_stat(&text), Some(('S', 777)));
        assert_eq!(parse_stat("12 (a"), None);
    }

    #[test]
    fn a_topic_is_there_until_its_last_directory_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let deleted = dir.path().join("t-1-0.ab12-delete");
        fs::create_dir(&deleted).unwrap();
        assert!(has_files_of(dir.path(), "t-1"));
        fs::remove_dir(&deleted).unwrap();
        assert!(!has_files_of(dir.path(), "t-1"));
    }
}
