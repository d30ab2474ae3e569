//! One segment of a log: a `.log` file of batches and its three indexes.
//!
//! Called by `log` and `recovery` only. A segment knows nothing of epochs, producers or
//! its neighbours.
//!
//! Invariants: the file holds whole batches up to `size`; every batch's offsets are at or
//! beyond the base offset and fit an index entry; the indexes tell of no batch that isn't
//! in the file.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::batch_header::BatchHeader;
use super::damage::{Before, Damage, Fault};
use super::error::LogError;
use super::names;
use super::offset_index::{OffsetIndex, OffsetPosition, relative_offset};
use super::scan::{HeaderScan, Located};
use super::time_index::{TimeIndex, TimestampOffset};
use super::txn_index::TxnIndex;
use super::verify::Checked;
use crate::base::{Millis, Offset};
use crate::io::disk::{Disk, File, OpenMode};

/// Positions are signed 32-bit numbers in the index.
pub const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;

#[derive(Debug)]
pub struct Segment {
    base_offset: Offset,
    path: PathBuf,
    file: Arc<dyn File>,
    /// See [`Segment::sync_handle`].
    sync_handles: Vec<Arc<dyn File>>,
    size: u32,
    pub(super) offset_index: OffsetIndex,
    pub(super) time_index: TimeIndex,
    pub(super) txn_index: TxnIndex,
    /// The largest timestamp and the last offset of the batch that has it.
    max_timestamp: Cell<TimestampOffset>,
    /// It comes from the time index, and no batch has been asked yet.
    is_max_indexed: Cell<bool>,
    /// Max timestamp of the first batch, from which the time to roll is counted.
    first_timestamp: Option<Millis>,
    created_ms: Millis,
    /// Subtracted from `segment.ms`, so that logs don't roll all at once.
    jitter_ms: Millis,
    bytes_since_index_entry: u32,
    pub(super) checked: RefCell<Checked>,
    /// Of the segment after it when the log was opened: no batch here reaches beyond.
    pub(super) next_base_offset: Option<Offset>,
}

/// When to roll.
#[derive(Clone, Copy, Debug)]
pub struct RollRule {
    pub segment_bytes: u32,
    pub segment_ms: Millis,
    pub segment_index_bytes: u32,
}

