//! One record inside a batch, and its varints.
//!
//! ```text
//! varint body length │ i8 attributes (0) │ varlong timestamp delta │ varint offset delta
//! │ varint key length (-1 null), key │ varint value length (-1 null), value
//! │ varint header count │ { varint key length, key │ varint value length (-1 null), value }*
//! ```
//! All varints are zig-zag. The bounds are those of Kafka's `DefaultRecord.readFrom`: any
//! negative key or value length is null, and the body is read to its last byte.

use crate::base::ErrorCode;

use super::decompress::DecompressError;

/// Most bytes of a varint of 32 bits.
pub(super) const VARINT_BYTES_MAX: usize = 5;
/// Most bytes of attributes, timestamp delta and offset delta.
pub(super) const PREFIX_BYTES_MAX: usize = 1 + 10 + VARINT_BYTES_MAX;

/// Why the records of a batch can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the codec's number {0} is not assigned")]
    UnknownCodec(i8),
    #[error(transparent)]
    Decompress(#[from] DecompressError),
}

/// What is wrong with a record's bytes. Small, since every field read may return it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("Found invalid record count")]
    RecordCount,
    #[error("Incorrect declared batch size, premature EOF reached")]
    EndReached,
    #[error("Incorrect declared batch size, records still remaining in file")]
    Remaining,
    #[error("Invalid record size: it is negative")]
    NegativeSize,
    #[error("Invalid record size: the record ends before its declared size")]
    ShorterThanSize,
    #[error("Reached end of input stream before skipping all bytes")]
    EndWithinField,
    #[error("Found invalid record structure")]
    Structure,
    #[error("Found invalid number of record headers")]
    HeaderCount,
    #[error("Invalid negative header key size")]
    HeaderKey,
    #[error("The record is larger than the reader takes")]
    TooLarge,
}

impl RecordsError {
    /// What Kafka answers to a Produce whose batch has this fault.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            RecordsError::Malformed(_)
            | RecordsError::Decompress(DecompressError::OutputLimit(_)) => {
                ErrorCode::INVALID_RECORD
            }
            // Kafka lets the codecs' exceptions through as they are.
            RecordsError::UnknownCodec(_) | RecordsError::Decompress(_) => {
                ErrorCode::UNKNOWN_SERVER_ERROR
            }
        }
    }
}

/// A record's fields. The headers were checked when it was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Unused by Kafka, and not checked by it.
    pub attributes: i8,
    pub offset_delta: i32,
    /// Relative to the batch's base timestamp; see `BatchView::record_timestamp`.
    pub timestamp_delta: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    header_count: u32,
    header_bytes: &'a [u8],
}

/// A record's header; the key is text in UTF-8 by convention only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
}

impl<'a> RecordView<'a> {
    /// Parses a record's body: the bytes after its length.
    pub fn parse(body: &'a [u8]) -> Result<RecordView<'a>, RecordsError> {
        let mut cursor = Cursor::new(body);
        let attributes = cursor.byte()? as i8;
        let timestamp_delta = cursor.varlong()?;
        let offset_delta = cursor.varint()?;
        let key_length = cursor.varint()?;
        let key = cursor.nullable(key_length)?;
        let value_length = cursor.varint()?;
        let value = cursor.nullable(value_length)?;
        let header_count = cursor.header_count()?;
        let header_bytes = cursor.rest();
        cursor.skip_headers(header_count)?;
        cursor.expect_end()?;
        Ok(RecordView {
            attributes,
            offset_delta,
            timestamp_delta,
            key,
            value,
            header_count,
            header_bytes,
        })
    }

    pub fn header_count(&self) -> usize {
        self.header_count as usize
    }

    pub fn headers(&self) -> Headers<'a> {
        Headers {
            cursor: Cursor::new(self.header_bytes),
            left: self.header_count,
        }
    }
}

/// Iterates over a record's headers.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    cursor: Cursor<'a>,
    left: u32,
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        self.left = self.left.checked_sub(1)?;
        // Parsing has walked these bytes with the same calls, so none of them fails.
        self.cursor.header().ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

/// What the checks need of a record, without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Skim {
    /// Length prefix and body.
    pub size: usize,
    pub offset_delta: i32,
    pub timestamp_delta: i64,
    /// As encoded: negative is null.
    pub key_length: i32,
    pub value_length: i32,
}

