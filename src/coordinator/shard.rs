//! The coordinator of one partition of `__consumer_offsets`: all its groups and offsets.
//!
//! Called by [`super::runtime`] (and, in tests, by a model of it), on the core that owns
//! the partition, one step at a time:
//!
//! ```text
//!  on_<api> / on_timer ──▶ Effects ──▶ append ──▶ replay (where asked) ──▶ committed
//!        ▲                                  └─ failed ─▶ on_failed            │
//!        └──────────────────────────────── on_committed ◀────────────────────┘
//! ```
//! A step's return value is its answer, given once everything written so far is committed;
//! `Err` is given at once and means that nothing is to be appended. Errors are those of the
//! group protocol, not yet those of the log.
//!
//! Invariants: between a step and the replay of its records no other step runs. Offsets
//! change only by replay. A group exists before it has offsets.

use std::collections::BTreeMap;
use std::rc::Rc;

use tracing::{debug, info};

use super::batch::LogEntry;
use super::effects::{Completion, Effects, Failure, TimerKey, Waiter};
use super::group::{ClassicGroup, DEAD, Group, Join};
use super::offsets::{Commit, OffsetStore, View, decide_commit};
use super::records::CoordinatorRecord;
use super::{Client, CoordinatorConfig, Now, Step, reply};
use crate::base::{ErrorCode, Millis, Offset, ProducerId, Rng, Uuid};
use crate::wire::messages::delete_groups_response::DeletableGroupResult;
use crate::wire::messages::describe_groups_response::DescribedGroup;
use crate::wire::messages::list_groups_response::ListedGroup;
use crate::wire::messages::offset_fetch_request::OffsetFetchRequestGroup;
use crate::wire::messages::offset_fetch_response::OffsetFetchResponseGroup;
use crate::wire::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, LeaveGroupRequest, LeaveGroupResponse,
    ListGroupsRequest, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest,
    OffsetDeleteResponse, SyncGroupRequest,
};

/// How many groups and offsets one turn of the expiry sweep looks at before it lets others
/// have the core.
const SWEEP_STEP_MAX: usize = 1_000;

/// From this version on SyncGroup must name protocol type and protocol.
const SYNC_PROTOCOL_REQUIRED_FROM: i16 = 5;

/// From this version on a commit to an unknown group is told so.
const COMMIT_UNKNOWN_GROUP_FROM: i16 = 9;

/// From this version on describing an unknown group is an error.
const DESCRIBE_UNKNOWN_GROUP_FROM: i16 = 6;

#[derive(Debug)]
pub struct GroupShard {
    config: Rc<CoordinatorConfig>,
    rng: Rng,
    groups: BTreeMap<Rc<str>, Group>,
    offsets: OffsetStore,
    /// The sweep is under way and continues behind this group.
    sweep_behind: Option<Rc<str>>,
}

impl GroupShard {
    pub fn new(config: Rc<CoordinatorConfig>, rng: Rng) -> Self {
        GroupShard {
            config,
            rng,
            groups: BTreeMap::new(),
            offsets: OffsetStore::new(),
            sweep_behind: None,
        }
    }

    // ---- requests ----

    /// The answer comes through `fx.replies`, under `waiter`, at once or when the join
    /// phase is completed.
    pub fn on_join_group(
        &mut self,
        now: Now,
        client: &Client<'_>,
        request: &JoinGroupRequest,
        version: i16,
        waiter: Waiter,
        fx: &mut Effects,
    ) -> Result<(), ErrorCode> {
        let config = self.config.clone();
        if let Err(error) = check_join(&config, request) {
            fx.reply_join(waiter, reply::join_group_error(&request.member_id, error));
            return Ok(());
        }
        let is_new_group = !self.groups.contains_key(request.group_id.as_str());
        if is_new_group && !request.member_id.is_empty() {
            fx.reply_join(
                waiter,
                reply::join_group_error(&request.member_id, ErrorCode::UNKNOWN_MEMBER_ID),
            );
            return Ok(());
        }
        let GroupShard { groups, rng, .. } = self;
        let Some(group) = get_or_create(groups, &request.group_id, now.wall_ms).as_classic_mut()
        else {
            fx.reply_join(
                waiter,
                reply::join_group_error("", ErrorCode::INCONSISTENT_GROUP_PROTOCOL),
            );
            return Ok(());
        };
        let join = Join {
            client,
            request,
            version,
            waiter,
        };
        let mut step = Step {
            now,
            config: &config,
            fx,
        };
        group.on_join(&join, rng, &mut step)?;
        if is_new_group && fx.records.is_empty() {
            // Makes the group known, whatever became of its first member.
            fx.write_group(
                CoordinatorRecord::group_metadata(group.id(), group.to_empty_record()),
                Completion::NewGroup {
                    group: group.id().clone(),
                    waiter,
                },
            );
        }
        Ok(())
    }

