//! The CPUs of the machine as this process may use them: which are allowed, how much of them
//! its control groups grant, which share a physical core, which memory is near.
//!
//! ```text
//! allowed   sched_getaffinity, without what is offline or outside of the cpuset
//! quota     the smallest cpu.max (v2) or cpu.cfs_quota_us (v1) from the process's own
//!           group up to the root of the hierarchy
//! places    NUMA node and SMT siblings, from /sys/devices/system
//! ```
//! Called by `node::cores`, which decides where event loops run, and by `node::doctor`.
//! Everything but [`Topology::read`] is pure: files come as text through a function.
//!
//! Invariants: `allowed` is never empty, ascending and without repetition. What can't be
//! read is absent, never a guess.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

/// What event loops have to be placed by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// CPUs that this process may run on.
    pub allowed: Vec<usize>,
    /// CPUs that the kernel runs; empty where that can't be read.
    pub online: Vec<usize>,
    /// CPUs of the cpuset, where the process is in one that can be read.
    pub cpuset: Option<Vec<usize>>,
    pub quota: Option<Quota>,
    /// NUMA nodes by number, with their CPUs; empty where that can't be read.
    pub numa_nodes: BTreeMap<usize, Vec<usize>>,
    /// CPUs that share a physical core with others, by CPU, itself included.
    pub siblings: BTreeMap<usize, Vec<usize>>,
}

/// CPU time that a control group grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    pub quota_us: u64,
    pub period_us: u64,
    /// The file that says so.
    pub file: PathBuf,
}

/// Gives a file's text, if it can be read.
type Read<'a> = &'a dyn Fn(&Path) -> Option<String>;

impl Topology {
    /// As it is now, for the calling thread.
    pub fn read() -> Topology {
        let read = |path: &Path| std::fs::read_to_string(path).ok();
        Topology::gather(affinity(), &read)
    }

    /// From the affinity (none: as /proc tells it) and the files.
    fn gather(affinity: Option<Vec<usize>>, read: Read<'_>) -> Topology {
        let list = |path: &str| read(Path::new(path)).and_then(|text| parse_list(&text));
        let online = list("/sys/devices/system/cpu/online").unwrap_or_default();
        let groups = Groups::gather(read);
        let cpuset = groups.cpuset(read);
        let affinity = affinity.or_else(|| {
            let status = read(Path::new("/proc/thread-self/status"))?;
            parse_list(status_field(&status, "Cpus_allowed_list")?)
        });
        let mut allowed = affinity.unwrap_or_default();
        keep_those_of(&mut allowed, &online);
        keep_those_of(&mut allowed, cpuset.as_deref().unwrap_or_default());
        if allowed.is_empty() {
            allowed.push(online.first().copied().unwrap_or(0));
        }
        let nodes = list("/sys/devices/system/node/online").unwrap_or_default();
        let numa_nodes = nodes.into_iter().filter_map(|node| {
            let cpus = list(&format!("/sys/devices/system/node/node{node}/cpulist"))?;
            Some((node, cpus))
        });
        let siblings = allowed.iter().filter_map(|cpu| {
            let topology = format!("/sys/devices/system/cpu/cpu{cpu}/topology");
            let siblings = list(&format!("{topology}/thread_siblings_list"))?;
            (siblings.len() > 1).then_some((*cpu, siblings))
        });
        Topology {
            numa_nodes: numa_nodes.collect(),
            siblings: siblings.collect(),
            quota: groups.quota(read),
            allowed,
            online,
            cpuset,
        }
    }

    /// The memory node that a CPU belongs to.
    pub fn numa_node(&self, cpu: usize) -> Option<usize> {
        let found = self.numa_nodes.iter().find(|(_, cpus)| cpus.contains(&cpu));
        found.map(|(node, _)| *node)
    }

    /// The allowed CPUs, those first that are alone or the first on their physical core;
    /// ascending within each rank.
    pub fn by_preference(&self) -> Vec<usize> {
        let rank = |cpu: &usize| {
            let siblings = self.siblings.get(cpu).map_or(&[][..], Vec::as_slice);
            let earlier = siblings
                .iter()
                .filter(|s| *s < cpu && self.allowed.contains(s));
            earlier.count()
        };
        let mut cpus = self.allowed.clone();
        cpus.sort_by_key(rank);
        cpus
    }

