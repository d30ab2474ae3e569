//! Layer 2: the active controller. Every operation *decides*: it validates a request
//! against the state and gives records and an answer, and changes nothing; the state
//! changes only when records are *replayed*.
//!
//! ```text
//!   ControllerRequest ─ decide ─▶ Decision { records, response }
//!                                     │ node::controller appends and fsyncs the records
//!   state ◀──────── replay ───────────┘ … and answers when every core has the new image
//! ```
//! Called by `node::controller` on the controller's own core. One file per area; each
//! matches the class of Apache Kafka 4.3.1 named in its header, error codes and texts
//! included. Pure: time, randomness and the log's end are passed in.
//!
//! Invariants: `image` is what replaying all records appended so far gives, committed or
//! not, so that a decision sees the ones before it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::base::{BrokerId, ErrorCode, Millis, Nanos, Offset, Rng};
use crate::metadata::{
    ConfigEntries, ConfigResourceType, ImageChanges, MetadataDelta, MetadataImage, MetadataRecord,
    Provenance, ReplayError, TopicImage,
};
use crate::security::{Authorizer, CLUSTER_NAME, CurrentAuthorizer, ResourceType};

mod acls;
pub mod activation;
mod alter_partition;
mod api_error;
mod auto_create;
mod config_rules;
mod configs;
mod create_partitions;
mod create_topics;
mod delete_topics;
mod elect_leaders;
mod heartbeat;
mod leader_election;
mod manual_assignment;
mod partition_change;
pub mod placement;
mod producer_ids;
mod reassignments;
mod registration;
mod replica_dirs;
mod request;
mod timers;
pub mod topic_name;
mod unregister_broker;

pub use api_error::ApiError;
pub use auto_create::{
    AUTO_CREATE_VERSION, AutoCreateSettings, InternalTopicSettings, auto_create_request,
};
pub use config_rules::{ConfigRules, EffectiveConfig, TopicConfigLayers};
pub use producer_ids::PRODUCER_ID_BLOCK;
pub use request::{ControllerRequest, ControllerResponse};
pub use timers::DueDecision;

/// Most records that one operation may write (`MAX_RECORDS_PER_USER_OP`).
pub const RECORDS_PER_OPERATION_MAX: usize = 10_000;

/// Most bytes of a batch's records: Kafka's 8 MiB for a batch of the metadata log, less
/// room for its header and the records' own framing.
pub const BATCH_VALUE_BYTES_MAX: usize = 8 * 1024 * 1024 - 512 * 1024;

/// What the controller takes from the node's configuration.
#[derive(Clone, Debug)]
pub struct ControllerSettings {
    pub node_id: BrokerId,
    pub cluster_id: String,
    /// `num.partitions`
    pub default_num_partitions: i32,
    /// `default.replication.factor`
    pub default_replication_factor: i16,
    /// `delete.topic.enable`
    pub delete_topic_enable: bool,
    /// `broker.session.timeout.ms`
    pub broker_session_timeout_ms: u64,
    /// `leader.imbalance.check.interval.seconds`; `None` without
    /// `auto.leader.rebalance.enable`.
    pub leader_imbalance_check_interval: Option<Duration>,
    /// `unclean.leader.election.interval.ms`
    pub unclean_leader_election_interval: Duration,
}

/// The moment of a decision.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    pub now: Nanos,
    pub wall_ms: Millis,
    /// Offset that the first record of the decision will get.
    pub next_offset: Offset,
    /// The finalized kraft.version.
    pub kraft_version: i16,
}

/// What an operation comes to.
#[derive(Debug)]
pub struct Decision {
    /// To be appended in order; nothing to do for an operation that only answers.
    pub records: Vec<MetadataRecord>,
    /// The values of the records, each of which fits its batch.
    pub values: Vec<Bytes>,
    /// Whether the records must stand in one batch. The others may be cut anywhere.
    pub is_atomic: bool,
    pub response: ControllerResponse,
}

/// Records and the answer that goes with them, or the error of the whole operation.
type Outcome<R> = Result<(Vec<MetadataRecord>, R), ApiError>;

