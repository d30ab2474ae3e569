//! What is wrong with a batch, how far the damage goes, and where the log goes on after it.
//!
//! Called by `recovery` for what an unclean stop may have torn, and by [`super::verify`] for
//! what a reader finds. A torn tail is followed by no batch of the same log and lies at or
//! beyond the recovery point: it is cut off. Everything else that isn't whole and valid is
//! damage: it is told, refused to readers, and what follows it stays.
//!
//! Of a batch the CRC covers all but its offset, length, leader epoch and magic; those are
//! held against its neighbours: offsets grow and are consecutive unless records were
//! compacted away, leader epochs don't fall.
//!
//! The next batch after a damaged one is looked for byte by byte. Records may hold whole
//! batches (a mirrored segment, say): so nothing within the bytes that a readable header
//! claims is believed, unless the CRC proves its length wrong.

use std::io;

use super::batch_header::{BatchHeader, HEADER_LEN, HeaderError};
use super::offset_index::relative_offset;
use crate::base::{LeaderEpoch, Offset};
use crate::io::disk::File;
use crate::record::BatchView;

/// Bytes that one step of a search looks at.
const STEP_BYTES: u64 = 128 * 1024;
/// Where the magic stands in a batch; it is all that a search looks at first.
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const CRC_FROM: usize = 21;

/// A range of a segment's file that is no whole and valid batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// In bytes from the start of the segment.
    pub start: u32,
    pub end: u32,
    /// Of the records that may have been there.
    pub first_offset: Offset,
    pub next_offset: Offset,
}

impl Damage {
    pub fn contains(&self, offset: Offset) -> bool {
        self.first_offset <= offset && offset < self.next_offset
    }
}

/// Why bytes are no whole and valid batch of their log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("offsets don't grow")]
    OffsetFalls,
    #[error("the offset doesn't fit the batch after it")]
    OffsetTooHigh,
    #[error("offset is too far from the segment's start")]
    TooFar,
    #[error("leader epoch fits neither neighbour")]
    LeaderEpoch,
    #[error("CRC {stored:08x} is not {computed:08x}")]
    Crc { stored: u32, computed: u32 },
    #[error("batch is malformed")]
    Malformed,
}

/// What stands before a batch.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    /// The batch may not begin below, and begins there unless records were compacted away.
    pub next_offset: Offset,
    /// Of the batch before; -1 for not known.
    pub leader_epoch: LeaderEpoch,
}

impl Before {
    pub fn after(header: &BatchHeader) -> Before {
        Before {
            next_offset: header.next_offset(),
            leader_epoch: header.leader_epoch,
        }
    }

    /// At a segment's start, or after what isn't known.
    pub fn at(next_offset: Offset) -> Before {
        Before {
            next_offset,
            leader_epoch: LeaderEpoch(-1),
        }
    }
}

/// The offsets that a segment can hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub base_offset: Offset,
    /// Where the next segment begins, if there is one.
    pub end_offset: Option<Offset>,
}

/// What is wrong with a batch, by itself and beside its neighbours. `next` is the header
/// after it, if one can be read there.
pub fn find_fault(
    header: &BatchHeader,
    batch: &[u8],
    bounds: Bounds,
    before: &Before,
    next: Option<&BatchHeader>,
) -> Option<Fault> {
    if header.base_offset < before.next_offset {
        return Some(Fault::OffsetFalls);
    }
    if relative_offset(header.last_offset(), bounds.base_offset).is_none() {
        return Some(Fault::TooFar);
    }
    if bounds
        .end_offset
        .is_some_and(|end| header.next_offset() > end)
    {
        return Some(Fault::OffsetTooHigh);
    }
    match BatchView::parse(batch) {
        Ok(view) if view.verify_crc() => {}
        Ok(_) => {
            return Some(Fault::Crc {
                stored: stored_crc(batch),
                computed: crc_fast::crc32_iscsi(&batch[CRC_FROM..]),
            });
        }
        Err(_) => return Some(Fault::Malformed),
    }
    let next = next?;
    // Of two batches that overlap, the one that doesn't join what is before it is wrong.
    let joins = header.base_offset == before.next_offset;
    if !joins && next.base_offset >= before.next_offset && next.base_offset < header.next_offset() {
        return Some(Fault::OffsetTooHigh);
    }
    let (epoch, earlier, later) = (header.leader_epoch, before.leader_epoch, next.leader_epoch);
    let is_between = earlier <= epoch && epoch <= later;
    (!is_between && earlier == later).then_some(Fault::LeaderEpoch)
}