/// As [`RecordView::parse`], for a caller that needs no bytes; `size` counts the prefix.
#[inline]
pub(super) fn skim(body: &[u8], size: usize) -> Result<Skim, Malformed> {
    let mut cursor = Cursor::new(body);
    cursor.byte()?;
    let timestamp_delta = cursor.varlong()?;
    let offset_delta = cursor.varint()?;
    let key_length = cursor.varint()?;
    cursor.nullable(key_length)?;
    let value_length = cursor.varint()?;
    cursor.nullable(value_length)?;
    let header_count = cursor.header_count()?;
    cursor.skip_headers(header_count)?;
    cursor.expect_end()?;
    Ok(Skim {
        size,
        offset_delta,
        timestamp_delta,
        key_length,
        value_length,
    })
}

/// Reads the fields of a body, checking every bound.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: bytes }
    }

    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        match self.rest.split_first() {
            Some((&byte, rest)) => {
                self.rest = rest;
                Ok(byte)
            }
            None => Err(Malformed::Structure),
        }
    }

    #[inline]
    pub fn varint(&mut self) -> Result<i32, Malformed> {
        match *self.rest {
            [first @ ..0x80, ref rest @ ..] => {
                self.rest = rest;
                Ok(zig_zag_32(u32::from(first)))
            }
            [first, second @ ..0x80, ref rest @ ..] => {
                self.rest = rest;
                let raw = u32::from(first & 0x7f) | u32::from(second) << 7;
                Ok(zig_zag_32(raw))
            }
            _ => self.long_varint(),
        }
    }

    #[inline]
    pub fn varlong(&mut self) -> Result<i64, Malformed> {
        match *self.rest {
            [first @ ..0x80, ref rest @ ..] => {
                self.rest = rest;
                Ok(zig_zag_64(u64::from(first)))
            }
            [first, second @ ..0x80, ref rest @ ..] => {
                self.rest = rest;
                let raw = u64::from(first & 0x7f) | u64::from(second) << 7;
                Ok(zig_zag_64(raw))
            }
            _ => self.long_varlong(),
        }
    }

    fn long_varint(&mut self) -> Result<i32, Malformed> {
        let mut raw = 0;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            raw |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(zig_zag_32(raw));
            }
        }
        Err(Malformed::Structure)
    }

    fn long_varlong(&mut self) -> Result<i64, Malformed> {
        let mut raw = 0;
        for shift in [0, 7, 14, 21, 28, 35, 42, 49, 56, 63] {
            let byte = self.byte()?;
            raw |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(zig_zag_64(raw));
            }
        }
        Err(Malformed::Structure)
    }

    /// The bytes of a key or value; null where the length is negative.
    #[inline]
    pub fn nullable(&mut self, length: i32) -> Result<Option<&'a [u8]>, Malformed> {
        let Ok(length) = usize::try_from(length) else {
            return Ok(None);
        };
        match self.rest.split_at_checked(length) {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(Some(bytes))
            }
            None => Err(Malformed::Structure),
        }
    }

    #[inline]
    fn header_count(&mut self) -> Result<u32, Malformed> {
        check_header_count(self.varint()?)
    }

    #[inline]
    fn skip_headers(&mut self, count: u32) -> Result<(), Malformed> {
        for _ in 0..count {
            self.header()?;
        }
        Ok(())
    }

    fn header(&mut self) -> Result<Header<'a>, Malformed> {
        let key_length = self.varint()?;
        let key = self.nullable(key_length)?.ok_or(Malformed::HeaderKey)?;
        let value_length = self.varint()?;
        let value = self.nullable(value_length)?;
        Ok(Header { key, value })
    }

    #[inline]
    fn expect_end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Malformed::ShorterThanSize)
        }
    }
}

pub(super) fn check_header_count(count: i32) -> Result<u32, Malformed> {
    u32::try_from(count).map_err(|_| Malformed::HeaderCount)
}

/// Parses a record's length prefix: the body's length and the prefix's own.
#[inline]
pub(super) fn body_length(bytes: &[u8]) -> Result<(usize, usize), Malformed> {
    let mut cursor = Cursor::new(bytes);
    let length = cursor.varint().map_err(|_| Malformed::EndReached)?;
    let length = usize::try_from(length).map_err(|_| Malformed::NegativeSize)?;
    Ok((length, bytes.len() - cursor.rest.len()))
}

#[inline]
fn zig_zag_32(raw: u32) -> i32 {
    (raw >> 1) as i32 ^ -((raw & 1) as i32)
}

