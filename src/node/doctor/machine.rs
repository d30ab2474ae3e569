//! CPUs, memory nodes and the clock. Nothing here keeps a node from starting.

use std::collections::BTreeSet;

use super::{Check, read};
use crate::io::topology::{Topology, show_list};
use crate::node::cores::Plan;

/// Clocks that are read without a system call.
const FAST_CLOCKS: [&str; 4] = [
    "tsc",
    "arch_sys_counter",
    "kvm-clock",
    "hyperv_clocksource_tsc_page",
];
const CLOCK: &str = "/sys/devices/system/clocksource/clocksource0";
const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

pub(super) fn checks(plan: Option<&Plan>, topology: &Topology) -> Vec<Check> {
    let mut checks = vec![cpus(topology), quota(plan, topology)];
    checks.extend(numa(plan, topology));
    checks.extend(clock());
    checks.extend(frequency(topology));
    checks.extend(huge_pages());
    checks
}

fn cpus(topology: &Topology) -> Check {
    let mut text = format!("{} may be used", show_list(&topology.allowed));
    if !topology.online.is_empty() {
        text.push_str(&format!(", {} online", show_list(&topology.online)));
    }
    if let Some(cpuset) = &topology.cpuset {
        text.push_str(&format!(", cpuset {}", show_list(cpuset)));
    }
    let physical = topology.physical_cores();
    if physical < topology.allowed.len() {
        text.push_str(&format!(", {physical} physical cores"));
    }
    Check::ok("cpus", text)
}

fn quota(plan: Option<&Plan>, topology: &Topology) -> Check {
    const SUBJECT: &str = "cpu quota";
    if let Some(warning) = plan.and_then(|plan| plan.above_quota.as_ref()) {
        return Check::warn(SUBJECT, warning.clone());
    }
    match &topology.quota {
        None => Check::ok(SUBJECT, "none"),
        Some(quota) => Check::ok(
            SUBJECT,
            format!(
                "{} µs in each {} µs ({})",
                quota.quota_us,
                quota.period_us,
                quota.file.display()
            ),
        ),
    }
}

fn numa(plan: Option<&Plan>, topology: &Topology) -> Option<Check> {
    const SUBJECT: &str = "numa";
    let nodes = &topology.numa_nodes;
    if nodes.is_empty() {
        return None;
    }
    let listed: Vec<String> = nodes
        .iter()
        .map(|(node, cpus)| format!("node {node} has CPU {}", show_list(cpus)))
        .collect();
    let listed = listed.join(", ");
    let pinned = plan.is_none_or(|plan| plan.places.iter().all(|place| place.cpu.is_some()));
    let allowed: BTreeSet<_> = topology
        .allowed
        .iter()
        .map(|cpu| topology.numa_node(*cpu))
        .collect();
    if pinned || allowed.len() < 2 {
        return Some(Check::ok(SUBJECT, listed));
    }
    Some(Check::warn(
        SUBJECT,
        format!(
            "{listed}, and event loops that aren't pinned leave their memory behind; pin them, \
             for example `-o ottla.cores={}`",
            show_list(&topology.allowed)
        ),
    ))
}

fn clock() -> Option<Check> {
    let current = read(format!("{CLOCK}/current_clocksource"))?;
    let available = read(format!("{CLOCK}/available_clocksource")).unwrap_or_default();
    Some(judge_clock(&current, &available))
}

fn judge_clock(current: &str, available: &str) -> Check {
    const SUBJECT: &str = "clock";
    if FAST_CLOCKS.contains(&current) {
        return Check::ok(SUBJECT, current);
    }
    let better = FAST_CLOCKS
        .iter()
        .find(|name| available.split_whitespace().any(|other| other == **name));
    let advice = match better {
        Some(name) => format!("`echo {name} | sudo tee {CLOCK}/current_clocksource`"),
        None => "`sudo dmesg | grep -i clocksource` tells why there is no other".to_owned(),
    };
    Check::warn(
        SUBJECT,
        format!("reading {current} is a system call each time; {advice}"),
    )
}

