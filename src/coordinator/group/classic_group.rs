//! What a classic group holds, and the moves on it that keep its counts right. When each is
//! made is decided in the files beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;

use super::state::ClassicGroupState;
use super::subscription;
use super::{Member, Protocol};
use crate::base::{ErrorCode, Millis, Rng};
use crate::coordinator::effects::{Effects, Waiter};
use crate::coordinator::reply;
use crate::wire::messages::JoinGroupResponse;
use crate::wire::messages::group_metadata_value::{GroupMetadataValue, MemberMetadata};

/// The protocol type of consumers.
pub const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

#[derive(Debug)]
pub struct ClassicGroup {
    pub(super) id: Rc<str>,
    state: ClassicGroupState,
    /// What it was before `state`; `None` for a group that was just made or loaded. A group
    /// that prepares its rebalance from Empty waits longer (the initial rebalance).
    previous_state: Option<ClassicGroupState>,
    /// Wall clock at the last change of state; `None` for records too old to tell.
    state_since_ms: Option<Millis>,
    /// Grows by one with each completed join phase.
    pub(super) generation: i32,
    /// Set by the first member, kept when the group gets empty.
    pub(super) protocol_type: Option<String>,
    /// The protocol chosen for this generation: every member offers it in
    /// CompletingRebalance and Stable.
    pub(super) protocol_name: Option<String>,
    /// A member, whenever there are members.
    pub(super) leader: Option<Rc<str>>,
    pub(super) members: BTreeMap<Rc<str>, Member>,
    /// Instance id → member id, for exactly the members with an instance id.
    static_members: BTreeMap<String, Rc<str>>,
    /// Ids given out with MEMBER_ID_REQUIRED; none is a member.
    pending_join: BTreeSet<Rc<str>>,
    /// Members of this generation that have not sent SyncGroup.
    pub(super) pending_sync: BTreeSet<Rc<str>>,
    /// Number of members with a parked JoinGroup.
    awaiting_join_count: usize,
    /// Protocol name → number of members that offer it; no zeros.
    offers: BTreeMap<String, usize>,
    /// Topics of all members' subscriptions; `None` where that isn't known (not consumers,
    /// no protocol chosen, or metadata of another form).
    pub(super) subscribed_topics: Option<BTreeSet<String>>,
    /// During an initial rebalance: a member came since the timer was set.
    pub(super) new_member_added: bool,
    /// What the group's Join timer means.
    pub(super) join_timer: JoinTimer,
}

/// The meaning of a group's Join timer when it goes off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JoinTimer {
    /// The join phase ends.
    Complete,
    /// The initial delay is over; it is extended while members keep coming and rebalance
    /// time is left.
    Initial { delay_ms: i32, remaining_ms: i32 },
}

impl ClassicGroup {
    pub fn new(id: Rc<str>, now_ms: Millis) -> Self {
        ClassicGroup {
            id,
            state: ClassicGroupState::Empty,
            previous_state: None,
            state_since_ms: Some(now_ms),
            generation: 0,
            protocol_type: None,
            protocol_name: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_join: BTreeSet::new(),
            pending_sync: BTreeSet::new(),
            awaiting_join_count: 0,
            offers: BTreeMap::new(),
            subscribed_topics: None,
            new_member_added: false,
            join_timer: JoinTimer::Complete,
        }
    }

    /// The group as a record of it says. A record with two members under one instance id
    /// or id (none of ours) keeps the later one.
    pub fn from_record(id: Rc<str>, value: &GroupMetadataValue) -> Self {
        let mut group = ClassicGroup::new(id, 0);
        group.generation = value.generation;
        group.protocol_type = Some(value.protocol_type.clone()).filter(|t| !t.is_empty());
        group.protocol_name = value.protocol.clone();
        group.leader = value.leader.as_deref().map(Rc::from);
        group.state_since_ms =
            Some(value.current_state_timestamp).filter(|&timestamp| timestamp != -1);
        if !value.members.is_empty() {
            group.state = ClassicGroupState::Stable;
        }
        for member in &value.members {
            group.remove(&member.member_id);
            if let Some(same) = member
                .group_instance_id
                .as_ref()
                .and_then(|instance| group.static_members.get(instance).cloned())
            {
                group.remove(&same);
            }
            let protocol = value.protocol.clone().unwrap_or_default();
            group.add(Member {
                id: member.member_id.as_str().into(),
                instance: member.group_instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout_ms: match member.rebalance_timeout {
                    -1 => member.session_timeout,
                    timeout => timeout,
                },
                session_timeout_ms: member.session_timeout,
                protocols: vec![Protocol {
                    name: protocol,
                    metadata: Bytes::copy_from_slice(&member.subscription),
                }],
                assignment: Bytes::copy_from_slice(&member.assignment),
                awaiting_join: None,
                awaiting_sync: None,
                is_new: false,
            });
        }
        group.repair_leader();
        group.subscribed_topics = group.compute_subscribed_topics();
        group
    }

