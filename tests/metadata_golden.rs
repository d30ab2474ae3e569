//! Metadata logs and snapshots that Apache Kafka 4.3.1 wrote, read by us: they must give
//! the image that Kafka's own tools describe. `tests/golden/metadata/README.md` tells how
//! the files came about.

use std::collections::BTreeMap;
use std::path::Path;

use ottla::base::{BrokerId, LeaderEpoch, Offset, PartitionIndex, Uuid};
use ottla::metadata::bootstrap::parse_bootstrap;
use ottla::metadata::snapshot::{image_of_values, image_records, image_values};
use ottla::metadata::{
    BatchOrigin, ConfigResourceType, ImageChanges, MetadataImage, MetadataLoader, MetadataRecord,
    Provenance,
};
use ottla::raft::checkpoint::{Checkpoint, Contents, read_batch};
use ottla::raft::{ControlRecord, VoterSet};
use ottla::record::Batches;

fn golden(name: &str) -> Vec<u8> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/metadata");
    std::fs::read(directory.join(name)).unwrap()
}

/// Replays a log; the loader and all control records.
fn load(log: &[u8]) -> (MetadataLoader, Vec<ControlRecord>) {
    let mut loader = MetadataLoader::new(MetadataImage::default());
    let mut control = Vec::new();
    for batch in Batches::new(log) {
        let batch = batch.unwrap();
        assert!(batch.verify_crc());
        let origin = BatchOrigin {
            base_offset: batch.base_offset(),
            last_offset: batch.last_offset(),
            leader_epoch: batch.partition_leader_epoch().0,
            timestamp_ms: batch.max_timestamp(),
        };
        match read_batch(&batch).unwrap() {
            Contents::Control(records) => {
                control.extend(records);
                loader.skip_batch(origin);
            }
            Contents::Data(values) => {
                let decode = |value| MetadataRecord::decode(value).unwrap();
                let records: Vec<_> = values.iter().map(decode).collect();
                // What we read we write again, byte for byte.
                let version = ottla::metadata::MetadataVersion::LATEST;
                for (record, value) in records.iter().zip(&values) {
                    assert_eq!(record.encode(version).unwrap(), value);
                }
                loader.replay_batch(origin, &records).unwrap();
            }
        }
    }
    (loader, control)
}

fn default_features() -> MetadataImage {
    let (mut loader, _) = load(&golden("kafka-default-features.log"));
    loader.take().unwrap().0
}

#[test]
fn features_brokers_and_controllers() {
    let image = default_features();
    assert_eq!(image.provenance.offset, Offset(60));
    assert_eq!(image.provenance.epoch, 1);
    let features: BTreeMap<_, _> = image.features.iter().collect();
    assert_eq!(
        features,
        BTreeMap::from([
            ("metadata.version", 30),
            ("group.version", 1),
            ("share.version", 1),
            ("streams.version", 1),
            ("transaction.version", 2),
            ("eligible.leader.replicas.version", 1),
        ])
    );
    let broker = image.cluster.broker(BrokerId(1)).unwrap();
    assert_eq!(broker.epoch, 13);
    assert!(broker.fenced && broker.in_controlled_shutdown);
    assert_eq!(broker.rack.as_deref(), Some("r1"));
    assert_eq!(broker.listener("PLAINTEXT").unwrap().port, 39092);
    assert_eq!(broker.directories, [directory()]);
    assert_eq!(broker.cordoned.as_deref(), Some(&[][..]));
    assert_eq!(broker.features["kraft.version"], (0, 1));
    let controller = &image.cluster.controllers[&BrokerId(1)];
    assert_eq!(controller.listeners[0].port, 39093);
}

