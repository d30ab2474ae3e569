//! From the node's configuration to what its parts want of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::controller::{ControllerConfig, QuorumSettings};
use super::directories::Directories;
use super::listeners::BoundListener;
use super::storage::Storage;
use crate::base::{Offset, Uuid};
use crate::config::NodeConfig;
use crate::controller::{AutoCreateSettings, ControllerSettings, InternalTopicSettings};
use crate::coordinator::CoordinatorConfig;
use crate::log::LogConfig;
use crate::metadata::{self, supported_features};
use crate::raft::voters::Endpoint;
use crate::raft::{Voter, VoterSet};
use crate::record::{Compression, CompressionType};
use crate::security::{AllowAll, Authorizer, StandardAuthorizer};
use crate::shard::Node;
use crate::wire::messages::broker_registration_request::{Feature, Listener};
use crate::wire::messages::{BrokerHeartbeatRequest, BrokerRegistrationRequest};

pub fn auto_create(config: &NodeConfig) -> AutoCreateSettings {
    let (group, transaction) = (&config.group, &config.transaction);
    let transactions = InternalTopicSettings {
        num_partitions: transaction.transaction_state_log_num_partitions,
        replication_factor: transaction.transaction_state_log_replication_factor,
        segment_bytes: transaction.transaction_state_log_segment_bytes,
        min_insync_replicas: transaction.transaction_state_log_min_isr,
    };
    AutoCreateSettings {
        num_partitions: Some(config.topics.num_partitions),
        replication_factor: Some(config.topics.default_replication_factor),
        offsets: InternalTopicSettings {
            num_partitions: group.offsets_topic_num_partitions,
            replication_factor: group.offsets_topic_replication_factor,
            segment_bytes: group.offsets_topic_segment_bytes,
            min_insync_replicas: 1,
        },
        // No share coordinator asks for its topic yet.
        shares: transactions.clone(),
        transactions,
    }
}

/// Who decides what a client may do.
pub fn authorizer(config: &NodeConfig) -> Arc<dyn Authorizer> {
    match &config.authorizer {
        None => Arc::new(AllowAll),
        Some(config) => Arc::new(StandardAuthorizer::new(
            config.super_users.iter().cloned(),
            config.allow_everyone_if_no_acl_found,
        )),
    }
}

pub fn coordinator(config: &NodeConfig) -> CoordinatorConfig {
    let group = &config.group;
    let size = |bytes: i32| usize::try_from(bytes).unwrap_or(0);
    CoordinatorConfig {
        session_timeout_ms_min: group.group_min_session_timeout_ms,
        session_timeout_ms_max: group.group_max_session_timeout_ms,
        initial_rebalance_delay_ms: group.group_initial_rebalance_delay_ms,
        group_size_max: group.group_max_size,
        offset_metadata_max: size(group.offset_metadata_max_bytes),
        offsets_retention_ms: i64::from(group.offsets_retention_minutes) * 60_000,
        offsets_retention_check_interval_ms: group.offsets_retention_check_interval_ms,
        offset_commit_timeout_ms: i64::from(group.offsets_commit_timeout_ms),
        load_buffer_bytes: size(group.offsets_load_buffer_size),
        compression: offsets_compression(group.offsets_topic_compression_codec),
        ..CoordinatorConfig::default()
    }
}

/// `offsets.topic.compression.codec` is a codec's number, which was checked at the start.
fn offsets_compression(codec: i32) -> Compression {
    i8::try_from(codec)
        .ok()
        .and_then(CompressionType::from_id)
        .map(|codec| Compression::new(codec, codec.default_level()))
        .unwrap_or_default()
}

pub fn controller(node: &Node, storage: &Storage, listeners: &[BoundListener]) -> ControllerConfig {
    let metadata = &node.config.metadata;
    ControllerConfig {
        settings: controller_settings(&node.config, storage),
        metadata_dir: storage.metadata.log_dir.path().to_owned(),
        directory_id: storage.metadata.id,
        static_voters: static_voters(&node.config),
        listeners: listeners
            .iter()
            .filter(|listener| listener.is_controller)
            .map(|listener| metadata::Listener {
                name: listener.name.to_string(),
                host: listener.advertised_host.clone(),
                port: listener.advertised_port,
                protocol: listener.protocol,
            })
            .collect(),
        log: LogConfig {
            segment_bytes: u32::try_from(metadata.metadata_log_segment_bytes).unwrap_or(0),
            segment_ms: metadata.metadata_log_segment_ms,
            retention_bytes: metadata.metadata_max_retention_bytes,
            retention_ms: metadata.metadata_max_retention_ms,
            ..LogConfig::default()
        },
        snapshot_bytes: u64::try_from(metadata.metadata_log_max_record_bytes_between_snapshots)
            .unwrap_or(u64::MAX),
        quorum: quorum(&node.config),
    }
}

