//! The leader's state, which a single voter enters at once and never leaves.

use super::METADATA_TOPIC;
use super::control::ControlRecord;
use super::quorum_state::ElectionState;
use super::voters::{ReplicaKey, VoterSet};
use crate::base::{ErrorCode, LeaderEpoch, Millis, Offset};
use crate::wire::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use crate::wire::messages::leader_change_message::Voter;
use crate::wire::messages::{
    DescribeQuorumRequest, DescribeQuorumResponse, KRaftVersionRecord, LeaderChangeMessage,
};

/// What a replica finds when it starts.
#[derive(Clone, Debug)]
pub struct Start {
    pub me: ReplicaKey,
    /// From the configuration, or the latest Voters record of log and snapshots.
    pub cluster_voters: VoterSet,
    /// 0: voters are configured. 1: they stand in the log.
    pub kraft_version: i16,
    /// Whether `kraft_version` and voters, if of version 1, are in the log already, and not
    /// only in the checkpoint that `format` wrote.
    pub are_voters_in_log: bool,
    /// Of the file `quorum-state`.
    pub election: Option<ElectionState>,
    /// Leader epoch of the log's last batch, or of the latest snapshot; 0 without either.
    pub last_epoch: i32,
    pub log_end_offset: Offset,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RaftError {
    #[error(
        "node {id} can't lead the metadata quorum alone: the voters are [{voters}]; quorums of \
         several controllers are not supported yet"
    )]
    NotTheOnlyVoter { id: i32, voters: String },
    #[error("kraft.version {0} is not supported (0 and 1 are)")]
    KraftVersion(i16),
}

/// The metadata log's replica on this node.
#[derive(Debug)]
pub struct Raft {
    me: ReplicaKey,
    voters: VoterSet,
    kraft_version: i16,
    must_write_voters: bool,
    epoch: LeaderEpoch,
    epoch_start: Offset,
    log_end_offset: Offset,
    /// Everything below is on stable storage.
    durable_end_offset: Offset,
    /// `None` until a record of this epoch is committed.
    high_watermark: Option<Offset>,
}

impl Raft {
    /// Elects this node. Nothing of the new epoch may be written before
    /// [`Raft::election_state`] is durable.
    pub fn start(start: Start) -> Result<Raft, RaftError> {
        if !(0..=1).contains(&start.kraft_version) {
            return Err(RaftError::KraftVersion(start.kraft_version));
        }
        if !start.cluster_voters.is_only_voter(&start.me) {
            let name = |voter: &super::Voter| match voter.key.directory {
                Some(directory) => format!("{}-{directory}", voter.key.id),
                None => voter.key.id.to_string(),
            };
            let voters: Vec<String> = start.cluster_voters.iter().map(name).collect();
            return Err(RaftError::NotTheOnlyVoter {
                id: start.me.id.0,
                voters: voters.join(", "),
            });
        }
        // Each start is an epoch of its own, above any that this replica knew.
        let known = start.election.map_or(0, |election| election.epoch.0);
        Ok(Raft {
            me: start.me,
            voters: start.cluster_voters,
            kraft_version: start.kraft_version,
            must_write_voters: start.kraft_version > 0 && !start.are_voters_in_log,
            epoch: LeaderEpoch(known.max(start.last_epoch) + 1),
            epoch_start: start.log_end_offset,
            log_end_offset: start.log_end_offset,
            durable_end_offset: start.log_end_offset,
            high_watermark: None,
        })
    }

    /// What `quorum-state` must say now.
    pub fn election_state(&self) -> ElectionState {
        ElectionState::leading(self.epoch, self.me.id)
    }

    /// Control records of the epoch's first batch.
    pub fn first_records(&self) -> Vec<ControlRecord> {
        let voter = |id: i32| Voter {
            voter_id: id,
            ..Default::default()
        };
        let mut records = vec![ControlRecord::LeaderChange(LeaderChangeMessage {
            version: 0,
            leader_id: self.me.id.0,
            voters: self.voters.iter().map(|v| voter(v.key.id.0)).collect(),
            granting_voters: vec![voter(self.me.id.0)],
        })];
        if self.must_write_voters {
            records.push(ControlRecord::KRaftVersion(KRaftVersionRecord {
                version: 0,
                kraft_version: self.kraft_version,
            }));
            records.push(ControlRecord::Voters(self.voters.to_record()));
        }
        records
    }

    /// The log grew to `end`.
    pub fn on_appended(&mut self, end: Offset) {
        assert!(end >= self.log_end_offset, "the leader's log never shrinks");
        self.log_end_offset = end;
    }

    /// Everything below `end` is on stable storage.
    pub fn on_durable(&mut self, end: Offset) {
        assert!(end <= self.log_end_offset, "durable before it was appended");
        self.durable_end_offset = self.durable_end_offset.max(end);
        // A record of this epoch must be committed before any older one counts as such.
        if self.durable_end_offset > self.epoch_start {
            let before = self.high_watermark;
            self.high_watermark = Some(self.durable_end_offset);
            assert!(
                before <= self.high_watermark,
                "the high watermark never falls"
            );
        }
    }

    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    pub fn kraft_version(&self) -> i16 {
        self.kraft_version
    }

    pub fn voters(&self) -> &VoterSet {
        &self.voters
    }

    pub fn log_end_offset(&self) -> Offset {
        self.log_end_offset
    }

    pub fn high_watermark(&self) -> Option<Offset> {
        self.high_watermark
    }

