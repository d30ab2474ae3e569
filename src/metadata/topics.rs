//! Topics and partitions in the metadata image, and how partition records read and change
//! them. A partition's registration is shared between images until a record changes it.

use std::sync::Arc;

use super::image::directory_id;
use super::sorted_map::SortedMap;
use super::version::MetadataVersion;
use crate::base::{BrokerId, LeaderEpoch, PartitionIndex, Uuid};
use crate::wire::messages::{PartitionChangeRecord, PartitionRecord};

/// All topics, by name and by id.
///
/// Invariant: both maps hold the same topics; names and ids are unique.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopicsImage {
    by_name: SortedMap<Arc<str>, Arc<TopicImage>>,
    by_id: SortedMap<Uuid, Arc<TopicImage>>,
}

impl TopicsImage {
    pub fn by_name(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.by_name.get(name)
    }

    pub fn by_id(&self, id: Uuid) -> Option<&Arc<TopicImage>> {
        self.by_id.get(&id)
    }

    /// A partition by its topic's name.
    pub fn partition(&self, name: &str, index: PartitionIndex) -> Option<&Arc<PartitionImage>> {
        self.by_name(name)?.partition(index)
    }

    /// All topics in ascending order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.by_name.values()
    }

    /// Topics in ascending order from the first name that is not below `name`.
    pub fn from_name<'a>(
        &'a self,
        name: &str,
    ) -> impl Iterator<Item = &'a Arc<TopicImage>> + use<'a> {
        self.by_name.range_from(name).map(|(_, topic)| topic)
    }

    /// All topics in ascending order of their ids.
    pub fn iter_by_id(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.by_id.values()
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn put(&mut self, topic: Arc<TopicImage>) {
        self.by_name
            .insert(Arc::clone(&topic.name), Arc::clone(&topic));
        self.by_id.insert(topic.id, topic);
    }

    pub(super) fn remove(&mut self, id: Uuid) -> Option<Arc<TopicImage>> {
        let topic = self.by_id.remove(&id)?;
        self.by_name.remove(&topic.name);
        Some(topic)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct TopicImage {
    pub name: Arc<str>,
    pub id: Uuid,
    pub(super) partitions: SortedMap<PartitionIndex, Arc<PartitionImage>>,
}

impl TopicImage {
    pub(super) fn new(name: Arc<str>, id: Uuid) -> TopicImage {
        TopicImage {
            name,
            id,
            partitions: SortedMap::default(),
        }
    }

    pub fn partition(&self, index: PartitionIndex) -> Option<&Arc<PartitionImage>> {
        self.partitions.get(&index)
    }

    /// Partitions in ascending order of their index.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionIndex, &Arc<PartitionImage>)> {
        self.partitions
            .iter()
            .map(|(index, partition)| (*index, partition))
    }

    /// Partitions from index `first` on.
    pub fn partitions_from(
        &self,
        first: PartitionIndex,
    ) -> impl Iterator<Item = (PartitionIndex, &Arc<PartitionImage>)> {
        self.partitions
            .range_from(&first)
            .map(|(index, partition)| (*index, partition))
    }

    pub fn partition_count(&self) -> usize {
        self.partitions.len()
    }

    /// Replicas of the first partition, which new partitions follow; 0 without partitions.
    pub fn replication_factor(&self) -> usize {
        self.partitions
            .values()
            .next()
            .map_or(0, |partition| partition.replicas.len())
    }
}

/// One partition's registration.
///
/// Invariant: `directories` is parallel to `replicas`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionImage {
    /// In order of preference: the first is the preferred leader.
    pub replicas: Vec<BrokerId>,
    /// Log directory of each replica.
    pub directories: Vec<Uuid>,
    pub isr: Vec<BrokerId>,
    /// Replicas that a running reassignment takes away.
    pub removing: Vec<BrokerId>,
    /// Replicas that a running reassignment adds.
    pub adding: Vec<BrokerId>,
    /// Eligible leader replicas (KIP-966).
    pub elr: Vec<BrokerId>,
    pub last_known_elr: Vec<BrokerId>,
    /// [`BrokerId::NONE`] while there is none.
    pub leader: BrokerId,
    /// +1 with every record that names a leader, even the same one.
    pub leader_epoch: LeaderEpoch,
    /// +1 with every PartitionChange record.
    pub partition_epoch: i32,
    /// After an unclean election, until the leader has said that it recovered.
    pub recovering: bool,
}

