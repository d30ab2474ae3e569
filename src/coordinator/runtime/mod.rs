//! What runs a [`GroupShard`] on a partition of `__consumer_offsets` (layer 4): one
//! [`GroupCoordinator`] for each partition led here, on the core that owns it. API handlers
//! call it; it calls the shard and the partition's log, and keeps three tasks: loading, the
//! timers, and the wait for the high watermark.
//!
//! ```text
//!  start ──▶ Loading ──▶ Active ──▶ Closed
//!               │  └───────────────▶ (unload)
//!               └──▶ Failed          the log can't be read: 16 until the next start
//! ```
//! A request is one synchronous step (decide, append, replay) and then a wait without any
//! borrow: for the high watermark to pass everything written so far, or, parked in a
//! JoinGroup or SyncGroup, for the group. So the steps of a shard never interleave.
//!
//! Files: `core` the synchronous half, `load`, `log` the seam to the partition.

mod core;
mod load;
mod log;

use std::cell::RefCell;
use std::rc::Rc;

use tracing::debug;

pub use self::log::{AppendedAt, CoordinatorLog, LocalFuture};

use self::core::{Core, Parked, Written};
use super::effects::Effects;
use super::{Client, CoordinatorConfig, GroupShard, Now, reply};
use crate::base::{ErrorCode, PartitionIndex, Rng, Uuid};
use crate::io::local::{Either, Notify, either, oneshot, or_deadline};
use crate::io::{Queue, Rt};
use crate::wire::messages::delete_groups_response::DeletableGroupResult;
use crate::wire::messages::describe_groups_response::DescribedGroup;
use crate::wire::messages::offset_fetch_request::OffsetFetchRequestGroup;
use crate::wire::messages::offset_fetch_response::OffsetFetchResponseGroup;
use crate::wire::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, OffsetCommitRequest,
    OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, SyncGroupRequest,
    SyncGroupResponse,
};

/// Timers that are run before other tasks get the core.
const TIMERS_PER_TURN_MAX: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoordinatorState {
    /// Reading the log. Requests are told to come again (14).
    Loading,
    Active,
    /// The log could not be read. Requests are told to look elsewhere (16).
    Failed,
    /// Unloaded.
    Closed,
}

/// The group coordinator of one partition. Cheap to clone; lives on one core.
#[derive(Clone)]
pub struct GroupCoordinator(Rc<Inner>);

struct Inner {
    rt: Rt,
    partition: PartitionIndex,
    log: Rc<dyn CoordinatorLog>,
    config: Rc<CoordinatorConfig>,
    /// Never borrowed across an await.
    core: RefCell<Core>,
    /// Loading has ended.
    loaded: Notify,
    /// The timers' task must look again: an earlier timer, or the end.
    timers_changed: Notify,
    /// The other task must look again: something waits for a commit, or the end.
    commits_changed: Notify,
}

impl GroupCoordinator {
    /// This broker leads the partition now (Kafka's election). Starts to load at once.
    pub fn start(
        rt: Rt,
        partition: PartitionIndex,
        log: Rc<dyn CoordinatorLog>,
        config: Rc<CoordinatorConfig>,
    ) -> GroupCoordinator {
        let rng = Rng::new(rt.random_u64());
        let inner = Rc::new(Inner {
            core: RefCell::new(Core::new(log.clone(), config.clone(), rng)),
            rt: rt.clone(),
            partition,
            log,
            config,
            loaded: Notify::new(),
            timers_changed: Notify::new(),
            commits_changed: Notify::new(),
        });
        let running = inner.clone();
        rt.spawn(Queue::Request, async move {
            running.load().await;
            running.loaded.notify_all();
            if running.state() == CoordinatorState::Active {
                let timers = running.clone();
                running
                    .rt
                    .spawn(Queue::Request, async move { timers.run_timers().await });
                running.run_commits().await;
            }
        });
        GroupCoordinator(inner)
    }

    pub fn partition(&self) -> PartitionIndex {
        self.0.partition
    }

    pub fn state(&self) -> CoordinatorState {
        self.0.state()
    }

    /// Waits until loading has ended, in whichever way.
    pub async fn loaded(&self) -> CoordinatorState {
        while self.state() == CoordinatorState::Loading {
            self.0.loaded.notified().await;
        }
        self.state()
    }

    /// The partition is led elsewhere now, or the broker stops: whoever waits is told to
    /// look for the coordinator again (16), and nothing more is written.
    pub fn unload(&self) {
        let inner = &self.0;
        let now = inner.now();
        inner.core.borrow_mut().close(now, CoordinatorState::Closed);
        inner.loaded.notify_all();
        inner.timers_changed.notify_one();
        inner.commits_changed.notify_one();
    }

    // ---- requests ----

