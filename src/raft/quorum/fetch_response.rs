//! Fetch, the replica's side: appends what the leader sends, cuts off what the leader
//! doesn't have, or begins to fetch a snapshot.

use bytes::Bytes;

use super::calls::{Call, Peer};
use super::effects::{Effect, Effects, Fault};
use super::log_view::OffsetAndEpoch;
use super::messages::{Hint, is_metadata_topic, named_endpoints, optional_id};
use super::{Quorum, Role};
use crate::base::{ErrorCode, LeaderEpoch, Offset};
use crate::raft::checkpoint::{Contents, read_batch};
use crate::raft::control::ControlRecord;
use crate::record::{BatchView, Batches};
use crate::wire::messages::FetchResponse;
use crate::wire::messages::fetch_response::PartitionData;

impl Quorum {
    pub(super) fn on_fetch_response(
        &mut self,
        call: Call,
        response: &FetchResponse,
        fx: &mut Effects,
    ) {
        let partition = only_response_partition(response);
        let (0, Some(partition)) = (response.error_code, partition) else {
            return self.back_off(call.peer);
        };
        let current = &partition.current_leader;
        let leader = optional_id(current.leader_id);
        let hint = Hint {
            error: ErrorCode(partition.error_code),
            epoch: LeaderEpoch(current.leader_epoch),
            leader,
            endpoints: named_endpoints!(self, response.node_endpoints, leader),
        };
        if !self.on_hint(call, hint, fx) {
            return;
        }
        let is_from_leader = match &self.role {
            Role::Follower(state) => call.peer == Peer::Node(state.leader.id),
            _ => false,
        };
        // Or it was asked before a snapshot took the log's place.
        if is_from_leader && call.log_end == self.log.last() {
            self.replicate(call, partition, fx);
        } else if !is_from_leader {
            self.back_off(call.peer);
        }
    }

    fn replicate(&mut self, call: Call, partition: &PartitionData, fx: &mut Effects) {
        let fetch_at = self.after_ms(self.config.fetch_timeout_ms);
        let Role::Follower(state) = &mut self.role else {
            unreachable!("only followers replicate");
        };
        state.has_fetched = true;
        state.fetch_at = fetch_at;
        let diverging = &partition.diverging_epoch;
        let snapshot = &partition.snapshot_id;
        if diverging.epoch >= 0 && diverging.end_offset >= 0 {
            let end = OffsetAndEpoch::new(diverging.end_offset, diverging.epoch);
            self.cut_to(end, call, fx);
        } else if snapshot.epoch >= 0 && snapshot.end_offset >= 0 {
            let id = OffsetAndEpoch::new(snapshot.end_offset, snapshot.epoch);
            self.begin_snapshot(id, call.peer);
        } else {
            if let Some(records) = partition.records.as_ref().filter(|r| !r.is_empty()) {
                let before = self.log.end();
                self.append_fetched(records, fx);
                if self.log.end() == before {
                    self.back_off(call.peer);
                }
            }
            self.update_follower_high_watermark(partition.high_watermark, fx);
        }
    }

    /// The leader's log has nothing beyond the end that it named.
    fn cut_to(&mut self, diverging: OffsetAndEpoch, call: Call, fx: &mut Effects) {
        let to = self.log.truncation_point(diverging);
        let committed = self.high_watermark.unwrap_or(Offset(0));
        let committed = committed.max(self.log.start());
        if to < committed {
            let fault = Fault::TruncatesCommitted {
                epoch: self.epoch,
                to,
                committed,
            };
            return self.fault(fault, fx);
        }
        if to < self.log.end() {
            self.truncate(to, fx);
        } else {
            fx.push(Effect::PeerError("logs that part beyond the end of ours"));
            self.back_off(call.peer);
        }
    }

    /// Appends the whole batches that follow on the log; what comes after a wrong one is
    /// left.
    fn append_fetched(&mut self, records: &Bytes, fx: &mut Effects) {
        let base_offset = self.log.end();
        let mut batches = Batches::new(records);
        let mut position = 0;
        // The last one may be cut off, as the leader doesn't look at their ends.
        while let Some(Ok(batch)) = batches.next() {
            let Some(control) = self.check_batch(&batch) else {
                fx.push(Effect::PeerError("a batch that doesn't follow on the log"));
                break;
            };
            let epoch = batch.partition_leader_epoch();
            self.log.append(batch.next_offset(), epoch, control);
            position += batch.size_in_bytes();
        }
        if position > 0 {
            fx.push(Effect::Append {
                batches: records.slice(..position),
                base_offset,
                end_offset: self.log.end(),
            });
        }
    }

    /// The control records of a batch, if it is the next one.
    fn check_batch(&self, batch: &BatchView<'_>) -> Option<Vec<(Offset, ControlRecord)>> {
        let epoch = batch.partition_leader_epoch();
        let follows = batch.base_offset() == self.log.end()
            && batch.next_offset() > self.log.end()
            && epoch >= self.log.last_epoch()
            && epoch <= self.epoch
            && batch.verify_crc();
        if !follows {
            return None;
        }
        if !batch.is_control() {
            return Some(Vec::new());
        }
        let Ok(Contents::Control(records)) = read_batch(batch) else {
            return None;
        };
        let base = batch.base_offset();
        let at = |(index, record)| (base + index as i64, record);
        Some(records.into_iter().enumerate().map(at).collect())
    }
}

fn only_response_partition(response: &FetchResponse) -> Option<&PartitionData> {
    match &response.responses[..] {
        [topic] if is_metadata_topic(&topic.topic, topic.topic_id) => match &topic.partitions[..] {
            [partition] if partition.partition_index == 0 => Some(partition),
            _ => None,
        },
        _ => None,
    }
}
