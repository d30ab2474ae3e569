//! What io_uring of this kernel grants this process, found out by trying.
//!
//! Called by `node::doctor`, and through it before a node starts; `config` asks for the
//! obstacles when a ring was refused.

use std::fs;
use std::sync::Arc;

use super::config::{Backend, Obstacles, StartError, ring_error};
use super::core::with_patience;
use super::driver::{Bell, Driver};
use super::memlock::{CAP_SYS_ADMIN, CAP_SYS_RESOURCE, has_capability};
use super::topology::status_field;

const DISABLED: &str = "/proc/sys/kernel/io_uring_disabled";

/// Sets up a ring as a core has it, asks the kernel for every operation that is used, and
/// takes it down again.
pub fn probe_ring() -> Result<(), StartError> {
    let failed = |error| ring_error(error, Backend::Bare);
    let bell = Arc::new(Bell::new().map_err(failed)?);
    let driver = with_patience(|| Driver::new(bell.clone(), 8, 512).map_err(failed))?;
    let missing = driver.missing_operations();
    driver.drain();
    let missing = missing.map_err(failed)?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(StartError::Kernel {
        missing: format!("{} of io_uring", missing.join(", ")),
    })
}

/// kernel.io_uring_disabled: 0 no, 1 for those outside of kernel.io_uring_group, 2 for all.
/// Kernels before 6.6 have no such switch.
pub fn io_uring_disabled() -> Option<u32> {
    fs::read_to_string(DISABLED).ok()?.trim().parse().ok()
}

/// Whether system calls of this process pass a seccomp filter.
pub fn is_filtered() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status_field(&status, "Seccomp") == Some("2")
}

/// Bytes of each pipe that a core splices through, where they are granted.
pub const PIPE_BYTES: usize = super::pipes::PIPE_BYTES[0] as usize;
/// Pipes of a core.
pub const PIPES_MAX: usize = super::net::PIPES_MAX;

/// Which limits of pipes don't hold for the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PipeExemptions {
    /// `pipe-max-size`
    pub size: bool,
    /// `pipe-user-pages-soft`
    pub pages: bool,
}

pub fn pipe_exemptions() -> PipeExemptions {
    let size = has_capability(CAP_SYS_RESOURCE);
    PipeExemptions {
        size,
        pages: size || has_capability(CAP_SYS_ADMIN),
    }
}

pub(super) fn obstacles() -> Obstacles {
    let disabled = io_uring_disabled().unwrap_or(0);
    let concerns = disabled != 1 || !has_capability(CAP_SYS_ADMIN);
    Obstacles {
        disabled: if concerns { disabled } else { 0 },
        is_filtered: is_filtered(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_grants_what_a_core_uses() {
        // Tests of cores would all fail otherwise.
        probe_ring().unwrap();
    }
}
