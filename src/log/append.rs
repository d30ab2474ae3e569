//! Appending to a [`Log`], as leader and as follower, and rolling its segments.

use bytes::{Bytes, BytesMut};

use super::batch_header::{BatchHeader, HeaderError};
use super::error::{AppendError, LogError};
use super::log::Log;
use super::offset_index::relative_offset;
use super::producer_state::{AppendOrigin, BatchMetadata, Verdict};
use super::segment::{SEGMENT_BYTES_MAX, Segment};
use super::tail_cache::Extent;
use crate::base::{LeaderEpoch, Millis, Offset};
use crate::record::{self, BatchView, EndTxnMarker, Validated};

/// What became of a leader's append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendInfo {
    pub first_offset: Offset,
    pub last_offset: Offset,
    pub max_timestamp: Millis,
    /// `LogAppendTimeMs` of the response: -1 for create timestamps; for a duplicate, the
    /// timestamp of the original.
    pub log_append_time: Millis,
    pub log_start_offset: Offset,
    /// The batch was in the log already; nothing was written.
    pub duplicate: bool,
    /// A segment was rolled: there is [`super::FlushWork`].
    pub rolled: bool,
    /// Bytes written.
    pub bytes: u32,
}

/// What became of a follower's append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerAppendInfo {
    pub log_end_offset: Offset,
    /// Largest timestamp of the batches; -1 without any.
    pub max_timestamp: Millis,
    pub bytes: u32,
    pub rolled: bool,
    /// Batches of an epoch above the replica's own were left out, with all after them.
    pub skipped: bool,
}

/// Batches that go to one segment.
#[derive(Clone, Copy)]
struct Incoming {
    base_offset: Offset,
    last_offset: Offset,
    max_timestamp: Millis,
    bytes: u32,
}

impl Incoming {
    /// `None` without batches.
    fn new(headers: &[BatchHeader]) -> Option<Incoming> {
        let (first, last) = (headers.first()?, headers.last()?);
        let sizes = headers.iter().map(|header| header.size);
        Some(Incoming {
            base_offset: first.base_offset,
            last_offset: last.last_offset(),
            max_timestamp: headers.iter().map(|header| header.max_timestamp).max()?,
            bytes: sizes.fold(0, u32::saturating_add),
        })
    }

    fn fits(&self, segment_bytes: u32) -> bool {
        self.bytes <= segment_bytes && relative_offset(self.last_offset, self.base_offset).is_some()
    }
}

impl Log {
    /// Appends a client's batch: offsets and epoch are stamped in place.
    pub fn append_as_leader(
        &mut self,
        batch: Validated,
        leader_epoch: LeaderEpoch,
        now_ms: Millis,
    ) -> Result<AppendInfo, AppendError> {
        let Validated {
            bytes,
            buffer_bytes,
            ..
        } = batch;
        let origin = AppendOrigin::Client;
        self.append_batch(bytes, buffer_bytes, leader_epoch, origin, now_ms)
    }

    /// Appends a batch that this broker has made itself: a coordinator's records, a
    /// transaction marker, the metadata log.
    pub fn append_own(
        &mut self,
        batch: Bytes,
        leader_epoch: LeaderEpoch,
        origin: AppendOrigin,
        now_ms: Millis,
    ) -> Result<AppendInfo, AppendError> {
        let batch = batch.try_into_mut();
        let batch = batch.unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        let buffer_bytes = batch.capacity();
        self.append_batch(batch, buffer_bytes, leader_epoch, origin, now_ms)
    }

    fn append_batch(
        &mut self,
        mut bytes: BytesMut,
        buffer_bytes: usize,
        leader_epoch: LeaderEpoch,
        origin: AppendOrigin,
        now_ms: Millis,
    ) -> Result<AppendInfo, AppendError> {
        self.ensure_online()?;
        let first_offset = self.log_end_offset;
        record::set_base_offset(&mut bytes, first_offset);
        record::set_leader_epoch(&mut bytes, leader_epoch);
        let header = BatchHeader::parse(&bytes).map_err(AppendError::Malformed)?;
        assert_eq!(header.size as usize, bytes.len(), "one whole batch");
        if header.size > self.config.segment_bytes {
            return Err(AppendError::BatchTooLarge {
                bytes: bytes.len(),
                segment_bytes: self.config.segment_bytes,
            });
        }
        let epoch_is_new = leader_epoch.0 >= 0 && self.epochs.assign(leader_epoch, first_offset);
        if epoch_is_new || self.unsynced.epochs_stale {
            self.write_epochs()?;
        }
        let headers = [header];
        let incoming = Incoming::new(&headers).expect("there is one batch");
        let rolled = self.maybe_roll(&incoming, now_ms)?;
        // As late as in Kafka: a batch that is refused may have rolled the log.
        let marker = header.is_control().then(|| parse_marker(&bytes)).flatten();
        if let Verdict::Duplicate(original) = self.producers.check(&header, marker, origin)? {
            return Ok(self.duplicate_info(&original, rolled));
        }
        self.write(&bytes.freeze(), buffer_bytes, &headers)?;
        Ok(AppendInfo {
            first_offset,
            last_offset: header.last_offset(),
            max_timestamp: header.max_timestamp,
            log_append_time: match header.is_log_append_time() {
                true => header.max_timestamp,
                false => -1,
            },
            log_start_offset: self.log_start_offset,
            duplicate: false,
            rolled,
            bytes: header.size,
        })
    }

