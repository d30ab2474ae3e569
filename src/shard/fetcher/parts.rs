//! What crosses the mesh between the core that owns a follower and the core that asks its
//! leader.
//!
//! ```text
//!   owner ──── Follow ────▶ fetcher's core     a term began or ended, the disk has it
//!   owner ◀─── Fetched ──── fetcher's core     what the leader has answered
//!   owner ──(its reply)───▶ fetcher's core     what to ask next
//! ```
//! A `Follow` that ends following counts whatever the fetcher knows; everything else only if
//! its ticket is newer, since a reply may overtake a `Follow` that left before it.

use bytes::Bytes;

use crate::base::{BrokerId, CoreId, TopicIdPartition};
use crate::replica::follower::{Answer, Next, Ticket};

/// What one partition wants of its leader next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    pub partition: TopicIdPartition,
    pub ticket: Ticket,
    /// [`Next::Metadata`]: it isn't to be asked for any more.
    pub next: Next,
}

/// For the core of one fetcher, from one that owns partitions.
#[derive(Debug)]
pub struct FollowPart {
    pub fetcher: FetcherKey,
    pub owner: CoreId,
    pub partitions: Vec<Followed>,
}

/// One of the fetchers of a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FetcherKey {
    pub leader: BrokerId,
    /// Below `num.replica.fetchers`.
    pub number: u32,
}

/// For the core that owns these partitions.
#[derive(Debug, Default)]
pub struct FetchedPart {
    pub partitions: Vec<FetchedPartition>,
}

/// What the leader has answered for one partition.
#[derive(Debug)]
pub struct FetchedPartition {
    pub partition: TopicIdPartition,
    pub ticket: Ticket,
    pub answer: Answer,
    /// A slice of the response, as it came.
    pub records: Bytes,
}

impl FetcherKey {
    /// Which of a leader's fetchers asks for a partition. Those of one topic are spread.
    pub fn of(leader: BrokerId, partition: TopicIdPartition, fetchers: u32) -> FetcherKey {
        let topic = partition.topic_id.0.iter();
        let topic = topic.fold(0u32, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(u32::from(*byte))
        });
        let number = topic.wrapping_add(partition.partition.0.unsigned_abs());
        FetcherKey {
            leader,
            number: number % fetchers.max(1),
        }
    }

    /// The core that has the fetcher's connection.
    pub fn core(&self, cores: u16) -> CoreId {
        let spread = self.leader.0.unsigned_abs().wrapping_add(self.number);
        CoreId((spread % u32::from(cores.max(1))) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{PartitionIndex, Uuid};

    #[test]
    fn partitions_and_fetchers_are_spread() {
        let mut count = [0; 4];
        for index in 0..40 {
            let partition = TopicIdPartition {
                topic_id: Uuid([7; 16]),
                partition: PartitionIndex(index),
            };
            let key = FetcherKey::of(BrokerId(3), partition, 4);
            count[key.number as usize] += 1;
            assert!(key.core(2).0 < 2);
        }
        assert_eq!(count, [10; 4]);
        let core = |leader| {
            let number = 0;
            let leader = BrokerId(leader);
            FetcherKey { leader, number }.core(2)
        };
        assert_ne!(core(1), core(2));
    }
}
