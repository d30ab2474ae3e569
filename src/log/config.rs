//! What the owner of a log tells it: a topic's configuration as far as storage is
//! concerned, and where the log was left.

use crate::base::{Millis, Offset, Uuid};

/// A topic's configuration, by Kafka's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    pub segment_bytes: u32,
    pub segment_ms: Millis,
    pub segment_jitter_ms: Millis,
    pub segment_index_bytes: u32,
    pub index_interval_bytes: u32,
    /// -1 for no limit.
    pub retention_ms: Millis,
    /// -1 for no limit.
    pub retention_bytes: i64,
    /// Whether `cleanup.policy` has `delete`. With neither, only what lies below the log
    /// start offset goes.
    pub cleanup_delete: bool,
    pub cleanup_compact: bool,
    pub flush_messages: i64,
    pub flush_ms: Millis,
    pub file_delete_delay_ms: Millis,
}

impl Default for LogConfig {
    /// Kafka's defaults.
    fn default() -> Self {
        LogConfig {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention_ms: 7 * 24 * 3_600_000,
            retention_bytes: -1,
            cleanup_delete: true,
            cleanup_compact: false,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            file_delete_delay_ms: 60_000,
        }
    }
}

/// How a log was left, and who it belongs to.
#[derive(Clone, Debug)]
pub struct OpenParams {
    /// From the checkpoint; everything below is known to be synced.
    pub recovery_point: Offset,
    /// From the checkpoint; 0 where it has no entry.
    pub log_start_offset: Offset,
    /// Whether the directory had the clean shutdown marker.
    pub clean: bool,
    /// Whether what isn't a whole batch ends the log, whatever follows it. Right where nobody
    /// was promised what wasn't synced in order: for the metadata log, whose replicas count
    /// what is synced up to an offset, and for a copy, whose original is there.
    pub ends_at_damage: bool,
    /// Written to `partition.metadata` where that is missing.
    pub topic_id: Option<Uuid>,
    /// `producer.id.expiration.ms`
    pub producer_id_expiration_ms: Millis,
    /// Draws the jitter of segment rolls.
    pub seed: u64,
}

impl Default for OpenParams {
    fn default() -> Self {
        OpenParams {
            recovery_point: Offset(0),
            log_start_offset: Offset(0),
            clean: false,
            ends_at_damage: false,
            topic_id: None,
            producer_id_expiration_ms: 24 * 3_600_000,
            seed: 0,
        }
    }
}
