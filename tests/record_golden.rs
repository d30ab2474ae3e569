//! Batches whose bytes Apache Kafka 4.3.1 wrote: we read them field by field, and write
//! the same bytes.

use ottla::base::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};
use ottla::record::{
    BatchBuilder, BatchParams, BatchView, Batches, ControlType, EndTxnMarker, ProducerInfo,
    TimestampType, records,
};

const DATA: &str = "00000000000000000000004c000000000257fbca12000000000002000001a2034a2d73000001a2034a2d73ffffffffffffffffffffffffffff00000003100000000104783000100000020104783100100000040104783200";
const TRANSACTIONAL: &str = "00000000000000030000004c0000000002186acb16001000000002000001a2034a2e0b000001a2034a2e0b000000000000000100000000000000000003100000000104743000100000020104743100100000040104743200";
const ABORT: &str = "000000000000000700000042000000000213ba2832003000000000000001a2034a2e4d000001a2034a2e4d00000000000000010001ffffffff000000012000000008000000000c00000000000000";
const COMMIT: &str = "000000000000000a000000420000000002ed0e4bab003000000000000001a2034a2ea1000001a2034a2ea100000000000000010002ffffffff000000012000000008000000010c00000000000000";
const SNAPSHOT_HEADER: &str = "00000000000000000000009a000000000279ed080a002000000002000001a20343bdb4000001a20343bdb4ffffffffffffffffffffffffffff000000032a0000000800000003160000000001a20343bda400001e00000208000000050a000000010000820100000408000000066e000002000000644621a61a49504a339d0381b76a678c1f020b434f4e54524f4c4c45520a3132372e302e302e317209000000000100000000";
const SNAPSHOT_FOOTER: &str = "00000000000000030000003f0000000002d818be13002000000000000001a20343bdc6000001a20343bdc6ffffffffffffffffffffffffffff000000011a00000008000000040600000000";
const LEADER_CHANGE: &str = "0000000000000000000000a200000001020b6aa014002000000002000001a20343ef61000001a20343ef61ffffffffffffffffffffffffffff000000033a00000008000000022600000000006402000000640002000000640000001e00000208000000050a000000010000820100000408000000066e000002000000644621a61a49504a339d0381b76a678c1f020b434f4e54524f4c4c45520a3132372e302e302e317209000000000100000000";
const NO_OP: &str = "000000000000000c0000003c00000001027bdc99d3000000000000000001a20343f335000001a20343f335ffffffffffffffffffffffffffff000000011400000001080114000000";

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Key, value and timestamp of each record.
type Contents = Vec<(Option<Vec<u8>>, Option<Vec<u8>>, i64)>;

fn contents(batch: &BatchView<'_>) -> Contents {
    let mut contents = Vec::new();
    let mut records = records(batch).unwrap();
    while let Some(record) = records.next() {
        let record = record.unwrap();
        assert_eq!(record.offset_delta as usize, contents.len());
        contents.push((
            record.key.map(<[u8]>::to_vec),
            record.value.map(<[u8]>::to_vec),
            batch.record_timestamp(record.timestamp_delta),
        ));
    }
    contents
}

/// The batch built anew from what we read in it.
fn rebuilt(batch: &BatchView<'_>) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchParams {
        producer: batch.producer(),
        transactional: batch.is_transactional(),
        control: batch.is_control(),
        base_offset: batch.base_offset(),
        leader_epoch: batch.partition_leader_epoch(),
        ..BatchParams::default()
    });
    for (key, value, timestamp) in contents(batch) {
        builder.append(timestamp, key.as_deref(), value.as_deref(), &[]);
    }
    builder.finish().to_vec()
}

#[test]
fn every_batch_of_kafka_is_read_and_written_back_identically() {
    for hex in [
        DATA,
        TRANSACTIONAL,
        ABORT,
        COMMIT,
        SNAPSHOT_HEADER,
        SNAPSHOT_FOOTER,
        LEADER_CHANGE,
        NO_OP,
    ] {
        let bytes = bytes(hex);
        let batch = BatchView::parse(&bytes).unwrap();
        assert_eq!(batch.size_in_bytes(), bytes.len());
        assert!(batch.verify_crc());
        assert_eq!(rebuilt(&batch), bytes);
    }
}

#[test]
fn data_batches_have_kafkas_fields() {
    let bytes = [bytes(DATA), bytes(TRANSACTIONAL)].concat();
    let batches: Vec<BatchView<'_>> = Batches::new(&bytes).map(Result::unwrap).collect();
    let data = batches[0];
    assert_eq!(
        (data.base_offset(), data.last_offset()),
        (Offset(0), Offset(2))
    );
    assert_eq!(data.partition_leader_epoch(), LeaderEpoch(0));
    assert_eq!(data.producer(), ProducerInfo::NONE);
    assert_eq!(data.last_sequence(), -1);
    assert_eq!(data.record_count(), 3);
    assert_eq!(data.timestamp_type(), TimestampType::CreateTime);
    assert!(!data.is_transactional() && !data.is_control());
    let values: Vec<_> = contents(&data).into_iter().map(|record| record.1).collect();
    assert_eq!(
        values,
        [b"x0", b"x1", b"x2"].map(|value| Some(value.to_vec()))
    );

    let transactional = batches[1];
    assert_eq!(transactional.next_offset(), Offset(6));
    assert_eq!(
        transactional.producer(),
        ProducerInfo {
            id: ProducerId(1),
            epoch: ProducerEpoch(0),
            base_sequence: 0
        }
    );
    assert_eq!(transactional.last_sequence(), 2);
    assert!(transactional.is_transactional() && !transactional.is_control());
}

#[test]
fn markers_are_kafkas() {
    for (hex, commit, offset, epoch) in [(ABORT, false, 7, 1), (COMMIT, true, 10, 2)] {
        let expected = bytes(hex);
        let batch = BatchView::parse(&expected).unwrap();
        assert!(batch.is_control() && batch.is_transactional());
        let (key, value, timestamp) = contents(&batch).remove(0);
        let marker = EndTxnMarker::parse(&key.unwrap(), &value.unwrap()).unwrap();
        assert_eq!(
            marker,
            EndTxnMarker {
                commit,
                coordinator_epoch: 0
            }
        );
        let built = BatchBuilder::end_txn_marker(
            BatchParams {
                producer: ProducerInfo {
                    id: ProducerId(1),
                    epoch: ProducerEpoch(epoch),
                    base_sequence: -1,
                },
                base_offset: Offset(offset),
                leader_epoch: LeaderEpoch(0),
                ..BatchParams::default()
            },
            timestamp,
            marker,
        );
        assert_eq!(built, expected);
    }
}

#[test]
fn control_records_of_kraft_are_told_apart() {
    let kinds = |hex| {
        let bytes = bytes(hex);
        let batch = BatchView::parse(&bytes).unwrap();
        assert!(batch.is_control());
        contents(&batch)
            .into_iter()
            .map(|record| ControlType::from_key(&record.0.unwrap()).unwrap())
            .collect::<Vec<_>>()
    };
    use ControlType::{KRaftVersion, KRaftVoters, LeaderChange, SnapshotFooter, SnapshotHeader};
    assert_eq!(
        kinds(SNAPSHOT_HEADER),
        [SnapshotHeader, KRaftVersion, KRaftVoters]
    );
    assert_eq!(kinds(SNAPSHOT_FOOTER), [SnapshotFooter]);
    assert_eq!(
        kinds(LEADER_CHANGE),
        [LeaderChange, KRaftVersion, KRaftVoters]
    );
}
