//! The sentinel: one thread of the process that looks at every core's heartbeat and tells
//! of a core that is silent though it has something to do.
//!
//! ```text
//! core      beats once a turn; before it sleeps it says so, and until when at most
//! sentinel  looks four times a second: the same beat for 500 ms, and the core …
//!             runs, and not for want of CPU → tell: a task or a call holds it
//!             sleeps, but somebody rang     → tell, and ring again: the bell was lost
//!             sleeps with its inbox full    → tell, and ring: nobody did
//!             sleeps past its deadline      → tell, and ring: the timeout was lost
//!             sleeps                        → idle, nothing to tell
//! ```
//! Called by `core`, which watches a core from its first turn to its last. The thread
//! starts with the first core and ends with the last one.
//!
//! Invariants: the beat is one store to a cache line that nobody else writes, and no core
//! waits for the sentinel but to start and to end. A core that sleeps can be woken through
//! its ring only, so the sentinel has a ring too. A silence is told once. What the sentinel
//! itself slept through isn't held against a core: it takes several looks.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use io_uring::IoUring;

use super::blocked::Operation;
use super::driver::{Bell, bell_message};
use super::rt::real_now;
use crate::base::{CoreId, Nanos};

/// Longer than this no core is silent with work to do.
const SILENCE_MAX: Duration = Duration::from_millis(500);
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// So many looks must have found the same beat.
const LOOKS_MIN: u32 = 3;
/// CPU time between the first of them and the last of a task that holds its core. Less is a
/// core that waits for a CPU: the machine is busy, not the core.
const HELD_MIN: Duration = Duration::from_millis(250);

/// What a core says of itself, for the sentinel alone.
#[derive(Debug)]
pub(super) struct Heartbeat {
    /// Grows with every turn, and when the core falls asleep and wakes.
    beats: AtomicU64,
    parked: AtomicBool,
    /// While parked: when it wakes by itself at the latest; `u64::MAX` for never.
    deadline: AtomicU64,
    /// The system call that the core is in, as far as `blocked` knows.
    operation: AtomicU8,
    /// The core's thread, as the system numbers it.
    thread: AtomicI32,
    /// Silences that were told of, by the sentinel.
    silences: AtomicU64,
    /// Those of them in which the core slept with work waiting.
    rescues: AtomicU64,
}

impl Heartbeat {
    pub(super) const fn new() -> Heartbeat {
        Heartbeat {
            beats: AtomicU64::new(0),
            parked: AtomicBool::new(false),
            deadline: AtomicU64::new(u64::MAX),
            operation: AtomicU8::new(Operation::NONE),
            thread: AtomicI32::new(0),
            silences: AtomicU64::new(0),
            rescues: AtomicU64::new(0),
        }
    }

    /// By the core only, so no read-modify-write is needed.
    pub(super) fn beat(&self) {
        let beats = self.beats.load(Ordering::Relaxed) + 1;
        self.beats.store(beats, Ordering::Release);
    }

    pub(super) fn fall_asleep(&self, deadline: Option<Nanos>) {
        let deadline = deadline.map_or(u64::MAX, |at| at.0);
        self.deadline.store(deadline, Ordering::Relaxed);
        self.parked.store(true, Ordering::Relaxed);
        self.beat();
    }

    pub(super) fn wake_up(&self) {
        self.parked.store(false, Ordering::Relaxed);
        self.beat();
    }

    pub(super) fn enter_operation(&self, operation: Operation) {
        self.operation.store(operation as u8, Ordering::Relaxed);
    }

    pub(super) fn leave_operation(&self) {
        self.operation.store(Operation::NONE, Ordering::Relaxed);
    }

    pub(super) fn silences(&self) -> u64 {
        self.silences.load(Ordering::Relaxed)
    }

    pub(super) fn rescues(&self) -> u64 {
        self.rescues.load(Ordering::Relaxed)
    }
}

/// While it lives, the sentinel looks after a core.
#[derive(Debug)]
pub(super) struct Watch(Arc<Bell>);

