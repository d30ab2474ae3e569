//! A session of requests with somebody who coordinates groups, written down without what
//! differs from run to run: member ids, times, topic ids, the order of members.

use std::fmt::{Debug, Write as _};

use bytes::{Bytes, BytesMut};
use ottla::base::{Millis, Uuid};
use ottla::coordinator::CoordinatorRecord;
use ottla::coordinator::batch::{LogEntry, read_batch};
use ottla::record::{BatchView, Batches, records};
use ottla::wire::codec::{Decoder, Message};
use ottla::wire::messages::{
    DescribeGroupsResponse, JoinGroupResponse, ListGroupsResponse, OffsetFetchResponse,
};

/// Somebody who answers.
pub trait Target {
    /// Sends a request's body on a connection, which is made if it is new. Returns when the
    /// request has been taken up, answered or not.
    fn send(&mut self, connection: &str, api_key: i16, version: i16, body: Bytes);
    /// The body of the next answer on that connection.
    fn receive(&mut self, connection: &str) -> Bytes;
    fn sleep_ms(&mut self, ms: u64);
    /// The id of a topic of three partitions.
    fn topic_id(&self) -> Uuid;
    /// All batches of `__consumer_offsets`.
    fn offsets_log(&mut self) -> Bytes;
}

/// The topic that is there.
pub const TOPIC: &str = "topic";

pub struct Session<'a> {
    target: &'a mut dyn Target,
    transcript: String,
    /// Sets this part's connections apart from those that others have left with requests
    /// still parked.
    title: String,
    /// Generated member ids in the order in which they appeared.
    member_ids: Vec<String>,
}

impl<'a> Session<'a> {
    pub fn new(target: &'a mut dyn Target) -> Self {
        Session {
            target,
            transcript: String::new(),
            title: String::new(),
            member_ids: Vec::new(),
        }
    }

    pub fn title(&mut self, title: &str) {
        let _ = writeln!(self.transcript, "== {title}");
        self.title = title.to_owned();
    }

    /// Sends a request that may be parked.
    pub fn send<Q: Message>(&mut self, connection: &str, version: i16, request: &Q) {
        let mut body = BytesMut::new();
        request
            .encode(&mut body, version)
            .unwrap_or_else(|error| panic!("{} v{version}: {error}", Q::NAME));
        let api_key = Q::API_KEY.expect("a request has a key");
        let connection = format!("{} {connection}", self.title);
        self.target
            .send(&connection, api_key, version, body.freeze());
    }

    pub fn receive<R: Message + Debug + Answer>(&mut self, connection: &str, version: i16) -> R {
        let body = self.target.receive(&format!("{} {connection}", self.title));
        let mut decoder = Decoder::new(&body);
        let mut response = R::decode(&mut decoder, version)
            .unwrap_or_else(|error| panic!("{} v{version}: {error}", R::NAME));
        for id in response.new_member_ids() {
            if !id.is_empty() && !self.member_ids.contains(&id) && id.len() > 36 {
                self.member_ids.push(id);
            }
        }
        let ids = &self.member_ids;
        let place = |id: &str| ids.iter().position(|known| known == id);
        let mut shown = response;
        shown.sort(&place);
        response = shown;
        let text = self.plain(&format!("{response:?}"));
        let _ = writeln!(self.transcript, "{connection} v{version} {text}");
        response
    }

    pub fn call<Q: Message, R: Message + Debug + Answer>(
        &mut self,
        connection: &str,
        version: i16,
        request: &Q,
    ) -> R {
        self.send(connection, version, request);
        self.receive(connection, version)
    }

    pub fn sleep_ms(&mut self, ms: u64) {
        self.target.sleep_ms(ms);
    }

    pub fn topic_id(&self) -> Uuid {
        self.target.topic_id()
    }

    /// The transcript, with the records that were written at its end.
    pub fn finish(mut self) -> String {
        self.title("records");
        let log = self.target.offsets_log();
        for batch in Batches::new(&log) {
            let batch = batch.expect("a whole batch");
            let mut versions = value_versions(&batch).into_iter();
            read_batch(&batch, |entry| {
                let LogEntry::Record { record, .. } = entry else {
                    panic!("nobody wrote a marker");
                };
                let version = versions.next().expect("one for each record");
                let text = self.plain(&format!("{:?}", plain_record(record, &self.member_ids)));
                let _ = writeln!(self.transcript, "v{version} {text}");
            })
            .expect("records of groups and offsets");
        }
        self.transcript
    }

