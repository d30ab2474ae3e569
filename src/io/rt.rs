//! `Rt`: the handle by which everything on a core reaches the executor, the clock, the
//! network and the disk. Cheap to clone, bound to its core's thread.
//!
//! A core is either real (a [`Driver`]) or simulated (a [`SimCore`]); only this file,
//! `Listener` and `Stream` know which.

use std::cell::{Cell, RefCell, RefMut};
use std::ffi::CString;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use io_uring::{opcode, types};

use super::blocked::{BlockedCalls, BlockedTable};
use super::budget::Budget;
use super::cold::{self, Missing};
use super::driver::{Bell, Driver, DriverStats, Keep};
use super::executor::{Executor, Queue, SlowPolls};
use super::local::Notify;
use super::net::{self, DetachedStream, ListenOptions, Listener, SendPaths, SendStats, Stream};
use super::seam::SimCore;
use super::timers::{Sleep, Timers};
use super::{Disk, File, RealDisk};
use crate::base::{CoreId, Millis, Nanos, Rng};

/// Reads that one lookup may have fetched before it waits for the rest.
const FETCHES_MAX: usize = 64;
/// One fetch reads at most so much.
const FETCH_BYTES_MAX: usize = 1 << 20;

/// A core's runtime. Not `Send`: it stays on its core.
#[derive(Clone)]
pub struct Rt(Rc<Inner>);

struct Inner {
    core: CoreId,
    executor: Rc<Executor>,
    timers: Timers,
    rng: RefCell<Rng>,
    /// What else is to be looked at each turn: the mesh.
    pollers: RefCell<Vec<Rc<dyn Poller>>>,
    bell: Arc<Bell>,
    stopping: Notify,
    stop_told: Cell<bool>,
    accept_errors: Cell<u64>,
    reads_fetched: Cell<u64>,
    machine: Machine,
}

enum Machine {
    Real {
        driver: Rc<Driver>,
        disk: Rc<dyn Disk>,
        blocked: Rc<BlockedTable>,
        send_paths: SendPaths,
    },
    Sim(Rc<dyn SimCore>),
}

/// Something that receives from other cores and is drained by the core's loop.
pub(crate) trait Poller {
    /// Takes what has come and wakes whom it concerns; returns how much it was.
    fn poll(&self) -> usize;
    /// Whether `poll` would find something.
    fn has_work(&self) -> bool;
    /// The core ends: nothing will be polled again.
    fn close(&self);
}

/// Counters of a core, from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoStats {
    pub driver: DriverStats,
    pub send: SendStats,
    /// Failed accepts that were retried.
    pub accept_errors: u64,
    /// Unfinished tasks at the moment.
    pub tasks: u64,
    /// Polls of tasks that took over 500 µs, by [`Queue`].
    pub slow_polls: [SlowPolls; Queue::ALL.len()],
    /// File calls that held the core for over 500 µs; see `Rt::blocked_calls`.
    pub blocked_calls: u64,
    /// Reads that found their bytes on the disk only, which were fetched without holding
    /// the core.
    pub reads_fetched: u64,
    /// Times that the sentinel found the core silent with work to do.
    pub silences: u64,
    /// Those of them in which the core slept, and was rung.
    pub rescues: u64,
}

/// Asks a core to stop, from any thread.
#[derive(Clone, Debug)]
pub struct Stopper(pub(super) Arc<Bell>);

impl Stopper {
    /// Makes `Rt::stopping` resolve on the core. It may be called in a signal handler.
    pub fn stop(&self) {
        self.0.stop();
    }
}

impl Rt {
    pub fn core(&self) -> CoreId {
        self.0.core
    }

    /// The monotonic clock, the same on all cores of a process.
    pub fn now(&self) -> Nanos {
        match &self.0.machine {
            Machine::Real { .. } => real_now(),
            Machine::Sim(sim) => sim.now(),
        }
    }

    /// As [`Rt::now`] within a poll of a task, and cheaper: the stages of requests are measured
    /// by it.
    pub fn stamp(&self) -> Nanos {
        match &self.0.machine {
            Machine::Real { .. } => self.0.executor.stamps().stamp(),
            Machine::Sim(sim) => sim.now(),
        }
    }

    /// What [`Rt::stamp`] said last within this poll of a task, or when the poll began.
    pub fn last_stamp(&self) -> Nanos {
        match &self.0.machine {
            Machine::Real { .. } => self.0.executor.stamps().last(),
            Machine::Sim(sim) => sim.now(),
        }
    }

