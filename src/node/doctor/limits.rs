//! What the process may have: locked memory, open files, pipes.

use nix::sys::resource::{Resource, getrlimit};

use super::{Check, read, show_bytes, storage};
use crate::config::{DynamicConfig, FetchPath, NodeConfig};
use crate::io::probe::{PIPE_BYTES, PIPES_MAX, PipeExemptions, pipe_exemptions};
use crate::io::{Backend, Memlock};
use crate::node::StartError;
use crate::node::cores::Plan;

/// Descriptors of the process, and of each event loop: executor, rings, bell, listeners and,
/// both ends, the pipes.
const FILES_OF_PROCESS: u64 = 32;
const FILES_OF_CORE: u64 = 16;
const FILES_OF_PIPES: u64 = 2 * PIPES_MAX as u64;
/// Fewer connections than this are too few for anybody who set no limit.
const CONNECTIONS_MIN: u64 = 1_024;
/// What is advised at least.
const FILES_ADVISED: u64 = 65_536;
const PAGE_BYTES: usize = 4_096;

pub(super) fn checks(
    config: &NodeConfig,
    cores: usize,
    plan: Option<&Plan>,
    memlock: &Memlock,
) -> Vec<Check> {
    let mut checks = vec![match open_files(config, cores) {
        Err(error) => Check::fail("open files", &error),
        Ok(left) => connections(config, left),
    }];
    checks.extend(plan.map(|plan| locked_memory(plan, memlock)));
    checks.extend(pipes(config, cores));
    checks
}

fn locked_memory(plan: &Plan, memlock: &Memlock) -> Check {
    const SUBJECT: &str = "locked memory";
    let loops = plan.places.len();
    let needed = show_bytes(Memlock::needed(loops + 1, Backend::Ring));
    if let Some(warning) = &plan.short_of_memlock {
        return Check::warn(SUBJECT, warning.clone());
    }
    if memlock.is_exempt {
        let text = format!("no limit for this user; another user needs {needed} for {loops}");
        return Check::ok(SUBJECT, text);
    }
    let limit = match memlock.limit_bytes {
        u64::MAX => "unlimited".to_owned(),
        bytes => show_bytes(bytes),
    };
    Check::ok(SUBJECT, format!("{limit}, {needed} needed"))
}

/// How many descriptors are left for connections; an error where not even what a node needs
/// for itself is there.
pub(super) fn open_files(config: &NodeConfig, cores: usize) -> Result<u64, StartError> {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).map_err(std::io::Error::from)?;
    files_left(limit, cores, storage::holdings(config))
}

fn files_left(limit: u64, cores: usize, holdings: storage::Holdings) -> Result<u64, StartError> {
    let of_cores = FILES_OF_PROCESS + (FILES_OF_CORE + FILES_OF_PIPES) * (cores as u64 + 1);
    // A segment's log stays open, and two indexes of the one that is written to.
    let files = holdings.segments + 2 * holdings.partitions;
    let needed = of_cores + files;
    limit.checked_sub(needed).ok_or(StartError::OpenFiles {
        limit,
        cores,
        files,
        partitions: holdings.partitions,
        needed,
        advised: advised(needed + CONNECTIONS_MIN),
    })
}

fn advised(files: u64) -> u64 {
    files.next_power_of_two().max(FILES_ADVISED)
}

fn connections(config: &NodeConfig, left: u64) -> Check {
    let wanted = DynamicConfig::effective(&config.layers()).max_connections;
    let bound = (wanted < i32::MAX).then(|| u64::try_from(wanted).unwrap_or(0));
    judge_connections(left, bound)
}

