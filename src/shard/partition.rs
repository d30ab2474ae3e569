//! One partition on its owning core: the log, the replica state beside it, and the
//! operations that wait for it. The only place where appends and reads meet.
//!
//! Called by `shard::produce`, `shard::fetch` and `shard::replicas`; nothing here awaits.
//! Whoever changes a partition passes [`Wakes`] and rings the operations in it after the
//! borrow has ended.
//!
//! Invariants: `readable_bytes <= log_bytes`; consumers read below the high watermark
//! only, under fsync also below the durable end (the log's recovery point), from which
//! `replica` counts it; a refused batch leaves the log as it was.

mod disk;
mod follower;
mod leader;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use super::append_line::{Batch, Line};
use super::directories::Failures;
use super::flush::Flights;
use super::messages::{
    CopySummary, EpochEnd, FetchAnswer, FetchPartition, FetchRead, FoundOffset, LogSummary,
    PartitionCall, PartitionReply, ProduceOutcome, Seen,
};
use super::metrics::TopicTotals;
use super::operation::OperationId;
use super::topic_rules::{log_config, rules};
use crate::base::{
    BrokerId, ErrorCode, LeaderEpoch, Millis, Nanos, Offset, TopicIdPartition, Uuid,
};
use crate::config::TopicConfig;
use crate::log::{AppendInfo, AppendOrigin, FoundTimestamp, Log, LogError, ReadError};
use crate::purgatory::watch::{Condition, Progress, Watchers};
use crate::record::batch::Batches;
use crate::record::validate::{Rejected, Validated, Validation, ValidationRules, validate_shape};
use crate::replica::{Assignment, Replica, Transition};

/// Operations to be woken once the partition is no longer borrowed.
pub type Wakes = SmallVec<[OperationId; 8]>;

/// The outcome of an append and the high watermark that acknowledges it, or of a refusal.
pub type Attempt = Result<(ProduceOutcome, Offset), Box<ProduceOutcome>>;

const ACKS_ALL: i16 = -1;
/// What an append costs besides the check of its bytes: as much as that of so many.
const APPEND_COST: usize = 8 << 10;
/// A validation that the budget suffices for: the CRC, the records, writing them anew.
const VALIDATION_STEPS: usize = 3;

/// ListOffsets' special timestamps (`ListOffsetsRequest`).
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

pub struct Partition {
    id: TopicIdPartition,
    topic: Arc<str>,
    /// The log directory that holds it.
    directory: Uuid,
    log: Log,
    replica: Replica,
    config: Arc<TopicConfig>,
    watchers: Watchers<OperationId>,
    line: Line,
    /// Bytes appended since the partition was opened.
    log_bytes: u64,
    /// Those of them that lie below the high watermark.
    readable_bytes: u64,
    /// Ends of appends above the high watermark, with `log_bytes` after each.
    unreplicated: VecDeque<(Offset, u64)>,
    /// Rises with every change other than an append.
    version: u32,
    /// When records were last flushed, from which `flush.ms` counts.
    last_flush: Nanos,
    flights: Flights,
    /// Its log directory has failed: it serves nothing until the next start.
    offline: bool,
    failures: Rc<Failures>,
    /// When a lack of space was last told of.
    full_told_ms: Option<Millis>,
    /// The copy in another log directory, while it is being made.
    copy: Option<CopySummary>,
    /// Nothing is appended for a moment: the copy is about to take over.
    is_paused: bool,
    totals: Rc<TopicTotals>,
}

impl Partition {
    pub fn new(
        id: TopicIdPartition,
        topic: Arc<str>,
        directory: Uuid,
        log: Log,
        mut replica: Replica,
        config: Arc<TopicConfig>,
        totals: Rc<TopicTotals>,
    ) -> Partition {
        replica.set_durability(config.durability());
        replica.set_min_insync_replicas(config.min_insync_replicas);
        replica.on_durable(log.recovery_point());
        Partition {
            id,
            topic,
            directory,
            log,
            replica,
            config,
            watchers: Watchers::default(),
            line: Line::default(),
            log_bytes: 0,
            readable_bytes: 0,
            unreplicated: VecDeque::new(),
            version: 0,
            last_flush: Nanos(0),
            flights: Flights::default(),
            offline: false,
            failures: Rc::default(),
            full_told_ms: None,
            copy: None,
            is_paused: false,
            totals,
        }
    }

    /// What clients write and read of its topic on this core.
    pub fn totals(&self) -> &TopicTotals {
        &self.totals
    }

