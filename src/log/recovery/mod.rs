//! Opening a [`Log`]: after a clean stop its files are taken as they are, after any other
//! everything from the recovery point on is read and checked.
//!
//! Steps, as in Kafka's `LogLoader`:
//! 1. `.deleted` and `.cleaned` files go. `.swap` files are the complete output of a
//!    compaction: they take the place of the segments that they cover.
//! 2. Indexes without a `.log` go. A segment whose indexes are missing or can't be right
//!    is recovered: read from its start, batches checked, indexes built anew.
//! 3. Without the clean marker, so are the segment that holds the recovery point (from
//!    there on, if its indexes and a snapshot of the producers tell of what lies before:
//!    [`super::protection`] says why they can be believed) and all later ones. At the first
//!    batch that isn't whole and valid the segment is cut, and
//!    later segments are deleted.
//! 4. Epochs are cut to the log's bounds; epochs found while recovering are added. Should
//!    the epochs' file be damaged, or missing after an unclean stop, all segments are
//!    recovered.
//! 5. Producers come from the latest snapshot, brought up to the end by reading on.
//!
//! A clean marker without any snapshot means that there were no producers, as in Kafka.

mod batches;
mod leftovers;
mod producers;

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use self::batches::{Invalid, Reading, begins_validly, is_below_recovery_point, recover_batches};
use self::producers::Rebuild;
use super::checkpoint::{CheckpointError, Durability};
use super::config::{LogConfig, OpenParams};
use super::damage::{Damage, Fault};
use super::error::LogError;
use super::leader_epoch::LeaderEpochCache;
use super::log::{Log, Unsynced, draw_jitter};
use super::names;
use super::partition_metadata;
use super::producer_snapshot::{SnapshotError, Snapshots};
use super::producer_state::ProducerStates;
use super::protection::Protection;
use super::segment::Segment;
use super::tail_cache::TailPool;
use super::verify::damage;
use crate::base::{Millis, Offset, Rng, Uuid};
use crate::io::Budget;
use crate::io::disk::{Disk, OpenMode};

/// What opening a log came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Segments that were read to their end, from the start or the recovery point.
    pub recovered_segments: usize,
    /// Bytes of them that were read and checked.
    pub read_bytes: u64,
    /// Ranges that are no whole and valid batches and were kept: reads of them are refused.
    pub damaged: usize,
    /// Bytes cut off because they were no whole and valid batch.
    pub truncated_bytes: u64,
    /// Segments deleted because one before them had to be cut, or the log starts beyond.
    pub deleted_segments: usize,
    /// Places between recovered segments where offsets are missing. Compaction and
    /// followers of compacted logs leave such places; so does a power cut that took the
    /// unsynced end of a segment but not what followed it.
    pub gaps: usize,
}

impl Log {
    /// Opens the log in `dir`, or begins one there.
    pub fn open(
        disk: Rc<dyn Disk>,
        dir: &Path,
        config: LogConfig,
        params: &OpenParams,
        tail_pool: &TailPool,
        now_ms: Millis,
    ) -> Result<(Log, RecoveryReport), LogError> {
        at_once(Log::load(
            disk,
            dir,
            config,
            params,
            tail_pool,
            now_ms,
            Pace::Whole,
        ))
    }

    /// As [`Log::open`], letting others in whenever the budget is spent. If the future is
    /// dropped, the log is to be opened as after an unclean stop.
    pub async fn open_within(
        within: Within<'_>,
        disk: Rc<dyn Disk>,
        dir: &Path,
        config: LogConfig,
        params: &OpenParams,
        tail_pool: &TailPool,
        now_ms: Millis,
    ) -> Result<(Log, RecoveryReport), LogError> {
        let pace = Pace::Within(within);
        Log::load(disk, dir, config, params, tail_pool, now_ms, pace).await
    }

