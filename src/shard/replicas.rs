//! From a new metadata image to this core's partitions and coordinators: opens, changes and
//! deletes what the image says (replication digest, section 13).
//!
//! Called when the controller's core publishes an image. New logs are opened (and recovered)
//! first, within budgets of 500 µs; the rest happens without awaiting, so a request sees
//! either the old image with the old partitions or the new with the new.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::coordinators::{Led, OffsetsLog};
use super::fetcher::FollowerChanges;
use super::messages::{PartitionCheckpoint, Published};
use super::opening::Opening;
use super::partition::{Partition, Wakes};
use super::topic_rules::log_config;
use super::{Directory, Shard, fetcher, flush, isr};
use crate::base::{BrokerId, Offset, PartitionIndex, TopicIdPartition, Uuid};
use crate::config::{DynamicConfig, Layers, TopicConfig};
use crate::controller::topic_name::CONSUMER_OFFSETS;
use crate::coordinator::runtime::GroupCoordinator;
use crate::io::{Budget, Queue};
use crate::log::checkpoint::Offsets;
use crate::log::names::{self, DirKind};
use crate::log::{Log, LogError, OpenParams, Within};
use crate::metadata::{
    ClusterImage, ConfigResourceType, LocalReplica, MetadataImage, PartitionImage, TopicImage,
};
use crate::replica::leader::Registration;
use crate::replica::{Assignment, Replica};

/// Opens what is new of an image, letting others in, and then uses the image from now on.
/// One image after the other.
pub async fn apply(shard: &Rc<Shard>, published: Arc<Published>) {
    let _turn = shard.applying.lock().await;
    let local = published.changes.local_replicas(shard.node().id);
    let is_mine = |replica: &&LocalReplica| {
        let id = key(&replica.topic, replica.index);
        published.placement.owner(id) == Some(shard.core())
    };
    let replicas = || local.leaders.iter().chain(&local.followers).filter(is_mine);
    let budget = shard.rt().budget();
    let is_new = |r: &&LocalReplica| shard.partition(key(&r.topic, r.index)).is_none();
    let new = replicas().filter(is_new).count();
    if new > 0 {
        Opening::begin(shard, new);
    }
    let mut opened = Vec::new();
    for replica in replicas() {
        if shard
            .partition(key(&replica.topic, replica.index))
            .is_none()
        {
            opened.extend(open_or_tell(shard, &published, replica, &budget).await);
            shard.opening.on_opened();
            budget.breathe().await;
        }
    }
    if new > 0 {
        shard.opening.end();
    }
    flush::settle(shard, &mut opened).await;
    // From here on nothing is awaited.
    for partition in opened {
        take_in(shard, partition);
    }
    let mut wakes = Wakes::new();
    let now = shard.rt().now();
    let mut following = FollowerChanges::default();
    let brokers = &published.image.cluster;
    for replica in replicas() {
        let id = key(&replica.topic, replica.index);
        if let Some(partition) = shard.partition(id) {
            let assignment = assignment(&replica.partition);
            let mut partition = partition.borrow_mut();
            let transition = partition.on_assignment(assignment, now, &mut wakes);
            following.note(id, transition);
            partition.on_brokers(&|id| registration(brokers, id), &mut wakes);
        }
    }
    if !published.changes.brokers.is_empty() {
        for partition in shard.partitions.borrow().values() {
            let mut partition = partition.borrow_mut();
            partition.on_brokers(&|id| registration(brokers, id), &mut wakes);
        }
    }
    for (topic, index) in &local.deletes {
        delete(shard, topic, *index, &mut wakes);
        following.stopped.push(key(topic, *index));
    }
    reconfigure(shard, &published, &mut wakes);
    *shard.published.borrow_mut() = published.clone();
    elect_coordinators(shard, &published.image);
    resign_coordinators(shard, &published.image);
    forget_offsets(shard, &published);
    shard.wake_all(wakes);
    fetcher::on_changes(shard, following);
}

