//! Fetch and FetchSnapshot.

use bytes::Bytes;
use ottla::base::{ErrorCode, LeaderEpoch, Offset, Uuid};
use ottla::raft::quorum::{
    Effect, Input, LogView, OffsetAndEpoch, Proposal, Request, Response, StateName,
};
use ottla::raft::{METADATA_TOPIC, VoterSet};
use ottla::wire::messages::{
    BeginQuorumEpochResponse, FetchRequest, FetchSnapshotRequest, FetchSnapshotResponse,
    fetch_response, fetch_snapshot_request, fetch_snapshot_response,
};

use crate::support::*;

#[test]
fn a_newcomer_learns_of_leader_and_epoch() {
    let mut leader = Replica::leader();
    let answer = fetched(leader.ask(18, Request::Fetch(fetch(7, 0, 0, 0))));
    let p = partition(&answer);
    assert_eq!(p.error_code, ErrorCode::FENCED_LEADER_EPOCH.0);
    assert_eq!(
        (p.current_leader.leader_id, p.current_leader.leader_epoch),
        (1, 1)
    );
    assert_eq!(
        (p.high_watermark, p.last_stable_offset, p.log_start_offset),
        (-1, -1, 0)
    );
    assert_eq!(p.records, Some(Bytes::new()));
    let node = &answer.node_endpoints[0];
    assert_eq!(
        (node.node_id, node.host.as_str(), node.port),
        (1, "host-1", 9_091)
    );

    let mut newcomer = Replica::with_log(7, LogView::new(VoterSet::default()), None);
    assert_eq!(newcomer.state(), (StateName::Unattached, 0));
    let asked = newcomer.sent();
    assert!(asked[0].1 < 0, "a bootstrap server");
    let Request::Fetch(request) = &asked[0].2 else {
        panic!("{asked:?}");
    };
    let p = &request.topics[0].partitions[0];
    let all = (
        p.current_leader_epoch,
        p.fetch_offset,
        p.last_fetched_epoch,
        p.high_watermark,
    );
    assert_eq!(all, (0, 0, 0, -1));
    assert_eq!((request.max_wait_ms, request.max_bytes), (500, 1024 * 1024));
    let call = asked[0].0;
    newcomer.input(Input::Response {
        call,
        response: Response::Fetch(answer),
    });
    assert_eq!(newcomer.state(), (StateName::Follower, 1));
    let asked = newcomer.sent();
    assert_eq!((asked.len(), asked[0].1), (1, 1));
    // It never campaigns.
    newcomer.pass_ms(20_000);
    assert_eq!(newcomer.state(), (StateName::Unattached, 1));
}

#[test]
fn fetches_are_answered_by_code() {
    let mut leader = Replica::leader();
    let code = |leader: &mut Replica, request: FetchRequest| {
        let answer = fetched(leader.ask(18, Request::Fetch(request)));
        let error = answer.responses.first().map(|t| t.partitions[0].error_code);
        (answer.error_code, error)
    };
    let mut request = fetch(2, 1, 0, 0);
    request.cluster_id = Some("other".to_owned());
    assert_eq!(code(&mut leader, request), (104, None));
    let mut request = fetch(2, 1, 0, 0);
    request.topics[0].topic_id = Uuid([9; 16]);
    assert_eq!(code(&mut leader, request), (42, None));
    let mut request = fetch(2, 1, 0, 0);
    request.cluster_id = None;
    assert_eq!(code(&mut leader, request), (0, Some(0)));
    for (epoch, offset, last_epoch, error) in [
        (1, -1, 0, 42),
        (1, 0, -1, 42),
        (1, 0, 2, 42),
        (0, 0, 0, 74),
        (2, 0, 0, 75),
        (1, 0, 0, 0),
    ] {
        let answer = code(&mut leader, fetch(2, epoch, offset, last_epoch));
        assert_eq!(answer, (0, Some(error)), "{epoch} {offset} {last_epoch}");
    }
    // Its own id.
    assert_eq!(code(&mut leader, fetch(1, 1, 0, 0)), (0, Some(-1)));
    let mut follower = Replica::follower(5);
    assert_eq!(code(&mut follower, fetch(2, 5, 0, 0)), (0, Some(6)));
}

