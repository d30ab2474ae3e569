//! The ISRs of the partitions that this core leads: looks who has fallen behind, and takes
//! what is to change to the controller's core.
//!
//! ```text
//!   follower's fetch ─┐                          node::isr, on the controller's core:
//!   tick ─────────────┴▶ proposal ─▶ ProposeIsr ─▶ one AlterPartition at a time
//!   partition ◀──────── answer ◀──── IsrAnswers ◀──┘
//! ```
//! Called by `shard::fetch` ([`propose`]), `shard::background` ([`look`]) and
//! `Shard::on_request` ([`on_answers`]).
//!
//! Invariant: a partition has at most one proposal on its way (`replica::isr`), so what waits
//! on the controller's core is bounded by the number of partitions.

use std::rc::Rc;
use std::time::Duration;

use super::Shard;
use super::messages::ShardRequest;
use super::partition::{Partition, Wakes};
use crate::base::{BrokerId, TopicIdPartition};
use crate::replica::isr::{Answer, Proposal, Settled};

/// `replica.lag.time.max.ms`.
pub fn lag_max(shard: &Shard) -> Duration {
    let ms = shard.node().config.log.replica_lag_time_max_ms;
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// How often to look who has fallen behind: as in Kafka twice in the time that it may take.
pub fn tick_interval(shard: &Shard) -> Duration {
    (lag_max(shard) / 2).max(Duration::from_millis(1))
}

/// Looks at all partitions of this core.
pub async fn look(shard: &Rc<Shard>, ids: Rc<[TopicIdPartition]>) {
    let budget = shard.rt().budget();
    for id in ids.iter().copied() {
        if let Some(partition) = shard.partition(id) {
            let mut wakes = Wakes::new();
            let now = shard.rt().now();
            let proposal = partition.borrow_mut().on_isr_tick(now, &mut wakes);
            if let Some(proposal) = proposal {
                propose(shard, id, proposal);
            }
            shard.wake_all(wakes);
        }
        budget.breathe().await;
    }
}

/// Has the controller asked.
pub fn propose(shard: &Shard, id: TopicIdPartition, proposal: Proposal) {
    let proposed = Box::new((id, proposal));
    let controller = shard.node().controller_core();
    shard.post(controller, ShardRequest::ProposeIsr(proposed));
}

/// What became of proposals of this core.
pub fn on_answers(shard: &Shard, answers: Vec<(TopicIdPartition, Answer)>) {
    let mut wakes = Wakes::new();
    for (id, answer) in answers {
        let Some(partition) = shard.partition(id) else {
            continue;
        };
        let mut partition = partition.borrow_mut();
        let before = partition.replica().assignment().isr.clone();
        let error = answer.result.as_ref().err().copied();
        match partition.on_isr_answer(answer, &mut wakes) {
            Settled::Committed { isr, .. } => {
                let metrics = shard.metrics();
                match isr.len() < before.len() {
                    true => metrics.isr_shrinks.increment(),
                    false => metrics.isr_expands.increment(),
                }
                tell(&partition, &before, &isr);
            }
            Settled::Reverted | Settled::AwaitsMetadata => tracing::info!(
                topic = %partition.topic(),
                partition = %id.partition,
                leader_epoch = %partition.leader_epoch(),
                error = ?error,
                "the controller refused a change of the isr"
            ),
            Settled::Stale => {}
        }
    }
    shard.wake_all(wakes);
}

fn tell(partition: &Partition, before: &[BrokerId], isr: &[BrokerId]) {
    let numbers = |isr: &[BrokerId]| isr.iter().map(|id| id.0).collect::<Vec<_>>();
    tracing::info!(
        topic = %partition.topic(),
        partition = %partition.id().partition,
        leader_epoch = %partition.leader_epoch(),
        before = ?numbers(before),
        isr = ?numbers(isr),
        "isr changed"
    );
}
