//! Checks of replica assignments that a client gives itself, for new topics and for new
//! partitions; and the registration that new partitions begin with.

use super::Controller;
use super::api_error::ApiError;
use crate::base::{BrokerId, ErrorCode, LeaderEpoch, PartitionIndex, Uuid};
use crate::metadata::image::directory_id;
use crate::metadata::topics::brokers;
use crate::metadata::{MetadataRecord, PartitionImage};

/// Who has a new partition. The ISR is the active ones among the replicas, never empty.
pub(super) struct NewPartition {
    pub replicas: Vec<BrokerId>,
    pub isr: Vec<BrokerId>,
}

impl Controller {
    /// Replicas as the client gave them, if they are registered, distinct, and as many as
    /// those of the other partitions.
    pub(super) fn manual_replicas(
        &self,
        broker_ids: &[i32],
        replication_factor: Option<usize>,
    ) -> Result<Vec<BrokerId>, ApiError> {
        let invalid = |message| {
            Err(ApiError::new(
                ErrorCode::INVALID_REPLICA_ASSIGNMENT,
                message,
            ))
        };
        let replicas = brokers(broker_ids);
        if replicas.is_empty() {
            return invalid(
                "The manual partition assignment includes an empty replica list.".to_owned(),
            );
        }
        let mut sorted = replicas.clone();
        sorted.sort();
        let mut previous = None;
        for broker in sorted {
            if self.image.cluster.broker(broker).is_none() {
                return invalid(format!(
                    "The manual partition assignment includes broker {broker}, but no such \
                     broker is registered."
                ));
            }
            if previous == Some(broker) {
                return invalid(format!(
                    "The manual partition assignment includes the broker {broker} more than once."
                ));
            }
            previous = Some(broker);
        }
        match replication_factor {
            Some(others) if others != replicas.len() => invalid(format!(
                "The manual partition assignment includes a partition with {} replica(s), but \
                 this is not consistent with previous partitions, which have {others} replica(s).",
                replicas.len()
            )),
            _ => Ok(replicas),
        }
    }

    /// The active ones among replicas: the ISR that a partition begins with.
    pub(super) fn active_replicas(&self, replicas: &[BrokerId]) -> Vec<BrokerId> {
        let active = |broker: &BrokerId| self.image.cluster.is_active(*broker);
        replicas.iter().copied().filter(active).collect()
    }

    /// The record of a new partition; the first of its ISR leads.
    pub(super) fn new_partition(
        &self,
        topic_id: Uuid,
        index: PartitionIndex,
        partition: NewPartition,
    ) -> MetadataRecord {
        let NewPartition { replicas, isr } = partition;
        let directory = |broker: &BrokerId| {
            let broker = self.image.cluster.broker(*broker);
            broker.map_or(directory_id::UNASSIGNED, |broker| {
                broker.default_directory()
            })
        };
        PartitionImage {
            directories: replicas.iter().map(directory).collect(),
            leader: isr[0],
            isr,
            removing: Vec::new(),
            adding: Vec::new(),
            elr: Vec::new(),
            last_known_elr: Vec::new(),
            leader_epoch: LeaderEpoch(0),
            partition_epoch: 0,
            recovering: false,
            replicas,
        }
        .to_record(topic_id, index, self.image.metadata_version())
        .into()
    }
}
