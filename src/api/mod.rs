//! One file per API, and one table that names them all: key, versions, whether it overlaps
//! with others on its connection, and the handler. `node` hands the table to the shards;
//! ApiVersions and the processor are derived from it.
//!
//! A handler reads: authorise, validate, route to the owning core, combine, respond. It
//! runs on the core of the client's connection.

pub mod alter_configs;
pub mod alter_replica_log_dirs;
pub mod api_versions;
pub mod auto_create;
pub mod broker_lifecycle;
pub mod config_resource;
pub mod create_acls;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_acls;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_acls;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_quorum;
pub mod describe_topic_partitions;
pub mod endpoint;
pub mod fetch;
pub mod find_coordinator;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_groups;
pub mod list_offsets;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod quorum;
pub mod scatter;
pub mod sync_group;

use std::future::Future;
use std::rc::Rc;

use crate::base::ErrorCode;
use crate::controller::ControllerResponse;
use crate::security::RequestContext;
use crate::shard::Shard;
use crate::shard::metrics::Timing;
use crate::shard::processor::{Api, Reply, Request, reply};
use crate::shard::spares::Running;
use crate::telemetry::Stage;
use crate::wire::api_key::ApiKey;
use crate::wire::codec::{Decoder, Message};

/// An API whose request and response are generated messages.
macro_rules! api {
    ($key:ident, $versions:expr, $handler:path) => {
        Api {
            key: ApiKey::$key,
            versions: $versions,
            advertised_min: *$versions.start(),
            overlaps: false,
            memory_estimate: decoded_bytes,
            handler: |shard, request| {
                let spares = shard.spares().clone();
                let handler = |shard, request| typed(shard, request, $handler);
                Running::new(spares, timed(shard, request, handler))
            },
            on_unsupported_version: None,
        }
    };
}

/// Every API that this broker serves, by key.
pub static TABLE: [Api; 46] = [
    Api {
        key: ApiKey::Produce,
        versions: 3..=13,
        // librdkafka disables compression codecs unless version 0 is offered; Kafka
        // offers 0 too and refuses it when it comes.
        advertised_min: 0,
        overlaps: true,
        memory_estimate: |bytes| bytes,
        handler: |shard, request| {
            Running::new(
                shard.spares().clone(),
                timed(shard, request, produce::handle),
            )
        },
        on_unsupported_version: None,
    },
    Api {
        key: ApiKey::Fetch,
        versions: 4..=18,
        advertised_min: 4,
        overlaps: true,
        memory_estimate: decoded_bytes,
        handler: |shard, request| {
            // Controllers have one log to fetch, the quorum's.
            if shard.is_controller_listener(&request.context.listener) {
                let spares = shard.spares().clone();
                let handler = |shard, request| typed(shard, request, quorum::fetch);
                return Running::new(spares, timed(shard, request, handler));
            }
            Running::new(shard.spares().clone(), timed(shard, request, fetch::handle))
        },
        on_unsupported_version: None,
    },
    Api {
        overlaps: true,
        ..api!(ListOffsets, 1..=11, list_offsets::handle)
    },
    api!(Metadata, 0..=13, metadata::handle),
    api!(OffsetCommit, 2..=10, offset_commit::handle),
    api!(OffsetFetch, 1..=10, offset_fetch::handle),
    api!(FindCoordinator, 0..=6, find_coordinator::handle),
    api!(JoinGroup, 0..=9, join_group::handle),
    api!(Heartbeat, 0..=4, heartbeat::handle),
    api!(LeaveGroup, 0..=5, leave_group::handle),
    api!(SyncGroup, 0..=5, sync_group::handle),
    api!(DescribeGroups, 0..=6, describe_groups::handle),
    api!(ListGroups, 0..=5, list_groups::handle),
    Api {
        on_unsupported_version: Some(api_versions::unsupported),
        ..api!(ApiVersions, 0..=4, api_versions::handle)
    },
    api!(CreateTopics, 2..=7, create_topics::handle),
    api!(DeleteTopics, 1..=6, delete_topics::handle),
    api!(DeleteRecords, 0..=2, delete_records::handle),
    api!(InitProducerId, 0..=5, init_producer_id::handle),
    api!(OffsetForLeaderEpoch, 2..=4, offset_for_leader_epoch::handle),
    api!(DescribeAcls, 1..=3, describe_acls::handle),
    api!(CreateAcls, 1..=3, create_acls::handle),
    api!(DeleteAcls, 1..=3, delete_acls::handle),
    api!(DescribeConfigs, 1..=4, describe_configs::handle),
    api!(AlterConfigs, 0..=2, alter_configs::handle),
    api!(AlterReplicaLogDirs, 1..=2, alter_replica_log_dirs::handle),
    api!(DescribeLogDirs, 1..=5, describe_log_dirs::handle),
    api!(CreatePartitions, 0..=3, create_partitions::handle),
    api!(DeleteGroups, 0..=2, delete_groups::handle),
    api!(
        IncrementalAlterConfigs,
        0..=1,
        incremental_alter_configs::handle
    ),
    api!(OffsetDelete, 0..=0, offset_delete::handle),
    api!(Vote, 0..=2, quorum::vote),
    api!(BeginQuorumEpoch, 0..=1, quorum::begin_epoch),
    api!(EndQuorumEpoch, 0..=1, quorum::end_epoch),
    api!(DescribeQuorum, 0..=2, describe_quorum::handle),
    api!(FetchSnapshot, 0..=1, quorum::fetch_snapshot),
    api!(DescribeCluster, 0..=2, describe_cluster::handle),
    api!(BrokerRegistration, 0..=4, broker_lifecycle::register),
    api!(AlterPartition, 2..=3, broker_lifecycle::alter_partition),
    api!(BrokerHeartbeat, 0..=2, broker_lifecycle::heartbeat),
    api!(
        AllocateProducerIds,
        0..=0,
        broker_lifecycle::allocate_producer_ids
    ),
    api!(
        ControllerRegistration,
        0..=0,
        broker_lifecycle::register_controller
    ),
    api!(
        AssignReplicasToDirs,
        0..=0,
        broker_lifecycle::assign_replicas_to_dirs
    ),
    api!(
        DescribeTopicPartitions,
        0..=0,
        describe_topic_partitions::handle
    ),
    api!(AddRaftVoter, 0..=1, quorum::add_voter),
    api!(RemoveRaftVoter, 0..=0, quorum::remove_voter),
    api!(UpdateRaftVoter, 0..=0, quorum::update_voter),
];

