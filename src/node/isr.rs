//! What the leaders of this node would change of their ISRs, on its way to the controller: one
//! AlterPartition at a time, with whatever has come together meanwhile
//! (`AlterPartitionManager`; replication digest, section 3). On the controller's core.
//!
//! ```text
//!   cores ─ ProposeIsr ─▶ latest proposal of each partition ─▶ active controller
//!     ▲                        │ no answer, or one for nobody: again after a pause
//!     └────── IsrAnswers ◀─────┘ a last word
//! ```
//! Called by the lifecycle. What a proposal's fate means is `replica::isr`'s.
//!
//! Invariants: a proposal leads to one answer, unless its partition sends another meanwhile;
//! at most one request is in flight; one proposal a partition is kept.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::remote::ActiveController;
use crate::base::{
    BrokerId, CoreId, ErrorCode, LeaderEpoch, PartitionIndex, TopicIdPartition, Uuid,
};
use crate::controller::{ControllerRequest, ControllerResponse};
use crate::io::Rt;
use crate::io::local::{Notify, or_deadline};
use crate::mesh::Port;
use crate::replica::isr::{Accepted, Answer, Proposal};
use crate::security::RequestContext;
use crate::shard::Node;
use crate::shard::messages::{ShardReply, ShardRequest};
use crate::wire::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use crate::wire::messages::alter_partition_response::PartitionData as Outcome;
use crate::wire::messages::{AlterPartitionRequest, AlterPartitionResponse};

/// Partitions in one request.
const PARTITIONS_MAX: usize = 2_000;
/// Until a request that led to nothing is made again, which doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a request may take: after that the controller may be another one.
const ANSWER_TIME: Duration = Duration::from_secs(10);

type MeshPort = Port<ShardRequest, ShardReply>;

pub struct IsrChanges {
    rt: Rt,
    node: Arc<Node>,
    port: MeshPort,
    waiting: RefCell<Waiting>,
    due: Notify,
}

/// The latest proposal of each partition, and the core that leads it.
#[derive(Default)]
struct Waiting(BTreeMap<TopicIdPartition, (CoreId, Proposal)>);

/// A proposal in a request.
type Sent = (TopicIdPartition, CoreId, Proposal);

impl IsrChanges {
    pub fn new(rt: Rt, node: Arc<Node>, port: MeshPort) -> IsrChanges {
        IsrChanges {
            rt,
            node,
            port,
            waiting: RefCell::default(),
            due: Notify::new(),
        }
    }

    /// A core would change the ISR of a partition that it leads.
    pub fn propose(&self, from: CoreId, id: TopicIdPartition, proposal: Proposal) {
        self.waiting.borrow_mut().0.insert(id, (from, proposal));
        self.due.notify_one();
    }

