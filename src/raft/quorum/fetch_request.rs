//! Fetch, the leader's side (and the request that every replica sends): a replica says how
//! far its log goes; it gets what follows, or where the two logs part, or which snapshot to
//! take first.

use bytes::Bytes;

use super::effects::{Effect, Effects, RequestId, Response};
use super::log_view::FetchPoint;
use super::messages::{is_metadata_topic, node_endpoints, replica_key};
use super::{Quorum, Role};
use crate::base::{ErrorCode, LeaderEpoch, Nanos, Offset, Uuid};
use crate::raft::METADATA_TOPIC;
use crate::raft::voters::ReplicaKey;
use crate::wire::messages::fetch_request::{FetchPartition, FetchTopic, ReplicaState};
use crate::wire::messages::fetch_response::{
    EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
    SnapshotId,
};
use crate::wire::messages::{FetchRequest, FetchResponse};

/// Fetches that wait at most; a further one is answered at once.
const WAITING_MAX: usize = 10_000;

/// A valid fetch.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    id: RequestId,
    api_version: i16,
    from: ReplicaKey,
    offset: Offset,
    last_epoch: LeaderEpoch,
    /// What the replica knows to be committed; `None` where its version doesn't say.
    high_watermark: Option<Offset>,
    max_bytes: i32,
    pub(super) deadline: Nanos,
    /// Whether it was counted as a sign of life, and for the high watermark.
    is_counted: bool,
}

impl Quorum {
    pub(super) fn fetch_request(&self) -> FetchRequest {
        let last = self.log.last();
        let config = &self.config;
        FetchRequest {
            cluster_id: self.cluster_id(),
            replica_state: ReplicaState {
                replica_id: config.me.id.0,
                ..Default::default()
            },
            max_wait_ms: i32::try_from(config.fetch_max_wait_ms).unwrap_or(i32::MAX),
            max_bytes: config.fetch_max_bytes,
            topics: vec![FetchTopic {
                topic: METADATA_TOPIC.to_owned(),
                topic_id: Uuid::METADATA_TOPIC,
                partitions: vec![FetchPartition {
                    partition: 0,
                    current_leader_epoch: self.epoch.0,
                    fetch_offset: last.offset.0,
                    last_fetched_epoch: last.epoch.0,
                    replica_directory_id: config.me.wire_directory(),
                    high_watermark: self.high_watermark.map_or(-1, |offset| offset.0),
                    ..Default::default()
                }],
            }],
            ..Default::default()
        }
    }

    pub(super) fn on_fetch(
        &mut self,
        id: RequestId,
        api_version: i16,
        request: FetchRequest,
        fx: &mut Effects,
    ) {
        let error = if self.is_other_cluster(&request.cluster_id) {
            ErrorCode::INCONSISTENT_CLUSTER_ID
        } else if only_fetch_partition(&request).is_none() {
            ErrorCode::INVALID_REQUEST
        } else {
            ErrorCode::NONE
        };
        let Some(asked) = only_fetch_partition(&request).filter(|_| error.is_ok()) else {
            let response = FetchResponse {
                error_code: error.0,
                ..Default::default()
            };
            return self.reply_fetch(id, response, fx);
        };
        let is_valid = request.max_wait_ms >= 0
            && asked.fetch_offset >= 0
            && asked.last_fetched_epoch >= 0
            && asked.last_fetched_epoch <= asked.current_leader_epoch;
        let replica_id = if api_version >= 15 {
            request.replica_state.replica_id
        } else {
            request.replica_id
        };
        let error = if !is_valid {
            ErrorCode::INVALID_REQUEST
        } else {
            self.check_leader_request(asked.current_leader_epoch)
        };
        let error = if error.is_ok() && replica_id == self.config.me.id.0 {
            // Kafka's leader fails on its own id too.
            ErrorCode::UNKNOWN_SERVER_ERROR
        } else {
            error
        };
        if !error.is_ok() {
            let response = self.fetch_error(api_version, error);
            return self.reply_fetch(id, response, fx);
        }
        let fetch = Waiting {
            id,
            api_version,
            from: replica_key(replica_id, asked.replica_directory_id),
            offset: Offset(asked.fetch_offset),
            last_epoch: LeaderEpoch(asked.last_fetched_epoch),
            high_watermark: (api_version >= 18).then_some(Offset(asked.high_watermark)),
            max_bytes: request.max_bytes,
            deadline: self.after_ms(request.max_wait_ms as u64),
            is_counted: false,
        };
        self.serve_fetch(fetch, fx);
    }

    /// Answers a fetch, or lets it wait.
    fn serve_fetch(&mut self, mut fetch: Waiting, fx: &mut Effects) {
        if !self.outbox.is_settled() {
            // Nobody may learn of a leader that could forget that it is one.
            return self.park(fetch, fx);
        }
        match self.log.check_fetch(fetch.offset, fetch.last_epoch) {
            FetchPoint::Valid => {}
            point => {
                let response = self.fetch_response(fetch.api_version, ErrorCode::NONE, point);
                return self.reply_fetch(fetch.id, response, fx);
            }
        }
        if !fetch.is_counted {
            fetch.is_counted = true;
            self.count_fetch(&fetch.from, Some(fetch.offset), fx);
        }
        let known = self.high_watermark;
        let has_records = fetch.offset < self.log.end();
        let has_news = match (fetch.high_watermark, known) {
            (Some(reported), Some(known)) => reported < known,
            _ => false,
        };
        if !has_records && !has_news && !self.is_due(fetch.deadline) {
            return self.park(fetch, fx);
        }
        let response = self.fetch_response(fetch.api_version, ErrorCode::NONE, FetchPoint::Valid);
        if has_records {
            fx.push(Effect::ReplyRecords {
                id: fetch.id,
                response,
                from: fetch.offset,
                max_bytes: fetch.max_bytes,
            });
        } else {
            self.reply_fetch(fetch.id, response, fx);
        }
    }

