//! What happens to a [`Log`] besides appends and reads: flushing, retention, moving the
//! start, truncation, closing.

use std::sync::Arc;

use super::error::LogError;
use super::log::{FlushScope, FlushWork, Log};
use super::recovery;
use super::segment::Segment;
use crate::base::{Millis, Offset};
use crate::io::disk::File;

/// Why segments are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletionReason {
    BelowLogStart,
    RetentionBytes,
    RetentionMs,
}

impl Log {
    /// Records that aren't known to be synced.
    pub fn unflushed(&self) -> i64 {
        self.log_end_offset - self.recovery_point
    }

    /// Whether `flush.messages` asks for a flush.
    pub fn is_flush_due(&self) -> bool {
        self.unflushed() >= self.config.flush_messages
    }

    /// Whether segments have rolled, or other files were written, since the last flush.
    pub fn has_unflushed_files(&self) -> bool {
        let unsynced = &self.unsynced;
        let rolled = self.active().base_offset().min(self.log_end_offset);
        !self.offline
            && (rolled > self.recovery_point
                || unsynced.names
                || unsynced.dir_name
                || unsynced.epochs.is_some()
                || !unsynced.others.is_empty()
                || !unsynced.flushing.is_empty())
    }

    /// Takes what has to be synced to reach `scope`; `None` when nothing is left. The
    /// caller has no other flush of the log in flight, and takes the log's directory
    /// offline if it fails: a failed sync can't be repeated. After an error nothing was taken.
    pub fn take_flush_work(&mut self, scope: FlushScope) -> Result<Option<FlushWork>, LogError> {
        self.ensure_online()?;
        self.flush_work(scope)
    }

    fn flush_work(&mut self, scope: FlushScope) -> Result<Option<FlushWork>, LogError> {
        let up_to = match scope {
            FlushScope::All => self.log_end_offset,
            FlushScope::Rolled => self.active().base_offset().min(self.log_end_offset),
        };
        // What an unfinished flush was to sync is still to be synced.
        let mut directories = Vec::new();
        if self.unsynced.names {
            directories.push(self.open_dir(false)?);
        }
        if self.unsynced.dir_name {
            directories.push(self.open_dir(true)?);
        }
        self.unsynced.names = false;
        self.unsynced.dir_name = false;
        let mut files = std::mem::take(&mut self.unsynced.flushing);
        files.extend(self.unsynced.epochs.take());
        files.append(&mut self.unsynced.others);
        files.append(&mut directories);
        self.unsynced.flushing = files.clone();
        self.unsynced.flush_limit = None;
        self.protection.on_flush_taken();
        if up_to > self.recovery_point {
            let first = self.segment_at(self.recovery_point).unwrap_or(0);
            let segments = self.segments.range(first..);
            let unflushed = segments.take_while(|segment| segment.base_offset() < up_to);
            files.extend(unflushed.map(|segment| segment.file().clone()));
        }
        if files.is_empty() {
            return Ok(None);
        }
        let up_to = up_to.max(self.recovery_point);
        Ok(Some(FlushWork { up_to, files }))
    }

    /// Takes what a flush to the log's end has to sync beside those that are in flight: the
    /// active segment, by an opened file of its own for each `lane`. `None` where that isn't
    /// all, or can't be said after a truncation: then they have to end first. It counts only
    /// when those that began before it have ended well.
    pub fn take_overlapping_work(&mut self, lane: usize) -> Option<FlushWork> {
        let unsynced = &self.unsynced;
        let is_only_records = !unsynced.names
            && !unsynced.dir_name
            && unsynced.epochs.is_none()
            && unsynced.others.is_empty()
            && unsynced.flushing.is_empty()
            && unsynced.flush_limit.is_none()
            && !self.protection.waits_for_flush()
            && self.recovery_point >= self.active().base_offset();
        if self.offline || !is_only_records {
            return None;
        }
        let disk = self.disk.clone();
        let active = self.active_mut();
        // Without a descriptor to spare the others' ends are waited for.
        let file = active.sync_handle(&*disk, lane).ok()?;
        Some(FlushWork {
            up_to: self.log_end_offset,
            files: vec![file],
        })
    }

    /// All files of the work that reaches `up_to` have been synced. Of works that overlapped,
    /// in the order in which they were taken.
    pub fn on_flushed(&mut self, up_to: Offset) {
        self.unsynced.flushing.clear();
        // If the log was truncated meanwhile, what came after wasn't part of it.
        let limit = self.unsynced.flush_limit;
        let up_to = up_to.min(limit.unwrap_or(self.log_end_offset));
        self.recovery_point = self.recovery_point.max(up_to);
        self.protection.on_flushed(up_to);
    }

    /// Moves the start of the log, to at most the high watermark: records were deleted
    /// (DeleteRecords), or the leader has moved its start. False where it is there
    /// already. Segments go with the next [`Log::delete_old_segments`].
    pub fn increase_log_start_offset(&mut self, offset: Offset) -> Result<bool, LogError> {
        self.ensure_online()?;
        assert!(
            offset <= self.log_end_offset,
            "the log starts at or before its end"
        );
        if offset <= self.log_start_offset {
            return Ok(false);
        }
        self.log_start_offset = offset;
        self.recovery_point = self.recovery_point.max(offset);
        if self.epochs.truncate_from_start(offset) {
            self.write_epochs()?;
        }
        self.producers.on_replicated_up_to(offset);
        Ok(true)
    }

