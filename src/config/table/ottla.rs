//! Our own properties. They live in the file, on the command line or on a BROKER
//! resource only: a Kafka controller drops topic configs it doesn't know.

use super::*;

declare! { OTTLA: Broker;
    "ottla.cores", String, V("auto"), Cores, High, AtStart,
        "Event loops: auto (by the CPUs and the CPU quota of the process), a number, or a list of CPUs such as 0-3,8.";
    "ottla.spin.us", Int, V("50"), Between(0, 1000), Medium, AtStart,
        "Microseconds that an idle event loop looks for work before it sleeps; 0 sleeps at once.";
    "ottla.spin.mode", String, V("adaptive"), OneOf(&super::super::node::SpinMode::NAMES), Medium, AtStart,
        "When an idle event loop looks for work: adaptive, while that mostly finds some, or always, for CPUs of its own.";
    "ottla.fetch.path", String, V("auto"), OneOf(&super::super::node::FetchPath::NAMES), Medium, AtStart,
        "How file ranges are sent: sendfile, io_uring splice, memory (read first), or auto, by size and by what the page cache has.";
    "ottla.durability", String, V("os"), OneOf(&super::super::node::Durability::NAMES), High, ClusterWide,
        "What an acknowledged record is on: os, the page cache (as Kafka), or fsync, the disk. A topic's own flush.messages goes before it.";
    "ottla.metrics.listen", List, V(""), Endpoints, Medium, AtStart,
        "host:port where GET /metrics tells the node's numbers in Prometheus' text format, as 127.0.0.1:9464; empty: nowhere.";
    "ottla.log.level", String, V("info"), LogFilter, Medium, AtStart,
        "What is reported on stderr: error, warn, info, debug, trace, or target=level pairs.";
}
