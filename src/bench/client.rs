//! A connection that asks one thing at a time: versions, metadata, topics, fetches. Every
//! answer is checked for its correlation id and its error codes. Called by the scenarios
//! for their set-up, by `arrival` for every fetch; `load` takes the socket over once the
//! topic is there.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::base::ErrorCode;
use crate::wire::ApiKey;
use crate::wire::codec::{Decoder, Message};
use crate::wire::header::{decode_response_header, encode_request_header};
use crate::wire::messages::create_topics_request::CreatableTopic;
use crate::wire::messages::fetch_request::{FetchPartition, FetchTopic};
use crate::wire::messages::metadata_request::MetadataRequestTopic;
use crate::wire::messages::{
    ApiVersionsRequest, ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    FetchRequest, FetchResponse, MetadataRequest, MetadataResponse,
};

/// The last versions in which topics go by their names.
const PRODUCE_VERSION_MAX: i16 = 12;
const FETCH_VERSION_MAX: i16 = 12;
/// Understood by every broker since 2.4.
const API_VERSIONS_VERSION: i16 = 3;
/// An answer that takes longer will not come.
pub const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// How long a new topic may take until it has leaders.
const LEADER_WAIT: Duration = Duration::from_secs(30);
const LEADER_POLL: Duration = Duration::from_millis(20);
const FRAME_BYTES_MAX: usize = 256 << 20;

pub struct Client {
    stream: TcpStream,
    address: String,
    correlation_id: i32,
    versions: ApiVersionsResponse,
}

