//! Prints the files of a log directory as Kafka's `kafka-dump-log.sh` prints them, word
//! for word, so that whoever knows one tool can read the other.
//!
//! Called by `cli`. Reads only; works on files of a running broker and on damaged ones.
//! What is wrong with the files is collected and told at the end, as there.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bytes::Bytes;

use super::batch_header::HeaderError;
use super::names;
use super::offset_index::{self, OffsetPosition};
use super::producer_snapshot;
use super::scan::{BatchScan, HeaderScan, Located};
use super::time_index::{self, TimestampOffset};
use super::txn_index;
use crate::base::{Millis, Offset};
use crate::io::disk::{Disk, File, OpenMode};
use crate::record::{self, BatchView, RecordView, TimestampType};

mod decode;

pub use decode::Decoder;

/// What to print of the files.
#[derive(Clone, Debug)]
pub struct DumpOptions {
    /// Keys and values, by the decoder. Implies `deep_iteration`.
    pub print_data: bool,
    pub deep_iteration: bool,
    pub decoder: Decoder,
    /// Print what is in records, but nothing about them.
    pub skip_record_metadata: bool,
    /// Compare indexes with the log, and print only what is wrong.
    pub verify_index_only: bool,
    /// Check only whether a broker would take the index as it is.
    pub index_sanity_check: bool,
    /// Read at most so much of a log.
    pub bytes_max: u64,
}

impl Default for DumpOptions {
    fn default() -> Self {
        DumpOptions {
            print_data: false,
            deep_iteration: false,
            decoder: Decoder::Text,
            skip_record_metadata: false,
            verify_index_only: false,
            index_sanity_check: false,
            bytes_max: u64::MAX,
        }
    }
}

/// A producer snapshot or transaction index may not be larger than this to be printed.
const FILE_LEN_MAX: u64 = 1 << 30;

/// Prints files to `out`; problems with them, after all, to `err`. An error is one of
/// writing, or of a file that can't be read at all.
pub fn dump(
    disk: &dyn Disk,
    files: &[PathBuf],
    options: &DumpOptions,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<()> {
    let mut dump = Dump {
        disk,
        options,
        out,
        err,
        problems: Problems::default(),
    };
    for path in files {
        let told =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        dump.file(path).map_err(told)?;
    }
    let Dump { problems, err, .. } = dump;
    problems.print(err)
}

struct Dump<'a> {
    disk: &'a dyn Disk,
    options: &'a DumpOptions,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    problems: Problems,
}

/// By file, in the order in which the files came.
#[derive(Default)]
struct Problems {
    index_mismatches: Vec<(PathBuf, BTreeMap<Offset, Offset>)>,
    timestamp_mismatches: Vec<(PathBuf, Vec<(Millis, Millis)>)>,
    timestamps_out_of_order: Vec<(PathBuf, Vec<(Millis, Millis)>)>,
    offsets_not_found: Vec<(PathBuf, Vec<(Offset, Offset)>)>,
    non_consecutive: Vec<(PathBuf, BTreeMap<Offset, Offset>)>,
}