    /// The wall clock; it may jump.
    pub fn wall_ms(&self) -> Millis {
        match &self.0.machine {
            Machine::Real { .. } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH);
                since.map_or(0, |since| {
                    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
                })
            }
            Machine::Sim(sim) => sim.wall_ms(),
        }
    }

    /// The core's random source, to be borrowed for a moment.
    pub fn rng(&self) -> RefMut<'_, Rng> {
        self.0.rng.borrow_mut()
    }

    pub fn random_u64(&self) -> u64 {
        self.rng().next_u64()
    }

    /// Starts a task. It runs until it is ready or the core ends; nobody is told.
    pub fn spawn(&self, queue: Queue, future: impl Future<Output = ()> + 'static) {
        self.0.executor.spawn(queue, future);
    }

    /// Lets other tasks, other queues and the driver in; to be called in loops that
    /// could hold the core for longer than 500 µs.
    pub async fn yield_now(&self) {
        self.0.executor.yield_now().await;
    }

    /// Begins the 500 µs that a loop may go on before it lets others in.
    pub fn budget(&self) -> Budget {
        Budget::new(self.clone())
    }

    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.now() + duration)
    }

    pub fn sleep_until(&self, at: Nanos) -> Sleep {
        Sleep::new(self.clone(), at)
    }

    pub fn disk(&self) -> Rc<dyn Disk> {
        match &self.0.machine {
            Machine::Real { disk, .. } => disk.clone(),
            Machine::Sim(sim) => sim.disk(),
        }
    }

    /// What a call gives that looks something up in files, if all that it reads of them is in
    /// memory; `None` means that it was refused a read, and must have changed nothing.
    pub fn if_cached<T>(&self, call: impl FnOnce() -> T) -> Option<T> {
        match &self.0.machine {
            Machine::Real { .. } => cold::refusing(call).ok(),
            Machine::Sim(_) => Some(call()),
        }
    }

    /// As [`if_cached`](Self::if_cached), but fetches what isn't in memory, without holding
    /// the core, and calls again.
    pub async fn without_waiting<T>(&self, mut call: impl FnMut() -> T) -> T {
        let Machine::Real { driver, .. } = &self.0.machine else {
            return call();
        };
        for _ in 0..FETCHES_MAX {
            match cold::refusing(&mut call) {
                Ok(result) => return result,
                Err(missing) => self.fetch(driver, missing).await,
            }
        }
        // Memory is too short to keep what was fetched, or the file system can't tell.
        call()
    }

    /// Has the kernel read a range into the page cache. An error shows when it is read again.
    async fn fetch(&self, driver: &Rc<Driver>, missing: Missing) {
        self.0.reads_fetched.set(self.0.reads_fetched.get() + 1);
        let len = missing.len.min(FETCH_BYTES_MAX);
        let mut buffer = vec![0; len].into_boxed_slice();
        let entry = opcode::Read::new(
            types::Fd(missing.file.as_raw_fd()),
            buffer.as_mut_ptr(),
            u32::try_from(len).expect("at most FETCH_BYTES_MAX"),
        )
        .offset(missing.position)
        .build();
        let keep = Keep::Fetch {
            _file: missing.file,
            _buffer: buffer,
        };
        // SAFETY: the entry names the file and points into the buffer; both are kept.
        unsafe { driver.once(entry, keep, true) }.await;
    }

    /// Makes a file's contents durable without blocking the core: everything written
    /// before the call. An error is final for the file (the kernel has dropped the pages).
    pub async fn sync(&self, file: &Arc<dyn File>) -> io::Result<()> {
        let driver = match &self.0.machine {
            Machine::Real { driver, .. } => driver,
            Machine::Sim(sim) => return sim.sync(file).await,
        };
        let Some(fd) = file.raw_fd() else {
            return file.sync_data();
        };
        let entry = opcode::Fsync::new(types::Fd(fd))
            .flags(types::FsyncFlags::DATASYNC)
            .build();
        let keep = Keep::File {
            _file: file.clone(),
        };
        // SAFETY: the entry names the file's descriptor, which the kept file owns.
        let result = unsafe { driver.once(entry, keep, false) }.await;
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result));
        }
        Ok(())
    }

    /// Removes a file without holding the core: for a large one the file system takes its time.
    pub async fn remove_file(&self, path: &Path) -> io::Result<()> {
        match &self.0.machine {
            Machine::Real { driver, .. } => self.unlink(driver, path, 0).await,
            Machine::Sim(sim) => sim.disk().remove_file(path),
        }
    }

    /// Removes a directory and the files in it likewise; nothing where there is none. It has
    /// no directories in it, as those of partitions.
    pub async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let Machine::Real { driver, .. } = &self.0.machine else {
            return match self.disk().exists(path)? {
                true => self.disk().remove_dir_all(path),
                false => Ok(()),
            };
        };
        let names = match std::fs::read_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            names => names?,
        };
        for name in names {
            self.unlink(driver, &name?.path(), 0).await?;
        }
        self.unlink(driver, path, libc::AT_REMOVEDIR).await
    }

    async fn unlink(&self, driver: &Rc<Driver>, path: &Path, flags: i32) -> io::Result<()> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let entry = opcode::UnlinkAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr())
            .flags(flags)
            .build();
        let keep = Keep::Path { _path: path };
        // SAFETY: the entry points to the path's bytes, which are on the heap and are kept.
        let result = unsafe { driver.once(entry, keep, false) }.await;
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result));
        }
        Ok(())
    }

    /// Listens with the default options.
    pub fn listen(&self, at: SocketAddr) -> io::Result<Listener> {
        self.listen_with(at, &ListenOptions::default())
    }

    pub fn listen_with(&self, at: SocketAddr, options: &ListenOptions) -> io::Result<Listener> {
        match &self.0.machine {
            Machine::Real { driver, .. } => net::listen(self, driver, at, options),
            Machine::Sim(sim) => Ok(Listener::simulated(sim.listen(at, options)?)),
        }
    }

    /// Opens a connection. It waits as long as the system does; see `local::or_deadline`.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<Stream> {
        match &self.0.machine {
            Machine::Real { driver, .. } => net::connect(self, driver, to).await,
            Machine::Sim(sim) => Ok(Stream::simulated(sim.connect(to).await?)),
        }
    }

    /// Takes over a connection that another core has detached.
    pub fn attach(&self, detached: DetachedStream) -> Stream {
        match &self.0.machine {
            Machine::Real { driver, .. } => net::attach(self, driver, detached),
            Machine::Sim(sim) => Stream::simulated(sim.attach(detached.into_simulated())),
        }
    }

    /// Asks this core to stop.
    pub fn stop(&self) {
        self.0.bell.stop();
        self.tell_stop();
    }

    pub fn is_stopping(&self) -> bool {
        self.0.bell.is_stopping()
    }

    /// Resolves once the core was asked to stop. It ends when its main future is ready,
    /// not before: winding up is the main future's business.
    pub async fn stopping(&self) {
        while !self.is_stopping() {
            self.0.stopping.notified().await;
        }
    }

    pub fn stopper(&self) -> Stopper {
        Stopper(self.0.bell.clone())
    }

    pub fn stats(&self) -> IoStats {
        IoStats {
            driver: match &self.0.machine {
                Machine::Real { driver, .. } => driver.stats(),
                Machine::Sim(_) => DriverStats::default(),
            },
            send: match &self.0.machine {
                Machine::Real { send_paths, .. } => send_paths.stats(),
                Machine::Sim(_) => SendStats::default(),
            },
            accept_errors: self.0.accept_errors.get(),
            tasks: self.0.executor.tasks() as u64,
            slow_polls: self.0.executor.slow_polls(),
            blocked_calls: match &self.0.machine {
                Machine::Real { blocked, .. } => blocked.count(),
                Machine::Sim(_) => 0,
            },
            reads_fetched: self.0.reads_fetched.get(),
            silences: self.0.bell.heart().silences(),
            rescues: self.0.bell.heart().rescues(),
        }
    }

    /// File calls that held the core for over 500 µs, by directory and operation.
    pub fn blocked_calls(&self) -> Vec<BlockedCalls> {
        match &self.0.machine {
            Machine::Real { blocked, .. } => blocked.snapshot(),
            Machine::Sim(_) => Vec::new(),
        }
    }
}