/// Looks after a core from now on; to be called on the core's thread.
pub(super) fn watch(core: CoreId, bell: Arc<Bell>) -> io::Result<Watch> {
    let thread = nix::unistd::gettid().as_raw();
    bell.heart().thread.store(thread, Ordering::Relaxed);
    bell.heart().beat();
    let mut watched = lock(&SENTINEL.watched);
    if watched.thread.is_none() {
        watched.generation += 1;
        let generation = watched.generation;
        let thread = Builder::new()
            .name("sentinel".to_owned())
            .spawn(move || look_after_cores(generation))?;
        watched.thread = Some(thread);
    }
    watched.cores.push(Watched::new(core, bell.clone()));
    Ok(Watch(bell))
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = lock(&SENTINEL.watched);
        watched
            .cores
            .retain(|watched| !Arc::ptr_eq(&watched.bell, &self.0));
        if !watched.cores.is_empty() {
            return;
        }
        // A thread of an older generation ends.
        watched.generation += 1;
        let thread = watched.thread.take();
        drop(watched);
        SENTINEL.ended.notify_all();
        if let Some(thread) = thread {
            // It has nothing to return, and a panic in it was reported.
            let _ = thread.join();
        }
    }
}

struct Sentinel {
    /// Taken by cores that start and end, and by the sentinel at each look.
    watched: Mutex<WatchedCores>,
    ended: Condvar,
}

struct WatchedCores {
    cores: Vec<Watched>,
    generation: u64,
    thread: Option<JoinHandle<()>>,
}

static SENTINEL: Sentinel = Sentinel {
    watched: Mutex::new(WatchedCores {
        cores: Vec::new(),
        generation: 0,
        thread: None,
    }),
    ended: Condvar::new(),
};

fn lock(watched: &Mutex<WatchedCores>) -> MutexGuard<'_, WatchedCores> {
    // Every state of the list is a valid one.
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look_after_cores(generation: u64) {
    let mut ringer = Ringer::new();
    let mut watched = lock(&SENTINEL.watched);
    while watched.generation == generation {
        let now = real_now();
        for core in &mut watched.cores {
            core.look(now, &mut ringer);
        }
        watched = match SENTINEL.ended.wait_timeout(watched, LOOK_INTERVAL) {
            Ok((watched, _)) => watched,
            Err(poisoned) => poisoned.into_inner().0,
        };
    }
}

/// What a silent core does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    Runs,
    LostBell,
    Unrung,
    Overdue,
}

/// A core and what the last looks at it found.
struct Watched {
    core: CoreId,
    bell: Arc<Bell>,
    beat: u64,
    since: Nanos,
    looks: u32,
    /// CPU time of the core's thread at the first of them.
    worked_before: Duration,
    told: bool,
}

impl Watched {
    fn new(core: CoreId, bell: Arc<Bell>) -> Watched {
        Watched {
            core,
            bell,
            beat: 0,
            since: real_now(),
            looks: 0,
            worked_before: Duration::ZERO,
            told: false,
        }
    }

    fn look(&mut self, now: Nanos, ringer: &mut Ringer) {
        let Some(silence) = self.silence(now) else {
            return;
        };
        let asleep = silence != Silence::Runs;
        let heart = self.bell.heart();
        if !std::mem::replace(&mut self.told, true) {
            heart.silences.fetch_add(1, Ordering::Relaxed);
            heart
                .rescues
                .fetch_add(u64::from(asleep), Ordering::Relaxed);
            let operation = Operation::name(heart.operation.load(Ordering::Relaxed));
            tracing::warn!(
                core = %self.core,
                silent_ms = now.saturating_since(self.since).as_millis() as u64,
                thread = %CoreThread::of(heart).state,
                operation,
                "{}",
                match silence {
                    Silence::Runs => "core is held by a task or a call",
                    Silence::LostBell => "core sleeps though it was rung",
                    Silence::Unrung => "core sleeps with work that nobody rang for",
                    Silence::Overdue => "core sleeps past its deadline",
                }
            );
        }
        if asleep && let Some(ring) = self.bell.ring() {
            ringer.ring(ring);
        }
    }

