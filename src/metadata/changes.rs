//! What differs between two images: what each core needs to know to create, delete and
//! update its partitions, and which configs to read anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::delta::Touched;
use super::image::{ConfigResourceType, MetadataImage};
use super::topics::{PartitionImage, TopicImage};
use crate::base::{BrokerId, Offset, PartitionIndex};

/// The difference between two images, the new one of which is published along with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageChanges {
    /// Last offset in the old image.
    pub from: Offset,
    /// Last offset in the new one.
    pub to: Offset,
    /// As they are now.
    pub topics_created: Vec<Arc<TopicImage>>,
    /// As they were.
    pub topics_deleted: Vec<Arc<TopicImage>>,
    /// New and changed partitions, of new and of older topics.
    pub partitions: Vec<PartitionDelta>,
    /// Resources whose configs a record named; those of deleted topics too.
    pub configs: BTreeSet<(ConfigResourceType, String)>,
    /// Brokers registered, changed or gone.
    pub brokers: BTreeSet<BrokerId>,
    pub controllers: BTreeSet<BrokerId>,
    pub features: bool,
    pub client_quotas: bool,
    pub producer_ids: bool,
    pub acls: bool,
    pub scram: bool,
    pub delegation_tokens: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PartitionDelta {
    /// As it is now.
    pub topic: Arc<TopicImage>,
    pub index: PartitionIndex,
    /// `None` for a new partition.
    pub old: Option<Arc<PartitionImage>>,
    pub new: Arc<PartitionImage>,
}

/// What one broker has to do (Kafka's `LocalReplicaChanges`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LocalReplicaChanges {
    /// Replicas that are no longer this broker's.
    pub deletes: Vec<(Arc<TopicImage>, PartitionIndex)>,
    /// Partitions that it leads.
    pub leaders: Vec<LocalReplica>,
    /// Partitions that it has a replica of and doesn't lead (perhaps nobody does).
    pub followers: Vec<LocalReplica>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LocalReplica {
    pub topic: Arc<TopicImage>,
    pub index: PartitionIndex,
    pub partition: Arc<PartitionImage>,
    /// Whether a new term began, or the replica is new here.
    pub is_new_leader_epoch: bool,
}

impl ImageChanges {
    /// The change from nothing to `image`: the first publication on a node.
    pub fn everything(image: &MetadataImage) -> ImageChanges {
        let touched = Touched::all_of(image);
        ImageChanges::between(&MetadataImage::default(), image, &touched)
    }