/// What the mesh and `net` use.
impl Rt {
    pub(crate) fn add_poller(&self, poller: Rc<dyn Poller>) {
        self.0.pollers.borrow_mut().push(poller);
    }

    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.0.bell
    }

    /// Wakes another core if it sleeps; what it is to find must have been pushed before.
    pub(crate) fn ring_bell(&self, other: &Bell) {
        match &self.0.machine {
            Machine::Real { driver, .. } => driver.ring_bell(other),
            // The simulation looks at all cores' pollers before it lets time pass.
            Machine::Sim(_) => {}
        }
    }

    pub(super) fn is_simulated(&self) -> bool {
        matches!(self.0.machine, Machine::Sim(_))
    }

    pub(super) fn send_paths(&self) -> &SendPaths {
        match &self.0.machine {
            Machine::Real { send_paths, .. } => send_paths,
            Machine::Sim(_) => unreachable!("simulated streams send by themselves"),
        }
    }

    pub(super) fn timers(&self) -> &Timers {
        &self.0.timers
    }

    pub(super) fn count_accept_error(&self) {
        self.0.accept_errors.set(self.0.accept_errors.get() + 1);
    }
}

/// What the core's loop uses.
impl Rt {
    pub(super) fn real(
        core: CoreId,
        executor: Rc<Executor>,
        driver: Rc<Driver>,
        bell: Arc<Bell>,
        seed: u64,
        send_paths: SendPaths,
    ) -> Rt {
        executor.time_polls();
        let blocked = BlockedTable::install(bell.clone());
        let machine = Machine::Real {
            driver,
            disk: Rc::new(RealDisk),
            blocked,
            send_paths,
        };
        Rt::new(core, executor, bell, seed, machine)
    }

