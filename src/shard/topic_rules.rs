//! A topic's configuration as those go by it that don't know configurations: the validation
//! of records, and the log. Pure. Called by `shard::partition`, `append_line` and `replicas`.

use crate::base::{Millis, PartitionIndex};
use crate::config::{self, TopicConfig};
use crate::log::LogConfig;
use crate::record::validate::{Origin, TargetCompression, ValidationRules};
use crate::record::{Compression, CompressionType, batch};

/// What a client's batch for a partition has to keep.
pub fn rules<'t>(
    topic: &'t str,
    partition: PartitionIndex,
    config: &TopicConfig,
    produce_version: i16,
    now_ms: Millis,
) -> ValidationRules<'t> {
    ValidationRules {
        topic,
        partition,
        now_ms,
        max_message_bytes: config.max_message_bytes,
        compression_type: target_compression(config.compression),
        timestamp_type: timestamp_type(config.message_timestamp_type),
        before_max_ms: config.message_timestamp_before_max_ms,
        after_max_ms: config.message_timestamp_after_max_ms,
        compacted: config.cleanup_policy.compact,
        origin: Origin::Client,
        produce_version,
    }
}

/// A topic's configuration as far as its log goes by it.
pub fn log_config(config: &TopicConfig) -> LogConfig {
    let size = |bytes: i32| u32::try_from(bytes).unwrap_or(0);
    LogConfig {
        segment_bytes: size(config.segment_bytes),
        segment_ms: config.segment_ms,
        segment_jitter_ms: config.segment_jitter_ms,
        segment_index_bytes: size(config.segment_index_bytes),
        index_interval_bytes: size(config.index_interval_bytes),
        retention_ms: config.retention_ms,
        retention_bytes: config.retention_bytes,
        cleanup_delete: config.cleanup_policy.delete,
        cleanup_compact: config.cleanup_policy.compact,
        flush_messages: config.flush_messages,
        flush_ms: config.flush_ms,
        file_delete_delay_ms: config.file_delete_delay_ms,
    }
}

fn target_compression(config: config::Compression) -> TargetCompression {
    let codec = |kind, level| TargetCompression::Codec(Compression::new(kind, level));
    match config {
        config::Compression::Producer => TargetCompression::Producer,
        config::Compression::Uncompressed => TargetCompression::Codec(Compression::NONE),
        config::Compression::Gzip(level) => codec(CompressionType::Gzip, level),
        config::Compression::Snappy => codec(
            CompressionType::Snappy,
            CompressionType::Snappy.default_level(),
        ),
        config::Compression::Lz4(level) => codec(CompressionType::Lz4, level),
        config::Compression::Zstd(level) => codec(CompressionType::Zstd, level),
    }
}

fn timestamp_type(config: config::TimestampType) -> batch::TimestampType {
    match config {
        config::TimestampType::CreateTime => batch::TimestampType::CreateTime,
        config::TimestampType::LogAppendTime => batch::TimestampType::LogAppendTime,
    }
}