    pub(super) fn between(
        old: &MetadataImage,
        new: &MetadataImage,
        touched: &Touched,
    ) -> ImageChanges {
        let mut changes = ImageChanges {
            from: old.provenance.offset,
            to: new.provenance.offset,
            configs: touched.configs.clone(),
            brokers: touched.brokers.clone(),
            controllers: touched.controllers.clone(),
            features: old.features != new.features,
            client_quotas: old.client_quotas != new.client_quotas,
            producer_ids: old.next_producer_id != new.next_producer_id,
            acls: old.acls != new.acls,
            scram: old.scram != new.scram,
            delegation_tokens: old.delegation_tokens != new.delegation_tokens,
            ..Default::default()
        };
        for id in &touched.topics {
            match (old.topics.by_id(*id), new.topics.by_id(*id)) {
                (None, Some(topic)) => changes.topics_created.push(Arc::clone(topic)),
                (Some(topic), None) => changes.topics_deleted.push(Arc::clone(topic)),
                // Changed, or came and went within the delta.
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        for (id, index) in &touched.partitions {
            let Some(topic) = new.topics.by_id(*id) else {
                continue;
            };
            let partition = topic
                .partition(*index)
                .expect("a partition goes only with its topic");
            let before = old
                .topics
                .by_id(*id)
                .and_then(|topic| topic.partition(*index));
            if before != Some(partition) {
                changes.partitions.push(PartitionDelta {
                    topic: Arc::clone(topic),
                    index: *index,
                    old: before.cloned(),
                    new: Arc::clone(partition),
                });
            }
        }
        changes
    }

    pub fn is_empty(&self) -> bool {
        *self
            == ImageChanges {
                from: self.from,
                to: self.to,
                ..Default::default()
            }
    }

    /// What broker `me` has to do. A partition appears as leader or follower when it is new
    /// here or its partition epoch changed.
    pub fn local_replicas(&self, me: BrokerId) -> LocalReplicaChanges {
        let mut local = LocalReplicaChanges::default();
        for topic in &self.topics_deleted {
            let mine = topic.partitions().filter(|(_, p)| p.is_replica(me));
            local
                .deletes
                .extend(mine.map(|(index, _)| (Arc::clone(topic), index)));
        }
        for change in &self.partitions {
            let was_mine = change.old.as_ref().filter(|old| old.is_replica(me));
            if !change.new.is_replica(me) {
                if was_mine.is_some() {
                    local
                        .deletes
                        .push((Arc::clone(&change.topic), change.index));
                }
                continue;
            }
            let replica = LocalReplica {
                topic: Arc::clone(&change.topic),
                index: change.index,
                partition: Arc::clone(&change.new),
                is_new_leader_epoch: was_mine
                    .is_none_or(|old| old.leader_epoch != change.new.leader_epoch),
            };
            if change.new.leader == me {
                local.leaders.push(replica);
            } else {
                local.followers.push(replica);
            }
        }
        local
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MetadataDelta, MetadataRecord, Provenance};
    use super::*;
    use crate::base::Uuid;
    use crate::wire::messages::{
        ConfigRecord, PartitionChangeRecord, PartitionRecord, RemoveTopicRecord, TopicRecord,
    };

    fn topic(name: &str, id: u8) -> MetadataRecord {
        TopicRecord {
            name: name.to_owned(),
            topic_id: Uuid([id; 16]),
        }
        .into()
    }

    fn partition(id: u8, index: i32, replicas: &[i32]) -> MetadataRecord {
        PartitionRecord {
            partition_id: index,
            topic_id: Uuid([id; 16]),
            replicas: replicas.to_vec(),
            isr: replicas.to_vec(),
            leader: replicas[0],
            leader_epoch: 0,
            partition_epoch: 0,
            ..Default::default()
        }
        .into()
    }

    fn change(id: u8, change: PartitionChangeRecord) -> MetadataRecord {
        PartitionChangeRecord {
            partition_id: 0,
            topic_id: Uuid([id; 16]),
            ..change
        }
        .into()
    }

    fn remove(id: u8) -> MetadataRecord {
        RemoveTopicRecord {
            topic_id: Uuid([id; 16]),
        }
        .into()
    }

    fn config(name: &str) -> MetadataRecord {
        ConfigRecord {
            resource_type: ConfigResourceType::TOPIC.0,
            resource_name: name.to_owned(),
            name: "retention.ms".to_owned(),
            value: Some("1".to_owned()),
        }
        .into()
    }

    fn next(image: &MetadataImage, records: &[MetadataRecord]) -> (MetadataImage, ImageChanges) {
        let mut delta = MetadataDelta::new(image);
        records
            .iter()
            .for_each(|record| delta.replay(record).unwrap());
        delta.apply(Provenance {
            offset: image.provenance.offset + records.len() as i64,
            epoch: 1,
            timestamp_ms: 1,
        })
    }

    /// (leaders, followers, deletes) of a broker as (topic, partition).
    fn local(changes: &ImageChanges, me: i32) -> [Vec<(String, i32)>; 3] {
        let local = changes.local_replicas(BrokerId(me));
        let names = |replicas: &[LocalReplica]| {
            let name = |r: &LocalReplica| (r.topic.name.to_string(), r.index.0);
            replicas.iter().map(name).collect()
        };
        let deletes = local.deletes.iter();
        [
            names(&local.leaders),
            names(&local.followers),
            deletes
                .map(|(topic, index)| (topic.name.to_string(), index.0))
                .collect(),
        ]
    }

    #[test]
    fn brokers_learn_what_is_theirs() {
        let (image, changes) = next(
            &MetadataImage::default(),
            &[
                topic("a", 1),
                partition(1, 0, &[1, 2]),
                partition(1, 1, &[2, 3]),
            ],
        );
        assert_eq!(changes.topics_created.len(), 1);
        let a = |index| ("a".to_owned(), index);
        assert_eq!(local(&changes, 1), [vec![a(0)], vec![], vec![]]);
        assert_eq!(local(&changes, 2), [vec![a(1)], vec![a(0)], vec![]]);
        assert_eq!(local(&changes, 4), [vec![], vec![], vec![]]);

        // The leader moves; only that partition changes.
        let moved = PartitionChangeRecord {
            leader: 2,
            ..Default::default()
        };
        let (image, changes) = next(&image, &[change(1, moved)]);
        assert!(changes.topics_created.is_empty());
        assert_eq!(local(&changes, 1), [vec![], vec![a(0)], vec![]]);
        assert_eq!(local(&changes, 2), [vec![a(0)], vec![], vec![]]);
        assert_eq!(local(&changes, 3), [vec![], vec![], vec![]]);
        let replica = &changes.local_replicas(BrokerId(2)).leaders[0];
        assert!(replica.is_new_leader_epoch);

        // A smaller ISR is no new term.
        let shrunk = PartitionChangeRecord {
            isr: Some(vec![2]),
            ..Default::default()
        };
        let (image, changes) = next(&image, &[change(1, shrunk)]);
        let replica = &changes.local_replicas(BrokerId(2)).leaders[0];
        assert!(!replica.is_new_leader_epoch);

        // A replica goes.
        let reassigned = PartitionChangeRecord {
            replicas: Some(vec![2, 3]),
            directories: Some(vec![Uuid([2; 16]), Uuid([3; 16])]),
            ..Default::default()
        };
        let (image, changes) = next(&image, &[change(1, reassigned)]);
        assert_eq!(local(&changes, 1), [vec![], vec![], vec![a(0)]]);
        assert_eq!(local(&changes, 3), [vec![], vec![a(0)], vec![]]);
        let replica = &changes.local_replicas(BrokerId(3)).followers[0];
        assert!(replica.is_new_leader_epoch, "the replica is new there");

        let (_, changes) = next(&image, &[remove(1)]);
        assert_eq!(changes.topics_deleted.len(), 1);
        assert_eq!(local(&changes, 3), [vec![], vec![], vec![a(0), a(1)]]);
    }

    #[test]
    fn a_topic_of_the_same_name_is_another() {
        let (image, _) = next(
            &MetadataImage::default(),
            &[topic("a", 1), config("a"), partition(1, 0, &[1])],
        );
        let again = [remove(1), topic("a", 2), partition(2, 0, &[1])];
        let (image, changes) = next(&image, &again);
        assert_eq!(changes.topics_deleted[0].id, Uuid([1; 16]));
        assert_eq!(changes.topics_created[0].id, Uuid([2; 16]));
        assert_eq!(image.topics.by_name("a").unwrap().id, Uuid([2; 16]));
        assert!(image.configs.get(ConfigResourceType::TOPIC, "a").is_none());
        let key = (ConfigResourceType::TOPIC, "a".to_owned());
        assert!(changes.configs.contains(&key));
    }

    #[test]
    fn what_comes_and_goes_within_a_delta_leaves_nothing() {
        let records = [topic("a", 1), partition(1, 0, &[1]), remove(1)];
        let (image, changes) = next(&MetadataImage::default(), &records);
        assert!(changes.is_empty());
        assert!(image.topics.is_empty());
    }
}