    async fn load(
        disk: Rc<dyn Disk>,
        dir: &Path,
        config: LogConfig,
        params: &OpenParams,
        tail_pool: &TailPool,
        now_ms: Millis,
        pace: Pace<'_>,
    ) -> Result<(Log, RecoveryReport), LogError> {
        let mut loader = Loader::new(&*disk, dir, &config, params, now_ms, pace)?;
        loader.remove_leftovers()?;
        loader.open_segments().await?;
        loader.recover_unflushed().await?;
        let loaded = loader.finish().await?;
        let log = Log {
            dir: dir.to_owned(),
            config,
            topic_id: loaded.topic_id,
            segments: loaded.segments,
            log_start_offset: loaded.log_start_offset,
            log_end_offset: loaded.log_end_offset,
            recovery_point: loaded.recovery_point,
            protection: Protection::new(loaded.recovery_point, loaded.report.read_bytes),
            epochs: loaded.epochs,
            producers: loaded.producers,
            snapshots: loaded.snapshots,
            producer_id_expiration_ms: params.producer_id_expiration_ms,
            tail: tail_pool.cache(),
            unsynced: loaded.unsynced,
            pending_deletions: loaded.pending_deletions,
            offline: false,
            rng: loaded.rng,
            upper_bound: None,
            headers: Vec::new(),
            disk,
        };
        log.invariants();
        Ok((log, loaded.report))
    }
}

/// Brings the producers of a truncated log to its end.
pub(super) fn rebuild_producers(log: &mut Log, now_ms: Millis) -> Result<(), LogError> {
    let had_producers =
        !log.producers.is_empty() || log.producers.end_offset() < log.log_end_offset;
    let mut rebuild = Rebuild {
        disk: &*log.disk,
        dir: &log.dir,
        log_start_offset: log.log_start_offset,
        now_ms,
        expiration_ms: log.producer_id_expiration_ms,
        pace: Pace::Whole,
        snapshots: &mut log.snapshots,
        unsynced: &mut log.unsynced.others,
    };
    at_once(rebuild.run(
        &log.segments,
        log.log_end_offset,
        had_producers,
        &mut log.producers,
    ))
}

/// How far recovery is, for those who wait for it: over all logs that share it.
#[derive(Debug, Default)]
pub struct Progress {
    /// In the segments that were begun.
    found_bytes: Cell<u64>,
    read_bytes: Cell<u64>,
}

impl Progress {
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.get()
    }

    /// Bytes that are known to be left to read.
    pub fn left_bytes(&self) -> u64 {
        self.found_bytes.get().saturating_sub(self.read_bytes.get())
    }

    fn on_found(&self, bytes: u64) {
        self.found_bytes.set(self.found_bytes.get() + bytes);
    }

    fn on_read(&self, bytes: u64) {
        self.read_bytes.set(self.read_bytes.get() + bytes);
    }
}

/// For opening a log beside other work: when to let others in, and whom to tell.
#[derive(Clone, Copy)]
pub struct Within<'a> {
    pub budget: &'a Budget,
    pub progress: &'a Progress,
}

/// How a log is read.
#[derive(Clone, Copy)]
enum Pace<'a> {
    /// In one go.
    Whole,
    /// Letting others in.
    Within(Within<'a>),
}

impl Pace<'_> {
    async fn breathe(self) {
        match self {
            Pace::Whole => {}
            Pace::Within(within) => within.budget.breathe().await,
        }
    }

    fn progress(&self) -> Option<&Progress> {
        match self {
            Pace::Whole => None,
            Pace::Within(within) => Some(within.progress),
        }
    }
}

/// The output of a future that reads at [`Pace::Whole`], and so awaits nothing.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("there is nothing to wait for"),
    }
}

struct Loader<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    config: &'a LogConfig,
    params: &'a OpenParams,
    now_ms: Millis,
    pace: Pace<'a>,
    /// The stop was clean, and what tells of the log can be read.
    clean: bool,
    rng: Rng,
    topic_id: Option<Uuid>,
    segments: VecDeque<Segment>,
    epochs: LeaderEpochCache,
    epochs_changed: bool,
    /// Where recovery begins if the stop was unclean.
    recovery_point: Offset,
    /// Reflects the log up to the last recovered segment's end.
    producers: Option<ProducerStates>,
    /// Which segment that was.
    recovered: Option<usize>,
    snapshots: Snapshots,
    unsynced: Unsynced,
    pending_deletions: Vec<PathBuf>,
    report: RecoveryReport,
}