#[test]
fn uncommitted_records_are_served_and_fetches_commit_them() {
    let mut leader = Replica::leader();
    let answer = fetched(leader.ask(18, Request::Fetch(fetch(2, 1, 0, 0))));
    assert_eq!(partition(&answer).high_watermark, -1);
    assert!(
        partition(&answer)
            .records
            .as_ref()
            .is_some_and(|r| !r.is_empty())
    );
    // At the end it waits, at most as long as it said.
    let mut request = fetch(2, 1, 3, 1);
    request.max_wait_ms = 500;
    let waits = leader.send(18, Request::Fetch(request));
    assert_eq!(leader.quorum.high_watermark(), Some(Offset(3)));
    // The high watermark is news to it.
    let answer = fetched(leader.answer(waits).expect("news"));
    assert_eq!(partition(&answer).high_watermark, 3);
    assert!(leader.out.contains(&Effect::Leading(LeaderEpoch(1))));
    let mut request = fetch(2, 1, 3, 1);
    request.max_wait_ms = 500;
    request.topics[0].partitions[0].high_watermark = 3;
    let waits = leader.send(18, Request::Fetch(request.clone()));
    leader.pass_ms(499);
    assert_eq!(leader.answer(waits), None);
    leader.pass_ms(1);
    let answer = fetched(leader.answer(waits).expect("its time is up"));
    assert_eq!(partition(&answer).records, Some(Bytes::new()));
    // New records end the wait, too.
    let waits = leader.send(18, Request::Fetch(request));
    leader.input(Input::Propose(Proposal {
        epoch: LeaderEpoch(1),
        values: vec![Bytes::from_static(b"value")],
        tag: 7,
    }));
    assert!(leader.out.contains(&Effect::Proposed {
        tag: 7,
        last_offset: Some(Offset(3))
    }));
    let answer = fetched(leader.answer(waits).expect("records"));
    assert_eq!(partition(&answer).high_watermark, 3);
}

#[test]
fn logs_that_part_are_cut_at_the_right_place() {
    let mut log = formatted(&[1, 2, 3]);
    log.append(Offset(5), LeaderEpoch(1), Vec::new());
    log.append(Offset(9), LeaderEpoch(3), Vec::new());
    let mut leader = Replica::with_log(1, log, None);
    leader.pass_ms(2_000);
    leader.win();
    assert_eq!(leader.state(), (StateName::Leader, 4));
    for (offset, last_epoch, expected) in [
        (9, 3, (-1, -1)),
        (5, 1, (-1, -1)),
        (7, 1, (1, 5)),
        (7, 2, (1, 5)),
        (12, 3, (3, 9)),
        (3, 0, (0, 0)),
    ] {
        let answer = fetched(leader.ask(18, Request::Fetch(fetch(2, 4, offset, last_epoch))));
        let d = &partition(&answer).diverging_epoch;
        assert_eq!((d.epoch, d.end_offset), expected, "{offset} {last_epoch}");
    }

    let mut log = formatted(&[1, 2, 3]);
    log.append(Offset(5), LeaderEpoch(1), Vec::new());
    log.append(Offset(9), LeaderEpoch(2), Vec::new());
    let mut follower = Replica::with_log(1, log, None);
    follower.ask(1, begin(3, 4, 1));
    let asked = follower.sent();
    let (call, _, Request::Fetch(request)) = asked.last().expect("a fetch") else {
        panic!("{asked:?}");
    };
    assert_eq!(request.topics[0].partitions[0].last_fetched_epoch, 2);
    let mut answer = answer_of(3, 4);
    let p = &mut answer.responses[0].partitions[0];
    p.diverging_epoch = fetch_response::EpochEndOffset {
        epoch: 1,
        end_offset: 4,
    };
    follower.input(Input::Response {
        call: *call,
        response: Response::Fetch(answer),
    });
    assert!(follower.out.contains(&Effect::Truncate { to: Offset(4) }));
    assert_eq!(follower.quorum.log().last(), OffsetAndEpoch::new(4, 1));
}

