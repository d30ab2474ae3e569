//! A running node as a target, asked over plain sockets: Apache Kafka, or the Ottla that
//! was built.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use ottla::base::Uuid;
use ottla::wire::ApiKey;
use ottla::wire::codec::{Decoder, Message};
use ottla::wire::messages::create_topics_request::CreatableTopic;
use ottla::wire::messages::fetch_request::{FetchPartition, FetchTopic};
use ottla::wire::messages::{
    CreateTopicsRequest, CreateTopicsResponse, FetchRequest, FetchResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, HeartbeatRequest, HeartbeatResponse,
};

use crate::session::{TOPIC, Target};

const START_TIMEOUT: Duration = Duration::from_secs(90);

pub struct Node {
    child: Child,
    port: u16,
    connections: BTreeMap<String, Connection>,
    topic_id: Uuid,
    _directory: tempfile::TempDir,
}

struct Connection {
    stream: TcpStream,
    /// What each answer's header is like, in order.
    flexible: std::collections::VecDeque<bool>,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Node {
    /// Kafka; `None` where its jars aren't given.
    pub fn kafka() -> Option<Node> {
        let classpath = std::env::var("OTTLA_KAFKA_CLASSPATH").ok()?;
        let java = |arguments: &[&str]| {
            let mut command = Command::new("java");
            command
                .args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
                .args(["-cp", &classpath])
                .args(arguments);
            command
        };
        Some(Node::start(
            java(&["kafka.tools.StorageTool"]),
            java(&["kafka.Kafka"]),
        ))
    }

    /// Ottla, on two shards.
    pub fn ottla() -> Node {
        let ottla = || Command::new(env!("CARGO_BIN_EXE_ottla"));
        let mut start = ottla();
        start.args(["start", "--override", "ottla.cores=2", "--config"]);
        Node::start(ottla(), start)
    }

    fn start(mut format: Command, mut start: Command) -> Node {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (port, controller_port) = (free_port(), free_port());
        let data = directory.path().join("data");
        let config = directory.path().join("server.properties");
        let properties = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller_port}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             controller.listener.names=CONTROLLER\n\
             log.dirs={}\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=1\n\
             group.initial.rebalance.delay.ms=600\n\
             group.min.session.timeout.ms=300\n\
             group.max.size=3\n",
            data.display()
        );
        std::fs::write(&config, properties).expect("the directory can be written");
        let quiet = |command: &mut Command| {
            command
                .arg(&config)
                .current_dir(directory.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
        };
        format.args([
            "format",
            "--cluster-id",
            "AAAAAAAAAAAAAAAAAAAABA",
            "--config",
        ]);
        quiet(&mut format);
        quiet(&mut start);
        let formatted = format.status().expect("the program is there");
        assert!(formatted.success(), "formatting");
        let child = start.spawn().expect("the program is there");
        let mut node = Node {
            child,
            port,
            connections: BTreeMap::new(),
            topic_id: Uuid::ZERO,
            _directory: directory,
        };
        node.wait_ready();
        node
    }

    fn wait_ready(&mut self) {
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "the node did not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        let create = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: TOPIC.into(),
                num_partitions: 3,
                replication_factor: 1,
                ..CreatableTopic::default()
            }],
            timeout_ms: 30_000,
            ..CreateTopicsRequest::default()
        };
        let find = FindCoordinatorRequest {
            coordinator_keys: vec!["group".into()],
            ..FindCoordinatorRequest::default()
        };
        let heartbeat = HeartbeatRequest {
            group_id: "group".into(),
            ..HeartbeatRequest::default()
        };
        loop {
            if self.topic_id.is_zero() {
                let created: CreateTopicsResponse = self.ask(7, &create);
                if created.topics[0].error_code == 0 {
                    self.topic_id = created.topics[0].topic_id;
                }
            }
            let found: FindCoordinatorResponse = self.ask(4, &find);
            let answered: HeartbeatResponse = self.ask(4, &heartbeat);
            // 25: the coordinator is there and knows no such member.
            if !self.topic_id.is_zero()
                && found.coordinators[0].error_code == 0
                && answered.error_code == 25
            {
                return;
            }
            assert!(Instant::now() < deadline, "the node did not get ready");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn ask<Q: Message, R: Message>(&mut self, version: i16, request: &Q) -> R {
        let mut body = BytesMut::new();
        request
            .encode(&mut body, version)
            .expect("a request of ours");
        let api_key = Q::API_KEY.expect("a request has a key");
        self.send("control", api_key, version, body.freeze());
        let answer = self.receive("control");
        R::decode(&mut Decoder::new(&answer), version).expect("an answer")
    }
}

impl Target for Node {
    fn send(&mut self, connection: &str, api_key: i16, version: i16, body: Bytes) {
        let port = self.port;
        let connection = self
            .connections
            .entry(connection.to_owned())
            .or_insert_with(|| {
                let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
                stream
                    .set_read_timeout(Some(Duration::from_secs(60)))
                    .expect("a socket");
                stream.set_nodelay(true).expect("a socket");
                Connection {
                    stream,
                    flexible: Default::default(),
                }
            });
        let flexible = ApiKey::from_i16(api_key)
            .expect("an api of the table")
            .is_flexible(version);
        let mut frame = BytesMut::new();
        frame.put_i16(api_key);
        frame.put_i16(version);
        frame.put_i32(7);
        frame.put_i16(6);
        frame.put_slice(b"client");
        if flexible {
            frame.put_u8(0);
        }
        frame.put_slice(&body);
        let size = u32::try_from(frame.len()).expect("a small frame");
        connection
            .stream
            .write_all(&[&size.to_be_bytes()[..], &frame].concat())
            .expect("it reads");
        connection.flexible.push_back(flexible);
        // The order of requests on different connections is part of the session.
        std::thread::sleep(Duration::from_millis(20));
    }

    fn receive(&mut self, connection: &str) -> Bytes {
        let connection = self
            .connections
            .get_mut(connection)
            .expect("a request was sent");
        let mut size = [0; 4];
        connection.stream.read_exact(&mut size).expect("it answers");
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        connection
            .stream
            .read_exact(&mut frame)
            .expect("it answers");
        let flexible = connection.flexible.pop_front().expect("a request was sent");
        Bytes::from(frame).slice(4 + usize::from(flexible)..)
    }

    fn sleep_ms(&mut self, ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }

    fn topic_id(&self) -> Uuid {
        self.topic_id
    }

    fn offsets_log(&mut self) -> Bytes {
        let mut log = BytesMut::new();
        let mut offset = 0;
        loop {
            let request = FetchRequest {
                replica_id: -1,
                max_wait_ms: 0,
                max_bytes: 1 << 24,
                session_epoch: -1,
                topics: vec![FetchTopic {
                    topic: "__consumer_offsets".into(),
                    partitions: vec![FetchPartition {
                        partition: 0,
                        fetch_offset: offset,
                        partition_max_bytes: 1 << 24,
                        ..FetchPartition::default()
                    }],
                    ..FetchTopic::default()
                }],
                ..FetchRequest::default()
            };
            let mut response: FetchResponse = self.ask(11, &request);
            let partition = response.responses.remove(0).partitions.remove(0);
            assert_eq!(partition.error_code, 0);
            let records = partition.records.unwrap_or_default();
            let Some(last) = ottla::record::Batches::new(&records).last() else {
                return log.freeze();
            };
            offset = last.expect("whole batches").next_offset().0;
            log.extend_from_slice(&records);
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}
