//! What DescribeConfigs, AlterConfigs and IncrementalAlterConfigs share: the resource that
//! a client names, the right to it, and the checks that Kafka's broker makes before a
//! change goes to the controller (`ConfigAdminManager.preprocess`).

use crate::base::ErrorCode;
use crate::config::{ConfigMap, Layers, alter};
use crate::controller::ApiError;
use crate::metadata::{ConfigResourceType, MetadataImage};
use crate::security::{CLUSTER_NAME, Operation, RequestContext, ResourceType};
use crate::shard::Shard;

/// A refusal with Kafka's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub error: ErrorCode,
    pub message: String,
}

impl Refusal {
    pub fn new(error: ErrorCode, message: impl Into<String>) -> Refusal {
        Refusal {
            error,
            message: message.into(),
        }
    }

    fn invalid(message: impl Into<String>) -> Refusal {
        Refusal::new(ErrorCode::INVALID_REQUEST, message)
    }
}

/// Kafka's text of INVALID_REQUEST where an exception brought none of its own.
pub const MALFORMED: &str = "This most likely occurs because of a request being malformed by \
    the client library or the message was sent to an incompatible broker. See the broker logs \
    for more details.";

impl From<alter::Invalid> for Refusal {
    fn from(invalid: alter::Invalid) -> Refusal {
        Refusal::new(invalid.error, invalid.message)
    }
}

/// The kind of a resource by its number.
pub fn kind(resource_type: i8) -> Result<ConfigResourceType, Refusal> {
    let kind = ConfigResourceType(resource_type);
    if kind.is_known() {
        Ok(kind)
    } else {
        Err(Refusal::invalid(format!(
            "Unknown resource type {resource_type}"
        )))
    }
}

/// Checks the right to a resource's configs.
pub fn authorize(
    shard: &Shard,
    context: &RequestContext,
    operation: Operation,
    kind: ConfigResourceType,
    name: &str,
) -> Result<(), Refusal> {
    let (resource, name, error) = match kind {
        ConfigResourceType::TOPIC => (
            ResourceType::Topic,
            name,
            ErrorCode::TOPIC_AUTHORIZATION_FAILED,
        ),
        ConfigResourceType::GROUP => (
            ResourceType::Group,
            name,
            ErrorCode::GROUP_AUTHORIZATION_FAILED,
        ),
        _ => (
            ResourceType::Cluster,
            CLUSTER_NAME,
            ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
        ),
    };
    if shard.authorize(context, operation, resource, name) {
        Ok(())
    } else {
        let message = ApiError::general(error).message;
        Err(Refusal::new(error, message.unwrap_or_default()))
    }
}

/// A broker's configs are altered by name of this broker, or for all with an empty name.
pub fn check_broker_name(shard: &Shard, name: &str) -> Result<(), Refusal> {
    let me = shard.node().id.to_string();
    if name.is_empty() || name == me {
        return Ok(());
    }
    if name.parse::<i32>().is_err() {
        return Err(Refusal::invalid(format!(
            "Node id must be an integer, but it is: {name}"
        )));
    }
    Err(Refusal::invalid(format!(
        "Unexpected broker id, expected {me}, but received {name}"
    )))
}

/// Checks what a broker resource would hold after a change.
pub fn check_broker_change(name: &str, changed: &ConfigMap) -> Result<(), Refusal> {
    alter::check_broker(changed, !name.is_empty()).map_err(Refusal::from)
}

/// The layers under a resource, as this node sees them.
pub struct LayerMaps {
    own: ConfigMap,
    broker: ConfigMap,
    default: ConfigMap,
}

impl LayerMaps {
    pub fn of(
        shard: &Shard,
        image: &MetadataImage,
        kind: ConfigResourceType,
        name: &str,
    ) -> LayerMaps {
        let map = |kind, name: &str| {
            image
                .configs
                .get(kind, name)
                .map(|map| (**map).clone())
                .unwrap_or_default()
        };
        LayerMaps {
            own: map(kind, name),
            broker: map(ConfigResourceType::BROKER, &shard.node().id.to_string()),
            default: map(ConfigResourceType::BROKER, ""),
        }
    }

    /// The resource's own values.
    pub fn own(&self) -> &ConfigMap {
        &self.own
    }

    pub fn layers<'a>(&'a self, shard: &'a Shard) -> Layers<'a> {
        Layers {
            resource: &self.own,
            dynamic_broker: &self.broker,
            dynamic_default: &self.default,
            fixed: &shard.node().config.fixed,
        }
    }
}
