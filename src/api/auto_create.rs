//! Topics that come into being because someone needs them: a Metadata request for a
//! missing topic (`auto.create.topics.enable`), or a coordinator's internal topic.

use std::rc::Rc;

use crate::controller::{ControllerRequest, ControllerResponse, auto_create_request, topic_name};
use crate::security::{CLUSTER_NAME, Operation, RequestContext, ResourceType};
use crate::shard::Shard;

/// Creates those of `names` that are missing, valid and allowed; answers when every core
/// sees them. Failures show as the topic still missing.
pub async fn missing<'a>(
    shard: &Rc<Shard>,
    context: &RequestContext,
    names: impl Iterator<Item = &'a str>,
) {
    let image = shard.image();
    let wanted: Vec<&str> = names
        .filter(|name| image.topics.by_name(name).is_none())
        .filter(|name| topic_name::validate(name).is_ok())
        .filter(|name| {
            topic_name::is_internal(name) || shard.node().config.topics.auto_create_topics_enable
        })
        .filter(|name| shard.authorize(context, Operation::Describe, ResourceType::Topic, name))
        .filter(|name| may_create(shard, context, name))
        .collect();
    if !wanted.is_empty() {
        create(shard, context, &wanted).await;
    }
}

/// Creates an internal topic, as the broker itself.
pub async fn internal(shard: &Rc<Shard>, name: &str) {
    if shard.image().topics.by_name(name).is_none() {
        create(shard, &RequestContext::internal(), &[name]).await;
    }
}

async fn create(shard: &Rc<Shard>, context: &RequestContext, names: &[&str]) {
    let request = auto_create_request(names, &shard.node().auto_create);
    let context = RequestContext {
        // The version that the request is built for; the client asked another API.
        api_version: 7,
        ..context.clone()
    };
    let call = ControllerRequest::CreateTopics {
        ctx: context,
        request,
    };
    if let Some(ControllerResponse::CreateTopics(response)) = shard.controller(call).await {
        for topic in response.topics.iter().filter(|t| t.error_code != 0) {
            tracing::info!(
                topic = topic.name,
                error = %crate::base::ErrorCode(topic.error_code),
                message = topic.error_message.as_deref().unwrap_or(""),
                "a topic was not created automatically"
            );
        }
    }
}

/// Whether a client may have a topic created.
pub fn may_create(shard: &Shard, context: &RequestContext, topic: &str) -> bool {
    shard.authorize(
        context,
        Operation::Create,
        ResourceType::Cluster,
        CLUSTER_NAME,
    ) || shard.authorize(context, Operation::Create, ResourceType::Topic, topic)
}
