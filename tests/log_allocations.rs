//! Appending and reading the tail allocate next to nothing: no more than what the bytes
//! themselves take to be shared.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::rc::Rc;

use bytes::BytesMut;
use ottla::base::{LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId};
use ottla::io::RealDisk;
use ottla::log::{Log, LogConfig, OpenParams, TailPool};
use ottla::record::{
    BatchBuilder, BatchParams, Origin, ProducerInfo, TargetCompression, TimestampType, Validated,
    ValidationRules, validate,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const NOW: i64 = 1_700_000_000_000;

fn validated(sequence: i32, value_len: usize) -> Validated {
    let mut builder = BatchBuilder::new(BatchParams {
        producer: ProducerInfo {
            id: ProducerId(1),
            epoch: ProducerEpoch(0),
            base_sequence: sequence,
        },
        ..BatchParams::default()
    });
    builder.append(NOW, None, Some(&vec![b'v'; value_len]), &[]);
    let rules = ValidationRules {
        topic: "t",
        partition: PartitionIndex(0),
        now_ms: NOW,
        max_message_bytes: 1 << 20,
        compression_type: TargetCompression::Producer,
        timestamp_type: TimestampType::CreateTime,
        before_max_ms: i64::MAX,
        after_max_ms: i64::MAX,
        compacted: false,
        origin: Origin::Client,
        produce_version: 11,
    };
    // As a slice of a received frame is: shared already.
    let mut frame = BytesMut::from(&builder.finish()[..]);
    let batch = frame.split();
    validate(batch, &rules).unwrap()
}

#[test]
fn appends_and_tail_reads_do_not_allocate() {
    let dir = tempfile::tempdir().unwrap();
    let pool = TailPool::new(4 << 20);
    let params = OpenParams::default();
    let (mut log, _) = Log::open(
        Rc::new(RealDisk),
        &dir.path().join("t-0"),
        LogConfig::default(),
        &params,
        &pool,
        NOW,
    )
    .unwrap();
    let mut sequence = 0;
    for value_len in [100, 1_000, 40_000] {
        let batches: Vec<Validated> = (0..600)
            .map(|i| validated(sequence + i, value_len))
            .collect();
        sequence += 600;
        let mut counted = 0;
        for (i, batch) in batches.into_iter().enumerate() {
            let before = ALLOCATIONS.get();
            let info = log.append_as_leader(batch, LeaderEpoch(0), NOW).unwrap();
            let end = log.log_end_offset();
            let read = log.read(info.first_offset, 1 << 20, end, true).unwrap();
            assert_eq!(read.bytes, info.bytes as usize);
            drop(read);
            // The first ones set up the slab and the producer.
            if i >= 100 {
                counted += ALLOCATIONS.get() - before;
            }
        }
        // New slabs, blocks of the queues, and nothing per append.
        assert!(counted <= 100, "{counted} allocations of {value_len} bytes");
    }
    assert_eq!(log.log_end_offset(), Offset(i64::from(sequence)));
}
