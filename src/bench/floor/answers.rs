//! The wire of `floor --serve`. The two hot APIs are read and answered by hand, in buffers
//! that are used again, so that a request costs no allocation; the rest is answered with
//! the generated messages. Called by `serve` only.
//!
//! Of Produce versions 9 to 12 are offered, which look alike, of Fetch version 11: the last
//! in which a partition's records end the answer, so that a file's range is its last piece.

use std::io;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};

use super::serve::Fault;
use super::store::{PartitionKey, Store};
use crate::base::ErrorCode;
use crate::wire::ApiKey;
use crate::wire::codec::{Decoder, EncodeError, Message, put_string, put_uvarint};
use crate::wire::header::encode_response_header;
use crate::wire::messages::api_versions_response::ApiVersion;
use crate::wire::messages::create_topics_request::CreatableTopic;
use crate::wire::messages::create_topics_response::CreatableTopicResult;
use crate::wire::messages::delete_topics_response::DeletableTopicResult;
use crate::wire::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use crate::wire::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use crate::wire::messages::{
    ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest,
    MetadataResponse,
};

const FETCH_VERSION: i16 = 11;
const PRODUCE_VERSION_MIN: i16 = 9;
/// API, first and last version.
const SERVED: [(ApiKey, i16, i16); 7] = [
    (ApiKey::Produce, PRODUCE_VERSION_MIN, 12),
    (ApiKey::Fetch, FETCH_VERSION, FETCH_VERSION),
    (ApiKey::ListOffsets, 1, 7),
    (ApiKey::Metadata, 0, 12),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 5),
];
/// What ListOffsets asks for the log's end with.
const LATEST: i64 = -1;

pub fn is_served(api: ApiKey, version: i16) -> bool {
    SERVED
        .iter()
        .any(|(served, first, last)| *served == api && (*first..=*last).contains(&version))
}

/// One partition of a Produce request, appended.
#[derive(Clone, Copy)]
pub struct Appended {
    pub topic_index: usize,
    pub partition: PartitionKey,
    pub base_offset: i64,
}

/// Appends the frame of an answer to `out`, with what `body` writes after the header.
fn put_frame(
    out: &mut BytesMut,
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    records_bytes: usize,
    body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
) -> Result<(), Fault> {
    let at = out.len();
    out.put_i32(0);
    encode_response_header(out, api, version, correlation_id);
    body(out)?;
    let size = i32::try_from(out.len() - at - 4 + records_bytes)?;
    out[at..at + 4].copy_from_slice(&size.to_be_bytes());
    Ok(())
}

pub fn put_message<M: Message>(
    out: &mut BytesMut,
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    message: &M,
) -> Result<(), Fault> {
    put_frame(out, api, version, correlation_id, 0, |out| {
        message.encode(out, version)
    })
}

/// `appended` stands in the order of the request.
pub fn put_produced(
    out: &mut BytesMut,
    version: i16,
    correlation_id: i32,
    appended: &[Appended],
    store: &Store,
) -> Result<(), Fault> {
    let api = ApiKey::Produce;
    put_frame(out, api, version, correlation_id, 0, |out| {
        let of_a_topic = || appended.chunk_by(|one, next| one.topic_index == next.topic_index);
        put_uvarint(out, of_a_topic().count() as u32 + 1);
        for topic in of_a_topic() {
            put_string(out, &store.partitions[topic[0].partition].topic, true)?;
            put_uvarint(out, topic.len() as u32 + 1);
            for one in topic {
                out.put_i32(store.partitions[one.partition].index);
                out.put_i16(0); // No error.
                out.put_i64(one.base_offset);
                out.put_i64(-1); // Times are the producer's.
                out.put_i64(0); // Where the log starts.
                out.put_slice(&[1, 0, 0]); // No record errors, no message, no tags.
            }
            out.put_u8(0);
        }
        out.put_i32(0);
        out.put_u8(0);
        Ok(())
    })
}

/// What a fetch wants of one partition and, once it was looked up, what there is. A
/// connection's are sorted by their partitions.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub partition: PartitionKey,
    pub offset: i64,
    pub bytes_max: u64,
    pub position: u64,
    pub bytes: usize,
}

/// The rest of a fetch.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub wait: Duration,
    pub bytes_min: usize,
    pub bytes_max: u64,
    /// Whether it goes on with a fetch session (KIP-227): only what has changed was told,
    /// and only what has records is answered.
    pub goes_on: bool,
    /// Whether it opens one, or goes on with one.
    pub in_session: bool,
}