    /// Applies retention: the rule of the start offset, then size, then time. Returns the
    /// number of segments that went; their files wait in
    /// [`Log::take_pending_deletions`].
    pub fn delete_old_segments(
        &mut self,
        now_ms: Millis,
        high_watermark: Offset,
    ) -> Result<usize, LogError> {
        self.delete_some_old_segments(now_ms, high_watermark, usize::MAX)
    }

    /// The same for at most so many segments: what is left goes with the next call.
    pub fn delete_some_old_segments(
        &mut self,
        now_ms: Millis,
        high_watermark: Offset,
        segments_max: usize,
    ) -> Result<usize, LogError> {
        self.ensure_online()?;
        let mut reasons = vec![DeletionReason::BelowLogStart];
        if self.config.cleanup_delete {
            reasons.extend([DeletionReason::RetentionBytes, DeletionReason::RetentionMs]);
        }
        let mut deleted = 0;
        for reason in reasons {
            let count = self.count_deletable(reason, now_ms, high_watermark)?;
            let count = count.min(segments_max - deleted);
            deleted += self.delete_first_segments(count, reason, now_ms)?;
        }
        Ok(deleted)
    }

    /// Reads what [`Log::delete_old_segments`] will ask of old segments, which then waits for
    /// no disk ([`crate::io::Rt::without_waiting`]).
    pub fn look_at_old_segments(&self, now_ms: Millis) {
        let high_watermark = self.log_end_offset;
        if self.config.cleanup_delete {
            let counted = self.count_deletable(DeletionReason::RetentionMs, now_ms, high_watermark);
            tracing::trace!(?counted, "looked at old segments");
        }
    }

    fn count_deletable(
        &self,
        reason: DeletionReason,
        now_ms: Millis,
        high_watermark: Offset,
    ) -> Result<usize, LogError> {
        let mut excess = match self.config.retention_bytes {
            ..0 => -1,
            limit => self.size_in_bytes() as i64 - limit,
        };
        let mut count = 0;
        for (index, segment) in self.segments.iter().enumerate() {
            let next = self.segments.get(index + 1);
            let end_offset = next.map_or(self.log_end_offset, Segment::base_offset);
            // The log never starts beyond the high watermark.
            if end_offset > high_watermark || (next.is_none() && segment.size() == 0) {
                break;
            }
            let is_due = match reason {
                DeletionReason::BelowLogStart => {
                    next.is_some() && end_offset <= self.log_start_offset
                }
                DeletionReason::RetentionBytes => {
                    excess -= i64::from(segment.size());
                    excess >= 0
                }
                DeletionReason::RetentionMs => {
                    let limit = self.config.retention_ms;
                    limit >= 0
                        && now_ms.saturating_sub(segment.largest_timestamp(&*self.disk)?) > limit
                }
            };
            if !is_due {
                break;
            }
            count += 1;
        }
        Ok(count)
    }

    fn delete_first_segments(
        &mut self,
        count: usize,
        reason: DeletionReason,
        now_ms: Millis,
    ) -> Result<usize, LogError> {
        if count == 0 {
            return Ok(0);
        }
        if count == self.segments.len() {
            self.roll(now_ms)?;
        }
        let log_start_offset = self.segments[count].base_offset();
        self.increase_log_start_offset(log_start_offset.min(self.log_end_offset))?;
        for _ in 0..count {
            tracing::info!(
                dir = %self.dir.display(),
                offset = self.segments[0].base_offset().0,
                ?reason,
                "deleting segment"
            );
            // Where a rename has no space, the segment stays, below the log's start.
            let renamed = self.segments[0].rename_deleted(&*self.disk, &mut self.pending_deletions);
            self.unsynced.names = true;
            self.check_or_full(renamed)?;
            let segment = self.segments.pop_front().expect("it was there");
            self.remove_snapshot(segment.base_offset())?;
        }
        self.invariants();
        Ok(count)
    }

    /// Has a segment's files deleted later. Reads in flight keep theirs open.
    fn retire(&mut self, mut segment: Segment) -> Result<(), LogError> {
        let renamed = segment.rename_deleted(&*self.disk, &mut self.pending_deletions);
        self.check(renamed)?;
        self.unsynced.names = true;
        self.remove_snapshot(segment.base_offset())
    }

    fn remove_snapshot(&mut self, offset: Offset) -> Result<(), LogError> {
        let removed = self
            .snapshots
            .remove(&*self.disk, offset)
            .map_err(LogError::io("removing a snapshot of", &self.dir));
        self.check_or_full(removed)
    }

