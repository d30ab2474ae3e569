//! CreateAcls: decided by the controller, answered when every core goes by the new ACLs.

use std::rc::Rc;

use super::controller_down;
use crate::controller::{ControllerRequest, ControllerResponse};
use crate::security::RequestContext;
use crate::shard::Shard;
use crate::wire::messages::create_acls_response::AclCreationResult;
use crate::wire::messages::{CreateAclsRequest, CreateAclsResponse};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: CreateAclsRequest,
) -> CreateAclsResponse {
    let count = request.creations.len();
    let call = ControllerRequest::CreateAcls {
        ctx: context,
        request,
    };
    match shard.controller(call).await {
        Some(ControllerResponse::CreateAcls(response)) => response,
        other => {
            let failed = AclCreationResult {
                error_code: controller_down(&other).0,
                ..Default::default()
            };
            CreateAclsResponse {
                results: vec![failed; count],
                ..Default::default()
            }
        }
    }
}
