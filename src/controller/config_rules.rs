//! What the controller needs to know about properties: the seam towards the `config`
//! module, and to tests.

use std::fmt;

use super::api_error::ApiError;
use crate::metadata::{ConfigEntries, ConfigResourceType};

/// Knowledge of properties by resource type.
pub trait ConfigRules: Send + Sync + fmt::Debug {
    /// Checks all configs that will stand on a resource together. Not asked for brokers,
    /// whose changes are checked by the broker that they are for.
    fn validate(
        &self,
        kind: ConfigResourceType,
        name: &str,
        configs: &ConfigEntries,
    ) -> Result<(), ApiError>;

    /// Whether the property is a list, which values can be appended to.
    fn is_list(&self, kind: ConfigResourceType, key: &str) -> bool;

    /// Default of a property that doesn't stand on the resource.
    fn default_value(&self, kind: ConfigResourceType, key: &str) -> Option<String>;

    /// All configs of a topic as they take effect, by ascending name.
    fn effective_topic_configs(&self, layers: &TopicConfigLayers<'_>) -> Vec<EffectiveConfig>;

    /// One of them.
    fn effective_topic_config(&self, key: &str, layers: &TopicConfigLayers<'_>) -> Option<String> {
        self.effective_topic_configs(layers)
            .into_iter()
            .find(|config| config.name == key)
            .and_then(|config| config.value)
    }
}

/// Where a topic's configs come from, the strongest first. Below them are the node's file
/// and the defaults, which [`ConfigRules`] knows.
#[derive(Clone, Copy, Debug)]
pub struct TopicConfigLayers<'a> {
    pub topic: &'a ConfigEntries,
    /// Of the broker resource with this node's id.
    pub broker: &'a ConfigEntries,
    /// Of the broker resource "", the default of all brokers.
    pub cluster: &'a ConfigEntries,
}

/// One config as it takes effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveConfig {
    pub name: String,
    pub value: Option<String>,
    /// `ConfigSource` of the protocol: 1 topic, 2 broker, 3 default of brokers, 4 file,
    /// 5 default.
    pub source: i8,
    pub is_sensitive: bool,
    pub is_read_only: bool,
}
