//! Encodes every batch anew, as a client's producer does: with keys, with compression. What
//! it costs shows in the generator's CPU share. Called by `producer`.
//!
//! A batch's records have keys that belong to its partition by Kafka's own partitioner; the
//! values are half words, half noise, so that codecs have some but not all to do.

use bytes::BytesMut;

use super::client::put_request;
use super::template::{STAMP_BYTES, TIMEOUT_MS, now_ms};
use crate::record::{BatchBuilder, BatchParams, CompressionType};
use crate::wire::ApiKey;
use crate::wire::messages::ProduceRequest;
use crate::wire::messages::produce_request::{PartitionProduceData, TopicProduceData};

const WORDS: &[u8] = b"the quick brown fox jumps over the lazy dog ";
/// Different values, so that no batch repeats one.
const VALUES: usize = 251;

#[derive(Clone, Debug)]
pub struct Making {
    pub topic: String,
    pub version: i16,
    pub acks: i16,
    pub record_bytes: usize,
    pub records_per_batch: usize,
    pub keys: usize,
    pub compression: CompressionType,
}

pub struct Encoder {
    making: Making,
    /// The lane's partitions with the keys of each.
    partitions: Vec<(i32, Vec<Vec<u8>>)>,
    values: Vec<Vec<u8>>,
    turn: usize,
}

impl Encoder {
    /// For these `partitions` of a topic of `partition_count`.
    pub fn new(making: Making, partitions: &[i32], partition_count: usize) -> Encoder {
        let mut keyed: Vec<(i32, Vec<Vec<u8>>)> = partitions
            .iter()
            .map(|partition| (*partition, Vec::new()))
            .collect();
        for number in 0..making.keys {
            let key = format!("key-{number:08}").into_bytes();
            let partition = partition_of(&key, partition_count);
            if let Some((_, keys)) = keyed.iter_mut().find(|(index, _)| *index == partition) {
                keys.push(key);
            }
        }
        let values = (0..VALUES).map(|seed| value(seed, making.record_bytes));
        Encoder {
            values: values.collect(),
            making,
            partitions: keyed,
            turn: 0,
        }
    }

    /// Appends a request to `out`; returns which of the partitions it is for.
    pub fn put(
        &mut self,
        out: &mut BytesMut,
        correlation_id: i32,
        intended_ns: u64,
    ) -> Result<usize, String> {
        let slot = self.turn % self.partitions.len();
        let (partition, keys) = &self.partitions[slot];
        let making = &self.making;
        let now = now_ms();
        let mut builder = BatchBuilder::new(BatchParams {
            compression: making.compression.into(),
            ..Default::default()
        });
        for index in 0..making.records_per_batch {
            let number = self.turn * making.records_per_batch + index;
            let value = &mut self.values[number % VALUES];
            value[..STAMP_BYTES].copy_from_slice(&intended_ns.to_be_bytes());
            let key = (!keys.is_empty()).then(|| &keys[number % keys.len()][..]);
            builder.append(now, key, Some(value), &[]);
        }
        self.turn += 1;
        let request = ProduceRequest {
            transactional_id: None,
            acks: making.acks,
            timeout_ms: TIMEOUT_MS,
            topic_data: vec![TopicProduceData {
                name: making.topic.clone(),
                partition_data: vec![PartitionProduceData {
                    index: *partition,
                    records: Some(builder.finish()),
                }],
                ..Default::default()
            }],
        };
        let mut frame = BytesMut::new();
        put_request(
            &mut frame,
            ApiKey::Produce,
            making.version,
            correlation_id,
            &request,
        )?;
        out.extend_from_slice(&frame);
        Ok(slot)
    }
}

fn value(seed: usize, bytes: usize) -> Vec<u8> {
    let mut noise = seed as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let mut next = move || {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise as u8
    };
    let word = |at: usize| WORDS[(seed + at) % WORDS.len()];
    (0..bytes)
        .map(|at| if at % 32 < 16 { word(at) } else { next() })
        .collect()
}

/// As Kafka's default partitioner: murmur2 of the key, without its sign.
fn partition_of(key: &[u8], partitions: usize) -> i32 {
    let positive = (murmur2(key) & 0x7fff_ffff) as usize;
    (positive % partitions) as i32
}

fn murmur2(data: &[u8]) -> u32 {
    const MIX: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().expect("chunks of four"));
        k = k.wrapping_mul(MIX);
        k ^= k >> 24;
        hash = hash.wrapping_mul(MIX) ^ k.wrapping_mul(MIX);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let mut tail = [0; 4];
        tail[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u32::from_le_bytes(tail)).wrapping_mul(MIX);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MIX);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::template::stamp_of;
    use crate::record::{BatchView, records};
    use crate::wire::codec::{Decoder, Message as _};

    #[test]
    fn murmur2_is_kafkas() {
        // From Apache Kafka's UtilsTest.
        let known: [(&[u8], i32); 5] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in known {
            assert_eq!(murmur2(key) as i32, hash, "{key:?}");
        }
    }

    #[test]
    fn keys_go_to_their_partitions_in_every_codec() {
        for compression in CompressionType::ALL {
            let making = Making {
                topic: "t".to_owned(),
                version: 9,
                acks: -1,
                record_bytes: 64,
                records_per_batch: 10,
                keys: 1000,
                compression,
            };
            let mut encoder = Encoder::new(making, &[1, 3], 4);
            for (turn, slot) in [0, 1, 0].into_iter().enumerate() {
                let mut out = BytesMut::new();
                assert_eq!(encoder.put(&mut out, 5, 77), Ok(slot), "{turn}");
                let frame = out.freeze();
                // Size, api key, version, id, client id with its length, and no tags.
                let mut d = Decoder::at(&frame, 4 + 2 + 2 + 4 + 2 + "ottla-bench".len() + 1);
                let request = ProduceRequest::decode(&mut d, 9).unwrap();
                let data = &request.topic_data[0].partition_data[0];
                assert_eq!(data.index, [1, 3][slot]);
                let bytes = data.records.clone().unwrap();
                let batch = BatchView::parse(&bytes).unwrap();
                assert!(batch.verify_crc());
                assert_eq!(batch.compression(), Some(compression));
                let mut all = records(&batch).unwrap();
                let mut count = 0;
                while let Some(record) = all.next() {
                    let record = record.unwrap();
                    assert_eq!(partition_of(record.key.unwrap(), 4), data.index);
                    assert_eq!(record.value.and_then(stamp_of), Some(77));
                    count += 1;
                }
                assert_eq!(count, 10);
            }
        }
    }
}
