//! A partition that is led here, with followers and a controller that are scripts: a core
//! serves real requests in the simulated world, and every fetch, image and answer of the
//! controller comes when the test says.

#[path = "support/requests.rs"]
mod requests;
#[path = "support/sim_client.rs"]
mod sim_client;

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ottla::base::{CoreId, ErrorCode, PartitionIndex, TopicIdPartition, Uuid};
use ottla::config::load;
use ottla::io::{Queue, Rt};
use ottla::mesh::Port;
use ottla::metadata::{MetadataDelta, MetadataImage, MetadataRecord, Provenance};
use ottla::node::{self, storage};
use ottla::replica::isr::{Accepted, Answer, Proposal};
use ottla::shard::messages::{ListenerSpec, Placement, Published, ShardReply, ShardRequest};
use ottla::sim::{self, NodeId, Sim};
use ottla::wire::ApiKey;
use ottla::wire::codec::Message;
use ottla::wire::messages::fetch_request::{FetchPartition, FetchTopic, ReplicaState};
use ottla::wire::messages::fetch_response::PartitionData;
use ottla::wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use ottla::wire::messages::{
    ConfigRecord, FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse,
    PartitionChangeRecord, PartitionRecord, ProduceResponse, RegisterBrokerRecord, TopicRecord,
};
use sim_client::Client;

const TOPIC: &str = "t";
const ID: Uuid = Uuid([7; 16]);
const PARTITION: TopicIdPartition = TopicIdPartition {
    topic_id: ID,
    partition: PartitionIndex(0),
};
const PORT: u16 = 9092;
const DATA_CORE: CoreId = CoreId(0);
const LAG_MAX: Duration = Duration::from_secs(10);
const LINES: &str = "replica.lag.time.max.ms=10000\n";
/// Longer than any answer takes that nothing holds back.
const SOON: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(60);
/// Registration epochs of brokers are ten times their ids.
const EPOCH_FACTOR: i64 = 10;

type MeshPort = Port<ShardRequest, ShardReply>;

struct Scene<'a> {
    sim: &'a Sim,
    clients: Rt,
    at: SocketAddr,
    controller: Rt,
    port: MeshPort,
    proposals: Rc<RefCell<Vec<Proposal>>>,
    image: RefCell<MetadataImage>,
}

