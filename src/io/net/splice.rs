//! File ranges to the socket through a pipe, without being copied and without ever
//! blocking the core: both steps run on the kernel's worker threads.
//!
//! ```text
//! lease a pipe → file → pipe → socket ─ all out → next piece
//!                                 └ full → wait for POLLOUT, holding the pipe
//!                                           └ somebody needs it → close it, send anew
//! ```
//! Called by `transmit::send`. A dropped future leaves its step to land by itself: the
//! operation keeps the pipe, the file and the socket; how much then went out is not known,
//! so the connection sends nothing any more (`Wire::broken`).
//!
//! Invariant: a pipe is clean again only when all that went in has come out.

use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;

use io_uring::{opcode, types};

use super::transmit::{Sent, Wire};
use crate::io::driver::Keep;
use crate::io::pipes::{Lease, Pipe};
use crate::io::{Chunk, File, SendQueue};

/// Sends a pipe's fill of the first chunk, a range of a file. `None` when this file can't be
/// spliced, or no pipe be made.
pub(super) async fn send_piece(wire: &Wire<'_>, out: &mut SendQueue) -> io::Result<Option<Sent>> {
    let Ok(pipe) = wire.paths.pipes.lease().await else {
        return Ok(None);
    };
    let Some(Chunk::File {
        file,
        position,
        len,
    }) = out.front()
    else {
        unreachable!("the front is a file range")
    };
    pipe.set_dirty(true);
    let count = (*len as usize).min(pipe.capacity());
    let mut held = match fill(wire, &pipe, file, *position, count).await {
        // The file is shorter than the chunk promises: it was truncated.
        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
        count @ 1.. => count as usize,
        error => match -error {
            libc::EINVAL | libc::EOPNOTSUPP | libc::EAGAIN | libc::EINTR => {
                pipe.set_dirty(false);
                return Ok(None);
            }
            errno => return Err(io::Error::from_raw_os_error(errno)),
        },
    };
    let mut sent = 0;
    while held > 0 {
        let more = out.len_bytes() > held;
        match drain(wire, &pipe, held, more).await {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count @ 1.. => {
                let count = count as usize;
                wire.paths.count(|stats| stats.splice.add(count));
                out.advance(count);
                sent += count;
                held -= count;
            }
            error => match -error {
                libc::EINTR => {}
                libc::EAGAIN => {
                    wire.paths.count(|stats| stats.splice_full += 1);
                    if !wire.writable_or_claimed(&wire.paths.pipes).await {
                        return Ok(Some(Sent::Full));
                    }
                }
                errno => return Err(io::Error::from_raw_os_error(errno)),
            },
        }
    }
    pipe.set_dirty(false);
    Ok(Some(Sent::Bytes(sent)))
}

/// File to pipe; the kernel's answer.
async fn fill(
    wire: &Wire<'_>,
    pipe: &Rc<Lease<Pipe>>,
    file: &Arc<dyn File>,
    position: u64,
    count: usize,
) -> i32 {
    let (Some(fd), Ok(position)) = (file.raw_fd(), i64::try_from(position)) else {
        return -libc::EINVAL;
    };
    let to = types::Fd(pipe.write_fd());
    let entry = opcode::Splice::new(types::Fd(fd), position, to, -1, count as u32).build();
    let keep = Keep::Fill {
        _file: file.clone(),
        _pipe: pipe.clone(),
    };
    // SAFETY: the entry names the file and the pipe, which are kept.
    unsafe { wire.driver.once(entry, keep, true) }.await
}

/// Pipe to socket; the kernel's answer.
async fn drain(wire: &Wire<'_>, pipe: &Rc<Lease<Pipe>>, count: usize, more: bool) -> i32 {
    let mut flags = libc::SPLICE_F_NONBLOCK;
    if more {
        flags |= libc::SPLICE_F_MORE;
    }
    let (from, to) = (
        types::Fd(pipe.read_fd()),
        types::Fd(wire.socket.as_raw_fd()),
    );
    let entry = opcode::Splice::new(from, -1, to, -1, count as u32)
        .flags(flags)
        .build();
    let keep = Keep::Drain {
        _pipe: pipe.clone(),
        _socket: wire.socket.clone(),
    };
    wire.broken.set(true);
    // SAFETY: the entry names the pipe and the socket, which are kept.
    let result = unsafe { wire.driver.once(entry, keep, true) }.await;
    wire.broken.set(false);
    result
}
