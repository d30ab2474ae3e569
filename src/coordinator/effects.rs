//! What one step of the coordinator asks of its surroundings. [`crate::coordinator::shard`]
//! fills it; the runtime (or a test) carries it out in this order: append the records as
//! one batch, replay them where `replay` says so, set and cancel timers, send the answers.
//! The step's own return value is the answer that waits until everything written so far is
//! committed.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;

use super::group::Protocol;
use super::records::CoordinatorRecord;
use crate::base::{ErrorCode, Nanos};
use crate::wire::messages::{JoinGroupResponse, SyncGroupResponse};

/// A parked request: the number that the caller gave with a JoinGroup or SyncGroup and
/// under which it gets the answer, possibly minutes later. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Waiter(pub u64);

/// An answer to a parked request.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Join(JoinGroupResponse),
    Sync(SyncGroupResponse),
}

/// Names a timer; setting a name again moves it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerKey {
    /// End of a group's join phase.
    Join { group: Rc<str> },
    /// Until all members of a generation have sent SyncGroup.
    Sync { group: Rc<str> },
    /// A member's session (or the time that a new member may take to join).
    Heartbeat { group: Rc<str>, member: Rc<str> },
    /// The periodic sweep for expired offsets and groups.
    Expiration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TimerOp {
    Set { key: TimerKey, at: Nanos },
    Cancel { key: TimerKey },
}

/// Why records of a step are not known to be committed. The codes are the log's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// They are not in the log.
    NotAppended(ErrorCode),
    /// They are in the log, but their fate was not known in time (or ever, here).
    NotCommitted(ErrorCode),
}

impl Failure {
    pub fn error(self) -> ErrorCode {
        match self {
            Failure::NotAppended(error) | Failure::NotCommitted(error) => error,
        }
    }
}

/// What is left to do once the records of a step are committed, or could not be. Handed
/// back through `GroupShard::on_committed` or `GroupShard::on_failed`, once.
#[derive(Clone, Debug, PartialEq)]
pub enum Completion {
    /// The record that makes a new group known. On failure the group is forgotten and the
    /// joining member told.
    NewGroup { group: Rc<str>, waiter: Waiter },
    /// The record of a generation without members. A failure changes nothing: an older
    /// generation may come back after a restart and time out.
    EmptyGeneration { group: Rc<str> },
    /// The leader's assignment: members get theirs once it is committed.
    Assignment {
        group: Rc<str>,
        generation: i32,
        assignment: BTreeMap<String, Bytes>,
    },
    /// A static member took over its instance id without a rebalance. On failure the old
    /// member comes back.
    StaticReplacement(Box<StaticReplacement>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct StaticReplacement {
    pub group: Rc<str>,
    pub instance: String,
    pub old_member: Rc<str>,
    pub new_member: Rc<str>,
    /// The leader before the replacement: clients below JoinGroup v9 are told this one.
    pub old_leader: Option<Rc<str>>,
    pub old_protocols: Vec<Protocol>,
    pub old_rebalance_timeout_ms: i32,
    pub old_session_timeout_ms: i32,
    pub waiter: Waiter,
    pub version: i16,
}

/// The effects of one step.
#[derive(Debug)]
pub struct Effects {
    /// To be appended; one atomic batch unless `atomic` is unset.
    pub records: Vec<CoordinatorRecord>,
    /// Unset for sweeps: their records may be spread over several batches.
    pub atomic: bool,
    /// Whether the records change this shard by being replayed. A classic group that wrote
    /// its own state has it already.
    pub replay: bool,
    /// Goes with `records`.
    pub completion: Option<Completion>,
    pub timers: Vec<TimerOp>,
    /// Answers that do not wait for the log.
    pub replies: Vec<(Waiter, Reply)>,
}

impl Default for Effects {
    fn default() -> Self {
        Effects {
            records: Vec::new(),
            atomic: true,
            replay: true,
            completion: None,
            timers: Vec::new(),
            replies: Vec::new(),
        }
    }
}

impl Effects {
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn reply_join(&mut self, waiter: Waiter, response: JoinGroupResponse) {
        self.replies.push((waiter, Reply::Join(response)));
    }

    pub(crate) fn reply_sync(&mut self, waiter: Waiter, response: SyncGroupResponse) {
        self.replies.push((waiter, Reply::Sync(response)));
    }

    /// One record of a classic group, not replayed here, with what follows from it.
    pub(crate) fn write_group(&mut self, record: CoordinatorRecord, completion: Completion) {
        debug_assert!(self.records.is_empty(), "one group record a step");
        self.records.push(record);
        self.replay = false;
        self.completion = Some(completion);
    }
}
