//! The files of the metadata log on the controller's core: segments, snapshots,
//! quorum-state and bootstrap.checkpoint.
//!
//! ```text
//!   <metadata dir>/bootstrap.checkpoint
//!                  __cluster_metadata-0/ <base>.log|.index|.timeindex  quorum-state  <end>-<epoch>.checkpoint
//! ```
//! Called by [`super::replica`], which does with them what the quorum's state machine says.
//! What is read at a start: the latest snapshot, of the log (recovered as after an unclean
//! stop, as Kafka does) who votes and where epochs begin, quorum-state.
//!
//! Invariants: the log begins at 0 or where a snapshot ends; a failed sync is final.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use crate::base::{LeaderEpoch, Millis, Offset, Uuid};
use crate::io::{Disk, OpenMode, Rt};
use crate::log::checkpoint::{Durability, replace_file};
use crate::log::{
    AppendError, FlushScope, FlushWork, Log, LogConfig, LogError, OpenParams, ReadError, TailPool,
    manager,
};
use crate::metadata::bootstrap::{self, BootstrapError};
use crate::metadata::snapshot::{SnapshotError, image_of_values, image_values};
use crate::metadata::{
    BatchOrigin, MetadataImage, MetadataLoader, MetadataRecord, Provenance, RecordError,
    ReplayError,
};
use crate::raft::checkpoint::{self, Checkpoint, Contents, read_batch};
use crate::raft::quorum::{Fault, LogView, OffsetAndEpoch};
use crate::raft::{ControlRecord, ElectionState, METADATA_DIRECTORY, QuorumStateError, VoterSet};
use crate::record::{BatchError, BatchView, Batches};

pub const QUORUM_STATE: &str = "quorum-state";

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
    #[error("kraft.version {0} is not supported (0 and 1 are)")]
    KRaftVersion(i16),
    #[error("the metadata quorum: {0}")]
    Fault(#[from] Fault),
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
    /// `controller.quorum.voters`; without it the voters stand in the log.
    pub static_voters: Option<VoterSet>,
    /// Its retention is that of snapshots (`metadata.max.retention.*`): the log begins
    /// where the oldest of them ends.
    pub log: LogConfig,
}

/// The open log and the snapshots beside it.
pub struct MetadataLog {
    disk: Rc<dyn Disk>,
    /// `__cluster_metadata-0`
    dir: PathBuf,
    log: Log,
    retention: Retention,
    /// Appended since the last snapshot.
    bytes_since_snapshot: u64,
}

/// What a replica finds when it starts.
pub struct Opened {
    pub log: MetadataLog,
    pub view: LogView,
    /// Of the file `quorum-state`.
    pub election: Option<ElectionState>,
    /// The state that the latest snapshot holds.
    pub image: MetadataImage,
    /// Where that snapshot ends: what is in the log from there on isn't in `image`.
    pub applied: Offset,
}

/// When old snapshots go, with the log before them. Negative: never.
#[derive(Clone, Copy, Debug)]
struct Retention {
    bytes: i64,
    ms: i64,
}

/// A snapshot's file.
struct SnapshotFile {
    id: OffsetAndEpoch,
    bytes: u64,
    modified_ms: Millis,
}

impl MetadataLog {
    /// Opens the log, and brings it and its snapshots into agreement where a crash came
    /// between them.
    pub fn open(
        disk: Rc<dyn Disk>,
        place: &Place,
        now_ms: Millis,
    ) -> Result<Opened, MetadataLogError> {
        let dir = place.metadata_dir.join(METADATA_DIRECTORY);
        disk.create_dir_all(&dir).map_err(at(&dir))?;
        remove_parts(&*disk, &dir)?;
        let election = read_election(&*disk, &dir)?;
        let params = OpenParams {
            topic_id: Some(Uuid::METADATA_TOPIC),
            ends_at_damage: true,
            ..Default::default()
        };
        let pool = TailPool::new(TAIL_BYTES);
        // Segments go only with snapshots that cover them.
        let log_config = LogConfig {
            cleanup_delete: false,
            cleanup_compact: false,
            ..place.log.clone()
        };
        let (log, report) = Log::open(Rc::clone(&disk), &dir, log_config, &params, &pool, now_ms)?;
        if report.truncated_bytes > 0 {
            tracing::warn!(
                bytes = report.truncated_bytes,
                "metadata log: the torn end of an unclean stop was cut off"
            );
        }
        let mut this = MetadataLog {
            disk,
            dir,
            log,
            retention: Retention {
                bytes: place.log.retention_bytes,
                ms: place.log.retention_ms,
            },
            bytes_since_snapshot: 0,
        };
        let snapshots = this.snapshots()?;
        let static_voters = place.static_voters.clone().unwrap_or_default();
        let latest = this.fit_to(&snapshots, now_ms)?;
        let view = this.view(static_voters, &snapshots, latest.as_ref())?;
        let applied = latest.as_ref().map_or(Offset(0), |(id, _)| id.offset);
        let image = match latest {
            Some((id, content)) => this.image_of(id, &content)?,
            None => MetadataImage::default(),
        };
        Ok(Opened {
            log: this,
            view,
            election,
            image,
            applied,
        })
    }

