//! What durable acknowledgements cost, beside what the device's own fdatasync takes and what
//! the page cache gives: a whole node in this process, over loopback, `ottla.durability=fsync`.
//!
//! Expected: with 16 requests of 64 KiB in flight at least half of what `os` gives; 32
//! producers spread over 100 partitions at least half of what they reach on one; with one
//! request in flight a p99 of at most twice that of a write and an fdatasync of a plain file.
//! Slices of all are taken in turn, and medians told: a shared device has moods.
//!
//! `cargo bench --bench durable [-- DIRECTORY]`, which should be on the disk in question;
//! `cargo test --benches` runs a moment of each.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use hdrhistogram::Histogram;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ottla::base::{CoreId, Rng};
use ottla::config::load;
use ottla::io::disk::RealDisk;
use ottla::io::{CoreConfig, CoreHandle, run_core};
use ottla::node::lifecycle::{self, Life};
use ottla::node::listeners::{self, Claim};
use ottla::node::{self, storage};
use ottla::record::{BatchBuilder, BatchParams};
use ottla::wire::ApiKey;
use ottla::wire::codec::{Decoder, Message};
use ottla::wire::header::{decode_response_header, encode_request_header};
use ottla::wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use ottla::wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ottla::wire::messages::{
    CreateTopicsRequest, CreateTopicsResponse, ProduceRequest, ProduceResponse,
};

const CORES: usize = 2;
const PRODUCERS: usize = 32;
const PARTITIONS: i32 = 100;
const VERSION: i16 = 9;
const PATIENCE: Duration = Duration::from_secs(60);

/// Name, partitions and `flush.messages` of the topics.
const TOPICS: [(&str, i32, Option<&str>); 3] = [
    ("one", 1, None),
    ("many", PARTITIONS, None),
    ("os", 1, Some("9223372036854775807")),
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let full = std::env::args().any(|argument| argument == "--bench");
    let directory = arguments.find(|argument| !argument.starts_with('-'));
    let directory =
        directory.map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), Into::into);
    let directory = tempfile::tempdir_in(directory).expect("a directory");
    let (slice, rounds) = match full {
        true => (Duration::from_secs(1), 9),
        false => (Duration::from_millis(20), 1),
    };
    let node = Node::start(directory.path());
    let mut device = Device::open(&directory.path().join("device"));
    let mut results = Results::default();
    for _ in 0..rounds {
        results.device.push(p50_p99(&device.run(slice)));
        results
            .alone
            .push(p50_p99(&node.produce("one", 1, 1, 1, 1 << 10, slice)));
        results
            .os_large
            .push(rate(&node.produce("os", 1, 1, 16, 64 << 10, slice), slice));
        results
            .large
            .push(rate(&node.produce("one", 1, 1, 16, 64 << 10, slice), slice));
        results.one.push(rate(
            &node.produce("one", 1, PRODUCERS, 1, 1 << 10, slice),
            slice,
        ));
        let took = node.produce("many", PARTITIONS, PRODUCERS, 1, 1 << 10, slice);
        results.many.push(rate(&took, slice));
    }
    results.tell();
    node.stop();
}

#[derive(Default)]
struct Results {
    /// p50 and p99 of each slice, in µs.
    device: Vec<(f64, f64)>,
    alone: Vec<(f64, f64)>,
    /// Acknowledged requests a second of each slice.
    os_large: Vec<f64>,
    large: Vec<f64>,
    one: Vec<f64>,
    many: Vec<f64>,
}

