//! Identity, listeners, connections, requests, metrics and quotas of a node.
//!
//! Names, types, defaults and bounds are those of Apache Kafka 4.3.1.

use super::*;

declare! { NODE: Broker;
    "broker.id", Int, V("-1"), Any, High, AtStart,
        "Older name of node.id.";
    "num.io.threads", Int, V("8"), Min(1), High, ClusterWide,
        "Request handler threads in Apache Kafka. Ottla serves requests on its event loops, see ottla.cores.";
    "background.threads", Int, V("10"), Min(1), High, ClusterWide,
        "Threads for background work in Apache Kafka. Ottla does it on its event loops.";
    "request.timeout.ms", Int, V("30000"), Any, High, AtStart,
        "How long this node waits for an answer to a request that it sent to another node.";
    "socket.connection.setup.timeout.ms", Long, V("10000"), Any, Medium, AtStart,
        "First limit on connecting to another node; it doubles with every failure.";
    "socket.connection.setup.timeout.max.ms", Long, V("30000"), Any, Medium, AtStart,
        "Largest limit on connecting to another node.";
    "config.providers", List, V(""), UniqueList, Low, ClusterWide,
        "Names of Java plug-ins that resolve placeholders in values.";
    "broker.rack", String, Null, Any, Medium, AtStart,
        "Rack of this node: replicas are spread over racks, consumers can read in their own.";
    "max.incremental.fetch.session.cache.slots", Int, V("1000"), Min(0), Medium, AtStart,
        "Incremental fetch sessions that are kept at a time.";
    "fetch.max.bytes", Int, V("57671680"), Min(1024), Medium, AtStart,
        "Most bytes in the answer to one fetch request, whatever the client asks for.";
    "max.request.partition.size.limit", Int, V("2000"), Min(1), Medium, AtStart,
        "Most partitions in one DescribeTopicPartitions answer.";
    "process.roles", List, Required, ListOf(&["broker", "controller"]), High, AtStart,
        "What this process is: broker, controller or both.";
    "node.id", Int, Required, Min(0), High, AtStart,
        "Number of this node, unique in the cluster. Ottla draws one at first start when it is unset.";
    "listeners", List, V("PLAINTEXT://:9092"), NonEmptyList, High, PerBroker,
        "Addresses to listen on, as NAME://host:port; an empty host is every interface.";
    "advertised.listeners", List, Null, NonEmptyList, High, AtStart,
        "Addresses that clients and other nodes are told to connect to; unset means those of listeners.";
    "listener.security.protocol.map", String, V("SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT"), Any, Low, PerBroker,
        "Security protocol of every listener name, as NAME:PROTOCOL.";
    "socket.send.buffer.bytes", Int, V("102400"), Any, High, AtStart,
        "SO_SNDBUF of accepted connections; -1 leaves the system's default.";
    "socket.receive.buffer.bytes", Int, V("102400"), Any, High, AtStart,
        "SO_RCVBUF of accepted connections; -1 leaves the system's default.";
    "socket.request.max.bytes", Int, V("104857600"), Min(1), High, AtStart,
        "Largest request; a connection that announces a larger one is closed.";
    "socket.listen.backlog.size", Int, V("50"), Min(1), Medium, AtStart,
        "Connections that may wait to be accepted.";
    "max.connections.per.ip", Int, V("2147483647"), Min(0), Medium, ClusterWide,
        "Connections allowed from one address; one more is closed.";
    "max.connections.per.ip.overrides", String, V(""), Any, Medium, ClusterWide,
        "Other limits for single addresses, as address:count; names other than localhost are not looked up.";
    "max.connections", Int, V("2147483647"), Min(0), Medium, ClusterWide,
        "Connections allowed in all, or with a listener's prefix on that one; more wait to be accepted.";
    "max.connection.creation.rate", Int, V("2147483647"), Min(0), Medium, ClusterWide,
        "New connections a second, in all or with a listener's prefix on that one; more wait to be accepted.";
    "connections.max.idle.ms", Long, V("600000"), Any, Medium, AtStart,
        "A connection without a request for this long is closed.";
    "connection.failed.authentication.delay.ms", Int, V("100"), Min(0), Low, AtStart,
        "Pause before a connection that failed to authenticate is closed.";
    "queued.max.requests", Int, V("500"), Min(1), High, AtStart,
        "Requests that may wait in Apache Kafka before it stops reading. Ottla bounds each connection.";
    "queued.max.request.bytes", Long, V("-1"), Any, Medium, AtStart,
        "Bytes of requests in memory before reading stops; -1: no bound. Ottla, if unset: a quarter of memory, 64 MiB to 4 GiB.";
    "num.network.threads", Int, V("3"), Min(1), High, ClusterWide,
        "Network threads in Apache Kafka. Ottla reads and writes on its event loops, see ottla.cores.";
    "fetch.purgatory.purge.interval.requests", Int, V("1000"), Any, Medium, AtStart,
        "Waiting fetches after which finished ones are swept in Apache Kafka. Ottla drops them at once.";
    "producer.purgatory.purge.interval.requests", Int, V("1000"), Any, Medium, AtStart,
        "Waiting produces after which finished ones are swept in Apache Kafka. Ottla drops them at once.";
    "delete.records.purgatory.purge.interval.requests", Int, V("1"), Any, Medium, AtStart,
        "Waiting deletions after which finished ones are swept in Apache Kafka. Ottla drops them at once.";
    "create.topic.policy.class.name", Class, Null, Any, Low, AtStart,
        "Java plug-in that approves new topics.";
    "alter.config.policy.class.name", Class, Null, Any, Low, AtStart,
        "Java plug-in that approves config changes.";
    "metrics.num.samples", Int, V("2"), Min(1), Low, AtStart,
        "Samples over which a metric is measured.";
    "metrics.sample.window.ms", Long, V("30000"), Min(1), Low, AtStart,
        "Length of one sample of a metric.";
    "metric.reporters", List, V("org.apache.kafka.common.metrics.JmxReporter"), UniqueList, Low, ClusterWide,
        "Java plug-ins that report metrics.";
    "metrics.recording.level", String, V("INFO"), Any, Low, AtStart,
        "How detailed metrics are: INFO, DEBUG or TRACE.";
    "kafka.metrics.reporters", List, V(""), UniqueList, Low, AtStart,
        "Java plug-ins that report Yammer metrics.";
    "kafka.metrics.polling.interval.secs", Int, V("10"), Min(1), Low, AtStart,
        "How often Yammer metrics are read.";
    "telemetry.max.bytes", Int, V("1048576"), Min(1), Low, AtStart,
        "Largest push of client metrics, as sent.";
    "quota.window.num", Int, V("11"), Min(1), Low, AtStart,
        "Samples over which client quotas are measured.";
    "replication.quota.window.num", Int, V("11"), Min(1), Low, AtStart,
        "Samples over which replication throttles are measured.";
    "alter.log.dirs.replication.quota.window.num", Int, V("11"), Min(1), Low, AtStart,
        "Samples over which moves between directories are measured.";
    "controller.quota.window.num", Int, V("11"), Min(1), Low, AtStart,
        "Samples over which controller mutation quotas are measured.";
    "quota.window.size.seconds", Int, V("1"), Min(1), Low, AtStart,
        "Length of one sample of client quotas.";
    "replication.quota.window.size.seconds", Int, V("1"), Min(1), Low, AtStart,
        "Length of one sample of replication throttles.";
    "alter.log.dirs.replication.quota.window.size.seconds", Int, V("1"), Min(1), Low, AtStart,
        "Length of one sample of moves between directories.";
    "controller.quota.window.size.seconds", Int, V("1"), Min(1), Low, AtStart,
        "Length of one sample of controller mutation quotas.";
    "client.quota.callback.class", Class, Null, Any, Low, AtStart,
        "Java plug-in that decides client quotas.";
}
