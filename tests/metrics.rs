//! The numbers that a node tells: their format, their values after known traffic, and what
//! a hostile client of the endpoint can do.

#[path = "support/exposition.rs"]
mod exposition;
#[path = "support/requests.rs"]
mod requests;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::{BufMut as _, BytesMut};
use exposition::Exposition;
use ottla::wire::ApiKey;
use ottla::wire::codec::{Decoder, Message};
use ottla::wire::header::{decode_response_header, encode_request_header};
use ottla::wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use ottla::wire::messages::fetch_request::{FetchPartition, FetchTopic};
use ottla::wire::messages::{
    CreateTopicsRequest, CreateTopicsResponse, FetchRequest, FetchResponse, ProduceResponse,
};

const PATIENCE: Duration = Duration::from_secs(60);
const COUNT: &str = "ottla_request_stage_seconds_count";

/// A node that serves. Ended when dropped.
struct Node {
    child: Child,
    address: SocketAddr,
    metrics: Option<SocketAddr>,
    _dir: tempfile::TempDir,
}

impl Node {
    fn start(more: &[&str]) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let listeners = "listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0";
        let dirs = format!("log.dirs={}", dir.path().join("data").display());
        let mut child = Command::new(env!("CARGO_BIN_EXE_ottla"))
            .args(["start", "-o", listeners, "-o", &dirs])
            .args(["-o", "ottla.cores=2", "-o", "ottla.log.level=warn"])
            // Without a configuration a node waits for the disk.
            .args(["-o", "ottla.durability=os"])
            .args(more.iter().flat_map(|setting| ["-o", setting]))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut address, mut metrics) = (None, None);
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            match line.trim_start().split_once(' ') {
                Some(("listener", value)) if address.is_none() => {
                    let value = value.trim_start().strip_prefix("PLAINTEXT://");
                    address = value.map(|value| value.parse().unwrap());
                }
                Some(("metrics", value)) => {
                    let value = value.trim_start().strip_prefix("http://").unwrap();
                    metrics = Some(value.strip_suffix("/metrics").unwrap().parse().unwrap());
                }
                Some(("try", _)) => break,
                _ => {}
            }
        }
        Node {
            child,
            address: address.expect("the node serves"),
            metrics,
            _dir: dir,
        }
    }

    fn http(&self) -> TcpStream {
        let stream = TcpStream::connect(self.metrics.expect("it is set")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Status line, head and body of the answer to these bytes.
    fn ask(&self, request: &[u8]) -> (String, String) {
        let mut stream = self.http();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
        (head.to_owned(), body.to_owned())
    }

    fn scrape(&self) -> Exposition {
        let (head, body) = self.ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut lines = head.split("\r\n");
        assert_eq!(lines.next(), Some("HTTP/1.1 200 OK"));
        let length = format!("Content-Length: {}", body.len());
        let wanted = [
            "Content-Type: text/plain; version=0.0.4; charset=utf-8",
            &length,
            "Connection: close",
        ];
        assert_eq!(lines.collect::<Vec<_>>(), wanted);
        Exposition::parse(&body)
    }

    /// A scrape for which this holds: what happens after a client has its answer is
    /// counted a little later.
    fn scrape_until(&self, what: &str, holds: impl Fn(&Exposition) -> bool) -> Exposition {
        let end = Instant::now() + PATIENCE;
        loop {
            let found = self.scrape();
            if holds(&found) {
                return found;
            }
            assert!(Instant::now() < end, "{what}: {found:#?}");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Client(TcpStream);

impl Client {
    fn connect(node: &Node) -> Client {
        let stream = TcpStream::connect(node.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client(stream)
    }

    fn call<Q: Message, R: Message>(&mut self, api: ApiKey, version: i16, request: &Q) -> R {
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        encode_request_header(&mut frame, api, version, 1, Some("test"));
        request.encode(&mut frame, version).unwrap();
        let size = (frame.len() - 4) as i32;
        frame[..4].copy_from_slice(&size.to_be_bytes());
        self.0.write_all(&frame).unwrap();
        let mut size = [0; 4];
        self.0.read_exact(&mut size).unwrap();
        let mut answer = vec![0; i32::from_be_bytes(size) as usize];
        self.0.read_exact(&mut answer).unwrap();
        let answer = bytes::Bytes::from(answer);
        let mut decoder = Decoder::new(&answer);
        decode_response_header(&mut decoder, api, version).unwrap();
        R::decode(&mut decoder, version).unwrap()
    }

    fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let configs = configs.iter().map(|(name, value)| CreatableTopicConfig {
            name: (*name).to_owned(),
            value: Some((*value).to_owned()),
        });
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: name.to_owned(),
                num_partitions: partitions,
                replication_factor: 1,
                configs: configs.collect(),
                ..Default::default()
            }],
            timeout_ms: 10_000,
            ..Default::default()
        };
        let response: CreateTopicsResponse = self.call(ApiKey::CreateTopics, 7, &request);
        assert_eq!(response.topics[0].error_code, 0);
    }

    /// Bytes of the batch.
    fn produce(&mut self, topic: &str, partition: i32, value: &[u8]) -> usize {
        let request = requests::produce(topic, partition, value);
        let response: ProduceResponse = self.call(ApiKey::Produce, 9, &request);
        assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
        let data = &request.topic_data[0].partition_data[0];
        data.records.as_ref().unwrap().len()
    }

    /// Bytes of the records.
    fn fetch(&mut self, topic: &str, partition: i32, offset: i64, max_wait_ms: i32) -> usize {
        let request = FetchRequest {
            max_wait_ms,
            min_bytes: 1,
            max_bytes: 1 << 20,
            session_epoch: -1,
            topics: vec![FetchTopic {
                topic: topic.to_owned(),
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
        let response: FetchResponse = self.call(ApiKey::Fetch, 12, &request);
        let data = &response.responses[0].partitions[0];
        assert_eq!(data.error_code, 0);
        data.records.as_ref().map_or(0, |records| records.len())
    }
}

fn stage(found: &Exposition, api: &str, stage: &str) -> f64 {
    found.sum(COUNT, &[("api", api), ("stage", stage)])
}

#[test]
fn every_stage_is_counted_for_each_request_that_passes_it() {
    const PRODUCES: usize = 100;
    let node = Node::start(&["ottla.metrics.listen=127.0.0.1:0"]);
    let fresh = node.scrape();
    assert_eq!(stage(&fresh, "Produce", "total"), 0.0);
    assert_eq!(fresh.sum("ottla_cores", &[]), 2.0);
    assert_eq!(fresh.sum("ottla_connections", &[]), 0.0);

    let mut client = Client::connect(&node);
    client.create_topic("plain", 2, &[]);
    client.create_topic("flushed", 1, &[("flush.messages", "1")]);
    let mut sizes = Vec::new();
    for n in 0..PRODUCES {
        // By turns, so that the connection stays: half of them go to the other core.
        let value = vec![b'x'; n];
        sizes.push(client.produce("plain", (n % 2) as i32, &value));
    }
    let count = PRODUCES as f64;
    let bytes: usize = sizes.iter().sum();
    let found = node.scrape_until("all is sent", |found| {
        stage(found, "Produce", "total") >= count
    });
    for passed in [
        "received", "parsed", "appended", "answered", "sent", "total",
    ] {
        assert_eq!(stage(&found, "Produce", passed), count, "{passed}");
    }
    assert_eq!(stage(&found, "Produce", "hop"), count / 2.0);
    for not_passed in ["flushed", "purgatory", "read"] {
        assert_eq!(stage(&found, "Produce", not_passed), 0.0, "{not_passed}");
    }
    for core in ["0", "1"] {
        let appended = [("core", core), ("api", "Produce"), ("stage", "appended")];
        assert_eq!(found.sum(COUNT, &appended), count / 2.0, "{core}");
        let batches = [("core", core), ("topic", "plain")];
        assert_eq!(
            found.sum("ottla_topic_produce_batches_total", &batches),
            count / 2.0
        );
    }
    let plain = [("topic", "plain")];
    assert_eq!(
        found.sum("ottla_topic_produce_bytes_total", &plain),
        bytes as f64
    );
    let sizes_up_to = |bound: usize| sizes.iter().filter(|size| **size <= bound).count() as f64;
    for bound in ["64", "256", "1024"] {
        let counted = found.sum(
            "ottla_topic_produce_batch_bytes_bucket",
            &[("topic", "plain"), ("le", bound)],
        );
        assert_eq!(counted, sizes_up_to(bound.parse().unwrap()), "{bound}");
    }
    assert_eq!(found.sum("ottla_connections", &[]), 1.0);
    assert_eq!(found.sum("ottla_connections_accepted_total", &[]), 1.0);
    assert_eq!(found.sum("ottla_requests_in_flight", &[]), 0.0);

    // Of which each waits for the disk.
    for _ in 0..3 {
        client.produce("flushed", 0, b"durable");
    }
    // One that has to wait for records, and two that find them.
    assert_eq!(client.fetch("plain", 0, (count / 2.0) as i64, 20), 0);
    let read = client.fetch("plain", 0, 0, 0) + client.fetch("plain", 1, 0, 0);
    assert_eq!(read, bytes);
    drop(client);
    let found = node.scrape_until("the connection is closed", |found| {
        found.sum("ottla_connections_closed_total", &[("reason", "peer")]) == 1.0
            && stage(found, "Fetch", "total") >= 3.0
    });
    assert_eq!(stage(&found, "Produce", "flushed"), 3.0);
    assert_eq!(stage(&found, "Produce", "total"), count + 3.0);
    assert_eq!(stage(&found, "Fetch", "purgatory"), 1.0);
    assert_eq!(
        stage(&found, "Fetch", "read"),
        4.0,
        "the one that waited read twice"
    );
    assert_eq!(stage(&found, "CreateTopics", "answered"), 2.0);
    assert_eq!(
        found.sum("ottla_topic_fetch_bytes_total", &plain),
        bytes as f64
    );
    let took = |stage| {
        let labels = [("api", "Fetch"), ("stage", stage)];
        found.sum("ottla_request_stage_seconds_sum", &labels)
    };
    let (waited, answered) = (took("purgatory"), took("answered"));
    assert!(0.0 < waited && waited < answered, "{waited} {answered}");
    assert!(
        answered >= 0.02,
        "{answered}: it waited until its time was up"
    );
    assert_eq!(found.sum("ottla_connections", &[]), 0.0);
    for idle in [
        "ottla_request_memory_bytes",
        "ottla_connections_held_back",
        "ottla_purgatory_operations",
        "ottla_fetch_sessions",
    ] {
        assert_eq!(found.sum(idle, &[]), 0.0, "{idle}");
        assert!(found.matching(idle, &[]).count() > 0, "{idle}");
    }
    check_loops(&found);
}

/// Families that tell of the event loops, for each of them.
fn check_loops(found: &Exposition) {
    for core in ["0", "1", "controller"] {
        for name in [
            "ottla_loop_turns_total",
            "ottla_loop_parks_total",
            "ottla_ring_enters_total",
            "ottla_ring_completions_total",
            "ottla_loop_tasks",
        ] {
            assert!(found.sum(name, &[("core", core)]) > 0.0, "{name} of {core}");
        }
        for (name, series) in [
            ("ottla_mesh_unanswered", 2),
            ("ottla_mesh_in_line", 2),
            ("ottla_mesh_to_take", 2),
            ("ottla_stall_slow_polls_total", 3),
            ("ottla_stall_slow_poll_max_seconds", 3),
            ("ottla_stall_silences_total", 1),
            ("ottla_stall_rescues_total", 1),
            ("ottla_send_bytes_total", 4),
        ] {
            let labels = [("core", core)];
            let told = found.matching(name, &labels).count();
            assert_eq!(told, series, "{name} of {core}");
        }
    }
}

#[test]
fn requests_that_are_refused_are_counted_by_reason() {
    let settings = [
        "ottla.metrics.listen=127.0.0.1:0",
        "socket.request.max.bytes=1000",
        "max.connections.per.ip=1",
    ];
    let node = Node::start(&settings);
    let mut large = Client::connect(&node);
    large.0.write_all(&1_001_i32.to_be_bytes()).unwrap();
    assert_eq!(large.0.read(&mut [0; 1]).unwrap(), 0, "it is closed");
    let closed = |found: &Exposition, reason: &str| {
        found.sum("ottla_connections_closed_total", &[("reason", reason)])
    };
    node.scrape_until("the frame is refused", |found| {
        closed(found, "frame_size") == 1.0
    });
    let mut garbage = Client::connect(&node);
    garbage.0.write_all(&[0, 0, 0, 4, 9, 9, 9, 9]).unwrap();
    assert_eq!(garbage.0.read(&mut [0; 1]).unwrap(), 0, "it is closed");
    node.scrape_until("garbage is refused", |found| {
        closed(found, "refused") == 1.0
    });
    let one = Client::connect(&node);
    node.scrape_until("it is served", |found| {
        found.sum("ottla_connections", &[]) == 1.0
    });
    let mut too_many = Client::connect(&node);
    // Closed, or reset because it was closed before it was received.
    let _ = too_many.0.read(&mut [0; 1]);
    node.scrape_until("the second is refused", |found| {
        found.sum("ottla_connections_refused_total", &[]) == 1.0
    });
    drop(one);
}

#[test]
fn hostile_scrapers_are_refused_and_bounded() {
    const CONNECTIONS_MAX: usize = 8;
    let node = Node::start(&["ottla.metrics.listen=127.0.0.1:0"]);
    let status = |request: &[u8]| {
        let (head, _) = node.ask(request);
        head.split("\r\n").next().unwrap().to_owned()
    };
    let long = format!("GET /metrics HTTP/1.1\r\nx: {}", "y".repeat(8 * 1024));
    let many = format!("GET /metrics HTTP/1.1\r\n{}", "x: y\r\n".repeat(65));
    for (request, wanted) in [
        (
            long.as_bytes(),
            "HTTP/1.1 431 Request Header Fields Too Large",
        ),
        (
            many.as_bytes(),
            "HTTP/1.1 431 Request Header Fields Too Large",
        ),
        (b"\0\x01\x02 garbage", "HTTP/1.1 400 Bad Request"),
        (b"GET nonsense\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        (
            b"POST /metrics HTTP/1.1\r\n\r\n",
            "HTTP/1.1 405 Method Not Allowed",
        ),
        (b"GET /other HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
        (b"GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK"),
        (b"GET /metrics?x=y HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK"),
    ] {
        assert_eq!(status(request), wanted);
    }
    let (_, body) = node.ask(b"HEAD /metrics HTTP/1.1\r\n\r\n");
    assert_eq!(body, "");

    // Who says half of it and waits holds a place; who comes beyond that is closed.
    let half = |_| {
        let mut stream = node.http();
        stream.write_all(b"GET /metr").unwrap();
        stream
    };
    let mut held: Vec<TcpStream> = (0..CONNECTIONS_MAX).map(half).collect();
    let mut beyond = node.http();
    assert!(matches!(beyond.read(&mut [0; 1]), Ok(0) | Err(_)));
    // A slow one still gets its answer, byte by byte.
    let mut slow = held.pop().unwrap();
    for byte in b"ics HTTP/1.1\r\n\r\n" {
        slow.write_all(&[*byte]).unwrap();
    }
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    drop(slow);
    // One that goes away in the middle frees its place, as do those that waited too long.
    for stream in &held {
        stream.shutdown(Shutdown::Both).unwrap();
    }
    let end = Instant::now() + PATIENCE;
    loop {
        let mut stream = node.http();
        let mut answer = String::new();
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n");
        if stream.read_to_string(&mut answer).is_ok() && !answer.is_empty() {
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            break;
        }
        assert!(Instant::now() < end, "the places come free");
    }
}

#[test]
fn nothing_listens_unless_it_is_asked_for() {
    assert_eq!(Node::start(&[]).metrics, None);
}

#[test]
fn top_prints_a_table_once_and_without_a_terminal() {
    let node = Node::start(&["ottla.metrics.listen=127.0.0.1:0"]);
    let mut client = Client::connect(&node);
    client.create_topic("orders", 2, &[]);
    for n in 0..20 {
        client.produce("orders", n % 2, b"value");
    }
    drop(client);
    node.scrape_until("all is sent", |found| {
        stage(found, "Produce", "total") == 20.0 && found.sum("ottla_connections", &[]) == 0.0
    });
    let address = node.metrics.unwrap().to_string();
    for once in [&["--once"][..], &[]] {
        let (status, stdout, stderr) = top(&address, once);
        assert_eq!((status, stderr.as_str()), (Some(0), ""));
        let version = env!("CARGO_PKG_VERSION");
        let first =
            format!("Ottla {version} at {address}: 2 cores, 0 connections, since its start");
        assert_eq!(stdout.lines().next(), Some(&*first));
        let row = |name: &str| -> Vec<&str> {
            let mut rows = stdout.lines().map(|line| line.split_whitespace().collect());
            let row = rows.find(|row: &Vec<&str>| row.first() == Some(&name));
            row.unwrap_or_else(|| panic!("{name} in {stdout}"))
        };
        assert_eq!(row("api")[..4], ["api", "req", "p50", "p99"]);
        assert_eq!(row("Produce")[..2], ["Produce", "20"]);
        assert_eq!(row("orders")[..2], ["orders", "20"]);
        assert_eq!(row("controller")[1..4], ["0", "0", "0"]);
        // Neither the disk nor other replicas were waited for, nor was anything read.
        let stages = &row("Produce")[3..];
        let of = |stage: &str| {
            let at = row("api")[3..].iter().position(|head| *head == stage);
            stages[at.unwrap()]
        };
        for passed in ["p99", "received", "parsed", "hop", "appended", "sent"] {
            assert!(of(passed).ends_with('s'), "{passed} in {stdout}");
        }
        for not_passed in ["read", "purgatory", "flushed"] {
            assert_eq!(of(not_passed), "-", "{stdout}");
        }
    }
}

#[test]
fn top_says_what_to_set_when_nothing_listens() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    drop(taken);
    let (status, stdout, stderr) = top(&address, &["--once"]);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    let wanted = format!(
        "ottla: nothing listens on {address}: start the node with ottla.metrics.listen={address}, "
    );
    assert!(stderr.starts_with(&wanted), "{stderr}");
    assert_eq!(stderr.lines().count(), 1);
}

/// Exit status, stdout and stderr of `ottla top`.
fn top(address: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ottla"))
        .args(["top", "--metrics", address])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}
