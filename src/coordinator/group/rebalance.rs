//! From one generation to the next: the join phase is prepared, waits for members, is
//! completed by the last join or by time, and may be cut short by members that leave or
//! die. Called by the requests beside this file and by the shard's timers.

use std::rc::Rc;

use bytes::Bytes;
use tracing::{debug, info, warn};

use super::ClassicGroup;
use super::classic_group::JoinTimer;
use super::state::ClassicGroupState::{CompletingRebalance, Empty, PreparingRebalance, Stable};
use crate::base::ErrorCode;
use crate::coordinator::Step;
use crate::coordinator::effects::{Completion, TimerKey};
use crate::coordinator::records::CoordinatorRecord;
use crate::coordinator::reply;
use crate::wire::messages::join_group_response::{JoinGroupResponse, JoinGroupResponseMember};
use crate::wire::messages::sync_group_response::SyncGroupResponse;

impl ClassicGroup {
    /// After a change of membership: starts a rebalance, or, in one already, sees whether
    /// that was the last that it waited for.
    pub(super) fn maybe_prepare_rebalance_or_complete_join(
        &mut self,
        reason: &str,
        step: &mut Step<'_>,
    ) {
        if self.state() == PreparingRebalance {
            self.maybe_complete_join_phase(step);
        } else {
            self.prepare_rebalance(reason, step);
        }
    }

    /// Starts the join phase. Parked syncs of the generation that is given up are told to
    /// join again.
    pub(crate) fn prepare_rebalance(&mut self, reason: &str, step: &mut Step<'_>) {
        if self.state() == CompletingRebalance {
            self.reset_assignments(ErrorCode::REBALANCE_IN_PROGRESS, step);
        }
        self.pending_sync.clear();
        step.cancel_timer(TimerKey::Sync {
            group: self.id.clone(),
        });

        info!(
            group = &*self.id,
            state = self.state().name(),
            generation = self.generation,
            reason,
            "preparing to rebalance"
        );
        let is_initial = self.state() == Empty;
        self.transition_to(PreparingRebalance, step.now.wall_ms);
        if is_initial {
            let delay_ms = step.config.initial_rebalance_delay_ms;
            let remaining_ms = self.rebalance_timeout_ms().saturating_sub(delay_ms).max(0);
            self.set_join_timer(
                JoinTimer::Initial {
                    delay_ms,
                    remaining_ms,
                },
                delay_ms,
                step,
            );
        } else if self.has_all_members_joined() {
            self.complete_join(step);
        } else {
            self.set_join_timer(JoinTimer::Complete, self.rebalance_timeout_ms(), step);
        }
    }

    /// Completes the join phase if nobody is missing. An initial rebalance always takes its
    /// time.
    pub(super) fn maybe_complete_join_phase(&mut self, step: &mut Step<'_>) {
        if self.state() == PreparingRebalance
            && !self.is_initial_rebalance()
            && self.has_all_members_joined()
        {
            self.complete_join(step);
        }
    }

    pub(crate) fn on_join_timer(&mut self, step: &mut Step<'_>) {
        if self.state() != PreparingRebalance {
            return;
        }
        match self.join_timer {
            JoinTimer::Initial {
                delay_ms,
                remaining_ms,
            } if self.new_member_added && remaining_ms > 0 => {
                self.new_member_added = false;
                let next_delay_ms = step.config.initial_rebalance_delay_ms.min(remaining_ms);
                self.set_join_timer(
                    JoinTimer::Initial {
                        delay_ms: next_delay_ms,
                        remaining_ms: (remaining_ms - delay_ms).max(0),
                    },
                    next_delay_ms,
                    step,
                );
            }
            JoinTimer::Initial { .. } | JoinTimer::Complete => self.complete_join(step),
        }
    }

