//! How much memory the process may use, and what of it requests may take.
//!
//! Called by `node` as it starts.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::config::{NodeConfig, QueuedBytes};
use crate::quota::memory::RequestMemory;

/// Bounds of what requests may take where the config doesn't say.
const AUTO_BYTES_MIN: u64 = 64 << 20;
const AUTO_BYTES_MAX: u64 = 4 << 30;

/// The pool for bytes of requests; None: no bound.
pub fn for_requests(config: &NodeConfig, cores: usize) -> Option<Arc<RequestMemory>> {
    let bytes = match config.network.queued_max_request_bytes {
        QueuedBytes::Unlimited => return None,
        QueuedBytes::Max(bytes) => bytes,
        QueuedBytes::Auto => {
            let available = available_bytes(Path::new("/")).unwrap_or(0);
            (available / 4).clamp(AUTO_BYTES_MIN, AUTO_BYTES_MAX)
        }
    };
    Some(Arc::new(RequestMemory::new(bytes, cores)))
}

/// The machine's memory, or less by the limits of the process's cgroup and those above
/// it. None where neither can be read.
fn available_bytes(root: &Path) -> Option<u64> {
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok();
    let machine = machine.and_then(|text| total_bytes(&text));
    let group = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = group.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        if controllers.is_empty() {
            lowest(&root.join("sys/fs/cgroup"), path, "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            let mount = root.join("sys/fs/cgroup/memory");
            lowest(&mount, path, "memory.limit_in_bytes")
        } else {
            None
        }
    });
    limits.chain(machine).min()
}

/// The lowest limit from a group up to the root of the mount. Inside a container the path
/// may be the host's; then the mount itself is the process's group.
fn lowest(mount: &Path, path: &str, file: &str) -> Option<u64> {
    let group = mount.join(path.trim_start_matches('/'));
    group
        .ancestors()
        .take_while(|group| group.starts_with(mount))
        .filter_map(|group| {
            let text = fs::read_to_string(group.join(file)).ok()?;
            text.trim().parse().ok()
        })
        .min()
}

fn total_bytes(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        available_bytes(root.path())
    }

    #[test]
    fn the_lowest_limit_counts() {
        let machine = ("proc/meminfo", "MemTotal:       2048 kB\nMemFree: 1 kB\n");
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[machine]), Some(2048 * 1024));
        let group = ("proc/self/cgroup", "0::/a/b\n");
        let mut files = vec![machine, group, ("sys/fs/cgroup/a/b/memory.max", "max\n")];
        assert_eq!(with(&files), Some(2048 * 1024));
        files.push(("sys/fs/cgroup/a/memory.max", "4096\n"));
        assert_eq!(with(&files), Some(4096));
        let old = [
            machine,
            ("proc/self/cgroup", "5:cpu:/\n4:memory:/x\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "8192\n"),
        ];
        assert_eq!(with(&old), Some(8192));
    }
}
