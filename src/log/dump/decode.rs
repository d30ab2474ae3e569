//! What is in the records of Kafka's own topics, as JSON; see [`super`].

use bytes::Bytes;
use serde_json::{Value, json};

use crate::base::Offset;
use crate::metadata::MetadataRecord;
use crate::record::{ControlType, EndTxnMarker};
use crate::wire::messages::*;
use crate::wire::{DecodeError, Decoder as WireDecoder, Message, record_frame};

/// How keys and values are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decoder {
    #[default]
    Text,
    /// Records of `__consumer_offsets`.
    Offsets,
    /// Records of `__transaction_state`.
    TransactionLog,
    /// Records of `__cluster_metadata`, and its snapshots.
    ClusterMetadata,
    /// Records of `__share_group_state`.
    ShareGroupState,
}

impl Decoder {
    /// Key and payload as they are printed.
    pub(super) fn decode(
        self,
        key: Option<Bytes>,
        value: Option<Bytes>,
        offset: Offset,
    ) -> (Option<String>, Option<String>) {
        let types = match self {
            Decoder::Text => {
                let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
                return (key.map(text), value.map(text));
            }
            Decoder::ClusterMetadata => {
                let told = match metadata_record(&value.unwrap_or_default()) {
                    Ok(told) => told,
                    Err(error) => format!("Error at {offset}, skipping. {error}"),
                };
                return (None, Some(told));
            }
            Decoder::Offsets => group_record,
            Decoder::TransactionLog => transaction_record,
            Decoder::ShareGroupState => share_record,
        };
        let skipped = |reason: String| (Some(reason), None);
        let Some(key) = key else {
            return skipped(format!("Error at offset {offset}, skipping. no key"));
        };
        match coordinator_record(&key, value.as_ref(), types) {
            Ok((key, value)) => (Some(key), Some(value)),
            Err(CoordinatorError::UnknownType(kind)) => skipped(format!(
                "Unknown record type {kind} at offset {offset}, skipping."
            )),
            Err(CoordinatorError::Decode(error)) => {
                skipped(format!("Error at offset {offset}, skipping. {error}"))
            }
        }
    }
}

/// A control record by its key and value.
pub(super) fn control_record(key: Option<&[u8]>, value: Option<&[u8]>) -> String {
    let (key, value) = (key.unwrap_or_default(), value.unwrap_or_default());
    if let Some(marker) = EndTxnMarker::parse(key, value) {
        let kind = if marker.commit { "COMMIT" } else { "ABORT" };
        let epoch = marker.coordinator_epoch;
        return format!("endTxnMarker: {kind} coordinatorEpoch: {epoch}");
    }
    let value = Bytes::copy_from_slice(value);
    let told = match ControlType::from_key(key) {
        Some(ControlType::LeaderChange) => {
            control::<LeaderChangeMessage>("LeaderChange:", &value, LeaderChangeMessage::to_json)
        }
        Some(ControlType::SnapshotHeader) => {
            control::<SnapshotHeaderRecord>("SnapshotHeader", &value, SnapshotHeaderRecord::to_json)
        }
        Some(ControlType::SnapshotFooter) => {
            control::<SnapshotFooterRecord>("SnapshotFooter", &value, SnapshotFooterRecord::to_json)
        }
        Some(ControlType::KRaftVersion) => {
            control::<KRaftVersionRecord>("KRaftVersion", &value, KRaftVersionRecord::to_json)
        }
        Some(ControlType::KRaftVoters) => {
            control::<VotersRecord>("KRaftVoters", &value, VotersRecord::to_json)
        }
        Some(ControlType::Abort | ControlType::Commit) | None => {
            let kind = key
                .get(2..4)
                .map_or(-1, |kind| i16::from_be_bytes([kind[0], kind[1]]));
            return format!("controlType: UNKNOWN({kind})");
        }
    };
    told.unwrap_or_else(|error| format!("control record can't be read: {error}"))
}

