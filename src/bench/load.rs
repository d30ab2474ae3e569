//! One thread and one connection that produces: in closed loop as soon as fewer than
//! `depth` requests are under way, in open loop when a batch is due, whatever became of the
//! ones before. Started by `scenario`.
//!
//! The socket doesn't block: a thread that waits for a slow broker in a send would be late
//! for its own schedule and not know it. What is due while the socket is full waits in the
//! kernel's place, and its latency counts from its intended time all the same.
//!
//! Invariants: answers come in the order of requests (Kafka's promise), so their intended
//! times are a queue; base offsets of one connection ascend.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeSpec, TimeValLike as _};

use super::client::{ANSWER_WAIT, frame_size};
use super::record::histogram;
use super::schedule::{Schedule, Window};
use super::template::Template;
use crate::base::ErrorCode;
use crate::wire::ApiKey;
use crate::wire::codec::{Decoder, Message as _};
use crate::wire::header::decode_response_header;
use crate::wire::messages::ProduceResponse;

/// Requests under way on a connection in open loop; beyond that the due ones wait here.
const IN_FLIGHT_MAX: usize = 16_384;
/// Batches sent before answers are looked for.
const BURST_MAX: usize = 16;
const READ_BYTES: usize = 64 << 10;
pub const SECOND_NS: u64 = 1_000_000_000;

/// What the thread is to do.
pub struct Load {
    pub stream: TcpStream,
    pub template: Template,
    pub version: i16,
    pub records_per_batch: u64,
    pub pace: Pace,
    pub window: Window,
    /// Whether values carry their intended times.
    pub stamped: bool,
    pub epoch: Instant,
}

pub enum Pace {
    Closed { depth: usize },
    Open(Schedule),
}

/// What one second of one thread brought; `second` counts from the window's begin.
pub struct Interval {
    pub second: usize,
    pub latencies: Histogram<u64>,
    pub records: u64,
}

/// What the thread found. Counts are of records.
pub struct Loaded {
    pub latencies: Histogram<u64>,
    pub lateness: Histogram<u64>,
    /// All that was acknowledged, warm-up included.
    pub acknowledged: u64,
    pub unanswered: u64,
    /// Due in the window.
    pub scheduled: u64,
    pub achieved: u64,
    /// Acknowledged within the window's time.
    pub in_window: u64,
    pub cpu_percent: f64,
}

struct Running<'a> {
    load: Load,
    intervals: &'a Sender<Interval>,
    found: Loaded,
    interval: Interval,
    /// Intended times of the requests under way, oldest first.
    under_way: VecDeque<u64>,
    next_index: u64,
    sent: i32,
    answered: i32,
    /// Bytes of the current frame that the socket has taken; 0 between frames.
    written: usize,
    input: Vec<u8>,
    base_offset: i64,
}

/// Runs until the window has ended and everything sent is answered.
pub fn run(load: Load, intervals: &Sender<Interval>) -> Result<Loaded, String> {
    // Timers are 50 µs late otherwise. Refused, the lateness shows it.
    let _ = nix::sys::prctl::set_timerslack(1);
    let fault = |error: std::io::Error| format!("produce: {error}");
    load.stream.set_nonblocking(true).map_err(fault)?;
    let cpu_before = cpu_ns();
    let began_ns = ns(load.epoch);
    let mut running = Running {
        load,
        intervals,
        found: Loaded {
            latencies: histogram(),
            lateness: histogram(),
            acknowledged: 0,
            unanswered: 0,
            scheduled: 0,
            achieved: 0,
            in_window: 0,
            cpu_percent: 0.0,
        },
        interval: Interval {
            second: 0,
            latencies: histogram(),
            records: 0,
        },
        under_way: VecDeque::new(),
        next_index: 0,
        sent: 0,
        answered: 0,
        written: 0,
        input: Vec::new(),
        base_offset: -1,
    };
    running
        .turn()
        .map_err(|error| format!("produce: {error}"))?;
    running.end_interval();
    let mut found = running.found;
    let elapsed = ns(running.load.epoch).saturating_sub(began_ns).max(1);
    found.cpu_percent = (cpu_ns() - cpu_before) as f64 * 100.0 / elapsed as f64;
    Ok(found)
}

