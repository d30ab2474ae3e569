//! A leader by script, on a simulated node of its own: a broker in the cluster's metadata, with
//! logs in memory that a scenario grows, cuts, spoils and deletes from. It answers fetches as
//! Kafka's brokers do, and checks what fetch offsets promise.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use ottla::base::{ErrorCode, LeaderEpoch, Offset, Rng, Uuid};
use ottla::io::local::{Notify, or_deadline};
use ottla::io::{Queue, Rt, SendQueue, Stream};
use ottla::metadata::supported_features;
use ottla::record::{BatchBuilder, BatchParams};
use ottla::wire::ApiKey;
use ottla::wire::codec::Message;
use ottla::wire::header::{RequestHeader, encode_response_header};
use ottla::wire::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use ottla::wire::messages::api_versions_response::ApiVersion;
use ottla::wire::messages::broker_registration_request::{Feature, Listener};
use ottla::wire::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use ottla::wire::messages::fetch_request::FetchPartition;
use ottla::wire::messages::fetch_response::{
    EpochEndOffset, FetchableTopicResponse, PartitionData as Fetched,
};
use ottla::wire::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use ottla::wire::messages::metadata_request::MetadataRequestTopic;
use ottla::wire::messages::{
    AlterPartitionRequest, AlterPartitionResponse, ApiVersionsResponse, BrokerHeartbeatRequest,
    BrokerHeartbeatResponse, BrokerRegistrationRequest, BrokerRegistrationResponse,
    CreateTopicsRequest, CreateTopicsResponse, FetchRequest, FetchResponse, ListOffsetsRequest,
    ListOffsetsResponse, MetadataRequest, MetadataResponse,
};

use crate::sim_server::{Client, PORT};

pub const TOPIC: &str = "t";
pub const PARTITIONS: i32 = 2;
pub const ID: i32 = 2;
const FOLLOWER: i32 = 1;
const LOOK: Duration = Duration::from_millis(10);
const HEARTBEAT: Duration = Duration::from_secs(1);

pub struct Leader {
    rt: Rt,
    /// The node with the controller and the follower.
    server: IpAddr,
    me: IpAddr,
    state: RefCell<State>,
    is_fenced: Cell<bool>,
    /// Rises when the follower's power goes: what it has sent before counts no more.
    life: Cell<u64>,
    /// The logs have changed.
    changed: Notify,
    /// The follower has fetched.
    fetched: Notify,
}

#[derive(Default)]
struct State {
    topic_id: Uuid,
    broker_epoch: i64,
    leader_epoch: i32,
    fetch_version: i16,
    gives_sessions: bool,
    logs: BTreeMap<i32, Log>,
    sessions: BTreeMap<i32, Session>,
    next_session: i32,
    served: Served,
}

/// What has happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Served {
    pub fetches: u64,
    pub diverging: u64,
    pub out_of_range: u64,
    pub spoilt: u64,
    pub refused: u64,
    pub torn: u64,
    pub incremental: u64,
}

#[derive(Default)]
struct Log {
    start: i64,
    batches: Vec<Stored>,
    epochs: Vec<(i32, i64)>,
    /// Answers that are still to have a damaged batch.
    to_spoil: u32,
    to_refuse: VecDeque<ErrorCode>,
    /// The follower has said that it has everything below.
    promised: i64,
    /// From where it has fetched last; -1 since something changed.
    reached: i64,
}

#[derive(Clone)]
struct Stored {
    next: i64,
    bytes: Bytes,
}

#[derive(Default)]
struct Session {
    epoch: i32,
    partitions: BTreeMap<i32, FetchPartition>,
    /// High watermark and log start as they were told.
    told: BTreeMap<i32, (i64, i64)>,
}

impl Log {
    fn end(&self) -> i64 {
        self.batches.last().map_or(self.start, |last| last.next)
    }

