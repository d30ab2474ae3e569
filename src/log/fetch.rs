//! Reading a [`Log`]: by offset for fetches, by timestamp for ListOffsets, aborted
//! transactions for read-committed consumers.

use std::io;

use bytes::BytesMut;
use smallvec::SmallVec;

use super::damage::{Before, Damage};
use super::error::{LogError, ReadError};
use super::leader_epoch::LeaderEpochCache;
use super::log::{Log, LogPosition};
use super::scan::Located;
use super::segment::Segment;
use super::time_index::TimestampOffset;
use super::txn_index::AbortedTxn;
use crate::base::{LeaderEpoch, Millis, Offset};
use crate::io::Chunk;
use crate::record::{self, BatchView};

/// What a fetch of one partition gets.
#[derive(Debug)]
pub struct LogRead {
    /// In order, back to back; all of one kind.
    pub chunks: SmallVec<[Chunk; 2]>,
    pub bytes: usize,
    /// Size of the first batch in the chunks; 0 without any.
    pub first_batch_bytes: u32,
    /// The batch that the fetch offset lies in: where the chunks begin.
    pub start: LogPosition,
    /// Whether that is on the segment being appended to.
    pub on_active_segment: bool,
    /// The first batch is larger than the limit, and `min_one` was not given.
    pub first_batch_too_large: bool,
}

/// A record found by its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundTimestamp {
    pub timestamp: Millis,
    pub offset: Offset,
    /// -1 where the batch has none.
    pub leader_epoch: LeaderEpoch,
}

impl Log {
    /// Reads at most `max_bytes` from the batch that contains `offset` on, up to the batch
    /// that contains `upper` (excluded), within one segment; the last batch may be cut
    /// off. With `min_one` the first batch comes whole even if it is larger.
    pub fn read(
        &mut self,
        offset: Offset,
        max_bytes: usize,
        upper: Offset,
        min_one: bool,
    ) -> Result<LogRead, ReadError> {
        if offset < self.log_start_offset || offset > self.log_end_offset {
            return Err(ReadError::OffsetOutOfRange {
                offset,
                log_start_offset: self.log_start_offset,
                log_end_offset: self.log_end_offset,
            });
        }
        let upper = upper.min(self.log_end_offset);
        if offset >= upper {
            return Ok(self.empty_read(self.position_of(offset)?));
        }
        if let Some(found) = self.tail.find(offset) {
            let start = LogPosition {
                offset: found.base_offset,
                segment_base_offset: found.segment_base_offset,
                position: found.position,
            };
            let limit = self.position_limit(&start, upper)?;
            return Ok(self.limited_read(
                start,
                found.size,
                limit,
                max_bytes,
                min_one,
                |log, len| log.tail.chunks(&found, len),
            ));
        }
        let wanted = u32::try_from(max_bytes).unwrap_or(u32::MAX);
        let (index, located, start, limit) = loop {
            let Some((index, located, before)) = self.locate(offset)? else {
                return Ok(self.empty_read(self.end_position()));
            };
            let start = position_in(&self.segments[index], &located);
            let limit = self.position_limit(&start, upper)?;
            let segment = &self.segments[index];
            match segment.check_from(&located, before, &self.epochs, wanted, limit) {
                Ok(limit) => break (index, located, start, limit),
                // Damage that was found just now may not be where the offset is.
                Err(LogError::Corrupt { .. })
                    if segment.is_damaged(located.position)
                        && segment.damage_at(offset).is_none() => {}
                Err(error) => return Err(self.bound_damage(index, offset, error).into()),
            }
        };
        let size = located.header.size;
        let file = self.segments[index].file().clone();
        Ok(
            self.limited_read(start, size, limit, max_bytes, min_one, |_, len| {
                let chunk = Chunk::File {
                    file,
                    position: located.position,
                    len: len as u32,
                };
                SmallVec::from_iter([chunk])
            }),
        )
    }

