//! Moves replicas of this core from one log directory to another (AlterReplicaLogDirs), one
//! after the other.
//!
//! ```text
//!  <to>/<t>-<p>.<uuid>-future   copied batch by batch, synced, while the log serves on
//!     │  caught up: the controller is told where the replica will be (KIP-858)
//!     │  paused: what came since is copied and synced, the marker is written
//!     ▼
//!  <to>/<t>-<p>                 renamed; for a moment there are two, and the marker tells
//!     │                         the start after a crash that this one is the newer
//!     ▼
//!  <from>/<t>-<p>.<uuid>-delete  renamed, removed later; the marker goes
//! ```
//! While it is paused, which takes a few syncs, the partition tells its producers to ask
//! again. A move that a stop or a crash cuts short before the rename goes on after the next
//! start, from what the copy has and still shares with the log; the controller hears again
//! where the replica is until then. Whoever moves it back, or elsewhere, ends the move.
//!
//! Copying goes in steps of [`STEP_BYTES`], which wait for the disk every [`UNSYNCED_BYTES_MAX`]
//! and for `replica.alter.log.dirs.io.max.bytes.per.second`, of which all cores share one.
//!
//! Called through `Shard::answer_partitions`, which queues; runs as a background task.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::directories::Move;
use super::messages::{ShardReply, ShardRequest};
use super::partition::{Partition, Wakes};
use super::topic_rules::log_config;
use super::{Directory, Shard, flush, replicas};
use crate::base::{LeaderEpoch, Nanos, Offset, TopicIdPartition, Uuid};
use crate::config::DynamicConfig;
use crate::io::Rt;
use crate::io::disk::{File, OpenMode};
use crate::log::manager::MOVED_HERE;
use crate::log::names::{self, DirKind};
use crate::log::{AppendError, FlushScope, FlushWork, Log, OpenParams, Progress, TailPool, Within};

/// Copied at a time, within the budget of a core.
const STEP_BYTES: usize = 64 << 10;
/// Copied before the disk is waited for.
const UNSYNCED_BYTES_MAX: usize = 16 << 20;
/// What may be left when the partition is paused.
const PAUSED_BYTES_MAX: u64 = 1 << 20;
/// How often a move that waits for its turn looks whether it is still to be made.
const THROTTLE_LOOK: Duration = Duration::from_millis(100);
/// Until a full disk is tried again.
const SPACE_RETRY: Duration = Duration::from_secs(1);
/// Rounds of copying and syncing after which it is paused however fast it grows.
const ROUNDS_MAX: usize = 20;
/// Nobody reads the copy.
const TAIL_BYTES: usize = 0;