impl<'a> Scene<'a> {
    /// Broker 1 leads the only partition; this is its ISR.
    fn start(sim: &'a Sim, isr: &[i32], configs: &[(&str, &str)]) -> Scene<'a> {
        let server = sim.add_node(2);
        let at = SocketAddr::new(sim.ip(server), PORT);
        let (controller, port) = boot(sim, server);
        let machine = sim.add_node(1);
        let scene = Scene {
            sim,
            clients: sim.boot(machine).remove(0),
            at,
            controller,
            port,
            proposals: Rc::default(),
            image: RefCell::default(),
        };
        scene.serve_as_controller();
        let topic = TopicRecord {
            name: TOPIC.to_owned(),
            topic_id: ID,
        };
        let partition = PartitionRecord {
            partition_id: 0,
            topic_id: ID,
            replicas: vec![1, 2, 3],
            isr: isr.to_vec(),
            leader: 1,
            leader_epoch: 0,
            partition_epoch: 0,
            ..Default::default()
        };
        let mut records: Vec<MetadataRecord> = (1..=3).map(registration).collect();
        records.extend([topic.into(), partition.into()]);
        records.extend(configs.iter().map(|(name, value)| {
            ConfigRecord {
                resource_type: 2,
                resource_name: TOPIC.to_owned(),
                name: (*name).to_owned(),
                value: Some((*value).to_owned()),
            }
            .into()
        }));
        scene.publish(&records);
        let listener = ListenerSpec {
            name: "PLAINTEXT".into(),
            address: at,
        };
        let listening = scene.call(ShardRequest::Listen(vec![listener]));
        assert!(matches!(listening, ShardReply::Listening(Ok(()))));
        scene
    }

    fn serve_as_controller(&self) {
        let (port, proposals) = (self.port.clone(), self.proposals.clone());
        self.controller.spawn(Queue::Request, async move {
            loop {
                let (_, request, slot) = port.next_request().await;
                if let ShardRequest::ProposeIsr(proposed) = request {
                    let (id, proposal) = *proposed;
                    assert_eq!(id, PARTITION);
                    proposals.borrow_mut().push(proposal);
                    slot.reply(ShardReply::Done);
                }
            }
        });
    }

    fn call(&self, request: ShardRequest) -> ShardReply {
        let port = self.port.clone();
        let call = async move { port.call(DATA_CORE, request).await };
        let reply = self.sim.block_on(&self.controller, PATIENCE, call);
        reply.expect("the core is there")
    }

    fn publish(&self, records: &[MetadataRecord]) {
        let mut image = self.image.borrow_mut();
        let mut delta = MetadataDelta::new(&image);
        for record in records {
            delta.replay(record).expect("it fits the image");
        }
        let (next, changes) = delta.apply(Provenance {
            offset: image.provenance.offset + records.len() as i64,
            epoch: 1,
            timestamp_ms: 1,
        });
        *image = next.clone();
        let published = Published {
            image: Arc::new(next),
            changes: Arc::new(changes),
            placement: Arc::new(Placement {
                owners: [(PARTITION, DATA_CORE)].into(),
                // One that the node does not know stands for its first.
                directories: [(PARTITION, Some(ID))].into(),
            }),
        };
        let reply = self.call(ShardRequest::Publish(Arc::new(published)));
        assert!(matches!(reply, ShardReply::Done));
    }

    fn change(&self, change: PartitionChangeRecord) {
        let change = PartitionChangeRecord {
            partition_id: 0,
            topic_id: ID,
            ..change
        };
        self.publish(&[change.into()]);
    }

    /// The controller accepts the last proposal, as this partition epoch.
    fn accept(&self, partition_epoch: i32) {
        let proposal = self.proposals.borrow().last().cloned();
        let proposal = proposal.expect("there is one");
        let accepted = Accepted {
            leader_epoch: proposal.leader_epoch,
            partition_epoch,
            isr: proposal.isr.iter().map(|(id, _)| *id).collect(),
        };
        self.answer(&proposal, Ok(accepted));
    }

    fn answer(&self, proposal: &Proposal, result: Result<Accepted, ErrorCode>) {
        let answer = Answer {
            leader_epoch: proposal.leader_epoch,
            partition_epoch: proposal.partition_epoch,
            result,
        };
        let answers = ShardRequest::IsrAnswers(vec![(PARTITION, answer)]);
        assert!(matches!(self.call(answers), ShardReply::Done));
    }

    /// The members of each proposal so far.
    fn proposed(&self) -> Vec<Vec<i32>> {
        let members = |proposal: &Proposal| proposal.isr.iter().map(|(id, _)| id.0).collect();
        self.proposals.borrow().iter().map(members).collect()
    }

    /// Asks on a connection of its own, without waiting.
    fn begin<Q, R>(&self, api: ApiKey, version: i16, request: Q) -> Pending<R>
    where
        Q: Message + 'static,
        R: Message + 'static,
    {
        let answer = Rc::new(RefCell::new(None));
        let (to, asking) = (answer.clone(), self.ask(api, version, request));
        self.clients.spawn(Queue::Request, async move {
            let response = asking.await;
            *to.borrow_mut() = Some(response);
        });
        Pending(answer)
    }

    fn ask<Q: Message + 'static, R: Message>(
        &self,
        api: ApiKey,
        version: i16,
        request: Q,
    ) -> impl Future<Output = R> + use<Q, R> {
        let (rt, at) = (self.clients.clone(), self.at);
        async move {
            let mut client = Client::connect(&rt, at).await;
            let answer = client.ask(api, version, &request).await;
            answer.expect("it is answered")
        }
    }

    fn produce(&self, acks: i16) -> Pending<ProduceResponse> {
        let mut request = requests::produce(TOPIC, 0, b"value");
        request.acks = acks;
        let produced = self.begin(ApiKey::Produce, 9, request);
        self.sim.run_for(SOON);
        produced
    }

    fn begin_fetch(&self, asked: Asked) -> Pending<FetchResponse> {
        let fetching = self.begin(ApiKey::Fetch, 16, asked.request());
        self.sim.run_for(SOON);
        fetching
    }

    fn fetch(&self, asked: Asked) -> PartitionData {
        self.begin_fetch(asked).partition()
    }

    /// A follower fetches; gives the high watermark and the size of the records.
    fn follow(&self, id: i32, offset: i64) -> (i64, usize) {
        let found = self.fetch(Asked::by(id, offset));
        assert_eq!(found.error_code, 0);
        (found.high_watermark, size(&found))
    }

    /// A consumer's latest offset, or the error.
    fn latest(&self, version: i16) -> Result<i64, ErrorCode> {
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: TOPIC.to_owned(),
                partitions: vec![ListOffsetsPartition {
                    partition_index: 0,
                    current_leader_epoch: -1,
                    timestamp: -1,
                }],
            }],
            ..Default::default()
        };
        let asking = self.ask(ApiKey::ListOffsets, version, request);
        let response: ListOffsetsResponse = self.sim.block_on(&self.clients, PATIENCE, asking);
        let found = &response.topics[0].partitions[0];
        match found.error_code {
            0 => Ok(found.offset),
            error => Err(ErrorCode(error)),
        }
    }
}

