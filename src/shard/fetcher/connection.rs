//! A fetcher's connection to its leader: requests leave in order, and so do answers come.
//!
//! Used by `fetcher::run` alone, on the fetcher's core.
//!
//! Invariants: memory grows with the bytes that have come; a future of [`Connection::answer`]
//! may be dropped at any time and loses nothing.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;

use bytes::{Buf, Bytes, BytesMut};

use crate::base::Nanos;
use crate::io::local::or_deadline;
use crate::io::{Rt, SendQueue, Stream};
use crate::wire::ApiKey;
use crate::wire::codec::{Decoder, Message};
use crate::wire::header::{decode_response_header, encode_request_header};
use crate::wire::messages::{ApiVersionsRequest, ApiVersionsResponse};

/// The first version of Fetch that names topics by their ids, and the last that there is.
const FETCH: RangeInclusive<i16> = 13..=18;
const LIST_OFFSETS: RangeInclusive<i16> = 6..=11;
/// Every broker that has such a Fetch answers this one.
const API_VERSIONS: i16 = 3;

/// A larger answer is taken for garbage. Batches may be as large as a segment.
const FRAME_MAX: usize = i32::MAX as usize;
/// Room for so much of an answer is made before any of it has come.
const FIRST_RESERVE: usize = 64 << 10;

const SOFTWARE: &str = "ottla";

pub struct Connection {
    stream: Stream,
    received: BytesMut,
    waiting: VecDeque<Waiting>,
    next_id: i32,
    client_id: String,
    fetch_version: i16,
    list_offsets_version: i16,
}

#[derive(Clone, Copy)]
struct Waiting {
    correlation_id: i32,
    api: ApiKey,
    version: i16,
}

/// The body of an answer, in a frame that its records may be slices of.
pub struct Body {
    frame: Bytes,
    at: usize,
    version: i16,
}

impl Connection {
    /// Connects and agrees on versions, until a moment.
    pub async fn open(
        rt: &Rt,
        address: SocketAddr,
        client_id: String,
        until: Nanos,
    ) -> io::Result<Connection> {
        let opening = async {
            let mut connection = Connection {
                stream: rt.connect(address).await?,
                received: BytesMut::new(),
                waiting: VecDeque::new(),
                next_id: 0,
                client_id,
                fetch_version: 0,
                list_offsets_version: 0,
            };
            connection.agree().await?;
            Ok(connection)
        };
        or_deadline(rt, opening, until)
            .await
            .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
    }

    pub fn fetch_version(&self) -> i16 {
        self.fetch_version
    }

    pub fn list_offsets_version(&self) -> i16 {
        self.list_offsets_version
    }

    pub async fn send<Q: Message>(
        &mut self,
        api: ApiKey,
        version: i16,
        request: &Q,
    ) -> io::Result<()> {
        let correlation_id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let mut frame = BytesMut::with_capacity(256);
        frame.extend_from_slice(&[0; 4]);
        let client_id = Some(self.client_id.as_str());
        encode_request_header(&mut frame, api, version, correlation_id, client_id);
        request
            .encode(&mut frame, version)
            .map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
        let size = i32::try_from(frame.len() - 4)
            .map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
        frame[..4].copy_from_slice(&size.to_be_bytes());
        self.waiting.push_back(Waiting {
            correlation_id,
            api,
            version,
        });
        let mut out = SendQueue::new();
        out.push_bytes(frame.freeze());
        self.stream.send(&mut out).await
    }

    /// The answer to the oldest request that has none yet.
    pub async fn answer(&mut self) -> io::Result<Body> {
        loop {
            let missing = match self.frame_size()? {
                Some(size) => match (4 + size).checked_sub(self.received.len()) {
                    None | Some(0) => return self.take_frame(size),
                    Some(missing) => missing,
                },
                None => 4,
            };
            // As much again as has come: who promises much has to send it first.
            let room = missing.min(self.received.len().max(FIRST_RESERVE));
            self.received.reserve(room);
            if self.stream.recv_missing(&mut self.received, room).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn agree(&mut self) -> io::Result<()> {
        let request = ApiVersionsRequest {
            client_software_name: SOFTWARE.to_owned(),
            client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.send(ApiKey::ApiVersions, API_VERSIONS, &request)
            .await?;
        let answer = self.answer().await?;
        let response: ApiVersionsResponse = answer.decode()?;
        let highest = |api: ApiKey, ours: RangeInclusive<i16>| {
            let mut theirs = response.api_keys.iter();
            let theirs = theirs.find(|theirs| theirs.api_key == api as i16);
            theirs
                .map(|theirs| theirs.max_version.min(*ours.end()))
                .filter(|version| {
                    let lowest = theirs.map_or(0, |theirs| theirs.min_version);
                    version >= ours.start() && *version >= lowest
                })
                .ok_or_else(|| invalid(format!("it has no {} that we know", api.name())))
        };
        self.fetch_version = highest(ApiKey::Fetch, FETCH)?;
        self.list_offsets_version = highest(ApiKey::ListOffsets, LIST_OFFSETS)?;
        Ok(())
    }

    /// The size of the frame that has begun to come.
    fn frame_size(&self) -> io::Result<Option<usize>> {
        let Some(size) = self.received.first_chunk::<4>() else {
            return Ok(None);
        };
        let size = i32::from_be_bytes(*size);
        let bounded = usize::try_from(size).ok().filter(|size| *size <= FRAME_MAX);
        match bounded {
            Some(size) if !self.waiting.is_empty() => Ok(Some(size)),
            _ => Err(invalid(format!("an answer of {size} bytes to nothing"))),
        }
    }

    fn take_frame(&mut self, size: usize) -> io::Result<Body> {
        self.received.advance(4);
        let frame = self.received.split_to(size).freeze();
        let waiting = self.waiting.pop_front().expect("a frame answers something");
        let mut decoder = Decoder::new(&frame);
        let id = decode_response_header(&mut decoder, waiting.api, waiting.version)
            .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        if id != waiting.correlation_id {
            return Err(invalid(format!("an answer to {id}, which isn't due")));
        }
        let at = decoder.position();
        Ok(Body {
            at,
            version: waiting.version,
            frame,
        })
    }
}

impl Body {
    /// Records in it are slices of the frame.
    pub fn decode<R: Message>(&self) -> io::Result<R> {
        R::decode(&mut Decoder::at(&self.frame, self.at), self.version)
            .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// Where a host is. An address stands for itself; a name is looked up by the system, anew for
/// each connection.
pub fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    if let Ok(ip) = host.parse() {
        return Ok(SocketAddr::new(ip, port));
    }
    let mut found = (host, port).to_socket_addrs()?;
    found
        .next()
        .ok_or_else(|| ErrorKind::AddrNotAvailable.into())
}
