//! A follower's side of one partition, as a pure state machine: what to ask the leader next,
//! and what its answer means for the log here.
//!
//! Called by `shard::partition::follower`, which owns the log and does what a [`Step`] says;
//! `shard::fetcher` carries questions to the leader and its answers back.
//!
//! ```text
//!            DivergingEpoch: truncate, ask again
//!           ┌──────────┐
//!           ▼          │         OFFSET_OUT_OF_RANGE
//!   ──▶ Fetching ──────┴───────────────────────────▶ OutOfRange: where does the leader's
//!        │   ▲ ▲                                       log begin and end?
//!        │   │ └───────── restarted or truncated ◀─────┘
//!        │   └── another error: the same after a pause, which doubles
//!        └─────▶ Fenced: the leader's term is over, the metadata will tell of the next
//! ```
//! A fetch offset says that everything below is here, and under fsync on stable storage: what
//! is appended and not durable is waited for ([`Next::Disk`]) before the next fetch.
//!
//! Invariants:
//! - an answer counts once, and only to the newest question ([`Ticket`]);
//! - nothing is truncated that the leader has (given that an epoch's records were written by
//!   one leader): the end is cut to what both have of the last epoch that both know (KIP-101,
//!   KIP-279, KIP-595);
//! - the log restarts only where the leader's begins, which is at or below what is committed,
//!   and only when it ends before that.

use std::time::Duration;

use crate::base::{BrokerId, ErrorCode, LeaderEpoch, Nanos, Offset};

/// The first pause after an error. It doubles up to `replica.fetch.backoff.ms`.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// Names a question, so that its answer can be told from those to earlier ones. Later ones
/// are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    pub leader_epoch: LeaderEpoch,
    pub number: u64,
}

/// What one partition's part of a Fetch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPosition {
    pub current_leader_epoch: LeaderEpoch,
    pub fetch_offset: Offset,
    /// Epoch of the last record here; -1 without any.
    pub last_fetched_epoch: LeaderEpoch,
    pub log_start_offset: Offset,
}

/// What to ask the leader next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A fetch, but not before a moment.
    Fetch {
        position: FetchPosition,
        not_before: Nanos,
    },
    /// Where its log begins and ends.
    Offsets {
        current_leader_epoch: LeaderEpoch,
        not_before: Nanos,
    },
    /// Nothing before the disk has what was written here.
    Disk,
    /// Nothing before the metadata says something new.
    Metadata,
}

/// What the leader says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Records, perhaps none, and how far it is.
    Data {
        high_watermark: Offset,
        log_start_offset: Offset,
    },
    /// The largest epoch that it has up to the last one here, and where that ends.
    Diverging {
        epoch: LeaderEpoch,
        end_offset: Offset,
    },
    Offsets {
        log_start_offset: Offset,
        log_end_offset: Offset,
    },
    Refused(ErrorCode),
}

/// The log here, as far as a follower goes by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalLog {
    pub log_start_offset: Offset,
    pub log_end_offset: Offset,
    /// Up to where this replica may say that it has the records: the durable end under fsync,
    /// else the log end.
    pub stable_end: Offset,
    /// The largest epoch known here; -1 without any.
    pub last_epoch: LeaderEpoch,
}

/// What is to be done to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// Append the records, then take over how far the leader is. The outcome is to be told:
    /// [`Follower::on_appended`] or [`Follower::on_refused`].
    Append {
        high_watermark: Offset,
        log_start_offset: Offset,
    },
    /// Cut everything from an offset on.
    Truncate { to: Offset },
    /// Drop everything; the log goes on where the leader's begins.
    Restart { at: Offset },
}

/// Why records weren't appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// They are damaged, or don't follow what is here: they are fetched again.
    Bad,
    /// The log takes nothing at the moment.
    NotNow,
}