/// A partition record that can't be right.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{replicas} replicas but {directories} directories")]
pub struct DirectoriesMismatch {
    pub replicas: usize,
    pub directories: usize,
}

impl PartitionImage {
    pub fn from_record(record: &PartitionRecord) -> Result<PartitionImage, DirectoriesMismatch> {
        let replicas = brokers(&record.replicas);
        Ok(PartitionImage {
            directories: directories(&record.directories, replicas.len())?,
            isr: brokers(&record.isr),
            removing: brokers(&record.removing_replicas),
            adding: brokers(&record.adding_replicas),
            elr: brokers(
                record
                    .eligible_leader_replicas
                    .as_deref()
                    .unwrap_or_default(),
            ),
            last_known_elr: brokers(record.last_known_elr.as_deref().unwrap_or_default()),
            leader: BrokerId(record.leader),
            leader_epoch: LeaderEpoch(record.leader_epoch),
            partition_epoch: record.partition_epoch,
            recovering: record.leader_recovery_state == RECOVERING,
            replicas,
        })
    }

    /// The registration after a change: what the record leaves out stays.
    pub fn merge(
        &self,
        record: &PartitionChangeRecord,
    ) -> Result<PartitionImage, DirectoriesMismatch> {
        let merge = |new: &Option<Vec<i32>>, old: &Vec<BrokerId>| {
            new.as_ref().map_or_else(|| old.clone(), |new| brokers(new))
        };
        let replicas = merge(&record.replicas, &self.replicas);
        let new_directories = record.directories.as_ref().unwrap_or(&self.directories);
        let has_leader_change = record.leader != NO_LEADER_CHANGE;
        Ok(PartitionImage {
            directories: directories(new_directories, replicas.len())?,
            isr: merge(&record.isr, &self.isr),
            removing: merge(&record.removing_replicas, &self.removing),
            adding: merge(&record.adding_replicas, &self.adding),
            elr: merge(&record.eligible_leader_replicas, &self.elr),
            last_known_elr: merge(&record.last_known_elr, &self.last_known_elr),
            leader: if has_leader_change {
                BrokerId(record.leader)
            } else {
                self.leader
            },
            leader_epoch: LeaderEpoch(self.leader_epoch.0 + i32::from(has_leader_change)),
            partition_epoch: self.partition_epoch + 1,
            recovering: match record.leader_recovery_state {
                NO_RECOVERY_CHANGE => self.recovering,
                state => state == RECOVERING,
            },
            replicas,
        })
    }

    /// The record that sets this registration, with the fields that `version` knows.
    pub fn to_record(
        &self,
        topic_id: Uuid,
        index: PartitionIndex,
        version: MetadataVersion,
    ) -> PartitionRecord {
        // Tagged and left out when empty, to save space.
        let elr = |members: &[BrokerId]| {
            (version.has_elr() && !members.is_empty()).then(|| numbers(members))
        };
        PartitionRecord {
            partition_id: index.0,
            topic_id,
            replicas: numbers(&self.replicas),
            isr: numbers(&self.isr),
            removing_replicas: numbers(&self.removing),
            adding_replicas: numbers(&self.adding),
            leader: self.leader.0,
            leader_recovery_state: if self.recovering { RECOVERING } else { 0 },
            leader_epoch: self.leader_epoch.0,
            partition_epoch: self.partition_epoch,
            directories: if version.has_directories() {
                self.directories.clone()
            } else {
                Vec::new()
            },
            eligible_leader_replicas: elr(&self.elr),
            last_known_elr: elr(&self.last_known_elr),
        }
    }

