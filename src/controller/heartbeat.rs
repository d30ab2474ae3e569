//! BrokerHeartbeat (`ReplicationControlManager.processBrokerHeartbeat`,
//! `BrokerHeartbeatManager`): how a broker is unfenced, fences itself and shuts down.
//!
//! ```text
//!   FENCED ──caught up, not wantFence──▶ UNFENCED ──wantShutDown, leads──▶ CONTROLLED_SHUTDOWN
//!     │ ▲                                 │  │                                     │
//!     │ └────────────wantFence────────────┘  │ wantShutDown, leads nothing         │ leads nothing,
//!     └──────────wantShutDown────▶ SHUTDOWN_NOW ◀──────────────────────────────────┘ others caught up
//! ```
//! A broker that is silent for `broker.session.timeout.ms` is fenced by
//! [`timers`](super::timers). What is kept here between heartbeats is soft: contact times
//! and metadata offsets of brokers, forgotten when the controller moves. A new controller
//! gives every unfenced broker a whole session from its first turn on.

use std::collections::BTreeMap;
use std::time::Duration;

use super::leader_election::Cause;
use super::{Controller, Outcome, Turn};
use crate::base::{BrokerId, Nanos, Uuid};
use crate::metadata::{BrokerImage, ClusterImage, ImageChanges, MetadataRecord};
use crate::wire::messages::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationChangeRecord,
};

/// What is known of brokers from their own words.
#[derive(Debug, Default)]
pub(super) struct Heartbeats {
    brokers: BTreeMap<BrokerId, Contact>,
    /// Whether the brokers that the log shows unfenced have got their sessions.
    has_begun: bool,
}

#[derive(Debug)]
struct Contact {
    last: Nanos,
    /// Up to where it has replayed metadata; -1 before it said.
    metadata_offset: i64,
    /// End of the records that moved its leaderships away, when shutting down.
    shutdown_offset: Option<i64>,
}

impl Heartbeats {
    /// At the first turn of a controller: whoever is unfenced may have been heard of by the
    /// one before. Not so the broker in this very process, which begins anew as well.
    pub fn begin(&mut self, cluster: &ClusterImage, own: BrokerId, now: Nanos) {
        if self.has_begun {
            return;
        }
        self.has_begun = true;
        for broker in cluster.brokers.values() {
            if !broker.fenced && broker.id != own {
                self.contact(broker.id, now, None);
            }
        }
    }

    pub fn forget(&mut self, id: BrokerId) {
        self.brokers.remove(&id);
    }

    pub fn contact(&mut self, id: BrokerId, now: Nanos, metadata_offset: Option<i64>) {
        let contact = self.brokers.entry(id).or_insert(Contact {
            last: now,
            metadata_offset: -1,
            shutdown_offset: None,
        });
        contact.last = now;
        contact.metadata_offset = metadata_offset.unwrap_or(contact.metadata_offset);
    }

    /// Whether the broker was heard of within the session timeout.
    pub fn has_session(&self, id: BrokerId, now: Nanos, timeout_ms: u64) -> bool {
        let contact = self.brokers.get(&id);
        contact.is_some_and(|contact| now < contact.session_end(timeout_ms))
    }

    /// The unfenced broker whose session ends first, and when.
    pub fn next_to_expire(
        &self,
        cluster: &ClusterImage,
        timeout_ms: u64,
    ) -> Option<(Nanos, BrokerId)> {
        let is_unfenced = |id: &BrokerId| cluster.broker(*id).is_some_and(|b| !b.fenced);
        self.brokers
            .iter()
            .filter(|(id, _)| is_unfenced(id))
            .map(|(id, contact)| (contact.session_end(timeout_ms), *id))
            .min()
    }
}

impl Contact {
    fn session_end(&self, timeout_ms: u64) -> Nanos {
        self.last + Duration::from_millis(timeout_ms)
    }
}

/// A broker's state as the controller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ControlState {
    Fenced,
    Unfenced,
    ControlledShutdown,
    ShutdownNow,
}

