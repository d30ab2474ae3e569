//! A Produce request without a copy or an allocation: where in the frame each partition's
//! records lie. The Produce handler decodes a view, then walks its partitions and gives
//! each range of the frame to the partition's owner.
//!
//! ```text
//! transactional_id string? │ acks i16 │ timeout_ms i32 │ topics [
//!   name string (to v12) or id uuid (v13) │ partitions [ index i32 │ records bytes? │ tags ] │ tags
//! ] │ tags                                                    tags and compact lengths from v9
//! ```
//! Invariant: a view exists only of a body that decodes to its end, so that nothing of an
//! undecodable request is ever appended. Versions 0 to 2 are refused, as by Apache Kafka,
//! although they are offered (KIP-896).

use std::ops::Range;

use super::codec::{DecodeError, Decoder, Message as _};
use super::messages::ProduceRequest;
use crate::base::Uuid;

/// A topic as the request names it: by name up to version 12, by id from 13.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicRef<'a> {
    Name(&'a str),
    Id(Uuid),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionView<'a> {
    pub topic: TopicRef<'a>,
    /// Which topic of the request, from 0; partitions of one topic are neighbours.
    pub topic_index: usize,
    pub partition_index: i32,
    /// Where the records lie in the frame; null is legal on the wire.
    pub records: Option<Range<usize>>,
}

#[derive(Clone)]
pub struct ProduceView<'a> {
    pub transactional_id: Option<&'a str>,
    pub acks: i16,
    pub timeout_ms: i32,
    partition_count: usize,
    records_bytes: usize,
    start: Partitions<'a>,
}

impl<'a> ProduceView<'a> {
    /// Walks the whole body at the decoder. Bytes after it are ignored.
    pub fn decode(mut d: Decoder<'a>, version: i16) -> Result<Self, DecodeError> {
        DecodeError::check_version(ProduceRequest::NAME, ProduceRequest::VERSIONS, version)?;
        let flex = version >= ProduceRequest::FLEXIBLE_FROM;
        let transactional_id = d.nullable_str(flex)?;
        let acks = d.i16()?;
        let timeout_ms = d.i32()?;
        let topics_left = d
            .nullable_count(flex, 3)?
            .ok_or(DecodeError::UnexpectedNull)?;
        let start = Partitions {
            d,
            flex,
            by_id: version >= 13,
            topics_left,
            partitions_left: 0,
            topic: None,
        };
        let mut view = ProduceView {
            transactional_id,
            acks,
            timeout_ms,
            partition_count: 0,
            records_bytes: 0,
            start: start.clone(),
        };
        let mut walk = start;
        while let Some(partition) = walk.advance()? {
            view.partition_count += 1;
            view.records_bytes += partition.records.map_or(0, |range| range.len());
        }
        if flex {
            walk.d.skip_tags()?;
        }
        Ok(view)
    }

    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// Bytes of all records together.
    pub fn records_bytes(&self) -> usize {
        self.records_bytes
    }

    /// The partitions in the request's order.
    pub fn partitions(&self) -> Partitions<'a> {
        self.start.clone()
    }
}

/// Iterator over the partitions of a [`ProduceView`].
#[derive(Clone)]
pub struct Partitions<'a> {
    d: Decoder<'a>,
    flex: bool,
    by_id: bool,
    topics_left: usize,
    /// Of `topic`.
    partitions_left: usize,
    topic: Option<(TopicRef<'a>, usize)>,
}

