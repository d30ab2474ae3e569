//! How a core is set up, and what can keep it from starting.
//!
//! A text tells what is wrong and what to do about it, with the command where there is one.

use std::io;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};

use super::{memlock, probe};
use crate::base::CoreId;
use crate::config::{FetchPath, SpinMode};

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
    pub spin_mode: SpinMode,
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
            spin_mode: SpinMode::Adaptive,
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
    #[error("this kernel lacks {missing}; Linux 6.1 or newer is needed")]
    Kernel { missing: String },
    /// ENOSYS, and nothing that would hide it.
    #[error(
        "this kernel has no io_uring, or a sandbox hides it (io_uring_setup isn't implemented); \
         Linux 6.1 or newer is needed, built with CONFIG_IO_URING=y"
    )]
    NoIoUring,
    /// ENOSYS under a seccomp filter.
    #[error(
        "io_uring is hidden by a seccomp filter, or this kernel has none (io_uring_setup isn't \
         implemented); {FILTER_ADVICE}"
    )]
    Hidden,
    /// EPERM under a seccomp filter.
    #[error(
        "io_uring is blocked by a seccomp filter, as container engines do by default; \
         {FILTER_ADVICE}"
    )]
    Filtered,
    /// EPERM by the system's own switch.
    #[error("{}; switch it on with `sudo sysctl -w kernel.io_uring_disabled=0`", switched_off(*.level))]
    SwitchedOff { level: u32 },
    /// EPERM, and neither of the two.
    #[error(
        "io_uring is not permitted to this process, perhaps by a security module (SELinux, \
         AppArmor); `sudo dmesg | grep -i denied` tells which"
    )]
    NotPermitted,
    #[error(
        "the limit of {limit} open files is too low for an event loop; raise it in this shell \
         with `sudo prlimit --pid $$ --nofile=65536` (RLIMIT_NOFILE; `LimitNOFILE=` in a \
         systemd unit)"
    )]
    Files { limit: u64 },
    #[error("can't run on CPU {cpu}: {source}")]
    Affinity { cpu: usize, source: io::Error },
    #[error("can't set the core's io_uring up: {0}")]
    Ring(#[source] io::Error),
    #[error("can't set the executor up: {0}")]
    Executor(String),
    #[error("can't start the core's thread: {0}")]
    Thread(#[source] io::Error),
}

const FILTER_ADVICE: &str = "start the container with `--security-opt seccomp=unconfined`, or \
    with a profile that allows io_uring_setup, io_uring_enter and io_uring_register (in \
    Kubernetes `seccompProfile: {type: Unconfined}`; in a systemd unit \
    `SystemCallFilter=@io-event`)";

fn switched_off(level: u32) -> String {
    match level {
        1 => "io_uring is kept for root and the group of kernel.io_uring_group \
              (kernel.io_uring_disabled is 1)"
            .to_owned(),
        level => format!("io_uring is switched off (kernel.io_uring_disabled is {level})"),
    }
}

/// What may keep io_uring from a process though the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Obstacles {
    /// kernel.io_uring_disabled as far as it concerns this process; 0 where nothing is off.
    pub(super) disabled: u32,
    pub(super) is_filtered: bool,
}

/// Tells what an error of setting a ring up means.
pub(super) fn ring_error(error: io::Error, backend: Backend) -> StartError {
    explain(error, backend, probe::obstacles)
}

fn explain(
    error: io::Error,
    backend: Backend,
    obstacles: impl FnOnce() -> Obstacles,
) -> StartError {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => match obstacles() {
            Obstacles {
                is_filtered: true, ..
            } => StartError::Hidden,
            _ => StartError::NoIoUring,
        },
        Some(libc::EPERM) => match obstacles() {
            Obstacles {
                disabled: level @ 1..,
                ..
            } => StartError::SwitchedOff { level },
            Obstacles {
                is_filtered: true, ..
            } => StartError::Filtered,
            _ => StartError::NotPermitted,
        },
        Some(libc::EINVAL) => StartError::Kernel {
            missing: "deferred task work or provided buffers of io_uring".to_owned(),
        },
        Some(libc::ENOMEM) => memlock::out_of_memory(backend),
        Some(libc::EMFILE) => {
            let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
            StartError::Files { limit }
        }
        _ => StartError::Ring(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(errno: i32, disabled: u32, is_filtered: bool) -> String {
        let obstacles = Obstacles {
            disabled,
            is_filtered,
        };
        let error = io::Error::from_raw_os_error(errno);
        explain(error, Backend::Ring, || obstacles).to_string()
    }

    #[test]
    fn errors_say_what_to_do() {
        let exempt = memlock::Memlock::read().is_exempt;
        let memory = text(libc::ENOMEM, 0, false);
        assert_eq!(memory.contains("RLIMIT_MEMLOCK"), !exempt);
        assert!(text(libc::EINVAL, 0, false).contains("Linux 6.1"));
        assert!(text(libc::EMFILE, 0, false).contains("--nofile="));
    }

    #[test]
    fn a_kernel_without_io_uring_and_one_that_refuses_it_are_told_apart() {
        let none = text(libc::ENOSYS, 0, false);
        assert!(none.contains("no io_uring") && none.contains("CONFIG_IO_URING"));
        let hidden = text(libc::ENOSYS, 0, true);
        assert!(hidden.contains("hidden") && hidden.contains("seccomp=unconfined"));
        let filtered = text(libc::EPERM, 0, true);
        assert!(filtered.contains("blocked") && filtered.contains("io_uring_enter"));
        let off = text(libc::EPERM, 2, true);
        assert!(
            off.contains("`sudo sysctl -w kernel.io_uring_disabled=0`"),
            "{off}"
        );
        assert!(text(libc::EPERM, 1, false).contains("kernel.io_uring_group"));
        assert!(text(libc::EPERM, 0, false).contains("SELinux"));
        for text in [none, hidden, filtered, off] {
            assert!(!text.contains("  ") && !text.contains('\n'), "{text}");
        }
    }
}
