//! `ottla bench floor --serve`: answers exactly the generator's requests with one thread on
//! epoll, one write per batch and one sendfile per fetch. Not a broker: no checks, no
//! replication, no recovery; its files are gone with it. The ceiling for one that has them.
//!
//! ```text
//! readable → frames → Produce  write to the partition's file, answer, wake waiting fetches
//!                     Fetch    answer's head, then the file's range by sendfile; parked if
//!                              there is nothing yet, until a batch or its time comes
//! ```
//! Invariants: answers leave in the order of requests (while a fetch is parked, its
//! connection is not read); only whole batches are sent.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::sendfile::sendfile;
use slab::Slab;

use super::super::client::frame_size;
use crate::base::{ErrorCode, Offset, Uuid};
use crate::record::{Batches, set_base_offset};
use crate::wire::codec::{Decoder, Message};
use crate::wire::fetch_encoder::{FetchEncoder, FetchHead};
use crate::wire::header::{RequestHeader, encode_response_header};
use crate::wire::messages::api_versions_response::ApiVersion;
use crate::wire::messages::create_topics_response::CreatableTopicResult;
use crate::wire::messages::fetch_response::PartitionData;
use crate::wire::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use crate::wire::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use crate::wire::messages::{
    ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse, FetchRequest, MetadataRequest,
    MetadataResponse, ProduceResponse,
};
use crate::wire::{ApiKey, produce_view};

const SERVED: [(ApiKey, i16); 5] = [
    (ApiKey::Produce, 12),
    (ApiKey::Fetch, 12),
    (ApiKey::Metadata, 12),
    (ApiKey::ApiVersions, 3),
    (ApiKey::CreateTopics, 7),
];
const EVENTS_MAX: usize = 64;
const READ_BYTES: usize = 256 << 10;
const LISTENER: u64 = u64::MAX;

type Fault = Box<dyn std::error::Error>;

struct Partition {
    file: File,
    bytes: u64,
    /// Base offset and position of every batch.
    batches: Vec<(i64, u64)>,
    next_offset: i64,
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: VecDeque<Output>,
    parked: Option<Parked>,
    wants_write: bool,
}

enum Output {
    Bytes(Bytes),
    Range {
        file: File,
        position: i64,
        left: usize,
    },
}

struct Parked {
    version: i16,
    correlation_id: i32,
    topic: String,
    partition: i32,
    offset: i64,
    bytes_max: u64,
    until: Instant,
}

struct Server {
    epoll: Epoll,
    address: (String, u16),
    dir: PathBuf,
    topics: HashMap<String, Vec<Partition>>,
    connections: Slab<Connection>,
}

/// Serves until the process is ended. `ready` is told the address once it listens; the
/// files are made in `dir` and have no names there.
pub fn serve(
    address: &str,
    dir: &Path,
    ready: impl FnOnce(std::net::SocketAddr) -> Result<(), String>,
) -> Result<(), String> {
    let fault = |error: io::Error| format!("floor on {address}: {error}");
    let listener = TcpListener::bind(address).map_err(fault)?;
    listener.set_nonblocking(true).map_err(fault)?;
    let bound = listener.local_addr().map_err(fault)?;
    let epoll = Epoll::new(EpollCreateFlags::empty()).map_err(|error| fault(error.into()))?;
    epoll
        .add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))
        .map_err(|error| fault(error.into()))?;
    let mut server = Server {
        epoll,
        address: (bound.ip().to_string(), bound.port()),
        dir: dir.to_owned(),
        topics: HashMap::new(),
        connections: Slab::new(),
    };
    ready(bound)?;
    server.run(&listener).map_err(fault)
}

