//! glommio as the host of tasks: its run loop and its task queues with shares, nothing
//! else of it. The settings are those that were proven; see `driver` for the loop.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use glommio::{Latency, LocalExecutor, LocalExecutorBuilder, Placement, Shares, TaskQueueHandle};

use super::Queue;
use super::task::Task;

/// glommio's preemption is not used: tasks yield by themselves. A short timer makes its
/// executor park with runnable tasks.
const PREEMPT_TIMER: Duration = Duration::from_secs(3_600);
/// Buffers for file I/O, which isn't used either.
const IO_MEMORY_BYTES: usize = 64 << 10;

/// An executor on the calling thread, which has been pinned where it is to be.
pub(crate) fn make_executor(name: &str) -> Result<LocalExecutor, glommio::GlommioError<()>> {
    LocalExecutorBuilder::new(Placement::Unbound)
        .name(name)
        .io_memory(IO_MEMORY_BYTES)
        .preempt_timer(PREEMPT_TIMER)
        .make()
}

pub(crate) struct GlommioHost {
    queues: [TaskQueueHandle; Queue::ALL.len()],
    adopted: Rc<Cell<usize>>,
}

impl GlommioHost {
    /// To be called inside the executor, from its default queue: that one becomes the
    /// request queue, so that the core's loop runs among the requests.
    pub(crate) fn new() -> GlommioHost {
        let queues = Queue::ALL.map(|queue| match queue {
            Queue::Request => TaskQueueHandle::default(),
            // A queue whose latency matters hangs the executor; none does.
            _ => glommio::executor().create_task_queue(
                Shares::Static(queue.shares()),
                Latency::NotImportant,
                &format!("{queue:?}").to_lowercase(),
            ),
        });
        GlommioHost {
            queues,
            adopted: Rc::new(Cell::new(0)),
        }
    }

    pub(super) fn adopt(&self, queue: Queue, task: Arc<Task>) {
        self.adopted.set(self.adopted.get() + 1);
        let polled = Adopted {
            waker: Waker::from(task.clone()),
            task,
            adopted: self.adopted.clone(),
        };
        glommio::spawn_local_into(polled, self.queues[queue.index()])
            .expect("queues are never removed")
            .detach();
    }

    pub(super) fn adopted(&self) -> usize {
        self.adopted.get()
    }
}

/// The future that glommio sees.
struct Adopted {
    task: Arc<Task>,
    waker: Waker,
    adopted: Rc<Cell<usize>>,
}

impl Future for Adopted {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // glommio's own waker is cloned once a task: its count has 16 bits.
        self.task.set_host_waker(cx.waker());
        self.task.run(&self.waker)
    }
}

impl Drop for Adopted {
    fn drop(&mut self) {
        self.adopted.set(self.adopted.get() - 1);
    }
}
