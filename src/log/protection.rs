//! How far a [`Log`] needs no recovery, and the moving of that point while it runs.
//!
//! The recovery point in the checkpoint promises more than that batches are synced. Below
//! it, by the same flush, these are too:
//! - the entries of all indexes, so that recovery can begin at an index entry in the midst of
//!   a segment: an entry below is there, and its neighbours are not missing;
//! - a snapshot of the producers at just that offset, so that nothing before is read for them;
//! - the leader epochs.
//!
//! Called by `shard::pace`: [`Log::exposed`] tells what recovery would have to read,
//! [`Log::prepare_checkpoint`] writes indexes and a snapshot, any flush of the whole log then
//! syncs them with the batches, and [`Log::collect_checkpoint`] gives the point away for the
//! checkpoint's file. Kafka, which syncs indexes with their segment, moves its own only to a
//! segment's start.
//!
//! Invariants: `settled <= recovery_point`, the offset below which batches are synced; the
//! snapshots at `settled` and at the point that was last given away stay.

use super::error::LogError;
use super::log::Log;
use super::segment::Segment;
use crate::base::{Millis, Offset};

/// See the module's head.
#[derive(Debug)]
pub(super) struct Protection {
    settled: Offset,
    /// As `appended_bytes` was there.
    settled_bytes: u64,
    prepared: Option<Prepared>,
    /// The last two that were given away: by the time of a third, the checkpoint's file has
    /// the second.
    given: [Offset; 2],
    /// Since the log was opened; what recovery had to read is taken for appended.
    appended_bytes: u64,
    /// When bytes beyond `settled` were first seen.
    exposed_since: Option<Millis>,
}

#[derive(Clone, Copy, Debug)]
struct Prepared {
    offset: Offset,
    bytes: u64,
    /// A flush has taken the files.
    taken: bool,
}

/// What recovery would have to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposed {
    pub bytes: u64,
    pub age_ms: Millis,
}

impl Protection {
    pub(super) fn new(settled: Offset, exposed_bytes: u64) -> Protection {
        Protection {
            settled,
            settled_bytes: 0,
            prepared: None,
            given: [settled; 2],
            appended_bytes: exposed_bytes,
            exposed_since: None,
        }
    }

    pub(super) fn on_appended(&mut self, bytes: u64) {
        self.appended_bytes += bytes;
    }

    /// A flush takes all files that are to be synced.
    pub(super) fn on_flush_taken(&mut self) {
        if let Some(prepared) = &mut self.prepared {
            prepared.taken = true;
        }
    }

    /// What was prepared is to go with the next flush that takes all files.
    pub(super) fn waits_for_flush(&self) -> bool {
        self.prepared
            .as_ref()
            .is_some_and(|prepared| !prepared.taken)
    }

    pub(super) fn on_flushed(&mut self, up_to: Offset) {
        let done = |p: &mut Prepared| p.taken && p.offset <= up_to;
        if let Some(prepared) = self.prepared.take_if(done) {
            self.settled = prepared.offset;
            self.settled_bytes = prepared.bytes;
            self.exposed_since = None;
        }
    }

    pub(super) fn on_truncated(&mut self, end: Offset) {
        self.prepared = None;
        self.settled = self.settled.min(end);
        if self.settled == end {
            self.settled_bytes = self.appended_bytes;
        }
        self.given = self.given.map(|given| given.min(end));
    }

    /// The log is empty and goes on at `offset`.
    pub(super) fn restart_at(&mut self, offset: Offset) {
        *self = Protection::new(offset, 0);
    }
}

impl Log {
    /// For the checkpoint: below it batches, indexes, epochs and producers are synced.
    pub fn recovery_checkpoint(&self) -> Offset {
        self.protection.settled
    }

    /// What recovery would have to read now; `None` where it is nothing, or is being dealt
    /// with.
    pub fn exposed(&mut self, now_ms: Millis) -> Option<Exposed> {
        let protection = &mut self.protection;
        let bytes = protection.appended_bytes - protection.settled_bytes;
        if bytes == 0 || protection.prepared.is_some() || self.offline {
            return None;
        }
        let since = *protection.exposed_since.get_or_insert(now_ms);
        Some(Exposed {
            bytes,
            age_ms: now_ms - since,
        })
    }

    /// Writes what the next flush of the whole log has to sync so that the checkpoint can
    /// move to the log's end. False where it is there, or the last move isn't in the
    /// checkpoint's file yet.
    pub fn prepare_checkpoint(&mut self) -> Result<bool, LogError> {
        self.ensure_online()?;
        let protection = &self.protection;
        let is_under_way = protection.prepared.is_some()
            || protection.settled > protection.given[1]
            || protection.settled == self.log_end_offset;
        if is_under_way {
            return Ok(false);
        }
        let disk = self.disk.clone();
        let written = self.active_mut().write_out_unsynced(&*disk);
        let written = self.check_or_full(written)?;
        self.unsynced.others.extend(written);
        self.take_snapshot()?;
        self.mark_prepared();
        Ok(true)
    }

    /// Whether a flush of the whole log would move the checkpoint.
    pub fn is_checkpoint_prepared(&self) -> bool {
        self.protection.prepared.is_some()
    }

    /// [`Log::recovery_checkpoint`], to be written to the file before it is asked for again.
    pub fn collect_checkpoint(&mut self) -> Offset {
        let [_, last] = self.protection.given;
        self.protection.given = [last, self.protection.settled];
        // `last` is in the file by now, and recovery begins there.
        let bases: Vec<Offset> = self.segments.iter().map(Segment::base_offset).collect();
        let stale = |offset: Offset| offset < last && bases.binary_search(&offset).is_err();
        if let Err(error) = self.snapshots.retain(&*self.disk, |offset| !stale(offset)) {
            let dir = self.dir.display();
            tracing::warn!(%dir, %error, "old producer snapshots can't be removed");
        }
        self.protection.settled
    }

    /// Indexes and producers are in their files up to the log's end.
    pub(super) fn mark_prepared(&mut self) {
        self.protection.prepared = Some(Prepared {
            offset: self.log_end_offset,
            bytes: self.protection.appended_bytes,
            taken: false,
        });
    }
}