    /// Asks the controller, until the node stops.
    pub async fn run(self: Rc<Self>, active: ActiveController) {
        let mut pause = PAUSE_MIN;
        loop {
            let due = self.due.notified();
            let sent = self.waiting.borrow().next();
            if sent.is_empty() {
                due.await;
                continue;
            }
            if self.ask(&active, &sent).await {
                pause = PAUSE_MIN;
            } else {
                self.rt.sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }

    /// Whether there is a last word on all that was asked.
    async fn ask(&self, active: &ActiveController, sent: &[Sent]) -> bool {
        let broker_epoch = self.node.broker_epoch.load(Ordering::Acquire);
        if broker_epoch < 0 {
            return false;
        }
        let call = active.call(ControllerRequest::AlterPartition {
            ctx: RequestContext::internal(),
            request: request(self.node.id, broker_epoch, sent),
        });
        let at = self.rt.now() + ANSWER_TIME;
        let Ok(ControllerResponse::AlterPartition(response)) =
            or_deadline(&self.rt, call, at).await
        else {
            tracing::debug!("the controller doesn't answer a change of an isr");
            return false;
        };
        if response.error_code != 0 {
            let error = ErrorCode(response.error_code);
            tracing::debug!(%error, "the controller takes no changes of an isr");
            return false;
        }
        let by_core = self.waiting.borrow_mut().settle(sent, &response);
        let answered: usize = by_core.values().map(Vec::len).sum();
        for (core, answers) in by_core {
            self.port.post(core, ShardRequest::IsrAnswers(answers));
        }
        answered == sent.len()
    }
}

impl Waiting {
    fn next(&self) -> Vec<Sent> {
        let all = self.0.iter().take(PARTITIONS_MAX);
        all.map(|(id, (core, proposal))| (*id, *core, proposal.clone()))
            .collect()
    }

    /// The answers to what was asked, by core. What has none that is a last word stays, and so
    /// does what has come since.
    fn settle(
        &mut self,
        sent: &[Sent],
        response: &AlterPartitionResponse,
    ) -> BTreeMap<CoreId, Vec<(TopicIdPartition, Answer)>> {
        let outcomes: BTreeMap<TopicIdPartition, &Outcome> = response
            .topics
            .iter()
            .flat_map(|topic| {
                let of_topic = topic.partitions.iter();
                of_topic.map(|outcome| {
                    let id = TopicIdPartition {
                        topic_id: topic.topic_id,
                        partition: PartitionIndex(outcome.partition_index),
                    };
                    (id, outcome)
                })
            })
            .collect();
        let mut by_core: BTreeMap<CoreId, Vec<_>> = BTreeMap::new();
        for (id, core, proposal) in sent {
            let Some(outcome) = outcomes.get(id).filter(|outcome| is_last_word(outcome)) else {
                continue;
            };
            let is_it = |(_, waiting): &mut (CoreId, Proposal)| waiting == proposal;
            if self.0.get_mut(id).is_some_and(is_it) {
                self.0.remove(id);
            }
            let answer = Answer {
                leader_epoch: proposal.leader_epoch,
                partition_epoch: proposal.partition_epoch,
                result: result(outcome),
            };
            by_core.entry(*core).or_default().push((*id, answer));
        }
        by_core
    }
}

/// Whether asking again could lead to nothing else.
fn is_last_word(outcome: &Outcome) -> bool {
    matches!(
        ErrorCode(outcome.error_code),
        ErrorCode::NONE
            | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
            | ErrorCode::INVALID_REQUEST
            | ErrorCode::OPERATION_NOT_ATTEMPTED
            | ErrorCode::FENCED_LEADER_EPOCH
            | ErrorCode::INVALID_UPDATE_VERSION
            | ErrorCode::UNKNOWN_TOPIC_ID
            | ErrorCode::INELIGIBLE_REPLICA
            | ErrorCode::NEW_LEADER_ELECTED
    )
}

fn result(outcome: &Outcome) -> Result<Accepted, ErrorCode> {
    if outcome.error_code != 0 {
        return Err(ErrorCode(outcome.error_code));
    }
    Ok(Accepted {
        leader_epoch: LeaderEpoch(outcome.leader_epoch),
        partition_epoch: outcome.partition_epoch,
        isr: outcome.isr.iter().copied().map(BrokerId).collect(),
    })
}

/// Topics in ascending order; a partition stands in it once.
fn request(me: BrokerId, broker_epoch: i64, sent: &[Sent]) -> AlterPartitionRequest {
    let mut topics: BTreeMap<Uuid, Vec<PartitionData>> = BTreeMap::new();
    for (id, _, proposal) in sent {
        let member = |(id, epoch): &(BrokerId, i64)| BrokerState {
            broker_id: id.0,
            broker_epoch: if *id == me { broker_epoch } else { *epoch },
        };
        topics.entry(id.topic_id).or_default().push(PartitionData {
            partition_index: id.partition.0,
            leader_epoch: proposal.leader_epoch.0,
            new_isr: Vec::new(),
            new_isr_with_epochs: proposal.isr.iter().map(member).collect(),
            // A leader of an unclean election has recovered when it leads.
            leader_recovery_state: 0,
            partition_epoch: proposal.partition_epoch,
        });
    }
    AlterPartitionRequest {
        broker_id: me.0,
        broker_epoch,
        topics: topics
            .into_iter()
            .map(|(topic_id, partitions)| TopicData {
                topic_id,
                partitions,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::alter_partition_response::TopicData as Outcomes;

    fn id(topic: u8, partition: i32) -> TopicIdPartition {
        TopicIdPartition {
            topic_id: Uuid([topic; 16]),
            partition: PartitionIndex(partition),
        }
    }

    fn proposal(partition_epoch: i32) -> Proposal {
        Proposal {
            leader_epoch: LeaderEpoch(2),
            partition_epoch,
            isr: vec![(BrokerId(1), -1), (BrokerId(3), 30)],
        }
    }

    fn waiting(proposed: &[(u8, i32, u16)]) -> Waiting {
        let entry = |(topic, partition, core): &(u8, i32, u16)| {
            (id(*topic, *partition), (CoreId(*core), proposal(5)))
        };
        Waiting(proposed.iter().map(entry).collect())
    }

    fn response(outcomes: &[(u8, i32, ErrorCode)]) -> AlterPartitionResponse {
        let topics = outcomes.iter().map(|(topic, partition, error)| Outcomes {
            topic_id: Uuid([*topic; 16]),
            partitions: vec![Outcome {
                partition_index: *partition,
                error_code: error.0,
                leader_id: 1,
                leader_epoch: 2,
                isr: vec![1, 3],
                partition_epoch: 6,
                ..Default::default()
            }],
        });
        AlterPartitionResponse {
            topics: topics.collect(),
            ..Default::default()
        }
    }

    #[test]
    fn all_that_waits_goes_in_one_request_with_the_epoch_of_this_life() {
        let sent = waiting(&[(2, 1, 0), (1, 0, 1), (2, 0, 1)]).next();
        let request = request(BrokerId(1), 77, &sent);
        assert_eq!((request.broker_id, request.broker_epoch), (1, 77));
        let named: Vec<(u8, Vec<i32>)> = request
            .topics
            .iter()
            .map(|topic| {
                let indexes = topic.partitions.iter().map(|p| p.partition_index);
                (topic.topic_id.0[0], indexes.collect())
            })
            .collect();
        assert_eq!(named, [(1, vec![0]), (2, vec![0, 1])]);
        let first = &request.topics[0].partitions[0];
        assert_eq!((first.leader_epoch, first.partition_epoch), (2, 5));
        let members = first.new_isr_with_epochs.iter();
        let members: Vec<_> = members.map(|m| (m.broker_id, m.broker_epoch)).collect();
        assert_eq!(members, [(1, 77), (3, 30)]);
    }

    #[test]
    fn last_words_go_to_the_cores_that_asked_and_the_rest_is_asked_again() {
        let mut waiting = waiting(&[(1, 0, 0), (1, 1, 1), (1, 2, 1), (1, 3, 0)]);
        let sent = waiting.next();
        // There is a newer one of the second while the request is in flight.
        waiting.0.insert(id(1, 1), (CoreId(1), proposal(6)));
        let by_core = waiting.settle(
            &sent,
            &response(&[
                (1, 0, ErrorCode::NONE),
                (1, 1, ErrorCode::INVALID_UPDATE_VERSION),
                (1, 2, ErrorCode::NOT_CONTROLLER),
                (9, 9, ErrorCode::NONE),
            ]),
        );
        let accepted = Accepted {
            leader_epoch: LeaderEpoch(2),
            partition_epoch: 6,
            isr: vec![BrokerId(1), BrokerId(3)],
        };
        let answer = |result| Answer {
            leader_epoch: LeaderEpoch(2),
            partition_epoch: 5,
            result,
        };
        let refused = Err(ErrorCode::INVALID_UPDATE_VERSION);
        let expected = [
            (CoreId(0), vec![(id(1, 0), answer(Ok(accepted)))]),
            (CoreId(1), vec![(id(1, 1), answer(refused))]),
        ];
        assert_eq!(by_core, BTreeMap::from(expected));
        let left: Vec<_> = waiting.0.keys().map(|id| id.partition.0).collect();
        assert_eq!(left, [1, 2, 3], "newer, not answered, not mentioned");
    }
}
