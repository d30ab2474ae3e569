//! File ranges to the socket through a pipe, without being copied and without ever
//! blocking the core: both steps run on the kernel's worker threads.
//!
//! ```text
//! lease a pipe → file → pipe → socket ─ all out → next piece
//!                                 └ full → wait for POLLOUT, holding the pipe
//!                                           └ somebody needs it → close it, send anew
//! ```
//! Called by `transmit::send`. A send may be dropped at any time and called again with what
//! is left. A step in flight then stays with the connection (`InFlight`), for it may have
//! sent bytes that aren't off the queue yet, and the next send begins by awaiting it; a pipe
//! without a step is closed. Pipe, file and socket are kept by the operation until it lands.
//!
//! Invariant: a pipe is clean again only when all that went in has come out.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use io_uring::{opcode, types};

use super::transmit::{Sent, Wire};
use crate::io::driver::{Keep, OpOwner};
use crate::io::pipes::{Lease, Pipe};
use crate::io::{Chunk, File, SendQueue};

/// A step of a connection's splice, where the next send finds it. Boxed, as most connections
/// have none.
pub(super) type Slot = RefCell<Option<Box<InFlight>>>;

pub(super) struct InFlight {
    step: Step,
    op: OpOwner,
    pipe: Rc<Lease<Pipe>>,
    /// Bytes in the pipe before the step.
    held: usize,
    /// Where the first of them lies, which is where the queue must go on.
    file: Arc<dyn File>,
    position: u64,
}

#[derive(Clone, Copy)]
enum Step {
    /// File to pipe.
    Fill,
    /// Pipe to socket.
    Drain,
}

/// Sends a pipe's fill of the first chunk, a range of a file. `None` when this file can't be
/// spliced, or no pipe be made.
pub(super) async fn send_piece(wire: &Wire<'_>, out: &mut SendQueue) -> io::Result<Option<Sent>> {
    if wire.splice.borrow().is_none() {
        let Ok(pipe) = wire.paths.pipes.lease().await else {
            return Ok(None);
        };
        let in_flight = fill(wire, pipe, out)?;
        wire.splice.replace(Some(Box::new(in_flight)));
    }
    let mut sent = 0;
    loop {
        let (mut landed, result) = poll_fn(|cx| {
            let mut slot = wire.splice.borrow_mut();
            let in_flight = slot.as_mut().expect("only this send takes it");
            let Poll::Ready(result) = in_flight.op.poll_result(cx) else {
                return Poll::Pending;
            };
            Poll::Ready((slot.take().expect("it was just there"), result))
        })
        .await;
        let (step, mut held, pipe) = (landed.step, landed.held, landed.pipe.clone());
        match (step, result) {
            // The file is shorter than the chunk promises: it was truncated.
            (Step::Fill, 0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            (Step::Fill, count @ 1..) => held = count as usize,
            (Step::Fill, error) => {
                let unsuited = [libc::EINVAL, libc::EOPNOTSUPP, libc::EAGAIN, libc::EINTR];
                if unsuited.contains(&-error) {
                    pipe.set_dirty(false);
                    return Ok(None);
                }
                return Err(io::Error::from_raw_os_error(-error));
            }
            (Step::Drain, 0) => return Err(io::ErrorKind::WriteZero.into()),
            (Step::Drain, count @ 1..) => {
                let count = count as usize;
                wire.paths.count(|stats| stats.splice.add(count));
                out.advance(count);
                sent += count;
                held -= count;
            }
            (Step::Drain, error) => match -error {
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
        if held == 0 {
            pipe.set_dirty(false);
            return Ok(Some(Sent::Bytes(sent)));
        }
        *landed = drain(wire, pipe, held, out);
        wire.splice.replace(Some(landed));
    }
}

/// Whether a step in flight belongs to what is at the front of the queue.
pub(super) fn goes_on_with(slot: &Slot, out: &SendQueue) -> bool {
    match (&*slot.borrow(), out.front()) {
        (None, _) => true,
        (Some(in_flight), Some(Chunk::File { file, position, .. })) => {
            Arc::ptr_eq(&in_flight.file, file) && in_flight.position == *position
        }
        (Some(_), _) => false,
    }
}

fn front(out: &SendQueue) -> (&Arc<dyn File>, u64, usize) {
    match out.front() {
        Some(Chunk::File {
            file,
            position,
            len,
        }) => (file, *position, *len as usize),
        _ => unreachable!("the front is a file range"),
    }
}

fn fill(wire: &Wire<'_>, pipe: Rc<Lease<Pipe>>, out: &SendQueue) -> io::Result<InFlight> {
    let (file, position, len) = front(out);
    let fd = file.raw_fd().ok_or(io::ErrorKind::Unsupported)?;
    let from = i64::try_from(position).map_err(io::Error::other)?;
    let count = len.min(pipe.capacity());
    let to = types::Fd(pipe.write_fd());
    let entry = opcode::Splice::new(types::Fd(fd), from, to, -1, count as u32).build();
    let keep = Keep::Fill {
        _file: file.clone(),
        _pipe: pipe.clone(),
    };
    pipe.set_dirty(true);
    // SAFETY: the entry names the file and the pipe, which are kept.
    let op = unsafe { wire.driver.start(entry, keep, true) };
    Ok(InFlight {
        step: Step::Fill,
        op,
        pipe,
        held: 0,
        file: file.clone(),
        position,
    })
}

fn drain(wire: &Wire<'_>, pipe: Rc<Lease<Pipe>>, held: usize, out: &SendQueue) -> InFlight {
    let (file, position, _) = front(out);
    let mut flags = libc::SPLICE_F_NONBLOCK;
    if out.len_bytes() > held {
        flags |= libc::SPLICE_F_MORE;
    }
    let (from, to) = (
        types::Fd(pipe.read_fd()),
        types::Fd(wire.socket.as_raw_fd()),
    );
    let entry = opcode::Splice::new(from, -1, to, -1, held as u32)
        .flags(flags)
        .build();
    let keep = Keep::Drain {
        _pipe: pipe.clone(),
        _socket: wire.socket.clone(),
    };
    // SAFETY: the entry names the pipe and the socket, which are kept.
    let op = unsafe { wire.driver.start(entry, keep, true) };
    InFlight {
        step: Step::Drain,
        op,
        pipe,
        held,
        file: file.clone(),
        position,
    }
}
