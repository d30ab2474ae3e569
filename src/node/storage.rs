//! A node's log directories: locked, identified, formatted on the first start where that is
//! safe; at the end checkpointed and marked clean.
//!
//! Called by `node::run` before any core starts, then from the controller's core only.
//!
//! Invariant: all directories name the same cluster and node, and each has its own id.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::StartError;
use super::format::{self, FirstVoters, Format};
use crate::base::{BrokerId, Millis, Rng, TopicIdPartition, Uuid};
use crate::config::NodeConfig;
use crate::io::disk::Disk;
use crate::log::checkpoint::Offsets;
use crate::log::manager::{self, Checkpoint, LogDir, LogDirError};
use crate::log::meta_properties::MetaProperties;
use crate::log::names::{DirKind, DirName};
use crate::metadata::MetadataImage;
use crate::shard::Directory;
use crate::shard::directories::Move;
use crate::shard::messages::PartitionCheckpoint;

/// The opened directories.
#[derive(Clone)]
pub struct Storage {
    pub cluster_id: String,
    pub node_id: BrokerId,
    pub directories: Vec<Directory>,
    /// The directory of the metadata log.
    pub metadata: Directory,
    /// Epoch of the registration that the last clean stop ended; -1 after an unclean one.
    pub previous_broker_epoch: i64,
    /// One of `log.dirs` couldn't be used, and is left out.
    pub is_one_missing: bool,
    /// This start formatted the directories.
    pub formatted: bool,
}

/// Locks and identifies every directory of the configuration.
pub fn open(
    disk: &dyn Disk,
    config: &NodeConfig,
    now_ms: Millis,
    rng: &mut Rng,
) -> Result<Storage, StartError> {
    let mut paths = config.log_dirs.clone();
    if !paths.contains(&config.metadata_log_dir) {
        paths.push(config.metadata_log_dir.clone());
    }
    let configured = paths.len();
    let log_dirs = lock_usable(disk, config, &paths)?;
    let is_one_missing = log_dirs.len() < configured;
    let formatted = format_if_new(disk, config, &log_dirs, now_ms, rng)?;
    let mut identity: Option<MetaProperties> = None;
    let mut directories = Vec::new();
    let mut clean_epochs = Vec::new();
    for log_dir in log_dirs {
        let meta = identify(disk, &log_dir, config, identity.as_ref(), rng)?;
        let clean = log_dir.take_clean_shutdown(disk)?;
        clean_epochs.push(clean.map_or(-1, |clean| clean.broker_epoch));
        remove_deleted(disk, &log_dir)?;
        directories.push(Directory {
            id: meta.directory_id.unwrap_or(Uuid::ZERO),
            clean: clean.is_some(),
            recovery_points: Arc::new(log_dir.read_checkpoint(disk, Checkpoint::RecoveryPoint)?),
            log_starts: Arc::new(log_dir.read_checkpoint(disk, Checkpoint::LogStartOffset)?),
            high_watermarks: Arc::new(log_dir.read_checkpoint(disk, Checkpoint::HighWatermark)?),
            log_dir,
        });
        identity = Some(meta);
    }
    let identity = identity.expect("a configuration has at least one log directory");
    let metadata = directories
        .iter()
        .find(|directory| directory.log_dir.path() == config.metadata_log_dir)
        .expect("it was opened with the others")
        .clone();
    directories.retain(|d| config.log_dirs.iter().any(|path| path == d.log_dir.path()));
    let same = !is_one_missing && clean_epochs.iter().all(|epoch| *epoch == clean_epochs[0]);
    Ok(Storage {
        cluster_id: identity.cluster_id,
        node_id: identity.node_id,
        directories,
        metadata,
        previous_broker_epoch: if same { clean_epochs[0] } else { -1 },
        is_one_missing,
        formatted,
    })
}

impl Storage {
    /// Writes the high watermarks; with `all`, recovery points and log starts too. Returns
    /// the directories that failed at it; `offline` ones are left alone.
    pub fn write_checkpoints(
        &self,
        disk: &dyn Disk,
        partitions: &[PartitionCheckpoint],
        all: bool,
        offline: &BTreeSet<Uuid>,
    ) -> Vec<(Uuid, LogDirError)> {
        let mut failed = Vec::new();
        for directory in &self.directories {
            if offline.contains(&directory.id) {
                continue;
            }
            let here = partitions.iter().filter(|p| p.directory == directory.id);
            let mut high_watermarks = Offsets::new();
            let mut recovery_points = Offsets::new();
            let mut log_starts = Offsets::new();
            for partition in here {
                let key = (partition.topic.to_string(), partition.partition);
                high_watermarks.insert(key.clone(), partition.high_watermark);
                recovery_points.insert(key.clone(), partition.recovery_point);
                if let Some(log_start) = partition.log_start_offset {
                    log_starts.insert(key, log_start);
                }
            }
            let mut files = vec![(Checkpoint::HighWatermark, high_watermarks)];
            if all {
                files.push((Checkpoint::RecoveryPoint, recovery_points));
                files.push((Checkpoint::LogStartOffset, log_starts));
            }
            for (which, offsets) in files {
                match directory.log_dir.write_checkpoint(disk, which, &offsets) {
                    Ok(()) => {}
                    Err(error) if error.is_failure() => {
                        failed.push((directory.id, error));
                        break;
                    }
                    Err(error) => tracing::warn!(%error, ?which, "checkpoint not written"),
                }
            }
        }
        failed
    }

