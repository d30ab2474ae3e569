//! Produce requests encoded once and sent many times. Between two sends only the
//! correlation id changes and, where arrivals are timed, the time at the front of every
//! value with the batch's CRC; so that the client costs next to nothing. Called by `load`.

use std::ops::Range;

use bytes::BytesMut;

use crate::base::Millis;
use crate::record::{BatchBuilder, BatchParams};
use crate::wire::ApiKey;
use crate::wire::codec::Message as _;
use crate::wire::header::encode_request_header;
use crate::wire::messages::ProduceRequest;
use crate::wire::messages::produce_request::{PartitionProduceData, TopicProduceData};

/// Bytes of a value that hold the intended time.
pub const STAMP_BYTES: usize = 8;
/// Stands where the time goes, so that its places can be found in the encoded batch; the
/// filling has no byte of it.
const MARK: [u8; STAMP_BYTES] = *b"\xf1OTTLA\xf2\xf3";
const FILLING: &[u8] = b"abcdefghijklmnopqrstuvwxyz012345";
const CLIENT_ID: &str = "ottla-bench";
const TIMEOUT_MS: i32 = 30_000;
/// In a frame: after size, api key and version.
const AT_CORRELATION_ID: usize = 8;
/// In a batch.
const AT_CRC: usize = 17;
const CRC_FROM: usize = 21;

#[derive(Clone, Debug)]
pub struct Shape<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub acks: i16,
    pub record_bytes: usize,
    pub records_per_batch: usize,
    pub now: Millis,
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
        let mut builder = BatchBuilder::new(BatchParams::default());
        for _ in 0..shape.records_per_batch {
            builder.append(shape.now, None, Some(&value), &[]);
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
        let mut out = BytesMut::from(&[0; 4][..]);
        encode_request_header(&mut out, ApiKey::Produce, version, 0, Some(CLIENT_ID));
        request
            .encode(&mut out, version)
            .map_err(|error| error.to_string())?;
        let mut frame = out.to_vec();
        let size = i32::try_from(frame.len() - 4).map_err(|_| "the batch is too large")?;
        frame[..4].copy_from_slice(&size.to_be_bytes());
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

    /// Writes the intended time into every value.
    pub fn stamp(&mut self, intended_ns: u64) {
        for at in &self.stamps {
            self.frame[*at..at + STAMP_BYTES].copy_from_slice(&intended_ns.to_be_bytes());
        }
        let batch = &mut self.frame[self.batch.clone()];
        let crc = crc_fast::crc32_iscsi(&batch[CRC_FROM..]);
        batch[AT_CRC..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    }
}

/// The intended time in a value of ours.
pub fn stamp_of(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*value.first_chunk()?))
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
            now: 1_700_000_000_000,
        };
        for version in [3, 12] {
            let mut template = Template::new(&shape, version).unwrap();
            template.stamp(42);
            let frame = template.frame(7).to_vec();
            assert_eq!(frame[8..12], [0, 0, 0, 7]);
            let batch = BatchView::parse(&frame[template.batch.clone()]).unwrap();
            assert!(batch.verify_crc());
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
