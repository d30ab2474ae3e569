//! The inline, non-blocking send calls.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};

use smallvec::SmallVec;
use socket2::SockRef;

use crate::io::{Chunk, SendQueue};

/// What one call did.
pub(super) enum Sent {
    /// So many bytes were taken off the queue.
    Bytes(usize),
    /// The socket takes nothing now.
    Full,
}

/// The kernel takes this many slices at once (`IOV_MAX`).
const SLICES_MAX: usize = 1_024;
/// One call copies at most this much, for it holds the core meanwhile.
const BYTES_PER_CALL: usize = 256 << 10;

/// Sends from the front of a queue that isn't empty: either its leading run of memory
/// chunks, or (a part of) its first file chunk.
pub(super) fn send_some(socket: &OwnedFd, out: &mut SendQueue) -> io::Result<Sent> {
    loop {
        let result = match out.front() {
            Some(Chunk::Bytes(_)) => send_memory(socket, out),
            Some(chunk @ Chunk::File { file, .. }) => match file.raw_fd() {
                Some(fd) => send_file(socket, fd, chunk),
                None => {
                    let bytes = chunk.to_bytes()?;
                    out.replace_front(bytes);
                    continue;
                }
            },
            None => return Ok(Sent::Bytes(0)),
        };
        match result {
            Ok(count) => {
                out.advance(count);
                return Ok(Sent::Bytes(count));
            }
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => return Ok(Sent::Full),
                _ => return Err(error),
            },
        }
    }
}

/// One vectored send of the leading memory chunks. When more follows, the kernel is told,
/// so that it doesn't send a small packet for a header.
fn send_memory(socket: &OwnedFd, out: &SendQueue) -> io::Result<usize> {
    let mut slices: SmallVec<[IoSlice<'_>; 32]> = SmallVec::new();
    let mut bytes = 0;
    let mut more = false;
    for chunk in out.chunks() {
        let room = BYTES_PER_CALL - bytes;
        match chunk {
            Chunk::Bytes(chunk) if room > 0 && slices.len() < SLICES_MAX => {
                let part = &chunk[..chunk.len().min(room)];
                bytes += part.len();
                slices.push(IoSlice::new(part));
            }
            Chunk::Bytes(_) | Chunk::File { .. } => {
                more = true;
                break;
            }
        }
    }
    let mut flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    if more {
        flags |= libc::MSG_MORE;
    }
    match SockRef::from(socket).send_vectored_with_flags(&slices, flags)? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        count => Ok(count),
    }
}

/// One `sendfile`; the socket is non-blocking, so it takes what fits.
fn send_file(socket: &OwnedFd, file: i32, chunk: &Chunk) -> io::Result<usize> {
    let Chunk::File { position, len, .. } = chunk else {
        unreachable!("a file chunk")
    };
    let mut offset = libc::off_t::try_from(*position).map_err(io::Error::other)?;
    let count = (*len as usize).min(BYTES_PER_CALL);
    // SAFETY: both descriptors are open for the call (the socket is borrowed, the file is
    // held by the chunk), and `offset` is a live local.
    let sent = unsafe { libc::sendfile(socket.as_raw_fd(), file, &mut offset, count) };
    match sent {
        // The file is shorter than the chunk promises: it was truncated.
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        1.. => Ok(sent as usize),
        _ => Err(io::Error::last_os_error()),
    }
}
