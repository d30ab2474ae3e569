//! On which core a fetch session is: a state machine of messages between cores, apart from
//! everything that sends them. Why so: `docs/adr/fetch-session-moves.md`.
//!
//! Called by `shard::session_moves`, which carries out what this decides: messages to other
//! cores ([`FetchSessions::take_messages`]) and answers to requests that have waited
//! ([`FetchSessions::take_answers`]), both after each call, before the next one.
//!
//! A session id tells its home core (id modulo cores). The session is on the core that used
//! it last, but always goes there by its home, which alone decides who has it:
//!
//! ```text
//! guest core                      home                           holding core
//!   Asked ────── Want ──────────▶  Away: somebody waits
//!                                    └───────── Recall ──────────▶ Here
//!                                  Here ◀────── Return(session) ──  (forgets it)
//!   Here  ◀───── Grant(session) ── Away
//!   (forgets) ◀─ Absent ─────────  (when there is none)
//! ```
//! Who waits stands in one line at the home: its own requests and other cores, first come,
//! first served. Requests of a core that has asked wait there in a line of their own, and all
//! of them are resolved at the moment when the session comes, so it can be recalled at once
//! and everybody has had a turn. `Close` (a client of another core ends it) and `Drop` (the
//! home has ended it) need no answer.
//!
//! Invariants, given that messages from one core to another arrive in order:
//! - A session is in one place: in one core's table, or in a `Grant` or `Return`.
//! - An entry of the home that is `Away` at a core means that the core has the session, is
//!   being sent it, or has sent it back or closed it. So a `Recall` is answered by what is on
//!   its way already or by a `Return`, and nobody waits for somebody who waits.
//! - A core has at most one unanswered `Want` for an id, and asks for none that it holds.
//! - At most [`FetchSessions::capacity`] sessions have their home here, wherever they are.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use smallvec::SmallVec;

use super::fetch_session::{
    Begun, FINAL_EPOCH, FetchOutcome, Session, SessionRequest, Specs, Worth,
};
use crate::base::{CoreId, ErrorCode, Nanos, Rng};

/// A session that was used within this time is evicted only by a more valuable one that
/// is itself not new (`FetchSessionCache`).
const EVICTION_AGE_MIN: Duration = Duration::from_secs(120);

/// What a core tells another about the session with an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionMessage {
    pub id: i32,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// To the home: requests here wait for it. Answered by `Grant` or `Absent`.
    Want,
    /// From the home.
    Grant(Box<Session>),
    /// From the home: there is no such session.
    Absent,
    /// From the home, to the core that has it.
    Recall,
    /// To the home, as it has recalled it.
    Return(Box<Session>),
    /// To the home: a client has closed it. If the sender had it, it has it no more.
    Close,
    /// From the home, to the core that has it: it is closed or evicted.
    Drop,
    /// To the home: it was used just now, and has so many partitions.
    Used { partitions: usize },
}

/// The sessions of one core. `W` is how the owner finds a request again that waits.
#[derive(Clone, Debug)]
pub struct FetchSessions<W> {
    capacity: usize,
    core: CoreId,
    cores: u16,
    /// Those whose home is here.
    own: BTreeMap<i32, Own<W>>,
    /// Others that are here or are waited for.
    guests: BTreeMap<i32, Guest<W>>,
    /// To be sent to other cores.
    messages: Vec<(CoreId, SessionMessage)>,
    /// To be given to requests that have waited.
    answers: Vec<(W, Result<Begun, ErrorCode>)>,
}

#[derive(Clone, Debug)]
enum Own<W> {
    Here(Box<Session>),
    Away {
        core: CoreId,
        worth: Worth,
        /// It is recalled while somebody waits. At most one entry for each other core, and
        /// requests of this core's connections, which bound theirs.
        waiting: VecDeque<Waiting<W>>,
    },
}

#[derive(Clone, Debug)]
enum Waiting<W> {
    Core(CoreId),
    Request(SessionRequest, W),
}

