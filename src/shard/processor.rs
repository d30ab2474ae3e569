//! From a frame to a running request: header, version, context, the API's handler.
//!
//! Called by `shard::connection` for each frame; control goes to the handler that
//! the API's [`Api`] entry names, and the reply comes back through the
//! connection. Kafka closes the connection on whatever it can't decode (wire digest,
//! section 1); the one exception is ApiVersions in an unknown version.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use super::Shard;
use super::spares::{Running, Spares};
use super::traffic::Traffic;
use crate::base::Nanos;
use crate::io::Chunk;
use crate::security::{Principal, RequestContext};
use crate::telemetry::Stage;
use crate::wire::api_key::ApiKey;
use crate::wire::codec::{EncodeError, Message};
use crate::wire::header::{HeaderError, RequestHeader, encode_response_header};

/// Who sits at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// Name of the listener on which the connection was accepted.
    pub listener: Arc<str>,
    pub principal: Principal,
    /// What its last request called itself.
    client_id: RefCell<Option<Arc<str>>>,
}

impl Peer {
    pub fn new(address: SocketAddr, listener: Arc<str>) -> Peer {
        Peer {
            address,
            listener,
            principal: Principal::anonymous(),
            client_id: RefCell::default(),
        }
    }

    /// Clients keep their id, so it is rarely copied.
    fn client_id(&self, id: Option<&str>) -> Option<Arc<str>> {
        let mut last = self.client_id.borrow_mut();
        if last.as_deref() != id {
            *last = id.map(Arc::from);
        }
        last.clone()
    }
}

/// A request on its way to a handler.
pub struct Request {
    pub context: RequestContext,
    /// Everything behind the header; owned, so that batches are patched in place.
    pub body: BytesMut,
    /// Size of the receive buffer that the body lies in.
    pub buffer_bytes: usize,
    /// When its turn came, with its frame whole.
    pub started: Nanos,
    /// Where to count the records that it writes or reads.
    pub traffic: Rc<Traffic>,
}

/// What becomes of a request.
pub enum Reply {
    /// A whole response, its size first.
    Send(Response),
    /// A produce with acks=0.
    Nothing,
    /// The connection ends, for this reason.
    Close(String),
}

/// What is to be sent for one request, in few pieces.
#[derive(Debug, Default)]
pub struct Response {
    chunks: SmallVec<[Chunk; 4]>,
    bytes: usize,
}

impl Response {
    /// Adds a chunk at the end; an empty one is dropped.
    pub fn push(&mut self, chunk: Chunk) {
        if !chunk.is_empty() {
            self.bytes += chunk.len();
            self.chunks.push(chunk);
        }
    }

    pub fn len_bytes(&self) -> usize {
        self.bytes
    }

    pub fn into_chunks(self) -> impl Iterator<Item = Chunk> {
        self.chunks.into_iter()
    }
}

impl From<Bytes> for Response {
    fn from(bytes: Bytes) -> Response {
        let mut response = Response::default();
        response.push(Chunk::Bytes(bytes));
        response
    }
}

pub type Handler = fn(Rc<Shard>, Request) -> Running;

/// One served API: an entry of the table in `api`.
pub struct Api {
    pub key: ApiKey,
    /// What is decoded and answered.
    pub versions: RangeInclusive<i16>,
    /// Lowest version that ApiVersions tells, where it differs from what is served.
    pub advertised_min: i16,
    /// Runs beside other overlapping requests of its connection; responses keep order.
    pub overlaps: bool,
    /// Bytes of memory that a request of so many bytes may take while it is handled.
    pub memory_estimate: fn(usize) -> usize,
    pub handler: Handler,
    /// Answer to a version that isn't served; without one the connection is closed.
    pub on_unsupported_version: Option<fn(&RequestContext) -> Reply>,
}

impl Api {
    pub fn name(&self) -> &'static str {
        self.key.name()
    }
}

/// A request that has been handed to its handler.
pub struct Started {
    pub api: ApiKey,
    /// When its first bytes had come.
    pub began: Nanos,
    /// Runs alone on its connection.
    pub barrier: bool,
    pub future: Running,
}

