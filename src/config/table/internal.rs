//! Keys that Kafka keeps for its own tests: accepted, not shown.
//!
//! Names, types, defaults and bounds are those of Apache Kafka 4.3.1.

use super::*;

declare! { INTERNAL: Broker internal;
    "remote.log.index.file.cache.ttl.ms", Long, V("900000"), Min(-1), Low, AtStart,
        "How long a fetched index file may stay unused before it is evicted; -1 keeps it.";
    "remote.log.manager.task.retry.backoff.ms", Long, V("500"), Min(1), Low, AtStart,
        "First pause before a failed remote task is tried again.";
    "remote.log.manager.task.retry.backoff.max.ms", Long, V("30000"), Min(1), Low, AtStart,
        "Longest pause before a failed remote task is tried again.";
    "remote.log.manager.task.retry.jitter", Double, V("0.2"), Fraction(0.0, 0.5), Low, AtStart,
        "Share by which the pause between retries is varied at random.";
    "unstable.api.versions.enable", Boolean, V("false"), Any, High, AtStart,
        "Offers API versions that are still under development.";
    "unstable.feature.versions.enable", Boolean, V("false"), Any, High, AtStart,
        "Offers feature levels that are still under development.";
    "controller.performance.sample.period.ms", Long, V("60000"), Min(100), Medium, AtStart,
        "How often the controller reports its event times.";
    "controller.performance.always.log.threshold.ms", Long, V("2000"), Min(0), Medium, AtStart,
        "Controller events slower than this are always reported.";
    "server.max.startup.time.ms", Long, V("9223372036854775807"), Min(0), Medium, AtStart,
        "Gives up when the start takes longer than this.";
    "internal.metadata.log.segment.bytes", Int, Null, Any, Low, AtStart,
        "Size of a metadata log file in tests.";
    "internal.metadata.max.batch.size.in.bytes", Int, V("8388608"), Any, Low, AtStart,
        "Largest batch of the metadata log in tests.";
    "internal.metadata.delete.delay.millis", Long, V("60000"), Any, Low, AtStart,
        "Pause before a metadata file is removed, in tests.";
    "unclean.leader.election.interval.ms", Long, V("300000"), Min(1), Medium, AtStart,
        "How often the controller looks for leaderless partitions that may elect uncleanly.";
    "group.consumer.regex.refresh.interval.ms", Int, V("600000"), Min(10000), Medium, AtStart,
        "How often the topics behind a group's regular expressions are looked up again.";
    "group.share.initialize.retry.interval.ms", Int, V("30000"), Min(1), Low, AtStart,
        "Pause before initialising a share partition is tried again.";
    "log.initial.task.delay.ms", Long, V("30000"), Min(0), Low, AtStart,
        "Pause after the start before log maintenance begins.";
    "group.share.persister.class.name", String, V("org.apache.kafka.server.share.persister.DefaultStatePersister"), Any, Medium, AtStart,
        "Java class that stores share group state.";
    "share.coordinator.state.topic.prune.interval.ms", Int, V("300000"), Min(1), Low, AtStart,
        "How often obsolete share group state is deleted.";
    "share.coordinator.cold.partition.snapshot.interval.ms", Int, V("300000"), Min(1), Low, AtStart,
        "How often idle share partitions are written as snapshots.";
    "producer.id.expiration.check.interval.ms", Int, V("600000"), Min(1), Low, AtStart,
        "How often idle producers are looked for.";
}

declare! { INTERNAL_TOPIC: Topic internal;
    "internal.segment.bytes", Int, Null, Any, Medium, PerResource,
        "Segment size in tests, free of the lower bound.";
}
