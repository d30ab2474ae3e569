//! Step 1 of opening a log: what an interrupted deletion or compaction has left behind.
//!
//! Called by [`super`] before any segment is looked at. Afterwards no file in the directory
//! is `.deleted`, `.cleaned` or `.swap`.

use std::io;
use std::path::Path;

use crate::base::Offset;
use crate::io::disk::{Disk, OpenMode};
use crate::log::names;
use crate::log::scan::HeaderScan;

/// Removes or finishes it. True when anything in the directory has changed.
pub fn remove(disk: &dyn Disk, dir: &Path) -> io::Result<bool> {
    let files = |suffix: &str| -> io::Result<Vec<String>> {
        let files = disk.read_dir(dir)?.into_iter();
        let files = files.filter(|file| !file.is_dir && file.name.ends_with(suffix));
        Ok(files.map(|file| file.name).collect())
    };
    let mut changed = false;
    for name in files(names::DELETED)? {
        if !name.ends_with(names::CHECKPOINT_DELETED) {
            disk.remove_file(&dir.join(name))?;
            changed = true;
        }
    }
    let cleaned = files(names::CLEANED)?;
    // Swaps that stand behind unfinished output belong to the same, unfinished work.
    let bases = cleaned
        .iter()
        .filter_map(|name| names::parse_file_name(name));
    let unfinished = bases.map(|(offset, _)| offset).min();
    for name in files(names::SWAP)? {
        let base = names::parse_file_name(&name).map(|(offset, _)| offset);
        if unfinished.is_some_and(|limit| base.is_some_and(|base| base >= limit)) {
            disk.remove_file(&dir.join(name))?;
            changed = true;
        }
    }
    for name in cleaned {
        disk.remove_file(&dir.join(name))?;
        changed = true;
    }
    Ok(finish_swaps(disk, dir, &files(names::SWAP)?)? || changed)
}

/// Puts complete swap files in the place of what they cover. True when there were any.
fn finish_swaps(disk: &dyn Disk, dir: &Path, swaps: &[String]) -> io::Result<bool> {
    let mut covered: Option<(Offset, Offset)> = None;
    for name in swaps {
        let original = name.strip_suffix(names::SWAP).unwrap_or(name);
        let Some((base, names::LOG)) = names::parse_file_name(original) else {
            continue;
        };
        let file = disk.open(&dir.join(name), OpenMode::Read)?;
        let mut scan = HeaderScan::new(&*file, 0, file.len()?);
        let mut end = base;
        while let Some(located) = scan.next_valid()? {
            end = located.header.next_offset();
        }
        let (first, last) = covered.unwrap_or((base, end));
        covered = Some((first.min(base), last.max(end)));
    }
    if let Some((first, end)) = covered {
        for entry in disk.read_dir(dir)? {
            let Some((base, suffix)) = names::parse_file_name(&entry.name) else {
                continue;
            };
            let is_swap = suffix.ends_with(names::SWAP);
            if !entry.is_dir && !is_swap && first <= base && base < end {
                tracing::info!(dir = %dir.display(), name = entry.name, "removing compacted file");
                disk.remove_file(&dir.join(entry.name))?;
            }
        }
    }
    for name in swaps {
        if let Some(original) = name.strip_suffix(names::SWAP) {
            disk.rename(&dir.join(name), &dir.join(original))?;
        }
    }
    Ok(!swaps.is_empty())
}
