//! The hand-written forms of Produce and Fetch say the same as the generated codecs, in
//! every version.

use bytes::{Bytes, BytesMut};
use ottla::base::Uuid;
use ottla::wire::ApiKey;
use ottla::wire::codec::{Decoder, Message};
use ottla::wire::fetch_encoder::{FetchEncoder, FetchHead, Piece};
use ottla::wire::header::encode_response_header;
use ottla::wire::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint,
    PartitionData, SnapshotId,
};
use ottla::wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ottla::wire::messages::{FetchResponse, ProduceRequest};
use ottla::wire::produce_view::{ProduceView, TopicRef};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn records() -> impl Strategy<Value = Option<Bytes>> {
    option::of(vec(any::<u8>(), 0..200).prop_map(Bytes::from))
}

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<[u8; 16]>().prop_map(Uuid)
}

fn produce_request() -> impl Strategy<Value = ProduceRequest> {
    let partition = (any::<i32>(), records())
        .prop_map(|(index, records)| PartitionProduceData { index, records });
    let topic = ("[a-zé]{0,9}", uuid(), vec(partition, 0..4)).prop_map(
        |(name, topic_id, partition_data)| TopicProduceData {
            name,
            topic_id,
            partition_data,
        },
    );
    (
        option::of("[a-z]{0,5}"),
        any::<i16>(),
        any::<i32>(),
        vec(topic, 0..4),
    )
        .prop_map(
            |(transactional_id, acks, timeout_ms, topic_data)| ProduceRequest {
                transactional_id,
                acks,
                timeout_ms,
                topic_data,
            },
        )
}

fn fetch_partition() -> impl Strategy<Value = PartitionData> {
    let aborted =
        (any::<i64>(), any::<i64>()).prop_map(|(producer_id, first_offset)| AbortedTransaction {
            producer_id,
            first_offset,
        });
    let tagged = (
        prop_oneof![Just(-1), any::<i32>()],
        prop_oneof![Just(-1), any::<i32>()],
        prop_oneof![Just(-1), any::<i64>()],
    );
    (
        any::<(i32, i16, i64, i64, i64, i32)>(),
        option::of(vec(aborted, 0..3)),
        tagged,
        records(),
    )
        .prop_map(|(numbers, aborted_transactions, tagged, records)| {
            let (partition_index, error_code, high_watermark, stable, start, preferred) = numbers;
            PartitionData {
                partition_index,
                error_code,
                high_watermark,
                last_stable_offset: stable,
                log_start_offset: start,
                diverging_epoch: EpochEndOffset {
                    epoch: tagged.0,
                    end_offset: -1,
                },
                current_leader: LeaderIdAndEpoch {
                    leader_id: tagged.1,
                    leader_epoch: -1,
                },
                snapshot_id: SnapshotId {
                    end_offset: tagged.2,
                    epoch: -1,
                },
                aborted_transactions,
                preferred_read_replica: preferred,
                records,
            }
        })
}

fn fetch_response() -> impl Strategy<Value = FetchResponse> {
    let topic = ("[a-z]{1,9}", uuid(), vec(fetch_partition(), 0..4)).prop_map(
        |(topic, topic_id, partitions)| FetchableTopicResponse {
            topic,
            topic_id,
            partitions,
        },
    );
    let endpoint =
        (any::<i32>(), "[a-z]{1,9}", any::<i32>()).prop_map(|(node_id, host, port)| NodeEndpoint {
            node_id,
            host,
            port,
            rack: None,
        });
    (
        any::<(i32, i16, i32)>(),
        vec(topic, 0..4),
        vec(endpoint, 0..3),
    )
        .prop_map(|(head, responses, node_endpoints)| FetchResponse {
            throttle_time_ms: head.0,
            error_code: head.1,
            session_id: head.2,
            responses,
            node_endpoints,
        })
}

/// Without the fields that a version can't carry.
fn for_version(mut response: FetchResponse, version: i16) -> FetchResponse {
    if version < 7 {
        response.session_id = 0;
    }
    if version < 16 {
        response.node_endpoints.clear();
    }
    for data in response
        .responses
        .iter_mut()
        .flat_map(|t| &mut t.partitions)
    {
        if version < 11 {
            data.preferred_read_replica = -1;
        }
        if version < 12 {
            data.diverging_epoch = EpochEndOffset::default();
            data.current_leader = LeaderIdAndEpoch::default();
            data.snapshot_id = SnapshotId::default();
        }
    }
    response
}

