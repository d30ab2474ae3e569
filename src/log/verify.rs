//! Readers get whole and valid batches of their log, or an error: the bytes of a segment that
//! this process hasn't written itself are checked when they are first read (CRC, offsets and
//! leader epochs; [`super::damage`]), and the ranges that were remembered. It costs one look
//! at each byte of an old segment in a process's life; what was appended or recovered since
//! the start, and all that is read again, costs nothing.
//!
//! Kafka leaves this to its consumers, which check the CRC; but that covers neither offset
//! nor leader epoch, and a consumer can't tell a broker's bad sector from a bad network. The
//! damaged range is answered with CORRUPT_MESSAGE: Kafka's consumers raise that to the
//! application, which may seek beyond it, where for KAFKA_STORAGE_ERROR they would wait for
//! another leader, for ever.
//!
//! Called by `fetch` and by [`super::segment`]'s own lookups. A read that is refused because
//! it would wait for the disk ([`crate::io::Rt::without_waiting`]) leaves no trace here.

use std::io;

use super::batch_header::BatchHeader;
use super::damage::{Before, Bounds, Damage, Fault, Search, Step, find_fault};
use super::error::LogError;
use super::leader_epoch::LeaderEpochCache;
use super::scan::{BatchScan, HeaderScan, Located};
use super::segment::Segment;
use crate::base::Offset;
use crate::record::BatchView;

/// Bytes that are checked in one read at most, unless a batch is larger: a reader gets less
/// at a time.
const CHECK_BYTES_MAX: u32 = 1 << 20;
/// Ranges remembered for a segment; one that is read at more places is checked again.
const RANGES_MAX: usize = 256;
/// Steps of a search for the end of damage, at 128 KiB; an index entry ends it earlier.
const SEARCH_STEPS_MAX: usize = 64;

/// Whole and valid batches.
#[derive(Clone, Copy, Debug)]
struct Range {
    start: u32,
    end: u32,
    /// What is before the batch at `end`.
    after: Before,
}

/// What is known of a segment's bytes.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// From here on everything was written or checked by this process.
    pub from: u32,
    /// Below that, in order, not touching.
    ranges: Vec<Range>,
    /// In order.
    damage: Vec<Damage>,
}

impl Checked {
    /// Everything up to `size` is unknown.
    pub fn nothing_below(size: u32) -> Checked {
        Checked {
            from: size,
            ..Checked::default()
        }
    }

    /// How far everything from `position` on has been checked, and what is before that.
    fn end_at(&self, position: u32) -> Option<(u32, Option<Before>)> {
        if position >= self.from {
            return Some((u32::MAX, None));
        }
        let later = self.ranges.partition_point(|range| range.start <= position);
        let range = self.ranges.get(later.checked_sub(1)?)?;
        (position < range.end).then_some((range.end, Some(range.after)))
    }

    fn add(&mut self, added: Range) {
        let first = self.ranges.partition_point(|range| range.end < added.start);
        let later = self
            .ranges
            .partition_point(|range| range.start <= added.end);
        let mut merged = added;
        for range in &self.ranges[first..later.max(first)] {
            merged.start = merged.start.min(range.start);
            if range.end > merged.end {
                (merged.end, merged.after) = (range.end, range.after);
            }
        }
        self.ranges.splice(first..later.max(first), [merged]);
        if self.ranges.len() > RANGES_MAX {
            self.ranges = vec![merged];
        }
    }

    /// A batch with this offset is written at `position`.
    pub fn on_written(&mut self, position: u32, base_offset: Offset) {
        if let Some(last) = self.damage.last_mut()
            && last.end == position
        {
            last.next_offset = base_offset;
        }
    }

    pub fn truncate_to(&mut self, size: u32) {
        self.from = self.from.min(size);
        self.ranges.retain(|range| range.end <= size);
        self.damage.retain(|damage| damage.start < size);
    }

    fn first_damage_from(&self, position: u32) -> Option<Damage> {
        let damage = self.damage.iter();
        damage.copied().find(|damage| damage.end > position)
    }
}

impl Segment {
    /// The next batch of a walk; what isn't one is noted as damage and passed over.
    pub(super) fn next_batch(&self, scan: &mut HeaderScan<'_>) -> io::Result<Option<Located>> {
        loop {
            let position = scan.position();
            let known = self.checked.borrow().first_damage_from(position as u32);
            let damage = match known {
                Some(damage) if u64::from(damage.start) <= position => damage,
                _ => match scan.next()? {
                    None => return Ok(None),
                    Some(Ok(located)) => return Ok(Some(located)),
                    Some(Err(error)) => match self.overlapped(scan)? {
                        Some(damage) => {
                            self.tell(&damage, Fault::OffsetTooHigh);
                            self.note_damage(damage);
                            damage
                        }
                        None => self.examine(position, scan.next_offset(), Fault::Header(error))?,
                    },
                },
            };
            scan.pass_over(u64::from(damage.end), damage.next_offset);
        }
    }