impl Client {
    pub fn connect(address: &str) -> Result<Client, String> {
        let stream = TcpStream::connect(address)
            .map_err(|error| format!("can't connect to {address}: {error}"))?;
        stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(ANSWER_WAIT)))
            .map_err(|error| format!("{address}: {error}"))?;
        let mut client = Client {
            stream,
            address: address.to_owned(),
            correlation_id: 0,
            versions: ApiVersionsResponse::default(),
        };
        let request = ApiVersionsRequest {
            client_software_name: "ottla-bench".to_owned(),
            client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let version = API_VERSIONS_VERSION;
        let versions: ApiVersionsResponse = client.call(ApiKey::ApiVersions, version, &request)?;
        client.ok(versions.error_code, "ApiVersions")?;
        client.versions = versions;
        Ok(client)
    }

    /// The highest version that both sides know, up to `max`.
    fn version(&self, api: ApiKey, max: i16) -> Result<i16, String> {
        let ours = api.info().stable_versions();
        let found = self
            .versions
            .api_keys
            .iter()
            .find(|offered| offered.api_key == api as i16);
        found
            .map(|offered| {
                (
                    offered.min_version,
                    offered.max_version.min(max).min(*ours.end()),
                )
            })
            .filter(|(min, highest)| min <= highest && ours.contains(highest))
            .map(|(_, highest)| highest)
            .ok_or_else(|| format!("{} doesn't offer a usable version of {api}", self.address))
    }

    pub fn produce_version(&self) -> Result<i16, String> {
        self.version(ApiKey::Produce, PRODUCE_VERSION_MAX)
    }

    /// The address of each partition's leader; the topic is created if it isn't there.
    pub fn leaders(&mut self, topic: &str, partitions: i32) -> Result<Vec<String>, String> {
        let began = Instant::now();
        let mut asked_to_create = false;
        loop {
            let found = self.metadata(topic)?;
            let answer = found
                .topics
                .first()
                .ok_or_else(|| format!("{}: no metadata of {topic}", self.address))?;
            match ErrorCode(answer.error_code) {
                ErrorCode::NONE => {
                    if let Some(leaders) = leaders_of(&found) {
                        return Ok(leaders);
                    }
                }
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION if !asked_to_create => {
                    self.create_topic(topic, partitions)?;
                    asked_to_create = true;
                    continue;
                }
                code if code.is_retriable() => {}
                code => return Err(format!("{}: metadata of {topic}: {code}", self.address)),
            }
            if began.elapsed() > LEADER_WAIT {
                return Err(format!("{}: {topic} has no leaders", self.address));
            }
            // Nothing tells a client when a leader is there; Kafka's own clients poll too.
            std::thread::sleep(LEADER_POLL);
        }
    }

    fn metadata(&mut self, topic: &str) -> Result<MetadataResponse, String> {
        let request = MetadataRequest {
            topics: Some(vec![MetadataRequestTopic {
                name: Some(topic.to_owned()),
                ..Default::default()
            }]),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        let version = self.version(ApiKey::Metadata, i16::MAX)?;
        let found: MetadataResponse = self.call(ApiKey::Metadata, version, &request)?;
        self.ok(found.error_code, "Metadata")?;
        Ok(found)
    }

    fn create_topic(&mut self, topic: &str, partitions: i32) -> Result<(), String> {
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: topic.to_owned(),
                num_partitions: partitions,
                replication_factor: 1,
                ..Default::default()
            }],
            ..Default::default()
        };
        let version = self.version(ApiKey::CreateTopics, i16::MAX)?;
        let created: CreateTopicsResponse = self.call(ApiKey::CreateTopics, version, &request)?;
        for result in &created.topics {
            if ErrorCode(result.error_code) != ErrorCode::TOPIC_ALREADY_EXISTS {
                self.ok(result.error_code, "CreateTopics")?;
            }
        }
        Ok(())
    }

    /// Batches of one partition from `offset`, whole ones and perhaps the front of one
    /// more; empty if `wait` was over first.
    pub fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        bytes_max: i32,
        wait: Duration,
    ) -> Result<Bytes, String> {
        let request = FetchRequest {
            max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: 1,
            max_bytes: bytes_max,
            topics: vec![FetchTopic {
                topic: topic.to_owned(),
                partitions: vec![FetchPartition {
                    partition,
                    fetch_offset: offset,
                    partition_max_bytes: bytes_max,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let version = self.version(ApiKey::Fetch, FETCH_VERSION_MAX)?;
        let answer: FetchResponse = self.call(ApiKey::Fetch, version, &request)?;
        self.ok(answer.error_code, "Fetch")?;
        let mut partitions = answer
            .responses
            .into_iter()
            .flat_map(|topic| topic.partitions);
        let Some(found) = partitions.next() else {
            return Err(format!(
                "{}: Fetch: the partition isn't in the answer",
                self.address
            ));
        };
        self.ok(found.error_code, "Fetch")?;
        Ok(found.records.unwrap_or_default())
    }

    /// Sends a whole frame of ours and reads the body of its answer.
    pub fn call_frame(
        &mut self,
        api: ApiKey,
        version: i16,
        correlation_id: i32,
        frame: &[u8],
    ) -> Result<Bytes, String> {
        let fault = |error| format!("{}: {api}: {error}", self.address);
        self.stream.write_all(frame).map_err(fault)?;
        let mut size = [0; 4];
        self.stream.read_exact(&mut size).map_err(fault)?;
        let size = frame_size(size).map_err(|error| format!("{}: {error}", self.address))?;
        let mut answer = vec![0; size];
        self.stream.read_exact(&mut answer).map_err(fault)?;
        let mut answer = Bytes::from(answer);
        let mut d = Decoder::new(&answer);
        let found = decode_response_header(&mut d, api, version)
            .map_err(|error| format!("{}: {api}: {error}", self.address))?;
        if found != correlation_id {
            return Err(format!(
                "{}: {api}: answer {found} came to request {correlation_id}",
                self.address
            ));
        }
        let at = d.position();
        Ok(answer.split_off(at))
    }

    fn call<Q: Message, A: Message>(
        &mut self,
        api: ApiKey,
        version: i16,
        request: &Q,
    ) -> Result<A, String> {
        self.correlation_id += 1;
        let mut out = BytesMut::from(&[0; 4][..]);
        let id = self.correlation_id;
        encode_request_header(&mut out, api, version, id, Some("ottla-bench"));
        request
            .encode(&mut out, version)
            .map_err(|error| format!("{api}: {error}"))?;
        let size = u32::try_from(out.len() - 4).expect("small requests");
        out[..4].copy_from_slice(&size.to_be_bytes());
        let body = self.call_frame(api, version, id, &out)?;
        A::decode(&mut Decoder::new(&body), version)
            .map_err(|error| format!("{}: {api}: {error}", self.address))
    }

    fn ok(&self, code: i16, what: &str) -> Result<(), String> {
        match ErrorCode(code) {
            ErrorCode::NONE => Ok(()),
            code => Err(format!("{}: {what}: {code}", self.address)),
        }
    }

    /// The socket, with nothing under way on it.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }
}

/// The size of a frame, from its first bytes.
pub fn frame_size(bytes: [u8; 4]) -> Result<usize, String> {
    let size = i32::from_be_bytes(bytes);
    usize::try_from(size)
        .ok()
        .filter(|size| (4..=FRAME_BYTES_MAX).contains(size))
        .ok_or_else(|| format!("a frame of {size} bytes"))
}

/// By partition; none while a partition has no leader.
fn leaders_of(metadata: &MetadataResponse) -> Option<Vec<String>> {
    let mut partitions: Vec<_> = metadata.topics.first()?.partitions.iter().collect();
    partitions.sort_by_key(|partition| partition.partition_index);
    let address = |id| {
        let broker = metadata
            .brokers
            .iter()
            .find(|broker| broker.node_id == id)?;
        Some(format!("{}:{}", broker.host, broker.port))
    };
    let leaders: Option<Vec<_>> = partitions
        .iter()
        .map(|partition| {
            let led = ErrorCode(partition.error_code).is_ok();
            led.then(|| address(partition.leader_id)).flatten()
        })
        .collect();
    leaders.filter(|leaders| !leaders.is_empty())
}