    /// Physical cores among the allowed CPUs.
    pub fn physical_cores(&self) -> usize {
        let first = |cpu: &&usize| {
            let siblings = self.siblings.get(cpu).map_or(&[][..], Vec::as_slice);
            !siblings
                .iter()
                .any(|s| s < *cpu && self.allowed.contains(s))
        };
        self.allowed.iter().filter(first).count()
    }
}

impl Quota {
    /// Whole CPUs that use it up: rounded up, at least 1.
    pub fn cpus(&self) -> usize {
        let cpus = self.quota_us.div_ceil(self.period_us.max(1)).max(1);
        usize::try_from(cpus).unwrap_or(usize::MAX)
    }

    fn is_less_than(&self, other: &Quota) -> bool {
        u128::from(self.quota_us) * u128::from(other.period_us)
            < u128::from(other.quota_us) * u128::from(self.period_us)
    }
}

fn affinity() -> Option<Vec<usize>> {
    // It fails where the kernel has more CPUs than the set has room for.
    let set = sched_getaffinity(Pid::from_raw(0)).ok()?;
    let allowed = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false));
    Some(allowed.collect())
}

/// Drops what isn't in `others`, unless nothing is known of those or nothing would be left.
fn keep_those_of(cpus: &mut Vec<usize>, others: &[usize]) {
    if cpus.iter().any(|cpu| others.contains(cpu)) {
        cpus.retain(|cpu| others.contains(cpu));
    }
}

/// The control groups of the process that have to do with CPUs.
struct Groups {
    /// Where cpu.max and cpuset.cpus.effective of the process's group are (v2).
    unified: Option<Group>,
    /// Where cpu.cfs_quota_us is (v1).
    cpu: Option<Group>,
    /// Where cpuset.cpus is (v1).
    cpuset: Option<Group>,
}

/// A group's directory, and the mount point above it.
struct Group {
    dir: PathBuf,
    mount: PathBuf,
}

impl Groups {
    fn gather(read: Read<'_>) -> Groups {
        let own = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
        let mounts = read(Path::new("/proc/self/mountinfo")).unwrap_or_default();
        Groups {
            unified: Group::find(&own, &mounts, None),
            cpu: Group::find(&own, &mounts, Some("cpu")),
            cpuset: Group::find(&own, &mounts, Some("cpuset")),
        }
    }

    fn quota(&self, read: Read<'_>) -> Option<Quota> {
        let unified = self.unified.iter().flat_map(Group::and_above);
        let unified = unified.filter_map(|dir| {
            let file = dir.join("cpu.max");
            let (quota_us, period_us) = parse_cpu_max(&read(&file)?)?;
            Some(Quota {
                quota_us,
                period_us,
                file,
            })
        });
        let older = self.cpu.iter().flat_map(Group::and_above);
        let older = older.filter_map(|dir| {
            let file = dir.join("cpu.cfs_quota_us");
            // -1 stands for none.
            let quota_us = read(&file)?.trim().parse().ok()?;
            let period_us = read(&dir.join("cpu.cfs_period_us"))?.trim().parse().ok()?;
            Some(Quota {
                quota_us,
                period_us,
                file,
            })
        });
        let quotas = unified.chain(older).filter(|quota| quota.period_us > 0);
        quotas.reduce(|least, quota| {
            if quota.is_less_than(&least) {
                quota
            } else {
                least
            }
        })
    }

    /// Of the nearest group that names any CPU.
    fn cpuset(&self, read: Read<'_>) -> Option<Vec<usize>> {
        let nearest = |group: &Option<Group>, names: &[&str]| {
            group.iter().flat_map(Group::and_above).find_map(|dir| {
                let lists = names.iter().filter_map(|name| read(&dir.join(name)));
                lists
                    .filter_map(|text| parse_list(&text))
                    .find(|list| !list.is_empty())
            })
        };
        nearest(&self.unified, &["cpuset.cpus.effective"])
            .or_else(|| nearest(&self.cpuset, &["cpuset.effective_cpus", "cpuset.cpus"]))
    }
}

