//! Members join, sync, join again and leave.

use bytes::Bytes;
use ottla::wire::messages::leave_group_request::MemberIdentity;
use ottla::wire::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};

use crate::requests::*;
use crate::session::Session;

pub fn one_member(s: &mut Session<'_>, group: &str, join_v: i16, sync_v: i16) {
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

pub fn refused_joins(s: &mut Session<'_>) {
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

pub fn strangers(s: &mut Session<'_>) {
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

pub fn second_member(s: &mut Session<'_>) {
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

pub fn rejoins(s: &mut Session<'_>) {
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

pub fn leave_while_syncing(s: &mut Session<'_>) {
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

pub fn leave_in_batches(s: &mut Session<'_>) {
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
