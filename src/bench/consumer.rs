//! A lane that fetches. `Arrival`: as a consumer does, and times every record from the
//! intended time in it. `CatchUp`: reads what is there from the start to the end and over
//! again, and times the fetches. Driven by `worker`, made by `scenario`.
//!
//! With more than one partition it uses an incremental fetch session (KIP-227), as Kafka's
//! consumer does: a request names only the partitions whose offset has moved.
//!
//! Invariants: one fetch is under way at most; offsets follow each other without a gap; of
//! the batches one in `check_every` has its CRC and each of its records checked.

use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::client::put_request;
use super::producer::Pace;
use super::socket::Socket;
use super::template::stamp_of;
use super::worker::{Lane, Next, Run, Tally};
use crate::base::ErrorCode;
use crate::record::{BatchError, BatchView, Batches, records};
use crate::wire::ApiKey;
use crate::wire::codec::{Decoder, Message as _};
use crate::wire::header::decode_response_header;
use crate::wire::messages::fetch_request::{FetchPartition, FetchTopic};
use crate::wire::messages::{FetchRequest, FetchResponse};

/// How long a broker may hold a fetch that finds nothing.
const FETCH_WAIT: Duration = Duration::from_millis(100);
/// After the last acknowledgement, fetches that bring nothing before the rest is lost.
const EMPTY_MAX: u32 = 50;
/// The epoch of a fetch outside of sessions, and of one that opens a session.
const NO_SESSION: i32 = -1;
const NEW_SESSION: i32 = 0;

#[derive(Clone, Copy, Debug)]
pub enum Reading {
    Arrival,
    /// `records_per_fetch` is what one brings at full size, for the schedule's accounts.
    CatchUp {
        pace: Pace,
        records_per_fetch: u64,
    },
}

#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub partition: i32,
    pub offset: i64,
    /// `CatchUp` begins again here.
    pub end_offset: i64,
}

/// What a lane asks for; the same for all of them.
#[derive(Clone, Debug)]
pub struct Asking {
    pub topic: String,
    pub version: i16,
    pub bytes_max: i32,
    pub check_every: u64,
}

pub struct Consumer {
    socket: Socket,
    asking: Asking,
    reading: Reading,
    parts: Vec<Part>,
    /// By part, whether the session must be told its offset.
    moved: Vec<bool>,
    session_id: i32,
    session_epoch: i32,
    correlation_id: i32,
    /// Since when the fetch under way was intended; none if there is none.
    under_way: Option<u64>,
    next_index: u64,
    free_since_ns: u64,
    empty: u32,
}

impl Consumer {
    /// The parts ascend by partition.
    pub fn new(
        stream: TcpStream,
        asking: Asking,
        reading: Reading,
        parts: Vec<Part>,
    ) -> Result<Consumer, String> {
        let session_epoch = if parts.len() > 1 {
            NEW_SESSION
        } else {
            NO_SESSION
        };
        Ok(Consumer {
            socket: Socket::new(stream).map_err(|error| error.to_string())?,
            asking,
            reading,
            moved: vec![true; parts.len()],
            parts,
            session_id: 0,
            session_epoch,
            correlation_id: 0,
            under_way: None,
            next_index: 0,
            free_since_ns: 0,
            empty: 0,
        })
    }

    /// When the next fetch is to be sent; none if there is no more.
    fn next_due(&self, run: &Run, now_ns: u64) -> Option<u64> {
        match self.reading {
            Reading::Arrival => (!self.has_all(run)).then_some(now_ns),
            Reading::CatchUp { pace, .. } => match pace {
                Pace::Closed { .. } | Pace::Fill { .. } => Some(now_ns),
                Pace::Open(schedule) => {
                    let due = schedule.intended_ns(self.next_index);
                    (now_ns < run.window.send_until_ns()).then_some(due)
                }
            }
            .filter(|due| *due < run.window.to_ns),
        }
    }

    /// Whether everything that was acknowledged has come.
    fn has_all(&self, run: &Run) -> bool {
        if run.publishing.load(Ordering::Acquire) > 0 {
            return false;
        }
        self.empty > EMPTY_MAX || self.missing(run) == 0
    }

