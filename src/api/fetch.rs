//! Fetch: records for consumers and followers, by full requests or incremental sessions.
//!
//! Control goes to [`fetch_session`](crate::shard::fetch_session) (which partitions), then to
//! `shard::fetch` (reading, waiting), and back here, where the response is gathered around
//! the record chunks without copying them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::endpoint;
use crate::base::{
    BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionIndex, TopicIdPartition, Uuid,
};
use crate::io::Chunk;
use crate::metadata::{MetadataImage, TopicImage};
use crate::security::{CLUSTER_NAME, Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::shard::fetch::{Answers, Gather, gather};
use crate::shard::fetch_session::{
    Begun, FetchKey, FetchOutcome, FetchSpec, FetchTopic, SessionRequest, Specs,
};
use crate::shard::messages::{FetchAnswer, FetchPartition, FetchRead};
use crate::shard::processor::{Reply, Request, Response};
use crate::shard::session_moves;
use crate::telemetry::Stage;
use crate::wire::codec::{DecodeError, Decoder, EncodeError};
use crate::wire::fetch_encoder::{FetchEncoder, FetchHead, Piece};
use crate::wire::fetch_view::FetchView;
use crate::wire::messages::fetch_response::{
    EpochEndOffset, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use crate::wire::produce_view::TopicRef;

const READ_COMMITTED: i8 = 1;
/// First version that names topics by id.
const BY_ID_SINCE: i16 = 13;
/// First version that tells where the leader is.
const NODE_ENDPOINTS_SINCE: i16 = 16;

pub async fn handle(shard: Rc<Shard>, request: Request) -> Reply {
    let Request {
        context,
        body,
        started,
        traffic,
        ..
    } = request;
    let (asked, session) = match decode(&shard, &context, &body) {
        Ok(decoded) => decoded,
        Err(error) => return Reply::Close(format!("an undecodable Fetch: {error}")),
    };
    drop(body);
    shard.end_stage(context.api_key, Stage::Parsed, started);
    let begun = match session_moves::begin(&shard, session).await {
        Ok(begun) => begun,
        Err(error) => return failed(&shard, &context, error),
    };
    let topics: Topics = {
        let image = shard.image();
        let mut access = Access::of(&shard, &context, &asked);
        let specs = begun.partitions.iter();
        specs.map(|spec| access.resolve(&image, spec)).collect()
    };
    let answers = read(&shard, &context, &asked, &begun, &topics).await;
    for (topic, answer) in topics.iter().zip(&answers) {
        if answer.bytes > 0
            && let Some(core) = topic.target.ok().and_then(|id| shard.owner(id))
        {
            traffic.count_bytes(core, answer.bytes as usize);
        }
    }
    let outcomes: SmallVec<[FetchOutcome; 2]> = answers.iter().map(outcome).collect();
    let sent = shard.sessions().respond(&begun, &outcomes);
    match respond(&shard, &context, &begun, &topics, answers, &sent) {
        Ok(out) => Reply::Send(out),
        Err(error) => Reply::Close(format!("a Fetch response could not be encoded: {error}")),
    }
}

/// What the request asks of all partitions together.
struct Asked {
    replica: BrokerId,
    replica_epoch: i64,
    read_committed: bool,
    max_wait: Duration,
    min_bytes: u64,
    max_bytes: u32,
}

impl Asked {
    fn of(request: &FetchView) -> Asked {
        Asked {
            // -2 is a consumer that debugs: it reads like any other here.
            replica: BrokerId(request.replica_id.max(-1)),
            replica_epoch: request.replica_epoch,
            read_committed: request.isolation_level == READ_COMMITTED,
            max_wait: Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)),
            min_bytes: u64::try_from(request.min_bytes).unwrap_or(0),
            max_bytes: u32::try_from(request.max_bytes).unwrap_or(0),
        }
    }
}

type Topics = SmallVec<[Resolved; 1]>;

/// A partition of the request, looked up.
struct Resolved {
    name: Arc<str>,
    topic_id: Uuid,
    target: Result<TopicIdPartition, ErrorCode>,
}

