//! A whole node in the simulated world: controller, two data cores, their disk and network,
//! killed at any moment and started again. What was acknowledged is there afterwards, and
//! one seed replays to the same history, byte for byte.

#[path = "support/requests.rs"]
mod requests;
#[path = "support/sim_server.rs"]
mod sim_server;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use ottla::base::{CoreId, ErrorCode, Rng};
use ottla::io::local::oneshot;
use ottla::io::{Queue, Rt};
use ottla::node::lifecycle;
use ottla::record::{batch::Batches, records};
use ottla::sim::{self, NodeId, Sim};
use ottla::wire::ApiKey;
use ottla::wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use ottla::wire::messages::fetch_request::{FetchPartition, FetchTopic};
use ottla::wire::messages::produce_request::TopicProduceData;
use ottla::wire::messages::{
    CreateTopicsRequest, CreateTopicsResponse, FetchRequest, FetchResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, ProduceResponse,
};
use sim_server::{Client, DATA_CORES, PORT};
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

const PARTITIONS: i32 = 3;
const PRODUCERS: u64 = 3;
const TOPIC: &str = "t";

/// Boots the node on its disk and gives the message of its start.
fn boot(sim: &Sim, server: NodeId) -> mpsc::Receiver<lifecycle::Started> {
    sim_server::boot(sim, server, "", &["PLAINTEXT"]).0
}

/// What clients of this scenario do besides.
trait Records {
    async fn create_topic(&mut self, flush: Flush);
    async fn produce(&mut self, partition: i32, value: &[u8]) -> std::io::Result<i64>;
    async fn find_coordinators(&mut self);
    async fn read_all(&mut self, partition: i32) -> Found;
}

impl Records for Client {
    async fn create_topic(&mut self, flush: Flush) {
        let configs = match flush {
            Flush::Never => Vec::new(),
            Flush::EachRecord => vec![CreatableTopicConfig {
                name: "flush.messages".to_owned(),
                value: Some("1".to_owned()),
            }],
        };
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: TOPIC.to_owned(),
                num_partitions: PARTITIONS,
                replication_factor: 1,
                configs,
                ..Default::default()
            }],
            timeout_ms: 1_000,
            ..Default::default()
        };
        let response: CreateTopicsResponse = self
            .ask(ApiKey::CreateTopics, 7, &request)
            .await
            .expect("nothing is cut here");
        assert_eq!(response.topics[0].error_code, ErrorCode::NONE.0);
    }

    /// Produces one record with acks=all; its offset.
    async fn produce(&mut self, partition: i32, value: &[u8]) -> std::io::Result<i64> {
        let request = requests::produce(TOPIC, partition, value);
        loop {
            let response: ProduceResponse = self.ask(ApiKey::Produce, 9, &request).await?;
            let answer = &response.responses[0].partition_responses[0];
            if is_settled(answer.error_code) {
                return Ok(answer.base_offset);
            }
        }
    }

    /// Asks for a group's coordinator until there is one.
    async fn find_coordinators(&mut self) {
        let request = FindCoordinatorRequest {
            key: "group".to_owned(),
            ..Default::default()
        };
        loop {
            let found: std::io::Result<FindCoordinatorResponse> =
                self.ask(ApiKey::FindCoordinator, 3, &request).await;
            if found.expect("it is answered").error_code == 0 {
                return;
            }
        }
    }

    /// Everything in a partition.
    async fn read_all(&mut self, partition: i32) -> Found {
        let mut found = BTreeMap::new();
        let mut refused = BTreeSet::new();
        loop {
            let last: Option<&i64> = found.keys().next_back().max(refused.last());
            let next = last.map_or(0, |last| last + 1);
            let request = FetchRequest {
                max_wait_ms: 0,
                min_bytes: 1,
                max_bytes: 1 << 20,
                session_epoch: -1,
                topics: vec![FetchTopic {
                    topic: TOPIC.to_owned(),
                    partitions: vec![FetchPartition {
                        partition,
                        fetch_offset: next,
                        partition_max_bytes: 10_000,
                        ..Default::default()
                    }],
                    ..Default::default()
                }],
                ..Default::default()
            };
            let response: FetchResponse = self
                .ask(ApiKey::Fetch, 12, &request)
                .await
                .expect("nothing is cut here");
            let data = &response.responses[0].partitions[0];
            if data.error_code == ErrorCode::CORRUPT_MESSAGE.0 {
                refused.insert(next);
                continue;
            }
            if !is_settled(data.error_code) {
                continue;
            }
            let bytes = data.records.clone().unwrap_or_default();
            let before = found.len();
            for batch in Batches::new(&bytes).map_while(Result::ok) {
                let mut reader = records(&batch).unwrap();
                while let Some(record) = reader.next() {
                    let record = record.unwrap();
                    let offset = batch.record_offset(record.offset_delta).0;
                    found.insert(offset, record.value.unwrap().to_vec());
                }
            }
            if found.len() == before {
                assert_eq!(data.high_watermark, next);
                return Found {
                    records: found,
                    refused,
                };
            }
        }
    }
}

