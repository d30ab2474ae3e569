//! Batches of one partition whose validation takes long: they are checked step by step, in
//! the order in which they came, while their core goes on with everything else.
//!
//! `shard::produce` puts a batch in line ([`enter`]) when it is large, decompresses to much,
//! comes late in a large request, or when others stand in line already. A task works the
//! line off as long as there is one.
//!
//! Invariant: while a line isn't empty all batches of clients go through it, so a
//! partition's appends keep the order in which they were handed over. The memory of what
//! waits is charged to its requests.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::BytesMut;

use super::messages::ProduceOutcome;
use super::partition::{Attempt, Partition, Wakes, misshapen};
use super::topic_rules::rules;
use super::{Shard, flush};
use crate::base::{ErrorCode, TopicIdPartition};
use crate::io::local::oneshot::{Receiver, Sender};
use crate::io::{Budget, Queue, local};
use crate::record::validate::{Rejected, Validation, ValidationRules, validate_shape};

/// Bytes of records that are checked between two looks at the clock.
const STEP_BYTES: usize = 8 << 10;

/// Records of a client for one partition.
pub struct Batch {
    /// Position in the request.
    pub slot: u32,
    pub records: BytesMut,
    /// Size of the receive buffer that they lie in.
    pub buffer_bytes: usize,
    pub acks: i16,
    pub version: i16,
}

/// The batches of one partition that wait. The one in hand still stands at the front.
#[derive(Default)]
pub struct Line(VecDeque<InLine>);

struct InLine {
    /// Absent while it is in hand.
    batch: Option<Batch>,
    answer: Option<Sender<Attempt>>,
}

impl Line {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Puts a batch at the end of its partition's line.
pub fn enter(
    shard: &Rc<Shard>,
    id: TopicIdPartition,
    partition: &Rc<RefCell<Partition>>,
    batch: Batch,
) -> Receiver<Attempt> {
    let (answer, attempt) = local::oneshot();
    let mut borrowed = partition.borrow_mut();
    let line = &mut borrowed.line().0;
    let is_first = line.is_empty();
    line.push_back(InLine {
        batch: Some(batch),
        answer: Some(answer),
    });
    if is_first {
        let work = work_off(shard.clone(), id, partition.clone());
        shard.rt().spawn(Queue::Request, work);
    }
    attempt
}

async fn work_off(shard: Rc<Shard>, id: TopicIdPartition, partition: Rc<RefCell<Partition>>) {
    let budget = shard.rt().budget();
    loop {
        let batch = {
            let mut borrowed = partition.borrow_mut();
            let Some(first) = borrowed.line().0.front_mut() else {
                return;
            };
            first.batch.take().expect("it is taken once")
        };
        let attempt = append(&shard, id, &partition, batch, &budget).await;
        let answer = {
            let mut borrowed = partition.borrow_mut();
            let done = borrowed.line().0.pop_front();
            done.and_then(|mut done| done.answer.take())
        };
        if let Some(answer) = answer {
            // Nobody waits after a closed connection.
            let _ = answer.send(attempt);
        }
        budget.breathe().await;
    }
}

async fn append(
    shard: &Rc<Shard>,
    id: TopicIdPartition,
    partition: &Rc<RefCell<Partition>>,
    batch: Batch,
    budget: &Budget,
) -> Attempt {
    let slot = batch.slot;
    let (topic, config) = {
        let partition = partition.borrow();
        partition.admit(&batch)?;
        partition.rules_basis()
    };
    let now_ms = shard.rt().wall_ms();
    let rules = rules(&topic, id.partition, &config, batch.version, now_ms);
    let size = validate_shape(&batch.records, batch.version)
        .map_err(|rejected| misshapen(slot, rejected))?;
    let mut batch = batch;
    batch.records.truncate(size);
    let validated = match validate(&batch.records, &rules, budget).await {
        Ok(validation) => Ok(validation.finish(std::mem::take(&mut batch.records))),
        Err(rejected) => Err(rejected),
    };
    let is_here = shard
        .partition(id)
        .is_some_and(|here| Rc::ptr_eq(&here, partition));
    if !is_here {
        let error = ErrorCode::NOT_LEADER_OR_FOLLOWER;
        return Err(Box::new(ProduceOutcome::refused(slot, error)));
    }
    let mut wakes = Wakes::new();
    let attempt = {
        let mut partition = partition.borrow_mut();
        // It may have lost its leader, or its replicas, meanwhile.
        partition.admit(&batch)?;
        let attempt = partition.append_validated(&batch, validated, now_ms, &mut wakes);
        // Whoever sent it may have gone, but others wait to read it.
        flush::start_if_due(shard, id, &mut partition);
        attempt
    };
    shard.wake_all(wakes);
    attempt
}

async fn validate<'r>(
    records: &[u8],
    rules: &ValidationRules<'r>,
    budget: &Budget,
) -> Result<Validation<'r>, Rejected> {
    let mut validation = Validation::begin(records, rules)?;
    budget.breathe().await;
    while !validation.advance(records, STEP_BYTES)? {
        budget.breathe().await;
    }
    Ok(validation)
}
