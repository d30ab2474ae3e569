//! The group coordinator's runtime on a log in memory, in the simulation: what is answered
//! when, while the high watermark, the log and the coordinator's life do as they please.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ottla::base::{ErrorCode, Offset, PartitionIndex};
use ottla::coordinator::runtime::{
    AppendedAt, CoordinatorLog, CoordinatorState, GroupCoordinator, LocalFuture,
};
use ottla::coordinator::{Client, CoordinatorConfig};
use ottla::io::local::{Notify, oneshot, or_deadline};
use ottla::io::{Queue, Rt};
use ottla::record::{BatchView, Batches, set_base_offset};
use ottla::sim;
use ottla::wire::messages::describe_groups_response::DescribedGroup;
use ottla::wire::messages::join_group_request::JoinGroupRequestProtocol;
use ottla::wire::messages::leave_group_request::MemberIdentity;
use ottla::wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla::wire::messages::offset_fetch_request::OffsetFetchRequestGroup;
use ottla::wire::messages::sync_group_request::SyncGroupRequestAssignment;
use ottla::wire::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest,
    OffsetCommitRequest, SyncGroupRequest,
};

/// A partition's log without a disk. Unless told to, it commits at once.
#[derive(Default)]
struct MemoryLog {
    batches: RefCell<Vec<Vec<u8>>>,
    end: Cell<i64>,
    committed: Cell<i64>,
    changed: Notify,
    commits_by_hand: Cell<bool>,
    append_error: Cell<Option<ErrorCode>>,
    lost: Cell<bool>,
    /// How many batches a read gives.
    batches_per_read: Cell<usize>,
}

impl MemoryLog {
    fn new() -> Rc<MemoryLog> {
        let log = MemoryLog::default();
        log.batches_per_read.set(2);
        Rc::new(log)
    }

    fn commit(&self, end: i64) {
        self.committed.set(end);
        self.changed.notify_all();
    }

    fn commit_all(&self) {
        self.commit(self.end.get());
    }

    /// What is not committed is gone, as after a crash.
    fn lose_tail(&self) {
        self.batches.borrow_mut().retain(|bytes| {
            BatchView::parse(bytes).is_ok_and(|batch| batch.last_offset() < self.committed())
        });
        self.end.set(self.committed.get());
    }

    fn lose_leadership(&self) {
        self.lost.set(true);
        self.changed.notify_all();
    }
}

impl CoordinatorLog for MemoryLog {
    fn append(&self, batch: Bytes) -> Result<AppendedAt, ErrorCode> {
        if let Some(error) = self.append_error.get() {
            return Err(error);
        }
        let mut bytes = batch.to_vec();
        let first = Offset(self.end.get());
        set_base_offset(&mut bytes, first);
        let view = BatchView::parse(&bytes).expect("a whole batch");
        assert!(view.verify_crc());
        let last = view.last_offset();
        self.end.set(last.0 + 1);
        self.batches.borrow_mut().push(bytes);
        if !self.commits_by_hand.get() {
            self.commit_all();
        }
        Ok(AppendedAt { first, last })
    }

    fn committed(&self) -> Offset {
        Offset(self.committed.get())
    }

    fn await_committed(&self, upto: Offset) -> LocalFuture<'_, Result<Offset, ErrorCode>> {
        Box::pin(async move {
            loop {
                if self.lost.get() {
                    return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
                }
                if self.committed() >= upto {
                    return Ok(self.committed());
                }
                self.changed.notified().await;
            }
        })
    }

    fn log_start_offset(&self) -> Offset {
        Offset(0)
    }

    fn log_end_offset(&self) -> Offset {
        Offset(self.end.get())
    }

    fn read(&self, from: Offset, _: usize) -> LocalFuture<'_, Result<Bytes, ErrorCode>> {
        let batches = self.batches.borrow();
        let first = batches.partition_point(|bytes| {
            BatchView::parse(bytes).is_ok_and(|batch| batch.next_offset() <= from)
        });
        let bytes: Vec<u8> = batches[first..]
            .iter()
            .take(self.batches_per_read.get())
            .flatten()
            .copied()
            .collect();
        Box::pin(async move { Ok(bytes.into()) })
    }

    fn max_message_bytes(&self) -> usize {
        4_096
    }
}

fn run<F: Future<Output = ()> + 'static>(scenario: impl FnOnce(Rt) -> F) {
    run_seed(1, scenario);
}

