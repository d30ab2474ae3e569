//! JoinGroup on a classic group. The shard has found or made the group; what is parked here
//! is answered when the join phase is completed (`rebalance`).

use std::rc::Rc;

use bytes::Bytes;
use tracing::info;

use super::state::ClassicGroupState::{CompletingRebalance, Empty, PreparingRebalance, Stable};
use super::{ClassicGroup, Member, Protocol};
use crate::base::{ErrorCode, Rng};
use crate::coordinator::effects::{Completion, StaticReplacement, Waiter};
use crate::coordinator::records::CoordinatorRecord;
use crate::coordinator::{Client, Step, reply};
use crate::wire::messages::JoinGroupRequest;

/// From this version on, a dynamic member first gets an id and joins again with it, so that
/// a client that retries does not leave ghosts behind (KIP-394).
const MEMBER_ID_REQUIRED_FROM: i16 = 4;

/// From this version on, a static leader that only came back under a new id is told that it
/// leads, and that it must not assign anew (KIP-814).
const SKIP_ASSIGNMENT_FROM: i16 = 9;

/// One JoinGroup under way.
pub(crate) struct Join<'a> {
    pub client: &'a Client<'a>,
    pub request: &'a JoinGroupRequest,
    pub version: i16,
    pub waiter: Waiter,
}

impl Join<'_> {
    fn member_id(&self) -> &str {
        &self.request.member_id
    }

    fn instance(&self) -> Option<&str> {
        self.request.group_instance_id.as_deref()
    }

    /// Version 0 has no rebalance time-out of its own.
    fn rebalance_timeout_ms(&self) -> i32 {
        if self.version == 0 {
            self.request.session_timeout_ms
        } else {
            self.request.rebalance_timeout_ms
        }
    }

    fn protocols(&self) -> Vec<Protocol> {
        self.request
            .protocols
            .iter()
            .map(|protocol| Protocol {
                name: protocol.name.clone(),
                metadata: Bytes::copy_from_slice(&protocol.metadata),
            })
            .collect()
    }

    fn matches(&self, member: &Member) -> bool {
        self.request
            .protocols
            .iter()
            .map(|protocol| (protocol.name.as_str(), &protocol.metadata[..]))
            .eq(member
                .protocols()
                .iter()
                .map(|protocol| (protocol.name.as_str(), &protocol.metadata[..])))
    }

    fn refuse(&self, member_id: &str, error: ErrorCode, step: &mut Step<'_>) {
        step.fx
            .reply_join(self.waiter, reply::join_group_error(member_id, error));
    }

    fn reason(&self) -> &str {
        self.request.reason.as_deref().unwrap_or("not provided")
    }
}

impl ClassicGroup {
    /// `Err` is the fault of a request that no client should send: nothing has changed.
    pub(crate) fn on_join(
        &mut self,
        join: &Join<'_>,
        rng: &mut Rng,
        step: &mut Step<'_>,
    ) -> Result<(), ErrorCode> {
        let is_unknown = join.member_id().is_empty();
        if !self.accepts(join.member_id(), step) {
            self.remove(join.member_id());
            join.refuse("", ErrorCode::GROUP_MAX_SIZE_REACHED, step);
        } else if !self.supports_protocols(
            &join.request.protocol_type,
            join.request.protocols.iter().map(|p| p.name.as_str()),
        ) {
            join.refuse(
                join.member_id(),
                ErrorCode::INCONSISTENT_GROUP_PROTOCOL,
                step,
            );
        } else if is_unknown {
            self.join_new(join, rng, step);
        } else {
            self.join_existing(join, step)?;
        }
        Ok(())
    }

    /// Whether `group.max.size` leaves room for it. While joins are collected, those that
    /// wait are counted, so that of a group that is too big the last to rejoin are left
    /// out; later the members are.
    fn accepts(&self, id: &str, step: &Step<'_>) -> bool {
        let size_max = usize::try_from(step.config.group_size_max).unwrap_or(0);
        match self.state() {
            Empty => true,
            PreparingRebalance => {
                self.member(id).is_some_and(Member::is_awaiting_join)
                    || self.awaiting_join_count() < size_max
            }
            CompletingRebalance | Stable => {
                self.member(id).is_some() || self.members.len() < size_max
            }
        }
    }

