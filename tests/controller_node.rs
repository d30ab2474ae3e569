//! The controller on a core, over simulated and real files: restarts, crashes at any
//! moment, group commit; and what it writes, read by Apache Kafka's own tools.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ottla::base::{BrokerId, CoreId, LeaderEpoch, Offset, PartitionIndex, Uuid};
use ottla::controller::{
    ApiError, ConfigRules, ControllerRequest, ControllerResponse, ControllerSettings,
    EffectiveConfig, TopicConfigLayers,
};
use ottla::io::local::{oneshot, or_deadline};
use ottla::io::{Backend, CoreConfig, Disk, OpenMode, Queue, Rt, run_core};
use ottla::log::LogConfig;
use ottla::metadata::{
    ConfigEntries, ConfigResourceType, ImageChanges, Listener, MetadataImage, MetadataRecord,
};
use ottla::node::controller::{ControllerConfig, ControllerHandle, Publish, QuorumSettings, start};
use ottla::node::metadata_log::{MetadataLogError, format_quorum};
use ottla::raft::checkpoint::{Contents, read_batch};
use ottla::raft::quorum::{Request, Response};
use ottla::raft::voters::Endpoint;
use ottla::raft::{Voter, VoterSet};
use ottla::record::Batches;
use ottla::security::{AllowAll, RequestContext};
use ottla::sim;
use ottla::wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use ottla::wire::messages::{
    AllocateProducerIdsRequest, BrokerHeartbeatRequest, BrokerRegistrationRequest,
    CreateTopicsRequest, DeleteTopicsRequest, DescribeQuorumRequest, broker_registration_request,
    delete_topics_request, describe_quorum_request,
};

const NODE: BrokerId = BrokerId(7);
const DIRECTORY: Uuid = Uuid([42; 16]);

/// Rules that allow everything.
#[derive(Debug)]
struct AnyConfig;

impl ConfigRules for AnyConfig {
    fn validate(&self, _: ConfigResourceType, _: &str, _: &ConfigEntries) -> Result<(), ApiError> {
        Ok(())
    }

    fn is_list(&self, _: ConfigResourceType, _: &str) -> bool {
        false
    }

    fn default_value(&self, _: ConfigResourceType, _: &str) -> Option<String> {
        None
    }

    fn effective_topic_configs(&self, _: &TopicConfigLayers<'_>) -> Vec<EffectiveConfig> {
        Vec::new()
    }
}

/// Takes a while for each image, as cores do.
#[derive(Clone)]
struct Published {
    rt: Rt,
    image: Rc<RefCell<Arc<MetadataImage>>>,
    count: Rc<Cell<usize>>,
}

impl Published {
    fn new(rt: &Rt) -> Published {
        Published {
            rt: rt.clone(),
            image: Rc::default(),
            count: Rc::default(),
        }
    }

    fn image(&self) -> Arc<MetadataImage> {
        Arc::clone(&self.image.borrow())
    }
}

impl Publish for Published {
    async fn publish(&self, image: Arc<MetadataImage>, changes: Arc<ImageChanges>) {
        let first = self.count.get() == 0;
        let before = self.image();
        assert_eq!(changes.to, image.provenance.offset);
        if !first {
            assert_eq!(changes.from, before.provenance.offset);
            assert!(changes.to > changes.from);
        }
        self.rt.sleep(Duration::from_micros(200)).await;
        self.count.set(self.count.get() + 1);
        *self.image.borrow_mut() = image;
    }
}

fn config(metadata_dir: &Path) -> ControllerConfig {
    ControllerConfig {
        settings: ControllerSettings {
            node_id: NODE,
            cluster_id: "c".to_owned(),
            default_num_partitions: 1,
            default_replication_factor: 1,
            delete_topic_enable: true,
            broker_session_timeout_ms: 9_000,
            leader_imbalance_check_interval: Some(Duration::from_secs(300)),
            unclean_leader_election_interval: Duration::from_secs(300),
        },
        metadata_dir: metadata_dir.to_owned(),
        directory_id: DIRECTORY,
        static_voters: None,
        listeners: vec![Listener {
            name: "CONTROLLER".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: 9093,
            protocol: 0,
        }],
        log: LogConfig::default(),
        snapshot_bytes: 20 * 1024 * 1024,
        quorum: QuorumSettings::default(),
    }
}