fn frequency(topology: &Topology) -> Option<Check> {
    let of_cpu =
        |cpu: &usize, name: &str| read(format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/{name}"));
    let governors: BTreeSet<String> = topology
        .allowed
        .iter()
        .filter_map(|cpu| of_cpu(cpu, "scaling_governor"))
        .collect();
    let driver = topology
        .allowed
        .first()
        .and_then(|cpu| of_cpu(cpu, "scaling_driver"));
    judge_governors(&governors, driver.as_deref().unwrap_or_default())
}

fn judge_governors(governors: &BTreeSet<String>, driver: &str) -> Option<Check> {
    const SUBJECT: &str = "cpu frequency";
    if governors.is_empty() {
        return None;
    }
    let listed: Vec<&str> = governors.iter().map(String::as_str).collect();
    let listed = listed.join(", ");
    // The processor itself decides under these drivers, whatever the governor is called.
    let by_hardware = driver == "intel_pstate" || driver.starts_with("amd-pstate");
    let slow = ["powersave", "conservative", "ondemand"];
    if by_hardware || !governors.iter().any(|name| slow.contains(&name.as_str())) {
        return Some(Check::ok(SUBJECT, format!("governor {listed}")));
    }
    Some(Check::warn(
        SUBJECT,
        format!(
            "governor {listed}: a core that has slept is slow at first; `echo performance | \
             sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor`"
        ),
    ))
}

fn huge_pages() -> Option<Check> {
    Some(judge_huge_pages(&read(HUGE_PAGES)?))
}

/// `always [madvise] never`
fn judge_huge_pages(text: &str) -> Check {
    const SUBJECT: &str = "huge pages";
    let chosen = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    match chosen {
        Some(("always", _)) => Check::warn(
            SUBJECT,
            format!(
                "transparent huge pages are always used: idle connections take more memory; \
                 `echo madvise | sudo tee {HUGE_PAGES}`"
            ),
        ),
        Some((chosen, _)) => Check::ok(SUBJECT, format!("transparent ones: {chosen}")),
        None => Check::ok(SUBJECT, text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn a_slow_clock_names_a_faster_one() {
        assert_eq!(judge_clock("tsc", "tsc hpet").status, Status::Ok);
        let check = judge_clock("hpet", "hpet acpi_pm tsc");
        assert_eq!(check.status, Status::Warn);
        assert!(check.text.contains("`echo tsc | sudo tee "), "{check}");
        assert!(judge_clock("hpet", "hpet").text.contains("dmesg"));
    }

    #[test]
    fn governors_count_where_they_decide() {
        let status = |name: &str, driver| {
            let governors = [name.to_owned()].into();
            judge_governors(&governors, driver).map(|check| check.status)
        };
        assert_eq!(status("performance", "acpi-cpufreq"), Some(Status::Ok));
        assert_eq!(status("powersave", "acpi-cpufreq"), Some(Status::Warn));
        assert_eq!(status("powersave", "intel_pstate"), Some(Status::Ok));
        assert_eq!(judge_governors(&BTreeSet::new(), ""), None);
    }

    #[test]
    fn huge_pages_that_are_always_used_are_told() {
        assert_eq!(
            judge_huge_pages("[always] madvise never").status,
            Status::Warn
        );
        assert_eq!(
            judge_huge_pages("always [madvise] never").status,
            Status::Ok
        );
        assert_eq!(judge_huge_pages("").status, Status::Ok);
    }

    #[test]
    fn unpinned_loops_on_several_nodes_are_told() {
        let topology = Topology {
            allowed: vec![0, 1],
            numa_nodes: [(0, vec![0]), (1, vec![1])].into(),
            ..Topology::default()
        };
        let config = |cores: &str| {
            let overrides = [format!("ottla.cores={cores}")];
            crate::config::load(None, &overrides).unwrap().node
        };
        let exempt = crate::io::Memlock {
            limit_bytes: 0,
            is_exempt: true,
        };
        let status = |cores: &str| {
            let plan = crate::node::cores::plan_for(&config(cores), &topology, &exempt);
            numa(plan.as_ref().ok(), &topology).unwrap().status
        };
        assert_eq!(status("2"), Status::Ok);
        assert_eq!(status("3"), Status::Warn);
        assert_eq!(numa(None, &Topology::default()), None);
    }
}
