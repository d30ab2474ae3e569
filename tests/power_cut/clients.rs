//! Clients that go on through the ends of a node: whatever breaks, they connect again.
//!
//! They run as tasks of a node of their own and tell the [`Model`] what they were promised.
//! While the gate is closed (from an end until the check after the restart) they do nothing.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ottla::base::{ErrorCode, ProducerEpoch, ProducerId, Uuid};
use ottla::io::Rt;
use ottla::record::{
    BatchBuilder, BatchParams, Compression, CompressionType, ProducerInfo, batch::Batches, records,
};
use ottla::wire::ApiKey;
use ottla::wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use ottla::wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use ottla::wire::messages::fetch_request::{FetchPartition, FetchTopic};
use ottla::wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use ottla::wire::messages::metadata_request::MetadataRequestTopic;
use ottla::wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla::wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ottla::wire::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, FetchRequest, FetchResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, InitProducerIdRequest, InitProducerIdResponse, ListOffsetsRequest,
    ListOffsetsResponse, MetadataRequest, MetadataResponse, OffsetCommitRequest,
    OffsetCommitResponse, ProduceRequest, ProduceResponse,
};

use crate::model::{LogId, Model, RecordId};
use crate::sim_server::Client;

pub const EARLIEST: i64 = -2;
pub const LATEST: i64 = -1;

/// Partitions of topics that come and go.
pub const CHURNED_PARTITIONS: i32 = 2;
/// Requests in flight of one producer.
const IN_FLIGHT_MAX: usize = 3;

/// Whether a batch that was torn before anybody was told of it is kept as damage if whole
/// ones follow it: reading it is refused, and its producer can't go on.
pub const TORN_IS_DAMAGE: bool = true;

/// What the clients share.
#[derive(Clone)]
pub struct Clients {
    pub rt: Rt,
    pub at: SocketAddr,
    pub model: Rc<RefCell<Model>>,
    pub gate: Rc<Cell<bool>>,
    /// Whether acknowledged batches may be lost, and with them a producer's sequence.
    pub may_lose: bool,
}

/// A topic that stays for the whole scenario.
pub struct Topic {
    pub name: &'static str,
    pub partitions: i32,
    pub value_bytes_max: u64,
    pub configs: &'static [(&'static str, &'static str)],
}

impl Topic {
    pub fn logs(&self) -> impl Iterator<Item = LogId> {
        (0..self.partitions).map(|partition| LogId {
            topic: self.name.to_owned(),
            incarnation: 0,
            partition,
        })
    }
}

impl Clients {
    fn below(&self, bound: u64) -> u64 {
        self.rt.rng().below(bound)
    }

    /// A connection to a node that was checked.
    async fn connect(&self) -> Client {
        let client = Client::connect(&self.rt, self.at).await;
        while !self.gate.get() {
            self.rt.sleep(Duration::from_millis(2)).await;
        }
        client
    }

    /// Mostly nothing, sometimes a few milliseconds.
    async fn pause(&self) {
        if self.below(4) == 0 {
            let micros = self.below(6_000);
            self.rt.sleep(Duration::from_micros(micros)).await;
        }
    }

    /// New records for a log in one batch.
    fn batch(
        &self,
        log: &LogId,
        producer: usize,
        info: ProducerInfo,
        value_bytes_max: u64,
    ) -> (Vec<RecordId>, Bytes) {
        let compression = match self.below(6) {
            0 => Compression::new(CompressionType::Lz4, CompressionType::Lz4.default_level()),
            _ => Compression::NONE,
        };
        let mut batch = BatchBuilder::new(BatchParams {
            compression,
            producer: info,
            ..BatchParams::default()
        });
        let now_ms = self.rt.wall_ms();
        let mut ids = Vec::new();
        for _ in 0..1 + self.below(3) {
            let bytes = self.below(value_bytes_max) as usize;
            let (id, value) = self.model.borrow_mut().next_record(log, producer, bytes);
            batch.append(now_ms, None, Some(&value), &[]);
            ids.push(id);
        }
        (ids, batch.finish())
    }

