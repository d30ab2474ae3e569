//! A whole node in the simulated world on disks that fail: no space, no read, no write, no
//! sync, and syncs that take long. What concerns one log directory leaves the others alone.

#[path = "support/requests.rs"]
mod requests;
#[path = "support/sim_server.rs"]
mod sim_server;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ottla::base::ErrorCode;
use ottla::io::{Disk, OpenMode, Rt};
use ottla::record::{batch::Batches, records};
use ottla::sim::{self, End, Fails, NodeId, Sim, SimDisk};
use ottla::wire::ApiKey;
use ottla::wire::messages::alter_replica_log_dirs_request::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic,
};
use ottla::wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use ottla::wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use ottla::wire::messages::fetch_request::{FetchPartition, FetchTopic};
use ottla::wire::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use ottla::wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use ottla::wire::messages::metadata_request::MetadataRequestTopic;
use ottla::wire::messages::metadata_response::MetadataResponsePartition;
use ottla::wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla::wire::messages::{
    AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, CreateTopicsRequest,
    CreateTopicsResponse, DeleteRecordsRequest, DeleteRecordsResponse, DescribeLogDirsRequest,
    DescribeLogDirsResponse, FetchRequest, FetchResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse,
    OffsetCommitRequest, OffsetCommitResponse, ProduceResponse,
};
use sim_server::{Client, DATA_CORES, PORT};

const TOPIC: &str = "t";
const TWO_DIRS: &str = "log.dirs=/a,/b\nmetadata.log.dir=/meta\nlog.retention.ms=-1\n";
const TIMEOUT: Duration = Duration::from_secs(120);

/// One node and one client.
struct World<'a> {
    sim: &'a Sim,
    server: NodeId,
    rt: Rt,
    lines: &'static str,
}

/// Runs a story for some seeds.
fn with_node(lines: &'static str, story: impl Fn(&World<'_>)) {
    for seed in 1..=3 {
        println!("seed {seed}");
        sim::run(seed, |sim| {
            let server = sim.add_node(DATA_CORES + 1);
            let clients = sim.add_node(1);
            let rt = sim.boot(clients).remove(0);
            let world = World {
                sim,
                server,
                rt,
                lines,
            };
            story(&world);
        });
    }
}

