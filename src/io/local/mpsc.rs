//! A bounded queue from several tasks to one.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::Notify;

struct Shared<T> {
    state: RefCell<State<T>>,
    /// Notified when there is room, or the receiver is gone.
    room: Notify,
}

struct State<T> {
    queue: VecDeque<T>,
    capacity: usize,
    senders: usize,
    receiver: bool,
    waker: Option<Waker>,
}

/// A queue that holds at most `capacity` (at least one) values.
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a queue without room passes nothing on");
    let shared = Rc::new(Shared {
        state: RefCell::new(State {
            queue: VecDeque::new(),
            capacity,
            senders: 1,
            receiver: true,
            waker: None,
        }),
        room: Notify::new(),
    });
    (Sender(shared.clone()), Receiver(shared))
}

pub struct Sender<T>(Rc<Shared<T>>);

/// Why a value wasn't queued; it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrySendError<T> {
    Full(T),
    Closed(T),
}

impl<T> Sender<T> {
    /// Waits for room; gives the value back when the receiver is gone.
    pub async fn send(&self, mut value: T) -> Result<(), T> {
        loop {
            match self.try_send(value) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Closed(value)) => return Err(value),
                Err(TrySendError::Full(back)) => value = back,
            }
            self.0.room.notified().await;
        }
    }

    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let waker = {
            let mut state = self.0.state.borrow_mut();
            if !state.receiver {
                return Err(TrySendError::Closed(value));
            }
            if state.queue.len() >= state.capacity {
                return Err(TrySendError::Full(value));
            }
            state.queue.push_back(value);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        !self.0.state.borrow().receiver
    }

    /// Number of values that wait.
    pub fn len(&self) -> usize {
        self.0.state.borrow().queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state.borrow_mut().senders += 1;
        Sender(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.0.state.borrow_mut();
            state.senders -= 1;
            if state.senders > 0 {
                return;
            }
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

pub struct Receiver<T>(Rc<Shared<T>>);

impl<T> Receiver<T> {
    /// The next value; `None` once all senders are gone and the queue is empty.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|cx| {
            if let Some(value) = self.try_recv() {
                return Poll::Ready(Some(value));
            }
            let mut state = self.0.state.borrow_mut();
            if state.senders == 0 {
                return Poll::Ready(None);
            }
            state.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// The next value, if there is one now.
    pub fn try_recv(&mut self) -> Option<T> {
        let value = self.0.state.borrow_mut().queue.pop_front()?;
        self.0.room.notify_one();
        Some(value)
    }

    /// Number of values that wait.
    pub fn len(&self) -> usize {
        self.0.state.borrow().queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let queue = {
            let mut state = self.0.state.borrow_mut();
            state.receiver = false;
            std::mem::take(&mut state.queue)
        };
        self.0.room.notify_all();
        drop(queue);
    }
}