impl Dump<'_> {
    fn file(&mut self, path: &Path) -> io::Result<()> {
        writeln!(self.out, "Dumping {}", path.display())?;
        let name = path.file_name().map(|name| name.to_string_lossy());
        let name = name.unwrap_or_default();
        let suffix = name.rfind('.').map_or("", |dot| &name[dot..]);
        match suffix {
            names::LOG | ".checkpoint" => self.log(path, &name),
            names::OFFSET_INDEX => self.offset_index(path),
            names::TIME_INDEX => self.time_index(path),
            names::SNAPSHOT => self.snapshot(path),
            names::TXN_INDEX => self.txn_index(path),
            _ => writeln!(self.err, "Ignoring unknown file {}", path.display()),
        }
    }

    fn log(&mut self, path: &Path, name: &str) -> io::Result<()> {
        match (name, names::parse_file_name(name)) {
            (_, Some((base, names::LOG))) => {
                writeln!(self.out, "Log starting offset: {base}")?;
            }
            ("bootstrap.checkpoint", _) => writeln!(self.out, "KRaft bootstrap snapshot")?,
            _ => {
                if let Some((offset, epoch)) = snapshot_id(name) {
                    writeln!(self.out, "Snapshot end offset: {offset}, epoch: {epoch}")?;
                }
            }
        }
        let file = self.disk.open(path, OpenMode::Read)?;
        let end = file.len()?.min(self.options.bytes_max);
        let mut scan = BatchScan::new(&*file, 0, end);
        let mut last_offset = Offset(-1);
        let mut non_consecutive = BTreeMap::new();
        let stopped = loop {
            match scan.next()? {
                None => break None,
                Some(Err(error)) => break Some(error),
                Some(Ok((located, bytes))) => {
                    let Ok(batch) = BatchView::parse(bytes) else {
                        break Some(HeaderError::Truncated);
                    };
                    self.batch(&batch, located.position)?;
                    if self.options.deep_iteration || self.options.print_data {
                        self.records(&batch, &mut last_offset, &mut non_consecutive)?;
                    }
                }
            }
        };
        let position = scan.position();
        match stopped {
            Some(HeaderError::Truncated) | None => {}
            Some(error) => writeln!(
                self.err,
                "{}: {error} at position {position}",
                path.display()
            )?,
        }
        if position < end && self.options.bytes_max == u64::MAX {
            let trailing = end - position;
            writeln!(
                self.out,
                "Found {trailing} invalid bytes at the end of {name}"
            )?;
        }
        if !non_consecutive.is_empty() {
            let problems = &mut self.problems.non_consecutive;
            problems.push((absolute(path)?, non_consecutive));
        }
        Ok(())
    }

    fn batch(&mut self, batch: &BatchView<'_>, position: u64) -> io::Result<()> {
        let codec = batch.compression().map_or("unknown", |codec| codec.name());
        writeln!(
            self.out,
            "baseOffset: {} lastOffset: {} count: {} baseSequence: {} lastSequence: {} \
             producerId: {} producerEpoch: {} partitionLeaderEpoch: {} isTransactional: {} \
             isControl: {} deleteHorizonMs: {} position: {position} {}: {} size: {} magic: {} \
             compresscodec: {codec} crc: {} isvalid: {}",
            batch.base_offset(),
            batch.last_offset(),
            batch.record_count(),
            batch.base_sequence(),
            batch.last_sequence(),
            batch.producer_id(),
            batch.producer_epoch(),
            batch.partition_leader_epoch(),
            batch.is_transactional(),
            batch.is_control(),
            OptionalLong(batch.delete_horizon()),
            timestamp_type(batch),
            batch.max_timestamp(),
            batch.size_in_bytes(),
            batch.magic(),
            batch.crc(),
            batch.verify_crc(),
        )
    }

    fn records(
        &mut self,
        batch: &BatchView<'_>,
        last_offset: &mut Offset,
        non_consecutive: &mut BTreeMap<Offset, Offset>,
    ) -> io::Result<()> {
        let mut records = match record::records(batch) {
            Ok(records) => records,
            Err(error) => return self.unreadable(batch, &error),
        };
        while let Some(record) = records.next() {
            let record = match record {
                Ok(record) => record,
                Err(error) => return self.unreadable(batch, &error),
            };
            let offset = batch.record_offset(record.offset_delta);
            if offset != *last_offset + 1 {
                non_consecutive.insert(*last_offset, offset);
            }
            *last_offset = offset;
            self.record(batch, &record, offset)?;
        }
        Ok(())
    }

    fn unreadable(
        &mut self,
        batch: &BatchView<'_>,
        error: &record::RecordsError,
    ) -> io::Result<()> {
        let base_offset = batch.base_offset();
        writeln!(
            self.err,
            "Can't read the records of the batch at {base_offset}: {error}"
        )
    }

    fn record(
        &mut self,
        batch: &BatchView<'_>,
        record: &RecordView<'_>,
        offset: Offset,
    ) -> io::Result<()> {
        let mut prefix = "| ";
        if !self.options.skip_record_metadata {
            prefix = " ";
            let size = |bytes: Option<&[u8]>| bytes.map_or(-1, |bytes| bytes.len() as i64);
            let keys = record.headers();
            let keys = keys.map(|header| String::from_utf8_lossy(header.key).into_owned());
            write!(
                self.out,
                "| offset: {offset} {}: {} keySize: {} valueSize: {} sequence: {} headerKeys: [{}]",
                timestamp_type(batch),
                batch.record_timestamp(record.timestamp_delta),
                size(record.key),
                size(record.value),
                batch.record_sequence(record.offset_delta),
                keys.collect::<Vec<String>>().join(","),
            )?;
            if batch.is_control() {
                let told = decode::control_record(record.key, record.value);
                write!(self.out, " {told}")?;
            }
        }
        if self.options.print_data && !batch.is_control() {
            let key = record.key.map(Bytes::copy_from_slice);
            let value = record.value.map(Bytes::copy_from_slice);
            let (key, payload) = self.options.decoder.decode(key, value, offset);
            if let Some(key) = key {
                write!(self.out, "{prefix}key: {key}")?;
                prefix = " ";
            }
            if let Some(payload) = payload {
                write!(self.out, "{prefix}payload: {payload}")?;
            }
        }
        writeln!(self.out)
    }

    fn offset_index(&mut self, path: &Path) -> io::Result<()> {
        let Some(index) = IndexFiles::open(self.disk, path)? else {
            return writeln!(self.err, "Ignoring unknown file {}", path.display());
        };
        let entries = index.offsets(self.disk)?;
        if entries.is_empty() {
            return writeln!(self.out, "{} is empty.", path.display());
        }
        if self.options.index_sanity_check {
            let last = entries[entries.len() - 1].offset;
            let len = self.disk.open(path, OpenMode::Read)?.len()?;
            return self.sanity(path, len % 8 == 0 && last >= index.base_offset);
        }
        let mut mismatches = BTreeMap::new();
        for (i, entry) in entries.iter().enumerate() {
            if entry.offset == index.base_offset && i > 0 {
                // The rest was preallocated.
                break;
            }
            let found = index.batches_from(entry.position).next()?;
            let last_offset = match found {
                Some(Ok(located)) => located.header.last_offset(),
                Some(Err(_)) | None => Offset::UNKNOWN,
            };
            if last_offset != entry.offset {
                mismatches.insert(entry.offset, last_offset);
            }
            if !self.options.verify_index_only {
                let OffsetPosition { offset, position } = entry;
                writeln!(self.out, "offset: {offset} position: {position}")?;
            }
        }
        if !mismatches.is_empty() {
            let problems = &mut self.problems.index_mismatches;
            problems.push((absolute(path)?, mismatches));
        }
        Ok(())
    }

    fn time_index(&mut self, path: &Path) -> io::Result<()> {
        let Some(index) = IndexFiles::open(self.disk, path)? else {
            return writeln!(self.err, "Ignoring unknown file {}", path.display());
        };
        let offsets = index.offsets(self.disk)?;
        let entries = index.times(self.disk)?;
        if self.options.index_sanity_check {
            let len = self.disk.open(path, OpenMode::Read)?.len()?;
            let last = entries.last().is_none_or(|e| e.offset >= index.base_offset);
            return self.sanity(path, len % 12 == 0 && last);
        }
        let (mut mismatches, mut disorder, mut not_found) = (vec![], vec![], vec![]);
        let mut previous = -1;
        for (i, entry) in entries.iter().enumerate() {
            if entry.offset == index.base_offset && i > 0 {
                break;
            }
            let before = offsets.partition_point(|e| e.offset <= entry.offset);
            let from = before.checked_sub(1).map_or(0, |i| offsets[i].position);
            match index.find_batch(from, entry.offset)? {
                Some(found) if found.header.last_offset() == entry.offset => {
                    let max_timestamp = index.max_timestamp(&found)?;
                    if max_timestamp != entry.timestamp {
                        mismatches.push((entry.timestamp, max_timestamp));
                    }
                    if previous >= entry.timestamp {
                        disorder.push((entry.timestamp, previous));
                    }
                }
                found => {
                    let last = found.map_or(Offset(-1), |found| found.header.last_offset());
                    not_found.push((entry.offset, last));
                }
            }
            if !self.options.verify_index_only {
                let TimestampOffset { timestamp, offset } = entry;
                writeln!(self.out, "timestamp: {timestamp} offset: {offset}")?;
            }
            previous = entry.timestamp;
        }
        let path = absolute(path)?;
        let problems = &mut self.problems;
        if !mismatches.is_empty() {
            problems
                .timestamp_mismatches
                .push((path.clone(), mismatches));
        }
        if !disorder.is_empty() {
            problems
                .timestamps_out_of_order
                .push((path.clone(), disorder));
        }
        if !not_found.is_empty() {
            problems.offsets_not_found.push((path, not_found));
        }
        Ok(())
    }

    fn sanity(&mut self, path: &Path, is_sane: bool) -> io::Result<()> {
        let path = path.display();
        match is_sane {
            true => writeln!(self.out, "{path} passed sanity check."),
            false => writeln!(self.err, "{path} is corrupt and would be rebuilt."),
        }
    }

    fn snapshot(&mut self, path: &Path) -> io::Result<()> {
        let bytes = self.disk.read(path, FILE_LEN_MAX)?;
        let entries = match producer_snapshot::decode(&bytes) {
            Ok(entries) => entries,
            Err(error) => return writeln!(self.err, "{error}"),
        };
        for (producer_id, entry) in entries {
            let txn_first_offset = entry.txn_first_offset.map(|offset| offset.0);
            write!(
                self.out,
                "producerId: {producer_id} producerEpoch: {} coordinatorEpoch: {} \
                 currentTxnFirstOffset: {} lastTimestamp: {}",
                entry.epoch,
                entry.coordinator_epoch,
                OptionalLong(txn_first_offset),
                entry.last_timestamp,
            )?;
            if let Some(batch) = entry.batches.first() {
                write!(
                    self.out,
                    " firstSequence: {} lastSequence: {} lastOffset: {} offsetDelta: {} timestamp: {}",
                    batch.first_sequence(),
                    batch.last_sequence,
                    batch.last_offset,
                    batch.offset_delta,
                    batch.timestamp,
                )?;
            }
            writeln!(self.out)?;
        }
        Ok(())
    }

    fn txn_index(&mut self, path: &Path) -> io::Result<()> {
        let bytes = self.disk.read(path, FILE_LEN_MAX)?;
        let (entries, rest) = bytes.as_chunks();
        for entry in entries {
            match txn_index::parse_entry(entry) {
                Some(txn) => writeln!(
                    self.out,
                    "version: 0 producerId: {} firstOffset: {} lastOffset: {} lastStableOffset: {}",
                    txn.producer_id, txn.first_offset, txn.last_offset, txn.last_stable_offset,
                )?,
                None => writeln!(self.err, "{}: unknown version", path.display())?,
            }
        }
        if !rest.is_empty() {
            let (count, path) = (rest.len(), path.display());
            writeln!(self.err, "{path}: {count} bytes after the last entry")?;
        }
        Ok(())
    }
}

