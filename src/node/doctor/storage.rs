//! The directories of `log.dirs`: what kind of file system they are on, whether they can be
//! written to, and how much room there is. Logs need no more of a file system than that:
//! neither O_DIRECT nor fallocate nor a memory map is used.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::{AccessFlags, eaccess};

use super::{Check, read, show_bytes};
use crate::config::NodeConfig;
use crate::io::disk::{Disk, RealDisk};
use crate::io::topology::Mount;
use crate::log::names;
use crate::node::StartError;

/// Below this much room, or this share of it, there is a warning.
const ROOM_BYTES_MIN: u64 = 1 << 30;
const ROOM_SHARE_MIN: u64 = 20;
/// What the trial writes.
const TRIAL_BYTES: usize = 4_096;

const NETWORK: [&str; 15] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "lustre",
    "beegfs",
    "gfs2",
    "ocfs2",
    "virtiofs",
    "vboxsf",
    "fuse.sshfs",
];

/// Partitions on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    pub(super) partitions: u64,
    pub(super) segments: u64,
}

/// Each directory once, that of the metadata log with the others.
pub(super) fn directories(config: &NodeConfig) -> Vec<&Path> {
    let mut paths: Vec<&Path> = config.log_dirs.iter().map(PathBuf::as_path).collect();
    if !paths.contains(&config.metadata_log_dir.as_path()) {
        paths.push(&config.metadata_log_dir);
    }
    paths
}

pub(super) fn checks(config: &NodeConfig) -> Vec<Check> {
    let mountinfo = read("/proc/self/mountinfo").unwrap_or_default();
    let directories = directories(config);
    directories
        .into_iter()
        .map(|path| check(path, &mountinfo))
        .collect()
}

/// What of partitions is on disk already; nothing where that can't be read.
pub(super) fn holdings(config: &NodeConfig) -> Holdings {
    let mut holdings = Holdings::default();
    for directory in directories(config) {
        for entry in RealDisk.read_dir(directory).unwrap_or_default() {
            if !entry.is_dir || names::parse_dir_name(&entry.name).is_none() {
                continue;
            }
            let files = std::fs::read_dir(directory.join(&entry.name));
            let is_log = |name: &std::ffi::OsStr| name.to_string_lossy().ends_with(names::LOG);
            let logs = files.into_iter().flatten().flatten();
            holdings.partitions += 1;
            holdings.segments += logs.filter(|file| is_log(&file.file_name())).count() as u64;
        }
    }
    holdings
}

/// Whether a node can use a directory, or make it. Returns what there is of it: itself or
/// the parent that it would be made in.
pub(super) fn usable(path: &Path) -> Result<PathBuf, StartError> {
    let failed = || StartError::directory(path);
    let existing = nearest(path).map_err(failed())?;
    eaccess(&existing, AccessFlags::W_OK | AccessFlags::X_OK)
        .map_err(io::Error::from)
        .map_err(failed())?;
    trial(&existing).map_err(failed())?;
    Ok(existing)
}

