//! Incremental fetch sessions (KIP-227): a consumer names its partitions once, later
//! requests carry changes only, and responses leave out what hasn't changed.
//!
//! Called by `shard::session_moves` before reading ([`FetchSessions::begin`]) and by
//! `api::fetch` after ([`FetchSessions::respond`]). A session id tells its home core (id
//! modulo cores), where the session is opened and counted. The session itself is on the
//! core that used it last: the home remembers which, and brings about its moves.
//!
//! Invariants: at most [`FetchSessions::capacity`] sessions have their home here, wherever
//! they are; a session is on one core, or on its way; `index` of a session names each of its
//! partitions exactly once.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::base::{CoreId, ErrorCode, Nanos, PartitionIndex, Rng, Uuid};
use crate::io::local::Notify;

/// A session that was used within this time is evicted only by a more valuable one that
/// is itself not new (`FetchSessionCache`).
const EVICTION_AGE_MIN: Duration = Duration::from_secs(120);
/// A core with another's session tells the home that it is in use, but not more often.
const USED_PERIOD: Duration = Duration::from_secs(30);

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

impl SessionRequest {
    /// Whether it goes on with a session rather than opening or closing one.
    pub fn continues_session(&self) -> bool {
        !matches!(self.session_epoch, INITIAL_EPOCH | FINAL_EPOCH)
    }
}

/// What a core asks or tells another about a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionCall {
    /// To the home: answered with the session, wherever it is.
    Take { id: i32, to: CoreId },
    /// From the home, to the core that has it: answered with the session.
    Give { id: i32, to: CoreId },
    /// To the home: a client has closed it.
    Close { id: i32, from: CoreId },
    /// From the home, to the core that has it: it is closed or evicted.
    Drop(i32),
    /// To the home: it was used just now, and has so many partitions.
    Used { id: i32, partitions: usize },
}

