//! Records of `__consumer_offsets` in batches: how a step's records are written and how the
//! log is read back. The batches of a step carry its time on each record and no producer.

use bytes::Bytes;
use tracing::warn;

use super::records::{CoordinatorRecord, Decoded};
use crate::base::{ErrorCode, Millis, Offset, ProducerId};
use crate::record::{
    BatchBuilder, BatchParams, BatchView, Compression, ControlType, RecordsError, records,
};
use crate::wire::DecodeError;

/// A batch to append, and how many of the step's records it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedBatch {
    pub bytes: Bytes,
    pub record_count: usize,
}

/// What one record of the log says.
#[derive(Clone, Debug, PartialEq)]
pub enum LogEntry {
    Record {
        at: Offset,
        /// Of the transaction that it is part of, else `ProducerId::NONE`.
        producer: ProducerId,
        record: CoordinatorRecord,
    },
    EndOfTransaction {
        at: Offset,
        producer: ProducerId,
        is_commit: bool,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the batch at offset {at} is damaged")]
    Crc { at: Offset },
    #[error("the batch at offset {at}: {source}")]
    Batch { at: Offset, source: RecordsError },
    #[error("the record at offset {at}: {source}")]
    Record { at: Offset, source: DecodeError },
    #[error("the record at offset {at} has no key")]
    NoKey { at: Offset },
}

/// All records in one batch where `atomic`, else in as few of `bytes_max` as hold them
/// before they are compressed. A record or atomic batch that is larger is refused as the
/// log would refuse it.
pub fn encode_batches(
    records: &[CoordinatorRecord],
    atomic: bool,
    now_ms: Millis,
    bytes_max: usize,
    compression: Compression,
) -> Result<Vec<EncodedBatch>, ErrorCode> {
    let params = BatchParams {
        compression,
        ..BatchParams::default()
    };
    let mut batches = Vec::new();
    let mut builder = BatchBuilder::new(params);
    for record in records {
        // Only text that no record can hold fails; Kafka's answer to that is this one.
        let (key, value) = record
            .encode()
            .map_err(|_| ErrorCode::UNKNOWN_SERVER_ERROR)?;
        let size = record_size_max(key.len(), value.as_ref().map_or(0, Bytes::len));
        if !atomic && !builder.is_empty() && builder.uncompressed_size() + size > bytes_max {
            batches.push(finish(builder));
            builder = BatchBuilder::new(params);
        }
        builder.append(now_ms, Some(&key), value.as_deref(), &[]);
    }
    if !builder.is_empty() {
        batches.push(finish(builder));
    }
    if batches.iter().any(|batch| batch.bytes.len() > bytes_max) {
        return Err(ErrorCode::MESSAGE_TOO_LARGE);
    }
    Ok(batches)
}

/// Hands out what the batch says, in order. Record types that are not handled are skipped,
/// as Kafka skips those that it doesn't know; anything malformed ends the reading.
pub fn read_batch(batch: &BatchView<'_>, mut each: impl FnMut(LogEntry)) -> Result<(), ReadError> {
    let base = batch.base_offset();
    if !batch.verify_crc() {
        return Err(ReadError::Crc { at: base });
    }
    let producer = if batch.is_transactional() {
        batch.producer_id()
    } else {
        ProducerId::NONE
    };
    let batch_error = |source| ReadError::Batch { at: base, source };
    let mut walk = records(batch).map_err(batch_error)?;
    while let Some(record) = walk.next() {
        let record = record.map_err(batch_error)?;
        let at = batch.record_offset(record.offset_delta);
        let Some(key) = record.key else {
            return Err(ReadError::NoKey { at });
        };
        if batch.is_control() {
            let is_commit = match ControlType::from_key(key) {
                Some(ControlType::Commit) => true,
                Some(ControlType::Abort) => false,
                _ => continue,
            };
            each(LogEntry::EndOfTransaction {
                at,
                producer: batch.producer_id(),
                is_commit,
            });
            continue;
        }
        let value = record.value.map(Bytes::copy_from_slice);
        match CoordinatorRecord::decode(&Bytes::copy_from_slice(key), value.as_ref())
            .map_err(|source| ReadError::Record { at, source })?
        {
            Decoded::Record(record) => each(LogEntry::Record {
                at,
                producer,
                record,
            }),
            Decoded::Unhandled(record_type) | Decoded::Unknown(record_type) => {
                warn!(
                    record_type,
                    offset = at.0,
                    "skipped a record of another kind"
                );
            }
        }
    }
    Ok(())
}

fn finish(builder: BatchBuilder) -> EncodedBatch {
    let record_count = usize::try_from(builder.record_count()).unwrap_or(0);
    EncodedBatch {
        bytes: builder.finish(),
        record_count,
    }
}

/// Key, value, and at most so much for lengths, deltas and attributes.
fn record_size_max(key_bytes: usize, value_bytes: usize) -> usize {
    const OVERHEAD_MAX: usize = 32;
    key_bytes + value_bytes + OVERHEAD_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ProducerEpoch;
    use crate::record::{Batches, CompressionType, EndTxnMarker, ProducerInfo};

    fn tombstones(count: i32) -> Vec<CoordinatorRecord> {
        (0..count)
            .map(|partition| {
                CoordinatorRecord::offset_tombstone(&"group".into(), &"topic".into(), partition)
            })
            .collect()
    }

    fn read(bytes: &[u8]) -> Vec<LogEntry> {
        let mut entries = Vec::new();
        for batch in Batches::new(bytes) {
            read_batch(&batch.unwrap(), |entry| entries.push(entry)).unwrap();
        }
        entries
    }

    #[test]
    fn what_is_written_is_read() {
        for codec in CompressionType::ALL {
            written_and_read(Compression::new(codec, codec.default_level()));
        }
    }

    fn written_and_read(codec: Compression) {
        let records = tombstones(3);
        let batches = encode_batches(&records, true, 5, 1 << 20, codec).unwrap();
        assert_eq!(batches.len(), 1);
        let entries = read(&batches[0].bytes);
        for (index, (entry, record)) in entries.into_iter().zip(records).enumerate() {
            assert_eq!(
                entry,
                LogEntry::Record {
                    at: Offset(index as i64),
                    producer: ProducerId::NONE,
                    record
                }
            );
        }
    }

    #[test]
    fn a_sweep_is_spread_and_a_step_is_not() {
        let records = tombstones(100);
        let batches = encode_batches(&records, false, 5, 500, Compression::NONE).unwrap();
        assert!(batches.len() > 5);
        assert!(batches.iter().all(|batch| batch.bytes.len() <= 500));
        assert_eq!(batches.iter().map(|b| b.record_count).sum::<usize>(), 100);
        assert_eq!(
            encode_batches(&records, true, 5, 500, Compression::NONE),
            Err(ErrorCode::MESSAGE_TOO_LARGE)
        );
        assert_eq!(
            encode_batches(&records, false, 5, 80, Compression::NONE),
            Err(ErrorCode::MESSAGE_TOO_LARGE)
        );
        assert_eq!(
            encode_batches(&[], true, 5, 80, Compression::NONE),
            Ok(vec![])
        );
    }

    #[test]
    fn markers_and_damage_are_seen() {
        let producer = ProducerInfo {
            id: ProducerId(7),
            epoch: ProducerEpoch(0),
            base_sequence: -1,
        };
        let params = BatchParams {
            producer,
            ..BatchParams::default()
        };
        let marker = EndTxnMarker {
            commit: true,
            coordinator_epoch: 0,
        };
        let bytes = BatchBuilder::end_txn_marker(params, 5, marker);
        assert_eq!(
            read(&bytes),
            vec![LogEntry::EndOfTransaction {
                at: Offset(0),
                producer: ProducerId(7),
                is_commit: true
            }]
        );
        let mut damaged = bytes.to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        let view = BatchView::parse(&damaged).unwrap();
        assert!(matches!(
            read_batch(&view, |_| {}),
            Err(ReadError::Crc { .. })
        ));
    }
}
