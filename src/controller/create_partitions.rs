//! CreatePartitions (`ReplicationControlManager.createPartitions`).

use std::collections::BTreeMap;

use super::api_error::{ApiError, fields};
use super::manual_assignment::NewPartition;
use super::placement::{place, usable_brokers};
use super::{Controller, Outcome, RECORDS_PER_OPERATION_MAX, too_large};
use crate::base::{BrokerId, ErrorCode, PartitionIndex};
use crate::metadata::MetadataRecord;
use crate::security::{Operation, RequestContext, ResourceType};
use crate::wire::messages::create_partitions_request::CreatePartitionsTopic;
use crate::wire::messages::create_partitions_response::CreatePartitionsTopicResult;
use crate::wire::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

impl Controller {
    pub(super) fn decide_create_partitions(
        &mut self,
        ctx: &RequestContext,
        request: &CreatePartitionsRequest,
    ) -> Outcome<CreatePartitionsResponse> {
        let mut counts = BTreeMap::<&str, usize>::new();
        for topic in &request.topics {
            *counts.entry(&topic.name).or_default() += 1;
        }
        let mut results = Vec::new();
        let repeated = counts.iter().filter(|(_, count)| **count > 1);
        results.extend(repeated.map(|(name, _)| {
            let error = ApiError::new(ErrorCode::INVALID_REQUEST, "Duplicate topic name.");
            answer(name, Err(error))
        }));
        let mut records = Vec::new();
        for topic in request
            .topics
            .iter()
            .filter(|t| counts[t.name.as_str()] == 1)
        {
            let name = &topic.name;
            let may_alter =
                self.authorizer
                    .authorize(ctx, Operation::Alter, ResourceType::Topic, name);
            let result = if may_alter {
                self.add_partitions(topic, &mut records)
            } else {
                Err(ApiError::silent(ErrorCode::TOPIC_AUTHORIZATION_FAILED))
            };
            results.push(answer(name, result));
        }
        if request.validate_only {
            records.clear();
        }
        let response = CreatePartitionsResponse {
            results,
            ..Default::default()
        };
        Ok((records, response))
    }

