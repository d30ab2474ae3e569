//! The log of one partition: segments, epochs, producers and the tail cache behind one
//! `&mut self` interface.
//!
//! Owned by the core that owns the partition; called by the shard's partition (append,
//! read), its background work (retention, flush, checkpoints) and the metadata node.
//! Everything is synchronous: appends go to the page cache with one positional write,
//! syncing is handed out as [`FlushWork`] and done on the ring. The methods stand in
//! [`super::append`], [`super::fetch`], [`super::maintenance`], [`super::protection`] and
//! [`super::recovery`] (`open`).
//!
//! Order of an append: partition.metadata and the epoch's entry are in their files, then
//! a roll if one is due, then the batch, then indexes, producers, tail cache.
//!
//! Invariants:
//! - `log_start_offset <= log_end_offset`, `recovery_point <= log_end_offset`
//! - segments are in order of base offset, never none; the last one is being appended to
//! - `producers` reflects the log up to its end
//! - after a failed write the log is offline: it refuses everything but reads. Not so where
//!   only space was missing: then the call has changed nothing, or what is owed is done by
//!   the next one (leader epochs, index entries)

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::batch_header::BatchHeader;
use super::checkpoint::Durability;
use super::config::LogConfig;
use super::error::LogError;
use super::leader_epoch::{EpochEntry, LeaderEpochCache};
use super::producer_snapshot::Snapshots;
use super::producer_state::ProducerStates;
use super::protection::Protection;
use super::segment::{RollRule, Segment};
use super::tail_cache::TailCache;
use crate::base::{LeaderEpoch, Millis, Offset, Rng, Uuid};
use crate::io::disk::{Disk, File};

/// See the module's head.
#[derive(Debug)]
pub struct Log {
    pub(super) disk: Rc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) config: LogConfig,
    pub(super) topic_id: Option<Uuid>,
    pub(super) segments: VecDeque<Segment>,
    pub(super) log_start_offset: Offset,
    pub(super) log_end_offset: Offset,
    pub(super) recovery_point: Offset,
    pub(super) protection: Protection,
    pub(super) epochs: LeaderEpochCache,
    pub(super) producers: ProducerStates,
    pub(super) snapshots: Snapshots,
    pub(super) producer_id_expiration_ms: Millis,
    pub(super) tail: TailCache,
    pub(super) unsynced: Unsynced,
    pub(super) pending_deletions: Vec<PathBuf>,
    /// Set by a failed write, and by closing.
    pub(super) offline: bool,
    pub(super) rng: Rng,
    /// The position that an upper bound of reads was last translated to.
    pub(super) upper_bound: Option<(Offset, LogPosition)>,
    /// Headers of the append that is being made; kept for its memory.
    pub(super) headers: Vec<BatchHeader>,
}

/// A batch's start in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPosition {
    /// Base offset of the batch, or the log end offset.
    pub offset: Offset,
    pub segment_base_offset: Offset,
    /// In bytes from the start of the segment.
    pub position: u32,
}

impl LogPosition {
    /// Bytes from here to `end` if both lie in one segment.
    pub fn bytes_until(&self, end: &LogPosition) -> Option<u32> {
        if self.segment_base_offset != end.segment_base_offset {
            return None;
        }
        Some(end.position.saturating_sub(self.position))
    }
}

/// What has to be synced so that the log is durable up to an offset. All of the files,
/// in any order; then [`Log::on_flushed`] may be called with `up_to`.
#[derive(Debug)]
pub struct FlushWork {
    pub up_to: Offset,
    pub files: Vec<Arc<dyn File>>,
}

impl FlushWork {
    /// Syncs here and now: start and stop.
    pub fn sync(&self) -> io::Result<()> {
        self.files.iter().try_for_each(|file| file.sync_data())
    }
}

/// What a flush is to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushScope {
    /// Segments that have been rolled.
    Rolled,
    /// The log's end.
    All,
}

/// Files written since the last flush, other than those of the log itself.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    pub epochs: Option<Arc<dyn File>>,
    /// The epochs are newer than their file: it had no space, and comes first when there is.
    pub epochs_stale: bool,
    /// Those of the flush that is in flight. The log may be closed before it ends.
    pub flushing: Vec<Arc<dyn File>>,
    /// The lowest offset that the log was truncated to since that flush began. None goes
    /// beside it from then on.
    pub flush_limit: Option<Offset>,
    /// Sealed indexes, snapshots, partition.metadata.
    pub others: Vec<Arc<dyn File>>,
    /// Files were created or renamed in the directory.
    pub names: bool,
    /// The directory itself is new.
    pub dir_name: bool,
}

impl Log {
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn topic_id(&self) -> Option<Uuid> {
        self.topic_id
    }

    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    pub fn set_config(&mut self, config: LogConfig) {
        self.config = config;
    }

    /// The first offset that may be read.
    pub fn log_start_offset(&self) -> Offset {
        self.log_start_offset
    }

    /// The offset of the next record.
    pub fn log_end_offset(&self) -> Offset {
        self.log_end_offset
    }

    pub fn is_empty(&self) -> bool {
        self.log_start_offset == self.log_end_offset
    }

    /// All batches below have been synced. Recovery begins at
    /// [`Log::recovery_checkpoint`], which says more.
    pub fn recovery_point(&self) -> Offset {
        self.recovery_point
    }

    /// The log start offset for the checkpoint, which has only those that the first
    /// segment's name doesn't tell.
    pub fn log_start_checkpoint(&self) -> Option<Offset> {
        (self.log_start_offset > self.segments[0].base_offset()).then_some(self.log_start_offset)
    }

    /// Where the next batch goes.
    pub fn end_position(&self) -> LogPosition {
        let active = self.active();
        LogPosition {
            offset: self.log_end_offset,
            segment_base_offset: active.base_offset(),
            position: active.size(),
        }
    }

