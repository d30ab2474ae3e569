//! A disk that forgets: what was written is seen at once, but is durable only once it was
//! synced, and a crash keeps any part of the rest.
//!
//! ```text
//! write  → contents (what reads see), unsynced += the write
//! sync   → durable += the unsynced writes up to the call
//! crash  → contents = durable + of each unsynced write all, none, or some sectors
//! names  → likewise: made durable by sync_dir in the order in which they were changed
//! ```
//! One per node; it outlives the node's crashes. Deliberately harsher than ext4: syncing a
//! file doesn't make its name durable. [`cut`] ends a node between two operations.

mod cut;
mod faults;
mod hold;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use cut::Armed;
pub use cut::{CutCounts, End};
pub use faults::{Fails, Fault};

use crate::base::{Millis, Rng};
use crate::io::disk::{DirEntry, Space};
use crate::io::{Disk, File, OpenMode};

/// A handle of one node's disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    wall_ms: AtomicI64,
    /// The armed end has come.
    ended: AtomicBool,
}

struct State {
    rng: Rng,
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    /// Changes of names that aren't durable, with their numbers.
    unsynced_names: VecDeque<(u64, NameChange)>,
    locked: Vec<PathBuf>,
    /// Counts changes of names and contents.
    changes: u64,
    /// Open handles by their address, to find the one behind a `dyn File`.
    handles: HashMap<usize, Weak<SimFile>>,
    capacity_bytes: u64,
    failing_syncs: u32,
    faults: Vec<Fault>,
    /// What every sync takes longer.
    sync_delay: Duration,
    /// Syncs of files at or below it don't end.
    held: Option<PathBuf>,
    armed: Armed,
    cut_counts: CutCounts,
}

#[derive(Clone)]
enum Node {
    Dir,
    File(Arc<Inode>),
}

#[derive(Clone)]
enum NameChange {
    Put(PathBuf, Node),
    Remove(PathBuf),
    RemoveTree(PathBuf),
    Rename(PathBuf, PathBuf),
}

/// A file's contents; lives as long as a name or a handle.
struct Inode(Mutex<Contents>);

#[derive(Default)]
struct Contents {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    unsynced: VecDeque<(u64, Change)>,
    modified_ms: Millis,
}

enum Change {
    Data { position: u64, bytes: Vec<u8> },
    Len(u64),
}

/// What a sync that has begun will make durable.
pub(super) struct SyncTicket {
    what: Option<Arc<Inode>>,
    /// Number of the last change that it covers.
    up_to: u64,
    path: PathBuf,
}

/// A torn write keeps or loses whole sectors.
const SECTOR_BYTES: usize = 512;

impl SimDisk {
    pub fn new(seed: u64) -> SimDisk {
        let root = [(PathBuf::from("/"), Node::Dir), (PathBuf::new(), Node::Dir)];
        let names = BTreeMap::from(root);
        SimDisk(Arc::new(Shared {
            state: Mutex::new(State {
                rng: Rng::new(seed),
                durable_names: names.clone(),
                names,
                unsynced_names: VecDeque::new(),
                locked: Vec::new(),
                changes: 0,
                handles: HashMap::new(),
                capacity_bytes: u64::MAX,
                failing_syncs: 0,
                faults: Vec::new(),
                sync_delay: Duration::ZERO,
                held: None,
                armed: Armed::No,
                cut_counts: CutCounts::default(),
            }),
            wall_ms: AtomicI64::new(0),
            ended: AtomicBool::new(false),
        }))
    }

    /// Writes that would exceed it fail with `StorageFull`, once what fits has been written;
    /// beyond it no file can be made either.
    pub fn set_capacity_bytes(&self, capacity: u64) {
        self.0.state().capacity_bytes = capacity;
    }

    /// Lets the next syncs fail. As on Linux, what a failed sync covered is not durable,
    /// and no later sync makes it so.
    pub fn fail_syncs(&self, count: u32) {
        self.0.state().failing_syncs = count;
    }

