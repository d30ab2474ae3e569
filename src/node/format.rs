//! Formats log directories: identity, and what the metadata log begins with
//! (`kafka-storage format`).
//!
//! Called by `ottla format` and at the first start of a single node.

use std::path::PathBuf;

use super::StartError;
use super::metadata_log::format_quorum;
use crate::base::{BrokerId, Millis, Rng, Uuid};
use crate::config::NodeConfig;
use crate::io::disk::Disk;
use crate::log::checkpoint::{Durability, replace_file};
use crate::log::meta_properties::MetaProperties;
use crate::metadata::bootstrap;
use crate::raft::voters::Endpoint;

/// A generated node id has this many values, from 0: few enough to be typed, enough that
/// two nodes set up side by side differ.
const GENERATED_IDS: u64 = 1_000_000_000;

/// What to format.
#[derive(Clone, Debug)]
pub struct Format {
    pub cluster_id: String,
    pub directories: Vec<PathBuf>,
}

/// Gives each directory its identity. The metadata directory also gets the records that a
/// new cluster starts from.
pub fn format(
    disk: &dyn Disk,
    config: &NodeConfig,
    options: &Format,
    now_ms: Millis,
    rng: &mut Rng,
) -> Result<BrokerId, StartError> {
    let node_id = config
        .node_id
        .unwrap_or_else(|| BrokerId(i32::try_from(rng.below(GENERATED_IDS)).expect("below 2^31")));
    for path in &options.directories {
        let failed = || StartError::directory(path);
        disk.create_dir_all(path).map_err(failed())?;
        let directory_id = Uuid::random(rng);
        if *path == config.metadata_log_dir {
            let features = bootstrap::default_features();
            let bytes = bootstrap::bootstrap_checkpoint(&features, now_ms);
            let file = path.join(bootstrap::BOOTSTRAP_FILE);
            replace_file(disk, &file, &bytes, Durability::Now).map_err(failed())?;
            if config.roles.controller && config.quorum_voters.is_empty() {
                format_quorum(disk, path, node_id, directory_id, endpoints(config), now_ms)
                    .map_err(failed())?;
            }
        }
        let meta = MetaProperties {
            cluster_id: options.cluster_id.clone(),
            node_id,
            directory_id: Some(directory_id),
            others: Default::default(),
        };
        // Last: a directory without it counts as not formatted.
        meta.write(disk, path).map_err(failed())?;
    }
    Ok(node_id)
}

/// Where the controller of this node will be reached.
fn endpoints(config: &NodeConfig) -> Vec<Endpoint> {
    config
        .listeners
        .controller()
        .map(|listener| Endpoint {
            listener: listener.name.clone(),
            host: listener.advertised_host.clone(),
            port: match listener.advertised_port {
                0 => listener.port,
                port => port,
            },
        })
        .collect()
}

/// A seed from the kernel.
pub fn seed() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    u64::from_ne_bytes(bytes)
}

/// The wall clock, before there is a core that has one.
pub fn now_ms() -> Millis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}
