//! `ottla start`: config, diagnostics, limits and signals, then the node.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::args::StartArgs;
use super::stop::Stop;
use super::{banner, output};
use crate::config::{self, Loaded};
use crate::node::{self, doctor};
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
    raise_limits();
    doctor::check_fatal(&config).map_err(|e| e.to_string())?;
    let stop = Stop::on_signals().map_err(|e| format!("can't listen for signals: {e}"))?;
    let outcome = node::run(
        config,
        |ready| {
            // A closed stdout must not keep a node from serving.
            if let Err(error) = output::print(&banner::text(ready)) {
                tracing::warn!(error, "banner not shown");
            }
        },
        move || {
            stop.wait();
            tracing::info!("stopping");
        },
    );
    outcome.map_err(|e| e.to_string())
}

/// Takes what the user may have: the soft limits of locked memory and open files go up
/// to the hard ones. What is still too little is reported by whoever needs it.
pub(super) fn raise_limits() {
    for resource in [Resource::RLIMIT_MEMLOCK, Resource::RLIMIT_NOFILE] {
        if let Ok((soft, hard)) = getrlimit(resource)
            && soft < hard
            && let Err(error) = setrlimit(resource, hard, hard)
        {
            tracing::warn!(?resource, %error, "limit not raised");
        }
    }
}
