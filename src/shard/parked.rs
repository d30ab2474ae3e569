//! Fetches of followers that may wait, by their session: a follower that has a partition more
//! to fetch doesn't let the fetch before wait out its time, but sends the next one behind it.
//!
//! Used by `api::fetch`, which enters a follower's fetch here before it reads, and by
//! `shard::fetch`, where it waits.
//!
//! Invariant: only the last fetch of a session that has come to this core waits.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::io::local::Notify;

#[derive(Default)]
pub struct Parked(Rc<RefCell<Latest>>);

/// The latest fetch of each session, while it lasts.
type Latest = BTreeMap<i32, Rc<Notify>>;

/// A fetch's leave to wait.
pub struct Leave {
    session_id: i32,
    ended: Rc<Notify>,
    all: Rc<RefCell<Latest>>,
}

impl Parked {
    /// A fetch of a session has come: the one before waits no longer.
    pub fn enter(&self, session_id: i32) -> Leave {
        let ended = Rc::new(Notify::new());
        let before = self.0.borrow_mut().insert(session_id, ended.clone());
        if let Some(before) = before {
            before.notify_one();
        }
        Leave {
            session_id,
            ended,
            all: self.0.clone(),
        }
    }
}

impl Leave {
    /// Resolves when the next fetch of the session has come.
    pub async fn ended(&self) {
        self.ended.notified().await;
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        let mut all = self.all.borrow_mut();
        let latest = all.get(&self.session_id);
        if latest.is_some_and(|latest| Rc::ptr_eq(latest, &self.ended)) {
            all.remove(&self.session_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn is_over(leave: &Leave) -> bool {
        let ended = pin!(leave.ended());
        let polled = ended.poll(&mut Context::from_waker(Waker::noop()));
        polled == Poll::Ready(())
    }

    #[test]
    fn the_next_fetch_of_a_session_ends_the_wait_of_the_one_before() {
        let parked = Parked::default();
        let first = parked.enter(1);
        let other = parked.enter(2);
        assert!(!is_over(&first));
        let second = parked.enter(1);
        assert!(is_over(&first));
        drop(first);
        assert!(!is_over(&second) && !is_over(&other));
        let third = parked.enter(1);
        assert!(
            is_over(&second),
            "the first's end has forgotten nobody else"
        );
        drop((second, third, other));
        assert!(parked.0.borrow().is_empty());
    }
}
