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

mod bell;
mod buffers;
mod ops;
mod owner;
mod round;
mod sleep;

/// What `sleep` is made of; tests/mesh_loom.rs puts loom's in its place.
mod sync {
    pub(super) use std::sync::atomic::{AtomicBool, Ordering, fence};
}

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::{EnterFlags, IoUring, Probe, cqueue, opcode, squeue, types};

pub use bell::Bell;
pub(crate) use bell::Inbox;
use buffers::{BufferId, Buffers};
pub(in crate::io) use ops::Keep;
use ops::{OpId, OpState, Ops};
pub(in crate::io) use owner::OpOwner;
use round::Round;
pub(in crate::io) use round::may_join;

/// Sizes of a ring.
const SUBMISSIONS: u32 = 256;
const COMPLETIONS: u32 = 4_096;

/// Every operation that cores submit, as the kernel numbers and names it. Multishot accepts
/// and receives came before deferred task work, without which no ring is set up.
const OPERATIONS: [(u8, &str); 12] = [
    (opcode::Accept::CODE, "IORING_OP_ACCEPT"),
    (opcode::AsyncCancel::CODE, "IORING_OP_ASYNC_CANCEL"),
    (opcode::Connect::CODE, "IORING_OP_CONNECT"),
    (opcode::Fsync::CODE, "IORING_OP_FSYNC"),
    (opcode::MsgRingData::CODE, "IORING_OP_MSG_RING"),
    (opcode::PollAdd::CODE, "IORING_OP_POLL_ADD"),
    (opcode::Read::CODE, "IORING_OP_READ"),
    (opcode::Recv::CODE, "IORING_OP_RECV"),
    (opcode::Send::CODE, "IORING_OP_SEND"),
    (opcode::SendMsg::CODE, "IORING_OP_SENDMSG"),
    (opcode::Splice::CODE, "IORING_OP_SPLICE"),
    (opcode::UnlinkAt::CODE, "IORING_OP_UNLINKAT"),
];

/// Syncs (and reads and splices that wait for a disk) that the kernel does at a time for this
/// ring, each on a thread of its own. By default there are four for each CPU, and syncs of
/// many logs wait for each other, though they could share a commit of the file system.
const FILE_WORKERS_MAX: u32 = 64;

/// Turns between tasks that are about to run and don't fetch what has come meanwhile.
const TURNS_WITHOUT_ENTER: u32 = 4;

/// A receive is paused once so much of it waits from an earlier turn.
const RECEIVED_BYTES_MAX: usize = 64 << 10;
/// An accept is paused once so many connections wait to be taken.
const ACCEPTED_MAX: usize = 64;

/// `user_data` of completions that aren't those of a slot.
const USER_DATA_IGNORED: u64 = u64::MAX;
const USER_DATA_BELL: u64 = u64::MAX - 1;
const USER_DATA_STOP: u64 = u64::MAX - 2;
/// A bell that couldn't be rung, with the other core's ring in the lower half. No slot's
/// `user_data` has the highest bit.
const USER_DATA_UNRUNG: u64 = 0xffff_fffe << 32;

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
    /// Turns since the kernel was entered for completions.
    since_enter: Cell<u32>,
    stats: RefCell<DriverStats>,
}

