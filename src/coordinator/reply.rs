//! Answers that need no group: errors of whole requests in each API's shape, the error
//! codes that clients of a coordinator are told instead of the log's, and the forms that
//! older versions want. Used by the shard, the runtime, and handlers that have no
//! coordinator to ask.

use bytes::Bytes;

use crate::base::ErrorCode;
use crate::wire::messages::delete_groups_response::DeletableGroupResult;
use crate::wire::messages::describe_groups_response::DescribedGroup;
use crate::wire::messages::leave_group_request::MemberIdentity;
use crate::wire::messages::leave_group_response::MemberResponse;
use crate::wire::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use crate::wire::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use crate::wire::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use crate::wire::messages::{
    HeartbeatResponse, JoinGroupResponse, LeaveGroupResponse, OffsetCommitRequest,
    OffsetCommitResponse, OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse,
    SyncGroupResponse,
};

/// The error that a group API gives for one of appending to the log: clients of a
/// coordinator know the coordinator's errors only.
pub fn append_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        | ErrorCode::NOT_ENOUGH_REPLICAS
        | ErrorCode::REQUEST_TIMED_OUT => ErrorCode::COORDINATOR_NOT_AVAILABLE,
        ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::KAFKA_STORAGE_ERROR => {
            ErrorCode::NOT_COORDINATOR
        }
        ErrorCode::MESSAGE_TOO_LARGE
        | ErrorCode::RECORD_LIST_TOO_LARGE
        | ErrorCode::INVALID_FETCH_SIZE => ErrorCode::UNKNOWN_SERVER_ERROR,
        ErrorCode::NETWORK_EXCEPTION => ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
        other => other,
    }
}

/// As [`append_error`], for OffsetFetch: consumers before 3.9 don't expect
/// COORDINATOR_NOT_AVAILABLE there.
pub fn fetch_operation_error(error: ErrorCode) -> ErrorCode {
    match append_error(error) {
        ErrorCode::COORDINATOR_NOT_AVAILABLE => ErrorCode::NOT_COORDINATOR,
        other => other,
    }
}

pub fn join_group_error(member_id: &str, error: ErrorCode) -> JoinGroupResponse {
    JoinGroupResponse {
        error_code: error.0,
        member_id: member_id.to_owned(),
        ..JoinGroupResponse::default()
    }
}

/// A JoinGroup answer in the form of its version: without a protocol, the name is empty
/// below version 7 and null from there on.
pub fn join_group_response(mut response: JoinGroupResponse, version: i16) -> JoinGroupResponse {
    let name = response.protocol_name.take().unwrap_or_default();
    response.protocol_name = Some(name).filter(|name| version < 7 || !name.is_empty());
    response
}

pub fn sync_group_error(error: ErrorCode) -> SyncGroupResponse {
    SyncGroupResponse {
        error_code: error.0,
        assignment: Bytes::new(),
        ..SyncGroupResponse::default()
    }
}

pub fn heartbeat_error(error: ErrorCode) -> HeartbeatResponse {
    HeartbeatResponse {
        error_code: error.0,
        ..HeartbeatResponse::default()
    }
}

pub fn leave_group_error(error: ErrorCode) -> LeaveGroupResponse {
    LeaveGroupResponse {
        error_code: error.0,
        ..LeaveGroupResponse::default()
    }
}

/// What LeaveGroup says where the group is unknown: each member is.
pub fn leave_unknown_group(members: &[MemberIdentity]) -> Vec<MemberResponse> {
    members
        .iter()
        .map(|member| leave_result(member, ErrorCode::UNKNOWN_MEMBER_ID))
        .collect()
}

pub fn leave_result(member: &MemberIdentity, error: ErrorCode) -> MemberResponse {
    MemberResponse {
        member_id: member.member_id.clone(),
        group_instance_id: member.group_instance_id.clone(),
        error_code: error.0,
    }
}

/// A LeaveGroup answer in the form of its version: below 3 the one member's error is the
/// whole answer.
pub fn leave_group_response(response: LeaveGroupResponse, version: i16) -> LeaveGroupResponse {
    if version >= 3 {
        return response;
    }
    let error = match response.error_code {
        0 => response.members.first().map_or(0, |m| m.error_code),
        error => error,
    };
    leave_group_error(ErrorCode(error))
}

pub fn commit_error(request: &OffsetCommitRequest, error: ErrorCode) -> OffsetCommitResponse {
    OffsetCommitResponse {
        topics: request
            .topics
            .iter()
            .map(|topic| OffsetCommitResponseTopic {
                name: topic.name.clone(),
                topic_id: topic.topic_id,
                partitions: topic
                    .partitions
                    .iter()
                    .map(|partition| OffsetCommitResponsePartition {
                        partition_index: partition.partition_index,
                        error_code: error.0,
                    })
                    .collect(),
            })
            .collect(),
        ..OffsetCommitResponse::default()
    }
}

