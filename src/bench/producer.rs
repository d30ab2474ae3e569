//! A lane that produces: in closed loop as soon as fewer than `depth` requests are under
//! way, in open loop when a batch is due, whatever became of the ones before. Driven by
//! `worker`, made by `scenario`.
//!
//! A batch that is due while the connection's window is full (its socket, or
//! [`IN_FLIGHT_MAX`]) waits for the broker: that is latency, which counts from the intended
//! time anyway. The generator's own lateness is what passed since the batch was due and the
//! window was free.
//!
//! Invariants: answers come in the order of requests (Kafka's promise), so the requests
//! under way are a queue; where nobody else publishes to a partition, each base offset
//! follows the batch before.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::encoder::Encoder;
use super::schedule::Schedule;
use super::socket::Socket;
use super::template::Template;
use super::worker::{Lane, Next, Run, Tally};
use crate::base::ErrorCode;
use crate::wire::ApiKey;
use crate::wire::codec::{Decoder, Message as _};
use crate::wire::header::decode_response_header;
use crate::wire::messages::ProduceResponse;

/// Requests under way on a connection in open loop; beyond that the due ones wait here.
const IN_FLIGHT_MAX: usize = 16_384;
/// Batches sent before answers are looked for.
const BURST_MAX: usize = 16;
/// Small frames leave together up to this size.
const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// Answers taken before other lanes have their turn.
const READS_MAX: usize = 4;

#[derive(Clone, Copy, Debug)]
pub enum Pace {
    Closed {
        depth: usize,
    },
    Open(Schedule),
    /// Closed until so many batches are sent.
    Fill {
        depth: usize,
        batches: u64,
    },
}

/// Where batches come from.
pub enum Source {
    /// One for each partition of the lane, in turn. Unstamped ones are sent as they are.
    Templates {
        templates: Vec<Template>,
        stamped: bool,
    },
    Encoder(Box<Encoder>),
}

/// A partition that the lane publishes to.
pub struct Slot {
    pub partition: i32,
    /// The base offset that must come next, or the least that may.
    pub next_offset: i64,
    /// Whether nobody else publishes to it.
    pub exclusive: bool,
}

pub struct Producer {
    socket: Socket,
    version: i16,
    source: Source,
    slots: Vec<Slot>,
    records_per_batch: u64,
    pace: Pace,
    /// Slot and intended time of the requests under way, oldest first.
    under_way: VecDeque<(usize, u64)>,
    next_index: u64,
    sent: i32,
    answered: i32,
    /// Whether it didn't take all at the last flush.
    socket_is_full: bool,
    /// Since when the window has room; none while it is full.
    free_since_ns: Option<u64>,
}

impl Producer {
    pub fn new(
        stream: TcpStream,
        version: i16,
        source: Source,
        slots: Vec<Slot>,
        records_per_batch: u64,
        pace: Pace,
    ) -> Result<Producer, String> {
        Ok(Producer {
            socket: Socket::new(stream).map_err(|error| error.to_string())?,
            version,
            source,
            slots,
            records_per_batch,
            pace,
            under_way: VecDeque::new(),
            next_index: 0,
            sent: 0,
            answered: 0,
            socket_is_full: false,
            free_since_ns: Some(0),
        })
    }

    /// When the next batch is to be sent; none when that is up to an answer, or there is
    /// no more.
    fn next_due(&self, run: &Run, now_ns: u64) -> Option<u64> {
        let due = match &self.pace {
            Pace::Closed { depth } => (self.under_way.len() < *depth).then_some(now_ns),
            Pace::Fill { depth, batches } => {
                let more = self.next_index < *batches && self.under_way.len() < *depth;
                more.then_some(now_ns)
            }
            Pace::Open(schedule) => {
                let due = schedule.intended_ns(self.next_index);
                (now_ns < run.window.send_until_ns()).then_some(due)
            }
        };
        due.filter(|due| *due < run.window.to_ns)
    }

    fn is_full(&self) -> bool {
        self.under_way.len() >= IN_FLIGHT_MAX || self.socket_is_full
    }

    fn flush(&mut self) -> Result<(), String> {
        self.socket_is_full = !self.socket.flush()?;
        Ok(())
    }