/// Generated messages take more memory than their bytes: at worst what the decoder's
/// budget allows.
fn decoded_bytes(bytes: usize) -> usize {
    bytes.saturating_mul(crate::wire::codec::BUDGET_FACTOR)
}

/// The controller's code when it gave no answer: it is stopping.
fn controller_down(answer: &Option<ControllerResponse>) -> ErrorCode {
    match answer {
        None => ErrorCode::NOT_CONTROLLER,
        Some(_) => ErrorCode::UNKNOWN_SERVER_ERROR,
    }
}

/// Counts a request and how long it took.
async fn timed<F>(
    shard: Rc<Shard>,
    request: Request,
    handler: impl FnOnce(Rc<Shard>, Request) -> F,
) -> Reply
where
    F: Future<Output = Reply>,
{
    let timing = Timing::begin(&shard, &request);
    let reply = handler(shard.clone(), request).await;
    timing.finish(&reply);
    reply
}

/// Decodes, handles, encodes. An undecodable request ends its connection.
async fn typed<Q, R, F>(
    shard: Rc<Shard>,
    request: Request,
    handler: impl FnOnce(Rc<Shard>, RequestContext, Q) -> F,
) -> Reply
where
    Q: Message,
    R: Message,
    F: Future<Output = R>,
{
    let Request {
        context,
        body,
        started,
        ..
    } = request;
    let body = body.freeze();
    let decoded = match Q::decode(&mut Decoder::new(&body), context.api_version) {
        Ok(decoded) => decoded,
        Err(error) => {
            return Reply::Close(format!(
                "an undecodable {} version {}: {error}",
                Q::NAME,
                context.api_version
            ));
        }
    };
    let rt = shard.rt().clone();
    shard.end_stage(context.api_key, Stage::Parsed, started);
    drop(body);
    let response = handler(shard, context.clone(), decoded).await;
    // For the stages that follow. Produce and Fetch have one from their last part.
    rt.stamp();
    reply(&context, &response)
}
