//! A node in this process, on real cores, whose counters a test may look at; and a client
//! that pipelines.

#[path = "requests.rs"]
mod requests;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use ottla::base::{CoreId, Rng};
use ottla::config::load;
use ottla::io::disk::RealDisk;
use ottla::io::{CoreConfig, CoreHandle, IoStats, run_core};
use ottla::node::lifecycle::{self, Life};
use ottla::node::listeners::{self, Claim};
use ottla::node::{self, storage};
use ottla::record::{batch::Batches, records};
use ottla::shard::Node;
use ottla::wire::ApiKey;
use ottla::wire::codec::{Decoder, Message};
use ottla::wire::header::{decode_response_header, encode_request_header};
use ottla::wire::messages::create_topics_request::CreatableTopic;
use ottla::wire::messages::fetch_request::{FetchPartition, FetchTopic};
use ottla::wire::messages::{
    CreateTopicsRequest, CreateTopicsResponse, FetchRequest, FetchResponse, ProduceRequest,
    ProduceResponse,
};

pub const TOPIC: &str = "t";
const PATIENCE: Duration = Duration::from_secs(60);

/// Polls a counter until it is as wanted.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub struct Shards {
    pub node: Arc<Node>,
    pub address: SocketAddr,
    data: Vec<CoreHandle<IoStats>>,
    controller: CoreHandle<()>,
    /// Without them another test's node could listen on the same address.
    _claims: Vec<Claim>,
    _directory: tempfile::TempDir,
}

impl Shards {
    /// Starts a node with a topic of as many partitions as it has cores: one on each.
    pub fn start(cores: usize) -> Shards {
        Shards::start_with(cores, || {})
    }

    /// As [`start`](Self::start); each data core's thread calls `on_core` first.
    pub fn start_with(cores: usize, on_core: fn()) -> Shards {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let properties = format!(
            "process.roles=broker,controller\nnode.id=1\nlog.dirs={}\n\
             controller.listener.names=CONTROLLER\n\
             listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0\n\
             controller.quorum.voters=1@127.0.0.1:9093\n\
             log.retention.ms=-1\n",
            directory.path().join("data").display()
        );
        let config = load::from_bytes(Path::new("test.properties"), properties.as_bytes(), &[])
            .expect("the properties are right")
            .node;
        let storage = storage::open(&RealDisk, &config, 1_700_000_000_000, &mut Rng::new(1))
            .expect("the directory can be formatted");
        let (bound, claims) = listeners::reserve(&config).expect("ports are free");
        let address = bound[0].address;
        let node = node::shared(config, &storage, cores);
        let (started, starting) = mpsc::channel();
        let life = Life {
            node: node.clone(),
            listeners: bound,
            storage,
            started,
        };
        let mut seeds = node::wire_up(cores);
        let last = seeds.pop().expect("one seed for each core");
        let data = seeds
            .into_iter()
            .map(|seed| {
                let (node, config) = (node.clone(), CoreConfig::new(seed.core()));
                let core = run_core(config, move |rt| async move {
                    on_core();
                    node::data_core(rt.clone(), seed, node).await;
                    rt.stats()
                });
                core.expect("a core")
            })
            .collect();
        let config = CoreConfig::new(CoreId(cores as u16));
        let controller = run_core(config, move |rt| lifecycle::run(rt, last, life));
        let shards = Shards {
            node,
            address,
            data,
            controller: controller.expect("a core"),
            _claims: claims,
            _directory: directory,
        };
        let outcome = starting.recv().expect("the controller says how it went");
        outcome.expect("the node starts");
        shards.connect().create_topic(cores as i32);
        shards
    }

    pub fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).expect("the node listens");
        stream.set_nodelay(true).expect("a socket");
        Client {
            stream,
            next_id: 0,
            next_answer: 0,
        }
    }

    pub fn cores(&self) -> impl Iterator<Item = CoreId> + use<> {
        (0..self.node.cores).map(CoreId)
    }

    pub fn connections(&self) -> Vec<usize> {
        let load = &self.node.load;
        self.cores().map(|core| load.connections(core)).collect()
    }

    pub fn moves(&self) -> u64 {
        let load = &self.node.load;
        self.cores().map(|core| load.moved_here(core)).sum()
    }

    /// Returns what the data cores have counted.
    pub fn stop(self) -> Vec<IoStats> {
        for core in &self.data {
            core.stopper().stop();
        }
        self.controller.stopper().stop();
        self.controller.join();
        self.data.into_iter().map(CoreHandle::join).collect()
    }
}

/// Sends without waiting for answers, and insists on their order.
pub struct Client {
    pub stream: TcpStream,
    next_id: i32,
    next_answer: i32,
}