struct Loaded {
    topic_id: Option<Uuid>,
    segments: VecDeque<Segment>,
    log_start_offset: Offset,
    log_end_offset: Offset,
    recovery_point: Offset,
    epochs: LeaderEpochCache,
    producers: ProducerStates,
    snapshots: Snapshots,
    unsynced: Unsynced,
    pending_deletions: Vec<PathBuf>,
    rng: Rng,
    report: RecoveryReport,
}

impl<'a> Loader<'a> {
    fn new(
        disk: &'a dyn Disk,
        dir: &'a Path,
        config: &'a LogConfig,
        params: &'a OpenParams,
        now_ms: Millis,
        pace: Pace<'a>,
    ) -> Result<Self, LogError> {
        let mut unsynced = Unsynced::default();
        let prepare = || -> io::Result<(Option<Uuid>, Snapshots)> {
            if !disk.exists(dir)? {
                disk.create_dir_all(dir)?;
                unsynced.dir_name = true;
            }
            let mut topic_id = match partition_metadata::read(disk, dir) {
                // A power cut may leave it so while nothing of the log is synced.
                Err(error) if error.kind() == io::ErrorKind::InvalidData && !params.clean => {
                    tracing::warn!(dir = %dir.display(), %error, "unreadable partition metadata");
                    None
                }
                read => read?,
            };
            if let (None, Some(id)) = (topic_id, params.topic_id) {
                let durability = Durability::WithNextFlush;
                let file = partition_metadata::write(disk, dir, id, durability)?;
                unsynced.others.push(file);
                unsynced.names = true;
                topic_id = Some(id);
            } else if topic_id.is_some() && !params.clean {
                // A process that was killed may have left it unsynced, with its name.
                let path = dir.join(partition_metadata::FILE_NAME);
                unsynced.others.push(disk.open(&path, OpenMode::Read)?);
                unsynced.names = true;
                unsynced.dir_name = true;
            }
            Ok((topic_id, Snapshots::list(disk, dir)?))
        };
        let mut prepare = prepare;
        let (topic_id, snapshots) = prepare().map_err(LogError::io("opening log", dir))?;
        if let (Some(found), Some(expected)) = (topic_id, params.topic_id)
            && found != expected
        {
            let path = dir.to_owned();
            return Err(LogError::InconsistentTopicId {
                path,
                found,
                expected,
            });
        }
        let mut recovery_point = params.recovery_point;
        let mut clean = params.clean;
        let epochs = match LeaderEpochCache::read(disk, dir) {
            Ok(epochs) => epochs,
            Err(error @ CheckpointError::Io { .. }) => return Err(error.into()),
            Err(error) => {
                clean = false;
                tracing::warn!(dir = %dir.display(), %error, "unreadable leader epochs");
                LeaderEpochCache::default()
            }
        };
        if !clean && epochs.entries().is_empty() {
            recovery_point = Offset(0);
        }
        Ok(Loader {
            disk,
            dir,
            config,
            params,
            now_ms,
            pace,
            clean,
            rng: Rng::new(params.seed),
            topic_id,
            segments: VecDeque::new(),
            epochs,
            // For the same reason they are written anew.
            epochs_changed: !clean,
            recovery_point,
            producers: None,
            recovered: None,
            snapshots,
            unsynced,
            pending_deletions: Vec::new(),
            report: RecoveryReport::default(),
        })
    }

    /// Step 1.
    fn remove_leftovers(&mut self) -> Result<(), LogError> {
        let (disk, dir) = (self.disk, self.dir);
        let changed = leftovers::remove(disk, dir).map_err(LogError::io("cleaning up", dir))?;
        self.unsynced.names |= changed;
        // A finished swap may have taken a snapshot away.
        self.snapshots = Snapshots::list(disk, dir).map_err(LogError::io("listing", dir))?;
        Ok(())
    }

