//! A core's life: its thread, its loop and its end.
//!
//! ```text
//! loop    turn (driver, sleeps, mesh) → let tasks run → turn …
//!         nothing came and nothing is runnable → spin if that pays → park in the ring
//! end     main is ready → drop all tasks → cancel and await the kernel → close the ring
//! ```
//! Called by `node` (and tests). On glommio the loop is one never-ending task among the
//! requests; bare, it owns the thread.
//!
//! Invariants: a core parks only with no runnable task; a panic anywhere on a core's thread
//! aborts the process, because a core that died among live ones would be routed to for ever.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use super::config::{Backend, CoreConfig, StartError, ring_error};
use super::driver::{Bell, Driver};
use super::executor::{Executor, GlommioHost, Host, Queue, RunQueues, make_executor};
use super::memlock::check_memlock;
use super::net::SendPaths;
use super::rt::{Rt, Stopper};
use super::sentinel::{self, Watch};
use super::spin::Spin;
use crate::base::{CoreId, Nanos};

/// A running core.
#[derive(Debug)]
pub struct CoreHandle<T> {
    core: CoreId,
    stopper: Stopper,
    thread: thread::JoinHandle<Option<T>>,
}

impl<T> CoreHandle<T> {
    pub fn core(&self) -> CoreId {
        self.core
    }

    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Waits until the core has ended; returns what its main future did.
    pub fn join(self) -> T {
        self.thread
            .join()
            .ok()
            .flatten()
            .expect("a core that has started returns or aborts")
    }
}

/// Starts an event loop on a thread of its own and runs `main` on it. It returns once the
/// loop stands, or says why it can't. The core ends when `main`'s future is ready.
pub fn run_core<T, F, Fut>(config: CoreConfig, main: F) -> Result<CoreHandle<T>, StartError>
where
    F: FnOnce(Rt) -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    check_memlock(1, config.backend)?;
    let core = config.core;
    let backend = config.backend;
    let bell = Bell::new().map_err(|error| ring_error(error, backend))?;
    let bell = Arc::new(bell);
    let stopper = Stopper(bell.clone());
    let (started, start) = std::sync::mpsc::sync_channel(1);
    let thread = thread::Builder::new()
        .name(config.name.clone())
        .spawn(move || {
            let guard = AbortOnUnwind;
            let output = core_thread(config, bell, main, &started);
            std::mem::forget(guard);
            match output {
                Ok(output) => Some(output),
                Err(error) => {
                    // The starter waits for it.
                    let _ = started.send(Err(error));
                    None
                }
            }
        })
        .map_err(StartError::Thread)?;
    match start.recv() {
        Ok(Ok(())) => Ok(CoreHandle {
            core,
            stopper,
            thread,
        }),
        Ok(Err(error)) => {
            // It has nothing left to do but to return.
            let _ = thread.join();
            Err(error)
        }
        Err(_) => unreachable!("the thread reports before it ends"),
    }
}

type Started = SyncSender<Result<(), StartError>>;

fn core_thread<T, F, Fut>(
    config: CoreConfig,
    bell: Arc<Bell>,
    main: F,
    started: &Started,
) -> Result<T, StartError>
where
    F: FnOnce(Rt) -> Fut,
    Fut: Future<Output = T> + 'static,
    T: 'static,
{
    if let Some(cpu) = config.cpu {
        pin_to(cpu)?;
    }
    match config.backend {
        Backend::Ring => {
            let executor = with_patience(|| make_executor(&config.name).map_err(executor_error))?;
            executor.run(async move {
                let host = Host::Glommio(GlommioHost::new());
                let core = Core::new(&config, bell, host)?;
                // The receiver waits in `run_core`.
                let _ = started.send(Ok(()));
                Ok(core.run_on_glommio(main).await)
            })
        }
        Backend::Bare => {
            let host = Host::Own(RefCell::new(RunQueues::new()));
            let core = Core::new(&config, bell, host)?;
            let _ = started.send(Ok(()));
            Ok(core.run_bare(main))
        }
    }
}

struct Core {
    rt: Rt,
    spin: Spin,
    watch: Watch,
}

impl Core {
    fn new(config: &CoreConfig, bell: Arc<Bell>, host: Host) -> Result<Core, StartError> {
        let driver = with_patience(|| {
            Driver::new(bell.clone(), config.recv_buffers, config.recv_buffer_bytes)
                .map_err(|error| ring_error(error, config.backend))
        })?;
        let seed = getrandom::u64()
            .map_err(|error| StartError::Executor(format!("no random seed: {error}")))?;
        let executor = Executor::new(host);
        let watch = sentinel::watch(config.core, bell.clone()).map_err(StartError::Thread)?;
        Ok(Core {
            rt: Rt::real(
                config.core,
                executor,
                Rc::new(driver),
                bell,
                seed,
                SendPaths::new(config.fetch_path),
            ),
            spin: Spin::new(config.spin_mode, config.spin),
            watch,
        })
    }

