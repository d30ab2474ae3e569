//! `ottla format`: what `kafka-storage format --standalone` does. A first start formats
//! by itself; this is for choosing the cluster's id.

use crate::base::Rng;
use crate::config::{self, Loaded};
use crate::io::disk::RealDisk;
use crate::log::meta_properties::MetaProperties;
use crate::node::format::{self, Format};

use super::args::FormatArgs;
use super::output;

pub fn run(args: &FormatArgs) -> Result<(), String> {
    let Loaded { node: config, .. } =
        config::load(args.config.as_deref(), &args.overrides).map_err(|e| e.to_string())?;
    let cluster_id = args.cluster_id.trim();
    if cluster_id.is_empty() || cluster_id.contains(char::is_control) {
        return Err("--cluster-id is empty; `ottla random-uuid` makes one".to_owned());
    }
    let mut directories = config.log_dirs.clone();
    if !directories.contains(&config.metadata_log_dir) {
        directories.push(config.metadata_log_dir.clone());
    }
    let mut config = config;
    let mut new = Vec::new();
    for path in directories {
        let shown = path.display();
        match MetaProperties::read(&RealDisk, &path) {
            Err(error) => return Err(format!("the directory {shown}: {error}")),
            Ok(None) => new.push(path),
            Ok(Some(meta)) if meta.cluster_id != cluster_id => {
                return Err(format!(
                    "the directory {shown} belongs to cluster {}, not {cluster_id}",
                    meta.cluster_id
                ));
            }
            Ok(Some(meta)) if config.node_id.is_some_and(|id| id != meta.node_id) => {
                return Err(format!(
                    "the directory {shown} belongs to node {}",
                    meta.node_id
                ));
            }
            Ok(Some(meta)) if args.ignore_formatted => config.node_id = Some(meta.node_id),
            Ok(Some(_)) => {
                return Err(format!(
                    "the directory {shown} is already formatted; --ignore-formatted skips it and formats the others"
                ));
            }
        }
    }
    if new.is_empty() {
        return output::print("all directories are already formatted\n");
    }
    let options = Format {
        cluster_id: cluster_id.to_owned(),
        directories: new,
    };
    let mut rng = Rng::new(format::seed());
    let node_id = format::format(&RealDisk, &config, &options, format::now_ms(), &mut rng)
        .map_err(|error| error.to_string())?;
    let mut text = String::new();
    for path in &options.directories {
        let path = path.display();
        text.push_str(&format!(
            "formatted {path} for node {node_id} of cluster {cluster_id}\n"
        ));
    }
    output::print(&text)
}