impl World<'_> {
    fn disk(&self) -> SimDisk {
        self.sim.disk(self.server)
    }

    fn boot(&self) {
        let (starting, _) = sim_server::boot(self.sim, self.server, self.lines, &["PLAINTEXT"]);
        self.talk(async |_| {});
        self.sim.run_for(Duration::from_millis(100));
        assert!(matches!(starting.try_recv(), Ok(Ok(_))), "the node started");
    }

    fn restart(&self) {
        self.sim.shut_down(self.server);
        self.sim.run_for(Duration::from_millis(50));
        self.boot();
    }

    /// Stops as on a signal: everything is synced and marked clean, so that nothing is read
    /// when the node starts again.
    fn stop_cleanly(&self) {
        self.sim.ask_to_stop(self.server);
        let marker = Path::new("/data/.kafka_cleanshutdown");
        let is_marked = || self.disk().exists(marker).unwrap();
        for _ in 0..1_000 {
            if is_marked() {
                break;
            }
            self.sim.run_for(Duration::from_millis(10));
        }
        assert!(is_marked(), "the node stops");
        self.sim.shut_down(self.server);
        self.sim.run_for(Duration::from_millis(50));
    }

    /// Runs a conversation of one client to its end.
    fn talk<R: 'static>(&self, conversation: impl AsyncFnOnce(&mut Client) -> R + 'static) -> R {
        let at = SocketAddr::new(self.sim.ip(self.server), PORT);
        let rt = self.rt.clone();
        self.sim.block_on(&self.rt, TIMEOUT, async move {
            let mut client = Client::connect(&rt, at).await;
            conversation(&mut client).await
        })
    }

    fn create(&self, topic: &'static str, partitions: i32, flush_each: bool) -> ErrorCode {
        self.talk(async move |client| create(client, topic, partitions, flush_each).await)
    }

    fn produce(&self, partition: i32, value: &'static [u8]) -> (ErrorCode, i64) {
        self.talk(async move |client| produce(client, partition, value).await)
    }

    fn read(&self, partition: i32, offset: i64) -> Result<Vec<Vec<u8>>, ErrorCode> {
        self.talk(async move |client| read(client, partition, offset).await)
    }

    fn list_offset(&self, partition: i32, timestamp: i64) -> (ErrorCode, i64) {
        self.talk(async move |client| {
            let request = ListOffsetsRequest {
                replica_id: -1,
                topics: vec![ListOffsetsTopic {
                    name: TOPIC.to_owned(),
                    partitions: vec![ListOffsetsPartition {
                        partition_index: partition,
                        timestamp,
                        ..Default::default()
                    }],
                }],
                ..Default::default()
            };
            let response: ListOffsetsResponse =
                client.ask(ApiKey::ListOffsets, 6, &request).await.unwrap();
            let answer = &response.topics[0].partitions[0];
            (ErrorCode(answer.error_code), answer.offset)
        })
    }

    fn delete_records(&self, partition: i32, offset: i64) -> (ErrorCode, i64) {
        self.talk(async move |client| {
            let request = DeleteRecordsRequest {
                topics: vec![DeleteRecordsTopic {
                    name: TOPIC.to_owned(),
                    partitions: vec![DeleteRecordsPartition {
                        partition_index: partition,
                        offset,
                    }],
                }],
                timeout_ms: 1_000,
            };
            let response: DeleteRecordsResponse = client
                .ask(ApiKey::DeleteRecords, 2, &request)
                .await
                .unwrap();
            let answer = &response.topics[0].partitions[0];
            (ErrorCode(answer.error_code), answer.low_watermark)
        })
    }

    fn leaders(&self) -> BTreeMap<i32, MetadataResponsePartition> {
        self.talk(async |client| {
            let request = MetadataRequest {
                topics: Some(vec![MetadataRequestTopic {
                    name: Some(TOPIC.to_owned()),
                    ..Default::default()
                }]),
                ..Default::default()
            };
            let response: MetadataResponse =
                client.ask(ApiKey::Metadata, 12, &request).await.unwrap();
            let partitions = response.topics[0].partitions.iter();
            partitions.map(|p| (p.partition_index, p.clone())).collect()
        })
    }

    /// Error and partitions of [`TOPIC`], by directory.
    fn log_dirs(&self) -> BTreeMap<String, (ErrorCode, bool, BTreeSet<i32>)> {
        self.talk(async |client| {
            let request = DescribeLogDirsRequest { topics: None };
            let response: DescribeLogDirsResponse = client
                .ask(ApiKey::DescribeLogDirs, 5, &request)
                .await
                .unwrap();
            let dirs = response.results.into_iter();
            dirs.map(|dir| {
                let topics = dir.topics.iter().filter(|topic| topic.name == TOPIC);
                let partitions = topics.flat_map(|topic| &topic.partitions);
                let partitions = partitions.filter(|p| !p.is_future_key);
                let partitions = partitions.map(|p| p.partition_index).collect();
                let error = ErrorCode(dir.error_code);
                (dir.log_dir, (error, dir.is_cordoned, partitions))
            })
            .collect()
        })
    }

    fn partitions_in(&self, dir: &str) -> BTreeSet<i32> {
        self.log_dirs()[dir].2.clone()
    }

    /// Has a partition of [`TOPIC`] moved to another directory.
    fn move_to(&self, partition: i32, path: &'static str) -> ErrorCode {
        self.talk(async move |client| {
            let request = AlterReplicaLogDirsRequest {
                dirs: vec![AlterReplicaLogDir {
                    path: path.to_owned(),
                    topics: vec![AlterReplicaLogDirTopic {
                        name: TOPIC.to_owned(),
                        partitions: vec![partition],
                    }],
                }],
            };
            let response: AlterReplicaLogDirsResponse = client
                .ask(ApiKey::AlterReplicaLogDirs, 2, &request)
                .await
                .unwrap();
            ErrorCode(response.results[0].partitions[0].error_code)
        })
    }

    /// Directories of a partition of [`TOPIC`], whatever they are called.
    fn dirs_of(&self, partition: i32) -> Vec<String> {
        let mut found = Vec::new();
        for dir in ["/a", "/b"] {
            for entry in self.disk().read_dir(Path::new(dir)).unwrap() {
                if entry.name.starts_with(&format!("{TOPIC}-{partition}")) {
                    found.push(format!("{dir}/{}", entry.name));
                }
            }
        }
        found
    }

    /// Copies that are being made: partition, directory and whether it is behind.
    fn copies(&self) -> Vec<(i32, String, bool)> {
        self.talk(async |client| {
            let request = DescribeLogDirsRequest { topics: None };
            let described: DescribeLogDirsResponse = client
                .ask(ApiKey::DescribeLogDirs, 4, &request)
                .await
                .unwrap();
            let mut copies = Vec::new();
            for result in described.results {
                for topic in result.topics {
                    for partition in topic.partitions.iter().filter(|p| p.is_future_key) {
                        let is_behind = partition.offset_lag > 0;
                        copies.push((partition.partition_index, result.log_dir.clone(), is_behind));
                    }
                }
            }
            copies
        })
    }

    fn cordon(&self, dirs: &'static str) -> ErrorCode {
        self.configure("cordoned.log.dirs", dirs)
    }

    /// A setting of the broker.
    fn configure(&self, name: &'static str, value: &'static str) -> ErrorCode {
        self.talk(async move |client| {
            let request = IncrementalAlterConfigsRequest {
                resources: vec![AlterConfigsResource {
                    resource_type: 4,
                    resource_name: "1".to_owned(),
                    configs: vec![AlterableConfig {
                        name: name.to_owned(),
                        config_operation: 0,
                        value: Some(value.to_owned()),
                    }],
                }],
                validate_only: false,
            };
            let response: IncrementalAlterConfigsResponse = client
                .ask(ApiKey::IncrementalAlterConfigs, 1, &request)
                .await
                .unwrap();
            ErrorCode(response.responses[0].error_code)
        })
    }
}

