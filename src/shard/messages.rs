//! What crosses the mesh between cores. Everything is `Send` and owned; a request is
//! answered by the reply of the same name.
//!
//! Made by `shard` and the API handlers, taken apart by `Shard::on_request`.
//!
//! Invariant: a reply waits for nothing that another core's request would have to bring,
//! because a request that isn't answered keeps a place that others need. What may wait
//! (a produce for replicas or the disk, a connection for its turn, a join) names an
//! operation: it is answered by `Done` at once, and by [`ShardRequest::LongDone`] in the end.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::BytesMut;
use smallvec::SmallVec;

use super::connection::Arrival;
use super::connections::Class;
use super::directories::Move;
use super::fetcher::parts::{FetchedPart, FollowPart, Followed};
use super::limits::Ticket;
use super::operation::OperationId;
use super::session_table::SessionMessage;
use crate::base::{
    BrokerId, CoreId, ErrorCode, LeaderEpoch, Millis, Nanos, Offset, PartitionIndex,
    TopicIdPartition, Uuid,
};
use crate::controller::{ControllerRequest, ControllerResponse};
use crate::io::Chunk;
use crate::metadata::{ImageChanges, MetadataImage};
use crate::quota::connections::Verdict;
use crate::raft::quorum;
use crate::replica::isr::{Answer, Proposal};
use crate::telemetry::CoreSnapshot;
use crate::wire::messages as wire;
use crate::wire::messages::fetch_response::AbortedTransaction;

pub enum ShardRequest {
    /// Appends to partitions of the receiving core. Outcomes that are known are the reply;
    /// if `acks` isn't satisfied yet, they are the operation's answer.
    Produce(OperationId, Box<ProducePart>),
    /// Reads partitions of the receiving core as they are now.
    Fetch(Box<FetchPart>),
    /// Wakes the operation when one of these partitions has grown as far.
    Watch(WatchPart),
    /// The operation ended: nobody is to be woken any more.
    Unwatch(OperationId, Vec<TopicIdPartition>),
    /// What partitions want of a leader whose fetcher runs on the receiving core.
    Follow(Box<FollowPart>),
    /// What a leader has answered for partitions of the receiving core.
    Fetched(Box<FetchedPart>),
    Wake(OperationId),
    /// Short calls on partitions, by their slot in the caller's request.
    Partitions(Vec<(u32, TopicIdPartition, PartitionCall)>),
    /// A call that may take long: acknowledged now, answered by [`ShardRequest::LongDone`].
    Long(OperationId, Box<LongCall>),
    LongDone(OperationId, Box<LongReply>),
    /// The new image; answered when the core uses it.
    Publish(Arc<Published>),
    /// For the controller's core.
    Controller(Box<ControllerRequest>),
    /// For the controller's core: a request to the metadata quorum.
    Quorum(Box<QuorumCall>),
    /// A connection has been accepted: the operation is answered when it may be served or is
    /// to be closed.
    Admit(OperationId, Ticket),
    /// A connection that was admitted has ended.
    Ended(Ticket),
    /// When the core's least recently used connection was last used; with `evict` it is
    /// closed.
    LeastUsed {
        class: Class,
        evict: bool,
    },
    /// Memory for requests has come back to the node's pool.
    MemoryFreed,
    /// Opens these listeners; answered when connections are taken.
    Listen(Vec<ListenerSpec>),
    /// Who has a fetch session, and who is to have it.
    Session(SessionMessage),
    /// Serves this connection from now on.
    Adopt(Box<Arrival>),
    /// Offsets of all local partitions, for the checkpoint files.
    Checkpoints,
    /// What the core has counted.
    Snapshot,
    /// Flush and close every log; the core serves no partition afterwards.
    CloseLogs,
    /// For the controller's core: answered when the offsets of all local partitions, as they
    /// are now, stand in the checkpoint files.
    WriteCheckpoints,
    /// For the controller's core: a log directory can't be written any more, and why.
    DirectoryFailed(Box<(Uuid, String)>),
    /// For the controller's core: in which log directory a replica will be. Answered when the
    /// controller has taken it.
    ReplicaMoving(Box<(TopicIdPartition, Uuid)>),
    /// Goes on with a move of an earlier life of the node.
    ResumeMove(Box<Move>),
    /// For the controller's core: in which log directory a replica is now.
    ReplicaMoved(Box<(TopicIdPartition, Uuid)>),
    /// A log directory has failed: its partitions are offline from now on.
    TakeOffline(Uuid),
    /// For the controller's core: a leader would change its ISR.
    ProposeIsr(Box<(TopicIdPartition, Proposal)>),
    /// The controller's words on proposals of the receiving core.
    IsrAnswers(Vec<(TopicIdPartition, Answer)>),
}

