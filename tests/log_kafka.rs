//! Our log against Apache Kafka's own: random commands are executed by both (Kafka's by
//! tests/java/LogOracle.java), every answer must be the same, and in the end every file,
//! byte for byte. Kafka also opens our directories and we its, and its dump tool prints
//! ours as our own does.
//!
//! Runs when `OTTLA_KAFKA_CLASSPATH` is set, as `scripts/test` does. `OTTLA_LOG_SEED`
//! repeats one script.

#[path = "support/rules.rs"]
mod rules;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use ottla::base::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Rng, Uuid};
use ottla::io::RealDisk;
use ottla::log::dump::{self, DumpOptions};
use ottla::log::{
    AbortedTxn, AppendError, AppendInfo, AppendOrigin, Log, LogConfig, OpenParams, TailPool,
    manager,
};
use ottla::record::{
    BatchBuilder, BatchParams, CompressionType, EndTxnMarker, ProducerInfo, validate,
};
use rules::rules;

const NOW: i64 = 1_700_000_000_000;
const TOPIC_ID: Uuid = Uuid([7; 16]);
const HOUR_MS: i64 = 3_600_000;

/// Commands for both sides and the answers that ours gives.
struct Script {
    rng: Rng,
    log: Log,
    pool: TailPool,
    ours: PathBuf,
    theirs: PathBuf,
    copies: usize,
    commands: Vec<String>,
    answers: Vec<String>,
    epoch: i32,
    /// As Kafka's log has it.
    high_watermark: Offset,
    /// Next sequence of idempotent producers.
    sequences: [i32; 4],
    /// Epoch and next sequence of transactional producers, and whether they have begun.
    transactional: [(i16, i32, bool); 2],
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 9_000,
        segment_ms: HOUR_MS,
        segment_index_bytes: 240,
        index_interval_bytes: 500,
        retention_bytes: 60_000,
        retention_ms: 40 * HOUR_MS,
        ..LogConfig::default()
    }
}

const CONFIG: &str = "internal.segment.bytes=9000 segment.ms=3600000 segment.index.bytes=240 \
                      index.interval.bytes=500 retention.bytes=60000 retention.ms=144000000 \
                      file.delete.delay.ms=0 message.timestamp.before.max.ms=9223372036854775807";

impl Script {
    fn new(seed: u64, root: &Path) -> Script {
        let ours = root.join(format!("ours-{seed}/t-0"));
        let theirs = root.join(format!("theirs-{seed}-0/t-0"));
        let pool = TailPool::new(20_000);
        let log = open(&ours, &pool, Offset(0), Offset(0), false);
        let mut script = Script {
            rng: Rng::new(seed),
            log,
            pool,
            ours,
            copies: 0,
            commands: Vec::new(),
            answers: Vec::new(),
            epoch: 0,
            high_watermark: Offset(0),
            sequences: [0; 4],
            transactional: [(0, 0, false); 2],
            theirs,
        };
        script.say(format!("config {NOW} {CONFIG}"), "ok");
        let opened = format!("open {} 0 0 unclean", script.theirs.display());
        script.say(opened, "ok");
        script
    }