impl<'a> Partitions<'a> {
    fn advance(&mut self) -> Result<Option<PartitionView<'a>>, DecodeError> {
        while self.partitions_left == 0 {
            if self.topic.is_some() && self.flex {
                self.d.skip_tags()?;
            }
            if self.topics_left == 0 {
                self.topic = None;
                return Ok(None);
            }
            self.begin_topic()?;
        }
        let (topic, topic_index) = self.topic.expect("a partition has a topic");
        let partition_index = self.d.i32()?;
        let records = self.d.nullable_range(self.flex)?;
        if self.flex {
            self.d.skip_tags()?;
        }
        self.partitions_left -= 1;
        Ok(Some(PartitionView {
            topic,
            topic_index,
            partition_index,
            records,
        }))
    }

    fn begin_topic(&mut self) -> Result<(), DecodeError> {
        let topic = if self.by_id {
            TopicRef::Id(self.d.uuid()?)
        } else {
            let name = self.d.nullable_str(self.flex)?;
            TopicRef::Name(name.ok_or(DecodeError::UnexpectedNull)?)
        };
        self.partitions_left = self
            .d
            .nullable_count(self.flex, 6)?
            .ok_or(DecodeError::UnexpectedNull)?;
        self.topics_left -= 1;
        let index = self.topic.map_or(0, |(_, index)| index + 1);
        self.topic = Some((topic, index));
        Ok(())
    }
}

impl<'a> Iterator for Partitions<'a> {
    type Item = PartitionView<'a>;

    fn next(&mut self) -> Option<PartitionView<'a>> {
        self.advance()
            .expect("ProduceView::decode has walked the same bytes")
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};

    use super::super::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use super::*;

    fn request() -> ProduceRequest {
        let partition = |index, records: Option<&'static [u8]>| PartitionProduceData {
            index,
            records: records.map(Bytes::from_static),
        };
        let topic = |name: &str, partition_data| TopicProduceData {
            name: name.to_owned(),
            partition_data,
            ..Default::default()
        };
        ProduceRequest {
            transactional_id: Some("tx".to_owned()),
            acks: -1,
            timeout_ms: 1500,
            topic_data: vec![
                topic("empty", vec![]),
                topic("a", vec![partition(1, Some(b"one")), partition(0, None)]),
                topic("b", vec![partition(7, Some(b""))]),
            ],
        }
    }

    #[test]
    fn partitions_with_their_records_in_the_frame() {
        for version in [3, 8, 9, 12] {
            let mut out = BytesMut::from("head");
            request().encode(&mut out, version).unwrap();
            out.extend_from_slice(b"trailing");
            let frame = out.freeze();
            let view = ProduceView::decode(Decoder::at(&frame, 4), version).unwrap();
            assert_eq!(view.transactional_id, Some("tx"));
            assert_eq!((view.acks, view.timeout_ms), (-1, 1500));
            assert_eq!((view.partition_count(), view.records_bytes()), (3, 3));
            let found: Vec<_> = view
                .partitions()
                .map(|p| {
                    let records = p.records.map(|range| &frame[range]);
                    (p.topic, p.topic_index, p.partition_index, records)
                })
                .collect();
            let expected = [
                (TopicRef::Name("a"), 1, 1, Some(&b"one"[..])),
                (TopicRef::Name("a"), 1, 0, None),
                (TopicRef::Name("b"), 2, 7, Some(b"")),
            ];
            assert_eq!(found, expected, "version {version}");
        }
    }

    #[test]
    fn a_body_cut_anywhere_is_refused() {
        for version in ProduceRequest::VERSIONS {
            let mut request = request();
            if version >= 13 {
                for topic in &mut request.topic_data {
                    topic.topic_id = Uuid::METADATA_TOPIC;
                }
            }
            let mut out = BytesMut::new();
            request.encode(&mut out, version).unwrap();
            let frame = out.freeze();
            for end in 0..frame.len() {
                let cut = frame.slice(..end);
                assert!(
                    ProduceView::decode(Decoder::new(&cut), version).is_err(),
                    "version {version} cut at {end}"
                );
            }
            let view = ProduceView::decode(Decoder::new(&frame), version).unwrap();
            assert_eq!(view.partitions().count(), 3);
        }
        let frame = Bytes::from_static(&[0; 64]);
        for version in [-1, 0, 2, 14] {
            assert!(ProduceView::decode(Decoder::new(&frame), version).is_err());
        }
    }
}
