//! The files of the metadata log on the controller's core: segments, snapshots,
//! quorum-state and bootstrap.checkpoint.
//!
//! ```text
//!   <metadata dir>/bootstrap.checkpoint
//!                  __cluster_metadata-0/ <base>.log|.index|.timeindex  quorum-state  <end>-<epoch>.checkpoint
//! ```
//! Called by [`super::controller`] alone. What is read at a start: the latest snapshot, the
//! log from its end on (recovered as after an unclean stop, as Kafka does), quorum-state.
//!
//! Invariants: nothing is acknowledged that isn't synced; a failed sync is final.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use crate::base::{BrokerId, LeaderEpoch, Millis, Offset, Uuid};
use crate::io::{Chunk, Disk, OpenMode, Rt};
use crate::log::checkpoint::{Durability, replace_file};
use crate::log::{
    AppendError, AppendOrigin, FlushScope, Log, LogConfig, LogError, OpenParams, ReadError,
    TailPool, manager,
};
use crate::metadata::bootstrap::{self, BootstrapError};
use crate::metadata::snapshot::{SnapshotError, image_of_values, image_values};
use crate::metadata::{
    BatchOrigin, MetadataImage, MetadataLoader, MetadataRecord, Provenance, RecordError,
    ReplayError,
};
use crate::raft::checkpoint::{self, Checkpoint, Contents, read_batch};
use crate::raft::control::{control_batch, data_batch};
use crate::raft::voters::Endpoint;
use crate::raft::{
    ControlRecord, ElectionState, METADATA_DIRECTORY, QuorumStateError, Raft, RaftError, Start,
    Voter, VoterSet,
};
use crate::record::{BatchError, BatchView, Batches};

const QUORUM_STATE: &str = "quorum-state";

/// Bytes that are read at a time when the log is loaded.
const READ_BYTES: usize = 1024 * 1024;

/// Longest quorum-state and snapshot that are read.
const QUORUM_STATE_BYTES_MAX: u64 = 1024 * 1024;
const CHECKPOINT_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// Memory for the batches last appended; nobody reads them back yet.
const TAIL_BYTES: usize = 64 * 1024;

/// Where the metadata log can't be read, or can't be written any more.
#[derive(Debug, thiserror::Error)]
pub enum MetadataLogError {
    #[error("{path}: {source}", path = path.display())]
    Disk { path: PathBuf, source: io::Error },
    #[error("metadata log: {0}")]
    Log(#[from] LogError),
    #[error("metadata log: {0}")]
    Append(#[from] AppendError),
    #[error("metadata log: {0}")]
    Read(#[from] ReadError),
    #[error("{path}: {source}", path = path.display())]
    Batch {
        path: PathBuf,
        source: checkpoint::ReadError,
    },
    #[error("metadata log: batch at offset {offset}: {source}")]
    TornBatch { offset: Offset, source: BatchError },
    #[error("metadata record at offset {offset}: {source}")]
    Record { offset: Offset, source: RecordError },
    #[error("metadata records from offset {offset} on: {source}")]
    Replay { offset: Offset, source: ReplayError },
    #[error("{path}: {source}", path = path.display())]
    Snapshot {
        path: PathBuf,
        source: SnapshotError,
    },
    #[error("{path}: {source}", path = path.display())]
    Bootstrap {
        path: PathBuf,
        source: BootstrapError,
    },
    #[error("{path}: {source}", path = path.display())]
    QuorumState {
        path: PathBuf,
        source: QuorumStateError,
    },
    #[error(
        "the metadata log begins at offset {log_start}, and no snapshot in {path} reaches it",
        path = path.display()
    )]
    Gap { path: PathBuf, log_start: Offset },
    #[error(
        "{path} names no voters: format the directory, or set controller.quorum.voters",
        path = path.display()
    )]
    NoVoters { path: PathBuf },
    #[error("feature {name} is finalized at level {level}, which this version does not run yet")]
    Feature { name: String, level: i16 },
    #[error(transparent)]
    Raft(#[from] RaftError),
}