    /// The answer comes through `fx.replies`, under `waiter`, at once or when the leader's
    /// assignment is committed.
    pub fn on_sync_group(
        &mut self,
        now: Now,
        request: &SyncGroupRequest,
        version: i16,
        waiter: Waiter,
        fx: &mut Effects,
    ) {
        let config = self.config.clone();
        let refused = if version >= SYNC_PROTOCOL_REQUIRED_FROM
            && (request.protocol_type.is_none() || request.protocol_name.is_none())
        {
            Some(ErrorCode::INCONSISTENT_GROUP_PROTOCOL)
        } else {
            check_group_id(&request.group_id).err()
        };
        if let Some(error) = refused {
            fx.reply_sync(waiter, reply::sync_group_error(error));
            return;
        }
        match self.classic_mut(&request.group_id) {
            Some(group) => group.on_sync(
                request,
                waiter,
                &mut Step {
                    now,
                    config: &config,
                    fx,
                },
            ),
            None => fx.reply_sync(
                waiter,
                reply::sync_group_error(ErrorCode::UNKNOWN_MEMBER_ID),
            ),
        }
    }

    pub fn on_heartbeat(
        &mut self,
        now: Now,
        request: &HeartbeatRequest,
        fx: &mut Effects,
    ) -> Result<HeartbeatResponse, ErrorCode> {
        check_group_id(&request.group_id)?;
        let config = self.config.clone();
        let group = self
            .classic_mut(&request.group_id)
            .ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
        let mut step = Step {
            now,
            config: &config,
            fx,
        };
        let error = group
            .on_heartbeat(request, &mut step)
            .err()
            .unwrap_or_default();
        Ok(reply::heartbeat_error(error))
    }

    pub fn on_leave_group(
        &mut self,
        now: Now,
        request: &LeaveGroupRequest,
        version: i16,
        fx: &mut Effects,
    ) -> Result<LeaveGroupResponse, ErrorCode> {
        use crate::wire::messages::leave_group_request::MemberIdentity;
        check_group_id(&request.group_id)?;
        let single;
        let members = if version >= 3 {
            request.members.as_slice()
        } else {
            single = [MemberIdentity {
                member_id: request.member_id.clone(),
                ..MemberIdentity::default()
            }];
            single.as_slice()
        };
        let config = self.config.clone();
        let members = match self.classic_mut(&request.group_id) {
            Some(group) => group.on_leave(
                members,
                &mut Step {
                    now,
                    config: &config,
                    fx,
                },
            ),
            None => reply::leave_unknown_group(members),
        };
        Ok(reply::leave_group_response(
            LeaveGroupResponse {
                members,
                ..LeaveGroupResponse::default()
            },
            version,
        ))
    }

    pub fn on_offset_commit(
        &mut self,
        now: Now,
        request: &OffsetCommitRequest,
        version: i16,
        fx: &mut Effects,
    ) -> Result<OffsetCommitResponse, ErrorCode> {
        let config = self.config.clone();
        let mut step = Step {
            now,
            config: &config,
            fx,
        };
        let commit = Commit::of(request);
        let id: Rc<str> = match self.classic(&request.group_id) {
            Some(group) => {
                group.validate_commit(&commit)?;
                group.on_member_commit(commit.member, &mut step);
                group.id().clone()
            }
            // Replaying the offsets makes a group without members.
            None if commit.generation < 0 => request.group_id.as_str().into(),
            None if version >= COMMIT_UNKNOWN_GROUP_FROM => {
                return Err(ErrorCode::GROUP_ID_NOT_FOUND);
            }
            None => return Err(ErrorCode::ILLEGAL_GENERATION),
        };
        Ok(decide_commit(&id, request, &mut step))
    }