    fn join_new(&mut self, join: &Join<'_>, rng: &mut Rng, step: &mut Step<'_>) {
        match join.instance() {
            Some(instance) => {
                let new_id = Self::new_member_id(instance, rng);
                match self.static_member(instance).cloned() {
                    Some(old_id) => self.join_replacing(join, &old_id, new_id, step),
                    None => self.join_adding(join, new_id, step),
                }
            }
            None => {
                let new_id = Self::new_member_id(join.client.id, rng);
                if join.version >= MEMBER_ID_REQUIRED_FROM {
                    self.add_pending(new_id.clone());
                    self.schedule_heartbeat(&new_id, join.request.session_timeout_ms, step);
                    join.refuse(&new_id, ErrorCode::MEMBER_ID_REQUIRED, step);
                } else {
                    self.join_adding(join, new_id, step);
                }
            }
        }
    }

    fn join_existing(&mut self, join: &Join<'_>, step: &mut Step<'_>) -> Result<(), ErrorCode> {
        let id = join.member_id();
        if self.is_pending(id) {
            if join.instance().is_some() {
                // Given-out ids are of dynamic members.
                return Err(ErrorCode::UNKNOWN_SERVER_ERROR);
            }
            self.join_adding(join, id.into(), step);
            return Ok(());
        }
        if let Err(error) = self.validate_member(id, join.instance()) {
            join.refuse(id, error, step);
            return Ok(());
        }
        let member = self.member(id).expect("validated above");
        match self.state() {
            PreparingRebalance => self.join_updating(join, step),
            // The same metadata: the first answer may have got lost.
            CompletingRebalance if join.matches(member) => {
                let response = self.join_response(id, self.is_leader(id));
                step.fx.reply_join(join.waiter, response);
            }
            CompletingRebalance => self.join_updating(join, step),
            // The leader may know that the assignment must change although nobody's
            // metadata has (a topic got more partitions).
            Stable if self.is_leader(id) || !join.matches(member) => {
                self.join_updating(join, step);
            }
            Stable => {
                let response = self.join_response(id, false);
                step.fx.reply_join(join.waiter, response);
            }
            Empty => join.refuse(id, ErrorCode::UNKNOWN_MEMBER_ID, step),
        }
        Ok(())
    }

    fn join_adding(&mut self, join: &Join<'_>, id: Rc<str>, step: &mut Step<'_>) {
        if self.members.is_empty() {
            self.protocol_type = Some(join.request.protocol_type.clone());
        }
        if self.is_initial_rebalance() {
            self.new_member_added = true;
        }
        self.add(Member {
            id: id.clone(),
            instance: join.request.group_instance_id.clone(),
            client_id: join.client.id.to_owned(),
            client_host: join.client.host(),
            rebalance_timeout_ms: join.rebalance_timeout_ms(),
            session_timeout_ms: join.request.session_timeout_ms,
            protocols: join.protocols(),
            assignment: Bytes::new(),
            awaiting_join: Some(join.waiter),
            awaiting_sync: None,
            is_new: true,
        });
        // A new member can't send heartbeats, and a connection that waits for an answer
        // isn't read, so that its end would go unnoticed: only time bounds its stay.
        self.schedule_heartbeat(&id, step.config.new_member_join_timeout_ms, step);
        self.maybe_prepare_rebalance_or_complete_join(join.reason(), step);
    }

    fn join_updating(&mut self, join: &Join<'_>, step: &mut Step<'_>) {
        // A client that gave up and sent its JoinGroup again, on another connection: the
        // first one must not stay parked for ever.
        self.answer_join(
            join.member_id(),
            reply::join_group_error(join.member_id(), ErrorCode::REBALANCE_IN_PROGRESS),
            step.fx,
        );
        self.update_member(
            join.member_id(),
            join.protocols(),
            join.rebalance_timeout_ms(),
            join.request.session_timeout_ms,
            Some(join.waiter),
        );
        self.maybe_prepare_rebalance_or_complete_join(join.reason(), step);
    }

