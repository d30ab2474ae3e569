//! Helpers of this module's unit tests.

use crate::base::{LeaderEpoch, Offset};
use crate::record::{BatchBuilder, BatchParams};

/// Bytes from their hexadecimal digits.
pub fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u32> = digits.chars().map(|c| c.to_digit(16).unwrap()).collect();
    let pairs = digits.chunks_exact(2);
    pairs.map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

/// A valid batch of `count` records from `base_offset` on, of `size` bytes or a few more.
pub fn batch_of_size(base_offset: i64, count: i32, size: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchParams {
        base_offset: Offset(base_offset),
        leader_epoch: LeaderEpoch(0),
        ..BatchParams::default()
    });
    for _ in 1..count {
        builder.append(1_000 + base_offset, None, None, &[]);
    }
    let rest = size.saturating_sub(builder.uncompressed_size() + 8);
    builder.append(1_000 + base_offset, None, Some(&vec![b'x'; rest]), &[]);
    builder.finish().to_vec()
}
