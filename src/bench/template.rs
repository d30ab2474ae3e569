//! Produce requests encoded once and sent many times. Between two sends only the
//! correlation id changes and, where latency is measured, the time at the front of every
//! value with the batch's timestamps and CRC; so that the client costs next to nothing.
//! Called by `producer`.

use std::ops::Range;
use std::time::SystemTime;

use bytes::BytesMut;

use super::client::put_request;
use crate::base::Millis;
use crate::record::{BatchBuilder, BatchParams};
use crate::wire::ApiKey;
use crate::wire::messages::ProduceRequest;
use crate::wire::messages::produce_request::{PartitionProduceData, TopicProduceData};

/// Bytes of a value that hold the intended time.
pub const STAMP_BYTES: usize = 8;
/// Stands where the time goes, so that its places can be found in the encoded batch; the
/// filling has no byte of it.
const MARK: [u8; STAMP_BYTES] = *b"\xf1OTTLA\xf2\xf3";
const FILLING: &[u8] = b"abcdefghijklmnopqrstuvwxyz012345";
pub const TIMEOUT_MS: i32 = 30_000;
/// In a frame: after size, api key and version.
const AT_CORRELATION_ID: usize = 8;
/// In a batch.
const AT_CRC: usize = 17;
const CRC_FROM: usize = 21;
/// Base and max timestamp; the records' are relative to the former and all 0.
const AT_TIMESTAMPS: usize = 27;

#[derive(Clone, Debug)]
pub struct Shape<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub acks: i16,
    pub record_bytes: usize,
    pub records_per_batch: usize,
}

#[derive(Clone)]
pub struct Template {
    frame: Vec<u8>,
    batch: Range<usize>,
    /// Where in the frame each value begins.
    stamps: Vec<usize>,
}

impl Template {
    /// A request of `version`, which names topics (so below 13).
    pub fn new(shape: &Shape<'_>, version: i16) -> Result<Template, String> {
        let mut value = MARK.to_vec();
        value.extend(
            FILLING
                .iter()
                .cycle()
                .take(shape.record_bytes.saturating_sub(STAMP_BYTES)),
        );
        let now = now_ms();
        let mut builder = BatchBuilder::new(BatchParams::default());
        for _ in 0..shape.records_per_batch {
            builder.append(now, None, Some(&value), &[]);
        }
        let batch = builder.finish();
        let request = ProduceRequest {
            transactional_id: None,
            acks: shape.acks,
            timeout_ms: TIMEOUT_MS,
            topic_data: vec![TopicProduceData {
                name: shape.topic.to_owned(),
                partition_data: vec![PartitionProduceData {
                    index: shape.partition,
                    records: Some(batch.clone()),
                }],
                ..Default::default()
            }],
        };
        let mut out = BytesMut::new();
        put_request(&mut out, ApiKey::Produce, version, 0, &request)?;
        let frame = out.to_vec();
        let at = find(&frame, &batch)
            .next()
            .expect("the batch was just encoded");
        let stamps: Vec<usize> = find(&frame, &MARK).collect();
        assert_eq!(
            stamps.len(),
            shape.records_per_batch,
            "each value has its mark"
        );
        Ok(Template {
            batch: at..at + batch.len(),
            frame,
            stamps,
        })
    }

    /// The frame with this correlation id.
    pub fn frame(&mut self, correlation_id: i32) -> &[u8] {
        let at = AT_CORRELATION_ID;
        self.frame[at..at + 4].copy_from_slice(&correlation_id.to_be_bytes());
        &self.frame
    }

    /// Writes the intended time into every value, and the batch's timestamps.
    pub fn stamp(&mut self, intended_ns: u64) {
        for at in &self.stamps {
            self.frame[*at..at + STAMP_BYTES].copy_from_slice(&intended_ns.to_be_bytes());
        }
        let batch = &mut self.frame[self.batch.clone()];
        let now = now_ms().to_be_bytes();
        batch[AT_TIMESTAMPS..AT_TIMESTAMPS + 8].copy_from_slice(&now);
        batch[AT_TIMESTAMPS + 8..AT_TIMESTAMPS + 16].copy_from_slice(&now);
        let crc = crc_fast::crc32_iscsi(&batch[CRC_FROM..]);
        batch[AT_CRC..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    }
}

/// The intended time in a value of ours.
pub fn stamp_of(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*value.first_chunk()?))
}

pub fn now_ms() -> Millis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as Millis)
}

fn find<'a>(text: &'a [u8], what: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    (0..text.len()).filter(move |at| text[*at..].starts_with(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchView, records};

    #[test]
    fn a_stamped_batch_is_right_and_every_record_has_the_time() {
        let shape = Shape {
            topic: "t",
            partition: 3,
            acks: -1,
            record_bytes: 100,
            records_per_batch: 5,
        };
        for version in [3, 12] {
            let mut template = Template::new(&shape, version).unwrap();
            template.stamp(42);
            let frame = template.frame(7).to_vec();
            assert_eq!(frame[8..12], [0, 0, 0, 7]);
            let batch = BatchView::parse(&frame[template.batch.clone()]).unwrap();
            assert!(batch.verify_crc());
            assert_eq!(batch.base_timestamp(), batch.max_timestamp());
            let mut seen = 0;
            let mut all = records(&batch).unwrap();
            while let Some(record) = all.next() {
                let value = record.unwrap().value.unwrap();
                assert_eq!((value.len(), stamp_of(value)), (100, Some(42)));
                seen += 1;
            }
            assert_eq!(seen, 5);
        }
    }
}
