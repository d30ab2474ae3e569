//! Sends that leave together: many small ones with one `io_uring_enter` instead of a
//! `sendmsg` each.
//!
//! Used by `net::transmit` while other requests of the core are about to run, so that their
//! answers can join. A future puts its queue into a seat of the round and takes it back when
//! it has been sent, or when it is dropped. `Driver::turn` gives the seats to the kernel and
//! doesn't come back before it has answered for each: the sends are non-blocking
//! (`MSG_DONTWAIT`), so the kernel does them within the enter.
//!
//! Invariants: while tasks run, no seat is with the kernel, so that a future may be dropped
//! at any time; a seat keeps the socket open and the bytes alive while it is taken.

use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::ptr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use io_uring::{opcode, squeue, types};

use super::Driver;
use crate::io::{Chunk, SendQueue};

/// A round leaves at the latest when so many wait: the first must not wait for all of a
/// large crowd.
pub(super) const ROUND_MAX: usize = 16;
/// Larger sends go alone: for them a system call is little.
const BYTES_MAX: usize = 16 << 10;
const SLICES_MAX: usize = 8;

pub(super) struct Round {
    /// The kernel reads its headers during an enter: they never move.
    seats: Box<[Seat]>,
    /// Seats whose queue is to be sent, in order; at most `ROUND_MAX`.
    waiting: Vec<usize>,
    free: Vec<usize>,
    with_kernel: usize,
    /// Turns of the driver since the first of `waiting` came.
    turns: usize,
}

struct Seat {
    queue: SendQueue,
    socket: Option<Rc<OwnedFd>>,
    waker: Option<Waker>,
    result: Option<i32>,
    header: libc::msghdr,
    slices: [libc::iovec; SLICES_MAX],
}

impl Round {
    pub(super) fn new() -> Round {
        let seat = || Seat {
            queue: SendQueue::new(),
            socket: None,
            waker: None,
            result: None,
            // SAFETY: all zeros is a header without anything.
            header: unsafe { std::mem::zeroed() },
            slices: [libc::iovec {
                iov_base: ptr::null_mut(),
                iov_len: 0,
            }; SLICES_MAX],
        };
        Round {
            seats: (0..ROUND_MAX * 2).map(|_| seat()).collect(),
            waiting: Vec::with_capacity(ROUND_MAX),
            free: (0..ROUND_MAX * 2).collect(),
            with_kernel: 0,
            turns: 0,
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn with_kernel(&self) -> usize {
        self.with_kernel
    }

    /// Whether what waits is to leave in this turn of the driver.
    pub(super) fn is_due(&mut self, others_come: bool) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        self.turns += 1;
        !others_come || self.waiting.len() >= ROUND_MAX || self.turns > ROUND_MAX
    }

    fn take_seat(&mut self, socket: &Rc<OwnedFd>, out: &mut SendQueue) -> Option<usize> {
        if self.waiting.len() >= ROUND_MAX {
            return None;
        }
        let index = self.free.pop()?;
        let seat = &mut self.seats[index];
        seat.queue = std::mem::take(out);
        seat.socket = Some(socket.clone());
        seat.result = None;
        if self.waiting.is_empty() {
            self.turns = 0;
        }
        self.waiting.push(index);
        Some(index)
    }

    /// What was sent stays in the queue; the result is `None` when it wasn't tried.
    fn leave_seat(&mut self, index: usize) -> (SendQueue, Option<i32>, Rc<OwnedFd>) {
        self.waiting.retain(|&waiting| waiting != index);
        self.free.push(index);
        let seat = &mut self.seats[index];
        seat.waker = None;
        let socket = seat.socket.take().expect("a taken seat has a socket");
        (std::mem::take(&mut seat.queue), seat.result.take(), socket)
    }

    /// The next submission of the round; its seat is with the kernel from now on.
    pub(super) fn next_entry(&mut self) -> Option<squeue::Entry> {
        if self.with_kernel >= self.waiting.len() {
            return None;
        }
        let index = self.waiting[self.with_kernel];
        self.with_kernel += 1;
        Some(self.seats[index].entry().user_data(user_data(index)))
    }

    /// The kernel has answered for a seat.
    pub(super) fn on_completion(&mut self, user_data: u64, result: i32) -> Option<Waker> {
        let index = (user_data & 0xffff_ffff) as usize;
        self.waiting.retain(|&waiting| waiting != index);
        self.with_kernel -= 1;
        let seat = &mut self.seats[index];
        seat.result = Some(result);
        seat.waker.take()
    }
}

impl Seat {
    fn entry(&mut self) -> squeue::Entry {
        let mut count = 0;
        let mut bytes = 0;
        for (chunk, slice) in self.queue.chunks().zip(&mut self.slices) {
            let Chunk::Bytes(chunk) = chunk else { break };
            let part = chunk.len().min(BYTES_MAX - bytes);
            if part == 0 {
                break;
            }
            slice.iov_base = chunk.as_ptr().cast_mut().cast();
            slice.iov_len = part;
            bytes += part;
            count += 1;
        }
        let mut flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        if self.queue.len_bytes() > bytes {
            flags |= libc::MSG_MORE;
        }
        let socket = self.socket.as_ref().expect("a taken seat has a socket");
        let socket = types::Fd(socket.as_raw_fd());
        if count == 1 {
            let slice = self.slices[0];
            let len = u32::try_from(slice.iov_len).expect("at most BYTES_MAX");
            return opcode::Send::new(socket, slice.iov_base.cast(), len)
                .flags(flags)
                .build();
        }
        self.header.msg_iov = self.slices.as_mut_ptr();
        self.header.msg_iovlen = count;
        opcode::SendMsg::new(socket, &raw const self.header)
            .flags(flags.cast_unsigned())
            .build()
    }
}

const USER_DATA: u64 = 0xffff_fffd << 32;

fn user_data(index: usize) -> u64 {
    USER_DATA | index as u64
}

/// Whether a completion is that of a seat.
pub(super) fn is_round(user_data: u64) -> bool {
    user_data & !0xffff_ffff == USER_DATA
}

/// Whether the front of a queue is small enough to leave with others.
pub(in crate::io) fn may_join(out: &SendQueue) -> bool {
    let mut bytes = 0;
    for (count, chunk) in out.chunks().enumerate() {
        match chunk {
            Chunk::Bytes(chunk) => bytes += chunk.len(),
            Chunk::File { .. } => return true,
        }
        if bytes > BYTES_MAX || count >= SLICES_MAX {
            return false;
        }
    }
    true
}

impl Driver {
    /// Sends the memory chunks at the front of `out` in the next round: how many bytes were
    /// sent, which the caller takes off. `None` when the round is full. The front must be a
    /// memory chunk.
    pub(in crate::io) fn join_round<'a>(
        self: &'a Rc<Self>,
        socket: &Rc<OwnedFd>,
        out: &'a mut SendQueue,
    ) -> Option<Joined<'a>> {
        debug_assert!(matches!(out.front(), Some(Chunk::Bytes(_))));
        let seat = self.state.borrow_mut().round.take_seat(socket, out)?;
        Some(Joined {
            driver: self,
            seat: Some(seat),
            out,
        })
    }

    /// Whether sends wait for a round.
    pub(in crate::io) fn has_round(&self) -> bool {
        self.state.borrow().round.is_waiting()
    }
}