    /// The damage that a record of this offset may have been lost to.
    pub(super) fn damage_at(&self, offset: Offset) -> Option<Damage> {
        let checked = self.checked.borrow();
        checked.damage.iter().copied().find(|d| d.contains(offset))
    }

    pub(super) fn bounds(&self) -> Bounds {
        Bounds {
            base_offset: self.base_offset(),
            end_offset: self.next_base_offset,
        }
    }

    /// Whether damage is known at a position, so that a walk passes it over.
    pub(super) fn is_damaged(&self, position: u64) -> bool {
        let known = self.checked.borrow().first_damage_from(position as u32);
        known.is_some_and(|damage| u64::from(damage.start) <= position)
    }

    /// The damage that the file ends with.
    pub(super) fn damaged_end(&self) -> Option<Damage> {
        let last = self.checked.borrow().damage.last().copied();
        last.filter(|damage| damage.end == self.size())
    }

    pub(super) fn note_damage(&self, damage: Damage) {
        let mut checked = self.checked.borrow_mut();
        let at = checked.damage.partition_point(|d| d.start < damage.start);
        let after = checked.damage.partition_point(|d| d.start < damage.end);
        checked.damage.splice(at..after.max(at), [damage]);
    }

    /// How far a read from a batch on may go, to at most `limit`; about as far as it wants,
    /// and beyond the first batch at least. An error if that one is damaged.
    pub(super) fn check_from(
        &self,
        located: &Located,
        before: Before,
        epochs: &LeaderEpochCache,
        wanted: u32,
        limit: u32,
    ) -> Result<u32, LogError> {
        let start = located.position as u32;
        let limit = match self.checked.borrow().first_damage_from(start) {
            Some(damage) => limit.min(damage.start.max(start)),
            None => limit,
        };
        let checked = |position| self.checked.borrow().end_at(position);
        let until = start
            .saturating_add(wanted.clamp(1, CHECK_BYTES_MAX))
            .min(limit);
        let mut before = Some(before);
        let mut end = start;
        while end < until {
            if let Some((checked_end, after)) = checked(end) {
                (end, before) = (checked_end, after);
                continue;
            }
            let Some(known) = before else { break };
            let (reached, after) = self
                .check_batches(end, known, epochs, until)
                .map_err(LogError::io("checking", self.path()))?;
            if reached > end {
                self.checked.borrow_mut().add(Range {
                    start: end,
                    end: reached,
                    after,
                });
            }
            end = reached;
            if end < until {
                // What is there is damaged, or the segment ends.
                break;
            }
        }
        if end == start && limit > start {
            return Err(self.corrupt(located.header.base_offset));
        }
        Ok(end.min(limit))
    }

    pub(super) fn corrupt(&self, offset: Offset) -> LogError {
        let next_offset = self.damage_at(offset).map(|damage| damage.next_offset);
        LogError::Corrupt {
            path: self.path().to_owned(),
            offset,
            next_offset: next_offset.unwrap_or(offset),
        }
    }

    /// Checks batches until `until` is reached or one isn't whole and valid, which is noted;
    /// returns where that was, and what is before it.
    fn check_batches(
        &self,
        start: u32,
        mut before: Before,
        epochs: &LeaderEpochCache,
        until: u32,
    ) -> io::Result<(u32, Before)> {
        let bounds = self.bounds();
        let file = self.file().clone();
        let mut scan = BatchScan::new(&*file, u64::from(start), u64::from(self.size()));
        loop {
            let position = scan.position();
            let next = scan.peek_after();
            let read = next.and_then(|next| Ok((next, scan.next()?)));
            let (next, read) = match read {
                // What was read before comes to the reader; who begins here is refused.
                Err(error)
                    if position > u64::from(start) && error.kind() != io::ErrorKind::WouldBlock =>
                {
                    return Ok((position as u32, before));
                }
                read => read?,
            };
            let fault = match read {
                None => return Ok((position as u32, before)),
                Some(Ok((located, batch))) => {
                    let header = located.header;
                    let fault = find_fault(&header, batch, bounds, &before, next.as_ref());
                    match fault.or_else(|| epoch_fault(&header, &before, next.as_ref(), epochs)) {
                        None => {
                            before = Before::after(&header);
                            let end = position as u32 + header.size;
                            if end >= until {
                                return Ok((end, before));
                            }
                            continue;
                        }
                        Some(fault) => fault,
                    }
                }
                Some(Err(error)) => Fault::Header(error),
            };
            let known = self.checked.borrow().first_damage_from(position as u32);
            if known.is_none_or(|damage| u64::from(damage.start) > position) {
                self.examine(position, before.next_offset, fault)?;
            }
            return Ok((position as u32, before));
        }
    }