impl Group {
    /// The group of a controller (v1), or of the unified hierarchy (v2).
    fn find(own: &str, mounts: &str, controller: Option<&str>) -> Option<Group> {
        let path = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (names, path) = (fields.next()?, fields.next()?);
            let is_it = match controller {
                Some(controller) => names.split(',').any(|name| name == controller),
                None => names.is_empty(),
            };
            is_it.then_some(path)
        })?;
        let mount = mounts
            .lines()
            .filter_map(Mount::parse)
            .find(|mount| match controller {
                Some(controller) => {
                    mount.kind == "cgroup" && mount.options.split(',').any(|o| o == controller)
                }
                None => mount.kind == "cgroup2",
            })?;
        // In a container the path may be the host's: then the mount itself is the group.
        let below = Path::new(path).strip_prefix(&mount.root).ok();
        let below = below.filter(|below| !below.starts_with(".."));
        Some(Group {
            dir: below.map_or_else(|| mount.point.clone(), |below| mount.point.join(below)),
            mount: mount.point,
        })
    }

    fn and_above(&self) -> impl Iterator<Item = &Path> {
        let above = self.dir.ancestors();
        above.take_while(|dir| dir.starts_with(&self.mount))
    }
}

/// A line of /proc/self/mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What of the file system is mounted.
    pub root: PathBuf,
    pub point: PathBuf,
    pub read_only: bool,
    /// The file system's type, such as `ext4` or `fuse.sshfs`.
    pub kind: String,
    /// Options of the file system.
    pub options: String,
}

impl Mount {
    /// ```text
    /// 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
    /// ```
    pub fn parse(line: &str) -> Option<Mount> {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point, flags) = (mount.next()?, mount.next()?, mount.next()?);
        let mut system = system.split(' ');
        let (kind, _device) = (system.next()?, system.next()?);
        Some(Mount {
            root: unescape(root).into(),
            point: unescape(point).into(),
            read_only: flags.split(',').any(|flag| flag == "ro"),
            kind: kind.to_owned(),
            options: system.next().unwrap_or_default().to_owned(),
        })
    }

    /// The mount that holds `path`, which has neither links nor dots: of those around it the
    /// innermost, and of equal ones the last, which hides the others.
    pub fn around(mountinfo: &str, path: &Path) -> Option<Mount> {
        let mounts = mountinfo.lines().filter_map(Mount::parse);
        let around = mounts.filter(|mount| path.starts_with(&mount.point));
        around.max_by_key(|mount| mount.point.components().count())
    }
}

/// The kernel writes spaces and the like as octal, `\040`.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let digits = rest.get(at + 1..at + 4).unwrap_or_default();
        match u8::from_str_radix(digits, 8) {
            Ok(byte) if byte.is_ascii() => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            _ => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// CPUs or nodes as the kernel lists them, `0-3,8`: ascending, without repetition.
pub fn parse_list(text: &str) -> Option<Vec<usize>> {
    /// More than any kernel has.
    const NUMBER_MAX: usize = 1 << 16;
    let mut numbers = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        if last >= NUMBER_MAX {
            return None;
        }
        numbers.extend(first..=last);
    }
    numbers.sort_unstable();
    numbers.dedup();
    Some(numbers)
}

/// The other way round.
pub fn show_list(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b);
    let runs = runs.map(|run| match run {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    });
    runs.collect::<Vec<_>>().join(",")
}

/// A field of /proc/self/status.
pub fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.map(str::trim)
}

