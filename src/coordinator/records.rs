//! Records of `__consumer_offsets`: bytes of key and value to types and back. Written by
//! the shard's decisions, read when a partition is loaded.
//!
//! | type | key | value, versions read | written here as |
//! |---|---|---|---|
//! | 0 | group, topic, partition (before Kafka 0.9) | 0 | never |
//! | 1 | group, topic, partition | 0–4 | 4; 1 where the commit brought its own retention |
//! | 2 | group | 0–4 | 3 |
//! | 3–23 | consumer, share and streams groups | | not yet |
//!
//! A null value is a tombstone. The versions written are those of Kafka 4.3.1.

use std::rc::Rc;

use bytes::Bytes;

use crate::wire::codec::{DecodeError, EncodeError, Message};
use crate::wire::messages::{
    GroupMetadataKey, GroupMetadataValue, LegacyOffsetCommitKey, LegacyOffsetCommitValue,
    OffsetCommitKey, OffsetCommitValue,
};
use crate::wire::record_frame;

const LEGACY_OFFSET_COMMIT: i16 = 0;
const OFFSET_COMMIT: i16 = 1;
const GROUP_METADATA: i16 = 2;
/// The newest record type that Kafka 4.3.1 has (streams group topology).
const LAST_KNOWN_TYPE: i16 = 23;

const GROUP_METADATA_VERSION: i16 = 3;
const OFFSET_COMMIT_VERSION: i16 = 4;
/// The only version with an expire timestamp. It has no leader epoch and no topic id.
const OFFSET_COMMIT_EXPIRING_VERSION: i16 = 1;

#[derive(Clone, Debug, PartialEq)]
pub enum CoordinatorRecord {
    OffsetCommit {
        group: Rc<str>,
        topic: Rc<str>,
        partition: i32,
        /// `None`: the offset is removed.
        value: Option<OffsetCommitValue>,
    },
    GroupMetadata {
        group: Rc<str>,
        /// `None`: the group is removed.
        value: Option<GroupMetadataValue>,
    },
}

/// What a record of the log turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded {
    Record(CoordinatorRecord),
    /// A type that Kafka has and this coordinator does not handle yet.
    Unhandled(i16),
    /// A type that nobody knows: left behind by a broken-off upgrade.
    Unknown(i16),
}

impl CoordinatorRecord {
    pub fn group_metadata(group: &Rc<str>, value: GroupMetadataValue) -> Self {
        CoordinatorRecord::GroupMetadata {
            group: group.clone(),
            value: Some(value),
        }
    }

    pub fn group_tombstone(group: &Rc<str>) -> Self {
        CoordinatorRecord::GroupMetadata {
            group: group.clone(),
            value: None,
        }
    }

    pub fn offset_tombstone(group: &Rc<str>, topic: &Rc<str>, partition: i32) -> Self {
        CoordinatorRecord::OffsetCommit {
            group: group.clone(),
            topic: topic.clone(),
            partition,
            value: None,
        }
    }

    /// Key and value as they go into a batch. Fails on text longer than 32,767 bytes, which
    /// the record's strings can't hold (a request's can).
    pub fn encode(&self) -> Result<(Bytes, Option<Bytes>), EncodeError> {
        match self {
            CoordinatorRecord::OffsetCommit {
                group,
                topic,
                partition,
                value,
            } => {
                let key = OffsetCommitKey {
                    group: group.to_string(),
                    topic: topic.to_string(),
                    partition: *partition,
                };
                let version = |value: &OffsetCommitValue| match value.expire_timestamp {
                    -1 => OFFSET_COMMIT_VERSION,
                    _ => OFFSET_COMMIT_EXPIRING_VERSION,
                };
                encode(&key, value.as_ref(), version)
            }
            CoordinatorRecord::GroupMetadata { group, value } => {
                let key = GroupMetadataKey {
                    group: group.to_string(),
                };
                encode(&key, value.as_ref(), |_| GROUP_METADATA_VERSION)
            }
        }
    }

    pub fn decode(key: &Bytes, value: Option<&Bytes>) -> Result<Decoded, DecodeError> {
        let (record_type, body) = record_frame::decode_coordinator(key)?;
        let record = match record_type {
            LEGACY_OFFSET_COMMIT => {
                let key: LegacyOffsetCommitKey = record_frame::decode_body(body, 0)?;
                let value = decode_value::<LegacyOffsetCommitValue>(value)?;
                CoordinatorRecord::OffsetCommit {
                    group: key.group.into(),
                    topic: key.topic.into(),
                    partition: key.partition,
                    value: value.map(|value| OffsetCommitValue {
                        offset: value.offset,
                        metadata: value.metadata,
                        commit_timestamp: value.commit_timestamp,
                        ..OffsetCommitValue::default()
                    }),
                }
            }
            OFFSET_COMMIT => {
                let key: OffsetCommitKey = record_frame::decode_body(body, 0)?;
                CoordinatorRecord::OffsetCommit {
                    group: key.group.into(),
                    topic: key.topic.into(),
                    partition: key.partition,
                    value: decode_value(value)?,
                }
            }
            GROUP_METADATA => {
                let key: GroupMetadataKey = record_frame::decode_body(body, 0)?;
                CoordinatorRecord::GroupMetadata {
                    group: key.group.into(),
                    value: decode_value(value)?,
                }
            }
            3..=LAST_KNOWN_TYPE => return Ok(Decoded::Unhandled(record_type)),
            _ => return Ok(Decoded::Unknown(record_type)),
        };
        Ok(Decoded::Record(record))
    }
}

