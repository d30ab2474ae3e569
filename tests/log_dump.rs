//! `ottla dump-log` prints Kafka's own topics and snapshots as Kafka's tool does. With
//! `OTTLA_KAFKA_CLASSPATH` (see `scripts/test`) the two are compared line by line.

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::{BufMut as _, Bytes, BytesMut};
use ottla::base::{Offset, Uuid};
use ottla::record::{BatchBuilder, BatchParams};
use ottla::wire::messages::*;
use ottla::wire::{Message, record_frame};

const NOW: i64 = 1_700_000_000_000;

/// Batches that Kafka 4.3.1 wrote into the first snapshot of a dynamic quorum.
const SNAPSHOT_HEADER: &str = "00000000000000000000009a000000000279ed080a002000000002000001a20343bdb4000001a20343bdb4ffffffffffffffffffffffffffff000000032a0000000800000003160000000001a20343bda400001e00000208000000050a000000010000820100000408000000066e000002000000644621a61a49504a339d0381b76a678c1f020b434f4e54524f4c4c45520a3132372e302e302e317209000000000100000000";
const SNAPSHOT_FOOTER: &str = "00000000000000030000003f0000000002d818be13002000000000000001a20343bdc6000001a20343bdc6ffffffffffffffffffffffffffff000000011a00000008000000040600000000";
/// The first batch of a fresh metadata log, and one with a no-op record.
const METADATA_LEADER: &str = "0000000000000000000000a200000001020b6aa014002000000002000001a20343ef61000001a20343ef61ffffffffffffffffffffffffffff000000033a00000008000000022600000000006402000000640002000000640000001e00000208000000050a000000010000820100000408000000066e000002000000644621a61a49504a339d0381b76a678c1f020b434f4e54524f4c4c45520a3132372e302e302e317209000000000100000000";
const METADATA_NO_OP: &str = "000000000000000c0000003c00000001027bdc99d3000000000000000001a20343f335000001a20343f335ffffffffffffffffffffffffffff000000011400000001080114000000";

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn batch(base_offset: i64, records: &[(Option<Bytes>, Option<Bytes>)]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchParams {
        base_offset: Offset(base_offset),
        ..BatchParams::default()
    });
    for (key, value) in records {
        builder.append(NOW, key.as_deref(), value.as_deref(), &[]);
    }
    builder.finish().to_vec()
}

fn key<M: Message>(message: M) -> Option<Bytes> {
    Some(record_frame::encode_coordinator_key(&message).unwrap())
}

fn value<M: Message>(message: M, version: i16) -> Option<Bytes> {
    Some(record_frame::encode_coordinator_value(&message, version).unwrap())
}

fn offsets_log() -> Vec<u8> {
    let commit = OffsetCommitKey {
        group: "g".into(),
        topic: "t\u{e9}\"".into(),
        partition: 3,
    };
    let offset = OffsetCommitValue {
        offset: 1 << 40,
        leader_epoch: 7,
        metadata: "m".into(),
        commit_timestamp: NOW,
        ..OffsetCommitValue::default()
    };
    let group = GroupMetadataKey { group: "g".into() };
    let member = group_metadata_value::MemberMetadata {
        member_id: "m-1".into(),
        subscription: embedded(&ConsumerProtocolSubscription {
            topics: vec!["t".into()],
            ..ConsumerProtocolSubscription::default()
        }),
        // What isn't an assignment stays as it is.
        assignment: Bytes::from_static(b"?"),
        ..group_metadata_value::MemberMetadata::default()
    };
    let metadata = GroupMetadataValue {
        protocol_type: "consumer".into(),
        generation: 2,
        protocol: Some("range".into()),
        leader: None,
        current_state_timestamp: NOW,
        members: vec![member],
    };
    let unknown = Some(Bytes::from_static(&[0x7f, 0xff]));
    let torn = Some(Bytes::from_static(&[0, 1, 0, 9]));
    let first = batch(
        0,
        &[
            (key(commit.clone()), value(offset.clone(), 1)),
            (key(commit.clone()), value(offset, 3)),
            (key(commit), None),
        ],
    );
    let second = batch(
        5,
        &[
            (key(group), value(metadata, 3)),
            (unknown, None),
            (torn, None),
        ],
    );
    [first, second].concat()
}