/// Whether the request was done. Until the broker is unfenced it leads nothing, and clients
/// try again.
fn is_settled(error: i16) -> bool {
    match ErrorCode(error) {
        ErrorCode::NONE => true,
        ErrorCode::NOT_LEADER_OR_FOLLOWER => false,
        other => panic!("the node answered {other}"),
    }
}

/// What a partition holds, by offset.
struct Found {
    records: BTreeMap<i64, Vec<u8>>,
    /// Nobody was told of these: a power cut tore them, and not what follows.
    refused: BTreeSet<i64>,
}

/// When a record is synced, and so how the node may be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    /// The process is killed; the page cache stays.
    Never,
    /// The power goes; only what was synced stays.
    EachRecord,
}

#[derive(Default)]
struct History {
    /// Acknowledged records by partition and offset.
    acknowledged: BTreeMap<(i32, i64), Vec<u8>>,
    kills: usize,
    /// Of them, those that took the power.
    cuts: usize,
}

/// Lives of one node: each but the first checks what the earlier ones acknowledged.
fn history(seed: u64, lives: usize, flush: Flush) -> (History, String) {
    sim::run(seed, |sim| {
        sim.keep_trace();
        let server = sim.add_node(DATA_CORES + 1);
        let clients = sim.add_node(1);
        let rt = sim.boot(clients).remove(0);
        let at = SocketAddr::new(sim.ip(server), PORT);
        let history = Rc::new(RefCell::new(History::default()));
        let mut rng = Rng::new(seed);
        let number = Rc::new(Cell::new(0u64));
        for life in 0..lives {
            let starting = boot(sim, server);
            check_or_create(sim, &rt, at, (life == 0).then_some(flush), &history);
            assert!(matches!(starting.try_recv(), Ok(Ok(_))), "the node started");
            for _ in 0..PRODUCERS {
                let task = produce_until_cut(rt.clone(), at, history.clone(), number.clone());
                rt.spawn(Queue::Request, task);
            }
            // A sync takes its time: about as many records come together.
            let scale = if flush == Flush::EachRecord { 20 } else { 1 };
            sim.run_for(Duration::from_micros(2_000 + scale * rng.below(60_000)));
            match flush {
                Flush::Never => sim.shut_down(server),
                Flush::EachRecord => sim.crash(server),
            }
            history.borrow_mut().kills += 1;
            history.borrow_mut().cuts += usize::from(flush == Flush::EachRecord);
            sim.run_for(Duration::from_millis(50));
        }
        boot(sim, server);
        check_or_create(sim, &rt, at, None, &history);
        (history.take(), sim.trace())
    })
}

/// The sessions of the process that was killed ended with it: nobody waits for them.
#[test]
fn a_killed_node_takes_its_own_registration_over_at_once() {
    sim::run(1, |sim| {
        let server = sim.add_node(DATA_CORES + 1);
        let clients = sim.add_node(1);
        let rt = sim.boot(clients).remove(0);
        let at = SocketAddr::new(sim.ip(server), PORT);
        let history = Rc::new(RefCell::new(History::default()));
        let _starting = boot(sim, server);
        check_or_create(sim, &rt, at, Some(Flush::Never), &history);
        for _ in 0..3 {
            sim.shut_down(server);
            let killed = rt.now();
            let _starting = boot(sim, server);
            // Read and led again.
            check_or_create(sim, &rt, at, None, &history);
            let client_rt = rt.clone();
            sim.block_on(&rt, Duration::from_secs(60), async move {
                let mut client = Client::connect(&client_rt, at).await;
                client.produce(0, b"led again").await.unwrap();
            });
            let took = rt.now() - killed;
            assert!(took < Duration::from_secs(1), "{took:?}");
        }
    });
}

async fn produce_until_cut(
    rt: Rt,
    at: SocketAddr,
    history: Rc<RefCell<History>>,
    number: Rc<Cell<u64>>,
) {
    let mut client = Client::connect(&rt, at).await;
    loop {
        number.set(number.get() + 1);
        let partition = (rt.rng().below(PARTITIONS as u64)) as i32;
        let value = format!("record {}", number.get()).into_bytes();
        let Ok(offset) = client.produce(partition, &value).await else {
            return;
        };
        let before = history
            .borrow_mut()
            .acknowledged
            .insert((partition, offset), value);
        assert_eq!(before, None, "one offset was given twice");
    }
}

