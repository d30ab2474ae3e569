//! One member of a classic group.

use std::rc::Rc;

use bytes::Bytes;

use crate::coordinator::effects::Waiter;

/// An embedded protocol that a member offers (for consumers: an assignor), in order of its
/// preference, with the member's metadata for it (for consumers: its subscription).
///
/// The bytes are copies: a slice of the request would keep the whole receive buffer alive
/// for as long as the member lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    pub name: String,
    pub metadata: Bytes,
}

#[derive(Debug)]
pub struct Member {
    pub id: Rc<str>,
    /// `group.instance.id`: set for static members (KIP-345).
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// Never changes its place in [`super::ClassicGroup`]'s votes without being counted
    /// there: use `ClassicGroup::update_member`.
    pub(super) protocols: Vec<Protocol>,
    pub assignment: Bytes,
    /// A parked JoinGroup. Counted in `ClassicGroup::awaiting_join`.
    pub(super) awaiting_join: Option<Waiter>,
    /// A parked SyncGroup.
    pub(super) awaiting_sync: Option<Waiter>,
    /// Has not yet got the answer to its first JoinGroup: it can't send heartbeats, so that
    /// being parked does not keep it alive.
    pub(super) is_new: bool,
}

impl Member {
    pub fn is_static(&self) -> bool {
        self.instance.is_some()
    }

    pub fn is_awaiting_join(&self) -> bool {
        self.awaiting_join.is_some()
    }

    pub fn is_awaiting_sync(&self) -> bool {
        self.awaiting_sync.is_some()
    }

    pub fn protocols(&self) -> &[Protocol] {
        &self.protocols
    }

    pub fn metadata(&self, protocol: &str) -> Option<&Bytes> {
        self.protocols
            .iter()
            .find(|offered| offered.name == protocol)
            .map(|offered| &offered.metadata)
    }

    /// A parked request stands for a heartbeat, except for a new member.
    pub(super) fn has_satisfied_heartbeat(&self) -> bool {
        !self.is_new && (self.is_awaiting_join() || self.is_awaiting_sync())
    }

    /// Its most preferred protocol among the candidates.
    pub(super) fn vote(&self, is_candidate: impl Fn(&str) -> bool) -> Option<&str> {
        self.protocols
            .iter()
            .map(|offered| offered.name.as_str())
            .find(|name| is_candidate(name))
    }
}