    /// Flips a bit of a file for good.
    pub fn rot(&self, path: &Path, position: u64) -> io::Result<()> {
        let inode = self.0.state().file(path)?;
        let mut contents = inode.lock();
        let at = usize::try_from(position).map_err(io::Error::other)?;
        let contents = &mut *contents;
        for bytes in [&mut contents.bytes, &mut contents.durable] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1;
            }
        }
        Ok(())
    }

    pub(super) fn set_wall_ms(&self, now: Millis) {
        self.0.wall_ms.store(now, Ordering::Relaxed);
    }

    /// The node has lost power: keeps what is durable and, by the seed, parts of the rest.
    pub fn crash(&self) {
        let mut state = self.0.state();
        let state = &mut *state;
        let kept = state.rng.below(state.unsynced_names.len() as u64 + 1) as usize;
        let changes = std::mem::take(&mut state.unsynced_names);
        state.cut_counts.lost_names += (changes.len() - kept) as u64;
        for (_, change) in changes.into_iter().take(kept) {
            change.apply(&mut state.durable_names);
        }
        for node in state.durable_names.values_mut() {
            if let Node::File(inode) = node {
                let (rng, counts) = (&mut state.rng, &mut state.cut_counts);
                let contents = inode.lock().after_crash(rng, counts);
                // A new inode: handles of the past reach it no more.
                *inode = Arc::new(Inode(Mutex::new(contents)));
            }
        }
        state.names = state.durable_names.clone();
        state.locked.clear();
        state.handles.clear();
    }

    /// Begins a sync of a file or directory of this disk.
    pub(super) fn begin_sync(&self, file: &Arc<dyn File>) -> Option<SyncTicket> {
        let state = self.0.state();
        let handle = state.handles.get(&address_of(file))?.upgrade()?;
        Some(SyncTicket {
            what: match &handle.node {
                Node::Dir => None,
                Node::File(inode) => Some(inode.clone()),
            },
            up_to: state.changes,
            path: handle.path.clone(),
        })
    }

    pub(super) fn finish_sync(&self, ticket: SyncTicket) -> io::Result<()> {
        let mut state = self.0.state();
        self.0.tick(&mut state);
        let fails = state.failing_syncs > 0 || state.check(&ticket.path, Fails::Syncs).is_err();
        state.failing_syncs = state.failing_syncs.saturating_sub(1);
        match ticket.what {
            Some(inode) => inode.lock().settle(ticket.up_to, !fails),
            None => state.settle_names(ticket.up_to, !fails),
        }
        if fails {
            return Err(eio());
        }
        Ok(())
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics under this lock")
    }
}

