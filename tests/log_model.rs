//! Random operations on a log, compared after each with a list of batches in memory; and
//! a log cut or damaged at every byte. `OTTLA_LOG_SEED` repeats one run.

#[path = "support/rules.rs"]
mod rules;

use std::path::Path;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use ottla::base::{ErrorCode, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Rng};
use ottla::io::RealDisk;
use ottla::log::batch_header::BatchHeader;
use ottla::log::{
    AppendError, AppendInfo, FlushScope, Log, LogConfig, OpenParams, ReadError, RecoveryReport,
    TailPool, manager,
};
use ottla::record::{BatchBuilder, BatchParams, ProducerInfo, validate};
use rules::rules;

const NOW: i64 = 1_700_000_000_000;

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 40_000,
        index_interval_bytes: 300,
        segment_index_bytes: 400,
        retention_ms: -1,
        ..LogConfig::default()
    }
}

fn open(dir: &Path, params: &OpenParams, pool: &TailPool) -> (Log, RecoveryReport) {
    Log::open(Rc::new(RealDisk), dir, config(), params, pool, NOW).unwrap()
}

/// Sends a batch through the leader's checks.
fn produce(log: &mut Log, batch: BytesMut, epoch: LeaderEpoch) -> Result<AppendInfo, AppendError> {
    let validated = validate(batch, &rules(NOW)).unwrap();
    log.append_as_leader(validated, epoch, NOW)
}

fn batch(params: BatchParams, timestamps: &[i64], value_len: usize) -> BytesMut {
    let mut builder = BatchBuilder::new(params);
    for timestamp in timestamps {
        builder.append(*timestamp, Some(b"k"), Some(&vec![b'v'; value_len]), &[]);
    }
    BytesMut::from(&builder.finish()[..])
}

/// A batch that the log holds.
#[derive(Clone)]
struct Held {
    header: BatchHeader,
    bytes: Vec<u8>,
    timestamps: Vec<i64>,
}

struct Model {
    rng: Rng,
    pool: TailPool,
    dir: tempfile::TempDir,
    log: Log,
    held: Vec<Held>,
    start: i64,
    end: i64,
    epoch: i32,
    sequences: [i32; 3],
    clock: i64,
}

