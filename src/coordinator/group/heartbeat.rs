//! Heartbeat on a classic group.

use std::rc::Rc;

use super::ClassicGroup;
use super::state::ClassicGroupState::{CompletingRebalance, Empty, PreparingRebalance, Stable};
use crate::base::ErrorCode;
use crate::coordinator::effects::{Effects, Waiter};
use crate::coordinator::{Step, reply};
use crate::wire::messages::HeartbeatRequest;

impl ClassicGroup {
    /// The answer's error code. During a rebalance a valid heartbeat keeps the session
    /// although the answer is an error; while the leader assigns it is an ordinary one.
    pub(crate) fn on_heartbeat(
        &mut self,
        request: &HeartbeatRequest,
        step: &mut Step<'_>,
    ) -> Result<(), ErrorCode> {
        self.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        match self.state() {
            Empty => Err(ErrorCode::UNKNOWN_MEMBER_ID),
            PreparingRebalance => {
                self.reschedule_heartbeat(&request.member_id, step);
                Err(ErrorCode::REBALANCE_IN_PROGRESS)
            }
            CompletingRebalance | Stable => {
                self.reschedule_heartbeat(&request.member_id, step);
                Ok(())
            }
        }
    }

    /// A member's commit shows that it lives, where its generation is in use.
    pub(crate) fn on_member_commit(&self, member: &str, step: &mut Step<'_>) {
        if matches!(self.state(), Stable | PreparingRebalance) {
            self.reschedule_heartbeat(member, step);
        }
    }

    /// Members known from the log have a whole session to show up. A group that is over a
    /// size limit lowered meanwhile rebalances, so that the surplus is left out.
    pub(crate) fn on_loaded(&mut self, step: &mut Step<'_>) {
        for member in self.members() {
            self.schedule_heartbeat(&member.id, member.session_timeout_ms, step);
        }
        if i32::try_from(self.members().len()).unwrap_or(i32::MAX) > step.config.group_size_max {
            self.prepare_rebalance("the loaded group is over its size limit", step);
        }
    }

    /// The shard is given up.
    pub(crate) fn on_unloaded(&mut self, fx: &mut Effects) {
        let error = ErrorCode::NOT_COORDINATOR;
        let ids: Vec<Rc<str>> = self.members().map(|member| member.id.clone()).collect();
        for id in ids {
            self.answer_join(&id, reply::join_group_error(&id, error), fx);
            if let Some(waiter) = self
                .members
                .get_mut(&id)
                .and_then(|member| member.awaiting_sync.take())
            {
                fx.reply_sync(waiter, reply::sync_group_error(error));
            }
        }
    }

    /// The record that makes the group known failed: its first member is told, if it is
    /// parked (else it has its answer).
    pub(crate) fn on_creation_failed(
        &mut self,
        waiter: Waiter,
        error: ErrorCode,
        step: &mut Step<'_>,
    ) {
        let parked = self
            .members()
            .find(|member| member.awaiting_join == Some(waiter))
            .map(|member| member.id.clone());
        if let Some(id) = parked {
            self.answer_join(&id, reply::join_group_error("", error), step.fx);
        }
    }
}
