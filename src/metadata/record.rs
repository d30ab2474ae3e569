//! The records of the metadata log: one variant per record type of Apache Kafka 4.3.1, with
//! the framing of their values and the version that each is written with.
//!
//! ```text
//!   value = uvarint frame version (1) | uvarint api key | uvarint version | flexible body
//! ```

use bytes::Bytes;

use super::version::MetadataVersion;
use crate::wire::messages::*;
use crate::wire::{DecodeError, EncodeError, Message, record_frame};

/// What keeps a value from being read as a metadata record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("unknown metadata record type {0}")]
    UnknownType(i16),
    #[error("version {version} of metadata record {name} is not supported")]
    UnknownVersion { name: &'static str, version: i16 },
    #[error("malformed metadata record: {0}")]
    Decode(#[from] DecodeError),
    #[error("metadata record can't be written: {0}")]
    Encode(#[from] EncodeError),
}

macro_rules! metadata_records {
    ($($key:literal $type_name:literal $variant:ident($record:ident),)*) => {
        /// A record of the metadata log.
        #[derive(Clone, Debug, PartialEq)]
        pub enum MetadataRecord {
            $($variant($record),)*
        }

        $(impl From<$record> for MetadataRecord {
            fn from(record: $record) -> Self {
                MetadataRecord::$variant(record)
            }
        })*

        impl MetadataRecord {
            /// Kafka's name of the type, as its tools print it.
            pub fn type_name(&self) -> &'static str {
                match self {
                    $(MetadataRecord::$variant(_) => $type_name,)*
                }
            }

            /// Reads the value of a record of the metadata log.
            pub fn decode(value: &Bytes) -> Result<MetadataRecord, RecordError> {
                Ok(Self::decode_versioned(value)?.0)
            }

            /// Reads a value; the record and the version that it was written with.
            pub fn decode_versioned(value: &Bytes) -> Result<(MetadataRecord, i16), RecordError> {
                let (kind, version, body) = record_frame::decode_metadata(value)?;
                match kind {
                    $($key => {
                        check_version::<$record>(version)?;
                        let record = record_frame::decode_body::<$record>(body, version)?;
                        Ok((MetadataRecord::$variant(record), version))
                    })*
                    other => Err(RecordError::UnknownType(other)),
                }
            }

            /// The value that stands for the record in a log of that version.
            pub fn encode(&self, metadata_version: MetadataVersion) -> Result<Bytes, RecordError> {
                let version = self.version(metadata_version);
                Ok(match self {
                    $(MetadataRecord::$variant(record) => {
                        record_frame::encode_metadata(record, version)?
                    })*
                })
            }

            /// The body as Kafka's JSON converters print it.
            pub fn to_json(&self, version: i16) -> serde_json::Value {
                match self {
                    $(MetadataRecord::$variant(record) => record.to_json(version),)*
                }
            }
        }
    };
}

metadata_records! {
    0 "REGISTER_BROKER_RECORD" RegisterBroker(RegisterBrokerRecord),
    1 "UNREGISTER_BROKER_RECORD" UnregisterBroker(UnregisterBrokerRecord),
    2 "TOPIC_RECORD" Topic(TopicRecord),
    3 "PARTITION_RECORD" Partition(PartitionRecord),
    4 "CONFIG_RECORD" Config(ConfigRecord),
    5 "PARTITION_CHANGE_RECORD" PartitionChange(PartitionChangeRecord),
    7 "FENCE_BROKER_RECORD" FenceBroker(FenceBrokerRecord),
    8 "UNFENCE_BROKER_RECORD" UnfenceBroker(UnfenceBrokerRecord),
    9 "REMOVE_TOPIC_RECORD" RemoveTopic(RemoveTopicRecord),
    10 "DELEGATION_TOKEN_RECORD" DelegationToken(DelegationTokenRecord),
    11 "USER_SCRAM_CREDENTIAL_RECORD" UserScramCredential(UserScramCredentialRecord),
    12 "FEATURE_LEVEL_RECORD" FeatureLevel(FeatureLevelRecord),
    14 "CLIENT_QUOTA_RECORD" ClientQuota(ClientQuotaRecord),
    15 "PRODUCER_IDS_RECORD" ProducerIds(ProducerIdsRecord),
    17 "BROKER_REGISTRATION_CHANGE_RECORD"
        BrokerRegistrationChange(BrokerRegistrationChangeRecord),
    18 "ACCESS_CONTROL_ENTRY_RECORD" AccessControlEntry(AccessControlEntryRecord),
    19 "REMOVE_ACCESS_CONTROL_ENTRY_RECORD"
        RemoveAccessControlEntry(RemoveAccessControlEntryRecord),
    20 "NO_OP_RECORD" NoOp(NoOpRecord),
    21 "ZK_MIGRATION_STATE_RECORD" ZkMigrationState(ZkMigrationStateRecord),
    22 "REMOVE_USER_SCRAM_CREDENTIAL_RECORD"
        RemoveUserScramCredential(RemoveUserScramCredentialRecord),
    23 "BEGIN_TRANSACTION_RECORD" BeginTransaction(BeginTransactionRecord),
    24 "END_TRANSACTION_RECORD" EndTransaction(EndTransactionRecord),
    25 "ABORT_TRANSACTION_RECORD" AbortTransaction(AbortTransactionRecord),
    26 "REMOVE_DELEGATION_TOKEN_RECORD" RemoveDelegationToken(RemoveDelegationTokenRecord),
    27 "REGISTER_CONTROLLER_RECORD" RegisterController(RegisterControllerRecord),
    28 "CLEAR_ELR_RECORD" ClearElr(ClearElrRecord),
}

impl MetadataRecord {
    /// The version that the record is written with.
    pub fn version(&self, metadata_version: MetadataVersion) -> i16 {
        match self {
            MetadataRecord::RegisterBroker(_) => metadata_version.register_broker_record_version(),
            MetadataRecord::Partition(_) | MetadataRecord::PartitionChange(_) => {
                metadata_version.partition_record_version()
            }
            // The lowest that can carry the change, whatever the metadata.version.
            MetadataRecord::BrokerRegistrationChange(change) => {
                if change.cordoned_log_dirs.is_some() {
                    3
                } else if !change.log_dirs.is_empty() {
                    2
                } else {
                    i16::from(change.in_controlled_shutdown != 0)
                }
            }
            _ => 0,
        }
    }

    pub fn feature_level(name: &str, level: i16) -> MetadataRecord {
        FeatureLevelRecord {
            name: name.to_owned(),
            feature_level: level,
        }
        .into()
    }
}

fn check_version<M: Message>(version: i16) -> Result<(), RecordError> {
    if M::VERSIONS.contains(&version) {
        return Ok(());
    }
    Err(RecordError::UnknownVersion {
        name: M::NAME,
        version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(record: MetadataRecord) -> Vec<u8> {
        let bytes = record.encode(MetadataVersion::LATEST).unwrap();
        assert_eq!(MetadataRecord::decode(&bytes).unwrap(), record);
        bytes.to_vec()
    }

    /// Bytes that Kafka 4.3.1 wrote.
    #[test]
    fn frames_are_kafkas() {
        assert_eq!(encoded(NoOpRecord::default().into()), [1, 20, 0, 0]);
        assert_eq!(
            encoded(MetadataRecord::feature_level("metadata.version", 30)),
            b"\x01\x0c\x00\x11metadata.version\x00\x1e\x00"
        );
    }

    #[test]
    fn unknown_types_and_versions_are_told() {
        let decode = |bytes: &'static [u8]| MetadataRecord::decode(&Bytes::from_static(bytes));
        assert!(matches!(
            decode(&[1, 99, 0, 0]),
            Err(RecordError::UnknownType(99))
        ));
        assert!(matches!(
            decode(&[1, 20, 5, 0]),
            Err(RecordError::UnknownVersion { version: 5, .. })
        ));
        assert!(matches!(
            decode(&[2, 20, 0, 0]),
            Err(RecordError::Decode(_))
        ));
        assert!(matches!(decode(&[]), Err(RecordError::Decode(_))));
    }

    #[test]
    fn registration_changes_use_the_lowest_version() {
        let change = |change: BrokerRegistrationChangeRecord| {
            MetadataRecord::from(change).version(MetadataVersion::LATEST)
        };
        assert_eq!(change(Default::default()), 0);
        assert_eq!(
            change(BrokerRegistrationChangeRecord {
                in_controlled_shutdown: 1,
                ..Default::default()
            }),
            1
        );
        assert_eq!(
            change(BrokerRegistrationChangeRecord {
                cordoned_log_dirs: Some(vec![]),
                ..Default::default()
            }),
            3
        );
    }
}
