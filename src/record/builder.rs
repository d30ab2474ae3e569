//! Builds batches, as `MemoryRecordsBuilder` does: metadata, offsets, control records,
//! compaction's output.

use bytes::Bytes;

use super::batch::{HEADER_BYTES, HeaderFields, ProducerInfo, TimestampType, write_header};
use super::compression::{Compression, Compressor};
use super::control::{ControlType, EndTxnMarker};
use super::view::{Header, Varint};
use crate::base::{LeaderEpoch, Millis, Offset};

/// What holds for a whole batch. The default is an uncompressed batch at offset 0 without
/// leader epoch or producer, with create timestamps.
#[derive(Clone, Copy, Debug)]
pub struct BatchParams {
    pub compression: Compression,
    /// With `LogAppendTime` the header's max timestamp is `log_append_time`.
    pub timestamp_type: TimestampType,
    pub log_append_time: Millis,
    pub producer: ProducerInfo,
    pub transactional: bool,
    pub control: bool,
    pub base_offset: Offset,
    pub leader_epoch: LeaderEpoch,
    /// Compaction: when tombstones and markers may go. Takes the base timestamp's place.
    pub delete_horizon: Option<Millis>,
}

impl Default for BatchParams {
    fn default() -> Self {
        BatchParams {
            compression: Compression::NONE,
            timestamp_type: TimestampType::CreateTime,
            log_append_time: -1,
            producer: ProducerInfo::NONE,
            transactional: false,
            control: false,
            base_offset: Offset(0),
            leader_epoch: LeaderEpoch::UNKNOWN,
            delete_horizon: None,
        }
    }
}

/// Collects records into one batch.
pub struct BatchBuilder {
    params: BatchParams,
    compressor: Compressor,
    record_count: i32,
    last_offset_delta: i32,
    /// `None` until the first record gives it.
    base_timestamp: Option<Millis>,
    max_timestamp: Millis,
    uncompressed_bytes: usize,
}

impl BatchBuilder {
    pub fn new(params: BatchParams) -> BatchBuilder {
        BatchBuilder {
            params,
            compressor: Compressor::new(params.compression, vec![0; HEADER_BYTES]),
            record_count: 0,
            last_offset_delta: -1,
            base_timestamp: params.delete_horizon,
            max_timestamp: -1,
            uncompressed_bytes: 0,
        }
    }

    /// A batch of one marker that ends a producer's transaction.
    pub fn end_txn_marker(params: BatchParams, timestamp: Millis, marker: EndTxnMarker) -> Bytes {
        assert!(params.producer.is_some(), "a marker names its producer");
        let mut builder = BatchBuilder::new(BatchParams {
            transactional: true,
            control: true,
            ..params
        });
        builder.append_control(timestamp, marker.control_type(), &marker.value());
        builder.finish()
    }

    /// A batch emptied by compaction, kept for its producer's sequence or to end the
    /// cleaned range.
    pub fn empty(params: BatchParams, last_offset_delta: i32, max_timestamp: Millis) -> Bytes {
        let mut batch = vec![0; HEADER_BYTES];
        write_header(
            &mut batch,
            &HeaderFields {
                compression: super::CompressionType::None,
                last_offset_delta,
                base_timestamp: -1,
                max_timestamp,
                delete_horizon: false,
                ..header_fields(&params)
            },
        );
        Bytes::from(batch)
    }

    /// Appends a record at the next offset.
    pub fn append(
        &mut self,
        timestamp: Millis,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) {
        let delta = self.next_delta();
        self.append_at(delta, timestamp, key, value, headers);
    }

    /// Appends a control record; `value` is the encoded message.
    pub fn append_control(&mut self, timestamp: Millis, kind: ControlType, value: &[u8]) {
        assert!(self.params.control, "control records go to control batches");
        let delta = self.next_delta();
        self.append_at(delta, timestamp, Some(&kind.key()), Some(value), &[]);
    }

