//! Our coordinator as a target: in the simulation, on a log in memory, behind the little
//! that an API handler does around it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ottla::base::{ErrorCode, Offset, PartitionIndex, Uuid};
use ottla::coordinator::runtime::{AppendedAt, CoordinatorLog, GroupCoordinator, LocalFuture};
use ottla::coordinator::{Client, CoordinatorConfig, reply};
use ottla::io::local::oneshot;
use ottla::io::{Queue, Rt};
use ottla::record::{BatchView, set_base_offset};
use ottla::sim::{self, Sim};
use ottla::wire::codec::{Decoder, Message};
use ottla::wire::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, SyncGroupRequest,
};

use crate::session::{TOPIC, Target};

const TOPIC_ID: Uuid = Uuid([9; 16]);

/// Commits at once.
#[derive(Default)]
struct MemoryLog {
    bytes: RefCell<Vec<u8>>,
    end: Cell<i64>,
}

impl CoordinatorLog for MemoryLog {
    fn append(&self, batch: Bytes) -> Result<AppendedAt, ErrorCode> {
        let mut bytes = batch.to_vec();
        let first = Offset(self.end.get());
        set_base_offset(&mut bytes, first);
        let last = BatchView::parse(&bytes).expect("a batch").last_offset();
        self.bytes.borrow_mut().extend_from_slice(&bytes);
        self.end.set(last.0 + 1);
        Ok(AppendedAt { first, last })
    }

    fn committed(&self) -> Offset {
        Offset(self.end.get())
    }

    fn await_committed(&self, _: Offset) -> LocalFuture<'_, Result<Offset, ErrorCode>> {
        Box::pin(async { Ok(self.committed()) })
    }

    fn log_start_offset(&self) -> Offset {
        Offset(0)
    }

    fn log_end_offset(&self) -> Offset {
        Offset(self.end.get())
    }

    fn read(&self, _: Offset, _: usize) -> LocalFuture<'_, Result<Bytes, ErrorCode>> {
        Box::pin(async { Ok(Bytes::new()) })
    }

    fn max_message_bytes(&self) -> usize {
        1 << 20
    }
}

pub struct Ours<'a> {
    sim: &'a Sim,
    rt: Rt,
    log: Rc<MemoryLog>,
    coordinator: GroupCoordinator,
    answers: BTreeMap<String, VecDeque<oneshot::Receiver<Bytes>>>,
}

pub fn run(play: impl FnOnce(&mut dyn Target)) {
    sim::run(1, |sim| {
        let node = sim.add_node(1);
        let rt = sim.boot(node).remove(0);
        let log = Rc::new(MemoryLog::default());
        let config = CoordinatorConfig {
            initial_rebalance_delay_ms: 600,
            session_timeout_ms_min: 300,
            group_size_max: 3,
            ..CoordinatorConfig::default()
        };
        let coordinator =
            GroupCoordinator::start(rt.clone(), PartitionIndex(0), log.clone(), Rc::new(config));
        sim.run_for(Duration::from_millis(10));
        play(&mut Ours {
            sim,
            rt,
            log,
            coordinator,
            answers: BTreeMap::new(),
        });
    });
}

impl Target for Ours<'_> {
    fn send(&mut self, connection: &str, api_key: i16, version: i16, body: Bytes) {
        let (sender, receiver) = oneshot();
        let answer = handle(self.coordinator.clone(), api_key, version, body);
        self.rt.spawn(Queue::Request, async move {
            let _ = sender.send(answer.await);
        });
        self.answers
            .entry(connection.to_owned())
            .or_default()
            .push_back(receiver);
        self.sim.run_for(Duration::from_millis(20));
    }

    fn receive(&mut self, connection: &str) -> Bytes {
        let answer = self
            .answers
            .get_mut(connection)
            .and_then(VecDeque::pop_front)
            .expect("a request was sent");
        self.sim
            .block_on(&self.rt, Duration::from_secs(60), answer)
            .expect("it is answered")
    }

    fn sleep_ms(&mut self, ms: u64) {
        self.sim.run_for(Duration::from_millis(ms));
    }

    fn topic_id(&self) -> Uuid {
        TOPIC_ID
    }

    fn offsets_log(&mut self) -> Bytes {
        self.log.bytes.borrow().clone().into()
    }
}

fn decode<M: Message>(body: &Bytes, version: i16) -> M {
    M::decode(&mut Decoder::new(body), version).expect("a request of ours")
}

fn encode<M: Message>(message: &M, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    message
        .encode(&mut out, version)
        .unwrap_or_else(|error| panic!("{} v{version}: {error}", M::NAME));
    out.freeze()
}

fn handle(
    coordinator: GroupCoordinator,
    api_key: i16,
    version: i16,
    body: Bytes,
) -> Pin<Box<dyn Future<Output = Bytes>>> {
    let v = version;
    let c = coordinator;
    Box::pin(async move {
        match api_key {
            8 => {
                let mut request: OffsetCommitRequest = decode(&body, v);
                for topic in &mut request.topics {
                    topic.name = TOPIC.into();
                    topic.topic_id = TOPIC_ID;
                }
                encode(&c.commit_offsets(request, v).await, v)
            }
            9 => {
                let mut request: OffsetFetchRequest = decode(&body, v);
                let stable = request.require_stable;
                for topic in request
                    .groups
                    .iter_mut()
                    .flat_map(|group| group.topics.iter_mut().flatten())
                    .filter(|topic| topic.topic_id == TOPIC_ID)
                {
                    topic.name = TOPIC.into();
                }
                let mut groups = Vec::new();
                for group in reply::offset_fetch_groups(request, v) {
                    let mut answer = c.fetch_offsets(group, stable, v).await;
                    for topic in &mut answer.topics {
                        topic.topic_id = TOPIC_ID;
                    }
                    groups.push(answer);
                }
                encode(&reply::offset_fetch_response(groups, v), v)
            }
            11 => {
                let request: JoinGroupRequest = decode(&body, v);
                let client = Client {
                    id: "client",
                    address: [127, 0, 0, 1].into(),
                };
                encode(&c.join_group(&client, request, v).await, v)
            }
            12 => {
                let request: HeartbeatRequest = decode(&body, v);
                encode(&c.heartbeat(request).await, v)
            }
            13 => {
                let request: LeaveGroupRequest = decode(&body, v);
                encode(&c.leave_group(request, v).await, v)
            }
            14 => {
                let request: SyncGroupRequest = decode(&body, v);
                encode(&c.sync_group(request, v).await, v)
            }
            15 => {
                let request: DescribeGroupsRequest = decode(&body, v);
                let response = DescribeGroupsResponse {
                    groups: c.describe_groups(&request.groups, v).await,
                    ..DescribeGroupsResponse::default()
                };
                encode(&response, v)
            }
            16 => {
                let request: ListGroupsRequest = decode(&body, v);
                encode(&c.list_groups(&request).await, v)
            }
            42 => {
                let mut request: DeleteGroupsRequest = decode(&body, v);
                let mut seen = Vec::new();
                request.groups_names.retain(|name| {
                    let is_new = !seen.contains(name);
                    seen.push(name.clone());
                    is_new
                });
                let response = DeleteGroupsResponse {
                    results: c.delete_groups(&request.groups_names).await,
                    ..DeleteGroupsResponse::default()
                };
                encode(&response, v)
            }
            47 => {
                let request: OffsetDeleteRequest = decode(&body, v);
                encode(&c.delete_offsets(request).await, v)
            }
            other => panic!("api {other} is not a group's"),
        }
    })
}
