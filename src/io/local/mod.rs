//! Talking among the tasks of one core: plain cells, no atomics, not `Send`.

mod combine;
mod lock;
pub mod mpsc;
mod notify;
pub mod oneshot;

pub use combine::{Either, Elapsed, either, or_deadline};
pub use lock::{Held, Lock};
pub use mpsc::channel;
pub use notify::{Notified, Notify};
pub use oneshot::oneshot;

/// The other side was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other side is gone")]
pub struct Closed;

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::mpsc::TrySendError;
    use super::*;

    fn poll<T>(future: impl Future<Output = T> + Unpin) -> Poll<T> {
        let mut future = future;
        pin!(&mut future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_oneshot_passes_one_value_or_the_news_that_none_comes() {
        let (sender, mut receiver) = oneshot();
        assert!(poll(&mut receiver).is_pending());
        assert!(!sender.is_closed());
        sender.send(1).unwrap();
        assert_eq!(poll(&mut receiver), Poll::Ready(Ok(1)));
        assert_eq!(poll(&mut receiver), Poll::Ready(Err(Closed)));
        let (sender, mut receiver) = oneshot::<()>();
        drop(sender);
        assert_eq!(receiver.try_recv(), None);
        assert_eq!(poll(receiver), Poll::Ready(Err(Closed)));
        let (sender, receiver) = oneshot();
        drop(receiver);
        assert!(sender.is_closed());
        assert_eq!(sender.send(2), Err(2));
    }

    #[test]
    fn a_notification_goes_to_who_waited_longest_and_is_never_lost() {
        let notify = Notify::new();
        notify.notify_one();
        notify.notify_one();
        assert!(poll(notify.notified()).is_ready());
        let (mut first, mut second) = (notify.notified(), notify.notified());
        assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
        notify.notify_one();
        assert!(poll(&mut second).is_pending());
        // The first was notified and is dropped unawaited: the second has it.
        drop(first);
        assert!(poll(&mut second).is_ready());
        let mut waiting = notify.notified();
        assert!(poll(&mut waiting).is_pending());
        notify.notify_all();
        assert!(poll(&mut waiting).is_ready());
        assert!(poll(notify.notified()).is_pending(), "nobody later");
    }

    #[test]
    fn a_lock_has_one_holder() {
        let lock = Lock::default();
        let Poll::Ready(held) = poll(Box::pin(lock.lock())) else {
            panic!("it is free");
        };
        let (mut second, mut third) = (Box::pin(lock.lock()), Box::pin(lock.lock()));
        assert!(poll(&mut second).is_pending() && poll(&mut third).is_pending());
        drop(held);
        assert!(poll(&mut third).is_pending());
        // Its turn goes on to the next.
        drop(second);
        assert!(poll(&mut third).is_ready());
        assert!(poll(Box::pin(lock.lock())).is_ready());
    }

    #[test]
    fn a_channel_is_bounded_and_ends() {
        let (sender, mut receiver) = channel(2);
        sender.try_send(1).unwrap();
        let second = sender.clone();
        second.try_send(2).unwrap();
        assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
        let mut sending = Box::pin(second.send(3));
        assert!(poll(&mut sending).is_pending());
        assert_eq!(receiver.try_recv(), Some(1));
        assert_eq!(poll(&mut sending), Poll::Ready(Ok(())));
        assert_eq!(receiver.len(), 2);
        drop(sending);
        drop((sender, second));
        assert_eq!(poll(Box::pin(receiver.recv())), Poll::Ready(Some(2)));
        assert_eq!(poll(Box::pin(receiver.recv())), Poll::Ready(Some(3)));
        assert_eq!(poll(Box::pin(receiver.recv())), Poll::Ready(None));
        let (sender, receiver) = channel(1);
        sender.try_send(1).unwrap();
        let mut sending = Box::pin(sender.send(2));
        assert!(poll(&mut sending).is_pending());
        drop(receiver);
        assert_eq!(poll(&mut sending), Poll::Ready(Err(2)));
        assert!(sender.is_closed());
    }

    #[test]
    fn of_two_ready_futures_the_first_wins() {
        let both = either(std::future::ready(1), std::future::ready(2));
        assert_eq!(poll(Box::pin(both)), Poll::Ready(Either::First(1)));
        let second = either(std::future::pending::<()>(), std::future::ready(2));
        assert_eq!(poll(Box::pin(second)), Poll::Ready(Either::Second(2)));
    }
}
