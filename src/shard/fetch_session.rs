//! One incremental fetch session (KIP-227): a consumer names its partitions once, later
//! requests carry changes only, and responses leave out what hasn't changed.
//!
//! Held by [`session_table`](super::session_table), which says on which core a session is,
//! and used by `api::fetch` through it. Pure state; time is passed in.
//!
//! Invariant: `index` of a session names each of its partitions exactly once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::base::{ErrorCode, Nanos, PartitionIndex, Uuid};

/// A core with another's session tells the home that it is in use, but not more often.
const USED_PERIOD: Duration = Duration::from_secs(30);

/// The epoch of a request that closes its session, or wants none.
pub(super) const FINAL_EPOCH: i32 = -1;
/// The epoch of a full request that opens a session.
const INITIAL_EPOCH: i32 = 0;

/// How a request names a partition: by topic id from version 13 on, by name before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FetchKey {
    pub topic: FetchTopic,
    pub partition: PartitionIndex,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FetchTopic {
    Id(Uuid),
    Name(Arc<str>),
}

/// What a request asks of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchSpec {
    pub key: FetchKey,
    pub current_leader_epoch: i32,
    pub fetch_offset: i64,
    pub last_fetched_epoch: i32,
    pub log_start_offset: i64,
    pub partition_max_bytes: i32,
}

pub type Specs = SmallVec<[FetchSpec; 1]>;

/// What a response says of one partition, as far as sessions care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchOutcome {
    pub error: ErrorCode,
    pub high_watermark: i64,
    pub log_start_offset: i64,
    pub has_records: bool,
    /// A diverging epoch or a preferred replica: always told.
    pub has_news: bool,
}

/// The session part of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRequest {
    pub session_id: i32,
    pub session_epoch: i32,
    pub by_id: bool,
    pub from_follower: bool,
    pub partitions: Specs,
    pub forgotten: Vec<FetchKey>,
}

impl SessionRequest {
    /// Whether it goes on with a session rather than opening or closing one.
    pub fn continues_session(&self) -> bool {
        !matches!(self.session_epoch, INITIAL_EPOCH | FINAL_EPOCH)
    }
}

/// The partitions to read, and under which session the answer goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    pub partitions: Specs,
    /// 0 where the response is full and without a session.
    pub session_id: i32,
    /// Whether unchanged partitions may be left out.
    pub incremental: bool,
}