    /// Drops the batch that contains `offset` and everything after it: the leader's log
    /// goes on differently. False where the log ends at or before it. If this lowers the
    /// recovery point below the checkpointed one, the caller writes the checkpoint before
    /// anything is appended: recovery would take the new records for synced ones.
    pub fn truncate_to(&mut self, offset: Offset, now_ms: Millis) -> Result<bool, LogError> {
        self.ensure_online()?;
        assert!(offset.0 >= 0, "logs begin at 0");
        if offset >= self.log_end_offset {
            // An epoch without records may have to go all the same.
            if self.epochs.truncate_from_end(self.log_end_offset) {
                self.write_epochs()?;
            }
            return Ok(false);
        }
        if self.segments[0].base_offset() > offset {
            self.truncate_fully_and_start_at(offset, now_ms)?;
            return Ok(true);
        }
        let truncated = self.truncate_segments(offset, now_ms);
        self.check(truncated)?;
        Ok(true)
    }

    fn truncate_segments(&mut self, offset: Offset, now_ms: Millis) -> Result<(), LogError> {
        self.tail.clear();
        self.upper_bound = None;
        let keep = self.segments.partition_point(|s| s.base_offset() <= offset);
        // From the end, so that a failure half-way leaves no gap.
        while self.segments.len() > keep {
            let segment = self.segments.pop_back().expect("more than are kept");
            self.retire(segment)?;
        }
        let disk = self.disk.clone();
        let active = self.active_mut();
        let cut = active.truncate_to(&*disk, offset, now_ms)?;
        // A hole before `offset` stays, but a batch that has it goes as a whole.
        let end = cut.map_or(offset, |cut| cut.min(offset));
        self.log_end_offset = end.max(self.log_start_offset.min(offset));
        self.log_start_offset = self.log_start_offset.min(offset);
        self.recovery_point = self.recovery_point.min(self.log_end_offset);
        self.protection.on_truncated(self.log_end_offset);
        if self.epochs.truncate_from_end(self.log_end_offset) {
            self.write_epochs()?;
        }
        recovery::rebuild_producers(self, now_ms)?;
        self.end_truncation(self.log_end_offset)?;
        self.invariants();
        Ok(())
    }

    /// Drops everything; the log goes on at `offset`.
    pub fn truncate_fully_and_start_at(
        &mut self,
        offset: Offset,
        now_ms: Millis,
    ) -> Result<(), LogError> {
        self.ensure_online()?;
        let truncated = self.restart_at(offset, now_ms);
        self.check(truncated)?;
        self.log_start_offset = offset;
        self.log_end_offset = offset;
        self.recovery_point = offset;
        self.protection.restart_at(offset);
        self.producers.clear(offset);
        self.invariants();
        Ok(())
    }

    fn restart_at(&mut self, offset: Offset, now_ms: Millis) -> Result<(), LogError> {
        self.tail.clear();
        self.upper_bound = None;
        while let Some(segment) = self.segments.pop_back() {
            self.retire(segment)?;
        }
        let jitter_ms = self.draw_jitter();
        let created = Segment::create(&*self.disk, &self.dir, offset, now_ms, jitter_ms)?;
        self.segments.push_back(created);
        self.epochs.clear();
        self.write_epochs()?;
        let removed = self.snapshots.retain(&*self.disk, |_| false);
        removed.map_err(LogError::io("removing snapshots of", &self.dir))?;
        self.snapshots.set_last(Offset(0));
        self.end_truncation(offset)
    }

    /// After a truncation: neither segments nor snapshots of what went may come back, and
    /// a flush in flight tells nothing of what will be appended.
    fn end_truncation(&mut self, end: Offset) -> Result<(), LogError> {
        let limit = self.unsynced.flush_limit.unwrap_or(end);
        self.unsynced.flush_limit = Some(limit.min(end));
        let synced = self.disk.sync_dir(&self.dir);
        synced.map_err(LogError::io("syncing directory", &self.dir))?;
        self.unsynced.names = false;
        Ok(())
    }

    /// Ends the log's use: indexes and a snapshot of the producers are written, so that
    /// after the returned work is synced the clean shutdown marker may be.
    pub fn prepare_close(&mut self) -> Result<FlushWork, LogError> {
        self.ensure_online()?;
        let disk = self.disk.clone();
        let sealed = self.active_mut().seal(&*disk);
        let sealed = self.check(sealed)?;
        self.unsynced.others.extend(sealed);
        self.take_snapshot()?;
        self.mark_prepared();
        let work = self.flush_work(FlushScope::All)?;
        self.offline = true;
        Ok(work.unwrap_or(FlushWork {
            up_to: self.log_end_offset,
            files: Vec::new(),
        }))
    }

    /// [`Log::prepare_close`] with everything synced before it returns.
    pub fn close(&mut self) -> Result<(), LogError> {
        let work = self.prepare_close()?;
        work.sync().map_err(LogError::io("syncing", &self.dir))?;
        self.on_flushed(work.up_to);
        Ok(())
    }

    fn open_dir(&self, parent: bool) -> Result<Arc<dyn File>, LogError> {
        let dir = match (parent, self.dir.parent()) {
            (true, Some(parent)) => parent,
            _ => &self.dir,
        };
        let opened = self.disk.open_dir(dir);
        opened.map_err(LogError::io("opening directory", dir))
    }
}
