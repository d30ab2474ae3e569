//! The I/O driver of one core: its own io_uring, the operations in flight, and the
//! doorbell by which other cores wake it.
//!
//! Called by the core's loop (`turn`, `spin`, `park`) and by the futures of `net` and
//! `Rt`. Owned by one core and created on its thread (`SINGLE_ISSUER`).
//!
//! ```text
//! turn    submissions, task work or overflow? → one enter; completions → wake tasks
//! spin    look at the shared memory only, without a system call
//! park    say that we sleep; fence; look once more; enter and wait for a completion
//! ```
//! A sender that has pushed something for this core fences, then looks whether we sleep,
//! and only then rings: one of the two sides always sees the other.
//!
//! Pitfalls that the code keeps clear of: `IORING_SQ_TASKRUN` may stay set with nothing
//! behind it, so one enter decides, never a loop; a parked core is woken through its own
//! ring only; completions reach us only inside our own enter (`DEFER_TASKRUN`).
//!
//! Invariants: an operation's slot, and what the kernel refers to, lasts until its last
//! completion; no borrow is held while a waker runs.

mod buffers;
mod ops;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue, types};

use buffers::{BufferId, Buffers};
pub(in crate::io) use ops::Keep;
use ops::{Accepted, Op, OpId, OpState, Ops, Piece, Received};

/// Sizes of a ring.
const SUBMISSIONS: u32 = 256;
const COMPLETIONS: u32 = 4_096;

/// A receive is paused once so much of it waits from an earlier turn.
const RECEIVED_BYTES_MAX: usize = 64 << 10;
/// An accept is paused once so many connections wait to be taken.
const ACCEPTED_MAX: usize = 64;

/// `user_data` of completions that aren't those of a slot.
const USER_DATA_IGNORED: u64 = u64::MAX;
const USER_DATA_BELL: u64 = u64::MAX - 1;
const USER_DATA_STOP: u64 = u64::MAX - 2;

/// What other threads may know of a core: whether it sleeps, how to wake it, and whether
/// it was asked to stop.
#[derive(Debug)]
pub struct Bell {
    sleeping: AtomicBool,
    /// Descriptor of the core's ring; -1 before it stands and after it is gone.
    ring: AtomicI32,
    /// A second descriptor of that ring, so that its number isn't reused while somebody
    /// might still ring it.
    ring_kept: OnceLock<OwnedFd>,
    stop: AtomicBool,
    /// Wakes the core for a stop from a thread without a ring; a simulated core needs none.
    stop_event: Option<OwnedFd>,
}