impl Running<'_> {
    fn turn(&mut self) -> Result<(), String> {
        let give_up_ns = self.load.window.to_ns + ANSWER_WAIT.as_nanos() as u64;
        loop {
            let blocked = self.send_due()?;
            let now_ns = ns(self.load.epoch);
            let next_ns = self.next_due();
            let done = next_ns.is_none_or(|due| due >= self.load.window.to_ns);
            if done && self.written == 0 && self.under_way.is_empty() {
                return Ok(());
            }
            if now_ns > give_up_ns {
                let records = self.load.records_per_batch;
                self.found.unanswered += self.under_way.len() as u64 * records;
                return Ok(());
            }
            let until_ns = match next_ns {
                Some(due) if !done && !blocked && !self.is_full() => due,
                _ => give_up_ns,
            };
            self.wait(until_ns.saturating_sub(now_ns), blocked)?;
            self.receive()?;
        }
    }

    /// When the next batch is to be sent; none when that is up to an answer.
    fn next_due(&self) -> Option<u64> {
        match &self.load.pace {
            Pace::Closed { depth } => {
                let now_ns = ns(self.load.epoch);
                let over = now_ns >= self.load.window.to_ns;
                (!over && self.under_way.len() < *depth).then_some(now_ns)
            }
            Pace::Open(schedule) => Some(schedule.intended_ns(self.next_index)),
        }
    }

    fn is_full(&self) -> bool {
        self.under_way.len() >= IN_FLIGHT_MAX
    }

    /// Sends what is due; true if the socket is full.
    fn send_due(&mut self) -> Result<bool, String> {
        let mut burst = 0;
        // Between bursts the answers are read, or they would look late.
        while burst < BURST_MAX {
            if self.written == 0 {
                let Some(intended_ns) = self.next_due() else {
                    return Ok(false);
                };
                let now_ns = ns(self.load.epoch);
                let over = intended_ns >= self.load.window.to_ns;
                if over || intended_ns > now_ns || self.is_full() {
                    return Ok(false);
                }
                self.begin(intended_ns, now_ns);
            }
            let frame = self.load.template.frame(self.sent);
            match self.load.stream.write(&frame[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
            if self.written == frame.len() {
                self.written = 0;
                self.sent = self.sent.wrapping_add(1);
                burst += 1;
            }
        }
        Ok(false)
    }

    fn begin(&mut self, intended_ns: u64, now_ns: u64) {
        if self.load.stamped {
            self.load.template.stamp(intended_ns);
        }
        self.under_way.push_back(intended_ns);
        self.next_index += 1;
        if self.load.window.contains(intended_ns) {
            self.found.scheduled += self.load.records_per_batch;
            self.found
                .lateness
                .saturating_record((now_ns - intended_ns).max(1));
        }
    }

    fn wait(&self, ns: u64, blocked: bool) -> Result<(), String> {
        let mut flags = PollFlags::POLLIN;
        flags.set(PollFlags::POLLOUT, blocked);
        let mut fds = [PollFd::new(self.load.stream.as_fd(), flags)];
        let timeout = TimeSpec::nanoseconds(i64::try_from(ns).unwrap_or(i64::MAX));
        match ppoll(&mut fds, Some(timeout), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn receive(&mut self) -> Result<(), String> {
        let mut bytes = [0; READ_BYTES];
        loop {
            match self.load.stream.read(&mut bytes) {
                Ok(0) => return Err("the broker closed the connection".to_owned()),
                Ok(count) => {
                    self.input.extend_from_slice(&bytes[..count]);
                    self.take_answers(ns(self.load.epoch))?;
                    if count < READ_BYTES {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn take_answers(&mut self, now_ns: u64) -> Result<(), String> {
        let mut at = 0;
        while let Some(size) = self.input[at..].first_chunk() {
            let end = at + 4 + frame_size(*size)?;
            if end > self.input.len() {
                break;
            }
            let frame = Bytes::copy_from_slice(&self.input[at + 4..end]);
            self.on_answer(&frame, now_ns)?;
            at = end;
        }
        self.input.drain(..at);
        Ok(())
    }

    fn on_answer(&mut self, frame: &Bytes, now_ns: u64) -> Result<(), String> {
        self.base_offset = check_answer(frame, self.load.version, self.answered, self.base_offset)?;
        self.answered = self.answered.wrapping_add(1);
        let intended_ns = self
            .under_way
            .pop_front()
            .ok_or("an answer came to no request")?;
        let records = self.load.records_per_batch;
        let window = self.load.window;
        self.found.acknowledged += records;
        if window.contains(now_ns) {
            self.found.in_window += records;
            self.roll(((now_ns - window.from_ns) / SECOND_NS) as usize);
            self.interval.records += records;
        }
        if window.contains(intended_ns) {
            if now_ns < window.achieved_until_ns() {
                self.found.achieved += records;
            }
            let latency = now_ns.saturating_sub(intended_ns).max(1);
            self.found.latencies.saturating_record(latency);
            self.interval.latencies.saturating_record(latency);
        }
        Ok(())
    }

    fn roll(&mut self, second: usize) {
        if second != self.interval.second {
            self.end_interval();
            self.interval.second = second;
        }
    }

    fn end_interval(&mut self) {
        let ended = std::mem::replace(
            &mut self.interval,
            Interval {
                second: 0,
                latencies: histogram(),
                records: 0,
            },
        );
        // Without the scenario's thread nobody wants it.
        let _ = self.intervals.send(ended);
    }
}

/// The base offset in a good answer to one batch; it lies after `before`.
pub fn check_answer(
    frame: &Bytes,
    version: i16,
    correlation_id: i32,
    before: i64,
) -> Result<i64, String> {
    let mut d = Decoder::new(frame);
    let id = decode_response_header(&mut d, ApiKey::Produce, version)
        .map_err(|error| error.to_string())?;
    if id != correlation_id {
        return Err(format!("answer {id} came to request {correlation_id}"));
    }
    let at = d.position();
    check_body(&frame.slice(at..), version, before)
}

/// The same without the header.
pub fn check_body(body: &Bytes, version: i16, before: i64) -> Result<i64, String> {
    let answer = ProduceResponse::decode(&mut Decoder::new(body), version)
        .map_err(|error| error.to_string())?;
    let partition = answer
        .responses
        .first()
        .and_then(|topic| topic.partition_responses.first())
        .ok_or("the partition isn't in the answer")?;
    let code = ErrorCode(partition.error_code);
    if !code.is_ok() {
        return Err(format!("the broker answered {code}"));
    }
    if partition.base_offset <= before {
        let offset = partition.base_offset;
        return Err(format!("base offset {offset} came after {before}"));
    }
    Ok(partition.base_offset)
}

/// Nanoseconds since the run's start; before it 0.
pub fn ns(epoch: Instant) -> u64 {
    u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// CPU time of the calling thread.
pub fn cpu_ns() -> u64 {
    getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |usage| {
        let ns = (usage.user_time() + usage.system_time()).num_microseconds() * 1000;
        u64::try_from(ns).unwrap_or(0)
    })
}

/// The window of a run that warms up for `warm_up` first.
pub fn window(warm_up: Duration, duration: Duration) -> Window {
    let from_ns = u64::try_from(warm_up.as_nanos()).unwrap_or(u64::MAX);
    let len_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    Window {
        from_ns,
        to_ns: from_ns.saturating_add(len_ns),
    }
}
