//! Snapshot files (`<end offset>-<epoch>.checkpoint`) and bootstrap.checkpoint.
//!
//! ```text
//!   control batch {SnapshotHeader [, KRaftVersion, Voters]} | data batches … | control batch {SnapshotFooter}
//! ```
//! Offsets count from 0 inside the file; the leader epoch of all batches is the snapshot's.

use bytes::{Bytes, BytesMut};

use super::control::{ControlRecord, control_batch, data_batch};
use super::voters::VoterSet;
use crate::base::{LeaderEpoch, Millis, Offset};
use crate::record::{BatchError, BatchView, Batches, RecordsError, records};
use crate::wire::DecodeError;
use crate::wire::messages::{KRaftVersionRecord, SnapshotFooterRecord, SnapshotHeaderRecord};

/// Records of one data batch at most, and bytes of their values.
const BATCH_RECORDS_MAX: usize = 1_024;
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Why a batch of the metadata log or of a snapshot can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("batch at position {position}: {source}")]
    Batch { position: usize, source: BatchError },
    #[error("batch at position {position}: wrong CRC")]
    Crc { position: usize },
    #[error("records of the batch at offset {offset}: {source}")]
    Records {
        offset: Offset,
        source: RecordsError,
    },
    #[error("control record at offset {offset}: {source}")]
    Control { offset: Offset, source: DecodeError },
    #[error("record at offset {offset} has no value")]
    NoValue { offset: Offset },
    #[error("the snapshot has no {0}")]
    Incomplete(&'static str),
    #[error("records after the snapshot's footer")]
    AfterFooter,
}

/// What one batch holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Contents {
    Control(Vec<ControlRecord>),
    /// Values of metadata records.
    Data(Vec<Bytes>),
}

/// Reads the records of a batch whose CRC was checked.
pub fn read_batch(batch: &BatchView<'_>) -> Result<Contents, ReadError> {
    let base = batch.base_offset();
    let records_error = |source| ReadError::Records {
        offset: base,
        source,
    };
    let mut walk = records(batch).map_err(records_error)?;
    let mut control = Vec::new();
    let mut data = Vec::new();
    while let Some(record) = walk.next() {
        let record = record.map_err(records_error)?;
        let offset = base + i64::from(record.offset_delta);
        let value = record.value.ok_or(ReadError::NoValue { offset })?;
        let value = Bytes::copy_from_slice(value);
        if !batch.is_control() {
            data.push(value);
            continue;
        }
        let key = record.key.unwrap_or_default();
        let decoded = ControlRecord::decode(key, &value);
        control.extend(decoded.map_err(|source| ReadError::Control { offset, source })?);
    }
    Ok(if batch.is_control() {
        Contents::Control(control)
    } else {
        Contents::Data(data)
    })
}

/// A snapshot's file as read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoint {
    pub last_contained_log_timestamp_ms: Millis,
    /// 0 and no voters where the file doesn't say.
    pub kraft_version: i16,
    pub voters: Option<VoterSet>,
    /// Values of metadata records.
    pub values: Vec<Bytes>,
}

impl Checkpoint {
    /// Reads a whole file; a torn one is an error.
    pub fn parse(file: &[u8]) -> Result<Checkpoint, ReadError> {
        let mut checkpoint = Checkpoint::default();
        let mut has_header = false;
        let mut has_footer = false;
        let mut batches = Batches::new(file);
        loop {
            let position = batches.position();
            let Some(batch) = batches.next() else { break };
            let batch = batch.map_err(|source| ReadError::Batch { position, source })?;
            if !batch.verify_crc() {
                return Err(ReadError::Crc { position });
            }
            if has_footer {
                return Err(ReadError::AfterFooter);
            }
            match read_batch(&batch)? {
                Contents::Data(values) => checkpoint.values.extend(values),
                Contents::Control(records) => {
                    for record in records {
                        match record {
                            ControlRecord::SnapshotHeader(header) => {
                                has_header = true;
                                checkpoint.last_contained_log_timestamp_ms =
                                    header.last_contained_log_timestamp;
                            }
                            ControlRecord::KRaftVersion(version) => {
                                checkpoint.kraft_version = version.kraft_version;
                            }
                            ControlRecord::Voters(voters) => {
                                checkpoint.voters = Some(VoterSet::from_record(&voters));
                            }
                            ControlRecord::SnapshotFooter(_) => has_footer = true,
                            ControlRecord::LeaderChange(_) => {}
                        }
                    }
                }
            }
        }
        match (has_header, has_footer) {
            (true, true) => Ok(checkpoint),
            (false, _) => Err(ReadError::Incomplete("header")),
            (true, false) => Err(ReadError::Incomplete("footer")),
        }
    }

