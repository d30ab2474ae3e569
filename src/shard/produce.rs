//! Produce over cores: each part goes to the core that owns its partitions; there batches
//! are appended at once (or stand in line, see `append_line`), and with acks=all the outcome
//! waits for the high watermark; under fsync, or once `flush.messages` is reached, for the
//! disk as well (but for acks=0).
//!
//! Called by `api::produce` ([`scatter`]) and, on the owning core, by `Shard::on_request`
//! ([`append`], then [`acknowledge_remote`] if there is something to wait for).
//!
//! Invariants: [`scatter`] hands over every batch before it first waits; a part that waits
//! holds no place in the mesh, for a follower's fetch that ends the wait may need it.

use std::cell::RefCell;
use std::rc::Rc;

use smallvec::SmallVec;

use super::Shard;
use super::append_line::{self, Batch};
use super::flush;
use super::messages::{
    LongReply, ProduceOutcome, ProducePart, ProducePartition, ShardReply, ShardRequest,
};
use super::operation::OperationId;
use super::partition::{Attempt, Partition, Wakes};
use super::traffic::Traffic;
use super::wait::Wait;
use crate::base::{CoreId, ErrorCode, LeaderEpoch, Nanos, Offset, TopicIdPartition};
use crate::io::local::{self, oneshot, or_deadline};
use crate::purgatory::watch::Condition;
use crate::telemetry::Stage;
use crate::wire::api_key::ApiKey;

const ACKS_ALL: i16 = -1;
const ACKS_NONE: i16 = 0;
const API_KEY: i16 = ApiKey::Produce as i16;

pub type Outcomes = SmallVec<[ProduceOutcome; 1]>;

/// Bytes of records that one request has checked at once, with what appends cost besides:
/// 100 to 300 µs.
const COST_AT_ONCE: usize = 128 << 10;

/// What a part of a produce waits for.
#[derive(Default)]
pub struct Waiting {
    in_line: Vec<InLine>,
    unacknowledged: SmallVec<[Unacknowledged; 1]>,
}

impl Waiting {
    pub fn is_empty(&self) -> bool {
        self.in_line.is_empty() && self.unacknowledged.is_empty()
    }
}

/// A batch that has yet to be appended.
struct InLine {
    slot: u32,
    id: TopicIdPartition,
    attempt: oneshot::Receiver<Attempt>,
}

/// Appends on all owning cores and returns the outcomes in no particular order. Partitions
/// that no core owns have no outcome.
pub async fn scatter(shard: &Rc<Shard>, part: ProducePart, traffic: &Traffic) -> Outcomes {
    let ProducePart {
        acks,
        deadline,
        sent,
        version,
        partitions,
        ..
    } = part;
    let empty = |sent| ProducePart {
        acks,
        deadline,
        sent,
        version,
        ..ProducePart::default()
    };
    let mut local = empty(sent);
    let mut remote: SmallVec<[(CoreId, Box<ProducePart>); 1]> = SmallVec::new();
    for partition in partitions {
        let Some(core) = shard.owner(partition.partition) else {
            continue;
        };
        traffic.count_bytes(core, partition.records.len());
        let part = if core == shard.core() {
            &mut local
        } else {
            let index = match remote.iter().position(|(owner, _)| *owner == core) {
                Some(index) => index,
                None => {
                    remote.push((core, shard.produce_parts.fill(empty(sent))));
                    remote.len() - 1
                }
            };
            &mut *remote[index].1
        };
        part.partitions.push(partition);
    }
    // Looked at the clock only if there is another core to ask.
    let sent = if remote.is_empty() {
        sent
    } else {
        shard.rt().stamp()
    };
    let calls: SmallVec<[_; 1]> = remote
        .into_iter()
        .map(|(core, mut part)| {
            part.sent = sent;
            let slots: SmallVec<[u32; 4]> = part.partitions.iter().map(|p| p.slot).collect();
            let answer = shard.operations().answer();
            let request = ShardRequest::Produce(answer.id(), part);
            (slots, shard.call(core, request), answer)
        })
        .collect();
    let waiting = append(shard, &mut local);
    await_acknowledgement(shard, &mut local, waiting).await;
    let mut outcomes = local.outcomes;
    for (slots, call, answer) in calls {
        let answered = match call.await {
            Ok(ShardReply::Produce(part)) => Some(part),
            Ok(ShardReply::Done) => match answer.await {
                LongReply::Produce(part) => Some(part),
                _ => None,
            },
            _ => None,
        };
        match answered {
            Some(mut part) => {
                outcomes.extend(part.outcomes.drain(..));
                shard.produce_parts.keep(part, ProducePart::default());
            }
            None => outcomes.extend(
                slots
                    .into_iter()
                    .map(|slot| ProduceOutcome::refused(slot, ErrorCode::UNKNOWN_SERVER_ERROR)),
            ),
        }
    }
    outcomes
}

