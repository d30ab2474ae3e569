//! Durability of a whole node in the simulated world: what is acknowledged, what can be read
//! and what survives a power cut, while the disk is held back, fails, or the setting changes.

#[path = "support/requests.rs"]
mod requests;
#[path = "support/sim_server.rs"]
mod sim_server;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ottla::base::ErrorCode;
use ottla::io::{Queue, Rt};
use ottla::sim::{self, Fails, NodeId, Sim};
use ottla::wire::ApiKey;
use ottla::wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use ottla::wire::messages::fetch_request::{FetchPartition, FetchTopic};
use ottla::wire::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use ottla::wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use ottla::wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla::wire::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use ottla::wire::messages::{
    CreateTopicsRequest, CreateTopicsResponse, FetchRequest, FetchResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, ListOffsetsRequest,
    ListOffsetsResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest,
    OffsetFetchResponse, ProduceResponse,
};
use sim_server::{Client, DATA_CORES, PORT, boot};

const TOPIC: &str = "t";
/// Two on each core.
const PARTITIONS: i32 = 4;
const FSYNC: &str = "ottla.durability=fsync\n";
const OS: &str = "ottla.durability=os\n";
/// Syncs take 10 ms at most.
const LONG: Duration = Duration::from_secs(2);

/// A running node with a topic, and a machine with clients.
struct Scene<'a> {
    sim: &'a Sim,
    server: NodeId,
    rt: Rt,
    at: SocketAddr,
}

