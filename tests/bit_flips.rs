//! Single flipped bits in the files of a log directory: segments, indexes, snapshots, epochs,
//! checkpoints, partition and directory metadata and the clean marker, after a clean stop and after a kill. Whatever was flipped, a reader gets
//! the bytes that were written or an error, and a consumer's own check would find nothing
//! more; searches by offset and by time give what they gave before, or an error.
//!
//! `OTTLA_LONG=1` makes it 10,000 flips, `OTTLA_FLIP_SEED` repeats one run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ottla::base::{
    BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, Rng, Uuid,
};
use ottla::io::RealDisk;
use ottla::log::batch_header::BatchHeader;
use ottla::log::checkpoint::{self, Offsets};
use ottla::log::meta_properties::MetaProperties;
use ottla::log::{
    AppendOrigin, FlushScope, Log, LogConfig, LogError, OpenParams, ReadError, TailPool,
    clean_shutdown,
};
use ottla::record::{BatchBuilder, BatchParams, ProducerInfo};

const NOW: i64 = 1_700_000_000_000;
const TOPIC_ID: Uuid = Uuid([7; 16]);
const BATCHES: usize = 60;
/// Flips without `OTTLA_LONG`.
const FLIPS: u64 = 1_500;
const LONG_FLIPS: u64 = 10_000;

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 5_000,
        index_interval_bytes: 500,
        retention_ms: -1,
        ..LogConfig::default()
    }
}

/// What was written: whole batches by base offset.
type Held = BTreeMap<i64, Vec<u8>>;

/// A directory that a node may have left behind.
struct Left {
    dir: tempfile::TempDir,
    held: Held,
    end: Offset,
    recovery_point: Offset,
    clean: bool,
}

impl Left {
    /// What recovery reads is all that tells of the epochs of the batches there: of the last
    /// one, and where the epoch changes, a possible epoch is as good as any.
    fn is_epoch_free(&self, base: Offset) -> bool {
        !self.clean && base >= self.recovery_point && self.held.contains_key(&base.0)
    }

    /// Nor does anything tell of the last batch's offset, if it is higher than it was.
    fn is_last_free(&self, log: &Log, base: Offset) -> bool {
        let last = *self.held.keys().next_back().unwrap();
        !self.clean && base.0 > last && log.log_end_offset() > self.end
    }
}

/// What became of a flip.
#[derive(Debug, Default)]
struct Counts {
    harmless: u64,
    refused_open: u64,
    refused_reads: u64,
    cut: u64,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.harmless += other.harmless;
        self.refused_open += other.refused_open;
        self.refused_reads += other.refused_reads;
        self.cut += other.cut;
    }
}

#[test]
fn flipped_bits_are_detected_or_harmless() {
    let seed: u64 = std::env::var("OTTLA_FLIP_SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("OTTLA_FLIP_SEED={seed}");
    let flips = match std::env::var_os("OTTLA_LONG") {
        Some(_) => LONG_FLIPS,
        None => FLIPS,
    };
    let lefts = [leave(true), leave(false)];
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let mut counts: BTreeMap<String, Counts> = BTreeMap::new();
    let share = |thread: u64| {
        let mut counts = BTreeMap::new();
        for flip in (thread..flips).step_by(threads as usize) {
            let mut rng = Rng::new(seed.wrapping_mul(1_000_003) + flip);
            try_flip(&lefts[(flip % 2) as usize], &mut rng, &mut counts);
        }
        counts
    };
    let share = &share;
    std::thread::scope(|scope| {
        let shares: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || share(thread)))
            .collect();
        for share in shares {
            for (kind, of_share) in share.join().expect("no flip panics") {
                let of_kind: &mut Counts = counts.entry(kind).or_default();
                of_kind.add(&of_share);
            }
        }
    });
    for (kind, counts) in &counts {
        println!("{kind}: {counts:?}");
    }
    let of = |kind: &str| counts.get(kind).expect("every kind of file is hit");
    assert!(of("log").refused_reads > 0 && of("log").cut > 0);
    assert!(of("index").harmless > 0 && of("timeindex").harmless > 0);
    assert!(of("snapshot").harmless > 0);
    assert!(of("metadata").refused_open > 0);
}