    /// A sign of life of a replica; of a voter it may be what makes up a majority.
    pub(super) fn count_fetch(
        &mut self,
        from: &ReplicaKey,
        offset: Option<Offset>,
        fx: &mut Effects,
    ) {
        let begin_at = self.after_ms(self.config.fetch_timeout_ms / 2);
        let end = self.log.end();
        let now = self.now;
        let Role::Leader(leader) = &mut self.role else {
            unreachable!("only leaders count fetches");
        };
        if let Some(offset) = offset {
            leader.replicas.on_fetch(from, offset, end, now);
        }
        if let Some(voter) = leader.replicas.voter_key(from) {
            leader.on_heard(voter.id, begin_at);
            self.update_high_watermark(fx);
        }
    }

    fn park(&mut self, fetch: Waiting, fx: &mut Effects) {
        let Role::Leader(leader) = &mut self.role else {
            unreachable!("only leaders let fetches wait");
        };
        if leader.waiting.len() >= WAITING_MAX {
            return self.refuse_fetch(fetch, fx);
        }
        leader.waiting.push(fetch);
    }

    /// Looks again at the fetches that wait, if there is a reason to.
    pub(super) fn complete_fetches(&mut self, fx: &mut Effects) {
        let is_settled = self.outbox.is_settled();
        let now = self.now.mono;
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let is_late = |fetch: &Waiting| fetch.deadline <= now;
        let has_reason = leader.are_fetches_due || leader.waiting.iter().any(is_late);
        if !is_settled || !has_reason {
            return;
        }
        leader.are_fetches_due = false;
        for fetch in std::mem::take(&mut leader.waiting) {
            self.serve_fetch(fetch, fx);
        }
        if matches!(&self.role, Role::Leader(leader) if leader.are_fetches_due) {
            // One that was counted only now has committed something.
            self.complete_fetches(fx);
        }
    }

    /// The answer to a fetch that waited at a leader that is none any more.
    pub(super) fn refuse_fetch(&mut self, fetch: Waiting, fx: &mut Effects) {
        let error = ErrorCode::NOT_LEADER_OR_FOLLOWER;
        let response = self.fetch_error(fetch.api_version, error);
        self.reply_fetch(fetch.id, response, fx);
    }

    fn reply_fetch(&mut self, id: RequestId, response: FetchResponse, fx: &mut Effects) {
        let response = Response::Fetch(response);
        self.outbox.send(Effect::Reply { id, response }, fx);
    }

    fn fetch_error(&self, api_version: i16, error: ErrorCode) -> FetchResponse {
        self.fetch_response(api_version, error, FetchPoint::Valid)
    }

    fn fetch_response(
        &self,
        api_version: i16,
        error: ErrorCode,
        point: FetchPoint,
    ) -> FetchResponse {
        let known = self.high_watermark.filter(|_| error.is_ok());
        let mut partition = PartitionData {
            partition_index: 0,
            error_code: error.0,
            high_watermark: known.map_or(-1, |offset| offset.0),
            log_start_offset: self.log.start().0,
            records: Some(Bytes::new()),
            ..Default::default()
        };
        // Older versions have no place for it.
        if api_version >= 12 {
            partition.current_leader = LeaderIdAndEpoch {
                leader_id: self.wire_leader_id(),
                leader_epoch: self.epoch.0,
            };
        }
        match point {
            FetchPoint::Valid => {}
            FetchPoint::Diverging(end) => {
                partition.diverging_epoch = EpochEndOffset {
                    epoch: end.epoch.0,
                    end_offset: end.offset.0,
                };
            }
            FetchPoint::Snapshot(id) => {
                partition.snapshot_id = SnapshotId {
                    end_offset: id.offset.0,
                    epoch: id.epoch.0,
                };
            }
        }
        let node_endpoints = if api_version >= 16 {
            node_endpoints!(self, NodeEndpoint)
        } else {
            Vec::new()
        };
        FetchResponse {
            responses: vec![FetchableTopicResponse {
                topic: METADATA_TOPIC.to_owned(),
                topic_id: Uuid::METADATA_TOPIC,
                partitions: vec![partition],
            }],
            node_endpoints,
            ..Default::default()
        }
    }
}

fn only_fetch_partition(request: &FetchRequest) -> Option<&FetchPartition> {
    match &request.topics[..] {
        [topic] if is_metadata_topic(&topic.topic, topic.topic_id) => match &topic.partitions[..] {
            [partition] if partition.partition == 0 => Some(partition),
            _ => None,
        },
        _ => None,
    }
}
