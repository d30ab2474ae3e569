//! A thread of the generator: drives its lanes (connections) from one epoll and one timer,
//! so that thousands of them need no thread each. Started by `phase`; the lanes are in
//! `producer` and `consumer`.
//!
//! ```text
//! due or ready → lane.step → sends what is due, takes what came → when it is due next
//!      ↑                                                                │
//!      └────────── epoll: a socket, or the timer at the soonest ←───────┘
//! ```
//! Invariants: a lane's step never blocks and is bounded, so that no lane makes another
//! late for long; a thread that has nothing to do sleeps, so that its CPU time is its work.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::client::ANSWER_WAIT;
use super::record::{Metric, histogram};
use super::schedule::{Schedule, Window};

pub const SECOND_NS: u64 = 1_000_000_000;
const EVENTS_MAX: usize = 256;
const TIMER: u64 = u64::MAX;
/// Of what was never sent, so many stand for all.
const NEVER_SENT_SAMPLES: u64 = 10_000;
/// How soon a silent thread sees that a second or the run is over.
const LOOK_MS: u16 = 100;

/// What all threads of a phase share.
pub struct Run {
    pub epoch: Instant,
    pub window: Window,
    /// Set by the first thread that fails.
    pub halt: AtomicBool,
    /// Set from outside: nobody wants the rest of the run.
    pub stop: Arc<AtomicBool>,
    /// By partition: the offset after the last acknowledged record.
    pub end_offsets: Vec<AtomicU64>,
    /// Threads that still publish.
    pub publishing: AtomicUsize,
}

impl Run {
    /// Nanoseconds since the run's start; before it 0.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn is_over(&self) -> bool {
        self.halt.load(Ordering::Relaxed) || self.stop.load(Ordering::Relaxed)
    }

    /// What has not come by now will not come.
    pub fn give_up_ns(&self) -> u64 {
        self.window.to_ns + ANSWER_WAIT.as_nanos() as u64
    }
}

/// What a lane wants after a step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Next {
    /// Step again then, even if nothing comes; at once if that is over.
    pub due_ns: Option<u64>,
    /// The socket is full: step when it takes more.
    pub blocked: bool,
    pub done: bool,
}

pub trait Lane {
    fn stream(&self) -> &TcpStream;

    /// Takes what came (if `ready`), sends what is due.
    fn step(&mut self, ready: bool, run: &Run, tally: &mut Tally) -> Result<Next, String>;

    /// Called once, after the last step.
    fn end(&mut self, run: &Run, tally: &mut Tally);
}

/// What one second of one thread brought; `second` counts from the window's begin.
pub struct Interval {
    pub metric: Metric,
    pub second: usize,
    pub latencies: Histogram<u64>,
    pub records: u64,
}

/// What one thread found. Counts are of records, if not said otherwise.
pub struct Tally {
    pub metric: Metric,
    pub latencies: Histogram<u64>,
    pub lateness: Histogram<u64>,
    /// All that was acknowledged or arrived, warm-up included.
    pub records: u64,
    /// Due in the window.
    pub scheduled: u64,
    pub achieved: u64,
    /// Acknowledged or arrived within the window's time.
    pub in_window: u64,
    pub batches_in_window: u64,
    pub unanswered: u64,
    pub answers: u64,
    pub batches: u64,
    pub crc_checked: u64,
    pub cpu_percent: f64,
    pub wait_percent: f64,
    interval: Interval,
    /// None once the thread has ended, so that the phase's thread sees that it has.
    intervals: Option<Sender<Interval>>,
}

impl Tally {
    pub(super) fn new(metric: Metric, intervals: Sender<Interval>) -> Tally {
        Tally {
            metric,
            latencies: histogram(),
            lateness: histogram(),
            records: 0,
            scheduled: 0,
            achieved: 0,
            in_window: 0,
            batches_in_window: 0,
            unanswered: 0,
            answers: 0,
            batches: 0,
            crc_checked: 0,
            cpu_percent: 0.0,
            wait_percent: 0.0,
            interval: Interval {
                metric,
                second: 0,
                latencies: histogram(),
                records: 0,
            },
            intervals: Some(intervals),
        }
    }

