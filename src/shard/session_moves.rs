//! Fetch sessions that follow their connections: a request that names a session of another
//! core fetches it here first, so that a client may use its session on any connection.
//!
//! Called by `api::fetch` ([`begin`]) and `Shard::on_request` ([`serve`]). The session's home
//! (its id tells it) knows where it is: a core without it asks the home to take it, and the
//! home has it given by the core that has it. What [`FetchSessions`] wants told to other
//! cores is sent after each call ([`send_notes`]).
//!
//! Invariant: nobody waits in a circle. A core is asked to give a session only after it was
//! sent, so what it may wait for is on its way; and if it has lost the session meanwhile and
//! asks for it itself, the home, which waits for it, answers that there is none.
//!
//! [`FetchSessions`]: super::fetch_session::FetchSessions

use std::rc::Rc;
use std::time::Duration;

use super::Shard;
use super::fetch_session::{Begun, Found, SessionCall, SessionRequest};
use super::messages::{ShardReply, ShardRequest};
use crate::base::{CoreId, ErrorCode};
use crate::io::Queue;
use crate::io::local::{Notify, or_deadline};
use crate::mesh::ReplySlot;

/// How long a request waits for its session. Cores answer within microseconds; this bounds
/// what a mistake in the hand-overs could cost a connection.
const ARRIVAL_MAX: Duration = Duration::from_secs(1);

/// Resolves a request to the partitions it reads; errors as
/// [`FetchSessions::begin`](super::fetch_session::FetchSessions::begin).
pub async fn begin(shard: &Rc<Shard>, request: SessionRequest) -> Result<Begun, ErrorCode> {
    if request.continues_session() {
        obtain(shard, request.session_id).await;
    }
    let begun = shard
        .sessions()
        .begin(request, shard.rt().now(), &mut shard.rt().rng());
    send_notes(shard);
    begun
}

/// Serves another core's call about a session.
pub fn serve(shard: &Rc<Shard>, call: SessionCall, slot: ReplySlot<ShardReply>) {
    match call {
        SessionCall::Take { id, to } | SessionCall::Give { id, to } => {
            let is_taken = matches!(call, SessionCall::Take { .. });
            let found = shard.sessions().find(id);
            let comes = match found {
                Found::Here | Found::Nowhere => false,
                // Whoever is to give it and asks for it has lost it; waiting for it would be
                // waiting for each other.
                Found::Arriving(_, from) => !(is_taken && from == to),
                // Who has it wouldn't ask for it, unless it has lost it.
                Found::At(core) => is_taken && core != to,
            };
            if comes {
                let shard = shard.clone();
                shard.rt().clone().spawn(Queue::Request, async move {
                    obtain(&shard, id).await;
                    give(&shard, id, to, slot);
                });
            } else {
                give(shard, id, to, slot);
            }
        }
        SessionCall::Close { id, from } => {
            shard.sessions().close_for(id, from);
            slot.reply(ShardReply::Done);
        }
        SessionCall::Drop(id) => {
            shard.sessions().drop_guest(id);
            slot.reply(ShardReply::Done);
        }
        SessionCall::Used { id, partitions } => {
            let now = shard.rt().now();
            shard.sessions().on_used(id, partitions, now);
            slot.reply(ShardReply::Done);
        }
    }
    send_notes(shard);
}

fn give(shard: &Rc<Shard>, id: i32, to: CoreId, slot: ReplySlot<ShardReply>) {
    let now = shard.rt().now();
    let session = shard.sessions().lend(id, to, now);
    slot.reply(ShardReply::Session(session));
}

/// Has a session brought here, if it is anywhere.
async fn obtain(shard: &Rc<Shard>, id: i32) {
    let found = shard.sessions().find(id);
    let arrival = match found {
        Found::Here | Found::Nowhere => return,
        Found::Arriving(arrival, _) => arrival,
        Found::At(core) => fetch_from(shard, id, core),
    };
    let at = shard.rt().now() + ARRIVAL_MAX;
    // Late, it counts as lost: the client opens another.
    let _ = or_deadline(shard.rt(), arrival.notified(), at).await;
}

/// A task of its own brings it, for the request that wants it may be given up.
fn fetch_from(shard: &Rc<Shard>, id: i32, core: CoreId) -> Rc<Notify> {
    let to = shard.core();
    let (arrival, is_own) = shard.sessions().expect_arrival(id, core);
    let call = if is_own {
        SessionCall::Give { id, to }
    } else {
        SessionCall::Take { id, to }
    };
    let answer = shard.call(core, ShardRequest::Session(call));
    let shard = shard.clone();
    shard.rt().clone().spawn(Queue::Request, async move {
        let session = match answer.await {
            Ok(ShardReply::Session(session)) => session,
            _ => None,
        };
        let now = shard.rt().now();
        shard.sessions().arrived(id, session, now);
    });
    arrival
}

fn send_notes(shard: &Rc<Shard>) {
    let notes = shard.sessions().take_notes();
    for (core, call) in notes {
        shard.post(core, ShardRequest::Session(call));
    }
}
