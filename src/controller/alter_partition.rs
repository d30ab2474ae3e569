//! AlterPartition (`ReplicationControlManager.alterPartition`): a leader proposes its
//! partitions' ISRs. Checked in Kafka's order, which decides the error of a proposal with
//! several faults; a leader reacts to each error in its own way.

use super::leader_election::Cause;
use super::partition_change::PartitionChange;
use super::{Controller, Outcome};
use crate::base::{BrokerId, ErrorCode, PartitionIndex};
use crate::metadata::topics::{NO_LEADER_CHANGE, numbers};
use crate::metadata::{MetadataRecord, PartitionImage, TopicImage};
use crate::wire::messages::alter_partition_request as asked;
use crate::wire::messages::alter_partition_response::{PartitionData, TopicData};
use crate::wire::messages::{AlterPartitionRequest, AlterPartitionResponse, PartitionChangeRecord};

impl Controller {
    pub(super) fn decide_alter_partition(
        &self,
        request: &AlterPartitionRequest,
    ) -> Outcome<AlterPartitionResponse> {
        let leader = BrokerId(request.broker_id);
        self.check_broker_epoch(leader, request.broker_epoch)?;
        let mut records = Vec::new();
        let topics = request
            .topics
            .iter()
            .map(|topic| TopicData {
                topic_id: topic.topic_id,
                partitions: topic
                    .partitions
                    .iter()
                    .map(|asked| {
                        self.alter_partition(leader, topic, asked, &mut records)
                            .unwrap_or_else(|error| PartitionData {
                                partition_index: asked.partition_index,
                                error_code: error.0,
                                ..Default::default()
                            })
                    })
                    .collect(),
            })
            .collect();
        let response = AlterPartitionResponse {
            topics,
            ..Default::default()
        };
        Ok((records, response))
    }