    /// Appends what a leader has sent: whole batches, whose offsets and epochs stand. A
    /// torn batch at the end is left out, as are batches of a later epoch than the
    /// replica's own.
    pub fn append_as_follower(
        &mut self,
        records: Bytes,
        leader_epoch: LeaderEpoch,
        now_ms: Millis,
    ) -> Result<FollowerAppendInfo, AppendError> {
        self.ensure_online()?;
        let mut headers = std::mem::take(&mut self.headers);
        headers.clear();
        let result = self
            .check_batches(&records, leader_epoch, &mut headers)
            .and_then(|skipped| {
                let info = self.append_checked(&records, &headers, now_ms)?;
                Ok(FollowerAppendInfo { skipped, ..info })
            });
        self.headers = headers;
        result
    }

    /// Collects the headers of the batches to append. Nothing is changed before all have
    /// been checked.
    fn check_batches(
        &self,
        records: &[u8],
        leader_epoch: LeaderEpoch,
        headers: &mut Vec<BatchHeader>,
    ) -> Result<bool, AppendError> {
        let mut at = 0;
        let mut next_offset = None;
        loop {
            let header = match BatchHeader::parse(&records[at..]) {
                Ok(header) => header,
                Err(HeaderError::Truncated) => return Ok(false),
                Err(error) => return Err(AppendError::Malformed(error)),
            };
            let Some(batch) = records.get(at..at + header.size as usize) else {
                return Ok(false);
            };
            if header.leader_epoch > leader_epoch {
                return Ok(true);
            }
            if next_offset.is_some_and(|next| header.base_offset < next) {
                return Err(AppendError::UnexpectedOffset {
                    base_offset: header.base_offset,
                    log_end_offset: self.log_end_offset,
                });
            }
            let whole = BatchView::parse(batch).is_ok_and(|view| view.verify_crc());
            if !whole || u64::from(header.size) > SEGMENT_BYTES_MAX {
                return Err(AppendError::Corrupt {
                    base_offset: header.base_offset,
                });
            }
            next_offset = Some(header.next_offset());
            headers.push(header);
            at += header.size as usize;
        }
    }

    fn append_checked(
        &mut self,
        records: &Bytes,
        headers: &[BatchHeader],
        now_ms: Millis,
    ) -> Result<FollowerAppendInfo, AppendError> {
        let log_start_offset = self.log_start_offset;
        if let (Some(first), Some(last)) = (headers.first(), headers.last()) {
            self.expect_follower_offset(first, last.last_offset(), now_ms)?;
        }
        // As in Kafka all of it goes to one segment, with one write, if that can be.
        let whole = Incoming::new(headers);
        let batches_at_once = match whole.is_some_and(|all| all.fits(self.config.segment_bytes)) {
            true => headers.len(),
            false => 1,
        };
        let (mut rolled, mut at) = (false, 0);
        for headers in headers.chunks(batches_at_once.max(1)) {
            let Some(incoming) = Incoming::new(headers) else {
                continue;
            };
            rolled |= self.maybe_roll(&incoming, now_ms)?;
            let end = at + incoming.bytes as usize;
            self.write_group(records.slice(at..end), records.len(), headers)?;
            at = end;
        }
        // If the log was moved back, its first records have been deleted all the same.
        self.log_start_offset = log_start_offset.max(self.log_start_offset);
        self.invariants();
        let timestamps = headers.iter().map(|header| header.max_timestamp);
        Ok(FollowerAppendInfo {
            log_end_offset: self.log_end_offset,
            max_timestamp: timestamps.max().unwrap_or(-1),
            bytes: at as u32,
            rolled,
            skipped: false,
        })
    }

    /// A follower's first batch must not begin below the log's end. An empty log may be
    /// moved back to it: its start needn't be the start of a batch, if records were
    /// deleted by offset.
    fn expect_follower_offset(
        &mut self,
        first: &BatchHeader,
        last_offset: Offset,
        now_ms: Millis,
    ) -> Result<(), AppendError> {
        if first.base_offset >= self.log_end_offset {
            return Ok(());
        }
        if self.is_empty() && last_offset >= self.log_start_offset {
            self.truncate_fully_and_start_at(first.base_offset, now_ms)?;
            return Ok(());
        }
        Err(AppendError::UnexpectedOffset {
            base_offset: first.base_offset,
            log_end_offset: self.log_end_offset,
        })
    }

    fn write_group(
        &mut self,
        bytes: Bytes,
        buffer_bytes: usize,
        headers: &[BatchHeader],
    ) -> Result<(), LogError> {
        if headers.is_empty() {
            return Ok(());
        }
        let mut epochs_changed = self.unsynced.epochs_stale;
        for header in headers {
            if header.leader_epoch.0 >= 0 {
                epochs_changed |= self.epochs.assign(header.leader_epoch, header.base_offset);
            }
        }
        if epochs_changed {
            self.write_epochs()?;
        }
        self.write(&bytes, buffer_bytes, headers)
    }

