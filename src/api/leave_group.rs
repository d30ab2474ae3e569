//! LeaveGroup: members leave, one (to version 2) or several.

use std::rc::Rc;

use crate::base::ErrorCode;
use crate::coordinator::reply;
use crate::security::{Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::shard::messages::{GroupCall, GroupReply};
use crate::wire::messages::{LeaveGroupRequest, LeaveGroupResponse};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    if !shard.authorize(
        &context,
        Operation::Read,
        ResourceType::Group,
        &request.group_id,
    ) {
        return reply::leave_group_error(ErrorCode::GROUP_AUTHORIZATION_FAILED);
    }
    let group_id = request.group_id.clone();
    let call = GroupCall::Leave(request, context.api_version);
    match shard.group_call(&group_id, call).await {
        Ok(GroupReply::Leave(response)) => response,
        Ok(_) => reply::leave_group_error(ErrorCode::NOT_COORDINATOR),
        Err(error) => reply::leave_group_error(error),
    }
}
