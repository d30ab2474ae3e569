//! Which partitions a fetcher asks its leader for, and its side of the fetch session
//! (KIP-227): a full request names all of them, later ones what has changed.
//!
//! Pure. Used by `fetcher::run`, which sends what [`Roster::plan`] says and gives the
//! answers to their owners.
//!
//! ```text
//!   tell / take ─▶ dirty ─▶ plan ─▶ request n ─▶ answered ─▶ the owner ─▶ take
//!                    ▲
//!   delayed ─────────┘ when their time has come
//! ```
//! Two requests may be under way. What the second one asks anew of a partition, the answer
//! to the first doesn't tell: [`Sent::request`].
//!
//! Invariants: a partition is in the leader's session exactly if it has a [`Sent`]; what is
//! due and not in the session as it should be is in `dirty` or `delayed`.

use std::collections::{BTreeMap, BTreeSet};

use super::parts::Followed;
use crate::base::{CoreId, Nanos, TopicIdPartition};
use crate::replica::follower::{FetchPosition, Next, Ticket};

/// Epoch of a session's first request, which names everything.
const FULL_EPOCH: i32 = 0;

#[derive(Debug, Default)]
pub struct Roster {
    entries: BTreeMap<TopicIdPartition, Entry>,
    dirty: BTreeSet<TopicIdPartition>,
    delayed: BTreeSet<(Nanos, TopicIdPartition)>,
    /// Entries that wait for their disk.
    awaiting_disk: usize,
    /// Entries that want to know where the leader's log begins and ends.
    asking_offsets: BTreeSet<TopicIdPartition>,
    session: Session,
    /// Number of the last request.
    requests: u64,
    /// The partition with which the last full request began.
    first: Option<TopicIdPartition>,
}

#[derive(Debug, Default)]
struct Session {
    /// 0: none.
    id: i32,
    epoch: i32,
    /// Partitions that have a [`Sent`].
    partitions: usize,
    /// The leader has answered a full request and gave no session.
    is_refused: bool,
}

#[derive(Debug)]
struct Entry {
    owner: CoreId,
    ticket: Ticket,
    next: Next,
    sent: Option<Sent>,
    /// It isn't followed any more, but is still in the session.
    is_gone: bool,
}

/// What the session has of a partition.
#[derive(Debug)]
struct Sent {
    position: FetchPosition,
    /// Of the newest question with this position.
    ticket: Ticket,
    /// Number of the request that told it.
    request: u64,
}

/// A fetch that is to be sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    pub request: u64,
    pub session_id: i32,
    pub session_epoch: i32,
    /// Neighbours are of the same topic where they can be.
    pub partitions: Vec<(TopicIdPartition, FetchPosition)>,
    pub forgotten: Vec<TopicIdPartition>,
    /// It makes a session: the leader needn't wait for records.
    pub opens_session: bool,
}

impl Roster {
    /// Nobody is to be asked for.
    pub fn is_empty(&self) -> bool {
        self.entries.values().all(|entry| entry.is_gone)
    }

    /// Takes what the owner of a partition has sent on its own account.
    pub fn tell(&mut self, owner: CoreId, followed: &Followed) {
        match (self.entries.get_mut(&followed.partition), followed.next) {
            (Some(_), Next::Metadata) => self.remove(followed.partition),
            (None, Next::Metadata) => {}
            (Some(entry), _) => {
                if followed.ticket > entry.ticket {
                    entry.owner = owner;
                    entry.is_gone = false;
                    self.set(followed);
                }
            }
            (None, _) => {
                let entry = Entry {
                    owner,
                    ticket: followed.ticket,
                    next: Next::Metadata,
                    sent: None,
                    is_gone: false,
                };
                self.entries.insert(followed.partition, entry);
                self.set(followed);
            }
        }
    }

    /// Takes what an owner has replied to an answer: only of what is followed, if it is news.
    pub fn take(&mut self, followed: &Followed) {
        let entry = self.entries.get(&followed.partition);
        let Some(entry) = entry.filter(|entry| !entry.is_gone) else {
            return;
        };
        if followed.next == Next::Metadata {
            if followed.ticket >= entry.ticket {
                self.remove(followed.partition);
            }
        } else if followed.ticket > entry.ticket {
            self.set(followed);
        }
    }

