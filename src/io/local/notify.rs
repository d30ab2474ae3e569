//! Waking tasks that wait for something to change.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// Wakes waiting tasks, first come, first served.
#[derive(Debug, Default)]
pub struct Notify {
    /// A `notify_one` that found nobody waiting.
    permit: Cell<bool>,
    waiters: RefCell<Slab<Waiter>>,
    /// Number of the next waiter: the smallest has waited longest.
    next: Cell<u64>,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    /// Absent once it was notified.
    waker: Option<Waker>,
}

impl Notify {
    pub fn new() -> Notify {
        Notify::default()
    }

    /// Wakes the task that has waited longest. When none waits, the next to wait goes on
    /// at once; several such calls count as one.
    pub fn notify_one(&self) {
        let woken = {
            let mut waiters = self.waiters.borrow_mut();
            let waiting = waiters.iter_mut().filter(|(_, w)| w.waker.is_some());
            waiting
                .min_by_key(|(_, waiter)| waiter.number)
                .and_then(|(_, waiter)| waiter.waker.take())
        };
        match woken {
            Some(waker) => waker.wake(),
            None => self.permit.set(true),
        }
    }

    /// Wakes all tasks that wait now, and nobody later.
    pub fn notify_all(&self) {
        let mut wakers: Vec<(u64, Waker)> = {
            let mut waiters = self.waiters.borrow_mut();
            waiters
                .iter_mut()
                .filter_map(|(_, waiter)| Some((waiter.number, waiter.waker.take()?)))
                .collect()
        };
        wakers.sort_unstable_by_key(|(number, _)| *number);
        for (_, waker) in wakers {
            waker.wake();
        }
    }

    /// Waits from its first poll on.
    pub fn notified(&self) -> Notified<'_> {
        Notified {
            notify: self,
            key: None,
        }
    }
}

/// Resolves when it was notified.
#[must_use = "a notification is waited for by awaiting it"]
#[derive(Debug)]
pub struct Notified<'a> {
    notify: &'a Notify,
    key: Option<usize>,
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let notify = self.notify;
        let mut waiters = notify.waiters.borrow_mut();
        match self.key {
            None => {
                if notify.permit.replace(false) {
                    return Poll::Ready(());
                }
                let number = notify.next.get();
                notify.next.set(number + 1);
                let waker = Some(cx.waker().clone());
                self.key = Some(waiters.insert(Waiter { number, waker }));
                Poll::Pending
            }
            Some(key) => match &mut waiters[key].waker {
                Some(waker) => {
                    if !waker.will_wake(cx.waker()) {
                        *waker = cx.waker().clone();
                    }
                    Poll::Pending
                }
                None => {
                    waiters.remove(key);
                    self.key = None;
                    Poll::Ready(())
                }
            },
        }
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waiter = self.notify.waiters.borrow_mut().remove(key);
            if waiter.waker.is_none() {
                // Notified, but never told: somebody else is to have it.
                self.notify.notify_one();
            }
        }
    }
}