/// Writes a log and closes it, or has it as a kill would leave it: the recovery point in its
/// midst, and what follows in the page cache.
fn leave(clean: bool) -> Left {
    let dir = tempfile::tempdir().unwrap();
    let pool = TailPool::new(1 << 20);
    let path = dir.path().join("t-0");
    let disk = Rc::new(RealDisk);
    let params = OpenParams {
        topic_id: Some(TOPIC_ID),
        ..OpenParams::default()
    };
    let (mut log, _) = Log::open(disk, &path, config(), &params, &pool, NOW).unwrap();
    let mut held = Held::new();
    let mut sequence = 0;
    for index in 0..BATCHES {
        let count = 1 + index % 3;
        let producer = ProducerInfo {
            id: ProducerId(5),
            epoch: ProducerEpoch(0),
            base_sequence: sequence,
        };
        let mut builder = BatchBuilder::new(BatchParams {
            producer,
            ..BatchParams::default()
        });
        for record in 0..count {
            let value = vec![b'a' + (index % 26) as u8; 40 + 37 * (index % 7)];
            builder.append(NOW + (index * 10 + record) as i64, None, Some(&value), &[]);
        }
        sequence += count as i32;
        let epoch = LeaderEpoch(index as i32 / 25);
        let batch = builder.finish();
        let info = log
            .append_own(batch.clone(), epoch, AppendOrigin::Client, NOW)
            .unwrap();
        let mut bytes = batch.to_vec();
        bytes[..8].copy_from_slice(&info.first_offset.0.to_be_bytes());
        bytes[12..16].copy_from_slice(&epoch.0.to_be_bytes());
        held.insert(info.first_offset.0, bytes);
        if index == BATCHES - 8 {
            assert!(log.prepare_checkpoint().unwrap());
            let work = log.take_flush_work(FlushScope::All).unwrap().unwrap();
            work.sync().unwrap();
            log.on_flushed(work.up_to);
        }
    }
    if clean {
        log.close().unwrap();
    }
    let end = log.log_end_offset();
    let line = || ("t".to_owned(), PartitionIndex(0));
    let write = |name: &str, offset: Offset| {
        let offsets = Offsets::from([(line(), offset)]);
        checkpoint::write_offsets(&RealDisk, &dir.path().join(name), &offsets).unwrap();
    };
    write(checkpoint::RECOVERY_POINT, log.recovery_checkpoint());
    write(checkpoint::LOG_START_OFFSET, Offset(0));
    write(checkpoint::HIGH_WATERMARK, end);
    let meta = MetaProperties {
        cluster_id: "n7KaPOIwQ8Cs7wLAqBHYyA".to_owned(),
        node_id: BrokerId(1),
        directory_id: Some(TOPIC_ID),
        others: BTreeMap::new(),
    };
    meta.write(&RealDisk, dir.path()).unwrap();
    if clean {
        clean_shutdown::write(&RealDisk, dir.path(), 17).unwrap();
    }
    Left {
        dir,
        held,
        end,
        recovery_point: log.recovery_checkpoint(),
        clean,
    }
}

fn try_flip(left: &Left, rng: &mut Rng, counts: &mut BTreeMap<String, Counts>) {
    let copy = tempfile::tempdir().unwrap();
    let files = copy_all(left.dir.path(), copy.path());
    // By bytes, but small files get their share.
    let weights: Vec<u64> = files.iter().map(|(_, len)| (*len).min(1_500)).collect();
    let mut pick = rng.below(weights.iter().sum());
    let file = weights.iter().position(|weight| {
        let found = pick < *weight;
        if !found {
            pick -= weight;
        }
        found
    });
    let (path, len) = &files[file.unwrap()];
    let (at, bit) = (rng.below(*len), rng.below(8));
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at as usize] ^= 1 << bit;
    std::fs::write(path, bytes).unwrap();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let kind = match path.extension() {
        Some(extension) => extension.to_string_lossy().into_owned(),
        None => name.clone(),
    };
    let counts = counts.entry(kind).or_default();
    let what = format!("{name} byte {at} bit {bit}, clean {}", left.clean);

    let line = ("t".to_owned(), PartitionIndex(0));
    let read = |name: &str| {
        // As a node does: without the file there is nothing to begin with.
        let offsets = checkpoint::read_offsets(&RealDisk, &copy.path().join(name));
        offsets.map_or(Offset(0), |o| o.get(&line).copied().unwrap_or(Offset(0)))
    };
    if MetaProperties::read(&RealDisk, copy.path()).is_err() {
        counts.refused_open += 1;
        return;
    }
    let clean = clean_shutdown::take(&RealDisk, copy.path()).unwrap();
    assert_eq!(clean.is_some(), left.clean, "{what}");
    let params = OpenParams {
        topic_id: Some(TOPIC_ID),
        recovery_point: read(checkpoint::RECOVERY_POINT),
        log_start_offset: read(checkpoint::LOG_START_OFFSET),
        clean: left.clean,
        ..OpenParams::default()
    };
    let pool = TailPool::new(1 << 20);
    let disk = Rc::new(RealDisk);
    let opened = Log::open(
        disk,
        &copy.path().join("t-0"),
        config(),
        &params,
        &pool,
        NOW,
    );
    let (mut log, report) = match opened {
        Ok(opened) => opened,
        Err(_) => {
            counts.refused_open += 1;
            return;
        }
    };
    let was_cut = report.truncated_bytes > 0 || log.log_end_offset() < left.end;
    let mut refused = 0;
    read_everything(&mut log, left, &mut refused, &what);
    // Each offset by itself, as a consumer that begins there.
    for offset in log.log_start_offset().0..log.log_end_offset().0.min(left.end.0) {
        read_from(&mut log, left, Offset(offset), &mut refused, &what);
    }
    search_by_time(&log, left, &what);
    append_and_read(&mut log, &what);
    counts.refused_reads += u64::from(refused > 0);
    counts.cut += u64::from(was_cut);
    counts.harmless += u64::from(refused == 0 && !was_cut);
}