impl Model {
    fn new(seed: u64) -> Model {
        let dir = tempfile::tempdir().unwrap();
        let pool = TailPool::new(24 * 1024);
        let (log, _) = open(dir.path(), &OpenParams::default(), &pool);
        Model {
            rng: Rng::new(seed),
            pool,
            dir,
            log,
            held: Vec::new(),
            start: 0,
            end: 0,
            epoch: 0,
            sequences: [0; 3],
            clock: NOW - 100_000,
        }
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..50 => self.append_as_leader(),
            50..58 => self.append_as_follower(),
            58..62 => {
                self.log.roll(NOW).unwrap();
            }
            62..66 => self.truncate(),
            66..70 => self.move_start(),
            70..74 => self.flush(),
            74..78 => self.reopen_clean(),
            78..82 => self.reopen_unclean(),
            82..84 => {
                self.epoch += 1 + self.rng.below(2) as i32;
            }
            _ => self.read(),
        }
    }

    fn pick(&mut self, from: i64, to: i64) -> i64 {
        from + self.rng.below((to - from + 1) as u64) as i64
    }

    fn timestamps(&mut self) -> Vec<i64> {
        let count = 1 + self.rng.below(5);
        let mut one = || {
            self.clock += 1;
            self.clock + self.rng.below(200) as i64 - 100
        };
        (0..count).map(|_| one()).collect()
    }

    fn value_len(&mut self) -> usize {
        match self.rng.below(10) {
            0 => 3_000 + self.rng.below(4_000) as usize,
            _ => self.rng.below(300) as usize,
        }
    }

    fn append_as_leader(&mut self) {
        let timestamps = self.timestamps();
        let producer = self.rng.below(6) as usize;
        let info = match self.sequences.get(producer) {
            None => ProducerInfo::NONE,
            Some(sequence) => ProducerInfo {
                id: ProducerId(producer as i64),
                epoch: ProducerEpoch(0),
                base_sequence: *sequence,
            },
        };
        let params = BatchParams {
            producer: info,
            ..BatchParams::default()
        };
        let value_len = self.value_len();
        let sent = batch(params, &timestamps, value_len);
        let epoch = LeaderEpoch(self.epoch);
        let appended = produce(&mut self.log, sent.clone(), epoch).unwrap();
        assert!(!appended.duplicate);
        assert_eq!(appended.first_offset, Offset(self.end));
        let mut bytes = sent.to_vec();
        bytes[..8].copy_from_slice(&self.end.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.epoch.to_be_bytes());
        self.hold(bytes, timestamps.clone());
        if info.is_some() {
            self.sequences[producer] += timestamps.len() as i32;
            // The same once more is recognised.
            let again = produce(&mut self.log, sent, epoch).unwrap();
            assert!(again.duplicate);
            assert_eq!(again.first_offset, appended.first_offset);
            assert_eq!(again.last_offset, appended.last_offset);
        }
    }

    fn append_as_follower(&mut self) {
        let mut records = Vec::new();
        let count = 1 + self.rng.below(8);
        let mut base = self.end;
        let mut held = Vec::new();
        for _ in 0..count {
            if self.rng.one_in(10) {
                base += 3;
            }
            let timestamps = self.timestamps();
            let params = BatchParams {
                base_offset: Offset(base),
                leader_epoch: LeaderEpoch(self.epoch),
                ..BatchParams::default()
            };
            let value_len = self.value_len();
            let bytes = batch(params, &timestamps, value_len).to_vec();
            base += timestamps.len() as i64;
            records.extend_from_slice(&bytes);
            held.push((bytes, timestamps));
        }
        // A fetched slice may end within a batch.
        let torn = self.rng.below(61) as usize;
        records.extend_from_slice(&held[0].0[..torn]);
        let epoch = LeaderEpoch(self.epoch);
        let info = self
            .log
            .append_as_follower(records.into(), epoch, NOW)
            .unwrap();
        for (bytes, timestamps) in held {
            self.hold(bytes, timestamps);
        }
        assert_eq!(info.log_end_offset, Offset(self.end));
    }

    fn hold(&mut self, bytes: Vec<u8>, timestamps: Vec<i64>) {
        let header = BatchHeader::parse(&bytes).unwrap();
        self.end = header.next_offset().0;
        self.held.push(Held {
            header,
            bytes,
            timestamps,
        });
    }

    fn truncate(&mut self) {
        let at = self.pick((self.end - 40).max(self.start), self.end + 2);
        let truncated = self.log.truncate_to(Offset(at), NOW).unwrap();
        assert_eq!(truncated, at < self.end);
        if truncated {
            self.held.retain(|b| b.header.last_offset() < Offset(at));
            self.sync_end(at);
        }
    }

    /// After a cut: takes the log's end over, having checked that it is where the last
    /// batch ends (or in a hole after it).
    fn sync_end(&mut self, limit: i64) {
        let last = self.held.last().map_or(0, |b| b.header.next_offset().0);
        let end = self.log.log_end_offset().0;
        assert!(
            last <= end && end <= limit.max(last),
            "{last} {end} {limit}"
        );
        self.end = end;
        self.start = self.start.min(self.log.log_start_offset().0);
        self.restore_sequences();
    }

    /// Producers go on where the log says.
    fn restore_sequences(&mut self) {
        for (id, sequence) in self.sequences.iter_mut().enumerate() {
            let held = self.held.iter().rev();
            let mut of_producer = held.filter(|b| b.header.producer_id.0 == id as i64);
            let last = of_producer.next().map_or(-1, |b| b.header.last_sequence());
            let known = self.log.producers().get(ProducerId(id as i64));
            match known {
                Some(entry) if last >= 0 => assert_eq!(entry.last_sequence(), last),
                Some(_) => {}
                // Its records were deleted before the log was opened again.
                None => assert!(last < 0 || self.start > 0, "producer {id} is forgotten"),
            }
            // A forgotten producer may go on anywhere.
            if let Some(entry) = known {
                *sequence = entry.last_sequence() + 1;
            }
        }
    }

    fn move_start(&mut self) {
        let to = self.pick(self.start, self.end.min(self.start + 30));
        let moved = self.log.increase_log_start_offset(Offset(to)).unwrap();
        assert_eq!(moved, to > self.start);
        self.start = to;
        let end = self.log.log_end_offset();
        self.log.delete_old_segments(NOW, end).unwrap();
        let pending = self.log.take_pending_deletions();
        manager::unlink(&RealDisk, &pending).unwrap();
    }

    fn flush(&mut self) {
        let scope = match self.rng.one_in(2) {
            true => FlushScope::All,
            false => FlushScope::Rolled,
        };
        if let Some(work) = self.log.take_flush_work(scope).unwrap() {
            self.log.on_flushed(work.up_to);
        }
        if scope == FlushScope::All {
            assert_eq!(self.log.unflushed(), 0);
        }
    }

    fn params(&self, clean: bool) -> OpenParams {
        OpenParams {
            recovery_point: self.log.recovery_checkpoint(),
            log_start_offset: self.log.log_start_checkpoint().unwrap_or(Offset(0)),
            clean,
            ..OpenParams::default()
        }
    }

    fn reopen_clean(&mut self) {
        let work = self.log.prepare_close().unwrap();
        self.log.on_flushed(work.up_to);
        let params = self.params(true);
        let (log, report) = open(self.dir.path(), &params, &self.pool);
        self.log = log;
        assert_eq!(report, RecoveryReport::default());
        // A hole that a truncation has left at the end isn't written down.
        self.sync_end(self.end);
        self.check_bounds();
    }

    fn reopen_unclean(&mut self) {
        let params = self.params(false);
        let recovery_point = self.log.recovery_point().0;
        // What isn't synced may be lost from any byte on, and garbage may follow.
        let last = self.segment_bases().pop().unwrap();
        let path = self.dir.path().join(format!("{last:020}.log"));
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let len = file.metadata().unwrap().len();
        let mut keep = self.held.iter().filter(|b| b.header.base_offset.0 >= last);
        let synced: usize = keep
            .by_ref()
            .take_while(|b| b.header.next_offset().0 <= recovery_point)
            .map(|b| b.bytes.len())
            .sum();
        let cut = synced as u64 + self.rng.below(len - synced as u64 + 1);
        file.set_len(cut).unwrap();
        if self.rng.one_in(2) {
            let garbage = 1 + self.rng.below(200);
            file.set_len(cut + garbage).unwrap();
        }
        // Zeros may be just what was cut off.
        let left = std::fs::read(&path).unwrap();
        let mut position = 0;
        self.held.retain(|b| {
            if b.header.base_offset.0 < last {
                return true;
            }
            let end = position + b.bytes.len();
            let is_whole = left.get(position..end) == Some(&b.bytes);
            position = end;
            is_whole
        });
        let limit = self.end;
        let (log, _) = open(self.dir.path(), &params, &self.pool);
        self.log = log;
        self.log.take_pending_deletions();
        if self.log.log_start_offset().0 > self.start || self.log.is_empty() {
            // The log ended before it starts and was begun anew.
            self.start = self.log.log_start_offset().0;
        }
        self.sync_end(limit.max(self.start));
        self.check_bounds();
    }

    fn check_bounds(&self) {
        assert_eq!(self.log.log_start_offset(), Offset(self.start));
        assert_eq!(self.log.log_end_offset(), Offset(self.end));
    }

    fn segment_bases(&self) -> Vec<i64> {
        let names = std::fs::read_dir(self.dir.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let bases = names.filter_map(|name| name.strip_suffix(".log")?.parse().ok());
        let mut bases: Vec<i64> = bases.collect();
        bases.sort_unstable();
        bases
    }

    fn read(&mut self) {
        let offset = self.pick(self.start.max(self.end - 200), self.end);
        let upper = self.pick(offset.max(self.end - 30), self.end);
        let max_bytes = self.rng.below(20_000) as usize;
        let min_one = self.rng.one_in(2);
        self.check_read(offset, upper, max_bytes, min_one);
        let timestamp = self.clock - 200 + self.rng.below(400) as i64;
        self.check_timestamp(timestamp);
    }

    fn check_read(&mut self, offset: i64, upper: i64, max_bytes: usize, min_one: bool) {
        let bases = self.segment_bases();
        let read = self
            .log
            .read(Offset(offset), max_bytes, Offset(upper), min_one)
            .unwrap();
        let chunks = read.chunks.iter().map(|c| c.to_bytes().unwrap());
        let bytes: Vec<u8> = chunks.flat_map(Bytes::into_iter).collect();
        assert_eq!(bytes.len(), read.bytes);
        let contains = |b: &&Held| b.header.last_offset().0 >= offset;
        let Some(first) = self.held.iter().find(contains) else {
            assert!(bytes.is_empty());
            return;
        };
        let segment = |o: i64| bases[bases.partition_point(|base| *base <= o) - 1];
        let first_offset = first.header.base_offset.0;
        if offset < upper {
            assert_eq!(read.start.offset, Offset(first_offset));
            assert_eq!(read.start.segment_base_offset.0, segment(first_offset));
        }
        let readable: Vec<u8> = self
            .held
            .iter()
            .filter(|b| {
                let base = b.header.base_offset.0;
                base >= first_offset
                    && b.header.last_offset().0 < upper
                    && segment(base) == segment(first_offset)
            })
            .flat_map(|b| b.bytes.clone())
            .collect();
        let first_size = first.header.size as usize;
        let expected = if !min_one && max_bytes < first_size {
            &[]
        } else {
            &readable[..readable.len().min(max_bytes.max(first_size))]
        };
        assert!(bytes == expected, "read at {offset} up to {upper}");
    }

    fn check_timestamp(&self, timestamp: i64) {
        let found = self.log.offset_for_timestamp(timestamp).unwrap();
        let mut records = self.held.iter().flat_map(|b| {
            let offsets = b.header.base_offset.0..;
            offsets.zip(b.timestamps.iter().copied())
        });
        let expected = records.find(|(offset, t)| *offset >= self.start && *t >= timestamp);
        // Of a segment whose matching records were deleted only that one is searched.
        if self.segment_bases()[0] == self.start {
            assert_eq!(found.map(|f| (f.offset.0, f.timestamp)), expected);
        }
    }

    fn check_all(&mut self) {
        self.check_bounds();
        let mut offset = self.start;
        while offset < self.end {
            let read = self
                .log
                .read(Offset(offset), 5_000, Offset(self.end), true)
                .unwrap();
            if read.bytes == 0 {
                break;
            }
            let bytes: Vec<u8> = read
                .chunks
                .iter()
                .flat_map(|c| c.to_bytes().unwrap())
                .collect();
            let mut at = 0;
            while let Ok(header) = BatchHeader::parse(&bytes[at..]) {
                let end = at + header.size as usize;
                let Some(batch) = bytes.get(at..end) else {
                    break;
                };
                let held = self.held.iter().find(|b| b.header == header).unwrap();
                assert_eq!(batch, held.bytes);
                offset = header.next_offset().0;
                at = end;
            }
        }
        for out in [self.start - 1, self.end + 1] {
            let error = self.log.read(Offset(out), 1, Offset(i64::MAX), true);
            assert!(matches!(error, Err(ReadError::OffsetOutOfRange { .. })));
        }
        let mut epochs = Vec::new();
        for b in &self.held {
            let epoch = b.header.leader_epoch;
            if epochs.last().is_none_or(|(last, _)| epoch > *last) {
                epochs.push((epoch, b.header.base_offset));
            }
        }
        let known = self.log.epochs().entries();
        let known: Vec<_> = known.iter().map(|e| (e.epoch, e.start_offset)).collect();
        assert!(known.len() <= epochs.len().max(1), "{known:?} {epochs:?}");
        for (epoch, start) in &known[1.min(known.len())..] {
            assert!(epochs.contains(&(*epoch, *start)), "{known:?} {epochs:?}");
        }
    }
}

