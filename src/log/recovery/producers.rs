//! Step 5 of opening a log, and the end of a truncation: the producers are brought to an
//! offset, from the latest snapshot and the batches after it.
//!
//! Called by [`super`] only.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use super::Pace;
use crate::base::{Millis, Offset};
use crate::io::disk::{Disk, File};
use crate::log::append::parse_marker;
use crate::log::checkpoint::Durability;
use crate::log::error::LogError;
use crate::log::producer_snapshot::{SnapshotError, Snapshots};
use crate::log::producer_state::ProducerStates;
use crate::log::segment::Segment;

/// Brings producers to an offset, from the latest snapshot and the batches after it.
pub struct Rebuild<'a> {
    pub disk: &'a dyn Disk,
    pub dir: &'a Path,
    pub log_start_offset: Offset,
    pub now_ms: Millis,
    pub expiration_ms: Millis,
    pub pace: Pace<'a>,
    pub snapshots: &'a mut Snapshots,
    pub unsynced: &'a mut Vec<Arc<dyn File>>,
}

impl Rebuild<'_> {
    /// `segments` reach to `end_offset`. If `may_have_producers` is false the batches
    /// needn't be read.
    pub async fn run(
        &mut self,
        segments: &VecDeque<Segment>,
        end_offset: Offset,
        may_have_producers: bool,
        producers: &mut ProducerStates,
    ) -> Result<(), LogError> {
        let start = self.log_start_offset;
        self.snapshots
            .retain(self.disk, |offset| offset <= end_offset && offset > start)
            .map_err(LogError::io("removing snapshots of", self.dir))?;
        producers.clear(start.min(end_offset));
        self.load_latest(producers)?;
        if may_have_producers {
            let from = producers.end_offset();
            let first = segments.partition_point(|s| s.base_offset() <= from);
            for (index, segment) in segments.iter().enumerate().skip(first.saturating_sub(1)) {
                // The last two segments' starts are where a truncation may begin again.
                if index + 2 >= segments.len() && segment.base_offset() > producers.end_offset() {
                    producers.set_end_offset(segment.base_offset());
                    self.take(producers)?;
                }
                self.replay(segment, end_offset, producers).await?;
            }
        }
        producers.set_end_offset(end_offset);
        self.take(producers)
    }

    fn load_latest(&mut self, producers: &mut ProducerStates) -> Result<(), LogError> {
        while let Some(offset) = self.snapshots.latest() {
            let entries = match self.snapshots.read(self.disk, offset) {
                Ok(entries) => entries,
                Err(SnapshotError::Io(error)) => {
                    return Err(LogError::io("reading producer snapshot of", self.dir)(
                        error,
                    ));
                }
                Err(error @ SnapshotError::Corrupt(_)) => {
                    let dir = self.dir.display();
                    tracing::warn!(%dir, offset = offset.0, %error, "removing producer snapshot");
                    self.snapshots
                        .remove(self.disk, offset)
                        .map_err(LogError::io("removing a snapshot of", self.dir))?;
                    continue;
                }
            };
            for (producer_id, entry) in entries {
                producers.load(producer_id, entry);
            }
            producers.remove_expired(self.now_ms, self.expiration_ms);
            producers.set_end_offset(offset);
            self.snapshots.set_last(offset);
            return Ok(());
        }
        self.snapshots.set_last(self.log_start_offset);
        Ok(())
    }

    /// Takes in the batches of a segment between the producers' end and `end_offset`.
    async fn replay(
        &self,
        segment: &Segment,
        end_offset: Offset,
        producers: &mut ProducerStates,
    ) -> Result<(), LogError> {
        let Some((located, _)) = segment.locate_whole(self.disk, producers.end_offset())? else {
            return Ok(());
        };
        // `located` lies within the segment, so its position fits.
        let mut scan = segment.headers_from(located.position as u32);
        let reading = LogError::io("reading producers of", segment.path());
        let mut next = || segment.next_batch(&mut scan);
        loop {
            let located = match next() {
                Ok(Some(located)) => located,
                Ok(None) => return Ok(()),
                Err(error) => return Err(reading(error)),
            };
            if located.header.base_offset >= end_offset {
                return Ok(());
            }
            let marker = match located.header.is_control() {
                true => parse_marker(&segment.read_batch(&located)?),
                false => None,
            };
            producers.update(&located.header, marker);
            self.pace.breathe().await;
        }
    }

    fn take(&mut self, producers: &ProducerStates) -> Result<(), LogError> {
        let taken = self
            .snapshots
            .take(self.disk, producers, Durability::WithNextFlush)
            .map_err(LogError::io("writing producer snapshot of", self.dir))?;
        self.unsynced.extend(taken);
        Ok(())
    }
}
