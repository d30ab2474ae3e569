//! LeaveGroup on a classic group.

use tracing::info;

use super::ClassicGroup;
use super::state::ClassicGroupState::{CompletingRebalance, Empty, PreparingRebalance, Stable};
use crate::base::ErrorCode;
use crate::coordinator::{Step, reply};
use crate::wire::messages::leave_group_request::MemberIdentity;
use crate::wire::messages::leave_group_response::MemberResponse;

impl ClassicGroup {
    /// Each member by its id, or, for administrators, a static one by its instance id with
    /// an empty id (KIP-345).
    pub(crate) fn on_leave(
        &mut self,
        members: &[MemberIdentity],
        step: &mut Step<'_>,
    ) -> Vec<MemberResponse> {
        let responses: Vec<MemberResponse> = members
            .iter()
            .map(|identity| {
                let error = self.leave(identity, step).err();
                reply::leave_result(identity, error.unwrap_or_default())
            })
            .collect();
        if responses.iter().any(|response| response.error_code == 0) {
            match self.state() {
                Stable | CompletingRebalance => {
                    self.prepare_rebalance("members have left", step);
                }
                PreparingRebalance => self.maybe_complete_join_phase(step),
                Empty => {}
            }
        }
        responses
    }

    fn leave(&mut self, identity: &MemberIdentity, step: &mut Step<'_>) -> Result<(), ErrorCode> {
        let instance = identity.group_instance_id.as_deref();
        let id = if identity.member_id.is_empty() {
            instance
                .and_then(|instance| self.static_member(instance))
                .cloned()
                .ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?
        } else {
            if !self.is_pending(&identity.member_id) {
                self.validate_member(&identity.member_id, instance)?;
            }
            identity.member_id.as_str().into()
        };
        info!(
            group = &*self.id,
            member = &*id,
            reason = identity.reason.as_deref().unwrap_or("not provided"),
            "member leaves"
        );
        self.cancel_heartbeat(&id, step);
        self.evict(&id, step);
        Ok(())
    }
}