    pub async fn join_group(
        &self,
        client: &Client<'_>,
        request: JoinGroupRequest,
        version: i16,
    ) -> JoinGroupResponse {
        let answered = match self.start_join(client, &request, version) {
            Ok(answer) => answer.await.unwrap_or_else(|_| {
                reply::join_group_error(&request.member_id, ErrorCode::NOT_COORDINATOR)
            }),
            Err(error) => reply::join_group_error("", reply::append_error(error)),
        };
        reply::join_group_response(answered, version)
    }

    fn start_join(
        &self,
        client: &Client<'_>,
        request: &JoinGroupRequest,
        version: i16,
    ) -> Result<oneshot::Receiver<JoinGroupResponse>, ErrorCode> {
        let inner = &self.0;
        let now = inner.now();
        let mut core = inner.core.borrow_mut();
        core.check_active()?;
        let (sender, answer) = oneshot();
        let waiter = core.park(Parked::Join(sender));
        let mut fx = Effects::new();
        let step = core
            .shard
            .on_join_group(now, client, request, version, waiter, &mut fx);
        let appended = core.carry_out(now, fx);
        inner.look_again(&mut core);
        match step.and(appended) {
            // An append that failed has answered it already, as far as that goes.
            Err(error) if core.unpark(waiter).is_some() => Err(error),
            _ => Ok(answer),
        }
    }

    pub async fn sync_group(&self, request: SyncGroupRequest, version: i16) -> SyncGroupResponse {
        match self.start_sync(&request, version) {
            Ok(answer) => answer
                .await
                .unwrap_or_else(|_| reply::sync_group_error(ErrorCode::NOT_COORDINATOR)),
            Err(error) => reply::sync_group_error(reply::append_error(error)),
        }
    }

    fn start_sync(
        &self,
        request: &SyncGroupRequest,
        version: i16,
    ) -> Result<oneshot::Receiver<SyncGroupResponse>, ErrorCode> {
        let inner = &self.0;
        let now = inner.now();
        let mut core = inner.core.borrow_mut();
        core.check_active()?;
        let (sender, answer) = oneshot();
        let waiter = core.park(Parked::Sync(sender));
        let mut fx = Effects::new();
        core.shard
            .on_sync_group(now, request, version, waiter, &mut fx);
        let appended = core.carry_out(now, fx);
        inner.look_again(&mut core);
        match appended {
            Err(error) if core.unpark(waiter).is_some() => Err(error),
            _ => Ok(answer),
        }
    }

    /// While the partition is loading every heartbeat is well: sessions begin anew then.
    pub async fn heartbeat(&self, request: HeartbeatRequest) -> HeartbeatResponse {
        let answer = self
            .write(|shard, now, fx| shard.on_heartbeat(now, &request, fx))
            .await;
        answer.unwrap_or_else(|error| match error {
            ErrorCode::COORDINATOR_LOAD_IN_PROGRESS => reply::heartbeat_error(ErrorCode::NONE),
            error => reply::heartbeat_error(error),
        })
    }

    pub async fn leave_group(
        &self,
        request: LeaveGroupRequest,
        version: i16,
    ) -> LeaveGroupResponse {
        self.write(|shard, now, fx| shard.on_leave_group(now, &request, version, fx))
            .await
            .unwrap_or_else(reply::leave_group_error)
    }

    /// `request.topics` holds only what exists and may be read; each has name and id.
    pub async fn commit_offsets(
        &self,
        request: OffsetCommitRequest,
        version: i16,
    ) -> OffsetCommitResponse {
        self.write(|shard, now, fx| shard.on_offset_commit(now, &request, version, fx))
            .await
            .unwrap_or_else(|error| reply::commit_error(&request, error))
    }

    /// One group of an OffsetFetch; without topics, all that it has.
    pub async fn fetch_offsets(
        &self,
        request: OffsetFetchRequestGroup,
        require_stable: bool,
        version: i16,
    ) -> OffsetFetchResponseGroup {
        let answer = if require_stable {
            // Waits for what is written and not yet committed.
            self.write_raw(|shard, _, _| Ok(shard.fetch_offsets(&request, true)))
                .await
                .map_err(reply::fetch_operation_error)
        } else {
            self.read(|shard| shard.fetch_offsets(&request, false))
        };
        answer.unwrap_or_else(|error| reply::fetch_error(&request, error, version))
    }

    /// `request.topics` holds only what exists and may be read.
    pub async fn delete_offsets(&self, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
        self.write(|shard, _, fx| shard.on_offset_delete(&request, fx))
            .await
            .unwrap_or_else(reply::offset_delete_error)
    }

    /// The groups of this partition.
    pub async fn list_groups(&self, request: &ListGroupsRequest) -> ListGroupsResponse {
        match self.read(|shard| shard.list_groups(request)) {
            Ok(groups) => ListGroupsResponse {
                groups,
                ..ListGroupsResponse::default()
            },
            Err(error) => ListGroupsResponse {
                error_code: error.0,
                ..ListGroupsResponse::default()
            },
        }
    }

