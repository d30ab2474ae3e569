//! A leader between its followers and a controller, everything in any order: the high
//! watermark never goes back, never lies above what a member of the controller's ISR has, and
//! stands still while too few are in sync.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ottla::base::{BrokerId, ErrorCode, LeaderEpoch, Nanos, Offset};
use ottla::config::Durability;
use ottla::replica::isr::{Accepted, Answer, Proposal};
use ottla::replica::leader::Registration;
use ottla::replica::progress::FollowerFetch;
use ottla::replica::{Assignment, Replica};
use proptest::prelude::*;

const ME: BrokerId = BrokerId(1);
const FOLLOWERS: [BrokerId; 2] = [BrokerId(2), BrokerId(3)];
const MIN_INSYNC_REPLICAS: usize = 2;
const LAG_MAX: Duration = Duration::from_nanos(50);

/// What happens next; the second number chooses a follower, the third is how much.
type Step = (u8, usize, i64);

#[derive(Clone, Copy)]
struct Broker {
    epoch: i64,
    is_active: bool,
    /// Where its log ends.
    end: i64,
}

struct World {
    leader: Replica,
    log_end: i64,
    now: u64,
    brokers: BTreeMap<BrokerId, Broker>,
    /// As the controller has it.
    assignment: Assignment,
    /// On their way.
    metadata: VecDeque<(Assignment, BTreeMap<BrokerId, Broker>)>,
    proposals: VecDeque<Proposal>,
    answers: VecDeque<Answer>,
    seen: Seen,
}

/// That something happened at all.
#[derive(Debug, Default)]
struct Seen {
    moved: u64,
    joined: u64,
    left: u64,
    refused: u64,
}

impl World {
    fn new(durability: Durability) -> World {
        let all = [ME, FOLLOWERS[0], FOLLOWERS[1]];
        let broker = Broker {
            epoch: 10,
            is_active: true,
            end: 0,
        };
        let assignment = Assignment {
            replicas: all.to_vec(),
            isr: all.to_vec(),
            leader: ME,
            leader_epoch: LeaderEpoch(0),
            partition_epoch: 0,
        };
        let mut leader = Replica::new(ME, Offset(0), Offset(0)).with_lag_max(LAG_MAX);
        leader.set_durability(durability);
        leader.set_min_insync_replicas(MIN_INSYNC_REPLICAS as i32);
        let mut world = World {
            leader,
            log_end: 0,
            now: 0,
            brokers: all.into_iter().map(|id| (id, broker)).collect(),
            metadata: VecDeque::new(),
            proposals: VecDeque::new(),
            answers: VecDeque::new(),
            assignment,
            seen: Seen::default(),
        };
        world.publish();
        world.deliver_metadata();
        world
    }

    fn step(&mut self, (what, which, much): Step) {
        let (before, was_in_sync) = self.so_far();
        let id = FOLLOWERS[which];
        match what {
            0 | 1 => {
                self.log_end += much;
                self.leader.on_append(Offset(self.log_end));
            }
            2 => {
                let durable = Offset((self.log_end - much).max(0));
                self.leader.on_durable(durable);
            }
            3..=6 => self.fetch(id, much),
            7 => {
                self.now += much.unsigned_abs() * 3;
                let proposal = self.leader.on_tick(Nanos(self.now)).proposal;
                self.proposals.extend(proposal);
            }
            8 => self.decide(),
            9 => {
                if let Some(answer) = self.answers.pop_front() {
                    self.leader.on_isr_answer(answer);
                }
            }
            10 => {
                while !self.metadata.is_empty() {
                    let (before, was_in_sync) = self.so_far();
                    self.deliver_metadata();
                    self.check(before, was_in_sync);
                }
                return;
            }
            11 => self.set_active(id, false),
            12 => self.set_active(id, true),
            13 => {
                // A new life, which the controller takes out of the ISR at first.
                self.set_active(id, false);
                self.brokers.get_mut(&id).expect("one of two").epoch += 1;
                self.publish();
            }
            _ => {
                self.assignment.leader_epoch.0 += 1;
                self.change_partition();
            }
        }
        self.check(before, was_in_sync);
    }

    /// The high watermark, and whether enough are in sync for it to move.
    fn so_far(&self) -> (Offset, bool) {
        let is_in_sync = self.leader.assignment().isr.len() >= MIN_INSYNC_REPLICAS;
        (self.leader.high_watermark(), is_in_sync)
    }

    fn fetch(&mut self, id: BrokerId, much: i64) {
        self.now += 1;
        let broker = self.brokers.get_mut(&id).expect("one of two");
        broker.end = (broker.end + much).min(self.log_end);
        let (offset, broker_epoch) = (Offset(broker.end), broker.epoch);
        if self.leader.check_follower(id, broker_epoch, true).is_err() {
            self.seen.refused += 1;
            return;
        }
        let fetch = FollowerFetch {
            offset,
            log_start: Offset(0),
            broker_epoch,
            now: Nanos(self.now),
        };
        let proposal = self.leader.on_follower_fetch(id, &fetch).proposal;
        self.proposals.extend(proposal);
    }

