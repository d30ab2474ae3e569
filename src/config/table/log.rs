//! Topics and logs: what a broker uses where a topic says nothing itself.
//!
//! Names, types, defaults and bounds are those of Apache Kafka 4.3.1.

use super::*;

declare! { LOG: Broker;
    "message.max.bytes", Int, V("1048588"), Min(0), High, ClusterWide,
        "Largest record batch accepted, as stored (after compression); topics override it with max.message.bytes.";
    "delete.topic.enable", Boolean, V("true"), Any, High, AtStart,
        "Whether topics can be deleted at all.";
    "compression.type", String, V("producer"), OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), High, ClusterWide,
        "Codec in which batches are stored; \"producer\" keeps what the producer chose.";
    "compression.gzip.level", Int, V("-1"), GzipLevel, Medium, ClusterWide,
        "Level used where the broker itself compresses with gzip; -1 is the codec's default.";
    "compression.lz4.level", Int, V("9"), Between(1, 17), Medium, ClusterWide,
        "Level used where the broker itself compresses with lz4.";
    "compression.zstd.level", Int, V("3"), Between(-131072, 22), Medium, ClusterWide,
        "Level used where the broker itself compresses with zstd.";
    "default.replication.factor", Int, V("1"), Any, Medium, AtStart,
        "Replicas of a topic that is created without saying how many.";
    "log.cleaner.threads", Int, V("1"), Min(0), Medium, ClusterWide,
        "Compactions that may run at a time.";
    "log.cleaner.io.max.bytes.per.second", Double, V("1.7976931348623157E308"), Any, Medium, ClusterWide,
        "Upper bound of what compaction reads and writes.";
    "log.cleaner.dedupe.buffer.size", Long, V("134217728"), Any, Medium, ClusterWide,
        "Memory for the key maps of all compactions.";
    "log.cleaner.io.buffer.size", Int, V("524288"), Min(0), Medium, ClusterWide,
        "Memory for the read and write buffers of all compactions.";
    "log.cleaner.io.buffer.load.factor", Double, V("0.9"), Any, Medium, ClusterWide,
        "How full a compaction's key map may get, from 0 to 1.";
    "log.cleaner.backoff.ms", Long, V("15000"), Min(0), Medium, ClusterWide,
        "Pause when nothing is worth compacting.";
    "log.cleaner.min.cleanable.ratio", Double, V("0.5"), Fraction(0.0, 1.0), Medium, ClusterWide,
        "Share of a log that must be dirty before it is compacted.";
    "log.cleaner.enable", Boolean, V("true"), Any, Medium, AtStart,
        "Whether compaction runs at all.";
    "log.cleaner.delete.retention.ms", Long, V("86400000"), Min(0), Medium, ClusterWide,
        "How long a tombstone stays readable after compaction reached it.";
    "log.cleaner.min.compaction.lag.ms", Long, V("0"), Min(0), Medium, ClusterWide,
        "Records younger than this are not compacted.";
    "log.cleaner.max.compaction.lag.ms", Long, V("9223372036854775807"), Min(1), Medium, ClusterWide,
        "A log with dirty records older than this is compacted whatever its dirty share.";
    "num.partitions", Int, V("1"), Min(1), Medium, AtStart,
        "Partitions of a topic that is created without saying how many.";
    "log.dir", List, V("/tmp/kafka-logs"), NonEmptyList, High, AtStart,
        "Data directories, if log.dirs is unset.";
    "log.dirs", List, Null, NonEmptyList, High, AtStart,
        "Data directories, each on a disk of its own if possible.";
    "cordoned.log.dirs", List, V(""), UniqueList, Medium, PerBroker,
        "Data directories that get no new partitions; * means all.";
    "log.segment.bytes", Int, V("1073741824"), Min(1048576), High, ClusterWide,
        "Size at which a log starts a new segment file.";
    "log.roll.ms", Long, Null, Any, High, ClusterWide,
        "Age at which a log starts a new segment; unset means log.roll.hours.";
    "log.roll.hours", Int, V("168"), Min(1), High, AtStart,
        "Age in hours at which a log starts a new segment, if log.roll.ms is unset.";
    "log.roll.jitter.ms", Long, Null, Any, High, ClusterWide,
        "Random time taken off the roll age, so that logs don't roll together; unset means log.roll.jitter.hours.";
    "log.roll.jitter.hours", Int, V("0"), Min(0), High, AtStart,
        "Random hours taken off the roll age, if log.roll.jitter.ms is unset.";
    "log.retention.ms", Long, Null, Any, High, ClusterWide,
        "How long records are kept; -1 for ever; unset means log.retention.minutes.";
    "log.retention.minutes", Int, Null, Any, High, AtStart,
        "Minutes that records are kept, if log.retention.ms is unset; unset means log.retention.hours.";
    "log.retention.hours", Int, V("168"), Any, High, AtStart,
        "Hours that records are kept, if neither log.retention.ms nor .minutes is set.";
    "log.retention.bytes", Long, V("-1"), Any, High, ClusterWide,
        "Size to which a partition is kept by deleting its oldest segments; -1 sets no bound.";
    "log.retention.check.interval.ms", Long, V("300000"), Min(1), Medium, AtStart,
        "How often expired segments are looked for.";
    "log.cleanup.policy", List, V("delete"), ListOfOrEmpty(&["compact", "delete"]), Medium, ClusterWide,
        "What happens to old records: delete, compact, both, or (empty) nothing.";
    "log.index.size.max.bytes", Int, V("10485760"), Min(4), Medium, ClusterWide,
        "Largest offset or time index of a segment; the log rolls when it is full.";
    "log.index.interval.bytes", Int, V("4096"), Min(0), Medium, ClusterWide,
        "About how many bytes of records lie between two index entries.";
    "log.flush.interval.messages", Long, V("9223372036854775807"), Min(1), High, ClusterWide,
        "A log is forced to stable storage after this many records, before the last is acknowledged.";
    "log.segment.delete.delay.ms", Long, V("60000"), Min(0), High, ClusterWide,
        "Pause between a segment's deletion and the removal of its files.";
    "log.flush.scheduler.interval.ms", Long, V("9223372036854775807"), Any, High, AtStart,
        "How often logs are looked through for those due to be flushed.";
    "log.flush.interval.ms", Long, Null, Any, High, ClusterWide,
        "Longest time that a record stays unflushed; unset means log.flush.scheduler.interval.ms.";
    "log.flush.offset.checkpoint.interval.ms", Int, V("60000"), Min(0), High, AtStart,
        "How often the offsets up to which logs are flushed are written down.";
    "log.flush.start.offset.checkpoint.interval.ms", Int, V("60000"), Min(0), High, AtStart,
        "How often log start offsets are written down.";
    "log.preallocate", Boolean, V("false"), Any, Medium, ClusterWide,
        "Allocates a segment's whole file when it is created.";
    "num.recovery.threads.per.data.dir", Int, V("2"), Min(1), High, ClusterWide,
        "Logs of one directory that are recovered at a time after an unclean stop.";
    "auto.create.topics.enable", Boolean, V("true"), Any, High, AtStart,
        "Creates a topic when a client asks for one that doesn't exist.";
    "min.insync.replicas", Int, V("1"), Min(1), High, ClusterWide,
        "Replicas, the leader included, that must have a record before acks=all is answered.";
    "log.message.timestamp.type", String, V("CreateTime"), OneOf(&["CreateTime", "LogAppendTime"]), Medium, ClusterWide,
        "Whether records carry the producer's time or that of their append.";
    "log.message.timestamp.before.max.ms", Long, V("9223372036854775807"), Min(0), Medium, ClusterWide,
        "How far a record's timestamp may lie before the broker's time.";
    "log.message.timestamp.after.max.ms", Long, V("3600000"), Min(0), Medium, ClusterWide,
        "How far a record's timestamp may lie after the broker's time.";
    "log.dir.failure.timeout.ms", Long, V("30000"), Min(1), Low, AtStart,
        "A broker that can't report a failed directory for this long stops.";
}