/// As a consumer that begins at the log's start and seeks beyond what is refused.
fn read_everything(log: &mut Log, left: &Left, refused: &mut u64, what: &str) {
    let mut offset = log.log_start_offset();
    while offset < log.log_end_offset() {
        match read_from(log, left, offset, refused, what) {
            Some(next) if next > offset => offset = next,
            _ => offset += 1,
        }
    }
}

/// Returns where the next read goes on.
fn read_from(
    log: &mut Log,
    left: &Left,
    offset: Offset,
    refused: &mut u64,
    what: &str,
) -> Option<Offset> {
    let end = log.log_end_offset();
    let bytes = match log.read_bytes(offset, 700, end) {
        Ok(bytes) => bytes,
        Err(error) => {
            let is_told = matches!(
                &error,
                ReadError::Log(LogError::Corrupt { .. } | LogError::Io { .. })
            );
            assert!(is_told, "{what}: {error}");
            *refused += 1;
            return match error {
                ReadError::Log(LogError::Corrupt { next_offset, .. }) => Some(next_offset),
                _ => None,
            };
        }
    };
    let mut at = 0;
    let mut next = None;
    while let Ok(header) = BatchHeader::parse(&bytes[at..]) {
        let Some(batch) = bytes.get(at..at + header.size as usize) else {
            break;
        };
        let base = header.base_offset;
        if left.is_last_free(log, base) {
            return Some(header.next_offset());
        }
        let mut batch = batch.to_vec();
        if left.is_epoch_free(base) {
            batch[12..16].copy_from_slice(&left.held[&base.0][12..16]);
        }
        assert!(
            left.held.get(&base.0).is_some_and(|held| *held == batch),
            "{what}: wrong bytes at offset {base}"
        );
        match next {
            // Nothing is passed over in silence, at the start or between batches.
            None => assert!(base <= offset, "{what}: offset {offset} is skipped"),
            Some(next) => assert_eq!(next, base, "{what}: offset {next} is skipped"),
        }
        next = Some(header.next_offset());
        at += header.size as usize;
    }
    assert!(
        next.is_some(),
        "{what}: nothing at offset {offset} of {end}"
    );
    next
}

fn search_by_time(log: &Log, left: &Left, what: &str) {
    for index in (0..BATCHES).step_by(7) {
        let timestamp = NOW + index as i64 * 10;
        let Some((base, _)) = left.held.iter().nth(index) else {
            continue;
        };
        match log.offset_for_timestamp(timestamp) {
            Ok(Some(found)) => {
                // Damage may have taken it: then it is a later one.
                let right = found.offset.0 == *base && found.timestamp == timestamp;
                let later = found.offset.0 > *base && found.timestamp > timestamp;
                assert!(right || later, "{what}: {found:?} for {base}");
            }
            Ok(None) => assert!(
                log.log_end_offset().0 <= *base || log.log_start_offset().0 > 0,
                "{what}"
            ),
            Err(error) => assert_eq!(error.error_code(), ErrorCode::CORRUPT_MESSAGE, "{what}"),
        }
    }
}

/// The log goes on where it ends.
fn append_and_read(log: &mut Log, what: &str) {
    let mut builder = BatchBuilder::new(BatchParams::default());
    builder.append(NOW, None, Some(b"after"), &[]);
    let batch = builder.finish();
    let info = log
        .append_own(batch, LeaderEpoch(i32::MAX), AppendOrigin::Client, NOW)
        .unwrap();
    let end = log.log_end_offset();
    let read = log.read_bytes(info.first_offset, 1, end).unwrap();
    let header = BatchHeader::parse(&read).unwrap();
    assert_eq!(header.base_offset, info.first_offset, "{what}");
}

/// Copies the directory; returns the files that aren't empty.
fn copy_all(from: &Path, to: &Path) -> Vec<(PathBuf, u64)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir(&target).unwrap();
            files.extend(copy_all(&entry.path(), &target));
        } else {
            let len = std::fs::copy(entry.path(), &target).unwrap();
            if len > 0 {
                files.push((target, len));
            }
        }
    }
    files.sort();
    files
}
