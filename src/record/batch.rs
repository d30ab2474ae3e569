//! Views over batches and the header fields that a leader patches in place.
//!
//! [`BatchView::parse`] is the only gate: after it every accessor is a plain load. The CRC
//! is not checked by it; callers that have not checked it yet call
//! [`BatchView::verify_crc`].

use super::compression::CompressionType;
use crate::base::{LeaderEpoch, Millis, Offset, ProducerEpoch, ProducerId};

/// Bytes of a batch before its records.
pub const HEADER_BYTES: usize = 61;
/// Bytes before those that `batch length` counts.
pub const OVERHEAD_BYTES: usize = 12;
/// The only record format that we store.
pub const MAGIC: i8 = 2;

/// Smallest length field that Kafka's reader takes for any format (that of magic 0).
const LENGTH_MIN_ANY_MAGIC: i32 = 14;
/// Bytes up to and including the magic.
pub(super) const HEADER_UP_TO_MAGIC: usize = 17;

const AT_BASE_OFFSET: usize = 0;
const AT_LENGTH: usize = 8;
const AT_LEADER_EPOCH: usize = 12;
const AT_MAGIC: usize = 16;
const AT_CRC: usize = 17;
pub(super) const AT_ATTRIBUTES: usize = 21;
const AT_LAST_OFFSET_DELTA: usize = 23;
const AT_BASE_TIMESTAMP: usize = 27;
const AT_MAX_TIMESTAMP: usize = 35;
pub(super) const AT_PRODUCER_ID: usize = 43;
const AT_PRODUCER_EPOCH: usize = 51;
const AT_BASE_SEQUENCE: usize = 53;
const AT_RECORD_COUNT: usize = 57;

const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME_BIT: i16 = 0x08;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;
const DELETE_HORIZON_BIT: i16 = 0x40;

/// Whose clock the timestamps of a batch come from (`message.timestamp.type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TimestampType {
    #[default]
    CreateTime,
    LogAppendTime,
}

/// The idempotent producer of a batch; all -1 where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProducerInfo {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
    /// Sequence of the first record; -1 also in control batches.
    pub base_sequence: i32,
}

impl ProducerInfo {
    pub const NONE: ProducerInfo = ProducerInfo {
        id: ProducerId::NONE,
        epoch: ProducerEpoch(-1),
        base_sequence: -1,
    };

    pub fn is_some(&self) -> bool {
        self.id.0 > ProducerId::NONE.0
    }
}

impl Default for ProducerInfo {
    fn default() -> Self {
        Self::NONE
    }
}

/// Why bytes don't begin with a whole batch of magic 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does; usual at the end of a fetched slice.
    #[error("the batch is cut off: {needed} bytes are needed, {available} are there")]
    Truncated { needed: usize, available: usize },
    #[error("batch length {0} is smaller than the header")]
    TooSmall(i32),
    #[error("magic {0} is not supported")]
    BadMagic(i8),
}

