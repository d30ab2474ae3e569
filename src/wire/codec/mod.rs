//! Kafka's primitive encodings, shared by all generated messages.
//!
//! [`Decoder`] walks one received frame; the `put_*` functions of [`encode`] append to a
//! `BytesMut`; [`json`] prints records as Kafka's JSON converters do. Called by
//! `wire::messages` (generated), `wire::header`, `wire::record_frame` and the hand-written
//! views. Any core; nothing here keeps state between calls.
//!
//! The classic form has fixed-width lengths (i16 for strings, i32 for the rest, -1 = null),
//! the flexible form (KIP-482) has unsigned varints of length + 1 (0 = null) and a section
//! of tagged fields at the end of every struct. Which one applies is the `flex` argument.
//!
//! Invariants: a decoder never panics, never reads past the frame and never holds more
//! heap than [`Decoder::budget_bytes`] of the frame's size.

mod decode;
mod encode;
pub mod json;

use std::ops::RangeInclusive;

use bytes::BytesMut;

pub use decode::{BUDGET_BASE_BYTES, BUDGET_FACTOR, DecodeError, Decoder};
pub use encode::{
    EncodeError, TagCount, absent, begin_tags, non_null, put_array, put_bytes, put_i8, put_i16,
    put_i32, put_i64, put_no_tags, put_nullable_array, put_nullable_bytes, put_nullable_string,
    put_nullable_struct, put_nullable_tagged_struct, put_string, put_strings, put_tag, put_uuid,
    put_uvarint, put_varint, uvarint_len,
};

/// A message that has a schema of its own: a request, a response, a record's key or value.
pub trait Message: Sized + Default {
    /// The schema's name, as Kafka spells it.
    const NAME: &'static str;
    /// The API of a request or response; the type id of a record.
    const API_KEY: Option<i16>;
    /// Versions that decode and encode.
    const VERSIONS: RangeInclusive<i16>;
    /// First version in the flexible form; `i16::MAX` where there is none.
    const FLEXIBLE_FROM: i16;

    /// Reads one message. Bytes after it are left in the decoder, as Kafka does.
    fn decode(d: &mut Decoder<'_>, version: i16) -> Result<Self, DecodeError>;

    /// Appends the message. After an error `out` holds a part of it.
    fn encode(&self, out: &mut BytesMut, version: i16) -> Result<(), EncodeError>;
}