/// Where a session is, as far as this core knows.
#[derive(Debug)]
pub enum Found {
    Here,
    /// On its way from this core; told when it is here or turns out to be lost.
    Arriving(Rc<Notify>, CoreId),
    /// To be asked of this core.
    At(CoreId),
    Nowhere,
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

#[derive(Debug)]
enum Slot {
    Here(Box<Session>),
    /// One of ours that another core has.
    Away(Away),
    /// Asked of another core.
    Arriving {
        arrival: Rc<Notify>,
        from: CoreId,
        /// Closed meanwhile: it is dropped as it comes.
        closed: bool,
    },
}

#[derive(Debug)]
struct Away {
    core: CoreId,
    worth: Worth,
}

/// What decides which session is evicted.
#[derive(Clone, Copy, Debug)]
struct Worth {
    from_follower: bool,
    partitions: usize,
    created: Nanos,
    last_used: Nanos,
}

impl Slot {
    /// None while it is on its way: then it is in use.
    fn worth(&self) -> Option<Worth> {
        match self {
            Slot::Here(session) => Some(session.worth()),
            Slot::Away(away) => Some(away.worth),
            Slot::Arriving { .. } => None,
        }
    }
}

/// The sessions of one core.
#[derive(Debug)]
pub struct FetchSessions {
    capacity: usize,
    core: u16,
    cores: u16,
    /// Those that are here and those whose home is here.
    sessions: HashMap<i32, Slot>,
    /// To be sent to other cores.
    notes: Vec<(CoreId, SessionCall)>,
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
            notes: Vec::new(),
        }
    }

    /// Sessions that are here or have their home here.
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
        if !request.continues_session() {
            self.close(request.session_id);
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
        let home = self.home(request.session_id);
        let Some(Slot::Here(session)) = self.sessions.get_mut(&request.session_id) else {
            return Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
        };
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
            self.close(request.session_id);
            return Ok(Begun {
                partitions: Vec::new(),
                session_id: 0,
                incremental: false,
            });
        }
        if home.0 != self.core && now.saturating_since(session.home_told) >= USED_PERIOD {
            session.home_told = now;
            let used = SessionCall::Used {
                id: request.session_id,
                partitions: session.partitions.len(),
            };
            self.notes.push((home, used));
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
        let Some(Slot::Here(session)) = self.sessions.get_mut(&begun.session_id) else {
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

    /// Where to have a session from.
    pub fn find(&self, id: i32) -> Found {
        match self.sessions.get(&id) {
            Some(Slot::Here(_)) => Found::Here,
            Some(Slot::Arriving { arrival, from, .. }) => Found::Arriving(arrival.clone(), *from),
            Some(Slot::Away(away)) => Found::At(away.core),
            None if id <= 0 || self.is_own(id) => Found::Nowhere,
            None => Found::At(self.home(id)),
        }
    }

    /// The session is being asked of another core; also whether its home is here.
    pub fn expect_arrival(&mut self, id: i32, from: CoreId) -> (Rc<Notify>, bool) {
        let arrival = Rc::new(Notify::new());
        let slot = Slot::Arriving {
            arrival: arrival.clone(),
            from,
            closed: false,
        };
        let before = self.sessions.insert(id, slot);
        assert!(
            matches!(before, None | Some(Slot::Away(_))),
            "a session is asked for once, and not where it is"
        );
        (arrival, self.is_own(id))
    }

    /// The answer has come: the session, or the news that it is no more.
    pub fn arrived(&mut self, id: i32, session: Option<Box<Session>>, now: Nanos) {
        let Some(Slot::Arriving {
            arrival, closed, ..
        }) = self.sessions.remove(&id)
        else {
            unreachable!("what was asked for is expected until it is answered");
        };
        if let Some(mut session) = session
            && !closed
        {
            session.home_told = now;
            self.sessions.insert(id, Slot::Here(session));
        }
        arrival.notify_all();
    }

    /// Hands a session that is here to another core.
    pub fn lend(&mut self, id: i32, to: CoreId, now: Nanos) -> Option<Box<Session>> {
        match self.sessions.remove(&id)? {
            Slot::Here(session) => {
                if self.is_own(id) {
                    let worth = Worth {
                        last_used: now,
                        ..session.worth()
                    };
                    let away = Away { core: to, worth };
                    self.sessions.insert(id, Slot::Away(away));
                }
                Some(session)
            }
            // It was lost there.
            Slot::Away(away) if away.core == to => None,
            slot => {
                self.sessions.insert(id, slot);
                None
            }
        }
    }

    /// A client of another core has closed a session whose home is here.
    pub fn close_for(&mut self, id: i32, from: CoreId) {
        match self.sessions.get(&id) {
            Some(Slot::Away(away)) if away.core == from => {
                self.sessions.remove(&id);
            }
            Some(_) if self.is_own(id) => self.close(id),
            _ => {}
        }
    }

    /// The home has closed or evicted a session that is here.
    pub fn drop_guest(&mut self, id: i32) {
        if !self.is_own(id) {
            self.forget(id);
        }
    }

    /// A session of this core is in use elsewhere.
    pub fn on_used(&mut self, id: i32, partitions: usize, now: Nanos) {
        if let Some(Slot::Away(away)) = self.sessions.get_mut(&id) {
            away.worth.partitions = partitions;
            away.worth.last_used = now;
        }
    }

    /// What other cores are to be told.
    pub fn take_notes(&mut self) -> Vec<(CoreId, SessionCall)> {
        std::mem::take(&mut self.notes)
    }

    /// Closes a session, wherever it is.
    fn close(&mut self, id: i32) {
        if id <= 0 {
            return;
        }
        let away = self.forget(id);
        if !self.is_own(id) {
            let from = CoreId(self.core);
            self.notes
                .push((self.home(id), SessionCall::Close { id, from }));
        } else if let Some(core) = away {
            self.notes.push((core, SessionCall::Drop(id)));
        }
    }

    /// Drops a session, now or when it comes; where it is if that is elsewhere.
    fn forget(&mut self, id: i32) -> Option<CoreId> {
        if let Some(Slot::Arriving { closed, .. }) = self.sessions.get_mut(&id) {
            *closed = true;
            return None;
        }
        match self.sessions.remove(&id) {
            Some(Slot::Away(away)) => Some(away.core),
            _ => None,
        }
    }

    fn home(&self, id: i32) -> CoreId {
        let home = id.rem_euclid(i32::from(self.cores));
        CoreId(u16::try_from(home).expect("a remainder by a 16-bit number"))
    }

    fn is_own(&self, id: i32) -> bool {
        self.home(id).0 == self.core
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
            home_told: now,
        };
        session.update(request.partitions.clone(), &[]);
        self.sessions.insert(id, Slot::Here(Box::new(session)));
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
        let own = self.sessions.keys().filter(|id| self.is_own(**id)).count();
        if own < self.capacity {
            return true;
        }
        let asked = (request.from_follower, request.partitions.len());
        let value = |worth: &Worth| (worth.from_follower, worth.partitions);
        let victim = self
            .sessions
            .iter()
            .filter(|(id, _)| self.is_own(**id))
            .filter_map(|(id, slot)| Some((*id, slot.worth()?)))
            .filter(|(_, s)| {
                let stale = now.saturating_since(s.last_used) > EVICTION_AGE_MIN;
                let old = now.saturating_since(s.created) > EVICTION_AGE_MIN;
                stale || (request.from_follower && !s.from_follower) || (old && value(s) < asked)
            })
            .min_by_key(|(id, s)| (s.last_used, value(s), *id))
            .map(|(id, _)| id);
        match victim {
            Some(id) => {
                self.close(id);
                true
            }
            None => false,
        }
    }
}

impl Session {
    fn worth(&self) -> Worth {
        Worth {
            from_follower: self.from_follower,
            partitions: self.partitions.len(),
            created: self.created,
            last_used: self.last_used,
        }
    }

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

