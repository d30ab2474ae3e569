//! Random produced batches, most of them slightly wrong, and our answer to each in the
//! words of `tests/java/RecordOracle.java`.

use std::fmt::Write as _;

use bytes::BytesMut;
use ottla::base::{LeaderEpoch, Offset, PartitionIndex, Rng};
use ottla::record::{
    Compression, CompressionType, Origin, Rejected, TargetCompression, TimestampType, Validated,
    Validation, ValidationRules, compress, set_base_offset, set_leader_epoch, validate,
    validate_shape,
};

const NOW: i64 = 1_700_000_000_000;
const HOUR: i64 = 3_600_000;

/// A batch, the rules it meets, and what is knowingly answered otherwise than by Kafka.
pub struct Case {
    rules: ValidationRules<'static>,
    records: Vec<u8>,
    /// Our refusal may be another than Kafka's:
    /// - A compressed record's declared size is wrong, which Kafka overlooks at times.
    /// - The compressed stream is damaged: 87 or -1, as the decoder happens to notice.
    /// - The batch is shorter than its header.
    odd: bool,
}

/// How strictly two answers are compared.
pub enum Comparable {
    Exactly,
    /// Not the bytes, nor size and CRC: two encoders were at work.
    Contents,
    /// Kafka refuses it too, with whatever error, or stores what it can't read then.
    Refusals,
}

impl Comparable {
    pub fn same(&self, ours: &[&str], theirs: &[&str]) -> bool {
        match self {
            Comparable::Exactly => ours == theirs,
            Comparable::Contents => {
                let strip = |lines: &[&str]| -> Vec<String> {
                    lines
                        .iter()
                        .filter(|line| !line.starts_with("hex "))
                        .map(|line| without_size_and_crc(line))
                        .collect()
                };
                strip(ours) == strip(theirs)
            }
            Comparable::Refusals => {
                let refused = |lines: &[&str]| lines[0].starts_with("error");
                let unreadable = theirs.last().is_some_and(|line| line.trim() == "error 87");
                refused(ours) && (refused(theirs) || unreadable)
            }
        }
    }
}

fn without_size_and_crc(line: &str) -> String {
    line.split(' ')
        .filter(|word| !word.starts_with("size=") && !word.starts_with("crc="))
        .collect::<Vec<_>>()
        .join(" ")
}

impl Case {
    pub fn random(rng: &mut Rng) -> Case {
        let rules = random_rules(rng);
        let batch = RandomBatch::new(rng, &rules);
        let (mut records, damaged_stream) = batch.encode(rng);
        let mut short = false;
        if rules.origin == Origin::Client {
            short = rng.one_in(60) && cut_short(rng, &mut records);
            if rng.one_in(12) {
                spoil_frame(rng, &mut records);
            }
        }
        Case {
            rules,
            records,
            odd: short
                || damaged_stream
                || batch.wrong_size && batch.codec != CompressionType::None,
        }
    }

    /// Reads [`line`](Self::line) back, preceded by `mark`.
    pub fn parse(text: &str) -> Case {
        let fields: Vec<&str> = text.split(' ').collect();
        let number = |at: usize| fields[at].parse::<i64>().unwrap();
        let codec = match fields[5] {
            "uncompressed" => CompressionType::None,
            name => CompressionType::from_name(name).unwrap_or_default(),
        };
        Case {
            rules: ValidationRules {
                topic: "topic",
                partition: PartitionIndex(0),
                now_ms: number(3),
                max_message_bytes: number(4) as i32,
                compression_type: match fields[5] {
                    "producer" => TargetCompression::Producer,
                    _ => TargetCompression::Codec(codec.into()),
                },
                timestamp_type: match fields[7] {
                    "CreateTime" => TimestampType::CreateTime,
                    _ => TimestampType::LogAppendTime,
                },
                before_max_ms: number(8),
                after_max_ms: number(9),
                compacted: fields[10] == "compact",
                origin: match fields[1] {
                    "client" => Origin::Client,
                    _ => Origin::Coordinator,
                },
                produce_version: number(2) as i16,
            },
            records: super::unhex(fields[11]),
            odd: fields[0] == "odd",
        }
    }

