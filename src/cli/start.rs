//! `ottla start`: config, diagnostics, limits and signals, then the node.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::args::StartArgs;
use super::stop::Stop;
use super::{banner, output};
use crate::config::{self, Loaded};
use crate::node::{self, StartError};
use crate::telemetry;

pub fn run(args: &StartArgs) -> Result<(), String> {
    let Loaded {
        node: config,
        warnings,
        without_effect,
    } = config::load(args.config.as_deref(), &args.overrides).map_err(|e| e.to_string())?;
    telemetry::init(&config.runtime.log_level)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if !without_effect.is_empty() {
        tracing::info!(
            keys = without_effect.join(","),
            "accepted without effect in Ottla"
        );
    }
    check_kernel().map_err(|e| e.to_string())?;
    raise_limits();
    let stop = Stop::on_signals().map_err(|e| format!("can't listen for signals: {e}"))?;
    let outcome = node::run(
        config,
        |ready| {
            // A closed stdout must not keep a node from serving.
            if let Err(error) = output::print(&banner::text(ready)) {
                tracing::warn!(error, "banner not shown");
            }
        },
        || {
            stop.wait();
            tracing::info!("stopping");
        },
    );
    outcome.map_err(|e| e.to_string())
}

/// Deferred task work of io_uring came with Linux 6.1.
fn check_kernel() -> Result<(), StartError> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    // An unreadable version is no reason not to try.
    match kernel_version(release) {
        Some(version) if version < (6, 1) => Err(StartError::Kernel {
            found: release.to_owned(),
        }),
        _ => Ok(()),
    }
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Takes what the user may have: the soft limits of locked memory and open files go up
/// to the hard ones. What is still too little is reported by whoever needs it.
fn raise_limits() {
    for resource in [Resource::RLIMIT_MEMLOCK, Resource::RLIMIT_NOFILE] {
        if let Ok((soft, hard)) = getrlimit(resource)
            && soft < hard
            && let Err(error) = setrlimit(resource, hard, hard)
        {
            tracing::warn!(?resource, %error, "limit not raised");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_understood() {
        assert_eq!(kernel_version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(kernel_version("5.10"), Some((5, 10)));
        assert_eq!(kernel_version("6.1-rc1"), Some((6, 1)));
        assert_eq!(kernel_version(""), None);
        assert!(check_kernel().is_ok());
    }
}