impl Bell {
    pub(in crate::io) fn new() -> io::Result<Bell> {
        // SAFETY: plain system call; the descriptor it returns is owned by nobody else.
        let stop_event = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Bell {
            sleeping: AtomicBool::new(false),
            ring: AtomicI32::new(-1),
            ring_kept: OnceLock::new(),
            stop: AtomicBool::new(false),
            stop_event: Some(stop_event),
        })
    }

    /// For a core that never sleeps in a ring.
    pub(in crate::io) fn without_ring() -> Bell {
        Bell {
            sleeping: AtomicBool::new(false),
            ring: AtomicI32::new(-1),
            ring_kept: OnceLock::new(),
            stop: AtomicBool::new(false),
            stop_event: None,
        }
    }

    /// Asks the core to stop; allowed in a signal handler.
    pub(in crate::io) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        let Some(event) = &self.stop_event else {
            return;
        };
        let one = 1u64.to_ne_bytes();
        // SAFETY: writes eight bytes from a live array to a descriptor that `self` owns.
        // It can fail only because the counter is full, and then the core is awake.
        unsafe { libc::write(event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    pub(in crate::io) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// Counters of a driver, from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverStats {
    /// Turns of the loop.
    pub turns: u64,
    /// Times that the core slept in its ring.
    pub parks: u64,
    /// `io_uring_enter` calls.
    pub enters: u64,
    pub completions: u64,
    /// Times that another, sleeping core was woken.
    pub bells_rung: u64,
    /// Receives that found no free buffer.
    pub receives_without_buffer: u64,
    /// Receives stopped because nobody took what had come.
    pub receives_paused: u64,
    /// Times that submissions had to wait for a full queue.
    pub submissions_deferred: u64,
    /// Largest number of completions that one turn found.
    pub completions_max: u64,
}

pub(crate) struct Driver {
    state: RefCell<State>,
    bell: Arc<Bell>,
    /// Completions of a turn, taken out of the ring; kept for its memory.
    batch: RefCell<Vec<(u64, i32, u32)>>,
    turn: Cell<u64>,
    stats: RefCell<DriverStats>,
}

struct State {
    ring: IoUring,
    ops: Ops,
    buffers: Buffers,
    /// Submissions that the kernel wouldn't take yet, in order. Bounded by the operations
    /// (each has at most one submission and one cancel here).
    deferred: VecDeque<squeue::Entry>,
    stop_armed: bool,
}

impl Driver {
    /// Creates the ring; must be called on the core's own thread.
    pub(in crate::io) fn new(
        bell: Arc<Bell>,
        recv_buffers: u16,
        recv_buffer_bytes: u32,
    ) -> io::Result<Driver> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(COMPLETIONS)
            .dontfork()
            .build(SUBMISSIONS)?;
        if !ring.params().is_feature_nodrop() || !ring.params().is_feature_ext_arg() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let buffers = Buffers::register(&ring, recv_buffers, recv_buffer_bytes)?;
        // SAFETY: the ring's descriptor is open; the duplicate is owned by nobody else.
        let second = unsafe {
            let fd = libc::fcntl(ring.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        bell.ring.store(second.as_raw_fd(), Ordering::SeqCst);
        bell.ring_kept
            .set(second)
            .expect("a bell belongs to one driver");
        let driver = Driver {
            state: RefCell::new(State {
                ring,
                ops: Ops::new(),
                buffers,
                deferred: VecDeque::new(),
                stop_armed: false,
            }),
            bell,
            batch: RefCell::new(Vec::with_capacity(COMPLETIONS as usize)),
            turn: Cell::new(0),
            stats: RefCell::new(DriverStats::default()),
        };
        if let Some(event) = &driver.bell.stop_event {
            let event = types::Fd(event.as_raw_fd());
            let wait = opcode::PollAdd::new(event, libc::POLLIN as u32).build();
            driver.push(wait.user_data(USER_DATA_STOP));
            driver.state.borrow_mut().stop_armed = true;
        }
        Ok(driver)
    }

    pub(in crate::io) fn stats(&self) -> DriverStats {
        DriverStats {
            turns: self.turn.get(),
            ..*self.stats.borrow()
        }
    }

    // The loop's side.

    /// Submits what waits, runs the kernel's task work if it has any, and hands out the
    /// completions. Returns how many there were; never blocks.
    pub(in crate::io) fn turn(&self) -> usize {
        self.turn.set(self.turn.get() + 1);
        self.flush_deferred();
        let needs_enter = {
            let mut state = self.state.borrow_mut();
            let mut submissions = state.ring.submission();
            submissions.sync();
            !submissions.is_empty() || submissions.taskrun() || submissions.cq_overflow()
        };
        if needs_enter {
            self.enter(0, None);
        }
        self.dispatch()
    }

    /// Whether a turn would find something; looks at shared memory only.
    pub(in crate::io) fn is_pending(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if !state.deferred.is_empty() {
            return true;
        }
        {
            let mut submissions = state.ring.submission();
            submissions.sync();
            if !submissions.is_empty() || submissions.taskrun() || submissions.cq_overflow() {
                return true;
            }
        }
        let mut completions = state.ring.completion();
        completions.sync();
        !completions.is_empty()
    }

    /// Sleeps until a completion, a bell or the end of `timeout`, unless `has_work` finds
    /// something after other cores could see that we sleep. Returns the completions.
    pub(in crate::io) fn park(
        &self,
        timeout: Option<Duration>,
        has_work: impl FnOnce() -> bool,
    ) -> usize {
        self.bell.sleeping.store(true, Ordering::SeqCst);
        // Pairs with the fence in `ring_bell`: either the sender sees that we sleep, or we
        // see what it has pushed.
        fence(Ordering::SeqCst);
        if !has_work() {
            self.stats.borrow_mut().parks += 1;
            self.turn.set(self.turn.get() + 1);
            self.flush_deferred();
            self.enter(1, timeout);
        }
        self.bell.sleeping.store(false, Ordering::SeqCst);
        self.dispatch()
    }

    /// Wakes another core if it sleeps. What it is to find must have been pushed before.
    pub(in crate::io) fn ring_bell(&self, other: &Bell) {
        fence(Ordering::SeqCst);
        if !other.sleeping.load(Ordering::Relaxed) || !other.sleeping.swap(false, Ordering::AcqRel)
        {
            return;
        }
        let ring = other.ring.load(Ordering::Relaxed);
        if ring < 0 {
            return;
        }
        self.stats.borrow_mut().bells_rung += 1;
        let message = opcode::MsgRingData::new(types::Fd(ring), 0, USER_DATA_BELL, None)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(USER_DATA_IGNORED);
        self.push(message);
        // At once: the other core's latency is at stake.
        self.submit();
    }

    /// Cancels everything and waits until the kernel has let go of it. Owners must have
    /// been dropped: what they would have received is thrown away.
    pub(in crate::io) fn drain(&self) {
        self.bell.ring.store(-1, Ordering::SeqCst);
        loop {
            {
                let state = self.state.borrow();
                if state.ops.in_flight() == 0 && !state.stop_armed {
                    break;
                }
            }
            let all = types::CancelBuilder::any();
            let cancel = opcode::AsyncCancel2::new(all).build();
            self.push(cancel.user_data(USER_DATA_IGNORED));
            self.turn();
            let quiet = {
                let state = self.state.borrow();
                state.ops.in_flight() == 0 && !state.stop_armed
            };
            if !quiet {
                // An fsync can't be cancelled; everything else lands at once.
                self.park(Some(DRAIN_PAUSE), || false);
            }
        }
        let state = self.state.borrow();
        // It fails only if nothing is registered, and then there is nothing to undo.
        let _ = state.buffers.unregister(&state.ring);
    }

    // The futures' side.

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
        let id = {
            let mut state = self.state.borrow_mut();
            let id = state.ops.add(OpState::Once(None), keep);
            state.ops.set_in_flight(id);
            id
        };
        self.push(entry.user_data(id.user_data()));
        let owner = OpOwner {
            driver: self.clone(),
            id,
            cancel,
        };
        async move {
            poll_fn(|cx| owner.driver.poll_once(owner.id, cx)).await
            // `owner` is dropped here, or wherever the future is dropped.
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
        cx: &Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state.borrow_mut();
        let state_ref = &mut *state;
        let op = state_ref.ops.get_mut(id);
        let OpState::Receive(received) = &mut op.state else {
            unreachable!("a slot for receiving")
        };
        if received.bytes > 0 {
            let count = std::mem::take(&mut received.bytes);
            into.reserve(count);
            for piece in received.pieces.drain(..) {
                match piece {
                    Piece::Lent { buffer, len } => {
                        into.extend_from_slice(state_ref.buffers.bytes(buffer, len));
                        state_ref.buffers.give(buffer);
                    }
                    Piece::Copied(bytes) => into.extend_from_slice(&bytes),
                }
            }
            return Poll::Ready(Ok(count));
        }
        match received.end {
            Some(0) => return Poll::Ready(Ok(0)),
            Some(errno) => return Poll::Ready(Err(io::Error::from_raw_os_error(errno))),
            None => {}
        }
        set_waker(&mut op.waker, cx);
        if !op.in_flight {
            let Keep::Socket(socket) = &op.keep else {
                unreachable!("a receiver keeps its socket")
            };
            let fd = types::Fd(socket.as_raw_fd());
            let entry = opcode::RecvMulti::new(fd, buffers::GROUP).build();
            state.ops.set_in_flight(id);
            drop(state);
            self.push(entry.user_data(id.user_data()));
        }
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

    // Submissions.

    fn push(&self, entry: squeue::Entry) {
        if !self.state.borrow().deferred.is_empty() {
            self.state.borrow_mut().deferred.push_back(entry);
            return;
        }
        if self.try_push(&entry) {
            return;
        }
        self.submit();
        if !self.try_push(&entry) {
            self.stats.borrow_mut().submissions_deferred += 1;
            self.state.borrow_mut().deferred.push_back(entry);
        }
    }

    fn try_push(&self, entry: &squeue::Entry) -> bool {
        let mut state = self.state.borrow_mut();
        // SAFETY: what the entry refers to is kept in its operation's slot until the last
        // completion (see `once`); entries without a slot refer to descriptors only, and
        // the stop event is owned by `self.bell`.
        unsafe { state.ring.submission().push(entry).is_ok() }
    }

    fn push_cancel(&self, id: OpId) {
        let cancel = opcode::AsyncCancel::new(id.user_data()).build();
        self.push(cancel.user_data(USER_DATA_IGNORED));
    }

    fn flush_deferred(&self) {
        loop {
            let Some(entry) = self.state.borrow_mut().deferred.pop_front() else {
                return;
            };
            if !self.try_push(&entry) {
                self.submit();
                if !self.try_push(&entry) {
                    self.state.borrow_mut().deferred.push_front(entry);
                    return;
                }
            }
        }
    }

    /// Gives the kernel what is queued, without looking for completions.
    fn submit(&self) {
        let state = self.state.borrow();
        // SAFETY: `enter` with no signal mask; the entries were pushed by `try_push`.
        let submitted = unsafe {
            let queued = queued(&state.ring);
            state
                .ring
                .submitter()
                .enter::<libc::sigset_t>(queued, 0, 0, None)
        };
        self.stats.borrow_mut().enters += 1;
        check_enter(submitted);
    }

    /// Gives the kernel what is queued, runs its task work, and waits for `want`
    /// completions, at most for `timeout`.
    fn enter(&self, want: u32, timeout: Option<Duration>) {
        let state = self.state.borrow();
        let submitter = state.ring.submitter();
        let queued = queued(&state.ring);
        let getevents = EnterFlags::GETEVENTS.bits();
        self.stats.borrow_mut().enters += 1;
        // SAFETY: the entries were pushed by `try_push`; the timeout lives for the call.
        let entered = unsafe {
            match timeout {
                None => submitter.enter::<libc::sigset_t>(queued, want, getevents, None),
                Some(timeout) => {
                    let timespec = types::Timespec::from(timeout);
                    let args = types::SubmitArgs::new().timespec(&timespec);
                    let flags = getevents | EnterFlags::EXT_ARG.bits();
                    submitter.enter(queued, want, flags, Some(&args))
                }
            }
        };
        check_enter(entered);
    }

    // Completions.

    fn dispatch(&self) -> usize {
        let mut batch = self.batch.take();
        {
            let mut state = self.state.borrow_mut();
            let completions = state.ring.completion();
            batch.extend(completions.map(|c| (c.user_data(), c.result(), c.flags())));
        }
        let count = batch.len();
        if count > 0 {
            let mut stats = self.stats.borrow_mut();
            stats.completions += count as u64;
            stats.completions_max = stats.completions_max.max(count as u64);
        }
        for (user_data, result, flags) in batch.drain(..) {
            match user_data {
                USER_DATA_IGNORED | USER_DATA_BELL => {}
                USER_DATA_STOP => self.state.borrow_mut().stop_armed = false,
                _ => self.complete(OpId::from_user_data(user_data), result, flags),
            }
        }
        self.batch.replace(batch);
        count
    }

    /// One completion of a slot.
    fn complete(&self, id: OpId, result: i32, flags: u32) {
        let mut pause = false;
        let mut state = self.state.borrow_mut();
        let State { ops, buffers, .. } = &mut *state;
        if !cqueue::more(flags) {
            ops.set_landed(id);
        }
        let op = ops.get_mut(id);
        match &mut op.state {
            OpState::Once(slot) => *slot = Some(result),
            OpState::Accept(accepted) => {
                on_accepted(accepted, result);
                pause = accepted.sockets.len() >= ACCEPTED_MAX;
            }
            OpState::Receive(received) => {
                let buffer = cqueue::buffer_select(flags).map(BufferId);
                let turn = self.turn.get();
                let waited = received.bytes >= RECEIVED_BYTES_MAX && received.since_turn < turn;
                on_received(received, buffers, result, buffer, turn);
                let mut stats = self.stats.borrow_mut();
                stats.receives_without_buffer += u64::from(result == -libc::ENOBUFS);
                pause = waited;
            }
        }
        if !op.owned {
            discard(op, buffers);
        }
        let pause =
            pause && op.in_flight && op.owned && !std::mem::replace(&mut op.cancelling, true);
        let waker = if op.owned { op.waker.take() } else { None };
        let freed = ops.free_if_unused(id);
        drop(state);
        if pause {
            self.stats.borrow_mut().receives_paused += 1;
            self.push_cancel(id);
        }
        if let Some(waker) = waker {
            waker.wake();
        }
        drop(freed);
    }

    /// The owner of a slot is gone.
    fn release(&self, id: OpId, cancel: bool) {
        let (cancel, waker, freed) = {
            let mut state = self.state.borrow_mut();
            let State { ops, buffers, .. } = &mut *state;
            let op = ops.get_mut(id);
            op.owned = false;
            let waker = op.waker.take();
            discard(op, buffers);
            let cancel = cancel && op.in_flight && !std::mem::replace(&mut op.cancelling, true);
            (cancel, waker, ops.free_if_unused(id))
        };
        if cancel {
            self.push_cancel(id);
        }
        drop((waker, freed));
    }
}

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

    /// Appends what has arrived; 0 at the end.
    pub(in crate::io) fn poll_receive(
        &self,
        into: &mut BytesMut,
        cx: &Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.driver.poll_receive(self.id, into, cx)
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
            let _ = self.poll_receive(into, &cx);
        }
    }
}

impl Drop for OpOwner {
    fn drop(&mut self) {
        self.driver.release(self.id, self.cancel);
    }
}

/// While waiting for the last operations of a core that ends.
const DRAIN_PAUSE: Duration = Duration::from_millis(10);

/// Entries in the submission queue that the kernel hasn't taken.
fn queued(ring: &IoUring) -> u32 {
    // SAFETY: the driver's borrow of its state is the only access to this ring, and the
    // shared view is dropped before another is made.
    let mut submissions = unsafe { ring.submission_shared() };
    submissions.sync();
    u32::try_from(submissions.len()).expect("at most SUBMISSIONS entries")
}

/// What `io_uring_enter` may answer in normal operation: a signal came, the time is over,
/// memory is short, or completions must be taken first; the next turn goes on.
fn check_enter(result: io::Result<usize>) {
    let Err(error) = result else { return };
    match error.raw_os_error() {
        Some(libc::EINTR | libc::ETIME | libc::EAGAIN | libc::EBUSY) => {}
        _ => panic!("io_uring_enter: {error}"),
    }
}

fn on_accepted(accepted: &mut Accepted, result: i32) {
    if result >= 0 {
        // SAFETY: the kernel has just made this descriptor for us.
        accepted
            .sockets
            .push_back(unsafe { OwnedFd::from_raw_fd(result as RawFd) });
    } else if !matches!(-result, libc::ECANCELED | libc::EINTR | libc::EAGAIN) {
        accepted.error = Some(-result);
    }
}

fn on_received(
    received: &mut Received,
    buffers: &mut Buffers,
    result: i32,
    buffer: Option<BufferId>,
    turn: u64,
) {
    if let Some(buffer) = buffer {
        buffers.take(buffer);
        let len = usize::try_from(result).unwrap_or(0);
        if len == 0 {
            buffers.give(buffer);
        } else if buffers.are_scarce() {
            received
                .pieces
                .push_back(Piece::Copied(BytesMut::from(buffers.bytes(buffer, len))));
            buffers.give(buffer);
        } else {
            received.pieces.push_back(Piece::Lent { buffer, len });
        }
        if received.bytes == 0 {
            received.since_turn = turn;
        }
        received.bytes += len;
    }
    match result {
        0 => received.end = Some(0),
        1.. => {}
        // Started again at the next poll: buffers have come back by then, or we had
        // stopped it ourselves.
        _ if matches!(
            -result,
            libc::ENOBUFS | libc::ECANCELED | libc::EINTR | libc::EAGAIN
        ) => {}
        _ => received.end = Some(-result),
    }
}

/// Throws away what a slot has received for an owner that is gone.
fn discard(op: &mut Op, buffers: &mut Buffers) {
    match &mut op.state {
        OpState::Once(_) => {}
        OpState::Accept(accepted) => accepted.sockets.clear(),
        OpState::Receive(received) => {
            received.bytes = 0;
            for piece in received.pieces.drain(..) {
                if let Piece::Lent { buffer, .. } = piece {
                    buffers.give(buffer);
                }
            }
        }
    }
}

fn set_waker(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}