    pub fn has_leader(&self) -> bool {
        self.leader != BrokerId::NONE
    }

    pub fn preferred_replica(&self) -> BrokerId {
        self.replicas.first().copied().unwrap_or(BrokerId::NONE)
    }

    pub fn is_replica(&self, broker: BrokerId) -> bool {
        self.replicas.contains(&broker)
    }

    /// Directory of a replica; `None` where the broker is no replica.
    pub fn directory_of(&self, broker: BrokerId) -> Option<Uuid> {
        let index = self.replicas.iter().position(|id| *id == broker)?;
        self.directories.get(index).copied()
    }
}

/// "Unchanged" in a PartitionChange record's leader.
pub const NO_LEADER_CHANGE: i32 = -2;
const NO_RECOVERY_CHANGE: i8 = -1;
const RECOVERING: i8 = 1;

pub fn brokers(numbers: &[i32]) -> Vec<BrokerId> {
    numbers.iter().copied().map(BrokerId).collect()
}

pub fn numbers(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|broker| broker.0).collect()
}

/// Absent directories, or none but MIGRATING ones, stand for "not known" of each replica
/// (replicas that change before directories are known keep the lists parallel that way).
fn directories(recorded: &[Uuid], replicas: usize) -> Result<Vec<Uuid>, DirectoriesMismatch> {
    if recorded.iter().all(|dir| *dir == directory_id::MIGRATING) {
        return Ok(vec![directory_id::MIGRATING; replicas]);
    }
    if recorded.len() != replicas {
        return Err(DirectoriesMismatch {
            replicas,
            directories: recorded.len(),
        });
    }
    Ok(recorded.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition() -> PartitionImage {
        PartitionImage {
            replicas: vec![BrokerId(1), BrokerId(2)],
            directories: vec![Uuid([7; 16]), Uuid([8; 16])],
            isr: vec![BrokerId(1)],
            removing: vec![],
            adding: vec![],
            elr: vec![],
            last_known_elr: vec![],
            leader: BrokerId(1),
            leader_epoch: LeaderEpoch(3),
            partition_epoch: 5,
            recovering: false,
        }
    }

    #[test]
    fn record_round_trip() {
        let mut before = partition();
        before.elr = vec![BrokerId(2)];
        let record = before.to_record(Uuid([1; 16]), PartitionIndex(0), MetadataVersion::LATEST);
        assert_eq!(PartitionImage::from_record(&record), Ok(before));
    }

    #[test]
    fn epochs_grow_as_the_record_says() {
        let change = PartitionChangeRecord {
            isr: Some(vec![1, 2]),
            ..Default::default()
        };
        let after = partition().merge(&change).unwrap();
        assert_eq!(after.isr, [BrokerId(1), BrokerId(2)]);
        assert_eq!(after.leader_epoch, LeaderEpoch(3));
        assert_eq!(after.partition_epoch, 6);
        let elect = PartitionChangeRecord {
            leader: 1,
            leader_recovery_state: 1,
            ..Default::default()
        };
        let after = after.merge(&elect).unwrap();
        assert_eq!(after.leader_epoch, LeaderEpoch(4));
        assert_eq!(after.partition_epoch, 7);
        assert!(after.recovering);
        let none = PartitionChangeRecord {
            leader: -1,
            ..Default::default()
        };
        let after = after.merge(&none).unwrap();
        assert!(!after.has_leader() && after.recovering);
    }

    #[test]
    fn directories_stay_parallel_to_replicas() {
        let record = PartitionRecord {
            replicas: vec![1, 2],
            ..Default::default()
        };
        let image = PartitionImage::from_record(&record).unwrap();
        assert_eq!(image.directories, [directory_id::MIGRATING; 2]);
        assert_eq!(image.directory_of(BrokerId(2)), Some(Uuid::ZERO));
        assert_eq!(image.directory_of(BrokerId(3)), None);
        let change = PartitionChangeRecord {
            replicas: Some(vec![1]),
            ..Default::default()
        };
        assert!(partition().merge(&change).is_err());
    }
}
