//! The newest bytes of the logs of one core, for consumers and followers that keep up:
//! they are answered from memory, mostly with the very bytes that the producer sent.
//!
//! All logs of a core share one [`TailPool`] with one bound; what was appended first,
//! in whichever log, goes first. A log's part is always a contiguous suffix of it, so
//! that a read which begins in the cache also ends there.
//!
//! ```text
//! log:    ..... file only ..... | run | run |  run  | open run
//!                               | batches, whole, back to back
//! ```
//! Small batches are copied, or each would pin the receive buffer that it came in: they
//! collect in a slab of the log, and a read seals what has come since the last read into
//! one run, hence one chunk. Large batches are runs of their own: in the buffer that they
//! came in, which then counts whole, or copied where that is over twice as large.
//!
//! Invariants: runs of a log are in order of offset and position, each within one
//! segment; what the pool keeps from being freed is at most `bytes_max` bytes plus one
//! append.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use slab::Slab;
use smallvec::SmallVec;

use super::batch_header::BatchHeader;
use crate::base::Offset;
use crate::io::Chunk;

/// Appends below this size are copied.
const COPY_BELOW_BYTES: usize = 16 * 1024;
/// A log's first slab, doubled for each that it fills.
const SLAB_BYTES_MIN: usize = 4 * 1024;
const SLAB_BYTES_MAX: usize = 64 * 1024;

/// The cache of a core's logs.
#[derive(Clone, Debug)]
pub struct TailPool(Rc<RefCell<Pool>>);

/// One log's part of the pool; given up when dropped.
#[derive(Debug)]
pub struct TailCache {
    pool: Rc<RefCell<Pool>>,
    log: usize,
}

/// Where appended batches stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub base_offset: Offset,
    pub next_offset: Offset,
    pub segment_base_offset: Offset,
    pub position: u32,
}

/// A batch found in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub base_offset: Offset,
    pub segment_base_offset: Offset,
    pub position: u32,
    pub size: u32,
    run: usize,
    at: usize,
}

#[derive(Debug)]
struct Pool {
    logs: Slab<Log>,
    /// Runs of all logs in the order in which they began. Those of logs that are gone
    /// or were cleared are skipped.
    order: VecDeque<(usize, u64)>,
    next_sequence: u64,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Log {
    runs: VecDeque<Run>,
    open: Option<OpenRun>,
    slab: BytesMut,
    slab_bytes: usize,
    /// Slabs that have been filled: their size, and the last run that lies in them.
    filled: VecDeque<(u64, usize)>,
}

#[derive(Debug)]
struct Run {
    sequence: u64,
    extent: Extent,
    bytes: Bytes,
    /// Memory that the run alone keeps from being freed: none in a slab, which is accounted
    /// for as a whole.
    held: usize,
}

/// Batches at the start of the slab that no read has asked for.
#[derive(Debug)]
struct OpenRun {
    sequence: u64,
    extent: Extent,
}

impl TailPool {
    pub fn new(bytes_max: usize) -> TailPool {
        TailPool(Rc::new(RefCell::new(Pool {
            logs: Slab::new(),
            order: VecDeque::new(),
            next_sequence: 0,
            bytes: 0,
            bytes_max,
        })))
    }

    /// The part of a new log.
    pub fn cache(&self) -> TailCache {
        TailCache {
            log: self.0.borrow_mut().logs.insert(Log::default()),
            pool: self.0.clone(),
        }
    }

    /// Memory that is kept from being freed: slabs and other buffers, whole.
    pub fn bytes(&self) -> usize {
        self.0.borrow().bytes
    }
}

impl TailCache {
    /// Takes in what has just been written at the end of the log. It lies in a buffer of
    /// `buffer_bytes`, with others perhaps.
    pub fn push(&self, extent: Extent, bytes: Bytes, buffer_bytes: usize) {
        let pool = &mut *self.pool.borrow_mut();
        let len = bytes.len();
        if len < COPY_BELOW_BYTES {
            pool.push_copy(self.log, extent, &bytes);
        } else if buffer_bytes > 2 * len {
            pool.push_whole(self.log, extent, Bytes::copy_from_slice(&bytes), len);
        } else {
            // Two such batches at most share a buffer, which then counts twice.
            pool.push_whole(self.log, extent, bytes, buffer_bytes.max(len));
        }
        pool.evict();
    }

