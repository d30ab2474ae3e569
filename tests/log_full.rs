//! A log on a disk that is full again and again, at any write: the refused append leaves no
//! trace, everything else goes on, and with space the log takes appends again without being
//! opened anew. `OTTLA_LOG_SEED` repeats one run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ottla::base::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Rng, Uuid};
use ottla::io::Disk;
use ottla::log::{
    AppendError, AppendOrigin, FlushScope, Log, LogConfig, OpenParams, TailPool, manager,
};
use ottla::record::{BatchBuilder, BatchParams, Batches, ProducerInfo};
use ottla::sim::{Fails, SimDisk};

const NOW: i64 = 1_700_000_000_000;
const TOPIC_ID: Uuid = Uuid([7; 16]);
const SEEDS: u64 = 60;
const STEPS: usize = 400;

struct World {
    rng: Rng,
    disk: SimDisk,
    dir: PathBuf,
    pool: TailPool,
    log: Log,
    /// What was acknowledged, by base offset.
    held: BTreeMap<i64, Vec<u8>>,
    epoch: i32,
    sequence: i32,
    refused: usize,
    /// Refused at other writes than the batch's own.
    refused_elsewhere: usize,
}

fn open(disk: &SimDisk, dir: &Path, pool: &TailPool, clean: bool) -> Log {
    let config = LogConfig {
        segment_bytes: 6_000,
        // Indexes are written in blocks of 8 KiB; a segment here has less.
        index_interval_bytes: 1,
        retention_ms: -1,
        ..LogConfig::default()
    };
    let params = OpenParams {
        topic_id: Some(TOPIC_ID),
        clean,
        ..OpenParams::default()
    };
    let disk: Rc<dyn Disk> = Rc::new(disk.clone());
    let (log, _) = Log::open(disk, dir, config, &params, pool, NOW).unwrap();
    log
}

impl World {
    fn new(seed: u64) -> World {
        let disk = SimDisk::new(seed);
        let dir = PathBuf::from("/data/t-0");
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let pool = TailPool::new(4 * 1024);
        World {
            rng: Rng::new(seed),
            log: open(&disk, &dir, &pool, false),
            disk,
            dir,
            pool,
            held: BTreeMap::new(),
            epoch: 0,
            sequence: 0,
            refused: 0,
            refused_elsewhere: 0,
        }
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..55 => self.append(),
            55..70 => self.squeeze(),
            70..76 => {
                let rolled = self.log.roll(NOW);
                assert!(rolled.is_ok() || rolled.is_err_and(|e| e.is_out_of_space()));
            }
            76..82 => {
                self.epoch += 1;
                let started = self.log.start_epoch(LeaderEpoch(self.epoch));
                assert!(started.is_ok() || started.is_err_and(|e| e.is_out_of_space()));
            }
            82..90 => self.flush(),
            90..93 => self.retain(),
            _ => self.reopen(),
        }
        assert!(!self.log.is_offline(), "a lack of space is no failure");
    }

    /// The disk has a little space, or all that is wanted.
    fn squeeze(&mut self) {
        let left = match self.rng.below(3) {
            0 => 1 << 20,
            1 => self.rng.below(100),
            _ => self.rng.below(2_000),
        };
        self.leave(left);
    }

    fn leave(&mut self, bytes: u64) {
        self.disk.set_capacity_bytes(1 << 30);
        let usable = self.disk.space(Path::new("/data")).unwrap().usable_bytes;
        self.disk.set_capacity_bytes((1 << 30) - usable + bytes);
    }

    fn append(&mut self) {
        let mut builder = BatchBuilder::new(BatchParams {
            producer: ProducerInfo {
                id: ProducerId(1),
                epoch: ProducerEpoch(0),
                base_sequence: self.sequence,
            },
            ..BatchParams::default()
        });
        let value = vec![b'v'; self.rng.below(700) as usize];
        builder.append(NOW, None, Some(&value), &[]);
        let mut bytes = builder.finish().to_vec();
        let end = self.log.log_end_offset();
        let epoch = LeaderEpoch(self.epoch);
        let batch = bytes.clone().into();
        match self.log.append_own(batch, epoch, AppendOrigin::Client, NOW) {
            Ok(appended) => {
                assert!(!appended.duplicate);
                assert_eq!(appended.first_offset, end);
                bytes[..8].copy_from_slice(&end.0.to_be_bytes());
                bytes[12..16].copy_from_slice(&self.epoch.to_be_bytes());
                self.held.insert(end.0, bytes);
                self.sequence += 1;
                // Written before the epoch's first record.
                assert_eq!(self.log.latest_epoch().unwrap().epoch, epoch);
            }
            Err(AppendError::Log(error)) => {
                assert!(error.is_out_of_space(), "{error}");
                assert_eq!(self.log.log_end_offset(), end);
                self.refused += 1;
                self.refused_elsewhere += usize::from(!error.to_string().contains("appending"));
            }
            Err(error) => panic!("{error}"),
        }
        // Reads go on in any case.
        self.check(self.held.len().saturating_sub(3));
    }

    fn flush(&mut self) {
        if let Some(work) = self.log.take_flush_work(FlushScope::All).unwrap() {
            work.sync().unwrap();
            self.log.on_flushed(work.up_to);
        }
    }

    fn retain(&mut self) {
        let end = self.log.log_end_offset().0;
        let to = self.log.log_start_offset().0 + (end - self.log.log_start_offset().0) / 2;
        if let Err(error) = self.log.increase_log_start_offset(Offset(to)) {
            assert!(error.is_out_of_space(), "{error}");
        }
        let start = self.log.log_start_offset().0;
        self.held.retain(|base, _| *base >= start);
        let end = self.log.log_end_offset();
        match self.log.delete_old_segments(NOW, end) {
            Ok(_) => {}
            Err(error) => assert!(error.is_out_of_space(), "{error}"),
        }
        let pending = self.log.take_pending_deletions();
        manager::unlink(&self.disk, &pending).unwrap();
    }

    /// The process is killed: the page cache stays.
    fn reopen(&mut self) {
        self.disk.set_capacity_bytes(u64::MAX);
        let start = self.log.log_start_offset();
        self.log = open(&self.disk, &self.dir, &self.pool, false);
        self.log.take_pending_deletions();
        let end = self.log.log_end_offset().0;
        let last = self.held.last_key_value().map_or(end, |(base, _)| base + 1);
        assert_eq!(last, end, "nothing of a refused append came back");
        // Kept by the checkpoint of log starts.
        if self.log.log_start_offset() < start && start.0 <= end {
            self.log.increase_log_start_offset(start).unwrap();
        }
        self.check(0);
    }

    fn check(&mut self, from: usize) {
        let end = self.log.log_end_offset();
        for (base, batch) in self.held.iter().skip(from) {
            let read = self.log.read_bytes(Offset(*base), 1, end).unwrap();
            let first = Batches::new(&read).next().unwrap().unwrap();
            assert!(read[..first.size_in_bytes()] == batch[..], "offset {base}");
        }
    }
}