#[test]
fn what_is_committed_is_never_cut() {
    let mut log = formatted(&[1, 2, 3]);
    log.append(Offset(5), LeaderEpoch(1), Vec::new());
    let mut follower = Replica::with_log(1, log, None);
    follower.ask(1, begin(3, 4, 1));
    let fetch_call = |follower: &mut Replica| {
        let asked = follower.sent();
        let fetch = asked.iter().rfind(|a| matches!(a.2, Request::Fetch(_)));
        fetch.expect("a fetch").0
    };
    let call = fetch_call(&mut follower);
    let mut answer = answer_of(3, 4);
    answer.responses[0].partitions[0].high_watermark = 100;
    follower.input(Input::Response {
        call,
        response: Response::Fetch(answer),
    });
    // Not more than it has.
    assert_eq!(follower.quorum.high_watermark(), Some(Offset(5)));
    let call = fetch_call(&mut follower);
    let mut answer = answer_of(3, 4);
    let p = &mut answer.responses[0].partitions[0];
    p.diverging_epoch = fetch_response::EpochEndOffset {
        epoch: 1,
        end_offset: 4,
    };
    follower.input(Input::Response {
        call,
        response: Response::Fetch(answer),
    });
    let is_fault = |effect: &Effect| matches!(effect, Effect::Fault(_));
    assert!(follower.out.iter().any(is_fault));
    assert_eq!(follower.quorum.log().end(), Offset(5));
    // Nothing comes after it.
    follower.pass_ms(60_000);
    assert!(follower.out.last().is_some_and(is_fault));
    let id = follower.send(2, Request::Vote(vote(2, 9, 8, 100, false)));
    assert_eq!(follower.answer(id), None);
}

#[test]
fn a_snapshot_goes_before_the_log() {
    let mut leader = Replica::new(1, &[1]);
    let id = OffsetAndEpoch::new(3, 1);
    leader.input(Input::SnapshotTaken { id, size: 1_000 });
    // Whoever has nothing takes it, though the log is all there.
    let answer = fetched(leader.ask(18, Request::Fetch(fetch(7, 1, 0, 0))));
    let s = &partition(&answer).snapshot_id;
    assert_eq!((s.end_offset, s.epoch), (3, 1));
    let ask = |leader: &mut Replica, epoch, offset, position| {
        let request = fetch_snapshot_request::PartitionSnapshot {
            partition: 0,
            current_leader_epoch: epoch,
            snapshot_id: fetch_snapshot_request::SnapshotId {
                end_offset: offset,
                epoch: 1,
            },
            position,
            replica_directory_id: key(7).wire_directory(),
        };
        let request = FetchSnapshotRequest {
            cluster_id: None,
            replica_id: 7,
            max_bytes: 600,
            topics: vec![fetch_snapshot_request::TopicSnapshot {
                name: METADATA_TOPIC.to_owned(),
                partitions: vec![request],
            }],
        };
        match leader.ask(1, Request::FetchSnapshot(request)) {
            Response::FetchSnapshot(response) => response.topics[0].partitions[0].clone(),
            other => panic!("{other:?}"),
        }
    };
    for (epoch, offset, position, error) in [
        (1, 2, 0, ErrorCode::SNAPSHOT_NOT_FOUND),
        (1, 3, 1_000, ErrorCode::POSITION_OUT_OF_RANGE),
        (1, 3, -1, ErrorCode::POSITION_OUT_OF_RANGE),
        (0, 3, 0, ErrorCode::FENCED_LEADER_EPOCH),
        (2, 3, 0, ErrorCode::UNKNOWN_LEADER_EPOCH),
        (1, 3, 999, ErrorCode::NONE),
    ] {
        let p = ask(&mut leader, epoch, offset, position);
        assert_eq!(
            ErrorCode(p.error_code),
            error,
            "{epoch} {offset} {position}"
        );
        assert_eq!(
            (p.current_leader.leader_id, p.current_leader.leader_epoch),
            (1, 1)
        );
    }
    let p = ask(&mut leader, 1, 3, 600);
    assert_eq!(
        (p.size, p.position, p.snapshot_id.end_offset),
        (1_000, 600, 3)
    );

    // The log goes, and whoever is before its start takes the snapshot.
    leader.input(Input::Clean { before: id });
    assert!(
        leader
            .out
            .contains(&Effect::AdvanceLogStart { snapshot: id })
    );
    for (offset, last_epoch, is_sent) in [(2, 1, true), (3, 0, true), (3, 1, false)] {
        let answer = fetched(leader.ask(18, Request::Fetch(fetch(7, 1, offset, last_epoch))));
        let s = &partition(&answer).snapshot_id;
        assert_eq!(s.end_offset == 3, is_sent, "{offset} {last_epoch}");
    }
}

