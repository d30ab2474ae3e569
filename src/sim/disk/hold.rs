//! Syncs that don't end until they are let go: what waits for the disk has to wait.

use std::path::Path;

use super::{SimDisk, SyncTicket};

impl SimDisk {
    /// Lets syncs of what lies at or below a path not end, until [`Self::release_syncs`].
    pub fn hold_syncs(&self, path: &Path) {
        self.0.state().held = Some(path.to_owned());
    }

    pub fn release_syncs(&self) {
        self.0.state().held = None;
    }

    pub(in crate::sim) fn is_held(&self, ticket: &SyncTicket) -> bool {
        let state = self.0.state();
        let held = state.held.as_deref();
        held.is_some_and(|held| ticket.path.starts_with(held))
    }
}
