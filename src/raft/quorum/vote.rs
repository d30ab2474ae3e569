//! Vote: asks for a vote in the sender's epoch, or (pre-vote) whether one would be given in
//! the next. Both sides.

use super::calls::{Call, CallKind, Peer};
use super::effects::{Effect, Effects, RequestId, Response};
use super::log_view::OffsetAndEpoch;
use super::messages::{
    Hint, named_endpoints, node_endpoints, only_partition, optional_id, replica_key,
};
use super::{Quorum, Role};
use crate::base::{ErrorCode, LeaderEpoch, Offset};
use crate::raft::METADATA_TOPIC;
use crate::raft::voters::ReplicaKey;
use crate::wire::messages::vote_request::{PartitionData, TopicData};
use crate::wire::messages::vote_response::{self, NodeEndpoint};
use crate::wire::messages::{VoteRequest, VoteResponse};

impl Quorum {
    pub(super) fn vote_request(&self, voter: &ReplicaKey, pre_vote: bool) -> VoteRequest {
        let last = self.log.last();
        VoteRequest {
            cluster_id: self.cluster_id(),
            voter_id: voter.id.0,
            topics: vec![TopicData {
                topic_name: METADATA_TOPIC.to_owned(),
                partitions: vec![PartitionData {
                    partition_index: 0,
                    replica_epoch: self.epoch.0,
                    replica_id: self.config.me.id.0,
                    replica_directory_id: self.config.me.wire_directory(),
                    voter_directory_id: voter.wire_directory(),
                    last_offset_epoch: last.epoch.0,
                    last_offset: last.offset.0,
                    pre_vote,
                }],
            }],
        }
    }

    pub(super) fn on_vote(
        &mut self,
        id: RequestId,
        api_version: i16,
        request: &VoteRequest,
        fx: &mut Effects,
    ) {
        let response = if self.is_other_cluster(&request.cluster_id) {
            top_level(ErrorCode::INCONSISTENT_CLUSTER_ID)
        } else {
            match only_partition!(request.topics, topic_name, partition_index) {
                None => top_level(ErrorCode::INVALID_REQUEST),
                Some(asked) => {
                    let (error, is_granted) = self.decide_vote(request.voter_id, asked, fx);
                    self.vote_response(api_version, error, is_granted)
                }
            }
        };
        let response = Response::Vote(response);
        self.outbox.send(Effect::Reply { id, response }, fx);
    }

    fn vote_response(
        &self,
        api_version: i16,
        error: ErrorCode,
        vote_granted: bool,
    ) -> VoteResponse {
        let node_endpoints = if api_version >= 1 {
            node_endpoints!(self, NodeEndpoint)
        } else {
            Vec::new()
        };
        VoteResponse {
            error_code: 0,
            topics: vec![vote_response::TopicData {
                topic_name: METADATA_TOPIC.to_owned(),
                partitions: vec![vote_response::PartitionData {
                    partition_index: 0,
                    error_code: error.0,
                    leader_id: self.wire_leader_id(),
                    leader_epoch: self.epoch.0,
                    vote_granted,
                }],
            }],
            node_endpoints,
        }
    }

    fn decide_vote(
        &mut self,
        voter_id: i32,
        asked: &PartitionData,
        fx: &mut Effects,
    ) -> (ErrorCode, bool) {
        // A candidate's log ends in an epoch before the one that it wants to lead.
        let is_epoch_wrong = if asked.pre_vote {
            asked.last_offset_epoch > asked.replica_epoch
        } else {
            asked.last_offset_epoch >= asked.replica_epoch
        };
        let is_negative =
            asked.last_offset < 0 || asked.last_offset_epoch < 0 || asked.replica_id < 0;
        if is_epoch_wrong || is_negative {
            return (ErrorCode::INVALID_REQUEST, false);
        }
        let error = self.check_voter_request(asked.replica_id, asked.replica_epoch);
        if !error.is_ok() {
            return (error, false);
        }
        if asked.replica_epoch > self.epoch.0 {
            self.become_unattached(LeaderEpoch(asked.replica_epoch), None, fx);
        }
        if self.is_for_another(voter_id, asked.voter_directory_id) {
            return (ErrorCode::INVALID_VOTER_KEY, false);
        }
        let candidate = replica_key(asked.replica_id, asked.replica_directory_id);
        let its_end = OffsetAndEpoch {
            epoch: LeaderEpoch(asked.last_offset_epoch),
            offset: Offset(asked.last_offset),
        };
        let is_up_to_date = its_end >= self.log.last();
        let is_granted = self.would_grant(&candidate, is_up_to_date, asked.pre_vote);
        if is_granted && !asked.pre_vote {
            self.grant(candidate, fx);
        }
        (ErrorCode::NONE, is_granted)
    }

    fn would_grant(&self, candidate: &ReplicaKey, is_up_to_date: bool, pre_vote: bool) -> bool {
        let (voted, has_leader) = match &self.role {
            Role::Unattached(state) => (state.voted, state.leader.is_some()),
            Role::Prospective(state) => (state.voted, state.leader.is_some()),
            Role::Candidate(_) | Role::Resigned(_) => return pre_vote && is_up_to_date,
            // Whoever has a leader doesn't help to replace it.
            Role::Follower(state) => return pre_vote && is_up_to_date && !state.has_fetched,
            Role::Leader(_) => return false,
        };
        if pre_vote {
            return is_up_to_date;
        }
        match voted {
            Some(voted) => {
                voted.id == candidate.id
                    && (voted.directory.is_none() || voted.directory == candidate.directory)
            }
            None => is_up_to_date && !has_leader,
        }
    }

    /// Remembers whom the vote of this epoch went to.
    fn grant(&mut self, candidate: ReplicaKey, fx: &mut Effects) {
        let election_at = self.election_deadline();
        match &mut self.role {
            Role::Unattached(state) if state.voted.is_none() => {
                state.voted = Some(candidate);
                state.election_at = election_at;
            }
            Role::Prospective(state) if state.voted.is_none() => state.voted = Some(candidate),
            // Again to the same candidate.
            Role::Unattached(_) | Role::Prospective(_) => {}
            _ => unreachable!("no other state grants votes"),
        }
        self.persist(fx);
    }

    pub(super) fn on_vote_response(
        &mut self,
        call: Call,
        response: &VoteResponse,
        fx: &mut Effects,
    ) {
        let partition = only_partition!(response.topics, topic_name, partition_index);
        let (0, Some(partition), Peer::Node(from)) = (response.error_code, partition, call.peer)
        else {
            return self.back_off(call.peer);
        };
        let leader = optional_id(partition.leader_id);
        let hint = Hint {
            error: ErrorCode(partition.error_code),
            epoch: LeaderEpoch(partition.leader_epoch),
            leader,
            endpoints: named_endpoints!(self, response.node_endpoints, leader),
        };
        if !self.on_hint(call, hint, fx) {
            return;
        }
        match (&mut self.role, call.kind) {
            (Role::Prospective(state), CallKind::PreVote) => {
                state.votes.add(from, partition.vote_granted);
            }
            (Role::Candidate(state), CallKind::Vote) => {
                state.votes.add(from, partition.vote_granted);
            }
            // The election is over.
            _ => {}
        }
    }
}

fn top_level(error: ErrorCode) -> VoteResponse {
    VoteResponse {
        error_code: error.0,
        ..Default::default()
    }
}