    async fn run_on_glommio<T, F, Fut>(self, main: F) -> T
    where
        F: FnOnce(Rt) -> Fut,
        Fut: Future<Output = T> + 'static,
        T: 'static,
    {
        let main = Main::start(&self.rt, main);
        let executor = self.rt.executor().clone();
        while !main.is_done() {
            if self.rt.turn() > 0 {
                executor.yield_now().await;
            } else if executor.runnable() > 0 {
                // Polling on would use up the requests' share: come back after a task.
                executor.after_next_poll().await;
            } else if self.idle() > 0 {
                executor.yield_now().await;
            }
        }
        drop(self.watch);
        self.rt.close();
        while executor.adopted() > 0 {
            executor.yield_now().await;
        }
        self.rt.drain();
        main.into_output()
    }

    fn run_bare<T, F, Fut>(self, main: F) -> T
    where
        F: FnOnce(Rt) -> Fut,
        Fut: Future<Output = T> + 'static,
        T: 'static,
    {
        let main = Main::start(&self.rt, main);
        while !main.is_done() {
            let came = self.rt.turn();
            let ran = self.run_batch();
            if came == 0 && ran == 0 {
                self.idle();
            }
        }
        drop(self.watch);
        self.rt.close();
        self.rt.drain();
        main.into_output()
    }

    /// Runs the tasks that stand in the queue whose turn it is; returns how many.
    fn run_batch(&self) -> usize {
        let queues = self.rt.executor().run_queues();
        let Some((queue, count)) = queues.borrow().choose() else {
            return 0;
        };
        let start = self.rt.now();
        for _ in 0..count {
            let Some(task) = queues.borrow_mut().pop(queue) else {
                break;
            };
            task.run();
        }
        let spent = self.rt.now().saturating_since(start);
        let nanos = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
        queues.borrow_mut().account(queue, nanos);
        count
    }

    /// Nothing to do: spins where that has paid, then sleeps. Nothing can become runnable
    /// meanwhile but through what a turn finds. Returns how much came.
    fn idle(&self) -> usize {
        let start = self.rt.now();
        let came = self.spin_or_park(start);
        self.spin.waited(self.rt.now().saturating_since(start));
        came
    }

    fn spin_or_park(&self, start: Nanos) -> usize {
        if let Some(time) = self.spin.duration()
            && self.rt.spin_until(start + time)
        {
            // The kernel's sign of pending work may be stale; then it is time to sleep.
            let came = self.rt.turn();
            if came > 0 {
                return came;
            }
        }
        self.rt.park()
    }
}

/// The main future of a core, run as a task.
struct Main<T>(Rc<RefCell<Option<T>>>, Rc<Cell<bool>>);

impl<T: 'static> Main<T> {
    fn start<F, Fut>(rt: &Rt, main: F) -> Main<T>
    where
        F: FnOnce(Rt) -> Fut,
        Fut: Future<Output = T> + 'static,
    {
        let output = Rc::new(RefCell::new(None));
        let done = Rc::new(Cell::new(false));
        let future = main(rt.clone());
        let (slot, flag) = (output.clone(), done.clone());
        rt.spawn(Queue::Request, async move {
            let value = future.await;
            *slot.borrow_mut() = Some(value);
            flag.set(true);
        });
        Main(output, done)
    }

    fn is_done(&self) -> bool {
        self.1.get()
    }

    fn into_output(self) -> T {
        self.0.take().expect("the main future is done")
    }
}

/// Attempts at something that lacks memory, and the pause between them. While the page
/// cache fills the memory, the kernel may refuse a ring that it grants a moment later; and
/// it frees the rings of a process that has ended with some delay.
const ATTEMPTS_MAX: u32 = 20;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(20);

pub(super) fn with_patience<T>(
    mut attempt: impl FnMut() -> Result<T, StartError>,
) -> Result<T, StartError> {
    let mut attempts = 1;
    loop {
        match attempt() {
            Err(StartError::MemlockUsedUp { .. } | StartError::Memory)
                if attempts < ATTEMPTS_MAX =>
            {
                attempts += 1;
                thread::sleep(ATTEMPT_PAUSE);
            }
            result => return result,
        }
    }
}

fn pin_to(cpu: usize) -> Result<(), StartError> {
    use nix::sched::{CpuSet, sched_setaffinity};
    let affinity = |error: nix::Error| StartError::Affinity {
        cpu,
        source: error.into(),
    };
    let mut set = CpuSet::new();
    set.set(cpu).map_err(affinity)?;
    sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).map_err(affinity)
}

fn executor_error(error: glommio::GlommioError<()>) -> StartError {
    match error {
        glommio::GlommioError::IoError(error) => ring_error(error, Backend::Ring),
        error => StartError::Executor(error.to_string()),
    }
}

/// Aborts when it is dropped by unwinding.
pub(super) struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}
