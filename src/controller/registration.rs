//! BrokerRegistration and ControllerRegistration (`ClusterControlManager`). A broker's
//! epoch is the offset of the record that registers it, so that every incarnation has its
//! own and the old one's requests are told apart.
//!
//! An id is taken over when its session has ended or its broker was given leave to stop. The
//! newcomer gets the replicas of the one before. What it doesn't have any more shows in the
//! epoch that it knows of its previous run (KIP-966): with eligible leader replicas
//! finalized, one that can't name it leaves every ISR and ELR.

use std::collections::BTreeSet;

use super::api_error::ApiError;
use super::leader_election::Cause;
use super::{Controller, Outcome, Turn};
use crate::base::{BrokerId, ErrorCode, Uuid};
use crate::metadata::version::{KRAFT_VERSION_FEATURE, METADATA_VERSION_FEATURE};
use crate::wire::messages::register_broker_record::{BrokerEndpoint, BrokerFeature};
use crate::wire::messages::register_controller_record::{ControllerEndpoint, ControllerFeature};
use crate::wire::messages::{
    BrokerRegistrationRequest, BrokerRegistrationResponse, ControllerRegistrationRequest,
    ControllerRegistrationResponse, RegisterBrokerRecord, RegisterControllerRecord,
};

impl Controller {
    pub(super) fn decide_register_broker(
        &mut self,
        turn: &Turn,
        request: &BrokerRegistrationRequest,
    ) -> Outcome<BrokerRegistrationResponse> {
        let id = BrokerId(request.broker_id);
        let existing = self.image.cluster.broker(id).cloned();
        self.check_registration(turn, request)?;
        let version = self.image.metadata_version();
        let mut record = RegisterBrokerRecord {
            broker_id: request.broker_id,
            incarnation_id: request.incarnation_id,
            rack: request.rack.clone(),
            end_points: request
                .listeners
                .iter()
                .map(|listener| BrokerEndpoint {
                    name: listener.name.clone(),
                    host: listener.host.clone(),
                    port: listener.port,
                    security_protocol: listener.security_protocol,
                })
                .collect(),
            features: request
                .features
                .iter()
                .map(|feature| BrokerFeature {
                    name: feature.name.clone(),
                    min_supported_version: feature.min_supported_version,
                    max_supported_version: feature.max_supported_version,
                })
                .collect(),
            ..Default::default()
        };
        if version.has_directories() {
            record.log_dirs = request.log_dirs.clone();
        }
        let mut records = Vec::new();
        match existing {
            // The same process says something new of itself and stays as it was.
            Some(existing) if existing.incarnation == request.incarnation_id => {
                record.fenced = existing.fenced;
                record.in_controlled_shutdown = existing.in_controlled_shutdown;
                record.broker_epoch = existing.epoch;
            }
            // A new process: whatever the one before still leads or is in sync with ends.
            existing => {
                let epoch = existing.map(|existing| existing.epoch);
                let is_clean = epoch == Some(request.previous_broker_epoch);
                let cause = if self.image.features.is_elr_enabled() && !is_clean {
                    Cause::UncleanlyStopped(id)
                } else {
                    Cause::Removed(id)
                };
                self.update_leaders(cause, &mut records);
                record.fenced = true;
                record.broker_epoch = (turn.next_offset + records.len() as i64).0;
                self.heartbeats.forget(id);
            }
        }
        let response = BrokerRegistrationResponse {
            broker_epoch: record.broker_epoch,
            ..Default::default()
        };
        self.heartbeats.contact(id, turn.now, None);
        records.push(record.into());
        Ok((records, response))
    }

    fn check_registration(
        &self,
        turn: &Turn,
        request: &BrokerRegistrationRequest,
    ) -> Result<(), ApiError> {
        let id = BrokerId(request.broker_id);
        if request.cluster_id != self.settings.cluster_id {
            return Err(ApiError::new(
                ErrorCode::INCONSISTENT_CLUSTER_ID,
                format!(
                    "Expected cluster ID {}, but got cluster ID {}",
                    self.settings.cluster_id, request.cluster_id
                ),
            ));
        }
        let is_other_process = self
            .image
            .cluster
            .broker(id)
            .is_some_and(|existing| existing.incarnation != request.incarnation_id);
        let timeout_ms = self.settings.broker_session_timeout_ms;
        if is_other_process && self.heartbeats.has_session(id, turn.now, timeout_ms) {
            return Err(ApiError::new(
                ErrorCode::DUPLICATE_BROKER_REGISTRATION,
                format!(
                    "Another broker is registered with broker id {id}, and it was heard of less \
                     than {timeout_ms} ms ago. If the broker was just restarted, this passes \
                     when the session of its previous run ends."
                ),
            ));
        }
        if request.is_migrating_zk_broker {
            return Err(ApiError::new(
                ErrorCode::BROKER_ID_NOT_REGISTERED,
                "Controller does not support registering ZK brokers.",
            ));
        }
        if self.image.metadata_version().has_directories() {
            self.check_directories(id, &request.log_dirs)?;
        }
        self.check_features(turn, request)
    }

