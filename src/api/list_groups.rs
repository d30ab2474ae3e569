//! ListGroups: the groups of every coordinator on this broker that the client may see.

use std::rc::Rc;

use crate::base::ErrorCode;
use crate::security::{CLUSTER_NAME, Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::shard::messages::{GroupCall, GroupReply};
use crate::wire::messages::{ListGroupsRequest, ListGroupsResponse};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: ListGroupsRequest,
) -> ListGroupsResponse {
    let all = shard.authorize(
        &context,
        Operation::Describe,
        ResourceType::Cluster,
        CLUSTER_NAME,
    );
    let mut merged = ListGroupsResponse::default();
    for partition in shard.coordinator_partitions() {
        let reply = shard
            .group_call_at(partition, GroupCall::List(request.clone()))
            .await;
        let Ok(GroupReply::List(response)) = reply else {
            continue;
        };
        match ErrorCode(response.error_code) {
            ErrorCode::NONE => merged.groups.extend(response.groups),
            // Led elsewhere: that broker lists its own.
            ErrorCode::NOT_COORDINATOR => {}
            error => {
                return ListGroupsResponse {
                    error_code: error.0,
                    ..Default::default()
                };
            }
        }
    }
    merged.groups.retain(|group| {
        all || shard.authorize(
            &context,
            Operation::Describe,
            ResourceType::Group,
            &group.group_id,
        )
    });
    merged
}
