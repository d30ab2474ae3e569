//! The fingerprint of the machine that a result was measured on, read from /proc and /sys.
//! What can't be read is null: a missing fact is never a guess. Called once a run.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

/// The kernel's settings that change latency or throughput most.
const SYSCTLS: &[&str] = &[
    "kernel/numa_balancing",
    "kernel/sched_rt_runtime_us",
    "kernel/timer_migration",
    "kernel/watchdog",
    "kernel/io_uring_disabled",
    "net/core/busy_poll",
    "net/core/busy_read",
    "net/core/netdev_max_backlog",
    "net/core/rmem_max",
    "net/core/somaxconn",
    "net/core/wmem_max",
    "net/ipv4/tcp_congestion_control",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/tcp_rmem",
    "net/ipv4/tcp_wmem",
    "vm/dirty_background_ratio",
    "vm/dirty_expire_centisecs",
    "vm/dirty_ratio",
    "vm/dirty_writeback_centisecs",
    "vm/max_map_count",
    "vm/nr_hugepages",
    "vm/overcommit_memory",
    "vm/stat_interval",
    "vm/swappiness",
    "vm/zone_reclaim_mode",
];
/// Of a network device, and of the disk's queue.
const NIC_FACTS: &[&str] = &["speed", "duplex", "mtu", "operstate", "tx_queue_len"];
const DISK_FACTS: &[&str] = &[
    "scheduler",
    "rotational",
    "write_cache",
    "nr_requests",
    "read_ahead_kb",
    "logical_block_size",
    "io_poll",
    "wbt_lat_usec",
];
/// Names of parameters of the kernel's command line; `*` ends a prefix
/// (Documentation/admin-guide/kernel-parameters.txt).
const SPEED_PARAMETERS: &[&str] = &[
    "amd_iommu",
    "amd_pstate*",
    "apparmor",
    "audit",
    "cgroup_disable",
    "clocksource",
    "cpufreq.*",
    "cpuidle*",
    "default_hugepagesz",
    "gather_data_sampling",
    "haltpoll.*",
    "hugepages*",
    "idle",
    "init_on_alloc",
    "init_on_free",
    "intel_idle.*",
    "intel_iommu",
    "intel_pstate",
    "iommu*",
    "irqaffinity",
    "isolcpus",
    "kthread_cpus",
    "l1tf",
    "maxcpus",
    "mce",
    "mds",
    "mem_encrypt",
    "mitigations",
    "mmio_stale_data",
    "nmi_watchdog",
    "nohz*",
    "nopti",
    "nosmt",
    "nosoftlockup",
    "nospectre*",
    "nowatchdog",
    "nr_cpus",
    "numa_balancing",
    "nvme*",
    "pci",
    "pcie_aspm",
    "preempt",
    "processor.*",
    "psi",
    "pti",
    "rcu*",
    "retbleed",
    "scsi_mod.*",
    "selinux",
    "skew_tick",
    "spec*",
    "srbds",
    "swiotlb",
    "threadirqs",
    "transparent_hugepage",
    "tsc",
    "tsx*",
    "workqueue.*",
];
const LIMITS: &[&str] = &[
    "Max open files",
    "Max locked memory",
    "Max processes",
    "Max realtime priority",
    "Max nice priority",
];

/// The machine, with the file system and the disk that hold `dir`.
pub fn fingerprint(dir: &Path) -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let cmdline = line("/proc/cmdline");
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let kilobytes = |name| -> Option<u64> {
        let text = field(&meminfo, name)?;
        text.split(' ').next()?.parse().ok()
    };
    let cpu = "/sys/devices/system/cpu";
    json!({
        "cpu": field(&cpuinfo, "model name"),
        "cores": std::thread::available_parallelism().ok().map(usize::from),
        "cores_online": line(&format!("{cpu}/online")),
        "governor": line(&format!("{cpu}/cpu0/cpufreq/scaling_governor")),
        "frequency_max_khz": line(&format!("{cpu}/cpu0/cpufreq/cpuinfo_max_freq")),
        "smt_active": line(&format!("{cpu}/smt/active")).map(|text| text == "1"),
        "turbo": turbo(),
        "idle_driver": line(&format!("{cpu}/cpuidle/current_driver")),
        "numa": numa(),
        "hypervisor": field(&cpuinfo, "flags")
            .map(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
        "product": line("/sys/class/dmi/id/product_name"),
        "clock_source": line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "kernel": line("/proc/sys/kernel/osrelease"),
        "kernel_version": line("/proc/sys/kernel/version"),
        "cmdline": cmdline.as_deref().map(speed_parameters),
        "mitigations": mitigations(),
        "isolation": {
            "isolated": line(&format!("{cpu}/isolated")),
            "nohz_full": line(&format!("{cpu}/nohz_full")),
            "rcu_nocbs": cmdline.as_deref().and_then(|text| option(text, "rcu_nocbs")),
            "irqaffinity": cmdline.as_deref().and_then(|text| option(text, "irqaffinity")),
            "own_cpus": fs::read_to_string("/proc/self/status")
                .ok()
                .and_then(|text| field(&text, "Cpus_allowed_list")),
            "cgroup_cpu_max": line("/sys/fs/cgroup/cpu.max"),
        },
        "memory_kb": kilobytes("MemTotal"),
        "memory_available_kb": kilobytes("MemAvailable"),
        "swap_kb": kilobytes("SwapTotal"),
        "transparent_hugepages": line("/sys/kernel/mm/transparent_hugepage/enabled"),
        "filesystem": filesystem(&mounts, &dir),
        "disk": disk(&dir),
        "network": network(),
        "limits": limits(&fs::read_to_string("/proc/self/limits").unwrap_or_default()),
        "tuning": tuning(),
        "load_average": line("/proc/loadavg"),
    })
}