    fn say(&mut self, command: String, answer: impl Into<String>) {
        self.commands.push(command);
        self.answers.push(answer.into());
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..40 => self.produce(),
            40..52 => self.transact(),
            52..58 => self.replicate(),
            58..61 => {
                self.epoch += 1 + self.rng.below(2) as i32;
                self.log.start_epoch(LeaderEpoch(self.epoch)).unwrap();
                self.say(format!("epoch {}", self.epoch), "ok");
            }
            61..63 => {
                if self.log.end_position().position > 0 {
                    self.log.roll(NOW).unwrap();
                }
                self.say("roll".into(), "ok");
            }
            63..66 => self.truncate(),
            66..69 => self.move_start(),
            69..71 => self.retain(),
            71..73 => self.reopen_clean(),
            73..75 => self.reopen_unclean(),
            75..85 => self.read(),
            85..92 => self.find(),
            92..95 => self.aborted(),
            _ => self.state(),
        }
    }

    /// Mostly of the last hours, and not in order.
    fn timestamps(&mut self) -> Vec<i64> {
        let count = 1 + self.rng.below(4);
        let base = NOW - self.log.log_end_offset().0.min(1_000) * -60_000 % HOUR_MS - 2 * HOUR_MS;
        (0..count)
            .map(|_| match self.rng.below(30) {
                0 => -1,
                1 => NOW - self.rng.below(60 * HOUR_MS as u64) as i64,
                _ => base + self.log.log_end_offset().0 * 1_000 + self.rng.below(60_000) as i64,
            })
            .map(|timestamp| timestamp.min(NOW))
            .collect()
    }

    fn batch(&mut self, params: BatchParams) -> (Bytes, usize) {
        let codec = match self.rng.below(4) {
            0 => CompressionType::Lz4,
            1 => CompressionType::Gzip,
            _ => CompressionType::None,
        };
        let mut builder = BatchBuilder::new(BatchParams {
            compression: codec.into(),
            ..params
        });
        let mut timestamps = self.timestamps();
        if params.producer.is_some() {
            // A producer without timestamps is forgotten when the log is opened.
            timestamps
                .iter_mut()
                .for_each(|t| *t = (*t).max(NOW - 20 * HOUR_MS));
        }
        let large = self.rng.one_in(12);
        for timestamp in &timestamps {
            let len = self.rng.below(if large { 3_000 } else { 250 }) as usize;
            let value: Vec<u8> = (0..len).map(|_| b'a' + self.rng.below(26) as u8).collect();
            builder.append(*timestamp, Some(b"key"), Some(&value), &[]);
        }
        (builder.finish(), timestamps.len())
    }

    fn produce(&mut self) {
        let producer = self.rng.below(6) as usize;
        let next = self.sequences.get(producer).copied();
        let sequence = next.map(|next| match self.rng.below(20) {
            0 => next + 2,
            _ => next,
        });
        let info = sequence.map_or(ProducerInfo::NONE, |base_sequence| ProducerInfo {
            id: ProducerId(producer as i64),
            epoch: ProducerEpoch(0),
            base_sequence,
        });
        let (batch, count) = self.batch(BatchParams {
            producer: info,
            ..BatchParams::default()
        });
        if self.lead(&batch) && info.is_some() {
            self.sequences[producer] = info.base_sequence + count as i32;
            if self.rng.one_in(3) {
                self.lead(&batch);
            }
        }
    }

    /// Appends as a client; true if that worked.
    fn lead(&mut self, batch: &Bytes) -> bool {
        let epoch = LeaderEpoch(self.epoch);
        let validated = validate(BytesMut::from(&batch[..]), &rules(NOW)).unwrap();
        let appended = self.log.append_as_leader(validated, epoch, NOW);
        self.say(format!("leader {epoch} {}", hex(batch)), told(&appended));
        appended.is_ok()
    }

    fn transact(&mut self) {
        let which = self.rng.below(2) as usize;
        let (epoch, sequence, begun) = self.transactional[which];
        let id = ProducerId(100 + which as i64);
        if !begun || self.rng.one_in(2) {
            let (batch, count) = self.batch(BatchParams {
                producer: ProducerInfo {
                    id,
                    epoch: ProducerEpoch(epoch),
                    base_sequence: sequence,
                },
                transactional: true,
                ..BatchParams::default()
            });
            if self.lead(&batch) {
                self.transactional[which] = (epoch, sequence + count as i32, true);
            }
            return;
        }
        // Version 2 of transactions ends each with a new epoch.
        let version = 1 + self.rng.below(2) as i16;
        let marker_epoch = if version == 2 { epoch + 1 } else { epoch };
        let params = BatchParams {
            producer: ProducerInfo {
                id,
                epoch: ProducerEpoch(marker_epoch),
                base_sequence: -1,
            },
            ..BatchParams::default()
        };
        let marker = EndTxnMarker {
            commit: self.rng.one_in(2),
            coordinator_epoch: 3,
        };
        let batch = BatchBuilder::end_txn_marker(params, NOW - HOUR_MS, marker);
        let leader_epoch = LeaderEpoch(self.epoch);
        let origin = AppendOrigin::Coordinator {
            transaction_version: version,
        };
        let appended = self
            .log
            .append_own(batch.clone(), leader_epoch, origin, NOW);
        let command = format!("own {leader_epoch} {version} {}", hex(&batch));
        self.say(command, told(&appended));
        if appended.is_ok() {
            let sequence = if version == 2 { 0 } else { sequence };
            self.transactional[which] = (marker_epoch, sequence, false);
        }
    }

    fn replicate(&mut self) {
        let mut records = Vec::new();
        let mut base = self.log.log_end_offset();
        let mut size = 0;
        for _ in 0..=self.rng.below(4) {
            if self.rng.one_in(8) {
                base += 5;
            }
            let epoch = match self.rng.below(12) {
                0 => self.epoch + 1,
                _ => self.epoch,
            };
            let (batch, count) = self.batch(BatchParams {
                base_offset: base,
                leader_epoch: LeaderEpoch(epoch),
                ..BatchParams::default()
            });
            // Kafka refuses more than a segment at once.
            size += batch.len();
            if size > 8_000 {
                break;
            }
            records.extend_from_slice(&batch);
            base += count as i64;
        }
        records.extend_from_slice(&[0; 7]);
        let bytes = Bytes::from(records);
        let epoch = LeaderEpoch(self.epoch);
        let info = self
            .log
            .append_as_follower(bytes.clone(), epoch, NOW)
            .unwrap();
        let answer = format!("ok {}", info.log_end_offset);
        self.say(format!("follower {epoch} {}", hex(&bytes)), answer);
    }

    fn truncate(&mut self) {
        // At the start of a batch: elsewhere Kafka leaves the log ending after its last batch.
        let end = self.log.log_end_offset();
        let at = Offset((end.0 - self.rng.below(30) as i64).max(0));
        let at = match at < self.log.log_start_offset() || at >= end {
            true => at,
            false => self.log.position_of(at).unwrap().offset,
        };
        self.log.truncate_to(at, NOW).unwrap();
        self.unlink();
        self.say(format!("truncate {at}"), "ok");
        let end = self.log.log_end_offset();
        if self.high_watermark >= end {
            self.move_high_watermark(end);
        }
        self.follow_producers();
    }

    fn move_high_watermark(&mut self, to: Offset) {
        self.high_watermark = to;
        self.log.on_high_watermark(to);
    }

    fn move_start(&mut self) {
        let (start, end) = (self.log.log_start_offset(), self.log.log_end_offset());
        let to = start + self.rng.below((end - start).min(40) as u64 + 1) as i64;
        self.log.increase_log_start_offset(to).unwrap();
        self.move_high_watermark(end);
        self.say(format!("start {to}"), "ok");
    }

    fn retain(&mut self) {
        let end = self.log.log_end_offset();
        self.move_high_watermark(end);
        let deleted = self.log.delete_old_segments(NOW, end).unwrap();
        self.unlink();
        let start = self.log.log_start_offset();
        self.say("retain".into(), format!("ok {deleted} {start}"));
    }

    fn unlink(&mut self) {
        let pending = self.log.take_pending_deletions();
        manager::unlink(&RealDisk, &pending).unwrap();
    }

    fn reopen_clean(&mut self) {
        self.close();
        self.reopen(true);
    }

    fn close(&mut self) {
        self.log.close().unwrap();
        self.say("close".into(), "ok");
    }

    fn reopen_unclean(&mut self) {
        self.copies += 1;
        let copy = self
            .theirs
            .parent()
            .unwrap()
            .with_extension(self.copies.to_string());
        self.theirs = copy.join("t-0");
        self.say(format!("copy {}", self.theirs.display()), "ok");
        self.reopen(false);
    }

    fn reopen(&mut self, clean: bool) {
        let recovery_point = match self.rng.below(4) {
            0 => Offset(0),
            _ => self.log.end_position().segment_base_offset,
        };
        let start = self.log.log_start_checkpoint().unwrap_or(Offset(0));
        self.log = open(&self.ours, &self.pool, recovery_point, start, clean);
        self.unlink();
        let how = if clean { "clean" } else { "unclean" };
        let theirs = self.theirs.display();
        self.say(
            format!("open {theirs} {recovery_point} {start} {how}"),
            "ok",
        );
        self.high_watermark = self.log.log_start_offset();
        self.follow_producers();
        self.state();
    }

    /// Producers go on where the log says.
    fn follow_producers(&mut self) {
        for (id, sequence) in self.sequences.iter_mut().enumerate() {
            if let Some(entry) = self.log.producers().get(ProducerId(id as i64)) {
                *sequence = entry.last_sequence() + 1;
            }
        }
        for (i, state) in self.transactional.iter_mut().enumerate() {
            if let Some(entry) = self.log.producers().get(ProducerId(100 + i as i64)) {
                let begun = entry.txn_first_offset.is_some();
                *state = (entry.epoch.0, entry.last_sequence() + 1, begun);
            } else {
                state.2 = false;
            }
        }
    }

    fn read(&mut self) {
        let (start, end) = (self.log.log_start_offset(), self.log.log_end_offset());
        let offset = start + self.rng.below((end - start) as u64 + 1) as i64;
        let upper = match self.rng.one_in(2) {
            true => end,
            false => start + self.rng.below((end - start) as u64 + 1) as i64,
        };
        let bytes = self.rng.below(6_000);
        let min_one = self.rng.one_in(2);
        let read = self
            .log
            .read(offset, bytes as usize, upper, min_one)
            .unwrap();
        self.move_high_watermark(end);
        let chunks = read.chunks.iter().map(|chunk| chunk.to_bytes().unwrap());
        let contents: Vec<u8> = chunks.flat_map(Bytes::into_iter).collect();
        let (segment, position) = (read.start.segment_base_offset, read.start.position);
        let answer = format!("ok {segment} {position} {}", hex(&contents));
        self.say(format!("read {offset} {bytes} {upper} {min_one}"), answer);
    }

    fn find(&mut self) {
        let (timestamp, found) = match self.rng.below(4) {
            0 => (-3, self.log.max_timestamp().unwrap()),
            _ => {
                let timestamp = NOW - self.rng.below(5 * HOUR_MS as u64) as i64;
                (timestamp, self.log.offset_for_timestamp(timestamp).unwrap())
            }
        };
        let answer = found.map_or("ok none".to_owned(), |f| {
            format!("ok {} {} {}", f.timestamp, f.offset, f.leader_epoch)
        });
        self.say(format!("find {timestamp}"), answer);
    }

    fn aborted(&mut self) {
        let (start, end) = (self.log.log_start_offset(), self.log.log_end_offset());
        let read = self.log.read(start, usize::MAX, end, true).unwrap();
        let found = self.log.aborted_transactions(start, &read).unwrap();
        // What ours takes for the end of what was read.
        let upper = self.log.read_upper_bound(&read).unwrap();
        let mut answer = "ok".to_owned();
        for AbortedTxn {
            producer_id,
            first_offset,
            last_offset,
            last_stable_offset,
        } in found
        {
            write!(
                answer,
                " {producer_id}:{first_offset}:{last_offset}:{last_stable_offset}"
            )
            .unwrap();
        }
        self.say(format!("aborted {start} {upper}"), answer);
    }

    fn state(&mut self) {
        let log = &self.log;
        let epochs = log.epochs().entries().iter();
        let epochs = epochs.map(|e| format!("{}@{}", e.epoch, e.start_offset));
        let producers = log.producers().sorted();
        let producers = producers.iter().map(|(id, entry)| {
            let txn = entry.txn_first_offset.map_or(-1, |offset| offset.0);
            let last = entry.batches.last().map(|b| {
                let (first_sequence, first_offset) = (b.first_sequence(), b.first_offset());
                let (sequence, offset) = (b.last_sequence, b.last_offset);
                format!("/{first_sequence}-{sequence}@{first_offset}-{offset}")
            });
            format!(
                "{id}/{}/{}/{}/{txn}{}",
                entry.epoch,
                entry.coordinator_epoch,
                entry.last_timestamp,
                last.unwrap_or_default()
            )
        });
        let unstable = log.producers().first_unstable_offset();
        let answer = format!(
            "ok start {} end {} size {} segments {} epochs {} unstable {} producers {}",
            log.log_start_offset(),
            log.log_end_offset(),
            log.size_in_bytes(),
            log.segment_count(),
            epochs.collect::<Vec<_>>().join(","),
            unstable.map_or("none".to_owned(), |offset| offset.to_string()),
            producers.collect::<Vec<_>>().join(","),
        );
        self.say("state".into(), answer);
    }
}

