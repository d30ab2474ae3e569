//! AlterPartitionReassignments and ListPartitionReassignments
//! (`ReplicationControlManager.alterPartitionReassignments`). Starting one adds the new
//! replicas to the list; it ends, in whatever change of the partition that may be, when all
//! that stay are in sync ([`partition_change`](super::partition_change)).
//!
//! ```text
//!   {1 2 3} ──[4 1 2]──▶ replicas {4 1 2 3} adding {4} removing {3} ──4 in sync──▶ {4 1 2}
//!                                     └──────────── cancelled ────────────────────▶ {1 2 3}
//! ```

use std::collections::BTreeSet;

use super::api_error::{ApiError, fields};
use super::leader_election::Cause;
use super::partition_change::{Election, PartitionChange};
use super::{Controller, Outcome};
use crate::base::{BrokerId, ErrorCode, PartitionIndex};
use crate::metadata::topics::numbers;
use crate::metadata::{MetadataRecord, PartitionImage, TopicImage};
use crate::wire::messages::alter_partition_reassignments_request::ReassignablePartition;
use crate::wire::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use crate::wire::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use crate::wire::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, PartitionChangeRecord,
};

impl Controller {
    pub(super) fn decide_alter_partition_reassignments(
        &self,
        request: &AlterPartitionReassignmentsRequest,
    ) -> Outcome<AlterPartitionReassignmentsResponse> {
        let may_change_factor = request.allow_replication_factor_change;
        let mut records = Vec::new();
        let mut responses = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in &topic.partitions {
                let changed = self.reassign(&topic.name, asked, may_change_factor);
                let changed = changed.map(|record| {
                    records.extend(record.map(MetadataRecord::from));
                });
                let (error_code, error_message) = fields(changed);
                partitions.push(ReassignablePartitionResponse {
                    partition_index: asked.partition_index,
                    error_code,
                    error_message,
                });
            }
            responses.push(ReassignableTopicResponse {
                name: topic.name.clone(),
                partitions,
            });
        }
        let response = AlterPartitionReassignmentsResponse {
            allow_replication_factor_change: may_change_factor,
            error_message: None,
            responses,
            ..Default::default()
        };
        Ok((records, response))
    }

    fn reassign(
        &self,
        name: &str,
        asked: &ReassignablePartition,
        may_change_factor: bool,
    ) -> Result<Option<PartitionChangeRecord>, ApiError> {
        let unknown = |text| ApiError::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, text);
        let topic = self.image.topics.by_name(name);
        let topic =
            topic.ok_or_else(|| unknown(format!("Unable to find a topic named {name}.")))?;
        let index = PartitionIndex(asked.partition_index);
        let partition = topic
            .partition(index)
            .ok_or_else(|| unknown(format!("Unable to find partition {name}:{index}.")))?;
        let change = match &asked.replicas {
            None => self.cancel(topic, index, partition)?,
            Some(replicas) => self.start(topic, partition, replicas, may_change_factor)?,
        };
        Ok(self.build(topic.id, index, change, Cause::Nothing))
    }

    fn start<'a>(
        &self,
        topic: &TopicImage,
        partition: &'a PartitionImage,
        replicas: &[i32],
        may_change_factor: bool,
    ) -> Result<PartitionChange<'a>, ApiError> {
        let target = self.manual_replicas(replicas, None)?;
        if !may_change_factor {
            check_factor(partition, target.len())?;
        }
        let current: BTreeSet<BrokerId> = partition.replicas.iter().copied().collect();
        let wanted: BTreeSet<BrokerId> = target.iter().copied().collect();
        let removing: Vec<BrokerId> = current.difference(&wanted).copied().collect();
        let adding: Vec<BrokerId> = wanted.difference(&current).copied().collect();
        let mut change = PartitionChange::new(partition, self.terms(topic));
        // Not even where unclean elections are allowed: nothing forces one here.
        change.election = Election::Online;
        change.replicas = target;
        change.replicas.extend(&removing);
        // What a running reassignment adds stays marked, unless there is something newer.
        if !removing.is_empty() {
            change.removing = removing;
        }
        if !adding.is_empty() {
            change.adding = adding;
        }
        Ok(change)
    }

    fn cancel<'a>(
        &self,
        topic: &TopicImage,
        index: PartitionIndex,
        partition: &'a PartitionImage,
    ) -> Result<PartitionChange<'a>, ApiError> {
        if !is_running(partition) {
            return Err(ApiError::general(ErrorCode::NO_REASSIGNMENT_IN_PROGRESS));
        }
        let invalid = |text| ApiError::new(ErrorCode::INVALID_REPLICA_ASSIGNMENT, text);
        let terms = self.terms(topic);
        let mut change = PartitionChange::new(partition, terms);
        let was_there = |broker: &BrokerId| !partition.adding.contains(broker);
        change.replicas.retain(was_there);
        change.isr.retain(was_there);
        change.adding.clear();
        change.removing.clear();
        if change.isr.is_empty() {
            let first = change.replicas.first().ok_or_else(|| {
                let text = "Invalid replica assignment: addingReplicas contains all replicas.";
                invalid(text.to_owned())
            })?;
            if !terms.unclean {
                return Err(invalid(format!(
                    "Unable to revert partition assignment for {}:{index} because it would \
                     require an unclean leader election.",
                    topic.name
                )));
            }
            change.isr.push(*first);
        }
        Ok(change)
    }

    pub(super) fn decide_list_partition_reassignments(
        &self,
        request: &ListPartitionReassignmentsRequest,
    ) -> Outcome<ListPartitionReassignmentsResponse> {
        let topics = &self.image.topics;
        let listed: Vec<OngoingTopicReassignment> = match &request.topics {
            None => topics
                .iter()
                .map(|topic| running(topic, topic.partitions()))
                .collect(),
            Some(asked) => asked
                .iter()
                .filter_map(|asked| {
                    let topic = topics.by_name(&asked.name)?;
                    let indexes = asked.partition_indexes.iter().copied().map(PartitionIndex);
                    let partitions =
                        indexes.filter_map(|index| Some((index, topic.partition(index)?)));
                    Some(running(topic, partitions))
                })
                .collect(),
        };
        let response = ListPartitionReassignmentsResponse {
            error_message: None,
            topics: listed
                .into_iter()
                .filter(|topic| !topic.partitions.is_empty())
                .collect(),
            ..Default::default()
        };
        Ok((Vec::new(), response))
    }
}

