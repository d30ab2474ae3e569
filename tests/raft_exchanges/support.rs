//! One replica under test, and the messages that others send to it.

use bytes::Bytes;
use ottla::base::{BrokerId, ErrorCode, LeaderEpoch, Nanos, Offset, Rng, Uuid};
use ottla::raft::control::data_batch;
use ottla::raft::quorum::{
    Boot, CallId, Config, Destination, Effect, Effects, Input, LogView, Now, OffsetAndEpoch,
    Quorum, Request, RequestId, Response, StateName,
};
use ottla::raft::voters::Endpoint;
use ottla::raft::{ElectionState, METADATA_TOPIC, ReplicaKey, Voter, VoterSet};
use ottla::wire::messages::api_versions_response::SupportedFeatureKey;
use ottla::wire::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, ApiVersionsResponse, BeginQuorumEpochRequest,
    EndQuorumEpochRequest, FetchRequest, FetchResponse, VoteRequest, VoteResponse,
    add_raft_voter_request, begin_quorum_epoch_request, begin_quorum_epoch_response,
    end_quorum_epoch_request, fetch_request, fetch_response, vote_request, vote_response,
};

pub const CLUSTER: &str = "4L6g3nShT-eMCtK--X86sw";
pub const MS: u64 = 1_000_000;

pub fn key(id: i32) -> ReplicaKey {
    ReplicaKey {
        id: BrokerId(id),
        directory: Some(Uuid([id as u8; 16])),
    }
}

pub fn endpoint(id: i32) -> Endpoint {
    Endpoint {
        listener: "CONTROLLER".to_owned(),
        host: format!("host-{id}"),
        port: 9_090 + id as u16,
    }
}

fn config(me: i32) -> Config {
    let mut config = Config::new(key(me), CLUSTER, "CONTROLLER");
    config.endpoints = vec![endpoint(me)];
    config.bootstrap_servers = 2;
    config
}

pub fn voters(ids: &[i32]) -> VoterSet {
    let voter = |id: &i32| Voter::new(BrokerId(*id), key(*id).directory, vec![endpoint(*id)]);
    ids.iter().map(voter).collect()
}

/// One replica, whose disk is as fast as it is asked to be.
pub struct Replica {
    pub quorum: Quorum,
    pub now: Now,
    /// Answers persists and flushes at once.
    pub is_disk_fast: bool,
    /// Where the disk is fast: whether the log's flushes are, too.
    pub is_log_fast: bool,
    pub next_request: u64,
    pub wake_at: Nanos,
    /// What came out and wasn't asked for yet.
    pub out: Vec<Effect>,
}

impl Replica {
    /// Node `me` of a dynamic quorum that `format` just made.
    pub fn new(me: i32, ids: &[i32]) -> Replica {
        Replica::with_log(me, formatted(ids), None)
    }

    pub fn with_log(me: i32, log: LogView, election: Option<ElectionState>) -> Replica {
        Replica::seeded(me, log, election, 1)
    }

    /// An observer that never votes and needn't be durable.
    pub fn broker(me: i32, log: LogView) -> Replica {
        let mut config = config(me);
        config.is_controller = false;
        Replica::start(config, log, None, 1)
    }

    /// Answers its last Fetch.
    pub fn answer_fetch(&mut self, response: FetchResponse) {
        let sent = self.sent();
        let fetch = sent.iter().rfind(|s| matches!(s.2, Request::Fetch(_)));
        let call = fetch.expect("a fetch").0;
        let response = Response::Fetch(response);
        self.input(Input::Response { call, response });
    }

    /// An observer that seeks to be a voter.
    pub fn joining(me: i32, log: LogView) -> Replica {
        let mut config = config(me);
        config.auto_join = true;
        Replica::start(config, log, None, 1)
    }

    pub fn seeded(me: i32, log: LogView, election: Option<ElectionState>, seed: u64) -> Replica {
        Replica::start(config(me), log, election, seed)
    }