#[test]
fn random_operations_agree_with_a_list_of_batches() {
    let seeds = match std::env::var("OTTLA_LOG_SEED") {
        Ok(seed) => {
            let seed = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) => 0..25,
    };
    for seed in seeds {
        println!("OTTLA_LOG_SEED={seed}");
        let mut model = Model::new(seed);
        for _ in 0..250 {
            model.step();
            model.check_bounds();
        }
        model.check_all();
    }
}

/// A log of two segments with a few batches each.
fn small_log(dir: &Path) -> Vec<Held> {
    let pool = TailPool::new(1 << 20);
    let (mut log, _) = open(dir, &OpenParams::default(), &pool);
    let mut held = Vec::new();
    for i in 0..8i32 {
        if i == 4 {
            log.roll(NOW).unwrap();
        }
        let params = BatchParams {
            base_offset: Offset(i64::from(i) * 2),
            leader_epoch: LeaderEpoch(i / 3),
            producer: ProducerInfo {
                id: ProducerId(5),
                epoch: ProducerEpoch(0),
                base_sequence: i * 2,
            },
            ..BatchParams::default()
        };
        let timestamps = [NOW + i64::from(i), NOW];
        let bytes = batch(params, &timestamps, 20).to_vec();
        let epoch = LeaderEpoch(i / 3);
        let records = Bytes::from(bytes.clone());
        log.append_as_follower(records, epoch, NOW).unwrap();
        held.push(Held {
            header: BatchHeader::parse(&bytes).unwrap(),
            bytes,
            timestamps: timestamps.to_vec(),
        });
    }
    held
}

