//! Record batches (message format v2): views, builders, codecs and the checks that a
//! leader makes before it appends.
//!
//! ```text
//!  off  field                type  CRC   note
//!    0  base offset          i64   no    assigned by the leader, in place
//!    8  batch length         i32   no    bytes after this field
//!   12  leader epoch         i32   no    stamped by the leader, in place
//!   16  magic                i8    no    2
//!   17  crc                  u32   -     CRC-32C over bytes 21..end
//!   21  attributes           i16   yes   codec 0-2, timestamp type 3, transactional 4,
//!                                        control 5, delete horizon 6
//!   23  last offset delta    i32   yes
//!   27  base timestamp       i64   yes   or the delete horizon
//!   35  max timestamp        i64   yes   or the append time
//!   43  producer id          i64   yes   -1 none
//!   51  producer epoch       i16   yes
//!   53  base sequence        i32   yes
//!   57  record count         i32   yes
//!   61  records              ...   yes   compressed as one block when the codec is not 0
//! ```
//!
//! Called by: `api` and `shard` (Produce: [`validate_shape`], [`validate`]), `log` (append,
//! recovery, offsets for timestamps, compaction), the coordinators and the controller
//! ([`BatchBuilder`], [`records`]). Everything here is synchronous and owns no state but a
//! per-thread pool of decoder buffers.
//!
//! Invariants: bytes from outside never index or allocate unchecked. A [`BatchView`]
//! stands over exactly one whole batch of magic 2. Decompression is streaming: it costs a
//! chunk buffer and what the codec's format demands (see [`decompress`]).

pub mod batch;
pub mod builder;
pub mod compression;
pub mod control;
mod crc;
pub mod decompress;
mod feed;
mod rewrite;
pub mod search;
pub mod validate;
pub mod view;

pub use batch::{
    BatchError, BatchView, Batches, HEADER_BYTES, ProducerInfo, TimestampType, increment_sequence,
    set_base_offset, set_leader_epoch, set_max_timestamp,
};
pub use builder::{BatchBuilder, BatchParams};
pub use compression::{Compression, CompressionType, compress};
pub use control::{ControlType, EndTxnMarker};
pub use decompress::{DecompressError, Decompressor};
pub use feed::{Records, records};
pub use search::{first_at_or_after, offset_of_max_timestamp};
pub use validate::{
    Origin, Rejected, TargetCompression, Validated, Validation, ValidationRules, validate,
    validate_shape,
};
pub use view::{Header, Headers, Malformed, RecordView, RecordsError};
