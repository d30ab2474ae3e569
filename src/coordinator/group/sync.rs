//! SyncGroup on a classic group.

use std::collections::BTreeMap;

use bytes::Bytes;
use tracing::info;

use super::ClassicGroup;
use super::state::ClassicGroupState::{CompletingRebalance, Empty, PreparingRebalance, Stable};
use crate::base::ErrorCode;
use crate::coordinator::effects::{Completion, TimerKey, Waiter};
use crate::coordinator::records::CoordinatorRecord;
use crate::coordinator::{Step, reply};
use crate::wire::messages::SyncGroupRequest;

impl ClassicGroup {
    pub(crate) fn on_sync(
        &mut self,
        request: &SyncGroupRequest,
        waiter: Waiter,
        step: &mut Step<'_>,
    ) {
        let id = request.member_id.as_str();
        if let Err(error) = self.validate_sync(request) {
            step.fx.reply_sync(waiter, reply::sync_group_error(error));
            return;
        }
        match self.state() {
            Empty => step.fx.reply_sync(
                waiter,
                reply::sync_group_error(ErrorCode::UNKNOWN_MEMBER_ID),
            ),
            PreparingRebalance => step.fx.reply_sync(
                waiter,
                reply::sync_group_error(ErrorCode::REBALANCE_IN_PROGRESS),
            ),
            CompletingRebalance => {
                let member = self.members.get_mut(id).expect("validated above");
                if let Some(earlier) = member.awaiting_sync.replace(waiter) {
                    // A retry on another connection; the first one must not hang.
                    step.fx.reply_sync(
                        earlier,
                        reply::sync_group_error(ErrorCode::REBALANCE_IN_PROGRESS),
                    );
                }
                self.has_synced(id, step);
                if self.is_leader(id) {
                    self.write_assignment(request, step);
                }
            }
            Stable => {
                self.has_synced(id, step);
                step.fx.reply_sync(waiter, self.sync_response(id));
            }
        }
    }

    fn validate_sync(&self, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        self.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        let contradicts = |said: &Option<String>, is: &Option<String>| {
            said.is_some() && is.is_some() && said != is
        };
        if contradicts(&request.protocol_type, &self.protocol_type)
            || contradicts(&request.protocol_name, &self.protocol_name)
        {
            return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        Ok(())
    }

    fn has_synced(&mut self, id: &str, step: &mut Step<'_>) {
        self.pending_sync.remove(id);
        if self.pending_sync.is_empty() {
            step.cancel_timer(TimerKey::Sync {
                group: self.id.clone(),
            });
        }
    }

    /// The leader has spoken: its assignment goes to the log, and to the members once it is
    /// committed. Members that it forgot get an empty one.
    fn write_assignment(&self, request: &SyncGroupRequest, step: &mut Step<'_>) {
        let assignment: BTreeMap<String, Bytes> = request
            .assignments
            .iter()
            .map(|entry| {
                (
                    entry.member_id.clone(),
                    Bytes::copy_from_slice(&entry.assignment),
                )
            })
            .collect();
        let forgotten = self
            .members()
            .filter(|member| !assignment.contains_key(&*member.id))
            .count();
        if forgotten > 0 {
            info!(
                group = &*self.id,
                generation = self.generation,
                members = forgotten,
                "the leader left members without an assignment"
            );
        }
        info!(
            group = &*self.id,
            generation = self.generation,
            members = self.members.len(),
            "assignment received from the leader"
        );
        let record =
            self.to_record(|member| assignment.get(&*member.id).cloned().unwrap_or_default());
        step.fx.write_group(
            CoordinatorRecord::group_metadata(&self.id, record),
            Completion::Assignment {
                group: self.id.clone(),
                generation: self.generation,
                assignment,
            },
        );
    }

    // ---- completions ----

    /// The assignment is committed. A rebalance that has begun meanwhile makes it void.
    pub(crate) fn on_assignment_committed(
        &mut self,
        generation: i32,
        assignment: &BTreeMap<String, Bytes>,
        step: &mut Step<'_>,
    ) {
        if self.state() != CompletingRebalance || self.generation != generation {
            return;
        }
        for member in self.members.values_mut() {
            member.assignment = assignment.get(&*member.id).cloned().unwrap_or_default();
        }
        self.answer_syncs(ErrorCode::NONE, step);
        self.transition_to(Stable, step.now.wall_ms);
    }

    /// The assignment could not be committed: everybody joins again.
    pub(crate) fn on_assignment_failed(
        &mut self,
        generation: i32,
        error: ErrorCode,
        step: &mut Step<'_>,
    ) {
        if self.state() != CompletingRebalance || self.generation != generation {
            return;
        }
        self.reset_assignments(error, step);
        self.prepare_rebalance("the assignment could not be stored", step);
    }
}