    /// Size of the segments that hold nothing from an offset on.
    pub fn bytes_of_segments_below(&self, offset: Offset) -> u64 {
        let segments = self.segments.iter().zip(self.segments.iter().skip(1));
        let below = segments.take_while(|(_, next)| next.base_offset() <= offset);
        below.map(|(segment, _)| u64::from(segment.size())).sum()
    }

    pub fn size_in_bytes(&self) -> u64 {
        let sizes = self.segments.iter().map(|s| u64::from(s.size()));
        sizes.sum()
    }

    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// An earlier error took the log offline, or it was closed.
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// A sync of its files failed: what it covered may be lost, so nothing more is taken.
    pub fn take_offline(&mut self) {
        self.offline = true;
    }

    pub fn producers(&self) -> &ProducerStates {
        &self.producers
    }

    /// Where read-committed consumers stop: the first transaction that is open or whose
    /// marker the high watermark hasn't passed.
    pub fn first_unstable_offset(&self) -> Option<Offset> {
        let first = self.producers.first_unstable_offset()?;
        Some(first.max(self.log_start_offset))
    }

    /// The high watermark has moved: transactions that end below it are decided.
    pub fn on_high_watermark(&mut self, high_watermark: Offset) {
        self.producers.on_replicated_up_to(high_watermark);
    }

    /// To be called every `producer.id.expiration.check.interval.ms`.
    pub fn remove_expired_producers(&mut self, now_ms: Millis) {
        self.producers
            .remove_expired(now_ms, self.producer_id_expiration_ms);
    }

    pub fn epochs(&self) -> &LeaderEpochCache {
        &self.epochs
    }

    pub fn latest_epoch(&self) -> Option<EpochEntry> {
        self.epochs.latest()
    }

    /// The largest epoch up to `epoch` and its end; see
    /// [`LeaderEpochCache::end_offset_for`].
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.epochs.end_offset_for(epoch, self.log_end_offset)
    }

    /// The partition's leader begins a new epoch at the log's end.
    pub fn start_epoch(&mut self, epoch: LeaderEpoch) -> Result<(), LogError> {
        self.ensure_online()?;
        if self.epochs.assign(epoch, self.log_end_offset) || self.unsynced.epochs_stale {
            self.write_epochs()?;
        }
        Ok(())
    }

    /// Files that were renamed to `.deleted` since the last call: they are to be unlinked
    /// ([`super::manager::unlink`]) after `file.delete.delay.ms`.
    pub fn take_pending_deletions(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.pending_deletions)
    }

    pub(super) fn active(&self) -> &Segment {
        self.segments.back().expect("a log has segments")
    }

    pub(super) fn active_mut(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("a log has segments")
    }

    /// Index of the segment that `offset` lies in; `None` before the first.
    pub(super) fn segment_at(&self, offset: Offset) -> Option<usize> {
        let after = self.segments.partition_point(|s| s.base_offset() <= offset);
        after.checked_sub(1)
    }

    pub(super) fn ensure_online(&self) -> Result<(), LogError> {
        if self.offline {
            return Err(LogError::Offline {
                path: self.dir.clone(),
            });
        }
        Ok(())
    }

    /// Takes the log offline if a change of its files has failed.
    pub(super) fn check<T>(&mut self, result: Result<T, LogError>) -> Result<T, LogError> {
        self.offline |= result.is_err();
        result
    }

    /// The same for changes that are whole or haven't happened: a lack of space leaves the
    /// log as it was.
    pub(super) fn check_or_full<T>(&mut self, result: Result<T, LogError>) -> Result<T, LogError> {
        self.offline |= result.as_ref().is_err_and(|error| !error.is_out_of_space());
        result
    }

    pub(super) fn roll_rule(&self) -> RollRule {
        RollRule {
            segment_bytes: self.config.segment_bytes,
            segment_ms: self.config.segment_ms,
            segment_index_bytes: self.config.segment_index_bytes,
        }
    }

    pub(super) fn draw_jitter(&mut self) -> Millis {
        draw_jitter(&self.config, &mut self.rng)
    }

    pub(super) fn write_epochs(&mut self) -> Result<(), LogError> {
        self.unsynced.epochs_stale = true;
        let written = self
            .epochs
            .write(&*self.disk, &self.dir, Durability::WithNextFlush)
            .map_err(LogError::io("writing leader epochs of", &self.dir));
        self.unsynced.epochs = Some(self.check_or_full(written)?);
        self.unsynced.epochs_stale = false;
        self.unsynced.names = true;
        Ok(())
    }

    pub(super) fn take_snapshot(&mut self) -> Result<(), LogError> {
        let taken = self
            .snapshots
            .take(&*self.disk, &self.producers, Durability::WithNextFlush)
            .map_err(LogError::io("writing producer snapshot of", &self.dir));
        if let Some(file) = self.check_or_full(taken)? {
            self.unsynced.others.push(file);
            self.unsynced.names = true;
        }
        Ok(())
    }

    /// Checks what must hold after every change.
    pub(super) fn invariants(&self) {
        assert!(self.log_start_offset <= self.log_end_offset);
        assert!(self.recovery_point <= self.log_end_offset);
        assert!(self.recovery_checkpoint() <= self.log_end_offset);
        assert!(self.active().base_offset() <= self.log_end_offset);
        assert_eq!(self.producers.end_offset(), self.log_end_offset);
    }
}

pub(super) fn draw_jitter(config: &LogConfig, rng: &mut Rng) -> Millis {
    let bound = config.segment_jitter_ms.min(config.segment_ms).max(0);
    rng.below(bound as u64) as Millis
}