/// The first field of these bodies doubles as their version.
fn control<M: Message>(
    name: &str,
    value: &Bytes,
    to_json: fn(&M, i16) -> Value,
) -> Result<String, DecodeError> {
    let version = WireDecoder::new(value).i16()?;
    let record = record_frame::decode_body::<M>(WireDecoder::new(value), version)?;
    Ok(format!("{name} {}", to_json(&record, version)))
}

fn metadata_record(value: &Bytes) -> Result<String, String> {
    let (record, version) =
        MetadataRecord::decode_versioned(value).map_err(|error| error.to_string())?;
    let told = json!({
        "type": record.type_name(),
        "version": version,
        "data": record.to_json(version),
    });
    Ok(told.to_string())
}

enum CoordinatorError {
    UnknownType(i16),
    Decode(DecodeError),
}

impl From<DecodeError> for CoordinatorError {
    fn from(error: DecodeError) -> Self {
        CoordinatorError::Decode(error)
    }
}

/// Reads key (version 0) and value of a record type; `None` for a type that isn't known.
type ReadTypes =
    fn(i16, WireDecoder<'_>, Option<&Bytes>) -> Option<Result<(Value, Option<Value>), DecodeError>>;

fn coordinator_record(
    key: &Bytes,
    value: Option<&Bytes>,
    types: ReadTypes,
) -> Result<(String, String), CoordinatorError> {
    let (kind, body) = record_frame::decode_coordinator(key)?;
    let (key, value) = types(kind, body, value).ok_or(CoordinatorError::UnknownType(kind))??;
    let key = json!({ "type": kind.to_string(), "data": key });
    let value = value.map_or("<DELETE>".to_owned(), |value| value.to_string());
    Ok((key.to_string(), value))
}

/// `{"version":"…","data":…}` of a value.
fn value_json<M: Message>(
    value: Option<&Bytes>,
    to_json: impl FnOnce(&M, i16) -> Value,
) -> Result<Option<Value>, DecodeError> {
    let Some(value) = value else {
        return Ok(None);
    };
    let (version, body) = record_frame::decode_coordinator(value)?;
    let message = record_frame::decode_body::<M>(body, version)?;
    let data = to_json(&message, version);
    Ok(Some(
        json!({ "version": version.to_string(), "data": data }),
    ))
}

macro_rules! record_types {
    ($name:ident: $($kind:literal $key:ident $value:ident $to_json:path,)*) => {
        fn $name(
            kind: i16,
            key: WireDecoder<'_>,
            value: Option<&Bytes>,
        ) -> Option<Result<(Value, Option<Value>), DecodeError>> {
            Some(match kind {
                $($kind => record_frame::decode_body::<$key>(key, 0).and_then(|key| {
                    Ok((key.to_json(0), value_json::<$value>(value, $to_json)?))
                }),)*
                _ => return None,
            })
        }
    };
}

record_types! { group_record:
    0 LegacyOffsetCommitKey LegacyOffsetCommitValue LegacyOffsetCommitValue::to_json,
    1 OffsetCommitKey OffsetCommitValue OffsetCommitValue::to_json,
    2 GroupMetadataKey GroupMetadataValue group_metadata_json,
    3 ConsumerGroupMetadataKey ConsumerGroupMetadataValue ConsumerGroupMetadataValue::to_json,
    4 ConsumerGroupPartitionMetadataKey ConsumerGroupPartitionMetadataValue
        ConsumerGroupPartitionMetadataValue::to_json,
    5 ConsumerGroupMemberMetadataKey ConsumerGroupMemberMetadataValue
        ConsumerGroupMemberMetadataValue::to_json,
    6 ConsumerGroupTargetAssignmentMetadataKey ConsumerGroupTargetAssignmentMetadataValue
        ConsumerGroupTargetAssignmentMetadataValue::to_json,
    7 ConsumerGroupTargetAssignmentMemberKey ConsumerGroupTargetAssignmentMemberValue
        ConsumerGroupTargetAssignmentMemberValue::to_json,
    8 ConsumerGroupCurrentMemberAssignmentKey ConsumerGroupCurrentMemberAssignmentValue
        ConsumerGroupCurrentMemberAssignmentValue::to_json,
    10 ShareGroupMemberMetadataKey ShareGroupMemberMetadataValue
        ShareGroupMemberMetadataValue::to_json,
    11 ShareGroupMetadataKey ShareGroupMetadataValue ShareGroupMetadataValue::to_json,
    12 ShareGroupTargetAssignmentMetadataKey ShareGroupTargetAssignmentMetadataValue
        ShareGroupTargetAssignmentMetadataValue::to_json,
    13 ShareGroupTargetAssignmentMemberKey ShareGroupTargetAssignmentMemberValue
        ShareGroupTargetAssignmentMemberValue::to_json,
    14 ShareGroupCurrentMemberAssignmentKey ShareGroupCurrentMemberAssignmentValue
        ShareGroupCurrentMemberAssignmentValue::to_json,
    15 ShareGroupStatePartitionMetadataKey ShareGroupStatePartitionMetadataValue
        ShareGroupStatePartitionMetadataValue::to_json,
    16 ConsumerGroupRegularExpressionKey ConsumerGroupRegularExpressionValue
        ConsumerGroupRegularExpressionValue::to_json,
    17 StreamsGroupMetadataKey StreamsGroupMetadataValue StreamsGroupMetadataValue::to_json,
    19 StreamsGroupMemberMetadataKey StreamsGroupMemberMetadataValue
        StreamsGroupMemberMetadataValue::to_json,
    20 StreamsGroupTargetAssignmentMetadataKey StreamsGroupTargetAssignmentMetadataValue
        StreamsGroupTargetAssignmentMetadataValue::to_json,
    21 StreamsGroupTargetAssignmentMemberKey StreamsGroupTargetAssignmentMemberValue
        StreamsGroupTargetAssignmentMemberValue::to_json,
    22 StreamsGroupCurrentMemberAssignmentKey StreamsGroupCurrentMemberAssignmentValue
        StreamsGroupCurrentMemberAssignmentValue::to_json,
    23 StreamsGroupTopologyKey StreamsGroupTopologyValue StreamsGroupTopologyValue::to_json,
}

record_types! { transaction_record:
    0 TransactionLogKey TransactionLogValue TransactionLogValue::to_json,
}

record_types! { share_record:
    0 ShareSnapshotKey ShareSnapshotValue ShareSnapshotValue::to_json,
    1 ShareUpdateKey ShareUpdateValue ShareUpdateValue::to_json,
}

/// A classic group's metadata; members of consumers have their subscription and
/// assignment read, too.
fn group_metadata_json(value: &GroupMetadataValue, version: i16) -> Value {
    let mut json = value.to_json(version);
    if value.protocol_type != "consumer" {
        return json;
    }
    let Some(members) = json.get_mut("members").and_then(Value::as_array_mut) else {
        return json;
    };
    for (json, member) in members.iter_mut().zip(&value.members) {
        let subscription = embedded(&member.subscription, ConsumerProtocolSubscription::to_json);
        let assignment = embedded(&member.assignment, ConsumerProtocolAssignment::to_json);
        for (field, read) in [("subscription", subscription), ("assignment", assignment)] {
            // What can't be read stays as it is.
            if let (Some(field), Ok(read)) = (json.get_mut(field), read) {
                *field = read;
            }
        }
    }
    json
}

fn embedded<M: Message>(
    bytes: &Bytes,
    to_json: fn(&M, i16) -> Value,
) -> Result<Value, DecodeError> {
    let (version, mut body) = record_frame::decode_coordinator(bytes)?;
    // As Kafka does, without a look at what follows.
    let message = M::decode(&mut body, version)?;
    Ok(to_json(&message, version))
}
