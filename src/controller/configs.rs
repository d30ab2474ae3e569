//! AlterConfigs and IncrementalAlterConfigs (`ConfigurationControlManager`,
//! `ControllerConfigurationValidator`). What only the named broker can check of its own
//! configs, and loggers, the API's handler has done before (Kafka's `ConfigAdminManager`).
//!
//! A resource changes whole or not at all; resources of one request are independent.

use std::collections::{BTreeMap, BTreeSet};

use super::api_error::{ApiError, fields};
use super::{Controller, Outcome, topic_name};
use crate::base::{BrokerId, ErrorCode};
use crate::metadata::{ConfigEntries, ConfigResourceType, MetadataRecord};
use crate::security::{CLUSTER_NAME, Operation, RequestContext, ResourceType};
use crate::wire::messages::alter_configs_response as legacy_response;
use crate::wire::messages::incremental_alter_configs_request as incremental_request;
use crate::wire::messages::incremental_alter_configs_response as incremental_response;
use crate::wire::messages::{
    AlterConfigsRequest, AlterConfigsResponse, ClearElrRecord, ConfigRecord,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};

const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
const CORDONED_LOG_DIRS: &str = "cordoned.log.dirs";

/// Longest value, as a string field of a record can hold it.
const VALUE_BYTES_MAX: usize = i16::MAX as usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ResourceName<'a> {
    pub kind: ConfigResourceType,
    pub name: &'a str,
}

/// What happens to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ConfigChange {
    /// No value takes the key away.
    Set(Option<String>),
    Append(String),
    Subtract(String),
}

impl Controller {
    pub(super) fn decide_incremental_alter_configs(
        &self,
        ctx: &RequestContext,
        request: &IncrementalAlterConfigsRequest,
    ) -> Outcome<IncrementalAlterConfigsResponse> {
        let mut records = Vec::new();
        let resources = request
            .resources
            .iter()
            .map(|r| (r.resource_type, r.resource_name.as_str(), r));
        let responses = self.alter_each(ctx, resources, &mut records, |resource, asked| {
            // Of a key given twice the last counts.
            let mut changes = BTreeMap::new();
            for config in &asked.configs {
                changes.insert(config.name.as_str(), incremental_change(config)?);
            }
            self.config_records(resource, changes, &[], false)
        });
        let response = IncrementalAlterConfigsResponse {
            responses: responses
                .into_iter()
                .map(|(kind, name, result)| {
                    let (error_code, error_message) = fields(result);
                    incremental_response::AlterConfigsResourceResponse {
                        error_code,
                        error_message,
                        resource_type: kind,
                        resource_name: name.to_owned(),
                    }
                })
                .collect(),
            ..Default::default()
        };
        Ok((self.finish(records, request.validate_only), response))
    }

    /// The given configs replace all that stand on the resource.
    pub(super) fn decide_alter_configs(
        &self,
        ctx: &RequestContext,
        request: &AlterConfigsRequest,
    ) -> Outcome<AlterConfigsResponse> {
        let mut records = Vec::new();
        let resources = request
            .resources
            .iter()
            .map(|r| (r.resource_type, r.resource_name.as_str(), r));
        let responses = self.alter_each(ctx, resources, &mut records, |resource, asked| {
            let mut changes = BTreeMap::new();
            for config in &asked.configs {
                let change = ConfigChange::Set(config.value.clone());
                changes.insert(config.name.as_str(), change);
            }
            let gone: Vec<&str> = self
                .current_configs(resource)
                .keys()
                .map(String::as_str)
                .filter(|key| !changes.contains_key(key))
                .collect();
            self.config_records(resource, changes, &gone, false)
        });
        let response = AlterConfigsResponse {
            responses: responses
                .into_iter()
                .map(|(kind, name, result)| {
                    let (error_code, error_message) = fields(result);
                    legacy_response::AlterConfigsResourceResponse {
                        error_code,
                        error_message,
                        resource_type: kind,
                        resource_name: name.to_owned(),
                    }
                })
                .collect(),
            ..Default::default()
        };
        Ok((self.finish(records, request.validate_only), response))
    }

