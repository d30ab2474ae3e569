//! Power cuts: a log on a disk that keeps what was synced and any part of the rest.
//! After each cut everything that a flush had promised is there, what is there was
//! written, and epochs and producers agree with it. `OTTLA_LOG_SEED` repeats one run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use ottla::base::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Rng, Uuid};
use ottla::io::Disk;
use ottla::log::batch_header::BatchHeader;
use ottla::log::{
    AppendError, AppendOrigin, FlushScope, Log, LogConfig, LogError, OpenParams, ReadError,
    RecoveryReport, TailPool, manager,
};
use ottla::record::{BatchBuilder, BatchParams, ProducerInfo};
use ottla::sim::SimDisk;

const NOW: i64 = 1_700_000_000_000;
const TOPIC_ID: Uuid = Uuid([7; 16]);

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 6_000,
        index_interval_bytes: 400,
        retention_ms: -1,
        ..LogConfig::default()
    }
}

struct World {
    rng: Rng,
    disk: SimDisk,
    dir: PathBuf,
    pool: TailPool,
    log: Log,
    /// What the log holds, by base offset.
    held: BTreeMap<i64, Vec<u8>>,
    /// Everything below has been promised to be durable.
    promised: i64,
    /// Flushes that went beside another one.
    overlapped: u64,
    /// As the checkpoint file would have it.
    recovery_point: Offset,
    epoch: i32,
    sequences: [i32; 2],
    /// Some batches were found damaged: a later start knows only their headers.
    damaged: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let disk = SimDisk::new(seed);
        let dir = PathBuf::from("/data/t-0");
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let pool = TailPool::new(16 * 1024);
        let (log, _) = open(&disk, &dir, &pool, Offset(0), false);
        World {
            rng: Rng::new(seed),
            disk,
            dir,
            pool,
            log,
            held: BTreeMap::new(),
            promised: 0,
            overlapped: 0,
            recovery_point: Offset(0),
            epoch: 0,
            sequences: [0; 2],
            damaged: false,
        }
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..60 => self.append(),
            60..64 => {
                self.log.roll(NOW).unwrap();
            }
            64..80 => self.flush(),
            80..84 => self.truncate(),
            84..88 => {
                self.epoch += 1;
                self.log.start_epoch(LeaderEpoch(self.epoch)).unwrap();
            }
            88..91 => self.reopen_clean(),
            _ => self.crash(),
        }
    }

    fn append(&mut self) {
        let producer = self.rng.below(3) as usize;
        let info = match self.sequences.get(producer) {
            None => ProducerInfo::NONE,
            Some(sequence) => ProducerInfo {
                id: ProducerId(producer as i64),
                epoch: ProducerEpoch(0),
                base_sequence: *sequence,
            },
        };
        let count = 1 + self.rng.below(3);
        let mut builder = BatchBuilder::new(BatchParams {
            producer: info,
            ..BatchParams::default()
        });
        let value = vec![b'v'; self.rng.below(400) as usize];
        for i in 0..count {
            builder.append(NOW + i as i64, None, Some(&value), &[]);
        }
        let batch = builder.finish();
        let epoch = LeaderEpoch(self.epoch);
        let appended = self
            .log
            .append_own(batch.clone(), epoch, AppendOrigin::Client, NOW)
            .unwrap();
        assert!(!appended.duplicate);
        let base = appended.first_offset.0;
        let mut bytes = batch.to_vec();
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.epoch.to_be_bytes());
        self.held.insert(base, bytes);
        if info.is_some() {
            self.sequences[producer] += count as i32;
        }
    }

    fn flush(&mut self) {
        if self.rng.one_in(4) {
            self.flush_meanwhile();
            return;
        }
        if self.rng.one_in(2) {
            self.log.prepare_checkpoint().unwrap();
        }
        let scope = match self.rng.one_in(2) {
            true => FlushScope::All,
            false => FlushScope::Rolled,
        };
        if let Some(work) = self.log.take_flush_work(scope).unwrap() {
            if self.rng.one_in(8) {
                // The cut comes while some of the files have been synced.
                let count = self.rng.below(work.files.len() as u64) as usize;
                for file in &work.files[..count] {
                    file.sync_data().unwrap();
                }
                drop(work);
                self.crash();
                return;
            }
            work.sync().unwrap();
            self.log.on_flushed(work.up_to);
            self.promised = self.promised.max(work.up_to.0);
        }
        self.maybe_checkpoint();
    }

    fn maybe_checkpoint(&mut self) {
        if self.rng.one_in(2) {
            self.recovery_point = self.log.collect_checkpoint();
        }
    }

    /// A flush during which the log goes on.
    fn flush_meanwhile(&mut self) {
        if self.rng.one_in(2) {
            self.log.prepare_checkpoint().unwrap();
        }
        let Some(work) = self.log.take_flush_work(FlushScope::All).unwrap() else {
            return;
        };
        work.sync().unwrap();
        let mut lowest = self.log.log_end_offset().0;
        for _ in 0..self.rng.below(4) {
            match self.rng.below(4) {
                0 => self.truncate(),
                1 => {
                    self.log.roll(NOW).unwrap();
                }
                _ => self.append(),
            }
            lowest = lowest.min(self.log.log_end_offset().0);
        }
        // A second one beside it, if the records are all that there is to sync.
        let lane = 1 + self.rng.below(3) as usize;
        let second = self.log.take_overlapping_work(lane);
        let mut lowest_since = self.log.log_end_offset().0;
        if let Some(second) = &second {
            second.sync().unwrap();
            for _ in 0..self.rng.below(3) {
                match self.rng.one_in(4) {
                    true => self.truncate(),
                    false => self.append(),
                }
                lowest_since = lowest_since.min(self.log.log_end_offset().0);
            }
            lowest = lowest.min(lowest_since);
        }
        self.log.on_flushed(work.up_to);
        self.promised = self.promised.max(lowest);
        assert!(self.log.recovery_point().0 <= lowest);
        if let Some(second) = second {
            self.overlapped += 1;
            self.log.on_flushed(second.up_to);
            self.promised = self.promised.max(lowest_since);
            assert!(self.log.recovery_point().0 <= lowest_since);
        }
        self.maybe_checkpoint();
    }

    fn truncate(&mut self) {
        let end = self.log.log_end_offset().0;
        let at = (end - self.rng.below(12) as i64).max(0);
        if !self.log.truncate_to(Offset(at), NOW).unwrap() {
            return;
        }
        let end = self.log.log_end_offset().0;
        self.held.retain(|_, batch| next_offset(batch) <= end);
        self.promised = self.promised.min(end);
        self.recovery_point = self.recovery_point.min(Offset(end));
        self.follow_sequences();
        // Whoever truncates has seen a newer epoch.
        self.epoch += 1;
        let pending = self.log.take_pending_deletions();
        manager::unlink(&self.disk, &pending).unwrap();
    }

    fn reopen_clean(&mut self) {
        if self.rng.one_in(3) {
            // A flush that was begun and never ended.
            self.log.take_flush_work(FlushScope::All).unwrap();
        }
        let work = self.log.prepare_close().unwrap();
        work.sync().unwrap();
        self.log.on_flushed(work.up_to);
        self.promised = work.up_to.0;
        self.recovery_point = self.log.recovery_checkpoint();
        // With everything synced a power cut changes nothing.
        if self.rng.one_in(2) {
            self.disk.crash();
        }
        let (log, report) = self.open(true);
        assert_eq!(report, RecoveryReport::default());
        self.log = log;
        self.promised = self.promised.min(self.log.log_end_offset().0);
        self.check();
    }

    fn crash(&mut self) {
        let end = self.log.log_end_offset();
        self.disk.crash();
        let (log, report) = self.open(false);
        self.log = log;
        self.damaged |= report.damaged > 0;
        self.log.take_pending_deletions();
        assert!(self.log.log_end_offset() <= end);
        let found = self.contents();
        for (base, batch) in self.held.range(..self.promised) {
            assert!(found.get(base) == Some(batch), "offset {base} is lost");
        }
        for (base, batch) in &found {
            assert!(self.held.get(base) == Some(batch), "offset {base} differs");
        }
        let known = holes(&self.held);
        let new = holes(&found)
            .iter()
            .filter(|at| !known.contains(at))
            .count();
        assert!(new <= report.gaps + report.damaged);
        // A log that was cut within a batch ends there in memory, but not on the disk.
        let kept = self.held.range(..self.promised).next_back();
        assert!(self.log.log_end_offset().0 >= kept.map_or(0, |(_, batch)| next_offset(batch)));
        self.held = found;
        self.promised = self.promised.min(self.log.log_end_offset().0);
        self.recovery_point = self.recovery_point.min(self.log.recovery_checkpoint());
        self.check();
        self.follow_sequences();
    }

    fn open(&self, clean: bool) -> (Log, RecoveryReport) {
        open(
            &self.disk,
            &self.dir,
            &self.pool,
            self.recovery_point,
            clean,
        )
    }

    fn contents(&mut self) -> BTreeMap<i64, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut offset = Offset(0);
        let end = self.log.log_end_offset();
        while offset < end {
            let read = match self.log.read(offset, 1 << 20, end, true) {
                Err(ReadError::Log(LogError::Corrupt { next_offset, .. })) => {
                    assert!(next_offset > offset);
                    offset = next_offset;
                    continue;
                }
                read => read.unwrap(),
            };
            if read.bytes == 0 {
                break;
            }
            let chunks = read.chunks.iter().map(|chunk| chunk.to_bytes().unwrap());
            let bytes: Vec<u8> = chunks.flat_map(Bytes::into_iter).collect();
            let mut at = 0;
            while at < bytes.len() {
                let header = BatchHeader::parse(&bytes[at..]).unwrap();
                let batch = bytes[at..at + header.size as usize].to_vec();
                at += batch.len();
                found.insert(header.base_offset.0, batch);
                offset = header.next_offset();
            }
        }
        found
    }

    /// Epochs and producers are those of the batches.
    fn check(&self) {
        let mut last: [Option<BatchHeader>; 2] = [None; 2];
        for batch in self.held.values() {
            let header = BatchHeader::parse(batch).unwrap();
            let epoch = self.log.epochs().epoch_for_offset(header.base_offset);
            assert_eq!(epoch, Some(header.leader_epoch), "{header:?}");
            if let Some(last) = last.get_mut(header.producer_id.0 as usize) {
                *last = Some(header);
            }
        }
        for (id, last) in last.iter().enumerate() {
            if self.damaged {
                break;
            }
            let entry = self.log.producers().get(ProducerId(id as i64));
            let entry = entry.and_then(|entry| entry.batches.last());
            assert_eq!(
                entry.map(|batch| (batch.last_offset, batch.last_sequence)),
                last.map(|header| (header.last_offset(), header.last_sequence())),
            );
        }
        let end = self.log.log_end_offset();
        let latest = self.log.latest_epoch();
        assert!(latest.is_none_or(|entry| entry.start_offset <= end));
        assert_eq!(self.log.topic_id(), Some(TOPIC_ID));
    }

    fn follow_sequences(&mut self) {
        for (id, sequence) in self.sequences.iter_mut().enumerate() {
            let entry = self.log.producers().get(ProducerId(id as i64));
            *sequence = entry.map_or(0, |entry| entry.last_sequence() + 1);
        }
    }
}

