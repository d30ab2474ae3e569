//! A Produce response written straight into its frame: the counterpart of `produce_view`,
//! for the Produce handler, which knows the outcomes one by one.
//!
//! Invariants: topics and partitions are given in exactly the announced numbers (asserted);
//! the bytes are those of the generated `ProduceResponse`.

use bytes::{BufMut as _, BytesMut};

use super::codec::{
    EncodeError, Message as _, begin_tags, put_array, put_length, put_no_tags, put_nullable_string,
    put_string, put_tag,
};
use super::messages::ProduceResponse;
use super::messages::produce_response::{LeaderIdAndEpoch, NodeEndpoint};
use crate::base::Uuid;

/// First version that tells where the leader is.
const LEADER_SINCE: i16 = 10;
/// First version that names topics by id.
const BY_ID_SINCE: i16 = 13;

/// What became of one partition.
#[derive(Clone, Debug)]
pub struct PartitionOutcome<'a> {
    pub index: i32,
    pub error_code: i16,
    pub base_offset: i64,
    pub log_append_time_ms: i64,
    pub log_start_offset: i64,
    pub record_errors: &'a [(i32, Option<String>)],
    pub error_message: Option<&'a str>,
    /// Left out before version 10.
    pub current_leader: Option<LeaderIdAndEpoch>,
}

pub struct ProduceEncoder<'a> {
    out: &'a mut BytesMut,
    version: i16,
    flex: bool,
    topics_left: usize,
    partitions_left: usize,
    in_topic: bool,
}