    /// The batch that contains `offset`, or the first after it. `None` when the cache
    /// begins later, or ends before.
    pub fn find(&self, offset: Offset) -> Option<Found> {
        let pool = &mut *self.pool.borrow_mut();
        let log = &mut pool.logs[self.log];
        log.seal();
        let run = log
            .runs
            .partition_point(|run| run.extent.next_offset <= offset);
        let Run { extent, bytes, .. } = log.runs.get(run)?;
        if run == 0 && offset < extent.base_offset {
            return None;
        }
        let mut at = 0;
        loop {
            let header = BatchHeader::parse(&bytes[at..]).expect("runs are whole batches");
            if header.last_offset() >= offset {
                return Some(Found {
                    base_offset: header.base_offset,
                    segment_base_offset: extent.segment_base_offset,
                    position: extent.position + at as u32,
                    size: header.size,
                    run,
                    at,
                });
            }
            at += header.size as usize;
        }
    }

    /// Up to `len` bytes from where [`Self::find`] has just found a batch, within its
    /// segment.
    pub fn chunks(&self, found: &Found, len: usize) -> SmallVec<[Chunk; 2]> {
        let pool = self.pool.borrow();
        let mut chunks = SmallVec::new();
        let (mut at, mut left) = (found.at, len);
        for run in pool.logs[self.log].runs.range(found.run..) {
            if left == 0 || run.extent.segment_base_offset != found.segment_base_offset {
                break;
            }
            let end = run.bytes.len().min(at.saturating_add(left));
            chunks.push(Chunk::Bytes(run.bytes.slice(at..end)));
            left -= end - at;
            at = 0;
        }
        chunks
    }

    /// Forgets everything: the log was truncated.
    pub fn clear(&self) {
        let pool = &mut *self.pool.borrow_mut();
        pool.clear(self.log);
    }
}

impl Drop for TailCache {
    fn drop(&mut self) {
        let pool = &mut *self.pool.borrow_mut();
        pool.clear(self.log);
        pool.logs.remove(self.log);
    }
}

impl Pool {
    fn push_whole(&mut self, log: usize, extent: Extent, bytes: Bytes, held: usize) {
        let sequence = self.begin_run(log);
        let log = &mut self.logs[log];
        log.seal();
        self.bytes += held;
        log.runs.push_back(Run {
            sequence,
            extent,
            bytes,
            held,
        });
    }

    fn push_copy(&mut self, log: usize, extent: Extent, bytes: &[u8]) {
        if self.logs[log].slab.capacity() - self.logs[log].slab.len() < bytes.len() {
            self.new_slab(log, bytes.len());
        }
        let same_segment = |run: &OpenRun| {
            run.extent.segment_base_offset == extent.segment_base_offset
                && run.extent.next_offset <= extent.base_offset
        };
        if !self.logs[log].open.as_ref().is_some_and(same_segment) {
            let sequence = self.begin_run(log);
            let log = &mut self.logs[log];
            log.seal();
            log.open = Some(OpenRun { sequence, extent });
        }
        let log = &mut self.logs[log];
        log.slab.extend_from_slice(bytes);
        if let Some(open) = &mut log.open {
            open.extent.next_offset = extent.next_offset;
        }
    }

    fn begin_run(&mut self, log: usize) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.order.push_back((log, sequence));
        sequence
    }

    fn new_slab(&mut self, log: usize, len_min: usize) {
        let log = &mut self.logs[log];
        log.seal();
        if log.slab_bytes > 0 {
            match log.runs.back() {
                // Runs that aren't in the slab may follow its last one; it is then
                // kept a little longer than need be.
                Some(run) => log.filled.push_back((run.sequence, log.slab_bytes)),
                None => self.bytes -= log.slab_bytes,
            }
        }
        let doubled = (log.slab_bytes * 2).clamp(SLAB_BYTES_MIN, SLAB_BYTES_MAX);
        log.slab = BytesMut::with_capacity(doubled.max(len_min.next_power_of_two()));
        log.slab_bytes = log.slab.capacity();
        self.bytes += log.slab_bytes;
    }