    fn missing(&self, run: &Run) -> u64 {
        let behind = |part: &Part| {
            let end = run.end_offsets[part.partition as usize].load(Ordering::Acquire);
            end.saturating_sub(u64::try_from(part.offset).unwrap_or(0))
        };
        self.parts.iter().map(behind).sum()
    }

    fn send(&mut self, intended_ns: u64) -> Result<(), String> {
        let all = self.session_epoch <= NEW_SESSION;
        let mut partitions = Vec::new();
        for (part, moved) in self.parts.iter().zip(&mut self.moved) {
            if all || *moved {
                partitions.push(FetchPartition {
                    partition: part.partition,
                    fetch_offset: part.offset,
                    partition_max_bytes: self.asking.bytes_max,
                    ..Default::default()
                });
            }
            *moved = false;
        }
        let topic = FetchTopic {
            topic: self.asking.topic.clone(),
            partitions,
            ..Default::default()
        };
        let request = FetchRequest {
            max_wait_ms: FETCH_WAIT.as_millis() as i32,
            min_bytes: 1,
            max_bytes: self.asking.bytes_max,
            session_id: self.session_id,
            session_epoch: self.session_epoch,
            topics: (!topic.partitions.is_empty())
                .then_some(topic)
                .into_iter()
                .collect(),
            ..Default::default()
        };
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let (version, id) = (self.asking.version, self.correlation_id);
        let mut frame = BytesMut::new();
        put_request(&mut frame, ApiKey::Fetch, version, id, &request)?;
        self.socket.output().extend_from_slice(&frame);
        self.under_way = Some(intended_ns);
        self.next_index += 1;
        Ok(())
    }

    fn on_answer(&mut self, frame: &Bytes, run: &Run, tally: &mut Tally) -> Result<(), String> {
        let now_ns = run.now_ns();
        let intended_ns = self
            .under_way
            .take()
            .ok_or("an answer came to no request")?;
        self.free_since_ns = now_ns;
        tally.answers += 1;
        let (version, id) = (self.asking.version, self.correlation_id);
        let mut d = Decoder::new(frame);
        let found = decode_response_header(&mut d, ApiKey::Fetch, version)
            .map_err(|error| error.to_string())?;
        if found != id {
            return Err(format!("answer {found} came to request {id}"));
        }
        let answer = FetchResponse::decode(&mut d, version).map_err(|error| error.to_string())?;
        ok(answer.error_code, "the fetch")?;
        self.go_on_with(answer.session_id);
        let before = tally.records;
        for topic in &answer.responses {
            for data in &topic.partitions {
                let partition = data.partition_index;
                ok(data.error_code, &format!("partition {partition}"))?;
                let index = self
                    .parts
                    .binary_search_by_key(&partition, |part| part.partition)
                    .map_err(|_| format!("partition {partition} wasn't asked for"))?;
                let fetched = data.records.as_deref().unwrap_or_default();
                self.take(index, fetched, now_ns, run, tally)
                    .map_err(|error| format!("partition {partition}: {error}"))?;
            }
        }
        let came = tally.records - before;
        self.empty = if came == 0 { self.empty + 1 } else { 0 };
        if let Reading::CatchUp {
            records_per_fetch, ..
        } = self.reading
        {
            if came == 0 {
                return Err("a fetch of what is there brought nothing".to_owned());
            }
            if run.window.contains(intended_ns) {
                tally.latency(now_ns, intended_ns, 1);
                if now_ns < run.window.achieved_until_ns() {
                    tally.achieved += records_per_fetch;
                }
            }
        }
        Ok(())
    }

    /// A broker without room for a session answers id 0; then every fetch names all.
    fn go_on_with(&mut self, session_id: i32) {
        if self.session_epoch == NO_SESSION {
            return;
        }
        self.session_id = session_id;
        self.session_epoch = match session_id {
            0 => NEW_SESSION,
            _ => self.session_epoch.checked_add(1).unwrap_or(1),
        };
    }