    /// Makes the log go on from the latest snapshot, if it doesn't reach that, and begin
    /// where a snapshot ends. Gives the latest one with its contents.
    fn fit_to(
        &mut self,
        snapshots: &[SnapshotFile],
        now_ms: Millis,
    ) -> Result<Option<(OffsetAndEpoch, Checkpoint)>, MetadataLogError> {
        let start = self.log.log_start_offset();
        let Some(latest) = snapshots.last().map(|snapshot| snapshot.id) else {
            return match start {
                Offset(0) => Ok(None),
                log_start => Err(self.gap(log_start)),
            };
        };
        let content = self.read_checkpoint(latest)?;
        let first = snapshots
            .iter()
            .find(|snapshot| snapshot.id.offset >= start);
        let before = first.filter(|snapshot| snapshot.id.offset == start);
        let last = OffsetAndEpoch {
            epoch: self.log.latest_epoch().map_or_else(
                || before.map_or(LeaderEpoch(0), |snapshot| snapshot.id.epoch),
                |entry| entry.epoch,
            ),
            offset: self.end(),
        };
        if latest.offset > last.offset || latest > last {
            self.reset(latest.offset, now_ms)?;
        } else if start > Offset(0) {
            let first = first.ok_or_else(|| self.gap(start))?;
            self.log.increase_log_start_offset(first.id.offset)?;
        }
        Ok(Some((latest, content)))
    }

    fn gap(&self, log_start: Offset) -> MetadataLogError {
        MetadataLogError::Gap {
            path: self.dir.clone(),
            log_start,
        }
    }

    /// What the state machine is to know of the log.
    fn view(
        &mut self,
        static_voters: VoterSet,
        snapshots: &[SnapshotFile],
        latest: Option<&(OffsetAndEpoch, Checkpoint)>,
    ) -> Result<LogView, MetadataLogError> {
        let start = self.log.log_start_offset();
        let first = snapshots
            .iter()
            .find(|snapshot| snapshot.id.offset == start);
        let mut view = match (first, latest) {
            (Some(first), Some((id, content))) => {
                let read;
                let content = if first.id == *id {
                    content
                } else {
                    read = self.read_checkpoint(first.id)?;
                    &read
                };
                LogView::at_snapshot(
                    static_voters,
                    first.id,
                    first.bytes,
                    content.kraft_version,
                    content.voters.clone(),
                )
            }
            _ => LogView::new(static_voters),
        };
        for snapshot in snapshots.iter().filter(|s| s.id.offset >= start) {
            view.add_snapshot(snapshot.id, snapshot.bytes);
        }
        let end = self.end();
        let latest = latest.map_or(Offset(0), |(id, _)| id.offset);
        let mut next = start;
        let mut bytes = 0;
        while next < end {
            next = self.for_each_batch(next, end, &mut |batch, dir| {
                if batch.base_offset() >= latest {
                    bytes += batch.size_in_bytes() as u64;
                }
                let control = match batch.is_control() {
                    true => contents(batch, dir)?,
                    false => Contents::Data(Vec::new()),
                };
                let control = match control {
                    Contents::Control(records) => records,
                    Contents::Data(_) => Vec::new(),
                };
                let base = batch.base_offset();
                let control = (0..).zip(control);
                let control = control.map(|(index, record)| (base + index, record));
                view.append(batch.next_offset(), batch.partition_leader_epoch(), control);
                Ok(())
            })?;
        }
        self.bytes_since_snapshot = bytes;
        Ok(view)
    }