fn open(
    dir: &Path,
    pool: &TailPool,
    recovery_point: Offset,
    log_start_offset: Offset,
    clean: bool,
) -> Log {
    let params = OpenParams {
        recovery_point,
        log_start_offset,
        clean,
        topic_id: Some(TOPIC_ID),
        ..OpenParams::default()
    };
    let opened = Log::open(Rc::new(RealDisk), dir, config(), &params, pool, NOW);
    opened.unwrap().0
}

fn told(appended: &Result<AppendInfo, AppendError>) -> String {
    match appended {
        Ok(info) => format!(
            "ok {} {} {}",
            info.first_offset, info.last_offset, info.log_append_time
        ),
        Err(error) => format!("error {}", error.error_code().0),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Files of a closed log by name. A transaction index that was emptied by a truncation is
/// as good as none.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .filter(|(name, contents)| !(name.ends_with(".txnindex") && contents.is_empty()))
        .collect()
}

/// Kafka's classpath; `None` where this machine has none, which CI does not accept.
fn classpath() -> Option<String> {
    let classpath = std::env::var("OTTLA_KAFKA_CLASSPATH").ok();
    if classpath.is_none() {
        assert!(
            std::env::var("OTTLA_CI").as_deref() != Ok("1"),
            "OTTLA_KAFKA_CLASSPATH is not set"
        );
        eprintln!("skipped: OTTLA_KAFKA_CLASSPATH is not set");
    }
    classpath
}

fn java(classpath: &str, args: &[&str], input: &str) -> (String, String) {
    let mut child = Command::new("java")
        .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx1g"])
        .args(["-cp", classpath])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "java {args:?} failed:\n{stderr}");
    writer.join().unwrap().unwrap();
    (String::from_utf8(output.stdout).unwrap(), stderr)
}

