//! Records by which KRaft speaks of itself, in control batches of the metadata log and of
//! snapshots.

use bytes::{Bytes, BytesMut};

use crate::base::{LeaderEpoch, Millis, Offset};
use crate::record::{BatchBuilder, BatchParams, ControlType};
use crate::wire::messages::{
    KRaftVersionRecord, LeaderChangeMessage, SnapshotFooterRecord, SnapshotHeaderRecord,
    VotersRecord,
};
use crate::wire::{DecodeError, Decoder, Message, record_frame};

#[derive(Clone, Debug, PartialEq)]
pub enum ControlRecord {
    LeaderChange(LeaderChangeMessage),
    SnapshotHeader(SnapshotHeaderRecord),
    SnapshotFooter(SnapshotFooterRecord),
    KRaftVersion(KRaftVersionRecord),
    Voters(VotersRecord),
}

impl ControlRecord {
    /// Reads key and value of a record of a control batch; `None` for a type that isn't
    /// KRaft's.
    pub fn decode(key: &[u8], value: &Bytes) -> Result<Option<ControlRecord>, DecodeError> {
        Ok(Some(match ControlType::from_key(key) {
            Some(ControlType::LeaderChange) => Self::LeaderChange(body(value)?),
            Some(ControlType::SnapshotHeader) => Self::SnapshotHeader(body(value)?),
            Some(ControlType::SnapshotFooter) => Self::SnapshotFooter(body(value)?),
            Some(ControlType::KRaftVersion) => Self::KRaftVersion(body(value)?),
            Some(ControlType::KRaftVoters) => Self::Voters(body(value)?),
            Some(ControlType::Abort | ControlType::Commit) | None => return Ok(None),
        }))
    }

    fn control_type(&self) -> ControlType {
        match self {
            Self::LeaderChange(_) => ControlType::LeaderChange,
            Self::SnapshotHeader(_) => ControlType::SnapshotHeader,
            Self::SnapshotFooter(_) => ControlType::SnapshotFooter,
            Self::KRaftVersion(_) => ControlType::KRaftVersion,
            Self::Voters(_) => ControlType::KRaftVoters,
        }
    }

    fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::LeaderChange(record) => record.encode(&mut out, record.version),
            Self::SnapshotHeader(record) => record.encode(&mut out, record.version),
            Self::SnapshotFooter(record) => record.encode(&mut out, record.version),
            Self::KRaftVersion(record) => record.encode(&mut out, record.version),
            Self::Voters(record) => record.encode(&mut out, record.version),
        }
        .expect("our own control records are well-formed");
        out.freeze()
    }
}

/// A control batch.
pub fn control_batch(
    records: &[ControlRecord],
    base_offset: Offset,
    epoch: LeaderEpoch,
    timestamp_ms: Millis,
) -> Bytes {
    let mut builder = BatchBuilder::new(BatchParams {
        control: true,
        base_offset,
        leader_epoch: epoch,
        ..Default::default()
    });
    for record in records {
        builder.append_control(timestamp_ms, record.control_type(), &record.encode());
    }
    builder.finish()
}

/// A batch of metadata records' values.
pub fn data_batch(
    values: &[Bytes],
    base_offset: Offset,
    epoch: LeaderEpoch,
    timestamp_ms: Millis,
) -> Bytes {
    let mut builder = BatchBuilder::new(BatchParams {
        base_offset,
        leader_epoch: epoch,
        ..Default::default()
    });
    for value in values {
        builder.append(timestamp_ms, None, Some(value), &[]);
    }
    builder.finish()
}

/// The body's first field is its version, and it is read by that.
fn body<M: Message>(value: &Bytes) -> Result<M, DecodeError> {
    let version = Decoder::new(value).i16()?;
    if !M::VERSIONS.contains(&version) {
        return Err(DecodeError::UnknownType);
    }
    record_frame::decode_body(Decoder::new(value), version)
}

#[cfg(test)]
mod tests {
    use super::super::voters::{Endpoint, Voter, VoterSet};
    use super::*;
    use crate::base::{BrokerId, Uuid};
    use crate::record::{BatchView, records};
    use crate::wire::messages::leader_change_message;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    /// The first batch of a dynamic quorum as Apache Kafka 4.3.1 wrote it.
    #[test]
    fn first_batch_of_an_epoch_is_kafkas() {
        let golden = hex(
            "0000000000000000000000a200000001020b6aa014002000000002000001a20343ef61000001a20343ef61\
             ffffffffffffffffffffffffffff000000033a00000008000000022600000000006402000000640002000000\
             640000001e00000208000000050a000000010000820100000408000000066e000002000000644621a61a4950\
             4a339d0381b76a678c1f020b434f4e54524f4c4c45520a3132372e302e302e317209000000000100000000"
                .replace(' ', "")
                .as_str(),
        );
        let voter = || {
            vec![leader_change_message::Voter {
                voter_id: 100,
                ..Default::default()
            }]
        };
        let mut directory = [0; 16];
        directory.copy_from_slice(&hex("4621a61a49504a339d0381b76a678c1f"));
        let endpoint = Endpoint {
            listener: "CONTROLLER".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: 29193,
        };
        let voters = VoterSet::single(Voter::new(
            BrokerId(100),
            Some(Uuid(directory)),
            vec![endpoint],
        ));
        let expected = [
            ControlRecord::LeaderChange(LeaderChangeMessage {
                version: 0,
                leader_id: 100,
                voters: voter(),
                granting_voters: voter(),
            }),
            ControlRecord::KRaftVersion(KRaftVersionRecord {
                version: 0,
                kraft_version: 1,
            }),
            ControlRecord::Voters(voters.to_record()),
        ];
        let batch = control_batch(&expected, Offset(0), LeaderEpoch(1), 0x1a2_0343_ef61);
        assert_eq!(batch, golden);

        let view = BatchView::parse(&golden).unwrap();
        let mut walk = records(&view).unwrap();
        for record in &expected {
            let read = walk.next().unwrap().unwrap();
            let value = Bytes::copy_from_slice(read.value.unwrap());
            let read = ControlRecord::decode(read.key.unwrap(), &value).unwrap();
            assert_eq!(read.as_ref(), Some(record));
        }
    }
}
