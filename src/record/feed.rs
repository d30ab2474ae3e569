//! The uncompressed bytes of a batch's records, one record at a time, whether the batch is
//! compressed or not.
//!
//! A [`Feed`] holds no reference to the payload: every call is given it again. So a check
//! of a large batch can stop and go on later (see `validate::Validation`). A compressed
//! batch costs one chunk buffer and its decoder, however large its records are.

use super::batch::BatchView;
use super::compression::CompressionType;
use super::decompress::{DecompressError, Decompressor, OUTPUT_BYTES_MAX};
use super::view::{
    Cursor, Malformed, PREFIX_BYTES_MAX, RecordView, RecordsError, Skim, VARINT_BYTES_MAX,
    body_length, check_header_count, skim,
};

/// Decompressed bytes held at once. Records that fit are checked as one slice.
const CHUNK_BYTES: usize = 32 * 1024;

/// Position in the bytes of a batch's records.
pub(super) enum Feed {
    Plain { at: usize },
    Packed(Box<Packed>),
}

pub(super) struct Packed {
    decompressor: Decompressor,
    /// Of `CHUNK_BYTES`; `start..end` of it holds decoded bytes that were not consumed.
    chunk: Vec<u8>,
    start: usize,
    end: usize,
    /// Set once: nothing more comes, because of the end or of an error.
    ended: Option<Result<(), DecompressError>>,
}

impl Feed {
    pub fn new(codec: CompressionType, output_bytes_max: u64) -> Feed {
        match Decompressor::with_limit(codec, output_bytes_max) {
            None => Feed::Plain { at: 0 },
            Some(decompressor) => Feed::Packed(Box::new(Packed {
                decompressor,
                chunk: vec![0; CHUNK_BYTES],
                start: 0,
                end: 0,
                ended: None,
            })),
        }
    }

    /// The bytes from here on that are at hand: at least `count`, which is at most
    /// [`Feed::at_once`], unless the records end before.
    #[inline]
    pub fn peek<'s>(
        &'s mut self,
        payload: &'s [u8],
        count: usize,
    ) -> Result<&'s [u8], RecordsError> {
        match self {
            Feed::Plain { at } => Ok(payload.get(*at..).unwrap_or_default()),
            Feed::Packed(packed) => packed.peek(payload, count),
        }
    }

    /// Moves behind `count` bytes that were peeked.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        match self {
            Feed::Plain { at } => *at += count,
            Feed::Packed(packed) => {
                debug_assert!(packed.start + count <= packed.end, "peeked before");
                packed.start += count;
            }
        }
    }

    /// How many bytes a peek can ask for.
    #[inline]
    fn at_once(&self) -> usize {
        match self {
            Feed::Plain { .. } => usize::MAX,
            Feed::Packed(_) => CHUNK_BYTES,
        }
    }

    /// Walks over the next record and tells what the checks need of it.
    #[inline]
    pub fn skim(&mut self, payload: &[u8]) -> Result<Skim, RecordsError> {
        let Feed::Plain { at } = self else {
            return self.skim_packed(payload);
        };
        let rest = payload.get(*at..).unwrap_or_default();
        let (length, prefix) = body_length(rest)?;
        let total = length + prefix;
        let body = rest.get(prefix..total).ok_or(Malformed::EndReached)?;
        let skim = skim(body, total)?;
        *at += total;
        Ok(skim)
    }

    fn skim_packed(&mut self, payload: &[u8]) -> Result<Skim, RecordsError> {
        let (length, prefix) = body_length(self.peek(payload, VARINT_BYTES_MAX)?)?;
        let total = length + prefix;
        if total > CHUNK_BYTES {
            return self.skim_large(payload, length, prefix);
        }
        let record = self
            .peek(payload, total)?
            .get(prefix..total)
            .ok_or(Malformed::EndReached)?;
        let skim = skim(record, total)?;
        self.consume(total);
        Ok(skim)
    }

    /// Checks that no bytes follow the last record.
    pub fn expect_end(&mut self, payload: &[u8]) -> Result<(), RecordsError> {
        if self.peek(payload, 1)?.is_empty() {
            Ok(())
        } else {
            Err(Malformed::Remaining.into())
        }
    }

    /// The same walk as `view::skim` for a record that is larger than a chunk.
    #[cold]
    fn skim_large(
        &mut self,
        payload: &[u8],
        length: usize,
        prefix: usize,
    ) -> Result<Skim, RecordsError> {
        self.consume(prefix);
        let mut body = Body {
            feed: self,
            payload,
            left: length,
        };
        let (timestamp_delta, offset_delta) = body.fields(PREFIX_BYTES_MAX, |cursor| {
            cursor.byte()?;
            Ok((cursor.varlong()?, cursor.varint()?))
        })?;
        let key_length = body.varint()?;
        body.skip(key_length)?;
        let value_length = body.varint()?;
        body.skip(value_length)?;
        for _ in 0..check_header_count(body.varint()?)? {
            let key_length = body.varint()?;
            if key_length < 0 {
                return Err(Malformed::HeaderKey.into());
            }
            body.skip(key_length)?;
            let value_length = body.varint()?;
            body.skip(value_length)?;
        }
        if body.left > 0 {
            return Err(Malformed::ShorterThanSize.into());
        }
        Ok(Skim {
            size: prefix + length,
            offset_delta,
            timestamp_delta,
            key_length,
            value_length,
        })
    }
}