/// One whole batch of magic 2. Its CRC may be wrong.
#[derive(Clone, Copy)]
pub struct BatchView<'a> {
    /// The first bytes of `bytes`.
    header: &'a [u8; HEADER_BYTES],
    /// Exactly the batch: 12 + batch length bytes.
    bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// Views the batch that `bytes` begin with; more may follow it.
    pub fn parse(bytes: &'a [u8]) -> Result<BatchView<'a>, BatchError> {
        let truncated = |needed| BatchError::Truncated {
            needed,
            available: bytes.len(),
        };
        let Some(prefix) = bytes.first_chunk::<HEADER_UP_TO_MAGIC>() else {
            // A length that is there is judged even if the magic is not.
            if let Some(length) = peek_length(bytes)
                && length < LENGTH_MIN_ANY_MAGIC
            {
                return Err(BatchError::TooSmall(length));
            }
            return Err(truncated(HEADER_BYTES));
        };
        let length = i32::from_be_bytes(field(prefix, AT_LENGTH));
        if length < LENGTH_MIN_ANY_MAGIC {
            return Err(BatchError::TooSmall(length));
        }
        let magic = i8::from_be_bytes(field(prefix, AT_MAGIC));
        if magic != MAGIC {
            return Err(BatchError::BadMagic(magic));
        }
        let total = usize::try_from(length)
            .ok()
            .and_then(|length| length.checked_add(OVERHEAD_BYTES))
            .filter(|&total| total >= HEADER_BYTES)
            .ok_or(BatchError::TooSmall(length))?;
        match (bytes.first_chunk(), bytes.get(..total)) {
            (Some(header), Some(bytes)) => Ok(BatchView { header, bytes }),
            _ => Err(truncated(total)),
        }
    }

    /// The whole batch.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The records as stored: compressed when [`codec_id`](Self::codec_id) is not 0.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }

    pub fn size_in_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn base_offset(&self) -> Offset {
        Offset(i64::from_be_bytes(field(self.header, AT_BASE_OFFSET)))
    }

    pub fn batch_length(&self) -> i32 {
        i32::from_be_bytes(field(self.header, AT_LENGTH))
    }

    pub fn partition_leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(i32::from_be_bytes(field(self.header, AT_LEADER_EPOCH)))
    }

    pub fn magic(&self) -> i8 {
        MAGIC
    }

    pub fn crc(&self) -> u32 {
        u32::from_be_bytes(field(self.header, AT_CRC))
    }

    pub fn attributes(&self) -> i16 {
        i16::from_be_bytes(field(self.header, AT_ATTRIBUTES))
    }

    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(field(self.header, AT_LAST_OFFSET_DELTA))
    }

    /// Base of the records' timestamp deltas; the delete horizon when that bit is set.
    pub fn base_timestamp(&self) -> Millis {
        i64::from_be_bytes(field(self.header, AT_BASE_TIMESTAMP))
    }

    pub fn max_timestamp(&self) -> Millis {
        i64::from_be_bytes(field(self.header, AT_MAX_TIMESTAMP))
    }

    pub fn producer_id(&self) -> ProducerId {
        ProducerId(i64::from_be_bytes(field(self.header, AT_PRODUCER_ID)))
    }

    pub fn producer_epoch(&self) -> ProducerEpoch {
        ProducerEpoch(i16::from_be_bytes(field(self.header, AT_PRODUCER_EPOCH)))
    }

    pub fn base_sequence(&self) -> i32 {
        i32::from_be_bytes(field(self.header, AT_BASE_SEQUENCE))
    }

    pub fn producer(&self) -> ProducerInfo {
        ProducerInfo {
            id: self.producer_id(),
            epoch: self.producer_epoch(),
            base_sequence: self.base_sequence(),
        }
    }

    pub fn has_producer_id(&self) -> bool {
        self.producer().is_some()
    }

    /// Sequence of the last record, -1 without a sequence; wraps after 2^31-1 to 0.
    pub fn last_sequence(&self) -> i32 {
        match self.base_sequence() {
            -1 => -1,
            base => increment_sequence(base, self.last_offset_delta()),
        }
    }

    /// As the header says it: negative in a corrupt batch, 0 in one emptied by compaction.
    pub fn record_count(&self) -> i32 {
        i32::from_be_bytes(field(self.header, AT_RECORD_COUNT))
    }

    /// The codec's number; 5 to 7 are not assigned.
    pub fn codec_id(&self) -> i8 {
        (self.attributes() & CODEC_MASK) as i8
    }

    /// The codec, `None` where its number is not assigned.
    pub fn compression(&self) -> Option<CompressionType> {
        CompressionType::from_id(self.codec_id())
    }

    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes() & LOG_APPEND_TIME_BIT == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes() & TRANSACTIONAL_BIT != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes() & CONTROL_BIT != 0
    }

    /// When tombstones and markers of this batch may go (set by compaction).
    pub fn delete_horizon(&self) -> Option<Millis> {
        (self.attributes() & DELETE_HORIZON_BIT != 0).then(|| self.base_timestamp())
    }

    pub fn last_offset(&self) -> Offset {
        self.record_offset(self.last_offset_delta())
    }

    pub fn next_offset(&self) -> Offset {
        Offset(self.last_offset().0.wrapping_add(1))
    }

    /// Offset of the record with this delta.
    pub fn record_offset(&self, offset_delta: i32) -> Offset {
        Offset(self.base_offset().0.wrapping_add(i64::from(offset_delta)))
    }

    /// Timestamp that readers see of the record with this delta.
    pub fn record_timestamp(&self, timestamp_delta: i64) -> Millis {
        match self.timestamp_type() {
            TimestampType::CreateTime => self.base_timestamp().wrapping_add(timestamp_delta),
            TimestampType::LogAppendTime => self.max_timestamp(),
        }
    }

    /// Sequence of the record with this delta; -1 where the batch has none.
    pub fn record_sequence(&self, offset_delta: i32) -> i32 {
        match self.base_sequence() {
            base if base < 0 => -1,
            base => increment_sequence(base, offset_delta),
        }
    }

    pub fn compute_crc(&self) -> u32 {
        crc_fast::crc32_iscsi(&self.bytes[AT_ATTRIBUTES..])
    }

    pub fn verify_crc(&self) -> bool {
        self.crc() == self.compute_crc()
    }
}

