//! Walks over the batches of a segment file, by headers or whole.
//!
//! Both stop at the first bytes that are no batch and tell why; nothing read from the
//! file is trusted further than that.

use std::io;

use super::batch_header::{BatchHeader, HEADER_LEN, HeaderError};
use super::damage::Before;
use crate::base::Offset;
use crate::io::disk::File;

const HEADER_SCAN_BYTES: usize = 4 * 1024;
const BATCH_SCAN_BYTES: usize = 256 * 1024;

/// A header and where its batch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    pub position: u64,
    pub header: BatchHeader,
}

/// Walks headers; payloads are skipped, not read.
pub struct HeaderScan<'f> {
    file: &'f dyn File,
    position: u64,
    end: u64,
    before: Before,
    /// The batch that was returned last, and what was before it.
    last: Option<(Located, Before)>,
    buffer: [u8; HEADER_SCAN_BYTES],
    buffer_position: u64,
    buffered: usize,
}

impl<'f> HeaderScan<'f> {
    /// From `position`, where a batch starts, up to `end`.
    pub fn new(file: &'f dyn File, position: u64, end: u64) -> Self {
        HeaderScan {
            file,
            position,
            end,
            before: Before::at(Offset(0)),
            last: None,
            buffer: [0; HEADER_SCAN_BYTES],
            buffer_position: 0,
            buffered: 0,
        }
    }

    /// The first batch may not begin below `offset`.
    pub fn expecting(self, offset: Offset) -> Self {
        HeaderScan {
            before: Before::at(offset),
            ..self
        }
    }

    /// Where the next batch starts.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The least offset that the next batch can have.
    pub fn next_offset(&self) -> Offset {
        self.before.next_offset
    }

    /// The batch that was returned last, and what was before it.
    pub fn last(&self) -> Option<(Located, Before)> {
        self.last
    }

    /// The header at the position, if one can be read there.
    pub fn peek(&mut self) -> io::Result<Option<BatchHeader>> {
        if self.end.saturating_sub(self.position) < HEADER_LEN as u64 {
            return Ok(None);
        }
        let at = self.fill()?;
        Ok(BatchHeader::parse(&self.buffer[at..self.buffered]).ok())
    }

    /// Goes on at `position`, where a batch starts, not below `offset`.
    pub fn pass_over(&mut self, position: u64, offset: Offset) {
        self.position = position;
        self.before = Before::at(offset);
        self.last = None;
    }

    /// `Ok(None)` at the end.
    pub fn next(&mut self) -> io::Result<Option<Result<Located, HeaderError>>> {
        let left = self.end.saturating_sub(self.position);
        if left == 0 {
            return Ok(None);
        }
        if left < HEADER_LEN as u64 {
            return Ok(Some(Err(HeaderError::Truncated)));
        }
        let at = self.fill()?;
        let header = match BatchHeader::parse(&self.buffer[at..self.buffered]) {
            Ok(header) if u64::from(header.size) <= left => header,
            Ok(_) => return Ok(Some(Err(HeaderError::Truncated))),
            Err(error) => return Ok(Some(Err(error))),
        };
        if header.base_offset < self.before.next_offset {
            return Ok(Some(Err(HeaderError::OffsetFalls)));
        }
        let position = self.position;
        let located = Located { position, header };
        self.last = Some((located, self.before));
        self.before = Before::after(&header);
        self.position += u64::from(header.size);
        Ok(Some(Ok(located)))
    }

    /// Like [`Self::next`], where bytes that are no batch are an error of the file.
    pub fn next_valid(&mut self) -> io::Result<Option<Located>> {
        match self.next()? {
            None => Ok(None),
            Some(Ok(located)) => Ok(Some(located)),
            Some(Err(error)) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("at position {}: {error}", self.position),
            )),
        }
    }

    /// Has the header at `position` in the buffer; tells where.
    fn fill(&mut self) -> io::Result<usize> {
        let at = self.position.wrapping_sub(self.buffer_position);
        if at.saturating_add(HEADER_LEN as u64) <= self.buffered as u64 {
            return Ok(at as usize);
        }
        let want = (self.end - self.position).min(HEADER_SCAN_BYTES as u64) as usize;
        let mut filled = 0;
        while filled < HEADER_LEN {
            let position = self.position + filled as u64;
            let into = &mut self.buffer[filled..want];
            match read_ahead(self.file, into, HEADER_LEN - filled, position)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => filled += n,
            }
        }
        self.buffer_position = self.position;
        self.buffered = filled;
        Ok(0)
    }
}

/// Walks whole batches, reading the file in large pieces.
pub struct BatchScan<'f> {
    file: &'f dyn File,
    end: u64,
    /// Of `buffer[start]`.
    position: u64,
    start: usize,
    filled: usize,
    buffer: Vec<u8>,
}

impl<'f> BatchScan<'f> {
    /// From `position`, where a batch starts, up to `end`.
    pub fn new(file: &'f dyn File, position: u64, end: u64) -> Self {
        BatchScan {
            file,
            end,
            position,
            start: 0,
            filled: 0,
            buffer: vec![0; BATCH_SCAN_BYTES],
        }
    }