    fn end_of_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        let last = self.epochs.last()?;
        if last.0 == epoch {
            return Some((epoch, self.end()));
        }
        let higher = self.epochs.partition_point(|(known, _)| *known <= epoch);
        let end = self.epochs.get(higher)?.1;
        let floor = higher.checked_sub(1).map_or(epoch, |at| self.epochs[at].0);
        Some((floor, end))
    }

    fn append(&mut self, epoch: i32, records: i32, value_bytes: usize) {
        let base = self.end();
        let mut batch = BatchBuilder::new(BatchParams {
            base_offset: Offset(base),
            leader_epoch: LeaderEpoch(epoch),
            ..BatchParams::default()
        });
        for record in 0..records {
            let value = vec![b'a' + (record % 26) as u8; value_bytes];
            batch.append(1_000 + base, None, Some(&value), &[]);
        }
        self.batches.push(Stored {
            next: base + i64::from(records),
            bytes: batch.finish(),
        });
    }

    fn cut(&mut self, to: i64) {
        self.batches.retain(|batch| batch.next <= to);
        let end = self.end();
        self.epochs.retain(|(_, start)| *start < end);
        self.promised = self.promised.min(end);
    }

    fn delete_below(&mut self, start: i64) {
        self.start = start;
        self.batches.retain(|batch| batch.next > start);
        let spanning = self.epochs.iter().rposition(|epoch| epoch.1 <= start);
        if let Some(spanning) = spanning {
            self.epochs.drain(..spanning);
            self.epochs[0].1 = start;
        }
    }

    fn read(
        &mut self,
        leader_epoch: i32,
        asked: &FetchPartition,
        is_arrival: bool,
        served: &mut Served,
    ) -> Fetched {
        let refused = |error: ErrorCode| Fetched {
            partition_index: asked.partition,
            error_code: error.0,
            high_watermark: -1,
            ..Default::default()
        };
        if let Some(error) = self.to_refuse.pop_front() {
            served.refused += 1;
            return refused(error);
        }
        if asked.current_leader_epoch < leader_epoch {
            return refused(ErrorCode::FENCED_LEADER_EPOCH);
        }
        if asked.current_leader_epoch > leader_epoch {
            return refused(ErrorCode::UNKNOWN_LEADER_EPOCH);
        }
        let (start, end) = (self.start, self.end());
        let found = Fetched {
            partition_index: asked.partition,
            high_watermark: end,
            last_stable_offset: end,
            log_start_offset: start,
            aborted_transactions: None,
            records: Some(Bytes::new()),
            ..Default::default()
        };
        if asked.last_fetched_epoch >= 0 {
            match self.end_of_epoch(asked.last_fetched_epoch) {
                None => {
                    served.out_of_range += 1;
                    return refused(ErrorCode::OFFSET_OUT_OF_RANGE);
                }
                Some((epoch, end_offset))
                    if epoch < asked.last_fetched_epoch || end_offset < asked.fetch_offset =>
                {
                    served.diverging += 1;
                    let diverging_epoch = EpochEndOffset { epoch, end_offset };
                    return Fetched {
                        diverging_epoch,
                        ..found
                    };
                }
                Some(_) => {}
            }
        }
        if asked.fetch_offset < start || asked.fetch_offset > end {
            served.out_of_range += 1;
            return refused(ErrorCode::OFFSET_OUT_OF_RANGE);
        }
        if is_arrival {
            assert!(
                asked.fetch_offset >= self.promised,
                "partition {}: it had {}, and asks from {} on",
                asked.partition,
                self.promised,
                asked.fetch_offset
            );
            self.promised = asked.fetch_offset;
            self.reached = asked.fetch_offset;
        }
        let records = self.slice(asked, served);
        Fetched {
            records: Some(records),
            ..found
        }
    }

    /// The first batch whole, and as much of the rest as there is room for.
    fn slice(&mut self, asked: &FetchPartition, served: &mut Served) -> Bytes {
        let mut bytes = BytesMut::new();
        let first = self
            .batches
            .partition_point(|batch| batch.next <= asked.fetch_offset);
        let room = asked.partition_max_bytes as usize;
        for batch in &self.batches[first..] {
            bytes.extend_from_slice(&batch.bytes);
            if bytes.len() > room && bytes.len() > batch.bytes.len() {
                bytes.truncate(room.max(self.batches[first].bytes.len()));
                served.torn += 1;
                break;
            }
            if bytes.len() > room {
                break;
            }
        }
        if self.to_spoil > 0 && !bytes.is_empty() {
            self.to_spoil -= 1;
            served.spoilt += 1;
            // In what the first one's CRC covers.
            let size = self.batches[first].bytes.len();
            let at = 21 + (size - 21) / 2;
            bytes[at] ^= 0x40;
        }
        bytes.freeze()
    }
}

