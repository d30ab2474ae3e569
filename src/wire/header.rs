//! Headers of requests and responses. The connection decodes the header of each frame, then
//! hands the rest to the API's decoder; no allocation.
//!
//! ```text
//! request   api_key i16 │ api_version i16 │ correlation_id i32 │ client_id string? │ [tags]
//! response  correlation_id i32 │ [tags]
//! ```
//! The client id has the classic form in every version; tags are there where the API's
//! version is flexible, except in ApiVersions responses.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::ApiKey;
use super::codec::{DecodeError, Decoder, put_no_tags, put_nullable_string};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    pub api: ApiKey,
    /// Any number: the caller checks it with [`RequestHeader::is_supported`], since
    /// ApiVersions answers versions that it doesn't know.
    pub api_version: i16,
    pub correlation_id: i32,
    pub client_id: Option<&'a str>,
}

/// Why there is no header. What was read before the fault is told for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("unknown api key {api_key}")]
    UnknownApi {
        api_key: i16,
        api_version: i16,
        correlation_id: i32,
    },
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

impl<'a> RequestHeader<'a> {
    /// Reads the header of a frame (without its size) and returns it with a decoder that
    /// stands at the body.
    pub fn decode(frame: &'a Bytes) -> Result<(RequestHeader<'a>, Decoder<'a>), HeaderError> {
        let (header, body_at) = Self::decode_borrowed(frame)?;
        Ok((header, Decoder::at(frame, body_at)))
    }

    /// Reads the header and tells at which byte the body begins.
    pub fn decode_borrowed(frame: &'a [u8]) -> Result<(RequestHeader<'a>, usize), HeaderError> {
        let mut d = Decoder::borrowed(frame);
        let api_key = d.i16()?;
        let api_version = d.i16()?;
        let correlation_id = d.i32()?;
        let api = ApiKey::from_i16(api_key).ok_or(HeaderError::UnknownApi {
            api_key,
            api_version,
            correlation_id,
        })?;
        let client_id = d.nullable_str(false)?;
        if api.is_flexible(api_version) {
            d.skip_tags()?;
        }
        let header = RequestHeader {
            api,
            api_version,
            correlation_id,
            client_id,
        };
        Ok((header, d.position()))
    }

    /// Whether the version has a codec and is stable.
    pub fn is_supported(&self) -> bool {
        self.api
            .info()
            .stable_versions()
            .contains(&self.api_version)
    }
}

/// Writes the header of a request that we send. A client id longer than Kafka's limit on
/// strings is a bug of the caller.
pub fn encode_request_header(
    out: &mut BytesMut,
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
) {
    out.put_i16(api as i16);
    out.put_i16(version);
    out.put_i32(correlation_id);
    put_nullable_string(out, client_id, false).expect("a client id of ours is short");
    if api.is_flexible(version) {
        put_no_tags(out);
    }
}

pub fn encode_response_header(out: &mut BytesMut, api: ApiKey, version: i16, correlation_id: i32) {
    out.put_i32(correlation_id);
    if api.response_header_version(version) == 1 {
        put_no_tags(out);
    }
}

/// Reads the header of a response to a request of ours; returns the correlation id.
pub fn decode_response_header(
    d: &mut Decoder<'_>,
    api: ApiKey,
    version: i16,
) -> Result<i32, DecodeError> {
    let correlation_id = d.i32()?;
    if api.response_header_version(version) == 1 {
        d.skip_tags()?;
    }
    Ok(correlation_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flexible_header_has_a_classic_client_id_and_tags() {
        let frame = Bytes::from_static(b"\0\x12\0\x04\0\0\0\x01\0\x01x\0\x03kp\x021\0");
        let (header, d) = RequestHeader::decode(&frame).unwrap();
        let expected = RequestHeader {
            api: ApiKey::ApiVersions,
            api_version: 4,
            correlation_id: 1,
            client_id: Some("x"),
        };
        assert_eq!(header, expected);
        assert!(header.is_supported());
        assert_eq!(d.position(), 12);

        let mut out = BytesMut::new();
        encode_request_header(&mut out, ApiKey::ApiVersions, 4, 1, Some("x"));
        assert_eq!(out, frame[..12]);
    }

    #[test]
    fn unknown_apis_and_versions_are_told_apart() {
        let frame = Bytes::from_static(b"\0\x12\0\x63\0\0\0\x07\xff\xff\0");
        let (header, _) = RequestHeader::decode(&frame).unwrap();
        assert_eq!((header.api_version, header.correlation_id), (99, 7));
        assert_eq!(header.client_id, None);
        assert!(!header.is_supported());

        let frame = Bytes::from_static(b"\0\x04\0\x01\0\0\0\x07");
        let error = HeaderError::UnknownApi {
            api_key: 4,
            api_version: 1,
            correlation_id: 7,
        };
        assert_eq!(RequestHeader::decode(&frame).err(), Some(error));
        let frame = Bytes::from_static(b"\0\x12\0");
        assert_eq!(
            RequestHeader::decode(&frame).err(),
            Some(HeaderError::Malformed(DecodeError::Truncated))
        );
    }

    #[test]
    fn response_headers() {
        for (api, version, bytes) in [
            (ApiKey::Produce, 8, &b"\0\0\0\x05"[..]),
            (ApiKey::Produce, 9, b"\0\0\0\x05\0"),
            (ApiKey::ApiVersions, 4, b"\0\0\0\x05"),
        ] {
            let mut out = BytesMut::new();
            encode_response_header(&mut out, api, version, 5);
            assert_eq!(out, bytes);
            let frame = out.freeze();
            let mut d = Decoder::new(&frame);
            assert_eq!(decode_response_header(&mut d, api, version), Ok(5));
            assert_eq!(d.remaining(), 0);
        }
    }
}
