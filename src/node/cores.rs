//! How many event loops there are and on which CPU each runs (`ottla.cores`).
//!
//! ```text
//! auto     as many as CPUs are allowed; where a quota grants less, as many as it rounds up
//!          to, and not pinned: the machine is shared, and everyone would pin to the same
//! number   pinned to as many CPUs, physical cores before their siblings; not pinned where
//!          there are fewer CPUs than that
//! list     pinned as listed; a CPU that can't be had is an error
//! ```
//! In all cases no more than the lockable memory is enough for. A core is pinned before
//! anything of it is made (`io::core`), so its rings, buffers and caches, first touched by
//! its own thread, are on its NUMA node.
//!
//! Called by `node::run` before anything is started or formatted, by `node::doctor`, and by
//! `cli` for the banner. The decision is pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::StartError;
use crate::base::CoreId;
use crate::config::{Cores, FetchPath, NodeConfig, SpinMode};
use crate::io::topology::{Topology, show_list};
use crate::io::{Backend, CoreConfig, Memlock};

/// The cores of a node.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of each data core.
    pub places: Vec<Place>,
    /// Why there are fewer than wanted, and the command that helps.
    pub short_of_memlock: Option<String>,
    /// That the quota isn't enough for them.
    pub above_quota: Option<String>,
    spin: Duration,
    spin_mode: SpinMode,
    fetch_path: FetchPath,
}

/// Where a core runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// None where it is not pinned.
    pub cpu: Option<usize>,
    /// The NUMA node of that CPU, where the kernel tells.
    pub numa_node: Option<usize>,
}

/// The event loop of the controller, beside those for data.
const CONTROLLER_CORES: usize = 1;

/// Decides by the configuration and by what this process may use.
pub fn plan(config: &NodeConfig) -> Result<Plan, StartError> {
    plan_for(config, &Topology::read(), &Memlock::read())
}

/// The same for a machine that was read already.
pub fn plan_for(
    config: &NodeConfig,
    topology: &Topology,
    memlock: &Memlock,
) -> Result<Plan, StartError> {
    let cores = &config.runtime.cores;
    if let Cores::Cpus(cpus) = cores
        && let Some(what) = unusable(cpus, topology)
    {
        return Err(config.mistake("ottla.cores", what).into());
    }
    let wanted = wanted(cores, topology);
    let count = wanted.min(room(memlock));
    if count == 0 {
        let checked = memlock.check(wanted + CONTROLLER_CORES, Backend::Ring);
        checked.map_err(|error| StartError::core(CoreId(0), error))?;
    }
    Ok(Plan {
        places: places(cores, count, topology),
        short_of_memlock: (count < wanted).then(|| short_of_memlock(wanted, count, memlock)),
        above_quota: above_quota(cores, count, topology),
        spin: Duration::from_micros(u64::from(config.runtime.spin_us)),
        spin_mode: config.runtime.spin_mode,
        fetch_path: config.runtime.fetch_path,
    })
}

impl Plan {
    /// What a person should know of it, one line each; the start goes on.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        let warnings = [&self.short_of_memlock, &self.above_quota];
        warnings.into_iter().flatten().map(String::as_str)
    }

    pub fn data_cores(&self) -> impl Iterator<Item = CoreConfig> + '_ {
        let places = self.places.iter().enumerate();
        places.map(|(index, place)| CoreConfig {
            cpu: place.cpu,
            spin: self.spin,
            spin_mode: self.spin_mode,
            fetch_path: self.fetch_path,
            name: format!("core-{index}"),
            ..CoreConfig::new(CoreId(index as u16))
        })
    }

    /// Comes after `data_cores`. Not pinned and never spinning: it sleeps most of its life.
    pub fn controller_core(&self, data_cores: usize) -> CoreConfig {
        CoreConfig {
            name: "controller".to_owned(),
            spin: Duration::ZERO,
            ..CoreConfig::new(CoreId(data_cores as u16))
        }
    }
}

/// The event loops for a person: how many, on which CPUs, near which memory.
pub fn text(places: &[Place]) -> String {
    let count = places.len();
    let mut by_node: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
    for place in places {
        let Some(cpu) = place.cpu else {
            return format!("{count} (not pinned)");
        };
        by_node.entry(place.numa_node).or_default().push(cpu);
    }
    by_node.values_mut().for_each(|cpus| cpus.sort_unstable());
    let mut nodes = by_node.iter();
    let pinned = match (nodes.next(), nodes.next()) {
        (Some((Some(node), cpus)), None) => format!("{}; NUMA node {node}", show_list(cpus)),
        _ => {
            let nodes = by_node.iter().map(|(node, cpus)| match node {
                Some(node) => format!("{} on NUMA node {node}", show_list(cpus)),
                None => show_list(cpus),
            });
            nodes.collect::<Vec<_>>().join("; ")
        }
    };
    format!("{count} (pinned to CPU {pinned})")
}