    /// Step 2.
    async fn open_segments(&mut self) -> Result<(), LogError> {
        let mut bases = Vec::new();
        let mut indexes = Vec::new();
        let entries = self.disk.read_dir(self.dir);
        for entry in entries.map_err(LogError::io("listing", self.dir))? {
            match names::parse_file_name(&entry.name) {
                _ if entry.is_dir => {}
                Some((base, names::LOG)) => bases.push(base),
                Some((base, names::OFFSET_INDEX | names::TIME_INDEX | names::TXN_INDEX)) => {
                    indexes.push((base, entry.name))
                }
                _ => {}
            }
        }
        bases.sort_unstable();
        for (base, name) in indexes {
            if bases.binary_search(&base).is_err() {
                tracing::warn!(dir = %self.dir.display(), name, "removing index without a log");
                let path = self.dir.join(name);
                let removed = self.disk.remove_file(&path);
                removed.map_err(LogError::io("removing", &path))?;
            }
        }
        for (index, base) in bases.iter().copied().enumerate() {
            let jitter_ms = draw_jitter(self.config, &mut self.rng);
            let mut segment = Segment::open(self.disk, self.dir, base, self.now_ms, jitter_ms)?;
            segment.next_base_offset = bases.get(index + 1).copied();
            let is_sane = segment.is_sane(self.disk)?;
            self.segments.push_back(segment);
            // Otherwise step 3 gets to it anyway.
            let is_flushed = self.clean || base < self.recovery_point;
            if !is_sane && is_flushed {
                tracing::error!(dir = %self.dir.display(), offset = base.0, "rebuilding indexes");
                self.recover_segment(self.segments.len() - 1).await?;
            }
            self.pace.breathe().await;
        }
        Ok(())
    }

    /// Step 3.
    async fn recover_unflushed(&mut self) -> Result<(), LogError> {
        if self.clean {
            return Ok(());
        }
        let bases = self.segments.iter().map(Segment::base_offset);
        let after = bases
            .take_while(|base| *base <= self.recovery_point)
            .count();
        for index in after.saturating_sub(1)..self.segments.len() {
            let truncated_bytes = self.recover_segment(index).await?;
            let end_offset = self.producers.as_ref().map(ProducerStates::end_offset);
            if truncated_bytes > 0 {
                self.delete_from(index + 1)?;
                break;
            }
            let next = self.segments.get(index + 1).map(Segment::base_offset);
            if let (Some(end), Some(next)) = (end_offset, next)
                && end < next
            {
                self.report.gaps += 1;
                tracing::warn!(
                    dir = %self.dir.display(),
                    offset = end.0,
                    next_offset = next.0,
                    "offsets are missing between segments"
                );
            }
        }
        Ok(())
    }

    /// Reads a segment from its start, or from the recovery point if that lies in it: checks
    /// batches, builds indexes, takes epochs and producers in. Returns the bytes that were
    /// cut off its end.
    async fn recover_segment(&mut self, index: usize) -> Result<u64, LogError> {
        let resumed = self.resume_in(index)?;
        let (bytes, mut producers) = match resumed {
            Some(resumed) => resumed,
            None => {
                let producers = self.producers_at_start_of(index).await?;
                (self.segments[index].reset(self.disk)?, producers)
            }
        };
        let segment = &mut self.segments[index];
        let recovered = recover_batches(
            self.disk,
            segment,
            Reading {
                bytes,
                index_interval_bytes: self.config.index_interval_bytes,
                log_start_offset: self.params.log_start_offset,
                ends_at_damage: self.params.ends_at_damage,
            },
            &mut self.epochs,
            &mut producers,
            self.pace,
        )
        .await?;
        self.epochs_changed |= recovered.epochs_changed;
        self.report.damaged += recovered.damaged;
        let truncated_bytes = match recovered.invalid {
            Some(invalid) => self.end_segment(index, bytes, invalid, &mut producers)?,
            None => 0,
        };
        let segment = &mut self.segments[index];
        segment.end_recovery(truncated_bytes > 0)?;
        self.unsynced.others.extend(segment.seal(self.disk)?);
        self.unsynced.names = true;
        self.report.recovered_segments += 1;
        self.report.read_bytes += recovered.read_bytes;
        self.report.truncated_bytes += truncated_bytes;
        let taken = self
            .snapshots
            .take(self.disk, &producers, Durability::WithNextFlush)
            .map_err(LogError::io("writing producer snapshot of", self.dir))?;
        self.unsynced.others.extend(taken);
        self.producers = Some(producers);
        self.recovered = Some(index);
        Ok(truncated_bytes)
    }

