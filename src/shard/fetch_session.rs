//! Incremental fetch sessions (KIP-227): a consumer names its partitions once, later
//! requests carry changes only, and responses leave out what hasn't changed.
//!
//! Each core keeps the sessions of its own connections; called by `api::fetch` before
//! reading ([`FetchSessions::begin`]) and after ([`FetchSessions::respond`]). A session id
//! tells its core (id modulo cores), so an id of another core is simply not found, and
//! the client opens a new session.
//!
//! Invariants: at most [`FetchSessions::capacity`] sessions; `index` of a session names
//! each of its partitions exactly once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::base::{ErrorCode, Nanos, PartitionIndex, Rng, Uuid};

/// A session that was used within this time is evicted only by a more valuable one that
/// is itself not new (`FetchSessionCache`).
const EVICTION_AGE_MIN: Duration = Duration::from_secs(120);

/// The epoch of a request that closes its session, or wants none.
const FINAL_EPOCH: i32 = -1;
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
#[derive(Clone, Debug)]
pub struct SessionRequest {
    pub session_id: i32,
    pub session_epoch: i32,
    pub by_id: bool,
    pub from_follower: bool,
    pub partitions: Vec<FetchSpec>,
    pub forgotten: Vec<FetchKey>,
}

/// The partitions to read, and under which session the answer goes.
#[derive(Debug, PartialEq, Eq)]
pub struct Begun {
    pub partitions: Vec<FetchSpec>,
    /// 0 where the response is full and without a session.
    pub session_id: i32,
    /// Whether unchanged partitions may be left out.
    pub incremental: bool,
}

#[derive(Debug)]
struct Cached {
    spec: FetchSpec,
    /// Sent last: the response repeats a partition whose values differ. -1 at first.
    high_watermark: i64,
    log_start_offset: i64,
}

#[derive(Debug)]
struct Session {
    epoch: i32,
    by_id: bool,
    from_follower: bool,
    /// In the order in which they are read; those that returned data move to the end.
    partitions: Vec<Cached>,
    index: HashMap<FetchKey, usize>,
    created: Nanos,
    last_used: Nanos,
}

/// The sessions of one core.
#[derive(Debug)]
pub struct FetchSessions {
    capacity: usize,
    core: u16,
    cores: u16,
    sessions: HashMap<i32, Session>,
}

