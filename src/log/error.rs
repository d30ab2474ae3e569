//! What can go wrong with a log, and Kafka's codes for it.
//!
//! ```text
//! no space          that call is refused, the log is as before and stays online
//! a read fails      that call is refused
//! a write fails     the log is offline, and its directory with it
//! ```

use std::io;
use std::path::{Path, PathBuf};

use super::batch_header::HeaderError;
use super::checkpoint::CheckpointError;
use super::producer_state::ProducerError;
use crate::base::{ErrorCode, Offset, Uuid};

/// The disk failed or its contents can't be used. [`super::Log::is_offline`] tells whether
/// the log takes no more for it.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{what} {path}: {source}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Written by a broker older than 0.11; recovery would cut it off.
    #[error("{path} at {position}: {source}")]
    OldFormat {
        path: PathBuf,
        position: u64,
        source: HeaderError,
    },
    #[error("{path} is {bytes} bytes long, which no segment is")]
    SegmentTooLarge { path: PathBuf, bytes: u64 },
    #[error("{path} belongs to topic id {found}, not {expected}")]
    InconsistentTopicId {
        path: PathBuf,
        found: Uuid,
        expected: Uuid,
    },
    /// Told once in full when it was found.
    #[error("{path}: the records from offset {offset} up to {next_offset} are damaged")]
    Corrupt {
        path: PathBuf,
        offset: Offset,
        next_offset: Offset,
    },
    /// An earlier call failed.
    #[error("log {path} is offline after an earlier error")]
    Offline { path: PathBuf },
}

impl LogError {
    /// Wraps what the system said; for `map_err`.
    pub(super) fn io<'a>(
        what: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| LogError::Io {
            what,
            path: path.to_owned(),
            source,
        }
    }

    /// Whether a read that may not wait found that it would have to.
    pub fn would_block(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether something couldn't be written for want of space: it may succeed later.
    pub fn is_out_of_space(&self) -> bool {
        match self {
            Self::Io { source, .. } | Self::Checkpoint(CheckpointError::Io { source, .. }) => {
                is_out_of_space(source)
            }
            _ => false,
        }
    }

    /// Whether a file couldn't be opened because too many are: it may succeed later.
    pub fn is_out_of_descriptors(&self) -> bool {
        let Self::Io { source, .. } = self else {
            return false;
        };
        matches!(
            source.raw_os_error(),
            Some(libc::EMFILE) | Some(libc::ENFILE)
        )
    }

    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::InconsistentTopicId { .. } => ErrorCode::INCONSISTENT_TOPIC_ID,
            // Consumers tell the application, which may seek beyond it (see `verify`).
            Self::Corrupt { .. } => ErrorCode::CORRUPT_MESSAGE,
            _ => ErrorCode::KAFKA_STORAGE_ERROR,
        }
    }
}

/// The file system is full, or a quota on it is used up.
pub fn is_out_of_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Why an append was refused. Nothing of it is in the log.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Producer(#[from] ProducerError),
    #[error("batch of {bytes} bytes doesn't fit a segment of {segment_bytes}")]
    BatchTooLarge { bytes: usize, segment_bytes: u32 },
    /// A follower was given a batch that begins before its log's end.
    #[error("batch at offset {base_offset} is below the log end offset {log_end_offset}")]
    UnexpectedOffset {
        base_offset: Offset,
        log_end_offset: Offset,
    },
    #[error("batch at offset {base_offset} has a wrong CRC")]
    Corrupt { base_offset: Offset },
    #[error("malformed batch: {0}")]
    Malformed(HeaderError),
}

impl AppendError {
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::Log(error) => error.error_code(),
            Self::Producer(error) => error.error_code(),
            Self::BatchTooLarge { .. } => ErrorCode::RECORD_LIST_TOO_LARGE,
            Self::UnexpectedOffset { .. } => ErrorCode::UNKNOWN_SERVER_ERROR,
            Self::Corrupt { .. } | Self::Malformed(_) => ErrorCode::CORRUPT_MESSAGE,
        }
    }
}

/// Why a read gives nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("offset {offset} is outside of {log_start_offset}..={log_end_offset}")]
    OffsetOutOfRange {
        offset: Offset,
        log_start_offset: Offset,
        log_end_offset: Offset,
    },
    #[error(transparent)]
    Log(#[from] LogError),
}

impl ReadError {
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::OffsetOutOfRange { .. } => ErrorCode::OFFSET_OUT_OF_RANGE,
            Self::Log(error) => error.error_code(),
        }
    }
}