fn judge_connections(left: u64, bound: Option<u64>) -> Check {
    const SUBJECT: &str = "open files";
    let wanted = bound.unwrap_or(CONNECTIONS_MIN);
    if wanted <= left {
        let text = format!("{left} left for connections and new partitions");
        return Check::ok(SUBJECT, text);
    }
    let what = match bound {
        Some(bound) => format!("max.connections is {bound}"),
        None => "max.connections is not set".to_owned(),
    };
    Check::warn(
        SUBJECT,
        format!(
            "{left} left for connections and new partitions, and {what}; raise the limit in this \
             shell with `sudo prlimit --pid $$ --nofile={}` (RLIMIT_NOFILE; `LimitNOFILE=` in a \
             systemd unit)",
            advised(wanted + FILES_ADVISED / 2)
        ),
    )
}

/// Splicing through smaller pipes is slower; nothing else happens.
fn pipes(config: &NodeConfig, cores: usize) -> Option<Check> {
    let fetch_path = config.runtime.fetch_path;
    if !matches!(fetch_path, FetchPath::Auto | FetchPath::Splice) {
        return None;
    }
    let number = |name: &str| read(format!("/proc/sys/fs/{name}"))?.parse::<usize>().ok();
    let size_max = number("pipe-max-size")?;
    let pages_soft = number("pipe-user-pages-soft")?;
    Some(judge_pipes(cores, size_max, pages_soft, pipe_exemptions()))
}

fn judge_pipes(cores: usize, size_max: usize, pages_soft: usize, exempt: PipeExemptions) -> Check {
    const SUBJECT: &str = "pipes";
    let pages = cores * PIPES_MAX * PIPE_BYTES / PAGE_BYTES;
    let size = show_bytes(PIPE_BYTES as u64);
    if size_max < PIPE_BYTES && !exempt.size {
        return Check::warn(
            SUBJECT,
            format!(
                "fs.pipe-max-size is {size_max}, so that cold fetches are sent in small pieces; \
                 `sudo sysctl -w fs.pipe-max-size={PIPE_BYTES}`"
            ),
        );
    }
    // 0 stands for no limit.
    if pages_soft != 0 && pages_soft < pages && !exempt.pages {
        return Check::warn(
            SUBJECT,
            format!(
                "the pipes of {cores} event loops may have {pages} pages and \
                 fs.pipe-user-pages-soft is {pages_soft}, so that some stay small; \
                 `sudo sysctl -w fs.pipe-user-pages-soft={pages}`"
            ),
        );
    }
    Check::ok(SUBJECT, format!("{size} each, {pages} pages at most"))
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn files_are_those_of_cores_and_partitions() {
        let holdings = storage::Holdings {
            partitions: 10,
            segments: 100,
        };
        let error = files_left(100, 2, holdings).unwrap_err();
        let StartError::OpenFiles {
            needed, advised, ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!(needed, 32 + 3 * 48 + 120);
        assert_eq!(files_left(needed, 2, holdings).unwrap(), 0);
        // The advised limit mends it, and leaves room for connections.
        assert!(files_left(advised, 2, holdings).unwrap() >= CONNECTIONS_MIN);
        assert!(!error.to_string().contains("  "));
    }

    #[test]
    fn connections_want_descriptors() {
        for (left, bound, status) in [
            (1_024, None, Status::Ok),
            (1_023, None, Status::Warn),
            (10, Some(10), Status::Ok),
            (10, Some(11), Status::Warn),
        ] {
            let check = judge_connections(left, bound);
            assert_eq!(check.status, status, "{check}");
            assert_eq!(check.text.contains("--nofile="), status == Status::Warn);
        }
    }

    #[test]
    fn small_pipes_are_told_to_ordinary_users() {
        let status = |size, pages, exempt| {
            let exempt = PipeExemptions {
                size: exempt,
                pages: exempt,
            };
            judge_pipes(4, size, pages, exempt).status
        };
        assert_eq!(status(1 << 20, 16_384, false), Status::Ok);
        assert_eq!(status(1 << 20, 16_383, false), Status::Warn);
        assert_eq!(status(1 << 20, 0, false), Status::Ok);
        assert_eq!(status(1 << 19, 0, false), Status::Warn);
        assert_eq!(status(1 << 19, 1, true), Status::Ok);
    }
}
