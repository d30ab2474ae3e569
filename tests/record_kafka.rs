//! Record batches against Apache Kafka's own code (`tests/java/RecordOracle.java`).
//!
//! The bytes that Kafka 4.3.1 wrote, and its leader's answers to some odd batches, stand in
//! `tests/golden/record/`, so these need no Java. The other direction, and the leader's
//! answers to more random batches, run Kafka when `OTTLA_KAFKA_CLASSPATH` is set, as
//! `scripts/test` does.
//!
//! `OTTLA_UPDATE_GOLDEN=1` writes the golden files anew. `OTTLA_RECORD_SEED` and
//! `OTTLA_RECORD_CASES` choose other random batches.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use ottla::base::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Rng};
use ottla::record::{
    BatchBuilder, BatchParams, BatchView, Batches, Compression, CompressionType, Header,
    ProducerInfo, TimestampType, offset_of_max_timestamp, records,
};

#[path = "support/record_cases.rs"]
mod cases;
use cases::Case;

fn golden_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/record")
        .join(name)
}

fn updates_golden() -> bool {
    std::env::var("OTTLA_UPDATE_GOLDEN").as_deref() == Ok("1")
}

/// What the oracle prints of the same bytes.
fn describe(bytes: &[u8]) -> String {
    let mut text = String::new();
    for batch in Batches::new(bytes) {
        describe_batch(&batch.unwrap(), &mut text);
    }
    text
}

fn describe_batch(batch: &BatchView<'_>, text: &mut String) {
    assert!(batch.verify_crc());
    let horizon = batch
        .delete_horizon()
        .map_or("none".to_owned(), |horizon| horizon.to_string());
    writeln!(
        text,
        "batch size={} base={} last={} next={} epoch={} crc={} codec={} timestamps={} transactional={} control={} horizon={horizon} baseTimestamp={} maxTimestamp={} producer={}/{} sequence={}..{} count={}",
        batch.size_in_bytes(),
        batch.base_offset(),
        batch.last_offset(),
        batch.next_offset(),
        batch.partition_leader_epoch(),
        batch.crc(),
        batch.compression().unwrap().name(),
        batch.timestamp_type() as i32,
        batch.is_transactional(),
        batch.is_control(),
        batch.base_timestamp(),
        batch.max_timestamp(),
        batch.producer_id(),
        batch.producer_epoch(),
        batch.base_sequence(),
        batch.last_sequence(),
        batch.record_count(),
    )
    .unwrap();
    let first = offset_of_max_timestamp(batch)
        .unwrap()
        .map_or("none".to_owned(), |found| found.offset.to_string());
    writeln!(text, "first of max timestamp={first}").unwrap();
    let mut records = records(batch).unwrap();
    while let Some(record) = records.next() {
        let record = record.unwrap();
        let headers: String = record
            .headers()
            .map(|Header { key, value }| {
                // Kafka hands out text; bytes that are none become U+FFFD.
                let key = String::from_utf8_lossy(key);
                format!(" {}={}", shown(Some(key.as_bytes())), shown(value))
            })
            .collect();
        writeln!(
            text,
            "record offset={} timestamp={} sequence={} attributes={} key={} value={} headers:{headers}",
            batch.record_offset(record.offset_delta),
            batch.record_timestamp(record.timestamp_delta),
            batch.record_sequence(record.offset_delta),
            record.attributes,
            shown(record.key),
            shown(record.value),
        )
        .unwrap();
    }
}