    /// Sends batches that were never sent before, and never again.
    pub async fn plain_producer(self, number: usize, topics: &'static [Topic]) {
        loop {
            let mut client = self.connect().await;
            // It ends with the connection.
            let _ = self.produce_plainly(&mut client, number, topics).await;
        }
    }

    async fn produce_plainly(
        &self,
        client: &mut Client,
        number: usize,
        topics: &[Topic],
    ) -> io::Result<()> {
        loop {
            let acks = if self.below(3) == 0 { 1 } else { -1 };
            let first = client.correlation_id + 1;
            let mut sent = Vec::new();
            for _ in 0..1 + self.below(IN_FLIGHT_MAX as u64) {
                let topic = &topics[self.below(topics.len() as u64) as usize];
                let index = self.below(topic.partitions as u64) as usize;
                let log = topic.logs().nth(index).expect("it has as many");
                let (ids, bytes) =
                    self.batch(&log, number, ProducerInfo::NONE, topic.value_bytes_max);
                let request = produce_request(&log, acks, bytes);
                client.send(ApiKey::Produce, 9, &request).await?;
                sent.push((log, ids));
            }
            for (id, (log, ids)) in (first..).zip(sent) {
                if let Some(offset) = produced(client, id).await? {
                    self.model.borrow_mut().on_acknowledged(&log, offset, &ids);
                }
            }
            self.pause().await;
        }
    }

    /// Sends batches again until they are acknowledged, in order.
    pub async fn idempotent_producer(self, number: usize, topic: &'static Topic) {
        let mut producer = Idempotent {
            clients: self,
            number,
            topic,
            id: None,
            next_sequence: BTreeMap::new(),
            pending: VecDeque::new(),
        };
        loop {
            let mut client = producer.clients.connect().await;
            // As above.
            let _ = producer.produce(&mut client).await;
        }
    }

    /// Reads topics from where it was, and commits how far it got.
    pub async fn consumer(self, group: &'static str, topics: &'static [Topic]) {
        loop {
            let mut client = self.connect().await;
            let _ = self.consume(&mut client, group, topics).await;
        }
    }

    async fn consume(
        &self,
        client: &mut Client,
        group: &str,
        topics: &'static [Topic],
    ) -> io::Result<()> {
        find_coordinator(client, group).await?;
        let logs: Vec<LogId> = topics.iter().flat_map(Topic::logs).collect();
        loop {
            let positions = logs.iter().map(|log| {
                let model = self.model.borrow();
                (log, model.logs.get(log).map_or(0, |state| state.position))
            });
            let positions: Vec<(&LogId, i64)> = positions.collect();
            let answer = fetch(client, &positions, 20).await?;
            for topic in &answer.responses {
                for data in &topic.partitions {
                    let is_it = |log: &&LogId| {
                        log.topic == topic.topic && log.partition == data.partition_index
                    };
                    let log = logs.iter().find(is_it).expect("it was asked for");
                    match ErrorCode(data.error_code) {
                        ErrorCode::NONE => self.take_in(log, &data.records),
                        ErrorCode::OFFSET_OUT_OF_RANGE => {
                            let start = list_offset(client, log, EARLIEST).await?;
                            let end = list_offset(client, log, LATEST).await?;
                            if let (Some(start), Some(end)) = (start, end) {
                                self.model.borrow_mut().on_out_of_range(log, start, end);
                            }
                        }
                        ErrorCode::NOT_LEADER_OR_FOLLOWER => {}
                        ErrorCode::CORRUPT_MESSAGE if TORN_IS_DAMAGE => {
                            let mut model = self.model.borrow_mut();
                            model.logs.entry(log.clone()).or_default().position += 1;
                        }
                        other => panic!("{log:?} can't be read: {other}"),
                    }
                }
            }
            if self.below(3) == 0 {
                self.commit(client, group, &logs).await?;
            }
            self.pause().await;
        }
    }

