//! AddRaftVoter, RemoveRaftVoter, UpdateRaftVoter and DescribeQuorum.

use bytes::Bytes;
use ottla::base::{BrokerId, ErrorCode, LeaderEpoch, Offset, Uuid};
use ottla::raft::quorum::{Input, LogView, OffsetAndEpoch, Proposal, Request, Response, StateName};
use ottla::raft::{ControlRecord, METADATA_TOPIC, Voter, VoterSet};
use ottla::wire::messages::{
    DescribeQuorumRequest, RemoveRaftVoterRequest, UpdateRaftVoterRequest, UpdateRaftVoterResponse,
    describe_quorum_request, update_raft_voter_request,
};

use crate::support::*;

#[test]
fn voters_are_added_one_at_a_time() {
    let mut leader = Replica::new(1, &[1]);
    let mut wrong = add(2);
    wrong.listeners[0].name = "OTHER".to_owned();
    let refused = added(leader.ask(1, Request::AddRaftVoter(wrong)));
    assert_eq!(refused.0, ErrorCode::INVALID_REQUEST);
    let refused = added(leader.ask(1, Request::AddRaftVoter(add(1))));
    assert_eq!(refused.0, ErrorCode::DUPLICATE_VOTER);

    // It is asked what it can run, and must have fetched to the end.
    let ask = |leader: &mut Replica| {
        let id = leader.send(1, Request::AddRaftVoter(add(2)));
        let sent = leader.sent();
        let Some((call, 2, Request::ApiVersions(_))) = sent.last().cloned() else {
            panic!("{sent:?}");
        };
        (id, call)
    };
    leader.ask(18, Request::Fetch(fetch(2, 1, 0, 0)));
    let (id, call) = ask(&mut leader);
    let busy = added(leader.ask(1, Request::AddRaftVoter(add(3))));
    assert_eq!(busy.0, ErrorCode::REQUEST_TIMED_OUT);
    leader.input(Input::Response {
        call,
        response: versions(0, 1),
    });
    let (error, message) = added(leader.answer(id).expect("refused"));
    assert_eq!(error, ErrorCode::REQUEST_TIMED_OUT);
    assert!(message.contains("lagging behind"), "{message}");

    let end = leader.quorum.log().end().0;
    leader.ask(18, Request::Fetch(fetch(2, 1, end, 1)));
    let (id, call) = ask(&mut leader);
    leader.input(Input::Response {
        call,
        response: versions(0, 0),
    });
    let (error, _) = added(leader.answer(id).expect("refused"));
    assert_eq!(error, ErrorCode::INVALID_REQUEST);

    let (id, call) = ask(&mut leader);
    leader.input(Input::Response {
        call,
        response: versions(0, 1),
    });
    // In effect at once, told when both have it.
    assert_eq!(leader.quorum.voters().len(), 2);
    assert_eq!(leader.answer(id), None);
    assert_eq!(leader.quorum.high_watermark(), Some(Offset(end)));
    leader.ask(18, Request::Fetch(fetch(2, 1, end + 1, 1)));
    assert_eq!(leader.quorum.high_watermark(), Some(Offset(end + 1)));
    let (error, _) = added(leader.answer(id).expect("committed"));
    assert_eq!(error, ErrorCode::NONE);

    // Nobody else answers.
    let mut follower = Replica::follower(4);
    let refused = added(follower.ask(1, Request::AddRaftVoter(add(4))));
    assert_eq!(refused.0, ErrorCode::NOT_LEADER_OR_FOLLOWER);
    let fixed = LogView::new(voters(&[1]));
    let mut fixed = Replica::with_log(1, fixed, None);
    let refused = added(fixed.ask(1, Request::AddRaftVoter(add(4))));
    assert_eq!(refused.0, ErrorCode::UNSUPPORTED_VERSION);
}

