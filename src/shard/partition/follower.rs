//! A partition that another broker leads: takes what its leader has answered, and says what
//! to ask next.
//!
//! Called by `shard::fetcher`. What is decided is in [`replica::follower`]; here it is done to
//! the log.
//!
//! [`replica::follower`]: crate::replica::follower
//!
//! Invariants: batches are appended as they came, each with its CRC checked, offsets and
//! leader epochs not falling; a batch that isn't so is refused with all after it, and the
//! log is as before; the high watermark follows the leader's, never beyond what is here.

use std::time::Duration;

use bytes::Bytes;

use super::super::fetcher::parts::{FetchedPartition, Followed};
use super::{Partition, Wakes};
use crate::base::{BrokerId, LeaderEpoch, Millis, Nanos, Offset};
use crate::config::Durability;
use crate::log::{AppendError, LogError};
use crate::record::batch::Batches;
use crate::replica::follower::{LocalLog, Next, Refusal, Step, Ticket};

impl Partition {
    /// What it wants of its leader now; `None` where it follows nobody.
    pub fn followed(&mut self) -> Option<(BrokerId, Followed)> {
        if self.offline {
            return None;
        }
        let log = self.local_log();
        let follower = self.replica.follower_mut()?;
        let (ticket, next) = follower.next(&log);
        let followed = Followed {
            partition: self.id,
            ticket,
            next,
        };
        Some((follower.leader(), followed))
    }

    /// Takes an answer of its leader; what it wants next.
    pub fn on_fetched(
        &mut self,
        fetched: FetchedPartition,
        now: Nanos,
        now_ms: Millis,
        backoff: Duration,
        wakes: &mut Wakes,
    ) -> Followed {
        let ended = Followed {
            partition: fetched.partition,
            ticket: fetched.ticket,
            next: Next::Metadata,
        };
        let log = self.local_log();
        let Some(follower) = self.replica.follower_mut().filter(|_| !self.offline) else {
            return ended;
        };
        let end_of_epoch = |epoch| self.log.end_offset_for_epoch(epoch);
        let step = follower.on_answer(
            fetched.ticket,
            &fetched.answer,
            &log,
            end_of_epoch,
            now,
            backoff,
        );
        let outcome = match step {
            Step::Nothing => Ok(()),
            Step::Append {
                high_watermark,
                log_start_offset,
            } => {
                let appended = self.append_fetched(fetched.records, &log, now_ms);
                appended.and_then(|()| self.catch_up_with(high_watermark, log_start_offset, wakes))
            }
            Step::Truncate { to } => self.truncate_to(to, now_ms, wakes),
            Step::Restart { at } => self.restart_at(at, now_ms, wakes),
        };
        if let Err(refused) = outcome {
            self.refuse(&refused, now, now_ms, backoff);
        }
        self.followed().map_or(ended, |(_, followed)| followed)
    }

    /// A flush has landed. What it wants of its leader now, if it has waited for that.
    pub fn on_disk(&mut self, wakes: &mut Wakes) -> Option<(BrokerId, Followed)> {
        let follower = self.replica.follower().filter(|f| f.awaits_disk())?;
        let (leader, leader_high_watermark) = (follower.leader(), follower.leader_high_watermark());
        if self.offline {
            return Some((leader, self.forgotten()));
        }
        if self.replica.on_leader_high_watermark(leader_high_watermark) {
            self.advance(wakes);
        }
        let log = self.local_log();
        match log.stable_end < log.log_end_offset {
            true => None,
            false => self.followed(),
        }
    }

    /// Nothing is fetched until [`Partition::release_following`].
    pub fn hold_following(&mut self) {
        if let Some(follower) = self.replica.follower_mut() {
            follower.hold();
        }
    }

    /// What it wants of its leader now.
    pub fn release_following(&mut self) -> Option<(BrokerId, Followed)> {
        self.replica.follower_mut()?.release();
        self.followed()
    }

    fn forgotten(&self) -> Followed {
        Followed {
            partition: self.id,
            ticket: Ticket {
                leader_epoch: self.leader_epoch(),
                number: u64::MAX,
            },
            next: Next::Metadata,
        }
    }

    fn local_log(&self) -> LocalLog {
        let log_end_offset = self.log.log_end_offset();
        LocalLog {
            log_start_offset: self.log.log_start_offset(),
            log_end_offset,
            stable_end: match self.config.durability() {
                Durability::Os => log_end_offset,
                Durability::Fsync => self.durable_end(),
            },
            last_epoch: self
                .log
                .latest_epoch()
                .map_or(LeaderEpoch::UNKNOWN, |entry| entry.epoch),
        }
    }

    /// Appends whole batches as they are. What is torn at their end comes again.
    fn append_fetched(
        &mut self,
        records: Bytes,
        log: &LocalLog,
        now_ms: Millis,
    ) -> Result<(), Refused> {
        if records.is_empty() {
            return Ok(());
        }
        if self.is_paused {
            return Err(Refused::Paused);
        }
        if !epochs_grow(&records, log.last_epoch) {
            return Err(Refused::EpochFalls);
        }
        let bytes = records.len();
        let leader_epoch = self.leader_epoch();
        let appended = self.log.append_as_follower(records, leader_epoch, now_ms);
        // Some of it may be in the log even where the rest was refused.
        let log_end = self.log.log_end_offset();
        if log_end > log.log_end_offset {
            self.log_bytes += appended
                .as_ref()
                .map_or(bytes as u64, |info| u64::from(info.bytes));
            self.unreplicated.push_back((log_end, self.log_bytes));
            self.replica.on_append(log_end);
        }
        let info = appended.map_err(Refused::Append)?;
        match info.bytes {
            0 if info.skipped => Err(Refused::LaterEpoch),
            0 => Err(Refused::Torn),
            _ => Ok(()),
        }
    }