/// Reads a Fetch request; what it wants is put into `wanted`, which holds what the
/// connection's fetch before has left.
pub fn read_fetch(body: &[u8], store: &Store, wanted: &mut Vec<Wanted>) -> Result<Terms, Fault> {
    let mut d = Decoder::borrowed(body);
    let _replica_id = d.i32()?;
    let wait = Duration::from_millis(u64::try_from(d.i32()?)?);
    let bytes_min = usize::try_from(d.i32()?)?.max(1);
    let bytes_max = u64::try_from(d.i32()?)?;
    let _isolation_level = d.i8()?;
    let (_session_id, session_epoch) = (d.i32()?, d.i32()?);
    let goes_on = session_epoch > 0;
    if !goes_on {
        wanted.clear();
    }
    for _ in 0..d.i32()? {
        let topic = d.nullable_str(false)?.ok_or("a topic without a name")?;
        for _ in 0..d.i32()? {
            let index = d.i32()?;
            let _leader_epoch = d.i32()?;
            let offset = d.i64()?;
            let _log_start_offset = d.i64()?;
            let bytes_max = u64::try_from(d.i32()?)?;
            let partition = store.find(topic, index).ok_or("unknown partition")?;
            let asked = Wanted {
                partition,
                offset,
                bytes_max,
                position: 0,
                bytes: 0,
            };
            if !goes_on {
                wanted.push(asked);
                continue;
            }
            match wanted.binary_search_by_key(&partition, |one| one.partition) {
                Ok(at) => wanted[at] = asked,
                Err(at) => wanted.insert(at, asked),
            }
        }
    }
    if !goes_on {
        wanted.sort_unstable_by_key(|one| one.partition);
    }
    // What is forgotten and the rack follow; the generator forgets nothing.
    Ok(Terms {
        wait,
        bytes_min,
        bytes_max,
        goes_on,
        in_session: session_epoch >= 0,
    })
}

/// Writes the answer but for the records; with `only_found` of the partitions that have
/// some. `cut` is told after each partition with records
/// how long `out` is then and what belongs there.
pub fn put_fetched(
    out: &mut BytesMut,
    correlation_id: i32,
    session_id: i32,
    wanted: &[Wanted],
    only_found: bool,
    store: &Store,
    mut cut: impl FnMut(usize, &Wanted),
) -> Result<(), Fault> {
    let bytes = wanted.iter().map(|one| one.bytes).sum();
    let api = ApiKey::Fetch;
    let topic_of = |one: &Wanted| &store.partitions[one.partition].topic;
    put_frame(out, api, FETCH_VERSION, correlation_id, bytes, |out| {
        out.put_i32(0);
        out.put_i16(0); // No error.
        out.put_i32(session_id);
        let told = |one: &&Wanted| !only_found || one.bytes > 0;
        let of_a_topic = || {
            let topics = wanted.chunk_by(|one, next| topic_of(one) == topic_of(next));
            topics.filter(|topic| topic.iter().any(|one| told(&one)))
        };
        out.put_i32(of_a_topic().count() as i32);
        for topic in of_a_topic() {
            put_string(out, topic_of(&topic[0]), false)?;
            out.put_i32(topic.iter().filter(told).count() as i32);
            for one in topic.iter().filter(told) {
                let found = &store.partitions[one.partition];
                out.put_i32(found.index);
                out.put_i16(0); // No error.
                out.put_i64(found.next_offset); // High watermark,
                out.put_i64(found.next_offset); // and what is stable.
                out.put_i64(0); // Where the log starts.
                out.put_i32(-1); // No aborted transactions,
                out.put_i32(-1); // no replica that would be better.
                out.put_i32(one.bytes as i32);
                if one.bytes > 0 {
                    cut(out.len(), one);
                }
            }
        }
        Ok(())
    })
}

pub fn api_versions() -> ApiVersionsResponse {
    let offered = SERVED.iter().map(|(api, first, last)| ApiVersion {
        api_key: *api as i16,
        min_version: *first,
        max_version: *last,
    });
    ApiVersionsResponse {
        api_keys: offered.collect(),
        ..Default::default()
    }
}