impl<'a> Scene<'a> {
    fn start(sim: &'a Sim, lines: &str, configs: &[(&str, &str)]) -> Scene<'a> {
        let server = sim.add_node(DATA_CORES + 1);
        let clients = sim.add_node(1);
        let rt = sim.boot(clients).remove(0);
        let at = SocketAddr::new(sim.ip(server), PORT);
        let scene = Scene {
            sim,
            server,
            rt,
            at,
        };
        scene.boot(lines);
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: TOPIC.to_owned(),
                num_partitions: PARTITIONS,
                replication_factor: 1,
                configs: configs
                    .iter()
                    .map(|(name, value)| CreatableTopicConfig {
                        name: (*name).to_owned(),
                        value: Some((*value).to_owned()),
                    })
                    .collect(),
                ..Default::default()
            }],
            timeout_ms: 10_000,
            ..Default::default()
        };
        let created: CreateTopicsResponse = scene.ask(ApiKey::CreateTopics, 7, request);
        assert_eq!(created.topics[0].error_code, 0);
        scene.settle();
        scene
    }

    fn boot(&self, lines: &str) {
        let (starting, _) = boot(self.sim, self.server, lines, &["PLAINTEXT"]);
        let started = loop {
            match starting.try_recv() {
                Ok(started) => break started,
                Err(_) => self.sim.run_for(Duration::from_millis(10)),
            }
        };
        started.expect("the node starts");
    }

    /// Until every partition is led here.
    fn settle(&self) {
        for partition in 0..PARTITIONS {
            while self.fetch(partition, 0).0 == ErrorCode::NOT_LEADER_OR_FOLLOWER.0 {
                self.sim.run_for(Duration::from_millis(50));
            }
        }
    }

    fn run<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> T {
        self.sim.block_on(&self.rt, Duration::from_secs(60), task)
    }

    fn ask<Q, R>(&self, api: ApiKey, version: i16, request: Q) -> R
    where
        Q: ottla::wire::codec::Message + 'static,
        R: ottla::wire::codec::Message + 'static,
    {
        self.run(ask(self.rt.clone(), self.at, api, version, request))
    }

    /// Asks on a connection of its own, without waiting.
    fn begin<Q, R>(&self, api: ApiKey, version: i16, request: Q) -> Pending<R>
    where
        Q: ottla::wire::codec::Message + 'static,
        R: ottla::wire::codec::Message + 'static,
    {
        let answer = Rc::new(RefCell::new(None));
        let (rt, at, to) = (self.rt.clone(), self.at, answer.clone());
        self.rt.spawn(Queue::Request, async move {
            let response = ask(rt, at, api, version, request).await;
            *to.borrow_mut() = Some(response);
        });
        Pending(answer)
    }

    fn produce(&self, partition: i32, acks: i16, value: &[u8]) -> Pending<ProduceResponse> {
        let mut request = requests::produce(TOPIC, partition, value);
        request.acks = acks;
        self.begin(ApiKey::Produce, 9, request)
    }

    /// The outcome of a record that is alone.
    fn produced(&self, value: &[u8]) -> (i16, i64) {
        let pending = self.produce(0, -1, value);
        self.sim.run_for(Duration::from_millis(100));
        pending.outcome()
    }

    /// The error, the high watermark and the number of bytes of a fetch.
    fn fetch(&self, partition: i32, offset: i64) -> (i16, i64, usize) {
        let request = FetchRequest {
            max_wait_ms: 0,
            min_bytes: 1,
            max_bytes: 1 << 20,
            session_epoch: -1,
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
        let response: FetchResponse = self.ask(ApiKey::Fetch, 12, request);
        let data = &response.responses[0].partitions[0];
        let bytes = data.records.as_ref().map_or(0, |records| records.len());
        (data.error_code, data.high_watermark, bytes)
    }

    fn latest(&self, partition: i32) -> i64 {
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: TOPIC.to_owned(),
                partitions: vec![ListOffsetsPartition {
                    partition_index: partition,
                    current_leader_epoch: -1,
                    timestamp: -1,
                }],
            }],
            ..Default::default()
        };
        let response: ListOffsetsResponse = self.ask(ApiKey::ListOffsets, 5, request);
        response.topics[0].partitions[0].offset
    }

    fn set_durability(&self, value: &str) {
        let request = IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: 4,
                resource_name: "1".to_owned(),
                configs: vec![AlterableConfig {
                    name: "ottla.durability".to_owned(),
                    config_operation: 0,
                    value: Some(value.to_owned()),
                }],
            }],
            ..Default::default()
        };
        let response: IncrementalAlterConfigsResponse =
            self.ask(ApiKey::IncrementalAlterConfigs, 1, request);
        assert_eq!(response.responses[0].error_code, 0);
    }

    fn hold(&self, path: &str) {
        self.sim.disk(self.server).hold_syncs(Path::new(path));
    }

    fn release(&self) {
        self.sim.disk(self.server).release_syncs();
    }

    fn cut_power(&self, lines: &str) {
        self.sim.crash(self.server);
        self.sim.run_for(Duration::from_millis(50));
        self.boot(lines);
        self.settle();
    }
}

async fn ask<Q, R>(rt: Rt, at: SocketAddr, api: ApiKey, version: i16, request: Q) -> R
where
    Q: ottla::wire::codec::Message,
    R: ottla::wire::codec::Message,
{
    let mut client = Client::connect(&rt, at).await;
    let answer = client.ask(api, version, &request).await;
    answer.expect("it is answered")
}

/// An answer that may come.
struct Pending<R>(Rc<RefCell<Option<R>>>);

impl<R> Pending<R> {
    fn is_open(&self) -> bool {
        self.0.borrow().is_none()
    }
}

impl Pending<ProduceResponse> {
    /// The error and the offset.
    fn outcome(&self) -> (i16, i64) {
        let answer = self.0.borrow();
        let answer = answer.as_ref().expect("it is answered");
        let partition = &answer.responses[0].partition_responses[0];
        (partition.error_code, partition.base_offset)
    }
}

