//! Distinct types for the numbers that must never be mixed up. They are converted at the
//! edge (wire, files); inside, an offset can't be passed where an epoch is wanted.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$int> for $name {
            fn from(value: $int) -> Self {
                Self(value)
            }
        }
    };
}

id!(
    /// Position of a record in a partition's log, counted from 0. Negative values are
    /// Kafka's sentinels (-1 unknown).
    Offset(i64)
);
id!(
    /// Term of a partition's leader, from 0; -1 where unknown.
    LeaderEpoch(i32)
);
id!(
    /// A node's id (`node.id`), from 0; -1 where there is none.
    BrokerId(i32)
);
id!(
    /// Index of a partition within its topic, from 0.
    PartitionIndex(i32)
);
id!(
    /// An idempotent producer's id; -1 where there is none.
    ProducerId(i64)
);
id!(
    /// Generation of a producer under one id; -1 where there is none.
    ProducerEpoch(i16)
);
id!(
    /// Index of an event loop within this process, from 0. The controller's loop has the
    /// index after the last data core.
    CoreId(u16)
);

impl Offset {
    pub const UNKNOWN: Offset = Offset(-1);
}

impl LeaderEpoch {
    pub const UNKNOWN: LeaderEpoch = LeaderEpoch(-1);
}

impl BrokerId {
    pub const NONE: BrokerId = BrokerId(-1);
}

impl ProducerId {
    pub const NONE: ProducerId = ProducerId(-1);
}

impl CoreId {
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl Add<i64> for Offset {
    type Output = Offset;
    fn add(self, rhs: i64) -> Offset {
        Offset(self.0 + rhs)
    }
}

impl AddAssign<i64> for Offset {
    fn add_assign(&mut self, rhs: i64) {
        self.0 += rhs;
    }
}

impl Sub for Offset {
    type Output = i64;
    fn sub(self, rhs: Offset) -> i64 {
        self.0 - rhs.0
    }
}

/// A partition by its topic's id: the key under which cores own partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicIdPartition {
    pub topic_id: super::Uuid,
    pub partition: PartitionIndex,
}
