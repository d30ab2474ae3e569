//! The shard with a log, a clock and clients around it, all driven by one seed. Does what
//! the runtime does, and everything that can go wrong there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use ottla::base::{ErrorCode, Nanos, Offset, Rng, Uuid};
use ottla::coordinator::batch::{encode_batches, read_batch};
use ottla::coordinator::{
    Client, Completion, CoordinatorConfig, CoordinatorRecord, Effects, Failure, Group, GroupShard,
    Now, Reply, TimerKey, TimerQueue, Waiter,
};
use ottla::record::{Batches, set_base_offset};
use ottla::wire::messages::leave_group_request::MemberIdentity;
use ottla::wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla::wire::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use ottla::wire::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest,
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, SyncGroupResponse,
};

use crate::consumer::{Consumer, PARTITIONS, State, TOPIC, get_partitions};
use crate::counts::{Count, Counts};
use crate::model::{Model, OffsetKey};

pub const GROUPS: [&str; 4] = ["eager", "cooperative", "mixed", "simple"];
/// Read by the simple group alone, and deleted now and then.
const OTHER_TOPIC: &str = "other";
const COMMIT_TIMEOUT_MS: u64 = 5_000;

pub struct World {
    rng: Rng,
    pub now_ms: u64,
    config: Rc<CoordinatorConfig>,
    pub shard: GroupShard,
    timers: TimerQueue,
    pub model: Model,
    deferred: VecDeque<Deferred>,
    /// Parked requests, by consumer.
    pub waiters: BTreeMap<Waiter, usize>,
    next_waiter: u64,
    pub consumers: Vec<Consumer>,
    next_commit: u64,
    /// Group, life, generation, partition → who got it.
    owners: BTreeMap<(String, usize, i32, i32), String>,
    /// Group, life → newest generation that somebody synced to.
    generations: BTreeMap<(String, usize), i32>,
    /// Events until the high watermark moves again.
    stalled: u64,
    /// Unset: nothing goes wrong any more.
    pub faults: bool,
    pub counts: Counts,
}

/// What waits for the high watermark.
struct Deferred {
    upto: i64,
    deadline_ms: u64,
    completion: Option<Completion>,
    answer: Option<Answer>,
}

