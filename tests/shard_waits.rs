//! What takes long keeps nobody else waiting. On another core it holds no place in the mesh:
//! many more produces wait for replicas than calls may be unanswered, and what ends their
//! wait still gets through. On the same core it goes on in small steps.

#[path = "support/requests.rs"]
mod requests;

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use ottla::api;
use ottla::base::{
    BrokerId, CoreId, ErrorCode, LeaderEpoch, Offset, PartitionIndex, Rng, TopicIdPartition, Uuid,
};
use ottla::config::load;
use ottla::io::disk::RealDisk;
use ottla::io::local::or_deadline;
use ottla::io::{CoreConfig, Queue, Rt, run_core};
use ottla::log::{AppendOrigin, Log, LogConfig, OpenParams, TailPool};
use ottla::mesh::{PortSeed, mesh};
use ottla::metadata::{MetadataDelta, MetadataImage, MetadataRecord, Provenance};
use ottla::node::{self, storage};
use ottla::record::{BatchBuilder, BatchParams, CompressionType};
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
/// Requests that a ring of the mesh holds; four times as many may be unanswered.
const RING: usize = 2;
const PRODUCES: usize = 10 * 4 * RING;

fn partition(index: i32) -> TopicIdPartition {
    TopicIdPartition {
        topic_id: ID,
        partition: PartitionIndex(index),
    }
}

fn next(owner: CoreId, image: &MetadataImage, records: &[MetadataRecord]) -> Arc<Published> {
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
            owners: (0..2).map(|index| (partition(index), owner)).collect(),
            // One that the node does not know stands for its first.
            directories: (0..2).map(|index| (partition(index), Some(ID))).collect(),
        }),
    })
}

/// Two partitions on one core; the first has these replicas in sync.
fn first_image(owner: CoreId, in_sync: &[i32]) -> Arc<Published> {
    let topic = TopicRecord {
        name: "t".to_owned(),
        topic_id: ID,
    };
    let partition = |index, isr: &[i32]| -> MetadataRecord {
        PartitionRecord {
            partition_id: index,
            topic_id: ID,
            replicas: vec![1, 2],
            isr: isr.to_vec(),
            leader: 1,
            leader_epoch: 0,
            partition_epoch: 0,
            ..Default::default()
        }
        .into()
    };
    let records = [topic.into(), partition(0, in_sync), partition(1, &[1])];
    next(owner, &MetadataImage::default(), &records)
}

fn shrunk(owner: CoreId, image: &MetadataImage) -> Arc<Published> {
    let change = PartitionChangeRecord {
        partition_id: 0,
        topic_id: ID,
        isr: Some(vec![1]),
        ..Default::default()
    };
    next(owner, image, &[change.into()])
}

fn part(rt: &Rt, index: i32) -> ProducePart {
    let request = requests::produce("t", index, b"value");
    let records = request.topic_data[0].partition_data[0].records.as_deref();
    part_of(rt, index, records.expect("a batch"))
}

