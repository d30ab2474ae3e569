//! How queued chunks leave: each by the cheapest way that doesn't block the core.
//!
//! | chunk at the front                   | `auto`     | `sendfile` | `splice` | `memory` |
//! |--------------------------------------|------------|------------|----------|----------|
//! | bytes (headers, tail cache)          | `sendmsg`  | `sendmsg`  | `sendmsg`| `sendmsg`|
//! | file range of at most 16 KiB         | read       | sendfile   | splice   | read     |
//! | file range, the next 256 KiB cached  | sendfile   | sendfile   | splice   | read     |
//! | file range, not (all) cached         | splice     | sendfile   | splice   | read     |
//! | range of a simulated file            | read whole, then as bytes                     |
//!
//! *sendmsg*: inline, or, while other requests of the core are about to run, together with
//! their answers in one enter of the ring (`driver::round`).
//! *sendfile*: inline, non-blocking towards the socket; a page that isn't cached blocks the
//! core. *splice*: two steps on the kernel's workers, through a pipe of the core's pool
//! (`splice`). *read*: what is cached inline, what isn't by the ring, then `sendmsg` (`read`);
//! a single worker round at most, which for small ranges is cheaper than the two of a splice.
//! The choice is made anew for each piece, so a range that has become cached goes on by
//! `sendfile`. Where the file system can't read without waiting, everything counts as not
//! cached. A file that can't be spliced, or no pipe to be had: *read*.
//!
//! Called by `Stream::send`. Invariants: bytes leave in the order of the queue; what has left
//! is off the queue before anything is awaited, or known to a splice that the next send
//! awaits first; `MSG_MORE` is set when more follows.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use smallvec::SmallVec;
use socket2::SockRef;

use super::{read, splice};
use crate::config::FetchPath;
use crate::io::driver::{Driver, may_join};
use crate::io::pipes::{Buffer, Pipe, Pool, PoolStats};
use crate::io::{Chunk, Rt, SendQueue};

/// How a core's bytes left, from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendStats {
    /// Bytes that were in memory.
    pub memory: PathStats,
    /// Those of them that left with others, without a system call of their own.
    pub in_rounds: u64,
    /// File ranges read into memory, with what was sent along behind them.
    pub read: PathStats,
    pub sendfile: PathStats,
    pub splice: PathStats,
    /// Reads that weren't cached and went through the ring.
    pub read_cold: u64,
    /// Splices that found the socket full and waited for POLLOUT.
    pub splice_full: u64,
    pub pipes: PoolStats,
    pub buffers: PoolStats,
}

/// Calls that sent something, and what they sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathStats {
    pub calls: u64,
    pub bytes: u64,
}

impl PathStats {
    pub(super) fn add(&mut self, bytes: usize) {
        self.calls += 1;
        self.bytes += bytes as u64;
    }
}

/// What the connections of a core share for sending.
pub(in crate::io) struct SendPaths {
    fetch_path: FetchPath,
    pub(super) pipes: Rc<Pool<Pipe>>,
    pub(super) buffers: Rc<Pool<Buffer>>,
    stats: Cell<SendStats>,
}

/// Pipes of a core: as many of its splices run at a time, each on a worker thread.
pub(in crate::io) const PIPES_MAX: usize = 16;
/// Buffers of a core, 4 MiB in all.
const BUFFERS_MAX: usize = 16;

impl SendPaths {
    pub(in crate::io) fn new(fetch_path: FetchPath) -> SendPaths {
        SendPaths {
            fetch_path,
            pipes: Pool::new(PIPES_MAX, Pipe::new),
            buffers: Pool::new(BUFFERS_MAX, Buffer::new),
            stats: Cell::new(SendStats::default()),
        }
    }

    pub(in crate::io) fn stats(&self) -> SendStats {
        SendStats {
            pipes: self.pipes.stats(),
            buffers: self.buffers.stats(),
            ..self.stats.get()
        }
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut SendStats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
    }
}

/// What a send works with.
pub(super) struct Wire<'a> {
    pub(super) rt: &'a Rt,
    pub(super) driver: &'a Rc<Driver>,
    pub(super) paths: &'a SendPaths,
    pub(super) socket: &'a Rc<OwnedFd>,
    /// A splice that an earlier, dropped send has left.
    pub(super) splice: &'a splice::Slot,
}

impl Wire<'_> {
    /// Whether other answers of the core are likely to be sent in a moment.
    fn others_come(&self) -> bool {
        self.driver.has_round() || self.rt.executor().runnable_requests() > 0
    }

    /// Waits for a full socket, holding an item of a pool. False when another needs the
    /// item: it must be given up, and the socket may still be full.
    pub(super) async fn writable_or_claimed<T>(&self, pool: &Pool<T>) -> bool {
        if !pool.has_claims() {
            let mut writable = pin!(self.driver.writable(self.socket));
            let mut claimed = pin!(pool.is_claimed());
            let writable = poll_fn(|cx| {
                if writable.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(true);
                }
                claimed.as_mut().poll(cx).map(|()| false)
            })
            .await;
            if writable {
                return true;
            }
        }
        pool.count_given_up();
        false
    }
}

