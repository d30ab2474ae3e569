//! Fetch sessions between cores: every order in which messages and requests can meet, for
//! small worlds; and long random histories of larger ones. No clock, no threads: the table
//! of each core is a value, and between each two cores there is a line of messages.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use ottla::base::{CoreId, ErrorCode, Nanos, PartitionIndex, Rng};
use ottla::shard::fetch_session::{Begun, FetchKey, FetchSpec, FetchTopic, SessionRequest};
use ottla::shard::session_table::{FetchSessions, SessionMessage, What};

const CORES: u16 = 3;
/// Over the age at which an unused session may be evicted.
const LONG: u64 = 200_000_000_000;

/// What a client does with a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Goes on with it; the epoch may turn out to be another's.
    Use,
    Close,
    /// Closes it and opens another in its place.
    Reopen,
    /// At the home, long after: opens one where there is room for one only.
    Evict,
}

#[derive(Clone, Debug)]
struct Asked {
    core: u16,
    /// 0: it names none.
    id: i32,
    step: Step,
}

/// All cores and what is between them.
#[derive(Clone, Debug)]
struct World {
    tables: Vec<FetchSessions<usize>>,
    /// By sender and receiver; none is empty.
    lines: BTreeMap<(u16, u16), VecDeque<SessionMessage>>,
    asked: Vec<Asked>,
    answers: BTreeMap<usize, Result<Begun, ErrorCode>>,
    /// Some client or home has ended the session, or may have.
    may_be_gone: bool,
    rng: Rng,
    now: Nanos,
}

fn request(id: i32, epoch: i32) -> SessionRequest {
    let spec = FetchSpec {
        key: FetchKey {
            topic: FetchTopic::Name("t".into()),
            partition: PartitionIndex(0),
        },
        current_leader_epoch: -1,
        fetch_offset: 0,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        partition_max_bytes: 1,
    };
    SessionRequest {
        session_id: id,
        session_epoch: epoch,
        by_id: false,
        from_follower: false,
        // Only requests that go on leave the partitions as they are.
        partitions: (epoch == 0).then_some(spec).into_iter().collect(),
        forgotten: Vec::new(),
    }
}

impl World {
    fn new(cores: u16, capacity: usize) -> World {
        World {
            tables: (0..cores)
                .map(|core| FetchSessions::new(capacity, CoreId(core), cores))
                .collect(),
            lines: BTreeMap::new(),
            asked: Vec::new(),
            answers: BTreeMap::new(),
            may_be_gone: false,
            rng: Rng::new(7),
            now: Nanos(0),
        }
    }

    /// Opens a session; 0 if there was no room.
    fn open(&mut self, core: u16) -> i32 {
        let begun =
            self.tables[usize::from(core)].begin(request(0, 0), self.now, &mut self.rng, || {
                unreachable!("opening doesn't wait")
            });
        self.carry_out(core);
        begun.unwrap().unwrap().session_id
    }

    fn step(&mut self, core: u16, id: i32, step: Step, epoch: i32) {
        let request = match step {
            Step::Use => request(id, epoch),
            Step::Close => request(id, -1),
            Step::Reopen => request(id, 0),
            Step::Evict => {
                self.now.0 += LONG;
                request(0, 0)
            }
        };
        self.may_be_gone |= step != Step::Use;
        let number = self.asked.len();
        let id = request.session_id;
        self.asked.push(Asked { core, id, step });
        let table = &mut self.tables[usize::from(core)];
        let begun = table.begin(request, self.now, &mut self.rng, || number);
        if let Some(begun) = begun {
            self.answer(number, begun);
        }
        self.carry_out(core);
    }

    fn deliver(&mut self, from: u16, to: u16) {
        let line = self.lines.get_mut(&(from, to)).unwrap();
        let message = line.pop_front().unwrap();
        if line.is_empty() {
            self.lines.remove(&(from, to));
        }
        self.tables[usize::from(to)].on_message(CoreId(from), message, self.now, &mut self.rng);
        self.carry_out(to);
    }

    fn carry_out(&mut self, core: u16) {
        let table = &mut self.tables[usize::from(core)];
        for (to, message) in table.take_messages() {
            assert_ne!(to.0, core, "nothing is sent to oneself: {message:?}");
            self.lines
                .entry((core, to.0))
                .or_default()
                .push_back(message);
        }
        let table = &mut self.tables[usize::from(core)];
        for (number, answer) in table.take_answers() {
            self.answer(number, answer);
        }
    }

    fn answer(&mut self, number: usize, answer: Result<Begun, ErrorCode>) {
        if let Err(error) = answer {
            let asked = &self.asked[number];
            assert_eq!(asked.step, Step::Use, "ending a session is never refused");
            match error {
                ErrorCode::INVALID_FETCH_SESSION_EPOCH => {}
                ErrorCode::FETCH_SESSION_ID_NOT_FOUND => assert!(self.may_be_gone, "{asked:?}"),
                other => panic!("{other:?} for {asked:?}"),
            }
        }
        let Asked { core, id, .. } = self.asked[number];
        let earlier = self.asked[..number].iter().enumerate();
        for (earlier, asked) in earlier.filter(|(_, a)| a.core == core && a.id == id && id > 0) {
            let is_answered = self.answers.contains_key(&earlier);
            assert!(is_answered, "{number} overtakes {earlier}, {asked:?}");
        }
        let before = self.answers.insert(number, answer);
        assert!(before.is_none(), "a request is answered once");
    }

