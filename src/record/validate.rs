//! What a leader checks of a produced batch before it appends it, and what it changes:
//! Kafka's `ProduceRequest.validateRecords` ([`validate_shape`]), the leader's part of
//! `UnifiedLog.analyzeAndValidateRecords` and `LogValidator` ([`validate`]), with their
//! error codes and texts. Offsets and leader epoch are stamped later, by the log; sequence
//! numbers are judged there too.
//!
//! A batch is kept as it came ("in place"): at most timestamp type, max timestamp and CRC
//! are rewritten. It is built anew ("rewritten"), with offsets 0, 1, 2, …, when the topic's
//! `compression.type` is another codec than the batch's. As in Kafka
//! - inner offsets other than 0, 1, 2, … don't matter in a batch that is and stays
//!   uncompressed;
//! - they are an error, -1, in a compressed batch that keeps its codec: Kafka sets out to
//!   build it anew, having skipped keys and values, and throws.
//!
//! Deliberate differences, all on batches that no client produces:
//! - In a compressed batch kept in place Kafka does not compare a record's declared size
//!   with its fields. Its own consumers do, and stop there for ever; we answer 87.
//! - At most [`RECORD_ERRORS_MAX`] record errors are returned; the total in the message is
//!   right. Kafka returns one for every record, however small the batch was compressed.
//! - A stream of which more than [`OUTPUT_BYTES_MAX`] bytes come is refused with 87.
//! - A batch shorter than its header is 2; Kafka answers -1 where it is shorter than 27.
//! - A rewritten batch is refused with 10 as soon as it has grown too large.
//!
//! Cost: the uncompressed walk allocates nothing. A compressed batch takes a chunk buffer
//! and its decoder (see `decompress`). [`Validation`] does the same in steps, so that a
//! large compressed batch need not hold its core.

use bytes::{Bytes, BytesMut};

use super::batch::{
    BatchError, BatchView, HEADER_UP_TO_MAGIC, MAGIC, OVERHEAD_BYTES, ProducerInfo, TimestampType,
    peek_length, peek_magic, set_max_timestamp_by,
};
use super::compression::{Compression, CompressionType};
use super::crc::TailCrc;
use super::decompress::OUTPUT_BYTES_MAX;
use super::feed::Feed;
use super::rewrite::Rewrite;
use super::view::{Malformed, RecordsError, Skim};
use crate::base::{ErrorCode, Millis, PartitionIndex};

/// Record errors returned at most.
pub const RECORD_ERRORS_MAX: usize = 1_000;
/// First Produce version that may carry zstd.
const ZSTD_FROM_VERSION: i16 = 7;
/// "No timestamp" in a record.
pub(super) const NO_TIMESTAMP: Millis = -1;

/// Who appends (`AppendOrigin`). Batches of followers and of Raft's leader are not
/// validated here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Client,
    /// A coordinator of ours: may write control batches and other offsets than 0.
    Coordinator,
}

/// `compression.type` of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetCompression {
    /// Whatever the producer took.
    Producer,
    Codec(Compression),
}