#[test]
fn topics_partitions_and_configs() {
    let image = default_features();
    let names: Vec<&str> = image.topics.iter().map(|topic| &*topic.name).collect();
    assert_eq!(names, ["t1", "t2"]);
    let topic = image.topics.by_name("t2").unwrap();
    assert_eq!(topic.id.to_string(), "EOFz4mBcSHWRFZDRz5XdWQ");
    assert_eq!(topic.partition_count(), 4);
    let partition = topic.partition(PartitionIndex(3)).unwrap();
    assert_eq!(partition.replicas, [BrokerId(1)]);
    assert_eq!(partition.directories, [directory()]);
    // Kafka was stopped: no leader, and the last replica in sync became eligible.
    assert_eq!(partition.leader, BrokerId::NONE);
    assert!(partition.isr.is_empty());
    assert_eq!(partition.elr, [BrokerId(1)]);
    assert_eq!(partition.last_known_elr, [BrokerId(1)]);
    assert_eq!(
        (partition.leader_epoch, partition.partition_epoch),
        (LeaderEpoch(1), 1)
    );

    let config = |kind, name: &str, key: &str| image.config(kind, name, key);
    let topic = ConfigResourceType::TOPIC;
    assert_eq!(
        config(topic, "t1", "cleanup.policy"),
        Some("compact,delete")
    );
    assert_eq!(config(topic, "t2", "max.message.bytes"), Some("1234567"));
    assert_eq!(config(topic, "t2", "flush.messages"), None);
    assert!(image.configs.get(topic, "t3").is_none(), "t3 was deleted");
    let broker = ConfigResourceType::BROKER;
    assert_eq!(config(broker, "", "log.retention.ms"), Some("99999999"));
    assert_eq!(config(broker, "1", "message.max.bytes"), Some("2000000"));
    let group = config(
        ConfigResourceType::GROUP,
        "g1",
        "consumer.session.timeout.ms",
    );
    assert_eq!(group, Some("50000"));
    let metrics = config(ConfigResourceType::CLIENT_METRICS, "cm1", "metrics");
    assert_eq!(metrics, Some("a,b"));
}

#[test]
fn what_is_only_carried() {
    let image = default_features();
    let quotas: Vec<_> = image.client_quotas.iter().collect();
    assert_eq!(quotas.len(), 2);
    let (entity, values) = quotas[0];
    assert_eq!(entity[0], ("client-id".to_owned(), Some("c1".to_owned())));
    assert_eq!(entity[1], ("user".to_owned(), None));
    assert_eq!(values["request_percentage"], 55.5);
    assert_eq!(quotas[1].1.len(), 1, "one of alice's quotas was taken away");
    let acls: Vec<_> = image
        .acls
        .values()
        .map(|acl| acl.principal.as_str())
        .collect();
    assert_eq!(acls.len(), 2);
    assert!(acls.contains(&"User:alice") && acls.contains(&"User:carl"));
    let users: Vec<_> = image.scram.keys().collect();
    assert_eq!(users, [&(1, "bob".to_owned())]);
    assert_eq!(image.scram.values().next().unwrap().iterations, 4096);
}

#[test]
fn a_node_of_the_features_that_we_finalize() {
    let (mut loader, control) = load(&golden("kafka-base-features.log"));
    let leader_changes = control
        .iter()
        .filter(|record| matches!(record, ControlRecord::LeaderChange(_)));
    assert_eq!(leader_changes.count(), 3);
    let (image, changes) = loader.take().unwrap();
    assert_eq!(image.provenance.epoch, 3);
    assert_eq!(image.next_producer_id, 1_000);
    let partition = image.topics.partition("a1", PartitionIndex(0)).unwrap();
    // Stopped and started, killed and started.
    assert_eq!(
        (partition.leader, partition.leader_epoch),
        (BrokerId(1), LeaderEpoch(4))
    );
    assert_eq!(partition.isr, [BrokerId(1)]);
    assert_eq!(image.cluster.broker(BrokerId(1)).unwrap().epoch, 31);

    assert_eq!(changes, ImageChanges::everything(&image));
    let local = changes.local_replicas(BrokerId(1));
    assert_eq!(local.leaders.len(), 3);
    assert!(local.followers.is_empty() && local.deletes.is_empty());
    assert!(
        local
            .leaders
            .iter()
            .all(|replica| replica.is_new_leader_epoch)
    );
    let nobody = changes.local_replicas(BrokerId(2));
    assert_eq!(nobody, Default::default());
}

#[test]
fn image_to_snapshot_to_image() {
    for name in ["kafka-default-features.log", "kafka-base-features.log"] {
        let (mut loader, _) = load(&golden(name));
        let image = loader.take().unwrap().0;
        let file = Checkpoint {
            values: image_values(&image),
            ..Default::default()
        }
        .to_bytes(LeaderEpoch(1), 5);
        let read = Checkpoint::parse(&file).unwrap();
        assert_eq!(
            image_of_values(&read.values, image.provenance).unwrap(),
            image
        );
    }
}

