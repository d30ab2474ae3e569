//! One value from one task to another.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::Closed;

enum State<T> {
    Waiting(Option<Waker>),
    Sent(T),
    /// The value was taken, or one side is gone.
    Closed,
}

/// A channel for one value.
pub fn oneshot<T>() -> (Sender<T>, Receiver<T>) {
    let state = Rc::new(RefCell::new(State::Waiting(None)));
    (Sender(state.clone()), Receiver(state))
}

pub struct Sender<T>(Rc<RefCell<State<T>>>);

impl<T> Sender<T> {
    /// Gives the value back when the receiver is gone.
    pub fn send(self, value: T) -> Result<(), T> {
        let waker = {
            let mut state = self.0.borrow_mut();
            match &mut *state {
                State::Waiting(waker) => {
                    let waker = waker.take();
                    *state = State::Sent(value);
                    waker
                }
                _ => return Err(value),
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        matches!(*self.0.borrow(), State::Closed)
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.0.borrow_mut();
            match &mut *state {
                State::Waiting(waker) => {
                    let waker = waker.take();
                    *state = State::Closed;
                    waker
                }
                _ => None,
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Resolves to the value, or to [`Closed`] when the sender was dropped.
pub struct Receiver<T>(Rc<RefCell<State<T>>>);

impl<T> Receiver<T> {
    /// The value, if it is there already.
    pub fn try_recv(&mut self) -> Option<T> {
        let mut state = self.0.borrow_mut();
        if !matches!(*state, State::Sent(_)) {
            return None;
        }
        match std::mem::replace(&mut *state, State::Closed) {
            State::Sent(value) => Some(value),
            _ => unreachable!("just looked"),
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Closed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(value) = self.try_recv() {
            return Poll::Ready(Ok(value));
        }
        match &mut *self.0.borrow_mut() {
            State::Waiting(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(Err(Closed)),
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // The value or waker is dropped after the borrow.
        let old = std::mem::replace(&mut *self.0.borrow_mut(), State::Closed);
        drop(old);
    }
}