impl State {
    /// Finds the session of a request, and has it as the request says. It is out of the table
    /// until the answer.
    fn begin(&mut self, request: &FetchRequest, version: i16) -> Result<Session, ErrorCode> {
        let follower = match version {
            15.. => request.replica_state.replica_id,
            _ => request.replica_id,
        };
        assert_eq!(follower, FOLLOWER);
        let known = self.sessions.remove(&request.session_id);
        let mut session = match (request.session_epoch, known) {
            (0, _) => Session::default(),
            (_, None) => return Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND),
            (epoch, Some(known)) if known.epoch != epoch => {
                return Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
            }
            (_, Some(known)) => known,
        };
        for topic in &request.topics {
            if self.topic_id.is_zero() {
                // It comes before the topic is known to be there.
                self.topic_id = topic.topic_id;
            }
            assert_eq!(topic.topic_id, self.topic_id);
            for asked in &topic.partitions {
                session.partitions.insert(asked.partition, asked.clone());
                session.told.remove(&asked.partition);
            }
        }
        let forgotten = request.forgotten_topics_data.iter();
        for index in forgotten.flat_map(|topic| &topic.partitions) {
            let known = session.partitions.remove(index);
            assert!(known.is_some(), "it was in the session");
        }
        assert!(!session.partitions.is_empty(), "an empty session");
        Ok(session)
    }

    /// What there is for each partition, and whether any of it can't wait. A fetch that has
    /// just come says how far the follower is.
    fn look(&mut self, session: &Session, is_arrival: bool) -> (Vec<Fetched>, bool) {
        let mut is_urgent = false;
        let mut found = Vec::new();
        for (index, asked) in &session.partitions {
            let log = self.logs.get_mut(index).expect("a partition of the topic");
            let data = log.read(self.leader_epoch, asked, is_arrival, &mut self.served);
            is_urgent |= has_news(&data);
            found.push(data);
        }
        (found, is_urgent)
    }

    fn answer(
        &mut self,
        request: &FetchRequest,
        mut session: Session,
        found: Vec<Fetched>,
    ) -> FetchResponse {
        let is_full = request.session_epoch == 0;
        let mut partitions = Vec::new();
        for data in found {
            let told = (data.high_watermark, data.log_start_offset);
            let before = session.told.insert(data.partition_index, told);
            if is_full || has_news(&data) || before != Some(told) {
                partitions.push(data);
            }
        }
        session.epoch += 1;
        self.served.fetches += 1;
        self.served.incremental += u64::from(!is_full);
        let session_id = match (is_full, self.gives_sessions) {
            (true, true) => {
                self.next_session += 1;
                self.next_session
            }
            (true, false) => 0,
            (false, _) => request.session_id,
        };
        if session_id != 0 {
            self.sessions.insert(session_id, session);
        }
        FetchResponse {
            session_id,
            responses: match partitions.is_empty() {
                true => Vec::new(),
                false => vec![FetchableTopicResponse {
                    topic_id: self.topic_id,
                    partitions,
                    ..Default::default()
                }],
            },
            ..Default::default()
        }
    }

    fn list_offsets(&self, request: &ListOffsetsRequest) -> ListOffsetsResponse {
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let log = &self.logs[&asked.partition_index];
                let (error, offset) = match asked.timestamp {
                    _ if asked.current_leader_epoch != self.leader_epoch => {
                        (ErrorCode::UNKNOWN_LEADER_EPOCH, -1)
                    }
                    -1 => (ErrorCode::NONE, log.end()),
                    -2 => (ErrorCode::NONE, log.start),
                    other => panic!("timestamp {other}"),
                };
                ListOffsetsPartitionResponse {
                    partition_index: asked.partition_index,
                    error_code: error.0,
                    timestamp: -1,
                    offset,
                    leader_epoch: self.leader_epoch,
                }
            });
            ListOffsetsTopicResponse {
                name: topic.name.clone(),
                partitions: partitions.collect(),
            }
        });
        ListOffsetsResponse {
            topics: topics.collect(),
            ..Default::default()
        }
    }
}

fn has_news(data: &Fetched) -> bool {
    data.error_code != 0
        || data.diverging_epoch.epoch >= 0
        || data
            .records
            .as_ref()
            .is_some_and(|records| !records.is_empty())
}

fn failed(error: ErrorCode) -> FetchResponse {
    FetchResponse {
        error_code: error.0,
        ..Default::default()
    }
}