    /// `records` in `batches` were done at `now_ns`.
    pub fn done(&mut self, run: &Run, now_ns: u64, records: u64, batches: u64) {
        self.records += records;
        if run.window.contains(now_ns) {
            self.in_window += records;
            self.batches_in_window += batches;
            self.roll(run, now_ns);
            self.interval.records += records;
        }
    }

    /// `count` latencies of something that was intended in the window.
    pub fn latency(&mut self, now_ns: u64, intended_ns: u64, count: u64) {
        let latency = now_ns.saturating_sub(intended_ns).max(1);
        self.latencies.saturating_record_n(latency, count);
        self.interval.latencies.saturating_record_n(latency, count);
    }

    /// What a connection had still to send when it gave up: due, not achieved, and at least
    /// as late as it is now. Without it the worst would be missing from the percentiles.
    pub fn never_sent(&mut self, run: &Run, schedule: &Schedule, next_index: u64, now_ns: u64) {
        let first = next_index.max(schedule.index_at(run.window.from_ns));
        let end = schedule.index_at(run.window.to_ns);
        let count = end.saturating_sub(first);
        self.scheduled += count * schedule.records_per_batch;
        // So many look like all.
        let step = (count / NEVER_SENT_SAMPLES).max(1);
        let mut index = first;
        while index < end {
            let these = step.min(end - index);
            self.latency(now_ns, schedule.intended_ns(index), these);
            index += these;
        }
    }

    fn roll(&mut self, run: &Run, now_ns: u64) {
        let second = (now_ns.saturating_sub(run.window.from_ns) / SECOND_NS) as usize;
        if second != self.interval.second && now_ns < run.window.to_ns {
            self.end_interval(second);
        }
    }

    fn end_interval(&mut self, next: usize) {
        let fresh = Interval {
            metric: self.metric,
            second: next,
            latencies: histogram(),
            records: 0,
        };
        let ended = std::mem::replace(&mut self.interval, fresh);
        if let Some(intervals) = &self.intervals {
            // Without the phase's thread nobody wants it.
            let _ = intervals.send(ended);
        }
    }
}

/// Runs until every lane is done. With `counted`, the thread counts as one that publishes.
pub fn run<L: Lane>(
    mut lanes: Vec<L>,
    metric: Metric,
    run: &Run,
    intervals: Sender<Interval>,
    counted: bool,
) -> Result<Tally, String> {
    // Timers are 50 µs late otherwise. Refused, the lateness shows it.
    let _ = nix::sys::prctl::set_timerslack(1);
    let (cpu_before, wait_before) = cpu_and_wait_ns();
    let began_ns = run.now_ns();
    let mut tally = Tally::new(metric, intervals);
    let driven = drive(&mut lanes, run, &mut tally);
    for lane in &mut lanes {
        lane.end(run, &mut tally);
    }
    tally.end_interval(0);
    tally.intervals = None;
    if counted {
        run.publishing.fetch_sub(1, Ordering::AcqRel);
    }
    if let Err(error) = driven {
        run.halt.store(true, Ordering::Relaxed);
        return Err(format!("{}: {error}", metric.name()));
    }
    let elapsed = run.now_ns().saturating_sub(began_ns).max(1);
    let percent = |ns: u64| ns as f64 * 100.0 / elapsed as f64;
    let (cpu, wait) = cpu_and_wait_ns();
    tally.cpu_percent = percent(cpu - cpu_before);
    tally.wait_percent = percent(wait - wait_before);
    Ok(tally)
}

