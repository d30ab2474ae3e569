//! Sleeps of one core, on its timing wheel.
//!
//! The core's loop expires them each turn and sleeps in its ring no longer than until
//! [`Timers::next_deadline`], so there is no timer operation in the kernel at all.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::Rt;
use crate::base::Nanos;
use crate::purgatory::wheel::{TimerId, Wheel};

pub(crate) struct Timers {
    wheel: RefCell<Wheel<Waker>>,
}

impl Timers {
    pub(crate) fn new(now: Nanos) -> Timers {
        Timers {
            wheel: RefCell::new(Wheel::new(now)),
        }
    }

    /// Wakes what is due; returns how many.
    pub(crate) fn expire(&self, now: Nanos) -> usize {
        let mut count = 0;
        loop {
            // The borrow ends before the waker runs.
            let Some(waker) = self.wheel.borrow_mut().pop_expired(now) else {
                return count;
            };
            waker.wake();
            count += 1;
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Nanos> {
        self.wheel.borrow().next_deadline()
    }

    fn cancel(&self, id: TimerId) {
        let waker = self.wheel.borrow_mut().cancel(id);
        drop(waker);
    }

    /// Registers a waker under a pending id, or under a new one.
    fn arm(&self, id: Option<TimerId>, at: Nanos, cx: &Context<'_>) -> TimerId {
        let mut wheel = self.wheel.borrow_mut();
        if let Some(id) = id
            && let Some(waker) = wheel.get_mut(id)
        {
            if !waker.will_wake(cx.waker()) {
                *waker = cx.waker().clone();
            }
            return id;
        }
        wheel.insert(at, cx.waker().clone())
    }
}

/// Resolves at its deadline, rounded up to a millisecond; never early.
#[must_use = "a sleep does nothing unless awaited"]
pub struct Sleep {
    rt: Rt,
    at: Nanos,
    id: Option<TimerId>,
}

impl Sleep {
    pub(super) fn new(rt: Rt, at: Nanos) -> Sleep {
        Sleep { rt, at, id: None }
    }

    pub fn deadline(&self) -> Nanos {
        self.at
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.rt.now() >= self.at {
            return Poll::Ready(());
        }
        self.id = Some(self.rt.timers().arm(self.id, self.at, cx));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.rt.timers().cancel(id);
        }
    }
}