fn embedded<M: Message>(message: &M) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(1);
    message.encode(&mut bytes, 1).unwrap();
    bytes.freeze()
}

fn transaction_log() -> Vec<u8> {
    let id = TransactionLogKey {
        transactional_id: "tx".into(),
    };
    let state = TransactionLogValue {
        producer_id: 9,
        transaction_status: 1,
        transaction_partitions: Some(vec![transaction_log_value::PartitionsSchema {
            topic: "t".into(),
            partition_ids: vec![0, 2],
        }]),
        ..TransactionLogValue::default()
    };
    batch(
        0,
        &[
            (key(id.clone()), value(state.clone(), 0)),
            (key(id), value(state, 1)),
        ],
    )
}

fn metadata_log() -> Vec<u8> {
    let topic = TopicRecord {
        name: "t".into(),
        topic_id: Uuid([5; 16]),
    };
    let partition = PartitionRecord {
        topic_id: Uuid([5; 16]),
        replicas: vec![1, 2],
        isr: vec![1],
        ..PartitionRecord::default()
    };
    let records = [
        (
            None,
            Some(record_frame::encode_metadata(&topic, 0).unwrap()),
        ),
        (
            None,
            Some(record_frame::encode_metadata(&partition, 2).unwrap()),
        ),
    ];
    [
        unhex(METADATA_LEADER),
        batch(3, &records),
        unhex(METADATA_NO_OP),
    ]
    .concat()
}

struct Case {
    file: &'static str,
    contents: Vec<u8>,
    flags: &'static [&'static str],
    /// Some of what must be printed, whether or not Kafka is there to compare with.
    expected: &'static [&'static str],
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            file: "__consumer_offsets-0/00000000000000000000.log",
            contents: offsets_log(),
            flags: &["--offsets-decoder"],
            expected: &[
                r#"key: {"type":"1","data":{"group":"g","topic":"té\"","partition":3}}"#,
                "payload: <DELETE>",
                r#""subscription":{"topics":["t"]"#,
                "key: Unknown record type 32767 at offset 6, skipping.",
            ],
        },
        Case {
            file: "__transaction_state-0/00000000000000000000.log",
            contents: transaction_log(),
            flags: &["--transaction-log-decoder", "--skip-record-metadata"],
            expected: &[
                r#"| key: {"type":"0","data":{"transactionalId":"tx"}} payload: {"version":"0""#,
            ],
        },
        Case {
            file: "__cluster_metadata-0/00000000000000000000.log",
            contents: metadata_log(),
            flags: &["--cluster-metadata-decoder"],
            expected: &[
                "LeaderChange: {",
                r#"payload: {"type":"TOPIC_RECORD","version":0,"data":{"name":"t""#,
                r#"{"type":"NO_OP_RECORD","version":0,"data":{}}"#,
            ],
        },
        Case {
            file: "__cluster_metadata-0/00000000000000000010-0000000003.checkpoint",
            contents: [unhex(SNAPSHOT_HEADER), unhex(SNAPSHOT_FOOTER)].concat(),
            flags: &["--cluster-metadata-decoder"],
            expected: &[
                "Snapshot end offset: 10, epoch: 3",
                "SnapshotHeader {",
                "KRaftVoters {",
                "SnapshotFooter {",
            ],
        },
        Case {
            file: "bootstrap.checkpoint",
            contents: unhex(SNAPSHOT_FOOTER),
            flags: &["--deep-iteration"],
            expected: &["KRaft bootstrap snapshot"],
        },
        Case {
            file: "t-0/00000000000000000000.log",
            contents: [offsets_log(), vec![0; 7]].concat(),
            flags: &[],
            expected: &["Found 7 invalid bytes at the end of 00000000000000000000.log"],
        },
    ]
}

