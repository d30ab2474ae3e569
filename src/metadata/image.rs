//! The metadata image: everything that the metadata log says, at one offset, as one
//! immutable value. Cloning it is a handful of reference counts; every core holds one and
//! swaps it by message. Only [`MetadataDelta`](super::MetadataDelta) makes a new one.
//!
//! The parts that this code does not act on yet (quotas, credentials, tokens) are
//! carried in full: replaying and writing a snapshot loses nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::acls::AclsImage;
use super::sorted_map::SortedMap;
use super::topics::TopicsImage;
use super::version::{KRAFT_VERSION_FEATURE, METADATA_VERSION_FEATURE, MetadataVersion};
use crate::base::{BrokerId, Millis, Offset, Uuid};
use crate::wire::messages::{DelegationTokenRecord, UserScramCredentialRecord};

/// Up to where in the metadata log an image goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// Last record contained; [`Offset::UNKNOWN`] in an empty image.
    pub offset: Offset,
    /// Leader epoch of that record's batch.
    pub epoch: i32,
    /// Its batch's timestamp; -1 in an empty image.
    pub timestamp_ms: Millis,
}

impl Provenance {
    pub const EMPTY: Provenance = Provenance {
        offset: Offset::UNKNOWN,
        epoch: -1,
        timestamp_ms: -1,
    };
}

#[derive(Clone, Debug, PartialEq)]
pub struct MetadataImage {
    pub provenance: Provenance,
    pub features: Arc<FeaturesImage>,
    /// Finalized like a feature, but by control records of the log and not by FeatureLevel
    /// records; whoever reads the log sets it.
    pub kraft_version: i16,
    pub cluster: Arc<ClusterImage>,
    pub topics: TopicsImage,
    pub configs: ConfigsImage,
    /// Quotas by entity, then by key (`producer_byte_rate`, …).
    pub client_quotas: SortedMap<QuotaEntity, Arc<BTreeMap<String, f64>>>,
    /// First id that was never handed out; -1 before the first block.
    pub next_producer_id: i64,
    pub acls: AclsImage,
    /// By mechanism (1 SHA-256, 2 SHA-512) and user.
    pub scram: SortedMap<(i8, String), Arc<UserScramCredentialRecord>>,
    /// By token id.
    pub delegation_tokens: SortedMap<String, Arc<DelegationTokenRecord>>,
}

impl Default for MetadataImage {
    fn default() -> Self {
        MetadataImage {
            provenance: Provenance::EMPTY,
            features: Arc::default(),
            kraft_version: 0,
            cluster: Arc::default(),
            topics: TopicsImage::default(),
            configs: ConfigsImage::default(),
            client_quotas: SortedMap::default(),
            next_producer_id: -1,
            acls: AclsImage::default(),
            scram: SortedMap::default(),
            delegation_tokens: SortedMap::default(),
        }
    }
}

impl MetadataImage {
    /// The finalized `metadata.version`, or the oldest before there is one.
    pub fn metadata_version(&self) -> MetadataVersion {
        self.features
            .metadata_version
            .unwrap_or(MetadataVersion::MINIMUM)
    }

    /// Everything that is finalized above 0, as ApiVersions tells it.
    pub fn finalized_features(&self) -> impl Iterator<Item = (&str, i16)> {
        let kraft_version = (KRAFT_VERSION_FEATURE, self.kraft_version);
        let kraft_version = [kraft_version].into_iter().filter(|(_, level)| *level > 0);
        self.features.iter().chain(kraft_version)
    }

    /// Value of a config that stands on the resource itself.
    pub fn config(&self, kind: ConfigResourceType, name: &str, key: &str) -> Option<&str> {
        self.configs.get(kind, name)?.get(key).map(String::as_str)
    }
}

/// Finalized features. `kraft.version` is not among them: it stands in control records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeaturesImage {
    /// `None` before the first FeatureLevel record.
    pub metadata_version: Option<MetadataVersion>,
    /// All finalized levels other than `metadata.version`; none is 0.
    pub levels: BTreeMap<String, i16>,
}

impl FeaturesImage {
    /// Finalized level of any feature; 0 where absent.
    pub fn level(&self, name: &str) -> i16 {
        if name == METADATA_VERSION_FEATURE {
            return self.metadata_version.map_or(0, MetadataVersion::level);
        }
        self.levels.get(name).copied().unwrap_or(0)
    }