impl MetadataLogError {
    /// Whether only space was missing: the log is as before.
    pub fn is_out_of_space(&self) -> bool {
        match self {
            Self::Append(AppendError::Log(error)) => error.is_out_of_space(),
            _ => false,
        }
    }
}

/// Which log to open, and as whom.
#[derive(Clone, Debug)]
pub struct Place {
    /// The log directory with `__cluster_metadata-0`.
    pub metadata_dir: PathBuf,
    pub directory_id: Uuid,
    pub node_id: BrokerId,
    /// `controller.quorum.voters`; without it the voters stand in the log.
    pub static_voters: Option<VoterSet>,
    /// Its retention is that of snapshots (`metadata.max.retention.*`): the log begins
    /// where the oldest of them ends.
    pub log: LogConfig,
}

/// The open log with the raft state that goes with it.
pub struct MetadataLog {
    disk: Rc<dyn Disk>,
    /// `__cluster_metadata-0`
    dir: PathBuf,
    log: Log,
    raft: Raft,
    retention: Retention,
    /// Appended since the last snapshot.
    bytes_since_snapshot: u64,
}

/// When old snapshots go, with the log before them. Negative: never.
#[derive(Clone, Copy, Debug)]
struct Retention {
    bytes: i64,
    ms: i64,
}

impl MetadataLog {
    /// Opens the log, reads it and makes this node its leader in a new epoch. The loader
    /// has everything that the log holds.
    pub fn open(
        disk: Rc<dyn Disk>,
        place: &Place,
        now_ms: Millis,
    ) -> Result<(MetadataLog, MetadataLoader), MetadataLogError> {
        let dir = place.metadata_dir.join(METADATA_DIRECTORY);
        disk.create_dir_all(&dir).map_err(at(&dir))?;
        let snapshot = latest_snapshot(&*disk, &dir)?;
        let params = OpenParams {
            topic_id: Some(Uuid::METADATA_TOPIC),
            ..Default::default()
        };
        let pool = TailPool::new(TAIL_BYTES);
        let retention = Retention {
            bytes: place.log.retention_bytes,
            ms: place.log.retention_ms,
        };
        // Segments go only with snapshots that cover them.
        let log_config = LogConfig {
            cleanup_delete: false,
            cleanup_compact: false,
            ..place.log.clone()
        };
        let (mut log, report) =
            Log::open(Rc::clone(&disk), &dir, log_config, &params, &pool, now_ms)?;
        if report.truncated_bytes > 0 {
            tracing::warn!(
                bytes = report.truncated_bytes,
                "metadata log: the torn end of an unclean stop was cut off"
            );
        }
        let mut reader = Reader::new(&snapshot);
        let from = snapshot.as_ref().map_or(Offset(0), |s| s.end_offset);
        if log.log_end_offset() < from {
            log.truncate_fully_and_start_at(from, now_ms)?;
        }
        if log.log_start_offset() > from {
            return Err(MetadataLogError::Gap {
                path: dir,
                log_start: log.log_start_offset(),
            });
        }
        let bytes_since_snapshot = reader.read_log(&mut log, &dir, from)?;
        let raft = Raft::start(start(&*disk, place, &dir, &log, &snapshot, &reader)?)?;
        persist_election(&*disk, &dir, &raft)?;
        reader.loader.set_kraft_version(raft.kraft_version());
        let metadata_log = MetadataLog {
            disk,
            dir,
            log,
            raft,
            retention,
            bytes_since_snapshot,
        };
        Ok((metadata_log, reader.loader))
    }

    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    pub fn end_offset(&self) -> Offset {
        self.log.log_end_offset()
    }

    /// Appends the batch that begins this leader's epoch.
    pub fn append_first_batch(&mut self, now_ms: Millis) -> Result<BatchOrigin, MetadataLogError> {
        let records = self.raft.first_records();
        let batch = control_batch(&records, self.end_offset(), self.raft.epoch(), now_ms);
        self.append(batch, now_ms)
    }

