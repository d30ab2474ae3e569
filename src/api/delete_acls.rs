//! DeleteAcls: decided by the controller, answered when no core goes by the ACLs any more.

use std::rc::Rc;

use super::controller_down;
use crate::controller::{ControllerRequest, ControllerResponse};
use crate::security::RequestContext;
use crate::shard::Shard;
use crate::wire::messages::delete_acls_response::DeleteAclsFilterResult;
use crate::wire::messages::{DeleteAclsRequest, DeleteAclsResponse};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: DeleteAclsRequest,
) -> DeleteAclsResponse {
    let count = request.filters.len();
    let call = ControllerRequest::DeleteAcls {
        ctx: context,
        request,
    };
    match shard.controller(call).await {
        Some(ControllerResponse::DeleteAcls(response)) => response,
        other => {
            let failed = DeleteAclsFilterResult {
                error_code: controller_down(&other).0,
                ..Default::default()
            };
            DeleteAclsResponse {
                filter_results: vec![failed; count],
                ..Default::default()
            }
        }
    }
}
