//! Memory that one core uses again for each request, so that a steady stream of requests
//! allocates nothing: the boxes of handlers' futures, the buffers in which responses are
//! encoded, and the parts of requests that go to other cores.
//!
//! Called by `api` and `shard::processor`. Belongs to one core; what went to another core
//! comes back with the answer.
//!
//! Invariant: what is kept is empty (it refers to nobody's memory), and no more than
//! [`KEPT_MAX`] of a kind.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use super::processor::Reply;

/// As many of each kind are kept.
const KEPT_MAX: usize = 256;
/// Responses are encoded into slabs of this size, one after the other.
const SLAB_BYTES: usize = 16 << 10;
/// A slab with less room is full.
const SLAB_ROOM_MIN: usize = 512;
/// Slabs that are kept until what lies in them was sent.
const SLABS_MAX: usize = 16;

/// One core's spare memory.
#[derive(Default)]
pub struct Spares {
    /// `Kept<F>` by the type of the future.
    futures: RefCell<Vec<(TypeId, Box<dyn Any>)>>,
    /// The one in use first, then full ones.
    slabs: RefCell<VecDeque<BytesMut>>,
}

type Kept<F> = Vec<Pin<Box<Option<F>>>>;

impl Spares {
    /// Lets `encode` append a response to a buffer and returns it.
    pub fn encode<E>(
        &self,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), E>,
    ) -> Result<Bytes, E> {
        let mut slab = self.take_slab();
        let encoded = encode(&mut slab);
        let bytes = slab.split().freeze();
        self.slabs.borrow_mut().push_front(slab);
        encoded.map(|()| bytes)
    }

    /// A buffer with some room. What was encoded is to be split off it, and the rest given
    /// back to [`keep_slab`](Self::keep_slab).
    pub fn take_slab(&self) -> BytesMut {
        let mut slabs = self.slabs.borrow_mut();
        match slabs.pop_front() {
            Some(slab) if slab.capacity() >= SLAB_ROOM_MIN => return slab,
            Some(full) => slabs.push_back(full),
            None => {}
        }
        for _ in 0..slabs.len() {
            let mut oldest = slabs.pop_front().expect("there are as many");
            if oldest.try_reclaim(SLAB_BYTES) {
                return oldest;
            }
            // Somebody still sends from it, perhaps for long.
            slabs.push_back(oldest);
        }
        slabs.truncate(SLABS_MAX);
        BytesMut::with_capacity(SLAB_BYTES)
    }

    pub fn keep_slab(&self, slab: BytesMut) {
        assert!(slab.is_empty(), "what it held was split off");
        self.slabs.borrow_mut().push_front(slab);
    }

    fn take_box<F: 'static>(&self) -> Option<Pin<Box<Option<F>>>> {
        self.with_kept(|kept: &mut Kept<F>| kept.pop())
    }

    fn keep_box<F: 'static>(&self, empty: Pin<Box<Option<F>>>) {
        self.with_kept(|kept| {
            if kept.len() < KEPT_MAX {
                kept.push(empty);
            }
        });
    }

    fn with_kept<F: 'static, T>(&self, use_kept: impl FnOnce(&mut Kept<F>) -> T) -> T {
        let kind = TypeId::of::<F>();
        let mut futures = self.futures.borrow_mut();
        let index = match futures.iter().position(|(id, _)| *id == kind) {
            Some(index) => index,
            None => {
                futures.push((kind, Box::new(Kept::<F>::new())));
                futures.len() - 1
            }
        };
        let kept = futures[index].1.downcast_mut();
        use_kept(kept.expect("it stands under its own type"))
    }
}

/// A request that runs: a handler's future in a box that is used again.
pub struct Running {
    /// Absent only while it is dropped.
    future: Option<Pin<Box<dyn Recycled>>>,
    spares: Rc<Spares>,
}

