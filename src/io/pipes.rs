//! What the bytes of a file pass through on their way to a socket: pipes for splicing,
//! buffers for reading. A core has a small, bounded [`Pool`] of each.
//!
//! Called by `net` (`splice`, `read`); a lease is shared with the operations in flight, so
//! that what the kernel works on lasts, and stays out of the pool, until they have landed.
//!
//! A connection whose peer doesn't read must not keep others from theirs. So whoever holds a
//! lease while its socket is full awaits [`Pool::is_claimed`] beside the socket, and gives
//! the lease up when somebody needs it: the bytes in it can be read again.
//!
//! Invariants: at most `count_max` items exist; a dirty one (a pipe that may hold bytes) is
//! closed when it comes back, never lent again; who waits is served in order.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use super::local::Notify;

/// Items of one kind, made when they are first needed.
pub(super) struct Pool<T> {
    make: fn() -> io::Result<T>,
    count_max: usize,
    /// Items that exist, lent or free.
    count: Cell<usize>,
    free: RefCell<Vec<T>>,
    /// Tasks that wait for a lease.
    waiting: Cell<usize>,
    /// Notified when an item comes back, or may be made again.
    returned: Notify,
    /// Notified when somebody begins to wait.
    claimed: Notify,
    stats: Cell<PoolStats>,
}

/// Counters of a pool, from the core's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Items that were made.
    pub made: u64,
    /// Largest number that existed at a time.
    pub count_max: u64,
    /// Times that nothing was free.
    pub waits: u64,
    /// Times that a connection with a full socket gave its item up for another.
    pub given_up: u64,
}

/// The right to one item of a pool.
pub(super) struct Lease<T> {
    pool: Rc<Pool<T>>,
    /// Absent only while it is dropped.
    item: Option<T>,
    dirty: Cell<bool>,
}

impl<T> Pool<T> {
    pub(super) fn new(count_max: usize, make: fn() -> io::Result<T>) -> Rc<Pool<T>> {
        assert!(count_max > 0, "a pool without items serves nobody");
        Rc::new(Pool {
            make,
            count_max,
            count: Cell::new(0),
            free: RefCell::new(Vec::with_capacity(count_max)),
            waiting: Cell::new(0),
            returned: Notify::new(),
            claimed: Notify::new(),
            stats: Cell::new(PoolStats::default()),
        })
    }

    /// Waits for an item. Fails when there is none and none can be made.
    pub(super) async fn lease(self: &Rc<Self>) -> io::Result<Rc<Lease<T>>> {
        if self.waiting.get() == 0
            && let Some(lease) = self.try_lease()?
        {
            return Ok(lease);
        }
        let _waiting = Waiting::new(&self.waiting);
        self.count_in(|stats| stats.waits += 1);
        loop {
            self.claimed.notify_one();
            self.returned.notified().await;
            match self.try_lease() {
                Ok(Some(lease)) => return Ok(lease),
                Ok(None) => {}
                Err(error) => {
                    // None is left that could come back and wake the next.
                    self.returned.notify_one();
                    return Err(error);
                }
            }
        }
    }

    /// Resolves when somebody waits for an item, to be asked of one holder.
    pub(super) async fn is_claimed(&self) {
        while self.waiting.get() == 0 {
            self.claimed.notified().await;
        }
    }

    pub(super) fn has_claims(&self) -> bool {
        self.waiting.get() > 0
    }

    pub(super) fn count_given_up(&self) {
        self.count_in(|stats| stats.given_up += 1);
    }

    pub(super) fn stats(&self) -> PoolStats {
        self.stats.get()
    }

    fn try_lease(self: &Rc<Self>) -> io::Result<Option<Rc<Lease<T>>>> {
        let free = self.free.borrow_mut().pop();
        let item = match free {
            Some(item) => item,
            None if self.count.get() >= self.count_max => return Ok(None),
            None => match (self.make)() {
                Ok(item) => {
                    let count = self.count.get() + 1;
                    self.count.set(count);
                    self.count_in(|stats| {
                        stats.made += 1;
                        stats.count_max = stats.count_max.max(count as u64);
                    });
                    item
                }
                // Those that exist come back.
                Err(_) if self.count.get() > 0 => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        Ok(Some(Rc::new(Lease {
            pool: self.clone(),
            item: Some(item),
            dirty: Cell::new(false),
        })))
    }

    fn count_in(&self, change: impl FnOnce(&mut PoolStats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
    }
}

impl<T> Lease<T> {
    /// Whether the item can be lent again as it is.
    pub(super) fn set_dirty(&self, dirty: bool) {
        self.dirty.set(dirty);
    }
}

impl<T> std::ops::Deref for Lease<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.item.as_ref().expect("it is there until the drop")
    }
}

impl<T> Drop for Lease<T> {
    fn drop(&mut self) {
        let item = self.item.take();
        if self.dirty.get() {
            drop(item);
            self.pool.count.set(self.pool.count.get() - 1);
        } else {
            self.pool.free.borrow_mut().extend(item);
        }
        if self.pool.has_claims() {
            self.pool.returned.notify_one();
        }
    }
}

/// Counts a task that waits.
struct Waiting<'a>(&'a Cell<usize>);