async fn create(client: &mut Client, topic: &str, partitions: i32, flush_each: bool) -> ErrorCode {
    let configs = flush_each.then(|| CreatableTopicConfig {
        name: "flush.messages".to_owned(),
        value: Some("1".to_owned()),
    });
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: topic.to_owned(),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.into_iter().collect(),
            ..Default::default()
        }],
        timeout_ms: 1_000,
        ..Default::default()
    };
    let response: CreateTopicsResponse =
        client.ask(ApiKey::CreateTopics, 7, &request).await.unwrap();
    ErrorCode(response.topics[0].error_code)
}

/// The error and the offset, with acks=all. Until the broker is unfenced it leads nothing.
async fn produce(client: &mut Client, partition: i32, value: &[u8]) -> (ErrorCode, i64) {
    let request = requests::produce(TOPIC, partition, value);
    loop {
        let response: ProduceResponse = client.ask(ApiKey::Produce, 9, &request).await.unwrap();
        let answer = &response.responses[0].partition_responses[0];
        match ErrorCode(answer.error_code) {
            ErrorCode::NOT_LEADER_OR_FOLLOWER => {}
            error => return (error, answer.base_offset),
        }
    }
}

async fn read(client: &mut Client, partition: i32, offset: i64) -> Result<Vec<Vec<u8>>, ErrorCode> {
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
    let data = loop {
        let response: FetchResponse = client.ask(ApiKey::Fetch, 12, &request).await.unwrap();
        let data = response.responses[0].partitions[0].clone();
        match ErrorCode(data.error_code) {
            ErrorCode::NOT_LEADER_OR_FOLLOWER => {}
            ErrorCode::NONE => break data,
            error => return Err(error),
        }
    };
    let bytes = data.records.unwrap_or_default();
    let mut values = Vec::new();
    for batch in Batches::new(&bytes).map_while(Result::ok) {
        let mut reader = records(&batch).unwrap();
        while let Some(record) = reader.next() {
            values.push(record.unwrap().value.unwrap().to_vec());
        }
    }
    Ok(values)
}