/// A send that leaves with others.
pub(in crate::io) struct Joined<'a> {
    driver: &'a Driver,
    seat: Option<usize>,
    out: &'a mut SendQueue,
}

impl Joined<'_> {
    fn leave(&mut self) -> Option<i32> {
        let seat = self.seat.take()?;
        let (queue, result, _socket) = self.driver.state.borrow_mut().round.leave_seat(seat);
        *self.out = queue;
        result
    }
}

impl Future for Joined<'_> {
    type Output = io::Result<usize>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let index = self.seat.expect("polled until it is ready");
        {
            let mut state = self.driver.state.borrow_mut();
            let seat = &mut state.round.seats[index];
            if seat.result.is_none() {
                super::owner::set_waker(&mut seat.waker, cx);
                return Poll::Pending;
            }
        }
        let result = self.leave().expect("it was looked at");
        Poll::Ready(match result {
            0 => Err(io::ErrorKind::WriteZero.into()),
            1.. => Ok(result.unsigned_abs() as usize),
            _ => Err(io::Error::from_raw_os_error(-result)),
        })
    }
}

impl Drop for Joined<'_> {
    /// What was sent for a future that is gone is taken off all the same; an error comes
    /// back at the next send.
    fn drop(&mut self) {
        if let Some(sent @ 1..) = self.leave() {
            self.out.advance(sent.unsigned_abs() as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use super::super::Bell;
    use super::*;

    struct Peer {
        socket: Rc<OwnedFd>,
        theirs: UnixStream,
        out: SendQueue,
    }

    fn peers(count: usize) -> Vec<Peer> {
        let peer = |index| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            let mut out = SendQueue::new();
            // One chunk leaves by another operation than several.
            for chunk in 0..=index % 3 {
                out.push_bytes(vec![(index + chunk) as u8; 100]);
            }
            Peer {
                socket: Rc::new(ours.into()),
                theirs,
                out,
            }
        };
        (0..count).map(peer).collect()
    }

    fn driver() -> Rc<Driver> {
        Rc::new(Driver::new(Arc::new(Bell::new().unwrap()), 8, 512).unwrap())
    }

    fn poll(joined: &mut Joined<'_>) -> Poll<io::Result<usize>> {
        Pin::new(joined).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn all_seats_leave_with_one_enter() {
        let driver = driver();
        driver.turn(false);
        let mut peers = peers(10);
        let before = driver.stats().enters;
        let mut joined: Vec<Joined<'_>> = peers
            .iter_mut()
            .map(|peer| driver.join_round(&peer.socket, &mut peer.out).unwrap())
            .collect();
        driver.turn(true);
        assert!(joined.iter_mut().all(|joined| poll(joined).is_pending()));
        assert!(driver.is_pending(), "the core must not sleep");
        driver.turn(false);
        for (index, joined) in joined.iter_mut().enumerate() {
            let Poll::Ready(result) = poll(joined) else {
                panic!("it has left")
            };
            assert_eq!(result.unwrap(), 100 * (index % 3 + 1));
        }
        drop(joined);
        assert_eq!(driver.stats().enters, before + 1);
        for (index, peer) in peers.iter_mut().enumerate() {
            assert_eq!(peer.out.len_bytes(), 100 * (index % 3 + 1), "not taken off");
            let mut came = [0; 300];
            let count = peer.theirs.read(&mut came).unwrap();
            let expected: Vec<u8> = (0..=index % 3)
                .flat_map(|chunk| vec![(index + chunk) as u8; 100])
                .collect();
            assert_eq!(came[..count], expected);
        }
        driver.drain();
    }

    #[test]
    fn a_round_waits_for_others_but_not_for_long() {
        let driver = driver();
        let mut few = peers(1).pop().unwrap();
        let mut joined = driver
            .join_round(&few.socket, &mut few.out)
            .expect("a seat");
        for _ in 0..ROUND_MAX {
            driver.turn(true);
            assert!(poll(&mut joined).is_pending());
        }
        driver.turn(true);
        assert!(poll(&mut joined).is_ready());
        let mut many = peers(ROUND_MAX + 1);
        let mut joined: Vec<Joined<'_>> = many
            .iter_mut()
            .filter_map(|peer| driver.join_round(&peer.socket, &mut peer.out))
            .collect();
        assert_eq!(joined.len(), ROUND_MAX, "the last one goes alone");
        driver.turn(true);
        assert!(joined.iter_mut().all(|joined| poll(joined).is_ready()));
        drop(joined);
        driver.drain();
    }

    #[test]
    fn a_dropped_future_takes_its_bytes_back() {
        let driver = driver();
        let mut peers = peers(3);
        for peer in &mut peers {
            drop(driver.join_round(&peer.socket, &mut peer.out).unwrap());
            assert!(!peer.out.is_empty());
        }
        driver.turn(false);
        for peer in &mut peers {
            peer.theirs.set_nonblocking(true).unwrap();
            let nothing = peer.theirs.read(&mut [0; 8]).unwrap_err();
            assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
            let joined = driver.join_round(&peer.socket, &mut peer.out).unwrap();
            driver.turn(false);
            // Sent, but nobody asks any more: it isn't sent again.
            drop(joined);
            assert!(peer.out.is_empty());
            assert_eq!(Rc::strong_count(&peer.socket), 1);
        }
        driver.drain();
    }

    #[test]
    fn a_full_socket_and_a_lost_peer_answer_as_a_send_does() {
        let driver = driver();
        let mut peers = peers(3);
        let lost = peers.pop().unwrap();
        drop(lost.theirs);
        let mut lost_out = lost.out;
        let mut second = peers.pop().unwrap();
        let blob = [0; 4_096];
        while socket2::SockRef::from(&*second.socket).send(&blob).is_ok() {}
        let mut first = peers.pop().unwrap();
        let mut joined = [
            driver.join_round(&first.socket, &mut first.out).unwrap(),
            driver.join_round(&second.socket, &mut second.out).unwrap(),
            driver.join_round(&lost.socket, &mut lost_out).unwrap(),
        ];
        driver.turn(false);
        let results = joined.each_mut().map(|joined| match poll(joined) {
            Poll::Ready(result) => result.map_err(|error| error.kind()),
            Poll::Pending => panic!("the kernel has answered"),
        });
        assert_eq!(results[0], Ok(100));
        assert_eq!(results[1], Err(ErrorKind::WouldBlock));
        assert_eq!(results[2], Err(ErrorKind::BrokenPipe));
        drop(joined);
        assert!(!driver.has_round());
        driver.drain();
    }
}
