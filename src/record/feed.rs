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
    /// A large record, of which the beginning was walked.
    large: Option<LargeWalk>,
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
                large: None,
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

    /// Walks over the next record and tells what the checks need of it. `None` when it is
    /// large, and more than about `budget` bytes of it would have to be walked at once: the
    /// next call goes on.
    #[inline]
    pub fn skim(&mut self, payload: &[u8], budget: usize) -> Result<Option<Skim>, RecordsError> {
        let Feed::Plain { at } = self else {
            return self.skim_packed(payload, budget);
        };
        let rest = payload.get(*at..).unwrap_or_default();
        let (length, prefix) = body_length(rest)?;
        let total = length + prefix;
        let body = rest.get(prefix..total).ok_or(Malformed::EndReached)?;
        let skim = skim(body, total)?;
        *at += total;
        Ok(Some(skim))
    }

    fn skim_packed(&mut self, payload: &[u8], budget: usize) -> Result<Option<Skim>, RecordsError> {
        let begun = match self {
            Feed::Packed(packed) => packed.large.take(),
            Feed::Plain { .. } => None,
        };
        if let Some(walk) = begun {
            return self.walk_large(payload, walk, budget);
        }
        let (length, prefix) = body_length(self.peek(payload, VARINT_BYTES_MAX)?)?;
        let total = length + prefix;
        if total > CHUNK_BYTES {
            self.consume(prefix);
            return self.walk_large(payload, LargeWalk::new(length, total), budget);
        }
        let record = self
            .peek(payload, total)?
            .get(prefix..total)
            .ok_or(Malformed::EndReached)?;
        let skim = skim(record, total)?;
        self.consume(total);
        Ok(Some(skim))
    }

    /// Checks that no bytes follow the last record.
    pub fn expect_end(&mut self, payload: &[u8]) -> Result<(), RecordsError> {
        if self.peek(payload, 1)?.is_empty() {
            Ok(())
        } else {
            Err(Malformed::Remaining.into())
        }
    }

    /// Goes on with a record that is larger than a chunk.
    #[cold]
    fn walk_large(
        &mut self,
        payload: &[u8],
        mut walk: LargeWalk,
        budget: usize,
    ) -> Result<Option<Skim>, RecordsError> {
        if walk.advance(self, payload, budget)? {
            return Ok(Some(walk.skim));
        }
        match self {
            Feed::Packed(packed) => packed.large = Some(walk),
            Feed::Plain { .. } => unreachable!("only packed records are walked piecewise"),
        }
        Ok(None)
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

/// The same walk as `view::skim` over a record that is larger than a chunk. It may stop
/// anywhere between fields, or within a key or a value.
struct LargeWalk {
    /// Bytes of the body that belong to none of the fields so far.
    left: usize,
    /// Of them, what is still to be passed over of the last field.
    skipping: usize,
    next: Next,
    headers_left: usize,
    skim: Skim,
}

/// The field that comes next.
#[derive(Clone, Copy)]
enum Next {
    Deltas,
    Key,
    Value,
    HeaderCount,
    HeaderKey,
    HeaderValue,
}

impl LargeWalk {
    fn new(length: usize, size: usize) -> LargeWalk {
        LargeWalk {
            left: length,
            skipping: 0,
            next: Next::Deltas,
            headers_left: 0,
            skim: Skim {
                size,
                offset_delta: 0,
                timestamp_delta: 0,
                key_length: 0,
                value_length: 0,
            },
        }
    }

    /// Goes on for about `budget` bytes. True at the end of the record.
    fn advance(
        &mut self,
        feed: &mut Feed,
        payload: &[u8],
        budget: usize,
    ) -> Result<bool, RecordsError> {
        let mut walked = 0;
        loop {
            walked += self.skip(feed, payload, budget.saturating_sub(walked))?;
            if self.skipping > 0 || walked > budget {
                return Ok(false);
            }
            walked += 1;
            match self.next {
                Next::Deltas => {
                    let parse = |cursor: &mut Cursor<'_>| {
                        cursor.byte()?;
                        Ok((cursor.varlong()?, cursor.varint()?))
                    };
                    (self.skim.timestamp_delta, self.skim.offset_delta) =
                        self.fields(feed, payload, PREFIX_BYTES_MAX, parse)?;
                    self.next = Next::Key;
                }
                Next::Key => {
                    self.skim.key_length = self.field(feed, payload)?;
                    self.begin_skip(self.skim.key_length)?;
                    self.next = Next::Value;
                }
                Next::Value => {
                    self.skim.value_length = self.field(feed, payload)?;
                    self.begin_skip(self.skim.value_length)?;
                    self.next = Next::HeaderCount;
                }
                Next::HeaderCount => {
                    let count = check_header_count(self.field(feed, payload)?)?;
                    self.headers_left = count as usize;
                    self.next = Next::HeaderKey;
                }
                Next::HeaderKey if self.headers_left == 0 => {
                    if self.left > 0 {
                        return Err(Malformed::ShorterThanSize.into());
                    }
                    return Ok(true);
                }
                Next::HeaderKey => {
                    let length = self.field(feed, payload)?;
                    if length < 0 {
                        return Err(Malformed::HeaderKey.into());
                    }
                    self.begin_skip(length)?;
                    self.next = Next::HeaderValue;
                }
                Next::HeaderValue => {
                    let length = self.field(feed, payload)?;
                    self.begin_skip(length)?;
                    self.headers_left -= 1;
                    self.next = Next::HeaderKey;
                }
            }
        }
    }

    fn field(&mut self, feed: &mut Feed, payload: &[u8]) -> Result<i32, RecordsError> {
        self.fields(feed, payload, VARINT_BYTES_MAX, |cursor| cursor.varint())
    }

    /// Parses fields that take at most `bytes_max` bytes.
    fn fields<T>(
        &mut self,
        feed: &mut Feed,
        payload: &[u8],
        bytes_max: usize,
        parse: impl FnOnce(&mut Cursor<'_>) -> Result<T, Malformed>,
    ) -> Result<T, RecordsError> {
        let bytes = feed.peek(payload, bytes_max.min(self.left))?;
        let bytes = &bytes[..bytes.len().min(self.left)];
        let mut cursor = Cursor::new(bytes);
        let fields = parse(&mut cursor)?;
        let count = bytes.len() - cursor.rest().len();
        feed.consume(count);
        self.left -= count;
        Ok(fields)
    }

    /// A key or value follows; nothing where the length is negative.
    fn begin_skip(&mut self, length: i32) -> Result<(), RecordsError> {
        self.skipping = usize::try_from(length).unwrap_or(0);
        self.left = self
            .left
            .checked_sub(self.skipping)
            .ok_or(Malformed::EndWithinField)?;
        Ok(())
    }

    /// Passes over about `budget` bytes of the field; returns how many they were.
    fn skip(
        &mut self,
        feed: &mut Feed,
        payload: &[u8],
        budget: usize,
    ) -> Result<usize, RecordsError> {
        let mut skipped = 0;
        while self.skipping > 0 && skipped <= budget {
            let count = feed.peek(payload, 1)?.len().min(self.skipping);
            if count == 0 {
                return Err(Malformed::EndWithinField.into());
            }
            feed.consume(count);
            self.skipping -= count;
            skipped += count;
        }
        Ok(skipped)
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