/// What one step did.
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
/// A sender that the socket never makes wait lets others in after so many bytes.
const BYTES_PER_TURN: usize = 512 << 10;
/// File ranges up to this size are read.
const READ_BYTES_MAX: usize = 16 << 10;

/// Sends all of `out`.
pub(super) async fn send(wire: &Wire<'_>, out: &mut SendQueue) -> io::Result<()> {
    if !splice::goes_on_with(wire.splice, out) {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    let mut since_yield = 0;
    while !out.is_empty() {
        match step(wire, out).await {
            Ok(Sent::Bytes(count)) => {
                since_yield += count;
                if since_yield >= BYTES_PER_TURN && !out.is_empty() {
                    since_yield = 0;
                    wire.rt.yield_now().await;
                }
            }
            Ok(Sent::Full) => {
                since_yield = 0;
                wire.driver.writable(wire.socket).await;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                since_yield = 0;
                wire.driver.writable(wire.socket).await;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends from the front of a queue that isn't empty: its leading run of memory chunks, or (a
/// part of) its first file chunk.
async fn step(wire: &Wire<'_>, out: &mut SendQueue) -> io::Result<Sent> {
    let way = match wire.splice.borrow().is_some() {
        true => Way::Splice,
        false => choose(wire.paths.fetch_path, out),
    };
    match way {
        Way::Memory => {
            let joined = match wire.others_come() && may_join(out) {
                true => join_round(wire, out).await,
                false => None,
            };
            let in_round = joined.is_some();
            let count = match joined {
                Some(result) => result?,
                None => send_slices(wire.socket, None, out)?,
            };
            wire.paths.count(|stats| {
                stats.memory.add(count);
                stats.in_rounds += u64::from(in_round);
            });
            out.advance(count);
            Ok(Sent::Bytes(count))
        }
        Way::Load => {
            let bytes = out.front().expect("a file range").to_bytes()?;
            out.replace_front(bytes);
            Ok(Sent::Bytes(0))
        }
        Way::Sendfile(fd) => {
            let count = send_file(wire.socket, fd, out.front().expect("a file range"))?;
            wire.paths.count(|stats| stats.sendfile.add(count));
            out.advance(count);
            Ok(Sent::Bytes(count))
        }
        Way::Read => read::send_piece(wire, out).await,
        Way::Splice => match splice::send_piece(wire, out).await? {
            Some(sent) => Ok(sent),
            None => read::send_piece(wire, out).await,
        },
    }
}

/// Sends with others, if there is a seat.
async fn join_round(wire: &Wire<'_>, out: &mut SendQueue) -> Option<io::Result<usize>> {
    Some(wire.driver.join_round(wire.socket, out)?.await)
}

/// How the front of the queue is to leave.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    Memory,
    /// The range of a simulated file.
    Load,
    Sendfile(RawFd),
    Read,
    Splice,
}

fn choose(fetch_path: FetchPath, out: &SendQueue) -> Way {
    let Some(Chunk::File {
        file,
        position,
        len,
    }) = out.front()
    else {
        return Way::Memory;
    };
    let Some(fd) = file.raw_fd() else {
        return Way::Load;
    };
    let len = *len as usize;
    match fetch_path {
        FetchPath::Memory => Way::Read,
        FetchPath::Sendfile => Way::Sendfile(fd),
        FetchPath::Splice => Way::Splice,
        FetchPath::Auto if len <= READ_BYTES_MAX => Way::Read,
        FetchPath::Auto if read::is_cached(fd, *position, len.min(BYTES_PER_CALL)) => {
            Way::Sendfile(fd)
        }
        FetchPath::Auto => Way::Splice,
    }
}

/// One vectored send: of `piece`, which stands for the start of the first chunk, if there is
/// one; then, unless that leaves some of the first chunk, of the memory chunks that follow.
/// When more follows still, the kernel is told, so that it doesn't send a small packet for a
/// header.
pub(super) fn send_slices(
    socket: &OwnedFd,
    piece: Option<IoSlice<'_>>,
    out: &SendQueue,
) -> io::Result<usize> {
    let mut slices: SmallVec<[IoSlice<'_>; 32]> = SmallVec::new();
    let mut bytes = 0;
    let mut chunks = out.chunks();
    let mut whole = true;
    if let Some(piece) = piece {
        bytes = piece.len();
        whole = chunks.next().is_some_and(|first| first.len() == bytes);
        slices.push(piece);
    }
    for chunk in chunks {
        let room = BYTES_PER_CALL.saturating_sub(bytes);
        match chunk {
            Chunk::Bytes(chunk) if whole && room > 0 && slices.len() < SLICES_MAX => {
                let part = &chunk[..chunk.len().min(room)];
                bytes += part.len();
                slices.push(IoSlice::new(part));
            }
            Chunk::Bytes(_) | Chunk::File { .. } => break,
        }
    }
    let mut flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    if out.len_bytes() > bytes {
        flags |= libc::MSG_MORE;
    }
    match SockRef::from(socket).send_vectored_with_flags(&slices, flags)? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        count => Ok(count),
    }
}

/// One `sendfile`; the socket is non-blocking, so it takes what fits.
fn send_file(socket: &OwnedFd, file: RawFd, chunk: &Chunk) -> io::Result<usize> {
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