    /// How the case is marked where it is kept.
    pub fn mark(&self) -> &'static str {
        if self.odd { "odd" } else { "case" }
    }

    /// Whether it is small enough to be kept.
    pub fn is_small(&self) -> bool {
        self.records.len() < 400
    }

    /// The case as the oracle takes it.
    pub fn line(&self) -> String {
        let rules = &self.rules;
        let (codec, level) = match rules.compression_type {
            TargetCompression::Producer => ("producer", "-".to_owned()),
            TargetCompression::Codec(Compression { codec, level }) => match codec {
                CompressionType::None => ("uncompressed", "-".to_owned()),
                CompressionType::Snappy => ("snappy", "-".to_owned()),
                codec => (codec.name(), level.to_string()),
            },
        };
        format!(
            "{} {} {} {} {codec} {level} {} {} {} {} {}",
            match rules.origin {
                Origin::Client => "client",
                Origin::Coordinator => "coordinator",
            },
            rules.produce_version,
            rules.now_ms,
            rules.max_message_bytes,
            match rules.timestamp_type {
                TimestampType::CreateTime => "CreateTime",
                TimestampType::LogAppendTime => "LogAppendTime",
            },
            rules.before_max_ms,
            rules.after_max_ms,
            if rules.compacted { "compact" } else { "delete" },
            super::hex(&self.records)
        )
    }

    /// Our answer, and how it may be compared.
    pub fn answer(&self, describe: impl Fn(&[u8]) -> String) -> (String, Comparable) {
        let mut rewritten = false;
        let answer = self.answer_to(&mut rewritten, describe);
        let refused = answer.starts_with("error");
        let comparable = if self.odd && refused {
            Comparable::Refusals
        } else if rewritten {
            Comparable::Contents
        } else {
            Comparable::Exactly
        };
        (answer, comparable)
    }

    fn answer_to(&self, rewritten: &mut bool, describe: impl Fn(&[u8]) -> String) -> String {
        let rules = &self.rules;
        let cut = match rules.origin {
            Origin::Client => validate_shape(&self.records, rules.produce_version),
            Origin::Coordinator => Ok(self.records.len()),
        };
        let validated = cut.and_then(|size| {
            let batch = || BytesMut::from(&self.records[..size]);
            let validated = validate(batch(), rules);
            // In steps it comes to the same.
            let text = |result: &Result<Validated, Rejected>| format!("{result:?}");
            assert_eq!(text(&in_steps(batch(), rules)), text(&validated));
            validated
        });
        let mut text = String::new();
        match validated {
            Ok(validated) => {
                *rewritten = validated.rewritten;
                let mut bytes = validated.bytes;
                set_base_offset(&mut bytes, Offset(0));
                set_leader_epoch(&mut bytes, LeaderEpoch(3));
                writeln!(
                    text,
                    "ok 0 {} {} {}\nhex {}\n{}",
                    validated.last_offset_delta,
                    validated.max_timestamp,
                    validated.log_append_time,
                    super::hex(&bytes),
                    describe(&bytes).trim_end()
                )
                .unwrap();
            }
            Err(rejected) => {
                writeln!(text, "error {}", rejected.error.0).unwrap();
                if let Some(message) = rejected.message {
                    writeln!(text, "message {message}").unwrap();
                }
                for (index, message) in rejected.record_errors {
                    writeln!(text, "record {index} {}", message.unwrap()).unwrap();
                }
            }
        }
        text
    }
}

fn in_steps(batch: BytesMut, rules: &ValidationRules<'_>) -> Result<Validated, Rejected> {
    let mut validation = Validation::begin(&batch, rules)?;
    while !validation.advance(&batch, 7)? {}
    Ok(validation.finish(batch))
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.below(from.len() as u64) as usize]
}

fn random_rules(rng: &mut Rng) -> ValidationRules<'static> {
    let compression_type = match rng.below(12) {
        0..=5 => TargetCompression::Producer,
        n => {
            let codec = CompressionType::ALL[(n as usize) % 5];
            TargetCompression::Codec(codec.into())
        }
    };
    ValidationRules {
        topic: "topic",
        partition: PartitionIndex(0),
        now_ms: NOW,
        max_message_bytes: pick(rng, &[1_048_588, 1_048_588, 1_048_588, 200]),
        compression_type,
        timestamp_type: if rng.one_in(4) {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        },
        before_max_ms: pick(rng, &[i64::MAX, i64::MAX, HOUR, 0]),
        after_max_ms: pick(rng, &[HOUR, HOUR, 0, i64::MAX]),
        compacted: rng.one_in(4),
        origin: if rng.one_in(8) {
            Origin::Coordinator
        } else {
            Origin::Client
        },
        produce_version: pick(rng, &[3, 6, 7, 9, 12, 13]),
    }
}

