//! The CRC of a large batch, in steps. It is kept in two parts, before and behind the fields
//! that a leader patches, so that a patched batch needn't be read again.
//!
//! ```text
//! attributes … max timestamp │ producer id … records
//! └────────── head ─────────┘ └─────── tail ───────┘
//! ```
//! Called by `validate::Validation`, `batch` puts what comes out into the header.

use crc_fast::{CrcAlgorithm, Digest, checksum_combine};

use super::batch::{AT_ATTRIBUTES, AT_PRODUCER_ID};

/// Of the tail of one batch, which is given to each call.
pub(super) struct TailCrc {
    digest: Digest,
    /// Bytes of the batch up to here are in it.
    at: usize,
}

impl TailCrc {
    pub fn new() -> TailCrc {
        TailCrc {
            digest: Digest::new(CrcAlgorithm::Crc32Iscsi),
            at: AT_PRODUCER_ID,
        }
    }

    /// Takes in at most `bytes_max` more bytes. True when nothing is left.
    pub fn advance(&mut self, batch: &[u8], bytes_max: usize) -> bool {
        let end = batch.len().min(self.at.saturating_add(bytes_max));
        self.digest.update(&batch[self.at..end]);
        self.at = end;
        end == batch.len()
    }

    /// The CRC of the batch with the head that it has now; all of its tail was taken in.
    pub fn of_whole(&self, batch: &[u8]) -> u32 {
        assert_eq!(self.at, batch.len(), "all of the tail");
        let head = crc_fast::crc32_iscsi(&batch[AT_ATTRIBUTES..AT_PRODUCER_ID]);
        let tail_bytes = (batch.len() - AT_PRODUCER_ID) as u64;
        let tail = self.digest.finalize();
        let whole = checksum_combine(CrcAlgorithm::Crc32Iscsi, head.into(), tail, tail_bytes);
        u32::try_from(whole).expect("a CRC of 32 bits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    #[test]
    fn steps_of_any_size_give_the_crc_of_the_whole() {
        let mut rng = Rng::new(9);
        for _ in 0..200 {
            let len = AT_PRODUCER_ID + rng.below(5_000) as usize;
            let mut batch: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8).collect();
            let mut tail = TailCrc::new();
            while !tail.advance(&batch, 1 + rng.below(700) as usize) {}
            for _ in 0..2 {
                let expected = crc_fast::crc32_iscsi(&batch[AT_ATTRIBUTES..]);
                assert_eq!(tail.of_whole(&batch), expected);
                batch[AT_ATTRIBUTES + 3] ^= 0x5a;
            }
        }
    }
}