/// What is wrong with the first listed CPU that can't be had.
fn unusable(cpus: &[usize], topology: &Topology) -> Option<String> {
    let cpu = cpus.iter().find(|cpu| !topology.allowed.contains(cpu))?;
    let allowed = show_list(&topology.allowed);
    let online = &topology.online;
    if !online.is_empty() && !online.contains(cpu) {
        return Some(format!(
            "this machine has no CPU {cpu} (or it is offline); this process may use {allowed}"
        ));
    }
    let by = match &topology.cpuset {
        Some(cpuset) if !cpuset.contains(cpu) => "its cpuset",
        _ => "its affinity (taskset, CPUAffinity=)",
    };
    Some(format!(
        "CPU {cpu} is not allowed for this process by {by}; it may use {allowed}"
    ))
}

fn wanted(cores: &Cores, topology: &Topology) -> usize {
    match cores {
        Cores::Auto => {
            let granted = topology.quota.as_ref().map_or(usize::MAX, |q| q.cpus());
            topology.allowed.len().min(granted).min(Cores::MAX)
        }
        Cores::Count(count) => *count,
        Cores::Cpus(cpus) => cpus.len(),
    }
}

/// How many data cores the lockable memory is enough for.
fn room(memlock: &Memlock) -> usize {
    let cores = memlock.cores_max(Backend::Ring);
    cores.saturating_sub(CONTROLLER_CORES)
}

fn places(cores: &Cores, count: usize, topology: &Topology) -> Vec<Place> {
    let preferred = topology.by_preference();
    let cpus = match cores {
        Cores::Cpus(cpus) => cpus,
        Cores::Count(_) | Cores::Auto => &preferred,
    };
    let shared = *cores == Cores::Auto && is_below_cpus(topology);
    if count > cpus.len() || shared {
        return vec![Place::default(); count];
    }
    let place = |cpu: &usize| Place {
        cpu: Some(*cpu),
        numa_node: topology.numa_node(*cpu),
    };
    cpus[..count].iter().map(place).collect()
}

/// Whether the quota grants less time than the allowed CPUs have.
fn is_below_cpus(topology: &Topology) -> bool {
    let granted = topology.quota.as_ref().map(|quota| quota.cpus());
    granted.is_some_and(|granted| granted < topology.allowed.len())
}

fn short_of_memlock(wanted: usize, count: usize, memlock: &Memlock) -> String {
    let needed = Memlock::needed(wanted + CONTROLLER_CORES, Backend::Ring);
    format!(
        "{count} instead of {wanted} event loops: the limit of locked memory is {}; raise it in \
         this shell with `sudo prlimit --pid $$ --memlock={needed}` (RLIMIT_MEMLOCK; \
         `LimitMEMLOCK=` in a systemd unit)",
        memlock.limit_bytes
    )
}