/// `max 100000`: none.
fn parse_cpu_max(text: &str) -> Option<(u64, u64)> {
    let (quota, period) = text.trim().split_once(' ')?;
    Some((quota.parse().ok()?, period.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(affinity: &[usize], files: &[(&str, &str)]) -> Topology {
        let files: BTreeMap<&Path, &str> = files
            .iter()
            .map(|(path, text)| (Path::new(*path), *text))
            .collect();
        let read = |path: &Path| files.get(path).map(|text| (*text).to_owned());
        Topology::gather(Some(affinity.to_vec()), &read)
    }

    fn cpus_of_quota(files: &[(&str, &str)]) -> Option<usize> {
        topology(&[0], files).quota.map(|quota| quota.cpus())
    }

    const V2: &str = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "\
30 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
31 24 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
32 24 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn lists_are_read_and_shown() {
        assert_eq!(parse_list("0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(parse_list("\n"), Some(vec![]));
        assert_eq!(parse_list("2,0-2"), Some(vec![0, 1, 2]));
        assert_eq!(parse_list("3-1"), Some(vec![]));
        for wrong in ["a", "1-", "-1", "1-2-3", "0-99999999999", "0-4294967295"] {
            assert_eq!(parse_list(wrong), None, "{wrong}");
        }
        assert_eq!(show_list(&[0, 1, 2, 3, 8]), "0-3,8");
        assert_eq!(show_list(&[5]), "5");
        assert_eq!(show_list(&[]), "");
    }

    #[test]
    fn a_machine_without_any_files_has_the_cpus_of_the_affinity() {
        let known = topology(&[1, 3], &[]);
        assert_eq!(known.allowed, [1, 3]);
        assert_eq!(known.by_preference(), [1, 3]);
        assert_eq!((known.quota, known.cpuset), (None, None));
        assert_eq!(topology(&[], &[]).allowed, [0]);
        assert_eq!(
            topology(&[], &[("/sys/devices/system/cpu/online", "4-7")]).allowed,
            [4]
        );
    }

    #[test]
    fn without_the_affinity_the_status_tells() {
        let read = |path: &Path| match path.to_str() {
            Some("/proc/thread-self/status") => {
                Some("Cpus_allowed:\tf\nCpus_allowed_list:\t1026-1029\n".to_owned())
            }
            Some("/sys/devices/system/cpu/online") => Some("0-1027".to_owned()),
            _ => None,
        };
        assert_eq!(Topology::gather(None, &read).allowed, [1026, 1027]);
    }

    #[test]
    fn offline_cpus_and_those_outside_of_the_cpuset_are_not_allowed() {
        let online = ("/sys/devices/system/cpu/online", "0-2\n");
        assert_eq!(topology(&[0, 1, 2, 3], &[online]).allowed, [0, 1, 2]);
        let v2 = [
            online,
            ("/proc/self/cgroup", "0::/a/b\n"),
            ("/proc/self/mountinfo", V2),
            ("/sys/fs/cgroup/a/b/cpuset.cpus.effective", "\n"),
            ("/sys/fs/cgroup/a/cpuset.cpus.effective", "1-3\n"),
        ];
        let known = topology(&[0, 1, 2, 3], &v2);
        assert_eq!(known.cpuset, Some(vec![1, 2, 3]));
        assert_eq!(known.allowed, [1, 2]);
        let v1 = [
            ("/proc/self/cgroup", "3:cpuset:/c\n0::/\n"),
            ("/proc/self/mountinfo", V1),
            ("/sys/fs/cgroup/cpuset/c/cpuset.cpus", "2"),
        ];
        assert_eq!(topology(&[0, 1, 2, 3], &v1).allowed, [2]);
        // A set that contradicts the affinity is not believed.
        assert_eq!(topology(&[0], &v1).allowed, [0]);
    }

    #[test]
    fn the_least_quota_from_the_group_up_counts() {
        let group = ("/proc/self/cgroup", "0::/a/b\n");
        let mounts = ("/proc/self/mountinfo", V2);
        let mut files = vec![
            group,
            mounts,
            ("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
        ];
        assert_eq!(cpus_of_quota(&files), None);
        files.push(("/sys/fs/cgroup/a/cpu.max", "150000 100000\n"));
        assert_eq!(cpus_of_quota(&files), Some(2));
        files.push(("/sys/fs/cgroup/cpu.max", "1 1000\n"));
        assert_eq!(cpus_of_quota(&files), Some(1));
        let quota = topology(&[0], &files).quota.unwrap();
        assert_eq!(quota.file, Path::new("/sys/fs/cgroup/cpu.max"));
        files.retain(|(path, _)| !path.starts_with("/sys"));
        files.push(("/sys/fs/cgroup/a/b/cpu.max", "5 0\n"));
        assert_eq!(cpus_of_quota(&files), None);
    }

    #[test]
    fn the_older_hierarchy_has_quota_and_period_apart() {
        let own = "5:cpu,cpuacct:/x/y\n1:name=systemd:/z\n0::/\n";
        let group = "/sys/fs/cgroup/cpu,cpuacct/x";
        let quota = format!("{group}/cpu.cfs_quota_us");
        let period = format!("{group}/cpu.cfs_period_us");
        let with = |value: &str| {
            cpus_of_quota(&[
                ("/proc/self/cgroup", own),
                ("/proc/self/mountinfo", V1),
                (&quota, value),
                (&period, "50000\n"),
            ])
        };
        assert_eq!(with("200000\n"), Some(4));
        assert_eq!(with("200001\n"), Some(5));
        assert_eq!(with("-1\n"), None);
        assert_eq!(with("many\n"), None);
    }

    #[test]
    fn in_a_container_the_mount_may_be_the_group_itself() {
        // The host's path, and a mount of just that group (version 1 without a namespace).
        let mounts = "31 24 0:28 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n";
        for own in ["4:cpu:/docker/abc\n", "4:cpu:/other\n", "4:cpu:/../up\n"] {
            let files = [
                ("/proc/self/cgroup", own),
                ("/proc/self/mountinfo", mounts),
                ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "300000"),
                ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"),
            ];
            assert_eq!(cpus_of_quota(&files), Some(3), "{own}");
        }
    }

    #[test]
    fn physical_cores_come_before_their_siblings() {
        let sibling = |cpu: usize| format!("/sys/devices/system/cpu/cpu{cpu}/topology");
        let files: Vec<(String, &str)> = (0..4)
            .map(|cpu| {
                let path = format!("{}/thread_siblings_list", sibling(cpu));
                (path, if cpu % 2 == 0 { "0,2" } else { "1,3" })
            })
            .collect();
        let mut files: Vec<(&str, &str)> = files
            .iter()
            .map(|(path, text)| (path.as_str(), *text))
            .collect();
        files.push(("/sys/devices/system/node/online", "0-1"));
        files.push(("/sys/devices/system/node/node0/cpulist", "0,2"));
        files.push(("/sys/devices/system/node/node1/cpulist", "1,3"));
        let all = topology(&[0, 1, 2, 3], &files);
        assert_eq!(all.by_preference(), [0, 1, 2, 3]);
        assert_eq!(all.physical_cores(), 2);
        assert_eq!((all.numa_node(2), all.numa_node(3)), (Some(0), Some(1)));
        assert_eq!(all.numa_node(4), None);
        // A sibling whose partner isn't ours has the core for itself.
        let some = topology(&[0, 2, 3], &files);
        assert_eq!(some.by_preference(), [0, 3, 2]);
        assert_eq!(some.physical_cores(), 2);
    }

    #[test]
    fn mounts_are_found_by_the_innermost_path() {
        let mountinfo = "\
1 0 8:1 / / rw - ext4 /dev/vda rw
2 1 0:5 / /data rw - tmpfs tmpfs rw
3 1 8:2 / /data ro,noatime shared:1 - xfs /dev/vdb rw
4 1 0:6 / /with\\040space rw - nfs4 host:/x rw,vers=4.2
";
        let kind = |path: &str| {
            let mount = Mount::around(mountinfo, Path::new(path)).unwrap();
            (mount.kind, mount.read_only)
        };
        assert_eq!(kind("/data/ottla"), ("xfs".to_owned(), true));
        assert_eq!(kind("/database"), ("ext4".to_owned(), false));
        assert_eq!(kind("/with space/x"), ("nfs4".to_owned(), false));
        assert_eq!(unescape("a\\134b\\"), "a\\b\\");
        assert_eq!(Mount::around("", Path::new("/")), None);
    }

    #[test]
    fn this_machine_can_be_read() {
        let known = Topology::read();
        assert!(!known.allowed.is_empty());
        assert!((1..=known.allowed.len()).contains(&known.physical_cores()));
        let mut preferred = known.by_preference();
        preferred.sort_unstable();
        assert_eq!(preferred, known.allowed);
    }
}