    /// Finalized features with their levels, `metadata.version` first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i16)> {
        self.metadata_version
            .map(|version| (METADATA_VERSION_FEATURE, version.level()))
            .into_iter()
            .chain(
                self.levels
                    .iter()
                    .map(|(name, level)| (name.as_str(), *level)),
            )
    }

    pub fn is_elr_enabled(&self) -> bool {
        self.level("eligible.leader.replicas.version") > 0
    }
}

/// Registered nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterImage {
    pub brokers: BTreeMap<BrokerId, Arc<BrokerImage>>,
    pub controllers: BTreeMap<BrokerId, Arc<ControllerImage>>,
}

impl ClusterImage {
    pub fn broker(&self, id: BrokerId) -> Option<&Arc<BrokerImage>> {
        self.brokers.get(&id)
    }

    /// Whether a broker may lead partitions and count in an ISR.
    pub fn is_active(&self, id: BrokerId) -> bool {
        self.broker(id).is_some_and(|broker| broker.is_active())
    }
}

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub name: String,
    pub host: String,
    pub port: u16,
    /// 0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL.
    pub protocol: i16,
}

/// Feature ranges that a node claims: lowest and highest level by name.
pub type SupportedRanges = BTreeMap<String, (i16, i16)>;

/// Reserved directory ids (KIP-858).
pub mod directory_id {
    use crate::base::Uuid;

    /// Not known yet: from before directories were recorded.
    pub const MIGRATING: Uuid = Uuid::ZERO;
    /// The broker chooses among its directories and reports.
    pub const UNASSIGNED: Uuid = Uuid::METADATA_TOPIC;
}

/// A broker's registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerImage {
    pub id: BrokerId,
    /// Offset of the record that registered this incarnation.
    pub epoch: i64,
    pub incarnation: Uuid,
    pub listeners: Vec<Listener>,
    pub features: SupportedRanges,
    pub rack: Option<String>,
    pub fenced: bool,
    pub in_controlled_shutdown: bool,
    pub is_migrating_zk: bool,
    /// Its online log directories.
    pub directories: Vec<Uuid>,
    /// Directories that take no new replicas; `None` where it never said.
    pub cordoned: Option<Vec<Uuid>>,
}

impl BrokerImage {
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }

    pub fn listener(&self, name: &str) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.name == name)
    }

    pub fn is_directory_online(&self, directory: Uuid) -> bool {
        self.directories.contains(&directory)
    }

    /// Whether a replica in that directory can be used, as far as is known: one that the
    /// broker hasn't assigned yet can, as in Kafka (`DirectoryId.isOnline`).
    pub fn may_be_online(&self, directory: Uuid) -> bool {
        [directory_id::MIGRATING, directory_id::UNASSIGNED].contains(&directory)
            || self.directories.is_empty()
            || self.is_directory_online(directory)
    }

    /// Whether every one of its directories is cordoned, so that it takes no new replicas.
    pub fn is_cordoned(&self) -> bool {
        self.cordoned.as_ref().is_some_and(|cordoned| {
            !self.directories.is_empty()
                && self.directories.iter().all(|dir| cordoned.contains(dir))
        })
    }

    /// Directory that a new replica on this broker is assigned to (KIP-858): the only one
    /// it has, else UNASSIGNED until the broker reports where it put the replica.
    pub fn default_directory(&self) -> Uuid {
        match self.directories[..] {
            [] => directory_id::MIGRATING,
            [only] => only,
            _ => directory_id::UNASSIGNED,
        }
    }
}

/// A controller's registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerImage {
    pub id: BrokerId,
    pub incarnation: Uuid,
    pub zk_migration_ready: bool,
    pub listeners: Vec<Listener>,
    pub features: SupportedRanges,
}

/// `ConfigResource.Type` of the Kafka protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigResourceType(pub i8);

impl ConfigResourceType {
    pub const UNKNOWN: ConfigResourceType = ConfigResourceType(0);
    pub const TOPIC: ConfigResourceType = ConfigResourceType(2);
    pub const BROKER: ConfigResourceType = ConfigResourceType(4);
    pub const BROKER_LOGGER: ConfigResourceType = ConfigResourceType(8);
    pub const CLIENT_METRICS: ConfigResourceType = ConfigResourceType(16);
    pub const GROUP: ConfigResourceType = ConfigResourceType(32);