    /// Decides about bytes at a segment's end that are no batch: damage if a later segment
    /// has a valid one, or if the recovery point lies within them; else a torn tail, which
    /// is to be cut. Returns its length.
    fn end_segment(
        &mut self,
        index: usize,
        bytes: u64,
        invalid: Invalid,
        producers: &mut ProducerStates,
    ) -> Result<u64, LogError> {
        let file = self.segments[index].file().clone();
        let reading = LogError::io("recovering", self.dir);
        let is_below =
            is_below_recovery_point(&*file, invalid.position, bytes, self.params.recovery_point);
        let mut end_offset = match is_below.map_err(reading)? {
            true => self.end_by_recovery_point(bytes - invalid.position, &invalid),
            false => None,
        };
        let is_kept = !self.params.ends_at_damage;
        for later in self.segments.range(index + 1..).filter(|_| is_kept) {
            let begins = begins_validly(later, invalid.next_offset);
            if begins.map_err(LogError::io("recovering", later.path()))? {
                let next = self.segments[index + 1].base_offset();
                end_offset = Some(next.max(invalid.next_offset));
                break;
            }
        }
        let segment = &mut self.segments[index];
        let Some(end_offset) = end_offset else {
            let truncated_bytes = bytes - u64::from(segment.size());
            tracing::warn!(
                dir = %self.dir.display(),
                offset = invalid.next_offset.0,
                position = segment.size(),
                bytes = truncated_bytes,
                fault = %invalid.fault,
                "cut off torn end of segment"
            );
            return Ok(truncated_bytes);
        };
        let kept = damage(
            invalid.position,
            invalid.next_offset,
            None,
            bytes as u32,
            end_offset,
        );
        segment.tell(&kept, invalid.fault);
        segment.keep_damage(kept);
        producers.set_end_offset(end_offset);
        self.report.damaged += 1;
        Ok(0)
    }

    /// The recovery point, if it can lie within so many bytes that are no batch.
    fn end_by_recovery_point(&self, bytes: u64, invalid: &Invalid) -> Option<Offset> {
        let missing = self.params.recovery_point - invalid.next_offset;
        let is_within = u64::try_from(missing).is_ok_and(|missing| 0 < missing && missing <= bytes);
        is_within.then_some(self.params.recovery_point)
    }

    /// Where the log ends, by its last segment and, if that ends with damage, the recovery
    /// point; after a clean stop that is where the log ended.
    fn find_end(&mut self) -> Result<Offset, LogError> {
        let Some(last) = self.segments.back() else {
            return Ok(self.params.log_start_offset);
        };
        let found = last.next_offset(self.disk)?;
        let closed_at = self.params.recovery_point;
        if let Some(open) = last.damaged_end()
            && open.next_offset == Offset(i64::MAX)
        {
            let invalid = Invalid {
                position: u64::from(open.start),
                next_offset: open.first_offset,
                fault: Fault::Malformed,
            };
            let end = self.end_by_recovery_point(u64::from(open.end - open.start), &invalid);
            let end = end.unwrap_or(open.first_offset);
            last.note_damage(Damage {
                next_offset: end,
                ..open
            });
            return Ok(end);
        }
        let is_off = self.clean && found != closed_at && closed_at.0 > 0;
        if is_off && !self.config.cleanup_compact && last.distrust_last(self.disk, closed_at)? {
            return Ok(closed_at);
        }
        Ok(found)
    }

    /// If recovery can begin in the midst of a segment, rewinds it to there; returns the
    /// bytes in its file, and the producers as of the recovery point, which the batches at
    /// and after it are to be added to.
    fn resume_in(&mut self, index: usize) -> Result<Option<(u64, ProducerStates)>, LogError> {
        let base_offset = self.segments[index].base_offset();
        let next = self.segments.get(index + 1).map(Segment::base_offset);
        let start = base_offset.max(self.params.log_start_offset);
        let resume_at = self.snapshots.at_or_below(self.recovery_point);
        let Some(resume_at) = resume_at.filter(|offset| *offset > start) else {
            return Ok(None);
        };
        let was_sane = self.segments[index].is_sane(self.disk)?;
        if next.is_some_and(|next| resume_at >= next) || !was_sane || self.producers.is_some() {
            return Ok(None);
        }
        let mut producers = ProducerStates::default();
        match self.snapshots.read(self.disk, resume_at) {
            Ok(entries) => {
                for (producer_id, entry) in entries {
                    producers.load(producer_id, entry);
                }
            }
            Err(SnapshotError::Corrupt(_)) => return Ok(None),
            Err(SnapshotError::Io(error)) => {
                return Err(LogError::io("reading producer snapshot of", self.dir)(
                    error,
                ));
            }
        }
        let Some(bytes) = self.segments[index].rewind_to(self.disk, resume_at)? else {
            return Ok(None);
        };
        producers.remove_expired(self.now_ms, self.params.producer_id_expiration_ms);
        producers.set_end_offset(resume_at);
        self.snapshots
            .retain(self.disk, |offset| offset <= resume_at)
            .map_err(LogError::io("removing snapshots of", self.dir))?;
        self.snapshots.set_last(resume_at);
        Ok(Some((bytes, producers)))
    }

