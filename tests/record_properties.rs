//! Batches of every codec survive building, parsing and validating; damaged ones are
//! refused or read, never a panic.

use bytes::BytesMut;
use ottla::base::{ErrorCode, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId};
use ottla::record::{
    BatchBuilder, BatchParams, BatchView, Batches, Compression, CompressionType, Header, Origin,
    ProducerInfo, Rejected, TargetCompression, TimestampType, Validated, Validation,
    ValidationRules, first_at_or_after, offset_of_max_timestamp, records, set_base_offset,
    set_leader_epoch, validate, validate_shape,
};
use proptest::prelude::*;

const NOW: i64 = 1_700_000_000_000;

type Bytes = Vec<u8>;

#[derive(Clone, Debug, PartialEq)]
struct Record {
    timestamp: i64,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Vec<(Bytes, Option<Bytes>)>,
}

fn rules() -> ValidationRules<'static> {
    ValidationRules {
        topic: "t",
        partition: PartitionIndex(0),
        now_ms: NOW,
        max_message_bytes: 16 << 20,
        compression_type: TargetCompression::Producer,
        timestamp_type: TimestampType::CreateTime,
        before_max_ms: i64::MAX,
        after_max_ms: 3_600_000,
        compacted: false,
        origin: Origin::Client,
        produce_version: 9,
    }
}

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..20),
        // Some beyond the chunk in which compressed records are checked.
        1 => (0..max, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    (
        prop_oneof![Just(-1), NOW - 5_000..NOW + 5_000],
        prop::option::of(bytes(70_000)),
        prop::option::of(bytes(70_000)),
        prop::collection::vec((bytes(40_000), prop::option::of(bytes(40_000))), 0..3),
    )
        .prop_map(|(timestamp, key, value, headers)| Record {
            timestamp,
            key,
            value,
            headers,
        })
}

fn codec() -> impl Strategy<Value = CompressionType> {
    prop::sample::select(CompressionType::ALL.to_vec())
}

fn producer() -> impl Strategy<Value = ProducerInfo> {
    prop_oneof![
        Just(ProducerInfo::NONE),
        (0..i64::MAX, 0..i16::MAX, 0..=i32::MAX).prop_map(|(id, epoch, base_sequence)| {
            ProducerInfo {
                id: ProducerId(id),
                epoch: ProducerEpoch(epoch),
                base_sequence,
            }
        }),
    ]
}

fn build(params: BatchParams, records: &[Record]) -> Bytes {
    let mut builder = BatchBuilder::new(params);
    for record in records {
        let headers: Vec<Header<'_>> = record
            .headers
            .iter()
            .map(|(key, value)| Header {
                key,
                value: value.as_deref(),
            })
            .collect();
        builder.append(
            record.timestamp,
            record.key.as_deref(),
            record.value.as_deref(),
            &headers,
        );
    }
    let plain = builder.uncompressed_size();
    let batch = builder.finish().to_vec();
    if params.compression.codec == CompressionType::None {
        assert_eq!(batch.len(), plain);
    }
    batch
}

fn read(batch: &[u8]) -> Vec<Record> {
    let view = BatchView::parse(batch).unwrap();
    let mut found = Vec::new();
    let mut records = records(&view).unwrap();
    while let Some(record) = records.next() {
        let record = record.unwrap();
        assert_eq!(record.offset_delta as usize, found.len());
        found.push(Record {
            timestamp: view.record_timestamp(record.timestamp_delta),
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record
                .headers()
                .map(|header| (header.key.to_vec(), header.value.map(<[u8]>::to_vec)))
                .collect(),
        });
    }
    found
}

/// What [`validate`] does, a few bytes at a time.
fn in_steps(
    batch: BytesMut,
    rules: &ValidationRules<'_>,
    budget: usize,
) -> Result<Validated, Rejected> {
    let mut validation = Validation::begin(&batch, rules)?;
    while !validation.advance(&batch, budget)? {}
    Ok(validation.finish(batch))
}

