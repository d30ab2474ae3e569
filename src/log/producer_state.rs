//! What a partition knows of its producers: the last five batches of each (idempotence),
//! its epoch, and the transactions that are open.
//!
//! Pure: `log` asks [`ProducerStates::check`] before it writes a batch and calls
//! [`ProducerStates::update`] after; recovery and followers only update, as their leader
//! has checked. Rules are those of Kafka's `ProducerStateManager` (KIP-98, KIP-360,
//! KIP-890).
//!
//! Invariants: a producer's batches are all of its current epoch, oldest first, at most
//! five. Every open transaction of `ongoing` is the `txn_first_offset` of its producer.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use smallvec::SmallVec;

use super::batch_header::BatchHeader;
use super::txn_index::AbortedTxn;
use crate::base::{ErrorCode, Millis, Offset, ProducerEpoch, ProducerId};
use crate::record::EndTxnMarker;

/// Batches that are remembered of a producer, and so requests that it may have in flight.
pub const BATCHES_RETAINED: usize = 5;

/// One batch that a producer has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchMetadata {
    pub last_sequence: i32,
    pub last_offset: Offset,
    pub offset_delta: i32,
    /// The batch's max timestamp.
    pub timestamp: Millis,
}

impl BatchMetadata {
    pub fn first_offset(&self) -> Offset {
        self.last_offset + -i64::from(self.offset_delta)
    }

    /// Sequence of the first record, wrapping back from 0 to 2^31-1.
    pub fn first_sequence(&self) -> i32 {
        self.last_sequence.wrapping_sub(self.offset_delta) & i32::MAX
    }
}

/// A producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerEntry {
    pub epoch: ProducerEpoch,
    /// Of the last transaction marker; -1 before any.
    pub coordinator_epoch: i32,
    pub last_timestamp: Millis,
    /// First offset of the transaction that is open.
    pub txn_first_offset: Option<Offset>,
    pub batches: SmallVec<[BatchMetadata; BATCHES_RETAINED]>,
}

impl ProducerEntry {
    /// A producer of which nothing is known.
    fn unknown() -> ProducerEntry {
        ProducerEntry {
            epoch: ProducerEpoch(-1),
            coordinator_epoch: -1,
            last_timestamp: -1,
            txn_first_offset: None,
            batches: SmallVec::new(),
        }
    }

    /// -1 where no batch is remembered.
    pub fn last_sequence(&self) -> i32 {
        self.batches.last().map_or(-1, |batch| batch.last_sequence)
    }

    fn add_batch(&mut self, epoch: ProducerEpoch, batch: BatchMetadata) {
        self.set_epoch(epoch);
        if self.batches.len() == BATCHES_RETAINED {
            self.batches.remove(0);
        }
        self.batches.push(batch);
        self.last_timestamp = batch.timestamp;
    }

    fn set_epoch(&mut self, epoch: ProducerEpoch) {
        if self.epoch != epoch {
            self.batches.clear();
            self.epoch = epoch;
        }
    }
}

/// What is to be done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Append,
    /// It is in the log already.
    Duplicate(BatchMetadata),
}

/// Why a batch may not be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
    #[error("sequence {sequence} of producer {producer_id} doesn't follow {last_sequence}")]
    OutOfOrderSequence {
        producer_id: ProducerId,
        sequence: i32,
        last_sequence: i32,
    },
    #[error("epoch {epoch} of producer {producer_id} is older than {current}")]
    InvalidProducerEpoch {
        producer_id: ProducerId,
        epoch: ProducerEpoch,
        current: ProducerEpoch,
    },
    #[error("producer {producer_id} has an open transaction and the batch isn't part of it")]
    InvalidTxnState { producer_id: ProducerId },
    #[error("marker's coordinator epoch {epoch} is older than {current}")]
    TransactionCoordinatorFenced { epoch: i32, current: i32 },
}

