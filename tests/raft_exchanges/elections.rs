//! Vote, BeginQuorumEpoch and EndQuorumEpoch.

use ottla::base::{BrokerId, ErrorCode, LeaderEpoch, Offset};
use ottla::raft::checkpoint::{Contents, read_batch};
use ottla::raft::quorum::{Effect, Input, Request, Response, StateName, Version};
use ottla::raft::{ControlRecord, ElectionState, METADATA_TOPIC, VoterSet};
use ottla::record::BatchView;
use ottla::wire::messages::{EndQuorumEpochResponse, end_quorum_epoch_response};

use crate::support::*;

#[test]
fn an_election_is_pre_vote_then_vote_then_begin_quorum_epoch() {
    let mut replica = Replica::new(1, &[1, 2, 3]);
    replica.pass_ms(2_000);
    assert_eq!(replica.state(), (StateName::Prospective, 0));
    let asked = replica.sent();
    let votes: Vec<_> = asked
        .iter()
        .filter_map(|(call, to, request)| match request {
            Request::Vote(request) => Some((*call, *to, request.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(votes.iter().map(|v| v.1).collect::<Vec<_>>(), [2, 3]);
    let mut expected = vote(1, 0, 0, 0, true);
    expected.voter_id = 2;
    expected.topics[0].partitions[0].voter_directory_id = key(2).wire_directory();
    // The pre-vote is of the epoch that it is in.
    assert_eq!(votes[0].2, expected);

    let response = Response::Vote(voted(0, -1, true));
    let call = votes[0].0;
    replica.input(Input::Response { call, response });
    assert_eq!(replica.state(), (StateName::Candidate, 1));
    let asked = replica.sent();
    let Request::Vote(request) = &asked[0].2 else {
        panic!("{asked:?}");
    };
    expected.topics[0].partitions[0].replica_epoch = 1;
    expected.topics[0].partitions[0].pre_vote = false;
    assert_eq!(*request, expected);

    let response = Response::Vote(voted(1, -1, true));
    replica.input(Input::Response {
        call: asked[0].0,
        response,
    });
    assert_eq!(replica.state(), (StateName::Leader, 1));
    let begun = replica.sent();
    let mut expected = begin(1, 1, 2);
    if let Request::BeginQuorumEpoch(request) = &mut expected {
        request.leader_endpoints[0].host = "host-1".to_owned();
    }
    assert_eq!(begun[0].2, expected);
    assert_eq!(begun.iter().map(|b| b.1).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn the_first_batch_says_who_leads_and_who_votes() {
    let mut leader = Replica::leader();
    let appended = leader.out.iter().find_map(|effect| match effect {
        Effect::Append {
            batches,
            base_offset,
            end_offset,
        } => Some((batches.clone(), *base_offset, *end_offset)),
        _ => None,
    });
    let (batches, base, end) = appended.expect("its first batch");
    assert_eq!((base, end), (Offset(0), Offset(3)));
    let batch = BatchView::parse(&batches).unwrap();
    assert_eq!(batch.partition_leader_epoch(), LeaderEpoch(1));
    let Contents::Control(records) = read_batch(&batch).unwrap() else {
        panic!("a control batch");
    };
    let [
        ControlRecord::LeaderChange(change),
        ControlRecord::KRaftVersion(version),
        ControlRecord::Voters(set),
    ] = &records[..]
    else {
        panic!("{records:?}");
    };
    assert_eq!(change.leader_id, 1);
    let ids = |voters: &[ottla::wire::messages::leader_change_message::Voter]| {
        voters.iter().map(|v| v.voter_id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&change.voters), [1, 2, 3]);
    assert_eq!(ids(&change.granting_voters), [1, 2]);
    assert_eq!(version.kraft_version, 1);
    assert_eq!(VoterSet::from_record(set), voters(&[1, 2, 3]));
    // Nothing is committed by it alone.
    leader.pass_ms(10);
    assert_eq!(leader.quorum.high_watermark(), None);
}

#[test]
fn a_single_voter_leads_at_once_in_an_epoch_of_its_own() {
    let replica = Replica::new(1, &[1]);
    assert_eq!(replica.state(), (StateName::Leader, 1));
    assert_eq!(replica.quorum.high_watermark(), Some(Offset(3)));
    let led = Some(ElectionState::leading(LeaderEpoch(1), BrokerId(1)));
    let mut log = formatted(&[1]);
    log.append(Offset(3), LeaderEpoch(1), Vec::new());
    let again = Replica::with_log(1, log, led);
    assert_eq!(again.state(), (StateName::Leader, 2));
}

#[test]
fn a_vote_from_anyone_unseats_a_leader() {
    let mut leader = Replica::new(1, &[1]);
    let end = leader.quorum.log().last();
    let stray = vote(9, 2, end.epoch.0, end.offset.0, false);
    let answer = leader.ask(2, Request::Vote(stray));
    assert_eq!(vote_answer(answer), (0, 0, -1, 2, true));
    // It leads again in epoch 3 when the pretender doesn't.
    leader.pass_ms(2_000);
    assert_eq!(leader.state(), (StateName::Leader, 3));
}

#[test]
fn votes_are_answered_by_code() {
    let mut replica = Replica::follower(5);
    let mut other_cluster = vote(2, 6, 0, 0, false);
    other_cluster.cluster_id = Some("other".to_owned());
    let answer = replica.ask(2, Request::Vote(other_cluster));
    assert_eq!(vote_answer(answer).0, ErrorCode::INCONSISTENT_CLUSTER_ID.0);
    let mut other_topic = vote(2, 6, 0, 0, false);
    other_topic.topics[0].topic_name = "t".to_owned();
    let answer = replica.ask(2, Request::Vote(other_topic));
    assert_eq!(vote_answer(answer).0, ErrorCode::INVALID_REQUEST.0);
    // The epoch of the last record is below that of the vote; a pre-vote's may be equal.
    let invalid = ErrorCode::INVALID_REQUEST.0;
    for wrong in [
        vote(2, 6, 6, 0, false),
        vote(2, 6, 7, 0, true),
        vote(2, 6, -1, 0, false),
        vote(2, 6, 0, -1, false),
        vote(-1, 6, 0, 0, false),
    ] {
        let answer = replica.ask(2, Request::Vote(wrong));
        assert_eq!(vote_answer(answer), (0, invalid, 3, 5, false));
    }
    let answer = replica.ask(2, Request::Vote(vote(2, 4, 0, 0, false)));
    let fenced = ErrorCode::FENCED_LEADER_EPOCH.0;
    assert_eq!(vote_answer(answer), (0, fenced, 3, 5, false));
    // A follower has its leader, and helps nobody else.
    let answer = replica.ask(2, Request::Vote(vote(2, 5, 0, 0, false)));
    assert_eq!(vote_answer(answer), (0, 0, 3, 5, false));
    // Before its first fetch it may still be persuaded that there is none.
    let answer = replica.ask(2, Request::Vote(vote(2, 5, 5, 0, true)));
    assert_eq!(vote_answer(answer), (0, 0, 3, 5, true));
    // The epoch counts whoever it was meant for.
    let mut for_another = vote(2, 6, 0, 0, false);
    for_another.voter_id = 7;
    let answer = replica.ask(2, Request::Vote(for_another));
    let wrong_key = ErrorCode::INVALID_VOTER_KEY.0;
    assert_eq!(vote_answer(answer), (0, wrong_key, -1, 6, false));
    // Once an epoch, and again to the same one.
    for (from, granted) in [(2, true), (3, false), (2, true)] {
        let answer = replica.ask(2, Request::Vote(vote(from, 6, 0, 0, false)));
        assert_eq!(vote_answer(answer), (0, 0, -1, 6, granted), "{from}");
    }
}

#[test]
fn a_shorter_log_gets_no_vote() {
    for (last_epoch, offset, granted) in
        [(2, 100, false), (3, 8, false), (3, 9, true), (4, 1, true)]
    {
        for pre_vote in [true, false] {
            let mut log = formatted(&[1, 2, 3]);
            log.append(Offset(5), LeaderEpoch(2), Vec::new());
            log.append(Offset(9), LeaderEpoch(3), Vec::new());
            let mut replica = Replica::with_log(1, log, None);
            let request = vote(2, 5, last_epoch, offset, pre_vote);
            let answer = replica.ask(2, Request::Vote(request));
            let expected = (0, 0, -1, 5, granted);
            assert_eq!(vote_answer(answer), expected, "{last_epoch} {offset}");
        }
    }
}

#[test]
fn an_epoch_with_a_leader_has_no_votes_to_give() {
    // One that it knows by name only, as of before a restart.
    let known = ElectionState {
        epoch: LeaderEpoch(3),
        leader: Some(BrokerId(9)),
        voted: None,
    };
    let mut replica = Replica::with_log(1, formatted(&[1, 2, 3]), Some(known));
    assert_eq!(replica.state(), (StateName::Unattached, 3));
    let answer = replica.ask(2, Request::Vote(vote(2, 3, 0, 0, false)));
    assert_eq!(vote_answer(answer), (0, 0, 9, 3, false));
    // One that fell silent.
    let mut replica = Replica::follower(3);
    replica.pass_ms(2_000);
    assert_eq!(replica.state(), (StateName::Prospective, 3));
    let answer = replica.ask(2, Request::Vote(vote(2, 3, 0, 0, false)));
    assert_eq!(vote_answer(answer), (0, 0, 3, 3, false));
    // The next epoch is another matter.
    let answer = replica.ask(2, Request::Vote(vote(2, 3, 3, 0, true)));
    assert_eq!(vote_answer(answer), (0, 0, 3, 3, true));
    let answer = replica.ask(2, Request::Vote(vote(2, 4, 3, 0, false)));
    assert_eq!(vote_answer(answer), (0, 0, -1, 4, true));
}

#[test]
fn a_vote_is_told_when_it_is_durable() {
    let mut replica = Replica::new(1, &[1, 2, 3]);
    replica.is_disk_fast = false;
    let id = replica.send(2, Request::Vote(vote(2, 1, 0, 0, false)));
    assert_eq!(replica.answer(id), None);
    let versions: Vec<Version> = replica
        .out
        .iter()
        .filter_map(|effect| match effect {
            Effect::Persist { version, .. } => Some(*version),
            _ => None,
        })
        .collect();
    let [seen, voted] = versions[..] else {
        panic!("the epoch, then the vote: {versions:?}");
    };
    replica.input(Input::Persisted(seen));
    assert_eq!(replica.answer(id), None);
    replica.input(Input::Persisted(voted));
    let answer = replica.answer(id).expect("now it is told");
    assert_eq!(vote_answer(answer), (0, 0, -1, 1, true));
}

#[test]
fn answers_name_the_leaders_endpoint_from_version_1() {
    let mut replica = Replica::follower(5);
    let named = |response: Response| match response {
        Response::Vote(response) => response.node_endpoints,
        other => panic!("{other:?}"),
    };
    let request = Request::Vote(vote(2, 5, 4, 0, false));
    let nodes = named(replica.ask(1, request.clone()));
    assert_eq!(nodes.len(), 1);
    let node = (nodes[0].node_id, nodes[0].host.as_str(), nodes[0].port);
    assert_eq!(node, (3, "host-3", 9_093));
    assert_eq!(named(replica.ask(0, request)), []);
}

#[test]
fn begin_quorum_epoch_is_answered_by_code() {
    let mut replica = Replica::follower(5);
    let fenced = ErrorCode::FENCED_LEADER_EPOCH.0;
    assert_eq!(begun(replica.ask(1, begin(2, 4, 1))), (0, fenced, 3, 5));
    let invalid = ErrorCode::INVALID_REQUEST.0;
    assert_eq!(begun(replica.ask(1, begin(-1, 5, 1))), (0, invalid, 3, 5));
    let wrong_key = ErrorCode::INVALID_VOTER_KEY.0;
    assert_eq!(begun(replica.ask(1, begin(2, 6, 7))), (0, wrong_key, 2, 6));
    assert_eq!(replica.state(), (StateName::Follower, 6));
    // Two leaders of an epoch: any answer would end a Kafka node.
    let id = replica.send(1, begin(3, 6, 1));
    assert_eq!(replica.answer(id), None);
    let told = |effect: &Effect| matches!(effect, Effect::PeerError(_));
    assert!(replica.out.iter().any(told));
    assert_eq!(replica.quorum.leader_id(), Some(BrokerId(2)));
}

#[test]
fn the_first_of_the_preferred_campaigns_at_once() {
    for (preferred, wait_ms) in [
        (&[1, 2][..], 0),
        (&[2, 1], 500),
        (&[2], 1_000),
        (&[2, 4, 1], 500),
        (&[2, 1, 4], 250),
        (&[], 0),
    ] {
        let mut replica = Replica::follower(5);
        let answer = replica.ask(1, end(3, 5, preferred));
        let Response::EndQuorumEpoch(answer) = answer else {
            panic!("{answer:?}");
        };
        let p: &end_quorum_epoch_response::PartitionData = &answer.topics[0].partitions[0];
        assert_eq!((p.error_code, p.leader_id, p.leader_epoch), (0, 3, 5));
        if wait_ms > 0 {
            replica.pass_ms(wait_ms - 1);
            assert_eq!(replica.state().0, StateName::Follower, "{preferred:?}");
            replica.pass_ms(1);
        }
        assert_eq!(
            replica.state(),
            (StateName::Prospective, 5),
            "{preferred:?}"
        );
    }
}

#[test]
fn a_resigned_leader_tells_until_it_is_answered() {
    let mut leader = Replica::leader();
    let end = leader.quorum.log().end().0;
    leader.ask(18, Request::Fetch(fetch(3, 1, end, 1)));
    leader.sent();
    leader.input(Input::Shutdown);
    assert_eq!(leader.state(), (StateName::Resigned, 1));
    let told = leader.sent();
    assert_eq!(told.iter().map(|t| t.1).collect::<Vec<_>>(), [2, 3]);
    let Request::EndQuorumEpoch(request) = &told[0].2 else {
        panic!("{told:?}");
    };
    // The one with the longest log first.
    let preferred = &request.topics[0].partitions[0].preferred_candidates;
    let ids: Vec<i32> = preferred.iter().map(|c| c.candidate_id).collect();
    assert_eq!(ids, [3, 2]);
    for (call, _, _) in told {
        leader.input(Input::CallFailed(call));
    }
    leader.pass_ms(19);
    assert_eq!(leader.sent().len(), 0);
    leader.pass_ms(1);
    let told = leader.sent();
    assert_eq!(told.len(), 2);
    let answered = |error: i16| EndQuorumEpochResponse {
        topics: vec![end_quorum_epoch_response::TopicData {
            topic_name: METADATA_TOPIC.to_owned(),
            partitions: vec![end_quorum_epoch_response::PartitionData {
                error_code: error,
                leader_id: 1,
                leader_epoch: 1,
                ..Default::default()
            }],
        }],
        ..Default::default()
    };
    // An answer without the partition is none.
    let empty = Response::EndQuorumEpoch(EndQuorumEpochResponse::default());
    leader.input(Input::Response {
        call: told[0].0,
        response: empty,
    });
    let well = Response::EndQuorumEpoch(answered(0));
    leader.input(Input::Response {
        call: told[1].0,
        response: well.clone(),
    });
    leader.pass_ms(20);
    let told = leader.sent();
    assert_eq!(told.iter().map(|t| t.1).collect::<Vec<_>>(), [2]);
    leader.input(Input::Response {
        call: told[0].0,
        response: well,
    });
    assert!(leader.out.contains(&Effect::Stopped));
}

#[test]
fn a_leader_that_nobody_fetches_from_resigns_after_three_seconds() {
    let mut leader = Replica::leader();
    let began = leader.now.mono;
    leader.pass_ms(2_999);
    assert_eq!(leader.state(), (StateName::Leader, 1));
    leader.pass_ms(1);
    assert_eq!(leader.state(), (StateName::Resigned, 1));
    assert_eq!(leader.now.mono.0 - began.0, 3_000 * MS);
    // Its epoch is over whoever leads next.
    leader.pass_ms(2_000);
    assert!(leader.state().1 >= 2);
}

#[test]
fn voters_that_do_not_fetch_are_told_every_second() {
    let mut leader = Replica::leader();
    leader.sent();
    let end = leader.quorum.log().end().0;
    leader.pass_ms(600);
    leader.ask(18, Request::Fetch(fetch(2, 1, end, 1)));
    leader.pass_ms(400);
    assert_eq!(leader.sent(), []);
    // The call to 3 of the election is open still, until its time is up.
    leader.pass_ms(1_100);
    let told = leader.sent();
    assert!(
        told.iter()
            .all(|t| matches!(t.2, Request::BeginQuorumEpoch(_)))
    );
    assert!(told.iter().any(|t| t.1 == 3));
}

#[test]
fn a_request_for_a_vote_does_not_outlive_its_candidate() {
    let mut replica = Replica::new(1, &[1, 2, 3]);
    replica.pass_ms(2_000);
    replica.is_disk_fast = false;
    let pre_votes = replica.sent();
    let pre_vote = pre_votes.iter().find(|s| matches!(s.2, Request::Vote(_)));
    let call = pre_vote.expect("pre-votes").0;
    let response = Response::Vote(voted(0, -1, true));
    replica.input(Input::Response { call, response });
    assert_eq!(replica.state(), (StateName::Candidate, 1));
    assert_eq!(replica.sent(), []);
    // Another one is elected before its own vote is durable.
    let id = replica.send(1, begin(3, 1, 1));
    assert_eq!(replica.state(), (StateName::Follower, 1));
    replica.input(Input::Persisted(Version(3)));
    assert_eq!(begun(replica.answer(id).expect("told")), (0, 0, 3, 1));
    let sent = replica.sent();
    assert!(
        sent.iter().all(|s| matches!(s.2, Request::Fetch(_))),
        "{sent:?}"
    );
}

#[test]
fn a_candidate_that_crashed_does_not_go_on() {
    let voted = ElectionState {
        epoch: LeaderEpoch(3),
        leader: None,
        voted: Some(key(1)),
    };
    let mut replica = Replica::with_log(1, formatted(&[1, 2, 3]), Some(voted));
    assert_eq!(replica.state(), (StateName::Unattached, 3));
    // It may have been elected; nobody else gets its vote of that epoch.
    let answer = replica.ask(2, Request::Vote(vote(2, 3, 0, 0, false)));
    assert_eq!(vote_answer(answer), (0, 0, -1, 3, false));
    replica.pass_ms(2_000);
    replica.win();
    assert_eq!(replica.state(), (StateName::Leader, 4));
}

#[test]
fn a_leader_that_crashed_is_none_of_that_epoch() {
    let led = Some(ElectionState::leading(LeaderEpoch(3), BrokerId(1)));
    let mut replica = Replica::with_log(1, formatted(&[1, 2, 3]), led);
    assert_eq!(replica.state(), (StateName::Resigned, 3));
    let told = replica.sent();
    assert_eq!(told.iter().map(|t| t.1).collect::<Vec<_>>(), [2, 3]);
    replica.pass_ms(2_000);
    assert_eq!(replica.state(), (StateName::Unattached, 4));
}

#[test]
fn a_voter_removed_by_an_uncommitted_record_still_campaigns() {
    // It led {1, 2}, removed itself, and nobody heard of it.
    let mut log = formatted(&[1, 2]);
    log.append(Offset(3), LeaderEpoch(1), Vec::new());
    let record = ControlRecord::Voters(voters(&[2]).to_record());
    log.append(Offset(4), LeaderEpoch(1), [(Offset(3), record)]);
    let mut replica = Replica::with_log(1, log, None);
    assert_eq!(replica.quorum.voters().len(), 1);
    replica.pass_ms(2_000);
    assert_eq!(replica.state(), (StateName::Prospective, 1));
    // Its own vote is none of that set's.
    replica.pass_ms(1);
    assert_eq!(replica.state(), (StateName::Prospective, 1));
    replica.win();
    assert_eq!(replica.state(), (StateName::Leader, 2));
    let end = replica.quorum.log().end();
    assert_eq!(replica.quorum.high_watermark(), None);
    replica.ask(18, Request::Fetch(fetch(2, 2, end.0, 2)));
    assert_eq!(replica.quorum.high_watermark(), Some(end));
    assert_eq!(replica.state(), (StateName::Resigned, 2));
    // Now that it is committed it doesn't.
    replica.pass_ms(20_000);
    assert_eq!(replica.state(), (StateName::Unattached, 3));
}

#[test]
fn election_timeouts_are_random() {
    let campaign_ms = |seed: u64| {
        let mut replica = Replica::seeded(1, formatted(&[1, 2, 3]), None, seed);
        (0..)
            .find(|_| {
                replica.pass_ms(1);
                replica.state().0 == StateName::Prospective
            })
            .expect("it campaigns")
    };
    let times: Vec<i32> = (0..20).map(campaign_ms).collect();
    assert!(
        times.iter().all(|ms| (999..2_000).contains(ms)),
        "{times:?}"
    );
    assert!(times.iter().max() > times.iter().min());
}

#[test]
fn a_follower_that_is_served_helps_nobody_to_replace_its_leader() {
    let mut replica = Replica::follower(3);
    let pre_vote = Request::Vote(vote(2, 3, 3, 0, true));
    let answer = replica.ask(2, pre_vote.clone());
    assert_eq!(vote_answer(answer), (0, 0, 3, 3, true));
    let call = replica.sent().last().expect("a fetch").0;
    let response = Response::Fetch(answer_of(3, 3));
    replica.input(Input::Response { call, response });
    let answer = replica.ask(2, pre_vote);
    assert_eq!(vote_answer(answer), (0, 0, 3, 3, false));
}

#[test]
fn a_single_voter_leads_when_its_own_vote_is_durable() {
    let mut replica = Replica::new(1, &[1]);
    replica.is_disk_fast = false;
    let end = replica.quorum.log().last();
    replica.send(
        2,
        Request::Vote(vote(9, 2, end.epoch.0, end.offset.0, false)),
    );
    assert_eq!(replica.state(), (StateName::Candidate, 3));
    let asked = |effect: &Effect| match effect {
        Effect::Persist { version, .. } => Some(*version),
        _ => None,
    };
    let own_vote = replica.out.iter().filter_map(asked).next_back();
    replica.input(Input::Persisted(own_vote.expect("asked for")));
    assert_eq!(replica.state(), (StateName::Leader, 3));
}

#[test]
fn votes_of_an_older_epoch_do_not_count() {
    let mut replica = Replica::new(1, &[1, 2, 3]);
    replica.pass_ms(2_000);
    let grant = |replica: &mut Replica, pre: bool| {
        let sent = replica.sent();
        let mut votes = sent.iter().filter_map(|(call, to, request)| match request {
            Request::Vote(request) => Some((*call, *to, request.topics[0].partitions[0].clone())),
            _ => None,
        });
        let (call, _, asked) = votes
            .find(|v| v.2.pre_vote == pre && v.1 == 3)
            .expect("asked");
        let response = Response::Vote(voted(asked.replica_epoch, -1, true));
        (call, response)
    };
    let (call, response) = grant(&mut replica, true);
    replica.input(Input::Response { call, response });
    assert_eq!(replica.state(), (StateName::Candidate, 1));
    let (late, late_response) = grant(&mut replica, false);
    while replica.state() == (StateName::Candidate, 1) {
        replica.pass_ms(1);
    }
    assert_eq!(replica.state(), (StateName::Prospective, 1));
    let (call, response) = grant(&mut replica, true);
    replica.input(Input::Response { call, response });
    assert_eq!(replica.state(), (StateName::Candidate, 2));
    replica.input(Input::Response {
        call: late,
        response: late_response,
    });
    assert_eq!(replica.state(), (StateName::Candidate, 2));
}

#[test]
fn one_of_five_is_no_majority_to_lead_for() {
    let mut leader = Replica::new(1, &[1, 2, 3, 4, 5]);
    leader.pass_ms(2_000);
    leader.win();
    let end = leader.quorum.log().end().0;
    for second in 0..3 {
        assert_eq!(leader.state(), (StateName::Leader, 1), "{second} s");
        leader.ask(18, Request::Fetch(fetch(2, 1, end, 1)));
        leader.pass_ms(1_000);
    }
    assert_eq!(leader.state(), (StateName::Resigned, 1));
}

#[test]
fn a_follower_that_stops_says_nothing_more() {
    let mut follower = Replica::follower(4);
    follower.answer_fetch(answer_of(3, 4));
    follower.out.clear();
    follower.input(Input::Shutdown);
    follower.pass_ms(60_000);
    assert_eq!(follower.out, [Effect::Stopped]);
}