    fn take_in(&self, log: &LogId, bytes: &Option<Bytes>) {
        let mut model = self.model.borrow_mut();
        for (offset, value) in values(bytes) {
            let position = model.logs.entry(log.clone()).or_default().position;
            if offset < position {
                continue;
            }
            let state = model.logs.entry(log.clone()).or_default();
            let gap = state.gaps.range(..=position).next_back();
            let is_gap = gap.is_some_and(|(_, end)| *end == offset);
            assert!(
                offset == position || is_gap,
                "{log:?}: {offset} is read after {position}"
            );
            let id = model.identify(log, &value);
            model.on_read(log, offset, id);
            model.logs.entry(log.clone()).or_default().position = offset + 1;
            model.counts.reads += 1;
        }
    }

    async fn commit(&self, client: &mut Client, group: &str, logs: &[LogId]) -> io::Result<()> {
        let mut request = OffsetCommitRequest {
            group_id: group.to_owned(),
            generation_id_or_member_epoch: -1,
            ..Default::default()
        };
        let mut sent = Vec::new();
        for log in logs {
            let mut model = self.model.borrow_mut();
            let offset = model.logs.entry(log.clone()).or_default().position;
            let key = (group.to_owned(), log.topic.clone(), log.partition);
            let commits = model.commits.entry(key.clone()).or_default();
            commits.unanswered.push(offset);
            sent.push((key, offset));
            request.topics.push(OffsetCommitRequestTopic {
                name: log.topic.clone(),
                partitions: vec![OffsetCommitRequestPartition {
                    partition_index: log.partition,
                    committed_offset: offset,
                    committed_leader_epoch: -1,
                    ..Default::default()
                }],
                ..Default::default()
            });
        }
        let answer: OffsetCommitResponse = client.ask(ApiKey::OffsetCommit, 8, &request).await?;
        let mut model = self.model.borrow_mut();
        for (topic, (key, offset)) in answer.topics.iter().zip(sent) {
            match ErrorCode(topic.partitions[0].error_code) {
                ErrorCode::NONE => {
                    let commits = model.commits.get_mut(&key).expect("it was noted");
                    commits.acknowledged = Some(offset);
                    commits.unanswered.clear();
                    model.counts.commits += 1;
                }
                ErrorCode::NOT_COORDINATOR
                | ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
                | ErrorCode::COORDINATOR_NOT_AVAILABLE
                | ErrorCode::REQUEST_TIMED_OUT => {}
                other => panic!("{key:?} can't be committed: {other}"),
            }
        }
        Ok(())
    }

    /// Deletes records of a topic's partitions from their start.
    pub async fn deleter(self, topic: &'static Topic) {
        loop {
            let mut client = self.connect().await;
            let _ = self.delete_records(&mut client, topic).await;
        }
    }

    async fn delete_records(&self, client: &mut Client, topic: &'static Topic) -> io::Result<()> {
        loop {
            let micros = self.below(60_000);
            self.rt.sleep(Duration::from_micros(micros)).await;
            let log = topic.logs().next().expect("it has a partition");
            let start = list_offset(client, &log, EARLIEST).await?;
            let end = list_offset(client, &log, LATEST).await?;
            let (Some(start), Some(end)) = (start, end) else {
                continue;
            };
            let offset = match self.below(4) {
                0 => end,
                _ => start + self.below((end - start + 1) as u64) as i64,
            };
            {
                let mut model = self.model.borrow_mut();
                let state = model.logs.entry(log.clone()).or_default();
                state.deleted_up_to = state.deleted_up_to.max(offset);
            }
            let request = DeleteRecordsRequest {
                topics: vec![DeleteRecordsTopic {
                    name: log.topic.clone(),
                    partitions: vec![DeleteRecordsPartition {
                        partition_index: log.partition,
                        offset,
                    }],
                }],
                timeout_ms: 1_000,
            };
            let answer: DeleteRecordsResponse =
                client.ask(ApiKey::DeleteRecords, 2, &request).await?;
            let answer = &answer.topics[0].partitions[0];
            match ErrorCode(answer.error_code) {
                ErrorCode::NONE => {
                    assert!(answer.low_watermark >= offset, "{log:?}: deleted to {offset}");
                    self.model.borrow_mut().counts.deletions += 1;
                }
                ErrorCode::NOT_LEADER_OR_FOLLOWER
                | ErrorCode::REQUEST_TIMED_OUT
                // The high watermark may have gone back to the checkpoint in a restart.
                | ErrorCode::OFFSET_OUT_OF_RANGE => {}
                other => panic!("{log:?} can't be cut at its start: {other}"),
            }
        }
    }