    /// What is to be sent now, if anything is to be asked.
    pub fn plan(&mut self, now: Nanos) -> Option<Plan> {
        self.move_due(now);
        let is_full = self.session.epoch == FULL_EPOCH;
        let request = self.requests + 1;
        let (partitions, forgotten) = match is_full {
            true => (self.plan_all(request, now), Vec::new()),
            false => self.plan_changes(request, now),
        };
        if self.session.partitions == 0 {
            // An empty session would end with the request; the next one closes it instead.
            self.session.epoch = FULL_EPOCH;
            return None;
        }
        self.requests = request;
        let plan = Plan {
            request,
            session_id: self.session.id,
            session_epoch: self.session.epoch,
            partitions,
            forgotten,
            opens_session: is_full && !self.session.is_refused,
        };
        if !is_full {
            self.session.epoch = self.session.epoch.checked_add(1).unwrap_or(1);
        }
        Some(plan)
    }

    /// Whether there is something to ask that the session doesn't have yet.
    pub fn has_news(&mut self, now: Nanos) -> bool {
        self.move_due(now);
        self.session.epoch != FULL_EPOCH
            && self.dirty.iter().any(|id| {
                let entry = self.entries.get(id);
                entry.is_some_and(|entry| {
                    let position = entry.ready(now);
                    position.is_some() && position != entry.sent.as_ref().map(|sent| sent.position)
                })
            })
    }

    /// When something is to be asked that must wait for its time.
    pub fn next_at(&self) -> Option<Nanos> {
        self.delayed.first().map(|(at, _)| *at)
    }

    pub fn awaits_disk(&self) -> bool {
        self.awaiting_disk > 0
    }

    /// Those whose leader is to be asked now where its log begins and ends.
    pub fn offsets_due(&mut self, now: Nanos) -> Vec<(TopicIdPartition, Ticket)> {
        self.move_due(now);
        let asking = self.asking_offsets.iter();
        let due = asking.filter_map(|id| {
            let entry = self.entries.get(id)?;
            let Next::Offsets { not_before, .. } = entry.next else {
                return None;
            };
            (not_before <= now).then_some((*id, entry.ticket))
        });
        due.collect()
    }

    /// The owner of a partition and the question that an answer to a request is to, if it
    /// counts.
    pub fn answered(&self, id: TopicIdPartition, request: u64) -> Option<(CoreId, Ticket)> {
        let entry = self.entries.get(&id).filter(|entry| !entry.is_gone)?;
        let sent = entry.sent.as_ref()?;
        (sent.request <= request).then_some((entry.owner, sent.ticket))
    }

    /// The owner of a partition that is followed.
    pub fn owner(&self, id: TopicIdPartition) -> Option<CoreId> {
        let entry = self.entries.get(&id).filter(|entry| !entry.is_gone)?;
        Some(entry.owner)
    }

    /// A request has been answered as a whole, by this session id.
    pub fn on_response(&mut self, opened_session: bool, session_id: i32) {
        if !opened_session {
            return;
        }
        self.session.is_refused = session_id == 0;
        self.session.id = session_id;
        self.session.epoch = if session_id == 0 { FULL_EPOCH } else { 1 };
    }

    /// The leader doesn't have the session as we have it: the next request is full.
    pub fn reset_session(&mut self) {
        self.session = Session {
            id: self.session.id,
            ..Session::default()
        };
        for entry in self.entries.values_mut() {
            entry.sent = None;
        }
        self.entries.retain(|_, entry| !entry.is_gone);
    }

    /// The connection is gone, or another one is begun.
    pub fn reset_connection(&mut self) {
        self.reset_session();
        self.session.id = 0;
    }

