//! Reads of files that don't wait for a disk: what isn't in the page cache is fetched through
//! the ring, and the reader starts over.
//!
//! Code that looks something up in files (`log::Log::read` and what it stands on) is plain
//! and synchronous. [`Rt::without_waiting`](super::Rt::without_waiting) calls it while reads
//! of [`RealDisk`](super::RealDisk)'s files that would wait fail instead, and tell here what
//! was missing. The switch belongs to the thread, and is on only during such a call.
//!
//! Invariant: a call whose read was refused is taken for not made: its result is dropped, so
//! it must change nothing when a read fails.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

thread_local! {
    static REFUSING: Cell<bool> = const { Cell::new(false) };
    static MISSING: RefCell<Option<Missing>> = const { RefCell::new(None) };
}

/// A range of a file that is to be fetched.
pub(super) struct Missing {
    pub(super) file: OwnedFd,
    pub(super) position: u64,
    pub(super) len: usize,
}

/// Makes a call during which reads don't wait. `Err` when one would have.
pub(super) fn refusing<T>(call: impl FnOnce() -> T) -> Result<T, Missing> {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            REFUSING.set(false);
        }
    }
    assert!(!REFUSING.replace(true), "such calls aren't nested");
    let off = Off;
    let result = call();
    drop(off);
    match MISSING.take() {
        None => Ok(result),
        Some(missing) => Err(missing),
    }
}

/// A read at a time when reads don't wait; `None` at any other time, and where the file
/// system can't tell whether a read waits.
pub(super) fn read_at(file: &File, into: &mut [u8], position: u64) -> Option<io::Result<usize>> {
    if !REFUSING.get() {
        return None;
    }
    let slice = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    };
    // SAFETY: `slice` names `into`, which is ours to write.
    let error = match unsafe { preadv_nowait(file.as_raw_fd(), &slice, position) } {
        Ok(count) => return Some(Ok(count)),
        Err(error) => error,
    };
    match error.raw_os_error() {
        Some(libc::EAGAIN) => {
            let file = match file.try_clone() {
                Ok(file) => file.into(),
                Err(error) => return Some(Err(error)),
            };
            let missing = Missing {
                file,
                position,
                len: into.len(),
            };
            // The first is fetched; what was read after it failed is moot.
            MISSING.with_borrow_mut(|first| {
                first.get_or_insert(missing);
            });
            Some(Err(error))
        }
        Some(libc::EOPNOTSUPP | libc::EINVAL) => None,
        _ => Some(Err(error)),
    }
}

/// # Safety
/// `into` must name memory that may be written.
pub(super) unsafe fn preadv_nowait(
    fd: RawFd,
    into: &libc::iovec,
    position: u64,
) -> io::Result<usize> {
    let position = libc::off_t::try_from(position).map_err(io::Error::other)?;
    // SAFETY: by the caller's promise; the descriptor is checked by the kernel.
    let count = unsafe { libc::preadv2(fd, into, 1, position, libc::RWF_NOWAIT) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}