#[test]
fn under_fsync_nothing_is_acknowledged_or_read_past_the_durable_end() {
    sim::run(1, |sim| {
        let scene = Scene::start(sim, FSYNC, &[]);
        let first = scene.produce(0, -1, b"first");
        sim.run_for(LONG);
        assert_eq!(first.outcome(), (0, 0));

        scene.hold("/data/t-0");
        let all = scene.produce(0, -1, b"all");
        let one = scene.produce(0, 1, b"one");
        let mut others = Vec::new();
        for partition in 1..PARTITIONS {
            others.push(scene.produce(partition, -1, b"other"));
        }
        sim.run_for(LONG);
        assert!(
            all.is_open() && one.is_open(),
            "acknowledged before the sync"
        );
        for other in others {
            assert_eq!(other.outcome(), (0, 0), "held up by another log's sync");
        }
        assert_eq!(scene.latest(0), 1);
        let (error, high_watermark, bytes) = scene.fetch(0, 1);
        assert_eq!((error, high_watermark, bytes), (0, 1, 0));

        scene.release();
        sim.run_for(LONG);
        let offsets = [all.outcome(), one.outcome()];
        assert!(offsets == [(0, 1), (0, 2)] || offsets == [(0, 2), (0, 1)]);
        assert_eq!(scene.latest(0), 3);
        assert!(scene.fetch(0, 2).2 > 0);
    });
}

#[test]
fn a_topics_flush_messages_1_is_fsync_whatever_the_node_says() {
    sim::run(2, |sim| {
        let scene = Scene::start(sim, OS, &[("flush.messages", "1")]);
        scene.hold("/data/t-0");
        let held = scene.produce(0, 1, b"held");
        sim.run_for(LONG);
        assert!(held.is_open());
        assert_eq!(scene.latest(0), 0);
        scene.release();
        sim.run_for(LONG);
        assert_eq!(held.outcome(), (0, 0));
    });
}

#[test]
fn everyone_who_waits_shares_the_next_flush() {
    sim::run(3, |sim| {
        let scene = Scene::start(sim, FSYNC, &[]);
        scene.hold("/data/t-0");
        let waiting: Vec<_> = (0..40).map(|_| scene.produce(0, -1, b"x")).collect();
        sim.run_for(LONG);
        assert!(waiting.iter().all(Pending::is_open));
        scene.release();
        // One flush that was in flight and one for all others: 10 ms each, and a look.
        sim.run_for(Duration::from_millis(40));
        for waiting in waiting {
            assert_eq!(waiting.outcome().0, 0);
        }
    });
}

#[test]
fn the_high_watermark_stays_when_the_durability_rises_and_new_data_waits() {
    sim::run(4, |sim| {
        let scene = Scene::start(sim, OS, &[]);
        scene.hold("/data/t-0");
        let first = scene.produce(0, -1, b"first");
        sim.run_for(LONG);
        assert_eq!(first.outcome(), (0, 0), "the page cache is enough");
        assert_eq!(scene.latest(0), 1);

        scene.set_durability("fsync");
        assert_eq!(scene.latest(0), 1, "the high watermark went back");
        let second = scene.produce(0, -1, b"second");
        sim.run_for(LONG);
        assert!(second.is_open());
        assert_eq!(scene.latest(0), 1);
        scene.release();
        sim.run_for(LONG);
        assert_eq!(second.outcome(), (0, 1));

        scene.hold("/data/t-0");
        let third = scene.produce(0, -1, b"third");
        sim.run_for(LONG);
        assert!(third.is_open());
        scene.set_durability("os");
        sim.run_for(LONG);
        assert_eq!(scene.latest(0), 3, "who reads goes on at once");
        scene.release();
        sim.run_for(LONG);
        assert_eq!(third.outcome(), (0, 2));
    });
}

#[test]
fn what_is_there_is_flushed_when_the_durability_rises() {
    for seed in 1..=6 {
        sim::run(seed, |sim| {
            let scene = Scene::start(sim, OS, &[]);
            sim.run_for(LONG);
            let first: Vec<_> = (0..PARTITIONS)
                .map(|partition| scene.produce(partition, -1, b"x"))
                .collect();
            sim.run_for(Duration::from_millis(50));
            assert!(first.iter().all(|first| first.outcome() == (0, 0)));
            scene.set_durability("fsync");
            sim.run_for(Duration::from_millis(30));
            scene.cut_power(OS);
            for partition in 0..PARTITIONS {
                assert_eq!(scene.latest(partition), 1, "seed {seed}");
            }
        });
    }
}

