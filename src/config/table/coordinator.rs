//! Group, share and transaction coordinators and producer state.
//!
//! Names, types, defaults and bounds are those of Apache Kafka 4.3.1.

use super::*;

declare! { COORDINATOR: Broker;
    "group.coordinator.rebalance.protocols", List, V("classic,consumer,streams"), ListOf(&["consumer", "classic", "share", "streams"]), Medium, AtStart,
        "Group protocols that are offered.";
    "group.coordinator.threads", Int, V("4"), Min(1), High, AtStart,
        "Group coordinator threads in Apache Kafka. Ottla runs coordinators on its event loops.";
    "group.coordinator.background.threads", Int, V("2"), Min(1), High, AtStart,
        "Group coordinator background threads in Apache Kafka.";
    "group.coordinator.append.linger.ms", Int, V("-1"), Min(-1), Medium, AtStart,
        "How long group changes gather before they are written together; -1 lets the broker choose.";
    "offsets.commit.timeout.ms", Int, V("5000"), Min(1), High, AtStart,
        "How long an offset commit waits for its replicas.";
    "offsets.load.buffer.size", Int, V("5242880"), Min(1), High, AtStart,
        "Bytes read at a time while groups are loaded.";
    "offsets.topic.replication.factor", Short, V("3"), Min(1), High, AtStart,
        "Replicas of __consumer_offsets when it is created.";
    "offsets.topic.num.partitions", Int, V("50"), Min(1), High, AtStart,
        "Partitions of __consumer_offsets when it is created; not to be changed later.";
    "offsets.topic.segment.bytes", Int, V("104857600"), Min(1), High, AtStart,
        "Segment size of __consumer_offsets.";
    "offsets.topic.compression.codec", Int, V("0"), Any, High, AtStart,
        "Codec of __consumer_offsets: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.";
    "group.coordinator.cached.buffer.max.bytes", Int, V("1048588"), Min(524288), Medium, ClusterWide,
        "Largest write buffer that a group coordinator keeps for reuse.";
    "offset.metadata.max.bytes", Int, V("4096"), Any, High, AtStart,
        "Longest text that a client may store with a committed offset.";
    "offsets.retention.minutes", Int, V("10080"), Min(1), High, AtStart,
        "How long committed offsets of an empty group are kept.";
    "offsets.retention.check.interval.ms", Long, V("600000"), Min(1), High, AtStart,
        "How often expired committed offsets are looked for.";
    "group.min.session.timeout.ms", Int, V("6000"), Any, Medium, AtStart,
        "Shortest session timeout that a classic group member may ask for.";
    "group.max.session.timeout.ms", Int, V("1800000"), Any, Medium, AtStart,
        "Longest session timeout that a classic group member may ask for.";
    "group.initial.rebalance.delay.ms", Int, V("3000"), Any, Medium, AtStart,
        "How long a new classic group waits for more members before its first rebalance.";
    "group.max.size", Int, V("2147483647"), Min(1), Medium, AtStart,
        "Most members of a classic group.";
    "group.consumer.session.timeout.ms", Int, V("45000"), Min(1), Medium, AtStart,
        "A consumer group member without a heartbeat for this long is removed.";
    "group.consumer.min.session.timeout.ms", Int, V("45000"), Min(1), Medium, AtStart,
        "Lower bound of consumer.session.timeout.ms of a group.";
    "group.consumer.max.session.timeout.ms", Int, V("60000"), Min(1), Medium, AtStart,
        "Upper bound of consumer.session.timeout.ms of a group.";
    "group.consumer.heartbeat.interval.ms", Int, V("5000"), Min(1), Medium, AtStart,
        "Heartbeat interval that consumer group members are told.";
    "group.consumer.min.heartbeat.interval.ms", Int, V("5000"), Min(1), Medium, AtStart,
        "Lower bound of consumer.heartbeat.interval.ms of a group.";
    "group.consumer.max.heartbeat.interval.ms", Int, V("15000"), Min(1), Medium, AtStart,
        "Upper bound of consumer.heartbeat.interval.ms of a group.";
    "group.consumer.max.size", Int, V("2147483647"), Min(1), Medium, AtStart,
        "Most members of a consumer group.";
    "group.consumer.assignors", List, V("uniform,range"), NonEmptyList, Medium, AtStart,
        "Assignors for consumer groups; the first is the default.";
    "group.consumer.migration.policy", String, V("bidirectional"), OneOfAnyCase(&["DISABLED", "DOWNGRADE", "UPGRADE", "BIDIRECTIONAL"]), Medium, AtStart,
        "Which conversions between classic and consumer groups are allowed while members are present.";
    "group.consumer.assignment.interval.ms", Int, V("1000"), Min(0), Medium, ClusterWide,
        "Least time between two assignments of a consumer group.";
    "group.consumer.min.assignment.interval.ms", Int, V("0"), Min(0), Medium, AtStart,
        "Lower bound of consumer.assignment.interval.ms of a group.";
    "group.consumer.max.assignment.interval.ms", Int, V("15000"), Min(0), Medium, AtStart,
        "Upper bound of consumer.assignment.interval.ms of a group.";
    "group.share.session.timeout.ms", Int, V("45000"), Min(1), Medium, AtStart,
        "A share group member without a heartbeat for this long is removed.";
    "group.share.min.session.timeout.ms", Int, V("45000"), Min(1), Medium, AtStart,
        "Lower bound of share.session.timeout.ms of a group.";
    "group.share.max.session.timeout.ms", Int, V("60000"), Min(1), Medium, AtStart,
        "Upper bound of share.session.timeout.ms of a group.";
    "group.share.heartbeat.interval.ms", Int, V("5000"), Min(1), Medium, AtStart,
        "Heartbeat interval that share group members are told.";
    "group.share.min.heartbeat.interval.ms", Int, V("5000"), Min(1), Medium, AtStart,
        "Lower bound of share.heartbeat.interval.ms of a group.";
    "group.share.max.heartbeat.interval.ms", Int, V("15000"), Min(1), Medium, AtStart,
        "Upper bound of share.heartbeat.interval.ms of a group.";
    "group.share.max.size", Int, V("200"), Between(1, 1000), Medium, AtStart,
        "Most members of a share group.";
    "group.share.assignors", List, V("simple"), NonEmptyList, Medium, AtStart,
        "Assignors for share groups; one only.";
    "group.share.assignment.interval.ms", Int, V("1000"), Min(0), Medium, ClusterWide,
        "Least time between two assignments of a share group.";
    "group.share.min.assignment.interval.ms", Int, V("0"), Min(0), Medium, AtStart,
        "Lower bound of share.assignment.interval.ms of a group.";
    "group.share.max.assignment.interval.ms", Int, V("15000"), Min(0), Medium, AtStart,
        "Upper bound of share.assignment.interval.ms of a group.";
    "group.streams.session.timeout.ms", Int, V("45000"), Min(1), Medium, AtStart,
        "A streams group member without a heartbeat for this long is removed.";
    "group.streams.min.session.timeout.ms", Int, V("45000"), Min(1), Medium, AtStart,
        "Lower bound of streams.session.timeout.ms of a group.";
    "group.streams.max.session.timeout.ms", Int, V("60000"), Min(1), Medium, AtStart,
        "Upper bound of streams.session.timeout.ms of a group.";
    "group.streams.heartbeat.interval.ms", Int, V("5000"), Min(1), Medium, AtStart,
        "Heartbeat interval that streams group members are told.";
    "group.streams.min.heartbeat.interval.ms", Int, V("5000"), Min(1), Medium, AtStart,
        "Lower bound of streams.heartbeat.interval.ms of a group.";
    "group.streams.max.heartbeat.interval.ms", Int, V("15000"), Min(1), Medium, AtStart,
        "Upper bound of streams.heartbeat.interval.ms of a group.";
    "group.streams.max.size", Int, V("2147483647"), Min(1), Medium, AtStart,
        "Most members of a streams group.";
    "group.streams.num.standby.replicas", Int, V("0"), Min(0), Medium, AtStart,
        "Standby copies of every streams task.";
    "group.streams.max.standby.replicas", Int, V("2"), Min(0), Medium, AtStart,
        "Upper bound of streams.num.standby.replicas of a group.";
    "group.streams.initial.rebalance.delay.ms", Int, V("3000"), Min(0), Medium, AtStart,
        "How long a new streams group waits for more members before its first assignment.";
    "group.streams.assignment.interval.ms", Int, V("1000"), Min(0), Medium, ClusterWide,
        "Least time between two assignments of a streams group.";
    "group.streams.min.assignment.interval.ms", Int, V("0"), Min(0), Medium, AtStart,
        "Lower bound of streams.assignment.interval.ms of a group.";
    "group.streams.max.assignment.interval.ms", Int, V("15000"), Min(0), Medium, AtStart,
        "Upper bound of streams.assignment.interval.ms of a group.";
    "group.share.delivery.count.limit", Int, V("5"), Between(2, 10), Medium, AtStart,
        "How often a record is delivered to a share group before it is archived.";
    "group.share.max.delivery.count.limit", Int, V("10"), Between(5, 25), Medium, AtStart,
        "Upper bound of share.delivery.count.limit of a group.";
    "group.share.min.delivery.count.limit", Int, V("2"), Between(2, 5), Medium, AtStart,
        "Lower bound of share.delivery.count.limit of a group.";
    "group.share.record.lock.duration.ms", Int, V("30000"), Between(1000, 3600000), Medium, AtStart,
        "How long a share consumer holds a record before it goes to another.";
    "group.share.min.record.lock.duration.ms", Int, V("15000"), Between(1000, 30000), Medium, AtStart,
        "Lower bound of share.record.lock.duration.ms of a group.";
    "group.share.max.record.lock.duration.ms", Int, V("60000"), Between(30000, 3600000), Medium, AtStart,
        "Upper bound of share.record.lock.duration.ms of a group.";
    "group.share.partition.max.record.locks", Int, V("2000"), Between(100, 10000), Medium, AtStart,
        "Records of one share partition that may be held at a time.";
    "group.share.max.partition.max.record.locks", Int, V("4000"), Between(2000, 10000), Medium, AtStart,
        "Upper bound of share.partition.max.record.locks of a group.";
    "group.share.min.partition.max.record.locks", Int, V("100"), Between(100, 2000), Medium, AtStart,
        "Lower bound of share.partition.max.record.locks of a group.";
    "share.fetch.purgatory.purge.interval.requests", Int, V("1000"), Any, Medium, AtStart,
        "Waiting share fetches after which finished ones are swept in Apache Kafka.";
    "group.share.max.share.sessions", Int, V("2000"), Min(1), Medium, AtStart,
        "Share sessions that a broker keeps.";
    "share.coordinator.state.topic.num.partitions", Int, V("50"), Min(1), High, AtStart,
        "Partitions of __share_group_state when it is created; not to be changed later.";
    "share.coordinator.state.topic.replication.factor", Short, V("3"), Min(1), High, AtStart,
        "Replicas of __share_group_state when it is created.";
    "share.coordinator.state.topic.min.isr", Short, V("2"), Min(1), High, AtStart,
        "min.insync.replicas of __share_group_state.";
    "share.coordinator.state.topic.segment.bytes", Int, V("104857600"), Min(1), High, AtStart,
        "Segment size of __share_group_state.";
    "share.coordinator.threads", Int, V("1"), Min(1), Medium, AtStart,
        "Share coordinator threads in Apache Kafka.";
    "share.coordinator.snapshot.update.records.per.snapshot", Int, V("500"), Between(0, 500), Medium, AtStart,
        "Update records between two snapshots of a share partition's state.";
    "share.coordinator.load.buffer.size", Int, V("5242880"), Min(1), High, AtStart,
        "Bytes read at a time while share group state is loaded.";
    "share.coordinator.state.topic.compression.codec", Int, V("0"), Any, High, AtStart,
        "Codec of __share_group_state: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.";
    "share.coordinator.append.linger.ms", Int, V("-1"), Min(-1), Medium, AtStart,
        "How long share state changes gather before they are written together; -1 lets the broker choose.";
    "share.coordinator.write.timeout.ms", Int, V("5000"), Min(1), High, AtStart,
        "How long a write of share group state waits for its replicas.";
    "share.coordinator.cached.buffer.max.bytes", Int, V("1048588"), Min(524288), Medium, ClusterWide,
        "Largest write buffer that a share coordinator keeps for reuse.";
    "transaction.state.log.min.isr", Int, V("2"), Min(1), High, AtStart,
        "min.insync.replicas of __transaction_state.";
    "transaction.state.log.load.buffer.size", Int, V("5242880"), Min(1), High, AtStart,
        "Bytes read at a time while transactions are loaded.";
    "transaction.state.log.replication.factor", Short, V("3"), Min(1), High, AtStart,
        "Replicas of __transaction_state when it is created.";
    "transaction.state.log.num.partitions", Int, V("50"), Min(1), High, AtStart,
        "Partitions of __transaction_state when it is created; not to be changed later.";
    "transaction.state.log.segment.bytes", Int, V("104857600"), Min(1), High, AtStart,
        "Segment size of __transaction_state.";
    "transaction.partition.verification.enable", Boolean, V("true"), Any, Low, ClusterWide,
        "Checks with the coordinator that a transaction covers the partition before it writes there.";
    "producer.id.expiration.ms", Int, V("86400000"), Min(1), Low, ClusterWide,
        "An idle producer's sequence numbers are forgotten after this long.";
    "transactional.id.expiration.ms", Int, V("604800000"), Min(1), High, AtStart,
        "A transactional id that isn't used for this long is forgotten.";
    "transaction.max.timeout.ms", Int, V("900000"), Min(1), High, AtStart,
        "Longest transaction timeout that a producer may ask for.";
    "transaction.abort.timed.out.transaction.cleanup.interval.ms", Int, V("10000"), Min(1), Low, AtStart,
        "How often transactions past their timeout are looked for.";
    "transaction.remove.expired.transaction.cleanup.interval.ms", Int, V("3600000"), Min(1), Low, AtStart,
        "How often expired transactional ids are looked for.";
    "transaction.two.phase.commit.enable", Boolean, V("false"), Any, Low, AtStart,
        "Allows transactions that an outside coordinator prepares and commits.";
    "add.partitions.to.txn.retry.backoff.max.ms", Int, V("100"), Min(0), High, AtStart,
        "Longest time for which adding partitions to a transaction is retried by the broker.";
    "add.partitions.to.txn.retry.backoff.ms", Int, V("20"), Min(1), High, AtStart,
        "Pause between such retries.";
}