impl Begun {
    /// A request outside of any session.
    pub fn full(partitions: Specs) -> Begun {
        Begun {
            partitions,
            session_id: 0,
            incremental: false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Cached {
    spec: FetchSpec,
    /// Sent last: the response repeats a partition whose values differ. -1 at first.
    high_watermark: i64,
    log_start_offset: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    epoch: i32,
    by_id: bool,
    from_follower: bool,
    /// In the order in which they are read; those that returned data move to the end.
    partitions: Vec<Cached>,
    index: HashMap<FetchKey, usize>,
    created: Nanos,
    last_used: Nanos,
    /// When the home last heard of it, while it is elsewhere.
    home_told: Nanos,
}

/// What decides which session is evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worth {
    pub from_follower: bool,
    pub partitions: usize,
    pub created: Nanos,
    pub last_used: Nanos,
}

impl Session {
    /// What a full request opens.
    pub fn open(request: &SessionRequest, now: Nanos) -> Session {
        let mut session = Session {
            epoch: next_epoch(INITIAL_EPOCH),
            by_id: request.by_id,
            from_follower: request.from_follower,
            partitions: Vec::new(),
            index: HashMap::new(),
            created: now,
            last_used: now,
            home_told: now,
        };
        session.update(request.partitions.clone(), &[]);
        session
    }

    /// Applies a request that goes on with it.
    ///
    /// Errors: INVALID_FETCH_SESSION_EPOCH (the session lives on at its epoch),
    /// FETCH_SESSION_TOPIC_ID_ERROR (names and ids mixed).
    pub fn go_on(&mut self, request: SessionRequest, now: Nanos) -> Result<(), ErrorCode> {
        if self.epoch != request.session_epoch {
            return Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
        }
        if self.by_id != request.by_id {
            return Err(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
        }
        self.update(request.partitions, &request.forgotten);
        self.last_used = now;
        self.epoch = next_epoch(self.epoch);
        Ok(())
    }

    /// Nothing to fetch is left in it: it is to be closed.
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// All its partitions, in the order in which they are read.
    pub fn begun(&self, id: i32) -> Begun {
        Begun {
            partitions: self.partitions.iter().map(|c| c.spec.clone()).collect(),
            session_id: id,
            incremental: true,
        }
    }

    /// The home has just seen it.
    pub fn on_home_told(&mut self, now: Nanos) {
        self.home_told = now;
    }

    /// What to tell the home, now and then: how many partitions it has.
    pub fn use_to_tell(&mut self, now: Nanos) -> Option<usize> {
        if now.saturating_since(self.home_told) < USED_PERIOD {
            return None;
        }
        self.home_told = now;
        Some(self.partitions.len())
    }

    /// Decides for each partition of the answer whether it is sent, and remembers what
    /// was. `outcomes` stand in the order of [`Begun::partitions`].
    pub fn respond(&mut self, begun: &Begun, outcomes: &[FetchOutcome]) -> SmallVec<[bool; 16]> {
        let mut sent = SmallVec::with_capacity(outcomes.len());
        let mut with_data: SmallVec<[usize; 16]> = SmallVec::new();
        for (spec, outcome) in begun.partitions.iter().zip(outcomes) {
            let Some(&position) = self.index.get(&spec.key) else {
                // A pipelined request has dropped it meanwhile.
                sent.push(!begun.incremental);
                continue;
            };
            let cached = &mut self.partitions[position];
            let include = !begun.incremental
                || outcome.has_records
                || outcome.has_news
                || !outcome.error.is_ok()
                || cached.high_watermark != outcome.high_watermark
                || cached.log_start_offset != outcome.log_start_offset;
            if include {
                cached.high_watermark = outcome.high_watermark;
                cached.log_start_offset = outcome.log_start_offset;
            }
            if !outcome.error.is_ok() {
                // Told again with the next response, whatever it is then.
                cached.high_watermark = -1;
            }
            if outcome.has_records {
                with_data.push(position);
            }
            sent.push(include);
        }
        if begun.incremental && !with_data.is_empty() && with_data.len() < self.partitions.len() {
            self.move_to_end(&with_data);
        }
        sent
    }

    pub fn worth(&self) -> Worth {
        Worth {
            from_follower: self.from_follower,
            partitions: self.partitions.len(),
            created: self.created,
            last_used: self.last_used,
        }
    }

    fn update(&mut self, changed: Specs, forgotten: &[FetchKey]) {
        for spec in changed {
            match self.index.get(&spec.key) {
                Some(&position) => self.partitions[position].spec = spec,
                None => {
                    self.index.insert(spec.key.clone(), self.partitions.len());
                    self.partitions.push(Cached {
                        spec,
                        high_watermark: -1,
                        log_start_offset: -1,
                    });
                }
            }
        }
        let before = self.partitions.len();
        for key in forgotten {
            self.index.remove(key);
        }
        let index = &self.index;
        self.partitions.retain(|c| index.contains_key(&c.spec.key));
        if self.partitions.len() != before {
            self.reindex();
        }
    }

    fn move_to_end(&mut self, positions: &[usize]) {
        let mut moved = vec![false; self.partitions.len()];
        for &position in positions {
            moved[position] = true;
        }
        let mut kept = Vec::with_capacity(moved.len());
        let mut last = Vec::with_capacity(positions.len());
        for (cached, moved) in self.partitions.drain(..).zip(moved) {
            if moved { &mut last } else { &mut kept }.push(cached);
        }
        kept.append(&mut last);
        self.partitions = kept;
        self.reindex();
    }

    fn reindex(&mut self) {
        for (position, cached) in self.partitions.iter().enumerate() {
            match self.index.get_mut(&cached.spec.key) {
                Some(entry) => *entry = position,
                None => {
                    self.index.insert(cached.spec.key.clone(), position);
                }
            }
        }
    }
}

/// 1, 2, … and after the largest number 1 again: 0 opens a session.
fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: i32) -> FetchKey {
        FetchKey {
            topic: FetchTopic::Name("t".into()),
            partition: PartitionIndex(partition),
        }
    }

    fn request(epoch: i32, partitions: &[(i32, i64)]) -> SessionRequest {
        SessionRequest {
            session_id: 7,
            session_epoch: epoch,
            by_id: false,
            from_follower: false,
            partitions: partitions
                .iter()
                .map(|(partition, offset)| FetchSpec {
                    key: key(*partition),
                    current_leader_epoch: -1,
                    fetch_offset: *offset,
                    last_fetched_epoch: -1,
                    log_start_offset: -1,
                    partition_max_bytes: 1 << 20,
                })
                .collect(),
            forgotten: Vec::new(),
        }
    }

    fn outcome(high_watermark: i64, has_records: bool) -> FetchOutcome {
        FetchOutcome {
            error: ErrorCode::NONE,
            high_watermark,
            log_start_offset: 0,
            has_records,
            has_news: false,
        }
    }

    fn order(begun: &Begun) -> Vec<i32> {
        begun.partitions.iter().map(|s| s.key.partition.0).collect()
    }

    fn go_on(session: &mut Session, request: SessionRequest) -> Begun {
        session.go_on(request, Nanos(1)).unwrap();
        session.begun(7)
    }

    #[test]
    fn an_incremental_answer_leaves_out_what_has_not_changed() {
        let first = request(0, &[(0, 0), (1, 0)]);
        let mut session = Session::open(&first, Nanos(0));
        let begun = Begun::full(first.partitions);
        assert_eq!(
            session.respond(&begun, &[outcome(5, false), outcome(7, false)])[..],
            [true, true]
        );
        let begun = go_on(&mut session, request(1, &[]));
        assert_eq!(order(&begun), [0, 1]);
        assert_eq!(
            session.respond(&begun, &[outcome(5, false), outcome(8, false)])[..],
            [false, true]
        );
        let begun = go_on(&mut session, request(2, &[(0, 5)]));
        assert_eq!(begun.partitions[0].fetch_offset, 5);
        assert_eq!(
            session.respond(&begun, &[outcome(6, true), outcome(8, false)])[..],
            [true, false]
        );
        // Partition 0 returned data: it is read last now.
        let begun = go_on(&mut session, request(3, &[]));
        assert_eq!(order(&begun), [1, 0]);
    }

    #[test]
    fn forgotten_partitions_leave() {
        let first = request(0, &[(0, 0), (1, 0), (2, 0)]);
        let mut session = Session::open(&first, Nanos(0));
        let mut forget = request(1, &[]);
        forget.forgotten = vec![key(1)];
        assert_eq!(order(&go_on(&mut session, forget)), [0, 2]);
        let mut forget = request(2, &[]);
        forget.forgotten = vec![key(0), key(2), key(9)];
        go_on(&mut session, forget);
        assert!(session.is_empty());
    }

    #[test]
    fn a_wrong_epoch_or_kind_of_name_is_refused_and_changes_nothing() {
        let mut session = Session::open(&request(0, &[(0, 0)]), Nanos(0));
        let before = session.clone();
        assert_eq!(
            session.go_on(request(5, &[(1, 0)]), Nanos(9)),
            Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH)
        );
        let mut by_id = request(1, &[(1, 0)]);
        by_id.by_id = true;
        assert_eq!(
            session.go_on(by_id, Nanos(9)),
            Err(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR)
        );
        assert_eq!(session, before);
        assert!(session.go_on(request(1, &[]), Nanos(9)).is_ok());
    }

    #[test]
    fn epochs_wrap_to_one() {
        assert_eq!(next_epoch(i32::MAX), 1);
        assert_eq!(next_epoch(0), 1);
    }
}