    fn start(config: Config, log: LogView, election: Option<ElectionState>, seed: u64) -> Replica {
        let now = Now {
            mono: Nanos(MS),
            wall_ms: 1_795_000_000_000,
        };
        let boot = Boot {
            config,
            log,
            election,
            rng: Rng::new(seed),
        };
        let mut replica = Replica {
            quorum: Quorum::start(now, boot),
            now,
            is_disk_fast: true,
            is_log_fast: true,
            next_request: 0,
            wake_at: Nanos(0),
            out: Vec::new(),
        };
        replica.input(Input::Tick);
        replica
    }

    pub fn input(&mut self, input: Input) {
        let mut fx = Effects::default();
        self.quorum.step(self.now, input, &mut fx);
        self.wake_at = fx.wake_at;
        for effect in fx.list {
            let done = match &effect {
                Effect::Persist { version, .. } => Some(Input::Persisted(*version)),
                Effect::Flush(id) if self.is_log_fast => Some(Input::Flushed(*id)),
                _ => None,
            };
            self.out.push(effect);
            if let Some(done) = done.filter(|_| self.is_disk_fast) {
                self.input(done);
            }
        }
    }

    /// Time passes, with all that is due in it.
    pub fn pass_ms(&mut self, ms: u64) {
        let until = Nanos(self.now.mono.0 + ms * MS);
        let mut ticks = 0;
        while self.wake_at <= until {
            ticks += 1;
            assert!(ticks < 100_000, "turns in circles: {:?}", self.state());
            self.set_time(self.wake_at.max(self.now.mono));
            self.input(Input::Tick);
        }
        self.set_time(until);
    }

    pub fn set_time(&mut self, mono: Nanos) {
        self.now.wall_ms += ((mono.0 - self.now.mono.0) / MS) as i64;
        self.now.mono = mono;
    }

    pub fn ask(&mut self, api_version: i16, request: Request) -> Response {
        let id = self.send(api_version, request);
        self.answer(id).expect("an answer at once")
    }

    pub fn send(&mut self, api_version: i16, request: Request) -> RequestId {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.input(Input::Request {
            id,
            api_version,
            request,
        });
        id
    }

    pub fn answer(&mut self, asked: RequestId) -> Option<Response> {
        let at = self.out.iter().position(|effect| {
            matches!(effect, Effect::Reply { id, .. } | Effect::ReplyRecords { id, .. }
                | Effect::ReplySnapshot { id, .. } if *id == asked)
        })?;
        Some(match self.out.remove(at) {
            Effect::Reply { response, .. } => response,
            Effect::ReplyRecords { mut response, .. } => {
                let records = Some(Bytes::from_static(b"records"));
                response.responses[0].partitions[0].records = records;
                Response::Fetch(response)
            }
            Effect::ReplySnapshot { response, .. } => Response::FetchSnapshot(response),
            _ => unreachable!("it was found"),
        })
    }

    /// The requests that were sent, in order.
    pub fn sent(&mut self) -> Vec<(CallId, i32, Request)> {
        let mut sent = Vec::new();
        self.out.retain(|effect| match effect {
            Effect::Send { call, to, request } => {
                let to = match to {
                    Destination::Node(id, _) => id.0,
                    Destination::Bootstrap(index) => -1 - *index as i32,
                };
                sent.push((*call, to, request.clone()));
                false
            }
            _ => true,
        });
        sent
    }

    pub fn state(&self) -> (StateName, i32) {
        (self.quorum.state(), self.quorum.epoch().0)
    }

    /// Answers every pre-vote and vote of its election with yes.
    pub fn win(&mut self) {
        for _ in 0..4 {
            for (call, _, request) in self.sent() {
                if let Request::Vote(request) = request {
                    let epoch = request.topics[0].partitions[0].replica_epoch;
                    let response = Response::Vote(voted(epoch, -1, true));
                    self.input(Input::Response { call, response });
                }
            }
            if self.quorum.state() == StateName::Leader {
                return;
            }
        }
        panic!("not elected: {:?}", self.state());
    }

