//! Metadata: brokers, topics, leaders. Answered from this core's image; a missing topic
//! is created on the way where that is allowed (`auto.create.topics.enable`).

use std::collections::HashSet;
use std::rc::Rc;

use super::{auto_create, endpoint};
use crate::base::{BrokerId, ErrorCode, Uuid};
use crate::controller::topic_name;
use crate::metadata::topics::numbers;
use crate::metadata::{MetadataImage, PartitionImage, TopicImage};
use crate::security::{OPERATIONS_NOT_ASKED, Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::wire::messages::MetadataRequest;
use crate::wire::messages::metadata_request::MetadataRequestTopic;
use crate::wire::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: MetadataRequest,
) -> MetadataResponse {
    let asked = Asked::of(request.topics, context.api_version);
    if let Asked::Topics(topics) = &asked
        && context.api_version < BY_ID_SINCE
        && topics
            .iter()
            .any(|topic| topic.topic_id != Uuid::ZERO || topic.name.is_none())
    {
        return refuse_whole(topics);
    }
    if let Asked::Topics(topics) = &asked
        && request.allow_auto_topic_creation
    {
        let names = topics.iter().filter_map(|topic| topic.name.as_deref());
        auto_create::missing(&shard, &context, names).await;
    }
    let image = shard.image();
    let view = View {
        shard: &shard,
        context: &context,
        image: &image,
        with_operations: request.include_topic_authorized_operations,
        creates: request.allow_auto_topic_creation
            && shard.node().config.topics.auto_create_topics_enable,
    };
    MetadataResponse {
        brokers: endpoint::alive(&image, &context.listener)
            .into_iter()
            .map(|broker| MetadataResponseBroker {
                node_id: broker.id.0,
                host: broker.host,
                port: broker.port,
                rack: broker.rack,
            })
            .collect(),
        cluster_id: Some(shard.node().cluster_id.to_string()),
        controller_id: shard.node().id.0,
        topics: match asked {
            Asked::All => view.all().await,
            Asked::Topics(topics) => topics.into_iter().map(|topic| view.one(topic)).collect(),
        },
        cluster_authorized_operations: if request.include_cluster_authorized_operations {
            shard.cluster_operations(&context)
        } else {
            OPERATIONS_NOT_ASKED
        },
        ..Default::default()
    }
}

/// Topics that are looked at before others get their turn.
const STEP: usize = 256;

/// First version that finds topics by id (KIP-516).
const BY_ID_SINCE: i16 = 12;

/// Kafka's answer to ids in a version that can't use them.
fn refuse_whole(topics: &[MetadataRequestTopic]) -> MetadataResponse {
    let refused = |topic: &MetadataRequestTopic| MetadataResponseTopic {
        error_code: ErrorCode::INVALID_REQUEST.0,
        name: Some(topic.name.clone().unwrap_or_default()),
        topic_id: topic.topic_id,
        ..Default::default()
    };
    MetadataResponse {
        topics: topics.iter().map(refused).collect(),
        ..Default::default()
    }
}

/// Version 0 has no null: there an empty list means all topics.
enum Asked {
    All,
    Topics(Vec<MetadataRequestTopic>),
}

impl Asked {
    fn of(topics: Option<Vec<MetadataRequestTopic>>, version: i16) -> Asked {
        match topics {
            None => Asked::All,
            Some(topics) if topics.is_empty() && version == 0 => Asked::All,
            Some(mut topics) => {
                // A topic that is asked for twice is answered once.
                let mut seen = HashSet::new();
                topics.retain(|topic| seen.insert((topic.topic_id, topic.name.clone())));
                Asked::Topics(topics)
            }
        }
    }
}

struct View<'a> {
    shard: &'a Shard,
    context: &'a RequestContext,
    image: &'a MetadataImage,
    with_operations: bool,
    /// Whether a missing topic was to be created on the way.
    creates: bool,
}