    fn check_directories(&self, id: BrokerId, directories: &[Uuid]) -> Result<(), ApiError> {
        let invalid = |text: String| Err(ApiError::new(ErrorCode::INVALID_REGISTRATION, text));
        if directories.is_empty() {
            return invalid("No directories specified in request".into());
        }
        if directories.iter().any(Uuid::is_reserved) {
            return invalid("Reserved directory ID in request".into());
        }
        if directories.iter().collect::<BTreeSet<_>>().len() != directories.len() {
            return invalid("Duplicate directory ID in request".into());
        }
        let mut others = self.image.cluster.brokers.values().filter(|b| b.id != id);
        let taken = others.find_map(|broker| {
            let directory = directories
                .iter()
                .find(|d| broker.directories.contains(d))?;
            Some((broker.id, directory))
        });
        match taken {
            Some((broker, directory)) => invalid(format!(
                "Broker {broker} is already registered with directory {directory}"
            )),
            None => Ok(()),
        }
    }

    /// Every finalized feature must lie within the range that the broker claims; what it
    /// doesn't name it has at level 0 only.
    fn check_features(
        &self,
        turn: &Turn,
        request: &BrokerRegistrationRequest,
    ) -> Result<(), ApiError> {
        let claimed = |name: &str| request.features.iter().find(|f| f.name == name);
        let unsupported = |name: &str, level: i16, min: i16, max: i16| {
            ApiError::new(
                ErrorCode::UNSUPPORTED_VERSION,
                format!(
                    "Unable to register because the broker does not support finalized version \
                     {level} of {name}. The broker wants a version between {min} and {max}, \
                     inclusive."
                ),
            )
        };
        let kraft_version = (KRAFT_VERSION_FEATURE, turn.kraft_version);
        for feature in &request.features {
            let level = match feature.name.as_str() {
                KRAFT_VERSION_FEATURE => kraft_version.1,
                name => self.image.features.level(name),
            };
            let (min, max) = (feature.min_supported_version, feature.max_supported_version);
            if !(min..=max).contains(&level) {
                return Err(unsupported(&feature.name, level, min, max));
            }
        }
        if claimed(METADATA_VERSION_FEATURE).is_none() {
            return Err(ApiError::new(
                ErrorCode::INVALID_REGISTRATION,
                "Request features do not contain 'metadata.version'",
            ));
        }
        let mut finalized = self.image.features.iter().chain([kraft_version]);
        let missing = finalized.find(|(name, level)| *level != 0 && claimed(name).is_none());
        match missing {
            Some((name, level)) => Err(unsupported(name, level, 0, 0)),
            None => Ok(()),
        }
    }