fn copy_dir(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_log_cut_at_any_byte_ends_with_its_last_whole_batch() {
    let dir = tempfile::tempdir().unwrap();
    let held = small_log(dir.path());
    for base in [0i64, 8] {
        let in_segment = held
            .iter()
            .filter(|b| (b.header.base_offset.0 < 8) == (base == 0));
        let len: usize = in_segment.clone().map(|b| b.bytes.len()).sum();
        for cut in 0..=len {
            let copy = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), copy.path());
            let path = copy.path().join(format!("{base:020}.log"));
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(cut as u64).unwrap();
            let pool = TailPool::new(1 << 20);
            let (log, report) = open(copy.path(), &OpenParams::default(), &pool);
            let mut position = 0;
            let whole = in_segment
                .clone()
                .take_while(|b| {
                    position += b.bytes.len();
                    position <= cut
                })
                .count();
            let first = (base / 2) as usize;
            let torn = held[first..first + whole].iter().map(|b| b.bytes.len());
            let torn = cut - torn.sum::<usize>();
            assert_eq!(log.segment_count(), 2);
            let torn = match base {
                0 => {
                    // The next segment follows, so it is no torn tail.
                    assert_eq!((report.truncated_bytes, report.deleted_segments), (0, 0));
                    assert_eq!(report.damaged, usize::from(torn > 0));
                    torn.min(report.truncated_bytes as usize)
                }
                _ => {
                    assert_eq!((report.truncated_bytes, report.damaged), (torn as u64, 0));
                    torn
                }
            };
            if torn > 0 {
                assert_eq!(log.log_end_offset().0, base + whole as i64 * 2);
            }
            let end = log.log_end_offset();
            let kept = held.iter().rfind(|b| b.header.base_offset < end);
            if report.gaps == 0 {
                let latest = log.latest_epoch().map(|e| e.epoch);
                assert_eq!(latest, kept.map(|b| b.header.leader_epoch));
                let entry = log.producers().get(ProducerId(5));
                let sequence = entry.map(|e| e.last_sequence());
                assert_eq!(sequence, kept.map(|b| b.header.last_sequence()));
            } else {
                assert_eq!((base, torn, report.gaps), (0, 0, 1));
            }
        }
    }
}