struct State {
    ring: IoUring,
    ops: Ops,
    buffers: Buffers,
    round: Round,
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
        ring.submitter()
            .register_iowq_max_workers(&mut [FILE_WORKERS_MAX, 0])?;
        let buffers = Buffers::register(&ring, recv_buffers, recv_buffer_bytes)?;
        // SAFETY: the ring's descriptor is open; the duplicate is owned by nobody else.
        let second = unsafe {
            let fd = libc::fcntl(ring.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        bell.hang(second);
        let driver = Driver {
            state: RefCell::new(State {
                ring,
                ops: Ops::new(),
                buffers,
                round: Round::new(),
                deferred: VecDeque::new(),
                stop_armed: false,
            }),
            bell,
            batch: RefCell::new(Vec::with_capacity(COMPLETIONS as usize)),
            turn: Cell::new(0),
            since_enter: Cell::new(0),
            stats: RefCell::new(DriverStats::default()),
        };
        if let Some(event) = driver.bell.stop_event() {
            let wait = opcode::PollAdd::new(types::Fd(event), libc::POLLIN as u32).build();
            driver.push(wait.user_data(USER_DATA_STOP));
            driver.state.borrow_mut().stop_armed = true;
        }
        Ok(driver)
    }

    /// Those of [`OPERATIONS`] that this kernel doesn't know.
    pub(in crate::io) fn missing_operations(&self) -> io::Result<Vec<&'static str>> {
        let mut probe = Probe::new();
        let state = self.state.borrow();
        state.ring.submitter().register_probe(&mut probe)?;
        let missing = OPERATIONS
            .iter()
            .filter(|(code, _)| !probe.is_supported(*code));
        Ok(missing.map(|(_, name)| *name).collect())
    }

    pub(in crate::io) fn stats(&self) -> DriverStats {
        DriverStats {
            turns: self.turn.get(),
            ..*self.stats.borrow()
        }
    }

    // The loop's side.

    /// Submits what waits, runs the kernel's task work if it has any, and hands out the
    /// completions. Returns how many there were; never blocks. A round of sends may wait a
    /// little longer when `others_come`: tasks that may have something to send.
    pub(in crate::io) fn turn(&self, others_come: bool) -> usize {
        self.turn.set(self.turn.get() + 1);
        self.flush_deferred();
        let round = self.state.borrow_mut().round.is_due(others_come);
        if round {
            self.push_round();
        }
        // While requests are about to run anyway, what has come meanwhile is fetched together.
        let patient = others_come && !round && self.since_enter.get() < TURNS_WITHOUT_ENTER;
        self.since_enter.set(self.since_enter.get() + 1);
        let needs_enter = !patient && {
            let mut state = self.state.borrow_mut();
            let mut submissions = state.ring.submission();
            submissions.sync();
            !submissions.is_empty() || submissions.taskrun() || submissions.cq_overflow()
        };
        if needs_enter {
            self.enter(0, None);
        }
        let mut count = self.dispatch();
        while round && self.state.borrow().round.with_kernel() > 0 {
            // The kernel hasn't taken them all, for want of memory or of room for results.
            self.flush_deferred();
            self.enter(0, None);
            count += self.dispatch();
        }
        count
    }

    /// Gives the sends that wait for a round to the kernel, to be done by the next enter.
    fn push_round(&self) {
        loop {
            let entry = self.state.borrow_mut().round.next_entry();
            let Some(entry) = entry else { return };
            self.push(entry);
        }
    }