    /// Where a batch's offset is below the end of the one before: the damage, if that one is
    /// invalid, or began higher than it had to and this one fits without it.
    fn overlapped(&self, scan: &mut HeaderScan<'_>) -> io::Result<Option<Damage>> {
        let (Some((last, before)), Some(header)) = (scan.last(), scan.peek()?) else {
            return Ok(None);
        };
        let fits = before.next_offset <= header.base_offset
            && header.base_offset < last.header.next_offset();
        let began_high = last.header.base_offset > before.next_offset;
        let mut batch = vec![0; last.header.size as usize];
        self.file().read_exact_at(&mut batch, last.position)?;
        let is_valid = BatchView::parse(&batch).is_ok_and(|view| view.verify_crc());
        Ok((fits && (began_high || !is_valid)).then(|| Damage {
            start: last.position as u32,
            end: scan.position() as u32,
            first_offset: before.next_offset,
            next_offset: header.base_offset,
        }))
    }

    /// Finds out how far damage goes, tells of it and notes it.
    fn examine(&self, start: u64, first_offset: Offset, fault: Fault) -> io::Result<Damage> {
        let file = self.file().clone();
        let size = u64::from(self.size());
        let mut search = Search::new(&*file, start, size, self.base_offset(), first_offset)?;
        let mut steps = SEARCH_STEPS_MAX;
        let found = loop {
            match search.step()? {
                Step::Found(position, header) => break Some((position, header)),
                Step::NotYet if steps > 0 => steps -= 1,
                Step::NotYet | Step::Nothing => break None,
            }
        };
        let damage = damage(start, first_offset, found, self.size(), Offset(i64::MAX));
        self.tell(&damage, fault);
        // What a walk by headers noted beyond, it may have come to through this one's header.
        // What recovery noted it came to batch by batch.
        let mut checked = self.checked.borrow_mut();
        let from = checked.from;
        let is_reliable = |d: &Damage| u64::from(d.start) <= start || d.start >= from;
        checked.damage.retain(is_reliable);
        drop(checked);
        self.note_damage(damage);
        Ok(damage)
    }

    pub(super) fn tell(&self, damage: &Damage, fault: Fault) {
        tracing::error!(
            file = %self.path().display(),
            position = damage.start,
            bytes = damage.end - damage.start,
            offset = damage.first_offset.0,
            next_offset = damage.next_offset.0,
            %fault,
            "damaged batch: its records are refused, what follows stays; once DeleteRecords up to \
             next_offset has been asked for, or another replica copied, the log is whole again"
        );
    }
}

/// Whether a batch has another epoch than the epochs' file tells, which tells that of its
/// neighbours right.
fn epoch_fault(
    header: &BatchHeader,
    before: &Before,
    next: Option<&BatchHeader>,
    epochs: &LeaderEpochCache,
) -> Option<Fault> {
    let told = |offset| epochs.epoch_for_offset(offset);
    if told(header.base_offset).is_none_or(|epoch| epoch == header.leader_epoch) {
        return None;
    }
    let before_agrees = before.leader_epoch.0 < 0
        || told(before.next_offset + -1).is_none_or(|epoch| epoch == before.leader_epoch);
    let next_agrees = next
        .is_none_or(|next| told(next.base_offset).is_some_and(|epoch| epoch == next.leader_epoch));
    (before_agrees && next_agrees).then_some(Fault::LeaderEpoch)
}

/// From `start` to the batch that was found, or to the end of the file.
pub(super) fn damage(
    start: u64,
    first_offset: Offset,
    found: Option<(u64, BatchHeader)>,
    size: u32,
    end_offset: Offset,
) -> Damage {
    let (end, next_offset) = match found {
        Some((position, header)) => (position as u32, header.base_offset),
        None => (size, end_offset),
    };
    Damage {
        start: start as u32,
        end,
        first_offset,
        next_offset,
    }
}