impl Results {
    fn tell(&self) {
        let p50 = |slices: &[(f64, f64)]| median(slices.iter().map(|(p50, _)| *p50));
        let p99 = |slices: &[(f64, f64)]| median(slices.iter().map(|(_, p99)| *p99));
        let (device, alone) = (p99(&self.device), p99(&self.alone));
        println!("medians of {} slices", self.device.len());
        println!(
            "device, write and fdatasync: p50 {:6.0} µs, p99 {device:6.0} µs",
            p50(&self.device)
        );
        println!(
            "one in flight, 1 KiB:        p50 {:6.0} µs, p99 {alone:6.0} µs: {:.2} device syncs",
            p50(&self.alone),
            alone / device
        );
        let each = |rates: &[f64]| median(rates.iter().copied());
        let (os, large) = (each(&self.os_large), each(&self.large));
        println!(
            "16 in flight, 64 KiB:        os {os:6.0}/s, fsync {large:6.0}/s: {:.2}",
            large / os
        );
        let (one, many) = (each(&self.one), each(&self.many));
        println!(
            "{PRODUCERS} producers, 1 KiB:         one partition {one:6.0}/s, {PARTITIONS} partitions {many:6.0}/s: {:.2}",
            many / one
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn p50_p99(took: &Histogram<u64>) -> (f64, f64) {
    let at = |quantile| took.value_at_quantile(quantile) as f64 / 1e3;
    (at(0.5), at(0.99))
}

fn rate(took: &Histogram<u64>, slice: Duration) -> f64 {
    took.len() as f64 / slice.as_secs_f64()
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000_000, 3).expect("a range of nanoseconds")
}

/// A plain file that grows by synced writes.
struct Device {
    file: std::fs::File,
    end: u64,
}

impl Device {
    fn open(path: &Path) -> Device {
        let file = OpenOptions::new().create_new(true).write(true).open(path);
        Device {
            file: file.expect("a file"),
            end: 0,
        }
    }

    fn run(&mut self, slice: Duration) -> Histogram<u64> {
        let (mut took, block, until) = (histogram(), [7; 1 << 10], Instant::now() + slice);
        while Instant::now() < until {
            let start = Instant::now();
            self.file
                .write_all_at(&block, self.end)
                .expect("it is written");
            self.file.sync_data().expect("it is synced");
            took.saturating_record(start.elapsed().as_nanos() as u64);
            self.end += block.len() as u64;
        }
        took
    }
}

struct Node {
    address: SocketAddr,
    data: Vec<CoreHandle<()>>,
    controller: CoreHandle<()>,
    _claims: Vec<Claim>,
}

impl Node {
    fn start(directory: &Path) -> Node {
        let properties = format!(
            "process.roles=broker,controller\nnode.id=1\nlog.dirs={}\n\
             controller.listener.names=CONTROLLER\n\
             listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0\n\
             controller.quorum.voters=1@127.0.0.1:9093\nottla.durability=fsync\n",
            directory.join("data").display()
        );
        let config = load::from_bytes(Path::new("bench.properties"), properties.as_bytes(), &[]);
        let config = config.expect("the properties are right").node;
        let storage = storage::open(&RealDisk, &config, 1_700_000_000_000, &mut Rng::new(1));
        let storage = storage.expect("the directory can be formatted");
        let (bound, claims) = listeners::reserve(&config).expect("ports are free");
        let address = bound[0].address;
        let shared = node::shared(config, &storage, CORES);
        let (started, starting) = mpsc::channel();
        let life = Life {
            node: shared.clone(),
            listeners: bound,
            storage,
            started,
        };
        let mut seeds = node::wire_up(CORES);
        let last = seeds.pop().expect("one seed for each core");
        let data = seeds
            .into_iter()
            .map(|seed| {
                let (node, config) = (shared.clone(), CoreConfig::new(seed.core()));
                run_core(config, move |rt| node::data_core(rt, seed, node)).expect("a core")
            })
            .collect();
        let config = CoreConfig::new(CoreId(CORES as u16));
        let controller = run_core(config, move |rt| lifecycle::run(rt, last, life));
        let outcome = starting.recv().expect("the controller says how it went");
        outcome.expect("the node starts");
        let node = Node {
            address,
            data,
            controller: controller.expect("a core"),
            _claims: claims,
        };
        node.create_topics();
        node
    }

    fn create_topics(&self) {
        let topic =
            |(name, partitions, flush_messages): (&str, i32, Option<&str>)| CreatableTopic {
                name: name.to_owned(),
                num_partitions: partitions,
                replication_factor: 1,
                configs: flush_messages
                    .into_iter()
                    .map(|value| CreatableTopicConfig {
                        name: "flush.messages".to_owned(),
                        value: Some(value.to_owned()),
                    })
                    .collect(),
                ..Default::default()
            };
        let request = CreateTopicsRequest {
            topics: TOPICS.into_iter().map(topic).collect(),
            timeout_ms: 10_000,
            ..Default::default()
        };
        let mut client = Client::connect(self.address);
        client.send(&frame(ApiKey::CreateTopics, 7, &request));
        let created: CreateTopicsResponse = client.answer(ApiKey::CreateTopics, 7);
        assert!(created.topics.iter().all(|topic| topic.error_code == 0));
        let deadline = Instant::now() + PATIENCE;
        for (name, partitions, _) in TOPICS {
            for partition in 0..partitions {
                let first = produce(name, partition, 10);
                while !client.is_taken(&first) {
                    assert!(
                        Instant::now() < deadline,
                        "{name}-{partition} has no leader"
                    );
                }
            }
        }
    }

    /// That many producers, each with that many requests in flight, go round the partitions.
    fn produce(
        &self,
        topic: &str,
        partitions: i32,
        producers: usize,
        in_flight: usize,
        bytes: usize,
        slice: Duration,
    ) -> Histogram<u64> {
        let frames: Vec<Vec<u8>> = (0..partitions)
            .map(|partition| produce(topic, partition, bytes))
            .collect();
        let mut producers: Vec<Producer> = (0..producers)
            .map(|number| Producer {
                client: Client::connect(self.address),
                next: number,
                sent: Default::default(),
            })
            .collect();
        let mut took = histogram();
        let until = Instant::now() + slice;
        for producer in &mut producers {
            for _ in 0..in_flight {
                producer.send(&frames, PRODUCERS);
            }
        }
        while producers.iter().any(|producer| !producer.sent.is_empty()) {
            let mut polled: Vec<PollFd<'_>> = producers
                .iter()
                .map(|producer| PollFd::new(producer.client.stream.as_fd(), PollFlags::POLLIN))
                .collect();
            poll(&mut polled, PollTimeout::from(60_000u16)).expect("it can be polled");
            let ready: Vec<bool> = polled
                .iter()
                .map(|fd| fd.any().unwrap_or_default())
                .collect();
            for (producer, _) in producers.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
                let done = producer.client.count_answers();
                for _ in 0..done {
                    let sent = producer.sent.pop_front().expect("one answer for each");
                    took.saturating_record(sent.elapsed().as_nanos() as u64);
                    if Instant::now() < until {
                        producer.send(&frames, PRODUCERS);
                    }
                }
            }
        }
        took
    }

    fn stop(self) {
        for core in &self.data {
            core.stopper().stop();
        }
        self.controller.stopper().stop();
        self.controller.join();
        for core in self.data {
            core.join();
        }
    }
}

struct Producer {
    client: Client,
    /// Partition of the next request, modulo their number.
    next: usize,
    /// When what is in flight was sent.
    sent: std::collections::VecDeque<Instant>,
}

impl Producer {
    fn send(&mut self, frames: &[Vec<u8>], stride: usize) {
        let frame = &frames[self.next % frames.len()];
        self.next += stride;
        self.sent.push_back(Instant::now());
        self.client.send(frame);
    }
}

struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    fn connect(to: SocketAddr) -> Client {
        let stream = TcpStream::connect(to).expect("the node listens");
        stream.set_nodelay(true).expect("a socket");
        Client {
            stream,
            received: Vec::new(),
        }
    }