fn is_running(partition: &PartitionImage) -> bool {
    !partition.adding.is_empty() || !partition.removing.is_empty()
}

fn running<'a>(
    topic: &TopicImage,
    partitions: impl Iterator<Item = (PartitionIndex, &'a std::sync::Arc<PartitionImage>)>,
) -> OngoingTopicReassignment {
    OngoingTopicReassignment {
        name: topic.name.to_string(),
        partitions: partitions
            .filter(|(_, partition)| is_running(partition))
            .map(|(index, partition)| OngoingPartitionReassignment {
                partition_index: index.0,
                replicas: numbers(&partition.replicas),
                adding_replicas: numbers(&partition.adding),
                removing_replicas: numbers(&partition.removing),
            })
            .collect(),
    }
}

/// Against what the partition will have when a running reassignment is over.
fn check_factor(partition: &PartitionImage, target: usize) -> Result<(), ApiError> {
    let leaves = |broker: &&BrokerId| partition.removing.contains(broker);
    let current = partition.replicas.iter().filter(|b| !leaves(b)).count();
    if current == target {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::INVALID_REPLICATION_FACTOR,
        format!("The replication factor is changed from {current} to {target}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::super::{ControllerRequest, ControllerResponse};
    use super::*;
    use crate::base::LeaderEpoch;
    use crate::metadata::ConfigResourceType;
    use crate::metadata::topics::brokers;
    use crate::security::RequestContext;
    use crate::wire::messages::alter_partition_reassignments_request::ReassignableTopic;

    fn reassign_with(
        bench: &mut Bench,
        partition_index: i32,
        replicas: Option<&[i32]>,
        allow_replication_factor_change: bool,
    ) -> (i16, Option<String>) {
        let request = AlterPartitionReassignmentsRequest {
            allow_replication_factor_change,
            topics: vec![ReassignableTopic {
                name: "t".to_owned(),
                partitions: vec![ReassignablePartition {
                    partition_index,
                    replicas: replicas.map(<[i32]>::to_vec),
                }],
            }],
            ..Default::default()
        };
        let ctx = RequestContext::internal();
        match bench.run(ControllerRequest::AlterPartitionReassignments { ctx, request }) {
            ControllerResponse::AlterPartitionReassignments(mut response) => {
                assert_eq!(response.error_code, 0);
                let result = response.responses.remove(0).partitions.remove(0);
                (result.error_code, result.error_message)
            }
            other => panic!("{other:?}"),
        }
    }

    fn reassign(bench: &mut Bench, replicas: Option<&[i32]>) -> i16 {
        reassign_with(bench, 0, replicas, true).0
    }

    fn listed(bench: &mut Bench) -> Vec<OngoingTopicReassignment> {
        let request = ListPartitionReassignmentsRequest::default();
        let request = ListPartitionReassignmentsRequest {
            topics: None,
            ..request
        };
        let ctx = RequestContext::internal();
        match bench.run(ControllerRequest::ListPartitionReassignments { ctx, request }) {
            ControllerResponse::ListPartitionReassignments(response) => response.topics,
            other => panic!("{other:?}"),
        }
    }

    fn bench() -> Bench {
        let mut bench = Bench::with_brokers(5);
        bench.create_topic_on("t", &[1, 2, 3]);
        bench
    }

    #[test]
    fn replicas_are_added_before_others_go() {
        let mut bench = bench();
        assert_eq!(reassign(&mut bench, Some(&[4, 1, 2])), 0);
        let begun = bench.partition("t", 0);
        assert_eq!(begun.replicas, brokers(&[4, 1, 2, 3]));
        assert_eq!(
            (&begun.adding[..], &begun.removing[..]),
            (&brokers(&[4])[..], &brokers(&[3])[..])
        );
        assert_eq!(
            (begun.leader, begun.leader_epoch),
            (BrokerId(1), LeaderEpoch(0))
        );
        assert_eq!(begun.directories[0], bench.directory(4));
        let list = listed(&mut bench);
        assert_eq!(list[0].partitions[0].replicas, [4, 1, 2, 3]);
        bench.propose_isr(1, "t", &[1, 2, 3, 4]);
        let done = bench.partition("t", 0);
        assert_eq!(
            (&done.replicas[..], &done.isr[..]),
            (&brokers(&[4, 1, 2])[..], &brokers(&[1, 2, 4])[..])
        );
        assert_eq!(
            (done.leader, done.leader_epoch),
            (BrokerId(1), LeaderEpoch(1))
        );
        assert_eq!((done.adding.len(), done.removing.len()), (0, 0));
        assert_eq!(listed(&mut bench), []);
    }

    #[test]
    fn a_leader_that_goes_hands_over() {
        let mut bench = bench();
        assert_eq!(reassign(&mut bench, Some(&[4, 2])), 0);
        assert_eq!(
            bench.propose_isr(1, "t", &[1, 2, 3, 4]),
            ErrorCode::NEW_LEADER_ELECTED.0
        );
        let done = bench.partition("t", 0);
        assert_eq!(
            (done.leader, &done.replicas[..]),
            (BrokerId(4), &brokers(&[4, 2])[..])
        );
    }

    #[test]
    fn what_needs_no_new_replica_is_done_at_once() {
        let mut bench = bench();
        assert_eq!(reassign(&mut bench, Some(&[3, 2, 1])), 0);
        let turned = bench.partition("t", 0);
        assert_eq!(
            (turned.replicas, turned.leader_epoch),
            (brokers(&[3, 2, 1]), LeaderEpoch(0))
        );
        assert_eq!(reassign(&mut bench, Some(&[2, 3])), 0);
        let fewer = bench.partition("t", 0);
        assert_eq!(
            (&fewer.replicas[..], &fewer.isr[..]),
            (&brokers(&[2, 3])[..], &brokers(&[2, 3])[..])
        );
        assert_eq!(
            (fewer.leader, fewer.leader_epoch),
            (BrokerId(2), LeaderEpoch(1))
        );
    }

    #[test]
    fn a_cancelled_one_leaves_no_trace() {
        let mut bench = bench();
        assert_eq!(
            reassign(&mut bench, None),
            ErrorCode::NO_REASSIGNMENT_IN_PROGRESS.0
        );
        reassign(&mut bench, Some(&[4, 5]));
        bench.propose_isr(1, "t", &[1, 2, 3, 4]);
        assert_eq!(reassign(&mut bench, None), 0);
        let back = bench.partition("t", 0);
        assert_eq!(
            (&back.replicas[..], &back.isr[..]),
            (&brokers(&[1, 2, 3])[..], &brokers(&[1, 2, 3])[..])
        );
        assert_eq!((back.adding.len(), back.removing.len()), (0, 0));
        assert_eq!(back.leader_epoch, LeaderEpoch(1), "4 must stop following");
    }

    #[test]
    fn one_is_replaced_by_another() {
        let mut bench = bench();
        reassign(&mut bench, Some(&[4, 1, 2]));
        assert_eq!(reassign(&mut bench, Some(&[5, 1, 2])), 0);
        let second = bench.partition("t", 0);
        assert_eq!(second.replicas, brokers(&[5, 1, 2, 3, 4]));
        assert_eq!(
            (second.adding, second.removing),
            (brokers(&[5]), brokers(&[3, 4]))
        );
        // Back to the start, without cancelling.
        assert_eq!(reassign(&mut bench, Some(&[1, 2, 3])), 0);
        let back = bench.partition("t", 0);
        assert_eq!(back.replicas, brokers(&[1, 2, 3]));
        assert_eq!((back.adding.len(), back.removing.len()), (0, 0));
    }

    #[test]
    fn faults_have_kafkas_codes_and_texts() {
        let mut bench = bench();
        let refusal = |bench: &mut Bench, index, replicas: &[i32], may_change| {
            reassign_with(bench, index, Some(replicas), may_change)
        };
        let (code, text) = refusal(&mut bench, 1, &[1], true);
        assert_eq!(
            (code, text.unwrap().as_str()),
            (3, "Unable to find partition t:1.")
        );
        assert_eq!(refusal(&mut bench, 0, &[], true).0, 39);
        assert_eq!(refusal(&mut bench, 0, &[1, 9], true).0, 39);
        assert_eq!(refusal(&mut bench, 0, &[1, 1], true).0, 39);
        let (code, text) = refusal(&mut bench, 0, &[1, 2], false);
        assert_eq!(code, 38);
        assert_eq!(
            text.unwrap(),
            "The replication factor is changed from 3 to 2"
        );
        assert_eq!(refusal(&mut bench, 0, &[5, 1, 2], false).0, 0);
        assert_eq!(
            refusal(&mut bench, 0, &[4, 1, 2], false).0,
            0,
            "3 leave, 3 stay"
        );
    }

    #[test]
    fn cancelling_may_need_an_unclean_election() {
        let mut bench = bench();
        reassign(&mut bench, Some(&[4, 5]));
        bench.propose_isr(1, "t", &[1, 2, 3, 4]);
        for broker in [1, 2, 3] {
            bench.heartbeat(broker, |request| request.want_fence = true);
        }
        let only_new = bench.partition("t", 0);
        assert_eq!(
            (only_new.leader, &only_new.isr[..]),
            (BrokerId(4), &brokers(&[4])[..])
        );
        assert_eq!(
            reassign(&mut bench, None),
            ErrorCode::INVALID_REPLICA_ASSIGNMENT.0
        );
        let key = "unclean.leader.election.enable";
        bench.set_config(ConfigResourceType::TOPIC, "t", key, "true");
        assert_eq!(reassign(&mut bench, None), 0);
        let back = bench.partition("t", 0);
        assert_eq!(
            (back.leader, &back.isr[..]),
            (BrokerId::NONE, &brokers(&[1])[..])
        );
    }
}
