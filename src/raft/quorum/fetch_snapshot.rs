//! FetchSnapshot: a replica whose log doesn't reach the leader's takes over a snapshot, in
//! pieces. Both sides; and the snapshots that a node takes itself.

use super::calls::{Call, Peer};
use super::effects::{Effect, Effects, Request, RequestId, Response};
use super::log_view::OffsetAndEpoch;
use super::messages::{
    Hint, named_endpoints, node_endpoints, only_partition, optional_id, replica_key,
};
use super::{Quorum, Role};
use crate::base::{ErrorCode, LeaderEpoch, Offset};
use crate::raft::METADATA_TOPIC;
use crate::raft::voters::VoterSet;
use crate::wire::messages::fetch_snapshot_request::{
    PartitionSnapshot as AskedPartition, SnapshotId, TopicSnapshot as AskedTopic,
};
use crate::wire::messages::fetch_snapshot_response::{
    self, LeaderIdAndEpoch, NodeEndpoint, PartitionSnapshot, TopicSnapshot,
};
use crate::wire::messages::{FetchSnapshotRequest, FetchSnapshotResponse};

/// A snapshot on its way from the leader.
#[derive(Clone, Debug)]
pub(super) struct Fetching {
    id: OffsetAndEpoch,
    /// Bytes that were written.
    position: u64,
}

impl Quorum {
    pub(super) fn fetch_snapshot_request(&self) -> Request {
        let Role::Follower(state) = &self.role else {
            unreachable!("only followers fetch snapshots");
        };
        let fetching = state.fetching.as_ref().expect("one is on its way");
        Request::FetchSnapshot(FetchSnapshotRequest {
            cluster_id: self.cluster_id(),
            replica_id: self.config.me.id.0,
            max_bytes: self.config.fetch_snapshot_max_bytes,
            topics: vec![AskedTopic {
                name: METADATA_TOPIC.to_owned(),
                partitions: vec![AskedPartition {
                    partition: 0,
                    current_leader_epoch: self.epoch.0,
                    snapshot_id: SnapshotId {
                        end_offset: fetching.id.offset.0,
                        epoch: fetching.id.epoch.0,
                    },
                    position: i64::try_from(fetching.position).unwrap_or(i64::MAX),
                    replica_directory_id: self.config.me.wire_directory(),
                }],
            }],
        })
    }

    pub(super) fn on_fetch_snapshot(
        &mut self,
        id: RequestId,
        api_version: i16,
        request: &FetchSnapshotRequest,
        fx: &mut Effects,
    ) {
        let top_level = |error: ErrorCode| FetchSnapshotResponse {
            error_code: error.0,
            ..Default::default()
        };
        let response = if self.is_other_cluster(&request.cluster_id) {
            top_level(ErrorCode::INCONSISTENT_CLUSTER_ID)
        } else if request.topics.len() != 1 || request.topics[0].partitions.len() != 1 {
            top_level(ErrorCode::INVALID_REQUEST)
        } else {
            match only_partition!(request.topics, name, partition) {
                Some(asked) => return self.serve_snapshot(id, api_version, request, asked, fx),
                None => {
                    let topic = &request.topics[0];
                    let partition = PartitionSnapshot {
                        index: topic.partitions[0].partition,
                        error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0,
                        ..Default::default()
                    };
                    self.snapshot_response(api_version, topic.name.clone(), partition)
                }
            }
        };
        self.reply_snapshot(id, response, fx);
    }

    fn serve_snapshot(
        &mut self,
        id: RequestId,
        api_version: i16,
        request: &FetchSnapshotRequest,
        asked: &AskedPartition,
        fx: &mut Effects,
    ) {
        let snapshot = OffsetAndEpoch::new(asked.snapshot_id.end_offset, asked.snapshot_id.epoch);
        let size = self.log.snapshot_size(snapshot);
        let size = size.filter(|_| snapshot != OffsetAndEpoch::BOOTSTRAP);
        let size = size.map(|size| i64::try_from(size).unwrap_or(i64::MAX));
        let mut error = self.check_leader_request(asked.current_leader_epoch);
        if error.is_ok() {
            error = match size {
                None => ErrorCode::SNAPSHOT_NOT_FOUND,
                Some(size) if asked.position < 0 || asked.position >= size => {
                    ErrorCode::POSITION_OUT_OF_RANGE
                }
                Some(_) => ErrorCode::NONE,
            };
        }
        let mut partition = PartitionSnapshot {
            index: 0,
            error_code: error.0,
            current_leader: LeaderIdAndEpoch {
                leader_id: self.wire_leader_id(),
                leader_epoch: self.epoch.0,
            },
            ..Default::default()
        };
        let topic = METADATA_TOPIC.to_owned();
        let Some(size) = size.filter(|_| error.is_ok()) else {
            let response = self.snapshot_response(api_version, topic, partition);
            return self.reply_snapshot(id, response, fx);
        };
        partition.snapshot_id = fetch_snapshot_response::SnapshotId {
            end_offset: snapshot.offset.0,
            epoch: snapshot.epoch.0,
        };
        partition.size = size;
        partition.position = asked.position;
        let from = replica_key(request.replica_id, asked.replica_directory_id);
        self.count_fetch(&from, None, fx);
        let response = self.snapshot_response(api_version, topic, partition);
        let effect = Effect::ReplySnapshot {
            id,
            response,
            snapshot,
            position: asked.position,
            max_bytes: request.max_bytes,
        };
        self.outbox.send(effect, fx);
    }