/// What the checks depend on: the topic's configuration, the clock, the request.
#[derive(Clone, Copy, Debug)]
pub struct ValidationRules<'a> {
    /// For the texts of errors.
    pub topic: &'a str,
    pub partition: PartitionIndex,
    pub now_ms: Millis,
    /// `max.message.bytes`
    pub max_message_bytes: i32,
    pub compression_type: TargetCompression,
    /// `message.timestamp.type`
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`
    pub before_max_ms: i64,
    /// `message.timestamp.after.max.ms`
    pub after_max_ms: i64,
    /// Whether `cleanup.policy` contains `compact`.
    pub compacted: bool,
    pub origin: Origin,
    /// Version of the Produce request; see [`validate_shape`].
    pub produce_version: i16,
}

/// A batch that may be appended. Base offset and leader epoch are not set yet.
#[derive(Debug)]
pub struct Validated {
    /// One whole batch: the bytes given, or new ones when it was rewritten.
    pub bytes: BytesMut,
    /// Size of the buffer that they lie in, as far as it is known here: others may share it.
    pub buffer_bytes: usize,
    pub record_count: i32,
    pub last_offset_delta: i32,
    /// -1 if no record has a timestamp.
    pub max_timestamp: Millis,
    /// Delta of the first record with the max timestamp; 0 if none has one.
    pub offset_of_max_timestamp_delta: i32,
    pub producer: ProducerInfo,
    pub is_transactional: bool,
    pub is_control: bool,
    pub timestamp_type: TimestampType,
    /// -1 unless the topic takes append times.
    pub log_append_time: Millis,
    pub rewritten: bool,
}

/// Why a batch is refused, in a Produce response's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub error: ErrorCode,
    /// Index of a record in the batch, and what is wrong with it.
    pub record_errors: Vec<(i32, Option<String>)>,
    /// `ErrorMessage` of the response. Kafka sends one only with record errors.
    pub message: Option<String>,
    /// The text of Kafka's exception, for diagnostics; not sent.
    pub detail: String,
}

impl Rejected {
    pub(super) fn new(error: ErrorCode, detail: impl Into<String>) -> Rejected {
        Rejected {
            error,
            record_errors: Vec::new(),
            message: None,
            detail: detail.into(),
        }
    }

    fn invalid(detail: impl Into<String>) -> Rejected {
        Rejected::new(ErrorCode::INVALID_RECORD, detail)
    }

    fn corrupt(detail: impl Into<String>) -> Rejected {
        Rejected::new(ErrorCode::CORRUPT_MESSAGE, detail)
    }
}

impl From<Malformed> for Rejected {
    fn from(error: Malformed) -> Rejected {
        RecordsError::from(error).into()
    }
}

impl From<RecordsError> for Rejected {
    fn from(error: RecordsError) -> Rejected {
        Rejected::new(error.error_code(), error.to_string())
    }
}

/// Checks that a partition's records are exactly one batch of magic 2, and returns its
/// size. Kafka's readers ignore what follows it if that is no whole batch; the caller cuts
/// it off.
pub fn validate_shape(records: &[u8], produce_version: i16) -> Result<usize, Rejected> {
    let prefix = |rest: &str| format!("Produce requests with version {produce_version} {rest}");
    let size = whole_batch(records)?.ok_or_else(|| {
        Rejected::invalid(prefix("must have at least one record batch per partition"))
    })?;
    if peek_magic(records) != Some(MAGIC) {
        return Err(Rejected::invalid(prefix(
            "are only allowed to contain record batches with magic version 2",
        )));
    }
    let (first, rest) = records.split_at(size);
    // The codec is looked at only for old versions, so only there an unknown one comes
    // before the other checks.
    if produce_version < ZSTD_FROM_VERSION
        && let Ok(view) = BatchView::parse(first)
        && codec(&view)? == CompressionType::Zstd
    {
        return Err(Rejected::new(
            ErrorCode::UNSUPPORTED_COMPRESSION_TYPE,
            prefix("are not allowed to use ZStandard compression"),
        ));
    }
    if whole_batch(rest)?.is_some() {
        return Err(Rejected::invalid(prefix(
            "are only allowed to contain exactly one record batch per partition",
        )));
    }
    Ok(size)
}

/// Size of the batch of any magic that `bytes` begin with; `None` if it is cut off
/// (`ByteBufferLogInputStream.nextBatch`).
fn whole_batch(bytes: &[u8]) -> Result<Option<usize>, Rejected> {
    const RECORD_OVERHEAD_V0: i32 = 14;
    let Some(length) = peek_length(bytes) else {
        return Ok(None);
    };
    if length < RECORD_OVERHEAD_V0 {
        return Err(Rejected::corrupt(format!(
            "Record size {length} is less than the minimum record overhead ({RECORD_OVERHEAD_V0})"
        )));
    }
    let Some(magic) = peek_magic(bytes) else {
        return Ok(None);
    };
    if !(0..=MAGIC).contains(&magic) {
        return Err(Rejected::corrupt(format!(
            "Invalid magic found in record: {magic}"
        )));
    }
    let size = length.unsigned_abs() as usize + OVERHEAD_BYTES;
    debug_assert!(
        size >= HEADER_UP_TO_MAGIC,
        "the smallest length reaches the magic"
    );
    Ok((bytes.len() >= size).then_some(size))
}

/// Checks one whole batch and makes it fit for the log.
pub fn validate(batch: BytesMut, rules: &ValidationRules<'_>) -> Result<Validated, Rejected> {
    let mut validation = Validation::begin(&batch, rules)?;
    while !validation.advance(&batch, usize::MAX)? {}
    Ok(validation.finish(batch))
}

/// [`validate`] in steps: `begin`, `advance` until it returns true, `finish`; each is given
/// the same batch.
pub struct Validation<'r> {
    rules: ValidationRules<'r>,
    /// Of a large batch.
    tail_crc: Option<Box<TailCrc>>,
    feed: Feed,
    /// The batch's codec.
    source: CompressionType,
    target: Compression,
    in_place: bool,
    /// Whether Kafka skips keys and values here: a compressed batch that keeps its codec.
    /// Its records appear in texts as `PartialDefaultRecord`.
    partial: bool,
    record_count: i32,
    /// Of the record to be checked next.
    index: i32,
    max_timestamp: Millis,
    /// Delta and index of the first record that has it.
    max_timestamp_at: (i32, i32),
    errors: RecordErrors,
    phase: Phase,
}

enum Phase {
    /// The CRC of a large batch; nothing but its place and its size has been looked at.
    Crc,
    Check,
    Rewrite(Box<Rewrite>),
    Done(Option<Bytes>),
}

/// The CRC of a batch up to this size is checked at once: about 50 µs.
const CRC_BYTES_AT_ONCE: usize = 512 << 10;
/// What an uncompressed record costs at most, in bytes that were decompressed.
const PLAIN_RECORD_COST_MAX: usize = 64;
/// Bytes whose CRC costs about as much as the check of one byte of records.
const CRC_BYTES_PER_BYTE: usize = 8;

impl<'r> Validation<'r> {
    /// Checks all that the header tells, and the CRC of a batch that isn't large.
    pub fn begin(batch: &[u8], rules: &ValidationRules<'r>) -> Result<Validation<'r>, Rejected> {
        let view = BatchView::parse(batch).map_err(unreadable)?;
        if view.size_in_bytes() != batch.len() {
            return Err(Rejected::invalid(
                "Compressed outer record has more than one batch",
            ));
        }
        check_append(&view, rules)?;
        let mut validation = Validation {
            rules: *rules,
            tail_crc: None,
            feed: Feed::new(CompressionType::None, OUTPUT_BYTES_MAX),
            source: CompressionType::None,
            target: Compression::NONE,
            in_place: true,
            partial: false,
            record_count: 0,
            index: 0,
            max_timestamp: NO_TIMESTAMP,
            max_timestamp_at: (0, 0),
            errors: RecordErrors::default(),
            phase: Phase::Crc,
        };
        if batch.len() > CRC_BYTES_AT_ONCE {
            validation.tail_crc = Some(Box::new(TailCrc::new()));
        } else {
            check_crc(&view, view.compute_crc(), rules)?;
            validation.begin_check(&view)?;
        }
        Ok(validation)
    }

    /// Checks what the header tells, now that the CRC is known to be right.
    fn begin_check(&mut self, view: &BatchView<'_>) -> Result<(), Rejected> {
        let rules = &self.rules;
        let source = codec(view)?;
        let target = match rules.compression_type {
            TargetCompression::Producer => source.into(),
            TargetCompression::Codec(target) => target,
        };
        if rules.origin == Origin::Client {
            check_client_header(view, rules)?;
        }
        let record_count = view.record_count();
        if record_count < 0 {
            return Err(Rejected::invalid(format!(
                "Found invalid record count {record_count} in magic v{MAGIC} batch"
            )));
        }
        // Control batches are not compressed unless they are written so; in one without
        // records there is nothing to compress.
        let in_place = source == target.codec
            || (source == CompressionType::None && view.is_control())
            || record_count == 0;
        self.feed = Feed::new(source, OUTPUT_BYTES_MAX);
        self.source = source;
        self.target = target;
        self.in_place = in_place;
        self.partial = in_place && source != CompressionType::None;
        self.record_count = record_count;
        self.phase = Phase::Check;
        Ok(())
    }

    /// Goes on with about `budget` bytes that were decompressed, or as much other work. True
    /// when all is done.
    pub fn advance(&mut self, batch: &[u8], budget: usize) -> Result<bool, Rejected> {
        let view = BatchView::parse(batch).expect("the batch that the validation began with");
        match &mut self.phase {
            Phase::Crc => {
                let tail = self.tail_crc.as_mut().expect("the batch is large");
                if !tail.advance(batch, budget.saturating_mul(CRC_BYTES_PER_BYTE)) {
                    return Ok(false);
                }
                check_crc(&view, tail.of_whole(batch), &self.rules)?;
                self.begin_check(&view)?;
            }
            Phase::Check => {
                if !self.check_records(&view, budget)? {
                    return Ok(false);
                }
                std::mem::take(&mut self.errors).into_result()?;
                if self.partial && !self.in_place {
                    return Err(Rejected::new(
                        ErrorCode::UNKNOWN_SERVER_ERROR,
                        "key is skipped in PartialDefaultRecord",
                    ));
                }
                self.phase = if self.in_place {
                    Phase::Done(None)
                } else {
                    Phase::Rewrite(Box::new(Rewrite::begin(&view, &self.rules, self.target)?))
                };
            }
            Phase::Rewrite(rewrite) => {
                if !rewrite.advance(&view, &self.rules, budget)? {
                    return Ok(false);
                }
                let Phase::Rewrite(rewrite) = std::mem::replace(&mut self.phase, Phase::Done(None))
                else {
                    unreachable!("matched above");
                };
                self.phase = Phase::Done(Some(rewrite.finish(&self.rules)?));
            }
            Phase::Done(_) => {}
        }
        Ok(matches!(self.phase, Phase::Done(_)))
    }

    /// Patches the batch, or returns the rewritten one. [`advance`](Self::advance) has
    /// returned true.
    pub fn finish(self, mut batch: BytesMut) -> Validated {
        let Phase::Done(rewritten) = self.phase else {
            panic!("finished before it was done");
        };
        let append_time = self.rules.timestamp_type == TimestampType::LogAppendTime;
        let (max_timestamp, log_append_time) = if append_time {
            (self.rules.now_ms, self.rules.now_ms)
        } else {
            (self.max_timestamp, NO_TIMESTAMP)
        };
        let (delta, index) = self.max_timestamp_at;
        let is_rewritten = rewritten.is_some();
        match rewritten {
            Some(bytes) => {
                batch = bytes
                    .try_into_mut()
                    .unwrap_or_else(|bytes| BytesMut::from(&bytes[..]));
            }
            None => {
                let kind = self.rules.timestamp_type;
                set_max_timestamp_by(&mut batch, kind, max_timestamp, |batch| {
                    match &self.tail_crc {
                        Some(tail) => tail.of_whole(batch),
                        None => {
                            let view = BatchView::parse(batch).expect("a whole batch");
                            view.compute_crc()
                        }
                    }
                });
            }
        }
        let view = BatchView::parse(&batch).expect("a whole batch was checked or built");
        Validated {
            record_count: view.record_count(),
            last_offset_delta: view.last_offset_delta(),
            max_timestamp,
            offset_of_max_timestamp_delta: match (append_time, is_rewritten) {
                (true, _) => 0,
                (false, true) => index,
                (false, false) => delta,
            },
            producer: view.producer(),
            is_transactional: view.is_transactional(),
            is_control: view.is_control(),
            timestamp_type: self.rules.timestamp_type,
            log_append_time,
            rewritten: is_rewritten,
            buffer_bytes: batch.capacity(),
            bytes: batch,
        }
    }

    fn check_records(&mut self, view: &BatchView<'_>, budget: usize) -> Result<bool, Rejected> {
        let payload = view.payload();
        let checks_offsets =
            self.source != CompressionType::None || self.target.codec != CompressionType::None;
        let mut walked = 0usize;
        while self.index < self.record_count {
            if walked >= budget {
                return Ok(false);
            }
            let Some(record) = self.feed.skim(payload, budget - walked)? else {
                return Ok(false);
            };
            walked = walked.saturating_add(match self.source {
                // Keys and values are passed over without a look.
                CompressionType::None => record.size.min(PLAIN_RECORD_COST_MAX),
                _ => record.size,
            });
            let timestamp = view.record_timestamp(record.timestamp_delta);
            if let Some(fault) = find_fault(view, &record, timestamp, &self.rules) {
                self.errors
                    .add(self.index, fault, self.partial, view, &record, &self.rules);
            }
            if timestamp > self.max_timestamp {
                self.max_timestamp = timestamp;
                self.max_timestamp_at = (record.offset_delta, self.index);
            }
            if checks_offsets && view.record_offset(record.offset_delta).0 != i64::from(self.index)
            {
                self.in_place = false;
            }
            self.index += 1;
        }
        if self.record_count > 0 {
            self.feed.expect_end(payload)?;
        }
        Ok(true)
    }
}

fn codec(view: &BatchView<'_>) -> Result<CompressionType, Rejected> {
    view.compression().ok_or_else(|| {
        Rejected::new(
            ErrorCode::UNKNOWN_SERVER_ERROR,
            format!("Unknown compression type id: {}", view.codec_id()),
        )
    })
}

fn unreadable(error: BatchError) -> Rejected {
    match error {
        BatchError::BadMagic(0 | 1) => {
            Rejected::invalid("only record batches with magic version 2 are allowed")
        }
        error => Rejected::corrupt(error.to_string()),
    }
}

/// The checks of `UnifiedLog.analyzeAndValidateRecords`.
fn check_append(view: &BatchView<'_>, rules: &ValidationRules<'_>) -> Result<(), Rejected> {
    let (topic, partition) = (rules.topic, rules.partition);
    if rules.origin == Origin::Client && view.base_offset().0 != 0 {
        return Err(Rejected::invalid(format!(
            "The baseOffset of the record batch in the append to {topic}-{partition} should be 0, but it is {}",
            view.base_offset()
        )));
    }
    let size = view.size_in_bytes();
    if size > bytes_max(rules) {
        return Err(Rejected::new(
            ErrorCode::MESSAGE_TOO_LARGE,
            format!(
                "The record batch size in the append to {topic}-{partition} is {size} bytes which exceeds the maximum configured value of {}).",
                rules.max_message_bytes
            ),
        ));
    }
    Ok(())
}

fn check_crc(
    view: &BatchView<'_>,
    computed: u32,
    rules: &ValidationRules<'_>,
) -> Result<(), Rejected> {
    if view.crc() == computed {
        return Ok(());
    }
    Err(Rejected::corrupt(format!(
        "Record is corrupt (stored crc = {}) in topic partition {}-{}.",
        view.crc(),
        rules.topic,
        rules.partition
    )))
}

/// `max.message.bytes`
pub(super) fn bytes_max(rules: &ValidationRules<'_>) -> usize {
    usize::try_from(rules.max_message_bytes).unwrap_or(0)
}

/// The checks of `LogValidator.validateBatch`.
fn check_client_header(view: &BatchView<'_>, rules: &ValidationRules<'_>) -> Result<(), Rejected> {
    let (topic, partition) = (rules.topic, rules.partition);
    let (base, last) = (view.base_offset().0, view.last_offset().0);
    let count_from_offsets = i64::from(view.last_offset_delta()) + 1;
    if count_from_offsets <= 0 {
        return Err(Rejected::invalid(format!(
            "Batch has an invalid offset range: [{base}, {last}] in topic partition {topic}-{partition}"
        )));
    }
    let count = view.record_count();
    if count <= 0 {
        return Err(Rejected::invalid(format!(
            "Invalid reported count for record batch: {count} in topic partition {topic}-{partition}"
        )));
    }
    if count_from_offsets != i64::from(count) {
        return Err(Rejected::invalid(format!(
            "Inconsistent batch offset range [{base}, {last}] and count of records {count} in topic partition {topic}-{partition}"
        )));
    }
    if view.is_control() {
        return Err(Rejected::invalid(format!(
            "Clients are not allowed to write control records in topic partition {topic}-{partition}"
        )));
    }
    if view.has_producer_id() && view.base_sequence() < 0 {
        return Err(Rejected::invalid(format!(
            "Invalid sequence number {} in record batch with producerId {} in topic partition {topic}-{partition}",
            view.base_sequence(),
            view.producer_id()
        )));
    }
    Ok(())
}

/// What may be wrong with a single record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    NoKey,
    TimestampRange(Millis),
    TimestampType(Millis),
}

/// The checks of `LogValidator.validateRecord`.
#[inline]
fn find_fault(
    view: &BatchView<'_>,
    record: &Skim,
    timestamp: Millis,
    rules: &ValidationRules<'_>,
) -> Option<Fault> {
    if rules.compacted && record.key_length < 0 {
        return Some(Fault::NoKey);
    }
    // A batch that claims append times passes a topic of create times if its max timestamp
    // lies in the window; its bit is cleared then. Odd, but so does Kafka.
    if rules.timestamp_type == TimestampType::CreateTime && timestamp != NO_TIMESTAMP {
        let age = rules.now_ms.wrapping_sub(timestamp);
        if age > rules.before_max_ms || age.wrapping_neg() > rules.after_max_ms {
            return Some(Fault::TimestampRange(timestamp));
        }
    } else if view.timestamp_type() == TimestampType::LogAppendTime {
        return Some(Fault::TimestampType(timestamp));
    }
    None
}

/// The faults of a batch's records (`LogValidator.processRecordErrors`).
#[derive(Default)]
struct RecordErrors {
    /// The first of them, at most `RECORD_ERRORS_MAX`.
    list: Vec<(i32, Option<String>)>,
    total: u64,
    any_timestamp: bool,
}

impl RecordErrors {
    #[cold]
    fn add(
        &mut self,
        index: i32,
        fault: Fault,
        partial: bool,
        view: &BatchView<'_>,
        record: &Skim,
        rules: &ValidationRules<'_>,
    ) {
        self.total += 1;
        self.any_timestamp |= fault != Fault::NoKey;
        if self.list.len() == RECORD_ERRORS_MAX {
            return;
        }
        let offset = view.record_offset(record.offset_delta);
        let text = match fault {
            Fault::NoKey => format!(
                "Compacted topic cannot accept message without key in topic partition {}-{}",
                rules.topic, rules.partition
            ),
            Fault::TimestampRange(timestamp) => format!(
                "Timestamp {timestamp} of message with offset {offset} is out of range. The timestamp should be within [{}, {}]",
                rules.now_ms.wrapping_sub(rules.before_max_ms),
                rules.now_ms.wrapping_add(rules.after_max_ms)
            ),
            Fault::TimestampType(timestamp) => {
                let (name, key, value) = if partial {
                    (
                        "PartialDefaultRecord",
                        record.key_length,
                        record.value_length,
                    )
                } else {
                    (
                        "DefaultRecord",
                        record.key_length.max(0),
                        record.value_length.max(0),
                    )
                };
                format!(
                    "Invalid timestamp type in message {name}(offset={offset}, timestamp={timestamp}, key={key} bytes, value={value} bytes). Producer should not set timestamp type to LogAppendTime."
                )
            }
        };
        self.list.push((index, Some(text)));
    }

    fn into_result(self) -> Result<(), Rejected> {
        if self.total == 0 {
            return Ok(());
        }
        let (error, message) = if self.any_timestamp {
            (
                ErrorCode::INVALID_TIMESTAMP,
                "One or more records have been rejected due to invalid timestamp".to_owned(),
            )
        } else {
            let first: Vec<String> = self
                .list
                .iter()
                .take(3)
                .map(|(index, text)| {
                    let text = text.as_deref().unwrap_or_default();
                    format!("RecordError(batchIndex={index}, message='{text}')")
                })
                .collect();
            (
                ErrorCode::INVALID_RECORD,
                format!(
                    "One or more records have been rejected due to {} record errors in total, and only showing the first three errors at most: [{}]",
                    self.total,
                    first.join(", ")
                ),
            )
        };
        Err(Rejected {
            error,
            record_errors: self.list,
            detail: message.clone(),
            message: Some(message),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BatchBuilder, BatchParams, set_max_timestamp};
    use super::*;

    const NOW: Millis = 1_700_000_000_000;

    fn rules() -> ValidationRules<'static> {
        ValidationRules {
            topic: "t",
            partition: PartitionIndex(3),
            now_ms: NOW,
            max_message_bytes: 1 << 20,
            compression_type: TargetCompression::Producer,
            timestamp_type: TimestampType::CreateTime,
            before_max_ms: i64::MAX,
            after_max_ms: 3_600_000,
            compacted: false,
            origin: Origin::Client,
            produce_version: 9,
        }
    }

    fn batch(params: BatchParams, records: usize) -> BytesMut {
        let mut builder = BatchBuilder::new(params);
        for index in 0..records {
            builder.append(NOW + index as i64 % 5, None, Some(b"value"), &[]);
        }
        BytesMut::from(&builder.finish()[..])
    }

    fn packed(codec: CompressionType) -> BatchParams {
        BatchParams {
            compression: codec.into(),
            ..BatchParams::default()
        }
    }

    #[test]
    fn exactly_one_batch_of_magic_2_makes_a_partitions_records() {
        let one = batch(BatchParams::default(), 2);
        let size = one.len();
        let code = |bytes: &[u8]| validate_shape(bytes, 9).map_err(|rejected| rejected.error);
        assert_eq!(code(&one), Ok(size));
        assert_eq!(code(&[]), Err(ErrorCode::INVALID_RECORD));
        assert_eq!(code(&one[..size - 1]), Err(ErrorCode::INVALID_RECORD));
        assert_eq!(
            code(&[&one[..], &one[..]].concat()),
            Err(ErrorCode::INVALID_RECORD)
        );
        // What is no whole batch is ignored, but a second header must make sense.
        assert_eq!(code(&[&one[..], &one[..size - 1]].concat()), Ok(size));
        assert_eq!(
            code(&[&one[..], &[0; 12]].concat()),
            Err(ErrorCode::CORRUPT_MESSAGE)
        );
        for (magic, error) in [
            (0, ErrorCode::INVALID_RECORD),
            (1, ErrorCode::INVALID_RECORD),
            (3, ErrorCode::CORRUPT_MESSAGE),
            (0xff, ErrorCode::CORRUPT_MESSAGE),
        ] {
            let mut other = one.clone();
            other[16] = magic;
            assert_eq!(code(&other), Err(error));
        }
        let zstd = batch(packed(CompressionType::Zstd), 2);
        assert_eq!(
            validate_shape(&zstd, 6).unwrap_err().error,
            ErrorCode::UNSUPPORTED_COMPRESSION_TYPE
        );
        assert_eq!(validate_shape(&zstd, 7), Ok(zstd.len()));
    }

    #[test]
    fn append_time_is_stamped_in_place_under_a_new_crc() {
        let given = batch(packed(CompressionType::Lz4), 3);
        let before = given.clone();
        let rules = ValidationRules {
            timestamp_type: TimestampType::LogAppendTime,
            now_ms: NOW + 77,
            ..rules()
        };
        let validated = validate(given, &rules).unwrap();
        let view = BatchView::parse(&validated.bytes).unwrap();
        assert!(view.verify_crc());
        assert_eq!(view.timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(
            (view.max_timestamp(), view.base_timestamp()),
            (NOW + 77, NOW)
        );
        assert_eq!(validated.log_append_time, NOW + 77);
        assert!(!validated.rewritten);
        assert_eq!(view.payload(), BatchView::parse(&before).unwrap().payload());
    }

    #[test]
    fn a_wrong_max_timestamp_in_the_header_is_corrected() {
        let mut given = batch(BatchParams::default(), 4);
        set_max_timestamp(&mut given, TimestampType::CreateTime, NOW + 1_000);
        let validated = validate(given, &rules()).unwrap();
        let view = BatchView::parse(&validated.bytes).unwrap();
        assert_eq!(
            (view.max_timestamp(), validated.max_timestamp),
            (NOW + 3, NOW + 3)
        );
        assert_eq!(validated.offset_of_max_timestamp_delta, 3);
        assert!(view.verify_crc());
    }

    #[test]
    fn record_errors_are_bounded_but_counted() {
        let rules = ValidationRules {
            compacted: true,
            ..rules()
        };
        let rejected = validate(batch(packed(CompressionType::Zstd), 5_000), &rules).unwrap_err();
        assert_eq!(rejected.error, ErrorCode::INVALID_RECORD);
        assert_eq!(rejected.record_errors.len(), RECORD_ERRORS_MAX);
        assert_eq!(
            rejected.record_errors[1],
            (
                1,
                Some(
                    "Compacted topic cannot accept message without key in topic partition t-3"
                        .to_owned()
                )
            )
        );
        let message = rejected.message.unwrap();
        assert!(
            message.contains("due to 5000 record errors in total"),
            "{message}"
        );
        assert_eq!(message.matches("RecordError(").count(), 3);
    }

    #[test]
    fn a_batch_of_a_coordinator_keeps_its_control_bit_and_is_not_compressed() {
        let given = BatchBuilder::end_txn_marker(
            BatchParams {
                producer: ProducerInfo {
                    id: crate::base::ProducerId(4),
                    epoch: crate::base::ProducerEpoch(1),
                    base_sequence: -1,
                },
                ..BatchParams::default()
            },
            NOW,
            crate::record::EndTxnMarker {
                commit: true,
                coordinator_epoch: 3,
            },
        );
        let rules = ValidationRules {
            origin: Origin::Coordinator,
            compression_type: TargetCompression::Codec(CompressionType::Gzip.into()),
            compacted: true,
            ..rules()
        };
        let validated = validate(BytesMut::from(&given[..]), &rules).unwrap();
        assert!(validated.is_control && validated.is_transactional && !validated.rewritten);
        let client = ValidationRules {
            origin: Origin::Client,
            ..rules
        };
        assert_eq!(
            validate(BytesMut::from(&given[..]), &client)
                .unwrap_err()
                .error,
            ErrorCode::INVALID_RECORD
        );
    }

    #[test]
    fn a_batch_that_grows_too_large_when_rewritten_is_refused() {
        let given = batch(packed(CompressionType::Zstd), 5_000);
        let rules = ValidationRules {
            compression_type: TargetCompression::Codec(Compression::NONE),
            max_message_bytes: given.len() as i32,
            ..rules()
        };
        assert_eq!(
            validate(given, &rules).unwrap_err().error,
            ErrorCode::MESSAGE_TOO_LARGE
        );
    }

    #[test]
    fn a_step_does_no_more_than_its_budget_asks() {
        let given = batch(packed(CompressionType::Snappy), 1_000);
        let rules = ValidationRules {
            compression_type: TargetCompression::Codec(CompressionType::Lz4.into()),
            ..rules()
        };
        let mut validation = Validation::begin(&given, &rules).unwrap();
        let mut steps = 1;
        while !validation.advance(&given, 500).unwrap() {
            steps += 1;
        }
        // Twice through records of 12 to 13 bytes, to check and to rewrite.
        assert!((40..=60).contains(&steps), "{steps} steps");
        assert_eq!(validation.finish(given).record_count, 1_000);
    }
}