    /// Node 1 of 1, 2 and 3, elected in epoch 1.
    pub fn leader() -> Replica {
        let mut leader = Replica::new(1, &[1, 2, 3]);
        leader.pass_ms(2_000);
        leader.win();
        assert_eq!(leader.state(), (StateName::Leader, 1));
        leader
    }

    /// Node 1 of 1, 2 and 3, which follows 3 in an epoch.
    pub fn follower(epoch: i32) -> Replica {
        let mut follower = Replica::new(1, &[1, 2, 3]);
        let response = follower.ask(1, begin(3, epoch, 1));
        assert_eq!(begun(response), (0, 0, 3, epoch));
        assert_eq!(follower.state(), (StateName::Follower, epoch));
        follower
    }
}

pub fn formatted(ids: &[i32]) -> LogView {
    LogView::at_snapshot(
        VoterSet::default(),
        OffsetAndEpoch::BOOTSTRAP,
        100,
        1,
        Some(voters(ids)),
    )
}

pub fn voted(epoch: i32, leader: i32, granted: bool) -> VoteResponse {
    VoteResponse {
        topics: vec![vote_response::TopicData {
            topic_name: METADATA_TOPIC.to_owned(),
            partitions: vec![vote_response::PartitionData {
                leader_id: leader,
                leader_epoch: epoch,
                vote_granted: granted,
                ..Default::default()
            }],
        }],
        ..Default::default()
    }
}

/// A vote of a candidate whose log ends at `offset` with a record of `last_epoch`.
pub fn vote(from: i32, epoch: i32, last_epoch: i32, offset: i64, pre_vote: bool) -> VoteRequest {
    VoteRequest {
        cluster_id: Some(CLUSTER.to_owned()),
        voter_id: 1,
        topics: vec![vote_request::TopicData {
            topic_name: METADATA_TOPIC.to_owned(),
            partitions: vec![vote_request::PartitionData {
                partition_index: 0,
                replica_epoch: epoch,
                replica_id: from,
                replica_directory_id: key(from).wire_directory(),
                voter_directory_id: key(1).wire_directory(),
                last_offset_epoch: last_epoch,
                last_offset: offset,
                pre_vote,
            }],
        }],
    }
}

/// Top-level and partition's code, leader, epoch, granted.
pub fn vote_answer(response: Response) -> (i16, i16, i32, i32, bool) {
    let Response::Vote(response) = response else {
        panic!("{response:?}");
    };
    let Some(topic) = response.topics.first() else {
        return (response.error_code, 0, 0, 0, false);
    };
    let p = &topic.partitions[0];
    let code = response.error_code;
    (
        code,
        p.error_code,
        p.leader_id,
        p.leader_epoch,
        p.vote_granted,
    )
}

pub fn begin(leader: i32, epoch: i32, voter: i32) -> Request {
    Request::BeginQuorumEpoch(BeginQuorumEpochRequest {
        cluster_id: Some(CLUSTER.to_owned()),
        voter_id: voter,
        topics: vec![begin_quorum_epoch_request::TopicData {
            topic_name: METADATA_TOPIC.to_owned(),
            partitions: vec![begin_quorum_epoch_request::PartitionData {
                partition_index: 0,
                voter_directory_id: key(voter).wire_directory(),
                leader_id: leader,
                leader_epoch: epoch,
            }],
        }],
        leader_endpoints: vec![begin_quorum_epoch_request::LeaderEndpoint {
            name: "CONTROLLER".to_owned(),
            host: format!("host-{leader}"),
            port: 9_090u16.wrapping_add(leader as u16),
        }],
    })
}

pub fn begun(response: Response) -> (i16, i16, i32, i32) {
    let Response::BeginQuorumEpoch(response) = response else {
        panic!("{response:?}");
    };
    let p = response.topics.first().map(|t| t.partitions[0].clone());
    let p: begin_quorum_epoch_response::PartitionData = p.unwrap_or_default();
    (
        response.error_code,
        p.error_code,
        p.leader_id,
        p.leader_epoch,
    )
}