/// Opens what couldn't be opened for want of space, where there is some now.
pub async fn open_missed(shard: &Rc<Shard>) {
    let missed = shard.directories().missed();
    if missed.is_empty() {
        return;
    }
    let _turn = shard.applying.lock().await;
    let published = shard.published();
    let budget = shard.rt().budget();
    for id in missed {
        let topic = published.image.topics.by_id(id.topic_id);
        let found = topic.and_then(|topic| Some((topic, topic.partition(id.partition)?)));
        let Some((topic, partition)) = found.filter(|_| shard.partition(id).is_none()) else {
            shard.directories().found(id);
            continue;
        };
        let replica = LocalReplica {
            topic: topic.clone(),
            index: id.partition,
            partition: partition.clone(),
            is_new_leader_epoch: true,
        };
        let Ok(mut opened) = open(shard, &published, &replica, &budget).await else {
            continue;
        };
        flush::settle(shard, std::slice::from_mut(&mut opened)).await;
        let mut wakes = Wakes::new();
        let brokers = &published.image.cluster;
        let mut following = FollowerChanges::default();
        let transition = opened.on_assignment(assignment(partition), shard.rt().now(), &mut wakes);
        following.note(id, transition);
        opened.on_brokers(&|id| registration(brokers, id), &mut wakes);
        take_in(shard, opened);
        shard.wake_all(wakes);
        tracing::info!(topic = %topic.name, partition = %id.partition, "log opened after all");
        elect_coordinators(shard, &published.image);
        fetcher::on_changes(shard, following);
    }
}

fn take_in(shard: &Shard, partition: Partition) {
    let id = partition.id();
    shard.directories().found(id);
    let partition = Rc::new(RefCell::new(partition));
    shard.partitions.borrow_mut().insert(id, partition);
    forget_ids(shard);
}

/// The partitions of this core, in order.
pub fn ids(shard: &Shard) -> Rc<[TopicIdPartition]> {
    let sorted = || {
        let mut ids: Vec<_> = shard.partitions.borrow().keys().copied().collect();
        ids.sort_unstable();
        Rc::from(ids)
    };
    shard.ids.borrow_mut().get_or_insert_with(sorted).clone()
}

/// The table of partitions has changed.
fn forget_ids(shard: &Shard) {
    *shard.ids.borrow_mut() = None;
}

/// Closes every log of this core, flushed; afterwards no partition is here any more. Also
/// gives the directories of those that couldn't be closed.
pub async fn close_all(shard: &Rc<Shard>) -> (Vec<PartitionCheckpoint>, Vec<Uuid>) {
    // A log that is being opened may be half recovered, which isn't clean.
    let _turn = shard.applying.lock().await;
    for led in std::mem::take(&mut *shard.coordinators.borrow_mut()).into_values() {
        led.coordinator.unload();
    }
    // In a fixed order, so that a simulated stop replays.
    let partitions: BTreeMap<_, _> = std::mem::take(&mut *shard.partitions.borrow_mut())
        .into_iter()
        .collect();
    forget_ids(shard);
    let mut wakes = Wakes::new();
    let (mut checkpoints, mut unclean) = (Vec::new(), Vec::new());
    for partition in partitions.into_values() {
        if !close(shard, &mut partition.borrow_mut(), &mut wakes) {
            unclean.push(partition.borrow().directory());
        }
        checkpoints.push(checkpoint(&partition.borrow()));
        shard.rt().yield_now().await;
    }
    shard.wake_all(wakes);
    (checkpoints, unclean)
}

/// False where the next start has to recover the log.
fn close(shard: &Shard, partition: &mut Partition, wakes: &mut Wakes) -> bool {
    partition.changed(wakes);
    if partition.is_offline() {
        return false;
    }
    let closed = partition.log_mut().close();
    if let Err(error) = &closed {
        tracing::error!(
            core = %shard.core(),
            topic = %partition.topic(),
            partition = %partition.id().partition,
            %error,
            "log not closed cleanly"
        );
    }
    closed.is_ok()
}