    pub fn id(&self) -> TopicIdPartition {
        self.id
    }

    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    pub fn directory(&self) -> Uuid {
        self.directory
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    pub fn config(&self) -> &TopicConfig {
        &self.config
    }

    pub fn high_watermark(&self) -> Offset {
        self.replica.high_watermark()
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.replica.leader_epoch()
    }

    pub fn check_leader(&self) -> Result<(), ErrorCode> {
        self.check_leader_of(LeaderEpoch::UNKNOWN)
    }

    /// As in Kafka a partition that is offline says so, whoever leads it.
    fn check_leader_of(&self, current_leader_epoch: LeaderEpoch) -> Result<(), ErrorCode> {
        if self.offline {
            return Err(ErrorCode::KAFKA_STORAGE_ERROR);
        }
        self.replica.check_leader(current_leader_epoch)
    }

    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// What [`Seen::version`] is compared with.
    pub fn seen_version(&self) -> u32 {
        self.version
    }

    /// Changes what the log does without the log itself (roll, retention, compression), and
    /// whether the high watermark waits for the disk. A flush may be due then.
    pub fn set_config(&mut self, config: Arc<TopicConfig>, wakes: &mut Wakes) {
        self.log.set_config(log_config(&config));
        self.replica.set_durability(config.durability());
        self.replica
            .set_min_insync_replicas(config.min_insync_replicas);
        self.config = config;
        self.advance(wakes);
    }

    /// Everything below is on stable storage.
    pub fn durable_end(&self) -> Offset {
        self.log.recovery_point()
    }

    /// Up to where all other in-sync replicas have it.
    pub fn replicated_end(&self) -> Offset {
        self.replica.replicated_end()
    }

    /// Takes what the metadata log says about leader and replicas.
    pub fn on_assignment(
        &mut self,
        assignment: Assignment,
        now: Nanos,
        wakes: &mut Wakes,
    ) -> Transition {
        let transition = self.replica.on_assignment(assignment, now);
        match transition {
            Transition::Stale | Transition::Unchanged => {}
            Transition::BecameLeader { leader_epoch } => {
                if let Err(error) = self.log.start_epoch(leader_epoch) {
                    self.on_log_error(&error);
                    tracing::error!(
                        topic = %self.topic,
                        partition = %self.id.partition,
                        %leader_epoch,
                        %error,
                        "the start of a leader epoch can't be written"
                    );
                }
                self.changed(wakes);
            }
            Transition::BecameFollower { .. } | Transition::NoLeader => self.changed(wakes),
        }
        self.advance(wakes);
        transition
    }

    /// Validates and appends the records of one partition of a Produce, unless that needs
    /// more than `cost_left`, from which it takes what it costs, or others stand in line:
    /// then nothing has happened, and the batch belongs in the [`Line`].
    pub fn try_append(
        &mut self,
        batch: Batch,
        cost_left: &mut usize,
        now_ms: Millis,
        wakes: &mut Wakes,
    ) -> Result<Attempt, Batch> {
        if !self.line.is_empty() || *cost_left == 0 {
            return Err(batch);
        }
        let (slot, budget) = (batch.slot, *cost_left);
        *cost_left = budget.saturating_sub(APPEND_COST + batch.records.len());
        if let Err(refused) = self.admit(&batch) {
            return Ok(Err(refused));
        }
        let rules = self.rules_of(&batch, now_ms);
        let size = match validate_shape(&batch.records, batch.version) {
            Ok(size) => size,
            Err(rejected) => return Ok(Err(misshapen(slot, rejected))),
        };
        let whole = &batch.records[..size];
        let validation = Validation::begin(whole, &rules).and_then(|mut validation| {
            for _ in 0..VALIDATION_STEPS {
                if validation.advance(whole, budget)? {
                    return Ok(Some(validation));
                }
            }
            Ok(None)
        });
        let validation = match validation {
            Ok(Some(validation)) => Ok(validation),
            Ok(None) => return Err(batch),
            Err(rejected) => Err(rejected),
        };
        let mut batch = batch;
        batch.records.truncate(size);
        let records = std::mem::take(&mut batch.records);
        let validated = validation.map(|validation| validation.finish(records));
        Ok(self.append_validated(&batch, validated, now_ms, wakes))
    }

    /// Whether a batch may be appended now, as far as this partition goes.
    pub fn admit(&self, batch: &Batch) -> Result<(), Box<ProduceOutcome>> {
        let refused = |error| ProduceOutcome::refused(batch.slot, error);
        if let Err(error) = self.check_leader() {
            let tells_leader = error == ErrorCode::NOT_LEADER_OR_FOLLOWER;
            return Err(Box::new(ProduceOutcome {
                leader: self.current_leader().filter(|_| tells_leader),
                ..refused(error)
            }));
        }
        if self.is_paused {
            return Err(Box::new(refused(ErrorCode::NOT_LEADER_OR_FOLLOWER)));
        }
        if batch.acks == ACKS_ALL && !self.replica.may_append() {
            return Err(Box::new(refused(ErrorCode::NOT_ENOUGH_REPLICAS)));
        }
        Ok(())
    }

    /// Appends a batch that was admitted and validated, or says why it was rejected. Its
    /// records have gone from `batch`.
    pub fn append_validated(
        &mut self,
        batch: &Batch,
        validated: Result<Validated, Rejected>,
        now_ms: Millis,
        wakes: &mut Wakes,
    ) -> Attempt {
        let slot = batch.slot;
        let refused = |error| Box::new(ProduceOutcome::refused(slot, error));
        let mut validated =
            validated.map_err(|rejected| Box::new(self.rejected(slot, rejected)))?;
        if !validated.rewritten {
            validated.buffer_bytes = validated.buffer_bytes.max(batch.buffer_bytes);
        }
        if validated.is_transactional {
            // No transaction can be open without a coordinator.
            return Err(refused(ErrorCode::INVALID_TXN_STATE));
        }
        let bytes = validated.bytes.len();
        let appended = self
            .log
            .append_as_leader(validated, self.replica.leader_epoch(), now_ms)
            .map_err(|error| {
                self.on_append_error(&error, now_ms);
                refused(error.error_code())
            })?;
        self.on_appended(&appended, wakes);
        self.totals().count_append(bytes);
        let outcome = ProduceOutcome {
            slot,
            error: ErrorCode::NONE,
            base_offset: appended.first_offset,
            log_append_time: appended.log_append_time,
            log_start_offset: self.log.log_start_offset(),
            record_errors: Vec::new(),
            message: None,
            leader: None,
        };
        Ok((outcome, appended.last_offset + 1))
    }

    /// The batches that wait to be validated.
    pub fn line(&mut self) -> &mut Line {
        &mut self.line
    }

    /// A topic's name and config, which outlast a borrow of the partition.
    pub fn rules_basis(&self) -> (Arc<str>, Arc<TopicConfig>) {
        (self.topic.clone(), self.config.clone())
    }

    fn rules_of(&self, batch: &Batch, now_ms: Millis) -> ValidationRules<'_> {
        let partition = self.id.partition;
        rules(&self.topic, partition, &self.config, batch.version, now_ms)
    }

