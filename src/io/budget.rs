//! How long a loop may go on before it lets others in: 500 µs of the core's time.
//!
//! Called by loops whose length depends on data: retention, loading. Belongs to one core.
//!
//! Invariants: what counts is the thread's own CPU time, so that a core that was robbed of
//! its CPU doesn't yield for nothing; its clock is a system call and is read only when the
//! wall clock says that the budget may be spent. In a simulation no time passes while a task
//! runs: there every look finds the budget spent, so that every place that may yield does.

use std::cell::Cell;
use std::time::Duration;

use super::Rt;
use super::blocked::BUDGET;
use crate::base::Nanos;

/// A loop's budget, begun by `Rt::budget`.
pub struct Budget {
    rt: Rt,
    cpu_at_start: Cell<Duration>,
    /// Before this the budget can't be spent.
    look_at: Cell<Nanos>,
}

impl Budget {
    pub(super) fn new(rt: Rt) -> Budget {
        let budget = Budget {
            rt,
            cpu_at_start: Cell::new(Duration::ZERO),
            look_at: Cell::new(Nanos(0)),
        };
        budget.restart();
        budget
    }

    /// Whether it is time to let others in.
    pub fn spent(&self) -> bool {
        if self.rt.is_simulated() {
            return true;
        }
        let now = self.rt.now();
        if now < self.look_at.get() {
            return false;
        }
        let used = thread_cpu().saturating_sub(self.cpu_at_start.get());
        if let Some(left) = BUDGET.checked_sub(used).filter(|left| !left.is_zero()) {
            self.look_at.set(now + left);
            return false;
        }
        true
    }

    /// Lets others in if it is time to, and begins a new budget then.
    pub async fn breathe(&self) {
        if self.spent() {
            self.rt.yield_now().await;
            self.restart();
        }
    }

    fn restart(&self) {
        if !self.rt.is_simulated() {
            self.cpu_at_start.set(thread_cpu());
            self.look_at.set(self.rt.now() + BUDGET);
        }
    }
}

/// CPU time of the calling thread.
fn thread_cpu() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes to a live timespec; it can't fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::base::CoreId;
    use crate::io::local::{Notify, channel};
    use crate::io::{Backend, CoreConfig, Queue, run_core};

    #[test]
    fn a_budget_is_spent_by_work_and_not_by_sleep() {
        let core = run_core(CoreConfig::new(CoreId(0)), |rt| async move {
            let budget = rt.budget();
            std::thread::sleep(4 * BUDGET);
            let after_sleep = thread_cpu().saturating_sub(budget.cpu_at_start.get());
            assert_eq!(budget.spent(), after_sleep >= BUDGET);
            while thread_cpu().saturating_sub(budget.cpu_at_start.get()) < BUDGET {}
            assert!(budget.spent());
            budget.breathe().await;
            let left = thread_cpu().saturating_sub(budget.cpu_at_start.get());
            assert!(left < BUDGET);
        });
        core.unwrap().join();
    }

    /// Work that never ends delays a request by two of its slices at most. Counted in
    /// slices, because the machine may take the CPU away at any time; the shares are
    /// reckoned by the wall clock, so a few requests are unlucky for the same reason.
    #[test]
    fn background_work_delays_a_request_by_two_budgets_at_most() {
        const REQUESTS: u64 = 200;
        for backend in [Backend::Ring, Backend::Bare] {
            let config = CoreConfig {
                backend,
                ..CoreConfig::new(CoreId(0))
            };
            let core = run_core(config, |rt| async move {
                let slices = Rc::new(Cell::new(0u64));
                let request = Rc::new(Notify::new());
                let (tell, mut delays) = channel(4);
                let (handler, rung, at) = (rt.clone(), request.clone(), slices.clone());
                let asked = Rc::new(Cell::new(0u64));
                let asked_at = asked.clone();
                handler.spawn(Queue::Request, async move {
                    loop {
                        rung.notified().await;
                        tell.send(at.get() - asked_at.get()).await.unwrap();
                    }
                });
                let worker = rt.clone();
                rt.spawn(Queue::Background, async move {
                    let budget = worker.budget();
                    loop {
                        while !budget.spent() {}
                        slices.set(slices.get() + 1);
                        if slices.get().is_multiple_of(5) {
                            asked.set(slices.get());
                            request.notify_one();
                        }
                        budget.breathe().await;
                    }
                });
                let mut late = 0;
                for _ in 0..REQUESTS {
                    late += u64::from(delays.recv().await.unwrap() > 2);
                }
                late
            });
            let late = core.unwrap().join();
            assert!(late <= REQUESTS / 20, "{late} on {backend:?}");
        }
    }
}