#[derive(Clone, Debug)]
enum Guest<W> {
    Here(Box<Session>),
    Asked(VecDeque<(SessionRequest, W)>),
}

impl<W> FetchSessions<W> {
    /// `capacity` is this core's share of `max.incremental.fetch.session.cache.slots`.
    pub fn new(capacity: usize, core: CoreId, cores: u16) -> FetchSessions<W> {
        assert!(core.0 < cores, "core {core} of {cores}");
        FetchSessions {
            capacity,
            core,
            cores,
            own: BTreeMap::new(),
            guests: BTreeMap::new(),
            messages: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Sessions that have their home here.
    pub fn own_count(&self) -> usize {
        self.own.len()
    }

    pub fn own_ids(&self) -> impl Iterator<Item = i32> {
        self.own.keys().copied()
    }

    /// Sessions of other cores that are here.
    pub fn guest_ids(&self) -> impl Iterator<Item = i32> {
        let here = |(id, guest): (&i32, &Guest<W>)| match guest {
            Guest::Here(_) => Some(*id),
            Guest::Asked(_) => None,
        };
        self.guests.iter().filter_map(here)
    }

    /// Whether a session is here.
    pub fn holds(&self, id: i32) -> bool {
        matches!(self.own.get(&id), Some(Own::Here(_)))
            || matches!(self.guests.get(&id), Some(Guest::Here(_)))
    }

    /// The core to which this one, its home, has sent a session.
    pub fn lent_to(&self, id: i32) -> Option<CoreId> {
        match self.own.get(&id) {
            Some(Own::Away { core, .. }) => Some(*core),
            _ => None,
        }
    }

    /// Whether anybody waits for a session here.
    pub fn is_waiting(&self) -> bool {
        let own = |own: &Own<W>| matches!(own, Own::Away { waiting, .. } if !waiting.is_empty());
        let guest = |guest: &Guest<W>| matches!(guest, Guest::Asked(_));
        self.own.values().any(own) || self.guests.values().any(guest)
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Resolves a request to the partitions it reads. None: its session is elsewhere, and
    /// the answer to `who` is among [`FetchSessions::take_answers`] once it has come.
    ///
    /// Errors: FETCH_SESSION_ID_NOT_FOUND, and those of [`Session::go_on`].
    pub fn begin(
        &mut self,
        request: SessionRequest,
        now: Nanos,
        rng: &mut Rng,
        who: impl FnOnce() -> W,
    ) -> Option<Result<Begun, ErrorCode>> {
        let id = request.session_id;
        if self.waits(&request) {
            self.wait(id, request, who());
            None
        } else {
            Some(self.resolve(request, now, rng))
        }
    }

    /// Decides for each partition of the answer whether it is sent, and remembers what
    /// was. `outcomes` stand in the order of [`Begun::partitions`].
    pub fn respond(&mut self, begun: &Begun, outcomes: &[FetchOutcome]) -> SmallVec<[bool; 16]> {
        assert_eq!(begun.partitions.len(), outcomes.len());
        match self.here(begun.session_id) {
            Some(session) => session.respond(begun, outcomes),
            // It was closed or has moved on: everything is told.
            None => SmallVec::from_elem(true, outcomes.len()),
        }
    }

    /// Another core's message. Those from one core are to be given in their order.
    pub fn on_message(&mut self, from: CoreId, message: SessionMessage, now: Nanos, rng: &mut Rng) {
        let SessionMessage { id, what } = message;
        match what {
            What::Want => self.on_want(id, from, now),
            What::Return(session) => self.on_return(id, from, session, now, rng),
            What::Close => self.end_own(id, Some(from), now, rng),
            What::Used { partitions } => self.on_used(id, from, partitions, now),
            What::Grant(session) => self.on_answer(id, Some(session), now, rng),
            What::Absent => self.on_answer(id, None, now, rng),
            What::Recall => {
                // If it isn't here any more, a Close is on its way to the home.
                if let Some(session) = self.take_guest(id) {
                    self.send(from, id, What::Return(session));
                }
            }
            What::Drop => drop(self.take_guest(id)),
        }
    }

    /// What is to be sent to other cores, in this order.
    pub fn take_messages(&mut self) -> Vec<(CoreId, SessionMessage)> {
        std::mem::take(&mut self.messages)
    }

    /// Answers to requests that have waited, in the order in which they were resolved.
    pub fn take_answers(&mut self) -> Vec<(W, Result<Begun, ErrorCode>)> {
        std::mem::take(&mut self.answers)
    }

    /// Whether a request has to wait for its session. One that ends a session doesn't bring
    /// it here, but doesn't overtake either.
    fn waits(&self, request: &SessionRequest) -> bool {
        let id = request.session_id;
        if id <= 0 {
            return false;
        }
        if self.home(id) == self.core {
            matches!(self.own.get(&id), Some(Own::Away { waiting, .. })
                if request.continues_session() || !waiting.is_empty())
        } else {
            match self.guests.get(&id) {
                Some(Guest::Here(_)) => false,
                Some(Guest::Asked(_)) => true,
                None => request.continues_session(),
            }
        }
    }

    fn wait(&mut self, id: i32, request: SessionRequest, who: W) {
        let home = self.home(id);
        if home == self.core {
            self.wait_at_home(id, Waiting::Request(request, who));
            return;
        }
        match self.guests.get_mut(&id) {
            Some(Guest::Asked(requests)) => requests.push_back((request, who)),
            Some(Guest::Here(_)) => unreachable!("nobody waits for what is here"),
            None => {
                let requests = VecDeque::from([(request, who)]);
                self.guests.insert(id, Guest::Asked(requests));
                self.send(home, id, What::Want);
            }
        }
    }

    /// Stands in line for a session that is away.
    fn wait_at_home(&mut self, id: i32, who: Waiting<W>) {
        let Some(Own::Away { core, waiting, .. }) = self.own.get_mut(&id) else {
            unreachable!("nobody waits for what is here, or nowhere");
        };
        let core = *core;
        let is_first = waiting.is_empty();
        waiting.push_back(who);
        if is_first {
            self.send(core, id, What::Recall);
        }
    }

    fn on_want(&mut self, id: i32, from: CoreId, now: Nanos) {
        match self.own.remove(&id) {
            None => self.send(from, id, What::Absent),
            Some(Own::Here(session)) => self.grant(id, from, session, VecDeque::new(), now),
            Some(away) => {
                self.own.insert(id, away);
                self.wait_at_home(id, Waiting::Core(from));
            }
        }
    }

    /// Sends a session to a core, and asks it back at once if others wait.
    fn grant(
        &mut self,
        id: i32,
        to: CoreId,
        session: Box<Session>,
        waiting: VecDeque<Waiting<W>>,
        now: Nanos,
    ) {
        let recall = !waiting.is_empty();
        let away = Own::Away {
            core: to,
            worth: Worth {
                last_used: now,
                ..session.worth()
            },
            waiting,
        };
        self.own.insert(id, away);
        self.send(to, id, What::Grant(session));
        if recall {
            self.send(to, id, What::Recall);
        }
    }

    fn on_return(
        &mut self,
        id: i32,
        from: CoreId,
        session: Box<Session>,
        now: Nanos,
        rng: &mut Rng,
    ) {
        match self.own.remove(&id) {
            Some(Own::Away { core, waiting, .. }) if core == from => {
                self.own.insert(id, Own::Here(session));
                self.serve_line(id, waiting, now, rng);
            }
            // It was closed while it was on its way: it ends here.
            Some(other) => drop(self.own.insert(id, other)),
            None => {}
        }
    }

    /// Serves those who have waited: for a session that has come, or that is no more.
    fn serve_line(
        &mut self,
        id: i32,
        mut waiting: VecDeque<Waiting<W>>,
        now: Nanos,
        rng: &mut Rng,
    ) {
        while let Some(next) = waiting.pop_front() {
            match next {
                Waiting::Request(request, who) => {
                    let answer = self.resolve(request, now, rng);
                    self.answers.push((who, answer));
                }
                Waiting::Core(core) => match self.own.remove(&id) {
                    Some(Own::Here(session)) => {
                        self.grant(id, core, session, waiting, now);
                        return;
                    }
                    Some(Own::Away { .. }) => unreachable!("it has just come"),
                    None => self.send(core, id, What::Absent),
                },
            }
        }
    }

    /// The home has answered: here is the session, or there is none.
    fn on_answer(&mut self, id: i32, session: Option<Box<Session>>, now: Nanos, rng: &mut Rng) {
        let Some(Guest::Asked(requests)) = self.guests.remove(&id) else {
            unreachable!("the home answers what it was asked");
        };
        if let Some(mut session) = session {
            session.on_home_told(now);
            self.guests.insert(id, Guest::Here(session));
        }
        for (request, who) in requests {
            let answer = self.resolve(request, now, rng);
            self.answers.push((who, answer));
        }
    }

    /// A session of this core is in use elsewhere.
    fn on_used(&mut self, id: i32, from: CoreId, partitions: usize, now: Nanos) {
        if let Some(Own::Away { core, worth, .. }) = self.own.get_mut(&id)
            && *core == from
        {
            worth.partitions = partitions;
            worth.last_used = now;
        }
    }

    fn take_guest(&mut self, id: i32) -> Option<Box<Session>> {
        match self.guests.remove(&id)? {
            Guest::Here(session) => Some(session),
            asked => {
                self.guests.insert(id, asked);
                None
            }
        }
    }

    /// Resolves a request with the sessions that are here.
    fn resolve(
        &mut self,
        request: SessionRequest,
        now: Nanos,
        rng: &mut Rng,
    ) -> Result<Begun, ErrorCode> {
        let id = request.session_id;
        if !request.continues_session() {
            self.end(id, now, rng);
            let opens = request.session_epoch != FINAL_EPOCH && !request.partitions.is_empty();
            let session_id = if opens {
                self.open(&request, now, rng)
            } else {
                0
            };
            return Ok(Begun {
                session_id,
                ..Begun::full(request.partitions)
            });
        }
        let home = self.home(id);
        let is_guest = home != self.core;
        let session = self.here(id).ok_or(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)?;
        session.go_on(request, now)?;
        if session.is_empty() {
            self.end(id, now, rng);
            return Ok(Begun::full(Specs::new()));
        }
        let begun = session.begun(id);
        let used = is_guest.then(|| session.use_to_tell(now)).flatten();
        if let Some(partitions) = used {
            self.send(home, id, What::Used { partitions });
        }
        Ok(begun)
    }

    /// Ends a session for a client of this core, wherever it is.
    fn end(&mut self, id: i32, now: Nanos, rng: &mut Rng) {
        if id <= 0 {
            return;
        }
        let home = self.home(id);
        if home == self.core {
            self.end_own(id, None, now, rng);
        } else {
            drop(self.take_guest(id));
            self.send(home, id, What::Close);
        }
    }

    /// Ends a session whose home is here; `by` has it no more, if it had it.
    fn end_own(&mut self, id: i32, by: Option<CoreId>, now: Nanos, rng: &mut Rng) {
        if let Some(Own::Away { core, waiting, .. }) = self.own.remove(&id) {
            if by != Some(core) {
                self.send(core, id, What::Drop);
            }
            self.serve_line(id, waiting, now, rng);
        }
    }

    fn send(&mut self, to: CoreId, id: i32, what: What) {
        self.messages.push((to, SessionMessage { id, what }));
    }

    fn here(&mut self, id: i32) -> Option<&mut Session> {
        if let Some(Own::Here(session)) = self.own.get_mut(&id) {
            return Some(session);
        }
        match self.guests.get_mut(&id) {
            Some(Guest::Here(session)) => Some(session),
            _ => None,
        }
    }

    fn home(&self, id: i32) -> CoreId {
        let home = id.rem_euclid(i32::from(self.cores));
        CoreId(u16::try_from(home).expect("a remainder by a 16-bit number"))
    }

    /// Opens a session and returns its id, or 0 when there is no room.
    fn open(&mut self, request: &SessionRequest, now: Nanos, rng: &mut Rng) -> i32 {
        if !self.make_room(request, now, rng) {
            return 0;
        }
        let id = self.fresh_id(rng);
        let session = Box::new(Session::open(request, now));
        self.own.insert(id, Own::Here(session));
        id
    }

    /// A positive id of this core that is not in use.
    fn fresh_id(&self, rng: &mut Rng) -> i32 {
        let cores = u64::from(self.cores);
        let slots = (i32::MAX as u64) / cores;
        loop {
            let id = rng.below(slots) * cores + u64::from(self.core.0);
            let id = i32::try_from(id).expect("below slots * cores, which fits");
            if id > 0 && !self.own.contains_key(&id) {
                return id;
            }
        }
    }

    /// Evicts one session if need be: the one unused longest when that is over two
    /// minutes, else a smaller or consumer's session that is itself old enough.
    fn make_room(&mut self, request: &SessionRequest, now: Nanos, rng: &mut Rng) -> bool {
        if self.own.len() < self.capacity {
            return true;
        }
        let asked = (request.from_follower, request.partitions.len());
        let value = |worth: &Worth| (worth.from_follower, worth.partitions);
        let victim = self
            .own
            .iter()
            .filter_map(|(id, own)| Some((*id, own.worth()?)))
            .filter(|(_, s)| {
                let stale = now.saturating_since(s.last_used) > EVICTION_AGE_MIN;
                let old = now.saturating_since(s.created) > EVICTION_AGE_MIN;
                stale || (request.from_follower && !s.from_follower) || (old && value(s) < asked)
            })
            .min_by_key(|(id, s)| (s.last_used, value(s), *id))
            .map(|(id, _)| id);
        match victim {
            Some(id) => {
                self.end_own(id, None, now, rng);
                true
            }
            None => false,
        }
    }
}

impl<W> Own<W> {
    /// None while somebody waits for it: then it is in use.
    fn worth(&self) -> Option<Worth> {
        match self {
            Own::Here(session) => Some(session.worth()),
            Own::Away { worth, waiting, .. } => waiting.is_empty().then_some(*worth),
        }
    }
}

// Every order of messages is tried in `tests/fetch_session_moves.rs`.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::PartitionIndex;
    use crate::shard::fetch_session::{FetchKey, FetchSpec, FetchTopic};

    const HOME: CoreId = CoreId(0);
    const OTHER: CoreId = CoreId(1);
    /// When a session that was opened at the start may be evicted.
    const LATER: Nanos = Nanos(EVICTION_AGE_MIN.as_nanos() as u64 + 2);

    fn request(id: i32, epoch: i32, partitions: i32) -> SessionRequest {
        let spec = |partition| FetchSpec {
            key: FetchKey {
                topic: FetchTopic::Name("t".into()),
                partition: PartitionIndex(partition),
            },
            current_leader_epoch: -1,
            fetch_offset: 0,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: 1 << 20,
        };
        SessionRequest {
            session_id: id,
            session_epoch: epoch,
            by_id: false,
            from_follower: false,
            partitions: (0..partitions).map(spec).collect(),
            forgotten: Vec::new(),
        }
    }

    /// Two cores, and their messages at once at the other.
    struct Pair {
        tables: [FetchSessions<()>; 2],
        rng: Rng,
        now: Nanos,
    }

    impl Pair {
        fn new() -> Pair {
            Pair {
                tables: [HOME, OTHER].map(|core| FetchSessions::new(1, core, 2)),
                rng: Rng::new(1),
                now: Nanos(0),
            }
        }

        fn begin(&mut self, core: CoreId, request: SessionRequest) -> Result<Begun, ErrorCode> {
            let table = &mut self.tables[core.index()];
            let begun = table.begin(request, self.now, &mut self.rng, || ());
            while self.exchange() {}
            let waited = self.tables[core.index()].take_answers();
            begun
                .or(waited.into_iter().next().map(|(_, begun)| begun))
                .expect("it is answered")
        }

        fn exchange(&mut self) -> bool {
            let mut moved = false;
            for core in [HOME, OTHER] {
                for (to, message) in self.tables[core.index()].take_messages() {
                    let to = &mut self.tables[to.index()];
                    to.on_message(core, message, self.now, &mut self.rng);
                    moved = true;
                }
            }
            moved
        }

        fn open(&mut self, core: CoreId, partitions: i32) -> i32 {
            let begun = self.begin(core, request(0, 0, partitions));
            let begun = begun.expect("a full request is served");
            assert!(!begun.incremental);
            begun.session_id
        }
    }

    #[test]
    fn a_session_is_used_anywhere_and_counted_at_home() {
        let mut pair = Pair::new();
        let id = pair.open(HOME, 1);
        assert_eq!(id % 2, 0);
        for (epoch, core) in (1..).zip([OTHER, OTHER, HOME, OTHER]) {
            let begun = pair.begin(core, request(id, epoch, 0)).unwrap();
            assert_eq!((begun.session_id, begun.incremental), (id, true));
            assert!(pair.tables[core.index()].holds(id));
        }
        assert_eq!(pair.open(HOME, 1), 0, "it has its slot at home");
        assert_ne!(pair.open(OTHER, 1), 0, "and none elsewhere");
        assert_eq!(
            pair.begin(HOME, request(id + 2, 1, 0)),
            Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)
        );
        assert_eq!(
            pair.begin(HOME, request(id, 9, 0)),
            Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH)
        );
    }