    /// Everything is closed and synced, but in `unclean` ones: the next start needs no
    /// recovery.
    pub fn mark_clean(&self, disk: &dyn Disk, broker_epoch: i64, unclean: &BTreeSet<Uuid>) {
        let clean = |directory: &&Directory| !unclean.contains(&directory.id);
        for directory in self.directories.iter().filter(clean) {
            if let Err(error) = directory.log_dir.mark_clean(disk, broker_epoch) {
                tracing::error!(%error, "no clean shutdown marker: the next start recovers");
            }
        }
    }

    /// Renames directories of partitions that the metadata doesn't place here: another
    /// topic id under the name, or no replica on this broker (`-stray`, as Kafka). Returns
    /// in which directory the others are, and the copies of moves that were cut short; those
    /// of which nothing comes any more are removed.
    pub fn set_strays_aside(
        &self,
        disk: &dyn Disk,
        image: &MetadataImage,
        me: BrokerId,
        rng: &mut Rng,
    ) -> Found {
        let mut held = HashMap::new();
        let mut moves: Vec<Move> = Vec::new();
        let mut leftovers = Vec::new();
        for directory in &self.directories {
            let found = match directory.log_dir.partition_dirs(disk) {
                Ok(found) => found,
                Err(error) => {
                    tracing::error!(%error, "strays not looked for");
                    continue;
                }
            };
            for found in found {
                let name = &found.name;
                let is_metadata = name.topic == crate::controller::topic_name::CLUSTER_METADATA;
                let is_copy = name.kind == DirKind::Future;
                if (name.kind != DirKind::Live && !is_copy) || is_metadata {
                    continue;
                }
                let placed = image.topics.by_name(&name.topic).is_some_and(|topic| {
                    found.topic_id == Some(topic.id)
                        && topic
                            .partition(name.partition)
                            .is_some_and(|partition| partition.replicas.contains(&me))
                });
                if let Some(topic_id) = found.topic_id.filter(|_| placed) {
                    let id = TopicIdPartition {
                        topic_id,
                        partition: name.partition,
                    };
                    if is_copy {
                        let (to, copy) = (directory.id, Some(found.path));
                        moves.push(Move { id, to, copy });
                        continue;
                    }
                    let is_newer = disk
                        .exists(&found.path.join(manager::MOVED_HERE))
                        .unwrap_or(false);
                    match held.get(&id) {
                        None => {
                            held.insert(id, directory.id);
                        }
                        Some(other) => {
                            // A crash has cut a move short where it leaves two.
                            let old = if is_newer { *other } else { directory.id };
                            if is_newer {
                                held.insert(id, directory.id);
                            }
                            self.retire_old_copy(disk, old, name, rng);
                        }
                    }
                    continue;
                }
                if is_copy {
                    leftovers.push(found.path);
                    continue;
                }
                let retired = directory.log_dir.retire(
                    disk,
                    &name.topic,
                    name.partition,
                    DirKind::Stray,
                    rng,
                );
                match retired.and_then(|path| directory.log_dir.sync(disk).map(|()| path)) {
                    Ok(path) => tracing::warn!(
                        topic = %name.topic,
                        partition = %name.partition,
                        path = %path.display(),
                        "a log that the metadata doesn't know was set aside"
                    ),
                    Err(error) => tracing::error!(%error, "a stray log can't be set aside"),
                }
            }
        }
        // One that is where the log is already, or a second one, is of no use. Without a log
        // the copy may be all that there is.
        let mut going_on = BTreeMap::new();
        for found in moves {
            let is_useful = held.get(&found.id) != Some(&found.to);
            if is_useful && !going_on.contains_key(&found.id) {
                going_on.insert(found.id, found);
            } else {
                leftovers.extend(found.copy);
            }
        }
        if let Err(error) = manager::unlink(disk, &leftovers) {
            tracing::warn!(%error, "what moves of replicas have left can't be removed");
        }
        let moves = going_on.into_values().collect();
        Found { held, moves }
    }
}

/// What the log directories hold.
#[derive(Debug, Default)]
pub struct Found {
    pub held: HashMap<TopicIdPartition, Uuid>,
    /// Moves between directories that were cut short. Not all of them have a log.
    pub moves: Vec<Move>,
}