#[test]
fn a_leader_removes_itself_and_hands_over() {
    let mut leader = Replica::leader();
    leader.ask(18, Request::Fetch(fetch(2, 1, 3, 1)));
    let remove = |id: i32, directory: Uuid| {
        Request::RemoveRaftVoter(RemoveRaftVoterRequest {
            cluster_id: None,
            voter_id: id,
            voter_directory_id: directory,
        })
    };
    let answer = leader.ask(0, remove(2, Uuid([99; 16])));
    let code = |response: Response| match response {
        Response::RemoveRaftVoter(response) => ErrorCode(response.error_code),
        other => panic!("{other:?}"),
    };
    assert_eq!(code(answer), ErrorCode::VOTER_NOT_FOUND);
    let id = leader.send(0, remove(1, key(1).wire_directory()));
    assert_eq!(leader.quorum.voters().len(), 2);
    // It needs both that stay, and isn't counted.
    leader.ask(18, Request::Fetch(fetch(2, 1, 4, 1)));
    assert_eq!(leader.answer(id), None);
    leader.ask(18, Request::Fetch(fetch(3, 1, 4, 1)));
    assert_eq!(code(leader.answer(id).expect("committed")), ErrorCode::NONE);
    assert_eq!(leader.state(), (StateName::Resigned, 1));
}

#[test]
fn a_voter_tells_the_leader_what_has_changed() {
    let mut log = LogView::at_snapshot(
        VoterSet::default(),
        OffsetAndEpoch::BOOTSTRAP,
        100,
        1,
        Some(
            voters(&[1, 2, 3])
                .updated(Voter::new(BrokerId(1), key(1).directory, vec![endpoint(8)]))
                .unwrap(),
        ),
    );
    log.append(Offset(5), LeaderEpoch(1), Vec::new());
    let mut follower = Replica::with_log(1, log, None);
    follower.ask(1, begin(3, 4, 1));
    let answer_fetches = |follower: &mut Replica| {
        for (call, _, request) in follower.sent() {
            match request {
                Request::Fetch(_) => {
                    let response = Response::Fetch(answer_of(3, 4));
                    follower.input(Input::Response { call, response });
                }
                Request::UpdateRaftVoter(request) => return Some(request),
                _ => {}
            }
        }
        None
    };
    let mut told = None;
    for _ in 0..5 {
        follower.pass_ms(400);
        told = told.or(answer_fetches(&mut follower));
    }
    follower.pass_ms(1);
    let request = told.or(answer_fetches(&mut follower)).expect("it tells");
    assert_eq!((request.voter_id, request.current_leader_epoch), (1, 4));
    assert_eq!(request.listeners[0].host, "host-1");

    let mut leader = Replica::leader();
    leader.ask(18, Request::Fetch(fetch(2, 1, 3, 1)));
    let update = |id: i32, host: &str| UpdateRaftVoterRequest {
        cluster_id: None,
        current_leader_epoch: 1,
        voter_id: id,
        voter_directory_id: key(id).wire_directory(),
        listeners: vec![update_raft_voter_request::Listener {
            name: "CONTROLLER".to_owned(),
            host: host.to_owned(),
            port: 9_092,
        }],
        kraft_version_feature: update_raft_voter_request::KRaftVersionFeature {
            min_supported_version: 0,
            max_supported_version: 1,
        },
    };
    let mut ask =
        |request: UpdateRaftVoterRequest| match leader.ask(0, Request::UpdateRaftVoter(request)) {
            Response::UpdateRaftVoter(response) => {
                assert_eq!(response.current_leader.leader_id, 1);
                assert_eq!(response.current_leader.host, "host-1");
                ErrorCode(response.error_code)
            }
            other => panic!("{other:?}"),
        };
    assert_eq!(ask(update(9, "x")), ErrorCode::VOTER_NOT_FOUND);
    let mut unable = update(2, "x");
    unable.kraft_version_feature.max_supported_version = 0;
    assert_eq!(ask(unable), ErrorCode::INVALID_REQUEST);
    let mut stale = update(2, "x");
    stale.current_leader_epoch = 0;
    assert_eq!(ask(stale), ErrorCode::FENCED_LEADER_EPOCH);
    assert_eq!(ask(update(2, "moved")), ErrorCode::NONE);
    // The next change waits for this one.
    assert_eq!(ask(update(2, "again")), ErrorCode::REQUEST_TIMED_OUT);
    let voter = leader.quorum.voters().get(BrokerId(2)).unwrap();
    assert_eq!(voter.endpoints[0].host, "moved");
}