    /// Whether a turn would find something; looks at shared memory only.
    pub(in crate::io) fn is_pending(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if !state.deferred.is_empty() || state.round.is_waiting() {
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
        self.bell.fall_asleep();
        if !has_work() && !self.has_round() {
            self.stats.borrow_mut().parks += 1;
            self.turn.set(self.turn.get() + 1);
            self.flush_deferred();
            self.enter(1, timeout);
        }
        self.bell.wake_up();
        self.dispatch()
    }

    /// Wakes another core if it sleeps. What it is to find must have been pushed before.
    pub(in crate::io) fn ring_bell(&self, other: &Bell) {
        let Some(ring) = other.sleeper() else { return };
        self.stats.borrow_mut().bells_rung += 1;
        self.push_bell(ring);
        // At once: the other core's latency is at stake.
        self.submit();
    }

    /// Cancels everything and waits until the kernel has let go of it. Owners must have
    /// been dropped: what they would have received is thrown away.
    pub(in crate::io) fn drain(&self) {
        self.bell.take_down();
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
            self.turn(false);
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
        // completion (see `once`), or in its seat until the kernel has answered for it (see
        // `round`); entries without a slot refer to descriptors only, and
        // the stop event is owned by `self.bell`.
        unsafe { state.ring.submission().push(entry).is_ok() }
    }

    fn push_bell(&self, ring: RawFd) {
        self.push(bell_message(ring));
    }

    /// A bell wasn't rung: when that was for want of memory, the other core still sleeps
    /// and is rung again; else it is gone.
    fn on_unrung(&self, ring: RawFd, result: i32) {
        if matches!(
            -result,
            libc::ENOMEM | libc::EAGAIN | libc::EOVERFLOW | libc::EINTR
        ) {
            self.push_bell(ring);
        }
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
        self.since_enter.set(0);
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
                sent if round::is_round(sent) => {
                    let waker = self.state.borrow_mut().round.on_completion(sent, result);
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                }
                unrung if unrung & USER_DATA_UNRUNG == USER_DATA_UNRUNG => {
                    self.on_unrung((unrung as u32).cast_signed(), result);
                }
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
                accepted.on_completion(result);
                pause = accepted.sockets.len() >= ACCEPTED_MAX;
            }
            OpState::Receive(received) => {
                let buffer = cqueue::buffer_select(flags).map(BufferId);
                let turn = self.turn.get();
                let waited = received.bytes >= RECEIVED_BYTES_MAX && received.since_turn < turn;
                received.on_completion(buffers, result, buffer, turn);
                let mut stats = self.stats.borrow_mut();
                stats.receives_without_buffer += u64::from(result == -libc::ENOBUFS);
                pause = waited;
            }
        }
        if !op.owned {
            op.discard(buffers);
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
}

/// Wakes the core that sleeps in `ring`; completes only if it can't.
pub(in crate::io) fn bell_message(ring: RawFd) -> squeue::Entry {
    opcode::MsgRingData::new(types::Fd(ring), 0, USER_DATA_BELL, None)
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
        .user_data(USER_DATA_UNRUNG | u64::from(ring.cast_unsigned()))
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
        Some(libc::EINTR | libc::ETIME | libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => {}
        _ => panic!("io_uring_enter: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::pin::{Pin, pin};
    use std::rc::Rc;
    use std::task::{Context, Poll, Waker};

    use bytes::BytesMut;

    use super::*;

    fn driver(buffers: u16, bytes: u32) -> Rc<Driver> {
        let bell = Arc::new(Bell::new().unwrap());
        Rc::new(Driver::new(bell, buffers, bytes).unwrap())
    }

    /// A pair of sockets, the first in the driver's hands.
    fn pair() -> (Rc<OwnedFd>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Rc::new(ours.into()), theirs)
    }

    fn poll<T>(future: &mut Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Turns until a future is ready, a bounded number of times.
    fn finish<T>(driver: &Driver, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        for _ in 0..1_000 {
            if let Poll::Ready(output) = poll(&mut future) {
                return output;
            }
            driver.park(Some(Duration::from_millis(10)), || false);
        }
        panic!("the operation did not finish");
    }

    #[test]
    fn every_operation_in_use_is_asked_for() {
        fn sources(dir: &std::path::Path, into: &mut String) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    sources(&path, into);
                } else {
                    into.push_str(&std::fs::read_to_string(path).unwrap());
                }
            }
        }
        let mut text = String::new();
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/src/io");
        sources(std::path::Path::new(root), &mut text);
        let mut used = std::collections::BTreeSet::new();
        for (at, mark) in text.match_indices("opcode::") {
            let name = text[at + mark.len()..].split(|c: char| !c.is_alphanumeric());
            let name = name.into_iter().next().unwrap();
            let name = name.trim_end_matches("Multi").trim_end_matches('2');
            used.insert(name.trim_end_matches("Data").to_uppercase());
        }
        used.remove("");
        let known =
            OPERATIONS.map(|(_, name)| name.trim_start_matches("IORING_OP_").replace('_', ""));
        assert_eq!(used.into_iter().collect::<Vec<_>>(), known);
        assert_eq!(driver(8, 512).missing_operations().unwrap(), [""; 0]);
    }