    /// Appends a batch of a coordinator of ours.
    pub fn append_internal(
        &mut self,
        batch: Bytes,
        now_ms: Millis,
        wakes: &mut Wakes,
    ) -> Result<AppendInfo, ErrorCode> {
        self.check_leader()?;
        if !self.replica.may_append() || self.is_paused {
            return Err(ErrorCode::NOT_ENOUGH_REPLICAS);
        }
        if batch.len() > usize::try_from(self.config.max_message_bytes).unwrap_or(0) {
            return Err(ErrorCode::MESSAGE_TOO_LARGE);
        }
        let origin = AppendOrigin::Coordinator {
            transaction_version: 0,
        };
        let appended = self
            .log
            .append_own(batch, self.replica.leader_epoch(), origin, now_ms)
            .map_err(|error| {
                self.on_append_error(&error, now_ms);
                error.error_code()
            })?;
        self.on_appended(&appended, wakes);
        Ok(appended)
    }

    /// Reads for one partition of a Fetch, at least one batch if there is any.
    pub fn read(&mut self, asked: &FetchPartition, read: &FetchRead) -> FetchAnswer {
        let seen = self.seen(read);
        let refused = |error| FetchAnswer {
            seen,
            ..FetchAnswer::refused(asked.slot, error)
        };
        if let Err(error) = self.check_fetch(asked, read) {
            // A newer epoch than ours says nothing about where the leader is.
            let tells_leader =
                error != ErrorCode::UNKNOWN_LEADER_EPOCH && error != ErrorCode::KAFKA_STORAGE_ERROR;
            return FetchAnswer {
                leader: self.current_leader().filter(|_| tells_leader),
                ..refused(error)
            };
        }
        let log_start = self.log.log_start_offset();
        match self.divergence(asked) {
            None => {}
            Some(Err(error)) => return refused(error),
            Some(Ok(diverging)) => {
                return FetchAnswer {
                    error: ErrorCode::NONE,
                    high_watermark: self.high_watermark(),
                    last_stable_offset: self.last_stable_offset(),
                    log_start_offset: log_start,
                    diverging: Some(diverging),
                    ..refused(ErrorCode::NONE)
                };
            }
        }
        if !self.holds(asked.fetch_offset) {
            return refused(ErrorCode::OFFSET_OUT_OF_RANGE);
        }
        let upper = self.upper_bound(read);
        let max_bytes = asked.partition_max_bytes.min(read.max_bytes) as usize;
        let found = match self.log.read(asked.fetch_offset, max_bytes, upper, true) {
            Ok(found) => found,
            Err(error) => {
                self.on_read_error(&error, asked.fetch_offset);
                return refused(error.error_code());
            }
        };
        FetchAnswer {
            slot: asked.slot,
            error: ErrorCode::NONE,
            high_watermark: self.high_watermark(),
            last_stable_offset: self.last_stable_offset(),
            log_start_offset: log_start,
            aborted: read.read_committed.then(Vec::new),
            diverging: None,
            leader: None,
            bytes: u32::try_from(found.bytes).expect("a segment has 2 GiB at most"),
            first_batch_bytes: found.first_batch_bytes,
            chunks: found.chunks,
            seen,
        }
    }