    /// In the order asked for. All of them coordinated by this partition.
    pub async fn describe_groups(&self, groups: &[String], version: i16) -> Vec<DescribedGroup> {
        self.read(|shard| shard.describe_groups(groups, version))
            .unwrap_or_else(|error| reply::describe_error(groups, error))
    }

    /// In the order asked for. All of them coordinated by this partition.
    pub async fn delete_groups(&self, groups: &[String]) -> Vec<DeletableGroupResult> {
        self.write(|shard, _, fx| Ok(shard.on_delete_groups(groups, fx)))
            .await
            .unwrap_or_else(|error| reply::delete_groups_error(groups, error))
    }

    /// Topics are gone (id and name): so are their offsets, in all groups.
    pub async fn on_topics_deleted(&self, topics: &[(Uuid, String)]) {
        let written = self
            .write(|shard, _, fx| {
                shard.on_topics_deleted(topics, fx);
                Ok(())
            })
            .await;
        if let Err(error) = written {
            // Expiry takes them in the end.
            debug!(?error, "offsets of deleted topics stay for now");
        }
    }

    // ---- steps ----

    /// A step and the wait until everything written so far is committed. Errors are those
    /// that clients of a coordinator know.
    async fn write<R>(
        &self,
        op: impl FnOnce(&mut GroupShard, Now, &mut Effects) -> Result<R, ErrorCode>,
    ) -> Result<R, ErrorCode> {
        self.write_raw(op).await.map_err(reply::append_error)
    }

    async fn write_raw<R>(
        &self,
        op: impl FnOnce(&mut GroupShard, Now, &mut Effects) -> Result<R, ErrorCode>,
    ) -> Result<R, ErrorCode> {
        let (answer, written) = {
            let now = self.0.now();
            let mut core = self.0.core.borrow_mut();
            let step = core.step(now, |shard, fx| op(shard, now, fx));
            self.0.look_again(&mut core);
            step?
        };
        match written {
            Written::Committed => Ok(answer),
            Written::Waiting(told) => {
                told.await.unwrap_or(Err(ErrorCode::NOT_COORDINATOR))?;
                Ok(answer)
            }
        }
    }

    fn read<R>(&self, op: impl FnOnce(&GroupShard) -> R) -> Result<R, ErrorCode> {
        let now = self.0.now();
        let mut core = self.0.core.borrow_mut();
        core.check_active()?;
        core.release(now);
        self.0.look_again(&mut core);
        Ok(op(&core.shard))
    }
}

impl Inner {
    fn state(&self) -> CoordinatorState {
        self.core.borrow().state
    }

    fn now(&self) -> Now {
        Now {
            mono: self.rt.now(),
            wall_ms: self.rt.wall_ms(),
        }
    }

    /// Wakes the two tasks where a step has given them something new.
    fn look_again(&self, core: &mut Core) {
        if core.timers_are_earlier() {
            self.timers_changed.notify_one();
        }
        if core.commits_are_new() {
            self.commits_changed.notify_one();
        }
    }

    async fn run_timers(&self) {
        loop {
            let now = self.now();
            let look_at = {
                let mut core = self.core.borrow_mut();
                if core.state != CoordinatorState::Active {
                    return;
                }
                for _ in 0..TIMERS_PER_TURN_MAX {
                    let Some(key) = core.timers.pop_expired(now.mono) else {
                        break;
                    };
                    core.on_timer(now, &key);
                }
                self.look_again(&mut core);
                core.look_at()
            };
            match look_at {
                Some(at) if at <= now.mono => self.rt.yield_now().await,
                Some(at) => {
                    either(self.rt.sleep_until(at), self.timers_changed.notified()).await;
                }
                None => self.timers_changed.notified().await,
            }
        }
    }

    async fn run_commits(&self) {
        loop {
            let awaited = {
                let now = self.now();
                let mut core = self.core.borrow_mut();
                if core.state != CoordinatorState::Active {
                    return;
                }
                core.release(now);
                core.expire(now);
                self.look_again(&mut core);
                core.awaited()
            };
            let Some((upto, deadline)) = awaited else {
                self.commits_changed.notified().await;
                continue;
            };
            let committed = or_deadline(&self.rt, self.log.await_committed(upto), deadline);
            match either(committed, self.commits_changed.notified()).await {
                Either::First(Ok(Err(error))) => {
                    // Not led here any more; the partition is about to unload us.
                    let now = self.now();
                    let mut core = self.core.borrow_mut();
                    core.give_up_all(now, error);
                    self.look_again(&mut core);
                }
                Either::First(Ok(Ok(_)) | Err(_)) | Either::Second(()) => {}
            }
        }
    }
}
