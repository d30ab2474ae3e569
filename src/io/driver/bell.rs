//! The doorbell of a core: what other threads may know of it, and how they wake it.
//!
//! A core that goes to sleep says so, fences, and looks once more for work; a sender pushes
//! its work, fences, and rings only a core that sleeps. One of the two always sees the
//! other. Other cores ring through their rings (`Driver::ring_bell`), the cheapest way;
//! a thread without a ring can only ask for a stop.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{OnceLock, Weak};

use super::sleep::SleepFlag;

use crossbeam_utils::CachePadded;

use crate::base::CoreId;
use crate::io::sentinel::Heartbeat;

/// What others have left for cores, as far as any thread may see it.
pub(crate) trait Inbox: Send + Sync {
    fn has_work(&self, core: CoreId) -> bool;
}

/// What other threads may know of a core: whether it sleeps, how to wake it, and whether
/// it was asked to stop.
#[derive(Debug)]
pub struct Bell {
    sleeping: SleepFlag,
    /// Descriptor of the core's ring; -1 before it stands and after it is gone.
    ring: AtomicI32,
    /// A second descriptor of that ring, so that its number isn't reused while somebody
    /// might still ring it.
    ring_kept: OnceLock<OwnedFd>,
    stop: AtomicBool,
    /// Wakes the core for a stop from a thread without a ring; a simulated core needs none.
    stop_event: Option<OwnedFd>,
    /// For the sentinel: whether a core that sleeps should have been rung. Weak, for senders
    /// know the bells and the inbox theirs.
    inbox: OnceLock<(Weak<dyn Inbox>, CoreId)>,
    /// Written each turn, so not beside what the senders read.
    heart: CachePadded<Heartbeat>,
}

impl Bell {
    pub(in crate::io) fn new() -> io::Result<Bell> {
        // SAFETY: plain system call; the descriptor it returns is owned by nobody else.
        let stop_event = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Bell {
            sleeping: SleepFlag::new(),
            ring: AtomicI32::new(-1),
            ring_kept: OnceLock::new(),
            stop: AtomicBool::new(false),
            stop_event: Some(stop_event),
            inbox: OnceLock::new(),
            heart: CachePadded::new(Heartbeat::new()),
        })
    }

    /// For a core that never sleeps in a ring.
    pub(in crate::io) fn without_ring() -> Bell {
        Bell {
            sleeping: SleepFlag::new(),
            ring: AtomicI32::new(-1),
            ring_kept: OnceLock::new(),
            stop: AtomicBool::new(false),
            stop_event: None,
            inbox: OnceLock::new(),
            heart: CachePadded::new(Heartbeat::new()),
        }
    }

    /// Asks the core to stop; allowed in a signal handler.
    pub(in crate::io) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        let Some(event) = &self.stop_event else {
            return;
        };
        let one = 1u64.to_ne_bytes();
        // SAFETY: writes eight bytes from a live array to a descriptor that `self` owns.
        // It can fail only because the counter is full, and then the core is awake.
        unsafe { libc::write(event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    pub(in crate::io) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    pub(in crate::io) fn heart(&self) -> &Heartbeat {
        &self.heart
    }

    /// Whether the core sleeps and nobody has rung since.
    pub(in crate::io) fn is_sleeping(&self) -> bool {
        self.sleeping.is_set()
    }

    /// Shows the sentinel what others leave for the core, which has this number there; once.
    pub(crate) fn show_inbox(&self, inbox: Weak<dyn Inbox>, core: CoreId) {
        let fresh = self.inbox.set((inbox, core));
        assert!(fresh.is_ok(), "a core has one inbox");
    }

    /// Whether others have left something that the core hasn't taken.
    pub(in crate::io) fn has_work(&self) -> bool {
        self.inbox.get().is_some_and(|(inbox, core)| {
            let inbox = inbox.upgrade();
            inbox.is_some_and(|inbox| inbox.has_work(*core))
        })
    }

    /// The core's ring, while there is one.
    pub(in crate::io) fn ring(&self) -> Option<RawFd> {
        let ring = self.ring.load(Ordering::Relaxed);
        (ring >= 0).then_some(ring)
    }

    pub(super) fn stop_event(&self) -> Option<RawFd> {
        self.stop_event.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Makes the bell ring the ring of a descriptor; `second` is a duplicate of it.
    pub(super) fn hang(&self, second: OwnedFd) {
        self.ring.store(second.as_raw_fd(), Ordering::SeqCst);
        self.ring_kept
            .set(second)
            .expect("a bell belongs to one driver");
    }

    /// The core ends: nobody needs to ring any more.
    pub(super) fn take_down(&self) {
        self.ring.store(-1, Ordering::SeqCst);
    }

    /// The core is about to sleep. It must look for work once more after this.
    pub(super) fn fall_asleep(&self) {
        self.sleeping.fall_asleep();
    }

    pub(super) fn wake_up(&self) {
        self.sleeping.wake_up();
    }

    /// The ring to be rung, if the core sleeps and nobody else is ringing it. What it is
    /// to find must have been pushed before.
    pub(in crate::io) fn sleeper(&self) -> Option<RawFd> {
        if !self.sleeping.take() {
            return None;
        }
        self.ring()
    }
}