/// The partition's line in the checkpoint files.
pub fn checkpoint(partition: &Partition) -> PartitionCheckpoint {
    let log = partition.log();
    PartitionCheckpoint {
        topic: partition.topic().clone(),
        partition: partition.id().partition,
        directory: partition.directory(),
        recovery_point: log.recovery_checkpoint(),
        high_watermark: partition.high_watermark(),
        log_start_offset: log.log_start_checkpoint(),
    }
}

/// A topic's effective configuration in this image.
pub fn topic_config(shard: &Shard, image: &MetadataImage, topic: &str) -> TopicConfig {
    let own = image.configs.get(ConfigResourceType::TOPIC, topic);
    let layers = broker_layers(shard, image);
    TopicConfig::effective(&match own {
        Some(own) => layers.with_resource(own),
        None => layers,
    })
}

/// The settings of this broker in this image, the dynamic ones over the fixed.
pub fn broker_layers<'a>(shard: &'a Shard, image: &'a MetadataImage) -> Layers<'a> {
    let fixed = Layers::of_node(&shard.node().config.fixed);
    let broker = shard.node().id.to_string();
    let dynamic = image.configs.get(ConfigResourceType::BROKER, &broker);
    let default = image.configs.get(ConfigResourceType::BROKER, "");
    Layers {
        dynamic_broker: dynamic.map_or(fixed.dynamic_broker, |map| map),
        dynamic_default: default.map_or(fixed.dynamic_default, |map| map),
        ..fixed
    }
}

fn key(topic: &TopicImage, index: PartitionIndex) -> TopicIdPartition {
    TopicIdPartition {
        topic_id: topic.id,
        partition: index,
    }
}

async fn open_or_tell(
    shard: &Shard,
    published: &Published,
    replica: &LocalReplica,
    budget: &Budget,
) -> Option<Partition> {
    match open(shard, published, replica, budget).await {
        Ok(partition) => Some(partition),
        Err(error) => {
            let id = key(&replica.topic, replica.index);
            shard.directories().miss(id, error.is_out_of_space());
            tracing::error!(
                core = %shard.core(),
                topic = %replica.topic.name,
                partition = %replica.index,
                %error,
                "log can't be opened: the partition is not served"
            );
            None
        }
    }
}

async fn open(
    shard: &Shard,
    published: &Published,
    replica: &LocalReplica,
    budget: &Budget,
) -> Result<Partition, LogError> {
    let node = shard.node();
    let name = &replica.topic.name;
    let image = &published.image;
    let id = key(&replica.topic, replica.index);
    let placed = published.placement.directories.get(&id).copied();
    let directory = match placed.unwrap_or_else(|| node.directories.first().map(|d| d.id)) {
        Some(id) if !shard.directories().is_offline(id) => directory(shard, id),
        _ => {
            let path = names::live_dir_name(name, replica.index).into();
            return Err(LogError::Offline { path });
        }
    };
    let index = replica.index;
    let line = (name.to_string(), index);
    let at = |offsets: &Offsets| offsets.get(&line).copied().unwrap_or(Offset(0));
    let dynamic = DynamicConfig::effective(&broker_layers(shard, image));
    let params = OpenParams {
        recovery_point: at(&directory.recovery_points),
        log_start_offset: at(&directory.log_starts),
        clean: directory.clean,
        ends_at_damage: false,
        topic_id: Some(replica.topic.id),
        producer_id_expiration_ms: i64::from(dynamic.producer_id_expiration_ms),
        seed: shard.rt().random_u64(),
    };
    let config = Arc::new(topic_config(shard, image, name));
    let path = directory.log_dir.partition_path(name, index);
    let opened = Log::open_within(
        Within {
            budget,
            progress: &shard.opening.progress,
        },
        shard.rt().disk(),
        &path,
        log_config(&config),
        &params,
        shard.tail_pool(),
        shard.rt().wall_ms(),
    )
    .await;
    if matches!(&opened, Err(LogError::Io { .. }))
        && let Err(error) = directory.log_dir.check_writable(&*shard.rt().disk())
    {
        // It wasn't only this log that couldn't be read.
        let failures = shard.directories().failures();
        failures.tell(directory.id, error.to_string());
    }
    let (log, report) = opened?;
    if report.truncated_bytes > 0 {
        tracing::warn!(
            core = %shard.core(),
            topic = %name,
            partition = %index,
            bytes = report.truncated_bytes,
            offset = %log.log_end_offset(),
            "cut an incomplete tail off the log after an unclean stop"
        );
    }
    let replica_state = Replica::new(
        node.id,
        at(&directory.high_watermarks).max(log.log_start_offset()),
        log.log_end_offset(),
    )
    .with_lag_max(isr::lag_max(shard));
    Ok(Partition::new(
        id,
        name.clone(),
        directory.id,
        log,
        replica_state,
        config,
        shard.metrics().topic(name),
    )
    .reporting_to(shard.directories().failures().clone()))
}

