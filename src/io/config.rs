//! How a core is set up, and what can keep it from starting.

use std::io;
use std::time::Duration;

use crate::base::CoreId;
use crate::config::FetchPath;

/// What runs a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// glommio as the executor, our own ring for all I/O.
    Ring,
    /// Our own executor and ring.
    Bare,
}

#[derive(Clone, Debug)]
pub struct CoreConfig {
    pub core: CoreId,
    /// The CPU to run on; any without it.
    pub cpu: Option<usize>,
    /// For how long to look for work before sleeping; zero sleeps at once.
    pub spin: Duration,
    pub backend: Backend,
    /// Number of buffers lent to the kernel for receiving, a power of two up to 32,768.
    pub recv_buffers: u16,
    pub recv_buffer_bytes: u32,
    /// How ranges of files are sent.
    pub fetch_path: FetchPath,
    /// The thread's name (at most 15 bytes are visible to the system).
    pub name: String,
}

impl CoreConfig {
    pub fn new(core: CoreId) -> CoreConfig {
        CoreConfig {
            core,
            cpu: None,
            spin: Duration::ZERO,
            backend: Backend::Ring,
            recv_buffers: 512,
            recv_buffer_bytes: 8 << 10,
            fetch_path: FetchPath::Auto,
            name: format!("ottla-core-{core}"),
        }
    }
}

/// Why a core can't start. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "{cores} event loops need {needed_bytes} bytes of locked memory and the limit is \
         {limit_bytes}; raise it in this shell with `sudo prlimit --pid $$ \
         --memlock={needed_bytes}` (RLIMIT_MEMLOCK; `LimitMEMLOCK=` in a systemd unit)"
    )]
    Memlock {
        cores: usize,
        needed_bytes: u64,
        limit_bytes: u64,
    },
    #[error(
        "an event loop needs {needed_bytes} bytes of locked memory, and that much isn't left of \
         the limit of {limit_bytes}, which counts all processes of the user; raise it \
         in this shell with `sudo prlimit --pid $$ --memlock=unlimited` (RLIMIT_MEMLOCK; \
         `LimitMEMLOCK=` in a systemd unit)"
    )]
    MemlockUsedUp { needed_bytes: u64, limit_bytes: u64 },
    #[error("the kernel has no memory for the core's io_uring")]
    Memory,
    #[error("this kernel lacks {missing}; Linux 6.1 or newer is needed, with io_uring enabled")]
    Kernel { missing: &'static str },
    #[error("can't run on CPU {cpu}: {source}")]
    Affinity { cpu: usize, source: io::Error },
    #[error("can't set the core's io_uring up: {0}")]
    Ring(#[source] io::Error),
    #[error("can't set the executor up: {0}")]
    Executor(String),
    #[error("can't start the core's thread: {0}")]
    Thread(#[source] io::Error),
}

/// Locked memory of one glommio executor (three rings), measured.
const GLOMMIO_BYTES: u64 = 224 << 10;
/// glommio refuses to start below this limit, whatever it uses.
const GLOMMIO_LIMIT_BYTES_MIN: u64 = 512 << 10;
/// Locked memory of a core's own ring: 256 submissions, 4,096 completions.
const RING_BYTES: u64 = 96 << 10;

/// Checks before the start that `cores` event loops may lock the memory that they need.
/// Root (or CAP_IPC_LOCK) is exempt. Memory that the same user has locked elsewhere
/// counts as well and isn't seen here: then a core's own start fails
/// (`MemlockUsedUp`).
pub fn check_memlock(cores: usize, backend: Backend) -> Result<(), StartError> {
    let limit_bytes = memlock_limit()?;
    let needed_bytes = memlock_needed(cores, backend);
    if limit_bytes < needed_bytes && !may_lock_without_limit() {
        return Err(StartError::Memlock {
            cores,
            needed_bytes,
            limit_bytes,
        });
    }
    Ok(())
}

fn memlock_needed(cores: usize, backend: Backend) -> u64 {
    match backend {
        Backend::Ring => ((GLOMMIO_BYTES + RING_BYTES) * cores as u64).max(GLOMMIO_LIMIT_BYTES_MIN),
        Backend::Bare => RING_BYTES * cores as u64,
    }
}

fn memlock_limit() -> Result<u64, StartError> {
    let (soft, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK)
        .map_err(|error| StartError::Ring(error.into()))?;
    Ok(soft)
}

/// Whether the process has CAP_IPC_LOCK.
fn may_lock_without_limit() -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .is_some_and(|capabilities| capabilities & (1 << CAP_IPC_LOCK) != 0)
}

/// Tells what an error of setting a ring up means.
pub(super) fn ring_error(error: io::Error, backend: Backend) -> StartError {
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EPERM) => StartError::Kernel {
            missing: "io_uring (or it is switched off)",
        },
        Some(libc::EINVAL) => StartError::Kernel {
            missing: "deferred task work or provided buffers of io_uring",
        },
        Some(libc::ENOMEM) if may_lock_without_limit() => StartError::Memory,
        Some(libc::ENOMEM) => StartError::MemlockUsedUp {
            needed_bytes: match backend {
                Backend::Ring => GLOMMIO_BYTES + RING_BYTES,
                Backend::Bare => RING_BYTES,
            },
            limit_bytes: memlock_limit().unwrap_or(0),
        },
        _ => StartError::Ring(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glommio_has_a_least_limit() {
        assert_eq!(memlock_needed(1, Backend::Ring), 512 << 10);
        assert_eq!(memlock_needed(4, Backend::Ring), 1_280 << 10);
        assert_eq!(memlock_needed(1, Backend::Bare), 96 << 10);
    }

    #[test]
    fn errors_say_what_to_do() {
        let error = ring_error(io::Error::from_raw_os_error(libc::ENOMEM), Backend::Bare);
        let exempt = may_lock_without_limit();
        assert_eq!(error.to_string().contains("RLIMIT_MEMLOCK"), !exempt);
        let error = ring_error(io::Error::from_raw_os_error(libc::EINVAL), Backend::Ring);
        assert!(error.to_string().contains("Linux 6.1"));
    }
}
