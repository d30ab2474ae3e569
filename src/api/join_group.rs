//! JoinGroup: a member enters its group's next generation. Parked at the coordinator
//! until the group is complete.

use std::rc::Rc;

use crate::base::ErrorCode;
use crate::coordinator::reply;
use crate::security::{Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::shard::messages::{GroupCall, GroupReply};
use crate::wire::messages::{JoinGroupRequest, JoinGroupResponse};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: JoinGroupRequest,
) -> JoinGroupResponse {
    let version = context.api_version;
    let member_id = request.member_id.clone();
    let refuse =
        |error| reply::join_group_response(reply::join_group_error(&member_id, error), version);
    if !shard.authorize(
        &context,
        Operation::Read,
        ResourceType::Group,
        &request.group_id,
    ) {
        return refuse(ErrorCode::GROUP_AUTHORIZATION_FAILED);
    }
    let group_id = request.group_id.clone();
    let call = GroupCall::Join {
        client_id: context.client_id.as_deref().unwrap_or("").to_owned(),
        client_address: context.client_address.ip(),
        request,
        version,
    };
    match shard.group_call(&group_id, call).await {
        Ok(GroupReply::Join(response)) => response,
        Ok(_) => refuse(ErrorCode::NOT_COORDINATOR),
        Err(error) => refuse(error),
    }
}