fn oracle(classpath: &str, commands: &[String]) -> Vec<String> {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/java/LogOracle.java");
    let (answers, stderr) = java(classpath, &[program], &(commands.join("\n") + "\n"));
    if std::env::var_os("ORACLE_EXPLAINS").is_some() {
        eprintln!("{stderr}");
    }
    let answers = answers.lines().filter_map(|line| line.strip_prefix("= "));
    answers.map(str::to_owned).collect()
}

fn shortened(text: &str) -> &str {
    text.get(..120).unwrap_or(text)
}

#[test]
fn answers_and_files_are_those_of_kafka() {
    let Some(classpath) = classpath() else { return };
    let root = tempfile::tempdir().unwrap();
    let seeds = match std::env::var("OTTLA_LOG_SEED") {
        Ok(seed) => {
            let seed = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) => 0..8,
    };
    let mut scripts: Vec<Script> = Vec::new();
    for seed in seeds.clone() {
        let mut script = Script::new(seed, root.path());
        for _ in 0..300 {
            script.step();
        }
        // Kafka makes the indexes of a segment with its first batch.
        let (batch, _) = script.batch(BatchParams::default());
        assert!(script.lead(&batch));
        let end = script.log.log_end_offset();
        script.move_high_watermark(end);
        script.say("high-watermark".into(), "ok");
        script.state();
        let killed = script.theirs.parent().unwrap().with_extension("killed");
        script.say(format!("copy {}", killed.join("t-0").display()), "ok");
        script.close();
        // Kafka takes our directory as its own, after a clean stop and after any other.
        let last_state = script.commands.len() - 3;
        let state = script.answers[last_state].clone();
        let start = script.log.log_start_checkpoint().unwrap_or(Offset(0));
        for how in ["clean", "unclean"] {
            let ours = script.ours.display().to_string();
            let recovery_point = script.log.end_position().segment_base_offset;
            if how == "unclean" && script.log.log_start_offset() > recovery_point {
                // Recovery then forgets producers whose records have been deleted.
                continue;
            }
            script.say(format!("open {ours} {recovery_point} {start} {how}"), "ok");
            script.say("state".into(), state.clone());
            script.say("close".into(), "ok");
        }
        scripts.push(script);
    }
    let before: Vec<_> = scripts.iter().map(|script| files(&script.ours)).collect();
    let commands: Vec<String> = scripts.iter().flat_map(|s| s.commands.clone()).collect();
    let mut answers = oracle(&classpath, &commands).into_iter();
    for ((script, before), seed) in scripts.iter().zip(before).zip(seeds) {
        println!("OTTLA_LOG_SEED={seed}");
        for (i, (command, answer)) in script.commands.iter().zip(&script.answers).enumerate() {
            let theirs = answers.next().unwrap();
            let earlier = script.commands[i.saturating_sub(5)..i].iter();
            let earlier: Vec<&str> = earlier.map(|command| shortened(command)).collect();
            assert_eq!(
                *answer,
                theirs,
                "{i}: {} after {earlier:#?}",
                shortened(command)
            );
        }
        same_files(&before, &files(&script.theirs));
        // Kafka found nothing to repair in ours. Both remove old snapshots on the way.
        let but = |suffixes: &[&str], files: &BTreeMap<String, Vec<u8>>| {
            let mut files = files.clone();
            files.retain(|name, _| !suffixes.iter().any(|suffix| name.ends_with(suffix)));
            files
        };
        // Which entries an index has depends on where the log was opened and cut.
        let rebuilt = [".snapshot", ".index", ".timeindex"];
        same_files(
            &but(&rebuilt, &before),
            &but(&rebuilt, &files(&script.ours)),
        );
        // And we find nothing to repair in its.
        for clean in [true, false] {
            let start = script.log.log_start_checkpoint().unwrap_or(Offset(0));
            let recovery_point = script.log.end_position().segment_base_offset;
            if !clean && start > recovery_point {
                continue;
            }
            let mut log = open(&script.theirs, &script.pool, recovery_point, start, clean);
            assert_eq!(log.log_end_offset(), script.log.log_end_offset());
            assert_eq!(log.log_start_offset(), script.log.log_start_offset());
            log.close().unwrap();
            let suffixes = match clean {
                true => &rebuilt[..1],
                false => &rebuilt,
            };
            let after = files(&script.theirs);
            same_files(&but(suffixes, &before), &but(suffixes, &after));
        }
        // Nor in what a killed Kafka leaves: its last indexes end in zeros.
        let killed = script.theirs.parent().unwrap().with_extension("killed");
        for recovery_point in [Offset(0), script.log.end_position().segment_base_offset] {
            let start = script.log.log_start_checkpoint().unwrap_or(Offset(0));
            let dir = killed.join("t-0");
            let mut log = open(&dir, &script.pool, recovery_point, start, false);
            assert_eq!(log.log_end_offset(), script.log.log_end_offset());
            log.close().unwrap();
            let but_logs = [".snapshot", "index"];
            same_files(&but(&but_logs, &before), &but(&but_logs, &files(&dir)));
        }
        if seed % 4 == 0 {
            dumps_alike(&classpath, &script.ours);
        }
    }
}