/// Offsets of the batches before which offsets are missing.
fn holes(held: &BTreeMap<i64, Vec<u8>>) -> Vec<i64> {
    let mut next = 0;
    let mut holes = Vec::new();
    for (base, batch) in held {
        if *base != next {
            holes.push(*base);
        }
        next = next_offset(batch);
    }
    holes
}

fn next_offset(batch: &[u8]) -> i64 {
    BatchHeader::parse(batch).unwrap().next_offset().0
}

fn open(
    disk: &SimDisk,
    dir: &Path,
    pool: &TailPool,
    recovery_point: Offset,
    clean: bool,
) -> (Log, RecoveryReport) {
    let params = OpenParams {
        recovery_point,
        clean,
        topic_id: Some(TOPIC_ID),
        ..OpenParams::default()
    };
    Log::open(Rc::new(disk.clone()), dir, config(), &params, pool, NOW).unwrap()
}

#[test]
fn power_cuts_take_only_what_was_not_synced() {
    let seeds = match std::env::var("OTTLA_LOG_SEED") {
        Ok(seed) => {
            let seed = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) => 0..60,
    };
    let all = seeds.end - seeds.start > 1;
    let mut overlapped = 0;
    for seed in seeds {
        println!("OTTLA_LOG_SEED={seed}");
        let mut world = World::new(seed);
        for _ in 0..200 {
            world.step();
        }
        overlapped += world.overlapped;
    }
    println!("{overlapped} flushes went beside another one");
    assert!(!all || overlapped > 10);
}

