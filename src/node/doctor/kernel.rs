//! The kernel: its version, io_uring, and what may block that.

use super::{Check, read};
use crate::base::CoreId;
use crate::io::probe::{io_uring_disabled, is_filtered, probe_ring};
use crate::io::{Backend, Memlock};
use crate::node::StartError;

/// Deferred task work of io_uring came with this version.
const OLDEST: (u32, u32) = (6, 1);

pub(super) fn checks(memlock: &Memlock) -> Vec<Check> {
    let mut checks = vec![match version() {
        Ok(release) => Check::ok("kernel", format!("Linux {release}")),
        Err(error) => Check::fail("kernel", &error),
    }];
    if memlock.cores_max(Backend::Bare) == 0 {
        // The limit is reported as what is wrong; a ring would fail for it.
        checks.push(Check::warn(
            "io_uring",
            "not tried, since too little memory may be locked (see `event loops`)",
        ));
        return checks;
    }
    match io_uring() {
        Err(error) => checks.push(Check::fail("io_uring", &error)),
        Ok(()) => {
            let text = "deferred task work, provided buffers, every operation in use";
            checks.push(Check::ok("io_uring", text));
            checks.extend(io_uring_disabled().map(switch));
            checks.push(Check::ok(
                "seccomp",
                if is_filtered() {
                    "a filter that lets io_uring through"
                } else {
                    "no filter"
                },
            ));
        }
    }
    checks
}

/// The release, where it is new enough.
pub(super) fn version() -> Result<String, StartError> {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    // An unreadable version is no reason not to try.
    match parse(&release) {
        Some(version) if version < OLDEST => Err(StartError::Kernel { found: release }),
        _ => Ok(release),
    }
}

pub(super) fn io_uring() -> Result<(), StartError> {
    probe_ring().map_err(|error| StartError::core(CoreId(0), error))
}

/// kernel.io_uring_disabled, where this process may use io_uring anyhow.
fn switch(level: u32) -> Check {
    const SUBJECT: &str = "io_uring switch";
    if level == 0 {
        return Check::ok(SUBJECT, "kernel.io_uring_disabled is 0");
    }
    Check::warn(
        SUBJECT,
        format!(
            "kernel.io_uring_disabled is {level}: this user may use io_uring, others may not; \
             `sudo sysctl -w kernel.io_uring_disabled=0`"
        ),
    )
}

fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_understood() {
        assert_eq!(parse("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(parse("5.15.0-91-generic"), Some((5, 15)));
        assert_eq!(parse("6.1-rc1"), Some((6, 1)));
        assert_eq!(parse("6"), None);
        assert_eq!(parse(""), None);
    }
}