fn ottla(flags: &[&str], file: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ottla"))
        .arg("dump-log")
        .args(flags)
        .arg("--files")
        .arg(file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn kafka(classpath: &str, flags: &[&str], file: &Path) -> String {
    let output = Command::new("java")
        .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"])
        .args(["-cp", classpath, "org.apache.kafka.tools.DumpLogSegments"])
        .args(flags)
        .arg("--files")
        .arg(file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn kafkas_own_topics_are_printed_as_by_kafka() {
    let classpath = std::env::var("OTTLA_KAFKA_CLASSPATH").ok();
    assert!(
        classpath.is_some() || std::env::var("OTTLA_CI").as_deref() != Ok("1"),
        "OTTLA_KAFKA_CLASSPATH is not set"
    );
    let dir = tempfile::tempdir().unwrap();
    for case in cases() {
        let file: PathBuf = dir.path().join(case.file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, &case.contents).unwrap();
        let ours = ottla(case.flags, &file);
        for expected in case.expected {
            assert!(ours.contains(expected), "{expected}\nis missing in\n{ours}");
        }
        assert!(!ours.contains("isvalid: false"), "{ours}");
        let Some(classpath) = &classpath else {
            continue;
        };
        // The words of an exception are nobody's to copy.
        let told = |text: &str| -> Vec<String> {
            let lines = text
                .lines()
                .map(|line| match line.split_once(", skipping.") {
                    Some((known, _)) => known.to_owned(),
                    None => line.to_owned(),
                });
            lines.collect()
        };
        let theirs = kafka(classpath, case.flags, &file);
        assert_eq!(told(&ours), told(&theirs), "{}", case.file);
    }
}

#[test]
fn problems_are_told_after_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("00000000000000000000.log"), offsets_log()).unwrap();
    // Offset 2 stands at 0, not at the second batch's start, and nothing has offset 4.
    let second = batch_len() as u8;
    let index = [[0, 0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 7, 0, 0, 0, second]];
    std::fs::write(path("00000000000000000000.index"), index.concat()).unwrap();
    let mut times = Vec::new();
    times.extend((NOW - 1).to_be_bytes());
    times.extend([0, 0, 0, 2]);
    times.extend((NOW - 2).to_be_bytes());
    times.extend([0, 0, 0, 4]);
    std::fs::write(path("00000000000000000000.timeindex"), &times).unwrap();
    let files = [
        "00000000000000000000.index",
        "00000000000000000000.timeindex",
    ];
    let files = files.map(|name| path(name).display().to_string()).join(",");
    let output = Command::new(env!("CARGO_BIN_EXE_ottla"))
        .args(["dump-log", "--verify-index-only", "--files", &files])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    for expected in [
        "Index offset: 1, log offset: 2",
        &format!("Index timestamp: {}, log timestamp: {NOW}", NOW - 1),
        "Indexed offset: 4, found log offset: 7",
    ] {
        assert!(told.contains(expected), "{expected}\nis missing in\n{told}");
    }
    let unknown = path("notes.txt");
    std::fs::write(&unknown, "x").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ottla"))
        .args(["dump-log", "--files"])
        .arg(&unknown)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("Ignoring unknown file"));
    let output = Command::new(env!("CARGO_BIN_EXE_ottla"))
        .args(["dump-log", "--files"])
        .arg(path("00000000000000000009.log"))
        .output()
        .unwrap();
    assert!(!output.status.success());
}

/// Bytes of the first batch of [`offsets_log`].
fn batch_len() -> usize {
    let log = offsets_log();
    12 + u32::from_be_bytes(log[8..12].try_into().unwrap()) as usize
}
