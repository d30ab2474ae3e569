//! What a leader's checks of one batch cost. Expected on a 3 GHz core: the CRC at 10 GB/s
//! or more, an uncompressed record 5 to 10 ns, a compressed one its decoder's time on top.
//!
//! `cargo bench --bench record`; `cargo test --benches` runs each once.

use bytes::BytesMut;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ottla::base::{Offset, PartitionIndex};
use ottla::record::{
    BatchBuilder, BatchParams, BatchView, CompressionType, Origin, TargetCompression,
    TimestampType, ValidationRules, first_at_or_after, records, validate,
};

const NOW: i64 = 1_700_000_000_000;

fn rules() -> ValidationRules<'static> {
    ValidationRules {
        topic: "topic",
        partition: PartitionIndex(0),
        now_ms: NOW,
        max_message_bytes: 16 << 20,
        compression_type: TargetCompression::Producer,
        timestamp_type: TimestampType::CreateTime,
        before_max_ms: i64::MAX,
        after_max_ms: 3_600_000,
        compacted: false,
        origin: Origin::Client,
        produce_version: 12,
    }
}

/// `count` records of `size` bytes that compress to about a half.
fn batch(codec: CompressionType, count: usize, size: usize) -> BytesMut {
    let mut rng = ottla::base::Rng::new(1);
    let mut builder = BatchBuilder::new(BatchParams {
        compression: codec.into(),
        ..BatchParams::default()
    });
    for index in 0..count {
        let value: Vec<u8> = (0..size).map(|_| b'a' + rng.below(16) as u8).collect();
        builder.append(NOW + index as i64 / 10, None, Some(&value), &[]);
    }
    BytesMut::from(&builder.finish()[..])
}

fn validation(c: &mut Criterion) {
    let mut group = c.benchmark_group("validate");
    for codec in CompressionType::ALL {
        for (count, size) in [(1, 100), (100, 100), (1_000, 1_000)] {
            let batch = batch(codec, count, size);
            group.throughput(Throughput::Elements(count as u64));
            let id = BenchmarkId::new(codec.name(), format!("{count}x{size}"));
            group.bench_with_input(id, &batch, |bencher, batch| {
                bencher.iter_batched(
                    || batch.clone(),
                    |batch| validate(batch, &rules()).unwrap(),
                    BatchSize::LargeInput,
                );
            });
        }
    }
    group.finish();
}

fn parts(c: &mut Criterion) {
    let plain = batch(CompressionType::None, 1_000, 100);
    let mut group = c.benchmark_group("parts of 1000x100");
    group.throughput(Throughput::Bytes(plain.len() as u64));
    let view = BatchView::parse(&plain).unwrap();
    group.bench_function("crc", |bencher| bencher.iter(|| view.verify_crc()));
    group.bench_function("read all records", |bencher| {
        bencher.iter(|| {
            let mut records = records(&view).unwrap();
            let mut bytes = 0;
            while let Some(record) = records.next() {
                bytes += record.unwrap().value.map_or(0, <[u8]>::len);
            }
            bytes
        });
    });
    group.bench_function("find the last timestamp", |bencher| {
        bencher.iter(|| first_at_or_after(&view, NOW + 99, Offset(0)).unwrap());
    });
    group.bench_function("build", |bencher| {
        let value = [b'x'; 100];
        bencher.iter(|| {
            let mut builder = BatchBuilder::new(BatchParams::default());
            for _ in 0..1_000 {
                builder.append(NOW, None, Some(&value), &[]);
            }
            builder.finish()
        });
    });
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_millis(800))
        .without_plots()
}

criterion_group! {
    name = benches;
    config = short();
    targets = validation, parts
}
criterion_main!(benches);
