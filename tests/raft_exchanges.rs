//! One replica of the metadata quorum and what passes between it and the others, message
//! by message, as it was recorded between nodes of Apache Kafka 4.3.1: who sends what when,
//! which answers carry which codes, epochs and endpoints.

#[path = "raft_exchanges/elections.rs"]
mod elections;
#[path = "raft_exchanges/replication.rs"]
mod replication;
#[path = "raft_exchanges/support.rs"]
mod support;
#[path = "raft_exchanges/voters.rs"]
mod voters;