    /// Sends what is due, up to a burst.
    fn send_due(&mut self, run: &Run, tally: &mut Tally) -> Result<(), String> {
        self.flush()?;
        for _ in 0..BURST_MAX {
            if self.is_full() {
                self.free_since_ns = None;
                return Ok(());
            }
            let free_since_ns = *self.free_since_ns.get_or_insert_with(|| run.now_ns());
            let now_ns = run.now_ns();
            let Some(intended_ns) = self.next_due(run, now_ns).filter(|due| *due <= now_ns) else {
                break;
            };
            if run.window.contains(intended_ns) {
                tally.scheduled += self.records_per_batch;
                let could_ns = intended_ns.max(free_since_ns);
                let lateness = now_ns.saturating_sub(could_ns).max(1);
                tally.lateness.saturating_record(lateness);
            }
            self.put(intended_ns)?;
            if self.socket.waiting() >= OUTPUT_BYTES_MAX {
                self.flush()?;
            }
        }
        self.flush()?;
        if self.is_full() {
            self.free_since_ns = None;
        }
        Ok(())
    }

    fn put(&mut self, intended_ns: u64) -> Result<(), String> {
        let out = self.socket.output();
        let slot = match &mut self.source {
            Source::Templates { templates, stamped } => {
                let slot = (self.next_index % templates.len() as u64) as usize;
                let template = &mut templates[slot];
                if *stamped {
                    template.stamp(intended_ns);
                }
                out.extend_from_slice(template.frame(self.sent));
                slot
            }
            Source::Encoder(encoder) => encoder.put(out, self.sent, intended_ns)?,
        };
        self.under_way.push_back((slot, intended_ns));
        self.next_index += 1;
        self.sent = self.sent.wrapping_add(1);
        Ok(())
    }

    fn on_answer(&mut self, frame: &Bytes, run: &Run, tally: &mut Tally) -> Result<(), String> {
        let now_ns = run.now_ns();
        let (slot, intended_ns) = self
            .under_way
            .pop_front()
            .ok_or("an answer came to no request")?;
        let slot = &mut self.slots[slot];
        let base_offset = check_answer(frame, self.version, self.answered, slot)?;
        self.answered = self.answered.wrapping_add(1);
        slot.next_offset = base_offset + self.records_per_batch as i64;
        let end = u64::try_from(slot.next_offset).unwrap_or(0);
        run.end_offsets[slot.partition as usize].fetch_max(end, Ordering::AcqRel);
        tally.answers += 1;
        tally.done(run, now_ns, self.records_per_batch, 1);
        if run.window.contains(intended_ns) {
            if now_ns < run.window.achieved_until_ns() {
                tally.achieved += self.records_per_batch;
            }
            tally.latency(now_ns, intended_ns, 1);
        }
        Ok(())
    }
}

impl Lane for Producer {
    fn stream(&self) -> &TcpStream {
        self.socket.stream()
    }

    fn step(&mut self, ready: bool, run: &Run, tally: &mut Tally) -> Result<Next, String> {
        if ready {
            for _ in 0..READS_MAX {
                let more = self.socket.fill()?;
                while let Some(frame) = self.socket.next_frame()? {
                    self.on_answer(&frame, run, tally)?;
                }
                if !more {
                    break;
                }
            }
        }
        self.send_due(run, tally)?;
        let full = self.is_full();
        let now_ns = run.now_ns();
        let due_ns = self.next_due(run, now_ns);
        let over = now_ns >= run.window.to_ns
            || (due_ns.is_none() && !matches!(self.pace, Pace::Closed { .. }));
        Ok(Next {
            due_ns: due_ns.filter(|_| !full),
            blocked: self.socket_is_full,
            done: over && self.under_way.is_empty(),
        })
    }

    fn end(&mut self, run: &Run, tally: &mut Tally) {
        tally.unanswered += self.under_way.len() as u64 * self.records_per_batch;
        let now_ns = run.now_ns();
        for (_, intended_ns) in &self.under_way {
            if run.window.contains(*intended_ns) {
                tally.latency(now_ns, *intended_ns, 1);
            }
        }
        if let Pace::Open(schedule) = &self.pace {
            tally.never_sent(run, schedule, self.next_index, now_ns);
        }
    }
}

/// The base offset in a good answer to one batch for this slot.
fn check_answer(
    frame: &Bytes,
    version: i16,
    correlation_id: i32,
    slot: &Slot,
) -> Result<i64, String> {
    let mut d = Decoder::new(frame);
    let id = decode_response_header(&mut d, ApiKey::Produce, version)
        .map_err(|error| error.to_string())?;
    if id != correlation_id {
        return Err(format!("answer {id} came to request {correlation_id}"));
    }
    let at = d.position();
    let base_offset = base_offset(&frame.slice(at..), version, slot.partition)?;
    let (next, partition) = (slot.next_offset, slot.partition);
    if base_offset < next || (slot.exclusive && base_offset != next) {
        return Err(format!(
            "partition {partition}: base offset {base_offset} came, {next} should"
        ));
    }
    Ok(base_offset)
}