    async fn producers_at_start_of(&mut self, index: usize) -> Result<ProducerStates, LogError> {
        let base_offset = self.segments[index].base_offset();
        let mut producers = match self.producers.take() {
            // Of what lies below the log's start nothing is carried on. Where offsets are
            // missing before this segment, its snapshot may know of what was lost.
            Some(producers)
                if self
                    .recovered
                    .is_some_and(|recovered| recovered + 1 == index)
                    && producers.end_offset() <= base_offset
                    && base_offset > self.params.log_start_offset =>
            {
                self.snapshots
                    .retain(self.disk, |offset| offset <= producers.end_offset())
                    .map_err(LogError::io("removing snapshots of", self.dir))?;
                producers
            }
            _ => {
                let mut producers = ProducerStates::default();
                let earlier = self.segments.split_off(index);
                let start = self.params.log_start_offset;
                let rebuilt = self
                    .rebuild_producers(start, base_offset, &mut producers)
                    .await;
                self.segments.extend(earlier);
                rebuilt?;
                producers
            }
        };
        producers.set_end_offset(base_offset);
        let taken = self
            .snapshots
            .take(self.disk, &producers, Durability::WithNextFlush)
            .map_err(LogError::io("writing producer snapshot of", self.dir))?;
        self.unsynced.others.extend(taken);
        Ok(producers)
    }

    /// Has all segments from `index` on deleted.
    fn delete_from(&mut self, index: usize) -> Result<(), LogError> {
        while self.segments.len() > index {
            let mut segment = self.segments.pop_back().expect("more than are kept");
            segment.rename_deleted(self.disk, &mut self.pending_deletions)?;
            self.report.deleted_segments += 1;
            self.unsynced.names = true;
            self.snapshots
                .remove(self.disk, segment.base_offset())
                .map_err(LogError::io("removing a snapshot of", self.dir))?;
        }
        if let Some(last) = self.segments.back_mut() {
            last.next_base_offset = None;
        }
        Ok(())
    }

    /// Steps 4 and 5.
    async fn finish(mut self) -> Result<Loaded, LogError> {
        let mut log_start_checkpoint = self.params.log_start_offset;
        let mut log_end_offset = self.find_end()?;
        if log_end_offset < log_start_checkpoint && self.clean {
            tracing::error!(
                dir = %self.dir.display(),
                log_end_offset = log_end_offset.0,
                log_start_offset = log_start_checkpoint.0,
                "the log was closed cleanly and can't start beyond its end: damaged checkpoint"
            );
            log_start_checkpoint = Offset(0);
        }
        let mut was_clean = self.clean;
        if log_end_offset < log_start_checkpoint {
            tracing::warn!(
                dir = %self.dir.display(),
                log_end_offset = log_end_offset.0,
                log_start_offset = log_start_checkpoint.0,
                "log ends before it starts, beginning anew"
            );
            self.delete_from(0)?;
            self.epochs.clear();
            self.epochs_changed = true;
            self.producers = None;
            self.snapshots
                .retain(self.disk, |_| false)
                .map_err(LogError::io("removing snapshots of", self.dir))?;
            log_end_offset = log_start_checkpoint;
        }
        if self.segments.is_empty() {
            was_clean = false;
            let jitter_ms = draw_jitter(self.config, &mut self.rng);
            let created =
                Segment::create(self.disk, self.dir, log_end_offset, self.now_ms, jitter_ms)?;
            self.segments.push_back(created);
            self.unsynced.names = true;
        }
        let log_start_offset = log_start_checkpoint.max(self.segments[0].base_offset());
        self.epochs_changed |= self.epochs.truncate_from_end(log_end_offset);
        if log_start_checkpoint.0 > 0 {
            self.epochs_changed |= self.epochs.truncate_from_start(log_start_checkpoint);
        }
        if self.epochs_changed {
            let written = self
                .epochs
                .write(self.disk, self.dir, Durability::WithNextFlush)
                .map_err(LogError::io("writing leader epochs of", self.dir))?;
            self.unsynced.epochs = Some(written);
            self.unsynced.names = true;
        }
        let producers = self
            .finish_producers(log_start_offset, log_end_offset)
            .await?;
        if self.report.truncated_bytes > 0 || self.report.deleted_segments > 0 {
            // Neither segments nor snapshots of what went may come back.
            let synced = self.disk.sync_dir(self.dir);
            synced.map_err(LogError::io("syncing directory", self.dir))?;
        }
        let recovery_point = match was_clean {
            true => log_end_offset,
            false => self.params.recovery_point.min(log_end_offset),
        };
        Ok(Loaded {
            topic_id: self.topic_id,
            segments: self.segments,
            log_start_offset,
            log_end_offset,
            recovery_point: recovery_point.max(log_start_offset),
            epochs: self.epochs,
            producers,
            snapshots: self.snapshots,
            unsynced: self.unsynced,
            pending_deletions: self.pending_deletions,
            rng: self.rng,
            report: self.report,
        })
    }

