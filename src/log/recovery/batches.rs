//! Step 3 of opening a log: the batches of a segment are read, checked and taken in, one
//! after the other. What isn't whole and valid is passed over where a valid batch follows.
//!
//! Called by [`super`] only, for a segment that was emptied or rewound.

use std::io;

use super::Pace;
use crate::base::{LeaderEpoch, Offset};
use crate::io::disk::{Disk, File};
use crate::log::append::parse_marker;
use crate::log::batch_header::{HEADER_LEN, HeaderError};
use crate::log::damage::{Before, Fault, Search, Step, find_fault};
use crate::log::error::LogError;
use crate::log::leader_epoch::LeaderEpochCache;
use crate::log::producer_state::ProducerStates;
use crate::log::scan::BatchScan;
use crate::log::segment::Segment;
use crate::log::verify::damage;

/// What a segment held.
pub struct Recovered {
    pub read_bytes: u64,
    /// Damage that is followed by a valid batch, and so was kept.
    pub damaged: usize,
    /// Where the batches end, if the file goes on: nothing valid follows in this segment.
    pub invalid: Option<Invalid>,
    pub epochs_changed: bool,
}

/// The first of the bytes that are no batch, with none after it.
#[derive(Clone, Copy, Debug)]
pub struct Invalid {
    pub position: u64,
    pub next_offset: Offset,
    pub fault: Fault,
}

/// How a segment is to be read.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// In the file.
    pub bytes: u64,
    pub index_interval_bytes: u32,
    /// Damage that ends up to there has been deleted, and isn't told any more.
    pub log_start_offset: Offset,
    /// As in `OpenParams`.
    pub ends_at_damage: bool,
}

/// Reads the batches from the segment's size on, up to the end of the file.
/// Producers have been brought to an offset at or beyond that; what lies before it is in
/// them, and in the index of transactions.
pub async fn recover_batches(
    disk: &dyn Disk,
    segment: &mut Segment,
    reading: Reading,
    epochs: &mut LeaderEpochCache,
    producers: &mut ProducerStates,
    pace: Pace<'_>,
) -> Result<Recovered, LogError> {
    let start = u64::from(segment.size());
    let Reading {
        bytes,
        index_interval_bytes,
        log_start_offset,
        ends_at_damage,
    } = reading;
    let path = segment.path().to_owned();
    let reading = || LogError::io("recovering", &path);
    let file = segment.file().clone();
    let mut scan = BatchScan::new(&*file, start, bytes);
    let mut before = Before::at(segment.base_offset());
    if start > 0
        && let Some(indexed) = scan.peek().map_err(reading())?
    {
        before = Before::at(indexed.base_offset);
    }
    let mut recovered = Recovered {
        read_bytes: bytes - start,
        damaged: 0,
        invalid: None,
        epochs_changed: false,
    };
    let progress = pace.progress();
    if let Some(progress) = progress {
        progress.on_found(recovered.read_bytes);
    }
    let mut counted = start;
    let mut last_epoch = LeaderEpoch(0);
    loop {
        pace.breathe().await;
        let position = scan.position();
        if let Some(progress) = progress {
            progress.on_read(position.saturating_sub(counted));
            counted = counted.max(position);
        }
        let next = scan.peek_after().map_err(reading())?;
        let fault = match scan.next().map_err(reading())? {
            None => break,
            Some(Ok((located, batch))) => {
                let header = located.header;
                let fault = find_fault(&header, batch, segment.bounds(), &before, next.as_ref());
                match fault {
                    Some(fault) => fault,
                    None => {
                        before = Before::after(&header);
                        segment.index(disk, &header, index_interval_bytes)?;
                        if header.leader_epoch >= last_epoch {
                            last_epoch = header.leader_epoch;
                            recovered.epochs_changed |=
                                epochs.reconcile(last_epoch, header.base_offset);
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
                        continue;
                    }
                }
            }
            Some(Err(source @ HeaderError::OldMagic(_))) => {
                let is_old = is_old_message(&*file, position, bytes);
                if is_old.map_err(reading())? {
                    // Cutting it off would destroy what a conversion could still read.
                    return Err(LogError::OldFormat {
                        path,
                        position,
                        source,
                    });
                }
                Fault::Header(source)
            }
            Some(Err(error)) => Fault::Header(error),
        };
        let (from, to) = (position, bytes);
        let base_offset = segment.base_offset();
        let search = Search::new(&*file, from, to, base_offset, before.next_offset);
        let mut search = search.map_err(reading())?;
        let found = loop {
            if ends_at_damage {
                break None;
            }
            pace.breathe().await;
            match search.step().map_err(reading())? {
                Step::Found(position, header) => break Some((position, header)),
                Step::NotYet => {}
                Step::Nothing => break None,
            }
        };
        let Some((resumed, header)) = found else {
            recovered.invalid = Some(Invalid {
                position,
                next_offset: before.next_offset,
                fault,
            });
            break;
        };
        let damage = damage(position, before.next_offset, found, to as u32, Offset(0));
        if damage.next_offset > log_start_offset {
            segment.tell(&damage, fault);
            recovered.damaged += 1;
        }
        segment.keep_damage(damage);
        scan.pass_over(resumed);
        before = Before::at(header.base_offset);
    }
    Ok(recovered)
}

/// Whether bytes at a file's end may be a damaged batch below the recovery point, rather than
/// a torn one beyond it: there may be a hole before the recovery point, where a truncation
/// fell into one. Zeros were never written.
pub fn is_below_recovery_point(
    file: &dyn File,
    start: u64,
    end: u64,
    recovery_point: Offset,
) -> io::Result<bool> {
    let mut head = [0; HEADER_LEN];
    if end - start < HEADER_LEN as u64 {
        return Ok(false);
    }
    file.read_exact_at(&mut head, start)?;
    let offset = head
        .first_chunk()
        .map_or(0, |bytes| i64::from_be_bytes(*bytes));
    Ok(offset < recovery_point.0 && head.iter().any(|byte| *byte != 0))
}

/// Whether a segment begins with a valid batch, not below `offset`.
pub fn begins_validly(segment: &Segment, offset: Offset) -> io::Result<bool> {
    let file = segment.file().clone();
    let mut scan = BatchScan::new(&*file, 0, u64::from(segment.size()));
    let before = Before::at(segment.base_offset().max(offset));
    Ok(match scan.next()? {
        Some(Ok((located, batch))) => {
            find_fault(&located.header, batch, segment.bounds(), &before, None).is_none()
        }
        _ => false,
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
