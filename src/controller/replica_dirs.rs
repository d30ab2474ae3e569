//! AssignReplicasToDirs (`ReplicationControlManager.handleAssignReplicasToDirs`, KIP-858): a
//! broker with several log directories says in which of them its replicas are.

use super::api_error::ApiError;
use super::leader_election::Cause;
use super::partition_change::{Election, PartitionChange};
use super::{Controller, Outcome};
use crate::base::{BrokerId, ErrorCode, PartitionIndex, Uuid};
use crate::metadata::MetadataRecord;
use crate::wire::messages::assign_replicas_to_dirs_response::{
    DirectoryData, PartitionData, TopicData,
};
use crate::wire::messages::{
    AssignReplicasToDirsRequest, AssignReplicasToDirsResponse, PartitionChangeRecord,
};

impl Controller {
    pub(super) fn decide_assign_replicas_to_dirs(
        &self,
        request: &AssignReplicasToDirsRequest,
    ) -> Outcome<AssignReplicasToDirsResponse> {
        if !self.image.metadata_version().has_directories() {
            return Err(ApiError::new(
                ErrorCode::UNSUPPORTED_VERSION,
                "Directory assignment is not supported yet.",
            ));
        }
        let broker = BrokerId(request.broker_id);
        self.check_broker_epoch(broker, request.broker_epoch)?;
        let mut records = Vec::new();
        let mut assign = |directory, topic_id, index| {
            let changed = self.assign_replica(broker, directory, topic_id, PartitionIndex(index));
            match changed {
                Ok(change) => {
                    records.extend(change.map(MetadataRecord::from));
                    ErrorCode::NONE
                }
                Err(error) => error,
            }
        };
        let directories = request
            .directories
            .iter()
            .map(|directory| DirectoryData {
                id: directory.id,
                topics: directory
                    .topics
                    .iter()
                    .map(|topic| TopicData {
                        topic_id: topic.topic_id,
                        partitions: topic
                            .partitions
                            .iter()
                            .map(|partition| PartitionData {
                                partition_index: partition.partition_index,
                                error_code: assign(
                                    directory.id,
                                    topic.topic_id,
                                    partition.partition_index,
                                )
                                .0,
                            })
                            .collect(),
                    })
                    .collect(),
            })
            .collect();
        let response = AssignReplicasToDirsResponse {
            directories,
            ..Default::default()
        };
        Ok((records, response))
    }

    fn assign_replica(
        &self,
        broker: BrokerId,
        directory: Uuid,
        topic_id: Uuid,
        index: PartitionIndex,
    ) -> Result<Option<PartitionChangeRecord>, ErrorCode> {
        let topic = self.image.topics.by_id(topic_id);
        let topic = topic.ok_or(ErrorCode::UNKNOWN_TOPIC_ID)?;
        let partition = topic
            .partition(index)
            .ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        let known = partition.directory_of(broker);
        if known.ok_or(ErrorCode::NOT_LEADER_OR_FOLLOWER)? == directory {
            return Ok(None);
        }
        // A replica whose directory is offline is as good as gone, one that was found in an
        // online one can lead again.
        let owner = self
            .image
            .cluster
            .broker(broker)
            .expect("its epoch is right");
        let is_online = owner.is_directory_online(directory);
        let mut change = PartitionChange::new(partition, self.terms(topic));
        change.election = Election::Online;
        change.directories.insert(broker, directory);
        let cause = if is_online {
            Cause::Nothing
        } else {
            change.isr.retain(|member| *member != broker);
            Cause::Removed(broker)
        };
        Ok(self.build(topic_id, index, change, cause))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::super::{ControllerRequest, ControllerResponse};
    use super::*;
    use crate::metadata::PartitionImage;
    use crate::security::RequestContext;
    use crate::wire::messages::assign_replicas_to_dirs_request as asked;

    fn assign(bench: &mut Bench, directory: Uuid, topic_id: Uuid, partition: i32) -> i16 {
        let broker = bench.controller.image().cluster.broker(BrokerId(1));
        let request = AssignReplicasToDirsRequest {
            broker_id: 1,
            broker_epoch: broker.unwrap().epoch,
            directories: vec![asked::DirectoryData {
                id: directory,
                topics: vec![asked::TopicData {
                    topic_id,
                    partitions: vec![asked::PartitionData {
                        partition_index: partition,
                    }],
                }],
            }],
        };
        let ctx = RequestContext::internal();
        match bench.run(ControllerRequest::AssignReplicasToDirs { ctx, request }) {
            ControllerResponse::AssignReplicasToDirs(response) => {
                assert_eq!(response.error_code, 0);
                response.directories[0].topics[0].partitions[0].error_code
            }
            other => panic!("{other:?}"),
        }
    }

    fn partition(bench: &Bench) -> PartitionImage {
        let image = bench.controller.image();
        let partition = image.topics.partition("t", PartitionIndex(0)).unwrap();
        PartitionImage::clone(partition)
    }

    #[test]
    fn replicas_are_where_their_broker_says() {
        let mut bench = Bench::with_brokers(1);
        bench.create_topic("t", 1);
        let image = bench.controller.image();
        let topic_id = image.topics.by_name("t").unwrap().id;
        let online = image.cluster.broker(BrokerId(1)).unwrap().directories[0];
        let other = Uuid([9; 16]);
        let before = partition(&bench);
        assert_eq!(assign(&mut bench, online, topic_id, 0), 0);
        assert_eq!(partition(&bench), before, "it says what is known");
        // A directory that isn't registered counts as offline.
        assert_eq!(assign(&mut bench, other, topic_id, 0), 0);
        let moved = partition(&bench);
        assert_eq!(moved.directories, [other]);
        assert_eq!(
            (moved.leader, &moved.isr[..]),
            (BrokerId::NONE, &before.isr[..])
        );
        assert_eq!(assign(&mut bench, online, topic_id, 0), 0);
        let back = partition(&bench);
        assert_eq!(
            (back.leader, &back.directories[..]),
            (BrokerId(1), &[online][..])
        );
        assert_eq!(
            assign(&mut bench, online, topic_id, 1),
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0
        );
        assert_eq!(
            assign(&mut bench, online, other, 0),
            ErrorCode::UNKNOWN_TOPIC_ID.0
        );
    }
}