    /// Reads offsets. With `require_stable` the answer must wait until everything written
    /// so far is committed; without, it can be given at once.
    pub fn fetch_offsets(
        &self,
        request: &OffsetFetchRequestGroup,
        require_stable: bool,
    ) -> OffsetFetchResponseGroup {
        let view = if require_stable {
            View::Latest
        } else {
            View::Committed
        };
        self.offsets.fetch(request, view)
    }

    pub fn on_offset_delete(
        &mut self,
        request: &OffsetDeleteRequest,
        fx: &mut Effects,
    ) -> Result<OffsetDeleteResponse, ErrorCode> {
        check_group_id(&request.group_id)?;
        let group = self
            .classic(&request.group_id)
            .ok_or(ErrorCode::GROUP_ID_NOT_FOUND)?;
        group.validate_offset_delete()?;
        let topics = request
            .topics
            .iter()
            .map(|topic| {
                self.offsets.decide_delete(
                    group.id(),
                    topic,
                    group.is_subscribed_to(&topic.name),
                    &mut fx.records,
                )
            })
            .collect();
        Ok(OffsetDeleteResponse {
            topics,
            ..OffsetDeleteResponse::default()
        })
    }

    /// Each group with its offsets, or its error.
    pub fn on_delete_groups(
        &mut self,
        groups: &[String],
        fx: &mut Effects,
    ) -> Vec<DeletableGroupResult> {
        groups
            .iter()
            .map(|name| {
                let error = self.decide_delete_group(name, fx).err();
                reply::delete_group_result(name, error.unwrap_or_default())
            })
            .collect()
    }

    fn decide_delete_group(&self, name: &str, fx: &mut Effects) -> Result<(), ErrorCode> {
        let group = self.classic(name).ok_or(ErrorCode::GROUP_ID_NOT_FOUND)?;
        group.validate_delete()?;
        self.offsets.decide_delete_all(group.id(), &mut fx.records);
        fx.records
            .push(CoordinatorRecord::group_tombstone(group.id()));
        info!(group = name, "deleting group");
        Ok(())
    }

    /// Filters are matched without regard to case; one that names nothing matches nothing.
    pub fn list_groups(&self, request: &ListGroupsRequest) -> Vec<ListedGroup> {
        let states: Vec<String> = request
            .states_filter
            .iter()
            .map(|state| state.trim().to_lowercase())
            .collect();
        let types: Vec<String> = request
            .types_filter
            .iter()
            .map(|name| name.trim().to_lowercase())
            .collect();
        self.groups
            .values()
            .filter(|group| types.is_empty() || types.contains(&group.group_type().name().into()))
            .filter_map(Group::as_classic)
            .filter(|group| {
                states.is_empty() || states.contains(&group.state().name().to_lowercase())
            })
            .map(ClassicGroup::listed)
            .collect()
    }

    pub fn describe_groups(&self, groups: &[String], version: i16) -> Vec<DescribedGroup> {
        groups
            .iter()
            .map(|name| match self.groups.get(name.as_str()) {
                Some(Group::Classic(group)) => group.described(),
                None if version >= DESCRIBE_UNKNOWN_GROUP_FROM => DescribedGroup {
                    group_id: name.clone(),
                    group_state: DEAD.to_owned(),
                    error_code: ErrorCode::GROUP_ID_NOT_FOUND.0,
                    error_message: Some(format!("Group {name} not found.")),
                    ..DescribedGroup::default()
                },
                None => DescribedGroup {
                    group_id: name.clone(),
                    group_state: DEAD.to_owned(),
                    ..DescribedGroup::default()
                },
            })
            .collect()
    }

    /// Topics were deleted: so are their offsets.
    pub fn on_topics_deleted(&mut self, topics: &[(Uuid, String)], fx: &mut Effects) {
        fx.atomic = false;
        for (id, name) in topics {
            self.offsets.decide_delete_topic(*id, name, &mut fx.records);
        }
    }

    // ---- timers and completions ----