    /// Whole batches from `from` on, for a coordinator that loads: about `max_bytes`, but
    /// at least one batch unless the log ends there. Damage is told and passed over: without
    /// a few records its groups are served, without the rest none would be.
    pub fn read_whole_batches(
        &mut self,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Bytes, ReadError> {
        let upper = self.log.log_end_offset();
        let mut from = from.max(self.log.log_start_offset());
        let mut bytes = loop {
            match self.log.read_bytes(from, max_bytes, upper) {
                Err(ReadError::Log(LogError::Corrupt { next_offset, .. }))
                    if next_offset > from =>
                {
                    tracing::error!(
                        topic = %self.topic,
                        partition = %self.id.partition,
                        offset = %from,
                        %next_offset,
                        "records can't be read: the coordinator goes on without them"
                    );
                    from = next_offset;
                }
                read => break read?,
            }
        };
        let mut whole = Batches::new(&bytes);
        while let Some(Ok(_)) = whole.next() {}
        let end = whole.position();
        bytes.truncate(end);
        Ok(bytes.freeze())
    }

    /// Answers a short call.
    pub fn answer(&mut self, call: &PartitionCall, wakes: &mut Wakes) -> PartitionReply {
        let answered = match *call {
            PartitionCall::FindOffset {
                timestamp,
                current_leader_epoch,
                read_committed,
                from_consumer,
            } => self
                .check_leader_of(current_leader_epoch)
                .and_then(|()| self.find_offset(timestamp, read_committed, from_consumer))
                .map(PartitionReply::Offset),
            PartitionCall::EpochEnd {
                current_leader_epoch,
                epoch,
            } => self
                .check_leader_of(current_leader_epoch)
                .map(|()| PartitionReply::EpochEnd(self.epoch_end(epoch))),
            PartitionCall::DeleteRecords { offset } => self
                .delete_records(offset, wakes)
                .map(PartitionReply::Deleted),
            PartitionCall::Move { directory } => {
                self.move_to(directory).map(|()| PartitionReply::Moving)
            }
            PartitionCall::Summary => Ok(PartitionReply::Summary(LogSummary {
                directory: self.directory,
                size_bytes: self.log.size_in_bytes(),
                log_end_offset: self.log.log_end_offset(),
                high_watermark: self.high_watermark(),
                copy: self.copy,
            })),
        };
        answered.unwrap_or_else(PartitionReply::Refused)
    }

    /// Puts an operation on the watch list. False if the condition holds already: then it
    /// is not on the list.
    pub fn watch(&mut self, operation: OperationId, condition: Condition) -> bool {
        if condition.is_met(&self.progress()) {
            return false;
        }
        self.watchers.watch(operation, condition);
        true
    }

    pub fn unwatch(&mut self, operation: &OperationId) {
        self.watchers.unwatch(operation);
    }

    /// Everyone who waits looks again: the partition goes away or has changed its leader.
    pub fn changed(&mut self, wakes: &mut Wakes) {
        self.version = self.version.wrapping_add(1);
        self.watchers.all(|operation| wakes.push(operation));
    }

    /// Work on the log by this core's background task.
    pub fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    /// Whether `flush.messages` or `flush.ms` ask for a sync of everything, or the recovery
    /// point waits for one.
    pub fn is_flush_due(&self, now: Nanos) -> bool {
        let flush_ms = u64::try_from(self.config.flush_ms).unwrap_or(0);
        self.log.is_flush_due()
            || self.log.is_checkpoint_prepared()
            || (self.log.unflushed() > 0
                && now.saturating_since(self.last_flush) >= Duration::from_millis(flush_ms))
    }

    /// Whether there is anything for a flush to do now.
    pub fn has_flush_work(&self, now: Nanos) -> bool {
        self.flights.is_empty() && (self.is_flush_due(now) || self.log.has_unflushed_files())
    }

    /// When `flush.ms` asks for a sync of what there is; `None` for never.
    pub fn flush_due_at(&self) -> Option<Nanos> {
        let flush_ms = u64::try_from(self.config.flush_ms).unwrap_or(0);
        let is_limited = self.config.flush_ms < i64::MAX && self.log.unflushed() > 0;
        is_limited.then(|| self.last_flush + Duration::from_millis(flush_ms))
    }

    pub fn flights(&self) -> &Flights {
        &self.flights
    }

    pub fn flights_mut(&mut self) -> &mut Flights {
        &mut self.flights
    }

    /// Everything below `up_to` is on stable storage.
    pub fn on_flushed(&mut self, up_to: Offset, now: Nanos, wakes: &mut Wakes) {
        let before = self.durable_end();
        self.log.on_flushed(up_to);
        if self.durable_end() > before {
            self.last_flush = now;
        }
        self.replica.on_durable(self.log.recovery_point());
        self.advance(wakes);
    }

    /// The log start may have moved (retention): tell who waits for it.
    pub fn on_log_start_moved(&mut self, wakes: &mut Wakes) {
        let log_start = self.log.log_start_offset();
        self.replica.on_log_start(log_start);
        // What was deleted needs no disk any more.
        self.replica.on_durable(self.log.recovery_point());
        self.advance(wakes);
    }

    fn on_appended(&mut self, appended: &AppendInfo, wakes: &mut Wakes) {
        if appended.duplicate {
            return;
        }
        self.log_bytes += u64::from(appended.bytes);
        let log_end = appended.last_offset + 1;
        self.unreplicated.push_back((log_end, self.log_bytes));
        self.replica.on_append(log_end);
        self.advance(wakes);
    }

    /// Counts what the high watermark has passed and wakes whoever waited for it.
    fn advance(&mut self, wakes: &mut Wakes) {
        self.log.on_high_watermark(self.high_watermark());
        self.count_readable();
        if !self.watchers.is_empty() {
            let progress = self.progress();
            self.watchers
                .due(&progress, |operation| wakes.push(operation));
        }
    }

    fn count_readable(&mut self) {
        let high_watermark = self.high_watermark();
        while let Some(&(end, bytes)) = self.unreplicated.front()
            && end <= high_watermark
        {
            self.readable_bytes = bytes;
            self.unreplicated.pop_front();
        }
    }

    fn progress(&self) -> Progress {
        Progress {
            high_watermark: self.high_watermark().0,
            readable_bytes: self.readable_bytes,
            log_bytes: self.log_bytes,
            log_start: self.replica.low_watermark(self.log.log_start_offset()).0,
            durable: self.durable_end().0,
        }
    }

    fn seen(&self, read: &FetchRead) -> Seen {
        Seen {
            bytes: if read.replica == BrokerId::NONE {
                self.readable_bytes
            } else {
                self.log_bytes
            },
            version: self.version,
        }
    }

    fn rejected(&self, slot: u32, rejected: Rejected) -> ProduceOutcome {
        // As in Kafka, which knows the log only where the batch got as far as its records.
        let log_start_offset = match rejected.error {
            ErrorCode::CORRUPT_MESSAGE
            | ErrorCode::MESSAGE_TOO_LARGE
            | ErrorCode::RECORD_LIST_TOO_LARGE => Offset::UNKNOWN,
            _ => self.log.log_start_offset(),
        };
        ProduceOutcome {
            log_start_offset,
            ..rejected_outcome(slot, rejected)
        }
    }

    fn current_leader(&self) -> Option<(BrokerId, LeaderEpoch)> {
        let assignment = self.replica.assignment();
        Some((assignment.leader, assignment.leader_epoch))
    }

    fn last_stable_offset(&self) -> Offset {
        match self.log.first_unstable_offset() {
            Some(unstable) => unstable.min(self.high_watermark()),
            None => self.high_watermark(),
        }
    }

    fn upper_bound(&self, read: &FetchRead) -> Offset {
        if read.replica != BrokerId::NONE {
            self.log.log_end_offset()
        } else if read.read_committed {
            self.last_stable_offset()
        } else {
            self.high_watermark()
        }
    }

    fn find_offset(
        &self,
        timestamp: i64,
        read_committed: bool,
        from_consumer: bool,
    ) -> Result<FoundOffset, ErrorCode> {
        let none = FoundOffset {
            timestamp: -1,
            offset: Offset::UNKNOWN,
            leader_epoch: LeaderEpoch::UNKNOWN,
        };
        let readable = if !from_consumer {
            self.log.log_end_offset()
        } else if read_committed {
            self.last_stable_offset()
        } else {
            self.high_watermark()
        };
        if from_consumer && timestamp == LATEST && self.replica.is_high_watermark_behind_term() {
            return Err(ErrorCode::OFFSET_NOT_AVAILABLE);
        }
        let found = match timestamp {
            LATEST => FoundOffset {
                timestamp: -1,
                offset: readable,
                leader_epoch: self.leader_epoch(),
            },
            EARLIEST | EARLIEST_LOCAL => {
                let start = self.log.log_start_offset();
                FoundOffset {
                    timestamp: -1,
                    offset: start,
                    leader_epoch: self
                        .log
                        .epochs()
                        .epoch_for_offset(start)
                        .unwrap_or(LeaderEpoch::UNKNOWN),
                }
            }
            LATEST_TIERED | EARLIEST_PENDING_UPLOAD => none,
            MAX_TIMESTAMP => self
                .log
                .max_timestamp()
                .map_err(|error| error.error_code())?
                .map_or(none, found_offset),
            timestamp => self
                .log
                .offset_for_timestamp(timestamp)
                .map_err(|error| error.error_code())?
                .map_or(none, found_offset),
        };
        // A record that consumers can't read yet isn't told.
        if timestamp >= 0 && found.offset >= readable {
            return match from_consumer && self.replica.is_high_watermark_behind_term() {
                true => Err(ErrorCode::OFFSET_NOT_AVAILABLE),
                false => Ok(none),
            };
        }
        Ok(found)
    }

    fn epoch_end(&self, epoch: LeaderEpoch) -> EpochEnd {
        match self.log.end_offset_for_epoch(epoch) {
            Some((epoch, end_offset)) => EpochEnd { epoch, end_offset },
            None => EpochEnd {
                epoch: LeaderEpoch::UNKNOWN,
                end_offset: Offset::UNKNOWN,
            },
        }
    }

    fn delete_records(&mut self, offset: Offset, wakes: &mut Wakes) -> Result<Offset, ErrorCode> {
        self.check_leader()?;
        if !self.config.cleanup_policy.delete {
            return Err(ErrorCode::POLICY_VIOLATION);
        }
        let high_watermark = self.high_watermark();
        let target = if offset == Offset::UNKNOWN {
            high_watermark
        } else {
            offset
        };
        if target.0 < 0 || target > high_watermark {
            return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
        }
        self.log
            .increase_log_start_offset(target)
            .map_err(|error| {
                self.on_log_error(&error);
                error.error_code()
            })?;
        self.on_log_start_moved(wakes);
        Ok(self.log.log_start_offset())
    }
}

/// The outcome of records that aren't one whole batch. A corrupt shape is told in words,
/// unlike other refusals.
pub fn misshapen(slot: u32, rejected: Rejected) -> Box<ProduceOutcome> {
    let corrupt = rejected.error == ErrorCode::CORRUPT_MESSAGE;
    let detail = corrupt.then(|| rejected.detail.clone());
    let outcome = rejected_outcome(slot, rejected);
    Box::new(ProduceOutcome {
        message: outcome.message.or(detail),
        ..outcome
    })
}

fn rejected_outcome(slot: u32, rejected: Rejected) -> ProduceOutcome {
    ProduceOutcome {
        record_errors: rejected.record_errors,
        message: rejected.message,
        ..ProduceOutcome::refused(slot, rejected.error)
    }
}

fn found_offset(found: FoundTimestamp) -> FoundOffset {
    FoundOffset {
        timestamp: found.timestamp,
        offset: found.offset,
        leader_epoch: found.leader_epoch,
    }
}
