//! One node: builds the parts, starts the cores, stops everything in reverse.
//!
//! Called by `cli::start`.

pub mod controller;
pub mod error;
pub mod listeners;
pub mod metadata_log;

use std::path::PathBuf;

pub use error::StartError;

use crate::base::BrokerId;
use crate::config::NodeConfig;
use listeners::BoundListener;

/// What a person wants to know of a node that serves.
#[derive(Clone, Debug)]
pub struct Ready {
    pub cluster_id: String,
    pub node_id: BrokerId,
    pub listeners: Vec<BoundListener>,
    pub log_dirs: Vec<PathBuf>,
    /// The CPU of each data core, where it is pinned.
    pub cpus: Vec<Option<usize>>,
    /// This start formatted the directories.
    pub formatted: bool,
}

/// Runs a node until `until_stop` returns. `on_ready` is called once it serves.
pub fn run(
    config: NodeConfig,
    on_ready: impl FnOnce(&Ready),
    until_stop: impl FnOnce(),
) -> Result<(), StartError> {
    let _ = (config, on_ready, until_stop);
    Err(StartError::Controller(
        "this build has no broker in it yet".to_owned(),
    ))
}
