//! Rules that any well-formed batch of a client keeps, whatever its timestamps.

use ottla::base::PartitionIndex;
use ottla::record::{Origin, TargetCompression, TimestampType, ValidationRules};

pub fn rules(now_ms: i64) -> ValidationRules<'static> {
    ValidationRules {
        topic: "t",
        partition: PartitionIndex(0),
        now_ms,
        max_message_bytes: 1 << 20,
        compression_type: TargetCompression::Producer,
        timestamp_type: TimestampType::CreateTime,
        before_max_ms: i64::MAX,
        after_max_ms: i64::MAX,
        compacted: false,
        origin: Origin::Client,
        produce_version: 11,
    }
}
