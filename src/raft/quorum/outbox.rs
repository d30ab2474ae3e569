//! Holds back what depends on an election state that isn't on stable storage yet: every
//! message of the replica, in order, and its notices of leaders.
//!
//! Invariant: what was sent after a change of the election state leaves after it is durable.

use std::collections::VecDeque;

use super::super::quorum_state::ElectionState;
use super::super::voters::VoterSet;
use super::effects::{CallId, Effect, Effects, Version};

/// Messages held at most; further ones are lost as on the network.
const HELD_MAX: usize = 10_000;

#[derive(Debug)]
pub(super) struct Outbox {
    /// The state that the shell was asked to persist last, or found at start.
    state: Option<ElectionState>,
    asked: Version,
    durable: Version,
    held: VecDeque<(Version, Effect)>,
}

impl Outbox {
    pub(super) fn new(found: Option<ElectionState>) -> Outbox {
        Outbox {
            state: found,
            asked: Version(0),
            durable: Version(0),
            held: VecDeque::new(),
        }
    }

    /// Asks to persist a state unless it is the last one.
    pub(super) fn persist(
        &mut self,
        state: ElectionState,
        kraft_version: i16,
        voters: &VoterSet,
        fx: &mut Effects,
    ) {
        if self.state.as_ref() == Some(&state) {
            return;
        }
        self.state = Some(state.clone());
        self.asked = Version(self.asked.0 + 1);
        fx.push(Effect::Persist {
            version: self.asked,
            state,
            kraft_version,
            voters: voters.clone(),
        });
    }

    /// Whether everything that was decided is durable.
    pub(super) fn is_settled(&self) -> bool {
        self.durable >= self.asked
    }

    /// The version of what was decided last.
    pub(super) fn version(&self) -> Version {
        self.asked
    }

    pub(super) fn has_persisted(&self, version: Version) -> bool {
        self.durable >= version
    }

    pub(super) fn send(&mut self, effect: Effect, fx: &mut Effects) {
        if self.is_settled() {
            fx.push(effect);
        } else if self.held.len() < HELD_MAX {
            self.held.push_back((self.asked, effect));
        }
    }

    pub(super) fn on_persisted(&mut self, version: Version, fx: &mut Effects) {
        assert!(version <= self.asked, "persisted before it was asked for");
        self.durable = self.durable.max(version);
        while let Some((needs, _)) = self.held.front()
            && *needs <= self.durable
        {
            let (_, effect) = self.held.pop_front().expect("there is a front");
            fx.push(effect);
        }
    }

    /// Drops the requests that are held, and says which.
    pub(super) fn drop_requests(&mut self) -> Vec<CallId> {
        let mut dropped = Vec::new();
        self.held.retain(|(_, effect)| match effect {
            Effect::Send { call, .. } => {
                dropped.push(*call);
                false
            }
            _ => true,
        });
        dropped
    }
}