/// The log directory with this id; the first where there is none.
fn directory(shard: &Shard, id: Uuid) -> &Directory {
    let directories = &shard.node().directories;
    directories
        .iter()
        .find(|directory| directory.id == id)
        .unwrap_or(&directories[0])
}

fn assignment(partition: &PartitionImage) -> Assignment {
    Assignment {
        replicas: partition.replicas.clone(),
        isr: partition.isr.clone(),
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
    }
}

/// A broker as far as it concerns its replicas.
fn registration(brokers: &ClusterImage, id: BrokerId) -> Option<Registration> {
    brokers.broker(id).map(|broker| Registration {
        epoch: broker.epoch,
        is_active: broker.is_active(),
    })
}

/// Renames the log away; its files go after `file.delete.delay.ms`.
fn delete(shard: &Rc<Shard>, topic: &TopicImage, index: PartitionIndex, wakes: &mut Wakes) {
    shard.directories().found(key(topic, index));
    let Some(partition) = shard.partitions.borrow_mut().remove(&key(topic, index)) else {
        return;
    };
    forget_ids(shard);
    let mut partition = partition.borrow_mut();
    partition.changed(wakes);
    let delay = partition.config().file_delete_delay_ms;
    let directory = directory(shard, partition.directory());
    let retired = directory.log_dir.retire(
        &*shard.rt().disk(),
        &topic.name,
        index,
        DirKind::Delete,
        &mut shard.rt().rng(),
    );
    match retired {
        Ok(renamed) => {
            // A crash before this is durable leaves a stray, which the start sets aside.
            sync_later(shard, directory);
            remove_later(shard, renamed, delay);
        }
        Err(error) => tracing::error!(
            core = %shard.core(),
            topic = %topic.name,
            partition = %index,
            %error,
            "a deleted partition's log can't be renamed"
        ),
    }
}

/// Makes the names in a log directory durable, without anybody waiting for it.
fn sync_later(shard: &Rc<Shard>, directory: &Directory) {
    let (id, path) = (directory.id, directory.log_dir.path().to_owned());
    let shard = shard.clone();
    shard.rt().clone().spawn(Queue::Background, async move {
        let opened = shard.rt().disk().open_dir(&path);
        let Ok(directory) = opened else {
            return;
        };
        if let Err(error) = shard.rt().sync(&directory).await {
            let failures = shard.directories().failures();
            failures.tell(id, error.to_string());
        }
    });
}

/// Removes a renamed directory after the delay; what is left at a stop goes at the next
/// start.
pub fn remove_later(shard: &Rc<Shard>, directory: PathBuf, delay_ms: i64) {
    let delay = Duration::from_millis(u64::try_from(delay_ms).unwrap_or(0));
    let rt = shard.rt().clone();
    shard.rt().spawn(Queue::Background, async move {
        rt.sleep(delay).await;
        if let Err(error) = rt.remove_dir_all(&directory).await {
            tracing::warn!(directory = %directory.display(), %error, "can't be removed");
        }
    });
}

