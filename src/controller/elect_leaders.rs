//! ElectLeaders (`ReplicationControlManager.electLeaders`), preferred and unclean, and the
//! elections that the controller holds by itself ([`timers`](super::timers)).

use super::api_error::ApiError;
use super::leader_election::Cause;
use super::partition_change::{Election, PartitionChange};
use super::{Controller, Outcome};
use crate::base::{ErrorCode, PartitionIndex};
use crate::metadata::{MetadataRecord, PartitionImage, TopicImage};
use crate::wire::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use crate::wire::messages::{ElectLeadersRequest, ElectLeadersResponse};

/// Elections of preferred leaders that one turn holds by itself.
pub(super) const BALANCE_ELECTIONS_MAX: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Preferred,
    Unclean,
}

impl Controller {
    pub(super) fn decide_elect_leaders(
        &self,
        request: &ElectLeadersRequest,
    ) -> Outcome<ElectLeadersResponse> {
        let wanted = match request.election_type {
            0 => Wanted::Preferred,
            1 => Wanted::Unclean,
            other => {
                let text = format!("Unknown election type {other}");
                return Err(ApiError::new(ErrorCode::INVALID_REQUEST, text));
            }
        };
        let mut records = Vec::new();
        let results = match &request.topic_partitions {
            None => self.elect_everywhere(wanted, &mut records),
            Some(topics) => topics
                .iter()
                .map(|asked| ReplicaElectionResult {
                    topic: asked.topic.clone(),
                    partition_result: asked
                        .partitions
                        .iter()
                        .map(|index| {
                            let elected =
                                self.elect_named(&asked.topic, *index, wanted, &mut records);
                            result(*index, elected)
                        })
                        .collect(),
                })
                .collect(),
        };
        let response = ElectLeadersResponse {
            replica_election_results: results,
            ..Default::default()
        };
        Ok((records, response))
    }

    /// All partitions; those that are led as wanted aren't told of.
    fn elect_everywhere(
        &self,
        wanted: Wanted,
        records: &mut Vec<MetadataRecord>,
    ) -> Vec<ReplicaElectionResult> {
        let mut results = Vec::with_capacity(self.image.topics.len());
        for topic in self.image.topics.iter() {
            let mut partition_result = Vec::new();
            for (index, partition) in topic.partitions() {
                let elected = self.elect_one(topic, index, partition, wanted, records);
                let is_needless =
                    matches!(&elected, Err(e) if e.code == ErrorCode::ELECTION_NOT_NEEDED);
                if !is_needless {
                    partition_result.push(result(index.0, elected));
                }
            }
            results.push(ReplicaElectionResult {
                topic: topic.name.to_string(),
                partition_result,
            });
        }
        results
    }

    fn elect_named(
        &self,
        name: &str,
        index: i32,
        wanted: Wanted,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<(), ApiError> {
        let unknown = |text| ApiError::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, text);
        let topic = self.image.topics.by_name(name);
        let topic = topic.ok_or_else(|| unknown(format!("No such topic as {name}")))?;
        let partition = topic
            .partition(PartitionIndex(index))
            .ok_or_else(|| unknown(format!("No such partition as {name}-{index}")))?;
        self.elect_one(topic, PartitionIndex(index), partition, wanted, records)
    }

