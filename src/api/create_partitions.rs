//! CreatePartitions: more partitions for existing topics.

use std::rc::Rc;

use super::controller_down;
use crate::controller::{ControllerRequest, ControllerResponse};
use crate::security::RequestContext;
use crate::shard::Shard;
use crate::wire::messages::create_partitions_response::CreatePartitionsTopicResult;
use crate::wire::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let names: Vec<String> = request.topics.iter().map(|t| t.name.clone()).collect();
    let call = ControllerRequest::CreatePartitions {
        ctx: context,
        request,
    };
    match shard.controller(call).await {
        Some(ControllerResponse::CreatePartitions(response)) => response,
        other => CreatePartitionsResponse {
            results: names
                .into_iter()
                .map(|name| CreatePartitionsTopicResult {
                    name,
                    error_code: controller_down(&other).0,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        },
    }
}
