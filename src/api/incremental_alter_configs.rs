//! IncrementalAlterConfigs (KIP-339): sets, deletes, appends to or subtracts from single
//! configs of a resource.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::config_resource::{self, LayerMaps, Refusal};
use super::controller_down;
use crate::base::ErrorCode;
use crate::config::alter::{self, Op};
use crate::config::table::Scope;
use crate::controller::{ControllerRequest, ControllerResponse};
use crate::metadata::{ConfigResourceType, MetadataImage};
use crate::security::{Operation, RequestContext};
use crate::shard::Shard;
use crate::wire::messages::incremental_alter_configs_request::AlterConfigsResource;
use crate::wire::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use crate::wire::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    mut request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let image = shard.image();
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
            check(&shard, &context, &image, resource)
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
    IncrementalAlterConfigsResponse {
        responses: refused,
        ..Default::default()
    }
}

async fn forward(
    shard: &Rc<Shard>,
    context: RequestContext,
    request: IncrementalAlterConfigsRequest,
) -> Vec<AlterConfigsResourceResponse> {
    let resources = request.resources.clone();
    let call = ControllerRequest::IncrementalAlterConfigs {
        ctx: context,
        request,
    };
    match shard.controller(call).await {
        Some(ControllerResponse::IncrementalAlterConfigs(response)) => response.responses,
        other => resources
            .iter()
            .map(|resource| answer(resource, &Refusal::new(controller_down(&other), "")))
            .collect(),
    }
}

fn check(
    shard: &Shard,
    context: &RequestContext,
    image: &MetadataImage,
    resource: &AlterConfigsResource,
) -> Result<(), Refusal> {
    let name = resource.resource_name.as_str();
    let kind = config_resource::kind(resource.resource_type)?;
    authorize(shard, context, kind, name)?;
    check_operations(resource)?;
    match kind {
        ConfigResourceType::BROKER => {
            config_resource::check_broker_name(shard, name)?;
            let maps = LayerMaps::of(shard, image, kind, name);
            let mut changed = maps.own().clone();
            for config in &resource.configs {
                let op = operation(config.config_operation)?;
                let current = changed.get(&config.name).map(String::as_str);
                let value = config.value.as_deref().unwrap_or("");
                match alter::apply(Scope::Broker, &config.name, op, current, value)? {
                    Some(value) => changed.insert(config.name.clone(), value),
                    None => changed.remove(&config.name),
                };
            }
            config_resource::check_broker_change(name, &changed)
        }
        ConfigResourceType::BROKER_LOGGER => Err(Refusal::new(
            ErrorCode::INVALID_REQUEST,
            "log levels of this broker can't be altered while it runs",
        )),
        _ => Ok(()),
    }
}

/// Loggers are the receiving node's own affair, about which Kafka's brokers and controllers
/// differ: brokers say no more than the code, controllers want a cluster's member.
fn authorize(
    shard: &Shard,
    context: &RequestContext,
    kind: ConfigResourceType,
    name: &str,
) -> Result<(), Refusal> {
    let alter = Operation::AlterConfigs;
    if kind != ConfigResourceType::BROKER_LOGGER {
        return config_resource::authorize(shard, context, alter, kind, name);
    }
    if shard.is_controller_listener(&context.listener) {
        let action = Operation::ClusterAction;
        return config_resource::authorize(shard, context, action, kind, name);
    }
    config_resource::authorize(shard, context, alter, kind, name)
        .map_err(|refusal| Refusal::new(refusal.error, ""))
}

/// No key twice, no unknown operation, no null but for a deletion.
fn check_operations(resource: &AlterConfigsResource) -> Result<(), Refusal> {
    let mut seen = std::collections::BTreeSet::new();
    for config in &resource.configs {
        if !seen.insert(&config.name) {
            return Err(Refusal::new(
                ErrorCode::INVALID_REQUEST,
                "Error due to duplicate config keys",
            ));
        }
    }
    let unset: Vec<&str> = resource
        .configs
        .iter()
        .filter(|config| {
            config.value.is_none() && Op::from_wire(config.config_operation) != Some(Op::Delete)
        })
        .map(|config| config.name.as_str())
        .collect();
    if !unset.is_empty() {
        return Err(Refusal::new(
            ErrorCode::INVALID_REQUEST,
            format!("Null value not supported for : {}", unset.join(",")),
        ));
    }
    resource
        .configs
        .iter()
        .try_for_each(|config| operation(config.config_operation).map(drop))
}

fn operation(id: i8) -> Result<Op, Refusal> {
    Op::from_wire(id).ok_or_else(|| {
        Refusal::new(
            ErrorCode::INVALID_REQUEST,
            format!("Unknown operation type {id}."),
        )
    })
}

fn answer(resource: &AlterConfigsResource, refusal: &Refusal) -> AlterConfigsResourceResponse {
    AlterConfigsResourceResponse {
        error_code: refusal.error.0,
        error_message: Some(refusal.message.clone()).filter(|text| !text.is_empty()),
        resource_type: resource.resource_type,
        resource_name: resource.resource_name.clone(),
    }
}