#[test]
fn whoever_fetches_is_described() {
    let mut leader = Replica::leader();
    leader.ask(18, Request::Fetch(fetch(2, 1, 3, 1)));
    leader.ask(18, Request::Fetch(fetch(7, 1, 0, 0)));
    let describe = |replica: &mut Replica| {
        let request = DescribeQuorumRequest {
            topics: vec![describe_quorum_request::TopicData {
                topic_name: METADATA_TOPIC.to_owned(),
                partitions: vec![describe_quorum_request::PartitionData { partition_index: 0 }],
            }],
        };
        match replica.ask(2, Request::DescribeQuorum(request)) {
            Response::DescribeQuorum(response) => response,
            other => panic!("{other:?}"),
        }
    };
    let answer = describe(&mut leader);
    let p = &answer.topics[0].partitions[0];
    assert_eq!((p.leader_id, p.leader_epoch, p.high_watermark), (1, 1, 3));
    let ends = p
        .current_voters
        .iter()
        .map(|v| (v.replica_id, v.log_end_offset));
    assert_eq!(ends.collect::<Vec<_>>(), [(1, 3), (2, 3), (3, -1)]);
    assert_eq!(
        (p.observers[0].replica_id, p.observers[0].log_end_offset),
        (7, 0)
    );
    assert_eq!(p.observers[0].replica_directory_id, key(7).wire_directory());
    assert_eq!(p.observers[0].last_caught_up_timestamp, -1);
    assert_eq!(answer.nodes.len(), 3);
    // Five minutes after its last word an observer is forgotten.
    for _ in 0..300 {
        leader.pass_ms(1_000);
        leader.ask(18, Request::Fetch(fetch(2, 1, 3, 1)));
    }
    assert_eq!(leader.state(), (StateName::Leader, 1));
    assert_eq!(describe(&mut leader).topics[0].partitions[0].observers, []);
    let not_leader = describe(&mut Replica::follower(4));
    assert_eq!(not_leader.error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER.0);
}

#[test]
fn one_change_waits_for_the_one_before_to_be_committed() {
    let mut leader = Replica::leader();
    // Nor before the leader has committed anything of its own epoch.
    let early = added(leader.ask(1, Request::AddRaftVoter(add(4))));
    assert_eq!(early.0, ErrorCode::REQUEST_TIMED_OUT);
    leader.ask(18, Request::Fetch(fetch(2, 1, 3, 1)));
    leader.ask(18, Request::Fetch(fetch(4, 1, 3, 1)));
    let mut unacknowledged = add(4);
    unacknowledged.ack_when_committed = false;
    let id = leader.send(1, Request::AddRaftVoter(unacknowledged));
    let call = leader.sent().last().expect("ApiVersions").0;
    let response = versions(0, 1);
    leader.input(Input::Response { call, response });
    // Told when appended; but not committed yet.
    assert_eq!(added(leader.answer(id).expect("told")).0, ErrorCode::NONE);
    assert_eq!(leader.quorum.voters().len(), 4);
    let refused = added(leader.ask(1, Request::AddRaftVoter(add(5))));
    assert_eq!(refused.0, ErrorCode::REQUEST_TIMED_OUT);
    // Two of four are no majority.
    leader.ask(18, Request::Fetch(fetch(2, 1, 4, 1)));
    assert_eq!(leader.quorum.high_watermark(), Some(Offset(3)));
    leader.ask(18, Request::Fetch(fetch(4, 1, 4, 1)));
    assert_eq!(leader.quorum.high_watermark(), Some(Offset(4)));
    let duplicate = added(leader.ask(1, Request::AddRaftVoter(add(4))));
    assert_eq!(duplicate.0, ErrorCode::DUPLICATE_VOTER);
}

#[test]
fn a_change_that_is_not_committed_in_time_is_told_so() {
    let mut leader = Replica::leader();
    leader.ask(18, Request::Fetch(fetch(2, 1, 3, 1)));
    let request = Request::RemoveRaftVoter(RemoveRaftVoterRequest {
        cluster_id: None,
        voter_id: 3,
        voter_directory_id: key(3).wire_directory(),
    });
    let id = leader.send(0, request);
    leader.pass_ms(1_999);
    assert_eq!(leader.answer(id), None);
    leader.pass_ms(1);
    let Some(Response::RemoveRaftVoter(response)) = leader.answer(id) else {
        panic!("its time is up");
    };
    assert_eq!(ErrorCode(response.error_code), ErrorCode::REQUEST_TIMED_OUT);
    // It stands in the log all the same.
    assert_eq!(leader.quorum.voters().len(), 2);
}

#[test]
fn voters_cut_off_with_the_log_vote_again() {
    let mut log = formatted(&[1, 2, 3]);
    log.append(Offset(3), LeaderEpoch(1), Vec::new());
    let record = ControlRecord::Voters(voters(&[1, 2]).to_record());
    log.append(Offset(4), LeaderEpoch(1), [(Offset(3), record)]);
    assert_eq!(log.voters().len(), 2);
    assert_eq!(log.voters_before().len(), 3);
    log.truncate(Offset(3));
    assert_eq!(log.voters().len(), 3);
}