impl<'a> Waiting<'a> {
    fn new(count: &'a Cell<usize>) -> Waiting<'a> {
        count.set(count.get() + 1);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A pipe that is never written to or read from but by splicing.
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// Bytes that fit when each page of the file is whole.
    capacity: usize,
}

/// Sizes to ask for, largest first. Once the pages of the user's pipes exceed
/// `pipe-user-pages-soft`, growing one is refused (EPERM) and the kernel's default stays.
pub(super) const PIPE_BYTES: [i32; 2] = [1 << 20, 256 << 10];

impl Pipe {
    pub(super) fn new() -> io::Result<Pipe> {
        let mut ends = [0; 2];
        // SAFETY: the kernel writes two descriptors into the array.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made both for us.
        let (read, write) =
            unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
        for bytes in PIPE_BYTES {
            // SAFETY: a plain call on an open descriptor.
            if unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) } >= 0 {
                break;
            }
        }
        // SAFETY: a plain call on an open descriptor.
        let granted = unsafe { libc::fcntl(write.as_raw_fd(), libc::F_GETPIPE_SZ) };
        let capacity = usize::try_from(granted).map_err(|_| io::Error::last_os_error())?;
        Ok(Pipe {
            read,
            write,
            capacity,
        })
    }

    pub(super) fn read_fd(&self) -> RawFd {
        self.read.as_raw_fd()
    }

    pub(super) fn write_fd(&self) -> RawFd {
        self.write.as_raw_fd()
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }
}

/// Memory that a file is read into.
pub(super) struct Buffer(Box<[UnsafeCell<u8>]>);

pub(super) const BUFFER_BYTES: usize = 256 << 10;

impl Buffer {
    pub(super) fn new() -> io::Result<Buffer> {
        let zeros: Box<[u8]> = vec![0; BUFFER_BYTES].into();
        // SAFETY: `UnsafeCell<u8>` has the layout of `u8`, and the box owns the memory.
        let cells = unsafe { Box::from_raw(Box::into_raw(zeros) as *mut [UnsafeCell<u8>]) };
        Ok(Buffer(cells))
    }

    /// Where the kernel is to write, [`BUFFER_BYTES`] bytes.
    pub(super) fn as_mut_ptr(&self) -> *mut u8 {
        UnsafeCell::raw_get(self.0.as_ptr())
    }

    /// # Safety
    /// No operation that writes to the buffer may be in flight while the slice lives.
    pub(super) unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: the memory is initialised, and by the caller's promise nobody writes it.
        unsafe { std::slice::from_raw_parts(self.as_mut_ptr(), self.0.len()) }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        match future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_pool_is_bounded_and_serves_in_order() {
        let pool = Pool::new(2, || Ok(7));
        let first = ready(pool.lease()).unwrap().unwrap();
        let _second = ready(pool.lease()).unwrap().unwrap();
        assert!(ready(pool.is_claimed()).is_none());
        let mut cx = Context::from_waker(Waker::noop());
        let mut third = Box::pin(pool.lease());
        let mut fourth = Box::pin(pool.lease());
        assert!(third.as_mut().poll(&mut cx).is_pending());
        assert!(fourth.as_mut().poll(&mut cx).is_pending());
        assert!(ready(pool.is_claimed()).is_some());
        drop(first);
        // Nobody overtakes those who wait.
        assert!(ready(pool.lease()).is_none());
        assert!(fourth.as_mut().poll(&mut cx).is_pending());
        // Whoever gives up waiting passes the item on.
        drop(third);
        let Poll::Ready(Ok(lease)) = fourth.as_mut().poll(&mut cx) else {
            panic!("it is the next in line")
        };
        lease.set_dirty(true);
        drop((lease, fourth));
        assert_eq!(pool.count.get(), 1);
        assert!(!pool.has_claims());
        assert_eq!(pool.stats().count_max, 2);
    }

    #[test]
    fn what_cannot_be_made_fails_only_while_nothing_exists() {
        let pool: Rc<Pool<u8>> = Pool::new(2, || Err(io::Error::other("no")));
        assert!(matches!(ready(pool.lease()), Some(Err(_))));
        assert!(!pool.has_claims());
    }

    #[test]
    fn a_pipe_is_as_large_as_the_kernel_grants() {
        let pipe = Pipe::new().unwrap();
        assert!(pipe.capacity() >= 4_096);
        assert!(pipe.read_fd() != pipe.write_fd());
    }
}