/// An appended batch whose acknowledgement waits for the in-sync replicas, the disk, or
/// both.
struct Unacknowledged {
    /// Position in the outcomes.
    outcome: usize,
    partition: TopicIdPartition,
    leader_epoch: LeaderEpoch,
    /// Its end: where the high watermark, and what is durable, have to be.
    required: Offset,
    /// With acks=all the high watermark has to be there.
    is_for_all: bool,
    /// Other replicas didn't have it when it was appended.
    by_replicas: bool,
    /// It wasn't durable when it was appended, and has to be.
    by_disk: bool,
}

/// Appends to partitions of this core, now, as far as that holds the core but shortly.
/// Returns what is in line, and what has yet to be acknowledged.
pub fn append(shard: &Rc<Shard>, part: &mut ProducePart) -> Waiting {
    let mut waiting = Waiting::default();
    if part.partitions.is_empty() {
        return waiting;
    }
    let from = shard.rt().last_stamp();
    let mut wakes = Wakes::new();
    let mut cost_left = COST_AT_ONCE;
    for ProducePartition {
        slot,
        partition: id,
        records,
        buffer_bytes,
    } in part.partitions.drain(..)
    {
        let Some(partition) = shard.partition(id) else {
            part.outcomes.push(ProduceOutcome::refused(
                slot,
                shard.directories().error_of_missing(id),
            ));
            continue;
        };
        let batch = Batch {
            slot,
            records,
            buffer_bytes,
            acks: part.acks,
            version: part.version,
        };
        let now_ms = shard.rt().wall_ms();
        let tried = {
            let mut partition = partition.borrow_mut();
            partition.try_append(batch, &mut cost_left, now_ms, &mut wakes)
        };
        match tried {
            Ok(attempt) => take_in(
                shard,
                id,
                Some(&partition),
                attempt,
                part.acks,
                &mut part.outcomes,
                &mut waiting,
            ),
            Err(batch) => {
                let attempt = append_line::enter(shard, id, &partition, batch);
                waiting.in_line.push(InLine { slot, id, attempt });
            }
        }
    }
    shard.wake_all(wakes);
    shard.end_stage(API_KEY, Stage::Appended, from);
    waiting
}

/// Notes an outcome, and what acknowledges it.
fn take_in(
    shard: &Rc<Shard>,
    id: TopicIdPartition,
    partition: Option<&Rc<RefCell<Partition>>>,
    attempt: Attempt,
    acks: i16,
    outcomes: &mut Outcomes,
    waiting: &mut Waiting,
) {
    let (outcome, required) = match attempt {
        Ok(appended) => appended,
        Err(refused) => {
            outcomes.push(*refused);
            return;
        }
    };
    if let Some(partition) = partition {
        let mut partition = partition.borrow_mut();
        flush::start_if_due(shard, id, &mut partition);
        let by_disk = partition.log().is_flush_due() && partition.durable_end() < required;
        let by_replicas = acks == ACKS_ALL && partition.replicated_end() < required;
        let is_committed = acks != ACKS_ALL || partition.high_watermark() >= required;
        if acks != ACKS_NONE && (by_disk || !is_committed) {
            waiting.unacknowledged.push(Unacknowledged {
                outcome: outcomes.len(),
                partition: id,
                leader_epoch: partition.leader_epoch(),
                required,
                is_for_all: acks == ACKS_ALL,
                by_replicas,
                by_disk,
            });
        }
    }
    outcomes.push(outcome);
}

/// Waits until each batch is appended; then until it is acknowledged by the in-sync replicas
/// and by the disk where that is asked for, or can't be: then its outcome gets the error
/// (DelayedProduce).
pub async fn await_acknowledgement(
    shard: &Rc<Shard>,
    part: &mut ProducePart,
    mut waiting: Waiting,
) {
    for InLine { slot, id, attempt } in std::mem::take(&mut waiting.in_line) {
        let attempt = attempt.await.unwrap_or_else(|local::Closed| {
            let error = ErrorCode::UNKNOWN_SERVER_ERROR;
            Err(Box::new(ProduceOutcome::refused(slot, error)))
        });
        let partition = shard.partition(id);
        take_in(
            shard,
            id,
            partition.as_ref(),
            attempt,
            part.acks,
            &mut part.outcomes,
            &mut waiting,
        );
    }
    let mut waiting = waiting.unacknowledged;
    let mut stages = AckStages::begin(shard, &waiting);
    while !waiting.is_empty() {
        let wait = Wait::new(shard);
        for batch in &waiting {
            wait.watch_local(batch.partition, batch.condition(shard));
        }
        let expired = or_deadline(shard.rt(), wait.notified(), part.deadline)
            .await
            .is_err();
        drop(wait);
        waiting.retain(|batch| match settle(shard, batch) {
            Some(error) => {
                part.outcomes[batch.outcome].error = error;
                false
            }
            None if expired => {
                part.outcomes[batch.outcome].error = ErrorCode::REQUEST_TIMED_OUT;
                false
            }
            None => true,
        });
        stages.note(&waiting);
    }
    stages.end();
}

