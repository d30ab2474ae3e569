//! What goes into the state machine and what comes out of it. The shell carries out the
//! effects of a step in their order, before it gives the machine anything else.

use bytes::Bytes;

use super::super::quorum_state::ElectionState;
use super::super::voters::{Endpoint, ReplicaKey, Voter, VoterSet};
use super::log_view::OffsetAndEpoch;
use crate::base::{BrokerId, LeaderEpoch, Millis, Nanos, Offset};
use crate::wire::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, ApiVersionsRequest, ApiVersionsResponse,
    BeginQuorumEpochRequest, BeginQuorumEpochResponse, DescribeQuorumRequest,
    DescribeQuorumResponse, EndQuorumEpochRequest, EndQuorumEpochResponse, FetchRequest,
    FetchResponse, FetchSnapshotRequest, FetchSnapshotResponse, RemoveRaftVoterRequest,
    RemoveRaftVoterResponse, UpdateRaftVoterRequest, UpdateRaftVoterResponse, VoteRequest,
    VoteResponse,
};

/// The time of a step: deadlines go by the one clock, records carry the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    pub mono: Nanos,
    pub wall_ms: Millis,
}

/// A request that somebody sent us: the shell's name for where the answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// A request that we send: the machine's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// A state of quorum-state, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlushId(pub u64);

#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    Vote(VoteRequest),
    BeginQuorumEpoch(BeginQuorumEpochRequest),
    EndQuorumEpoch(EndQuorumEpochRequest),
    Fetch(FetchRequest),
    FetchSnapshot(FetchSnapshotRequest),
    AddRaftVoter(AddRaftVoterRequest),
    RemoveRaftVoter(RemoveRaftVoterRequest),
    UpdateRaftVoter(UpdateRaftVoterRequest),
    DescribeQuorum(DescribeQuorumRequest),
    /// Only sent, to a voter that is to be added.
    ApiVersions(ApiVersionsRequest),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    Vote(VoteResponse),
    BeginQuorumEpoch(BeginQuorumEpochResponse),
    EndQuorumEpoch(EndQuorumEpochResponse),
    Fetch(FetchResponse),
    FetchSnapshot(FetchSnapshotResponse),
    AddRaftVoter(AddRaftVoterResponse),
    RemoveRaftVoter(RemoveRaftVoterResponse),
    UpdateRaftVoter(UpdateRaftVoterResponse),
    DescribeQuorum(DescribeQuorumResponse),
    ApiVersions(ApiVersionsResponse),
}

/// Records that the controller asks to be appended as one batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// The epoch in which it believes to lead.
    pub epoch: LeaderEpoch,
    /// Values of metadata records, at least one.
    pub values: Vec<Bytes>,
    /// Comes back with the outcome.
    pub tag: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A deadline passed, or the machine starts.
    Tick,
    Request {
        id: RequestId,
        api_version: i16,
        request: Request,
    },
    /// The answer to a request of ours.
    Response {
        call: CallId,
        response: Response,
    },
    /// It got no answer and will get none: no connection, or it broke.
    CallFailed(CallId),
    /// quorum-state of this version, and so of all before, is on stable storage.
    Persisted(Version),
    /// What the log was when the flush was asked for is on stable storage.
    Flushed(FlushId),
    Propose(Proposal),
    /// There was no space for the batch of the last proposal: it isn't in the log, and
    /// nothing was done that came after it.
    Unwritten {
        base_offset: Offset,
    },
    /// This node wrote a snapshot of its own, on stable storage. It ends at a committed
    /// offset.
    SnapshotTaken {
        id: OffsetAndEpoch,
        size: u64,
    },
    /// The records before a snapshot, and older snapshots, are not needed any more.
    Clean {
        before: OffsetAndEpoch,
    },
    /// A snapshot that was fetched is on stable storage, and whole.
    SnapshotFinished {
        id: OffsetAndEpoch,
        size: u64,
        kraft_version: i16,
        voters: Option<VoterSet>,
    },
    /// A snapshot that was fetched can't be read.
    SnapshotBroken(OffsetAndEpoch),
    /// The controller can't go on in this epoch.
    Resign(LeaderEpoch),
    /// The node stops; the machine hands over and says [`Effect::Stopped`].
    Shutdown,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A replica, with its endpoint as far as it is known.
    Node(BrokerId, Option<Endpoint>),
    /// One of `controller.quorum.bootstrap.servers`, by its index.
    Bootstrap(usize),
}