    fn plain(&self, text: &str) -> String {
        let mut text = text.replace(&format!("{:?}", self.target.topic_id()), "<topic>");
        for (index, id) in self.member_ids.iter().enumerate() {
            text = text.replace(id.as_str(), &format!("<member {index}>"));
        }
        text
    }
}

/// The version of each record's value, -1 for a tombstone.
fn value_versions(batch: &BatchView<'_>) -> Vec<i16> {
    let mut versions = Vec::new();
    let mut walk = records(batch).expect("records");
    while let Some(record) = walk.next() {
        let value = record.expect("a record").value;
        versions.push(value.map_or(-1, |value| i16::from_be_bytes([value[0], value[1]])));
    }
    versions
}

/// Times become 0 where they are set, members stand in the order in which they came.
fn plain_record(record: CoordinatorRecord, member_ids: &[String]) -> CoordinatorRecord {
    let plain = |at: Millis| if at == -1 { -1 } else { 0 };
    match record {
        CoordinatorRecord::OffsetCommit {
            group,
            topic,
            partition,
            value,
        } => CoordinatorRecord::OffsetCommit {
            group,
            topic,
            partition,
            value: value.map(|mut value| {
                value.commit_timestamp = plain(value.commit_timestamp);
                value.expire_timestamp = plain(value.expire_timestamp);
                value
            }),
        },
        CoordinatorRecord::GroupMetadata { group, value } => CoordinatorRecord::GroupMetadata {
            group,
            value: value.map(|mut value| {
                value.current_state_timestamp = plain(value.current_state_timestamp);
                value
                    .members
                    .sort_by_key(|member| member_ids.iter().position(|id| *id == member.member_id));
                value
            }),
        },
    }
}

/// What a transcript must know of a response.
pub trait Answer {
    fn new_member_ids(&self) -> Vec<String> {
        Vec::new()
    }

    /// Puts in order what Kafka gives in none; `place` is a member id's.
    fn sort(&mut self, _place: &dyn Fn(&str) -> Option<usize>) {}
}

impl Answer for JoinGroupResponse {
    fn new_member_ids(&self) -> Vec<String> {
        // A leader is the first to hear of static members, in any order.
        let mut members = self.members.clone();
        members.sort_by(|left, right| left.group_instance_id.cmp(&right.group_instance_id));
        std::iter::once(self.member_id.clone())
            .chain(members.into_iter().map(|member| member.member_id))
            .collect()
    }

    fn sort(&mut self, place: &dyn Fn(&str) -> Option<usize>) {
        self.members.sort_by_key(|member| place(&member.member_id));
    }
}

impl Answer for DescribeGroupsResponse {
    fn new_member_ids(&self) -> Vec<String> {
        let mut members: Vec<_> = self
            .groups
            .iter()
            .flat_map(|group| &group.members)
            .collect();
        members.sort_by(|left, right| left.group_instance_id.cmp(&right.group_instance_id));
        members
            .iter()
            .map(|member| member.member_id.clone())
            .collect()
    }

    fn sort(&mut self, place: &dyn Fn(&str) -> Option<usize>) {
        for group in &mut self.groups {
            group.members.sort_by_key(|member| place(&member.member_id));
        }
    }
}

impl Answer for ListGroupsResponse {
    fn sort(&mut self, _: &dyn Fn(&str) -> Option<usize>) {
        self.groups
            .sort_by(|left, right| left.group_id.cmp(&right.group_id));
    }
}

impl Answer for OffsetFetchResponse {
    fn sort(&mut self, _: &dyn Fn(&str) -> Option<usize>) {
        for topic in &mut self.topics {
            topic.partitions.sort_by_key(|p| p.partition_index);
        }
        for group in &mut self.groups {
            for topic in &mut group.topics {
                topic.partitions.sort_by_key(|p| p.partition_index);
            }
        }
    }
}

impl Answer for ottla::wire::messages::SyncGroupResponse {}
impl Answer for ottla::wire::messages::HeartbeatResponse {}
impl Answer for ottla::wire::messages::LeaveGroupResponse {}
impl Answer for ottla::wire::messages::OffsetCommitResponse {}
impl Answer for ottla::wire::messages::OffsetDeleteResponse {}
impl Answer for ottla::wire::messages::DeleteGroupsResponse {}