fn above_quota(cores: &Cores, count: usize, topology: &Topology) -> Option<String> {
    let quota = topology.quota.as_ref()?;
    let granted = quota.cpus();
    if *cores == Cores::Auto || count <= granted {
        return None;
    }
    Some(format!(
        "{count} event loops have {} µs of CPU time in each {} µs ({}), and stand still when it \
         is used up; start with `-o ottla.cores={granted}`",
        quota.quota_us,
        quota.period_us,
        quota.file.display()
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::config::load::from_bytes;
    use crate::io::topology::Quota;

    const EXEMPT: Memlock = Memlock {
        limit_bytes: 0,
        is_exempt: true,
    };

    fn config(cores: &str) -> NodeConfig {
        let text = format!("\nottla.cores={cores}\n");
        let loaded = from_bytes(Path::new("f"), text.as_bytes(), &[]);
        loaded.unwrap().node
    }

    fn machine(allowed: &[usize], quota: Option<u64>) -> Topology {
        Topology {
            allowed: allowed.to_vec(),
            online: (0..8).collect(),
            quota: quota.map(|quota_us| Quota {
                quota_us,
                period_us: 100,
                file: "/g/cpu.max".into(),
            }),
            numa_nodes: [(0, vec![0, 1, 2, 3]), (1, vec![4, 5, 6, 7])].into(),
            ..Topology::default()
        }
    }

    fn planned(cores: &str, topology: &Topology) -> String {
        let plan = plan_for(&config(cores), topology, &EXEMPT).unwrap();
        text(&plan.places)
    }

    fn refused(cores: &str, topology: &Topology) -> String {
        plan_for(&config(cores), topology, &EXEMPT)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn auto_takes_what_is_allowed() {
        let known = machine(&[0, 1], None);
        assert_eq!(
            planned("auto", &known),
            "2 (pinned to CPU 0-1; NUMA node 0)"
        );
        let known = machine(&[3, 4], None);
        assert_eq!(
            planned("auto", &known),
            "2 (pinned to CPU 3 on NUMA node 0; 4 on NUMA node 1)"
        );
        let many = machine(&(0..300).collect::<Vec<_>>(), None);
        let plan = plan_for(&config("auto"), &many, &EXEMPT).unwrap();
        assert_eq!(plan.places.len(), Cores::MAX);
    }

    #[test]
    fn auto_is_bounded_by_the_quota() {
        for (quota, expected) in [
            (1, "1 (not pinned)"),
            (150, "2 (not pinned)"),
            (201, "3 (pinned to CPU 0-2; NUMA node 0)"),
            (900, "3 (pinned to CPU 0-2; NUMA node 0)"),
        ] {
            let known = machine(&[0, 1, 2], Some(quota));
            assert_eq!(planned("auto", &known), expected, "{quota}");
        }
    }

    #[test]
    fn a_number_is_pinned_where_there_are_cpus() {
        let known = machine(&[2, 3], None);
        assert_eq!(planned("1", &known), "1 (pinned to CPU 2; NUMA node 0)");
        assert_eq!(planned("3", &known), "3 (not pinned)");
        let known = machine(&[2, 3], Some(100));
        let plan = plan_for(&config("2"), &known, &EXEMPT).unwrap();
        assert_eq!(text(&plan.places), "2 (pinned to CPU 2-3; NUMA node 0)");
        assert_eq!(
            plan.above_quota.as_deref(),
            Some(
                "2 event loops have 100 µs of CPU time in each 100 µs (/g/cpu.max), and stand \
                 still when it is used up; start with `-o ottla.cores=1`"
            )
        );
    }

    #[test]
    fn a_list_is_taken_as_it_is_or_refused() {
        let mut known = machine(&[0, 1, 5], None);
        assert_eq!(
            planned("5,0", &known),
            "2 (pinned to CPU 0 on NUMA node 0; 5 on NUMA node 1)"
        );
        assert_eq!(
            refused("0-1,9", &known),
            "f:2: ottla.cores=0-1,9: this machine has no CPU 9 (or it is offline); this process \
             may use 0-1,5"
        );
        assert_eq!(
            refused("0-3", &known),
            "f:2: ottla.cores=0-3: CPU 2 is not allowed for this process by its affinity \
             (taskset, CPUAffinity=); it may use 0-1,5"
        );
        known.cpuset = Some(vec![0, 1, 5]);
        assert!(refused("2,3", &known).contains("by its cpuset"));
    }

    #[test]
    fn short_of_locked_memory_there_are_fewer() {
        let known = machine(&[0, 1], None);
        let with = |limit_bytes, cores: &str| {
            let memlock = Memlock {
                limit_bytes,
                is_exempt: false,
            };
            plan_for(&config(cores), &known, &memlock)
        };
        let plan = with(8 << 20, "64").unwrap();
        let needed = Memlock::needed(65, Backend::Ring);
        let warning = plan.warnings().collect::<String>();
        let fewer = format!("{} instead of 64 event loops: ", plan.places.len());
        assert!(warning.starts_with(&fewer), "{warning}");
        let command = format!("`sudo prlimit --pid $$ --memlock={needed}`");
        assert!(warning.contains(&command), "{warning}");
        assert_eq!(with(needed, "64").unwrap().warnings().count(), 0);
        // What is left over is pinned, where it fits.
        assert_eq!(
            text(&with(1_024 << 10, "64").unwrap().places),
            "2 (pinned to CPU 0-1; NUMA node 0)"
        );
        let error = with(64 << 10, "2").unwrap_err().to_string();
        assert!(error.contains("--memlock=1048576"), "{error}");
    }

    proptest! {
        #[test]
        fn a_plan_keeps_its_promises(
            allowed in proptest::collection::btree_set(0usize..8, 1..8),
            quota in proptest::option::of(1u64..1_200),
            count in proptest::option::of(1usize..20),
            limit_kib in 0u64..8_192,
            is_exempt: bool,
        ) {
            let allowed: Vec<usize> = allowed.into_iter().collect();
            let known = machine(&allowed, quota);
            let cores = count.map_or("auto".to_owned(), |count| count.to_string());
            let memlock = Memlock { limit_bytes: limit_kib << 10, is_exempt };
            let Ok(plan) = plan_for(&config(&cores), &known, &memlock) else {
                prop_assert!(!is_exempt && limit_kib < 688);
                return Ok(());
            };
            let places = &plan.places;
            prop_assert!(!places.is_empty());
            prop_assert!(memlock.check(places.len() + 1, Backend::Ring).is_ok());
            // All or none are pinned, each to a CPU of its own that is allowed.
            let cpus: Vec<usize> = places.iter().filter_map(|place| place.cpu).collect();
            prop_assert!(cpus.is_empty() || cpus.len() == places.len());
            let mut unique = cpus.clone();
            unique.sort_unstable();
            unique.dedup();
            prop_assert_eq!(unique.len(), cpus.len());
            prop_assert!(cpus.iter().all(|cpu| allowed.contains(cpu)));
            match count {
                Some(count) => prop_assert!(places.len() <= count),
                None => prop_assert!(places.len() <= allowed.len()),
            }
            let wanted = wanted(&config(&cores).runtime.cores, &known);
            prop_assert_eq!(plan.short_of_memlock.is_some(), places.len() < wanted);
        }
    }
}
