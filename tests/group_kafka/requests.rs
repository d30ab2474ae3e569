//! Requests as consumers and administrators send them, and the steps that most sessions
//! share.

use bytes::Bytes;
use ottla::wire::messages::join_group_request::JoinGroupRequestProtocol;
use ottla::wire::messages::leave_group_request::MemberIdentity;
use ottla::wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla::wire::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use ottla::wire::messages::sync_group_request::SyncGroupRequestAssignment;
use ottla::wire::messages::{
    DescribeGroupsRequest, DescribeGroupsResponse, HeartbeatRequest, HeartbeatResponse,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    SyncGroupRequest, SyncGroupResponse,
};

use crate::session::{Session, TOPIC};

const SUBSCRIPTION: &[u8] = b"\0\0\0\0\0\x01\0\x05topic\xff\xff\xff\xff";

pub fn protocols_of(names: &[&str]) -> Vec<JoinGroupRequestProtocol> {
    names
        .iter()
        .map(|name| JoinGroupRequestProtocol {
            name: (*name).into(),
            metadata: Bytes::from_static(SUBSCRIPTION),
        })
        .collect()
}

pub fn join_request(group: &str, member_id: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.into(),
        // Longer than a session with Kafka takes.
        session_timeout_ms: 600_000,
        rebalance_timeout_ms: 600_000,
        member_id: member_id.into(),
        protocol_type: "consumer".into(),
        protocols: protocols_of(&["range", "roundrobin"]),
        ..JoinGroupRequest::default()
    }
}

pub fn static_join(group: &str, instance: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_instance_id: Some(instance.into()),
        ..join_request(group, "")
    }
}

pub fn join(
    s: &mut Session<'_>,
    conn: &str,
    v: i16,
    request: &JoinGroupRequest,
) -> JoinGroupResponse {
    s.call(conn, v, request)
}

/// Gets an id where the version wants one, then sends the join that parks.
pub fn start_join(s: &mut Session<'_>, conn: &str, v: i16, group: &str) {
    let mut request = join_request(group, "");
    if v >= 4 {
        let given: JoinGroupResponse = s.call(conn, v, &request);
        assert_eq!(given.error_code, 79);
        request.member_id = given.member_id;
    }
    s.send(conn, v, &request);
}

pub fn joined(s: &mut Session<'_>, conn: &str, v: i16) -> JoinGroupResponse {
    let joined: JoinGroupResponse = s.receive(conn, v);
    assert_eq!(joined.error_code, 0, "{conn}: {joined:?}");
    joined
}

pub fn sync_request(group: &str, joined: &JoinGroupResponse, v: i16) -> SyncGroupRequest {
    let named = |text: &str| Some(text.to_owned()).filter(|_| v >= 5);
    SyncGroupRequest {
        group_id: group.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: named(joined.protocol_type.as_deref().unwrap_or("consumer")),
        protocol_name: named(joined.protocol_name.as_deref().unwrap_or_default()),
        assignments: joined
            .members
            .iter()
            .enumerate()
            .map(|(index, member)| SyncGroupRequestAssignment {
                member_id: member.member_id.clone(),
                assignment: format!("assignment {index}").into(),
            })
            .collect(),
        ..SyncGroupRequest::default()
    }
}

pub fn sync(
    s: &mut Session<'_>,
    conn: &str,
    v: i16,
    request: &SyncGroupRequest,
) -> SyncGroupResponse {
    s.call(conn, v, request)
}

pub fn heartbeat(s: &mut Session<'_>, conn: &str, group: &str, of: &JoinGroupResponse) -> i16 {
    let request = HeartbeatRequest {
        group_id: group.into(),
        generation_id: of.generation_id,
        member_id: of.member_id.clone(),
        ..HeartbeatRequest::default()
    };
    let response: HeartbeatResponse = s.call(conn, 4, &request);
    response.error_code
}

pub fn leave(s: &mut Session<'_>, conn: &str, group: &str, members: &[(&str, Option<&str>)]) {
    let request = LeaveGroupRequest {
        group_id: group.into(),
        members: members
            .iter()
            .map(|(id, instance)| MemberIdentity {
                member_id: (*id).into(),
                group_instance_id: instance.map(str::to_owned),
                ..MemberIdentity::default()
            })
            .collect(),
        ..LeaveGroupRequest::default()
    };
    let _: LeaveGroupResponse = s.call(conn, 5, &request);
}

pub fn describe(s: &mut Session<'_>, group: &str) -> DescribeGroupsResponse {
    let request = DescribeGroupsRequest {
        groups: vec![group.into()],
        ..DescribeGroupsRequest::default()
    };
    s.call("admin", 6, &request)
}

pub fn commit_request(group: &str, offset: i64) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: group.into(),
        topics: vec![OffsetCommitRequestTopic {
            name: TOPIC.into(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 1,
                committed_offset: offset,
                committed_leader_epoch: 0,
                committed_metadata: Some("metadata".into()),
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    }
}

pub fn commit(s: &mut Session<'_>, conn: &str, v: i16, request: &OffsetCommitRequest) -> i16 {
    let mut request = request.clone();
    if v >= 10 {
        request.topics[0].topic_id = s.topic_id();
    }
    let response: OffsetCommitResponse = s.call(conn, v, &request);
    response.topics[0].partitions[0].error_code
}

/// A group of these members, stable; the first leads.
pub fn stable_group(s: &mut Session<'_>, group: &str, conns: &[&str]) -> Vec<JoinGroupResponse> {
    for conn in conns {
        start_join(s, conn, 9, group);
    }
    let members: Vec<JoinGroupResponse> = conns.iter().map(|conn| joined(s, conn, 9)).collect();
    for (conn, member) in conns.iter().zip(&members).rev() {
        s.send(conn, 5, &sync_request(group, member, 5));
    }
    for conn in conns {
        let synced: SyncGroupResponse = s.receive(conn, 5);
        assert_eq!(synced.error_code, 0);
    }
    members
}

pub fn delete_offset(s: &mut Session<'_>, group: &str, partition: i32) {
    let request = OffsetDeleteRequest {
        group_id: group.into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: TOPIC.into(),
            partitions: vec![OffsetDeleteRequestPartition {
                partition_index: partition,
            }],
        }],
    };
    let _: OffsetDeleteResponse = s.call("admin", 0, &request);
}