fn stored_crc(batch: &[u8]) -> u32 {
    let bytes = batch.get(CRC_AT..CRC_FROM).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// A search for the batch that follows a damaged one.
pub struct Search<'f> {
    file: &'f dyn File,
    end: u64,
    base_offset: Offset,
    /// Where the damage begins, and the offset that was expected there.
    start: u64,
    first_offset: Offset,
    /// What the header at `start` claims, if it can be read: its end and the CRC.
    claimed: Option<(u64, u32)>,
    stage: Stage,
    position: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Within what the damaged batch claims: only where it ends by its CRC.
    Within,
    /// After that.
    Behind,
}

/// What a step has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Found(u64, BatchHeader),
    NotYet,
    Nothing,
}

impl<'f> Search<'f> {
    pub fn new(
        file: &'f dyn File,
        start: u64,
        end: u64,
        base_offset: Offset,
        first_offset: Offset,
    ) -> io::Result<Search<'f>> {
        let mut head = [0; HEADER_LEN];
        let len = (end - start).min(HEADER_LEN as u64) as usize;
        file.read_exact_at(&mut head[..len], start)?;
        let claimed = BatchHeader::parse(&head[..len]).ok();
        let claimed = claimed.map(|h| (start + u64::from(h.size), stored_crc(&head)));
        let (stage, position) = match claimed {
            Some(_) => (Stage::Within, start + HEADER_LEN as u64),
            None => (Stage::Behind, start + 1),
        };
        Ok(Search {
            file,
            end,
            base_offset,
            start,
            first_offset,
            claimed,
            stage,
            position,
        })
    }

    /// Looks at some more bytes.
    pub fn step(&mut self) -> io::Result<Step> {
        let last = self.end.saturating_sub(HEADER_LEN as u64 - 1);
        let last = match (self.stage, self.claimed) {
            (Stage::Within, Some((claimed_end, _))) => claimed_end.min(last),
            _ => last,
        };
        if self.position >= last {
            return Ok(match (self.stage, self.claimed) {
                (Stage::Within, Some((claimed_end, _))) => {
                    self.stage = Stage::Behind;
                    self.position = claimed_end;
                    Step::NotYet
                }
                _ => Step::Nothing,
            });
        }
        let until = last.min(self.position + STEP_BYTES);
        let mut bytes = vec![0; (until - self.position) as usize + HEADER_LEN - 1];
        self.file.read_exact_at(&mut bytes, self.position)?;
        for (at, head) in bytes.windows(HEADER_LEN).enumerate() {
            if head[MAGIC_AT] != 2 {
                continue;
            }
            let position = self.position + at as u64;
            if let Some(header) = self.batch_at(position, head)? {
                return Ok(Step::Found(position, header));
            }
        }
        self.position = until;
        Ok(Step::NotYet)
    }

    fn batch_at(&self, position: u64, head: &[u8]) -> io::Result<Option<BatchHeader>> {
        let Ok(header) = BatchHeader::parse(head) else {
            return Ok(None);
        };
        // No more records are missing than there were bytes for.
        let missing = header.base_offset.0.checked_sub(self.first_offset.0);
        let is_near = missing.is_some_and(|m| 0 <= m && m as u64 <= position - self.start);
        let fits = u64::from(header.size) <= self.end - position
            && relative_offset(header.last_offset(), self.base_offset).is_some();
        if !is_near || !fits {
            return Ok(None);
        }
        if self.stage == Stage::Within && !self.ends_by_crc(position)? {
            return Ok(None);
        }
        let mut batch = vec![0; header.size as usize];
        self.file.read_exact_at(&mut batch, position)?;
        let is_valid = BatchView::parse(&batch).is_ok_and(|view| view.verify_crc());
        Ok(is_valid.then_some(header))
    }

    /// Whether the damaged batch's CRC is that of its bytes up to `position`.
    fn ends_by_crc(&self, position: u64) -> io::Result<bool> {
        let Some((_, stored)) = self.claimed else {
            return Ok(false);
        };
        let mut bytes = vec![0; (position - self.start) as usize - CRC_FROM];
        self.file
            .read_exact_at(&mut bytes, self.start + CRC_FROM as u64)?;
        Ok(crc_fast::crc32_iscsi(&bytes) == stored)
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::sync::Arc;

    use super::*;
    use crate::io::disk::{Disk, OpenMode, RealDisk};
    use crate::log::testing::batch_of_size;
    use crate::record::{BatchBuilder, BatchParams};

    fn file(bytes: &[u8]) -> (tempfile::TempDir, Arc<dyn File>) {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&dir.path().join("f"), OpenMode::Create);
        let file = file.unwrap();
        file.write_all_at(&[IoSlice::new(bytes)], 0).unwrap();
        (dir, file)
    }

    /// Where the batch after damage at the file's start is found.
    fn found(bytes: &[u8]) -> Option<u64> {
        let (_dir, file) = file(bytes);
        let end = bytes.len() as u64;
        let mut search = Search::new(&*file, 0, end, Offset(0), Offset(0)).unwrap();
        loop {
            match search.step().unwrap() {
                Step::Found(position, _) => return Some(position),
                Step::NotYet => {}
                Step::Nothing => return None,
            }
        }
    }

    /// A batch whose one value is a whole batch of a plausible offset.
    fn with_batch_inside() -> Vec<u8> {
        let mut builder = BatchBuilder::new(BatchParams::default());
        let mut value = batch_of_size(7, 1, 300);
        value.extend([b'x'; 500]);
        builder.append(1_000, None, Some(&value), &[]);
        builder.finish().to_vec()
    }

    #[test]
    fn the_next_batch_is_found_whatever_is_damaged() {
        let first = batch_of_size(0, 3, 400_000);
        let rest = [batch_of_size(3, 1, 200), batch_of_size(4, 1, 200)].concat();
        let len = first.len();
        for (at, bit) in [
            (11, 0),
            (9, 7),
            (10, 3),
            (16, 0),
            (16, 2),
            (20, 1),
            (30, 0),
            (0, 7),
        ] {
            let mut bytes = [&first[..], &rest].concat();
            bytes[at] ^= 1 << bit;
            assert_eq!(found(&bytes), Some(len as u64), "byte {at} bit {bit}");
        }
        let mut zeroed = [&first[..], &rest].concat();
        zeroed[..4096].fill(0);
        assert_eq!(found(&zeroed), Some(len as u64));
        zeroed[len..].fill(0);
        assert_eq!(found(&zeroed), None);
    }

    #[test]
    fn what_a_value_holds_is_no_batch_of_the_log() {
        let outer = with_batch_inside();
        let torn = &outer[..outer.len() - 100];
        assert_eq!(found(torn), None);
        // Nor where the batch is damaged and another follows.
        let mut bytes = [&outer[..], &batch_of_size(1, 1, 100)].concat();
        bytes[outer.len() - 1] ^= 1;
        assert_eq!(found(&bytes), Some(outer.len() as u64));
    }

    #[test]
    fn neighbours_show_a_wrong_offset_or_epoch() {
        let bytes = batch_of_size(10, 2, 200);
        let header = BatchHeader::parse(&bytes).unwrap();
        let next = BatchHeader::parse(&batch_of_size(12, 1, 100)).unwrap();
        let fault = |base: i64, epoch: i32, before: &Before| {
            let header = BatchHeader {
                base_offset: Offset(base),
                leader_epoch: LeaderEpoch(epoch),
                ..header
            };
            let bounds = Bounds {
                base_offset: Offset(0),
                end_offset: Some(Offset(1_000)),
            };
            find_fault(&header, &bytes, bounds, before, Some(&next))
        };
        let before = Before {
            next_offset: Offset(10),
            leader_epoch: LeaderEpoch(0),
        };
        assert_eq!(fault(10, 0, &before), None);
        assert_eq!(fault(8, 0, &before), Some(Fault::OffsetFalls));
        assert_eq!(fault(11, 0, &before), Some(Fault::OffsetTooHigh));
        assert_eq!(fault(999, 0, &before), Some(Fault::OffsetTooHigh));
        assert_eq!(fault(10, 1, &before), Some(Fault::LeaderEpoch));
        let compacted = Before::at(Offset(4));
        assert_eq!(fault(10, 0, &compacted), None);
        assert_eq!(fault(10, 5, &compacted), None);
    }
}