fn check_or_create(
    sim: &Sim,
    rt: &Rt,
    at: SocketAddr,
    create: Option<Flush>,
    history: &Rc<RefCell<History>>,
) {
    let (client_rt, history) = (rt.clone(), history.clone());
    let (done, finished) = oneshot();
    rt.spawn(Queue::Request, async move {
        let mut client = Client::connect(&client_rt, at).await;
        if let Some(flush) = create {
            client.create_topic(flush).await;
        }
        for partition in 0..PARTITIONS {
            let Found {
                records: found,
                refused,
            } = client.read_all(partition).await;
            for ((_, offset), value) in history
                .borrow()
                .acknowledged
                .range((partition, 0)..(partition + 1, 0))
            {
                assert_eq!(found.get(offset), Some(value), "an acknowledged record");
            }
            assert!(refused.is_empty() || history.borrow().cuts > 0);
            let mut offsets = refused.clone();
            offsets.extend(found.keys());
            let dense = offsets.iter().copied().eq(0..offsets.len() as i64);
            assert!(dense, "offsets of partition {partition} have no gaps");
        }
        let _ = done.send(());
    });
    sim.block_on(rt, Duration::from_secs(60), async move {
        finished.await.expect("the check ran to its end");
    });
}

#[test]
fn acknowledged_records_survive_kills_at_any_moment() {
    survive(Flush::Never);
}

#[test]
fn with_flush_messages_1_they_survive_power_cuts() {
    survive(Flush::EachRecord);
}