    fn set(&mut self, followed: &Followed) {
        let id = followed.partition;
        self.unset(id);
        let entry = self.entries.get_mut(&id).expect("it is there");
        entry.ticket = followed.ticket;
        entry.next = followed.next;
        match followed.next {
            Next::Disk => self.awaiting_disk += 1,
            Next::Offsets { not_before, .. } => {
                self.asking_offsets.insert(id);
                self.delayed.insert((not_before, id));
            }
            Next::Fetch { not_before, .. } if not_before > Nanos(0) => {
                self.delayed.insert((not_before, id));
            }
            Next::Fetch { .. } | Next::Metadata => {}
        }
        self.dirty.insert(id);
    }

    /// Takes an entry out of what its question has put it into.
    fn unset(&mut self, id: TopicIdPartition) {
        let entry = &self.entries[&id];
        match entry.next {
            Next::Disk => self.awaiting_disk -= 1,
            Next::Offsets { not_before, .. } => {
                self.asking_offsets.remove(&id);
                self.delayed.remove(&(not_before, id));
            }
            Next::Fetch { not_before, .. } => {
                self.delayed.remove(&(not_before, id));
            }
            Next::Metadata => {}
        }
    }

    fn remove(&mut self, id: TopicIdPartition) {
        self.unset(id);
        let entry = self.entries.get_mut(&id).expect("it is there");
        entry.next = Next::Metadata;
        if entry.sent.is_some() {
            entry.is_gone = true;
            self.dirty.insert(id);
        } else {
            self.entries.remove(&id);
            self.dirty.remove(&id);
        }
    }

    fn move_due(&mut self, now: Nanos) {
        while let Some((at, id)) = self.delayed.first().copied()
            && at <= now
        {
            self.delayed.pop_first();
            self.dirty.insert(id);
        }
    }

    /// Everything that may be asked now, beginning with another one each time.
    fn plan_all(&mut self, request: u64, now: Nanos) -> Vec<(TopicIdPartition, FetchPosition)> {
        self.dirty.clear();
        self.entries.retain(|_, entry| !entry.is_gone);
        let mut all = Vec::new();
        for (id, entry) in &mut self.entries {
            entry.sent = entry.ready(now).map(|position| {
                all.push((*id, position));
                Sent {
                    position,
                    ticket: entry.ticket,
                    request,
                }
            });
        }
        self.session.partitions = all.len();
        let last = self.first;
        let turn = all.partition_point(|(id, _)| last.is_some_and(|last| *id <= last));
        if turn < all.len() {
            all.rotate_left(turn);
        }
        self.first = all.first().map(|(id, _)| *id);
        all
    }

    fn plan_changes(
        &mut self,
        request: u64,
        now: Nanos,
    ) -> (
        Vec<(TopicIdPartition, FetchPosition)>,
        Vec<TopicIdPartition>,
    ) {
        let (mut changed, mut forgotten) = (Vec::new(), Vec::new());
        for id in std::mem::take(&mut self.dirty) {
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            match (entry.ready(now), &mut entry.sent) {
                (Some(position), Some(sent)) if sent.position == position => {
                    sent.ticket = entry.ticket;
                }
                (Some(position), sent) => {
                    self.session.partitions += usize::from(sent.is_none());
                    *sent = Some(Sent {
                        position,
                        ticket: entry.ticket,
                        request,
                    });
                    changed.push((id, position));
                }
                (None, sent) => {
                    if sent.take().is_some() {
                        self.session.partitions -= 1;
                        forgotten.push(id);
                    }
                    if entry.is_gone {
                        self.entries.remove(&id);
                    }
                }
            }
        }
        (changed, forgotten)
    }
}