impl Packed {
    #[inline]
    fn peek(&mut self, payload: &[u8], count: usize) -> Result<&[u8], RecordsError> {
        if self.end - self.start < count {
            self.fill(payload, count)?;
        }
        Ok(&self.chunk[self.start..self.end])
    }

    fn fill(&mut self, payload: &[u8], count: usize) -> Result<(), RecordsError> {
        debug_assert!(count <= CHUNK_BYTES, "a peek asks for at most a chunk");
        if self.start > 0 {
            self.chunk.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        while self.end < count {
            match &self.ended {
                None => {}
                Some(Ok(())) => break,
                Some(Err(error)) => return Err(error.clone().into()),
            }
            match self.decompressor.read(payload, &mut self.chunk[self.end..]) {
                Ok(0) => self.ended = Some(Ok(())),
                Ok(read) => self.end += read,
                Err(error) => self.ended = Some(Err(error)),
            }
        }
        Ok(())
    }
}

/// The rest of one large record's body.
struct Body<'f> {
    feed: &'f mut Feed,
    payload: &'f [u8],
    left: usize,
}

impl Body<'_> {
    /// Parses fields that take at most `bytes_max` bytes.
    fn fields<T>(
        &mut self,
        bytes_max: usize,
        parse: impl FnOnce(&mut Cursor<'_>) -> Result<T, Malformed>,
    ) -> Result<T, RecordsError> {
        let bytes = self.feed.peek(self.payload, bytes_max.min(self.left))?;
        let bytes = &bytes[..bytes.len().min(self.left)];
        let mut cursor = Cursor::new(bytes);
        let fields = parse(&mut cursor)?;
        let count = bytes.len() - cursor.rest().len();
        self.feed.consume(count);
        self.left -= count;
        Ok(fields)
    }

    fn varint(&mut self) -> Result<i32, RecordsError> {
        self.fields(VARINT_BYTES_MAX, |cursor| cursor.varint())
    }

    /// Passes over a key or value; nothing where the length is negative.
    fn skip(&mut self, length: i32) -> Result<(), RecordsError> {
        let mut length = usize::try_from(length).unwrap_or(0);
        self.left = self
            .left
            .checked_sub(length)
            .ok_or(Malformed::EndWithinField)?;
        while length > 0 {
            let count = self.feed.peek(self.payload, 1)?.len().min(length);
            if count == 0 {
                return Err(Malformed::EndWithinField.into());
            }
            self.feed.consume(count);
            length -= count;
        }
        Ok(())
    }
}

/// Reads the records of a batch, decompressing as it goes; see [`records`].
pub struct Records<'a> {
    payload: &'a [u8],
    feed: Feed,
    left: i32,
    record_bytes_max: usize,
    /// Holds a record that is larger than a chunk.
    large: Vec<u8>,
    failed: bool,
}