impl Leader {
    /// Listens; it is nobody in the cluster yet.
    pub fn start(rt: &Rt, me: IpAddr, server: IpAddr, rng: &mut Rng) -> Rc<Leader> {
        let versions = [13, 14, 15, 17, 18];
        let logs = (0..PARTITIONS).map(|index| (index, Log::default()));
        let leader = Rc::new(Leader {
            rt: rt.clone(),
            server,
            me,
            state: RefCell::new(State {
                logs: logs.collect(),
                fetch_version: versions[rng.below(versions.len() as u64) as usize],
                gives_sessions: !rng.one_in(4),
                ..State::default()
            }),
            is_fenced: Cell::new(false),
            life: Cell::new(0),
            changed: Notify::new(),
            fetched: Notify::new(),
        });
        let listener = rt
            .listen(SocketAddr::new(me, PORT))
            .expect("the port is free");
        let accepting = leader.clone();
        rt.spawn(Queue::Request, async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = serve(accepting.clone(), stream);
                accepting.rt.spawn(Queue::Request, async move {
                    // The follower's side ends it.
                    let _ = serving.await;
                });
            }
        });
        leader
    }

    /// Joins the cluster and leads a topic, whose other replica is the server's.
    pub async fn join(self: &Rc<Self>, cluster_id: &str) {
        let request = BrokerRegistrationRequest {
            broker_id: ID,
            cluster_id: cluster_id.to_owned(),
            incarnation_id: Uuid([0x22; 16]),
            listeners: vec![Listener {
                name: "PLAINTEXT".to_owned(),
                host: self.me.to_string(),
                port: PORT,
                security_protocol: 0,
            }],
            features: supported_features()
                .map(|(name, min, max)| Feature {
                    name: name.to_owned(),
                    min_supported_version: min,
                    max_supported_version: max,
                })
                .collect(),
            log_dirs: vec![Uuid([0x23; 16])],
            previous_broker_epoch: -1,
            ..Default::default()
        };
        let epoch = loop {
            let response: BrokerRegistrationResponse = self
                .ask(PORT + 1, ApiKey::BrokerRegistration, 4, &request)
                .await;
            match ErrorCode(response.error_code) {
                ErrorCode::NONE => break response.broker_epoch,
                ErrorCode::NOT_CONTROLLER => self.rt.sleep(LOOK).await,
                other => panic!("{other}"),
            }
        };
        self.state.borrow_mut().broker_epoch = epoch;
        self.set_fenced(false).await;
        self.create_topic().await;
        let leads = self.leads_after(-1).await;
        self.state.borrow_mut().leader_epoch = leads;
        self.begin_term(leads);
        self.leave_alone().await;
        let beating = self.clone();
        self.rt.spawn(Queue::Request, async move {
            loop {
                beating.rt.sleep(HEARTBEAT).await;
                beating.beat().await;
            }
        });
    }

    /// Leads in a later term, as if elected with what its logs have then.
    pub async fn lead_again(&self) {
        self.set_fenced(true).await;
        let before = self.state.borrow().leader_epoch;
        self.set_fenced(false).await;
        let epoch = self.leads_after(before).await;
        self.begin_term(epoch);
    }

    fn begin_term(&self, epoch: i32) {
        let mut state = self.state.borrow_mut();
        state.leader_epoch = epoch;
        for log in state.logs.values_mut() {
            let end = log.end();
            while log.epochs.last().is_some_and(|last| last.1 >= end) {
                log.epochs.pop();
            }
            log.epochs.push((epoch, end));
            log.reached = -1;
        }
        drop(state);
        self.changed.notify_all();
    }

    fn change<T>(&self, partition: i32, change: impl FnOnce(&mut Log, i32) -> T) -> T {
        let changed = {
            let mut state = self.state.borrow_mut();
            let epoch = state.leader_epoch;
            let log = state.logs.get_mut(&partition).expect("a partition");
            log.reached = -1;
            change(log, epoch)
        };
        self.changed.notify_all();
        changed
    }

    pub fn append(&self, partition: i32, records: i32, value_bytes: usize) {
        self.change(partition, |log, epoch| {
            log.append(epoch, records, value_bytes)
        });
    }

    /// Loses everything from about an offset on; to be followed by a new term.
    pub fn cut(&self, partition: i32, to: i64) {
        self.change(partition, |log, _| log.cut(to.max(log.start)));
    }

    pub fn delete_below(&self, partition: i32, start: i64) {
        self.change(partition, |log, _| log.delete_below(start));
    }

    /// Damages a batch in so many answers for a partition.
    pub fn spoil(&self, partition: i32, answers: u32) {
        self.change(partition, |log, _| log.to_spoil = answers);
    }

    pub fn refuse(&self, partition: i32, error: ErrorCode) {
        self.change(partition, |log, _| log.to_refuse.push_back(error));
    }

    pub fn on_power_cut(&self) {
        self.life.set(self.life.get() + 1);
    }

    pub fn forget_sessions(&self) {
        self.state.borrow_mut().sessions.clear();
    }

    pub fn range(&self, partition: i32) -> (i64, i64) {
        let state = self.state.borrow();
        let log = &state.logs[&partition];
        (log.start, log.end())
    }

    pub fn served(&self) -> Served {
        self.state.borrow().served
    }

    /// The batches that a follower has to have.
    pub fn batches(&self, partition: i32) -> Vec<Bytes> {
        let state = self.state.borrow();
        let batches = state.logs[&partition].batches.iter();
        batches.map(|batch| batch.bytes.clone()).collect()
    }

    /// Resolves when the follower has said that it has all of a partition.
    pub async fn caught_up(&self, partition: i32) {
        loop {
            let told = self.fetched.notified();
            {
                let state = self.state.borrow();
                let log = &state.logs[&partition];
                if log.reached == log.end() {
                    return;
                }
            }
            told.await;
        }
    }

    async fn set_fenced(&self, fenced: bool) {
        self.is_fenced.set(fenced);
        while self.beat().await != Some(fenced) {
            self.rt.sleep(LOOK).await;
        }
    }

    /// Tells the controller that it lives; whether it is fenced, if that takes it.
    async fn beat(&self) -> Option<bool> {
        let epoch = self.state.borrow().broker_epoch;
        let request = BrokerHeartbeatRequest {
            broker_id: ID,
            broker_epoch: epoch,
            current_metadata_offset: epoch,
            want_fence: self.is_fenced.get(),
            ..Default::default()
        };
        let response: BrokerHeartbeatResponse = self
            .ask(PORT + 1, ApiKey::BrokerHeartbeat, 1, &request)
            .await;
        (response.error_code == 0).then_some(response.is_fenced)
    }

    async fn create_topic(&self) {
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: TOPIC.to_owned(),
                num_partitions: -1,
                replication_factor: -1,
                assignments: (0..PARTITIONS)
                    .map(|partition_index| CreatableReplicaAssignment {
                        partition_index,
                        broker_ids: vec![ID, FOLLOWER],
                    })
                    .collect(),
                configs: vec![CreatableTopicConfig {
                    name: "flush.messages".to_owned(),
                    value: Some("1".to_owned()),
                }],
            }],
            timeout_ms: 5_000,
            ..Default::default()
        };
        loop {
            let response: CreateTopicsResponse =
                self.ask(PORT, ApiKey::CreateTopics, 7, &request).await;
            match ErrorCode(response.topics[0].error_code) {
                ErrorCode::NONE => return,
                // The follower isn't unfenced yet.
                ErrorCode::INVALID_REPLICA_ASSIGNMENT => self.rt.sleep(LOOK).await,
                other => panic!("{other}: {:?}", response.topics[0].error_message),
            }
        }
    }

    /// Waits until it leads all partitions in a term after that one; the term.
    async fn leads_after(&self, before: i32) -> i32 {
        loop {
            let request = MetadataRequest {
                topics: Some(vec![MetadataRequestTopic {
                    name: Some(TOPIC.to_owned()),
                    ..Default::default()
                }]),
                ..Default::default()
            };
            let response: MetadataResponse = self.ask(PORT, ApiKey::Metadata, 12, &request).await;
            let topic = &response.topics[0];
            let terms = topic.partitions.iter().filter(|p| p.leader_id == ID);
            let terms: Vec<i32> = terms.map(|p| p.leader_epoch).collect();
            let all_same = terms.iter().all(|term| *term == terms[0]);
            if terms.len() == PARTITIONS as usize && all_same && terms[0] > before {
                self.state.borrow_mut().topic_id = topic.topic_id;
                return terms[0];
            }
            self.rt.sleep(LOOK).await;
        }
    }

    /// Takes the follower out of the ISR, so that it never leads.
    async fn leave_alone(&self) {
        let (topic_id, broker_epoch, leader_epoch) = {
            let state = self.state.borrow();
            (state.topic_id, state.broker_epoch, state.leader_epoch)
        };
        let partitions = (0..PARTITIONS).map(|partition_index| PartitionData {
            partition_index,
            leader_epoch,
            new_isr_with_epochs: vec![BrokerState {
                broker_id: ID,
                broker_epoch,
            }],
            partition_epoch: 0,
            ..Default::default()
        });
        let request = AlterPartitionRequest {
            broker_id: ID,
            broker_epoch,
            topics: vec![TopicData {
                topic_id,
                partitions: partitions.collect(),
            }],
        };
        let response: AlterPartitionResponse = self
            .ask(PORT + 1, ApiKey::AlterPartition, 3, &request)
            .await;
        assert_eq!(response.error_code, 0);
        for partition in &response.topics[0].partitions {
            assert_eq!(partition.error_code, 0);
        }
    }

    /// Asks the server until it answers: it may be down.
    async fn ask<Q: Message, R: Message>(
        &self,
        port: u16,
        api: ApiKey,
        version: i16,
        request: &Q,
    ) -> R {
        loop {
            let at = SocketAddr::new(self.server, port);
            let mut client = Client::connect(&self.rt, at).await;
            if let Ok(answer) = client.ask(api, version, request).await {
                return answer;
            }
        }
    }
}

