//! Layer 2: the metadata log's records, and the image that they add up to. One engine of
//! image and delta serves the controller, every core of a broker, and the tests.
//!
//! ```text
//!   log bytes ─ record ─▶ MetadataRecord ─ loader (transactions) ─▶ MetadataDelta ─▶ MetadataImage
//!                                                                                  └▶ ImageChanges
//!   MetadataImage ─ snapshot ─▶ records in Kafka's order ─▶ .checkpoint bytes, and back
//! ```
//!
//! Called by: `controller` (decides on an image), `node` (replays committed batches and
//! publishes), `shard` and `api` (read the image that their core holds), `cli` (format,
//! dump). Pure: no files, no clock.
//!
//! Invariants: state changes only by replaying a record; an image that was given out never
//! changes.

pub mod acls;
pub mod bootstrap;
pub mod changes;
pub mod delta;
pub mod image;
pub mod loader;
pub mod record;
pub mod snapshot;
pub mod topics;
pub mod version;

pub use crate::base::sorted_map::{self, SortedMap};
pub use acls::AclsImage;
pub use changes::{ImageChanges, LocalReplica, LocalReplicaChanges, PartitionDelta};
pub use delta::{MetadataDelta, ReplayError};
pub use image::{
    BrokerImage, ClusterImage, ConfigEntries, ConfigResourceType, ConfigsImage, ControllerImage,
    FeaturesImage, Listener, MetadataImage, Provenance, QuotaEntity, SupportedRanges,
};
pub use loader::{BatchOrigin, MetadataLoader};
pub use record::{MetadataRecord, RecordError};
pub use topics::{PartitionImage, TopicImage, TopicsImage};
pub use version::{MetadataVersion, supported_features};
