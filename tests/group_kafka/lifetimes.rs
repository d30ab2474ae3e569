//! Static and pending members, and what ends by time.

use ottla::wire::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, SyncGroupResponse,
};

use crate::requests::*;
use crate::session::Session;

pub fn static_members(s: &mut Session<'_>, group: &str, v: i16) {
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

pub fn static_in_rebalance(s: &mut Session<'_>) {
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

pub fn static_protocol_change(s: &mut Session<'_>) {
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

pub fn pending_members(s: &mut Session<'_>) {
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

pub fn sessions_end(s: &mut Session<'_>) {
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

pub fn parked_lives(s: &mut Session<'_>) {
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

pub fn sync_time_ends(s: &mut Session<'_>) {
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

pub fn join_time_ends(s: &mut Session<'_>) {
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

pub fn full_group(s: &mut Session<'_>) {
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

pub fn protocols(s: &mut Session<'_>) {
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
