//! The caller's side: which calls to one other core wait for a reply.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// The request was dropped unanswered, or the other core has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other core did not answer")]
pub struct Gone;

/// In a request whose reply nobody waits for: it has no entry among the calls.
pub(super) const POSTED: u32 = u32::MAX;

/// Calls to one core, from `call` until both the reply has come and the caller has it.
pub(super) struct Calls<R>(RefCell<Slab<State<R>>>);

enum State<R> {
    Waiting(Option<Waker>),
    Answered(Option<R>),
    /// The caller is gone; the reply, when it comes, is thrown away.
    Abandoned,
}

impl<R> Calls<R> {
    pub(super) fn new() -> Rc<Calls<R>> {
        Rc::new(Calls(RefCell::new(Slab::new())))
    }

    pub(super) fn add(&self) -> u32 {
        let key = self.0.borrow_mut().insert(State::Waiting(None));
        let call = u32::try_from(key).expect("fewer than 2^32 calls");
        assert_ne!(call, POSTED, "fewer than 2^32 calls");
        call
    }

    /// A reply has come.
    pub(super) fn answer(&self, call: u32, answer: Option<R>) {
        if call == POSTED {
            return;
        }
        let key = call as usize;
        let (waker, unwanted) = {
            let mut calls = self.0.borrow_mut();
            let state = calls.get_mut(key).expect("a reply belongs to a call");
            match state {
                State::Waiting(waker) => {
                    let waker = waker.take();
                    *state = State::Answered(answer);
                    (waker, None)
                }
                State::Abandoned => {
                    calls.remove(key);
                    (None, answer)
                }
                State::Answered(_) => unreachable!("a call is answered once"),
            }
        };
        drop(unwanted);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Frees a call that was never sent because its caller has gone; whether it was.
    pub(super) fn forget_if_abandoned(&self, call: u32) -> bool {
        let mut calls = self.0.borrow_mut();
        let abandoned = matches!(calls.get(call as usize), Some(State::Abandoned));
        if abandoned {
            calls.remove(call as usize);
        }
        abandoned
    }

    /// Answers all calls that wait: the other core has ended.
    pub(super) fn give_up(&self) {
        let waiting: Vec<u32> = {
            let calls = self.0.borrow();
            let unanswered = calls
                .iter()
                .filter(|(_, s)| !matches!(s, State::Answered(_)));
            unanswered.map(|(key, _)| key as u32).collect()
        };
        for call in waiting {
            self.answer(call, None);
        }
    }
}

/// Resolves to the reply. When it is dropped, the request may still be carried out.
#[must_use = "the reply is had by awaiting the call"]
pub struct Call<R> {
    calls: Rc<Calls<R>>,
    /// None once the reply was taken.
    call: Option<u32>,
}

impl<R> Call<R> {
    pub(super) fn new(calls: Rc<Calls<R>>, call: u32) -> Call<R> {
        Call {
            calls,
            call: Some(call),
        }
    }
}

impl<R> Future for Call<R> {
    type Output = Result<R, Gone>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let call = self.call.expect("polled after it was ready");
        let mut calls = self.calls.0.borrow_mut();
        match &mut calls[call as usize] {
            State::Waiting(waker) => {
                *waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            State::Answered(_) => {}
            State::Abandoned => unreachable!("its caller is here"),
        }
        let State::Answered(answer) = calls.remove(call as usize) else {
            unreachable!("just looked");
        };
        drop(calls);
        self.call = None;
        Poll::Ready(answer.ok_or(Gone))
    }
}

impl<R> Drop for Call<R> {
    fn drop(&mut self) {
        let Some(call) = self.call else { return };
        // What is taken out is dropped after the borrow.
        let _unwanted = {
            let mut calls = self.calls.0.borrow_mut();
            match &mut calls[call as usize] {
                State::Answered(_) => calls.remove(call as usize),
                state => std::mem::replace(state, State::Abandoned),
            }
        };
    }
}