pub struct Controller {
    settings: ControllerSettings,
    rules: Arc<dyn ConfigRules>,
    /// By the ACLs of `image`.
    authorizer: CurrentAuthorizer,
    rng: Rng,
    image: MetadataImage,
    /// Topics whose names hold '.' or '_', by the name with those unified.
    collisions: BTreeMap<String, Vec<Arc<str>>>,
    heartbeats: heartbeat::Heartbeats,
    timers: timers::Timers,
}

impl Controller {
    pub fn new(
        settings: ControllerSettings,
        rules: Arc<dyn ConfigRules>,
        authorizer: Arc<dyn Authorizer>,
        rng: Rng,
    ) -> Controller {
        Controller {
            settings,
            rules,
            authorizer: CurrentAuthorizer::new(authorizer),
            rng,
            image: MetadataImage::default(),
            collisions: BTreeMap::new(),
            heartbeats: heartbeat::Heartbeats::default(),
            timers: timers::Timers::default(),
        }
    }

    /// Takes over the state that the log gave, before the first decision.
    pub fn load(&mut self, image: MetadataImage) {
        self.collisions.clear();
        let changes = ImageChanges::everything(&image);
        self.image = image;
        self.authorizer.set_acls(self.image.acls.index());
        self.index_topics(&changes);
    }

    /// The state with everything appended so far.
    pub fn image(&self) -> &MetadataImage {
        &self.image
    }

    pub fn settings(&self) -> &ControllerSettings {
        &self.settings
    }

    /// What an operation would write and answer.
    pub fn decide(&mut self, turn: &Turn, request: &ControllerRequest) -> Decision {
        use ControllerRequest as Q;
        let is_atomic = !matches!(
            request,
            Q::RegisterBroker { .. }
                | Q::BrokerHeartbeat { .. }
                | Q::AssignReplicasToDirs { .. }
                | Q::UnregisterBroker { .. }
                | Q::AlterPartition { .. }
                | Q::ElectLeaders { .. }
        );
        self.begin(turn);
        let outcome = match request {
            _ if !self.may_ask(request) => {
                Err(ApiError::general(ErrorCode::CLUSTER_AUTHORIZATION_FAILED))
            }
            Q::CreateTopics { ctx, request } => erase(self.decide_create_topics(ctx, request)),
            Q::DeleteTopics { ctx, request } => erase(self.decide_delete_topics(ctx, request)),
            Q::CreatePartitions { ctx, request } => {
                erase(self.decide_create_partitions(ctx, request))
            }
            Q::AlterConfigs { ctx, request } => erase(self.decide_alter_configs(ctx, request)),
            Q::IncrementalAlterConfigs { ctx, request } => {
                erase(self.decide_incremental_alter_configs(ctx, request))
            }
            Q::CreateAcls { request, .. } => erase(self.decide_create_acls(request)),
            Q::DeleteAcls { request, .. } => erase(self.decide_delete_acls(request)),
            Q::AllocateProducerIds { request, .. } => {
                erase(self.decide_allocate_producer_ids(request))
            }
            Q::RegisterBroker { request, .. } => erase(self.decide_register_broker(turn, request)),
            Q::BrokerHeartbeat { request, .. } => {
                erase(self.decide_broker_heartbeat(turn, request))
            }
            Q::AssignReplicasToDirs { request, .. } => {
                erase(self.decide_assign_replicas_to_dirs(request))
            }
            Q::RegisterController { request, .. } => {
                erase(self.decide_register_controller(request))
            }
            Q::UnregisterBroker { request, .. } => erase(self.decide_unregister_broker(request)),
            Q::AlterPartition { request, .. } => erase(self.decide_alter_partition(request)),
            Q::ElectLeaders { request, .. } => erase(self.decide_elect_leaders(request)),
            Q::AlterPartitionReassignments { request, .. } => {
                erase(self.decide_alter_partition_reassignments(request))
            }
            Q::ListPartitionReassignments { request, .. } => {
                erase(self.decide_list_partition_reassignments(request))
            }
        };
        let encoded = outcome.and_then(|(records, response)| {
            let values = self.encode(&records, is_atomic)?;
            Ok((records, values, response))
        });
        match encoded {
            Ok((records, values, response)) => Decision {
                records,
                values,
                is_atomic,
                response,
            },
            Err(error) => Decision {
                records: Vec::new(),
                values: Vec::new(),
                is_atomic: true,
                response: request.error_response(&error),
            },
        }
    }