impl std::fmt::Debug for BatchView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchView")
            .field("base_offset", &self.base_offset().0)
            .field("last_offset", &self.last_offset().0)
            .field("size_in_bytes", &self.size_in_bytes())
            .field("leader_epoch", &self.partition_leader_epoch().0)
            .field("attributes", &self.attributes())
            .field("record_count", &self.record_count())
            .field("base_timestamp", &self.base_timestamp())
            .field("max_timestamp", &self.max_timestamp())
            .field("producer", &self.producer())
            .field("crc", &self.crc())
            .finish()
    }
}

/// Walks concatenated batches. The first error ends the walk; what lies there begins at
/// [`position`](Self::position).
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    position: usize,
    failed: bool,
}

impl<'a> Batches<'a> {
    pub fn new(bytes: &'a [u8]) -> Batches<'a> {
        Batches {
            bytes,
            position: 0,
            failed: false,
        }
    }

    /// Bytes of the batches yielded so far.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.position..];
        if self.failed || rest.is_empty() {
            return None;
        }
        let batch = BatchView::parse(rest);
        match &batch {
            Ok(batch) => self.position += batch.size_in_bytes(),
            Err(_) => self.failed = true,
        }
        Some(batch)
    }
}

/// Moves a batch to `offset`. The CRC does not cover it.
///
/// `batch` is a whole batch, as for the other setters.
pub fn set_base_offset(batch: &mut [u8], offset: Offset) {
    put(batch, AT_BASE_OFFSET, offset.0.to_be_bytes());
}

/// Stamps the leader's epoch. The CRC does not cover it.
pub fn set_leader_epoch(batch: &mut [u8], epoch: LeaderEpoch) {
    put(batch, AT_LEADER_EPOCH, epoch.0.to_be_bytes());
}

/// Sets timestamp type and max timestamp and recomputes the CRC, unless both stand there
/// already. Base timestamp and deltas stay. As in Kafka a change clears attribute bits
/// that have no meaning.
pub fn set_max_timestamp(batch: &mut [u8], kind: TimestampType, max_timestamp: Millis) {
    set_max_timestamp_by(batch, kind, max_timestamp, |batch| {
        crc_fast::crc32_iscsi(&batch[AT_ATTRIBUTES..])
    });
}

/// The same, where the CRC of the changed batch is told by `crc`.
pub(super) fn set_max_timestamp_by(
    batch: &mut [u8],
    kind: TimestampType,
    max_timestamp: Millis,
    crc: impl FnOnce(&[u8]) -> u32,
) {
    let view = BatchView::parse(batch).expect("setters are given whole batches");
    assert_eq!(
        view.size_in_bytes(),
        batch.len(),
        "one batch, nothing after it"
    );
    if view.timestamp_type() == kind && view.max_timestamp() == max_timestamp {
        return;
    }
    let known = CODEC_MASK | TRANSACTIONAL_BIT | CONTROL_BIT | DELETE_HORIZON_BIT;
    let attributes = (view.attributes() & known)
        | match kind {
            TimestampType::CreateTime => 0,
            TimestampType::LogAppendTime => LOG_APPEND_TIME_BIT,
        };
    put(batch, AT_ATTRIBUTES, attributes.to_be_bytes());
    put(batch, AT_MAX_TIMESTAMP, max_timestamp.to_be_bytes());
    let crc = crc(batch);
    put(batch, AT_CRC, crc.to_be_bytes());
}

