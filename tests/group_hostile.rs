//! Group coordinator, requests that no client would send: every field drawn from a few
//! values, sensible and not, so that they meet in every combination; timers in any order;
//! completions early, late and failed; records of any content to load. Nothing may panic,
//! the shard stays consistent, each parked request is answered at most once, and what
//! was written can be loaded.
//!
//! `GROUP_HOSTILE_SEEDS=1000` widens it.

use std::collections::BTreeSet;
use std::rc::Rc;

use bytes::Bytes;
use ottla::base::{ErrorCode, Nanos, Offset, ProducerId, Rng, Uuid};
use ottla::coordinator::batch::encode_batches;
use ottla::coordinator::{
    Client, Completion, CoordinatorConfig, CoordinatorRecord, Effects, Failure, Group, GroupShard,
    Now, TimerQueue, Waiter,
};
use ottla::wire::messages::group_metadata_value::MemberMetadata;
use ottla::wire::messages::join_group_request::JoinGroupRequestProtocol;
use ottla::wire::messages::leave_group_request::MemberIdentity;
use ottla::wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla::wire::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use ottla::wire::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use ottla::wire::messages::sync_group_request::SyncGroupRequestAssignment;
use ottla::wire::messages::{
    GroupMetadataValue, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest,
    OffsetCommitRequest, OffsetCommitValue, OffsetDeleteRequest, SyncGroupRequest,
};

struct World {
    rng: Rng,
    now_ms: u64,
    shard: GroupShard,
    timers: TimerQueue,
    config: Rc<CoordinatorConfig>,
    records: Vec<CoordinatorRecord>,
    completions: Vec<Completion>,
    parked: BTreeSet<Waiter>,
    next_waiter: u64,
    /// Ids that were given out.
    ids: Vec<String>,
    generation: i32,
    /// States of groups and kinds of completions that came up.
    seen: BTreeSet<String>,
}

impl World {
    fn new(seed: u64) -> World {
        let config = Rc::new(CoordinatorConfig {
            session_timeout_ms_min: i32::MIN,
            session_timeout_ms_max: i32::MAX,
            group_size_max: 4,
            initial_rebalance_delay_ms: 50,
            offsets_retention_ms: 500,
            offsets_retention_check_interval_ms: 200,
            offset_metadata_max: 3,
            ..CoordinatorConfig::default()
        });
        World {
            shard: GroupShard::new(config.clone(), Rng::new(seed)),
            rng: Rng::new(seed),
            now_ms: 1_000,
            timers: TimerQueue::new(),
            config,
            records: Vec::new(),
            completions: Vec::new(),
            parked: BTreeSet::new(),
            next_waiter: 0,
            ids: Vec::new(),
            generation: 0,
            seen: BTreeSet::new(),
        }
    }

