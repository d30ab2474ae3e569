//! One fetcher: asks one leader over one connection for all partitions of its roster, and has
//! the owners of the partitions take what it answers.
//!
//! ```text
//!   plan ─▶ Fetch ─▶ leader ─▶ answers ─▶ owners append ─▶ what to ask next ─▶ (disks) ─▶ plan
//! ```
//! Started by [`super::follow`], on the fetcher's core; ends when nobody follows the leader by
//! it any more.
//!
//! The leader holds a fetch while there is nothing new (`replica.fetch.wait.max.ms`). If a
//! partition is to be asked for meanwhile, another fetch of the session follows on the same
//! connection: a leader that ends the first one for it answers at once, any other as soon as
//! the first has waited.
//!
//! Invariants: at most [`FLIGHTS_MAX`] requests are under way, only one while there is no
//! session; what an owner was given is in its log, or refused, before the next request.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::connection::{Connection, resolve};
use super::parts::{FetchedPart, FetchedPartition, FetcherKey};
use super::roster::{Plan, Roster};
use crate::base::{BrokerId, CoreId, ErrorCode, LeaderEpoch, Nanos, Offset, PartitionIndex};
use crate::base::{TopicIdPartition, Uuid};
use crate::config::ReplicationConfig;
use crate::io::local::{Either, Notify, either, or_deadline};
use crate::replica::follower::{Answer, Ticket};
use crate::shard::Shard;
use crate::shard::messages::{ShardReply, ShardRequest};
use crate::wire::ApiKey;
use crate::wire::messages::fetch_request::{
    FetchPartition, FetchTopic, ForgottenTopic, ReplicaState,
};
use crate::wire::messages::fetch_response::PartitionData;
use crate::wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use crate::wire::messages::{FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse};

/// Fetches under way on a connection: one that the leader may hold, and one behind it.
const FLIGHTS_MAX: usize = 2;
/// How long the next fetch waits for the disks of those that have just appended, so that it
/// asks for all of them together.
const DISK_WAIT_MAX: Duration = Duration::from_millis(20);
/// The first pause after a failed connection. It doubles up to `replica.fetch.backoff.ms`.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Failures in a row that are nothing special: nodes restart.
const FAILURES_UNTOLD: u32 = 6;
/// Sessions refused in a row before the connection is given up.
const REFUSED_SESSIONS_MAX: u32 = 3;
/// How long a broker that isn't registered yet waits before it looks again.
const REGISTRATION_LOOK: Duration = Duration::from_millis(20);
/// First version of Fetch that tells the follower's epoch.
const REPLICA_STATE_SINCE: i16 = 15;

const PLAINTEXT: i16 = 0;
/// ListOffsets' special timestamps.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

pub struct Fetcher {
    key: FetcherKey,
    roster: RefCell<Roster>,
    /// Owners have told something.
    changed: Notify,
    /// The metadata says something new of the leader's address.
    reachable: Notify,
}

/// A fetch under way.
struct Flight {
    request: u64,
    opens_session: bool,
    deadline: Nanos,
}

/// What came of partitions' requests, by the core that owns them.
type Fetched = BTreeMap<CoreId, FetchedPart>;

impl Fetcher {
    pub fn new(key: FetcherKey) -> Fetcher {
        Fetcher {
            key,
            roster: RefCell::default(),
            changed: Notify::new(),
            reachable: Notify::new(),
        }
    }

    pub fn roster(&self) -> &RefCell<Roster> {
        &self.roster
    }

    pub fn leader(&self) -> BrokerId {
        self.key.leader
    }

    /// The roster has changed.
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    /// Tries again now to reach the leader.
    pub fn retry(&self) {
        self.reachable.notify_one();
    }

    fn is_idle(&self) -> bool {
        self.roster.borrow().is_empty()
    }

    fn plan(&self, now: Nanos) -> Option<Plan> {
        self.roster.borrow_mut().plan(now)
    }

    fn has_news(&self, now: Nanos) -> bool {
        self.roster.borrow_mut().has_news(now)
    }

    fn offsets_due(&self, now: Nanos) -> Vec<(TopicIdPartition, Ticket)> {
        self.roster.borrow_mut().offsets_due(now)
    }

    fn next_at(&self) -> Option<Nanos> {
        self.roster.borrow().next_at()
    }

    fn awaits_disk(&self) -> bool {
        self.roster.borrow().awaits_disk()
    }
}

