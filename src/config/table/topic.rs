//! Configs of a topic.
//!
//! Names, types, defaults and bounds are those of Apache Kafka 4.3.1.

use super::*;

declare! { TOPIC: Topic;
    "segment.bytes", Int, V("1073741824"), Min(1048576), Medium, PerResource,
        "Size at which the log starts a new segment file.";
    "segment.ms", Long, V("604800000"), Min(1), Medium, PerResource,
        "Age at which the log starts a new segment, even when it isn't full.";
    "segment.jitter.ms", Long, V("0"), Min(0), Medium, PerResource,
        "Random time taken off segment.ms, so that logs don't roll together.";
    "segment.index.bytes", Int, V("10485760"), Min(4), Medium, PerResource,
        "Largest offset or time index of a segment; the log rolls when it is full.";
    "flush.messages", Long, V("9223372036854775807"), Min(1), Medium, PerResource,
        "The log is forced to stable storage after this many records, before the last is acknowledged.";
    "flush.ms", Long, V("9223372036854775807"), Min(0), Medium, PerResource,
        "Longest time that a record stays unflushed.";
    "retention.bytes", Long, V("-1"), Any, Medium, PerResource,
        "Size to which a partition is kept by deleting its oldest segments; -1 sets no bound.";
    "retention.ms", Long, V("604800000"), Min(-1), Medium, PerResource,
        "How long records are kept before their segment is deleted; -1 for ever.";
    "max.message.bytes", Int, V("1048588"), Min(0), Medium, PerResource,
        "Largest record batch accepted, as stored (after compression).";
    "index.interval.bytes", Int, V("4096"), Min(0), Medium, PerResource,
        "About how many bytes of records lie between two index entries.";
    "delete.retention.ms", Long, V("86400000"), Min(0), Medium, PerResource,
        "How long a tombstone stays readable after compaction reached it.";
    "min.compaction.lag.ms", Long, V("0"), Min(0), Medium, PerResource,
        "Records younger than this are not compacted.";
    "max.compaction.lag.ms", Long, V("9223372036854775807"), Min(1), Medium, PerResource,
        "A log with dirty records older than this is compacted whatever its dirty share.";
    "file.delete.delay.ms", Long, V("60000"), Min(0), Medium, PerResource,
        "Pause between a segment's deletion and the removal of its files.";
    "min.cleanable.dirty.ratio", Double, V("0.5"), Fraction(0.0, 1.0), Medium, PerResource,
        "Share of the log that must be dirty before it is compacted.";
    "cleanup.policy", List, V("delete"), ListOfOrEmpty(&["compact", "delete"]), Medium, PerResource,
        "What happens to old records: delete, compact, both, or (empty) nothing.";
    "unclean.leader.election.enable", Boolean, V("false"), Any, Medium, PerResource,
        "Lets a replica lead that was not in sync, at the price of lost records.";
    "min.insync.replicas", Int, V("1"), Min(1), Medium, PerResource,
        "Replicas, the leader included, that must have a record before acks=all is answered.";
    "compression.type", String, V("producer"), OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), Medium, PerResource,
        "Codec in which batches are stored; \"producer\" keeps what the producer chose.";
    "compression.gzip.level", Int, V("-1"), GzipLevel, Medium, PerResource,
        "Level used where the broker itself compresses with gzip; -1 is the codec's default.";
    "compression.lz4.level", Int, V("9"), Between(1, 17), Medium, PerResource,
        "Level used where the broker itself compresses with lz4.";
    "compression.zstd.level", Int, V("3"), Between(-131072, 22), Medium, PerResource,
        "Level used where the broker itself compresses with zstd.";
    "preallocate", Boolean, V("false"), Any, Medium, PerResource,
        "Allocates a segment's whole file when it is created.";
    "message.timestamp.type", String, V("CreateTime"), OneOf(&["CreateTime", "LogAppendTime"]), Medium, PerResource,
        "Whether records carry the producer's time or that of their append.";
    "message.timestamp.before.max.ms", Long, V("9223372036854775807"), Min(0), Medium, PerResource,
        "How far a record's timestamp may lie before the broker's time.";
    "message.timestamp.after.max.ms", Long, V("3600000"), Min(0), Medium, PerResource,
        "How far a record's timestamp may lie after the broker's time.";
    "leader.replication.throttled.replicas", List, V(""), ThrottledReplicas, Medium, PerResource,
        "Replicas throttled on the leader's side, as partition:broker; * means all.";
    "follower.replication.throttled.replicas", List, V(""), ThrottledReplicas, Medium, PerResource,
        "Replicas throttled on the follower's side, as partition:broker; * means all.";
    "remote.storage.enable", Boolean, V("false"), Any, Medium, PerResource,
        "Keeps the topic's older segments in remote storage.";
    "local.retention.ms", Long, V("-2"), Min(-2), Medium, PerResource,
        "How long tiered segments also stay on the local disk; -2 means retention.ms.";
    "local.retention.bytes", Long, V("-2"), Min(-2), Medium, PerResource,
        "How many bytes of a tiered partition also stay on the local disk; -2 means retention.bytes.";
    "remote.log.copy.disable", Boolean, V("false"), Any, Medium, PerResource,
        "Stops uploads: what is in remote storage stays readable.";
    "remote.log.delete.on.disable", Boolean, V("false"), Any, Medium, PerResource,
        "Deletes what is in remote storage when tiering is turned off.";
}