#[test]
fn an_observer_joins_by_itself() {
    let old = Voter::new(BrokerId(7), key(8).directory, vec![endpoint(7)]);
    for (set, removes) in [(voters(&[1, 2]).with(old), true), (voters(&[1, 2]), false)] {
        let log = LogView::at_snapshot(
            VoterSet::default(),
            OffsetAndEpoch::new(9, 1),
            100,
            1,
            Some(set),
        );
        let mut observer = Replica::joining(7, log);
        let response = observer.ask(1, begin(2, 4, 7));
        assert_eq!(begun(response), (0, 0, 2, 4));
        let call = observer.sent().last().expect("a fetch").0;
        observer.pass_ms(1_900);
        let response = Response::Fetch(answer_of(2, 4));
        observer.input(Input::Response { call, response });
        observer.pass_ms(100);
        let sent = observer.sent();
        let is_joining = |request: &Request| match request {
            Request::RemoveRaftVoter(r) => removes && r.voter_directory_id == Uuid([8; 16]),
            Request::AddRaftVoter(r) => !removes && r.voter_id == 7 && !r.ack_when_committed,
            _ => false,
        };
        assert!(sent.iter().any(|s| is_joining(&s.2)), "{sent:?}");
    }
}

#[test]
fn without_voters_in_the_log_each_leader_is_told_once() {
    let mut follower = Replica::with_log(1, LogView::new(voters(&[1, 2, 3])), None);
    follower.ask(1, begin(3, 4, 1));
    let mut told = 0;
    for _ in 0..20 {
        for (call, _, request) in follower.sent() {
            let response = match request {
                Request::Fetch(_) => Response::Fetch(answer_of(3, 4)),
                Request::UpdateRaftVoter(_) => {
                    told += 1;
                    Response::UpdateRaftVoter(UpdateRaftVoterResponse::default())
                }
                _ => continue,
            };
            follower.input(Input::Response { call, response });
        }
        follower.pass_ms(500);
    }
    assert_eq!(told, 1);
    assert_eq!(follower.state(), (StateName::Follower, 4));
}

#[test]
fn voters_stay_until_the_leaders_epoch_has_committed_something() {
    let mut log = formatted(&[1, 2, 3]);
    let record = ControlRecord::Voters(voters(&[1, 2, 3]).to_record());
    log.append(Offset(9), LeaderEpoch(1), [(Offset(2), record)]);
    let mut leader = Replica::with_log(1, log, None);
    leader.pass_ms(2_000);
    leader.win();
    // It may be cut off what another leader began.
    let remove = Request::RemoveRaftVoter(RemoveRaftVoterRequest {
        cluster_id: None,
        voter_id: 3,
        voter_directory_id: key(3).wire_directory(),
    });
    let answer = leader.ask(0, remove.clone());
    let Response::RemoveRaftVoter(refused) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(ErrorCode(refused.error_code), ErrorCode::REQUEST_TIMED_OUT);
    assert_eq!(leader.quorum.voters().len(), 3);
    let end = leader.quorum.log().end();
    leader.ask(18, Request::Fetch(fetch(2, 2, end.0, 2)));
    leader.send(0, remove);
    assert_eq!(leader.quorum.voters().len(), 2);
}

#[test]
fn a_change_is_told_when_its_record_is_committed() {
    let mut leader = Replica::leader();
    leader.ask(18, Request::Fetch(fetch(2, 1, 3, 1)));
    leader.input(Input::Propose(Proposal {
        epoch: LeaderEpoch(1),
        values: vec![Bytes::from_static(b"value")],
        tag: 1,
    }));
    let remove = Request::RemoveRaftVoter(RemoveRaftVoterRequest {
        cluster_id: None,
        voter_id: 3,
        voter_directory_id: key(3).wire_directory(),
    });
    let id = leader.send(0, remove);
    // All before it is committed.
    leader.ask(18, Request::Fetch(fetch(2, 1, 4, 1)));
    assert_eq!(leader.quorum.high_watermark(), Some(Offset(4)));
    assert_eq!(leader.answer(id), None);
    leader.ask(18, Request::Fetch(fetch(2, 1, 5, 1)));
    assert!(leader.answer(id).is_some());
}
