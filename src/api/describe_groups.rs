//! DescribeGroups: state, members and assignments of classic groups.

use std::rc::Rc;

use crate::base::ErrorCode;
use crate::coordinator::reply;
use crate::security::{Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::shard::messages::{GroupCall, GroupReply};
use crate::wire::messages::describe_groups_response::DescribedGroup;
use crate::wire::messages::{DescribeGroupsRequest, DescribeGroupsResponse};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let mut groups = Vec::new();
    for group_id in request.groups {
        if !shard.authorize(
            &context,
            Operation::Describe,
            ResourceType::Group,
            &group_id,
        ) {
            groups.extend(reply::describe_error(
                &[group_id],
                ErrorCode::GROUP_AUTHORIZATION_FAILED,
            ));
            continue;
        }
        let mut described = one(&shard, &context, group_id).await;
        if request.include_authorized_operations {
            for group in described.iter_mut().filter(|g| g.error_code == 0) {
                group.authorized_operations =
                    shard.authorized_operations(&context, ResourceType::Group, &group.group_id);
            }
        }
        groups.extend(described);
    }
    DescribeGroupsResponse {
        groups,
        ..Default::default()
    }
}

async fn one(shard: &Rc<Shard>, context: &RequestContext, id: String) -> Vec<DescribedGroup> {
    let ids = vec![id];
    let call = GroupCall::Describe(ids.clone(), context.api_version);
    match shard.group_call(&ids[0], call).await {
        Ok(GroupReply::Describe(groups)) => groups,
        Ok(_) => reply::describe_error(&ids, ErrorCode::NOT_COORDINATOR),
        Err(error) => reply::describe_error(&ids, error),
    }
}