/// One group's OffsetFetch error; version 1 can only tell it for each partition.
pub fn fetch_error(
    group: &OffsetFetchRequestGroup,
    error: ErrorCode,
    version: i16,
) -> OffsetFetchResponseGroup {
    if version >= 2 {
        return OffsetFetchResponseGroup {
            group_id: group.group_id.clone(),
            error_code: error.0,
            ..OffsetFetchResponseGroup::default()
        };
    }
    let topics = group.topics.as_deref().unwrap_or_default();
    OffsetFetchResponseGroup {
        group_id: group.group_id.clone(),
        topics: topics
            .iter()
            .map(|topic| OffsetFetchResponseTopics {
                name: topic.name.clone(),
                partitions: topic
                    .partition_indexes
                    .iter()
                    .map(|&partition| no_offset(partition, error))
                    .collect(),
                ..OffsetFetchResponseTopics::default()
            })
            .collect(),
        ..OffsetFetchResponseGroup::default()
    }
}

/// A partition of an OffsetFetch answer without an offset.
pub fn no_offset(partition: i32, error: ErrorCode) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index: partition,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some(String::new()),
        error_code: error.0,
    }
}

/// The groups that an OffsetFetch asks for; below version 8 it is one, in other fields.
pub fn offset_fetch_groups(
    request: OffsetFetchRequest,
    version: i16,
) -> Vec<OffsetFetchRequestGroup> {
    if version >= 8 {
        return request.groups;
    }
    vec![OffsetFetchRequestGroup {
        group_id: request.group_id,
        topics: request.topics.map(|topics| {
            topics
                .into_iter()
                .map(|topic| OffsetFetchRequestTopics {
                    name: topic.name,
                    partition_indexes: topic.partition_indexes,
                    ..OffsetFetchRequestTopics::default()
                })
                .collect()
        }),
        ..OffsetFetchRequestGroup::default()
    }]
}

/// The answer for these groups in the form of its version. Below version 8 it is one group.
pub fn offset_fetch_response(
    mut groups: Vec<OffsetFetchResponseGroup>,
    version: i16,
) -> OffsetFetchResponse {
    if version >= 8 {
        return OffsetFetchResponse {
            groups,
            ..OffsetFetchResponse::default()
        };
    }
    assert_eq!(groups.len(), 1, "one group was asked for");
    let group = groups.remove(0);
    OffsetFetchResponse {
        error_code: group.error_code,
        topics: group
            .topics
            .into_iter()
            .map(|topic| OffsetFetchResponseTopic {
                name: topic.name,
                partitions: topic
                    .partitions
                    .into_iter()
                    .map(|partition| OffsetFetchResponsePartition {
                        partition_index: partition.partition_index,
                        committed_offset: partition.committed_offset,
                        committed_leader_epoch: partition.committed_leader_epoch,
                        metadata: partition.metadata,
                        error_code: partition.error_code,
                    })
                    .collect(),
            })
            .collect(),
        ..OffsetFetchResponse::default()
    }
}

pub fn offset_delete_error(error: ErrorCode) -> OffsetDeleteResponse {
    OffsetDeleteResponse {
        error_code: error.0,
        ..OffsetDeleteResponse::default()
    }
}

pub fn describe_error(groups: &[String], error: ErrorCode) -> Vec<DescribedGroup> {
    groups
        .iter()
        .map(|group| DescribedGroup {
            group_id: group.clone(),
            error_code: error.0,
            ..DescribedGroup::default()
        })
        .collect()
}

pub fn delete_groups_error(groups: &[String], error: ErrorCode) -> Vec<DeletableGroupResult> {
    groups
        .iter()
        .map(|group| delete_group_result(group, error))
        .collect()
}

pub fn delete_group_result(group: &str, error: ErrorCode) -> DeletableGroupResult {
    DeletableGroupResult {
        group_id: group.to_owned(),
        error_code: error.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_log_become_errors_of_a_coordinator() {
        let told = |code: i16| append_error(ErrorCode(code)).0;
        for (log, coordinator) in [(3, 15), (19, 15), (7, 15), (6, 16), (56, 16), (13, 14)] {
            assert_eq!(told(log), coordinator);
        }
        for log in [10, 18, 4] {
            assert_eq!(told(log), -1);
        }
        assert_eq!(told(25), 25);
        assert_eq!(fetch_operation_error(ErrorCode(7)).0, 16);
    }

    #[test]
    fn a_missing_protocol_is_empty_or_null_by_version() {
        let named = |name: Option<&str>, version| {
            let response = JoinGroupResponse {
                protocol_name: name.map(str::to_owned),
                ..JoinGroupResponse::default()
            };
            join_group_response(response, version).protocol_name
        };
        assert_eq!(named(None, 6).as_deref(), Some(""));
        assert_eq!(named(Some(""), 7), None);
        assert_eq!(named(None, 9), None);
        assert_eq!(named(Some("range"), 9).as_deref(), Some("range"));
    }

    #[test]
    fn leave_before_version_3_has_one_error() {
        let response = LeaveGroupResponse {
            members: vec![MemberResponse {
                error_code: 25,
                ..MemberResponse::default()
            }],
            ..LeaveGroupResponse::default()
        };
        let old = leave_group_response(response.clone(), 2);
        assert_eq!((old.error_code, old.members.len()), (25, 0));
        assert_eq!(leave_group_response(response.clone(), 3), response);
    }

    #[test]
    fn offset_fetch_of_any_version_is_one_form() {
        let request = OffsetFetchRequest {
            group_id: "g".into(),
            topics: None,
            ..OffsetFetchRequest::default()
        };
        let groups = offset_fetch_groups(request, 2);
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].topics, None);
        let error = fetch_error(&groups[0], ErrorCode(16), 2);
        assert_eq!(offset_fetch_response(vec![error], 2).error_code, 16);
    }
}
