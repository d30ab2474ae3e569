//! The one topic and partition in every message, and what all answers have in common: the
//! leader, the epoch, and the endpoints of the leader.

use super::Quorum;
use crate::base::{BrokerId, ErrorCode, LeaderEpoch, Uuid};
use crate::raft::METADATA_TOPIC;
use crate::raft::voters::{Endpoint, ReplicaKey};

/// What an answer says of the leader.
#[derive(Clone, Debug)]
pub(super) struct Hint {
    pub(super) error: ErrorCode,
    pub(super) epoch: LeaderEpoch,
    pub(super) leader: Option<BrokerId>,
    pub(super) endpoints: Vec<Endpoint>,
}

/// The only partition of the only topic of a request, or answer, that has no other.
macro_rules! only_partition {
    ($topics:expr, $name:ident, $index:ident) => {
        match &$topics[..] {
            [topic] if topic.$name == crate::raft::METADATA_TOPIC => match &topic.partitions[..] {
                [partition] if partition.$index == 0 => Some(partition),
                _ => None,
            },
            _ => None,
        }
    };
}
pub(super) use only_partition;

/// The leader's endpoint as an answer names it.
macro_rules! node_endpoints {
    ($quorum:expr, $type:path) => {
        $quorum
            .leader_endpoint()
            .map(|(id, endpoint)| {
                let mut node = <$type>::default();
                node.node_id = id.0;
                node.host = endpoint.host;
                node.port = endpoint.port.into();
                node
            })
            .into_iter()
            .collect()
    };
}
pub(super) use node_endpoints;

/// Endpoints of the leader as an answer names them.
macro_rules! named_endpoints {
    ($quorum:expr, $nodes:expr, $leader:expr) => {
        $nodes
            .iter()
            .filter(|node| Some(crate::base::BrokerId(node.node_id)) == $leader)
            .filter_map(|node| {
                Some(crate::raft::voters::Endpoint {
                    listener: $quorum.config.listener.clone(),
                    host: node.host.clone(),
                    port: u16::try_from(node.port).ok()?,
                })
            })
            .collect()
    };
}
pub(super) use named_endpoints;

pub(super) fn optional_id(id: i32) -> Option<BrokerId> {
    (id >= 0).then_some(BrokerId(id))
}

pub(super) fn replica_key(id: i32, directory: Uuid) -> ReplicaKey {
    ReplicaKey {
        id: BrokerId(id),
        directory: Some(directory).filter(|directory| !directory.is_zero()),
    }
}

pub(super) fn is_metadata_topic(name: &str, id: Uuid) -> bool {
    name == METADATA_TOPIC || id == Uuid::METADATA_TOPIC
}

impl Quorum {
    /// A request without a cluster id is for any.
    pub(super) fn is_other_cluster(&self, cluster_id: &Option<String>) -> bool {
        cluster_id
            .as_ref()
            .is_some_and(|id| *id != self.config.cluster_id)
    }

    pub(super) fn cluster_id(&self) -> Option<String> {
        Some(self.config.cluster_id.clone())
    }

    pub(super) fn wire_leader_id(&self) -> i32 {
        self.leader_id().map_or(-1, |id| id.0)
    }

    /// Where the leader is reached, once somebody may know that it leads.
    pub fn leader_endpoint(&self) -> Option<(BrokerId, Endpoint)> {
        let leader = self.leader_id()?;
        let endpoints = self.leader_endpoints(leader).unwrap_or_default();
        let known = endpoints
            .iter()
            .find(|e| e.listener == self.config.listener);
        let voter = self.log.voters().get(leader);
        let registered = voter.and_then(|voter| voter.endpoint(&self.config.listener));
        known.or(registered).map(|e| (leader, e.clone()))
    }

    /// Whether a request that names its receiver is for another one.
    pub(super) fn is_for_another(&self, id: i32, directory: Uuid) -> bool {
        if id < 0 {
            return false;
        }
        let me = self.config.me;
        let is_other_directory = !directory.is_zero() && me.directory != Some(directory);
        id != me.id.0 || is_other_directory
    }

    /// What is wrong with a request of a voter or leader to any replica.
    pub(super) fn check_voter_request(&self, from: i32, epoch: i32) -> ErrorCode {
        if epoch < self.epoch.0 {
            ErrorCode::FENCED_LEADER_EPOCH
        } else if from < 0 {
            ErrorCode::INVALID_REQUEST
        } else {
            ErrorCode::NONE
        }
    }

    /// What is wrong with a request to the leader of an epoch.
    pub(super) fn check_leader_request(&self, epoch: i32) -> ErrorCode {
        if epoch < self.epoch.0 {
            ErrorCode::FENCED_LEADER_EPOCH
        } else if epoch > self.epoch.0 {
            ErrorCode::UNKNOWN_LEADER_EPOCH
        } else if !matches!(self.role, super::Role::Leader(_)) {
            ErrorCode::NOT_LEADER_OR_FOLLOWER
        } else {
            ErrorCode::NONE
        }
    }
}