fn same_files(left: &BTreeMap<String, Vec<u8>>, right: &BTreeMap<String, Vec<u8>>) {
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(left), names(right));
    for (name, contents) in left {
        assert_eq!(hex(contents), hex(&right[name]), "{name}");
    }
}

fn dumps_alike(classpath: &str, dir: &Path) {
    let mut paths: Vec<PathBuf> = files(dir).into_keys().map(|name| dir.join(name)).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e != "metadata"));
    let joined = paths.iter().map(|path| path.display().to_string());
    let joined = joined.collect::<Vec<_>>().join(",");
    let tool = "org.apache.kafka.tools.DumpLogSegments";
    let args = [tool, "--print-data-log", "--files", &joined];
    let (stdout, stderr) = java(classpath, &args, "");
    let options = DumpOptions {
        print_data: true,
        ..DumpOptions::default()
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    dump::dump(&RealDisk, &paths, &options, &mut out, &mut err).unwrap();
    let out = String::from_utf8(out).unwrap();
    for (i, (ours, theirs)) in out.lines().zip(stdout.lines()).enumerate() {
        assert_eq!(ours, theirs, "line {i}");
    }
    assert_eq!(out.lines().count(), stdout.lines().count());
    assert!(!out.contains("isvalid: false"));
    // Kafka tells of files in the order of a hash map, and logs something itself.
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.retain(|line| line.starts_with("  ") || line.contains(&*dir.to_string_lossy()));
        lines.sort();
        lines
    };
    let err = sorted(&String::from_utf8(err).unwrap());
    assert_eq!(err, sorted(&stderr));
    // Followers of compacted logs have holes; nothing else may be odd.
    let odd = |line: &&String| !line.contains("Non-consecutive") && !line.contains("followed");
    assert_eq!(err.iter().find(odd), None);
}
