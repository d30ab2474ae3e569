//! Tiered storage.
//!
//! Names, types, defaults and bounds are those of Apache Kafka 4.3.1.

use super::*;

declare! { REMOTE: Broker;
    "remote.log.storage.system.enable", Boolean, V("false"), Any, Medium, AtStart,
        "Turns tiered storage on for this broker.";
    "remote.log.storage.manager.impl.prefix", String, V("rsm.config."), NonEmpty, Medium, AtStart,
        "Prefix of the keys handed to the remote storage plug-in.";
    "remote.log.metadata.manager.impl.prefix", String, V("rlmm.config."), NonEmpty, Medium, AtStart,
        "Prefix of the keys handed to the remote metadata plug-in.";
    "remote.log.storage.manager.class.name", String, Null, NonEmpty, Medium, AtStart,
        "Java class of the remote storage plug-in.";
    "remote.log.storage.manager.class.path", String, Null, Any, Medium, AtStart,
        "Where the remote storage plug-in's classes are loaded from.";
    "remote.log.metadata.manager.class.name", String, V("org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager"), NonEmpty, Medium, AtStart,
        "Java class of the remote metadata plug-in.";
    "remote.log.metadata.manager.class.path", String, Null, Any, Medium, AtStart,
        "Where the remote metadata plug-in's classes are loaded from.";
    "remote.log.metadata.manager.listener.name", String, Null, NonEmpty, Medium, AtStart,
        "Listener through which the remote metadata plug-in reaches this broker.";
    "remote.log.metadata.custom.metadata.max.bytes", Int, V("128"), Min(0), Low, AtStart,
        "Most bytes of its own metadata a storage plug-in may attach to a segment.";
    "remote.log.index.file.cache.total.size.bytes", Long, V("1073741824"), Min(1), Low, ClusterWide,
        "Disk space for index files that were fetched from remote storage.";
    "remote.log.manager.thread.pool.size", Int, V("2"), Min(1), Medium, AtStart,
        "Older name of remote.log.manager.follower.thread.pool.size.";
    "remote.log.manager.copier.thread.pool.size", Int, V("10"), Min(1), Medium, ClusterWide,
        "Threads that copy segments to remote storage.";
    "remote.log.manager.expiration.thread.pool.size", Int, V("10"), Min(1), Medium, ClusterWide,
        "Threads that delete expired remote segments.";
    "remote.log.manager.follower.thread.pool.size", Int, V("2"), Min(1), Medium, ClusterWide,
        "Threads with which followers look up how far the leader has uploaded.";
    "remote.log.manager.task.interval.ms", Long, V("30000"), Min(1), Low, AtStart,
        "Pause between two runs of the upload and clean-up tasks.";
    "remote.log.reader.threads", Int, V("10"), Min(1), Medium, ClusterWide,
        "Threads that read from remote storage for fetch requests.";
    "remote.log.reader.max.pending.tasks", Int, V("100"), Min(1), Medium, AtStart,
        "Remote reads that may wait; more are answered with an error.";
    "log.local.retention.ms", Long, V("-2"), Min(-2), Medium, ClusterWide,
        "How long tiered segments also stay on the local disk; -2 means log.retention.ms.";
    "log.local.retention.bytes", Long, V("-2"), Min(-2), Medium, ClusterWide,
        "How many bytes of a tiered partition also stay on the local disk; -2 means log.retention.bytes.";
    "remote.log.manager.copy.max.bytes.per.second", Long, V("9223372036854775807"), Min(1), Medium, ClusterWide,
        "Upper bound of this broker's upload rate to remote storage.";
    "remote.log.manager.copy.quota.window.num", Int, V("11"), Min(1), Medium, AtStart,
        "Samples over which the upload rate is measured.";
    "remote.log.manager.copy.quota.window.size.seconds", Int, V("1"), Min(1), Medium, AtStart,
        "Length of one sample of the upload rate.";
    "remote.log.manager.fetch.max.bytes.per.second", Long, V("9223372036854775807"), Min(1), Medium, ClusterWide,
        "Upper bound of this broker's download rate from remote storage.";
    "remote.log.manager.fetch.quota.window.num", Int, V("11"), Min(1), Medium, AtStart,
        "Samples over which the download rate is measured.";
    "remote.log.manager.fetch.quota.window.size.seconds", Int, V("1"), Min(1), Medium, AtStart,
        "Length of one sample of the download rate.";
    "remote.fetch.max.wait.ms", Int, V("500"), Min(1), Medium, ClusterWide,
        "Longest wait for remote data before a fetch request is answered.";
    "remote.list.offsets.request.timeout.ms", Long, V("30000"), Min(1), Medium, ClusterWide,
        "Longest wait for remote data before an offset look-up is answered.";
}
