//! Requests as clients of several tests send them.

use ottla::record::{BatchBuilder, BatchParams};
use ottla::wire::messages::ProduceRequest;
use ottla::wire::messages::produce_request::{PartitionProduceData, TopicProduceData};

/// One record for one partition, to be acknowledged by all replicas.
pub fn produce(topic: &str, partition: i32, value: &[u8]) -> ProduceRequest {
    let mut batch = BatchBuilder::new(BatchParams::default());
    batch.append(1_000, None, Some(value), &[]);
    ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: topic.to_owned(),
            partition_data: vec![PartitionProduceData {
                index: partition,
                records: Some(batch.finish()),
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}
