//! `ottla format`: what `kafka-storage format` does. A first start formats
//! by itself; this is for choosing the cluster's id.

use crate::base::Rng;
use crate::config::{self, Loaded, NodeConfig};
use crate::io::disk::RealDisk;
use crate::log::meta_properties::MetaProperties;
use crate::node::format::{self, FirstVoters, Format};

use super::args::FormatArgs;
use super::output;

pub fn run(args: &FormatArgs) -> Result<(), String> {
    let Loaded { node: config, .. } =
        config::load(args.config.as_deref(), &args.overrides).map_err(|e| e.to_string())?;
    let cluster_id = args.cluster_id.trim();
    if cluster_id.is_empty() || cluster_id.contains(char::is_control) {
        return Err("--cluster-id is empty; `ottla random-uuid` makes one".to_owned());
    }
    let voters = first_voters(args, &config)?;
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
        voters,
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

/// Who votes first, as the options say.
fn first_voters(args: &FormatArgs, config: &NodeConfig) -> Result<FirstVoters, String> {
    let is_chosen =
        args.standalone || args.no_initial_controllers || args.initial_controllers.is_some();
    if is_chosen && !config.quorum_voters.is_empty() {
        return Err("controller.quorum.voters says who votes: none of --standalone, --initial-controllers and --no-initial-controllers goes with it".to_owned());
    }
    if args.no_initial_controllers {
        return Ok(FirstVoters::None);
    }
    let Some(list) = &args.initial_controllers else {
        return Ok(FirstVoters::Standalone);
    };
    let voters =
        format::parse_initial(list).map_err(|error| format!("--initial-controllers: {error}"))?;
    match config.node_id {
        Some(id) if voters.iter().any(|voter| voter.id == id) => Ok(FirstVoters::Initial(voters)),
        Some(id) => Err(format!(
            "--initial-controllers doesn't name this node, which is {id}"
        )),
        None => Err("--initial-controllers needs node.id in the settings".to_owned()),
    }
}
