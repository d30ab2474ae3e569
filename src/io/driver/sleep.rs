//! The flag of a core that sleeps: either the core sees what was pushed for it, or whoever
//! pushed it sees that the core sleeps.
//!
//! Part of the bell. All changes are swaps, no dearer than a store that is sequentially
//! consistent, so that each sees the one before it. tests/mesh_loom.rs tries it with the mesh's rings in every order.

use super::sync::{AtomicBool, Ordering, fence};

#[derive(Debug)]
pub(super) struct SleepFlag(AtomicBool);

impl SleepFlag {
    pub(super) fn new() -> SleepFlag {
        SleepFlag(AtomicBool::new(false))
    }

    /// The core is about to sleep. It must look for work once more after this.
    pub(super) fn fall_asleep(&self) {
        self.0.swap(true, Ordering::AcqRel);
        // Pairs with the fence in `take`.
        fence(Ordering::SeqCst);
    }

    pub(super) fn wake_up(&self) {
        self.0.swap(false, Ordering::AcqRel);
    }

    /// Whether the core sleeps and nobody has taken it upon himself to wake it, for a look
    /// that changes nothing.
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether the core sleeps and nobody else has taken it upon himself to wake it. What
    /// it is to find must have been pushed before.
    pub(super) fn take(&self) -> bool {
        // Pairs with the fence in `fall_asleep`: either we see that it sleeps, or it sees
        // what was pushed.
        fence(Ordering::SeqCst);
        self.is_set() && self.0.swap(false, Ordering::AcqRel)
    }
}