    fn send(&mut self, frame: &[u8]) {
        self.stream.write_all(frame).expect("the node reads");
    }

    /// Reads what has come; the number of whole answers, which say that all is well.
    fn count_answers(&mut self) -> usize {
        let mut buffer = [0; 16 << 10];
        let count = self.stream.read(&mut buffer).expect("the node answers");
        assert!(count > 0, "the node has closed the connection");
        self.received.extend_from_slice(&buffer[..count]);
        let (mut at, mut answers) = (0, 0);
        while let Some(size) = self.received[at..].first_chunk::<4>() {
            let end = at + 4 + i32::from_be_bytes(*size) as usize;
            let Some(answer) = self.received.get(at + 4..end) else {
                break;
            };
            assert_eq!(error_of(answer), 0);
            (at, answers) = (end, answers + 1);
        }
        self.received.drain(..at);
        answers
    }

    fn answer<R: Message>(&mut self, api: ApiKey, version: i16) -> R {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size).expect("the node answers");
        let mut answer = vec![0; i32::from_be_bytes(size) as usize];
        self.stream
            .read_exact(&mut answer)
            .expect("the node answers");
        let answer = bytes::Bytes::from(answer);
        let mut decoder = Decoder::new(&answer);
        decode_response_header(&mut decoder, api, version).expect("a header");
        R::decode(&mut decoder, version).expect("a response")
    }

    fn is_taken(&mut self, frame: &[u8]) -> bool {
        self.send(frame);
        let answer: ProduceResponse = self.answer(ApiKey::Produce, VERSION);
        answer.responses[0].partition_responses[0].error_code == 0
    }
}

fn error_of(answer: &[u8]) -> i16 {
    let answer = bytes::Bytes::copy_from_slice(answer);
    let mut decoder = Decoder::new(&answer);
    decode_response_header(&mut decoder, ApiKey::Produce, VERSION).expect("a header");
    let response = ProduceResponse::decode(&mut decoder, VERSION).expect("a response");
    response.responses[0].partition_responses[0].error_code
}

/// A produce of one record, to be acknowledged by all replicas.
fn produce(topic: &str, partition: i32, bytes: usize) -> Vec<u8> {
    let mut batch = BatchBuilder::new(BatchParams::default());
    batch.append(1_000, None, Some(&vec![b'x'; bytes]), &[]);
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 60_000,
        topic_data: vec![TopicProduceData {
            name: topic.to_owned(),
            partition_data: vec![PartitionProduceData {
                index: partition,
                records: Some(batch.finish()),
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    frame(ApiKey::Produce, VERSION, &request)
}

fn frame<Q: Message>(api: ApiKey, version: i16, request: &Q) -> Vec<u8> {
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    encode_request_header(&mut frame, api, version, 1, Some("bench"));
    request.encode(&mut frame, version).expect("it fits");
    let size = (frame.len() - 4) as i32;
    frame[..4].copy_from_slice(&size.to_be_bytes());
    frame.to_vec()
}
