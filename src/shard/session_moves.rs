//! Carries out what [`FetchSessions`] decides, so that a client may use its fetch session on
//! any connection: sends its messages and gives its answers.
//!
//! Called by `api::fetch` ([`begin`]) and `Shard::on_request` ([`serve`]).
//!
//! Invariant: all messages leave as posts, right after the call that made them, so they
//! arrive in their order; nothing else is waited for or decided here. Between a core that
//! has stopped and others nobody waits: connections end when the node stops.

use std::rc::Rc;

use super::Shard;
use super::fetch_session::{Begun, SessionRequest};
use super::messages::ShardRequest;
use super::session_table::{FetchSessions, SessionMessage};
use crate::base::{CoreId, ErrorCode};
use crate::io::local::oneshot;
use crate::io::local::oneshot::Sender;

/// The sessions of a core, with requests that wait for their answer.
pub type Sessions = FetchSessions<Sender<Result<Begun, ErrorCode>>>;

/// Resolves a request to the partitions it reads, when its session is here; errors as
/// [`FetchSessions::begin`].
pub async fn begin(shard: &Rc<Shard>, request: SessionRequest) -> Result<Begun, ErrorCode> {
    let mut answer = None;
    let begun = {
        let now = shard.rt().now();
        let mut sessions = shard.sessions();
        sessions.begin(request, now, &mut shard.rt().rng(), || {
            let (sender, receiver) = oneshot();
            answer = Some(receiver);
            sender
        })
    };
    carry_out(shard);
    match (begun, answer) {
        (Some(begun), _) => begun,
        (None, Some(answer)) => answer
            .await
            .unwrap_or(Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)),
        (None, None) => unreachable!("a request that waits is asked for its sender"),
    }
}

/// Takes another core's message about a session.
pub fn serve(shard: &Rc<Shard>, from: CoreId, message: SessionMessage) {
    let now = shard.rt().now();
    shard
        .sessions()
        .on_message(from, message, now, &mut shard.rt().rng());
    carry_out(shard);
}

fn carry_out(shard: &Rc<Shard>) {
    let (messages, answers) = {
        let mut sessions = shard.sessions();
        (sessions.take_messages(), sessions.take_answers())
    };
    for (core, message) in messages {
        shard.post(core, ShardRequest::Session(message));
    }
    for (sender, answer) in answers {
        // A connection that has ended takes nothing any more.
        drop(sender.send(answer));
    }
}
