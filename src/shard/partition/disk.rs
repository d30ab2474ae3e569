//! What its disk does to a partition: it fails, runs full, can't be read, or is given up for
//! another one.
//!
//! Called by `partition` itself where its log refuses, by `shard::directories` and
//! `shard::mover`.

use std::rc::Rc;

use super::super::directories::Failures;
use super::super::messages::CopySummary;
use super::{Partition, Wakes};
use crate::base::{ErrorCode, Millis, Offset, Uuid};
use crate::log::{AppendError, Log, LogError, ReadError};

/// How often one partition tells that its disk is full.
const FULL_TOLD_EVERY_MS: Millis = 30_000;

impl Partition {
    /// Where it is told that its log directory has failed.
    pub fn reporting_to(self, failures: Rc<Failures>) -> Partition {
        Partition { failures, ..self }
    }

    /// Its log directory has failed.
    pub fn take_offline(&mut self, wakes: &mut Wakes) {
        self.offline = true;
        self.log.take_offline();
        self.changed(wakes);
    }

    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// Where it is being moved to.
    pub fn moving_to(&self) -> Option<Uuid> {
        self.copy.map(|copy| copy.directory)
    }

    /// How far the copy is.
    pub fn show_copy(&mut self, size_bytes: u64, log_end_offset: Offset) {
        if let Some(copy) = &mut self.copy {
            copy.size_bytes = size_bytes;
            copy.log_end_offset = log_end_offset;
        }
    }

    /// Until the move ends producers are told to come again, and no flush begins.
    pub fn pause(&mut self) {
        self.is_paused = true;
    }

    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    pub fn end_move(&mut self, wakes: &mut Wakes) {
        self.copy = None;
        self.is_paused = false;
        self.changed(wakes);
    }

    /// The copy takes over: it has the same records, all of them durable.
    pub fn replace_log(&mut self, log: Log, directory: Uuid, wakes: &mut Wakes) {
        self.log = log;
        self.directory = directory;
        self.replica.on_durable(self.log.recovery_point());
        self.end_move(wakes);
        self.advance(wakes);
    }

    /// A move that a stop has interrupted goes on, unless it was asked for another meanwhile.
    pub fn resume_move(&mut self, directory: Uuid) {
        if self.copy.is_none() {
            // Refused where it is offline: it stays where it is.
            let _ = self.move_to(directory);
        }
    }

    /// Has it moved there, and not where else it was to go.
    pub(super) fn move_to(&mut self, directory: Uuid) -> Result<(), ErrorCode> {
        if self.offline {
            return Err(ErrorCode::KAFKA_STORAGE_ERROR);
        }
        if self.moving_to() == Some(directory) || self.is_paused {
            return Ok(());
        }
        self.copy = (directory != self.directory).then_some(CopySummary {
            directory,
            size_bytes: 0,
            log_end_offset: Offset(0),
        });
        Ok(())
    }

    /// After a change of the log has failed: its directory fails with it, unless only space
    /// was missing.
    pub fn on_log_error(&mut self, error: &LogError) {
        if self.log.is_offline() && !self.offline && !matches!(error, LogError::Offline { .. }) {
            self.failures.tell(self.directory, error.to_string());
        }
    }

    pub(super) fn on_append_error(&mut self, error: &AppendError, now_ms: Millis) {
        let AppendError::Log(error) = error else {
            return;
        };
        self.on_log_error(error);
        if error.is_out_of_space() {
            let told = self.full_told_ms;
            if told.is_none_or(|told| now_ms.saturating_sub(told).abs() >= FULL_TOLD_EVERY_MS) {
                self.full_told_ms = Some(now_ms);
                tracing::warn!(
                    topic = %self.topic,
                    partition = %self.id.partition,
                    %error,
                    "no space: appends are refused until there is"
                );
            }
        } else if !self.offline {
            tracing::error!(
                topic = %self.topic,
                partition = %self.id.partition,
                %error,
                "append failed"
            );
        }
    }

    pub(super) fn on_read_error(&self, error: &ReadError, offset: Offset) {
        if let ReadError::Log(error) = error
            // It would have waited for the disk, and is done again where it may.
            && !error.would_block()
        {
            tracing::error!(
                topic = %self.topic,
                partition = %self.id.partition,
                %offset,
                %error,
                "records can't be read: the fetch is refused"
            );
        }
    }
}