    pub fn on_timer(&mut self, now: Now, key: &TimerKey, fx: &mut Effects) {
        let config = self.config.clone();
        let mut step = Step {
            now,
            config: &config,
            fx,
        };
        match key {
            TimerKey::Join { group } => {
                if let Some(group) = self.classic_mut(group) {
                    group.on_join_timer(&mut step);
                }
            }
            TimerKey::Sync { group } => {
                if let Some(group) = self.classic_mut(group) {
                    group.on_sync_timer(&mut step);
                }
            }
            TimerKey::Heartbeat { group, member } => {
                if let Some(group) = self.classic_mut(group) {
                    group.on_heartbeat_timer(member, &mut step);
                }
            }
            TimerKey::Expiration => self.sweep(&mut step),
        }
    }

    /// The records that came with this completion are committed.
    pub fn on_committed(&mut self, now: Now, completion: &Completion, fx: &mut Effects) {
        let config = self.config.clone();
        let mut step = Step {
            now,
            config: &config,
            fx,
        };
        match completion {
            Completion::NewGroup { .. } | Completion::EmptyGeneration { .. } => {}
            Completion::Assignment {
                group,
                generation,
                assignment,
            } => {
                if let Some(group) = self.classic_mut(group) {
                    group.on_assignment_committed(*generation, assignment, &mut step);
                }
            }
            Completion::StaticReplacement(replacement) => {
                if let Some(group) = self.classic_mut(&replacement.group) {
                    group.on_replacement_committed(replacement, &mut step);
                }
            }
        }
    }

    /// The records that came with this completion could not be committed.
    pub fn on_failed(
        &mut self,
        now: Now,
        completion: &Completion,
        failure: Failure,
        fx: &mut Effects,
    ) {
        let error = reply::append_error(failure.error());
        let config = self.config.clone();
        let mut step = Step {
            now,
            config: &config,
            fx,
        };
        match completion {
            Completion::NewGroup { group: id, waiter } => {
                if let Some(group) = self.classic_mut(id) {
                    group.on_creation_failed(*waiter, error, &mut step);
                }
                if matches!(failure, Failure::NotAppended(_)) {
                    step.cancel_timer(TimerKey::Join { group: id.clone() });
                    self.groups.remove(id);
                }
            }
            Completion::EmptyGeneration { .. } => {}
            Completion::Assignment {
                group, generation, ..
            } => {
                if let Some(group) = self.classic_mut(group) {
                    group.on_assignment_failed(*generation, error, &mut step);
                }
            }
            Completion::StaticReplacement(replacement) => {
                if let Some(group) = self.classic_mut(&replacement.group) {
                    group.on_replacement_failed(replacement, error, &mut step);
                }
            }
        }
    }

    /// One part of the sweep for expired offsets and groups (KIP-211). A group that is
    /// empty and has nothing left goes with its last offset.
    fn sweep(&mut self, step: &mut Step<'_>) {
        use std::ops::Bound::{Excluded, Unbounded};
        step.fx.atomic = false;
        let from = match self.sweep_behind.take() {
            Some(group) => Excluded(group),
            None => Unbounded,
        };
        let mut looked_at = 0;
        for (id, group) in self.groups.range((from, Unbounded)) {
            if looked_at >= SWEEP_STEP_MAX {
                break;
            }
            let Group::Classic(classic) = group;
            let expired = self.offsets.decide_expire(
                classic,
                step.now.wall_ms,
                step.config.offsets_retention_ms,
                &mut step.fx.records,
            );
            if expired.is_everything && group.is_empty() {
                step.fx.records.push(CoordinatorRecord::group_tombstone(id));
            }
            looked_at += 1 + expired.looked_at;
            self.sweep_behind = Some(id.clone());
        }
        let delay_ms = if looked_at >= SWEEP_STEP_MAX {
            0
        } else {
            self.sweep_behind = None;
            step.config.offsets_retention_check_interval_ms
        };
        step.set_timer(TimerKey::Expiration, delay_ms);
    }

    // ---- the log ----

    /// Applies a record at `at`, on loading or after appending it.
    pub fn replay(&mut self, now_ms: Millis, entry: LogEntry) {
        match entry {
            LogEntry::Record {
                at,
                producer,
                record,
            } => self.replay_record(now_ms, at, producer, &record),
            LogEntry::EndOfTransaction {
                at,
                producer,
                is_commit,
            } => self
                .offsets
                .replay_end_of_transaction(at, producer, is_commit),
        }
    }