    /// Whether the core is silent though it has something to do.
    fn silence(&mut self, now: Nanos) -> Option<Silence> {
        let bell = self.bell.clone();
        let heart = bell.heart();
        // Pairs with the store in `beat`: what goes with the beat is seen with it.
        let beat = heart.beats.load(Ordering::Acquire);
        if beat != self.beat {
            self.beat = beat;
            self.since = now;
            self.looks = 0;
            self.told = false;
        }
        if !heart.parked.load(Ordering::Relaxed) {
            let silent = self.is_silent(now, self.since);
            if self.looks == 1 {
                self.worked_before = CoreThread::of(heart).worked;
            }
            return (silent && self.is_held(heart)).then_some(Silence::Runs);
        }
        let deadline = Nanos(heart.deadline.load(Ordering::Relaxed));
        let silence = if !bell.is_sleeping() {
            Silence::LostBell
        } else if now > deadline {
            Silence::Overdue
        } else if bell.has_work() {
            Silence::Unrung
        } else {
            // It may sleep for as long as it likes; the silence begins with the work.
            self.since = now;
            self.looks = 0;
            return None;
        };
        let silent = self.is_silent(now, self.since);
        // A thread that waits for a CPU has been woken.
        (silent && CoreThread::of(heart).state != 'R').then_some(silence)
    }

    /// Whether a core that runs has worked meanwhile, or waits in a call.
    fn is_held(&self, heart: &Heartbeat) -> bool {
        let thread = CoreThread::of(heart);
        thread.state != 'R' || thread.worked.saturating_sub(self.worked_before) >= HELD_MIN
    }

    fn is_silent(&mut self, now: Nanos, since: Nanos) -> bool {
        self.looks = self.looks.saturating_add(1);
        self.looks >= LOOKS_MIN && now.saturating_since(since) > SILENCE_MAX
    }
}

/// What the system tells of a core's thread.
struct CoreThread {
    /// As `ps` shows it: `R` runs or waits for a CPU, `S` sleeps, `D` waits for a device; `?`
    /// when there is nothing to be learned.
    state: char,
    /// CPU time of its whole life.
    worked: Duration,
}

impl CoreThread {
    fn of(heart: &Heartbeat) -> CoreThread {
        let thread = heart.thread.load(Ordering::Relaxed);
        std::fs::read_to_string(format!("/proc/self/task/{thread}/stat"))
            .ok()
            .and_then(|stat| CoreThread::parse(&stat))
            .unwrap_or(CoreThread {
                state: '?',
                worked: Duration::ZERO,
            })
    }

    /// See proc_pid_stat(5).
    fn parse(stat: &str) -> Option<CoreThread> {
        /// Fields between the state and the time in user mode.
        const BEFORE_TIMES: usize = 10;
        /// The same on every system, whatever the kernel's own tick.
        const TICKS_PER_SECOND: u64 = 100;
        // The name stands in parentheses and may contain anything.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let user: u64 = fields.nth(BEFORE_TIMES)?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        Some(CoreThread {
            state,
            worked: Duration::from_millis((user + system) * 1_000 / TICKS_PER_SECOND),
        })
    }
}

/// The sentinel's ring; without it (no memory) it can only tell.
struct Ringer(Option<IoUring>);

impl Ringer {
    fn new() -> Ringer {
        Ringer(IoUring::builder().dontfork().build(4).ok())
    }