impl Client {
    pub fn frame<Q: Message>(&mut self, api: ApiKey, version: i16, request: &Q) -> BytesMut {
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        encode_request_header(&mut frame, api, version, self.next_id, Some("test"));
        self.next_id += 1;
        request.encode(&mut frame, version).expect("it fits");
        let size = (frame.len() - 4) as i32;
        frame[..4].copy_from_slice(&size.to_be_bytes());
        frame
    }

    pub fn send<Q: Message>(&mut self, api: ApiKey, version: i16, request: &Q) {
        let frame = self.frame(api, version, request);
        self.stream.write_all(&frame).expect("the node reads");
    }

    pub fn answer<R: Message>(&mut self, api: ApiKey, version: i16) -> R {
        self.try_answer(api, version).expect("the node answers")
    }

    pub fn try_answer<R: Message>(&mut self, api: ApiKey, version: i16) -> io::Result<R> {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size)?;
        let mut frame = vec![0; i32::from_be_bytes(size) as usize];
        self.stream.read_exact(&mut frame)?;
        let frame = bytes::Bytes::from(frame);
        let mut decoder = Decoder::new(&frame);
        let id = decode_response_header(&mut decoder, api, version).expect("a header");
        assert_eq!(id, self.next_answer, "answers come in order");
        self.next_answer += 1;
        Ok(R::decode(&mut decoder, version).expect("a response"))
    }

    /// Requests that were sent and not answered.
    pub fn unanswered(&self) -> i32 {
        self.next_id - self.next_answer
    }

    fn create_topic(&mut self, partitions: i32) {
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: TOPIC.to_owned(),
                num_partitions: partitions,
                replication_factor: 1,
                ..Default::default()
            }],
            timeout_ms: 10_000,
            ..Default::default()
        };
        self.send(ApiKey::CreateTopics, 7, &request);
        let response: CreateTopicsResponse = self.answer(ApiKey::CreateTopics, 7);
        assert_eq!(response.topics[0].error_code, 0);
        wait_until("the partitions have a leader", || {
            (0..partitions).all(|partition| {
                self.send_produce(partition, b"first");
                self.produced().is_ok()
            })
        });
    }

    pub fn send_produce(&mut self, partition: i32, value: &[u8]) {
        self.send(ApiKey::Produce, 9, &produce(partition, value));
    }

    /// The partition and offset of the next produce that is answered, or the error.
    pub fn produced(&mut self) -> Result<(i32, i64), i16> {
        let response: ProduceResponse = self.answer(ApiKey::Produce, 9);
        let answer = &response.responses[0].partition_responses[0];
        match answer.error_code {
            0 => Ok((answer.index, answer.base_offset)),
            error => Err(error),
        }
    }

    pub fn fetched(&mut self) -> FetchResponse {
        self.answer(ApiKey::Fetch, 12)
    }

    /// Everything in a partition: values by offset.
    pub fn read_all(&mut self, partition: i32) -> BTreeMap<i64, Vec<u8>> {
        let mut found = BTreeMap::new();
        loop {
            let next = found.keys().next_back().map_or(0, |last| last + 1);
            self.send(ApiKey::Fetch, 12, &fetch(partition, next, 1 << 20, (0, -1)));
            let response = self.fetched();
            let before = found.len();
            found.extend(values(&response));
            if found.len() == before {
                return found;
            }
        }
    }
}

/// One record for a partition, to be acknowledged by all replicas.
pub fn produce(partition: i32, value: &[u8]) -> ProduceRequest {
    requests::produce(TOPIC, partition, value)
}

/// A fetch of one partition that doesn't wait; the session by id and epoch.
pub fn fetch(partition: i32, offset: i64, bytes_max: i32, session: (i32, i32)) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: bytes_max,
        session_id: session.0,
        session_epoch: session.1,
        topics: vec![FetchTopic {
            topic: TOPIC.to_owned(),
            partitions: vec![FetchPartition {
                partition,
                fetch_offset: offset,
                partition_max_bytes: bytes_max,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// The whole batches in a response's first partition.
pub fn values(response: &FetchResponse) -> Vec<(i64, Vec<u8>)> {
    assert_eq!(response.error_code, 0);
    let Some(topic) = response.responses.first() else {
        return Vec::new();
    };
    let data = &topic.partitions[0];
    assert_eq!(data.error_code, 0);
    let bytes = data.records.clone().unwrap_or_default();
    let mut found = Vec::new();
    for batch in Batches::new(&bytes).map_while(Result::ok) {
        let mut reader = records(&batch).expect("a batch");
        while let Some(record) = reader.next() {
            let record = record.expect("a record");
            let offset = batch.record_offset(record.offset_delta).0;
            found.push((offset, record.value.expect("a value").to_vec()));
        }
    }
    found
}
