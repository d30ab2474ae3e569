//! Layer 0: the words that every other module uses. Distinct types for ids and offsets,
//! Kafka's error codes, uuids, time units, Java's string hash and a seeded random source.
//! Nothing here does I/O, reads a clock or allocates on the data path.

pub mod error_code;
pub mod hash;
pub mod ids;
pub mod rng;
pub mod sorted_map;
pub mod time;
pub mod uuid;

pub use error_code::ErrorCode;
pub use ids::{
    BrokerId, CoreId, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId,
    TopicIdPartition,
};
pub use rng::Rng;
pub use sorted_map::SortedMap;
pub use time::{Millis, Nanos};
pub use uuid::Uuid;