    /// Where the next batch starts.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// `Ok(None)` at the end.
    #[expect(clippy::type_complexity)]
    pub fn next(&mut self) -> io::Result<Option<Result<(Located, &[u8]), HeaderError>>> {
        let left = self.end.saturating_sub(self.position);
        if left == 0 {
            return Ok(None);
        }
        if left < HEADER_LEN as u64 {
            return Ok(Some(Err(HeaderError::Truncated)));
        }
        self.fill(HEADER_LEN)?;
        let header = match BatchHeader::parse(&self.buffer[self.start..self.filled]) {
            Ok(header) if u64::from(header.size) <= left => header,
            Ok(_) => return Ok(Some(Err(HeaderError::Truncated))),
            Err(error) => return Ok(Some(Err(error))),
        };
        let size = header.size as usize;
        self.fill(size)?;
        let located = Located {
            position: self.position,
            header,
        };
        let from = self.start;
        self.start += size;
        self.position += size as u64;
        Ok(Some(Ok((located, &self.buffer[from..from + size]))))
    }

    /// Goes on at `position`, where a batch starts.
    pub fn pass_over(&mut self, position: u64) {
        self.start = 0;
        self.filled = 0;
        self.position = position;
    }

    /// The header at the position, if one can be read there.
    pub fn peek(&mut self) -> io::Result<Option<BatchHeader>> {
        if self.end.saturating_sub(self.position) < HEADER_LEN as u64 {
            return Ok(None);
        }
        self.fill(HEADER_LEN)?;
        Ok(BatchHeader::parse(&self.buffer[self.start..self.filled]).ok())
    }

    /// The header after the next batch, if both can be read.
    pub fn peek_after(&mut self) -> io::Result<Option<BatchHeader>> {
        let left = self.end.saturating_sub(self.position);
        let Some(header) = self.peek()? else {
            return Ok(None);
        };
        let both = u64::from(header.size) + HEADER_LEN as u64;
        if both > left {
            return Ok(None);
        }
        match self.fill(both as usize) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Ok(None),
            filled => filled?,
        }
        let after = self.start + header.size as usize;
        Ok(BatchHeader::parse(&self.buffer[after..self.filled]).ok())
    }

    /// Has `len` bytes from `position` in the buffer; they lie before `end`.
    fn fill(&mut self, len: usize) -> io::Result<()> {
        if self.filled - self.start >= len {
            return Ok(());
        }
        self.buffer.copy_within(self.start..self.filled, 0);
        self.filled -= self.start;
        self.start = 0;
        if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
        while self.filled < len {
            let position = self.position + self.filled as u64;
            let want = (self.end - position).min((self.buffer.len() - self.filled) as u64);
            let into = &mut self.buffer[self.filled..self.filled + want as usize];
            match read_ahead(self.file, into, len - self.filled, position)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.filled += n,
            }
        }
        Ok(())
    }
}

/// Reads what is needed, and more if it can be had: a bad sector beyond fails nothing.
fn read_ahead(file: &dyn File, into: &mut [u8], needed: usize, position: u64) -> io::Result<usize> {
    match file.read_at(into, position) {
        // Told to wait for the disk, nobody reads twice.
        Err(error) if error.kind() != io::ErrorKind::WouldBlock && needed < into.len() => {
            file.read_at(&mut into[..needed], position)
        }
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::io::disk::{Disk, OpenMode, RealDisk};
    use crate::log::testing::batch_of_size;

    #[test]
    fn both_walks_see_every_batch_and_the_torn_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk
            .open(&dir.path().join("f"), OpenMode::Create)
            .unwrap();
        let sizes = [100, 61, 5_000, 300_000, 4_096, 70, 1_000_000, 99];
        let mut all = Vec::new();
        for (i, size) in sizes.into_iter().enumerate() {
            all.extend(batch_of_size(i as i64, 1, size.max(75)));
        }
        file.write_all_at(&[IoSlice::new(&all)], 0).unwrap();
        for cut in [0, 1, 60, 61, 90] {
            let end = (all.len() - cut) as u64;
            let whole = sizes.len() - usize::from(cut > 0);
            let mut headers = HeaderScan::new(&*file, 0, end);
            let mut batches = BatchScan::new(&*file, 0, end);
            for i in 0..whole {
                let located = headers.next().unwrap().unwrap().unwrap();
                let (same, bytes) = batches.next().unwrap().unwrap().unwrap();
                assert_eq!(located, same);
                assert_eq!(located.header.base_offset.0, i as i64);
                let at = located.position as usize;
                assert_eq!(bytes, &all[at..at + located.header.size as usize]);
            }
            assert_eq!(headers.position, batches.position());
            let rest = headers.next().unwrap();
            let same = batches.next().unwrap().map(|r| r.map(|(l, _)| l));
            assert_eq!(rest, same);
            assert_eq!(rest, (cut > 0).then_some(Err(HeaderError::Truncated)));
        }
    }
}