fn decode(
    shard: &Shard,
    context: &RequestContext,
    body: &[u8],
) -> Result<(Asked, SessionRequest), DecodeError> {
    let image = shard.image();
    let (mut partitions, mut forgotten) = (Specs::new(), Vec::new());
    let mut last: Option<(TopicRef<'_>, FetchTopic)> = None;
    // Partitions of one topic are neighbours.
    let mut key = |topic, partition| {
        let known = last.as_ref().filter(|(before, _)| *before == topic);
        let topic = match known {
            Some((_, topic)) => topic.clone(),
            None => last.insert((topic, fetch_topic(&image, topic))).1.clone(),
        };
        FetchKey {
            topic,
            partition: PartitionIndex(partition),
        }
    };
    let key = RefCell::new(&mut key);
    let view = FetchView::decode(
        &mut Decoder::borrowed(body),
        context.api_version,
        |topic, partition| {
            partitions.push(FetchSpec {
                key: key.borrow_mut()(topic, partition.partition),
                current_leader_epoch: partition.current_leader_epoch,
                fetch_offset: partition.fetch_offset,
                last_fetched_epoch: partition.last_fetched_epoch,
                log_start_offset: partition.log_start_offset,
                partition_max_bytes: partition.partition_max_bytes,
            });
        },
        |topic, index| forgotten.push(key.borrow_mut()(topic, index)),
    )?;
    let asked = Asked::of(&view);
    let session = SessionRequest {
        session_id: view.session_id,
        session_epoch: view.session_epoch,
        by_id: context.api_version >= BY_ID_SINCE,
        from_follower: asked.replica != BrokerId::NONE,
        partitions,
        forgotten,
    };
    Ok((asked, session))
}

/// The name of a topic that is known isn't copied.
fn fetch_topic(image: &MetadataImage, topic: TopicRef<'_>) -> FetchTopic {
    match topic {
        TopicRef::Id(id) => FetchTopic::Id(id),
        TopicRef::Name(name) => FetchTopic::Name(match image.topics.by_name(name) {
            Some(known) => known.name.clone(),
            None => name.into(),
        }),
    }
}

/// What the client may read. Followers read with a right of their own, in all topics;
/// consumers need one for each topic.
struct Access<'a> {
    shard: &'a Shard,
    context: &'a RequestContext,
    follower: Option<bool>,
    /// Of the last topic that was asked for: its partitions are neighbours.
    last: Option<(Uuid, bool)>,
}

impl<'a> Access<'a> {
    fn of(shard: &'a Shard, context: &'a RequestContext, asked: &Asked) -> Access<'a> {
        let may_follow = || {
            let (action, cluster) = (Operation::ClusterAction, ResourceType::Cluster);
            shard.authorize(context, action, cluster, CLUSTER_NAME)
        };
        Access {
            shard,
            context,
            follower: (asked.replica != BrokerId::NONE).then(may_follow),
            last: None,
        }
    }

    fn may_read(&mut self, topic: &TopicImage) -> bool {
        match (self.follower, self.last) {
            (Some(allowed), _) => allowed,
            (None, Some((id, allowed))) if id == topic.id => allowed,
            (None, _) => {
                let (read, kind) = (Operation::Read, ResourceType::Topic);
                let allowed = self.shard.authorize(self.context, read, kind, &topic.name);
                self.last = Some((topic.id, allowed));
                allowed
            }
        }
    }

    fn may_read_name(&self, topic: &str) -> bool {
        let (read, kind) = (Operation::Read, ResourceType::Topic);
        let may_read = || self.shard.authorize(self.context, read, kind, topic);
        self.follower.unwrap_or_else(may_read)
    }

    fn resolve(&mut self, image: &MetadataImage, spec: &FetchSpec) -> Resolved {
        let found = match &spec.key.topic {
            FetchTopic::Id(id) => image.topics.by_id(*id),
            FetchTopic::Name(name) => image.topics.by_name(name),
        };
        let Some(topic) = found else {
            let refused = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
            let (name, topic_id, error) = match &spec.key.topic {
                FetchTopic::Id(id) => {
                    let unknown = ErrorCode::UNKNOWN_TOPIC_ID;
                    let is_refused = self.follower == Some(false);
                    (
                        Arc::from(""),
                        *id,
                        if is_refused { refused } else { unknown },
                    )
                }
                FetchTopic::Name(name) => {
                    let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
                    let may_read = self.may_read_name(name);
                    let error = if may_read { unknown } else { refused };
                    (name.clone(), Uuid::ZERO, error)
                }
            };
            return Resolved {
                name,
                topic_id,
                target: Err(error),
            };
        };
        let index = spec.key.partition;
        let target = if !self.may_read(topic) {
            Err(ErrorCode::TOPIC_AUTHORIZATION_FAILED)
        } else if topic.partition(index).is_none() {
            Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
        } else {
            Ok(TopicIdPartition {
                topic_id: topic.id,
                partition: index,
            })
        };
        Resolved {
            name: topic.name.clone(),
            topic_id: topic.id,
            target,
        }
    }
}

