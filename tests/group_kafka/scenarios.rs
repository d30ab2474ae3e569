//! The sessions. Each uses groups of its own.

use bytes::Bytes;
use ottla::wire::messages::join_group_request::JoinGroupRequestProtocol;
use ottla::wire::messages::leave_group_request::MemberIdentity;
use ottla::wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla::wire::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use ottla::wire::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use ottla::wire::messages::sync_group_request::SyncGroupRequestAssignment;
use ottla::wire::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, OffsetCommitRequest,
    OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest,
    OffsetFetchResponse, SyncGroupRequest, SyncGroupResponse,
};

use crate::session::{Session, TOPIC};

pub type Scenario = fn(&mut Session<'_>);

pub const ALL: &[(&str, Scenario)] = &[
    ("one member, join 0 sync 0", |s| {
        one_member(s, "one-0", 0, 0)
    }),
    ("one member, join 1 sync 1", |s| {
        one_member(s, "one-1", 1, 1)
    }),
    ("one member, join 2 sync 2", |s| {
        one_member(s, "one-2", 2, 2)
    }),
    ("one member, join 4 sync 3", |s| {
        one_member(s, "one-4", 4, 3)
    }),
    ("one member, join 5 sync 3", |s| {
        one_member(s, "one-5", 5, 3)
    }),
    ("one member, join 6 sync 4", |s| {
        one_member(s, "one-6", 6, 4)
    }),
    ("one member, join 7 sync 5", |s| {
        one_member(s, "one-7", 7, 5)
    }),
    ("one member, join 9 sync 5", |s| {
        one_member(s, "one-9", 9, 5)
    }),
    ("refused joins", refused_joins),
    ("strangers", strangers),
    ("a second member", second_member),
    ("rejoins", rejoins),
    ("a member leaves while others sync", leave_while_syncing),
    ("leaving in batches", leave_in_batches),
    ("static members, join 5", |s| {
        static_members(s, "static-5", 5)
    }),
    ("static members, join 8", |s| {
        static_members(s, "static-8", 8)
    }),
    ("static members, join 9", |s| {
        static_members(s, "static-9", 9)
    }),
    ("a static member in a rebalance", static_in_rebalance),
    (
        "a static member changes the protocol",
        static_protocol_change,
    ),
    ("pending members", pending_members),
    ("sessions end", sessions_end),
    ("who is parked lives", parked_lives),
    ("commits keep a session", commits_keep_session),
    ("the time to sync ends", sync_time_ends),
    ("the time to join ends", join_time_ends),
    ("a full group", full_group),
    ("protocols are chosen", protocols),
    ("another protocol type", other_protocol_type),
    ("commits, all versions", commits),
    ("commits of members", member_commits),
    ("fetches, all versions", fetches),
    ("offsets are deleted", offset_deletes),
    ("groups are listed", lists),
    ("groups are described", describes),
    ("groups are deleted", deletes),
];

const SUBSCRIPTION: &[u8] = b"\0\0\0\0\0\x01\0\x05topic\xff\xff\xff\xff";

fn protocols_of(names: &[&str]) -> Vec<JoinGroupRequestProtocol> {
    names
        .iter()
        .map(|name| JoinGroupRequestProtocol {
            name: (*name).into(),
            metadata: Bytes::from_static(SUBSCRIPTION),
        })
        .collect()
}

fn join_request(group: &str, member_id: &str) -> JoinGroupRequest {
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

fn static_join(group: &str, instance: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_instance_id: Some(instance.into()),
        ..join_request(group, "")
    }
}

fn join(s: &mut Session<'_>, conn: &str, v: i16, request: &JoinGroupRequest) -> JoinGroupResponse {
    s.call(conn, v, request)
}

/// Gets an id where the version wants one, then sends the join that parks.
fn start_join(s: &mut Session<'_>, conn: &str, v: i16, group: &str) {
    let mut request = join_request(group, "");
    if v >= 4 {
        let given: JoinGroupResponse = s.call(conn, v, &request);
        assert_eq!(given.error_code, 79);
        request.member_id = given.member_id;
    }
    s.send(conn, v, &request);
}

fn joined(s: &mut Session<'_>, conn: &str, v: i16) -> JoinGroupResponse {
    let joined: JoinGroupResponse = s.receive(conn, v);
    assert_eq!(joined.error_code, 0, "{conn}: {joined:?}");
    joined
}

fn sync_request(group: &str, joined: &JoinGroupResponse, v: i16) -> SyncGroupRequest {
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

fn sync(s: &mut Session<'_>, conn: &str, v: i16, request: &SyncGroupRequest) -> SyncGroupResponse {
    s.call(conn, v, request)
}

fn heartbeat(s: &mut Session<'_>, conn: &str, group: &str, of: &JoinGroupResponse) -> i16 {
    let request = HeartbeatRequest {
        group_id: group.into(),
        generation_id: of.generation_id,
        member_id: of.member_id.clone(),
        ..HeartbeatRequest::default()
    };
    let response: HeartbeatResponse = s.call(conn, 4, &request);
    response.error_code
}

fn leave(s: &mut Session<'_>, conn: &str, group: &str, members: &[(&str, Option<&str>)]) {
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

fn describe(s: &mut Session<'_>, group: &str) -> DescribeGroupsResponse {
    let request = DescribeGroupsRequest {
        groups: vec![group.into()],
        ..DescribeGroupsRequest::default()
    };
    s.call("admin", 6, &request)
}

fn commit_request(group: &str, offset: i64) -> OffsetCommitRequest {
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

fn commit(s: &mut Session<'_>, conn: &str, v: i16, request: &OffsetCommitRequest) -> i16 {
    let mut request = request.clone();
    if v >= 10 {
        request.topics[0].topic_id = s.topic_id();
    }
    let response: OffsetCommitResponse = s.call(conn, v, &request);
    response.topics[0].partitions[0].error_code
}

/// A group of these members, stable; the first leads.
fn stable_group(s: &mut Session<'_>, group: &str, conns: &[&str]) -> Vec<JoinGroupResponse> {
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

fn one_member(s: &mut Session<'_>, group: &str, join_v: i16, sync_v: i16) {
    start_join(s, "a", join_v, group);
    let member = joined(s, "a", join_v);
    describe(s, group);
    sync(s, "a", sync_v, &sync_request(group, &member, sync_v));
    describe(s, group);
    for v in 0..=4 {
        let request = HeartbeatRequest {
            group_id: group.into(),
            generation_id: member.generation_id,
            member_id: member.member_id.clone(),
            ..HeartbeatRequest::default()
        };
        let _: HeartbeatResponse = s.call("a", v, &request);
    }
    // A member may fetch its assignment again.
    let mut again = sync_request(group, &member, sync_v);
    again.assignments.clear();
    sync(s, "a", sync_v, &again);
    let leave_v = sync_v.min(5);
    let mut request = LeaveGroupRequest {
        group_id: group.into(),
        ..LeaveGroupRequest::default()
    };
    if leave_v < 3 {
        request.member_id = member.member_id.clone();
    } else {
        request.members = vec![MemberIdentity {
            member_id: member.member_id.clone(),
            ..MemberIdentity::default()
        }];
    }
    let _: LeaveGroupResponse = s.call("a", leave_v, &request);
    let _: LeaveGroupResponse = s.call("a", leave_v, &request);
    describe(s, group);
    heartbeat(s, "a", group, &member);
    sync(s, "a", sync_v, &again);
}

fn refused_joins(s: &mut Session<'_>) {
    join(s, "a", 9, &join_request("", ""));
    for session_timeout_ms in [299, 1_800_001, -1] {
        let request = JoinGroupRequest {
            session_timeout_ms,
            ..join_request("refused", "")
        };
        join(s, "a", 9, &request);
    }
    for v in [0, 6, 7, 9] {
        join(s, "a", v, &join_request("refused", "nobody"));
    }
    describe(s, "refused");
    let none = JoinGroupRequest {
        protocols: vec![],
        ..join_request("refused", "")
    };
    join(s, "a", 9, &none);
    // The group is known now.
    describe(s, "refused");
    let no_type = JoinGroupRequest {
        protocol_type: String::new(),
        ..join_request("refused", "")
    };
    join(s, "a", 9, &no_type);
    join(s, "a", 9, &join_request("refused", "nobody"));
    let unknown_static = JoinGroupRequest {
        member_id: "nobody".into(),
        ..static_join("refused", "i")
    };
    join(s, "a", 9, &unknown_static);
}

fn strangers(s: &mut Session<'_>) {
    let nobody = JoinGroupResponse {
        generation_id: 1,
        member_id: "nobody".into(),
        ..JoinGroupResponse::default()
    };
    for group in ["", "unknown"] {
        heartbeat(s, "a", group, &nobody);
        for v in [0, 3, 4] {
            sync(s, "a", v, &sync_request(group, &nobody, v));
        }
        let named = SyncGroupRequest {
            protocol_type: Some("consumer".into()),
            protocol_name: Some("range".into()),
            ..sync_request(group, &nobody, 5)
        };
        sync(s, "a", 5, &named);
        let unnamed = SyncGroupRequest {
            protocol_name: None,
            ..named
        };
        sync(s, "a", 5, &unnamed);
        for v in 0..=2 {
            let request = LeaveGroupRequest {
                group_id: group.into(),
                member_id: "nobody".into(),
                ..LeaveGroupRequest::default()
            };
            let _: LeaveGroupResponse = s.call("a", v, &request);
        }
        leave(s, "a", group, &[("nobody", None), ("", Some("i"))]);
    }
    let members = stable_group(s, "strangers", &["a"]);
    heartbeat(s, "b", "strangers", &nobody);
    let wrong = JoinGroupResponse {
        generation_id: 7,
        ..members[0].clone()
    };
    heartbeat(s, "b", "strangers", &wrong);
    sync(s, "b", 5, &sync_request("strangers", &wrong, 5));
    for (protocol_type, protocol_name) in [("connect", "range"), ("consumer", "sticky")] {
        let request = SyncGroupRequest {
            protocol_type: Some(protocol_type.into()),
            protocol_name: Some(protocol_name.into()),
            ..sync_request("strangers", &members[0], 5)
        };
        sync(s, "b", 5, &request);
    }
    let with_instance = HeartbeatRequest {
        group_id: "strangers".into(),
        generation_id: 1,
        member_id: members[0].member_id.clone(),
        group_instance_id: Some("i".into()),
    };
    let _: HeartbeatResponse = s.call("b", 4, &with_instance);
    leave(s, "b", "strangers", &[("nobody", None), ("", None)]);
}

fn second_member(s: &mut Session<'_>) {
    let group = "second";
    let first = stable_group(s, group, &["a"]).remove(0);
    start_join(s, "b", 9, group);
    describe(s, group);
    assert_eq!(heartbeat(s, "a", group, &first), 27);
    // Commits are welcome until the generation ends, syncs are not.
    let mut request = commit_request(group, 5);
    request.generation_id_or_member_epoch = first.generation_id;
    request.member_id = first.member_id.clone();
    commit(s, "a", 9, &request);
    sync(s, "a", 5, &sync_request(group, &first, 5));
    let leader = join(s, "a", 9, &join_request(group, &first.member_id));
    let follower = joined(s, "b", 9);
    describe(s, group);
    assert_eq!(heartbeat(s, "a", group, &leader), 0);
    request.generation_id_or_member_epoch = leader.generation_id;
    commit(s, "a", 9, &request);
    s.send("b", 5, &sync_request(group, &follower, 5));
    describe(s, group);
    sync(s, "a", 5, &sync_request(group, &leader, 5));
    let _: SyncGroupResponse = s.receive("b", 5);
    describe(s, group);
    commit(s, "a", 9, &request);
    leave(s, "b", group, &[(&follower.member_id, None)]);
    describe(s, group);
    leave(s, "a", group, &[(&leader.member_id, None)]);
    describe(s, group);
}

fn rejoins(s: &mut Session<'_>) {
    let group = "rejoins";
    let members = stable_group(s, group, &["a", "b"]);
    // A follower with the same metadata is told the generation again.
    let same = join_request(group, &members[1].member_id);
    join(s, "b", 9, &same);
    join(s, "b", 4, &same);
    // With other metadata it starts a rebalance, as the leader does with any.
    let mut other = same.clone();
    other.protocols[0].metadata = Bytes::from_static(b"\0\0\0\0\0\0\xff\xff\xff\xff");
    s.send("b", 9, &other);
    describe(s, group);
    s.send("a", 9, &join_request(group, &members[0].member_id));
    let leader = joined(s, "a", 9);
    let follower = joined(s, "b", 9);
    // In CompletingRebalance the same answer is repeated, to the leader with all members.
    join(s, "a", 9, &join_request(group, &leader.member_id));
    join(s, "b", 9, &other);
    s.send("b", 5, &sync_request(group, &follower, 5));
    // New metadata start anew; who is parked in a sync is told.
    s.send("a", 9, &{
        let mut request = join_request(group, &leader.member_id);
        request.protocols.swap(0, 1);
        request
    });
    let interrupted: SyncGroupResponse = s.receive("b", 5);
    assert_eq!(interrupted.error_code, 27);
    s.send("b", 9, &other);
    joined(s, "a", 9);
    joined(s, "b", 9);
    let same_instance = JoinGroupRequest {
        group_instance_id: Some("i".into()),
        ..join_request(group, &leader.member_id)
    };
    join(s, "a", 9, &same_instance);
}

fn leave_while_syncing(s: &mut Session<'_>) {
    let group = "leave-sync";
    for conn in ["a", "b", "c"] {
        start_join(s, conn, 9, group);
    }
    let a = joined(s, "a", 9);
    let b = joined(s, "b", 9);
    let c = joined(s, "c", 9);
    s.send("b", 5, &sync_request(group, &b, 5));
    leave(s, "c", group, &[(&c.member_id, None)]);
    let interrupted: SyncGroupResponse = s.receive("b", 5);
    assert_eq!(interrupted.error_code, 27);
    describe(s, group);
    s.send("a", 9, &join_request(group, &a.member_id));
    s.send("b", 9, &join_request(group, &b.member_id));
    let a = joined(s, "a", 9);
    joined(s, "b", 9);
    // The leader forgets the other.
    let mut request = sync_request(group, &a, 5);
    request
        .assignments
        .retain(|entry| entry.member_id == a.member_id);
    sync(s, "a", 5, &request);
    sync(
        s,
        "b",
        5,
        &SyncGroupRequest {
            member_id: b.member_id.clone(),
            assignments: vec![],
            ..request
        },
    );
    describe(s, group);
}

fn leave_in_batches(s: &mut Session<'_>) {
    let group = "leave-batch";
    s.send("a", 9, &static_join(group, "i1"));
    s.send("b", 9, &static_join(group, "i2"));
    start_join(s, "c", 9, group);
    let a = joined(s, "a", 9);
    let b = joined(s, "b", 9);
    let c = joined(s, "c", 9);
    leave(
        s,
        "admin",
        group,
        &[
            ("", Some("i1")),
            (&b.member_id, Some("i1")),
            ("nobody", Some("i2")),
            ("nobody", None),
            (&c.member_id, None),
            (&c.member_id, None),
            ("", Some("i3")),
        ],
    );
    describe(s, group);
    leave(
        s,
        "admin",
        group,
        &[(&b.member_id, Some("i2")), (&a.member_id, Some("i1"))],
    );
    describe(s, group);
}

fn static_members(s: &mut Session<'_>, group: &str, v: i16) {
    s.send("a", v, &static_join(group, "i1"));
    s.send("b", v, &static_join(group, "i2"));
    let a = joined(s, "a", v);
    let b = joined(s, "b", v);
    s.send("b", 3, &sync_request(group, &b, 3));
    sync(s, "a", 3, &sync_request(group, &a, 3));
    let _: SyncGroupResponse = s.receive("b", 3);
    describe(s, group);
    // Both come back without their ids: no rebalance.
    let leader = join(s, "c", v, &static_join(group, "i1"));
    let follower = join(s, "d", v, &static_join(group, "i2"));
    describe(s, group);
    for (member, instance) in [(&a, "i1"), (&leader, "i1"), (&b, "i2"), (&follower, "i2")] {
        let request = HeartbeatRequest {
            group_id: group.into(),
            generation_id: member.generation_id,
            member_id: member.member_id.clone(),
            group_instance_id: Some(instance.into()),
        };
        let _: HeartbeatResponse = s.call("e", 4, &request);
        let mut request = sync_request(group, member, 5);
        request.protocol_type = Some("consumer".into());
        request.protocol_name = Some("range".into());
        request.group_instance_id = Some(instance.into());
        request.assignments.clear();
        sync(s, "e", 5, &request);
        let mut request = commit_request(group, 3);
        request.generation_id_or_member_epoch = member.generation_id;
        request.member_id = member.member_id.clone();
        request.group_instance_id = Some(instance.into());
        commit(s, "e", 7, &request);
        let request = JoinGroupRequest {
            member_id: a.member_id.clone(),
            ..static_join(group, instance)
        };
        join(s, "e", v, &request);
    }
    // Leaving with a fenced id does nothing.
    leave(s, "e", group, &[(&a.member_id, Some("i1"))]);
    leave(s, "e", group, &[("", Some("i2")), ("", Some("i1"))]);
    describe(s, group);
}

fn static_in_rebalance(s: &mut Session<'_>) {
    let group = "static-rebalance";
    s.send("a", 9, &static_join(group, "i1"));
    s.send("b", 9, &static_join(group, "i2"));
    let a = joined(s, "a", 9);
    let b = joined(s, "b", 9);
    // While it is parked in a sync, somebody takes its place: it is fenced, and all join.
    s.send("b", 5, &sync_request(group, &b, 5));
    s.send("c", 9, &static_join(group, "i2"));
    let fenced: SyncGroupResponse = s.receive("b", 5);
    assert_eq!(fenced.error_code, 82);
    describe(s, group);
    // While it is parked in a join, the same.
    s.send("d", 9, &static_join(group, "i2"));
    let fenced: JoinGroupResponse = s.receive("c", 9);
    assert_eq!(fenced.error_code, 82);
    s.send(
        "a",
        9,
        &JoinGroupRequest {
            member_id: a.member_id,
            ..static_join(group, "i1")
        },
    );
    joined(s, "a", 9);
    joined(s, "d", 9);
    describe(s, group);
}

fn static_protocol_change(s: &mut Session<'_>) {
    let group = "static-protocol";
    s.send("a", 9, &static_join(group, "i1"));
    s.send("b", 9, &static_join(group, "i2"));
    let a = joined(s, "a", 9);
    let b = joined(s, "b", 9);
    s.send("b", 5, &sync_request(group, &b, 5));
    sync(s, "a", 5, &sync_request(group, &a, 5));
    let _: SyncGroupResponse = s.receive("b", 5);
    let request = JoinGroupRequest {
        protocols: protocols_of(&["roundrobin"]),
        ..static_join(group, "i2")
    };
    s.send("c", 9, &request);
    describe(s, group);
    s.send(
        "a",
        9,
        &JoinGroupRequest {
            member_id: a.member_id.clone(),
            ..static_join(group, "i1")
        },
    );
    let a = joined(s, "a", 9);
    let c = joined(s, "c", 9);
    assert_eq!(c.protocol_name.as_deref(), Some("roundrobin"));
    s.send("c", 5, &sync_request(group, &c, 5));
    sync(s, "a", 5, &sync_request(group, &a, 5));
    let _: SyncGroupResponse = s.receive("c", 5);
    let refused = JoinGroupRequest {
        protocols: protocols_of(&["other"]),
        ..static_join(group, "i2")
    };
    join(s, "d", 9, &refused);
}

fn pending_members(s: &mut Session<'_>) {
    let group = "pending";
    let short = JoinGroupRequest {
        session_timeout_ms: 1_000,
        ..join_request(group, "")
    };
    let gone = join(s, "a", 9, &short);
    describe(s, group);
    let other = join(s, "b", 9, &join_request(group, ""));
    leave(s, "b", group, &[(&other.member_id, None)]);
    join(s, "b", 9, &join_request(group, &other.member_id));
    s.sleep_ms(2_500);
    join(s, "a", 9, &join_request(group, &gone.member_id));
    // Somebody who has an id and does not come holds up the others until its time is up.
    let first = stable_group(s, group, &["a"]).remove(0);
    let late = join(s, "b", 9, &short);
    s.send("a", 9, &join_request(group, &first.member_id));
    describe(s, group);
    s.sleep_ms(2_500);
    joined(s, "a", 9);
    join(s, "b", 9, &join_request(group, &late.member_id));
    let wrong = join(s, "b", 9, &join_request(group, ""));
    let with_instance = JoinGroupRequest {
        group_instance_id: Some("i".into()),
        ..join_request(group, &wrong.member_id)
    };
    join(s, "b", 9, &with_instance);
}

fn sessions_end(s: &mut Session<'_>) {
    let group = "sessions";
    for conn in ["a", "b"] {
        let mut request = JoinGroupRequest {
            session_timeout_ms: 3_000,
            ..join_request(group, "")
        };
        request.member_id = join(s, conn, 9, &request).member_id;
        s.send(conn, 9, &request);
    }
    let a = joined(s, "a", 9);
    let b = joined(s, "b", 9);
    s.send("b", 5, &sync_request(group, &b, 5));
    sync(s, "a", 5, &sync_request(group, &a, 5));
    let _: SyncGroupResponse = s.receive("b", 5);
    s.sleep_ms(1_800);
    heartbeat(s, "a", group, &a);
    s.sleep_ms(1_800);
    // One is gone: the other is told to join again, and stays alive by that.
    assert_eq!(heartbeat(s, "a", group, &a), 27);
    s.send(
        "a",
        9,
        &JoinGroupRequest {
            session_timeout_ms: 3_000,
            ..join_request(group, &a.member_id)
        },
    );
    joined(s, "a", 9);
    heartbeat(s, "b", group, &b);
    s.sleep_ms(4_500);
    describe(s, group);
}

fn parked_lives(s: &mut Session<'_>) {
    let group = "parked";
    let short = |member_id: &str| JoinGroupRequest {
        session_timeout_ms: 2_000,
        ..join_request(group, member_id)
    };
    for conn in ["a", "b"] {
        let given = join(s, conn, 9, &short(""));
        s.send(conn, 9, &short(&given.member_id));
    }
    let a = joined(s, "a", 9);
    let b = joined(s, "b", 9);
    // Parked in a sync for longer than a session, while the leader takes its time.
    s.send("b", 5, &sync_request(group, &b, 5));
    for _ in 0..4 {
        s.sleep_ms(800);
        heartbeat(s, "a", group, &a);
    }
    sync(s, "a", 5, &sync_request(group, &a, 5));
    let synced: SyncGroupResponse = s.receive("b", 5);
    assert_eq!(synced.error_code, 0);
    heartbeat(s, "b", group, &b);
    // Parked in a join for longer than a session, while the other only sends heartbeats.
    s.send("a", 9, &short(&a.member_id));
    for _ in 0..4 {
        s.sleep_ms(800);
        heartbeat(s, "b", group, &b);
    }
    s.send("b", 9, &short(&b.member_id));
    let a = joined(s, "a", 9);
    assert_eq!(a.members.len(), 2);
    joined(s, "b", 9);
}

fn commits_keep_session(s: &mut Session<'_>) {
    let group = "commits-session";
    let mut request = JoinGroupRequest {
        session_timeout_ms: 2_000,
        ..join_request(group, "")
    };
    request.member_id = join(s, "a", 9, &request).member_id;
    s.send("a", 9, &request);
    let member = joined(s, "a", 9);
    sync(s, "a", 5, &sync_request(group, &member, 5));
    let mut request = commit_request(group, 1);
    request.generation_id_or_member_epoch = member.generation_id;
    request.member_id = member.member_id.clone();
    for _ in 0..4 {
        s.sleep_ms(800);
        commit(s, "a", 9, &request);
    }
    assert_eq!(heartbeat(s, "a", group, &member), 0);
}

fn sync_time_ends(s: &mut Session<'_>) {
    let group = "sync-time";
    for conn in ["a", "b"] {
        let mut request = JoinGroupRequest {
            rebalance_timeout_ms: 3_000,
            ..join_request(group, "")
        };
        request.member_id = join(s, conn, 9, &request).member_id;
        s.send(conn, 9, &request);
    }
    let a = joined(s, "a", 9);
    let b = joined(s, "b", 9);
    sync(s, "a", 5, &sync_request(group, &a, 5));
    s.sleep_ms(4_500);
    describe(s, group);
    assert_eq!(heartbeat(s, "a", group, &a), 27);
    assert_eq!(heartbeat(s, "b", group, &b), 25);
    // The leader never syncs.
    s.send(
        "a",
        9,
        &JoinGroupRequest {
            rebalance_timeout_ms: 3_000,
            ..join_request(group, &a.member_id)
        },
    );
    joined(s, "a", 9);
    s.sleep_ms(4_500);
    describe(s, group);
}

fn join_time_ends(s: &mut Session<'_>) {
    let group = "join-time";
    let mut request = JoinGroupRequest {
        rebalance_timeout_ms: 3_000,
        ..join_request(group, "")
    };
    request.member_id = join(s, "a", 9, &request).member_id;
    s.send("a", 9, &request);
    s.send(
        "b",
        9,
        &JoinGroupRequest {
            rebalance_timeout_ms: 3_000,
            ..static_join(group, "i")
        },
    );
    let a = joined(s, "a", 9);
    let b = joined(s, "b", 9);
    s.send("b", 5, &sync_request(group, &b, 5));
    sync(s, "a", 5, &sync_request(group, &a, 5));
    let _: SyncGroupResponse = s.receive("b", 5);
    // A third joins; a dynamic member that stays away is out, a static one isn't.
    let mut third = JoinGroupRequest {
        rebalance_timeout_ms: 3_000,
        ..join_request(group, "")
    };
    third.member_id = join(s, "c", 9, &third).member_id;
    s.send("c", 9, &third);
    let c = joined(s, "c", 9);
    assert_eq!(c.leader, c.member_id);
    describe(s, group);
    heartbeat(s, "a", group, &a);
    let still = HeartbeatRequest {
        group_id: group.into(),
        generation_id: c.generation_id,
        member_id: b.member_id.clone(),
        group_instance_id: Some("i".into()),
    };
    let _: HeartbeatResponse = s.call("b", 4, &still);
}

fn full_group(s: &mut Session<'_>) {
    let group = "full";
    for conn in ["a", "b", "c"] {
        start_join(s, conn, 9, group);
    }
    join(s, "d", 9, &join_request(group, ""));
    join(s, "d", 9, &static_join(group, "i"));
    let members: Vec<JoinGroupResponse> = ["a", "b", "c"]
        .iter()
        .map(|conn| joined(s, conn, 9))
        .collect();
    join(s, "d", 9, &join_request(group, ""));
    join(s, "d", 0, &join_request(group, ""));
    join(s, "d", 9, &join_request(group, "nobody"));
    leave(s, "c", group, &[(&members[2].member_id, None)]);
    join(s, "d", 9, &join_request(group, ""));
}

fn protocols(s: &mut Session<'_>) {
    let group = "protocols";
    let offers: [(&str, &[&str]); 3] = [
        ("a", &["x", "y", "z"]),
        ("b", &["z", "y"]),
        ("c", &["y", "z"]),
    ];
    for (conn, names) in offers {
        let mut request = JoinGroupRequest {
            protocols: protocols_of(names),
            ..join_request(group, "")
        };
        request.member_id = join(s, conn, 9, &request).member_id;
        s.send(conn, 9, &request);
    }
    for (conn, _) in offers {
        let member = joined(s, conn, 9);
        assert_eq!(member.protocol_name.as_deref(), Some("y"));
    }
    let group = "protocols-2";
    start_join(s, "a", 9, group);
    for names in [
        &["other"][..],
        &["other", "roundrobin"],
        &["other", "another"],
    ] {
        let request = JoinGroupRequest {
            protocols: protocols_of(names),
            ..join_request(group, "")
        };
        join(s, "b", 9, &request);
    }
    let request = JoinGroupRequest {
        protocol_type: "connect".into(),
        ..join_request(group, "")
    };
    join(s, "b", 9, &request);
    s.sleep_ms(1_500);
}

fn other_protocol_type(s: &mut Session<'_>) {
    let group = "connect";
    let mut request = JoinGroupRequest {
        protocol_type: "connect".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "sessioned".into(),
            metadata: Bytes::from_static(b"any bytes"),
        }],
        ..join_request(group, "")
    };
    request.member_id = join(s, "a", 9, &request).member_id;
    s.send("a", 9, &request);
    let member = joined(s, "a", 9);
    sync(s, "a", 5, &sync_request(group, &member, 5));
    describe(s, group);
    delete_offset(s, group, 1);
    leave(s, "a", group, &[(&member.member_id, None)]);
    delete_offset(s, group, 1);
    // An empty group takes any type.
    start_join(s, "a", 9, group);
    joined(s, "a", 9);
    describe(s, group);
}

fn commits(s: &mut Session<'_>) {
    let group = "commits";
    for v in 2..=10 {
        commit(s, "a", v, &commit_request(group, i64::from(v)));
    }
    let mut request = commit_request(group, 20);
    request.retention_time_ms = 3_600_000;
    commit(s, "a", 2, &request);
    commit(s, "a", 4, &request);
    let mut request = commit_request(group, 21);
    request.topics[0].partitions[0].committed_metadata = None;
    request.topics[0].partitions[0].committed_leader_epoch = -1;
    commit(s, "a", 9, &request);
    request.topics[0].partitions[0].committed_offset = -5;
    commit(s, "a", 9, &request);
    for (length, text) in [
        (4_096, "m"),
        (4_097, "m"),
        (4_096, "é"),
        (2_049, "\u{1F600}"),
    ] {
        let mut request = commit_request(group, 22);
        request.topics[0].partitions[0].committed_metadata = Some(text.repeat(length));
        request.topics[0]
            .partitions
            .push(OffsetCommitRequestPartition {
                partition_index: 2,
                committed_offset: 1,
                ..OffsetCommitRequestPartition::default()
            });
        commit(s, "a", 9, &request);
    }
    describe(s, group);
    // Whoever names a generation must be a member.
    for v in [2, 8, 9, 10] {
        let mut request = commit_request("commits-unknown", 1);
        request.generation_id_or_member_epoch = 1;
        request.member_id = "nobody".into();
        commit(s, "a", v, &request);
        request.group_id = group.into();
        commit(s, "a", v, &request);
        request.generation_id_or_member_epoch = -1;
        commit(s, "a", v, &request);
    }
    // The empty group id is one like any other here.
    commit(s, "a", 9, &commit_request("", 1));
    describe(s, "");
}

fn member_commits(s: &mut Session<'_>) {
    let group = "member-commits";
    start_join(s, "a", 9, group);
    let request = commit_request(group, 1);
    commit(s, "b", 9, &request);
    let member = joined(s, "a", 9);
    commit(s, "b", 9, &request);
    let mut own = request.clone();
    own.generation_id_or_member_epoch = member.generation_id;
    own.member_id = member.member_id.clone();
    commit(s, "a", 9, &own);
    sync(s, "a", 5, &sync_request(group, &member, 5));
    for v in [2, 5, 6, 7, 8, 9, 10] {
        commit(s, "a", v, &own);
    }
    commit(s, "b", 9, &request);
    own.generation_id_or_member_epoch = 7;
    commit(s, "a", 9, &own);
    own.generation_id_or_member_epoch = -1;
    commit(s, "a", 9, &own);
    own.generation_id_or_member_epoch = member.generation_id;
    own.group_instance_id = Some("i".into());
    commit(s, "a", 9, &own);
    own.group_instance_id = None;
    own.member_id = String::new();
    commit(s, "a", 9, &own);
}

fn fetches(s: &mut Session<'_>) {
    let group = "fetches";
    for partition in [2, 0] {
        let mut request = commit_request(group, 10 + i64::from(partition));
        request.topics[0].partitions[0].partition_index = partition;
        commit(s, "a", 9, &request);
    }
    for v in 1..=10 {
        for stable in [false, true] {
            for (name, topics) in [
                (group, Some(vec![0, 1, 2])),
                (group, Some(vec![])),
                (group, None),
                ("fetches-unknown", Some(vec![0])),
                ("fetches-unknown", None),
                ("", Some(vec![0])),
            ] {
                if v < 2 && topics.is_none() || v < 7 && stable {
                    continue;
                }
                fetch(s, v, stable, &[(name, topics)]);
            }
        }
    }
    fetch(
        s,
        8,
        false,
        &[
            (group, None),
            ("fetches-unknown", None),
            (group, Some(vec![2])),
        ],
    );
}

fn fetch(s: &mut Session<'_>, v: i16, stable: bool, groups: &[(&str, Option<Vec<i32>>)]) {
    let topic_id = s.topic_id();
    let mut request = OffsetFetchRequest {
        require_stable: stable,
        ..OffsetFetchRequest::default()
    };
    if v >= 8 {
        request.groups = groups
            .iter()
            .map(|(group, partitions)| OffsetFetchRequestGroup {
                group_id: (*group).into(),
                topics: partitions.clone().map(|partition_indexes| {
                    vec![OffsetFetchRequestTopics {
                        name: if v < 10 { TOPIC.into() } else { String::new() },
                        topic_id: if v < 10 { Default::default() } else { topic_id },
                        partition_indexes,
                    }]
                }),
                ..OffsetFetchRequestGroup::default()
            })
            .collect();
    } else {
        request.group_id = groups[0].0.into();
        request.topics = groups[0].1.clone().map(|partition_indexes| {
            vec![OffsetFetchRequestTopic {
                name: TOPIC.into(),
                partition_indexes,
            }]
        });
    }
    let _: OffsetFetchResponse = s.call("a", v, &request);
}

fn delete_offset(s: &mut Session<'_>, group: &str, partition: i32) {
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

fn offset_deletes(s: &mut Session<'_>) {
    let group = "offset-deletes";
    delete_offset(s, "", 1);
    delete_offset(s, "offset-deletes-unknown", 1);
    commit(s, "a", 9, &commit_request(group, 1));
    delete_offset(s, group, 0);
    delete_offset(s, group, 1);
    fetch(s, 9, true, &[(group, None)]);
    commit(s, "a", 9, &commit_request(group, 2));
    let member = stable_group(s, group, &["a"]).remove(0);
    delete_offset(s, group, 1);
    leave(s, "a", group, &[(&member.member_id, None)]);
    delete_offset(s, group, 1);
    // A group of consumers whose subscriptions can't be read may read anything.
    let mut request = join_request(group, "");
    request.protocols[0].metadata = Bytes::from_static(b"?");
    request.member_id = join(s, "a", 9, &request).member_id;
    s.send("a", 9, &request);
    let member = joined(s, "a", 9);
    sync(s, "a", 5, &sync_request(group, &member, 5));
    delete_offset(s, group, 1);
}

fn lists(s: &mut Session<'_>) {
    for v in 0..=5 {
        let _: ListGroupsResponse = s.call("admin", v, &ListGroupsRequest::default());
    }
    let filters: [(&[&str], &[&str]); 8] = [
        (&["Stable"], &[]),
        (&["stable", " EMPTY "], &[]),
        (&["PreparingRebalance", "CompletingRebalance"], &[]),
        (&["nothing"], &[]),
        (&[], &["classic"]),
        (&[], &["CLASSIC"]),
        (&[], &["consumer"]),
        (&["Dead"], &["classic"]),
    ];
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    for (states, types) in filters {
        let request = ListGroupsRequest {
            states_filter: own(states),
            types_filter: own(types),
        };
        let _: ListGroupsResponse = s.call("admin", 5, &request);
    }
}

fn describes(s: &mut Session<'_>) {
    let group = "describes";
    stable_group(s, group, &["a", "b"]);
    for v in 0..=6 {
        let request = DescribeGroupsRequest {
            groups: vec![group.into(), "describes-unknown".into(), "commits".into()],
            ..DescribeGroupsRequest::default()
        };
        let _: DescribeGroupsResponse = s.call("admin", v, &request);
    }
}

fn deletes(s: &mut Session<'_>) {
    let group = "deletes";
    let member = stable_group(s, group, &["a"]).remove(0);
    for v in 0..=2 {
        delete_groups(s, v, &[group, "deletes-unknown", group]);
    }
    leave(s, "a", group, &[(&member.member_id, None)]);
    commit(s, "a", 9, &commit_request(group, 1));
    commit(s, "a", 9, &commit_request("deletes-simple", 1));
    delete_groups(s, 2, &[group, "deletes-simple"]);
    delete_groups(s, 2, &[group]);
    describe(s, group);
    fetch(s, 9, false, &[(group, None)]);
    // It lives again, from the first generation on.
    stable_group(s, group, &["a"]);
}

fn delete_groups(s: &mut Session<'_>, v: i16, groups: &[&str]) {
    let request = DeleteGroupsRequest {
        groups_names: groups.iter().map(|group| (*group).to_owned()).collect(),
    };
    let _: DeleteGroupsResponse = s.call("admin", v, &request);
}