    /// The record of this group's generation with these assignments (empty where missing).
    pub(super) fn to_record(&self, assignment: impl Fn(&Member) -> Bytes) -> GroupMetadataValue {
        let protocol = self.protocol_name.as_deref();
        GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol_name.clone(),
            leader: self.leader.as_deref().map(str::to_owned),
            current_state_timestamp: self.state_since_ms.unwrap_or(-1),
            members: self
                .members
                .values()
                .map(|member| MemberMetadata {
                    member_id: member.id.to_string(),
                    group_instance_id: member.instance.clone(),
                    client_id: member.client_id.clone(),
                    client_host: member.client_host.clone(),
                    rebalance_timeout: member.rebalance_timeout_ms,
                    session_timeout: member.session_timeout_ms,
                    subscription: self.metadata_of(member, protocol),
                    assignment: assignment(member),
                })
                .collect(),
        }
    }

    /// The record that only says that the group exists.
    pub(crate) fn to_empty_record(&self) -> GroupMetadataValue {
        GroupMetadataValue {
            protocol: None,
            leader: None,
            current_state_timestamp: self.state_since_ms.unwrap_or(-1),
            ..GroupMetadataValue::default()
        }
    }

    pub fn id(&self) -> &Rc<str> {
        &self.id
    }

    pub fn state(&self) -> ClassicGroupState {
        self.state
    }

    pub fn generation(&self) -> i32 {
        self.generation
    }

    pub fn leader(&self) -> Option<&str> {
        self.leader.as_deref()
    }

    pub fn protocol_type(&self) -> Option<&str> {
        self.protocol_type.as_deref()
    }

    pub fn protocol_name(&self) -> Option<&str> {
        self.protocol_name.as_deref()
    }

    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    pub fn member(&self, id: &str) -> Option<&Member> {
        self.members.get(id)
    }

    pub fn state_since_ms(&self) -> Option<Millis> {
        self.state_since_ms
    }

    pub fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    pub fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE)
    }

    /// Whether a member reads the topic, for all that the coordinator knows: a consumer
    /// group whose subscriptions it can't read may read anything.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            None => self.uses_consumer_protocol(),
        }
    }

    pub(super) fn is_initial_rebalance(&self) -> bool {
        self.state == ClassicGroupState::PreparingRebalance
            && self.previous_state == Some(ClassicGroupState::Empty)
    }

    pub(super) fn transition_to(&mut self, next: ClassicGroupState, now_ms: Millis) {
        assert!(
            self.state.may_become(next),
            "group {} cannot become {next:?} from {:?}",
            self.id,
            self.state
        );
        self.previous_state = Some(self.state);
        self.state = next;
        self.state_since_ms = Some(now_ms);
    }

    // ---- members ----

    /// Adds a member whose id, instance id and protocol type were checked.
    pub(super) fn add(&mut self, member: Member) {
        if let Some(instance) = &member.instance {
            let before = self
                .static_members
                .insert(instance.clone(), member.id.clone());
            assert!(before.is_none(), "one member for each instance id");
        }
        self.pending_join.remove(&member.id);
        self.count_offers(&member.protocols, true);
        if member.is_awaiting_join() {
            self.awaiting_join_count += 1;
        }
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        let before = self.members.insert(member.id.clone(), member);
        assert!(before.is_none(), "one member for each id");
    }

    /// Removes whatever goes by that id, member or not yet. A parked request of it must
    /// have been answered.
    pub(super) fn remove(&mut self, id: &str) -> Option<Member> {
        self.pending_join.remove(id);
        self.pending_sync.remove(id);
        let member = self.members.remove(id)?;
        self.count_offers(&member.protocols, false);
        if member.is_awaiting_join() {
            self.awaiting_join_count -= 1;
        }
        if let Some(instance) = &member.instance {
            self.static_members.remove(instance);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    pub(super) fn update_member(
        &mut self,
        id: &str,
        protocols: Vec<Protocol>,
        rebalance_timeout_ms: i32,
        session_timeout_ms: i32,
        awaiting_join: Option<Waiter>,
    ) {
        let member = self.members.get_mut(id).expect("the caller looked it up");
        let before = std::mem::replace(&mut member.protocols, protocols.clone());
        member.rebalance_timeout_ms = rebalance_timeout_ms;
        member.session_timeout_ms = session_timeout_ms;
        self.awaiting_join_count -= usize::from(member.is_awaiting_join());
        member.awaiting_join = awaiting_join;
        self.awaiting_join_count += usize::from(member.is_awaiting_join());
        self.count_offers(&before, false);
        self.count_offers(&protocols, true);
    }

    /// Gives a static member a new id and fences whoever waits under the old one; all else
    /// stays, leadership included. (So does the duty to sync: Kafka leaves that with the old
    /// id, which then forces a rebalance when the time for syncing is up.)
    pub(super) fn replace_static_member(&mut self, old: &str, new: Rc<str>, fx: &mut Effects) {
        self.answer_join(
            old,
            reply::join_group_error(old, ErrorCode::FENCED_INSTANCE_ID),
            fx,
        );
        let mut member = self.members.remove(old).expect("the caller looked it up");
        if let Some(waiter) = member.awaiting_sync.take() {
            fx.reply_sync(
                waiter,
                reply::sync_group_error(ErrorCode::FENCED_INSTANCE_ID),
            );
        }
        if self.is_leader(old) {
            self.leader = Some(new.clone());
        }
        if self.pending_sync.remove(old) {
            self.pending_sync.insert(new.clone());
        }
        let instance = member.instance.clone().expect("it is a static member");
        self.static_members.insert(instance, new.clone());
        member.id = new.clone();
        member.is_new = false;
        self.members.insert(new, member);
    }

    pub(super) fn static_member(&self, instance: &str) -> Option<&Rc<str>> {
        self.static_members.get(instance)
    }

    /// Is this request from the member that it says it comes from?
    pub fn validate_member(&self, id: &str, instance: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance) = instance {
            match self.static_members.get(instance) {
                None => return Err(ErrorCode::UNKNOWN_MEMBER_ID),
                Some(existing) if &**existing != id => return Err(ErrorCode::FENCED_INSTANCE_ID),
                Some(_) => {}
            }
        }
        if self.members.contains_key(id) {
            Ok(())
        } else {
            Err(ErrorCode::UNKNOWN_MEMBER_ID)
        }
    }

    pub(super) fn is_pending(&self, id: &str) -> bool {
        self.pending_join.contains(id)
    }

    pub(super) fn add_pending(&mut self, id: Rc<str>) {
        debug_assert!(!self.members.contains_key(&id));
        self.pending_join.insert(id);
    }

    pub fn pending_join_count(&self) -> usize {
        self.pending_join.len()
    }

    pub(super) fn awaiting_join_count(&self) -> usize {
        self.awaiting_join_count
    }

    /// Everyone known has a parked JoinGroup, and everyone with a given-out id has come.
    pub(super) fn has_all_members_joined(&self) -> bool {
        self.awaiting_join_count == self.members.len() && self.pending_join.is_empty()
    }

    /// The longest that any member asks for.
    pub(super) fn rebalance_timeout_ms(&self) -> i32 {
        self.members
            .values()
            .map(|member| member.rebalance_timeout_ms)
            .fold(0, i32::max)
    }

    /// `<client id or instance id>-<random uuid>`
    pub(super) fn new_member_id(prefix: &str, rng: &mut Rng) -> Rc<str> {
        let mut bytes = [0u8; 16];
        bytes[..8].copy_from_slice(&rng.next_u64().to_be_bytes());
        bytes[8..].copy_from_slice(&rng.next_u64().to_be_bytes());
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let number = u128::from_be_bytes(bytes);
        format!(
            "{prefix}-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            number >> 96,
            (number >> 80) & 0xffff,
            (number >> 64) & 0xffff,
            (number >> 48) & 0xffff,
            number & 0xffff_ffff_ffff,
        )
        .into()
    }

    /// Answers the member's parked JoinGroup, if it has one.
    pub(super) fn answer_join(&mut self, id: &str, response: JoinGroupResponse, fx: &mut Effects) {
        if let Some(waiter) = self
            .members
            .get_mut(id)
            .and_then(|member| member.awaiting_join.take())
        {
            self.awaiting_join_count -= 1;
            fx.reply_join(waiter, response);
        }
    }

    // ---- protocols ----

    /// Could a member with these protocols be part of the group: the type is the group's,
    /// and one protocol is offered by all. Any will do where the group is empty.
    pub(super) fn supports_protocols<'a>(
        &self,
        protocol_type: &str,
        mut names: impl Iterator<Item = &'a str>,
    ) -> bool {
        if self.state == ClassicGroupState::Empty {
            !protocol_type.is_empty() && names.next().is_some()
        } else {
            self.protocol_type.as_deref() == Some(protocol_type)
                && names.any(|name| self.is_offered_by_all(name))
        }
    }

    /// The protocol with the most votes; each member votes for its first that all offer.
    /// Kafka leaves a tie open; here the smaller name wins. `None` if no protocol is
    /// offered by all, or there are no members.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            *votes
                .entry(member.vote(|name| self.is_offered_by_all(name))?)
                .or_default() += 1;
        }
        votes
            .into_iter()
            .rev()
            .max_by_key(|&(_, count)| count)
            .map(|(name, _)| name.to_owned())
    }

    pub(super) fn compute_subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if !self.uses_consumer_protocol() {
            return None;
        }
        let mut topics = BTreeSet::new();
        if !self.members.is_empty() {
            let protocol = self.protocol_name.as_deref()?;
            for member in self.members.values() {
                subscription::add_topics(member.metadata(protocol)?, &mut topics)?;
            }
        }
        Some(topics)
    }

    /// A member's metadata for the group's protocol. Each member offers it once it is
    /// chosen; a loaded record without a protocol has none.
    pub(super) fn metadata_of(&self, member: &Member, protocol: Option<&str>) -> Bytes {
        protocol
            .and_then(|protocol| member.metadata(protocol))
            .cloned()
            .unwrap_or_default()
    }

    fn is_offered_by_all(&self, name: &str) -> bool {
        self.offers.get(name).copied().unwrap_or(0) == self.members.len()
    }

    /// A name listed twice counts once. (Kafka counts it twice, after which the group can
    /// never agree on a protocol again.)
    fn count_offers(&mut self, protocols: &[Protocol], add: bool) {
        for (index, protocol) in protocols.iter().enumerate() {
            if protocols[..index].iter().any(|p| p.name == protocol.name) {
                continue;
            }
            if add {
                *self.offers.entry(protocol.name.clone()).or_default() += 1;
            } else if let Some(count) = self.offers.get_mut(&protocol.name) {
                *count -= 1;
                if *count == 0 {
                    self.offers.remove(&protocol.name);
                }
            }
        }
    }

    /// A leader that is no member, as a record could name one, is replaced.
    fn repair_leader(&mut self) {
        if let Some(leader) = &self.leader
            && !self.members.contains_key(leader)
        {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Panics where the group contradicts itself. Called after each step in tests and
    /// simulation.
    pub fn invariants(&self) {
        use ClassicGroupState::{CompletingRebalance, Empty, PreparingRebalance, Stable};
        let id = &self.id;
        let awaiting = self
            .members
            .values()
            .filter(|member| member.is_awaiting_join())
            .count();
        assert_eq!(awaiting, self.awaiting_join_count, "{id}: parked joins");

        let mut offers: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let names: BTreeSet<&str> = member.protocols.iter().map(|p| p.name.as_str()).collect();
            for name in names {
                *offers.entry(name).or_default() += 1;
            }
        }
        assert!(
            offers.iter().map(|(name, count)| (*name, *count)).eq(self
                .offers
                .iter()
                .map(|(name, count)| (name.as_str(), *count))),
            "{id}: offers"
        );

        let instances: BTreeMap<&str, &str> = self
            .members
            .values()
            .filter_map(|member| Some((member.instance.as_deref()?, &*member.id)))
            .collect();
        assert!(
            instances.into_iter().eq(self
                .static_members
                .iter()
                .map(|(instance, member)| (instance.as_str(), &**member))),
            "{id}: static members"
        );
        assert!(
            self.members.iter().all(|(id, member)| *id == member.id),
            "{id}: member ids"
        );
        assert!(
            self.pending_join
                .iter()
                .all(|m| !self.members.contains_key(m)),
            "{id}: pending members"
        );
        assert!(
            self.pending_sync
                .iter()
                .all(|m| self.members.contains_key(m)),
            "{id}: pending syncs"
        );
        match &self.leader {
            Some(leader) => assert!(self.members.contains_key(leader), "{id}: leader"),
            None => assert!(self.members.is_empty(), "{id}: no leader"),
        }
        match self.state {
            Empty => assert!(self.members.is_empty(), "{id}: empty with members"),
            PreparingRebalance => {}
            CompletingRebalance | Stable => {
                assert!(
                    !self.members.is_empty(),
                    "{id}: {:?} without members",
                    self.state
                );
                if let Some(protocol) = &self.protocol_name {
                    assert!(self.is_offered_by_all(protocol), "{id}: {protocol}");
                }
            }
        }
        if self.state != CompletingRebalance {
            assert!(
                self.members
                    .values()
                    .all(|member| !member.is_awaiting_sync()),
                "{id}: parked syncs in {:?}",
                self.state
            );
        }
    }
}
