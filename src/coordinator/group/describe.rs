//! Views of a classic group for administrators, and what they may do to it.

use super::ClassicGroup;
use super::state::ClassicGroupState::{Empty, Stable};
use crate::base::{ErrorCode, Millis};
use crate::coordinator::offsets::Commit;
use crate::wire::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use crate::wire::messages::list_groups_response::ListedGroup;

impl ClassicGroup {
    pub(crate) fn listed(&self) -> ListedGroup {
        ListedGroup {
            group_id: self.id.to_string(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            group_state: self.state().name().to_owned(),
            group_type: super::GroupType::Classic.name().to_owned(),
        }
    }

    /// Protocol and metadata are only told of a stable group.
    pub(crate) fn described(&self) -> DescribedGroup {
        let protocol = self
            .protocol_name
            .as_deref()
            .filter(|_| self.state() == Stable);
        DescribedGroup {
            group_id: self.id.to_string(),
            group_state: self.state().name().to_owned(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol_data: protocol.unwrap_or_default().to_owned(),
            members: self
                .members()
                .map(|member| DescribedGroupMember {
                    member_id: member.id.to_string(),
                    group_instance_id: member.instance.clone(),
                    client_id: member.client_id.clone(),
                    client_host: member.client_host.clone(),
                    member_metadata: self.metadata_of(member, protocol),
                    member_assignment: member.assignment.clone(),
                })
                .collect(),
            ..DescribedGroup::default()
        }
    }

    pub(crate) fn validate_delete(&self) -> Result<(), ErrorCode> {
        if self.state() == Empty {
            Ok(())
        } else {
            Err(ErrorCode::NON_EMPTY_GROUP)
        }
    }

    /// Offsets of a live group may only go where its subscriptions are known.
    pub(crate) fn validate_offset_delete(&self) -> Result<(), ErrorCode> {
        if self.state() == Empty || self.uses_consumer_protocol() {
            Ok(())
        } else {
            Err(ErrorCode::NON_EMPTY_GROUP)
        }
    }

    /// May this member commit offsets now? Members prove id and generation; without both
    /// it is an administrator or a consumer outside the group, and the group must be empty.
    pub(crate) fn validate_commit(&self, commit: &Commit<'_>) -> Result<(), ErrorCode> {
        use super::state::ClassicGroupState::CompletingRebalance;
        if commit.generation < 0 && self.state() == Empty {
            return Ok(());
        }
        if commit.generation >= 0 || !commit.member.is_empty() || commit.instance.is_some() {
            self.validate_member(commit.member, commit.instance)?;
            if commit.generation != self.generation {
                return Err(ErrorCode::ILLEGAL_GENERATION);
            }
        } else if self.state() != Empty {
            return Err(ErrorCode::UNKNOWN_MEMBER_ID);
        }
        if self.state() == CompletingRebalance {
            // The member knows the new generation but not yet its assignment.
            return Err(ErrorCode::REBALANCE_IN_PROGRESS);
        }
        Ok(())
    }

    /// From when on an offset's retention counts, or `None` while offsets don't expire:
    /// while a group lives, only those of topics that nobody reads do, and only if that can
    /// be told.
    ///
    /// | group | counts from |
    /// |---|---|
    /// | had members, is empty | when it got empty; in records too old to tell, the commit |
    /// | consumers, stable, subscriptions known | the commit |
    /// | never had members | the commit |
    pub(crate) fn retention_base(&self) -> Option<RetentionBase> {
        if self.protocol_type.is_none() {
            return Some(RetentionBase::Commit);
        }
        match self.state() {
            Empty => Some(match self.state_since_ms() {
                Some(since_ms) => RetentionBase::EmptySince(since_ms),
                None => RetentionBase::Commit,
            }),
            Stable if self.uses_consumer_protocol() && self.subscribed_topics.is_some() => {
                Some(RetentionBase::Commit)
            }
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetentionBase {
    Commit,
    EmptySince(Millis),
}
