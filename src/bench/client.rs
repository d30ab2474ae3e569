//! A connection that asks one thing at a time: versions, metadata, topics, settings. Every
//! answer is checked for its correlation id and its error codes. Called by the scenarios
//! for their set-up and by `recovery`; a lane takes the socket over once the topic is there.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::base::ErrorCode;
use crate::wire::ApiKey;
use crate::wire::codec::{Decoder, Message};
use crate::wire::header::{decode_response_header, encode_request_header};
use crate::wire::messages::create_topics_request::CreatableTopic;
use crate::wire::messages::delete_topics_request::DeleteTopicState;
use crate::wire::messages::describe_configs_request::DescribeConfigsResource;
use crate::wire::messages::metadata_request::MetadataRequestTopic;
use crate::wire::messages::{
    ApiVersionsRequest, ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    MetadataRequest, MetadataResponse,
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
const LEADER_POLL: Duration = Duration::from_millis(2);
const FRAME_BYTES_MAX: usize = 256 << 20;
pub const CLIENT_ID: &str = "ottla-bench";
/// The broker may take this long to make or delete a topic.
const TOPIC_TIMEOUT_MS: i32 = 30_000;
/// In DescribeConfigs: a broker, and the source of a setting that nobody has set.
const BROKER_RESOURCE: i8 = 4;
const DEFAULT_CONFIG: i8 = 5;
/// What a broker may be told to keep to itself.
const SECRET: &[&str] = &["password", "secret", "jaas"];

/// A topic that a run needs.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub topic: String,
    pub partitions: i32,
    pub replication_factor: i16,
}

pub struct Client {
    stream: TcpStream,
    address: String,
    correlation_id: i32,
    versions: ApiVersionsResponse,
}

impl Client {
    pub fn connect(address: &str) -> Result<Client, String> {
        Client::connect_patiently(address, ANSWER_WAIT)
    }

    /// One that waits so long for every answer.
    pub fn connect_patiently(address: &str, wait: Duration) -> Result<Client, String> {
        let stream = TcpStream::connect(address).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidInput => format!("{address} isn't HOST:PORT"),
            _ => format!("can't connect to {address}: {error}"),
        })?;
        stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(wait)))
            .map_err(|error| format!("{address}: {error}"))?;
        let mut client = Client {
            stream,
            address: address.to_owned(),
            correlation_id: 0,
            versions: ApiVersionsResponse::default(),
        };
        let request = ApiVersionsRequest {
            client_software_name: CLIENT_ID.to_owned(),
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

    pub fn fetch_version(&self) -> Result<i16, String> {
        self.version(ApiKey::Fetch, FETCH_VERSION_MAX)
    }

    /// The address of each partition's leader; the topic is created if it isn't there.
    pub fn leaders(&mut self, wanted: &Wanted) -> Result<Vec<String>, String> {
        let topic = &wanted.topic;
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
                    self.create_topic(wanted)?;
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

    fn create_topic(&mut self, wanted: &Wanted) -> Result<(), String> {
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: wanted.topic.clone(),
                num_partitions: wanted.partitions,
                replication_factor: wanted.replication_factor,
                ..Default::default()
            }],
            timeout_ms: TOPIC_TIMEOUT_MS,
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

    /// Deletes the topic; false if the broker doesn't offer it.
    pub fn delete_topic(&mut self, topic: &str) -> Result<bool, String> {
        let Ok(version) = self.version(ApiKey::DeleteTopics, i16::MAX) else {
            return Ok(false);
        };
        let request = DeleteTopicsRequest {
            topics: vec![DeleteTopicState {
                name: Some(topic.to_owned()),
                ..Default::default()
            }],
            topic_names: Vec::new(),
            timeout_ms: TOPIC_TIMEOUT_MS,
        };
        // Below version 6 topics stand in the other field.
        let request = match version {
            6.. => request,
            _ => DeleteTopicsRequest {
                topics: Vec::new(),
                topic_names: vec![topic.to_owned()],
                ..request
            },
        };
        let deleted: DeleteTopicsResponse = self.call(ApiKey::DeleteTopics, version, &request)?;
        for found in &deleted.responses {
            self.ok(found.error_code, "DeleteTopics")?;
        }
        Ok(true)
    }

    /// Finalized features and their levels.
    pub fn features(&self) -> BTreeMap<String, i16> {
        let features = self.versions.finalized_features.iter();
        features
            .map(|feature| (feature.name.clone(), feature.max_version_level))
            .collect()
    }

    /// Settings of a broker that aren't defaults; none where the broker doesn't tell.
    pub fn settings(&mut self) -> BTreeMap<String, String> {
        self.asked_settings().unwrap_or_default()
    }

    fn asked_settings(&mut self) -> Result<BTreeMap<String, String>, String> {
        let version = self.version(ApiKey::Metadata, i16::MAX)?;
        let request = MetadataRequest {
            topics: Some(Vec::new()),
            ..Default::default()
        };
        let found: MetadataResponse = self.call(ApiKey::Metadata, version, &request)?;
        let broker = found.brokers.first().ok_or("no brokers")?;
        let version = self.version(ApiKey::DescribeConfigs, i16::MAX)?;
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: BROKER_RESOURCE,
                resource_name: broker.node_id.to_string(),
                configuration_keys: None,
            }],
            ..Default::default()
        };
        let answer: DescribeConfigsResponse =
            self.call(ApiKey::DescribeConfigs, version, &request)?;
        let told = answer.results.into_iter().flat_map(|result| result.configs);
        Ok(told
            .filter(|config| config.config_source != DEFAULT_CONFIG && !config.is_sensitive)
            .filter(|config| !SECRET.iter().any(|word| config.name.contains(word)))
            .filter_map(|config| Some((config.name, config.value?)))
            .collect())
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
        let mut out = BytesMut::new();
        let id = self.correlation_id;
        put_request(&mut out, api, version, id, request)?;
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

/// Writes a whole frame into `out`, which is empty.
pub fn put_request<Q: Message>(
    out: &mut BytesMut,
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    request: &Q,
) -> Result<(), String> {
    out.extend_from_slice(&[0; 4]);
    encode_request_header(out, api, version, correlation_id, Some(CLIENT_ID));
    request
        .encode(out, version)
        .map_err(|error| format!("{api}: {error}"))?;
    let size = i32::try_from(out.len() - 4).map_err(|_| format!("{api}: it is too large"))?;
    out[..4].copy_from_slice(&size.to_be_bytes());
    Ok(())
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
