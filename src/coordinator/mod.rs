//! The group coordinator: classic consumer groups and committed offsets (layer 2), and the
//! glue that runs it on a partition of `__consumer_offsets` ([`runtime`], layer 4).
//!
//! ```text
//!  API handler → runtime::GroupCoordinator (one per owned partition, on the core that owns it)
//!                  │  write operation                     ▲ response once committed
//!                  ▼                                      │
//!                GroupShard::on_<api>(now, …, &mut Effects)
//!                  decides: records, timers, answers      │
//!                  ▼                                      │
//!                CoordinatorLog::append → GroupShard::replay → high watermark
//! ```
//!
//! State that outlives the process changes only when a record is replayed. A classic
//! group's membership between two generations is soft: it changes at once and is lost with
//! the coordinator, as in Apache Kafka 4.3.1, whose behaviour this module follows; each
//! deliberate difference is named where it stands.
//!
//! Everything in layer 2 is pure: time and randomness are passed in, maps are ordered.

pub mod batch;
pub mod effects;
pub mod group;
pub mod offsets;
pub mod records;
pub mod reply;
pub mod runtime;
pub mod shard;
pub mod timers;

use std::net::IpAddr;
use std::time::Duration;

pub use effects::{Completion, Effects, Failure, Reply, TimerKey, TimerOp, Waiter};
pub use group::{ClassicGroupState, Group, GroupType};
pub use records::CoordinatorRecord;
pub use shard::GroupShard;
pub use timers::TimerQueue;

use crate::base::{Millis, Nanos};
use crate::record::Compression;
use crate::security::RequestContext;

/// The moment of a step: the core's monotonic clock for timers, the wall clock for what is
/// written into records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    pub mono: Nanos,
    pub wall_ms: Millis,
}

/// Who sent a request, as far as a group remembers it.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// The request header's client id; empty where it was null.
    pub id: &'a str,
    pub address: IpAddr,
}

impl<'a> From<&'a RequestContext> for Client<'a> {
    fn from(context: &'a RequestContext) -> Self {
        Client {
            id: context.client_id.as_deref().unwrap_or_default(),
            address: context.client_address.ip(),
        }
    }
}

impl Client<'_> {
    /// The host as Java prints an address without a resolved name: `/127.0.0.1`, and IPv6
    /// as eight groups without compression. Describe tools show it as it was stored.
    pub fn host(&self) -> String {
        // Java has no IPv6 form of an IPv4 address either.
        match self.address.to_canonical() {
            IpAddr::V4(address) => format!("/{address}"),
            IpAddr::V6(address) => {
                let groups: Vec<String> = address
                    .segments()
                    .iter()
                    .map(|segment| format!("{segment:x}"))
                    .collect();
                format!("/{}", groups.join(":"))
            }
        }
    }
}

/// The broker properties that rule groups and offsets. The defaults are Kafka's.
#[derive(Clone, Debug)]
pub struct CoordinatorConfig {
    /// `group.min.session.timeout.ms`
    pub session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms`
    pub session_timeout_ms_max: i32,
    /// `group.initial.rebalance.delay.ms`: how long a new group waits for more members.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`
    pub group_size_max: i32,
    /// How long a new member may stay parked in its first JoinGroup (not a property in Kafka).
    pub new_member_join_timeout_ms: i32,
    /// `offset.metadata.max.bytes`; counted, as Kafka does, in UTF-16 units.
    pub offset_metadata_max: usize,
    /// `offsets.retention.minutes`
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval_ms: i64,
    /// `offsets.commit.timeout.ms`: how long a write waits for the high watermark.
    pub offset_commit_timeout_ms: i64,
    /// `offsets.load.buffer.size`
    pub load_buffer_bytes: usize,
    /// `offsets.topic.compression.codec`
    pub compression: Compression,
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        CoordinatorConfig {
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            group_size_max: i32::MAX,
            new_member_join_timeout_ms: 300_000,
            offset_metadata_max: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            offsets_retention_check_interval_ms: 600_000,
            offset_commit_timeout_ms: 5_000,
            load_buffer_bytes: 5 * 1024 * 1024,
            compression: Compression::NONE,
        }
    }
}

/// One step of the state machine: its moment, the rules, and where its effects go.
pub struct Step<'a> {
    pub now: Now,
    pub config: &'a CoordinatorConfig,
    pub fx: &'a mut Effects,
}

impl Step<'_> {
    /// Sets (or moves) a timer `delay_ms` from now; a client's negative time-out is due now.
    pub(crate) fn set_timer(&mut self, key: TimerKey, delay_ms: i64) {
        let delay = Duration::from_millis(u64::try_from(delay_ms).unwrap_or(0));
        self.fx.timers.push(TimerOp::Set {
            key,
            at: self.now.mono + delay,
        });
    }

    pub(crate) fn cancel_timer(&mut self, key: TimerKey) {
        self.fx.timers.push(TimerOp::Cancel { key });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_printed_as_java_prints_them() {
        let host = |address: &str| {
            Client {
                id: "c",
                address: address.parse().unwrap(),
            }
            .host()
        };
        assert_eq!(host("127.0.0.1"), "/127.0.0.1");
        assert_eq!(host("::ffff:127.0.0.1"), "/127.0.0.1");
        assert_eq!(host("::1"), "/0:0:0:0:0:0:0:1");
        assert_eq!(host("fe80::a00:27ff"), "/fe80:0:0:0:0:0:a00:27ff");
    }
}