impl Entry {
    /// From where to fetch now.
    fn ready(&self, now: Nanos) -> Option<FetchPosition> {
        match self.next {
            Next::Fetch {
                position,
                not_before,
            } if not_before <= now && !self.is_gone => Some(position),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{LeaderEpoch, Offset, PartitionIndex, Uuid};

    const OWNER: CoreId = CoreId(1);

    fn id(index: i32) -> TopicIdPartition {
        TopicIdPartition {
            topic_id: Uuid([1; 16]),
            partition: PartitionIndex(index),
        }
    }

    fn position(offset: i64) -> FetchPosition {
        FetchPosition {
            current_leader_epoch: LeaderEpoch(1),
            fetch_offset: Offset(offset),
            last_fetched_epoch: LeaderEpoch(1),
            log_start_offset: Offset(0),
        }
    }

    fn asks(index: i32, number: u64, offset: i64, not_before: u64) -> Followed {
        wants(
            index,
            number,
            Next::Fetch {
                position: position(offset),
                not_before: Nanos(not_before),
            },
        )
    }

    fn wants(index: i32, number: u64, next: Next) -> Followed {
        Followed {
            partition: id(index),
            ticket: Ticket {
                leader_epoch: LeaderEpoch(1),
                number,
            },
            next,
        }
    }

    fn asked(plan: &Plan) -> Vec<(i32, i64)> {
        let asked = plan.partitions.iter();
        asked
            .map(|(id, position)| (id.partition.0, position.fetch_offset.0))
            .collect()
    }

    /// A roster with a session of these partitions, all of them at 0.
    fn in_session(count: i32) -> Roster {
        let mut roster = Roster::default();
        for index in 0..count {
            roster.tell(OWNER, &asks(index, 1, 0, 0));
        }
        let plan = roster.plan(Nanos(0)).unwrap();
        assert!(plan.opens_session);
        assert_eq!((plan.session_id, plan.session_epoch), (0, 0));
        assert_eq!(plan.partitions.len(), count as usize);
        roster.on_response(true, 77);
        roster
    }

    #[test]
    fn a_session_is_told_only_what_has_changed() {
        let mut roster = in_session(3);
        roster.take(&asks(1, 2, 10, 0));
        // Its high watermark only: the position is the same, the question is not.
        roster.take(&asks(2, 2, 0, 0));
        let plan = roster.plan(Nanos(0)).unwrap();
        assert_eq!((plan.session_id, plan.session_epoch), (77, 1));
        assert_eq!(asked(&plan), [(1, 10)]);
        assert!(plan.forgotten.is_empty() && !plan.opens_session);
        let number = |roster: &Roster, index| roster.answered(id(index), plan.request).unwrap().1;
        assert_eq!(number(&roster, 0).number, 1);
        assert_eq!(number(&roster, 2).number, 2);
        roster.on_response(false, 77);
        let plan = roster.plan(Nanos(0)).unwrap();
        assert_eq!(plan.session_epoch, 2);
        assert_eq!(asked(&plan), []);
    }

    #[test]
    fn who_waits_is_forgotten_and_comes_again() {
        let mut roster = in_session(3);
        roster.take(&asks(0, 2, 0, 500));
        roster.take(&wants(1, 2, Next::Disk));
        assert_eq!(roster.next_at(), Some(Nanos(500)));
        assert!(roster.awaits_disk());
        let plan = roster.plan(Nanos(100)).unwrap();
        assert_eq!(plan.forgotten, [id(0), id(1)]);
        assert_eq!(roster.answered(id(0), plan.request), None);
        assert!(!roster.has_news(Nanos(499)));
        roster.tell(OWNER, &asks(1, 3, 8, 0));
        assert!(!roster.awaits_disk());
        assert!(roster.has_news(Nanos(499)), "its disk has it");
        let plan = roster.plan(Nanos(500)).unwrap();
        assert_eq!(asked(&plan), [(0, 0), (1, 8)]);
        assert_eq!(roster.next_at(), None);
    }

    #[test]
    fn an_answer_from_before_a_change_does_not_count() {
        let mut roster = in_session(2);
        let first = roster.plan(Nanos(0)).unwrap();
        roster.tell(OWNER, &asks(1, 5, 30, 0));
        assert!(roster.has_news(Nanos(0)));
        let second = roster.plan(Nanos(0)).unwrap();
        assert_eq!(asked(&second), [(1, 30)]);
        assert!(roster.answered(id(0), first.request).is_some());
        assert_eq!(roster.answered(id(1), first.request), None);
        assert_eq!(roster.answered(id(1), second.request).unwrap().1.number, 5);
    }

    #[test]
    fn replies_bring_nobody_back_and_nothing_older() {
        let mut roster = in_session(2);
        roster.take(&asks(0, 9, 50, 0));
        roster.take(&asks(0, 8, 40, 0));
        roster.tell(OWNER, &asks(0, 7, 30, 0));
        let plan = roster.plan(Nanos(0)).unwrap();
        assert_eq!(asked(&plan), [(0, 50)]);
        // Older than what is known, but it ends.
        roster.tell(OWNER, &wants(0, 1, Next::Metadata));
        roster.take(&asks(0, 10, 60, 0));
        assert_eq!(roster.answered(id(0), plan.request), None);
        let plan = roster.plan(Nanos(0)).unwrap();
        assert_eq!((asked(&plan), plan.forgotten), (vec![], vec![id(0)]));
        roster.take(&asks(0, 11, 60, 0));
        roster.take(&wants(1, 0, Next::Metadata));
        assert!(!roster.is_empty(), "an older word doesn't end it");
        roster.take(&wants(1, 1, Next::Metadata));
        assert!(roster.is_empty());
        // The last one ends the session, of which the next full request tells.
        assert_eq!(roster.plan(Nanos(0)), None);
        roster.tell(OWNER, &asks(0, 1, 5, 0));
        let plan = roster.plan(Nanos(0)).unwrap();
        assert_eq!((plan.session_id, plan.session_epoch), (77, 0));
        assert_eq!(asked(&plan), [(0, 5)]);
    }

    #[test]
    fn who_comes_back_before_the_session_has_forgotten_it_is_in_it() {
        let mut roster = in_session(2);
        roster.tell(OWNER, &wants(0, 1, Next::Metadata));
        roster.tell(OWNER, &asks(0, 2, 0, 0));
        let plan = roster.plan(Nanos(0)).unwrap();
        assert!(plan.forgotten.is_empty() && plan.partitions.is_empty());
        assert_eq!(roster.answered(id(0), plan.request).unwrap().1.number, 2);
    }

    #[test]
    fn a_lost_session_is_opened_anew_with_everything() {
        let mut roster = in_session(3);
        roster.take(&asks(2, 2, 20, 0));
        roster.plan(Nanos(0)).unwrap();
        roster.tell(OWNER, &wants(1, 1, Next::Metadata));
        roster.reset_session();
        assert_eq!(roster.answered(id(0), 99), None);
        let plan = roster.plan(Nanos(0)).unwrap();
        assert!(plan.opens_session);
        assert_eq!((plan.session_id, plan.session_epoch), (77, 0));
        // Another one is the first this time.
        assert_eq!(asked(&plan), [(2, 20), (0, 0)]);
        roster.reset_connection();
        assert_eq!(roster.plan(Nanos(0)).unwrap().session_id, 0);
    }

    #[test]
    fn without_a_session_each_request_is_full() {
        let mut roster = in_session(2);
        roster.reset_session();
        assert!(roster.plan(Nanos(0)).unwrap().opens_session);
        roster.on_response(true, 0);
        for _ in 0..2 {
            let plan = roster.plan(Nanos(0)).unwrap();
            assert_eq!((plan.session_id, plan.session_epoch), (0, 0));
            assert_eq!(plan.partitions.len(), 2);
            assert!(!plan.opens_session, "the leader may wait");
            roster.on_response(false, 0);
        }
    }

    #[test]
    fn offsets_are_asked_for_apart() {
        let mut roster = in_session(2);
        let next = Next::Offsets {
            current_leader_epoch: LeaderEpoch(1),
            not_before: Nanos(10),
        };
        let wanted = wants(1, 2, next);
        roster.take(&wanted);
        assert_eq!(roster.offsets_due(Nanos(9)), []);
        assert_eq!(roster.offsets_due(Nanos(10)), [(id(1), wanted.ticket)]);
        assert_eq!(roster.owner(id(1)), Some(OWNER));
        let plan = roster.plan(Nanos(10)).unwrap();
        assert_eq!(plan.forgotten, [id(1)]);
        roster.take(&asks(1, 3, 7, 0));
        assert_eq!(roster.offsets_due(Nanos(10)), []);
        assert_eq!(asked(&roster.plan(Nanos(10)).unwrap()), [(1, 7)]);
    }
}
