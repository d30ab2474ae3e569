//! How much memory event loops lock, and how much they may.
//!
//! Called by `core` before a loop starts, by `node::cores`, which plans for what there is,
//! and by `node::doctor`. The kernel counts what all processes of a user have locked;
//! others' share isn't seen here: then a core's own start fails (`MemlockUsedUp`).

use nix::sys::resource::{Resource, getrlimit};

use super::config::{Backend, StartError};
use super::topology::status_field;

/// Locked memory of one glommio executor (three rings, and buffers), measured.
const GLOMMIO_BYTES: u64 = 240 << 10;
/// glommio refuses to start below this limit, whatever it uses.
const GLOMMIO_LIMIT_BYTES_MIN: u64 = 512 << 10;
/// Locked memory of a core's own ring: 256 submissions, 4,096 completions.
const RING_BYTES: u64 = 96 << 10;
/// The sentinel's, once for all cores.
const SENTINEL_BYTES: u64 = 16 << 10;

/// What this process may lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memlock {
    /// RLIMIT_MEMLOCK, the soft limit.
    pub limit_bytes: u64,
    /// Root, or CAP_IPC_LOCK.
    pub is_exempt: bool,
}

impl Memlock {
    pub fn read() -> Memlock {
        // It fails for no resource that there is.
        let limit_bytes = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft);
        Memlock {
            limit_bytes,
            is_exempt: has_capability(CAP_IPC_LOCK),
        }
    }

    /// Bytes that `cores` event loops lock.
    pub fn needed(cores: usize, backend: Backend) -> u64 {
        let bytes = per_core(backend) * cores as u64 + SENTINEL_BYTES;
        match backend {
            Backend::Ring => bytes.max(GLOMMIO_LIMIT_BYTES_MIN),
            Backend::Bare => bytes,
        }
    }

    /// How many event loops fit.
    pub fn cores_max(&self, backend: Backend) -> usize {
        if self.is_exempt {
            return usize::MAX;
        }
        if self.limit_bytes < Memlock::needed(1, backend) {
            return 0;
        }
        let cores = self.limit_bytes.saturating_sub(SENTINEL_BYTES) / per_core(backend);
        usize::try_from(cores).unwrap_or(usize::MAX)
    }

    /// Says what is missing for `cores` event loops.
    pub fn check(&self, cores: usize, backend: Backend) -> Result<(), StartError> {
        if cores <= self.cores_max(backend) {
            return Ok(());
        }
        Err(StartError::Memlock {
            cores,
            needed_bytes: Memlock::needed(cores, backend),
            limit_bytes: self.limit_bytes,
        })
    }
}

/// Checks before the start that `cores` event loops may lock the memory that they need.
pub fn check_memlock(cores: usize, backend: Backend) -> Result<(), StartError> {
    Memlock::read().check(cores, backend)
}

/// The kernel refused a ring for want of memory: the user's limit, or the machine's.
pub(super) fn out_of_memory(backend: Backend) -> StartError {
    let memlock = Memlock::read();
    if memlock.is_exempt {
        return StartError::Memory;
    }
    StartError::MemlockUsedUp {
        needed_bytes: per_core(backend),
        limit_bytes: memlock.limit_bytes,
    }
}

fn per_core(backend: Backend) -> u64 {
    match backend {
        Backend::Ring => GLOMMIO_BYTES + RING_BYTES,
        Backend::Bare => RING_BYTES,
    }
}

const CAP_IPC_LOCK: u32 = 14;
pub(super) const CAP_SYS_ADMIN: u32 = 21;
pub(super) const CAP_SYS_RESOURCE: u32 = 24;

/// Whether the process has a capability, by its number.
pub(super) fn has_capability(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status_field(&status, "CapEff")
        .and_then(|capabilities| u64::from_str_radix(capabilities, 16).ok());
    effective.is_some_and(|capabilities| capabilities & (1 << number) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(limit_bytes: u64) -> Memlock {
        Memlock {
            limit_bytes,
            is_exempt: false,
        }
    }

    #[test]
    fn glommio_has_a_least_limit() {
        assert_eq!(Memlock::needed(1, Backend::Ring), 512 << 10);
        assert_eq!(Memlock::needed(4, Backend::Ring), 1_360 << 10);
        assert_eq!(Memlock::needed(1, Backend::Bare), 112 << 10);
        assert_eq!(limit((512 << 10) - 1).cores_max(Backend::Ring), 0);
        assert_eq!(limit(512 << 10).cores_max(Backend::Ring), 1);
    }

    #[test]
    fn what_fits_passes_and_one_more_does_not() {
        let default = limit(8 << 20);
        for backend in [Backend::Ring, Backend::Bare] {
            let fit = default.cores_max(backend);
            assert!(default.check(fit, backend).is_ok());
            let error = default.check(fit + 1, backend).unwrap_err();
            let StartError::Memlock { needed_bytes, .. } = error else {
                panic!("{error}");
            };
            // The command that the error names mends it.
            assert!(limit(needed_bytes).check(fit + 1, backend).is_ok());
        }
        assert_eq!(
            limit(libc::RLIM_INFINITY).check(300, Backend::Ring).ok(),
            Some(())
        );
        let exempt = Memlock {
            is_exempt: true,
            ..limit(0)
        };
        assert!(exempt.check(300, Backend::Ring).is_ok());
    }
}