/// A whole frame, without its size.
pub struct Arrived {
    pub frame: BytesMut,
    /// Size of the receive buffer that it lies in.
    pub buffer_bytes: usize,
    /// When its first bytes had come.
    pub began: Nanos,
}

/// Why a frame ends its connection.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("{0} is not served on this listener")]
    NotServed(&'static str),
    #[error("{api} is served in versions {min} to {max}, not {version}")]
    UnsupportedVersion {
        api: &'static str,
        min: i16,
        max: i16,
        version: i16,
    },
}

/// Hands one frame to its handler.
pub fn start(
    shard: &Rc<Shard>,
    peer: &Peer,
    traffic: &Rc<Traffic>,
    arrived: Arrived,
) -> Result<Started, Refusal> {
    let Arrived {
        mut frame,
        buffer_bytes,
        began,
    } = arrived;
    let (header, body_at) = RequestHeader::decode_borrowed(&frame)?;
    let api = shard
        .served(&peer.listener)
        .find(|api| api.key == header.api)
        .ok_or(Refusal::NotServed(header.api.name()))?;
    let started = shard.rt().last_stamp();
    shard
        .metrics()
        .record(api.key as i16, Stage::Received, began, started);
    let context = RequestContext {
        principal: peer.principal.clone(),
        client_id: peer.client_id(header.client_id),
        client_address: peer.address,
        listener: peer.listener.clone(),
        api_key: header.api as i16,
        api_version: header.api_version,
        correlation_id: header.correlation_id,
    };
    if !api.versions.contains(&header.api_version) {
        return match api.on_unsupported_version {
            Some(answer) => Ok(Started {
                api: api.key,
                began,
                barrier: true,
                future: Running::new(shard.spares().clone(), std::future::ready(answer(&context))),
            }),
            None => Err(Refusal::UnsupportedVersion {
                api: api.name(),
                min: *api.versions.start(),
                max: *api.versions.end(),
                version: header.api_version,
            }),
        };
    }
    frame.advance(body_at);
    let request = Request {
        context,
        body: frame,
        buffer_bytes,
        started,
        traffic: traffic.clone(),
    };
    Ok(Started {
        api: api.key,
        began,
        barrier: !api.overlaps,
        future: (api.handler)(shard.clone(), request),
    })
}

/// A response of generated type as one frame. A response that its version can't express
/// is our bug, but one connection's: it is closed.
pub fn reply<R: Message>(context: &RequestContext, response: &R) -> Reply {
    let mut frame = BytesMut::with_capacity(128);
    let encoded = frame_around(&mut frame, context, |frame| {
        response.encode(frame, context.api_version)
    });
    sent(context, encoded.map(|()| frame.freeze()))
}

/// A response that `encode` appends to its header, in memory that is used again.
pub fn reply_by(
    spares: &Spares,
    context: &RequestContext,
    encode: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
) -> Reply {
    sent(
        context,
        spares.encode(|frame| frame_around(frame, context, encode)),
    )
}

fn sent(context: &RequestContext, encoded: Result<Bytes, EncodeError>) -> Reply {
    match encoded {
        Ok(frame) => Reply::Send(frame.into()),
        Err(error) => {
            let api = ApiKey::from_i16(context.api_key).map_or("an unknown API", ApiKey::name);
            tracing::error!(
                api,
                version = context.api_version,
                correlation_id = context.correlation_id,
                %error,
                "a response could not be encoded"
            );
            Reply::Close(format!("a response to {api} could not be encoded: {error}"))
        }
    }
}

fn frame_around(
    frame: &mut BytesMut,
    context: &RequestContext,
    encode: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    assert!(frame.is_empty(), "a frame begins at its size");
    frame.put_i32(0);
    let api = ApiKey::from_i16(context.api_key).expect("a request had a known key");
    encode_response_header(frame, api, context.api_version, context.correlation_id);
    encode(frame)?;
    let size = i32::try_from(frame.len() - 4).map_err(|_| EncodeError::TooLong(frame.len()))?;
    frame[..4].copy_from_slice(&size.to_be_bytes());
    Ok(())
}
