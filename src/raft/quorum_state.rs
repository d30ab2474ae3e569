//! The file `quorum-state`: in which epoch this replica is, whom it knows as leader, whom
//! it gave its vote. One line of JSON, fsynced before anybody learns of a change.
//!
//! ```text
//!   {"clusterId":"","leaderId":1,"leaderEpoch":2,"votedId":-1,"appliedOffset":0,"currentVoters":[{"voterId":1}],"data_version":0}
//!   {"leaderId":1,"leaderEpoch":2,"votedId":-1,"votedDirectoryId":"AAAAAAAAAAAAAAAAAAAAAA","data_version":1}
//! ```
//! Version 0 goes with kraft.version 0, version 1 with kraft.version 1.

use serde_json::{Map, Value, json};

use super::voters::{ReplicaKey, VoterSet};
use crate::base::{BrokerId, LeaderEpoch, Uuid};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElectionState {
    pub epoch: LeaderEpoch,
    pub leader: Option<BrokerId>,
    pub voted: Option<ReplicaKey>,
}

#[derive(Debug, thiserror::Error)]
pub enum QuorumStateError {
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("field {0} is missing or of the wrong type")]
    Field(&'static str),
    #[error("data_version {0} is not supported (0 and 1 are)")]
    Version(i64),
}

const NONE: i64 = -1;

impl ElectionState {
    pub fn leading(epoch: LeaderEpoch, leader: BrokerId) -> ElectionState {
        ElectionState {
            epoch,
            leader: Some(leader),
            voted: None,
        }
    }

    /// Reads the file's bytes.
    pub fn parse(bytes: &[u8]) -> Result<ElectionState, QuorumStateError> {
        let Value::Object(object) = serde_json::from_slice(bytes)? else {
            return Err(QuorumStateError::Field("{}"));
        };
        let version = integer(&object, "data_version")?;
        if !(0..=1).contains(&version) {
            return Err(QuorumStateError::Version(version));
        }
        let id = |name| {
            let id = integer(&object, name)?;
            let id = i32::try_from(id).map_err(|_| QuorumStateError::Field(name))?;
            Ok::<_, QuorumStateError>((id >= 0).then_some(BrokerId(id)))
        };
        let epoch = integer(&object, "leaderEpoch")?;
        let epoch = i32::try_from(epoch).map_err(|_| QuorumStateError::Field("leaderEpoch"))?;
        let directory = if version == 1 {
            let text = object.get("votedDirectoryId").and_then(Value::as_str);
            let parsed = text.and_then(|text| text.parse::<Uuid>().ok());
            let directory = parsed.ok_or(QuorumStateError::Field("votedDirectoryId"))?;
            Some(directory).filter(|id| !id.is_zero())
        } else {
            None
        };
        Ok(ElectionState {
            epoch: LeaderEpoch(epoch),
            leader: id("leaderId")?,
            voted: id("votedId")?.map(|id| ReplicaKey { id, directory }),
        })
    }

    /// The file's bytes at a kraft.version.
    pub fn to_bytes(&self, kraft_version: i16, voters: &VoterSet) -> Vec<u8> {
        let leader = self.leader.map_or(NONE, |id| i64::from(id.0));
        let voted = self.voted.map_or(NONE, |key| i64::from(key.id.0));
        let object = if kraft_version == 0 {
            let voters: Vec<Value> = voters
                .iter()
                .map(|voter| json!({"voterId": voter.key.id.0}))
                .collect();
            json!({
                "clusterId": "",
                "leaderId": leader,
                "leaderEpoch": self.epoch.0,
                "votedId": voted,
                "appliedOffset": 0,
                "currentVoters": voters,
                "data_version": 0,
            })
        } else {
            let directory = self.voted.map_or(Uuid::ZERO, |key| key.wire_directory());
            json!({
                "leaderId": leader,
                "leaderEpoch": self.epoch.0,
                "votedId": voted,
                "votedDirectoryId": directory.to_string(),
                "data_version": 1,
            })
        };
        object.to_string().into_bytes()
    }
}

fn integer(object: &Map<String, Value>, name: &'static str) -> Result<i64, QuorumStateError> {
    let field = object.get(name).and_then(Value::as_i64);
    field.ok_or(QuorumStateError::Field(name))
}

#[cfg(test)]
mod tests {
    use super::super::voters::Voter;
    use super::*;

    /// Written by Apache Kafka 4.3.1.
    const KAFKAS: &str = r#"{"leaderId":1,"leaderEpoch":3,"votedId":-1,"votedDirectoryId":"AAAAAAAAAAAAAAAAAAAAAA","data_version":1}"#;

    #[test]
    fn version_1_is_kafkas() {
        let state = ElectionState::parse(KAFKAS.as_bytes()).unwrap();
        assert_eq!(state, ElectionState::leading(LeaderEpoch(3), BrokerId(1)));
        let bytes = state.to_bytes(1, &VoterSet::default());
        assert_eq!(String::from_utf8(bytes).unwrap(), KAFKAS);
    }

    #[test]
    fn version_0_round_trip() {
        let voters = VoterSet::single(Voter::new(BrokerId(1), None, Vec::new()));
        let state = ElectionState {
            epoch: LeaderEpoch(2),
            leader: None,
            voted: Some(ReplicaKey::without_directory(BrokerId(1))),
        };
        let bytes = state.to_bytes(0, &voters);
        assert_eq!(ElectionState::parse(&bytes).unwrap(), state);
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            r#"{"clusterId":"","leaderId":-1,"leaderEpoch":2,"votedId":1,"appliedOffset":0,"currentVoters":[{"voterId":1}],"data_version":0}"#
        );
    }

    #[test]
    fn what_is_wrong_is_told() {
        assert!(matches!(
            ElectionState::parse(b""),
            Err(QuorumStateError::Json(_))
        ));
        assert!(matches!(
            ElectionState::parse(br#"{"data_version":2}"#),
            Err(QuorumStateError::Version(2))
        ));
        assert!(matches!(
            ElectionState::parse(br#"{"data_version":0,"leaderId":1}"#),
            Err(QuorumStateError::Field("leaderEpoch"))
        ));
    }
}