    pub(crate) fn simulated(
        core: CoreId,
        executor: Rc<Executor>,
        seed: u64,
        sim: Rc<dyn SimCore>,
    ) -> Rt {
        let bell = Arc::new(Bell::without_ring());
        Rt::new(core, executor, bell, seed, Machine::Sim(sim))
    }

    fn new(
        core: CoreId,
        executor: Rc<Executor>,
        bell: Arc<Bell>,
        seed: u64,
        machine: Machine,
    ) -> Rt {
        let now = match &machine {
            Machine::Real { .. } => real_now(),
            Machine::Sim(sim) => sim.now(),
        };
        Rt(Rc::new(Inner {
            core,
            executor,
            timers: Timers::new(now),
            rng: RefCell::new(Rng::new(seed)),
            pollers: RefCell::new(Vec::new()),
            bell,
            stopping: Notify::new(),
            stop_told: Cell::new(false),
            accept_errors: Cell::new(0),
            reads_fetched: Cell::new(0),
            machine,
        }))
    }

    pub(crate) fn executor(&self) -> &Rc<Executor> {
        &self.0.executor
    }

    /// One turn: completions, sleeps, other cores, a stop. Returns how much came.
    pub(crate) fn turn(&self) -> usize {
        let completions = match &self.0.machine {
            Machine::Real { driver, .. } => {
                self.0.bell.heart().beat();
                driver.turn(self.0.executor.runnable_requests() > 0)
            }
            Machine::Sim(_) => 0,
        };
        completions + self.turn_rest()
    }

    fn turn_rest(&self) -> usize {
        let mut count = 0;
        if self.0.timers.next_deadline().is_some() {
            count += self.0.timers.expire(self.now());
        }
        count += self
            .0
            .pollers
            .borrow()
            .iter()
            .map(|p| p.poll())
            .sum::<usize>();
        count + usize::from(self.tell_stop())
    }

    /// When the core's loop must come back by itself.
    pub(crate) fn next_deadline(&self) -> Option<Nanos> {
        self.0.timers.next_deadline()
    }

    /// Whether a turn would find something that doesn't come through the ring.
    pub(crate) fn has_work(&self) -> bool {
        (self.is_stopping() && !self.0.stop_told.get())
            || self.0.pollers.borrow().iter().any(|p| p.has_work())
    }

    /// Looks for work, at most until `end`, without a system call.
    pub(super) fn spin_until(&self, end: Nanos) -> bool {
        let driver = self.driver();
        let end = self.next_deadline().map_or(end, |at| at.min(end));
        while self.now() < end {
            for _ in 0..SPINS_PER_LOOK_AT_CLOCK {
                if driver.is_pending() || self.has_work() {
                    return true;
                }
                std::hint::spin_loop();
            }
        }
        self.next_deadline().is_some_and(|at| at <= end)
    }

    /// Sleeps until something comes or the next sleep ends; returns how much came.
    pub(super) fn park(&self) -> usize {
        let deadline = self.next_deadline();
        let timeout = deadline.map(|at| at - self.now());
        let driver = self.driver();
        if timeout == Some(Duration::ZERO) {
            return self.turn();
        }
        let heart = self.0.bell.heart();
        heart.fall_asleep(deadline);
        let completions = driver.park(timeout, || self.has_work());
        heart.wake_up();
        completions + self.turn_rest()
    }

    /// Drops all tasks and pollers; nothing of this core runs any more.
    pub(crate) fn close(&self) {
        self.0.executor.close();
        for poller in self.0.pollers.take() {
            poller.close();
        }
    }

    /// Waits until the kernel has let go of everything that this core gave it.
    pub(super) fn drain(&self) {
        self.driver().drain();
    }

    fn driver(&self) -> &Rc<Driver> {
        match &self.0.machine {
            Machine::Real { driver, .. } => driver,
            Machine::Sim(_) => unreachable!("a simulated core has no driver"),
        }
    }

    /// Wakes who waits for the stop, once.
    fn tell_stop(&self) -> bool {
        if !self.is_stopping() || self.0.stop_told.replace(true) {
            return false;
        }
        self.0.stopping.notify_all();
        true
    }
}

/// A look at the clock costs as much as a few looks at the rings.
const SPINS_PER_LOOK_AT_CLOCK: u32 = 16;

/// Monotonic time since the first use in this process.
pub(super) fn real_now() -> Nanos {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let since = START.elapsed();
    Nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
