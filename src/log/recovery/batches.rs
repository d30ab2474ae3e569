//! Step 3 of opening a log: the batches of a segment are read, checked and taken in, one
//! after the other, up to the first that isn't whole and valid.
//!
//! Called by [`super`] only, for a segment that was emptied or rewound.

use std::io;

use super::Pace;
use crate::base::{LeaderEpoch, Offset};
use crate::io::disk::{Disk, File};
use crate::log::append::parse_marker;
use crate::log::batch_header::{BatchHeader, HeaderError};
use crate::log::error::LogError;
use crate::log::leader_epoch::LeaderEpochCache;
use crate::log::offset_index::relative_offset;
use crate::log::producer_state::ProducerStates;
use crate::log::scan::BatchScan;
use crate::log::segment::Segment;
use crate::record::BatchView;

/// What a segment held.
pub struct Recovered {
    pub read_bytes: u64,
    pub truncated_bytes: u64,
    pub reason: Option<String>,
    pub epochs_changed: bool,
}

/// Reads the `bytes` of the file from the segment's size on. Producers have been brought to
/// an offset at or beyond that; what lies before it is in them, and in the index of
/// transactions.
pub async fn recover_batches(
    disk: &dyn Disk,
    segment: &mut Segment,
    bytes: u64,
    index_interval_bytes: u32,
    epochs: &mut LeaderEpochCache,
    producers: &mut ProducerStates,
    pace: Pace<'_>,
) -> Result<Recovered, LogError> {
    let start = u64::from(segment.size());
    let path = segment.path().to_owned();
    let file = segment.file().clone();
    let mut scan = BatchScan::new(&*file, start, bytes);
    let mut next_offset = segment.base_offset();
    let mut epochs_changed = false;
    let mut last_epoch = LeaderEpoch(0);
    let reason = loop {
        let position = scan.position();
        let (header, batch) = match scan.next().map_err(LogError::io("recovering", &path))? {
            None => break None,
            Some(Ok((located, batch))) => (located.header, batch),
            Some(Err(source @ HeaderError::OldMagic(_))) => {
                let is_old = is_old_message(&*file, position, bytes);
                if is_old.map_err(LogError::io("recovering", &path))? {
                    // Cutting it off would destroy what a conversion could still read.
                    return Err(LogError::OldFormat {
                        path,
                        position,
                        source,
                    });
                }
                break Some(source.to_string());
            }
            Some(Err(error)) => break Some(error.to_string()),
        };
        if let Some(reason) = find_fault(&header, batch, segment.base_offset(), next_offset) {
            break Some(reason.to_owned());
        }
        segment.index(disk, &header, index_interval_bytes)?;
        next_offset = header.next_offset();
        if header.leader_epoch >= last_epoch {
            last_epoch = header.leader_epoch;
            epochs_changed |= epochs.reconcile(last_epoch, header.base_offset);
        }
        let marker = header.is_control().then(|| parse_marker(batch)).flatten();
        if header.base_offset >= producers.end_offset()
            && let Some(aborted) = producers.update(&header, marker)
        {
            segment
                .txn_index
                .append(disk, &aborted)
                .map_err(LogError::io("indexing transactions of", &path))?;
        }
        pace.breathe().await;
    };
    let truncated_bytes = bytes - u64::from(segment.size());
    segment.end_recovery(truncated_bytes > 0)?;
    Ok(Recovered {
        read_bytes: bytes - start,
        truncated_bytes,
        reason,
        epochs_changed,
    })
}

/// Whether a valid message of format 0 or 1 stands there, rather than a torn batch:
/// their CRC-32 covers what follows it, from the magic on.
fn is_old_message(file: &dyn File, position: u64, end: u64) -> io::Result<bool> {
    let mut head = [0; 16];
    file.read_exact_at(&mut head, position)?;
    let [.., l0, l1, l2, l3, c0, c1, c2, c3] = head;
    let length = u64::from(u32::from_be_bytes([l0, l1, l2, l3]));
    if length < 4 || position + 12 + length > end {
        return Ok(false);
    }
    let mut message = vec![0; length as usize - 4];
    file.read_exact_at(&mut message, position + 16)?;
    Ok(crc_fast::crc32_iso_hdlc(&message) == u32::from_be_bytes([c0, c1, c2, c3]))
}

fn find_fault(
    header: &BatchHeader,
    batch: &[u8],
    base_offset: Offset,
    next_offset: Offset,
) -> Option<&'static str> {
    if header.base_offset < next_offset {
        return Some("offsets don't grow");
    }
    if relative_offset(header.last_offset(), base_offset).is_none() {
        return Some("offset is too far from the segment's start");
    }
    match BatchView::parse(batch) {
        Ok(view) if view.verify_crc() => None,
        Ok(_) => Some("CRC doesn't match"),
        Err(_) => Some("batch is malformed"),
    }
}