    /// Ends the join phase. Dynamic members that have not joined are out; static ones stay
    /// until their session ends. Whoever joined gets the new generation and now owes a
    /// SyncGroup. A generation without members goes to the log, so that a restart doesn't
    /// bring the old one back.
    fn complete_join(&mut self, step: &mut Step<'_>) {
        step.cancel_timer(TimerKey::Join {
            group: self.id.clone(),
        });
        let absent: Vec<Rc<str>> = self
            .members()
            .filter(|member| !member.is_awaiting_join() && !member.is_static())
            .map(|member| member.id.clone())
            .collect();
        for id in &absent {
            self.remove(id);
            self.cancel_heartbeat(id, step);
        }
        if !absent.is_empty() {
            info!(group = &*self.id, members = ?absent, "removed members that have not joined");
        }

        if self.members.is_empty() {
            self.generation = self.generation.wrapping_add(1);
            self.protocol_name = None;
            self.subscribed_topics = self.compute_subscribed_topics();
            self.transition_to(Empty, step.now.wall_ms);
            self.pending_sync.clear();
            self.new_member_added = false;
            info!(
                group = &*self.id,
                generation = self.generation,
                "group is now empty"
            );
            step.fx.write_group(
                CoordinatorRecord::group_metadata(
                    &self.id,
                    self.to_record(|member| member.assignment.clone()),
                ),
                Completion::EmptyGeneration {
                    group: self.id.clone(),
                },
            );
        } else if !self.maybe_elect_joined_leader() {
            // Only static members are left, and none of them has come: their sessions
            // decide. Until then the phase is tried again each time it ends.
            warn!(
                group = &*self.id,
                "no member has joined, the join phase is extended"
            );
            self.set_join_timer(JoinTimer::Complete, self.rebalance_timeout_ms(), step);
        } else {
            self.start_generation(step);
        }
    }

    fn start_generation(&mut self, step: &mut Step<'_>) {
        self.generation = self.generation.wrapping_add(1);
        self.protocol_name = Some(
            self.select_protocol()
                .expect("each join was checked to share a protocol with all members"),
        );
        self.subscribed_topics = self.compute_subscribed_topics();
        self.transition_to(CompletingRebalance, step.now.wall_ms);
        self.pending_sync = self.members.keys().cloned().collect();
        self.new_member_added = false;
        info!(
            group = &*self.id,
            generation = self.generation,
            members = self.members.len(),
            "stabilized group"
        );
        let ids: Vec<Rc<str>> = self.members.keys().cloned().collect();
        for id in ids {
            let response = self.join_response(&id, self.is_leader(&id));
            self.answer_join(&id, response, step.fx);
            self.reschedule_heartbeat(&id, step);
            if let Some(member) = self.members.get_mut(&id) {
                member.is_new = false;
            }
        }
        let timeout_ms = self.rebalance_timeout_ms();
        step.set_timer(
            TimerKey::Sync {
                group: self.id.clone(),
            },
            i64::from(timeout_ms),
        );
    }

    /// Makes sure that the leader has joined: the answer with everyone's metadata must go
    /// to somebody who waits for it. Kafka leaves open who follows; here it is the first.
    fn maybe_elect_joined_leader(&mut self) -> bool {
        if self
            .leader
            .as_deref()
            .and_then(|leader| self.member(leader))
            .is_some_and(super::Member::is_awaiting_join)
        {
            return true;
        }
        let joined = self
            .members()
            .find(|member| member.is_awaiting_join())
            .map(|member| member.id.clone());
        match joined {
            Some(id) => {
                info!(group = &*self.id, member = &*id, "elected a new leader");
                self.leader = Some(id);
                true
            }
            None => false,
        }
    }

    /// The successful answer to a JoinGroup in this generation.
    pub(super) fn join_response(&self, id: &str, with_members: bool) -> JoinGroupResponse {
        let members = if with_members {
            self.members()
                .map(|member| JoinGroupResponseMember {
                    member_id: member.id.to_string(),
                    group_instance_id: member.instance.clone(),
                    metadata: self.metadata_of(member, self.protocol_name.as_deref()),
                })
                .collect()
        } else {
            Vec::new()
        };
        JoinGroupResponse {
            error_code: ErrorCode::NONE.0,
            generation_id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            leader: self.leader.as_deref().unwrap_or_default().to_owned(),
            skip_assignment: false,
            member_id: id.to_owned(),
            members,
            ..JoinGroupResponse::default()
        }
    }

    // ---- expiry ----

    /// A session (or a new member's time to join) has ended without a sign of life.
    pub(crate) fn on_heartbeat_timer(&mut self, id: &str, step: &mut Step<'_>) {
        if self.is_pending(id) {
            info!(group = &*self.id, member = id, "pending member timed out");
            self.remove(id);
            if self.state() == PreparingRebalance && self.has_all_members_joined() {
                self.complete_join(step);
            }
            return;
        }
        let Some(member) = self.member(id) else {
            debug!(
                group = &*self.id,
                member = id,
                "session of a member that is gone"
            );
            return;
        };
        if member.has_satisfied_heartbeat() {
            return;
        }
        info!(
            group = &*self.id,
            member = id,
            "member has failed, removing it"
        );
        self.evict(id, step);
        match self.state() {
            Stable | CompletingRebalance => {
                self.prepare_rebalance("member failed", step);
            }
            PreparingRebalance if self.has_all_members_joined() => self.complete_join(step),
            PreparingRebalance | Empty => {}
        }
    }

