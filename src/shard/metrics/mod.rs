//! What one core counts of its requests, connections and topics.
//!
//! Called along a request's way: `connection` and `processor` (received, sent, total), the
//! API handlers (parsed, answered), `produce` and `fetch` (hop, appended, read, purgatory,
//! flushed). [`snapshot`] is the answer when `node::metrics` asks.
//!
//! Invariants: counting takes no lock and no memory: the histograms are made when the core
//! starts, a topic's numbers when its first partition is opened. Topics that are told apart
//! are at most [`TOPICS_MAX`]. A stage that follows another within one poll begins at that
//! one's end (`Rt::last_stamp`), so it costs one look at the clock.

mod snapshot;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::Shard;
use super::connection::Closed;
use super::processor::{Api, Reply, Request};
use crate::base::Nanos;
use crate::telemetry::{Counter, Gauge, SizeHistogram, Stage, StageTable};

pub use snapshot::{of_node, snapshot, with_loop};

/// Topics of one core that are told apart; what concerns others is under [`OTHER`].
const TOPICS_MAX: usize = 200;
/// No topic's name: a name has no parentheses.
const OTHER: &str = "(other)";
/// Requests whose API has no row aren't counted: there are none.
const NO_ROW: u8 = u8::MAX;

pub struct Metrics {
    apis: &'static [Api],
    /// Rows of `stages`, by the API's key.
    rows: Box<[u8]>,
    stages: StageTable,
    pub in_flight: Gauge,
    pub request_bytes: Counter,
    pub response_bytes: Counter,
    /// Bytes of requests in memory, as `queued.max.request.bytes` counts them.
    pub memory: Gauge,
    /// Times that a connection had to wait for such memory.
    pub memory_waits: Counter,
    /// Connections, when they came.
    pub accepted: Counter,
    /// Connections that were closed at once because their address had too many.
    pub refused: Counter,
    /// By [`Closed::index`].
    closed: [Counter; Closed::REASONS.len()],
    /// Replicas that left, and joined, ISRs of partitions that are led here.
    pub isr_shrinks: Counter,
    pub isr_expands: Counter,
    topics: RefCell<BTreeMap<Arc<str>, Weak<TopicTotals>>>,
    other_topics: Rc<TopicTotals>,
}

/// What clients wrote to and read from a topic's partitions on this core.
#[derive(Debug, Default)]
pub struct TopicTotals {
    batches: SizeHistogram,
    bytes_out: Counter,
}

/// A request that is being handled; it counts as in flight until this is dropped.
pub struct Timing {
    shard: Rc<Shard>,
    api_key: i16,
    started: Nanos,
}

impl Metrics {
    pub fn new(apis: &'static [Api]) -> Metrics {
        let keys = apis.iter().map(|api| api.key as usize + 1).max();
        let mut rows = vec![NO_ROW; keys.unwrap_or(0)];
        for (row, api) in (0..NO_ROW).zip(apis) {
            rows[api.key as usize] = row;
        }
        Metrics {
            apis,
            rows: rows.into(),
            stages: StageTable::new(apis.len()),
            in_flight: Gauge::default(),
            request_bytes: Counter::default(),
            response_bytes: Counter::default(),
            memory: Gauge::default(),
            memory_waits: Counter::default(),
            accepted: Counter::default(),
            refused: Counter::default(),
            closed: Default::default(),
            isr_shrinks: Counter::default(),
            isr_expands: Counter::default(),
            topics: RefCell::default(),
            other_topics: Rc::default(),
        }
    }

    /// A request has passed a stage.
    pub fn record(&self, api_key: i16, stage: Stage, from: Nanos, to: Nanos) {
        let row = usize::try_from(api_key)
            .ok()
            .and_then(|key| self.rows.get(key));
        if let Some(&row) = row
            && row != NO_ROW
        {
            let took = to.saturating_since(from);
            self.stages.record(usize::from(row), stage, took);
        }
    }

    pub fn count_closed(&self, reason: &Closed) {
        self.closed[reason.index()].increment();
    }