fn registration(id: i32) -> MetadataRecord {
    RegisterBrokerRecord {
        broker_id: id,
        broker_epoch: i64::from(id) * EPOCH_FACTOR,
        fenced: false,
        ..Default::default()
    }
    .into()
}

/// One data core, and the controller's, which the test is.
fn boot(sim: &Sim, server: NodeId) -> (Rt, MeshPort) {
    let ip = sim.ip(server);
    let properties = format!(
        "process.roles=broker,controller\nnode.id=1\nlog.dirs=/data\n\
         controller.listener.names=CONTROLLER\n\
         listeners=PLAINTEXT://{ip}:{PORT},CONTROLLER://{ip}:9093\n\
         controller.quorum.voters=1@{ip}:9093\n{LINES}"
    );
    let config = load::from_bytes(Path::new("sim.properties"), properties.as_bytes(), &[])
        .expect("the properties are right")
        .node;
    let cores = sim.boot(server);
    let (data, controller) = (cores[0].clone(), cores[1].clone());
    let storage = storage::open(
        &*controller.disk(),
        &config,
        controller.wall_ms(),
        &mut controller.rng(),
    )
    .expect("the simulated disk works");
    let node = node::shared(config, &storage, 1);
    let mut seeds = node::wire_up(1);
    let port = seeds.remove(1).attach(&controller);
    let serving = node::data_core(data.clone(), seeds.remove(0), node);
    data.spawn(Queue::Request, serving);
    (controller, port)
}

/// A fetch of the partition that doesn't wait.
struct Asked {
    replica: i32,
    replica_epoch: i64,
    offset: i64,
    current_leader_epoch: i32,
    last_fetched_epoch: i32,
    max_wait_ms: i32,
}

impl Asked {
    /// As a follower asks that knows the first term.
    fn by(replica: i32, offset: i64) -> Asked {
        Asked {
            replica,
            replica_epoch: i64::from(replica) * EPOCH_FACTOR,
            offset,
            current_leader_epoch: 0,
            last_fetched_epoch: -1,
            max_wait_ms: 0,
        }
    }

    fn by_consumer(offset: i64) -> Asked {
        Asked {
            replica_epoch: -1,
            current_leader_epoch: -1,
            ..Asked::by(-1, offset)
        }
    }

    fn waiting(self) -> Asked {
        Asked {
            max_wait_ms: 30_000,
            ..self
        }
    }