fn shown(bytes: Option<&[u8]>) -> String {
    match bytes {
        None => "null".to_owned(),
        Some(bytes) if bytes.len() <= 16 => format!("'{}'", hex(bytes)),
        Some(bytes) => format!("{}*{:x}", bytes.len(), crc_fast::crc32_iscsi(bytes)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
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

/// Runs the oracle and returns what it prints.
fn oracle(classpath: &str, mode: &str, input: &str) -> String {
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/java/RecordOracle.java");
    let mut child = Command::new("java")
        .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx1g"])
        .args(["-cp", classpath])
        .arg(program)
        .arg(mode)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the oracle failed:\n{stderr}");
    writer.join().unwrap().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Compares each batch in the oracle's "write" format with what we read in it.
fn check_written(text: &str) -> usize {
    let mut count = 0;
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let mut lines = block.trim().lines();
        let name = lines.next().unwrap();
        let bytes = unhex(lines.next().unwrap().strip_prefix("hex ").unwrap());
        let expected: String = lines.map(|line| format!("{line}\n")).collect();
        assert_eq!(describe(&bytes), expected, "{name}");
        count += 1;
    }
    count
}

#[test]
fn batches_written_by_kafka_are_read_field_by_field() {
    let text = std::fs::read_to_string(golden_path("kafka-4.3.1.txt")).unwrap();
    assert_eq!(check_written(&text), 81);
}

#[test]
fn batches_that_kafka_writes_here_are_read_field_by_field() {
    let Some(classpath) = classpath() else { return };
    let text = oracle(&classpath, "write", "");
    assert_eq!(check_written(&text), 81);
    if updates_golden() {
        std::fs::write(golden_path("kafka-4.3.1.txt"), text).unwrap();
    }
}

#[test]
fn batches_that_we_build_are_read_by_kafka() {
    let Some(classpath) = classpath() else { return };
    let batches: Vec<Vec<u8>> = built_batches();
    let input: String = batches.iter().map(|batch| hex(batch) + "\n").collect();
    let answers = oracle(&classpath, "read", &input);
    let mut answers = answers.split("\n\n");
    for batch in &batches {
        assert_eq!(answers.next().unwrap().to_owned() + "\n", describe(batch));
    }
}

fn built_batches() -> Vec<Vec<u8>> {
    let noise = {
        let mut rng = Rng::new(3);
        (0..90_000)
            .map(|_| rng.next_u64() as u8)
            .collect::<Vec<u8>>()
    };
    let mut batches = Vec::new();
    for codec in CompressionType::ALL {
        let levels: &[i32] = match codec {
            CompressionType::None | CompressionType::Snappy => &[0],
            CompressionType::Gzip => &[-1, 1, 6, 9],
            CompressionType::Lz4 => &[1, 9, 17],
            CompressionType::Zstd => &[-131_072, -1, 1, 3, 19, 22],
        };
        for &level in levels {
            for producer in [0, i64::MAX] {
                batches.push(built(Compression::new(codec, level), producer, &noise));
            }
        }
    }
    batches.push(BatchBuilder::empty(BatchParams::default(), 9, 12).to_vec());
    batches
}

fn built(compression: Compression, producer: i64, noise: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchParams {
        compression,
        timestamp_type: if compression.level % 2 == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        },
        log_append_time: 1_800_000_000_000,
        producer: ProducerInfo {
            id: ProducerId(producer),
            epoch: ProducerEpoch(i16::MAX),
            base_sequence: i32::MAX,
        },
        transactional: producer > 0,
        base_offset: Offset(1 << 40),
        leader_epoch: LeaderEpoch(8),
        delete_horizon: (producer == 0).then_some(1_900_000_000_000),
        ..BatchParams::default()
    });
    let headers = [
        Header {
            key: b"",
            value: None,
        },
        Header {
            key: "ключ".as_bytes(),
            value: Some(&noise[..200]),
        },
    ];
    builder.append(1_700_000_000_000, Some(b"k"), Some(b"v"), &headers);
    builder.append(1_700_000_000_001, None, None, &[]);
    builder.append(-1, Some(b""), Some(b""), &headers[..1]);
    builder.append_at(
        1_000,
        1_600_000_000_000,
        Some(noise),
        Some(&noise[..50_000]),
        &[],
    );
    builder.append_at(2_000, 1_700_000_000_001, None, Some(&[7; 150_000]), &[]);
    builder.append_at(2_001, i64::MAX, Some(b"last"), None, &headers);
    builder.cover(3_000);
    builder.finish().to_vec()
}

#[test]
fn a_leader_answers_as_kafkas_does() {
    let Some(classpath) = classpath() else { return };
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (seed, count) = (
        number("OTTLA_RECORD_SEED", 1),
        number("OTTLA_RECORD_CASES", 400),
    );
    println!("seed {seed}, {count} cases");
    let mut rng = Rng::new(seed);
    let cases: Vec<Case> = (0..count).map(|_| Case::random(&mut rng)).collect();
    let input: String = cases.iter().map(|case| case.line() + "\n").collect();
    let answers = oracle(&classpath, "validate", &input);
    let kept: String = cases
        .iter()
        .zip(answers.split("\n\n"))
        .filter(|(case, answer)| case.is_small() && answer.len() < 2_500)
        .map(|(case, answer)| format!("{} {}\n{}\n\n", case.mark(), case.line(), answer.trim()))
        .collect();
    compare(cases.iter().zip(answers.split("\n\n")));
    if updates_golden() {
        std::fs::write(golden_path("leader-4.3.1.txt"), kept).unwrap();
    }
}

#[test]
fn a_leader_answers_as_kafkas_did() {
    let text = std::fs::read_to_string(golden_path("leader-4.3.1.txt")).unwrap();
    let kept: Vec<(Case, &str)> = text
        .split("\n\n")
        .filter_map(|block| block.trim().split_once('\n'))
        .map(|(case, answer)| (Case::parse(case), answer))
        .collect();
    assert!(kept.len() > 200);
    for (case, _) in &kept {
        assert_eq!(
            Case::parse(&format!("{} {}", case.mark(), case.line())).line(),
            case.line()
        );
    }
    compare(kept.iter().map(|(case, answer)| (case, *answer)));
}

/// Our answers to the cases beside Kafka's.
fn compare<'a>(answered: impl Iterator<Item = (&'a Case, &'a str)>) {
    let mut outcomes = std::collections::BTreeMap::new();
    let mut differences = Vec::new();
    let mut count = 0;
    for (case, theirs) in answered {
        count += 1;
        let theirs: Vec<&str> = theirs.trim().lines().collect();
        *outcomes.entry(outcome(&theirs)).or_insert(0) += 1;
        let (ours, comparable) = case.answer(describe);
        let ours: Vec<&str> = ours.lines().collect();
        if !comparable.same(&ours, &theirs) {
            differences.push(format!(
                "{}\n  ours   {}\n  kafka  {}",
                case.line(),
                ours.join("\n         "),
                theirs.join("\n         ")
            ));
        }
    }
    println!("{outcomes:?}");
    assert!(
        differences.is_empty(),
        "{} of {count} differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

/// "ok" or "error CODE".
fn outcome(answer: &[&str]) -> String {
    let first = answer.first().copied().unwrap_or_default();
    if first.starts_with("ok") {
        "ok".to_owned()
    } else {
        first.to_owned()
    }
}
