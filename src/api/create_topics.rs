//! CreateTopics: decided by the controller, answered when every core has the topics.

use std::rc::Rc;

use super::controller_down;
use crate::controller::{ControllerRequest, ControllerResponse};
use crate::security::RequestContext;
use crate::shard::Shard;
use crate::wire::messages::create_topics_response::CreatableTopicResult;
use crate::wire::messages::{CreateTopicsRequest, CreateTopicsResponse};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let names: Vec<String> = request.topics.iter().map(|t| t.name.clone()).collect();
    let call = ControllerRequest::CreateTopics {
        ctx: context,
        request,
    };
    match shard.controller(call).await {
        Some(ControllerResponse::CreateTopics(response)) => response,
        other => CreateTopicsResponse {
            topics: names
                .into_iter()
                .map(|name| CreatableTopicResult {
                    name,
                    error_code: controller_down(&other).0,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        },
    }
}