/// What is followed by a valid batch stays, and is refused; the last batch is a torn tail.
#[test]
fn a_flipped_bit_takes_one_batch() {
    let dir = tempfile::tempdir().unwrap();
    let held = small_log(dir.path());
    let end = held[held.len() - 1].header.next_offset();
    let mut position = 0;
    for (index, damaged) in held.iter().enumerate().skip(4) {
        let base = damaged.header.base_offset;
        let is_last = index + 1 == held.len();
        for at in 0..damaged.bytes.len() {
            // In the midst of the log neighbours show what the CRC doesn't cover.
            let copy = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), copy.path());
            let path = copy.path().join(format!("{:020}.log", 8));
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[position + at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            let pool = TailPool::new(1 << 20);
            let params = OpenParams::default();
            let disk = Rc::new(RealDisk);
            let opened = Log::open(disk, copy.path(), config(), &params, &pool, NOW);
            let (mut log, report) = opened.unwrap();
            if is_last {
                // Nothing tells of the last batch's offset and epoch.
                if !(12..16).contains(&at) && at >= 8 {
                    assert_eq!(log.log_end_offset(), base, "byte {at}");
                    assert!(report.truncated_bytes > 0);
                }
                continue;
            }
            if report.damaged == 0 && (12..16).contains(&at) {
                // Where the epoch changes, the next lower or higher one is as likely.
                continue;
            }
            assert_eq!(
                (report.damaged, report.truncated_bytes),
                (1, 0),
                "byte {at}"
            );
            assert_eq!(log.log_end_offset(), end);
            for other in &held {
                let offset = other.header.base_offset;
                let read = log.read_bytes(offset, 1, end);
                if offset == base {
                    let error = read.unwrap_err();
                    assert_eq!(error.error_code(), ErrorCode::CORRUPT_MESSAGE, "byte {at}");
                } else {
                    assert_eq!(read.unwrap(), other.bytes, "byte {at}");
                }
            }
        }
        position += damaged.bytes.len();
    }
}