/// An index with the log and the other index beside it.
struct IndexFiles {
    base_offset: Offset,
    path: PathBuf,
    log: std::sync::Arc<dyn File>,
    log_len: u64,
}

impl IndexFiles {
    /// `None` if the name doesn't begin with an offset.
    fn open(disk: &dyn Disk, path: &Path) -> io::Result<Option<IndexFiles>> {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some((base_offset, _)) = name.and_then(names::parse_file_name) else {
            return Ok(None);
        };
        let log = disk.open(&path.with_extension("log"), OpenMode::Read)?;
        Ok(Some(IndexFiles {
            base_offset,
            path: path.to_owned(),
            log_len: log.len()?,
            log,
        }))
    }

    fn offsets(&self, disk: &dyn Disk) -> io::Result<Vec<OffsetPosition>> {
        let bytes = disk.read(&self.path.with_extension("index"), FILE_LEN_MAX)?;
        let (entries, _) = bytes.as_chunks();
        let entries = entries.iter();
        Ok(entries
            .map(|entry| offset_index::parse_entry(entry, self.base_offset))
            .collect())
    }

    fn times(&self, disk: &dyn Disk) -> io::Result<Vec<TimestampOffset>> {
        let bytes = disk.read(&self.path.with_extension("timeindex"), FILE_LEN_MAX)?;
        let (entries, _) = bytes.as_chunks();
        let entries = entries.iter();
        Ok(entries
            .map(|entry| time_index::parse_entry(entry, self.base_offset))
            .collect())
    }

