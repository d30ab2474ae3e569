//! The futures' side of the driver: operations as futures, and slots that are polled for
//! connections and bytes. All of them may be dropped at any time; the driver then cancels
//! the operation and keeps what the kernel still refers to.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use io_uring::{IoUring, opcode, squeue, types};
use socket2::SockRef;

use super::buffers::GROUP;
use super::ops::{Accepted, Keep, OpId, OpState, Received};
use super::{Driver, State};

/// The right to a slot; dropping it cancels the operation.
pub(in crate::io) struct OpOwner {
    driver: Rc<Driver>,
    id: OpId,
    cancel: bool,
}

impl OpOwner {
    /// The next accepted connection, non-blocking and close-on-exec.
    pub(in crate::io) fn poll_accept(&self, cx: &Context<'_>) -> Poll<io::Result<OwnedFd>> {
        self.driver.poll_accept(self.id, cx)
    }

    /// Appends what has arrived; 0 at the end. A caller that knows that `missing` more bytes
    /// are to come, and has room for them, gets them without a copy when they are many.
    pub(in crate::io) fn poll_receive(
        &self,
        into: &mut BytesMut,
        missing: usize,
        cx: &Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.driver.poll_receive(self.id, into, missing, cx)
    }

    /// The result of a single-shot operation: the kernel's, an errno negative.
    pub(in crate::io) fn poll_result(&self, cx: &Context<'_>) -> Poll<i32> {
        self.driver.poll_once(self.id, cx)
    }

    /// Stops the operation; what had arrived can still be polled for, which starts it anew.
    pub(in crate::io) async fn stop(&self) {
        poll_fn(|cx| self.driver.poll_stopped(self.id, cx)).await;
    }

    /// Takes what has arrived without starting the operation anew.
    pub(in crate::io) fn take_received(&self, into: &mut BytesMut) {
        let pending = {
            let mut state = self.driver.state.borrow_mut();
            let op = state.ops.get_mut(self.id);
            assert!(!op.in_flight, "the operation was stopped");
            matches!(&op.state, OpState::Receive(received) if received.bytes > 0)
        };
        if pending {
            let cx = Context::from_waker(Waker::noop());
            let _ = self.poll_receive(into, 0, &cx);
        }
    }
}

impl Drop for OpOwner {
    fn drop(&mut self) {
        self.driver.release(self.id, self.cancel);
    }
}

impl Driver {
    /// Runs a single-shot operation; the result is the kernel's, an errno negative. When
    /// the future is dropped, the operation is cancelled if `cancel`, else left to end.
    ///
    /// # Safety
    /// Whatever `entry` points at or names must be owned by `keep`.
    pub(in crate::io) unsafe fn once(
        self: &Rc<Self>,
        entry: squeue::Entry,
        keep: Keep,
        cancel: bool,
    ) -> impl Future<Output = i32> + use<> {
        // SAFETY: by the caller's promise.
        let owner = unsafe { self.start(entry, keep, cancel) };
        async move {
            poll_fn(|cx| owner.poll_result(cx)).await
            // `owner` is dropped here, or wherever the future is dropped.
        }
    }

    /// As [`once`](Self::once), for an owner that polls for the result itself.
    ///
    /// # Safety
    /// As for `once`.
    pub(in crate::io) unsafe fn start(
        self: &Rc<Self>,
        entry: squeue::Entry,
        keep: Keep,
        cancel: bool,
    ) -> OpOwner {
        let id = {
            let mut state = self.state.borrow_mut();
            let id = state.ops.add(OpState::Once(None), keep);
            state.ops.set_in_flight(id);
            id
        };
        self.push(entry.user_data(id.user_data()));
        OpOwner {
            driver: self.clone(),
            id,
            cancel,
        }
    }

    /// Waits until a socket takes more bytes (or has failed, which a send then tells).
    pub(in crate::io) async fn writable(self: &Rc<Self>, socket: &Rc<OwnedFd>) {
        let fd = types::Fd(socket.as_raw_fd());
        let entry = opcode::PollAdd::new(fd, libc::POLLOUT as u32).build();
        // SAFETY: the entry names the socket, which `Keep` owns.
        unsafe { self.once(entry, Keep::Socket(socket.clone()), true) }.await;
    }

    /// A slot for accepting; it starts at the first poll.
    pub(in crate::io) fn acceptor(self: &Rc<Self>, listener: Rc<OwnedFd>) -> OpOwner {
        self.owner(OpState::Accept(Accepted::default()), Keep::Socket(listener))
    }

    /// A slot for receiving; it starts at the first poll.
    pub(in crate::io) fn receiver(self: &Rc<Self>, socket: Rc<OwnedFd>) -> OpOwner {
        self.owner(OpState::Receive(Received::default()), Keep::Socket(socket))
    }

    fn owner(self: &Rc<Self>, state: OpState, keep: Keep) -> OpOwner {
        OpOwner {
            id: self.state.borrow_mut().ops.add(state, keep),
            driver: self.clone(),
            cancel: true,
        }
    }