/// The stages of a wait for acknowledgement: for the replicas, and then for the disk.
struct AckStages<'a> {
    shard: &'a Shard,
    began: Nanos,
    by_replicas: bool,
    by_disk: bool,
    /// When no batch waited for replicas any more.
    replicated: Option<Nanos>,
}

impl<'a> AckStages<'a> {
    fn begin(shard: &'a Shard, waiting: &[Unacknowledged]) -> AckStages<'a> {
        AckStages {
            shard,
            began: shard.rt().last_stamp(),
            by_replicas: waiting.iter().any(|batch| batch.by_replicas),
            by_disk: waiting.iter().any(|batch| batch.by_disk),
            replicated: None,
        }
    }

    /// After a wake.
    fn note(&mut self, waiting: &[Unacknowledged]) {
        let mut waits = waiting
            .iter()
            .map(|batch| batch.by_replicas && !batch.is_replicated(self.shard));
        if self.by_replicas && self.replicated.is_none() && !waits.any(|waits| waits) {
            self.replicated = Some(self.shard.rt().last_stamp());
        }
    }

    fn end(self) {
        let metrics = self.shard.metrics();
        let now = self.shard.rt().last_stamp();
        let replicated = match self.by_replicas {
            true => self.replicated.unwrap_or(now),
            false => self.began,
        };
        if self.by_replicas {
            metrics.record(API_KEY, Stage::Purgatory, self.began, replicated);
        }
        if self.by_disk {
            metrics.record(API_KEY, Stage::Flushed, replicated, now);
        }
    }
}

/// Waits as [`await_acknowledgement`] and answers the operation of another core.
pub async fn acknowledge_remote(
    shard: Rc<Shard>,
    operation: OperationId,
    mut part: Box<ProducePart>,
    waiting: Waiting,
) {
    await_acknowledgement(&shard, &mut part, waiting).await;
    let reply = Box::new(LongReply::Produce(part));
    shard.post(operation.core, ShardRequest::LongDone(operation, reply));
}

impl Unacknowledged {
    fn is_replicated(&self, shard: &Shard) -> bool {
        shard
            .partition(self.partition)
            .is_some_and(|partition| partition.borrow().replicated_end() >= self.required)
    }

    /// What it waits for now; the disk last. Under fsync the high watermark waits for the
    /// disk itself.
    fn condition(&self, shard: &Shard) -> Condition {
        let required = self.required.0;
        let partition = shard.partition(self.partition);
        let is_durable = partition.is_some_and(|p| p.borrow().durable_end() >= self.required);
        if self.by_disk && !is_durable && (!self.by_replicas || self.is_replicated(shard)) {
            Condition::Durable(required)
        } else {
            Condition::HighWatermark(required)
        }
    }
}

/// The final error of an appended batch (none if it is acknowledged), or nothing yet.
fn settle(shard: &Shard, batch: &Unacknowledged) -> Option<ErrorCode> {
    let Some(partition) = shard.partition(batch.partition) else {
        return Some(ErrorCode::NOT_LEADER_OR_FOLLOWER);
    };
    let partition = partition.borrow();
    if partition.is_offline() {
        return Some(ErrorCode::KAFKA_STORAGE_ERROR);
    }
    if partition.leader_epoch() != batch.leader_epoch || partition.check_leader().is_err() {
        Some(ErrorCode::NOT_LEADER_OR_FOLLOWER)
    } else if (batch.is_for_all && partition.high_watermark() < batch.required)
        || (batch.by_disk && partition.durable_end() < batch.required)
    {
        // What an offline log has is never acknowledged.
        let is_offline = partition.log().is_offline();
        is_offline.then_some(ErrorCode::KAFKA_STORAGE_ERROR)
    } else if !batch.is_for_all || partition.replica().may_acknowledge() {
        Some(ErrorCode::NONE)
    } else {
        Some(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND)
    }
}