    /// A session is in one place, whatever is under way.
    fn check_places(&self, id: i32) {
        let held = self.tables.iter().filter(|table| table.holds(id)).count();
        let sent = self.lines.values().flatten().filter(|message| {
            message.id == id && matches!(message.what, What::Grant(_) | What::Return(_))
        });
        let places = held + sent.count();
        assert!(
            places == 1 || self.may_be_gone,
            "{id} in {places} places: {self:#?}"
        );
        assert!(held <= 1, "{id} at two cores: {self:#?}");
    }

    /// When nothing is under way: everybody has an answer, nobody waits, and what a guest
    /// holds its home knows of.
    fn check_rest(&self) {
        assert!(self.lines.is_empty());
        for (number, asked) in self.asked.iter().enumerate() {
            assert!(
                self.answers.contains_key(&number),
                "{asked:?} is not answered: {self:#?}"
            );
        }
        for (core, table) in self.tables.iter().enumerate() {
            assert!(!table.is_waiting(), "core {core}: {self:#?}");
            assert!(table.own_count() <= table.capacity(), "core {core}");
            for id in table.guest_ids() {
                let home = &self.tables[id as usize % self.tables.len()];
                assert_eq!(
                    home.lent_to(id),
                    Some(CoreId(core as u16)),
                    "{id}: {self:#?}"
                );
            }
            for id in table.own_ids() {
                if let Some(at) = table.lent_to(id) {
                    assert!(self.tables[at.index()].holds(id), "{id}: {self:#?}");
                }
            }
        }
    }

    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        format!("{self:?}").hash(&mut hasher);
        hasher.finish()
    }
}

/// Tries every order of the clients' steps and of the messages, where only a client's own
/// steps and the messages of a line keep theirs; returns how many states there were.
fn try_all_orders(clients: &[(u16, &[Step])]) -> usize {
    let mut world = World::new(CORES, 1);
    let id = world.open(0);
    assert_ne!(id, 0);
    let mut seen = HashSet::new();
    let mut left = vec![(world, vec![0usize; clients.len()])];
    while let Some((world, done)) = left.pop() {
        let mut key = DefaultHasher::new();
        (world.hash(), &done).hash(&mut key);
        if !seen.insert(key.finish()) {
            continue;
        }
        world.check_places(id);
        let mut is_over = true;
        for (client, (core, steps)) in clients.iter().enumerate() {
            let Some(step) = steps.get(done[client]) else {
                continue;
            };
            is_over = false;
            let (mut next, mut done) = (world.clone(), done.clone());
            done[client] += 1;
            next.step(*core, id, *step, 1);
            left.push((next, done));
        }
        for (from, to) in world.lines.keys() {
            is_over = false;
            let mut next = world.clone();
            next.deliver(*from, *to);
            left.push((next, done.clone()));
        }
        if is_over {
            world.check_rest();
        }
    }
    println!("{} states of {clients:?}", seen.len());
    seen.len()
}

#[test]
fn cores_that_all_want_a_session_have_it_in_turn() {
    use Step::Use;
    assert!(try_all_orders(&[(1, &[Use, Use, Use])]) >= 10);
    assert!(try_all_orders(&[(0, &[Use, Use]), (1, &[Use, Use]), (2, &[Use, Use])]) > 1_000);
    try_all_orders(&[(1, &[Use, Use, Use]), (2, &[Use, Use, Use])]);
}

#[test]
fn a_session_may_be_closed_by_anybody_at_any_moment() {
    use Step::{Close, Use};
    for closer in 0..CORES {
        try_all_orders(&[(closer, &[Use, Close, Use]), (1, &[Use, Use]), (2, &[Use])]);
        try_all_orders(&[(closer, &[Close]), (1, &[Close]), (2, &[Use, Use])]);
    }
}

#[test]
fn a_session_may_be_replaced_or_evicted_at_any_moment() {
    use Step::{Close, Evict, Reopen, Use};
    for core in 0..CORES {
        try_all_orders(&[(core, &[Use, Reopen]), (1, &[Use, Use]), (2, &[Use])]);
        try_all_orders(&[
            (0, &[Evict]),
            (core, &[Use, Close]),
            (1, &[Use]),
            (2, &[Use]),
        ]);
    }
}

/// One random history: sessions are opened, used, closed and evicted on all cores.
fn run_random(seed: u64) {
    const STEPS: usize = 400;
    let mut dice = Rng::new(seed);
    let cores = 2 + dice.below(4) as u16;
    let mut world = World::new(cores, 3);
    world.may_be_gone = true;
    let mut ids = vec![i32::from(cores), 1];
    for _ in 0..STEPS {
        let core = dice.below(u64::from(cores)) as u16;
        let lines: Vec<_> = world.lines.keys().copied().collect();
        match dice.below(10) {
            0 => {
                world.now.0 += dice.below(LONG);
                let id = world.open(core);
                ids.extend((id > 0).then_some(id));
            }
            1..=4 => {
                let id = ids[dice.below(ids.len() as u64) as usize];
                let step = match dice.below(12) {
                    0 => Step::Close,
                    1 => Step::Reopen,
                    _ => Step::Use,
                };
                world.step(core, id, step, 1 + dice.below(3) as i32);
            }
            _ if lines.is_empty() => {}
            _ => {
                let (from, to) = lines[dice.below(lines.len() as u64) as usize];
                world.deliver(from, to);
            }
        }
        for id in &ids {
            world.check_places(*id);
        }
    }
    // Each message brings about few others.
    for _ in 0..50 * STEPS {
        let Some((from, to)) = world.lines.keys().next().copied() else {
            break;
        };
        world.deliver(from, to);
    }
    world.check_rest();
}

#[test]
fn random_histories_of_many_sessions_come_to_rest() {
    for seed in 0..200 {
        println!("seed {seed}");
        run_random(seed);
    }
}