pub enum ShardReply {
    /// The part that was asked, with its outcomes.
    Produce(Box<ProducePart>),
    /// The part that was asked, with its answers.
    Fetch(Box<FetchPart>),
    Done,
    /// What they want of it next.
    Fetched(Vec<Followed>),
    Partitions(Vec<(u32, PartitionReply)>),
    Controller(Box<ControllerResponse>),
    /// None where there is no quorum, or no leader that answers.
    Quorum(Option<Box<quorum::Response>>),
    /// None when there is none of the class.
    LeastUsed(Option<Nanos>),
    Listening(std::io::Result<()>),
    Checkpoints(Vec<PartitionCheckpoint>),
    /// With the directories of logs that couldn't be closed.
    Closed(Box<(Vec<PartitionCheckpoint>, Vec<Uuid>)>),
    Snapshot(Box<CoreSnapshot>),
}

/// A request to the metadata quorum.
pub struct QuorumCall {
    pub api_version: i16,
    pub request: quorum::Request,
    /// Whether it is for the quorum's leader, wherever that is.
    pub for_leader: bool,
}

impl PartitionReply {
    /// The error of a reply that isn't what was asked for.
    pub fn error(&self) -> ErrorCode {
        match self {
            PartitionReply::Refused(error) => *error,
            _ => ErrorCode::UNKNOWN_SERVER_ERROR,
        }
    }
}

/// One immutable state of the cluster: each core holds a pointer to it.
pub struct Published {
    pub image: Arc<MetadataImage>,
    pub changes: Arc<ImageChanges>,
    pub placement: Arc<Placement>,
}

impl Published {
    /// Before the first image.
    pub fn empty() -> Published {
        Published {
            image: Arc::default(),
            changes: Arc::default(),
            placement: Arc::default(),
        }
    }
}

/// Which core owns which local replica, and where its log is.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    pub owners: HashMap<TopicIdPartition, CoreId>,
    /// The log directory of each; none where it is in one that is offline.
    pub directories: HashMap<TopicIdPartition, Option<Uuid>>,
}

impl Placement {
    pub fn owner(&self, partition: TopicIdPartition) -> Option<CoreId> {
        self.owners.get(&partition).copied()
    }
}

/// A listener to be opened on every core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSpec {
    pub name: Arc<str>,
    pub address: SocketAddr,
}

/// What one core does of a produce. It goes to its owner and comes back in one box.
#[derive(Default)]
pub struct ProducePart {
    pub acks: i16,
    /// When a produce with acks=all gives up.
    pub deadline: Nanos,
    /// When it left for the core that owns the partitions.
    pub sent: Nanos,
    pub version: i16,
    pub partitions: SmallVec<[ProducePartition; 1]>,
    /// Of the partitions, once they were appended to.
    pub outcomes: SmallVec<[ProduceOutcome; 1]>,
}

pub struct ProducePartition {
    /// Position in the caller's request.
    pub slot: u32,
    pub partition: TopicIdPartition,
    pub records: BytesMut,
    /// Size of the receive buffer that they lie in.
    pub buffer_bytes: usize,
}

/// What became of one partition of a produce.
#[derive(Clone, Debug)]
pub struct ProduceOutcome {
    pub slot: u32,
    pub error: ErrorCode,
    /// -1 when nothing was appended.
    pub base_offset: Offset,
    pub log_append_time: Millis,
    pub log_start_offset: Offset,
    pub record_errors: Vec<(i32, Option<String>)>,
    pub message: Option<String>,
    /// Told with NOT_LEADER_OR_FOLLOWER.
    pub leader: Option<(BrokerId, LeaderEpoch)>,
}

