//! CreateTopics (`ReplicationControlManager.createTopics`, `ControllerApis.createTopics`).
//!
//! Order of checks, which decides the error of a topic with several faults: repeated name
//! or `__cluster_metadata` → authorisation → number of partitions of the whole request →
//! name and collisions → exists already → configs → counts, assignments and placement.

use std::collections::{BTreeMap, BTreeSet};

use super::api_error::ApiError;
use super::configs::{ConfigChange, ResourceName};
use super::manual_assignment::NewPartition;
use super::placement::{place, usable_brokers};
use super::{Controller, Outcome, RECORDS_PER_OPERATION_MAX, topic_name};
use crate::base::{ErrorCode, PartitionIndex, Uuid};
use crate::metadata::{ConfigEntries, ConfigResourceType, MetadataRecord};
use crate::security::{CLUSTER_NAME, Operation, RequestContext, ResourceType};
use crate::wire::messages::create_topics_request::CreatableTopic;
use crate::wire::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use crate::wire::messages::{CreateTopicsRequest, CreateTopicsResponse, TopicRecord};

impl Controller {
    pub(super) fn decide_create_topics(
        &mut self,
        ctx: &RequestContext,
        request: &CreateTopicsRequest,
    ) -> Outcome<CreateTopicsResponse> {
        let (topics, refused) = self.admissible_topics(ctx, request);
        if !topics.is_empty() {
            self.check_total_partitions(&topics)?;
        }
        let mut records = Vec::new();
        let mut results = Vec::with_capacity(request.topics.len());
        for topic in topics {
            let result = self.create_topic(ctx, topic, &mut records);
            results.push(result.unwrap_or_else(|error| failed(&topic.name, error)));
        }
        results.extend(refused);
        if request.validate_only {
            records.clear();
        }
        let response = CreateTopicsResponse {
            topics: results,
            ..Default::default()
        };
        Ok((records, response))
    }

