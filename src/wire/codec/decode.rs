//! Reading: see the parent module.

use std::ops::RangeInclusive;

use bytes::Bytes;

use crate::base::Uuid;

/// Heap that decoding may hold is `BUDGET_BASE_BYTES + BUDGET_FACTOR × frame`.
///
/// Honest frames stay far below: the densest arrays of real requests (ListOffsets v1
/// partitions, Fetch v4 partitions) take 2 to 6 times their bytes. The base lets small
/// frames carry many small strings.
pub const BUDGET_FACTOR: usize = 16;
pub const BUDGET_BASE_BYTES: usize = 64 * 1024;

/// Elements reserved before the first one is decoded.
const FIRST_RESERVE: usize = 8;
/// Kafka limits every string to what the classic length can say.
const STRING_BYTES_MAX: usize = i16::MAX as usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("{name} has no version {version}")]
    UnsupportedVersion { name: &'static str, version: i16 },
    #[error("the message ends within a field")]
    Truncated,
    #[error("null where the schema has no null")]
    UnexpectedNull,
    #[error("a string is not UTF-8")]
    InvalidUtf8,
    #[error("a string is longer than 32767 bytes")]
    StringTooLong,
    #[error("a varint is longer than its type")]
    InvalidVarint,
    #[error("an array claims more elements than the message has bytes for")]
    ArrayTooLong,
    #[error("tags are not ascending")]
    TagOrder,
    #[error("a tagged field's size is not that of its content")]
    TagSize,
    #[error("decoding needs more memory than a message of this size may take")]
    OverBudget,
    #[error("bytes are left over after the message")]
    TrailingBytes,
    #[error("a frame version or type that this node does not know")]
    UnknownType,
}

impl DecodeError {
    pub(crate) fn check_version(
        name: &'static str,
        versions: RangeInclusive<i16>,
        version: i16,
    ) -> Result<(), DecodeError> {
        if versions.contains(&version) {
            Ok(())
        } else {
            Err(DecodeError::UnsupportedVersion { name, version })
        }
    }
}

/// A cursor over one frame. `Bytes` that it returns are slices of the frame and keep all
/// of it alive; over a borrowed slice they are copies.
#[derive(Clone)]
pub struct Decoder<'a> {
    frame: &'a [u8],
    owner: Option<&'a Bytes>,
    /// Invariant: `at <= end <= frame.len()`.
    at: usize,
    /// End of what may be read: of the frame, or of the tagged field being decoded.
    end: usize,
    /// Heap bytes still allowed.
    budget: usize,
}

impl<'a> Decoder<'a> {
    pub fn new(frame: &'a Bytes) -> Self {
        Self::at(frame, 0)
    }

    /// Starts at an offset, for example after the header. `offset` beyond the frame means
    /// an empty rest.
    pub fn at(frame: &'a Bytes, offset: usize) -> Self {
        Decoder {
            owner: Some(frame),
            at: offset.min(frame.len()),
            ..Self::borrowed(frame)
        }
    }

    /// Reads a frame that stays mutable elsewhere, such as a Produce whose batches are
    /// patched in place.
    pub fn borrowed(frame: &'a [u8]) -> Self {
        Decoder {
            frame,
            owner: None,
            at: 0,
            end: frame.len(),
            budget: Self::budget_bytes(frame.len()),
        }
    }

    /// The most heap that decoding a frame of this size may hold at any moment.
    pub fn budget_bytes(frame_bytes: usize) -> usize {
        frame_bytes
            .saturating_mul(BUDGET_FACTOR)
            .saturating_add(BUDGET_BASE_BYTES)
    }

    pub fn remaining(&self) -> usize {
        self.end - self.at
    }

    /// Offset of the next byte in the frame.
    pub fn position(&self) -> usize {
        self.at
    }