    fn alter_partition(
        &self,
        leader: BrokerId,
        topic: &asked::TopicData,
        asked: &asked::PartitionData,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<PartitionData, ErrorCode> {
        let topic = self.image.topics.by_id(topic.topic_id);
        let topic = topic.ok_or(ErrorCode::UNKNOWN_TOPIC_ID)?;
        let index = PartitionIndex(asked.partition_index);
        let partition = topic
            .partition(index)
            .ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        let isr = proposed_isr(asked);
        self.check_proposal(leader, partition, asked, &isr)?;
        let record = self.isr_change(topic, index, partition, asked, &isr);
        let mut after = PartitionImage::clone(partition);
        if let Some(record) = record {
            after = after.merge(&record).expect("directories stay parallel");
            let (named, asker) = (record.leader, leader.0);
            records.push(record.into());
            // Its ISR ended a reassignment that takes the leader away: written, and the
            // leader is told to look for its successor.
            if named != NO_LEADER_CHANGE && named != asker {
                return Err(ErrorCode::NEW_LEADER_ELECTED);
            }
        }
        Ok(PartitionData {
            partition_index: index.0,
            error_code: ErrorCode::NONE.0,
            leader_id: after.leader.0,
            leader_epoch: after.leader_epoch.0,
            isr: numbers(&after.isr),
            leader_recovery_state: i8::from(after.recovering),
            partition_epoch: after.partition_epoch,
        })
    }

    fn check_proposal(
        &self,
        leader: BrokerId,
        partition: &PartitionImage,
        asked: &asked::PartitionData,
        isr: &[(BrokerId, i64)],
    ) -> Result<(), ErrorCode> {
        // The leader knows of changes that this controller doesn't: it isn't active any more.
        if asked.leader_epoch > partition.leader_epoch.0
            || asked.partition_epoch > partition.partition_epoch
        {
            return Err(ErrorCode::NOT_CONTROLLER);
        }
        if asked.leader_epoch < partition.leader_epoch.0 {
            return Err(ErrorCode::FENCED_LEADER_EPOCH);
        }
        if leader != partition.leader {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        if asked.partition_epoch < partition.partition_epoch {
            return Err(ErrorCode::INVALID_UPDATE_VERSION);
        }
        let is_repeated = |at: usize| isr[..at].iter().any(|(id, _)| *id == isr[at].0);
        let is_valid = !isr.is_empty()
            && isr.iter().all(|(id, _)| partition.is_replica(*id))
            && !(0..isr.len()).any(is_repeated)
            && isr.iter().any(|(id, _)| *id == partition.leader);
        let recovering = match asked.leader_recovery_state {
            0 => false,
            1 => true,
            _ => return Err(ErrorCode::INVALID_REQUEST),
        };
        let is_state_valid = !recovering || (isr.len() == 1 && partition.recovering);
        if !is_valid || !is_state_valid {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        let is_eligible = |(id, epoch): &(BrokerId, i64)| {
            let broker = self.image.cluster.broker(*id);
            broker.is_some_and(|b| b.is_active() && (*epoch == -1 || *epoch == b.epoch))
        };
        if !isr.iter().all(is_eligible) {
            return Err(ErrorCode::INELIGIBLE_REPLICA);
        }
        Ok(())
    }

    fn isr_change(
        &self,
        topic: &TopicImage,
        index: PartitionIndex,
        partition: &PartitionImage,
        asked: &asked::PartitionData,
        isr: &[(BrokerId, i64)],
    ) -> Option<PartitionChangeRecord> {
        let mut change = PartitionChange::new(partition, self.terms(topic));
        change.isr = isr.iter().map(|(id, _)| *id).collect();
        change.recovering = asked.leader_recovery_state == 1;
        self.build(topic.id, index, change, Cause::Nothing)
    }
}

/// Members with the epochs that the leader knows of them; -1 where it doesn't say.
fn proposed_isr(asked: &asked::PartitionData) -> Vec<(BrokerId, i64)> {
    let plain = asked.new_isr.iter().map(|id| (BrokerId(*id), -1));
    let with_epochs = asked.new_isr_with_epochs.iter();
    plain
        .chain(with_epochs.map(|state| (BrokerId(state.broker_id), state.broker_epoch)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::super::{ControllerRequest, ControllerResponse};
    use super::*;
    use crate::base::{LeaderEpoch, Uuid};
    use crate::security::RequestContext;

    /// Broker 1 leads `t`, which 2 and 3 also have; 2 is in sync.
    fn bench() -> (Bench, Uuid) {
        let mut bench = Bench::with_brokers(3);
        bench.heartbeat(3, |request| request.want_fence = true);
        let topic = bench.create_topic_on("t", &[1, 2, 3]);
        bench.heartbeat(3, |_| {});
        (bench, topic)
    }

    fn proposal(bench: &Bench, isr: &[i32]) -> asked::PartitionData {
        let partition = bench.partition("t", 0);
        let members = isr.iter().map(|id| asked::BrokerState {
            broker_id: *id,
            broker_epoch: bench.epochs.get(id).copied().unwrap_or(-1),
        });
        asked::PartitionData {
            partition_index: 0,
            leader_epoch: partition.leader_epoch.0,
            new_isr_with_epochs: members.collect(),
            partition_epoch: partition.partition_epoch,
            ..Default::default()
        }
    }

    fn alter(
        bench: &mut Bench,
        broker: i32,
        topic_id: Uuid,
        partition: asked::PartitionData,
    ) -> PartitionData {
        let request = AlterPartitionRequest {
            broker_id: broker,
            broker_epoch: bench.epochs[&broker],
            topics: vec![asked::TopicData {
                topic_id,
                partitions: vec![partition],
            }],
        };
        let ctx = RequestContext::internal();
        match bench.run(ControllerRequest::AlterPartition { ctx, request }) {
            ControllerResponse::AlterPartition(mut response) => {
                assert_eq!(response.error_code, 0);
                response.topics.remove(0).partitions.remove(0)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_isr_grows_and_shrinks_within_the_term() {
        let (mut bench, topic) = bench();
        let grown = proposal(&bench, &[1, 2, 3]);
        let answer = alter(&mut bench, 1, topic, grown);
        assert_eq!((answer.error_code, &answer.isr[..]), (0, &[1, 2, 3][..]));
        assert_eq!((answer.leader_epoch, answer.partition_epoch), (0, 1));
        let shrunk = proposal(&bench, &[1]);
        let answer = alter(&mut bench, 1, topic, shrunk);
        assert_eq!((answer.error_code, &answer.isr[..]), (0, &[1][..]));
        assert_eq!((answer.leader_epoch, answer.partition_epoch), (0, 2));
        // Asked for what is there already: nothing changes.
        let same = proposal(&bench, &[1]);
        assert_eq!(alter(&mut bench, 1, topic, same).partition_epoch, 2);
    }

    #[test]
    fn faults_have_kafkas_codes() {
        let (mut bench, topic) = bench();
        bench.heartbeat(2, |request| request.want_fence = true);
        let epoch = bench.partition("t", 0).partition_epoch;
        assert_eq!(epoch, 1);
        type Spoil = fn(&mut asked::PartitionData);
        let cases: [(Spoil, i16); 12] = [
            (|p| p.partition_index = 1, 3),
            (|p| p.leader_epoch += 1, 41),
            (|p| p.partition_epoch += 1, 41),
            (|p| p.leader_epoch -= 1, 74),
            (|p| p.partition_epoch -= 1, 95),
            (|p| p.new_isr_with_epochs.clear(), 42),
            (|p| p.new_isr_with_epochs[1].broker_id = 9, 42),
            (|p| p.new_isr_with_epochs[1].broker_id = 1, 42),
            (
                |p| {
                    p.new_isr_with_epochs.remove(0);
                },
                42,
            ),
            (|p| p.leader_recovery_state = 1, 42),
            (|p| p.new_isr_with_epochs[1].broker_id = 2, 107),
            (|p| p.new_isr_with_epochs[1].broker_epoch -= 1, 107),
        ];
        for (case, (spoil, code)) in cases.into_iter().enumerate() {
            let mut proposal = proposal(&bench, &[1, 3]);
            spoil(&mut proposal);
            let answer = alter(&mut bench, 1, topic, proposal);
            assert_eq!(answer.error_code, code, "case {case}");
        }
        let good = proposal(&bench, &[1, 3]);
        let answer = alter(&mut bench, 1, Uuid([8; 16]), good.clone());
        assert_eq!(answer.error_code, 100);
        assert_eq!(
            alter(&mut bench, 3, topic, good.clone()).error_code,
            42,
            "no leader"
        );
        assert_eq!(
            bench.partition("t", 0).partition_epoch,
            epoch,
            "nothing changed"
        );
        assert_eq!(alter(&mut bench, 1, topic, good).error_code, 0);
    }

    #[test]
    fn a_stale_broker_proposes_nothing() {
        let (mut bench, topic) = bench();
        let request = AlterPartitionRequest {
            broker_id: 1,
            broker_epoch: bench.epochs[&1] - 1,
            topics: vec![asked::TopicData {
                topic_id: topic,
                partitions: vec![proposal(&bench, &[1])],
            }],
        };
        let ctx = RequestContext::internal();
        let answer = bench.run(ControllerRequest::AlterPartition { ctx, request });
        let ControllerResponse::AlterPartition(answer) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(answer.error_code, ErrorCode::STALE_BROKER_EPOCH.0);
    }

    #[test]
    fn recovery_ends_when_the_leader_says_so() {
        let (mut bench, topic) = bench();
        bench.set_config(
            crate::metadata::ConfigResourceType::TOPIC,
            "t",
            "unclean.leader.election.enable",
            "true",
        );
        bench.heartbeat(2, |request| request.want_fence = true);
        bench.heartbeat(1, |request| request.want_fence = true);
        let unclean = bench.partition("t", 0);
        assert_eq!(
            (unclean.leader, unclean.leader_epoch),
            (BrokerId(3), LeaderEpoch(1))
        );
        assert!(unclean.recovering);
        bench.heartbeat(1, |_| {});
        let mut both = proposal(&bench, &[3, 1]);
        both.leader_recovery_state = 1;
        assert_eq!(alter(&mut bench, 3, topic, both).error_code, 42);
        let recovered = proposal(&bench, &[3]);
        let answer = alter(&mut bench, 3, topic, recovered);
        assert_eq!((answer.error_code, answer.leader_recovery_state), (0, 0));
        assert!(!bench.partition("t", 0).recovering);
    }
}
