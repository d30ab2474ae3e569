//! Which record formats a cluster's finalized `metadata.version` allows, and the feature
//! ranges that this node claims. Unknown records or versions are fatal to Apache Kafka's
//! replayers, so that what we write is chosen here exactly as Kafka 4.3.1 chooses.

use std::fmt;

/// The finalized level of the feature `metadata.version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetadataVersion(i16);

pub const METADATA_VERSION_FEATURE: &str = "metadata.version";
pub const KRAFT_VERSION_FEATURE: &str = "kraft.version";

/// Feature ranges of Apache Kafka 4.3.1, with the level up to which this code implements
/// each. A range is advertised (ApiVersions, registrations) as Kafka's, cut at that level.
const SUPPORTED: [(&str, i16, i16); 7] = [
    ("group.version", 0, 0),
    (KRAFT_VERSION_FEATURE, 0, 1),
    (METADATA_VERSION_FEATURE, 7, 30),
    ("share.version", 0, 0),
    ("streams.version", 0, 0),
    ("transaction.version", 0, 0),
    ("eligible.leader.replicas.version", 0, 0),
];

/// Features as (name, lowest, highest level) that this node can run with, leaving out
/// those of which only level 0 (absent) is implemented.
pub fn supported_features() -> impl Iterator<Item = (&'static str, i16, i16)> {
    SUPPORTED.into_iter().filter(|(_, _, max)| *max > 0)
}

/// Whether this code can run a cluster in which `name` is finalized at `level`.
pub fn is_supported(name: &str, level: i16) -> bool {
    level == 0
        || SUPPORTED
            .iter()
            .any(|(known, min, max)| *known == name && (*min..=*max).contains(&level))
}

impl MetadataVersion {
    /// 3.3-IV3, the oldest that Kafka 4.x reads.
    pub const MINIMUM: MetadataVersion = MetadataVersion(7);
    /// 3.5-IV2: SCRAM credentials.
    const SCRAM: MetadataVersion = MetadataVersion(11);
    /// 3.6-IV0: replicas bear an ISR that shrinks without a new leader epoch.
    const SHRINK_IN_TERM: MetadataVersion = MetadataVersion(12);
    /// 3.6-IV1: Begin/End/AbortTransaction.
    const TRANSACTIONS: MetadataVersion = MetadataVersion(13);
    /// 3.6-IV2: delegation tokens.
    const DELEGATION_TOKENS: MetadataVersion = MetadataVersion(14);
    /// 3.7-IV0: RegisterController.
    const CONTROLLER_REGISTRATION: MetadataVersion = MetadataVersion(15);
    /// 3.7-IV2: directories of replicas.
    const DIRECTORIES: MetadataVersion = MetadataVersion(17);
    /// 4.0-IV1: eligible leader replicas.
    const ELR: MetadataVersion = MetadataVersion(23);
    /// 4.3-IV0: cordoned log directories.
    const CORDONED: MetadataVersion = MetadataVersion(30);
    /// 4.3-IV0, the newest that Kafka 4.3.1 calls production.
    pub const LATEST: MetadataVersion = MetadataVersion::CORDONED;

    /// The version of a level, if this code knows its formats.
    pub fn from_level(level: i16) -> Option<MetadataVersion> {
        let version = MetadataVersion(level);
        (Self::MINIMUM..=Self::LATEST)
            .contains(&version)
            .then_some(version)
    }

    pub fn level(self) -> i16 {
        self.0
    }

    pub fn has_scram(self) -> bool {
        self >= Self::SCRAM
    }

    /// Whether a smaller ISR has to come with a new leader epoch (KAFKA-15021).
    pub fn bumps_leader_epoch_on_isr_shrink(self) -> bool {
        self < Self::SHRINK_IN_TERM
    }

    pub fn has_transactions(self) -> bool {
        self >= Self::TRANSACTIONS
    }

    pub fn has_delegation_tokens(self) -> bool {
        self >= Self::DELEGATION_TOKENS
    }

    pub fn has_controller_registration(self) -> bool {
        self >= Self::CONTROLLER_REGISTRATION
    }

    pub fn has_directories(self) -> bool {
        self >= Self::DIRECTORIES
    }

    pub fn has_elr(self) -> bool {
        self >= Self::ELR
    }

    pub fn has_cordoned_dirs(self) -> bool {
        self >= Self::CORDONED
    }

    pub fn register_broker_record_version(self) -> i16 {
        if self.has_cordoned_dirs() {
            4
        } else if self.has_directories() {
            3
        } else if self >= MetadataVersion(8) {
            2
        } else {
            1
        }
    }

    /// Of Partition and PartitionChange records.
    pub fn partition_record_version(self) -> i16 {
        if self.has_elr() {
            2
        } else if self.has_directories() {
            1
        } else {
            0
        }
    }
}

/// Release and step, as Kafka prints a version: `4.3-IV0`.
impl fmt::Display for MetadataVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 24] = [
            "3.3-IV3", "3.4-IV0", "3.5-IV0", "3.5-IV1", "3.5-IV2", "3.6-IV0", "3.6-IV1", "3.6-IV2",
            "3.7-IV0", "3.7-IV1", "3.7-IV2", "3.7-IV3", "3.7-IV4", "3.8-IV0", "3.9-IV0", "4.0-IV0",
            "4.0-IV1", "4.0-IV2", "4.0-IV3", "4.1-IV0", "4.1-IV1", "4.2-IV0", "4.2-IV1", "4.3-IV0",
        ];
        let name = usize::try_from(self.0 - Self::MINIMUM.0)
            .ok()
            .and_then(|index| NAMES.get(index));
        f.write_str(name.unwrap_or(&"unknown"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_versions_follow_the_level() {
        let at = |level| MetadataVersion::from_level(level).unwrap();
        assert_eq!(at(30).register_broker_record_version(), 4);
        assert_eq!(at(29).register_broker_record_version(), 3);
        assert_eq!(at(16).register_broker_record_version(), 2);
        assert_eq!(at(7).register_broker_record_version(), 1);
        assert_eq!(at(23).partition_record_version(), 2);
        assert_eq!(at(17).partition_record_version(), 1);
        assert_eq!(at(16).partition_record_version(), 0);
        assert_eq!(at(7).to_string(), "3.3-IV3");
        assert_eq!(at(30).to_string(), "4.3-IV0");
        assert_eq!(MetadataVersion::from_level(31), None);
        assert_eq!(MetadataVersion::from_level(6), None);
    }

    #[test]
    fn only_what_is_implemented_is_claimed() {
        let names: Vec<_> = supported_features().map(|(name, ..)| name).collect();
        assert_eq!(names, ["kraft.version", "metadata.version"]);
        assert!(is_supported("metadata.version", 30));
        assert!(!is_supported("metadata.version", 31));
        assert!(is_supported("group.version", 0));
        assert!(!is_supported("group.version", 1));
        assert!(is_supported("something.else", 0));
    }
}