#[test]
fn a_full_disk_refuses_and_leaves_the_log_whole() {
    for room in (0..3_000).step_by(37) {
        let mut world = World::new(room);
        for _ in 0..5 {
            world.append();
        }
        let used: usize = world.held.values().map(Vec::len).sum();
        world.disk.set_capacity_bytes(used as u64 + room);
        let mut builder = BatchBuilder::new(BatchParams::default());
        builder.append(NOW, None, Some(&[b'x'; 1_000]), &[]);
        let batch = builder.finish();
        let failed = loop {
            let epoch = LeaderEpoch(0);
            let appended = world
                .log
                .append_own(batch.clone(), epoch, AppendOrigin::Client, NOW);
            match appended {
                Ok(info) => {
                    let mut bytes = batch.to_vec();
                    bytes[..8].copy_from_slice(&info.first_offset.0.to_be_bytes());
                    bytes[12..16].copy_from_slice(&0i32.to_be_bytes());
                    world.held.insert(info.first_offset.0, bytes);
                }
                Err(error) => break error,
            }
        };
        assert!(matches!(failed, AppendError::Log(error) if error.is_out_of_space()));
        assert!(!world.log.is_offline());
        // What was acknowledged can be read still, and after the next start.
        assert!(world.contents() == world.held);
        world.disk.set_capacity_bytes(u64::MAX);
        world.log = world.open(false).0;
        assert!(world.contents() == world.held);
        world.append();
    }
}