impl State {
    fn file(&self, path: &Path) -> io::Result<Arc<Inode>> {
        match self.names.get(path) {
            Some(Node::File(inode)) => Ok(inode.clone()),
            Some(Node::Dir) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn change_names(&mut self, disk: &Shared, change: NameChange) -> io::Result<()> {
        match &change {
            NameChange::Put(path, _) | NameChange::Remove(path) | NameChange::RemoveTree(path) => {
                self.check(path, Fails::Writes)?;
            }
            NameChange::Rename(from, to) => {
                self.check(from, Fails::Writes)?;
                self.check(to, Fails::Writes)?;
            }
        }
        disk.tick(self);
        change.clone().apply(&mut self.names);
        self.changes += 1;
        self.unsynced_names.push_back((self.changes, change));
        Ok(())
    }

    fn settle_names(&mut self, up_to: u64, durable: bool) {
        while self
            .unsynced_names
            .front()
            .is_some_and(|(n, _)| *n <= up_to)
        {
            if let Some((_, change)) = self.unsynced_names.pop_front()
                && durable
            {
                change.apply(&mut self.durable_names);
            }
        }
    }

    fn require_dir(&self, path: &Path) -> io::Result<()> {
        match self.names.get(path) {
            Some(Node::Dir) => Ok(()),
            Some(Node::File(_)) => Err(ErrorKind::NotADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn require_parent(&self, path: &Path) -> io::Result<()> {
        self.require_dir(path.parent().unwrap_or(Path::new("/")))
    }

    fn used_bytes(&self) -> u64 {
        let nodes = self.names.values();
        nodes
            .map(|node| match node {
                Node::Dir => 0,
                Node::File(inode) => inode.lock().bytes.len() as u64,
            })
            .sum()
    }
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            NameChange::Put(path, node) => {
                names.insert(path, node);
            }
            NameChange::Remove(path) => {
                names.remove(&path);
            }
            NameChange::RemoveTree(path) => names.retain(|name, _| !name.starts_with(&path)),
            NameChange::Rename(from, to) => {
                let moved: Vec<(PathBuf, Node)> = names
                    .iter()
                    .filter(|(name, _)| name.starts_with(&from))
                    .map(|(name, node)| (name.clone(), node.clone()))
                    .collect();
                names.retain(|name, _| !name.starts_with(&from) && !name.starts_with(&to));
                for (name, node) in moved {
                    let rest = name.strip_prefix(&from).expect("it starts with it");
                    // Joining an empty path would add a slash.
                    let name = if rest.as_os_str().is_empty() {
                        to.clone()
                    } else {
                        to.join(rest)
                    };
                    names.insert(name, node);
                }
            }
        }
    }
}

impl Inode {
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().expect("nobody panics under this lock")
    }
}

impl Contents {
    /// Takes the changes up to a number off the list; they are durable, or lost.
    fn settle(&mut self, up_to: u64, durable: bool) {
        while self.unsynced.front().is_some_and(|(n, _)| *n <= up_to) {
            if let Some((_, change)) = self.unsynced.pop_front()
                && durable
            {
                change.apply(&mut self.durable);
            }
        }
    }

    /// What a crash leaves.
    fn after_crash(&self, rng: &mut Rng, counts: &mut CutCounts) -> Contents {
        let mut bytes = self.durable.clone();
        for (_, change) in &self.unsynced {
            counts.unsynced_writes += 1;
            match (change, rng.below(4)) {
                (_, 0) => counts.lost_writes += 1,
                (
                    Change::Data {
                        position,
                        bytes: data,
                    },
                    1,
                ) => {
                    let mut lost = 0;
                    for (index, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                        if rng.one_in(2) {
                            let at = position + (index * SECTOR_BYTES) as u64;
                            write_at(&mut bytes, at, sector);
                        } else {
                            lost += 1;
                        }
                    }
                    counts.lost_sectors += lost;
                    counts.torn_writes += u64::from(lost > 0);
                }
                (
                    Change::Data {
                        position,
                        bytes: data,
                    },
                    2,
                ) => {
                    let kept = rng.below(data.len() as u64 + 1) as usize;
                    write_at(&mut bytes, *position, &data[..kept]);
                    let lost = (data.len() - kept).div_ceil(SECTOR_BYTES);
                    counts.lost_sectors += lost as u64;
                    counts.torn_writes += u64::from(lost > 0);
                }
                (change, _) => change.apply(&mut bytes),
            }
        }
        Contents {
            durable: bytes.clone(),
            bytes,
            unsynced: VecDeque::new(),
            modified_ms: self.modified_ms,
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Data {
                position,
                bytes: data,
            } => write_at(bytes, *position, data),
            Change::Len(len) => bytes.resize(*len as usize, 0),
        }
    }
}

fn write_at(bytes: &mut Vec<u8>, position: u64, data: &[u8]) {
    let start = position as usize;
    if bytes.len() < start + data.len() {
        bytes.resize(start + data.len(), 0);
    }
    bytes[start..start + data.len()].copy_from_slice(data);
}

fn address_of(file: &Arc<dyn File>) -> usize {
    Arc::as_ptr(file).cast::<()>() as usize
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

/// An open file or directory.
struct SimFile {
    disk: Arc<Shared>,
    path: PathBuf,
    node: Node,
    writable: bool,
    holds_lock: bool,
}

impl SimFile {
    fn open(disk: &SimDisk, path: &Path, node: Node, writable: bool, lock: bool) -> Arc<SimFile> {
        let file = Arc::new(SimFile {
            disk: disk.0.clone(),
            path: path.to_owned(),
            node,
            writable,
            holds_lock: lock,
        });
        let address = Arc::as_ptr(&file).cast::<()>() as usize;
        let handle = Arc::downgrade(&file);
        disk.0.state().handles.insert(address, handle);
        file
    }

    fn inode(&self) -> io::Result<&Inode> {
        match &self.node {
            Node::File(inode) => Ok(inode),
            Node::Dir => Err(ErrorKind::IsADirectory.into()),
        }
    }

    fn change(&self, change: Change, added_bytes: u64) -> io::Result<()> {
        let inode = self.inode()?;
        if !self.writable {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let mut state = self.disk.state();
        state.check(&self.path, Fails::Writes)?;
        let mut change = change;
        let mut result = Ok(());
        if added_bytes > 0 && state.capacity_bytes < u64::MAX {
            let free = state.capacity_bytes.saturating_sub(state.used_bytes());
            if added_bytes > free {
                result = Err(ErrorKind::StorageFull.into());
                match &mut change {
                    Change::Data { bytes, .. } => {
                        let missing = usize::try_from(added_bytes - free).unwrap_or(usize::MAX);
                        bytes.truncate(bytes.len().saturating_sub(missing));
                    }
                    Change::Len(_) => return result,
                }
            }
        }
        self.disk.tick(&mut state);
        state.changes += 1;
        let mut contents = inode.lock();
        change.apply(&mut contents.bytes);
        contents.unsynced.push_back((state.changes, change));
        contents.modified_ms = self.disk.wall_ms.load(Ordering::Relaxed);
        result
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        let address = std::ptr::from_ref(self) as usize;
        state.handles.remove(&address);
        if self.holds_lock {
            state.locked.retain(|path| *path != self.path);
        }
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({})", self.path.display())
    }
}

impl File for SimFile {
    fn read_at(&self, into: &mut [u8], position: u64) -> io::Result<usize> {
        let range = position..position.saturating_add(into.len() as u64);
        self.disk.state().check(&self.path, Fails::Reads(range))?;
        let contents = self.inode()?.lock();
        let start = usize::try_from(position).unwrap_or(usize::MAX);
        let rest = contents.bytes.get(start..).unwrap_or(&[]);
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_all_at(&self, from: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        let bytes: Vec<u8> = from
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        if bytes.is_empty() {
            return Ok(());
        }
        let end = position + bytes.len() as u64;
        let added = end.saturating_sub(self.len()?);
        self.change(Change::Data { position, bytes }, added)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.inode()?.lock().bytes.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let added = len.saturating_sub(self.len()?);
        self.change(Change::Len(len), added)
    }

    fn sync_data(&self) -> io::Result<()> {
        let up_to = self.disk.state().changes;
        let what = match &self.node {
            Node::Dir => None,
            Node::File(inode) => Some(inode.clone()),
        };
        let path = self.path.clone();
        SimDisk(self.disk.clone()).finish_sync(SyncTicket { what, up_to, path })
    }

    fn modified_ms(&self) -> io::Result<Millis> {
        Ok(self.inode()?.lock().modified_ms)
    }

    fn raw_fd(&self) -> Option<RawFd> {
        None
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let node = {
            let mut state = self.0.state();
            let found = match state.file(path) {
                Ok(inode) => Some(inode),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            match (found, mode) {
                (Some(inode), _) => Node::File(inode),
                (None, OpenMode::Create | OpenMode::Truncate) => {
                    state.require_parent(path)?;
                    if state.capacity_bytes < u64::MAX && state.used_bytes() >= state.capacity_bytes
                    {
                        return Err(ErrorKind::StorageFull.into());
                    }
                    let contents = Contents {
                        modified_ms: self.0.wall_ms.load(Ordering::Relaxed),
                        ..Contents::default()
                    };
                    let node = Node::File(Arc::new(Inode(Mutex::new(contents))));
                    state.change_names(&self.0, NameChange::Put(path.to_owned(), node.clone()))?;
                    node
                }
                (None, _) => return Err(ErrorKind::NotFound.into()),
            }
        };
        let file = SimFile::open(self, path, node, mode != OpenMode::Read, false);
        if mode == OpenMode::Truncate && file.len()? > 0 {
            file.set_len(0)?;
        }
        Ok(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.state();
        if !state.names.contains_key(from) {
            return Err(ErrorKind::NotFound.into());
        }
        state.require_parent(to)?;
        state.change_names(&self.0, NameChange::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.state();
        state.file(path)?;
        state.change_names(&self.0, NameChange::Remove(path.to_owned()))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.state();
        state.require_dir(path)?;
        state.change_names(&self.0, NameChange::RemoveTree(path.to_owned()))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.state();
        let mut missing = Vec::new();
        for ancestor in path.ancestors() {
            match state.names.get(ancestor) {
                Some(Node::Dir) => break,
                Some(Node::File(_)) => return Err(ErrorKind::AlreadyExists.into()),
                None => missing.push(ancestor.to_owned()),
            }
        }
        for dir in missing.into_iter().rev() {
            state.change_names(&self.0, NameChange::Put(dir, Node::Dir))?;
        }
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.0.state();
        state.require_dir(path)?;
        let inside = state
            .names
            .iter()
            .filter(|(name, _)| name.parent() == Some(path));
        let entries = inside.filter_map(|(name, node)| {
            Some(DirEntry {
                name: name.file_name()?.to_str()?.to_owned(),
                is_dir: matches!(node, Node::Dir),
            })
        });
        Ok(entries.collect())
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let state = self.0.state();
        state.require_dir(path)?;
        state.check(path, Fails::Descriptors)?;
        drop(state);
        Ok(SimFile::open(self, path, Node::Dir, false, false))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.open_dir(path)?.sync_data()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.0.state().names.contains_key(path))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let state = self.0.state();
        if !state.names.contains_key(path) {
            return Err(ErrorKind::NotFound.into());
        }
        Ok(Space {
            total_bytes: state.capacity_bytes,
            usable_bytes: state.capacity_bytes.saturating_sub(state.used_bytes()),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open(path, OpenMode::Create)?;
        let mut state = self.0.state();
        if state.locked.iter().any(|locked| locked == path) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let node = Node::File(state.file(path)?);
        state.locked.push(path.to_owned());
        drop(state);
        Ok(SimFile::open(self, path, node, true, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(disk: &SimDisk, path: &str, bytes: &[u8]) -> Arc<dyn File> {
        let file = disk.open(Path::new(path), OpenMode::Create).unwrap();
        file.write_all_at(&[IoSlice::new(bytes)], 0).unwrap();
        file
    }

    fn read(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
        disk.read(Path::new(path), 1 << 20).ok()
    }

    #[test]
    fn what_was_synced_survives_and_the_rest_may_not() {
        let (mut lost, mut kept, mut torn) = (0, 0, 0);
        for seed in 0..200 {
            let disk = SimDisk::new(seed);
            let file = write(&disk, "/a", &[1; 2_000]);
            disk.sync_dir(Path::new("/")).unwrap();
            file.sync_data().unwrap();
            file.write_all_at(&[IoSlice::new(&[2; 2_000])], 2_000)
                .unwrap();
            assert_eq!(read(&disk, "/a").unwrap().len(), 4_000);
            disk.crash();
            let after = read(&disk, "/a").unwrap();
            assert_eq!(after[..2_000], [1; 2_000]);
            match &after[2_000..] {
                [] => lost += 1,
                rest if rest == [2; 2_000] => kept += 1,
                _ => torn += 1,
            }
            // Handles of before the crash reach nothing.
            file.write_all_at(&[IoSlice::new(&[3; 10])], 0).unwrap();
            assert_eq!(read(&disk, "/a").unwrap(), after);
        }
        assert!(lost > 10 && kept > 10 && torn > 10, "{lost} {kept} {torn}");
    }

    #[test]
    fn names_become_durable_in_order() {
        let mut left = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let disk = SimDisk::new(seed);
            disk.create_dir_all(Path::new("/d/e")).unwrap();
            write(&disk, "/d/e/a", b"").sync_data().unwrap();
            disk.sync_dir(Path::new("/d/e")).unwrap();
            write(&disk, "/d/e/b", b"").sync_data().unwrap();
            disk.rename(Path::new("/d/e/a"), Path::new("/d/e/c"))
                .unwrap();
            disk.crash();
            let names = disk.read_dir(Path::new("/d/e")).unwrap();
            left.insert(
                names
                    .into_iter()
                    .map(|entry| entry.name)
                    .collect::<String>(),
            );
        }
        let expected = ["a", "ab", "bc"].map(String::from);
        assert_eq!(left.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_sync_covers_what_was_written_before_it_began() {
        let mut lost = 0;
        for seed in 0..50 {
            let disk = SimDisk::new(seed);
            let file = write(&disk, "/a", b"before");
            disk.sync_dir(Path::new("/")).unwrap();
            let ticket = disk.begin_sync(&file).unwrap();
            file.write_all_at(&[IoSlice::new(b" after")], 6).unwrap();
            disk.finish_sync(ticket).unwrap();
            disk.crash();
            let after = read(&disk, "/a").unwrap();
            assert!(after.starts_with(b"before"));
            lost += u32::from(after == b"before");
        }
        assert!(lost > 0);
    }

    #[test]
    fn a_failed_sync_loses_what_it_covered() {
        let disk = SimDisk::new(1);
        let file = write(&disk, "/a", b"lost");
        disk.sync_dir(Path::new("/")).unwrap();
        disk.fail_syncs(1);
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        assert_eq!(read(&disk, "/a").unwrap(), b"lost");
        disk.crash();
        assert_eq!(read(&disk, "/a").unwrap(), b"");
    }

    #[test]
    fn a_full_disk_takes_a_part_and_a_broken_one_nothing() {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/a")).unwrap();
        disk.create_dir_all(Path::new("/b")).unwrap();
        disk.set_capacity_bytes(10);
        let file = write(&disk, "/a/x", &[1; 6]);
        let full = file.write_all_at(&[IoSlice::new(&[2; 6])], 6).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        assert_eq!(file.len().unwrap(), 10);
        let made = disk.open(Path::new("/a/y"), OpenMode::Create).unwrap_err();
        assert_eq!(made.kind(), ErrorKind::StorageFull);
        disk.set_capacity_bytes(u64::MAX);
        write(&disk, "/b/x", &[3; 600]);

        let path = Path::new("/a/x");
        disk.break_down(path, Fails::Reads(2..4));
        disk.break_down("/b", Fails::Writes);
        disk.break_down("/b", Fails::Syncs);
        let mut two = [0; 2];
        assert_eq!(file.read_at(&mut two, 0).unwrap(), 2);
        assert_eq!(
            file.read_at(&mut two, 1).unwrap_err().raw_os_error(),
            Some(libc::EIO)
        );
        file.write_all_at(&[IoSlice::new(b"5")], 0).unwrap();
        let other = disk.open(Path::new("/b/x"), OpenMode::Create).unwrap();
        assert!(other.write_all_at(&[IoSlice::new(b"5")], 0).is_err());
        assert!(other.set_len(1).is_err() && other.sync_data().is_err());
        assert!(disk.rename(Path::new("/b/x"), Path::new("/a/z")).is_err());
        assert!(disk.open(Path::new("/b/y"), OpenMode::Create).is_err());
        assert!(disk.remove_dir_all(Path::new("/b")).is_err());
        assert_eq!(read(&disk, "/b/x").unwrap(), [3; 600]);
        disk.mend();
        disk.remove_dir_all(Path::new("/b")).unwrap();
    }

    #[test]
    fn behaves_as_a_file_system() {
        let disk = SimDisk::new(1);
        let path = Path::new("/d/x");
        let missing = disk.open(path, OpenMode::Create).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        disk.create_dir_all(Path::new("/d")).unwrap();
        write(&disk, "/d/x", b"12345");
        let readonly = disk.open(path, OpenMode::Read).unwrap();
        assert!(readonly.set_len(1).is_err());
        let mut two = [0; 2];
        readonly.read_exact_at(&mut two, 3).unwrap();
        assert_eq!(&two, b"45");
        assert!(readonly.read_exact_at(&mut two, 4).is_err());
        disk.open(path, OpenMode::Truncate).unwrap();
        assert_eq!(readonly.len().unwrap(), 0);
        let held = disk.lock(Path::new("/d/.lock")).unwrap();
        assert!(disk.lock(Path::new("/d/.lock")).is_err());
        drop(held);
        disk.lock(Path::new("/d/.lock")).unwrap();
        disk.rename(Path::new("/d"), Path::new("/e")).unwrap();
        assert!(disk.exists(Path::new("/e/x")).unwrap());
        assert!(!disk.exists(path).unwrap());
        disk.set_capacity_bytes(10);
        let file = disk.open(Path::new("/e/x"), OpenMode::ReadWrite).unwrap();
        let full = file.set_len(11).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        file.set_len(10).unwrap();
        assert_eq!(disk.space(Path::new("/e")).unwrap().usable_bytes, 0);
        disk.rot(Path::new("/e/x"), 9).unwrap();
        assert_eq!(read(&disk, "/e/x").unwrap()[9], 1);
        disk.remove_file(Path::new("/e/x")).unwrap();
        disk.remove_dir_all(Path::new("/e")).unwrap();
        assert!(disk.read_dir(Path::new("/")).unwrap().is_empty());
    }
}
