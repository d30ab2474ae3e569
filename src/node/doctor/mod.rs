//! Looks at the machine as a node would find it: what keeps one from starting, what makes it
//! slow or unsafe, and the command that mends it.
//!
//! ```text
//! kernel     version, io_uring, what blocks it
//! limits     locked memory, open files, pipes
//! machine    CPUs, quota, NUMA, clock, frequency, huge pages
//! storage    what each directory of log.dirs is on
//! ```
//! Called by `ottla doctor` for everything and by `ottla start` for what is fatal; both give
//! the same texts, those of [`StartError`]. Nothing is created, formatted or changed.
//!
//! Invariants: a check is one line. What can't be read is left out, never guessed, and
//! nothing else fails for it.

mod kernel;
mod limits;
mod machine;
mod storage;

use std::fmt;
use std::path::Path;

use super::StartError;
use super::cores::{self, Plan};
use crate::config::NodeConfig;
use crate::io::Memlock;
use crate::io::topology::Topology;

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub status: Status,
    /// What was looked at.
    pub subject: &'static str,
    /// What was found; for all but `Ok` with what to do about it.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    /// A node starts, but is slower, smaller or less safe than it could be.
    Warn,
    /// A node doesn't start.
    Fail,
}

/// Everything that is looked at.
pub fn examine(config: &NodeConfig) -> Vec<Check> {
    let topology = Topology::read();
    let memlock = Memlock::read();
    let plan = cores::plan_for(config, &topology, &memlock);
    let mut checks = kernel::checks(&memlock);
    checks.push(event_loops(&plan));
    let plan = plan.ok();
    let cores = plan.as_ref().map_or(1, |plan| plan.places.len());
    checks.extend(limits::checks(config, cores, plan.as_ref(), &memlock));
    checks.extend(machine::checks(plan.as_ref(), &topology));
    checks.extend(storage::checks(config));
    checks
}

/// What would keep a node from starting; the first of it.
pub fn check_fatal(config: &NodeConfig) -> Result<(), StartError> {
    kernel::version()?;
    let plan = cores::plan(config)?;
    limits::open_files(config, plan.places.len())?;
    kernel::io_uring()?;
    for directory in storage::directories(config) {
        storage::usable(directory)?;
    }
    Ok(())
}

fn event_loops(plan: &Result<Plan, StartError>) -> Check {
    const SUBJECT: &str = "event loops";
    match plan {
        Err(error) => Check::fail(SUBJECT, error),
        Ok(plan) => Check::ok(SUBJECT, cores::text(&plan.places)),
    }
}

impl Check {
    fn ok(subject: &'static str, text: impl Into<String>) -> Check {
        Check {
            status: Status::Ok,
            subject,
            text: text.into(),
        }
    }

    fn warn(subject: &'static str, text: impl Into<String>) -> Check {
        Check {
            status: Status::Warn,
            subject,
            text: text.into(),
        }
    }

    fn fail(subject: &'static str, error: &StartError) -> Check {
        Check {
            status: Status::Fail,
            subject,
            text: error.to_string(),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Check {
            status,
            subject,
            text,
        } = self;
        write!(f, "{status:<4}  {subject:<16}  {text}")
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        })
    }
}

/// A small file of /proc or /sys, without the spaces around its text.
fn read(path: impl AsRef<Path>) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

/// Bytes for a person.
fn show_bytes(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = UNITS.iter().find(|(_, shift)| bytes >> shift > 0);
    match unit {
        Some((unit, shift)) => {
            let tenths = (u128::from(bytes) * 10) >> shift;
            match (tenths / 10, tenths % 10) {
                (whole, 0) => format!("{whole} {unit}"),
                (whole, tenth) => format!("{whole}.{tenth} {unit}"),
            }
        }
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_lines_in_columns() {
        let lines = [
            Check::ok("kernel", "Linux"),
            Check::warn("log dir", "slow"),
            Check::fail("locked memory", &StartError::Log("x".to_owned())),
        ];
        assert_eq!(
            lines.map(|check| check.to_string()),
            [
                "ok    kernel            Linux",
                "warn  log dir           slow",
                "FAIL  locked memory     a partition's log can't be opened: x",
            ]
        );
    }

    #[test]
    fn bytes_are_readable() {
        assert_eq!(show_bytes(0), "0 bytes");
        assert_eq!(show_bytes(1023), "1023 bytes");
        assert_eq!(show_bytes(1024), "1 KiB");
        assert_eq!(show_bytes(8 << 20), "8 MiB");
        assert_eq!(show_bytes((3 << 30) + (1 << 29)), "3.5 GiB");
        assert_eq!(show_bytes(u64::MAX), "16777215.9 TiB");
    }

    #[test]
    fn every_check_is_one_line() {
        let config = crate::config::load(None, &[]).unwrap().node;
        let checks = examine(&config);
        assert!(checks.len() >= 10, "{checks:?}");
        for check in &checks {
            assert!(
                !check.text.is_empty() && !check.text.contains('\n'),
                "{check}"
            );
            assert!(check.subject.len() <= 16, "{check}");
        }
        // What starts has nothing fatal, and the other way round.
        let fatal = checks.iter().any(|check| check.status == Status::Fail);
        assert_eq!(check_fatal(&config).is_err(), fatal, "{checks:?}");
    }
}
