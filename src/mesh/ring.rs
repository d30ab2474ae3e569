//! A bounded ring from one core to one other, in order and without locks.
//!
//! ```text
//!  slots   . . . . m m m m m . . .      head: next to take    tail: next to fill
//!                  ▲         ▲          both run from 0 to twice the capacity, so that
//!                  head      tail       full and empty differ
//! ```
//! Used by `port` and `replies`. Each side remembers what it last saw of the other's
//! position and looks again only when that is used up; the receiver publishes its position
//! once for a run of messages. So a busy ring costs few cache misses.
//!
//! Invariants: slots from head to tail are filled, all others empty; only the sender writes
//! `tail`, only the receiver `head`. Whoever wakes the other side fences first (`ready`).

use std::mem::MaybeUninit;

use super::sync::{Arc, AtomicBool, AtomicUsize, Ordering, UnsafeCell, fence};

/// The receiver publishes its position at least after so many messages.
const RUN_MAX: usize = 64;

struct Shared<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    /// The sender is to be told when there is room again.
    room_wanted: AtomicBool,
    /// The sender is gone.
    ended: AtomicBool,
    tail: Line,
    head: Line,
}

/// A position alone on its cache line.
#[repr(align(64))]
struct Line(AtomicUsize);

// SAFETY: a slot is accessed by the sender while it is empty and by the receiver while it
// is filled; the positions' release and acquire order the two. Messages move between
// threads, hence `T: Send`.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<T> {}

pub(super) struct Sender<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    /// As it was last seen.
    head: usize,
}

pub(super) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    /// The head that the sender may see.
    published: usize,
    /// As it was last seen.
    tail: usize,
    /// A head was published since `take_room_wanted` was last asked.
    made_room: bool,
}

/// Bytes that a ring takes beside its messages.
pub(super) const fn fixed_bytes<T>() -> usize {
    // The counts of the Arc are padded to the alignment.
    size_of::<Shared<T>>() + align_of::<Shared<T>>()
}

pub(super) fn ring<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a ring without room passes nothing on");
    let slots = (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit()));
    let shared = Arc::new(Shared {
        slots: slots.collect(),
        room_wanted: AtomicBool::new(false),
        ended: AtomicBool::new(false),
        tail: Line(AtomicUsize::new(0)),
        head: Line(AtomicUsize::new(0)),
    });
    let sender = Sender {
        shared: shared.clone(),
        tail: 0,
        head: 0,
    };
    let receiver = Receiver {
        shared,
        head: 0,
        published: 0,
        tail: 0,
        made_room: false,
    };
    (sender, receiver)
}

impl<T> Shared<T> {
    fn slot(&self, position: usize) -> &UnsafeCell<MaybeUninit<T>> {
        let capacity = self.slots.len();
        let wraps = position >= capacity;
        &self.slots[if wraps { position - capacity } else { position }]
    }

    fn after(&self, position: usize) -> usize {
        let next = position + 1;
        if next == 2 * self.slots.len() {
            0
        } else {
            next
        }
    }

    fn filled(&self, head: usize, tail: usize) -> usize {
        if tail >= head {
            tail - head
        } else {
            tail + 2 * self.slots.len() - head
        }
    }
}

impl<T> Sender<T> {
    /// Gives the message back when there is no room.
    pub(super) fn push(&mut self, message: T) -> Result<(), T> {
        if !self.has_room() {
            return Err(message);
        }
        self.shared.slot(self.tail).with_mut(|slot| {
            // SAFETY: the slot is empty, so the receiver doesn't touch it before it sees the
            // new tail; the acquire in `has_room` came after it was emptied.
            unsafe { (*slot).write(message) };
        });
        self.tail = self.shared.after(self.tail);
        self.shared.tail.0.store(self.tail, Ordering::Release);
        Ok(())
    }

    fn has_room(&mut self) -> bool {
        let capacity = self.shared.slots.len();
        if self.shared.filled(self.head, self.tail) < capacity {
            return true;
        }
        self.head = self.shared.head.0.load(Ordering::Acquire);
        self.shared.filled(self.head, self.tail) < capacity
    }

    /// Asks the receiver to tell when it has made room. False when there is room already.
    pub(super) fn wants_room(&mut self) -> bool {
        self.shared.room_wanted.store(true, Ordering::Relaxed);
        // Pairs with the fence in `take_room_wanted`: either we see the room, or the
        // receiver sees that we want it.
        fence(Ordering::SeqCst);
        !self.has_room()
    }

    /// Nothing more will be sent.
    pub(super) fn end(&self) {
        self.shared.ended.store(true, Ordering::Release);
    }
}

impl<T> Receiver<T> {
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.head == self.tail {
            self.tail = self.shared.tail.0.load(Ordering::Acquire);
            if self.head == self.tail {
                return None;
            }
        }
        let message = self.shared.slot(self.head).with_mut(|slot| {
            // SAFETY: the slot lies before a tail that was acquired, so it is filled, and
            // it is read once because the head moves on.
            unsafe { (*slot).assume_init_read() }
        });
        self.head = self.shared.after(self.head);
        let run = self.shared.filled(self.published, self.head);
        if self.head == self.tail || run >= RUN_MAX.min(self.shared.slots.len().div_ceil(2)) {
            self.publish();
        }
        Some(message)
    }

    fn publish(&mut self) {
        self.published = self.head;
        self.shared.head.0.store(self.head, Ordering::Release);
        self.made_room = true;
    }

    /// Whether the sender waits for the room that was made since this was last asked; then
    /// it must be told.
    pub(super) fn take_room_wanted(&mut self) -> bool {
        if !std::mem::take(&mut self.made_room) {
            return false;
        }
        fence(Ordering::SeqCst);
        let wanted = &self.shared.room_wanted;
        wanted.load(Ordering::Relaxed) && wanted.swap(false, Ordering::Relaxed)
    }

    /// Messages to be taken.
    pub(super) fn len(&self) -> usize {
        let tail = self.shared.tail.0.load(Ordering::Acquire);
        self.shared.filled(self.head, tail)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sender is gone, and all that it had sent was taken.
    pub(super) fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire) && self.is_empty()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // What was taken mustn't be dropped again.
        self.publish();
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let tail = self.tail.0.load(Ordering::Acquire);
        let mut head = self.head.0.load(Ordering::Acquire);
        while head != tail {
            self.slot(head).with_mut(|slot| {
                // SAFETY: both sides are gone; slots from head to tail are filled.
                unsafe { (*slot).assume_init_drop() };
            });
            head = self.after(head);
        }
    }
}