#[test]
fn a_snapshot_is_fetched_in_pieces_and_takes_the_logs_place() {
    let mut log = formatted(&[1, 2, 3]);
    log.append(Offset(5), LeaderEpoch(1), Vec::new());
    let mut follower = Replica::with_log(1, log, None);
    follower.ask(1, begin(3, 4, 1));
    let mut answer = answer_of(3, 4);
    answer.responses[0].partitions[0].snapshot_id = fetch_response::SnapshotId {
        end_offset: 20,
        epoch: 3,
    };
    let call = follower.sent().last().expect("a fetch").0;
    follower.input(Input::Response {
        call,
        response: Response::Fetch(answer),
    });
    let piece = |position: i64, bytes: &'static [u8]| {
        Response::FetchSnapshot(FetchSnapshotResponse {
            topics: vec![fetch_snapshot_response::TopicSnapshot {
                name: METADATA_TOPIC.to_owned(),
                partitions: vec![fetch_snapshot_response::PartitionSnapshot {
                    snapshot_id: fetch_snapshot_response::SnapshotId {
                        end_offset: 20,
                        epoch: 3,
                    },
                    current_leader: fetch_snapshot_response::LeaderIdAndEpoch {
                        leader_id: 3,
                        leader_epoch: 4,
                    },
                    size: 8,
                    position,
                    unaligned_records: Bytes::from_static(bytes),
                    ..Default::default()
                }],
            }],
            ..Default::default()
        })
    };
    let asked = |follower: &mut Replica| {
        let sent = follower.sent();
        let Some((call, 3, Request::FetchSnapshot(request))) = sent.last().cloned() else {
            panic!("{sent:?}");
        };
        (call, request.topics[0].partitions[0].position)
    };
    let (call, position) = asked(&mut follower);
    assert_eq!(position, 0);
    follower.input(Input::Response {
        call,
        response: piece(0, b"01234"),
    });
    let (call, position) = asked(&mut follower);
    assert_eq!(position, 5);
    follower.input(Input::Response {
        call,
        response: piece(5, b"567"),
    });
    let id = OffsetAndEpoch::new(20, 3);
    assert!(follower.out.contains(&Effect::FinishSnapshot { id }));
    // Meanwhile it stays in touch, and begins no other.
    for _ in 0..2 {
        let sent = follower.sent();
        let Some((call, 3, Request::Fetch(request))) = sent.last() else {
            panic!("{sent:?}");
        };
        assert_eq!(request.topics[0].partitions[0].fetch_offset, 5);
        let mut answer = answer_of(3, 4);
        answer.responses[0].partitions[0].snapshot_id = fetch_response::SnapshotId {
            end_offset: 20,
            epoch: 3,
        };
        follower.input(Input::Response {
            call: *call,
            response: Response::Fetch(answer),
        });
        assert_eq!(follower.sent(), []);
        follower.pass_ms(20);
    }
    let open = follower.sent().last().expect("a fetch").0;
    let finished = Input::SnapshotFinished {
        id,
        size: 8,
        kraft_version: 1,
        voters: Some(voters(&[1, 3])),
    };
    follower.input(finished);
    let expected = [
        Effect::ResetLog { snapshot: id },
        Effect::LoadSnapshot { id },
        Effect::HighWatermark(Offset(20)),
    ];
    let mut threes = follower.out.windows(3);
    assert!(threes.any(|effects| effects == expected));
    assert_eq!(follower.quorum.voters().len(), 2);
    // What was asked before is of a log that is gone.
    let mut stale = answer_of(3, 4);
    stale.responses[0].partitions[0].diverging_epoch = fetch_response::EpochEndOffset {
        epoch: 1,
        end_offset: 2,
    };
    follower.input(Input::Response {
        call: open,
        response: Response::Fetch(stale),
    });
    let sent = follower.sent();
    let Some((_, 3, Request::Fetch(request))) = sent.last() else {
        panic!("{sent:?}");
    };
    let p = &request.topics[0].partitions[0];
    assert_eq!((p.fetch_offset, p.last_fetched_epoch), (20, 3));
}

#[test]
fn kafkas_failed_answer_to_fetch_snapshot_means_fetch_again() {
    let mut follower = Replica::follower(4);
    let mut answer = answer_of(3, 4);
    answer.responses[0].partitions[0].snapshot_id = fetch_response::SnapshotId {
        end_offset: 20,
        epoch: 3,
    };
    let call = follower.sent().last().expect("a fetch").0;
    follower.input(Input::Response {
        call,
        response: Response::Fetch(answer),
    });
    let call = follower.sent().last().expect("FetchSnapshot").0;
    let failed = FetchSnapshotResponse {
        error_code: ErrorCode::UNKNOWN_SERVER_ERROR.0,
        ..Default::default()
    };
    follower.input(Input::Response {
        call,
        response: Response::FetchSnapshot(failed),
    });
    follower.pass_ms(20);
    assert!(matches!(
        follower.sent().last(),
        Some((_, 3, Request::Fetch(_)))
    ));
}

