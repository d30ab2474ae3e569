//! An end that comes between two operations of a disk, and what ends have cost so far.
//!
//! Code that changes several files in one go (a checkpoint, a recovery, a clean stop) never
//! awaits in between, so the world, which acts between polls, can't stop a node there. An
//! armed disk can: before the operation that was counted down to it puts a copy of itself
//! aside. The running task goes on to its next await on the original, unheard by anybody
//! (`sim::net` lets nothing of it out), then the world ends the node and the copy is
//! what is left.
//!
//! Invariant: names and durable names that shared an inode share one in the copy.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::AddAssign;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::{Change, Contents, Inode, NameChange, Node, Shared, SimDisk, State};

/// How a node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The process is killed: what it has written stays, synced or not.
    Kill,
    /// The power goes: what was synced stays, with any part of the rest.
    PowerCut,
}

/// What power cuts have taken so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CutCounts {
    /// Writes that weren't synced: all of them, those that went, those of which parts went.
    pub unsynced_writes: u64,
    pub lost_writes: u64,
    pub torn_writes: u64,
    /// Sectors that went of torn writes.
    pub lost_sectors: u64,
    /// Changes of names that went.
    pub lost_names: u64,
}

impl AddAssign for CutCounts {
    fn add_assign(&mut self, other: CutCounts) {
        self.unsynced_writes += other.unsynced_writes;
        self.lost_writes += other.lost_writes;
        self.torn_writes += other.torn_writes;
        self.lost_sectors += other.lost_sectors;
        self.lost_names += other.lost_names;
    }
}

/// An end that is to come, or has come and is yet to be carried out.
#[derive(Default)]
pub(super) enum Armed {
    #[default]
    No,
    /// After so many more operations.
    After(u64, End),
    Struck(Copy, End),
}

/// What the end found on the disk.
pub(super) struct Copy {
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    unsynced_names: VecDeque<(u64, NameChange)>,
}

impl SimDisk {
    /// Ends its node before the operation after the next `operations` that change
    /// contents or names or sync them.
    pub(in crate::sim) fn end_after(&self, operations: u64, end: End) {
        self.0.state().armed = Armed::After(operations, end);
    }

    /// The end has come: nothing that the node does from now on counts.
    pub(in crate::sim) fn has_ended(&self) -> bool {
        self.0.ended.load(Ordering::Relaxed)
    }

    /// Carries the end out, once the node's tasks are gone. An end that didn't come to
    /// pass is forgotten.
    pub(in crate::sim) fn take_end(&self) -> Option<End> {
        let mut state = self.0.state();
        self.0.ended.store(false, Ordering::Relaxed);
        match std::mem::take(&mut state.armed) {
            Armed::Struck(copy, end) => {
                state.restore(copy);
                Some(end)
            }
            Armed::No | Armed::After(..) => None,
        }
    }

    /// What power cuts have taken so far.
    pub fn cut_counts(&self) -> CutCounts {
        self.0.state().cut_counts
    }
}

impl Shared {
    /// Counts an operation that is about to happen.
    pub(super) fn tick(&self, state: &mut State) {
        match &mut state.armed {
            Armed::After(0, end) => {
                let end = *end;
                state.armed = Armed::Struck(state.copy(), end);
                self.ended.store(true, Ordering::Relaxed);
            }
            Armed::After(left, _) => *left -= 1,
            Armed::No | Armed::Struck(..) => {}
        }
    }
}