    /// A static member came back without its id: it takes the place of its former self. In
    /// a stable group whose protocol stays the same, that needs no rebalance.
    fn join_replacing(
        &mut self,
        join: &Join<'_>,
        old_id: &str,
        new_id: Rc<str>,
        step: &mut Step<'_>,
    ) {
        info!(
            group = &*self.id,
            instance = join.instance(),
            old = old_id,
            new = &*new_id,
            "static member takes over its instance id"
        );
        let old_leader = self.leader.clone();
        self.replace_static_member(old_id, new_id.clone(), step.fx);
        // The timer of the old id finds nobody; kept out of the queue nonetheless.
        self.cancel_heartbeat(old_id, step);
        self.reschedule_heartbeat(&new_id, step);
        let member = self.member(&new_id).expect("it was just put there");
        let replacement = StaticReplacement {
            group: self.id.clone(),
            instance: join.request.group_instance_id.clone().unwrap_or_default(),
            old_member: old_id.into(),
            new_member: new_id.clone(),
            old_leader,
            old_protocols: member.protocols.clone(),
            old_rebalance_timeout_ms: member.rebalance_timeout_ms,
            old_session_timeout_ms: member.session_timeout_ms,
            waiter: join.waiter,
            version: join.version,
        };
        self.update_member(
            &new_id,
            join.protocols(),
            join.rebalance_timeout_ms(),
            join.request.session_timeout_ms,
            Some(join.waiter),
        );
        match self.state() {
            Stable if self.select_protocol() == self.protocol_name => {
                step.fx.write_group(
                    CoordinatorRecord::group_metadata(
                        &self.id,
                        self.to_record(|member| member.assignment.clone()),
                    ),
                    Completion::StaticReplacement(Box::new(replacement)),
                );
            }
            Stable => self.prepare_rebalance("a static member changed the protocol", step),
            // The leader may be assigning to the old id just now.
            CompletingRebalance => self.prepare_rebalance("a static member got a new id", step),
            PreparingRebalance => self.maybe_complete_join_phase(step),
            Empty => unreachable!("an empty group has no static members"),
        }
    }

    // ---- completions ----

    /// The replaced id is committed. If a rebalance has begun meanwhile, the new member's
    /// JoinGroup is part of it and stays parked. (Kafka answers it with the generation that
    /// is being given up.)
    pub(crate) fn on_replacement_committed(
        &mut self,
        replacement: &StaticReplacement,
        step: &mut Step<'_>,
    ) {
        let id = &*replacement.new_member;
        let waits = self
            .member(id)
            .is_some_and(|member| member.awaiting_join == Some(replacement.waiter));
        if self.state() != Stable || !waits {
            return;
        }
        let response = if replacement.version >= SKIP_ASSIGNMENT_FROM {
            let is_leader = self.is_leader(id);
            let mut response = self.join_response(id, is_leader);
            response.skip_assignment = is_leader;
            response
        } else {
            // Told of the leader before, the member doesn't take itself for the leader and
            // fetches its assignment.
            let mut response = self.join_response(id, false);
            response.leader = leader_text(replacement);
            response
        };
        self.answer_join(id, response, step.fx);
    }

    /// The replaced id could not be committed: the old member is back.
    pub(crate) fn on_replacement_failed(
        &mut self,
        replacement: &StaticReplacement,
        error: ErrorCode,
        step: &mut Step<'_>,
    ) {
        let mut response = self.join_response("", false);
        response.error_code = error.0;
        response.leader = leader_text(replacement);
        let new_id = &*replacement.new_member;
        let waits = self
            .member(new_id)
            .is_some_and(|member| member.awaiting_join == Some(replacement.waiter));
        if !waits {
            // Answered or replaced by something else meanwhile.
            return;
        }
        self.answer_join(new_id, response, step.fx);
        self.update_member(
            new_id,
            replacement.old_protocols.clone(),
            replacement.old_rebalance_timeout_ms,
            replacement.old_session_timeout_ms,
            None,
        );
        self.replace_static_member(new_id, replacement.old_member.clone(), step.fx);
        self.cancel_heartbeat(new_id, step);
        self.reschedule_heartbeat(&replacement.old_member, step);
    }
}

fn leader_text(replacement: &StaticReplacement) -> String {
    replacement
        .old_leader
        .as_deref()
        .unwrap_or_default()
        .to_owned()
}
