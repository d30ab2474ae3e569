//! Builds a produced batch anew for a topic that wants another codec, record by record, with
//! offsets 0, 1, 2, …  Driven by `validate::Validation`, which has checked every record
//! before; so memory is a chunk, two codecs and the output, which is bounded by
//! `max.message.bytes`.

use bytes::Bytes;

use super::batch::{BatchView, HEADER_BYTES};
use super::builder::{BatchBuilder, BatchParams};
use super::compression::Compression;
use super::decompress::OUTPUT_BYTES_MAX;
use super::feed::Feed;
use super::validate::{NO_TIMESTAMP, Rejected, ValidationRules, bytes_max};
use super::view::{Cursor, PREFIX_BYTES_MAX, VARINT_BYTES_MAX, body_length};
use crate::base::ErrorCode;

/// A large record is copied in pieces.
const PIECE_BYTES: usize = 32 << 10;

/// Builds the batch anew with another codec and offsets 0, 1, 2, …
/// (`LogValidator.buildRecordsAndAssignOffsets`). Its records were checked before.
pub(super) struct Rewrite {
    feed: Feed,
    builder: BatchBuilder,
    index: i32,
    /// Bytes of the record before `index` that were not copied yet.
    left: usize,
}

impl Rewrite {
    pub fn begin(
        view: &BatchView<'_>,
        rules: &ValidationRules<'_>,
        target: Compression,
    ) -> Result<Rewrite, Rejected> {
        check_rewritable_producer(view)?;
        let source = view.compression().expect("the codec was checked");
        Ok(Rewrite {
            feed: Feed::new(source, OUTPUT_BYTES_MAX),
            builder: BatchBuilder::new(BatchParams {
                compression: target,
                timestamp_type: rules.timestamp_type,
                log_append_time: rules.now_ms,
                producer: view.producer(),
                transactional: view.is_transactional(),
                ..BatchParams::default()
            }),
            index: 0,
            left: 0,
        })
    }

    /// Goes on with about `budget` bytes of records. True when all are copied.
    pub fn advance(
        &mut self,
        view: &BatchView<'_>,
        rules: &ValidationRules<'_>,
        budget: usize,
    ) -> Result<bool, Rejected> {
        let mut walked = 0usize;
        loop {
            walked = walked.saturating_add(self.copy_rest(
                view,
                rules,
                budget.saturating_sub(walked),
            )?);
            if self.left == 0 && self.index == view.record_count() {
                return Ok(true);
            }
            if walked >= budget {
                return Ok(false);
            }
            walked += self.begin_record(view)?;
        }
    }

    /// Writes the beginning of the next record, with its new offset. Returns how many bytes
    /// of the old one that were.
    fn begin_record(&mut self, view: &BatchView<'_>) -> Result<usize, Rejected> {
        let payload = view.payload();
        let (length, prefix) = body_length(self.feed.peek(payload, VARINT_BYTES_MAX)?)?;
        self.feed.consume(prefix);
        let bytes = self.feed.peek(payload, PREFIX_BYTES_MAX.min(length))?;
        let mut cursor = Cursor::new(bytes);
        cursor.byte()?;
        let timestamp = view.record_timestamp(cursor.varlong()?);
        cursor.varint()?;
        let deltas = bytes.len() - cursor.rest().len();
        let left = length.checked_sub(deltas).expect("the check has walked it");
        if timestamp < NO_TIMESTAMP {
            return Err(Rejected::new(
                ErrorCode::UNKNOWN_SERVER_ERROR,
                format!("Invalid negative timestamp {timestamp}"),
            ));
        }
        self.feed.consume(deltas);
        self.builder.begin_record(self.index, timestamp, left);
        self.index += 1;
        self.left = left;
        Ok(prefix + deltas)
    }

    /// Copies the rest of a record that has begun, piecewise: about `budget` bytes, and at
    /// least one piece. Returns how many they were.
    fn copy_rest(
        &mut self,
        view: &BatchView<'_>,
        rules: &ValidationRules<'_>,
        budget: usize,
    ) -> Result<usize, Rejected> {
        let mut copied = 0;
        while self.left > 0 && copied <= budget {
            let bytes = self.feed.peek(view.payload(), 1)?;
            let count = bytes.len().min(self.left).min(PIECE_BYTES);
            assert!(count > 0, "the check has walked it");
            self.builder.write_rest(&bytes[..count]);
            self.feed.consume(count);
            self.left -= count;
            copied += count;
            if self.builder.written() > bytes_max(rules) {
                return Err(too_large_after_rewrite(self.builder.written(), rules));
            }
        }
        Ok(copied)
    }

    pub fn finish(self, rules: &ValidationRules<'_>) -> Result<Bytes, Rejected> {
        let batch = self.builder.finish();
        if batch.len() > bytes_max(rules) {
            return Err(too_large_after_rewrite(batch.len(), rules));
        }
        debug_assert!(batch.len() > HEADER_BYTES, "a batch has records");
        Ok(batch)
    }
}

fn too_large_after_rewrite(size: usize, rules: &ValidationRules<'_>) -> Rejected {
    Rejected::new(
        ErrorCode::MESSAGE_TOO_LARGE,
        format!(
            "Message batch size is {size} bytes in append topartition {}-{} which exceeds the maximum configured size of {}.",
            rules.topic, rules.partition, rules.max_message_bytes
        ),
    )
}

/// Kafka's builder throws on these; kept in place they pass.
fn check_rewritable_producer(view: &BatchView<'_>) -> Result<(), Rejected> {
    let producer = view.producer();
    let text = if producer.id.0 == -1 {
        if !view.is_transactional() {
            return Ok(());
        }
        "Cannot write transactional messages without a valid producer ID"
    } else if producer.epoch.0 == -1 {
        "Invalid negative producer epoch"
    } else if producer.base_sequence < 0 {
        "Invalid negative sequence number used"
    } else {
        return Ok(());
    };
    Err(Rejected::new(ErrorCode::UNKNOWN_SERVER_ERROR, text))
}