#[test]
fn what_acks_0_wrote_is_read_once_it_is_durable() {
    sim::run(5, |sim| {
        let scene = Scene::start(sim, FSYNC, &[]);
        scene.hold("/data/t-0");
        let mut request = requests::produce(TOPIC, 0, b"x");
        request.acks = 0;
        let (rt, at) = (scene.rt.clone(), scene.at);
        let client = scene.run(async move {
            let mut client = Client::connect(&rt, at).await;
            let sent = client.send(ApiKey::Produce, 9, &request).await;
            sent.expect("nothing is cut here");
            client
        });
        sim.run_for(LONG);
        assert_eq!(scene.latest(0), 0);
        scene.release();
        sim.run_for(LONG);
        assert_eq!(scene.latest(0), 1);
        drop(client);
    });
}

#[test]
fn a_failed_sync_acknowledges_nothing_and_shows_nothing() {
    sim::run(6, |sim| {
        // With the metadata's directory the whole node would end.
        let lines = format!("{FSYNC}log.dirs=/meta,/data\ncordoned.log.dirs=/meta\n");
        let scene = Scene::start(sim, &lines, &[]);
        let first = scene.produce(0, -1, b"first");
        sim.run_for(LONG);
        assert_eq!(first.outcome(), (0, 0));
        sim.disk(scene.server).break_down("/data", Fails::Syncs);
        let lost = scene.produce(0, -1, b"lost");
        sim.run_for(LONG);
        assert_eq!(lost.outcome().0, ErrorCode::KAFKA_STORAGE_ERROR.0);
        let after = scene.produce(0, 1, b"after");
        sim.run_for(LONG);
        assert_eq!(after.outcome().0, ErrorCode::KAFKA_STORAGE_ERROR.0);
    });
}

#[test]
fn flush_ms_bounds_what_a_power_cut_takes() {
    for seed in 1..=6 {
        sim::run(seed, |sim| {
            let scene = Scene::start(sim, OS, &[("flush.ms", "1000")]);
            for partition in 0..PARTITIONS {
                scene.produce(partition, 1, b"x");
            }
            // flush.ms, and the sync.
            sim.run_for(Duration::from_millis(1_020));
            scene.cut_power(OS);
            for partition in 0..PARTITIONS {
                assert_eq!(scene.latest(partition), 1, "seed {seed}");
            }
        });
    }
}

#[test]
fn a_second_flush_of_a_log_goes_beside_the_first() {
    sim::run(4, |sim| {
        let scene = Scene::start(sim, FSYNC, &[]);
        assert_eq!(scene.produced(b"the names are synced with it"), (0, 0));
        sim.disk(scene.server).set_sync_delay(LONG);
        let first = scene.produce(0, -1, b"x");
        sim.run_for(LONG / 2);
        let second = scene.produce(0, -1, b"y");
        sim.run_for(LONG / 2 + Duration::from_millis(100));
        assert_eq!(first.outcome(), (0, 1));
        assert!(second.is_open());
        sim.run_for(LONG / 2);
        assert_eq!(second.outcome(), (0, 2));
    });
}

#[test]
fn without_a_descriptor_a_flush_waits_and_the_directory_stays_online() {
    sim::run(5, |sim| {
        let scene = Scene::start(sim, FSYNC, &[]);
        let disk = sim.disk(scene.server);
        disk.break_down("/data/t-0", Fails::Descriptors);
        let waiting = scene.produce(0, -1, b"x");
        sim.run_for(LONG);
        assert!(waiting.is_open());
        disk.mend();
        sim.run_for(Duration::from_millis(200));
        assert_eq!(waiting.outcome(), (0, 0));
    });
}

