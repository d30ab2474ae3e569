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
//! What the 272 generated codecs call for every string or array is kept out of line: one
//! copy of it makes the program an eighth smaller and quicker to build.
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
    put_i32, put_i64, put_length, put_no_tags, put_nullable_array, put_nullable_bytes,
    put_nullable_string, put_nullable_struct, put_nullable_tagged_struct, put_string, put_strings,
    put_tag, put_uuid, put_uvarint, put_varint, uvarint_len,
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::messages::{FindCoordinatorRequest, MetadataRequest, TxnOffsetCommitRequest};
    use super::*;

    fn encode<M: Message>(message: &M, version: i16) -> Result<Bytes, EncodeError> {
        let mut out = BytesMut::new();
        message.encode(&mut out, version).map(|()| out.freeze())
    }

    #[test]
    fn what_a_version_cannot_say_is_an_error_unless_ignorable() {
        let no_creation = MetadataRequest {
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        let absent = EncodeError::FieldAbsent("AllowAutoTopicCreation");
        assert_eq!(encode(&no_creation, 3), Err(absent));
        assert!(encode(&no_creation, 4).is_ok());

        let all_topics = MetadataRequest {
            topics: None,
            ..Default::default()
        };
        let null = EncodeError::UnexpectedNull("Topics");
        assert_eq!(encode(&all_topics, 0), Err(null));
        assert!(encode(&all_topics, 1).is_ok());

        let many = FindCoordinatorRequest {
            coordinator_keys: vec!["a".to_owned()],
            ..Default::default()
        };
        let absent = EncodeError::FieldAbsent("CoordinatorKeys");
        assert_eq!(encode(&many, 3), Err(absent));

        let member = TxnOffsetCommitRequest {
            member_id: "m".to_owned(),
            ..Default::default()
        };
        assert_eq!(
            encode(&member, 2),
            Err(EncodeError::FieldAbsent("MemberId"))
        );
        assert!(encode(&member, 3).is_ok());
    }

    #[test]
    fn unknown_tags_are_skipped_and_bytes_after_the_message_stay() {
        let mut bytes = encode(&MetadataRequest::default(), 13).unwrap().to_vec();
        assert_eq!(bytes.pop(), Some(0));
        bytes.extend_from_slice(&[1, 100, 3, 7, 7, 7]);
        bytes.extend_from_slice(b"rest");
        let frame = Bytes::from(bytes);
        let mut d = Decoder::new(&frame);
        let decoded = MetadataRequest::decode(&mut d, 13);
        assert_eq!(decoded, Ok(MetadataRequest::default()));
        assert_eq!(d.remaining(), 4);
        assert_eq!(d.finish(), Err(DecodeError::TrailingBytes));
    }
}