async fn commit(client: &mut Client) -> ErrorCode {
    let request = OffsetCommitRequest {
        group_id: "g".to_owned(),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: TOPIC.to_owned(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: 1,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let response: OffsetCommitResponse =
        client.ask(ApiKey::OffsetCommit, 8, &request).await.unwrap();
    ErrorCode(response.topics[0].partitions[0].error_code)
}

async fn find_coordinator(client: &mut Client) {
    let request = FindCoordinatorRequest {
        key: "g".to_owned(),
        ..Default::default()
    };
    loop {
        let found: FindCoordinatorResponse = client
            .ask(ApiKey::FindCoordinator, 3, &request)
            .await
            .unwrap();
        if found.error_code == 0 {
            return;
        }
    }
}

fn fill(disk: &SimDisk, left: u64) {
    const ALL: u64 = 1 << 40;
    disk.set_capacity_bytes(ALL);
    let usable = disk.space(Path::new("/")).unwrap().usable_bytes;
    disk.set_capacity_bytes(ALL - usable + left);
}

#[test]
fn without_space_everything_is_refused_but_reads_and_comes_back_with_it() {
    with_node("", |world| {
        world.boot();
        assert_eq!(world.create(TOPIC, 1, false), ErrorCode::NONE);
        assert_eq!(world.produce(0, b"before"), (ErrorCode::NONE, 0));
        world.talk(async |client| {
            find_coordinator(client).await;
            while commit(client).await != ErrorCode::NONE {}
        });
        let disk = world.disk();
        for left in [0, 50] {
            fill(&disk, left);
            let refused = world.produce(0, b"refused");
            assert_eq!(refused, (ErrorCode::KAFKA_STORAGE_ERROR, -1));
            assert_eq!(world.read(0, 0).unwrap(), [b"before"]);
            let refused = world.create("other", 1, false);
            assert_eq!(refused, ErrorCode::KAFKA_STORAGE_ERROR);
            let refused = world.talk(async |client| commit(client).await);
            assert_eq!(refused, ErrorCode::NOT_COORDINATOR);
            // Checkpoints and background work run into it, too.
            world.sim.run_for(Duration::from_secs(70));
            assert_eq!(world.log_dirs()["/data"].0, ErrorCode::NONE);
        }
        disk.set_capacity_bytes(u64::MAX);
        assert_eq!(world.produce(0, b"after"), (ErrorCode::NONE, 1));
        assert_eq!(world.create("other", 1, false), ErrorCode::NONE);
        let committed = world.talk(async |client| commit(client).await);
        assert_eq!(committed, ErrorCode::NONE);
        let values = [&b"before"[..], b"after"];
        assert_eq!(world.read(0, 0).unwrap(), values);
        world.restart();
        assert_eq!(world.read(0, 0).unwrap(), values);
    });
}

#[test]
fn a_topic_whose_logs_have_no_space_is_there_once_there_is_some() {
    with_node("", |world| {
        world.boot();
        // For the metadata, but hardly for a log as well.
        let mut left = 300;
        fill(&world.disk(), left);
        while world.create(TOPIC, 9, false) == ErrorCode::KAFKA_STORAGE_ERROR {
            left += 20;
            fill(&world.disk(), left);
        }
        let refused = (0..9).filter(|p| world.produce(*p, &[b'x'; 2_000]).0 != ErrorCode::NONE);
        assert_eq!(refused.count(), 9);
        world.disk().set_capacity_bytes(u64::MAX);
        world.sim.run_for(Duration::from_secs(2));
        for partition in 0..9 {
            assert_eq!(world.produce(partition, b"x"), (ErrorCode::NONE, 0));
        }
    });
}

fn a_directory_goes_offline(what: Fails) {
    with_node(TWO_DIRS, |world| {
        world.boot();
        assert_eq!(world.create(TOPIC, 6, true), ErrorCode::NONE);
        let (in_a, in_b) = (world.partitions_in("/a"), world.partitions_in("/b"));
        assert_eq!((in_a.len(), in_b.len()), (3, 3), "each has as many");
        for partition in 0..6 {
            assert_eq!(world.produce(partition, b"kept"), (ErrorCode::NONE, 0));
        }
        world.disk().break_down("/a", what.clone());
        let first = *in_a.first().unwrap();
        let refused = world.produce(first, b"not acknowledged").0;
        assert_eq!(refused, ErrorCode::KAFKA_STORAGE_ERROR);
        world.disk().mend();
        world.sim.run_for(Duration::from_millis(100));
        // For good, with every partition in it.
        for partition in &in_a {
            let refused = world.produce(*partition, b"refused");
            assert_eq!(refused, (ErrorCode::KAFKA_STORAGE_ERROR, -1));
            assert_eq!(
                world.read(*partition, 0),
                Err(ErrorCode::KAFKA_STORAGE_ERROR)
            );
        }
        for partition in &in_b {
            assert_eq!(world.produce(*partition, b"goes on"), (ErrorCode::NONE, 1));
        }
        for (partition, told) in world.leaders() {
            let is_offline = in_a.contains(&partition);
            let expected = if is_offline {
                (-1, vec![1])
            } else {
                (1, vec![])
            };
            assert_eq!((told.leader_id, told.offline_replicas), expected);
        }
        let dirs = world.log_dirs();
        assert_eq!(dirs["/a"].0, ErrorCode::KAFKA_STORAGE_ERROR);
        assert_eq!((dirs["/b"].0, &dirs["/b"].2), (ErrorCode::NONE, &in_b));
        // New ones go where they can.
        assert_eq!(world.create("other", 2, false), ErrorCode::NONE);

        world.restart();
        for partition in &in_a {
            assert_eq!(world.read(*partition, 0).unwrap()[0], b"kept");
            assert_eq!(world.produce(*partition, b"again").0, ErrorCode::NONE);
        }
        assert_eq!(world.partitions_in("/a"), in_a);
    });
}

#[test]
fn a_failed_sync_takes_its_directory_offline() {
    a_directory_goes_offline(Fails::Syncs);
}

#[test]
fn a_failed_write_takes_its_directory_offline() {
    a_directory_goes_offline(Fails::Writes);
}

#[test]
fn a_directory_that_is_bad_at_the_start_is_left_out() {
    with_node(TWO_DIRS, |world| {
        world.boot();
        assert_eq!(world.create(TOPIC, 4, false), ErrorCode::NONE);
        for partition in 0..4 {
            assert_eq!(world.produce(partition, b"kept"), (ErrorCode::NONE, 0));
        }
        let (in_a, in_b) = (world.partitions_in("/a"), world.partitions_in("/b"));
        world.disk().break_down("/a", Fails::Writes);
        world.restart();
        for partition in &in_a {
            assert_eq!(
                world.read(*partition, 0),
                Err(ErrorCode::KAFKA_STORAGE_ERROR)
            );
            assert_eq!(world.leaders()[partition].leader_id, -1);
        }
        for partition in &in_b {
            assert_eq!(world.produce(*partition, b"goes on"), (ErrorCode::NONE, 1));
        }
        assert_eq!(world.log_dirs()["/a"].0, ErrorCode::KAFKA_STORAGE_ERROR);
        world.disk().mend();
        world.restart();
        for partition in 0..4 {
            assert_eq!(world.read(partition, 0).unwrap()[0], b"kept");
        }
        assert_eq!(world.partitions_in("/a"), in_a);
    });
}

#[test]
fn what_cannot_be_read_is_refused_and_the_rest_goes_on() {
    with_node("", |world| {
        world.boot();
        assert_eq!(world.create(TOPIC, 2, false), ErrorCode::NONE);
        for offset in 0..3 {
            assert_eq!(world.produce(0, &[b'x'; 600]), (ErrorCode::NONE, offset));
        }
        assert_eq!(world.produce(1, b"other"), (ErrorCode::NONE, 0));
        // Nothing of it is in memory afterwards.
        world.restart();
        let log = Path::new("/data/t-0/00000000000000000000.log");
        world.disk().break_down(log, Fails::Reads(0..512));
        assert_eq!(world.read(0, 0), Err(ErrorCode::KAFKA_STORAGE_ERROR));
        assert_eq!(world.read(1, 0).unwrap(), [b"other"]);
        assert_eq!(world.produce(0, b"goes on"), (ErrorCode::NONE, 3));
        assert_eq!(world.read(0, 3).unwrap(), [b"goes on"]);
        world.disk().mend();
        assert_eq!(world.read(0, 0).unwrap().len(), 4);
    });
}

#[test]
fn a_bad_sector_refuses_its_records_and_no_others() {
    with_node("", |world| {
        world.boot();
        assert_eq!(world.create(TOPIC, 1, false), ErrorCode::NONE);
        for offset in 0..60 {
            assert_eq!(world.produce(0, &[b'x'; 600]), (ErrorCode::NONE, offset));
        }
        world.stop_cleanly();
        world.boot();
        let log = Path::new("/data/t-0/00000000000000000000.log");
        let file = world.disk().open(log, OpenMode::Read).unwrap();
        let batch_bytes = file.len().unwrap() / 60;
        let at = 30 * batch_bytes + 100;
        world.disk().break_down(log, Fails::Reads(at..at + 1));
        // A read that comes upon it brings what is before.
        assert_eq!(world.read(0, 0).unwrap().len(), 30);
        assert_eq!(world.read(0, 30), Err(ErrorCode::KAFKA_STORAGE_ERROR));
        assert_eq!(world.read(0, 31).unwrap().len(), 29);
        assert_eq!(world.list_offset(0, -2), (ErrorCode::NONE, 0));
        assert_eq!(world.list_offset(0, -1), (ErrorCode::NONE, 60));
        assert_eq!(world.log_dirs()["/data"].0, ErrorCode::NONE);
        assert_eq!(world.produce(0, b"goes on"), (ErrorCode::NONE, 60));
        world.disk().mend();
        assert_eq!(world.read(0, 30).unwrap().len(), 31);
    });
}

#[test]
fn a_flipped_bit_refuses_its_records_until_they_are_deleted() {
    with_node("", |world| {
        world.boot();
        assert_eq!(world.create(TOPIC, 1, false), ErrorCode::NONE);
        for offset in 0..60 {
            assert_eq!(world.produce(0, &[b'x'; 600]), (ErrorCode::NONE, offset));
        }
        world.stop_cleanly();
        let log = Path::new("/data/t-0/00000000000000000000.log");
        let file = world.disk().open(log, OpenMode::Read).unwrap();
        let batch_bytes = file.len().unwrap() / 60;
        world.disk().rot(log, 30 * batch_bytes + 100).unwrap();
        world.boot();
        let check = |start: i64| {
            assert_eq!(world.read(0, 31).unwrap().len(), 29);
            assert_eq!(world.list_offset(0, -2), (ErrorCode::NONE, start));
            assert_eq!(world.list_offset(0, -1), (ErrorCode::NONE, 60));
            assert_eq!(world.log_dirs()["/data"].0, ErrorCode::NONE);
        };
        assert_eq!(world.read(0, 0).unwrap().len(), 30);
        assert_eq!(world.read(0, 30), Err(ErrorCode::CORRUPT_MESSAGE));
        check(0);
        // It is damage after a kill as well: what follows stays.
        world.sim.crash(world.server);
        world.boot();
        assert_eq!(world.read(0, 30), Err(ErrorCode::CORRUPT_MESSAGE));
        check(0);
        assert_eq!(world.delete_records(0, 31), (ErrorCode::NONE, 31));
        assert_eq!(world.read(0, 30), Err(ErrorCode::OFFSET_OUT_OF_RANGE));
        check(31);
        world.stop_cleanly();
        world.boot();
        check(31);
        assert_eq!(world.produce(0, b"goes on"), (ErrorCode::NONE, 60));
    });
}

#[test]
fn a_stalled_disk_holds_up_only_who_waits_for_it() {
    with_node("", |world| {
        world.boot();
        assert_eq!(world.create(TOPIC, 1, true), ErrorCode::NONE);
        assert_eq!(world.produce(0, b"quick"), (ErrorCode::NONE, 0));
        world.disk().set_sync_delay(Duration::from_secs(40));
        // The acknowledgement is too late; nobody reads the record before it is durable.
        assert_eq!(world.produce(0, b"slow").0, ErrorCode::REQUEST_TIMED_OUT);
        assert_eq!(world.read(0, 0).unwrap(), [b"quick"]);
        world.disk().set_sync_delay(Duration::ZERO);
        world.sim.run_for(Duration::from_secs(60));
        assert_eq!(world.read(0, 0).unwrap(), [&b"quick"[..], b"slow"]);
        assert_eq!(world.produce(0, b"quick again"), (ErrorCode::NONE, 2));
    });
}

#[test]
fn new_partitions_keep_out_of_cordoned_directories() {
    with_node(TWO_DIRS, |world| {
        world.boot();
        assert_eq!(world.cordon("/a"), ErrorCode::NONE);
        assert_eq!(world.create(TOPIC, 4, false), ErrorCode::NONE);
        let dirs = world.log_dirs();
        assert_eq!(dirs["/a"], (ErrorCode::NONE, true, BTreeSet::new()));
        assert_eq!(dirs["/b"].2.len(), 4);
        assert_eq!(world.produce(0, b"x"), (ErrorCode::NONE, 0));
        assert_eq!(world.cordon("*"), ErrorCode::NONE);
        world.sim.run_for(Duration::from_secs(1));
        assert_eq!(
            world.create("other", 1, false),
            ErrorCode::INVALID_REPLICATION_FACTOR
        );
        world.restart();
        assert!(world.log_dirs()["/b"].1);
        assert_eq!(world.cordon(""), ErrorCode::NONE);
        world.sim.run_for(Duration::from_secs(1));
        assert_eq!(world.create("other", 1, false), ErrorCode::NONE);
    });
}

/// So many records, each with its number.
fn fill_partition(world: &World<'_>, partition: i32, count: i64) {
    fill_later(world, partition, 0, count);
}

fn fill_later(world: &World<'_>, partition: i32, from: i64, to: i64) {
    world.talk(async move |client| {
        for number in from..to {
            let produced = produce(client, partition, &numbered(number)).await;
            assert_eq!(produced, (ErrorCode::NONE, number));
        }
    });
}

/// Eight of them are copied at a time.
fn numbered(number: i64) -> Vec<u8> {
    format!("{number:8000}").into_bytes()
}

fn numbers(count: i64) -> Vec<Vec<u8>> {
    (0..count).map(numbered).collect()
}

#[test]
fn a_replica_moves_to_another_directory_while_it_serves() {
    with_node(TWO_DIRS, |world| {
        world.boot();
        assert_eq!(world.create(TOPIC, 2, false), ErrorCode::NONE);
        let partition = *world.partitions_in("/a").first().unwrap();
        fill_partition(world, partition, 50);
        let unknown = world.move_to(partition, "/elsewhere");
        assert_eq!(unknown, ErrorCode::LOG_DIR_NOT_FOUND);
        let nowhere = world.move_to(7, "/b");
        assert_eq!(nowhere, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        assert_eq!(world.cordon("/b"), ErrorCode::NONE);
        let cordoned = world.move_to(partition, "/b");
        assert_eq!(cordoned, ErrorCode::INVALID_REPLICA_ASSIGNMENT);
        assert_eq!(world.cordon(""), ErrorCode::NONE);

        assert_eq!(world.move_to(partition, "/b"), ErrorCode::NONE);
        fill_later(world, partition, 50, 80);
        world.sim.run_for(Duration::from_secs(2));
        assert_eq!(world.partitions_in("/b").len(), 2);
        assert_eq!(world.partitions_in("/a").len(), 0);
        assert_eq!(world.read(partition, 0).unwrap(), numbers(80));
        // The old files go after a minute.
        world.sim.run_for(Duration::from_secs(70));
        assert_eq!(
            world.dirs_of(partition),
            [format!("/b/{TOPIC}-{partition}")]
        );
        world.restart();
        assert_eq!(world.partitions_in("/b").len(), 2);
        assert_eq!(world.read(partition, 0).unwrap(), numbers(80));
        // And back again.
        assert_eq!(world.move_to(partition, "/a"), ErrorCode::NONE);
        world.sim.run_for(Duration::from_secs(2));
        assert_eq!(world.partitions_in("/a").len(), 1);
        fill_later(world, partition, 80, 81);
        assert_eq!(world.read(partition, 0).unwrap(), numbers(81));
    });
}

/// A node with two directories and a partition in the first of them that has so many records;
/// nothing of it is copied unless the throttle goes.
fn with_throttled(count: i64, story: impl Fn(&World<'_>, i32)) {
    with_node(TWO_DIRS, |world| {
        world.boot();
        assert_eq!(world.create(TOPIC, 2, true), ErrorCode::NONE);
        let partition = *world.partitions_in("/a").first().unwrap();
        fill_partition(world, partition, count);
        assert_eq!(world.configure(THROTTLE, "1"), ErrorCode::NONE);
        assert_eq!(world.move_to(partition, "/b"), ErrorCode::NONE);
        world.sim.run_for(Duration::from_secs(2));
        assert_eq!(world.copies().len(), 1, "it waits for its turn");
        story(world, partition);
    });
}

const THROTTLE: &str = "replica.alter.log.dirs.io.max.bytes.per.second";
const ANY_RATE: &str = "9223372036854775807";

#[test]
fn a_move_is_throttled_and_ends_by_moving_back() {
    with_throttled(50, |world, partition| {
        fill_later(world, partition, 50, 60);
        assert_eq!(world.copies(), [(partition, "/b".to_owned(), true)]);
        assert!(world.partitions_in("/a").contains(&partition));
        let dirs = world.dirs_of(partition);
        assert!(dirs.iter().any(|dir| dir.ends_with("-future")), "{dirs:?}");

        assert_eq!(world.move_to(partition, "/a"), ErrorCode::NONE);
        world.sim.run_for(Duration::from_secs(2));
        assert_eq!(world.copies(), []);
        assert_eq!(
            world.dirs_of(partition),
            [format!("/a/{TOPIC}-{partition}")]
        );
        assert_eq!(world.read(partition, 0).unwrap(), numbers(60));
    });
}

#[test]
fn a_move_goes_on_after_a_restart() {
    with_throttled(50, |world, partition| {
        for lived in 0..3 {
            match lived {
                0 => world.restart(),
                _ => {
                    world.sim.crash(world.server);
                    world.sim.run_for(Duration::from_millis(50));
                    world.boot();
                }
            }
            fill_later(world, partition, 50 + lived * 10, 60 + lived * 10);
            assert_eq!(world.copies(), [(partition, "/b".to_owned(), true)]);
        }
        assert_eq!(world.configure(THROTTLE, ANY_RATE), ErrorCode::NONE);
        world.sim.run_for(Duration::from_secs(2));
        assert_eq!(world.copies(), []);
        assert!(world.partitions_in("/b").contains(&partition));
        assert_eq!(world.read(partition, 0).unwrap(), numbers(80));
    });
}

#[test]
fn a_move_that_a_crash_cuts_short_anywhere_loses_nothing() {
    const RECORDS: i64 = 20;
    let (mut there, mut here) = (0, 0);
    for operations in 0..60u64 {
        for end in [End::Kill, End::PowerCut] {
            sim::run(operations + 1, |sim| {
                let server = sim.add_node(DATA_CORES + 1);
                let clients = sim.add_node(1);
                let rt = sim.boot(clients).remove(0);
                let world = World {
                    sim,
                    server,
                    rt,
                    lines: TWO_DIRS,
                };
                world.boot();
                assert_eq!(world.create(TOPIC, 2, true), ErrorCode::NONE);
                let partition = *world.partitions_in("/a").first().unwrap();
                fill_partition(&world, partition, RECORDS);
                assert_eq!(world.move_to(partition, "/b"), ErrorCode::NONE);
                sim.end_after(server, operations, end);
                sim.run_for(Duration::from_secs(1));
                let dirs = world.dirs_of(partition);
                let was_swapped = dirs.contains(&format!("/b/{TOPIC}-{partition}"));
                there += usize::from(was_swapped);
                here += usize::from(!was_swapped);
                if sim.is_up(server) {
                    sim.crash(server);
                }
                sim.run_for(Duration::from_millis(50));
                world.boot();
                let values = world.read(partition, 0).unwrap();
                assert_eq!(values, numbers(RECORDS), "after {operations} operations");
                fill_later(&world, partition, RECORDS, RECORDS + 1);
                // If enough of the copy was there it goes on.
                sim.run_for(Duration::from_secs(2));
                assert_eq!(world.copies(), [], "after {operations} operations");
                let dirs = world.dirs_of(partition);
                let is_future = |dir: &String| dir.ends_with("-future");
                assert!(!dirs.iter().any(is_future), "{dirs:?}");
                let live = dirs.iter().filter(|dir| !dir.contains('.'));
                assert_eq!(live.count(), 1, "{dirs:?}");
                world.restart();
                let values = world.read(partition, 0).unwrap();
                assert_eq!(values, numbers(RECORDS + 1));
            });
        }
    }
    println!("cut short {here} times before the swap, {there} times after it");
    assert!(here > 5 && there > 5);
}