pub fn end(leader: i32, epoch: i32, preferred: &[i32]) -> Request {
    let candidate = |id: &i32| end_quorum_epoch_request::ReplicaInfo {
        candidate_id: *id,
        candidate_directory_id: key(*id).wire_directory(),
    };
    Request::EndQuorumEpoch(EndQuorumEpochRequest {
        cluster_id: Some(CLUSTER.to_owned()),
        topics: vec![end_quorum_epoch_request::TopicData {
            topic_name: METADATA_TOPIC.to_owned(),
            partitions: vec![end_quorum_epoch_request::PartitionData {
                partition_index: 0,
                leader_id: leader,
                leader_epoch: epoch,
                preferred_successors: Vec::new(),
                preferred_candidates: preferred.iter().map(candidate).collect(),
            }],
        }],
        leader_endpoints: Vec::new(),
    })
}

pub fn fetch(from: i32, epoch: i32, offset: i64, last_epoch: i32) -> FetchRequest {
    FetchRequest {
        cluster_id: Some(CLUSTER.to_owned()),
        replica_state: fetch_request::ReplicaState {
            replica_id: from,
            ..Default::default()
        },
        max_bytes: 1_000,
        topics: vec![fetch_request::FetchTopic {
            topic: String::new(),
            topic_id: Uuid::METADATA_TOPIC,
            partitions: vec![fetch_request::FetchPartition {
                current_leader_epoch: epoch,
                fetch_offset: offset,
                last_fetched_epoch: last_epoch,
                replica_directory_id: key(from.max(0)).wire_directory(),
                high_watermark: -1,
                ..Default::default()
            }],
        }],
        ..Default::default()
    }
}

pub fn fetched(response: Response) -> FetchResponse {
    let Response::Fetch(response) = response else {
        panic!("{response:?}");
    };
    assert_eq!((response.session_id, response.throttle_time_ms), (0, 0));
    response
}

pub fn partition(response: &FetchResponse) -> &fetch_response::PartitionData {
    &response.responses[0].partitions[0]
}

pub fn answer_of(leader: i32, epoch: i32) -> FetchResponse {
    FetchResponse {
        responses: vec![fetch_response::FetchableTopicResponse {
            topic: String::new(),
            topic_id: Uuid::METADATA_TOPIC,
            partitions: vec![fetch_response::PartitionData {
                current_leader: fetch_response::LeaderIdAndEpoch {
                    leader_id: leader,
                    leader_epoch: epoch,
                },
                high_watermark: 0,
                ..Default::default()
            }],
        }],
        ..Default::default()
    }
}

pub fn add(id: i32) -> AddRaftVoterRequest {
    AddRaftVoterRequest {
        cluster_id: Some(CLUSTER.to_owned()),
        timeout_ms: 1_000,
        voter_id: id,
        voter_directory_id: key(id).wire_directory(),
        listeners: vec![add_raft_voter_request::Listener {
            name: "CONTROLLER".to_owned(),
            host: format!("host-{id}"),
            port: 9_090 + id as u16,
        }],
        ack_when_committed: true,
    }
}

pub fn added(response: Response) -> (ErrorCode, String) {
    match response {
        Response::AddRaftVoter(AddRaftVoterResponse {
            error_code,
            error_message,
            ..
        }) => (ErrorCode(error_code), error_message.unwrap_or_default()),
        other => panic!("{other:?}"),
    }
}

pub fn versions(min: i16, max: i16) -> Response {
    Response::ApiVersions(ApiVersionsResponse {
        supported_features: vec![SupportedFeatureKey {
            name: "kraft.version".to_owned(),
            min_version: min,
            max_version: max,
        }],
        ..Default::default()
    })
}

/// Records of an epoch from an offset on.
pub fn records_of(base: i64, epoch: i32, count: usize) -> Bytes {
    let values = vec![Bytes::from_static(b"value"); count];
    data_batch(&values, Offset(base), LeaderEpoch(epoch), 7)
}

pub fn answer_with(leader: i32, epoch: i32, records: Bytes) -> FetchResponse {
    let mut answer = answer_of(leader, epoch);
    answer.responses[0].partitions[0].records = Some(records);
    answer
}