    /// Appends the values of metadata records as one batch.
    pub fn append_values(
        &mut self,
        values: &[Bytes],
        now_ms: Millis,
    ) -> Result<BatchOrigin, MetadataLogError> {
        let batch = data_batch(values, self.end_offset(), self.raft.epoch(), now_ms);
        self.append(batch, now_ms)
    }

    fn append(&mut self, batch: Bytes, now_ms: Millis) -> Result<BatchOrigin, MetadataLogError> {
        let epoch = self.raft.epoch();
        self.bytes_since_snapshot += batch.len() as u64;
        let origin = AppendOrigin::Coordinator {
            transaction_version: 0,
        };
        let info = self.log.append_own(batch, epoch, origin, now_ms)?;
        self.raft.on_appended(self.log.log_end_offset());
        Ok(BatchOrigin {
            base_offset: info.first_offset,
            last_offset: info.last_offset,
            leader_epoch: epoch.0,
            timestamp_ms: now_ms,
        })
    }

    /// Makes everything appended so far durable, and thereby committed.
    pub async fn flush(&mut self, rt: &Rt) -> Result<(), MetadataLogError> {
        let Some(work) = self.log.take_flush_work(FlushScope::All)? else {
            return Ok(());
        };
        for file in &work.files {
            rt.sync(file).await.map_err(at(&self.dir))?;
        }
        self.log.on_flushed(work.up_to);
        self.raft.on_durable(work.up_to);
        Ok(())
    }

    /// Writes a snapshot when enough was appended since the last one. The log is the
    /// truth with or without it: a failure is told and tried again after as much more.
    pub async fn maybe_snapshot(&mut self, rt: &Rt, image: &MetadataImage, bytes_between: u64) {
        if self.bytes_since_snapshot < bytes_between {
            return;
        }
        self.bytes_since_snapshot = 0;
        match self.write_snapshot(rt, image).await {
            Ok(name) => tracing::info!(name, "metadata snapshot written"),
            Err(error) => {
                tracing::error!(%error, "metadata snapshot not written");
                return;
            }
        }
        if let Err(error) = self.clean(rt.wall_ms()) {
            tracing::error!(%error, "old metadata snapshots not removed");
        }
    }

    /// Removes the oldest snapshots while all files together are too large, or a snapshot
    /// too old; the latest always stays. The log then begins where the oldest one ends.
    fn clean(&mut self, now_ms: Millis) -> Result<(), MetadataLogError> {
        let mut snapshots = Vec::new();
        for entry in self.disk.read_dir(&self.dir).map_err(at(&self.dir))? {
            if let Some(id) = checkpoint::parse_file_name(&entry.name) {
                let path = self.dir.join(&entry.name);
                let file = self.disk.open(&path, OpenMode::Read).map_err(at(&path))?;
                let len = file.len().map_err(at(&path))?;
                let modified_ms = file.modified_ms().map_err(at(&path))?;
                snapshots.push((id, path, len, modified_ms));
            }
        }
        snapshots.sort();
        let mut bytes = self.log.size_in_bytes();
        bytes += snapshots.iter().map(|(_, _, len, _)| len).sum::<u64>();
        while snapshots.len() > 1 {
            let (_, path, len, modified_ms) = &snapshots[0];
            let is_too_large = i64::try_from(bytes).is_ok_and(|b| b > self.retention.bytes);
            let is_large = self.retention.bytes >= 0 && is_too_large;
            let is_old = self.retention.ms >= 0 && now_ms - modified_ms > self.retention.ms;
            if !is_large && !is_old {
                break;
            }
            self.disk.remove_file(path).map_err(at(path))?;
            bytes -= len;
            snapshots.remove(0);
            let ((end_offset, _), ..) = snapshots[0];
            let before = self.log.size_in_bytes();
            self.log.increase_log_start_offset(end_offset)?;
            self.log.delete_old_segments(now_ms, end_offset)?;
            bytes -= before - self.log.size_in_bytes();
        }
        // Nobody reads the log from its files but us.
        let gone = self.log.take_pending_deletions();
        manager::unlink(&*self.disk, &gone).map_err(at(&self.dir))
    }

