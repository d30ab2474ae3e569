//! Changes of the voters by AddRaftVoter and RemoveRaftVoter (KIP-853), the leader's side:
//! one at a time, in effect when appended, answered when committed.

use super::calls::{Call, CallKind, Peer};
use super::effects::{Effect, Effects, Request, RequestId, Response};
use super::messages::replica_key;
use super::{Quorum, Role};
use crate::base::{BrokerId, ErrorCode, Nanos, Offset};
use crate::raft::control::ControlRecord;
use crate::raft::voters::{Endpoint, Voter, VoterSet};
use crate::wire::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, ApiVersionsRequest, ApiVersionsResponse,
    RemoveRaftVoterRequest, RemoveRaftVoterResponse,
};

const FEATURE: &str = "kraft.version";

/// What is wrong, and how it is told.
pub(super) type Refusal = (ErrorCode, Option<String>);

#[derive(Debug)]
pub(super) struct Change {
    request: RequestId,
    deadline: Nanos,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// The new voter is asked for the versions that it can run.
    Asking {
        voter: Voter,
        ack_when_committed: bool,
    },
    /// Its Voters record stands there.
    Adding(Offset),
    Removing(Offset),
}

impl Change {
    pub(super) fn deadline(&self) -> Nanos {
        self.deadline
    }

    /// Where a replica is reached that is to be added.
    pub(super) fn endpoints(&self, id: BrokerId) -> Option<Vec<Endpoint>> {
        match &self.step {
            Step::Asking { voter, .. } if voter.key.id == id => Some(voter.endpoints.clone()),
            _ => None,
        }
    }
}

impl Quorum {
    pub(super) fn on_add_voter(
        &mut self,
        id: RequestId,
        request: AddRaftVoterRequest,
        fx: &mut Effects,
    ) {
        match self.check_add_voter(&request) {
            Err((error, message)) => {
                let response = added(error, message);
                self.outbox.send(Effect::Reply { id, response }, fx);
            }
            Ok(voter) => {
                let peer = Peer::Node(voter.key.id);
                let deadline = self.after_ms(self.config.answer_timeout_ms);
                let Role::Leader(leader) = &mut self.role else {
                    unreachable!("only leaders change voters");
                };
                let name = format!("{:?}", voter.key);
                leader.change = Some(Change {
                    request: id,
                    deadline,
                    step: Step::Asking {
                        voter,
                        ack_when_committed: request.ack_when_committed,
                    },
                });
                let ask = |_: &Quorum| Request::ApiVersions(api_versions_request());
                if !self.maybe_call(CallKind::ApiVersions, peer, ask, fx) {
                    let message = format!("New voter {name} is not ready to receive requests");
                    self.end_change(ErrorCode::REQUEST_TIMED_OUT, Some(message), fx);
                }
            }
        }
    }

    fn check_add_voter(&self, request: &AddRaftVoterRequest) -> Result<Voter, Refusal> {
        self.check_change_request(&request.cluster_id)?;
        let key = replica_key(request.voter_id, request.voter_directory_id);
        if request.voter_id < 0 || key.directory.is_none() {
            let message = "Add voter request didn't include a valid voter";
            return Err((ErrorCode::INVALID_REQUEST, Some(message.to_owned())));
        }
        let endpoints: Vec<Endpoint> = request
            .listeners
            .iter()
            .map(|listener| Endpoint {
                listener: listener.name.clone(),
                host: listener.host.clone(),
                port: listener.port,
            })
            .collect();
        let listener = &self.config.listener;
        if !endpoints.iter().any(|e| e.listener == *listener) {
            let message = format!(
                "Add voter request didn't include the endpoint for the default listener {listener}"
            );
            return Err((ErrorCode::INVALID_REQUEST, Some(message)));
        }
        self.check_change("adding")?;
        if self.log.voters().get(key.id).is_some() {
            let message = format!("The voter id {} is already part of the voters.", key.id);
            return Err((ErrorCode::DUPLICATE_VOTER, Some(message)));
        }
        Ok(Voter::new(key.id, key.directory, endpoints))
    }