impl State {
    fn copy(&self) -> Copy {
        let mut copies: HashMap<*const Inode, Arc<Inode>> = HashMap::new();
        let mut copy_node = |node: &Node| match node {
            Node::Dir => Node::Dir,
            Node::File(inode) => {
                let copy = copies.entry(Arc::as_ptr(inode)).or_insert_with(|| {
                    let contents = inode.lock().copy();
                    Arc::new(Inode(Mutex::new(contents)))
                });
                Node::File(copy.clone())
            }
        };
        let mut copy_names = |names: &BTreeMap<PathBuf, Node>| {
            let copied = names
                .iter()
                .map(|(path, node)| (path.clone(), copy_node(node)));
            copied.collect()
        };
        let (names, durable_names) = (copy_names(&self.names), copy_names(&self.durable_names));
        let unsynced_names = self.unsynced_names.iter().map(|(number, change)| {
            let change = match change {
                NameChange::Put(path, node) => NameChange::Put(path.clone(), copy_node(node)),
                other => other.clone(),
            };
            (*number, change)
        });
        Copy {
            names,
            durable_names,
            unsynced_names: unsynced_names.collect(),
        }
    }

    fn restore(&mut self, copy: Copy) {
        self.names = copy.names;
        self.durable_names = copy.durable_names;
        self.unsynced_names = copy.unsynced_names;
        // Handles of before reach nothing any more.
        self.handles.clear();
        self.locked.clear();
    }
}

impl Contents {
    fn copy(&self) -> Contents {
        let unsynced = self.unsynced.iter().map(|(number, change)| {
            let change = match change {
                Change::Data { position, bytes } => Change::Data {
                    position: *position,
                    bytes: bytes.clone(),
                },
                Change::Len(len) => Change::Len(*len),
            };
            (*number, change)
        });
        Contents {
            bytes: self.bytes.clone(),
            durable: self.durable.clone(),
            unsynced: unsynced.collect(),
            modified_ms: self.modified_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::path::Path;

    use super::*;
    use crate::io::{Disk, OpenMode};

    /// Makes a file beside another and renames it over that; the disk ends before the
    /// operation of this number. What is left under the name, and what the writer saw.
    fn replace(operations: u64, end: End) -> (Option<Vec<u8>>, Vec<u8>) {
        let disk = SimDisk::new(operations);
        let path = Path::new("/a");
        let make = |path: &Path, bytes: &[u8]| {
            let file = disk.open(path, OpenMode::Create).unwrap();
            file.write_all_at(&[IoSlice::new(bytes)], 0).unwrap();
            file.sync_data().unwrap();
        };
        make(path, b"old");
        disk.sync_dir(Path::new("/")).unwrap();
        disk.end_after(operations, end);
        make(Path::new("/b"), b"new");
        disk.rename(Path::new("/b"), path).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let seen = disk.read(path, 100).unwrap();
        let ended = disk.has_ended();
        assert_eq!(disk.take_end(), ended.then_some(end));
        assert!(!disk.has_ended());
        if end == End::PowerCut {
            disk.crash();
        }
        (disk.read(path, 100).ok(), seen)
    }

    #[test]
    fn an_end_leaves_what_was_there_before_its_operation() {
        let left = |operations, end| {
            let (left, seen) = replace(operations, end);
            assert_eq!(seen, b"new", "the task goes on undisturbed");
            left.unwrap()
        };
        // Create, write, sync, rename, sync of the directory.
        for operations in 0..4 {
            assert_eq!(left(operations, End::Kill), b"old");
            assert_eq!(left(operations, End::PowerCut), b"old");
        }
        assert_eq!(left(4, End::Kill), b"new");
        assert_eq!(left(5, End::PowerCut), b"new", "it didn't come to pass");
    }

    #[test]
    fn a_kill_leaves_unsynced_writes_to_be_synced_by_others() {
        let disk = SimDisk::new(1);
        let path = Path::new("/a");
        let file = disk.open(path, OpenMode::Create).unwrap();
        file.write_all_at(&[IoSlice::new(b"kept")], 0).unwrap();
        disk.end_after(0, End::Kill);
        file.sync_data().unwrap();
        assert_eq!(disk.take_end(), Some(End::Kill));
        let again = disk.open(path, OpenMode::ReadWrite).unwrap();
        again.sync_data().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        disk.crash();
        assert_eq!(disk.read(path, 100).unwrap(), b"kept");
        assert_eq!(disk.cut_counts(), CutCounts::default());
    }
}