    fn add_partitions(
        &mut self,
        topic: &CreatePartitionsTopic,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<(), ApiError> {
        let unknown = || ApiError::silent(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        let image = self.image.topics.by_name(&topic.name).ok_or_else(unknown)?;
        let current = image.partition_count() as i32;
        let (topic_id, replication_factor) = (image.id, image.replication_factor());
        if topic.count <= current {
            let text = if topic.count == current {
                format!("Topic already has {current} partition(s).")
            } else {
                format!(
                    "The topic {} currently has {current} partition(s); {} would not be an \
                     increase.",
                    topic.name, topic.count
                )
            };
            return Err(ApiError::new(ErrorCode::INVALID_PARTITIONS, text));
        }
        let additional = (topic.count - current) as usize;
        if additional > RECORDS_PER_OPERATION_MAX {
            // Kafka 4.3.1 answers -1 here and adds the first 10,000 all the same.
            return Err(too_large());
        }
        let replicas = match &topic.assignments {
            Some(assignments) if assignments.len() != additional => {
                return Err(ApiError::new(
                    ErrorCode::INVALID_REPLICA_ASSIGNMENT,
                    format!(
                        "Attempted to add {additional} additional partition(s), but only {} \
                         assignment(s) were specified.",
                        assignments.len()
                    ),
                ));
            }
            Some(assignments) => {
                let mut placed = Vec::with_capacity(additional);
                for (index, assignment) in (current..).zip(assignments) {
                    let replicas =
                        self.manual_replicas(&assignment.broker_ids, Some(replication_factor))?;
                    self.check_active(index, &replicas)?;
                    placed.push(replicas);
                }
                placed
            }
            None => {
                let brokers = usable_brokers(&self.image.cluster);
                let factor = i16::try_from(replication_factor).unwrap_or(i16::MAX);
                place(&brokers, additional, factor, &mut self.rng)
                    .map_err(|text| ApiError::new(ErrorCode::INVALID_REPLICATION_FACTOR, text))?
            }
        };
        let mut new = Vec::with_capacity(additional);
        for (index, replicas) in (current..).zip(replicas) {
            let isr = self.active_replicas(&replicas);
            if isr.is_empty() {
                return Err(ApiError::new(
                    ErrorCode::INVALID_REPLICATION_FACTOR,
                    format!(
                        "Unable to replicate the partition {replication_factor} time(s): All \
                         brokers are currently fenced or in controlled shutdown."
                    ),
                ));
            }
            new.push(self.new_partition(
                topic_id,
                PartitionIndex(index),
                NewPartition { replicas, isr },
            ));
        }
        records.extend(new);
        Ok(())
    }

    fn check_active(&self, index: i32, replicas: &[BrokerId]) -> Result<(), ApiError> {
        if !self.active_replicas(replicas).is_empty() {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorCode::INVALID_REPLICA_ASSIGNMENT,
            format!(
                "All brokers specified in the manual partition assignment for partition {index} \
                 are fenced or in controlled shutdown."
            ),
        ))
    }
}

fn answer(name: &str, result: Result<(), ApiError>) -> CreatePartitionsTopicResult {
    let (error_code, error_message) = fields(result);
    CreatePartitionsTopicResult {
        name: name.to_owned(),
        error_code,
        error_message,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::super::{ControllerRequest, ControllerResponse};
    use super::*;
    use crate::wire::messages::create_partitions_request::CreatePartitionsAssignment;

    fn grow(name: &str, count: i32, assignments: Option<&[&[i32]]>) -> CreatePartitionsTopic {
        let assignment = |broker_ids: &&[i32]| CreatePartitionsAssignment {
            broker_ids: broker_ids.to_vec(),
        };
        CreatePartitionsTopic {
            name: name.to_owned(),
            count,
            assignments: assignments.map(|lists| lists.iter().map(assignment).collect()),
        }
    }

    fn run(bench: &mut Bench, topics: Vec<CreatePartitionsTopic>) -> Vec<(i16, String)> {
        let request = CreatePartitionsRequest {
            topics,
            ..Default::default()
        };
        let ctx = RequestContext::internal();
        match bench.run(ControllerRequest::CreatePartitions { ctx, request }) {
            ControllerResponse::CreatePartitions(response) => response
                .results
                .into_iter()
                .map(|r| (r.error_code, r.error_message.unwrap_or_default()))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn partitions_are_added_behind_the_others() {
        let mut bench = Bench::with_brokers(1);
        bench.create_topic("t", 2);
        assert_eq!(
            run(&mut bench, vec![grow("t", 4, None)]),
            [(0, String::new())]
        );
        assert_eq!(
            run(&mut bench, vec![grow("t", 5, Some(&[&[1]]))]),
            [(0, String::new())]
        );
        let topic = bench.controller.image().topics.by_name("t").unwrap();
        let indexes: Vec<i32> = topic.partitions().map(|(index, _)| index.0).collect();
        assert_eq!(indexes, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn faults_have_kafkas_codes_and_texts() {
        let mut bench = Bench::with_brokers(1);
        bench.create_topic("t", 2);
        let end = bench.next_offset;
        let cases = [
            (grow("x", 2, None), 3, ""),
            (grow("t", 2, None), 37, "Topic already has 2 partition(s)."),
            (
                grow("t", 1, None),
                37,
                "The topic t currently has 2 partition(s); 1 would not be an increase.",
            ),
            (
                grow("t", 4, Some(&[&[1]])),
                39,
                "Attempted to add 2 additional partition(s), but only 1 assignment(s) were \
                 specified.",
            ),
            (
                grow("t", 3, Some(&[&[9]])),
                39,
                "The manual partition assignment includes broker 9, but no such broker is \
                 registered.",
            ),
            (
                grow("t", i32::MAX, None),
                44,
                "Unable to perform excessively large batch operation.",
            ),
        ];
        for (topic, code, text) in cases {
            assert_eq!(run(&mut bench, vec![topic]), [(code, text.to_owned())]);
        }
        let twice = vec![grow("t", 3, None), grow("t", 4, None)];
        assert_eq!(
            run(&mut bench, twice),
            [(42, "Duplicate topic name.".to_owned())]
        );
        assert_eq!(bench.next_offset, end, "nothing is written");
    }
}