/// The fields of a batch, right or wrong, and its records.
struct RandomBatch {
    codec: CompressionType,
    header: HeaderValues,
    payload: Vec<u8>,
    wrong_size: bool,
}

struct HeaderValues {
    base_offset: i64,
    attributes: i16,
    last_offset_delta: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    count: i32,
}

impl RandomBatch {
    fn new(rng: &mut Rng, rules: &ValidationRules<'_>) -> RandomBatch {
        let client = rules.origin == Origin::Client;
        let codec = pick(rng, &CompressionType::ALL);
        let count = if rng.one_in(10) {
            200
        } else {
            1 + rng.below(5) as i32
        };
        // What is wrong with the records, if anything.
        let flaw = rng.below(16);
        let base_timestamp = match rng.below(12) {
            0 => -1,
            1 => NOW - 2 * HOUR,
            2 => NOW + 2 * HOUR,
            3 if flaw == 9 => i64::MIN + 5,
            _ => NOW,
        };
        let mut payload = Vec::new();
        let mut max_timestamp = -1;
        let mut wrong_size = false;
        for index in 0..count {
            let hit = rng.one_in(count as u64);
            let delta = match flaw {
                0 => index * 2,
                1 => index + 1,
                2 if hit => -7,
                _ => index,
            };
            let timestamp_delta = match flaw {
                3 => rng.below(10) as i64,
                4 if hit => pick(rng, &[-2 * HOUR, 2 * HOUR, -base_timestamp - 1, i64::MAX]),
                5 if hit => -base_timestamp - 5,
                _ => i64::from(index % 3),
            };
            max_timestamp = max_timestamp.max(base_timestamp.wrapping_add(timestamp_delta));
            let record = Record {
                timestamp_delta,
                offset_delta: delta,
                key_length: if (flaw == 6 || flaw == 7) && hit || flaw == 6 && rng.one_in(3) {
                    pick(rng, &[-1, -1, -9])
                } else {
                    rng.below(9) as i32
                },
                value_length: if rng.one_in(4) {
                    -1
                } else {
                    rng.below(40) as i32
                },
                headers: rng.below(3) as i32,
            };
            let mut bytes = record.body(flaw, hit);
            let size_error = if flaw == 8 && hit {
                pick(rng, &[-1, 1, -5, 1_000])
            } else {
                0
            };
            wrong_size |= size_error != 0;
            varint(&mut payload, (bytes.len() as i64 + size_error).max(-1));
            payload.append(&mut bytes);
        }
        match flaw {
            10 => payload.push(0),
            11 => {
                payload.pop();
            }
            _ => {}
        }
        let mut header = HeaderValues {
            base_offset: 0,
            attributes: i16::from(codec.id()),
            last_offset_delta: count - 1,
            base_timestamp,
            max_timestamp,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            count,
        };
        if rng.one_in(3) {
            header.producer_id = 7;
            header.producer_epoch = 1;
            header.base_sequence = pick(rng, &[0, 5, i32::MAX]);
            if rng.one_in(3) {
                header.attributes |= 0x10;
            }
        }
        header.spoil(rng, client);
        RandomBatch {
            codec,
            header,
            payload,
            wrong_size,
        }
    }

    /// The batch's bytes, and whether its compressed stream was damaged.
    fn encode(&self, rng: &mut Rng) -> (Vec<u8>, bool) {
        let mut stream = if rng.one_in(4) {
            other_form(rng, self.codec, &self.payload)
        } else {
            compress(self.codec.into(), &self.payload)
        };
        let damaged = self.codec != CompressionType::None && rng.one_in(14);
        if damaged {
            let at = rng.below(stream.len() as u64) as usize;
            match rng.below(3) {
                0 => stream[at] ^= 1 << rng.below(8),
                1 => stream.truncate(at),
                _ => stream.extend_from_slice(&[0x55; 30]),
            }
        }
        let header = &self.header;
        let mut batch = Vec::new();
        batch.extend_from_slice(&header.base_offset.to_be_bytes());
        batch.extend_from_slice(&(stream.len() as i32 + 49).to_be_bytes());
        batch.extend_from_slice(&(-1i32).to_be_bytes());
        batch.push(2);
        batch.extend_from_slice(&[0; 4]);
        batch.extend_from_slice(&header.attributes.to_be_bytes());
        batch.extend_from_slice(&header.last_offset_delta.to_be_bytes());
        batch.extend_from_slice(&header.base_timestamp.to_be_bytes());
        batch.extend_from_slice(&header.max_timestamp.to_be_bytes());
        batch.extend_from_slice(&header.producer_id.to_be_bytes());
        batch.extend_from_slice(&header.producer_epoch.to_be_bytes());
        batch.extend_from_slice(&header.base_sequence.to_be_bytes());
        batch.extend_from_slice(&header.count.to_be_bytes());
        batch.extend_from_slice(&stream);
        let crc = crc_fast::crc32_iscsi(&batch[21..]) ^ u32::from(rng.one_in(40));
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        (batch, damaged)
    }
}