    pub(super) fn decide_register_controller(
        &self,
        request: &ControllerRegistrationRequest,
    ) -> Outcome<ControllerRegistrationResponse> {
        if !self.image.metadata_version().has_controller_registration() {
            return Err(ApiError::new(
                ErrorCode::UNSUPPORTED_VERSION,
                "The current MetadataVersion is too old to support controller registrations.",
            ));
        }
        let record = RegisterControllerRecord {
            controller_id: request.controller_id,
            incarnation_id: request.incarnation_id,
            zk_migration_ready: false,
            end_points: request
                .listeners
                .iter()
                .map(|listener| ControllerEndpoint {
                    name: listener.name.clone(),
                    host: listener.host.clone(),
                    port: listener.port,
                    security_protocol: listener.security_protocol,
                })
                .collect(),
            features: request
                .features
                .iter()
                .map(|feature| ControllerFeature {
                    name: feature.name.clone(),
                    min_supported_version: feature.min_supported_version,
                    max_supported_version: feature.max_supported_version,
                })
                .collect(),
        };
        Ok((vec![record.into()], Default::default()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::Bench;
    use super::super::{ControllerRequest, ControllerResponse};
    use super::*;
    use crate::security::RequestContext;
    use crate::wire::messages::broker_registration_request;

    fn refusal(bench: &mut Bench, request: BrokerRegistrationRequest) -> i16 {
        let ctx = RequestContext::internal();
        match bench.run(ControllerRequest::RegisterBroker { ctx, request }) {
            ControllerResponse::RegisterBroker(response) => response.error_code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_epoch_is_the_records_offset() {
        let mut bench = Bench::new();
        let offset = bench.next_offset;
        assert_eq!(bench.register(1, 1), 0);
        let broker = bench
            .controller
            .image()
            .cluster
            .broker(BrokerId(1))
            .unwrap();
        assert_eq!((broker.epoch, broker.fenced), (offset.0, true));
        // The same process keeps its epoch and its state.
        bench.heartbeat(1, |_| {});
        assert_eq!(bench.register(1, 1), 0);
        let broker = bench
            .controller
            .image()
            .cluster
            .broker(BrokerId(1))
            .unwrap();
        assert_eq!((broker.epoch, broker.fenced), (offset.0, false));
    }

    #[test]
    fn an_id_in_use_is_refused_until_its_session_ends() {
        let mut bench = Bench::with_brokers(1);
        assert_eq!(
            bench.register(1, 99),
            ErrorCode::DUPLICATE_BROKER_REGISTRATION.0
        );
        bench.now = bench.now + Duration::from_millis(9_000);
        assert_eq!(bench.register(1, 99), 0);
    }

    #[test]
    fn an_id_whose_broker_stopped_cleanly_is_free_at_once() {
        let mut bench = Bench::with_brokers(2);
        assert_eq!(
            bench.heartbeat(2, |request| request.want_shut_down = true),
            (true, true)
        );
        assert_eq!(bench.register(2, 99), 0);
        assert_eq!(bench.register(2, 98), 101, "the newcomer has a session too");
    }

    #[test]
    fn a_newcomer_takes_over_what_the_one_before_had() {
        let mut bench = Bench::with_brokers(2);
        bench.create_topic_on("t", &[2, 1]);
        bench.now = bench.now + Duration::from_millis(9_000);
        bench.heartbeat(1, |_| {});
        let old_epoch = bench.epochs[&2];
        // Nobody fenced it yet: the registration does.
        assert_eq!(bench.register(2, 99), 0);
        let moved = bench.partition("t", 0);
        assert_eq!(
            (moved.leader, &moved.isr[..]),
            (BrokerId(1), &[BrokerId(1)][..])
        );
        assert_eq!(moved.replicas, [BrokerId(2), BrokerId(1)]);
        // What the old one still says doesn't count.
        let request = crate::wire::messages::BrokerHeartbeatRequest {
            broker_id: 2,
            broker_epoch: old_epoch,
            ..Default::default()
        };
        let ctx = RequestContext::internal();
        let answer = bench.run(ControllerRequest::BrokerHeartbeat { ctx, request });
        let ControllerResponse::BrokerHeartbeat(answer) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(answer.error_code, ErrorCode::STALE_BROKER_EPOCH.0);
        bench.heartbeat(2, |_| {});
        assert_eq!(bench.propose_isr(1, "t", &[1, 2]), 0);
    }

    /// With an empty disk or after a power cut, a broker can't name the epoch it had.
    #[test]
    fn with_elr_whoever_stopped_uncleanly_is_eligible_no_more() {
        for is_clean in [true, false] {
            let mut bench = Bench::with_brokers(2);
            bench.append(&[crate::metadata::MetadataRecord::feature_level(
                "eligible.leader.replicas.version",
                1,
            )]);
            bench.create_topic_on("t", &[1, 2]);
            bench.now = bench.now + Duration::from_millis(9_000);
            bench.run_due();
            let stopped = bench.partition("t", 0);
            assert_eq!((stopped.leader, stopped.isr.len()), (BrokerId::NONE, 0));
            assert_eq!(
                stopped.elr,
                [BrokerId(2)],
                "the minimum is 1: the last one only"
            );
            let mut request = bench.registration(2, 99);
            let feature = broker_registration_request::Feature {
                name: "eligible.leader.replicas.version".to_owned(),
                min_supported_version: 0,
                max_supported_version: 1,
            };
            request.features.push(feature);
            if is_clean {
                request.previous_broker_epoch = bench.epochs[&2];
            }
            assert_eq!(refusal(&mut bench, request), 0);
            let registered = bench.partition("t", 0);
            assert_eq!(registered.elr.contains(&BrokerId(2)), is_clean);
            let epoch = bench
                .controller
                .image()
                .cluster
                .broker(BrokerId(2))
                .unwrap()
                .epoch;
            bench.epochs.insert(2, epoch);
            bench.heartbeat(2, |_| {});
            let leader = bench.partition("t", 0);
            // Nobody else can: the last leader leads, and says that it may lack records.
            assert_eq!((leader.leader, leader.recovering), (BrokerId(2), !is_clean));
        }
    }

    #[test]
    fn faults_have_kafkas_codes() {
        let mut bench = Bench::with_brokers(1);
        let good = bench.registration(2, 2);
        type Spoil = fn(&mut BrokerRegistrationRequest);
        let cases: [(Spoil, i16); 8] = [
            (|r| r.cluster_id = "other".to_owned(), 104),
            (|r| r.is_migrating_zk_broker = true, 102),
            (|r| r.log_dirs.clear(), 119),
            (|r| r.log_dirs = vec![Uuid::METADATA_TOPIC], 119),
            (|r| r.log_dirs.push(r.log_dirs[0]), 119),
            (|r| r.log_dirs[0].0[0] = 1, 119),
            (|r| r.features.retain(|f| f.name != "metadata.version"), 119),
            (|r| r.features[0].max_supported_version = 29, 35),
        ];
        for (index, (spoil, code)) in cases.into_iter().enumerate() {
            let mut request = good.clone();
            spoil(&mut request);
            assert_eq!(refusal(&mut bench, request), code, "case {index}");
        }
        assert_eq!(refusal(&mut bench, good), 0);
    }
}
