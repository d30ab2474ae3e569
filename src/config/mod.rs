//! Layer 1: configuration. One table declares every property ([`table`]); from it come
//! the node's typed settings ([`NodeConfig`], read once), a topic's ([`TopicConfig`],
//! read whenever a layer changes), what DescribeConfigs answers ([`describe`]), what
//! AlterConfigs may set ([`alter`]), and docs/CONFIG.md ([`docs`]).
//!
//! Called by `cli` at start, by `controller` when configs are changed, by `shard` and
//! `api` when the image changes. Nothing here is owned by a core: all values are
//! immutable. [`load`] alone touches the outside (it reads the file and the host name).

pub mod alter;
pub mod describe;
pub mod docs;
mod effect;
mod layers;
mod listeners;
pub mod load;
mod node;
pub mod properties;
pub mod table;
mod topic;
pub mod value;

pub use layers::{ConfigMap, Layers, Source};
pub use listeners::{Listener, Listeners, SecurityProtocol};
pub use load::{ConfigError, Loaded, load};
pub use node::{
    AuthorizerConfig, Cores, Durability, DynamicConfig, FetchConfig, FetchPath,
    GroupCoordinatorConfig, ListenerLimitsConfig, LogManagerConfig, MetadataConfig, NetworkConfig,
    NodeConfig, QueuedBytes, ReplicationConfig, Roles, RuntimeConfig, SpinMode, TopicDefaults,
    TransactionConfig, Voter,
};
pub use topic::{CleanupPolicy, Compression, TimestampType, TopicConfig};