/// Kafka's snapshot of the log without its last record, and ours of the same state, hold
/// the same records.
#[test]
fn kafkas_snapshot_is_ours() {
    let file = Checkpoint::parse(&golden("kafka-default-features-60-1.checkpoint")).unwrap();
    assert_eq!(file.kraft_version, 1);
    let mut log = golden("kafka-default-features.log");
    let last = Batches::new(&log)
        .map(|b| b.unwrap().size_in_bytes())
        .last()
        .unwrap();
    log.truncate(log.len() - last);
    let (mut loader, control) = load(&log);
    let image = loader.take().unwrap().0;
    let provenance = Provenance {
        offset: Offset(59),
        epoch: 1,
        timestamp_ms: file.last_contained_log_timestamp_ms,
    };
    assert_eq!(image_of_values(&file.values, provenance).unwrap(), image);

    // Kafka's order within a kind of records is that of its hash tables.
    let kinds = |values: &[bytes::Bytes]| {
        let mut names: Vec<_> = values
            .iter()
            .map(|value| MetadataRecord::decode(value).unwrap().type_name())
            .collect();
        names.dedup();
        names
    };
    assert_eq!(kinds(&image_values(&image)), kinds(&file.values));
    assert_eq!(image_records(&image).len(), file.values.len());

    let voters = control.iter().find_map(|record| match record {
        ControlRecord::Voters(voters) => Some(VoterSet::from_record(voters)),
        _ => None,
    });
    assert_eq!(file.voters, voters);
    assert_eq!(
        voters.unwrap().get(BrokerId(1)).unwrap().key.directory,
        Some(directory())
    );
}

#[test]
fn files_that_format_writes() {
    let records = parse_bootstrap(&golden("kafka-bootstrap.checkpoint")).unwrap();
    assert_eq!(records.len(), 6);
    assert_eq!(
        records[0],
        MetadataRecord::feature_level("metadata.version", 30)
    );
    let file = golden("kafka-standalone-0-0.checkpoint");
    let checkpoint = Checkpoint::parse(&file).unwrap();
    assert_eq!(checkpoint.kraft_version, 1);
    assert!(checkpoint.values.is_empty());
    // With Kafka's times our bytes are Kafka's.
    let written_ms = Batches::new(&file).next().unwrap().unwrap().max_timestamp();
    let ours = checkpoint.to_bytes(LeaderEpoch(0), written_ms);
    let header_bytes = Batches::new(&file).next().unwrap().unwrap().size_in_bytes();
    assert_eq!(ours[..header_bytes], file[..header_bytes]);
    assert_eq!(ours.len(), file.len());
}

/// A transaction's records are seen all at once or never.
#[test]
fn a_log_that_ends_within_the_bootstrap_transaction() {
    let log = golden("kafka-base-features.log");
    let batches: Vec<_> = Batches::new(&log).map(Result::unwrap).collect();
    let Contents::Data(values) = read_batch(&batches[1]).unwrap() else {
        panic!("the second batch holds the bootstrap records");
    };
    let decode = |value| MetadataRecord::decode(value).unwrap();
    let records: Vec<_> = values.iter().map(decode).collect();
    let (begin, end) = records.split_at(records.len() - 1);
    let origin = |base_offset, last_offset| BatchOrigin {
        base_offset: Offset(base_offset),
        last_offset: Offset(last_offset),
        leader_epoch: 1,
        timestamp_ms: 1,
    };
    let mut loader = MetadataLoader::new(MetadataImage::default());
    loader.replay_batch(origin(3, 4), begin).unwrap();
    assert_eq!(loader.open_transaction(), Some(Offset(3)));
    assert!(loader.take().is_none());
    loader.replay_batch(origin(5, 5), end).unwrap();
    assert_eq!(loader.open_transaction(), None);
    let (image, changes) = loader.take().unwrap();
    assert_eq!(image.features.level("metadata.version"), 30);
    assert!(changes.features);
    assert_eq!(image.provenance.offset, Offset(5));
}

fn directory() -> Uuid {
    "M3J4iMOEQzSaNB-YP4FISw".parse().unwrap()
}