enum Answer {
    Heartbeat {
        consumer: usize,
        request: HeartbeatRequest,
        response: HeartbeatResponse,
    },
    Commit {
        consumer: Option<usize>,
        commits: Vec<(OffsetKey, u64)>,
        /// The log's end before the commit.
        at: i64,
        response: OffsetCommitResponse,
    },
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let config = config(8);
        let shard = GroupShard::new(config.clone(), Rng::new(rng.next_u64()));
        let mut consumers = Vec::new();
        for (group, protocols) in [
            ("eager", vec!["eager"]),
            ("cooperative", vec!["cooperative"]),
            ("mixed", vec!["cooperative", "eager"]),
        ] {
            for index in 0..4 {
                let mut protocols = protocols.clone();
                if group == "mixed" && index == 0 {
                    protocols = vec!["eager"];
                }
                consumers.push(Consumer {
                    group: group.into(),
                    name: format!("{group}{index}"),
                    instance: (index >= 2).then(|| format!("static{index}")),
                    protocols,
                    join_version: [9, 3, 8, 9][index],
                    member_id: String::new(),
                    generation: -1,
                    state: State::Dead,
                    protocol: String::new(),
                    owned: BTreeSet::new(),
                    metadata_tag: 0,
                    former: Vec::new(),
                    is_slow: false,
                });
            }
        }
        let mut world = World {
            rng,
            now_ms: 1_000_000,
            config,
            shard,
            timers: TimerQueue::new(),
            model: Model::default(),
            deferred: VecDeque::new(),
            waiters: BTreeMap::new(),
            next_waiter: 0,
            consumers,
            next_commit: 0,
            owners: BTreeMap::new(),
            generations: BTreeMap::new(),
            stalled: 0,
            faults: true,
            counts: Counts::default(),
        };
        world.load();
        world
    }

    pub fn log_bytes(&self) -> Vec<u8> {
        self.model
            .log
            .iter()
            .flat_map(|batch| batch.bytes.iter().copied())
            .collect()
    }

    // ---- events ----

    pub fn event(&mut self) {
        self.counts.hit(Count::Events);
        self.now_ms += match self.rng.below(1_000) {
            0 => 70_000,
            1..3 => 7_000,
            _ => self.rng.below(130),
        };
        self.run_timers();
        self.expire_deferred();
        match self.rng.below(100) {
            0..78 => {
                let consumer = self.rng.below(self.consumers.len() as u64) as usize;
                self.act(consumer);
            }
            78..85 => self.simple_commit(),
            85..90 => self.admin(),
            90 if self.rng.one_in(2) => self.crash(),
            _ => {}
        }
        if self.rng.one_in(150) {
            self.stalled = self.rng.below(150);
        }
        match self.rng.below(4) {
            _ if self.stalled > 0 => self.stalled -= 1,
            0 => {}
            1 => {
                let ahead = self.model.end() - self.model.committed;
                let target = self.model.committed + self.rng.below(ahead as u64 + 1) as i64;
                self.commit(target);
            }
            _ => self.commit(self.model.end()),
        }
    }

    fn act(&mut self, index: usize) {
        let consumer = &self.consumers[index];
        match consumer.state {
            State::Dead => {
                if self.rng.one_in(4) {
                    let consumer = &mut self.consumers[index];
                    // A new process knows no id.
                    consumer.forget_id();
                    consumer.owned.clear();
                    consumer.state = State::Out;
                }
            }
            State::Out => self.join(index),
            State::Joining(_) => {
                if self.rng.one_in(20) {
                    // Gives up waiting and asks again, on another connection.
                    self.counts.hit(Count::AnswerLost);
                    self.join(index);
                } else if self.rng.one_in(40) {
                    self.die(index);
                }
            }
            // Alive, but its assignor takes too long.
            State::Joined { .. } if consumer.is_slow => self.heartbeat(index),
            State::Joined { .. } => match self.rng.below(20) {
                0 => self.die(index),
                1 | 2 => {}
                3 => self.heartbeat(index),
                4 => self.member_commit(index),
                _ => self.sync(index),
            },
            State::Syncing(_) => {
                if self.rng.one_in(20) {
                    self.counts.hit(Count::AnswerLost);
                    self.consumers[index].state = State::Out;
                }
            }
            State::Stable => match self.rng.below(60) {
                0 => self.die(index),
                1 => self.leave(index),
                2 => {
                    self.counts.hit(Count::MetadataChanged);
                    self.consumers[index].metadata_tag ^= 1;
                    self.join(index);
                }
                3 => self.zombie(index),
                4..25 => self.member_commit(index),
                _ => self.heartbeat(index),
            },
        }
    }

    fn die(&mut self, index: usize) {
        self.counts.hit(Count::MemberDied);
        self.consumers[index].state = State::Dead;
    }

    pub fn join(&mut self, index: usize) {
        self.counts.hit(Count::JoinSent);
        let waiter = self.park(index);
        let consumer = &mut self.consumers[index];
        consumer.state = State::Joining(waiter);
        consumer.is_slow = self.faults && self.rng.one_in(25);
        let request = consumer.join_request();
        let version = consumer.join_version;
        let name = consumer.name.clone();
        let client = Client {
            id: &name,
            address: [127, 0, 0, 1].into(),
        };
        let mut fx = Effects::new();
        self.shard
            .on_join_group(self.now(), &client, &request, version, waiter, &mut fx)
            .expect("no client of ours sends nonsense");
        if matches!(fx.completion, Some(Completion::StaticReplacement(_))) {
            self.counts.hit(Count::StaticReplacement);
        }
        self.carry_out(fx, None);
    }

    pub fn sync(&mut self, index: usize) {
        self.counts.hit(Count::SyncSent);
        let consumer = &self.consumers[index];
        let request = consumer.sync_request(self.faults.then_some(&mut self.rng));
        let waiter = self.park(index);
        self.consumers[index].state = State::Syncing(waiter);
        let mut fx = Effects::new();
        self.shard
            .on_sync_group(self.now(), &request, 5, waiter, &mut fx);
        self.carry_out(fx, None);
    }

    fn park(&mut self, index: usize) -> Waiter {
        self.next_waiter += 1;
        let waiter = Waiter(self.next_waiter);
        self.waiters.insert(waiter, index);
        waiter
    }

    pub fn heartbeat(&mut self, index: usize) {
        self.counts.hit(Count::Heartbeat);
        let request = self.consumers[index].heartbeat_request();
        self.send_heartbeat(index, request);
    }

    fn send_heartbeat(&mut self, consumer: usize, request: HeartbeatRequest) {
        let mut fx = Effects::new();
        let result = self.shard.on_heartbeat(self.now(), &request, &mut fx);
        let response = result.unwrap_or_else(|error| HeartbeatResponse {
            error_code: error.0,
            ..HeartbeatResponse::default()
        });
        self.carry_out(
            fx,
            Some(Answer::Heartbeat {
                consumer,
                request,
                response,
            }),
        );
    }

    /// The process that had the instance id before is still there.
    fn zombie(&mut self, index: usize) {
        let consumer = &self.consumers[index];
        if let (Some(_), Some((id, generation))) = (&consumer.instance, consumer.former.last()) {
            let request = HeartbeatRequest {
                member_id: id.clone(),
                generation_id: *generation,
                ..consumer.heartbeat_request()
            };
            self.send_heartbeat(index, request);
        }
    }

    fn member_commit(&mut self, index: usize) {
        let consumer = &self.consumers[index];
        let request = OffsetCommitRequest {
            group_id: consumer.group.clone(),
            generation_id_or_member_epoch: consumer.generation,
            member_id: consumer.member_id.clone(),
            group_instance_id: consumer.instance.clone(),
            ..OffsetCommitRequest::default()
        };
        let partitions: Vec<i32> = consumer.owned.iter().copied().collect();
        if !partitions.is_empty() {
            self.send_commit(Some(index), request, TOPIC, &partitions);
        }
    }

    fn simple_commit(&mut self) {
        self.counts.hit(Count::SimpleCommit);
        let group = GROUPS[if self.rng.one_in(5) { 0 } else { 3 }];
        let topic = if self.rng.one_in(3) {
            OTHER_TOPIC
        } else {
            TOPIC
        };
        let partition = self.rng.below(PARTITIONS as u64) as i32;
        let request = OffsetCommitRequest {
            group_id: group.into(),
            retention_time_ms: if self.rng.one_in(8) { 15_000 } else { -1 },
            ..OffsetCommitRequest::default()
        };
        self.send_commit(None, request, topic, &[partition]);
    }

    fn send_commit(
        &mut self,
        consumer: Option<usize>,
        mut request: OffsetCommitRequest,
        topic: &str,
        partitions: &[i32],
    ) {
        self.counts.hit(Count::CommitSent);
        let mut commits = Vec::new();
        let mut entries = Vec::new();
        for &partition in partitions {
            self.next_commit += 1;
            commits.push((
                (request.group_id.clone(), topic.to_owned(), partition),
                self.next_commit,
            ));
            entries.push(OffsetCommitRequestPartition {
                partition_index: partition,
                committed_offset: self.rng.below(1_000) as i64,
                committed_metadata: Some(self.next_commit.to_string()),
                ..OffsetCommitRequestPartition::default()
            });
        }
        request.topics = vec![OffsetCommitRequestTopic {
            name: topic.to_owned(),
            partitions: entries,
            ..OffsetCommitRequestTopic::default()
        }];
        let mut fx = Effects::new();
        match self
            .shard
            .on_offset_commit(self.now(), &request, 9, &mut fx)
        {
            Ok(response) => self.carry_out(
                fx,
                Some(Answer::Commit {
                    consumer,
                    commits,
                    at: self.model.end(),
                    response,
                }),
            ),
            Err(error) => {
                assert!(fx.records.is_empty());
                self.counts.hit(Count::CommitRefused);
                self.carry_out(fx, None);
                if let Some(index) = consumer {
                    self.consumers[index].on_error(error);
                }
            }
        }
    }

    fn leave(&mut self, index: usize) {
        let consumer = &mut self.consumers[index];
        let by_instance = consumer.instance.is_some() && self.rng.one_in(2);
        let identity = MemberIdentity {
            member_id: if by_instance {
                String::new()
            } else {
                consumer.member_id.clone()
            },
            group_instance_id: consumer.instance.clone(),
            ..MemberIdentity::default()
        };
        let request = LeaveGroupRequest {
            group_id: consumer.group.clone(),
            members: vec![identity],
            ..LeaveGroupRequest::default()
        };
        consumer.state = State::Dead;
        self.counts.hit(if by_instance {
            Count::LeaveByInstance
        } else {
            Count::Leave
        });
        let mut fx = Effects::new();
        self.shard
            .on_leave_group(self.now(), &request, 5, &mut fx)
            .expect("a group id was given");
        self.carry_out(fx, None);
    }

    fn admin(&mut self) {
        let group = GROUPS[self.rng.below(4) as usize].to_owned();
        let mut fx = Effects::new();
        match self.rng.below(8) {
            0 => {
                let results = self.shard.on_delete_groups(&[group], &mut fx);
                if results[0].error_code == 0 {
                    self.counts.hit(Count::GroupDeleted);
                }
            }
            1 => {
                let topic = if self.rng.one_in(2) {
                    TOPIC
                } else {
                    OTHER_TOPIC
                };
                let request = OffsetDeleteRequest {
                    group_id: group,
                    topics: vec![OffsetDeleteRequestTopic {
                        name: topic.into(),
                        partitions: vec![OffsetDeleteRequestPartition {
                            partition_index: self.rng.below(PARTITIONS as u64) as i32,
                        }],
                    }],
                };
                if self.shard.on_offset_delete(&request, &mut fx).is_ok() {
                    self.counts
                        .many(Count::OffsetDeleted, fx.records.len() as u64);
                }
            }
            2 => {
                self.shard
                    .on_topics_deleted(&[(Uuid::ZERO, OTHER_TOPIC.into())], &mut fx);
                if !fx.records.is_empty() {
                    self.counts.hit(Count::TopicDeleted);
                }
            }
            _ => {
                self.counts.hit(Count::Described);
                let described = self.shard.describe_groups(&[group], 6);
                assert_eq!(described.len(), 1);
                let listed = self.shard.list_groups(&ListGroupsRequest::default());
                assert_eq!(listed.len(), self.shard.groups().len());
            }
        }
        self.carry_out(fx, None);
    }

    // ---- the runtime's part ----

    fn now(&self) -> Now {
        Now {
            mono: Nanos(self.now_ms * 1_000_000),
            wall_ms: self.now_ms as i64,
        }
    }

    fn carry_out(&mut self, mut fx: Effects, answer: Option<Answer>) {
        let completion = fx.completion.take();
        let mut failure = None;
        if !fx.records.is_empty() {
            if self.faults && self.rng.one_in(60) {
                self.counts.hit(Count::AppendFailed);
                failure = Some(ErrorCode::NOT_ENOUGH_REPLICAS);
            } else {
                self.append(&fx);
            }
            if self.faults && self.rng.one_in(200) {
                self.crash();
                return;
            }
        }
        for op in fx.timers {
            self.timers.apply(op);
        }
        for (waiter, reply) in fx.replies {
            self.deliver(waiter, reply);
        }
        if let Some(error) = failure {
            self.fail(completion, answer, Failure::NotAppended(error));
            return;
        }
        self.deferred.push_back(Deferred {
            upto: self.model.end(),
            deadline_ms: self.now_ms + COMMIT_TIMEOUT_MS,
            completion,
            answer,
        });
        self.release();
    }

    fn append(&mut self, fx: &Effects) {
        let now_ms = self.now().wall_ms;
        let batches = encode_batches(
            &fx.records,
            fx.atomic,
            now_ms,
            100_000,
            self.config.compression,
        )
        .expect("small");
        let mut records = fx.records.iter();
        for batch in batches {
            let base = self.model.end();
            let mut bytes = batch.bytes.to_vec();
            set_base_offset(&mut bytes, Offset(base));
            self.model.append(bytes);
            for (index, record) in records.by_ref().take(batch.record_count).enumerate() {
                if fx.replay {
                    let at = Offset(base + index as i64);
                    self.shard
                        .replay_record(now_ms, at, ottla::base::ProducerId::NONE, record);
                }
            }
        }
    }

    /// The high watermark comes to the last batch's end at or below `target`.
    pub fn commit(&mut self, target: i64) {
        let end = self
            .model
            .log
            .iter()
            .rev()
            .map(|batch| batch.last + 1)
            .find(|end| *end <= target)
            .unwrap_or(0);
        if end > self.model.committed {
            self.model.commit(end);
            self.shard.set_committed(Offset(end));
            self.release();
        }
    }

    fn release(&mut self) {
        while let Some(front) = self.deferred.front() {
            if front.upto > self.model.committed {
                break;
            }
            let Some(deferred) = self.deferred.pop_front() else {
                break;
            };
            if let Some(answer) = deferred.answer {
                self.answer(answer);
            }
            if let Some(completion) = deferred.completion {
                let mut fx = Effects::new();
                self.shard.on_committed(self.now(), &completion, &mut fx);
                if matches!(completion, Completion::Assignment { .. }) {
                    self.counts.hit(Count::Generation);
                }
                self.carry_out(fx, None);
            }
        }
    }

    fn expire_deferred(&mut self) {
        while self
            .deferred
            .front()
            .is_some_and(|front| front.deadline_ms <= self.now_ms)
        {
            if let Some(deferred) = self.deferred.pop_front() {
                self.counts.hit(Count::CommitTimedOut);
                self.fail(
                    deferred.completion,
                    deferred.answer,
                    Failure::NotCommitted(ErrorCode::REQUEST_TIMED_OUT),
                );
            }
        }
    }

    fn fail(&mut self, completion: Option<Completion>, answer: Option<Answer>, failure: Failure) {
        // Who asked gets an error that it tries again after: nothing to do here.
        drop(answer);
        if let Some(completion) = completion {
            let mut fx = Effects::new();
            self.shard
                .on_failed(self.now(), &completion, failure, &mut fx);
            self.carry_out(fx, None);
        }
    }

    pub fn run_timers(&mut self) {
        while let Some(key) = self.timers.pop_expired(self.now().mono) {
            let mut fx = Effects::new();
            let before = self.membership(&key);
            self.shard.on_timer(self.now(), &key, &mut fx);
            let after = self.membership(&key);
            match &key {
                TimerKey::Heartbeat { .. } => {
                    self.counts.many(
                        Count::MemberEvicted,
                        u64::from(after.0 < before.0 && after.1 == before.1),
                    );
                    self.counts
                        .many(Count::PendingMemberExpired, u64::from(after.1 < before.1));
                }
                TimerKey::Sync { .. } => {
                    self.counts
                        .many(Count::SyncTimedOut, u64::from(after.0 < before.0));
                }
                TimerKey::Expiration => {
                    let groups = fx
                        .records
                        .iter()
                        .filter(|r| matches!(r, CoordinatorRecord::GroupMetadata { .. }))
                        .count();
                    self.counts.many(Count::GroupExpired, groups as u64);
                    self.counts
                        .many(Count::OffsetExpired, (fx.records.len() - groups) as u64);
                }
                TimerKey::Join { .. } => {}
            }
            self.carry_out(fx, None);
            self.shard.invariants();
        }
    }

    /// Members and pending members of the timer's group.
    fn membership(&self, key: &TimerKey) -> (usize, usize) {
        let group = match key {
            TimerKey::Join { group }
            | TimerKey::Sync { group }
            | TimerKey::Heartbeat { group, .. } => self.shard.group(group),
            TimerKey::Expiration => None,
        };
        group
            .and_then(Group::as_classic)
            .map_or((0, 0), |g| (g.members().len(), g.pending_join_count()))
    }

    /// The process dies: memory is gone, and of the log's uncommitted tail any part.
    pub fn crash(&mut self) {
        self.counts.hit(Count::CoordinatorCrash);
        let tail = self
            .model
            .log
            .iter()
            .filter(|batch| batch.first >= self.model.committed)
            .count();
        let kept = self.rng.below(tail as u64 + 1) as usize;
        if kept < tail {
            self.counts.hit(Count::TailLost);
        }
        self.model.crash(kept);
        for index in std::mem::take(&mut self.waiters).into_values() {
            let consumer = &mut self.consumers[index];
            if matches!(consumer.state, State::Joining(_) | State::Syncing(_)) {
                consumer.state = State::Out;
            }
        }
        self.deferred.clear();
        self.timers.clear();
        let size_max = if self.faults {
            3 + self.rng.below(3) as i32
        } else {
            100
        };
        self.config = config(size_max);
        self.shard = GroupShard::new(self.config.clone(), Rng::new(self.rng.next_u64()));
        self.load();
    }

    fn load(&mut self) {
        let now_ms = self.now().wall_ms;
        self.shard.set_committed(Offset(self.model.committed));
        for batch in &self.model.log {
            let view = Batches::new(&batch.bytes)
                .next()
                .expect("a batch")
                .expect("a whole one");
            read_batch(&view, |entry| self.shard.replay(now_ms, entry)).expect("a batch of ours");
        }
        let members: usize = self
            .shard
            .groups()
            .filter_map(Group::as_classic)
            .map(|group| group.members().len())
            .sum();
        if members > 0 {
            self.counts.hit(Count::GroupLoadedWithMembers);
        }
        let mut fx = Effects::new();
        self.shard.on_loaded(self.now(), &mut fx);
        self.carry_out(fx, None);
    }

    // ---- answers ----

    fn deliver(&mut self, waiter: Waiter, reply: Reply) {
        let index = self
            .waiters
            .remove(&waiter)
            .expect("an answer to a request that is parked");
        match reply {
            Reply::Join(response) => {
                if self.consumers[index].state == State::Joining(waiter) {
                    self.on_join(index, &response);
                }
            }
            Reply::Sync(response) => {
                if self.consumers[index].state == State::Syncing(waiter) {
                    self.on_sync(index, &response);
                }
            }
        }
    }

    fn on_join(&mut self, index: usize, response: &JoinGroupResponse) {
        match ErrorCode(response.error_code) {
            ErrorCode::NONE => self.counts.hit(Count::JoinAnswered),
            ErrorCode::MEMBER_ID_REQUIRED => self.counts.hit(Count::MemberIdGiven),
            ErrorCode::GROUP_MAX_SIZE_REACHED => self.counts.hit(Count::GroupFull),
            _ => {}
        }
        if self.faults && self.rng.one_in(60) {
            self.counts.hit(Count::AnswerLost);
            self.consumers[index].state = State::Out;
            return;
        }
        self.consumers[index].on_join(response);
    }

    fn on_sync(&mut self, index: usize, response: &SyncGroupResponse) {
        let consumer = &self.consumers[index];
        if response.error_code == 0 {
            self.counts.hit(Count::SyncAnswered);
            let life = self.model.life(&consumer.group);
            let newest = self
                .generations
                .entry((consumer.group.clone(), life))
                .or_insert(0);
            assert!(
                consumer.generation >= *newest,
                "{}: generation fell from {newest} to {}",
                consumer.group,
                consumer.generation
            );
            *newest = consumer.generation;
            let owner = consumer
                .instance
                .clone()
                .unwrap_or_else(|| consumer.member_id.clone());
            for partition in get_partitions(&response.assignment) {
                let key = (consumer.group.clone(), life, consumer.generation, partition);
                let first = self
                    .owners
                    .entry(key.clone())
                    .or_insert_with(|| owner.clone());
                assert_eq!(*first, owner, "two owners of {key:?}");
            }
        }
        if self.consumers[index].on_sync(response) {
            self.counts.hit(Count::CooperativeRevocation);
        }
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Heartbeat {
                consumer,
                request,
                response,
            } => {
                let error = ErrorCode(response.error_code);
                if !error.is_ok() {
                    self.counts.hit(Count::HeartbeatRefused);
                }
                let consumer = &mut self.consumers[consumer];
                if error == ErrorCode::FENCED_INSTANCE_ID {
                    self.counts.hit(Count::ZombieFenced);
                }
                let is_current = consumer.member_id == request.member_id
                    && matches!(consumer.state, State::Stable | State::Joined { .. });
                if is_current {
                    consumer.on_error(error);
                }
            }
            Answer::Commit {
                consumer,
                commits,
                at,
                response,
            } => {
                let codes = response.topics.iter().flat_map(|topic| &topic.partitions);
                for ((key, number), result) in commits.iter().zip(codes) {
                    assert_eq!(result.partition_index, key.2);
                    assert_eq!(result.error_code, 0);
                    self.model.acknowledge(key, *number, at);
                }
                if consumer.is_some() {
                    self.counts.hit(Count::CommitAcknowledged);
                }
            }
        }
    }
}

fn config(group_size_max: i32) -> Rc<CoordinatorConfig> {
    Rc::new(CoordinatorConfig {
        initial_rebalance_delay_ms: 1_000,
        new_member_join_timeout_ms: 20_000,
        offsets_retention_ms: 60_000,
        offsets_retention_check_interval_ms: 10_000,
        group_size_max,
        ..CoordinatorConfig::default()
    })
}