    fn pick<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.rng.below(values.len() as u64) as usize].clone()
    }

    fn now(&self) -> Now {
        Now {
            mono: Nanos(self.now_ms * 1_000_000),
            wall_ms: self.now_ms as i64,
        }
    }

    fn group(&mut self) -> String {
        self.pick(&["", "g", "g", "g", "g", "g", "g", "h"]).into()
    }

    fn member(&mut self) -> String {
        if self.ids.is_empty() || self.rng.one_in(4) {
            return self.pick(&["", "", "nobody"]).into();
        }
        let newest = self.ids.len().saturating_sub(8);
        let ids = self.ids[newest..].to_vec();
        self.pick(&ids)
    }

    fn instance(&mut self) -> Option<String> {
        self.pick(&[None, None, Some(""), Some("i"), Some("j")])
            .map(str::to_owned)
    }

    fn generation(&mut self) -> i32 {
        let near = [self.generation, self.generation, self.generation - 1];
        if self.rng.one_in(5) {
            self.pick(&[-1, 0, 1, i32::MIN, i32::MAX])
        } else {
            self.pick(&near)
        }
    }

    fn timeout(&mut self) -> i32 {
        if self.rng.one_in(6) {
            self.pick(&[0, -1, 1, 100, i32::MIN, i32::MAX])
        } else {
            3_000
        }
    }

    fn event(&mut self) {
        self.now_ms += self.rng.below(60);
        let now = self.now();
        let mut fx = Effects::new();
        match self.rng.below(14) {
            0..3 => self.join(now, &mut fx),
            3..6 => self.sync(now, &mut fx),
            6 => {
                let request = HeartbeatRequest {
                    group_id: self.group(),
                    generation_id: self.generation(),
                    member_id: self.member(),
                    group_instance_id: self.instance(),
                };
                let _ = self.shard.on_heartbeat(now, &request, &mut fx);
            }
            7 => self.leave(now, &mut fx),
            8 => self.commit(now, &mut fx),
            9 => self.look(&mut fx),
            10 | 11 => {
                let skip = self.rng.below(200);
                if let Some(key) = self
                    .timers
                    .pop_expired(Nanos((self.now_ms + skip) * 1_000_000))
                {
                    self.shard.on_timer(now, &key, &mut fx);
                }
            }
            _ => {
                if !self.completions.is_empty() {
                    let index = self.rng.below(self.completions.len() as u64) as usize;
                    let completion = self.completions.remove(index);
                    if self.rng.one_in(3) {
                        let failure = Failure::NotCommitted(ErrorCode::REQUEST_TIMED_OUT);
                        self.shard.on_failed(now, &completion, failure, &mut fx);
                    } else {
                        self.shard.on_committed(now, &completion, &mut fx);
                    }
                }
            }
        }
        self.carry_out(fx);
        self.check();
    }

    fn join(&mut self, now: Now, fx: &mut Effects) {
        let protocols = (0..self.rng.below(4))
            .map(|_| JoinGroupRequestProtocol {
                name: self.pick(&["", "x", "x", "x", "x", "y", "z"]).into(),
                metadata: self.pick(&[
                    Bytes::new(),
                    Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t"),
                    Bytes::from_static(b"\0\0\x7f\xff\xff\xff"),
                ]),
            })
            .collect();
        let request = JoinGroupRequest {
            group_id: self.group(),
            session_timeout_ms: self.timeout(),
            rebalance_timeout_ms: self.timeout(),
            member_id: self.member(),
            group_instance_id: self.instance(),
            protocol_type: self
                .pick(&["consumer", "consumer", "consumer", "", "p"])
                .into(),
            protocols,
            reason: None,
        };
        let version = self.rng.below(10) as i16;
        let waiter = self.park();
        let client = Client {
            id: "c",
            address: [127, 0, 0, 1].into(),
        };
        let step = self
            .shard
            .on_join_group(now, &client, &request, version, waiter, fx);
        if step.is_err() {
            assert!(fx.records.is_empty() && fx.replies.is_empty());
            self.parked.remove(&waiter);
        }
    }

    fn sync(&mut self, now: Now, fx: &mut Effects) {
        let mut request = SyncGroupRequest {
            group_id: self.group(),
            generation_id: self.generation(),
            member_id: self.member(),
            group_instance_id: self.instance(),
            protocol_type: self.pick(&[None, Some("consumer".into()), Some("p".into())]),
            protocol_name: self.pick(&[None, Some("x".into()), Some("y".into())]),
            assignments: (0..self.rng.below(4))
                .map(|_| SyncGroupRequestAssignment {
                    member_id: self.member(),
                    assignment: Bytes::from_static(b"a"),
                })
                .collect(),
        };
        let version = self.rng.below(6) as i16;
        if !self.rng.one_in(3)
            && let Some(group) = self.shard.group("g").and_then(Group::as_classic)
        {
            // A sync that may pass.
            request.group_id = "g".into();
            request.generation_id = group.generation();
            request.member_id = group.leader().unwrap_or_default().into();
            request.group_instance_id = None;
            request.protocol_type = Some("consumer".into());
            request.protocol_name = group.protocol_name().map(str::to_owned);
        }
        let waiter = self.park();
        self.shard.on_sync_group(now, &request, version, waiter, fx);
    }

    fn leave(&mut self, now: Now, fx: &mut Effects) {
        let request = LeaveGroupRequest {
            group_id: self.group(),
            member_id: self.member(),
            members: (0..self.rng.below(3))
                .map(|_| MemberIdentity {
                    member_id: self.member(),
                    group_instance_id: self.instance(),
                    reason: None,
                })
                .collect(),
        };
        let version = self.rng.below(6) as i16;
        let _ = self.shard.on_leave_group(now, &request, version, fx);
    }

    fn commit(&mut self, now: Now, fx: &mut Effects) {
        let request = OffsetCommitRequest {
            group_id: self.group(),
            generation_id_or_member_epoch: self.generation(),
            member_id: self.member(),
            group_instance_id: self.instance(),
            retention_time_ms: self.pick(&[-1, -1, 0, i64::MIN, i64::MAX]),
            topics: (0..self.rng.below(3))
                .map(|_| OffsetCommitRequestTopic {
                    name: self.pick(&["", "t", "u"]).into(),
                    topic_id: self.pick(&[Uuid::ZERO, Uuid([1; 16])]),
                    partitions: (0..self.rng.below(3))
                        .map(|_| OffsetCommitRequestPartition {
                            partition_index: self.pick(&[0, 1, -1, i32::MAX]),
                            committed_offset: self.pick(&[0, 5, i64::MIN, i64::MAX]),
                            committed_leader_epoch: self.pick(&[-1, 0, i32::MIN]),
                            committed_metadata: self.pick(&[
                                None,
                                Some("m".into()),
                                Some("long".into()),
                            ]),
                        })
                        .collect(),
                })
                .collect(),
        };
        let version = self.rng.below(11) as i16;
        if self
            .shard
            .on_offset_commit(now, &request, version, fx)
            .is_err()
        {
            assert!(fx.records.is_empty());
        }
    }

    fn look(&mut self, fx: &mut Effects) {
        let groups = vec![self.group(), self.group()];
        match self.rng.below(6) {
            0 => drop(self.shard.on_delete_groups(&groups[..1], fx)),
            1 => {
                let request = OffsetDeleteRequest {
                    group_id: self.group(),
                    topics: vec![OffsetDeleteRequestTopic {
                        name: self.pick(&["", "t"]).into(),
                        partitions: vec![OffsetDeleteRequestPartition {
                            partition_index: self.pick(&[0, -1]),
                        }],
                    }],
                };
                let _ = self.shard.on_offset_delete(&request, fx);
            }
            2 => self
                .shard
                .on_topics_deleted(&[(Uuid([1; 16]), "t".into())], fx),
            3 => drop(self.shard.describe_groups(&groups, 6)),
            4 => {
                let request = ListGroupsRequest {
                    states_filter: vec![self.pick(&["stable", ""]).into()],
                    types_filter: vec![],
                };
                drop(self.shard.list_groups(&request));
            }
            _ => {
                let request = OffsetFetchRequestGroup {
                    group_id: self.group(),
                    topics: self.pick(&[
                        None,
                        Some(vec![OffsetFetchRequestTopics {
                            name: "t".into(),
                            topic_id: Uuid([2; 16]),
                            partition_indexes: vec![0, 0, -1],
                        }]),
                    ]),
                    ..OffsetFetchRequestGroup::default()
                };
                let stable = self.rng.one_in(2);
                drop(self.shard.fetch_offsets(&request, stable));
            }
        }
    }

    fn park(&mut self) -> Waiter {
        self.next_waiter += 1;
        let waiter = Waiter(self.next_waiter);
        self.parked.insert(waiter);
        waiter
    }

    fn carry_out(&mut self, mut fx: Effects) {
        let completion = fx.completion.take();
        let appended = fx.records.is_empty() || !self.rng.one_in(20);
        if appended {
            encode_batches(
                &fx.records,
                fx.atomic,
                self.now().wall_ms,
                1 << 20,
                self.config.compression,
            )
            .expect("small");
            for record in &fx.records {
                let at = Offset(self.records.len() as i64);
                self.records.push(record.clone());
                if fx.replay {
                    let now_ms = self.now().wall_ms;
                    self.shard
                        .replay_record(now_ms, at, ProducerId::NONE, record);
                }
            }
        }
        for op in fx.timers {
            self.timers.apply(op);
        }
        for (waiter, reply) in fx.replies {
            assert!(self.parked.remove(&waiter), "answered but not parked");
            if let ottla::coordinator::Reply::Join(response) = reply {
                if !response.member_id.is_empty() {
                    self.ids.push(response.member_id);
                }
                if response.generation_id >= 0 {
                    self.generation = response.generation_id;
                }
            }
        }
        match completion {
            Some(completion) if !appended => {
                let mut fx = Effects::new();
                let failure = Failure::NotAppended(ErrorCode::NOT_ENOUGH_REPLICAS);
                self.shard
                    .on_failed(self.now(), &completion, failure, &mut fx);
                self.carry_out(fx);
            }
            Some(completion) => {
                let kind = format!("{completion:?}");
                let end = kind.find([' ', '(']).unwrap_or(kind.len());
                self.seen.insert(kind[..end].to_owned());
                self.completions.push(completion);
            }
            None => {}
        }
        let committed = Offset(self.rng.below(self.records.len() as u64 + 1) as i64);
        self.shard.set_committed(committed);
    }

    fn check(&mut self) {
        self.shard.invariants();
        for group in self.shard.groups().filter_map(Group::as_classic) {
            self.seen.insert(group.state().name().to_owned());
        }
        let waiting: usize = self
            .shard
            .groups()
            .filter_map(Group::as_classic)
            .flat_map(|group| group.members())
            .map(|m| usize::from(m.is_awaiting_join()) + usize::from(m.is_awaiting_sync()))
            .sum();
        assert_eq!(waiting, self.parked.len(), "parked requests");
    }

    /// What was written loads, and everything parked is answered at the end. Returns what
    /// came up.
    fn finish(mut self) -> BTreeSet<String> {
        let mut loaded = GroupShard::new(self.config.clone(), Rng::new(0));
        for (at, record) in self.records.iter().enumerate() {
            loaded.replay_record(0, Offset(at as i64), ProducerId::NONE, record);
            loaded.invariants();
        }
        loaded.on_loaded(self.now(), &mut Effects::new());
        loaded.invariants();
        let mut fx = Effects::new();
        self.shard.on_unloaded(&mut fx);
        for (waiter, _) in fx.replies {
            assert!(self.parked.remove(&waiter));
        }
        assert!(self.parked.is_empty(), "never answered: {:?}", self.parked);
        self.seen
    }
}