    fn request(&self) -> FetchRequest {
        FetchRequest {
            max_wait_ms: self.max_wait_ms,
            min_bytes: 1,
            max_bytes: 1 << 20,
            session_epoch: -1,
            topics: vec![FetchTopic {
                topic_id: ID,
                partitions: vec![FetchPartition {
                    partition: 0,
                    current_leader_epoch: self.current_leader_epoch,
                    fetch_offset: self.offset,
                    last_fetched_epoch: self.last_fetched_epoch,
                    log_start_offset: if self.replica < 0 { -1 } else { 0 },
                    partition_max_bytes: 1 << 20,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            replica_state: ReplicaState {
                replica_id: self.replica,
                replica_epoch: self.replica_epoch,
            },
            ..Default::default()
        }
    }
}

fn size(data: &PartitionData) -> usize {
    data.records.as_ref().map_or(0, |records| records.len())
}

/// An answer that may come.
struct Pending<R>(Rc<RefCell<Option<R>>>);

impl<R> Pending<R> {
    fn is_open(&self) -> bool {
        self.0.borrow().is_none()
    }
}

impl Pending<ProduceResponse> {
    /// The offset, or the error.
    fn outcome(&self) -> Result<i64, ErrorCode> {
        let answer = self.0.borrow();
        let answer = answer.as_ref().expect("it is answered");
        let partition = &answer.responses[0].partition_responses[0];
        match partition.error_code {
            0 => Ok(partition.base_offset),
            error => Err(ErrorCode(error)),
        }
    }
}

impl Pending<FetchResponse> {
    fn partition(&self) -> PartitionData {
        let answer = self.0.borrow();
        let answer = answer.as_ref().expect("it is answered");
        assert_eq!(answer.error_code, 0);
        answer.responses[0].partitions[0].clone()
    }
}

#[test]
fn acks_all_ends_with_the_fetch_by_which_the_last_in_sync_replica_has_it() {
    sim::run(1, |sim| {
        let scene = Scene::start(sim, &[1, 2, 3], &[]);
        let consumer = scene.begin_fetch(Asked::by_consumer(0).waiting());
        let produced = scene.produce(-1);
        assert!(produced.is_open() && consumer.is_open());
        for follower in [2, 3] {
            let (high_watermark, bytes) = scene.follow(follower, 0);
            assert_eq!(high_watermark, 0);
            assert!(bytes > 0, "followers read to the end of the log");
        }
        let parked = scene.begin_fetch(Asked::by(2, 1).waiting());
        assert!(parked.is_open() && produced.is_open(), "3 hasn't told yet");
        assert_eq!(
            scene.follow(3, 1),
            (1, 0),
            "what it acknowledges counts at once"
        );
        assert_eq!(produced.outcome(), Ok(0));
        let found = consumer.partition();
        assert_eq!(found.high_watermark, 1);
        assert!(size(&found) > 0);

        let next = scene.produce(1);
        assert_eq!(next.outcome(), Ok(1), "acks=1 waits for nobody");
        assert!(
            size(&parked.partition()) > 0,
            "an append ends a follower's wait"
        );
        assert_eq!(scene.latest(5), Ok(1));
        assert_eq!(scene.proposed(), Vec::<Vec<i32>>::new());
    });
}

#[test]
fn what_a_follower_may_not_fetch_is_refused_and_counts_for_nothing() {
    sim::run(2, |sim| {
        let scene = Scene::start(sim, &[1, 2], &[]);
        let produced = scene.produce(-1);
        let error = |asked: Asked| ErrorCode(scene.fetch(asked).error_code);
        let by = || Asked::by(2, 1);
        let newer = Asked {
            current_leader_epoch: 1,
            ..by()
        };
        assert_eq!(error(newer), ErrorCode::UNKNOWN_LEADER_EPOCH);
        let earlier_life = Asked {
            replica_epoch: 19,
            ..by()
        };
        assert_eq!(error(earlier_life), ErrorCode::NOT_LEADER_OR_FOLLOWER);
        let stranger = Asked::by(9, 1);
        assert_eq!(error(stranger), ErrorCode::UNKNOWN_LEADER_EPOCH);
        let without_term = Asked {
            current_leader_epoch: -1,
            ..Asked::by(9, 1)
        };
        assert_eq!(error(without_term), ErrorCode::NOT_LEADER_OR_FOLLOWER);
        assert_eq!(error(Asked::by(2, 2)), ErrorCode::OFFSET_OUT_OF_RANGE);
        let diverging = scene.fetch(Asked {
            last_fetched_epoch: 0,
            ..Asked::by(2, 2)
        });
        assert_eq!(diverging.error_code, 0);
        let told = diverging.diverging_epoch;
        assert_eq!((told.epoch, told.end_offset), (0, 1));
        assert!(produced.is_open(), "none of them has the record");
        assert_eq!(scene.follow(2, 1), (1, 0));
        assert_eq!(produced.outcome(), Ok(0));

        // A new term of the same leader.
        scene.change(PartitionChangeRecord {
            leader: 1,
            ..Default::default()
        });
        assert_eq!(error(by()), ErrorCode::FENCED_LEADER_EPOCH);
    });
}

#[test]
fn a_follower_joins_and_enough_are_in_sync() {
    sim::run(3, |sim| {
        let scene = Scene::start(sim, &[1], &[("min.insync.replicas", "2")]);
        assert_eq!(
            scene.produce(-1).outcome(),
            Err(ErrorCode::NOT_ENOUGH_REPLICAS)
        );
        assert_eq!(scene.produce(1).outcome(), Ok(0));
        assert_eq!(scene.latest(5), Ok(0), "nothing is committed by one of two");
        assert!(scene.follow(2, 0).1 > 0);
        assert_eq!(scene.follow(2, 1), (0, 0));
        assert_eq!(scene.proposed(), [vec![1, 2]], "it has what is committed");
        let epochs: Vec<i64> = scene.proposals.borrow()[0]
            .isr
            .iter()
            .map(|(_, e)| *e)
            .collect();
        assert_eq!(epochs, [-1, 20]);
        let refused = scene.produce(-1).outcome();
        assert_eq!(
            refused,
            Err(ErrorCode::NOT_ENOUGH_REPLICAS),
            "proposed isn't committed"
        );
        scene.accept(1);
        assert_eq!(scene.latest(5), Ok(1));
        let produced = scene.produce(-1);
        assert!(produced.is_open());
        scene.follow(2, 2);
        assert_eq!(produced.outcome(), Ok(1));
        assert_eq!(scene.proposed().len(), 1);
    });
}

#[test]
fn a_refused_proposal_is_made_again_and_a_fenced_broker_is_not_proposed() {
    sim::run(4, |sim| {
        let scene = Scene::start(sim, &[1], &[]);
        scene.follow(2, 0);
        assert_eq!(scene.proposed(), [vec![1, 2]]);
        scene.follow(3, 0);
        assert_eq!(scene.proposed().len(), 1, "one at a time");
        let first = scene.proposals.borrow()[0].clone();
        scene.answer(&first, Err(ErrorCode::INELIGIBLE_REPLICA));
        sim.run_for(SOON);
        scene.follow(3, 0);
        assert_eq!(scene.proposed(), [vec![1, 2], vec![1, 3]]);
        // Its metadata tells how it ended, before the controller's answer.
        scene.change(PartitionChangeRecord {
            isr: Some(vec![1, 3]),
            ..Default::default()
        });
        let fenced = RegisterBrokerRecord {
            broker_id: 2,
            broker_epoch: 20,
            fenced: true,
            ..Default::default()
        };
        scene.publish(&[fenced.into()]);
        scene.accept(1);
        scene.follow(2, 0);
        assert_eq!(scene.proposed().len(), 2, "nobody takes a fenced one");
        scene.publish(&[registration(2)]);
        scene.follow(2, 0);
        assert_eq!(scene.proposed()[2], [1, 3, 2]);
        assert_eq!(scene.proposals.borrow()[2].partition_epoch, 1);
    });
}

#[test]
fn who_has_stopped_fetching_leaves_and_holds_nobody_up_any_more() {
    sim::run(5, |sim| {
        let scene = Scene::start(sim, &[1, 2, 3], &[("min.insync.replicas", "2")]);
        let produced = scene.produce(-1);
        for _ in 0..16 {
            scene.follow(2, 1);
            sim.run_for(LAG_MAX / 10);
        }
        assert_eq!(scene.proposed(), [vec![1, 2]], "3 never came");
        assert_eq!(produced.outcome(), Err(ErrorCode::REQUEST_TIMED_OUT));
        let produced = scene.produce(-1);
        scene.follow(2, 2);
        assert!(produced.is_open(), "who would leave still counts");
        scene.accept(1);
        sim.run_for(SOON);
        assert_eq!(produced.outcome(), Ok(1));
        // It has enough without 3, and comes back when it has caught up.
        assert!(scene.follow(3, 0).1 > 0);
        assert_eq!(scene.follow(3, 2), (2, 0));
        assert_eq!(scene.proposed()[1], [1, 2, 3]);
    });
}

#[test]
fn who_loses_leadership_says_so_to_everyone_who_waits() {
    sim::run(6, |sim| {
        let scene = Scene::start(sim, &[1, 2], &[]);
        let produced = scene.produce(-1);
        let parked = scene.begin_fetch(Asked::by(2, 1).waiting());
        assert_eq!(produced.outcome(), Ok(0));
        let produced = scene.produce(-1);
        assert!(size(&parked.partition()) > 0);
        let parked = scene.begin_fetch(Asked::by_consumer(1).waiting());
        assert!(produced.is_open() && parked.is_open());
        scene.change(PartitionChangeRecord {
            leader: 2,
            ..Default::default()
        });
        sim.run_for(SOON);
        assert_eq!(produced.outcome(), Err(ErrorCode::NOT_LEADER_OR_FOLLOWER));
        let found = parked.partition();
        assert_eq!(
            ErrorCode(found.error_code),
            ErrorCode::NOT_LEADER_OR_FOLLOWER
        );
        assert_eq!(found.current_leader.leader_id, 2);
        assert_eq!(found.current_leader.leader_epoch, 1);
    });
}

#[test]
fn a_new_leader_that_does_not_know_what_is_committed_says_so() {
    sim::run(7, |sim| {
        let scene = Scene::start(sim, &[1, 2], &[]);
        assert_eq!(scene.produce(1).outcome(), Ok(0));
        assert_eq!(scene.latest(5), Ok(0));
        scene.change(PartitionChangeRecord {
            leader: 1,
            ..Default::default()
        });
        assert_eq!(scene.latest(5), Err(ErrorCode::OFFSET_NOT_AVAILABLE));
        assert_eq!(scene.latest(4), Err(ErrorCode::LEADER_NOT_AVAILABLE));
        let asked = Asked {
            current_leader_epoch: 1,
            last_fetched_epoch: 0,
            ..Asked::by(2, 1)
        };
        assert_eq!(scene.fetch(asked).high_watermark, 1);
        assert_eq!(scene.latest(5), Ok(1));
    });
}