    /// Creates topics, writes to them and deletes them.
    pub async fn churner(self, number: usize, names: &'static [&'static str]) {
        loop {
            let mut client = self.connect().await;
            let _ = self.churn(&mut client, number, names).await;
        }
    }

    async fn churn(&self, client: &mut Client, number: usize, names: &[&str]) -> io::Result<()> {
        loop {
            let micros = self.below(30_000);
            self.rt.sleep(Duration::from_micros(micros)).await;
            let name = names[self.below(names.len() as u64) as usize];
            let found = topic_id(client, name).await?;
            self.model.borrow_mut().check_churned(name, found);
            match found {
                None => self.create_churned(client, name).await?,
                Some(_) if self.below(3) == 0 => self.delete_churned(client, name).await?,
                Some(_) => self.write_churned(client, number, name).await?,
            }
        }
    }

    async fn create_churned(&self, client: &mut Client, name: &str) -> io::Result<()> {
        {
            let mut model = self.model.borrow_mut();
            let churned = model.churned.get_mut(name).expect("it was checked");
            churned.creating = true;
            churned.incarnations += 1;
        }
        let configs = [("internal.segment.bytes", "3000")];
        let id = create_topic(client, name, CHURNED_PARTITIONS, &configs).await?;
        let mut model = self.model.borrow_mut();
        model.check_churned(name, Some(id));
        model.counts.topics += 1;
        Ok(())
    }

    async fn delete_churned(&self, client: &mut Client, name: &str) -> io::Result<()> {
        let deleting = |is: bool| {
            let mut model = self.model.borrow_mut();
            model
                .churned
                .get_mut(name)
                .expect("it was checked")
                .deleting = is;
        };
        deleting(true);
        let request = DeleteTopicsRequest {
            topics: vec![
                ottla::wire::messages::delete_topics_request::DeleteTopicState {
                    name: Some(name.to_owned()),
                    ..Default::default()
                },
            ],
            timeout_ms: 1_000,
            ..Default::default()
        };
        let answer: DeleteTopicsResponse = client.ask(ApiKey::DeleteTopics, 6, &request).await?;
        let error = ErrorCode(answer.responses[0].error_code);
        assert_eq!(error, ErrorCode::NONE, "topic {name} can't be deleted");
        let mut model = self.model.borrow_mut();
        model.check_churned(name, None);
        model.counts.topics += 1;
        Ok(())
    }

    async fn write_churned(
        &self,
        client: &mut Client,
        number: usize,
        name: &str,
    ) -> io::Result<()> {
        let live = self.model.borrow().churned[name].live;
        let (_, incarnation) = live.expect("it was found");
        let log = LogId {
            topic: name.to_owned(),
            incarnation,
            partition: self.below(CHURNED_PARTITIONS as u64) as i32,
        };
        let (ids, bytes) = self.batch(&log, number, ProducerInfo::NONE, 400);
        let request = produce_request(&log, -1, bytes);
        client.send(ApiKey::Produce, 9, &request).await?;
        if let Some(offset) = produced(client, client.correlation_id).await? {
            self.model.borrow_mut().on_acknowledged(&log, offset, &ids);
        }
        Ok(())
    }
}

struct Idempotent {
    clients: Clients,
    number: usize,
    topic: &'static Topic,
    id: Option<i64>,
    next_sequence: BTreeMap<LogId, i32>,
    /// In order, the first being the oldest.
    pending: VecDeque<Batch>,
}

/// A batch that is sent until it is acknowledged.
type Batch = (LogId, Vec<RecordId>, Bytes);

