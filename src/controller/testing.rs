//! A controller for tests: decides, encodes, decodes and replays as the real loop does, and
//! keeps all values that it "appended".

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::base::{PartitionIndex, Uuid};
use crate::metadata::PartitionImage;
use crate::security::{AllowAll, Authorizer, RequestContext};
use crate::wire::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use crate::wire::messages::{
    AlterPartitionRequest, BrokerHeartbeatRequest, BrokerRegistrationRequest, ConfigRecord,
    CreateTopicsRequest, alter_partition_request, broker_registration_request,
};

/// Rules that know a few topic configs.
#[derive(Debug)]
pub struct FewRules;

impl ConfigRules for FewRules {
    fn validate(
        &self,
        kind: ConfigResourceType,
        _: &str,
        configs: &ConfigEntries,
    ) -> Result<(), ApiError> {
        let unknown = configs
            .keys()
            .find(|key| kind == ConfigResourceType::TOPIC && !DEFAULTS.iter().any(|d| d.0 == *key));
        match unknown {
            Some(key) => Err(ApiError::new(
                ErrorCode::INVALID_CONFIG,
                format!("Unknown topic config name: {key}"),
            )),
            None => Ok(()),
        }
    }

    fn is_list(&self, _: ConfigResourceType, key: &str) -> bool {
        key == "cleanup.policy"
    }

    fn default_value(&self, _: ConfigResourceType, key: &str) -> Option<String> {
        let default = DEFAULTS.iter().find(|(name, _)| *name == key);
        default.map(|(_, value)| (*value).to_owned())
    }

    fn effective_topic_configs(&self, layers: &TopicConfigLayers<'_>) -> Vec<EffectiveConfig> {
        let config = |name: &str, value: &str| {
            let own = layers.topic.get(name);
            EffectiveConfig {
                name: name.to_owned(),
                value: Some(own.map_or(value, |own| own).to_owned()),
                source: if own.is_some() { 1 } else { 5 },
                is_sensitive: false,
                is_read_only: false,
            }
        };
        DEFAULTS
            .iter()
            .map(|(name, value)| config(name, value))
            .collect()
    }
}

const DEFAULTS: [(&str, &str); 5] = [
    ("cleanup.policy", "delete"),
    ("min.insync.replicas", "1"),
    ("retention.bytes", "-1"),
    ("retention.ms", "604800000"),
    ("unclean.leader.election.enable", "false"),
];

pub struct Bench {
    pub controller: Controller,
    pub next_offset: Offset,
    pub now: Nanos,
    /// All values appended so far.
    pub log: Vec<Bytes>,
    /// Of registered brokers.
    pub epochs: BTreeMap<i32, i64>,
}

impl Bench {
    /// An active controller of cluster "c" at the latest metadata.version, without brokers.
    pub fn new() -> Bench {
        Bench::with_authorizer(Arc::new(AllowAll))
    }

    /// The same, with an authorizer.
    pub fn with_authorizer(authorizer: Arc<dyn Authorizer>) -> Bench {
        let mut bench = Bench {
            controller: controller(authorizer),
            next_offset: Offset(0),
            now: Nanos(1),
            log: Vec::new(),
            epochs: BTreeMap::new(),
        };
        bench.append(&[MetadataRecord::feature_level("metadata.version", 30)]);
        bench
    }

    /// With unfenced brokers 1..=count.
    pub fn with_brokers(count: i32) -> Bench {
        let mut bench = Bench::new();
        for id in 1..=count {
            bench.register(id, id as u8);
            bench.heartbeat(id, |_| {});
        }
        bench
    }

    pub fn decide(&mut self, request: &ControllerRequest) -> Decision {
        let turn = Turn {
            now: self.now,
            wall_ms: 1_000,
            next_offset: self.next_offset,
            kraft_version: 0,
        };
        self.controller.decide(&turn, request)
    }