    fn reply_snapshot(&mut self, id: RequestId, response: FetchSnapshotResponse, fx: &mut Effects) {
        let response = Response::FetchSnapshot(response);
        self.outbox.send(Effect::Reply { id, response }, fx);
    }

    fn snapshot_response(
        &self,
        api_version: i16,
        name: String,
        partition: PartitionSnapshot,
    ) -> FetchSnapshotResponse {
        let node_endpoints = if api_version >= 1 {
            node_endpoints!(self, NodeEndpoint)
        } else {
            Vec::new()
        };
        FetchSnapshotResponse {
            topics: vec![TopicSnapshot {
                name,
                partitions: vec![partition],
            }],
            node_endpoints,
            ..Default::default()
        }
    }

    /// The leader said to take a snapshot first.
    pub(super) fn begin_snapshot(&mut self, id: OffsetAndEpoch, leader: Peer) {
        // While one is made durable the leader names it again and again, and is heard.
        if !self.log.is_behind(id) || self.finishing.is_some() {
            return self.back_off(leader);
        }
        let Role::Follower(state) = &mut self.role else {
            unreachable!("only followers fetch snapshots");
        };
        state.fetching = Some(Fetching { id, position: 0 });
    }

    pub(super) fn on_fetch_snapshot_response(
        &mut self,
        call: Call,
        response: &FetchSnapshotResponse,
        fx: &mut Effects,
    ) {
        let partition = only_partition!(response.topics, name, index);
        let (0, Some(partition)) = (response.error_code, partition) else {
            // 4.3.1 answers every error by -1 and no topics.
            return self.give_up_snapshot(call);
        };
        let current = &partition.current_leader;
        let leader = optional_id(current.leader_id);
        let hint = Hint {
            error: ErrorCode(partition.error_code),
            epoch: LeaderEpoch(current.leader_epoch),
            leader,
            endpoints: named_endpoints!(self, response.node_endpoints, leader),
        };
        let is_error = !hint.error.is_ok();
        if !self.on_hint(call, hint, fx) {
            if is_error {
                self.give_up_snapshot(call);
            }
            return;
        }
        self.take_piece(call, partition, fx);
    }

    fn take_piece(&mut self, call: Call, partition: &PartitionSnapshot, fx: &mut Effects) {
        let fetch_at = self.after_ms(self.config.fetch_timeout_ms);
        let id = &partition.snapshot_id;
        let id = OffsetAndEpoch::new(id.end_offset, id.epoch);
        let Role::Follower(state) = &mut self.role else {
            return;
        };
        let Some(fetching) = &mut state.fetching else {
            return;
        };
        let is_next = call.peer == Peer::Node(state.leader.id)
            && fetching.id == id
            && u64::try_from(partition.position) == Ok(fetching.position);
        let bytes = partition.unaligned_records.clone();
        let end = fetching.position + bytes.len() as u64;
        let size = u64::try_from(partition.size).unwrap_or(0);
        if !is_next || bytes.is_empty() || end > size {
            return self.give_up_snapshot(call);
        }
        fx.push(Effect::WriteSnapshot {
            id,
            position: fetching.position,
            bytes,
        });
        fetching.position = end;
        state.fetch_at = fetch_at;
        if end == size {
            state.fetching = None;
            self.finishing = Some(id);
            fx.push(Effect::FinishSnapshot { id });
        }
    }

    /// Back to Fetch, which tells what to do.
    fn give_up_snapshot(&mut self, call: Call) {
        self.back_off(call.peer);
        if let Role::Follower(state) = &mut self.role {
            state.fetching = None;
        }
    }

    pub(super) fn on_snapshot_broken(&mut self, id: OffsetAndEpoch) {
        self.finishing = self.finishing.filter(|finishing| *finishing != id);
    }

    pub(super) fn on_snapshot_finished(
        &mut self,
        id: OffsetAndEpoch,
        size: u64,
        kraft_version: i16,
        voters: Option<VoterSet>,
        fx: &mut Effects,
    ) {
        self.finishing = self.finishing.filter(|finishing| *finishing != id);
        if self.log.is_behind(id) {
            assert!(
                !matches!(self.role, Role::Leader(_)),
                "a leader has all that is committed"
            );
            self.log.add_snapshot(id, size);
            self.log.reset(id, kraft_version, voters);
            self.flushing = None;
            fx.push(Effect::ResetLog { snapshot: id });
            fx.push(Effect::LoadSnapshot { id });
            if self.high_watermark.is_none_or(|before| before < id.offset) {
                self.advance_high_watermark(id.offset, fx);
            }
        } else if self.log.start() <= id.offset && self.log.epoch_before(id.offset) == id.epoch {
            self.log.add_snapshot(id, size);
        }
    }

    pub(super) fn on_snapshot_taken(&mut self, id: OffsetAndEpoch, size: u64) {
        let is_committed = self.high_watermark.is_some_and(|hw| id.offset <= hw);
        assert!(is_committed, "snapshots hold what is committed");
        // The log may begin later by now.
        if self.log.start() <= id.offset && id.offset > Offset(0) {
            assert_eq!(self.log.epoch_before(id.offset), id.epoch, "named rightly");
            self.log.add_snapshot(id, size);
        }
    }

    pub(super) fn on_clean(&mut self, before: OffsetAndEpoch, fx: &mut Effects) {
        let is_there = self.log.snapshot_size(before).is_some();
        if !is_there || before.offset <= self.log.start() {
            return;
        }
        self.log.advance_start(before);
        fx.push(Effect::AdvanceLogStart { snapshot: before });
        if let Role::Leader(leader) = &mut self.role {
            leader.are_fetches_due = true;
        }
    }
}
