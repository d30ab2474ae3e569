//! Operations of this core's requests that wait for something elsewhere: a parked fetch,
//! a produce with `acks=all`, a group's join that is answered minutes later.
//!
//! A waiting operation has an [`OperationId`] that names its core, so any core can wake it
//! by message. Mesh slots are for short calls only; what may take long is acknowledged at
//! once and answered by [`Operations::complete`].
//!
//! Invariant: an id is never reused within 2^32 operations, so a late wake hits nobody.

use std::cell::RefCell;
use std::rc::Rc;

use slab::Slab;

use crate::base::CoreId;
use crate::io::local::{Notify, oneshot};

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
    Answer(oneshot::Sender<A>),
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
    pub fn answer(&self) -> (OperationId, oneshot::Receiver<A>) {
        let (sender, receiver) = oneshot::oneshot();
        (self.insert(Waiting::Answer(sender)), receiver)
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
        if let Some(Waiting::Answer(sender)) = self.remove(id) {
            // The receiver is gone when the connection was closed meanwhile.
            let _ = sender.send(answer);
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