    /// Runs `alter` for every resource that may be altered and gives each its result.
    fn alter_each<'a, T>(
        &self,
        ctx: &RequestContext,
        resources: impl Iterator<Item = (i8, &'a str, T)>,
        records: &mut Vec<MetadataRecord>,
        alter: impl Fn(ResourceName<'a>, T) -> Result<Vec<MetadataRecord>, ApiError>,
    ) -> Vec<(i8, &'a str, Result<(), ApiError>)> {
        let resources: Vec<_> = resources.collect();
        let mut counts = BTreeMap::<(i8, &str), usize>::new();
        for (kind, name, _) in &resources {
            *counts.entry((*kind, name)).or_default() += 1;
        }
        let mut repeated = BTreeSet::new();
        let mut results = Vec::with_capacity(resources.len());
        for (kind, name, asked) in resources {
            let resource = ResourceName {
                kind: ConfigResourceType(kind),
                name,
            };
            let result = if !resource.kind.is_known() {
                let text = format!("Unknown resource type {kind}.");
                Err(ApiError::new(ErrorCode::UNSUPPORTED_VERSION, text))
            } else if counts[&(kind, name)] > 1 {
                if !repeated.insert(resource) {
                    continue;
                }
                Err(invalid_request("Duplicate resource."))
            } else {
                self.authorize_alter(ctx, resource)
                    .and_then(|()| alter(resource, asked))
                    .map(|new| records.extend(new))
            };
            results.push((kind, name, result));
        }
        results
    }

    fn authorize_alter(
        &self,
        ctx: &RequestContext,
        resource: ResourceName<'_>,
    ) -> Result<(), ApiError> {
        let (kind, name, refused) = match resource.kind {
            ConfigResourceType::BROKER | ConfigResourceType::CLIENT_METRICS => (
                ResourceType::Cluster,
                CLUSTER_NAME,
                ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
            ),
            ConfigResourceType::TOPIC => (
                ResourceType::Topic,
                resource.name,
                ErrorCode::TOPIC_AUTHORIZATION_FAILED,
            ),
            ConfigResourceType::GROUP => (
                ResourceType::Group,
                resource.name,
                ErrorCode::GROUP_AUTHORIZATION_FAILED,
            ),
            other => {
                let text = format!("Unexpected resource type {}.", other.name());
                return Err(invalid_request(&text));
            }
        };
        if self
            .authorizer
            .authorize(ctx, Operation::AlterConfigs, kind, name)
        {
            return Ok(());
        }
        Err(ApiError::general(refused))
    }

    /// The records of changes to one resource, if all that then stands on it is valid.
    /// `gone` are keys that go because they aren't named.
    pub(super) fn config_records<'c>(
        &self,
        resource: ResourceName<'_>,
        changes: impl IntoIterator<Item = (&'c str, ConfigChange)>,
        gone: &[&str],
        is_new_resource: bool,
    ) -> Result<Vec<MetadataRecord>, ApiError> {
        let current = self.current_configs(resource);
        let mut after = current.clone();
        let mut records = Vec::new();
        for (key, change) in changes {
            let old = current.get(key);
            let new = self.changed_value(resource.kind, key, old, change)?;
            // A broker reloads what its value names even when that reads the same.
            if old == new.as_ref() && resource.kind != ConfigResourceType::BROKER {
                continue;
            }
            self.check_change(resource, key, new.as_deref())?;
            records.push(config_record(resource, key, new.clone()));
            match new {
                Some(value) => after.insert(key.to_owned(), value),
                None => after.remove(key),
            };
        }
        for key in gone {
            self.check_change(resource, key, None)?;
            records.push(config_record(resource, key, None));
            after.remove(*key);
        }
        self.check_resource(resource, &after)?;
        if !is_new_resource {
            self.check_exists(resource)?;
        }
        Ok(records)
    }

    fn current_configs(&self, resource: ResourceName<'_>) -> &ConfigEntries {
        static EMPTY: ConfigEntries = ConfigEntries::new();
        let entries = self.image.configs.get(resource.kind, resource.name);
        entries.map_or(&EMPTY, |entries| entries)
    }

    fn changed_value(
        &self,
        kind: ConfigResourceType,
        key: &str,
        old: Option<&String>,
        change: ConfigChange,
    ) -> Result<Option<String>, ApiError> {
        let (verb, entries) = match &change {
            ConfigChange::Set(value) => return Ok(value.clone()),
            ConfigChange::Append(entries) => ("APPEND", entries),
            ConfigChange::Subtract(entries) => ("SUBTRACT", entries),
        };
        if !self.rules.is_list(kind, key) {
            return Err(ApiError::new(
                ErrorCode::INVALID_CONFIG,
                format!("Can't {verb} to key {key} because its type is not LIST."),
            ));
        }
        let old = old.cloned().or_else(|| self.rules.default_value(kind, key));
        let old = old.unwrap_or_default();
        let mut list: Vec<&str> = old.split(',').filter(|entry| !entry.is_empty()).collect();
        for entry in entries.split(',') {
            let place = list.iter().position(|present| *present == entry);
            match (&change, place) {
                (ConfigChange::Append(_), None) => list.push(entry),
                (ConfigChange::Subtract(_), Some(place)) => drop(list.remove(place)),
                _ => {}
            }
        }
        Ok(Some(list.join(",")))
    }

    /// Rules for single keys.
    fn check_change(
        &self,
        resource: ResourceName<'_>,
        key: &str,
        value: Option<&str>,
    ) -> Result<(), ApiError> {
        let invalid = |text: &str| Err(ApiError::new(ErrorCode::INVALID_CONFIG, text));
        let is_broker = resource.kind == ConfigResourceType::BROKER;
        if is_broker && key == MIN_INSYNC_REPLICAS && self.image.features.is_elr_enabled() {
            if !resource.name.is_empty() {
                return invalid(
                    "Broker-level min.insync.replicas cannot be altered while ELR is enabled.",
                );
            }
            if value.is_none() {
                return invalid(
                    "Cluster-level min.insync.replicas cannot be removed while ELR is enabled.",
                );
            }
        }
        if is_broker
            && key == CORDONED_LOG_DIRS
            && !self.image.metadata_version().has_cordoned_dirs()
        {
            return invalid(
                "The cordoned.log.dirs configuration value cannot be set because it requires \
                 metadata.version >= 4.3-IV0",
            );
        }
        if value.is_some_and(|value| value.len() > VALUE_BYTES_MAX) {
            return invalid(
                "The configuration value cannot be added because it exceeds the maximum value \
                 size of 32767 bytes.",
            );
        }
        Ok(())
    }

    /// Rules for the resource's name and for its configs together.
    fn check_resource(
        &self,
        resource: ResourceName<'_>,
        configs: &ConfigEntries,
    ) -> Result<(), ApiError> {
        let name = resource.name;
        match resource.kind {
            ConfigResourceType::TOPIC if name.is_empty() => {
                return Err(invalid_request("Default topic resources are not allowed."));
            }
            ConfigResourceType::TOPIC => topic_name::validate(name)
                .map_err(|text| ApiError::new(ErrorCode::INVALID_TOPIC_EXCEPTION, text))?,
            ConfigResourceType::BROKER => return check_broker_name(name),
            ConfigResourceType::GROUP if name.is_empty() => {
                return Err(invalid_request("Default group resources are not allowed."));
            }
            ConfigResourceType::GROUP | ConfigResourceType::CLIENT_METRICS => {}
            other => {
                let text = format!("Unknown resource type {}", other.name());
                return Err(invalid_request(&text));
            }
        }
        self.rules.validate(resource.kind, name, configs)
    }

    fn check_exists(&self, resource: ResourceName<'_>) -> Result<(), ApiError> {
        let name = resource.name;
        match resource.kind {
            ConfigResourceType::TOPIC if self.image.topics.by_name(name).is_none() => {
                Err(ApiError::new(
                    ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                    format!("The topic '{name}' does not exist."),
                ))
            }
            ConfigResourceType::BROKER if !name.is_empty() => {
                let cluster = &self.image.cluster;
                let is_registered = name.parse().map(BrokerId).is_ok_and(|id| {
                    cluster.brokers.contains_key(&id) || cluster.controllers.contains_key(&id)
                });
                if is_registered {
                    return Ok(());
                }
                Err(ApiError::new(
                    ErrorCode::BROKER_ID_NOT_REGISTERED,
                    format!("No node with id {name} found."),
                ))
            }
            _ => Ok(()),
        }
    }

    /// With ELR on, a changed minimum makes the known ELRs void.
    fn finish(&self, mut records: Vec<MetadataRecord>, validate_only: bool) -> Vec<MetadataRecord> {
        if validate_only {
            return Vec::new();
        }
        if self.image.features.is_elr_enabled() {
            let clears: Vec<MetadataRecord> = records
                .iter()
                .filter_map(|record| match record {
                    MetadataRecord::Config(config) if config.name == MIN_INSYNC_REPLICAS => {
                        let is_topic = config.resource_type == ConfigResourceType::TOPIC.0;
                        let name = is_topic.then(|| config.resource_name.clone());
                        let topic_name = name.unwrap_or_default();
                        Some(ClearElrRecord { topic_name }.into())
                    }
                    _ => None,
                })
                .collect();
            records.extend(clears);
        }
        records
    }
}

fn incremental_change(
    config: &incremental_request::AlterableConfig,
) -> Result<ConfigChange, ApiError> {
    let value = || {
        config.value.clone().ok_or_else(|| {
            invalid_request(&format!("Null value not supported for : {}", config.name))
        })
    };
    Ok(match config.config_operation {
        0 => ConfigChange::Set(config.value.clone()),
        1 => ConfigChange::Set(None),
        2 => ConfigChange::Append(value()?),
        3 => ConfigChange::Subtract(value()?),
        // Kafka 4.3.1's controller stumbles over it and answers -1.
        other => return Err(invalid_request(&format!("Unknown operations type {other}"))),
    })
}

fn check_broker_name(name: &str) -> Result<(), ApiError> {
    if name.is_empty() {
        return Ok(());
    }
    match name.parse::<i32>() {
        Ok(0..) => Ok(()),
        Ok(_) => Err(invalid_request("Invalid negative broker ID.")),
        Err(_) => Err(invalid_request(
            "Unable to parse broker name as a base 10 number.",
        )),
    }
}

fn config_record(resource: ResourceName<'_>, key: &str, value: Option<String>) -> MetadataRecord {
    ConfigRecord {
        resource_type: resource.kind.0,
        resource_name: resource.name.to_owned(),
        name: key.to_owned(),
        value,
    }
    .into()
}

fn invalid_request(text: &str) -> ApiError {
    ApiError::new(ErrorCode::INVALID_REQUEST, text)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::super::{ControllerRequest, ControllerResponse};
    use super::*;
    use crate::wire::messages::alter_configs_request as legacy_request;

    const TOPIC: i8 = 2;
    const BROKER: i8 = 4;

    /// (key, operation, value)
    type Op<'a> = (&'a str, i8, Option<&'a str>);

    fn resource(kind: i8, name: &str, ops: &[Op<'_>]) -> incremental_request::AlterConfigsResource {
        incremental_request::AlterConfigsResource {
            resource_type: kind,
            resource_name: name.to_owned(),
            configs: ops
                .iter()
                .map(|(name, op, value)| incremental_request::AlterableConfig {
                    name: (*name).to_owned(),
                    config_operation: *op,
                    value: value.map(str::to_owned),
                })
                .collect(),
        }
    }

    fn run(
        bench: &mut Bench,
        resources: Vec<incremental_request::AlterConfigsResource>,
    ) -> Vec<(i16, String)> {
        let request = IncrementalAlterConfigsRequest {
            resources,
            validate_only: false,
        };
        let ctx = RequestContext::internal();
        match bench.run(ControllerRequest::IncrementalAlterConfigs { ctx, request }) {
            ControllerResponse::IncrementalAlterConfigs(response) => response
                .responses
                .into_iter()
                .map(|r| (r.error_code, r.error_message.unwrap_or_default()))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    fn alter(bench: &mut Bench, kind: i8, name: &str, ops: &[Op<'_>]) -> (i16, String) {
        run(bench, vec![resource(kind, name, ops)]).remove(0)
    }

    fn value(bench: &Bench, key: &str) -> Option<String> {
        let image = bench.controller.image();
        let value = image.config(ConfigResourceType::TOPIC, "t", key);
        value.map(str::to_owned)
    }

    #[test]
    fn all_four_operations() {
        let ok = (0, String::new());
        let mut bench = Bench::with_brokers(1);
        bench.create_topic("t", 1);
        let ops: &[Op<'_>] = &[
            ("retention.ms", 0, Some("5")),
            ("retention.bytes", 0, Some("6")),
        ];
        assert_eq!(alter(&mut bench, TOPIC, "t", ops), ok);
        assert_eq!(
            alter(&mut bench, TOPIC, "t", &[("retention.bytes", 1, None)]),
            ok
        );
        assert_eq!(value(&bench, "retention.ms").as_deref(), Some("5"));
        assert_eq!(value(&bench, "retention.bytes"), None);
        // Lists grow from the default.
        let append: &[Op<'_>] = &[("cleanup.policy", 2, Some("compact"))];
        assert_eq!(alter(&mut bench, TOPIC, "t", append), ok);
        assert_eq!(
            value(&bench, "cleanup.policy").as_deref(),
            Some("delete,compact")
        );
        assert_eq!(alter(&mut bench, TOPIC, "t", append), ok);
        assert_eq!(
            value(&bench, "cleanup.policy").as_deref(),
            Some("delete,compact")
        );
        let subtract: &[Op<'_>] = &[("cleanup.policy", 3, Some("delete"))];
        assert_eq!(alter(&mut bench, TOPIC, "t", subtract), ok);
        assert_eq!(value(&bench, "cleanup.policy").as_deref(), Some("compact"));
    }

    #[test]
    fn unchanged_values_are_written_for_brokers_only() {
        let mut bench = Bench::with_brokers(1);
        bench.create_topic("t", 1);
        for (kind, name, key, grows) in [
            (TOPIC, "t", "retention.ms", false),
            (BROKER, "1", "log.retention.ms", true),
            (BROKER, "", "log.retention.ms", true),
        ] {
            let ops: &[Op<'_>] = &[(key, 0, Some("5"))];
            assert_eq!(alter(&mut bench, kind, name, ops).0, 0);
            let end = bench.next_offset;
            assert_eq!(alter(&mut bench, kind, name, ops).0, 0);
            assert_eq!(bench.next_offset > end, grows, "{kind} {name}");
        }
    }

    #[test]
    fn faults_have_kafkas_codes_and_texts() {
        let mut bench = Bench::with_brokers(1);
        bench.create_topic("t", 1);
        let long = "x".repeat(32_768);
        let set = |key, value| [(key, 0, Some(value))];
        let end = bench.next_offset;
        let cases: Vec<(i8, &str, Vec<Op<'_>>, i16, &str)> = vec![
            (
                TOPIC,
                "t",
                vec![("retention.ms", 2, Some("1"))],
                40,
                "Can't APPEND to key retention.ms because its type is not LIST.",
            ),
            (
                TOPIC,
                "t",
                vec![("retention.ms", 9, Some("1"))],
                42,
                "Unknown operations type 9",
            ),
            (
                TOPIC,
                "t",
                set("nope", "1").into(),
                40,
                "Unknown topic config name: nope",
            ),
            (
                TOPIC,
                "x",
                set("retention.ms", "1").into(),
                3,
                "The topic 'x' does not exist.",
            ),
            (
                TOPIC,
                "",
                set("retention.ms", "1").into(),
                42,
                "Default topic resources are not allowed.",
            ),
            (
                BROKER,
                "7",
                set("a", "1").into(),
                102,
                "No node with id 7 found.",
            ),
            (
                BROKER,
                "-7",
                set("a", "1").into(),
                42,
                "Invalid negative broker ID.",
            ),
            (
                BROKER,
                "z",
                set("a", "1").into(),
                42,
                "Unable to parse broker name as a base 10 number.",
            ),
            (
                8,
                "1",
                set("a", "1").into(),
                42,
                "Unexpected resource type BROKER_LOGGER.",
            ),
            (3, "1", set("a", "1").into(), 35, "Unknown resource type 3."),
            (
                32,
                "",
                set("a", "1").into(),
                42,
                "Default group resources are not allowed.",
            ),
            (
                TOPIC,
                "t",
                set("retention.ms", &long).into(),
                40,
                "The configuration value cannot be added because it exceeds the maximum value \
                 size of 32767 bytes.",
            ),
        ];
        for (kind, name, ops, code, text) in cases {
            let got = alter(&mut bench, kind, name, &ops);
            assert_eq!(got, (code, text.to_owned()), "{kind} {name}");
        }
        let twice = vec![
            resource(TOPIC, "t", &set("retention.ms", "1")),
            resource(TOPIC, "t", &set("retention.ms", "2")),
        ];
        assert_eq!(
            run(&mut bench, twice),
            [(42, "Duplicate resource.".to_owned())]
        );
        assert_eq!(bench.next_offset, end, "nothing is written");
    }

    #[test]
    fn a_fault_spares_the_other_resources() {
        let mut bench = Bench::with_brokers(1);
        bench.create_topic("t", 1);
        let mixed = vec![
            resource(TOPIC, "x", &[("retention.ms", 0, Some("1"))]),
            resource(TOPIC, "t", &[("retention.ms", 0, Some("2"))]),
        ];
        let codes: Vec<i16> = run(&mut bench, mixed).into_iter().map(|r| r.0).collect();
        assert_eq!(codes, [3, 0]);
        assert_eq!(value(&bench, "retention.ms").as_deref(), Some("2"));
    }

    #[test]
    fn the_old_api_replaces_everything() {
        let mut bench = Bench::with_brokers(1);
        bench.create_topic("t", 1);
        bench.set_config(ConfigResourceType::TOPIC, "t", "retention.ms", "5");
        bench.set_config(ConfigResourceType::TOPIC, "t", "retention.bytes", "6");
        let request = AlterConfigsRequest {
            resources: vec![legacy_request::AlterConfigsResource {
                resource_type: TOPIC,
                resource_name: "t".to_owned(),
                configs: vec![legacy_request::AlterableConfig {
                    name: "retention.bytes".to_owned(),
                    value: Some("7".to_owned()),
                }],
            }],
            validate_only: false,
        };
        let ctx = RequestContext::internal();
        let response = bench.run(ControllerRequest::AlterConfigs { ctx, request });
        let ControllerResponse::AlterConfigs(response) = response else {
            panic!("{response:?}");
        };
        assert_eq!(response.responses[0].error_code, 0);
        assert_eq!(value(&bench, "retention.ms"), None);
        assert_eq!(value(&bench, "retention.bytes").as_deref(), Some("7"));
    }
}