    fn check_change_request(&self, cluster_id: &Option<String>) -> Result<(), Refusal> {
        if self.is_other_cluster(cluster_id) {
            let message = format!(
                "The given id {:?} doesn't match the cluster id {:?}",
                cluster_id.as_deref().unwrap_or_default(),
                self.config.cluster_id
            );
            return Err((ErrorCode::INCONSISTENT_CLUSTER_ID, Some(message)));
        }
        let error = self.check_leader_request(self.epoch.0);
        if error.is_ok() {
            Ok(())
        } else {
            Err((error, None))
        }
    }

    /// What keeps the voters from being changed now.
    pub(super) fn check_change(&self, doing: &str) -> Result<(), Refusal> {
        let not_yet = |what: &str| {
            let message = format!("Request timed out waiting for {what}");
            Err((ErrorCode::REQUEST_TIMED_OUT, Some(message)))
        };
        let Role::Leader(leader) = &self.role else {
            unreachable!("only leaders change voters");
        };
        if leader.change.is_some() {
            return not_yet("leader to handle previous voter change request");
        }
        // Known by another leader's word it doesn't fence what that one began.
        let high_watermark = self.high_watermark.filter(|hw| *hw > leader.epoch_start);
        let Some(high_watermark) = high_watermark else {
            return not_yet("leader to establish HWM and fence previous voter changes");
        };
        let version = self.log.kraft_version();
        if version < 1 {
            let message = format!(
                "Cluster doesn't support {doing} voter because the {FEATURE} feature is {version}"
            );
            return Err((ErrorCode::UNSUPPORTED_VERSION, Some(message)));
        }
        if self
            .log
            .voters_offset()
            .is_none_or(|offset| offset >= high_watermark)
        {
            return not_yet("voters to commit the latest voter change");
        }
        Ok(())
    }

    pub(super) fn on_api_versions(
        &mut self,
        call: Call,
        response: &ApiVersionsResponse,
        fx: &mut Effects,
    ) {
        let Some((voter, ack_when_committed)) = self.asking(call) else {
            return;
        };
        let refused = |error, message: String| Err((error, Some(message)));
        let error = ErrorCode(response.error_code);
        let mut features = response.supported_features.iter();
        let range = features.find(|feature| feature.name == FEATURE);
        let range = range.map_or((0, 0), |range| (range.min_version, range.max_version));
        let version = self.log.kraft_version();
        let name = format!("{:?}", voter.key);
        let outcome = if !error.is_ok() {
            refused(
                ErrorCode::REQUEST_TIMED_OUT,
                format!("Aborted add voter operation since API_VERSIONS returned an error {error}"),
            )
        } else if version < range.0 || range.1 < version {
            refused(
                ErrorCode::INVALID_REQUEST,
                format!(
                    "Aborted add voter operation for {name} since the {FEATURE} range (min: {}, \
                     max: {}) doesn't support the finalized version {version}",
                    range.0, range.1
                ),
            )
        } else if !self.is_caught_up(&voter) {
            refused(
                ErrorCode::REQUEST_TIMED_OUT,
                format!("Aborted add voter operation for {name} since it is lagging behind"),
            )
        } else {
            Ok(Voter {
                kraft_versions: range,
                ..voter
            })
        };
        match outcome {
            Err((error, message)) => self.end_change(error, message, fx),
            Ok(voter) => {
                let voters = self.log.voters().with(voter);
                let offset = self.append_voters(&voters, fx);
                if let Role::Leader(leader) = &mut self.role
                    && let Some(change) = &mut leader.change
                {
                    change.step = Step::Adding(offset);
                }
                if !ack_when_committed {
                    self.end_change(ErrorCode::NONE, None, fx);
                }
            }
        }
    }

    /// The newcomer whose versions were asked for by this call.
    fn asking(&self, call: Call) -> Option<(Voter, bool)> {
        let Role::Leader(leader) = &self.role else {
            return None;
        };
        match &leader.change.as_ref()?.step {
            Step::Asking {
                voter,
                ack_when_committed,
            } if call.epoch == self.epoch && call.peer == Peer::Node(voter.key.id) => {
                Some((voter.clone(), *ack_when_committed))
            }
            _ => None,
        }
    }

    fn is_caught_up(&self, voter: &Voter) -> bool {
        match &self.role {
            Role::Leader(leader) => leader.replicas.is_caught_up(&voter.key, self.now.mono),
            _ => false,
        }
    }

    pub(super) fn on_no_api_versions(&mut self, call: Call, fx: &mut Effects) {
        if self.asking(call).is_some() {
            let message = "Aborted add voter operation since API_VERSIONS got no answer";
            self.end_change(ErrorCode::REQUEST_TIMED_OUT, Some(message.to_owned()), fx);
        }
    }

