//! DescribeConfigs: every property of a resource, where its value comes from, and what
//! else bears on it (KIP-226). Answered from this core's image.

use std::rc::Rc;

use super::config_resource::{self, LayerMaps, MALFORMED, Refusal};
use crate::base::ErrorCode;
use crate::config::describe::{self, Described};
use crate::controller::topic_name;
use crate::metadata::{ConfigResourceType, MetadataImage};
use crate::security::{Operation, RequestContext};
use crate::shard::Shard;
use crate::wire::messages::DescribeConfigsRequest;
use crate::wire::messages::describe_configs_request::DescribeConfigsResource;
use crate::wire::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult,
    DescribeConfigsSynonym,
};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let image = shard.image();
    let (synonyms, documentation) = (request.include_synonyms, request.include_documentation);
    let results = request
        .resources
        .into_iter()
        .map(|resource| {
            let described = describe(&shard, &context, &image, &resource);
            let (refusal, configs) = match described {
                Ok(configs) => (None, configs),
                Err(refusal) => (Some(refusal), Vec::new()),
            };
            let keys = resource.configuration_keys.filter(|keys| !keys.is_empty());
            let wanted = |name: &String| keys.as_ref().is_none_or(|keys| keys.contains(name));
            DescribeConfigsResult {
                error_code: refusal.as_ref().map_or(ErrorCode::NONE, |r| r.error).0,
                // Not null, as in Kafka.
                error_message: Some(refusal.map_or_else(String::new, |r| r.message)),
                resource_type: resource.resource_type,
                resource_name: resource.resource_name,
                configs: configs
                    .into_iter()
                    .filter(|config| wanted(&config.name))
                    .map(|config| render(config, synonyms, documentation))
                    .collect(),
            }
        })
        .collect();
    DescribeConfigsResponse {
        results,
        ..Default::default()
    }
}

fn describe(
    shard: &Shard,
    context: &RequestContext,
    image: &MetadataImage,
    resource: &DescribeConfigsResource,
) -> Result<Vec<Described>, Refusal> {
    let name = resource.resource_name.as_str();
    let kind = config_resource::kind(resource.resource_type).map_err(|refusal| Refusal {
        message: MALFORMED.to_owned(),
        ..refusal
    })?;
    config_resource::authorize(shard, context, Operation::DescribeConfigs, kind, name)?;
    let maps = LayerMaps::of(shard, image, kind, name);
    let layers = maps.layers(shard);
    match kind {
        ConfigResourceType::TOPIC => {
            topic_name::validate(name)
                .map_err(|text| Refusal::new(ErrorCode::INVALID_TOPIC_EXCEPTION, text))?;
            if image.topics.by_name(name).is_none() {
                return Err(Refusal::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ""));
            }
            Ok(describe::topic(&layers))
        }
        ConfigResourceType::BROKER if name.is_empty() => {
            Ok(describe::broker_default(layers.dynamic_default))
        }
        ConfigResourceType::BROKER => {
            check_broker(shard, name)?;
            Ok(describe::broker(&layers))
        }
        ConfigResourceType::GROUP => Ok(describe::group(&layers)),
        ConfigResourceType::CLIENT_METRICS => Ok(describe::client_metrics(maps.own())),
        _ => {
            check_broker(shard, name)?;
            // Broker loggers: levels of single loggers can't be set while the node runs.
            Ok(Vec::new())
        }
    }
}

/// Kafka's texts here differ a little from those of alterations.
fn check_broker(shard: &Shard, name: &str) -> Result<(), Refusal> {
    config_resource::check_broker_name(shard, name).map_err(|refusal| {
        let message = match name.parse::<i32>() {
            Err(_) => format!("Broker id must be an integer, but it is: {name}"),
            Ok(_) => format!(
                "Unexpected broker id, expected {} or empty string, but received {name}",
                shard.node().id
            ),
        };
        Refusal { message, ..refusal }
    })
}

fn render(
    config: Described,
    include_synonyms: bool,
    include_documentation: bool,
) -> DescribeConfigsResourceResult {
    let config_type = config.type_id();
    DescribeConfigsResourceResult {
        name: config.name,
        value: config.value,
        read_only: config.is_read_only,
        config_source: config.source.wire_id(),
        is_sensitive: config.is_sensitive,
        synonyms: config
            .synonyms
            .into_iter()
            .filter(|_| include_synonyms)
            .map(|synonym| DescribeConfigsSynonym {
                name: synonym.name,
                value: synonym.value,
                source: synonym.source.wire_id(),
            })
            .collect(),
        config_type,
        documentation: config
            .documentation
            .filter(|_| include_documentation)
            .map(str::to_owned),
    }
}
