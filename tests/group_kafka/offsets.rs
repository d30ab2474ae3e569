//! Offsets, and what administrators see and do.

use bytes::Bytes;
use ottla::wire::messages::join_group_request::JoinGroupRequestProtocol;
use ottla::wire::messages::offset_commit_request::OffsetCommitRequestPartition;
use ottla::wire::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use ottla::wire::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    JoinGroupRequest, ListGroupsRequest, ListGroupsResponse, OffsetFetchRequest,
    OffsetFetchResponse,
};

use crate::requests::*;
use crate::session::{Session, TOPIC};

pub fn commits_keep_session(s: &mut Session<'_>) {
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

pub fn other_protocol_type(s: &mut Session<'_>) {
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

pub fn commits(s: &mut Session<'_>) {
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

pub fn member_commits(s: &mut Session<'_>) {
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

pub fn fetches(s: &mut Session<'_>) {
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

pub fn fetch(s: &mut Session<'_>, v: i16, stable: bool, groups: &[(&str, Option<Vec<i32>>)]) {
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

pub fn offset_deletes(s: &mut Session<'_>) {
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

pub fn lists(s: &mut Session<'_>) {
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

pub fn describes(s: &mut Session<'_>) {
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

pub fn deletes(s: &mut Session<'_>) {
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

pub fn delete_groups(s: &mut Session<'_>, v: i16, groups: &[&str]) {
    let request = DeleteGroupsRequest {
        groups_names: groups.iter().map(|group| (*group).to_owned()).collect(),
    };
    let _: DeleteGroupsResponse = s.call("admin", v, &request);
}