fn drive<L: Lane>(lanes: &mut [L], run: &Run, tally: &mut Tally) -> Result<(), String> {
    let text = |error: nix::Error| error.to_string();
    let mut poller = Poller::new(lanes.len()).map_err(text)?;
    for (index, lane) in lanes.iter().enumerate() {
        poller.add(lane.stream(), index).map_err(text)?;
    }
    let mut due: BinaryHeap<Reverse<(u64, usize)>> =
        (0..lanes.len()).map(|index| Reverse((0, index))).collect();
    // When each lane is due; other entries of the heap are out of date.
    let mut armed: Vec<Option<u64>> = vec![Some(0); lanes.len()];
    let mut left = lanes.len();
    let mut ready = Vec::new();
    while left > 0 && !run.is_over() {
        let now_ns = run.now_ns();
        if now_ns > run.give_up_ns() {
            return Ok(());
        }
        tally.roll(run, now_ns);
        while let Some(Reverse((at_ns, index))) = due.peek().copied() {
            if armed[index] == Some(at_ns) {
                if at_ns > now_ns {
                    break;
                }
                armed[index] = None;
                ready.push((index, false));
            }
            due.pop();
        }
        for (index, readable) in ready.drain(..) {
            if poller.is_done(index) {
                continue;
            }
            let lane = &mut lanes[index];
            let next = lane.step(readable, run, tally)?;
            if next.done {
                poller.remove(lane.stream(), index).map_err(text)?;
                left -= 1;
            } else {
                poller
                    .set_blocked(lane.stream(), index, next.blocked)
                    .map_err(text)?;
                if next.due_ns != armed[index] {
                    armed[index] = next.due_ns;
                    due.extend(next.due_ns.map(|at_ns| Reverse((at_ns, index))));
                }
            }
        }
        let soonest = due.peek().map(|Reverse((at_ns, _))| *at_ns);
        poller.wait(soonest, run, &mut ready).map_err(text)?;
    }
    Ok(())
}

/// Epoll with a timer that knows nanoseconds.
struct Poller {
    epoll: Epoll,
    timer: TimerFd,
    timer_at_ns: Option<u64>,
    blocked: Vec<bool>,
    done: Vec<bool>,
}

impl Poller {
    fn new(lanes: usize) -> nix::Result<Poller> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
        // Edges only: that it has expired needs no read.
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(timer.as_fd(), EpollEvent::new(flags, TIMER))?;
        Ok(Poller {
            epoll,
            timer,
            timer_at_ns: None,
            blocked: vec![false; lanes],
            done: vec![false; lanes],
        })
    }

    fn add(&self, stream: &TcpStream, index: usize) -> nix::Result<()> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, index as u64);
        self.epoll.add(stream, event)
    }

    fn remove(&mut self, stream: &TcpStream, index: usize) -> nix::Result<()> {
        self.done[index] = true;
        self.epoll.delete(stream)
    }

    fn is_done(&self, index: usize) -> bool {
        self.done[index]
    }

    fn set_blocked(&mut self, stream: &TcpStream, index: usize, blocked: bool) -> nix::Result<()> {
        if self.blocked[index] == blocked {
            return Ok(());
        }
        self.blocked[index] = blocked;
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, blocked);
        self.epoll
            .modify(stream, &mut EpollEvent::new(flags, index as u64))
    }

    /// Until a socket is ready or `until_ns` is there.
    fn wait(
        &mut self,
        until_ns: Option<u64>,
        run: &Run,
        ready: &mut Vec<(usize, bool)>,
    ) -> nix::Result<()> {
        let mut timeout = EpollTimeout::from(LOOK_MS);
        if let Some(until_ns) = until_ns {
            let left_ns = until_ns.saturating_sub(run.now_ns());
            if left_ns == 0 {
                timeout = EpollTimeout::ZERO;
            } else if self.timer_at_ns != Some(until_ns) {
                let after = Expiration::OneShot(Duration::from_nanos(left_ns).into());
                self.timer.set(after, TimerSetTimeFlags::empty())?;
                self.timer_at_ns = Some(until_ns);
            }
        }
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        let count = match self.epoll.wait(&mut events, timeout) {
            Err(nix::errno::Errno::EINTR) => 0,
            counted => counted?,
        };
        let sockets = events[..count].iter().filter(|event| event.data() != TIMER);
        ready.extend(sockets.map(|event| (event.data() as usize, true)));
        Ok(())
    }
}

/// Of the calling thread: time on a CPU, and time that it could run and had none.
fn cpu_and_wait_ns() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let mut numbers = text.split_whitespace().map_while(|word| word.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