fn run_seed<F: Future<Output = ()> + 'static>(seed: u64, scenario: impl FnOnce(Rt) -> F) {
    sim::run(seed, |sim| {
        let node = sim.add_node(1);
        let rt = sim.boot(node).remove(0);
        sim.block_on(
            &rt,
            Duration::from_secs(30 * 24 * 3_600),
            scenario(rt.clone()),
        );
    });
}

async fn start(rt: &Rt, log: &Rc<MemoryLog>) -> GroupCoordinator {
    let coordinator = GroupCoordinator::start(
        rt.clone(),
        PartitionIndex(0),
        log.clone(),
        Rc::new(CoordinatorConfig::default()),
    );
    assert_eq!(coordinator.loaded().await, CoordinatorState::Active);
    coordinator
}

/// Runs a request as a task of its own.
fn go<T: 'static>(rt: &Rt, request: impl Future<Output = T> + 'static) -> oneshot::Receiver<T> {
    let (sender, receiver) = oneshot();
    rt.spawn(Queue::Request, async move {
        let _ = sender.send(request.await);
    });
    receiver
}

fn join(
    rt: &Rt,
    coordinator: &GroupCoordinator,
    member_id: &str,
    instance: Option<&str>,
) -> oneshot::Receiver<JoinGroupResponse> {
    let request = JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 20_000,
        member_id: member_id.into(),
        group_instance_id: instance.map(str::to_owned),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t"),
        }],
        ..JoinGroupRequest::default()
    };
    let coordinator = coordinator.clone();
    go(rt, async move {
        let client = Client {
            id: "client",
            address: [127, 0, 0, 1].into(),
        };
        coordinator.join_group(&client, request, 9).await
    })
}

fn sync_request(joined: &JoinGroupResponse) -> SyncGroupRequest {
    SyncGroupRequest {
        group_id: "g".into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: joined
            .members
            .iter()
            .map(|member| SyncGroupRequestAssignment {
                member_id: member.member_id.clone(),
                assignment: format!("for {}", member.member_id).into(),
            })
            .collect(),
        ..SyncGroupRequest::default()
    }
}

fn heartbeat_request(joined: &JoinGroupResponse) -> HeartbeatRequest {
    HeartbeatRequest {
        group_id: "g".into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        ..HeartbeatRequest::default()
    }
}