/// The records of a batch whose CRC was checked, in order. Control batches too.
///
/// Memory: a chunk, the codec's window, and the largest record.
///
/// ```ignore
/// let mut records = records(&batch)?;
/// while let Some(record) = records.next() { let record = record?; }
/// ```
pub fn records<'a>(batch: &BatchView<'a>) -> Result<Records<'a>, RecordsError> {
    let codec = batch
        .compression()
        .ok_or(RecordsError::UnknownCodec(batch.codec_id()))?;
    let left = batch.record_count();
    if left < 0 {
        return Err(Malformed::RecordCount.into());
    }
    Ok(Records {
        payload: batch.payload(),
        feed: Feed::new(codec, OUTPUT_BYTES_MAX),
        left,
        record_bytes_max: usize::MAX,
        large: Vec::new(),
        failed: false,
    })
}

impl<'a> Records<'a> {
    /// Refuses records of more bytes, for a reader that has little memory to give.
    pub fn with_record_bytes_max(mut self, record_bytes_max: usize) -> Records<'a> {
        self.record_bytes_max = record_bytes_max;
        self
    }

    /// The next record. The first error ends the walk. With the last record it is checked
    /// that nothing follows it.
    #[allow(clippy::should_implement_trait)] // The record borrows from the reader.
    pub fn next(&mut self) -> Option<Result<RecordView<'_>, RecordsError>> {
        if self.failed || self.left == 0 {
            return None;
        }
        self.left -= 1;
        // The record is found first and parsed afterwards, so that the borrow which is
        // returned begins when nothing else is done with `self`.
        let place = match self.locate() {
            Ok(place) => place,
            Err(error) => {
                self.failed = true;
                return Some(Err(error));
            }
        };
        let body = match place {
            Place::Large => self.large.as_slice(),
            Place::Payload(range) => &self.payload[range],
            Place::Chunk(range) => match &self.feed {
                Feed::Packed(packed) => &packed.chunk[range],
                Feed::Plain { .. } => unreachable!("only packed records lie in a chunk"),
            },
        };
        let record = RecordView::parse(body);
        self.failed = record.is_err();
        Some(record)
    }

    fn locate(&mut self) -> Result<Place, RecordsError> {
        let payload = self.payload;
        let (length, prefix) = body_length(self.feed.peek(payload, VARINT_BYTES_MAX)?)?;
        if length > self.record_bytes_max {
            return Err(Malformed::TooLarge.into());
        }
        let total = length + prefix;
        if total > self.feed.at_once() {
            self.feed.consume(prefix);
            self.read_large(length)?;
            self.expect_end_if_last()?;
            return Ok(Place::Large);
        }
        if self.feed.peek(payload, total)?.len() < total {
            return Err(Malformed::EndReached.into());
        }
        let start = match &self.feed {
            Feed::Plain { at } => *at,
            Feed::Packed(packed) => packed.start,
        };
        let range = start + prefix..start + total;
        if self.left == 0 {
            // The check may move the chunk's bytes, so the last record is copied out.
            if let Feed::Packed(packed) = &self.feed {
                self.large.clear();
                self.large.extend_from_slice(&packed.chunk[range]);
                self.feed.consume(total);
                self.expect_end_if_last()?;
                return Ok(Place::Large);
            }
        }
        self.feed.consume(total);
        self.expect_end_if_last()?;
        Ok(match &self.feed {
            Feed::Plain { .. } => Place::Payload(range),
            Feed::Packed(_) => Place::Chunk(range),
        })
    }

    fn expect_end_if_last(&mut self) -> Result<(), RecordsError> {
        if self.left == 0 {
            self.feed.expect_end(self.payload)?;
        }
        Ok(())
    }

    /// Collects a body; the buffer grows with the bytes that come, not with the claim.
    fn read_large(&mut self, length: usize) -> Result<(), RecordsError> {
        self.large.clear();
        while self.large.len() < length {
            let left = length - self.large.len();
            let bytes = self.feed.peek(self.payload, 1)?;
            let count = bytes.len().min(left);
            if count == 0 {
                return Err(Malformed::EndReached.into());
            }
            self.large.extend_from_slice(&bytes[..count]);
            self.feed.consume(count);
        }
        Ok(())
    }
}

/// Where the body of the record just located lies.
enum Place {
    Payload(std::ops::Range<usize>),
    Chunk(std::ops::Range<usize>),
    Large,
}