/// The frame as a connection would send it: records put between the encoder's pieces.
fn gathered(response: &FetchResponse, version: i16) -> Vec<u8> {
    let head = FetchHead {
        throttle_time_ms: response.throttle_time_ms,
        error_code: response.error_code,
        session_id: response.session_id,
    };
    let mut records = Vec::new();
    let topics = &response.responses;
    let mut encoder = FetchEncoder::new(BytesMut::new(), version, 77, head, topics.len()).unwrap();
    for topic in topics {
        let count = topic.partitions.len();
        encoder.topic(&topic.topic, topic.topic_id, count).unwrap();
        for data in &topic.partitions {
            let length = data.records.as_ref().map(Bytes::len);
            encoder.partition(data, length).unwrap();
            records.extend(data.records.clone().filter(|bytes| !bytes.is_empty()));
        }
    }
    let encoded = encoder.finish(&response.node_endpoints).unwrap();
    let mut records = records.into_iter();
    let mut frame = Vec::new();
    for piece in encoded.pieces() {
        match piece {
            Piece::Encoded(bytes) => frame.extend_from_slice(&bytes),
            Piece::Records(length) => {
                let bytes = records.next().unwrap();
                assert_eq!(bytes.len(), length);
                frame.extend_from_slice(&bytes);
            }
        }
    }
    assert!(records.next().is_none());
    assert_eq!(frame.len(), encoded.frame_bytes());
    frame
}

proptest! {
    #[test]
    fn produce_view_sees_what_the_generated_decoder_sees(request in produce_request()) {
        for version in ProduceRequest::VERSIONS {
            let mut out = BytesMut::from(&b"header"[..]);
            request.encode(&mut out, version).unwrap();
            let frame = out.freeze();
            let view = ProduceView::decode(Decoder::at(&frame, 6), version).unwrap();
            let decoded = ProduceRequest::decode(&mut Decoder::at(&frame, 6), version).unwrap();
            prop_assert_eq!(view.transactional_id, decoded.transactional_id.as_deref());
            prop_assert_eq!(view.acks, decoded.acks);
            prop_assert_eq!(view.timeout_ms, decoded.timeout_ms);
            let mut partitions = view.partitions();
            for (topic_index, topic) in decoded.topic_data.iter().enumerate() {
                let name = if version >= 13 {
                    TopicRef::Id(topic.topic_id)
                } else {
                    TopicRef::Name(&topic.name)
                };
                for data in &topic.partition_data {
                    let seen = partitions.next().unwrap();
                    prop_assert_eq!(seen.topic, name);
                    prop_assert_eq!(seen.topic_index, topic_index);
                    prop_assert_eq!(seen.partition_index, data.index);
                    let records = seen.records.map(|range| frame.slice(range));
                    prop_assert_eq!(&records, &data.records);
                }
            }
            prop_assert_eq!(partitions.next(), None);
        }
    }

    #[test]
    fn produce_view_and_the_generated_decoder_refuse_the_same(
        request in produce_request(),
        position in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        for version in ProduceRequest::VERSIONS {
            let mut out = BytesMut::new();
            request.encode(&mut out, version).unwrap();
            let at = position.index(out.len());
            out[at] = byte;
            let frame = out.freeze();
            let view = ProduceView::decode(Decoder::new(&frame), version).map(|_| ());
            let decoded = ProduceRequest::decode(&mut Decoder::new(&frame), version).map(|_| ());
            prop_assert_eq!(view, decoded);
        }
    }

    #[test]
    fn fetch_encoder_writes_what_the_generated_encoder_writes(response in fetch_response()) {
        for version in FetchResponse::VERSIONS {
            let response = for_version(response.clone(), version);
            let mut body = BytesMut::new();
            encode_response_header(&mut body, ApiKey::Fetch, version, 77);
            response.encode(&mut body, version).unwrap();
            let frame = gathered(&response, version);
            prop_assert_eq!(&frame[..4], (body.len() as i32).to_be_bytes());
            prop_assert_eq!(&frame[4..], &body[..], "version {}", version);
        }
    }
}