    /// Appends a record whose offset is base offset + `offset_delta`, which grows.
    pub fn append_at(
        &mut self,
        offset_delta: i32,
        timestamp: Millis,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) {
        let mut rest = sized(key) + sized(value) + Varint::new(headers.len() as i64).len();
        for header in headers {
            rest += sized(Some(header.key)) + sized(header.value);
        }
        self.begin_record(offset_delta, timestamp, rest);
        self.write_sized(key);
        self.write_sized(value);
        let count = Varint::new(headers.len() as i64);
        self.compressor.write(count.as_slice());
        for header in headers {
            self.write_sized(Some(header.key));
            self.write_sized(header.value);
        }
    }

    /// Writes length, attributes and deltas of a record of which `rest_bytes` follow, to
    /// be given to [`write_rest`](Self::write_rest).
    pub(super) fn begin_record(&mut self, offset_delta: i32, timestamp: Millis, rest_bytes: usize) {
        assert!(
            offset_delta > self.last_offset_delta,
            "offsets within a batch increase"
        );
        let base = *self.base_timestamp.get_or_insert(timestamp);
        let timestamp_delta = Varint::new(timestamp.wrapping_sub(base));
        let delta = Varint::new(i64::from(offset_delta));
        let body = 1 + timestamp_delta.len() + delta.len() + rest_bytes;
        let length = Varint::length(Some(body));
        self.compressor.write(length.as_slice());
        self.compressor.write(&[0]);
        self.compressor.write(timestamp_delta.as_slice());
        self.compressor.write(delta.as_slice());
        self.record_count = self.record_count.checked_add(1).expect("counted by deltas");
        self.last_offset_delta = offset_delta;
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.uncompressed_bytes += length.len() + body;
    }

    pub(super) fn write_rest(&mut self, bytes: &[u8]) {
        self.compressor.write(bytes);
    }

    pub fn record_count(&self) -> i32 {
        self.record_count
    }

    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Header and records before compression. The batch without compression is this large.
    pub fn uncompressed_size(&self) -> usize {
        HEADER_BYTES + self.uncompressed_bytes
    }

    /// Bytes of the batch so far, less what the encoder holds back.
    pub fn written(&self) -> usize {
        self.compressor.written()
    }

    pub fn max_timestamp(&self) -> Millis {
        self.max_timestamp
    }

    /// Compaction: makes the batch end at this offset although its last records are gone.
    pub fn cover(&mut self, last_offset_delta: i32) {
        self.last_offset_delta = self.last_offset_delta.max(last_offset_delta);
    }

    /// The batch. At least one record was appended.
    pub fn finish(self) -> Bytes {
        Bytes::from(self.finish_vec())
    }

    pub(super) fn finish_vec(self) -> Vec<u8> {
        assert!(self.record_count > 0, "a batch has records");
        let mut batch = self.compressor.finish();
        let max_timestamp = match self.params.timestamp_type {
            TimestampType::CreateTime => self.max_timestamp,
            TimestampType::LogAppendTime => self.params.log_append_time,
        };
        write_header(
            &mut batch,
            &HeaderFields {
                last_offset_delta: self.last_offset_delta,
                base_timestamp: self.base_timestamp.expect("set by the first record"),
                max_timestamp,
                record_count: self.record_count,
                ..header_fields(&self.params)
            },
        );
        batch
    }

    fn next_delta(&self) -> i32 {
        self.last_offset_delta
            .checked_add(1)
            .expect("a batch has fewer than 2^31 records")
    }

    fn write_sized(&mut self, bytes: Option<&[u8]>) {
        let length = Varint::length(bytes.map(<[u8]>::len));
        self.compressor.write(length.as_slice());
        self.compressor.write(bytes.unwrap_or_default());
    }
}

/// The fields that come from the parameters; the rest as in a batch without records.
fn header_fields(params: &BatchParams) -> HeaderFields {
    HeaderFields {
        base_offset: params.base_offset,
        leader_epoch: params.leader_epoch,
        compression: params.compression.codec,
        timestamp_type: params.timestamp_type,
        transactional: params.transactional,
        control: params.control,
        delete_horizon: params.delete_horizon.is_some(),
        last_offset_delta: 0,
        base_timestamp: -1,
        max_timestamp: -1,
        producer: params.producer,
        record_count: 0,
    }
}

/// Bytes of a key or value with its length.
fn sized(bytes: Option<&[u8]>) -> usize {
    Varint::length(bytes.map(<[u8]>::len)).len() + bytes.map_or(0, <[u8]>::len)
}
