//! Produce: batches to the logs of the partitions' owners.
//!
//! The request is walked in place and its batches are split off the frame without a copy;
//! the first step of this future (which the connection takes as the frame comes in) hands
//! every batch to its owner, so appends keep the order of requests. Control goes on in
//! `shard::produce`, and comes back with one outcome a partition.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use smallvec::SmallVec;

use super::endpoint;
use crate::base::{BrokerId, ErrorCode, PartitionIndex, TopicIdPartition, Uuid};
use crate::controller::topic_name;
use crate::metadata::MetadataImage;
use crate::record::BatchView;
use crate::security::{Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::shard::messages::{ProduceOutcome, ProducePart, ProducePartition};
use crate::shard::processor::{Reply, Request, reply_by};
use crate::shard::produce::{self, Outcomes};
use crate::telemetry::Stage;
use crate::wire::codec::{Decoder, EncodeError};
use crate::wire::messages::produce_response::{LeaderIdAndEpoch, NodeEndpoint};
use crate::wire::produce_encoder::{PartitionOutcome, ProduceEncoder};
use crate::wire::produce_view::{ProduceView, TopicRef};

/// The client that may write to internal topics (`__admin_client` of Kafka's tools).
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// First version that tells where the leader is.
const LEADER_SINCE: i16 = 10;

const ACKS_ALL: i16 = -1;
const ACKS_NONE: i16 = 0;
const ACKS_LEADER: i16 = 1;

pub async fn handle(shard: Rc<Shard>, request: Request) -> Reply {
    let Request {
        context,
        mut body,
        buffer_bytes,
        started,
        traffic,
    } = request;
    let plan = match Plan::of(&shard, &context, &body) {
        Ok(plan) => plan,
        Err(reason) => return Reply::Close(reason),
    };
    let parsed = shard.end_stage(context.api_key, Stage::Parsed, started);
    let Plan {
        acks,
        timeout,
        topics,
        partitions,
    } = plan;
    let mut outcomes = Outcomes::with_capacity(partitions.len());
    let mut admitted = SmallVec::with_capacity(partitions.len());
    let mut position = 0;
    for (slot, planned) in (0u32..).zip(&partitions) {
        let records = split(&mut body, &mut position, planned.records.clone());
        match (planned.target, records) {
            (Ok(partition), Some(records)) => {
                admitted.push(ProducePartition {
                    slot,
                    partition,
                    records,
                    buffer_bytes,
                });
                // Stands if no core owns the partition.
                outcomes.push(ProduceOutcome::refused(
                    slot,
                    ErrorCode::NOT_LEADER_OR_FOLLOWER,
                ));
            }
            (Ok(_), None) => {
                outcomes.push(ProduceOutcome::refused(slot, ErrorCode::INVALID_RECORD));
            }
            (Err(error), _) => outcomes.push(ProduceOutcome::refused(slot, error)),
        }
    }
    drop(body);
    let part = ProducePart {
        acks,
        deadline: parsed + timeout,
        sent: parsed,
        version: context.api_version,
        partitions: admitted,
        ..ProducePart::default()
    };
    for outcome in produce::scatter(&shard, part, &traffic).await {
        let slot = outcome.slot as usize;
        outcomes[slot] = outcome;
    }
    if acks == ACKS_NONE {
        return match outcomes.iter().find(|outcome| !outcome.error.is_ok()) {
            // The only way to tell a producer that waits for nothing.
            Some(outcome) => {
                Reply::Close(format!("a produce with acks=0 failed: {}", outcome.error))
            }
            None => Reply::Nothing,
        };
    }
    reply_by(shard.spares(), &context, |out| {
        respond(&shard, &context, &topics, &partitions, &outcomes, out)
    })
}

/// The request, resolved and checked as far as the metadata tells.
struct Plan {
    acks: i16,
    timeout: Duration,
    topics: SmallVec<[PlannedTopic; 1]>,
    /// In the request's order; a topic's partitions are neighbours.
    partitions: SmallVec<[PlannedPartition; 1]>,
}

struct PlannedTopic {
    /// Absent in a request by ids.
    name: Option<Arc<str>>,
    id: Uuid,
    partition_count: usize,
}

struct PlannedPartition {
    index: i32,
    target: Result<TopicIdPartition, ErrorCode>,
    records: Option<Range<usize>>,
}

impl Plan {
    fn of(shard: &Shard, context: &RequestContext, body: &BytesMut) -> Result<Plan, String> {
        let view = ProduceView::decode(Decoder::borrowed(body), context.api_version)
            .map_err(|error| format!("an undecodable Produce: {error}"))?;
        let mut plan = Plan {
            acks: view.acks,
            timeout: Duration::from_millis(u64::try_from(view.timeout_ms).unwrap_or(0)),
            topics: SmallVec::new(),
            partitions: SmallVec::with_capacity(view.partition_count()),
        };
        let refusal = refuse_whole(shard, context, &view, body);
        let image = shard.image();
        let mut admitted: Result<Uuid, ErrorCode> = Ok(Uuid::ZERO);
        let mut last_topic = None;
        for partition in view.partitions() {
            if last_topic != Some(partition.topic_index) {
                // Topics without partitions aren't met here, nor answered.
                last_topic = Some(partition.topic_index);
                let (topic, admission) = admit(shard, context, &image, partition.topic);
                plan.topics.push(topic);
                admitted = refusal.map_or(admission, Err);
            }
            let topic = plan.topics.last_mut();
            topic.expect("it was just met").partition_count += 1;
            let target = admitted.and_then(|topic_id| {
                let known = image.topics.by_id(topic_id).is_some_and(|topic| {
                    topic
                        .partition(PartitionIndex(partition.partition_index))
                        .is_some()
                });
                if known {
                    Ok(TopicIdPartition {
                        topic_id,
                        partition: PartitionIndex(partition.partition_index),
                    })
                } else {
                    Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
                }
            });
            plan.partitions.push(PlannedPartition {
                index: partition.partition_index,
                target,
                records: partition.records,
            });
        }
        Ok(plan)
    }
}

/// What is wrong with the request as a whole.
fn refuse_whole(
    shard: &Shard,
    context: &RequestContext,
    view: &ProduceView<'_>,
    body: &[u8],
) -> Option<ErrorCode> {
    let mut batches = view
        .partitions()
        .filter_map(|partition| BatchView::parse(&body[partition.records?]).ok());
    if batches.any(|batch| batch.is_transactional()) {
        let allowed = view.transactional_id.is_some_and(|id| {
            shard.authorize(context, Operation::Write, ResourceType::TransactionalId, id)
        });
        if !allowed {
            return Some(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
        }
    }
    if !matches!(view.acks, ACKS_ALL | ACKS_NONE | ACKS_LEADER) {
        return Some(ErrorCode::INVALID_REQUIRED_ACKS);
    }
    None
}

/// Resolves one topic and checks the right to write to it.
fn admit(
    shard: &Shard,
    context: &RequestContext,
    image: &MetadataImage,
    topic: TopicRef<'_>,
) -> (PlannedTopic, Result<Uuid, ErrorCode>) {
    let (found, unknown, asked_name, id) = match topic {
        TopicRef::Name(name) => (
            image.topics.by_name(name),
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            name,
            Uuid::ZERO,
        ),
        TopicRef::Id(id) => (image.topics.by_id(id), ErrorCode::UNKNOWN_TOPIC_ID, "", id),
    };
    let name = found.map_or(asked_name, |topic| &topic.name);
    let admission = match found {
        None if matches!(topic, TopicRef::Id(_)) => Err(unknown),
        _ if !shard.authorize(context, Operation::Write, ResourceType::Topic, name) => {
            Err(ErrorCode::TOPIC_AUTHORIZATION_FAILED)
        }
        None => Err(unknown),
        Some(found)
            if topic_name::is_internal(&found.name)
                && context.client_id.as_deref() != Some(ADMIN_CLIENT_ID) =>
        {
            Err(ErrorCode::INVALID_TOPIC_EXCEPTION)
        }
        Some(found) => Ok(found.id),
    };
    let planned = PlannedTopic {
        name: match topic {
            // The name of a topic that is known isn't copied.
            TopicRef::Name(name) => Some(found.map_or_else(|| name.into(), |t| t.name.clone())),
            TopicRef::Id(_) => None,
        },
        id,
        partition_count: 0,
    };
    (planned, admission)
}

/// Splits the records at `range` (of the whole body) off what is left of it.
fn split(
    rest: &mut BytesMut,
    position: &mut usize,
    range: Option<Range<usize>>,
) -> Option<BytesMut> {
    let range = range?;
    rest.advance(range.start - *position);
    *position = range.end;
    Some(rest.split_to(range.len()))
}

fn respond(
    shard: &Shard,
    context: &RequestContext,
    topics: &[PlannedTopic],
    partitions: &[PlannedPartition],
    outcomes: &[ProduceOutcome],
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let mut encoder = ProduceEncoder::new(out, context.api_version, topics.len())?;
    let mut leaders: Vec<BrokerId> = Vec::new();
    let mut answered = partitions.iter().zip(outcomes);
    for topic in topics {
        let name = topic.name.as_deref().unwrap_or_default();
        encoder.topic(name, topic.id, topic.partition_count)?;
        for (planned, outcome) in answered.by_ref().take(topic.partition_count) {
            let leader = outcome
                .leader
                .filter(|_| context.api_version >= LEADER_SINCE);
            if let Some((id, _)) = leader
                && !leaders.contains(&id)
            {
                leaders.push(id);
            }
            encoder.partition(&PartitionOutcome {
                index: planned.index,
                error_code: outcome.error.0,
                base_offset: outcome.base_offset.0,
                log_append_time_ms: outcome.log_append_time,
                log_start_offset: outcome.log_start_offset.0,
                record_errors: &outcome.record_errors,
                error_message: outcome.message.as_deref(),
                current_leader: leader.map(|(id, epoch)| LeaderIdAndEpoch {
                    leader_id: id.0,
                    leader_epoch: epoch.0,
                }),
            })?;
        }
    }
    encoder.finish(&endpoints(&shard.image(), context, leaders))
}

fn endpoints(
    image: &MetadataImage,
    context: &RequestContext,
    leaders: Vec<BrokerId>,
) -> Vec<NodeEndpoint> {
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