    /// Reads committed batches from an offset up to another into a loader; up to where.
    pub fn replay(
        &mut self,
        loader: &mut MetadataLoader,
        from: Offset,
        to: Offset,
    ) -> Result<Offset, MetadataLogError> {
        self.for_each_batch(from, to, &mut |batch, dir| {
            let origin = BatchOrigin {
                base_offset: batch.base_offset(),
                last_offset: batch.last_offset(),
                leader_epoch: batch.partition_leader_epoch().0,
                timestamp_ms: batch.max_timestamp(),
            };
            match contents(batch, dir)? {
                Contents::Control(records) => {
                    for record in records {
                        if let ControlRecord::KRaftVersion(version) = record {
                            loader.set_kraft_version(version.kraft_version);
                        }
                    }
                    loader.skip_batch(origin);
                    Ok(())
                }
                Contents::Data(values) => {
                    let records = decode(&values, origin.base_offset)?;
                    let replayed = loader.replay_batch(origin, &records);
                    replayed.map_err(|source| MetadataLogError::Replay {
                        offset: origin.base_offset,
                        source,
                    })
                }
            }
        })
    }

    /// Reads some batches, at least one; where the next begins.
    fn for_each_batch(
        &mut self,
        from: Offset,
        to: Offset,
        visit: &mut dyn FnMut(&BatchView<'_>, &Path) -> Result<(), MetadataLogError>,
    ) -> Result<Offset, MetadataLogError> {
        let buffer = self.log.read_bytes(from, READ_BYTES, to)?;
        let mut next = from;
        for batch in Batches::new(&buffer) {
            match batch {
                Ok(batch) => {
                    visit(&batch, &self.dir)?;
                    next = batch.next_offset();
                }
                // The read may end within a batch.
                Err(_) if next > from => break,
                Err(source) => {
                    let offset = next;
                    return Err(MetadataLogError::TornBatch { offset, source });
                }
            }
        }
        assert!(next > from, "a read brings at least one batch");
        Ok(next)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn disk(&self) -> Rc<dyn Disk> {
        Rc::clone(&self.disk)
    }

    pub fn end(&self) -> Offset {
        self.log.log_end_offset()
    }

    /// Appends batches as they are: of this leader, or as another sent them.
    pub fn append(
        &mut self,
        batches: Bytes,
        epoch: LeaderEpoch,
        now_ms: Millis,
    ) -> Result<(), MetadataLogError> {
        let bytes = batches.len() as u64;
        self.log.append_as_follower(batches, epoch, now_ms)?;
        self.bytes_since_snapshot += bytes;
        Ok(())
    }

    pub fn truncate(&mut self, to: Offset, now_ms: Millis) -> Result<(), MetadataLogError> {
        self.log.truncate_to(to, now_ms)?;
        self.unlink()
    }

    /// Empties the log, which begins at an offset from then on.
    pub fn reset(&mut self, start: Offset, now_ms: Millis) -> Result<(), MetadataLogError> {
        self.log.truncate_fully_and_start_at(start, now_ms)?;
        self.bytes_since_snapshot = 0;
        self.unlink()
    }

    /// Drops the snapshots before this one, and the segments that it covers.
    pub fn advance_start(
        &mut self,
        before: OffsetAndEpoch,
        now_ms: Millis,
    ) -> Result<(), MetadataLogError> {
        for snapshot in self.snapshots()? {
            if snapshot.id < before {
                let path = self.snapshot_path(snapshot.id);
                self.disk.remove_file(&path).map_err(at(&path))?;
            }
        }
        self.log.increase_log_start_offset(before.offset)?;
        self.log.delete_old_segments(now_ms, before.offset)?;
        self.unlink()
    }

    /// Nobody reads the log from its files but us.
    fn unlink(&mut self) -> Result<(), MetadataLogError> {
        let gone = self.log.take_pending_deletions();
        manager::unlink(&*self.disk, &gone).map_err(at(&self.dir))
    }

    /// What is to be synced for everything appended so far to be durable.
    pub fn take_flush(&mut self) -> Result<Option<FlushWork>, MetadataLogError> {
        Ok(self.log.take_flush_work(FlushScope::All)?)
    }

    pub fn on_flushed(&mut self, up_to: Offset) {
        self.log.on_flushed(up_to);
    }

    /// Batches from an offset on, at least one.
    pub fn read(&mut self, from: Offset, bytes_max: usize) -> Result<Bytes, MetadataLogError> {
        let end = self.end();
        Ok(self.log.read_bytes(from, bytes_max, end)?.freeze())
    }

    /// Whether enough was appended since the last snapshot; the count then begins anew.
    pub fn is_snapshot_due(&mut self, bytes_between: u64) -> bool {
        let is_due = self.bytes_since_snapshot >= bytes_between;
        if is_due {
            self.bytes_since_snapshot = 0;
        }
        is_due
    }

    /// The oldest snapshot that is to stay: older ones go while all files together are too
    /// large, or a snapshot too old. The latest always stays.
    pub fn oldest_to_keep(
        &self,
        now_ms: Millis,
    ) -> Result<Option<OffsetAndEpoch>, MetadataLogError> {
        let snapshots = self.snapshots()?;
        let mut rest = &snapshots[..];
        while let [oldest, _, ..] = rest {
            let covered = self.log.bytes_of_segments_below(oldest.id.offset);
            let bytes = self.log.size_in_bytes() - covered
                + rest.iter().map(|snapshot| snapshot.bytes).sum::<u64>();
            let is_too_large = i64::try_from(bytes).is_ok_and(|b| b > self.retention.bytes);
            let is_large = self.retention.bytes >= 0 && is_too_large;
            let is_old = self.retention.ms >= 0 && now_ms - oldest.modified_ms > self.retention.ms;
            if !is_large && !is_old {
                break;
            }
            rest = &rest[1..];
        }
        let is_oldest = rest.len() == snapshots.len();
        Ok(rest.first().map(|oldest| oldest.id).filter(|_| !is_oldest))
    }

    /// All snapshots, the oldest first.
    fn snapshots(&self) -> Result<Vec<SnapshotFile>, MetadataLogError> {
        let mut snapshots = Vec::new();
        for entry in self.disk.read_dir(&self.dir).map_err(at(&self.dir))? {
            if let Some((offset, epoch)) = checkpoint::parse_file_name(&entry.name) {
                let path = self.dir.join(&entry.name);
                let file = self.disk.open(&path, OpenMode::Read).map_err(at(&path))?;
                snapshots.push(SnapshotFile {
                    id: OffsetAndEpoch { epoch, offset },
                    bytes: file.len().map_err(at(&path))?,
                    modified_ms: file.modified_ms().map_err(at(&path))?,
                });
            }
        }
        snapshots.sort_by_key(|snapshot| snapshot.id);
        Ok(snapshots)
    }

    pub fn snapshot_path(&self, id: OffsetAndEpoch) -> PathBuf {
        self.dir.join(checkpoint::file_name(id.offset, id.epoch))
    }

    /// The state that a snapshot holds.
    pub fn read_snapshot(&self, id: OffsetAndEpoch) -> Result<MetadataImage, MetadataLogError> {
        self.image_of(id, &self.read_checkpoint(id)?)
    }

    fn read_checkpoint(&self, id: OffsetAndEpoch) -> Result<Checkpoint, MetadataLogError> {
        let path = self.snapshot_path(id);
        let file = self.disk.read(&path, CHECKPOINT_BYTES_MAX);
        let file = file.map_err(at(&path))?;
        Checkpoint::parse(&file).map_err(|source| MetadataLogError::Batch { path, source })
    }

    fn image_of(
        &self,
        id: OffsetAndEpoch,
        content: &Checkpoint,
    ) -> Result<MetadataImage, MetadataLogError> {
        let provenance = Provenance {
            offset: id.offset + -1,
            epoch: id.epoch.0,
            timestamp_ms: content.last_contained_log_timestamp_ms,
        };
        let mut image = if content.values.is_empty() {
            MetadataImage::default()
        } else {
            let image = image_of_values(&content.values, provenance);
            image.map_err(|source| MetadataLogError::Snapshot {
                path: self.snapshot_path(id),
                source,
            })?
        };
        image.kraft_version = content.kraft_version;
        Ok(image)
    }

    /// A piece of a snapshot's file, to be sent; none where the file is gone.
    pub fn read_piece(
        &self,
        id: OffsetAndEpoch,
        position: u64,
        bytes_max: usize,
    ) -> Result<Option<Bytes>, MetadataLogError> {
        let path = self.snapshot_path(id);
        let file = match self.disk.open(&path, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(at(&path))?,
        };
        let rest = file.len().map_err(at(&path))?.saturating_sub(position);
        let len = usize::try_from(rest).map_or(bytes_max, |rest| rest.min(bytes_max));
        let mut piece = BytesMut::zeroed(len);
        let read = file.read_exact_at(&mut piece, position);
        read.map_err(at(&path))?;
        Ok(Some(piece.freeze()))
    }

    /// Writes a piece of a snapshot that is being fetched.
    pub fn write_piece(
        &self,
        id: OffsetAndEpoch,
        position: u64,
        bytes: &[u8],
    ) -> Result<(), MetadataLogError> {
        let path = part_of(&self.snapshot_path(id));
        let mode = match position {
            0 => OpenMode::Truncate,
            _ => OpenMode::ReadWrite,
        };
        let file = self.disk.open(&path, mode).map_err(at(&path))?;
        let written = file.write_all_at(&[IoSlice::new(bytes)], position);
        written.map_err(at(&path))
    }

    /// Ends the log's use, everything synced.
    pub fn close(&mut self) -> Result<(), MetadataLogError> {
        Ok(self.log.close()?)
    }
}

/// Replaces a file by a durable one, without blocking the core.
pub async fn replace_durably(
    rt: &Rt,
    path: &Path,
    contents: &[u8],
) -> Result<(), MetadataLogError> {
    let disk = rt.disk();
    let part = part_of(path);
    let write = || {
        let written = disk.open(&part, OpenMode::Truncate)?;
        written.write_all_at(&[IoSlice::new(contents)], 0)?;
        Ok(written)
    };
    let written = write().map_err(|error| {
        // Half of it takes space that others miss.
        let _ = disk.remove_file(&part);
        at(&part)(error)
    })?;
    rt.sync(&written).await.map_err(at(&part))?;
    adopt_part(rt, path).await
}

/// Syncs what was written in pieces and gives it its name.
pub async fn finish_part(rt: &Rt, path: &Path) -> Result<(), MetadataLogError> {
    let part = part_of(path);
    let file = rt.disk().open(&part, OpenMode::ReadWrite);
    let file = file.map_err(at(&part))?;
    rt.sync(&file).await.map_err(at(&part))?;
    adopt_part(rt, path).await
}

async fn adopt_part(rt: &Rt, path: &Path) -> Result<(), MetadataLogError> {
    let disk = rt.disk();
    disk.rename(&part_of(path), path).map_err(at(path))?;
    let parent = path.parent().unwrap_or(Path::new("."));
    let dir = disk.open_dir(parent).map_err(at(parent))?;
    rt.sync(&dir).await.map_err(at(parent))
}

/// The name that a file has until it is whole.
pub fn part_of(path: &Path) -> PathBuf {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    PathBuf::from(part)
}

/// The file of a snapshot of an image.
pub fn snapshot_bytes(
    image: &MetadataImage,
    kraft_version: i16,
    voters: Option<VoterSet>,
    now_ms: Millis,
) -> (OffsetAndEpoch, Bytes) {
    let epoch = LeaderEpoch(image.provenance.epoch);
    let id = OffsetAndEpoch {
        epoch,
        offset: image.provenance.offset + 1,
    };
    let checkpoint = Checkpoint {
        last_contained_log_timestamp_ms: image.provenance.timestamp_ms,
        kraft_version,
        voters: voters.filter(|_| kraft_version > 0),
        values: image_values(image),
    };
    (id, checkpoint.to_bytes(epoch, now_ms))
}

/// Writes the snapshot that makes these the voters of a new dynamic quorum. Not for nodes
/// with `controller.quorum.voters`.
pub fn format_quorum(
    disk: &dyn Disk,
    metadata_dir: &Path,
    voters: VoterSet,
    now_ms: Millis,
) -> io::Result<()> {
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

/// Removes what a crash left half written.
fn remove_parts(disk: &dyn Disk, dir: &Path) -> Result<(), MetadataLogError> {
    for entry in disk.read_dir(dir).map_err(at(dir))? {
        if entry.name.ends_with(".part") || entry.name.ends_with(".checkpoint.deleted") {
            let path = dir.join(&entry.name);
            disk.remove_file(&path).map_err(at(&path))?;
        }
    }
    Ok(())
}

fn read_election(disk: &dyn Disk, dir: &Path) -> Result<Option<ElectionState>, MetadataLogError> {
    let path = dir.join(QUORUM_STATE);
    match disk.read(&path, QUORUM_STATE_BYTES_MAX) {
        Ok(bytes) => ElectionState::parse(&bytes)
            .map(Some)
            .map_err(|source| MetadataLogError::QuorumState { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(MetadataLogError::Disk { path, source }),
    }
}

fn contents(batch: &BatchView<'_>, dir: &Path) -> Result<Contents, MetadataLogError> {
    read_batch(batch).map_err(|source| MetadataLogError::Batch {
        path: dir.to_owned(),
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

fn at(path: &Path) -> impl FnOnce(io::Error) -> MetadataLogError + '_ {
    move |source| MetadataLogError::Disk {
        path: path.to_owned(),
        source,
    }
}
