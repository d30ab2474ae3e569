//! The fingerprint of the machine that a result was measured on, read from /proc and /sys.
//! What can't be read is null: a missing fact is never a guess. Called once a run.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

/// The machine, with the file system that holds `dir`.
pub fn fingerprint(dir: &Path) -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    json!({
        "cpu": field(&cpuinfo, "model name"),
        "cores": std::thread::available_parallelism().ok().map(usize::from),
        "governor": line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "smt_active": line("/sys/devices/system/cpu/smt/active").map(|text| text == "1"),
        "kernel": line("/proc/sys/kernel/osrelease"),
        "cmdline": line("/proc/cmdline"),
        "mitigations": mitigations(),
        "memory_kb": field(&meminfo, "MemTotal")
            .and_then(|text| text.split(' ').next()?.parse::<u64>().ok()),
        "filesystem": filesystem(&mounts, &dir),
    })
}

fn line(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// The first `name : value` of a /proc file.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

fn mitigations() -> Value {
    let mut found = Map::new();
    let Ok(entries) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else {
        return Value::Null;
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if let (Some(name), Ok(text)) = (path.file_name(), fs::read_to_string(&path)) {
            found.insert(name.to_string_lossy().into_owned(), json!(text.trim()));
        }
    }
    Value::Object(found)
}

/// Type and options of the innermost mount above `dir`; of equals the last hides the rest.
fn filesystem(mounts: &str, dir: &Path) -> Value {
    let mount = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (_, at, kind, options) =
                (words.next()?, words.next()?, words.next()?, words.next()?);
            dir.starts_with(at).then_some((at, kind, options))
        })
        .max_by_key(|(at, _, _)| at.len());
    mount.map_or(
        Value::Null,
        |(at, kind, options)| json!({ "mount": at, "type": kind, "options": options }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_counts() {
        let mounts =
            "/dev/a / ext4 rw 0 0\n/dev/b /data xfs rw,noatime 0 0\n/dev/c /da tmpfs rw 0 0\n";
        let found = filesystem(mounts, Path::new("/data/x"));
        assert_eq!(
            found,
            json!({ "mount": "/data", "type": "xfs", "options": "rw,noatime" })
        );
        assert_eq!(filesystem("", Path::new("/data")), Value::Null);
    }

    #[test]
    fn fields_of_proc_files() {
        let text = "processor\t: 0\nmodel name\t: One CPU @ 1: x\nmodel name\t: Other\n";
        assert_eq!(field(text, "model name").as_deref(), Some("One CPU @ 1: x"));
        assert_eq!(field(text, "absent"), None);
    }
}