/// Serves one connection, one request after the other.
async fn serve(leader: Rc<Leader>, stream: Stream) -> io::Result<()> {
    let life = leader.life.get();
    let mut received = BytesMut::new();
    loop {
        let frame = loop {
            if let Some(size) = received.first_chunk::<4>() {
                let size = i32::from_be_bytes(*size) as usize;
                if received.len() >= 4 + size {
                    received.advance(4);
                    break received.split_to(size).freeze();
                }
            }
            if stream.recv(&mut received).await? == 0 {
                return Ok(());
            }
        };
        let (header, mut decoder) = RequestHeader::decode(&frame).expect("a header");
        if life != leader.life.get() {
            return Ok(());
        }
        let version = header.api_version;
        let mut body = BytesMut::new();
        match header.api {
            ApiKey::ApiVersions => {
                let of = |api: ApiKey, max_version| ApiVersion {
                    api_key: api as i16,
                    min_version: 4,
                    max_version,
                };
                let fetch_version = leader.state.borrow().fetch_version;
                let response = ApiVersionsResponse {
                    api_keys: vec![
                        of(ApiKey::Fetch, fetch_version),
                        of(ApiKey::ListOffsets, 11),
                    ],
                    ..Default::default()
                };
                response.encode(&mut body, version).expect("it fits");
            }
            ApiKey::Fetch => {
                assert_eq!(version, leader.state.borrow().fetch_version);
                let request = FetchRequest::decode(&mut decoder, version).expect("a fetch");
                let response = leader.fetch(&request, version).await;
                response.encode(&mut body, version).expect("it fits");
            }
            ApiKey::ListOffsets => {
                let request = ListOffsetsRequest::decode(&mut decoder, version);
                let request = request.expect("a request for offsets");
                let response = leader.state.borrow().list_offsets(&request);
                response.encode(&mut body, version).expect("it fits");
            }
            other => panic!("{}", other.name()),
        }
        let mut out = BytesMut::new();
        out.extend_from_slice(&[0; 4]);
        encode_response_header(&mut out, header.api, version, header.correlation_id);
        out.extend_from_slice(&body);
        let size = (out.len() - 4) as i32;
        out[..4].copy_from_slice(&size.to_be_bytes());
        let mut queue = SendQueue::new();
        queue.push_bytes(out.freeze());
        stream.send(&mut queue).await?;
    }
}

impl Leader {
    /// Holds a fetch while there is nothing new.
    async fn fetch(&self, request: &FetchRequest, version: i16) -> FetchResponse {
        let until = self.rt.now() + Duration::from_millis(request.max_wait_ms as u64);
        let begun = self.state.borrow_mut().begin(request, version);
        let session = match begun {
            Ok(session) => session,
            Err(error) => return failed(error),
        };
        // Who asked may be gone by a later look: what it says counts when it comes.
        let mut is_arrival = true;
        loop {
            let changed = self.changed.notified();
            let (found, is_urgent) = self.state.borrow_mut().look(&session, is_arrival);
            is_arrival = false;
            self.fetched.notify_all();
            if is_urgent || self.rt.now() >= until {
                return self.state.borrow_mut().answer(request, session, found);
            }
            // At its end there is a last look.
            let _ = or_deadline(&self.rt, changed, until).await;
        }
    }
}
