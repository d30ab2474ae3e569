//! A Fetch response whose records are never copied: the encoder writes everything but the
//! records and notes where they belong; the caller sends its chunks (bytes or file ranges)
//! between the pieces. Called by the Fetch handler on the connection's core.
//!
//! ```text
//! size │ correlation_id │ … │ partition 0 … length │ <records> │ tags │ partition 1 … │ <records> │ …
//! └──────────────── Piece::Encoded ───────────────┘ Piece::Records └─── Piece::Encoded ───┘
//! ```
//! The caller tells counts and record lengths before it has read a byte; the size of the
//! frame is therefore exact when the first piece leaves.
//!
//! Invariants: topics and partitions are given in exactly the announced numbers (asserted);
//! sum of all pieces = size + 4.

use bytes::{BufMut as _, Bytes, BytesMut};
use smallvec::SmallVec;

use super::ApiKey;
use super::codec::{
    EncodeError, Message as _, TagCount, absent, begin_tags, put_array, put_length, put_no_tags,
    put_nullable_array, put_string, put_tag,
};
use super::header::encode_response_header;
use super::messages::FetchResponse;
use super::messages::fetch_response::{
    EpochEndOffset, LeaderIdAndEpoch, NodeEndpoint, PartitionData, SnapshotId,
};
use crate::base::Uuid;

const FRAME_SIZE_BYTES: usize = 4;

/// Fields of the response before its topics.
#[derive(Clone, Copy, Debug, Default)]
pub struct FetchHead {
    pub throttle_time_ms: i32,
    pub error_code: i16,
    pub session_id: i32,
}

pub struct FetchEncoder {
    out: BytesMut,
    version: i16,
    flex: bool,
    topics_left: usize,
    partitions_left: usize,
    /// Whether a topic is open, whose tags are still to be written.
    in_topic: bool,
    cuts: SmallVec<[Cut; 8]>,
    records_bytes: usize,
}

/// `records_bytes` belong before the encoded byte at `at`.
#[derive(Clone, Copy, Debug)]
struct Cut {
    at: usize,
    records_bytes: usize,
}

impl FetchEncoder {
    /// Starts a response frame. `out` is an empty buffer, possibly what another frame has left.
    pub fn new(
        out: BytesMut,
        version: i16,
        correlation_id: i32,
        head: FetchHead,
        topic_count: usize,
    ) -> Result<Self, EncodeError> {
        EncodeError::check_version(FetchResponse::NAME, FetchResponse::VERSIONS, version)?;
        assert!(out.is_empty(), "a frame begins at its size");
        let mut encoder = FetchEncoder {
            out,
            version,
            flex: version >= FetchResponse::FLEXIBLE_FROM,
            topics_left: topic_count,
            partitions_left: 0,
            in_topic: false,
            cuts: SmallVec::new(),
            records_bytes: 0,
        };
        let out = &mut encoder.out;
        out.put_bytes(0, FRAME_SIZE_BYTES);
        encode_response_header(out, ApiKey::Fetch, version, correlation_id);
        out.put_i32(head.throttle_time_ms);
        if version >= 7 {
            out.put_i16(head.error_code);
            out.put_i32(head.session_id);
        } else if head.session_id != 0 {
            return Err(EncodeError::FieldAbsent("SessionId"));
        }
        encoder.put_count(topic_count)?;
        Ok(encoder)
    }

    /// Opens the next topic. Up to version 12 its name is sent, from 13 its id.
    pub fn topic(
        &mut self,
        name: &str,
        id: Uuid,
        partition_count: usize,
    ) -> Result<(), EncodeError> {
        self.end_topic();
        self.topics_left = self
            .topics_left
            .checked_sub(1)
            .expect("no more topics than announced");
        if self.version <= 12 {
            put_string(&mut self.out, name, self.flex)?;
        } else {
            self.out.put_slice(&id.0);
        }
        self.partitions_left = partition_count;
        self.in_topic = true;
        self.put_count(partition_count)
    }