impl Idempotent {
    async fn produce(&mut self, client: &mut Client) -> io::Result<()> {
        let id = match self.id {
            Some(id) => id,
            None => self.init(client).await?,
        };
        // The first goes alone, until the partition has its leader.
        let mut in_flight = 1;
        loop {
            while self.pending.len() < in_flight {
                self.make_batch(id);
            }
            let first = client.correlation_id + 1;
            for (log, _, bytes) in self.pending.iter().take(in_flight) {
                let request = produce_request(log, -1, bytes.clone());
                client.send(ApiKey::Produce, 9, &request).await?;
            }
            let sent: Vec<_> = self.pending.drain(..in_flight).collect();
            let mut refused: Vec<Batch> = Vec::new();
            for (id, (log, ids, bytes)) in (first..).zip(sent) {
                match produced(client, id).await {
                    Ok(Some(offset)) => {
                        let is_behind = refused.iter().any(|(of, ..)| *of == log);
                        assert!(!is_behind, "{log:?} took a batch after it refused one");
                        self.acknowledged(&log, offset, &ids);
                    }
                    Ok(None) => refused.push((log, ids, bytes)),
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                        let may_be = self.clients.may_lose || TORN_IS_DAMAGE;
                        assert!(may_be, "{log:?}: a sequence has a gap");
                        // Begins anew, as a producer whose batches are lost does.
                        self.id = None;
                        self.next_sequence.clear();
                        self.pending.clear();
                        return Err(error);
                    }
                    // The connection has gone, and so are the answers that follow.
                    Err(_) => refused.push((log, ids, bytes)),
                }
            }
            let all = refused.is_empty();
            refused
                .into_iter()
                .rev()
                .for_each(|batch| self.pending.push_front(batch));
            if !all {
                return Ok(());
            }
            in_flight = 1 + self.clients.below(IN_FLIGHT_MAX as u64) as usize;
            self.clients.pause().await;
        }
    }

    fn acknowledged(&self, log: &LogId, offset: i64, ids: &[RecordId]) {
        let mut model = self.clients.model.borrow_mut();
        if offset < 0 {
            model.counts.duplicates += 1;
        } else {
            model.on_acknowledged(log, offset, ids);
        }
    }

    async fn init(&mut self, client: &mut Client) -> io::Result<i64> {
        loop {
            let request = InitProducerIdRequest {
                producer_id: -1,
                producer_epoch: -1,
                ..Default::default()
            };
            let answer: InitProducerIdResponse =
                client.ask(ApiKey::InitProducerId, 4, &request).await?;
            if answer.error_code == 0 {
                let id = answer.producer_id;
                let mut model = self.clients.model.borrow_mut();
                assert!(
                    !model.producer_ids.contains(&id),
                    "producer id {id} was given twice"
                );
                model.producer_ids.push(id);
                self.id = Some(id);
                return Ok(id);
            }
        }
    }

    fn make_batch(&mut self, id: i64) {
        let index = self.clients.below(self.topic.partitions as u64) as usize;
        let log = self.topic.logs().nth(index).expect("it has as many");
        let sequence = self.next_sequence.entry(log.clone()).or_default();
        let info = ProducerInfo {
            id: ProducerId(id),
            epoch: ProducerEpoch(0),
            base_sequence: *sequence,
        };
        let bytes_max = self.topic.value_bytes_max;
        let (ids, bytes) = self.clients.batch(&log, self.number, info, bytes_max);
        *sequence += ids.len() as i32;
        self.pending.push_back((log, ids, bytes));
    }
}