fn part_of(rt: &Rt, index: i32, records: &[u8]) -> ProducePart {
    ProducePart {
        acks: -1,
        deadline: rt.now() + PATIENCE,
        version: 9,
        partitions: [ProducePartition {
            slot: 0,
            partition: partition(index),
            records: BytesMut::from(records),
            buffer_bytes: records.len(),
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
async fn use_other_partition(shard: &Rc<Shard>) {
    let rt = shard.rt();
    let outcomes = produce::scatter(shard, part(rt, 1), &Traffic::default()).await;
    assert_eq!(outcomes[0].error, ErrorCode::NONE);
    let asked = FetchPartition {
        slot: 0,
        partition: partition(1),
        current_leader_epoch: LeaderEpoch::UNKNOWN,
        fetch_offset: Offset(0),
        last_fetched_epoch: LeaderEpoch::UNKNOWN,
        log_start_offset: Offset::UNKNOWN,
        partition_max_bytes: 1 << 20,
    };
    let fetch = Gather {
        read: FetchRead {
            max_bytes: 1 << 20,
            read_committed: false,
            replica: BrokerId::NONE,
            replica_epoch: -1,
            is_first: true,
            version: 12,
        },
        min_bytes: 1,
        deadline: rt.now() + PATIENCE,
        partitions: [asked].into_iter().collect(),
        refused: false,
        leave: None,
    };
    let answers = gather(shard, fetch).await;
    assert_eq!(answers[0].error, ErrorCode::NONE);
    assert!(answers[0].bytes > 0);
}

async fn wait_for_replicas(shard: Rc<Shard>, owner: CoreId) {
    let rt = shard.rt().clone();
    // The owner may have its image later than this core.
    while produce::scatter(&shard, part(&rt, 1), &Traffic::default()).await[0].error
        == ErrorCode::NOT_LEADER_OR_FOLLOWER
    {
        rt.yield_now().await;
    }
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
    use_other_partition(&shard).await;
    assert!(!shard.is_congested());
    assert_eq!(acknowledged.get(), 0);
    assert_eq!(shard.operations().len(), PRODUCES, "all wait");

    let image = shrunk(owner, &shard.image());
    let applied = shard.call(owner, ShardRequest::Publish(image)).await;
    assert!(matches!(applied, Ok(ShardReply::Done)));
    while acknowledged.get() < PRODUCES {
        rt.yield_now().await;
    }
    assert_eq!(shard.operations().len(), 0);
}

fn node(directory: &Path, cores: usize) -> Arc<Node> {
    let properties = format!(
        "process.roles=broker,controller\nnode.id=1\nlog.dirs={}\n\
         controller.listener.names=CONTROLLER\n\
         listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0\n\
         controller.quorum.voters=1@127.0.0.1:9093\n",
        directory.join("data").display()
    );
    let config = load::from_bytes(Path::new("test.properties"), properties.as_bytes(), &[])
        .expect("the properties are right")
        .node;
    let storage = storage::open(&RealDisk, &config, 1_700_000_000_000, &mut Rng::new(1))
        .expect("the directory can be formatted");
    node::shared(config, &storage, cores)
}

#[test]
fn produces_that_wait_for_replicas_keep_nobody_out_of_the_mesh() {
    const OWNER: CoreId = CoreId(1);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = node(directory.path(), 2);
    let mut cores = Vec::new();
    for seed in mesh(2, RING) {
        let node = node.clone();
        let core = run_core(CoreConfig::new(seed.core()), move |rt| async move {
            let shard = shard(&rt, seed, node);
            replicas::apply(&shard, first_image(OWNER, &[1, 2])).await;
            if rt.core() == OWNER {
                rt.stopping().await;
                return;
            }
            let at = rt.now() + PATIENCE;
            let in_time = or_deadline(&rt, wait_for_replicas(shard, OWNER), at).await;
            in_time.expect("no wait keeps out what ends it");
        });
        cores.push(core.expect("a core"));
    }
    let owner = cores.pop().expect("two cores");
    cores.pop().expect("two cores").join();
    owner.stopper().stop();
    owner.join();
}

/// CPU time of the calling thread.
fn thread_cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("this thread's");
    let micros = (usage.user_time() + usage.system_time()).num_microseconds();
    Duration::from_micros(micros.unsigned_abs())
}

/// Few bytes that decompress to very many, in one large record and many small ones.
fn bomb() -> (i64, Vec<u8>) {
    const SMALL: i64 = 20_000;
    let mut batch = BatchBuilder::new(BatchParams {
        compression: CompressionType::Gzip.into(),
        ..BatchParams::default()
    });
    batch.append(1_000, None, Some(&vec![0; 64 << 20]), &[]);
    for _ in 0..SMALL {
        batch.append(1_000, None, Some(&[0; 1_000]), &[]);
    }
    (1 + SMALL, batch.finish().to_vec())
}

#[test]
fn a_batch_that_decompresses_to_much_leaves_the_core_to_others_meanwhile() {
    const HERE: CoreId = CoreId(0);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = node(directory.path(), 1);
    let seed = mesh(1, RING).remove(0);
    let core = run_core(CoreConfig::new(HERE), move |rt| async move {
        let shard = shard(&rt, seed, node);
        replicas::apply(&shard, first_image(HERE, &[1])).await;
        let (count, records) = bomb();
        assert!(records.len() < 200_000);
        let offsets = Rc::new(RefCell::new(Vec::new()));
        // What comes behind it in the same partition keeps its place.
        for part in [part_of(&rt, 0, &records), part(&rt, 0)] {
            let (shard, offsets) = (shard.clone(), offsets.clone());
            rt.spawn(Queue::Request, async move {
                let outcomes = produce::scatter(&shard, part, &Traffic::default()).await;
                assert_eq!(outcomes[0].error, ErrorCode::NONE);
                offsets.borrow_mut().push(outcomes[0].base_offset.0);
            });
        }
        let (mut rounds, before) = (0, thread_cpu());
        while offsets.borrow().len() < 2 {
            use_other_partition(&shard).await;
            rt.yield_now().await;
            rounds += 1;
        }
        assert_eq!(*offsets.borrow(), [0, count]);
        let used = thread_cpu() - before;
        println!("{rounds} rounds beside it in {used:?}");
        // A round comes between any two budgets of 500 µs, with a step on top of each.
        assert!(used > Duration::from_millis(20), "it was work: {used:?}");
        assert!(
            used < Duration::from_millis(2) * rounds,
            "{rounds} in {used:?}"
        );
    });
    core.expect("a core").join();
}

/// Writes a log that was never closed.
fn write_log(directory: &Path, batches: i64) {
    let params = OpenParams {
        topic_id: Some(ID),
        ..OpenParams::default()
    };
    let pool = TailPool::new(1 << 20);
    let path = directory.join("data/t-0");
    let (disk, config) = (Rc::new(RealDisk), LogConfig::default());
    let (mut log, _) = Log::open(disk, &path, config, &params, &pool, 1).expect("a new log");
    let mut batch = BatchBuilder::new(BatchParams::default());
    batch.append(1_000, None, Some(&[7; 500]), &[]);
    let batch = batch.finish();
    for _ in 0..batches {
        log.append_own(batch.clone(), LeaderEpoch(0), AppendOrigin::Client, 1)
            .expect("it is appended");
    }
}

#[test]
fn a_log_that_is_recovered_leaves_the_core_to_others_meanwhile() {
    const HERE: CoreId = CoreId(0);
    const BATCHES: i64 = 30_000;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = node(directory.path(), 1);
    write_log(directory.path(), BATCHES);
    let seed = mesh(1, RING).remove(0);
    let core = run_core(CoreConfig::new(HERE), move |rt| async move {
        let shard = shard(&rt, seed, node);
        let (applied, before) = (Rc::new(Cell::new(false)), thread_cpu());
        let (applying, done) = (shard.clone(), applied.clone());
        rt.spawn(Queue::Request, async move {
            replicas::apply(&applying, first_image(HERE, &[1])).await;
            done.set(true);
        });
        let mut rounds = 0;
        while !applied.get() {
            assert!(
                shard.partition(partition(0)).is_none(),
                "all at once, in the end"
            );
            rt.yield_now().await;
            rounds += 1;
        }
        let used = thread_cpu() - before;
        println!("{rounds} rounds beside it in {used:?}");
        let found = shard.partition(partition(0)).expect("it is served");
        assert_eq!(found.borrow().log().log_end_offset(), Offset(BATCHES));
        assert!(used > Duration::from_millis(20), "it was work: {used:?}");
        assert!(
            used < Duration::from_millis(2) * rounds,
            "{rounds} in {used:?}"
        );
    });
    core.expect("a core").join();
}