/// The life of a fetcher.
pub async fn run(shard: Rc<Shard>, fetcher: Rc<Fetcher>) {
    let mut failures = 0;
    while !fetcher.is_idle() {
        if shard.broker_epoch() < 0 {
            // What it fetches now would be taken for somebody else's.
            shard.rt().sleep(REGISTRATION_LOOK).await;
            continue;
        }
        let Err(error) = talk(&shard, &fetcher, &mut failures).await else {
            continue;
        };
        failures += 1;
        let leader = fetcher.key.leader;
        if failures == FAILURES_UNTOLD {
            tracing::warn!(core = %shard.core(), %leader, %error, "no fetching from a leader");
        } else {
            tracing::debug!(core = %shard.core(), %leader, %error, "no fetching from a leader");
        }
        let doubled = PAUSE_MIN.saturating_mul(1 << (failures - 1).min(16));
        let pause = doubled.min(backoff(replication(&shard)));
        either(shard.rt().sleep(pause), fetcher.reachable.notified()).await;
    }
    shard.fetchers().forget(fetcher.key);
}

/// `replica.fetch.backoff.ms`
pub fn backoff(config: &ReplicationConfig) -> Duration {
    millis(config.replica_fetch_backoff_ms)
}

/// Connects and fetches for as long as that goes and is wanted.
async fn talk(shard: &Rc<Shard>, fetcher: &Fetcher, failures: &mut u32) -> io::Result<()> {
    let config = replication(shard);
    let rt = shard.rt();
    let address = address(shard, fetcher.key.leader)?;
    let (me, number) = (shard.node().id, fetcher.key.number);
    let client_id = format!("broker-{me}-fetcher-{number}");
    let until = rt.now() + millis(config.replica_socket_timeout_ms);
    let mut connection = Connection::open(rt, address, client_id, until).await?;
    fetcher.roster.borrow_mut().reset_connection();
    let ended = converse(shard, fetcher, &mut connection, failures).await;
    fetcher.roster.borrow_mut().reset_connection();
    ended
}

async fn converse(
    shard: &Rc<Shard>,
    fetcher: &Fetcher,
    connection: &mut Connection,
    failures: &mut u32,
) -> io::Result<()> {
    let rt = shard.rt();
    let mut flights: VecDeque<Flight> = VecDeque::with_capacity(FLIGHTS_MAX);
    let mut refused_sessions = 0;
    loop {
        let now = rt.now();
        if flights.is_empty() {
            let due = fetcher.offsets_due(now);
            if !due.is_empty() {
                ask_offsets(shard, fetcher, connection, &due).await?;
                continue;
            }
        }
        let is_next = flights.is_empty() || (flights.len() < FLIGHTS_MAX && fetcher.has_news(now));
        let plan = match is_next {
            true => fetcher.plan(now),
            false => None,
        };
        if let Some(plan) = plan {
            flights.push_back(send(shard, fetcher, connection, &plan).await?);
            continue;
        }
        let Some(flight) = flights.front() else {
            if fetcher.is_idle() {
                return Ok(());
            }
            let next_at = fetcher.next_at().unwrap_or(Nanos::MAX);
            // Either is a reason to look again.
            let _ = or_deadline(rt, fetcher.changed.notified(), next_at).await;
            continue;
        };
        let coming = either(connection.answer(), fetcher.changed.notified());
        let body = match or_deadline(rt, coming, flight.deadline).await {
            Ok(Either::First(body)) => body?,
            Ok(Either::Second(())) => continue,
            Err(_) => return Err(ErrorKind::TimedOut.into()),
        };
        let flight = flights.pop_front().expect("it was the first");
        let response: FetchResponse = body.decode()?;
        match ErrorCode(response.error_code) {
            ErrorCode::NONE => {}
            error @ (ErrorCode::FETCH_SESSION_ID_NOT_FOUND
            | ErrorCode::INVALID_FETCH_SESSION_EPOCH
            | ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR) => {
                refused_sessions += 1;
                if refused_sessions > REFUSED_SESSIONS_MAX {
                    return Err(refused(error));
                }
                fetcher.roster.borrow_mut().reset_session();
                continue;
            }
            error => return Err(refused(error)),
        }
        (refused_sessions, *failures) = (0, 0);
        let fetched = {
            let mut roster = fetcher.roster.borrow_mut();
            roster.on_response(flight.opens_session, response.session_id);
            sort_out(&roster, flight.request, response)
        };
        give(shard, fetcher, fetched).await?;
        let until = rt.now() + DISK_WAIT_MAX;
        while fetcher.awaits_disk() {
            let told = fetcher.changed.notified();
            if or_deadline(rt, told, until).await.is_err() {
                break;
            }
        }
    }
}