impl Controller {
    pub(super) fn decide_broker_heartbeat(
        &mut self,
        turn: &Turn,
        request: &BrokerHeartbeatRequest,
    ) -> Outcome<BrokerHeartbeatResponse> {
        let id = BrokerId(request.broker_id);
        self.check_broker_epoch(id, request.broker_epoch)?;
        let broker = self.image.cluster.broker(id).expect("its epoch is right");
        let broker = std::sync::Arc::clone(broker);
        let is_caught_up = request.current_metadata_offset >= broker.epoch;
        let current = control_state(&broker);
        let next = self.next_state(&broker, current, request, is_caught_up);
        let mut records = Vec::new();
        if current != next {
            self.change_state(&broker, next, &mut records);
        }
        self.heartbeats
            .contact(id, turn.now, Some(request.current_metadata_offset));
        if current != next && next == ControlState::ControlledShutdown {
            let contact = self.heartbeats.brokers.get_mut(&id);
            let end = turn.next_offset + records.len() as i64;
            contact.expect("just contacted").shutdown_offset = Some(end.0);
        }
        if next == ControlState::ShutdownNow {
            // It stops for good: another process may take its id without waiting. (In
            // Kafka 4.3.1 the id stays taken until the session would have ended.)
            self.heartbeats.forget(id);
        }
        self.change_directories(&broker, request, &mut records);
        let response = BrokerHeartbeatResponse {
            is_caught_up,
            is_fenced: matches!(next, ControlState::Fenced | ControlState::ShutdownNow),
            should_shut_down: next == ControlState::ShutdownNow,
            ..Default::default()
        };
        Ok((records, response))
    }

    /// Drops what is known of brokers that were unregistered.
    pub(super) fn forget_brokers(&mut self, changes: &ImageChanges) {
        let cluster = &self.image.cluster;
        let gone = changes
            .brokers
            .iter()
            .filter(|id| cluster.broker(**id).is_none());
        for id in gone {
            self.heartbeats.forget(*id);
        }
    }

    fn next_state(
        &self,
        broker: &BrokerImage,
        current: ControlState,
        request: &BrokerHeartbeatRequest,
        is_caught_up: bool,
    ) -> ControlState {
        use ControlState::*;
        match current {
            Fenced if request.want_shut_down => ShutdownNow,
            Fenced if !request.want_fence && is_caught_up => Unfenced,
            Fenced => Fenced,
            Unfenced if request.want_fence && request.want_shut_down => ShutdownNow,
            Unfenced if request.want_fence => Fenced,
            Unfenced if request.want_shut_down && self.has_leaderships(broker.id) => {
                ControlledShutdown
            }
            Unfenced if request.want_shut_down => ShutdownNow,
            Unfenced => Unfenced,
            ControlledShutdown if self.has_leaderships(broker.id) => ControlledShutdown,
            ControlledShutdown if self.others_replayed_shutdown(broker.id) => ShutdownNow,
            ControlledShutdown => ControlledShutdown,
            ShutdownNow => ShutdownNow,
        }
    }

    /// Whether all active brokers know that the leaderships moved.
    fn others_replayed_shutdown(&self, id: BrokerId) -> bool {
        let contacts = &self.heartbeats.brokers;
        let end = contacts
            .get(&id)
            .and_then(|contact| contact.shutdown_offset);
        contacts
            .iter()
            .filter(|(other, _)| self.image.cluster.is_active(**other))
            .all(|(_, contact)| contact.metadata_offset >= end.unwrap_or(-1))
    }

    fn change_state(
        &self,
        broker: &BrokerImage,
        next: ControlState,
        records: &mut Vec<MetadataRecord>,
    ) {
        let change = BrokerRegistrationChangeRecord {
            broker_id: broker.id.0,
            broker_epoch: broker.epoch,
            ..Default::default()
        };
        match next {
            ControlState::Fenced | ControlState::ShutdownNow => self.fence(broker, records),
            ControlState::Unfenced => {
                records.push(
                    BrokerRegistrationChangeRecord {
                        fenced: -1,
                        ..change
                    }
                    .into(),
                );
                self.update_leaders(Cause::Added(broker.id), records);
            }
            ControlState::ControlledShutdown => {
                let change = BrokerRegistrationChangeRecord {
                    in_controlled_shutdown: 1,
                    ..change
                };
                records.push(change.into());
                self.update_leaders(Cause::Removed(broker.id), records);
            }
        }
    }