impl Running {
    pub fn new<F>(spares: Rc<Spares>, future: F) -> Running
    where
        F: Future<Output = Reply> + 'static,
    {
        let future: Pin<Box<dyn Recycled>> = match spares.take_box::<F>() {
            Some(mut empty) => {
                empty.set(Some(future));
                empty
            }
            None => Box::pin(Some(future)),
        };
        Running {
            future: Some(future),
            spares,
        }
    }
}

impl Future for Running {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        let future = self.future.as_mut().expect("it isn't dropped");
        future.as_mut().poll_reply(context)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(future) = self.future.take() {
            future.give_back(&self.spares);
        }
    }
}

trait Recycled {
    fn poll_reply(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply>;
    /// Drops the future where it is, and keeps its box.
    fn give_back(self: Pin<Box<Self>>, spares: &Spares);
}

impl<F: Future<Output = Reply> + 'static> Recycled for Option<F> {
    fn poll_reply(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        let future = self.as_pin_mut().expect("it runs until it is given back");
        future.poll(context)
    }

    fn give_back(mut self: Pin<Box<Self>>, spares: &Spares) {
        // Whatever the future held may come back to `spares` by itself: no borrow yet.
        self.set(None);
        spares.keep_box(self);
    }
}

/// Boxes of one type that are used again.
#[derive(Default)]
pub struct Boxes<T>(RefCell<Vec<Box<T>>>);

impl<T> Boxes<T> {
    /// A box that holds `value`.
    pub fn fill(&self, value: T) -> Box<T> {
        match self.0.borrow_mut().pop() {
            Some(mut spare) => {
                *spare = value;
                spare
            }
            None => Box::new(value),
        }
    }

    /// Keeps a box; `value` takes the place of what is in it.
    pub fn keep(&self, mut spare: Box<T>, value: T) {
        *spare = value;
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT_MAX {
            kept.push(spare);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::task::Waker;

    use super::*;

    #[test]
    fn slabs_are_used_again_once_nothing_lies_in_them() {
        let spares = Spares::default();
        let encode = |text: &'static [u8]| {
            let put = |out: &mut BytesMut| -> Result<(), ()> {
                out.extend_from_slice(text);
                Ok(())
            };
            spares.encode(put).expect("it is encoded")
        };
        let held = encode(b"held");
        let mut places = std::collections::BTreeSet::new();
        for _ in 0..100_000 {
            let bytes = encode(b"0123456789");
            places.insert(bytes.as_ptr() as usize / SLAB_BYTES);
        }
        assert_eq!(&held[..], b"held");
        // The held one is passed over, two others take turns.
        assert!(spares.slabs.borrow().len() <= 3);
        assert!(places.len() <= 8, "{}", places.len());
        let failed: Result<Bytes, i32> = spares.encode(|out| {
            out.extend_from_slice(b"half");
            Err(7)
        });
        assert_eq!(failed, Err(7));
        assert_eq!(&encode(b"whole")[..], b"whole");
    }

    #[test]
    fn a_box_is_used_for_the_next_request_and_holds_nothing_between() {
        async fn handle(held: Rc<Cell<u32>>, pause: bool) -> Reply {
            if pause {
                std::future::pending::<()>().await;
            }
            held.set(held.get() + 1);
            Reply::Nothing
        }
        let spares = Rc::new(Spares::default());
        let held = Rc::new(Cell::new(0));
        let mut context = Context::from_waker(Waker::noop());
        let mut place = None;
        for round in 0..4 {
            let pause = round % 2 == 1;
            let mut running = Running::new(spares.clone(), handle(held.clone(), pause));
            let here = &raw const **running.future.as_ref().expect("it runs") as *const () as usize;
            assert_eq!(*place.get_or_insert(here), here);
            let ready = Pin::new(&mut running).poll(&mut context).is_ready();
            assert_eq!(ready, !pause);
            drop(running);
            assert_eq!(Rc::strong_count(&held), 1);
        }
        assert_eq!(held.get(), 2);
    }
}