fn survive(flush: Flush) {
    let seeds = std::env::var("OTTLA_SIM_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(8);
    let (mut acknowledged, mut kills) = (0, 0);
    for seed in 1..=seeds {
        let (history, _) = history(seed, 4, flush);
        acknowledged += history.acknowledged.len();
        kills += history.kills;
    }
    println!("{flush:?}: {seeds} seeds: {kills} kills, {acknowledged} acknowledged records found");
    assert!(acknowledged > 20 * seeds as usize, "the producers got on");
}

/// Pipelines to one partition after another; the offsets that were given, by partition.
async fn produce_in_phases(rt: Rt, at: SocketAddr, number: i32) -> BTreeMap<i32, Vec<i64>> {
    const PHASES: i32 = 4;
    let mut client = Client::connect(&rt, at).await;
    let mut given: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    for phase in 0..PHASES {
        let partition = (number + phase) % PARTITIONS;
        let count = (64 << phase) * 2;
        let first = client.correlation_id + 1;
        let before = given.entry(partition).or_default().len();
        let mut answered = 0;
        for n in 0..count {
            let value = format!("{number}:{}", before + n);
            let request = requests::produce(TOPIC, partition, value.as_bytes());
            let sent = client.send(ApiKey::Produce, 9, &request).await;
            sent.expect("nothing is cut here");
            // So many in flight, until the last.
            let pipelined = if n + 1 == count {
                0
            } else {
                rt.rng().below(12) as usize
            };
            while n + 1 - answered > pipelined {
                let id = first + answered as i32;
                let response: ProduceResponse = client
                    .answer(ApiKey::Produce, 9, id)
                    .await
                    .expect("nothing is cut here");
                let answer = &response.responses[0].partition_responses[0];
                assert_eq!((answer.index, answer.error_code), (partition, 0));
                answered += 1;
                given.entry(partition).or_default().push(answer.base_offset);
            }
        }
    }
    given
}

#[test]
fn connections_move_between_cores_and_nothing_is_lost_or_reordered() {
    for seed in 1..=4 {
        let moves = sim::run(seed, |sim| {
            let server = sim.add_node(DATA_CORES + 1);
            let clients = sim.add_node(1);
            let rt = sim.boot(clients).remove(0);
            let at = SocketAddr::new(sim.ip(server), PORT);
            let (_starting, node) = sim_server::boot(sim, server, "", &["PLAINTEXT"]);
            check_or_create(sim, &rt, at, Some(Flush::Never), &Rc::default());
            let task_rt = rt.clone();
            sim.block_on(&rt, Duration::from_secs(600), async move {
                let rt = task_rt;
                let mut client = Client::connect(&rt, at).await;
                for partition in 0..PARTITIONS {
                    client.produce(partition, b"first").await.expect("it leads");
                }
                let mut producers = Vec::new();
                for number in 0..3 {
                    let (done, finished) = oneshot();
                    let task_rt = rt.clone();
                    rt.spawn(Queue::Request, async move {
                        let given = produce_in_phases(task_rt, at, number).await;
                        assert!(done.send(given).is_ok(), "it is awaited");
                    });
                    producers.push(finished);
                }
                let mut given = Vec::new();
                for finished in producers {
                    given.push(finished.await.expect("a producer ran to its end"));
                }
                for partition in 0..PARTITIONS {
                    let found = client.read_all(partition).await.records;
                    let offsets = |of: &BTreeMap<i32, Vec<i64>>| {
                        of.get(&partition).cloned().unwrap_or_default()
                    };
                    let count: usize = given.iter().map(|of| offsets(of).len()).sum();
                    assert_eq!(found.len(), count + 1, "nothing lost, nothing twice");
                    for (number, of) in given.iter().enumerate() {
                        for (sequence, offset) in offsets(of).iter().enumerate() {
                            let value = format!("{number}:{sequence}");
                            assert_eq!(found[offset], value.as_bytes(), "in order");
                        }
                        assert!(offsets(of).is_sorted());
                    }
                }
            });
            let cores = 0..DATA_CORES as u16;
            cores
                .map(|core| node.load.moved_here(CoreId(core)))
                .sum::<u64>()
        });
        println!("seed {seed}: {moves} moves");
        assert!(moves > 2, "seed {seed}: {moves} moves");
    }
}

#[test]
fn a_topic_without_partitions_in_a_produce_is_passed_over() {
    sim::run(1, |sim| {
        let server = sim.add_node(DATA_CORES + 1);
        let clients = sim.add_node(1);
        let rt = sim.boot(clients).remove(0);
        let at = SocketAddr::new(sim.ip(server), PORT);
        let _starting = boot(sim, server);
        check_or_create(sim, &rt, at, Some(Flush::Never), &Rc::default());
        let task_rt = rt.clone();
        sim.block_on(&rt, Duration::from_secs(60), async move {
            let mut client = Client::connect(&task_rt, at).await;
            let mut request = requests::produce(TOPIC, 0, b"value");
            for position in [0, 2] {
                let empty = TopicProduceData {
                    name: "empty".to_owned(),
                    ..Default::default()
                };
                request.topic_data.insert(position, empty);
            }
            let response: ProduceResponse = client
                .ask(ApiKey::Produce, 9, &request)
                .await
                .expect("it is answered");
            assert_eq!(response.responses.len(), 1);
            assert_eq!(response.responses[0].name, TOPIC);
            assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
        });
    });
}

/// Counts how often each coordinator was loaded.
#[derive(Clone, Default)]
struct Loads(Arc<Mutex<BTreeMap<i64, usize>>>);

impl Subscriber for Loads {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata
            .target()
            .starts_with("ottla::coordinator::runtime::load")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Partition(Option<i64>);
        impl Visit for Partition {
            fn record_i64(&mut self, field: &Field, value: i64) {
                if field.name() == "partition" {
                    self.0 = Some(value);
                }
            }

            fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
        }
        let mut partition = Partition(None);
        event.record(&mut partition);
        let mut loads = self.0.lock().expect("nobody panics with it");
        *loads.entry(partition.0.expect("it is told")).or_default() += 1;
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[test]
fn coordinators_are_loaded_once_a_life() {
    const COORDINATORS: usize = 50;
    let loads = Loads::default();
    tracing::subscriber::with_default(loads.clone(), || {
        sim::run(1, |sim| {
            let server = sim.add_node(DATA_CORES + 1);
            let clients = sim.add_node(1);
            let rt = sim.boot(clients).remove(0);
            let at = SocketAddr::new(sim.ip(server), PORT);
            for life in 1..=3 {
                let _starting = boot(sim, server);
                let task_rt = rt.clone();
                sim.block_on(&rt, Duration::from_secs(60), async move {
                    let mut client = Client::connect(&task_rt, at).await;
                    client.find_coordinators().await;
                });
                sim.run_for(Duration::from_secs(5));
                let counts = std::mem::take(&mut *loads.0.lock().expect("as above"));
                assert_eq!(counts.len(), COORDINATORS, "life {life}");
                assert!(counts.values().all(|count| *count == 1), "{counts:?}");
                sim.shut_down(server);
                sim.run_for(Duration::from_millis(50));
            }
        });
    });
}

#[test]
fn one_seed_replays_byte_for_byte() {
    let (first, first_trace) = history(3, 2, Flush::Never);
    let (again, again_trace) = history(3, 2, Flush::Never);
    assert_eq!(first.acknowledged, again.acknowledged);
    assert!(first_trace == again_trace, "the traces differ");
    let (_, other_trace) = history(4, 2, Flush::Never);
    assert!(first_trace != other_trace);
}
