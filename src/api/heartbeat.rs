//! Heartbeat: a member says that it lives, and learns of a rebalance.

use std::rc::Rc;

use crate::base::ErrorCode;
use crate::coordinator::reply;
use crate::security::{Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::shard::messages::{GroupCall, GroupReply};
use crate::wire::messages::{HeartbeatRequest, HeartbeatResponse};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: HeartbeatRequest,
) -> HeartbeatResponse {
    if !shard.authorize(
        &context,
        Operation::Read,
        ResourceType::Group,
        &request.group_id,
    ) {
        return reply::heartbeat_error(ErrorCode::GROUP_AUTHORIZATION_FAILED);
    }
    let group_id = request.group_id.clone();
    let call = GroupCall::Heartbeat(request);
    match shard.group_call(&group_id, call).await {
        Ok(GroupReply::Heartbeat(response)) => response,
        Ok(_) => reply::heartbeat_error(ErrorCode::NOT_COORDINATOR),
        Err(error) => reply::heartbeat_error(error),
    }
}