impl FetchSessions {
    /// `capacity` is this core's share of `max.incremental.fetch.session.cache.slots`.
    pub fn new(capacity: usize, core: u16, cores: u16) -> FetchSessions {
        assert!(core < cores, "core {core} of {cores}");
        FetchSessions {
            capacity,
            core,
            cores,
            sessions: HashMap::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Resolves a request to the partitions it reads.
    ///
    /// Errors: FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH (the session lives
    /// on at its epoch), FETCH_SESSION_TOPIC_ID_ERROR (names and ids mixed).
    pub fn begin(
        &mut self,
        request: SessionRequest,
        now: Nanos,
        rng: &mut Rng,
    ) -> Result<Begun, ErrorCode> {
        if request.session_epoch == INITIAL_EPOCH || request.session_epoch == FINAL_EPOCH {
            self.sessions.remove(&request.session_id);
            let session_id =
                if request.session_epoch == FINAL_EPOCH || request.partitions.is_empty() {
                    0
                } else {
                    self.open(&request, now, rng)
                };
            return Ok(Begun {
                partitions: request.partitions,
                session_id,
                incremental: false,
            });
        }
        let session = self
            .sessions
            .get_mut(&request.session_id)
            .ok_or(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)?;
        if session.epoch != request.session_epoch {
            return Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
        }
        if session.by_id != request.by_id {
            return Err(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
        }
        session.update(request.partitions, &request.forgotten);
        session.last_used = now;
        session.epoch = next_epoch(session.epoch);
        if session.partitions.is_empty() {
            self.sessions.remove(&request.session_id);
            return Ok(Begun {
                partitions: Vec::new(),
                session_id: 0,
                incremental: false,
            });
        }
        Ok(Begun {
            partitions: session.partitions.iter().map(|c| c.spec.clone()).collect(),
            session_id: request.session_id,
            incremental: true,
        })
    }

    /// Decides for each partition of the answer whether it is sent, and remembers what
    /// was. `outcomes` stand in the order of [`Begun::partitions`].
    pub fn respond(&mut self, begun: &Begun, outcomes: &[FetchOutcome]) -> Vec<bool> {
        assert_eq!(begun.partitions.len(), outcomes.len());
        let Some(session) = self.sessions.get_mut(&begun.session_id) else {
            return vec![true; outcomes.len()];
        };
        let mut sent = Vec::with_capacity(outcomes.len());
        let mut with_data = Vec::new();
        for (spec, outcome) in begun.partitions.iter().zip(outcomes) {
            let Some(&position) = session.index.get(&spec.key) else {
                // A pipelined request has dropped it meanwhile.
                sent.push(!begun.incremental);
                continue;
            };
            let cached = &mut session.partitions[position];
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
        if begun.incremental && !with_data.is_empty() && with_data.len() < session.partitions.len()
        {
            session.move_to_end(&with_data);
        }
        sent
    }

    /// Opens a session and returns its id, or 0 when there is no room.
    fn open(&mut self, request: &SessionRequest, now: Nanos, rng: &mut Rng) -> i32 {
        if !self.make_room(request, now) {
            return 0;
        }
        let id = self.fresh_id(rng);
        let mut session = Session {
            epoch: next_epoch(INITIAL_EPOCH),
            by_id: request.by_id,
            from_follower: request.from_follower,
            partitions: Vec::new(),
            index: HashMap::new(),
            created: now,
            last_used: now,
        };
        session.update(request.partitions.clone(), &[]);
        self.sessions.insert(id, session);
        id
    }

    /// A positive id of this core that is not in use.
    fn fresh_id(&self, rng: &mut Rng) -> i32 {
        let cores = u64::from(self.cores);
        let slots = (i32::MAX as u64) / cores;
        loop {
            let id = rng.below(slots) * cores + u64::from(self.core);
            let id = i32::try_from(id).expect("below slots * cores, which fits");
            if id > 0 && !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }

    /// Evicts one session if need be: the one unused longest when that is over two
    /// minutes, else a smaller or consumer's session that is itself old enough.
    fn make_room(&mut self, request: &SessionRequest, now: Nanos) -> bool {
        if self.sessions.len() < self.capacity {
            return true;
        }
        let value = |s: &Session| (s.from_follower, s.partitions.len());
        let victim = self
            .sessions
            .iter()
            .filter(|(_, s)| {
                let stale = now.saturating_since(s.last_used) > EVICTION_AGE_MIN;
                let old = now.saturating_since(s.created) > EVICTION_AGE_MIN;
                stale
                    || (request.from_follower && !s.from_follower)
                    || (old && value(s) < (request.from_follower, request.partitions.len()))
            })
            .min_by_key(|(id, s)| (s.last_used, value(s), **id))
            .map(|(id, _)| *id);
        match victim {
            Some(id) => self.sessions.remove(&id).is_some(),
            None => false,
        }
    }
}

impl Session {
    fn update(&mut self, changed: Vec<FetchSpec>, forgotten: &[FetchKey]) {
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

    fn spec(partition: i32, offset: i64) -> FetchSpec {
        FetchSpec {
            key: key(partition),
            current_leader_epoch: -1,
            fetch_offset: offset,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: 1 << 20,
        }
    }

    fn request(id: i32, epoch: i32, partitions: Vec<FetchSpec>) -> SessionRequest {
        SessionRequest {
            session_id: id,
            session_epoch: epoch,
            by_id: false,
            from_follower: false,
            partitions,
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

    #[test]
    fn an_incremental_answer_leaves_out_what_has_not_changed() {
        let mut rng = Rng::new(1);
        let mut sessions = FetchSessions::new(10, 1, 3);
        let begun = sessions
            .begin(
                request(0, 0, vec![spec(0, 0), spec(1, 0)]),
                Nanos(0),
                &mut rng,
            )
            .unwrap();
        let id = begun.session_id;
        assert_eq!(id % 3, 1);
        assert!(!begun.incremental);
        assert_eq!(
            sessions.respond(&begun, &[outcome(5, false), outcome(7, false)]),
            [true, true]
        );

        let begun = sessions
            .begin(request(id, 1, vec![]), Nanos(1), &mut rng)
            .unwrap();
        assert_eq!(order(&begun), [0, 1]);
        assert_eq!(
            sessions.respond(&begun, &[outcome(5, false), outcome(8, false)]),
            [false, true]
        );

        let begun = sessions
            .begin(request(id, 2, vec![spec(0, 5)]), Nanos(2), &mut rng)
            .unwrap();
        assert_eq!(begun.partitions[0].fetch_offset, 5);
        assert_eq!(
            sessions.respond(&begun, &[outcome(6, true), outcome(8, false)]),
            [true, false]
        );

        // Partition 0 returned data: it is read last now.
        let begun = sessions
            .begin(request(id, 3, vec![]), Nanos(3), &mut rng)
            .unwrap();
        assert_eq!(order(&begun), [1, 0]);
    }

    #[test]
    fn forgotten_partitions_leave_and_the_last_one_closes_the_session() {
        let mut rng = Rng::new(1);
        let mut sessions = FetchSessions::new(10, 0, 1);
        let begun = sessions
            .begin(
                request(0, 0, vec![spec(0, 0), spec(1, 0), spec(2, 0)]),
                Nanos(0),
                &mut rng,
            )
            .unwrap();
        let id = begun.session_id;
        let mut forget = request(id, 1, vec![]);
        forget.forgotten = vec![key(1)];
        assert_eq!(
            order(&sessions.begin(forget, Nanos(1), &mut rng).unwrap()),
            [0, 2]
        );
        let mut forget = request(id, 2, vec![]);
        forget.forgotten = vec![key(0), key(2), key(9)];
        let begun = sessions.begin(forget, Nanos(1), &mut rng).unwrap();
        assert_eq!(begun.session_id, 0);
        assert!(sessions.is_empty());
    }

    #[test]
    fn a_wrong_epoch_or_id_is_refused_and_the_session_survives() {
        let mut rng = Rng::new(1);
        let mut sessions = FetchSessions::new(10, 0, 1);
        let id = sessions
            .begin(request(0, 0, vec![spec(0, 0)]), Nanos(0), &mut rng)
            .unwrap()
            .session_id;
        assert_eq!(
            sessions.begin(request(id, 5, vec![]), Nanos(0), &mut rng),
            Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH)
        );
        let mut by_id = request(id, 1, vec![]);
        by_id.by_id = true;
        assert_eq!(
            sessions.begin(by_id, Nanos(0), &mut rng),
            Err(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR)
        );
        assert_eq!(
            sessions.begin(request(id.wrapping_add(1), 1, vec![]), Nanos(0), &mut rng),
            Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)
        );
        assert!(
            sessions
                .begin(request(id, 1, vec![]), Nanos(0), &mut rng)
                .is_ok()
        );
        // Epoch -1 closes it.
        let begun = sessions
            .begin(request(id, -1, vec![spec(0, 0)]), Nanos(0), &mut rng)
            .unwrap();
        assert_eq!(begun.session_id, 0);
        assert!(sessions.is_empty());
    }

    #[test]
    fn a_full_cache_evicts_only_stale_or_less_valuable_sessions() {
        let mut rng = Rng::new(1);
        let mut sessions = FetchSessions::new(1, 0, 1);
        let first = sessions
            .begin(request(0, 0, vec![spec(0, 0)]), Nanos(0), &mut rng)
            .unwrap()
            .session_id;
        assert_ne!(first, 0);
        let refused = sessions
            .begin(
                request(0, 0, vec![spec(0, 0), spec(1, 0)]),
                Nanos(1),
                &mut rng,
            )
            .unwrap();
        assert_eq!(refused.session_id, 0);
        let later = Nanos(EVICTION_AGE_MIN.as_nanos() as u64 + 2);
        let second = sessions
            .begin(request(0, 0, vec![spec(0, 0)]), later, &mut rng)
            .unwrap()
            .session_id;
        assert_ne!(second, 0);
        assert_eq!(sessions.len(), 1);
        assert!(
            sessions
                .begin(request(first, 1, vec![]), later, &mut rng)
                .is_err()
        );
    }

    #[test]
    fn epochs_wrap_to_one() {
        assert_eq!(next_epoch(i32::MAX), 1);
        assert_eq!(next_epoch(0), 1);
    }
}
