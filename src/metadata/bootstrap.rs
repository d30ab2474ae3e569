//! What `format` writes so that a first controller knows how to begin:
//! `bootstrap.checkpoint` with the features to finalize, and for a dynamic quorum of one
//! the snapshot `00000000000000000000-0000000000.checkpoint` with its voters.
//!
//! Only features that this code implements are finalized: metadata.version, whose record
//! formats it has up to 4.3-IV0. The other features of Kafka 4.3.1 (group.version,
//! transaction.version, share.version, streams.version, eligible.leader.replicas.version)
//! stay at 0, which is to say absent, until their parts are here.

use bytes::Bytes;

use super::record::{MetadataRecord, RecordError};
use super::version::{METADATA_VERSION_FEATURE, MetadataVersion};
use crate::base::{LeaderEpoch, Millis};
use crate::raft::VoterSet;
use crate::raft::checkpoint::{Checkpoint, ReadError};

pub const BOOTSTRAP_FILE: &str = "bootstrap.checkpoint";

/// Why bootstrap.checkpoint can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error(transparent)]
    File(#[from] ReadError),
    #[error("record {index}: {source}")]
    Record { index: usize, source: RecordError },
}

/// Features that a new cluster begins with.
pub fn default_features() -> Vec<(&'static str, i16)> {
    vec![(METADATA_VERSION_FEATURE, MetadataVersion::LATEST.level())]
}

/// Bytes of bootstrap.checkpoint. Features at level 0 are left out.
pub fn bootstrap_checkpoint(features: &[(&str, i16)], now_ms: Millis) -> Bytes {
    let records = features
        .iter()
        .filter(|(_, level)| *level != 0)
        .map(|(name, level)| MetadataRecord::feature_level(name, *level));
    let values = records.map(|record| {
        let value = record.encode(MetadataVersion::MINIMUM);
        value.expect("a feature's level can always be written")
    });
    Checkpoint {
        values: values.collect(),
        ..Default::default()
    }
    .to_bytes(LeaderEpoch(0), now_ms)
}

/// The records of bootstrap.checkpoint.
pub fn parse_bootstrap(file: &[u8]) -> Result<Vec<MetadataRecord>, BootstrapError> {
    let values = Checkpoint::parse(file)?.values;
    let records = values.iter().enumerate().map(|(index, value)| {
        MetadataRecord::decode(value).map_err(|source| BootstrapError::Record { index, source })
    });
    records.collect()
}

/// The records of a cluster that was never formatted with a bootstrap.checkpoint.
pub fn default_records() -> Vec<MetadataRecord> {
    let features = default_features().into_iter();
    features
        .map(|(name, level)| MetadataRecord::feature_level(name, level))
        .collect()
}

/// Bytes of the snapshot that makes `voters` the voters of a new dynamic quorum, to be
/// written as [`crate::raft::checkpoint::file_name`] of offset 0 and epoch 0.
pub fn quorum_checkpoint(voters: VoterSet, now_ms: Millis) -> Bytes {
    Checkpoint {
        last_contained_log_timestamp_ms: now_ms,
        kraft_version: 1,
        voters: Some(voters),
        values: Vec::new(),
    }
    .to_bytes(LeaderEpoch(0), now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_at_0_are_left_out() {
        let file = bootstrap_checkpoint(&[("metadata.version", 30), ("group.version", 0)], 5);
        assert_eq!(parse_bootstrap(&file).unwrap(), default_records());
        assert!(parse_bootstrap(&file[..file.len() - 1]).is_err());
    }
}
