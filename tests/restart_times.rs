//! How long a node that was killed (SIGKILL) takes until it answers again: from its start to
//! the first produce and the first fetch of what it held. Small in the tests, where only the
//! answers are checked; `OTTLA_LONG=1 cargo test --release --test restart_times -- --nocapture`
//! fills 1 GiB and then 10 GiB over 1,000 partitions, and prints the times (targets: 0.5 s and
//! 2 s). `OTTLA_RESTART_DIR` says where to put the data.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ottla::base::ErrorCode;
use ottla::record::{BatchBuilder, BatchParams};
use ottla::wire::header::{decode_response_header, encode_request_header};
use ottla::wire::messages::create_topics_request::CreatableTopic;
use ottla::wire::messages::fetch_request::{FetchPartition, FetchTopic};
use ottla::wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ottla::wire::messages::{
    CreateTopicsRequest, CreateTopicsResponse, FetchRequest, FetchResponse, ProduceRequest,
    ProduceResponse,
};
use ottla::wire::{ApiKey, Decoder, Message};

const TOPIC: &str = "restart";
const PATIENCE: Duration = Duration::from_secs(300);
/// Of a request that fills partitions.
const REQUEST_BYTES: usize = 8 << 20;

/// A node on a free port. Killed when dropped.
struct Node {
    child: Child,
    address: String,
    started: Instant,
}

impl Node {
    fn start(data: &Path) -> Node {
        let started = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_ottla"))
            .args(["start", "-o"])
            .arg("listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0")
            .arg("-o")
            .arg(format!("log.dirs={}", data.display()))
            .args(["-o", "ottla.log.level=info"])
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .map(Result::unwrap)
            .find_map(|line| Some(line.split_once("PLAINTEXT://")?.1.trim().to_owned()))
            .expect("the banner names the listener");
        Node {
            child,
            address,
            started,
        }
    }

    fn client(&self) -> Client {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // SIGKILL, as a crash.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Client {
    stream: TcpStream,
}

impl Client {
    fn call<Q: Message, A: Message>(&mut self, api: ApiKey, version: i16, request: &Q) -> A {
        let mut frame = BytesMut::from(&[0; 4][..]);
        encode_request_header(&mut frame, api, version, 1, Some("restart"));
        request.encode(&mut frame, version).unwrap();
        let size = frame.len() as u32 - 4;
        frame[..4].copy_from_slice(&size.to_be_bytes());
        self.stream.write_all(&frame).unwrap();
        let mut size = [0; 4];
        self.stream.read_exact(&mut size).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(size) as usize];
        self.stream.read_exact(&mut answer).unwrap();
        let answer = Bytes::from(answer);
        let mut d = Decoder::new(&answer);
        decode_response_header(&mut d, api, version).unwrap();
        A::decode(&mut d, version).unwrap()
    }

    fn create(&mut self, partitions: i32) {
        let topic = CreatableTopic {
            name: TOPIC.to_owned(),
            num_partitions: partitions,
            replication_factor: 1,
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            ..Default::default()
        };
        let answer: CreateTopicsResponse = self.call(ApiKey::CreateTopics, 5, &request);
        assert_eq!(answer.topics[0].error_code, ErrorCode::NONE.0);
    }

    /// Base offset of the first batch.
    fn produce(&mut self, partitions: &[i32], batch: &Bytes) -> i64 {
        let data = |index: &i32| PartitionProduceData {
            index: *index,
            records: Some(batch.clone()),
        };
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 60_000,
            topic_data: vec![TopicProduceData {
                name: TOPIC.to_owned(),
                partition_data: partitions.iter().map(data).collect(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let answer: ProduceResponse = self.call(ApiKey::Produce, 9, &request);
        let answers = &answer.responses[0].partition_responses;
        assert!(answers.iter().all(|a| a.error_code == ErrorCode::NONE.0));
        answers[0].base_offset
    }

    /// Bytes from an offset on.
    fn fetch(&mut self, partition: i32, offset: i64) -> usize {
        let request = FetchRequest {
            max_wait_ms: 1_000,
            min_bytes: 1,
            topics: vec![FetchTopic {
                topic: TOPIC.to_owned(),
                partitions: vec![FetchPartition {
                    partition,
                    fetch_offset: offset,
                    partition_max_bytes: 1 << 20,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let answer: FetchResponse = self.call(ApiKey::Fetch, 12, &request);
        let partition = &answer.responses[0].partitions[0];
        assert_eq!(partition.error_code, ErrorCode::NONE.0);
        partition.records.as_ref().map_or(0, Bytes::len)
    }
}

fn batch(value_len: usize) -> Bytes {
    let mut builder = BatchBuilder::new(BatchParams::default());
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    builder.append(
        now.as_millis() as i64,
        None,
        Some(&vec![b'x'; value_len]),
        &[],
    );
    builder.finish()
}

/// Fills, kills, starts again; prints how long that took.
fn restart(bytes: u64, partitions: i32) {
    let dir = match std::env::var_os("OTTLA_RESTART_DIR") {
        Some(dir) => tempfile::tempdir_in(dir).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let data = dir.path().join("data");
    let node = Node::start(&data);
    println!(
        "formatted start: {:?} to the listener",
        node.started.elapsed()
    );
    let mut client = node.client();
    client.create(partitions);
    let batch = batch(16 << 10);
    let rounds = (bytes / (batch.len() as u64 * partitions as u64)).max(1);
    let indexes: Vec<i32> = (0..partitions).collect();
    let at_once = (REQUEST_BYTES / batch.len()).max(1);
    let began = Instant::now();
    for _ in 0..rounds {
        for some in indexes.chunks(at_once) {
            if some.len() >= 16 {
                client.produce(some, &batch);
            } else {
                for one in some {
                    client.produce(&[*one], &batch);
                }
            }
        }
    }
    let written = rounds * partitions as u64 * batch.len() as u64;
    println!(
        "{written} bytes over {partitions} partitions in {:?}",
        began.elapsed()
    );
    drop(node);

    for what in ["after a kill", "after another kill, with nothing written"] {
        let node = Node::start(&data);
        let listening = node.started.elapsed();
        let mut client = node.client();
        let last = partitions - 1;
        assert!(client.fetch(last, rounds as i64 - 1) >= batch.len());
        let fetched = node.started.elapsed();
        assert!(client.produce(&[0], &batch) >= rounds as i64);
        let produced = node.started.elapsed();
        println!(
            "{what}: listening {listening:?}, first fetch {fetched:?}, first produce {produced:?}"
        );
        // All is there.
        for partition in indexes.iter().step_by(partitions as usize / 16 + 1) {
            assert!(client.fetch(*partition, 0) >= batch.len());
        }
    }
}

#[test]
fn a_killed_node_answers_again() {
    if std::env::var_os("OTTLA_LONG").is_some() {
        restart(1 << 30, 1);
        restart(1 << 30, 16);
        restart(10 << 30, 1_000);
    } else {
        restart(4 << 20, 8);
    }
}