    pub fn is_known(self) -> bool {
        matches!(
            self,
            Self::TOPIC | Self::BROKER | Self::BROKER_LOGGER | Self::CLIENT_METRICS | Self::GROUP
        )
    }

    /// Kafka's name of the type in error texts.
    pub fn name(self) -> &'static str {
        match self {
            Self::TOPIC => "TOPIC",
            Self::BROKER => "BROKER",
            Self::BROKER_LOGGER => "BROKER_LOGGER",
            Self::CLIENT_METRICS => "CLIENT_METRICS",
            Self::GROUP => "GROUP",
            _ => "UNKNOWN",
        }
    }
}

/// Keys and values that stand on one resource.
pub type ConfigEntries = BTreeMap<String, String>;

/// Dynamic configs by resource. A resource without entries is not in it. Broker resource
/// "" is the default of all brokers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigsImage {
    by_type: BTreeMap<ConfigResourceType, SortedMap<Arc<str>, Arc<ConfigEntries>>>,
}

impl ConfigsImage {
    pub fn get(&self, kind: ConfigResourceType, name: &str) -> Option<&Arc<ConfigEntries>> {
        self.by_type.get(&kind)?.get(name)
    }

    /// All resources with their entries, by type and name.
    pub fn iter(&self) -> impl Iterator<Item = (ConfigResourceType, &str, &Arc<ConfigEntries>)> {
        self.by_type.iter().flat_map(|(kind, resources)| {
            resources
                .iter()
                .map(move |(name, entries)| (*kind, &**name, entries))
        })
    }

    /// Resources of one type, by name.
    pub fn of_type(
        &self,
        kind: ConfigResourceType,
    ) -> impl Iterator<Item = (&str, &Arc<ConfigEntries>)> {
        self.by_type
            .get(&kind)
            .into_iter()
            .flat_map(|resources| resources.iter().map(|(name, entries)| (&**name, entries)))
    }

    /// Sets or (with no value) removes one key.
    pub(super) fn set(
        &mut self,
        kind: ConfigResourceType,
        name: &str,
        key: &str,
        value: Option<&str>,
    ) {
        let resources = self.by_type.entry(kind).or_default();
        let mut entries = resources.get(name).cloned().unwrap_or_default();
        let changed = Arc::make_mut(&mut entries);
        match value {
            Some(value) => changed.insert(key.to_owned(), value.to_owned()),
            None => changed.remove(key),
        };
        if entries.is_empty() {
            self.remove(kind, name);
        } else {
            resources.insert(Arc::from(name), entries);
        }
    }

    /// Forgets a resource; whether there was anything to forget.
    pub(super) fn remove(&mut self, kind: ConfigResourceType, name: &str) -> bool {
        let Some(resources) = self.by_type.get_mut(&kind) else {
            return false;
        };
        let removed = resources.remove(name).is_some();
        if resources.is_empty() {
            self.by_type.remove(&kind);
        }
        removed
    }
}

/// Whom a quota is for: entity type (`user`, `client-id`, `ip`) to name, where no name is
/// the default entity. Sorted by type.
pub type QuotaEntity = Vec<(String, Option<String>)>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_forget_empty_resources() {
        let mut configs = ConfigsImage::default();
        let before = configs.clone();
        configs.set(ConfigResourceType::TOPIC, "t", "a", Some("1"));
        configs.set(ConfigResourceType::TOPIC, "t", "b", Some("2"));
        let both = configs.clone();
        configs.set(ConfigResourceType::TOPIC, "t", "a", None);
        assert_eq!(both.get(ConfigResourceType::TOPIC, "t").unwrap().len(), 2);
        assert_eq!(configs.iter().count(), 1);
        configs.set(ConfigResourceType::TOPIC, "t", "b", None);
        configs.set(ConfigResourceType::TOPIC, "none", "b", None);
        assert_eq!(configs, before);
        assert!(!configs.remove(ConfigResourceType::TOPIC, "t"));
    }

    #[test]
    fn features_answer_for_all_names() {
        let features = FeaturesImage {
            metadata_version: MetadataVersion::from_level(30),
            levels: BTreeMap::from([("group.version".to_owned(), 1)]),
        };
        assert_eq!(features.level("metadata.version"), 30);
        assert_eq!(features.level("group.version"), 1);
        assert_eq!(features.level("share.version"), 0);
        assert_eq!(
            features.iter().collect::<Vec<_>>(),
            [("metadata.version", 30), ("group.version", 1)]
        );
    }
}