    async fn write_snapshot(
        &self,
        rt: &Rt,
        image: &MetadataImage,
    ) -> Result<String, MetadataLogError> {
        let Provenance {
            offset,
            epoch,
            timestamp_ms,
        } = image.provenance;
        let epoch = LeaderEpoch(epoch);
        let is_dynamic = self.raft.kraft_version() > 0;
        let file = Checkpoint {
            last_contained_log_timestamp_ms: timestamp_ms,
            kraft_version: self.raft.kraft_version(),
            voters: is_dynamic.then(|| self.raft.voters().clone()),
            values: image_values(image),
        }
        .to_bytes(epoch, rt.wall_ms());
        let name = checkpoint::file_name(offset + 1, epoch);
        let path = self.dir.join(&name);
        let part = self.dir.join(format!("{name}.part"));
        let write = || {
            let written = self.disk.open(&part, OpenMode::Truncate)?;
            written.write_all_at(&[IoSlice::new(&file)], 0)?;
            Ok(written)
        };
        let written = write().map_err(|error| {
            // Half of it takes space that others miss.
            let _ = self.disk.remove_file(&part);
            at(&part)(error)
        })?;
        rt.sync(&written).await.map_err(at(&part))?;
        self.disk.rename(&part, &path).map_err(at(&path))?;
        let dir = self.disk.open_dir(&self.dir).map_err(at(&self.dir))?;
        rt.sync(&dir).await.map_err(at(&self.dir))?;
        Ok(name)
    }

    /// Ends the log's use, everything synced.
    pub fn close(&mut self) -> Result<(), MetadataLogError> {
        Ok(self.log.close()?)
    }
}

/// Writes the snapshot that makes this node the only voter of a new dynamic quorum, as
/// `format --standalone` does. Not for nodes with `controller.quorum.voters`.
pub fn format_quorum(
    disk: &dyn Disk,
    metadata_dir: &Path,
    node_id: BrokerId,
    directory_id: Uuid,
    endpoints: Vec<Endpoint>,
    now_ms: Millis,
) -> io::Result<()> {
    let voters = VoterSet::single(Voter::new(node_id, Some(directory_id), endpoints));
    let dir = metadata_dir.join(METADATA_DIRECTORY);
    disk.create_dir_all(&dir)?;
    let path = dir.join(checkpoint::file_name(Offset(0), LeaderEpoch(0)));
    let file = bootstrap::quorum_checkpoint(voters, now_ms);
    replace_file(disk, &path, &file, Durability::Now)?;
    disk.sync_dir(metadata_dir)
}