    /// Takes all leaderships away, and the ISR memberships that others can do without.
    pub(super) fn fence(&self, broker: &BrokerImage, records: &mut Vec<MetadataRecord>) {
        self.update_leaders(Cause::Removed(broker.id), records);
        let change = BrokerRegistrationChangeRecord {
            broker_id: broker.id.0,
            broker_epoch: broker.epoch,
            fenced: 1,
            ..Default::default()
        };
        records.push(change.into());
    }

    fn change_directories(
        &self,
        broker: &BrokerImage,
        request: &BrokerHeartbeatRequest,
        records: &mut Vec<MetadataRecord>,
    ) {
        let version = self.image.metadata_version();
        let change = BrokerRegistrationChangeRecord {
            broker_id: broker.id.0,
            broker_epoch: broker.epoch,
            ..Default::default()
        };
        let (offline, online): (Vec<Uuid>, Vec<Uuid>) = broker
            .directories
            .iter()
            .partition(|dir| request.offline_log_dirs.contains(dir));
        if version.has_directories() && !offline.is_empty() {
            self.update_leaders_of_directories(broker.id, &offline, records);
            records.push(
                BrokerRegistrationChangeRecord {
                    log_dirs: online,
                    ..change.clone()
                }
                .into(),
            );
        }
        let cordoned = &request.cordoned_log_dirs;
        if version.has_cordoned_dirs() && cordoned.is_some() && *cordoned != broker.cordoned {
            records.push(
                BrokerRegistrationChangeRecord {
                    cordoned_log_dirs: cordoned.clone(),
                    ..change
                }
                .into(),
            );
        }
    }
}

