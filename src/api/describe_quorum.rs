//! DescribeQuorum: voters and observers of the metadata log, as the controller sees them.

use std::rc::Rc;

use super::controller_down;
use crate::base::ErrorCode;
use crate::controller::{ApiError, ControllerRequest, ControllerResponse};
use crate::security::{CLUSTER_NAME, Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::wire::messages::{DescribeQuorumRequest, DescribeQuorumResponse};

/// First version that tells where the voters are.
const NODES_SINCE: i16 = 2;

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    if !shard.authorize(
        &context,
        Operation::Describe,
        ResourceType::Cluster,
        CLUSTER_NAME,
    ) {
        return failed(ErrorCode::CLUSTER_AUTHORIZATION_FAILED);
    }
    let version = context.api_version;
    let call = ControllerRequest::DescribeQuorum {
        ctx: context,
        request,
    };
    match shard.controller(call).await {
        Some(ControllerResponse::DescribeQuorum(mut response)) => {
            if version < NODES_SINCE {
                response.nodes.clear();
            }
            response
        }
        other => failed(controller_down(&other)),
    }
}

fn failed(error: ErrorCode) -> DescribeQuorumResponse {
    DescribeQuorumResponse {
        error_code: error.0,
        error_message: Some(ApiError::general(error).message.unwrap_or_default()),
        ..Default::default()
    }
}