    #[test]
    fn a_session_that_is_away_ends_there() {
        let mut pair = Pair::new();
        for closer in [HOME, OTHER] {
            let id = pair.open(HOME, 1);
            pair.begin(OTHER, request(id, 1, 0)).unwrap();
            let closed = pair.begin(closer, request(id, FINAL_EPOCH, 0));
            assert_eq!(closed.unwrap().session_id, 0);
            assert!(pair.tables.iter().all(|table| table.own_count() == 0));
            assert!(!pair.tables[1].holds(id));
        }
        // So it does when its last partition is forgotten.
        let id = pair.open(HOME, 1);
        let mut forget = request(id, 1, 1);
        forget.forgotten = vec![forget.partitions.remove(0).key];
        assert_eq!(pair.begin(OTHER, forget).unwrap().session_id, 0);
        assert_eq!(pair.tables[0].own_count(), 0);
    }

    #[test]
    fn a_full_cache_evicts_only_stale_or_less_valuable_sessions() {
        let mut pair = Pair::new();
        let first = pair.open(HOME, 1);
        assert_ne!(first, 0);
        assert_eq!(pair.open(HOME, 2), 0, "the first is new");
        pair.now = LATER;
        let second = pair.open(HOME, 1);
        assert_ne!(second, 0);
        assert_eq!(pair.tables[0].own_count(), 1);
        assert!(pair.begin(HOME, request(first, 1, 0)).is_err());
        let mut follower = request(0, 0, 1);
        follower.from_follower = true;
        let begun = pair.begin(HOME, follower).unwrap();
        assert_ne!(begun.session_id, 0, "a follower's is worth more");
        assert!(pair.begin(HOME, request(second, 1, 0)).is_err());
    }

    #[test]
    fn use_elsewhere_keeps_a_session_from_being_evicted() {
        let mut pair = Pair::new();
        let id = pair.open(HOME, 1);
        pair.begin(OTHER, request(id, 1, 0)).unwrap();
        pair.now = LATER;
        pair.begin(OTHER, request(id, 2, 0)).unwrap();
        assert_eq!(pair.open(HOME, 1), 0);
        // Unused for as long again, it makes room, and is dropped where it is.
        pair.now = Nanos(2 * LATER.0 + 1);
        assert_ne!(pair.open(HOME, 1), 0);
        assert!(!pair.tables[1].holds(id));
        assert_eq!(
            pair.begin(OTHER, request(id, 3, 0)),
            Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)
        );
    }
}