pub fn metadata(
    request: &MetadataRequest,
    store: &Store,
    host: &str,
    port: u16,
) -> MetadataResponse {
    let names: Vec<&str> = match &request.topics {
        Some(topics) => topics
            .iter()
            .filter_map(|topic| topic.name.as_deref())
            .collect(),
        None => store.topic_names().collect(),
    };
    let partition = |partition_index| MetadataResponsePartition {
        partition_index,
        replica_nodes: vec![0],
        isr_nodes: vec![0],
        ..Default::default()
    };
    let topics = names.into_iter().map(|name| {
        let count = store.partition_count(name);
        let missing = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        MetadataResponseTopic {
            error_code: if count.is_some() { 0 } else { missing.0 },
            name: Some(name.to_owned()),
            partitions: (0..count.unwrap_or(0) as i32).map(partition).collect(),
            ..Default::default()
        }
    });
    MetadataResponse {
        brokers: vec![MetadataResponseBroker {
            node_id: 0,
            host: host.to_owned(),
            port: i32::from(port),
            rack: None,
        }],
        controller_id: 0,
        topics: topics.collect(),
        ..Default::default()
    }
}

pub fn create_topics(
    request: &CreateTopicsRequest,
    store: &mut Store,
) -> io::Result<CreateTopicsResponse> {
    let mut answer = CreateTopicsResponse::default();
    for topic in &request.topics {
        let created = store.create_topic(&topic.name, topic.num_partitions, is_synced(topic))?;
        let code = if created {
            ErrorCode::NONE
        } else {
            ErrorCode::TOPIC_ALREADY_EXISTS
        };
        answer.topics.push(CreatableTopicResult {
            name: topic.name.clone(),
            error_code: code.0,
            ..Default::default()
        });
    }
    Ok(answer)
}

fn is_synced(topic: &CreatableTopic) -> bool {
    topic
        .configs
        .iter()
        .any(|config| config.name == "flush.messages" && config.value.as_deref() == Some("1"))
}

pub fn delete_topics(request: &DeleteTopicsRequest, store: &mut Store) -> DeleteTopicsResponse {
    let responses = request.topic_names.iter().map(|name| {
        let code = if store.delete_topic(name) {
            ErrorCode::NONE
        } else {
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        };
        DeletableTopicResult {
            name: Some(name.clone()),
            error_code: code.0,
            ..Default::default()
        }
    });
    DeleteTopicsResponse {
        responses: responses.collect(),
        ..Default::default()
    }
}