    /// Opens a session of one partition at core 0 of two.
    fn opened(sessions: &mut FetchSessions, rng: &mut Rng) -> i32 {
        sessions
            .begin(request(0, 0, vec![spec(0, 0)]), Nanos(0), rng)
            .unwrap()
            .session_id
    }

    #[test]
    fn a_session_goes_on_at_another_core_and_the_home_knows_where() {
        let mut rng = Rng::new(1);
        let mut home = FetchSessions::new(1, 0, 2);
        let mut other = FetchSessions::new(1, 1, 2);
        let id = opened(&mut home, &mut rng);
        assert!(matches!(other.find(id), Found::At(CoreId(0))));
        other.expect_arrival(id, CoreId(0));
        let lent = home.lend(id, CoreId(1), Nanos(1));
        other.arrived(id, lent, Nanos(1));
        assert!(matches!(other.find(id), Found::Here));
        assert!(matches!(home.find(id), Found::At(CoreId(1))));
        let next = other.begin(request(id, 1, vec![]), Nanos(2), &mut rng);
        assert_eq!(order(&next.unwrap()), [0]);
        assert!(other.take_notes().is_empty(), "the home has just seen it");
        // It keeps its slot at home, and takes none here.
        assert_eq!(opened(&mut home, &mut rng), 0);
        assert_ne!(opened(&mut other, &mut rng), 0);
        // Its use keeps it from being evicted.
        let later = Nanos(EVICTION_AGE_MIN.as_nanos() as u64 + 2);
        let next = other.begin(request(id, 2, vec![]), later, &mut rng);
        assert!(next.is_ok());
        let used = SessionCall::Used { id, partitions: 1 };
        assert_eq!(other.take_notes(), [(CoreId(0), used)]);
        home.on_used(id, 1, later);
        let refused = home.begin(request(0, 0, vec![spec(0, 0)]), later, &mut rng);
        assert_eq!(refused.unwrap().session_id, 0);
        // Back home.
        home.expect_arrival(id, CoreId(0));
        let given = other.lend(id, CoreId(0), later);
        home.arrived(id, given, later);
        assert!(matches!(home.find(id), Found::Here));
        assert!(home.begin(request(id, 3, vec![]), later, &mut rng).is_ok());
        assert!(matches!(other.find(id), Found::At(CoreId(0))));
    }

    #[test]
    fn a_session_that_is_away_is_closed_and_evicted_there() {
        let mut rng = Rng::new(1);
        let mut home = FetchSessions::new(1, 0, 2);
        let mut other = FetchSessions::new(1, 1, 2);
        let mut lend = |home: &mut FetchSessions, other: &mut FetchSessions, at: u64| {
            let begun = home.begin(request(0, 0, vec![spec(0, 0)]), Nanos(at), &mut rng);
            let id = begun.unwrap().session_id;
            other.expect_arrival(id, CoreId(0));
            let lent = home.lend(id, CoreId(1), Nanos(at));
            other.arrived(id, lent, Nanos(at));
            id
        };
        let id = lend(&mut home, &mut other, 0);
        let closed = other.begin(request(id, -1, vec![]), Nanos(1), &mut Rng::new(2));
        assert_eq!(closed.unwrap().session_id, 0);
        let from = CoreId(1);
        let notes = other.take_notes();
        assert_eq!(notes, [(CoreId(0), SessionCall::Close { id, from })]);
        home.close_for(id, from);
        assert!(home.is_empty() && other.is_empty());

        let id = lend(&mut home, &mut other, 0);
        let later = EVICTION_AGE_MIN.as_nanos() as u64 + 2;
        let fresh = lend(&mut home, &mut other, later);
        assert_ne!(fresh, 0, "the old one made room");
        assert_eq!(home.take_notes(), [(CoreId(1), SessionCall::Drop(id))]);
        other.drop_guest(id);
        assert!(matches!(other.find(id), Found::At(CoreId(0))));
        assert_eq!((home.len(), other.len()), (1, 1));
    }

    #[test]
    fn a_session_closed_on_its_way_is_dropped_as_it_comes() {
        let mut rng = Rng::new(1);
        let mut home = FetchSessions::new(1, 0, 2);
        let mut other = FetchSessions::new(1, 1, 2);
        let id = opened(&mut home, &mut rng);
        other.expect_arrival(id, CoreId(0));
        let lent = home.lend(id, CoreId(1), Nanos(0));
        other.drop_guest(id);
        other.arrived(id, lent, Nanos(0));
        assert!(other.is_empty());
        // Lost: the home forgets it when it is asked for again.
        assert!(home.lend(id, CoreId(1), Nanos(0)).is_none());
        assert!(matches!(home.find(id), Found::Nowhere));
    }

    #[test]
    fn epochs_wrap_to_one() {
        assert_eq!(next_epoch(i32::MAX), 1);
        assert_eq!(next_epoch(0), 1);
    }
}