    /// The file's bytes.
    pub fn to_bytes(&self, epoch: LeaderEpoch, now_ms: Millis) -> Bytes {
        let mut out = BytesMut::new();
        let mut next = Offset(0);
        let mut header = vec![ControlRecord::SnapshotHeader(SnapshotHeaderRecord {
            version: 0,
            last_contained_log_timestamp: self.last_contained_log_timestamp_ms,
        })];
        if self.kraft_version > 0 {
            header.push(ControlRecord::KRaftVersion(KRaftVersionRecord {
                version: 0,
                kraft_version: self.kraft_version,
            }));
            let voters = self.voters.as_ref();
            header.extend(voters.map(|voters| ControlRecord::Voters(voters.to_record())));
        }
        out.extend_from_slice(&control_batch(&header, next, epoch, now_ms));
        next += header.len() as i64;
        for values in chunks(&self.values) {
            out.extend_from_slice(&data_batch(values, next, epoch, now_ms));
            next += values.len() as i64;
        }
        let footer = ControlRecord::SnapshotFooter(SnapshotFooterRecord { version: 0 });
        out.extend_from_slice(&control_batch(&[footer], next, epoch, now_ms));
        out.freeze()
    }
}

/// Cuts values into batches of bounded size. A value larger than the bound stands alone.
pub fn chunks(values: &[Bytes]) -> impl Iterator<Item = &[Bytes]> {
    let mut rest = values;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let mut fits = |(index, value): (usize, &Bytes)| {
            bytes += value.len();
            index == 0 || (index < BATCH_RECORDS_MAX && bytes <= BATCH_BYTES_MAX)
        };
        let count = rest
            .iter()
            .enumerate()
            .take_while(|item| fits(*item))
            .count();
        let (chunk, after) = rest.split_at(count);
        rest = after;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Name of a snapshot's file: its end offset (exclusive) and the epoch of its last record.
pub fn file_name(end_offset: Offset, epoch: LeaderEpoch) -> String {
    format!("{:020}-{:010}.checkpoint", end_offset.0, epoch.0)
}

/// End offset and epoch of a file that is a snapshot.
pub fn parse_file_name(name: &str) -> Option<(Offset, LeaderEpoch)> {
    let (offset, epoch) = name.strip_suffix(".checkpoint")?.split_once('-')?;
    let digits =
        |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(offset, 20) || !digits(epoch, 10) {
        return None;
    }
    Some((
        Offset(offset.parse().ok()?),
        LeaderEpoch(epoch.parse().ok()?),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::voters::Voter;
    use super::*;
    use crate::base::{BrokerId, Uuid};

    #[test]
    fn round_trip_and_torn_files() {
        let checkpoint = Checkpoint {
            last_contained_log_timestamp_ms: 5,
            kraft_version: 1,
            voters: Some(VoterSet::single(Voter::new(
                BrokerId(1),
                Some(Uuid([3; 16])),
                Vec::new(),
            ))),
            values: (0..3_000u32)
                .map(|n| Bytes::from(n.to_be_bytes().to_vec()))
                .collect(),
        };
        let file = checkpoint.to_bytes(LeaderEpoch(4), 7);
        assert_eq!(Checkpoint::parse(&file).unwrap(), checkpoint);
        for cut in [0, 1, 100, file.len() - 76, file.len() - 75, file.len() - 1] {
            assert!(Checkpoint::parse(&file[..cut]).is_err(), "{cut}");
        }
        let twice = [&file[..], &file[..]].concat();
        assert!(matches!(
            Checkpoint::parse(&twice),
            Err(ReadError::AfterFooter)
        ));
    }

    #[test]
    fn values_are_cut_by_count_and_size() {
        let sizes = [600_000, 600_000, 3_000_000, 1];
        let values: Vec<Bytes> = sizes.map(|n| Bytes::from(vec![0; n])).to_vec();
        let cut: Vec<usize> = chunks(&values).map(<[Bytes]>::len).collect();
        assert_eq!(cut, [1, 1, 1, 1]);
        assert_eq!(chunks(&[]).count(), 0);
    }

    #[test]
    fn names_are_kafkas() {
        let name = "00000000000000000060-0000000001.checkpoint";
        assert_eq!(file_name(Offset(60), LeaderEpoch(1)), name);
        assert_eq!(parse_file_name(name), Some((Offset(60), LeaderEpoch(1))));
        assert_eq!(parse_file_name("bootstrap.checkpoint"), None);
        assert_eq!(
            parse_file_name("00000000000000000060-0000000001.checkpoint.part"),
            None
        );
        assert_eq!(
            parse_file_name("+0000000000000000060-0000000001.checkpoint"),
            None
        );
    }
}