    /// The topics that may be looked at, in the request's order, and the answers for the
    /// others.
    fn admissible_topics<'a>(
        &self,
        ctx: &RequestContext,
        request: &'a CreateTopicsRequest,
    ) -> (Vec<&'a CreatableTopic>, Vec<CreatableTopicResult>) {
        let may = |resource, name: &str| {
            let operation = Operation::Create;
            self.authorizer.authorize(ctx, operation, resource, name)
        };
        let may_all = may(ResourceType::Cluster, CLUSTER_NAME);
        let mut counts = BTreeMap::<&str, usize>::new();
        for topic in &request.topics {
            *counts.entry(&topic.name).or_default() += 1;
        }
        let mut admitted = Vec::new();
        let mut repeated = BTreeSet::new();
        let mut refused = Vec::new();
        for topic in &request.topics {
            let name = topic.name.as_str();
            if counts[name] > 1 {
                repeated.insert(name);
            } else if name == topic_name::CLUSTER_METADATA {
                let text = format!("Creation of internal topic {name} is prohibited.");
                refused.push(failed(
                    name,
                    ApiError::new(ErrorCode::INVALID_REQUEST, text),
                ));
            } else if may_all || may(ResourceType::Topic, name) {
                admitted.push(topic);
            } else {
                let code = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
                refused.push(failed(name, ApiError::new(code, "Authorization failed.")));
            }
        }
        let repeated = repeated.into_iter().map(|name| {
            let error = ApiError::new(ErrorCode::INVALID_REQUEST, "Duplicate topic name.");
            failed(name, error)
        });
        (admitted, repeated.chain(refused).collect())
    }

    fn check_total_partitions(&self, topics: &[&CreatableTopic]) -> Result<(), ApiError> {
        let total: i64 = topics
            .iter()
            .map(|topic| match topic.num_partitions {
                _ if !topic.assignments.is_empty() => topic.assignments.len() as i64,
                -1 => i64::from(self.settings.default_num_partitions),
                count => i64::from(count.max(0)),
            })
            .sum();
        if total > RECORDS_PER_OPERATION_MAX as i64 {
            return Err(ApiError::new(
                ErrorCode::POLICY_VIOLATION,
                "Excessively large number of partitions per request.",
            ));
        }
        Ok(())
    }

    /// Appends the records of one topic; nothing when it can't be created.
    fn create_topic(
        &mut self,
        ctx: &RequestContext,
        topic: &CreatableTopic,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<CreatableTopicResult, ApiError> {
        self.check_new_name(&topic.name)?;
        let configs = creation_configs(topic)?;
        let config_records = self.config_records_of_new_topic(&topic.name, &configs)?;
        let partitions = if topic.assignments.is_empty() {
            self.place_partitions(topic)?
        } else {
            self.assigned_partitions(topic)?
        };
        let topic_id = Uuid::random(&mut self.rng);
        let mut result = CreatableTopicResult {
            name: topic.name.clone(),
            topic_id,
            error_message: None,
            ..Default::default()
        };
        let may_describe = self.authorizer.authorize(
            ctx,
            Operation::DescribeConfigs,
            ResourceType::Topic,
            &topic.name,
        );
        if may_describe {
            result.num_partitions = partitions.len() as i32;
            result.replication_factor = partitions[0].replicas.len() as i16;
            result.configs = Some(self.describe_new_topic(&configs));
        } else {
            result.topic_config_error_code = ErrorCode::TOPIC_AUTHORIZATION_FAILED.0;
        }
        let record = TopicRecord {
            name: topic.name.clone(),
            topic_id,
        };
        records.push(record.into());
        records.extend(config_records);
        records.extend((0..).zip(partitions).map(|(index, partition)| {
            self.new_partition(topic_id, PartitionIndex(index), partition)
        }));
        Ok(result)
    }

    fn check_new_name(&self, name: &str) -> Result<(), ApiError> {
        let invalid = |text| ApiError::new(ErrorCode::INVALID_TOPIC_EXCEPTION, text);
        if self.image.topics.by_name(name).is_some() {
            return Err(ApiError::new(
                ErrorCode::TOPIC_ALREADY_EXISTS,
                format!("Topic '{name}' already exists."),
            ));
        }
        topic_name::validate(name).map_err(invalid)?;
        if topic_name::has_collision_chars(name) {
            let unified = topic_name::unify_collision_chars(name);
            if let Some(other) = self.collisions.get(&unified) {
                let other = &other[0];
                return Err(invalid(format!(
                    "Topic '{name}' collides with existing topic: {other}"
                )));
            }
        }
        Ok(())
    }

    fn config_records_of_new_topic(
        &self,
        name: &str,
        configs: &ConfigEntries,
    ) -> Result<Vec<MetadataRecord>, ApiError> {
        if configs.is_empty() {
            return Ok(Vec::new());
        }
        let resource = ResourceName {
            kind: ConfigResourceType::TOPIC,
            name,
        };
        let changes = configs
            .iter()
            .map(|(key, value)| (key.as_str(), ConfigChange::Set(Some(value.clone()))));
        self.config_records(resource, changes, &[], true)
    }

    fn assigned_partitions(&self, topic: &CreatableTopic) -> Result<Vec<NewPartition>, ApiError> {
        let wrong_request = |text: &str| {
            let text = format!("A manual partition assignment was specified, but {text}");
            Err(ApiError::new(ErrorCode::INVALID_REQUEST, text))
        };
        if topic.replication_factor != -1 {
            return wrong_request("replication factor was not set to -1.");
        }
        if topic.num_partitions != -1 {
            return wrong_request("numPartitions was not set to -1.");
        }
        let invalid = |text| Err(ApiError::new(ErrorCode::INVALID_REPLICA_ASSIGNMENT, text));
        let mut partitions = BTreeMap::new();
        let mut replication_factor = None;
        for assignment in &topic.assignments {
            let index = assignment.partition_index;
            if partitions.contains_key(&index) {
                return invalid(format!(
                    "Found multiple manual partition assignments for partition {index}"
                ));
            }
            let replicas = self.manual_replicas(&assignment.broker_ids, replication_factor)?;
            replication_factor = Some(replicas.len());
            let isr = self.active_replicas(&replicas);
            if isr.is_empty() {
                return invalid(format!(
                    "All brokers specified in the manual partition assignment for partition \
                     {index} are fenced or in controlled shutdown."
                ));
            }
            partitions.insert(index, NewPartition { replicas, isr });
        }
        if !(0..)
            .zip(partitions.keys())
            .all(|(wanted, index)| wanted == *index)
        {
            return invalid("partitions should be a consecutive 0-based integer sequence".into());
        }
        Ok(partitions.into_values().collect())
    }

    fn place_partitions(&mut self, topic: &CreatableTopic) -> Result<Vec<NewPartition>, ApiError> {
        let replication_factor = match topic.replication_factor {
            -1 => self.settings.default_replication_factor,
            factor @ 1.. => factor,
            _ => {
                return Err(ApiError::new(
                    ErrorCode::INVALID_REPLICATION_FACTOR,
                    "Replication factor must be larger than 0, or -1 to use the default value.",
                ));
            }
        };
        let num_partitions = match topic.num_partitions {
            -1 => self.settings.default_num_partitions,
            count @ 1.. => count,
            _ => {
                return Err(ApiError::new(
                    ErrorCode::INVALID_PARTITIONS,
                    "Number of partitions was set to an invalid non-positive value.",
                ));
            }
        };
        let unable = |reason: &str| {
            let text =
                format!("Unable to replicate the partition {replication_factor} time(s): {reason}");
            ApiError::new(ErrorCode::INVALID_REPLICATION_FACTOR, text)
        };
        let brokers = usable_brokers(&self.image.cluster);
        let count = num_partitions as usize;
        let placed = place(&brokers, count, replication_factor, &mut self.rng);
        let placed = placed.map_err(|reason| unable(&reason))?;
        let with_isr = placed.into_iter().map(|replicas| {
            let isr = self.active_replicas(&replicas);
            if isr.is_empty() {
                return Err(unable(
                    "All brokers are currently fenced or in controlled shutdown.",
                ));
            }
            Ok(NewPartition { replicas, isr })
        });
        with_isr.collect()
    }

    fn describe_new_topic(&self, configs: &ConfigEntries) -> Vec<CreatableTopicConfigs> {
        self.rules
            .effective_topic_configs(&self.topic_layers(configs))
            .into_iter()
            .map(|config| CreatableTopicConfigs {
                name: config.name,
                value: config.value.filter(|_| !config.is_sensitive),
                read_only: config.is_read_only,
                config_source: config.source,
                is_sensitive: config.is_sensitive,
            })
            .collect()
    }
}