fn commit_request(offset: i64) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: "simple".into(),
        topics: vec![OffsetCommitRequestTopic {
            name: "t".into(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: offset,
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    }
}

async fn commit(coordinator: &GroupCoordinator, offset: i64) -> i16 {
    let response = coordinator.commit_offsets(commit_request(offset), 9).await;
    response.topics[0].partitions[0].error_code
}

async fn fetch(coordinator: &GroupCoordinator, stable: bool) -> i64 {
    let request = OffsetFetchRequestGroup {
        group_id: "simple".into(),
        topics: None,
        ..OffsetFetchRequestGroup::default()
    };
    let response = coordinator.fetch_offsets(request, stable, 9).await;
    assert_eq!(response.error_code, 0);
    response
        .topics
        .first()
        .map_or(-1, |topic| topic.partitions[0].committed_offset)
}

/// Joins with a fresh id and syncs, as the only member.
async fn join_alone(rt: &Rt, coordinator: &GroupCoordinator) -> JoinGroupResponse {
    let first = join(rt, coordinator, "", None).await.unwrap();
    assert_eq!(first.error_code, ErrorCode::MEMBER_ID_REQUIRED.0);
    assert!(first.member_id.starts_with("client-"));
    let joined = join(rt, coordinator, &first.member_id, None).await.unwrap();
    assert_eq!(joined.error_code, 0);
    let synced = coordinator.sync_group(sync_request(&joined), 5).await;
    assert_eq!(synced.error_code, 0);
    assert_eq!(synced.assignment, format!("for {}", joined.member_id));
    joined
}

#[test]
fn a_member_joins_syncs_lives_and_leaves() {
    run(|rt| async move {
        let log = MemoryLog::new();
        let coordinator = start(&rt, &log).await;
        let before = rt.now();
        let joined = join_alone(&rt, &coordinator).await;
        let delay = rt.now().saturating_since(before);
        assert!(delay >= Duration::from_secs(3) && delay < Duration::from_secs(4));
        for _ in 0..10 {
            rt.sleep(Duration::from_secs(5)).await;
            let heartbeat = coordinator.heartbeat(heartbeat_request(&joined)).await;
            assert_eq!(heartbeat.error_code, 0);
        }
        let leave = LeaveGroupRequest {
            group_id: "g".into(),
            members: vec![MemberIdentity {
                member_id: joined.member_id.clone(),
                ..MemberIdentity::default()
            }],
            ..LeaveGroupRequest::default()
        };
        let left = coordinator.leave_group(leave, 5).await;
        assert_eq!(left.members[0].error_code, 0);
        let described = coordinator.describe_groups(&["g".into()], 6).await;
        assert_eq!(described[0].group_state, "Empty");
    });
}

#[test]
fn a_silent_member_is_removed() {
    run(|rt| async move {
        let coordinator = start(&rt, &MemoryLog::new()).await;
        let joined = join_alone(&rt, &coordinator).await;
        rt.sleep(Duration::from_secs(11)).await;
        let heartbeat = coordinator.heartbeat(heartbeat_request(&joined)).await;
        assert_eq!(heartbeat.error_code, ErrorCode::UNKNOWN_MEMBER_ID.0);
        let listed = coordinator.list_groups(&ListGroupsRequest::default()).await;
        assert_eq!(listed.groups[0].group_state, "Empty");
    });
}

#[test]
fn commits_are_answered_and_read_once_committed() {
    run(|rt| async move {
        let log = MemoryLog::new();
        let coordinator = start(&rt, &log).await;
        assert_eq!(commit(&coordinator, 1).await, 0);
        log.commits_by_hand.set(true);
        let second = {
            let coordinator = coordinator.clone();
            go(&rt, async move { commit(&coordinator, 2).await })
        };
        rt.sleep(Duration::from_secs(1)).await;
        assert_eq!(fetch(&coordinator, false).await, 1);
        let stable = {
            let coordinator = coordinator.clone();
            go(&rt, async move { fetch(&coordinator, true).await })
        };
        // A heartbeat, too, says nothing before what was written is safe.
        let heartbeat = {
            let coordinator = coordinator.clone();
            go(&rt, async move {
                coordinator
                    .heartbeat(HeartbeatRequest {
                        group_id: "simple".into(),
                        ..HeartbeatRequest::default()
                    })
                    .await
                    .error_code
            })
        };
        rt.sleep(Duration::from_secs(1)).await;
        log.commit_all();
        assert_eq!(second.await, Ok(0));
        assert_eq!(stable.await, Ok(2));
        assert_eq!(heartbeat.await, Ok(ErrorCode::UNKNOWN_MEMBER_ID.0));
        assert_eq!(fetch(&coordinator, false).await, 2);
    });
}

#[test]
fn a_commit_that_stays_uncommitted_times_out_and_may_count_later() {
    run(|rt| async move {
        let log = MemoryLog::new();
        log.commits_by_hand.set(true);
        let coordinator = start(&rt, &log).await;
        let before = rt.now();
        assert_eq!(
            commit(&coordinator, 1).await,
            ErrorCode::COORDINATOR_NOT_AVAILABLE.0
        );
        let waited = rt.now().saturating_since(before);
        assert!(waited >= Duration::from_secs(5) && waited < Duration::from_secs(6));
        assert_eq!(fetch(&coordinator, false).await, -1);
        log.commit_all();
        assert_eq!(fetch(&coordinator, false).await, 1);
    });
}

#[test]
fn errors_of_the_log_are_told_as_a_coordinators() {
    run(|rt| async move {
        let log = MemoryLog::new();
        let coordinator = start(&rt, &log).await;
        for (from, to) in [
            (
                ErrorCode::NOT_LEADER_OR_FOLLOWER,
                ErrorCode::NOT_COORDINATOR,
            ),
            (ErrorCode::KAFKA_STORAGE_ERROR, ErrorCode::NOT_COORDINATOR),
            (
                ErrorCode::NOT_ENOUGH_REPLICAS,
                ErrorCode::COORDINATOR_NOT_AVAILABLE,
            ),
        ] {
            log.append_error.set(Some(from));
            assert_eq!(commit(&coordinator, 1).await, to.0);
            let joined = join(&rt, &coordinator, "", Some("i")).await;
            // The group's first record failed: the member is told, the group forgotten.
            assert_eq!(joined.unwrap().error_code, to.0);
            let described = coordinator.describe_groups(&["g".into()], 6).await;
            assert_eq!(described[0].error_code, ErrorCode::GROUP_ID_NOT_FOUND.0);
        }
        log.append_error.set(None);
        let long = "m".repeat(4_000);
        let mut request = commit_request(1);
        request.topics[0].partitions[0].committed_metadata = Some(long);
        let twice = request.topics[0].partitions[0].clone();
        request.topics[0].partitions.push(twice);
        let response = coordinator.commit_offsets(request, 9).await;
        assert_eq!(
            response.topics[0].partitions[0].error_code,
            ErrorCode::UNKNOWN_SERVER_ERROR.0
        );
        assert_eq!(log.end.get(), 0);
    });
}

#[test]
fn an_assignment_waits_for_its_commit() {
    run(|rt| async move {
        let log = MemoryLog::new();
        let coordinator = start(&rt, &log).await;
        let joined = join(&rt, &coordinator, "", Some("i")).await.unwrap();
        log.commits_by_hand.set(true);
        let synced = {
            let coordinator = coordinator.clone();
            let request = sync_request(&joined);
            go(&rt, async move { coordinator.sync_group(request, 5).await })
        };
        rt.sleep(Duration::from_secs(1)).await;
        let described = coordinator.describe_groups(&["g".into()], 6).await;
        assert_eq!(described[0].group_state, "CompletingRebalance");
        log.commit_all();
        assert_eq!(synced.await.unwrap().error_code, 0);
        let described = coordinator.describe_groups(&["g".into()], 6).await;
        assert_eq!(described[0].group_state, "Stable");

        // A static member's new id is told once it is committed.
        let replaced = join(&rt, &coordinator, "", Some("i"));
        rt.sleep(Duration::from_secs(1)).await;
        log.commit_all();
        let replaced = replaced.await.unwrap();
        assert_eq!(replaced.error_code, 0);
        assert_eq!(replaced.generation_id, joined.generation_id);
        assert_ne!(replaced.member_id, joined.member_id);
        assert!(replaced.skip_assignment);
        assert_eq!(replaced.leader, replaced.member_id);
    });
}

#[test]
fn an_assignment_that_a_rebalance_overtook_is_void() {
    run(|rt| async move {
        let log = MemoryLog::new();
        let coordinator = start(&rt, &log).await;
        let first = join(&rt, &coordinator, "", Some("i")).await.unwrap();
        log.commits_by_hand.set(true);
        let void = {
            let coordinator = coordinator.clone();
            let request = sync_request(&first);
            go(&rt, async move { coordinator.sync_group(request, 5).await })
        };
        rt.sleep(Duration::from_millis(100)).await;
        // Another member comes before the assignment is committed, and a generation follows.
        let second = join(&rt, &coordinator, "", Some("j"));
        assert_eq!(
            void.await.unwrap().error_code,
            ErrorCode::REBALANCE_IN_PROGRESS.0
        );
        let again = join(&rt, &coordinator, &first.member_id, Some("i"));
        assert_eq!(again.await.unwrap().generation_id, 2);
        assert_eq!(second.await.unwrap().generation_id, 2);
        log.commit_all();
        rt.sleep(Duration::from_millis(100)).await;
        let described = coordinator.describe_groups(&["g".into()], 6).await;
        assert_eq!(described[0].group_state, "CompletingRebalance");
        assert!(
            described[0]
                .members
                .iter()
                .all(|m| m.member_assignment.is_empty())
        );
    });
}

#[test]
fn an_assignment_that_cannot_be_stored_makes_all_join_again() {
    run(|rt| async move {
        let log = MemoryLog::new();
        let coordinator = start(&rt, &log).await;
        let joined = join(&rt, &coordinator, "", Some("i")).await.unwrap();
        log.append_error.set(Some(ErrorCode::NOT_ENOUGH_REPLICAS));
        let synced = coordinator.sync_group(sync_request(&joined), 5).await;
        assert_eq!(synced.error_code, ErrorCode::COORDINATOR_NOT_AVAILABLE.0);
        log.append_error.set(None);
        let heartbeat = coordinator.heartbeat(heartbeat_request(&joined)).await;
        assert_eq!(heartbeat.error_code, ErrorCode::REBALANCE_IN_PROGRESS.0);
        let again = join(&rt, &coordinator, &joined.member_id, Some("i")).await;
        assert_eq!(again.unwrap().generation_id, 2);
    });
}

#[test]
fn a_static_member_whose_new_id_cannot_be_stored_keeps_the_old() {
    run(|rt| async move {
        let log = MemoryLog::new();
        let coordinator = start(&rt, &log).await;
        let joined = join(&rt, &coordinator, "", Some("i")).await.unwrap();
        let synced = coordinator.sync_group(sync_request(&joined), 5).await;
        assert_eq!(synced.error_code, 0);
        log.append_error.set(Some(ErrorCode::NOT_ENOUGH_REPLICAS));
        let refused = join(&rt, &coordinator, "", Some("i")).await.unwrap();
        assert_eq!(refused.error_code, ErrorCode::COORDINATOR_NOT_AVAILABLE.0);
        assert_eq!((refused.member_id.as_str(), refused.generation_id), ("", 1));
        log.append_error.set(None);
        let mut request = heartbeat_request(&joined);
        request.group_instance_id = Some("i".into());
        let heartbeat = coordinator.heartbeat(request.clone()).await;
        assert_eq!(heartbeat.error_code, 0);
        rt.sleep(Duration::from_secs(11)).await;
        let heartbeat = coordinator.heartbeat(request).await;
        assert_eq!(heartbeat.error_code, ErrorCode::UNKNOWN_MEMBER_ID.0);
    });
}

#[test]
fn a_new_group_waits_longer_while_members_come() {
    run(|rt| async move {
        let coordinator = start(&rt, &MemoryLog::new()).await;
        let before = rt.now();
        let first = join(&rt, &coordinator, "", Some("i"));
        rt.sleep(Duration::from_secs(2)).await;
        let second = join(&rt, &coordinator, "", Some("j"));
        rt.sleep(Duration::from_secs(2)).await;
        let third = join(&rt, &coordinator, "", Some("k"));
        let leader = first.await.unwrap();
        assert_eq!(leader.members.len(), 3);
        let waited = rt.now().saturating_since(before);
        assert!(waited >= Duration::from_secs(9) && waited < Duration::from_secs(10));
        assert_eq!(second.await.unwrap().generation_id, 1);
        assert_eq!(third.await.unwrap().generation_id, 1);
    });
}

#[test]
fn groups_and_offsets_are_there_after_loading() {
    run(|rt| async move {
        let log = MemoryLog::new();
        let coordinator = start(&rt, &log).await;
        let joined = join_alone(&rt, &coordinator).await;
        for offset in 0..50 {
            assert_eq!(commit(&coordinator, offset).await, 0);
        }
        coordinator.unload();
        assert_eq!(coordinator.state(), CoordinatorState::Closed);
        let refused = coordinator.heartbeat(heartbeat_request(&joined)).await;
        assert_eq!(refused.error_code, ErrorCode::NOT_COORDINATOR.0);

        let loading = GroupCoordinator::start(
            rt.clone(),
            PartitionIndex(0),
            log.clone(),
            Rc::new(CoordinatorConfig::default()),
        );
        assert_eq!(loading.state(), CoordinatorState::Loading);
        assert_eq!(
            commit(&loading, 1).await,
            ErrorCode::COORDINATOR_LOAD_IN_PROGRESS.0
        );
        // A member must not lose its partitions because its coordinator starts.
        let heartbeat = loading.heartbeat(heartbeat_request(&joined)).await;
        assert_eq!(heartbeat.error_code, 0);
        assert_eq!(loading.loaded().await, CoordinatorState::Active);
        assert_eq!(fetch(&loading, false).await, 49);
        for _ in 0..4 {
            let heartbeat = loading.heartbeat(heartbeat_request(&joined)).await;
            assert_eq!(heartbeat.error_code, 0);
            rt.sleep(Duration::from_secs(9)).await;
        }
        // Loaded once more; this time the member never shows up.
        loading.unload();
        let loading = start(&rt, &log).await;
        rt.sleep(Duration::from_secs(9)).await;
        let state = |group: &DescribedGroup| group.group_state.clone();
        let described = loading.describe_groups(&["g".into()], 6).await;
        assert_eq!(state(&described[0]), "Stable");
        rt.sleep(Duration::from_secs(2)).await;
        let described = loading.describe_groups(&["g".into()], 6).await;
        assert_eq!(state(&described[0]), "Empty");
    });
}

#[test]
fn whoever_waits_is_told_when_the_partition_goes() {
    run(|rt| async move {
        let log = MemoryLog::new();
        let coordinator = start(&rt, &log).await;
        let parked = join(&rt, &coordinator, "", Some("i"));
        rt.sleep(Duration::from_millis(100)).await;
        log.commits_by_hand.set(true);
        let waiting = {
            let coordinator = coordinator.clone();
            go(&rt, async move { commit(&coordinator, 1).await })
        };
        let unloaded = {
            let coordinator = coordinator.clone();
            go(&rt, async move { commit(&coordinator, 2).await })
        };
        rt.sleep(Duration::from_millis(100)).await;
        coordinator.unload();
        assert_eq!(
            parked.await.unwrap().error_code,
            ErrorCode::NOT_COORDINATOR.0
        );
        assert_eq!(waiting.await, Ok(ErrorCode::NOT_COORDINATOR.0));
        assert_eq!(unloaded.await, Ok(ErrorCode::NOT_COORDINATOR.0));
    });
    run(|rt| async move {
        let log = MemoryLog::new();
        log.commits_by_hand.set(true);
        let coordinator = start(&rt, &log).await;
        let waiting = {
            let coordinator = coordinator.clone();
            go(&rt, async move { commit(&coordinator, 1).await })
        };
        rt.sleep(Duration::from_millis(100)).await;
        log.lose_leadership();
        assert_eq!(waiting.await, Ok(ErrorCode::NOT_COORDINATOR.0));
    });
}

#[test]
fn a_damaged_log_fails_the_coordinator() {
    run(|rt| async move {
        let log = MemoryLog::new();
        let coordinator = start(&rt, &log).await;
        assert_eq!(commit(&coordinator, 1).await, 0);
        coordinator.unload();
        *log.batches.borrow_mut()[0].last_mut().unwrap() ^= 1;
        let coordinator = GroupCoordinator::start(
            rt.clone(),
            PartitionIndex(0),
            log.clone(),
            Rc::new(CoordinatorConfig::default()),
        );
        assert_eq!(coordinator.loaded().await, CoordinatorState::Failed);
        assert_eq!(commit(&coordinator, 1).await, ErrorCode::NOT_COORDINATOR.0);
    });
}

#[test]
fn old_offsets_go_and_their_group_with_them() {
    run(|rt| async move {
        let log = MemoryLog::new();
        let coordinator = start(&rt, &log).await;
        // More than one batch can hold.
        for partition in 0..200 {
            let mut request = commit_request(1);
            request.topics[0].partitions[0].partition_index = partition;
            coordinator.commit_offsets(request, 9).await;
        }
        let written = log.batches.borrow().len();
        rt.sleep(Duration::from_secs(7 * 24 * 3_600 + 1_200)).await;
        assert_eq!(fetch(&coordinator, true).await, -1);
        let described = coordinator.describe_groups(&["simple".into()], 6).await;
        assert_eq!(described[0].error_code, ErrorCode::GROUP_ID_NOT_FOUND.0);
        let tombstones: i32 = log.batches.borrow()[written..]
            .iter()
            .flat_map(|bytes| Batches::new(bytes))
            .map(|batch| batch.unwrap().record_count())
            .sum();
        assert_eq!(tombstones, 201);
        assert!(log.batches.borrow().len() > written + 1);
    });
}

/// Several clients that do what consumers do, a high watermark that lags and sometimes
/// stalls, appends that fail, and a coordinator that is unloaded and loaded again, its
/// uncommitted tail lost. No request may hang, and an acknowledged commit must stay.
struct Turmoil {
    rt: Rt,
    log: Rc<MemoryLog>,
    coordinator: RefCell<GroupCoordinator>,
    ends: Cell<bool>,
    stable: Cell<u32>,
    acknowledged: Cell<u32>,
}

impl Turmoil {
    fn coordinator(&self) -> GroupCoordinator {
        self.coordinator.borrow().clone()
    }

    fn below(&self, bound: u64) -> u64 {
        self.rt.rng().below(bound)
    }

    async fn pause(&self, ms_max: u64) {
        let ms = self.below(ms_max);
        self.rt.sleep(Duration::from_millis(ms)).await;
    }

    /// The longest that anything takes is a join phase (20 s), begun anew by a sync phase
    /// (20 s) that somebody does not complete.
    async fn answered<T>(&self, request: impl Future<Output = T>) -> T {
        let at = self.rt.now() + Duration::from_secs(60);
        or_deadline(&self.rt, request, at)
            .await
            .expect("every request is answered")
    }

    async fn trouble(&self) {
        while !self.ends.get() {
            self.pause(100).await;
            match self.below(200) {
                0 => self.rt.sleep(Duration::from_secs(7)).await,
                1 => {
                    self.log
                        .append_error
                        .set(Some(ErrorCode::NOT_ENOUGH_REPLICAS));
                    self.pause(3_000).await;
                    self.log.append_error.set(None);
                }
                2 => {
                    self.coordinator().unload();
                    self.log.lose_tail();
                    *self.coordinator.borrow_mut() = GroupCoordinator::start(
                        self.rt.clone(),
                        PartitionIndex(0),
                        self.log.clone(),
                        Rc::new(CoordinatorConfig::default()),
                    );
                }
                _ => {}
            }
            self.log.commit_all();
        }
    }

    async fn client(&self, partition: i32) {
        let mut member_id = String::new();
        let mut next = 0;
        while !self.ends.get() {
            self.pause(200).await;
            let joining = join(&self.rt, &self.coordinator(), &member_id, None);
            let joined = self.answered(joining).await.expect("an answer");
            match ErrorCode(joined.error_code) {
                ErrorCode::NONE => {}
                ErrorCode::MEMBER_ID_REQUIRED => {
                    member_id = joined.member_id;
                    continue;
                }
                ErrorCode::UNKNOWN_MEMBER_ID => {
                    member_id.clear();
                    continue;
                }
                _ => continue,
            }
            member_id = joined.member_id.clone();
            let coordinator = self.coordinator();
            let synced = self
                .answered(coordinator.sync_group(sync_request(&joined), 5))
                .await;
            if synced.error_code != 0 {
                continue;
            }
            self.stable.set(self.stable.get() + 1);
            self.stay(&joined, partition, &mut next).await;
        }
    }

    /// Until the group wants it to join again.
    async fn stay(&self, joined: &JoinGroupResponse, partition: i32, next: &mut i64) {
        loop {
            self.pause(1_000).await;
            let coordinator = self.coordinator();
            let heartbeat = coordinator.heartbeat(heartbeat_request(joined));
            if self.answered(heartbeat).await.error_code != 0 || self.ends.get() {
                return;
            }
            *next += 1;
            let mut request = commit_request(*next);
            request.topics[0].partitions[0].partition_index = partition;
            let response = self.answered(coordinator.commit_offsets(request, 9)).await;
            if response.topics[0].partitions[0].error_code == 0 {
                self.acknowledged.set(self.acknowledged.get() + 1);
                let read = self.read(partition).await;
                assert!(read.is_none_or(|read| read >= *next), "{read:?} < {next}");
            }
        }
    }

    async fn read(&self, partition: i32) -> Option<i64> {
        let request = OffsetFetchRequestGroup {
            group_id: "simple".into(),
            topics: None,
            ..OffsetFetchRequestGroup::default()
        };
        let coordinator = self.coordinator();
        let stable = self.below(2) == 0;
        let response = self
            .answered(coordinator.fetch_offsets(request, stable, 9))
            .await;
        (response.error_code == 0).then(|| {
            response
                .topics
                .iter()
                .flat_map(|topic| &topic.partitions)
                .find(|found| found.partition_index == partition)
                .map_or(-1, |found| found.committed_offset)
        })
    }
}

#[test]
fn no_request_hangs_in_turmoil_and_commits_stay() {
    for seed in 0..4 {
        run_seed(seed, |rt| async move {
            let log = MemoryLog::new();
            log.batches_per_read.set(100);
            log.commits_by_hand.set(true);
            let turmoil = Rc::new(Turmoil {
                coordinator: RefCell::new(start(&rt, &log).await),
                log,
                ends: Cell::new(false),
                stable: Cell::new(0),
                acknowledged: Cell::new(0),
                rt: rt.clone(),
            });
            let mut clients = Vec::new();
            for partition in 0..5 {
                let world = turmoil.clone();
                clients.push(go(&rt, async move { world.client(partition).await }));
            }
            let world = turmoil.clone();
            let trouble = go(&rt, async move { world.trouble().await });
            rt.sleep(Duration::from_secs(600)).await;
            turmoil.ends.set(true);
            for client in clients {
                client.await.expect("it ends");
            }
            trouble.await.expect("it ends");
            assert!(turmoil.stable.get() > 50, "{}", turmoil.stable.get());
            assert!(turmoil.acknowledged.get() > 500);
        });
    }
}
