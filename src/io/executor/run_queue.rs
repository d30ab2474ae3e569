//! Run queues of our own: for cores without glommio and for the simulation.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use super::Queue;
use super::task::Task;
use crate::base::Rng;

/// One FIFO for each [`Queue`], with the time that it has used.
pub(crate) struct RunQueues {
    queues: [RunQueue; Queue::ALL.len()],
}

#[derive(Default)]
struct RunQueue {
    tasks: VecDeque<Arc<Task>>,
    /// Time used, in nanoseconds of a queue of 1,000 shares: the queue that is behind goes
    /// first.
    spent: u64,
}

/// How much time an idle queue saves up, in the unit of `spent`: 1 ms of the requests'.
const CREDIT_MAX: u64 = 1_000_000;

impl RunQueues {
    pub(crate) fn new() -> RunQueues {
        RunQueues {
            queues: Default::default(),
        }
    }

    pub(super) fn push(&mut self, queue: Queue, task: Arc<Task>) {
        if self.queues[queue.index()].tasks.is_empty() {
            // A queue that had nothing to do saves up no more than a little: enough for
            // tasks that wake each other in turn not to lose their place each time.
            let others = self.queues.iter().filter(|other| !other.tasks.is_empty());
            if let Some(first) = others.map(|other| other.spent).min() {
                let spent = &mut self.queues[queue.index()].spent;
                *spent = first.saturating_sub(CREDIT_MAX).max(*spent);
            }
        }
        self.queues[queue.index()].tasks.push_back(task);
    }

    /// The queue whose turn it is by shares, with the number of its tasks.
    pub(crate) fn choose(&self) -> Option<(Queue, usize)> {
        Queue::ALL
            .into_iter()
            .map(|queue| (queue, &self.queues[queue.index()]))
            .filter(|(_, run)| !run.tasks.is_empty())
            .min_by_key(|(_, run)| run.spent)
            .map(|(queue, run)| (queue, run.tasks.len()))
    }

    /// Books the time that tasks of a queue took.
    pub(crate) fn account(&mut self, queue: Queue, nanos: u64) {
        let scaled = nanos.saturating_mul(1_000) / queue.shares() as u64;
        let spent = &mut self.queues[queue.index()].spent;
        *spent = spent.saturating_add(scaled.max(1));
    }

    pub(crate) fn pop(&mut self, queue: Queue) -> Option<RunnableTask> {
        self.queues[queue.index()]
            .tasks
            .pop_front()
            .map(RunnableTask)
    }

    /// Any runnable task, chosen by `rng`.
    pub(crate) fn pop_any(&mut self, rng: &mut Rng) -> Option<RunnableTask> {
        let total: usize = self.queues.iter().map(|queue| queue.tasks.len()).sum();
        let mut nth = usize::try_from(rng.below(total as u64)).expect("below a usize");
        for queue in &mut self.queues {
            match nth.checked_sub(queue.tasks.len()) {
                Some(rest) => nth = rest,
                None => return queue.tasks.remove(nth).map(RunnableTask),
            }
        }
        None
    }

    pub(super) fn clear(&mut self) {
        for queue in &mut self.queues {
            queue.tasks.clear();
        }
    }
}

/// A task that was taken from its queue to be polled.
pub(crate) struct RunnableTask(Arc<Task>);

impl RunnableTask {
    /// Number of the task among the unfinished ones of its core.
    pub(crate) fn key(&self) -> usize {
        self.0.key()
    }

    pub(crate) fn run(self) {
        let waker = Waker::from(self.0.clone());
        // Whether it is ready concerns nobody: a finished task has left the table.
        let _ = self.0.run(&waker);
    }
}