/// The base offset in the body of an answer about one partition.
pub fn base_offset(body: &Bytes, version: i16, partition: i32) -> Result<i64, String> {
    let answer = ProduceResponse::decode(&mut Decoder::new(body), version)
        .map_err(|error| error.to_string())?;
    let found = answer
        .responses
        .first()
        .and_then(|topic| topic.partition_responses.first())
        .filter(|found| found.index == partition)
        .ok_or("the partition isn't in the answer")?;
    match ErrorCode(found.error_code) {
        ErrorCode::NONE => Ok(found.base_offset),
        code => Err(refused(code, partition)),
    }
}

/// The error in the body of an answer, if it is one that may go away by itself.
pub fn passing_error(body: &Bytes, version: i16) -> Option<ErrorCode> {
    let answer = ProduceResponse::decode(&mut Decoder::new(body), version).ok()?;
    let found = answer.responses.first()?.partition_responses.first()?;
    Some(ErrorCode(found.error_code)).filter(|code| code.is_retriable())
}

fn refused(code: ErrorCode, partition: i32) -> String {
    let hint = match code {
        ErrorCode::MESSAGE_TOO_LARGE => {
            "; a smaller --batch-bytes, or a --topic with a larger max.message.bytes"
        }
        _ => "",
    };
    format!("partition {partition}: the broker answered {code}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::record::Metric;
    use crate::bench::schedule::Window;
    use crate::bench::template::Shape;
    use std::io::{ErrorKind, Read as _};
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
    use std::sync::mpsc::channel;
    use std::time::{Duration, Instant};

    const LONG: Duration = Duration::from_secs(100);

    /// A run that began long ago, so that everything in its schedule is long overdue.
    fn overdue() -> Run {
        Run {
            epoch: Instant::now().checked_sub(LONG).unwrap(),
            window: Window {
                from_ns: 0,
                to_ns: u64::MAX,
            },
            halt: AtomicBool::new(false),
            stop: Default::default(),
            end_offsets: vec![AtomicU64::new(0)],
            publishing: AtomicUsize::new(1),
        }
    }

    fn producer(stream: TcpStream) -> Producer {
        let shape = Shape {
            topic: "t",
            partition: 0,
            acks: -1,
            record_bytes: 60_000,
            records_per_batch: 1,
        };
        let source = Source::Templates {
            templates: vec![Template::new(&shape, 9).unwrap()],
            stamped: true,
        };
        let slot = Slot {
            partition: 0,
            next_offset: 0,
            exclusive: true,
        };
        let pace = Pace::Open(Schedule {
            rate: 1_000_000,
            records_per_batch: 1,
            connections: 1,
            connection: 0,
        });
        Producer::new(stream, 9, source, vec![slot], 1, pace).unwrap()
    }

    #[test]
    fn back_pressure_is_no_lateness_of_the_generators() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut broker, _) = listener.accept().unwrap();
        broker.set_nonblocking(true).unwrap();
        let mut producer = producer(near);
        let run = overdue();
        let mut tally = Tally::new(Metric::Publish, channel().0);

        // It could have sent from the start and didn't: that is its own.
        while !producer.step(false, &run, &mut tally).unwrap().blocked {}
        let long_ns = LONG.as_nanos() as u64;
        assert!(
            tally.lateness.max() > long_ns / 2,
            "{}",
            tally.lateness.max()
        );

        // While the broker doesn't read, nothing can be sent (once the kernel's buffers have
        // stopped to grow), and nothing is late.
        let mut tally = loop {
            let mut tally = Tally::new(Metric::Publish, channel().0);
            let next = producer.step(false, &run, &mut tally).unwrap();
            if tally.lateness.is_empty() {
                assert!(next.blocked && next.due_ns.is_none());
                break tally;
            }
        };

        // Once it reads, what was due long ago leaves at once: not late, but old.
        let mut bytes = vec![0; 1 << 20];
        while tally.lateness.is_empty() {
            match broker.read(&mut bytes) {
                Ok(count) => assert!(count > 0),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            producer.step(false, &run, &mut tally).unwrap();
        }
        assert!(
            tally.lateness.max() < long_ns / 2,
            "{}",
            tally.lateness.max()
        );
        let (_, intended_ns) = producer.under_way.back().unwrap();
        assert!(run.now_ns() - intended_ns > long_ns / 2);
    }
}