    fn poll_once(&self, id: OpId, cx: &Context<'_>) -> Poll<i32> {
        let mut state = self.state.borrow_mut();
        let op = state.ops.get_mut(id);
        let OpState::Once(result) = &mut op.state else {
            unreachable!("a single-shot slot")
        };
        match result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                set_waker(&mut op.waker, cx);
                Poll::Pending
            }
        }
    }

    fn poll_accept(&self, id: OpId, cx: &Context<'_>) -> Poll<io::Result<OwnedFd>> {
        let mut state = self.state.borrow_mut();
        let op = state.ops.get_mut(id);
        let OpState::Accept(accepted) = &mut op.state else {
            unreachable!("a slot for accepting")
        };
        if let Some(socket) = accepted.sockets.pop_front() {
            return Poll::Ready(Ok(socket));
        }
        if let Some(errno) = accepted.error.take() {
            return Poll::Ready(Err(io::Error::from_raw_os_error(errno)));
        }
        set_waker(&mut op.waker, cx);
        if !op.in_flight {
            let Keep::Socket(listener) = &op.keep else {
                unreachable!("an acceptor keeps its listener")
            };
            let entry = opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd()))
                .flags(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC)
                .build();
            state.ops.set_in_flight(id);
            drop(state);
            self.push(entry.user_data(id.user_data()));
        }
        Poll::Pending
    }

    fn poll_receive(
        &self,
        id: OpId,
        into: &mut BytesMut,
        missing: usize,
        cx: &Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state.borrow_mut();
        let state_ref = &mut *state;
        let op = state_ref.ops.get_mut(id);
        let OpState::Receive(received) = &mut op.state else {
            unreachable!("a slot for receiving")
        };
        if received.bytes > 0 {
            let count = received.take(&mut state_ref.buffers, into);
            return Poll::Ready(Ok(count));
        }
        match received.end {
            Some(0) => return Poll::Ready(Ok(0)),
            Some(errno) => return Poll::Ready(Err(io::Error::from_raw_os_error(errno))),
            None => {}
        }
        let Keep::Socket(socket) = &op.keep else {
            unreachable!("a receiver keeps its socket")
        };
        // In the middle of a large frame the caller is spared a copy. Bytes that the kernel
        // took for the operation come first; completions are posted in our own enter only,
        // so there are none when the queue is empty.
        let direct = missing.min(into.capacity() - into.len()) >= DIRECT_BYTES_MIN;
        if direct && has_no_completions(&mut state_ref.ring) {
            match receive_directly(socket, into) {
                Ok(0) => {
                    received.end = Some(0);
                    return Poll::Ready(Ok(0));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
        set_waker(&mut op.waker, cx);
        if op.in_flight {
            // A multishot receive would take the bytes that are to go straight in.
            let cancel =
                direct && !received.polling && !std::mem::replace(&mut op.cancelling, true);
            drop(state);
            if cancel {
                self.push_cancel(id);
            }
            return Poll::Pending;
        }
        let fd = types::Fd(socket.as_raw_fd());
        received.polling = direct;
        let entry = if direct {
            opcode::PollAdd::new(fd, libc::POLLIN as u32).build()
        } else {
            opcode::RecvMulti::new(fd, GROUP).build()
        };
        state.ops.set_in_flight(id);
        drop(state);
        self.push(entry.user_data(id.user_data()));
        Poll::Pending
    }

    /// Stops a receive and waits until the kernel has posted its last bytes, which stay in
    /// the slot.
    fn poll_stopped(&self, id: OpId, cx: &Context<'_>) -> Poll<()> {
        let cancel = {
            let mut state = self.state.borrow_mut();
            let op = state.ops.get_mut(id);
            if !op.in_flight {
                return Poll::Ready(());
            }
            set_waker(&mut op.waker, cx);
            !std::mem::replace(&mut op.cancelling, true)
        };
        if cancel {
            self.push_cancel(id);
        }
        Poll::Pending
    }

    /// The owner of a slot is gone.
    fn release(&self, id: OpId, cancel: bool) {
        let (cancel, waker, freed) = {
            let mut state = self.state.borrow_mut();
            let State { ops, buffers, .. } = &mut *state;
            let op = ops.get_mut(id);
            op.owned = false;
            let waker = op.waker.take();
            op.discard(buffers);
            let cancel = cancel && op.in_flight && !std::mem::replace(&mut op.cancelling, true);
            (cancel, waker, ops.free_if_unused(id))
        };
        if cancel {
            self.push_cancel(id);
        }
        drop((waker, freed));
    }
}

/// So many bytes that are missing, with room for them, are received straight into the
/// caller's buffer.
const DIRECT_BYTES_MIN: usize = 32 << 10;
/// One call copies at most this much, for it holds the core meanwhile.
const DIRECT_BYTES_MAX: usize = 256 << 10;

fn has_no_completions(ring: &mut IoUring) -> bool {
    {
        let mut submissions = ring.submission();
        submissions.sync();
        if submissions.cq_overflow() {
            return false;
        }
    }
    let mut completions = ring.completion();
    completions.sync();
    completions.is_empty()
}

/// A non-blocking receive into the spare room of a buffer.
fn receive_directly(socket: &OwnedFd, into: &mut BytesMut) -> io::Result<usize> {
    loop {
        let spare = into.spare_capacity_mut();
        let len = spare.len().min(DIRECT_BYTES_MAX);
        match SockRef::from(socket).recv_with_flags(&mut spare[..len], libc::MSG_DONTWAIT) {
            Ok(count) => {
                let len = into.len() + count;
                // SAFETY: the kernel has written `count` bytes at the front of the spare
                // room, so the buffer is initialised up to `len`, within its capacity.
                unsafe { into.set_len(len) };
                return Ok(count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

pub(super) fn set_waker(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}