impl Segment {
    /// An empty segment, in place of whatever files there are.
    pub fn create(
        disk: &dyn Disk,
        dir: &Path,
        base_offset: Offset,
        now_ms: Millis,
        jitter_ms: Millis,
    ) -> Result<Segment, LogError> {
        let path = dir.join(names::file_name(base_offset, names::LOG));
        let create = || -> io::Result<Segment> {
            let txn_path = path.with_extension(&names::TXN_INDEX[1..]);
            if disk.exists(&txn_path)? {
                disk.remove_file(&txn_path)?;
            }
            let index_path = path.with_extension(&names::OFFSET_INDEX[1..]);
            let time_path = path.with_extension(&names::TIME_INDEX[1..]);
            Ok(Segment {
                base_offset,
                file: disk.open(&path, OpenMode::Truncate)?,
                sync_handles: Vec::new(),
                size: 0,
                offset_index: OffsetIndex::create(disk, index_path, base_offset)?,
                time_index: TimeIndex::create(disk, time_path, base_offset)?,
                txn_index: TxnIndex::open(disk, txn_path)?,
                max_timestamp: Cell::new(TimestampOffset {
                    timestamp: -1,
                    offset: base_offset,
                }),
                is_max_indexed: Cell::new(false),
                first_timestamp: None,
                created_ms: now_ms,
                jitter_ms,
                bytes_since_index_entry: 0,
                checked: RefCell::default(),
                next_base_offset: None,
                path: path.clone(),
            })
        };
        create().map_err(|source| {
            // An empty file of that name would end the log at the next start, whatever the
            // segment before it holds by then.
            match disk.remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    let left = io::Error::other(format!("{source}; not removed again: {error}"));
                    LogError::io("creating segment", &path)(left)
                }
                _ => LogError::io("creating segment", &path)(source),
            }
        })
    }

    /// A segment that exists. [`Self::is_sane`] tells whether its indexes can be used.
    pub fn open(
        disk: &dyn Disk,
        dir: &Path,
        base_offset: Offset,
        now_ms: Millis,
        jitter_ms: Millis,
    ) -> Result<Segment, LogError> {
        let path = dir.join(names::file_name(base_offset, names::LOG));
        let file = disk
            .open(&path, OpenMode::ReadWrite)
            .map_err(LogError::io("opening segment", &path))?;
        let bytes = file.len().map_err(LogError::io("opening segment", &path))?;
        if bytes > SEGMENT_BYTES_MAX {
            return Err(LogError::SegmentTooLarge { path, bytes });
        }
        let open_indexes = || -> io::Result<_> {
            let offset_path = path.with_extension(&names::OFFSET_INDEX[1..]);
            let time_path = path.with_extension(&names::TIME_INDEX[1..]);
            let txn_path = path.with_extension(&names::TXN_INDEX[1..]);
            Ok((
                OffsetIndex::open(disk, offset_path, base_offset)?,
                TimeIndex::open(disk, time_path, base_offset)?,
                TxnIndex::open(disk, txn_path)?,
            ))
        };
        let (offset_index, time_index, txn_index) =
            open_indexes().map_err(LogError::io("opening indexes of", &path))?;
        Ok(Segment {
            base_offset,
            file,
            sync_handles: Vec::new(),
            size: bytes as u32,
            offset_index,
            // A closed segment's time index ends with the largest timestamp.
            max_timestamp: Cell::new(time_index.last_entry()),
            is_max_indexed: Cell::new(true),
            time_index,
            txn_index,
            first_timestamp: None,
            created_ms: now_ms,
            jitter_ms,
            bytes_since_index_entry: 0,
            checked: RefCell::new(Checked::nothing_below(bytes as u32)),
            next_base_offset: None,
            path,
        })
    }

    /// Whether the indexes are there and can be what was left behind.
    pub fn is_sane(&self, disk: &dyn Disk) -> Result<bool, LogError> {
        let check = || -> io::Result<bool> {
            Ok(self.offset_index.exists(disk)?
                && self.time_index.exists(disk)?
                && self.offset_index.is_sane(disk, self.size)?
                && self.time_index.is_sane(disk)?
                && self.txn_index.is_sane(disk, self.base_offset)?)
        };
        check().map_err(LogError::io("checking indexes of", &self.path))
    }

    pub fn base_offset(&self) -> Offset {
        self.base_offset
    }

    pub fn size(&self) -> u32 {
        self.size
    }

    pub fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file, to be synced beside other syncs of it: opened once more for each lane but the
    /// first. The kernel tells of a write that failed once to each opened file; with one in
    /// common, a sync could pass because another has just taken its error away.
    pub(super) fn sync_handle(
        &mut self,
        disk: &dyn Disk,
        lane: usize,
    ) -> io::Result<Arc<dyn File>> {
        let Some(index) = lane.checked_sub(1) else {
            return Ok(self.file.clone());
        };
        while self.sync_handles.len() <= index {
            self.sync_handles
                .push(disk.open(&self.path, OpenMode::Read)?);
        }
        Ok(self.sync_handles[index].clone())
    }

    /// The batch that it is said to be in is asked the first time.
    pub fn max_timestamp(&self, disk: &dyn Disk) -> Result<TimestampOffset, LogError> {
        let max = self.max_timestamp.get();
        if self.is_max_indexed.get() {
            let is_right = max.timestamp < 0 || self.is_time_right(disk, &max)?;
            if !is_right {
                self.max_timestamp.set(self.find_max_timestamp(disk, None)?);
            }
            self.is_max_indexed.set(false);
        }
        Ok(self.max_timestamp.get())
    }

    /// Where a search for a timestamp in the segment has to begin.
    pub fn scan_for_timestamp(
        &self,
        disk: &dyn Disk,
        timestamp: Millis,
        start_offset: Offset,
    ) -> Result<HeaderScan<'_>, LogError> {
        let searching = || LogError::io("searching", &self.path);
        let entry = self.time_index.lookup(disk, timestamp);
        let entry = entry.map_err(searching())?;
        let is_right = entry.timestamp < 0 || self.is_time_right(disk, &entry)?;
        let from = match is_right {
            true => entry.offset.max(start_offset),
            false => start_offset.max(self.base_offset),
        };
        self.scan_for(disk, from).map_err(searching())
    }

    /// Whether the batch that an entry of the time index tells of is there.
    fn is_time_right(&self, disk: &dyn Disk, entry: &TimestampOffset) -> Result<bool, LogError> {
        let found = self.locate_whole(disk, entry.offset)?;
        let is_right = found.is_some_and(|(located, _)| {
            let header = located.header;
            (header.last_offset(), header.max_timestamp) == (entry.offset, entry.timestamp)
        });
        // A batch that was lost has been told of.
        if !is_right && self.damage_at(entry.offset).is_none() {
            tracing::error!(
                file = %self.path.display(),
                timestamp = entry.timestamp,
                offset = entry.offset.0,
                "damaged time index: not used here"
            );
        }
        Ok(is_right)
    }

    /// For retention: the largest timestamp, or the file's time where no record has one.
    pub fn largest_timestamp(&self, disk: &dyn Disk) -> Result<Millis, LogError> {
        let max = self.max_timestamp(disk)?;
        if max.timestamp >= 0 {
            return Ok(max.timestamp);
        }
        self.file
            .modified_ms()
            .map_err(LogError::io("reading time of", &self.path))
    }

    /// Whether an append must go to a new segment.
    pub fn should_roll(
        &mut self,
        rule: &RollRule,
        incoming_bytes: u32,
        incoming_max_timestamp: Millis,
        incoming_last_offset: Offset,
        now_ms: Millis,
    ) -> Result<bool, LogError> {
        let fits =
            u64::from(self.size) + u64::from(incoming_bytes) <= u64::from(rule.segment_bytes);
        if !fits || relative_offset(incoming_last_offset, self.base_offset).is_none() {
            return Ok(true);
        }
        if self.size == 0 {
            return Ok(false);
        }
        // The last slot of the time index is for the entry made when the segment closes.
        let index_full = self.offset_index.count() >= rule.segment_index_bytes / 8
            || self.time_index.count() + 1 >= rule.segment_index_bytes / 12;
        if index_full {
            return Ok(true);
        }
        let waited_ms = match self.first_timestamp()? {
            first if first >= 0 => incoming_max_timestamp.saturating_sub(first),
            _ => now_ms.saturating_sub(self.created_ms),
        };
        Ok(waited_ms > rule.segment_ms - self.jitter_ms)
    }

    /// Writes whole batches at the end. After an error the file is as before, or the
    /// segment must not be used.
    pub fn append(
        &mut self,
        disk: &dyn Disk,
        bytes: &[u8],
        headers: &[BatchHeader],
        index_interval_bytes: u32,
    ) -> Result<(), LogError> {
        let position = u64::from(self.size);
        assert!(
            position + bytes.len() as u64 <= SEGMENT_BYTES_MAX,
            "appends roll before a segment outgrows its index"
        );
        if let Err(source) = self.file.write_all_at(&[IoSlice::new(bytes)], position) {
            // Part of it may have landed. Nobody reads beyond `size`, and recovery cuts
            // what isn't a whole batch; but a whole one must not come back.
            if let Err(cut) = self.file.set_len(position) {
                // Not as a lack of space, which whoever calls goes on after.
                let cut = io::Error::other(format!("{source}; not cut off again: {cut}"));
                return Err(LogError::io("appending to", &self.path)(cut));
            }
            return Err(LogError::io("appending to", &self.path)(source));
        }
        for header in headers {
            self.index(disk, header, index_interval_bytes)?;
        }
        Ok(())
    }

    /// Counts a batch at the end of the segment as there, and indexes it.
    pub(super) fn index(
        &mut self,
        disk: &dyn Disk,
        header: &BatchHeader,
        index_interval_bytes: u32,
    ) -> Result<(), LogError> {
        let last_offset = header.last_offset();
        self.checked
            .get_mut()
            .on_written(self.size, header.base_offset);
        if header.max_timestamp > self.max_timestamp.get().timestamp {
            self.max_timestamp.set(TimestampOffset {
                timestamp: header.max_timestamp,
                offset: last_offset,
            });
            self.is_max_indexed.set(false);
        }
        if self.size == 0 {
            self.first_timestamp = Some(header.max_timestamp);
        }
        // Checked before the batch is counted: the first one never has an entry.
        if self.bytes_since_index_entry > index_interval_bytes {
            self.offset_index
                .append(disk, last_offset, self.size)
                .and_then(|()| self.time_index.maybe_append(disk, self.max_timestamp.get()))
                .map_err(LogError::io("indexing", &self.path))?;
            self.bytes_since_index_entry = 0;
        }
        self.size += header.size;
        self.bytes_since_index_entry = self.bytes_since_index_entry.saturating_add(header.size);
        Ok(())
    }

    /// The batch that contains `offset`, or the first after it. An error where it may have
    /// been in a damaged one.
    pub fn locate(
        &self,
        disk: &dyn Disk,
        offset: Offset,
    ) -> Result<Option<(Located, Before)>, LogError> {
        let found = self.locate_whole(disk, offset)?;
        if self.damage_at(offset).is_some() {
            return Err(self.corrupt(offset));
        }
        Ok(found)
    }

    /// The first batch that ends at or beyond `offset`, and what is before it.
    pub fn locate_whole(
        &self,
        disk: &dyn Disk,
        offset: Offset,
    ) -> Result<Option<(Located, Before)>, LogError> {
        let locate = || -> io::Result<Option<(Located, Before)>> {
            let mut scan = self.scan_for(disk, offset)?;
            while let Some(located) = self.next_batch(&mut scan)? {
                if located.header.last_offset() >= offset {
                    return Ok(scan.last());
                }
            }
            Ok(None)
        };
        locate().map_err(LogError::io("searching", &self.path))
    }

    /// Where the batch after the last one would begin. [`Self::damaged_end`] tells whether
    /// there is anything after that.
    pub fn next_offset(&self, disk: &dyn Disk) -> Result<Offset, LogError> {
        let find = || -> io::Result<Offset> {
            let mut scan = self.scan_for(disk, self.offset_index.last_offset())?;
            while self.next_batch(&mut scan)?.is_some() {}
            Ok(scan.next_offset())
        };
        find().map_err(LogError::io("finding the end of", &self.path))
    }

    /// A walk from the last indexed batch up to `offset`. An entry is believed if the batch
    /// that it tells of is there; else the walk begins at the segment's start.
    pub fn scan_for(&self, disk: &dyn Disk, offset: Offset) -> io::Result<HeaderScan<'_>> {
        let entry = self.offset_index.lookup(disk, offset)?;
        if entry.position > 0 {
            // It may be the end of a search among entries that are out of order.
            let mut scan = self.headers_from(entry.position);
            if let Some(header) = scan.peek()?
                && header.last_offset() == entry.offset
            {
                return Ok(scan.expecting(header.base_offset));
            }
            tracing::error!(
                file = %self.path.display(),
                offset = entry.offset.0,
                position = entry.position,
                "damaged index: not used here"
            );
        }
        Ok(self.headers_from(0).expecting(self.base_offset))
    }

    /// The log was closed at `end`. If the last batch ends elsewhere, though it would end
    /// there if it began where the one before ends, then its offset is damaged.
    pub(super) fn distrust_last(&self, disk: &dyn Disk, end: Offset) -> Result<bool, LogError> {
        let distrust = || -> io::Result<bool> {
            let mut scan = self.scan_for(disk, self.offset_index.last_offset())?;
            while self.next_batch(&mut scan)?.is_some() {}
            let Some((last, before)) = scan.last() else {
                return Ok(false);
            };
            let begins_high = last.header.base_offset > before.next_offset;
            let count = i64::from(last.header.last_offset_delta) + 1;
            if !begins_high || before.next_offset + count != end {
                return Ok(false);
            }
            let damage = Damage {
                start: last.position as u32,
                end: self.size,
                first_offset: before.next_offset,
                next_offset: end,
            };
            self.tell(&damage, Fault::OffsetTooHigh);
            self.note_damage(damage);
            Ok(true)
        };
        distrust().map_err(LogError::io("finding the end of", &self.path))
    }

    pub fn headers_from(&self, position: u32) -> HeaderScan<'_> {
        HeaderScan::new(&*self.file, u64::from(position), u64::from(self.size))
    }

    /// Reads a whole batch.
    pub fn read_batch(&self, located: &Located) -> Result<Vec<u8>, LogError> {
        let mut bytes = vec![0; located.header.size as usize];
        self.file
            .read_exact_at(&mut bytes, located.position)
            .map_err(LogError::io("reading", &self.path))?;
        Ok(bytes)
    }

    /// Writes out what the indexes have in memory, as far as the segment goes now, with the
    /// largest timestamp at the end. Appending may go on.
    pub fn write_out_indexes(&mut self, disk: &dyn Disk) -> Result<(), LogError> {
        let mut write_out = || -> io::Result<()> {
            if self.size > 0 {
                self.time_index
                    .maybe_append(disk, self.max_timestamp.get())?;
            }
            self.offset_index.write_out(disk)?;
            self.time_index.write_out(disk)?;
            self.txn_index.write_out(disk)
        };
        write_out().map_err(LogError::io("indexing", &self.path))
    }

    /// Ends appending: indexes are written out and closed with the largest timestamp.
    /// Returns the index files, to be synced.
    pub fn seal(&mut self, disk: &dyn Disk) -> Result<Vec<Arc<dyn File>>, LogError> {
        self.write_out_indexes(disk)?;
        self.sync_handles.clear();
        let mut seal = || -> io::Result<Vec<Arc<dyn File>>> {
            let files = [
                self.offset_index.seal(disk)?,
                self.time_index.seal(disk)?,
                self.txn_index.seal(disk)?,
            ];
            Ok(files.into_iter().flatten().collect())
        };
        seal().map_err(LogError::io("sealing", &self.path))
    }

    /// Cuts off the batch or damage that contains `offset`, or the first batch after it, and
    /// what follows; returns the offset that this begins at. Synced before it returns: what is
    /// appended in their place must never stand beside them after a power cut.
    pub fn truncate_to(
        &mut self,
        disk: &dyn Disk,
        offset: Offset,
        now_ms: Millis,
    ) -> Result<Option<Offset>, LogError> {
        let found = self.locate_whole(disk, offset)?;
        let (position, base_offset) = match (self.damage_at(offset), found) {
            (Some(damage), _) => (u64::from(damage.start), damage.first_offset),
            (None, Some((located, _))) => (located.position, located.header.base_offset),
            (None, None) => return Ok(None),
        };
        let size = position as u32;
        let mut truncate = || -> io::Result<()> {
            // Indexes first: they never tell of what isn't there.
            self.offset_index.truncate_to(disk, offset)?;
            self.time_index.truncate_to(disk, offset)?;
            self.txn_index.truncate_to(disk, offset)?;
            self.file.set_len(u64::from(size))?;
            self.file.sync_data()
        };
        truncate().map_err(LogError::io("truncating", &self.path))?;
        self.size = size;
        self.checked.get_mut().truncate_to(size);
        self.next_base_offset = None;
        self.bytes_since_index_entry = 0;
        if size == 0 {
            self.created_ms = now_ms;
            self.first_timestamp = None;
        }
        let max = self.find_max_timestamp(disk, Some(self.time_index.last_entry()))?;
        self.max_timestamp.set(max);
        Ok(Some(base_offset))
    }

    /// Writes out what the indexes have in memory. Returns the files to be synced.
    pub(super) fn write_out_unsynced(
        &mut self,
        disk: &dyn Disk,
    ) -> Result<Vec<Arc<dyn File>>, LogError> {
        let mut write_out = || -> io::Result<Vec<Arc<dyn File>>> {
            let files = [
                self.offset_index.write_out_unsynced(disk)?,
                self.time_index.write_out_unsynced(disk)?,
                self.txn_index.write_out_unsynced(disk)?,
            ];
            Ok(files.into_iter().flatten().collect())
        };
        write_out().map_err(LogError::io("writing indexes of", &self.path))
    }

    /// Has recovery begin at the last batch that is indexed below `offset`, with what the
    /// indexes tell of the batches before; returns the bytes that are in the file. `None`
    /// where they can't be right, which the batch itself shows: recovery has to begin at
    /// the segment's start, after [`Self::reset`]. `offset` is a recovery point (see
    /// [`super::protection`]).
    pub(super) fn rewind_to(
        &mut self,
        disk: &dyn Disk,
        offset: Offset,
    ) -> Result<Option<u64>, LogError> {
        let bytes = self.size;
        let mut rewind = || -> io::Result<bool> {
            if !self.offset_index.keep_sound_below(disk, offset, bytes)? {
                return Ok(false);
            }
            let last = self.offset_index.last_entry(disk)?;
            if last.position == 0 || !self.is_indexed_right(&last)? {
                return Ok(false);
            }
            self.txn_index.truncate_to(disk, offset)?;
            self.size = last.position;
            self.checked.get_mut().from = last.position;
            self.time_index.keep_up_to(disk, last.offset)
        };
        let is_right = rewind().map_err(LogError::io("rewinding", &self.path))?;
        self.bytes_since_index_entry = 0;
        self.first_timestamp = None;
        self.max_timestamp.set(self.time_index.last_entry());
        if !is_right {
            self.checked.get_mut().from = bytes;
            self.size = bytes;
            return Ok(None);
        }
        Ok(Some(u64::from(bytes)))
    }

    /// Whether the batch that an index entry tells of is there.
    fn is_indexed_right(&self, entry: &OffsetPosition) -> io::Result<bool> {
        let found = self.headers_from(entry.position).peek()?;
        Ok(found.is_some_and(|header| header.last_offset() == entry.offset))
    }

    /// Empties the segment for recovery, which indexes it anew; returns the bytes that
    /// are in the file.
    pub(super) fn reset(&mut self, disk: &dyn Disk) -> Result<u64, LogError> {
        let mut reset = || -> io::Result<()> {
            self.offset_index.reset(disk)?;
            self.time_index.reset(disk)?;
            self.txn_index.reset(disk)
        };
        let bytes = u64::from(self.size);
        reset().map_err(LogError::io("resetting indexes of", &self.path))?;
        self.size = 0;
        self.checked = RefCell::default();
        self.bytes_since_index_entry = 0;
        self.first_timestamp = None;
        self.max_timestamp.set(self.time_index.last_entry());
        Ok(bytes)
    }

    /// Counts damage as there, without an entry in the index.
    pub(super) fn keep_damage(&mut self, damage: Damage) {
        assert!(damage.start == self.size, "what is before was counted");
        self.size = damage.end;
        self.note_damage(damage);
    }

    /// Ends recovery: cuts the file to what has been counted, and syncs that.
    pub(super) fn end_recovery(&mut self, cut: bool) -> Result<(), LogError> {
        self.bytes_since_index_entry = 0;
        self.checked.get_mut().truncate_to(self.size);
        if !cut {
            return Ok(());
        }
        self.file
            .set_len(u64::from(self.size))
            .and_then(|()| self.file.sync_data())
            .map_err(LogError::io("truncating", &self.path))
    }

    /// Renames all files, to have them deleted later, and adds the new paths to `renamed`.
    /// After an error it may be called again.
    pub fn rename_deleted(
        &mut self,
        disk: &dyn Disk,
        renamed: &mut Vec<PathBuf>,
    ) -> Result<(), LogError> {
        for suffix in [
            names::LOG,
            names::OFFSET_INDEX,
            names::TIME_INDEX,
            names::TXN_INDEX,
        ] {
            let from = self.path.with_extension(&suffix[1..]);
            let mut to = from.clone().into_os_string();
            to.push(names::DELETED);
            let to = PathBuf::from(to);
            match disk.rename(&from, &to) {
                Ok(()) => renamed.push(to),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(LogError::io("renaming", &from)(error)),
            }
        }
        Ok(())
    }

    /// Max timestamp of the first batch; -1 for none.
    fn first_timestamp(&mut self) -> Result<Millis, LogError> {
        if let Some(first) = self.first_timestamp {
            return Ok(first);
        }
        let first = self
            .next_batch(&mut self.headers_from(0).expecting(self.base_offset))
            .map_err(LogError::io("reading", &self.path))?;
        let first = first.map(|located| located.header.max_timestamp);
        self.first_timestamp = first;
        Ok(first.unwrap_or(-1))
    }

    /// From the last entry of the time index, and the batches after it; or from all.
    fn find_max_timestamp(
        &self,
        disk: &dyn Disk,
        indexed: Option<TimestampOffset>,
    ) -> Result<TimestampOffset, LogError> {
        let find = || -> io::Result<TimestampOffset> {
            let none = TimestampOffset {
                timestamp: -1,
                offset: self.base_offset,
            };
            let mut max = indexed.unwrap_or(none);
            let mut scan = self.scan_for(disk, max.offset)?;
            while let Some(located) = self.next_batch(&mut scan)? {
                if located.header.max_timestamp > max.timestamp {
                    max = TimestampOffset {
                        timestamp: located.header.max_timestamp,
                        offset: located.header.last_offset(),
                    };
                }
            }
            Ok(max)
        };
        find().map_err(LogError::io("reading timestamps of", &self.path))
    }
}