    fn take(
        &mut self,
        index: usize,
        fetched: &[u8],
        now_ns: u64,
        run: &Run,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let part = &mut self.parts[index];
        for batch in Batches::new(fetched) {
            let batch = match batch {
                Ok(batch) => batch,
                // The rest comes with the next fetch.
                Err(BatchError::Truncated { .. }) => break,
                Err(error) => return Err(error.to_string()),
            };
            if batch.base_offset().0 != part.offset {
                let came = batch.base_offset().0;
                return Err(format!("offset {came} came instead of {}", part.offset));
            }
            let checked = tally.batches.is_multiple_of(self.asking.check_every);
            let count = u64::try_from(batch.record_count()).map_err(|_| "a negative count")?;
            let intended_ns = look(&batch, checked)?;
            tally.batches += 1;
            tally.crc_checked += u64::from(checked);
            tally.done(run, now_ns, count, 1);
            if matches!(self.reading, Reading::Arrival) && run.window.contains(intended_ns) {
                if now_ns < run.window.achieved_until_ns() {
                    tally.achieved += count;
                }
                tally.latency(now_ns, intended_ns, count);
            }
            part.offset = batch.next_offset().0;
            self.moved[index] = true;
        }
        if matches!(self.reading, Reading::CatchUp { .. }) && part.offset >= part.end_offset {
            part.offset = 0;
            self.moved[index] = true;
        }
        Ok(())
    }
}

impl Lane for Consumer {
    fn stream(&self) -> &TcpStream {
        self.socket.stream()
    }

    fn step(&mut self, ready: bool, run: &Run, tally: &mut Tally) -> Result<Next, String> {
        let mut more = ready;
        while more {
            more = self.socket.fill()?;
            if let Some(frame) = self.socket.next_frame()? {
                self.on_answer(&frame, run, tally)?;
                break;
            }
        }
        let mut due_ns = None;
        if self.under_way.is_none() {
            let now_ns = run.now_ns();
            due_ns = self.next_due(run, now_ns);
            if let Some(intended_ns) = due_ns.filter(|due| *due <= now_ns) {
                if let Reading::CatchUp {
                    records_per_fetch, ..
                } = self.reading
                    && run.window.contains(intended_ns)
                {
                    tally.scheduled += records_per_fetch;
                    let could_ns = intended_ns.max(self.free_since_ns);
                    let lateness = now_ns.saturating_sub(could_ns).max(1);
                    tally.lateness.saturating_record(lateness);
                }
                self.send(intended_ns)?;
                due_ns = None;
            }
        }
        let flushed = self.socket.flush()?;
        Ok(Next {
            due_ns,
            blocked: !flushed,
            done: self.under_way.is_none() && due_ns.is_none(),
        })
    }

    fn end(&mut self, run: &Run, tally: &mut Tally) {
        match self.reading {
            Reading::Arrival => tally.unanswered += self.missing(run),
            Reading::CatchUp {
                records_per_fetch,
                pace,
            } => {
                tally.unanswered += u64::from(self.under_way.is_some()) * records_per_fetch;
                if let Pace::Open(schedule) = &pace {
                    tally.never_sent(run, schedule, self.next_index, run.now_ns());
                }
            }
        }
    }
}

/// The intended time in a batch; of one that is to be checked, every record has it.
fn look(batch: &BatchView<'_>, checked: bool) -> Result<u64, String> {
    if checked && !batch.verify_crc() {
        return Err(format!(
            "the CRC at offset {} is wrong",
            batch.base_offset().0
        ));
    }
    let mut all = records(batch).map_err(|error| error.to_string())?;
    let mut first = None;
    let mut count = 0;
    while let Some(record) = all.next() {
        let record = record.map_err(|error| error.to_string())?;
        let stamp = record.value.and_then(stamp_of);
        let stamp = stamp.ok_or("a record that we didn't send")?;
        if *first.get_or_insert(stamp) != stamp {
            return Err("records of a batch have different times".to_owned());
        }
        count += 1;
        if !checked {
            break;
        }
    }
    if checked && count != batch.record_count() {
        let told = batch.record_count();
        return Err(format!("a batch of {told} records has {count}"));
    }
    first.ok_or_else(|| "an empty batch".to_owned())
}

fn ok(code: i16, what: &str) -> Result<(), String> {
    match ErrorCode(code) {
        ErrorCode::NONE => Ok(()),
        code => Err(format!("{what}: the broker answered {code}")),
    }
}