#[inline]
fn zig_zag_64(raw: u64) -> i64 {
    (raw >> 1) as i64 ^ -((raw & 1) as i64)
}

/// Bytes of a varint, enough for 64 bits.
pub(super) struct Varint {
    bytes: [u8; 10],
    length: u8,
}

impl Varint {
    /// Encodes a number of 32 or 64 bits; both have the same form.
    pub fn new(value: i64) -> Varint {
        let mut raw = ((value << 1) ^ (value >> 63)) as u64;
        let mut varint = Varint {
            bytes: [0; 10],
            length: 0,
        };
        loop {
            let low = (raw & 0x7f) as u8;
            raw >>= 7;
            let more = if raw == 0 { 0 } else { 0x80 };
            varint.bytes[usize::from(varint.length)] = low | more;
            varint.length += 1;
            if raw == 0 {
                return varint;
            }
        }
    }

    /// Encodes a length; -1 stands for null.
    pub fn length(length: Option<usize>) -> Varint {
        Varint::new(length.map_or(-1, |length| {
            i64::from(i32::try_from(length).expect("lengths in a batch are below 2 GiB"))
        }))
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    pub fn len(&self) -> usize {
        usize::from(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_are_bounded() {
        for value in [
            0,
            -1,
            1,
            63,
            64,
            -64,
            -65,
            300,
            i64::from(i32::MAX),
            i64::from(i32::MIN),
        ] {
            let bytes = Varint::new(value);
            let mut cursor = Cursor::new(bytes.as_slice());
            assert_eq!(cursor.varint().map(i64::from), Ok(value));
            assert!(cursor.rest.is_empty());
        }
        for value in [0, i64::MIN, i64::MAX, -1, 1 << 40] {
            let bytes = Varint::new(value);
            let mut cursor = Cursor::new(bytes.as_slice());
            assert_eq!(cursor.varlong(), Ok(value));
            assert!(cursor.rest.is_empty());
        }
        assert!(Cursor::new(&[0x80; 5]).varint().is_err());
        assert!(Cursor::new(&[0x80, 0x80]).varint().is_err());
        assert!(Cursor::new(&[0x80; 10]).varlong().is_err());
        assert!(Cursor::new(&[]).varlong().is_err());
        // Bits beyond the 32nd are dropped, as Kafka does.
        assert_eq!(
            Cursor::new(&[0xfe, 0xff, 0xff, 0xff, 0x7f]).varint(),
            Ok(i32::MAX)
        );
    }

    #[test]
    fn a_record_of_every_field_is_parsed() {
        let body = [0, 4, 2, 2, b'k', 2, b'v', 4, 2, b'h', 2, b'x', 2, b'n', 1];
        let record = RecordView::parse(&body).unwrap();
        assert_eq!((record.timestamp_delta, record.offset_delta), (2, 1));
        assert_eq!(record.key, Some(&b"k"[..]));
        assert_eq!(record.value, Some(&b"v"[..]));
        let headers: Vec<Header<'_>> = record.headers().collect();
        assert_eq!(headers.len(), record.header_count());
        assert_eq!(headers[0].value, Some(&b"x"[..]));
        assert_eq!((headers[1].key, headers[1].value), (&b"n"[..], None));
        assert_eq!(
            skim(&body, body.len() + 1).unwrap(),
            Skim {
                size: 16,
                offset_delta: 1,
                timestamp_delta: 2,
                key_length: 1,
                value_length: 1
            }
        );
    }

    #[test]
    fn every_cut_and_every_byte_after_the_end_is_refused() {
        let body = [0, 4, 2, 2, b'k', 2, b'v', 4, 2, b'h', 2, b'x', 2, b'n', 1];
        for end in 0..body.len() {
            assert!(RecordView::parse(&body[..end]).is_err(), "cut at {end}");
            assert!(skim(&body[..end], end).is_err(), "cut at {end}");
        }
        let mut longer = body.to_vec();
        longer.push(0);
        assert_eq!(
            RecordView::parse(&longer),
            Err(Malformed::ShorterThanSize.into())
        );
        // A null header key, and a negative number of headers.
        assert_eq!(
            RecordView::parse(&[0, 0, 0, 1, 1, 2, 1, 1]),
            Err(Malformed::HeaderKey.into())
        );
        assert!(RecordView::parse(&[0, 0, 0, 1, 1, 1]).is_err());
    }
}