    /// Drops runs, oldest first, until the bound holds.
    fn evict(&mut self) {
        while self.bytes > self.bytes_max {
            let Some((log, sequence)) = self.order.pop_front() else {
                break;
            };
            let Some(log) = self.logs.get_mut(log) else {
                continue;
            };
            self.bytes -= log.drop_run(sequence);
        }
        // Of logs that were cleared or dropped, entries remain until their turn comes;
        // don't let them pile up where nothing is evicted.
        if self.order.len() > 64 && self.order.len() > 2 * self.live_runs() {
            let logs = &self.logs;
            self.order
                .retain(|(log, sequence)| logs.get(*log).is_some_and(|log| log.has(*sequence)));
        }
    }

    fn live_runs(&self) -> usize {
        let runs = self.logs.iter().map(|(_, log)| log.runs.len() + 1);
        runs.sum()
    }

    fn clear(&mut self, log: usize) {
        let log = std::mem::take(&mut self.logs[log]);
        self.bytes -= log.bytes();
    }
}

impl Log {
    /// Ends the open run.
    fn seal(&mut self) {
        if let Some(open) = self.open.take() {
            self.runs.push_back(Run {
                sequence: open.sequence,
                extent: open.extent,
                bytes: self.slab.split().freeze(),
                held: 0,
            });
        }
    }

    fn has(&self, sequence: u64) -> bool {
        let open = self.open.as_ref().map(|open| open.sequence);
        let runs = self.runs.front().zip(self.runs.back());
        open == Some(sequence)
            || runs
                .is_some_and(|(first, last)| (first.sequence..=last.sequence).contains(&sequence))
    }

    /// Drops the run if it is still the oldest; returns the bytes that this frees.
    fn drop_run(&mut self, sequence: u64) -> usize {
        if self.runs.is_empty() && self.open.as_ref().is_some_and(|o| o.sequence == sequence) {
            self.seal();
        }
        let Some(run) = self.runs.pop_front_if(|run| run.sequence == sequence) else {
            return 0;
        };
        let mut freed = run.held;
        while let Some((_, bytes)) = self.filled.pop_front_if(|(last, _)| *last <= sequence) {
            freed += bytes;
        }
        if self.runs.is_empty() && self.open.is_none() {
            // An idle log keeps no slab.
            freed += std::mem::take(&mut self.slab_bytes);
            self.slab = BytesMut::new();
        }
        freed
    }