#[test]
fn a_full_disk_refuses_and_nothing_else() {
    let one: Option<u64> = std::env::var("OTTLA_LOG_SEED")
        .ok()
        .map(|seed| seed.parse().expect("a number"));
    let seeds = one.map_or(1..SEEDS + 1, |seed| seed..seed + 1);
    let (mut refused, mut elsewhere, mut kept) = (0, 0, 0);
    for seed in seeds {
        println!("OTTLA_LOG_SEED={seed}");
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.disk.set_capacity_bytes(u64::MAX);
        world.append();
        let end = world.log.log_end_offset();
        assert!(world.held.contains_key(&(end.0 - 1)), "space is back");
        world.check(0);
        world.log.close().unwrap();
        let end = world.log.log_end_offset();
        world.log = open(&world.disk, &world.dir, &world.pool, true);
        assert_eq!(world.log.log_end_offset(), end);
        refused += world.refused;
        elsewhere += world.refused_elsewhere;
        kept += world.held.len();
    }
    println!("{refused} refused, {elsewhere} of them before the batch's own write; {kept} kept");
    assert!(one.is_some() || (refused > 500 && elsewhere > 50));
}

#[test]
fn index_entries_without_space_wait_in_memory() {
    let mut world = World::new(1);
    world.log.set_config(LogConfig {
        segment_bytes: 1 << 30,
        index_interval_bytes: 1,
        ..LogConfig::default()
    });
    // Space for the batch, but not for the index' next 8 KiB.
    for _ in 0..2_500 {
        world.leave(2_000);
        world.append();
    }
    assert_eq!(world.refused, 0);
    world.check(0);
    assert!(world.log.roll(NOW).unwrap_err().is_out_of_space());
    world.leave(1 << 20);
    assert!(world.log.roll(NOW).unwrap());
    world.append();
    world.check(0);
    world.log.close().unwrap();
    world.log = open(&world.disk, &world.dir, &world.pool, true);
    world.check(0);
}

#[test]
fn a_failed_write_takes_the_log_offline_and_a_failed_read_does_not() {
    let mut world = World::new(1);
    for _ in 0..40 {
        world.append();
    }
    let end = world.log.log_end_offset();
    let first = world.dir.join("00000000000000000000.log");
    world.disk.break_down(&first, Fails::Reads(0..100));
    let refused = world.log.read_bytes(Offset(0), 1, end);
    assert!(refused.is_err());
    world.held.pop_first();
    world.check(0);
    world.append();
    world.disk.mend();
    world.disk.break_down(&world.dir, Fails::Writes);
    let end = world.log.log_end_offset();
    let failed = world.log.roll(NOW).unwrap_err();
    assert!(!failed.is_out_of_space());
    assert!(world.log.is_offline());
    assert_eq!(world.log.log_end_offset(), end);
    world.check(0);
}