    pub(super) fn append_voters(&mut self, voters: &VoterSet, fx: &mut Effects) -> Offset {
        let record = ControlRecord::Voters(voters.to_record());
        self.append_control(vec![record], fx)
    }

    pub(super) fn on_remove_voter(
        &mut self,
        id: RequestId,
        request: &RemoveRaftVoterRequest,
        fx: &mut Effects,
    ) {
        match self.check_remove_voter(request) {
            Err((error, message)) => {
                let response = removed(error, message);
                self.outbox.send(Effect::Reply { id, response }, fx);
            }
            Ok(voters) => {
                let deadline = self.after_ms(self.config.answer_timeout_ms);
                // It may be committed as it is appended.
                let offset = self.log.end();
                if let Role::Leader(leader) = &mut self.role {
                    leader.change = Some(Change {
                        request: id,
                        deadline,
                        step: Step::Removing(offset),
                    });
                }
                self.append_voters(&voters, fx);
            }
        }
    }

    fn check_remove_voter(&self, request: &RemoveRaftVoterRequest) -> Result<VoterSet, Refusal> {
        self.check_change_request(&request.cluster_id)?;
        let key = replica_key(request.voter_id, request.voter_directory_id);
        if request.voter_id < 0 || key.directory.is_none() {
            let message = "Remove voter request didn't include a valid voter";
            return Err((ErrorCode::INVALID_REQUEST, Some(message.to_owned())));
        }
        self.check_change("removing")?;
        let others = self.log.voters().without(&key);
        // The last one stays: nobody could commit its removal.
        others.filter(|others| !others.is_empty()).ok_or_else(|| {
            let message = format!("Cannot remove voter {key:?} from the set of voters");
            (ErrorCode::VOTER_NOT_FOUND, Some(message))
        })
    }

    pub(super) fn maybe_complete_change(&mut self, high_watermark: Offset, fx: &mut Effects) {
        let Role::Leader(leader) = &self.role else {
            return;
        };
        let step = leader.change.as_ref().map(|change| &change.step);
        if let Some(Step::Adding(offset) | Step::Removing(offset)) = step
            && *offset < high_watermark
        {
            self.end_change(ErrorCode::NONE, None, fx);
        }
    }

    pub(super) fn maybe_expire_change(&mut self, fx: &mut Effects) {
        let Role::Leader(leader) = &self.role else {
            return;
        };
        let change = leader.change.as_ref();
        if change.is_some_and(|change| self.is_due(change.deadline)) {
            self.end_change(ErrorCode::REQUEST_TIMED_OUT, None, fx);
        }
    }

    fn end_change(&mut self, error: ErrorCode, message: Option<String>, fx: &mut Effects) {
        let Role::Leader(leader) = &mut self.role else {
            unreachable!("only leaders change voters");
        };
        if let Some(change) = leader.change.take() {
            self.answer_change(change, error, message, fx);
        }
    }

    /// This node leads no more: whether the change will be, others know.
    pub(super) fn refuse_change(&mut self, change: Change, fx: &mut Effects) {
        self.answer_change(change, ErrorCode::NOT_LEADER_OR_FOLLOWER, None, fx);
    }

    fn answer_change(
        &mut self,
        change: Change,
        error: ErrorCode,
        message: Option<String>,
        fx: &mut Effects,
    ) {
        let id = change.request;
        let response = match change.step {
            Step::Asking { .. } | Step::Adding(_) => added(error, message),
            Step::Removing(_) => removed(error, message),
        };
        self.outbox.send(Effect::Reply { id, response }, fx);
    }
}

fn added(error: ErrorCode, error_message: Option<String>) -> Response {
    Response::AddRaftVoter(AddRaftVoterResponse {
        throttle_time_ms: 0,
        error_code: error.0,
        error_message,
    })
}

fn removed(error: ErrorCode, error_message: Option<String>) -> Response {
    Response::RemoveRaftVoter(RemoveRaftVoterResponse {
        throttle_time_ms: 0,
        error_code: error.0,
        error_message,
    })
}

fn api_versions_request() -> ApiVersionsRequest {
    ApiVersionsRequest {
        client_software_name: "ottla".to_owned(),
        client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
