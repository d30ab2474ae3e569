//! Requests of ours that wait for an answer: which, to whom, until when; and how long a
//! peer that failed is left alone.

use std::collections::BTreeMap;

use super::effects::{CallId, Destination, Effect, Effects, Request, Response};
use super::log_view::OffsetAndEpoch;
use super::{Quorum, Role};
use crate::base::{BrokerId, LeaderEpoch, Nanos};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    Node(BrokerId),
    Bootstrap(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CallKind {
    PreVote,
    Vote,
    Begin,
    End,
    Fetch,
    FetchSnapshot,
    UpdateVoter,
    /// AddRaftVoter or RemoveRaftVoter of an observer that joins by itself.
    Join,
    ApiVersions,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) kind: CallKind,
    pub(super) peer: Peer,
    /// The epoch in which it was sent.
    pub(super) epoch: LeaderEpoch,
    /// Where the log ended when it was sent.
    pub(super) log_end: OffsetAndEpoch,
    deadline: Nanos,
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    next: u64,
    /// One of a kind to a peer in an epoch at most; each ends at its deadline.
    open: BTreeMap<CallId, Call>,
    /// Until when a peer is left alone.
    backoff: BTreeMap<Peer, Nanos>,
}

impl Calls {
    pub(super) fn deadline(&self, now: Nanos) -> Nanos {
        let calls = self.open.values().map(|call| call.deadline);
        let backoffs = self.backoff.values().copied().filter(|at| *at > now);
        calls.chain(backoffs).min().unwrap_or(Nanos::MAX)
    }

    pub(super) fn forget(&mut self, calls: &[CallId]) {
        for call in calls {
            self.open.remove(call);
        }
    }

    fn is_open(&self, kind: CallKind, peer: Option<Peer>, epoch: LeaderEpoch) -> bool {
        let is_it = |call: &Call| {
            call.kind == kind && peer.is_none_or(|peer| peer == call.peer) && call.epoch == epoch
        };
        self.open.values().any(is_it)
    }
}

impl Quorum {
    /// Sends a request unless one of the kind is under way there, or the peer failed just
    /// now. Whether it was sent.
    pub(super) fn maybe_call(
        &mut self,
        kind: CallKind,
        peer: Peer,
        request: impl FnOnce(&Quorum) -> Request,
        fx: &mut Effects,
    ) -> bool {
        let is_left_alone = self.calls.backoff.get(&peer);
        if is_left_alone.is_some_and(|until| !self.is_due(*until))
            || self.calls.is_open(kind, Some(peer), self.epoch)
        {
            return false;
        }
        let call = CallId(self.calls.next);
        self.calls.next += 1;
        let open = Call {
            kind,
            peer,
            epoch: self.epoch,
            log_end: self.log.last(),
            deadline: self.after_ms(self.config.answer_timeout_ms),
        };
        self.calls.open.insert(call, open);
        let to = self.destination(peer);
        let request = request(self);
        self.outbox.send(Effect::Send { call, to, request }, fx);
        true
    }

    /// Whether a call of this kind and epoch waits, at whatever peer.
    pub(super) fn is_calling(&self, kind: CallKind) -> bool {
        self.calls.is_open(kind, None, self.epoch)
    }

    fn destination(&self, peer: Peer) -> Destination {
        let id = match peer {
            Peer::Bootstrap(index) => return Destination::Bootstrap(index),
            Peer::Node(id) => id,
        };
        let listener = &self.config.listener;
        let of_leader = self.leader_endpoints(id);
        let of_change = match &self.role {
            Role::Leader(leader) => leader.joining_endpoints(id),
            _ => None,
        };
        let endpoints = of_change.or(of_leader).unwrap_or_default();
        let known = endpoints.iter().find(|e| e.listener == *listener);
        let voter = self.log.voters().get(id);
        let registered = voter.and_then(|voter| voter.endpoint(listener));
        Destination::Node(id, known.or(registered).cloned())
    }

    pub(super) fn on_response(&mut self, id: CallId, response: Response, fx: &mut Effects) {
        // What comes after its deadline was given up.
        let Some(call) = self.calls.open.remove(&id) else {
            return;
        };
        self.calls.backoff.remove(&call.peer);
        match (call.kind, response) {
            (CallKind::PreVote | CallKind::Vote, Response::Vote(response)) => {
                self.on_vote_response(call, &response, fx);
            }
            (CallKind::Begin, Response::BeginQuorumEpoch(response)) => {
                self.on_begin_response(call, &response, fx);
            }
            (CallKind::End, Response::EndQuorumEpoch(response)) => {
                self.on_end_response(call, &response, fx);
            }
            (CallKind::Fetch, Response::Fetch(response)) => {
                self.on_fetch_response(call, &response, fx);
            }
            (CallKind::FetchSnapshot, Response::FetchSnapshot(response)) => {
                self.on_fetch_snapshot_response(call, &response, fx);
            }
            (CallKind::UpdateVoter, Response::UpdateRaftVoter(response)) => {
                self.on_update_voter_response(&response, fx);
            }
            (CallKind::ApiVersions, Response::ApiVersions(response)) => {
                self.on_api_versions(call, &response, fx);
            }
            // Tried again when the voters still lack this node.
            (CallKind::Join, Response::AddRaftVoter(_) | Response::RemoveRaftVoter(_)) => {}
            _ => fx.push(Effect::PeerError("an answer of another kind")),
        }
    }

    pub(super) fn on_call_failed(&mut self, id: CallId, fx: &mut Effects) {
        if let Some(call) = self.calls.open.remove(&id) {
            self.on_no_answer(call, fx);
        }
    }

    pub(super) fn expire_calls(&mut self, fx: &mut Effects) {
        let now = self.now.mono;
        let late = |(id, call): (&CallId, &Call)| (call.deadline <= now).then_some(*id);
        let late: Vec<CallId> = self.calls.open.iter().filter_map(late).collect();
        for id in late {
            let call = self.calls.open.remove(&id).expect("it is open");
            self.on_no_answer(call, fx);
        }
        self.calls.backoff.retain(|_, until| *until > now);
    }

    fn on_no_answer(&mut self, call: Call, fx: &mut Effects) {
        self.back_off(call.peer);
        if call.kind == CallKind::ApiVersions {
            self.on_no_api_versions(call, fx);
        }
    }

    pub(super) fn back_off(&mut self, peer: Peer) {
        let until = self.after_ms(self.config.retry_backoff_ms);
        self.calls.backoff.insert(peer, until);
    }
}