/// The records that bootstrap.checkpoint holds, or the default where there is none.
pub fn bootstrap_records(
    disk: &dyn Disk,
    metadata_dir: &Path,
) -> Result<Vec<MetadataRecord>, MetadataLogError> {
    let path = metadata_dir.join(bootstrap::BOOTSTRAP_FILE);
    match disk.read(&path, CHECKPOINT_BYTES_MAX) {
        Ok(file) => bootstrap::parse_bootstrap(&file)
            .map_err(|source| MetadataLogError::Bootstrap { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(bootstrap::default_records()),
        Err(source) => Err(MetadataLogError::Disk { path, source }),
    }
}

/// A snapshot that was read.
struct Snapshot {
    end_offset: Offset,
    epoch: LeaderEpoch,
    content: Checkpoint,
    image: MetadataImage,
}

/// Reads the snapshot with the highest end; removes what a crash left half written.
fn latest_snapshot(disk: &dyn Disk, dir: &Path) -> Result<Option<Snapshot>, MetadataLogError> {
    let mut latest = None;
    for entry in disk.read_dir(dir).map_err(at(dir))? {
        let path = dir.join(&entry.name);
        if entry.name.ends_with(".checkpoint.part") || entry.name.ends_with(".checkpoint.deleted") {
            disk.remove_file(&path).map_err(at(&path))?;
        } else if let Some(id) = checkpoint::parse_file_name(&entry.name) {
            latest = latest.max(Some(id));
        }
    }
    let Some((end_offset, epoch)) = latest else {
        return Ok(None);
    };
    let path = dir.join(checkpoint::file_name(end_offset, epoch));
    let file = disk.read(&path, CHECKPOINT_BYTES_MAX).map_err(at(&path))?;
    let content = Checkpoint::parse(&file).map_err(|source| MetadataLogError::Batch {
        path: path.clone(),
        source,
    })?;
    let provenance = Provenance {
        offset: end_offset + -1,
        epoch: epoch.0,
        timestamp_ms: content.last_contained_log_timestamp_ms,
    };
    let image = if content.values.is_empty() {
        MetadataImage::default()
    } else {
        image_of_values(&content.values, provenance)
            .map_err(|source| MetadataLogError::Snapshot { path, source })?
    };
    Ok(Some(Snapshot {
        end_offset,
        epoch,
        content,
        image,
    }))
}

/// What the log's batches tell.
struct Reader {
    loader: MetadataLoader,
    kraft_version: i16,
    voters: Option<VoterSet>,
    /// Whether those were read in the log, or in a snapshot of it.
    are_voters_in_log: bool,
}

impl Reader {
    fn new(snapshot: &Option<Snapshot>) -> Reader {
        let image = snapshot.as_ref().map(|s| s.image.clone());
        let content = snapshot.as_ref().map(|s| &s.content);
        Reader {
            loader: MetadataLoader::new(image.unwrap_or_default()),
            kraft_version: content.map_or(0, |content| content.kraft_version),
            voters: content.and_then(|content| content.voters.clone()),
            // The one at offset 0 is what `format` wrote before there was a log.
            are_voters_in_log: snapshot.as_ref().is_some_and(|s| s.end_offset > Offset(0)),
        }
    }

    /// Reads the log from an offset to its end; the number of bytes.
    fn read_log(
        &mut self,
        log: &mut Log,
        dir: &Path,
        from: Offset,
    ) -> Result<u64, MetadataLogError> {
        let end = log.log_end_offset();
        let mut next = from;
        let mut bytes = 0;
        while next < end {
            let read = log.read(next, READ_BYTES, end, true)?;
            let mut buffer = BytesMut::with_capacity(read.bytes);
            for chunk in &read.chunks {
                copy(chunk, &mut buffer).map_err(at(dir))?;
            }
            let before = next;
            for batch in Batches::new(&buffer) {
                match batch {
                    Ok(batch) => {
                        next = batch.next_offset();
                        bytes += batch.size_in_bytes() as u64;
                        self.read_batch(&batch, dir)?;
                    }
                    // The read may end within a batch.
                    Err(_) if next > before => break,
                    Err(source) => {
                        let offset = next;
                        return Err(MetadataLogError::TornBatch { offset, source });
                    }
                }
            }
            assert!(next > before, "a read brings at least one batch");
        }
        Ok(bytes)
    }

    fn read_batch(&mut self, batch: &BatchView<'_>, dir: &Path) -> Result<(), MetadataLogError> {
        let origin = BatchOrigin {
            base_offset: batch.base_offset(),
            last_offset: batch.last_offset(),
            leader_epoch: batch.partition_leader_epoch().0,
            timestamp_ms: batch.max_timestamp(),
        };
        let contents = read_batch(batch).map_err(|source| MetadataLogError::Batch {
            path: dir.to_owned(),
            source,
        })?;
        match contents {
            Contents::Control(records) => {
                records
                    .into_iter()
                    .for_each(|record| self.read_control(record));
                self.loader.skip_batch(origin);
                Ok(())
            }
            Contents::Data(values) => {
                let records = decode(&values, origin.base_offset)?;
                replay(&mut self.loader, origin, &records)
            }
        }
    }

    fn read_control(&mut self, record: ControlRecord) {
        match record {
            ControlRecord::KRaftVersion(version) => {
                self.kraft_version = version.kraft_version;
                self.are_voters_in_log = true;
            }
            ControlRecord::Voters(voters) => self.voters = Some(VoterSet::from_record(&voters)),
            ControlRecord::LeaderChange(_)
            | ControlRecord::SnapshotHeader(_)
            | ControlRecord::SnapshotFooter(_) => {}
        }
    }
}

/// Gives a committed batch to the loader.
pub fn replay(
    loader: &mut MetadataLoader,
    origin: BatchOrigin,
    records: &[MetadataRecord],
) -> Result<(), MetadataLogError> {
    let replayed = loader.replay_batch(origin, records);
    replayed.map_err(|source| MetadataLogError::Replay {
        offset: origin.base_offset,
        source,
    })
}

fn decode(values: &[Bytes], base_offset: Offset) -> Result<Vec<MetadataRecord>, MetadataLogError> {
    let decoded = (0..).zip(values).map(|(index, value)| {
        MetadataRecord::decode(value).map_err(|source| MetadataLogError::Record {
            offset: base_offset + index,
            source,
        })
    });
    decoded.collect()
}

fn copy(chunk: &Chunk, into: &mut BytesMut) -> io::Result<()> {
    match chunk {
        Chunk::Bytes(bytes) => into.extend_from_slice(bytes),
        Chunk::File {
            file,
            position,
            len,
        } => {
            let start = into.len();
            into.resize(start + *len as usize, 0);
            file.read_exact_at(&mut into[start..], *position)?;
        }
    }
    Ok(())
}

fn start(
    disk: &dyn Disk,
    place: &Place,
    dir: &Path,
    log: &Log,
    snapshot: &Option<Snapshot>,
    reader: &Reader,
) -> Result<Start, MetadataLogError> {
    let path = dir.join(QUORUM_STATE);
    let election = match disk.read(&path, QUORUM_STATE_BYTES_MAX) {
        Ok(bytes) => Some(
            ElectionState::parse(&bytes)
                .map_err(|source| MetadataLogError::QuorumState { path, source })?,
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(MetadataLogError::Disk { path, source }),
    };
    let no_voters = || MetadataLogError::NoVoters {
        path: dir.to_owned(),
    };
    // Voters of the log win over those of the configuration, as in Kafka.
    let in_log = reader.voters.as_ref().filter(|_| reader.kraft_version > 0);
    let cluster_voters = in_log.or(place.static_voters.as_ref());
    let snapshot_epoch = snapshot.as_ref().map_or(0, |s| s.epoch.0);
    let log_epoch = log.latest_epoch().map_or(0, |entry| entry.epoch.0);
    Ok(Start {
        me: crate::raft::ReplicaKey {
            id: place.node_id,
            directory: Some(place.directory_id).filter(|_| in_log.is_some()),
        },
        cluster_voters: cluster_voters.cloned().ok_or_else(no_voters)?,
        kraft_version: reader.kraft_version,
        are_voters_in_log: reader.are_voters_in_log,
        election,
        last_epoch: snapshot_epoch.max(log_epoch),
        log_end_offset: log.log_end_offset(),
    })
}

fn persist_election(disk: &dyn Disk, dir: &Path, raft: &Raft) -> Result<(), MetadataLogError> {
    let state = raft.election_state();
    let bytes = state.to_bytes(raft.kraft_version(), raft.voters());
    let path = dir.join(QUORUM_STATE);
    let replaced = replace_file(disk, &path, &bytes, Durability::Now);
    replaced.map(drop).map_err(at(&path))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> MetadataLogError + '_ {
    move |source| MetadataLogError::Disk {
        path: path.to_owned(),
        source,
    }
}
