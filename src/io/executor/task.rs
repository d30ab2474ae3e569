//! One spawned future with the waker that keeps the count of runnable tasks.
//!
//! A waker is `Send` by its type, the task behind it is not: every access checks that it
//! happens on the task's own thread, and everything that belongs to that thread is dropped
//! when the task finishes or is cancelled (which happens on that thread, see
//! `Executor::close`). What a stray waker on another thread can still drop is an empty
//! shell.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use super::{Executor, Queue};
use crate::io::blocked::BUDGET;
use crate::io::rt::real_now;

pub(crate) type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

pub(crate) struct Task {
    /// Mark of the thread that the task lives on.
    home: usize,
    queue: Queue,
    /// Index in the executor's table of unfinished tasks.
    key: usize,
    /// Woken and not polled since: it counts as runnable. Stays set once finished, so
    /// that late wakes count nothing.
    scheduled: Cell<bool>,
    /// Absent while it is being polled, and once it is finished or cancelled.
    future: RefCell<Option<LocalFuture>>,
    /// Absent once the task is finished or cancelled.
    executor: RefCell<Option<Rc<Executor>>>,
    /// How the host is told to poll the task; only glommio needs it.
    host_waker: RefCell<Option<Waker>>,
}

// SAFETY: the fields that are not thread-safe are touched only after `assert_home`, on the
// thread that made the task. The last reference may be dropped elsewhere, but then the
// fields are empty: they are emptied at home by `finish`, which is called for every task
// (when it is ready or by `Executor::close`), and until then the executor's table at home
// holds a reference.
unsafe impl Send for Task {}
// SAFETY: as above.
unsafe impl Sync for Task {}

impl Task {
    /// A task that counts as runnable already.
    pub(super) fn new(
        executor: Rc<Executor>,
        queue: Queue,
        key: usize,
        future: LocalFuture,
    ) -> Arc<Task> {
        Arc::new(Task {
            home: this_thread(),
            queue,
            key,
            scheduled: Cell::new(true),
            future: RefCell::new(Some(future)),
            executor: RefCell::new(Some(executor)),
            host_waker: RefCell::new(None),
        })
    }

    pub(crate) fn queue(&self) -> Queue {
        self.queue
    }

    pub(super) fn key(&self) -> usize {
        self.key
    }

    /// Polls the future of a runnable task with `waker`, which is the task's own.
    pub(crate) fn run(&self, waker: &Waker) -> Poll<()> {
        self.assert_home();
        let Some(executor) = self.executor.borrow().clone() else {
            return Poll::Ready(());
        };
        if self.scheduled.replace(false) {
            executor.on_taken(self.queue);
        }
        let taken = self.future.borrow_mut().take();
        let Some(mut future) = taken else {
            unreachable!("an unfinished task has a future and is not polled from within");
        };
        let start = executor.timed.get().then(real_now);
        if let Some(start) = start {
            executor.stamps().begin(start);
        }
        let poll = future.as_mut().poll(&mut Context::from_waker(waker));
        if let Some(start) = start {
            let took = real_now().saturating_since(start);
            if took > BUDGET {
                executor.on_slow_poll(self.queue, took);
            }
        }
        match poll {
            Poll::Ready(()) => {
                drop(future);
                self.finish();
            }
            Poll::Pending => *self.future.borrow_mut() = Some(future),
        }
        executor.on_polled();
        poll
    }

    /// Drops the future of a task that will never run again.
    pub(super) fn cancel(&self) {
        self.assert_home();
        let future = self.future.borrow_mut().take();
        drop(future);
        if let Some(waker) = self.finish() {
            // Lets the host drop what it keeps for the task.
            waker.wake();
        }
    }

    /// Empties the task; returns the host's waker.
    fn finish(&self) -> Option<Waker> {
        let executor = self.executor.borrow_mut().take();
        if let Some(executor) = executor {
            if self.scheduled.replace(true) {
                executor.on_taken(self.queue);
            }
            executor.on_finished(self.key);
        }
        self.host_waker.borrow_mut().take()
    }

    pub(super) fn set_host_waker(&self, waker: &Waker) {
        self.assert_home();
        let mut held = self.host_waker.borrow_mut();
        if held.is_none() && self.executor.borrow().is_some() {
            *held = Some(waker.clone());
        }
    }

    pub(super) fn wake_host(&self) {
        if let Some(waker) = &*self.host_waker.borrow() {
            waker.wake_by_ref();
        }
    }

    fn assert_home(&self) {
        assert_eq!(
            self.home,
            this_thread(),
            "a task is touched on its own core only"
        );
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.assert_home();
        if self.scheduled.get() {
            return;
        }
        if let Some(executor) = &*self.executor.borrow() {
            self.scheduled.set(true);
            executor.on_woken(self);
        }
    }
}

/// A number that no two living threads share.
fn this_thread() -> usize {
    thread_local! {
        static MARK: u8 = const { 0 };
    }
    MARK.with(|mark| std::ptr::from_ref(mark) as usize)
}