#[test]
fn a_committed_offset_is_durable_before_it_is_acknowledged() {
    for seed in 1..=4 {
        sim::run(seed, |sim| {
            let scene = Scene::start(sim, FSYNC, &[]);
            let (rt, at) = (scene.rt.clone(), scene.at);
            scene.run(async move {
                let mut client = Client::connect(&rt, at).await;
                find_coordinator(&rt, &mut client).await;
            });
            sim.run_for(LONG);
            let first: Pending<OffsetCommitResponse> =
                scene.begin(ApiKey::OffsetCommit, 8, commit(3));
            // Not by a look every half second: a flush, perhaps with names, and the way.
            sim.run_for(Duration::from_millis(100));
            assert!(!first.is_open(), "its flush begins at once");
            scene.hold("/data");
            let committed: Pending<OffsetCommitResponse> =
                scene.begin(ApiKey::OffsetCommit, 8, commit(7));
            sim.run_for(LONG);
            assert!(committed.is_open(), "acknowledged before the sync");
            scene.release();
            sim.run_for(LONG);
            let error = committed.0.borrow().as_ref().map(|answer| {
                let topic: &ottla::wire::messages::offset_commit_response::OffsetCommitResponseTopic =
                    &answer.topics[0];
                topic.partitions[0].error_code
            });
            assert_eq!(error, Some(0));
            scene.cut_power(FSYNC);
            let (rt, at) = (scene.rt.clone(), scene.at);
            let offset = scene.run(async move {
                let mut client = Client::connect(&rt, at).await;
                find_coordinator(&rt, &mut client).await;
                committed_offset(&rt, &mut client).await
            });
            assert_eq!(offset, 7, "seed {seed}");
        });
    }
}

async fn find_coordinator(rt: &Rt, client: &mut Client) {
    use ottla::wire::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
    let request = FindCoordinatorRequest {
        key: "group".to_owned(),
        ..Default::default()
    };
    loop {
        let found: std::io::Result<FindCoordinatorResponse> =
            client.ask(ApiKey::FindCoordinator, 3, &request).await;
        if found.expect("it is answered").error_code == 0 {
            return;
        }
        rt.sleep(Duration::from_millis(50)).await;
    }
}

fn commit(offset: i64) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: "group".to_owned(),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: TOPIC.to_owned(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: offset,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

async fn committed_offset(rt: &Rt, client: &mut Client) -> i64 {
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: "group".to_owned(),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: TOPIC.to_owned(),
                partition_indexes: vec![0],
                ..Default::default()
            }]),
            ..Default::default()
        }],
        ..Default::default()
    };
    loop {
        let found: std::io::Result<OffsetFetchResponse> =
            client.ask(ApiKey::OffsetFetch, 8, &request).await;
        let found = found.expect("it is answered");
        let group = &found.groups[0];
        if group.error_code == 0 {
            return group.topics[0].partitions[0].committed_offset;
        }
        rt.sleep(Duration::from_millis(50)).await;
    }
}

/// Acknowledged and read records by partition, against what is there after each power cut.
#[test]
fn what_was_acknowledged_or_read_is_there_after_power_cuts() {
    let mut seen_total = 0;
    for seed in 1..=6 {
        sim::run(seed, |sim| {
            let scene = Scene::start(sim, FSYNC, &[]);
            let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
            for life in 0..4 {
                let mut pending = Vec::new();
                for round in 0..20u64 {
                    let partition = (round % PARTITIONS as u64) as i32;
                    let acks = if round % 3 == 0 { 1 } else { -1 };
                    pending.push((partition, scene.produce(partition, acks, b"x")));
                    sim.run_for(Duration::from_micros(500 * (round % 7)));
                    let read = scene.latest(partition);
                    let end = ends.entry(partition).or_default();
                    assert!(read >= *end, "the high watermark went back");
                    *end = read;
                }
                for (partition, pending) in pending {
                    if !pending.is_open() {
                        let (error, offset) = pending.outcome();
                        assert_eq!(error, 0);
                        let end = ends.entry(partition).or_default();
                        *end = (*end).max(offset + 1);
                    }
                }
                scene.cut_power(FSYNC);
                for (partition, end) in &ends {
                    let found = scene.latest(*partition);
                    assert!(
                        found >= *end,
                        "seed {seed}, life {life}: {found} of {end} in {partition}"
                    );
                    seen_total += end;
                }
            }
        });
    }
    assert!(seen_total > 100, "the producers got on");
}