#[derive(Debug)]
pub struct Follower {
    leader: BrokerId,
    leader_epoch: LeaderEpoch,
    state: State,
    /// Number of the newest question.
    number: u64,
    /// The newest question waits for an answer.
    is_asked: bool,
    /// Nothing is asked before.
    not_before: Nanos,
    /// Answers in a row that were of no use.
    failures: u32,
    /// Where this log ended when it was last told to have diverged, until records come.
    diverged_at: Option<(LeaderEpoch, Offset)>,
    /// Records of the leader were bad since any were good.
    has_bad_records: bool,
    /// Nothing is fetched until the recovery point is in its file (see [`Follower::hold`]).
    is_held: bool,
    awaits_disk: bool,
    leader_high_watermark: Offset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fetching,
    OutOfRange,
    Fenced,
}

impl Follower {
    /// Begins to follow a leader in a term of its.
    pub fn new(leader: BrokerId, leader_epoch: LeaderEpoch) -> Follower {
        Follower {
            leader,
            leader_epoch,
            state: State::Fetching,
            number: 0,
            is_asked: false,
            not_before: Nanos(0),
            failures: 0,
            diverged_at: None,
            has_bad_records: false,
            is_held: false,
            awaits_disk: false,
            leader_high_watermark: Offset(0),
        }
    }

