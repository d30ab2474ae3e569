//! ListGroups: the groups of every coordinator on this broker that the client may see.

use std::rc::Rc;

use crate::base::ErrorCode;
use crate::security::{CLUSTER_NAME, Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::shard::messages::{GroupCall, GroupReply};
use crate::wire::messages::{ListGroupsRequest, ListGroupsResponse};

/// Groups that are looked at before others get their turn.
const STEP: usize = 256;

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
    if all {
        return merged;
    }
    let mut visible = Vec::new();
    for (seen, group) in merged.groups.into_iter().enumerate() {
        if seen % STEP == STEP - 1 {
            shard.rt().yield_now().await;
        }
        let (describe, kind) = (Operation::Describe, ResourceType::Group);
        if shard.authorize(&context, describe, kind, &group.group_id) {
            visible.push(group);
        }
    }
    ListGroupsResponse {
        groups: visible,
        ..merged
    }
}