impl Storage {
    fn retire_old_copy(&self, disk: &dyn Disk, directory: Uuid, name: &DirName, rng: &mut Rng) {
        let Some(directory) = self.directories.iter().find(|d| d.id == directory) else {
            return;
        };
        let kind = DirKind::Delete;
        let retired = directory
            .log_dir
            .retire(disk, &name.topic, name.partition, kind, rng)
            .and_then(|path| directory.log_dir.sync(disk).map(|()| path));
        match retired {
            Ok(path) => tracing::info!(path = %path.display(), "old copy of a moved log retired"),
            Err(error) => tracing::error!(%error, "the old copy of a moved log can't be retired"),
        }
    }
}

/// Locks the directories. One that can't be read or written is left out, as in Kafka, if it
/// isn't the metadata log's and another one is left.
fn lock_usable(
    disk: &dyn Disk,
    config: &NodeConfig,
    paths: &[PathBuf],
) -> Result<Vec<LogDir>, StartError> {
    let mut usable = Vec::new();
    let mut unusable = Vec::new();
    for path in paths {
        // Locking writes nothing where the file is there.
        let opened = LogDir::open(disk, path).and_then(|log_dir| {
            log_dir.meta(disk)?;
            log_dir.check_writable(disk)?;
            Ok(log_dir)
        });
        match opened {
            Ok(log_dir) => usable.push(log_dir),
            Err(error) if error.is_failure() && *path != config.metadata_log_dir => {
                unusable.push((path, error));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let serves = |log_dir: &LogDir| config.log_dirs.iter().any(|path| path == log_dir.path());
    if !usable.iter().any(serves)
        && let Some((_, error)) = unusable.pop()
    {
        return Err(error.into());
    }
    for (path, error) in unusable {
        tracing::error!(
            dir = %path.display(),
            %error,
            "log directory can't be used: the node starts without it"
        );
    }
    Ok(usable)
}

/// Formats the directories of a new single node. A node of a larger cluster has to be
/// formatted with the cluster's id.
fn format_if_new(
    disk: &dyn Disk,
    config: &NodeConfig,
    log_dirs: &[LogDir],
    now_ms: Millis,
    rng: &mut Rng,
) -> Result<bool, StartError> {
    for log_dir in log_dirs {
        if log_dir.meta(disk)?.is_some() {
            return Ok(false);
        }
    }
    let alone = config.roles.broker && config.roles.controller && config.quorum_voters.len() <= 1;
    if !alone {
        return Err(StartError::NotFormatted {
            path: log_dirs[0].path().to_owned(),
        });
    }
    let cluster_id = Uuid::random(rng).to_string();
    let options = Format {
        cluster_id,
        directories: log_dirs.iter().map(|d| d.path().to_owned()).collect(),
        voters: FirstVoters::default(),
    };
    format::format(disk, config, &options, now_ms, rng)?;
    Ok(true)
}

/// Reads a directory's identity and holds it against the others' and the configuration.
fn identify(
    disk: &dyn Disk,
    log_dir: &LogDir,
    config: &NodeConfig,
    others: Option<&MetaProperties>,
    rng: &mut Rng,
) -> Result<MetaProperties, StartError> {
    let path = log_dir.path();
    let mut meta = match (log_dir.meta(disk)?, others) {
        (Some(meta), _) => meta,
        // A directory that was added to a formatted node, or replaced.
        (None, Some(others)) => MetaProperties {
            directory_id: None,
            ..others.clone()
        },
        (None, None) => {
            return Err(StartError::NotFormatted {
                path: path.to_owned(),
            });
        }
    };
    if let Some(others) = others
        && (others.cluster_id != meta.cluster_id || others.node_id != meta.node_id)
    {
        return Err(mismatch(
            path,
            "belongs to another node than the other log directories",
        ));
    }
    if let Some(configured) = config.node_id
        && configured != meta.node_id
    {
        return Err(StartError::NodeId {
            path: path.to_owned(),
            found: meta.node_id,
            configured,
        });
    }
    if meta.directory_id.is_none() {
        meta.directory_id = Some(Uuid::random(rng));
        meta.write(disk, path)
            .map_err(StartError::directory(path))?;
    }
    Ok(meta)
}

fn mismatch(path: &Path, what: &str) -> StartError {
    StartError::Identity {
        path: path.to_owned(),
        what: what.to_owned(),
    }
}

/// Removes what was renamed for deletion before the last stop.
fn remove_deleted(disk: &dyn Disk, log_dir: &LogDir) -> Result<(), StartError> {
    let leftovers: Vec<_> = log_dir
        .partition_dirs(disk)?
        .into_iter()
        .filter(|dir| dir.name.kind == DirKind::Delete)
        .map(|dir| dir.path)
        .collect();
    manager::unlink(disk, &leftovers).map_err(StartError::directory(log_dir.path()))
}
