//! Which partitions get another leader or ISR when brokers and their directories come and
//! go (`ReplicationControlManager.generateLeaderAndIsrUpdates`), and what the state says
//! about who can lead. The choice itself is [`partition_change`](super::partition_change).

use crate::base::{BrokerId, PartitionIndex, Uuid};
use crate::metadata::image::directory_id;
use crate::metadata::{
    ConfigEntries, ConfigResourceType, MetadataRecord, PartitionImage, TopicImage,
};
use crate::wire::messages::PartitionChangeRecord;

use super::Controller;
use super::partition_change::{PartitionChange, Terms};

const UNCLEAN_LEADER_ELECTION: &str = "unclean.leader.election.enable";
const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";

/// Why partitions are looked at anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The broker can't lead or be in sync any more: fenced, shutting down, replaced.
    Removed(BrokerId),
    /// It was replaced and may have lost what it had: it isn't eligible either (KIP-966).
    UncleanlyStopped(BrokerId),
    /// The broker can lead again, though the state still shows it fenced.
    Added(BrokerId),
    /// Everything is as the state shows it.
    Nothing,
}

impl Cause {
    fn gone(self) -> Option<BrokerId> {
        match self {
            Cause::Removed(broker) | Cause::UncleanlyStopped(broker) => Some(broker),
            Cause::Added(_) | Cause::Nothing => None,
        }
    }
}

impl Controller {
    /// Appends the changes that follow for all partitions concerned.
    pub(super) fn update_leaders(&self, cause: Cause, records: &mut Vec<MetadataRecord>) {
        self.update_leaders_of(cause, records, |partition| match cause {
            Cause::Removed(broker) => partition.isr.contains(&broker),
            Cause::UncleanlyStopped(broker) => {
                partition.isr.contains(&broker) || partition.elr.contains(&broker)
            }
            Cause::Added(_) | Cause::Nothing => !partition.has_leader(),
        });
    }

    /// The same for partitions whose replica on `broker` is in one of the directories.
    pub(super) fn update_leaders_of_directories(
        &self,
        broker: BrokerId,
        offline: &[Uuid],
        records: &mut Vec<MetadataRecord>,
    ) {
        self.update_leaders_of(Cause::Removed(broker), records, |partition| {
            let directory = partition.directory_of(broker);
            directory.is_some_and(|directory| offline.contains(&directory))
        });
    }

    fn update_leaders_of(
        &self,
        cause: Cause,
        records: &mut Vec<MetadataRecord>,
        concerns: impl Fn(&PartitionImage) -> bool,
    ) {
        for topic in self.image.topics.iter_by_id() {
            let mut terms = None;
            for (index, partition) in topic.partitions().filter(|(_, p)| concerns(p)) {
                let terms = *terms.get_or_insert_with(|| self.terms(topic));
                let mut change = PartitionChange::new(partition, terms);
                change.isr.retain(|member| cause.gone() != Some(*member));
                if let Cause::UncleanlyStopped(broker) = cause {
                    change.unclean_shutdown = Some(broker);
                }
                let record = self.build(topic.id, index, change, cause);
                records.extend(record.map(MetadataRecord::from));
            }
        }
    }

    /// Whether a broker leads anything.
    pub(super) fn has_leaderships(&self, broker: BrokerId) -> bool {
        self.image
            .topics
            .iter_by_id()
            .any(|topic| topic.partitions().any(|(_, p)| p.leader == broker))
    }

    /// The record of a change, with leaders as the state and `cause` allow them.
    pub(super) fn build(
        &self,
        topic_id: Uuid,
        index: PartitionIndex,
        change: PartitionChange<'_>,
        cause: Cause,
    ) -> Option<PartitionChangeRecord> {
        let directories = change.directories.clone();
        let can_lead = |broker: BrokerId| {
            let directory = directories.get(&broker);
            directory.is_some_and(|directory| self.can_lead(broker, *directory, cause))
        };
        let default_directory = |broker: BrokerId| {
            let broker = self.image.cluster.broker(broker);
            broker.map_or(directory_id::UNASSIGNED, |broker| {
                broker.default_directory()
            })
        };
        change.build(topic_id, index, &can_lead, &default_directory)
    }

    fn can_lead(&self, broker: BrokerId, directory: Uuid, cause: Cause) -> bool {
        let is_up = match cause {
            _ if cause.gone() == Some(broker) => false,
            Cause::Added(new) if new == broker => true,
            _ => self.image.cluster.is_active(broker),
        };
        let is_unknown = [directory_id::MIGRATING, directory_id::UNASSIGNED].contains(&directory);
        let is_online = |broker| {
            let broker = self.image.cluster.broker(broker);
            broker.is_some_and(|broker| is_unknown || broker.is_directory_online(directory))
        };
        is_up && is_online(broker)
    }

    pub(super) fn terms(&self, topic: &TopicImage) -> Terms {
        let has_elr = self.image.features.is_elr_enabled();
        Terms {
            version: self.image.metadata_version(),
            has_elr,
            min_isr: if has_elr { self.min_isr(topic) } else { 1 },
            unclean: self.is_unclean_allowed(topic),
        }
    }

    pub(super) fn is_unclean_allowed(&self, topic: &TopicImage) -> bool {
        let value = self.effective_config(topic, UNCLEAN_LEADER_ELECTION);
        value.is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// How many must be in sync, capped by the replicas of the topic's first partition.
    fn min_isr(&self, topic: &TopicImage) -> usize {
        let value = self.effective_config(topic, MIN_INSYNC_REPLICAS);
        let configured = value.and_then(|value| value.trim().parse().ok());
        configured.unwrap_or(1).min(topic.replication_factor())
    }

    fn effective_config(&self, topic: &TopicImage, key: &str) -> Option<String> {
        static EMPTY: ConfigEntries = ConfigEntries::new();
        let configs = &self.image.configs;
        let entries = configs.get(ConfigResourceType::TOPIC, &topic.name);
        let layers = self.topic_layers(entries.map_or(&EMPTY, |entries| entries));
        self.rules.effective_topic_config(key, &layers)
    }
}