/// The path as the system sees it, or of its parents the first that exists.
fn nearest(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    for candidate in absolute.ancestors() {
        match std::fs::metadata(candidate) {
            Ok(metadata) if metadata.is_dir() => return candidate.canonicalize(),
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

fn check(path: &Path, mountinfo: &str) -> Check {
    const SUBJECT: &str = "log dir";
    let existing = match usable(path) {
        Ok(existing) => existing,
        Err(error) => return Check::fail(SUBJECT, &error),
    };
    let synced = match time_of_sync(&existing) {
        Ok(took) => took,
        Err(error) => return Check::fail(SUBJECT, &StartError::directory(path)(error)),
    };
    let mount = Mount::around(mountinfo, &existing);
    let kind = mount
        .as_ref()
        .map_or("unknown", |mount| mount.kind.as_str());
    let space = RealDisk.space(&existing);
    let shown = path.display();
    if let Some(what) = unsuitable(kind) {
        return Check::warn(SUBJECT, format!("{shown} is on {kind}, {what}"));
    }
    let mut text = format!("{shown} on {kind}");
    if let Ok(space) = space {
        let (usable, total) = (space.usable_bytes, space.total_bytes);
        if is_scarce(usable, total) {
            return Check::warn(
                SUBJECT,
                format!(
                    "{shown} has {} left of {}; `sudo du -xh {shown} | sort -h | tail` tells \
                     what takes it, and log.retention.bytes bounds each partition",
                    show_bytes(usable),
                    show_bytes(total)
                ),
            );
        }
        text.push_str(&format!(
            ", {} of {} free",
            show_bytes(usable),
            show_bytes(total)
        ));
    }
    if let Some(took) = synced {
        text.push_str(&format!(
            ", a sync takes {:.1} ms",
            took.as_secs_f64() * 1e3
        ));
    }
    Check::ok(SUBJECT, text)
}

/// What is wrong with a file system for logs, and what to do.
fn unsuitable(kind: &str) -> Option<String> {
    let elsewhere = "choose a directory on a local disk, `-o log.dirs=/var/lib/ottla`";
    let what = match kind {
        "tmpfs" | "ramfs" => "which is memory: everything is lost when the machine stops",
        "overlay" | "aufs" => {
            return Some(
                "a container's own layer: slow, and lost with the container; mount a volume, \
                 `-v ottla-data:/var/lib/ottla`, and `-o log.dirs=/var/lib/ottla`"
                    .to_owned(),
            );
        }
        _ if NETWORK.contains(&kind) => {
            "a network file system: a sync and every stall of the network hold an event loop"
        }
        _ if kind.starts_with("fuse") => {
            "a file system in user space: each call passes through another process"
        }
        _ => return None,
    };
    Some(format!("{what}; {elsewhere}"))
}

fn is_scarce(usable: u64, total: u64) -> bool {
    usable < ROOM_BYTES_MIN || usable < total / ROOM_SHARE_MIN
}

/// Writes to a file without a name, which tells more than permissions and leaves nothing
/// behind. None where the file system has no such files.
fn trial(directory: &Path) -> io::Result<Option<File>> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o600)
        .open(directory);
    let Ok(file) = opened else { return Ok(None) };
    file.write_all_at(&[0; TRIAL_BYTES], 0)?;
    Ok(Some(file))
}

fn time_of_sync(directory: &Path) -> io::Result<Option<Duration>> {
    let Some(file) = trial(directory)? else {
        return Ok(None);
    };
    let start = Instant::now();
    file.sync_data()?;
    Ok(Some(start.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    fn checked(path: &Path, kind: &str) -> Check {
        let mountinfo = format!("1 0 8:1 / / rw - {kind} /dev/vda rw");
        check(path, &mountinfo)
    }

    #[test]
    fn file_systems_that_lose_or_stall_are_told() {
        let dir = tempfile::tempdir().unwrap();
        for (kind, word) in [
            ("tmpfs", "memory"),
            ("overlay", "volume"),
            ("nfs4", "network"),
            ("fuse.sshfs", "network"),
            ("fuse.mergerfs", "user space"),
        ] {
            let check = checked(dir.path(), kind);
            assert_eq!(check.status, Status::Warn, "{check}");
            assert!(
                check.text.contains(word) && check.text.contains('`'),
                "{check}"
            );
        }
        for kind in ["ext4", "xfs", "btrfs", "zfs"] {
            assert_eq!(unsuitable(kind), None);
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_judged_by_its_parent_and_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("a/b");
        let check = checked(&missing, "ext4");
        assert_ne!(check.status, Status::Fail, "{check}");
        assert!(!missing.exists() && !dir.path().join("a").exists());
        std::fs::write(dir.path().join("file"), "").unwrap();
        let under_a_file = dir.path().join("file/data");
        let check = checked(&under_a_file, "ext4");
        assert_eq!(check.status, Status::Fail, "{check}");
        let expected = format!("the directory {} can't be used: ", under_a_file.display());
        assert!(check.text.starts_with(&expected), "{check}");
    }

    #[test]
    fn little_room_is_told() {
        assert!(is_scarce(ROOM_BYTES_MIN - 1, ROOM_BYTES_MIN));
        assert!(!is_scarce(ROOM_BYTES_MIN, ROOM_BYTES_MIN));
        assert!(is_scarce(2 << 30, 100 << 30));
        assert!(!is_scarce(5 << 30, 100 << 30));
    }

    #[test]
    fn partitions_on_disk_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["t-0", "t-1", "other", "u-0"] {
            std::fs::create_dir(dir.path().join(path)).unwrap();
        }
        for file in [
            "t-0/0.log",
            "t-0/0.index",
            "t-0/9.log",
            "t-1/0.log",
            "u-0/0.log.deleted",
        ] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        let overrides = [format!("log.dirs={}", dir.path().display())];
        let config = crate::config::load(None, &overrides).unwrap().node;
        assert_eq!(
            holdings(&config),
            Holdings {
                partitions: 3,
                segments: 3
            }
        );
    }
}
