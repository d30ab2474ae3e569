//! What a simulated disk refuses: reads, writes or syncs below a path, with `EIO`, directories
//! to be opened, with `EMFILE`, and syncs that take longer. Set by tests; `sim::disk` asks before each operation.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{SimDisk, State, eio};

/// What fails on files and directories below a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub path: PathBuf,
    pub what: Fails,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fails {
    /// Reads that touch these bytes.
    Reads(Range<u64>),
    /// Every change of contents and names. What is there can be read.
    Writes,
    /// Every sync, which also loses what it covered.
    Syncs,
    /// Opening a directory: too many files are open.
    Descriptors,
}

impl SimDisk {
    /// From now on, until [`SimDisk::mend`].
    pub fn break_down(&self, path: impl Into<PathBuf>, what: Fails) {
        let path = path.into();
        self.0.state().faults.push(Fault { path, what });
    }

    /// Nothing fails any more by [`SimDisk::break_down`].
    pub fn mend(&self) {
        self.0.state().faults.clear();
    }

    /// A disk that is held back: every sync through the ring takes so much longer.
    pub fn set_sync_delay(&self, delay: Duration) {
        self.0.state().sync_delay = delay;
    }

    pub(in crate::sim) fn sync_delay(&self) -> Duration {
        self.0.state().sync_delay
    }
}

impl State {
    /// Whether a fault stands against this; reads ask with their range.
    pub(super) fn check(&self, path: &Path, asked: Fails) -> io::Result<()> {
        let hit = self.faults.iter().any(|fault| {
            path.starts_with(&fault.path)
                && match (&fault.what, &asked) {
                    (Fails::Reads(bad), Fails::Reads(range)) => {
                        range.start < bad.end && bad.start < range.end
                    }
                    (what, asked) => what == asked,
                }
        });
        match hit {
            true if asked == Fails::Descriptors => Err(io::Error::from_raw_os_error(libc::EMFILE)),
            true => Err(eio()),
            false => Ok(()),
        }
    }
}