    pub fn replay_record(
        &mut self,
        now_ms: Millis,
        at: Offset,
        producer: ProducerId,
        record: &CoordinatorRecord,
    ) {
        match record {
            CoordinatorRecord::OffsetCommit {
                group,
                topic,
                partition,
                value,
            } => {
                let mut id = group.clone();
                if value.is_some() {
                    // Shares the group's own text.
                    id = match get_or_create(&mut self.groups, group, now_ms) {
                        Group::Classic(group) => group.id().clone(),
                    };
                }
                self.offsets
                    .replay(at, producer, id, topic.clone(), *partition, value.as_ref());
            }
            CoordinatorRecord::GroupMetadata { group, value } => match value {
                Some(value) => {
                    let loaded = ClassicGroup::from_record(group.clone(), value);
                    self.groups.insert(group.clone(), Group::Classic(loaded));
                }
                None => {
                    self.groups.remove(group);
                }
            },
        }
    }

    /// The high watermark moved: offsets below it may be read.
    pub fn set_committed(&mut self, committed: Offset) {
        self.offsets.set_committed(committed);
    }

    /// The log has been replayed and the shard is about to serve: members that were known
    /// have a whole session to show up.
    pub fn on_loaded(&mut self, now: Now, fx: &mut Effects) {
        let config = self.config.clone();
        let mut step = Step {
            now,
            config: &config,
            fx,
        };
        for group in self.groups.values_mut() {
            let Group::Classic(group) = group;
            group.on_loaded(&mut step);
        }
        step.set_timer(
            TimerKey::Expiration,
            config.offsets_retention_check_interval_ms,
        );
        debug!(groups = self.groups.len(), "loaded groups");
    }

    /// The shard is given up: whoever is parked is told to look for the coordinator again.
    pub fn on_unloaded(&mut self, fx: &mut Effects) {
        for group in self.groups.values_mut() {
            let Group::Classic(group) = group;
            group.on_unloaded(fx);
        }
    }

    // ---- views ----

    pub fn group(&self, id: &str) -> Option<&Group> {
        self.groups.get(id)
    }

    pub fn groups(&self) -> impl ExactSizeIterator<Item = &Group> {
        self.groups.values()
    }

    pub fn offsets(&self) -> &OffsetStore {
        &self.offsets
    }

    /// Panics where the shard contradicts itself.
    pub fn invariants(&self) {
        for (id, group) in &self.groups {
            group.invariants();
            let Group::Classic(classic) = group;
            assert_eq!(id, classic.id());
        }
        self.offsets.invariants();
        for group in self.offsets.groups() {
            let has_offsets = self
                .offsets
                .topics(View::Latest, group)
                .any(|(_, mut offsets)| offsets.next().is_some());
            assert!(
                !has_offsets || self.groups.contains_key(group),
                "{group}: offsets without a group"
            );
        }
    }

    fn classic(&self, id: &str) -> Option<&ClassicGroup> {
        self.groups.get(id).and_then(Group::as_classic)
    }

    fn classic_mut(&mut self, id: &str) -> Option<&mut ClassicGroup> {
        self.groups.get_mut(id).and_then(Group::as_classic_mut)
    }
}

fn get_or_create<'a>(
    groups: &'a mut BTreeMap<Rc<str>, Group>,
    id: &str,
    now_ms: Millis,
) -> &'a mut Group {
    if !groups.contains_key(id) {
        let id: Rc<str> = id.into();
        groups.insert(id.clone(), Group::Classic(ClassicGroup::new(id, now_ms)));
    }
    groups
        .get_mut(id)
        .expect("it was inserted if it was not there")
}

fn check_group_id(id: &str) -> Result<(), ErrorCode> {
    if id.is_empty() {
        Err(ErrorCode::INVALID_GROUP_ID)
    } else {
        Ok(())
    }
}

fn check_join(config: &CoordinatorConfig, request: &JoinGroupRequest) -> Result<(), ErrorCode> {
    check_group_id(&request.group_id)?;
    let allowed = config.session_timeout_ms_min..=config.session_timeout_ms_max;
    if allowed.contains(&request.session_timeout_ms) {
        Ok(())
    } else {
        Err(ErrorCode::INVALID_SESSION_TIMEOUT)
    }
}
