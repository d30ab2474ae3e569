//! AlterConfigs (deprecated by KIP-339): replaces all of a resource's own configs.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::config_resource::{self, Refusal};
use super::controller_down;
use crate::base::ErrorCode;
use crate::config::ConfigMap;
use crate::controller::{ControllerRequest, ControllerResponse};
use crate::metadata::ConfigResourceType;
use crate::security::{Operation, RequestContext};
use crate::shard::Shard;
use crate::wire::messages::alter_configs_request::AlterConfigsResource;
use crate::wire::messages::alter_configs_response::AlterConfigsResourceResponse;
use crate::wire::messages::{AlterConfigsRequest, AlterConfigsResponse};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    mut request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let mut refused = Vec::new();
    let mut count: BTreeMap<(i8, String), usize> = BTreeMap::new();
    for resource in &request.resources {
        let key = (resource.resource_type, resource.resource_name.clone());
        *count.entry(key).or_default() += 1;
    }
    request.resources.retain(|resource| {
        let key = (resource.resource_type, resource.resource_name.clone());
        let checked = if count[&key] > 1 {
            Err(Refusal::new(
                ErrorCode::INVALID_REQUEST,
                "Each resource must appear at most once.",
            ))
        } else {
            check(&shard, &context, resource)
        };
        match checked {
            Ok(()) => true,
            Err(refusal) => {
                refused.push(answer(resource, &refusal));
                false
            }
        }
    });
    let forwarded = if request.resources.is_empty() {
        Vec::new()
    } else {
        forward(&shard, context, request).await
    };
    refused.extend(forwarded);
    AlterConfigsResponse {
        responses: refused,
        ..Default::default()
    }
}

async fn forward(
    shard: &Rc<Shard>,
    context: RequestContext,
    request: AlterConfigsRequest,
) -> Vec<AlterConfigsResourceResponse> {
    let resources = request.resources.clone();
    let call = ControllerRequest::AlterConfigs {
        ctx: context,
        request,
    };
    match shard.controller(call).await {
        Some(ControllerResponse::AlterConfigs(response)) => response.responses,
        other => resources
            .iter()
            .map(|resource| answer(resource, &Refusal::new(controller_down(&other), "")))
            .collect(),
    }
}

fn check(
    shard: &Shard,
    context: &RequestContext,
    resource: &AlterConfigsResource,
) -> Result<(), Refusal> {
    let name = resource.resource_name.as_str();
    let kind = config_resource::kind(resource.resource_type)?;
    config_resource::authorize(shard, context, Operation::AlterConfigs, kind, name)?;
    let mut seen = BTreeSet::new();
    if !resource
        .configs
        .iter()
        .all(|config| seen.insert(&config.name))
    {
        return Err(Refusal::new(
            ErrorCode::INVALID_REQUEST,
            "Error due to duplicate config keys",
        ));
    }
    let unset: Vec<&str> = resource
        .configs
        .iter()
        .filter(|config| config.value.is_none())
        .map(|config| config.name.as_str())
        .collect();
    if !unset.is_empty() {
        return Err(Refusal::new(
            ErrorCode::INVALID_REQUEST,
            format!("Null value not supported for : {}", unset.join(",")),
        ));
    }
    match kind {
        ConfigResourceType::BROKER => {
            config_resource::check_broker_name(shard, name)?;
            let changed: ConfigMap = resource
                .configs
                .iter()
                .map(|c| (c.name.clone(), c.value.clone().unwrap_or_default()))
                .collect();
            config_resource::check_broker_change(name, &changed)
        }
        ConfigResourceType::BROKER_LOGGER => Err(Refusal::new(
            ErrorCode::INVALID_REQUEST,
            "Dynamic log levels are only supported by IncrementalAlterConfigs.",
        )),
        _ => Ok(()),
    }
}

fn answer(resource: &AlterConfigsResource, refusal: &Refusal) -> AlterConfigsResourceResponse {
    AlterConfigsResourceResponse {
        error_code: refusal.error.0,
        error_message: Some(refusal.message.clone()),
        resource_type: resource.resource_type,
        resource_name: resource.resource_name.clone(),
    }
}