fn control_state(broker: &BrokerImage) -> ControlState {
    if broker.in_controlled_shutdown && !broker.fenced {
        ControlState::ControlledShutdown
    } else if broker.fenced {
        ControlState::Fenced
    } else {
        ControlState::Unfenced
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use crate::base::{BrokerId, LeaderEpoch, PartitionIndex};
    use crate::metadata::{MetadataRecord, PartitionImage};

    fn partition(bench: &Bench) -> PartitionImage {
        let image = bench.controller.image();
        let partition = image.topics.partition("t", PartitionIndex(0)).unwrap();
        PartitionImage::clone(partition)
    }

    fn written_since(bench: &Bench, start: usize) -> Vec<&'static str> {
        bench.log[start..]
            .iter()
            .map(|value| MetadataRecord::decode(value).unwrap().type_name())
            .collect()
    }

    /// The records that Apache Kafka 4.3.1 writes for one node that stops and comes back.
    #[test]
    fn one_node_stops_and_starts_as_kafkas_does() {
        let mut bench = Bench::with_brokers(1);
        bench.create_topic("t", 1);
        let start = bench.log.len();
        assert_eq!(
            bench.heartbeat(1, |request| request.want_shut_down = true),
            (false, false)
        );
        assert_eq!(
            bench.heartbeat(1, |request| request.want_shut_down = true),
            (true, true)
        );
        assert_eq!(
            written_since(&bench, start),
            [
                "BROKER_REGISTRATION_CHANGE_RECORD",
                "PARTITION_CHANGE_RECORD",
                "BROKER_REGISTRATION_CHANGE_RECORD"
            ]
        );
        let stopped = partition(&bench);
        assert_eq!(
            (stopped.leader, stopped.leader_epoch),
            (BrokerId::NONE, LeaderEpoch(1))
        );
        assert_eq!(stopped.isr, [BrokerId(1)]);

        bench.restart_controller();
        let start = bench.log.len();
        assert_eq!(bench.register(1, 77), 0);
        assert_eq!(bench.heartbeat(1, |_| {}), (false, false));
        assert_eq!(
            written_since(&bench, start),
            [
                "REGISTER_BROKER_RECORD",
                "BROKER_REGISTRATION_CHANGE_RECORD",
                "PARTITION_CHANGE_RECORD",
                "BROKER_REGISTRATION_CHANGE_RECORD"
            ]
        );
        let started = partition(&bench);
        assert_eq!(
            (started.leader, started.leader_epoch),
            (BrokerId(1), LeaderEpoch(2))
        );
        assert_eq!(started.partition_epoch, 2);
    }

    #[test]
    fn after_a_crash_leaderships_begin_anew() {
        let mut bench = Bench::with_brokers(1);
        bench.create_topic("t", 1);
        bench.restart_controller();
        let start = bench.log.len();
        assert_eq!(bench.register(1, 77), 0);
        assert_eq!(
            written_since(&bench, start),
            ["PARTITION_CHANGE_RECORD", "REGISTER_BROKER_RECORD"]
        );
        assert_eq!(partition(&bench).leader, BrokerId::NONE);
        bench.heartbeat(1, |_| {});
        assert_eq!(partition(&bench).leader_epoch, LeaderEpoch(2));
    }

    #[test]
    fn a_broker_is_unfenced_when_it_has_caught_up() {
        let mut bench = Bench::new();
        bench.register(1, 1);
        assert_eq!(
            bench.heartbeat(1, |request| request.want_fence = true),
            (true, false)
        );
        assert_eq!(
            bench.heartbeat(1, |request| request.current_metadata_offset = 0),
            (true, false)
        );
        assert_eq!(bench.heartbeat(1, |_| {}), (false, false));
        assert!(bench.controller.image().cluster.is_active(BrokerId(1)));
        assert_eq!(
            bench.heartbeat(1, |request| request.want_fence = true),
            (true, false)
        );
    }

    #[test]
    fn leaderships_move_to_replicas_in_sync() {
        let mut bench = Bench::with_brokers(2);
        bench.create_topic_on("t", &[1, 2]);
        bench.heartbeat(1, |request| request.want_fence = true);
        let moved = partition(&bench);
        assert_eq!(
            (moved.leader, moved.leader_epoch),
            (BrokerId(2), LeaderEpoch(1))
        );
        assert_eq!(moved.isr, [BrokerId(2)]);
        // The last one stays in the ISR though it can't lead.
        bench.heartbeat(2, |request| request.want_fence = true);
        let stopped = partition(&bench);
        assert_eq!(
            (stopped.leader, &stopped.isr[..]),
            (BrokerId::NONE, &[BrokerId(2)][..])
        );
        // Broker 1 isn't in sync and must not lead.
        bench.heartbeat(1, |_| {});
        assert_eq!(partition(&bench).leader, BrokerId::NONE);
        bench.heartbeat(2, |_| {});
        assert_eq!(partition(&bench).leader, BrokerId(2));
    }

    #[test]
    fn shutdown_waits_until_others_know() {
        let mut bench = Bench::with_brokers(2);
        bench.create_topic_on("t", &[1, 2]);
        let shut_down = |bench: &mut Bench| bench.heartbeat(1, |r| r.want_shut_down = true);
        assert_eq!(shut_down(&mut bench), (false, false));
        assert_eq!(partition(&bench).leader, BrokerId(2));
        assert_eq!(shut_down(&mut bench), (false, false));
        bench.heartbeat(2, |_| {});
        assert_eq!(shut_down(&mut bench), (true, true));
    }

    #[test]
    fn lost_directories_take_their_leaderships_along() {
        let mut bench = Bench::with_brokers(1);
        bench.create_topic("t", 1);
        let image = bench.controller.image();
        let directories = image
            .cluster
            .broker(BrokerId(1))
            .unwrap()
            .directories
            .clone();
        bench.heartbeat(1, |request| request.offline_log_dirs = directories);
        assert_eq!(partition(&bench).leader, BrokerId::NONE);
    }
}