    /// Writes batches, which lie in a buffer of that size, to the active segment and takes
    /// them in everywhere.
    fn write(
        &mut self,
        bytes: &Bytes,
        buffer_bytes: usize,
        headers: &[BatchHeader],
    ) -> Result<(), LogError> {
        let disk = self.disk.clone();
        let interval = self.config.index_interval_bytes;
        let segment_base_offset = self.active().base_offset();
        let position = self.active().size();
        let appended = self.active_mut().append(&*disk, bytes, headers, interval);
        self.check_or_full(appended)?;
        let (first, last) = (headers[0], headers[headers.len() - 1]);
        assert!(first.base_offset >= self.log_end_offset, "offsets grow");
        self.log_end_offset = last.next_offset();
        self.protection.on_appended(bytes.len() as u64);
        self.take_in(bytes, headers)?;
        let extent = Extent {
            base_offset: first.base_offset,
            next_offset: last.next_offset(),
            segment_base_offset,
            position,
        };
        self.tail.push(extent, bytes.clone(), buffer_bytes);
        self.invariants();
        Ok(())
    }

    /// Updates the producers, and the transaction index for aborted transactions.
    fn take_in(&mut self, bytes: &[u8], headers: &[BatchHeader]) -> Result<(), LogError> {
        let disk = self.disk.clone();
        let mut at = 0;
        for header in headers {
            let end = at + header.size as usize;
            let marker = match header.is_control() {
                true => parse_marker(&bytes[at..end]),
                false => None,
            };
            if let Some(aborted) = self.producers.update(header, marker) {
                let active = self.active_mut();
                let appended = active
                    .txn_index
                    .append(&*disk, &aborted)
                    .map_err(LogError::io("indexing transactions of", active.path()));
                self.check(appended)?;
            }
            at = end;
        }
        Ok(())
    }

    fn duplicate_info(&self, original: &BatchMetadata, rolled: bool) -> AppendInfo {
        AppendInfo {
            first_offset: original.first_offset(),
            last_offset: original.last_offset,
            max_timestamp: original.timestamp,
            log_append_time: original.timestamp,
            log_start_offset: self.log_start_offset,
            duplicate: true,
            rolled,
            bytes: 0,
        }
    }

    /// Rolls if the batches must go to a new segment.
    fn maybe_roll(&mut self, incoming: &Incoming, now_ms: Millis) -> Result<bool, LogError> {
        let rule = self.roll_rule();
        let active = self.active_mut();
        let fits = relative_offset(incoming.last_offset, active.base_offset()).is_some();
        if active.size() == 0 && fits {
            // A batch larger than a segment gets one for itself.
            return Ok(false);
        }
        let is_due = active.should_roll(
            &rule,
            incoming.bytes,
            incoming.max_timestamp,
            incoming.last_offset,
            now_ms,
        )?;
        if is_due {
            self.roll_at(incoming.base_offset, now_ms)?;
        }
        Ok(is_due)
    }

    /// Begins a new segment at the log's end. False where the active one is empty and
    /// begins there already.
    pub fn roll(&mut self, now_ms: Millis) -> Result<bool, LogError> {
        self.ensure_online()?;
        if self.active().size() == 0 && self.active().base_offset() == self.log_end_offset {
            return Ok(false);
        }
        self.roll_at(self.log_end_offset, now_ms)?;
        Ok(true)
    }

    /// Begins a new segment for a batch at `base_offset`.
    fn roll_at(&mut self, base_offset: Offset, now_ms: Millis) -> Result<(), LogError> {
        let base_offset = base_offset.max(self.log_end_offset);
        assert!(
            base_offset > self.active().base_offset(),
            "segments begin at growing offsets"
        );
        let disk = self.disk.clone();
        // Until the new segment is there, the active one may have to go on.
        let written = self.active_mut().write_out_indexes(&*disk);
        self.check_or_full(written)?;
        // The snapshot is named after the segment, so that recovery can begin with it,
        // though the log may end lower.
        self.producers.set_end_offset(base_offset);
        let taken = self.take_snapshot();
        self.producers.set_end_offset(self.log_end_offset);
        taken?;
        let jitter_ms = self.draw_jitter();
        let created = Segment::create(&*disk, &self.dir, base_offset, now_ms, jitter_ms);
        let created = self.check_or_full(created)?;
        let sealed = self.active_mut().seal(&*disk);
        self.segments.push_back(created);
        self.unsynced.names = true;
        let sealed = self.check(sealed)?;
        self.unsynced.others.extend(sealed);
        Ok(())
    }
}

/// The transaction marker in a control batch; `None` for other control records, and where
/// compaction has left none.
pub(super) fn parse_marker(batch: &[u8]) -> Option<EndTxnMarker> {
    let batch = BatchView::parse(batch).ok()?;
    let mut records = record::records(&batch).ok()?;
    let record = records.next()?.ok()?;
    EndTxnMarker::parse(record.key?, record.value?)
}