impl ProduceOutcome {
    pub fn refused(slot: u32, error: ErrorCode) -> ProduceOutcome {
        ProduceOutcome {
            slot,
            error,
            base_offset: Offset(-1),
            log_append_time: -1,
            log_start_offset: Offset(-1),
            record_errors: Vec::new(),
            message: None,
            leader: None,
        }
    }
}

/// What one core reads for a fetch. It goes to its owner and comes back in one box.
#[derive(Debug, Default)]
pub struct FetchPart {
    /// When it left for the core that owns the partitions.
    pub sent: Nanos,
    pub read: FetchRead,
    pub partitions: SmallVec<[FetchPartition; 1]>,
    /// Of the partitions, once they were read.
    pub answers: SmallVec<[FetchAnswer; 1]>,
}

/// What one fetch asks of all its partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchRead {
    /// Bytes of the whole response.
    pub max_bytes: u32,
    /// Up to the last stable offset only.
    pub read_committed: bool,
    /// The fetching broker; [`BrokerId::NONE`] for a consumer.
    pub replica: BrokerId,
    /// The epoch of its registration; -1 where it doesn't say.
    pub replica_epoch: i64,
    /// Nothing has been read for this request yet: what a follower has counts when its request
    /// comes, not when it is looked at again.
    pub is_first: bool,
    pub version: i16,
}

#[derive(Clone, Copy, Debug)]
pub struct FetchPartition {
    pub slot: u32,
    pub partition: TopicIdPartition,
    pub current_leader_epoch: LeaderEpoch,
    pub fetch_offset: Offset,
    pub last_fetched_epoch: LeaderEpoch,
    /// Where a follower's log begins; [`Offset::UNKNOWN`] for a consumer.
    pub log_start_offset: Offset,
    pub partition_max_bytes: u32,
}

/// One partition's answer, before the limits of the whole response are applied.
#[derive(Clone, Debug)]
pub struct FetchAnswer {
    pub slot: u32,
    pub error: ErrorCode,
    pub high_watermark: Offset,
    pub last_stable_offset: Offset,
    pub log_start_offset: Offset,
    /// Transactions to leave out; none unless only committed records are read.
    pub aborted: Option<Vec<AbortedTransaction>>,
    /// Epoch and its end offset at the leader, where the fetcher's log has diverged.
    pub diverging: Option<(LeaderEpoch, Offset)>,
    /// Told with NOT_LEADER_OR_FOLLOWER and FENCED_LEADER_EPOCH.
    pub leader: Option<(BrokerId, LeaderEpoch)>,
    pub chunks: SmallVec<[Chunk; 2]>,
    /// Bytes in `chunks`.
    pub bytes: u32,
    /// Size of the first batch in `chunks`, which may be larger than every limit.
    pub first_batch_bytes: u32,
    /// What a parked fetch compares with: see [`WatchPartition`].
    pub seen: Seen,
}

impl FetchAnswer {
    pub fn refused(slot: u32, error: ErrorCode) -> FetchAnswer {
        FetchAnswer {
            slot,
            error,
            high_watermark: Offset(-1),
            last_stable_offset: Offset(-1),
            log_start_offset: Offset(-1),
            aborted: None,
            diverging: None,
            leader: None,
            chunks: SmallVec::new(),
            bytes: 0,
            first_batch_bytes: 0,
            seen: Seen::default(),
        }
    }
}

/// How a partition was when it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Bytes readable by this fetch, counted since the partition was opened.
    pub bytes: u64,
    /// Rises with every change other than an append (leadership, truncation, start).
    pub version: u32,
}

pub struct WatchPart {
    pub operation: OperationId,
    /// A follower waits for the log's bytes, a consumer for readable ones.
    pub for_follower: bool,
    /// Bytes beyond what was seen, together on one core, that are worth a wake.
    pub bytes_min: u64,
    pub partitions: Vec<WatchPartition>,
}

#[derive(Clone, Copy, Debug)]
pub struct WatchPartition {
    pub partition: TopicIdPartition,
    pub seen: Seen,
}