/// The configs that the client gave; of a key given twice the last counts.
fn creation_configs(topic: &CreatableTopic) -> Result<ConfigEntries, ApiError> {
    let mut configs = ConfigEntries::new();
    let mut nulls = Vec::new();
    for config in &topic.configs {
        match &config.value {
            Some(value) => drop(configs.insert(config.name.clone(), value.clone())),
            None => nulls.push(config.name.as_str()),
        }
    }
    if nulls.is_empty() {
        return Ok(configs);
    }
    Err(ApiError::new(
        ErrorCode::INVALID_CONFIG,
        format!(
            "Null value not supported for topic configs: {}",
            nulls.join(",")
        ),
    ))
}

fn failed(name: &str, error: ApiError) -> CreatableTopicResult {
    CreatableTopicResult {
        name: name.to_owned(),
        error_code: error.code.0,
        error_message: error.message,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::super::{ControllerRequest, ControllerResponse};
    use super::*;
    use crate::base::BrokerId;
    use crate::wire::messages::create_topics_request::{
        CreatableReplicaAssignment, CreatableTopicConfig,
    };

    fn topic(name: &str, num_partitions: i32, replication_factor: i16) -> CreatableTopic {
        CreatableTopic {
            name: name.to_owned(),
            num_partitions,
            replication_factor,
            ..Default::default()
        }
    }

    fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> CreatableTopic {
        CreatableTopic {
            assignments: assignments
                .iter()
                .map(|(partition_index, broker_ids)| CreatableReplicaAssignment {
                    partition_index: *partition_index,
                    broker_ids: broker_ids.to_vec(),
                })
                .collect(),
            ..topic(name, -1, -1)
        }
    }

    fn with_configs(topic: CreatableTopic, configs: &[(&str, Option<&str>)]) -> CreatableTopic {
        CreatableTopic {
            configs: configs
                .iter()
                .map(|(name, value)| CreatableTopicConfig {
                    name: (*name).to_owned(),
                    value: value.map(str::to_owned),
                })
                .collect(),
            ..topic
        }
    }

    fn create(bench: &mut Bench, topics: Vec<CreatableTopic>) -> Vec<CreatableTopicResult> {
        run(bench, topics, false)
    }

    fn run(
        bench: &mut Bench,
        topics: Vec<CreatableTopic>,
        validate_only: bool,
    ) -> Vec<CreatableTopicResult> {
        let request = CreateTopicsRequest {
            topics,
            validate_only,
            ..Default::default()
        };
        let ctx = RequestContext::internal();
        match bench.run(ControllerRequest::CreateTopics { ctx, request }) {
            ControllerResponse::CreateTopics(response) => response.topics,
            other => panic!("{other:?}"),
        }
    }

    fn refusal(bench: &mut Bench, topic: CreatableTopic) -> (i16, String) {
        let end = bench.next_offset;
        let result = create(bench, vec![topic]).remove(0);
        assert_eq!(bench.next_offset, end, "nothing is written");
        (result.error_code, result.error_message.unwrap_or_default())
    }

    #[test]
    fn topic_configs_and_partitions_are_written_in_that_order() {
        let mut bench = Bench::with_brokers(1);
        let start = bench.log.len();
        let asked = with_configs(topic("t", 2, 1), &[("retention.ms", Some("5"))]);
        let results = create(&mut bench, vec![asked]);
        let result = &results[0];
        assert_eq!((result.error_code, &result.error_message), (0, &None));
        assert_eq!((result.num_partitions, result.replication_factor), (2, 1));
        let configs = result.configs.as_ref().unwrap();
        let retention = configs.iter().find(|c| c.name == "retention.ms").unwrap();
        assert_eq!(
            (retention.value.as_deref(), retention.config_source),
            (Some("5"), 1)
        );
        assert!(configs.is_sorted_by(|a, b| a.name < b.name));

        let names: Vec<_> = bench.log[start..]
            .iter()
            .map(|value| MetadataRecord::decode(value).unwrap().type_name())
            .collect();
        assert_eq!(
            names,
            [
                "TOPIC_RECORD",
                "CONFIG_RECORD",
                "PARTITION_RECORD",
                "PARTITION_RECORD"
            ]
        );
        let image = bench.controller.image();
        let created = image.topics.by_name("t").unwrap();
        assert_eq!(created.id, result.topic_id);
        let partition = created.partition(PartitionIndex(1)).unwrap();
        assert_eq!(partition.leader, BrokerId(1));
        assert_eq!(partition.isr, [BrokerId(1)]);
        assert_eq!(
            partition.directories,
            image.cluster.broker(BrokerId(1)).unwrap().directories
        );
        let value = image.config(ConfigResourceType::TOPIC, "t", "retention.ms");
        assert_eq!(value, Some("5"));
    }

    #[test]
    fn defaults_and_several_replicas() {
        let mut bench = Bench::with_brokers(3);
        let results = create(&mut bench, vec![topic("a", -1, -1), topic("b", 4, 3)]);
        assert_eq!(
            (results[0].num_partitions, results[0].replication_factor),
            (1, 1)
        );
        assert_eq!(
            (results[1].num_partitions, results[1].replication_factor),
            (4, 3)
        );
        let topic = bench.controller.image().topics.by_name("b").unwrap();
        for (_, partition) in topic.partitions() {
            assert_eq!(partition.isr, partition.replicas);
            assert_eq!(partition.leader, partition.replicas[0]);
        }
    }

    #[test]
    fn faults_have_kafkas_codes_and_texts() {
        let mut bench = Bench::with_brokers(1);
        create(&mut bench, vec![topic("a.b", 1, 1)]);
        let cases = [
            (
                topic("a b", 1, 1),
                17,
                "Topic name is invalid: 'a b' contains one or more",
            ),
            (
                topic("", 1, 1),
                17,
                "Topic name is invalid: the empty string is not allowed",
            ),
            (topic("a.b", 1, 1), 36, "Topic 'a.b' already exists."),
            (
                topic("a_b", 1, 1),
                17,
                "Topic 'a_b' collides with existing topic: a.b",
            ),
            (
                topic("t", 1, 0),
                38,
                "Replication factor must be larger than 0, or -1 to use the default value.",
            ),
            (
                topic("t", 1, 2),
                38,
                "Unable to replicate the partition 2 time(s): The target replication factor of 2 \
                 cannot be reached because only 1 broker(s) are registered",
            ),
            (
                topic("t", 0, 1),
                37,
                "Number of partitions was set to an invalid non-positive value.",
            ),
            (
                with_configs(topic("t", 1, 1), &[("nope", Some("1"))]),
                40,
                "Unknown topic config name: nope",
            ),
            (
                with_configs(topic("t", 1, 1), &[("retention.ms", None)]),
                40,
                "Null value not supported for topic configs: retention.ms",
            ),
            (
                CreatableTopic {
                    num_partitions: 1,
                    ..assigned("t", &[(0, &[1])])
                },
                42,
                "A manual partition assignment was specified, but numPartitions was not set to -1.",
            ),
            (
                CreatableTopic {
                    replication_factor: 1,
                    ..assigned("t", &[(0, &[1])])
                },
                42,
                "A manual partition assignment was specified, but replication factor was not set",
            ),
            (
                assigned("t", &[(0, &[2])]),
                39,
                "The manual partition assignment includes broker 2, but no such broker",
            ),
            (
                assigned("t", &[(0, &[1, 1])]),
                39,
                "The manual partition assignment includes the broker 1 more than once.",
            ),
            (
                assigned("t", &[(0, &[])]),
                39,
                "The manual partition assignment includes an empty replica list.",
            ),
            (
                assigned("t", &[(1, &[1])]),
                39,
                "partitions should be a consecutive 0-based integer sequence",
            ),
            (
                assigned("t", &[(0, &[1]), (0, &[1])]),
                39,
                "Found multiple manual partition assignments for partition 0",
            ),
            (
                topic("__cluster_metadata", 1, 1),
                42,
                "Creation of internal topic __cluster_metadata is prohibited.",
            ),
            (
                topic("t", 10_001, 1),
                44,
                "Excessively large number of partitions per request.",
            ),
        ];
        for (topic, code, text) in cases {
            let (got, message) = refusal(&mut bench, topic.clone());
            assert_eq!(got, code, "{topic:?}: {message}");
            assert!(message.starts_with(text), "{message}");
        }
        // 10,000 partitions and their topic are one record too many.
        let (code, text) = refusal(&mut bench, topic("t", 10_000, 1));
        assert_eq!(code, 44);
        assert_eq!(text, "Unable to perform excessively large batch operation.");
    }

    #[test]
    fn repeated_names_fail_once_and_spare_the_others() {
        let mut bench = Bench::with_brokers(1);
        let asked = vec![topic("x", 1, 1), topic("y", 1, 1), topic("x", 1, 1)];
        let results = create(&mut bench, asked);
        let summary: Vec<_> = results
            .iter()
            .map(|r| (r.name.as_str(), r.error_code))
            .collect();
        assert_eq!(summary, [("y", 0), ("x", 42)]);
    }

    #[test]
    fn validation_alone_writes_nothing() {
        let mut bench = Bench::with_brokers(1);
        let end = bench.next_offset;
        let results = run(&mut bench, vec![topic("t", 3, 1)], true);
        assert_eq!((results[0].error_code, results[0].num_partitions), (0, 3));
        assert_eq!(bench.next_offset, end);
    }

    #[test]
    fn fenced_brokers_are_candidates_but_not_in_sync() {
        let mut bench = Bench::with_brokers(1);
        bench.register(2, 2);
        let results = create(
            &mut bench,
            vec![topic("t", 3, 2), assigned("m", &[(0, &[2])])],
        );
        assert_eq!(results[0].error_code, 0);
        assert_eq!(results[1].error_code, 39);
        let topic = bench.controller.image().topics.by_name("t").unwrap();
        for (_, partition) in topic.partitions() {
            assert_eq!(partition.replicas, [BrokerId(1), BrokerId(2)]);
            assert_eq!(partition.isr, [BrokerId(1)]);
        }
    }
}
