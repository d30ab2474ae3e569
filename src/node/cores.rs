//! How many event loops there are and on which CPU each runs (`ottla.cores`).

use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::StartError;
use crate::base::CoreId;
use crate::config::{Cores, FetchPath, NodeConfig};
use crate::io::{Backend, CoreConfig, check_memlock};

/// The cores of a node.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of each data core; none where it is not pinned.
    pub cpus: Vec<Option<usize>>,
    spin: Duration,
    fetch_path: FetchPath,
}

/// Decides by the configuration and the CPUs that this process may use. More loops than
/// CPUs are allowed, unpinned.
pub fn plan(config: &NodeConfig) -> Result<Plan, StartError> {
    let allowed = allowed_cpus();
    let cpus: Vec<Option<usize>> = match &config.runtime.cores {
        Cores::Auto => allowed.iter().copied().map(Some).collect(),
        Cores::Count(count) if *count <= allowed.len() => {
            allowed[..*count].iter().copied().map(Some).collect()
        }
        Cores::Count(count) => vec![None; *count],
        Cores::Cpus(cpus) => cpus.iter().copied().map(Some).collect(),
    };
    // The controller has a loop of its own.
    check_memlock(cpus.len() + 1, Backend::Ring)
        .map_err(|error| StartError::core(CoreId(0), error))?;
    Ok(Plan {
        cpus,
        spin: Duration::from_micros(u64::from(config.runtime.spin_us)),
        fetch_path: config.runtime.fetch_path,
    })
}

impl Plan {
    pub fn data_cores(&self) -> impl Iterator<Item = CoreConfig> + '_ {
        self.cpus.iter().enumerate().map(|(index, cpu)| CoreConfig {
            cpu: *cpu,
            spin: self.spin,
            fetch_path: self.fetch_path,
            name: format!("core-{index}"),
            ..CoreConfig::new(CoreId(index as u16))
        })
    }

    /// Not pinned and never spinning: it sleeps most of its life.
    pub fn controller_core(&self) -> CoreConfig {
        CoreConfig {
            name: "controller".to_owned(),
            spin: Duration::ZERO,
            ..CoreConfig::new(CoreId(self.cpus.len() as u16))
        }
    }
}

fn allowed_cpus() -> Vec<usize> {
    let allowed: Vec<usize> = match sched_getaffinity(Pid::from_raw(0)) {
        Ok(set) => (0..CpuSet::count())
            .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
            .collect(),
        Err(_) => Vec::new(),
    };
    if allowed.is_empty() { vec![0] } else { allowed }
}
