//! System calls on files that held a core for longer than its budget, counted by directory
//! and operation.
//!
//! Called by `disk` around each call and read by `Rt::blocked_calls` for telemetry. The
//! table belongs to one core and is found through its thread, because a [`File`] may be used
//! by several cores; threads that aren't cores count nothing.
//!
//! Invariants: the table is bounded, what finds no room is counted under "other"; a call
//! costs two looks at the clock, and memory only when it was slow.
//!
//! [`File`]: super::File

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::driver::Bell;
use super::rt::real_now;

/// A call that takes longer holds the core for longer than anything may.
pub(super) const BUDGET: Duration = Duration::from_micros(500);

/// Directory and operation pairs that are counted apart.
const ENTRIES_MAX: usize = 64;

/// Where calls are counted that found no room in the table.
const OTHER: &str = "other";

/// A synchronous call on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    Open = 1,
    Read,
    Write,
    Length,
    Resize,
    Sync,
    Rename,
    Remove,
    CreateDirectory,
    ReadDirectory,
    Lock,
}

impl Operation {
    /// Of a core that is in no call.
    pub(super) const NONE: u8 = 0;

    pub fn as_str(self) -> &'static str {
        Operation::name(self as u8)
    }

    pub(super) fn name(number: u8) -> &'static str {
        const NAMES: [&str; 12] = [
            "none",
            "open",
            "read",
            "write",
            "length",
            "resize",
            "sync",
            "rename",
            "remove",
            "create directory",
            "read directory",
            "lock",
        ];
        NAMES.get(usize::from(number)).unwrap_or(&OTHER)
    }
}

/// Slow calls of one operation in one directory, since the core's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedCalls {
    /// The directory of the file, or "other".
    pub directory: String,
    pub operation: Operation,
    pub count: u64,
    pub total: Duration,
    pub longest: Duration,
}

/// A core's table.
pub(super) struct BlockedTable {
    bell: Arc<Bell>,
    entries: RefCell<Vec<BlockedCalls>>,
}

thread_local! {
    static TABLE: RefCell<Option<Rc<BlockedTable>>> = const { RefCell::new(None) };
}

impl BlockedTable {
    /// The table of the core whose thread this is.
    pub(super) fn install(bell: Arc<Bell>) -> Rc<BlockedTable> {
        let table = Rc::new(BlockedTable {
            bell,
            entries: RefCell::new(Vec::new()),
        });
        TABLE.set(Some(table.clone()));
        table
    }

    pub(super) fn snapshot(&self) -> Vec<BlockedCalls> {
        self.entries.borrow().clone()
    }

    /// Number of slow calls.
    pub(super) fn count(&self) -> u64 {
        self.entries.borrow().iter().map(|entry| entry.count).sum()
    }

    #[cold]
    fn record(&self, directory: &Path, operation: Operation, took: Duration) {
        let directory = directory.to_string_lossy();
        let mut entries = self.entries.borrow_mut();
        let find = |entries: &[BlockedCalls], directory: &str| {
            entries
                .iter()
                .position(|entry| entry.operation == operation && entry.directory == directory)
        };
        let (found, name) = match find(&entries, &directory) {
            None if entries.len() >= ENTRIES_MAX => (find(&entries, OTHER), OTHER),
            found => (found, &*directory),
        };
        // One entry a operation at most comes on top of the bound, for "other".
        let index = found.unwrap_or_else(|| {
            entries.push(BlockedCalls {
                directory: name.to_owned(),
                operation,
                count: 0,
                total: Duration::ZERO,
                longest: Duration::ZERO,
            });
            entries.len() - 1
        });
        let entry = &mut entries[index];
        entry.count += 1;
        entry.total += took;
        entry.longest = entry.longest.max(took);
    }
}

/// Makes a call, and counts it if it was slow and this thread is a core.
pub(super) fn watched<T>(directory: &Path, operation: Operation, call: impl FnOnce() -> T) -> T {
    TABLE.with_borrow(|table| {
        let Some(table) = table else {
            return call();
        };
        let heart = table.bell.heart();
        heart.enter_operation(operation);
        let start = real_now();
        let result = call();
        let took = real_now().saturating_since(start);
        heart.leave_operation();
        if took > BUDGET {
            table.record(directory, operation, took);
        }
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_calls_are_counted_by_directory_and_operation_within_bounds() {
        let table = BlockedTable::install(Arc::new(Bell::without_ring()));
        let slow = || std::thread::sleep(2 * BUDGET);
        for _ in 0..3 {
            watched(Path::new("/a"), Operation::Read, slow);
        }
        watched(Path::new("/a"), Operation::Sync, slow);
        let counts = |table: &BlockedTable| -> Vec<(String, Operation, u64)> {
            let entries = table.snapshot().into_iter();
            entries
                .map(|e| (e.directory, e.operation, e.count))
                .collect()
        };
        assert_eq!(
            counts(&table),
            [
                ("/a".to_owned(), Operation::Read, 3),
                ("/a".to_owned(), Operation::Sync, 1)
            ]
        );
        for n in 0..2 * ENTRIES_MAX {
            table.record(Path::new(&format!("/{n}")), Operation::Write, BUDGET);
        }
        let counts = counts(&table);
        assert_eq!(counts.len(), ENTRIES_MAX + 1);
        assert_eq!(counts[ENTRIES_MAX].0, OTHER);
        assert_eq!(table.count(), 4 + 2 * ENTRIES_MAX as u64);
        assert!(table.snapshot()[0].longest >= 2 * BUDGET);
        TABLE.set(None);
        watched(Path::new("/a"), Operation::Read, slow);
        assert_eq!(table.snapshot()[0].count, 3);
    }
}
