//! What must hold after each event, and at the end.

use std::collections::BTreeMap;

use ottla::coordinator::Group;
use ottla::wire::messages::offset_fetch_request::OffsetFetchRequestGroup;

use crate::consumer::{PARTITIONS, State};
use crate::counts::Count;
use crate::model::{Committed, OffsetKey};
use crate::world::{GROUPS, World};

impl World {
    pub fn check(&mut self) {
        self.shard.invariants();
        let parked: usize = self
            .shard
            .groups()
            .filter_map(Group::as_classic)
            .flat_map(|group| group.members())
            .map(|m| usize::from(m.is_awaiting_join()) + usize::from(m.is_awaiting_sync()))
            .sum();
        assert_eq!(parked, self.waiters.len(), "parked requests");
        for stable in [false, true] {
            self.counts.hit(Count::OffsetRead);
            let read = self.read_all(stable);
            let expected = if stable {
                &self.model.latest_offsets
            } else {
                &self.model.committed_offsets
            };
            assert_eq!(read, *expected, "offsets read, stable: {stable}");
        }
        for (key, number) in &self.model.acknowledged {
            let committed = self.model.committed_offsets.get(key);
            assert!(
                committed.is_some_and(|committed| committed.1 >= *number),
                "{key:?}: acknowledged commit {number} is gone, there is {committed:?}"
            );
        }
    }

    fn read_all(&self, stable: bool) -> BTreeMap<OffsetKey, Committed> {
        let mut offsets = BTreeMap::new();
        for group in GROUPS {
            let request = OffsetFetchRequestGroup {
                group_id: group.into(),
                topics: None,
                ..OffsetFetchRequestGroup::default()
            };
            for topic in self.shard.fetch_offsets(&request, stable).topics {
                for partition in topic.partitions {
                    let number = partition.metadata.unwrap_or_default();
                    offsets.insert(
                        (group.into(), topic.name.clone(), partition.partition_index),
                        (
                            partition.committed_offset,
                            number.parse().expect("each commit is numbered"),
                        ),
                    );
                }
            }
        }
        offsets
    }

    /// Faults stop. Every member must get its share within two minutes.
    pub fn settle(&mut self) {
        self.faults = false;
        self.crash();
        for consumer in &mut self.consumers {
            if consumer.state == State::Dead {
                consumer.forget_id();
                consumer.owned.clear();
            }
            // A loaded group knows of each member only the protocol that was chosen, so that
            // one who offers another stays out until all have joined again.
            consumer.metadata_tag ^= 1;
            consumer.state = State::Out;
        }
        for round in 0..1_200 {
            self.now_ms += 100;
            self.run_timers();
            for index in 0..self.consumers.len() {
                match self.consumers[index].state {
                    State::Dead => {
                        self.consumers[index].forget_id();
                        self.consumers[index].state = State::Out;
                    }
                    State::Out => self.join(index),
                    State::Joined { .. } => self.sync(index),
                    State::Stable if round % 20 == 0 => self.heartbeat(index),
                    State::Joining(_) | State::Syncing(_) | State::Stable => {}
                }
                self.commit(self.model.end());
            }
            self.check();
        }
        for group in &GROUPS[..3] {
            let mut all = Vec::new();
            for consumer in self.consumers.iter().filter(|c| c.group == *group) {
                assert_eq!(
                    consumer.state,
                    State::Stable,
                    "{} at the end",
                    consumer.name
                );
                all.extend(consumer.owned.iter().copied());
            }
            all.sort_unstable();
            let expected: Vec<i32> = (0..PARTITIONS).collect();
            assert_eq!(all, expected, "partitions of {group} at the end");
        }
    }
}