    /// The controller decides on a proposal, as `controller::alter_partition`.
    fn decide(&mut self) {
        let Some(proposal) = self.proposals.pop_front() else {
            return;
        };
        let is_eligible = |(id, epoch): &(BrokerId, i64)| {
            let broker = self.brokers[id];
            broker.is_active && (*epoch == -1 || *epoch == broker.epoch)
        };
        let error = if proposal.leader_epoch < self.assignment.leader_epoch {
            Some(ErrorCode::FENCED_LEADER_EPOCH)
        } else if proposal.partition_epoch < self.assignment.partition_epoch {
            Some(ErrorCode::INVALID_UPDATE_VERSION)
        } else if !proposal.isr.iter().all(is_eligible) {
            Some(ErrorCode::INELIGIBLE_REPLICA)
        } else {
            None
        };
        let result = match error {
            Some(error) => {
                self.seen.refused += 1;
                Err(error)
            }
            None => {
                let isr: Vec<BrokerId> = proposal.isr.iter().map(|(id, _)| *id).collect();
                let before = self.assignment.isr.len();
                self.seen.joined += u64::from(isr.len() > before);
                self.seen.left += u64::from(isr.len() < before);
                self.assignment.isr = isr.clone();
                self.change_partition();
                Ok(Accepted {
                    leader_epoch: self.assignment.leader_epoch,
                    partition_epoch: self.assignment.partition_epoch,
                    isr,
                })
            }
        };
        self.answers.push_back(Answer {
            leader_epoch: proposal.leader_epoch,
            partition_epoch: proposal.partition_epoch,
            result,
        });
    }

    fn set_active(&mut self, id: BrokerId, is_active: bool) {
        self.brokers.get_mut(&id).expect("one of two").is_active = is_active;
        if !is_active && self.assignment.isr.contains(&id) {
            self.assignment.isr.retain(|member| *member != id);
            self.change_partition();
        } else {
            self.publish();
        }
    }

    fn change_partition(&mut self) {
        self.assignment.partition_epoch += 1;
        self.publish();
    }

    fn publish(&mut self) {
        let image = (self.assignment.clone(), self.brokers.clone());
        self.metadata.push_back(image);
    }

    fn deliver_metadata(&mut self) {
        if let Some((assignment, brokers)) = self.metadata.pop_front() {
            self.leader.on_assignment(assignment, Nanos(self.now));
            self.leader.on_brokers(&|id| {
                brokers.get(&id).map(|broker| Registration {
                    epoch: broker.epoch,
                    is_active: broker.is_active,
                })
            });
        }
    }

    fn check(&mut self, before: Offset, was_in_sync: bool) {
        let high_watermark = self.leader.high_watermark();
        assert!(high_watermark >= before, "it went back from {before}");
        for id in self.assignment.isr.iter().filter(|id| **id != ME) {
            let end = self.brokers[id].end;
            assert!(
                end >= high_watermark.0,
                "{id} is in sync with {end}, but {high_watermark} is committed"
            );
        }
        if high_watermark > before {
            let is_in_sync = self.leader.assignment().isr.len() >= MIN_INSYNC_REPLICAS;
            assert!(was_in_sync || is_in_sync, "with too few in sync");
            self.seen.moved += 1;
        }
    }
}

fn run(durability: Durability, steps: &[Step]) -> Seen {
    let mut world = World::new(durability);
    for step in steps {
        world.step(*step);
    }
    world.seen
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec((0u8..15, 0usize..2, 0i64..20), 1..300)
}

proptest! {
    #[test]
    fn nothing_is_committed_that_a_member_of_the_isr_lacks(steps in steps(), fsync: bool) {
        run(if fsync { Durability::Fsync } else { Durability::Os }, &steps);
    }
}

#[test]
fn the_steps_lead_to_commits_joins_leaves_and_refusals() {
    let mut rng = ottla::base::Rng::new(7);
    let mut below = |bound: u64| rng.below(bound);
    let mut total = Seen::default();
    for _ in 0..2_000 {
        let steps: Vec<Step> = (0..300)
            .map(|_| (below(15) as u8, below(2) as usize, below(20) as i64))
            .collect();
        let seen = run(Durability::Os, &steps);
        total.moved += seen.moved;
        total.joined += seen.joined;
        total.left += seen.left;
        total.refused += seen.refused;
    }
    for count in [total.moved, total.joined, total.left, total.refused] {
        assert!(count > 20, "{total:?}");
    }
}