fn quorum(config: &NodeConfig) -> QuorumSettings {
    let metadata = &config.metadata;
    let ms = |value: i32| u64::try_from(value).unwrap_or(0);
    QuorumSettings {
        is_controller: config.roles.controller,
        listener: config.listeners.controller_names[0].clone(),
        bootstrap_servers: config.quorum_bootstrap_servers.clone(),
        auto_join: metadata.controller_quorum_auto_join_enable,
        election_timeout_ms: ms(metadata.controller_quorum_election_timeout_ms).max(1),
        fetch_timeout_ms: ms(metadata.controller_quorum_fetch_timeout_ms).max(1),
        election_backoff_max_ms: ms(metadata.controller_quorum_election_backoff_max_ms),
        answer_timeout_ms: ms(metadata.controller_quorum_request_timeout_ms).max(1),
        retry_backoff_ms: ms(metadata.controller_quorum_retry_backoff_ms),
        fetch_max_bytes: metadata.controller_quorum_fetch_max_bytes,
        fetch_snapshot_max_bytes: metadata.controller_quorum_fetch_snapshot_max_bytes,
    }
}

/// The voters of `controller.quorum.voters`; none where they stand in the metadata log.
pub fn static_voters(config: &NodeConfig) -> Option<VoterSet> {
    let voters = &config.quorum_voters;
    let voter = |voter: &crate::config::Voter| {
        let endpoint = Endpoint {
            listener: config.listeners.controller_names[0].clone(),
            host: voter.host.clone(),
            port: voter.port,
        };
        Voter::new(voter.id, None, vec![endpoint])
    };
    (!voters.is_empty()).then(|| voters.iter().map(voter).collect())
}

/// Kafka's defaults; nothing goes by them before the node runs what is due.
const CHECK_INTERVAL: Duration = Duration::from_secs(300);

fn controller_settings(config: &NodeConfig, storage: &Storage) -> ControllerSettings {
    ControllerSettings {
        node_id: storage.node_id,
        cluster_id: storage.cluster_id.clone(),
        default_num_partitions: config.topics.num_partitions,
        default_replication_factor: config.topics.default_replication_factor,
        delete_topic_enable: config.topics.delete_topic_enable,
        broker_session_timeout_ms: u64::try_from(config.metadata.broker_session_timeout_ms)
            .unwrap_or(0),
        leader_imbalance_check_interval: Some(CHECK_INTERVAL),
        unclean_leader_election_interval: CHECK_INTERVAL,
    }
}

/// The broker's registration for this life of the process.
pub fn registration(
    node: &Node,
    storage: &Storage,
    listeners: &[BoundListener],
    incarnation_id: Uuid,
) -> BrokerRegistrationRequest {
    BrokerRegistrationRequest {
        broker_id: node.id.0,
        cluster_id: storage.cluster_id.clone(),
        incarnation_id,
        listeners: listeners
            .iter()
            .filter(|listener| !listener.is_controller)
            .map(|listener| Listener {
                name: listener.name.to_string(),
                host: listener.advertised_host.clone(),
                port: listener.advertised_port,
                security_protocol: listener.protocol,
            })
            .collect(),
        features: supported_features()
            .map(
                |(name, min_supported_version, max_supported_version)| Feature {
                    name: name.to_owned(),
                    min_supported_version,
                    max_supported_version,
                },
            )
            .collect(),
        rack: node.config.rack.clone(),
        log_dirs: storage
            .directories
            .iter()
            .map(|directory| directory.id)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        previous_broker_epoch: storage.previous_broker_epoch,
        ..Default::default()
    }
}

/// Unfences the broker, or asks for leave to stop.
pub fn heartbeat(
    node: &Node,
    epoch: i64,
    published: Offset,
    want_shut_down: bool,
    directories: &Directories,
) -> BrokerHeartbeatRequest {
    BrokerHeartbeatRequest {
        broker_id: node.id.0,
        broker_epoch: epoch,
        current_metadata_offset: published.0,
        want_fence: false,
        want_shut_down,
        offline_log_dirs: directories.offline().into_iter().collect(),
        cordoned_log_dirs: Some(directories.cordoned()),
    }
}
