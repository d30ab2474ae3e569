//! Requests to group coordinators, wherever they are: the coordinator of a group lives on
//! the core that owns the group's partition of `__consumer_offsets`.
//!
//! Called by the group APIs; control goes to `coordinator::runtime` on the owning core.
//! Joins may stay parked for minutes, so they never hold a slot of the mesh.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use bytes::Bytes;

use super::messages::{GroupCall, GroupReply, LongCall, LongReply, ShardReply, ShardRequest};
use super::partition::{Partition, Wakes};
use super::wait::Wait;
use super::{Shard, flush};
use crate::base::{ErrorCode, LeaderEpoch, Offset, PartitionIndex, TopicIdPartition, hash};
use crate::controller::topic_name::CONSUMER_OFFSETS;
use crate::coordinator::Client;
use crate::coordinator::runtime::{AppendedAt, CoordinatorLog, GroupCoordinator, LocalFuture};
use crate::purgatory::watch::Condition;

impl Shard {
    /// Sends a call to the coordinator of a group. Errors: COORDINATOR_NOT_AVAILABLE while
    /// the offsets topic doesn't exist, NOT_COORDINATOR if its partition isn't here.
    pub async fn group_call(
        self: &Rc<Self>,
        group_id: &str,
        call: GroupCall,
    ) -> Result<GroupReply, ErrorCode> {
        let partitions = self
            .image()
            .topics
            .by_name(CONSUMER_OFFSETS)
            .map(|topic| topic.partition_count())
            .and_then(|count| i32::try_from(count).ok())
            .ok_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)?;
        let index = PartitionIndex(hash::coordinator_partition(group_id, partitions));
        self.group_call_at(index, call).await
    }

    /// Sends a call to the coordinator on one partition of the offsets topic.
    pub async fn group_call_at(
        self: &Rc<Self>,
        index: PartitionIndex,
        call: GroupCall,
    ) -> Result<GroupReply, ErrorCode> {
        let owner = self
            .offsets_partition(index)
            .and_then(|partition| self.owner(partition))
            .ok_or(ErrorCode::NOT_COORDINATOR)?;
        let call = LongCall::Group(index, call);
        let reply = if owner == self.core() {
            Some(serve(self, call).await)
        } else {
            self.long_call(owner, call).await
        };
        match reply {
            Some(LongReply::Group(GroupReply::NoCoordinator)) => Err(ErrorCode::NOT_COORDINATOR),
            Some(LongReply::Group(reply)) => Ok(reply),
            _ => Err(ErrorCode::COORDINATOR_NOT_AVAILABLE),
        }
    }

    /// The partitions of the offsets topic that have their coordinator on this node.
    pub fn coordinator_partitions(&self) -> Vec<PartitionIndex> {
        let published = self.published();
        let Some(topic) = published.image.topics.by_name(CONSUMER_OFFSETS) else {
            return Vec::new();
        };
        topic
            .partitions()
            .filter(|(_, partition)| partition.leader == self.node.id)
            .map(|(index, _)| index)
            .collect()
    }

    fn offsets_partition(&self, index: PartitionIndex) -> Option<TopicIdPartition> {
        let image = self.image();
        let topic = image.topics.by_name(CONSUMER_OFFSETS)?;
        topic.partition(index)?;
        Some(TopicIdPartition {
            topic_id: topic.id,
            partition: index,
        })
    }

    async fn long_call(&self, core: crate::base::CoreId, call: LongCall) -> Option<LongReply> {
        let answer = self.operations.answer();
        let request = ShardRequest::Long(answer.id(), Box::new(call));
        match self.call(core, request).await {
            Ok(ShardReply::Done) => Some(answer.await),
            _ => None,
        }
    }
}

/// The coordinator of a partition in one term of its leadership.
#[derive(Clone)]
pub struct Led {
    pub leader_epoch: LeaderEpoch,
    pub coordinator: GroupCoordinator,
}

/// Serves a call on the core that owns the coordinator.
pub async fn serve(shard: &Rc<Shard>, call: LongCall) -> LongReply {
    let LongCall::Group(index, call) = call;
    let led = shard.coordinators.borrow().get(&index).cloned();
    LongReply::Group(match led.map(|led| led.coordinator) {
        Some(coordinator) => dispatch(&coordinator, call).await,
        None => GroupReply::NoCoordinator,
    })
}

