//! The answering side: from a request that was taken to its reply.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::calls::Calls;
use super::ring::Sender;
use super::{Reply, Signals};
use crate::base::CoreId;
use crate::io::Rt;

/// The reply rings of one core.
pub(super) struct Replies<R> {
    rt: Rt,
    /// By core; at the own index none, and once this core has ended none at all.
    lanes: RefCell<Vec<Option<Lane<R>>>>,
    /// Calls of this core to itself.
    own: Rc<Calls<R>>,
    signals: Arc<Signals>,
}

/// The way of the replies to one core. When it is dropped, that core gives up on this one.
pub(super) struct Lane<R> {
    pub(super) sender: Sender<Reply<R>>,
    pub(super) from: CoreId,
    pub(super) to: CoreId,
    pub(super) signals: Arc<Signals>,
}

impl<R> Drop for Lane<R> {
    fn drop(&mut self) {
        self.sender.end();
        self.signals.ready[self.to.index()].set(self.from.index());
    }
}

impl<R> Replies<R> {
    pub(super) fn new(
        rt: Rt,
        lanes: Vec<Option<Lane<R>>>,
        own: Rc<Calls<R>>,
        signals: Arc<Signals>,
    ) -> Rc<Replies<R>> {
        Rc::new(Replies {
            rt,
            lanes: RefCell::new(lanes),
            own,
            signals,
        })
    }

    fn send(&self, to: CoreId, call: u32, answer: Option<R>) {
        if to == self.rt.core() {
            self.own.answer(call, answer);
            return;
        }
        {
            let mut lanes = self.lanes.borrow_mut();
            let Some(Some(lane)) = lanes.get_mut(to.index()) else {
                return;
            };
            let pushed = lane.sender.push(Reply { call, answer });
            assert!(pushed.is_ok(), "a reply's place is reserved by its request");
        }
        self.signals.tell(&self.rt, to);
    }

    /// Ends all lanes: the others give up what they have asked this core.
    pub(super) fn close(&self) {
        let lanes = self.lanes.take();
        let others: Vec<CoreId> = lanes.iter().flatten().map(|lane| lane.to).collect();
        drop(lanes);
        for core in others {
            self.signals.ring(&self.rt, core);
        }
    }
}

/// The right and duty to answer one request. It may be kept and answered later, in any
/// order. Dropping it answers `Gone`.
#[must_use = "a request is answered through its slot"]
pub struct ReplySlot<R> {
    replies: Rc<Replies<R>>,
    to: CoreId,
    call: u32,
    answered: bool,
}

impl<R> ReplySlot<R> {
    pub(super) fn new(replies: Rc<Replies<R>>, to: CoreId, call: u32) -> ReplySlot<R> {
        ReplySlot {
            replies,
            to,
            call,
            answered: false,
        }
    }

    /// The core that has asked.
    pub fn caller(&self) -> CoreId {
        self.to
    }

    /// Answers; never waits.
    pub fn reply(mut self, answer: R) {
        self.answered = true;
        self.replies.send(self.to, self.call, Some(answer));
    }
}

impl<R> Drop for ReplySlot<R> {
    fn drop(&mut self) {
        if !self.answered {
            self.replies.send(self.to, self.call, None);
        }
    }
}