impl Server {
    fn run(&mut self, listener: &TcpListener) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        loop {
            let count = match self.epoll.wait(&mut events, self.next_timeout()) {
                Err(nix::errno::Errno::EINTR) => 0,
                counted => counted?,
            };
            for event in &events[..count] {
                if event.data() == LISTENER {
                    self.accept(listener)?;
                } else {
                    self.on_event(event.data() as usize);
                }
            }
            self.answer_overdue();
        }
    }

    fn next_timeout(&self) -> EpollTimeout {
        let parked = self
            .connections
            .iter()
            .filter_map(|(_, one)| one.parked.as_ref());
        parked
            .map(|parked| parked.until)
            .min()
            .map_or(EpollTimeout::NONE, |until| {
                let left = until.saturating_duration_since(Instant::now());
                let rounded = left + Duration::from_millis(1);
                EpollTimeout::try_from(rounded).unwrap_or(EpollTimeout::ZERO)
            })
    }

    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                let entry = self.connections.vacant_entry();
                let event = EpollEvent::new(EpollFlags::EPOLLIN, entry.key() as u64);
                self.epoll.add(&stream, event)?;
                entry.insert(Connection {
                    stream,
                    input: Vec::new(),
                    output: VecDeque::new(),
                    parked: None,
                    wants_write: false,
                });
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn on_event(&mut self, key: usize) {
        if self.connections.contains(key) && self.serve_connection(key).is_err() {
            self.close(key);
        }
    }

    /// Dropping the socket takes it out of the epoll too.
    fn close(&mut self, key: usize) {
        drop(self.connections.remove(key));
    }

    fn serve_connection(&mut self, key: usize) -> Result<(), Fault> {
        self.read(key)?;
        self.take_requests(key)?;
        self.flush(key)
    }

    fn read(&mut self, key: usize) -> Result<(), Fault> {
        let connection = &mut self.connections[key];
        let before = connection.input.len();
        connection.input.resize(before + READ_BYTES, 0);
        let count = connection.stream.read(&mut connection.input[before..]);
        let taken = *count.as_ref().unwrap_or(&0);
        connection.input.truncate(before + taken);
        match count {
            Ok(0) => Err("closed".into()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn take_requests(&mut self, key: usize) -> Result<(), Fault> {
        let mut at = 0;
        let mut input = std::mem::take(&mut self.connections[key].input);
        while self.connections[key].parked.is_none() {
            let Some(size) = input[at..].first_chunk() else {
                break;
            };
            let end = at + 4 + frame_size(*size)?;
            if end > input.len() {
                break;
            }
            self.on_request(key, &mut input[at + 4..end])?;
            at = end;
        }
        input.drain(..at);
        self.connections[key].input = input;
        Ok(())
    }

    fn on_request(&mut self, key: usize, frame: &mut [u8]) -> Result<(), Fault> {
        let (header, body_at) = RequestHeader::decode_borrowed(frame)?;
        let (api, version, id) = (header.api, header.api_version, header.correlation_id);
        if api == ApiKey::Produce {
            let answer = self.produce(&mut frame[body_at..], version)?;
            return self.respond(key, api, version, id, &answer);
        }
        let body = Bytes::copy_from_slice(&frame[body_at..]);
        let mut d = Decoder::new(&body);
        match api {
            ApiKey::ApiVersions => self.respond(key, api, version, id, &api_versions()),
            ApiKey::Metadata => {
                let answer = self.metadata(&MetadataRequest::decode(&mut d, version)?);
                self.respond(key, api, version, id, &answer)
            }
            ApiKey::CreateTopics => {
                let request = CreateTopicsRequest::decode(&mut d, version)?;
                let answer = self.create_topics(&request)?;
                self.respond(key, api, version, id, &answer)
            }
            ApiKey::Fetch => {
                let request = FetchRequest::decode(&mut d, version)?;
                let topic = request.topics.first().ok_or("fetch of nothing")?;
                let partition = topic.partitions.first().ok_or("fetch of nothing")?;
                let wait = Duration::from_millis(u64::try_from(request.max_wait_ms)?);
                let parked = Parked {
                    version,
                    correlation_id: id,
                    topic: topic.topic.clone(),
                    partition: partition.partition,
                    offset: partition.fetch_offset,
                    bytes_max: u64::try_from(partition.partition_max_bytes)?,
                    until: Instant::now() + wait,
                };
                self.fetch(key, parked)
            }
            _ => Err("not an API of the generator".into()),
        }
    }

    fn respond<M: Message>(
        &mut self,
        key: usize,
        api: ApiKey,
        version: i16,
        correlation_id: i32,
        answer: &M,
    ) -> Result<(), Fault> {
        let mut out = BytesMut::from(&[0; 4][..]);
        encode_response_header(&mut out, api, version, correlation_id);
        answer.encode(&mut out, version)?;
        let size = u32::try_from(out.len() - 4)?;
        out[..4].copy_from_slice(&size.to_be_bytes());
        let output = &mut self.connections[key].output;
        output.push_back(Output::Bytes(out.freeze()));
        Ok(())
    }

    fn metadata(&self, request: &MetadataRequest) -> MetadataResponse {
        let topics = request.topics.iter().flatten().map(|topic| {
            let name = topic.name.clone().unwrap_or_default();
            let count = self.topics.get(&name).map_or(0, Vec::len);
            let missing = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
            MetadataResponseTopic {
                error_code: if count == 0 { missing.0 } else { 0 },
                name: Some(name),
                partitions: (0..count as i32)
                    .map(|partition_index| MetadataResponsePartition {
                        partition_index,
                        ..Default::default()
                    })
                    .collect(),
                ..Default::default()
            }
        });
        MetadataResponse {
            brokers: vec![MetadataResponseBroker {
                node_id: 0,
                host: self.address.0.clone(),
                port: i32::from(self.address.1),
                rack: None,
            }],
            controller_id: 0,
            topics: topics.collect(),
            ..Default::default()
        }
    }

    fn create_topics(&mut self, request: &CreateTopicsRequest) -> io::Result<CreateTopicsResponse> {
        let mut topics = Vec::new();
        for topic in &request.topics {
            let partitions: io::Result<Vec<_>> = (0..topic.num_partitions.max(1))
                .map(|_| Partition::create(&self.dir))
                .collect();
            self.topics.insert(topic.name.clone(), partitions?);
            topics.push(CreatableTopicResult {
                name: topic.name.clone(),
                ..Default::default()
            });
        }
        Ok(CreateTopicsResponse {
            topics,
            ..Default::default()
        })
    }

    fn produce(&mut self, body: &mut [u8], version: i16) -> Result<ProduceResponse, Fault> {
        let mut places = Vec::new();
        let view = produce_view::ProduceView::decode(Decoder::borrowed(body), version)?;
        for place in view.partitions() {
            let produce_view::TopicRef::Name(name) = place.topic else {
                return Err("topics go by name".into());
            };
            let records = place.records.ok_or("produce of nothing")?;
            places.push((name.to_owned(), place.partition_index, records));
        }
        let mut responses = Vec::new();
        for (name, index, records) in places {
            let found = partition(&mut self.topics, &name, index).ok_or("unknown partition")?;
            let base_offset = found.append(&mut body[records])?;
            self.wake(&name, index)?;
            responses.push(TopicProduceResponse {
                name,
                partition_responses: vec![PartitionProduceResponse {
                    index,
                    base_offset,
                    ..Default::default()
                }],
                ..Default::default()
            });
        }
        Ok(ProduceResponse {
            responses,
            ..Default::default()
        })
    }

    /// Answers the fetches that wait for this partition.
    fn wake(&mut self, name: &str, index: i32) -> Result<(), Fault> {
        let waits = |one: &Connection| {
            let parked = one.parked.as_ref();
            parked.is_some_and(|parked| parked.partition == index && parked.topic == name)
        };
        let woken: Vec<usize> = self
            .connections
            .iter()
            .filter_map(|(key, one)| waits(one).then_some(key))
            .collect();
        self.answer_parked(&woken);
        Ok(())
    }

    fn answer_overdue(&mut self) {
        let now = Instant::now();
        let overdue = |one: &Connection| one.parked.as_ref().is_some_and(|it| it.until <= now);
        let keys: Vec<usize> = self
            .connections
            .iter()
            .filter_map(|(key, one)| overdue(one).then_some(key))
            .collect();
        self.answer_parked(&keys);
    }

    fn answer_parked(&mut self, keys: &[usize]) {
        for key in keys {
            let Some(parked) = self.connections[*key].parked.take() else {
                continue;
            };
            let answered = self.fetch(*key, parked).and_then(|()| self.flush(*key));
            if answered.is_err() {
                self.close(*key);
            }
        }
    }

    fn fetch(&mut self, key: usize, asked: Parked) -> Result<(), Fault> {
        let found = partition(&mut self.topics, &asked.topic, asked.partition)
            .ok_or("unknown partition")?;
        let (position, bytes) = found.range(asked.offset, asked.bytes_max);
        if bytes == 0 && asked.until > Instant::now() {
            self.connections[key].parked = Some(asked);
            return Ok(());
        }
        let file = found.file.try_clone()?;
        let data = PartitionData {
            partition_index: asked.partition,
            high_watermark: found.next_offset,
            last_stable_offset: found.next_offset,
            log_start_offset: 0,
            ..Default::default()
        };
        let head = FetchHead::default();
        let (version, id) = (asked.version, asked.correlation_id);
        let mut encoder = FetchEncoder::new(BytesMut::new(), version, id, head, 1)?;
        encoder.topic(&asked.topic, Uuid::ZERO, 1)?;
        encoder.partition(&data, Some(bytes))?;
        let encoded = encoder.finish(&[])?;
        let output = &mut self.connections[key].output;
        let mut file = Some(file);
        for piece in encoded.pieces() {
            output.push_back(match piece {
                crate::wire::fetch_encoder::Piece::Encoded(bytes) => Output::Bytes(bytes),
                crate::wire::fetch_encoder::Piece::Records(left) => Output::Range {
                    file: file.take().ok_or("one partition has one range")?,
                    position: i64::try_from(position)?,
                    left,
                },
            });
        }
        Ok(())
    }

    /// Writes what the socket takes; for the rest it is called again.
    fn flush(&mut self, key: usize) -> Result<(), Fault> {
        let connection = &mut self.connections[key];
        let mut full = false;
        while let Some(output) = connection.output.front_mut() {
            match output.send(&mut connection.stream) {
                Ok(true) => drop(connection.output.pop_front()),
                Ok(false) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    full = true;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if full != connection.wants_write {
            connection.wants_write = full;
            let mut flags = EpollFlags::EPOLLIN;
            flags.set(EpollFlags::EPOLLOUT, full);
            let mut event = EpollEvent::new(flags, key as u64);
            self.epoll.modify(&connection.stream, &mut event)?;
        }
        Ok(())
    }
}

impl Output {
    /// Sends some; true once there is no more.
    fn send(&mut self, stream: &mut TcpStream) -> io::Result<bool> {
        match self {
            Output::Bytes(bytes) => {
                let count = stream.write(bytes)?;
                bytes.advance(count);
                Ok(bytes.is_empty())
            }
            Output::Range {
                file,
                position,
                left,
            } => {
                let count = sendfile(&*stream, &*file, Some(position), *left)?;
                if count == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                *left -= count;
                Ok(*left == 0)
            }
        }
    }
}

impl Partition {
    fn create(dir: &Path) -> io::Result<Partition> {
        Ok(Partition {
            file: unnamed_file(dir)?,
            bytes: 0,
            batches: Vec::new(),
            next_offset: 0,
        })
    }

    /// Gives the batches their offsets and writes them at once.
    fn append(&mut self, records: &mut [u8]) -> Result<i64, Fault> {
        let base_offset = self.next_offset;
        let mut at = 0;
        while at < records.len() {
            let batch = Batches::new(&records[at..]).next().ok_or("no batch")??;
            let (size, count) = (batch.size_in_bytes(), batch.last_offset_delta() + 1);
            set_base_offset(&mut records[at..at + size], Offset(self.next_offset));
            self.batches
                .push((self.next_offset, self.bytes + at as u64));
            self.next_offset += i64::from(count);
            at += size;
        }
        self.file.write_all(records)?;
        self.bytes += records.len() as u64;
        Ok(base_offset)
    }

    /// Position and length of the whole batches from `offset` on, one at least.
    fn range(&self, offset: i64, bytes_max: u64) -> (u64, usize) {
        let first = self.batches.partition_point(|(base, _)| *base < offset);
        let Some((_, position)) = self.batches.get(first) else {
            return (self.bytes, 0);
        };
        let limit = position + bytes_max;
        let end = if self.bytes <= limit {
            self.bytes
        } else {
            let over = self.batches.partition_point(|(_, at)| *at <= limit);
            let end = self.batches[over - 1].1;
            let one = self
                .batches
                .get(first + 1)
                .map_or(self.bytes, |(_, at)| *at);
            end.max(one)
        };
        (*position, (end - position) as usize)
    }
}

/// A file that goes when it is closed.
pub fn unnamed_file(dir: &Path) -> io::Result<File> {
    use nix::fcntl::{OFlag, open};
    use nix::sys::stat::Mode;
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    Ok(File::from(open(
        dir,
        flags,
        Mode::from_bits_truncate(0o600),
    )?))
}

fn partition<'a>(
    topics: &'a mut HashMap<String, Vec<Partition>>,
    name: &str,
    index: i32,
) -> Option<&'a mut Partition> {
    topics.get_mut(name)?.get_mut(usize::try_from(index).ok()?)
}

fn api_versions() -> ApiVersionsResponse {
    let offered = SERVED.iter().map(|(api, max_version)| ApiVersion {
        api_key: *api as i16,
        min_version: *api.info().versions.start(),
        max_version: *max_version,
    });
    ApiVersionsResponse {
        api_keys: offered.collect(),
        ..Default::default()
    }
}
