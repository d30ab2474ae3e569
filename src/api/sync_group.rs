//! SyncGroup: the leader hands in the assignment, everyone gets their part.

use std::rc::Rc;

use crate::base::ErrorCode;
use crate::coordinator::reply;
use crate::security::{Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::shard::messages::{GroupCall, GroupReply};
use crate::wire::messages::{SyncGroupRequest, SyncGroupResponse};

/// First version that has to name the protocol.
const PROTOCOL_SINCE: i16 = 5;

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    let has_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    if context.api_version >= PROTOCOL_SINCE && !has_protocol {
        return reply::sync_group_error(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    }
    if !shard.authorize(
        &context,
        Operation::Read,
        ResourceType::Group,
        &request.group_id,
    ) {
        return reply::sync_group_error(ErrorCode::GROUP_AUTHORIZATION_FAILED);
    }
    let group_id = request.group_id.clone();
    let call = GroupCall::Sync(request, context.api_version);
    match shard.group_call(&group_id, call).await {
        Ok(GroupReply::Sync(response)) => response,
        Ok(_) => reply::sync_group_error(ErrorCode::NOT_COORDINATOR),
        Err(error) => reply::sync_group_error(error),
    }
}
