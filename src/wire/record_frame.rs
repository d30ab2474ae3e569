//! What stands before a message stored as a record.
//!
//! ```text
//! metadata, value      uvarint frame version (1) │ uvarint type │ uvarint version │ body
//! coordinators, key    i16 type │ body (version 0)
//! coordinators, value  i16 version │ body
//! ```
//! Metadata records are those of `__cluster_metadata`; coordinator records those of
//! `__consumer_offsets`, `__transaction_state` and `__share_group_state`. A record has
//! nothing after its body: callers end with [`Decoder::finish`].

use bytes::{BufMut as _, Bytes, BytesMut};

use super::codec::{DecodeError, Decoder, EncodeError, Message, put_uvarint};

const METADATA_FRAME_VERSION: u32 = 1;

/// Type and version of a metadata record, with a decoder that stands at its body.
pub fn decode_metadata(value: &Bytes) -> Result<(i16, i16, Decoder<'_>), DecodeError> {
    let mut d = Decoder::new(value);
    if d.uvarint()? != METADATA_FRAME_VERSION {
        return Err(DecodeError::UnknownType);
    }
    let mut small = || {
        let number = d.uvarint()?;
        i16::try_from(number).map_err(|_| DecodeError::UnknownType)
    };
    Ok((small()?, small()?, d))
}

pub fn encode_metadata<M: Message>(message: &M, version: i16) -> Result<Bytes, EncodeError> {
    let mut out = BytesMut::new();
    put_uvarint(&mut out, METADATA_FRAME_VERSION);
    put_uvarint(&mut out, type_of::<M>() as u32);
    put_uvarint(&mut out, version as u32);
    message.encode(&mut out, version)?;
    Ok(out.freeze())
}

/// The number before a coordinator record's key (its type) or value (its version), with a
/// decoder that stands at the body.
pub fn decode_coordinator(bytes: &Bytes) -> Result<(i16, Decoder<'_>), DecodeError> {
    let mut d = Decoder::new(bytes);
    Ok((d.i16()?, d))
}

/// A coordinator record's key. Its schema has version 0 alone; the number on the wire is
/// the type.
pub fn encode_coordinator_key<M: Message>(key: &M) -> Result<Bytes, EncodeError> {
    encode_prefixed(key, type_of::<M>(), 0)
}

pub fn encode_coordinator_value<M: Message>(value: &M, version: i16) -> Result<Bytes, EncodeError> {
    encode_prefixed(value, version, version)
}

/// The whole of a message that is a record's value, of one known type: for example a
/// coordinator value, or the control records of KRaft.
pub fn decode_body<M: Message>(mut d: Decoder<'_>, version: i16) -> Result<M, DecodeError> {
    let message = M::decode(&mut d, version)?;
    d.finish()?;
    Ok(message)
}

fn encode_prefixed<M: Message>(
    message: &M,
    prefix: i16,
    version: i16,
) -> Result<Bytes, EncodeError> {
    let mut out = BytesMut::new();
    out.put_i16(prefix);
    message.encode(&mut out, version)?;
    Ok(out.freeze())
}

fn type_of<M: Message>() -> i16 {
    M::API_KEY.expect("a record's schema has a type id")
}

#[cfg(test)]
mod tests {
    use super::super::messages::{
        FeatureLevelRecord, NoOpRecord, OffsetCommitKey, OffsetCommitValue,
    };
    use super::*;

    #[test]
    fn metadata_records_as_kafka_writes_them() {
        let no_op = encode_metadata(&NoOpRecord::default(), 0).unwrap();
        assert_eq!(no_op, &[1, 20, 0, 0][..]);

        let record = FeatureLevelRecord {
            name: "metadata.version".to_owned(),
            feature_level: 30,
        };
        let value = encode_metadata(&record, 0).unwrap();
        assert_eq!(value, &b"\x01\x0c\0\x11metadata.version\0\x1e\0"[..]);
        let (kind, version, d) = decode_metadata(&value).unwrap();
        assert_eq!((kind, version), (12, 0));
        assert_eq!(decode_body(d, version), Ok(record));

        let longer = Bytes::from([&value[..], &[0]].concat());
        let (_, version, d) = decode_metadata(&longer).unwrap();
        assert_eq!(
            decode_body::<FeatureLevelRecord>(d, version),
            Err(DecodeError::TrailingBytes)
        );
        let future = Bytes::from_static(&[2, 20, 0, 0]);
        assert_eq!(
            decode_metadata(&future).err(),
            Some(DecodeError::UnknownType)
        );
    }

    #[test]
    fn coordinator_records_have_a_number_before_the_body() {
        let key = OffsetCommitKey {
            group: "g".to_owned(),
            topic: "t".to_owned(),
            partition: 3,
        };
        let bytes = encode_coordinator_key(&key).unwrap();
        assert_eq!(bytes, &b"\0\x01\0\x01g\0\x01t\0\0\0\x03"[..]);
        let (kind, d) = decode_coordinator(&bytes).unwrap();
        assert_eq!(kind, 1);
        assert_eq!(decode_body(d, 0), Ok(key));

        let value = OffsetCommitValue {
            offset: 5,
            ..Default::default()
        };
        let bytes = encode_coordinator_value(&value, 3).unwrap();
        let (version, d) = decode_coordinator(&bytes).unwrap();
        assert_eq!(version, 3);
        assert_eq!(decode_body(d, version), Ok(value));
    }
}
