//! Operations of this core's requests that wait for something elsewhere: a parked fetch,
//! a produce with `acks=all`, a group's join that is answered minutes later.
//!
//! A waiting operation has an [`OperationId`] that names its core, so any core can wake it
//! by message. Mesh slots are for short calls only: whoever kept one while it waits could
//! keep the message out that ends the wait. So what may take long is acknowledged at once
//! and answered later by [`Operations::complete`].
//!
//! Invariant: an id is never reused within 2^32 operations, so a late wake hits nobody.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use crate::base::CoreId;
use crate::io::local::Notify;

/// Names one waiting operation on all cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OperationId {
    pub core: CoreId,
    index: u32,
    generation: u32,
}

/// The waiting operations of one core; `A` is the answer to a long call.
pub struct Operations<A> {
    core: CoreId,
    state: RefCell<State<A>>,
}

struct State<A> {
    waiting: Slab<(u32, Waiting<A>)>,
    generation: u32,
}

enum Waiting<A> {
    Signal(Rc<Notify>),
    /// With who waits for it.
    Answer(Option<Waker>),
    Answered(A),
}

/// Resolves to the answer to a long call. The operation ends when this is dropped.
#[must_use = "an answer is had by awaiting it"]
pub struct Answer<'a, A> {
    operations: &'a Operations<A>,
    id: OperationId,
}

impl<A> Operations<A> {
    pub fn new(core: CoreId) -> Self {
        Operations {
            core,
            state: RefCell::new(State {
                waiting: Slab::new(),
                generation: 0,
            }),
        }
    }

    /// Number of operations that wait now.
    pub fn len(&self) -> usize {
        self.state.borrow().waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An operation that [`Operations::wake`] signals. It ends when the guard is dropped.
    pub fn signal(&self) -> (OperationId, Rc<Notify>) {
        let notify = Rc::new(Notify::new());
        (self.insert(Waiting::Signal(notify.clone())), notify)
    }

    /// An operation that [`Operations::complete`] answers.
    pub fn answer(&self) -> Answer<'_, A> {
        Answer {
            operations: self,
            id: self.insert(Waiting::Answer(None)),
        }
    }

    pub fn wake(&self, id: OperationId) {
        let state = self.state.borrow();
        if let Some((generation, Waiting::Signal(notify))) = state.waiting.get(id.index as usize)
            && *generation == id.generation
        {
            notify.notify_one();
        }
    }

    /// Hands the answer to whoever waits; nobody may, after a closed connection.
    pub fn complete(&self, id: OperationId, answer: A) {
        let before = {
            let mut state = self.state.borrow_mut();
            match state.waiting.get_mut(id.index as usize) {
                Some((generation, waiting @ Waiting::Answer(_)))
                    if *generation == id.generation =>
                {
                    std::mem::replace(waiting, Waiting::Answered(answer))
                }
                _ => return,
            }
        };
        if let Waiting::Answer(Some(waker)) = before {
            waker.wake();
        }
    }

    pub fn end(&self, id: OperationId) {
        self.remove(id);
    }

    fn insert(&self, waiting: Waiting<A>) -> OperationId {
        let mut state = self.state.borrow_mut();
        state.generation = state.generation.wrapping_add(1);
        let generation = state.generation;
        let index = state.waiting.insert((generation, waiting));
        OperationId {
            core: self.core,
            index: u32::try_from(index).expect("fewer than 2^32 operations wait"),
            generation,
        }
    }

    fn remove(&self, id: OperationId) -> Option<Waiting<A>> {
        assert_eq!(id.core, self.core, "an operation of another core");
        let mut state = self.state.borrow_mut();
        match state.waiting.get(id.index as usize) {
            Some((generation, _)) if *generation == id.generation => {
                Some(state.waiting.remove(id.index as usize).1)
            }
            _ => None,
        }
    }
}

impl<A> Answer<'_, A> {
    pub fn id(&self) -> OperationId {
        self.id
    }
}

impl<A> Future for Answer<'_, A> {
    type Output = A;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<A> {
        let mut state = self.operations.state.borrow_mut();
        let (_, waiting) = state
            .waiting
            .get_mut(self.id.index as usize)
            .expect("it ends with this future");
        match std::mem::replace(waiting, Waiting::Answer(Some(context.waker().clone()))) {
            Waiting::Answered(answer) => Poll::Ready(answer),
            _ => Poll::Pending,
        }
    }
}

impl<A> Drop for Answer<'_, A> {
    fn drop(&mut self) {
        self.operations.end(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    fn poll<A>(answer: &mut Answer<'_, A>) -> Poll<A> {
        pin!(answer).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn an_answer_reaches_who_waits_and_nobody_after_them() {
        let operations = Operations::new(CoreId(1));
        let (mut first, mut second) = (operations.answer(), operations.answer());
        assert!(poll(&mut first).is_pending());
        operations.complete(second.id(), 2);
        operations.complete(first.id(), 1);
        assert_eq!(
            (poll(&mut first), poll(&mut second)),
            (Poll::Ready(1), Poll::Ready(2))
        );
        let late = first.id();
        drop((first, second));
        assert!(operations.is_empty());
        let mut next = operations.answer();
        operations.complete(late, 3);
        operations.wake(late);
        assert!(poll(&mut next).is_pending());
    }
}