/// Unlinks files of deleted segments after the delay.
pub fn unlink_later(shard: &Rc<Shard>, files: Vec<PathBuf>, delay_ms: i64) {
    if files.is_empty() {
        return;
    }
    let delay = Duration::from_millis(u64::try_from(delay_ms).unwrap_or(0));
    let rt = shard.rt().clone();
    shard.rt().spawn(Queue::Background, async move {
        rt.sleep(delay).await;
        for file in files {
            if let Err(error) = rt.remove_file(&file).await {
                tracing::warn!(file = %file.display(), %error, "can't be removed");
            }
        }
    });
}

fn reconfigure(shard: &Rc<Shard>, published: &Published, wakes: &mut Wakes) {
    let changed = &published.changes.configs;
    let all = changed
        .iter()
        .any(|(kind, _)| *kind == ConfigResourceType::BROKER);
    let concerns =
        |topic: &str| all || changed.contains(&(ConfigResourceType::TOPIC, topic.to_owned()));
    if changed.is_empty() {
        return;
    }
    if all {
        super::limits::configure(shard, &published.image);
    }
    for (id, partition) in shard.partitions.borrow().iter() {
        let mut partition = partition.borrow_mut();
        if concerns(partition.topic()) {
            let config = topic_config(shard, &published.image, partition.topic());
            partition.set_config(Arc::new(config), wakes);
            flush::start_if_due(shard, *id, &mut partition);
        }
    }
}

/// Starts the coordinators of offsets partitions that are led here now. Not before the broker
/// is registered: what it led in its last life ends with the registration, and is given to it
/// again in a new term.
fn elect_coordinators(shard: &Rc<Shard>, image: &MetadataImage) {
    let Some(topic) = image.topics.by_name(CONSUMER_OFFSETS) else {
        return;
    };
    if shard.broker_epoch() < 0 {
        return;
    }
    let led_here = topic
        .partitions()
        .filter(|(_, partition)| partition.leader == shard.node().id);
    for (index, partition) in led_here {
        let id = key(topic, index);
        if shard.partition(id).is_none() {
            continue;
        }
        let leader_epoch = partition.leader_epoch;
        let mut coordinators = shard.coordinators.borrow_mut();
        let led = coordinators.get(&index);
        if led.is_some_and(|led| led.leader_epoch >= leader_epoch) {
            continue;
        }
        let coordinator = GroupCoordinator::start(
            shard.rt().clone(),
            index,
            Rc::new(OffsetsLog::new(shard, id)),
            Rc::new(shard.node().coordinator.clone()),
        );
        let led = Led {
            leader_epoch,
            coordinator,
        };
        if let Some(old) = coordinators.insert(index, led) {
            old.coordinator.unload();
        }
    }
}

/// Ends the coordinators of partitions that are not led here any more.
fn resign_coordinators(shard: &Shard, image: &MetadataImage) {
    let topic = image.topics.by_name(CONSUMER_OFFSETS);
    let led = |index: PartitionIndex| {
        topic
            .and_then(|topic| topic.partition(index))
            .is_some_and(|partition| partition.leader == shard.node().id)
    };
    let mut coordinators = shard.coordinators.borrow_mut();
    let gone: Vec<PartitionIndex> = coordinators
        .keys()
        .copied()
        .filter(|index| !led(*index))
        .collect();
    for index in gone {
        if let Some(led) = coordinators.remove(&index) {
            led.coordinator.unload();
        }
    }
}

/// Committed offsets of deleted topics go.
fn forget_offsets(shard: &Rc<Shard>, published: &Published) {
    let deleted: Vec<(Uuid, String)> = published
        .changes
        .topics_deleted
        .iter()
        .map(|topic| (topic.id, topic.name.to_string()))
        .collect();
    if deleted.is_empty() {
        return;
    }
    for led in shard.coordinators.borrow().values() {
        let coordinator = led.coordinator.clone();
        let deleted = deleted.clone();
        shard.rt().spawn(Queue::Background, async move {
            coordinator.on_topics_deleted(&deleted).await;
        });
    }
}