impl ProducerError {
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::OutOfOrderSequence { .. } => ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
            Self::InvalidProducerEpoch { .. } => ErrorCode::INVALID_PRODUCER_EPOCH,
            Self::InvalidTxnState { .. } => ErrorCode::INVALID_TXN_STATE,
            Self::TransactionCoordinatorFenced { .. } => ErrorCode::TRANSACTION_COORDINATOR_FENCED,
        }
    }
}

/// Who is appending on the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOrigin {
    /// A Produce request: sequences are checked, duplicates recognised.
    Client,
    /// A coordinator of this broker. For a transaction marker, `transaction_version` is
    /// the feature level that it was decided under (2: the marker's epoch is a new one).
    Coordinator { transaction_version: i16 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TxnMetadata {
    producer_id: ProducerId,
    /// Of the marker, once there is one.
    last_offset: Option<Offset>,
}

/// All producers of a partition.
#[derive(Clone, Debug, Default)]
pub struct ProducerStates {
    producers: IndexMap<ProducerId, ProducerEntry>,
    /// Open transactions by first offset.
    ongoing: BTreeMap<Offset, TxnMetadata>,
    /// Completed ones whose marker the high watermark hasn't passed, by first offset.
    unreplicated: BTreeMap<Offset, TxnMetadata>,
    /// The log below this offset is reflected here.
    end_offset: Offset,
}

impl ProducerStates {
    pub fn end_offset(&self) -> Offset {
        self.end_offset
    }

    pub fn set_end_offset(&mut self, offset: Offset) {
        self.end_offset = offset;
    }

    pub fn len(&self) -> usize {
        self.producers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    pub fn get(&self, producer_id: ProducerId) -> Option<&ProducerEntry> {
        self.producers.get(&producer_id)
    }

    /// Producers by id (for DescribeProducers and snapshots).
    pub fn sorted(&self) -> Vec<(ProducerId, &ProducerEntry)> {
        let mut all: Vec<_> = self.producers.iter().map(|(id, e)| (*id, e)).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }

    /// Decides about a batch of a leader's append; offsets have been assigned. `marker`
    /// is that of a control batch.
    pub fn check(
        &self,
        batch: &BatchHeader,
        marker: Option<EndTxnMarker>,
        origin: AppendOrigin,
    ) -> Result<Verdict, ProducerError> {
        if !batch.has_producer_id() {
            return Ok(Verdict::Append);
        }
        let entry = self.producers.get(&batch.producer_id);
        if origin == AppendOrigin::Client
            && let Some(duplicate) = entry.and_then(|entry| find_duplicate(entry, batch))
        {
            return Ok(Verdict::Duplicate(duplicate));
        }
        let unknown = ProducerEntry::unknown();
        let entry = entry.unwrap_or(&unknown);
        if batch.is_control() {
            if let Some(marker) = marker {
                check_marker(entry, batch, marker, origin)?;
            }
            return Ok(Verdict::Append);
        }
        if batch.producer_epoch < entry.epoch {
            return Err(invalid_epoch(entry, batch));
        }
        if origin == AppendOrigin::Client {
            check_sequence(entry, batch)?;
        }
        if entry.txn_first_offset.is_some() && !batch.is_transactional() {
            return Err(ProducerError::InvalidTxnState {
                producer_id: batch.producer_id,
            });
        }
        Ok(Verdict::Append)
    }

    /// Takes a batch in that has been written. For a marker that ends a transaction with
    /// an abort, returns the entry for the transaction index.
    pub fn update(
        &mut self,
        batch: &BatchHeader,
        marker: Option<EndTxnMarker>,
    ) -> Option<AbortedTxn> {
        self.end_offset = batch.next_offset();
        if !batch.has_producer_id() {
            return None;
        }
        if batch.is_control() {
            return self.update_with_marker(batch, marker?);
        }
        let entry = self
            .producers
            .entry(batch.producer_id)
            .or_insert_with(ProducerEntry::unknown);
        let metadata = BatchMetadata {
            last_sequence: batch.last_sequence(),
            last_offset: batch.last_offset(),
            offset_delta: batch.last_offset_delta,
            timestamp: batch.max_timestamp,
        };
        entry.add_batch(batch.producer_epoch, metadata);
        if batch.is_transactional() && entry.txn_first_offset.is_none() {
            entry.txn_first_offset = Some(batch.base_offset);
            let txn = TxnMetadata {
                producer_id: batch.producer_id,
                last_offset: None,
            };
            self.ongoing.insert(batch.base_offset, txn);
        }
        None
    }

    fn update_with_marker(
        &mut self,
        batch: &BatchHeader,
        marker: EndTxnMarker,
    ) -> Option<AbortedTxn> {
        let producer_id = batch.producer_id;
        let entry = self
            .producers
            .entry(producer_id)
            .or_insert_with(ProducerEntry::unknown);
        let first_offset = entry.txn_first_offset.take();
        entry.set_epoch(batch.producer_epoch);
        entry.coordinator_epoch = marker.coordinator_epoch;
        entry.last_timestamp = batch.max_timestamp;
        // A marker without records before it changes nothing for readers.
        let first_offset = first_offset?;
        let last_offset = batch.base_offset;
        // What the last stable offset will be once the marker is replicated.
        let last_stable_offset = self
            .ongoing
            .iter()
            .find(|(_, txn)| txn.producer_id != producer_id)
            .map_or(last_offset + 1, |(first, _)| *first);
        self.ongoing.remove(&first_offset);
        let completed = TxnMetadata {
            producer_id,
            last_offset: Some(last_offset),
        };
        self.unreplicated.insert(first_offset, completed);
        (!marker.commit).then_some(AbortedTxn {
            producer_id,
            first_offset,
            last_offset,
            last_stable_offset,
        })
    }

    /// Where the first transaction begins that is open or whose end isn't replicated:
    /// read-committed consumers stop there.
    pub fn first_unstable_offset(&self) -> Option<Offset> {
        let open = self.ongoing.keys().next().copied();
        let unreplicated = self.unreplicated.keys().next().copied();
        open.into_iter().chain(unreplicated).min()
    }

    /// Where the first open transaction begins.
    pub fn first_undecided_offset(&self) -> Option<Offset> {
        self.ongoing.keys().next().copied()
    }

    pub fn has_ongoing_transaction(&self, producer_id: ProducerId, epoch: ProducerEpoch) -> bool {
        self.producers
            .get(&producer_id)
            .is_some_and(|entry| entry.txn_first_offset.is_some() && entry.epoch == epoch)
    }

    /// Lets go of completed transactions whose marker lies below `offset`: the high
    /// watermark or the log start offset.
    pub fn on_replicated_up_to(&mut self, offset: Offset) {
        self.unreplicated
            .retain(|_, txn| txn.last_offset.is_none_or(|last| last >= offset));
    }

    /// Forgets producers that haven't written for so long, unless a transaction is open.
    pub fn remove_expired(&mut self, now_ms: Millis, expiration_ms: Millis) {
        self.producers.retain(|_, entry| {
            entry.txn_first_offset.is_some() || now_ms - entry.last_timestamp < expiration_ms
        });
    }

    /// Takes over an entry of a snapshot.
    pub fn load(&mut self, producer_id: ProducerId, entry: ProducerEntry) {
        if let Some(first) = entry.txn_first_offset {
            let txn = TxnMetadata {
                producer_id,
                last_offset: None,
            };
            self.ongoing.insert(first, txn);
        }
        self.producers.insert(producer_id, entry);
    }

    /// Starts over, with nothing known of the log below `offset`.
    pub fn clear(&mut self, offset: Offset) {
        self.producers.clear();
        self.ongoing.clear();
        self.unreplicated.clear();
        self.end_offset = offset;
    }
}

fn find_duplicate(entry: &ProducerEntry, batch: &BatchHeader) -> Option<BatchMetadata> {
    if entry.epoch != batch.producer_epoch || batch.is_control() {
        return None;
    }
    let (first, last) = (batch.base_sequence, batch.last_sequence());
    let mut batches = entry.batches.iter();
    batches
        .find(|b| b.first_sequence() == first && b.last_sequence == last)
        .copied()
}

fn check_sequence(entry: &ProducerEntry, batch: &BatchHeader) -> Result<(), ProducerError> {
    let sequence = batch.base_sequence;
    let last_sequence = entry.last_sequence();
    let in_order = if entry.epoch.0 < 0 {
        // Nothing is known of the producer, perhaps because its records were deleted.
        true
    } else if batch.producer_epoch != entry.epoch {
        sequence == 0
    } else {
        i64::from(sequence) == i64::from(last_sequence) + 1
            || (sequence == 0 && last_sequence == i32::MAX)
    };
    if in_order {
        return Ok(());
    }
    Err(ProducerError::OutOfOrderSequence {
        producer_id: batch.producer_id,
        sequence,
        last_sequence,
    })
}

fn check_marker(
    entry: &ProducerEntry,
    batch: &BatchHeader,
    marker: EndTxnMarker,
    origin: AppendOrigin,
) -> Result<(), ProducerError> {
    let transaction_version = match origin {
        AppendOrigin::Client => 0,
        AppendOrigin::Coordinator {
            transaction_version,
        } => transaction_version,
    };
    let epoch = batch.producer_epoch;
    // Under version 2 each transaction ends with a new epoch; the same one may come again
    // only as the repetition of a marker that has been written (KAFKA-19999).
    let is_repetition = epoch == entry.epoch
        && (entry.txn_first_offset.is_none() || epoch == ProducerEpoch(i16::MAX));
    let is_stale = match transaction_version {
        ..2 => epoch < entry.epoch,
        2.. => epoch < entry.epoch || (epoch == entry.epoch && !is_repetition),
    };
    if is_stale {
        return Err(invalid_epoch(entry, batch));
    }
    if marker.coordinator_epoch < entry.coordinator_epoch {
        return Err(ProducerError::TransactionCoordinatorFenced {
            epoch: marker.coordinator_epoch,
            current: entry.coordinator_epoch,
        });
    }
    Ok(())
}

fn invalid_epoch(entry: &ProducerEntry, batch: &BatchHeader) -> ProducerError {
    ProducerError::InvalidProducerEpoch {
        producer_id: batch.producer_id,
        epoch: batch.producer_epoch,
        current: entry.epoch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::LeaderEpoch;

    const TRANSACTIONAL: i16 = 1 << 4;
    const CONTROL: i16 = 1 << 5;

    fn batch(epoch: i16, sequence: i32, count: i32, offset: i64, attributes: i16) -> BatchHeader {
        BatchHeader {
            base_offset: Offset(offset),
            size: 100,
            leader_epoch: LeaderEpoch(0),
            attributes,
            last_offset_delta: count - 1,
            max_timestamp: offset * 10,
            producer_id: ProducerId(9),
            producer_epoch: ProducerEpoch(epoch),
            base_sequence: sequence,
            record_count: count,
        }
    }

    fn check(states: &ProducerStates, batch: &BatchHeader) -> Result<Verdict, ErrorCode> {
        states
            .check(batch, None, AppendOrigin::Client)
            .map_err(|error| error.error_code())
    }

    #[test]
    fn five_batches_are_recognised() {
        let mut states = ProducerStates::default();
        for i in 0..6 {
            let b = batch(0, i * 2, 2, i64::from(i) * 2, 0);
            assert_eq!(check(&states, &b), Ok(Verdict::Append));
            states.update(&b, None);
        }
        let Ok(Verdict::Duplicate(found)) = check(&states, &batch(0, 2, 2, 12, 0)) else {
            panic!("the second batch is among the last five");
        };
        assert_eq!(
            (found.first_offset(), found.last_offset),
            (Offset(2), Offset(3))
        );
        assert_eq!(found.timestamp, 20);
        let out_of_order = Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert_eq!(check(&states, &batch(0, 0, 2, 12, 0)), out_of_order);
        assert_eq!(check(&states, &batch(0, 2, 1, 12, 0)), out_of_order);
        assert_eq!(check(&states, &batch(0, 13, 1, 12, 0)), out_of_order);
        assert_eq!(states.end_offset(), Offset(12));
    }

    #[test]
    fn sequences_and_epochs_follow() {
        let mut states = ProducerStates::default();
        // An unknown producer may begin anywhere.
        states.update(&batch(3, i32::MAX, 1, 0, 0), None);
        assert_eq!(check(&states, &batch(3, 0, 1, 1, 0)), Ok(Verdict::Append));
        let stale = Err(ErrorCode::INVALID_PRODUCER_EPOCH);
        assert_eq!(check(&states, &batch(2, 0, 1, 1, 0)), stale);
        let out_of_order = Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert_eq!(check(&states, &batch(4, 1, 1, 1, 0)), out_of_order);
        assert_eq!(check(&states, &batch(4, 0, 1, 1, 0)), Ok(Verdict::Append));
        // Sequences wrap within a batch, too.
        let mut states = ProducerStates::default();
        states.update(&batch(0, i32::MAX - 1, 4, 0, 0), None);
        let Ok(Verdict::Duplicate(_)) = check(&states, &batch(0, i32::MAX - 1, 4, 4, 0)) else {
            panic!("a wrapping batch is recognised");
        };
        assert_eq!(check(&states, &batch(0, 2, 1, 4, 0)), Ok(Verdict::Append));
    }

    #[test]
    fn transactions_open_and_close() {
        let mut states = ProducerStates::default();
        states.update(&batch(0, 0, 3, 3, TRANSACTIONAL), None);
        assert_eq!(states.first_unstable_offset(), Some(Offset(3)));
        assert!(states.has_ongoing_transaction(ProducerId(9), ProducerEpoch(0)));
        let plain = check(&states, &batch(0, 3, 1, 6, 0));
        assert_eq!(plain, Err(ErrorCode::INVALID_TXN_STATE));

        let marker = EndTxnMarker {
            commit: false,
            coordinator_epoch: 4,
        };
        let end = batch(1, -1, 1, 7, TRANSACTIONAL | CONTROL);
        let version = |transaction_version| AppendOrigin::Coordinator {
            transaction_version,
        };
        let same_epoch = batch(0, -1, 1, 7, TRANSACTIONAL | CONTROL);
        assert!(states.check(&same_epoch, Some(marker), version(1)).is_ok());
        assert!(states.check(&same_epoch, Some(marker), version(2)).is_err());
        assert!(states.check(&end, Some(marker), version(2)).is_ok());
        let aborted = states.update(&end, Some(marker)).unwrap();
        assert_eq!(
            (
                aborted.first_offset,
                aborted.last_offset,
                aborted.last_stable_offset
            ),
            (Offset(3), Offset(7), Offset(8))
        );
        assert_eq!(states.first_undecided_offset(), None);
        assert_eq!(states.first_unstable_offset(), Some(Offset(3)));
        states.on_replicated_up_to(Offset(7));
        assert_eq!(states.first_unstable_offset(), Some(Offset(3)));
        states.on_replicated_up_to(Offset(8));
        assert_eq!(states.first_unstable_offset(), None);

        assert!(states.check(&end, Some(marker), version(2)).is_ok());
        let fenced = EndTxnMarker {
            coordinator_epoch: 3,
            ..marker
        };
        let error = states.check(&end, Some(fenced), version(2)).unwrap_err();
        assert_eq!(
            error.error_code(),
            ErrorCode::TRANSACTION_COORDINATOR_FENCED
        );
        // A new epoch begins at sequence 0.
        assert!(check(&states, &batch(1, 1, 1, 8, 0)).is_err());
        assert!(check(&states, &batch(1, 0, 1, 8, 0)).is_ok());
    }

    #[test]
    fn idle_producers_expire() {
        let mut states = ProducerStates::default();
        states.update(&batch(0, 0, 1, 1, 0), None);
        states.remove_expired(109, 100);
        assert_eq!(states.len(), 1);
        states.remove_expired(110, 100);
        assert!(states.is_empty());
        states.update(&batch(0, 0, 1, 1, TRANSACTIONAL), None);
        states.remove_expired(1_000, 100);
        assert_eq!(states.len(), 1);
    }
}