/// The log's end is known, its start is 0; times aren't looked for.
pub fn list_offsets(request: &ListOffsetsRequest, store: &Store) -> ListOffsetsResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let found = store.find(&topic.name, asked.partition_index);
            let end = found.map(|key| store.partitions[key].next_offset);
            let missing = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
            let offset = end.map(|end| if asked.timestamp == LATEST { end } else { 0 });
            ListOffsetsPartitionResponse {
                partition_index: asked.partition_index,
                error_code: if end.is_some() { 0 } else { missing.0 },
                offset: offset.unwrap_or(-1),
                ..Default::default()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::header::decode_response_header;
    use crate::wire::messages::fetch_request::{FetchPartition, FetchTopic};
    use crate::wire::messages::{FetchRequest, FetchResponse, ProduceResponse};

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::new(dir.path());
        store.create_topic("a", 2, false).unwrap();
        store.create_topic("b", 1, false).unwrap();
        (dir, store)
    }

    fn body(frame: &BytesMut, api: ApiKey, version: i16) -> bytes::Bytes {
        assert_eq!(frame[..4], (frame.len() as i32 - 4).to_be_bytes());
        let frame = frame.clone().freeze().slice(4..);
        let mut d = Decoder::new(&frame);
        assert_eq!(decode_response_header(&mut d, api, version), Ok(7));
        frame.slice(d.position()..)
    }

    #[test]
    fn a_produce_answer_decodes_in_every_version_offered() {
        let (_dir, store) = store();
        let at = |topic_index, topic, index, base_offset| Appended {
            topic_index,
            partition: store.find(topic, index).unwrap(),
            base_offset,
        };
        let appended = [at(0, "a", 0, 5), at(0, "a", 1, 6), at(1, "b", 0, 7)];
        for version in PRODUCE_VERSION_MIN..=12 {
            let mut out = BytesMut::new();
            put_produced(&mut out, version, 7, &appended, &store).unwrap();
            let body = body(&out, ApiKey::Produce, version);
            let mut d = Decoder::new(&body);
            let found = ProduceResponse::decode(&mut d, version).unwrap();
            d.finish().unwrap();
            let found: Vec<_> = found
                .responses
                .iter()
                .flat_map(|topic| {
                    topic
                        .partition_responses
                        .iter()
                        .map(|one| (&*topic.name, one))
                })
                .map(|(name, one)| (name, one.index, one.error_code, one.base_offset))
                .collect();
            assert_eq!(found, [("a", 0, 0, 5), ("a", 1, 0, 6), ("b", 0, 0, 7)]);
        }
    }

    #[test]
    fn a_fetch_is_read_and_its_answer_decodes_around_the_records() {
        let (_dir, store) = store();
        let partition = |partition, fetch_offset| FetchPartition {
            partition,
            fetch_offset,
            partition_max_bytes: 1000,
            ..Default::default()
        };
        let request = FetchRequest {
            max_wait_ms: 100,
            min_bytes: 0,
            max_bytes: 5000,
            topics: vec![FetchTopic {
                topic: "a".to_owned(),
                partitions: vec![partition(1, 3), partition(0, 4)],
                ..Default::default()
            }],
            ..Default::default()
        };
        let mut encoded = BytesMut::new();
        request.encode(&mut encoded, FETCH_VERSION).unwrap();
        let mut wanted = Vec::new();
        let terms = read_fetch(&encoded, &store, &mut wanted).unwrap();
        assert_eq!((terms.bytes_min, terms.bytes_max), (1, 5000));
        assert_eq!(terms.wait, Duration::from_millis(100));
        let offsets: Vec<_> = wanted
            .iter()
            .map(|one| (one.partition, one.offset, one.bytes_max))
            .collect();
        let key = |index| store.find("a", index).unwrap();
        assert_eq!(offsets, [(key(0), 4, 1000), (key(1), 3, 1000)]);

        wanted[1].bytes = 5;
        let found = answer(&wanted, 0, false, &store);
        assert_eq!(found.session_id, 0);
        let partitions = &found.responses[0].partitions;
        assert_eq!(partitions[0].partition_index, 0);
        assert_eq!(partitions[0].records.as_deref(), Some(&b""[..]));
        assert_eq!(partitions[1].records.as_deref(), Some(&b"batch"[..]));

        // Gone on with, a session is told what has changed, and tells what there is.
        let going_on = FetchRequest {
            session_id: 9,
            session_epoch: 1,
            topics: vec![FetchTopic {
                topic: "a".to_owned(),
                partitions: vec![partition(1, 8)],
                ..Default::default()
            }],
            ..request
        };
        let mut encoded = BytesMut::new();
        going_on.encode(&mut encoded, FETCH_VERSION).unwrap();
        let terms = read_fetch(&encoded, &store, &mut wanted).unwrap();
        assert!(terms.goes_on && terms.in_session);
        let offsets: Vec<_> = wanted.iter().map(|one| one.offset).collect();
        assert_eq!(offsets, [4, 8]);
        wanted[1].bytes = 5;
        let found = answer(&wanted, 9, true, &store);
        assert_eq!(found.session_id, 9);
        assert_eq!(found.responses[0].partitions.len(), 1);
        assert_eq!(found.responses[0].partitions[0].partition_index, 1);
        wanted[1].bytes = 0;
        assert!(answer(&wanted, 9, true, &store).responses.is_empty());
    }

    /// With a batch after the last partition, if any has records.
    fn answer(
        wanted: &[Wanted],
        session_id: i32,
        only_found: bool,
        store: &Store,
    ) -> FetchResponse {
        let mut out = BytesMut::new();
        let mut cuts = Vec::new();
        put_fetched(
            &mut out,
            7,
            session_id,
            wanted,
            only_found,
            store,
            |at, one| {
                cuts.push((at, one.bytes));
            },
        )
        .unwrap();
        if let [(at, 5)] = cuts[..] {
            assert_eq!(at, out.len(), "the records end the answer");
            out.extend_from_slice(b"batch");
        }
        let body = body(&out, ApiKey::Fetch, FETCH_VERSION);
        let mut d = Decoder::new(&body);
        let found = FetchResponse::decode(&mut d, FETCH_VERSION).unwrap();
        d.finish().unwrap();
        found
    }

    #[test]
    fn where_logs_end_is_known() {
        let (_dir, mut store) = store();
        let key = store.find("b", 0).unwrap();
        store.partitions[key].next_offset = 9;
        let mut request = ListOffsetsRequest::default();
        let partition =
            |timestamp| crate::wire::messages::list_offsets_request::ListOffsetsPartition {
                timestamp,
                ..Default::default()
            };
        request.topics = vec![
            crate::wire::messages::list_offsets_request::ListOffsetsTopic {
                name: "b".to_owned(),
                partitions: vec![partition(LATEST), partition(-2)],
            },
        ];
        let answer = list_offsets(&request, &store);
        let found: Vec<_> = answer.topics[0]
            .partitions
            .iter()
            .map(|it| it.offset)
            .collect();
        assert_eq!(found, [9, 0]);
    }
}
