//! What the controller needs to know of properties, out of the one table in `config`.

use std::sync::Arc;

use crate::config::table::{self, Kind, Scope};
use crate::config::{ConfigMap, Layers, alter, describe};
use crate::controller::{ApiError, ConfigRules, EffectiveConfig, TopicConfigLayers};
use crate::metadata::{ConfigEntries, ConfigResourceType};

/// The table under this node's file.
#[derive(Clone, Debug)]
pub struct TableRules {
    pub fixed: Arc<ConfigMap>,
}

impl ConfigRules for TableRules {
    fn validate(
        &self,
        kind: ConfigResourceType,
        _name: &str,
        configs: &ConfigEntries,
    ) -> Result<(), ApiError> {
        let layers = Layers::of_node(&self.fixed);
        let checked = match kind {
            ConfigResourceType::TOPIC => alter::check_topic(configs, &layers),
            ConfigResourceType::GROUP => alter::check_group(configs, &layers),
            ConfigResourceType::CLIENT_METRICS => alter::check_client_metrics(configs),
            _ => Ok(()),
        };
        checked.map_err(|invalid| ApiError::new(invalid.error, invalid.message))
    }

    fn is_list(&self, kind: ConfigResourceType, key: &str) -> bool {
        scope(kind)
            .and_then(|scope| table::find(scope, key))
            .is_some_and(|property| property.kind == Kind::List)
    }

    fn default_value(&self, kind: ConfigResourceType, key: &str) -> Option<String> {
        match table::find(scope(kind)?, key)?.default {
            table::DefaultValue::V(text) => Some(text.to_owned()),
            _ => None,
        }
    }

    fn effective_topic_configs(&self, layers: &TopicConfigLayers<'_>) -> Vec<EffectiveConfig> {
        let layers = Layers {
            resource: layers.topic,
            dynamic_broker: layers.broker,
            dynamic_default: layers.cluster,
            fixed: &self.fixed,
        };
        let mut configs: Vec<EffectiveConfig> = describe::topic(&layers)
            .into_iter()
            .map(|config| EffectiveConfig {
                name: config.name,
                value: config.value,
                source: config.source.wire_id(),
                is_sensitive: config.is_sensitive,
                is_read_only: config.is_read_only,
            })
            .collect();
        configs.sort_by(|a, b| a.name.cmp(&b.name));
        configs
    }
}

fn scope(kind: ConfigResourceType) -> Option<Scope> {
    match kind {
        ConfigResourceType::TOPIC => Some(Scope::Topic),
        ConfigResourceType::BROKER => Some(Scope::Broker),
        ConfigResourceType::GROUP => Some(Scope::Group),
        ConfigResourceType::CLIENT_METRICS => Some(Scope::ClientMetrics),
        _ => None,
    }
}