    /// The answer to DescribeQuorum, which only knows the metadata partition.
    pub fn describe_quorum(
        &self,
        request: &DescribeQuorumRequest,
        now_ms: Millis,
    ) -> DescribeQuorumResponse {
        let is_asked_alone = matches!(
            &request.topics[..],
            [topic] if topic.topic_name == METADATA_TOPIC
                && matches!(&topic.partitions[..], [partition] if partition.partition_index == 0)
        );
        if !is_asked_alone {
            return unknown_partitions(request);
        }
        let state = |voter: &super::Voter| ReplicaState {
            replica_id: voter.key.id.0,
            replica_directory_id: voter.key.wire_directory(),
            log_end_offset: self.durable_end_offset.0,
            last_fetch_timestamp: now_ms,
            last_caught_up_timestamp: now_ms,
        };
        let node = |voter: &super::Voter| Node {
            node_id: voter.key.id.0,
            listeners: voter
                .endpoints
                .iter()
                .map(|endpoint| Listener {
                    name: endpoint.listener.clone(),
                    host: endpoint.host.clone(),
                    port: endpoint.port,
                })
                .collect(),
        };
        let partition = PartitionData {
            leader_id: self.me.id.0,
            leader_epoch: self.epoch.0,
            high_watermark: self.high_watermark.map_or(-1, |offset| offset.0),
            current_voters: self.voters.iter().map(state).collect(),
            ..Default::default()
        };
        DescribeQuorumResponse {
            topics: vec![TopicData {
                topic_name: METADATA_TOPIC.to_owned(),
                partitions: vec![partition],
            }],
            nodes: self.voters.iter().map(node).collect(),
            ..Default::default()
        }
    }
}

pub(super) fn unknown_partitions(request: &DescribeQuorumRequest) -> DescribeQuorumResponse {
    let topics = request.topics.iter().map(|topic| TopicData {
        topic_name: topic.topic_name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| PartitionData {
                partition_index: partition.partition_index,
                error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0,
                error_message: Some("This server does not host this topic-partition.".to_owned()),
                ..Default::default()
            })
            .collect(),
    });
    DescribeQuorumResponse {
        topics: topics.collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::voters::{Endpoint, Voter as QuorumVoter};
    use super::*;
    use crate::base::{BrokerId, Uuid};
    use crate::wire::messages::describe_quorum_request;

    const DIRECTORY: Uuid = Uuid([5; 16]);

    fn start() -> Start {
        let endpoint = Endpoint {
            listener: "CONTROLLER".to_owned(),
            host: "localhost".to_owned(),
            port: 9093,
        };
        let voter = QuorumVoter::new(BrokerId(1), Some(DIRECTORY), vec![endpoint]);
        Start {
            me: voter.key,
            cluster_voters: VoterSet::single(voter),
            kraft_version: 1,
            are_voters_in_log: false,
            election: None,
            last_epoch: 0,
            log_end_offset: Offset(0),
        }
    }

    #[test]
    fn every_start_is_a_new_epoch() {
        let first = Raft::start(start()).unwrap();
        assert_eq!(first.epoch(), LeaderEpoch(1));
        assert_eq!(first.first_records().len(), 3);
        let second = Raft::start(Start {
            election: Some(first.election_state()),
            are_voters_in_log: true,
            last_epoch: 1,
            log_end_offset: Offset(9),
            ..start()
        })
        .unwrap();
        assert_eq!(second.epoch(), LeaderEpoch(2));
        assert_eq!(second.first_records().len(), 1);
        // A lost quorum-state does not bring an epoch back.
        let third = Raft::start(Start {
            last_epoch: 7,
            ..start()
        });
        assert_eq!(third.unwrap().epoch(), LeaderEpoch(8));
    }

    #[test]
    fn committed_is_what_is_durable_in_this_epoch() {
        let mut raft = Raft::start(Start {
            log_end_offset: Offset(10),
            ..start()
        })
        .unwrap();
        raft.on_durable(Offset(10));
        assert_eq!(raft.high_watermark(), None);
        raft.on_appended(Offset(13));
        assert_eq!(raft.high_watermark(), None);
        raft.on_durable(Offset(13));
        assert_eq!(raft.high_watermark(), Some(Offset(13)));
        raft.on_appended(Offset(15));
        assert_eq!(raft.high_watermark(), Some(Offset(13)));
    }

    #[test]
    fn others_among_the_voters_are_refused() {
        let other = QuorumVoter::new(BrokerId(2), Some(DIRECTORY), Vec::new());
        let both: VoterSet = start()
            .cluster_voters
            .iter()
            .cloned()
            .chain([other])
            .collect();
        let refused = Raft::start(Start {
            cluster_voters: both,
            ..start()
        });
        assert!(matches!(
            refused,
            Err(RaftError::NotTheOnlyVoter { id: 1, .. })
        ));
        let moved = ReplicaKey {
            directory: Some(Uuid([6; 16])),
            ..start().me
        };
        assert!(
            Raft::start(Start {
                me: moved,
                ..start()
            })
            .is_err()
        );
    }

    #[test]
    fn the_quorum_is_described() {
        let mut raft = Raft::start(start()).unwrap();
        raft.on_appended(Offset(3));
        raft.on_durable(Offset(3));
        let ask = |topic: &str, partition_index| DescribeQuorumRequest {
            topics: vec![describe_quorum_request::TopicData {
                topic_name: topic.to_owned(),
                partitions: vec![describe_quorum_request::PartitionData { partition_index }],
            }],
        };
        let response = raft.describe_quorum(&ask(METADATA_TOPIC, 0), 77);
        let partition = &response.topics[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        assert_eq!((partition.leader_id, partition.leader_epoch), (1, 1));
        assert_eq!(partition.high_watermark, 3);
        assert_eq!(partition.current_voters[0].last_caught_up_timestamp, 77);
        assert_eq!(response.nodes[0].listeners[0].port, 9093);
        let unknown = raft.describe_quorum(&ask("t", 0), 77);
        assert_eq!(unknown.topics[0].partitions[0].error_code, 3);
    }
}
