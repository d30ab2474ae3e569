//! Who votes: the set of controllers, from the configuration (kraft.version 0) or from a
//! Voters record of the log (kraft.version 1).

use std::collections::BTreeMap;

use crate::base::{BrokerId, Uuid};
use crate::wire::messages::VotersRecord;
use crate::wire::messages::voters_record::{self, KRaftVersionFeature};

/// A replica of the metadata log: a node may come back with another directory, and is
/// then another replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaKey {
    pub id: BrokerId,
    /// `None` in quorums without directory ids.
    pub directory: Option<Uuid>,
}

impl ReplicaKey {
    pub fn without_directory(id: BrokerId) -> ReplicaKey {
        ReplicaKey {
            id,
            directory: None,
        }
    }

    /// The directory's id as messages hold it.
    pub fn wire_directory(&self) -> Uuid {
        self.directory.unwrap_or(Uuid::ZERO)
    }
}

/// Name of a listener, host and port where a voter is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub listener: String,
    pub host: String,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    pub key: ReplicaKey,
    pub endpoints: Vec<Endpoint>,
    /// Lowest and highest kraft.version that it can run.
    pub kraft_versions: (i16, i16),
}

/// kraft.version that this code can run.
pub const KRAFT_VERSIONS: (i16, i16) = (0, 1);

impl Voter {
    /// Where it is reached by a listener's name.
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|e| e.listener == listener)
    }

    pub fn new(id: BrokerId, directory: Option<Uuid>, endpoints: Vec<Endpoint>) -> Voter {
        Voter {
            key: ReplicaKey { id, directory },
            endpoints,
            kraft_versions: KRAFT_VERSIONS,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VoterSet {
    voters: BTreeMap<BrokerId, Voter>,
}

impl VoterSet {
    pub fn single(voter: Voter) -> VoterSet {
        [voter].into_iter().collect()
    }

    pub fn get(&self, id: BrokerId) -> Option<&Voter> {
        self.voters.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Voter> {
        self.voters.values()
    }

    pub fn len(&self) -> usize {
        self.voters.len()
    }

    pub fn is_empty(&self) -> bool {
        self.voters.is_empty()
    }

    /// Whether `key` is a voter: id and, where the set has one, directory.
    pub fn is_voter(&self, key: &ReplicaKey) -> bool {
        self.get(key.id).is_some_and(|voter| {
            voter.key.directory.is_none() || voter.key.directory == key.directory
        })
    }

    /// With one more voter; its id must be new.
    pub fn with(&self, voter: Voter) -> VoterSet {
        assert!(self.get(voter.key.id).is_none(), "one voter for an id");
        self.iter().cloned().chain([voter]).collect()
    }

    /// Without the voter of exactly this id and directory; `None` where there is none.
    pub fn without(&self, key: &ReplicaKey) -> Option<VoterSet> {
        let is_there = self.get(key.id).is_some_and(|voter| voter.key == *key);
        is_there.then(|| {
            let others = self.iter().filter(|voter| voter.key != *key);
            others.cloned().collect()
        })
    }

    /// With the data of a voter replaced; `None` where it doesn't vote.
    pub fn updated(&self, voter: Voter) -> Option<VoterSet> {
        self.is_voter(&voter.key).then(|| {
            let mut voters = self.voters.clone();
            voters.insert(voter.key.id, voter);
            VoterSet { voters }
        })
    }

    /// How many voters are more than half.
    pub fn majority(&self) -> usize {
        self.len() / 2 + 1
    }

    pub fn is_only_voter(&self, key: &ReplicaKey) -> bool {
        self.len() == 1 && self.is_voter(key)
    }

    pub fn from_record(record: &VotersRecord) -> VoterSet {
        let voters = record.voters.iter().map(|voter| Voter {
            key: ReplicaKey {
                id: BrokerId(voter.voter_id),
                directory: Some(voter.voter_directory_id).filter(|id| !id.is_zero()),
            },
            endpoints: voter
                .endpoints
                .iter()
                .map(|endpoint| Endpoint {
                    listener: endpoint.name.clone(),
                    host: endpoint.host.clone(),
                    port: endpoint.port,
                })
                .collect(),
            kraft_versions: (
                voter.kraft_version_feature.min_supported_version,
                voter.kraft_version_feature.max_supported_version,
            ),
        });
        voters.collect()
    }

    pub fn to_record(&self) -> VotersRecord {
        VotersRecord {
            version: 0,
            voters: self
                .iter()
                .map(|voter| voters_record::Voter {
                    voter_id: voter.key.id.0,
                    voter_directory_id: voter.key.wire_directory(),
                    endpoints: voter
                        .endpoints
                        .iter()
                        .map(|endpoint| voters_record::Endpoint {
                            name: endpoint.listener.clone(),
                            host: endpoint.host.clone(),
                            port: endpoint.port,
                        })
                        .collect(),
                    kraft_version_feature: KRaftVersionFeature {
                        min_supported_version: voter.kraft_versions.0,
                        max_supported_version: voter.kraft_versions.1,
                    },
                })
                .collect(),
        }
    }
}

impl FromIterator<Voter> for VoterSet {
    fn from_iter<I: IntoIterator<Item = Voter>>(voters: I) -> Self {
        VoterSet {
            voters: voters.into_iter().map(|v| (v.key.id, v)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_round_trip_and_membership() {
        let directory = Uuid([3; 16]);
        let endpoint = Endpoint {
            listener: "CONTROLLER".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: 9093,
        };
        let voters = VoterSet::single(Voter::new(BrokerId(1), Some(directory), vec![endpoint]));
        assert_eq!(VoterSet::from_record(&voters.to_record()), voters);
        let key = |id, directory| ReplicaKey {
            id: BrokerId(id),
            directory,
        };
        assert!(voters.is_only_voter(&key(1, Some(directory))));
        assert!(!voters.is_voter(&key(1, Some(Uuid([4; 16])))));
        assert!(!voters.is_voter(&key(1, None)));
        let fixed = VoterSet::single(Voter::new(BrokerId(1), None, Vec::new()));
        assert!(fixed.is_voter(&key(1, Some(directory))));
        assert!(!fixed.is_voter(&key(2, None)));
    }
}