fn format(disk: &dyn Disk, metadata_dir: &Path) {
    let endpoint = Endpoint {
        listener: "CONTROLLER".to_owned(),
        host: "127.0.0.1".to_owned(),
        port: 9093,
    };
    disk.create_dir_all(metadata_dir).unwrap();
    let voter = Voter::new(NODE, Some(DIRECTORY), vec![endpoint]);
    format_quorum(disk, metadata_dir, VoterSet::single(voter), 1_000).unwrap();
}

async fn started(
    rt: &Rt,
    config: ControllerConfig,
) -> Result<(ControllerHandle, Published), MetadataLogError> {
    let published = Published::new(rt);
    let handle = start(
        rt,
        config,
        Arc::new(AnyConfig),
        Arc::new(AllowAll),
        published.clone(),
    )?;
    handle.ready().await?;
    Ok((handle, published))
}

fn ctx() -> RequestContext {
    RequestContext {
        api_version: 6,
        ..RequestContext::internal()
    }
}

/// Registers the broker and unfences it; its epoch.
async fn join(handle: &ControllerHandle, incarnation: u8) -> i64 {
    let request = BrokerRegistrationRequest {
        broker_id: NODE.0,
        cluster_id: "c".to_owned(),
        incarnation_id: Uuid([incarnation; 16]),
        listeners: vec![broker_registration_request::Listener {
            name: "PLAINTEXT".to_owned(),
            host: "localhost".to_owned(),
            port: 9092,
            security_protocol: 0,
        }],
        features: [("metadata.version", 7, 30), ("kraft.version", 0, 1)]
            .map(|(name, min, max)| broker_registration_request::Feature {
                name: name.to_owned(),
                min_supported_version: min,
                max_supported_version: max,
            })
            .to_vec(),
        log_dirs: vec![DIRECTORY],
        ..Default::default()
    };
    let call = ControllerRequest::RegisterBroker {
        ctx: ctx(),
        request,
    };
    let ControllerResponse::RegisterBroker(response) = handle.call(call).await else {
        panic!("another answer");
    };
    assert_eq!(response.error_code, 0);
    heartbeat(handle, response.broker_epoch, false).await;
    response.broker_epoch
}

async fn heartbeat(handle: &ControllerHandle, broker_epoch: i64, want_shut_down: bool) -> bool {
    let request = BrokerHeartbeatRequest {
        broker_id: NODE.0,
        broker_epoch,
        current_metadata_offset: i64::MAX,
        want_shut_down,
        cordoned_log_dirs: Some(Vec::new()),
        ..Default::default()
    };
    let call = ControllerRequest::BrokerHeartbeat {
        ctx: ctx(),
        request,
    };
    let ControllerResponse::BrokerHeartbeat(response) = handle.call(call).await else {
        panic!("another answer");
    };
    assert_eq!(response.error_code, 0);
    response.should_shut_down
}