/// All that validation says, for comparison.
fn outcome(validated: Result<Validated, Rejected>) -> Result<String, Rejected> {
    validated.map(|validated| format!("{validated:?}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_built_is_read_and_passes_validation_in_place(
        list in prop::collection::vec(record(), 1..12),
        codec in codec(),
        producer in producer(),
        budget in 1usize..10_000,
    ) {
        let params = BatchParams {
            compression: codec.into(),
            producer,
            transactional: producer.is_some(),
            ..BatchParams::default()
        };
        let batch = build(params, &list);
        prop_assert_eq!(validate_shape(&batch, 9), Ok(batch.len()));
        prop_assert_eq!(read(&batch), list.clone());

        let validated = validate(BytesMut::from(&batch[..]), &rules()).unwrap();
        prop_assert!(!validated.rewritten);
        prop_assert_eq!(&validated.bytes[..], &batch[..]);
        prop_assert_eq!(validated.record_count as usize, list.len());
        prop_assert_eq!(validated.producer, producer);
        prop_assert_eq!(validated.is_transactional, producer.is_some());
        let max = list.iter().map(|record| record.timestamp).max().unwrap();
        prop_assert_eq!(validated.max_timestamp, max);
        let view = BatchView::parse(&batch).unwrap();
        let found = offset_of_max_timestamp(&view).unwrap().unwrap();
        if max >= 0 {
            prop_assert_eq!(found.offset.0, i64::from(validated.offset_of_max_timestamp_delta));
        }
        for target in [max, max - 1_000, max + 1] {
            let expected = list.iter().position(|record| record.timestamp >= target);
            let found = first_at_or_after(&view, target, Offset(0)).unwrap();
            prop_assert_eq!(found.map(|found| found.offset.0 as usize), expected);
        }

        let stepwise = in_steps(BytesMut::from(&batch[..]), &rules(), budget);
        prop_assert_eq!(outcome(stepwise), outcome(Ok(validated)));
    }

    #[test]
    fn a_rewritten_batch_has_the_same_records(
        list in prop::collection::vec(record(), 1..12),
        from in codec(),
        to in codec(),
        producer in producer(),
        append_time in any::<bool>(),
        budget in 1usize..10_000,
    ) {
        let params = BatchParams { compression: from.into(), producer, ..BatchParams::default() };
        let batch = build(params, &list);
        let rules = ValidationRules {
            compression_type: TargetCompression::Codec(to.into()),
            timestamp_type: if append_time { TimestampType::LogAppendTime } else { TimestampType::CreateTime },
            ..rules()
        };
        let validated = validate(BytesMut::from(&batch[..]), &rules).unwrap();
        prop_assert_eq!(validated.rewritten, from != to);
        let mut expected = list;
        if append_time {
            expected.iter_mut().for_each(|record| record.timestamp = NOW);
        }
        let view = BatchView::parse(&validated.bytes).unwrap();
        prop_assert!(view.verify_crc());
        prop_assert_eq!(view.compression(), Some(to));
        prop_assert_eq!(view.producer(), producer);
        prop_assert_eq!(view.max_timestamp(), validated.max_timestamp);
        prop_assert_eq!(read(&validated.bytes), expected);
        let stepwise = in_steps(BytesMut::from(&batch[..]), &rules, budget);
        prop_assert_eq!(outcome(stepwise), outcome(Ok(validated)));
    }

    #[test]
    fn patching_outside_the_crc_keeps_it(offset in any::<i64>(), epoch in any::<i32>(), codec in codec()) {
        let record = Record { timestamp: NOW, key: None, value: None, headers: Vec::new() };
        let mut batch = build(BatchParams { compression: codec.into(), ..BatchParams::default() }, &[record]);
        set_base_offset(&mut batch, Offset(offset));
        set_leader_epoch(&mut batch, LeaderEpoch(epoch));
        let view = BatchView::parse(&batch).unwrap();
        prop_assert!(view.verify_crc());
        prop_assert_eq!(view.base_offset(), Offset(offset));
        prop_assert_eq!(view.partition_leader_epoch(), LeaderEpoch(epoch));
    }

    #[test]
    fn a_flipped_bit_under_the_crc_is_found(
        list in prop::collection::vec(record(), 1..4),
        codec in codec(),
        at in any::<prop::sample::Index>(),
        bit in 0..8,
    ) {
        let mut batch = build(BatchParams { compression: codec.into(), ..BatchParams::default() }, &list);
        let at = 17 + at.index(batch.len() - 17);
        batch[at] ^= 1u8 << bit;
        let rejected = validate(BytesMut::from(&batch[..]), &rules()).unwrap_err();
        prop_assert_eq!(rejected.error, ErrorCode::CORRUPT_MESSAGE);
    }

    #[test]
    fn damage_behind_a_right_crc_never_panics(
        list in prop::collection::vec(record(), 1..4),
        codec in codec(),
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
        target in prop::option::of(codec()),
        coordinator in any::<bool>(),
        compacted in any::<bool>(),
        budget in 1usize..10_000,
    ) {
        let mut batch = build(BatchParams { compression: codec.into(), ..BatchParams::default() }, &list);
        if let Some(cut) = cut {
            batch.truncate(61 + cut.index(batch.len() - 60));
            let length = batch.len() as i32 - 12;
            batch[8..12].copy_from_slice(&length.to_be_bytes());
        }
        for (at, byte) in damages {
            let at = 21 + at.index(batch.len() - 21);
            batch[at] = byte;
        }
        let crc = crc_fast::crc32_iscsi(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        use_all(&batch);
        let rules = ValidationRules {
            compression_type: target.map_or(TargetCompression::Producer, |codec| {
                TargetCompression::Codec(Compression::from(codec))
            }),
            origin: if coordinator { Origin::Coordinator } else { Origin::Client },
            compacted,
            ..rules()
        };
        let validated = validate(BytesMut::from(&batch[..]), &rules);
        let text = validated.as_ref().map(|v| format!("{v:?}")).map_err(Rejected::clone);
        prop_assert_eq!(outcome(in_steps(BytesMut::from(&batch[..]), &rules, budget)), text);
        if let Ok(validated) = validated {
            let view = BatchView::parse(&validated.bytes).unwrap();
            prop_assert!(view.verify_crc());
            // What was let in can be read to its end.
            let mut records = records(&view).unwrap();
            while let Some(record) = records.next() {
                prop_assert!(record.is_ok());
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), magic in any::<bool>(), fits in any::<bool>()) {
        let mut bytes = bytes;
        if magic && bytes.len() > 16 {
            bytes[16] = 2;
        }
        if fits && bytes.len() > 12 {
            let length = bytes.len() as i32 - 12;
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
        }
        use_all(&bytes);
        for version in [0, 3, 9, 13] {
            if let Ok(size) = validate_shape(&bytes, version) {
                prop_assert!(size <= bytes.len());
            }
        }
        for origin in [Origin::Client, Origin::Coordinator] {
            let _ = validate(BytesMut::from(&bytes[..]), &ValidationRules { origin, ..rules() });
        }
    }
}

/// A batch whose CRC isn't checked at once: in place, patched, and damaged anywhere.
#[test]
fn a_large_batch_is_validated_in_steps_as_in_one_go() {
    const LARGE: usize = 700 << 10;
    let record = |length: usize| Record {
        timestamp: NOW - 3,
        key: None,
        value: Some((0..length).map(|n| ((n * n) >> 7) as u8).collect()),
        headers: Vec::new(),
    };
    for list in [vec![record(LARGE)], vec![record(1_000); LARGE / 1_000]] {
        let batch = build(BatchParams::default(), &list);
        let append_time = ValidationRules {
            timestamp_type: TimestampType::LogAppendTime,
            ..rules()
        };
        for rules in [rules(), append_time] {
            let whole = validate(BytesMut::from(&batch[..]), &rules).unwrap();
            let view = BatchView::parse(&whole.bytes).unwrap();
            assert!(view.verify_crc());
            let text = outcome(Ok(whole));
            for budget in [700, 20_000, usize::MAX] {
                let stepwise = in_steps(BytesMut::from(&batch[..]), &rules, budget);
                assert_eq!(outcome(stepwise), text);
            }
        }
        for at in [17, 22, 36, 44, 70, batch.len() / 2, batch.len() - 1] {
            let mut damaged = BytesMut::from(&batch[..]);
            damaged[at] ^= 0x10;
            let rejected = in_steps(damaged.clone(), &rules(), 20_000).unwrap_err();
            assert_eq!(rejected.error, ErrorCode::CORRUPT_MESSAGE, "at {at}");
            assert_eq!(rejected, validate(damaged, &rules()).unwrap_err());
        }
    }
}

/// Walks all that the bytes seem to hold.
fn use_all(bytes: &[u8]) {
    for batch in Batches::new(bytes).flatten() {
        let _ = format!("{batch:?}");
        let _ = batch.last_sequence();
        let _ = (batch.next_offset(), batch.delete_horizon());
        let _ = first_at_or_after(&batch, i64::MIN, Offset(i64::MAX));
        let _ = offset_of_max_timestamp(&batch);
        if let Ok(mut records) = records(&batch) {
            while let Some(Ok(record)) = records.next() {
                record.headers().for_each(drop);
            }
        }
    }
}