fn produce_request(log: &LogId, acks: i16, batch: Bytes) -> ProduceRequest {
    ProduceRequest {
        acks,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: log.topic.clone(),
            partition_data: vec![PartitionProduceData {
                index: log.partition,
                records: Some(batch),
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// The offset that was given, negative where that isn't known; none if the batch was refused.
async fn produced(client: &mut Client, id: i32) -> io::Result<Option<i64>> {
    let answer: ProduceResponse = client.answer(ApiKey::Produce, 9, id).await?;
    let answer = &answer.responses[0].partition_responses[0];
    match ErrorCode(answer.error_code) {
        ErrorCode::NONE => Ok(Some(answer.base_offset)),
        ErrorCode::DUPLICATE_SEQUENCE_NUMBER => Ok(Some(-1)),
        // Not unfenced yet, or closing its logs.
        ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => Ok(None),
        ErrorCode::REQUEST_TIMED_OUT => Ok(None),
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER => Err(io::ErrorKind::InvalidData.into()),
        other => panic!("a batch was refused: {other}"),
    }
}

/// Creates a topic; its id.
pub async fn create_topic(
    client: &mut Client,
    name: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) -> io::Result<Uuid> {
    let configs = configs.iter().map(|(name, value)| CreatableTopicConfig {
        name: (*name).to_owned(),
        value: Some((*value).to_owned()),
    });
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: name.to_owned(),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.collect(),
            ..Default::default()
        }],
        timeout_ms: 1_000,
        ..Default::default()
    };
    let answer: CreateTopicsResponse = client.ask(ApiKey::CreateTopics, 7, &request).await?;
    let answer = &answer.topics[0];
    let error = ErrorCode(answer.error_code);
    assert_eq!(
        error,
        ErrorCode::NONE,
        "topic {name}: {:?}",
        answer.error_message
    );
    Ok(answer.topic_id)
}

/// A topic's id, if it is there.
pub async fn topic_id(client: &mut Client, name: &str) -> io::Result<Option<Uuid>> {
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(name.to_owned()),
            ..Default::default()
        }]),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    let answer: MetadataResponse = client.ask(ApiKey::Metadata, 12, &request).await?;
    let topic = &answer.topics[0];
    match ErrorCode(topic.error_code) {
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => Ok(None),
        ErrorCode::NONE | ErrorCode::LEADER_NOT_AVAILABLE => Ok(Some(topic.topic_id)),
        other => panic!("topic {name}: {other}"),
    }
}

/// The offset of a special timestamp; none while nobody leads the partition.
pub async fn list_offset(
    client: &mut Client,
    log: &LogId,
    timestamp: i64,
) -> io::Result<Option<i64>> {
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: log.topic.clone(),
            partitions: vec![ListOffsetsPartition {
                partition_index: log.partition,
                current_leader_epoch: -1,
                timestamp,
            }],
        }],
        ..Default::default()
    };
    let answer: ListOffsetsResponse = client.ask(ApiKey::ListOffsets, 6, &request).await?;
    let answer = &answer.topics[0].partitions[0];
    match ErrorCode(answer.error_code) {
        ErrorCode::NONE => Ok(Some(answer.offset)),
        ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::LEADER_NOT_AVAILABLE => Ok(None),
        other => panic!("{log:?} tells no offsets: {other}"),
    }
}

/// Asks for records from each log's offset on.
pub async fn fetch(
    client: &mut Client,
    from: &[(&LogId, i64)],
    max_wait_ms: i32,
) -> io::Result<FetchResponse> {
    let topics = from.iter().map(|(log, offset)| FetchTopic {
        topic: log.topic.clone(),
        partitions: vec![FetchPartition {
            partition: log.partition,
            fetch_offset: *offset,
            partition_max_bytes: 20_000,
            ..Default::default()
        }],
        ..Default::default()
    });
    let request = FetchRequest {
        max_wait_ms,
        min_bytes: 1,
        max_bytes: 1 << 20,
        session_epoch: -1,
        topics: topics.collect(),
        ..Default::default()
    };
    client.ask(ApiKey::Fetch, 12, &request).await
}

/// The records in what was fetched, with their offsets.
pub fn values(bytes: &Option<Bytes>) -> Vec<(i64, Vec<u8>)> {
    let bytes = bytes.clone().unwrap_or_default();
    let mut found = Vec::new();
    for batch in Batches::new(&bytes).map_while(Result::ok) {
        assert!(
            batch.verify_crc(),
            "a damaged batch was given to a consumer"
        );
        let mut reader = records(&batch).expect("clients send whole batches");
        while let Some(record) = reader.next() {
            let record = record.expect("clients send whole records");
            let offset = batch.record_offset(record.offset_delta).0;
            found.push((offset, record.value.expect("each has one").to_vec()));
        }
    }
    found
}

/// Asks for a group's coordinator until there is one.
pub async fn find_coordinator(client: &mut Client, group: &str) -> io::Result<()> {
    let request = FindCoordinatorRequest {
        key: group.to_owned(),
        ..Default::default()
    };
    loop {
        let found: FindCoordinatorResponse =
            client.ask(ApiKey::FindCoordinator, 3, &request).await?;
        if found.error_code == 0 {
            return Ok(());
        }
    }
}