    /// The time for syncing is up: members that have not sent SyncGroup are out.
    pub(crate) fn on_sync_timer(&mut self, step: &mut Step<'_>) {
        match self.state() {
            CompletingRebalance | Stable if !self.pending_sync.is_empty() => {
                let late: Vec<Rc<str>> = self.pending_sync.iter().cloned().collect();
                for id in &late {
                    self.remove(id);
                    self.cancel_heartbeat(id, step);
                }
                info!(group = &*self.id, members = ?late, "removed members that have not synced");
                self.prepare_rebalance("members have not synced", step);
            }
            _ => {}
        }
    }

    /// Removes a member. A new member may be parked in its first JoinGroup: it is told that
    /// it is unknown, so that it tries again if it is still there.
    pub(super) fn evict(&mut self, id: &str, step: &mut Step<'_>) {
        self.answer_join(
            id,
            reply::join_group_error("", ErrorCode::UNKNOWN_MEMBER_ID),
            step.fx,
        );
        if let Some(mut member) = self.remove(id)
            && let Some(waiter) = member.awaiting_sync.take()
        {
            // Kafka forgets a parked SyncGroup here and its client waits for its time-out.
            step.fx.reply_sync(
                waiter,
                reply::sync_group_error(ErrorCode::UNKNOWN_MEMBER_ID),
            );
        }
    }

    // ---- assignments ----

    /// Gives up the assignment of a generation that has not become stable.
    pub(super) fn reset_assignments(&mut self, error: ErrorCode, step: &mut Step<'_>) {
        debug_assert_eq!(self.state(), CompletingRebalance);
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
        }
        self.answer_syncs(error, step);
    }

    /// Answers all parked syncs, with the assignment where there is no error. A session
    /// that ended while its member was parked was let pass without setting it again, so
    /// that must be done here.
    pub(super) fn answer_syncs(&mut self, error: ErrorCode, step: &mut Step<'_>) {
        let ids: Vec<Rc<str>> = self
            .members()
            .filter(|member| member.is_awaiting_sync())
            .map(|member| member.id.clone())
            .collect();
        for id in ids {
            let response = if error.is_ok() {
                self.sync_response(&id)
            } else {
                reply::sync_group_error(error)
            };
            if let Some(waiter) = self
                .members
                .get_mut(&id)
                .and_then(|member| member.awaiting_sync.take())
            {
                step.fx.reply_sync(waiter, response);
                self.reschedule_heartbeat(&id, step);
            }
        }
    }

    pub(super) fn sync_response(&self, id: &str) -> SyncGroupResponse {
        SyncGroupResponse {
            error_code: ErrorCode::NONE.0,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            assignment: self
                .member(id)
                .map(|member| member.assignment.clone())
                .unwrap_or_default(),
            ..SyncGroupResponse::default()
        }
    }

    // ---- timers ----

    pub(crate) fn reschedule_heartbeat(&self, id: &str, step: &mut Step<'_>) {
        if let Some(member) = self.member(id) {
            self.schedule_heartbeat(&member.id, member.session_timeout_ms, step);
        }
    }

    pub(super) fn schedule_heartbeat(&self, id: &Rc<str>, timeout_ms: i32, step: &mut Step<'_>) {
        step.set_timer(
            TimerKey::Heartbeat {
                group: self.id.clone(),
                member: id.clone(),
            },
            i64::from(timeout_ms),
        );
    }

    pub(super) fn cancel_heartbeat(&self, id: &str, step: &mut Step<'_>) {
        step.cancel_timer(TimerKey::Heartbeat {
            group: self.id.clone(),
            member: id.into(),
        });
    }

    fn set_join_timer(&mut self, meaning: JoinTimer, delay_ms: i32, step: &mut Step<'_>) {
        self.join_timer = meaning;
        step.set_timer(
            TimerKey::Join {
                group: self.id.clone(),
            },
            i64::from(delay_ms),
        );
    }
}
