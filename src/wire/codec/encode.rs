//! Writing: see the parent module.

use std::ops::RangeInclusive;

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::base::Uuid;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("{name} has no version {version}")]
    UnsupportedVersion { name: &'static str, version: i16 },
    #[error("field {0} is set, but the version has no such field")]
    FieldAbsent(&'static str),
    #[error("field {0} is null where the version has no null")]
    UnexpectedNull(&'static str),
    #[error("a string of {0} bytes is longer than 32767")]
    StringTooLong(usize),
    #[error("{0} elements or bytes are more than a length can say")]
    TooLong(usize),
}

impl EncodeError {
    pub(crate) fn check_version(
        name: &'static str,
        versions: RangeInclusive<i16>,
        version: i16,
    ) -> Result<(), EncodeError> {
        if versions.contains(&version) {
            Ok(())
        } else {
            Err(EncodeError::UnsupportedVersion { name, version })
        }
    }
}

/// The error for a field that is set though the version lacks it.
pub fn absent(field: &'static str) -> Result<(), EncodeError> {
    Err(EncodeError::FieldAbsent(field))
}

/// The value of a field that the version doesn't let be null.
pub fn non_null<T>(value: Option<T>, field: &'static str) -> Result<T, EncodeError> {
    value.ok_or(EncodeError::UnexpectedNull(field))
}

#[inline(never)]
pub fn put_uvarint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Zig-zag LEB128, as inside records.
pub fn put_varint(out: &mut BytesMut, value: i32) {
    put_uvarint(out, ((value << 1) ^ (value >> 31)) as u32);
}

/// Bytes that [`put_uvarint`] takes.
pub fn uvarint_len(value: u32) -> usize {
    (38 - value.leading_zeros() as usize).max(7) / 7
}

/// The length of bytes, or the count of an array.
#[inline(never)]
pub fn put_length(out: &mut BytesMut, length: usize, flex: bool) -> Result<(), EncodeError> {
    let classic = i32::try_from(length).map_err(|_| EncodeError::TooLong(length))?;
    if flex {
        put_uvarint(out, classic as u32 + 1);
    } else {
        out.put_i32(classic);
    }
    Ok(())
}

fn put_null(out: &mut BytesMut, flex: bool) {
    if flex {
        out.put_u8(0);
    } else {
        out.put_i32(-1);
    }
}

#[inline(never)]
pub fn put_string(out: &mut BytesMut, text: &str, flex: bool) -> Result<(), EncodeError> {
    let length = i16::try_from(text.len()).map_err(|_| EncodeError::StringTooLong(text.len()))?;
    if flex {
        put_uvarint(out, length as u32 + 1);
    } else {
        out.put_i16(length);
    }
    out.put_slice(text.as_bytes());
    Ok(())
}

#[inline(never)]
pub fn put_nullable_string(
    out: &mut BytesMut,
    text: Option<&str>,
    flex: bool,
) -> Result<(), EncodeError> {
    match text {
        Some(text) => put_string(out, text, flex)?,
        None if flex => out.put_u8(0),
        None => out.put_i16(-1),
    }
    Ok(())
}

#[inline(never)]
pub fn put_bytes(out: &mut BytesMut, bytes: &[u8], flex: bool) -> Result<(), EncodeError> {
    put_length(out, bytes.len(), flex)?;
    out.put_slice(bytes);
    Ok(())
}

#[inline(never)]
pub fn put_nullable_bytes(
    out: &mut BytesMut,
    bytes: Option<&Bytes>,
    flex: bool,
) -> Result<(), EncodeError> {
    match bytes {
        Some(bytes) => put_bytes(out, bytes, flex)?,
        None => put_null(out, flex),
    }
    Ok(())
}

pub fn put_array<T>(
    out: &mut BytesMut,
    array: &[T],
    flex: bool,
    mut element: impl FnMut(&mut BytesMut, &T) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    put_length(out, array.len(), flex)?;
    array.iter().try_for_each(|value| element(out, value))
}

pub fn put_nullable_array<T>(
    out: &mut BytesMut,
    array: Option<&[T]>,
    flex: bool,
    element: impl FnMut(&mut BytesMut, &T) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    match array {
        Some(array) => put_array(out, array, flex, element)?,
        None => put_null(out, flex),
    }
    Ok(())
}

/// A struct behind a null marker (KIP-893).
pub fn put_nullable_struct<T>(
    out: &mut BytesMut,
    value: Option<&T>,
    encode: impl FnOnce(&mut BytesMut, &T) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    match value {
        Some(value) => {
            out.put_i8(1);
            encode(out, value)?;
        }
        None => out.put_i8(-1),
    }
    Ok(())
}

/// The same as the payload of a tagged field, where Kafka has another marker.
pub fn put_nullable_tagged_struct<T>(
    out: &mut BytesMut,
    value: Option<&T>,
    encode: impl FnOnce(&mut BytesMut, &T) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    out.put_u8(value.is_some().into());
    value.map_or(Ok(()), |value| encode(out, value))
}

// Elements of arrays.

pub fn put_i8(out: &mut BytesMut, value: &i8) -> Result<(), EncodeError> {
    out.put_i8(*value);
    Ok(())
}

pub fn put_i16(out: &mut BytesMut, value: &i16) -> Result<(), EncodeError> {
    out.put_i16(*value);
    Ok(())
}

pub fn put_i32(out: &mut BytesMut, value: &i32) -> Result<(), EncodeError> {
    out.put_i32(*value);
    Ok(())
}

pub fn put_i64(out: &mut BytesMut, value: &i64) -> Result<(), EncodeError> {
    out.put_i64(*value);
    Ok(())
}

pub fn put_uuid(out: &mut BytesMut, value: &Uuid) -> Result<(), EncodeError> {
    out.put_slice(&value.0);
    Ok(())
}

/// An element function for arrays of strings.
pub fn put_strings(flex: bool) -> impl Fn(&mut BytesMut, &String) -> Result<(), EncodeError> {
    move |out, text| put_string(out, text, flex)
}

/// Where a tagged section's count stands in `out`.
pub struct TagCount(usize);

/// Opens a tagged section. Fields follow by [`put_tag`] in ascending order.
pub fn begin_tags(out: &mut BytesMut) -> TagCount {
    out.put_u8(0);
    TagCount(out.len() - 1)
}

pub fn put_no_tags(out: &mut BytesMut) {
    out.put_u8(0);
}

/// One tagged field: the payload is written first, then moved up to make room for its size.
pub fn put_tag(
    out: &mut BytesMut,
    count: &TagCount,
    tag: u32,
    payload: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    out[count.0] += 1;
    assert!(out[count.0] < 0x80, "a schema has fewer than 128 tags");
    put_uvarint(out, tag);
    let start = out.len();
    payload(out)?;
    let end = out.len();
    let size = u32::try_from(end - start).map_err(|_| EncodeError::TooLong(end - start))?;
    put_uvarint(out, size);
    out[start..].rotate_right(uvarint_len(size));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Decoder;
    use super::*;

    #[test]
    fn varints_round_trip_with_their_length() {
        for shift in 0..32 {
            for value in [1u32 << shift, (1 << shift) - 1, u32::MAX >> shift] {
                let mut out = BytesMut::new();
                put_uvarint(&mut out, value);
                assert_eq!(out.len(), uvarint_len(value), "{value}");
                put_varint(&mut out, value as i32);
                let frame = out.freeze();
                let mut d = Decoder::new(&frame);
                assert_eq!(d.uvarint(), Ok(value));
                assert_eq!(d.varint(), Ok(value as i32));
                assert_eq!(d.finish(), Ok(()));
            }
        }
    }

    #[test]
    fn a_tags_size_stands_before_its_payload() {
        let mut out = BytesMut::new();
        let tags = begin_tags(&mut out);
        put_tag(&mut out, &tags, 0, |out| put_string(out, "ab", true)).unwrap();
        put_tag(&mut out, &tags, 3, |out| {
            out.put_slice(&[7; 200]);
            Ok(())
        })
        .unwrap();
        assert_eq!(&out[..9], [2, 0, 3, 3, b'a', b'b', 3, 0xc8, 0x01]);
        assert_eq!(&out[9..], [7; 200]);
    }

    #[test]
    fn lengths_have_limits() {
        let long = "a".repeat(32768);
        let mut out = BytesMut::new();
        assert_eq!(
            put_string(&mut out, &long, true),
            Err(EncodeError::StringTooLong(32768))
        );
        assert_eq!(put_string(&mut out, &long[1..], false), Ok(()));
    }
}
