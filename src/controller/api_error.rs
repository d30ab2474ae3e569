//! A Kafka error code with the text that goes along with it (Kafka's `ApiError`).

use crate::base::ErrorCode;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    pub code: ErrorCode,
    /// `None` where the code says it all.
    pub message: Option<String>,
}

impl ApiError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> ApiError {
        ApiError {
            code,
            message: Some(message.into()),
        }
    }

    /// With Kafka's general text of the code.
    pub fn general(code: ErrorCode) -> ApiError {
        let text = match code {
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => {
                "This server does not host this topic-partition."
            }
            ErrorCode::UNKNOWN_TOPIC_ID => "This server does not host this topic ID.",
            ErrorCode::TOPIC_AUTHORIZATION_FAILED => "Topic authorization failed.",
            ErrorCode::GROUP_AUTHORIZATION_FAILED => "Group authorization failed.",
            ErrorCode::CLUSTER_AUTHORIZATION_FAILED => "Cluster authorization failed.",
            ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED => {
                "Transactional Id authorization failed."
            }
            ErrorCode::COORDINATOR_NOT_AVAILABLE => "The coordinator is not available.",
            ErrorCode::ELECTION_NOT_NEEDED => "Leader election not needed for topic partition.",
            ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE => "The preferred leader was not available.",
            ErrorCode::ELIGIBLE_LEADERS_NOT_AVAILABLE => {
                "Eligible topic partition leaders are not available."
            }
            ErrorCode::NO_REASSIGNMENT_IN_PROGRESS => "No partition reassignment is in progress.",
            ErrorCode::NOT_CONTROLLER => "This is not the correct controller for this cluster.",
            _ => return ApiError::silent(code),
        };
        ApiError::new(code, text)
    }

    /// Without text: where Kafka leaves it out because the code's own would be repeated.
    pub fn silent(code: ErrorCode) -> ApiError {
        ApiError {
            code,
            message: None,
        }
    }
}

/// Code and text of a result as response fields hold them.
pub fn fields(result: Result<(), ApiError>) -> (i16, Option<String>) {
    match result {
        Ok(()) => (ErrorCode::NONE.0, None),
        Err(error) => (error.code.0, error.message),
    }
}