    /// The log has all that the leader has sent: its high watermark and the start of its log
    /// count here.
    fn catch_up_with(
        &mut self,
        leader_high_watermark: Offset,
        leader_log_start: Offset,
        wakes: &mut Wakes,
    ) -> Result<(), Refused> {
        if let Some(follower) = self.replica.follower_mut() {
            follower.on_appended(leader_high_watermark);
        }
        self.replica.on_leader_high_watermark(leader_high_watermark);
        let log_start = leader_log_start.min(self.high_watermark());
        if log_start > self.log.log_start_offset() {
            self.log
                .increase_log_start_offset(log_start)
                .map_err(Refused::Log)?;
            self.on_log_start_moved(wakes);
        }
        self.advance(wakes);
        Ok(())
    }

    /// Cuts off what the leader doesn't have.
    fn truncate_to(
        &mut self,
        to: Offset,
        now_ms: Millis,
        wakes: &mut Wakes,
    ) -> Result<(), Refused> {
        let (end, high_watermark) = (self.log.log_end_offset(), self.high_watermark());
        let topic = self.topic.clone();
        let (partition, leader_epoch) = (self.id.partition, self.leader_epoch());
        if to < high_watermark {
            tracing::warn!(
                %topic, %partition, %leader_epoch, offset = %to, %end, %high_watermark,
                "cut to the leader's log, below the high watermark"
            );
        } else if to < end {
            tracing::info!(
                %topic, %partition, %leader_epoch, offset = %to, %end,
                "cut to the leader's log"
            );
        }
        let truncated = self.log.truncate_to(to, now_ms);
        self.after_truncation(wakes);
        truncated.map(drop).map_err(Refused::Log)
    }

    /// Everything here was deleted at the leader: it begins again where the leader begins.
    fn restart_at(&mut self, at: Offset, now_ms: Millis, wakes: &mut Wakes) -> Result<(), Refused> {
        tracing::info!(
            topic = %self.topic,
            partition = %self.id.partition,
            leader_epoch = %self.leader_epoch(),
            offset = %at,
            end = %self.log.log_end_offset(),
            "begun again where the leader's log begins"
        );
        self.log
            .truncate_fully_and_start_at(at, now_ms)
            .map_err(Refused::Log)?;
        self.replica.restart_at(at);
        self.unreplicated.clear();
        self.on_log_start_moved(wakes);
        self.changed(wakes);
        Ok(())
    }

    fn after_truncation(&mut self, wakes: &mut Wakes) {
        let end = self.log.log_end_offset();
        self.replica.on_truncate(end);
        while self
            .unreplicated
            .back()
            .is_some_and(|(offset, _)| *offset > end)
        {
            self.unreplicated.pop_back();
        }
        self.changed(wakes);
        self.advance(wakes);
    }

    /// Records of the leader weren't taken: they are asked for again after a pause.
    fn refuse(&mut self, refused: &Refused, now: Nanos, now_ms: Millis, backoff: Duration) {
        let refusal = refused.kind();
        let Some(follower) = self.replica.follower_mut() else {
            return;
        };
        let is_news = follower.on_refused(refusal, now, backoff);
        let leader = follower.leader();
        match refused {
            Refused::Append(error @ AppendError::Log(_)) => self.on_append_error(error, now_ms),
            Refused::Log(error) => self.on_log_error(error),
            _ if refusal == Refusal::Bad && is_news => tracing::error!(
                topic = %self.topic,
                partition = %self.id.partition,
                %leader,
                leader_epoch = %self.leader_epoch(),
                offset = %self.log.log_end_offset(),
                error = %refused,
                "the leader's records are refused and fetched again"
            ),
            _ => {}
        }
    }
}

/// Why a leader's answer could not be carried out.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Append(AppendError),
    #[error(transparent)]
    Log(LogError),
    #[error("the leader epoch of a batch is below that of the one before")]
    EpochFalls,
    #[error("a batch is of a later leader epoch than is known")]
    LaterEpoch,
    #[error("there is no whole batch")]
    Torn,
    #[error("it is being moved to another log directory")]
    Paused,
}

impl Refused {
    fn kind(&self) -> Refusal {
        match self {
            Refused::Append(
                AppendError::Corrupt { .. }
                | AppendError::Malformed(_)
                | AppendError::UnexpectedOffset { .. }
                | AppendError::BatchTooLarge { .. }
                | AppendError::Producer(_),
            )
            | Refused::EpochFalls => Refusal::Bad,
            Refused::Append(AppendError::Log(_))
            | Refused::Log(_)
            | Refused::LaterEpoch
            | Refused::Torn
            | Refused::Paused => Refusal::NotNow,
        }
    }
}

/// Whether the leader epochs of whole batches don't fall, from `last` on.
fn epochs_grow(records: &[u8], mut last: LeaderEpoch) -> bool {
    for batch in Batches::new(records).map_while(Result::ok) {
        if batch.partition_leader_epoch() < last {
            return false;
        }
        last = batch.partition_leader_epoch();
    }
    true
}