#[test]
fn an_answer_after_the_leaders_own_epoch_is_ignored() {
    let mut follower = Replica::follower(4);
    let call = follower.sent().last().expect("a fetch").0;
    follower.ask(1, begin(2, 5, 1));
    let mut late = answer_of(3, 4);
    late.responses[0].partitions[0].high_watermark = 3;
    follower.input(Input::Response {
        call,
        response: Response::Fetch(late),
    });
    assert_eq!(follower.state(), (StateName::Follower, 5));
    assert_eq!(follower.quorum.high_watermark(), None);
    let response = Response::BeginQuorumEpoch(BeginQuorumEpochResponse::default());
    follower.input(Input::Response { call, response });
    assert_eq!(follower.state(), (StateName::Follower, 5));
}

#[test]
fn older_epochs_are_committed_with_the_leaders_own() {
    let mut log = formatted(&[1, 2, 3]);
    log.append(Offset(9), LeaderEpoch(3), Vec::new());
    let mut leader = Replica::with_log(1, log, None);
    leader.pass_ms(2_000);
    leader.win();
    // All of them have it, and yet another leader may come that hasn't.
    leader.ask(18, Request::Fetch(fetch(2, 4, 9, 3)));
    leader.ask(18, Request::Fetch(fetch(3, 4, 9, 3)));
    assert_eq!(leader.quorum.high_watermark(), None);
    let end = leader.quorum.log().end();
    leader.ask(18, Request::Fetch(fetch(2, 4, end.0, 4)));
    assert_eq!(leader.quorum.high_watermark(), Some(end));
}

#[test]
fn only_what_follows_on_the_log_is_appended() {
    let mut damaged = records_of(2, 3, 1).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let wrong = [
        records_of(0, 3, 2),
        records_of(3, 3, 2),
        records_of(2, 2, 2),
        records_of(2, 5, 2),
        Bytes::from(damaged),
    ];
    for records in wrong {
        let mut follower = Replica::follower(4);
        follower.answer_fetch(answer_with(3, 4, records_of(0, 3, 2)));
        assert_eq!(follower.quorum.log().last(), OffsetAndEpoch::new(2, 3));
        // What comes before the wrong one is taken.
        let all = [records_of(2, 3, 1), records.clone()].concat();
        follower.answer_fetch(answer_with(3, 4, records));
        assert_eq!(follower.quorum.log().end(), Offset(2));
        let told = |effect: &Effect| matches!(effect, Effect::PeerError(_));
        assert!(follower.out.iter().any(told));
        follower.pass_ms(20);
        follower.answer_fetch(answer_with(3, 4, Bytes::from(all)));
        assert!(follower.quorum.log().end() >= Offset(3));
        assert!(follower.quorum.log().end() <= Offset(5));
    }
    // A batch that is cut off comes again.
    let mut follower = Replica::follower(4);
    let whole = records_of(0, 3, 2);
    let cut = [&whole[..], &records_of(2, 3, 2)[..70]].concat();
    follower.answer_fetch(answer_with(3, 4, Bytes::from(cut)));
    let appended = Effect::Append {
        batches: whole,
        base_offset: Offset(0),
        end_offset: Offset(2),
    };
    assert!(follower.out.contains(&appended));
    assert_eq!(follower.quorum.log().end(), Offset(2));
}

#[test]
fn a_voter_fetches_when_its_log_is_durable() {
    let mut follower = Replica::follower(4);
    follower.is_log_fast = false;
    follower.answer_fetch(answer_with(3, 4, records_of(0, 3, 2)));
    assert_eq!(follower.sent(), []);
    let flush = follower.out.iter().find_map(|effect| match effect {
        Effect::Flush(id) => Some(*id),
        _ => None,
    });
    follower.input(Input::Flushed(flush.expect("asked for")));
    let sent = follower.sent();
    let Some((_, 3, Request::Fetch(request))) = sent.last() else {
        panic!("{sent:?}");
    };
    assert_eq!(request.topics[0].partitions[0].fetch_offset, 2);
}