    /// The next partition of the open topic. `records_bytes` of records will be sent in its
    /// place, `None` for null; `data.records` itself is not looked at.
    pub fn partition(
        &mut self,
        data: &PartitionData,
        records_bytes: Option<usize>,
    ) -> Result<(), EncodeError> {
        self.partitions_left = self
            .partitions_left
            .checked_sub(1)
            .expect("no more partitions than announced");
        let (version, flex) = (self.version, self.flex);
        let out = &mut self.out;
        out.put_i32(data.partition_index);
        out.put_i16(data.error_code);
        out.put_i64(data.high_watermark);
        out.put_i64(data.last_stable_offset);
        if version >= 5 {
            out.put_i64(data.log_start_offset);
        }
        let aborted = data.aborted_transactions.as_deref();
        put_nullable_array(out, aborted, flex, |out, v| v.encode(out, version))?;
        if version >= 11 {
            out.put_i32(data.preferred_read_replica);
        } else if data.preferred_read_replica != -1 {
            return absent("PreferredReadReplica");
        }
        self.put_records(records_bytes)?;
        self.put_partition_tags(data)
    }

    /// Ends the response. `node_endpoints` are those of leaders named by a partition's
    /// `current_leader` (version 16).
    pub fn finish(mut self, node_endpoints: &[NodeEndpoint]) -> Result<EncodedFetch, EncodeError> {
        self.end_topic();
        assert_eq!(self.topics_left, 0, "as many topics as announced");
        let (version, flex) = (self.version, self.flex);
        if version < 16 && !node_endpoints.is_empty() {
            return Err(EncodeError::FieldAbsent("NodeEndpoints"));
        }
        let out = &mut self.out;
        if flex {
            let tags = begin_tags(out);
            if !node_endpoints.is_empty() {
                put_tag(out, &tags, 0, |out| {
                    put_array(out, node_endpoints, flex, |out, v| v.encode(out, version))
                })?;
            }
        }
        let frame_bytes = out.len() + self.records_bytes;
        let size = i32::try_from(frame_bytes - FRAME_SIZE_BYTES)
            .map_err(|_| EncodeError::TooLong(frame_bytes))?;
        out[..FRAME_SIZE_BYTES].copy_from_slice(&size.to_be_bytes());
        Ok(EncodedFetch {
            encoded: self.out.split().freeze(),
            rest: self.out,
            cuts: self.cuts,
            frame_bytes,
        })
    }

    fn put_count(&mut self, count: usize) -> Result<(), EncodeError> {
        put_length(&mut self.out, count, self.flex)
    }

    fn put_records(&mut self, records_bytes: Option<usize>) -> Result<(), EncodeError> {
        let Some(records_bytes) = records_bytes else {
            if self.flex {
                self.out.put_u8(0);
            } else {
                self.out.put_i32(-1);
            }
            return Ok(());
        };
        self.put_count(records_bytes)?;
        if records_bytes > 0 {
            self.cuts.push(Cut {
                at: self.out.len(),
                records_bytes,
            });
            self.records_bytes += records_bytes;
        }
        Ok(())
    }

    fn put_partition_tags(&mut self, data: &PartitionData) -> Result<(), EncodeError> {
        let version = self.version;
        let diverging = data.diverging_epoch != EpochEndOffset::default();
        let leader = data.current_leader != LeaderIdAndEpoch::default();
        let snapshot = data.snapshot_id != SnapshotId::default();
        if !self.flex {
            return match (diverging, leader, snapshot) {
                (false, false, false) => Ok(()),
                (true, _, _) => absent("DivergingEpoch"),
                (_, true, _) => absent("CurrentLeader"),
                (_, _, true) => absent("SnapshotId"),
            };
        }
        let out = &mut self.out;
        let tags: TagCount = begin_tags(out);
        if diverging {
            put_tag(out, &tags, 0, |out| {
                data.diverging_epoch.encode(out, version)
            })?;
        }
        if leader {
            put_tag(out, &tags, 1, |out| {
                data.current_leader.encode(out, version)
            })?;
        }
        if snapshot {
            put_tag(out, &tags, 2, |out| data.snapshot_id.encode(out, version))?;
        }
        Ok(())
    }