/// Creates a topic with a config; its id, or the error.
async fn create(handle: &ControllerHandle, name: &str) -> Result<Uuid, i16> {
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: name.to_owned(),
            num_partitions: 2,
            replication_factor: 1,
            configs: vec![CreatableTopicConfig {
                name: "retention.ms".to_owned(),
                value: Some("5".to_owned()),
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let call = ControllerRequest::CreateTopics {
        ctx: ctx(),
        request,
    };
    match handle.call(call).await {
        ControllerResponse::CreateTopics(response) => match &response.topics[0] {
            topic if topic.error_code == 0 => Ok(topic.topic_id),
            topic => Err(topic.error_code),
        },
        other => panic!("{other:?}"),
    }
}

async fn delete(handle: &ControllerHandle, name: &str) -> i16 {
    let request = DeleteTopicsRequest {
        topics: vec![delete_topics_request::DeleteTopicState {
            name: Some(name.to_owned()),
            topic_id: Uuid::ZERO,
        }],
        ..Default::default()
    };
    let call = ControllerRequest::DeleteTopics {
        ctx: ctx(),
        request,
    };
    match handle.call(call).await {
        ControllerResponse::DeleteTopics(response) => response.responses[0].error_code,
        other => panic!("{other:?}"),
    }
}

async fn allocate(handle: &ControllerHandle, broker_epoch: i64) -> Result<i64, i16> {
    let call = ControllerRequest::AllocateProducerIds {
        ctx: ctx(),
        request: AllocateProducerIdsRequest {
            broker_id: NODE.0,
            broker_epoch,
        },
    };
    match handle.call(call).await {
        ControllerResponse::AllocateProducerIds(r) if r.error_code == 0 => Ok(r.producer_id_start),
        ControllerResponse::AllocateProducerIds(r) => Err(r.error_code),
        other => panic!("{other:?}"),
    }
}

async fn leader_epoch(handle: &ControllerHandle) -> (i32, i64) {
    let request = DescribeQuorumRequest {
        topics: vec![describe_quorum_request::TopicData {
            topic_name: "__cluster_metadata".to_owned(),
            partitions: vec![describe_quorum_request::PartitionData { partition_index: 0 }],
        }],
    };
    match handle.ask(2, Request::DescribeQuorum(request)).await {
        Some(Response::DescribeQuorum(response)) => {
            let partition = &response.topics[0].partitions[0];
            assert_eq!(partition.leader_id, NODE.0);
            (partition.leader_epoch, partition.high_watermark)
        }
        other => panic!("{other:?}"),
    }
}

const METADATA_DIR: &str = "/data";
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn everything_survives_a_clean_restart() {
    sim::run(1, |sim| {
        let node = sim.add_node(1);
        format(&sim.disk(node), Path::new(METADATA_DIR));
        for round in 1..=3u8 {
            let rt = sim.boot(node).remove(0);
            let inner = rt.clone();
            sim.block_on(&rt, LIMIT, async move {
                let config = config(Path::new(METADATA_DIR));
                let (handle, published) = started(&inner, config).await.unwrap();
                let before = published.image();
                assert_eq!(before.topics.len(), usize::from(round) - 1);
                assert_eq!(leader_epoch(&handle).await.0, i32::from(round));
                let features: Vec<_> = before.finalized_features().collect();
                assert_eq!(features, [("metadata.version", 30), ("kraft.version", 1)]);
                let epoch = join(&handle, round).await;
                for topic in published.image().topics.iter() {
                    let partition = topic.partition(PartitionIndex(1)).unwrap();
                    assert_eq!(partition.leader, NODE);
                }
                let name = format!("t{round}");
                let id = create(&handle, &name).await.unwrap();
                // Whoever has the answer sees the topic on every core.
                let image = published.image();
                assert_eq!(image.topics.by_name(&name).unwrap().id, id);
                let config = image.config(ConfigResourceType::TOPIC, &name, "retention.ms");
                assert_eq!(config, Some("5"));
                assert_eq!(create(&handle, &name).await, Err(36));
                let start = i64::from(round - 1) * 1_000;
                assert_eq!(allocate(&handle, epoch).await, Ok(start));
                assert!(!heartbeat(&handle, epoch, true).await);
                assert!(heartbeat(&handle, epoch, true).await);
                handle.stop().await;
                assert_eq!(create(&handle, "late").await, Err(41));
            });
            sim.shut_down(node);
        }
    });
}

/// What clients were told, against what a restarted controller knows.
#[derive(Default)]
struct Told {
    /// By name: the id of a topic that exists for sure, `None` for one that doesn't.
    topics: BTreeMap<String, Option<Uuid>>,
    /// Operations without an answer may or may not have happened.
    unanswered: Vec<String>,
    /// First ids of all blocks.
    producer_ids: BTreeSet<i64>,
    leader_epoch: i32,
}

impl Told {
    fn check(&self, image: &MetadataImage, epoch: i32) {
        assert!(epoch > self.leader_epoch, "an epoch came twice");
        let last = self.producer_ids.last();
        assert!(last.is_none_or(|start| image.next_producer_id >= start + 1_000));
        for (name, id) in &self.topics {
            if !self.unanswered.contains(name) {
                let found = image.topics.by_name(name).map(|topic| topic.id);
                assert_eq!(found, *id, "{name}");
            }
        }
        for topic in image.topics.iter() {
            assert_eq!(topic.partition_count(), 2, "a batch came in part");
            let config = image.config(ConfigResourceType::TOPIC, &topic.name, "retention.ms");
            assert_eq!(config, Some("5"), "a batch came in part");
        }
    }
}

async fn client(rt: Rt, handle: ControllerHandle, told: Rc<RefCell<Told>>, me: u64, epoch: i64) {
    loop {
        let name = format!("client{me}-topic{}", rt.rng().below(4));
        let choice = rt.rng().below(5);
        match choice {
            0 => {
                if let Ok(start) = allocate(&handle, epoch).await {
                    let is_new = told.borrow_mut().producer_ids.insert(start);
                    assert!(is_new, "ids were given out twice");
                }
            }
            1 => {
                told.borrow_mut().unanswered.push(name.clone());
                let code = delete(&handle, &name).await;
                let told = &mut *told.borrow_mut();
                told.unanswered.retain(|other| *other != name);
                match code {
                    0 => drop(told.topics.insert(name, None)),
                    3 => assert_eq!(told.topics.get(&name).copied().flatten(), None),
                    other => panic!("error {other}"),
                }
            }
            _ => {
                told.borrow_mut().unanswered.push(name.clone());
                let result = create(&handle, &name).await;
                let told = &mut *told.borrow_mut();
                told.unanswered.retain(|other| *other != name);
                match result {
                    Ok(id) => drop(told.topics.insert(name, Some(id))),
                    Err(36) => assert!(told.topics[&name].is_some()),
                    Err(other) => panic!("error {other}"),
                }
            }
        }
        let pause = Duration::from_micros(rt.rng().below(3_000));
        rt.sleep(pause).await;
    }
}

/// One seed: rounds of clients that work at once until the machine loses its power.
fn crashes(seed: u64, rounds: u32) -> (usize, usize) {
    sim::run(seed, |sim| {
        let node = sim.add_node(1);
        format(&sim.disk(node), Path::new(METADATA_DIR));
        let told = Rc::new(RefCell::new(Told::default()));
        let mut most_topics = 0;
        let mut offset = Offset(0);
        for round in 0..rounds {
            let rt = sim.boot(node).remove(0);
            let (inner, told2) = (rt.clone(), Rc::clone(&told));
            let (handle, published, epoch) = sim.block_on(&rt, LIMIT, async move {
                let mut config = config(Path::new(METADATA_DIR));
                config.snapshot_bytes = 10_000;
                let (handle, published) = started(&inner, config).await.unwrap();
                let (epoch, _) = leader_epoch(&handle).await;
                told2.borrow().check(&published.image(), epoch);
                {
                    // What had no answer is settled now.
                    let told = &mut *told2.borrow_mut();
                    told.leader_epoch = epoch;
                    for name in std::mem::take(&mut told.unanswered) {
                        let id = published.image().topics.by_name(&name).map(|t| t.id);
                        told.topics.insert(name, id);
                    }
                }
                let epoch = join(&handle, round as u8 + 1).await;
                (handle, published, epoch)
            });
            most_topics = most_topics.max(published.image().topics.len());
            assert!(published.image().provenance.offset > offset);
            offset = published.image().provenance.offset;
            for me in 0..4 {
                let task = client(rt.clone(), handle.clone(), Rc::clone(&told), me, epoch);
                rt.spawn(Queue::Request, task);
            }
            let lifetime = Duration::from_micros(rt.rng().below(40_000));
            sim.run_for(lifetime);
            sim.crash(node);
        }
        (most_topics, offset.0 as usize)
    })
}

#[test]
fn what_was_answered_survives_power_cuts() {
    let seeds: u64 = if std::env::var_os("OTTLA_LONG").is_some() {
        400
    } else {
        25
    };
    let (mut topics, mut records) = (0, 0);
    for seed in 1..=seeds {
        let (most_topics, end) = crashes(seed, 12);
        topics = topics.max(most_topics);
        records += end;
    }
    println!("{seeds} seeds, at most {topics} topics, {records} records");
    assert!(topics >= 8 && records > 1_000);
}

#[test]
fn operations_that_come_together_share_a_sync() {
    sim::run(3, |sim| {
        let node = sim.add_node(1);
        format(&sim.disk(node), Path::new(METADATA_DIR));
        let rt = sim.boot(node).remove(0);
        let inner = rt.clone();
        let (images, topics) = sim.block_on(&rt, LIMIT, async move {
            let config = config(Path::new(METADATA_DIR));
            let (handle, published) = started(&inner, config).await.unwrap();
            join(&handle, 1).await;
            let before = published.count.get();
            let mut waiting = Vec::new();
            for n in 0..50 {
                let (done, finished) = oneshot();
                waiting.push(finished);
                let handle = handle.clone();
                inner.spawn(Queue::Request, async move {
                    let created = create(&handle, &format!("t{}", n / 2)).await;
                    done.send(created).unwrap();
                });
            }
            let mut created = 0;
            for finished in waiting {
                match finished.await.unwrap() {
                    Ok(_) => created += 1,
                    // Decided on a topic that was not committed yet.
                    Err(code) => assert_eq!(code, 36),
                }
            }
            assert_eq!(created, 25);
            (
                published.count.get() - before,
                published.image().topics.len(),
            )
        });
        assert_eq!(topics, 25);
        assert!(images <= 3, "{images} images for 50 operations");
    });
}

#[test]
fn a_failed_sync_is_final() {
    sim::run(4, |sim| {
        let node = sim.add_node(1);
        format(&sim.disk(node), Path::new(METADATA_DIR));
        let rt = sim.boot(node).remove(0);
        let (inner, disk) = (rt.clone(), sim.disk(node));
        sim.block_on(&rt, LIMIT, async move {
            let config = config(Path::new(METADATA_DIR));
            let (handle, published) = started(&inner, config).await.unwrap();
            join(&handle, 1).await;
            create(&handle, "before").await.unwrap();
            disk.fail_syncs(1);
            assert_eq!(create(&handle, "t").await, Err(41));
            assert_eq!(create(&handle, "u").await, Err(41));
            let error = handle.failed().await;
            assert!(matches!(*error, MetadataLogError::Disk { .. }), "{error}");
            assert_eq!(published.image().topics.len(), 1);
        });
    });
}

#[test]
fn what_this_node_cannot_run_is_left_alone() {
    let refused = |prepare: &dyn Fn(&dyn Disk), change: &dyn Fn(&mut ControllerConfig)| {
        sim::run(5, |sim| {
            let node = sim.add_node(1);
            let disk = sim.disk(node);
            disk.create_dir_all(Path::new(METADATA_DIR)).unwrap();
            prepare(&disk);
            let rt = sim.boot(node).remove(0);
            let inner = rt.clone();
            let mut config = config(Path::new(METADATA_DIR));
            change(&mut config);
            sim.block_on(&rt, LIMIT, async move {
                started(&inner, config).await.err().unwrap().to_string()
            })
        })
    };
    let text = refused(&|_| {}, &|_| {});
    assert!(text.contains("names no voters"), "{text}");
    let text = refused(
        &|disk| {
            format(disk, Path::new(METADATA_DIR));
            let path = Path::new("tests/golden/metadata/kafka-bootstrap.checkpoint");
            let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
            let file = disk
                .open(
                    &PathBuf::from("/data/bootstrap.checkpoint"),
                    OpenMode::Create,
                )
                .unwrap();
            file.write_all_at(&[std::io::IoSlice::new(&bytes)], 0)
                .unwrap();
        },
        &|_| {},
    );
    assert!(
        text.contains("feature eligible.leader.replicas.version is finalized"),
        "{text}"
    );
}

/// A node that isn't among the voters waits for them, and leads nothing.
#[test]
fn a_node_that_does_not_vote_does_not_lead() {
    sim::run(9, |sim| {
        let node = sim.add_node(1);
        format(&sim.disk(node), Path::new(METADATA_DIR));
        let rt = sim.boot(node).remove(0);
        let inner = rt.clone();
        sim.block_on(&rt, LIMIT, async move {
            let mut config = config(Path::new(METADATA_DIR));
            config.settings.node_id = BrokerId(8);
            let until = inner.now() + Duration::from_secs(20);
            let starting = or_deadline(&inner, started(&inner, config), until);
            assert!(starting.await.is_err(), "it has an image from nobody");
        });
        let log = Path::new("/data/__cluster_metadata-0/00000000000000000000.log");
        let log = sim.disk(node).open(log, OpenMode::Read).unwrap();
        assert_eq!(log.len().unwrap(), 0);
    });
}

/// Old snapshots go, and the segments before them; the next start reads what is left.
#[test]
fn retention_keeps_the_latest_snapshot() {
    sim::run(8, |sim| {
        let node = sim.add_node(1);
        let disk = sim.disk(node);
        format(&disk, Path::new(METADATA_DIR));
        let mut topics = 0;
        for round in 1..=3u8 {
            let rt = sim.boot(node).remove(0);
            let inner = rt.clone();
            topics = sim.block_on(&rt, LIMIT, async move {
                let mut config = config(Path::new(METADATA_DIR));
                config.snapshot_bytes = 2_000;
                config.log.segment_bytes = 16_000;
                config.log.retention_bytes = 50_000;
                let (handle, published) = started(&inner, config).await.unwrap();
                assert_eq!(published.image().topics.len(), topics);
                let epoch = join(&handle, round).await;
                for n in 0..40 {
                    create(&handle, &format!("r{round}-{n}")).await.unwrap();
                    if n % 3 == 0 {
                        assert_eq!(delete(&handle, &format!("r{round}-{n}")).await, 0);
                    }
                }
                heartbeat(&handle, epoch, true).await;
                handle.stop().await;
                published.image().topics.len()
            });
            sim.shut_down(node);
        }
        assert!(topics > 70);
        let dir = Path::new("/data/__cluster_metadata-0");
        let names = disk.read_dir(dir).unwrap();
        let has = |end: &str| {
            names
                .iter()
                .filter(|entry| entry.name.ends_with(end))
                .count()
        };
        assert!((1..4).contains(&has(".checkpoint")), "{names:?}");
        assert!(has(".log") < 5, "{names:?}");
        assert!(
            !names
                .iter()
                .any(|entry| entry.name == "00000000000000000000.log")
        );
    });
}

/// A static quorum has no voters in its log, and quorum-state of version 0.
#[test]
fn configured_voters_make_a_quorum_of_version_0() {
    sim::run(6, |sim| {
        let node = sim.add_node(1);
        let disk = sim.disk(node);
        disk.create_dir_all(Path::new(METADATA_DIR)).unwrap();
        for round in 1..=2 {
            let rt = sim.boot(node).remove(0);
            let inner = rt.clone();
            sim.block_on(&rt, LIMIT, async move {
                let mut config = config(Path::new(METADATA_DIR));
                let voter = Voter::new(NODE, None, Vec::new());
                config.static_voters = Some(VoterSet::single(voter));
                let (handle, _) = started(&inner, config).await.unwrap();
                assert_eq!(leader_epoch(&handle).await.0, round);
                handle.stop().await;
            });
            sim.shut_down(node);
        }
        let state = disk
            .read(Path::new("/data/__cluster_metadata-0/quorum-state"), 1_000)
            .unwrap();
        assert!(
            String::from_utf8(state)
                .unwrap()
                .ends_with(r#""data_version":0}"#)
        );
    });
}

/// Works on real files, over the core's own ring; every kind of operation, two lives.
fn write_a_real_log(metadata_dir: &Path) {
    format(&ottla::io::RealDisk, metadata_dir);
    for round in 1..=2u8 {
        let core = CoreConfig {
            backend: Backend::Bare,
            ..CoreConfig::new(CoreId(0))
        };
        let dir = metadata_dir.to_owned();
        let core = run_core(core, move |rt| async move {
            let mut config = config(&dir);
            config.snapshot_bytes = 1_000;
            let (handle, _) = started(&rt, config).await.unwrap();
            let epoch = join(&handle, round).await;
            for n in 0..5 {
                create(&handle, &format!("life{round}-t{n}")).await.unwrap();
            }
            assert_eq!(delete(&handle, &format!("life{round}-t0")).await, 0);
            allocate(&handle, epoch).await.unwrap();
            if round == 2 {
                heartbeat(&handle, epoch, true).await;
                heartbeat(&handle, epoch, true).await;
            }
            handle.stop().await;
        });
        core.unwrap().join();
    }
}

#[test]
fn real_files_hold_the_metadata_log() {
    let home = tempfile::tempdir().unwrap();
    write_a_real_log(home.path());
    let dir = home.path().join("__cluster_metadata-0");
    let mut epochs = Vec::new();
    let log = std::fs::read(dir.join("00000000000000000000.log")).unwrap();
    for batch in Batches::new(&log) {
        let batch = batch.unwrap();
        assert!(batch.verify_crc());
        epochs.push(batch.partition_leader_epoch());
        if let Contents::Data(values) = read_batch(&batch).unwrap() {
            values
                .iter()
                .for_each(|value| drop(MetadataRecord::decode(value).unwrap()));
        }
    }
    epochs.dedup();
    assert_eq!(epochs, [LeaderEpoch(1), LeaderEpoch(2)]);
    let partition = std::fs::read_to_string(dir.join("partition.metadata")).unwrap();
    assert!(partition.contains("topic_id: AAAAAAAAAAAAAAAAAAAAAQ"));
    let snapshots = std::fs::read_dir(&dir).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_str().unwrap().ends_with(".checkpoint")
    });
    assert!(snapshots.count() > 2);
}

/// kafka-dump-log reads our log and snapshots, and prints the records that we read.
#[test]
fn kafkas_dump_tool_reads_our_files() {
    let Ok(classpath) = std::env::var("OTTLA_KAFKA_CLASSPATH") else {
        return;
    };
    let home = tempfile::tempdir().unwrap();
    write_a_real_log(home.path());
    let dir = home.path().join("__cluster_metadata-0");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            [".log", ".checkpoint", ".index", ".timeindex"]
                .iter()
                .any(|end| name.ends_with(end))
        })
        .collect();
    files.sort();
    let names: Vec<&str> = files.iter().map(|path| path.to_str().unwrap()).collect();
    let output = std::process::Command::new("java")
        .args(["-cp", &classpath, "org.apache.kafka.tools.DumpLogSegments"])
        .args(["--cluster-metadata-decoder", "--files", &names.join(",")])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for bad in [
        "isvalid: false",
        "Could not",
        "rror",
        "xception",
        "mismatch",
        "Mismatch",
    ] {
        let lines: Vec<&str> = text.lines().filter(|line| line.contains(bad)).collect();
        assert!(lines.is_empty(), "{lines:?}");
    }
    let log = std::fs::read(dir.join("00000000000000000000.log")).unwrap();
    let mut expected = Vec::new();
    for batch in Batches::new(&log).map(Result::unwrap) {
        if let Contents::Data(values) = read_batch(&batch).unwrap() {
            for value in &values {
                let (record, version) = MetadataRecord::decode_versioned(value).unwrap();
                expected.push(serde_json::json!({
                    "type": record.type_name(),
                    "version": version,
                    "data": record.to_json(version),
                }));
            }
        }
    }
    let from_log = text
        .split("Dumping ")
        .find(|part| {
            part.lines()
                .next()
                .is_some_and(|line| line.ends_with("0.log"))
        })
        .unwrap();
    let printed: Vec<serde_json::Value> = from_log
        .lines()
        .filter_map(|line| line.split_once("payload: "))
        .map(|(_, json)| serde_json::from_str(json).unwrap())
        .collect();
    assert!(expected.len() > 30);
    assert_eq!(printed, expected);
}
