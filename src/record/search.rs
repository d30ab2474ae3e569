//! Looks for records by timestamp inside one batch (`FileRecords.searchForTimestamp`,
//! `RecordBatch.offsetOfMaxTimestamp`). Keys and values are skipped, never copied.

use super::batch::BatchView;
use super::decompress::OUTPUT_BYTES_MAX;
use super::feed::Feed;
use super::view::RecordsError;
use crate::base::{Millis, Offset};

/// A record found by its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampOffset {
    pub timestamp: Millis,
    pub offset: Offset,
}

/// The first record at or after `min_offset` whose timestamp is at least `timestamp`.
/// Answers from the header alone where it can.
pub fn first_at_or_after(
    batch: &BatchView<'_>,
    timestamp: Millis,
    min_offset: Offset,
) -> Result<Option<TimestampOffset>, RecordsError> {
    if batch.max_timestamp() < timestamp {
        return Ok(None);
    }
    find(batch, |found| {
        found.timestamp >= timestamp && found.offset >= min_offset
    })
}

/// The first record that has the batch's max timestamp; `None` if none has, as in a batch
/// whose record of that timestamp was compacted away.
pub fn offset_of_max_timestamp(
    batch: &BatchView<'_>,
) -> Result<Option<TimestampOffset>, RecordsError> {
    let max_timestamp = batch.max_timestamp();
    find(batch, |found| found.timestamp == max_timestamp)
}

fn find(
    batch: &BatchView<'_>,
    matches: impl Fn(&TimestampOffset) -> bool,
) -> Result<Option<TimestampOffset>, RecordsError> {
    let codec = batch
        .compression()
        .ok_or(RecordsError::UnknownCodec(batch.codec_id()))?;
    let mut feed = Feed::new(codec, OUTPUT_BYTES_MAX);
    for _ in 0..batch.record_count() {
        let record = feed
            .skim(batch.payload(), usize::MAX)?
            .expect("without a budget it goes on to the end");
        let found = TimestampOffset {
            timestamp: batch.record_timestamp(record.timestamp_delta),
            offset: batch.record_offset(record.offset_delta),
        };
        if matches(&found) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