    /// Whether the cluster's own business comes from a node of it, or from someone who may
    /// act as one. The other operations look at each of their resources.
    fn may_ask(&self, request: &ControllerRequest) -> bool {
        let operation = match request.cluster_operation() {
            Some(operation) => operation,
            None => return true,
        };
        let (ctx, cluster) = (request.context(), ResourceType::Cluster);
        self.authorizer
            .authorize(ctx, operation, cluster, CLUSTER_NAME)
    }

    /// At the first turn of an active controller.
    fn begin(&mut self, turn: &Turn) {
        let own = self.settings.node_id;
        self.heartbeats.begin(&self.image.cluster, own, turn.now);
        self.timers.begin(&self.settings, turn.now);
    }

    /// Takes in records that were appended from `base_offset` on.
    pub fn replay(
        &mut self,
        records: &[MetadataRecord],
        base_offset: Offset,
    ) -> Result<(), ReplayError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut delta = MetadataDelta::new(&self.image);
        for record in records {
            delta.replay(record)?;
        }
        let (image, changes) = delta.apply(Provenance {
            offset: base_offset + (records.len() as i64 - 1),
            ..self.image.provenance
        });
        self.image = image;
        if changes.acls {
            self.authorizer.set_acls(self.image.acls.index());
        }
        self.index_topics(&changes);
        self.forget_brokers(&changes);
        self.timers.on_records(records);
        Ok(())
    }

    fn encode(&self, records: &[MetadataRecord], is_atomic: bool) -> Result<Vec<Bytes>, ApiError> {
        if is_atomic && records.len() > RECORDS_PER_OPERATION_MAX {
            return Err(too_large());
        }
        let version = self.image.metadata_version();
        let mut bytes = 0;
        let mut values = Vec::with_capacity(records.len());
        for record in records {
            let value = record
                .encode(version)
                .expect("a decision's records fit the finalized metadata.version");
            bytes += value.len();
            values.push(value);
        }
        if is_atomic && bytes > BATCH_VALUE_BYTES_MAX {
            return Err(too_large());
        }
        Ok(values)
    }

    fn index_topics(&mut self, changes: &ImageChanges) {
        for topic in with_collision_chars(&changes.topics_deleted) {
            let unified = topic_name::unify_collision_chars(&topic.name);
            if let Some(names) = self.collisions.get_mut(&unified) {
                names.retain(|name| *name != topic.name);
                if names.is_empty() {
                    self.collisions.remove(&unified);
                }
            }
        }
        for topic in with_collision_chars(&changes.topics_created) {
            let unified = topic_name::unify_collision_chars(&topic.name);
            let names = self.collisions.entry(unified).or_default();
            names.push(Arc::clone(&topic.name));
        }
    }

    /// The layers of a topic's configs above the node's file.
    fn topic_layers<'a>(&'a self, topic: &'a ConfigEntries) -> TopicConfigLayers<'a> {
        static EMPTY: ConfigEntries = ConfigEntries::new();
        let broker = |name: &str| {
            let entries = self.image.configs.get(ConfigResourceType::BROKER, name);
            entries.map_or(&EMPTY, |entries| entries)
        };
        TopicConfigLayers {
            topic,
            broker: broker(&self.settings.node_id.to_string()),
            cluster: broker(""),
        }
    }
}

fn with_collision_chars(topics: &[Arc<TopicImage>]) -> impl Iterator<Item = &Arc<TopicImage>> {
    topics
        .iter()
        .filter(|topic| topic_name::has_collision_chars(&topic.name))
}

fn erase<R: Into<ControllerResponse>>(outcome: Outcome<R>) -> Outcome<ControllerResponse> {
    outcome.map(|(records, response)| (records, response.into()))
}

/// Kafka's answer to an operation that would write too many records.
fn too_large() -> ApiError {
    ApiError::new(
        ErrorCode::POLICY_VIOLATION,
        "Unable to perform excessively large batch operation.",
    )
}

#[cfg(test)]
pub(crate) mod testing;
