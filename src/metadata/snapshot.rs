//! An image as the records that give it back, in the order in which Kafka's snapshots have
//! them: features (metadata.version first), brokers, controllers, topics each with its
//! partitions, configs, quotas, producer ids, ACLs, SCRAM credentials, delegation tokens.

use bytes::Bytes;

use super::delta::{MetadataDelta, ReplayError};
use super::image::{BrokerImage, ControllerImage, MetadataImage, Provenance};
use super::record::{MetadataRecord, RecordError};
use super::version::MetadataVersion;
use crate::wire::messages::register_broker_record::{BrokerEndpoint, BrokerFeature};
use crate::wire::messages::register_controller_record::{ControllerEndpoint, ControllerFeature};
use crate::wire::messages::*;

/// Why values don't give an image.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("record {index}: {source}")]
    Record { index: usize, source: RecordError },
    #[error("record {index} ({name}): {source}")]
    Replay {
        index: usize,
        name: &'static str,
        source: ReplayError,
    },
}

/// The values of all records of a snapshot of `image`. What the finalized
/// metadata.version has no record for is left out.
pub fn image_values(image: &MetadataImage) -> Vec<Bytes> {
    let version = image.metadata_version();
    image_records(image)
        .iter()
        .map(|record| {
            let value = record.encode(version);
            value.expect("an image's records fit its metadata.version")
        })
        .collect()
}

/// The image that a snapshot's values give, as of `provenance`.
pub fn image_of_values(
    values: &[Bytes],
    provenance: Provenance,
) -> Result<MetadataImage, SnapshotError> {
    let mut delta = MetadataDelta::new(&MetadataImage::default());
    for (index, value) in values.iter().enumerate() {
        let record = MetadataRecord::decode(value)
            .map_err(|source| SnapshotError::Record { index, source })?;
        delta
            .replay(&record)
            .map_err(|source| SnapshotError::Replay {
                index,
                name: record.type_name(),
                source,
            })?;
    }
    Ok(delta.apply(provenance).0)
}

pub fn image_records(image: &MetadataImage) -> Vec<MetadataRecord> {
    let version = image.metadata_version();
    let mut out = Vec::new();
    let features = image.features.iter();
    out.extend(features.map(|(name, level)| MetadataRecord::feature_level(name, level)));

    let brokers = image.cluster.brokers.values();
    out.extend(brokers.map(|broker| register_broker(broker, version).into()));
    if version.has_controller_registration() {
        let controllers = image.cluster.controllers.values();
        out.extend(controllers.map(|controller| register_controller(controller).into()));
    }
    for topic in image.topics.iter_by_id() {
        let record = TopicRecord {
            name: topic.name.to_string(),
            topic_id: topic.id,
        };
        out.push(record.into());
        let partitions = topic.partitions();
        out.extend(partitions.map(|(index, p)| p.to_record(topic.id, index, version).into()));
    }
    for (kind, resource_name, entries) in image.configs.iter() {
        out.extend(entries.iter().map(|(name, value)| {
            ConfigRecord {
                resource_type: kind.0,
                resource_name: resource_name.to_owned(),
                name: name.clone(),
                value: Some(value.clone()),
            }
            .into()
        }));
    }
    quotas(image, &mut out);
    if image.next_producer_id >= 0 {
        let record = ProducerIdsRecord {
            broker_id: -1,
            broker_epoch: -1,
            next_producer_id: image.next_producer_id,
        };
        out.push(record.into());
    }
    out.extend(image.acls.values().map(|acl| (**acl).clone().into()));
    if version.has_scram() {
        out.extend(image.scram.values().map(|scram| (**scram).clone().into()));
    }
    if version.has_delegation_tokens() {
        let tokens = image.delegation_tokens.values();
        out.extend(tokens.map(|token| (**token).clone().into()));
    }
    out
}

fn quotas(image: &MetadataImage, out: &mut Vec<MetadataRecord>) {
    for (entity, values) in image.client_quotas.iter() {
        let parts = entity
            .iter()
            .map(|(kind, name)| client_quota_record::EntityData {
                entity_type: kind.clone(),
                entity_name: name.clone(),
            });
        let parts: Vec<_> = parts.collect();
        out.extend(values.iter().map(|(key, value)| {
            ClientQuotaRecord {
                entity: parts.clone(),
                key: key.clone(),
                value: *value,
                remove: false,
            }
            .into()
        }));
    }
}

fn register_broker(broker: &BrokerImage, version: MetadataVersion) -> RegisterBrokerRecord {
    RegisterBrokerRecord {
        broker_id: broker.id.0,
        is_migrating_zk_broker: broker.is_migrating_zk
            && version.register_broker_record_version() >= 2,
        incarnation_id: broker.incarnation,
        broker_epoch: broker.epoch,
        end_points: broker
            .listeners
            .iter()
            .map(|listener| BrokerEndpoint {
                name: listener.name.clone(),
                host: listener.host.clone(),
                port: listener.port,
                security_protocol: listener.protocol,
            })
            .collect(),
        features: broker
            .features
            .iter()
            .map(|(name, (min, max))| BrokerFeature {
                name: name.clone(),
                min_supported_version: *min,
                max_supported_version: *max,
            })
            .collect(),
        rack: broker.rack.clone(),
        fenced: broker.fenced,
        in_controlled_shutdown: broker.in_controlled_shutdown,
        log_dirs: if version.has_directories() {
            broker.directories.clone()
        } else {
            Vec::new()
        },
        cordoned_log_dirs: broker
            .cordoned
            .clone()
            .filter(|_| version.has_cordoned_dirs()),
    }
}

fn register_controller(controller: &ControllerImage) -> RegisterControllerRecord {
    RegisterControllerRecord {
        controller_id: controller.id.0,
        incarnation_id: controller.incarnation,
        zk_migration_ready: controller.zk_migration_ready,
        end_points: controller
            .listeners
            .iter()
            .map(|listener| ControllerEndpoint {
                name: listener.name.clone(),
                host: listener.host.clone(),
                port: listener.port,
                security_protocol: listener.protocol,
            })
            .collect(),
        features: controller
            .features
            .iter()
            .map(|(name, (min, max))| ControllerFeature {
                name: name.clone(),
                min_supported_version: *min,
                max_supported_version: *max,
            })
            .collect(),
    }
}