/// Why a move came to nothing; the replica is where it was.
#[derive(Debug, thiserror::Error)]
enum MoveError {
    #[error(transparent)]
    Log(#[from] crate::log::LogError),
    #[error(transparent)]
    Append(#[from] crate::log::AppendError),
    #[error(transparent)]
    Read(#[from] crate::log::ReadError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Directory(#[from] crate::log::manager::LogDirError),
    /// The partition went away, or is to go elsewhere.
    #[error("it was called off")]
    CalledOff,
}

/// Serves the queue until the core stops.
pub async fn run(shard: Rc<Shard>) {
    loop {
        let Move { id, to, copy } = shard.directories().next_move().await;
        let Some(directory) = find(&shard, to) else {
            continue;
        };
        let mover = Mover {
            shard: &shard,
            id,
            to: directory,
        };
        match mover.carry(copy).await {
            Ok(()) => {}
            Err(MoveError::CalledOff) => mover.clear(),
            Err(error) => {
                tracing::error!(
                    partition = %id.partition,
                    topic_id = %id.topic_id,
                    to = %directory.log_dir.path().display(),
                    %error,
                    "a replica could not be moved to another log directory"
                );
                mover.clear();
            }
        }
    }
}

fn find(shard: &Shard, id: Uuid) -> Option<&Directory> {
    let mut directories = shard.node().directories.iter();
    directories.find(|directory| directory.id == id)
}

struct Mover<'a> {
    shard: &'a Rc<Shard>,
    id: TopicIdPartition,
    to: &'a Directory,
}

impl Mover<'_> {
    /// Looks at the partition, if it is still to be moved here.
    fn partition<R>(&self, look: impl FnOnce(&mut Partition) -> R) -> Result<R, MoveError> {
        let partition = self.shard.partition(self.id).ok_or(MoveError::CalledOff)?;
        let mut partition = partition.borrow_mut();
        if partition.moving_to() != Some(self.to.id) || partition.is_offline() {
            return Err(MoveError::CalledOff);
        }
        Ok(look(&mut partition))
    }

    /// The move has ended without success.
    fn clear(&self) {
        if let Some(partition) = self.shard.partition(self.id) {
            let mut wakes = Wakes::new();
            let mut partition = partition.borrow_mut();
            let is_to_stay = partition.moving_to().is_none();
            if is_to_stay || partition.moving_to() == Some(self.to.id) {
                partition.end_move(&mut wakes);
                // What waited for the copy waits for the log again.
                flush::start_if_due(self.shard, self.id, &mut partition);
            }
            drop(partition);
            self.shard.wake_all(wakes);
        }
    }

    /// Copies the replica, into `copy` if there is one of an earlier life.
    async fn carry(&self, copy: Option<PathBuf>) -> Result<(), MoveError> {
        let rt = self.shard.rt();
        let is_new = copy.is_none();
        let future_dir = copy.unwrap_or_else(|| self.new_future_dir());
        let carried = self.carry_to(&future_dir).await;
        if carried.is_ok() {
            return carried;
        }
        let here = self.shard.partition(self.id);
        let directory = here
            .as_ref()
            .map(|partition| partition.borrow().directory());
        // At a stop the partitions go first, and the next start goes on. What was copied of a
        // log that is out of reach stays too.
        let is_of_no_use = match here {
            Some(partition) => !partition.borrow().is_offline(),
            None => is_new && !rt.is_stopping(),
        };
        if is_of_no_use && let Err(error) = rt.remove_dir_all(&future_dir).await {
            tracing::warn!(directory = %future_dir.display(), %error, "can't be removed");
        }
        if let Some(directory) = directory {
            // It may have heard that the replica will be there.
            self.tell_moved(directory);
        }
        carried
    }

    fn new_future_dir(&self) -> PathBuf {
        let here = self.shard.partition(self.id);
        let topic = here.map_or_else(String::new, |partition| {
            partition.borrow().topic().to_string()
        });
        let rng = &mut self.shard.rt().rng();
        let name = names::renamed_dir_name(&topic, self.id.partition, DirKind::Future, rng);
        self.to.log_dir.path().join(name)
    }

    async fn carry_to(&self, future_dir: &Path) -> Result<(), MoveError> {
        let (source, is_there) = self.partition(|partition| {
            let is_there = partition.directory() == self.to.id;
            (partition.log().dir().to_owned(), is_there)
        })?;
        if is_there {
            return Err(MoveError::CalledOff);
        }
        // With the mark of an earlier move there would be two newer ones after a crash.
        self.remove_mark(&source).await?;
        self.remove_mark(future_dir).await?;
        self.copy_and_swap(future_dir).await
    }

    async fn remove_mark(&self, dir: &Path) -> Result<(), MoveError> {
        let rt = self.shard.rt();
        match rt.disk().remove_file(&dir.join(MOVED_HERE)) {
            Ok(()) => Ok(rt.sync(&rt.disk().open_dir(dir)?).await?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The controller's core is told where the replica is; what differs from the metadata, it
    /// tells the controller.
    fn tell_moved(&self, directory: Uuid) {
        let told = ShardRequest::ReplicaMoved(Box::new((self.id, directory)));
        self.shard.post(self.shard.node().controller_core(), told);
    }

    async fn copy_and_swap(&self, future_dir: &Path) -> Result<(), MoveError> {
        let rt = self.shard.rt();
        let mut future = self.open(future_dir, Offset(0), false).await?;
        // From here on a crash doesn't end the move.
        self.flush(&mut future).await?;
        self.approach(&mut future).await?;
        let told = ShardRequest::ReplicaMoving(Box::new((self.id, self.to.id)));
        let controller = self.shard.node().controller_core();
        let told = self.shard.call(controller, told).await;
        if !matches!(told, Ok(ShardReply::Done)) {
            return Err(MoveError::CalledOff);
        }
        self.approach(&mut future).await?;
        // From here to the end nothing is appended, and no sync of the old log is left over.
        self.partition(Partition::pause)?;
        while !self.partition(|partition| partition.flights().is_empty())? {
            let landed = self.partition(|partition| partition.flights().landed().clone())?;
            landed.notified().await;
        }
        self.catch_up(&mut future).await?;
        let log_start = self.partition(|partition| partition.log().log_start_offset())?;
        future.increase_log_start_offset(log_start.min(future.log_end_offset()))?;
        let end = future.log_end_offset();
        let work = future.prepare_close()?;
        self.sync(&work).await?;
        drop(future);
        let disk = rt.disk();
        let mark = disk.open(&future_dir.join(MOVED_HERE), OpenMode::Create)?;
        self.sync_file(&mark).await?;
        self.sync_file(&disk.open_dir(future_dir)?).await?;
        // It may have been called off meanwhile.
        self.partition(|_| ())?;
        self.swap(future_dir, end, log_start).await
    }

    async fn swap(
        &self,
        future_dir: &Path,
        end: Offset,
        log_start: Offset,
    ) -> Result<(), MoveError> {
        let rt = self.shard.rt();
        let disk = rt.disk();
        let topic = self.partition(|partition| partition.topic().clone())?;
        let index = self.id.partition;
        let live = self.to.log_dir.partition_path(&topic, index);
        disk.rename(future_dir, &live)?;
        let opened = async {
            self.sync_file(&disk.open_dir(self.to.log_dir.path())?)
                .await?;
            let mut opened = self.open(&live, end, true).await?;
            opened.increase_log_start_offset(log_start.min(end))?;
            Ok::<_, MoveError>(opened)
        };
        let moved = match opened.await {
            Ok(log) => self.partition(|partition| {
                let from = partition.directory();
                let mut wakes = Wakes::new();
                assert_eq!(log.log_end_offset(), partition.log().log_end_offset());
                partition.replace_log(log, self.to.id, &mut wakes);
                (from, partition.config().file_delete_delay_ms, wakes)
            }),
            Err(error) => Err(error),
        };
        let (from, delay_ms, wakes) = match moved {
            Ok(moved) => moved,
            Err(error) => {
                // The old one serves on, alone: the copy is gone before anything is appended.
                self.retire(self.to, &topic).await?;
                return Err(error);
            }
        };
        self.shard.wake_all(wakes);
        self.tell_moved(self.to.id);
        tracing::info!(
            %topic,
            partition = %index,
            dir = %self.to.log_dir.path().display(),
            "replica moved to another log directory"
        );
        if let Some(from) = find(self.shard, from) {
            let old = self.retire(from, &topic).await?;
            replicas::remove_later(self.shard, old, delay_ms);
        }
        // From now on there is one only, on stable storage as well.
        let unmarked = self.remove_mark(&live).await;
        if let Err(error) = unmarked {
            tracing::warn!(directory = %live.display(), %error, "the mark of a move stays");
        }
        Ok(())
    }

    /// Durably, before it returns.
    async fn retire(&self, directory: &Directory, topic: &str) -> Result<PathBuf, MoveError> {
        let rt = self.shard.rt();
        let log_dir = &directory.log_dir;
        let retired = {
            let rng = &mut rt.rng();
            log_dir.retire(&*rt.disk(), topic, self.id.partition, DirKind::Delete, rng)?
        };
        rt.sync(&rt.disk().open_dir(log_dir.path())?).await?;
        Ok(retired)
    }

    async fn open(&self, dir: &Path, end: Offset, clean: bool) -> Result<Log, MoveError> {
        let rt = self.shard.rt();
        let config = self.partition(|partition| log_config(partition.config()))?;
        let params = OpenParams {
            recovery_point: end,
            clean,
            // A copy has its original.
            ends_at_damage: !clean,
            topic_id: Some(self.id.topic_id),
            seed: rt.random_u64(),
            ..OpenParams::default()
        };
        let nobodys = TailPool::new(TAIL_BYTES);
        let pool = if clean {
            self.shard.tail_pool()
        } else {
            &nobodys
        };
        let budget = rt.budget();
        let now_ms = rt.wall_ms();
        let within = Within {
            budget: &budget,
            // Nobody waits for a copy to be opened.
            progress: &Progress::default(),
        };
        let opened = Log::open_within(within, rt.disk(), dir, config, &params, pool, now_ms);
        Ok(opened.await?.0)
    }

    /// Copies and syncs until little is left.
    async fn approach(&self, future: &mut Log) -> Result<(), MoveError> {
        for _ in 0..ROUNDS_MAX {
            self.catch_up(future).await?;
            self.flush(future).await?;
            let left = self.partition(|partition| bytes_between(partition.log(), future))?;
            self.show(future)?;
            if left <= PAUSED_BYTES_MAX {
                break;
            }
        }
        Ok(())
    }

    async fn flush(&self, future: &mut Log) -> Result<(), MoveError> {
        if let Some(work) = future.take_flush_work(FlushScope::All)? {
            self.sync(&work).await?;
            future.on_flushed(work.up_to);
        }
        Ok(())
    }

    /// Drops what the copy has beyond the log: after a crash, or a truncation.
    fn rejoin(&self, future: &mut Log) -> Result<(), MoveError> {
        let common = self.partition(|partition| shared_end(partition.log(), future))?;
        if common < future.log_end_offset() {
            future.truncate_to(common, self.shard.rt().wall_ms())?;
        }
        Ok(())
    }

    /// Copies up to where the log ends.
    async fn catch_up(&self, future: &mut Log) -> Result<(), MoveError> {
        let rt = self.shard.rt();
        let budget = rt.budget();
        let mut unsynced = 0;
        loop {
            self.rejoin(future)?;
            let from = future.log_end_offset();
            let read = || {
                self.partition(|partition| {
                    let (start, end) = (
                        partition.log().log_start_offset(),
                        partition.log().log_end_offset(),
                    );
                    if from >= end || from < start {
                        return Ok((start, None));
                    }
                    let bytes = partition.log_mut().read_bytes(from, STEP_BYTES, end)?;
                    Ok::<_, MoveError>((start, Some(bytes.freeze())))
                })
            };
            let (start, bytes) = rt.without_waiting(read).await??;
            match bytes {
                Some(bytes) => {
                    let len = bytes.len();
                    // Their epochs are the log's own.
                    let any = LeaderEpoch(i32::MAX);
                    match future.append_as_follower(bytes, any, rt.wall_ms()) {
                        Ok(_) => {}
                        Err(AppendError::Log(error)) if error.is_out_of_space() => {
                            rt.sleep(SPACE_RETRY).await;
                            continue;
                        }
                        Err(error) => return Err(self.failed(future, error.into())),
                    }
                    unsynced += len;
                    if unsynced >= UNSYNCED_BYTES_MAX {
                        self.flush(future).await?;
                        unsynced = 0;
                    }
                    self.throttle(len).await?;
                }
                // What was to be copied next has been deleted.
                None if from < start => {
                    future.truncate_fully_and_start_at(start, rt.wall_ms())?;
                }
                None => return Ok(()),
            }
            self.show(future)?;
            budget.breathe().await;
        }
    }

    /// For DescribeLogDirs.
    fn show(&self, future: &Log) -> Result<(), MoveError> {
        let (size, end) = (future.size_in_bytes(), future.log_end_offset());
        self.partition(|partition| partition.show_copy(size, end))
    }

    /// Waits for the turn of so many bytes, as long as the limit is what it was.
    async fn throttle(&self, bytes: usize) -> Result<(), MoveError> {
        let rt = self.shard.rt();
        let limit = self.limit();
        let turn = self.shard.node().moves.turn(rt, bytes, limit);
        while rt.now() < turn && self.limit() == limit {
            rt.sleep_until(turn.min(rt.now() + THROTTLE_LOOK)).await;
            self.partition(|_| ())?;
        }
        Ok(())
    }

    fn limit(&self) -> i64 {
        let image = self.shard.image();
        let layers = replicas::broker_layers(self.shard, &image);
        DynamicConfig::effective(&layers).replica_alter_log_dirs_io_max_bytes_per_second
    }

    /// If the copy's log went offline, its directory has failed.
    fn failed(&self, future: &Log, error: MoveError) -> MoveError {
        if future.is_offline() {
            let failures = self.shard.directories().failures();
            failures.tell(self.to.id, error.to_string());
        }
        error
    }

    async fn sync(&self, work: &FlushWork) -> Result<(), MoveError> {
        for file in &work.files {
            self.sync_file(file).await?;
        }
        Ok(())
    }

    async fn sync_file(&self, file: &std::sync::Arc<dyn File>) -> Result<(), MoveError> {
        if let Err(error) = self.shard.rt().sync(file).await {
            let failures = self.shard.directories().failures();
            failures.tell(self.to.id, error.to_string());
            return Err(error.into());
        }
        Ok(())
    }
}

/// How fast replicas of all cores may be copied.
#[derive(Debug, Default)]
pub struct Pace {
    /// When the bytes that have been asked for will have had their time, in nanoseconds.
    until: AtomicU64,
    /// The limit that this was reckoned with.
    limit: AtomicI64,
}

impl Pace {
    /// When whoever has copied so many bytes may go on.
    fn turn(&self, rt: &Rt, bytes: usize, bytes_per_second: i64) -> Nanos {
        let now = rt.now().0;
        if self.limit.swap(bytes_per_second, Ordering::Relaxed) != bytes_per_second {
            self.until.store(now, Ordering::Relaxed);
        }
        let limit = u128::try_from(bytes_per_second).unwrap_or(0).max(1);
        let nanos = bytes as u128 * 1_000_000_000 / limit;
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        let after = |until: u64| until.max(now).saturating_add(nanos);
        let before = self
            .until
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| {
                Some(after(until))
            });
        Nanos(after(before.unwrap_or(now)))
    }
}

/// Where a copy stops being one, by the leader epochs: as a follower finds it out of its
/// leader.
fn shared_end(log: &Log, future: &Log) -> Offset {
    let mut end = future.log_end_offset().min(log.log_end_offset());
    let mut epoch = future.latest_epoch().map(|entry| entry.epoch);
    while let Some(asked) = epoch {
        let Some((found, log_end)) = log.end_offset_for_epoch(asked) else {
            // The log begins later: it has none of this.
            break;
        };
        let Some((own, own_end)) = future.end_offset_for_epoch(found) else {
            return end.min(log_end);
        };
        end = end.min(log_end).min(own_end);
        if own == found {
            break;
        }
        epoch = Some(own);
    }
    end
}

fn bytes_between(log: &Log, future: &Log) -> u64 {
    log.size_in_bytes().saturating_sub(future.size_in_bytes())
}