    async fn finish_producers(
        &mut self,
        log_start_offset: Offset,
        log_end_offset: Offset,
    ) -> Result<ProducerStates, LogError> {
        let bases: Vec<Offset> = self.segments.iter().map(Segment::base_offset).collect();
        self.snapshots
            .remove_stray(self.disk, &bases, self.params.recovery_point)
            .map_err(LogError::io("removing snapshots of", self.dir))?;
        if let Some(mut recovered) = self.producers.take()
            && recovered.end_offset() == log_end_offset
            && log_end_offset > log_start_offset
            && !self.clean
        {
            // Recovery has read up to the end; it remembers more of the last batches than
            // a snapshot would. Like one, it forgets which markers weren't replicated.
            recovered.on_replicated_up_to(log_end_offset);
            let start = self.params.log_start_offset.max(bases[0]);
            self.snapshots
                .retain(self.disk, |offset| {
                    start < offset && offset <= log_end_offset
                })
                .map_err(LogError::io("removing snapshots of", self.dir))?;
            recovered.remove_expired(self.now_ms, self.params.producer_id_expiration_ms);
            return Ok(recovered);
        }
        let mut producers = ProducerStates::default();
        if self.snapshots.latest().is_none() && self.clean {
            producers.set_end_offset(log_end_offset);
            let last_two = bases.len().saturating_sub(2);
            for offset in bases[last_two..].iter().chain([&log_end_offset]) {
                self.take_empty_snapshot(*offset)?;
            }
        } else {
            self.rebuild_producers(log_start_offset, log_end_offset, &mut producers)
                .await?;
        }
        Ok(producers)
    }

    fn take_empty_snapshot(&mut self, offset: Offset) -> Result<(), LogError> {
        let mut none = ProducerStates::default();
        none.set_end_offset(offset);
        let taken = self
            .snapshots
            .take(self.disk, &none, Durability::WithNextFlush)
            .map_err(LogError::io("writing producer snapshot of", self.dir))?;
        self.unsynced.others.extend(taken);
        self.unsynced.names = true;
        Ok(())
    }

    /// Producers at `end_offset`, which all segments so far reach.
    async fn rebuild_producers(
        &mut self,
        log_start_offset: Offset,
        end_offset: Offset,
        producers: &mut ProducerStates,
    ) -> Result<(), LogError> {
        self.unsynced.names = true;
        let mut rebuild = Rebuild {
            disk: self.disk,
            dir: self.dir,
            log_start_offset,
            now_ms: self.now_ms,
            expiration_ms: self.params.producer_id_expiration_ms,
            pace: self.pace,
            snapshots: &mut self.snapshots,
            unsynced: &mut self.unsynced.others,
        };
        rebuild
            .run(&self.segments, end_offset, true, producers)
            .await
    }
}
