//! What waits for long on another core holds no place in the mesh: many more produces wait
//! for replicas than calls may be unanswered, and what ends their wait still gets through.

#[path = "support/requests.rs"]
mod requests;

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use ottla::api;
use ottla::base::{
    BrokerId, CoreId, ErrorCode, LeaderEpoch, Offset, PartitionIndex, Rng, TopicIdPartition, Uuid,
};
use ottla::config::load;
use ottla::io::disk::RealDisk;
use ottla::io::local::or_deadline;
use ottla::io::{CoreConfig, Queue, Rt, run_core};
use ottla::mesh::{PortSeed, mesh};
use ottla::metadata::{MetadataDelta, MetadataImage, MetadataRecord, Provenance};
use ottla::node::{self, storage};
use ottla::shard::fetch::{Gather, gather};
use ottla::shard::messages::{
    FetchPartition, FetchRead, Placement, ProducePart, ProducePartition, Published, ShardReply,
    ShardRequest,
};
use ottla::shard::traffic::Traffic;
use ottla::shard::{Node, Shard, produce, replicas, serve_mesh};
use ottla::wire::messages::{PartitionChangeRecord, PartitionRecord, TopicRecord};

const ID: Uuid = Uuid([7; 16]);
const PATIENCE: Duration = Duration::from_secs(60);
const OWNER: CoreId = CoreId(1);
/// Requests that a ring of the mesh holds; four times as many may be unanswered.
const RING: usize = 2;
const PRODUCES: usize = 10 * 4 * RING;

fn partition(index: i32) -> TopicIdPartition {
    TopicIdPartition {
        topic_id: ID,
        partition: PartitionIndex(index),
    }
}

fn next(image: &MetadataImage, records: &[MetadataRecord]) -> Arc<Published> {
    let mut delta = MetadataDelta::new(image);
    for record in records {
        delta.replay(record).expect("it fits the image");
    }
    let (image, changes) = delta.apply(Provenance {
        offset: image.provenance.offset + records.len() as i64,
        epoch: 1,
        timestamp_ms: 1,
    });
    Arc::new(Published {
        image: Arc::new(image),
        changes: Arc::new(changes),
        placement: Arc::new(Placement {
            owners: (0..2).map(|index| (partition(index), OWNER)).collect(),
        }),
    })
}

/// Partition 0 waits for a second replica, partition 1 for none.
fn first_image() -> Arc<Published> {
    let topic = TopicRecord {
        name: "t".to_owned(),
        topic_id: ID,
    };
    let partition = |index, isr: Vec<i32>| -> MetadataRecord {
        PartitionRecord {
            partition_id: index,
            topic_id: ID,
            replicas: vec![1, 2],
            isr,
            leader: 1,
            leader_epoch: 0,
            partition_epoch: 0,
            ..Default::default()
        }
        .into()
    };
    let records = [
        topic.into(),
        partition(0, vec![1, 2]),
        partition(1, vec![1]),
    ];
    next(&MetadataImage::default(), &records)
}

fn shrunk(image: &MetadataImage) -> Arc<Published> {
    let change = PartitionChangeRecord {
        partition_id: 0,
        topic_id: ID,
        isr: Some(vec![1]),
        ..Default::default()
    };
    next(image, &[change.into()])
}

fn part(rt: &Rt, index: i32) -> ProducePart {
    let request = requests::produce("t", index, b"value");
    let records = request.topic_data[0].partition_data[0].records.as_deref();
    ProducePart {
        acks: -1,
        deadline: rt.now() + PATIENCE,
        version: 9,
        partitions: [ProducePartition {
            slot: 0,
            partition: partition(index),
            records: BytesMut::from(records.expect("a batch")),
        }]
        .into_iter()
        .collect(),
        ..ProducePart::default()
    }
}