    fn end_topic(&mut self) {
        assert_eq!(self.partitions_left, 0, "as many partitions as announced");
        if self.in_topic && self.flex {
            put_no_tags(&mut self.out);
        }
        self.in_topic = false;
    }
}

/// A response frame, its size included, with the places where records belong.
#[derive(Debug)]
pub struct EncodedFetch {
    encoded: Bytes,
    /// The room that is left behind the frame in its buffer.
    rest: BytesMut,
    cuts: SmallVec<[Cut; 8]>,
    frame_bytes: usize,
}

/// What to send next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Encoded(Bytes),
    /// So many bytes of records of the next partition that announced more than none, in the
    /// order of the calls of [`FetchEncoder::partition`].
    Records(usize),
}

impl EncodedFetch {
    /// All bytes of the frame: the size field, what is encoded, and the records.
    pub fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// The rest of the buffer that the encoder was given, for the next frame.
    pub fn into_rest(self) -> BytesMut {
        self.rest
    }

    /// The pieces in the order of sending.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> + '_ {
        let starts = std::iter::once(0).chain(self.cuts.iter().map(|cut| cut.at));
        let ends = self.cuts.iter().map(|cut| cut.at);
        let ends = ends.chain(std::iter::once(self.encoded.len()));
        let records = self.cuts.iter().map(|cut| Some(cut.records_bytes));
        starts
            .zip(ends)
            .zip(records.chain(std::iter::once(None)))
            .flat_map(|((start, end), records)| {
                let encoded = (start < end).then(|| Piece::Encoded(self.encoded.slice(start..end)));
                encoded.into_iter().chain(records.map(Piece::Records))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_stand_between_the_pieces() {
        let head = FetchHead {
            session_id: 9,
            ..Default::default()
        };
        let mut encoder = FetchEncoder::new(BytesMut::new(), 12, 5, head, 1).unwrap();
        encoder.topic("t", Uuid::ZERO, 3).unwrap();
        let mut data = PartitionData::default();
        encoder.partition(&data, Some(300)).unwrap();
        data.partition_index = 1;
        encoder.partition(&data, None).unwrap();
        data.partition_index = 2;
        encoder.partition(&data, Some(0)).unwrap();
        let encoded = encoder.finish(&[]).unwrap();
        let pieces: Vec<Piece> = encoded.pieces().collect();
        let [
            Piece::Encoded(before),
            Piece::Records(300),
            Piece::Encoded(after),
        ] = &pieces[..]
        else {
            panic!("{pieces:?}");
        };
        assert_eq!(encoded.frame_bytes(), before.len() + 300 + after.len());
        let size = (encoded.frame_bytes() - 4) as i32;
        assert_eq!(before[..4], size.to_be_bytes());
        assert_eq!(before[before.len() - 2..], [0xad, 0x02]);
    }

    #[test]
    fn what_a_version_lacks_is_refused() {
        let head = FetchHead {
            session_id: 9,
            ..Default::default()
        };
        let old = FetchEncoder::new(BytesMut::new(), 6, 5, head, 0);
        assert_eq!(old.err(), Some(EncodeError::FieldAbsent("SessionId")));
        assert!(FetchEncoder::new(BytesMut::new(), 19, 5, head, 0).is_err());
        let encoder = FetchEncoder::new(BytesMut::new(), 12, 5, head, 0).unwrap();
        let endpoints = [NodeEndpoint::default()];
        assert_eq!(
            encoder.finish(&endpoints).err(),
            Some(EncodeError::FieldAbsent("NodeEndpoints"))
        );
    }
}