    fn elect_one(
        &self,
        topic: &TopicImage,
        index: PartitionIndex,
        partition: &PartitionImage,
        wanted: Wanted,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<(), ApiError> {
        let (is_needless, election, unavailable) = match wanted {
            Wanted::Preferred => (
                partition.leader == partition.preferred_replica(),
                Election::Preferred,
                ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE,
            ),
            Wanted::Unclean => (
                partition.has_leader(),
                Election::Unclean,
                ErrorCode::ELIGIBLE_LEADERS_NOT_AVAILABLE,
            ),
        };
        if is_needless {
            return Err(ApiError::general(ErrorCode::ELECTION_NOT_NEEDED));
        }
        let mut change = PartitionChange::new(partition, self.terms(topic));
        change.election = election;
        let record = self.build(topic.id, index, change, Cause::Nothing);
        records.push(record.ok_or_else(|| ApiError::general(unavailable))?.into());
        Ok(())
    }

    /// Gives leadership back to preferred replicas; whether there may be more to give.
    pub(super) fn balance_leaders(&self, records: &mut Vec<MetadataRecord>) -> bool {
        for topic in self.image.topics.iter_by_id() {
            for (index, partition) in topic.partitions() {
                if partition.leader == partition.preferred_replica() {
                    continue;
                }
                if records.len() >= BALANCE_ELECTIONS_MAX {
                    return true;
                }
                // Whoever has no preferred leader to give isn't an error here.
                let _ = self.elect_one(topic, index, partition, Wanted::Preferred, records);
            }
        }
        false
    }
}

fn result(partition_id: i32, elected: Result<(), ApiError>) -> PartitionResult {
    let (error_code, error_message) = super::api_error::fields(elected);
    PartitionResult {
        partition_id,
        error_code,
        error_message,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::super::{ControllerRequest, ControllerResponse};
    use super::*;
    use crate::base::BrokerId;
    use crate::security::RequestContext;
    use crate::wire::messages::elect_leaders_request::TopicPartitions;

    fn elect(bench: &mut Bench, kind: i8, partitions: Option<&[i32]>) -> Vec<PartitionResult> {
        let request = ElectLeadersRequest {
            election_type: kind,
            topic_partitions: partitions.map(|partitions| {
                vec![TopicPartitions {
                    topic: "t".to_owned(),
                    partitions: partitions.to_vec(),
                }]
            }),
            ..Default::default()
        };
        let ctx = RequestContext::internal();
        match bench.run(ControllerRequest::ElectLeaders { ctx, request }) {
            ControllerResponse::ElectLeaders(mut response) => {
                assert_eq!(response.error_code, 0);
                response.replica_election_results.remove(0).partition_result
            }
            other => panic!("{other:?}"),
        }
    }

    fn codes(results: &[PartitionResult]) -> Vec<i16> {
        results.iter().map(|result| result.error_code).collect()
    }

    #[test]
    fn preferred_leaders_come_back_when_in_sync() {
        let mut bench = Bench::with_brokers(2);
        bench.create_topic_on("t", &[1, 2]);
        assert_eq!(codes(&elect(&mut bench, 0, Some(&[0, 1]))), [84, 3]);
        assert_eq!(codes(&elect(&mut bench, 0, None)), [0; 0]);
        bench.heartbeat(1, |request| request.want_fence = true);
        assert_eq!(codes(&elect(&mut bench, 0, Some(&[0]))), [80]);
        bench.heartbeat(1, |_| {});
        assert_eq!(
            codes(&elect(&mut bench, 0, None)),
            [80],
            "1 isn't in sync yet"
        );
        bench.propose_isr(2, "t", &[2, 1]);
        assert_eq!(codes(&elect(&mut bench, 0, None)), [0]);
        assert_eq!(bench.partition("t", 0).leader, BrokerId(1));
    }

    #[test]
    fn unclean_leaders_are_for_partitions_without_any() {
        let mut bench = Bench::with_brokers(2);
        bench.create_topic_on("t", &[1, 2]);
        assert_eq!(codes(&elect(&mut bench, 1, Some(&[0]))), [84]);
        bench.heartbeat(2, |request| request.want_fence = true);
        bench.heartbeat(1, |request| request.want_fence = true);
        assert_eq!(codes(&elect(&mut bench, 1, Some(&[0]))), [83]);
        bench.heartbeat(2, |_| {});
        assert_eq!(bench.partition("t", 0).leader, BrokerId::NONE);
        assert_eq!(codes(&elect(&mut bench, 1, Some(&[0]))), [0]);
        let partition = bench.partition("t", 0);
        assert_eq!(
            (partition.leader, partition.recovering),
            (BrokerId(2), true)
        );
    }
}