async fn send(
    shard: &Rc<Shard>,
    fetcher: &Fetcher,
    connection: &mut Connection,
    plan: &Plan,
) -> io::Result<Flight> {
    let (rt, config) = (shard.rt(), replication(shard));
    let now = rt.now();
    let mut wait = match plan.opens_session {
        true => Duration::ZERO,
        false => millis(config.replica_fetch_wait_max_ms),
    };
    if let Some(at) = fetcher.next_at() {
        // A moment more, so that its time has come.
        wait = wait.min(at - now + Duration::from_millis(1));
    }
    if fetcher.awaits_disk() {
        wait = wait.min(DISK_WAIT_MAX);
    }
    let version = connection.fetch_version();
    let request = fetch_request(shard, version, plan, wait);
    let deadline = now + wait + millis(config.replica_socket_timeout_ms);
    let sending = connection.send(ApiKey::Fetch, version, &request);
    match or_deadline(rt, sending, deadline).await {
        Ok(sent) => sent?,
        Err(_) => return Err(ErrorKind::TimedOut.into()),
    }
    Ok(Flight {
        request: plan.request,
        opens_session: plan.opens_session,
        deadline,
    })
}

fn fetch_request(shard: &Shard, version: i16, plan: &Plan, wait: Duration) -> FetchRequest {
    let config = replication(shard);
    let me = shard.node().id.0;
    let mut topics: Vec<FetchTopic> = Vec::new();
    for (id, position) in &plan.partitions {
        let partition = FetchPartition {
            partition: id.partition.0,
            current_leader_epoch: position.current_leader_epoch.0,
            fetch_offset: position.fetch_offset.0,
            last_fetched_epoch: position.last_fetched_epoch.0,
            log_start_offset: position.log_start_offset.0,
            partition_max_bytes: config.replica_fetch_max_bytes,
            ..Default::default()
        };
        match topics
            .last_mut()
            .filter(|topic| topic.topic_id == id.topic_id)
        {
            Some(topic) => topic.partitions.push(partition),
            None => topics.push(FetchTopic {
                topic_id: id.topic_id,
                partitions: vec![partition],
                ..Default::default()
            }),
        }
    }
    let mut forgotten: Vec<ForgottenTopic> = Vec::new();
    for id in &plan.forgotten {
        let index = id.partition.0;
        match forgotten
            .last_mut()
            .filter(|topic| topic.topic_id == id.topic_id)
        {
            Some(topic) => topic.partitions.push(index),
            None => forgotten.push(ForgottenTopic {
                topic_id: id.topic_id,
                partitions: vec![index],
                ..Default::default()
            }),
        }
    }
    let tells_epoch = version >= REPLICA_STATE_SINCE;
    FetchRequest {
        replica_id: if tells_epoch { -1 } else { me },
        replica_state: match tells_epoch {
            true => ReplicaState {
                replica_id: me,
                replica_epoch: shard.broker_epoch(),
            },
            false => ReplicaState::default(),
        },
        max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
        min_bytes: config.replica_fetch_min_bytes,
        max_bytes: config.replica_fetch_response_max_bytes,
        session_id: plan.session_id,
        session_epoch: plan.session_epoch,
        topics,
        forgotten_topics_data: forgotten,
        ..Default::default()
    }
}

/// What a response says of those that it is still an answer for.
fn sort_out(roster: &Roster, request: u64, response: FetchResponse) -> Fetched {
    let mut fetched = Fetched::new();
    for topic in response.responses {
        for data in topic.partitions {
            let partition = TopicIdPartition {
                topic_id: topic.topic_id,
                partition: PartitionIndex(data.partition_index),
            };
            let Some((owner, ticket)) = roster.answered(partition, request) else {
                continue;
            };
            let part = fetched.entry(owner).or_default();
            part.partitions.push(FetchedPartition {
                partition,
                ticket,
                answer: answer(&data),
                records: data.records.unwrap_or_default(),
            });
        }
    }
    fetched
}

fn answer(data: &PartitionData) -> Answer {
    let error = ErrorCode(data.error_code);
    if !error.is_ok() {
        Answer::Refused(error)
    } else if data.diverging_epoch.epoch >= 0 {
        Answer::Diverging {
            epoch: LeaderEpoch(data.diverging_epoch.epoch),
            end_offset: Offset(data.diverging_epoch.end_offset),
        }
    } else {
        Answer::Data {
            high_watermark: Offset(data.high_watermark),
            log_start_offset: Offset(data.log_start_offset),
        }
    }
}