fn seeds() -> u64 {
    std::env::var("GROUP_HOSTILE_SEEDS")
        .map(|text| text.parse().expect("a number"))
        .unwrap_or(40)
}

#[test]
fn requests_of_any_content_leave_a_consistent_shard() {
    let mut seen = BTreeSet::new();
    for seed in 0..seeds() {
        println!("seed {seed}");
        let mut world = World::new(seed);
        world.timers.set(
            ottla::coordinator::TimerKey::Expiration,
            Nanos(1_000_000_000),
        );
        for _ in 0..2_000 {
            world.event();
        }
        seen.append(&mut world.finish());
    }
    let all = [
        "Assignment",
        "CompletingRebalance",
        "Empty",
        "EmptyGeneration",
        "NewGroup",
        "PreparingRebalance",
        "Stable",
        "StaticReplacement",
    ];
    assert!(seen.iter().eq(all.iter()), "came up: {seen:?}");
}

#[test]
fn records_of_any_content_load() {
    for seed in 0..seeds() * 5 {
        let mut rng = Rng::new(seed);
        let config = Rc::new(CoordinatorConfig {
            group_size_max: 2,
            ..CoordinatorConfig::default()
        });
        let mut shard = GroupShard::new(config, Rng::new(seed));
        let pick = |values: &[Option<&str>], rng: &mut Rng| {
            values[rng.below(values.len() as u64) as usize].map(str::to_owned)
        };
        for at in 0..50 {
            let record = if rng.one_in(2) {
                CoordinatorRecord::OffsetCommit {
                    group: "g".into(),
                    topic: "t".into(),
                    partition: rng.below(3) as i32 - 1,
                    value: (!rng.one_in(3)).then(OffsetCommitValue::default),
                }
            } else {
                let members = (0..rng.below(4))
                    .map(|_| MemberMetadata {
                        member_id: pick(&[Some(""), Some("a"), Some("b")], &mut rng)
                            .unwrap_or_default(),
                        group_instance_id: pick(&[None, Some(""), Some("i")], &mut rng),
                        session_timeout: -1,
                        ..MemberMetadata::default()
                    })
                    .collect();
                CoordinatorRecord::GroupMetadata {
                    group: "g".into(),
                    value: (!rng.one_in(4)).then(|| GroupMetadataValue {
                        protocol_type: "consumer".into(),
                        generation: i32::MAX,
                        protocol: pick(&[None, Some(""), Some("x")], &mut rng),
                        leader: pick(&[None, Some("a"), Some("nobody")], &mut rng),
                        current_state_timestamp: -1,
                        members,
                    }),
                }
            };
            let producer = ProducerId(if rng.one_in(4) { 5 } else { -1 });
            shard.replay_record(0, Offset(at), producer, &record);
        }
        let mut fx = Effects::new();
        shard.on_loaded(Now::default(), &mut fx);
        for group in shard.groups() {
            group.invariants();
        }
        shard.offsets().invariants();
    }
}