#[test]
fn a_flush_makes_durable_what_was_there_when_it_began() {
    let mut broker = Replica::broker(7, formatted(&[1, 2, 3]));
    broker.ask(1, begin(3, 4, 7));
    broker.is_log_fast = false;
    broker.answer_fetch(answer_with(3, 4, records_of(0, 2, 2)));
    let flushes = |broker: &Replica| {
        let ids = broker.out.iter().filter_map(|effect| match effect {
            Effect::Flush(id) => Some(*id),
            _ => None,
        });
        ids.collect::<Vec<_>>()
    };
    let first = flushes(&broker)[0];
    // Meanwhile that is cut off, and others take its place.
    let mut parted = answer_of(3, 4);
    parted.responses[0].partitions[0].diverging_epoch = fetch_response::EpochEndOffset {
        epoch: 1,
        end_offset: 0,
    };
    broker.answer_fetch(parted);
    assert_eq!(broker.quorum.log().end(), Offset(0));
    broker.answer_fetch(answer_with(3, 4, records_of(0, 3, 2)));
    broker.input(Input::Flushed(first));
    assert_eq!(broker.quorum.log().flushed(), Offset(0));
    let second = flushes(&broker)[1];
    broker.input(Input::Flushed(second));
    assert_eq!(broker.quorum.log().flushed(), Offset(2));
}

#[test]
fn an_answer_of_the_same_leaders_older_epoch_is_ignored() {
    let mut log = formatted(&[1, 2, 3]);
    log.append(Offset(9), LeaderEpoch(3), Vec::new());
    let mut follower = Replica::with_log(1, log, None);
    follower.ask(1, begin(3, 4, 1));
    let call = follower.sent().last().expect("a fetch").0;
    follower.ask(1, begin(3, 5, 1));
    let mut late = answer_of(3, 4);
    late.responses[0].partitions[0].high_watermark = 9;
    let response = Response::Fetch(late);
    follower.input(Input::Response { call, response });
    assert_eq!(follower.quorum.high_watermark(), None);
}

#[test]
fn a_snapshot_of_what_the_log_has_changes_nothing() {
    let mut log = formatted(&[1, 2, 3]);
    log.append(Offset(9), LeaderEpoch(3), Vec::new());
    let mut follower = Replica::with_log(1, log, None);
    follower.ask(1, begin(3, 4, 1));
    let id = OffsetAndEpoch::new(5, 3);
    follower.input(Input::SnapshotFinished {
        id,
        size: 8,
        kraft_version: 1,
        voters: Some(voters(&[1])),
    });
    assert_eq!(follower.quorum.log().last(), OffsetAndEpoch::new(9, 3));
    assert_eq!(follower.quorum.voters().len(), 3);
    assert_eq!(follower.quorum.log().snapshot_size(id), Some(8));
}

#[test]
fn a_snapshots_piece_out_of_turn_is_not_written() {
    let mut follower = Replica::follower(4);
    let mut answer = answer_of(3, 4);
    answer.responses[0].partitions[0].snapshot_id = fetch_response::SnapshotId {
        end_offset: 20,
        epoch: 3,
    };
    follower.answer_fetch(answer);
    let call = follower.sent().last().expect("FetchSnapshot").0;
    let piece = fetch_snapshot_response::PartitionSnapshot {
        snapshot_id: fetch_snapshot_response::SnapshotId {
            end_offset: 20,
            epoch: 3,
        },
        current_leader: fetch_snapshot_response::LeaderIdAndEpoch {
            leader_id: 3,
            leader_epoch: 4,
        },
        size: 8,
        position: 5,
        unaligned_records: Bytes::from_static(b"567"),
        ..Default::default()
    };
    let response = Response::FetchSnapshot(FetchSnapshotResponse {
        topics: vec![fetch_snapshot_response::TopicSnapshot {
            name: METADATA_TOPIC.to_owned(),
            partitions: vec![piece],
        }],
        ..Default::default()
    });
    follower.input(Input::Response { call, response });
    let wrote = |effect: &Effect| matches!(effect, Effect::WriteSnapshot { .. });
    assert!(!follower.out.iter().any(wrote));
    follower.pass_ms(20);
    assert!(matches!(
        follower.sent().last(),
        Some((_, 3, Request::Fetch(_)))
    ));
}