    /// As [`Log::read`] with `min_one`, in memory.
    pub fn read_bytes(
        &mut self,
        offset: Offset,
        max_bytes: usize,
        upper: Offset,
    ) -> Result<BytesMut, ReadError> {
        let found = self.read(offset, max_bytes, upper, true)?;
        let mut bytes = BytesMut::with_capacity(found.bytes);
        for chunk in &found.chunks {
            let chunk = chunk
                .to_bytes()
                .map_err(LogError::io("reading batches of", self.dir()))?;
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Where the batch that contains `offset` starts; the log's end if there is none.
    pub fn position_of(&self, offset: Offset) -> Result<LogPosition, LogError> {
        if offset >= self.log_end_offset {
            return Ok(self.end_position());
        }
        if let Some(found) = self.tail.find(offset) {
            return Ok(LogPosition {
                offset: found.base_offset,
                segment_base_offset: found.segment_base_offset,
                position: found.position,
            });
        }
        let Some(first) = self.segment_at(offset) else {
            return Ok(self.end_position());
        };
        for segment in self.segments.range(first..) {
            // A bound may lie in what is damaged.
            if let Some((located, _)) = segment.locate_whole(&*self.disk, offset)? {
                return Ok(position_in(segment, &located));
            }
        }
        Ok(self.end_position())
    }

    /// The first record at or after the log start offset with this timestamp or a later
    /// one. The caller compares its offset with what the client may see.
    pub fn offset_for_timestamp(
        &self,
        timestamp: Millis,
    ) -> Result<Option<FoundTimestamp>, LogError> {
        for segment in &self.segments {
            if segment.largest_timestamp(&*self.disk)? >= timestamp {
                return self.find_timestamp(segment, timestamp);
            }
        }
        Ok(None)
    }

    /// The first record with the largest timestamp of the log (KIP-734). `None` where no
    /// record has a timestamp.
    pub fn max_timestamp(&self) -> Result<Option<FoundTimestamp>, LogError> {
        // Of equal ones the first segment.
        let mut largest: Option<(&Segment, TimestampOffset)> = None;
        for segment in self.segments.iter().rev() {
            let max = segment.max_timestamp(&*self.disk)?;
            if largest.is_none_or(|(_, other)| max.timestamp >= other.timestamp) {
                largest = Some((segment, max));
            }
        }
        let Some((segment, max)) = largest else {
            return Ok(None);
        };
        let reading = || LogError::io("reading timestamps of", segment.path());
        let scan = segment.scan_for(&*self.disk, max.offset);
        let mut scan = scan.map_err(reading())?;
        while segment.next_batch(&mut scan).map_err(reading())?.is_some() {
            if let Some((located, before)) = scan.last()
                && located.header.max_timestamp == max.timestamp
            {
                return find_in_batch(segment, &located, before, &self.epochs, |batch| {
                    record::offset_of_max_timestamp(batch)
                });
            }
        }
        Ok(None)
    }

    /// Transactions that were aborted and overlap what was read from `offset` on.
    pub fn aborted_transactions(
        &self,
        offset: Offset,
        read: &LogRead,
    ) -> Result<Vec<AbortedTxn>, LogError> {
        let upper = self.read_upper_bound(read)?;
        let mut found = Vec::new();
        let first = self.segment_at(read.start.segment_base_offset);
        for segment in self.segments.iter().skip(first.unwrap_or(0)) {
            let complete = segment
                .txn_index
                .collect(&*self.disk, offset, upper, &mut found)
                .map_err(LogError::io("reading transactions of", segment.path()))?;
            if complete {
                break;
            }
        }
        Ok(found)
    }

    /// An offset at or beyond the end of what was read, as the index can tell it.
    pub fn read_upper_bound(&self, read: &LogRead) -> Result<Offset, LogError> {
        let Some(index) = self.segment_at(read.start.segment_base_offset) else {
            return Ok(self.log_end_offset);
        };
        let segment = &self.segments[index];
        let end = u64::from(read.start.position) + read.bytes as u64;
        let indexed = segment
            .offset_index
            .lookup_position(&*self.disk, end)
            .map_err(LogError::io("searching", segment.path()))?;
        Ok(match (indexed, self.segments.get(index + 1)) {
            (Some(entry), _) => entry.offset,
            (None, Some(next)) => next.base_offset(),
            (None, None) => self.log_end_offset,
        })
    }

    /// An error that tells of damage up to a segment's end, with the offset where that is.
    fn bound_damage(&self, index: usize, offset: Offset, error: LogError) -> LogError {
        let segment = &self.segments[index];
        let (LogError::Corrupt { .. }, Some(damage)) = (&error, segment.damaged_end()) else {
            return error;
        };
        let next = self.segments.get(index + 1).map(Segment::base_offset);
        let end = next.unwrap_or(self.log_end_offset);
        if damage.next_offset <= end {
            return error;
        }
        segment.note_damage(Damage {
            next_offset: end.max(damage.first_offset),
            ..damage
        });
        segment.corrupt(offset)
    }

    /// The segment and the batch that contains `offset`, or the first batch after it.
    fn locate(&self, offset: Offset) -> Result<Option<(usize, Located, Before)>, LogError> {
        let Some(first) = self.segment_at(offset) else {
            return Ok(None);
        };
        for index in first..self.segments.len() {
            let found = self.segments[index].locate(&*self.disk, offset);
            let found = found.map_err(|error| self.bound_damage(index, offset, error))?;
            if let Some((located, before)) = found {
                return Ok(Some((index, located, before)));
            }
        }
        Ok(None)
    }

    /// Where a read from `start` up to the batch with `upper` must end.
    fn position_limit(&mut self, start: &LogPosition, upper: Offset) -> Result<u32, LogError> {
        let end = if upper >= self.log_end_offset {
            self.end_position()
        } else if let Some((_, end)) = self.upper_bound.filter(|(cached, _)| *cached == upper) {
            end
        } else {
            let end = self.position_of(upper)?;
            self.upper_bound = Some((upper, end));
            end
        };
        if end.segment_base_offset == start.segment_base_offset {
            return Ok(end.position);
        }
        let index = self.segment_at(start.segment_base_offset);
        Ok(index.map_or(0, |index| self.segments[index].size()))
    }

    /// Applies the size rules.
    fn limited_read(
        &self,
        start: LogPosition,
        first_size: u32,
        limit: u32,
        max_bytes: usize,
        min_one: bool,
        chunks: impl FnOnce(&Log, usize) -> SmallVec<[Chunk; 2]>,
    ) -> LogRead {
        let available = limit.saturating_sub(start.position) as usize;
        let first_batch_too_large = !min_one && max_bytes < first_size as usize;
        if available == 0 || first_batch_too_large {
            return LogRead {
                first_batch_too_large,
                ..self.empty_read(start)
            };
        }
        let bytes = available.min(max_bytes.max(first_size as usize));
        LogRead {
            chunks: chunks(self, bytes),
            bytes,
            first_batch_bytes: first_size,
            ..self.empty_read(start)
        }
    }

    fn empty_read(&self, start: LogPosition) -> LogRead {
        LogRead {
            chunks: SmallVec::new(),
            bytes: 0,
            first_batch_bytes: 0,
            start,
            on_active_segment: start.segment_base_offset == self.active().base_offset(),
            first_batch_too_large: false,
        }
    }

    fn find_timestamp(
        &self,
        segment: &Segment,
        timestamp: Millis,
    ) -> Result<Option<FoundTimestamp>, LogError> {
        let start = self.log_start_offset;
        let reading = || LogError::io("reading timestamps of", segment.path());
        let mut scan = segment.scan_for_timestamp(&*self.disk, timestamp, start)?;
        while segment.next_batch(&mut scan).map_err(reading())?.is_some() {
            let Some((located, before)) = scan.last() else {
                break;
            };
            let header = &located.header;
            if header.max_timestamp < timestamp || header.last_offset() < start {
                continue;
            }
            let found = find_in_batch(segment, &located, before, &self.epochs, |batch| {
                record::first_at_or_after(batch, timestamp, start)
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

fn position_in(segment: &Segment, located: &Located) -> LogPosition {
    LogPosition {
        offset: located.header.base_offset,
        segment_base_offset: segment.base_offset(),
        // Within a segment, so less than 2^31.
        position: located.position as u32,
    }
}

fn find_in_batch(
    segment: &Segment,
    located: &Located,
    before: Before,
    epochs: &LeaderEpochCache,
    search: impl FnOnce(
        &BatchView<'_>,
    ) -> Result<Option<record::search::TimestampOffset>, record::RecordsError>,
) -> Result<Option<FoundTimestamp>, LogError> {
    let corrupt = |reason: String| {
        let error = io::Error::new(io::ErrorKind::InvalidData, reason);
        LogError::io("reading records of", segment.path())(error)
    };
    segment.check_from(located, before, epochs, located.header.size, segment.size())?;
    let bytes = segment.read_batch(located)?;
    let batch = BatchView::parse(&bytes).map_err(|error| corrupt(error.to_string()))?;
    let found = search(&batch).map_err(|error| corrupt(error.to_string()))?;
    Ok(found.map(|found| FoundTimestamp {
        timestamp: found.timestamp,
        offset: found.offset,
        leader_epoch: located.header.leader_epoch,
    }))
}