impl View<'_> {
    async fn all(&self) -> Vec<MetadataResponseTopic> {
        let mut all = Vec::new();
        for (seen, topic) in self.image.topics.iter().enumerate() {
            if seen % STEP == STEP - 1 {
                self.shard.rt().yield_now().await;
            }
            if self.may_describe(&topic.name) {
                all.push(self.found(topic));
            }
        }
        all
    }

    fn one(&self, asked: MetadataRequestTopic) -> MetadataResponseTopic {
        if asked.topic_id != Uuid::ZERO {
            return self.by_id(asked.topic_id);
        }
        let Some(name) = asked.name else {
            return failed(ErrorCode::INVALID_TOPIC_EXCEPTION, None, Uuid::ZERO);
        };
        if !self.may_describe(&name) {
            return refused(name);
        }
        if let Some(topic) = self.image.topics.by_name(&name) {
            return self.found(topic);
        }
        if self.creates && !auto_create::may_create(self.shard, self.context, &name) {
            return refused(name);
        }
        let error = match topic_name::validate(&name) {
            Ok(()) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            Err(_) => ErrorCode::INVALID_TOPIC_EXCEPTION,
        };
        MetadataResponseTopic {
            topic_authorized_operations: self.operations(&name),
            ..failed(error, Some(name), Uuid::ZERO)
        }
    }

    fn by_id(&self, id: Uuid) -> MetadataResponseTopic {
        match self.image.topics.by_id(id) {
            // Without the right to describe it, its name stays hidden.
            Some(topic) if !self.may_describe(&topic.name) => {
                failed(ErrorCode::TOPIC_AUTHORIZATION_FAILED, None, id)
            }
            Some(topic) => self.found(topic),
            None => failed(ErrorCode::UNKNOWN_TOPIC_ID, None, id),
        }
    }

    fn may_describe(&self, topic: &str) -> bool {
        self.shard.authorize(
            self.context,
            Operation::Describe,
            ResourceType::Topic,
            topic,
        )
    }

    fn found(&self, topic: &TopicImage) -> MetadataResponseTopic {
        MetadataResponseTopic {
            error_code: ErrorCode::NONE.0,
            name: Some(topic.name.to_string()),
            topic_id: topic.id,
            is_internal: topic_name::is_internal(&topic.name),
            partitions: topic
                .partitions()
                .map(|(index, partition)| self.partition(index.0, partition))
                .collect(),
            topic_authorized_operations: self.operations(&topic.name),
        }
    }

    fn operations(&self, topic: &str) -> i32 {
        if !self.with_operations {
            return OPERATIONS_NOT_ASKED;
        }
        let kind = ResourceType::Topic;
        self.shard.authorized_operations(self.context, kind, topic)
    }

    fn partition(&self, index: i32, partition: &PartitionImage) -> MetadataResponsePartition {
        MetadataResponsePartition {
            error_code: leader_error(self.image, partition, &self.context.listener).0,
            partition_index: index,
            leader_id: partition.leader.0,
            leader_epoch: partition.leader_epoch.0,
            replica_nodes: numbers(&partition.replicas),
            isr_nodes: numbers(&partition.isr),
            offline_replicas: offline(self.image, partition, &self.context.listener),
        }
    }
}

/// What keeps clients from the leader: there is none, or it lacks their listener.
fn leader_error(image: &MetadataImage, partition: &PartitionImage, listener: &str) -> ErrorCode {
    if partition.leader == BrokerId::NONE {
        ErrorCode::LEADER_NOT_AVAILABLE
    } else if endpoint::find(image, partition.leader, listener).is_none() {
        ErrorCode::LISTENER_NOT_FOUND
    } else {
        ErrorCode::NONE
    }
}

/// Replicas on brokers that are fenced, unknown or not on this listener, or in a log directory
/// that is offline.
pub fn offline(image: &MetadataImage, partition: &PartitionImage, listener: &str) -> Vec<i32> {
    partition
        .replicas
        .iter()
        .filter(|id| {
            let broker = image.cluster.broker(**id);
            let is_online = broker
                .zip(partition.directory_of(**id))
                .is_some_and(|(broker, directory)| broker.may_be_online(directory));
            !is_online || endpoint::find(image, **id, listener).is_none()
        })
        .map(|id| id.0)
        .collect()
}

/// The client may not describe the topic, or may not create what is missing.
fn refused(name: String) -> MetadataResponseTopic {
    let error = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
    failed(error, Some(name), Uuid::ZERO)
}

fn failed(error: ErrorCode, name: Option<String>, topic_id: Uuid) -> MetadataResponseTopic {
    MetadataResponseTopic {
        error_code: error.0,
        // Before version 12 the name can't be null; it is then not asked by id.
        name,
        topic_id,
        ..Default::default()
    }
}