fn encode<K: Message, V: Message>(
    key: &K,
    value: Option<&V>,
    version: impl Fn(&V) -> i16,
) -> Result<(Bytes, Option<Bytes>), EncodeError> {
    let key = record_frame::encode_coordinator_key(key)?;
    let value = value
        .map(|value| record_frame::encode_coordinator_value(value, version(value)))
        .transpose()?;
    Ok((key, value))
}

fn decode_value<V: Message>(value: Option<&Bytes>) -> Result<Option<V>, DecodeError> {
    value
        .map(|value| {
            let (version, body) = record_frame::decode_coordinator(value)?;
            record_frame::decode_body(body, version)
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Uuid;
    use crate::wire::messages::group_metadata_value::MemberMetadata;

    fn round_trip(record: &CoordinatorRecord) -> (Bytes, Option<Bytes>) {
        let (key, value) = record.encode().unwrap();
        assert_eq!(
            CoordinatorRecord::decode(&key, value.as_ref()),
            Ok(Decoded::Record(record.clone()))
        );
        (key, value)
    }

    fn commit(expire_timestamp: i64, topic_id: Uuid) -> CoordinatorRecord {
        CoordinatorRecord::OffsetCommit {
            group: "g".into(),
            topic: "t".into(),
            partition: 7,
            value: Some(OffsetCommitValue {
                offset: 42,
                leader_epoch: if expire_timestamp == -1 { 5 } else { -1 },
                metadata: "m".into(),
                commit_timestamp: 1_000,
                expire_timestamp,
                topic_id,
            }),
        }
    }

    #[test]
    fn offset_commits_are_written_in_kafkas_versions() {
        let (key, value) = round_trip(&commit(-1, Uuid::ZERO));
        assert_eq!(key, &b"\0\x01\0\x01g\0\x01t\0\0\0\x07"[..]);
        assert_eq!(
            value.unwrap(),
            &b"\0\x04\0\0\0\0\0\0\0\x2a\0\0\0\x05\x02m\0\0\0\0\0\0\x03\xe8\0"[..]
        );
        let (_, value) = round_trip(&commit(9, Uuid::ZERO));
        assert_eq!(
            value.unwrap(),
            &b"\0\x01\0\0\0\0\0\0\0\x2a\0\x01m\0\0\0\0\0\0\x03\xe8\0\0\0\0\0\0\0\x09"[..]
        );
        round_trip(&commit(-1, Uuid([1; 16])));
        let (_, value) = commit(9, Uuid([1; 16])).encode().unwrap();
        assert_eq!(value.unwrap()[..2], [0, 1]);
    }

    #[test]
    fn groups_are_written_in_version_3() {
        let record = CoordinatorRecord::group_metadata(
            &"g".into(),
            GroupMetadataValue {
                protocol_type: "consumer".into(),
                generation: 3,
                protocol: Some("range".into()),
                leader: Some("m".into()),
                current_state_timestamp: 77,
                members: vec![MemberMetadata {
                    member_id: "m".into(),
                    group_instance_id: Some("i".into()),
                    client_id: "c".into(),
                    client_host: "/127.0.0.1".into(),
                    rebalance_timeout: 1,
                    session_timeout: 2,
                    subscription: Bytes::from_static(b"s"),
                    assignment: Bytes::from_static(b"a"),
                }],
            },
        );
        let (key, value) = round_trip(&record);
        assert_eq!(key, &b"\0\x02\0\x01g"[..]);
        assert_eq!(value.unwrap()[..2], [0, 3]);
        let (_, value) = round_trip(&CoordinatorRecord::group_tombstone(&"g".into()));
        assert_eq!(value, None);
    }

    #[test]
    fn other_types_are_told_apart() {
        let decode = |key: &'static [u8]| CoordinatorRecord::decode(&Bytes::from_static(key), None);
        assert_eq!(decode(b"\0\x03\0\x01g"), Ok(Decoded::Unhandled(3)));
        assert_eq!(decode(b"\0\x17"), Ok(Decoded::Unhandled(23)));
        assert_eq!(decode(b"\0\x18"), Ok(Decoded::Unknown(24)));
        assert_eq!(decode(b"\xff\xff"), Ok(Decoded::Unknown(-1)));
        assert!(decode(b"\0").is_err());
        assert!(decode(b"\0\x02\0\x05g").is_err());
        let legacy = CoordinatorRecord::decode(
            &Bytes::from_static(b"\0\0\0\x01g\0\x01t\0\0\0\x07"),
            Some(&Bytes::from_static(
                b"\0\0\0\0\0\0\0\0\0\x2a\0\x01m\0\0\0\0\0\0\x03\xe8",
            )),
        );
        assert!(matches!(
            legacy,
            Ok(Decoded::Record(CoordinatorRecord::OffsetCommit { value: Some(value), .. }))
                if value.offset == 42 && value.leader_epoch == -1
        ));
    }
}