    /// Where to count what concerns a topic, for as long as a partition of it is open here.
    pub fn topic(&self, name: &Arc<str>) -> Rc<TopicTotals> {
        let mut topics = self.topics.borrow_mut();
        if let Some(totals) = topics.get(name).and_then(Weak::upgrade) {
            return totals;
        }
        topics.retain(|_, totals| totals.strong_count() > 0);
        if topics.len() >= TOPICS_MAX {
            return self.other_topics.clone();
        }
        let totals = Rc::new(TopicTotals::default());
        topics.insert(name.clone(), Rc::downgrade(&totals));
        totals
    }
}

impl TopicTotals {
    pub fn count_append(&self, bytes: usize) {
        self.batches.record(bytes as u64);
    }

    pub fn count_read(&self, bytes: u32) {
        self.bytes_out.add(u64::from(bytes));
    }
}

impl Timing {
    pub fn begin(shard: &Rc<Shard>, request: &Request) -> Timing {
        let metrics = shard.metrics();
        metrics.in_flight.add(1);
        metrics.request_bytes.add(request.body.len() as u64);
        Timing {
            shard: shard.clone(),
            api_key: request.context.api_key,
            started: request.started,
        }
    }

    pub fn finish(self, reply: &Reply) {
        if let Reply::Send(response) = reply {
            let bytes = response.len_bytes() as u64;
            self.shard.metrics().response_bytes.add(bytes);
        }
        self.shard
            .note_stage(self.api_key, Stage::Answered, self.started);
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        self.shard.metrics().in_flight.subtract(1);
    }
}

/// Stages of requests on this core.
impl Shard {
    /// A stage ends now; returns when that is.
    pub fn end_stage(&self, api_key: i16, stage: Stage, from: Nanos) -> Nanos {
        let now = self.rt.stamp();
        self.metrics.record(api_key, stage, from, now);
        now
    }

    /// A stage ended when this task was woken, or at the last stage's end since.
    pub fn note_stage(&self, api_key: i16, stage: Stage, from: Nanos) {
        let at = self.rt.last_stamp();
        self.metrics.record(api_key, stage, from, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::spares::Running;
    use crate::wire::api_key::ApiKey;

    #[test]
    fn the_topics_beyond_the_bound_are_counted_together() {
        let metrics = Metrics::new(&[]);
        let open = |n: usize| metrics.topic(&Arc::from(format!("t{n}")));
        let mut opened: Vec<_> = (0..TOPICS_MAX).map(open).collect();
        assert!(Rc::ptr_eq(&open(3), &opened[3]));
        for n in TOPICS_MAX..TOPICS_MAX + 3 {
            assert!(Rc::ptr_eq(&open(n), &metrics.other_topics));
        }
        opened.remove(7);
        let fresh = open(TOPICS_MAX);
        assert!(
            !Rc::ptr_eq(&fresh, &metrics.other_topics),
            "a closed topic makes room"
        );
    }

    const fn api(key: ApiKey) -> Api {
        Api {
            key,
            versions: 0..=0,
            advertised_min: 0,
            overlaps: false,
            memory_estimate: |bytes| bytes,
            handler: |shard, _| {
                Running::new(shard.spares().clone(), std::future::ready(Reply::Nothing))
            },
            on_unsupported_version: None,
        }
    }

    #[test]
    fn each_api_has_a_row_of_its_own() {
        static APIS: [Api; 2] = [api(ApiKey::Heartbeat), api(ApiKey::Produce)];
        let metrics = Metrics::new(&APIS);
        for key in [ApiKey::Produce, ApiKey::Heartbeat, ApiKey::Fetch] {
            metrics.record(key as i16, Stage::Parsed, Nanos(0), Nanos(5));
        }
        metrics.record(-1, Stage::Parsed, Nanos(0), Nanos(5));
        metrics.record(i16::MAX, Stage::Parsed, Nanos(0), Nanos(5));
        let stages = metrics.stages.snapshot(|row| metrics.apis[row].name());
        let names: Vec<_> = stages.iter().map(|stage| stage.api).collect();
        assert_eq!(names, ["Heartbeat", "Produce"]);
        assert!(stages.iter().all(|stage| stage.durations.count() == 1));
    }
}
