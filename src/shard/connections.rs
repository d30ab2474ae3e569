//! The connections that a core serves, by when each was last used, so that the least recently
//! used one can be closed when there are too many (KIP-402).
//!
//! `connection` takes a [`Seat`] while it serves and marks each use; `limits` looks for the
//! least recently used of all cores and has it closed.
//!
//! Invariant: an evicted connection isn't found again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use crate::base::Nanos;

/// Which connections may be closed for others: controllers' listeners are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Broker,
    Controller,
    /// By the listener of brokers: never closed for others.
    Protected,
}

/// The connections of one core.
#[derive(Clone, Debug, Default)]
pub struct Connections(Rc<RefCell<Slab<Rc<Place>>>>);

#[derive(Debug)]
struct Place {
    class: Class,
    last_used: Cell<Nanos>,
    evicted: Cell<bool>,
    /// The connection's task.
    waker: RefCell<Option<Waker>>,
}

/// A connection's entry, until it is dropped.
#[derive(Debug)]
pub struct Seat {
    connections: Connections,
    key: usize,
    place: Rc<Place>,
}

impl Connections {
    pub fn enter(&self, class: Class, now: Nanos) -> Seat {
        let place = Rc::new(Place {
            class,
            last_used: Cell::new(now),
            evicted: Cell::new(false),
            waker: RefCell::new(None),
        });
        Seat {
            connections: self.clone(),
            key: self.0.borrow_mut().insert(place.clone()),
            place,
        }
    }

    /// When the least recently used connection of a class was last used; with `evict` it is
    /// closed.
    pub fn least_recently_used(&self, class: Class, evict: bool) -> Option<Nanos> {
        let place = {
            let places = self.0.borrow();
            let candidates = places
                .iter()
                .map(|(_, place)| place)
                .filter(|place| place.class == class && !place.evicted.get());
            candidates
                .min_by_key(|place| place.last_used.get())?
                .clone()
        };
        if evict {
            place.evicted.set(true);
            let waker = place.waker.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        Some(place.last_used.get())
    }
}

impl Seat {
    /// Bytes have come or gone.
    pub fn mark_used(&self, now: Nanos) {
        self.place.last_used.set(now);
    }

    pub fn last_used(&self) -> Nanos {
        self.place.last_used.get()
    }

    pub fn is_evicted(&self) -> bool {
        self.place.evicted.get()
    }

    /// Ready when the connection is to make room for another.
    pub fn poll_evicted(&self, context: &Context<'_>) -> Poll<()> {
        if self.is_evicted() {
            return Poll::Ready(());
        }
        let mut waker = self.place.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|w| w.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let place = self.connections.0.borrow_mut().remove(self.key);
        // A waker may be the last that holds its task.
        drop(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_of_a_class_is_evicted_once() {
        let connections = Connections::default();
        let seats = [Class::Broker, Class::Protected, Class::Broker]
            .map(|class| connections.enter(class, Nanos(1)));
        seats[0].mark_used(Nanos(3));
        seats[1].mark_used(Nanos(0));
        seats[2].mark_used(Nanos(2));
        let oldest = |evict| connections.least_recently_used(Class::Broker, evict);
        assert_eq!(oldest(false), Some(Nanos(2)));
        assert_eq!(oldest(true), Some(Nanos(2)));
        let is_evicted = |seat: &Seat| {
            let context = Context::from_waker(Waker::noop());
            seat.poll_evicted(&context).is_ready()
        };
        assert_eq!(seats.each_ref().map(is_evicted), [false, false, true]);
        assert_eq!(oldest(true), Some(Nanos(3)));
        assert_eq!(oldest(true), None);
        let controller = Class::Controller;
        assert_eq!(connections.least_recently_used(controller, false), None);
        drop(seats);
        assert!(connections.0.borrow().is_empty());
    }
}
