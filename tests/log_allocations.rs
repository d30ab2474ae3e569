//! Appending and reading the tail allocate next to nothing: no more than what the bytes
//! themselves take to be shared.

#[path = "support/allocations.rs"]
mod allocations;
#[path = "support/rules.rs"]
mod rules;

use std::rc::Rc;

use allocations::allocations;
use bytes::BytesMut;
use ottla::base::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};
use ottla::io::RealDisk;
use ottla::log::{Log, LogConfig, OpenParams, TailPool};
use ottla::record::{BatchBuilder, BatchParams, ProducerInfo, Validated, validate};
use rules::rules;

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
    // As a slice of a received frame is: shared already.
    let mut frame = BytesMut::from(&builder.finish()[..]);
    let batch = frame.split();
    validate(batch, &rules(NOW)).unwrap()
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
            let before = allocations();
            let info = log.append_as_leader(batch, LeaderEpoch(0), NOW).unwrap();
            let end = log.log_end_offset();
            let read = log.read(info.first_offset, 1 << 20, end, true).unwrap();
            assert_eq!(read.bytes, info.bytes as usize);
            drop(read);
            // The first ones set up the slab and the producer.
            if i >= 100 {
                counted += allocations() - before;
            }
        }
        // New slabs, blocks of the queues, and nothing per append.
        assert!(counted <= 100, "{counted} allocations of {value_len} bytes");
    }
    assert_eq!(log.log_end_offset(), Offset(i64::from(sequence)));
}