/// None where the machine doesn't tell; a guest's host rarely does.
fn turbo() -> Option<bool> {
    let intel = line("/sys/devices/system/cpu/intel_pstate/no_turbo").map(|text| text == "0");
    intel.or_else(|| line("/sys/devices/system/cpu/cpufreq/boost").map(|text| text == "1"))
}

/// By node: its CPUs.
fn numa() -> Value {
    let nodes = names("/sys/devices/system/node")
        .into_iter()
        .filter_map(|name| {
            let cpus = line(&format!("/sys/devices/system/node/{name}/cpulist"))?;
            Some((name, json!(cpus)))
        });
    Value::Object(nodes.collect())
}

/// The block device below `dir`; null where the file system has none.
fn disk(dir: &Path) -> Value {
    let Ok(device) = nix::sys::stat::stat(dir).map(|found| found.st_dev) else {
        return Value::Null;
    };
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let Ok(mut at) = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")) else {
        return Value::Null;
    };
    // A partition's queue is its disk's.
    if !at.join("queue").exists()
        && let Some(whole) = at.parent()
    {
        at = whole.to_owned();
    }
    let name = at
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let mut found = Map::new();
    found.insert("device".to_owned(), json!(name));
    let of = |part: &str| line(&at.join(part).to_string_lossy());
    found.insert("model".to_owned(), json!(of("device/model")));
    found.insert("sectors".to_owned(), json!(of("size")));
    for fact in DISK_FACTS {
        found.insert((*fact).to_owned(), json!(of(&format!("queue/{fact}"))));
    }
    Value::Object(found)
}

fn network() -> Value {
    let device = |name: String| {
        let at = format!("/sys/class/net/{name}");
        let driver = fs::read_link(format!("{at}/device/driver")).ok();
        let driver = driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        let queues = names(&format!("{at}/queues"));
        let mut found = Map::new();
        found.insert("driver".to_owned(), json!(driver));
        found.insert("queues".to_owned(), json!(queues.len()));
        for fact in NIC_FACTS {
            found.insert((*fact).to_owned(), json!(line(&format!("{at}/{fact}"))));
        }
        (name, Value::Object(found))
    };
    Value::Object(names("/sys/class/net").into_iter().map(device).collect())
}

/// Soft and hard, of the generator's process.
fn limits(text: &str) -> Value {
    let found = LIMITS.iter().filter_map(|name| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        let mut words = rest.split_whitespace();
        let both = format!("{} {}", words.next()?, words.next()?);
        Some(((*name).to_owned(), json!(both)))
    });
    Value::Object(found.collect())
}

/// What was or wasn't tuned: sysctls, and the profile of tuned if it runs.
fn tuning() -> Value {
    let mut found: Map<String, Value> = SYSCTLS
        .iter()
        .filter_map(|name| {
            let value = line(&format!("/proc/sys/{name}"))?;
            Some((name.replace('/', "."), json!(value)))
        })
        .collect();
    let profile = line("/etc/tuned/active_profile");
    found.insert("tuned_profile".to_owned(), json!(profile));
    Value::Object(found)
}

/// The words of the kernel's command line that change how fast it is. The others (consoles,
/// root devices, what the host tells its guest's init) are left out: they tell of the
/// surroundings, and results are published.
fn speed_parameters(cmdline: &str) -> String {
    let kernel = cmdline
        .split_whitespace()
        .take_while(|word| *word != "--")
        .filter(|word| {
            let name = word.split('=').next().unwrap_or(word).replace('-', "_");
            SPEED_PARAMETERS
                .iter()
                .any(|known| match known.strip_suffix('*') {
                    Some(prefix) => name.starts_with(prefix),
                    None => name == *known,
                })
        });
    kernel.collect::<Vec<_>>().join(" ")
}

/// `name=value` on the kernel's command line.
fn option(cmdline: &str, name: &str) -> Option<String> {
    let mut words = cmdline.split_whitespace();
    words.find_map(|word| {
        word.strip_prefix(name)?
            .strip_prefix('=')
            .map(str::to_owned)
    })
}

/// Of the entries of a directory, in order.
fn names(dir: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
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
        let limit = "Limit   Soft Limit  Hard Limit  Units\nMax open files   1024   4096   files\n";
        assert_eq!(limits(limit), json!({ "Max open files": "1024 4096" }));
        assert_eq!(
            option("ro rcu_nocbs=2-7 x", "rcu_nocbs").as_deref(),
            Some("2-7")
        );
    }

    #[test]
    fn of_the_command_line_only_what_matters_for_speed_is_told() {
        assert_eq!(
            speed_parameters(
                "BOOT_IMAGE=/vmlinuz root=UUID=1 console=ttyS0 mitigations=off isolcpus=2-7 \
                 rcu_nocbs=2-7 nohz_full=2-7 intel_idle.max_cstate=1 processor.max_cstate=1 \
                 init=/x secret=1 -- --psi idle=poll"
            ),
            "mitigations=off isolcpus=2-7 rcu_nocbs=2-7 nohz_full=2-7 intel_idle.max_cstate=1 \
             processor.max_cstate=1"
        );
    }

    #[test]
    fn this_machine_has_a_fingerprint() {
        let found = fingerprint(Path::new("/"));
        for name in [
            "cores",
            "kernel",
            "memory_kb",
            "filesystem",
            "tuning",
            "network",
        ] {
            assert!(!found[name].is_null(), "{name}: {found}");
        }
    }
}