/// What can't be gone on from: the node must stop and a person look at it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error(
        "the leader of epoch {epoch} wants the metadata log cut to offset {to}, but {committed} \
         and all before is committed"
    )]
    TruncatesCommitted {
        epoch: LeaderEpoch,
        to: Offset,
        committed: Offset,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Write quorum-state, and report [`Input::Persisted`] once it is on stable storage.
    /// A later one may take the place of one not begun.
    Persist {
        version: Version,
        state: ElectionState,
        kraft_version: i16,
        voters: VoterSet,
    },
    /// Append batches to the log, as they are.
    Append {
        batches: Bytes,
        base_offset: Offset,
        end_offset: Offset,
    },
    /// Cut the log's end off.
    Truncate {
        to: Offset,
    },
    /// Empty the log; it begins where this snapshot ends.
    ResetLog {
        snapshot: OffsetAndEpoch,
    },
    /// Drop the log before this snapshot's end, and the older snapshots.
    AdvanceLogStart {
        snapshot: OffsetAndEpoch,
    },
    /// Sync the log, truncations too, and report [`Input::Flushed`].
    Flush(FlushId),
    Send {
        call: CallId,
        to: Destination,
        request: Request,
    },
    Reply {
        id: RequestId,
        response: Response,
    },
    /// An answer whose records are read from the log now: from this offset, at least one
    /// batch, up to so many bytes.
    ReplyRecords {
        id: RequestId,
        response: FetchResponse,
        from: Offset,
        max_bytes: i32,
    },
    /// An answer whose bytes are read from a snapshot's file now.
    ReplySnapshot {
        id: RequestId,
        response: FetchSnapshotResponse,
        snapshot: OffsetAndEpoch,
        position: i64,
        max_bytes: i32,
    },
    /// Bytes of a snapshot that is being fetched; position 0 begins it anew.
    WriteSnapshot {
        id: OffsetAndEpoch,
        position: u64,
        bytes: Bytes,
    },
    /// All its bytes were written: sync, check, and report it finished or broken.
    FinishSnapshot {
        id: OffsetAndEpoch,
    },
    /// The state machine goes on from this snapshot, which replaced the log.
    LoadSnapshot {
        id: OffsetAndEpoch,
    },
    /// Everything below is committed; if the log begins later, a snapshot has it.
    HighWatermark(Offset),
    /// The leader of an epoch as this node knows it.
    LeaderChanged {
        epoch: LeaderEpoch,
        leader: Option<BrokerId>,
    },
    /// This node leads, and everything of earlier epochs is committed: the controller may
    /// begin.
    Leading(LeaderEpoch),
    /// The outcome of a proposal: its last offset, or `None` as this node doesn't lead that
    /// epoch. It is committed when the high watermark passes it in this epoch.
    Proposed {
        tag: u64,
        last_offset: Option<Offset>,
    },
    /// After [`Input::Shutdown`]: nothing more is to be sent.
    Stopped,
    /// A peer broke the protocol; what it said was ignored.
    PeerError(&'static str),
    Fault(Fault),
}

/// What a step asks for.
#[derive(Debug, Default)]
pub struct Effects {
    pub list: Vec<Effect>,
    /// When the machine wants its next [`Input::Tick`].
    pub wake_at: Nanos,
}

impl Effects {
    pub fn push(&mut self, effect: Effect) {
        self.list.push(effect);
    }
}

/// Who this node is and how it behaves.
#[derive(Clone, Debug)]
pub struct Config {
    pub me: ReplicaKey,
    pub cluster_id: String,
    /// Name of the controllers' listener.
    pub listener: String,
    /// Where this node is reached by other controllers.
    pub endpoints: Vec<Endpoint>,
    /// kraft.version that it can run.
    pub kraft_versions: (i16, i16),
    /// How many `controller.quorum.bootstrap.servers` there are.
    pub bootstrap_servers: usize,
    /// Whether it may become a voter: it makes its log durable before it says so. Brokers
    /// needn't.
    pub is_controller: bool,
    /// `controller.quorum.auto.join.enable`
    pub auto_join: bool,
    pub election_timeout_ms: u64,
    pub fetch_timeout_ms: u64,
    pub election_backoff_max_ms: u64,
    pub answer_timeout_ms: u64,
    pub retry_backoff_ms: u64,
    pub fetch_max_wait_ms: u64,
    pub fetch_max_bytes: i32,
    pub fetch_snapshot_max_bytes: i32,
}

impl Config {
    /// Kafka's defaults.
    pub fn new(me: ReplicaKey, cluster_id: &str, listener: &str) -> Config {
        Config {
            me,
            cluster_id: cluster_id.to_owned(),
            listener: listener.to_owned(),
            endpoints: Vec::new(),
            kraft_versions: super::super::voters::KRAFT_VERSIONS,
            bootstrap_servers: 0,
            is_controller: true,
            auto_join: false,
            election_timeout_ms: 1_000,
            fetch_timeout_ms: 2_000,
            election_backoff_max_ms: 1_000,
            answer_timeout_ms: 2_000,
            retry_backoff_ms: 20,
            fetch_max_wait_ms: 500,
            fetch_max_bytes: 1024 * 1024,
            fetch_snapshot_max_bytes: 1024 * 1024,
        }
    }

    /// This node as an entry of a voter set.
    pub fn as_voter(&self) -> Voter {
        Voter {
            key: self.me,
            endpoints: self.endpoints.clone(),
            kraft_versions: self.kraft_versions,
        }
    }
}