fn shard(rt: &Rt, seed: PortSeed<ShardRequest, ShardReply>, node: Arc<Node>) -> Rc<Shard> {
    let shard = Shard::new(rt.clone(), node, &api::TABLE, seed.attach(rt));
    rt.spawn(Queue::Request, serve_mesh(shard.clone()));
    shard
}

/// Produces to partition 1, which is acknowledged at once, and reads it.
async fn use_the_same_ring(shard: &Rc<Shard>) {
    let rt = shard.rt();
    let outcomes = produce::scatter(shard, part(rt, 1), &Traffic::default()).await;
    assert_eq!(outcomes[0].error, ErrorCode::NONE);
    let asked = FetchPartition {
        slot: 0,
        partition: partition(1),
        current_leader_epoch: LeaderEpoch::UNKNOWN,
        fetch_offset: Offset(0),
        last_fetched_epoch: LeaderEpoch::UNKNOWN,
        partition_max_bytes: 1 << 20,
    };
    let fetch = Gather {
        read: FetchRead {
            max_bytes: 1 << 20,
            read_committed: false,
            replica: BrokerId::NONE,
            version: 12,
        },
        min_bytes: 1,
        deadline: rt.now() + PATIENCE,
        partitions: [asked].into_iter().collect(),
        refused: false,
    };
    let answers = gather(shard, fetch).await;
    assert_eq!(answers[0].error, ErrorCode::NONE);
    assert!(answers[0].bytes > 0);
}

async fn wait_for_replicas(shard: Rc<Shard>) {
    let rt = shard.rt().clone();
    let acknowledged = Rc::new(Cell::new(0));
    for _ in 0..PRODUCES {
        let (shard, acknowledged) = (shard.clone(), acknowledged.clone());
        rt.spawn(Queue::Request, async move {
            let part = part(shard.rt(), 0);
            let outcomes = produce::scatter(&shard, part, &Traffic::default()).await;
            assert_eq!(outcomes[0].error, ErrorCode::NONE);
            acknowledged.set(acknowledged.get() + 1);
        });
    }
    use_the_same_ring(&shard).await;
    assert!(!shard.is_congested());
    assert_eq!(acknowledged.get(), 0);
    assert_eq!(shard.operations().len(), PRODUCES, "all wait");

    let image = shrunk(&shard.image());
    let applied = shard.call(OWNER, ShardRequest::Publish(image)).await;
    assert!(matches!(applied, Ok(ShardReply::Done)));
    while acknowledged.get() < PRODUCES {
        rt.yield_now().await;
    }
    assert_eq!(shard.operations().len(), 0);
}

#[test]
fn produces_that_wait_for_replicas_keep_nobody_out_of_the_mesh() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let properties = format!(
        "process.roles=broker,controller\nnode.id=1\nlog.dirs={}\n\
         controller.listener.names=CONTROLLER\n\
         listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0\n\
         controller.quorum.voters=1@127.0.0.1:9093\n",
        directory.path().join("data").display()
    );
    let config = load::from_bytes(Path::new("test.properties"), properties.as_bytes(), &[])
        .expect("the properties are right")
        .node;
    let storage = storage::open(&RealDisk, &config, 1_700_000_000_000, &mut Rng::new(1))
        .expect("the directory can be formatted");
    let node = node::shared(config, &storage, 2);
    let mut cores = Vec::new();
    for seed in mesh(2, RING) {
        let node = node.clone();
        let core = run_core(CoreConfig::new(seed.core()), move |rt| async move {
            let shard = shard(&rt, seed, node);
            replicas::apply(&shard, first_image());
            if rt.core() == OWNER {
                rt.stopping().await;
                return;
            }
            let at = rt.now() + PATIENCE;
            let in_time = or_deadline(&rt, wait_for_replicas(shard), at).await;
            in_time.expect("no wait keeps out what ends it");
        });
        cores.push(core.expect("a core"));
    }
    let owner = cores.pop().expect("two cores");
    cores.pop().expect("two cores").join();
    owner.stopper().stop();
    owner.join();
}