/// The header fields of a batch to write; see [`write_header`].
#[derive(Clone, Copy, Debug)]
pub(super) struct HeaderFields {
    pub base_offset: Offset,
    pub leader_epoch: LeaderEpoch,
    pub compression: CompressionType,
    pub timestamp_type: TimestampType,
    pub transactional: bool,
    pub control: bool,
    pub delete_horizon: bool,
    pub last_offset_delta: i32,
    pub base_timestamp: Millis,
    pub max_timestamp: Millis,
    pub producer: ProducerInfo,
    pub record_count: i32,
}

/// Writes the header over the first bytes of `batch`, whose records are in place, and the
/// CRC over all.
pub(super) fn write_header(batch: &mut [u8], fields: &HeaderFields) {
    assert!(batch.len() >= HEADER_BYTES, "room for the header was left");
    let length =
        i32::try_from(batch.len() - OVERHEAD_BYTES).expect("writers keep batches below 2 GiB");
    let flag = |set, bit| if set { bit } else { 0 };
    let attributes = i16::from(fields.compression.id())
        | flag(
            fields.timestamp_type == TimestampType::LogAppendTime,
            LOG_APPEND_TIME_BIT,
        )
        | flag(fields.transactional, TRANSACTIONAL_BIT)
        | flag(fields.control, CONTROL_BIT)
        | flag(fields.delete_horizon, DELETE_HORIZON_BIT);
    put(batch, AT_BASE_OFFSET, fields.base_offset.0.to_be_bytes());
    put(batch, AT_LENGTH, length.to_be_bytes());
    put(batch, AT_LEADER_EPOCH, fields.leader_epoch.0.to_be_bytes());
    put(batch, AT_MAGIC, MAGIC.to_be_bytes());
    put(batch, AT_ATTRIBUTES, attributes.to_be_bytes());
    put(
        batch,
        AT_LAST_OFFSET_DELTA,
        fields.last_offset_delta.to_be_bytes(),
    );
    put(
        batch,
        AT_BASE_TIMESTAMP,
        fields.base_timestamp.to_be_bytes(),
    );
    put(batch, AT_MAX_TIMESTAMP, fields.max_timestamp.to_be_bytes());
    put(batch, AT_PRODUCER_ID, fields.producer.id.0.to_be_bytes());
    put(
        batch,
        AT_PRODUCER_EPOCH,
        fields.producer.epoch.0.to_be_bytes(),
    );
    put(
        batch,
        AT_BASE_SEQUENCE,
        fields.producer.base_sequence.to_be_bytes(),
    );
    put(batch, AT_RECORD_COUNT, fields.record_count.to_be_bytes());
    set_crc(batch);
}

/// Sequences wrap after 2^31-1 to 0. For numbers that no producer sends the result is
/// Kafka's too.
pub fn increment_sequence(sequence: i32, increment: i32) -> i32 {
    if sequence > i32::MAX.wrapping_sub(increment) {
        increment
            .wrapping_sub(i32::MAX.wrapping_sub(sequence))
            .wrapping_sub(1)
    } else {
        sequence.wrapping_add(increment)
    }
}

/// The length field of the batch that `bytes` begin with, if it is there.
pub(super) fn peek_length(bytes: &[u8]) -> Option<i32> {
    bytes
        .first_chunk::<OVERHEAD_BYTES>()
        .map(|prefix| i32::from_be_bytes(field(prefix, AT_LENGTH)))
}

/// The magic of the batch that `bytes` begin with, if it is there.
pub(super) fn peek_magic(bytes: &[u8]) -> Option<i8> {
    bytes.get(AT_MAGIC).map(|&magic| magic as i8)
}

fn set_crc(batch: &mut [u8]) {
    let crc = crc_fast::crc32_iscsi(&batch[AT_ATTRIBUTES..]);
    put(batch, AT_CRC, crc.to_be_bytes());
}

fn put<const N: usize>(batch: &mut [u8], at: usize, value: [u8; N]) {
    batch[at..at + N].copy_from_slice(&value);
}

/// The `N` bytes at `at`, which lie within the header.
#[inline(always)]
fn field<const H: usize, const N: usize>(header: &[u8; H], at: usize) -> [u8; N] {
    header[at..at + N]
        .try_into()
        .expect("fields lie within the header")
}
