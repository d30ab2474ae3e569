//! Replay: how each metadata record changes the image. A delta starts from an image, takes
//! records and gives the next image with a summary of what changed. Used by the controller,
//! by the nodes and by the tests alike; nothing else changes metadata.
//!
//! A record that contradicts the state (a partition of an unknown topic, a stale broker
//! epoch) is an error: the log is the only truth, and a replayer that went on would differ
//! from all others.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::changes::ImageChanges;
use super::image::{
    BrokerImage, ConfigResourceType, ControllerImage, Listener, MetadataImage, Provenance,
    QuotaEntity,
};
use super::record::MetadataRecord;
use super::topics::{DirectoriesMismatch, PartitionImage, TopicImage};
use super::version::{METADATA_VERSION_FEATURE, MetadataVersion, is_supported};
use crate::base::{BrokerId, PartitionIndex, Uuid};
use crate::wire::messages::*;

/// Why a record can't be replayed.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ReplayError {
    #[error("feature {name} at level {level} is not supported by this version")]
    UnsupportedFeature { name: String, level: i16 },
    #[error("topic {0} already exists")]
    DuplicateTopic(String),
    #[error("topic id {0} already exists")]
    DuplicateTopicId(Uuid),
    #[error("unknown topic id {0}")]
    UnknownTopicId(Uuid),
    #[error("unknown topic {0}")]
    UnknownTopic(String),
    #[error("unknown partition {partition} of topic id {topic_id}")]
    UnknownPartition { topic_id: Uuid, partition: i32 },
    #[error("partition {partition} of topic id {topic_id}: {source}")]
    Directories {
        topic_id: Uuid,
        partition: i32,
        source: DirectoriesMismatch,
    },
    #[error("broker {0} is not registered")]
    UnknownBroker(BrokerId),
    #[error("epoch {epoch} of broker {broker} is not its epoch {current}")]
    StaleBrokerEpoch {
        broker: BrokerId,
        epoch: i64,
        current: i64,
    },
    #[error("broker {broker} can't be changed to {field} {value}")]
    InvalidRegistrationChange {
        broker: BrokerId,
        field: &'static str,
        value: i8,
    },
    #[error("unknown ACL id {0}")]
    UnknownAcl(Uuid),
    #[error("producer ids may not go back from {from} to {to}")]
    ProducerIdsGoBack { from: i64, to: i64 },
    #[error("{0} inside a transaction")]
    NestedTransaction(&'static str),
    #[error("{0} outside of a transaction")]
    NoTransaction(&'static str),
}

/// Changes on top of an image. Cloning is cheap, as with images.
#[derive(Clone, Debug)]
pub struct MetadataDelta {
    base: MetadataImage,
    next: MetadataImage,
    touched: Touched,
}

/// What records have named so far; what really changed is worked out at the end.
#[derive(Clone, Debug, Default)]
pub(super) struct Touched {
    pub topics: BTreeSet<Uuid>,
    pub partitions: BTreeSet<(Uuid, PartitionIndex)>,
    pub configs: BTreeSet<(ConfigResourceType, String)>,
    pub brokers: BTreeSet<BrokerId>,
    pub controllers: BTreeSet<BrokerId>,
}

impl Touched {
    /// Whatever there is in an image.
    pub fn all_of(image: &MetadataImage) -> Touched {
        Touched {
            topics: image.topics.iter_by_id().map(|topic| topic.id).collect(),
            partitions: image
                .topics
                .iter_by_id()
                .flat_map(|topic| topic.partitions().map(|(index, _)| (topic.id, index)))
                .collect(),
            configs: image
                .configs
                .iter()
                .map(|(kind, name, _)| (kind, name.to_owned()))
                .collect(),
            brokers: image.cluster.brokers.keys().copied().collect(),
            controllers: image.cluster.controllers.keys().copied().collect(),
        }
    }
}

impl MetadataDelta {
    /// From one image to another that wasn't made from it.
    pub(super) fn between(base: &MetadataImage, next: MetadataImage) -> MetadataDelta {
        let mut touched = Touched::all_of(base);
        let others = Touched::all_of(&next);
        touched.topics.extend(others.topics);
        touched.partitions.extend(others.partitions);
        touched.configs.extend(others.configs);
        touched.brokers.extend(others.brokers);
        touched.controllers.extend(others.controllers);
        MetadataDelta {
            base: base.clone(),
            next,
            touched,
        }
    }

    pub fn new(base: &MetadataImage) -> MetadataDelta {
        MetadataDelta {
            base: base.clone(),
            next: base.clone(),
            touched: Touched::default(),
        }
    }

    /// The state after the records so far. Its provenance is the base's.
    pub fn image(&self) -> &MetadataImage {
        &self.next
    }

    /// The next image and what is different in it.
    pub fn apply(mut self, provenance: Provenance) -> (MetadataImage, ImageChanges) {
        self.next.provenance = provenance;
        let changes = ImageChanges::between(&self.base, &self.next, &self.touched);
        (self.next, changes)
    }

    pub(super) fn set_kraft_version(&mut self, version: i16) {
        self.base.kraft_version = version;
        self.next.kraft_version = version;
    }

    /// Counts changes from `base`, which holds a part of what was replayed here.
    pub(super) fn rebase(&mut self, base: &MetadataImage) {
        self.base = base.clone();
    }

    /// Applies one record. Transaction records have no effect here: whoever reads a log
    /// keeps apart what stands between them ([`MetadataLoader`](super::MetadataLoader)).
    pub fn replay(&mut self, record: &MetadataRecord) -> Result<(), ReplayError> {
        use MetadataRecord as R;
        match record {
            R::RegisterBroker(r) => self.register_broker(r),
            R::UnregisterBroker(r) => self.unregister_broker(r)?,
            R::FenceBroker(r) => self.change_broker(r.id, r.epoch, |b| b.fenced = true)?,
            R::UnfenceBroker(r) => self.change_broker(r.id, r.epoch, |b| b.fenced = false)?,
            R::BrokerRegistrationChange(r) => self.change_registration(r)?,
            R::RegisterController(r) => self.register_controller(r),
            R::Topic(r) => self.create_topic(r)?,
            R::RemoveTopic(r) => self.remove_topic(r)?,
            R::Partition(r) => self.set_partition(r)?,
            R::PartitionChange(r) => self.change_partition(r)?,
            R::ClearElr(r) => self.clear_elr(r)?,
            R::Config(r) => self.set_config(r),
            R::FeatureLevel(r) => self.set_feature(r)?,
            R::ClientQuota(r) => self.set_quota(r),
            R::ProducerIds(r) => self.set_producer_ids(r)?,
            R::AccessControlEntry(r) => self.next.acls.insert(Arc::new(r.clone())),
            R::RemoveAccessControlEntry(r) => {
                if !self.next.acls.remove(r.id) {
                    return Err(ReplayError::UnknownAcl(r.id));
                }
            }
            R::UserScramCredential(r) => {
                let key = (r.mechanism, r.name.clone());
                self.next.scram.insert(key, Arc::new(r.clone()));
            }
            R::RemoveUserScramCredential(r) => {
                self.next.scram.remove(&(r.mechanism, r.name.clone()));
            }
            R::DelegationToken(r) => {
                let key = r.token_id.clone();
                self.next.delegation_tokens.insert(key, Arc::new(r.clone()));
            }
            R::RemoveDelegationToken(r) => {
                self.next.delegation_tokens.remove(&r.token_id);
            }
            R::NoOp(_) | R::ZkMigrationState(_) => {}
            R::BeginTransaction(_) | R::EndTransaction(_) | R::AbortTransaction(_) => {}
        }
        Ok(())
    }

    fn register_broker(&mut self, record: &RegisterBrokerRecord) {
        let broker = BrokerImage {
            id: BrokerId(record.broker_id),
            epoch: record.broker_epoch,
            incarnation: record.incarnation_id,
            listeners: record
                .end_points
                .iter()
                .map(|end_point| Listener {
                    name: end_point.name.clone(),
                    host: end_point.host.clone(),
                    port: end_point.port,
                    protocol: end_point.security_protocol,
                })
                .collect(),
            features: record
                .features
                .iter()
                .map(|f| {
                    (
                        f.name.clone(),
                        (f.min_supported_version, f.max_supported_version),
                    )
                })
                .collect(),
            rack: record.rack.clone(),
            fenced: record.fenced,
            in_controlled_shutdown: record.in_controlled_shutdown,
            is_migrating_zk: record.is_migrating_zk_broker,
            directories: record.log_dirs.clone(),
            cordoned: record.cordoned_log_dirs.clone(),
        };
        self.touched.brokers.insert(broker.id);
        let cluster = Arc::make_mut(&mut self.next.cluster);
        cluster.brokers.insert(broker.id, Arc::new(broker));
    }

    fn unregister_broker(&mut self, record: &UnregisterBrokerRecord) -> Result<(), ReplayError> {
        let id = BrokerId(record.broker_id);
        self.broker(id, record.broker_epoch)?;
        self.touched.brokers.insert(id);
        Arc::make_mut(&mut self.next.cluster).brokers.remove(&id);
        Ok(())
    }

    /// The registration of a broker, if `epoch` is its epoch.
    fn broker(&self, id: BrokerId, epoch: i64) -> Result<&Arc<BrokerImage>, ReplayError> {
        let broker = self.next.cluster.broker(id);
        let broker = broker.ok_or(ReplayError::UnknownBroker(id))?;
        if broker.epoch != epoch {
            return Err(ReplayError::StaleBrokerEpoch {
                broker: id,
                epoch,
                current: broker.epoch,
            });
        }
        Ok(broker)
    }

    fn change_broker(
        &mut self,
        id: i32,
        epoch: i64,
        change: impl FnOnce(&mut BrokerImage),
    ) -> Result<(), ReplayError> {
        let id = BrokerId(id);
        let mut broker = Arc::clone(self.broker(id, epoch)?);
        change(Arc::make_mut(&mut broker));
        self.touched.brokers.insert(id);
        let cluster = Arc::make_mut(&mut self.next.cluster);
        cluster.brokers.insert(id, broker);
        Ok(())
    }

    fn change_registration(
        &mut self,
        record: &BrokerRegistrationChangeRecord,
    ) -> Result<(), ReplayError> {
        let invalid = |field, value| ReplayError::InvalidRegistrationChange {
            broker: BrokerId(record.broker_id),
            field,
            value,
        };
        let fenced = match record.fenced {
            0 => None,
            1 => Some(true),
            -1 => Some(false),
            other => return Err(invalid("fenced", other)),
        };
        let in_controlled_shutdown = match record.in_controlled_shutdown {
            0 => None,
            1 => Some(true),
            other => return Err(invalid("inControlledShutdown", other)),
        };
        self.change_broker(record.broker_id, record.broker_epoch, |broker| {
            broker.fenced = fenced.unwrap_or(broker.fenced);
            broker.in_controlled_shutdown =
                in_controlled_shutdown.unwrap_or(broker.in_controlled_shutdown);
            if !record.log_dirs.is_empty() {
                broker.directories = record.log_dirs.clone();
            }
            if record.cordoned_log_dirs.is_some() {
                broker.cordoned = record.cordoned_log_dirs.clone();
            }
        })
    }

    fn register_controller(&mut self, record: &RegisterControllerRecord) {
        let controller = ControllerImage {
            id: BrokerId(record.controller_id),
            incarnation: record.incarnation_id,
            zk_migration_ready: record.zk_migration_ready,
            listeners: record
                .end_points
                .iter()
                .map(|end_point| Listener {
                    name: end_point.name.clone(),
                    host: end_point.host.clone(),
                    port: end_point.port,
                    protocol: end_point.security_protocol,
                })
                .collect(),
            features: record
                .features
                .iter()
                .map(|f| {
                    (
                        f.name.clone(),
                        (f.min_supported_version, f.max_supported_version),
                    )
                })
                .collect(),
        };
        self.touched.controllers.insert(controller.id);
        let cluster = Arc::make_mut(&mut self.next.cluster);
        cluster
            .controllers
            .insert(controller.id, Arc::new(controller));
    }

    fn create_topic(&mut self, record: &TopicRecord) -> Result<(), ReplayError> {
        if self.next.topics.by_name(&record.name).is_some() {
            return Err(ReplayError::DuplicateTopic(record.name.clone()));
        }
        if self.next.topics.by_id(record.topic_id).is_some() {
            return Err(ReplayError::DuplicateTopicId(record.topic_id));
        }
        self.touched.topics.insert(record.topic_id);
        let topic = TopicImage::new(Arc::from(record.name.as_str()), record.topic_id);
        self.next.topics.put(Arc::new(topic));
        Ok(())
    }

    /// A topic's configs go with it; there is no record for that.
    fn remove_topic(&mut self, record: &RemoveTopicRecord) -> Result<(), ReplayError> {
        let topic = self.next.topics.remove(record.topic_id);
        let topic = topic.ok_or(ReplayError::UnknownTopicId(record.topic_id))?;
        self.touched.topics.insert(topic.id);
        let kind = ConfigResourceType::TOPIC;
        if self.next.configs.remove(kind, &topic.name) {
            self.touched.configs.insert((kind, topic.name.to_string()));
        }
        Ok(())
    }

    fn set_partition(&mut self, record: &PartitionRecord) -> Result<(), ReplayError> {
        let topic_id = record.topic_id;
        let topic = self.next.topics.by_id(topic_id);
        let topic = topic.ok_or(ReplayError::UnknownTopicId(topic_id))?;
        let partition = PartitionImage::from_record(record)
            .map_err(|source| directories_error(topic_id, record.partition_id, source))?;
        let topic = Arc::clone(topic);
        self.put_partition(topic, PartitionIndex(record.partition_id), partition);
        Ok(())
    }

    fn change_partition(&mut self, record: &PartitionChangeRecord) -> Result<(), ReplayError> {
        let topic_id = record.topic_id;
        let topic = self.next.topics.by_id(topic_id);
        let topic = topic.ok_or(ReplayError::UnknownTopicId(topic_id))?;
        let index = PartitionIndex(record.partition_id);
        let partition = topic
            .partition(index)
            .ok_or(ReplayError::UnknownPartition {
                topic_id,
                partition: index.0,
            })?;
        let partition = partition
            .merge(record)
            .map_err(|source| directories_error(topic_id, index.0, source))?;
        let topic = Arc::clone(topic);
        self.put_partition(topic, index, partition);
        Ok(())
    }

    fn put_partition(
        &mut self,
        topic: Arc<TopicImage>,
        index: PartitionIndex,
        partition: PartitionImage,
    ) {
        self.touched.topics.insert(topic.id);
        self.touched.partitions.insert((topic.id, index));
        // Out of the maps first: then the topic is ours alone while a batch of records
        // fills it, and isn't copied for each.
        self.next.topics.remove(topic.id);
        let mut topic = topic;
        Arc::make_mut(&mut topic)
            .partitions
            .insert(index, Arc::new(partition));
        self.next.topics.put(topic);
    }

    fn clear_elr(&mut self, record: &ClearElrRecord) -> Result<(), ReplayError> {
        let topics: Vec<Arc<TopicImage>> = if record.topic_name.is_empty() {
            self.next.topics.iter().cloned().collect()
        } else {
            let topic = self.next.topics.by_name(&record.topic_name);
            let topic =
                topic.ok_or_else(|| ReplayError::UnknownTopic(record.topic_name.clone()))?;
            vec![Arc::clone(topic)]
        };
        for topic in topics {
            let with_elr = topic
                .partitions()
                .filter(|(_, p)| !p.elr.is_empty() || !p.last_known_elr.is_empty())
                .map(|(index, _)| PartitionChangeRecord {
                    topic_id: topic.id,
                    partition_id: index.0,
                    eligible_leader_replicas: Some(Vec::new()),
                    last_known_elr: Some(Vec::new()),
                    ..Default::default()
                });
            for change in with_elr.collect::<Vec<_>>() {
                self.change_partition(&change)?;
            }
        }
        Ok(())
    }

    fn set_config(&mut self, record: &ConfigRecord) {
        let kind = ConfigResourceType(record.resource_type);
        let name = &record.resource_name;
        let value = record.value.as_deref();
        self.next.configs.set(kind, name, &record.name, value);
        self.touched.configs.insert((kind, name.clone()));
    }

    fn set_feature(&mut self, record: &FeatureLevelRecord) -> Result<(), ReplayError> {
        let (name, level) = (&record.name, record.feature_level);
        let unsupported = || ReplayError::UnsupportedFeature {
            name: name.clone(),
            level,
        };
        let features = Arc::make_mut(&mut self.next.features);
        if name == METADATA_VERSION_FEATURE {
            let version = MetadataVersion::from_level(level).ok_or_else(unsupported)?;
            features.metadata_version = Some(version);
        } else if level == 0 {
            features.levels.remove(name);
        } else if is_known_level(name, level) {
            features.levels.insert(name.clone(), level);
        } else {
            return Err(unsupported());
        }
        Ok(())
    }

    fn set_quota(&mut self, record: &ClientQuotaRecord) {
        let mut entity: QuotaEntity = record
            .entity
            .iter()
            .map(|part| (part.entity_type.clone(), part.entity_name.clone()))
            .collect();
        entity.sort();
        let quotas = &mut self.next.client_quotas;
        let mut values = quotas.get(&entity).cloned().unwrap_or_default();
        let changed = Arc::make_mut(&mut values);
        if record.remove {
            changed.remove(&record.key);
        } else {
            changed.insert(record.key.clone(), record.value);
        }
        if values.is_empty() {
            quotas.remove(&entity);
        } else {
            quotas.insert(entity, values);
        }
    }

    fn set_producer_ids(&mut self, record: &ProducerIdsRecord) -> Result<(), ReplayError> {
        let (from, to) = (self.next.next_producer_id, record.next_producer_id);
        if to < from {
            return Err(ReplayError::ProducerIdsGoBack { from, to });
        }
        self.next.next_producer_id = to;
        Ok(())
    }
}

/// Features that Kafka 4.3.1 defines and this code replays though it does not act on them
/// yet: a log written by Kafka can be read whole. Whether a *node* may run with them is
/// decided where it starts ([`is_supported`]).
fn is_known_level(name: &str, level: i16) -> bool {
    let max = match name {
        "group.version" | "share.version" | "streams.version" => 1,
        "eligible.leader.replicas.version" => 1,
        "transaction.version" => 2,
        other => return is_supported(other, level),
    };
    (0..=max).contains(&level)
}

fn directories_error(topic_id: Uuid, partition: i32, source: DirectoriesMismatch) -> ReplayError {
    ReplayError::Directories {
        topic_id,
        partition,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay(records: &[MetadataRecord]) -> Result<MetadataImage, ReplayError> {
        let mut delta = MetadataDelta::new(&MetadataImage::default());
        for record in records {
            delta.replay(record)?;
        }
        Ok(delta.apply(Provenance::EMPTY).0)
    }

    fn broker(id: i32, epoch: i64) -> MetadataRecord {
        RegisterBrokerRecord {
            broker_id: id,
            broker_epoch: epoch,
            ..Default::default()
        }
        .into()
    }

    fn topic(name: &str, id: u8) -> MetadataRecord {
        TopicRecord {
            name: name.to_owned(),
            topic_id: Uuid([id; 16]),
        }
        .into()
    }

    fn fence(id: i32, epoch: i64) -> MetadataRecord {
        BrokerRegistrationChangeRecord {
            broker_id: id,
            broker_epoch: epoch,
            fenced: 1,
            ..Default::default()
        }
        .into()
    }

    #[test]
    fn contradictions_are_errors() {
        let unknown = Uuid([9; 16]);
        let partition = PartitionRecord {
            topic_id: unknown,
            ..Default::default()
        };
        let change = PartitionChangeRecord {
            topic_id: Uuid([1; 16]),
            partition_id: 4,
            ..Default::default()
        };
        let ids = |next_producer_id| {
            MetadataRecord::from(ProducerIdsRecord {
                next_producer_id,
                ..Default::default()
            })
        };
        let acl = RemoveAccessControlEntryRecord { id: unknown };
        let cases: Vec<(Vec<MetadataRecord>, ReplayError)> = vec![
            (
                vec![topic("a", 1), topic("a", 2)],
                ReplayError::DuplicateTopic("a".to_owned()),
            ),
            (
                vec![topic("a", 1), topic("b", 1)],
                ReplayError::DuplicateTopicId(Uuid([1; 16])),
            ),
            (vec![partition.into()], ReplayError::UnknownTopicId(unknown)),
            (
                vec![topic("a", 1), change.into()],
                ReplayError::UnknownPartition {
                    topic_id: Uuid([1; 16]),
                    partition: 4,
                },
            ),
            (
                vec![RemoveTopicRecord { topic_id: unknown }.into()],
                ReplayError::UnknownTopicId(unknown),
            ),
            (vec![fence(1, 5)], ReplayError::UnknownBroker(BrokerId(1))),
            (
                vec![broker(1, 5), fence(1, 4)],
                ReplayError::StaleBrokerEpoch {
                    broker: BrokerId(1),
                    epoch: 4,
                    current: 5,
                },
            ),
            (vec![acl.into()], ReplayError::UnknownAcl(unknown)),
            (
                vec![ids(2_000), ids(1_000)],
                ReplayError::ProducerIdsGoBack {
                    from: 2_000,
                    to: 1_000,
                },
            ),
            (
                vec![MetadataRecord::feature_level("metadata.version", 31)],
                ReplayError::UnsupportedFeature {
                    name: "metadata.version".to_owned(),
                    level: 31,
                },
            ),
            (
                vec![MetadataRecord::feature_level("new.version", 1)],
                ReplayError::UnsupportedFeature {
                    name: "new.version".to_owned(),
                    level: 1,
                },
            ),
        ];
        for (records, error) in cases {
            assert_eq!(replay(&records), Err(error));
        }
    }

    #[test]
    fn registrations_change_field_by_field() {
        let shutdown = BrokerRegistrationChangeRecord {
            broker_id: 1,
            broker_epoch: 5,
            in_controlled_shutdown: 1,
            log_dirs: vec![Uuid([3; 16])],
            ..Default::default()
        };
        let image = replay(&[
            broker(1, 5),
            UnfenceBrokerRecord { id: 1, epoch: 5 }.into(),
            shutdown.into(),
        ]);
        let image = image.unwrap();
        let registered = image.cluster.broker(BrokerId(1)).unwrap();
        assert!(!registered.fenced && registered.in_controlled_shutdown);
        assert!(!registered.is_active());
        assert_eq!(registered.directories, [Uuid([3; 16])]);
        assert_eq!(registered.cordoned, None);
        let gone = UnregisterBrokerRecord {
            broker_id: 1,
            broker_epoch: 5,
        };
        let image = replay(&[broker(1, 5), gone.into()]).unwrap();
        assert!(image.cluster.brokers.is_empty());
    }

    #[test]
    fn elrs_are_cleared_by_name_and_everywhere() {
        let with_elr = |id: u8| {
            MetadataRecord::from(PartitionRecord {
                partition_id: 0,
                topic_id: Uuid([id; 16]),
                replicas: vec![1],
                eligible_leader_replicas: Some(vec![1]),
                ..Default::default()
            })
        };
        let elrs = |clear: &str| {
            let clear = ClearElrRecord {
                topic_name: clear.to_owned(),
            };
            let records = [
                topic("a", 1),
                with_elr(1),
                topic("b", 2),
                with_elr(2),
                clear.into(),
            ];
            let image = replay(&records).unwrap();
            let elr = |name: &str| {
                let partition = image.topics.partition(name, PartitionIndex(0)).unwrap();
                partition.elr.len()
            };
            (elr("a"), elr("b"))
        };
        assert_eq!(elrs("a"), (0, 1));
        assert_eq!(elrs(""), (0, 0));
    }

    #[test]
    fn an_image_that_was_given_out_stays() {
        let before = replay(&[topic("a", 1)]).unwrap();
        let kept = before.clone();
        let mut delta = MetadataDelta::new(&before);
        delta.replay(&topic("b", 2)).unwrap();
        delta
            .replay(
                &RemoveTopicRecord {
                    topic_id: Uuid([1; 16]),
                }
                .into(),
            )
            .unwrap();
        let (after, _) = delta.apply(Provenance::EMPTY);
        assert_eq!(before, kept);
        assert!(before.topics.by_name("a").is_some());
        assert!(after.topics.by_name("a").is_none());
    }
}