    fn bytes(&self) -> usize {
        let whole: usize = self.runs.iter().map(|run| run.held).sum();
        let filled: usize = self.filled.iter().map(|(_, bytes)| bytes).sum();
        whole + filled + self.slab_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;
    use crate::log::testing::batch_of_size;

    struct Model {
        cache: TailCache,
        file: Vec<u8>,
        segment: i64,
        next: i64,
    }

    impl Model {
        fn new(pool: &TailPool) -> Model {
            Model {
                cache: pool.cache(),
                file: Vec::new(),
                segment: 0,
                next: 0,
            }
        }

        fn next_extent(&self) -> Extent {
            Extent {
                base_offset: Offset(self.next),
                next_offset: Offset(self.next + 2),
                segment_base_offset: Offset(self.segment),
                position: self.file.len() as u32,
            }
        }

        fn append(&mut self, size: usize) {
            let batch = batch_of_size(self.next, 2, size);
            let extent = self.next_extent();
            self.file.extend_from_slice(&batch);
            let buffer_bytes = batch.capacity();
            self.cache.push(extent, batch.into(), buffer_bytes);
            self.next += 2;
        }

        /// As a slice of a larger buffer, such as a frame with other batches.
        fn append_within(&mut self, size: usize, buffer_bytes: usize) -> Bytes {
            let batch = batch_of_size(self.next, 2, size);
            let extent = self.next_extent();
            self.file.extend_from_slice(&batch);
            let mut buffer = BytesMut::with_capacity(buffer_bytes);
            buffer.extend_from_slice(&batch);
            let bytes = buffer.freeze();
            self.cache.push(extent, bytes.clone(), buffer_bytes);
            self.next += 2;
            bytes
        }

        /// What is read from `offset` on is what the file holds there.
        fn check(&self, offset: i64, len: usize) -> bool {
            let Some(found) = self.cache.find(Offset(offset)) else {
                return false;
            };
            assert_eq!(found.base_offset.0, offset & !1);
            if found.segment_base_offset.0 != self.segment {
                return true;
            }
            let read: Vec<u8> = self
                .cache
                .chunks(&found, len)
                .iter()
                .flat_map(|chunk| chunk.to_bytes().unwrap())
                .collect();
            let from = found.position as usize;
            let to = self.file.len().min(from.saturating_add(len));
            assert_eq!(read, self.file[from..to]);
            true
        }
    }

    #[test]
    fn reads_agree_with_the_file_within_the_bound() {
        let bytes_max = 512 * 1024;
        let pool = TailPool::new(bytes_max);
        let mut logs: Vec<Model> = (0..3).map(|_| Model::new(&pool)).collect();
        let mut rng = Rng::new(11);
        let mut hits = 0;
        for _ in 0..5_000 {
            let log = &mut logs[rng.below(3) as usize];
            match rng.below(20) {
                0 => {
                    log.segment = log.next;
                    log.file.clear();
                }
                1 => {
                    log.cache.clear();
                    assert!(log.cache.find(Offset(log.next - 1)).is_none());
                }
                2 => *log = Model::new(&pool),
                3..8 => {
                    let back = rng.below(64) as i64;
                    let offset = (log.next - 1 - back).max(0);
                    hits += usize::from(log.check(offset, rng.below(40_000) as usize));
                }
                8..10 => log.append(20_000 + rng.below(20_000) as usize),
                _ => log.append(100 + rng.below(3_000) as usize),
            }
            assert!(pool.bytes() <= bytes_max + 64 * 1024);
        }
        assert!(hits > 300, "{hits}");
        drop(logs);
        assert_eq!(pool.bytes(), 0);
        assert!(pool.0.borrow().order.len() < 1_000);
    }

    #[test]
    fn a_batch_counts_as_much_as_it_keeps_from_being_freed() {
        let bytes_max = 1 << 20;
        let pool = TailPool::new(bytes_max);
        let mut log = Model::new(&pool);
        let in_its_buffer = log.append_within(20_000, 39_000);
        assert_eq!(pool.bytes(), 39_000);
        assert!(!in_its_buffer.is_unique());
        // Of a buffer that is mostly something else, only a copy of the batch is kept.
        let copied = log.append_within(20_000, 10 << 20);
        assert_eq!(pool.bytes(), 39_000 + copied.len());
        assert!(copied.is_unique());
        assert!(log.check(0, usize::MAX) && log.check(2, usize::MAX));
        for _ in 0..200 {
            log.append_within(20_000, 39_000);
            assert!(pool.bytes() <= bytes_max);
        }
        assert!(in_its_buffer.is_unique(), "it was evicted");
        assert!(pool.bytes() > bytes_max - 39_000);
        log.cache.clear();
        assert_eq!(pool.bytes(), 0);
    }

    #[test]
    fn small_batches_between_reads_are_one_chunk() {
        let pool = TailPool::new(1 << 20);
        let mut log = Model::new(&pool);
        for _ in 0..10 {
            log.append(100);
        }
        let chunks = |log: &Model| {
            let found = log.cache.find(Offset(0)).unwrap();
            log.cache.chunks(&found, usize::MAX).len()
        };
        assert_eq!(chunks(&log), 1);
        for _ in 0..10 {
            log.append(100);
        }
        assert_eq!(chunks(&log), 2);
        log.append(30_000);
        assert_eq!(chunks(&log), 3);
        assert!(log.cache.find(Offset(log.next)).is_none());
    }
}