/// Has the owners take answers, and takes what they want next.
async fn give(shard: &Shard, fetcher: &Fetcher, fetched: Fetched) -> io::Result<()> {
    let parts = fetched.into_iter();
    let calls: Vec<_> = parts
        .map(|(core, part)| shard.call(core, ShardRequest::Fetched(Box::new(part))))
        .collect();
    for call in calls {
        let Ok(ShardReply::Fetched(next)) = call.await else {
            return Err(io::Error::other("a core has ended"));
        };
        let mut roster = fetcher.roster.borrow_mut();
        next.iter().for_each(|followed| roster.take(followed));
    }
    Ok(())
}

/// Asks where the leader's logs begin and end, for those that are out of their range.
async fn ask_offsets(
    shard: &Shard,
    fetcher: &Fetcher,
    connection: &mut Connection,
    due: &[(TopicIdPartition, Ticket)],
) -> io::Result<()> {
    let starts = list_offsets(shard, connection, due, EARLIEST).await?;
    let ends = list_offsets(shard, connection, due, LATEST).await?;
    let mut fetched = Fetched::new();
    for (partition, ticket) in due {
        let Some(owner) = fetcher.roster.borrow().owner(*partition) else {
            continue;
        };
        let found = |offsets: &Offsets| {
            let unknown = Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
            offsets.get(partition).copied().unwrap_or(unknown)
        };
        let answer = match (found(&starts), found(&ends)) {
            (Ok(log_start_offset), Ok(log_end_offset)) => Answer::Offsets {
                log_start_offset,
                log_end_offset,
            },
            (Err(error), _) | (_, Err(error)) => Answer::Refused(error),
        };
        let part = fetched.entry(owner).or_default();
        part.partitions.push(FetchedPartition {
            partition: *partition,
            ticket: *ticket,
            answer,
            records: Bytes::new(),
        });
    }
    give(shard, fetcher, fetched).await
}

type Offsets = BTreeMap<TopicIdPartition, Result<Offset, ErrorCode>>;

async fn list_offsets(
    shard: &Shard,
    connection: &mut Connection,
    due: &[(TopicIdPartition, Ticket)],
    timestamp: i64,
) -> io::Result<Offsets> {
    let image = shard.image();
    let mut ids: BTreeMap<String, Uuid> = BTreeMap::new();
    let mut topics: Vec<ListOffsetsTopic> = Vec::new();
    for (id, ticket) in due {
        let Some(topic) = image.topics.by_id(id.topic_id) else {
            continue;
        };
        let partition = ListOffsetsPartition {
            partition_index: id.partition.0,
            current_leader_epoch: ticket.leader_epoch.0,
            timestamp,
        };
        match topics.last_mut().filter(|last| *last.name == *topic.name) {
            Some(last) => last.partitions.push(partition),
            None => {
                ids.insert(topic.name.to_string(), id.topic_id);
                topics.push(ListOffsetsTopic {
                    name: topic.name.to_string(),
                    partitions: vec![partition],
                });
            }
        }
    }
    let request = ListOffsetsRequest {
        replica_id: shard.node().id.0,
        topics,
        ..Default::default()
    };
    let version = connection.list_offsets_version();
    let until = shard.rt().now() + millis(replication(shard).replica_socket_timeout_ms);
    let asking = async {
        let api = ApiKey::ListOffsets;
        connection.send(api, version, &request).await?;
        connection.answer().await
    };
    let body = or_deadline(shard.rt(), asking, until)
        .await
        .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))?;
    let response: ListOffsetsResponse = body.decode()?;
    let mut found = Offsets::new();
    for topic in response.topics {
        let Some(topic_id) = ids.get(&topic.name) else {
            continue;
        };
        for answer in topic.partitions {
            let partition = TopicIdPartition {
                topic_id: *topic_id,
                partition: PartitionIndex(answer.partition_index),
            };
            let error = ErrorCode(answer.error_code);
            let offset = match error.is_ok() {
                true => Ok(Offset(answer.offset)),
                false => Err(error),
            };
            found.insert(partition, offset);
        }
    }
    Ok(found)
}

/// Where the leader takes other brokers' connections.
fn address(shard: &Shard, leader: BrokerId) -> io::Result<SocketAddr> {
    let image = shard.image();
    let name = &shard.node().config.listeners.inter_broker_name;
    let broker = image.cluster.broker(leader);
    let listener = broker.and_then(|broker| broker.listener(name));
    let listener = listener.ok_or(ErrorKind::AddrNotAvailable)?;
    if listener.protocol != PLAINTEXT {
        return Err(ErrorKind::Unsupported.into());
    }
    resolve(&listener.host, listener.port)
}

fn replication(shard: &Shard) -> &ReplicationConfig {
    &shard.node().config.replication
}

fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn refused(error: ErrorCode) -> io::Error {
    io::Error::other(format!("it refuses to be fetched from: {error}"))
}
