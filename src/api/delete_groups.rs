//! DeleteGroups: removes empty groups with their offsets.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::base::ErrorCode;
use crate::coordinator::reply;
use crate::security::{Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::shard::messages::{GroupCall, GroupReply};
use crate::wire::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut names = request.groups_names;
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    let mut results = Vec::new();
    for name in names {
        let ids = [name];
        if !shard.authorize(&context, Operation::Delete, ResourceType::Group, &ids[0]) {
            results.extend(reply::delete_groups_error(
                &ids,
                ErrorCode::GROUP_AUTHORIZATION_FAILED,
            ));
            continue;
        }
        let call = GroupCall::Delete(ids.to_vec());
        results.extend(match shard.group_call(&ids[0], call).await {
            Ok(GroupReply::Delete(results)) => results,
            Ok(_) => reply::delete_groups_error(&ids, ErrorCode::NOT_COORDINATOR),
            Err(error) => reply::delete_groups_error(&ids, error),
        });
    }
    DeleteGroupsResponse {
        results,
        ..Default::default()
    }
}
