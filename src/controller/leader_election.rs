//! Who leads a partition and who is in its ISR when brokers come and go
//! (`ReplicationControlManager.generateLeaderAndIsrUpdates`, `PartitionChangeBuilder`),
//! for clusters where eligible leader replicas (KIP-966) are not finalized: an ISR never
//! becomes empty, its last member stays in it while the partition has no leader.

use crate::base::{BrokerId, PartitionIndex, Uuid};
use crate::metadata::image::directory_id;
use crate::metadata::topics::{NO_LEADER_CHANGE, numbers};
use crate::metadata::{
    ConfigEntries, ConfigResourceType, MetadataRecord, PartitionImage, TopicImage,
};
use crate::wire::messages::PartitionChangeRecord;

use super::Controller;

const UNCLEAN_LEADER_ELECTION: &str = "unclean.leader.election.enable";

/// Why partitions are looked at anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The broker can't lead or be in sync any more: fenced, shutting down, replaced.
    Removed(BrokerId),
    /// The broker can lead again, though the state still shows it fenced.
    Added(BrokerId),
    /// A replica is in another directory.
    Moved,
}

impl Controller {
    /// Appends the changes that follow for all partitions concerned.
    pub(super) fn update_leaders(&self, cause: Cause, records: &mut Vec<MetadataRecord>) {
        self.update_leaders_of(cause, records, |partition| match cause {
            Cause::Removed(broker) => partition.isr.contains(&broker),
            Cause::Added(_) | Cause::Moved => !partition.has_leader(),
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
            let mut unclean = None;
            for (index, partition) in topic.partitions().filter(|(_, p)| concerns(p)) {
                let unclean = *unclean.get_or_insert_with(|| self.is_unclean_allowed(topic));
                let change = self.partition_change(topic.id, index, partition, cause, unclean);
                records.extend(change.map(MetadataRecord::from));
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

    pub(super) fn partition_change(
        &self,
        topic_id: Uuid,
        index: PartitionIndex,
        partition: &PartitionImage,
        cause: Cause,
        unclean: bool,
    ) -> Option<PartitionChangeRecord> {
        let mut isr = partition.isr.clone();
        if let Cause::Removed(broker) = cause {
            isr.retain(|member| *member != broker);
        }
        let mut record = PartitionChangeRecord {
            topic_id,
            partition_id: index.0,
            ..Default::default()
        };
        let (leader, is_unclean) = self.elect(partition, &isr, cause, unclean);
        if leader != partition.leader {
            record.leader = leader.0;
            if is_unclean {
                // Records that other replicas have may be lost: they must follow the
                // winner anew before they count again.
                record.isr = Some(vec![leader.0]);
                record.leader_recovery_state = if partition.recovering { -1 } else { 1 };
            }
        }
        if record.isr.is_none() && !isr.is_empty() && isr != partition.isr {
            record.isr = Some(numbers(&isr));
        }
        (record.leader != NO_LEADER_CHANGE || record.isr.is_some()).then_some(record)
    }

    /// The leader, and whether it is an unclean choice.
    fn elect(
        &self,
        partition: &PartitionImage,
        isr: &[BrokerId],
        cause: Cause,
        unclean: bool,
    ) -> (BrokerId, bool) {
        let acceptable = |broker: BrokerId| self.can_lead(partition, broker, cause);
        let in_sync = |broker: &BrokerId| isr.contains(broker) && acceptable(*broker);
        if in_sync(&partition.leader) {
            return (partition.leader, false);
        }
        if let Some(leader) = partition.replicas.iter().copied().find(in_sync) {
            return (leader, false);
        }
        let any = partition.replicas.iter().copied().find(|b| acceptable(*b));
        match any {
            Some(leader) if unclean => (leader, true),
            _ => (BrokerId::NONE, false),
        }
    }

    fn can_lead(&self, partition: &PartitionImage, broker: BrokerId, cause: Cause) -> bool {
        let is_up = match cause {
            Cause::Removed(gone) if gone == broker => false,
            Cause::Added(new) if new == broker => true,
            _ => self.image.cluster.is_active(broker),
        };
        let Some(directory) = partition.directory_of(broker) else {
            return false;
        };
        let is_unknown = [directory_id::MIGRATING, directory_id::UNASSIGNED].contains(&directory);
        is_up
            && self
                .image
                .cluster
                .broker(broker)
                .is_some_and(|broker| is_unknown || broker.is_directory_online(directory))
    }

    pub(super) fn is_unclean_allowed(&self, topic: &TopicImage) -> bool {
        static EMPTY: ConfigEntries = ConfigEntries::new();
        let entries = self
            .image
            .configs
            .get(ConfigResourceType::TOPIC, &topic.name);
        let layers = self.topic_layers(entries.map_or(&EMPTY, |entries| entries));
        let value = self
            .rules
            .effective_topic_config(UNCLEAN_LEADER_ELECTION, &layers);
        value.is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}
