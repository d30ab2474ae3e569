//! The synchronous half of the runtime: a shard with its timers, its parked requests and
//! what waits for the high watermark. Everything here runs to its end without an await.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use tracing::debug;

use super::CoordinatorState;
use super::log::CoordinatorLog;
use crate::base::{ErrorCode, Nanos, Offset, ProducerId, Rng};
use crate::coordinator::batch::encode_batches;
use crate::coordinator::effects::{Completion, Effects, Failure, Reply, TimerKey, Waiter};
use crate::coordinator::{CoordinatorConfig, GroupShard, Now, TimerQueue};
use crate::io::local::oneshot;
use crate::wire::messages::{JoinGroupResponse, SyncGroupResponse};

pub(super) struct Core {
    pub state: CoordinatorState,
    pub shard: GroupShard,
    pub timers: TimerQueue,
    log: Rc<dyn CoordinatorLog>,
    config: Rc<CoordinatorConfig>,
    /// End of the log after the last write (or load).
    written: Offset,
    /// In the order of `upto`, and so of their deadlines.
    deferred: VecDeque<Deferred>,
    /// Never iterated.
    parked: HashMap<Waiter, Parked>,
    next_waiter: u64,
    /// When the timers' task looks next.
    timers_look_at: Option<Nanos>,
    /// The commits' task has something to wait for.
    commits_are_awaited: bool,
}

/// An answer, a completion or both that wait until `upto` is committed.
struct Deferred {
    upto: Offset,
    deadline: Nanos,
    completion: Option<Completion>,
    done: Option<oneshot::Sender<Result<(), ErrorCode>>>,
}

pub(super) enum Parked {
    Join(oneshot::Sender<JoinGroupResponse>),
    Sync(oneshot::Sender<SyncGroupResponse>),
}

/// What became of a step that may have written.
pub(super) enum Written {
    /// Everything up to here is committed.
    Committed,
    /// The receiver tells.
    Waiting(oneshot::Receiver<Result<(), ErrorCode>>),
}

impl Core {
    pub fn new(log: Rc<dyn CoordinatorLog>, config: Rc<CoordinatorConfig>, rng: Rng) -> Self {
        Core {
            state: CoordinatorState::Loading,
            shard: GroupShard::new(config.clone(), rng),
            timers: TimerQueue::new(),
            written: log.log_start_offset(),
            log,
            config,
            deferred: VecDeque::new(),
            parked: HashMap::new(),
            next_waiter: 0,
            timers_look_at: None,
            commits_are_awaited: false,
        }
    }