/// A stream that other writers than ours make, or that nobody should, of the same bytes.
fn other_form(rng: &mut Rng, codec: CompressionType, payload: &[u8]) -> Vec<u8> {
    let (left, right) = payload.split_at(rng.below(payload.len() as u64 + 1) as usize);
    let ours = |bytes| compress(codec.into(), bytes);
    match codec {
        CompressionType::None => payload.to_vec(),
        CompressionType::Gzip => match rng.below(4) {
            0 => [ours(left), ours(right)].concat(),
            1 => [ours(payload), vec![0; 40]].concat(),
            2 => [ours(payload), ours(right)[..12].to_vec()].concat(),
            _ => gzip_with_header_fields(payload),
        },
        CompressionType::Snappy => match rng.below(5) {
            0 => snap::raw::Encoder::new().compress_vec(payload).unwrap(),
            1 => [ours(left), ours(right)].concat(),
            2 => [ours(payload), vec![9; 3]].concat(),
            3 => {
                // Blocks of two bytes, one of them empty, and odd version numbers.
                let mut stream = b"\x82SNAPPY\0\0\0\0\x07\0\0\0\0".to_vec();
                for block in payload.chunks(2).chain([&[][..]]) {
                    let block = snap::raw::Encoder::new().compress_vec(block).unwrap();
                    stream.extend_from_slice(&(block.len() as u32).to_be_bytes());
                    stream.extend_from_slice(&block);
                }
                stream
            }
            _ => {
                // Claims to expand to more than it does.
                let mut stream = snap::raw::Encoder::new().compress_vec(payload).unwrap();
                stream.splice(..1, [0xff, 0xff, 0xff, 0xff, 0x0f]);
                stream
            }
        },
        CompressionType::Lz4 => lz4_frame(rng, payload),
        CompressionType::Zstd => match rng.below(3) {
            0 => [ours(left), ours(right)].concat(),
            1 => {
                let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..]].concat();
                [skippable.clone(), ours(payload), skippable].concat()
            }
            _ => [ours(payload), vec![0; 9]].concat(),
        },
    }
}

fn gzip_with_header_fields(payload: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut writer = flate2::GzBuilder::new()
        .extra(vec![1, 2, 3])
        .filename("name")
        .comment("comment")
        .mtime(77)
        .write(Vec::new(), flate2::Compression::fast());
    writer.write_all(payload).unwrap();
    writer.finish().unwrap()
}

