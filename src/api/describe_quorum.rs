//! DescribeQuorum: voters and observers of the metadata log, as the quorum's leader sees them.

use std::rc::Rc;

use super::quorum;
use crate::base::ErrorCode;
use crate::controller::ApiError;
use crate::security::RequestContext;
use crate::shard::Shard;
use crate::wire::messages::{DescribeQuorumRequest, DescribeQuorumResponse};

/// First version that tells where the voters are.
const NODES_SINCE: i16 = 2;

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let version = context.api_version;
    let mut response = quorum::describe(shard, context, request).await;
    let error = ErrorCode(response.error_code);
    if !error.is_ok() && response.error_message.as_deref().is_none_or(str::is_empty) {
        response.error_message = Some(ApiError::general(error).message.unwrap_or_default());
    }
    if version < NODES_SINCE {
        response.nodes.clear();
    }
    response
}
