//! The executor of one core, behind a seam of four calls: spawn, yield, count what is
//! runnable, drop everything at the end.
//!
//! Called by `Rt` (spawn, yield) and by the core's loop. Owned by one core; nothing of it
//! crosses threads. Three hosts run the same [`Task`]s:
//! - `glommio`: each task is polled by a small future in one of glommio's task queues;
//! - `bare`: run queues of our own with the same shares;
//! - the simulation: run queues of our own, the next task chosen by the seed.
//!
//! Invariants:
//! - `runnable` is exact: a task counts from its first wake until it is polled. The core's
//!   loop may block in its ring only at zero.
//! - A task is woken on its own core only (asserted).
//! - Every unfinished task stands in `tasks`, so that the end of a core drops them all.

mod glommio_host;
mod run_queue;
mod task;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use slab::Slab;

pub(crate) use glommio_host::{GlommioHost, make_executor};
pub(crate) use run_queue::RunQueues;
use task::Task;

use crate::io::stamps::Stamps;

/// Which share of a core a task runs under, when all of them have work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Clients' requests and everything that they wait for.
    Request,
    /// Followers' and the leader's side of replication.
    Replication,
    /// Cleaning, retention, checkpoints.
    Background,
}

impl Queue {
    pub const ALL: [Queue; 3] = [Queue::Request, Queue::Replication, Queue::Background];

    /// Weight of the queue's share of the core's time.
    pub(crate) const fn shares(self) -> usize {
        match self {
            Queue::Request => 1_000,
            Queue::Replication => 400,
            Queue::Background => 100,
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// Polls of a queue's tasks that held the core for over 500 µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlowPolls {
    pub count: u64,
    pub longest: Duration,
}

/// Where tasks that became runnable go.
pub(crate) enum Host {
    Glommio(GlommioHost),
    Own(RefCell<RunQueues>),
}

/// The tasks of one core.
pub(crate) struct Executor {
    host: Host,
    runnable: Cell<usize>,
    /// Those of them that are of the request queue.
    runnable_requests: Cell<usize>,
    tasks: RefCell<Slab<Arc<Task>>>,
    /// The loop of a glommio core, waiting for any other task to be polled.
    after_poll: RefCell<Option<Waker>>,
    closed: Cell<bool>,
    /// Whether polls are timed: not in the simulation, which has no real time.
    timed: Cell<bool>,
    slow_polls: Cell<[SlowPolls; Queue::ALL.len()]>,
    stamps: Stamps,
}

impl Executor {
    pub(crate) fn new(host: Host) -> Rc<Executor> {
        Rc::new(Executor {
            host,
            runnable: Cell::new(0),
            runnable_requests: Cell::new(0),
            tasks: RefCell::new(Slab::new()),
            after_poll: RefCell::new(None),
            closed: Cell::new(false),
            timed: Cell::new(false),
            slow_polls: Cell::default(),
            stamps: Stamps::new(),
        })
    }

    /// Adds a task, runnable. Nothing happens on a core that is ending.
    pub(crate) fn spawn(self: &Rc<Self>, queue: Queue, future: impl Future<Output = ()> + 'static) {
        if self.closed.get() {
            return;
        }
        let task = {
            let mut tasks = self.tasks.borrow_mut();
            let entry = tasks.vacant_entry();
            let task = Task::new(self.clone(), queue, entry.key(), Box::pin(future));
            entry.insert(task.clone());
            task
        };
        self.count_runnable(queue);
        match &self.host {
            Host::Glommio(host) => host.adopt(queue, task),
            Host::Own(queues) => queues.borrow_mut().push(queue, task),
        }
    }

    /// Number of tasks that were woken and not polled since.
    pub(crate) fn runnable(&self) -> usize {
        self.runnable.get()
    }

    /// From now on polls are timed.
    pub(in crate::io) fn time_polls(&self) {
        self.timed.set(true);
    }

    pub(in crate::io) fn slow_polls(&self) -> [SlowPolls; Queue::ALL.len()] {
        self.slow_polls.get()
    }

    pub(in crate::io) fn stamps(&self) -> &Stamps {
        &self.stamps
    }

    fn on_slow_poll(&self, queue: Queue, took: Duration) {
        let mut slow_polls = self.slow_polls.get();
        let of_queue = &mut slow_polls[queue.index()];
        of_queue.count += 1;
        of_queue.longest = of_queue.longest.max(took);
        self.slow_polls.set(slow_polls);
    }

    /// Those of them that are of the request queue: requests, and whatever answers them.
    pub(in crate::io) fn runnable_requests(&self) -> usize {
        self.runnable_requests.get()
    }

    fn count_runnable(&self, queue: Queue) {
        self.runnable.set(self.runnable.get() + 1);
        if queue == Queue::Request {
            self.runnable_requests.set(self.runnable_requests.get() + 1);
        }
    }

    /// Number of unfinished tasks.
    pub(crate) fn tasks(&self) -> usize {
        self.tasks.borrow().len()
    }

    /// Lets the other tasks of the queue, the other queues and the core's loop in.
    pub(crate) async fn yield_now(&self) {
        match &self.host {
            Host::Glommio(_) => glommio::executor().yield_task_queue_now().await,
            Host::Own(_) => futures_lite::future::yield_now().await,
        }
    }

    /// Resolves after any task was polled (or wound up).
    pub(crate) async fn after_next_poll(&self) {
        let mut armed = false;
        poll_fn(|cx| {
            if armed {
                return Poll::Ready(());
            }
            armed = true;
            *self.after_poll.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// The run queues of a host that polls tasks itself.
    pub(crate) fn run_queues(&self) -> &RefCell<RunQueues> {
        match &self.host {
            Host::Own(queues) => queues,
            Host::Glommio(_) => unreachable!("glommio has queues of its own"),
        }
    }

    /// Drops the futures of all tasks, also of those that are spawned meanwhile. No task
    /// runs after it.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        loop {
            // Dropping a future may wake and drop others: hold no borrow meanwhile.
            let next = self.tasks.borrow().iter().next().map(|(_, t)| t.clone());
            let Some(task) = next else { break };
            task.cancel();
        }
        if let Host::Own(queues) = &self.host {
            queues.borrow_mut().clear();
        }
        assert_eq!(self.runnable.get(), 0, "a dropped task counts no more");
    }

    /// Futures in glommio's queues that still refer to tasks.
    pub(crate) fn adopted(&self) -> usize {
        match &self.host {
            Host::Glommio(host) => host.adopted(),
            Host::Own(_) => 0,
        }
    }

    /// A task became runnable (`task::wake`).
    fn on_woken(&self, task: &Arc<Task>) {
        self.count_runnable(task.queue());
        match &self.host {
            Host::Glommio(_) => task.wake_host(),
            Host::Own(queues) => queues.borrow_mut().push(task.queue(), task.clone()),
        }
    }

    /// A runnable task is about to be polled, or was dropped.
    fn on_taken(&self, queue: Queue) {
        let less = |count: &Cell<usize>| {
            let left = count.get().checked_sub(1);
            count.set(left.expect("only a counted task is taken"));
        };
        less(&self.runnable);
        if queue == Queue::Request {
            less(&self.runnable_requests);
        }
    }

    fn on_polled(&self) {
        let waiting = self.after_poll.borrow_mut().take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    fn on_finished(&self, key: usize) {
        self.tasks.borrow_mut().remove(key);
    }
}
