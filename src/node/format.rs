//! Formats log directories: identity, and what the metadata log begins with
//! (`kafka-storage format`).
//!
//! Called by `ottla format` and at the first start of a single node.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;

use super::StartError;
use super::metadata_log::format_quorum;
use crate::base::{BrokerId, Millis, Rng, Uuid};
use crate::config::NodeConfig;
use crate::io::disk::Disk;
use crate::log::checkpoint::{Durability, replace_file};
use crate::log::meta_properties::MetaProperties;
use crate::metadata::bootstrap;
use crate::raft::voters::Endpoint;
use crate::raft::{ReplicaKey, Voter, VoterSet};

/// A generated node id has this many values, from 0: few enough to be typed, enough that
/// two nodes set up side by side differ.
const GENERATED_IDS: u64 = 1_000_000_000;

/// What to format.
#[derive(Clone, Debug)]
pub struct Format {
    pub cluster_id: String,
    pub directories: Vec<PathBuf>,
    pub voters: FirstVoters,
}

/// The voters of a new dynamic quorum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FirstVoters {
    /// This node alone.
    #[default]
    Standalone,
    /// These, each with the id of its metadata directory.
    Initial(Vec<InitialVoter>),
    /// Others: this node joins them later.
    None,
}

/// One of `--initial-controllers`: `id@host:port:directory-id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialVoter {
    pub id: BrokerId,
    pub host: String,
    pub port: u16,
    pub directory: Uuid,
}

impl FromStr for InitialVoter {
    type Err = String;

    fn from_str(text: &str) -> Result<InitialVoter, String> {
        let parse = || {
            let (id, rest) = text.split_once('@')?;
            let (address, directory) = rest.rsplit_once(':')?;
            let (host, port) = address.rsplit_once(':')?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Some(InitialVoter {
                id: BrokerId(id.parse().ok().filter(|id| *id >= 0)?),
                host: Some(host.to_owned()).filter(|host| !host.is_empty())?,
                port: port.parse().ok()?,
                directory: directory.parse().ok().filter(|id: &Uuid| !id.is_zero())?,
            })
        };
        parse().ok_or_else(|| format!("{text:?} is not of the form id@host:port:directory-id"))
    }
}

/// Parses `--initial-controllers`.
pub fn parse_initial(text: &str) -> Result<Vec<InitialVoter>, String> {
    let voters: Result<Vec<InitialVoter>, String> = text.split(',').map(str::parse).collect();
    let voters = voters?;
    let ids: BTreeSet<BrokerId> = voters.iter().map(|voter| voter.id).collect();
    if ids.len() < voters.len() {
        return Err("a node is named twice".to_owned());
    }
    Ok(voters)
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
        let prescribed = options.prescribed_directory(node_id);
        let is_metadata = *path == config.metadata_log_dir;
        let directory_id = match prescribed.filter(|_| is_metadata) {
            Some(id) => id,
            None => Uuid::random(rng),
        };
        if *path == config.metadata_log_dir {
            let features = bootstrap::default_features();
            let bytes = bootstrap::bootstrap_checkpoint(&features, now_ms);
            let file = path.join(bootstrap::BOOTSTRAP_FILE);
            replace_file(disk, &file, &bytes, Durability::Now).map_err(failed())?;
            let is_dynamic = config.roles.controller && config.quorum_voters.is_empty();
            let me = ReplicaKey {
                id: node_id,
                directory: Some(directory_id),
            };
            if let Some(voters) = options.first_voters(config, me)
                && is_dynamic
            {
                format_quorum(disk, path, voters, now_ms).map_err(failed())?;
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

impl Format {
    /// The id that the voters' list gives this node's metadata directory.
    fn prescribed_directory(&self, me: BrokerId) -> Option<Uuid> {
        match &self.voters {
            FirstVoters::Initial(voters) => {
                let own = voters.iter().find(|voter| voter.id == me);
                own.map(|voter| voter.directory)
            }
            FirstVoters::Standalone | FirstVoters::None => None,
        }
    }

    fn first_voters(&self, config: &NodeConfig, me: ReplicaKey) -> Option<VoterSet> {
        match &self.voters {
            FirstVoters::None => None,
            FirstVoters::Standalone => {
                let voter = Voter::new(me.id, me.directory, endpoints(config));
                Some(VoterSet::single(voter))
            }
            FirstVoters::Initial(voters) => {
                let voter = |voter: &InitialVoter| {
                    let endpoint = Endpoint {
                        listener: config.listeners.controller_names[0].clone(),
                        host: voter.host.clone(),
                        port: voter.port,
                    };
                    Voter::new(voter.id, Some(voter.directory), vec![endpoint])
                };
                Some(voters.iter().map(voter).collect())
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_controllers_are_read_as_kafka_does() {
        let id = "MvDxzVmcRsaTz33bUuRU6A";
        let text = format!("0@a:8082:{id},1@[::1]:8083:{id}");
        let voters = parse_initial(&text).unwrap();
        assert_eq!((voters[0].host.as_str(), voters[0].port), ("a", 8082));
        assert_eq!(
            (voters[1].id, voters[1].host.as_str()),
            (BrokerId(1), "::1")
        );
        assert_eq!(voters[1].directory.to_string(), id);
        for wrong in [
            "",
            "1@a:1",
            "x@a:1:MvDxzVmcRsaTz33bUuRU6A",
            "1@:1:MvDxzVmcRsaTz33bUuRU6A",
        ] {
            assert!(parse_initial(wrong).is_err(), "{wrong}");
        }
        let twice = format!("1@a:1:{id},1@b:1:{id}");
        assert!(parse_initial(&twice).is_err());
    }
}
