//! Configs of a group and of a client metrics subscription.
//!
//! Names, types, defaults and bounds are those of Apache Kafka 4.3.1.

use super::*;

declare! { GROUP: Group;
    "consumer.session.timeout.ms", Int, V("45000"), Min(1), Medium, PerResource,
        "A member without a heartbeat for this long is removed.";
    "consumer.heartbeat.interval.ms", Int, V("5000"), Min(1), Medium, PerResource,
        "Heartbeat interval that members are told.";
    "consumer.assignment.interval.ms", Int, V("1000"), Min(0), Medium, PerResource,
        "Least time between two assignments of the group.";
    "share.session.timeout.ms", Int, V("45000"), Min(1), Medium, PerResource,
        "A share group member without a heartbeat for this long is removed.";
    "share.heartbeat.interval.ms", Int, V("5000"), Min(1), Medium, PerResource,
        "Heartbeat interval that share group members are told.";
    "share.record.lock.duration.ms", Int, V("30000"), Min(1000), Medium, PerResource,
        "How long a share consumer holds a record before it goes to another.";
    "share.delivery.count.limit", Int, V("5"), Min(2), Medium, PerResource,
        "How often a record is delivered to the share group before it is archived.";
    "share.partition.max.record.locks", Int, V("2000"), Min(100), Medium, PerResource,
        "Records of one share partition that may be held at a time.";
    "share.auto.offset.reset", String, V("latest"), OffsetReset, Medium, PerResource,
        "Where a new share partition starts: earliest, latest or by_duration:<ISO 8601 duration>.";
    "share.isolation.level", String, V("read_uncommitted"), OneOf(&["read_committed", "read_uncommitted"]), Medium, PerResource,
        "Whether the share group sees records of open and aborted transactions.";
    "share.renew.acknowledge.enable", Boolean, V("true"), Any, Medium, PerResource,
        "Lets share consumers prolong their hold on a record.";
    "share.assignment.interval.ms", Int, V("1000"), Min(0), Medium, PerResource,
        "Least time between two assignments of the share group.";
    "streams.session.timeout.ms", Int, V("45000"), Min(1), Medium, PerResource,
        "A streams group member without a heartbeat for this long is removed.";
    "streams.heartbeat.interval.ms", Int, V("5000"), Min(1), Medium, PerResource,
        "Heartbeat interval that streams group members are told.";
    "streams.num.standby.replicas", Int, V("0"), Min(0), Medium, PerResource,
        "Standby copies of every streams task.";
    "streams.initial.rebalance.delay.ms", Int, V("3000"), Min(0), Medium, PerResource,
        "How long the new streams group waits for more members before its first assignment.";
    "streams.assignment.interval.ms", Int, V("1000"), Min(0), Medium, PerResource,
        "Least time between two assignments of the streams group.";
}

declare! { CLIENT_METRICS: ClientMetrics;
    "metrics", List, V(""), UniqueList, Medium, PerResource,
        "Prefixes of the client metrics to collect; * means all.";
    "interval.ms", Int, V("300000"), Any, Medium, PerResource,
        "How often clients push their metrics.";
    "match", List, V(""), UniqueList, Medium, PerResource,
        "Which clients push, as key=regular expression.";
}