    fn batches_from(&self, position: u32) -> HeaderScan<'_> {
        HeaderScan::new(&*self.log, u64::from(position), self.log_len)
    }

    fn find_batch(&self, from: u32, offset: Offset) -> io::Result<Option<Located>> {
        let mut scan = self.batches_from(from);
        while let Some(Ok(located)) = scan.next()? {
            if located.header.last_offset() >= offset {
                return Ok(Some(located));
            }
        }
        Ok(None)
    }

    /// Largest timestamp of the batch's records; -1 where they can't be read.
    fn max_timestamp(&self, located: &Located) -> io::Result<Millis> {
        let mut bytes = vec![0; located.header.size as usize];
        self.log.read_exact_at(&mut bytes, located.position)?;
        let mut max = -1;
        if let Ok(batch) = BatchView::parse(&bytes)
            && let Ok(mut records) = record::records(&batch)
        {
            while let Some(Ok(record)) = records.next() {
                max = max.max(batch.record_timestamp(record.timestamp_delta));
            }
        }
        Ok(max)
    }
}

impl Problems {
    fn print(&self, err: &mut dyn Write) -> io::Result<()> {
        for (path, mismatches) in &self.index_mismatches {
            writeln!(err, "Mismatches in :{}", path.display())?;
            for (index, log) in mismatches.iter().rev() {
                writeln!(err, "  Index offset: {index}, log offset: {log}")?;
            }
        }
        for (path, mismatches) in &self.timestamp_mismatches {
            writeln!(err, "Found timestamp mismatch in :{}", path.display())?;
            for (index, log) in mismatches {
                writeln!(err, "  Index timestamp: {index}, log timestamp: {log}")?;
            }
        }
        for (path, disorder) in &self.timestamps_out_of_order {
            writeln!(err, "Found out of order timestamp in :{}", path.display())?;
            for (index, previous) in disorder {
                writeln!(
                    err,
                    "  Index timestamp: {index}, Previously indexed timestamp: {previous}"
                )?;
            }
        }
        for (path, not_found) in &self.offsets_not_found {
            let path = path.display();
            writeln!(
                err,
                "The following indexed offsets are not found in :{path}"
            )?;
            for (index, log) in not_found {
                writeln!(err, "Indexed offset: {index}, found log offset: {log}")?;
            }
        }
        for (path, pairs) in &self.non_consecutive {
            writeln!(err, "Non-consecutive offsets in {}", path.display())?;
            for (offset, next) in pairs {
                writeln!(err, "  {offset} is followed by {next}")?;
            }
        }
        Ok(())
    }
}

/// Prints as Java's `OptionalLong` does.
struct OptionalLong(Option<i64>);

impl std::fmt::Display for OptionalLong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            None => f.write_str("OptionalLong.empty"),
            Some(value) => write!(f, "OptionalLong[{value}]"),
        }
    }
}

fn timestamp_type(batch: &BatchView<'_>) -> &'static str {
    match batch.timestamp_type() {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    }
}

/// End offset and epoch from `<20 digits>-<10 digits>.checkpoint`.
fn snapshot_id(name: &str) -> Option<(i64, i32)> {
    let (offset, epoch) = name.strip_suffix(".checkpoint")?.split_once('-')?;
    Some((i64::from_str(offset).ok()?, i32::from_str(epoch).ok()?))
}

fn absolute(path: &Path) -> io::Result<PathBuf> {
    std::path::absolute(path)
}