/// Reads what could be resolved; the answers stand in the order of the partitions.
async fn read(
    shard: &Rc<Shard>,
    context: &RequestContext,
    asked: &Asked,
    begun: &Begun,
    topics: &[Resolved],
) -> Answers {
    let mut answers = Answers::with_capacity(topics.len());
    let mut partitions = SmallVec::with_capacity(topics.len());
    for (slot, (spec, topic)) in (0u32..).zip(begun.partitions.iter().zip(topics)) {
        answers.push(match topic.target {
            Err(error) => FetchAnswer {
                // Kafka's answer to what it doesn't read has an empty list here, not null.
                aborted: Some(Vec::new()),
                ..FetchAnswer::refused(slot, error)
            },
            Ok(partition) => {
                partitions.push(FetchPartition {
                    slot,
                    partition,
                    current_leader_epoch: LeaderEpoch(spec.current_leader_epoch),
                    fetch_offset: Offset(spec.fetch_offset),
                    last_fetched_epoch: LeaderEpoch(spec.last_fetched_epoch),
                    log_start_offset: Offset(spec.log_start_offset),
                    partition_max_bytes: u32::try_from(spec.partition_max_bytes).unwrap_or(0),
                });
                FetchAnswer::refused(slot, ErrorCode::NOT_LEADER_OR_FOLLOWER)
            }
        });
    }
    let limit = u32::try_from(shard.node().config.fetch.fetch_max_bytes).unwrap_or(0);
    let max_bytes = asked.max_bytes.min(limit);
    let refused = partitions.len() < answers.len();
    let gathered = gather(
        shard,
        Gather {
            read: FetchRead {
                max_bytes,
                read_committed: asked.read_committed,
                replica: asked.replica,
                replica_epoch: asked.replica_epoch,
                is_first: true,
                version: context.api_version,
            },
            min_bytes: asked.min_bytes.min(u64::from(max_bytes)),
            deadline: shard.rt().last_stamp() + asked.max_wait,
            partitions,
            refused,
            leave: (asked.replica != BrokerId::NONE && begun.session_id > 0)
                .then(|| shard.parked().enter(begun.session_id)),
        },
    )
    .await;
    for answer in gathered {
        let slot = answer.slot as usize;
        answers[slot] = answer;
    }
    answers
}

fn outcome(answer: &FetchAnswer) -> FetchOutcome {
    FetchOutcome {
        error: answer.error,
        high_watermark: answer.high_watermark.0,
        log_start_offset: answer.log_start_offset.0,
        has_records: answer.bytes > 0,
        has_news: answer.diverging.is_some(),
    }
}