impl<'a> ProduceEncoder<'a> {
    /// Begins the response behind its header, which stands in `out` already.
    pub fn new(
        out: &'a mut BytesMut,
        version: i16,
        topic_count: usize,
    ) -> Result<ProduceEncoder<'a>, EncodeError> {
        EncodeError::check_version(ProduceResponse::NAME, ProduceResponse::VERSIONS, version)?;
        let flex = version >= ProduceResponse::FLEXIBLE_FROM;
        put_length(out, topic_count, flex)?;
        Ok(ProduceEncoder {
            out,
            version,
            flex,
            topics_left: topic_count,
            partitions_left: 0,
            in_topic: false,
        })
    }

    /// Opens the next topic. Up to version 12 its name is sent, from 13 its id.
    pub fn topic(
        &mut self,
        name: &str,
        id: Uuid,
        partition_count: usize,
    ) -> Result<(), EncodeError> {
        self.end_topic();
        let left = self.topics_left.checked_sub(1);
        self.topics_left = left.expect("no more topics than announced");
        if self.version < BY_ID_SINCE {
            put_string(self.out, name, self.flex)?;
        } else {
            self.out.put_slice(&id.0);
        }
        self.partitions_left = partition_count;
        self.in_topic = true;
        put_length(self.out, partition_count, self.flex)
    }

    /// The next partition of the open topic.
    pub fn partition(&mut self, outcome: &PartitionOutcome<'_>) -> Result<(), EncodeError> {
        let left = self.partitions_left.checked_sub(1);
        self.partitions_left = left.expect("no more partitions than announced");
        let (version, flex) = (self.version, self.flex);
        let out = &mut *self.out;
        out.put_i32(outcome.index);
        out.put_i16(outcome.error_code);
        out.put_i64(outcome.base_offset);
        out.put_i64(outcome.log_append_time_ms);
        if version >= 5 {
            out.put_i64(outcome.log_start_offset);
        }
        if version >= 8 {
            put_array(out, outcome.record_errors, flex, |out, (index, text)| {
                out.put_i32(*index);
                put_nullable_string(out, text.as_deref(), flex)?;
                if flex {
                    put_no_tags(out);
                }
                Ok(())
            })?;
            put_nullable_string(out, outcome.error_message, flex)?;
        }
        if flex {
            let tags = begin_tags(out);
            let leader = outcome.current_leader.as_ref();
            if let Some(leader) = leader.filter(|_| version >= LEADER_SINCE) {
                put_tag(out, &tags, 0, |out| leader.encode(out, version))?;
            }
        }
        Ok(())
    }

    /// Ends the response. `node_endpoints` are those of the leaders that were named; there
    /// are none before version 10.
    pub fn finish(mut self, node_endpoints: &[NodeEndpoint]) -> Result<(), EncodeError> {
        self.end_topic();
        assert_eq!(self.topics_left, 0, "as many topics as announced");
        let (version, flex) = (self.version, self.flex);
        let out = self.out;
        // The throttle time.
        out.put_i32(0);
        if version < LEADER_SINCE && !node_endpoints.is_empty() {
            return Err(EncodeError::FieldAbsent("NodeEndpoints"));
        }
        if flex {
            let tags = begin_tags(out);
            if !node_endpoints.is_empty() {
                put_tag(out, &tags, 0, |out| {
                    put_array(out, node_endpoints, flex, |out, v| v.encode(out, version))
                })?;
            }
        }
        Ok(())
    }

    fn end_topic(&mut self) {
        assert_eq!(self.partitions_left, 0, "as many partitions as announced");
        if self.in_topic && self.flex {
            put_no_tags(self.out);
        }
        self.in_topic = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;
    use crate::wire::messages::produce_response::{
        BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
    };

    fn random_partition(rng: &mut Rng, version: i16) -> PartitionProduceResponse {
        let text = |rng: &mut Rng| rng.one_in(2).then(|| "what is wrong".to_owned());
        let mut partition = PartitionProduceResponse {
            index: rng.below(100) as i32,
            error_code: rng.below(90) as i16,
            base_offset: rng.below(1 << 40) as i64 - 1,
            ..Default::default()
        };
        if version >= 5 {
            partition.log_start_offset = rng.below(1 << 40) as i64;
        }
        if version >= 8 {
            for batch_index in 0..rng.below(3) as i32 {
                partition.record_errors.push(BatchIndexAndErrorMessage {
                    batch_index,
                    batch_index_error_message: text(rng),
                });
            }
            partition.error_message = text(rng);
        }
        if version >= LEADER_SINCE && rng.one_in(3) {
            partition.current_leader = LeaderIdAndEpoch {
                leader_id: rng.below(9) as i32,
                leader_epoch: rng.below(9) as i32,
            };
        }
        partition
    }

    fn random_response(rng: &mut Rng, version: i16) -> ProduceResponse {
        let by_id = version >= BY_ID_SINCE;
        let mut response = ProduceResponse::default();
        for n in 0..rng.below(4) as u8 {
            response.responses.push(TopicProduceResponse {
                name: if by_id {
                    String::new()
                } else {
                    format!("t{n}")
                },
                topic_id: if by_id { Uuid([n; 16]) } else { Uuid::ZERO },
                partition_responses: (0..rng.below(4))
                    .map(|_| random_partition(rng, version))
                    .collect(),
            });
        }
        if version >= LEADER_SINCE && rng.one_in(2) {
            response.node_endpoints.push(NodeEndpoint {
                node_id: 1,
                host: "host".to_owned(),
                port: 9092,
                rack: None,
            });
        }
        response
    }

    #[test]
    fn its_bytes_are_those_of_the_generated_message() {
        let mut rng = Rng::new(5);
        for round in 0..400 {
            let version = 3 + (round % 11) as i16;
            let response = random_response(&mut rng, version);
            let mut expected = BytesMut::new();
            response.encode(&mut expected, version).expect("it fits");
            let mut out = BytesMut::new();
            let topics = &response.responses;
            let mut encoder = ProduceEncoder::new(&mut out, version, topics.len()).expect("known");
            for topic in topics {
                let partitions = &topic.partition_responses;
                encoder
                    .topic(&topic.name, topic.topic_id, partitions.len())
                    .expect("it fits");
                for partition in partitions {
                    let errors: Vec<_> = partition
                        .record_errors
                        .iter()
                        .map(|e| (e.batch_index, e.batch_index_error_message.clone()))
                        .collect();
                    let leader = partition.current_leader.clone();
                    let outcome = PartitionOutcome {
                        index: partition.index,
                        error_code: partition.error_code,
                        base_offset: partition.base_offset,
                        log_append_time_ms: partition.log_append_time_ms,
                        log_start_offset: partition.log_start_offset,
                        record_errors: &errors,
                        error_message: partition.error_message.as_deref(),
                        current_leader: Some(leader).filter(|leader| leader.leader_id >= 0),
                    };
                    encoder.partition(&outcome).expect("it fits");
                }
            }
            encoder.finish(&response.node_endpoints).expect("it fits");
            assert_eq!(out, expected, "version {version}");
        }
    }
}