async fn dispatch(coordinator: &GroupCoordinator, call: GroupCall) -> GroupReply {
    match call {
        GroupCall::Join {
            client_id,
            client_address,
            request,
            version,
        } => {
            let client = Client {
                id: &client_id,
                address: client_address,
            };
            GroupReply::Join(coordinator.join_group(&client, request, version).await)
        }
        GroupCall::Sync(request, version) => {
            GroupReply::Sync(coordinator.sync_group(request, version).await)
        }
        GroupCall::Heartbeat(request) => {
            GroupReply::Heartbeat(coordinator.heartbeat(request).await)
        }
        GroupCall::Leave(request, version) => {
            GroupReply::Leave(coordinator.leave_group(request, version).await)
        }
        GroupCall::Commit(request, version) => {
            GroupReply::Commit(coordinator.commit_offsets(request, version).await)
        }
        GroupCall::FetchOffsets {
            group,
            require_stable,
            version,
        } => GroupReply::FetchOffsets(
            coordinator
                .fetch_offsets(group, require_stable, version)
                .await,
        ),
        GroupCall::DeleteOffsets(request) => {
            GroupReply::DeleteOffsets(coordinator.delete_offsets(request).await)
        }
        GroupCall::List(request) => GroupReply::List(coordinator.list_groups(&request).await),
        GroupCall::Describe(groups, version) => {
            GroupReply::Describe(coordinator.describe_groups(&groups, version).await)
        }
        GroupCall::Delete(groups) => GroupReply::Delete(coordinator.delete_groups(&groups).await),
    }
}

/// The coordinator's view of its partition's log.
pub struct OffsetsLog {
    /// The shard owns the coordinator that owns this.
    shard: Weak<Shard>,
    partition: TopicIdPartition,
}

impl OffsetsLog {
    pub fn new(shard: &Rc<Shard>, partition: TopicIdPartition) -> OffsetsLog {
        OffsetsLog {
            shard: Rc::downgrade(shard),
            partition,
        }
    }

    fn partition(&self) -> Result<(Rc<Shard>, Rc<RefCell<Partition>>), ErrorCode> {
        let shard = self.shard.upgrade().ok_or(ErrorCode::NOT_COORDINATOR)?;
        let partition = shard
            .partition(self.partition)
            .ok_or(ErrorCode::NOT_LEADER_OR_FOLLOWER)?;
        Ok((shard, partition))
    }
}

impl CoordinatorLog for OffsetsLog {
    fn append(&self, batch: Bytes) -> Result<AppendedAt, ErrorCode> {
        let (shard, partition) = self.partition()?;
        let mut wakes = Wakes::new();
        let appended = {
            let mut partition = partition.borrow_mut();
            let now_ms = shard.rt().wall_ms();
            let appended = partition.append_internal(batch, now_ms, &mut wakes)?;
            flush::start_if_due(&shard, self.partition, &mut partition);
            appended
        };
        shard.wake_all(wakes);
        Ok(AppendedAt {
            first: appended.first_offset,
            last: appended.last_offset,
        })
    }

    fn committed(&self) -> Offset {
        self.partition()
            .map_or(Offset(0), |(_, p)| p.borrow().high_watermark())
    }

    fn await_committed(&self, upto: Offset) -> LocalFuture<'_, Result<Offset, ErrorCode>> {
        Box::pin(async move {
            loop {
                let (shard, partition) = self.partition()?;
                partition.borrow().check_leader()?;
                let committed = partition.borrow().high_watermark();
                if committed >= upto {
                    return Ok(committed);
                }
                let wait = Wait::new(&shard);
                wait.watch_local(self.partition, Condition::HighWatermark(upto.0));
                wait.notified().await;
            }
        })
    }

    fn log_start_offset(&self) -> Offset {
        self.partition()
            .map_or(Offset(0), |(_, p)| p.borrow().log().log_start_offset())
    }

    fn log_end_offset(&self) -> Offset {
        self.partition()
            .map_or(Offset(0), |(_, p)| p.borrow().log().log_end_offset())
    }

    fn read(&self, from: Offset, max_bytes: usize) -> LocalFuture<'_, Result<Bytes, ErrorCode>> {
        Box::pin(async move {
            let (shard, _) = self.partition()?;
            let read = || {
                let (_, partition) = self.partition()?;
                let read = partition.borrow_mut().read_whole_batches(from, max_bytes);
                Ok::<_, ErrorCode>(read)
            };
            shard.rt().without_waiting(read).await?.map_err(|error| {
                let partition = self.partition.partition;
                tracing::error!(%partition, %error, "a log of offsets can't be read");
                error.error_code()
            })
        })
    }

    fn max_message_bytes(&self) -> usize {
        self.partition().map_or(0, |(_, p)| {
            usize::try_from(p.borrow().config().max_message_bytes).unwrap_or(0)
        })
    }
}