    /// The error of a request while this coordinator isn't active.
    pub fn check_active(&self) -> Result<(), ErrorCode> {
        match self.state {
            CoordinatorState::Active => Ok(()),
            CoordinatorState::Loading => Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS),
            CoordinatorState::Failed | CoordinatorState::Closed => Err(ErrorCode::NOT_COORDINATOR),
        }
    }

    pub fn park(&mut self, parked: Parked) -> Waiter {
        self.next_waiter += 1;
        let waiter = Waiter(self.next_waiter);
        self.parked.insert(waiter, parked);
        waiter
    }

    /// Forgets a parked request whose step failed; `None` if it has been answered.
    pub fn unpark(&mut self, waiter: Waiter) -> Option<Parked> {
        self.parked.remove(&waiter)
    }

    /// Takes a step whose answer waits for the log.
    pub fn step<R>(
        &mut self,
        now: Now,
        op: impl FnOnce(&mut GroupShard, &mut Effects) -> Result<R, ErrorCode>,
    ) -> Result<(R, Written), ErrorCode> {
        self.check_active()?;
        let mut fx = Effects::new();
        let answer = op(&mut self.shard, &mut fx);
        if answer.is_err() {
            debug_assert!(fx.records.is_empty(), "a refused step writes nothing");
        }
        self.carry_out(now, fx)?;
        let answer = answer?;
        if self.written <= self.log.committed() {
            return Ok((answer, Written::Committed));
        }
        let (done, told) = oneshot();
        self.defer(now, None, Some(done));
        Ok((answer, Written::Waiting(told)))
    }

    /// Does what a step asks for and lets go what is committed by now. An error is that of
    /// appending, and the step's completion has then been failed with it.
    pub fn carry_out(&mut self, now: Now, fx: Effects) -> Result<(), ErrorCode> {
        let appended = self.perform(now, fx);
        self.release(now);
        appended
    }

    /// Appends, replays, sets timers and answers.
    fn perform(&mut self, now: Now, mut fx: Effects) -> Result<(), ErrorCode> {
        let completion = fx.completion.take();
        let appended = self.append(now, &fx);
        for op in fx.timers {
            self.timers.apply(op);
        }
        for (waiter, reply) in fx.replies {
            self.reply(waiter, reply);
        }
        match (&appended, completion) {
            (Ok(()), Some(completion)) => self.defer(now, Some(completion), None),
            (Err(error), Some(completion)) => {
                self.fail(now, &completion, Failure::NotAppended(*error));
            }
            (_, None) => {}
        }
        appended
    }

    fn append(&mut self, now: Now, fx: &Effects) -> Result<(), ErrorCode> {
        if fx.records.is_empty() {
            return Ok(());
        }
        let bytes_max = self.log.max_message_bytes();
        let batches = encode_batches(
            &fx.records,
            fx.atomic,
            now.wall_ms,
            bytes_max,
            self.config.compression,
        )?;
        let mut records = fx.records.iter();
        for batch in batches {
            let at = self.log.append(batch.bytes)?;
            assert_eq!(
                at.last - at.first + 1,
                i64::try_from(batch.record_count).unwrap_or(i64::MAX),
                "a batch got as many offsets as it has records"
            );
            assert!(at.first >= self.written, "the log grows");
            self.written = at.last + 1;
            for (index, record) in records.by_ref().take(batch.record_count).enumerate() {
                if fx.replay {
                    let offset = at.first + i64::try_from(index).unwrap_or(i64::MAX);
                    self.shard
                        .replay_record(now.wall_ms, offset, ProducerId::NONE, record);
                }
            }
        }
        Ok(())
    }

    fn reply(&mut self, waiter: Waiter, reply: Reply) {
        // Whoever asked may be gone: then nobody hears it.
        match (self.parked.remove(&waiter), reply) {
            (Some(Parked::Join(sender)), Reply::Join(response)) => drop(sender.send(response)),
            (Some(Parked::Sync(sender)), Reply::Sync(response)) => drop(sender.send(response)),
            (None, _) => debug_assert!(false, "an answer to a request that isn't parked"),
            (Some(_), _) => unreachable!("an answer of another request's kind"),
        }
    }

    fn defer(
        &mut self,
        now: Now,
        completion: Option<Completion>,
        done: Option<oneshot::Sender<Result<(), ErrorCode>>>,
    ) {
        let timeout_ms = u64::try_from(self.config.offset_commit_timeout_ms).unwrap_or(0);
        self.deferred.push_back(Deferred {
            upto: self.written,
            deadline: now.mono + Duration::from_millis(timeout_ms),
            completion,
            done,
        });
    }

    // ---- the high watermark ----

    /// What the log must commit next, and until when; for the task that waits for it.
    pub fn awaited(&mut self) -> Option<(Offset, Nanos)> {
        let awaited = self
            .deferred
            .front()
            .map(|deferred| (deferred.upto, deferred.deadline));
        self.commits_are_awaited = awaited.is_some();
        awaited
    }

    /// Whether something waits for a commit and the task doesn't know. What comes behind
    /// others need not wake it.
    pub fn commits_are_new(&mut self) -> bool {
        let are_new = !self.commits_are_awaited && !self.deferred.is_empty();
        self.commits_are_awaited |= are_new;
        are_new
    }

    /// Lets go what is committed by now.
    pub fn release(&mut self, now: Now) {
        let committed = self.log.committed();
        self.shard.set_committed(committed);
        while let Some(deferred) = self
            .deferred
            .pop_front_if(|deferred| deferred.upto <= committed)
        {
            if let Some(done) = deferred.done {
                let _ = done.send(Ok(()));
            }
            if let Some(completion) = deferred.completion {
                let mut fx = Effects::new();
                self.shard.on_committed(now, &completion, &mut fx);
                self.follow_up(now, fx);
            }
        }
    }

    /// Gives up on what has waited too long: its fate is unknown.
    pub fn expire(&mut self, now: Now) {
        while let Some(deferred) = self
            .deferred
            .pop_front_if(|deferred| deferred.deadline <= now.mono)
        {
            self.give_up(now, deferred, ErrorCode::REQUEST_TIMED_OUT);
        }
    }

    /// Nothing more will be committed here.
    pub fn give_up_all(&mut self, now: Now, error: ErrorCode) {
        for deferred in std::mem::take(&mut self.deferred) {
            self.give_up(now, deferred, error);
        }
    }

    fn give_up(&mut self, now: Now, deferred: Deferred, error: ErrorCode) {
        if let Some(done) = deferred.done {
            let _ = done.send(Err(error));
        }
        if let Some(completion) = deferred.completion {
            self.fail(now, &completion, Failure::NotCommitted(error));
        }
    }

    fn fail(&mut self, now: Now, completion: &Completion, failure: Failure) {
        let mut fx = Effects::new();
        self.shard.on_failed(now, completion, failure, &mut fx);
        self.follow_up(now, fx);
    }

    /// Effects that nobody asked for, of timers and completions. Lets nothing go: that is
    /// what may have led here.
    fn follow_up(&mut self, now: Now, fx: Effects) {
        if let Err(error) = self.perform(now, fx) {
            // The shard was told; members that are hit by it come again.
            debug!(
                ?error,
                "records of a timer or completion could not be appended"
            );
        }
    }

    // ---- timers and life ----

    /// When the timers' task must look next; it is expected to.
    pub fn look_at(&mut self) -> Option<Nanos> {
        self.timers_look_at = self.timers.next_look();
        self.timers_look_at
    }

    /// Whether a timer is due before the task would look.
    pub fn timers_are_earlier(&mut self) -> bool {
        let next = self.timers.next_look();
        let are_earlier = match (next, self.timers_look_at) {
            (Some(next), Some(at)) => next < at,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if are_earlier {
            self.timers_look_at = next;
        }
        are_earlier
    }

    pub fn on_timer(&mut self, now: Now, key: &TimerKey) {
        let mut fx = Effects::new();
        self.shard.on_timer(now, key, &mut fx);
        self.follow_up(now, fx);
        self.release(now);
    }

    pub fn activate(&mut self, now: Now) {
        self.state = CoordinatorState::Active;
        self.written = self.log.log_end_offset();
        self.shard.set_committed(self.log.committed());
        let mut fx = Effects::new();
        self.shard.on_loaded(now, &mut fx);
        self.follow_up(now, fx);
    }

    /// Ends everything that waits and drops the state.
    pub fn close(&mut self, now: Now, state: CoordinatorState) {
        let was_active = self.state == CoordinatorState::Active;
        self.state = state;
        if was_active {
            for deferred in std::mem::take(&mut self.deferred) {
                if let Some(done) = deferred.done {
                    let _ = done.send(Err(ErrorCode::NOT_COORDINATOR));
                }
            }
            let mut fx = Effects::new();
            self.shard.on_unloaded(&mut fx);
            self.follow_up(now, fx);
        }
        self.parked.clear();
        self.timers.clear();
        self.shard = GroupShard::new(self.config.clone(), Rng::new(0));
    }
}