/// An LZ4 frame with any flags, right or wrong.
fn lz4_frame(rng: &mut Rng, payload: &[u8]) -> Vec<u8> {
    let xxhash = |bytes: &[u8]| twox_hash::XxHash32::oneshot(0, bytes);
    let (block_checksums, content_size, content_checksum) =
        (rng.one_in(2), rng.one_in(2), rng.one_in(2));
    let mut flags = 0x60 | u8::from(block_checksums) << 4 | u8::from(content_size) << 3;
    flags |= u8::from(content_checksum) << 2;
    let mut sizes = pick(rng, &[0x40, 0x50, 0x60, 0x70]);
    match rng.below(24) {
        0 => flags &= !0x20,
        1 => flags |= pick(rng, &[1, 2, 0x80]),
        2 => sizes = pick(rng, &[0x30, 0x41, 0xc0]),
        _ => {}
    }
    let mut descriptor = vec![flags, sizes];
    if content_size {
        descriptor.extend_from_slice(&rng.next_u64().to_le_bytes());
    }
    let mut frame = 0x184d_2204u32.to_le_bytes().to_vec();
    frame.extend_from_slice(&descriptor);
    frame.push((xxhash(&descriptor) >> 8) as u8 ^ u8::from(rng.one_in(20)));
    for block in payload.chunks(1 + rng.below(60) as usize) {
        let (length, bytes) = if rng.one_in(2) {
            (block.len() as u32 | 1 << 31, block.to_vec())
        } else {
            let bytes = lz4_flex::block::compress(block);
            (bytes.len() as u32, bytes)
        };
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(&bytes);
        if block_checksums {
            let check = xxhash(&bytes) ^ u32::from(rng.one_in(60));
            frame.extend_from_slice(&check.to_le_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    if content_checksum {
        frame.extend_from_slice(&[1, 2, 3, 4]);
    }
    if rng.one_in(5) {
        frame.extend_from_slice(b"after the end mark");
    }
    frame
}

impl HeaderValues {
    /// Sets a field or two to what a client should not send.
    fn spoil(&mut self, rng: &mut Rng, client: bool) {
        if !client {
            if rng.one_in(4) {
                self.base_offset = 9;
            }
            return;
        }
        match rng.below(30) {
            0 => self.base_offset = pick(rng, &[1, -1, i64::MAX]),
            1 => self.last_offset_delta += pick(rng, &[1, -1]),
            2 => self.last_offset_delta = pick(rng, &[-1, i32::MIN, i32::MAX]),
            3 => self.count += pick(rng, &[1, -1]),
            4 => self.count = pick(rng, &[0, -1, i32::MAX]),
            5 => {
                let change = pick(rng, &[1, -1]);
                self.count += change;
                self.last_offset_delta += change;
            }
            6 => self.max_timestamp = pick(rng, &[0, -1, NOW + 9 * HOUR]),
            7 | 8 => self.attributes |= 0x08,
            9 => {
                self.attributes |= 0x08;
                self.max_timestamp = pick(rng, &[-1, NOW, NOW + 9 * HOUR]);
            }
            10 => self.attributes |= pick(rng, &[0x20, 0x40, 0x80, 0x4000]),
            11 => self.attributes = pick(rng, &[5, 6, 7]),
            12 => {
                self.producer_id = pick(rng, &[5, 0, -2]);
                self.base_sequence = pick(rng, &[-1, -2, i32::MIN]);
            }
            13 => {
                self.producer_id = -1;
                self.attributes |= 0x10;
            }
            14 => {
                self.producer_id = 4;
                self.producer_epoch = -1;
                self.base_sequence = 0;
            }
            _ => {}
        }
    }
}

struct Record {
    timestamp_delta: i64,
    offset_delta: i32,
    key_length: i32,
    value_length: i32,
    headers: i32,
}

impl Record {
    fn body(&self, flaw: u64, hit: bool) -> Vec<u8> {
        let mut body = vec![if flaw == 12 { 0x77 } else { 0 }];
        varint(&mut body, self.timestamp_delta);
        varint(&mut body, i64::from(self.offset_delta));
        for length in [self.key_length, self.value_length] {
            varint(&mut body, i64::from(length));
            body.resize(body.len() + usize::try_from(length).unwrap_or(0), b'x');
        }
        if flaw == 13 && hit {
            varint(&mut body, -1);
            return body;
        }
        varint(&mut body, i64::from(self.headers));
        for _ in 0..self.headers {
            if flaw == 14 && hit {
                varint(&mut body, -1);
            } else {
                varint(&mut body, 1);
                body.push(b'h');
            }
            varint(&mut body, -1);
        }
        body
    }
}

fn varint(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

/// Makes the length say less than the header takes.
fn cut_short(rng: &mut Rng, records: &mut Vec<u8>) -> bool {
    let length = 14 + rng.below(35) as i32;
    records[8..12].copy_from_slice(&length.to_be_bytes());
    records.truncate(12 + length as usize);
    true
}

/// Cuts, extends or mislabels what stands where one batch is expected.
fn spoil_frame(rng: &mut Rng, records: &mut Vec<u8>) {
    match rng.below(8) {
        0 => records.truncate(rng.below(records.len() as u64) as usize),
        1 => records.extend_from_slice(&[0; 11]),
        2 => records.extend_from_slice(&[0; 40]),
        3 => records.extend_from_within(..),
        4 => {
            let cut = rng.below(records.len() as u64) as usize;
            records.extend_from_within(..cut);
        }
        5 => records[16] = pick(rng, &[0, 1, 3, 0xff]),
        6 => {
            let length = pick(rng, &[0, 13, -1, i32::MIN, i32::MAX - 12]);
            records[8..12].copy_from_slice(&length.to_be_bytes());
        }
        _ => records.clear(),
    }
}