    pub fn leader(&self) -> BrokerId {
        self.leader
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// As the leader has told it last; it may lie beyond the log here.
    pub fn leader_high_watermark(&self) -> Offset {
        self.leader_high_watermark
    }

    /// Whether the last records that came were bad.
    pub fn has_bad_records(&self) -> bool {
        self.has_bad_records
    }

    /// Whether the newest question is [`Next::Disk`].
    pub fn awaits_disk(&self) -> bool {
        self.awaits_disk
    }

    /// Fetches nothing until [`Follower::release`]: a truncation has gone below the recovery
    /// point in its file, by which a recovery would take new records there for synced ones.
    pub fn hold(&mut self) {
        self.is_held = true;
    }

    pub fn release(&mut self) {
        self.is_held = false;
    }

    /// The next question. Answers to earlier ones count no more.
    pub fn next(&mut self, log: &LocalLog) -> (Ticket, Next) {
        self.number += 1;
        let next = match self.state {
            State::Fenced => Next::Metadata,
            State::OutOfRange => Next::Offsets {
                current_leader_epoch: self.leader_epoch,
                not_before: self.not_before,
            },
            State::Fetching if self.is_held || log.stable_end < log.log_end_offset => Next::Disk,
            State::Fetching => Next::Fetch {
                position: FetchPosition {
                    current_leader_epoch: self.leader_epoch,
                    fetch_offset: log.log_end_offset,
                    last_fetched_epoch: log.last_epoch,
                    log_start_offset: log.log_start_offset,
                },
                not_before: self.not_before,
            },
        };
        self.is_asked = matches!(next, Next::Fetch { .. } | Next::Offsets { .. });
        self.awaits_disk = next == Next::Disk;
        let ticket = Ticket {
            leader_epoch: self.leader_epoch,
            number: self.number,
        };
        (ticket, next)
    }

    /// Takes an answer. `end_of_epoch` gives the largest epoch up to one that this log has and
    /// where it ends; `pause_max` is `replica.fetch.backoff.ms`.
    pub fn on_answer(
        &mut self,
        ticket: Ticket,
        answer: &Answer,
        log: &LocalLog,
        end_of_epoch: impl FnOnce(LeaderEpoch) -> Option<(LeaderEpoch, Offset)>,
        now: Nanos,
        pause_max: Duration,
    ) -> Step {
        let is_newest = (ticket.leader_epoch, ticket.number) == (self.leader_epoch, self.number);
        if !is_newest || !std::mem::take(&mut self.is_asked) {
            return Step::Nothing;
        }
        match (*answer, self.state) {
            (
                Answer::Data {
                    high_watermark,
                    log_start_offset,
                },
                State::Fetching,
            ) => Step::Append {
                high_watermark,
                log_start_offset,
            },
            (Answer::Diverging { epoch, end_offset }, State::Fetching) => {
                let at = (log.last_epoch, log.log_end_offset);
                if self.diverged_at.is_some_and(|before| at >= before) {
                    // The last truncation was of no use: the leader may be changing.
                    self.pause(now, pause_max);
                }
                self.diverged_at = Some(at);
                Step::Truncate {
                    to: common_end(epoch, end_offset, log, end_of_epoch(epoch)),
                }
            }
            (
                Answer::Offsets {
                    log_start_offset,
                    log_end_offset,
                },
                State::OutOfRange,
            ) => self.on_offsets(log_start_offset, log_end_offset, log, now, pause_max),
            (Answer::Refused(error), _) => {
                self.on_error(error, now, pause_max);
                Step::Nothing
            }
            // An answer to what wasn't asked.
            (_, State::Fetching | State::OutOfRange | State::Fenced) => {
                self.pause(now, pause_max);
                Step::Nothing
            }
        }
    }

    /// The leader's records, if there were any, are in the log.
    pub fn on_appended(&mut self, high_watermark: Offset) {
        self.failures = 0;
        self.diverged_at = None;
        self.has_bad_records = false;
        self.leader_high_watermark = high_watermark;
    }

    /// They aren't, and are asked for again after a pause. True where that has not been so
    /// before.
    pub fn on_refused(&mut self, refusal: Refusal, now: Nanos, pause_max: Duration) -> bool {
        self.pause(now, pause_max);
        match refusal {
            Refusal::Bad => !std::mem::replace(&mut self.has_bad_records, true),
            Refusal::NotNow => self.failures == 1,
        }
    }

    /// Nothing below the leader's start can be fetched, and nothing beyond its end is the
    /// leader's: an unclean election, or records that were deleted.
    fn on_offsets(
        &mut self,
        leader_start: Offset,
        leader_end: Offset,
        log: &LocalLog,
        now: Nanos,
        pause_max: Duration,
    ) -> Step {
        self.state = State::Fetching;
        if leader_start < Offset(0) || leader_end < leader_start {
            self.pause(now, pause_max);
            return Step::Nothing;
        }
        if log.log_end_offset < leader_start {
            return Step::Restart { at: leader_start };
        }
        if log.log_end_offset > leader_end {
            return Step::Truncate { to: leader_end };
        }
        // It is in range now, or the leader doesn't know the last epoch here.
        self.pause(now, pause_max);
        Step::Nothing
    }

    fn on_error(&mut self, error: ErrorCode, now: Nanos, pause_max: Duration) {
        match error {
            ErrorCode::FENCED_LEADER_EPOCH => self.state = State::Fenced,
            ErrorCode::OFFSET_OUT_OF_RANGE if self.state == State::Fetching => {
                self.state = State::OutOfRange;
            }
            // NOT_LEADER_OR_FOLLOWER and UNKNOWN_LEADER_EPOCH: one of the two has yet to hear
            // of the term. UNKNOWN_TOPIC_ID likewise of the topic. KAFKA_STORAGE_ERROR and
            // CORRUPT_MESSAGE: the leader's disk; the metadata may name another leader.
            _ => self.pause(now, pause_max),
        }
    }

    fn pause(&mut self, now: Nanos, pause_max: Duration) {
        let doubled = PAUSE_MIN.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + doubled.min(pause_max);
    }
}

/// Up to where both logs are the same, as far as the leader's answer tells: of its largest
/// epoch up to the last one here, what both have; else this log's part up to that epoch, and
/// the next answer says more.
fn common_end(
    epoch: LeaderEpoch,
    end_offset: Offset,
    log: &LocalLog,
    here: Option<(LeaderEpoch, Offset)>,
) -> Offset {
    let end = match here {
        Some((same, end_here)) if same == epoch => end_here.min(end_offset),
        Some((_, end_here)) => end_here,
        None => end_offset,
    };
    end.min(log.log_end_offset).max(Offset(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEADER: BrokerId = BrokerId(2);
    const PAUSE_MAX: Duration = Duration::from_millis(1_000);

    fn log(end: i64, last_epoch: i32) -> LocalLog {
        LocalLog {
            log_start_offset: Offset(0),
            log_end_offset: Offset(end),
            stable_end: Offset(end),
            last_epoch: LeaderEpoch(last_epoch),
        }
    }

    fn data(high_watermark: i64) -> Answer {
        Answer::Data {
            high_watermark: Offset(high_watermark),
            log_start_offset: Offset(0),
        }
    }

    fn answer(follower: &mut Follower, log: &LocalLog, answer: Answer, now: u64) -> Step {
        let (ticket, _) = follower.next(log);
        follower.on_answer(ticket, &answer, log, |_| None, Nanos(now), PAUSE_MAX)
    }

    fn not_before(follower: &mut Follower, log: &LocalLog) -> u64 {
        match follower.next(log).1 {
            Next::Fetch { not_before, .. } | Next::Offsets { not_before, .. } => not_before.0,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_asks_from_the_log_end_in_the_leaders_term() {
        let mut follower = Follower::new(LEADER, LeaderEpoch(7));
        let (ticket, next) = follower.next(&log(40, 6));
        assert_eq!(ticket.leader_epoch, LeaderEpoch(7));
        assert_eq!(
            next,
            Next::Fetch {
                position: FetchPosition {
                    current_leader_epoch: LeaderEpoch(7),
                    fetch_offset: Offset(40),
                    last_fetched_epoch: LeaderEpoch(6),
                    log_start_offset: Offset(0),
                },
                not_before: Nanos(0),
            }
        );
    }

    #[test]
    fn what_is_not_durable_is_waited_for() {
        let mut follower = Follower::new(LEADER, LeaderEpoch(7));
        let unstable = LocalLog {
            stable_end: Offset(30),
            ..log(40, 6)
        };
        assert_eq!(follower.next(&unstable).1, Next::Disk);
        assert!(follower.awaits_disk());
        assert!(matches!(follower.next(&log(40, 6)).1, Next::Fetch { .. }));
        follower.hold();
        assert_eq!(follower.next(&log(40, 6)).1, Next::Disk);
        follower.release();
        assert!(matches!(follower.next(&log(40, 6)).1, Next::Fetch { .. }));
        assert!(!follower.awaits_disk());
    }

    #[test]
    fn only_the_newest_question_is_answered_and_once() {
        let mut follower = Follower::new(LEADER, LeaderEpoch(7));
        let here = log(40, 6);
        let take = |follower: &mut Follower, ticket| {
            follower.on_answer(ticket, &data(40), &here, |_| None, Nanos(0), PAUSE_MAX)
        };
        let (first, _) = follower.next(&here);
        let (second, _) = follower.next(&here);
        assert!(second > first);
        assert_eq!(take(&mut follower, first), Step::Nothing);
        assert!(matches!(take(&mut follower, second), Step::Append { .. }));
        assert_eq!(take(&mut follower, second), Step::Nothing);
        let mut later = Follower::new(LEADER, LeaderEpoch(8));
        later.next(&here);
        assert_eq!(take(&mut later, first), Step::Nothing, "of another term");
    }

    #[test]
    fn pauses_double_up_to_the_configured_one_and_end_with_success() {
        let mut follower = Follower::new(LEADER, LeaderEpoch(7));
        let here = log(40, 6);
        let refused = Answer::Refused(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert_eq!(answer(&mut follower, &here, refused, 0), Step::Nothing);
            pauses.push(not_before(&mut follower, &here) / 1_000_000);
        }
        assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1_000, 1_000]);
        answer(&mut follower, &here, data(40), 0);
        follower.on_appended(Offset(40));
        answer(&mut follower, &here, refused, 0);
        assert_eq!(not_before(&mut follower, &here), 20_000_000);
    }

    #[test]
    fn a_fenced_follower_waits_for_the_metadata() {
        let mut follower = Follower::new(LEADER, LeaderEpoch(7));
        let here = log(40, 6);
        let fenced = Answer::Refused(ErrorCode::FENCED_LEADER_EPOCH);
        assert_eq!(answer(&mut follower, &here, fenced, 0), Step::Nothing);
        assert_eq!(follower.next(&here).1, Next::Metadata);
    }

    #[test]
    fn bad_records_mark_it_until_good_ones_come() {
        let mut follower = Follower::new(LEADER, LeaderEpoch(7));
        let here = log(40, 6);
        answer(&mut follower, &here, data(50), 0);
        assert!(follower.on_refused(Refusal::Bad, Nanos(5), PAUSE_MAX));
        assert!(follower.has_bad_records());
        assert_eq!(not_before(&mut follower, &here), 20_000_005);
        answer(&mut follower, &here, data(50), 0);
        assert!(!follower.on_refused(Refusal::Bad, Nanos(0), PAUSE_MAX));
        answer(&mut follower, &here, data(50), 0);
        follower.on_appended(Offset(50));
        assert!(!follower.has_bad_records());
        assert_eq!(follower.leader_high_watermark(), Offset(50));
    }

    #[test]
    fn out_of_range_restarts_where_the_leader_begins_or_cuts_to_its_end() {
        let out_of_range = Answer::Refused(ErrorCode::OFFSET_OUT_OF_RANGE);
        let offsets = |start, end| Answer::Offsets {
            log_start_offset: Offset(start),
            log_end_offset: Offset(end),
        };
        for (asked, expected) in [
            (offsets(60, 90), Step::Restart { at: Offset(60) }),
            (offsets(10, 30), Step::Truncate { to: Offset(30) }),
            (offsets(10, 40), Step::Nothing),
            (offsets(-1, -1), Step::Nothing),
        ] {
            let mut follower = Follower::new(LEADER, LeaderEpoch(7));
            let here = log(40, 6);
            assert_eq!(answer(&mut follower, &here, out_of_range, 0), Step::Nothing);
            let (ticket, next) = follower.next(&here);
            assert!(matches!(next, Next::Offsets { .. }), "{next:?}");
            let step = follower.on_answer(ticket, &asked, &here, |_| None, Nanos(0), PAUSE_MAX);
            assert_eq!(step, expected);
            let pause = not_before(&mut follower, &here);
            assert_eq!(pause > 0, expected == Step::Nothing, "{asked:?}");
        }
    }

    #[test]
    fn a_truncation_of_no_use_makes_it_pause() {
        let mut follower = Follower::new(LEADER, LeaderEpoch(7));
        let here = log(40, 6);
        let diverging = Answer::Diverging {
            epoch: LeaderEpoch(5),
            end_offset: Offset(40),
        };
        for expected in [0, 20_000_000] {
            assert_eq!(
                answer(&mut follower, &here, diverging, 0),
                Step::Truncate { to: Offset(40) }
            );
            assert_eq!(not_before(&mut follower, &here), expected);
        }
    }

    /// Records by their epoch and a number of their own, and the epochs as a log's cache has
    /// them: also those without records.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Model {
        records: Vec<(i32, u64)>,
        epochs: Vec<(i32, usize)>,
    }

    impl Model {
        fn start_epoch(&mut self, epoch: i32, at: usize) {
            while self.epochs.last().is_some_and(|last| last.1 >= at) {
                self.epochs.pop();
            }
            self.epochs.push((epoch, at));
        }

        fn append(&mut self, record: (i32, u64)) {
            if self.epochs.last().is_none_or(|last| last.0 < record.0) {
                self.start_epoch(record.0, self.records.len());
            }
            self.records.push(record);
        }

        fn truncate(&mut self, to: usize) {
            self.records.truncate(to);
            let end = self.records.len();
            self.epochs.retain(|(_, start)| *start < end);
        }

        fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
            let last = self.epochs.last()?;
            let offset = |at: usize| Offset(at as i64);
            if last.0 == epoch.0 {
                return Some((epoch, offset(self.records.len())));
            }
            let higher = self.epochs.partition_point(|(known, _)| *known <= epoch.0);
            let end = offset(self.epochs.get(higher)?.1);
            let floor = higher
                .checked_sub(1)
                .map_or(epoch.0, |at| self.epochs[at].0);
            Some((LeaderEpoch(floor), end))
        }

        fn view(&self) -> LocalLog {
            log(
                self.records.len() as i64,
                self.epochs.last().map_or(-1, |last| last.0),
            )
        }

        /// The leader's answer to a fetch.
        fn answer(&self, position: &FetchPosition) -> Answer {
            let asked = position.last_fetched_epoch;
            if asked != LeaderEpoch::UNKNOWN {
                match self.end_of_epoch(asked) {
                    None => return Answer::Refused(ErrorCode::OFFSET_OUT_OF_RANGE),
                    Some((epoch, end)) if epoch < asked || end < position.fetch_offset => {
                        return Answer::Diverging {
                            epoch,
                            end_offset: end,
                        };
                    }
                    Some(_) => {}
                }
            }
            if position.fetch_offset.0 > self.records.len() as i64 {
                return Answer::Refused(ErrorCode::OFFSET_OUT_OF_RANGE);
            }
            data(self.records.len() as i64)
        }

        /// One question to the leader and what comes of it, with at most `most` records.
        fn fetch(&mut self, follower: &mut Follower, leader: &Model, most: usize) {
            let here = self.view();
            let (ticket, next) = follower.next(&here);
            let (given, from) = match next {
                Next::Fetch { position, .. } => {
                    (leader.answer(&position), position.fetch_offset.0 as usize)
                }
                Next::Offsets { .. } => (
                    Answer::Offsets {
                        log_start_offset: Offset(0),
                        log_end_offset: Offset(leader.records.len() as i64),
                    },
                    0,
                ),
                Next::Disk | Next::Metadata => return,
            };
            let end_of_epoch = |epoch| self.end_of_epoch(epoch);
            let step = follower.on_answer(ticket, &given, &here, end_of_epoch, Nanos(0), PAUSE_MAX);
            match step {
                Step::Append { high_watermark, .. } => {
                    for record in leader.records.iter().skip(from).take(most) {
                        self.append(*record);
                    }
                    follower.on_appended(high_watermark);
                }
                Step::Truncate { to } => {
                    let common = self.common(leader);
                    assert!(
                        to.0 as usize >= common,
                        "cut to {to}, where {common} are the same: {self:?} {leader:?}"
                    );
                    self.truncate(to.0 as usize);
                }
                Step::Restart { .. } => panic!("the leader's log begins at 0"),
                Step::Nothing => {}
            }
        }

        fn common(&self, other: &Model) -> usize {
            let pairs = self.records.iter().zip(&other.records);
            pairs.take_while(|(a, b)| a == b).count()
        }
    }

    #[derive(Clone, Debug)]
    enum Event {
        /// A replica begins a term, whatever it has, and appends so many records.
        Lead(usize, usize),
        /// A replica follows the leader for so many fetches of so many records.
        Follow(usize, usize, usize),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let lead = (0usize..3, 0usize..5).prop_map(|(who, count)| Event::Lead(who, count));
        let follow = (0usize..3, 1usize..5, 1usize..4)
            .prop_map(|(who, fetches, most)| Event::Follow(who, fetches, most));
        proptest::collection::vec(prop_oneof![1 => lead, 3 => follow], 1..40)
    }

    proptest! {
        /// Whatever leaders came and went, a follower cuts nothing that its leader has, and
        /// ends with the leader's log.
        #[test]
        fn followers_end_with_the_leaders_log(events in events()) {
            let mut logs = [Model::default(), Model::default(), Model::default()];
            let mut term = None;
            let mut number = 0;
            for event in events {
                match event {
                    Event::Lead(who, count) => {
                        let epoch = term.map_or(0, |(epoch, _)| epoch + 1);
                        term = Some((epoch, who));
                        let at = logs[who].records.len();
                        logs[who].start_epoch(epoch, at);
                        for _ in 0..count {
                            number += 1;
                            logs[who].append((epoch, number));
                        }
                    }
                    Event::Follow(who, fetches, most) => {
                        let Some((epoch, leader)) = term.filter(|(_, leader)| *leader != who)
                        else {
                            continue;
                        };
                        let leader = logs[leader].clone();
                        let mut follower = Follower::new(LEADER, LeaderEpoch(epoch));
                        for _ in 0..fetches {
                            logs[who].fetch(&mut follower, &leader, most);
                        }
                    }
                }
            }
            let Some((epoch, leader)) = term else { return Ok(()) };
            let leader = logs[leader].clone();
            for log in &mut logs {
                let mut follower = Follower::new(LEADER, LeaderEpoch(epoch));
                // At most one truncation for each term, and one record each time.
                let fetches = 2 * (epoch as usize + 2) + leader.records.len() + 2;
                for _ in 0..fetches {
                    log.fetch(&mut follower, &leader, 1);
                }
                prop_assert_eq!(&log.records, &leader.records);
            }
        }
    }
}
