//! DeleteTopics, by name or (from version 6) by id.

use std::rc::Rc;

use super::controller_down;
use crate::controller::{ControllerRequest, ControllerResponse};
use crate::security::RequestContext;
use crate::shard::Shard;
use crate::wire::messages::delete_topics_response::DeletableTopicResult;
use crate::wire::messages::{DeleteTopicsRequest, DeleteTopicsResponse};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let asked: Vec<DeletableTopicResult> = request
        .topics
        .iter()
        .map(|topic| DeletableTopicResult {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            ..Default::default()
        })
        .chain(request.topic_names.iter().map(|name| DeletableTopicResult {
            name: Some(name.clone()),
            ..Default::default()
        }))
        .collect();
    let call = ControllerRequest::DeleteTopics {
        ctx: context,
        request,
    };
    match shard.controller(call).await {
        Some(ControllerResponse::DeleteTopics(response)) => response,
        other => DeleteTopicsResponse {
            responses: asked
                .into_iter()
                .map(|topic| DeletableTopicResult {
                    error_code: controller_down(&other).0,
                    ..topic
                })
                .collect(),
            ..Default::default()
        },
    }
}
