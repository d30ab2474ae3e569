//! A batch that expands a thousandfold costs a small buffer, not what comes out of it.
//! The only test of its program, since it measures the process.

use bytes::BytesMut;
use ottla::base::{ErrorCode, PartitionIndex};
use ottla::record::{
    BatchBuilder, BatchParams, BatchView, CompressionType, DecompressError, Decompressor, Origin,
    Rejected, TargetCompression, TimestampType, Validated, Validation, ValidationRules, records,
};

const MIB: usize = 1 << 20;
/// Larger than the chunk in which compressed records are checked.
const VALUE_BYTES: usize = 100_000;

/// Bytes that the process has allocated now; those of the codecs written in C too.
fn allocated() -> usize {
    // SAFETY: the call has no preconditions; it reads the allocator's counters.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

/// A batch of `size` zeros in records of 100 kB, less than 1 MiB as it is sent.
fn bomb(codec: CompressionType, size: usize) -> Vec<u8> {
    let value = vec![0; VALUE_BYTES];
    let mut builder = BatchBuilder::new(BatchParams {
        compression: codec.into(),
        ..BatchParams::default()
    });
    for _ in 0..size / VALUE_BYTES {
        builder.append(0, None, Some(&value), &[]);
    }
    let batch = builder.finish();
    assert!(batch.len() < MIB, "{codec:?} {}", batch.len());
    batch.to_vec()
}

/// Validates record by record; returns also the most that it held meanwhile.
fn measured(batch: &[u8], rules: &ValidationRules<'_>) -> (Result<Validated, Rejected>, usize) {
    let batch = BytesMut::from(batch);
    let before = allocated();
    let mut most = 0;
    let mut validation = Validation::begin(&batch, rules).unwrap();
    let result = loop {
        let done = validation.advance(&batch, 1);
        most = most.max(allocated().saturating_sub(before));
        match done {
            Ok(true) => break Ok(()),
            Ok(false) => {}
            Err(rejected) => break Err(rejected),
        }
    };
    (result.map(|()| validation.finish(batch)), most)
}

#[test]
fn a_compression_bomb_costs_a_small_buffer() {
    let rules = ValidationRules {
        topic: "t",
        partition: PartitionIndex(0),
        now_ms: 1_000,
        max_message_bytes: 2 * MIB as i32,
        compression_type: TargetCompression::Producer,
        timestamp_type: TimestampType::CreateTime,
        before_max_ms: i64::MAX,
        after_max_ms: i64::MAX,
        compacted: false,
        origin: Origin::Client,
        produce_version: 9,
    };
    for (codec, size) in [
        (CompressionType::Gzip, 60 * MIB),
        (CompressionType::Snappy, 20 * MIB),
        (CompressionType::Lz4, 60 * MIB),
        (CompressionType::Zstd, 60 * MIB),
    ] {
        let batch = bomb(codec, size);
        let (validated, cost) = measured(&batch, &rules);
        println!("{codec:?}: {} bytes of {size} cost {cost}", batch.len());
        assert_eq!(validated.unwrap().record_count as usize, size / VALUE_BYTES);
        assert!(cost < 3 * MIB, "{codec:?} cost {cost} bytes");

        // Asked for uncompressed, it is refused as soon as it has grown too large.
        let rewriting = ValidationRules {
            compression_type: TargetCompression::Codec(CompressionType::None.into()),
            ..rules
        };
        let (rejected, cost) = measured(&batch, &rewriting);
        println!("{codec:?}: rewriting cost {cost}");
        assert_eq!(rejected.unwrap_err().error, ErrorCode::MESSAGE_TOO_LARGE);
        assert!(cost < 8 * MIB, "rewriting {codec:?} cost {cost} bytes");

        // A reader may bound the records that it takes into memory.
        let view = BatchView::parse(&batch).unwrap();
        let mut reader = records(&view).unwrap().with_record_bytes_max(50_000);
        assert!(reader.next().unwrap().is_err());
        assert!(reader.next().is_none());

        // The bound on all that comes out.
        let mut decoder = Decompressor::with_limit(codec, 100_000).unwrap();
        let mut out = vec![0; 4_096];
        let mut total = 0;
        let error = loop {
            match decoder.read(view.payload(), &mut out) {
                Ok(count) => total += count,
                Err(error) => break error,
            }
        };
        assert_eq!(error, DecompressError::OutputLimit(100_000));
        assert!(total <= 100_000);
    }
}