    fn ring(&mut self, ring: RawFd) {
        let Some(own) = &mut self.0 else { return };
        let message = bell_message(ring);
        // SAFETY: the entry refers to nothing but a descriptor, which the bell keeps open.
        let pushed = unsafe { own.submission().push(&message) };
        if let Err(error) = pushed
            .map_err(|_| io::ErrorKind::WouldBlock.into())
            .and_then(|()| own.submit())
        {
            tracing::warn!(%error, "sentinel can't ring");
        }
        // Only failures leave a completion; the next look rings again.
        own.completion().for_each(drop);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::mpsc;

    use super::*;
    use crate::io::driver::Inbox;
    use crate::io::{Backend, CoreConfig, Poller, Queue, run_core};

    const PATIENCE: Duration = Duration::from_secs(30);

    /// What the sentinel sees of a letterbox.
    struct Flap(Arc<AtomicBool>);

    impl Inbox for Flap {
        fn has_work(&self, _: CoreId) -> bool {
            self.0.load(Ordering::SeqCst)
        }
    }

    /// Work that another thread leaves for a core.
    struct Letterbox {
        full: Arc<AtomicBool>,
        emptied: mpsc::Sender<()>,
    }

    impl Poller for Letterbox {
        fn poll(&self) -> usize {
            if !self.full.swap(false, Ordering::SeqCst) {
                return 0;
            }
            self.emptied.send(()).unwrap();
            1
        }

        fn has_work(&self) -> bool {
            self.full.load(Ordering::SeqCst)
        }

        fn close(&self) {}
    }

    #[test]
    fn a_lost_bell_is_told_and_the_core_rung_but_an_idle_core_is_left_alone() {
        let ways = [Backend::Ring, Backend::Bare];
        for (backend, is_rung) in ways.into_iter().flat_map(|b| [(b, true), (b, false)]) {
            let full = Arc::new(AtomicBool::new(false));
            let (emptied, was_emptied) = mpsc::channel();
            let (tell, told) = mpsc::channel();
            let config = CoreConfig {
                backend,
                ..CoreConfig::new(CoreId(0))
            };
            let letterbox = full.clone();
            let core = run_core(config, |rt| async move {
                rt.add_poller(Rc::new(Letterbox {
                    full: letterbox,
                    emptied,
                }));
                tell.send(rt.bell().clone()).unwrap();
                rt.stopping().await;
                rt.stats()
            })
            .unwrap();
            let bell = told.recv().unwrap();
            // Three times as long as a silence may last, the core sleeps without work.
            let idle_until = real_now() + 3 * SILENCE_MAX;
            while real_now() < idle_until {
                std::thread::sleep(LOOK_INTERVAL);
            }
            assert_eq!(bell.heart().silences(), 0);
            full.store(true, Ordering::SeqCst);
            let flap: Arc<dyn Inbox> = Arc::new(Flap(full));
            if is_rung {
                // A sender finds the core asleep, and its bell is swallowed.
                assert!(bell.sleeper().is_some());
            } else {
                // The sender believes that the core is awake.
                bell.show_inbox(Arc::downgrade(&flap), CoreId(0));
            }
            was_emptied.recv_timeout(PATIENCE).unwrap();
            core.stopper().stop();
            let stats = core.join();
            assert_eq!((stats.silences, stats.rescues), (1, 1));
        }
    }

    #[test]
    fn a_core_that_waits_for_a_cpu_is_not_held() {
        let heart = Heartbeat::new();
        let thread = nix::unistd::gettid().as_raw();
        heart.thread.store(thread, Ordering::Relaxed);
        let mut watched = Watched::new(CoreId(0), Arc::new(Bell::without_ring()));
        watched.worked_before = CoreThread::of(&heart).worked;
        // It runs, but has worked for no time at all.
        assert!(!watched.is_held(&heart));
        let until = real_now() + PATIENCE;
        while !watched.is_held(&heart) && real_now() < until {
            std::hint::spin_loop();
        }
        assert!(watched.is_held(&heart));
        let stat = "7 (a) b) D 1 2 3 4 5 6 7 8 9 10 150 50 0";
        let thread = CoreThread::parse(stat).expect("a line of stat");
        assert_eq!((thread.state, thread.worked), ('D', Duration::from_secs(2)));
    }

    #[test]
    fn a_task_that_holds_its_core_is_told_of_once() {
        let core = run_core(CoreConfig::new(CoreId(0)), |rt| async move {
            let heart = rt.clone();
            rt.spawn(Queue::Background, async move {
                let until = real_now() + PATIENCE;
                while heart.stats().silences == 0 && real_now() < until {
                    std::hint::spin_loop();
                }
                std::thread::sleep(4 * LOOK_INTERVAL);
                heart.stop();
            });
            rt.stopping().await;
            rt.stats()
        });
        let stats = core.unwrap().join();
        assert_eq!((stats.silences, stats.rescues), (1, 0));
    }
}
