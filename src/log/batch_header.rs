//! The 61-byte header of a record batch as it stands in a segment file.
//!
//! Everything in `log` that walks a file or the tail cache goes from header to header
//! with this; record contents are `record`'s business. Reading a header checks its shape
//! only, not the CRC (which covers the payload too).
//!
//! ```text
//!  0 base offset i64 | 8 length i32 | 12 leader epoch i32 | 16 magic i8 | 17 crc u32
//! 21 attributes i16 | 23 last offset delta i32 | 27 base timestamp i64
//! 35 max timestamp i64 | 43 producer id i64 | 51 producer epoch i16
//! 53 base sequence i32 | 57 record count i32 | 61 records
//! ```

use crate::base::{LeaderEpoch, Millis, Offset, ProducerEpoch, ProducerId};

/// Bytes of the header.
pub const HEADER_LEN: usize = 61;
/// Bytes before what the length field counts.
const LENGTH_END: usize = 12;
const MAGIC_AT: usize = 16;

const TIMESTAMP_TYPE_BIT: i16 = 1 << 3;
const TRANSACTIONAL_BIT: i16 = 1 << 4;
const CONTROL_BIT: i16 = 1 << 5;

/// A batch's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: Offset,
    /// Bytes of the whole batch, header included: at least [`HEADER_LEN`].
    pub size: u32,
    pub leader_epoch: LeaderEpoch,
    pub attributes: i16,
    /// Not negative.
    pub last_offset_delta: i32,
    pub max_timestamp: Millis,
    pub producer_id: ProducerId,
    pub producer_epoch: ProducerEpoch,
    pub base_sequence: i32,
    pub record_count: i32,
}

/// Why bytes are no batch header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("fewer bytes than a batch header")]
    Truncated,
    #[error("record size {0} is smaller than a batch header")]
    TooSmall(i32),
    /// Formats 0 and 1, which brokers stopped writing with 3.0, are not read.
    #[error("message format {0} is not supported")]
    OldMagic(i8),
    #[error("unknown message format {0}")]
    BadMagic(i8),
    #[error("negative offset or offset delta")]
    BadOffset,
    /// Found by those who walk from batch to batch.
    #[error("offsets don't grow")]
    OffsetFalls,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, HeaderError> {
        let length = i32::from_be_bytes(array(bytes, 8).ok_or(HeaderError::Truncated)?);
        let size = length.saturating_add(LENGTH_END as i32);
        let magic = *bytes.get(MAGIC_AT).ok_or(HeaderError::Truncated)? as i8;
        // 14 is the least that a message of any format can be.
        match magic {
            0 | 1 if length >= 14 => return Err(HeaderError::OldMagic(magic)),
            _ if size < HEADER_LEN as i32 => return Err(HeaderError::TooSmall(length)),
            2 => {}
            _ => return Err(HeaderError::BadMagic(magic)),
        }
        let bytes: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(HeaderError::Truncated)?;
        let header = BatchHeader {
            base_offset: Offset(i64::from_be_bytes(part(bytes, 0))),
            // At least `HEADER_LEN`, so not negative.
            size: size as u32,
            leader_epoch: LeaderEpoch(i32::from_be_bytes(part(bytes, 12))),
            attributes: i16::from_be_bytes(part(bytes, 21)),
            last_offset_delta: i32::from_be_bytes(part(bytes, 23)),
            max_timestamp: i64::from_be_bytes(part(bytes, 35)),
            producer_id: ProducerId(i64::from_be_bytes(part(bytes, 43))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(part(bytes, 51))),
            base_sequence: i32::from_be_bytes(part(bytes, 53)),
            record_count: i32::from_be_bytes(part(bytes, 57)),
        };
        let records = i64::from(header.last_offset_delta) + 1;
        let end = header.base_offset.0.checked_add(records);
        if header.base_offset.0 < 0 || header.last_offset_delta < 0 || end.is_none() {
            return Err(HeaderError::BadOffset);
        }
        Ok(header)
    }

    pub fn last_offset(&self) -> Offset {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    pub fn next_offset(&self) -> Offset {
        self.last_offset() + 1
    }

    pub fn has_producer_id(&self) -> bool {
        self.producer_id.0 > ProducerId::NONE.0
    }

    /// Sequence of the last record; -1 where the batch has none. Wraps to 0 after 2^31-1.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return -1;
        }
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (last % (i64::from(i32::MAX) + 1)) as i32
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    pub fn is_log_append_time(&self) -> bool {
        self.attributes & TIMESTAMP_TYPE_BIT != 0
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn part<const N: usize>(bytes: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    array(bytes, at).expect("fields lie within the header")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::testing::hex;

    #[test]
    fn reads_what_kafka_wrote() {
        let data = hex(
            "00000000000000030000004c0000000002186acb16001000000002000001a2034a2e0b000001a2034a2e0b\
             000000000000000100000000000000000003100000000104743000100000020104743100100000040104743200",
        );
        let header = BatchHeader::parse(&data).unwrap();
        assert_eq!(header.size as usize, data.len());
        assert_eq!(header.base_offset, Offset(3));
        assert_eq!(header.next_offset(), Offset(6));
        assert!(header.is_transactional() && !header.is_control());
        assert_eq!(header.producer_id, ProducerId(1));
        assert_eq!((header.base_sequence, header.last_sequence()), (0, 2));
        assert_eq!(header.record_count, 3);
        assert_eq!(BatchHeader::parse(&data[..60]), Err(HeaderError::Truncated));
    }

    #[test]
    fn refuses_what_is_no_header() {
        assert_eq!(
            BatchHeader::parse(&[0; HEADER_LEN]),
            Err(HeaderError::TooSmall(0))
        );
        let mut old = [0; HEADER_LEN];
        old[11] = 30;
        old[MAGIC_AT] = 1;
        assert_eq!(BatchHeader::parse(&old), Err(HeaderError::OldMagic(1)));
        old[MAGIC_AT] = 2;
        assert_eq!(BatchHeader::parse(&old), Err(HeaderError::TooSmall(30)));
        old[11] = 49;
        assert!(BatchHeader::parse(&old).is_ok());
        old[0] = 0x80;
        assert_eq!(BatchHeader::parse(&old), Err(HeaderError::BadOffset));
        old[..8].fill(0xff);
        old[0] = 0x7f;
        assert_eq!(BatchHeader::parse(&old), Err(HeaderError::BadOffset));
    }

    #[test]
    fn sequences_wrap() {
        let mut bytes = [0; HEADER_LEN];
        bytes[11] = 49;
        bytes[MAGIC_AT] = 2;
        bytes[53..57].copy_from_slice(&(i32::MAX - 1).to_be_bytes());
        bytes[23..27].copy_from_slice(&3i32.to_be_bytes());
        let header = BatchHeader::parse(&bytes).unwrap();
        assert_eq!(header.last_sequence(), 1);
    }
}
