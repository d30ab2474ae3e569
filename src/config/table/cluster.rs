//! The controller, its metadata log, a broker's life in the cluster and replication.
//!
//! Names, types, defaults and bounds are those of Apache Kafka 4.3.1.

use super::*;

declare! { CLUSTER: Broker;
    "num.replica.alter.log.dirs.threads", Int, Null, Any, High, AtStart,
        "Threads that move replicas between log directories; unset means one per directory.";
    "controlled.shutdown.enable", Boolean, V("true"), Any, Medium, AtStart,
        "Hands leaderships over to other brokers before stopping.";
    "initial.broker.registration.timeout.ms", Int, V("60000"), Any, Medium, AtStart,
        "How long a starting broker tries to register before it gives up.";
    "broker.heartbeat.interval.ms", Int, V("2000"), Any, Medium, AtStart,
        "Pause between a broker's heartbeats to the controller.";
    "broker.session.timeout.ms", Int, V("9000"), Any, Medium, AtStart,
        "A broker without a heartbeat for this long is fenced.";
    "controller.listener.names", List, Required, NonEmptyList, High, AtStart,
        "Listeners that serve the controller; brokers talk to it through the first.";
    "metadata.log.max.record.bytes.between.snapshots", Long, V("20971520"), Min(1), High, AtStart,
        "A metadata snapshot is written after this many bytes of new records.";
    "metadata.log.max.snapshot.interval.ms", Long, V("3600000"), Min(0), High, AtStart,
        "A metadata snapshot is written after this long if there are new records; 0 never for time.";
    "metadata.log.dir", String, Null, Any, High, AtStart,
        "Directory of the metadata log; unset means the first of log.dirs.";
    "metadata.log.segment.bytes", Int, V("1073741824"), Min(8388608), High, AtStart,
        "Size at which the metadata log starts a new file.";
    "metadata.log.segment.ms", Long, V("604800000"), Any, High, AtStart,
        "Age at which the metadata log starts a new file.";
    "metadata.max.retention.bytes", Long, V("104857600"), Any, High, AtStart,
        "Metadata log and old snapshots are deleted down to this size (a snapshot always stays).";
    "metadata.max.retention.ms", Long, V("604800000"), Any, High, AtStart,
        "Metadata log files and snapshots older than this are deleted (a snapshot always stays).";
    "metadata.max.idle.interval.ms", Int, V("500"), Min(0), Low, AtStart,
        "Pause after which the controller writes a no-op record; 0 writes none.";
    "controller.socket.timeout.ms", Int, V("30000"), Any, Medium, AtStart,
        "How long a controller waits for an answer from a broker.";
    "replica.lag.time.max.ms", Long, V("30000"), Any, High, AtStart,
        "A follower that hasn't caught up for this long leaves the in-sync replicas.";
    "replica.socket.timeout.ms", Int, V("30000"), Any, High, AtStart,
        "How long a follower waits for an answer from a leader.";
    "replica.socket.receive.buffer.bytes", Int, V("65536"), Any, High, AtStart,
        "SO_RCVBUF of a follower's connections to leaders.";
    "replica.fetch.max.bytes", Int, V("1048576"), Min(0), Medium, AtStart,
        "Most bytes of one partition that a follower asks for at a time.";
    "replica.fetch.wait.max.ms", Int, V("500"), Any, High, AtStart,
        "How long a leader may hold a follower's fetch when there is nothing new.";
    "replica.fetch.backoff.ms", Int, V("1000"), Min(0), Medium, AtStart,
        "A follower's pause after an error of a partition.";
    "replica.fetch.min.bytes", Int, V("1"), Any, High, AtStart,
        "Fewest bytes for which a leader answers a follower's fetch at once.";
    "replica.fetch.response.max.bytes", Int, V("10485760"), Min(0), Medium, AtStart,
        "Most bytes of all partitions that a follower asks for at a time.";
    "num.replica.fetchers", Int, V("1"), Min(1), High, ClusterWide,
        "Connections with which a follower reads from each leader.";
    "replica.high.watermark.checkpoint.interval.ms", Long, V("5000"), Any, High, AtStart,
        "How often high watermarks are written to disk.";
    "auto.leader.rebalance.enable", Boolean, V("true"), Any, High, AtStart,
        "Gives leadership back to preferred replicas from time to time.";
    "leader.imbalance.check.interval.seconds", Long, V("300"), Min(1), High, AtStart,
        "How often the controller looks for partitions not led by their preferred replica.";
    "unclean.leader.election.enable", Boolean, V("false"), Any, High, ClusterWide,
        "Lets a replica lead that was not in sync, at the price of lost records.";
    "inter.broker.listener.name", String, Null, Any, Medium, AtStart,
        "Listener through which brokers talk to each other.";
    "replica.selector.class", String, Null, Any, Medium, AtStart,
        "Plug-in that chooses the replica a consumer should read from.";
    "follower.fetch.last.tiered.offset.enable", Boolean, V("false"), Any, Medium, ClusterWide,
        "Lets an empty follower start after what is already in remote storage.";
    "controller.quorum.voters", List, V(""), Voters, High, AtStart,
        "The voters of a static quorum, as id@host:port.";
    "controller.quorum.bootstrap.servers", List, V(""), Endpoints, High, AtStart,
        "Controllers to ask for the quorum's leader, as host:port.";
    "controller.quorum.election.timeout.ms", Int, V("1000"), Min(0), High, AtStart,
        "A voter that hears of no leader for this long stands for election.";
    "controller.quorum.fetch.timeout.ms", Int, V("2000"), Min(0), High, AtStart,
        "A voter that can't fetch from its leader for this long stands for election.";
    "controller.quorum.election.backoff.max.ms", Int, V("1000"), Min(0), High, AtStart,
        "Longest pause between two elections of a candidate.";
    "controller.quorum.append.linger.ms", Int, V("25"), Min(0), Medium, AtStart,
        "How long metadata records gather before they are written together.";
    "controller.quorum.request.timeout.ms", Int, V("2000"), Min(0), Medium, AtStart,
        "How long a quorum request waits for its answer.";
    "controller.quorum.retry.backoff.ms", Int, V("20"), Min(0), Low, AtStart,
        "Pause before a failed quorum request is repeated.";
    "controller.quorum.auto.join.enable", Boolean, V("false"), Any, Low, AtStart,
        "Lets a new controller add itself to the voters.";
    "controller.quorum.fetch.snapshot.max.bytes", Int, V("1048576"), Min(1), Low, AtStart,
        "Most bytes of a metadata snapshot that are asked for at a time.";
    "controller.quorum.fetch.max.bytes", Int, V("1048576"), Min(1), Low, AtStart,
        "Most bytes of the metadata log that are asked for at a time.";
    "leader.replication.throttled.rate", Long, V("9223372036854775807"), Min(0), Medium, DynamicOnly,
        "Upper bound in bytes a second of what leaders send to throttled replicas.";
    "follower.replication.throttled.rate", Long, V("9223372036854775807"), Min(0), Medium, DynamicOnly,
        "Upper bound in bytes a second of what throttled followers fetch.";
    "replica.alter.log.dirs.io.max.bytes.per.second", Long, V("9223372036854775807"), Min(0), Medium, DynamicOnly,
        "Upper bound in bytes a second of moves between directories.";
}
