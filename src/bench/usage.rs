//! What a phase cost: CPU time and memory of the generator and of the broker (by its pid),
//! and the page cache. From /proc; what can't be read is absent. Called by `phase`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use super::result::{PageCache, Usage};

/// /proc counts CPU time in these, whatever the kernel's own tick is.
const TICKS_PER_SECOND: f64 = 100.0;
/// More threads than this aren't listed.
const THREADS_LISTED_MAX: usize = 256;

/// How it stood when a phase began.
pub struct Before {
    at: Instant,
    own_cpu_s: f64,
    broker: Option<(u32, f64)>,
    cached_bytes: u64,
}

pub struct Used {
    pub generator: Usage,
    pub broker: Option<Usage>,
    pub page_cache: Option<PageCache>,
}

impl Before {
    pub fn now(broker_pid: Option<u32>) -> Before {
        Before {
            at: Instant::now(),
            own_cpu_s: cpu_s("self").unwrap_or(0.0),
            broker: broker_pid.and_then(|pid| Some((pid, cpu_s(&pid.to_string())?))),
            cached_bytes: meminfo("Cached").unwrap_or(0),
        }
    }

    /// What was used since then, to move so many bytes of values.
    pub fn used(&self, bytes: f64) -> Used {
        let seconds = self.at.elapsed().as_secs_f64();
        let usage = |process: &str, before_s: f64| {
            let cpu_s = cpu_s(process)? - before_s;
            Some(Usage {
                cpu_s,
                cpu_s_per_gb: (bytes > 0.0).then(|| cpu_s * 1e9 / bytes),
                cpu_percent: cpu_s * 100.0 / seconds,
                busiest_thread_percent: None,
                cpu_wait_percent: None,
                peak_rss_bytes: status_bytes(process, "VmHWM"),
            })
        };
        let page_cache = |after_bytes| PageCache {
            before_bytes: self.cached_bytes,
            after_bytes,
            dirty_after_bytes: meminfo("Dirty").unwrap_or(0),
        };
        Used {
            generator: usage("self", self.own_cpu_s).unwrap_or_default(),
            broker: self
                .broker
                .and_then(|(pid, before_s)| usage(&pid.to_string(), before_s)),
            page_cache: meminfo("Cached").map(page_cache),
        }
    }
}

/// The command line of a process.
pub fn command(pid: u32) -> Option<String> {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    Some(line.trim_end_matches('\0').replace('\0', " "))
}

/// By thread (name and id) the CPUs that it may run on.
pub fn thread_cpus(pid: u32) -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return BTreeMap::new();
    };
    let thread = |path: std::path::PathBuf| {
        let status = fs::read_to_string(path.join("status")).ok()?;
        let id = path.file_name()?.to_string_lossy().into_owned();
        let name = field(&status, "Name")?;
        Some((format!("{name}/{id}"), field(&status, "Cpus_allowed_list")?))
    };
    let threads = entries.flatten().take(THREADS_LISTED_MAX);
    threads.filter_map(|entry| thread(entry.path())).collect()
}

/// Whether there is no such process any more, or only its status is left.
pub fn has_ended(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    state.is_none_or(|rest| rest.starts_with(['Z', 'X']))
}

/// User and system time of a process with all its threads, also those that have ended.
fn cpu_s(process: &str) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    ticks(&stat).map(|ticks| ticks as f64 / TICKS_PER_SECOND)
}

/// Fields 14 and 15; the second, a name in parentheses, may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn status_bytes(process: &str, name: &str) -> Option<u64> {
    kilobytes(
        &fs::read_to_string(format!("/proc/{process}/status")).ok()?,
        name,
    )
}

fn meminfo(name: &str) -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/meminfo").ok()?, name)
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let value = field(text, name)?;
    value
        .strip_suffix(" kB")?
        .parse()
        .ok()
        .map(|kb: u64| kb << 10)
}

fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key == name).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let stat = "7 (a b) c) S 1 1 1 0 -1 0 0 0 0 0 250 50 0 0 20 0 1 0 5 0 0";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7"), None);
        assert_eq!(kilobytes("VmHWM:\t    12 kB\n", "VmHWM"), Some(12288));
    }

    #[test]
    fn ones_own_use_is_seen() {
        let before = Before::now(Some(std::process::id()));
        let used = before.used(1e9);
        assert!(used.generator.peak_rss_bytes > Some(0));
        assert!(used.broker.is_some() && used.page_cache.is_some());
        assert!(!thread_cpus(std::process::id()).is_empty());
    }
}