/// A short call on one partition.
#[derive(Clone, Debug)]
pub enum PartitionCall {
    /// An offset for a timestamp or one of Kafka's special ones (ListOffsets).
    FindOffset {
        timestamp: i64,
        current_leader_epoch: LeaderEpoch,
        read_committed: bool,
        from_consumer: bool,
    },
    /// The end offset of the largest epoch that is not above `epoch`.
    EpochEnd {
        current_leader_epoch: LeaderEpoch,
        epoch: LeaderEpoch,
    },
    /// Moves the log start; -1 means the high watermark.
    DeleteRecords { offset: Offset },
    /// Has the replica moved to another log directory.
    Move { directory: Uuid },
    /// Size and end, for DescribeLogDirs.
    Summary,
}

impl PartitionCall {
    /// Whether it may be made again when it was given up half-way.
    pub fn changes_nothing(&self) -> bool {
        match self {
            PartitionCall::FindOffset { .. }
            | PartitionCall::EpochEnd { .. }
            | PartitionCall::Summary => true,
            PartitionCall::DeleteRecords { .. } | PartitionCall::Move { .. } => false,
        }
    }
}

#[derive(Clone, Debug)]
pub enum PartitionReply {
    Offset(FoundOffset),
    EpochEnd(EpochEnd),
    /// The low watermark after deletion.
    Deleted(Offset),
    /// It will be moved, or is there.
    Moving,
    Summary(LogSummary),
    Refused(ErrorCode),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    pub timestamp: i64,
    pub offset: Offset,
    pub leader_epoch: LeaderEpoch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    pub epoch: LeaderEpoch,
    pub end_offset: Offset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSummary {
    /// The log directory that holds it.
    pub directory: Uuid,
    pub size_bytes: u64,
    pub log_end_offset: Offset,
    pub high_watermark: Offset,
    /// Where it is being moved to.
    pub copy: Option<CopySummary>,
}

/// How far a replica's copy in another log directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopySummary {
    pub directory: Uuid,
    pub size_bytes: u64,
    pub log_end_offset: Offset,
}

/// A partition's line in the checkpoint files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionCheckpoint {
    pub topic: Arc<str>,
    pub partition: PartitionIndex,
    /// Which of the node's log directories holds it.
    pub directory: Uuid,
    pub recovery_point: Offset,
    pub high_watermark: Offset,
    /// Only where the log starts inside its first segment.
    pub log_start_offset: Option<Offset>,
}

pub enum LongCall {
    Group(PartitionIndex, GroupCall),
}

pub enum LongReply {
    Group(GroupReply),
    Produce(Box<ProducePart>),
    Admission(Verdict),
}

/// A request to the coordinator on one partition of `__consumer_offsets`.
pub enum GroupCall {
    Join {
        client_id: String,
        client_address: IpAddr,
        request: wire::JoinGroupRequest,
        version: i16,
    },
    Sync(wire::SyncGroupRequest, i16),
    Heartbeat(wire::HeartbeatRequest),
    Leave(wire::LeaveGroupRequest, i16),
    Commit(wire::OffsetCommitRequest, i16),
    FetchOffsets {
        group: wire::offset_fetch_request::OffsetFetchRequestGroup,
        require_stable: bool,
        version: i16,
    },
    DeleteOffsets(wire::OffsetDeleteRequest),
    List(wire::ListGroupsRequest),
    Describe(Vec<String>, i16),
    Delete(Vec<String>),
}

pub enum GroupReply {
    Join(wire::JoinGroupResponse),
    Sync(wire::SyncGroupResponse),
    Heartbeat(wire::HeartbeatResponse),
    Leave(wire::LeaveGroupResponse),
    Commit(wire::OffsetCommitResponse),
    FetchOffsets(wire::offset_fetch_response::OffsetFetchResponseGroup),
    DeleteOffsets(wire::OffsetDeleteResponse),
    List(wire::ListGroupsResponse),
    Describe(Vec<wire::describe_groups_response::DescribedGroup>),
    Delete(Vec<wire::delete_groups_response::DeletableGroupResult>),
    /// No coordinator on that core: the partition has moved or is not known yet.
    NoCoordinator,
}