    /// Does all that is due now; why.
    pub fn run_due(&mut self) -> Vec<&'static str> {
        let mut reasons = Vec::new();
        loop {
            let turn = Turn {
                now: self.now,
                wall_ms: 1_000,
                next_offset: self.next_offset,
                kraft_version: 0,
            };
            let Some(due) = self.controller.decide_due(&turn) else {
                return reasons;
            };
            assert_eq!(due.values.len(), due.records.len());
            assert!(!due.records.is_empty(), "{}", due.reason);
            self.append(&due.records);
            reasons.push(due.reason);
        }
    }

    /// Decides, appends, replays; the answer.
    pub fn run(&mut self, request: ControllerRequest) -> ControllerResponse {
        let decision = self.decide(&request);
        let decoded: Vec<MetadataRecord> = decision
            .values
            .iter()
            .map(|value| MetadataRecord::decode(value).unwrap())
            .collect();
        assert_eq!(decoded, decision.records);
        self.append(&decoded);
        decision.response
    }

    pub fn append(&mut self, records: &[MetadataRecord]) {
        let version = self.controller.image().metadata_version();
        self.log
            .extend(records.iter().map(|record| record.encode(version).unwrap()));
        self.controller.replay(records, self.next_offset).unwrap();
        self.next_offset += records.len() as i64;
    }

    /// A valid registration of a broker with one directory.
    pub fn registration(&self, id: i32, incarnation: u8) -> BrokerRegistrationRequest {
        let mut directory = [9; 16];
        directory[0] = id as u8;
        let features = [("metadata.version", 7, 30), ("kraft.version", 0, 1)];
        BrokerRegistrationRequest {
            broker_id: id,
            cluster_id: "c".to_owned(),
            incarnation_id: Uuid([incarnation; 16]),
            features: features
                .map(|(name, min, max)| broker_registration_request::Feature {
                    name: name.to_owned(),
                    min_supported_version: min,
                    max_supported_version: max,
                })
                .to_vec(),
            log_dirs: vec![Uuid(directory)],
            ..Default::default()
        }
    }

    pub fn register(&mut self, id: i32, incarnation: u8) -> i16 {
        let request = self.registration(id, incarnation);
        let ctx = RequestContext::internal();
        let response = self.run(ControllerRequest::RegisterBroker { ctx, request });
        let ControllerResponse::RegisterBroker(response) = response else {
            panic!("{response:?}");
        };
        if response.error_code == 0 {
            self.epochs.insert(id, response.broker_epoch);
        }
        response.error_code
    }

    /// A heartbeat of a broker that has replayed everything and wants to run, changed by
    /// `change`; (fenced, should shut down).
    pub fn heartbeat(
        &mut self,
        id: i32,
        change: impl FnOnce(&mut BrokerHeartbeatRequest),
    ) -> (bool, bool) {
        let mut request = BrokerHeartbeatRequest {
            broker_id: id,
            broker_epoch: self.epochs[&id],
            current_metadata_offset: self.next_offset.0,
            cordoned_log_dirs: Some(Vec::new()),
            ..Default::default()
        };
        change(&mut request);
        let ctx = RequestContext::internal();
        let response = self.run(ControllerRequest::BrokerHeartbeat { ctx, request });
        let ControllerResponse::BrokerHeartbeat(response) = response else {
            panic!("{response:?}");
        };
        assert_eq!(response.error_code, 0);
        (response.is_fenced, response.should_shut_down)
    }

    /// The only directory of a broker that registered by [`Bench::registration`].
    pub fn directory(&self, id: i32) -> Uuid {
        self.registration(id, 0).log_dirs[0]
    }

    pub fn partition(&self, topic: &str, index: i32) -> PartitionImage {
        let image = self.controller.image();
        let partition = image.topics.partition(topic, PartitionIndex(index));
        PartitionImage::clone(partition.unwrap())
    }

    /// What the leader of partition 0 proposes with the epochs that it should have; the
    /// error.
    pub fn propose_isr(&mut self, leader: i32, topic: &str, isr: &[i32]) -> i16 {
        let partition = self.partition(topic, 0);
        let topic_id = self.controller.image().topics.by_name(topic).unwrap().id;
        let member = |id: &i32| alter_partition_request::BrokerState {
            broker_id: *id,
            broker_epoch: self.epochs[id],
        };
        let request = AlterPartitionRequest {
            broker_id: leader,
            broker_epoch: self.epochs[&leader],
            topics: vec![alter_partition_request::TopicData {
                topic_id,
                partitions: vec![alter_partition_request::PartitionData {
                    leader_epoch: partition.leader_epoch.0,
                    new_isr_with_epochs: isr.iter().map(member).collect(),
                    partition_epoch: partition.partition_epoch,
                    ..Default::default()
                }],
            }],
        };
        let ctx = RequestContext::internal();
        let response = self.run(ControllerRequest::AlterPartition { ctx, request });
        let ControllerResponse::AlterPartition(response) = response else {
            panic!("{response:?}");
        };
        assert_eq!(response.error_code, 0);
        response.topics[0].partitions[0].error_code
    }

    pub fn create_topic(&mut self, name: &str, num_partitions: i32) -> Uuid {
        self.create(CreatableTopic {
            name: name.to_owned(),
            num_partitions,
            replication_factor: 1,
            ..Default::default()
        })
    }

    /// A topic of one partition with these replicas.
    pub fn create_topic_on(&mut self, name: &str, broker_ids: &[i32]) -> Uuid {
        self.create(CreatableTopic {
            name: name.to_owned(),
            num_partitions: -1,
            replication_factor: -1,
            assignments: vec![CreatableReplicaAssignment {
                partition_index: 0,
                broker_ids: broker_ids.to_vec(),
            }],
            ..Default::default()
        })
    }

    fn create(&mut self, topic: CreatableTopic) -> Uuid {
        let request = CreateTopicsRequest {
            topics: vec![topic],
            ..Default::default()
        };
        let ctx = RequestContext::internal();
        let response = self.run(ControllerRequest::CreateTopics { ctx, request });
        let ControllerResponse::CreateTopics(response) = response else {
            panic!("{response:?}");
        };
        assert_eq!(response.topics[0].error_code, 0, "{response:?}");
        response.topics[0].topic_id
    }

    pub fn set_config(&mut self, kind: ConfigResourceType, name: &str, key: &str, value: &str) {
        let record = ConfigRecord {
            resource_type: kind.0,
            resource_name: name.to_owned(),
            name: key.to_owned(),
            value: Some(value.to_owned()),
        };
        self.append(&[record.into()]);
    }

    /// A new controller that has read what this one wrote.
    pub fn restart_controller(&mut self) {
        let mut delta = MetadataDelta::new(&MetadataImage::default());
        for value in &self.log {
            delta
                .replay(&MetadataRecord::decode(value).unwrap())
                .unwrap();
        }
        let (image, _) = delta.apply(self.controller.image().provenance);
        assert_eq!(
            image,
            *self.controller.image(),
            "replay(encode(decide)) = state"
        );
        self.controller = controller(Arc::new(AllowAll));
        self.controller.load(image);
    }
}

fn controller(authorizer: Arc<dyn Authorizer>) -> Controller {
    let settings = ControllerSettings {
        node_id: BrokerId(1),
        cluster_id: "c".to_owned(),
        default_num_partitions: 1,
        default_replication_factor: 1,
        delete_topic_enable: true,
        broker_session_timeout_ms: 9_000,
        leader_imbalance_check_interval: Some(Duration::from_secs(300)),
        unclean_leader_election_interval: Duration::from_secs(300),
    };
    Controller::new(settings, Arc::new(FewRules), authorizer, Rng::new(5))
}