    #[test]
    fn more_completions_than_the_queue_holds_are_all_delivered() {
        let driver = driver(8, 512);
        let (ours, _theirs) = pair();
        // Each is ready at once: the socket takes bytes.
        let count = COMPLETIONS as usize * 2 + 100;
        let mut waiting: Vec<_> = (0..count)
            .map(|_| {
                let (driver, ours) = (driver.clone(), ours.clone());
                Box::pin(async move { driver.writable(&ours).await })
            })
            .collect();
        // Nobody takes completions meanwhile.
        for future in &mut waiting {
            assert!(poll(&mut future.as_mut()).is_pending());
        }
        for future in waiting {
            finish(&driver, future);
        }
        let stats = driver.stats();
        assert!(stats.completions >= count as u64, "{stats:?}");
        assert_eq!(driver.state.borrow().ops.in_flight(), 0);
        driver.drain();
    }

    #[test]
    fn an_operation_whose_owner_is_gone_keeps_its_socket_until_it_has_landed() {
        let driver = driver(8, 512);
        let (ours, theirs) = pair();
        let receiver = driver.receiver(ours.clone());
        let mut into = BytesMut::new();
        let cx = Context::from_waker(Waker::noop());
        assert!(receiver.poll_receive(&mut into, 0, &cx).is_pending());
        driver.turn(false);
        // Bytes that arrive for nobody go back to the pool.
        (&theirs).write_all(&[1; 2_000]).unwrap();
        drop(receiver);
        assert_eq!(Rc::strong_count(&ours), 2);
        for _ in 0..10 {
            driver.park(Some(Duration::from_millis(1)), || false);
        }
        assert_eq!(Rc::strong_count(&ours), 1);
        let again = driver.receiver(ours);
        (&theirs).write_all(&[2; 4_096]).unwrap();
        finish(&driver, async {
            while into.len() < 4_096 {
                let received = std::future::poll_fn(|cx| again.poll_receive(&mut into, 0, cx));
                assert!(received.await.unwrap() > 0);
            }
        });
        drop(again);
        driver.drain();
        assert_eq!(driver.state.borrow().ops.in_flight(), 0);
    }

    #[test]
    fn bytes_stay_in_order_when_buffers_run_out() {
        let driver = driver(4, 64);
        let (ours, theirs) = pair();
        let receiver = driver.receiver(ours);
        let sent: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
        let copy = sent.clone();
        let writer = std::thread::spawn(move || (&theirs).write_all(&copy).unwrap());
        let mut into = BytesMut::new();
        finish(&driver, async {
            loop {
                let received = std::future::poll_fn(|cx| receiver.poll_receive(&mut into, 0, cx));
                if received.await.unwrap() == 0 {
                    break;
                }
            }
        });
        writer.join().unwrap();
        assert!(into == sent);
        assert!(driver.stats().receives_without_buffer > 0);
        drop(receiver);
        driver.drain();
    }

    #[test]
    fn a_sleeping_driver_is_woken_by_another_and_a_waking_one_is_not_rung() {
        let first = driver(8, 64);
        let bell = Arc::new(Bell::new().unwrap());
        let (tell, told) = std::sync::mpsc::channel();
        let second = std::thread::spawn({
            let bell = bell.clone();
            move || {
                let driver = Driver::new(bell, 8, 64).unwrap();
                // The stop's poll is the first thing to be submitted.
                driver.turn(false);
                tell.send(()).unwrap();
                let came = driver.park(Some(Duration::from_secs(20)), || false);
                driver.drain();
                came
            }
        });
        told.recv().unwrap();
        for _ in 0..10_000 {
            first.ring_bell(&bell);
            if first.stats().bells_rung > 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(second.join().unwrap(), 1);
        first.ring_bell(&bell);
        assert_eq!(first.stats().bells_rung, 1, "it is gone");
        first.drain();
    }
}