fn respond(
    shard: &Shard,
    context: &RequestContext,
    begun: &Begun,
    topics: &[Resolved],
    mut answers: Answers,
    sent: &[bool],
) -> Result<Response, EncodeError> {
    let slots: SmallVec<[usize; 16]> = (0..answers.len()).filter(|slot| sent[*slot]).collect();
    let topic_of = |slot: usize| &begun.partitions[slot].key.topic;
    let runs = || slots.chunk_by(|a, b| topic_of(*a) == topic_of(*b));
    let head = FetchHead {
        throttle_time_ms: 0,
        error_code: ErrorCode::NONE.0,
        session_id: begun.session_id,
    };
    let mut encoder = FetchEncoder::new(
        shard.spares().take_slab(),
        context.api_version,
        context.correlation_id,
        head,
        runs().count(),
    )?;
    let mut leaders = Vec::new();
    for run in runs() {
        let topic = &topics[run[0]];
        encoder.topic(&topic.name, topic.topic_id, run.len())?;
        for &slot in run {
            let answer = &mut answers[slot];
            let data = partition_data(context, begun.partitions[slot].key.partition, answer);
            if data.current_leader.leader_id >= 0 {
                leaders.push(BrokerId(data.current_leader.leader_id));
            }
            encoder.partition(&data, Some(answer.bytes as usize))?;
        }
    }
    let encoded = encoder.finish(&endpoints(&shard.image(), context, leaders))?;
    let mut out = Response::default();
    let mut with_records = answers
        .iter_mut()
        .enumerate()
        .filter(|(slot, answer)| sent[*slot] && answer.bytes > 0);
    for piece in encoded.pieces() {
        match piece {
            Piece::Encoded(bytes) => out.push(Chunk::Bytes(bytes)),
            Piece::Records(_) => {
                let next = with_records.next();
                let (_, answer) = next.expect("one piece for each non-empty answer");
                for chunk in answer.chunks.drain(..) {
                    out.push(chunk);
                }
            }
        }
    }
    shard.spares().keep_slab(encoded.into_rest());
    Ok(out)
}

fn partition_data(
    context: &RequestContext,
    index: PartitionIndex,
    answer: &mut FetchAnswer,
) -> PartitionData {
    let leader = answer
        .leader
        .filter(|_| context.api_version >= NODE_ENDPOINTS_SINCE);
    PartitionData {
        partition_index: index.0,
        error_code: answer.error.0,
        high_watermark: answer.high_watermark.0,
        last_stable_offset: answer.last_stable_offset.0,
        log_start_offset: answer.log_start_offset.0,
        aborted_transactions: answer.aborted.take(),
        diverging_epoch: answer
            .diverging
            .map_or_else(EpochEndOffset::default, |(epoch, end)| EpochEndOffset {
                epoch: epoch.0,
                end_offset: end.0,
            }),
        current_leader: leader.map_or_else(LeaderIdAndEpoch::default, |(id, epoch)| {
            LeaderIdAndEpoch {
                leader_id: id.0,
                leader_epoch: epoch.0,
            }
        }),
        ..Default::default()
    }
}

fn endpoints(
    image: &MetadataImage,
    context: &RequestContext,
    mut leaders: Vec<BrokerId>,
) -> Vec<NodeEndpoint> {
    if context.api_version < NODE_ENDPOINTS_SINCE {
        return Vec::new();
    }
    leaders.sort_unstable();
    leaders.dedup();
    leaders
        .into_iter()
        .filter_map(|id| endpoint::find(image, id, &context.listener))
        .map(|broker| NodeEndpoint {
            node_id: broker.id.0,
            host: broker.host,
            port: broker.port,
            rack: broker.rack,
        })
        .collect()
}

/// The request as a whole is refused; before version 7 there was no place to say so but
/// an empty answer.
fn failed(shard: &Shard, context: &RequestContext, error: ErrorCode) -> Reply {
    let head = FetchHead {
        throttle_time_ms: 0,
        error_code: error.0,
        session_id: 0,
    };
    let encoded = FetchEncoder::new(
        shard.spares().take_slab(),
        context.api_version,
        context.correlation_id,
        head,
        0,
    )
    .and_then(|encoder| encoder.finish(&[]));
    match encoded {
        Ok(encoded) => {
            let mut out = Response::default();
            for piece in encoded.pieces() {
                if let Piece::Encoded(bytes) = piece {
                    out.push(Chunk::Bytes(bytes));
                }
            }
            shard.spares().keep_slab(encoded.into_rest());
            Reply::Send(out)
        }
        Err(error) => Reply::Close(format!("a Fetch response could not be encoded: {error}")),
    }
}