    /// An error if anything is left: for records, which have nothing after them.
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.remaining() == 0 {
            Ok(())
        } else {
            Err(DecodeError::TrailingBytes)
        }
    }

    /// The next `n` bytes, borrowed from the frame.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        if n > self.remaining() {
            return Err(DecodeError::Truncated);
        }
        let taken = &self.frame[self.at..self.at + n];
        self.at += n;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.take(N)?.try_into().map_err(|_| DecodeError::Truncated)
    }

    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.i8()? != 0)
    }

    pub fn i8(&mut self) -> Result<i8, DecodeError> {
        self.fixed().map(i8::from_be_bytes)
    }

    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        self.fixed().map(i16::from_be_bytes)
    }

    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.fixed().map(u16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        self.fixed().map(i32::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.fixed().map(u32::from_be_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.fixed().map(i64::from_be_bytes)
    }

    pub fn f64(&mut self) -> Result<f64, DecodeError> {
        self.fixed().map(f64::from_be_bytes)
    }

    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        self.fixed().map(Uuid)
    }

    /// LEB128, at most 32 bits.
    #[inline(never)]
    pub fn uvarint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.fixed()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0xf {
                return Err(DecodeError::InvalidVarint);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::InvalidVarint)
    }

    /// Zig-zag LEB128, as inside records.
    pub fn varint(&mut self) -> Result<i32, DecodeError> {
        let raw = self.uvarint()?;
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    /// Length of a bytes, records or array field; any negative number means null, as in
    /// Kafka.
    fn length(&mut self, flex: bool) -> Result<Option<usize>, DecodeError> {
        if flex {
            Ok(self.uvarint()?.checked_sub(1).map(|n| n as usize))
        } else {
            Ok(usize::try_from(self.i32()?).ok())
        }
    }

    /// A string without a copy.
    #[inline(never)]
    pub fn nullable_str(&mut self, flex: bool) -> Result<Option<&'a str>, DecodeError> {
        let length = if flex {
            self.length(true)?
        } else {
            usize::try_from(self.i16()?).ok()
        };
        let Some(length) = length else {
            return Ok(None);
        };
        if length > STRING_BYTES_MAX {
            return Err(DecodeError::StringTooLong);
        }
        let text = std::str::from_utf8(self.take(length)?);
        text.map(Some).map_err(|_| DecodeError::InvalidUtf8)
    }

    #[inline(never)]
    pub fn nullable_string(&mut self, flex: bool) -> Result<Option<String>, DecodeError> {
        let Some(text) = self.nullable_str(flex)? else {
            return Ok(None);
        };
        self.charge(text.len())?;
        Ok(Some(text.to_owned()))
    }

    #[inline(never)]
    pub fn string(&mut self, flex: bool) -> Result<String, DecodeError> {
        self.nullable_string(flex)?
            .ok_or(DecodeError::UnexpectedNull)
    }

    /// Where a bytes or records field lies in the frame.
    pub fn nullable_range(
        &mut self,
        flex: bool,
    ) -> Result<Option<std::ops::Range<usize>>, DecodeError> {
        let Some(length) = self.length(flex)? else {
            return Ok(None);
        };
        let start = self.at;
        self.take(length)?;
        Ok(Some(start..self.at))
    }

    #[inline(never)]
    pub fn nullable_bytes(&mut self, flex: bool) -> Result<Option<Bytes>, DecodeError> {
        let Some(range) = self.nullable_range(flex)? else {
            return Ok(None);
        };
        match self.owner {
            Some(owner) => Ok(Some(owner.slice(range))),
            None => {
                let copied = &self.frame[range];
                self.charge(copied.len())?;
                Ok(Some(Bytes::copy_from_slice(copied)))
            }
        }
    }

    #[inline(never)]
    pub fn bytes(&mut self, flex: bool) -> Result<Bytes, DecodeError> {
        self.nullable_bytes(flex)?
            .ok_or(DecodeError::UnexpectedNull)
    }

    /// The count of an array whose elements take at least `element_min` bytes each; a count
    /// that cannot fit in what is left is an error.
    #[inline(never)]
    pub fn nullable_count(
        &mut self,
        flex: bool,
        element_min: usize,
    ) -> Result<Option<usize>, DecodeError> {
        match self.length(flex)? {
            Some(count) if count > self.remaining() / element_min.max(1) => {
                Err(DecodeError::ArrayTooLong)
            }
            count => Ok(count),
        }
    }

    pub fn nullable_array<T>(
        &mut self,
        flex: bool,
        element_min: usize,
        mut element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(count) = self.nullable_count(flex, element_min)? else {
            return Ok(None);
        };
        let mut array = Vec::new();
        for _ in 0..count {
            if array.len() == array.capacity() {
                self.grow(&mut array, count)?;
            }
            array.push(element(self)?);
        }
        Ok(Some(array))
    }

    pub fn array<T>(
        &mut self,
        flex: bool,
        element_min: usize,
        element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        self.nullable_array(flex, element_min, element)?
            .ok_or(DecodeError::UnexpectedNull)
    }

    /// A struct behind a null marker (KIP-893).
    pub fn nullable_struct<T>(
        &mut self,
        decode: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.i8()? < 0 {
            return Ok(None);
        }
        decode(self).map(Some)
    }

    /// The same as the payload of a tagged field, where Kafka has another marker.
    pub fn nullable_tagged_struct<T>(
        &mut self,
        decode: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.uvarint()? == 0 {
            return Ok(None);
        }
        decode(self).map(Some)
    }

    /// A section of tagged fields. `known` decodes the field of a tag and says so; it returns
    /// false, having read nothing, for a tag that the version doesn't have, which is skipped.
    pub fn tags(
        &mut self,
        mut known: impl FnMut(&mut Self, u32) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        let count = self.uvarint()?;
        let mut next_tag = 0;
        for _ in 0..count {
            let tag = self.uvarint()?;
            if u64::from(tag) < next_tag {
                return Err(DecodeError::TagOrder);
            }
            next_tag = u64::from(tag) + 1;
            let size = self.uvarint()? as usize;
            if size > self.remaining() {
                return Err(DecodeError::Truncated);
            }
            let field_end = self.at + size;
            let outer_end = std::mem::replace(&mut self.end, field_end);
            if !known(self, tag)? {
                self.at = field_end;
            }
            if self.at != field_end {
                return Err(DecodeError::TagSize);
            }
            self.end = outer_end;
        }
        Ok(())
    }

    #[inline(never)]
    pub fn skip_tags(&mut self) -> Result<(), DecodeError> {
        self.tags(|_, _| Ok(false))
    }

    /// Takes heap bytes out of the budget.
    fn charge(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.budget = self
            .budget
            .checked_sub(bytes)
            .ok_or(DecodeError::OverBudget)?;
        Ok(())
    }

    /// Doubles an array, up to the count that the message claims. Old and new memory live
    /// at once while it moves, and both are within the budget.
    fn grow<T>(&mut self, array: &mut Vec<T>, count: usize) -> Result<(), DecodeError> {
        let old = array.capacity();
        let new = old.saturating_mul(2).max(FIRST_RESERVE).min(count);
        self.charge(new.saturating_mul(size_of::<T>()))?;
        array.reserve_exact(new - array.len());
        self.budget += old * size_of::<T>();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode<T>(
        bytes: &[u8],
        f: impl FnOnce(&mut Decoder<'_>) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        f(&mut Decoder::new(&Bytes::copy_from_slice(bytes)))
    }

    #[test]
    fn varints() {
        assert_eq!(decode(&[0xac, 0x02], |d| d.uvarint()), Ok(300));
        assert_eq!(
            decode(&[0xff, 0xff, 0xff, 0xff, 0x0f], |d| d.uvarint()),
            Ok(u32::MAX)
        );
        assert_eq!(
            decode(&[0xff, 0xff, 0xff, 0xff, 0x1f], |d| d.uvarint()),
            Err(DecodeError::InvalidVarint)
        );
        assert_eq!(
            decode(&[0x80; 6], |d| d.uvarint()),
            Err(DecodeError::InvalidVarint)
        );
        assert_eq!(
            decode(&[0x80], |d| d.uvarint()),
            Err(DecodeError::Truncated)
        );
        assert_eq!(decode(&[0x03], |d| d.varint()), Ok(-2));
        assert_eq!(
            decode(&[0xff, 0xff, 0xff, 0xff, 0x0f], |d| d.varint()),
            Ok(i32::MIN)
        );
    }

    #[test]
    fn strings_in_both_forms() {
        assert_eq!(decode(b"\0\x02hi", |d| d.string(false)), Ok("hi".into()));
        assert_eq!(decode(b"\x03hi", |d| d.string(true)), Ok("hi".into()));
        assert_eq!(decode(b"\xff\xff", |d| d.nullable_string(false)), Ok(None));
        assert_eq!(decode(b"\0", |d| d.nullable_string(true)), Ok(None));
        assert_eq!(
            decode(b"\0", |d| d.string(true)),
            Err(DecodeError::UnexpectedNull)
        );
        assert_eq!(
            decode(b"\x02\xff", |d| d.string(true)),
            Err(DecodeError::InvalidUtf8)
        );
        assert_eq!(
            decode(b"\x09hi", |d| d.string(true)),
            Err(DecodeError::Truncated)
        );
        let long = [vec![0x81, 0x80, 0x02], vec![b'a'; 32768]].concat();
        assert_eq!(
            decode(&long, |d| d.string(true)),
            Err(DecodeError::StringTooLong)
        );
    }

    #[test]
    fn counts_are_bounded_by_what_is_left() {
        let ints = [0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 8];
        assert_eq!(
            decode(&ints, |d| d.array(false, 4, Decoder::i32)),
            Ok(vec![7, 8])
        );
        let mut hostile = ints;
        hostile[0] = 0x7f;
        assert_eq!(
            decode(&hostile, |d| d.array(false, 4, Decoder::i32)),
            Err(DecodeError::ArrayTooLong)
        );
        assert_eq!(
            decode(&[0xff; 4], |d| d.nullable_array(false, 4, Decoder::i32)),
            Ok(None)
        );
    }

    #[test]
    fn empty_strings_cannot_amplify() {
        let count = 1 << 20;
        let mut frame = vec![0x81, 0x80, 0x40];
        frame.resize(3 + count, 1);
        assert_eq!(
            decode(&frame, |d| d.array(true, 1, |d| d.string(true))),
            Err(DecodeError::OverBudget)
        );
    }

    #[test]
    fn tags_are_ascending_unique_and_sized() {
        let read = |bytes: &[u8]| {
            let mut seen = None;
            decode(bytes, |d| {
                d.tags(|d, tag| {
                    if tag != 5 {
                        return Ok(false);
                    }
                    seen = Some(d.i16()?);
                    Ok(true)
                })
            })
            .map(|()| seen)
        };
        assert_eq!(read(&[0]), Ok(None));
        assert_eq!(read(&[2, 1, 1, 9, 5, 2, 0, 7]), Ok(Some(7)));
        assert_eq!(read(&[2, 5, 2, 0, 7, 5, 0]), Err(DecodeError::TagOrder));
        assert_eq!(read(&[2, 5, 2, 0, 7, 1, 0]), Err(DecodeError::TagOrder));
        assert_eq!(read(&[1, 5, 3, 0, 7, 0]), Err(DecodeError::TagSize));
        assert_eq!(read(&[1, 5, 1, 0, 7]), Err(DecodeError::Truncated));
        assert_eq!(read(&[1, 1, 9, 0]), Err(DecodeError::Truncated));
        let mut last = vec![1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        assert_eq!(read(&last), Ok(None));
        last[0] = 2;
        last.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
        assert_eq!(read(&last), Err(DecodeError::TagOrder));
    }
}
