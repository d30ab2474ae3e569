//! File ranges to the socket through memory: what the page cache has is read at once, what
//! it lacks by the ring, so that the core never waits for a disk.
//!
//! Called by `transmit::send`. The buffer is one of the core's few; whoever holds it while
//! its socket is full gives it up when another needs it, and reads again later.

use std::io::{self, IoSlice};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;

use io_uring::{opcode, types};

use super::transmit::{Sent, Wire, send_slices};
use crate::io::cold::preadv_nowait;
use crate::io::driver::Keep;
use crate::io::pipes::{BUFFER_BYTES, Buffer, Lease};
use crate::io::{Chunk, File, SendQueue};

/// Sends a buffer's fill of the first chunk, a range of a file, and with its end the memory
/// chunks that follow.
pub(super) async fn send_piece(wire: &Wire<'_>, out: &mut SendQueue) -> io::Result<Sent> {
    let buffer = wire.paths.buffers.lease().await?;
    let Some(Chunk::File {
        file,
        position,
        len,
    }) = out.front()
    else {
        unreachable!("the front is a file range")
    };
    let count = (*len as usize).min(BUFFER_BYTES);
    let read = match read_cached(file, &buffer, *position, count)? {
        Some(count) => count,
        None => {
            wire.paths.count(|stats| stats.read_cold += 1);
            read_cold(wire, &buffer, file, *position, count).await?
        }
    };
    if read == 0 {
        // The file is shorter than the chunk promises: it was truncated.
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // SAFETY: the read has ended, and a buffer is lent to one task.
    let piece = &unsafe { buffer.bytes() }[..read];
    let mut sent = 0;
    while sent < read {
        match send_slices(wire.socket, Some(IoSlice::new(&piece[sent..])), out) {
            Ok(count) => {
                wire.paths.count(|stats| stats.read.add(count));
                out.advance(count);
                sent += count;
            }
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => {
                    if !wire.writable_or_claimed(&wire.paths.buffers).await {
                        return Ok(Sent::Full);
                    }
                }
                _ => return Err(error),
            },
        }
    }
    Ok(Sent::Bytes(sent))
}

/// Reads what is in memory from the start of the range on; `None` when its first page isn't,
/// or the file system can't tell.
fn read_cached(
    file: &Arc<dyn File>,
    buffer: &Buffer,
    position: u64,
    count: usize,
) -> io::Result<Option<usize>> {
    let Some(fd) = file.raw_fd() else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let into = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: count,
    };
    // SAFETY: `into` names the first `count` bytes of the buffer, which is lent to the caller.
    match unsafe { preadv_nowait(fd, &into, position) } {
        Ok(count) => Ok(Some(count)),
        Err(error) => match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EOPNOTSUPP | libc::EINTR | libc::EINVAL) => Ok(None),
            _ => Err(error),
        },
    }
}

async fn read_cold(
    wire: &Wire<'_>,
    buffer: &Rc<Lease<Buffer>>,
    file: &Arc<dyn File>,
    position: u64,
    count: usize,
) -> io::Result<usize> {
    let Some(fd) = file.raw_fd() else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    loop {
        let entry = opcode::Read::new(types::Fd(fd), buffer.as_mut_ptr(), count as u32)
            .offset(position)
            .build();
        let keep = Keep::Read {
            _file: file.clone(),
            _buffer: buffer.clone(),
        };
        // SAFETY: the entry names the file and points into the buffer; both are kept.
        match unsafe { wire.driver.once(entry, keep, true) }.await {
            count @ 0.. => return Ok(count as usize),
            error if matches!(-error, libc::EINTR | libc::EAGAIN) => wire.rt.yield_now().await,
            error => return Err(io::Error::from_raw_os_error(-error)),
        }
    }
}

/// Whether the pages of a range seem to be in memory: its last byte, and one in each
/// [`PROBE_BYTES`], can be read without waiting. Pages that are still being read count as
/// absent (for `cachestat` they'd be present).
pub(super) fn is_cached(fd: RawFd, position: u64, count: usize) -> bool {
    let last = count.saturating_sub(1);
    (0..last).step_by(PROBE_BYTES).chain([last]).all(|at| {
        let mut byte = 0u8;
        let into = libc::iovec {
            iov_base: (&raw mut byte).cast(),
            iov_len: 1,
        };
        // SAFETY: `into` names the one byte.
        let read = unsafe { preadv_nowait(fd, &into, position + at as u64) };
        matches!(read, Ok(1))
    })
}

/// The kernel reads ahead by at least so much, and drops pages in about such units.
const PROBE_BYTES: usize = 64 << 10;
